//! Which rows of a table can matter to a statement: ranges of its columns outside of which no row does.
//!
//! A block keeps only rows that satisfy each of its predicates, and a comparison is satisfied by no NULL, also not by
//! the NULLs of an outer join. So a row whose column is outside of the range that the predicates leave is in no row
//! that is kept, and its presence makes no other row be kept or left out: it could only keep a row of the other
//! side of an outer join from being extended by NULLs, and that one is not kept either. A left join's own
//! condition lets no row outside of its range match. (The ranges may be too wide and never too narrow.)

use std::collections::BTreeMap;

use crate::block::{Attachment, Block, Occurrence, Tables};
use crate::catalog::{AttNum, Catalog, Column, ColumnType, Oid};
use crate::equivalence::column_equality;
use crate::expr::{BinaryOp, ColumnRef, ColumnTypes, Literal, OccurrenceId, Parameter, Scalar};
use crate::implication::{as_bound, integer, points};
use crate::print::{quote_identifier, quote_qualified};
use crate::query::Query;
use crate::time::{self, Civil, DAY, SECOND};
use crate::types;
use crate::zone::Zone;

/// The rows of a table whose column lies outside of this do not matter; nor do those in which it is NULL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ColumnRange {
    /// The table.
    pub table: Oid,
    /// The column.
    pub column: String,
    /// Its type: an integer, `date`, `timestamp`, `timestamptz`, `text` or `varchar`.
    pub ty: Oid,
    /// The first value that matters. Integers are counted as they are, dates in days since 2000-01-01, times in
    /// whole seconds since then (in UTC where the type has a zone). Texts are counted in no order: ranges of them are of one
    /// count, which others may have as well.
    pub low: i64,
    /// The last value that matters.
    pub high: i64,
}

impl ColumnRange {
    /// How a value of this type is counted that PostgreSQL has printed with `DateStyle` ISO; `None` for what is
    /// not understood.
    pub fn count(text: &str, ty: Oid) -> Option<i64> {
        let is_time = matches!(ty.0, types::DATE | types::TIMESTAMP | types::TIMESTAMPTZ);
        match text {
            "infinity" if is_time => return Some(i64::MAX),
            "-infinity" if is_time => return Some(i64::MIN),
            _ => {}
        }
        match ty.0 {
            types::DATE => Some(Civil::parse(text)?.0.div_euclid(DAY)),
            types::TIMESTAMP => Some(Civil::parse(text)?.0.div_euclid(SECOND)),
            types::TIMESTAMPTZ => {
                // Behind the date, whose hyphens are no signs.
                let sign = text.get(11..)?.find(['+', '-'])? + 11;
                let (civil, offset) = text.split_at_checked(sign)?;
                let instant = Civil::parse(civil)?.0.checked_sub(offset_of(offset)?)?;
                Some(instant.div_euclid(SECOND))
            }
            types::TEXT | types::VARCHAR => Some(count_of_text(text)),
            _ if types::is_integer(ty) => text.parse().ok(),
            _ => None,
        }
    }

    /// Whether values of this type are counted in seconds.
    pub fn counts_seconds(ty: Oid) -> bool {
        matches!(ty.0, types::TIMESTAMP | types::TIMESTAMPTZ)
    }
}

/// The hash FNV-1a. Texts that are alike have the same, and hardly any others do.
fn count_of_text(text: &str) -> i64 {
    let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step).cast_signed()
}

/// `+05:30`, in microseconds.
fn offset_of(text: &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let mut seconds = 0;
    for (part, unit) in text.get(1..)?.split(':').zip([3600, 60, 1]) {
        seconds += part.parse::<u16>().ok().map(i64::from)? * unit;
    }
    Some(sign * seconds * SECOND)
}

/// Rows of a table: those that lie in all of these ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRows {
    /// The table.
    pub table: Oid,
    /// Of its columns.
    pub ranges: Vec<ColumnRange>,
}

impl TableRows {
    /// Any row of the table.
    pub(crate) fn all(table: Oid) -> TableRows {
        TableRows {
            table,
            ranges: vec![],
        }
    }
}

/// A range of one column; empty when nothing matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) low: i64,
    pub(crate) high: i64,
}

impl Span {
    pub(crate) const ALL: Span = Span {
        low: i64::MIN,
        high: i64::MAX,
    };

    fn and(self, other: Span) -> Span {
        Span {
            low: self.low.max(other.low),
            high: self.high.min(other.high),
        }
    }

    /// The smallest range that has both.
    fn or(self, other: Span) -> Span {
        Span {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
        }
    }
}

