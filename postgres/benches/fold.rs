//! How fast commits reach the rollups, on a throw-away server: rows folded each second, and the time from
//! a commit's acknowledgement until a reader finds it in the rollup's table.
//!
//! `PGSTAR_BENCH_ROWS` (default 1,000,000) and `PGSTAR_BENCH_SECONDS` (default 10) make it longer.

#![allow(clippy::unwrap_used)] // A measurement that cannot go on should stop.

use std::time::{Duration, Instant};

use pgstar_postgres::catalog::load_catalog;
use pgstar_postgres::connect::{Connection, Connector};
use pgstar_postgres::maintain::{MaintainOptions, MaintainPlan, Maintainer};
use pgstar_postgres::rollups::{BuildPlan, RollupStore};
use pgstar_postgres::server::{InstallPolicy, Server, ServerOptions};
use pgstar_rewriter::RollupDefinition;
use pgstar_rewriter::fold::FoldPlan;

const DEADLINE: Duration = Duration::from_secs(120);

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
    let plans = plans(&client).await;
    let store = RollupStore::new(server.config("postgres")).unwrap();
    let maintainer = Maintainer::new(server.config("postgres"), MaintainOptions::default());
    maintainer.follow(plans.clone(), vec![]).await.unwrap();
    maintainer.established(DEADLINE).await.unwrap();
    let mut tables = vec![];
    for plan in &plans {
        tables.push(store.ensure(&plan.build, &|_| ()).await.unwrap().table);
    }
    let tables: Vec<&str> = tables.iter().map(String::as_str).collect();
    while maintainer.prove(&tables, DEADLINE).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let rows = number("PGSTAR_BENCH_ROWS", 1_000_000);
    let piece = 50_000;
    let begun = Instant::now();
    for from in (0..rows).step_by(piece) {
        client
            .batch_execute(&insert(from + 1, piece as u64))
            .await
            .unwrap();
    }
    let loaded = begun.elapsed();
    maintainer.prove(&tables, DEADLINE).await.unwrap();
    let all = begun.elapsed();
    let figures = maintainer.figures();
    println!(
        "fold rate: {rows} rows inserted in {loaded:.2?}, all in {} rollups after {all:.2?}: {:.0} rows/s end to end; {} batches",
        tables.len(),
        rows as f64 / all.as_secs_f64(),
        figures.batches
    );
    let begun = Instant::now();
    client
        .batch_execute(&format!(
            "UPDATE sale SET amount = amount + 1 WHERE id <= {}",
            rows / 5
        ))
        .await
        .unwrap();
    let updated = begun.elapsed();
    maintainer.prove(&tables, DEADLINE).await.unwrap();
    let all = begun.elapsed();
    println!(
        "one UPDATE of {} rows in {updated:.2?}, in the rollups after {all:.2?} (lag after commit {:.2?})",
        rows / 5,
        all - updated
    );
    latencies(&server, &maintainer, &tables, rows).await;
    drop(maintainer);
    server.stop().await.unwrap();
}

async fn latencies(server: &Server, maintainer: &Maintainer, tables: &[&str], rows: u64) {
    let (writer, reader) = (connect(server).await, connect(server).await);
    let insert = "INSERT INTO sale VALUES ($1, 1, '2024-02-02', 1, 1)";
    let insert = writer.prepare(insert).await.unwrap();
    let count = format!(
        "SELECT row_count FROM pgstar.\"{}\" WHERE sold = '2024-02-02'",
        tables[1]
    );
    let count = reader.prepare(&count).await.unwrap();
    let before: i64 = reader.query_one(&count, &[]).await.unwrap().get(0);
    for (rate, pause) in [(100u32, 10_000), (20, 50_000)] {
        let (mut applied, mut proven) = (vec![], vec![]);
        let begun = Instant::now();
        static WRITTEN: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
        while begun.elapsed().as_secs() < number("PGSTAR_BENCH_SECONDS", 10) / 2 {
            let written = WRITTEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
            writer
                .execute(&insert, &[&(rows as i64 + written)])
                .await
                .unwrap();
            let committed = Instant::now();
            if written % 2 == 0 {
                maintainer.prove(tables, DEADLINE).await.unwrap();
                proven.push(committed.elapsed());
            } else {
                while reader
                    .query_one(&count, &[])
                    .await
                    .unwrap()
                    .get::<_, i64>(0)
                    < before + written
                {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
                applied.push(committed.elapsed());
            }
            tokio::time::sleep(Duration::from_micros(pause).saturating_sub(committed.elapsed()))
                .await;
        }
        println!(
            "{rate} commits/s: commit to applied {}; to proven {}",
            percentiles(applied),
            percentiles(proven)
        );
    }
    let mut idle = vec![];
    for _ in 0..300 {
        let asked = Instant::now();
        maintainer.prove(tables, DEADLINE).await.unwrap();
        idle.push(asked.elapsed());
    }
    println!("idle: proof {}", percentiles(idle));
}
