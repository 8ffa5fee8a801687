//! Who brings the rollups up to date, and how that goes on for as long as the stream does.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::FoldColumn;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::Client;
use tracing::{info, warn};

use super::apply::{Applier, Outcome};
use super::intake::{Intake, wanted};
use super::keys::EnforcedKeys;
use super::staging::Staging;
use super::state::{self, Lineage, Questions};
use super::status::{Known, Role, Standing, States, TableState};
use super::{Failpoint, MaintainOptions, MaintainPlan, Unfoldable, Weakness, condemn_filled};
use crate::connect::{Connection, Connector, Error};
use crate::give_way;
use crate::pgoutput::{Message, Xid32};
use crate::replication::Lsn;
use crate::rollups::lock::{LEADER_LOCK, LOCK_CLASS, SNAPSHOT_LOCK_CLASS, leader};
use crate::rollups::parts;
use crate::rollups::shape::{self, Looking};
use crate::rollups::{BuildPlan, RollupStore, Sources};
use crate::stream::epoch::{GONE_AFTER, unique};
use crate::stream::purpose::{Attached, Purpose, SlotChoice};
use crate::stream::receiving::Within;
use crate::stream::shared::Shared;
use crate::stream::{Contents, Snapshot, StreamError, Xid};

/// How often an idle leader looks whether there is something to do that the stream does not tell.
const TICK: Duration = Duration::from_secs(1);

/// How often what was dealt with is acknowledged.
const ACKNOWLEDGE_INTERVAL: Duration = Duration::from_millis(200);

/// How long the server may take to end the session of an epoch that is over.
const OWN_END_WAIT_MAX: Duration = Duration::from_secs(5);

/// How often a follower looks whether the leader is gone.
const TAKE_OVER_INTERVAL: Duration = Duration::from_secs(1);

/// How often a follower reads the states while somebody waits for them.
const STATES_INTERVAL: Duration = Duration::from_millis(3);

/// How soon a batch is tried again; then doubled up to the other.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// How soon a rollup is built again whose build failed; doubled each time up to the other, which bounds
/// every pause.
const REBUILD_PAUSE_MIN: Duration = Duration::from_secs(1);
const REBUILD_PAUSE_MAX: Duration = Duration::from_secs(600);

/// What a batch reads was written or read a moment ago, so no page of it is far. No statement of a batch waits for longer for somebody else's lock. A batch waits for the stream for less
/// than its session may be idle; a process that is gone without a word holds its locks no longer.
const SESSION_SETTINGS: &str = "
    SET synchronous_commit = local; SET lock_timeout = '2s'; SET statement_timeout = 0;
    SET row_security = off; SET jit = off;
    SET random_page_cost = 1.1;
    SET default_transaction_read_only = off; SET client_min_messages = warning";

/// What is done in an epoch: leading, or following who leads.
pub(super) struct Maintenance {
    pub(super) plans: Vec<MaintainPlan>,
    pub(super) intake: Intake,
    pub(super) states: Arc<States>,
    pub(super) store: RollupStore,
    pub(super) options: MaintainOptions,
    /// The lineage that this epoch continues or begins.
    lineage: std::sync::Mutex<Option<Lineage>>,
    /// What tells apart the rows of the facts that are large enough to be read in parts.
    part_columns: std::sync::Mutex<BTreeMap<Oid, FoldColumn>>,
}

impl Maintenance {
    pub(super) fn new(
        plans: Vec<MaintainPlan>,
        states: Arc<States>,
        store: RollupStore,
        options: MaintainOptions,
    ) -> Self {
        Maintenance {
            plans,
            intake: Intake::new(),
            states,
            store,
            options,
            lineage: std::sync::Mutex::default(),
            part_columns: std::sync::Mutex::default(),
        }
    }

