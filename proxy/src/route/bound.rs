//! What is bound to a statement's parameters: whether a range begins where a rollup's buckets do, and which rows matter, may
//! be known only when it is bound.

use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::expr::BoundTime;
use pgstar_rewriter::{ColumnRange, ParameterRange};

use super::Binding;
use crate::wire::read::{BoundValue, bound_values};

const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
/// The type `unknown`, which PostgreSQL takes as none.
const UNKNOWN: u32 = 705;

const SECOND_MICROSECONDS: i64 = 1_000_000;
const DAY_MICROSECONDS: i64 = 24 * 60 * 60 * SECOND_MICROSECONDS;

/// The longest text of a date or time, its zone included.
const TEXT_BYTES_MAX: usize = 40;

/// Whether only PostgreSQL can say what is bound: values in binary whose type the client did not declare. Many
/// drivers have the statement described first, and bind as they are told.
pub(super) fn is_undeclared(binding: &Binding) -> bool {
    let values = bound_values(&binding.bind).unwrap_or_default();
    let types = binding.parameter_types.iter().copied();
    let types = types.chain(std::iter::repeat(0));
    let mut values = values.iter().zip(types);
    values.any(|(value, oid)| {
        let is_binary = value.bytes.is_some() && !value.is_text;
        is_binary && matches!(oid, 0 | UNKNOWN)
    })
}

/// The dates and times among the values, from `$1` on; empty if there are none. The types are the parameters', as far as
/// they are known.
pub(super) fn times(sql: &str, binding: &Binding, types: &[u32]) -> Vec<Option<BoundTime>> {
    let values = bound_values(&binding.bind).unwrap_or_default();
    let types = types.iter().copied().chain(std::iter::repeat(0));
    let times = values.iter().zip(types).enumerate();
    let times: Vec<Option<BoundTime>> = times
        .map(|(position, (value, oid))| time(sql, position + 1, value, oid))
        .collect();
    match times.iter().any(Option::is_some) {
        true => times,
        false => vec![],
    }
}

/// The ranges outside of which rows do not matter under these values.
pub(super) fn ranges(
    sql: &str,
    wanted: &[ParameterRange],
    binding: Option<&Binding>,
) -> Vec<ColumnRange> {
    let Some(binding) = binding.filter(|_| !wanted.is_empty()) else {
        return vec![];
    };
    let values = bound_values(&binding.bind).unwrap_or_default();
    let range = |range: &ParameterRange| {
        let number = usize::try_from(range.number).ok()?;
        let value = values.get(number.checked_sub(1)?)?;
        let oid = binding.parameter_types.get(number - 1).copied();
        let oid = oid.filter(|oid| ![0, UNKNOWN].contains(oid));
        let is_taken_from_column = || value.is_text && mentions(sql, number) == 1;
        let is_its_type = oid.map_or_else(is_taken_from_column, |oid| is_alike(oid, range.ty.0));
        let count = count(value, range.ty.0).filter(|_| is_its_type)?;
        Some(range.around(count))
    };
    wanted.iter().filter_map(range).collect()
}

/// Whether values of both types are counted and sent alike.
fn is_alike(oid: u32, of_column: u32) -> bool {
    const KINDS: [&[u32]; 2] = [&[INT2, INT4, INT8], &[TEXT, VARCHAR]];
    let are_both = |kind: &&[u32]| kind.contains(&oid) && kind.contains(&of_column);
    oid == of_column || KINDS.iter().any(are_both)
}

/// The value as a column of this type counts; `None` for NULL, and for what is not understood.
fn count(value: &BoundValue<'_>, ty: u32) -> Option<i64> {
    let bytes = value.bytes?;
    // Other texts have other bytes in other encodings.
    if value.is_text || [TEXT, VARCHAR].contains(&ty) {
        let text = std::str::from_utf8(bytes).ok()?;
        return text.is_ascii().then(|| ColumnRange::count(text, Oid(ty)))?;
    }
    let number = match *bytes {
        [a, b] => i64::from(i16::from_be_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_be_bytes([a, b, c, d])),
        _ => i64::from_be_bytes(bytes.try_into().ok()?),
    };
    let is_infinite =
        [i64::from(i32::MIN), i64::from(i32::MAX), i64::MIN, i64::MAX].contains(&number);
    match ty {
        INT2 | INT4 | INT8 => Some(number),
        DATE if bytes.len() == 4 && !is_infinite => Some(number),
        TIMESTAMP | TIMESTAMPTZ if bytes.len() == 8 && !is_infinite => {
            Some(number.div_euclid(SECOND_MICROSECONDS))
        }
        _ => None,
    }
}

