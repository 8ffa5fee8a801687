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
use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::FoldPlan;
use tokio::time::timeout;
use tokio_postgres::IsolationLevel;
use tracing::warn;

use super::fold::{Fold, FoldError, Folded};
use super::intake::{Intake, Wanted};
use super::keys::EnforcedKeys;
use super::reason::Unfoldable;
use super::staging::Staging;
use super::state::{self, Clock, Questions, Recorded, State};
use super::status::{Standing, States, TableState};
use super::waiting::Changes;
use super::{Failpoint, MaintainOptions, MaintainPlan, Weakness};
use crate::connect::{Connection, Error, Reported};
use crate::give_way;
use crate::rollups::shape::{Look, Looking};
use crate::stream::shared::Shared;
use crate::stream::{Contents, Snapshot, StreamError};

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
    /// Which process of the server serves it.
    pub(super) process: i32,
    pub(super) looking: Looking<'a>,
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

/// What becomes of one rollup, or of one part of one, in a batch.
struct Member {
    fold: FoldPlan,
    /// Names the session's table of deltas.
    delta: String,
    bases: Vec<Oid>,
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
                process: self.process,
                looking: &self.looking,
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
            let running = context.run(transaction, &bases, &mut self.staging, &mut self.aside);
            give_way::giving_way(self.looking.client, self.process, running).await
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

/// What the batch is about.
struct Instant<'a> {
    state: &'a State,
    clock: &'a Clock,
    look: &'a Look,
}

/// What rollups that contain the same lack.
struct Lacking {
    tables: HashMap<Oid, Changes>,
    rows: u64,
    wanted: Wanted,
    /// Whether the foreign keys that are enforced now have been since.
    knows_keys: bool,
}

/// Why a rollup was not folded.
enum NotFolded {
    /// It was not tried; the others can go on.
    LeftOut(Unfoldable),
    /// The batch has failed because of it.
    Failed(Unfoldable),
    /// The batch has failed because of another.
    Aborted,
}

/// The tables of parts that have to be built again.
fn parts_aside(state: &State, aside: &HashMap<String, Unfoldable>) -> Vec<String> {
    let tables = state.parts.iter().map(|part| &part.recorded);
    let tables = tables.filter_map(|recorded| {
        let why = aside.get(&recorded.table)?;
        warn!(rollup = recorded.name, %why, "A part of a rollup that is being built has to be built again.");
        Some(recorded.table.clone())
    });
    tables.collect()
}

/// What PostgreSQL said of one fold.
fn failed(error: StreamError) -> Result<NotFolded, StreamError> {
    use tokio_postgres::error::SqlState;
    match error {
        StreamError::Postgres(Error::Query(error))
            if error.as_db_error().is_some() && !passes(&error) =>
        {
            if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) {
                return Ok(NotFolded::Aborted);
            }
            let error = Reported(&error).to_string();
            Ok(NotFolded::Failed(Unfoldable::Failed { error }))
        }
        other => Err(other),
    }
}

