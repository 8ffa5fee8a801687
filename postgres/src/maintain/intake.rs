//! Takes the rows that rollups need from the stream and keeps them until they are folded.
//!
//! A row is kept as a line of COPY: its sign and the columns that some rollup reads. An UPDATE that
//! changes none of these leaves nothing. Memory has a bound; beyond it rows are dropped, and the
//! rollups that needed them are built again.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::FoldColumn;
use tokio::sync::{Notify, watch};

use super::reason::Unfoldable;
use crate::pgoutput::{Change, Message, Relation, Row, Value, Xid32};
use crate::replication::Lsn;
use crate::stream::{Snapshot, StreamError};

/// How many bytes of rows may wait.
pub(super) const ROWS_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// The columns of each table that rollups read; by name.
pub(super) type Wanted = BTreeMap<Oid, Vec<FoldColumn>>;

/// The rows of one table that one transaction changed.
#[derive(Debug, Default)]
pub(super) struct TableRows {
    /// Lines of COPY: the sign, then the wanted columns.
    pub(super) lines: Vec<u8>,
    pub(super) count: u64,
    /// Why the lines do not say everything.
    pub(super) spoiled: Option<Unfoldable>,
}

/// A transaction that was decoded.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) xid: Xid32,
    /// What was decoded before it. Its commit record begins there or later, which is where a stream
    /// has to begin to have it again.
    pub(super) after: Lsn,
    pub(super) tables: HashMap<Oid, TableRows>,
}

pub(super) struct Intake {
    held: Mutex<Held>,
    /// Something that concerns a rollup was committed.
    pub(super) arrived: Notify,
    decoded: watch::Sender<Lsn>,
}

#[derive(Default)]
struct Held {
    wanted: Wanted,
    layouts: HashMap<Oid, Layout>,
    open: HashMap<Oid, TableRows>,
    /// In the order of the log.
    committed: VecDeque<Transaction>,
    bytes: u64,
}

/// How the wanted columns lie in the rows of the stream.
struct Layout {
    table: String,
    columns: Result<Vec<usize>, Unfoldable>,
    /// Which of all columns are part of the replica identity.
    keys: Vec<bool>,
}

