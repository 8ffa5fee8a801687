//! Statements around and beside a query through pgstar: EXPLAIN, cursors and COPY run what a query by itself would run,
//! views are answered for those who may read them, and several blocks are answered together.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use e2e_support::{
    ANY, Client, Database, Lab, Served, batch, decision, error, ok, rows, sqlstate, table,
    until_in_step,
};

const SCHEMA: &str = "
    CREATE TABLE shop (id int PRIMARY KEY, city text NOT NULL);
    CREATE TABLE sale (id int PRIMARY KEY, shop_id int NOT NULL REFERENCES shop, amount int NOT NULL);
    INSERT INTO shop SELECT n, chr(64 + n) FROM generate_series(1, 5) n;
    INSERT INTO sale SELECT n, 1 + n % 5, n FROM generate_series(1, 500) n;
    CREATE VIEW sold AS SELECT s.city, a.amount FROM sale a JOIN shop s ON a.shop_id = s.id";

const BY_CITY: (&str, &str) = (
    "by_city",
    "SELECT s.city, count(*), sum(a.amount) FROM sale a JOIN shop s ON a.shop_id = s.id GROUP BY s.city",
);

const QUERY: &str =
    "SELECT city, sum(amount) FROM sale JOIN shop ON shop_id = shop.id GROUP BY city ORDER BY city";

