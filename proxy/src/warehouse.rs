//! What is known of the database behind the proxy: its catalog and the rollups that are built.
//!
//! Routing reads a [`Snapshot`]; one background task replaces it when the catalog changes or a
//! rollup is built. It must not know what a session or a statement is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use pgstar_postgres::catalog::{catalog_fingerprint, clocks, load_catalog_and_clocks};
use pgstar_postgres::connect::{Connector, Error as ConnectError};
use pgstar_postgres::maintain::MaintainPlan;
use pgstar_postgres::rollups::{
    self, BuildPlan, BuildProgress, BuiltRollup, Readers, RollupError, RollupStore, Sources,
};
use pgstar_postgres::visible::{Glimpse, SERVER};
use pgstar_rewriter::catalog::{Catalog, Oid, Relation, RelationKind};
use pgstar_rewriter::fold::FoldPlan;
use pgstar_rewriter::{Match, Reason, Rollup, RollupConstants, RollupDefinition, zones_named};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, SimpleQueryMessage};
use tracing::warn;

use crate::ages::Ages;
use crate::aggregation;
use crate::config::RollupConfig;
use crate::follower::{Follower, Wanted};
use crate::guard::{Guard, Mark};
use crate::telemetry;
use crate::words::Words;

/// How often the catalog is asked whether it has changed. A change of privileges, keys or policies
/// is noticed at the latest this long after its commit; dropped or revoked tables are noticed by
/// PostgreSQL itself, because every rewritten statement names them.
pub const CATALOG_POLL: Duration = Duration::from_secs(1);

/// How often clocks are looked at: their rules come with the packages of an operating system.
const CLOCKS_LOOK: Duration = Duration::from_secs(60);

/// More zones than there are; sessions may call one whatever they like.
const ZONES_MAX: usize = 1_000;

/// How long ago the catalog may have been looked at for rollups to answer. Beyond it a key that a proof
/// rests on may be gone, or a policy may hide rows, without anybody here knowing.
pub const CATALOG_AGE_MAX: Duration = Duration::from_secs(5);

/// How long to wait after something failed: long enough that a lasting trouble does not flood the log.
const TROUBLE_PAUSE: Duration = Duration::from_secs(10);

/// How long a build waits for the change stream: a rollup that is built before it has to be built again before
/// it can follow.
const STREAM_WAIT: Duration = Duration::from_secs(2);

/// How often it is looked for rollups that are due to be built again.
const REFRESH_LOOK: Duration = Duration::from_millis(500);

/// So many relations are guarded beside those of rollups, so that reading the catalog takes no longer than it
/// has to. Answers that read others are not kept.
const GUARDED_MAX: usize = 2000;

/// So many names are looked for in statements that no rollup can answer.
const NAMES_MAX: usize = 5000;

/// A rollup that can answer, with what decides for whom.
#[derive(Debug, Clone)]
pub struct ReadyRollup {
    /// Its table and what the table cost.
    pub built: BuiltRollup,
    /// Who may read all of its base tables.
    pub readers: Readers,
}

/// What the build of a rollup is doing.
#[derive(Debug, Clone, Default)]
pub struct Building {
    /// In a word.
    pub step: &'static str,
    /// The rollup that is read in the place of the base tables.
    pub from: Option<String>,
    /// How many parts are done.
    pub parts: Option<PartsDone>,
}

impl Building {
    fn note(&mut self, step: &BuildProgress) {
        self.step = match step {
            BuildProgress::Waiting { .. } => "waiting",
            BuildProgress::Scanning { .. }
            | BuildProgress::Part { .. }
            | BuildProgress::Analyzing
            | BuildProgress::Indexing { .. } => "building",
            BuildProgress::Done { .. } => "done",
        };
        match step {
            BuildProgress::Scanning { from, .. } => self.from.clone_from(from),
            BuildProgress::Part { done, all, rest } => {
                self.parts = Some(PartsDone {
                    done: *done,
                    all: *all,
                    rest: *rest,
                });
            }
            BuildProgress::Waiting { .. }
            | BuildProgress::Analyzing
            | BuildProgress::Indexing { .. }
            | BuildProgress::Done { .. } => {}
        }
    }
}

/// How far a build in parts is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartsDone {
    /// So many.
    pub done: usize,
    /// Of so many.
    pub all: usize,
    /// How long the others will take, if that can be told.
    pub rest: Option<Duration>,
}

impl fmt::Display for PartsDone {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PartsDone { done, all, rest } = self;
        write!(out, "{done} of {all} parts are built")?;
        match rest {
            Some(rest) => write!(out, ", the others in about {} s", rest.as_secs()),
            None => Ok(()),
        }
    }
}

