//! Takes the rows that rollups need from the stream and keeps them until they are folded.
//!
//! A row is kept as a line of COPY: its sign and the columns that some rollup reads. An UPDATE that
//! changes none of these leaves nothing. Memory is bounded whatever the size of a transaction; what is
//! more waits in files (`spool`). Those have a bound too, beyond which rows are dropped and the rollups
//! that needed them are built again.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, BytesMut};
use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::FoldColumn;
use tokio::sync::{Notify, watch};

use super::reason::Unfoldable;
use super::spool::{MEMORY_BYTES_MAX, Spool};
use super::waiting::{Between, Rows, TableRows, Waiting};
use crate::pgoutput::{Change, Message, Relation, Row, Value, Xid32};
use crate::replication::Lsn;
use crate::stream::receiving::Within;
use crate::stream::{Snapshot, StreamError};

/// How many bytes of rows may wait, in memory and in files.
pub(super) const ROWS_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// The columns of each table that rollups read; by name.
pub(super) type Wanted = BTreeMap<Oid, Vec<FoldColumn>>;

pub(super) struct Intake {
    held: Mutex<Held>,
    /// Something that concerns a rollup was committed.
    pub(super) arrived: Notify,
    decoded: watch::Sender<Lsn>,
}

struct Held {
    wanted: Wanted,
    /// How rows look, after the last transaction that ended.
    layouts: HashMap<Oid, Layout>,
    open: HashMap<Xid32, Open>,
    waiting: Waiting,
    spool: Spool,
}

/// A transaction that has not ended.
#[derive(Default)]
struct Open {
    rows: Rows,
    /// How its own rows look, if it is streamed: nobody else's look like that before it ends.
    layouts: HashMap<Oid, Layout>,
}

/// How the wanted columns lie in the rows of the stream.
struct Layout {
    table: String,
    columns: Result<Vec<usize>, Unfoldable>,
    /// Which of all columns are part of the replica identity.
    keys: Vec<bool>,
}

/// Where lines go, and whose they are.
struct Lines<'a> {
    rows: &'a mut TableRows,
    part: Xid32,
}