    fn lineage(&self) -> Option<Lineage> {
        let lineage = self.lineage.lock();
        lineage
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    fn remember(&self, lineage: Option<Lineage>) {
        *self
            .lineage
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = lineage;
    }

    fn part_columns(&self) -> std::sync::MutexGuard<'_, BTreeMap<Oid, FoldColumn>> {
        self.part_columns
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn facts(&self) -> Vec<Oid> {
        let facts = self.plans.iter().filter_map(|plan| plan.fold.fact());
        facts.map(|fact| fact.relation).collect()
    }

    fn bases(&self) -> Vec<Oid> {
        let bases = self
            .plans
            .iter()
            .flat_map(|plan| &plan.build.base_relations);
        let mut bases: Vec<Oid> = bases.copied().collect();
        bases.sort_unstable();
        bases.dedup();
        bases
    }
}

impl Purpose for Maintenance {
    async fn choose(
        &self,
        asking: &Client,
        _published: &BTreeMap<Oid, String>,
    ) -> Result<SlotChoice, StreamError> {
        self.states.is(Role::None);
        self.states.forget();
        self.remember(None);
        if !self.try_lead(asking).await? {
            return Ok(SlotChoice::Temporary);
        }
        let columns = parts::columns(asking, &self.facts(), self.options.part_bytes).await?;
        *self.part_columns() = columns;
        let recorded = state::lineage(asking).await?;
        let present = identity(asking).await?;
        let slot = match &recorded {
            Some(recorded) if recorded.system == present.system => {
                self.slot_position(asking, &recorded.slot).await?
            }
            Some(_) | None => None,
        };
        let (Some(recorded), Some(from)) = (recorded, slot) else {
            drop_stray_slots(asking, &present.prefix).await?;
            let name = format!("{}_{:x}", present.prefix, unique());
            self.remember(Some(Lineage {
                system: present.system,
                slot: name.clone(),
                publication: present.publication,
            }));
            return Ok(SlotChoice::Permanent { name });
        };
        let followed = state::followed_since(asking).await?;
        let is_complete = recorded.publication == present.publication
            && followed.iter().all(|(_, since)| since.is_some());
        let name = recorded.slot.clone();
        end_stray_stream(asking, &name).await?;
        self.remember(Some(Lineage {
            publication: present.publication,
            ..recorded
        }));
        Ok(SlotChoice::Existing {
            name,
            from,
            is_complete,
        })
    }

    fn begin(&self, slot: &SlotChoice) {
        let from = match slot {
            SlotChoice::Existing { from, .. } => *from,
            SlotChoice::Temporary | SlotChoice::Permanent { .. } => Lsn(0),
        };
        // A follower has no use for rows.
        let columns = match slot {
            SlotChoice::Temporary => wanted(std::iter::empty()),
            SlotChoice::Existing { .. } | SlotChoice::Permanent { .. } => {
                let occurrences = self.plans.iter().flat_map(|plan| &plan.fold.occurrences);
                let read = occurrences
                    .map(|occurrence| (occurrence.relation, occurrence.columns.as_slice()));
                let part_columns = self.part_columns();
                let told_apart = part_columns.iter();
                let told_apart =
                    told_apart.map(|(fact, column)| (*fact, std::slice::from_ref(column)));
                wanted(read.chain(told_apart))
            }
        };
        self.intake.begin(columns, from);
    }

    fn message(
        &self,
        within: Within,
        message: &Message,
        omitted: usize,
    ) -> Result<(), StreamError> {
        self.intake.message(within, message, omitted)
    }

    fn aborted(&self, transaction: Xid32, part: Xid32) {
        let is_weak = self.options.weakness == Weakness::KeepsRolledBack;
        if !is_weak || transaction == part {
            self.intake.aborted(transaction, part);
        }
    }

    fn committed(&self, xid: Xid32, end: Lsn, changed: &[Oid]) {
        self.intake.committed(xid, end, changed);
    }

    fn decoded(&self, end: Lsn) {
        self.intake.decoded(end);
    }

