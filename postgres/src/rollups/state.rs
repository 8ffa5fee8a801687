//! The state table: which generation's table holds each rollup.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row, Transaction};

use super::{BuildPlan, BuiltRollup, RollupError, SCHEMA};

/// Only rollups whose table is there: somebody may have dropped it by hand.
const LIST: &str = "
  SELECT s.name, s.fingerprint, s.table_name, s.rows, s.bytes, s.built_at, s.build_ms
    FROM pgstar.rollup_state s
    JOIN pg_class c ON c.relname = s.table_name
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'pgstar'
   WHERE $1::text IS NULL OR s.name = $1
   ORDER BY s.name";

pub(super) async fn list(client: &Client) -> Result<Vec<BuiltRollup>, RollupError> {
    read(client, None).await
}

pub(super) async fn find(client: &Client, name: &str) -> Result<Option<BuiltRollup>, RollupError> {
    Ok(read(client, Some(name)).await?.pop())
}

/// The rollup as it is, when nothing about its plan has changed since it was built.
pub(super) async fn find_unchanged(
    client: &Client,
    plan: &BuildPlan,
) -> Result<Option<BuiltRollup>, RollupError> {
    let current = find(client, &plan.name).await?;
    Ok(current.filter(|built| built.fingerprint == plan.fingerprint))
}

async fn read(client: &Client, name: Option<&str>) -> Result<Vec<BuiltRollup>, RollupError> {
    match client.query(LIST, &[&name]).await {
        Ok(rows) => rows.iter().map(built_of).collect(),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn built_of(row: &Row) -> Result<BuiltRollup, RollupError> {
    // The table's columns are bigint; none of these is ever negative.
    let count = |column: usize| -> Result<u64, RollupError> {
        Ok(row.try_get::<_, i64>(column)?.max(0).cast_unsigned())
    };
    Ok(BuiltRollup {
        name: row.try_get(0)?,
        fingerprint: row.try_get(1)?,
        schema: SCHEMA.to_owned(),
        table: row.try_get(2)?,
        rows: count(3)?,
        bytes: count(4)?,
        built_at: row.try_get(5)?,
        build_time: Duration::from_millis(count(6)?),
    })
}

/// A number that no table of pgstar's has had.
pub(super) async fn next_generation(transaction: &Transaction<'_>) -> Result<i64, RollupError> {
    let sql = "SELECT nextval('pgstar.rollup_generation')";
    Ok(transaction.query_one(sql, &[]).await?.try_get(0)?)
}

const RECORD: &str = "
  INSERT INTO pgstar.rollup_state
         (name, fingerprint, table_name, generation, definition, rows, bytes, built_at, build_ms)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
  ON CONFLICT (name) DO UPDATE SET
         (fingerprint, table_name, generation, definition, rows, bytes, built_at, build_ms)
       = (excluded.fingerprint, excluded.table_name, excluded.generation, excluded.definition,
          excluded.rows, excluded.bytes, excluded.built_at, excluded.build_ms)";

/// Names the new table as the rollup's; takes effect with the transaction that made the table.
pub(super) async fn record(
    transaction: &Transaction<'_>,
    plan: &BuildPlan,
    generation: i64,
    built: &BuiltRollup,
) -> Result<(), RollupError> {
    let milliseconds = i64::try_from(built.build_time.as_millis()).unwrap_or(i64::MAX);
    transaction
        .execute(
            RECORD,
            &[
                &built.name,
                &built.fingerprint,
                &built.table,
                &generation,
                &plan.select,
                &built.rows.cast_signed(),
                &built.bytes.cast_signed(),
                &built.built_at,
                &milliseconds,
            ],
        )
        .await?;
    Ok(())
}

/// Takes the rollup out of the table; whether it was in it.
pub(super) async fn forget(client: &Client, name: &str) -> Result<bool, RollupError> {
    match client
        .execute("DELETE FROM pgstar.rollup_state WHERE name = $1", &[&name])
        .await
    {
        Ok(rows) => Ok(rows > 0),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// What a rollup's table contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// Of the base tables, looked at after `validated` was read and before the snapshot was taken.
    pub(super) shape: String,
    pub(super) validated: String,
    pub(super) snapshot: String,
}

/// Takes effect with the transaction that made the table.
pub(super) async fn record_progress(
    transaction: &Transaction<'_>,
    table: &str,
    progress: &Progress,
    filled_from: Option<&str>,
) -> Result<(), RollupError> {
    let sql =
        "INSERT INTO pgstar.rollup_progress (table_name, shape, validated, snapshot, filled_from)
               VALUES ($1, $2, $3::text::pg_lsn, $4, $5)";
    let Progress {
        shape,
        validated,
        snapshot,
    } = progress;
    transaction
        .execute(sql, &[&table, shape, validated, snapshot, &filled_from])
        .await?;
    Ok(())
}

/// What this table contains is not known if its source was found to be wrong while it was filled, or made way for another.
pub(super) async fn forget_unless_recorded(
    client: &Client,
    table: &str,
    source: &str,
) -> Result<(), RollupError> {
    let sql = "DELETE FROM pgstar.rollup_progress WHERE table_name = $1
                  AND NOT EXISTS (SELECT FROM pgstar.rollup_state s JOIN pgstar.rollup_progress p USING (table_name)
                                   WHERE s.table_name = $2)";
    client.execute(sql, &[&table, &source]).await?;
    Ok(())
}
