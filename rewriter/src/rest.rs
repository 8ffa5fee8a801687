//! Queries of more rows than a rollup has, because the rollup has only those from some point on, or up to one: these
//! come from the rollup, and the rest from the base tables.
//!
//! The rest are the rows of which the rollup's condition is not true, also those of which it is unknown. Conditions
//! other than bounds (one status, one channel) would leave most rows to the base tables as often as not.

use crate::block::{Block, Tables};
use crate::edges::{Covered, Split};
use crate::equivalence::Equivalence;
use crate::expr::{BinaryOp, ColumnRef, ColumnTypes, OccurrenceId, Scalar, Truth};
use crate::implication::{as_bound, implies};
use crate::mapping::{Mapping, mappings};
use crate::matching::{Matcher, Step};
use crate::ranges::Spans;
use crate::reason::{Code, Reason};
use crate::rollup::{RollupDefinition, label};
use crate::types;

/// The query answered from the rollup as far as its condition goes, or why it cannot be.
pub(crate) fn with_rest(
    matcher: &Matcher<'_>,
    query: &Block,
    rollup: &RollupDefinition,
) -> Result<Covered, Reason> {
    let tables = query.tables(matcher.catalog);
    let mut refusal = Reason::new(Code::PredicateMissing, "");
    for mapping in mappings(query, &rollup.block, matcher.catalog)? {
        let Some(missing) = missing(query, rollup, &mapping, tables) else {
            continue;
        };
        match split(query, missing, tables).answer(matcher, matcher, query, rollup) {
            Ok(covered) => return Ok(covered),
            Err(reason) => refusal = reason,
        }
    }
    Err(refusal)
}

fn split(query: &Block, missing: Vec<Scalar>, tables: Tables<'_>) -> Split {
    let with = |more: Vec<Scalar>| query.predicates.iter().cloned().chain(more).collect();
    let proof = missing.iter().map(|condition| Step {
        rule: "rest read from the base tables",
        detail: label(condition, tables),
    });
    Split {
        proof: proof.collect(),
        beside: with(vec![not_true(&missing, tables)]),
        // Whatever the conjuncts themselves say of it.
        beside_times: vec![Spans::new()],
        within: with(missing),
        within_times: Spans::new(),
    }
}

/// The rollup's conditions that do not follow from the query's, over the query's tables. `None` where one is a join,
/// or anything else but a bound, or where no row of the query satisfies them.
fn missing(
    query: &Block,
    rollup: &RollupDefinition,
    mapping: &Mapping,
    tables: Tables<'_>,
) -> Option<Vec<Scalar>> {
    let classes = Equivalence::of(&query.predicates, &tables, tables.catalog.user_names());
    let mut missing = vec![];
    for predicate in &rollup.block.predicates {
        // A table that only the rollup joins is none of the query's.
        let Some(own) = over_query(predicate, mapping) else {
            continue;
        };
        if implies(&query.predicates, &own, &classes, &tables) {
            continue;
        }
        if !is_bound(&own) {
            return None;
        }
        let never = Scalar::Not(Box::new(own.clone()));
        if implies(&query.predicates, &never, &classes, &tables) {
            return None;
        }
        missing.push(own);
    }
    (!missing.is_empty()).then_some(missing)
}

/// Whether the condition has all values from a constant on, or up to one.
fn is_bound(condition: &Scalar) -> bool {
    use BinaryOp::{Greater, GreaterOrEqual, Less, LessOrEqual};
    as_bound(condition)
        .is_some_and(|bound| matches!(bound.op, Greater | GreaterOrEqual | Less | LessOrEqual))
}

/// The condition over the query's tables that stand for the rollup's.
fn over_query(predicate: &Scalar, mapping: &Mapping) -> Option<Scalar> {
    let position = |column: ColumnRef| {
        let mut targets = mapping.targets.iter();
        targets.position(|target| *target == column.occurrence)
    };
    let is_mapped = |column: ColumnRef| position(column).is_some();
    if !predicate.columns().into_iter().all(is_mapped) {
        return None;
    }
    Some(predicate.map_columns(&|column| ColumnRef {
        occurrence: position(column).map_or(column.occurrence, OccurrenceId),
        ..column
    }))
}

/// That not all of the conditions are true. Where they are never unknown, in a form that an index can find.
fn not_true(conditions: &[Scalar], tables: Tables<'_>) -> Scalar {
    let all = match conditions {
        [only] => only.clone(),
        several => Scalar::And(several.to_vec()),
    };
    if is_never_unknown(&all, tables) {
        return Scalar::Not(Box::new(all)).canonical();
    }
    Scalar::IsTruth {
        operand: Box::new(all),
        truth: Truth::True,
        negated: true,
    }
}

/// Comparisons of columns that are never NULL with constants.
fn is_never_unknown(condition: &Scalar, tables: Tables<'_>) -> bool {
    match condition {
        Scalar::And(parts) => parts.iter().all(|part| is_never_unknown(part, tables)),
        Scalar::Binary { op, left, right } if op.is_comparison() => {
            [left, right].into_iter().all(|side| match &**side {
                Scalar::Column(column) => tables.is_not_null(*column),
                Scalar::Literal(_) => types::is_not_null(side, &tables),
                _ => false,
            })
        }
        _ => false,
    }
}
