//! Whether a query's predicates imply one of a rollup's, or the reverse.
//!
//! Predicates filter: where one is NULL the row is left out as if it were FALSE.

use std::cmp::Ordering;

use crate::catalog::Oid;
use crate::equivalence::{Equivalence, column_equality};
use crate::expr::{BinaryOp, ColumnTypes, Literal, Scalar, Truth};
use crate::functions;
use crate::time;
use crate::types;

/// How many premises are taken apart into cases at once.
const SPLITS_MAX: usize = 2;

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
    let wanted = as_filter(classes.canonical(conclusion));
    let premises: Vec<Scalar> = premises
        .iter()
        .flat_map(|premise| as_filter(classes.canonical(premise)).into_conjuncts())
        .collect();
    let premises: Vec<&Scalar> = premises.iter().collect();
    follows(&premises, &wanted, columns, SPLITS_MAX)
}

/// A condition that lets the same rows through: `b IS TRUE`, `b = TRUE` and `b` do.
pub(crate) fn as_filter(condition: Scalar) -> Scalar {
    match condition {
        Scalar::IsTruth {
            operand,
            truth: Truth::True,
            negated: false,
        } => as_filter(*operand),
        Scalar::IsTruth {
            operand,
            truth: Truth::False,
            negated: false,
        } => Scalar::Not(operand).canonical(),
        Scalar::Binary {
            op: BinaryOp::Equal,
            left,
            right,
        } => match (*left, *right) {
            (Scalar::Literal(Literal::Boolean(truth)), operand)
            | (operand, Scalar::Literal(Literal::Boolean(truth))) => match truth {
                true => as_filter(operand),
                false => Scalar::Not(Box::new(operand)).canonical(),
            },
            (left, right) => Scalar::binary(BinaryOp::Equal, left, right),
        },
        other => other,
    }
}

/// Whether the conclusion holds wherever all of the premises do; all in canonical form. So many of them are taken
/// apart into their cases.
fn follows(
    premises: &[&Scalar],
    conclusion: &Scalar,
    columns: &dyn ColumnTypes,
    splits: usize,
) -> bool {
    let is_it =
        |premise: &&&Scalar| **premise == conclusion || narrower(premise, conclusion, columns);
    if premises.iter().any(|premise| is_it(&premise)) {
        return true;
    }
    let in_parts = match conclusion {
        Scalar::And(parts) => parts
            .iter()
            .all(|part| follows(premises, part, columns, splits)),
        Scalar::Or(cases) => cases
            .iter()
            .any(|case| follows(premises, case, columns, splits)),
        _ => false,
    };
    if in_parts || splits == 0 {
        return in_parts;
    }
    let holds_in_each_case = |(position, premise): (usize, &&Scalar)| {
        let Some(cases) = cases(premise, conclusion, columns) else {
            return false;
        };
        let holds = |case: &Scalar| {
            let parts = case.clone().into_conjuncts();
            let others = premises.iter().enumerate();
            let others = others.filter(|(other, _)| *other != position);
            let known: Vec<&Scalar> = others.map(|(_, other)| *other).chain(&parts).collect();
            follows(&known, conclusion, columns, splits - 1)
        };
        cases.iter().all(holds)
    };
    premises.iter().enumerate().any(holds_in_each_case)
}

