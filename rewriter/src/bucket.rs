//! Time buckets: functions that take each point of time to the beginning of the bucket that it is in, and
//! functions that give one value for all of a bucket.
//!
//! Buckets of timestamp without time zone depend on nothing else. Those of instants are kept in UTC, and
//! what the session's clocks show follows from them.

use crate::expr::{BinaryOp, ColumnTypes, Literal, Scalar};
use crate::time::{Civil, DAY, HOUR, MINUTE, SECOND};
use crate::types;
use crate::zone::Zone;

/// A division of the time line into buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    /// Buckets of `period` microseconds, one of which begins `phase` microseconds after 2000-01-01.
    Fixed { period: i64, phase: i64 },
    /// Buckets of whole months, one of which begins `phase` months after January of year 0, each moved
    /// earlier by `shift` microseconds.
    Calendar { months: i64, phase: i64, shift: i64 },
}

impl Grain {
    const DAY: Grain = fixed(DAY);
    /// The finest buckets that begin alike in all zones.
    pub(crate) const QUARTER_HOUR: Grain = fixed(15 * MINUTE);

    /// The buckets of `date_trunc`.
    pub(crate) fn of_unit(unit: &str) -> Option<Grain> {
        // The 3rd of January 2000 was a Monday.
        const WEEK: Grain = Grain::Fixed {
            period: 7 * DAY,
            phase: 2 * DAY,
        };
        Some(match unit {
            "millisecond" | "milliseconds" => fixed(SECOND / 1000),
            "second" => fixed(SECOND),
            "minute" => fixed(MINUTE),
            "hour" => fixed(HOUR),
            "day" => Grain::DAY,
            "week" => WEEK,
            "month" => months(1, 0),
            "quarter" => months(3, 0),
            "year" => months(12, 0),
            "decade" => months(120, 0),
            // The first century began with year 1.
            "century" => months(1200, 12),
            "millennium" => months(12_000, 12),
            _ => return None,
        })
    }

    /// The coarsest buckets that decide `EXTRACT(field FROM …)`.
    pub(crate) fn of_field(field: &str) -> Option<Grain> {
        Grain::of_unit(match field {
            // The field "second" carries the fraction, which no bucket keeps.
            "minute" | "hour" | "day" | "month" | "quarter" | "year" | "decade" => field,
            "century" | "millennium" => field,
            "dow" | "doy" | "isodow" => "day",
            // The year of a week's first day is not that of all its days, but ISO weeks keep both.
            "week" | "isoyear" => "week",
            _ => return None,
        })
    }

    /// Whether every bucket of `self` lies inside one bucket of `coarser`.
    pub(crate) fn nests_in(self, coarser: Grain) -> bool {
        match (self, coarser) {
            (
                Grain::Fixed { period, phase },
                Grain::Fixed {
                    period: outer,
                    phase: outer_phase,
                },
            ) => outer % period == 0 && (outer_phase - phase) % period == 0,
            // Months begin at midnight, of any day.
            (Grain::Fixed { period, phase }, Grain::Calendar { shift, .. }) => {
                DAY % period == 0 && (phase + shift) % period == 0
            }
            (
                Grain::Calendar {
                    months,
                    phase,
                    shift,
                },
                Grain::Calendar {
                    months: outer,
                    phase: outer_phase,
                    shift: outer_shift,
                },
            ) => outer % months == 0 && (outer_phase - phase) % months == 0 && shift == outer_shift,
            (Grain::Calendar { .. }, Grain::Fixed { .. }) => false,
        }
    }

    /// Whether a bucket begins at this very point.
    pub(crate) fn begins_at(self, point: Civil) -> bool {
        match self {
            Grain::Fixed { period, phase } => (point.0 - phase).rem_euclid(period) == 0,
            Grain::Calendar {
                months,
                phase,
                shift,
            } => Civil(point.0 + shift)
                .month_begun()
                .is_some_and(|month| (month - phase).rem_euclid(months) == 0),
        }
    }

    /// Whether buckets begin at midnight only, or at every midnight.
    pub(crate) fn keeps_midnights(self) -> bool {
        self.nests_in(Grain::DAY) || Grain::DAY.nests_in(self)
    }

    /// Whether every day lies in one bucket.
    pub(crate) fn holds_days(self) -> bool {
        Grain::DAY.nests_in(self)
    }

