//! What the tasks of a stream know together, and what sessions ask. No connection is used here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgstar_rewriter::ColumnRange;
use pgstar_rewriter::catalog::Oid;
use tokio::sync::{Notify, watch};

use super::progress::Progress;
use super::recent::Contents;
use super::snapshot::{Snapshot, Xid};
use super::tables::{Followed, Refusal};
use super::touching::{Column, Touches, Tracked};
use super::{Changed, Epoch, EpochId, Lag, Position, Unproven};
use crate::pgoutput::Xid32;
use crate::replication::Lsn;
use crate::visible::{Glimpse, Shown};

/// What waiting sessions watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Safe {
    pub(super) epoch: Option<Epoch>,
    pub(super) position: Option<Lsn>,
}

enum Stage {
    Down { why: String },
    Up(Box<Live>),
}

struct Live {
    epoch: Epoch,
    progress: Progress,
    followed: Followed,
    blocker: Option<String>,
    /// What is known of the catalog is of when this was seen.
    shown: Option<Shown<()>>,
}

pub(crate) struct Shared {
    stage: Mutex<Stage>,
    refusals: Mutex<Vec<Refusal>>,
    /// When the server process began that is followed.
    server: Mutex<String>,
    safe: watch::Sender<Safe>,
    /// What is tracked in this epoch; changed together with its progress.
    tracked: Mutex<Arc<Tracked>>,
    /// There are commits that may not be visible yet.
    pub(super) visibility: Notify,
    /// Somebody wants the log to be flushed and decoded.
    pub(crate) barrier: Notify,
}