/// A declared rollup that cannot answer.
#[derive(Debug, Clone)]
pub struct AbsentRollup {
    /// Its name.
    pub name: String,
    /// Why, for people.
    pub because: String,
}

/// The database at one instant.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Distinguishes snapshots: what was decided under one number holds for that number only.
    pub version: u64,
    /// The database's name.
    pub database: String,
    /// When the server began that was read, as the sessions' facts have it: another one may have other libraries.
    pub server: String,
    /// The tables behind the declared rollups, and those that foreign keys of these refer to.
    pub wanted: BTreeSet<Oid>,
    /// What the guard saw before the catalog was read.
    pub mark: Mark,
    /// Relations, keys, row security.
    pub catalog: Catalog,
    /// What the rewriter may use.
    pub rollups: Vec<Rollup>,
    /// Pairwise with `rollups`.
    pub ready: Vec<ReadyRollup>,
    /// Declared, but not usable.
    pub absent: Vec<AbsentRollup>,
    /// The names of the tables that usable rollups are built from: a statement that
    /// names none of them cannot be answered from a rollup.
    pub base_tables: Words,
    /// The names of all tables and views: answers to statements that name one may be kept.
    pub any_tables: Words,
    /// The names of views over them that aggregate, so that a statement which names one need not.
    pub aggregating_views: Words,
    /// The constants that the definitions of `rollups` name.
    pub constants: RollupConstants,
}

/// Why the database could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WarehouseError {
    /// pgstar's own connection.
    #[error(transparent)]
    Connection(#[from] ConnectError),
    /// The upkeep of rollups.
    #[error(transparent)]
    Rollup(#[from] RollupError),
}

/// A rollup's definition that does not fit the database.
#[derive(Debug, Clone)]
pub struct Misfit {
    /// The rollup.
    pub rollup: RollupConfig,
    /// Why.
    pub reason: Reason,
}

/// The database behind the proxy, kept current.
#[derive(Debug)]
pub struct Warehouse {
    connector: Connector,
    store: RollupStore,
    declared: RwLock<Vec<RollupConfig>>,
    snapshot: RwLock<Arc<Snapshot>>,
    /// That of the snapshot, published after it.
    version: AtomicU64,
    /// When the question was put whose answer last showed that the snapshot holds.
    confirmed_at: Mutex<Option<Instant>>,
    /// Refreshes follow one another: an older reading must not replace a newer one.
    refreshing: tokio::sync::Mutex<()>,
    /// Told when there may be something to build.
    changed: Notify,
    building: Mutex<HashMap<String, Building>>,
    follower: Follower,
    guard: Guard,
    /// When this process began to build each table that it has built.
    begun: Mutex<HashMap<String, Instant>>,
    ages: Ages,
    renewing: tokio::sync::Mutex<()>,
    /// Sessions' zones whose clocks proofs depend on.
    zones: Mutex<BTreeSet<String>>,
    clocks: tokio::sync::Mutex<SeenClocks>,
}

/// What clocks showed when they were looked at.
#[derive(Debug, Default)]
struct SeenClocks {
    at: Option<Instant>,
    /// By zone, something that is another where its clocks differ.
    rules: BTreeMap<String, String>,
    /// How often they were others than before.
    changes: u64,
}

/// Why a rollup is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// It is not there, or was built from another definition. Rollups that were built since may be read for it.
    Missing { since: SystemTime },
    /// Somebody asked for it.
    Asked,
    /// It is no newer than this.
    Older(SystemTime),
}

/// It could not be had in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late;

/// Definitions read against one catalog.
struct Definitions {
    fitting: Vec<RollupDefinition>,
    misfits: Vec<Misfit>,
}

impl Warehouse {
    /// The database that this configuration connects to; nothing is opened yet.
    pub fn new(
        upstream: &tokio_postgres::Config,
        declared: Vec<RollupConfig>,
        others_max: usize,
    ) -> Result<Self, WarehouseError> {
        Ok(Warehouse {
            connector: Connector::new(upstream.clone())?,
            store: RollupStore::new(upstream.clone())?,
            declared: RwLock::new(declared),
            snapshot: RwLock::default(),
            version: AtomicU64::default(),
            confirmed_at: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            zones: Mutex::default(),
            clocks: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            building: Mutex::default(),
            follower: Follower::new(upstream.clone(), others_max),
            guard: Guard::new(),
            begun: Mutex::default(),
            ages: Ages::default(),
            renewing: tokio::sync::Mutex::default(),
        })
    }

    /// What is known now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at what is known now, without a share in it: for a look that is short.
    pub(crate) fn glance<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// That of the snapshot, or of one before that has just made way: who looks at the snapshot afterwards sees this one or
    /// a later one.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether the snapshot was seen to hold a short while ago.
    pub fn is_watched(&self) -> bool {
        let confirmed_at = *self
            .confirmed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        confirmed_at.is_some_and(|asked_at| asked_at.elapsed() < CATALOG_AGE_MAX)
    }

