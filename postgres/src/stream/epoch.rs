//! One epoch: from a new slot to the first thing that goes wrong.
//!
//! Three connections serve it, and the loss of any ends it: one streams, one is asked for the log's
//! end and for snapshots, one emits barriers (so that no question waits behind a flush). All have to
//! reach the same server process, or a proof would compare two servers' logs.

use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgstar_rewriter::catalog::Oid;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tracing::{info, warn};

use super::clock::Clock;
use super::purpose::{Attached, Purpose, SlotChoice};
use super::reader::read_stream;
use super::shared::Shared;
use super::slot::prepare_slot;
use super::snapshot::Xid;
use super::tables::{self, Followed};
use super::timekeeper::{Timekeeper, look};
use super::visibility::watch_visibility;
use super::{
    Epoch, EpochId, Request, SetupProblem, StreamError, StreamOptions, Weakness, blocker,
    publication, setup,
};
use crate::connect::{Connection, Connector};
use crate::replication::ReplicationConnection;

/// Barriers are at least this far apart.
pub(super) const BARRIER_INTERVAL: Duration = Duration::from_millis(5);

/// So many times the patience without a word, and somebody is taken for gone.
pub(crate) const GONE_AFTER: u32 = 3;

/// How often it is asked who holds up the start.
pub(super) const BLOCKER_INTERVAL: Duration = Duration::from_secs(1);

/// How often tables and settings are looked at again.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Everything that one epoch needs from outside.
pub(super) struct Setting<'a> {
    pub(super) connector: &'a Connector,
    pub(super) tables: &'a [Oid],
    pub(super) options: &'a StreamOptions,
    pub(super) shared: &'a Arc<Shared>,
}

