//! Follows tables that no rollup reads, for as long as kept answers do.
//!
//! Each set of tables has a change stream of its own, with a temporary slot and a publication that nobody
//! alters: a table is added by beginning another stream beside the present one, which is left when the other can
//! prove. So rollups notice nothing, and a transaction that hangs keeps nobody waiting but the new table.
//! What is published and to whom it may not happen is argued in
//! [decision 007](../../../docs/decisions/007-tables-are-followed-when-answers-are-kept.md).

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use pgstar_postgres::stream::{
    ChangeStream, Changed, Position, Proof, StreamError, StreamOptions, Unproven,
};
use pgstar_rewriter::ColumnRange;
use pgstar_rewriter::catalog::Oid;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// A table that no kept answer was asked of for so long is not followed any more.
const UNUSED: Duration = Duration::from_secs(3600);

/// How often it is looked for tables that are unused, and for publications that were left behind.
const LOOK: Duration = Duration::from_secs(60);

/// How soon after a table became wanted a stream is begun: those that a dashboard wants come together.
const GATHER: Duration = Duration::from_millis(300);

/// How soon a stream is begun after the last one.
const PAUSE: Duration = Duration::from_secs(3);

/// The same after trouble, which may be over by then.
const TROUBLE_PAUSE: Duration = Duration::from_secs(5);

/// How soon a table that could not be followed is looked at again.
const REFUSED: Duration = Duration::from_secs(300);

/// How long a new stream may take to begin; transactions that are writing hold it up.
const ESTABLISHED: Duration = Duration::from_secs(600);

/// The tables, and the stream that has their changes.
pub(super) struct Others {
    config: tokio_postgres::Config,
    tables_max: usize,
    uses: Mutex<HashMap<Oid, Use>>,
    current: RwLock<Option<Arc<Watched>>>,
    wanted: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    last: Instant,
    /// When it was last found that it cannot be followed.
    refused: Option<Instant>,
}

struct Watched {
    stream: ChangeStream,
    tables: BTreeSet<Oid>,
}

/// Why no other stream was begun; the present one stays.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Unproven(#[from] Unproven),
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Others")
            .field("tables_max", &self.tables_max)
            .finish_non_exhaustive()
    }
}

impl Others {
    /// Follows nothing yet, and never more than so many tables.
    pub(super) fn new(config: tokio_postgres::Config, tables_max: usize) -> Self {
        Others {
            config,
            tables_max,
            uses: Mutex::default(),
            current: RwLock::default(),
            wanted: Notify::new(),
        }
    }