pub(crate) type Spans = BTreeMap<ColumnRef, Span>;

/// The ranges that hold for every occurrence of their table.
pub(crate) fn ranges(query: &Query, catalog: &Catalog, time_zone: &str) -> Vec<ColumnRange> {
    let mut of_tables: BTreeMap<Oid, BTreeMap<AttNum, Span>> = BTreeMap::new();
    for block in query.blocks() {
        let reader = Reader {
            tables: block.tables(catalog),
            zone: Zone::named(time_zone),
        };
        for (table, spans) in reader.of_block(block, &Spans::new()) {
            of_tables
                .entry(table)
                .and_modify(|known| meet(known, &spans))
                .or_insert(spans);
        }
    }
    let tables = of_tables.into_iter();
    tables
        .flat_map(|(table, spans)| named(table, &spans, catalog))
        .collect()
}

/// The rows that matter to the block itself and not to what is inside it, for each table in its FROM. `within` is what is known
/// of them beside what its predicates say.
pub(crate) fn rows(
    block: &Block,
    within: &Spans,
    catalog: &Catalog,
    time_zone: &str,
) -> Vec<TableRows> {
    let reader = Reader {
        tables: block.tables(catalog),
        zone: Zone::named(time_zone),
    };
    let read = reader.of_block(block, within).into_iter();
    read.map(|(table, spans)| TableRows {
        table,
        ranges: named(table, &spans, catalog),
    })
    .collect()
}

fn named(table: Oid, spans: &BTreeMap<AttNum, Span>, catalog: &Catalog) -> Vec<ColumnRange> {
    let named = |(attnum, span): (&AttNum, &Span)| {
        let column = catalog.relation_by_oid(table)?.column_at(*attnum)?;
        Some(ColumnRange {
            table,
            column: column.name.clone(),
            ty: column.ty.oid,
            low: span.low,
            high: span.high,
        })
    };
    spans.iter().filter_map(named).collect()
}

/// What is known of one and of the other.
fn meet(known: &mut BTreeMap<AttNum, Span>, other: &BTreeMap<AttNum, Span>) {
    known.retain(|attnum, span| match other.get(attnum) {
        Some(other) => {
            *span = span.or(*other);
            true
        }
        None => false,
    });
}

/// Rows of a table that matter only if they can be joined with certain rows of another: their column lies between two
/// keys of that one, which a query finds. The keys are what they were for as long as no row of the other table that matters
/// changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The table.
    pub table: Oid,
    /// Its column.
    pub column: String,
    /// The column's type: an integer, or `date`.
    pub ty: Oid,
    /// The table that has the keys.
    pub keys_of: Oid,
    /// The least and the greatest of them, as [`ColumnRange`] counts; NULL if there are none.
    pub sql: String,
}

/// Rows of a table that matter only if their column compares so with what is bound to a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterRange {
    /// The table.
    pub table: Oid,
    /// Its column.
    pub column: String,
    /// The column's type, one that [`ColumnRange`] counts.
    pub ty: Oid,
    /// The number of the parameter, from 1 on.
    pub number: u32,
    /// Whether rows with smaller values matter.
    pub from_below: bool,
    /// Whether rows with greater ones do.
    pub to_above: bool,
}

impl ParameterRange {
    /// The range, if the value that is bound is counted so.
    pub fn around(&self, count: i64) -> ColumnRange {
        ColumnRange {
            table: self.table,
            column: self.column.clone(),
            ty: self.ty,
            low: if self.from_below { i64::MIN } else { count },
            high: if self.to_above { i64::MAX } else { count },
        }
    }
}

/// The tables that the statement reads once.
fn read_once(query: &Query) -> Vec<Oid> {
    let blocks = query.blocks();
    let occurrences = blocks.iter().flat_map(|block| &block.occurrences);
    let read: Vec<Oid> = occurrences.filter_map(Occurrence::relation).collect();
    let is_single = |table: &&Oid| read.iter().filter(|other| other == table).count() == 1;
    read.iter().filter(is_single).copied().collect()
}

/// What parameters leave of tables that the statement reads once.
pub(crate) fn parameter_ranges(query: &Query, catalog: &Catalog) -> Vec<ParameterRange> {
    let once = read_once(query);
    let of_block = |block: &Block| {
        let reader = Reader {
            tables: block.tables(catalog),
            zone: Zone::Other,
        };
        let ranges = conjuncts(&block.predicates).into_iter();
        let ranges = ranges.filter_map(|condition| reader.parameter_range(condition));
        ranges.collect::<Vec<ParameterRange>>()
    };
    let ranges = query.blocks().into_iter().flat_map(of_block);
    ranges.filter(|range| once.contains(&range.table)).collect()
}

