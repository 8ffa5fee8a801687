//! The second pass: the 13 queries while a loader inserts, updates and deletes.
//!
//! Each query is timed while the loader is at work. Then the loader pauses between two of its commits, and
//! what a strict answer is must be what PostgreSQL says directly: both have every commit, and no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pgstar_loadtest::ssb::{QUERIES, Query};
use pgstar_postgres::connect::Connection;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::measure::{answered_by, session, timed};
use super::progress::Steps;
use crate::failure::Failure;

/// Runs of each query whose median counts, after one that does not.
const RUNS: usize = 9;

/// Between two transactions of the loader.
const PAUSE: Duration = Duration::from_millis(20);

/// New orders of 100 lines, higher revenues of 20 lines, and 20 lines fewer. `$1` counts transactions.
const CHANGE: [&str; 3] = [
    "INSERT INTO lineorder
     SELECT (SELECT max(lo_orderkey) FROM lineorder) + 1 + row_number() OVER (), 1, lo_custkey, lo_partkey, lo_suppkey,
            lo_orderdate, lo_orderpriority, lo_shippriority, lo_quantity, lo_extendedprice, lo_ordtotalprice,
            lo_discount, lo_revenue, lo_supplycost, lo_tax, lo_commitdate, lo_shipmode
       FROM lineorder WHERE lo_orderkey BETWEEN $1 * 31 + 1 AND $1 * 31 + 30 LIMIT 100",
    "UPDATE lineorder SET lo_revenue = lo_revenue + 1 WHERE lo_orderkey BETWEEN $1 * 7 + 1 AND $1 * 7 + 5",
    "DELETE FROM lineorder WHERE lo_orderkey BETWEEN $1 * 13 + 7 AND $1 * 13 + 11",
];

/// What came out for one query.
#[derive(Debug, Serialize)]
pub(super) struct Changing {
    pub(super) query: &'static str,
    pub(super) strict_ms: f64,
    /// The rollup that answered at the end.
    pub(super) rollup: Option<String>,
    /// Whether the rows equal PostgreSQL's of the same moment.
    pub(super) same: bool,
}

/// The loader at work; it ends when this is dropped.
struct Loader {
    /// Held by the loader for each of its transactions.
    turn: Arc<Mutex<()>>,
    changed: Arc<AtomicU64>,
    task: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Loader {
    fn start(session: Connection) -> Self {
        let (turn, changed) = (Arc::new(Mutex::new(())), Arc::new(AtomicU64::new(0)));
        let task = tokio::spawn(load(session, Arc::clone(&turn), Arc::clone(&changed)));
        Loader {
            turn,
            changed,
            task,
        }
    }
}

async fn load(
    mut session: Connection,
    turn: Arc<Mutex<()>>,
    changed: Arc<AtomicU64>,
) -> Result<(), tokio_postgres::Error> {
    for number in 0i32.. {
        let its_turn = turn.lock().await;
        let transaction = session.transaction().await?;
        for sql in CHANGE {
            let rows = transaction.execute(sql, &[&(number % 4000)]).await?;
            changed.fetch_add(rows, Ordering::Relaxed);
        }
        transaction.commit().await?;
        drop(its_turn);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Every query, and how many rows the loader changed meanwhile.
pub(super) async fn all(
    direct: &str,
    through: &str,
    steps: &Steps,
) -> Result<(Vec<Changing>, u64), Failure> {
    let loader = Loader::start(session(direct).await?);
    let direct = session(direct).await?;
    let through = session(through).await?;
    let mut measured = vec![];
    for query in &QUERIES {
        steps.changing(query.name);
        let one = measure(query, &direct, &through, &loader).await;
        let doing = format!("run {} beside a loader", query.name);
        measured.push(one.map_err(|error| Failure::while_doing(doing, error))?);
    }
    if loader.task.is_finished() {
        let doing = "change rows beside the queries";
        return Err(Failure::while_doing(doing, "the loader has failed"));
    }
    let changed = loader.changed.load(Ordering::Relaxed);
    Ok((measured, changed))
}

async fn measure(
    query: &Query,
    direct: &Connection,
    through: &Connection,
    loader: &Loader,
) -> Result<Changing, tokio_postgres::Error> {
    let (strict_ms, _) = timed(through, query.sql, RUNS).await?;
    let _pause = loader.turn.lock().await;
    let (_, expected) = timed(direct, query.sql, 1).await?;
    let (_, rows) = timed(through, query.sql, 1).await?;
    Ok(Changing {
        query: query.name,
        strict_ms,
        rollup: answered_by(through, query.sql).await?,
        same: rows == expected,
    })
}
