//! Whether values that are equal also print equal, for expressions and not only for columns.
//!
//! A group's key may come from any row of the group. Where equal values print differently (1.0 and
//! 1.00, 0 and -0), PostgreSQL's own choice depends on its plan, and no rewrite can promise it.

use crate::block::{Source, Tables};
use crate::catalog::ColumnType;
use crate::expr::{AggregateFunction, BinaryOp, ColumnTypes, Literal, Scalar};
use crate::types;

/// Whether equal values of the expression print equal.
pub(crate) fn prints_exactly(scalar: &Scalar, tables: &Tables<'_>) -> bool {
    let Some(ty) = types::type_of(scalar, tables) else {
        return false;
    };
    is_exact_type(scalar, ty, tables) || is_whole_float(scalar, tables)
}

fn is_exact_type(scalar: &Scalar, ty: ColumnType, tables: &Tables<'_>) -> bool {
    if ty.oid.0 == types::NUMERIC {
        return scale(scalar, tables).is_some();
    }
    types::is_byte_exact(ty, tables.catalog.user_names()) && !reads_loose_text(scalar, tables)
}

/// Whether the expression reads a text column whose equality ignores differences.
pub(crate) fn reads_loose_text(scalar: &Scalar, tables: &Tables<'_>) -> bool {
    let loose = &tables.catalog.user_names().nondeterministic_collations;
    scalar.columns().into_iter().any(|column| {
        let ty = tables.column_type(column);
        ty.is_some_and(|ty| loose.contains(&ty.collation))
    })
}

/// Whether every value of the expression is an integer, or a number with as many digits behind the point.
pub(crate) fn has_one_scale(scalar: &Scalar, tables: &Tables<'_>) -> bool {
    scale(scalar, tables).is_some()
}

/// The number of digits behind the point that every value of the expression has, if it is one number.
pub(crate) fn scale(scalar: &Scalar, tables: &Tables<'_>) -> Option<i64> {
    let ty = types::type_of(scalar, tables)?;
    if types::is_integer(ty.oid) {
        return Some(0);
    }
    if ty.oid.0 != types::NUMERIC {
        return None;
    }
    match scalar {
        Scalar::Column(column) => match tables.source(column.occurrence)? {
            Source::Select(select) => select.column_at(column.attnum)?.scale,
            Source::Table(_) | Source::Rollup => declared_scale(ty),
        },
        Scalar::Literal(Literal::Number(digits)) if !digits.contains(['e', 'E']) => {
            let fraction = digits
                .split_once('.')
                .map_or(0, |(_, fraction)| fraction.len());
            i64::try_from(fraction).ok()
        }
        Scalar::Negate(operand) => scale(operand, tables),
        Scalar::Binary {
            op: BinaryOp::Plus | BinaryOp::Minus,
            left,
            right,
        } => Some(scale(left, tables)?.max(scale(right, tables)?)),
        Scalar::Binary {
            op: BinaryOp::Multiply,
            left,
            right,
        } => Some(scale(left, tables)? + scale(right, tables)?),
        Scalar::Cast { operand, .. } => declared_scale(ty).or_else(|| scale(operand, tables)),
        Scalar::Extract { field, operand: _ } => {
            (!matches!(field.as_str(), "second" | "epoch")).then_some(0)
        }
        Scalar::Call { name, arguments } => scale_of_call(name, arguments, tables),
        Scalar::Aggregate(aggregate) => match aggregate.function {
            AggregateFunction::Sum | AggregateFunction::Min | AggregateFunction::Max => {
                scale(aggregate.argument.as_ref()?, tables)
            }
            _ => None,
        },
        _ => None,
    }
}

fn scale_of_call(name: &str, arguments: &[Scalar], tables: &Tables<'_>) -> Option<i64> {
    match (name, arguments) {
        ("ceil" | "ceiling" | "floor" | "round" | "trunc", [_]) => Some(0),
        ("round" | "trunc", [_, Scalar::Literal(Literal::Number(digits))]) => digits.parse().ok(),
        ("abs", [operand]) | ("nullif", [operand, _]) => scale(operand, tables),
        ("coalesce" | "greatest" | "least", [first, others @ ..]) => {
            let first = scale(first, tables)?;
            let agree = others
                .iter()
                .all(|other| scale(other, tables) == Some(first));
            agree.then_some(first)
        }
        _ => None,
    }
}

/// The scale in the modifier of numeric(p,s): see numeric_typmod_scale in PostgreSQL's numeric.c.
fn declared_scale(ty: ColumnType) -> Option<i64> {
    const SCALE_BITS: i32 = 0x7ff;
    (ty.typmod >= 4).then(|| i64::from(((ty.typmod - 4) & SCALE_BITS) ^ 1024) - 1024)
}

/// Double precision that was made of integers, so that there is neither NaN nor -0.
fn is_whole_float(scalar: &Scalar, tables: &Tables<'_>) -> bool {
    let is_integer = |scalar: &Scalar| {
        types::type_of(scalar, tables).is_some_and(|ty| types::is_integer(ty.oid))
    };
    let is_positive = |scalar: &Scalar| matches!(scalar, Scalar::Literal(Literal::Number(digits)) if digits.bytes().any(|byte| (b'1'..=b'9').contains(&byte)));
    match scalar {
        Scalar::Call {
            name: "ceil" | "ceiling" | "floor" | "round" | "trunc",
            arguments,
        } => matches!(arguments.as_slice(), [operand] if is_integer(operand)),
        Scalar::Call {
            name: "date_part",
            arguments,
        } => !matches!(
            arguments.first(),
            Some(Scalar::Literal(Literal::String(field))) if matches!(field.as_str(), "second" | "epoch")
        ),
        Scalar::Binary {
            op: BinaryOp::Multiply | BinaryOp::Plus | BinaryOp::Divide,
            left,
            right,
        } => is_whole_float(left, tables) && is_positive(right),
        _ => false,
    }
}