fn conjuncts(conditions: &[Scalar]) -> Vec<&Scalar> {
    let parts = conditions.iter().flat_map(|condition| match condition {
        Scalar::And(parts) => conjuncts(parts),
        other => vec![other],
    });
    parts.collect()
}

/// What is known so of tables that the statement reads once.
pub(crate) fn key_ranges(query: &Query, catalog: &Catalog, time_zone: &str) -> Vec<KeyRange> {
    let blocks = query.blocks();
    let once = read_once(query);
    let is_read_once = |table: Oid| once.contains(&table);
    let mut found: Vec<KeyRange> = vec![];
    for block in blocks {
        let reader = Reader {
            tables: block.tables(catalog),
            zone: Zone::named(time_zone),
        };
        let mut spans = reader.of_all(&block.predicates);
        reader.spread(&mut spans, &block.predicates);
        for (left, right) in block.predicates.iter().filter_map(column_equality) {
            for (column, key) in [(left, right), (right, left)] {
                let range = reader.key_range(&spans, column, key);
                let range = range.filter(|range| is_read_once(range.table));
                let is_known = |range: &KeyRange| {
                    let mut found = found.iter();
                    found.any(|known| known.table == range.table && known.column == range.column)
                };
                if let Some(range) = range.filter(|range| !is_known(range)) {
                    found.push(range);
                }
            }
        }
    }
    found
}

/// `column >= low AND column <= high`, as far as both are bounds; only of columns that are compared alike everywhere.
fn condition(column: &Column, span: Span) -> Option<String> {
    let name = quote_identifier(&column.name);
    let value = |count: i64| match column.ty.oid.0 {
        types::DATE => Some(format!(
            "date '2000-01-01' + {}",
            i32::try_from(count).ok()?
        )),
        _ if types::is_integer(column.ty.oid) => Some(format!("'{count}'::int8")),
        _ => None,
    };
    let low = (span.low != Span::ALL.low)
        .then(|| value(span.low))
        .flatten();
    let high = (span.high != Span::ALL.high)
        .then(|| value(span.high))
        .flatten();
    let low = low.map(|low| format!("{name} >= {low}"));
    let high = high.map(|high| format!("{name} <= {high}"));
    let bounds: Vec<String> = low.into_iter().chain(high).collect();
    (!bounds.is_empty()).then(|| bounds.join(" AND "))
}

struct Reader<'a> {
    tables: Tables<'a>,
    zone: Zone,
}