/// Runs until continuity is lost, and says why.
pub(super) async fn run(
    setting: &Setting<'_>,
    purpose: &Arc<impl Purpose>,
    requests: &mut mpsc::Receiver<Request>,
) -> StreamError {
    match follow(setting, purpose, requests).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn follow(
    setting: &Setting<'_>,
    purpose: &Arc<impl Purpose>,
    requests: &mut mpsc::Receiver<Request>,
) -> Result<Infallible, StreamError> {
    let opened = in_time(setting, open(setting, purpose)).await?;
    let Opened {
        asking,
        emitting,
        mut replication,
        followed,
        choice,
    } = opened;
    let beginning = prepare_slot(&choice, &asking, &mut replication, setting).await?;
    // Asked for after the slot was made: every transaction that committed before the slot's beginning
    // has a lower number. So has whatever wrote a table before it was published.
    let ended = match setting.options.weakness {
        Weakness::NoStartWait => Xid(0),
        _ if beginning.is_complete => Xid(0),
        _ => Xid(number(&asking, "SELECT pg_current_xact_id()::text").await?),
    };
    let mut clock = Clock::prepare(&asking, setting.options).await?;
    let seen = in_time(setting, look(&asking, &mut clock, setting, followed)).await?;
    let (slot, from) = (&beginning.slot, beginning.from);
    let publication = setting.options.publication.as_str();
    let stream = in_time(setting, async {
        Ok(replication.start(slot, from, &[publication]).await?)
    })
    .await?;
    let acknowledged = stream.acknowledged();
    let epoch = Epoch {
        id: EpochId::new(),
        complete_from: beginning.from,
    };
    purpose.begin(&choice);
    let followed = seen.followed.clone();
    setting.shared.up(epoch, ended, followed, seen.end);
    info!(from = %epoch.complete_from, tables = seen.followed.published.len(), "Following changes.");
    let reader = Task(tokio::spawn(read_stream(
        stream,
        Arc::clone(setting.shared),
        Arc::clone(purpose),
        setting.options.weakness,
    )));
    let attached = Attached {
        connector: setting.connector,
        shared: setting.shared,
        slot: &choice,
        acknowledged,
        ended,
    };
    let mut time = Timekeeper {
        asking: &asking,
        clock,
        seen,
        setting,
        epoch,
        server: setting.shared.server().into(),
    };
    tokio::select! {
        outcome = watch_visibility(&asking, setting) => outcome,
        outcome = time.keep(requests) => outcome,
        outcome = emit_barriers(&emitting, setting) => outcome,
        outcome = name_blocker(&asking, setting.shared) => outcome,
        outcome = check_now_and_then(&emitting, setting) => outcome,
        outcome = purpose.work(attached) => outcome,
        outcome = reader.ended() => outcome,
    }
}

/// What has to be there before the slot.
struct Opened {
    asking: Connection,
    emitting: Connection,
    replication: ReplicationConnection,
    followed: Followed,
    choice: SlotChoice,
}

async fn open(setting: &Setting<'_>, purpose: &Arc<impl Purpose>) -> Result<Opened, StreamError> {
    let patience = setting.options.patience;
    let mut asking = connect(setting.connector, patience).await?;
    let emitting = connect(setting.connector, patience).await?;
    if setting.options.is_passing() {
        publication::hold(&asking, &setting.options.publication).await?;
    }
    let followed = prepare(&mut asking, setting).await?;
    let choice = purpose.choose(&asking, &followed.published).await?;
    let mut replication = ReplicationConnection::connect(setting.connector.config()).await?;
    // Where nobody reads any more the slot is free as soon.
    let seconds = (patience * GONE_AFTER).as_millis();
    replication
        .rows(&format!("SET wal_sender_timeout = '{seconds}ms'"))
        .await?;
    let server = check_same_server(&asking, &emitting, &mut replication).await?;
    setting.shared.is_on(server);
    Ok(Opened {
        asking,
        emitting,
        replication,
        followed,
        choice,
    })
}

/// None of the steps to a stream takes as long as this on a server that is alive.
async fn in_time<T>(
    setting: &Setting<'_>,
    step: impl Future<Output = Result<T, StreamError>>,
) -> Result<T, StreamError> {
    let within = setting.options.patience * GONE_AFTER;
    let taken = timeout(within, step).await;
    taken.unwrap_or(Err(StreamError::NoAnswer(within)))
}

/// Aborted when it is dropped.
struct Task(JoinHandle<Result<Infallible, StreamError>>);

impl Task {
    async fn ended(mut self) -> Result<Infallible, StreamError> {
        let joined = (&mut self.0).await;
        joined.unwrap_or(Err(StreamError::OutOfOrder("its reader stopped")))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A barrier has to be flushed, and must not wait for a standby. What is asked all the time is planned
/// once, and always for a catalog with many tables; what has no index seems expensive then, and is not worth compiling.
const SESSION_SETTINGS: &str = "
    SET synchronous_commit = local; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off";

pub(super) async fn connect(
    connector: &Connector,
    patience: Duration,
) -> Result<Connection, StreamError> {
    let connection = connector.connect().await?;
    connection.batch_execute(SESSION_SETTINGS).await?;
    // Asked all the time, these sessions are idle only if nobody is there; one of them may hold the lock
    // of who brings the rollups up to date.
    let gone = (patience * GONE_AFTER).as_millis();
    let sql = format!("SET idle_session_timeout = '{gone}ms'");
    connection.batch_execute(&sql).await?;
    Ok(connection)
}

/// Everything that has to be there before the slot.
pub(super) async fn prepare(
    client: &mut Client,
    setting: &Setting<'_>,
) -> Result<Followed, StreamError> {
    let publication = &setting.options.publication;
    let problems = setup::problems(client, publication).await?;
    if !problems.is_empty() {
        return Err(StreamError::Setup(problems));
    }
    let (followed, refusals) = tables::inspect(client, setting.tables).await?;
    for refusal in &refusals {
        warn!(relation = refusal.relation.0, reason = %refusal.reason, "A table cannot be followed.");
    }
    setting.shared.refuse(refusals);
    publication::ensure(client, publication, &followed).await?;
    Ok(followed)
}

/// When that server began. The walsender answers SQL too. No two servers have started at the same microsecond and have the
/// same number of their cluster.
async fn check_same_server(
    asking: &Client,
    emitting: &Client,
    replication: &mut ReplicationConnection,
) -> Result<String, StreamError> {
    let question = "SELECT system_identifier::text || ' ' || extract(epoch FROM pg_postmaster_start_time())::text \
                    FROM pg_control_system()";
    let first: String = asking.query_one(question, &[]).await?.try_get(0)?;
    let second: String = emitting.query_one(question, &[]).await?.try_get(0)?;
    let rows = replication.rows(question).await?;
    let third = rows
        .first()
        .and_then(|row| row.first())
        .cloned()
        .flatten()
        .unwrap_or_default();
    let are_same = first == second && first.as_bytes() == third;
    let (_, begun) = first.split_once(' ').unwrap_or_default();
    are_same
        .then(|| begun.to_owned())
        .ok_or(StreamError::DifferentServers)
}

async fn number(client: &Client, question: &str) -> Result<u64, StreamError> {
    let text: String = client.query_one(question, &[]).await?.try_get(0)?;
    text.parse()
        .map_err(|_| StreamError::OutOfOrder("a transaction without a number"))
}

/// The answer, unless the server has stopped answering.
pub(super) async fn answer<T>(
    patience: Duration,
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StreamError> {
    let answered = timeout(patience, question).await;
    Ok(answered.map_err(|_| StreamError::NoAnswer(patience))??)
}

/// Flushes the log and makes the walsender report when somebody asks, at most every 5 ms.
async fn emit_barriers(
    emitting: &Client,
    setting: &Setting<'_>,
) -> Result<Infallible, StreamError> {
    let statement = emitting
        .prepare("SELECT pg_logical_emit_message(true, 'pgstar', 'barrier')::text")
        .await?;
    loop {
        setting.shared.barrier.notified().await;
        let next = Instant::now() + BARRIER_INTERVAL;
        let patience = setting.options.patience;
        answer(patience, emitting.query_one(&statement, &[])).await?;
        sleep(next.saturating_duration_since(Instant::now())).await;
    }
}

/// While the transactions from before the slot have not ended, finds out whose they are.
async fn name_blocker(asking: &Client, shared: &Shared) -> Result<Infallible, StreamError> {
    while !shared.is_safe() {
        sleep(BLOCKER_INTERVAL).await;
        shared.blocked_by(blocker::oldest_writer(asking).await?);
    }
    std::future::pending().await
}

/// Looks whether a table may be followed that was refused, or the other way round: a table that lost
/// its primary key has to leave the publication, because its owner's UPDATE fails until then.
async fn check_now_and_then(
    client: &Client,
    setting: &Setting<'_>,
) -> Result<Infallible, StreamError> {
    loop {
        sleep(CHECK_INTERVAL).await;
        if setup::counts_as_standby(client).await? {
            return Err(StreamError::Setup(vec![SetupProblem::CountsAsStandby]));
        }
        let (_, refusals) = tables::inspect(client, setting.tables).await?;
        if refusals != setting.shared.refusals() {
            return Err(StreamError::PublicationChanged);
        }
    }
}

impl EpochId {
    /// Never the same twice, in any process; no clock is asked, because clocks are set back.
    pub(super) fn new() -> Self {
        EpochId(unique())
    }
}

/// A number that nobody has had.
pub(crate) fn unique() -> u64 {
    RandomState::new().build_hasher().finish()
}
