//! Follows which tables change, and proves at any moment that nothing was missed.
//!
//! It knows positions in the log, not rows and not rollups.
//!
//! # How it works
//!
//! A publication names the tables (`setup`, `tables`, `publication`), a **temporary** slot (`slot`)
//! decodes them: nothing of it is left on the server when pgstar dies. Each time a stream begins is
//! an **epoch**; what was known in one says nothing in the next, because the log between is unknown.
//!
//! `epoch` begins one and runs its tasks: `reader`, `visibility`, `timekeeper`.
//!
//! `progress` keeps the end of the newest commit that changed each table, and the **safe position**:
//! every commit that ends up to there was decoded *and* was seen by a fresh snapshot. Both are
//! needed. PostgreSQL streams a commit when it is in the log, but lets it be seen only afterwards
//! (with a synchronous standby, long afterwards); who took the first for the second would build a
//! rollup without the commit and believe that it has it.
//!
//! # The proof
//!
//! [`ChangeStream::prove_current`] reads the log's end (`pg_current_wal_insert_lsn()`, once for all
//! sessions that wait at that moment) and waits until the safe position has reached it. The end of
//! what is *flushed* would not do: with `synchronous_commit = off` a commit is acknowledged and
//! visible before it is flushed. When the safe position lags by more than 5 ms, a message is
//! committed to have the log flushed (a barrier). Past the deadline it is [`Unproven`], and the base
//! tables have to answer.
//!
//! # What a rollup needs to be current
//!
//! 1. [`ChangeStream::build_position`] gives position P, **before** the build's snapshot is taken (for
//!    `CREATE TABLE … AS` under READ COMMITTED: before that statement is sent; under REPEATABLE READ:
//!    before the transaction's first statement). The build has to run on the same server.
//! 2. To answer a statement that arrives at t: `prove_current`, begun at or after t, then
//!    [`ChangeStream::unchanged_since`]`(P, base tables)`. `Ok` from both means that the rollup equals
//!    what a snapshot taken at t would give.
//!
//! Why. Let W be the log's end that the proof read; every commit that is visible or acknowledged at t
//! ends at or before W, and the proof says that the safe position S ≥ W.
//! *Nothing is missing:* a commit that changed a base table and ends in (P, W] was decoded, so the
//! table's last change is after P, and `unchanged_since` refuses. One that ends at or before P was
//! seen by a snapshot before P became safe; what a primary's snapshot sees, each later one sees, and
//! the build's is later. Commits from before the epoch, which the stream does not have, are seen as
//! well: the safe position exists only once every transaction has ended that had a number when the
//! slot was complete.
//! *Nothing is too much:* a commit that the build's snapshot saw ends before W, because the build
//! ended before t. If it ends after P, it was decoded and `unchanged_since` refuses.
//!
//! All of this is about the server that the stream is attached to. After a failover by address, a
//! session that reaches the new primary must not use a proof about the old one.
//!
//! The epochs have to be the same; `unchanged_since` checks that under one lock with the positions.
//!
//! # What is not in the stream
//!
//! TRUNCATE counts as a change, but PostgreSQL does not publish TRUNCATE of a single partition,
//! ATTACH, DETACH or DROP of one, nor a rewrite by ALTER TABLE. The statement that reads the log's
//! end therefore also reads the catalog rows of all followed tables and partitions (`clock`), and a
//! difference counts as a change of the table at that end. Everything else that a rollup rests on
//! (constraints, functions, types, privileges, row policies) is watched by
//! [`catalog_fingerprint`](crate::catalog::catalog_fingerprint), which is polled and not here.

mod blocker;
mod buckets;
mod clock;
pub(crate) mod epoch;
mod error;
mod progress;
pub(crate) mod publication;
pub(crate) mod purpose;
mod reader;
pub(crate) mod receiving;
pub(crate) mod recent;
mod setup;
pub(crate) mod shared;
mod slot;
pub(crate) mod snapshot;
mod tables;
mod timekeeper;
mod touching;
mod visibility;

use std::sync::Arc;
use std::time::Duration;

use pgstar_rewriter::ColumnRange;
use pgstar_rewriter::catalog::Oid;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_postgres::Config;
use tracing::warn;

pub use error::{Changed, StreamError, Unproven};
pub use recent::Contents;
pub use setup::SetupProblem;
pub use snapshot::{NotASnapshot, Snapshot, Xid};
pub use tables::{Refusal, RefusalReason};

pub use crate::replication::Lsn;

use crate::connect::{Connector, Error};
use crate::visible::Glimpse;
use epoch::Setting;
use purpose::{Purpose, Watching};
use shared::Shared;