impl Intake {
    pub(super) fn new() -> Self {
        Intake {
            held: Mutex::new(Held::new(Wanted::default())),
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
        *self.held() = Held::new(wanted);
        self.decoded.send_replace(from);
    }

    pub(super) fn decoded(&self, end: Lsn) {
        self.decoded
            .send_if_modified(|decoded| end > *decoded && std::mem::replace(decoded, end) != end);
    }

    pub(super) fn watch_decoded(&self) -> watch::Receiver<Lsn> {
        self.decoded.subscribe()
    }

    pub(super) fn message(
        &self,
        within: Within,
        message: &Message,
        omitted: usize,
    ) -> Result<(), StreamError> {
        let mut held = self.held();
        match message {
            Message::Relation(relation) => held.relation(within, relation),
            Message::Insert(change) => held.change(within, change, omitted, Layout::insert)?,
            Message::Update(change) => held.change(within, change, omitted, Layout::update)?,
            Message::Delete(change) => held.change(within, change, omitted, Layout::delete)?,
            Message::Truncate { relations, .. } => {
                for relation in relations {
                    held.truncate(within, *relation);
                }
            }
            Message::Begin(_)
            | Message::Commit(_)
            | Message::Origin { .. }
            | Message::Type { .. }
            | Message::StreamStart { .. }
            | Message::StreamStop
            | Message::StreamCommit { .. }
            | Message::StreamAbort { .. }
            | Message::Message { .. } => (),
        }
        Ok(())
    }

    /// A transaction, or a part of it, was rolled back.
    pub(super) fn aborted(&self, transaction: Xid32, part: Xid32) {
        let mut held = self.held();
        if transaction == part {
            held.open.remove(&transaction);
        } else if let Some(open) = held.open.get_mut(&transaction) {
            open.rows.aborted.insert(part);
        }
    }

    pub(super) fn committed(&self, xid: Xid32, end: Lsn, changed: &[Oid]) {
        let mut held = self.held();
        let Open { mut rows, layouts } = held.open.remove(&xid).unwrap_or_default();
        held.layouts.extend(layouts);
        for relation in changed {
            if held.wanted.contains_key(relation) {
                rows.tables.entry(*relation).or_default();
            }
        }
        let concerns_us = !rows.tables.is_empty();
        if concerns_us {
            let after = *self.decoded.borrow();
            held.waiting.push(xid, after, rows);
        }
        drop(held);
        self.decoded(end);
        if concerns_us {
            self.arrived.notify_one();
        }
    }

    /// Whether there is a transaction that the snapshot does not see.
    pub(super) fn has_news(&self, seen: &Snapshot) -> bool {
        self.held().waiting.has_news(seen)
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> u64 {
        self.held().spool.bytes()
    }

    /// Forgets the transactions that the snapshot sees, and says up to where nothing is kept.
    pub(super) fn forget(&self, seen: &Snapshot) -> Lsn {
        let mut held = self.held();
        let decoded = *self.decoded.borrow();
        held.waiting.forget(seen).unwrap_or(decoded)
    }

    /// What all transactions changed that `now` sees and `before` did not.
    pub(super) fn between(
        &self,
        before: &Snapshot,
        now: &Snapshot,
    ) -> Result<Between, StreamError> {
        let held = &mut *self.held();
        let between = held.waiting.between(before, now, &mut held.spool);
        Ok(between?)
    }

    /// The columns of the lines of each table.
    pub(super) fn wanted(&self) -> Wanted {
        self.held().wanted.clone()
    }
}

impl Held {
    fn new(wanted: Wanted) -> Self {
        Held {
            wanted,
            layouts: HashMap::new(),
            open: HashMap::new(),
            waiting: Waiting::default(),
            spool: Spool::new(MEMORY_BYTES_MAX),
        }
    }

    fn relation(&mut self, within: Within, relation: &Relation) {
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
        let layouts = match within.is_streamed {
            true => &mut self.open.entry(within.transaction).or_default().layouts,
            false => &mut self.layouts,
        };
        layouts.insert(relation.oid, layout);
    }

    fn change(
        &mut self,
        within: Within,
        change: &Change,
        omitted: usize,
        write: fn(&Layout, &[usize], Row, &mut Lines<'_>) -> Result<(), Unfoldable>,
    ) -> Result<(), StreamError> {
        if !self.wanted.contains_key(&change.relation) {
            return Ok(());
        }
        let Open { rows, layouts } = self.open.entry(within.transaction).or_default();
        let layouts = match within.is_streamed {
            true => layouts,
            false => &self.layouts,
        };
        let undescribed = StreamError::OutOfOrder("a row of a table that was not described");
        let layout = layouts.get(&change.relation).ok_or(undescribed)?;
        let rows = rows.tables.entry(change.relation).or_default();
        if rows.is_spoiled(within) {
            return Ok(());
        }
        let is_too_much = omitted > 0 || self.spool.bytes() > ROWS_BYTES_MAX;
        let written = match &layout.columns {
            Err(why) => Err(why.clone()),
            Ok(_) if is_too_much => Err(Unfoldable::TooMuch {
                bytes_max: ROWS_BYTES_MAX,
            }),
            Ok(columns) => {
                let part = within.part;
                let rows = &mut *rows;
                let mut lines = Lines { rows, part };
                write(layout, columns, change.rows.read()?, &mut lines)
            }
        };
        if let Err(why) = written {
            rows.spoil(within, why);
        }
        if rows.log.is_due()
            && let Err(error) = rows.log.seal(&mut self.spool)
        {
            let error = error.to_string();
            rows.spoil(within.whole(), Unfoldable::NotKept { error });
        }
        Ok(())
    }

    fn truncate(&mut self, within: Within, relation: Oid) {
        if !self.wanted.contains_key(&relation) {
            return;
        }
        let Open { rows, layouts } = self.open.entry(within.transaction).or_default();
        let layout = layouts
            .get(&relation)
            .or_else(|| self.layouts.get(&relation));
        // Not described means that no row of it came, and no rollup may believe that it knows it.
        let why = layout.map_or(Unfoldable::Reshaped, |layout| Unfoldable::Truncated {
            table: layout.table.clone(),
        });
        let rows = rows.tables.entry(relation).or_default();
        rows.spoil(within, why);
    }
}

impl Layout {
    fn is_key(&self, column: usize) -> bool {
        self.keys.get(column).copied().unwrap_or(false)
    }

    fn no_old_row(&self) -> Unfoldable {
        Unfoldable::NoOldRow {
            table: self.table.clone(),
        }
    }

    fn insert(&self, columns: &[usize], row: Row, lines: &mut Lines<'_>) -> Result<(), Unfoldable> {
        let new = row.new.ok_or_else(|| self.no_old_row())?;
        lines.write(b"1", columns, &new, self)
    }

    fn delete(&self, columns: &[usize], row: Row, lines: &mut Lines<'_>) -> Result<(), Unfoldable> {
        let Row { key, old, new: _ } = row;
        lines.rows.has_old_rows = true;
        let has_all = columns.iter().all(|column| self.is_key(*column));
        let old = old.or(key.filter(|_| has_all));
        let old = old.ok_or_else(|| self.no_old_row())?;
        lines.write(b"-1", columns, &old, self)
    }

    fn update(&self, columns: &[usize], row: Row, lines: &mut Lines<'_>) -> Result<(), Unfoldable> {
        let Row { key, old, new } = row;
        lines.rows.has_old_rows = true;
        let mut new = new.ok_or_else(|| self.no_old_row())?;
        let has_all = columns.iter().all(|column| self.is_key(*column));
        let is_whole = old.is_some();
        // Without an old key the key is what it was.
        let old = match old.or(key) {
            Some(old) if is_whole || has_all => old,
            None if has_all => return Ok(()),
            Some(_) | None => return Err(self.no_old_row()),
        };
        for (new, old) in new.iter_mut().zip(&old) {
            if *new == Value::Unchanged {
                new.clone_from(old);
            }
        }
        let is_same = |column: &usize| old.get(*column) == new.get(*column);
        if columns.iter().all(is_same) {
            return Ok(());
        }
        lines.write(b"-1", columns, &old, self)?;
        lines.write(b"1", columns, &new, self)
    }
}

impl Lines<'_> {
    fn write(
        &mut self,
        sign: &[u8],
        columns: &[usize],
        row: &[Value],
        layout: &Layout,
    ) -> Result<(), Unfoldable> {
        self.rows.log.append(self.part, |out| {
            out.extend_from_slice(sign);
            for column in columns {
                out.put_u8(b'\t');
                match row.get(*column) {
                    Some(Value::Null) => out.extend_from_slice(b"\\N"),
                    Some(Value::Text(text)) => escape(text, out),
                    // Not sent, in a format that was not asked for, or not there at all.
                    Some(Value::Unchanged | Value::Binary(_)) | None => {
                        return Err(layout.no_old_row());
                    }
                }
            }
            out.put_u8(b'\n');
            Ok(())
        })
    }
}

/// As COPY's text format wants it.
fn escape(text: &[u8], out: &mut BytesMut) {
    let needs_escape = |byte: &u8| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r');
    if !text.iter().any(needs_escape) {
        out.extend_from_slice(text);
        return;
    }
    for byte in text {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            other => out.put_u8(*other),
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
