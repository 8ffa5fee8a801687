//! Points of civil time: what constants mean that are compared with times.

use crate::bucket::interval_of;
use crate::expr::{BinaryOp, BoundTime, Literal, Parameter, Scalar};
use crate::types;

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

/// A point of civil time, without zone: microseconds since 2000-01-01, as PostgreSQL counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Civil(pub(crate) i64);

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
        let days = days_since_2000(i64::from(year), i64::from(month), i64::from(day));
        Some(Civil(
            days * DAY + i64::from(second_of_day) * SECOND + i64::from(microsecond),
        ))
    }

    /// Reads the same followed by an offset of zero: a point of time whatever TimeZone is.
    pub(crate) fn parse_utc(text: &str) -> Option<Civil> {
        let text = text.trim();
        let civil = text
            .strip_suffix("+00:00")
            .or_else(|| text.strip_suffix("+00"))
            .or_else(|| text.strip_suffix('Z'))?;
        // Behind a date alone it would be something else.
        civil.contains(':').then(|| Civil::parse(civil)).flatten()
    }

    /// The beginning of the day.
    pub(crate) fn midnight(self) -> Civil {
        Civil(self.0 - self.0.rem_euclid(DAY))
    }

    /// What `TIMESTAMP '…'` reads, of a whole minute.
    pub(crate) fn minute_text(self) -> String {
        let (year, month, day) = date_of(self.0.div_euclid(DAY));
        let minute = self.0.rem_euclid(DAY) / MINUTE;
        let (hour, minute) = (minute / 60, minute % 60);
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
    }

    /// The month in which this is the first instant, counted from January of year 0; `None` for others.
    pub(crate) fn month_begun(self) -> Option<i64> {
        if self.0.rem_euclid(DAY) != 0 {
            return None;
        }
        let (_, _, day) = date_of(self.0.div_euclid(DAY));
        (day == 1).then_some(self.month())
    }

    /// The month in which this is, counted from January of year 0.
    pub(crate) fn month(self) -> i64 {
        let (year, month, _) = date_of(self.0.div_euclid(DAY));
        year * 12 + month - 1
    }
}

impl BoundTime {
    /// A value in PostgreSQL's binary form: microseconds since 2000-01-01, in UTC for an instant. `None` for what ISO 8601
    /// does not write in four digits, and for infinity.
    pub fn of_microseconds(oid: u32, microseconds: i64) -> Option<BoundTime> {
        let (year, month, day) = date_of(microseconds.div_euclid(DAY));
        if !(1..=9999).contains(&year) {
            return None;
        }
        let of_day = microseconds.rem_euclid(DAY);
        let (hour, minute) = (of_day / HOUR, of_day / MINUTE % 60);
        let (second, fraction) = (of_day / SECOND % 60, of_day % SECOND);
        let offset = match oid {
            types::TIMESTAMPTZ => "+00",
            _ => "",
        };
        let text = format!(
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{fraction:06}{offset}"
        );
        Some(BoundTime { oid, text })
    }
}

impl Civil {
    /// The same day of a later or earlier month, or the last day of that month.
    fn plus_months(self, months: i64) -> Option<Civil> {
        let (year, month, day) = date_of(self.0.div_euclid(DAY));
        let total = year * 12 + month - 1 + months;
        let (year, month) = (total.div_euclid(12), total.rem_euclid(12) + 1);
        let day = day.min(days_of_month(year, month));
        let midnight = days_since_2000(year, month, day) * DAY;
        (1..10_000)
            .contains(&year)
            .then_some(Civil(midnight + self.0.rem_euclid(DAY)))
    }

    /// The time so much later, or earlier; an interval of one unit.
    fn plus_interval(self, text: &str, is_later: bool) -> Option<Civil> {
        let sign = if is_later { 1 } else { -1 };
        if let Some(length) = interval_of(text) {
            return Some(Civil(self.0 + sign * length));
        }
        let mut words = text.split_whitespace();
        let count: i64 = words.next()?.parse().ok()?;
        let unit = words.next()?.to_ascii_lowercase();
        let months = match unit.strip_suffix('s').unwrap_or(&unit) {
            "month" => count,
            "year" => 12 * count,
            _ => return None,
        };
        let is_whole = words.next().is_none() && (0..=10_000).contains(&count);
        is_whole.then(|| self.plus_months(sign * months)).flatten()
    }
}

fn days_of_month(year: i64, month: i64) -> i64 {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 31,
    }
}

const DAYS_FROM_MARCH_OF_0_TO_2000: i64 = 730_425;

/// Days of the proleptic Gregorian calendar, in years that begin in March: the leap day comes last.
fn days_since_2000(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - DAYS_FROM_MARCH_OF_0_TO_2000
}

/// The inverse of `days_since_2000`.
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_FROM_MARCH_OF_0_TO_2000;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
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
    let days = days_of_month(i64::from(year), i64::from(month));
    let is_valid = parts.next().is_none()
        && year >= 1
        && (1..=12).contains(&month)
        && (1..=days).contains(&i64::from(day));
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

/// How far apart the values of `timestamp(p)` lie, in microseconds, by its modifier.
pub(crate) fn resolution(typmod: i32) -> i64 {
    match u32::try_from(typmod) {
        Ok(precision @ 0..=5) => 10_i64.pow(6 - precision),
        _ => 1,
    }
}