/// The name of the publication that rollups are followed by.
pub const PUBLICATION: &str = "pgstar";

/// How the names of other publications of pgstar's begin: each belongs to one running process.
pub const PASSING_PUBLICATION: &str = "pgstar_cache_";

/// So many sessions may be waiting for the log's end to be asked for; more wait to be counted.
const REQUESTS_MAX: usize = 4096;

/// How soon a lost stream is begun again; then doubled up to the other.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// Where the answer to "how far is the log" goes.
type Request = oneshot::Sender<(EpochId, Lsn)>;

/// Names an epoch, over all streams of all processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EpochId(u64);

/// A time without a gap in what is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// Which.
    pub id: EpochId,
    /// Every commit that ends after this position is known.
    pub complete_from: Lsn,
}

/// A point that later changes can be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The epoch it belongs to.
    pub epoch: EpochId,
    /// Every commit that ends up to here is visible to every snapshot taken from now on.
    pub at: Lsn,
}

/// Every commit acknowledged before the proof was asked for is decoded and visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// The epoch.
    pub epoch: Epoch,
    /// The safe position.
    pub at: Lsn,
}

impl Proof {
    /// What an answer that is computed from now on can be tagged with.
    pub fn position(&self) -> Position {
        Position {
            epoch: self.epoch.id,
            at: self.at,
        }
    }
}

/// How far something that is made from tables is behind of them, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Every commit that ends up to here is in it.
    pub at: Lsn,
    /// How much further the log was when its end was last read.
    pub bytes: u64,
    /// Every commit acknowledged longer ago is in it.
    pub time: Duration,
}

/// How a stream behaves.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// How long creating the slot may wait for transactions that are writing, before it is tried again.
    pub slot_timeout: Duration,
    /// The publication; one stream at a time may have it.
    pub publication: String,
    /// How long an answer may take on a server that is alive. Thrice that is what the server lets pass
    /// before it ends the sessions of a process that is gone without a word.
    pub patience: Duration,
    /// For the tests of the tests.
    #[doc(hidden)]
    pub weakness: Weakness,
}

impl StreamOptions {
    /// With a publication of its own, which is dropped by [`ChangeStream::sweep`] when the stream is gone.
    pub fn passing() -> Self {
        StreamOptions {
            publication: format!("{PASSING_PUBLICATION}{:x}", EpochId::new().0),
            ..StreamOptions::default()
        }
    }

    fn is_passing(&self) -> bool {
        self.publication != PUBLICATION
    }
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions {
            slot_timeout: Duration::from_secs(300),
            publication: PUBLICATION.to_owned(),
            patience: Duration::from_secs(10),
            weakness: Weakness::None,
        }
    }
}

/// A mistake that the tests have to notice.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weakness {
    None,
    /// Takes the flushed end of the log for its end.
    FlushedEnd,
    /// Takes what was decoded for visible.
    NoVisibilityGate,
    /// Takes what was committed before the slot for visible.
    NoStartWait,
    /// Takes no note of what a changed row was before.
    NewRowsOnly,
    /// Takes a row that is not known for none.
    KnownRowsOnly,
    /// Takes what a partition leaves out of its old rows for NULL.
    BelievesNulls,
}

impl Weakness {
    fn log_end(self) -> &'static str {
        match self {
            Weakness::FlushedEnd => "pg_current_wal_flush_lsn",
            Weakness::None
            | Weakness::NoVisibilityGate
            | Weakness::NoStartWait
            | Weakness::NewRowsOnly
            | Weakness::KnownRowsOnly
            | Weakness::BelievesNulls => "pg_current_wal_insert_lsn",
        }
    }
}

/// Follows the changes of some tables until it is dropped, over as many epochs as it takes.
pub struct ChangeStream {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    supervisor: JoinHandle<()>,
}

impl Drop for ChangeStream {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

impl ChangeStream {
    /// Checks the server and the tables, creates the publication or alters it to match, and begins
    /// to follow in the background: a slot may have to wait for transactions that are writing.
    ///
    /// Tables that cannot be followed are left out; see [`refusals`](Self::refusals).
    pub async fn start(config: Config, tables: Vec<Oid>) -> Result<Self, StreamError> {
        Self::start_with(config, tables, StreamOptions::default()).await
    }

    /// The same with other options.
    pub async fn start_with(
        config: Config,
        tables: Vec<Oid>,
        options: StreamOptions,
    ) -> Result<Self, StreamError> {
        Self::start_for(config, tables, options, Arc::new(Watching)).await
    }

