//! The transactions that were committed and that some rollup may still lack, in bounded memory.
//!
//! Small ones share the logs of a group, each line tagged with its transaction; a large one is a group
//! of its own. What a snapshot sees of a group is read by skipping the rest.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use pgstar_rewriter::catalog::Oid;

use super::reason::Unfoldable;
use super::spool::{Log, Reading, Spool};
use crate::pgoutput::Xid32;
use crate::replication::Lsn;
use crate::stream::Snapshot;
use crate::stream::receiving::Within;

/// A group has no more transactions than this.
const GROUP_TRANSACTIONS_MAX: usize = 4096;

/// A group that was read and has so many is not added to, so that little is read twice.
const GROUP_TRANSACTIONS: usize = 64;

/// So many transactions are told apart. Beyond it the oldest are not any more, and what lacks one of them
/// is built again.
const TRANSACTIONS_MAX: usize = 4 * 1024 * 1024;

/// So many sub-transactions of one transaction may each have made a table's rows insufficient before the
/// whole transaction is taken to have done so.
const SPOILED_PARTS_MAX: usize = 64;

/// The rows of one table that one transaction or group changed.
#[derive(Default)]
pub(super) struct TableRows {
    pub(super) log: Log,
    /// Some rows were changed or went, in whatever part.
    pub(super) has_old_rows: bool,
    /// Whose lines do not say everything, and why.
    spoils: Vec<(Xid32, Unfoldable)>,
}

/// What changed between two snapshots.
#[derive(Default)]
pub(super) struct Between {
    /// By table; a table that changed without a row to show for it is there too.
    pub(super) tables: HashMap<Oid, Changes>,
    /// How many rows that are, at most.
    pub(super) rows: u64,
}

/// What changed in one table between two snapshots.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) readings: Vec<Reading>,
    /// At most.
    pub(super) lines: u64,
    /// At most.
    pub(super) bytes: u64,
    /// Some of them may be of rows that changed or went.
    pub(super) has_old_rows: bool,
    /// Why the lines do not say everything.
    pub(super) spoiled: Option<Unfoldable>,
}

/// A transaction that has ended, or will.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) tables: HashMap<Oid, TableRows>,
    /// Its parts that were rolled back.
    pub(super) aborted: HashSet<Xid32>,
}

struct Member {
    xid: Xid32,
    /// What was decoded before it. Its commit record begins there or later, which is where a stream
    /// has to begin to have it again.
    after: Lsn,
    /// At most.
    lines: u64,
}

struct Group {
    /// In the order of the log.
    members: Vec<Member>,
    tables: HashMap<Oid, TableRows>,
    kind: Kind,
}

enum Kind {
    /// Lines are tagged with their transactions.
    Small { is_full: bool },
    /// Lines are tagged with parts of the one transaction.
    Large { aborted: Arc<HashSet<Xid32>> },
    /// Of many transactions the last is known, and that there were others before it.
    Blurred,
}

#[derive(Default)]
pub(super) struct Waiting {
    groups: VecDeque<Group>,
    transactions: usize,
}

impl TableRows {
    pub(super) fn is_spoiled(&self, within: Within) -> bool {
        let concerns = |tag: &Xid32| *tag == within.part || *tag == within.transaction;
        self.spoils.iter().any(|(tag, _)| concerns(tag))
    }

    /// What is kept would not be enough.
    pub(super) fn spoil(&mut self, within: Within, why: Unfoldable) {
        let is_whole = within.part == within.transaction;
        if is_whole || self.spoils.len() >= SPOILED_PARTS_MAX {
            self.log = Log::default();
            self.spoils = vec![(within.transaction, why)];
        } else {
            self.spoils.push((within.part, why));
        }
    }
}

impl Rows {
    fn is_small(&self) -> bool {
        self.tables.values().all(|rows| rows.log.is_small())
    }
}

