//! `pgstar check`: compares the configuration with the live database, and changes nothing.

use std::sync::Arc;

use pgstar_postgres::connect::Connector;
use pgstar_postgres::stream::ChangeStream;
use pgstar_rewriter::catalog::Oid;

use crate::config::Config;
use crate::failure::Failure;
use crate::serve::{load_certificate, open_pool, open_warehouse};
use crate::warehouse::Snapshot;

/// Says that the file fits, or everything that does not.
///
/// # Errors
/// The server cannot be reached, or rollups do not fit the database.
pub async fn run(config: Config) -> Result<(), Failure> {
    let warehouse = open_warehouse(&config).await?;
    open_pool(&config, &Arc::default()).await?;
    if let Some(settings) = &config.tls {
        load_certificate(settings)?;
    }
    let snapshot = warehouse.snapshot();
    println!(
        "{}: the configuration is valid and fits database \"{}\"",
        config.file.display(),
        snapshot.database
    );
    for ready in &snapshot.ready {
        println!(
            "  rollup {}: built, {} rows",
            ready.built.name, ready.built.rows
        );
    }
    for absent in &snapshot.absent {
        println!(
            "  rollup {}: {}; pgstar serve will build it",
            absent.name, absent.because
        );
    }
    check_stream(&config, &snapshot).await
}

/// Says whether changes can be followed. Without that everything works but strict freshness, so it is no
/// failure.
async fn check_stream(config: &Config, snapshot: &Snapshot) -> Result<(), Failure> {
    let tables: Vec<Oid> = snapshot.wanted.iter().copied().collect();
    if tables.is_empty() {
        return Ok(());
    }
    let checked = ChangeStream::check(config.upstream.connection().clone(), &tables).await;
    let (problems, refusals) =
        checked.map_err(|error| Failure::while_doing("look at the change stream", error))?;
    if problems.is_empty() && refusals.is_empty() {
        println!("  strict freshness: available");
        return warn_of_retained_log(config).await;
    }
    println!("  strict freshness: not available, and base tables answer strict statements:");
    for problem in problems {
        println!("    {problem}");
    }
    for refusal in refusals {
        println!("    {}", refusal.reason);
    }
    Ok(())
}

/// The server keeps its log for pgstar's slot also while no pgstar is running.
async fn warn_of_retained_log(config: &Config) -> Result<(), Failure> {
    let asking = "ask how much log may be retained";
    let connector = Connector::new(config.upstream.connection().clone())
        .map_err(|error| Failure::while_doing(asking, error))?;
    let client = connector
        .shared()
        .await
        .map_err(|error| Failure::while_doing(asking, error))?;
    let sql = "SELECT current_setting('max_slot_wal_keep_size')";
    let row = client.query_one(sql, &[]).await;
    let limit: String = row
        .and_then(|row| row.try_get(0))
        .map_err(|error| Failure::while_doing(asking, error))?;
    if limit == "-1" {
        println!(
            "    max_slot_wal_keep_size is not set: while no pgstar is running the server keeps all of its log for the \
             next one, until the disk is full; as a superuser run: ALTER SYSTEM SET max_slot_wal_keep_size = '64GB'; \
             SELECT pg_reload_conf(). A slot that loses its log is made anew, and its rollups are built again"
        );
    }
    Ok(())
}
