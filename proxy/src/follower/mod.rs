//! What is known of changes to the tables behind rollups and kept answers, and what can be proven of it.
//!
//! Owns the maintainer, which follows the change stream and brings the rollups up to date: begins it, begins
//! it again when other rollups are declared, and says why there is none. Beside it `others` follows tables
//! that no rollup reads. It knows no statements.

mod others;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use pgstar_postgres::maintain::{
    Audit, Figures, MaintainError, MaintainOptions, MaintainPlan, Maintainer, NotCurrent, Standing,
    TableState,
};
use pgstar_postgres::stream::{Changed, Lag, Lsn, Position, Refusal};
use pgstar_postgres::visible::Glimpse;
use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::{ColumnRange, TableRows};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::warn;

use others::Others;

/// How long to wait before a stream that could not begin is tried again; its settings may have been corrected.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);

/// How often it is asked again whether rollups are current for the first time.
const IN_STEP_POLL: Duration = Duration::from_millis(20);

/// Everything acknowledged before the proof was asked for is known, and in the rollups that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// Up to where.
    pub positions: Positions,
    /// How long it took.
    pub waited: Duration,
}

/// Who follows a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The maintainer, because a rollup may be joined with it.
    Rollups,
    /// The stream for kept answers.
    Others,
}

/// A point of each stream that an answer can be tagged with; `None` of a stream that was not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Positions {
    rollups: Option<Position>,
    others: Option<Position>,
}

impl Positions {
    /// Of an answer from rollups.
    pub fn of_rollups(position: Position) -> Self {
        Positions {
            rollups: Some(position),
            others: None,
        }
    }

    /// One of them, for people.
    pub fn shown(&self) -> String {
        let position = self.rollups.or(self.others);
        position.map_or(String::new(), |position| position.at.to_string())
    }

    fn of(&self, side: Side) -> Option<Position> {
        match side {
            Side::Rollups => self.rollups,
            Side::Others => self.others,
        }
    }
}

/// Why something cannot be shown to be current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// There is no stream, or it is late.
    Unproven(String),
    /// A rollup does not follow, for this reason, and is to be built again.
    Aside(String),
    /// Tables have changed, or may have.
    Changed(Changed),
}

/// What is to be followed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The rollups that are to be kept up to date.
    pub plans: Vec<MaintainPlan>,
    /// Tables that statements may join to those behind the rollups.
    pub also: Vec<Oid>,
}

/// Follows what it is told to.
pub struct Follower {
    maintainer: Maintainer,
    others: Others,
    wanted: watch::Sender<Wanted>,
    stage: RwLock<Stage>,
    /// Told of every change of stage.
    staged: watch::Sender<()>,
    /// For the tests of the tests.
    is_weak: AtomicBool,
}

