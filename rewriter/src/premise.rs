//! What a proof takes for granted of the server's clocks, as questions that PostgreSQL answers itself.
//!
//! Which local times a zone skips or repeats is written in the tz database, of which every server has its
//! own version. Nothing here knows any of it: a match says what it needs, and is used only where the
//! server that answers the statement says that it is so.

use crate::expr::{BinaryOp, ColumnRef, Scalar};
use crate::print::{expression, quote_string};
use crate::time::{Civil, MINUTE};
use crate::zone::QUARTER_HOURS_SINCE;

/// The year up to which changes of clocks are looked at; from then on zones follow the rules of that time.
const RULES_SINCE: &str = "2040-01-01";

/// A question to ask in a session of the statement's TimeZone, with pg_catalog alone in its search path: a
/// SELECT of one boolean, which has to be TRUE. The answer stays the same until the server has another version of the tz
/// database.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Premise(String);

impl Premise {
    /// The SELECT.
    pub fn sql(&self) -> &str {
        &self.0
    }

    /// Every time without zone is on the same side of `constant`, an instant, as it is of `turn`, a whole
    /// minute, when the session's clocks say which instant it is. `None` if that cannot be asked.
    ///
    /// Where clocks skip an hour, times of that hour are taken for later ones, so that their order is not
    /// that of the instants. Clocks change at whole minutes, so that between two minutes the order holds:
    /// asked are the first and the last time of every minute. Two days away no change of clocks reaches.
    pub(crate) fn clocks_keep_side(
        op: BinaryOp,
        constant: &Scalar,
        turn: Civil,
        is_day: bool,
    ) -> Option<Premise> {
        let is_askable = turn.0 % MINUTE == 0 && Some(turn) >= Civil::parse(QUARTER_HOURS_SINCE);
        if !is_askable || !constant.columns().is_empty() {
            return None;
        }
        let side = match op {
            BinaryOp::Greater | BinaryOp::GreaterOrEqual => ">=",
            BinaryOp::Less | BinaryOp::LessOrEqual => "<",
            _ => return None,
        };
        let constant = expression(constant, &|_: ColumnRef| String::new());
        let (turn, op) = (turn.minute_text(), op.as_str());
        let (step, times) = match is_day {
            true => ("1 day", "(CAST(beginning AS date))"),
            false => (
                "1 minute",
                "(beginning), (beginning - INTERVAL '1 microsecond')",
            ),
        };
        Some(Premise(format!(
            "WITH bound AS MATERIALIZED (SELECT {constant} AS value) \
             SELECT NOT EXISTS (SELECT FROM bound, \
             generate_series(TIMESTAMP '{turn}' - INTERVAL '2 days', TIMESTAMP '{turn}' + INTERVAL '2 days', INTERVAL '{step}') AS steps (beginning), \
             LATERAL (VALUES {times}) AS at (time) \
             WHERE (at.time {op} bound.value) <> (at.time {side} TIMESTAMP '{turn}'))"
        )))
    }

    /// The clocks of the zone, or of the session's, have differed from UTC's by whole quarters of an hour
    /// since [`QUARTER_HOURS_SINCE`], and changed only where a quarter begins.
    pub(crate) fn quarter_hours(zone: Option<&str>) -> Premise {
        let offset = |at: &str| {
            let local = match zone {
                Some(zone) => format!("(({at}) AT TIME ZONE {})", quote_string(zone)),
                None => format!("CAST({at} AS timestamp)"),
            };
            format!("({local} - (({at}) AT TIME ZONE 'UTC'))")
        };
        let is_whole = |at: &str| {
            format!(
                "CAST(EXTRACT(epoch FROM {}) AS integer) % 900 = 0",
                offset(at)
            )
        };
        let since = format!("TIMESTAMPTZ '{QUARTER_HOURS_SINCE} 00:00+00'");
        let next_day = "day + INTERVAL '24 hours'";
        let end = "quarter + INTERVAL '15 minutes' - INTERVAL '1 microsecond'";
        Premise(format!(
            "SELECT {} AND NOT EXISTS (SELECT FROM \
             generate_series({since}, TIMESTAMPTZ '{RULES_SINCE} 00:00+00', INTERVAL '24 hours') AS days (day), \
             LATERAL generate_series(day, {next_day} - INTERVAL '15 minutes', INTERVAL '15 minutes') AS quarters (quarter) \
             WHERE {} <> {} AND ({} <> {} OR NOT {}))",
            is_whole(&since),
            offset("day"),
            offset(next_day),
            offset("quarter"),
            offset(end),
            is_whole("quarter + INTERVAL '15 minutes'"),
        ))
    }
}
