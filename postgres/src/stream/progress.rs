//! How far the stream is known: what was decoded, what is visible, and which relation changed last
//! where. Pure: it is told of events and asked; no connection, no clock of its own.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use pgstar_rewriter::ColumnRange;
use pgstar_rewriter::catalog::Oid;

use super::Lag;
use super::buckets::Buckets;
use super::recent::{Contents, Recent};
use super::snapshot::{Snapshot, Xid};
use super::touching::{Column, Touches};
use crate::pgoutput::Xid32;
use crate::replication::Lsn;

/// So many readings of the log's end are remembered while they are unproven; while there are more,
/// new ones are not taken, which makes the bound on staleness larger and never too small.
const SAMPLES_MAX: usize = 4096;

/// So many of them are remembered after they were proven.
const PROVEN_SAMPLES: usize = 32;

/// Something that was decoded and holds up the safe position until it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The slot's beginning: commits before it are not in the stream, and all of them are visible
    /// once every transaction up to this one has ended.
    Start { ended: Xid, end: Lsn },
    /// A commit, which may arrive before anybody can see it.
    Commit { xid: Xid32, end: Lsn },
    /// Nothing that concerns us ends before this position and after the step before.
    Quiet { end: Lsn },
}

impl Step {
    fn end(self) -> Lsn {
        match self {
            Step::Start { end, .. } | Step::Commit { end, .. } | Step::Quiet { end } => end,
        }
    }

    fn is_settled(self, snapshot: &Snapshot) -> bool {
        match self {
            Step::Start { ended, .. } => snapshot.xmin > ended,
            Step::Commit { xid, .. } => snapshot.sees(snapshot.extend(xid)),
            Step::Quiet { .. } => true,
        }
    }
}

/// So many columns of one table are tracked.
const COLUMNS_MAX: usize = 8;

/// What is known of the changes of one column.
#[derive(Debug)]
struct History {
    column: Column,
    /// The end of the newest commit that may have touched any of its values.
    any: Option<Lsn>,
    each: Buckets,
}

/// One epoch's progress.
#[derive(Debug, Default)]
pub(super) struct Progress {
    changed: HashMap<Oid, Lsn>,
    columns: HashMap<Oid, Vec<History>>,
    pub(super) recent: Recent,
    /// In the order of the log.
    waiting: VecDeque<Step>,
    safe: Option<Lsn>,
    samples: VecDeque<(Instant, Lsn)>,
}

impl Progress {
    /// Nothing is safe before every transaction up to `ended` has ended.
    pub(super) fn starting(from: Lsn, ended: Xid) -> Self {
        let first = Step::Start { ended, end: from };
        Progress {
            waiting: VecDeque::from([first]),
            recent: Recent::starting(ended),
            ..Progress::default()
        }
    }

    /// A transaction was decoded whole.
    pub(super) fn committed(&mut self, xid: Xid32, end: Lsn, changed: &[Oid], touches: &Touches) {
        for relation in changed {
            self.touch(*relation, end);
            for history in self.columns.get_mut(relation).into_iter().flatten() {
                match touches.of(*relation, &history.column) {
                    Some(touched) => history.each.absorb(touched, end),
                    None => history.any = Some(end),
                }
            }
        }
        self.recent.committed(xid, end, changed);
        self.waiting.push_back(Step::Commit { xid, end });
    }

    /// Something that is not in the stream changed the relation before `end`.
    pub(super) fn reshaped(&mut self, relation: Oid, end: Lsn) {
        self.touch(relation, end);
        self.recent.reshaped(relation, end);
        for history in self.columns.get_mut(&relation).into_iter().flatten() {
            history.any = history.any.max(Some(end));
        }
    }

    /// Whether the column is tracked from now on and was not before.
    pub(super) fn track(&mut self, relation: Oid, column: Column) -> bool {
        let any = self.changed.get(&relation).copied();
        let columns = self.columns.entry(relation).or_default();
        let is_tracked = columns.iter().any(|history| history.column == column);
        if is_tracked || columns.len() == COLUMNS_MAX {
            return false;
        }
        columns.push(History {
            each: column.buckets(),
            column,
            // Nobody looked at what was changed so far.
            any,
        });
        true
    }

