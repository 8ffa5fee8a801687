//! Ranges of time that do not begin and end where a rollup's buckets do: the whole buckets inside the
//! range come from the rollup, and the rows at its edges from the base tables.
//!
//! The query is taken apart into parts that aggregate one piece of the range each, by the query's own keys, and
//! the query over those parts. Parts are to the query what a rollup's rows are, so both halves of the proof are
//! those of matching: the parts answer the query, and the rollup answers the part of whole buckets.
//!
//! With `f` as the rollup's key over a time, which never falls as the time rises, and bounds `a` and `b`, the
//! whole buckets are those with `f(a) < f(time) < f(b)`. Times in the buckets of `a` and `b` are at the edges.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::approximate::{APPROXIMATE, Floats};
use crate::block::{Attachment, Block, Distinct, Limit, Occurrence, Output, Source, Tables};
use crate::bucket::{Grain, with_operand};
use crate::catalog::{AttNum, Catalog};
use crate::derive::{
    ROLLUP_OCCURRENCE, TimeOperand, at_time_zone, beginning, time_operand, turning_point,
};
use crate::expr::{
    Aggregate, AggregateFunction, BinaryOp, ColumnRef, ColumnTypes, Literal, Scalar, TypeName,
};
use crate::functions::{self, Volatility};
use crate::implication::as_bound;
use crate::matching::{Derived, Matcher, Step};
use crate::premise::Premise;
use crate::query::{Body, ColumnFacts, Query, Rows, SetOperation, SetOperator, SubSelect};
use crate::ranges::{Span, Spans};
use crate::reason::{Code, Reason};
use crate::rollup::{InstantForm, RollupDefinition, Stored, TimeKey, label};
use crate::stored::{stored_columns, without_needless_distinct};
use crate::time::{self, Civil, DAY, SECOND};
use crate::types;
use crate::volatility::is_plain_interval;
use crate::zone::Zone;

/// A query answered in parts.
#[derive(Debug, Clone)]
pub(crate) struct Covered {
    /// The query over its parts.
    pub(crate) whole: Block,
    /// The part of whole buckets, as it stands among the parts.
    pub(crate) middle: Block,
    /// The same over the rollup's table.
    pub(crate) derived: Block,
    /// The times of the rows in it.
    pub(crate) middle_times: Spans,
    pub(crate) edges: Edges,
    pub(crate) proof: Vec<Step>,
    pub(crate) premises: BTreeSet<Premise>,
}

/// The part that is read from the base tables.
#[derive(Debug, Clone)]
pub(crate) struct Edges {
    /// As it stands among the parts.
    pub(crate) block: Block,
    /// The times of the rows at each edge.
    pub(crate) times: Vec<Spans>,
}

/// The query answered in parts from the rollup and the base tables, or why it cannot be.
pub(crate) fn cover(
    matcher: &Matcher<'_>,
    query: &Block,
    rollup: &RollupDefinition,
) -> Result<Covered, Reason> {
    let tables = query.tables(matcher.catalog);
    let mut refusal = None;
    let mut keys: Vec<&TimeKey> = rollup.time_keys.iter().collect();
    // Smaller buckets leave less at the edges.
    keys.sort_by_key(|key| key.grain.length());
    for key in keys {
        for cuts in Cuts::all(query, rollup, key, matcher.zone, tables) {
            match in_parts(matcher, query, rollup, &cuts, tables) {
                Ok(covered) => return Ok(covered),
                Err(reason) => refusal = refusal.or(Some(reason)),
            }
        }
    }
    Err(refusal.unwrap_or_else(|| Reason::new(Code::BucketUnaligned, "")))
}

fn in_parts(
    matcher: &Matcher<'_>,
    query: &Block,
    rollup: &RollupDefinition,
    cuts: &Cuts,
    tables: Tables<'_>,
) -> Result<Covered, Reason> {
    let given = cuts.bounds();
    let of_keys = cuts.whole_buckets();
    let mut within = cuts.others(query);
    within.extend(of_keys.iter().cloned());
    let edge = |bound: &Scalar| Step {
        rule: "edge read from the base tables",
        detail: label(bound, tables),
    };
    let split = Split {
        within,
        within_times: cuts.middle_times(tables),
        beside: cuts.edges(query),
        beside_times: cuts.edge_times(tables),
        proof: given.iter().map(edge).collect(),
    };
    let of_buckets = Matcher {
        given: &given,
        of_keys: &of_keys,
        ..*matcher
    };
    split.answer(matcher, &of_buckets, query, rollup)
}

