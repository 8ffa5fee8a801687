//! One batch: everything that a snapshot sees and the rollups lack, in one transaction.
//!
//! 1. A REPEATABLE READ transaction takes its snapshot S; base tables read in it are the state that
//!    the rollups are brought to.
//! 2. Only then the log's end W is read, on another connection, together with the tables' shapes. What
//!    S sees was committed before W.
//! 3. When the stream has been decoded up to W, every transaction that S sees and that changed a base
//!    table is known. Those that a rollup's own snapshot does not see are folded into it.
//! 4. The clock moves from the old snapshot to S in the same transaction, by compare-and-set. All
//!    rollups that are in step share it. So a batch that is tried again, here or by another process,
//!    finds its transactions seen already; and of two processes that try at once one fails.
//! 5. Before the commit the shapes are looked at again: tables are not followed by snapshots when they
//!    are truncated or given other partitions, so what was read may be newer than S.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use pgstar_rewriter::catalog::Oid;
use tokio::time::timeout;
use tokio_postgres::{Client, IsolationLevel};
use tracing::warn;

use super::fold::{Fold, FoldError};
use super::intake::Intake;
use super::keys::EnforcedKeys;
use super::reason::Unfoldable;
use super::staging::Staging;
use super::state::{self, Clock, Questions, Recorded, State};
use super::status::{Standing, States, TableState};
use super::{Failpoint, MaintainOptions, MaintainPlan, Weakness};
use crate::connect::{Connection, Error, Reported};
use crate::replication::Lsn;
use crate::rollups::shape::{self, Look};
use crate::stream::shared::Shared;
use crate::stream::{Contents, Snapshot, StreamError};

/// How long a batch waits for the stream before it lets go of its snapshot.
const DECODED_TIMEOUT: Duration = Duration::from_secs(10);

/// How soon the log is flushed when the stream lags behind it.
const BARRIER_DELAY: Duration = Duration::from_millis(2);

/// How a batch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The rollups are at a new snapshot.
    Advanced(Advance),
    /// Nothing happened; it can be tried again at once.
    Again(&'static str),
}

/// What a batch did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Advance {
    pub(super) rows: u64,
    pub(super) groups: u64,
    pub(super) recomputed: u64,
}

/// One session that applies.
pub(super) struct Applier<'a> {
    pub(super) client: Connection,
    pub(super) looking: &'a Client,
    pub(super) shared: &'a Shared,
    pub(super) intake: &'a Intake,
    pub(super) plans: &'a [MaintainPlan],
    pub(super) states: &'a States,
    pub(super) keys: EnforcedKeys,
    pub(super) questions: Questions,
    pub(super) staging: Staging,
    /// What rollups have to contain to be brought forward: what went before is not in the stream.
    pub(super) since: HashMap<Oid, Snapshot>,
    /// The clock's floor as recorded.
    pub(super) floor: Snapshot,
    /// What the next batch raises it to.
    pub(super) next_floor: Snapshot,
    /// Rollups that have to be built again, by table.
    pub(super) aside: HashMap<String, Unfoldable>,
    pub(super) options: &'a MaintainOptions,
}

/// What becomes of one rollup in a batch.
struct Member<'a> {
    at: usize,
    plan: &'a MaintainPlan,
    recorded: Recorded,
    from: Contents,
}

impl Applier<'_> {
    /// Every table that some plan reads.
    fn bases(&self) -> Vec<Oid> {
        let mut bases: Vec<Oid> = self
            .plans
            .iter()
            .flat_map(|plan| plan.build.base_relations.iter().copied())
            .collect();
        bases.sort_unstable();
        bases.dedup();
        bases
    }

    /// Brings everything forward to a new snapshot.
    pub(super) async fn batch(&mut self) -> Result<Outcome, StreamError> {
        let bases = self.bases();
        self.staging.begin();
        let isolation = IsolationLevel::RepeatableRead;
        let outcome = {
            let builder = self.client.build_transaction().isolation_level(isolation);
            let transaction = builder.start().await?;
            let context = Context {
                looking: self.looking,
                shared: self.shared,
                intake: self.intake,
                plans: self.plans,
                states: self.states,
                keys: &self.keys,
                questions: &self.questions,
                since: &self.since,
                next_floor: &self.next_floor,
                options: self.options,
            };
            context
                .run(transaction, &bases, &mut self.staging, &mut self.aside)
                .await
        };
        if matches!(outcome, Ok(Outcome::Advanced(_))) {
            self.floor.clone_from(&self.next_floor);
        }
        match outcome {
            Err(StreamError::Postgres(Error::Query(error))) if passes(&error) => {
                warn!(error = %Reported(&error), "A batch has to be tried again.");
                Ok(Outcome::Again("the server asked for it"))
            }
            other => other,
        }
    }
}