impl Intake {
    pub(super) fn new() -> Self {
        Intake {
            held: Mutex::default(),
            arrived: Notify::new(),
            decoded: watch::Sender::new(Lsn(0)),
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Nothing panics half-way through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream begins from where the last one was acknowledged.
    pub(super) fn begin(&self, wanted: Wanted, from: Lsn) {
        *self.held() = Held {
            wanted,
            ..Held::default()
        };
        self.decoded.send_replace(from);
    }

    pub(super) fn decoded(&self, end: Lsn) {
        self.decoded
            .send_if_modified(|decoded| end > *decoded && std::mem::replace(decoded, end) != end);
    }

    pub(super) fn watch_decoded(&self) -> watch::Receiver<Lsn> {
        self.decoded.subscribe()
    }

    pub(super) fn message(&self, message: &Message, omitted: usize) -> Result<(), StreamError> {
        let mut held = self.held();
        match message {
            Message::Relation(relation) => held.relation(relation),
            Message::Insert(change) => held.change(change, omitted, Held::insert)?,
            Message::Update(change) => held.change(change, omitted, Held::update)?,
            Message::Delete(change) => held.change(change, omitted, Held::delete)?,
            Message::Truncate { relations, .. } => {
                for relation in relations {
                    held.truncate(*relation);
                }
            }
            Message::Begin(_)
            | Message::Commit(_)
            | Message::Origin { .. }
            | Message::Type { .. }
            | Message::Message { .. } => (),
        }
        Ok(())
    }

    pub(super) fn committed(&self, xid: Xid32, end: Lsn, changed: &[Oid]) {
        let mut held = self.held();
        let mut tables = std::mem::take(&mut held.open);
        for relation in changed {
            if held.wanted.contains_key(relation) {
                tables.entry(*relation).or_default();
            }
        }
        let concerns_us = !tables.is_empty();
        if concerns_us {
            let after = *self.decoded.borrow();
            held.committed.push_back(Transaction { xid, after, tables });
        }
        drop(held);
        self.decoded(end);
        if concerns_us {
            self.arrived.notify_one();
        }
    }

    /// Whether there is a transaction that the snapshot does not see.
    pub(super) fn has_news(&self, seen: &Snapshot) -> bool {
        let held = self.held();
        let mut committed = held.committed.iter();
        committed.any(|transaction| !seen.sees(seen.extend(transaction.xid)))
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> u64 {
        self.held().bytes
    }

    /// Forgets the transactions that the snapshot sees, and says up to where nothing is kept.
    pub(super) fn forget(&self, seen: &Snapshot) -> Lsn {
        let mut held = self.held();
        let decoded = *self.decoded.borrow();
        let mut freed = 0;
        held.committed.retain(|transaction| {
            let is_seen = seen.sees(seen.extend(transaction.xid));
            if is_seen {
                freed += transaction.bytes();
            }
            !is_seen
        });
        held.bytes = held.bytes.saturating_sub(freed);
        held.committed
            .front()
            .map_or(decoded, |oldest| oldest.after)
    }

    /// The rows of all transactions that `now` sees and `before` did not, by table; a table that
    /// changed without a row to show for it is there too.
    pub(super) fn between(&self, before: &Snapshot, now: &Snapshot) -> HashMap<Oid, TableRows> {
        let held = self.held();
        let mut tables: HashMap<Oid, TableRows> = HashMap::new();
        for transaction in &held.committed {
            let is_new = now.sees(now.extend(transaction.xid))
                && !before.sees(before.extend(transaction.xid));
            if !is_new {
                continue;
            }
            for (relation, rows) in &transaction.tables {
                let all = tables.entry(*relation).or_default();
                all.lines.extend_from_slice(&rows.lines);
                all.count += rows.count;
                if all.spoiled.is_none() {
                    all.spoiled.clone_from(&rows.spoiled);
                }
            }
        }
        tables
    }

    /// The columns of the lines of each table.
    pub(super) fn wanted(&self) -> Wanted {
        self.held().wanted.clone()
    }
}

impl Transaction {
    fn bytes(&self) -> u64 {
        let lines = self.tables.values().map(|rows| rows.lines.len() as u64);
        lines.sum()
    }
}

impl Held {
    fn relation(&mut self, relation: &Relation) {
        let Some(wanted) = self.wanted.get(&relation.oid) else {
            return;
        };
        let schema = match relation.schema.as_str() {
            "" => "pg_catalog",
            schema => schema,
        };
        let table = format!("{schema}.{}", relation.name);
        let position = |column: &FoldColumn| {
            let is_it = |found: &crate::pgoutput::Column| {
                found.name == column.name
                    && found.type_oid == column.type_oid
                    && found.typmod == column.typmod
            };
            let position = relation.columns.iter().position(is_it);
            position.ok_or_else(|| Unfoldable::ColumnChanged {
                table: table.clone(),
                column: column.name.clone(),
            })
        };
        let columns = wanted.iter().map(position).collect();
        let keys = relation
            .columns
            .iter()
            .map(|column| column.is_key)
            .collect();
        let layout = Layout {
            columns,
            keys,
            table,
        };
        self.layouts.insert(relation.oid, layout);
    }

    fn change(
        &mut self,
        change: &Change,
        omitted: usize,
        write: fn(&Layout, &[usize], Row, &mut TableRows),
    ) -> Result<(), StreamError> {
        if !self.wanted.contains_key(&change.relation) {
            return Ok(());
        }
        let layout = self
            .layouts
            .get(&change.relation)
            .ok_or(StreamError::OutOfOrder(
                "a row of a table that was not described",
            ))?;
        let rows = self.open.entry(change.relation).or_default();
        if rows.spoiled.is_some() {
            return Ok(());
        }
        let columns = match &layout.columns {
            Ok(columns) => columns,
            Err(why) => {
                rows.spoil(why.clone(), &mut self.bytes);
                return Ok(());
            }
        };
        if omitted > 0 || self.bytes > ROWS_BYTES_MAX {
            let too_much = Unfoldable::TooMuch {
                bytes_max: ROWS_BYTES_MAX,
            };
            rows.spoil(too_much, &mut self.bytes);
            return Ok(());
        }
        let before = rows.lines.len();
        write(layout, columns, change.rows.read()?, rows);
        self.bytes += (rows.lines.len().saturating_sub(before)) as u64;
        if let Some(why) = rows.spoiled.clone() {
            rows.spoil(why, &mut self.bytes);
        }
        Ok(())
    }

    fn insert(layout: &Layout, columns: &[usize], row: Row, rows: &mut TableRows) {
        match row.new {
            Some(new) => rows.write(b"1", columns, &new, layout),
            None => rows.spoiled = Some(no_old_row(&layout.table)),
        }
    }

    fn delete(layout: &Layout, columns: &[usize], row: Row, rows: &mut TableRows) {
        let Row { key, old, new: _ } = row;
        let is_key = |column: &usize| layout.keys.get(*column).copied().unwrap_or(false);
        let has_all = columns.iter().all(is_key);
        match old.or(key.filter(|_| has_all)) {
            Some(old) => rows.write(b"-1", columns, &old, layout),
            None => rows.spoiled = Some(no_old_row(&layout.table)),
        }
    }

    fn update(layout: &Layout, columns: &[usize], row: Row, rows: &mut TableRows) {
        let Row { key, old, new } = row;
        let Some(mut new) = new else {
            rows.spoiled = Some(no_old_row(&layout.table));
            return;
        };
        let is_key = |column: &usize| layout.keys.get(*column).copied().unwrap_or(false);
        let has_all = columns.iter().all(is_key);
        let is_whole = old.is_some();
        // Without an old key the key is what it was.
        let old = match old.or(key) {
            Some(old) if is_whole || has_all => old,
            None if has_all => return,
            Some(_) | None => {
                rows.spoiled = Some(no_old_row(&layout.table));
                return;
            }
        };
        for (new, old) in new.iter_mut().zip(&old) {
            if *new == Value::Unchanged {
                new.clone_from(old);
            }
        }
        let is_same = |column: &usize| old.get(*column) == new.get(*column);
        if !columns.iter().all(is_same) {
            rows.write(b"-1", columns, &old, layout);
            rows.write(b"1", columns, &new, layout);
        }
    }

    fn truncate(&mut self, relation: Oid) {
        let Some(layout) = self.layouts.get(&relation) else {
            // Not described means that no row of it came, and no rollup may believe that it knows it.
            if self.wanted.contains_key(&relation) {
                let rows = self.open.entry(relation).or_default();
                rows.spoiled = Some(Unfoldable::Reshaped);
            }
            return;
        };
        let table = layout.table.clone();
        let rows = self.open.entry(relation).or_default();
        rows.spoil(Unfoldable::Truncated { table }, &mut self.bytes);
    }
}

fn no_old_row(table: &str) -> Unfoldable {
    Unfoldable::NoOldRow {
        table: table.to_owned(),
    }
}

impl TableRows {
    /// What is kept would not be enough.
    fn spoil(&mut self, why: Unfoldable, bytes: &mut u64) {
        *bytes = bytes.saturating_sub(self.lines.len() as u64);
        *self = TableRows {
            spoiled: Some(why),
            ..TableRows::default()
        };
    }

    fn write(&mut self, sign: &[u8], columns: &[usize], row: &[Value], layout: &Layout) {
        let start = self.lines.len();
        self.lines.extend_from_slice(sign);
        for column in columns {
            self.lines.push(b'\t');
            match row.get(*column) {
                Some(Value::Null) => self.lines.extend_from_slice(b"\\N"),
                Some(Value::Text(text)) => escape(text, &mut self.lines),
                // Not sent, in a format that was not asked for, or not there at all.
                Some(Value::Unchanged | Value::Binary(_)) | None => {
                    self.lines.truncate(start);
                    self.spoiled = Some(no_old_row(&layout.table));
                    return;
                }
            }
        }
        self.lines.push(b'\n');
        self.count += 1;
    }
}

/// As COPY's text format wants it.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            other => out.push(*other),
        }
    }
}

/// Every column that one of these reads, by table.
pub(super) fn wanted<'a>(columns: impl Iterator<Item = (Oid, &'a [FoldColumn])>) -> Wanted {
    let mut wanted: Wanted = BTreeMap::new();
    let mut known: HashSet<(Oid, &str)> = HashSet::new();
    for (relation, columns) in columns {
        let all = wanted.entry(relation).or_default();
        for column in columns {
            if known.insert((relation, column.name.as_str())) {
                all.push(column.clone());
            }
        }
    }
    wanted
}