fn time(sql: &str, number: usize, value: &BoundValue<'_>, oid: u32) -> Option<BoundTime> {
    let bytes = value.bytes?;
    let microseconds = || bytes.try_into().ok().map(i64::from_be_bytes);
    let days = || bytes.try_into().ok().map(i32::from_be_bytes);
    match (oid, value.is_text) {
        (DATE | TIMESTAMP | TIMESTAMPTZ, true) => text(oid, bytes),
        // Named twice, the first mention decides the type, which need not be what the other suggests.
        (0 | UNKNOWN, true) if mentions(sql, number) == 1 => text(0, bytes),
        (TIMESTAMP | TIMESTAMPTZ, false) => BoundTime::of_microseconds(oid, microseconds()?),
        (DATE, false) => {
            BoundTime::of_microseconds(oid, i64::from(days()?).checked_mul(DAY_MICROSECONDS)?)
        }
        _ => None,
    }
}

fn text(oid: u32, bytes: &[u8]) -> Option<BoundTime> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_date = text.len() <= TEXT_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_digit())
        && text.contains('-');
    is_date.then(|| BoundTime {
        oid,
        text: text.to_owned(),
    })
}

/// How often the text has the parameter; mentions in comments and constants count, too.
fn mentions(sql: &str, number: usize) -> usize {
    let parameter = format!("${number}");
    let is_whole = |(start, _): &(usize, &str)| {
        let rest = sql.get(start + parameter.len()..).unwrap_or_default();
        !rest.starts_with(|c: char| c.is_ascii_digit())
    };
    sql.match_indices(&parameter).filter(is_whole).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(ty: u32, from_below: bool, to_above: bool) -> ParameterRange {
        ParameterRange {
            table: Oid(1),
            column: "x".to_owned(),
            ty: Oid(ty),
            number: 1,
            from_below,
            to_above,
        }
    }

    /// The ends of the range that one value leaves, of which NULL and others leave none.
    fn ends(sql: &str, range: &ParameterRange, binding: &Binding) -> Option<(i64, i64)> {
        let ranges = ranges(sql, std::slice::from_ref(range), Some(binding));
        ranges.first().map(|range| (range.low, range.high))
    }

    #[test]
    fn values_leave_ranges_where_their_type_is_the_columns() {
        let sql = "x = $1";
        let equal = |ty| wanted(ty, false, false);
        let text = |oid, value: &[u8]| binding(0, &[oid], &[value]);
        let days = 8770_i32.to_be_bytes();
        assert_eq!(ends(sql, &equal(INT8), &text(INT4, b"-7")), Some((-7, -7)));
        assert_eq!(ends(sql, &equal(INT4), &text(0, b"7")), Some((7, 7)));
        assert_eq!(
            ends(sql, &equal(DATE), &text(DATE, b"2024-01-05")),
            Some((8770, 8770))
        );
        assert_eq!(
            ends(sql, &equal(DATE), &binding(1, &[DATE], &[&days])),
            Some((8770, 8770))
        );
        let micros = 757_775_820_500_000_i64.to_be_bytes();
        let (below, above) = (
            wanted(TIMESTAMP, true, false),
            wanted(TIMESTAMP, false, true),
        );
        let bound = binding(1, &[TIMESTAMP], &[&micros]);
        assert_eq!(ends(sql, &below, &bound), Some((i64::MIN, 757_775_820)));
        assert_eq!(ends(sql, &above, &bound), Some((757_775_820, i64::MAX)));
        let word = ColumnRange::count("abc", Oid(TEXT)).unwrap();
        assert_eq!(
            ends(sql, &equal(TEXT), &text(VARCHAR, b"abc")),
            Some((word, word))
        );
        assert_eq!(
            ends(sql, &equal(TEXT), &binding(1, &[TEXT], &[b"abc"])),
            Some((word, word))
        );
        let never = i32::MAX.to_be_bytes();
        for (ty, bound) in [
            (INT4, text(1700, b"7")),
            (INT4, text(INT4, b" 7")),
            (INT4, binding(1, &[0], &[&days])),
            (DATE, text(TIMESTAMP, b"2024-01-05")),
            (DATE, text(DATE, b"05.01.2024")),
            (DATE, binding(1, &[DATE], &[&never])),
            (TIMESTAMPTZ, text(TIMESTAMPTZ, b"2024-01-05 10:00")),
            (TEXT, text(1042, b"abc")),
            (TEXT, text(TEXT, "Böblingen".as_bytes())),
        ] {
            assert_eq!(ends(sql, &equal(ty), &bound), None, "{ty}");
        }
        let twice = "$1 || 'a' = y AND x = $1";
        assert_eq!(ends(twice, &equal(TEXT), &text(0, b"abc")), None);
    }

    /// What follows the names in a Bind of these values, all of one format.
    fn binding(format: u16, parameter_types: &[u32], values: &[&[u8]]) -> Binding {
        let mut bind = vec![0, 1];
        bind.extend(format.to_be_bytes());
        bind.extend((values.len() as u16).to_be_bytes());
        for value in values {
            bind.extend((value.len() as u32).to_be_bytes());
            bind.extend_from_slice(value);
        }
        bind.extend([0, 0]);
        Binding {
            parameter_types: parameter_types.to_vec(),
            parameter_count: values.len(),
            bind: bind.into(),
        }
    }

    fn texts(sql: &str, binding: &Binding) -> Vec<Option<(u32, String)>> {
        let times = times(sql, binding, &binding.parameter_types).into_iter();
        times
            .map(|time| time.map(|time| (time.oid, time.text)))
            .collect()
    }

    #[test]
    fn texts_are_taken_as_they_are() {
        let values: [&[u8]; 4] = [b"2024-01-05", b"7", b"2024-01-05 13:17", b"2024-02-01"];
        let bound = binding(0, &[DATE, 23], &values);
        let found = texts("a >= $1 AND b = $2 AND c < $3 AND c > $4 OR d = $4", &bound);
        let time = |oid, text: &str| Some((oid, text.to_owned()));
        let expected = [
            time(DATE, "2024-01-05"),
            None,
            time(0, "2024-01-05 13:17"),
            None,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn binary_values_are_read_by_their_type() {
        let (days, micros) = (
            8770_i32.to_be_bytes(),
            757_775_820_500_000_i64.to_be_bytes(),
        );
        let bound = binding(
            1,
            &[DATE, TIMESTAMP, TIMESTAMPTZ, 0],
            &[&days, &micros, &micros, &micros],
        );
        let found = texts("$1 $2 $3 $4", &bound);
        let time = |oid, text: &str| Some((oid, text.to_owned()));
        let expected = [
            time(DATE, "2024-01-05 00:00:00.000000"),
            time(TIMESTAMP, "2024-01-05 13:17:00.500000"),
            time(TIMESTAMPTZ, "2024-01-05 13:17:00.500000+00"),
            None,
        ];
        assert_eq!(found, expected);
        assert!(is_undeclared(&bound), "the fourth");
        assert!(!is_undeclared(&binding(1, &[DATE], &[&days])));
        assert!(!is_undeclared(&binding(0, &[], &[b"2024-01-05"])));
        let found = super::times("$1", &binding(1, &[], &[&days]), &[DATE]);
        let found = found
            .into_iter()
            .flatten()
            .map(|time| (time.oid, time.text));
        assert_eq!(
            found.collect::<Vec<_>>(),
            [(DATE, "2024-01-05 00:00:00.000000".to_owned())]
        );
        // Infinity, and values of another length.
        let never = i64::MAX.to_be_bytes();
        assert_eq!(
            texts("$1 $2", &binding(1, &[TIMESTAMP, DATE], &[&never, &micros])),
            []
        );
    }
}
