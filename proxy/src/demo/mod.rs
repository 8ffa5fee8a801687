//! `pgstar demo`: the Star Schema Benchmark on a throw-away PostgreSQL, direct and through pgstar.
//!
//! 1. A PostgreSQL of its own starts, on a free port, in a temporary directory.
//! 2. `pgstar_loadtest::ssb` generates and loads the data.
//! 3. A proxy starts in this process, with the rollups of the example configuration, and builds them.
//! 4. `measure` runs the 13 queries direct, from rollups and from the cache, and compares the rows.
//! 5. `changing` runs them once more while a loader inserts, updates and deletes, and compares the rows.
//! 6. `table` prints what came out; everything is taken down, unless it is kept serving.

mod changing;
mod measure;
mod progress;
mod table;

use std::path::Path;
use std::time::Duration;

use pgstar_loadtest::ssb;
use pgstar_postgres::server::{Server, ServerOptions};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Demo;
use crate::config::Config;
use crate::failure::Failure;
use crate::serve::Proxy;
use changing::Changing;
use measure::Measured;
use progress::Steps;

/// The documented example is what the demo runs.
const EXAMPLE: &str = include_str!("../../../pgstar.toml");

/// The database of the demo.
const DATABASE: &str = "ssb";

/// How long the change stream may take to begin.
const FOLLOWING: Duration = Duration::from_secs(60);

/// The statement that lets updates and deletes be folded: their old rows are logged whole.
const LOG_OLD_ROWS: &str = "ALTER TABLE lineorder REPLICA IDENTITY FULL";

/// The seed of the demo's data: the same data in every run.
const SEED: u64 = 1;

/// Runs the demo.
///
/// # Errors
/// PostgreSQL can neither be found nor installed, a step fails, an answer differs from
/// PostgreSQL's, or a query was not answered from a rollup.
pub async fn run(options: Demo) -> Result<(), Failure> {
    let listen =
        |kind| signal(kind).map_err(|error| Failure::while_doing("listen for signals", error));
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    // Whatever has started is owned by this future: dropping it takes everything down.
    tokio::select! {
        outcome = show(&options) => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn show(options: &Demo) -> Result<(), Failure> {
    let steps = Steps::new();
    let server = start_server(&steps).await?;
    load(&server, options, &steps).await?;
    let proxy = start_proxy(&server, &steps).await?;
    let addresses = Addresses::of(&server, &proxy);
    let measured = measure::all(&addresses.direct, &addresses.through, &steps).await?;
    let (beside, rows) = changing::all(&addresses.direct, &addresses.through, &steps).await?;
    steps.finish();
    table::print(&measured, options.scale, server.version());
    table::print_changing(&beside, rows);
    if let Some(file) = &options.json {
        write_json(file, &measured)?;
    }
    if options.keep {
        addresses.print();
        println!(
            "\nServing until Ctrl-C. Sessions ask for strict freshness unless they set pgstar.freshness. Try"
        );
        println!(
            "  psql '{}' -c \"EXPLAIN (PGSTAR) SELECT d_year, sum(lo_revenue) FROM lineorder, date WHERE lo_orderdate = d_datekey GROUP BY 1\"",
            addresses.through
        );
        std::future::pending::<()>().await;
    }
    proxy.stop().await;
    server
        .stop()
        .await
        .map_err(|error| Failure::while_doing("stop PostgreSQL", error))?;
    println!("\nTo keep PostgreSQL and pgstar serving, and connect with psql: pgstar demo --keep");
    verdict(&measured, &beside)
}

struct Addresses {
    direct: String,
    through: String,
}

impl Addresses {
    fn of(server: &Server, proxy: &Proxy) -> Self {
        let direct = server.url(DATABASE);
        let through = direct.replace(
            &format!(":{}/", server.port()),
            &format!(":{}/", proxy.address().port()),
        );
        Addresses { direct, through }
    }

    /// The two lines that scripts wait for.
    fn print(&self) {
        println!("\ndirect: {}", self.direct);
        println!("pgstar: {}", self.through);
    }
}

async fn start_server(steps: &Steps) -> Result<Server, Failure> {
    let settings = [
        ("max_wal_size", "8GB"),
        ("work_mem", "64MB"),
        ("maintenance_work_mem", "256MB"),
        ("jit", "off"),
    ];
    let options = ServerOptions {
        shared_buffers: Some("1GB".to_owned()),
        synchronous_commit: false,
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        progress: steps.server_progress(),
        ..ServerOptions::default()
    };
    let server = Server::start(options)
        .await
        .map_err(|error| Failure::while_doing("start PostgreSQL", error))?;
    steps.done(&format!(
        "PostgreSQL {} started on port {}",
        server.version(),
        server.port()
    ));
    Ok(server)
}

async fn load(server: &Server, options: &Demo, steps: &Steps) -> Result<(), Failure> {
    let creating = "create the demo's database";
    let connector = pgstar_postgres::connect::Connector::new(server.config("postgres"))
        .map_err(|error| Failure::while_doing(creating, error))?;
    let connection = connector
        .connect()
        .await
        .map_err(|error| Failure::while_doing(creating, error))?;
    connection
        .batch_execute(&format!("CREATE DATABASE {DATABASE}"))
        .await
        .map_err(|error| Failure::while_doing(creating, error))?;
    let scale = ssb::Scale::try_from(options.scale.factor())
        .map_err(|error| Failure::BadUsage(error.to_string()))?;
    let loaded = ssb::load(&server.config(DATABASE), scale, SEED, &|step| {
        steps.loading(&step)
    })
    .await;
    let loaded =
        loaded.map_err(|error| Failure::while_doing("load the Star Schema Benchmark", error))?;
    log_old_rows(server).await?;
    steps.done(&format!(
        "Star Schema Benchmark loaded at scale {}: {} lineorder rows",
        options.scale, loaded.lineorder
    ));
    Ok(())
}

async fn log_old_rows(server: &Server) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::while_doing("have old rows logged", error.to_string())
    };
    let connection = measure::session(&server.url(DATABASE)).await?;
    let altered = connection.batch_execute(LOG_OLD_ROWS).await;
    altered.map_err(|error| failed(&error))
}