    fn current(&self) -> Option<Arc<Watched>> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, watched: Option<Arc<Watched>>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = watched;
    }

    /// Whether its changes are followed here.
    pub(super) fn follows(&self, table: Oid) -> bool {
        self.current()
            .is_some_and(|watched| watched.tables.contains(&table))
    }

    /// An answer that reads the tables is kept, or could be.
    pub(super) fn want(&self, tables: &[Oid]) {
        let now = Instant::now();
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = false;
        for table in tables {
            match uses.get_mut(table) {
                Some(known) => known.last = now,
                None => {
                    let refused = None;
                    uses.insert(*table, Use { last: now, refused });
                    is_new = true;
                }
            }
        }
        if is_new && self.tables_max > 0 {
            self.wanted.notify_one();
        }
    }

    /// Whether it could be followed, as far as is known.
    pub(super) fn may_follow(&self, table: Oid) -> bool {
        let uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let is_refused = |used: &Use| used.refused.is_some_and(|at| at.elapsed() < REFUSED);
        self.tables_max > 0 && !uses.get(&table).is_some_and(is_refused)
    }

    /// The tables to follow now: those that are followed already, and the most recently used ones.
    fn target(&self) -> BTreeSet<Oid> {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        uses.retain(|_, used| used.last.elapsed() < UNUSED);
        let is_refused = |used: &Use| used.refused.is_some_and(|at| at.elapsed() < REFUSED);
        let mut wanted: Vec<(&Oid, &Use)> =
            uses.iter().filter(|(_, used)| !is_refused(used)).collect();
        // Those that are followed stay, or the streams of too many tables would end each other.
        wanted.sort_by_key(|(table, used)| std::cmp::Reverse((self.follows(**table), used.last)));
        let wanted = wanted.into_iter().take(self.tables_max);
        wanted.map(|(table, _)| *table).collect()
    }

    /// Leaves out what cannot be followed.
    async fn followable(&self) -> Result<BTreeSet<Oid>, StreamError> {
        let mut target = self.target();
        if self.current().is_some_and(|now| now.tables == target) || target.is_empty() {
            return Ok(target);
        }
        let tables: Vec<Oid> = target.iter().copied().collect();
        let checked = ChangeStream::check(self.config.clone(), &tables).await;
        let (problems, refusals) = checked?;
        if !problems.is_empty() {
            return Err(StreamError::Setup(problems));
        }
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        for refusal in refusals {
            debug!(reason = %refusal.reason, "Answers of a table are not kept.");
            target.remove(&refusal.relation);
            if let Some(used) = uses.get_mut(&refusal.relation) {
                used.refused = Some(Instant::now());
            }
        }
        Ok(target)
    }

    /// Follows for as long as it is polled.
    pub(super) async fn keep(&self) {
        let mut warned = String::new();
        loop {
            let look = match self.renew().await {
                Ok(()) => {
                    warned.clear();
                    LOOK
                }
                Err(error) => {
                    let why = error.to_string();
                    if warned != why {
                        warn!(%why, "Answers are kept for the tables of rollups only.");
                        warned = why;
                    }
                    TROUBLE_PAUSE
                }
            };
            sleep(PAUSE).await;
            // Whichever comes first.
            let _elapsed = timeout(look, self.wanted.notified()).await;
            sleep(GATHER).await;
        }
    }

    /// Begins another stream if other tables are wanted than are followed.
    async fn renew(&self) -> Result<(), Trouble> {
        let tables = self.followable().await?;
        let is_same = match self.current() {
            Some(now) => now.tables == tables,
            None => tables.is_empty(),
        };
        if !is_same {
            let watched = match tables.is_empty() {
                true => None,
                false => Some(self.begin(tables).await?),
            };
            // Answers that were kept under the last one are not found any more.
            self.replace(watched);
        }
        let swept = ChangeStream::sweep(self.config.clone()).await;
        Ok(swept.map_err(StreamError::from)?)
    }

    async fn begin(&self, tables: BTreeSet<Oid>) -> Result<Arc<Watched>, Trouble> {
        let list = tables.iter().copied().collect();
        let options = StreamOptions::passing();
        let stream = ChangeStream::start_with(self.config.clone(), list, options).await?;
        stream.established(ESTABLISHED).await?;
        info!(
            tables = tables.len(),
            "Following tables for answers that are kept."
        );
        Ok(Arc::new(Watched { stream, tables }))
    }

    /// Lets go of everything, and drops what is left of it on the server.
    pub(super) async fn end(&self) {
        if self.current().is_none() {
            return;
        }
        self.replace(None);
        // The stream's sessions end a moment after it; what is still held then the next one sweeps.
        sleep(Duration::from_millis(50)).await;
        if let Err(error) = ChangeStream::sweep(self.config.clone()).await {
            debug!(%error, "A publication is left behind.");
        }
    }

    /// As [`ChangeStream::prove_current`].
    pub(super) async fn prove(&self, deadline: Duration) -> Result<Proof, Unproven> {
        match self.current() {
            Some(watched) => watched.stream.prove_current(deadline).await,
            None => Err(Unproven::NotFollowing {
                why: "no table is followed for kept answers".to_owned(),
            }),
        }
    }

    /// As [`ChangeStream::staleness`].
    pub(super) fn knowledge_age(&self) -> Option<Duration> {
        self.current()?.stream.staleness()
    }

    /// As [`ChangeStream::unchanged_in`].
    pub(super) fn unchanged_in(
        &self,
        position: Position,
        table: Oid,
        ranges: &[ColumnRange],
    ) -> Result<(), Changed> {
        match self.current() {
            Some(watched) => watched.stream.unchanged_in(position, table, ranges),
            None => Err(Changed::OtherEpoch),
        }
    }

    /// As [`ChangeStream::track`].
    pub(super) fn track(&self, range: &ColumnRange) {
        if let Some(watched) = self.current() {
            watched.stream.track(range);
        }
    }

    /// As [`ChangeStream::server`].
    pub(super) fn server(&self) -> String {
        self.current()
            .map(|watched| watched.stream.server())
            .unwrap_or_default()
    }

    /// How many tables are followed here.
    pub(super) fn count(&self) -> usize {
        self.current().map_or(0, |watched| watched.tables.len())
    }
}