/// The cases of which the premise says that one holds.
fn cases(premise: &Scalar, conclusion: &Scalar, columns: &dyn ColumnTypes) -> Option<Vec<Scalar>> {
    match (premise, conclusion) {
        (Scalar::Or(cases), _) => Some(cases.clone()),
        // One point at a time may be needed only where the conclusion has cases, too.
        (_, Scalar::Or(_)) => {
            let (operand, list) = points(premise, columns)?;
            let equal = |point: &&Scalar| {
                Scalar::binary(BinaryOp::Equal, operand.clone(), (*point).clone()).canonical()
            };
            (list.len() > 1).then(|| list.iter().map(equal).collect())
        }
        _ => None,
    }
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
        return rejects_null(premise, &|scalar| *scalar == **operand);
    }
    if let Some((operand, allowed)) = points(conclusion, columns) {
        return points(premise, columns).is_some_and(|(mine, list)| {
            let is_allowed = |item: &&Scalar| {
                let is_it = |other: &&Scalar| is_same(item, other, operand, columns);
                allowed.iter().any(is_it)
            };
            mine == operand && list.iter().all(is_allowed)
        });
    }
    if let Some((operand, excluded)) = excluded_points(conclusion, columns) {
        return excluded
            .iter()
            .all(|point| excludes(premise, operand, point, columns));
    }
    let Some(wanted) = as_bound(conclusion) else {
        return false;
    };
    if let Some((operand, list)) = points(premise, columns) {
        return operand == wanted.operand
            && list
                .iter()
                .all(|item| satisfies(BinaryOp::Equal, item, &wanted, columns));
    }
    as_bound(premise).is_some_and(|known| {
        known.operand == wanted.operand && satisfies(known.op, known.constant, &wanted, columns)
    })
}

/// `x = 1`, `x IN (1, 2)`: the operand, and the constants that it may have.
pub(crate) fn points<'a>(
    condition: &'a Scalar,
    columns: &dyn ColumnTypes,
) -> Option<(&'a Scalar, Vec<&'a Scalar>)> {
    match condition {
        Scalar::In {
            operand,
            list,
            negated: false,
        } => reads_items_alone(operand, list, columns).then(|| (&**operand, list.iter().collect())),
        Scalar::Quantified {
            operand,
            op: BinaryOp::Equal,
            all: false,
            array,
        } => match &**array {
            Scalar::Array(list) => {
                // The array's texts are texts, and blanks count in those.
                let is_padded =
                    types::type_of(operand, columns).is_none_or(|ty| ty.oid.0 == types::BPCHAR);
                let is_alone = !is_padded && reads_items_alone(operand, list, columns);
                is_alone.then(|| (&**operand, list.iter().collect()))
            }
            _ => None,
        },
        _ => {
            let bound = as_bound(condition)?;
            (bound.op == BinaryOp::Equal).then(|| (bound.operand, vec![bound.constant]))
        }
    }
}

/// `x <> 1`, `x NOT IN (1, 2)`: the operand, and the constants that it may not have.
fn excluded_points<'a>(
    condition: &'a Scalar,
    columns: &dyn ColumnTypes,
) -> Option<(&'a Scalar, Vec<&'a Scalar>)> {
    match condition {
        Scalar::In {
            operand,
            list,
            negated: true,
        } => reads_items_alone(operand, list, columns).then(|| (&**operand, list.iter().collect())),
        _ => {
            let bound = as_bound(condition)?;
            (bound.op == BinaryOp::NotEqual).then(|| (bound.operand, vec![bound.constant]))
        }
    }
}

/// Whether the premise leaves out the rows in which the operand is that point, and those in which it is NULL.
fn excludes(premise: &Scalar, operand: &Scalar, point: &Scalar, columns: &dyn ColumnTypes) -> bool {
    if let Some((mine, list)) = points(premise, columns) {
        return mine == operand
            && list
                .iter()
                .all(|item| is_another(item, point, operand, columns));
    }
    if let Some((mine, list)) = excluded_points(premise, columns) {
        return mine == operand
            && list
                .iter()
                .any(|item| is_same(item, point, operand, columns));
    }
    as_bound(premise).is_some_and(|known| {
        let Some(order) = compare(point, known.constant, operand, columns) else {
            return false;
        };
        let holds_for_point = match known.op {
            BinaryOp::Less => order == Ordering::Less,
            BinaryOp::LessOrEqual => order != Ordering::Greater,
            BinaryOp::Greater => order == Ordering::Greater,
            BinaryOp::GreaterOrEqual => order != Ordering::Less,
            _ => true,
        };
        known.operand == operand && !holds_for_point
    })
}

