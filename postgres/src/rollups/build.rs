//! Builds one generation of a rollup, in one transaction.

use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::interval;
use tokio_postgres::{Client, IsolationLevel, Transaction};
use tracing::{debug, info, warn};

use super::{BuildPlan, BuildProgress, BuiltRollup, OnProgress, RollupError, SCHEMA, Sources};
use super::{finer, grants, naming, shape, state, sweep};
use crate::connect::{Error, Reported};
use crate::identifier::{quote, quote_qualified};

/// A table of fewer rows is read faster without an index.
const INDEXED_ROWS_MIN: u64 = 10_000;

/// Room for a group's next state beside the present one, so that no index has to be told.
const FILLFACTOR: u8 = 80;

const TICK: Duration = Duration::from_secs(1);

/// Builds the next generation and names it as the rollup's, from another rollup where that is possible. The caller
/// holds the rollup's lock.
pub(super) async fn build(
    client: &mut Client,
    plan: &BuildPlan,
    sources: &Sources,
    progress: OnProgress<'_>,
) -> Result<BuiltRollup, RollupError> {
    notice_a_dead_client(client).await;
    let mut reads = Reads::Undecided;
    let built = match build_in_transaction(client, plan, sources, &mut reads, progress).await {
        // The other rollup's table may have made way for its next one.
        Err(error) if reads != Reads::Base && !client.is_closed() => {
            debug!(%error, rollup = plan.name, "Building from the base tables instead.");
            let none = Sources::none();
            build_in_transaction(client, plan, &none, &mut reads, progress).await?
        }
        built => built?,
    };
    set_hint_bits(client, &built.table).await;
    info!(
        rollup = built.name,
        table = built.table,
        rows = built.rows,
        bytes = built.bytes,
        from = reads.rollup(),
        "Built a rollup."
    );
    Ok(built)
}

/// What a table is filled from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reads {
    Undecided,
    Base,
    /// This rollup's table.
    Rollup(String),
}

impl Reads {
    fn rollup(&self) -> Option<&str> {
        match self {
            Reads::Rollup(rollup) => Some(rollup),
            Reads::Undecided | Reads::Base => None,
        }
    }
}

async fn build_in_transaction(
    client: &mut Client,
    plan: &BuildPlan,
    sources: &Sources,
    reads: &mut Reads,
    progress: OnProgress<'_>,
) -> Result<BuiltRollup, RollupError> {
    let started = Instant::now();
    let validated = shape::log_end(client).await?;
    let shape = shape::look(client, &plan.base_relations)
        .await?
        .of(&plan.base_relations);
    // One snapshot for everything, taken after the instant noted here, so that it can be said what the
    // rollup contains.
    let isolation = IsolationLevel::RepeatableRead;
    let mut transaction = client
        .build_transaction()
        .isolation_level(isolation)
        .start()
        .await?;
    let instant = transaction
        .query_one("SELECT now(), pg_current_snapshot()::text", &[])
        .await?;
    let now: SystemTime = instant.try_get(0)?;
    let base = state::Progress {
        shape,
        validated,
        snapshot: instant.try_get(1)?,
    };
    let filling = finer::filling(&transaction, plan, sources, now).await?;
    let (select, contents, built_at);
    (*reads, select, contents, built_at) = match filling {
        Some(filling) => {
            let reads = Reads::Rollup(filling.rollup);
            (reads, filling.select, filling.contents, filling.built_at)
        }
        None => (Reads::Base, plan.select.clone(), base, now),
    };
    let generation = state::next_generation(&transaction).await?;
    let table = naming::table_name(&plan.name, generation);
    let scanning = |elapsed| {
        let from = reads.rollup().map(str::to_owned);
        progress(BuildProgress::Scanning { elapsed, from });
    };
    let rows = materialize(&transaction, plan, &table, &select, &scanning).await?;
    finish_table(&mut transaction, plan, &table, rows, progress).await?;
    let built = BuiltRollup {
        name: plan.name.clone(),
        fingerprint: plan.fingerprint.clone(),
        schema: SCHEMA.to_owned(),
        bytes: total_bytes(&transaction, &table).await?,
        table,
        rows,
        built_at,
        build_time: started.elapsed(),
    };
    state::record(&transaction, plan, generation, &built).await?;
    state::record_progress(&transaction, &built.table, &contents).await?;
    transaction.commit().await?;
    Ok(built)
}

/// Runs the SELECT. CREATE TABLE AS and not INSERT, which PostgreSQL never runs in parallel.
async fn materialize(
    transaction: &Transaction<'_>,
    plan: &BuildPlan,
    table: &str,
    select: &str,
    scanning: &(dyn Fn(Duration) + Sync),
) -> Result<u64, RollupError> {
    let sql = format!(
        "CREATE TABLE {} WITH (fillfactor = {FILLFACTOR}) AS\n{select}",
        quote_qualified(SCHEMA, table)
    );
    let started = Instant::now();
    let mut ticks = interval(TICK);
    let mut running = pin!(transaction.execute(&sql, &[]));
    loop {
        tokio::select! {
            rows = &mut running => return rows.map_err(|source| RollupError::Build {
                rollup: plan.name.clone(),
                source: Error::Query(source),
            }),
            _ = ticks.tick() => scanning(started.elapsed()),
        }
    }
}