/// Whether the same may succeed when it is tried again.
fn passes(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::SqlState;
    let passing = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
    ];
    error.code().is_some_and(|code| passing.contains(code))
}

struct Context<'a> {
    looking: &'a Client,
    shared: &'a Shared,
    intake: &'a Intake,
    plans: &'a [MaintainPlan],
    states: &'a States,
    keys: &'a EnforcedKeys,
    questions: &'a Questions,
    since: &'a HashMap<Oid, Snapshot>,
    next_floor: &'a Snapshot,
    options: &'a MaintainOptions,
}

impl Context<'_> {
    async fn run(
        &self,
        transaction: tokio_postgres::Transaction<'_>,
        bases: &[Oid],
        staging: &mut Staging,
        aside: &mut HashMap<String, Unfoldable>,
    ) -> Result<Outcome, StreamError> {
        let state = self.questions.ask(&transaction).await?;
        let Some(clock) = state.clock.clone() else {
            return Err(StreamError::OutOfOrder("its clock is gone"));
        };
        let look = shape::look(self.looking, bases).await?;
        let waits = self.options.weakness != Weakness::NoDecodeWait;
        if waits && !self.wait_until_decoded(look.end).await {
            return Ok(Outcome::Again("the stream lags behind"));
        }
        self.options.pass(Failpoint::AfterDecode)?;
        aside.retain(|table, _| {
            state
                .rollups
                .iter()
                .any(|recorded| recorded.table == *table)
        });
        let members = self.members(&state, &clock, &look, aside);
        self.options.pass(Failpoint::BeforeFold)?;
        let mut advance = Advance::default();
        let mut groups: BTreeMap<String, Vec<&Member<'_>>> = BTreeMap::new();
        for member in &members {
            let from = member.from.snapshot.to_string();
            groups.entry(from).or_default().push(member);
        }
        let wanted = self.intake.wanted();
        let mut set_aside = vec![];
        for members in groups.values() {
            let Some(from) = members.first().map(|member| &member.from.snapshot) else {
                continue;
            };
            let between = match self.options.weakness {
                Weakness::NoSkipRule => self.intake.between(&clock.floor, &state.now)?,
                _ => self.intake.between(from, &state.now)?,
            };
            advance.rows += between.rows;
            let rows = between.tables;
            let is_known =
                from.includes(&self.keys.since) && look.foreign_keys == self.keys.fingerprint;
            for member in members {
                let knows_keys = |at: usize| is_known && self.keys.enforce(&member.plan.fold, at);
                let fold = Fold {
                    plan: &member.plan.fold,
                    table: &member.recorded.table,
                    delta: &format!("pgstar_delta_{}", member.at),
                    rows: &rows,
                    wanted: &wanted,
                    knows_keys: &knows_keys,
                    options: self.options,
                };
                let table = member.recorded.table.clone();
                if let Err(why) = fold.check() {
                    set_aside.push((table, why));
                    continue;
                }
                match fold.run(&transaction, staging).await {
                    Ok(folded) => {
                        advance.groups += folded.groups;
                        advance.recomputed += folded.recomputed;
                        self.states.folded(&member.recorded.name, &folded);
                    }
                    Err(FoldError::Unfoldable(why)) => {
                        aside.insert(table, why);
                        return Ok(Outcome::Again("a rollup has to be built again"));
                    }
                    Err(FoldError::Stream(StreamError::Postgres(Error::Query(error))))
                        if error.as_db_error().is_some() && !passes(&error) =>
                    {
                        let error = Reported(&error).to_string();
                        aside.insert(table, Unfoldable::Failed { error });
                        return Ok(Outcome::Again("a rollup has to be built again"));
                    }
                    Err(FoldError::Stream(error)) => return Err(error),
                }
            }
            staging.clear(&transaction).await?;
        }
        aside.extend(set_aside);
        let to = Contents {
            snapshot: state.now.clone(),
            validated: state.end,
        };
        let is_aside = |recorded: &&Recorded| aside.contains_key(&recorded.table);
        let left = state.rollups.iter().filter(|recorded| {
            let is_member = members
                .iter()
                .any(|member| member.recorded.table == recorded.table);
            !is_member || is_aside(recorded)
        });
        let left: Vec<String> = left.map(|recorded| recorded.table.clone()).collect();
        let caught_up: Vec<String> = members
            .iter()
            .filter(|member| member.recorded.own.is_some())
            .map(|member| member.recorded.table.clone())
            .filter(|table| !left.contains(table))
            .collect();
        state::leave_behind(&transaction, &left, &clock.contents).await?;
        state::put_in_step(&transaction, &caught_up).await?;
        if !state::advance(&transaction, &clock, &to, self.next_floor).await? {
            return Ok(Outcome::Again("another process was first"));
        }
        let again = shape::look(self.looking, bases).await?;
        if !again.is_same(&look) {
            return Ok(Outcome::Again("tables were altered meanwhile"));
        }
        self.options.pass(Failpoint::BeforeCommit)?;
        transaction.commit().await?;
        staging.committed();
        self.options.pass(Failpoint::AfterCommit)?;
        self.publish(&state, &clock, &to, &left, aside);
        Ok(Outcome::Advanced(advance))
    }

    async fn wait_until_decoded(&self, end: Lsn) -> bool {
        let mut decoded = self.intake.watch_decoded();
        let reached = async {
            loop {
                let wait = decoded.wait_for(|decoded| *decoded >= end);
                match timeout(BARRIER_DELAY, wait).await {
                    Ok(outcome) => return outcome.is_ok(),
                    Err(_) => self.shared.barrier.notify_one(),
                }
            }
        };
        timeout(DECODED_TIMEOUT, reached).await.unwrap_or(false)
    }

    /// The rollups that can be brought forward. Others are noted in `aside`.
    fn members<'a>(
        &'a self,
        state: &State,
        clock: &Clock,
        look: &Look,
        aside: &mut HashMap<String, Unfoldable>,
    ) -> Vec<Member<'a>> {
        let mut members = vec![];
        for (at, plan) in self.plans.iter().enumerate() {
            let is_its = |recorded: &&Recorded| {
                recorded.name == plan.build.name && recorded.fingerprint == plan.build.fingerprint
            };
            let Some(recorded) = state.rollups.iter().find(is_its) else {
                continue;
            };
            if aside.contains_key(&recorded.table) {
                continue;
            }
            let from = recorded.own.as_ref().unwrap_or(&clock.contents);
            let bases = &plan.build.base_relations;
            let Some(shape) = &recorded.shape else {
                aside.insert(recorded.table.clone(), Unfoldable::Gap);
                continue;
            };
            if *shape != look.of(bases) {
                aside.insert(recorded.table.clone(), Unfoldable::Reshaped);
                continue;
            }
            let is_since = |base: &Oid| {
                self.since
                    .get(base)
                    .is_some_and(|since| from.snapshot.includes(since))
            };
            let is_complete = recorded.own.is_none() || from.snapshot.includes(&clock.floor);
            if !is_complete || !bases.iter().all(is_since) {
                aside.insert(recorded.table.clone(), Unfoldable::Gap);
                continue;
            }
            members.push(Member {
                at,
                plan,
                recorded: recorded.clone(),
                from: from.clone(),
            });
        }
        members
    }

    fn publish(
        &self,
        state: &State,
        clock: &Clock,
        to: &Contents,
        left: &[String],
        aside: &HashMap<String, Unfoldable>,
    ) {
        let mut tables = HashMap::new();
        for plan in self.plans {
            let is_its = |recorded: &&Recorded| {
                recorded.name == plan.build.name && recorded.fingerprint == plan.build.fingerprint
            };
            let Some(recorded) = state.rollups.iter().find(is_its) else {
                continue;
            };
            let standing = match (aside.get(&recorded.table), left.contains(&recorded.table)) {
                (Some(why), _) => Standing::Aside(why.clone()),
                (None, false) => Standing::InStep,
                (None, true) => {
                    Standing::Behind(recorded.own.clone().unwrap_or(clock.contents.clone()))
                }
            };
            let state = TableState {
                name: recorded.name.clone(),
                bases: plan.build.base_relations.clone(),
                standing,
            };
            tables.insert(recorded.table.clone(), state);
        }
        self.states.publish(Some(to.clone()), tables);
    }
}
