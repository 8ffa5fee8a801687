//! How often PostgreSQL is asked about statements before they are answered, and how often they are proved: once for each shape, whatever
//! the constants.
//! In a process of its own, because metrics are one per process.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use e2e_support::{ANY, Database, Lab, Served, until_in_step};
use pgstar::telemetry;

const SCHEMA: &str = "
    CREATE TABLE sale (id int PRIMARY KEY, code int NOT NULL, note text NOT NULL, amount int NOT NULL);
    INSERT INTO sale SELECT n, n % 12000, 'note ' || n % 7, n % 100 FROM generate_series(1, 36000) n;
    ANALYZE sale;";
const ROLLUPS: [(&str, &str); 2] = [
    (
        "by_note",
        "SELECT note, count(*), sum(amount) FROM sale GROUP BY note",
    ),
    (
        "by_code",
        "SELECT code, count(*), max(amount) FROM sale GROUP BY code",
    ),
];

/// How many questions of a kind there were so far.
fn asked(about: &str) -> u64 {
    counted(&format!("pgstar_questions_total{{about=\"{about}\"}} "))
}

/// How often what was proved of a statement held for another.
fn reused() -> u64 {
    counted("pgstar_proofs_total{proof=\"reused\"} ")
}

fn counted(metric: &str) -> u64 {
    let rendered = telemetry::render();
    let line = rendered.lines().find_map(|line| line.strip_prefix(metric));
    line.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_is_asked_once_for_each_shape() {
    let database = Database::with(SCHEMA).await;
    let lab = Lab::start(&database, ANY, &ROLLUPS).await;
    let mut pair = lab.pair().await;
    // Whenever a rollup has another table, everything is asked again.
    until_in_step(&mut pair.through).await;
    let mut asked_by = async |sql: &str| {
        let before = (asked("columns"), asked("cost"), asked("clocks"));
        assert_eq!(pair.served(sql).await, Served::Rollup, "{sql}");
        let after = (asked("columns"), asked("cost"), asked("clocks"));
        (after.0 - before.0, after.1 - before.1, after.2 - before.2)
    };

    // The original's columns and the rewritten statement's; of a small rollup no costs.
    let by_note = |note: usize| {
        format!("SELECT sum(amount), count(*) FROM sale WHERE note IN ('note {note}', 'x')")
    };
    assert_eq!(asked_by(&by_note(0)).await, (2, 0, 0));
    let before = reused();
    for note in 1..7 {
        assert_eq!(asked_by(&by_note(note)).await, (0, 0, 0));
    }
    // The first two were proved by themselves, and with the second what holds for all of them.
    assert_eq!(reused() - before, 5);

    // Another shape.
    let three = "SELECT sum(amount), count(*) FROM sale WHERE note IN ('note 1', 'x', 'y')";
    assert_eq!(asked_by(three).await, (2, 0, 0));

    // Of a large rollup the planner is asked as well, for each statement: what it costs depends on the constants.
    let by_code = |code: usize| format!("SELECT max(amount) FROM sale WHERE code < {code}");
    assert_eq!(asked_by(&by_code(5_000)).await, (2, 1, 0));
    assert_eq!(asked_by(&by_code(5_001)).await, (0, 1, 0));
}