async fn lab() -> (Database, Lab) {
    let database = Database::with(SCHEMA).await;
    let lab = Lab::start(&database, ANY, &[BY_CITY]).await;
    // Each statement is then decided once.
    until_in_step(&mut lab.session().await).await;
    (database, lab)
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_shows_the_plan_of_what_would_run() {
    let (_database, lab) = lab().await;
    let mut session = lab.session().await;
    for options in ["", "(COSTS off) ", "ANALYZE ", "(FORMAT JSON) "] {
        let plan = rows(&ok(&mut session, &format!("EXPLAIN {options}{QUERY}")).await).join("\n");
        assert!(plan.contains("by_city"), "{options}{plan}");
    }
    let other = "EXPLAIN SELECT id, count(*) FROM sale GROUP BY id";
    let plan = rows(&ok(&mut session, other).await).join("\n");
    assert!(!plan.contains("by_city"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_declared_for_what_would_run() {
    let (_database, lab) = lab().await;
    let mut pair = lab.pair().await;
    pair.same("BEGIN").await;
    let declare = format!("DECLARE c CURSOR WITHOUT HOLD FOR {QUERY}");
    pair.same(&declare).await;
    let sql = "SELECT statement LIKE '%by_city%' FROM pg_cursors WHERE name = 'c'";
    assert_eq!(rows(&ok(&mut pair.through, sql).await), ["t"]);
    for fetch in ["FETCH FORWARD 2 FROM c", "FETCH FORWARD 1000 FROM c"] {
        let (direct, through) = (
            ok(&mut pair.direct, fetch).await,
            ok(&mut pair.through, fetch).await,
        );
        assert_eq!(rows(&direct), rows(&through));
    }
    pair.same("CLOSE c").await;
    pair.same("COMMIT").await;
    // The statement's own errors stay what they are.
    let frames = pair.same(&declare).await;
    assert_eq!(sqlstate(&frames).as_deref(), Some("25P01"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_sends_what_would_run() {
    let (_database, lab) = lab().await;
    let mut pair = lab.pair().await;
    for options in [
        "",
        " WITH (FORMAT csv, HEADER, FORCE_QUOTE (city))",
        " (DELIMITER '|')",
    ] {
        let copy = format!("COPY ({QUERY}) TO STDOUT{options}");
        pair.same(&copy).await;
        assert_eq!(decision(&mut pair.through, &copy).await, "rollup", "{copy}");
    }
    pair.same("BEGIN").await;
    pair.same(&format!("COPY ({QUERY}) TO STDOUT")).await;
    pair.same("COMMIT").await;
    let frames = pair
        .same(&format!("COPY ({QUERY}) TO STDOUT (FORMAT nonsense)"))
        .await;
    assert!(error(&frames).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_and_copies_in_the_extended_protocol() {
    let (_database, lab) = lab().await;
    let mut pair = lab.pair().await;
    for describes in ["", "P", "S", "SP"] {
        let copy = format!("COPY ({QUERY}) TO STDOUT");
        let bytes = batch(&copy, &[], &[], 0, describes);
        let before = served_by_rollups(&mut pair.through, &copy).await;
        pair.same_bytes(&bytes, &copy).await;
        pair.same("BEGIN").await;
        pair.same_bytes(&bytes, &copy).await;
        assert_eq!(
            served_by_rollups(&mut pair.through, &copy).await,
            before + 2,
            "{describes}"
        );
        let declare = format!("DECLARE c CURSOR WITHOUT HOLD FOR {QUERY}");
        pair.same_bytes(&batch(&declare, &[], &[], 0, describes), &declare)
            .await;
        let sql = "SELECT statement LIKE '%by_city%' FROM pg_cursors WHERE name = 'c'";
        assert_eq!(
            rows(&ok(&mut pair.through, sql).await),
            ["t"],
            "{describes}"
        );
        let fetch = batch("FETCH FORWARD 3 FROM c", &[], &[], 0, "P");
        let (direct, through) = (
            pair.direct.exchange(&fetch).await,
            pair.through.exchange(&fetch).await,
        );
        assert_eq!(rows(&direct), rows(&through));
        pair.same("COMMIT").await;
    }
}

/// How often rollups served the statement.
async fn served_by_rollups(session: &mut Client, sql: &str) -> i64 {
    let all = table(&ok(session, "SHOW pgstar.queries").await);
    let row = all
        .iter()
        .find(|row| row[0].as_deref().is_some_and(|query| query.contains(sql)));
    row.map_or(0, |row| row[1].as_deref().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn several_blocks_are_answered_together() {
    let (_database, lab) = lab().await;
    let mut pair = lab.pair().await;
    for sql in [
        "WITH c AS (SELECT city, sum(amount) AS total FROM sold GROUP BY city) SELECT city, total, total * 100 / (SELECT sum(total) FROM c) AS share FROM c ORDER BY 1",
        "SELECT city, sum(amount) AS s FROM sold GROUP BY city UNION ALL SELECT 'all', sum(amount) FROM sold ORDER BY 2",
        "SELECT s.id, v.total FROM shop s LEFT JOIN (SELECT city, sum(amount) AS total FROM sold GROUP BY city) v USING (city) ORDER BY 1",
        "SELECT city, count(*), grouping(city) FROM sold GROUP BY ROLLUP (city) ORDER BY 1",
    ] {
        assert_eq!(decision(&mut pair.through, sql).await, "rollup", "{sql}");
        pair.same(sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn local_times_are_compared_with_instants_where_the_servers_clocks_allow_it() {
    let database = Database::with(
        "CREATE TABLE event (id serial PRIMARY KEY, at timestamp NOT NULL, n int NOT NULL);
         INSERT INTO event (at, n) SELECT at, 1 FROM generate_series(timestamp '2011-12-25', '2012-01-05', '1 hour') at;
         CREATE VIEW events_by_day AS SELECT date_trunc('day', at) AS day, sum(n) AS n FROM event GROUP BY 1",
    )
    .await;
    let by_day = (
        "by_day",
        "SELECT date_trunc('day', at) AS day, count(*), sum(n) FROM event GROUP BY 1",
    );
    let lab = Lab::start(&database, ANY, &[by_day]).await;
    let mut pair = lab.pair().await;
    // The thirtieth of December was left out in Apia: its local times are those of the day behind it.
    let sql = "SELECT sum(n) FROM event WHERE at >= TO_TIMESTAMP('2011-12-31', 'YYYY-MM-DD')";
    for (zone, expected) in [
        ("UTC", "rollup"),
        ("America/New_York", "rollup"),
        ("Pacific/Apia", "bucket-unaligned"),
    ] {
        pair.both(&format!("SET TimeZone = '{zone}'")).await;
        assert_eq!(decision(&mut pair.through, sql).await, expected, "{zone}");
        pair.same(sql).await;
    }
    // A view may aggregate for a statement that does not.
    let sql = "SELECT * FROM events_by_day ORDER BY day";
    assert_eq!(pair.served(sql).await, Served::Rollup);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_answered_only_for_who_may_read_it() {
    let (database, lab) = lab().await;
    let role = format!("{}_reader", database.name);
    database
        .run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT SELECT ON sale, shop TO {role}"
        ))
        .await;
    let sql = "SELECT city, sum(amount) FROM sold GROUP BY city";
    let mut session = lab.session_as(&role).await;
    let frames = session.query(sql).await;
    assert_eq!(sqlstate(&frames).as_deref(), Some("42501"));
    database
        .run(&format!("GRANT SELECT ON sold TO {role}"))
        .await;
    let frames = session.query(sql).await;
    assert_eq!(rows(&frames).len(), 5);
}