impl Waiting {
    /// A transaction was committed.
    pub(super) fn push(&mut self, xid: Xid32, after: Lsn, rows: Rows) {
        let lines = rows.tables.values().map(|rows| rows.log.lines).sum();
        let member = Member { xid, after, lines };
        self.transactions += 1;
        if rows.is_small() {
            self.open_group(rows.tables.keys()).absorb(member, rows);
        } else {
            let Rows { tables, aborted } = rows;
            let aborted = Arc::new(aborted);
            self.groups.push_back(Group {
                members: vec![member],
                tables,
                kind: Kind::Large { aborted },
            });
        }
        self.blur();
    }

    fn open_group<'a>(&mut self, tables: impl Iterator<Item = &'a Oid>) -> &mut Group {
        let mut tables = tables;
        let has_room = self.groups.back().is_some_and(|group| {
            matches!(group.kind, Kind::Small { is_full: false })
                && group.members.len() < GROUP_TRANSACTIONS_MAX
                && !tables.any(|table| {
                    let rows = group.tables.get(table);
                    rows.is_some_and(|rows| rows.log.is_due())
                })
        });
        if !has_room {
            self.groups.push_back(Group {
                members: vec![],
                tables: HashMap::new(),
                kind: Kind::Small { is_full: false },
            });
        }
        let last = self.groups.len() - 1;
        &mut self.groups[last]
    }

    /// Forgets which transactions there were in the oldest groups, when there are too many.
    fn blur(&mut self) {
        let mut groups = self.groups.iter_mut();
        while self.transactions > TRANSACTIONS_MAX
            && let Some(group) = groups.next()
        {
            self.transactions -= group.blur();
        }
    }

    /// Whether there is a transaction that the snapshot does not see.
    pub(super) fn has_news(&self, seen: &Snapshot) -> bool {
        let mut newest_first = self.groups.iter().rev();
        newest_first.any(|group| !group.is_seen(seen))
    }

    /// Forgets what the snapshot sees; from where the rest begins, if there is any.
    pub(super) fn forget(&mut self, seen: &Snapshot) -> Option<Lsn> {
        self.groups.retain(|group| !group.is_seen(seen));
        self.transactions = self.groups.iter().map(|group| group.members.len()).sum();
        let oldest = self.groups.front()?;
        let mut members = oldest.members.iter();
        let unseen = members.find(|member| !member.is_seen(seen));
        unseen.or(oldest.members.first()).map(|member| member.after)
    }

    /// What all transactions changed that `now` sees and `before` did not.
    pub(super) fn between(
        &mut self,
        before: &Snapshot,
        now: &Snapshot,
        spool: &mut Spool,
    ) -> io::Result<Between> {
        let mut between = Between::default();
        for group in &mut self.groups {
            if let Some(skip) = group.skipped(before, now) {
                group.read(&skip, spool, &mut between)?;
            }
        }
        Ok(between)
    }
}

impl Member {
    fn is_seen(&self, snapshot: &Snapshot) -> bool {
        snapshot.sees(snapshot.extend(self.xid))
    }
}

impl Group {
    fn absorb(&mut self, member: Member, rows: Rows) {
        let tag = member.xid;
        for (table, rows_of_table) in rows.tables {
            let own = self.tables.entry(table).or_default();
            let TableRows {
                log,
                has_old_rows,
                spoils,
            } = rows_of_table;
            own.has_old_rows |= has_old_rows;
            own.log.absorb(log, &rows.aborted, tag);
            let mut kept = spoils.into_iter();
            let spoil = kept.find(|(part, _)| !rows.aborted.contains(part));
            own.spoils.extend(spoil.map(|(_, why)| (tag, why)));
        }
        self.members.push(member);
    }

    /// How many transactions it knows less than before.
    fn blur(&mut self) -> usize {
        let Some(mut last) = self.members.pop() else {
            return 0;
        };
        let first = self.members.first().map_or(last.after, |first| first.after);
        for member in &self.members {
            let is_later = member.xid.0.wrapping_sub(last.xid.0).cast_signed() > 0;
            if is_later {
                last.xid = member.xid;
            }
        }
        let fewer = self.members.len();
        last.after = first;
        self.members = vec![last];
        if fewer > 0 {
            self.kind = Kind::Blurred;
            for rows in self.tables.values_mut() {
                rows.log = Log::default();
            }
        }
        fewer
    }

