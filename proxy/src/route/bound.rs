//! The dates and times that are bound to a statement's parameters: whether a range begins where a rollup's buckets do
//! may be known only when it is bound.

use pgstar_rewriter::expr::BoundTime;

use super::Binding;
use crate::wire::read::{BoundValue, bound_values};

const DATE: u32 = 1082;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
/// The type `unknown`, which PostgreSQL takes as none.
const UNKNOWN: u32 = 705;

const DAY_MICROSECONDS: i64 = 24 * 60 * 60 * 1_000_000;

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