/// How a query's rows are told apart: each of them satisfies all conjuncts of one side and not of the other.
pub(crate) struct Split {
    /// The conjuncts of the rows that the rollup has.
    pub(crate) within: Vec<Scalar>,
    /// The times of these rows.
    pub(crate) within_times: Spans,
    /// The conjuncts of the rows that are read from the base tables.
    pub(crate) beside: Vec<Scalar>,
    /// The times of these rows, for each of the ranges that they lie in.
    pub(crate) beside_times: Vec<Spans>,
    pub(crate) proof: Vec<Step>,
}

impl Split {
    /// The query over both parts; `of_rollup` matches the one that the rollup answers.
    pub(crate) fn answer(
        self,
        matcher: &Matcher<'_>,
        of_rollup: &Matcher<'_>,
        query: &Block,
        rollup: &RollupDefinition,
    ) -> Result<Covered, Reason> {
        let tables = query.tables(matcher.catalog);
        let parts =
            RollupDefinition::of_parts(part(query, tables)?, rollup.floats, matcher.catalog)?;
        let middle = Block {
            predicates: self.within,
            ..parts.block.clone()
        };
        let Derived {
            block,
            mut proof,
            mut premises,
        } = of_rollup.derive(&middle, rollup)?;
        let whole = matcher.derive(query, &parts)?;
        let beside = Block {
            predicates: self.beside,
            ..parts.block.clone()
        };
        premises.extend(whole.premises);
        proof.extend(self.proof);
        // Of what the statement asks for, not of the parts that it is put together from.
        proof.retain(|step| step.rule != APPROXIMATE);
        let of_whole = whole.proof.into_iter();
        proof.extend(of_whole.filter(|step| step.rule == APPROXIMATE));
        Ok(Covered {
            whole: over_parts(
                whole.block,
                union(&middle, beside.clone()),
                &parts,
                matcher.catalog,
            ),
            middle,
            derived: block,
            middle_times: self.within_times,
            edges: Edges {
                block: beside,
                times: self.beside_times,
            },
            proof,
            premises,
        })
    }
}

/// What every part computes: the query's groups with what its aggregates are derived from.
fn part(query: &Block, tables: Tables<'_>) -> Result<Block, Reason> {
    let mut collected = Collected {
        query,
        tables,
        keys: vec![],
        outputs: vec![],
    };
    for key in &query.group_by {
        collected.key(key);
    }
    let above = query.outputs.iter().map(|output| &output.value);
    let above = above.chain(&query.having).chain(query.distinct.on());
    for scalar in above.chain(query.order_by.iter().map(|item| &item.value)) {
        collected.above_groups(scalar)?;
    }
    Ok(Block {
        occurrences: query.occurrences.clone(),
        predicates: query.predicates.clone(),
        group_by: collected.keys,
        grouping_sets: None,
        is_aggregated: true,
        having: vec![],
        outputs: collected.outputs,
        distinct: Distinct::No,
        order_by: vec![],
        limit: Limit::default(),
        // The statement over the parts names them.
        mentioned: vec![],
        views: vec![],
    })
}

/// Keys and aggregates of a query.
struct Collected<'q> {
    query: &'q Block,
    tables: Tables<'q>,
    keys: Vec<Scalar>,
    outputs: Vec<Output>,
}