    pub(super) fn tracked(&self) -> HashMap<Oid, Vec<Column>> {
        let columns = self.columns.iter();
        let columns = columns.map(|(relation, columns)| {
            let columns = columns.iter().map(|history| history.column.clone());
            (*relation, columns.collect())
        });
        columns.collect()
    }

    /// Whether every commit that is known and ends after this position changed only rows outside of the range.
    pub(super) fn is_aside(&self, relation: Oid, range: &ColumnRange, since: Lsn) -> bool {
        let mut columns = self.columns.get(&relation).into_iter().flatten();
        let is_its = |history: &&History| {
            history.column.name == range.column && history.column.ty == range.ty
        };
        columns.find(is_its).is_some_and(|history| {
            history.any.is_none_or(|any| any <= since)
                && !history.each.is_touched(range.low, range.high, since)
        })
    }

    fn touch(&mut self, relation: Oid, end: Lsn) {
        let last = self.changed.entry(relation).or_insert(end);
        *last = end.max(*last);
    }

    /// Everything before `end` has been decoded.
    pub(super) fn decoded(&mut self, end: Lsn) {
        match self.waiting.back_mut() {
            None => self.advance(end),
            Some(Step::Quiet { end: last }) => *last = end.max(*last),
            Some(last) if last.end() >= end => (),
            Some(_) => self.waiting.push_back(Step::Quiet { end }),
        }
    }