fn is_same(left: &Scalar, right: &Scalar, operand: &Scalar, columns: &dyn ColumnTypes) -> bool {
    left == right || compare(left, right, operand, columns) == Some(Ordering::Equal)
}

/// Whether two constants are unequal as values of the operand's type.
fn is_another(left: &Scalar, right: &Scalar, operand: &Scalar, columns: &dyn ColumnTypes) -> bool {
    if let Some(order) = compare(left, right, operand, columns) {
        return order != Ordering::Equal;
    }
    // Unequal texts are unequal under every deterministic collation.
    let is_text = types::type_of(operand, columns).is_some_and(|ty| {
        matches!(ty.oid.0, types::TEXT | types::VARCHAR) && columns.is_deterministic(ty.collation)
    });
    match (left, right) {
        (Scalar::Literal(Literal::String(left)), Scalar::Literal(Literal::String(right))) => {
            is_text && left != right
        }
        _ => false,
    }
}

/// Which expressions are NULL.
pub(crate) type Nulls<'a> = &'a dyn Fn(&Scalar) -> bool;

/// Whether the condition is never TRUE where all of `wanted` are NULL.
pub(crate) fn rejects_null(condition: &Scalar, wanted: Nulls<'_>) -> bool {
    match condition {
        Scalar::And(parts) => parts.iter().any(|part| rejects_null(part, wanted)),
        Scalar::Or(cases) => cases.iter().all(|case| rejects_null(case, wanted)),
        Scalar::IsNull {
            operand,
            negated: true,
        }
        | Scalar::IsTruth {
            operand,
            truth: _,
            negated: false,
        } => is_null_for_null(operand, wanted),
        other => is_null_for_null(other, wanted),
    }
}

/// Whether the expression is NULL wherever `wanted` are.
fn is_null_for_null(scalar: &Scalar, wanted: Nulls<'_>) -> bool {
    let is_null = |operand: &Scalar| is_null_for_null(operand, wanted);
    if wanted(scalar) {
        return true;
    }
    match scalar {
        // Arrays are put together even where one is NULL.
        Scalar::Binary {
            op: BinaryOp::Concat,
            ..
        } => false,
        Scalar::Binary { op: _, left, right } => is_null(left) || is_null(right),
        Scalar::Negate(operand) | Scalar::Not(operand) => is_null(operand),
        Scalar::Cast { operand, to: _ } | Scalar::Extract { field: _, operand } => is_null(operand),
        Scalar::In { operand, .. } => is_null(operand),
        Scalar::Like {
            operand, pattern, ..
        } => is_null(operand) || is_null(pattern),
        Scalar::And(parts) | Scalar::Or(parts) => parts.iter().all(is_null),
        Scalar::Call { name, arguments } => {
            functions::is_strict(name) && arguments.iter().any(is_null)
        }
        Scalar::Column(_) | Scalar::Literal(_) | Scalar::Parameter(_) => false,
        _ => false,
    }
}

/// Whether each item of the list means the same as it would alone. PostgreSQL gives all of them one
/// type: beside a numeric or a text, an item may be read as something else.
fn reads_items_alone(operand: &Scalar, list: &[Scalar], columns: &dyn ColumnTypes) -> bool {
    let Some(ty) = types::type_of(operand, columns) else {
        return false;
    };
    let is_number = |item: &Scalar| {
        let is_digits = !matches!(item, Scalar::Literal(Literal::String(_)));
        is_digits && integer(item).is_some()
    };
    let is_integer = types::is_integer(ty.oid) && list.iter().all(is_number);
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
        (Greater, GreaterOrEqual) => {
            order != Ordering::Less || is_next(constant, wanted.constant, wanted.operand, columns)
        }
        (Equal | GreaterOrEqual, GreaterOrEqual) => order != Ordering::Less,
        (Equal | Less | LessOrEqual, Less) => {
            order == Ordering::Less || (op == Less && order == Ordering::Equal)
        }
        (Less, LessOrEqual) => {
            order != Ordering::Greater
                || is_next(wanted.constant, constant, wanted.operand, columns)
        }
        (Equal | LessOrEqual, LessOrEqual) => order != Ordering::Greater,
        _ => false,
    }
}