    /// The same for something else than watching.
    pub(crate) async fn start_for(
        config: Config,
        tables: Vec<Oid>,
        options: StreamOptions,
        purpose: Arc<impl Purpose>,
    ) -> Result<Self, StreamError> {
        let connector = Connector::new(config)?;
        let shared = Arc::new(Shared::new(vec![]));
        let mut client = epoch::connect(&connector, options.patience).await?;
        let setting = Setting {
            connector: &connector,
            tables: &tables,
            options: &options,
            shared: &shared,
        };
        epoch::prepare(&mut client, &setting).await?;
        drop(client);
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let follows = supervise(
            connector,
            tables,
            options,
            Arc::clone(&shared),
            asked,
            purpose,
        );
        Ok(ChangeStream {
            shared,
            requests,
            supervisor: tokio::spawn(follows),
        })
    }

    /// What a stream over these tables would lack, and which of them it would leave out; changes nothing.
    pub async fn check(
        config: Config,
        tables: &[Oid],
    ) -> Result<(Vec<SetupProblem>, Vec<Refusal>), Error> {
        let client = Connector::new(config)?.connect().await?;
        let problems = setup::problems(&client, PUBLICATION).await?;
        let (_, refusals) = tables::inspect(&client, tables).await?;
        Ok((problems, refusals))
    }

    /// Drops the publications of streams that are gone.
    pub async fn sweep(config: Config) -> Result<(), Error> {
        publication::sweep(&*Connector::new(config)?.connect().await?).await
    }

    /// Drops the publications, which are all that streams leave on the server.
    pub async fn uninstall(config: Config) -> Result<(), Error> {
        let client = Connector::new(config)?.connect().await?;
        publication::sweep(&client).await?;
        let sql = format!("DROP PUBLICATION IF EXISTS {PUBLICATION}");
        Ok(client.batch_execute(&sql).await?)
    }

    /// The present epoch; none while there is no stream.
    pub fn epoch(&self) -> Option<Epoch> {
        self.shared.epoch()
    }

    /// When the server process began that is followed, in seconds as `extract(epoch …)::text` gives them; empty before
    /// there was one. Nothing that is proven is about another server.
    pub fn server(&self) -> String {
        self.shared.server()
    }

    /// How far the log was when it was last read, and up to where everything is decoded and visible.
    pub fn positions(&self) -> Option<(Lsn, Lsn)> {
        self.shared.positions()
    }

    /// The tables that are not followed, and why.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.shared.refusals()
    }

    /// The end of the newest commit of this epoch that changed the relation; a partition's is its
    /// table's. `None` means that none was seen.
    pub fn last_change(&self, relation: Oid) -> Result<Option<Lsn>, Changed> {
        self.shared.last_change(relation)
    }

    /// Whether none of these relations was changed by a commit that is known and ends after the
    /// position. To be asked after [`prove_current`](Self::prove_current), which makes known what
    /// there is to know.
    pub fn unchanged_since(&self, position: Position, relations: &[Oid]) -> Result<(), Changed> {
        self.shared.unchanged_since(position, relations)
    }

    /// From now on it is noted which values of this column change, if there is room.
    pub fn track(&self, range: &ColumnRange) {
        self.shared.track(range);
    }

    /// As [`unchanged_since`](Self::unchanged_since), of one table of which only rows in all of these ranges
    /// matter. Ranges of columns that are not [tracked](Self::track) say nothing.
    pub fn unchanged_in(
        &self,
        position: Position,
        table: Oid,
        ranges: &[ColumnRange],
    ) -> Result<(), Changed> {
        self.shared.unchanged_in(position, table, ranges)
    }

    /// How old knowledge is at most: every commit acknowledged longer ago than this is known.
    /// Costs no round trip; none before the stream has caught up for the first time.
    pub fn staleness(&self) -> Option<Duration> {
        self.shared.staleness()
    }

    /// After it returns, every commit that was acknowledged before the call is reflected in
    /// [`last_change`](Self::last_change), and visible. At most one round trip, shared, and the time
    /// that PostgreSQL takes to flush and decode its log.
    ///
    /// While there is no stream it fails at once.
    pub async fn prove_current(&self, deadline: Duration) -> Result<Proof, Unproven> {
        let by = Instant::now() + deadline;
        let mut wanted = None;
        let proven = timeout_at(by, self.prove(None, &mut wanted)).await;
        proven.unwrap_or_else(|_| Err(self.shared.unproven(deadline, wanted)))
    }

