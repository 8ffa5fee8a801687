//! Brings rollup tables up to date with every commit, and proves at any moment that one is.
//!
//! # How it works
//!
//! What a rollup's table contains is said by a *snapshot*: it equals the defining SELECT as that
//! snapshot sees the base tables. The snapshot is recorded in `pgstar.maintenance`, once for all
//! rollups that are in step, and moves in the same transaction as the rollups. A transaction of the
//! stream is in a rollup exactly if the rollup's snapshot sees it, so nothing is applied twice, and
//! nothing depends on the order of commits in the log. `apply` tells how a batch goes, the rewriter's
//! `fold` what its statements compute.
//!
//! One process of all that are connected to a database is the **leader**: it holds an advisory lock
//! and streams from a slot that stays when it dies, so that the next one goes on where it ended. The
//! others **follow**: they stream from temporary slots and read what the leader has committed. Both
//! can prove ([`Maintainer::prove`]).
//!
//! `intake` takes the rows that were decoded, `waiting` and `spool` keep them, `staging` hands them to PostgreSQL, `fold` runs one
//! rollup's statements, `leader` decides who does all this and when, `status` is what sessions ask.
//!
//! # How the proxy uses it
//!
//! 1. [`Maintainer::start`] once; [`Maintainer::follow`] with all plans whenever the catalog or the
//!    configuration changed. The same plans again cost nothing.
//! 2. Builds ([`RollupStore`]) wait for [`Maintainer::established`]:
//!    a rollup that is older than the stream has to be built again.
//! 3. A statement that is to be answered from tables `t1, t2`:
//!    `maintainer.prove(&["t1", "t2"], deadline)`, begun when the statement arrives. `Ok` says that each
//!    table contains every commit that was acknowledged before, and that both contain the same. The
//!    tables have to be read by one statement that begins afterwards. (A rollup that is
//!    built anew is in another table; the old one stays at what it contains until it is dropped.)
//! 4. With a bound instead of `strict`: [`Maintainer::staleness`] of each table, no round trip.
//! 5. Cached answers: `proof.position()` from the proof that the answer was computed under, then
//!    [`Maintainer::unchanged_since`] with the *base tables*, after a new
//!    [`Maintainer::prove_current`].
//! 6. Everything else of the statement (tables that are joined to the rollup) is read by the
//!    statement's own snapshot, which may be newer than the rollup's; see `unchanged_since`.
//! 7. [`Maintainer::figures`] and [`Maintainer::tables`] for metrics and SHOW.

mod apply;
mod audit;
mod fold;
mod intake;
mod keys;
mod leader;
mod reason;
mod spool;
mod staging;
mod state;
mod status;
mod waiting;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pgstar_rewriter::ColumnRange;
use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::FoldPlan;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::{Client, Config};

pub use audit::Audit;
pub use reason::{NotCurrent, Unfoldable};
pub use status::{Figures, Role, RollupFigures, Standing, TableState};

use crate::connect::Connector;
use crate::give_way;
use crate::replication::Lsn;
use crate::rollups::{BuildPlan, RollupError, RollupStore};
use crate::stream::{
    ChangeStream, Changed, Epoch, Lag, Position, Proof, Refusal, StreamError, StreamOptions,
    Unproven,
};
use crate::visible::Glimpse;
use leader::Maintenance;
use status::States;

/// See [`MaintainOptions::retained_bytes_max`].
const RETAINED_BYTES_MAX: u64 = 32 * 1024 * 1024 * 1024;

/// See [`MaintainOptions::part_bytes`].
const PART_BYTES: u64 = 1024 * 1024 * 1024;

/// How often who waits for a rollup reminds who brings it up to date.
const REMINDER_INTERVAL: Duration = Duration::from_millis(5);

/// What to keep up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaintainPlan {
    /// How it is built.
    pub build: BuildPlan,
    /// How changes are folded into it.
    pub fold: FoldPlan,
}

/// How a maintainer behaves.
#[derive(Clone)]
pub struct MaintainOptions {
    /// Of the stream.
    pub stream: StreamOptions,
    /// How many bytes of its log the server may keep for the slot. Beyond it the slot is dropped and the
    /// rollups are built again, because a full disk would stop the server. Only a running pgstar can do
    /// that: `max_slot_wal_keep_size` protects the server from one that is gone.
    pub retained_bytes_max: u64,
    /// How many bytes of a fact a build reads at once, about. One of twice as many is read part by part.
    pub part_bytes: u64,
    /// For the tests of the tests.
    #[doc(hidden)]
    pub weakness: Weakness,
    /// Asked at each failpoint whether the process dies there.
    #[doc(hidden)]
    pub dies_at: Option<Arc<dyn Fn(Failpoint) -> bool + Send + Sync>>,
}

