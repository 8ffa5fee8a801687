//! What is known of every rollup at this moment, for whoever asks. No connection is used here.

use std::collections::HashMap;
use std::sync::atomic::AtomicI32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pgstar_rewriter::catalog::Oid;
use tokio::sync::{Notify, watch};

use super::fold::Folded;
use super::reason::Unfoldable;
use crate::rollups::BuildProgress;
use crate::stream::Contents;

/// How a rollup's table is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It contains what the clock says, with all others that are in step.
    InStep,
    /// It was built a moment ago and waits to be brought forward.
    Behind(Contents),
    /// It has to be built again.
    Aside(Unfoldable),
}

/// A rollup's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableState {
    /// The rollup's name.
    pub name: String,
    /// The tables that it is built from.
    pub bases: Vec<Oid>,
    /// How it is doing.
    pub standing: Standing,
}

/// Everything, at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Known {
    pub(super) clock: Option<Contents>,
    pub(super) tables: HashMap<String, TableState>,
}

impl Known {
    /// What the table contains.
    pub(super) fn contents<'a>(&'a self, state: &'a TableState) -> Option<&'a Contents> {
        match &state.standing {
            Standing::InStep => self.clock.as_ref(),
            Standing::Behind(own) => Some(own),
            Standing::Aside(_) => None,
        }
    }
}

/// Whether this process brings the rollups up to date, or another does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// Neither is known at present.
    #[default]
    None,
    /// This one.
    Leader,
    /// Another one.
    Follower,
}

/// Figures of one rollup since this process started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RollupFigures {
    /// Batches that changed something.
    pub batches: u64,
    /// Groups that were changed.
    pub groups: u64,
    /// Groups that were computed from the base tables.
    pub recomputed_groups: u64,
    /// How often it was built again, by reason.
    pub rebuilds: HashMap<&'static str, u64>,
    /// What building it again is at.
    pub building: Option<BuildProgress>,
}

/// Figures of this process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// What this process does.
    pub role: Role,
    /// Transactions that brought the rollups forward.
    pub batches: u64,
    /// Changed rows that were folded; an update is two.
    pub rows: u64,
    /// How long the last batch took.
    pub last_batch: Duration,
    /// Bytes of changed rows that wait.
    pub waiting_bytes: u64,
    /// Bytes of log that the server keeps for the slot.
    pub retained_bytes: u64,
    /// Of each rollup.
    pub rollups: HashMap<String, RollupFigures>,
}

/// Shared by those who change it and those who ask.
pub(super) struct States {
    known: watch::Sender<Arc<Known>>,
    figures: Mutex<Figures>,
    /// Tables that were found to be wrong. No later one has the name of any.
    condemned: Mutex<HashMap<String, Unfoldable>>,
    /// The server's process of the session in which this process led last.
    pub(super) led_by: AtomicI32,
    /// Somebody waits for newer states than there are.
    pub(super) wanted: Notify,
}

impl States {
    pub(super) fn new() -> Self {
        States {
            known: watch::Sender::new(Arc::default()),
            figures: Mutex::default(),
            condemned: Mutex::default(),
            led_by: AtomicI32::default(),
            wanted: Notify::new(),
        }
    }

    pub(super) fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.borrow())
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<Known>> {
        self.known.subscribe()
    }

    pub(super) fn publish(&self, clock: Option<Contents>, mut tables: HashMap<String, TableState>) {
        // Whatever was folded into it meanwhile: it stays wrong until it is replaced.
        for (table, state) in &mut tables {
            if let Some(why) = self.condemned(table) {
                state.standing = Standing::Aside(why);
            }
        }
        let now = Arc::new(Known { clock, tables });
        self.known.send_if_modified(|known| {
            let is_new = *known != now;
            *known = now;
            is_new
        });
    }

    /// What is known of the rollups was read from a server that may not be the one of the next epoch, where the same
    /// numbers may name other transactions. Who waits for a rollup goes on waiting.
    pub(super) fn forget(&self) {
        self.known.send_modify(|known| {
            let mut tables = known.tables.clone();
            for state in tables.values_mut() {
                if matches!(state.standing, Standing::Behind(_)) {
                    state.standing = Standing::InStep;
                }
            }
            *known = Arc::new(Known {
                clock: None,
                tables,
            });
        });
    }

    /// The table is wrong. It answers no more from this moment on.
    pub(super) fn condemn(&self, table: &str, why: Unfoldable) {
        let condemned = self.condemned.lock();
        condemned
            .unwrap_or_else(PoisonError::into_inner)
            .insert(table.to_owned(), why.clone());
        self.known.send_modify(|known| {
            let mut now = Known::clone(known);
            if let Some(state) = now.tables.get_mut(table) {
                state.standing = Standing::Aside(why);
            }
            *known = Arc::new(now);
        });
    }

    /// Whether the table was found to be wrong, and why.
    pub(super) fn condemned(&self, table: &str) -> Option<Unfoldable> {
        let condemned = self.condemned.lock();
        let condemned = condemned.unwrap_or_else(PoisonError::into_inner);
        condemned.get(table).cloned()
    }

    fn figures_mut(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn figures(&self) -> Figures {
        self.figures_mut().clone()
    }

    pub(super) fn is_leader(&self) -> bool {
        self.figures_mut().role == Role::Leader
    }

    pub(super) fn is(&self, role: Role) {
        let mut figures = self.figures_mut();
        figures.role = role;
        // Whoever did that does it no more.
        for own in figures.rollups.values_mut() {
            own.building = None;
        }
    }

    pub(super) fn folded(&self, rollup: &str, folded: &Folded) {
        if folded.groups == 0 {
            return;
        }
        let mut figures = self.figures_mut();
        let own = figures.rollups.entry(rollup.to_owned()).or_default();
        own.batches += 1;
        own.groups += folded.groups;
        own.recomputed_groups += folded.recomputed;
    }

    pub(super) fn advanced(&self, rows: u64, since: Instant, waiting_bytes: u64) {
        let mut figures = self.figures_mut();
        figures.batches += 1;
        figures.rows += rows;
        figures.last_batch = since.elapsed();
        figures.waiting_bytes = waiting_bytes;
    }

    pub(super) fn retained(&self, bytes: u64) {
        self.figures_mut().retained_bytes = bytes;
    }

    /// It is being built again.
    pub(super) fn builds(&self, rollup: &str, progress: &BuildProgress) {
        let mut figures = self.figures_mut();
        let own = figures.rollups.entry(rollup.to_owned()).or_default();
        own.building = Some(progress.clone());
    }

    /// It is not any more.
    pub(super) fn builds_nothing(&self, rollup: &str) {
        if let Some(own) = self.figures_mut().rollups.get_mut(rollup) {
            own.building = None;
        }
    }

    pub(super) fn rebuilt(&self, rollup: &str, why: &Unfoldable) {
        let mut figures = self.figures_mut();
        let own = figures.rollups.entry(rollup.to_owned()).or_default();
        *own.rebuilds.entry(why.code()).or_default() += 1;
    }
}
