//! Rollups follow every commit: whatever changes, each equals its defining SELECT.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;
mod maintain_support;

use std::sync::Arc;
use std::time::Instant;

use common::Database;
use maintain_support::{
    Acknowledged, COUNTED, COUNTS, Maintained, ROLLUPS, Random, STAR, Writers, connect, duration,
    run,
};
use pgstar_postgres::connect::Connection;
use pgstar_postgres::maintain::{MaintainOptions, Weakness};
use pgstar_postgres::rollups::Sources;

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

/// More than enough for a mistake to show.
const ROUNDS_MAX: u32 = 500;

/// Random changes, until something differs, or time is over; nobody knows how soon a mistake shows on a slow machine.
async fn differences_after_random_changes(weakness: Weakness) -> Vec<String> {
    let database = star().await;
    let options = MaintainOptions {
        weakness,
        ..MaintainOptions::default()
    };
    let rollups = Maintained::start(database.config().await, ROLLUPS, options).await;
    rollups.prove_all().await;
    let writer = writer(&database).await;
    let mut random = Random(seed());
    let (started, mut rounds) = (Instant::now(), 0);
    let mut differences = vec![];
    let goes_on = |rounds| match weakness {
        Weakness::None => started.elapsed() < duration(10) || rounds < 5,
        _ => rounds < ROUNDS_MAX,
    };
    while differences.is_empty() && goes_on(rounds) {
        rounds += 1;
        let mut done = vec![];
        for _ in 0..1 + random.below(10) {
            let sql = random.transaction();
            run(&writer, &sql).await;
            done.push(sql);
        }
        rollups.prove_all().await;
        differences = rollups.differences(&writer).await;
        if !differences.is_empty() {
            println!("{weakness:?}: round {rounds}: {differences:#?} after {done:#?}");
        }
    }
    let figures = rollups.maintainer.figures();
    println!("{weakness:?}: {rounds} rounds, {} rows", figures.rows);
    assert!(figures.rows > 10 || !differences.is_empty());
    differences
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_are_folded_exactly() {
    let differences = differences_after_random_changes(Weakness::None).await;
    assert_eq!(differences, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_are_not_computed_anew_would_be_noticed() {
    let differences = differences_after_random_changes(Weakness::NeverRecomputes).await;
    assert_ne!(differences, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollups_that_are_built_beside_writers_are_exact() {
    let database = star().await;
    let config = database.config().await;
    let writers = Writers::start(&config, 3);
    let rollups = Maintained::start(config.clone(), ROLLUPS, MaintainOptions::default()).await;
    let (started, mut builds) = (Instant::now(), 0);
    while started.elapsed() < duration(10) / 2 || builds < 6 {
        let plan = &rollups.plans[builds % rollups.plans.len()];
        rollups
            .store
            .rebuild(&plan.build, &Sources::none(), &|_| ())
            .await
            .unwrap();
        builds += 1;
    }
    writers.end().await;
    rollups.check(&connect(&config).await).await;
    println!(
        "{builds} builds, {} rows",
        rollups.maintainer.figures().rows
    );
}

/// Builds beside who only inserts, so that nothing makes good what was missed.
async fn differences_after_builds(weakness: Weakness) -> Vec<String> {
    let database = Database::with(COUNTED).await;
    let config = database.config().await;
    let options = MaintainOptions {
        weakness,
        ..MaintainOptions::default()
    };
    let rollups = Maintained::start(config.clone(), COUNTS, options).await;
    let mut differences = vec![];
    for _ in 0..5 {
        let writers = Acknowledged::start(&config, &["on", "off", "on"]);
        for _ in 0..4 {
            let plan = &rollups.plans[0].build;
            rollups
                .store
                .rebuild(plan, &Sources::none(), &|_| ())
                .await
                .unwrap();
            rollups.prove_all().await;
        }
        writers.end().await;
        rollups.prove_all().await;
        let client = connect(&config).await;
        differences = rollups.differences(&client).await;
        if !differences.is_empty() {
            break;
        }
        client.batch_execute("DELETE FROM t").await.unwrap();
    }
    differences
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn builds_that_are_taken_for_the_others_would_be_noticed() {
    let right = differences_after_builds(Weakness::None).await;
    assert_eq!(right, Vec::<String>::new());
    let wrong = differences_after_builds(Weakness::NewcomersAreInStep).await;
    assert_ne!(wrong, Vec::<String>::new());
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