    fn forgets_at_once(&self) -> bool {
        let is_weak = self.options.weakness == Weakness::AcknowledgeDecoded;
        self.lineage().is_none() || is_weak
    }

    async fn work(&self, attached: Attached<'_>) -> Result<Infallible, StreamError> {
        let outcome = match attached.slot {
            SlotChoice::Temporary => self.follow(&attached).await,
            SlotChoice::Permanent { .. } | SlotChoice::Existing { .. } => {
                self.lead(&attached).await
            }
        };
        self.states.is(Role::None);
        outcome
    }
}

impl Maintenance {
    /// Whether this session is now the leader's. It waits for the session that led before and was this process's own: a
    /// follower would have to create a slot, and wait for whatever is being built.
    async fn try_lead(&self, asking: &Client) -> Result<bool, Error> {
        let begun = Instant::now();
        loop {
            if try_lead(asking).await? {
                let process = give_way::process(asking).await?;
                self.states.led_by.store(process, Ordering::Relaxed);
                return Ok(true);
            }
            let before = self.states.led_by.load(Ordering::Relaxed);
            if begun.elapsed() > OWN_END_WAIT_MAX || leader(asking).await? != Some(before) {
                return Ok(false);
            }
            sleep(OWN_END_WAIT_MAX / 100).await;
        }
    }