#[derive(Debug, Clone)]
enum Stage {
    /// Nobody keeps it: a command that only looks.
    Unkept,
    /// Not tried yet.
    Starting,
    /// There is no stream, for this reason.
    Off(String),
    On,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Follower {
    /// Nothing is followed before [`begin`](Self::begin) and [`keep`](Self::keep).
    ///
    /// At most so many tables are followed that no rollup reads.
    pub fn new(config: tokio_postgres::Config, others_max: usize) -> Self {
        Follower {
            maintainer: Maintainer::new(config.clone(), MaintainOptions::default()),
            others: Others::new(config, others_max),
            wanted: watch::Sender::new(Wanted::default()),
            stage: RwLock::new(Stage::Unkept),
            staged: watch::Sender::new(()),
            is_weak: AtomicBool::new(false),
        }
    }

    /// From now on whoever waits for the stream waits for [`keep`](Self::keep).
    pub fn begin(&self) {
        self.enter(Stage::Starting);
    }

    /// What is to be followed from now on.
    pub fn want(&self, now: Wanted) {
        self.wanted.send_if_modified(|wanted| {
            let is_other = *wanted != now;
            *wanted = now;
            is_other
        });
    }

    /// Follows for as long as it is polled.
    pub async fn keep(&self) {
        tokio::join!(self.keep_rollups(), self.others.keep());
    }

    /// Nobody polls any more, and what a running process needs on the server is dropped.
    pub async fn end(&self) {
        self.others.end().await;
    }

    async fn keep_rollups(&self) {
        let mut wanted = self.wanted.subscribe();
        let mut warned = String::new();
        loop {
            let Wanted { plans, also } = wanted.borrow_and_update().clone();
            if plans.is_empty() {
                self.enter(Stage::Off("no rollup is declared".to_owned()));
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            match self.maintainer.follow(plans, also).await {
                Ok(()) => {
                    warned.clear();
                    self.enter(Stage::On);
                    if wanted.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let why = error.to_string();
                    if warned != why {
                        warn!(%why, "Strict freshness is not available; dashboards are answered from the base tables.");
                        warned.clone_from(&why);
                    }
                    self.enter(Stage::Off(why));
                    // Whichever comes first; both mean to try again.
                    let _elapsed = timeout(TROUBLE_PAUSE, wanted.changed()).await;
                }
            }
        }
    }

    fn enter(&self, stage: Stage) {
        *self.stage.write().unwrap_or_else(PoisonError::into_inner) = stage;
        self.staged.send_replace(());
    }

    fn stage(&self) -> Stage {
        self.stage
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether changes are followed, or why not.
    pub fn state(&self) -> Result<(), Unknown> {
        let why = match self.stage() {
            Stage::Unkept => "this command does not follow changes".to_owned(),
            Stage::Starting => "changes are not being followed yet".to_owned(),
            Stage::Off(why) => why,
            Stage::On if self.maintainer.epoch().is_some() => return Ok(()),
            Stage::On => "the change stream is being begun".to_owned(),
        };
        Err(Unknown::Unproven(why))
    }

    /// Waits until what is built from now on can be kept up to date, or it is known that it cannot.
    pub async fn settled(&self, deadline: Duration) -> Result<(), Unknown> {
        let by = Instant::now() + deadline;
        let mut staged = self.staged.subscribe();
        loop {
            let left = by.saturating_duration_since(Instant::now());
            match self.stage() {
                Stage::On => {
                    let established = self.maintainer.established(left).await;
                    return established.map(drop).map_err(unproven);
                }
                Stage::Starting if matches!(timeout(left, staged.changed()).await, Ok(Ok(()))) => {}
                Stage::Starting | Stage::Unkept | Stage::Off(_) => return self.state(),
            }
        }
    }

    /// After it returns, every commit acknowledged before the call is known to
    /// [`unchanged_since`](Self::unchanged_since). One round trip at most, shared by all who ask at that moment.
    pub async fn prove(&self, deadline: Duration) -> Result<Proven, Unknown> {
        let asked_at = Instant::now();
        self.state()?;
        if self.is_weak.load(Ordering::Relaxed) {
            return self.assume(asked_at);
        }
        let proof = self.maintainer.prove_current(deadline).await;
        Ok(Proven {
            positions: Positions::of_rollups(proof.map_err(unproven)?.position()),
            waited: asked_at.elapsed(),
        })
    }

    /// Whether what is proven is about the server that this session is on: one that began at this time. After a failover by
    /// address sessions and streams may reach different servers for a while.
    pub fn is_about(&self, server: &str) -> bool {
        let followed = [self.maintainer.server(), self.others.server()];
        let mut followed = followed.iter();
        followed.all(|followed| followed.is_empty() || followed == server)
    }

    /// Who follows the table now.
    pub fn side_of(&self, table: Oid) -> Option<Side> {
        if self.wanted.borrow().also.contains(&table) && self.state().is_ok() {
            return Some(Side::Rollups);
        }
        self.others.follows(table).then_some(Side::Others)
    }

    /// An answer that reads these tables is kept, or could be if they were followed.
    pub fn want_others(&self, tables: &[Oid]) {
        let is_other = |table: &&Oid| !self.wanted.borrow().also.contains(table);
        let others: Vec<Oid> = tables.iter().filter(is_other).copied().collect();
        self.others.want(&others);
    }

    /// Whether all of these tables are followed or could be, as far as is known.
    pub fn may_follow(&self, tables: &[Oid]) -> bool {
        let is_of_rollups = |table: &Oid| self.wanted.borrow().also.contains(table);
        let mut tables = tables.iter();
        tables.all(|table| is_of_rollups(table) || self.others.may_follow(*table))
    }

    /// How many tables are followed that no rollup reads.
    pub fn others(&self) -> usize {
        self.others.count()
    }

    /// As [`prove`](Self::prove), of each of these streams.
    pub async fn prove_sides(&self, sides: &[Side], deadline: Duration) -> Result<Proven, Unknown> {
        let asked_at = Instant::now();
        let rollups = async {
            match sides.contains(&Side::Rollups) {
                true => Ok(self.prove(deadline).await?.positions.rollups),
                false => Ok(None),
            }
        };
        let others = async {
            match sides.contains(&Side::Others) {
                true => {
                    let proof = self.others.prove(deadline).await;
                    Ok(Some(proof.map_err(unproven)?.position()))
                }
                false => Ok(None),
            }
        };
        let (rollups, others) = tokio::try_join!(rollups, others)?;
        Ok(Proven {
            positions: Positions { rollups, others },
            waited: asked_at.elapsed(),
        })
    }

    /// Whether no row of the table that lies in all of these ranges was changed by a commit that is known to who
    /// follows it and ends after the position.
    pub fn is_unchanged(
        &self,
        positions: Positions,
        table: Oid,
        ranges: &[ColumnRange],
        side: Side,
    ) -> Result<(), Unknown> {
        let position = positions.of(side);
        let position = position.ok_or(Unknown::Changed(Changed::NotFollowed(table)))?;
        let unchanged = match side {
            Side::Rollups => self.maintainer.unchanged_in(position, table, ranges),
            Side::Others => self.others.unchanged_in(position, table, ranges),
        };
        unchanged.map_err(Unknown::Changed)
    }

    /// From now on it is noted which values of these columns change, if there is room.
    pub fn track(&self, ranges: &[ColumnRange], side: Side) {
        for range in ranges {
            match side {
                Side::Rollups => self.maintainer.track(range),
                Side::Others => self.others.track(range),
            }
        }
    }

    /// After it returns, each of these rollup tables has every commit acknowledged before the call, and all
    /// have the same. They have to be read by one statement that begins afterwards. A glimpse that was caught after the call was
    /// due may save asking the server.
    pub async fn prove_rollups(
        &self,
        tables: &[&str],
        glimpse: Option<&Glimpse>,
        deadline: Duration,
    ) -> Result<Proven, Unknown> {
        let asked_at = Instant::now();
        self.state()?;
        if self.is_weak.load(Ordering::Relaxed) {
            return self.assume(asked_at);
        }
        match self.maintainer.prove_by(glimpse, tables, deadline).await {
            Ok(proof) => Ok(Proven {
                positions: Positions::of_rollups(proof.position()),
                waited: asked_at.elapsed(),
            }),
            Err(aside @ NotCurrent::SteppedAside { .. }) => Err(Unknown::Aside(aside.to_string())),
            Err(
                why @ (NotCurrent::Stream(_)
                | NotCurrent::NotMaintained { .. }
                | NotCurrent::Late { .. }),
            ) => Err(unproven(why)),
        }
    }

    /// Waits until these rollup tables are current for the first time: the maintainer takes a moment to find
    /// what was just built.
    pub async fn in_step(&self, tables: &[&str], deadline: Duration) -> Result<Proven, Unknown> {
        let by = Instant::now() + deadline;
        loop {
            let left = by.saturating_duration_since(Instant::now());
            match self.prove_rollups(tables, None, left).await {
                Err(_) if !left.is_zero() => sleep(IN_STEP_POLL.min(left)).await,
                outcome => return outcome,
            }
        }
    }

    /// A mistake that the tests have to notice: what is known is taken for all there is to know.
    #[doc(hidden)]
    pub fn weaken(&self) {
        self.is_weak.store(true, Ordering::Relaxed);
    }

    fn assume(&self, asked_at: Instant) -> Result<Proven, Unknown> {
        let epoch = self.maintainer.epoch();
        let epoch = epoch.ok_or_else(|| unproven("the change stream was lost"))?;
        Ok(Proven {
            positions: Positions::of_rollups(Position {
                epoch: epoch.id,
                at: epoch.complete_from,
            }),
            waited: asked_at.elapsed(),
        })
    }

    /// Whether none of these base tables of rollups was changed by a commit that is known and ends after the position.
    pub fn unchanged_since(&self, positions: Positions, tables: &[Oid]) -> Result<(), Unknown> {
        let is_unchanged = |table: &Oid| self.is_unchanged(positions, *table, &[], Side::Rollups);
        tables.iter().try_for_each(is_unchanged)
    }

    /// Whether none of these rows of a base table of rollups was changed by a commit that is known and ends after the position.
    pub fn is_untouched(&self, positions: Positions, rows: &TableRows) -> Result<(), Unknown> {
        self.is_unchanged(positions, rows.table, &rows.ranges, Side::Rollups)
    }

    /// Every commit acknowledged longer ago than this is in the rollup's table; costs no round trip.
    pub fn staleness(&self, table: &str) -> Option<Duration> {
        self.maintainer.staleness(table)
    }

    /// As [`Maintainer::lag`].
    pub fn lag(&self, table: &str) -> Option<Lag> {
        self.maintainer.lag(table)
    }

    /// As [`Maintainer::audit`].
    pub async fn audit(
        &self,
        rollup: &str,
        chance: u64,
        timeout: Duration,
    ) -> Result<Audit, MaintainError> {
        self.maintainer.audit(rollup, chance, timeout).await
    }

    /// Whether this rollup's table was found not to be what it should be.
    pub fn is_condemned(&self, table: &str) -> bool {
        self.maintainer.is_condemned(table)
    }

    /// Whether this rollup's table contains what all others do that are in step.
    pub fn is_in_step(&self, table: &str) -> bool {
        self.maintainer.is_in_step(table)
    }

    /// Whether there is no stream and will be none before somebody changes a setting.
    pub fn is_impossible(&self) -> bool {
        matches!(self.stage(), Stage::Unkept | Stage::Off(_))
    }

    /// Every commit acknowledged longer ago than this is known to [`is_unchanged`](Self::is_unchanged); costs no round trip.
    pub fn knowledge_age(&self, side: Side) -> Option<Duration> {
        match side {
            Side::Rollups => self.maintainer.knowledge_age(),
            Side::Others => self.others.knowledge_age(),
        }
    }

    /// Whether this process brings the rollups forward itself, so that it knows every change that is in one.
    pub fn leads(&self) -> bool {
        self.maintainer.leads()
    }

    /// Whether this rollup's table has to be built again.
    pub fn is_aside(&self, table: &str) -> bool {
        let tables = self.maintainer.tables();
        let state = tables.get(table);
        state.is_some_and(|state| matches!(state.standing, Standing::Aside(_)))
    }

    /// The wanted tables that are not followed, and why.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.maintainer.refusals()
    }

    /// How each rollup's table is doing, by its name.
    pub fn tables(&self) -> HashMap<String, TableState> {
        self.maintainer.tables()
    }

    /// How far the log was when it was last read, and up to where everything is decoded and visible.
    pub fn positions(&self) -> Option<(Lsn, Lsn)> {
        self.maintainer.positions()
    }

    /// What was done since the process started.
    pub fn figures(&self) -> Figures {
        self.maintainer.figures()
    }
}

fn unproven(why: impl fmt::Display) -> Unknown {
    Unknown::Unproven(why.to_string())
}
