//! Which values of the columns that somebody asked about each transaction touched: those of its old rows and of its new
//! ones.
//!
//! Pure. An old row that is not known may have had any value. What a part of a transaction touched that was
//! rolled back counts too, which does no harm.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use pgstar_rewriter::ColumnRange;
use pgstar_rewriter::catalog::Oid;

use super::buckets::Buckets;
use super::receiving::Within;
use super::{StreamError, Weakness};
use crate::pgoutput::{Change, Message, Relation, Row, Value, Xid32};
use crate::replication::Lsn;

/// A column whose values are looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) ty: Oid,
}

impl Column {
    pub(super) fn buckets(&self) -> Buckets {
        match ColumnRange::counts_seconds(self.ty) {
            true => Buckets::of_times(),
            false => Buckets::of_numbers(),
        }
    }
}

/// What is looked at.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    /// The columns, by table as the stream reports it.
    pub(super) columns: HashMap<Oid, Vec<Column>>,
    /// The tables that have partitions.
    pub(super) partitioned: BTreeSet<Oid>,
}

/// The values that a transaction touched. Of a column that is not in it, it may have touched any.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touches(HashMap<Oid, Vec<(Column, Option<Buckets>)>>);

impl Touches {
    /// The values, if they are known.
    pub(super) fn of(&self, table: Oid, column: &Column) -> Option<&Buckets> {
        let mut columns = self.0.get(&table)?.iter();
        let (_, touched) = columns.find(|(mine, _)| mine == column)?;
        touched.as_ref()
    }
}

/// The transactions that have not ended.
#[derive(Debug)]
pub(super) struct Touching {
    open: HashMap<Xid32, Open>,
    /// Of a transaction that is streamed before its end, its own: it may have altered the table.
    layouts: HashMap<(Option<Xid32>, Oid), Relation>,
    weakness: Weakness,
}

#[derive(Debug)]
struct Open {
    /// What was tracked before the transaction's first change came.
    tracked: Arc<Tracked>,
    touches: Touches,
}

impl Touching {
    pub(super) fn new(weakness: Weakness) -> Self {
        Touching {
            open: HashMap::new(),
            layouts: HashMap::new(),
            weakness,
        }
    }

    /// A message of a transaction; of a row that is too long some bytes are `omitted`.
    pub(super) fn message(
        &mut self,
        within: Within,
        message: &Message,
        omitted: usize,
        tracked: &dyn Fn() -> Arc<Tracked>,
    ) -> Result<(), StreamError> {
        let xid = within.transaction;
        let streamed = within.is_streamed.then_some(xid);
        let change = match message {
            Message::Relation(relation) => {
                self.layouts
                    .insert((streamed, relation.oid), relation.clone());
                return Ok(());
            }
            Message::Truncate { relations, .. } => {
                let open = self.open.entry(xid).or_insert_with(|| Open::new(tracked()));
                relations.iter().for_each(|table| open.spoil(*table));
                return Ok(());
            }
            Message::Insert(change) | Message::Update(change) | Message::Delete(change) => change,
            _ => return Ok(()),
        };
        let open = self.open.entry(xid).or_insert_with(|| Open::new(tracked()));
        let table = change.relation;
        if !open.tracked.columns.contains_key(&table) {
            return Ok(());
        }
        match self.layouts.get(&(streamed, table)) {
            Some(layout) if omitted == 0 => open.change(message, change, layout, self.weakness),
            Some(_) | None => {
                open.spoil(table);
                Ok(())
            }
        }
    }

    /// The transaction was rolled back, or committed: what it touched.
    pub(super) fn ended(&mut self, xid: Xid32) -> Touches {
        self.layouts.retain(|(of, _), _| *of != Some(xid));
        let open = self.open.remove(&xid);
        open.map(|open| open.touches).unwrap_or_default()
    }
}

