//! What an expression's value or error depends on beside its columns.

use crate::bucket::{self, Grain};
use crate::expr::{BinaryOp, ColumnTypes, Literal, Scalar, TypeName};
use crate::functions::{self, Volatility};
use crate::time::Civil;
use crate::types;
use crate::zone::Zone;

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
    match scalar {
        Scalar::Call { name, arguments } => {
            let depends_on_zone =
                matches!(*name, "date_trunc" | "date_part") && is_zoned_time(arguments, columns);
            let depends_on_settings = match *name {
                "date_bin" => !is_plain_bin(arguments, columns),
                "timezone" => {
                    !is_one_zone(arguments.first())
                        || !arguments.get(1).is_some_and(|operand| {
                            matches!(
                                type_of(operand),
                                Some(types::TIMESTAMP | types::TIMESTAMPTZ)
                            )
                        })
                }
                _ => depends_on_zone,
            };
            let own = functions::lookup(name)
                .map_or(Volatility::Clock, |function| function.volatility)
                .max(stable_if(depends_on_settings));
            match *name {
                "coalesce" | "greatest" | "least" | "nullif" => {
                    own.max(of_comparisons(arguments.iter(), columns))
                }
                _ => own,
            }
        }
        Scalar::Extract { field: _, operand } => stable_if(!matches!(
            type_of(operand),
            Some(types::TIMESTAMP | types::DATE)
        )),
        Scalar::Cast { operand, to } => of_cast(type_of(operand), operand, to.oid),
        Scalar::Binary { op, left, right } if op.is_comparison() => {
            of_comparisons([&**left, right].into_iter(), columns)
        }
        Scalar::Binary {
            op: BinaryOp::Concat,
            left,
            right,
        } => {
            // Beside a text, a value of any type is printed as the session's settings say.
            let prints = |side: &Scalar| match (type_of(side), side) {
                (Some(oid), _) => !is_text(oid) && !is_plain(oid),
                (None, side) => !matches!(side, Scalar::Literal(_)),
            };
            stable_if(prints(left) || prints(right))
        }
        Scalar::Binary { op: _, left, right } => {
            // timestamptz arithmetic counts days in the session's zone, and so may a domain's.
            let is_known = |side: &Scalar| match (type_of(side), side) {
                (Some(oid), _) => is_plain(oid) || is_float(oid) || is_unzoned_time(oid),
                (None, side) => matches!(side, Scalar::Literal(_)),
            };
            stable_if(!is_known(left) || !is_known(right))
        }
        Scalar::In {
            operand,
            list,
            negated: _,
        } => of_comparisons(std::iter::once(&**operand).chain(list), columns),
        Scalar::IsDistinct {
            left,
            right,
            negated: _,
        } => of_comparisons([&**left, right].into_iter(), columns),
        Scalar::Case {
            operand,
            branches,
            otherwise,
        } => {
            let compared = operand.as_deref().into_iter();
            let compared = match operand {
                Some(_) => compared
                    .chain(branches.iter().map(|(value, _)| value))
                    .collect(),
                None => Vec::new(),
            };
            let results = branches.iter().map(|(_, result)| result);
            of_comparisons(compared.into_iter(), columns)
                .max(of_comparisons(results.chain(otherwise.as_deref()), columns))
        }
        Scalar::Quantified { operand, array, .. } => match &**array {
            Scalar::Array(elements) => {
                let compared = std::iter::once(&**operand).chain(elements);
                of_comparisons(compared, columns)
            }
            array => {
                let is_read_alike = type_of(operand).is_some_and(is_plain);
                stable_if(!(is_read_alike && array.is_constant()))
            }
        },
        Scalar::Literal(Literal::Interval(text)) => stable_if(!is_plain_interval(text)),
        // It depends on the rows of its tables.
        Scalar::SubQuery(_) | Scalar::Outer(_) => Volatility::Stable,
        _ => Volatility::Immutable,
    }
}

fn stable_if(condition: bool) -> Volatility {
    if condition {
        Volatility::Stable
    } else {
        Volatility::Immutable
    }
}