    fn confirm(&self, asked_at: Instant) {
        let mut confirmed_at = self
            .confirmed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *confirmed_at = confirmed_at.max(Some(asked_at));
    }

    /// The upkeep of rollup tables.
    pub fn store(&self) -> &RollupStore {
        &self.store
    }

    /// Opens connections of pgstar's own.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// What changes in the tables behind the rollups.
    pub fn follower(&self) -> &Follower {
        &self.follower
    }

    /// Publishes how the upkeep of rollups is doing.
    pub fn tell_metrics(&self) {
        let figures = self.follower.figures();
        telemetry::upkeep(
            figures.rows,
            figures.batches,
            figures.waiting_bytes,
            figures.retained_bytes,
        );
        if let Some((end, safe)) = self.follower.positions() {
            telemetry::stream_is_at(end.0, safe.0);
        }
        for (rollup, own) in &figures.rollups {
            telemetry::rollup_folded(rollup, own.batches, own.groups, own.recomputed_groups);
            for (code, times) in &own.rebuilds {
                telemetry::rollup_rebuilt(rollup, code, *times);
            }
        }
        for rollup in self.declared() {
            let parts = self
                .building(rollup.name.as_str())
                .and_then(|building| building.parts);
            let (done, all) = parts.map_or((0, 0), |parts| (parts.done, parts.all));
            let rest = parts.and_then(|parts| parts.rest);
            telemetry::rollup_builds(rollup.name.as_str(), done, all, rest);
        }
        for ReadyRollup { built, readers: _ } in &self.snapshot().ready {
            let Some(lag) = self.follower.lag(&built.table) else {
                telemetry::rollup_lags_since_then(&built.name);
                continue;
            };
            telemetry::rollup_lags(&built.name, lag.time, lag.bytes, lag.at.0);
            let as_of = SystemTime::now() - lag.time;
            telemetry::rollup_holds(&built.name, built.rows, built.bytes, as_of);
        }
    }

    /// Whether what decisions about these relations rest on is still as this snapshot has it.
    pub async fn still_holds(
        &self,
        snapshot: &Snapshot,
        relations: Vec<Oid>,
        glimpse: Option<&Glimpse>,
        deadline: Duration,
    ) -> bool {
        let now = match glimpse.and_then(|glimpse| self.guard.recall(&relations, glimpse)) {
            Some(now) => Some(now),
            None => self.guard.ask(relations.clone(), deadline).await,
        };
        now.is_some_and(|now| now.is_same_for(&snapshot.mark, &relations))
    }

    /// A snapshot that is newer than that of this version, if it can be had in time. Whoever asks at the
    /// same moment gets the same one.
    pub async fn renew(&self, version: u64, deadline: Duration) -> Result<Arc<Snapshot>, Late> {
        let renewing = async {
            let _turn = self.renewing.lock().await;
            if self.snapshot().version == version {
                self.refresh().await.map_err(|_| Late)?;
            }
            Ok(self.snapshot())
        };
        timeout(deadline, renewing).await.unwrap_or(Err(Late))
    }

    /// Watches what decisions rest on for as long as it is polled.
    pub async fn keep_guard(&self) {
        self.guard.keep(&self.connector).await;
    }

