//! Builds one generation of a rollup: in one transaction, or in one for each part and another one for all of them.

use std::collections::HashSet;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use pgstar_rewriter::catalog::Oid;
use tokio::time::interval_at;
use tokio_postgres::{Client, IsolationLevel, Transaction};
use tracing::{debug, info, warn};

use super::{BuildPlan, BuildProgress, BuiltRollup, OnProgress, RollupError, SCHEMA, Sources};
use super::{finer, grants, in_parts, lock, naming, parts, shape, state, sweep};
use crate::connect::{Error, Reported};
use crate::identifier::{quote, quote_qualified};
use crate::stream::{PUBLICATION, publication};

/// A table of fewer rows is read faster without an index.
const INDEXED_ROWS_MIN: u64 = 10_000;

/// Room for a group's next state beside the present one, so that no index has to be told.
const FILLFACTOR: u8 = 80;

/// Whether somebody publishes the table, as FOR ALL TABLES does.
const IS_PUBLISHED: &str = "
  SELECT EXISTS (SELECT FROM pg_publication_tables WHERE schemaname = $1 AND tablename = $2)";

/// What this transaction has read: each table, view or the like, whether it is a part of one of these tables, and its name.
/// As it is by now, of which its own snapshot would say nothing: SELECT finds tables by the names that they have by now.
const WHAT_WAS_READ: &str = "
  WITH RECURSIVE planned AS (
         SELECT unnest($1::oid[]) AS oid UNION
         SELECT i.inhrelid FROM pg_inherits i JOIN planned p ON p.oid = i.inhparent)
  SELECT l.relation, EXISTS (SELECT FROM planned p WHERE p.oid = l.relation), o.schema, o.name
    FROM pg_locks l, pg_identify_object('pg_class'::regclass, l.relation, 0) o
   WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid()
     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
     AND o.type IN ('table', 'view', 'materialized view', 'foreign table')
     AND o.schema NOT IN ('pg_catalog', 'pg_toast', $2)";

const TICK: Duration = Duration::from_secs(1);

/// Builds the next generation and names it as the rollup's: from another rollup where that is possible, else in parts where
/// that is worth it. The caller holds the rollup's lock.
pub(super) async fn build(
    client: &mut Client,
    plan: &BuildPlan,
    sources: &Sources,
    progress: OnProgress<'_>,
) -> Result<BuiltRollup, RollupError> {
    notice_a_dead_client(client).await;
    let from_another = match sources.plans.is_empty() {
        true => None,
        false => build_from_another(client, plan, sources, progress).await?,
    };
    let (built, from) = match from_another {
        Some((built, from)) => (built, Some(from)),
        None => match in_parts::build(client, plan, sources.keeps_parts, progress).await? {
            Some(built) => (built, None),
            None => (build_at_once(client, plan, progress).await?, None),
        },
    };
    set_hint_bits(client, &built.table).await;
    info!(
        rollup = built.name,
        table = built.table,
        rows = built.rows,
        bytes = built.bytes,
        from,
        "Built a rollup."
    );
    Ok(built)
}

/// From one of these other rollups, which is named; none if that is not possible.
async fn build_from_another(
    client: &mut Client,
    plan: &BuildPlan,
    sources: &Sources,
    progress: OnProgress<'_>,
) -> Result<Option<(BuiltRollup, String)>, RollupError> {
    lock::holding_changes(client, async |client| {
        match fill_from_another(client, plan, sources, progress).await {
            // The other rollup's table may have made way for its next one.
            Err(error) if !client.is_closed() => {
                debug!(%error, rollup = plan.name, "Building from the base tables instead.");
                Ok(None)
            }
            filled => filled,
        }
    })
    .await
}

async fn fill_from_another(
    client: &mut Client,
    plan: &BuildPlan,
    sources: &Sources,
    progress: OnProgress<'_>,
) -> Result<Option<(BuiltRollup, String)>, RollupError> {
    let mut build = Build::begin(client, plan).await?;
    let (transaction, now) = (&build.transaction, build.built_at);
    let Some(filling) = finer::filling(transaction, plan, sources, now).await? else {
        return Ok(None);
    };
    (build.contents, build.built_at) = (filling.contents, filling.built_at);
    build.filled_from = Some(filling.table.clone());
    let from = Some(filling.rollup.as_str());
    let table = build.materialize(&filling.select, from, progress).await?;
    let built = build.finish(table, progress).await?;
    state::forget_unless_recorded(client, &built.table, &filling.table).await?;
    Ok(Some((built, filling.rollup)))
}