impl Collected<'_> {
    fn key(&mut self, key: &Scalar) {
        if self.keys.contains(key) {
            return;
        }
        let named = self.query.outputs.iter();
        let named = named.filter(|output| output.value == *key).take(1);
        self.outputs.extend(named.cloned());
        self.keys.push(key.clone());
    }

    fn above_groups(&mut self, scalar: &Scalar) -> Result<(), Reason> {
        let canonical = scalar.canonical();
        let mut keys = self.query.group_by.iter();
        if keys.any(|key| key.canonical() == canonical) {
            return Ok(());
        }
        match scalar {
            Scalar::Aggregate(aggregate) => self.aggregate(aggregate),
            Scalar::Column(_) => {
                self.key(scalar);
                Ok(())
            }
            other => {
                let mut children = other.children().into_iter();
                children.try_for_each(|child| self.above_groups(child))
            }
        }
    }

    fn aggregate(&mut self, aggregate: &Aggregate) -> Result<(), Reason> {
        use AggregateFunction::{Avg, Count, StddevPop, StddevSamp, Sum, VarPop, VarSamp};
        let aggregate = without_needless_distinct(aggregate.clone());
        let is_derivable = aggregate.function.is_distributive()
            || matches!(
                aggregate.function,
                Avg | VarPop | VarSamp | StddevPop | StddevSamp
            );
        let of_keys = aggregate.distinct && matches!(aggregate.function, Count | Sum | Avg);
        match (&aggregate.argument, &aggregate.filter) {
            // Of the values that parts have in common each counts once.
            (Some(argument), None) if of_keys => self.key(argument),
            _ if is_derivable && !aggregate.distinct => self.outputs.push(Output {
                name: aggregate.function.as_str().to_owned(),
                value: Scalar::Aggregate(Box::new(aggregate)),
            }),
            _ => {
                let whole = Scalar::Aggregate(Box::new(aggregate));
                return Err(Reason::new(
                    Code::UnsupportedAggregate,
                    label(&whole, self.tables),
                ));
            }
        }
        Ok(())
    }
}

impl RollupDefinition {
    /// The parts of a statement as if they were stored: several of them may have rows of one group.
    fn of_parts(
        mut part: Block,
        floats: Floats,
        catalog: &Catalog,
    ) -> Result<RollupDefinition, Reason> {
        let tables = part.tables(catalog);
        let columns = stored_columns(&part, tables, floats)?;
        let output = |column: &crate::rollup::StoredColumn| Output {
            name: column.name.clone(),
            value: match &column.stored {
                Stored::Key(key) => key.clone(),
                Stored::Partial(partial) => Scalar::Aggregate(Box::new(partial.clone())),
            },
        };
        part.outputs = columns.iter().map(output).collect();
        let mut parts = RollupDefinition::of_columns(part, columns, catalog);
        parts.may_repeat_groups = true;
        parts.floats = floats;
        Ok(parts)
    }
}

fn union(middle: &Block, edges: Block) -> Query {
    let query = |block: Block| Query {
        with: vec![],
        body: Body::Block(Box::new(block)),
    };
    Query {
        with: vec![],
        body: Body::SetOperation(Box::new(SetOperation {
            operator: SetOperator::Union,
            all: true,
            left: query(middle.clone()),
            right: query(edges),
            order_by: vec![],
            limit: Limit::default(),
        })),
    }
}

/// The query over the parts in place of a rollup's table.
fn over_parts(
    derived: Block,
    parts: Query,
    definition: &RollupDefinition,
    catalog: &Catalog,
) -> Block {
    let columns = parts.columns(catalog).into_iter().zip(&definition.columns);
    let columns = columns.map(|(facts, stored)| ColumnFacts {
        ty: Some(stored.ty),
        ..facts
    });
    let select = SubSelect {
        name: "parts".to_owned(),
        columns: columns.collect(),
        rows: Rows::Query(parts),
    };
    // A rollup's columns are numbered from 0, those of a sub-select from 1.
    let numbered = derived.map_columns(&|column| match column.occurrence == ROLLUP_OCCURRENCE {
        true => ColumnRef {
            attnum: AttNum(column.attnum.0 + 1),
            ..column
        },
        false => column,
    });
    let parts = Occurrence {
        source: Source::Select(Arc::new(select)),
        attachment: Attachment::Inner,
    };
    // In the place of the rollup; tables that are joined back to it are joined back to the parts.
    let joined_back = numbered.occurrences.iter().skip(1).cloned();
    Block {
        occurrences: std::iter::once(parts).chain(joined_back).collect(),
        ..numbered
    }
}

/// One end of a range, inside a bucket.
#[derive(Debug, Clone)]
struct Cut {
    /// Its position among the query's predicates.
    position: usize,
    bound: Scalar,
    /// The bound's constant, of the type of what is stored in buckets.
    constant: Scalar,
    /// The same as a point of civil time, where it is known.
    point: Option<Civil>,
    /// Civil time is that of the buckets, so that it neither skips nor repeats.
    is_certain: bool,
    /// The instant is not further than a day from the same time in UTC.
    is_within_a_day: bool,
}

