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
    until_in_step(&mut pair.through).await;
    let mut asked_by = async |sql: String| {
        let before = (asked("columns"), asked("cost"), asked("clocks"));
        assert_eq!(pair.served(&sql).await, Served::Rollup, "{sql}");
        let after = (asked("columns"), asked("cost"), asked("clocks"));
        (after.0 - before.0, after.1 - before.1, after.2 - before.2)
    };
    // Another snapshot of the catalog has everything asked again, of new statements; so each attempt has columns of its own.
    for attempt in 0.. {
        let version = lab.proxy.warehouse().version();
        let reused_before = reused();
        let by_notes = |notes: &str| {
            format!(
                "SELECT sum(amount) AS sum_{attempt}, count(*) FROM sale WHERE note IN ({notes})"
            )
        };
        let by_code = |code: usize| {
            format!("SELECT max(amount) AS max_{attempt} FROM sale WHERE code < {code}")
        };
        let mut questions = vec![];
        for note in 0..7 {
            questions.push(asked_by(by_notes(&format!("'note {note}', 'x'"))).await);
        }
        let reused = reused() - reused_before;
        questions.push(asked_by(by_notes("'note 1', 'x', 'y'")).await);
        for code in [5_000, 5_001] {
            questions.push(asked_by(by_code(code)).await);
        }
        if lab.proxy.warehouse().version() != version {
            continue;
        }
        // The original's columns and the rewritten statement's, once for each shape; of a large rollup the planner is asked as
        // well, for each statement: what it costs depends on the constants.
        let first = vec![(2, 0, 0)];
        let same_shape = vec![(0, 0, 0); 6];
        let another_shape = vec![(2, 0, 0)];
        let large = vec![(2, 1, 0), (0, 1, 0)];
        assert_eq!(
            questions,
            [first, same_shape, another_shape, large].concat()
        );
        // The first two were proved by themselves, and with the second what holds for all of them.
        assert_eq!(reused, 5);
        return;
    }
}