    /// When the table was begun to be built, if this process built it: what was committed before is in it.
    pub fn begun_at(&self, built: &BuiltRollup) -> Option<Instant> {
        self.begun
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&built.table)
            .copied()
    }

    /// How long ago the oldest rollup of a match was built at most, if that is known of all.
    pub fn oldest(&self, snapshot: &Snapshot, found: &Match) -> Option<Duration> {
        let now = Instant::now();
        let mut oldest = Duration::ZERO;
        for position in &found.rollups {
            let built = &snapshot.ready.get(*position)?.built;
            let begun_at = self.begun_at(built);
            let age = begun_at.map(|begun_at| now.saturating_duration_since(begun_at));
            oldest = oldest.max(age.or_else(|| self.ages.of(&built.table, now))?);
        }
        Some(oldest)
    }

    /// What the build of a rollup is doing, if there is one in this process.
    pub fn building(&self, rollup: &str) -> Option<Building> {
        let building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        building.get(rollup).cloned().or_else(|| {
            let figures = self.follower.figures();
            let step = figures.rollups.get(rollup)?.building.as_ref()?;
            let mut building = Building::default();
            building.note(step);
            Some(building)
        })
    }

    /// Replaces the declarations, as a reload of the configuration does; the next refresh acts on it.
    pub fn declare(&self, declared: Vec<RollupConfig>) {
        *self
            .declared
            .write()
            .unwrap_or_else(PoisonError::into_inner) = declared;
    }

    fn declared(&self) -> Vec<RollupConfig> {
        self.declared
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Reads the catalog and the rollups that are there, and publishes them. Builds nothing.
    ///
    /// Returns the definitions that do not fit the database.
    pub async fn refresh(&self) -> Result<Vec<Misfit>, WarehouseError> {
        let _turn = self.refreshing.lock().await;
        let asked_at = Instant::now();
        // The catalog is read in a transaction, which nobody else's statements may be in, and which is left half-way when
        // whoever waits for this gives up.
        let client = self.connector.connect().await?;
        // Before the catalog is read: no rollup is younger than what is known of the tables behind it.
        let built = rollups::list(&client).await?;
        let OwnSession {
            database,
            server,
            search_path,
        } = own_session(&client).await?;
        let declared = self.declared();
        let zones = zones_of(&declared);
        let (catalog, mark, definitions) = loop {
            let mark = self.guard.look(&client).await?;
            let catalog = load_catalog_and_clocks(&client, &zones).await?;
            let definitions = read_definitions(&declared, &catalog, &search_path);
            // What is guarded depends on the catalog itself.
            let followed = followed(&definitions.fitting, &catalog);
            if !self.guard.watch(&guarded(&followed, &catalog)) {
                break (catalog, mark, definitions);
            }
        };
        let Definitions { fitting, misfits } = definitions;
        let plans: Vec<BuildPlan> = fitting.iter().map(plan).collect();
        let followed = followed(&fitting, &catalog);
        let wanted = wanted(&fitting, &plans, &followed, &catalog);
        let is_current = |plan: &BuildPlan| {
            built
                .iter()
                .any(|built| built.name == plan.name && built.fingerprint == plan.fingerprint)
        };
        let any_current = plans.iter().any(is_current);
        let readers = if any_current {
            self.store.sync_grants(&plans).await?
        } else {
            HashMap::new()
        };
        let mut snapshot = Snapshot {
            database,
            server,
            mark,
            catalog,
            version: self.snapshot().version + 1,
            ..Snapshot::default()
        };
        for misfit in &misfits {
            let because = format!(
                "its definition does not fit the database: {}",
                misfit.reason
            );
            snapshot.absent.push(AbsentRollup {
                name: misfit.rollup.name.to_string(),
                because,
            });
        }
        for (definition, plan) in fitting.into_iter().zip(plans) {
            snapshot.add(definition, &plan, &built, &readers);
        }
        snapshot.constants = RollupConstants::of(&snapshot.rollups);
        snapshot.base_tables = Words::of(snapshot.names_of(&followed));
        snapshot.any_tables = snapshot.all_names();
        snapshot.aggregating_views = Words::of(snapshot.aggregating_views_of(&followed));
        snapshot.wanted = followed;
        self.follower.want(wanted);
        snapshot.tell_metrics();
        let ready = snapshot.ready.iter().map(|ready| &ready.built);
        let seen = ready.map(|built| (built.table.as_str(), built.built_at));
        self.ages.see(seen, (Instant::now(), SystemTime::now()));
        let version = snapshot.version;
        *self
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        self.version.store(version, Ordering::Release);
        self.confirm(asked_at);
        Ok(misfits)
    }

    /// Builds every declared rollup that is missing or was built from another definition, one after
    /// the other, publishing each as it is ready. One that fails keeps no other from being built.
    ///
    /// `progress` is told the rollup's name. Returns how many were built, or the first failure.
    pub async fn build_missing(
        &self,
        progress: &(dyn Fn(&str, BuildProgress) + Sync),
    ) -> Result<usize, WarehouseError> {
        let declared = self.declared();
        if declared.is_empty() {
            return Ok(0);
        }
        self.store.ensure_schema().await?;
        let (missing, since) = self.missing(&declared).await?;
        let plans: Vec<&BuildPlan> = missing.iter().map(|(_, plan)| plan).collect();
        let order = self.store.finer_first(&plans).await?;
        let mut outcome = Ok(0);
        for rollup in order.iter().filter_map(|at| Some(missing.get(*at)?.0)) {
            let occasion = Occasion::Missing { since };
            let built = self.build(rollup, occasion, progress).await;
            outcome = match (outcome, built) {
                (Ok(count), Ok(was_built)) => Ok(count + usize::from(was_built)),
                (Ok(_), Err(error)) | (Err(error), _) => Err(error),
            };
        }
        outcome
    }

    /// Builds one declared rollup from the base tables as they are now. False when its definition does not fit.
    pub async fn rebuild(
        &self,
        rollup: &RollupConfig,
        progress: &(dyn Fn(&str, BuildProgress) + Sync),
    ) -> Result<bool, WarehouseError> {
        self.build(rollup, Occasion::Asked, progress).await
    }

    /// The rollups whose definition fits and is not built, and the server's time.
    async fn missing<'a>(
        &self,
        declared: &'a [RollupConfig],
    ) -> Result<(Vec<(&'a RollupConfig, BuildPlan)>, SystemTime), WarehouseError> {
        let client = self.connector.shared().await?;
        let snapshot = self.snapshot();
        let search_path = own_session(&client).await?.search_path;
        let fitting = read_definitions(declared, &snapshot.catalog, &search_path).fitting;
        let is_missing = |definition: &&RollupDefinition| !snapshot.has(definition);
        let planned = fitting.iter().filter(is_missing).filter_map(|definition| {
            let mut declared = declared.iter();
            let rollup = declared.find(|rollup| rollup.name.as_str() == definition.name)?;
            Some((rollup, plan(definition)))
        });
        let missing = planned.collect();
        let now = client.query_one("SELECT now()", &[]).await;
        let now = now.and_then(|row| row.try_get(0));
        Ok((missing, now.map_err(ConnectError::from)?))
    }

    /// The rollups that may be read in the place of base tables: those that follow their tables, and those that were
    /// built after this.
    fn sources(&self, snapshot: &Snapshot, built_since: SystemTime) -> Sources {
        let ready = snapshot.ready.iter();
        let is_right = |ready: &&ReadyRollup| !self.follower.is_aside(&ready.built.table);
        let ready: Vec<&ReadyRollup> = ready.filter(is_right).collect();
        let names: Vec<&str> = ready
            .iter()
            .map(|ready| ready.built.name.as_str())
            .collect();
        let rollups = snapshot.rollups.iter();
        let plans = rollups.map(|rollup| plan(&rollup.definition));
        let since = |ready: &&ReadyRollup| {
            let table = ready.built.table.clone();
            let staleness = self.follower.staleness(&table)?;
            Some((table, Instant::now().checked_sub(staleness)?))
        };
        Sources {
            plans: plans.filter(|plan| names.contains(&&*plan.name)).collect(),
            followed: ready.iter().filter_map(since).collect(),
            built_since: Some(built_since),
            keeps_parts: true,
        }
    }

    async fn build(
        &self,
        rollup: &RollupConfig,
        occasion: Occasion,
        progress: &(dyn Fn(&str, BuildProgress) + Sync),
    ) -> Result<bool, WarehouseError> {
        let name = rollup.name.to_string();
        let client = self.connector.shared().await?;
        let snapshot = self.snapshot();
        let search_path = own_session(&client).await?.search_path;
        let Ok(definition) = read_definition(rollup, &snapshot.catalog, &search_path) else {
            return Ok(false);
        };
        let plan = plan(&definition);
        if snapshot.has(&definition) && matches!(occasion, Occasion::Missing { .. }) {
            return Ok(false);
        }
        let tell = |step: BuildProgress| {
            self.note_building(&name, &step);
            progress(&name, step);
        };
        // Whether or not there is a stream; see STREAM_WAIT.
        let _settled = self.follower.settled(STREAM_WAIT).await;
        let began_at = Instant::now();
        let result = match occasion {
            Occasion::Missing { since } => {
                let sources = self.sources(&snapshot, since);
                self.store.ensure(&plan, &sources, &tell).await
            }
            Occasion::Asked => self.store.rebuild(&plan, &Sources::none(), &tell).await,
            Occasion::Older(than) => self.store.rebuild_since(&plan, than, &tell).await,
        };
        self.building
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&name);
        let built = result?;
        if occasion == Occasion::Asked {
            self.note_begun(&snapshot, built.table, began_at);
        }
        self.refresh().await?;
        Ok(true)
    }

    fn note_begun(&self, snapshot: &Snapshot, table: String, began_at: Instant) {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |table: &String| {
            let mut ready = snapshot.ready.iter();
            ready.any(|ready| ready.built.table == *table)
        };
        begun.retain(|table, _| is_known(table));
        begun.insert(table, began_at);
    }

    fn note_building(&self, name: &str, step: &BuildProgress) {
        let mut building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        building.entry(name.to_owned()).or_default().note(step);
    }

    /// Keeps the snapshot current for as long as it is polled, and builds rollups whose definition is
    /// not built. The catalog is watched while they are being built.
    pub async fn keep_current(&self, progress: &(dyn Fn(&str, BuildProgress) + Sync)) {
        tokio::join!(
            self.watch_catalog(),
            self.keep_built(progress),
            self.keep_refreshed(progress)
        );
    }

    /// Builds again, as often as each asks for it, the rollups that do not follow their tables.
    async fn keep_refreshed(&self, progress: &(dyn Fn(&str, BuildProgress) + Sync)) {
        loop {
            sleep(REFRESH_LOOK).await;
            for rollup in self.declared() {
                let Some(built_at) = self.due(&rollup) else {
                    continue;
                };
                let occasion = Occasion::Older(built_at);
                if let Err(error) = self.build(&rollup, occasion, progress).await {
                    warn!(rollup = %rollup.name, %error, "A rollup could not be refreshed; trying again in {} s.", TROUBLE_PAUSE.as_secs());
                    sleep(TROUBLE_PAUSE).await;
                }
            }
        }
    }

    /// When it was built, if that is too long ago.
    fn due(&self, rollup: &RollupConfig) -> Option<SystemTime> {
        let refresh = rollup.refresh?;
        let snapshot = self.snapshot();
        let mut ready = snapshot.ready.iter();
        let built = &ready
            .find(|ready| ready.built.name == rollup.name.as_str())?
            .built;
        let is_followed = self.follower.staleness(&built.table).is_some();
        // Built for at most half of the time.
        let age = self.ages.of(&built.table, Instant::now());
        let is_old = age.is_none_or(|age| age >= refresh.max(2 * built.build_time));
        (is_old && !is_followed).then_some(built.built_at)
    }

    /// How often the rollup is built again while it does not follow its tables.
    pub fn refresh_of(&self, rollup: &str) -> Option<Duration> {
        let declared = self.declared();
        let mut declared = declared.iter();
        declared
            .find(|declared| declared.name.as_str() == rollup)?
            .refresh
    }

    /// Trouble is logged and tried again; when it lasts, `is_watched` turns false.
    async fn watch_catalog(&self) {
        let mut known = String::new();
        let mut warned_at: Option<Instant> = None;
        loop {
            if let Err(error) = self.follow(&mut known).await
                && warned_at.is_none_or(|warned_at| warned_at.elapsed() >= TROUBLE_PAUSE)
            {
                warn!(%error, "Could not look at the catalog; trying again.");
                warned_at = Some(Instant::now());
            }
            sleep(CATALOG_POLL).await;
        }
    }

    async fn follow(&self, known: &mut String) -> Result<(), WarehouseError> {
        let asked_at = Instant::now();
        let now = self.fingerprint().await?;
        if now == *known {
            self.confirm(asked_at);
            return Ok(());
        }
        for misfit in self.refresh().await? {
            warn!(rollup = %misfit.rollup.name, reason = %misfit.reason, "A rollup does not fit the database.");
        }
        *known = now;
        self.changed.notify_one();
        Ok(())
    }

    async fn keep_built(&self, progress: &(dyn Fn(&str, BuildProgress) + Sync)) {
        loop {
            self.changed.notified().await;
            while let Err(error) = self.build_missing(progress).await {
                warn!(%error, "Could not build the rollups; trying again in {} s.", TROUBLE_PAUSE.as_secs());
                sleep(TROUBLE_PAUSE).await;
            }
        }
    }

    /// Changes whenever a refresh could come out differently.
    async fn fingerprint(&self) -> Result<String, WarehouseError> {
        let client = self.connector.shared().await?;
        let catalog = catalog_fingerprint(&client).await?;
        let tables: Vec<String> = rollups::list(&client)
            .await?
            .into_iter()
            .map(|built| built.table)
            .collect();
        let declared = self.declared();
        let clocks = self.changes_of_clocks(&client, &declared).await?;
        let tables = tables.join(" ");
        let server = client.query_one(&format!("SELECT {SERVER}"), &[]).await;
        let server: String = server
            .and_then(|row| row.try_get(0))
            .map_err(ConnectError::from)?;
        Ok(format!("{catalog} {tables} {declared:?} {clocks} {server}"))
    }

    /// There is another snapshot when clocks are changed in this zone.
    pub fn watch_clocks(&self, zone: &str) {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        if zones.len() < ZONES_MAX && !zones.contains(zone) {
            zones.insert(zone.to_owned());
        }
    }

    /// How often clocks were seen to have been changed in the zones that rollups and proofs depend on; asked for once a minute.
    async fn changes_of_clocks(
        &self,
        client: &Client,
        declared: &[RollupConfig],
    ) -> Result<u64, WarehouseError> {
        let mut seen = self.clocks.lock().await;
        if seen.at.is_some_and(|at| at.elapsed() < CLOCKS_LOOK) {
            return Ok(seen.changes);
        }
        let mut zones = zones_of(declared);
        let watched = self
            .zones
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        zones.extend(watched.iter().map(|zone| zone.to_ascii_lowercase()));
        let now = clocks(client, &zones).await?;
        let is_changed = |(zone, rules): (&String, &String)| {
            seen.rules.get(zone).is_some_and(|known| known != rules)
        };
        let are_changed = now.iter().any(is_changed);
        seen.changes += u64::from(are_changed);
        seen.rules = now;
        seen.at = Some(Instant::now());
        Ok(seen.changes)
    }
}

