//! What depends on the order in which rows arrive, or on which of several equal values arrives first.
//!
//! Rows that are computed from a rollup arrive in another order than PostgreSQL's own. Whatever is
//! computed from them in turn must not show that.

use crate::block::{Block, Distinct, Source, Tables};
use crate::catalog::Catalog;
use crate::exact::prints_exactly;
use crate::expr::{AggregateFunction, Scalar, WindowFunction};
use crate::print::expression;
use crate::query::{ColumnFacts, SetOperation};
use crate::reason::{Code, Reason};
use crate::scalar::quoted;
use crate::types;

/// Whether the block computes the same from its sub-selects' rows in any order.
pub(crate) fn block_in_any_order(block: &Block, catalog: &Catalog) -> Result<(), Reason> {
    let tables = block.tables(catalog);
    let outputs = block.outputs.iter().map(|output| &output.value);
    let kinds: Vec<&Scalar> = match &block.distinct {
        Distinct::Yes => outputs.collect(),
        Distinct::On(keys) => keys.iter().collect(),
        Distinct::No => vec![],
    };
    let inexact = |scalar: &&Scalar| !prints_exactly(scalar, &tables);
    let mut representatives = block.group_by.iter().chain(kinds);
    if let Some(scalar) = representatives.find(inexact) {
        let label = quoted(&label(scalar, &tables));
        let detail = format!("equal values of {label} may print differently");
        return Err(Reason::new(Code::UnsupportedExpression, detail));
    }
    for scalar in block.scalars() {
        in_any_order(scalar, &tables)?;
    }
    Ok(())
}

/// Whether a set operation keeps the same rows in any order.
pub(crate) fn set_operation_in_any_order(
    operation: &SetOperation,
    catalog: &Catalog,
) -> Result<(), Reason> {
    if operation.all {
        return Ok(());
    }
    let is_exact = |facts: &ColumnFacts| match facts.ty {
        Some(ty) if ty.oid.0 == types::NUMERIC => facts.scale.is_some(),
        Some(ty) => types::is_byte_exact(ty, catalog.user_names()),
        None => facts.is_untyped,
    };
    let left = operation.left.columns(catalog);
    let right = operation.right.columns(catalog);
    let is_alike = |(left, right): (&ColumnFacts, &ColumnFacts)| {
        let are_numbers = left.scale.is_some() && left.scale == right.scale;
        let same = left.is_untyped || right.is_untyped || left.ty == right.ty || are_numbers;
        same && is_exact(left) && is_exact(right) && left.scale == right.scale
    };
    match left.iter().zip(&right).position(|pair| !is_alike(pair)) {
        Some(position) => Err(Reason::new(
            Code::SetOperation,
            format!(
                "equal values of column {} may print differently",
                position + 1
            ),
        )),
        None => Ok(()),
    }
}

/// Whether the window functions of the expression compute the same from rows in any order.
pub(crate) fn windows_in_order(scalar: &Scalar, tables: &Tables<'_>) -> Result<(), Reason> {
    if let Scalar::Window(window) = scalar
        && let WindowFunction::Aggregate(function) = window.function
    {
        aggregate_in_any_order(function, window.arguments.first(), scalar, tables)?;
    }
    let mut children = scalar.children().into_iter();
    children.try_for_each(|child| windows_in_order(child, tables))
}

fn in_any_order(scalar: &Scalar, tables: &Tables<'_>) -> Result<(), Reason> {
    match scalar {
        Scalar::Aggregate(aggregate) => aggregate_in_any_order(
            aggregate.function,
            aggregate.argument.as_ref(),
            scalar,
            tables,
        )?,
        Scalar::Window(_) => windows_in_order(scalar, tables)?,
        _ => {}
    }
    let mut children = scalar.children().into_iter();
    children.try_for_each(|child| in_any_order(child, tables))
}

fn aggregate_in_any_order(
    function: AggregateFunction,
    argument: Option<&Scalar>,
    whole: &Scalar,
    tables: &Tables<'_>,
) -> Result<(), Reason> {
    let Some(argument) = argument else {
        return Ok(());
    };
    let refuse = |code| Err(Reason::new(code, quoted(&label(whole, tables))));
    let ty = types::type_of(argument, tables);
    let is_number = ty.is_some_and(|ty| types::is_integer(ty.oid) || ty.oid.0 == types::NUMERIC);
    match function {
        AggregateFunction::Count
        | AggregateFunction::BoolAnd
        | AggregateFunction::BoolOr
        | AggregateFunction::BitAnd
        | AggregateFunction::BitOr => Ok(()),
        AggregateFunction::Sum | AggregateFunction::Avg if is_number => Ok(()),
        AggregateFunction::VarPop | AggregateFunction::VarSamp if is_number => Ok(()),
        AggregateFunction::StddevPop | AggregateFunction::StddevSamp if is_number => Ok(()),
        AggregateFunction::Min | AggregateFunction::Max if prints_exactly(argument, tables) => {
            Ok(())
        }
        _ if ty.is_some_and(|ty| types::is_float(ty.oid)) => refuse(Code::FloatAggregate),
        _ => refuse(Code::UnsupportedAggregate),
    }
}

fn label(scalar: &Scalar, tables: &Tables<'_>) -> String {
    expression(scalar, &|column: crate::expr::ColumnRef| {
        tables.column_label(column)
    })
}

/// Whether the block reads what other blocks compute.
pub(crate) fn reads_sub_selects(block: &Block) -> bool {
    let is_select = |source: &Source| match source {
        Source::Select(_) => true,
        Source::Table(_) | Source::Rollup => false,
    };
    block
        .occurrences
        .iter()
        .any(|occurrence| is_select(&occurrence.source))
}