impl Open {
    fn new(tracked: Arc<Tracked>) -> Self {
        Open {
            tracked,
            touches: Touches::default(),
        }
    }

    fn columns(&mut self, table: Oid) -> &mut Vec<(Column, Option<Buckets>)> {
        let tracked = &self.tracked;
        let none = || {
            let columns = tracked.columns.get(&table).into_iter().flatten();
            let columns = columns.map(|column| (column.clone(), Some(column.buckets())));
            columns.collect()
        };
        self.touches.0.entry(table).or_insert_with(none)
    }

    /// It may have touched anything in the table.
    fn spoil(&mut self, table: Oid) {
        for (_, touched) in self.columns(table) {
            *touched = None;
        }
    }

    fn change(
        &mut self,
        message: &Message,
        change: &Change,
        layout: &Relation,
        weakness: Weakness,
    ) -> Result<(), StreamError> {
        let is_partitioned = self.tracked.partitioned.contains(&change.relation);
        let columns = self.columns(change.relation);
        if columns.iter().all(|(_, touched)| touched.is_none()) {
            return Ok(());
        }
        let mut row = change.rows.read()?;
        if is_partitioned && weakness != Weakness::BelievesNulls {
            forget_nulls(&mut row.key);
            forget_nulls(&mut row.old);
        }
        for (column, touched) in columns {
            let Some(buckets) = touched else {
                continue;
            };
            match values(message, &row, column, layout, weakness) {
                // Rows in which it is NULL are in no range.
                Some(values) => values
                    .into_iter()
                    .flatten()
                    .for_each(|value| buckets.touch(value, Lsn(0))),
                None => *touched = None,
            }
        }
        Ok(())
    }
}

/// The partition may have left less of its old row than its partitioned table says: what is missing is NULL in it.
fn forget_nulls(row: &mut Option<Vec<Value>>) {
    for value in row.iter_mut().flatten() {
        if *value == Value::Null {
            *value = Value::Unchanged;
        }
    }
}

/// The column's values in the old row and in the new one, as far as there are such; none if one is not known.
fn values(
    message: &Message,
    row: &Row,
    column: &Column,
    layout: &Relation,
    weakness: Weakness,
) -> Option<Vec<Option<i64>>> {
    let is_it =
        |found: &crate::pgoutput::Column| found.name == column.name && found.type_oid == column.ty;
    let position = layout.columns.iter().position(is_it)?;
    let is_key = layout.columns.get(position)?.is_key;
    let in_row = |row: &Option<Vec<Value>>| row.as_ref()?.get(position).cloned();
    // What is no part of the identity is NULL in a key.
    let in_key = || in_row(&row.key).filter(|_| is_key);
    let old = in_row(&row.old).or_else(in_key);
    let new = in_row(&row.new);
    let values = match message {
        Message::Insert(_) => vec![new?],
        Message::Update(_) => {
            // Without an old key the key is what it was; whole rows are sent, but for those of a partition with a key.
            let has_key = is_key && layout.replica_identity != b'f';
            let kept = || new.clone().filter(|_| has_key && row.key.is_none());
            let old = old.or_else(kept);
            let new = match new? {
                Value::Unchanged => old.clone()?,
                new => new,
            };
            match (old, weakness) {
                (_, Weakness::NewRowsOnly) | (None, Weakness::KnownRowsOnly) => vec![new],
                (old, _) => vec![old?, new],
            }
        }
        Message::Delete(_) => match (old, weakness) {
            (None, Weakness::KnownRowsOnly) => vec![],
            (old, _) => vec![old?],
        },
        _ => return None,
    };
    let count = |value: Value| match value {
        Value::Null => Some(None),
        Value::Text(text) => {
            let text = std::str::from_utf8(&text).ok()?;
            ColumnRange::count(text, column.ty).map(Some)
        }
        // Not sent, or in a format that was not asked for.
        Value::Unchanged | Value::Binary(_) => None,
    };
    values.into_iter().map(count).collect()
}