/// A zone that is the same one under all settings. Abbreviations are not, and may be in any text.
fn is_one_zone(zone: Option<&Scalar>) -> bool {
    match zone {
        Some(Scalar::Literal(Literal::String(name))) => !Zone::may_be_abbreviation(name),
        Some(Scalar::Literal(Literal::Interval(_))) => true,
        _ => false,
    }
}

/// `date_bin` over arguments that are read alike under all settings.
fn is_plain_bin(arguments: &[Scalar], columns: &dyn ColumnTypes) -> bool {
    let [stride, operand, origin] = arguments else {
        return false;
    };
    let is_plain_stride = match stride {
        Scalar::Literal(Literal::String(text)) => is_plain_interval(text),
        stride => matches!(stride, Scalar::Literal(Literal::Interval(_))),
    };
    let ty = types::type_of(operand, columns).map(|ty| ty.oid.0);
    let is_plain_origin = match (origin, ty) {
        (Scalar::Literal(Literal::String(text)), Some(ty)) => {
            of_time_literal(text, ty) == Volatility::Immutable
        }
        (origin, ty) => types::type_of(origin, columns).map(|ty| ty.oid.0) == ty,
    };
    let is_time = matches!(ty, Some(types::TIMESTAMP | types::TIMESTAMPTZ));
    is_time && is_plain_stride && is_plain_origin
}

/// Types that are read and printed alike under all settings.
fn is_plain(oid: u32) -> bool {
    is_text(oid)
        || matches!(
            oid,
            types::BOOL | types::INT2 | types::INT4 | types::INT8 | types::NUMERIC | types::UUID
        )
        || matches!(oid, types::OID | types::INTERNAL_CHAR)
}

fn is_text(oid: u32) -> bool {
    matches!(oid, types::TEXT | types::VARCHAR | types::BPCHAR)
}

fn is_float(oid: u32) -> bool {
    types::is_float(crate::catalog::Oid(oid))
}

fn is_unzoned_time(oid: u32) -> bool {
    matches!(
        oid,
        types::DATE | types::TIME | types::TIMESTAMP | types::INTERVAL
    )
}

fn is_zoned_time(arguments: &[Scalar], columns: &dyn ColumnTypes) -> bool {
    let operand = arguments
        .get(1)
        .and_then(|operand| types::type_of(operand, columns));
    operand.is_none_or(|ty| ty.oid.0 != types::TIMESTAMP)
}

/// Casts between text and time follow DateStyle; casts to and from timestamptz follow TimeZone.
fn of_cast(from: Option<u32>, operand: &Scalar, to: u32) -> Volatility {
    let is_time = is_unzoned_time(to) || to == types::TIMESTAMPTZ;
    if let Scalar::Literal(Literal::String(text)) = operand {
        return if is_time {
            of_time_literal(text, to)
        } else {
            Volatility::Immutable
        };
    }
    stable_if(match from {
        Some(from) if from == to => false,
        Some(types::DATE | types::TIMESTAMP) => !matches!(to, types::DATE | types::TIMESTAMP),
        Some(from) if is_plain(from) => is_time,
        Some(from) if is_float(from) => is_text(to) || is_time,
        // Domains, intervals, arrays and whatever else: they print as they like.
        Some(_) => true,
        None => is_time || is_text(to),
    })
}

/// A text read as a point of time.
fn of_time_literal(text: &str, ty: u32) -> Volatility {
    const CLOCK_WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];
    let lower = text.to_ascii_lowercase();
    if CLOCK_WORDS.iter().any(|word| lower.contains(word)) {
        return Volatility::Clock;
    }
    stable_if(match ty {
        types::DATE | types::TIMESTAMP => Civil::parse(text).is_none(),
        types::TIMESTAMPTZ => Civil::parse_utc(text).is_none(),
        _ => true,
    })
}

/// What comparing these values with one another, or giving them one type, depends on.
fn of_comparisons<'a>(
    compared: impl Iterator<Item = &'a Scalar>,
    columns: &dyn ColumnTypes,
) -> Volatility {
    let compared: Vec<(Option<u32>, &Scalar)> = compared
        .map(|scalar| (types::type_of(scalar, columns).map(|ty| ty.oid.0), scalar))
        .collect();
    let pairs = compared.iter().enumerate().flat_map(|(position, left)| {
        compared[position + 1..]
            .iter()
            .map(move |right| (left, right))
    });
    pairs
        .map(|(left, right)| of_comparison(*left, *right, columns))
        .fold(Volatility::Immutable, Ord::max)
}

