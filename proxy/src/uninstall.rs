//! `pgstar uninstall`: takes everything of pgstar's from the server, or says what that would be.

use pgstar_postgres::connect::{Connection, Connector};
use pgstar_postgres::maintain::Maintainer;
use pgstar_postgres::rollups::SCHEMA;
use pgstar_postgres::stream::{PASSING_PUBLICATION, PUBLICATION};

use crate::config::Config;
use crate::failure::Failure;

/// What is there, a line for each thing.
const FOUND: &str = "
  SELECT 'schema \"' || n.nspname || '\" with ' || (SELECT count(*) FROM pg_class c
           WHERE c.relnamespace = n.oid AND c.relkind = 'r') || ' tables'
    FROM pg_namespace n WHERE n.nspname = $1
   UNION ALL
  SELECT 'publication \"' || p.pubname || '\"' FROM pg_publication p
   WHERE p.pubname = $2 OR starts_with(p.pubname, $3)
   UNION ALL
  SELECT 'replication slot \"' || s.slot_name || '\"' FROM pg_replication_slots s
   WHERE s.slot_name LIKE $2 || '%' AND s.database = current_database() AND NOT s.temporary";

/// Drops it all if `yes`, else only lists it.
///
/// # Errors
/// The server cannot be reached, pgstar's role may not drop what is there, or a pgstar is running.
pub async fn run(config: Config, yes: bool) -> Result<(), Failure> {
    let doing = || format!("uninstall from {}", config.upstream);
    let failed = |error: &dyn std::fmt::Display| Failure::while_doing(doing(), error.to_string());
    let connection = config.upstream.connection();
    let connector = Connector::new(connection.clone()).map_err(|error| failed(&error))?;
    let client = connector.connect().await.map_err(|error| failed(&error))?;
    let found = found(&client).await.map_err(|error| failed(&error))?;
    if found.is_empty() {
        println!("There is nothing of pgstar's.");
        return Ok(());
    }
    if !yes {
        println!("This would be dropped; run it again with --yes to do so:");
        found.iter().for_each(|what| println!("  {what}"));
        return Ok(());
    }
    if let Some(slot) = slot_in_use(&client).await.map_err(|error| failed(&error))? {
        let why =
            format!("replication slot \"{slot}\" is in use; stop the pgstar that uses it first");
        return Err(failed(&why));
    }
    Maintainer::uninstall(connection.clone())
        .await
        .map_err(|error| failed(&error))?;
    let drop = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE");
    client
        .batch_execute(&drop)
        .await
        .map_err(|error| failed(&error))?;
    found.iter().for_each(|what| println!("Dropped {what}."));
    Ok(())
}

/// A running pgstar would bring back what is dropped.
async fn slot_in_use(client: &Connection) -> Result<Option<String>, tokio_postgres::Error> {
    let sql = "SELECT slot_name::text FROM pg_replication_slots
                WHERE slot_name LIKE $1 || '%' AND database = current_database() AND active";
    let row = client
        .query_opt(&format!("{sql} LIMIT 1"), &[&PUBLICATION])
        .await?;
    row.map(|row| row.try_get(0)).transpose()
}

async fn found(client: &Connection) -> Result<Vec<String>, tokio_postgres::Error> {
    let rows = client
        .query(FOUND, &[&SCHEMA, &PUBLICATION, &PASSING_PUBLICATION])
        .await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}
