//! Drops generation tables that neither the state table nor that of parts names.
//!
//! A new generation becomes visible together with its name in the state table, so a table that one
//! snapshot shows without its name is out of use for good.

use tokio_postgres::{Client, Transaction};
use tracing::{info, warn};

use super::{RollupError, SCHEMA};
use crate::connect::Reported;
use crate::identifier::{quote_literal, quote_qualified};

/// What marks a table as pgstar's to drop; another table in the schema is left alone.
const MARK: &str = "pgstar rollup ";

/// Waiting longer would make every new reader of the table wait behind the DROP.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";

/// Marks a new table as a generation of `rollup`.
pub(super) async fn mark_as_generation(
    transaction: &Transaction<'_>,
    table: &str,
    rollup: &str,
) -> Result<(), RollupError> {
    let table = quote_qualified(SCHEMA, table);
    let comment = quote_literal(&format!("{MARK}{rollup}"));
    transaction
        .batch_execute(&format!("COMMENT ON TABLE {table} IS {comment}"))
        .await?;
    Ok(())
}

/// One statement, and so one snapshot of all tables.
const UNUSED: &str = "
  SELECT c.relname::text
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_description d
      ON d.objoid = c.oid AND d.classoid = 'pg_class'::regclass AND d.objsubid = 0
   WHERE n.nspname = 'pgstar' AND c.relkind = 'r' AND starts_with(d.description, $1)
     AND pg_has_role(c.relowner, 'USAGE')
     AND NOT EXISTS (SELECT FROM pgstar.rollup_state s WHERE s.table_name = c.relname)
     AND NOT EXISTS (SELECT FROM pgstar.rollup_part r WHERE r.table_name = c.relname)
   ORDER BY c.relname";

/// Drops what it can and returns those names; a table in use stays for the next time.
pub(super) async fn sweep(client: &mut Client) -> Result<Vec<String>, RollupError> {
    let rows = client.query(UNUSED, &[&MARK]).await?;
    let unused: Vec<String> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let mut dropped = Vec::new();
    for table in unused {
        match drop_table(client, &table).await {
            Ok(()) => {
                info!(table, "Dropped an old rollup table.");
                dropped.push(table);
            }
            Err(error) => {
                warn!(error = %Reported(&error), table, "An old rollup table stays for now.");
            }
        }
    }
    Ok(dropped)
}

async fn drop_table(client: &mut Client, table: &str) -> Result<(), tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(LOCK_TIMEOUT).await?;
    let sql = format!("DROP TABLE IF EXISTS {}", quote_qualified(SCHEMA, table));
    transaction.batch_execute(&sql).await?;
    let forget = "DELETE FROM pgstar.rollup_progress WHERE table_name = $1";
    transaction.execute(forget, &[&table]).await?;
    transaction.commit().await
}
