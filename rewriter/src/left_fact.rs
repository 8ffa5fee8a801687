//! Statements that keep a dimension's rows without a fact: `dimension LEFT JOIN fact`, answered by `dimension LEFT JOIN rollup`.
//!
//! Of a dimension's row, the rows that the fact has for it are those behind the rollup's rows that have the same keys, as
//! long as the join's condition compares keys only. A row of the dimension that finds no row of the fact finds none of the
//! rollup's either; both times everything else is NULL. So groups, conditions and sums come out alike (Yan and Larson's
//! eager aggregation, 1995, on the side of an outer join), but for two things. Such a row is one row to `count(*)`, which the
//! rollup does not have. And what is not NULL although all columns are, such as `coalesce(kind, '?')`, must not be stored: only
//! columns and buckets of time may be keys of the rollup.

use std::cell::RefCell;

use crate::aggregate::{AggregateDeriver, number};
use crate::block::{Attachment, Block, Tables};
use crate::derive::{Deriver, ROLLUP_OCCURRENCE};
use crate::expr::{Aggregate, AggregateFunction, ColumnRef, OccurrenceId, Scalar, TypeName};
use crate::mapping::Mapping;
use crate::matching::{Attempt, Derived, Matcher, Step};
use crate::reason::{Code, Reason};
use crate::rollup::RollupDefinition;
use crate::types;

impl Matcher<'_> {
    /// The query over its dimensions and the rollup behind them.
    pub(crate) fn derive_left_fact(
        &self,
        query: &Block,
        rollup: &RollupDefinition,
    ) -> Result<Derived, Reason> {
        match left_fact(query, rollup) {
            Some(fact) => self.derive_behind(query, rollup, &mapping(query, fact)),
            None => Err(Reason::new(Code::JoinDiffers, "")),
        }
    }

    fn derive_behind(
        &self,
        query: &Block,
        rollup: &RollupDefinition,
        mapping: &Mapping,
    ) -> Result<Derived, Reason> {
        let query = query.map_columns(&|column| mapping.target(column));
        let occurrences = mapping.occurrences(&rollup.block, &query);
        let tables = Tables {
            occurrences: &occurrences,
            catalog: self.catalog,
        };
        let (premises, approximate) = (RefCell::default(), RefCell::default());
        let attempt = Attempt {
            query: &query,
            holding: &[],
            of_keys: &[],
            mapping,
            rollup,
            tables,
            deriver: Deriver {
                rollup,
                tables,
                zone: self.zone,
                // What WHERE says does not hold of the rows that the condition of the join meets.
                finite: &[],
                recent: &[],
                premises: &premises,
                approximate: &approximate,
            },
            is_behind: true,
        };
        attempt.derive_behind()
    }
}