    /// How many buckets have begun up to a point, counted from some bucket.
    pub(crate) fn number(self, point: Civil) -> i64 {
        match self {
            Grain::Fixed { period, phase } => (point.0 - phase).div_euclid(period),
            Grain::Calendar {
                months,
                phase,
                shift,
            } => (Civil(point.0 + shift).month() - phase).div_euclid(months),
        }
    }

    /// Where the bucket of a point begins; `None` too far from now.
    pub(crate) fn beginning(self, point: Civil) -> Option<Civil> {
        let outside = point.0.checked_sub(self.length().checked_mul(2)?)?;
        Some(self.first_of(self.number(point), outside, point.0))
    }

    /// Where the bucket behind that of a point begins; `None` too far from now.
    pub(crate) fn end(self, point: Civil) -> Option<Civil> {
        let behind = point.0.checked_add(self.length().checked_mul(2)?)?;
        Some(self.first_of(self.number(point).checked_add(1)?, point.0, behind))
    }

    /// The first point from whose bucket on this number is reached: it is not at `before`, and is at `reached`.
    fn first_of(self, number: i64, mut before: i64, mut reached: i64) -> Civil {
        while reached - before > 1 {
            let between = before + (reached - before) / 2;
            match self.number(Civil(between)) < number {
                true => before = between,
                false => reached = between,
            }
        }
        Civil(reached)
    }

    /// About how long a bucket is, in microseconds.
    pub(crate) fn length(self) -> i64 {
        match self {
            Grain::Fixed { period, .. } => period,
            Grain::Calendar { months, .. } => months * 30 * DAY,
        }
    }

    /// How long a bucket is, as an interval that takes the beginning of each to that of the next; `None` if
    /// there is none. Of instants, days and months are not as long whenever they begin.
    pub(crate) fn interval(self, of_instants: bool) -> Option<Scalar> {
        let (count, unit) = match self {
            Grain::Calendar {
                months, shift: 0, ..
            } => (months, "months"),
            Grain::Calendar { .. } => return None,
            Grain::Fixed { period, .. } => {
                let units = [(DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")];
                let mut units = units.into_iter().skip(usize::from(of_instants));
                let whole = units.find(|(length, _)| period % length == 0);
                whole.map_or((period, "microseconds"), |(length, unit)| {
                    (period / length, unit)
                })
            }
        };
        let is_possible = !(of_instants && unit == "months");
        is_possible.then(|| Scalar::Literal(Literal::Interval(format!("{count} {unit}"))))
    }

    /// The same buckets of `x`, where these are buckets of `x + moved`.
    fn moved_back(self, moved: i64) -> Grain {
        match self {
            Grain::Fixed { period, phase } => Grain::Fixed {
                period,
                phase: (phase - moved).rem_euclid(period),
            },
            Grain::Calendar {
                months,
                phase,
                shift,
            } => Grain::Calendar {
                months,
                phase,
                shift: shift + moved,
            },
        }
    }

    /// What the buckets are, for people.
    pub(crate) fn name(self) -> String {
        const NAMED: [&str; 9] = [
            "second", "minute", "hour", "day", "week", "month", "quarter", "year", "decade",
        ];
        match NAMED.iter().find(|unit| Grain::of_unit(unit) == Some(self)) {
            Some(unit) => format!("whole {unit}s"),
            None => match self {
                Grain::Fixed { period, .. } if period % DAY == 0 => {
                    format!("buckets of {} days", period / DAY)
                }
                Grain::Fixed { period, .. } if period % MINUTE == 0 => {
                    format!("buckets of {} minutes", period / MINUTE)
                }
                Grain::Fixed { period, .. } => format!("buckets of {period} microseconds"),
                Grain::Calendar { months, .. } => format!("buckets of {months} months"),
            },
        }
    }
}

const fn fixed(period: i64) -> Grain {
    Grain::Fixed { period, phase: 0 }
}

const fn months(months: i64, phase: i64) -> Grain {
    Grain::Calendar {
        months,
        phase,
        shift: 0,
    }
}

/// An expression that gives the beginning of the bucket in which `operand` is.
#[derive(Debug, Clone)]
pub(crate) struct Bucket<'a> {
    pub(crate) grain: Grain,
    pub(crate) operand: &'a Scalar,
    /// The beginning is given as a date.
    pub(crate) is_date: bool,
    /// Infinite times become NULL on the way, because they have no minute.
    pub(crate) loses_infinity: bool,
}

/// The bucket whose beginning the expression gives, if it is such a function of a timestamp.
pub(crate) fn as_bucket<'a>(scalar: &'a Scalar, columns: &dyn ColumnTypes) -> Option<Bucket<'a>> {
    bucket_of(scalar).filter(|bucket| has_type(bucket.operand, types::TIMESTAMP, columns))
}

