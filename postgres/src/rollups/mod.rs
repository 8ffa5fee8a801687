//! Keeps rollup tables in schema `pgstar`: builds them, remembers them, grants and drops them.
//!
//! It knows nothing of SQL: a plan brings the finished SELECT, and where a finer rollup is to be read instead (`finer`) the
//! rewriter does. Whoever makes plans decides what a rollup may serve.
//!
//! Life of a build, in `build`: wait for the rollup's lock (`lock`), then in one transaction create
//! the next generation's table, analyse, index and grant it (`grants`) and name it in the state table
//! (`state`). Until that commit nobody sees any of it, so a build that is killed leaves nothing
//! behind but the parts of a large one (`parts`, `in_parts`), with which the next attempt goes on. Afterwards the generation that the state table no longer names is dropped (`sweep`).

mod build;
mod finer;
mod grants;
mod in_parts;
pub(crate) mod lock;
mod naming;
pub(crate) mod parts;
mod schema;
pub(crate) mod shape;
mod state;
mod sweep;

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::zones_named;
use tokio_postgres::{Client, Config};

pub use finer::Sources;
pub use grants::Readers;

use crate::catalog::load_catalog_and_clocks;
use crate::connect::{Connection, Connector, Error};
use crate::give_way;

/// The schema that holds everything of pgstar's.
pub const SCHEMA: &str = "pgstar";

/// What to build; the rewriter makes it from a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildPlan {
    /// The rollup's name, as configured.
    pub name: String,
    /// Changes when the definition or the table's layout changes.
    pub fingerprint: String,
    /// The SELECT to materialise, with all names qualified.
    pub select: String,
    /// The output columns that queries filter and group by.
    pub key_columns: Vec<String>,
    /// Every table that the SELECT reads.
    pub base_relations: Vec<Oid>,
}

/// A rollup whose table is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltRollup {
    /// The rollup's name, as configured.
    pub name: String,
    /// Of the plan it was built from.
    pub fingerprint: String,
    /// Always [`SCHEMA`].
    pub schema: String,
    /// This generation's table; no later generation, of whatever rollup, has the same name.
    pub table: String,
    /// How many rows it has.
    pub rows: u64,
    /// What it takes on disk, indexes included.
    pub bytes: u64,
    /// By the server's clock, an instant just before the build's snapshot: every commit
    /// acknowledged before it is in the rollup.
    pub built_at: SystemTime,
    /// How long the build took.
    pub build_time: Duration,
}

/// How far a build is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildProgress {
    /// Somebody else builds or drops the same rollup.
    Waiting {
        /// Who, in words.
        holder: String,
    },
    /// The base tables or another rollup are being read. Told about once a second: PostgreSQL does not say how far it is.
    Scanning {
        /// Time since reading began.
        elapsed: Duration,
        /// The rollup that is read in the place of the base tables.
        from: Option<String>,
    },
    /// The base tables are read in parts, of which so many are done.
    Part {
        /// How many are done, some of them perhaps by an earlier attempt.
        done: usize,
        /// How many there are.
        all: usize,
        /// How long the others will take, if that can be told.
        rest: Option<Duration>,
    },
    /// Statistics are being gathered.
    Analyzing,
    /// A key column's index is being built.
    Indexing {
        /// The column.
        column: String,
    },
    /// The rollup can be used.
    Done {
        /// How many rows it has.
        rows: u64,
    },
}

/// Told of every [`BuildProgress`].
pub type OnProgress<'a> = &'a (dyn Fn(BuildProgress) + Sync);

