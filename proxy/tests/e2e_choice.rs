//! Which of several rollups answers, or the base tables: what costs least, and EXPLAIN says why.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use e2e_support::{ANY, Database, Lab, Served, batch, decision, explain, ok, rollup_toml, table};

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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_bound_decides_what_is_cheapest() {
    let database = Database::with(SCHEMA).await;
    let lab = lab(&database).await;
    let mut pair = lab.pair().await;
    let sql = "SELECT count(*), sum(amount) FROM sale WHERE upper(note) BETWEEN $1 AND $2";
    for (first, last, expected) in [
        ("NOTE 5", "NOTE 5", Served::Passthrough),
        // The whole table.
        ("A", "Z", Served::Rollup),
        ("NOTE 6", "NOTE 6", Served::Passthrough),
        ("B", "Y", Served::Rollup),
    ] {
        let bytes = batch(sql, &[], &[Some(first), Some(last)], 0, "P");
        assert_eq!(pair.served_batch(sql, &bytes).await, expected, "{first}");
    }
}

const FLOATS: &str = "
  CREATE TABLE reading (id int PRIMARY KEY, site text NOT NULL, weight float8);
  INSERT INTO reading SELECT i, 'site ' || i % 3, i / 4.0 FROM generate_series(1, 300) AS i;";

/// Quarters are added without rounding, so that here the digits are the same in any order.
#[tokio::test(flavor = "multi_thread")]
async fn floats_are_answered_where_the_file_allows_it() {
    let database = Database::with(FLOATS).await;
    let rollup = rollup_toml(
        "weights",
        "SELECT site, count(*), sum(weight), avg(weight), stddev(weight) FROM reading GROUP BY site",
    );
    let config = database.config(&format!("{ANY}{rollup}float = \"approximate\"\n"), &[]);
    let lab = Lab::with_config(&database, &config).await;
    let mut pair = lab.pair().await;
    let sql = "SELECT sum(weight), avg(weight) FROM reading WHERE site <> 'site 1'";
    assert_eq!(pair.served(sql).await, Served::Rollup);
    let explained = ok(&mut pair.through, &format!("EXPLAIN (PGSTAR) {sql}")).await;
    let lines: Vec<String> = table(&explained)
        .into_iter()
        .filter_map(|row| row[0].clone())
        .collect();
    let says = |aggregate: &str| {
        let step = format!("approximate in its last digits: {aggregate}");
        lines.iter().any(|line| line.contains(&step))
    };
    assert!(says("sum(reading.weight)"), "{lines:#?}");
    assert!(says("avg(reading.weight)"), "{lines:#?}");
    assert_eq!(
        decision(&mut pair.through, "SELECT count(*) FROM reading").await,
        "rollup"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_of_floats_is_left_out_unless_the_file_allows_it() {
    let database = Database::with(FLOATS).await;
    let rollup = (
        "weights",
        "SELECT site, sum(weight) FROM reading GROUP BY site",
    );
    let config = database.config(ANY, &[rollup]);
    let lab = Lab::with_config(&database, &config).await;
    let mut session = lab.session().await;
    let shown = ok(&mut session, "SHOW pgstar.rollups").await;
    let shown = format!("{:?}", table(&shown));
    assert!(shown.contains("float-aggregate"), "{shown}");
}
