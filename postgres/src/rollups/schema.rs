//! Schema `pgstar` and its state table.

use tokio_postgres::Client;

use super::{RollupError, lock};

/// What is there already, and whether this role could make the rest.
struct Found {
    role: String,
    database: String,
    schema: bool,
    state: bool,
    may_create_schema: bool,
    may_create_tables: bool,
}

const FOUND: &str = "
  SELECT current_user::text, current_database()::text, n.oid IS NOT NULL,
         (SELECT count(*) = 5 FROM pg_class c
           WHERE c.relnamespace = n.oid
             AND c.relname IN ('rollup_state', 'rollup_progress', 'maintenance', 'followed_table', 'rollup_part')),
         has_database_privilege(current_database(), 'CREATE'),
         coalesce(has_schema_privilege(n.oid, 'CREATE'), false)
    FROM (VALUES ('pgstar')) AS wanted(name) LEFT JOIN pg_namespace n ON n.nspname = wanted.name";

/// Generation numbers come from one sequence and are never used twice: a reader that still knows
/// an old table's name must not find another rollup's rows under it.
const CREATE_STATE: &str = "
  CREATE SEQUENCE IF NOT EXISTS pgstar.rollup_generation;
  CREATE TABLE IF NOT EXISTS pgstar.rollup_state (
      name text PRIMARY KEY,
      fingerprint text NOT NULL,
      table_name text NOT NULL,
      generation bigint NOT NULL,
      definition text NOT NULL,
      rows bigint NOT NULL,
      bytes bigint NOT NULL,
      built_at timestamptz NOT NULL,
      build_ms bigint NOT NULL);
  COMMENT ON TABLE pgstar.rollup_state IS 'which table holds each rollup of pgstar';
  CREATE TABLE IF NOT EXISTS pgstar.rollup_progress (
      table_name text PRIMARY KEY,
      shape text NOT NULL,
      validated pg_lsn NOT NULL,
      snapshot text);
  ALTER TABLE pgstar.rollup_progress ADD COLUMN IF NOT EXISTS filled_from text;
  COMMENT ON COLUMN pgstar.rollup_progress.filled_from IS 'the table of another rollup that it was filled from';
  COMMENT ON TABLE pgstar.rollup_progress IS
      'what each rollup table of pgstar contains: what this snapshot saw, or without one that of pgstar.maintenance';
  CREATE TABLE IF NOT EXISTS pgstar.maintenance (
      only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
      system text NOT NULL,
      slot text NOT NULL,
      publication text NOT NULL,
      snapshot text NOT NULL,
      validated pg_lsn NOT NULL,
      floor text NOT NULL,
      batch bigint NOT NULL) WITH (fillfactor = 20);
  COMMENT ON TABLE pgstar.maintenance IS 'how far pgstar has brought its rollups';
  CREATE TABLE IF NOT EXISTS pgstar.followed_table (
      relation oid PRIMARY KEY,
      member oid NOT NULL,
      since text NOT NULL);
  COMMENT ON TABLE pgstar.followed_table IS
      'what this snapshot did not see of the table is in the stream of the slot in pgstar.maintenance';
  ALTER TABLE pgstar.followed_table ADD COLUMN IF NOT EXISTS part_column text, ADD COLUMN IF NOT EXISTS part_bytes bigint;
  CREATE TABLE IF NOT EXISTS pgstar.rollup_part (
      rollup text NOT NULL,
      fingerprint text NOT NULL,
      number integer NOT NULL,
      column_name text NOT NULL,
      type_oid oid NOT NULL,
      typmod integer NOT NULL,
      of_null boolean NOT NULL,
      first text,
      below text,
      table_name text,
      built_at timestamptz,
      PRIMARY KEY (rollup, number));
  COMMENT ON TABLE pgstar.rollup_part IS
      'parts of rollups that are being built: which of their fact''s rows each has, and its table if it is built'";

/// Creates what is missing. Existing objects need no privilege to create them.
pub(super) async fn ensure(client: &mut Client) -> Result<(), RollupError> {
    let transaction = client.transaction().await?;
    // Two pgstar processes that start together would otherwise both find nothing and collide.
    transaction
        .batch_execute(&lock::schema_lock_statement())
        .await?;
    let found = look(transaction.client()).await?;
    if found.state {
        return Ok(());
    }
    found.check_privileges()?;
    if !found.schema {
        transaction.batch_execute("CREATE SCHEMA pgstar").await?;
    }
    transaction.batch_execute(CREATE_STATE).await?;
    Ok(transaction.commit().await?)
}

async fn look(client: &Client) -> Result<Found, RollupError> {
    let row = client.query_one(FOUND, &[]).await?;
    Ok(Found {
        role: row.try_get(0)?,
        database: row.try_get(1)?,
        schema: row.try_get(2)?,
        state: row.try_get(3)?,
        may_create_schema: row.try_get(4)?,
        may_create_tables: row.try_get(5)?,
    })
}

impl Found {
    fn check_privileges(&self) -> Result<(), RollupError> {
        let role = self.role.clone();
        if !self.schema && !self.may_create_schema {
            let database = self.database.clone();
            return Err(RollupError::MayNotCreateSchema { role, database });
        }
        if self.schema && !self.may_create_tables {
            return Err(RollupError::SchemaNotOwned {
                role,
                action: "create tables in it",
            });
        }
        Ok(())
    }
}