    fn is_seen(&self, snapshot: &Snapshot) -> bool {
        let mut members = self.members.iter();
        match self.kind {
            Kind::Blurred => members.all(|last| snapshot.xmin > snapshot.extend(last.xid)),
            Kind::Small { .. } | Kind::Large { .. } => {
                members.all(|member| member.is_seen(snapshot))
            }
        }
    }

    /// Whose lines are not to be read; none where there is nothing to read at all.
    fn skipped(&self, before: &Snapshot, now: &Snapshot) -> Option<Arc<HashSet<Xid32>>> {
        let is_new = |member: &&Member| member.is_seen(now) && !member.is_seen(before);
        match &self.kind {
            Kind::Small { is_full: _ } => {
                let new = self.members.iter().filter(is_new).count();
                let old = self.members.iter().filter(|member| !is_new(member));
                (new > 0).then(|| Arc::new(old.map(|member| member.xid).collect()))
            }
            Kind::Large { aborted } => {
                let is_new = self.members.iter().any(|member| is_new(&member));
                is_new.then(|| Arc::clone(aborted))
            }
            Kind::Blurred => (!self.is_seen(before)).then(Arc::default),
        }
    }

    fn read(
        &mut self,
        skip: &Arc<HashSet<Xid32>>,
        spool: &mut Spool,
        between: &mut Between,
    ) -> io::Result<()> {
        let members = self.members.iter();
        let read = members.filter(|member| !skip.contains(&member.xid));
        between.rows += read.map(|member| member.lines).sum::<u64>();
        for (table, rows) in &mut self.tables {
            let all = between.tables.entry(*table).or_default();
            rows.log.seal(spool)?;
            all.has_old_rows |= rows.has_old_rows;
            if rows.log.lines > 0 {
                all.readings.push(rows.log.reading(Arc::clone(skip)));
                all.lines += rows.log.lines;
                all.bytes += rows.log.bytes;
            }
            let mut spoils = rows.spoils.iter();
            let spoil = spoils.find(|(tag, _)| !skip.contains(tag));
            let why = match self.kind {
                Kind::Blurred => Some(Unfoldable::TooMany {
                    transactions_max: TRANSACTIONS_MAX,
                }),
                Kind::Small { .. } | Kind::Large { .. } => spoil.map(|(_, why)| why.clone()),
            };
            all.spoiled = all.spoiled.take().or(why);
        }
        if self.members.len() >= GROUP_TRANSACTIONS
            && let Kind::Small { is_full } = &mut self.kind
        {
            *is_full = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Oid = Oid(1);

    fn rows(parts: &[(u32, &str)], aborted: &[u32], is_large: bool, spool: &mut Spool) -> Rows {
        let mut rows = Rows::default();
        let table = rows.tables.entry(TABLE).or_default();
        for (part, line) in parts {
            let put = |out: &mut bytes::BytesMut| {
                out.extend_from_slice(line.as_bytes());
                Ok::<(), ()>(())
            };
            table.log.append(Xid32(*part), put).unwrap();
        }
        if is_large {
            table.log.seal(spool).unwrap();
        }
        rows.aborted = aborted.iter().map(|part| Xid32(*part)).collect();
        rows
    }

    async fn read(waiting: &mut Waiting, spool: &mut Spool, before: &str, now: &str) -> String {
        let (before, now) = (before.parse().unwrap(), now.parse().unwrap());
        let between = waiting.between(&before, &now, spool).unwrap();
        let mut all = vec![];
        for reading in between.tables.values().flat_map(|table| &table.readings) {
            for piece in 0..reading.pieces() {
                for lines in reading.lines(piece).await.unwrap() {
                    all.extend_from_slice(&lines);
                }
            }
        }
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn what_lies_between_two_snapshots_is_read_without_what_was_rolled_back() {
        let (mut waiting, mut spool) = (Waiting::default(), Spool::new(u64::MAX));
        let small = rows(&[(11, "a"), (12, "b"), (11, "c")], &[12], false, &mut spool);
        waiting.push(Xid32(11), Lsn(10), small);
        let small = rows(&[(10, "d")], &[], false, &mut spool);
        waiting.push(Xid32(10), Lsn(20), small);
        let large = rows(&[(13, "e"), (14, "f"), (13, "g")], &[14], true, &mut spool);
        waiting.push(Xid32(13), Lsn(30), large);
        let last = rows(&[(15, "h")], &[], false, &mut spool);
        waiting.push(Xid32(15), Lsn(40), last);
        let mut between = async |before, now| read(&mut waiting, &mut spool, before, now).await;
        assert_eq!(between("10:10:", "16:16:").await, "acdegh");
        assert_eq!(between("10:12:10", "15:15:").await, "deg");
        assert_eq!(between("10:10:", "10:12:10").await, "ac");
        assert_eq!(between("16:16:", "17:17:").await, "");
        assert!(waiting.has_news(&"15:15:".parse().unwrap()));
        assert!(!waiting.has_news(&"16:16:".parse().unwrap()));
        let mut forget = |seen: &str| waiting.forget(&seen.parse().unwrap());
        assert_eq!(forget("10:12:10"), Some(Lsn(20)));
        assert_eq!(forget("13:13:"), Some(Lsn(30)));
        assert_eq!(forget("14:16:14"), None);
        assert_eq!(spool.bytes(), 0);
    }

    #[tokio::test]
    async fn what_makes_rows_insufficient_goes_with_the_part_that_did_it() {
        let within = |transaction: u32, part: u32| Within {
            transaction: Xid32(transaction),
            part: Xid32(part),
            is_streamed: true,
        };
        for (aborted, is_large, is_spoiled) in [
            (vec![], false, true),
            (vec![], true, true),
            (vec![21], false, false),
            (vec![21], true, false),
        ] {
            let (mut waiting, mut spool) = (Waiting::default(), Spool::new(u64::MAX));
            let mut rows = rows(&[(20, "a")], &aborted, is_large, &mut spool);
            let table = rows.tables.entry(TABLE).or_default();
            table.spoil(within(20, 21), Unfoldable::Reshaped);
            assert!(table.is_spoiled(within(20, 21)) && !table.is_spoiled(within(20, 20)));
            waiting.push(Xid32(20), Lsn(1), rows);
            let (before, now) = ("20:20:".parse().unwrap(), "21:21:".parse().unwrap());
            let between = waiting.between(&before, &now, &mut spool).unwrap();
            assert_eq!(between.tables[&TABLE].spoiled.is_some(), is_spoiled);
        }
    }

    #[tokio::test]
    async fn transactions_that_are_not_told_apart_any_more_are_never_taken_for_folded() {
        let (mut waiting, mut spool) = (Waiting::default(), Spool::new(u64::MAX));
        for xid in [12, 10, 11] {
            let own = rows(&[(xid, "x")], &[], false, &mut spool);
            waiting.push(Xid32(xid), Lsn(u64::from(xid)), own);
        }
        assert_eq!(waiting.groups[0].blur(), 2);
        let mut is_spoiled = |before: &str| {
            let (before, now) = (before.parse().unwrap(), "13:13:".parse().unwrap());
            let between = waiting.between(&before, &now, &mut spool).unwrap();
            between
                .tables
                .get(&TABLE)
                .map(|table| table.spoiled.is_some())
        };
        assert_eq!(is_spoiled("11:13:11"), Some(true));
        assert_eq!(is_spoiled("13:13:"), None);
        assert_eq!(waiting.forget(&"11:13:11".parse().unwrap()), Some(Lsn(12)));
        assert_eq!(waiting.forget(&"13:13:".parse().unwrap()), None);
    }
}