impl Cut {
    /// Where it is at the earliest. No zone of the tz database is further from UTC than a day; other zones may be.
    fn earliest(&self) -> Option<Civil> {
        self.moved(-DAY)
    }

    fn latest(&self) -> Option<Civil> {
        self.moved(DAY)
    }

    fn moved(&self, by: i64) -> Option<Civil> {
        match (self.is_certain, self.is_within_a_day) {
            (true, _) => self.point,
            (false, true) => Some(Civil(self.point?.0.checked_add(by)?)),
            (false, false) => None,
        }
    }
}

fn before(point: Civil) -> Civil {
    Civil(point.0 - 1)
}

/// A range of time, by where it cuts buckets.
struct Cuts {
    lower: Option<Cut>,
    upper: Option<Cut>,
    /// The time that is bounded.
    timestamp: Scalar,
    /// The time as it is compared at the edges, and whether that is a date.
    compared: Scalar,
    is_date: bool,
    key: TimeKey,
    /// The rollup's key over the time.
    bucket: Scalar,
    /// How long buckets are, as an interval.
    length: Scalar,
}

/// A comparison with a constant that the range is made of.
struct Side<'q> {
    position: usize,
    conjunct: &'q Scalar,
    op: BinaryOp,
    constant: &'q Scalar,
    operand: &'q Scalar,
    time: TimeOperand,
}

impl Cuts {
    /// The ranges of the query that cut buckets of this key, one for each time that is bounded.
    fn all(
        query: &Block,
        rollup: &RollupDefinition,
        key: &TimeKey,
        zone: Zone,
        tables: Tables<'_>,
    ) -> Vec<Cuts> {
        let sides = sides(query, key, tables);
        let mut times: Vec<&Scalar> = vec![];
        for side in &sides {
            if !times.contains(&&side.time.timestamp) {
                times.push(&side.time.timestamp);
            }
        }
        let of_time = |timestamp: &Scalar| {
            let of_it = sides
                .iter()
                .filter(|side| side.time.timestamp == *timestamp);
            Cuts::of(&of_it.collect::<Vec<_>>(), rollup, key, zone, tables)
        };
        times.into_iter().filter_map(of_time).collect()
    }

