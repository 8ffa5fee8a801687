//! Which of several rollups answers, or the base tables: what costs least, and EXPLAIN says why.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use e2e_support::{ANY, Database, Lab, explain};

/// 150,000 rows; three kinds of questions about the code are found by an index of the table, of a rollup, or by none.
const SCHEMA: &str = "
    CREATE TABLE sale (id int PRIMARY KEY, code int NOT NULL, weekday int NOT NULL, note text NOT NULL, amount int NOT NULL);
    INSERT INTO sale SELECT n, n % 60000, n % 7, 'note ' || n % 60000, n % 100 FROM generate_series(1, 150000) n;
    CREATE INDEX ON sale (upper(note));
    ANALYZE sale;";
const ROLLUPS: [(&str, &str); 2] = [
    (
        "by_code",
        "SELECT code, note, count(*), sum(amount) FROM sale GROUP BY 1, 2",
    ),
    (
        "by_slot",
        "SELECT code % 10000 AS slot, code, weekday, count(*), sum(amount) FROM sale GROUP BY 1, 2, 3",
    ),
];

async fn lab(database: &Database) -> Lab {
    Lab::start(database, ANY, &ROLLUPS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cheapest_of_rollups_and_base_tables_answers() {
    let database = Database::with(SCHEMA).await;
    let lab = lab(&database).await;
    let mut pair = lab.pair().await;

    // An index of the table finds two rows; the rollup would be read whole.
    for note in ["NOTE 5", "NOTE 77"] {
        let sql = format!("SELECT count(*), sum(amount) FROM sale WHERE upper(note) = '{note}'");
        let explained = explain(&mut pair.through, &sql).await;
        assert_eq!(explained["decision"], "passthrough", "{explained:#}");
        assert_eq!(
            explained["reasons"][0]["code"], "base-cheaper",
            "{explained:#}"
        );
        assert_eq!(
            explained["reasons"][0]["rollup"], "by_code",
            "{explained:#}"
        );
        pair.same(&sql).await;
    }

    // An index of the larger rollup finds fifteen rows; the smaller one would be read whole.
    for slot in [5, 6, 7000] {
        let sql = format!("SELECT count(*), sum(amount) FROM sale WHERE code % 10000 = {slot}");
        let explained = explain(&mut pair.through, &sql).await;
        assert_eq!(explained["rollup"], "by_slot", "{explained:#}");
        let choice = explained["choice"].as_str().unwrap();
        assert!(
            choice.starts_with("the planner expects a cost of ")
                && choice.ends_with(" over by_code"),
            "{choice}"
        );
        pair.same(&sql).await;
    }

    // Either would be read whole, or found by an index: then the smaller one.
    for condition in ["true", "code = 17", "code < 1000"] {
        let sql = format!("SELECT count(*), sum(amount) FROM sale WHERE {condition}");
        for _ in 0..2 {
            let explained = explain(&mut pair.through, &sql).await;
            assert_eq!(explained["rollup"], "by_code", "{condition} {explained:#}");
            let choice = "rollups that answer, tried in this order: by_code (60000 rows), by_slot (150000 rows)";
            assert_eq!(explained["choice"], choice);
        }
        pair.same(&sql).await;
    }
}
