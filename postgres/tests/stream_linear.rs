//! Readers beside writers: whatever is proven current contains every commit that was acknowledged
//! before the proof was asked for. The same harness has to find the mistakes that would break that.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::Database;
use pgstar_postgres::stream::{ChangeStream, Position, StreamOptions, Weakness};
use pgstar_rewriter::catalog::Oid;

const TABLES: usize = 4;
const READERS: usize = 4;
const DEADLINE: Duration = Duration::from_secs(5);

/// How long each run takes; `PGSTAR_TORTURE_SECONDS` makes it longer.
fn duration() -> Duration {
    let seconds = std::env::var("PGSTAR_TORTURE_SECONDS").ok();
    Duration::from_secs(
        seconds
            .and_then(|seconds| seconds.parse().ok())
            .unwrap_or(4),
    )
}

#[derive(Default)]
struct Outcome {
    proofs: usize,
    /// Proven unchanged, and as it should be.
    current: usize,
    /// Proven unchanged, although an acknowledged commit is missing.
    stale: usize,
    latencies: Vec<Duration>,
}

/// One row after the other, and a count of those whose commit was acknowledged.
async fn write(
    database: Arc<Database>,
    table: usize,
    commit: &'static str,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
) {
    let connection = database.connect().await;
    connection
        .batch_execute(&format!("SET synchronous_commit = {commit}"))
        .await
        .unwrap();
    let insert = connection
        .prepare(&format!("INSERT INTO public.t{table} VALUES ($1)"))
        .await
        .unwrap();
    let mut row = 0i64;
    while !stop.load(Ordering::Relaxed) {
        row += 1;
        connection.execute(&insert, &[&row]).await.unwrap();
        acknowledged.store(row as u64, Ordering::SeqCst);
        // Pauses, or nothing would ever be unchanged; of different lengths, or they would fall together.
        tokio::time::sleep(Duration::from_micros((row as u64 * 7919) % 60_000)).await;
    }
}

/// Keeps a count of each table as if it were a rollup, and checks it whenever it is proven current.
async fn read(
    database: Arc<Database>,
    stream: Arc<ChangeStream>,
    tables: Vec<Oid>,
    acknowledged: Vec<Arc<AtomicU64>>,
    stop: Arc<AtomicBool>,
    first: usize,
) -> Outcome {
    let connection = database.connect().await;
    let mut outcome = Outcome::default();
    let mut rollups: Vec<Option<(Position, u64)>> = vec![None; TABLES];
    let mut turn = first;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let table = turn % TABLES;
        let expected = acknowledged[table].load(Ordering::SeqCst);
        let asked = Instant::now();
        let proof = stream.prove_current(DEADLINE).await.unwrap();
        outcome.latencies.push(asked.elapsed());
        outcome.proofs += 1;
        let is_current = |(position, _): &(Position, u64)| {
            position.epoch == proof.epoch.id
                && stream
                    .unchanged_since(*position, &tables[table..=table])
                    .is_ok()
        };
        match rollups[table].filter(is_current) {
            Some((_, count)) if count < expected => outcome.stale += 1,
            Some(_) => outcome.current += 1,
            None => {
                let position = stream.build_position(DEADLINE).await.unwrap();
                let sql = format!("SELECT count(*) FROM public.t{table}");
                let count: i64 = connection.query_one(&sql, &[]).await.unwrap().get(0);
                rollups[table] = Some((position, count as u64));
            }
        }
    }
    outcome
}

/// Tables, and one writer for each.
struct Load {
    database: Arc<Database>,
    oids: Vec<Oid>,
    acknowledged: Vec<Arc<AtomicU64>>,
    stop: Arc<AtomicBool>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    async fn prepare() -> Self {
        let tables: String = (0..TABLES)
            .map(|table| format!("CREATE TABLE t{table} (id bigint PRIMARY KEY);"))
            .collect();
        let database = Arc::new(Database::with(&tables).await);
        let mut oids = vec![];
        for table in 0..TABLES {
            let oid = database
                .value(&format!("'public.t{table}'::regclass::oid"))
                .await;
            oids.push(Oid(oid.parse().unwrap()));
        }
        let acknowledged = (0..TABLES).map(|_| Arc::default()).collect();
        Load {
            database,
            oids,
            acknowledged,
            stop: Arc::default(),
            writers: vec![],
        }
    }

    async fn follow(&self, weakness: Weakness) -> Arc<ChangeStream> {
        let options = StreamOptions {
            weakness,
            ..StreamOptions::default()
        };
        let stream =
            ChangeStream::start_with(self.database.config().await, self.oids.clone(), options)
                .await
                .unwrap();
        stream.established(Duration::from_secs(30)).await.unwrap();
        Arc::new(stream)
    }

