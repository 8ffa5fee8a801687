//! `pgstar check`: compares the configuration with the live database, and changes nothing.

use crate::config::Config;
use crate::failure::Failure;
use crate::serve::{load_certificate, open_pool, open_warehouse};

/// Says that the file fits, or everything that does not.
///
/// # Errors
/// The server cannot be reached, or rollups do not fit the database.
pub async fn run(config: Config) -> Result<(), Failure> {
    let warehouse = open_warehouse(&config).await?;
    open_pool(&config).await?;
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
    Ok(())
}