async fn build_at_once(
    client: &mut Client,
    plan: &BuildPlan,
    progress: OnProgress<'_>,
) -> Result<BuiltRollup, RollupError> {
    lock::holding_changes(client, async |client| {
        let build = Build::begin(client, plan).await?;
        let table = build.materialize(&plan.select, None, progress).await?;
        build.finish(table, progress).await
    })
    .await
}

/// A transaction in which a table is built.
pub(super) struct Build<'a> {
    plan: &'a BuildPlan,
    pub(super) transaction: Transaction<'a>,
    /// When its first step was begun.
    pub(super) started: Instant,
    /// Every commit that was acknowledged before is in the table, by the server's clock.
    pub(super) built_at: SystemTime,
    /// What the table contains.
    pub(super) contents: state::Progress,
    /// The table of another rollup that it is filled from.
    filled_from: Option<String>,
    /// The tables that it is computed from as they were just before.
    look: shape::Look,
}

/// How the tables are, as every stream has them from now on until they are altered again.
async fn look_for_streams(client: &Client, tables: &[Oid]) -> Result<shape::Look, Error> {
    loop {
        let look = shape::look(client, tables).await?;
        publication::refresh(client, PUBLICATION).await?;
        if shape::look(client, tables).await?.is_same(&look) {
            return Ok(look);
        }
    }
}

/// A table of the next generation, with its rows.
pub(super) struct Table {
    pub(super) name: String,
    generation: i64,
    rows: u64,
}

impl<'a> Build<'a> {
    /// One snapshot for everything, taken after the instant that is noted, so that it can be said what is in a table
    /// that is computed from the base tables.
    pub(super) async fn begin(
        client: &'a mut Client,
        plan: &'a BuildPlan,
    ) -> Result<Self, RollupError> {
        let started = Instant::now();
        let validated = shape::log_end(client).await?;
        let look = look_for_streams(client, &plan.base_relations).await?;
        let isolation = IsolationLevel::RepeatableRead;
        let transaction = client.build_transaction().isolation_level(isolation);
        let transaction = transaction.start().await?;
        let instant = transaction
            .query_one("SELECT now(), pg_current_snapshot()::text", &[])
            .await?;
        Ok(Build {
            plan,
            started,
            built_at: instant.try_get(0)?,
            contents: state::Progress {
                shape: look.of(&plan.base_relations),
                validated,
                snapshot: instant.try_get(1)?,
            },
            filled_from: None,
            look,
            transaction,
        })
    }

    /// Runs the SELECT. CREATE TABLE AS and not INSERT, which PostgreSQL never runs in parallel.
    pub(super) async fn materialize(
        &self,
        select: &str,
        from: Option<&str>,
        progress: OnProgress<'_>,
    ) -> Result<Table, RollupError> {
        let mut table = self.next_table().await?;
        let sql = format!("{}\n{select}", created(&table.name));
        table.rows = self.execute(&sql, from, progress).await?;
        if from.is_none() {
            self.check_that_it_read_its_tables().await?;
        }
        Ok(table)
    }

    /// A name may have passed to another table, to a view of it, or to one that it has become a partition of. What was read
    /// is locked until the end, and keeps its name.
    async fn check_that_it_read_its_tables(&self) -> Result<(), RollupError> {
        let bases: Vec<u32> = self.plan.base_relations.iter().map(|base| base.0).collect();
        let rows = self
            .transaction
            .query(WHAT_WAS_READ, &[&bases, &SCHEMA])
            .await?;
        let mut read_as_planned = HashSet::new();
        let mut is_planned = true;
        for row in rows {
            let table = Oid(row.try_get(0)?);
            is_planned &= row.try_get::<_, bool>(1)?;
            if self.look.is_named(table, row.try_get(2)?, row.try_get(3)?) {
                read_as_planned.insert(table);
            }
        }
        let mut bases = self.plan.base_relations.iter();
        match is_planned && bases.all(|base| read_as_planned.contains(base)) {
            true => Ok(()),
            false => Err(RollupError::Renamed {
                rollup: self.plan.name.clone(),
            }),
        }
    }

    /// A table for what the plan's SELECT gives, filled by the statement that is printed for its name.
    pub(super) async fn insert(
        &self,
        statement: impl FnOnce(&str) -> String,
        progress: OnProgress<'_>,
    ) -> Result<Table, RollupError> {
        let mut table = self.next_table().await?;
        let create = format!(
            "{}\n{}\nWITH NO DATA",
            created(&table.name),
            self.plan.select
        );
        self.transaction.batch_execute(&create).await?;
        let insert = statement(&table.name);
        table.rows = self.execute(&insert, None, progress).await?;
        Ok(table)
    }