/// Zones that rollups' definitions may name.
fn zones_of(declared: &[RollupConfig]) -> Vec<String> {
    let zones = declared
        .iter()
        .flat_map(|rollup| zones_named(&rollup.query));
    zones.collect()
}

impl Snapshot {
    fn has(&self, definition: &RollupDefinition) -> bool {
        self.rollups.iter().any(|ready| {
            let RollupDefinition {
                name, fingerprint, ..
            } = &ready.definition;
            (name, fingerprint) == (&definition.name, &definition.fingerprint)
        })
    }

    fn add(
        &mut self,
        definition: RollupDefinition,
        plan: &BuildPlan,
        built: &[BuiltRollup],
        readers: &HashMap<String, Readers>,
    ) {
        let found = built.iter().find(|built| built.name == plan.name);
        match (found, readers.get(&plan.name)) {
            (Some(built), Some(readers)) if built.fingerprint == plan.fingerprint => {
                self.rollups.push(Rollup {
                    definition,
                    schema: built.schema.clone(),
                    table: built.table.clone(),
                    rows: built.rows,
                });
                self.ready.push(ReadyRollup {
                    built: built.clone(),
                    readers: readers.clone(),
                });
            }
            (Some(_), _) => self.absent.push(AbsentRollup {
                name: plan.name.clone(),
                because: "it was built from another definition".to_owned(),
            }),
            (None, _) => self.absent.push(AbsentRollup {
                name: plan.name.clone(),
                because: "it has not been built yet".to_owned(),
            }),
        }
    }