struct Context<'a> {
    process: i32,
    looking: &'a Looking<'a>,
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
        let look = self.looking.look(bases).await?;
        let waits = self.options.weakness != Weakness::NoDecodeWait;
        if waits && !self.wait_until_decoded(&look).await {
            return Ok(Outcome::Again("the stream lags behind"));
        }
        self.options.pass(Failpoint::AfterDecode)?;
        aside.retain(|table, _| state.tables().any(|recorded| recorded.table == *table));
        let members = self.members(&state, &clock, &look, aside);
        self.options.pass(Failpoint::BeforeFold)?;
        let instant = Instant {
            state: &state,
            clock: &clock,
            look: &look,
        };
        let folding = self.fold_all(&transaction, &instant, &members, staging, aside);
        // Who altered a table while this batch began would have to wait for a fold that is in vain, and so would everybody.
        let is_in_vain = || self.cancel_if_altered(bases, &look).boxed();
        let Some(advance) = give_way::watched(&is_in_vain, folding).await? else {
            return Ok(Outcome::Again("a rollup has to be built again"));
        };
        let to = Contents {
            snapshot: state.now.clone(),
            validated: state.end,
        };
        let is_aside = |recorded: &&Recorded| aside.contains_key(&recorded.table);
        let left = state.tables().filter(|recorded| {
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
        for member in &members {
            let shape = look.of(&member.bases);
            if member.recorded.shape.as_ref() != Some(&shape) {
                state::reshape(&transaction, &member.recorded.table, &shape).await?;
            }
        }
        state::forget_parts(&transaction, &parts_aside(&state, aside)).await?;
        // What is needed of the base tables has been read. One round trip for all three.
        let (cleared, moved, again) = tokio::join!(
            staging.clear(&transaction),
            self.questions
                .advance(&transaction, &clock, &to, self.next_floor),
            self.looking.look(bases),
        );
        cleared?;
        if !moved? {
            return Ok(Outcome::Again("another process was first"));
        }
        let again = again?;
        if !again.is_same(&look) {
            return Ok(Outcome::Again("tables were altered meanwhile"));
        }
        // What was read keeps its name until the commit; so if a name means another table now, that one may have been
        // read instead. And no NULL came unless it may be there by now. The plans will be others in a moment.
        let mut occurrences = members.iter().flat_map(|member| &member.fold.occurrences);
        if !occurrences.all(|table| again.is_as_planned(table)) {
            return Ok(Outcome::Again("the plans are of other tables"));
        }
        self.options.pass(Failpoint::BeforeCommit)?;
        transaction.commit().await?;
        staging.committed();
        self.options.pass(Failpoint::AfterCommit)?;
        self.publish(&state, &clock, &to, &left, aside);
        Ok(Outcome::Advanced(advance))
    }

    async fn cancel_if_altered(&self, bases: &[Oid], look: &Look) -> Result<bool, Error> {
        let is_altered = !self.looking.look(bases).await?.is_same(look);
        if is_altered {
            give_way::cancel(self.looking.client, self.process).await?;
        }
        Ok(is_altered)
    }

    /// Folds what the members lack; none if that showed that one of them has to be built again.
    async fn fold_all(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        instant: &Instant<'_>,
        members: &[Member],
        staging: &mut Staging,
        aside: &mut HashMap<String, Unfoldable>,
    ) -> Result<Option<Advance>, StreamError> {
        let mut groups: BTreeMap<String, Vec<&Member>> = BTreeMap::new();
        for member in members {
            let from = member.from.snapshot.to_string();
            groups.entry(from).or_default().push(member);
        }
        let mut advance = Advance::default();
        let mut set_aside = vec![];
        for members in groups.values() {
            // What is staged is of one interval.
            staging.clear(transaction).await?;
            let lacking = self.lacking(instant, members)?;
            advance.rows += lacking.rows;
            let run = self.run_folds(transaction, instant, &lacking, members, staging);
            for (member, outcome) in members.iter().zip(run.await?) {
                let table = member.recorded.table.clone();
                match outcome {
                    Ok(folded) => {
                        advance.groups += folded.groups;
                        advance.recomputed += folded.recomputed;
                        self.states.folded(&member.recorded.name, &folded);
                    }
                    Err(NotFolded::LeftOut(why)) => set_aside.push((table, why)),
                    Err(NotFolded::Failed(why)) => {
                        aside.insert(table, why);
                        return Ok(None);
                    }
                    // Why it was aborted is told of another.
                    Err(NotFolded::Aborted) => (),
                }
            }
        }
        aside.extend(set_aside);
        Ok(Some(advance))
    }

    /// What these members, which all contain the same, lack.
    fn lacking(&self, instant: &Instant<'_>, members: &[&Member]) -> Result<Lacking, StreamError> {
        let from = members.first().map(|member| &member.from.snapshot);
        let from = match self.options.weakness {
            Weakness::NoSkipRule => Some(&instant.clock.floor),
            _ => from,
        };
        let between = from.map(|from| self.intake.between(from, &instant.state.now));
        let between = between.transpose()?.unwrap_or_default();
        let has_same_keys = instant.look.foreign_keys == self.keys.fingerprint;
        Ok(Lacking {
            tables: between.tables,
            rows: between.rows,
            wanted: self.intake.wanted(),
            knows_keys: has_same_keys && from.is_some_and(|from| from.includes(&self.keys.since)),
        })
    }

    /// Stages for one member after the other, and then folds for all at once, so that a batch takes as many
    /// round trips for a hundred rollups as for one.
    async fn run_folds(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
        instant: &Instant<'_>,
        lacking: &Lacking,
        members: &[&Member],
        staging: &mut Staging,
    ) -> Result<Vec<Result<Folded, NotFolded>>, StreamError> {
        let fold = |member: &&'_ Member| Fold {
            plan: member.fold.clone(),
            table: member.recorded.table.clone(),
            delta: member.delta.clone(),
            never_recomputes: self.options.weakness == Weakness::NeverRecomputes,
        };
        let folds: Vec<Fold> = members.iter().map(fold).collect();
        let mut staged = vec![];
        for fold in &folds {
            let knows_keys = |at: usize| lacking.knows_keys && self.keys.enforce(&fold.plan, at);
            staged.push(match fold.check(&lacking.tables, instant.look) {
                Err(why) => Err(NotFolded::LeftOut(why)),
                Ok(()) => Ok(staging
                    .stage(
                        transaction,
                        &fold.plan,
                        &lacking.tables,
                        &lacking.wanted,
                        &knows_keys,
                    )
                    .await?),
            });
        }
        let session = Mutex::new(&mut staging.session);
        let runs = folds.iter().zip(staged).map(|(fold, staged)| async {
            let changed = match staged {
                Ok(changed) => changed,
                Err(why) => return Ok(Err(why)),
            };
            let pass = || self.options.pass(Failpoint::BeforeMerge);
            match fold.run(transaction, &changed, &session, &pass).await {
                Ok(folded) => Ok(Ok(folded)),
                Err(FoldError::Unfoldable(why)) => Ok(Err(NotFolded::Failed(why))),
                Err(FoldError::Stream(error)) => failed(error).map(Err),
            }
        });
        futures_util::future::join_all(runs)
            .await
            .into_iter()
            .collect()
    }

    async fn wait_until_decoded(&self, look: &Look) -> bool {
        if look.flushed < look.end {
            self.shared.barrier.notify_one();
        }
        let mut decoded = self.intake.watch_decoded();
        let reached = async {
            loop {
                let wait = decoded.wait_for(|decoded| *decoded >= look.end);
                match timeout(BARRIER_DELAY, wait).await {
                    Ok(outcome) => return outcome.is_ok(),
                    Err(_) => self.shared.barrier.notify_one(),
                }
            }
        };
        // Then it lets go of its snapshot.
        let patience = self.options.stream.patience;
        timeout(patience, reached).await.unwrap_or(false)
    }

    /// The rollups, and the parts of rollups, that can be brought forward. Others are noted in `aside`.
    fn members(
        &self,
        state: &State,
        clock: &Clock,
        look: &Look,
        aside: &mut HashMap<String, Unfoldable>,
    ) -> Vec<Member> {
        let mut members = vec![];
        for (at, plan) in self.plans.iter().enumerate() {
            let is_its = |recorded: &Recorded| {
                recorded.name == plan.build.name && recorded.fingerprint == plan.build.fingerprint
            };
            let whole = state.rollups.iter().find(|recorded| is_its(recorded));
            let whole = whole.map(|recorded| (recorded, None));
            let parts = state.parts.iter();
            let parts = parts.filter(|part| is_its(&part.recorded));
            let parts = parts.map(|part| (&part.recorded, Some(part)));
            for (recorded, part) in whole.into_iter().chain(parts) {
                if aside.contains_key(&recorded.table) {
                    continue;
                }
                let (fold, delta) = match part {
                    None => (Some(plan.fold.clone()), format!("pgstar_delta_{at}")),
                    Some(part) => {
                        let delta = format!("pgstar_delta_{at}_{}", part.number);
                        (plan.fold.of_part(&part.part), delta)
                    }
                };
                let fits = self.fits(plan, recorded, clock, look);
                match (fits, fold) {
                    (Ok(from), Some(fold)) => members.push(Member {
                        fold,
                        delta,
                        bases: plan.build.base_relations.clone(),
                        recorded: recorded.clone(),
                        from,
                    }),
                    (Err(why), _) => {
                        aside.insert(recorded.table.clone(), why);
                    }
                    (Ok(_), None) => {
                        aside.insert(recorded.table.clone(), Unfoldable::Unrecorded);
                    }
                }
            }
        }
        members
    }

    /// What the table contains, if it can be brought forward from there.
    fn fits(
        &self,
        plan: &MaintainPlan,
        recorded: &Recorded,
        clock: &Clock,
        look: &Look,
    ) -> Result<Contents, Unfoldable> {
        let own = match self.options.weakness {
            Weakness::NewcomersAreInStep => None,
            _ => recorded.own.as_ref(),
        };
        let from = own.unwrap_or(&clock.contents);
        let bases = &plan.build.base_relations;
        let is_weak = self.options.weakness == Weakness::IgnoresShapes;
        match &recorded.shape {
            None => return Err(Unfoldable::Unrecorded),
            Some(shape) if !is_weak && !look.continues(shape, bases) => {
                return Err(Unfoldable::Reshaped);
            }
            Some(_) => {}
        }
        let refusals = self.shared.refusals();
        let mut refusals = refusals.iter();
        if let Some(refusal) = refusals.find(|refusal| bases.contains(&refusal.relation)) {
            let reason = refusal.reason.clone();
            return Err(Unfoldable::NotFollowed { reason });
        }
        let is_since = |base: &Oid| {
            self.since
                .get(base)
                .is_some_and(|since| from.snapshot.includes(since))
        };
        let is_complete = recorded.own.is_none() || from.snapshot.includes(&clock.floor);
        match is_complete && bases.iter().all(is_since) {
            true => Ok(from.clone()),
            false => Err(Unfoldable::Gap),
        }
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
