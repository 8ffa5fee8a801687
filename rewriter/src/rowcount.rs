//! How many rows a limited list has: `SELECT count(*) FROM (SELECT … LIMIT n)` is `least(count(*), n)`
//! without the limit, and that a rollup may answer. Tables with pages ask so.

use crate::block::{Block, Distinct, Output, Source};
use crate::catalog::Catalog;
use crate::expr::{AggregateFunction, Literal, Scalar};
use crate::query::{Body, Query};
use crate::volatility::may_raise;

/// The block, with the list that it only counts taken into it.
pub(crate) fn with_counted_list(block: Block, catalog: &Catalog) -> Block {
    counted(&block, catalog).unwrap_or(block)
}

fn counted(block: &Block, catalog: &Catalog) -> Option<Block> {
    let [occurrence] = block.occurrences.as_slice() else {
        return None;
    };
    let Source::Select(select) = &occurrence.source else {
        return None;
    };
    let Query { with, body } = select.query()?;
    let Body::Block(list) = body else {
        return None;
    };
    let [output] = block.outputs.as_slice() else {
        return None;
    };
    let count = list.limit.count.as_ref()?;
    let is_only_counted = block.predicates.is_empty()
        && block.group_by.is_empty()
        && block.grouping_sets.is_none()
        && block.having.is_empty()
        && block.order_by.is_empty()
        && block.distinct == Distinct::No
        && is_row_count(&output.value);
    let is_list = !list.is_aggregated
        && list.distinct == Distinct::No
        && !list.occurrences.is_empty()
        && list.limit.offset.is_none()
        && !list.limit.with_ties
        && matches!(count, Scalar::Literal(Literal::Number(_)));
    let tables = list.tables(catalog);
    // What is not computed any more may not have raised an error.
    let ordered = list.order_by.iter().map(|item| &item.value);
    let listed = list.outputs.iter().map(|output| &output.value);
    let mut computed = ordered.chain(listed);
    let may_be_left_out = computed
        .all(|value| !may_raise(value, &tables) && !value.has_window() && !value.has_sub_query());
    if !is_only_counted || !is_list || !may_be_left_out || !with.is_empty() {
        return None;
    }
    let named = list.outputs.iter().map(|output| &output.value);
    let named = named.chain(list.order_by.iter().map(|item| &item.value));
    let named = named.flat_map(Scalar::columns);
    Some(Block {
        occurrences: list.occurrences.clone(),
        predicates: list.predicates.clone(),
        group_by: vec![],
        grouping_sets: None,
        is_aggregated: true,
        having: vec![],
        outputs: vec![Output {
            name: output.name.clone(),
            value: Scalar::Call {
                name: "least",
                arguments: vec![output.value.clone(), count.clone()],
            },
        }],
        distinct: Distinct::No,
        order_by: vec![],
        limit: block.limit.clone(),
        mentioned: list.mentioned.iter().copied().chain(named).collect(),
        views: [block.views.as_slice(), list.views.as_slice()].concat(),
    })
}

fn is_row_count(value: &Scalar) -> bool {
    match value {
        Scalar::Aggregate(aggregate) => {
            aggregate.function == AggregateFunction::Count
                && aggregate.argument.is_none()
                && aggregate.filter.is_none()
        }
        _ => false,
    }
}