/// `timezone('UTC', operand)`: the instant.
pub(crate) fn as_utc<'a>(scalar: &'a Scalar, columns: &dyn ColumnTypes) -> Option<&'a Scalar> {
    let (zone, operand) = as_local_time(scalar, columns)?;
    (Zone::named(zone) == Zone::Utc).then_some(operand)
}

/// `timezone(zone, operand)` of an instant.
pub(crate) fn as_local_time<'a>(
    scalar: &'a Scalar,
    columns: &dyn ColumnTypes,
) -> Option<(&'a str, &'a Scalar)> {
    let Scalar::Call {
        name: "timezone",
        arguments,
    } = scalar
    else {
        return None;
    };
    let [Scalar::Literal(Literal::String(zone)), operand] = arguments.as_slice() else {
        return None;
    };
    has_type(operand, types::TIMESTAMPTZ, columns).then_some((zone.as_str(), operand))
}

/// A bucket of instants, its beginning given as an instant: `date_bin` with an origin that has an offset, or the
/// beginning of a bucket of UTC's clocks.
pub(crate) fn as_bucket_of_instants<'a>(
    scalar: &'a Scalar,
    columns: &dyn ColumnTypes,
) -> Option<Bucket<'a>> {
    let Scalar::Call { name, arguments } = scalar else {
        return None;
    };
    match (*name, arguments.as_slice()) {
        ("date_bin", [stride, operand, origin]) => {
            let origin = match origin {
                Scalar::Cast { operand, to: _ } => operand,
                other => other,
            };
            let Scalar::Literal(Literal::String(origin)) = origin else {
                return None;
            };
            let grain = bins(stride, Civil::parse_utc(origin)?)?;
            has_type(operand, types::TIMESTAMPTZ, columns).then_some(Bucket {
                grain,
                operand,
                is_date: false,
                loses_infinity: false,
            })
        }
        ("timezone", [Scalar::Literal(Literal::String(zone)), beginning])
            if Zone::named(zone) == Zone::Utc =>
        {
            let bucket = as_bucket(beginning, columns).filter(|bucket| !bucket.is_date)?;
            Some(Bucket {
                operand: as_utc(bucket.operand, columns)?,
                ..bucket
            })
        }
        _ => None,
    }
}

fn has_type(scalar: &Scalar, oid: u32, columns: &dyn ColumnTypes) -> bool {
    types::type_of(scalar, columns).is_some_and(|ty| ty.oid.0 == oid)
}

fn bucket_of(scalar: &Scalar) -> Option<Bucket<'_>> {
    let bucket = |(grain, operand)| Bucket {
        grain,
        operand,
        is_date: false,
        loses_infinity: false,
    };
    Some(match scalar {
        Scalar::Call {
            name: "date_trunc",
            arguments,
        } => match arguments.as_slice() {
            [Scalar::Literal(Literal::String(unit)), operand] => {
                bucket((Grain::of_unit(unit)?, operand))
            }
            _ => return None,
        },
        Scalar::Call {
            name: "date_bin",
            arguments,
        } => bucket(as_bin(arguments)?),
        Scalar::Cast { operand, to } if to.oid == types::DATE => Bucket {
            is_date: true,
            ..bucket((Grain::DAY, &**operand))
        },
        Scalar::Binary {
            op: BinaryOp::Plus,
            left,
            right,
        } => Bucket {
            loses_infinity: true,
            ..bucket(as_part_of_unit(left, right).or_else(|| as_part_of_unit(right, left))?)
        },
        // A week that begins with another day: truncated one day later, and put back.
        Scalar::Binary {
            op: BinaryOp::Minus,
            left,
            right,
        } => {
            let (grain, operand, moved) = as_moved_bucket(left)?;
            let is_put_back = interval(right)? == moved;
            bucket((grain, operand)).filter(is_put_back)?
        }
        _ => return None,
    })
}