    fn write(&mut self, commits: [&'static str; 2]) {
        for table in 0..TABLES {
            let (database, acknowledged) = (
                Arc::clone(&self.database),
                Arc::clone(&self.acknowledged[table]),
            );
            let writes = write(
                database,
                table,
                commits[table % 2],
                acknowledged,
                Arc::clone(&self.stop),
            );
            self.writers.push(tokio::spawn(writes));
        }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
    }
}

async fn run(weakness: Weakness, commits: [&'static str; 2]) -> Outcome {
    let mut load = Load::prepare().await;
    let stream = load.follow(weakness).await;
    load.write(commits);
    let mut readers = vec![];
    for reader in 0..READERS {
        let (database, stream) = (Arc::clone(&load.database), Arc::clone(&stream));
        let reads = read(
            database,
            stream,
            load.oids.clone(),
            load.acknowledged.clone(),
            Arc::clone(&load.stop),
            reader,
        );
        readers.push(tokio::spawn(reads));
    }
    tokio::time::sleep(duration()).await;
    load.stop.store(true, Ordering::Relaxed);
    let mut total = Outcome::default();
    for reader in readers {
        let outcome = reader.await.unwrap();
        total.proofs += outcome.proofs;
        total.current += outcome.current;
        total.stale += outcome.stale;
        total.latencies.extend(outcome.latencies);
    }
    load.end().await;
    total
}

fn report(what: &str, outcome: &mut Outcome) {
    outcome.latencies.sort_unstable();
    let at = |share: usize| outcome.latencies[(outcome.latencies.len() - 1) * share / 100];
    println!(
        "{what}: {} proofs, {} current, {} stale; p50 {:?}, p95 {:?}, max {:?}",
        outcome.proofs,
        outcome.current,
        outcome.stale,
        at(50),
        at(95),
        at(100)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_proven_contains_every_acknowledged_commit() {
    for (what, commits) in [
        ("sync", ["on", "on"]),
        ("async", ["off", "off"]),
        ("mixed", ["on", "off"]),
    ] {
        let mut outcome = run(Weakness::None, commits).await;
        report(what, &mut outcome);
        assert_eq!(outcome.stale, 0, "{what}");
        assert!(
            outcome.current > 20,
            "the harness has shown nothing: {what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_flushed_end_of_the_log_would_be_noticed() {
    // How often a flushed end lags behind depends on the machine; most reads are stale on most.
    for _ in 0..5 {
        let mut outcome = run(Weakness::FlushedEnd, ["off", "off"]).await;
        report("mutant: flushed end", &mut outcome);
        if outcome.stale > 0 {
            return;
        }
    }
    panic!("no stale read in five runs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_server_proves_quickly() {
    let database = Database::with("CREATE TABLE t (id bigint PRIMARY KEY)").await;
    let oid = database.value("'public.t'::regclass::oid").await;
    let stream = ChangeStream::start(database.config().await, vec![Oid(oid.parse().unwrap())])
        .await
        .unwrap();
    stream.established(Duration::from_secs(30)).await.unwrap();
    stream.prove_current(DEADLINE).await.unwrap();
    let mut outcome = Outcome::default();
    for _ in 0..500 {
        let asked = Instant::now();
        stream.prove_current(DEADLINE).await.unwrap();
        outcome.latencies.push(asked.elapsed());
        outcome.proofs += 1;
    }
    report("idle", &mut outcome);
}

/// A stream's first position is the delicate one: commits from before its slot are not in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_begin_beside_writers_miss_nothing() {
    let mut load = Load::prepare().await;
    load.write(["on", "off"]);
    let counting = load.database.connect().await;
    let (started, mut current) = (Instant::now(), 0);
    // A machine that is busy with something else takes longer to show anything.
    while started.elapsed() < duration() || current <= 10 && started.elapsed() < duration() * 8 {
        let stream = load.follow(Weakness::None).await;
        for table in 0..TABLES {
            let position = stream.build_position(DEADLINE).await.unwrap();
            let sql = format!("SELECT count(*) FROM public.t{table}");
            let count: i64 = counting.query_one(&sql, &[]).await.unwrap().get(0);
            let expected = load.acknowledged[table].load(Ordering::SeqCst);
            stream.prove_current(DEADLINE).await.unwrap();
            if stream
                .unchanged_since(position, &load.oids[table..=table])
                .is_ok()
            {
                assert!(count as u64 >= expected);
                current += 1;
            }
        }
    }
    println!("{current} rollups of new streams were current");
    assert!(current > 10, "the harness has shown nothing");
    load.end().await;
}