    /// Where the slot begins, if it has everything from there on and does not keep too much.
    async fn slot_position(&self, client: &Client, slot: &str) -> Result<Option<Lsn>, StreamError> {
        let bytes_max = self.options.retained_bytes_max;
        match retained_bytes(client, slot).await? {
            Some(bytes) if bytes <= bytes_max => confirmed(client, slot).await,
            Some(bytes) => {
                warn!(
                    slot,
                    bytes, bytes_max, "The slot keeps too much; rollups are built again."
                );
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Keeps the states at what the leader commits, and ends when there is none.
    async fn follow(&self, attached: &Attached<'_>) -> Result<Infallible, StreamError> {
        let client = connect(attached.connector, &self.options).await?;
        let questions = Questions::prepare(&client).await?;
        self.states.is(Role::Follower);
        let mut looked = Instant::now();
        let mut nudged = None;
        loop {
            self.read_states(&client, &questions, attached.shared)
                .await?;
            let validated = self
                .states
                .known()
                .clock
                .as_ref()
                .map(|clock| clock.validated);
            let is_too_old = |validated| !attached.shared.is_validated(validated);
            if nudged != validated && validated.is_some_and(is_too_old) {
                nudge_leader(&client).await?;
                nudged = validated;
            }
            if looked.elapsed() >= TAKE_OVER_INTERVAL {
                looked = Instant::now();
                if is_leaderless(&client).await? {
                    return Err(StreamError::TakeOver);
                }
            }
            sleep(STATES_INTERVAL).await;
            // Nobody waits: then once in a while is enough.
            let _ = timeout(TAKE_OVER_INTERVAL, self.states.wanted.notified()).await;
        }
    }

    async fn read_states(
        &self,
        client: &Client,
        questions: &Questions,
        shared: &Shared,
    ) -> Result<(), StreamError> {
        let state = questions.ask(client).await?;
        let mut tables = HashMap::new();
        for plan in &self.plans {
            let is_its = |recorded: &&state::Recorded| {
                recorded.name == plan.build.name && recorded.fingerprint == plan.build.fingerprint
            };
            let Some(recorded) = state.rollups.iter().find(is_its) else {
                continue;
            };
            let standing = match (&recorded.shape, &recorded.own) {
                (None, _) => Standing::Aside(Unfoldable::Unrecorded),
                (Some(_), None) => Standing::InStep,
                (Some(_), Some(own)) => Standing::Behind(own.clone()),
            };
            let state = TableState {
                name: recorded.name.clone(),
                bases: plan.build.base_relations.clone(),
                standing,
            };
            tables.insert(recorded.table.clone(), state);
        }
        let clock = state.clock.map(|clock| clock.contents);
        self.states.publish(clock.clone(), tables);
        if let Some(clock) = clock {
            shared.forget(&clock.snapshot);
        }
        Ok(())
    }

    async fn lead(&self, attached: &Attached<'_>) -> Result<Infallible, StreamError> {
        let mut client = connect(attached.connector, &self.options).await?;
        let looking = connect(attached.connector, &self.options).await?;
        looking.batch_execute(shape::LOOKING_SETTINGS).await?;
        let since = self.establish(&mut client, attached).await?;
        let part_columns = self.part_columns().clone();
        parts::mark(&client, &part_columns, self.options.part_bytes).await?;
        let questions = Questions::prepare(&client).await?;
        let clock = questions.ask(&*client).await?.clock;
        let Some(clock) = clock else {
            return Err(StreamError::OutOfOrder("its clock is gone"));
        };
        // What the slot does not have any more is in here, whoever acknowledged it.
        attached.shared.forget(&clock.contents.snapshot);
        self.states.is(Role::Leader);
        info!(rollups = self.plans.len(), "Bringing rollups up to date.");
        let keys = EnforcedKeys::read(&looking, &self.bases()).await?;
        let process = give_way::process(&client).await?;
        let applier = Applier {
            client,
            process,
            looking: Looking::prepare(&looking).await?,
            shared: attached.shared,
            intake: &self.intake,
            plans: &self.plans,
            states: &self.states,
            keys,
            questions,
            staging: Staging::default(),
            since,
            next_floor: clock.floor.clone(),
            floor: clock.floor,
            aside: HashMap::new(),
            options: &self.options,
        };
        tokio::select! {
            outcome = self.apply(applier, &looking, attached) => outcome,
            never = self.rebuild(&looking, attached.shared) => match never {},
        }
    }

    /// Waits until whatever the stream may lack is visible, and records since when it is complete.
    async fn establish(
        &self,
        client: &mut Connection,
        attached: &Attached<'_>,
    ) -> Result<HashMap<Oid, Snapshot>, StreamError> {
        let is_new = matches!(attached.slot, SlotChoice::Permanent { .. });
        let is_complete = attached.ended == Xid(0) && !is_new;
        if !is_complete {
            while !attached.shared.is_safe() {
                sleep(Duration::from_millis(5)).await;
            }
            let lineage = self
                .lineage()
                .ok_or(StreamError::OutOfOrder("its lineage is not known"))?;
            let validated = shape::log_end(client).await?;
            let now: String = client
                .query_one("SELECT pg_current_snapshot()::text", &[])
                .await?
                .try_get(0)?;
            let since = Contents {
                snapshot: state::snapshot(&now)?,
                validated: validated
                    .parse()
                    .map_err(|_| StreamError::OutOfOrder("a position that cannot be read"))?,
            };
            let recorded = state::lineage(client).await?;
            let is_new = recorded.as_ref() != Some(&lineage);
            state::follow(client, &lineage, is_new, &since).await?;
        }
        let followed = state::followed_since(client).await?;
        let known = followed
            .into_iter()
            .filter_map(|(table, since)| Some((table, since?)));
        Ok(known.collect())
    }

    /// One batch after the other.
    async fn apply(
        &self,
        mut applier: Applier<'_>,
        looking: &Client,
        attached: &Attached<'_>,
    ) -> Result<Infallible, StreamError> {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut acknowledge = interval(ACKNOWLEDGE_INTERVAL);
        acknowledge.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pause = RETRY_MIN;
        // The first one shows what could not be known before.
        self.intake.arrived.notify_one();
        loop {
            let is_due = tokio::select! {
                () = self.intake.arrived.notified() => true,
                () = self.states.wanted.notified() => self.is_behind(looking, attached.shared).await?,
                _ = ticks.tick() => {
                    self.watch_retained(looking).await?;
                    self.is_behind(looking, attached.shared).await?
                }
                _ = acknowledge.tick() => {
                    self.acknowledge(&mut applier, looking, attached).await?;
                    false
                }
            };
            if !is_due {
                continue;
            }
            let begun = Instant::now();
            match applier.batch().await? {
                Outcome::Advanced(advance) => {
                    pause = RETRY_MIN;
                    self.states
                        .advanced(advance.rows, begun, self.intake.bytes());
                    let has_more = self
                        .states
                        .known()
                        .clock
                        .as_ref()
                        .is_some_and(|clock| self.intake.has_news(&clock.snapshot));
                    if has_more {
                        // Not visible yet, or committed meanwhile.
                        sleep(Duration::from_micros(500)).await;
                        self.intake.arrived.notify_one();
                    }
                }
                Outcome::Again(why) => {
                    tracing::debug!(why, "A batch is tried again.");
                    sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                    self.intake.arrived.notify_one();
                }
            }
        }
    }

    /// Whether the rollups could be told to contain more than they are told now, or a new one waits.
    async fn is_behind(&self, looking: &Client, shared: &Shared) -> Result<bool, StreamError> {
        let known = self.states.known();
        let aside = known.tables.iter().filter_map(|(table, state)| {
            matches!(state.standing, Standing::Aside(_)).then_some(table.clone())
        });
        let aside: Vec<String> = aside.collect();
        let names: Vec<&str> = self
            .plans
            .iter()
            .map(|plan| plan.build.name.as_str())
            .collect();
        let sql = "SELECT pg_current_snapshot()::text,
                          EXISTS (SELECT FROM pgstar.rollup_state s LEFT JOIN pgstar.rollup_progress p USING (table_name)
                                   WHERE (p.snapshot IS NOT NULL OR p.shape IS NULL)
                                     AND s.name = ANY ($1) AND s.table_name <> ALL ($2))
                       OR EXISTS (SELECT FROM pgstar.rollup_part r LEFT JOIN pgstar.rollup_progress p USING (table_name)
                                   WHERE (p.snapshot IS NOT NULL OR p.shape IS NULL)
                                     AND r.rollup = ANY ($1) AND r.table_name IS NOT NULL)";
        let row = looking.query_one(sql, &[&names, &aside]).await?;
        let now = state::snapshot(row.try_get(0)?)?;
        let has_newcomer: bool = row.try_get(1)?;
        // The clock's own commit is the only thing that happened in an idle database.
        let has_moved = |clock: &Contents| {
            now.xmin.0 > clock.snapshot.xmin.0.saturating_add(1)
                || now.xmax.0 > clock.snapshot.xmax.0.saturating_add(1)
                || !shared.is_validated(clock.validated)
        };
        Ok(has_newcomer || known.clock.as_ref().is_none_or(has_moved))
    }

    /// Lets the server forget what every rollup contains. That has to be on record first, so it happens
    /// in two steps: the next batch records the floor, and then what it saw is acknowledged. While a rollup
    /// is being built, which may have begun with an older snapshot, the floor stays.
    async fn acknowledge(
        &self,
        applier: &mut Applier<'_>,
        looking: &Client,
        attached: &Attached<'_>,
    ) -> Result<(), StreamError> {
        let position = self.intake.forget(&applier.floor);
        self.options.pass(Failpoint::BeforeAcknowledge)?;
        attached.acknowledged.advance(position);
        self.options.pass(Failpoint::AfterAcknowledge)?;
        let known = self.states.known();
        let Some(clock) = &known.clock else {
            return Ok(());
        };
        attached.shared.forget(&clock.snapshot);
        let has_newcomer = known
            .tables
            .values()
            .any(|state| matches!(state.standing, Standing::Behind(_)));
        // Whoever begins to build after this question takes a later snapshot than the clock's.
        if !has_newcomer && !is_building(looking).await? {
            applier.next_floor.clone_from(&clock.snapshot);
        }
        Ok(())
    }

    /// The server must not fill its disk for us.
    async fn watch_retained(&self, looking: &Client) -> Result<(), StreamError> {
        let Some(lineage) = self.lineage() else {
            return Ok(());
        };
        let retained = retained_bytes(looking, &lineage.slot).await?;
        let retained = retained.ok_or(StreamError::OutOfOrder("its slot is gone"))?;
        self.states.retained(retained);
        match retained > self.options.retained_bytes_max {
            true => Err(StreamError::RetainsTooMuch { bytes: retained }),
            false => Ok(()),
        }
    }

    /// Builds again what was stepped aside, finer rollups before those that may be filled from them.
    async fn rebuild(&self, looking: &Client, shared: &Shared) -> Infallible {
        let mut states = self.states.watch();
        let mut last: HashMap<String, LastBuild> = HashMap::new();
        loop {
            let known = Arc::clone(&states.borrow_and_update());
            let aside = known.tables.iter().filter_map(|(table, state)| {
                let was_replaced = last
                    .get(&state.name)
                    .is_some_and(|last| last.failures == 0 && last.replaced == *table);
                match &state.standing {
                    Standing::Aside(Unfoldable::NotFollowed { .. }) => None,
                    Standing::Aside(why) if !was_replaced => Some((table, &state.name, why)),
                    Standing::Aside(_) | Standing::InStep | Standing::Behind(_) => None,
                }
            });
            let aside: Vec<(&String, &String, &Unfoldable)> = aside.collect();
            let names: Vec<&str> = aside.iter().map(|(_, name, _)| name.as_str()).collect();
            let first = self.first_to_build(&names).await;
            let Some((table, name, why)) = aside.get(first).copied() else {
                // The sender lives as long as this.
                let _ = states.changed().await;
                continue;
            };
            if let Some(last) = last.get(name) {
                sleep(last.pause()).await;
            }
            // Only what it contained before can be why.
            if matches!(why, Unfoldable::Impossible)
                && let Err(error) = condemn_filled(looking, &self.states, table).await
            {
                warn!(rollup = name, %error, "What was filled from a wrong rollup could not be found.");
            }
            let begun = Instant::now();
            let built = last.iter().filter(|(_, last)| last.failures == 0);
            let built: HashMap<String, Instant> = built
                .filter_map(|(_, last)| Some((last.table.clone()?, last.began)))
                .collect();
            let sources = match why {
                // Whatever went wrong may have come from another rollup.
                Unfoldable::Failed { .. }
                | Unfoldable::Impossible
                | Unfoldable::SourceWrong { .. }
                | Unfoldable::Unequal { .. }
                | Unfoldable::Unrecorded => Sources::none(),
                Unfoldable::Truncated { .. }
                | Unfoldable::ColumnChanged { .. }
                | Unfoldable::NoOldRow { .. }
                | Unfoldable::TooMuch { .. }
                | Unfoldable::TooMany { .. }
                | Unfoldable::NotKept { .. }
                | Unfoldable::NotFollowed { .. }
                | Unfoldable::Reshaped
                | Unfoldable::Gap => self.sources(&known, shared, &built),
            };
            let table_built = self.build_again(name, why, &sources).await;
            let is_built = table_built.is_some();
            let failures = match last.get(name) {
                _ if is_built => 0,
                Some(last) => last.failures + 1,
                None => 1,
            };
            let this = LastBuild {
                began: begun,
                ended: Instant::now(),
                took: begun.elapsed(),
                failures,
                replaced: table.clone(),
                table: table_built,
            };
            last.insert(name.clone(), this);
            // The next batch finds the new table.
            self.intake.arrived.notify_one();
        }
    }

    /// Which of these rollups to build first.
    async fn first_to_build(&self, names: &[&str]) -> usize {
        let plans = names.iter().filter_map(|name| self.plan(name));
        let plans: Vec<&BuildPlan> = plans.map(|plan| &plan.build).collect();
        let order = self.store.finer_first(&plans).await;
        // Any order will do where that cannot be asked.
        let first = order.ok().and_then(|order| order.first().copied());
        first.unwrap_or(0)
    }

    /// The rollups that are as they should be: those in step, and those `built` before in the place of others.
    fn sources(&self, known: &Known, shared: &Shared, built: &HashMap<String, Instant>) -> Sources {
        let since = |state: &TableState| {
            let contents = known.contents(state)?;
            let lag = shared.lag_of(contents, &state.bases)?;
            Instant::now().checked_sub(lag.time)
        };
        let is_aside = |table: &String| {
            let state = known.tables.get(table);
            state.is_some_and(|state| matches!(state.standing, Standing::Aside(_)))
        };
        let built = built.iter().filter(|(table, _)| !is_aside(table));
        let built = built.map(|(table, began)| (table.clone(), *began));
        let tables = known.tables.iter();
        let followed = tables.filter_map(|(table, state)| Some((table.clone(), since(state)?)));
        Sources {
            plans: self.plans.iter().map(|plan| plan.build.clone()).collect(),
            followed: built.chain(followed).collect(),
            built_since: None,
            keeps_parts: true,
        }
    }

    fn plan(&self, name: &str) -> Option<&MaintainPlan> {
        self.plans.iter().find(|plan| plan.build.name == name)
    }

    /// The table, if it was built.
    async fn build_again(&self, name: &str, why: &Unfoldable, sources: &Sources) -> Option<String> {
        let plan = self.plan(name)?;
        info!(rollup = name, %why, "Building a rollup again.");
        self.states.rebuilt(name, why);
        let tell = |progress| self.states.builds(name, &progress);
        let built = self.store.rebuild(&plan.build, sources, &tell).await;
        self.states.builds_nothing(name);
        match built {
            Ok(built) => Some(built.table),
            Err(error) => {
                warn!(rollup = name, %error, "A rollup could not be built again; it will be tried later.");
                None
            }
        }
    }
}

/// The last time that a rollup was built again.
struct LastBuild {
    began: Instant,
    ended: Instant,
    took: Duration,
    /// How often in a row it failed.
    failures: u32,
    /// The table that was stepped aside.
    replaced: String,
    /// The table in its place, if it could be built.
    table: Option<String>,
}

impl LastBuild {
    /// How long the next one has to wait: a rollup is being built at most a tenth of the time, and less
    /// when that fails.
    fn pause(&self) -> Duration {
        let after_failure = REBUILD_PAUSE_MIN * 2u32.saturating_pow(self.failures.min(16));
        let pause = match self.failures {
            0 => self.took * 9,
            _ => after_failure.max(self.took * 9),
        };
        pause
            .min(REBUILD_PAUSE_MAX)
            .saturating_sub(self.ended.elapsed())
    }
}

async fn connect(
    connector: &Connector,
    options: &MaintainOptions,
) -> Result<Connection, StreamError> {
    let connection = connector.connect().await?;
    connection.batch_execute(SESSION_SETTINGS).await?;
    let gone = (options.stream.patience * GONE_AFTER).as_millis();
    let sql = format!("SET idle_in_transaction_session_timeout = '{gone}ms'");
    connection.batch_execute(&sql).await?;
    Ok(connection)
}

/// Whether this session is now the one of the leader.
async fn try_lead(client: &Client) -> Result<bool, Error> {
    let sql = "SELECT pg_try_advisory_lock($1, $2)";
    let row = client.query_one(sql, &[&LOCK_CLASS, &LEADER_LOCK]).await?;
    Ok(row.try_get(0)?)
}

/// Makes the leader look at the shapes of the tables once more: it does so when a transaction has ended since it last did, and
/// where nobody writes none would. This process looked after that, and so its proofs need a later look.
async fn nudge_leader(client: &Client) -> Result<(), Error> {
    client
        .query_one("SELECT pg_current_xact_id()::text", &[])
        .await?;
    Ok(())
}

/// Whether nobody leads.
async fn is_leaderless(client: &Client) -> Result<bool, Error> {
    let sql = "SELECT pg_try_advisory_lock($1, $2) AND pg_advisory_unlock($1, $2)";
    let row = client.query_one(sql, &[&LOCK_CLASS, &LEADER_LOCK]).await?;
    Ok(row.try_get(0)?)
}

/// Whether somebody builds a table from a snapshot.
async fn is_building(client: &Client) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_locks l
                 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = $1
                   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))";
    let class = SNAPSHOT_LOCK_CLASS.cast_unsigned();
    let row = client.query_one(sql, &[&class]).await?;
    Ok(row.try_get(0)?)
}

/// Who the server and the publication are.
struct Identity {
    system: String,
    publication: String,
    prefix: String,
}

async fn identity(client: &Client) -> Result<Identity, Error> {
    // A dump that is restored brings records of its own, in tables that are others.
    let sql = "SELECT (SELECT system_identifier::text || ' ' || 'pgstar.maintenance'::regclass::oid::text
                         FROM pg_control_system()),
                      (SELECT p.oid::text || ' ' || p.xmin::text FROM pg_publication p WHERE p.pubname = $1),
                      (SELECT 'pgstar_' || d.oid FROM pg_database d WHERE d.datname = current_database())";
    let row = client
        .query_one(sql, &[&crate::stream::PUBLICATION])
        .await?;
    Ok(Identity {
        system: row.try_get(0)?,
        publication: row.try_get::<_, Option<String>>(1)?.unwrap_or_default(),
        prefix: row.try_get(2)?,
    })
}