fn of_comparison(
    left: (Option<u32>, &Scalar),
    right: (Option<u32>, &Scalar),
    columns: &dyn ColumnTypes,
) -> Volatility {
    match (left, right) {
        ((Some(left), _), (Some(right), _)) => {
            // Between a timestamptz and another time, and between types that are not known.
            let are_known = [left, right]
                .into_iter()
                .all(|oid| is_plain(oid) || is_float(oid) || is_unzoned_time(oid));
            stable_if(left != right && !are_known)
        }
        ((Some(ty), _), (None, value)) | ((None, value), (Some(ty), _)) => match value {
            _ if is_plain(ty) || is_float(ty) || columns.is_enum(ty) => {
                stable_if(!value.is_constant())
            }
            Scalar::Literal(Literal::Null) => Volatility::Immutable,
            Scalar::Literal(Literal::String(text)) => of_time_literal(text, ty),
            _ => Volatility::Stable,
        },
        ((None, left), (None, right)) => stable_if(!(left.is_constant() && right.is_constant())),
    }
}

/// `5 minutes`: read alike under every IntervalStyle.
pub(crate) fn is_plain_interval(text: &str) -> bool {
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
    let is_numeric =
        || types::type_of(scalar, columns).is_some_and(|ty| ty.oid.0 == types::NUMERIC);
    let own = match scalar {
        Scalar::Binary {
            op: BinaryOp::Divide | BinaryOp::Modulo,
            left: _,
            right,
        } => !is_nonzero_number(right),
        // Numbers overflow, and points of time leave their range.
        Scalar::Binary {
            op: BinaryOp::Plus | BinaryOp::Minus | BinaryOp::Multiply,
            left: _,
            right: _,
        }
        | Scalar::Negate(_) => !is_numeric() && !fits(scalar, columns),
        Scalar::Like { pattern, .. } => !is_complete_pattern(pattern),
        Scalar::Regex { pattern, .. } => !is_plain_regex(pattern),
        Scalar::Call { name, arguments } => {
            let raises = functions::lookup(name).is_none_or(|function| function.raises);
            raises && !is_safe_call(name, arguments, columns)
        }
        Scalar::Cast { operand, to } => {
            cast_may_raise(types::type_of(operand, columns).map(|ty| ty.oid.0), to)
        }
        Scalar::SubQuery(sub_query) => sub_query.raises,
        _ => false,
    };
    own || scalar
        .children()
        .into_iter()
        .any(|child| may_raise(child, columns))
}

/// Whether the result of integer arithmetic is one of its type, whatever the columns hold.
fn fits(scalar: &Scalar, columns: &dyn ColumnTypes) -> bool {
    let ty = types::type_of(scalar, columns).and_then(|ty| whole_range(ty.oid.0));
    match (ty, range(scalar, columns)) {
        (Some((least, greatest)), Some((low, high))) => least <= low && high <= greatest,
        _ => false,
    }
}

fn whole_range(ty: u32) -> Option<(i128, i128)> {
    match ty {
        types::INT2 => Some((i16::MIN.into(), i16::MAX.into())),
        types::INT4 => Some((i32::MIN.into(), i32::MAX.into())),
        types::INT8 => Some((i64::MIN.into(), i64::MAX.into())),
        _ => None,
    }
}