async fn start_proxy(server: &Server, steps: &Steps) -> Result<Proxy, Failure> {
    let config = config(server)?;
    let proxy = Proxy::start(&config).await?;
    let built = proxy
        .warehouse()
        .build_missing(&|rollup, step| steps.building(rollup, &step))
        .await;
    let built = built.map_err(|error| Failure::while_doing("build the rollups", error))?;
    let snapshot = proxy.warehouse().snapshot();
    let bytes: u64 = snapshot.ready.iter().map(|ready| ready.built.bytes).sum();
    steps.done(&format!(
        "{built} rollups built, {} MiB with their indexes",
        bytes >> 20
    ));
    proxy.keep_rollups();
    follow(&proxy).await?;
    steps.done("The rollups follow every change of their tables");
    Ok(proxy)
}

/// Waits until every rollup is shown to be current.
async fn follow(proxy: &Proxy) -> Result<(), Failure> {
    let follower = proxy.warehouse().follower();
    let snapshot = proxy.warehouse().snapshot();
    let tables = snapshot.ready.iter();
    let tables: Vec<&str> = tables.map(|ready| ready.built.table.as_str()).collect();
    let failed = |why| Failure::while_doing("follow the changes", format!("{why:?}"));
    follower.settled(FOLLOWING).await.map_err(failed)?;
    let proven = follower.in_step(&tables, FOLLOWING).await;
    proven.map(drop).map_err(failed)
}

/// The example configuration, on free ports and for the demo's server.
fn config(server: &Server) -> Result<Config, Failure> {
    let mut config =
        Config::from_text(Path::new("pgstar.toml"), EXAMPLE).map_err(Failure::BadConfig)?;
    config.upstream =
        server
            .url(DATABASE)
            .parse()
            .map_err(|complaint: crate::config::Complaint| {
                Failure::while_doing("name the demo's server", complaint.message)
            })?;
    config.listen.set_port(0);
    config.admin = None;
    Ok(config)
}

fn write_json(file: &Path, measured: &[Measured]) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::while_doing(format!("write {}", file.display()), error.to_string())
    };
    let objects = measured
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| failed(&error))?;
    std::fs::write(file, format!("[\n{}\n]\n", objects.join(",\n"))).map_err(|error| failed(&error))
}

fn verdict(measured: &[Measured], beside: &[Changing]) -> Result<(), Failure> {
    let wrong = measured
        .iter()
        .filter(|query| !query.same || query.rollup.is_none())
        .map(|query| query.query);
    // Beside a loader a rollup may be late for once, but never wrong.
    let wrong_beside = beside
        .iter()
        .filter(|query| !query.same)
        .map(|query| query.query);
    let wrong: Vec<&str> = wrong.chain(wrong_beside).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(Failure::while_doing(
        "answer every query from a rollup with PostgreSQL's rows",
        format!("see {}", wrong.join(", ")),
    ))
}