    fn of(
        sides: &[&Side<'_>],
        rollup: &RollupDefinition,
        key: &TimeKey,
        zone: Zone,
        tables: Tables<'_>,
    ) -> Option<Cuts> {
        let first = sides.first()?;
        let ends = |is_lower: bool| -> Option<Vec<End>> {
            let sides = sides
                .iter()
                .filter(|side| is_lower_bound(side.op) == is_lower);
            sides.map(|side| End::of(side, key, zone, tables)).collect()
        };
        let (lower, upper) = (ends(true)?, ends(false)?);
        if !has_whole_buckets(&lower, &upper, key.grain) {
            return None;
        }
        let is_finite = !lower.is_empty() && !upper.is_empty();
        if key.loses_infinity && !is_finite {
            return None;
        }
        let (lower, upper) = (only_cut(lower)?, only_cut(upper)?);
        if lower.is_none() && upper.is_none() {
            return None;
        }
        let timestamp = first.time.timestamp.clone();
        let is_date =
            matches!(&timestamp, Scalar::Cast { operand, .. } if **operand == *first.operand);
        let key_expression = rollup.key_at(key.position)?;
        Some(Cuts {
            lower,
            upper,
            compared: match is_date {
                true => first.operand.clone(),
                false => timestamp.clone(),
            },
            is_date,
            bucket: with_operand(key_expression, &key.operand, &timestamp),
            timestamp,
            length: key
                .grain
                .interval(key.instant == Some(InstantForm::Instant))?,
            key: key.clone(),
        })
    }

    fn ends(&self) -> impl Iterator<Item = &Cut> {
        self.lower.iter().chain(&self.upper)
    }

    fn bounds(&self) -> Vec<Scalar> {
        self.ends().map(|cut| cut.bound.clone()).collect()
    }

    /// The query's predicates, those of the range aside.
    fn others(&self, query: &Block) -> Vec<Scalar> {
        let positions: Vec<usize> = self.ends().map(|cut| cut.position).collect();
        let predicates = query.predicates.iter().enumerate();
        let others = predicates.filter(|(position, _)| !positions.contains(position));
        others.map(|(_, predicate)| predicate.clone()).collect()
    }

    /// The rollup's key of a constant.
    fn bucket_of(&self, constant: &Scalar) -> Scalar {
        with_operand(&self.bucket, &self.timestamp, constant)
    }

    /// The whole buckets: behind that of the lower bound, and before that of the upper one.
    fn whole_buckets(&self) -> Vec<Scalar> {
        let beside =
            |cut: &Cut, op| Scalar::binary(op, self.bucket.clone(), self.bucket_of(&cut.constant));
        let behind = self.lower.iter().map(|cut| beside(cut, BinaryOp::Greater));
        let before = self.upper.iter().map(|cut| beside(cut, BinaryOp::Less));
        behind.chain(before).collect()
    }

    /// The rows of the range that are in the buckets of its ends.
    fn edges(&self, query: &Block) -> Vec<Scalar> {
        let mut predicates = self.others(query);
        let in_first = |cut: &Cut| self.compare(BinaryOp::Less, self.end_of_bucket(&cut.constant));
        let in_last =
            |cut: &Cut| self.compare(BinaryOp::GreaterOrEqual, self.beginning(&cut.constant));
        match (&self.lower, &self.upper) {
            (Some(lower), Some(upper)) => {
                let (first, last) = (in_first(lower), in_last(upper));
                if self.are_apart(lower, upper) {
                    // Each edge for itself, as the planner's estimates and indexes like it.
                    predicates.push(Scalar::Or(vec![
                        Scalar::And(vec![lower.bound.clone(), first]),
                        Scalar::And(vec![last, upper.bound.clone()]),
                    ]));
                } else {
                    predicates.extend([lower.bound.clone(), upper.bound.clone()]);
                    predicates.push(Scalar::Or(vec![first, last]));
                }
            }
            (Some(lower), None) => predicates.extend([lower.bound.clone(), in_first(lower)]),
            (None, Some(upper)) => predicates.extend([in_last(upper), upper.bound.clone()]),
            (None, None) => {}
        }
        predicates
    }

    /// The column whose times are bounded, and how long what it counts is, in microseconds.
    fn counted(&self, tables: Tables<'_>) -> Option<(ColumnRef, i64)> {
        let Scalar::Column(column) = &self.compared else {
            return None;
        };
        let unit = match tables.column_type(*column)?.oid.0 {
            types::DATE => DAY,
            types::TIMESTAMP | types::TIMESTAMPTZ => SECOND,
            _ => return None,
        };
        Some((*column, unit))
    }

    fn span(&self, tables: Tables<'_>, low: Option<Civil>, high: Option<Civil>) -> Spans {
        let counted = self.counted(tables);
        let span = counted.map(|(column, unit)| {
            let low = low.map_or(Span::ALL.low, |low| low.0.div_euclid(unit));
            let high = high.map_or(Span::ALL.high, |high| high.0.div_euclid(unit));
            (column, Span { low, high })
        });
        span.into_iter().collect()
    }

    fn middle_times(&self, tables: Tables<'_>) -> Spans {
        let lower = self.lower.as_ref().and_then(Cut::earliest);
        let upper = self.upper.as_ref().and_then(Cut::latest);
        let low = lower.and_then(|point| self.key.grain.end(point));
        let high = upper.and_then(|point| self.key.grain.beginning(point));
        self.span(tables, low, high.map(before))
    }

    /// Of the first edge and of the last one.
    fn edge_times(&self, tables: Tables<'_>) -> Vec<Spans> {
        let first = self.lower.iter().map(|cut| {
            let end = cut.latest().and_then(|point| self.key.grain.end(point));
            self.span(tables, cut.earliest(), end.map(before))
        });
        let last = self.upper.iter().map(|cut| {
            let begin = cut.earliest();
            let begin = begin.and_then(|point| self.key.grain.beginning(point));
            self.span(tables, begin, cut.latest())
        });
        first.chain(last).collect()
    }

    /// Whether the bucket of the lower bound ends before that of the upper one begins.
    fn are_apart(&self, lower: &Cut, upper: &Cut) -> bool {
        let grain = self.key.grain;
        match (lower.point, upper.point) {
            (Some(first), Some(last)) if lower.is_certain && upper.is_certain => {
                grain.number(first) < grain.number(last)
            }
            _ => false,
        }
    }

    fn compare(&self, op: BinaryOp, point: Scalar) -> Scalar {
        let point = match self.is_date {
            true => point.cast(TypeName::plain("date", types::DATE)),
            false => point,
        };
        Scalar::binary(op, self.compared.clone(), point)
    }

    fn beginning(&self, constant: &Scalar) -> Scalar {
        beginning(&self.key, self.bucket_of(constant))
    }

    fn end_of_bucket(&self, constant: &Scalar) -> Scalar {
        let bucket = self.bucket_of(constant);
        let local = match self.key.stored_as_date {
            true => bucket.cast(TypeName::plain("timestamp", types::TIMESTAMP)),
            false => bucket,
        };
        let end = Scalar::binary(BinaryOp::Plus, local, self.length.clone());
        match self.key.instant {
            Some(InstantForm::Utc) => at_time_zone("UTC", end),
            Some(InstantForm::Instant) | None => end,
        }
    }
}

/// The bounds of times that could be in buckets of this key.
fn sides<'q>(query: &'q Block, key: &TimeKey, tables: Tables<'_>) -> Vec<Side<'q>> {
    let stored = match key.instant {
        Some(_) => types::TIMESTAMPTZ,
        None => types::TIMESTAMP,
    };
    let side = |(position, conjunct): (usize, &'q Scalar)| {
        let bound = as_bound(conjunct)?;
        let time = time_operand(bound.operand, &tables)?;
        let is_range = matches!(
            bound.op,
            BinaryOp::Less | BinaryOp::LessOrEqual | BinaryOp::Greater | BinaryOp::GreaterOrEqual
        );
        let has_type = types::type_of(&time.timestamp, &tables)?.oid.0 == stored;
        // Of a day, what is smaller tells nothing.
        let keeps_days = !time.is_day || key.grain.holds_days();
        (is_range && has_type && keeps_days).then_some(Side {
            position,
            conjunct,
            op: bound.op,
            constant: bound.constant,
            operand: bound.operand,
            time,
        })
    };
    query
        .predicates
        .iter()
        .enumerate()
        .filter_map(side)
        .collect()
}

fn is_lower_bound(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::Greater | BinaryOp::GreaterOrEqual)
}

