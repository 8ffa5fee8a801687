//! `pgstar rollup`: lists, rebuilds and drops rollups by hand.

use pgstar_postgres::rollups::{BuildProgress, BuiltRollup};

use crate::cli::RollupAction;
use crate::config::Config;
use crate::failure::Failure;
use crate::serve::open_warehouse;
use crate::warehouse::{PartsDone, Snapshot, Warehouse};

/// Does what was asked, saying what it does.
///
/// # Errors
/// The server cannot be reached, rollups do not fit the database, or there is no such rollup.
pub async fn run(config: Config, action: RollupAction) -> Result<(), Failure> {
    let warehouse = open_warehouse(&config).await?;
    match action {
        RollupAction::List => list(&warehouse).await,
        RollupAction::Rebuild { name } => rebuild(&config, &warehouse, &name).await,
        RollupAction::Drop { name } => drop_rollup(&warehouse, &name).await,
    }
}

async fn list(warehouse: &Warehouse) -> Result<(), Failure> {
    let built = warehouse
        .store()
        .list()
        .await
        .map_err(|error| Failure::while_doing("list rollups", error))?;
    let snapshot = warehouse.snapshot();
    println!(
        "{:<32} {:>12} {:>10} {:>12}  state",
        "rollup", "rows", "MiB", "age"
    );
    for rollup in &built {
        println!("{}", line(rollup, &snapshot));
    }
    let is_built = |name: &str| built.iter().any(|rollup| rollup.name == name);
    for absent in snapshot
        .absent
        .iter()
        .filter(|absent| !is_built(&absent.name))
    {
        println!(
            "{:<32} {:>12} {:>10} {:>12}  {}",
            absent.name, "-", "-", "-", absent.because
        );
    }
    Ok(())
}

fn line(rollup: &BuiltRollup, snapshot: &Snapshot) -> String {
    let absent = snapshot
        .absent
        .iter()
        .find(|absent| absent.name == rollup.name);
    let is_ready = snapshot
        .ready
        .iter()
        .any(|ready| ready.built.name == rollup.name);
    let state = match (absent, is_ready) {
        (Some(absent), _) => absent.because.as_str(),
        (None, true) => "ready",
        (None, false) => "not declared in the configuration",
    };
    let mebibytes = rollup.bytes as f64 / f64::from(1 << 20);
    format!(
        "{:<32} {:>12} {:>10.1} {:>10} s  {state}",
        rollup.name,
        rollup.rows,
        mebibytes,
        Snapshot::age(rollup).as_secs()
    )
}

async fn rebuild(config: &Config, warehouse: &Warehouse, name: &str) -> Result<(), Failure> {
    let doing = || format!("rebuild rollup \"{name}\"");
    let Some(rollup) = config
        .rollups
        .iter()
        .find(|rollup| rollup.name.as_str() == name)
    else {
        return Err(Failure::while_doing(
            doing(),
            format!("{} declares no rollup of that name", config.file.display()),
        ));
    };
    warehouse
        .store()
        .ensure_schema()
        .await
        .map_err(|error| Failure::while_doing(doing(), error))?;
    warehouse
        .rebuild(rollup, &print_progress)
        .await
        .map_err(|error| Failure::while_doing(doing(), error))?;
    Ok(())
}

async fn drop_rollup(warehouse: &Warehouse, name: &str) -> Result<(), Failure> {
    let doing = || format!("drop rollup \"{name}\"");
    let was_there = warehouse
        .store()
        .drop(name)
        .await
        .map_err(|error| Failure::while_doing(doing(), error))?;
    if !was_there {
        return Err(Failure::while_doing(
            doing(),
            "there is no table of a rollup of that name",
        ));
    }
    println!("Dropped rollup {name}.");
    Ok(())
}

fn print_progress(rollup: &str, progress: BuildProgress) {
    match progress {
        BuildProgress::Waiting { holder } => println!("{rollup}: waiting for {holder}"),
        BuildProgress::Scanning { elapsed, from } => {
            let read = from.map_or("the base tables".to_owned(), |from| {
                format!("rollup {from}")
            });
            println!("{rollup}: reading {read}, {} s", elapsed.as_secs());
        }
        BuildProgress::Part { done, all, rest } => {
            println!("{rollup}: {}", PartsDone { done, all, rest });
        }
        BuildProgress::Analyzing => println!("{rollup}: gathering statistics"),
        BuildProgress::Indexing { column } => println!("{rollup}: indexing {column}"),
        BuildProgress::Done { rows } => println!("{rollup}: built, {rows} rows"),
    }
}
