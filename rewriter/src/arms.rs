//! An aggregation over UNION ALL, as one over the aggregations of its arms.
//!
//! `SELECT k, sum(x) FROM (a UNION ALL b) GROUP BY k` adds up what `SELECT k, sum(x) FROM a GROUP BY k` and
//! the same of `b` give, so that each arm can be answered from a rollup of its own. What is stored of an arm
//! and how it is put together again is what a rollup stores of its table (`stored`) and how a query is derived
//! from it (`matching`): the arms' answers are taken for the rows of one rollup more.

use std::sync::Arc;

use crate::approximate::Floats;
use crate::block::{Attachment, Block, Distinct, Limit, Occurrence, Output, Source};
use crate::catalog::{AttNum, Catalog};
use crate::exact;
use crate::expr::{ColumnRef, Literal, OccurrenceId, Scalar, TypeName};
use crate::matching::Matcher;
use crate::normalize::has_rows;
use crate::query::{Body, ColumnFacts, Query, Rows, SetOperation, SetOperator, SubSelect};
use crate::rollup::{RollupDefinition, Stored, StoredColumn};
use crate::types;
use crate::volatility::may_raise;
use crate::zone::Zone;

/// The column that tells arms apart: no query names it, so that arms of one group are several rows.
const ARM: &str = "arm";

/// The statement with every such aggregation taken apart; `None` if it has none.
pub(crate) fn taken_apart(query: &Query, catalog: &Catalog) -> Option<Query> {
    let mut has_union = false;
    query.walk(&mut |query| has_union |= matches!(query.body, Body::SetOperation(_)));
    if !has_union {
        return None;
    }
    let mut has_changed = false;
    let taken = query_apart(query, catalog, &mut has_changed);
    has_changed.then_some(taken)
}

fn query_apart(query: &Query, catalog: &Catalog, has_changed: &mut bool) -> Query {
    let mut query = query.clone();
    for item in &mut query.with {
        item.query = query_apart(&item.query, catalog, has_changed);
    }
    match &mut query.body {
        Body::Block(block) => {
            if let Some(apart) = block_apart(block, catalog) {
                *has_changed = true;
                **block = apart;
            } else {
                for occurrence in &mut block.occurrences {
                    select_apart(occurrence, catalog, has_changed);
                }
            }
        }
        Body::SetOperation(operation) => {
            operation.left = query_apart(&operation.left, catalog, has_changed);
            operation.right = query_apart(&operation.right, catalog, has_changed);
        }
        Body::Values(_) => {}
    }
    query
}

fn select_apart(occurrence: &mut Occurrence, catalog: &Catalog, has_changed: &mut bool) {
    let Source::Select(select) = &occurrence.source else {
        return;
    };
    let Rows::Query(query) = &select.rows else {
        return;
    };
    let rows = Rows::Query(query_apart(query, catalog, has_changed));
    occurrence.source = Source::Select(Arc::new(SubSelect {
        rows,
        ..(**select).clone()
    }));
}

fn block_apart(block: &Block, catalog: &Catalog) -> Option<Block> {
    let [
        Occurrence {
            source: Source::Select(select),
            attachment: Attachment::Inner,
        },
    ] = block.occurrences.as_slice()
    else {
        return None;
    };
    let is_plain = block.is_aggregated
        && block.grouping_sets.is_none()
        && !block.scalars().any(Scalar::has_sub_query);
    let arms = arms_of(select.query()?)?;
    let are_known = select.columns.iter().all(|column| column.ty.is_some());
    if !is_plain || !are_known {
        return None;
    }
    let arms = arms
        .into_iter()
        .map(|arm| Arm::of(arm, select, catalog))
        .collect::<Option<Vec<_>>>()?;
    let block = with_arm_column(block, select);
    let cells =
        RollupDefinition::of_block(&select.name, cells(&block), Floats::Refused, catalog).ok()?;
    let matcher = Matcher {
        catalog,
        // Nothing depends on it: what is stored is what is asked for.
        zone: Zone::Other,
        given: &[],
        of_keys: &[],
    };
    let derived = matcher.derive(&block, &cells).ok()?.block;
    let union = union(&arms, &cells)?;
    Some(Block {
        views: block.views,
        ..over(derived, &select.name, &cells, union, catalog)
    })
}