impl<'a> Bucket<'a> {
    fn filter(self, holds: bool) -> Option<Bucket<'a>> {
        holds.then_some(self)
    }
}

/// `date_trunc(unit, operand + interval)`: its buckets as those of the operand, and the interval.
fn as_moved_bucket(scalar: &Scalar) -> Option<(Grain, &Scalar, i64)> {
    let Scalar::Call {
        name: "date_trunc",
        arguments,
    } = scalar
    else {
        return None;
    };
    let [
        Scalar::Literal(Literal::String(unit)),
        Scalar::Binary { op, left, right },
    ] = arguments.as_slice()
    else {
        return None;
    };
    let (operand, moved) = match op {
        BinaryOp::Plus => match (interval(left), interval(right)) {
            (None, Some(moved)) => (left, moved),
            (Some(moved), None) => (right, moved),
            _ => return None,
        },
        BinaryOp::Minus => (left, -interval(right)?),
        _ => return None,
    };
    Some((Grain::of_unit(unit)?.moved_back(moved), operand, moved))
}

/// `date_trunc('hour', x) + interval 'n minutes' * floor(extract(minute from x) / n)`, and the same of
/// seconds: what Superset writes for buckets that are not units.
fn as_part_of_unit<'a>(whole: &'a Scalar, part: &Scalar) -> Option<(Grain, &'a Scalar)> {
    let Scalar::Call {
        name: "date_trunc",
        arguments,
    } = whole
    else {
        return None;
    };
    let [Scalar::Literal(Literal::String(unit)), operand] = arguments.as_slice() else {
        return None;
    };
    let (field, length) = match unit.as_str() {
        "hour" => ("minute", MINUTE),
        "minute" => ("second", SECOND),
        _ => return None,
    };
    let Scalar::Binary {
        op: BinaryOp::Multiply,
        left,
        right,
    } = part
    else {
        return None;
    };
    let (period, steps) = match (interval(left), interval(right)) {
        (Some(period), None) => (period, right),
        (None, Some(period)) => (period, left),
        _ => return None,
    };
    let Scalar::Call {
        name: "floor",
        arguments: floored,
    } = &**steps
    else {
        return None;
    };
    let [
        Scalar::Binary {
            op: BinaryOp::Divide,
            left: dividend,
            right: divisor,
        },
    ] = floored.as_slice()
    else {
        return None;
    };
    let Scalar::Literal(Literal::Number(count)) = &**divisor else {
        return None;
    };
    let count: i64 = count.parse().ok()?;
    let is_of_operand = match &**dividend {
        Scalar::Extract {
            field: extracted,
            operand: of,
        } => extracted == field && **of == *operand,
        _ => false,
    };
    let fits = count > 0 && 60 % count == 0 && period == count * length;
    (is_of_operand && fits).then_some((fixed(period), operand))
}

/// `date_bin(interval, operand, origin)`.
fn as_bin(arguments: &[Scalar]) -> Option<(Grain, &Scalar)> {
    let [stride, operand, origin] = arguments else {
        return None;
    };
    Some((
        bins(stride, crate::time::constant(origin, false)?)?,
        operand,
    ))
}

fn bins(stride: &Scalar, Civil(origin): Civil) -> Option<Grain> {
    let period = match stride {
        Scalar::Literal(Literal::String(text)) => interval_of(text)?,
        stride => interval(stride)?,
    };
    (period > 0).then(|| Grain::Fixed {
        period,
        phase: origin.rem_euclid(period),
    })
}

/// The microseconds of an interval that is as long whenever it begins.
fn interval(scalar: &Scalar) -> Option<i64> {
    match scalar {
        Scalar::Literal(Literal::Interval(text)) => interval_of(text),
        _ => None,
    }
}

/// The same of an interval's text.
pub(crate) fn interval_of(text: &str) -> Option<i64> {
    let mut words = text.split_whitespace();
    let count: i64 = words.next()?.parse().ok()?;
    let unit = words.next()?.to_ascii_lowercase();
    let length = match unit.strip_suffix('s').unwrap_or(&unit) {
        "second" => SECOND,
        "minute" => MINUTE,
        "hour" => HOUR,
        "day" => DAY,
        "week" => 7 * DAY,
        _ => return None,
    };
    let is_whole = words.next().is_none() && (0..=10_000).contains(&count);
    is_whole.then_some(count * length)
}

