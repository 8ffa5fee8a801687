//! Superset's way of asking: a new connection for each question, and a preamble around it. How many such sessions
//! each second several addresses stand, in turn.
//!
//! The statements are those that Apache Superset 6.1 with SQLAlchemy 1.4 and psycopg2 was seen to send. [`session`]
//! plays one of them. Nothing here knows what is behind an address.

mod scram;
mod session;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::driver::statistics::Summary;
use session::{Login, play};

/// What stands before the one question.
const PREAMBLE: [&str; 11] = [
    "BEGIN",
    "SELECT t.oid, typarray\nFROM pg_type t JOIN pg_namespace ns\n    ON typnamespace = ns.oid\nWHERE typname = 'hstore';\n",
    "ROLLBACK",
    "BEGIN",
    "select pg_catalog.version()",
    "select current_schema()",
    "show transaction isolation level",
    "show standard_conforming_strings",
    "ROLLBACK",
    "BEGIN",
    "set search_path = \"public\"",
];

/// Who logs in, and what is asked.
#[derive(Debug, Clone)]
pub struct Plan {
    pub user: String,
    pub password: String,
    pub database: String,
    pub question: String,
    /// Clients at once.
    pub clients: usize,
    /// How long each side's turn takes.
    pub turn: Duration,
    pub rounds: usize,
}

/// An address, and what to call it.
#[derive(Debug, Clone)]
pub struct Target {
    pub name: String,
    /// Such as `127.0.0.1:5432`.
    pub address: String,
}

/// What one side stood, all rounds together.
#[derive(Debug, Clone)]
pub struct Stood {
    pub name: String,
    pub summary: Summary,
    /// The median over rounds of its sessions by those of the first side in the same round.
    pub ratio: f64,
}

/// Lets the targets take turns; each round begins with another one.
///
/// # Errors
/// A session that failed.
pub fn compare(plan: &Plan, targets: &[Target]) -> anyhow::Result<Vec<Stood>> {
    let mut latencies = vec![vec![]; targets.len()];
    let mut counts = vec![vec![]; targets.len()];
    for round in 0..plan.rounds {
        for turn in 0..targets.len() {
            let at = (round + turn) % targets.len();
            let of_turn = run(plan, &targets[at])?;
            counts[at].push(of_turn.len() as f64);
            latencies[at].extend(of_turn);
        }
    }
    let seconds = plan.turn.as_secs_f64() * plan.rounds as f64;
    let first = counts[0].clone();
    let stood = targets.iter().zip(latencies).zip(counts);
    stood
        .map(|((target, latencies), counts)| {
            let ratios = counts.iter().zip(&first).map(|(own, other)| own / other);
            let summary = Summary::of(latencies, seconds);
            Ok(Stood {
                name: target.name.clone(),
                summary: summary.ok_or_else(|| anyhow::anyhow!("{}: no session", target.name))?,
                ratio: median(ratios.collect()),
            })
        })
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One turn: the sessions' times in microseconds.
fn run(plan: &Plan, target: &Target) -> anyhow::Result<Vec<u64>> {
    let is_over = AtomicBool::new(false);
    let client = || {
        let login = Login::new(&plan.user, &plan.password, &plan.database);
        let mut login = login;
        let mut latencies = vec![];
        while !is_over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let statements = PREAMBLE.iter().copied();
            let statements = statements.chain([plan.question.as_str(), "ROLLBACK"]);
            play(&target.address, &mut login, statements)
                .map_err(|error| anyhow::anyhow!("{}: {error}", target.name))?;
            latencies.push(begun.elapsed().as_micros() as u64);
        }
        Ok(latencies)
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.clients).map(|_| scope.spawn(client)).collect();
        thread::sleep(plan.turn);
        is_over.store(true, Ordering::Relaxed);
        let mut all = vec![];
        for client in clients {
            let latencies: anyhow::Result<Vec<u64>> = client
                .join()
                .map_err(|_| anyhow::anyhow!("a client stopped on a bug"))?;
            all.extend(latencies?);
        }
        Ok(all)
    })
}