/// One end of a range.
struct End {
    cut: Cut,
    /// The range ends where a bucket does.
    is_aligned: bool,
}

impl End {
    /// `None` where the constant may be infinite, or is compared in another way than as a time of its own type.
    fn of(side: &Side<'_>, key: &TimeKey, zone: Zone, tables: Tables<'_>) -> Option<End> {
        let constant = converted(side, zone, tables)?;
        let is_certain = key.instant.is_none() || zone == Zone::Utc;
        let takes_day = side.time.is_day && time::is_untyped(side.constant);
        let point = civil(side.constant).map(|point| match takes_day {
            true => point.midnight(),
            false => point,
        });
        let turn = point.and_then(|point| turning_point(side.op, point, side.time.resolution));
        let begins = turn.is_some_and(|turn| key.grain.begins_at(turn));
        Some(End {
            cut: Cut {
                position: side.position,
                bound: side.conjunct.clone(),
                constant,
                point,
                is_certain,
                is_within_a_day: zone != Zone::Other,
            },
            is_aligned: is_certain && begins,
        })
    }
}

/// The only end that is not aligned, if there is one; `None` where there are several.
fn only_cut(ends: Vec<End>) -> Option<Option<Cut>> {
    let mut cuts = ends.into_iter().filter(|end| !end.is_aligned);
    let cut = cuts.next().map(|end| end.cut);
    cuts.next().is_none().then_some(cut)
}