/// Everything that the table needs before somebody may see it.
async fn finish_table(
    transaction: &mut Transaction<'_>,
    plan: &BuildPlan,
    table: &str,
    rows: u64,
    progress: OnProgress<'_>,
) -> Result<(), RollupError> {
    sweep::mark_as_generation(transaction, table, &plan.name).await?;
    // Before ANALYZE, which counts the hash's values too: without that count PostgreSQL takes each for one of
    // 200, and reads the whole rollup for every batch.
    if !plan.key_columns.is_empty() {
        index_groups(transaction, plan, table).await?;
    }
    progress(BuildProgress::Analyzing);
    transaction
        .batch_execute(&format!("ANALYZE {}", quote_qualified(SCHEMA, table)))
        .await?;
    if rows > INDEXED_ROWS_MIN {
        for column in columns_worth_an_index(transaction, plan, table).await? {
            progress(BuildProgress::Indexing {
                column: column.clone(),
            });
            index(transaction, table, &column).await?;
        }
    }
    grants::grant_on_new_table(transaction, plan, table).await
}

/// Upkeep finds a group by the hash of its keys, whatever their number and whether or not they are NULL.
async fn index_groups(
    transaction: &mut Transaction<'_>,
    plan: &BuildPlan,
    table: &str,
) -> Result<(), RollupError> {
    let keys: Vec<String> = plan.key_columns.iter().map(|key| quote(key)).collect();
    let sql = format!(
        "CREATE INDEX ON {} ((hash_record_extended(ROW({}), 0)))",
        quote_qualified(SCHEMA, table),
        keys.join(", ")
    );
    let savepoint = transaction.transaction().await?;
    match savepoint.batch_execute(&sql).await {
        Ok(()) => Ok(savepoint.commit().await?),
        Err(error) => {
            warn!(error = %Reported(&error), table, "A rollup's groups stay without an index.");
            Ok(savepoint.rollback().await?)
        }
    }
}

/// Key columns with more than one value: 1 is one value, a negative number a share of the rows, and
/// 0 or no row at all means that every value is NULL.
async fn columns_worth_an_index(
    transaction: &Transaction<'_>,
    plan: &BuildPlan,
    table: &str,
) -> Result<Vec<String>, RollupError> {
    let sql = "SELECT s.attname::text FROM pg_stats s
                WHERE s.schemaname = $1 AND s.tablename = $2 AND s.n_distinct NOT IN (0, 1)";
    let rows = transaction.query(sql, &[&SCHEMA, &table]).await?;
    let varied: Vec<String> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let keys = plan.key_columns.iter();
    Ok(keys
        .filter(|column| varied.contains(column))
        .cloned()
        .collect())
}

/// An index that cannot be built (a type without an order, a value that is too long) is done without.
async fn index(
    transaction: &mut Transaction<'_>,
    table: &str,
    column: &str,
) -> Result<(), RollupError> {
    let sql = format!(
        "CREATE INDEX ON {} ({})",
        quote_qualified(SCHEMA, table),
        quote(column)
    );
    let savepoint = transaction.transaction().await?;
    match savepoint.batch_execute(&sql).await {
        Ok(()) => Ok(savepoint.commit().await?),
        Err(error) => {
            warn!(error = %Reported(&error), table, column, "A rollup's column stays without an index.");
            Ok(savepoint.rollback().await?)
        }
    }
}

async fn total_bytes(transaction: &Transaction<'_>, table: &str) -> Result<u64, RollupError> {
    let sql = "SELECT pg_total_relation_size(c.oid) FROM pg_class c
                WHERE c.relnamespace = $1::text::regnamespace AND c.relname = $2";
    let bytes: i64 = transaction
        .query_one(sql, &[&SCHEMA, &table])
        .await?
        .try_get(0)?;
    Ok(bytes.max(0).cast_unsigned())
}

/// Lets the server give up a long SELECT soon after pgstar was killed. Not every operating system
/// can tell, and then the SELECT runs to its end for nothing.
async fn notice_a_dead_client(client: &Client) {
    if let Err(error) = client
        .batch_execute("SET client_connection_check_interval = '5s'")
        .await
    {
        debug!(error = %Reported(&error), "The server cannot check for dead clients.");
    }
}

/// VACUUM marks the rows as visible to all, which otherwise the first dashboards would do, page by
/// page. Without it answers are the same.
async fn set_hint_bits(client: &Client, table: &str) {
    let sql = format!("VACUUM {}", quote_qualified(SCHEMA, table));
    if let Err(error) = client.batch_execute(&sql).await {
        debug!(error = %Reported(&error), table, "A new rollup table could not be vacuumed.");
    }
}