    /// The names of the tables and of views over them, in lower case.
    fn names_of(&self, tables: &BTreeSet<Oid>) -> Vec<String> {
        let relations = tables
            .iter()
            .filter_map(|oid| self.catalog.relation_by_oid(*oid));
        let mut names: Vec<String> = relations
            .map(|relation| relation.name.to_ascii_lowercase())
            .collect();
        let views = self
            .views_whose(&|definition| names.iter().any(|name| definition.contains(name.as_str())));
        names.extend(views);
        names.sort();
        names.dedup();
        names
    }

    /// The names of all tables and views, in lower case.
    fn all_names(&self) -> Words {
        let relations = self.catalog.relations().iter();
        let relations = relations.filter(|relation| is_readable(relation));
        let names = relations.map(|relation| relation.name.to_ascii_lowercase());
        Words::of(names.take(NAMES_MAX))
    }

    /// The names of views over the tables that aggregate.
    fn aggregating_views_of(&self, tables: &BTreeSet<Oid>) -> Vec<String> {
        let names = self.names_of(tables);
        let mut views =
            self.views_whose(&|definition| aggregation::may_be_in(definition.as_bytes()));
        views.retain(|view| names.contains(view));
        views
    }

    /// The names of views of whose definitions that is so, and of views over these.
    fn views_whose(&self, is_so: &dyn Fn(&str) -> bool) -> Vec<String> {
        let relations = self.catalog.relations().iter();
        let views: Vec<(String, String)> = relations
            .filter_map(|relation| {
                let view = relation.view.as_ref()?;
                let name = relation.name.to_ascii_lowercase();
                Some((name, view.definition.to_ascii_lowercase()))
            })
            .collect();
        let mut found: Vec<String> = vec![];
        loop {
            let is_one = |definition: &str| {
                is_so(definition) || found.iter().any(|name| definition.contains(name.as_str()))
            };
            let new = views
                .iter()
                .find(|(name, definition)| !found.contains(name) && is_one(definition));
            match new {
                Some((name, _)) => found.push(name.clone()),
                None => return found,
            }
        }
    }