/// Whether no value of the operand's type lies between the two constants, the second of which is greater.
fn is_next(left: &Scalar, right: &Scalar, operand: &Scalar, columns: &dyn ColumnTypes) -> bool {
    let Some(ty) = types::type_of(operand, columns) else {
        return false;
    };
    if types::is_integer(ty.oid) {
        let next = integer(left).and_then(|left| left.checked_add(1));
        return next.is_some() && next == integer(right);
    }
    let day = |constant: &Scalar| {
        time::constant(constant, false).filter(|civil| *civil == civil.midnight())
    };
    match (ty.oid.0, day(left), day(right)) {
        (types::DATE, Some(left), Some(right)) => left.0.checked_add(time::DAY) == Some(right.0),
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
    const C_COLLATION: Oid = Oid(950);
    let ty = types::type_of(operand, columns)?;
    if types::is_integer(ty.oid) {
        return Some(integer(left)?.cmp(&integer(right)?));
    }
    if ty.oid.0 == types::NUMERIC {
        return decimal(left)?.compare(&decimal(right)?);
    }
    if matches!(ty.oid.0, types::DATE | types::TIMESTAMP) {
        // A date compared with a text takes the text's day, so only texts of one form are compared.
        let (left, right) = (time::constant(left, false)?, time::constant(right, false)?);
        let is_certain =
            ty.oid.0 == types::TIMESTAMP || (left == left.midnight() && right == right.midnight());
        return is_certain.then(|| left.cmp(&right));
    }
    match (left, right) {
        (Scalar::Literal(Literal::String(left)), Scalar::Literal(Literal::String(right)))
            if matches!(ty.oid.0, types::TEXT | types::VARCHAR) && ty.collation == C_COLLATION =>
        {
            Some(left.as_bytes().cmp(right.as_bytes()))
        }
        _ => None,
    }
}

/// A whole number, in digits or in a text that takes the type of what it is compared with.
pub(crate) fn integer(scalar: &Scalar) -> Option<i64> {
    match scalar {
        Scalar::Literal(Literal::Number(digits)) => digits.parse().ok(),
        Scalar::Literal(Literal::String(text)) => {
            let is_plain = text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'-');
            is_plain.then(|| text.parse().ok()).flatten()
        }
        Scalar::Negate(operand) => integer(operand).and_then(i64::checked_neg),
        _ => None,
    }
}

/// A number as a whole multiple of a power of ten.
struct Decimal {
    digits: i128,
    scale: usize,
}

impl Decimal {
    fn compare(&self, other: &Decimal) -> Option<Ordering> {
        let scale = self.scale.max(other.scale);
        let scaled = |number: &Decimal| {
            let factor = 10_i128.checked_pow(u32::try_from(scale - number.scale).ok()?)?;
            number.digits.checked_mul(factor)
        };
        Some(scaled(self)?.cmp(&scaled(other)?))
    }
}

fn decimal(scalar: &Scalar) -> Option<Decimal> {
    match scalar {
        Scalar::Literal(Literal::Number(text)) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let is_plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
            let digits = format!("{whole}{fraction}");
            (is_plain(&digits) && digits.len() <= 30)
                .then(|| digits.parse().ok())
                .flatten()
                .map(|digits| Decimal {
                    digits,
                    scale: fraction.len(),
                })
        }
        Scalar::Negate(operand) => decimal(operand).map(|number| Decimal {
            digits: -number.digits,
            ..number
        }),
        _ => None,
    }
}