/// The instant that a constant has when it is compared with a timestamp column, if that is certain
/// without knowing session settings. `is_local`: it is compared as
/// local time of the session's TimeZone, whatever that is.
pub(crate) fn constant(scalar: &Scalar, is_local: bool) -> Option<Civil> {
    match scalar {
        Scalar::Literal(Literal::String(text)) => Civil::parse(text),
        Scalar::Parameter(Parameter {
            number: _,
            time: Some(BoundTime { oid, text }),
        }) => match *oid {
            0 | types::TIMESTAMP => Civil::parse(text),
            types::TIMESTAMPTZ if is_local => Civil::parse(text),
            types::DATE => Civil::parse(text).map(Civil::midnight),
            _ => None,
        },
        Scalar::Cast { operand, to } => match (&**operand, to.oid) {
            (Scalar::Literal(Literal::String(text)), types::TIMESTAMP) => Civil::parse(text),
            (Scalar::Literal(Literal::String(text)), types::TIMESTAMPTZ) if is_local => {
                Civil::parse(text)
            }
            (Scalar::Literal(Literal::String(text)), types::DATE) => {
                // A date takes the day only: what stands behind it is cut off.
                Civil::parse(text).map(Civil::midnight)
            }
            (Scalar::Parameter(bound), types::TIMESTAMP | types::DATE) => {
                let time = bound.time.as_ref()?;
                let is_date = [time.oid, to.oid].contains(&types::DATE);
                let is_known = matches!(time.oid, 0 | types::TIMESTAMP | types::DATE);
                let point = Civil::parse(&time.text).filter(|_| is_known)?;
                Some(if is_date { point.midnight() } else { point })
            }
            _ => None,
        },
        // A date and an interval are a timestamp.
        Scalar::Binary {
            op: op @ (BinaryOp::Plus | BinaryOp::Minus),
            left,
            right,
        } => match (&**left, &**right) {
            (time, Scalar::Literal(Literal::Interval(text))) if has_own_type(time) => {
                constant(time, false)?.plus_interval(text, *op == BinaryOp::Plus)
            }
            (Scalar::Literal(Literal::Interval(text)), time)
                if *op == BinaryOp::Plus && has_own_type(time) =>
            {
                constant(time, false)?.plus_interval(text, true)
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
        } if is_local => formatted(
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

/// Whether the constant is a date or timestamp whatever stands beside it: of no type, it would be an interval beside one.
fn has_own_type(scalar: &Scalar) -> bool {
    match scalar {
        Scalar::Cast { .. } => true,
        Scalar::Parameter(parameter) => parameter.time.as_ref().is_some_and(|time| time.oid != 0),
        _ => false,
    }
}

/// The point of time in UTC that a text with an offset of zero is when it is compared with an instant.
pub(crate) fn constant_in_utc(scalar: &Scalar) -> Option<Civil> {
    match scalar {
        Scalar::Literal(Literal::String(text)) => Civil::parse_utc(text),
        Scalar::Parameter(Parameter {
            number: _,
            time: Some(BoundTime { oid, text }),
        }) if matches!(*oid, 0 | types::TIMESTAMPTZ) => Civil::parse_utc(text),
        _ => None,
    }
}

/// Whether the constant takes its type from what it is compared with.
pub(crate) fn is_untyped(scalar: &Scalar) -> bool {
    match scalar {
        Scalar::Literal(literal) => matches!(literal, Literal::String(_)),
        Scalar::Parameter(parameter) => parameter.time.as_ref().is_some_and(|time| time.oid == 0),
        _ => false,
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
    fn days_are_counted_as_postgresql_does() {
        let days = |text: &str| Civil::parse(text).map(|civil| civil.0 / DAY);
        assert_eq!(days("2000-01-01"), Some(0));
        assert_eq!(days("2024-02-29"), Some(8825));
        assert_eq!(days("1970-01-01"), Some(-10_957));
        assert_eq!(days("0001-01-01"), Some(-730_119));
        assert_eq!(
            Civil::parse("2000-01-01 00:00:01.5"),
            Some(Civil(1_500_000))
        );
        for day in [-730_119, -36_525, -1, 0, 59, 60, 8825, 100_000] {
            let (year, month, of_month) = date_of(day);
            assert_eq!(days_since_2000(year, month, of_month), day);
        }
        let month = |text: &str| Civil::parse(text).and_then(Civil::month_begun);
        assert_eq!(month("2024-03-01"), Some(2024 * 12 + 2));
        assert_eq!(month("2024-03-01 00:00:00.000001"), None);
        assert_eq!(month("2024-02-29"), None);
        for text in ["2024-02-29 23:59", "1979-10-02 00:00", "2000-01-01 12:30"] {
            let read = Civil::parse(text).map(Civil::minute_text);
            assert_eq!(read.as_deref(), Some(text));
        }
    }

    #[test]
    fn months_end_earlier_when_they_are_shorter() {
        let plus = |text: &str, interval: &str, is_later| {
            Civil::parse(text)
                .and_then(|civil| civil.plus_interval(interval, is_later))
                .map(Civil::minute_text)
        };
        let is = |text: &str| Some(format!("{text} 00:00"));
        assert_eq!(plus("2024-01-31", "1 month", true), is("2024-02-29"));
        assert_eq!(plus("2024-03-31", "1 MONTHS", false), is("2024-02-29"));
        assert_eq!(plus("2024-02-29", "1 year", true), is("2025-02-28"));
        assert_eq!(plus("1998-12-01", "90 days", false), is("1998-09-02"));
        assert_eq!(plus("2024-11-30", "3 month", true), is("2025-02-28"));
        assert_eq!(plus("2024-11-30", "1 month 1 day", true), None);
        assert_eq!(plus("2024-11-30", "-1 month", true), None);
        assert_eq!(plus("0001-01-01", "1 month", false), None);
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