impl Reader<'_> {
    /// For each occurrence of a base table, the ranges that the block leaves.
    fn of_block(&self, block: &Block, within: &Spans) -> Vec<(Oid, BTreeMap<AttNum, Span>)> {
        let mut everywhere = self.of_all(&block.predicates);
        narrow(&mut everywhere, within.clone());
        self.spread(&mut everywhere, &block.predicates);
        let occurrences = block.occurrences.iter().enumerate();
        let of_occurrence = occurrences.filter_map(|(position, occurrence)| {
            let table = occurrence.relation()?;
            let mut spans = everywhere.clone();
            if let Attachment::Left(condition) = &occurrence.attachment {
                narrow(&mut spans, self.of_all(condition));
            }
            let own = spans.into_iter();
            let own = own.filter(|(column, _)| column.occurrence == OccurrenceId(position));
            Some((
                table,
                own.map(|(column, span)| (column.attnum, span)).collect(),
            ))
        });
        of_occurrence.collect()
    }

    /// Columns that are equal lie in the same range, where both count alike.
    fn spread(&self, spans: &mut Spans, predicates: &[Scalar]) {
        let type_of = |column| self.tables.column_type(column).map(|ty| ty.oid);
        let mut equal: Vec<(ColumnRef, ColumnRef)> =
            predicates.iter().filter_map(column_equality).collect();
        let counts_alike = |column| {
            !self.tables.column_type(column).is_some_and(is_character) || self.is_text(column)
        };
        equal.retain(|(left, right)| {
            left != right
                && type_of(*left) == type_of(*right)
                && counts_alike(*left)
                && counts_alike(*right)
        });
        // Each round carries a range over one more equality.
        for _ in 0..equal.len() {
            for (left, right) in &equal {
                let of = |column: &ColumnRef| spans.get(column).copied().unwrap_or(Span::ALL);
                let both = of(left).and(of(right));
                if both != Span::ALL {
                    spans.insert(*left, both);
                    spans.insert(*right, both);
                }
            }
        }
    }

    fn parameter_range(&self, condition: &Scalar) -> Option<ParameterRange> {
        let bound = as_bound(condition)?;
        let (column, ty) = self.counted(bound.operand)?;
        let parameter = match bound.constant {
            Scalar::Cast { operand, to } if to.oid == ty.0 && to.typmod == -1 => &**operand,
            other => other,
        };
        let Scalar::Parameter(Parameter { number, time: None }) = parameter else {
            return None;
        };
        let (from_below, to_above) = match bound.op {
            BinaryOp::Equal => (false, false),
            _ if self.is_text(column) => return None,
            BinaryOp::Less | BinaryOp::LessOrEqual => (true, false),
            BinaryOp::Greater | BinaryOp::GreaterOrEqual => (false, true),
            _ => return None,
        };
        let relation = self.tables.relation(column.occurrence)?;
        Some(ParameterRange {
            table: relation.oid,
            column: relation.column_at(column.attnum)?.name.clone(),
            ty,
            number: *number,
            from_below,
            to_above,
        })
    }

    /// Where the column has to lie, if it equals the only key of a table of which only some rows matter.
    fn key_range(&self, spans: &Spans, column: ColumnRef, key: ColumnRef) -> Option<KeyRange> {
        let (table, keys_of) = (
            self.tables.relation(column.occurrence)?,
            self.tables.relation(key.occurrence)?,
        );
        let (of_column, of_key) = (
            table.column_at(column.attnum)?,
            keys_of.column_at(key.attnum)?,
        );
        let ty = of_column.ty.oid;
        let is_counted = ty.0 == types::DATE || types::is_integer(ty);
        let is_unique = keys_of
            .unique_keys
            .iter()
            .any(|unique| *unique == [key.attnum]);
        let is_bounded = spans
            .get(&column)
            .is_some_and(|span| span.low != Span::ALL.low && span.high != Span::ALL.high);
        let is_apart = column.occurrence != key.occurrence && table.oid != keys_of.oid;
        if !is_counted || ty != of_key.ty.oid || !is_unique || is_bounded || !is_apart {
            return None;
        }
        let own = spans
            .iter()
            .filter(|(other, _)| other.occurrence == key.occurrence);
        let conditions =
            own.filter_map(|(other, span)| condition(keys_of.column_at(other.attnum)?, *span));
        let conditions: Vec<String> = conditions.collect();
        if conditions.is_empty() {
            return None;
        }
        let name = quote_identifier(&of_key.name);
        let count = |end: &str| match ty.0 {
            types::DATE => format!("({end}({name}) - date '2000-01-01')::int8"),
            _ => format!("{end}({name})::int8"),
        };
        Some(KeyRange {
            table: table.oid,
            column: of_column.name.clone(),
            ty,
            keys_of: keys_of.oid,
            sql: format!(
                "SELECT {}, {} FROM {} WHERE {}",
                count("min"),
                count("max"),
                quote_qualified(&keys_of.schema, &keys_of.name),
                conditions.join(" AND ")
            ),
        })
    }

    fn of_all(&self, conditions: &[Scalar]) -> Spans {
        let mut spans = Spans::new();
        for condition in conditions {
            narrow(&mut spans, self.of_condition(condition));
        }
        spans
    }

    /// Where the condition can be true.
    fn of_condition(&self, condition: &Scalar) -> Spans {
        match condition {
            Scalar::And(parts) => self.of_all(parts),
            Scalar::Or(cases) => {
                let mut cases = cases.iter().map(|case| self.of_condition(case));
                let mut spans = cases.next().unwrap_or_default();
                for case in cases {
                    spans.retain(|column, span| match case.get(column) {
                        Some(other) => {
                            *span = span.or(*other);
                            true
                        }
                        None => false,
                    });
                }
                spans
            }
            _ => {
                let span = self.of_points(condition);
                let span = span.or_else(|| self.of_comparison(condition));
                span.into_iter().collect()
            }
        }
    }

    fn of_points(&self, condition: &Scalar) -> Option<(ColumnRef, Span)> {
        let (operand, list) = points(condition, &self.tables)?;
        let (column, ty) = self.counted(operand)?;
        let mut all: Option<Span> = None;
        for constant in list {
            let span = self.span(BinaryOp::Equal, constant, ty)?;
            all = Some(all.map_or(span, |all| all.or(span)));
        }
        Some((column, all?))
    }

    fn of_comparison(&self, condition: &Scalar) -> Option<(ColumnRef, Span)> {
        let bound = as_bound(condition)?;
        let (column, ty) = self.counted(bound.operand)?;
        Some((column, self.span(bound.op, bound.constant, ty)?))
    }

    /// A column of a base table whose values are counted.
    fn counted(&self, operand: &Scalar) -> Option<(ColumnRef, Oid)> {
        let Scalar::Column(column) = operand else {
            return None;
        };
        self.tables.relation(column.occurrence)?;
        let ty = self.tables.column_type(*column)?.oid;
        let is_time = matches!(ty.0, types::DATE | types::TIMESTAMP | types::TIMESTAMPTZ);
        (is_time || types::is_integer(ty) || self.is_text(*column)).then_some((*column, ty))
    }

    /// Whether values that are equal are the same text.
    fn is_text(&self, column: ColumnRef) -> bool {
        self.tables
            .column_type(column)
            .is_some_and(|ty| is_character(ty) && self.tables.is_deterministic(ty.collation))
    }

    /// Where `x op constant` can be true.
    fn span(&self, op: BinaryOp, constant: &Scalar, ty: Oid) -> Option<Span> {
        if matches!(ty.0, types::TEXT | types::VARCHAR) {
            let count = count_of_text(text(constant)?);
            let is = Span {
                low: count,
                high: count,
            };
            return (op == BinaryOp::Equal).then_some(is);
        }
        let Point {
            at,
            before,
            uncertain,
        } = self.point(constant, ty)?;
        let low = at.checked_sub(uncertain)?;
        let (high, below) = (at.checked_add(uncertain)?, before.checked_add(uncertain)?);
        match op {
            BinaryOp::Equal => Some(Span { low, high }),
            BinaryOp::Less => Some(Span {
                high: below,
                ..Span::ALL
            }),
            BinaryOp::LessOrEqual => Some(Span { high, ..Span::ALL }),
            BinaryOp::Greater | BinaryOp::GreaterOrEqual => Some(Span { low, ..Span::ALL }),
            _ => None,
        }
    }

    fn point(&self, constant: &Scalar, ty: Oid) -> Option<Point> {
        if types::is_integer(ty) {
            let at = integer(constant)?;
            return Some(Point {
                at,
                before: at.checked_sub(1)?,
                uncertain: 0,
            });
        }
        let is_rounded = matches!(constant, Scalar::Cast { operand: _, to } if to.typmod != -1);
        if is_rounded {
            return None;
        }
        let zoned = ty.0 == types::TIMESTAMPTZ;
        let (civil, is_local) = match (utc(constant), time::constant(constant, false)) {
            (Some(utc), _) if zoned => (utc, false),
            (_, Some(civil)) => (civil, zoned),
            (_, None) => (time::constant(constant, true)?, true),
        };
        let unit = if ty.0 == types::DATE { DAY } else { SECOND };
        let uncertain = match (is_local, self.zone) {
            (false, _) | (true, Zone::Utc) => 0,
            // No zone of the tz database is further from UTC.
            (true, Zone::Named) => DAY / unit,
            (true, Zone::Other) => return None,
        };
        Some(Point {
            at: civil.0.div_euclid(unit),
            before: civil.0.checked_sub(1)?.div_euclid(unit),
            uncertain,
        })
    }
}

/// A constant as the values of a column are counted.
struct Point {
    at: i64,
    /// The last count before it.
    before: i64,
    /// How far it may be from where it seems to be.
    uncertain: i64,
}

fn is_character(ty: ColumnType) -> bool {
    matches!(ty.oid.0, types::TEXT | types::VARCHAR)
}

/// A text that has the same bytes in every encoding of a server.
fn text(constant: &Scalar) -> Option<&str> {
    let text = match constant {
        Scalar::Cast { operand, to } if to.oid == types::TEXT && to.typmod == -1 => operand,
        other => other,
    };
    match text {
        Scalar::Literal(Literal::String(text)) if text.is_ascii() => Some(text),
        _ => None,
    }
}

/// An instant that is written with its offset.
fn utc(constant: &Scalar) -> Option<Civil> {
    let text = match constant {
        Scalar::Cast { operand, to } if to.oid == types::TIMESTAMPTZ => operand,
        other => other,
    };
    match text {
        Scalar::Literal(Literal::String(text)) => Civil::parse_utc(text),
        _ => None,
    }
}

fn narrow(spans: &mut Spans, by: Spans) {
    for (column, span) in by {
        let known = spans.entry(column).or_insert(Span::ALL);
        *known = known.and(span);
    }
}