/// Whether as many whole buckets as edges lie in the range, as far as that is known: with fewer, most of the
/// rows are at the edges.
fn has_whole_buckets(lower: &[End], upper: &[End], grain: Grain) -> bool {
    let number = |end: &End| Some(grain.number(end.cut.point?));
    let first = lower
        .iter()
        .filter_map(|end| Some(number(end)? + i64::from(!end.is_aligned)))
        .max();
    let behind_last = upper.iter().filter_map(number).min();
    let edges = lower.iter().chain(upper).filter(|end| !end.is_aligned);
    match (first, behind_last) {
        (Some(first), Some(behind_last)) => {
            i64::try_from(edges.count()).is_ok_and(|edges| behind_last - first >= edges)
        }
        _ => true,
    }
}

/// The point of time that a constant is, if it is one of its own whatever the clock shows.
fn civil(constant: &Scalar) -> Option<Civil> {
    let may_be_rounded =
        constant.any(&|node| matches!(node, Scalar::Cast { operand: _, to } if to.typmod != -1));
    match may_be_rounded {
        true => None,
        false => time::constant(constant, true).or_else(|| time::constant_in_utc(constant)),
    }
}

/// The constant as PostgreSQL compares it, of the type of the time that lies in buckets.
fn converted(side: &Side<'_>, zone: Zone, tables: Tables<'_>) -> Option<Scalar> {
    if civil(side.constant).is_none() && !is_of_clock(side.constant) {
        return None;
    }
    let own = types::type_of(side.operand, &tables)?.oid.0;
    let wanted = types::type_of(&side.time.timestamp, &tables)?.oid.0;
    let (constant, ty) = match types::type_of(side.constant, &tables) {
        Some(ty) => (with_typed_parameters(side.constant, tables)?, ty.oid.0),
        None if time::is_untyped(side.constant) => {
            (side.constant.clone().cast(time_type(own)?), own)
        }
        None => return None,
    };
    let is_alike = match (ty, wanted) {
        (types::DATE | types::TIMESTAMP, types::TIMESTAMP) => true,
        (types::DATE | types::TIMESTAMP | types::TIMESTAMPTZ, types::TIMESTAMPTZ) => true,
        // Clocks that are put forward show a later time before an earlier one.
        (types::TIMESTAMPTZ, types::TIMESTAMP) => zone == Zone::Utc,
        _ => false,
    };
    let converted = match ty == wanted {
        true => constant,
        false => constant.cast(time_type(wanted)?),
    };
    is_alike.then_some(converted)
}

/// The constant where nothing stands beside its parameters that would give them their types.
fn with_typed_parameters(constant: &Scalar, tables: Tables<'_>) -> Option<Scalar> {
    Some(match constant {
        Scalar::Parameter(_) => {
            let ty = types::type_of(constant, &tables)?.oid.0;
            constant.clone().cast(time_type(ty)?)
        }
        Scalar::Binary { op, left, right } => Scalar::binary(
            *op,
            with_typed_parameters(left, tables)?,
            with_typed_parameters(right, tables)?,
        ),
        other => other.clone(),
    })
}

fn time_type(oid: u32) -> Option<TypeName> {
    Some(match oid {
        types::DATE => TypeName::plain("date", oid),
        types::TIMESTAMP => TypeName::plain("timestamp", oid),
        types::TIMESTAMPTZ => TypeName::plain("timestamptz", oid),
        _ => return None,
    })
}

/// Whether the constant is the present time, or a time some way from it: neither infinite nor NULL.
fn is_of_clock(constant: &Scalar) -> bool {
    match constant {
        Scalar::Call { name, arguments } => match (*name, arguments.as_slice()) {
            ("date_trunc" | "timezone", [Scalar::Literal(Literal::String(_)), operand]) => {
                is_of_clock(operand)
            }
            (name, []) => functions::lookup(name)
                .is_some_and(|function| function.volatility == Volatility::Clock),
            _ => false,
        },
        Scalar::Binary {
            op: BinaryOp::Plus | BinaryOp::Minus,
            left,
            right,
        } => is_of_clock(left) && is_distance(right),
        Scalar::Cast { operand, to } => {
            time_type(to.oid).is_some() && to.typmod == -1 && is_of_clock(operand)
        }
        _ => false,
    }
}

fn is_distance(scalar: &Scalar) -> bool {
    match scalar {
        Scalar::Literal(Literal::Interval(text)) => is_plain_interval(text),
        Scalar::Literal(Literal::Number(digits)) => {
            digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        _ => false,
    }
}