/// Why a rollup could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum RollupError {
    /// Schema `pgstar` is missing and this role may not create it.
    #[error(
        "role \"{role}\" may not create schema \"{SCHEMA}\" in database \"{database}\"; as a superuser run: \
         CREATE SCHEMA {SCHEMA} AUTHORIZATION {}", crate::identifier::quote(.role)
    )]
    MayNotCreateSchema {
        /// pgstar's role.
        role: String,
        /// The database.
        database: String,
    },
    /// Schema `pgstar` is there, but this role may not do there what it has to.
    #[error(
        "role \"{role}\" does not own schema \"{SCHEMA}\" and may not {action}; as its owner or a \
         superuser run: ALTER SCHEMA {SCHEMA} OWNER TO {}", crate::identifier::quote(.role)
    )]
    SchemaNotOwned {
        /// pgstar's role.
        role: String,
        /// What it may not do.
        action: &'static str,
    },
    /// PostgreSQL could not run a rollup's SELECT.
    #[error("could not build rollup \"{rollup}\": {source}")]
    Build {
        /// The rollup's name.
        rollup: String,
        /// What went wrong.
        source: Error,
    },
    /// Its SELECT reads another table than it did when it was looked at.
    #[error("could not build rollup \"{rollup}\": a table of it was given another name")]
    Renamed {
        /// The rollup's name.
        rollup: String,
    },
    /// The connection, or a statement of upkeep.
    #[error(transparent)]
    Postgres(#[from] Error),
}

/// A session of a process that works says something sooner; others wait for what one holds that does not.
const GONE_AFTER: Duration = Duration::from_secs(30);

impl From<tokio_postgres::Error> for RollupError {
    fn from(error: tokio_postgres::Error) -> Self {
        RollupError::Postgres(Error::Query(error))
    }
}

/// The rollups of one database. Each call opens a connection of its own.
#[derive(Debug)]
pub struct RollupStore {
    connector: Connector,
}

impl RollupStore {
    /// A store that connects with `config`; nothing is opened yet.
    pub fn new(config: Config) -> Result<Self, Error> {
        Ok(RollupStore {
            connector: Connector::new(config)?,
        })
    }

    /// Creates schema `pgstar` and its state table if they are missing.
    pub async fn ensure_schema(&self) -> Result<(), RollupError> {
        let mut connection = self.maintenance_connection().await?;
        schema::ensure(&mut connection).await
    }

    /// Every rollup whose table is there, by name; none when the schema is missing.
    pub async fn list(&self) -> Result<Vec<BuiltRollup>, RollupError> {
        let connection = self.maintenance_connection().await?;
        list(&connection).await
    }

    /// The rollup of this name, if its table is there.
    pub async fn current(&self, name: &str) -> Result<Option<BuiltRollup>, RollupError> {
        let connection = self.maintenance_connection().await?;
        state::find(&connection, name).await
    }

    /// The rollup that `plan` describes: as it is when its fingerprint is unchanged, else built anew, from what else is there
    /// if that is proven to come to the same.
    pub async fn ensure(
        &self,
        plan: &BuildPlan,
        sources: &Sources,
        progress: OnProgress<'_>,
    ) -> Result<BuiltRollup, RollupError> {
        let connection = self.maintenance_connection().await?;
        if let Some(unchanged) = state::find_unchanged(&connection, plan).await? {
            return Ok(unchanged);
        }
        lock::acquire(&connection, &plan.name, progress).await?;
        // Whoever held the lock may have built just this.
        if let Some(unchanged) = state::find_unchanged(&connection, plan).await? {
            return Ok(unchanged);
        }
        self.build_and_sweep(connection, plan, sources, progress)
            .await
    }

    /// The same, whatever is there already.
    pub async fn rebuild(
        &self,
        plan: &BuildPlan,
        sources: &Sources,
        progress: OnProgress<'_>,
    ) -> Result<BuiltRollup, RollupError> {
        let connection = self.maintenance_connection().await?;
        lock::acquire(&connection, &plan.name, progress).await?;
        self.build_and_sweep(connection, plan, sources, progress)
            .await
    }

    /// The positions of these plans in the order in which to build them: what may be filled from another of them
    /// comes after it.
    pub async fn finer_first(&self, plans: &[&BuildPlan]) -> Result<Vec<usize>, RollupError> {
        if plans.len() < 2 {
            return Ok((0..plans.len()).collect());
        }
        let connection = self.maintenance_connection().await?;
        let zones = plans.iter().flat_map(|plan| zones_named(&plan.select));
        let zones: Vec<String> = zones.collect();
        let catalog = load_catalog_and_clocks(&connection, &zones).await?;
        Ok(finer::finer_first(plans, &catalog))
    }

