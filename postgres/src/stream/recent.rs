//! Which commits changed each table, so that it can be asked whether a snapshot saw all of them.
//!
//! Pure. What a rollup contains is said by a snapshot, and not by a position in the log: PostgreSQL
//! lets transactions be seen in another order than it logs their commits.

use std::collections::{HashMap, VecDeque};

use pgstar_rewriter::catalog::Oid;

use super::snapshot::{Snapshot, Xid};
use crate::pgoutput::Xid32;
use crate::replication::Lsn;

/// So many commits of one table are remembered one by one.
const COMMITS_MAX: usize = 65_536;

/// What the rows of a table that was made from others stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// What the snapshot saw of them is in it, and nothing else.
    pub snapshot: Snapshot,
    /// The shape of those tables was found unchanged after this position was read.
    pub validated: Lsn,
}

/// The commits of one epoch.
#[derive(Debug, Default)]
pub(super) struct Recent {
    tables: HashMap<Oid, Commits>,
    /// Every transaction up to this one may have ended before the stream began.
    ended: Xid,
    /// Where the log ended when the tables' shapes were first looked at.
    looked: Lsn,
    /// What it sees has been forgotten.
    floor: Option<Snapshot>,
}

#[derive(Debug, Default)]
struct Commits {
    /// In the order of the log.
    each: VecDeque<(Xid32, Lsn)>,
    /// The newest of those that are not in the list any more.
    forgotten: Option<Xid32>,
    /// The end of the log when the table was last seen to have been changed otherwise.
    reshaped: Option<Lsn>,
}

impl Recent {
    pub(super) fn starting(ended: Xid) -> Self {
        Recent {
            ended,
            ..Recent::default()
        }
    }

    pub(super) fn committed(&mut self, xid: Xid32, end: Lsn, changed: &[Oid]) {
        for relation in changed {
            let commits = self.tables.entry(*relation).or_default();
            commits.each.push_back((xid, end));
            if commits.each.len() > COMMITS_MAX
                && let Some((oldest, _)) = commits.each.pop_front()
            {
                commits.forgotten = Some(
                    commits
                        .forgotten
                        .map_or(oldest, |other| later(other, oldest)),
                );
            }
        }
    }

    /// The shapes were looked at for the first time.
    pub(super) fn looked(&mut self, end: Lsn) {
        self.looked = end;
    }

    pub(super) fn reshaped(&mut self, relation: Oid, end: Lsn) {
        let reshaped = &mut self.tables.entry(relation).or_default().reshaped;
        *reshaped = (*reshaped).max(Some(end));
    }

    /// From now on only contents are asked for that have everything this snapshot sees.
    pub(super) fn forget(&mut self, floor: &Snapshot) {
        for commits in self.tables.values_mut() {
            commits
                .each
                .retain(|(xid, _)| !floor.sees(floor.extend(*xid)));
        }
        self.floor = Some(floor.clone());
    }

    /// Whether all shapes were looked at since they last changed.
    pub(super) fn are_validated(&self, validated: Lsn) -> bool {
        let mut tables = self.tables.values();
        self.looked < validated
            && tables.all(|commits| commits.reshaped.is_none_or(|reshaped| reshaped < validated))
    }

    /// Whether everything that changed these tables and ends at or before `end` is in the contents.
    pub(super) fn are_in(&self, contents: &Contents, relations: &[Oid], end: Lsn) -> bool {
        let Contents {
            snapshot,
            validated,
        } = contents;
        let has_what_is_forgotten = self
            .floor
            .as_ref()
            .is_none_or(|floor| snapshot.includes(floor));
        let has_commits = |commits: &Commits| {
            let has_forgotten = commits
                .forgotten
                .is_none_or(|xid| snapshot.xmin > snapshot.extend(xid));
            // What was seen before the position was read was seen by who looked after it; of two
            // readings of one position nobody knows the order.
            let is_validated = commits
                .reshaped
                .is_none_or(|reshaped| reshaped < *validated);
            let mut due = commits.each.iter().take_while(|(_, at)| *at <= end);
            has_forgotten
                && is_validated
                && due.all(|(xid, _)| snapshot.sees(snapshot.extend(*xid)))
        };
        let mut tables = relations
            .iter()
            .filter_map(|relation| self.tables.get(relation));
        snapshot.xmin > self.ended
            && self.looked < *validated
            && has_what_is_forgotten
            && tables.all(has_commits)
    }
}

fn later(one: Xid32, other: Xid32) -> Xid32 {
    match one.0.wrapping_sub(other.0).cast_signed() {
        0.. => one,
        _ => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(snapshot: &str, validated: u64) -> Contents {
        Contents {
            snapshot: snapshot.parse().unwrap(),
            validated: Lsn(validated),
        }
    }

    fn recent() -> Recent {
        let mut recent = Recent::starting(Xid(9));
        recent.looked(Lsn(90));
        recent.committed(Xid32(12), Lsn(100), &[Oid(1)]);
        recent.committed(Xid32(11), Lsn(110), &[Oid(1), Oid(2)]);
        recent
    }

    #[test]
    fn only_what_the_snapshot_saw_is_in_the_contents() {
        let recent = recent();
        let is_in = |snapshot: &str, table: u32, end: u64| {
            recent.are_in(&contents(snapshot, 95), &[Oid(table)], Lsn(end))
        };
        assert!(is_in("13:13:", 1, 110));
        assert!(is_in("11:13:11", 1, 109), "the other commit is later");
        assert!(!is_in("11:13:11", 1, 110));
        assert!(!is_in("12:12:", 1, 100));
        assert!(is_in("12:12:", 2, 200));
        assert!(is_in("10:10:", 3, 200), "nothing changed it");
        assert!(!is_in("9:13:9", 3, 200), "from before the stream");
        assert!(!recent.are_in(&contents("13:13:", 90), &[Oid(3)], Lsn(1)));
    }

    #[test]
    fn a_change_of_shape_has_to_be_looked_at_later() {
        let mut recent = recent();
        recent.reshaped(Oid(2), Lsn(120));
        let is_in = |validated| recent.are_in(&contents("13:13:", validated), &[Oid(2)], Lsn(200));
        assert!(!is_in(119) && !is_in(120) && is_in(121));
    }

    #[test]
    fn what_is_forgotten_has_to_be_in_the_contents() {
        let mut recent = recent();
        recent.forget(&"12:13:".parse().unwrap());
        assert!(!recent.are_in(&contents("11:13:11", 95), &[Oid(3)], Lsn(1)));
        assert!(recent.are_in(&contents("12:14:13", 95), &[Oid(1)], Lsn(200)));
        for xid in 20..20 + COMMITS_MAX as u32 + 5 {
            recent.committed(Xid32(xid), Lsn(u64::from(xid) * 10), &[Oid(1)]);
        }
        assert!(!recent.are_in(&contents("24:99999:", 95), &[Oid(1)], Lsn(1)));
        assert!(recent.are_in(&contents("25:99999:", 95), &[Oid(1)], Lsn(1)));
    }
}
