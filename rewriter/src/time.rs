//! Time buckets: which unit nests in which, and whether a bound falls between two buckets.

use crate::expr::{ColumnTypes, Literal, Scalar};
use crate::types;

/// A unit of date_trunc, finest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unit {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
}

impl Unit {
    pub(crate) fn parse(unit: &str) -> Option<Unit> {
        Some(match unit {
            "second" => Unit::Second,
            "minute" => Unit::Minute,
            "hour" => Unit::Hour,
            "day" => Unit::Day,
            "week" => Unit::Week,
            "month" => Unit::Month,
            "quarter" => Unit::Quarter,
            "year" => Unit::Year,
            "decade" => Unit::Decade,
            _ => return None,
        })
    }

    /// Whether every bucket of `self` lies inside one bucket of `coarser`. Weeks cross the borders
    /// of months, quarters and years.
    pub(crate) fn nests_in(self, coarser: Unit) -> bool {
        self == coarser || (self < coarser && self != Unit::Week)
    }

    /// The finest unit that decides `EXTRACT(field FROM …)`.
    pub(crate) fn of_field(field: &str) -> Option<Unit> {
        Some(match field {
            // The field "second" carries the fraction, which no bucket keeps.
            "minute" => Unit::Minute,
            "hour" => Unit::Hour,
            "day" | "dow" | "doy" | "isodow" => Unit::Day,
            // The year and week of a week's first day are not those of all its days, but ISO weeks keep both.
            "week" | "isoyear" => Unit::Week,
            "month" => Unit::Month,
            "quarter" => Unit::Quarter,
            "year" => Unit::Year,
            "decade" => Unit::Decade,
            _ => return None,
        })
    }
}

/// `date_trunc('unit', operand)` over timestamp without time zone, taken apart.
pub(crate) fn as_bucket<'a>(
    scalar: &'a Scalar,
    columns: &dyn ColumnTypes,
) -> Option<(Unit, &'a Scalar)> {
    let Scalar::Call {
        name: "date_trunc",
        arguments,
    } = scalar
    else {
        return None;
    };
    let [Scalar::Literal(Literal::String(unit)), operand] = arguments.as_slice() else {
        return None;
    };
    let is_timestamp = types::type_of(operand, columns)?.oid.0 == types::TIMESTAMP;
    Some((Unit::parse(unit)?, operand)).filter(|_| is_timestamp)
}

/// A point of civil time, without zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Civil {
    year: i32,
    month: u32,
    day: u32,
    second_of_day: u32,
    microsecond: u32,
}

