//! How long ago each rollup was built, whatever somebody sets the clock to.
//!
//! When a table was built is on record as a time of day, and such times come again or are left out. So this process
//! reads the clock once for each table, when it first sees it, and counts from there by a clock that nobody sets.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The tables that were seen.
#[derive(Debug, Default)]
pub(crate) struct Ages(Mutex<HashMap<String, Sight>>);

#[derive(Debug, Clone, Copy)]
struct Sight {
    at: Instant,
    /// How old it was then; not known if the clock says that it is still to come.
    age: Option<Duration>,
}

impl Ages {
    /// These tables are there, built at these times; others are gone.
    pub(crate) fn see<'a>(
        &self,
        tables: impl Iterator<Item = (&'a str, SystemTime)>,
        now: (Instant, SystemTime),
    ) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, time) = now;
        let sight = |(table, built_at): (&str, SystemTime)| {
            let age = time.duration_since(built_at).ok();
            let first = known.get(table).copied();
            (table.to_owned(), first.unwrap_or(Sight { at, age }))
        };
        let seen = tables.map(sight).collect();
        *known = seen;
    }

    /// How long ago the table was built at most; `None` if that is not known.
    pub(crate) fn of(&self, table: &str, now: Instant) -> Option<Duration> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Sight { at, age } = *known.get(table)?;
        Some(age? + now.saturating_duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_clock_that_is_set_makes_no_table_younger() {
        let (ages, start, time) = (Ages::default(), Instant::now(), SystemTime::now());
        let built_at = time - HOUR;
        let see = |passed: Duration, clock: SystemTime| {
            ages.see([("a", built_at)].into_iter(), (start + passed, clock));
            ages.of("a", start + passed)
        };
        assert_eq!(see(Duration::ZERO, time), Some(HOUR));
        assert_eq!(see(HOUR, time - HOUR), Some(2 * HOUR), "set back");
        assert_eq!(
            see(2 * HOUR, time + 100 * HOUR),
            Some(3 * HOUR),
            "set forward"
        );
        ages.see([("b", time)].into_iter(), (start, time - HOUR));
        assert_eq!(ages.of("b", start), None, "still to come");
        assert_eq!(ages.of("a", start), None, "gone");
    }
}