/// Between which numbers the value of an integer expression lies, unless one that it is made of does not fit.
fn range(scalar: &Scalar, columns: &dyn ColumnTypes) -> Option<(i128, i128)> {
    let all = whole_range(types::type_of(scalar, columns)?.oid.0)?;
    // Within its type, so that nothing here overflows.
    let range = |operand: &Scalar| {
        let (least, greatest) = whole_range(types::type_of(operand, columns)?.oid.0)?;
        let (low, high) = range(operand, columns)?;
        Some((low.max(least), high.min(greatest)))
    };
    match scalar {
        Scalar::Literal(Literal::Number(digits)) => {
            let number = digits.parse().ok()?;
            Some((number, number))
        }
        Scalar::Negate(operand) => range(operand).map(|(low, high)| (-high, -low)),
        Scalar::Cast { operand, to: _ } => range(operand).or(Some(all)),
        Scalar::Binary { op, left, right } => {
            let (a, b) = (range(left)?, range(right)?);
            let products = [a.0 * b.0, a.0 * b.1, a.1 * b.0, a.1 * b.1];
            match op {
                BinaryOp::Plus => Some((a.0 + b.0, a.1 + b.1)),
                BinaryOp::Minus => Some((a.0 - b.1, a.1 - b.0)),
                BinaryOp::Multiply => Some((*products.iter().min()?, *products.iter().max()?)),
                _ => Some(all),
            }
        }
        _ => Some(all),
    }
}

/// A regular expression of letters, digits, anchors, points and repetitions, which cannot be wrong.
fn is_plain_regex(pattern: &Scalar) -> bool {
    let Scalar::Literal(Literal::String(text)) = pattern else {
        return false;
    };
    let is_atom =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b' ' | b'_' | b'-' | b'.' | b'/');
    let mut previous = None;
    for byte in text.bytes() {
        let is_valid = match byte {
            b'*' | b'+' | b'?' => previous.is_some_and(is_atom),
            b'^' => previous.is_none_or(|before| before == b'|'),
            b'$' | b'|' => previous.is_some(),
            byte => is_atom(byte),
        };
        if !is_valid {
            return false;
        }
        previous = Some(byte);
    }
    !matches!(previous, Some(b'|'))
}

/// LIKE raises an error when it reaches an escape character at the pattern's end.
fn is_complete_pattern(pattern: &Scalar) -> bool {
    match pattern {
        Scalar::Literal(Literal::String(text)) => {
            let escapes = text.bytes().rev().take_while(|byte| *byte == b'\\').count();
            escapes.is_multiple_of(2)
        }
        _ => false,
    }
}

/// Calls whose constant arguments rule out the errors that the function has.
fn is_safe_call(name: &str, arguments: &[Scalar], columns: &dyn ColumnTypes) -> bool {
    let is_count = |scalar: &Scalar| matches!(scalar, Scalar::Literal(Literal::Number(digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()));
    let is_time = |scalar: &Scalar| {
        types::type_of(scalar, columns).is_some_and(|ty| {
            matches!(
                ty.oid.0,
                types::TIMESTAMP | types::TIMESTAMPTZ | types::DATE
            )
        })
    };
    // From an earlier origin the distance to the last timestamps overflows.
    let is_modern = |scalar: &Scalar| {
        let text = match scalar {
            Scalar::Cast { operand, to: _ } => operand,
            other => other,
        };
        match text {
            Scalar::Literal(Literal::String(text)) => Civil::parse(text)
                .or_else(|| Civil::parse_utc(text))
                .is_some_and(|civil| civil >= Civil(0)),
            _ => false,
        }
    };
    match (name, arguments) {
        ("date_trunc", [Scalar::Literal(Literal::String(unit)), operand]) => {
            Grain::of_unit(unit).is_some() && is_time(operand)
        }
        ("date_part", [Scalar::Literal(Literal::String(field)), operand]) => {
            Grain::of_field(field).is_some() && is_time(operand)
        }
        (
            "date_bin",
            [
                Scalar::Literal(Literal::Interval(stride) | Literal::String(stride)),
                operand,
                origin,
            ],
        ) => {
            let is_whole = bucket::interval_of(stride).is_some_and(|length| length > 0);
            is_whole && is_time(operand) && is_modern(origin)
        }
        ("timezone", [Scalar::Literal(Literal::String(zone)), operand]) => {
            Zone::named(zone) == Zone::Utc && is_time(operand)
        }
        ("to_char", [operand, Scalar::Literal(Literal::String(_))]) => is_time(operand),
        ("substr" | "substring", [_, counts @ ..]) => counts.iter().all(is_count),
        ("split_part", [_, Scalar::Literal(_), field]) => is_nonzero_number(field),
        _ => false,
    }
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
