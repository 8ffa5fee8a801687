//! How fast commits reach the rollups, on a throw-away server, and what that costs who loads:
//! ingest with and without pgstar attached, the rate of folding what waits, the time from a commit's
//! acknowledgement until a reader finds it in the rollup's table, what a strict read adds to a plain one, and
//! how soon everything is proven again after a process or the server was killed.
//!
//! Arguments name the parts that are wanted, of ingest, backlog, lag, reads and recovery: all without one.
//! `PGSTAR_BENCH_ROWS` (default 1,000,000) and `PGSTAR_BENCH_SECONDS` (default 10, for each rate) make it longer.

#![allow(clippy::unwrap_used)] // A measurement that cannot go on should stop.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use pgstar_postgres::catalog::load_catalog;
use pgstar_postgres::connect::{Connection, Connector};
use pgstar_postgres::maintain::{MaintainOptions, MaintainPlan, Maintainer};
use pgstar_postgres::rollups::{BuildPlan, RollupStore, Sources};
use pgstar_postgres::server::{InstallPolicy, Server, ServerOptions, Shutdown};
use pgstar_rewriter::RollupDefinition;
use pgstar_rewriter::fold::FoldPlan;

const DEADLINE: Duration = Duration::from_secs(120);

/// How long a reader waits before it looks again.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

const STAR: &str = "
  CREATE TABLE product (id int PRIMARY KEY, category text NOT NULL);
  CREATE TABLE sale (id bigint PRIMARY KEY, product_id int NOT NULL REFERENCES product, sold date NOT NULL,
                     amount numeric(12,2) NOT NULL, quantity int);
  ALTER TABLE product REPLICA IDENTITY FULL; ALTER TABLE sale REPLICA IDENTITY FULL;
  INSERT INTO product SELECT i, 'c' || i % 20 FROM generate_series(0, 999) i";

const ROLLUPS: [(&str, &str); 2] = [
    (
        "by_category_day",
        "SELECT p.category, s.sold, count(*), sum(s.amount), sum(s.quantity) FROM sale s \
                         JOIN product p ON p.id = s.product_id GROUP BY 1, 2",
    ),
    (
        "by_day",
        "SELECT sold, count(*), sum(amount), max(amount) FROM sale GROUP BY 1",
    ),
];

fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

async fn connect(server: &Server) -> Connection {
    let connector = Connector::new(server.config("postgres")).unwrap();
    let client = connector.connect().await.unwrap();
    client
        .batch_execute("SET search_path = public")
        .await
        .unwrap();
    client
}

async fn plans(client: &Connection) -> Vec<MaintainPlan> {
    let catalog = load_catalog(client).await.unwrap();
    let path = vec!["pg_catalog".to_owned(), "public".to_owned()];
    let plan = |(name, sql): &(&str, &str)| {
        let definition = RollupDefinition::parse(name, sql, &catalog, &path).unwrap();
        MaintainPlan {
            fold: FoldPlan::new(&definition, &catalog),
            build: BuildPlan {
                name: (*name).to_owned(),
                fingerprint: definition.fingerprint.clone(),
                select: definition.build_select.clone(),
                key_columns: definition.key_columns().map(str::to_owned).collect(),
                base_relations: definition.base_relations.clone(),
            },
        }
    };
    ROLLUPS.iter().map(plan).collect()
}

/// Rows of one statement.
fn insert(from: u64, rows: u64) -> String {
    format!(
        "INSERT INTO sale SELECT i, i % 1000, date '2024-01-01' + (i % 400)::int, (i % 10000) / 100.0, i % 7 \
         FROM generate_series({from}, {}) i",
        from + rows - 1
    )
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| {
        times
            .get((times.len() - 1) * share / 100)
            .copied()
            .unwrap_or_default()
    };
    format!(
        "p50 {:.1?}, p95 {:.1?}, max {:.1?} of {}",
        at(50),
        at(95),
        at(100),
        times.len()
    )
}

/// The rows of `sale` so far.
static ROWS: AtomicI64 = AtomicI64::new(0);

/// Attached to the server, with its rollups built and proven.
struct Attached {
    maintainer: Maintainer,
    tables: Vec<String>,
}