    fn tell_metrics(&self) {
        for ReadyRollup { built, readers: _ } in &self.ready {
            telemetry::rollup_holds(&built.name, built.rows, built.bytes, built.built_at);
        }
    }

    /// The names of the rollups that a match reads.
    pub fn names<'a>(&'a self, found: &Match) -> Vec<&'a str> {
        let rollups = found.rollups.iter();
        rollups
            .filter_map(|position| self.rollups.get(*position))
            .map(|rollup| rollup.definition.name.as_str())
            .collect()
    }

    /// How long ago the oldest rollup of a match was built; `None` when one of them is not there.
    pub fn oldest(&self, found: &Match) -> Option<Duration> {
        let mut oldest = Duration::ZERO;
        for position in &found.rollups {
            oldest = oldest.max(Snapshot::age(&self.ready.get(*position)?.built));
        }
        Some(oldest)
    }

    /// How long ago the rollup was true, by this machine's clock.
    pub fn age(built: &BuiltRollup) -> Duration {
        SystemTime::now()
            .duration_since(built.built_at)
            .unwrap_or_default()
    }
}

/// The tables to follow: those that rollups are built from, and those that foreign keys of these refer to,
/// because a statement may join them in addition.
fn followed(definitions: &[RollupDefinition], catalog: &Catalog) -> BTreeSet<Oid> {
    let mut tables = BTreeSet::new();
    let bases = definitions.iter();
    let mut found: Vec<Oid> = bases
        .flat_map(|definition| definition.base_relations.iter().copied())
        .collect();
    while let Some(table) = found.pop() {
        if tables.insert(table)
            && let Some(relation) = catalog.relation_by_oid(table)
        {
            let keys = relation.foreign_keys.iter();
            found.extend(keys.map(|key| key.references));
        }
    }
    tables
}

