//! What is known of changes to the tables behind rollups and kept answers, and what can be proven of it.
//!
//! Owns the change stream: begins it, begins it again when other tables are to be followed, and says why
//! there is none. It knows positions and tables, and neither statements nor rollups' contents.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use pgstar_postgres::stream::{ChangeStream, Changed, Position, Refusal};
use pgstar_rewriter::catalog::Oid;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::warn;

/// How long to wait before a stream that could not begin is tried again; its settings may have been corrected.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);

/// Everything acknowledged before the proof was asked for is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proven {
    /// Up to where.
    pub position: Position,
    /// How long it took.
    pub waited: Duration,
}

/// Why something cannot be shown to be current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// There is no stream, or it is late.
    Unproven(String),
    /// It is not known which commits it has.
    Unplaced,
    /// Tables have changed, or may have.
    Changed(Changed),
}

/// Follows the tables that it is told to.
pub struct Follower {
    config: tokio_postgres::Config,
    wanted: watch::Sender<BTreeSet<Oid>>,
    stage: RwLock<Stage>,
    /// Told of every change of stage.
    staged: watch::Sender<()>,
    /// For the tests of the tests.
    is_weak: AtomicBool,
}

enum Stage {
    /// Nobody keeps it: a command that only looks.
    Unkept,
    /// Not tried yet.
    Starting,
    /// There is no stream, for this reason.
    Off(String),
    On(Arc<ChangeStream>),
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

impl Follower {
    /// Nothing is followed before [`begin`](Self::begin) and [`keep`](Self::keep).
    pub fn new(config: tokio_postgres::Config) -> Self {
        Follower {
            config,
            wanted: watch::Sender::new(BTreeSet::new()),
            stage: RwLock::new(Stage::Unkept),
            staged: watch::Sender::new(()),
            is_weak: AtomicBool::new(false),
        }
    }

    /// From now on whoever waits for the stream waits for [`keep`](Self::keep).
    pub fn begin(&self) {
        self.enter(Stage::Starting);
    }

    /// Which tables are to be followed from now on.
    pub fn want(&self, tables: BTreeSet<Oid>) {
        self.wanted.send_if_modified(|wanted| {
            let is_other = *wanted != tables;
            *wanted = tables;
            is_other
        });
    }

    /// Follows for as long as it is polled.
    pub async fn keep(&self) {
        let mut wanted = self.wanted.subscribe();
        let mut warned = String::new();
        loop {
            let tables: Vec<Oid> = wanted.borrow_and_update().iter().copied().collect();
            if tables.is_empty() {
                self.enter(Stage::Off("no rollup is declared".to_owned()));
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            match ChangeStream::start(self.config.clone(), tables).await {
                Ok(stream) => {
                    warned.clear();
                    self.enter(Stage::On(Arc::new(stream)));
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

    fn stream(&self) -> Result<Arc<ChangeStream>, Unknown> {
        let stage = self.stage.read().unwrap_or_else(PoisonError::into_inner);
        let why = match &*stage {
            Stage::Unkept => "this command does not follow changes",
            Stage::Starting => "changes are not being followed yet",
            Stage::Off(why) => why,
            Stage::On(stream) => return Ok(Arc::clone(stream)),
        };
        Err(Unknown::Unproven(why.to_owned()))
    }

    /// Waits until proofs are possible or it is known that they are not.
    pub async fn settled(&self, deadline: Duration) -> Result<(), Unknown> {
        let by = Instant::now() + deadline;
        let mut staged = self.staged.subscribe();
        loop {
            let is_starting = matches!(
                &*self.stage.read().unwrap_or_else(PoisonError::into_inner),
                Stage::Starting
            );
            let left = by.saturating_duration_since(Instant::now());
            if !is_starting {
                let established = self.stream()?.established(left).await;
                return established.map(drop).map_err(unproven);
            }
            if !matches!(timeout(left, staged.changed()).await, Ok(Ok(()))) {
                return self.stream().map(drop);
            }
        }
    }

    /// After it returns, every commit acknowledged before the call is known to
    /// [`unchanged_since`](Self::unchanged_since). One round trip at most, shared by all who ask at that moment.
    pub async fn prove(&self, deadline: Duration) -> Result<Proven, Unknown> {
        let asked_at = Instant::now();
        if self.is_weak.load(Ordering::Relaxed) {
            return self.assume(asked_at);
        }
        let proof = self.stream()?.prove_current(deadline).await;
        let position = proof.map_err(unproven)?.position();
        Ok(Proven {
            position,
            waited: asked_at.elapsed(),
        })
    }

    /// A mistake that the tests have to notice: what is known is taken for all there is to know.
    #[doc(hidden)]
    pub fn weaken(&self) {
        self.is_weak.store(true, Ordering::Relaxed);
    }

    fn assume(&self, asked_at: Instant) -> Result<Proven, Unknown> {
        let epoch = self.stream()?.epoch();
        let epoch = epoch.ok_or_else(|| unproven("the change stream was lost"))?;
        Ok(Proven {
            position: Position {
                epoch: epoch.id,
                at: epoch.complete_from,
            },
            waited: asked_at.elapsed(),
        })
    }

    /// Whether none of these tables was changed by a commit that is known and ends after the position.
    pub fn unchanged_since(&self, position: Position, tables: &[Oid]) -> Result<(), Unknown> {
        let unchanged = self.stream()?.unchanged_since(position, tables);
        unchanged.map_err(Unknown::Changed)
    }

    /// Every commit acknowledged longer ago than this is known; costs no round trip.
    pub fn staleness(&self) -> Result<Duration, Unknown> {
        let staleness = self.stream()?.staleness();
        staleness.ok_or_else(|| unproven("the change stream has not caught up yet"))
    }

    /// The wanted tables that are not followed, and why.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.stream()
            .map(|stream| stream.refusals())
            .unwrap_or_default()
    }

    /// Whether there is a stream, or why not.
    pub fn state(&self) -> Result<(), Unknown> {
        let stream = self.stream()?;
        let epoch = stream.epoch();
        epoch
            .map(drop)
            .ok_or_else(|| unproven("the change stream was lost and is being begun again"))
    }
}

fn unproven(why: impl fmt::Display) -> Unknown {
    Unknown::Unproven(why.to_string())
}
