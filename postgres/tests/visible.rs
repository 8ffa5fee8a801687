//! What is visible has another text after anything was committed, in whatever way, and the same as long as nothing was.
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;

use common::Database;
use pgstar_postgres::connect::Connection;
use pgstar_postgres::visible::VISIBLE;

/// What begins elsewhere, and what ends it.
const COMMITS: [(&str, &str); 6] = [
    ("BEGIN; INSERT INTO t VALUES (1)", "COMMIT"),
    (
        "BEGIN; SAVEPOINT s; INSERT INTO t VALUES (2)",
        "RELEASE s; COMMIT",
    ),
    ("BEGIN; CREATE TABLE other ()", "COMMIT"),
    ("BEGIN; GRANT SELECT ON t TO PUBLIC", "COMMIT"),
    ("SELECT 1", "ALTER TABLE t ADD b int"),
    ("SELECT 1", "TRUNCATE t"),
];

async fn visible(client: &Connection) -> String {
    let row = client.query_one(&format!("SELECT {VISIBLE}"), &[]).await;
    row.unwrap().get(0)
}

#[tokio::test]
async fn every_commit_changes_what_is_visible_and_nothing_else_does() {
    let database = Database::with("CREATE TABLE t (a int)").await;
    let (looks, writes, runs) = (
        database.connect().await,
        database.connect().await,
        database.connect().await,
    );
    for client in [&looks, &writes, &runs] {
        let sql = "SET search_path = public";
        client.batch_execute(sql).await.unwrap();
    }
    for is_another_running in [false, true] {
        // The second time beside a transaction that began earlier and goes on.
        if is_another_running {
            let sql = "BEGIN; INSERT INTO t VALUES (0)";
            runs.batch_execute(sql).await.unwrap();
        }
        for (begins, ends) in COMMITS {
            // It would wait for the other one.
            if is_another_running && begins == "SELECT 1" {
                continue;
            }
            writes.batch_execute(begins).await.unwrap();
            let before = visible(&looks).await;
            let rows = "SELECT count(*) FROM t, pg_class";
            looks.query(rows, &[]).await.unwrap();
            assert_eq!(visible(&looks).await, before, "{begins}");
            writes.batch_execute(ends).await.unwrap();
            assert_ne!(visible(&looks).await, before, "{begins}; {ends}");
        }
        writes
            .batch_execute("DROP TABLE IF EXISTS other")
            .await
            .unwrap();
    }
    let before = visible(&looks).await;
    runs.batch_execute("COMMIT").await.unwrap();
    assert_ne!(visible(&looks).await, before, "what ran all the time");
}