    /// A position to compare a rollup with that is built from now on: the build's snapshot has to be
    /// taken after this returns. The module's documentation says why that suffices.
    pub async fn build_position(&self, deadline: Duration) -> Result<Position, Unproven> {
        Ok(self.prove_current(deadline).await?.position())
    }

    /// Waits until a stream has begun and proofs are possible.
    pub async fn established(&self, deadline: Duration) -> Result<Epoch, Unproven> {
        let mut watched = self.shared.watch();
        let safe = watched.wait_for(|safe| safe.position.is_some());
        match timeout(deadline, safe).await {
            Ok(Ok(safe)) => safe.epoch.ok_or(Unproven::Interrupted),
            Ok(Err(_)) => Err(Unproven::Interrupted),
            Err(_) => Err(self.shared.unproven(deadline, None)),
        }
    }

    /// The same, with the end of the log that was read: what is newer need not be in the answer. A glimpse that was caught
    /// after the call was due may save reading it.
    pub(crate) async fn prove_up_to(
        &self,
        glimpse: Option<&Glimpse>,
        deadline: Duration,
    ) -> Result<(Proof, Lsn), Unproven> {
        let by = Instant::now() + deadline;
        let mut wanted = None;
        match timeout_at(by, self.prove(glimpse, &mut wanted)).await {
            Ok(Ok(proof)) => Ok((proof, wanted.map_or(proof.at, |(_, end)| end))),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(self.shared.unproven(deadline, wanted)),
        }
    }

    /// What the tasks of the stream know.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    async fn prove(
        &self,
        glimpse: Option<&Glimpse>,
        wanted: &mut Option<(EpochId, Lsn)>,
    ) -> Result<Proof, Unproven> {
        if self.shared.epoch().is_none() {
            return Err(self.shared.unproven(Duration::ZERO, None));
        }
        let glimpsed = glimpse.and_then(|it| Some((self.shared.recall(it)?, it.log_end)));
        let (epoch, end) = match glimpsed {
            Some(glimpsed) => glimpsed,
            None => self.read_end().await?,
        };
        *wanted = Some((epoch, end));
        self.reach(epoch, end).await
    }

    async fn read_end(&self) -> Result<(EpochId, Lsn), Unproven> {
        let (tell, told) = oneshot::channel();
        let stopped = |_| Unproven::Interrupted;
        self.requests.send(tell).await.map_err(stopped)?;
        told.await.map_err(|_| Unproven::Interrupted)
    }

    /// Waits until the safe position is `end`, asking for barriers.
    async fn reach(&self, id: EpochId, end: Lsn) -> Result<Proof, Unproven> {
        let mut watched = self.shared.watch();
        loop {
            let reached = watched.wait_for(|safe| {
                let is_other = safe.epoch.is_none_or(|epoch| epoch.id != id);
                is_other || safe.position.is_some_and(|safe| safe >= end)
            });
            match timeout(epoch::BARRIER_INTERVAL, reached).await {
                Ok(Ok(safe)) => {
                    let (Some(epoch), Some(at)) = (safe.epoch, safe.position) else {
                        return Err(Unproven::Interrupted);
                    };
                    let is_same = epoch.id == id;
                    return is_same
                        .then_some(Proof { epoch, at })
                        .ok_or(Unproven::Interrupted);
                }
                Ok(Err(_)) => return Err(Unproven::Interrupted),
                // A barrier cannot make anything visible.
                Err(_) if self.shared.is_undecoded(end) => self.shared.barrier.notify_one(),
                Err(_) => (),
            }
        }
    }
}

/// Begins one epoch after the other.
async fn supervise(
    connector: Connector,
    tables: Vec<Oid>,
    options: StreamOptions,
    shared: Arc<Shared>,
    mut requests: mpsc::Receiver<Request>,
    purpose: Arc<impl Purpose>,
) {
    let mut pause = RECONNECT_MIN;
    loop {
        let setting = Setting {
            connector: &connector,
            tables: &tables,
            options: &options,
            shared: &shared,
        };
        let begun = Instant::now();
        let why = epoch::run(&setting, &purpose, &mut requests).await;
        shared.down(why.to_string());
        // Nobody should wait for an answer that the next epoch would give.
        while requests.try_recv().is_ok() {}
        warn!(%why, "Changes are not followed; dashboards are answered from the base tables.");
        // Two processes that publish different tables end each other's epochs; not at full speed.
        let has_lasted = begun.elapsed() > RECONNECT_MAX;
        pause = if has_lasted {
            RECONNECT_MIN
        } else {
            (pause * 2).min(RECONNECT_MAX)
        };
        sleep(pause).await;
    }
}
