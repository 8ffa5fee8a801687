//! `pgstar check`: compares the configuration with the live database, and changes nothing.

use std::sync::Arc;

use pgstar_postgres::connect::{Connection, Connector};
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
    let client = client(config).await?;
    warn_of_identities(&client, &tables).await?;
    if problems.is_empty() && refusals.is_empty() {
        println!("  strict freshness: available");
        warn_of_publications(&client).await?;
        return warn_of_retained_log(&client).await;
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

/// A connection for the questions below.
async fn client(config: &Config) -> Result<Arc<Connection>, Failure> {
    let failed = |error| Failure::while_doing("connect to PostgreSQL", error);
    let connector = Connector::new(config.upstream.connection().clone()).map_err(failed)?;
    connector.shared().await.map_err(failed)
}

/// The old rows of changes are logged whole under REPLICA IDENTITY FULL only; partitions have their own.
const WITHOUT_OLD_ROWS: &str = "
  SELECT format('%I.%I', n.nspname, c.relname), s.n_tup_upd, s.n_tup_del
    FROM (SELECT unnest($1::oid[]) AS member
           UNION SELECT p.relid FROM unnest($1::oid[]) AS r(root), pg_partition_tree(r.root) p) t
    JOIN pg_class c ON c.oid = t.member JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_stat_all_tables s ON s.relid = c.oid
   WHERE c.relkind = 'r' AND c.relreplident <> 'f' AND s.n_tup_upd + s.n_tup_del > 0
   ORDER BY 1";

/// Says which tables have rows changed or removed whose old values rollups and kept answers will lack.
async fn warn_of_identities(client: &Connection, tables: &[Oid]) -> Result<(), Failure> {
    let asking = "ask which tables are changed";
    let failed = |error: &dyn std::fmt::Display| Failure::while_doing(asking, error.to_string());
    let tables: Vec<u32> = tables.iter().map(|table| table.0).collect();
    let rows = client.query(WITHOUT_OLD_ROWS, &[&tables]).await;
    for row in rows.map_err(|error| failed(&error))? {
        let value = |at| row.try_get::<_, i64>(at).unwrap_or_default();
        let table: String = row.try_get(0).map_err(|error| failed(&error))?;
        println!(
            "    {table} had {} rows updated and {} deleted; unless the rollup's columns are in its primary key, each \
             such change means to build rollups again, and ends all kept answers about it; run: ALTER TABLE {table} \
             REPLICA IDENTITY FULL",
            value(1),
            value(2)
        );
    }
    Ok(())
}

/// Publications that have pgstar's own tables, or will.
const PUBLISH_ALL: &str = "
  SELECT pubname::text FROM pg_publication WHERE puballtables
   UNION SELECT pubname::text FROM pg_publication_tables WHERE schemaname = 'pgstar' ORDER BY 1";

/// A subscriber stops at the first change of a table that it does not have.
async fn warn_of_publications(client: &Connection) -> Result<(), Failure> {
    let asking = "ask who publishes all tables";
    let rows = client.query(PUBLISH_ALL, &[]).await;
    for row in rows.map_err(|error| Failure::while_doing(asking, error))? {
        let name: String = row
            .try_get(0)
            .map_err(|error| Failure::while_doing(asking, error))?;
        println!(
            "    publication \"{name}\" has the tables of the schema pgstar, too: PostgreSQL's own subscriptions stop unless \
             they have these tables, and other subscribers see their changes; publish tables by name, or from \
             PostgreSQL 15 on FOR TABLES IN SCHEMA"
        );
    }
    Ok(())
}

/// The server keeps its log for pgstar's slot also while no pgstar is running.
async fn warn_of_retained_log(client: &Connection) -> Result<(), Failure> {
    let asking = "ask how much log may be retained";
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
