//! A COPY of millions of rows is folded in bounded memory. Alone in its binary, because it looks at what the
//! whole process takes.
//!
//! `PGSTAR_BULK_ROWS` makes it larger.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;
mod maintain_support;

use std::time::{Duration, Instant};

use common::Database;
use futures_util::SinkExt;
use maintain_support::{Maintained, connect, plans};
use pgstar_postgres::connect::Connection;
use pgstar_postgres::maintain::MaintainOptions;

const TABLES: &str = "
  CREATE TABLE kind (id int PRIMARY KEY, name text NOT NULL);
  INSERT INTO kind SELECT i, 'k' || i % 7 FROM generate_series(0, 99) i;
  CREATE TABLE event (id bigint PRIMARY KEY, kind_id int NOT NULL REFERENCES kind, n int NOT NULL, what text);
  ALTER TABLE kind REPLICA IDENTITY FULL; ALTER TABLE event REPLICA IDENTITY FULL;";

const ROLLUPS: &[(&str, &str)] = &[
    (
        "by_kind",
        "SELECT k.name, count(*), sum(e.n), max(e.n) FROM event e JOIN kind k ON k.id = e.kind_id GROUP BY 1",
    ),
    (
        "by_what",
        "SELECT what, count(*), sum(n) FROM event GROUP BY 1",
    ),
];

/// What the process may grow by: far less than what is copied.
const GROWTH_MAX_MIB: u64 = 200;

fn rows() -> u64 {
    let rows = std::env::var("PGSTAR_BULK_ROWS").ok();
    rows.and_then(|rows| rows.parse().ok()).unwrap_or(2_000_000)
}

/// Of this process, in MiB: what it has (`VmRSS`) or had at most (`VmHWM`).
fn resident(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(what));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    number.unwrap_or(0) / 1024
}

/// Every row is about 300 bytes long, half of it in a column that a rollup reads.
async fn copy(client: &Connection, from: u64, rows: u64) {
    let sink = client.copy_in("COPY event FROM STDIN").await.unwrap();
    let mut sink = std::pin::pin!(sink);
    let mut lines = String::new();
    for id in from..from + rows {
        lines += &format!("{id}\t{}\t{}\t{:0>150}\n", id % 100, id % 1000, id % 13);
        if lines.len() > 60_000 {
            let piece: bytes::Bytes = std::mem::take(&mut lines).into();
            sink.send(piece).await.unwrap();
        }
    }
    sink.send(lines.into()).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_millions_of_rows_is_folded_in_bounded_memory() {
    let database = Database::with(TABLES).await;
    let config = database.config().await;
    let rollups = Maintained::start(config.clone(), ROLLUPS, MaintainOptions::default()).await;
    let client = connect(&config).await;
    copy(&client, 0, 20_000).await;
    rollups.prove_all().await;
    let before = resident("VmRSS");
    let begun = Instant::now();
    copy(&client, 100_000, rows()).await;
    let copied = begun.elapsed();
    let table = rollups.table("by_what").await;
    while rollups
        .maintainer
        .prove(&[&table], Duration::from_secs(60))
        .await
        .is_err()
    {
        assert!(begun.elapsed() < Duration::from_secs(3600));
    }
    let all = begun.elapsed();
    rollups.prove_all().await;
    let grown = resident("VmHWM").saturating_sub(before);
    let figures = rollups.maintainer.figures();
    println!(
        "{} rows copied in {copied:.1?}, in {} rollups after {all:.1?}; {before} MiB before, {grown} MiB more at most; {figures:#?}",
        rows(),
        ROLLUPS.len()
    );
    assert_eq!(rollups.differences(&client).await, Vec::<String>::new());
    assert_eq!(plans(config, ROLLUPS).await, rollups.plans);
    let rebuilds = figures.rollups.values().map(|rollup| rollup.rebuilds.len());
    assert_eq!(rebuilds.sum::<usize>(), 0, "folded, not built again");
    assert!(grown < GROWTH_MAX_MIB, "{grown} MiB");
}
