//! Rollups follow every commit: whatever changes, each equals its defining SELECT.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;
mod maintain_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use common::Database;
use maintain_support::{Maintained, ROLLUPS, Random, STAR, connect, duration, run};
use pgstar_postgres::connect::Connection;
use pgstar_postgres::maintain::{MaintainOptions, Weakness};

fn seed() -> u64 {
    let seed = std::env::var("PGSTAR_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    seed.unwrap_or(0x9e37_79b9_7f4a_7c15)
}

async fn star() -> Database {
    Database::with(STAR).await
}

async fn writer(database: &Database) -> Connection {
    connect(&database.config().await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_are_folded_exactly() {
    let database = star().await;
    let rollups =
        Maintained::start(database.config().await, ROLLUPS, MaintainOptions::default()).await;
    rollups.prove_all().await;
    let writer = writer(&database).await;
    let mut random = Random(seed());
    let (started, mut rounds) = (Instant::now(), 0);
    while started.elapsed() < duration(10) || rounds < 5 {
        rounds += 1;
        let mut done = vec![];
        for _ in 0..1 + random.below(10) {
            let sql = random.transaction();
            run(&writer, &sql).await;
            done.push(sql);
        }
        rollups.prove_all().await;
        let differences = rollups.differences(&writer).await;
        assert!(
            differences.is_empty(),
            "round {rounds}: {differences:#?} after {done:#?}"
        );
    }
    let figures = rollups.maintainer.figures();
    println!("{rounds} rounds: {figures:#?}");
    assert!(figures.rows > 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollups_that_are_built_beside_writers_are_exact() {
    let database = Arc::new(star().await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = vec![];
    for number in 0..3u64 {
        let (database, stop) = (Arc::clone(&database), Arc::clone(&stop));
        writers.push(tokio::spawn(async move {
            let writer = writer(&database).await;
            let mut random = Random(seed() + number);
            while !stop.load(Ordering::Relaxed) {
                run(&writer, &random.transaction()).await;
            }
        }));
    }
    let rollups =
        Maintained::start(database.config().await, ROLLUPS, MaintainOptions::default()).await;
    tokio::time::sleep(duration(10) / 3).await;
    for plan in rollups.plans.iter().take(3) {
        rollups.store.rebuild(&plan.build, &|_| ()).await.unwrap();
    }
    tokio::time::sleep(duration(10) / 5).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    rollups.prove_all().await;
    let client = database.connect().await;
    assert_eq!(rollups.differences(&client).await, Vec::<String>::new());
    println!("{:#?}", rollups.maintainer.figures());
}

/// The server streams these before their end, in blocks between one another, and rolls parts of them
/// back after they were streamed. Returns what differs after the first round in which something does.
async fn differences_after_large_transactions(weakness: Weakness) -> Vec<String> {
    let database = Arc::new(star().await);
    let options = MaintainOptions {
        weakness,
        ..MaintainOptions::default()
    };
    let rollups = Maintained::start(database.config().await, &ROLLUPS[2..5], options).await;
    rollups.prove_all().await;
    let (started, mut rounds) = (Instant::now(), 0u64);
    let client = writer(&database).await;
    let mut differences = vec![];
    while differences.is_empty() && (started.elapsed() < duration(10) / 2 || rounds < 4) {
        rounds += 1;
        let mut writers = vec![];
        for number in 0..2u64 {
            let (database, rounds) = (Arc::clone(&database), rounds);
            writers.push(tokio::spawn(async move {
                let writer = writer(&database).await;
                let mut random = Random(seed() + rounds * 10 + number);
                for statement in random.large_transaction(number) {
                    run(&writer, &statement).await;
                }
            }));
        }
        for writer in writers {
            writer.await.unwrap();
        }
        rollups.prove_all().await;
        differences = rollups.differences(&client).await;
    }
    let streamed = "SELECT sum(stream_txns) FROM pg_stat_replication_slots s JOIN pg_replication_slots USING (slot_name)
                     WHERE database = current_database()";
    let streamed: u64 = database.value(streamed).await.parse().unwrap();
    let figures = rollups.maintainer.figures();
    println!(
        "{weakness:?}: {rounds} rounds, {streamed} transactions streamed, {} rows",
        figures.rows
    );
    assert!(streamed > 0, "the harness has shown nothing");
    let rebuilds = figures.rollups.values().map(|rollup| rollup.rebuilds.len());
    assert!(weakness != Weakness::None || rebuilds.sum::<usize>() == 0);
    differences
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_transactions_are_folded_without_what_was_rolled_back() {
    let differences = differences_after_large_transactions(Weakness::None).await;
    assert_eq!(differences, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_rolled_back_would_be_noticed() {
    let differences = differences_after_large_transactions(Weakness::KeepsRolledBack).await;
    assert_ne!(differences, Vec::<String>::new());
}
