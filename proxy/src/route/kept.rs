//! Answers that are kept, and when a kept one may be used again.
//!
//! An answer is tagged with a position that was read before it was computed: it has every commit up to
//! there, so it holds for as long as none of the tables behind it is changed by a later one. It may have
//! later commits too; those count as changes, which costs a computation and never an answer.

use std::collections::HashMap;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use pgstar_cache::{Answer, AnswerCache, Kept, Key, Statistics};
use pgstar_rewriter::ColumnRange;
use tokio::sync::watch;
use tokio::time::timeout;

use super::CacheSlot;
use super::prospect::Read;
use crate::follower::{Follower, Positions};
use crate::telemetry;

/// How long a statement waits for another session that is computing the same answer.
const FLIGHT_WAIT: Duration = Duration::from_secs(10);

/// Questions whose answers were kept in vain that are remembered.
const IN_VAIN_MAX: u64 = 10_000;

/// After so many answers that changed before anybody asked again, keeping is tried less and less often …
const IN_VAIN_TOLERATED: u32 = 2;

/// … but at least every so many times, given as a power of 2.
const IN_VAIN_EXPONENT_MAX: u32 = 6;

/// From before the answer was computed; `None` when changes were not followed then.
pub(super) type Tag = Option<Tagged>;

/// What is known of an answer beside its question.
#[derive(Debug, Clone)]
pub(super) struct Tagged {
    pub(super) positions: Positions,
    /// Ranges in which rows matter, beside those that its question says.
    pub(super) keys: Arc<[ColumnRange]>,
}

/// The answers of one router.
#[derive(Debug)]
pub(super) struct KeptAnswers {
    answers: Arc<AnswerCache<Entry>>,
    answer_bytes_max: usize,
    flights: Arc<Flights>,
    in_vain: Cache<Key, InVain>,
}

#[derive(Debug)]
struct Entry {
    tag: Tag,
    is_used: AtomicBool,
}

/// How often an answer was kept for nothing, and how many more times it is not worth trying.
#[derive(Debug, Clone, Copy, Default)]
struct InVain {
    times: u32,
    left_out: u32,
}

impl KeptAnswers {
    /// The largest answer that is kept, in bytes.
    pub(super) fn answer_bytes_max(&self) -> usize {
        self.answer_bytes_max
    }

    /// At most this much memory for all and for each answer, in bytes.
    pub(super) fn new(bytes_max: u64, answer_bytes_max: usize) -> Self {
        KeptAnswers {
            answers: Arc::new(AnswerCache::new(bytes_max)),
            answer_bytes_max,
            flights: Arc::default(),
            in_vain: Cache::builder().max_capacity(IN_VAIN_MAX).build(),
        }
    }

    /// The answer kept under this key, if its tag will do.
    pub(super) fn find(
        &self,
        key: &Key,
        will_do: &(dyn Fn(&Tag) -> bool + Sync),
    ) -> Option<Arc<Answer>> {
        let kept: Arc<Kept<Entry>> = self.answers.get(key)?;
        if !will_do(&kept.tag.tag) {
            return None;
        }
        kept.tag.is_used.store(true, Ordering::Relaxed);
        Some(Arc::clone(&kept.answer))
    }

    /// Whether [`find`](Self::find) would find one; counts as no use.
    pub(super) fn has(&self, key: &Key, will_do: &(dyn Fn(&Tag) -> bool + Sync)) -> bool {
        self.answers
            .get(key)
            .is_some_and(|kept| will_do(&kept.tag.tag))
    }

    /// The answer if there is one or another session is just computing it; else the turn to do so, which
    /// is none for who has waited in vain.
    pub(super) async fn find_or_board(
        &self,
        key: &Key,
        will_do: &(dyn Fn(&Tag) -> bool + Sync),
    ) -> Result<Arc<Answer>, Option<Flight>> {
        let outcome = match self.find(key, will_do) {
            Some(answer) => Ok(answer),
            None => match Flights::board(&self.flights, key) {
                Ok(flight) => Err(Some(flight)),
                Err(mut landing) => {
                    // However it ends: landed, given up or too long.
                    let _ended = timeout(FLIGHT_WAIT, landing.changed()).await;
                    self.find(key, will_do).ok_or(None)
                }
            },
        };
        match &outcome {
            Ok(_) => {
                self.answers.hit();
                telemetry::cache_hit();
            }
            Err(_) => {
                self.answers.miss();
                telemetry::cache_miss();
            }
        }
        outcome
    }

    /// A place for an answer that is about to be computed. `tag` was read before.
    pub(super) fn slot(&self, key: Key, tag: Tag, flight: Option<Flight>) -> CacheSlot {
        let answers = Arc::clone(&self.answers);
        let in_vain = self.in_vain.clone();
        CacheSlot::new(self.answer_bytes_max, move |answer| {
            note_use(&answers, &in_vain, &key);
            let is_used = AtomicBool::new(false);
            answers.insert(key, answer, Entry { tag, is_used });
            // Lands only now, so that whoever waits finds the answer.
            drop(flight);
        })
    }