impl Civil {
    /// Reads ISO 8601 as PostgreSQL does whatever DateStyle is: `2024-01-31[{ |T}23:59[:59[.999999]]]`.
    pub(crate) fn parse(text: &str) -> Option<Civil> {
        let text = text.trim();
        let (date, time) = match text.find([' ', 'T']) {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        let (year, month, day) = parse_date(date)?;
        let (second_of_day, microsecond) = time.map_or(Some((0, 0)), parse_time)?;
        Some(Civil {
            year,
            month,
            day,
            second_of_day,
            microsecond,
        })
    }

    /// Whether a bucket of this unit begins here.
    pub(crate) fn begins(self, unit: Unit) -> bool {
        let at_midnight = self.second_of_day == 0 && self.microsecond == 0;
        match unit {
            Unit::Second => self.microsecond == 0,
            Unit::Minute => self.microsecond == 0 && self.second_of_day.is_multiple_of(60),
            Unit::Hour => self.microsecond == 0 && self.second_of_day.is_multiple_of(3600),
            Unit::Day => at_midnight,
            Unit::Week => at_midnight && self.is_monday(),
            Unit::Month => at_midnight && self.day == 1,
            Unit::Quarter => at_midnight && self.day == 1 && matches!(self.month, 1 | 4 | 7 | 10),
            Unit::Year => at_midnight && self.day == 1 && self.month == 1,
            Unit::Decade => at_midnight && self.day == 1 && self.month == 1 && self.year % 10 == 0,
        }
    }

    /// By Sakamoto's method, which counts Sunday as 0.
    fn is_monday(self) -> bool {
        const OFFSETS: [i32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = if self.month < 3 {
            self.year - 1
        } else {
            self.year
        };
        let offset = OFFSETS.get(self.month as usize - 1).copied().unwrap_or(0);
        (year + year / 4 - year / 100 + year / 400 + offset + self.day as i32) % 7 == 1
    }
}

fn digits(text: &str, width: usize) -> Option<u32> {
    let is_number = text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn parse_date(text: &str) -> Option<(i32, u32, u32)> {
    let mut parts = text.split('-');
    let (year, month, day) = (
        digits(parts.next()?, 4)?,
        digits(parts.next()?, 2)?,
        digits(parts.next()?, 2)?,
    );
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => return None,
    };
    let is_valid = parts.next().is_none() && year >= 1 && (1..=days).contains(&day);
    is_valid.then_some((year as i32, month, day))
}

fn parse_time(text: &str) -> Option<(u32, u32)> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.split(':');
    let (hour, minute) = (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?);
    let second = parts.next().map_or(Some(0), |second| digits(second, 2))?;
    let is_valid =
        parts.next().is_none() && hour < 24 && minute < 60 && second < 60 && fraction.len() <= 6;
    let microsecond = if fraction.is_empty() {
        0
    } else {
        digits(&format!("{fraction:0<6}"), 6)?
    };
    is_valid.then_some((hour * 3600 + minute * 60 + second, microsecond))
}

/// The instant that a constant has when it is compared with a timestamp column, if that is certain
/// without knowing session settings. `is_utc`: the session's TimeZone has no offset at any time.
pub(crate) fn constant(scalar: &Scalar, is_utc: bool) -> Option<Civil> {
    match scalar {
        Scalar::Literal(Literal::String(text)) => Civil::parse(text),
        Scalar::Cast { operand, to } => match (&**operand, to.oid) {
            (Scalar::Literal(Literal::String(text)), types::TIMESTAMP) => Civil::parse(text),
            (Scalar::Literal(Literal::String(text)), types::DATE) => {
                // A date takes the day only: what stands behind it is cut off.
                Civil::parse(text).map(|civil| Civil {
                    second_of_day: 0,
                    microsecond: 0,
                    ..civil
                })
            }
            _ => None,
        },
        Scalar::Call {
            name: "to_date",
            arguments,
        } => formatted(arguments, &["YYYY-MM-DD"]),
        Scalar::Call {
            name: "to_timestamp",
            arguments,
        } if is_utc => formatted(
            arguments,
            &[
                "YYYY-MM-DD HH24:MI:SS.US",
                "YYYY-MM-DD HH24:MI:SS",
                "YYYY-MM-DD",
            ],
        ),
        _ => None,
    }
}

/// `to_date` and `to_timestamp` over texts that are written exactly as their format says.
fn formatted(arguments: &[Scalar], formats: &[&str]) -> Option<Civil> {
    let [
        Scalar::Literal(Literal::String(text)),
        Scalar::Literal(Literal::String(format)),
    ] = arguments
    else {
        return None;
    };
    let is_known = formats.contains(&format.as_str());
    // Every element of these formats is as long as what it reads, HH24 aside.
    let is_complete = text.len() == format.replace("HH24", "HH").replace("US", "UUUUUU").len()
        && !text.contains('T');
    (is_known && is_complete)
        .then(|| Civil::parse(text))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_nest_in_nothing_that_begins_on_the_first() {
        assert!(Unit::Day.nests_in(Unit::Week));
        assert!(!Unit::Week.nests_in(Unit::Month));
        assert!(!Unit::Week.nests_in(Unit::Year));
        assert!(Unit::Month.nests_in(Unit::Quarter));
        assert!(!Unit::Month.nests_in(Unit::Week));
        assert!(!Unit::Year.nests_in(Unit::Month));
    }

    #[test]
    fn bounds_are_aligned_only_at_the_very_beginning_of_a_bucket() {
        let begins = |text: &str, unit| Civil::parse(text).is_some_and(|civil| civil.begins(unit));
        assert!(begins("2024-01-01", Unit::Year));
        assert!(begins("2024-01-01 00:00:00.000000", Unit::Month));
        assert!(!begins("2024-01-01 00:00:00.000001", Unit::Month));
        assert!(!begins("2024-01-31 23:59:59", Unit::Day));
        assert!(begins("2024-11-18", Unit::Week));
        assert!(!begins("2024-11-19", Unit::Week));
        assert!(begins("2000-02-28", Unit::Day));
        assert!(begins("2024-04-01T00:00", Unit::Quarter));
    }

    #[test]
    fn texts_that_postgresql_could_read_in_another_way_are_not_read() {
        for text in [
            "01/02/2024",
            "2024-1-1",
            "2024-02-30",
            "2024-01-01 24:00:00",
            "infinity",
            "2024-01-01 BC",
            "2024-01-01+02",
            "now",
            "2024-01-01 00:00:00+00",
            "",
        ] {
            assert_eq!(Civil::parse(text), None, "{text}");
        }
    }
}
