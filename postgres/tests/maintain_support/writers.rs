//! Who writes beside the upkeep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pgstar_postgres::connect::Connector;
use tokio::task::JoinHandle;
use tokio_postgres::Config;

use super::{Random, connect};

/// Writers of random transactions that go on whatever happens to their connections.
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    pub fn start(config: &Config, count: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let write = |number: u64| {
            let (config, stop) = (config.clone(), Arc::clone(&stop));
            tokio::spawn(write_randomly(config, number, stop))
        };
        Writers {
            tasks: (0..count).map(write).collect(),
            stop,
        }
    }

    pub async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

async fn write_randomly(config: Config, number: u64, stop: Arc<AtomicBool>) {
    let mut random = Random(77 + number);
    while !stop.load(Ordering::Relaxed) {
        let Ok(client) = Connector::new(config.clone()).unwrap().connect().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let commit = ["on", "off"][number as usize % 2];
        let set = format!("SET search_path = public; SET synchronous_commit = {commit}");
        let _ = client.batch_execute(&set).await;
        while !stop.load(Ordering::Relaxed) && !client.is_closed() {
            if client.batch_execute(&random.transaction()).await.is_err() {
                let _ = client.batch_execute("ROLLBACK").await;
            }
        }
    }
}

/// Writers of table `t` that count their rows as soon as a commit is acknowledged.
pub struct Acknowledged {
    rows: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Acknowledged {
    /// One writer for each setting of `synchronous_commit`.
    pub fn start(config: &Config, commits: &[&'static str]) -> Self {
        let (rows, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let write = |(number, commit): (usize, &&'static str)| {
            let (config, commit) = (config.clone(), *commit);
            let (rows, stop) = (Arc::clone(&rows), Arc::clone(&stop));
            tokio::spawn(async move {
                let client = connect(&config).await;
                let set = format!("SET synchronous_commit = {commit}");
                client.batch_execute(&set).await.unwrap();
                let mut row = 0;
                while !stop.load(Ordering::Relaxed) {
                    row += 1;
                    let id = number as u64 * 1_000_000 + row;
                    let sql = format!("INSERT INTO t VALUES ({id}, {}, 1)", row % 5);
                    client.batch_execute(&sql).await.unwrap();
                    rows.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_micros((row * 7919) % 9_000)).await;
                }
            })
        };
        let tasks = commits.iter().enumerate().map(write).collect();
        Acknowledged { rows, stop, tasks }
    }

    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::SeqCst)
    }

    pub async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}