    /// From the base tables as they are now, unless somebody has built it after this instant.
    pub async fn rebuild_since(
        &self,
        plan: &BuildPlan,
        since: SystemTime,
        progress: OnProgress<'_>,
    ) -> Result<BuiltRollup, RollupError> {
        let connection = self.maintenance_connection().await?;
        lock::acquire(&connection, &plan.name, progress).await?;
        // Whoever held the lock may have built just this.
        match state::find_unchanged(&connection, plan).await? {
            Some(built) if built.built_at > since => Ok(built),
            Some(_) | None => {
                self.build_and_sweep(connection, plan, &Sources::none(), progress)
                    .await
            }
        }
    }

    /// Forgets the rollup and drops its table; whether there was one.
    ///
    /// A table that somebody is reading for long is left to a later [`sweep`](Self::sweep).
    pub async fn drop(&self, name: &str) -> Result<bool, RollupError> {
        let mut connection = self.maintenance_connection().await?;
        lock::acquire(&connection, name, &|_| ()).await?;
        schema::ensure(&mut connection).await?;
        let had_parts = parts::forget(&*connection, name).await?;
        let was_there = state::forget(&connection, name).await? || had_parts;
        sweep::sweep(&mut connection).await?;
        Ok(was_there)
    }

    /// Drops generations that no rollup uses any more; returns their tables' names.
    pub async fn sweep(&self) -> Result<Vec<String>, RollupError> {
        let mut connection = self.maintenance_connection().await?;
        sweep::sweep(&mut connection).await
    }

    /// Makes each rollup readable by exactly the roles that may read all of its base tables, and
    /// says which they are.
    ///
    /// To be called after builds and whenever privileges have changed (see
    /// [`catalog_fingerprint`](crate::catalog::catalog_fingerprint)). A plan without a table still
    /// gets its readers.
    pub async fn sync_grants(
        &self,
        plans: &[BuildPlan],
    ) -> Result<HashMap<String, Readers>, RollupError> {
        let mut connection = self.maintenance_connection().await?;
        grants::sync(&mut connection, plans).await
    }

    /// Others may alter the base tables meanwhile: then nothing comes of it.
    async fn build_and_sweep(
        &self,
        mut connection: Connection,
        plan: &BuildPlan,
        sources: &Sources,
        progress: OnProgress<'_>,
    ) -> Result<BuiltRollup, RollupError> {
        let watching = self.connector.connect().await?;
        let process = give_way::process(&connection).await?;
        let building = build::build(&mut connection, plan, sources, progress);
        let built = give_way::giving_way(&watching, process, building).await?;
        // The rollup is there whether or not the old one could be cleared away.
        if let Err(error) = sweep::sweep(&mut connection).await {
            tracing::warn!(%error, rollup = plan.name, "Old rollup tables could not be dropped.");
        }
        progress(BuildProgress::Done { rows: built.rows });
        Ok(built)
    }

    /// A role's own defaults (timeouts, read-only transactions) are meant for its queries, not for
    /// this. With `row_security` off PostgreSQL refuses to read a table whose policies would hide
    /// rows, instead of making a rollup that lacks them.
    async fn maintenance_connection(&self) -> Result<Connection, RollupError> {
        let connection = self.connector.connect().await?;
        let gone = GONE_AFTER.as_millis();
        let settings = format!(
            "SET statement_timeout = 0; SET lock_timeout = 0; SET row_security = off;
             SET idle_in_transaction_session_timeout = {gone}; SET idle_session_timeout = {gone};
             SET default_transaction_read_only = off"
        );
        connection.batch_execute(&settings).await?;
        Ok(connection)
    }
}

/// Every rollup whose table is there, by name, as seen on a connection of the caller's.
pub async fn list(client: &Client) -> Result<Vec<BuiltRollup>, RollupError> {
    state::list(client).await
}