/// A function of one point of time that gives the same for all of each bucket of these grains.
pub(crate) struct Coarse<'a> {
    pub(crate) operand: &'a Scalar,
    grains: Vec<Grain>,
}

impl Coarse<'_> {
    /// Whether buckets of this grain decide the function.
    pub(crate) fn is_decided_by(&self, grain: Grain) -> bool {
        self.grains.iter().all(|coarser| grain.nests_in(*coarser))
    }
}

/// The expression as a function of one point of time and, where it adds an interval first, of another.
pub(crate) fn as_coarse<'a>(
    scalar: &'a Scalar,
    columns: &dyn ColumnTypes,
) -> impl Iterator<Item = Coarse<'a>> {
    let moved = as_moved_bucket(scalar).map(|(grain, operand, _)| (operand, vec![grain]));
    let is_timestamp = |operand: &Scalar| has_type(operand, types::TIMESTAMP, columns);
    // Of an instant, what the session's clocks show. A day later they may show another hour, and bins of
    // instants are no bins of these.
    let is_instant = |operand: &Scalar| {
        let is_moved = matches!(
            scalar,
            Scalar::Binary {
                op: BinaryOp::Minus,
                ..
            }
        );
        let is_bin = matches!(
            scalar,
            Scalar::Call {
                name: "date_bin",
                ..
            }
        );
        has_type(operand, types::TIMESTAMPTZ, columns) && !is_moved && !is_bin
    };
    let moved = moved.filter(|(operand, _)| is_timestamp(operand));
    let direct =
        decided_by(scalar).filter(|(operand, _)| is_timestamp(operand) || is_instant(operand));
    let coarse = moved.into_iter().chain(direct);
    coarse.map(|(operand, grains)| Coarse { operand, grains })
}

fn decided_by(scalar: &Scalar) -> Option<(&Scalar, Vec<Grain>)> {
    if let Some(Bucket { grain, operand, .. }) = bucket_of(scalar) {
        return Some((operand, vec![grain]));
    }
    Some(match scalar {
        Scalar::Call {
            name: "date_part",
            arguments,
        } => match arguments.as_slice() {
            [Scalar::Literal(Literal::String(field)), operand] => {
                (operand, vec![Grain::of_field(field)?])
            }
            _ => return None,
        },
        Scalar::Call {
            name: "to_char",
            arguments,
        } => match arguments.as_slice() {
            [operand, Scalar::Literal(Literal::String(format))] => {
                (operand, grains_of_format(format)?)
            }
            _ => return None,
        },
        Scalar::Extract { field, operand } => (&**operand, vec![Grain::of_field(field)?]),
        _ => return None,
    })
}

/// What a format of `to_char` shows, if it is made of these elements and of plain separators.
fn grains_of_format(format: &str) -> Option<Vec<Grain>> {
    // Longer ones first, as PostgreSQL's own table has them.
    const ELEMENTS: [(&str, &str); 20] = [
        ("YYYY", "year"),
        ("YY", "year"),
        ("IYYY", "week"),
        ("IW", "week"),
        ("IDDD", "day"),
        ("ID", "day"),
        ("Q", "quarter"),
        ("MONTH", "month"),
        ("MON", "month"),
        ("MM", "month"),
        ("MI", "minute"),
        ("DDD", "day"),
        ("DD", "day"),
        ("DAY", "day"),
        ("DY", "day"),
        ("D", "day"),
        ("HH24", "hour"),
        ("HH12", "hour"),
        ("HH", "hour"),
        ("SS", "second"),
    ];
    let mut rest = format;
    let mut grains = vec![];
    while let Some(first) = rest.chars().next() {
        if matches!(first, '-' | '/' | ':' | '.' | ',' | ' ' | '_') {
            rest = &rest[1..];
            continue;
        }
        // Seconds of the day.
        if starts_with_any_case(rest, "SSSS") {
            return None;
        }
        let (element, unit) = ELEMENTS
            .iter()
            .find(|(element, _)| starts_with_element(rest, element))?;
        rest = rest.get(element.len()..)?;
        // Suffixes: DDth and DDSP.
        if starts_with_any_case(rest, "TH") || starts_with_any_case(rest, "SP") {
            return None;
        }
        grains.push(Grain::of_unit(unit)?);
    }
    (!grains.is_empty()).then_some(grains)
}