impl Default for MaintainOptions {
    fn default() -> Self {
        MaintainOptions {
            stream: StreamOptions::default(),
            retained_bytes_max: RETAINED_BYTES_MAX,
            part_bytes: PART_BYTES,
            weakness: Weakness::None,
            dies_at: None,
        }
    }
}

impl fmt::Debug for MaintainOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("MaintainOptions")
            .field("stream", &self.stream)
            .field("retained_bytes_max", &self.retained_bytes_max)
            .field("part_bytes", &self.part_bytes)
            .field("weakness", &self.weakness)
            .finish_non_exhaustive()
    }
}

impl MaintainOptions {
    fn pass(&self, at: Failpoint) -> Result<(), StreamError> {
        match self.dies_at.as_ref().is_some_and(|dies| dies(at)) {
            true => Err(StreamError::Failpoint),
            false => Ok(()),
        }
    }
}

/// Where the tests let a process die.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failpoint {
    AfterDecode,
    BeforeFold,
    BeforeMerge,
    BeforeCommit,
    AfterCommit,
    BeforeAcknowledge,
    AfterAcknowledge,
}

impl Failpoint {
    /// All of them, in the order in which a batch passes them.
    pub const ALL: [Failpoint; 7] = [
        Failpoint::AfterDecode,
        Failpoint::BeforeFold,
        Failpoint::BeforeMerge,
        Failpoint::BeforeCommit,
        Failpoint::AfterCommit,
        Failpoint::BeforeAcknowledge,
        Failpoint::AfterAcknowledge,
    ];
}

/// A mistake that the tests have to notice.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weakness {
    #[default]
    None,
    /// Folds what the rollup contains already.
    NoSkipRule,
    /// Lets the server forget what was decoded, whether or not it is in a rollup.
    AcknowledgeDecoded,
    /// Takes a snapshot without waiting for the stream.
    NoDecodeWait,
    /// Folds what was rolled back after it was streamed.
    KeepsRolledBack,
    /// Takes a rollup that was just built for one that contains what the others do.
    NewcomersAreInStep,
    /// Never computes a group anew.
    NeverRecomputes,
    /// Brings rollups forward whose tables have other partitions.
    IgnoresShapes,
}

/// Brings rollups up to date until it is dropped.
pub struct Maintainer {
    config: Config,
    options: MaintainOptions,
    states: Arc<States>,
    following: RwLock<Option<Following>>,
    /// One at a time changes what is followed.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Following {
    plans: Arc<Vec<MaintainPlan>>,
    others: Arc<Vec<Oid>>,
    stream: Arc<ChangeStream>,
}