/// Whether statements whose answers may be kept can name it.
fn is_readable(relation: &Relation) -> bool {
    let kinds = [
        RelationKind::Table,
        RelationKind::PartitionedTable,
        RelationKind::View,
    ];
    kinds.contains(&relation.kind) && relation.schema != "pg_catalog"
}

/// What answers may rest on, the tables of rollups first.
fn guarded(followed: &BTreeSet<Oid>, catalog: &Catalog) -> BTreeSet<Oid> {
    let readable = catalog.relations().iter();
    let mut readable: Vec<&Relation> = readable.filter(|relation| is_readable(relation)).collect();
    // What can be read in the place of a rollup's table comes before what has only itself.
    readable.sort_by_key(|relation| (relation.kind != RelationKind::View, relation.oid));
    let readable = readable.into_iter().map(|relation| relation.oid);
    let others = readable.filter(|oid| !followed.contains(oid));
    followed
        .iter()
        .copied()
        .chain(others)
        .take(GUARDED_MAX.max(followed.len()))
        .collect()
}

fn wanted(
    definitions: &[RollupDefinition],
    plans: &[BuildPlan],
    followed: &BTreeSet<Oid>,
    catalog: &Catalog,
) -> Wanted {
    let plans = definitions.iter().zip(plans);
    let plans = plans.map(|(definition, plan)| MaintainPlan {
        build: plan.clone(),
        fold: FoldPlan::new(definition, catalog),
    });
    Wanted {
        plans: plans.collect(),
        also: followed.iter().copied().collect(),
    }
}

fn plan(definition: &RollupDefinition) -> BuildPlan {
    BuildPlan {
        name: definition.name.clone(),
        fingerprint: definition.fingerprint.clone(),
        select: definition.build_select.clone(),
        key_columns: definition.key_columns().map(str::to_owned).collect(),
        base_relations: definition.base_relations.clone(),
    }
}

fn read_definition(
    rollup: &RollupConfig,
    catalog: &Catalog,
    search_path: &[String],
) -> Result<RollupDefinition, Reason> {
    let (name, query, floats) = (rollup.name.as_str(), &rollup.query, rollup.floats);
    RollupDefinition::parse_with(name, query, floats, catalog, search_path)
}

fn read_definitions(
    declared: &[RollupConfig],
    catalog: &Catalog,
    search_path: &[String],
) -> Definitions {
    let mut definitions = Definitions {
        fitting: vec![],
        misfits: vec![],
    };
    for rollup in declared {
        match read_definition(rollup, catalog, search_path) {
            Ok(definition) => definitions.fitting.push(definition),
            Err(reason) => definitions.misfits.push(Misfit {
                rollup: rollup.clone(),
                reason,
            }),
        }
    }
    definitions
}

/// The database, and the schemas in which names of the configuration are looked up: those that
/// pgstar's role would search, not the short path that pgstar's own statements run under.
async fn own_session(client: &Client) -> Result<OwnSession, WarehouseError> {
    let question = format!(
        "BEGIN; SET LOCAL search_path TO DEFAULT;
         SELECT pg_catalog.current_database(), {SERVER}, pg_catalog.array_to_json(pg_catalog.current_schemas(true)); COMMIT"
    );
    let replies = client
        .simple_query(&question)
        .await
        .map_err(ConnectError::from)?;
    let row = replies.iter().find_map(|reply| match reply {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let column = |position| row.and_then(|row| row.get(position)).unwrap_or_default();
    Ok(OwnSession {
        database: column(0).to_owned(),
        server: column(1).to_owned(),
        search_path: serde_json::from_str(column(2)).unwrap_or_default(),
    })
}

struct OwnSession {
    database: String,
    server: String,
    search_path: Vec<String>,
}