    /// Whether earlier answers to this question were asked for again before they changed, or it is time
    /// to see whether they are now.
    pub(super) fn is_worth_keeping(&self, key: &Key) -> bool {
        let Some(mut in_vain) = self.in_vain.get(key) else {
            return true;
        };
        let is_worth_it = in_vain.left_out == 0;
        if !is_worth_it {
            in_vain.left_out -= 1;
            self.in_vain.insert(key.clone(), in_vain);
        }
        is_worth_it
    }

    pub(super) fn clear(&self) {
        self.answers.clear();
        self.in_vain.invalidate_all();
    }

    pub(super) fn statistics(&self) -> Statistics {
        self.answers.statistics()
    }
}

/// Notes whether the answer that makes way was worth keeping.
fn note_use(answers: &AnswerCache<Entry>, in_vain: &Cache<Key, InVain>, key: &Key) {
    let Some(replaced) = answers.get(key) else {
        return;
    };
    if replaced.tag.is_used.load(Ordering::Relaxed) {
        in_vain.invalidate(key);
        return;
    }
    let times = in_vain.get(key).unwrap_or_default().times + 1;
    let exponent = times
        .saturating_sub(IN_VAIN_TOLERATED)
        .min(IN_VAIN_EXPONENT_MAX);
    let left_out = (1 << exponent) - 1;
    in_vain.insert(key.clone(), InVain { times, left_out });
}

/// Questions whose answers are being computed to be kept.
#[derive(Debug, Default)]
struct Flights(Mutex<HashMap<Key, watch::Receiver<()>>>);

/// The turn to compute an answer; whoever waits for it is released when this is dropped.
#[derive(Debug)]
pub(super) struct Flight {
    flights: Arc<Flights>,
    key: Key,
    _landing: watch::Sender<()>,
}

impl Flights {
    /// The turn, or what ends when the one who has it is done.
    fn board(flights: &Arc<Self>, key: &Key) -> Result<Flight, watch::Receiver<()>> {
        let mut boarded = flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(landing) = boarded.get(key) {
            return Err(landing.clone());
        }
        let (sender, landing) = watch::channel(());
        boarded.insert(key.clone(), landing);
        Ok(Flight {
            flights: Arc::clone(flights),
            key: key.clone(),
            _landing: sender,
        })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut boarded = self
            .flights
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        boarded.remove(&self.key);
    }
}

/// Whether an answer with this tag may be used, as far as is known of what it reads.
pub(super) fn holds(follower: &Follower, tag: &Tag, reads: &[Read]) -> bool {
    tag.as_ref().is_some_and(|Tagged { positions, keys }| {
        let mut reads = reads.iter();
        reads.all(|read| holds_in(follower, *positions, read, keys))
    })
}

/// The same for one table; a range is enough that nothing touched.
pub(super) fn holds_in(
    follower: &Follower,
    positions: Positions,
    read: &Read,
    keys: &[ColumnRange],
) -> bool {
    let is_unchanged = |ranges: &[ColumnRange]| {
        let unchanged = follower.is_unchanged(positions, read.table, ranges, read.side);
        unchanged.is_ok()
    };
    let mut keys = keys.iter().filter(|range| range.table == read.table);
    is_unchanged(&read.ranges) || keys.any(|range| is_unchanged(slice::from_ref(range)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn answer() -> Answer {
        Answer {
            row_description: Bytes::from_static(b"T"),
            rows: Bytes::from_static(b"D"),
        }
    }

    fn kept() -> (KeptAnswers, Key) {
        (KeptAnswers::new(1 << 20, 1 << 10), Key::of(&[b"question"]))
    }

    #[tokio::test]
    async fn one_computes_and_the_others_wait_for_it() {
        let (kept, key) = kept();
        let flight = kept.find_or_board(&key, &|_| true).await.unwrap_err();
        let slot = kept.slot(key.clone(), None, Some(flight.unwrap()));
        let waits = kept.find_or_board(&key, &|_| true);
        let lands = async { slot.insert(answer()) };
        let (found, ()) = tokio::join!(waits, lands);
        assert_eq!(*found.unwrap(), answer());
    }

    #[tokio::test]
    async fn who_waits_is_released_when_the_computation_is_given_up() {
        let (kept, key) = kept();
        let flight = kept.find_or_board(&key, &|_| true).await.unwrap_err();
        let waits = kept.find_or_board(&key, &|_| true);
        let (found, ()) = tokio::join!(waits, async { drop(flight) });
        assert!(found.unwrap_err().is_none());
        assert!(
            kept.find_or_board(&key, &|_| true)
                .await
                .unwrap_err()
                .is_some()
        );
    }

    #[test]
    fn an_answer_whose_tag_will_not_do_is_not_found() {
        let (kept, key) = kept();
        kept.slot(key.clone(), None, None).insert(answer());
        assert!(kept.find(&key, &|_| false).is_none() && kept.has(&key, &|_| true));
    }

    #[test]
    fn keeping_in_vain_is_tried_less_often_and_never_given_up() {
        let (kept, key) = kept();
        let mut tried = 0;
        for _ in 0..1000 {
            if kept.is_worth_keeping(&key) {
                tried += 1;
                kept.slot(key.clone(), None, None).insert(answer());
            }
        }
        assert!((15..40).contains(&tried), "{tried}");
        kept.find(&key, &|_| true);
        kept.slot(key.clone(), None, None).insert(answer());
        assert!(kept.is_worth_keeping(&key) && kept.is_worth_keeping(&key));
    }
}