impl Attached {
    async fn to(server: &Server) -> Self {
        let client = connect(server).await;
        let plans = plans(&client).await;
        let store = RollupStore::new(server.config("postgres")).unwrap();
        let maintainer = Maintainer::new(server.config("postgres"), MaintainOptions::default());
        maintainer.follow(plans.clone(), vec![]).await.unwrap();
        maintainer.established(DEADLINE).await.unwrap();
        let mut tables = vec![];
        for plan in &plans {
            tables.push(
                store
                    .ensure(&plan.build, &Sources::none(), &|_| ())
                    .await
                    .unwrap()
                    .table,
            );
        }
        let attached = Attached { maintainer, tables };
        attached.prove().await;
        attached
    }

    /// Over as many interruptions as it takes.
    async fn prove(&self) {
        let tables: Vec<&str> = self.tables.iter().map(String::as_str).collect();
        while self.maintainer.prove(&tables, DEADLINE).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

async fn load(client: &Connection, rows: u64) -> Duration {
    let piece = 50_000.min(rows);
    let begun = Instant::now();
    for _ in (0..rows).step_by(piece as usize) {
        let first = ROWS.fetch_add(piece as i64, Ordering::Relaxed) + 1;
        let sql = insert(first.cast_unsigned(), piece);
        client.batch_execute(&sql).await.unwrap();
    }
    begun.elapsed()
}

#[tokio::main]
async fn main() {
    let options = ServerOptions {
        install: InstallPolicy::IfMissing,
        settings: vec![("max_wal_size".to_owned(), "8GB".to_owned())],
        ..ServerOptions::default()
    };
    let server = Server::start(options).await.unwrap();
    let client = connect(&server).await;
    client.batch_execute(STAR).await.unwrap();
    let rows = number("PGSTAR_BENCH_ROWS", 1_000_000);
    if is_wanted("ingest") {
        ingest(&server, &client, rows).await;
    }
    if is_wanted("backlog") {
        backlog(&server, &client, rows).await;
    }
    let attached = Attached::to(&server).await;
    if is_wanted("lag") {
        for rate in [100, 1_000, 10_000] {
            latency(&server, &attached, rate).await;
        }
    }
    if is_wanted("reads") {
        strict_reads(&server, &attached).await;
    }
    drop(attached);
    if is_wanted("recovery") {
        recovery(server, rows).await;
    }
}

/// Whether the command line names this part, or none.
fn is_wanted(part: &str) -> bool {
    let mut named = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .peekable();
    named.peek().is_none() || named.any(|name| name == part)
}

/// Rounds that take turns, so that what else the machine does hits both.
async fn ingest(server: &Server, client: &Connection, rows: u64) {
    let (mut with, mut without) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..4 {
        let attached = Attached::to(server).await;
        with += load(client, rows / 4).await;
        attached.prove().await;
        drop(attached);
        without += load(client, rows / 4).await;
    }
    let rate = |took: Duration| rows as f64 / took.as_secs_f64();
    println!(
        "ingest: {:.0} rows/s with pgstar attached, {:.0} without: {:.2}x",
        rate(with),
        rate(without),
        without.as_secs_f64() / with.as_secs_f64()
    );
}

/// What was committed while nobody followed, folded by who comes back.
async fn backlog(server: &Server, client: &Connection, rows: u64) {
    let mut attached = Attached::to(server).await;
    let update = format!(
        "UPDATE sale SET amount = amount + 1 WHERE id <= {}",
        rows / 5
    );
    for what in ["inserted", "updated"] {
        leave_nothing(client, &attached).await;
        drop(attached);
        let changed = match what {
            "inserted" => {
                load(client, rows).await;
                rows
            }
            _ => {
                client.batch_execute(&update).await.unwrap();
                // The old row and the new one.
                rows / 5 * 2
            }
        };
        let begun = Instant::now();
        attached = Attached::to(server).await;
        let took = begun.elapsed();
        println!(
            "fold rate: {changed} changed rows ({what}) in {} rollups in {took:.2?}: {:.0} rows/s; {} batches",
            attached.tables.len(),
            changed as f64 / took.as_secs_f64(),
            attached.maintainer.figures().batches
        );
    }
}

/// The slot begins to read again where the server last noted which transactions were open: nothing from before has to be read
/// once more, after this.
async fn leave_nothing(client: &Connection, attached: &Attached) {
    let note = "SELECT pg_current_wal_insert_lsn()::text";
    let end: String = client.query_one(note, &[]).await.unwrap().get(0);
    let has_passed = "SELECT bool_and(restart_lsn >= $1::text::pg_lsn) FROM pg_replication_slots";
    while !client
        .query_one(has_passed, &[&end])
        .await
        .unwrap()
        .get::<_, bool>(0)
    {
        client.batch_execute("CHECKPOINT").await.unwrap();
        attached.prove().await;
    }
}

/// Statements of up to 100 rows at a rate, by a writer that does not wait for the rollups.
async fn latency(server: &Server, attached: &Attached, rate: u64) {
    let reader = connect(server).await;
    let count = format!(
        "SELECT coalesce(sum(row_count), 0)::bigint FROM pgstar.\"{}\"",
        attached.tables[1]
    );
    let count = reader.prepare(&count).await.unwrap();
    let (committed, mut commits) = tokio::sync::mpsc::unbounded_channel();
    let begun = Instant::now();
    let rows = (rate / 100).clamp(1, 100);
    let writer = tokio::spawn(write_at(connect(server).await, rate, rows, committed));
    let mut applied = vec![];
    while let Some((expected, at)) = commits.recv().await {
        while reader
            .query_one(&count, &[])
            .await
            .unwrap()
            .get::<_, i64>(0)
            < expected
        {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        applied.push(Instant::now() - at);
    }
    writer.await.unwrap();
    let written = applied.len() as u64 * rows;
    println!(
        "lag at {rate} changed rows/s (reached {:.0}): commit to applied {}",
        written as f64 / begun.elapsed().as_secs_f64(),
        percentiles(applied)
    );
}

/// Says of each statement how many rows there are then, and when it was acknowledged.
async fn write_at(
    writer: Connection,
    rate: u64,
    rows: u64,
    committed: tokio::sync::mpsc::UnboundedSender<(i64, Instant)>,
) {
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 * rows / rate));
    let begun = Instant::now();
    while begun.elapsed().as_secs() < number("PGSTAR_BENCH_SECONDS", 10) {
        ticks.tick().await;
        let first = ROWS.fetch_add(rows.cast_signed(), Ordering::Relaxed) + 1;
        let sql = insert(first.cast_unsigned(), rows);
        writer.batch_execute(&sql).await.unwrap();
        let expected = first + rows.cast_signed() - 1;
        committed.send((expected, Instant::now())).unwrap();
    }
}

async fn strict_reads(server: &Server, attached: &Attached) {
    let reader = connect(server).await;
    let sum = format!(
        "SELECT category, sum(sum_amount) FROM pgstar.\"{}\" GROUP BY 1",
        attached.tables[0]
    );
    let sum = reader.prepare(&sum).await.unwrap();
    let (mut plain, mut strict) = (vec![], vec![]);
    for _ in 0..500 {
        let asked = Instant::now();
        reader.query(&sum, &[]).await.unwrap();
        plain.push(asked.elapsed());
        let asked = Instant::now();
        attached.prove().await;
        reader.query(&sum, &[]).await.unwrap();
        strict.push(asked.elapsed());
    }
    println!("plain read of a rollup: {}", percentiles(plain));
    println!("strict read of a rollup: {}", percentiles(strict));
}

/// Until everything is proven again, with a writer's last rows waiting.
async fn recovery(mut server: Server, rows: u64) {
    let attached = Attached::to(&server).await;
    drop(attached);
    load(&connect(&server).await, rows / 20).await;
    let begun = Instant::now();
    let attached = Attached::to(&server).await;
    println!(
        "recovery: {:.2?} from a new process to the first proof, {} rows behind",
        begun.elapsed(),
        rows / 20
    );
    load(&connect(&server).await, rows / 20).await;
    let killed = Instant::now();
    server = server.restart(Shutdown::Killed).await.unwrap();
    let back = killed.elapsed();
    attached.prove().await;
    println!(
        "recovery: {:.2?} from the server's kill to the first proof; the server itself took {back:.2?}",
        killed.elapsed()
    );
    drop(attached);
    server.stop().await.unwrap();
}
