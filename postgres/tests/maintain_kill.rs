//! A whole process is killed (SIGKILL) at every failpoint and while it builds, beside writers. The next one
//! goes on where it ended: nothing is lost, nothing is folded twice, and no rollup is built again.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;
mod maintain_support;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{Database, server};
use maintain_support::{DEADLINE, Maintained, ROLLUPS, STAR, Writers, connect, duration, number};
use pgstar_postgres::maintain::{Failpoint, MaintainOptions};

/// The rollups that are kept.
const KEPT: std::ops::Range<usize> = 2..5;

/// What the process that is killed is told: where the server is, at which failpoint it dies, and how often
/// it passes it before.
const URL: &str = "PGSTAR_TEST_URL";
const DIES_AT: &str = "PGSTAR_TEST_DIES_AT";
const PASSES: &str = "PGSTAR_TEST_PASSES";

/// The process. Without being told anything it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other tests run it in a process of its own"]
async fn the_process_that_is_killed() {
    let Ok(url) = std::env::var(URL) else { return };
    std::thread::spawn(|| {
        // Whoever started this is gone.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let dies_at = std::env::var(DIES_AT).unwrap_or_default();
    let passes = std::env::var(PASSES).ok();
    let left = AtomicU32::new(passes.and_then(|passes| passes.parse().ok()).unwrap_or(0));
    let options = MaintainOptions {
        dies_at: Some(Arc::new(move |at| {
            let is_it = format!("{at:?}") == dies_at;
            if is_it && left.fetch_sub(1, Ordering::Relaxed) == 1 {
                let killing = Command::new("/bin/sh")
                    .args(["-c", "kill -9 $PPID"])
                    .status();
                panic!("still alive: {killing:?}");
            }
            false
        })),
        ..MaintainOptions::default()
    };
    let config = url.parse().unwrap();
    let rollups = Maintained::start(config, &ROLLUPS[KEPT], options).await;
    loop {
        rollups.prove_all().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ends with whoever started it.
struct Process(Child);

impl Process {
    fn start(url: &str, dies_at: &str, passes: u32) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "the_process_that_is_killed"])
            .env(URL, url)
            .env(DIES_AT, dies_at)
            .env(PASSES, passes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        Process(command.spawn().unwrap())
    }

    async fn ended(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(started.elapsed() < DEADLINE * 2, "it did not die");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_anywhere_loses_and_repeats_nothing() {
    let database = Database::with(STAR).await;
    let config = database.config().await;
    let url = server().await.url(&database.name);
    let rollups =
        Maintained::start(config.clone(), &ROLLUPS[KEPT], MaintainOptions::default()).await;
    let mut tables = vec![];
    for (name, _) in &ROLLUPS[KEPT] {
        tables.push(rollups.table(name).await);
    }
    // It may be another process that leads from now on.
    drop(rollups);
    let writers = Writers::start(&config, 2);
    let (started, mut kills) = (Instant::now(), 0);
    while kills == 0 || started.elapsed() < duration(0) {
        for at in Failpoint::ALL {
            kills += 1;
            let mut process = Process::start(&url, &format!("{at:?}"), 1 + kills % 5);
            let status = process.ended().await;
            assert_eq!(status.signal(), Some(9), "{at:?}");
        }
    }
    writers.end().await;
    let rollups =
        Maintained::start(config.clone(), &ROLLUPS[KEPT], MaintainOptions::default()).await;
    let client = connect(&config).await;
    rollups.check(&client).await;
    for (table, (name, _)) in tables.iter().zip(&ROLLUPS[KEPT]) {
        assert_eq!(rollups.table(name).await, *table, "it was built again");
    }
    println!("{kills} processes killed in {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_while_it_builds_leaves_nothing_wrong() {
    let database = Database::with(STAR).await;
    let config = database.config().await;
    let url = server().await.url(&database.name);
    let client = connect(&config).await;
    let start = || Maintained::start(config.clone(), &ROLLUPS[KEPT], MaintainOptions::default());
    start().await.prove_all().await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                  AND wait_event_type = 'Lock' AND query LIKE 'CREATE TABLE%'";
    for _ in 0..3 {
        // The build has its snapshot when it waits for this table.
        let blocker = connect(&config).await;
        for sql in ["TRUNCATE pgstar.rollup_state", "BEGIN; LOCK TABLE day"] {
            blocker.batch_execute(sql).await.unwrap();
        }
        let mut process = Process::start(&url, "", 0);
        let started = Instant::now();
        while number(&client, waits).await == 0 {
            assert!(started.elapsed() < DEADLINE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let insert = "INSERT INTO sale (id, customer_id, quantity) SELECT coalesce(max(id), 0) + 1, 1, 2 FROM sale";
        client.batch_execute(insert).await.unwrap();
        process.0.kill().unwrap();
        process.ended().await;
        blocker.batch_execute("COMMIT").await.unwrap();
    }
    let rollups = start().await;
    rollups.check(&client).await;
    let left = "SELECT count(*) - 3 FROM pg_class WHERE relkind = 'r' AND relnamespace = 'pgstar'::regnamespace
                 AND relname ~ '_v[0-9]+$'";
    rollups.store.sweep().await.unwrap();
    assert_eq!(number(&client, left).await, 0, "tables of nobody");
}