    /// Whether a snapshot could move the safe position.
    pub(super) fn waits_for_visibility(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Moves the safe position past everything that this snapshot sees. Whatever it sees, every later
    /// snapshot of a primary sees too.
    pub(super) fn settle(&mut self, snapshot: &Snapshot) {
        let mut left: VecDeque<Step> = VecDeque::new();
        for step in std::mem::take(&mut self.waiting) {
            match (step.is_settled(snapshot), left.back_mut()) {
                (true, None) => self.advance(step.end()),
                // Visible, but behind one that is not: its position is all that is left of it, so
                // that what waits is bounded by the number of transactions that hang at their end.
                (true, Some(Step::Quiet { end })) => *end = step.end(),
                (true, Some(_)) => left.push_back(Step::Quiet { end: step.end() }),
                (false, _) => left.push_back(step),
            }
        }
        self.waiting = left;
    }

    /// Moves the safe position past everything, seen or not. Only the tests' mutant does this.
    pub(super) fn settle_blindly(&mut self) {
        let steps = std::mem::take(&mut self.waiting);
        if let Some(last) = steps.back() {
            self.advance(last.end());
        }
    }

    fn advance(&mut self, position: Lsn) {
        let safe = self.safe.map_or(position, |safe| safe.max(position));
        self.safe = Some(safe);
        // The newest proven reading is the one that counts; what lags behind it looks at older ones.
        let is_proven = |(_, end): &(Instant, Lsn)| *end <= safe;
        while self.samples.get(PROVEN_SAMPLES).is_some_and(is_proven) {
            self.samples.pop_front();
        }
    }

    /// `end` was the log's end at some instant not before `asked`.
    pub(super) fn sample(&mut self, asked: Instant, end: Lsn) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push_back((asked, end));
        }
        if let Some(safe) = self.safe {
            self.advance(safe);
        }
    }

    /// The last reading of the log's end, and the safe position.
    pub(super) fn positions(&self) -> Option<(Lsn, Lsn)> {
        let (_, end) = self.samples.back()?;
        Some((*end, self.safe?))
    }

    /// Every commit that ends up to here is decoded and visible.
    pub(super) fn safe(&self) -> Option<Lsn> {
        self.safe
    }

    /// Whether the stream has not got that far yet, visible or not.
    pub(super) fn is_undecoded(&self, end: Lsn) -> bool {
        let decoded = self.waiting.back().map(|step| step.end()).max(self.safe);
        decoded.is_none_or(|decoded| decoded < end)
    }

    pub(super) fn last_change(&self, relation: Oid) -> Option<Lsn> {
        self.changed.get(&relation).copied()
    }

    /// How long ago everything was decoded and visible, at most.
    pub(super) fn staleness(&self, now: Instant) -> Option<Duration> {
        let safe = self.safe?;
        let mut newest_first = self.samples.iter().rev();
        let (asked, _) = newest_first.find(|(_, end)| *end <= safe)?;
        Some(now.saturating_duration_since(*asked))
    }

    /// How far the contents are behind of what becomes of these tables, at most.
    pub(super) fn lag_of(
        &self,
        contents: &Contents,
        relations: &[Oid],
        now: Instant,
    ) -> Option<Lag> {
        let safe = self.safe?;
        let (_, newest) = self.samples.back()?;
        let mut proven = self.samples.iter().rev().filter(|(_, end)| *end <= safe);
        let is_in = |(_, end): &&(Instant, Lsn)| self.recent.are_in(contents, relations, *end);
        let (asked, end) = proven.find(is_in)?;
        Some(Lag {
            at: *end,
            bytes: newest.bytes_since(*end),
            time: now.saturating_duration_since(*asked),
        })
    }

    #[cfg(test)]
    fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().unwrap()
    }

    fn started() -> Progress {
        let mut progress = Progress::starting(Lsn(100), Xid(9));
        progress.settle(&snapshot("10:10:"));
        progress
    }

    fn commit(progress: &mut Progress, xid: u32, end: u64, relation: u32) {
        let touches = Touches::default();
        progress.committed(Xid32(xid), Lsn(end), &[Oid(relation)], &touches);
    }

    #[test]
    fn nothing_is_safe_before_the_transactions_of_the_start_have_ended() {
        let mut progress = Progress::starting(Lsn(100), Xid(9));
        progress.decoded(Lsn(120));
        progress.settle(&snapshot("9:12:9"));
        assert_eq!(progress.safe(), None);
        progress.settle(&snapshot("10:12:11"));
        assert_eq!(progress.safe(), Some(Lsn(120)));
    }

    #[test]
    fn a_commit_is_known_at_once_but_safe_only_when_visible() {
        let mut progress = started();
        commit(&mut progress, 10, 200, 1);
        progress.decoded(Lsn(250));
        assert_eq!(progress.last_change(Oid(1)), Some(Lsn(200)));
        assert_eq!(progress.last_change(Oid(2)), None);
        assert!(!progress.is_undecoded(Lsn(250)) && progress.is_undecoded(Lsn(251)));
        progress.settle(&snapshot("10:11:10"));
        assert_eq!(progress.safe(), Some(Lsn(100)));
        progress.settle(&snapshot("11:11:"));
        assert_eq!(progress.safe(), Some(Lsn(250)));
        progress.decoded(Lsn(300));
        assert_eq!(progress.safe(), Some(Lsn(300)), "nothing to wait for");
    }

    #[test]
    fn a_commit_that_stays_invisible_holds_up_those_behind_it_in_bounded_memory() {
        let mut progress = started();
        commit(&mut progress, 10, 200, 1);
        for xid in 11..5000 {
            commit(&mut progress, xid, u64::from(xid) * 20, 2);
            progress.settle(&snapshot(&format!("10:{}:10", xid + 1)));
            assert!(progress.waiting() <= 2, "{}", progress.waiting());
        }
        assert_eq!(progress.safe(), Some(Lsn(100)));
        assert_eq!(progress.last_change(Oid(2)), Some(Lsn(4999 * 20)));
        progress.settle(&snapshot("5000:5000:"));
        assert_eq!(progress.safe(), Some(Lsn(4999 * 20)));
    }

    #[test]
    fn staleness_is_the_age_of_the_newest_proven_reading() {
        let mut progress = started();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(progress.staleness(at(1)), None);
        progress.sample(at(1), Lsn(100));
        progress.sample(at(2), Lsn(150));
        progress.sample(at(3), Lsn(160));
        assert_eq!(progress.staleness(at(4)), Some(Duration::from_secs(3)));
        progress.decoded(Lsn(155));
        assert_eq!(progress.staleness(at(4)), Some(Duration::from_secs(2)));
        progress.decoded(Lsn(160));
        assert_eq!(progress.staleness(at(4)), Some(Duration::from_secs(1)));
        for _ in 0..SAMPLES_MAX * 2 {
            progress.sample(at(5), Lsn(500));
        }
        assert!(progress.samples.len() <= SAMPLES_MAX);
        assert_eq!(progress.staleness(at(9)), Some(Duration::from_secs(6)));
    }
}
