//! Whether a query's predicates imply one of a rollup's.

use std::cmp::Ordering;

use crate::equivalence::{Equivalence, column_equality};
use crate::expr::{BinaryOp, ColumnTypes, Literal, Scalar};
use crate::time;
use crate::types;

/// Whether every row that satisfies `premises` satisfies `conclusion`. `classes` are the columns
/// that the premises make equal. Answers no whenever it is not certain.
pub(crate) fn implies(
    premises: &[Scalar],
    conclusion: &Scalar,
    classes: &Equivalence,
    columns: &dyn ColumnTypes,
) -> bool {
    if is_made_equal(conclusion, classes) {
        return true;
    }
    let wanted = classes.canonical(conclusion);
    premises.iter().any(|premise| {
        let premise = classes.canonical(premise);
        premise == wanted || narrower(&premise, &wanted, columns)
    })
}

/// `x = y` over one class: some premise made its members equal, so none of them is NULL. One column
/// by itself (`x = x`) is no class: it says that the column is not NULL.
pub(crate) fn is_made_equal(scalar: &Scalar, classes: &Equivalence) -> bool {
    column_equality(scalar).is_some_and(|(left, right)| {
        left != right && classes.representative(left) == classes.representative(right)
    })
}

/// A comparison of an expression with a constant.
pub(crate) struct Bound<'a> {
    pub(crate) operand: &'a Scalar,
    pub(crate) op: BinaryOp,
    pub(crate) constant: &'a Scalar,
}

/// The comparison with its constant on the right.
pub(crate) fn as_bound(scalar: &Scalar) -> Option<Bound<'_>> {
    let Scalar::Binary { op, left, right } = scalar else {
        return None;
    };
    let mirrored = op.mirrored()?;
    match (left.is_constant(), right.is_constant()) {
        (false, true) => Some(Bound {
            operand: left,
            op: *op,
            constant: right,
        }),
        (true, false) => Some(Bound {
            operand: right,
            op: mirrored,
            constant: left,
        }),
        (true, true) | (false, false) => None,
    }
}

fn narrower(premise: &Scalar, conclusion: &Scalar, columns: &dyn ColumnTypes) -> bool {
    if let Scalar::IsNull {
        operand,
        negated: true,
    } = conclusion
    {
        return rejects_null(premise, operand);
    }
    let Some(wanted) = as_bound(conclusion) else {
        return in_list_covers(premise, conclusion, columns);
    };
    match premise {
        Scalar::In {
            operand,
            list,
            negated: false,
        } => {
            **operand == *wanted.operand
                && list
                    .iter()
                    .all(|item| satisfies(BinaryOp::Equal, item, &wanted, columns))
        }
        _ => as_bound(premise).is_some_and(|known| {
            known.operand == wanted.operand && satisfies(known.op, known.constant, &wanted, columns)
        }),
    }
}

/// Whether the condition is never TRUE where the operand is NULL, because it compares the operand itself.
pub(crate) fn rejects_null(condition: &Scalar, wanted: &Scalar) -> bool {
    match condition {
        Scalar::Binary { op, left, right } => {
            op.is_comparison() && (**left == *wanted || **right == *wanted)
        }
        Scalar::In { operand, .. } | Scalar::Like { operand, .. } => **operand == *wanted,
        Scalar::IsNull { operand, negated } => *negated && **operand == *wanted,
        Scalar::IsTruth {
            operand,
            truth: _,
            negated: false,
        }
        | Scalar::Not(operand) => **operand == *wanted || is_null_for_null(operand, wanted),
        _ => condition == wanted,
    }
}

/// Whether the condition is NULL where the operand is, so that its opposite is not TRUE either.
fn is_null_for_null(condition: &Scalar, wanted: &Scalar) -> bool {
    let is_comparison = matches!(
        condition,
        Scalar::Binary { .. } | Scalar::In { .. } | Scalar::Like { .. }
    );
    is_comparison && rejects_null(condition, wanted)
}

/// `x = 1` and `x IN (1, 2)` imply `x IN (1, 2, 3)`: the constants are the very same ones.
fn in_list_covers(premise: &Scalar, conclusion: &Scalar, columns: &dyn ColumnTypes) -> bool {
    let Scalar::In {
        operand,
        list: allowed,
        negated: false,
    } = conclusion
    else {
        return false;
    };
    if !reads_items_alone(operand, allowed, columns) {
        return false;
    }
    match premise {
        Scalar::In {
            operand: mine,
            list,
            negated: false,
        } => mine == operand && list.iter().all(|item| allowed.contains(item)),
        _ => as_bound(premise).is_some_and(|known| {
            known.op == BinaryOp::Equal
                && known.operand == &**operand
                && allowed.contains(known.constant)
        }),
    }
}

/// Whether each item of the list means the same as it would alone. PostgreSQL gives all of them one
/// type: beside a numeric or a text, an item may be read as something else.
fn reads_items_alone(operand: &Scalar, list: &[Scalar], columns: &dyn ColumnTypes) -> bool {
    let Some(ty) = types::type_of(operand, columns) else {
        return false;
    };
    let is_integer = types::is_integer(ty.oid) && list.iter().all(|item| integer(item).is_some());
    let is_string = |item: &Scalar| matches!(item, Scalar::Literal(Literal::String(_)));
    is_integer || (!types::is_float(ty.oid) && list.iter().all(is_string))
}

/// Whether `x op constant` implies the wanted bound on the same `x`.
fn satisfies(
    op: BinaryOp,
    constant: &Scalar,
    wanted: &Bound<'_>,
    columns: &dyn ColumnTypes,
) -> bool {
    use BinaryOp::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual};
    let Some(order) = compare(constant, wanted.constant, wanted.operand, columns) else {
        return false;
    };
    match (op, wanted.op) {
        (Equal, Equal) => order == Ordering::Equal,
        (Equal | Greater | GreaterOrEqual, Greater) => {
            order == Ordering::Greater || (op == Greater && order == Ordering::Equal)
        }
        (Equal | Greater | GreaterOrEqual, GreaterOrEqual) => order != Ordering::Less,
        (Equal | Less | LessOrEqual, Less) => {
            order == Ordering::Less || (op == Less && order == Ordering::Equal)
        }
        (Equal | Less | LessOrEqual, LessOrEqual) => order != Ordering::Greater,
        _ => false,
    }
}

/// The order of two constants as values of the operand's type, where that is certain.
fn compare(
    left: &Scalar,
    right: &Scalar,
    operand: &Scalar,
    columns: &dyn ColumnTypes,
) -> Option<Ordering> {
    let ty = types::type_of(operand, columns)?.oid;
    if types::is_integer(ty) {
        return Some(integer(left)?.cmp(&integer(right)?));
    }
    if matches!(ty.0, types::DATE | types::TIMESTAMP) {
        // A date compared with a text takes the text's day, so only texts of one form are compared.
        let (left, right) = (time::constant(left, false)?, time::constant(right, false)?);
        let is_certain =
            ty.0 == types::TIMESTAMP || (left == left.midnight() && right == right.midnight());
        return is_certain.then(|| left.cmp(&right));
    }
    None
}

fn integer(scalar: &Scalar) -> Option<i64> {
    match scalar {
        Scalar::Literal(Literal::Number(digits)) => digits.parse().ok(),
        Scalar::Negate(operand) => integer(operand).map(|value| -value),
        _ => None,
    }
}