impl Attempt<'_> {
    fn derive_behind(&self) -> Result<Derived, Reason> {
        let mut proof = vec![];
        let mut derive = |conjuncts: &[Scalar], rule: &'static str| {
            let derived = conjuncts.iter().map(|conjunct| {
                proof.push(Step {
                    rule,
                    detail: self.deriver.label(conjunct),
                });
                self.deriver.predicate(conjunct)
            });
            derived.collect::<Result<Vec<Scalar>, Reason>>()
        };
        let condition: Vec<Scalar> = self.query.left_conditions().cloned().collect();
        let condition = derive(&condition, "joined behind its dimensions by keys")?;
        let predicates = derive(&self.query.predicates, "filtered by keys")?;
        let mut block = self.project(predicates)?;
        proof.extend(self.last_steps(&block));
        if let Some(rollup) = block.occurrences.first_mut() {
            rollup.attachment = Attachment::Left(condition);
        }
        let premises = self.deriver.premises.borrow().clone();
        Ok(Derived {
            block: rollup_last(block),
            proof,
            premises,
        })
    }

    /// An aggregate over rows of which some have nothing of the fact.
    pub(crate) fn aggregate_behind(&self, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        use AggregateFunction::{Avg, BoolAnd, BoolOr, Count, Max, Min};
        use AggregateFunction::{StddevPop, StddevSamp, Sum, VarPop, VarSamp};
        let deriver = AggregateDeriver {
            deriver: self.deriver,
            // A group may be of such rows only, in which nothing is counted.
            is_scalar: true,
            is_same_grain: false,
        };
        let is_of_fact = |column: &ColumnRef| column.occurrence.0 < self.mapping.base;
        match (&aggregate.argument, aggregate.function) {
            (None, Count) if !aggregate.distinct => self.count_rows_behind(&deriver, aggregate),
            (Some(Scalar::Column(_)), Count | Sum | Avg) if aggregate.distinct => {
                deriver.derive(aggregate)
            }
            (Some(Scalar::Column(_)), Min | Max | BoolAnd | BoolOr) => deriver.derive(aggregate),
            (
                Some(Scalar::Column(column)),
                Count | Sum | Avg | VarPop | VarSamp | StddevPop | StddevSamp,
            ) if is_of_fact(column) => deriver.derive(aggregate),
            _ => Err(Reason::new(
                Code::UnsupportedAggregate,
                format!("{} beside a left join", deriver.label(aggregate)),
            )),
        }
    }

    /// A row of the rollup stands for the rows behind it; where there is none, for the one that the left join makes.
    fn count_rows_behind(
        &self,
        deriver: &AggregateDeriver<'_>,
        aggregate: &Aggregate,
    ) -> Result<Scalar, Reason> {
        let missing = || Reason::new(Code::MeasureMissing, deriver.label(aggregate));
        let rows = Scalar::Call {
            name: "coalesce",
            arguments: vec![deriver.stored_rows().ok_or_else(missing)?, number("1")],
        };
        let filter = aggregate.filter.as_ref();
        let filter = filter.map(|filter| self.deriver.predicate(filter));
        let sum = Scalar::aggregate(AggregateFunction::Sum, rows, filter.transpose()?);
        Ok(Scalar::Call {
            name: "coalesce",
            arguments: vec![
                sum.cast(TypeName::plain("bigint", types::INT8)),
                number("0"),
            ],
        })
    }
}

/// The position of the left-joined fact that the rollup has all of; `None` where it is joined in another way.
fn left_fact(query: &Block, rollup: &RollupDefinition) -> Option<usize> {
    let fact = only_left_join(query)?;
    let is_its_fact = match rollup.block.occurrences.as_slice() {
        [only] => only.source == query.occurrences.get(fact)?.source,
        _ => false,
    };
    let is_plain = rollup.block.predicates.is_empty() && query.grouping_sets.is_none();
    (is_its_fact && is_plain && keys_are_null_of_nulls(rollup)).then_some(fact)
}

/// The position of the only left-joined occurrence, if all are tables and there are others.
fn only_left_join(query: &Block) -> Option<usize> {
    let are_tables = query
        .occurrences
        .iter()
        .all(|occurrence| occurrence.relation().is_some());
    let mut left = query
        .occurrences
        .iter()
        .enumerate()
        .filter(|(_, occurrence)| matches!(occurrence.attachment, Attachment::Left(_)));
    match (left.next(), left.next()) {
        (Some((position, _)), None) if are_tables && query.occurrences.len() > 1 => Some(position),
        _ => None,
    }
}

/// Whether each key of the rollup is NULL where all columns of the fact are. Without keys its one row is there even of no
/// rows of the fact.
fn keys_are_null_of_nulls(rollup: &RollupDefinition) -> bool {
    let mut keys = rollup.keys().peekable();
    keys.peek().is_some()
        && keys.all(|(position, key)| {
            let is_bucket = || rollup.time_keys.iter().any(|key| key.position == position);
            matches!(key, Scalar::Column(_)) || is_bucket()
        })
}

/// The fact is the rollup's, everything else stays beside it.
fn mapping(query: &Block, fact: usize) -> Mapping {
    let behind_fact = |position: usize| match position {
        _ if position == fact => OccurrenceId(0),
        _ if position < fact => OccurrenceId(position + 1),
        _ => OccurrenceId(position),
    };
    Mapping {
        targets: (0..query.occurrences.len()).map(behind_fact).collect(),
        base: 1,
    }
}

/// The block with the rollup behind the tables that it is joined to.
fn rollup_last(block: Block) -> Block {
    let others = block.occurrences.len() - 1;
    let mut block = block.map_columns(&|column| {
        let occurrence = match column.occurrence {
            ROLLUP_OCCURRENCE => OccurrenceId(others),
            OccurrenceId(position) => OccurrenceId(position - 1),
        };
        ColumnRef {
            occurrence,
            ..column
        }
    });
    block.occurrences.rotate_left(1);
    block
}