impl Shared {
    pub(super) fn new(refusals: Vec<Refusal>) -> Self {
        Shared {
            stage: Mutex::new(Stage::Down {
                why: "the stream is starting".to_owned(),
            }),
            refusals: Mutex::new(refusals),
            server: Mutex::default(),
            safe: watch::Sender::new(Safe::default()),
            tracked: Mutex::default(),
            visibility: Notify::new(),
            barrier: Notify::new(),
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        // Nothing panics half-way through a change of the stage.
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live<T>(&self, read: impl FnOnce(&Live) -> T) -> Option<T> {
        match &*self.stage() {
            Stage::Up(live) => Some(read(live)),
            Stage::Down { .. } => None,
        }
    }

    /// Changes the epoch's state, and tells those who wait if the safe position moved.
    fn change<T>(&self, change: impl FnOnce(&mut Live) -> T) -> Option<T> {
        let mut stage = self.stage();
        let Stage::Up(live) = &mut *stage else {
            return None;
        };
        let outcome = change(live);
        let now = Safe {
            epoch: Some(live.epoch),
            position: live.progress.safe(),
        };
        // Told under the lock, so that nobody sees an older position after a newer one.
        self.safe
            .send_if_modified(|told| std::mem::replace(told, now) != now);
        Some(outcome)
    }

    /// `looked` is the log's end when the tables were looked at.
    pub(super) fn up(&self, epoch: Epoch, ended: Xid, followed: Followed, looked: Lsn) {
        let mut progress = Progress::starting(epoch.complete_from, ended);
        progress.recent.looked(looked);
        let live = Live {
            epoch,
            progress,
            followed,
            blocker: None,
            shown: None,
        };
        *self.stage() = Stage::Up(Box::new(live));
        self.set_tracked(Tracked::default());
        self.change(|_| ());
        self.visibility.notify_one();
    }

    /// Continuity is lost: nothing that was known holds.
    pub(super) fn down(&self, why: String) {
        let mut stage = self.stage();
        *stage = Stage::Down { why };
        self.safe.send_replace(Safe::default());
    }

    pub(super) fn committed(&self, xid: Xid32, end: Lsn, changed: &[Oid], touches: &Touches) {
        self.change(|live| live.progress.committed(xid, end, changed, touches));
        self.visibility.notify_one();
    }

    /// The columns that a transaction is looked at for whose first change comes now.
    pub(super) fn tracked(&self) -> Arc<Tracked> {
        let tracked = self.tracked.lock();
        Arc::clone(&tracked.unwrap_or_else(PoisonError::into_inner))
    }

    fn set_tracked(&self, tracked: Tracked) {
        *self.tracked.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(tracked);
    }

    pub(super) fn track(&self, range: &ColumnRange) {
        self.change(|live| {
            let column = Column {
                name: range.column.clone(),
                ty: range.ty,
            };
            let reported = live.followed.reported_as.get(&range.table);
            if let Some(reported) = reported.copied()
                && live.progress.track(reported, column)
            {
                self.set_tracked(Tracked {
                    columns: live.progress.tracked(),
                    partitioned: live.followed.parents.clone(),
                });
            }
        });
    }

    pub(super) fn unchanged_in(
        &self,
        position: Position,
        table: Oid,
        ranges: &[ColumnRange],
    ) -> Result<(), Changed> {
        let compare = |live: &Live| match live.epoch.id == position.epoch {
            true => live.unchanged_in(table, ranges, position.at),
            false => Err(Changed::OtherEpoch),
        };
        self.live(compare).unwrap_or(Err(Changed::OtherEpoch))
    }

    pub(super) fn decoded(&self, end: Lsn) {
        self.change(|live| live.progress.decoded(end));
    }

    pub(super) fn settle(&self, snapshot: &Snapshot) {
        self.change(|live| live.progress.settle(snapshot));
    }

    pub(super) fn settle_blindly(&self) {
        self.change(|live| live.progress.settle_blindly());
    }

    pub(super) fn waits_for_visibility(&self) -> bool {
        self.live(|live| live.progress.waits_for_visibility())
            .unwrap_or(false)
    }

    /// What is known of the catalog is of the instant at which the end was read.
    pub(super) fn sampled(&self, asked: Instant, end: Lsn, shown: Option<Shown<()>>) {
        self.change(|live| {
            live.shown = shown;
            live.progress.sample(asked, end);
        });
    }

    /// The epoch in which the log's end can be taken from the glimpse, because nothing that is known of the catalog has
    /// changed until then.
    pub(super) fn recall(&self, glimpse: &Glimpse) -> Option<EpochId> {
        let recall = |live: &Live| {
            let shown = live.shown.as_ref()?;
            shown.recall(glimpse).map(|()| live.epoch.id)
        };
        self.live(recall).flatten()
    }

    /// Something outside the stream changed these tables before `end`.
    pub(super) fn reshaped(&self, followed: Followed, tables: &[Oid], end: Lsn) {
        self.change(|live| {
            live.followed = followed;
            tables
                .iter()
                .for_each(|table| live.progress.reshaped(*table, end));
        });
    }

    /// Whether everything that changed these tables and ends at or before `end` is in the contents;
    /// not known outside an epoch. `end` has to be decoded.
    pub(crate) fn are_in(&self, contents: &Contents, relations: &[Oid], end: Lsn) -> bool {
        let ask = |live: &Live| {
            let reported = live.reported_as(relations)?;
            Some(live.progress.recent.are_in(contents, &reported, end))
        };
        self.live(ask).flatten().unwrap_or(false)
    }

    /// How far the contents are behind of what becomes of these tables, at most.
    pub(crate) fn lag_of(&self, contents: &Contents, relations: &[Oid]) -> Option<Lag> {
        let ask = |live: &Live| {
            let reported = live.reported_as(relations)?;
            live.progress.lag_of(contents, &reported, Instant::now())
        };
        self.live(ask).flatten()
    }

    /// Who asks has everything that this snapshot sees.
    pub(crate) fn forget(&self, floor: &Snapshot) {
        self.change(|live| live.progress.recent.forget(floor));
    }

    pub(super) fn positions(&self) -> Option<(Lsn, Lsn)> {
        self.live(|live| live.progress.positions()).flatten()
    }

    /// Whether all shapes were looked at, at this position, since they last changed.
    pub(crate) fn is_validated(&self, validated: Lsn) -> bool {
        self.live(|live| live.progress.recent.are_validated(validated))
            .unwrap_or(false)
    }

    pub(super) fn blocked_by(&self, blocker: Option<String>) {
        self.change(|live| live.blocker = blocker);
    }

    pub(super) fn refuse(&self, refusals: Vec<Refusal>) {
        *self.refusals.lock().unwrap_or_else(PoisonError::into_inner) = refusals;
    }

    pub(super) fn is_on(&self, server: String) {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = server;
    }

    pub(super) fn server(&self) -> String {
        let server = self.server.lock();
        server.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn refusals(&self) -> Vec<Refusal> {
        self.refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether flushing the log would help to reach this position.
    pub(super) fn is_undecoded(&self, end: Lsn) -> bool {
        self.live(|live| live.progress.is_undecoded(end))
            .unwrap_or(false)
    }

    pub(super) fn watch(&self) -> watch::Receiver<Safe> {
        self.safe.subscribe()
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.live(|live| live.epoch)
    }

    pub(crate) fn is_safe(&self) -> bool {
        self.safe.borrow().position.is_some()
    }

    pub(super) fn last_change(&self, relation: Oid) -> Result<Option<Lsn>, Changed> {
        self.live(|live| live.last_change(relation))
            .unwrap_or(Err(Changed::OtherEpoch))
    }

    pub(super) fn unchanged_since(
        &self,
        position: Position,
        relations: &[Oid],
    ) -> Result<(), Changed> {
        let compare = |live: &Live| match live.epoch.id == position.epoch {
            true => relations
                .iter()
                .try_for_each(|relation| live.unchanged(*relation, position.at)),
            false => Err(Changed::OtherEpoch),
        };
        self.live(compare).unwrap_or(Err(Changed::OtherEpoch))
    }

    pub(super) fn staleness(&self) -> Option<Duration> {
        self.live(|live| live.progress.staleness(Instant::now()))?
    }

    /// Why there is no proof, as far as is known without asking the server.
    pub(crate) fn unproven(&self, waited: Duration, wanted: Option<(EpochId, Lsn)>) -> Unproven {
        match &*self.stage() {
            Stage::Down { why } => Unproven::NotFollowing { why: why.clone() },
            Stage::Up(live) => live.unproven(waited, wanted),
        }
    }
}

impl Live {
    /// The tables as the stream reports them, if all are followed.
    fn reported_as(&self, relations: &[Oid]) -> Option<Vec<Oid>> {
        let reported = relations
            .iter()
            .map(|relation| self.followed.reported_as.get(relation).copied());
        reported.collect()
    }

    fn last_change(&self, relation: Oid) -> Result<Option<Lsn>, Changed> {
        let reported = self.followed.reported_as.get(&relation);
        let reported = reported.ok_or(Changed::NotFollowed(relation))?;
        Ok(self.progress.last_change(*reported))
    }

    fn unchanged(&self, relation: Oid, since: Lsn) -> Result<(), Changed> {
        match self.last_change(relation)? {
            Some(at) if at > since => Err(Changed::At { relation, at }),
            _ => Ok(()),
        }
    }

    fn unchanged_in(
        &self,
        relation: Oid,
        ranges: &[ColumnRange],
        since: Lsn,
    ) -> Result<(), Changed> {
        self.unchanged(relation, since).or_else(|changed| {
            let reported = self.followed.reported_as.get(&relation);
            let is_aside = |range: &ColumnRange| {
                reported.is_some_and(|table| self.progress.is_aside(*table, range, since))
            };
            match ranges.iter().any(is_aside) {
                true => Ok(()),
                false => Err(changed),
            }
        })
    }

    fn unproven(&self, waited: Duration, wanted: Option<(EpochId, Lsn)>) -> Unproven {
        match (self.progress.safe(), &self.blocker) {
            (None, blocker) => Unproven::Starting {
                blocker: blocker
                    .clone()
                    .unwrap_or_else(|| "transactions from before".to_owned()),
            },
            (Some(safe), _) => Unproven::Late {
                waited,
                behind: wanted.map(|(_, end)| end.bytes_since(safe)),
            },
        }
    }
}
