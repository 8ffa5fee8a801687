//! Measures both sides in turn, so that whatever else the machine does hits both.
//!
//! Must not know how a measurement is shown.

use std::{io, path::PathBuf};

use super::{
    Side,
    log::{LogError, Transaction, read_logs},
    pgbench::{Pgbench, PgbenchError},
    scripts,
};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// PostgreSQL's address.
    pub direct: String,
    /// pgstar's address.
    pub through: String,
    /// Connections at once.
    pub clients: u32,
    /// Seconds for each side, all rounds together.
    pub seconds: u32,
    /// How often the sides take turns.
    pub rounds: u32,
    /// Decides all parameters drawn.
    pub seed: u32,
    /// The program to run.
    pub pgbench: PathBuf,
}

/// What one side did in all its rounds.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// Every transaction.
    pub transactions: Vec<Transaction>,
    /// Time measured: for each round from the first transaction's start to the last one's end.
    pub seconds: f64,
}

/// Both sides of a load test.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// PostgreSQL itself.
    pub direct: Measured,
    /// pgstar.
    pub through: Measured,
}

/// Why there is nothing to compare.
#[derive(Debug, thiserror::Error)]
pub enum RoundsError {
    /// No directory for scripts and logs.
    #[error("could not write pgbench's scripts")]
    Scripts(#[from] io::Error),
    /// pgbench did not measure.
    #[error("{side}")]
    Pgbench {
        /// What was being measured.
        side: &'static str,
        /// Why it was not.
        source: PgbenchError,
    },
    /// pgbench's log made no sense.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Runs all rounds; `announce` hears of each before it begins.
pub fn compare(plan: &Plan, announce: &dyn Fn(u32, Side)) -> Result<Comparison, RoundsError> {
    let directory = tempfile::tempdir()?;
    let pgbench = Pgbench {
        program: plan.pgbench.clone(),
        clients: plan.clients,
        scripts: scripts::write_all(directory.path())?,
    };
    pgbench.check().map_err(refused("could not begin"))?;
    let mut comparison = Comparison::default();
    for round in 0..plan.rounds {
        for side in order(round) {
            announce(round, side);
            let prefix = format!("{side:?}-{round}.");
            let log_prefix = directory.path().join(prefix.trim_end_matches('.'));
            let (url, step) = plan.address(side);
            let seed = plan.seed.wrapping_add(round);
            let run = pgbench.run(url, plan.seconds_of(round), seed, &log_prefix);
            run.map_err(refused(step))?;
            comparison
                .of(side)
                .add(read_logs(directory.path(), &prefix)?);
        }
    }
    Ok(comparison)
}

/// The sides swap places each round, so that neither always follows the other.
fn order(round: u32) -> [Side; 2] {
    if round.is_multiple_of(2) {
        [Side::Direct, Side::Through]
    } else {
        [Side::Through, Side::Direct]
    }
}

fn refused(side: &'static str) -> impl FnOnce(PgbenchError) -> RoundsError {
    move |source| RoundsError::Pgbench { side, source }
}

impl Plan {
    fn address(&self, side: Side) -> (&str, &'static str) {
        match side {
            Side::Direct => (&self.direct, "could not measure PostgreSQL directly"),
            Side::Through => (&self.through, "could not measure through pgstar"),
        }
    }

    /// Seconds are dealt out evenly, at least one to a round.
    fn seconds_of(&self, round: u32) -> u32 {
        let extra = u32::from(round < self.seconds % self.rounds);
        (self.seconds / self.rounds + extra).max(1)
    }
}

impl Comparison {
    fn of(&mut self, side: Side) -> &mut Measured {
        match side {
            Side::Direct => &mut self.direct,
            Side::Through => &mut self.through,
        }
    }
}

impl Measured {
    fn add(&mut self, round: Vec<Transaction>) {
        let started = |one: &Transaction| one.finished_us.saturating_sub(one.latency_us);
        let first = round.iter().map(started).min().unwrap_or(0);
        let last = round.iter().map(|one| one.finished_us).max().unwrap_or(0);
        self.seconds += (last - first) as f64 / 1e6;
        self.transactions.extend(round);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(seconds: u32, rounds: u32) -> Plan {
        Plan {
            direct: "postgresql://direct".into(),
            through: "postgresql://through".into(),
            clients: 1,
            seconds,
            rounds,
            seed: 1,
            pgbench: "pgbench".into(),
        }
    }

    #[test]
    fn seconds_are_dealt_out_over_rounds() {
        let dealt = |plan: Plan| {
            (0..plan.rounds)
                .map(|round| plan.seconds_of(round))
                .collect::<Vec<_>>()
        };
        assert_eq!(dealt(plan(30, 3)), [10, 10, 10]);
        assert_eq!(dealt(plan(11, 3)), [4, 4, 3]);
        assert_eq!(dealt(plan(1, 3)), [1, 1, 1]);
    }

    #[test]
    fn sides_swap_places_each_round() {
        assert_eq!(order(0), [Side::Direct, Side::Through]);
        assert_eq!(order(1), [Side::Through, Side::Direct]);
    }

    #[test]
    fn time_is_from_first_start_to_last_end_of_each_round() {
        let at = |finished_us, latency_us| Transaction {
            script: 0,
            latency_us,
            finished_us,
        };
        let mut measured = Measured::default();
        measured.add(vec![at(3_000_000, 500_000), at(2_500_000, 1_500_000)]);
        measured.add(vec![at(9_000_000, 250_000)]);
        assert_eq!(measured.transactions.len(), 3);
        assert_eq!(measured.seconds, 2.25);
    }
}