/// The SELECTs below UNION ALL.
fn arms_of(query: &Query) -> Option<Vec<&Block>> {
    if !query.with.is_empty() {
        return None;
    }
    match &query.body {
        Body::SetOperation(operation) => {
            let SetOperation {
                operator: SetOperator::Union,
                all: true,
                left,
                right,
                order_by,
                limit,
            } = &**operation
            else {
                return None;
            };
            let is_plain = order_by.is_empty() && limit.is_none();
            if !is_plain {
                return None;
            }
            Some([arms_below(left)?, arms_below(right)?].concat())
        }
        Body::Block(_) | Body::Values(_) => None,
    }
}

fn arms_below(side: &Query) -> Option<Vec<&Block>> {
    match &side.body {
        Body::Block(block) if side.with.is_empty() => Some(vec![&**block]),
        Body::Block(_) | Body::Values(_) => None,
        Body::SetOperation(_) => arms_of(side),
    }
}

/// A SELECT of rows, with its columns' values as those of the whole UNION.
struct Arm<'a> {
    block: &'a Block,
    values: Vec<Scalar>,
}

impl<'a> Arm<'a> {
    fn of(block: &'a Block, select: &SubSelect, catalog: &Catalog) -> Option<Arm<'a>> {
        let tables = block.tables(catalog);
        let is_plain = !block.is_aggregated
            && block.distinct == Distinct::No
            && block.limit.is_none()
            && block.order_by.is_empty()
            && block.outputs.len() == select.columns.len();
        if !is_plain {
            return None;
        }
        let value = |(output, facts): (&Output, &ColumnFacts)| {
            let value = match &output.value {
                text @ Scalar::Literal(Literal::String(_) | Literal::Null) => {
                    text.clone().cast(TypeName::plain("text", types::TEXT))
                }
                other => other.clone(),
            };
            let is_row_value = !value.has_window()
                && !value.has_sub_query()
                && !may_raise(&value, &tables)
                && types::type_of(&value, &tables) == facts.ty;
            is_row_value.then_some(value)
        };
        let values = block.outputs.iter().zip(&select.columns).map(value);
        Some(Arm {
            block,
            values: values.collect::<Option<_>>()?,
        })
    }

    /// The expression over the arm's own tables.
    fn scalar(&self, number: usize, scalar: &Scalar) -> Option<Scalar> {
        match scalar {
            Scalar::Column(column) => {
                let position = usize::try_from(column.attnum.0).ok()?.checked_sub(1)?;
                match self.values.get(position) {
                    Some(value) => Some(value.clone()),
                    None => Some(Scalar::Literal(Literal::Number(number.to_string()))),
                }
            }
            other => other
                .try_map_children(&mut |child| self.scalar(number, child).ok_or(()))
                .ok(),
        }
    }

    /// What is stored of the arm.
    fn cells(&self, number: usize, cells: &RollupDefinition) -> Option<Block> {
        let own = |scalar: &Scalar| self.scalar(number, scalar);
        let output = |column: &StoredColumn| {
            let value = match &column.stored {
                Stored::Key(key) => own(key)?,
                Stored::Partial(partial) => own(&Scalar::Aggregate(Box::new(partial.clone())))?,
            };
            Some(Output {
                name: column.name.clone(),
                value,
            })
        };
        let outputs: Vec<Output> = cells.columns.iter().map(output).collect::<Option<_>>()?;
        let keys = outputs.iter().zip(&cells.columns);
        let group_by: Vec<Scalar> = keys
            .filter(|(_, column)| matches!(column.stored, Stored::Key(_)))
            .map(|(output, _)| output.value.clone())
            .filter(|key| !key.is_constant())
            .collect();
        // Without a key a row would come out even of no rows, which is no group of the whole.
        let is_scalar = cells.block.group_by.len() == 1;
        let having = match group_by.is_empty() && !is_scalar {
            true => vec![has_rows()],
            false => vec![],
        };
        let own_predicates = cells.block.predicates.iter().map(own);
        let mut predicates = self.block.predicates.clone();
        predicates.extend(own_predicates.collect::<Option<Vec<_>>>()?);
        let mentioned = self.block.mentioned.iter().copied();
        Some(Block {
            occurrences: self.block.occurrences.clone(),
            predicates,
            group_by,
            grouping_sets: None,
            is_aggregated: true,
            having,
            outputs,
            distinct: Distinct::No,
            order_by: vec![],
            limit: Limit::default(),
            mentioned: mentioned
                .chain(self.values.iter().flat_map(Scalar::columns))
                .collect(),
            views: self.block.views.clone(),
        })
    }
}

/// The block over the UNION with one column more, which says the arm.
fn with_arm_column(block: &Block, select: &SubSelect) -> Block {
    let mut select = select.clone();
    select.columns.push(ColumnFacts {
        name: ARM.to_owned(),
        ty: Some(types::plain(types::INT4)),
        not_null: true,
        scale: Some(0),
        is_untyped: false,
    });
    Block {
        occurrences: vec![Occurrence {
            source: Source::Select(Arc::new(select)),
            attachment: Attachment::Inner,
        }],
        ..block.clone()
    }
}

/// What is to be stored: everything that the block computes, by its keys and the arm.
fn cells(block: &Block) -> Block {
    let arm = block.occurrences.first().and_then(|occurrence| {
        let Source::Select(select) = &occurrence.source else {
            return None;
        };
        Some(Scalar::Column(ColumnRef {
            occurrence: OccurrenceId(0),
            attnum: AttNum(i16::try_from(select.columns.len()).ok()?),
        }))
    });
    let computed = block.having.iter().chain(block.distinct.on());
    let computed = computed.chain(block.order_by.iter().map(|item| &item.value));
    let unnamed = computed.map(|value| Output {
        name: String::new(),
        value: value.clone(),
    });
    Block {
        group_by: block.group_by.iter().cloned().chain(arm).collect(),
        outputs: block.outputs.iter().cloned().chain(unnamed).collect(),
        having: vec![],
        distinct: Distinct::No,
        order_by: vec![],
        limit: Limit::default(),
        ..block.clone()
    }
}

fn union(arms: &[Arm<'_>], cells: &RollupDefinition) -> Option<Query> {
    let arm = |(number, arm): (usize, &Arm<'_>)| {
        Some(Query {
            with: vec![],
            body: Body::Block(Box::new(arm.cells(number, cells)?)),
        })
    };
    let queries = arms.iter().enumerate().map(arm);
    let queries: Vec<Query> = queries.collect::<Option<_>>()?;
    queries.into_iter().reduce(|left, right| Query {
        with: vec![],
        body: Body::SetOperation(Box::new(SetOperation {
            operator: SetOperator::Union,
            all: true,
            left,
            right,
            order_by: vec![],
            limit: Limit::default(),
        })),
    })
}

/// The derived block, over the arms' answers in place of a rollup's table.
fn over(
    derived: Block,
    name: &str,
    cells: &RollupDefinition,
    rows: Query,
    catalog: &Catalog,
) -> Block {
    let tables = cells.block.tables(catalog);
    let facts = |column: &StoredColumn| {
        let value = match &column.stored {
            Stored::Key(key) => key.clone(),
            Stored::Partial(partial) => Scalar::Aggregate(Box::new(partial.clone())),
        };
        ColumnFacts {
            name: column.name.clone(),
            ty: Some(column.ty),
            not_null: false,
            scale: exact::scale(&value, &tables),
            is_untyped: false,
        }
    };
    let from_one = |column: ColumnRef| ColumnRef {
        attnum: AttNum(column.attnum.0 + 1),
        ..column
    };
    Block {
        occurrences: vec![Occurrence {
            source: Source::Select(Arc::new(SubSelect {
                name: name.to_owned(),
                columns: cells.columns.iter().map(facts).collect(),
                rows: Rows::Query(rows),
            })),
            attachment: Attachment::Inner,
        }],
        ..derived.map_columns(&from_one)
    }
}
