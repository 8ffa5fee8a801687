//! What the cache may do for a statement that no rollup answers, as far as can be said without asking anybody.
//!
//! Answers of rollups' tables are kept from the first time on, because their changes are followed in any case.
//! For other tables somebody has to ask twice, and PostgreSQL has to take its time, before it is worth
//! following them.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pgstar_cache::Key;
use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::{ColumnRange, Decision};

use super::decisions::Decided;
use super::{CacheSlot, Router};
use crate::follower::Side;
use crate::warehouse::{Snapshot, Warehouse};

/// A statement that PostgreSQL answers faster than this is not worth the question whether an answer still holds.
const WORTH: Duration = Duration::from_millis(1);

/// How often one that was not worth it is measured again.
const MEASURED_AGAIN: u64 = 16;

/// Texts that are remembered as seen; a power of two.
const SIGHTS: usize = 16_384;

/// A table that is read, which of its rows matter, and who follows its changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) table: Oid,
    /// Only rows in all of these matter.
    pub(super) ranges: Vec<ColumnRange>,
    pub(super) side: Side,
}

/// What may come of it.
#[derive(Debug)]
pub(super) enum Prospect {
    /// All that the answer depends on is followed.
    Keep { key: Key, reads: Vec<Read> },
    /// It shall be found out how long PostgreSQL takes, and its tables be followed if that is long.
    Measure,
}

/// Which texts were seen a short while ago. One forgets another now and then.
#[derive(Debug)]
pub(super) struct Sights {
    keyed: RandomState,
    slots: Box<[AtomicU64]>,
}

impl Sights {
    pub(super) fn new() -> Self {
        Sights {
            keyed: RandomState::new(),
            slots: (0..SIGHTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether the text was seen before; it is from now on.
    pub(super) fn has_seen(&self, sql: &[u8]) -> bool {
        let hash = self.keyed.hash_one(sql);
        let slot = usize::try_from(hash).unwrap_or(0) % SIGHTS;
        let slot = self.slots.get(slot);
        slot.is_some_and(|slot| slot.swap(hash, Ordering::Relaxed) == hash)
    }
}

impl Router {
    /// What may come of this decision's statement, whose answer would have this key.
    /// `bound` is what its parameters say of the rows that matter.
    pub(super) fn prospect(
        &self,
        decided: &Decided,
        key: Key,
        bound: &[ColumnRange],
    ) -> Option<Prospect> {
        let tables = &decided.decision.reads;
        let follower = self.warehouse.follower();
        let side = |table: &Oid| {
            let side = follower.side_of(*table)?;
            Some(read(&decided.decision, *table, side, bound))
        };
        let reads: Option<Vec<Read>> = tables.iter().map(side).collect();
        let are_of_rollups = |reads: &Vec<Read>| {
            let mut sides = reads.iter().map(|read| read.side);
            sides.all(|side| side == Side::Rollups)
        };
        if let Some(reads) = reads.as_ref().filter(|reads| are_of_rollups(reads)) {
            let reads = reads.clone();
            return Some(Prospect::Keep { key, reads });
        }
        match (decided.is_slow(), reads) {
            (Some(false), _) if !decided.runs().is_multiple_of(MEASURED_AGAIN) => None,
            (Some(true), Some(reads)) => {
                follower.want_others(tables);
                Some(Prospect::Keep { key, reads })
            }
            (Some(true), None) => {
                follower.want_others(tables);
                None
            }
            (Some(false) | None, _) => follower.may_follow(tables).then_some(Prospect::Measure),
        }
    }

    /// A place for an answer that only tells how long it took.
    pub(super) fn measuring(&self, decided: &Arc<Decided>) -> CacheSlot {
        let slot = CacheSlot::new(self.kept.answer_bytes_max(), |_| ());
        timed(decided, &self.warehouse, slot)
    }
}

/// Tables that the maintainer follows.
pub(super) fn of_rollups(decision: &Decision, tables: &[Oid], bound: &[ColumnRange]) -> Vec<Read> {
    let tables = tables.iter();
    tables
        .map(|table| read(decision, *table, Side::Rollups, bound))
        .collect()
}

fn read(decision: &Decision, table: Oid, side: Side, bound: &[ColumnRange]) -> Read {
    let ranges = decision.ranges.iter().chain(bound);
    let ranges = ranges.filter(|range| range.table == table);
    Read {
        table,
        ranges: ranges.cloned().collect(),
        side,
    }
}

/// The relations that the decision rests on.
pub(super) fn relations(decision: &Decision, snapshot: &Snapshot) -> Vec<Oid> {
    let rollups = decision.matches.iter().flat_map(|found| &found.rollups);
    let rollups = rollups.filter_map(|position| snapshot.rollups.get(*position));
    let bases = rollups.flat_map(|rollup| &rollup.definition.base_relations);
    let mut relations: Vec<Oid> = decision.names.iter().chain(bases).copied().collect();
    relations.sort_unstable();
    relations.dedup();
    relations
}

/// The slot, which from now on also tells how long the answer took.
pub(super) fn timed(
    decided: &Arc<Decided>,
    warehouse: &Arc<Warehouse>,
    slot: CacheSlot,
) -> CacheSlot {
    let (decided, warehouse) = (Arc::clone(decided), Arc::clone(warehouse));
    let begun = Instant::now();
    CacheSlot::new(slot.answer_bytes_max(), move |answer| {
        decided.note_took(begun.elapsed());
        if decided.is_slow() == Some(true) {
            warehouse.follower().want_others(&decided.decision.reads);
        }
        slot.insert(answer);
    })
}

impl Decided {
    /// Whether PostgreSQL takes long to answer it, if that is known.
    fn is_slow(&self) -> Option<bool> {
        self.took().map(|took| took >= WORTH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_seen_the_second_time() {
        let sights = Sights::new();
        assert!(!sights.has_seen(b"SELECT 1"));
        assert!(sights.has_seen(b"SELECT 1"));
        assert!(!sights.has_seen(b"SELECT 2"));
    }
}
