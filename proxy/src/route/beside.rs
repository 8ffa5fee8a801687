//! Whether it is worth reading rows of base tables beside a rollup: an answer of two states is thrown away, and
//! where a table changes all the time each of them would be.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use pgstar_rewriter::catalog::Oid;

/// After many failures in a row, most statements that are not tried before the next one is.
const PASSED_OVER_MAX: u32 = 64;

/// How reading beside rollups went of late, for each table that was read so.
#[derive(Debug, Default)]
pub(super) struct Beside {
    tables: Mutex<HashMap<Oid, Attempts>>,
}

#[derive(Debug, Default)]
struct Attempts {
    /// Answers in a row that were thrown away.
    failures: u32,
    /// Statements that are still to be passed over.
    passed_over: u32,
}

impl Beside {
    /// Whether to try. A statement that is not tried counts as one passed over.
    pub(super) fn is_worth_trying(&self, tables: &[Oid]) -> bool {
        let mut known = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let attempts = tables.iter().find(|table| {
            let attempts = known.get(table);
            attempts.is_some_and(|attempts| attempts.passed_over > 0)
        });
        let Some(attempts) = attempts.and_then(|table| known.get_mut(table)) else {
            return true;
        };
        attempts.passed_over -= 1;
        false
    }

    /// Whether the answer was of one state.
    pub(super) fn tried(&self, tables: &[Oid], is_of_one_state: bool) {
        let mut known = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        for table in tables {
            if is_of_one_state {
                known.remove(table);
                continue;
            }
            let attempts = known.entry(*table).or_default();
            attempts.failures += 1;
            // The first failure is an accident.
            let doubled = 1_u32
                .checked_shl(attempts.failures)
                .unwrap_or(PASSED_OVER_MAX);
            attempts.passed_over = match attempts.failures {
                1 => 0,
                _ => doubled.min(PASSED_OVER_MAX),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_changes_all_the_time_is_tried_ever_less_until_it_rests() {
        let (beside, tables) = (Beside::default(), [Oid(1), Oid(2)]);
        let passed_over = || {
            (0..100)
                .take_while(|_| !beside.is_worth_trying(&tables))
                .count()
        };
        let mut counts = vec![];
        for _ in 0..8 {
            beside.tried(&tables[..1], false);
            counts.push(passed_over());
        }
        assert_eq!(counts, [0, 4, 8, 16, 32, 64, 64, 64]);
        assert!(beside.is_worth_trying(&tables[1..]), "another table");
        beside.tried(&tables, true);
        beside.tried(&tables, false);
        assert!(beside.is_worth_trying(&tables), "it rested");
    }
}