/// How much log the server keeps for the slot; none if it is not there, or has lost some of it.
async fn retained_bytes(client: &Client, slot: &str) -> Result<Option<u64>, StreamError> {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn)::bigint
                 FROM pg_replication_slots
                WHERE slot_name = $1 AND plugin = 'pgoutput' AND database = current_database()
                  AND wal_status IS DISTINCT FROM 'lost'";
    let row = client.query_opt(sql, &[&slot]).await?;
    let bytes: Option<Option<i64>> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(bytes.map(|bytes| bytes.unwrap_or(0).max(0).cast_unsigned()))
}

/// Up to where the slot was acknowledged.
async fn confirmed(client: &Client, slot: &str) -> Result<Option<Lsn>, StreamError> {
    let sql = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1";
    let row = client.query_opt(sql, &[&slot]).await?;
    let position: Option<Option<String>> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(position
        .flatten()
        .and_then(|position| position.parse().ok()))
}

/// Slots of this database's that no leader will use again.
async fn drop_stray_slots(client: &Client, prefix: &str) -> Result<(), Error> {
    let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                WHERE starts_with(slot_name, $1 || '_') AND NOT active AND NOT temporary";
    client.execute(sql, &[&prefix]).await?;
    Ok(())
}

/// Drops the slots of this database's leaders.
pub(super) async fn drop_slots(config: tokio_postgres::Config) -> Result<(), StreamError> {
    let client = Connector::new(config)?.connect().await?;
    let prefix = identity(&client).await?.prefix;
    Ok(drop_stray_slots(&client, &prefix).await?)
}

/// Whoever streams from the slot of a leader that is none any more does so for nobody.
async fn end_stray_stream(client: &Client, slot: &str) -> Result<(), Error> {
    let sql = "SELECT pg_terminate_backend(a.pid) FROM pg_replication_slots s JOIN pg_stat_activity a ON a.pid = s.active_pid
                WHERE s.slot_name = $1 AND a.usename = current_user";
    client.execute(sql, &[&slot]).await?;
    Ok(())
}
