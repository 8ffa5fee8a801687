//! Whoever alters a table has it within seconds, whatever pgstar is doing with it. (Of builds: `rollups.rs`.)

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;
mod maintain_support;

use std::time::{Duration, Instant};

use common::Database;
use maintain_support::{DEADLINE, Maintained, connect};
use pgstar_postgres::connect::Connection;
use pgstar_postgres::maintain::{Audit, MaintainOptions};

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, g int, note text); ALTER TABLE t REPLICA IDENTITY FULL;
                     INSERT INTO t VALUES (1, 1, 'x')";

/// What takes longer than anybody waits for in `truncate`.
const LONG: Duration = Duration::from_secs(300);

/// Waits until a statement that contains this text has been running for a moment, or until none is.
async fn until_running(client: &Connection, text: &str, is_to_run: bool) {
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%' || $1 || '%'
                      AND datname = current_database() AND pid <> pg_backend_pid() AND query_start < now() - interval '100 ms'
                      AND wait_event_type IS DISTINCT FROM 'Lock'";
    let is_running = async || -> bool {
        let row = client.query_one(running, &[&text]).await.unwrap();
        row.get::<_, i64>(0) > 0
    };
    let begun = Instant::now();
    while is_running().await != is_to_run {
        assert!(begun.elapsed() < DEADLINE, "{text}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Truncates the table as soon as such a statement runs.
async fn truncate(client: &Connection, text: &str) {
    until_running(client, text, true).await;
    let truncate = "SET lock_timeout = '60s'; TRUNCATE t";
    client.batch_execute(truncate).await.unwrap();
}

/// Each of the rows that `SLOW` puts in takes the server long to look at.
const SLOW_ROLLUP: &str = "SELECT g, count(*), count(*) FILTER (WHERE note ~ '^(.*)(.*)(.*)(.*)\\1\\2\\3\\4z$') AS n FROM t GROUP BY 1";
const SLOW: &str = "INSERT INTO t SELECT i, 1, md5(i::text) || md5('a' || i) || md5('b' || i) || md5('c' || i) || 'z'
                      FROM generate_series(2, 1000) i";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_gives_way_to_who_alters_its_tables() {
    let database = Database::with(TABLE).await;
    let config = database.config().await;
    let rollup = ("r", SLOW_ROLLUP);
    let rollups = Maintained::start(config.clone(), &[rollup], MaintainOptions::default()).await;
    rollups.prove_all().await;
    let client = connect(&config).await;
    client.batch_execute(SLOW).await.unwrap();
    truncate(&client, "pgstar_delta_0").await;
    rollups.check(&client).await;
}

/// Nobody waits for it, but everybody would wait for what comes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_ends_that_is_in_vain_because_a_table_was_altered() {
    let database = Database::with(TABLE).await;
    database
        .run("CREATE TYPE e AS ENUM ('a'); ALTER TABLE t ADD COLUMN e e")
        .await;
    let config = database.config().await;
    let rollup = ("r", SLOW_ROLLUP);
    let rollups = Maintained::start(config.clone(), &[rollup], MaintainOptions::default()).await;
    rollups.prove_all().await;
    let client = connect(&config).await;
    client.batch_execute(SLOW).await.unwrap();
    until_running(&client, "pgstar_delta_0", true).await;
    let altered = "ALTER TYPE e RENAME VALUE 'a' TO 'b'";
    client.batch_execute(altered).await.unwrap();
    until_running(&client, "pgstar_delta_0", false).await;
    client.batch_execute("TRUNCATE t").await.unwrap();
    rollups.check(&client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_gives_way_to_who_alters_its_tables() {
    let database = Database::with(TABLE).await;
    let config = database.config().await;
    let rollup = ("r", "SELECT g, count(*) FROM t GROUP BY 1");
    let mut rollups =
        Maintained::start(config.clone(), &[rollup], MaintainOptions::default()).await;
    rollups.prove_all().await;
    let plan = &mut rollups.plans[0];
    let quick = plan.build.select.clone();
    plan.build.select = quick.replace(" FROM ", &format!(" FROM pg_sleep({}), ", LONG.as_secs()));
    assert_ne!(plan.build.select, quick);
    let plans = rollups.plans.clone();
    rollups.maintainer.follow(plans, vec![]).await.unwrap();
    rollups.maintainer.established(DEADLINE).await.unwrap();
    rollups.prove_all().await;
    let client = connect(&config).await;
    let auditing = rollups.maintainer.audit("r", 0, LONG);
    let (audit, ()) = tokio::join!(auditing, truncate(&client, "pg_sleep"));
    assert!(matches!(audit, Ok(Audit::Inconclusive(_))), "{audit:?}");
}