fn starts_with_any_case(text: &str, upper: &str) -> bool {
    text.get(..upper.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(upper))
}

/// Elements are in upper or lower case, names also in title case; others are several elements.
fn starts_with_element(text: &str, upper: &str) -> bool {
    let is_title = |start: &str| {
        let is_name = matches!(upper, "MONTH" | "MON" | "DAY" | "DY");
        is_name && start[..1] == upper[..1] && start[1..] == upper[1..].to_ascii_lowercase()
    };
    text.get(..upper.len()).is_some_and(|start| {
        start == upper || start == upper.to_ascii_lowercase() || is_title(start)
    })
}

/// The expression with every occurrence of `operand` replaced.
pub(crate) fn with_operand(scalar: &Scalar, operand: &Scalar, by: &Scalar) -> Scalar {
    if scalar == operand {
        return by.clone();
    }
    match scalar.try_map_children(&mut |child| {
        Ok::<_, std::convert::Infallible>(with_operand(child, operand, by))
    }) {
        Ok(replaced) => replaced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(unit: &str) -> Grain {
        Grain::of_unit(unit).unwrap_or(Grain::DAY)
    }

    #[test]
    fn weeks_nest_in_nothing_that_begins_on_the_first() {
        let nests = |fine, coarse| unit(fine).nests_in(unit(coarse));
        assert!(nests("day", "week"));
        assert!(!nests("week", "month"));
        assert!(!nests("week", "year"));
        assert!(nests("month", "quarter"));
        assert!(!nests("month", "week"));
        assert!(!nests("year", "month"));
        assert!(nests("hour", "millennium"));
        // The 21st century began with 2001.
        assert!(!nests("decade", "century"));
        assert!(nests("year", "century"));
        assert!(nests("century", "millennium"));
    }

    #[test]
    fn buckets_of_another_phase_do_not_nest() {
        let sunday_week = unit("week").moved_back(DAY);
        assert!(unit("day").nests_in(sunday_week));
        assert!(!unit("week").nests_in(sunday_week));
        assert!(!sunday_week.nests_in(unit("week")));
        let half_past = Grain::Fixed {
            period: HOUR,
            phase: HOUR / 2,
        };
        assert!(!half_past.nests_in(unit("day")));
        assert!(fixed(HOUR / 2).nests_in(half_past));
        assert!(!fixed(7 * MINUTE).nests_in(unit("hour")));
        assert!(!unit("day").nests_in(unit("month").moved_back(HOUR)));
    }

    #[test]
    fn bounds_are_aligned_only_at_the_very_beginning_of_a_bucket() {
        let begins =
            |text: &str, grain: Grain| Civil::parse(text).is_some_and(|at| grain.begins_at(at));
        assert!(begins("2024-01-01", unit("year")));
        assert!(begins("2024-01-01 00:00:00.000000", unit("month")));
        assert!(!begins("2024-01-01 00:00:00.000001", unit("month")));
        assert!(!begins("2024-01-31 23:59:59", unit("day")));
        assert!(begins("2024-11-18", unit("week")));
        assert!(!begins("2024-11-19", unit("week")));
        assert!(begins("2024-11-17", unit("week").moved_back(DAY)));
        assert!(begins("2000-02-28", unit("day")));
        assert!(begins("2024-04-01T00:00", unit("quarter")));
        assert!(!begins("2024-05-01", unit("quarter")));
        assert!(begins("2020-01-01", unit("decade")));
        assert!(begins("2001-01-01", unit("century")));
        assert!(!begins("2000-01-01", unit("century")));
    }

    #[test]
    fn formats_are_read_only_when_every_letter_is_known() {
        let grains = |format| grains_of_format(format).map(|grains| grains.len());
        assert_eq!(grains("YYYY-MM"), Some(2));
        assert_eq!(grains("Mon DD, YYYY HH24:MI:SS"), Some(6));
        assert_eq!(grains("IYYY_IW"), Some(2));
        for format in [
            "",
            "-",
            "SSSS",
            "YYYY-MM-DDTHH24",
            "MS",
            "YYYY\"y\"",
            "DDth",
            "TMMonth",
            "J",
            "WW",
            "Iw",
            "mI",
        ] {
            assert_eq!(grains(format), None, "{format}");
        }
    }
}