    async fn next_table(&self) -> Result<Table, RollupError> {
        let generation = state::next_generation(&self.transaction).await?;
        Ok(Table {
            name: naming::table_name(&self.plan.name, generation),
            generation,
            rows: 0,
        })
    }

    async fn execute(
        &self,
        sql: &str,
        from: Option<&str>,
        progress: OnProgress<'_>,
    ) -> Result<u64, RollupError> {
        let started = Instant::now();
        let tell = || {
            progress(BuildProgress::Scanning {
                elapsed: started.elapsed(),
                from: from.map(str::to_owned),
            });
        };
        // Of every build, however short.
        tell();
        let mut ticks = interval_at((started + TICK).into(), TICK);
        let mut running = pin!(self.transaction.execute(sql, &[]));
        loop {
            tokio::select! {
                _ = ticks.tick() => tell(),
                rows = &mut running => return rows.map_err(|source| RollupError::Build {
                    rollup: self.plan.name.clone(),
                    source: Error::Query(source),
                }),
            }
        }
    }

    /// Names the table as the rollup's.
    pub(super) async fn finish(
        mut self,
        table: Table,
        progress: OnProgress<'_>,
    ) -> Result<BuiltRollup, RollupError> {
        let (plan, transaction) = (self.plan, &mut self.transaction);
        finish_table(transaction, plan, &table.name, table.rows, progress).await?;
        let built = BuiltRollup {
            name: plan.name.clone(),
            fingerprint: plan.fingerprint.clone(),
            schema: SCHEMA.to_owned(),
            bytes: total_bytes(transaction, &table.name).await?,
            table: table.name,
            rows: table.rows,
            built_at: self.built_at,
            build_time: self.started.elapsed(),
        };
        state::record(transaction, plan, table.generation, &built).await?;
        let from = self.filled_from.as_deref();
        state::record_progress(transaction, &built.table, &self.contents, from).await?;
        parts::forget(transaction, &plan.name).await?;
        self.transaction.commit().await?;
        Ok(built)
    }

    /// Names the table as that of a part, which nobody reads but upkeep.
    pub(super) async fn finish_part(
        mut self,
        table: &Table,
        part: &parts::Recorded,
    ) -> Result<(), RollupError> {
        let (plan, transaction) = (self.plan, &mut self.transaction);
        prepare_for_upkeep(transaction, plan, &table.name).await?;
        grants::grant_on_new_table(transaction, plan, &table.name).await?;
        parts::record_built(transaction, plan, part, &table.name, self.built_at).await?;
        state::record_progress(transaction, &table.name, &self.contents, None).await?;
        Ok(self.transaction.commit().await?)
    }
}

fn created(table: &str) -> String {
    let table = quote_qualified(SCHEMA, table);
    format!("CREATE TABLE {table} WITH (fillfactor = {FILLFACTOR}) AS")
}

/// What a batch needs to find groups.
async fn prepare_for_upkeep(
    transaction: &mut Transaction<'_>,
    plan: &BuildPlan,
    table: &str,
) -> Result<(), RollupError> {
    sweep::mark_as_generation(transaction, table, &plan.name).await?;
    let published = transaction
        .query_one(IS_PUBLISHED, &[&SCHEMA, &table])
        .await?;
    // PostgreSQL refuses to change rows of a published table that do not say which they were. Otherwise that is only more log.
    if published.try_get(0)? {
        let table = quote_qualified(SCHEMA, table);
        let sql = format!("ALTER TABLE {table} REPLICA IDENTITY FULL");
        transaction.batch_execute(&sql).await?;
    }
    // Before ANALYZE, which counts the hash's values too: without that count PostgreSQL takes each for one of
    // 200, and reads the whole rollup for every batch.
    if !plan.key_columns.is_empty() {
        index_groups(transaction, plan, table).await?;
    }
    let analyze = format!("ANALYZE {}", quote_qualified(SCHEMA, table));
    Ok(transaction.batch_execute(&analyze).await?)
}

/// Everything that the table needs before somebody may see it.
async fn finish_table(
    transaction: &mut Transaction<'_>,
    plan: &BuildPlan,
    table: &str,
    rows: u64,
    progress: OnProgress<'_>,
) -> Result<(), RollupError> {
    progress(BuildProgress::Analyzing);
    prepare_for_upkeep(transaction, plan, table).await?;
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
