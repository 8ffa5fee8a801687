//! What an expression's value or error depends on beside its columns.

use crate::expr::{BinaryOp, ColumnTypes, Literal, Scalar, TypeName};
use crate::functions::{self, Volatility};
use crate::time::Civil;
use crate::types;

/// The strongest dependence in the expression.
pub(crate) fn volatility(scalar: &Scalar, columns: &dyn ColumnTypes) -> Volatility {
    let own = own_volatility(scalar, columns);
    scalar
        .children()
        .into_iter()
        .map(|child| volatility(child, columns))
        .fold(own, Ord::max)
}

fn own_volatility(scalar: &Scalar, columns: &dyn ColumnTypes) -> Volatility {
    let type_of = |scalar: &Scalar| types::type_of(scalar, columns).map(|ty| ty.oid.0);
    let stable_if = |condition: bool| {
        if condition {
            Volatility::Stable
        } else {
            Volatility::Immutable
        }
    };
    match scalar {
        Scalar::Call { name, arguments } => {
            let depends_on_zone =
                matches!(*name, "date_trunc" | "date_part") && is_zoned_time(arguments, columns);
            functions::lookup(name)
                .map_or(Volatility::Clock, |function| function.volatility)
                .max(stable_if(depends_on_zone))
        }
        Scalar::Extract { field: _, operand } => stable_if(!matches!(
            type_of(operand),
            Some(types::TIMESTAMP | types::DATE)
        )),
        Scalar::Cast { operand, to } => {
            stable_if(cast_depends_on_session(type_of(operand), operand, to.oid))
        }
        Scalar::Binary { op, left, right } if op.is_comparison() => {
            stable_if(compares_across_zones(left, right, columns))
        }
        Scalar::Binary { op: _, left, right } => {
            // timestamptz arithmetic counts days in the session's zone.
            stable_if(
                [left, right]
                    .iter()
                    .any(|side| type_of(side) == Some(types::TIMESTAMPTZ)),
            )
        }
        Scalar::In {
            operand,
            list,
            negated: _,
        } => stable_if(
            list.iter()
                .any(|item| compares_across_zones(operand, item, columns)),
        ),
        Scalar::Literal(Literal::Interval(text)) => stable_if(!is_plain_interval(text)),
        _ => Volatility::Immutable,
    }
}

fn is_zoned_time(arguments: &[Scalar], columns: &dyn ColumnTypes) -> bool {
    let operand = arguments
        .get(1)
        .and_then(|operand| types::type_of(operand, columns));
    operand.is_none_or(|ty| ty.oid.0 != types::TIMESTAMP)
}

/// Casts between text and time follow DateStyle; casts to and from timestamptz follow TimeZone.
fn cast_depends_on_session(from: Option<u32>, operand: &Scalar, to: u32) -> bool {
    let is_time = |oid| {
        matches!(
            oid,
            types::DATE | types::TIME | types::TIMESTAMP | types::TIMESTAMPTZ | types::INTERVAL
        )
    };
    match (from, operand) {
        (_, Scalar::Literal(Literal::String(text))) => {
            is_time(to) && (to == types::TIMESTAMPTZ || Civil::parse(text).is_none())
        }
        (Some(from), _) if from == to => false,
        (Some(types::DATE), _) if to == types::TIMESTAMP => false,
        (Some(types::TIMESTAMP), _) if to == types::DATE => false,
        (Some(from), _) => {
            is_time(from) || is_time(to) || types::is_float(crate::catalog::Oid(from))
        }
        (None, _) => is_time(to),
    }
}

fn compares_across_zones(left: &Scalar, right: &Scalar, columns: &dyn ColumnTypes) -> bool {
    let side = |scalar: &Scalar| types::type_of(scalar, columns).map(|ty| ty.oid.0);
    match (side(left), side(right)) {
        (Some(types::TIMESTAMPTZ), Some(types::TIMESTAMPTZ)) => false,
        (Some(types::TIMESTAMPTZ), _) | (_, Some(types::TIMESTAMPTZ)) => true,
        (Some(types::DATE | types::TIMESTAMP), None) => !is_iso_literal(right),
        (None, Some(types::DATE | types::TIMESTAMP)) => !is_iso_literal(left),
        (Some(types::INTERVAL), None) | (None, Some(types::INTERVAL)) => true,
        _ => false,
    }
}

fn is_iso_literal(scalar: &Scalar) -> bool {
    matches!(scalar, Scalar::Literal(Literal::String(text)) if Civil::parse(text).is_some())
}

/// `5 minutes`: read alike under every IntervalStyle.
fn is_plain_interval(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let is_number = words
        .next()
        .is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
    let is_unit = words
        .next()
        .is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_alphabetic()));
    is_number && is_unit && words.next().is_none()
}

/// Whether some value of its columns can make the expression raise an error. As a filter such an
/// expression may meet values that PostgreSQL's own plan would not have shown it, or the reverse.
pub(crate) fn may_raise(scalar: &Scalar, columns: &dyn ColumnTypes) -> bool {
    // A constant is computed once when the statement is planned, in both statements alike.
    if scalar.is_constant() {
        return false;
    }
    let own = match scalar {
        Scalar::Binary {
            op: BinaryOp::Divide | BinaryOp::Modulo,
            left: _,
            right,
        } => !is_nonzero_number(right),
        Scalar::Call { name, arguments } => {
            let only_one_varies = arguments
                .iter()
                .filter(|argument| !matches!(argument, Scalar::Literal(_)))
                .count()
                <= 1;
            let is_safe_with_constants = matches!(
                *name,
                "date_trunc" | "date_part" | "to_char" | "substr" | "substring" | "split_part"
            );
            let raises = functions::lookup(name).is_none_or(|function| function.raises);
            raises && !(only_one_varies && is_safe_with_constants)
        }
        Scalar::Cast { operand, to } => {
            cast_may_raise(types::type_of(operand, columns).map(|ty| ty.oid.0), to)
        }
        _ => false,
    };
    own || scalar
        .children()
        .into_iter()
        .any(|child| may_raise(child, columns))
}

fn is_nonzero_number(scalar: &Scalar) -> bool {
    matches!(scalar, Scalar::Literal(Literal::Number(digits)) if digits.bytes().any(|digit| (b'1'..=b'9').contains(&digit)))
}

fn cast_may_raise(from: Option<u32>, to: &TypeName) -> bool {
    let narrows = to.oid == types::NUMERIC && to.typmod >= 0;
    match (from, to.oid) {
        _ if narrows => true,
        (Some(_), types::TEXT | types::VARCHAR) => false,
        (Some(from), to) if from == to => false,
        (
            Some(types::INT2 | types::INT4 | types::INT8),
            types::INT8 | types::NUMERIC | types::FLOAT8,
        ) => false,
        (Some(types::INT2), types::INT4) => false,
        (Some(types::DATE), types::TIMESTAMP | types::TIMESTAMPTZ) => false,
        (Some(types::TIMESTAMP | types::TIMESTAMPTZ), types::DATE) => false,
        _ => true,
    }
}
