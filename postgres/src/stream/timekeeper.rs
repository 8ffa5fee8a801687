//! Reads the log's end for everybody who waits at that moment, and now and then for the bound on
//! staleness; and notices what changes without being in the stream.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgstar_rewriter::catalog::Oid;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::Client;

use super::clock::{Clock, Fingerprint, Shapes};
use super::epoch::Setting;
use super::tables::{self, Followed};
use super::{Epoch, Request, StreamError, publication};
use crate::replication::Lsn;

/// How often the log's end is read for the bound on staleness.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// Without a proven reading for this long, the log is flushed by a barrier.
const STALENESS_BEFORE_BARRIER: Duration = Duration::from_millis(500);

/// So many sessions share one reading of the log's end.
const SHARED_READING_MAX: usize = 4096;

/// What the catalog says of everything that is followed.
pub(super) struct Seen {
    pub(super) followed: Followed,
    shapes: Shapes,
    fingerprint: Fingerprint,
    /// The log's end when nothing had changed since.
    pub(super) end: Lsn,
}

/// Looks until nothing changes meanwhile, so that whatever changes later, a new partition too, changes
/// the fingerprint.
pub(super) async fn look(
    asking: &Client,
    clock: &mut Clock,
    setting: &Setting<'_>,
    mut followed: Followed,
) -> Result<Seen, StreamError> {
    loop {
        clock.watch(&followed);
        let (_, before) = clock.read(asking).await?;
        let shapes = clock.shapes(asking).await?;
        let (now, _refusals) = tables::inspect(asking, setting.tables).await?;
        if !now.parents.is_empty() {
            publication::refresh(asking, &setting.options.publication).await?;
        }
        let (end, fingerprint) = clock.read(asking).await?;
        if now.published != followed.published {
            return Err(StreamError::PublicationChanged);
        }
        if now == followed && before == fingerprint {
            return Ok(Seen {
                followed,
                shapes,
                fingerprint,
                end,
            });
        }
        followed = now;
    }
}

/// Who does so in one epoch.
pub(super) struct Timekeeper<'a> {
    pub(super) asking: &'a Client,
    pub(super) clock: Clock,
    pub(super) seen: Seen,
    pub(super) setting: &'a Setting<'a>,
    pub(super) epoch: Epoch,
    /// When the server began that is asked.
    pub(super) server: Arc<str>,
}

impl Timekeeper<'_> {
    pub(super) async fn keep(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<Infallible, StreamError> {
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut waiting = vec![];
            tokio::select! {
                _ = requests.recv_many(&mut waiting, SHARED_READING_MAX) => (),
                _ = ticks.tick() => self.flush_when_stale(),
            }
            self.read_for(waiting).await?;
        }
    }

    /// The reading begins after all of these have asked.
    async fn read_for(&mut self, waiting: Vec<Request>) -> Result<(), StreamError> {
        let asked = Instant::now();
        let patience = self.setting.options.patience;
        let reading = timeout(patience, self.clock.read(self.asking)).await;
        let (end, fingerprint) = reading.map_err(|_| StreamError::NoAnswer(patience))??;
        self.seen.end = end;
        if fingerprint != self.seen.fingerprint {
            self.look_again(fingerprint).await?;
        }
        let end = self.seen.end;
        let shown = self.clock.shown(&self.server, asked);
        self.setting.shared.sampled(asked, end, shown);
        for request in waiting {
            // Whoever asked may have gone.
            let _ = request.send((self.epoch.id, end));
        }
        Ok(())
    }

    /// Finds out what changed, before anybody hears of the reading that showed it.
    async fn look_again(&mut self, fingerprint: Fingerprint) -> Result<(), StreamError> {
        let before = self.seen.fingerprint.publication;
        if fingerprint.publication != before {
            return Err(StreamError::PublicationChanged);
        }
        let followed = self.seen.followed.clone();
        let looking = look(self.asking, &mut self.clock, self.setting, followed);
        let patience = self.setting.options.patience;
        let now = timeout(patience, looking).await;
        let now = now.map_err(|_| StreamError::NoAnswer(patience))??;
        if now.fingerprint.publication != before {
            return Err(StreamError::PublicationChanged);
        }
        let changed = differing(&self.seen.shapes, &now.shapes);
        self.setting
            .shared
            .reshaped(now.followed.clone(), &changed, now.end);
        self.seen = now;
        Ok(())
    }

    fn flush_when_stale(&self) {
        let shared = self.setting.shared;
        let is_fresh = shared
            .staleness()
            .is_some_and(|age| age < STALENESS_BEFORE_BARRIER);
        if shared.is_safe() && !is_fresh && shared.is_undecoded(self.seen.end) {
            shared.barrier.notify_one();
        }
    }
}

fn differing(before: &Shapes, after: &Shapes) -> Vec<Oid> {
    let roots = before.keys().chain(after.keys());
    let differs = |root: &&Oid| before.get(root) != after.get(root);
    roots.filter(differs).copied().collect()
}