impl Maintainer {
    /// Nothing is followed yet.
    pub fn new(config: Config, options: MaintainOptions) -> Self {
        Maintainer {
            config,
            options,
            states: Arc::new(States::new()),
            following: RwLock::default(),
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// From now on keeps these up to date and no others, and follows the changes of the other tables
    /// too. Returns at once; see [`established`](Self::established). The same again changes nothing.
    pub async fn follow(
        &self,
        plans: Vec<MaintainPlan>,
        others: Vec<Oid>,
    ) -> Result<(), MaintainError> {
        let _turn = self.changing.lock().await;
        let is_same =
            |following: Following| *following.plans == plans && *following.others == others;
        if self.following().is_some_and(is_same) {
            return Ok(());
        }
        // The slot has one reader at a time.
        self.set(None);
        self.states.publish(None, HashMap::new());
        let store = RollupStore::new(self.config.clone()).map_err(StreamError::from)?;
        store.ensure_schema().await?;
        let tables = plans
            .iter()
            .flat_map(|plan| plan.build.base_relations.iter().copied())
            .chain(others.iter().copied())
            .collect();
        let maintenance = Maintenance::new(
            plans.clone(),
            Arc::clone(&self.states),
            store,
            self.options.clone(),
        );
        let stream = ChangeStream::start_for(
            self.config.clone(),
            tables,
            self.options.stream.clone(),
            Arc::new(maintenance),
        )
        .await?;
        self.set(Some(Following {
            plans: Arc::new(plans),
            others: Arc::new(others),
            stream: Arc::new(stream),
        }));
        Ok(())
    }

    fn set(&self, following: Option<Following>) {
        *self
            .following
            .write()
            .unwrap_or_else(PoisonError::into_inner) = following;
    }

    fn following(&self) -> Option<Following> {
        self.following
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn stream(&self) -> Result<Arc<ChangeStream>, Unproven> {
        let following = self.following();
        following
            .map(|following| following.stream)
            .ok_or_else(|| Unproven::NotFollowing {
                why: "nothing is followed".to_owned(),
            })
    }

    /// Waits until whatever is built from now on can be kept up to date.
    pub async fn established(&self, deadline: Duration) -> Result<Epoch, Unproven> {
        let by = Instant::now() + deadline;
        let stream = self.stream()?;
        let epoch = stream.established(deadline).await?;
        let mut known = self.states.watch();
        let has_clock = known.wait_for(|known| known.clock.is_some());
        match timeout_at(by, has_clock).await {
            Ok(Ok(_)) => Ok(epoch),
            Ok(Err(_)) => Err(Unproven::Interrupted),
            Err(_) => Err(stream.shared().unproven(deadline, None)),
        }
    }

    /// After it returns, each of these rollup tables contains every commit that was acknowledged before
    /// the call, and all contain the same. It has to be begun when the statement arrives, and the tables
    /// have to be read by one statement that begins after it returns.
    pub async fn prove(&self, tables: &[&str], deadline: Duration) -> Result<Proof, NotCurrent> {
        self.prove_by(None, tables, deadline).await
    }

    /// The same; a glimpse that was caught after the call was due may save asking the server.
    ///
    /// # Errors
    /// As [`prove`](Self::prove).
    pub async fn prove_by(
        &self,
        glimpse: Option<&Glimpse>,
        tables: &[&str],
        deadline: Duration,
    ) -> Result<Proof, NotCurrent> {
        let by = Instant::now() + deadline;
        let stream = self.stream()?;
        let (proof, end) = stream.prove_up_to(glimpse, deadline).await?;
        let mut known = self.states.watch();
        loop {
            let now = Arc::clone(&known.borrow_and_update());
            let mut seen = None;
            let mut is_current = true;
            for table in tables {
                let not_maintained = || NotCurrent::NotMaintained {
                    table: (*table).to_owned(),
                };
                let state = now.tables.get(*table).ok_or_else(not_maintained)?;
                if let Standing::Aside(why) = &state.standing {
                    return Err(NotCurrent::SteppedAside {
                        table: (*table).to_owned(),
                        why: why.clone(),
                    });
                }
                let Some(contents) = now.contents(state) else {
                    is_current = false;
                    continue;
                };
                let same = seen.get_or_insert(&contents.snapshot);
                is_current &= **same == contents.snapshot
                    && stream.shared().are_in(contents, &state.bases, end);
            }
            if is_current {
                // Later commits may be safe already, and in none of the tables yet.
                let epoch = proof.epoch;
                return Ok(Proof { epoch, at: end });
            }
            self.states.wanted.notify_one();
            let changed = timeout(REMINDER_INTERVAL, known.changed());
            match timeout_at(by, changed).await {
                Ok(Ok(Err(_))) => return Err(Unproven::Interrupted.into()),
                Ok(Ok(Ok(())) | Err(_)) => (),
                Err(_) => return Err(NotCurrent::Late { waited: deadline }),
            }
            if stream
                .epoch()
                .is_none_or(|epoch| epoch.id != proof.epoch.id)
            {
                return Err(Unproven::Interrupted.into());
            }
        }
    }

    /// How old the table's contents are at most: every commit acknowledged longer ago is in them. No
    /// round trip; none while that is not known.
    pub fn staleness(&self, table: &str) -> Option<Duration> {
        self.lag(table).map(|lag| lag.time)
    }

    /// The same with the position that is proven.
    pub fn lag(&self, table: &str) -> Option<Lag> {
        let stream = self.stream().ok()?;
        let known = self.states.known();
        let state = known.tables.get(table)?;
        let contents = known.contents(state)?;
        stream.shared().lag_of(contents, &state.bases)
    }

    /// Computes a random range of this rollup again and compares; one that is not what it should be is stepped aside
    /// and built again. Only the leader does, nobody else could have it built; the others find that nothing is on record
    /// of the table any more. `chance` is any number.
    pub async fn audit(
        &self,
        rollup: &str,
        chance: u64,
        timeout: Duration,
    ) -> Result<Audit, MaintainError> {
        let following = self.following();
        let Some(following) = following.filter(|_| self.leads()) else {
            return Ok(Audit::Inconclusive("another process leads".to_owned()));
        };
        let mut plans = following.plans.iter();
        let Some(plan) = plans.find(|plan| plan.build.name == rollup) else {
            return Ok(Audit::Inconclusive("it is not maintained".to_owned()));
        };
        let connector = Connector::new(self.config.clone()).map_err(StreamError::from)?;
        let mut client = connector.connect().await.map_err(StreamError::from)?;
        let watching = connector.connect().await.map_err(StreamError::from)?;
        let process = give_way::process(&client).await;
        let process = process.map_err(StreamError::from)?;
        let auditing = audit::audit(&mut client, &following.stream, plan, chance, timeout);
        let audit = give_way::giving_way(&watching, process, auditing).await?;
        if let Audit::Different { table, detail } = &audit {
            let detail = detail.clone();
            self.states.condemn(table, Unfoldable::Unequal { detail });
            let condemned = condemn_filled(&client, &self.states, table).await;
            condemned.map_err(StreamError::from)?;
        }
        Ok(audit)
    }

    /// Whether this rollup's table was found not to be what it should be, or nothing is on record of its contents.
    pub fn is_condemned(&self, table: &str) -> bool {
        let known = self.states.known();
        let standing = known.tables.get(table).map(|state| &state.standing);
        let is_unrecorded = standing == Some(&Standing::Aside(Unfoldable::Unrecorded));
        is_unrecorded || self.states.condemned(table).is_some()
    }

    /// Whether this rollup table contains what all others do that are in step.
    pub fn is_in_step(&self, table: &str) -> bool {
        let known = self.states.known();
        let state = known.tables.get(table);
        state.is_some_and(|state| state.standing == Standing::InStep)
    }

    /// Whether this process brings the rollups forward.
    pub fn leads(&self) -> bool {
        self.states.is_leader()
    }

    /// As [`ChangeStream::staleness`]: of what is known of base tables.
    pub fn knowledge_age(&self) -> Option<Duration> {
        self.stream().ok()?.staleness()
    }

    /// As [`ChangeStream::prove_current`].
    pub async fn prove_current(&self, deadline: Duration) -> Result<Proof, Unproven> {
        self.stream()?.prove_current(deadline).await
    }

    /// As [`ChangeStream::unchanged_since`]: about base tables, not rollups.
    pub fn unchanged_since(&self, position: Position, relations: &[Oid]) -> Result<(), Changed> {
        let stream = self.stream().map_err(|_| Changed::OtherEpoch)?;
        stream.unchanged_since(position, relations)
    }

    /// As [`ChangeStream::track`].
    pub fn track(&self, range: &ColumnRange) {
        if let Ok(stream) = self.stream() {
            stream.track(range);
        }
    }

    /// As [`ChangeStream::unchanged_in`].
    pub fn unchanged_in(
        &self,
        position: Position,
        table: Oid,
        ranges: &[ColumnRange],
    ) -> Result<(), Changed> {
        let stream = self.stream().map_err(|_| Changed::OtherEpoch)?;
        stream.unchanged_in(position, table, ranges)
    }

    /// As [`ChangeStream::server`].
    pub fn server(&self) -> String {
        self.stream()
            .map(|stream| stream.server())
            .unwrap_or_default()
    }

    /// As [`ChangeStream::positions`].
    pub fn positions(&self) -> Option<(Lsn, Lsn)> {
        self.stream().ok()?.positions()
    }

    /// The present epoch; none while there is no stream.
    pub fn epoch(&self) -> Option<Epoch> {
        self.stream().ok()?.epoch()
    }

    /// The tables that cannot be followed, and why.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.stream()
            .map(|stream| stream.refusals())
            .unwrap_or_default()
    }

    /// Every table that is maintained, by name.
    pub fn tables(&self) -> HashMap<String, TableState> {
        self.states.known().tables.clone()
    }

    /// What was done since the process started.
    pub fn figures(&self) -> Figures {
        self.states.figures()
    }

    /// Drops the slot and the publication, which is all that is left outside schema `pgstar`. Nobody
    /// may be maintaining.
    pub async fn uninstall(config: Config) -> Result<(), StreamError> {
        leader::drop_slots(config.clone()).await?;
        Ok(ChangeStream::uninstall(config).await?)
    }
}

/// A table was found to be wrong: what was filled from it answers no more either, and nothing of it is on record.
async fn condemn_filled(
    client: &Client,
    states: &States,
    table: &str,
) -> Result<(), crate::connect::Error> {
    for filled in state::forget_with_filled(client, table).await? {
        let table = table.to_owned();
        states.condemn(&filled, Unfoldable::SourceWrong { table });
    }
    Ok(())
}

/// Why nothing is maintained.
#[derive(Debug, thiserror::Error)]
pub enum MaintainError {
    /// The change stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Schema `pgstar`.
    #[error(transparent)]
    Rollup(#[from] RollupError),
}
