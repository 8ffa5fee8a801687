//! One epoch: from a new slot to the first thing that goes wrong.
//!
//! Three connections serve it, and the loss of any ends it: one streams, one is asked for the log's
//! end and for snapshots, one emits barriers (so that no question waits behind a flush). All have to
//! reach the same server process, or a proof would compare two servers' logs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgstar_rewriter::catalog::Oid;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::Client;
use tracing::{info, warn};

use super::clock::{Clock, Fingerprint, Shapes};
use super::shared::Shared;
use super::snapshot::{Snapshot, Xid};
use super::tables::{self, Followed};
use super::{
    Epoch, EpochId, PUBLICATION, Request, SetupProblem, StreamError, StreamOptions, Weakness,
    blocker, publication, setup,
};
use crate::connect::{Connection, Connector};
use crate::pgoutput::{self, Message, Xid32};
use crate::replication::{
    Event, Lsn, ReplicationConnection, ReplicationStream, Slot, SlotLifetime, SlotSnapshot,
};

/// How often the log's end is read for the bound on staleness.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// Without a proven reading for this long, the log is flushed by a barrier.
const STALENESS_BEFORE_BARRIER: Duration = Duration::from_millis(500);

/// Barriers are at least this far apart.
pub(super) const BARRIER_INTERVAL: Duration = Duration::from_millis(5);

/// How soon a snapshot is taken again while something is not visible; then doubled up to the other.
const SNAPSHOT_INTERVAL_MIN: Duration = Duration::from_micros(500);
const SNAPSHOT_INTERVAL_MAX: Duration = Duration::from_millis(10);

/// How often it is asked who holds up the start.
const BLOCKER_INTERVAL: Duration = Duration::from_secs(1);

/// How often tables and settings are looked at again.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// No question of ours takes nearly as long as this on a server that is alive.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// So many sessions share one reading of the log's end.
const SHARED_READING_MAX: usize = 4096;

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
    requests: &mut mpsc::Receiver<Request>,
) -> StreamError {
    match follow(setting, requests).await {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

async fn follow(
    setting: &Setting<'_>,
    requests: &mut mpsc::Receiver<Request>,
) -> Result<Infallible, StreamError> {
    let mut asking = connect(setting.connector).await?;
    let emitting = connect(setting.connector).await?;
    let followed = prepare(&mut asking, setting).await?;
    let mut replication = ReplicationConnection::connect(setting.connector.config()).await?;
    check_same_server(&asking, &emitting, &mut replication).await?;
    let slot = create_slot(&asking, &mut replication, setting).await?;
    // Asked for after the slot was made: every transaction that committed before the slot's beginning
    // has a lower number.
    let ended = Xid(number(&asking, "SELECT pg_current_xact_id()::text").await?);
    let mut clock = Clock::prepare(&asking, setting.options.weakness.log_end()).await?;
    let seen = look(&asking, &mut clock, setting, followed).await?;
    let stream = replication
        .start(&slot.name, slot.consistent_point, &[PUBLICATION])
        .await?;
    let epoch = Epoch {
        id: EpochId::new(),
        complete_from: slot.consistent_point,
    };
    setting.shared.up(epoch, ended, seen.followed.clone());
    info!(from = %epoch.complete_from, tables = seen.followed.published.len(), "Following changes.");
    let reader = Task(tokio::spawn(read_stream(
        stream,
        Arc::clone(setting.shared),
    )));
    let mut time = Timekeeper {
        asking: &asking,
        clock,
        seen,
        setting,
        epoch,
    };
    tokio::select! {
        outcome = watch_visibility(&asking, setting) => outcome,
        outcome = time.keep(requests) => outcome,
        outcome = emit_barriers(&emitting, setting.shared) => outcome,
        outcome = name_blocker(&asking, setting.shared) => outcome,
        outcome = check_now_and_then(&emitting, setting) => outcome,
        outcome = reader.ended() => outcome,
    }
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
/// once, and always for a catalog with many tables.
const SESSION_SETTINGS: &str = "
    SET synchronous_commit = local; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off";

async fn connect(connector: &Connector) -> Result<Connection, StreamError> {
    let connection = connector.connect().await?;
    connection.batch_execute(SESSION_SETTINGS).await?;
    Ok(connection)
}

/// Everything that has to be there before the slot.
pub(super) async fn prepare(
    client: &mut Client,
    setting: &Setting<'_>,
) -> Result<Followed, StreamError> {
    let problems = setup::problems(client).await?;
    if !problems.is_empty() {
        return Err(StreamError::Setup(problems));
    }
    let (followed, refusals) = tables::inspect(client, setting.tables).await?;
    for refusal in &refusals {
        warn!(relation = refusal.relation.0, reason = %refusal.reason, "A table cannot be followed.");
    }
    setting.shared.refuse(refusals);
    publication::ensure(client, &followed).await?;
    Ok(followed)
}

/// The walsender answers SQL too. No two servers have started at the same microsecond and have the
/// same number of their cluster.
async fn check_same_server(
    asking: &Client,
    emitting: &Client,
    replication: &mut ReplicationConnection,
) -> Result<(), StreamError> {
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
    are_same.then_some(()).ok_or(StreamError::DifferentServers)
}

async fn number(client: &Client, question: &str) -> Result<u64, StreamError> {
    let text: String = client.query_one(question, &[]).await?.try_get(0)?;
    text.parse()
        .map_err(|_| StreamError::OutOfOrder("a transaction without a number"))
}

/// A name that no other stream has, of this or another process.
fn slot_name(replication: &ReplicationConnection) -> String {
    format!("pgstar_{}_{:x}", replication.process(), EpochId::new().0)
}

/// PostgreSQL waits for every transaction that writes. Who that is can be read in `unproven`.
async fn create_slot(
    asking: &Client,
    replication: &mut ReplicationConnection,
    setting: &Setting<'_>,
) -> Result<Slot, StreamError> {
    let (name, process) = (slot_name(replication), replication.process());
    let patience = setting.options.slot_timeout;
    let created = replication.create_slot(&name, SlotLifetime::Temporary, SlotSnapshot::None);
    tokio::select! {
        slot = created => Ok(slot?),
        late = tell_of_waiting(asking, setting, patience) => {
            // A walsender that waits for a transaction does not notice that we are gone.
            asking.execute("SELECT pg_terminate_backend($1)", &[&process]).await?;
            Err(late?)
        }
    }
}

/// Tells who is waited for, until patience ends.
async fn tell_of_waiting(
    asking: &Client,
    setting: &Setting<'_>,
    patience: Duration,
) -> Result<StreamError, StreamError> {
    let started = Instant::now();
    loop {
        let left = patience.saturating_sub(started.elapsed());
        sleep(left.min(BLOCKER_INTERVAL)).await;
        let blocker = blocker::oldest_writer(asking).await?;
        let blocker = blocker.unwrap_or_else(|| "transactions from before".to_owned());
        let waiting = StreamError::SlotTimeout {
            after: started.elapsed(),
            blocker,
        };
        if started.elapsed() >= patience {
            return Ok(waiting);
        }
        setting.shared.down(waiting.to_string());
    }
}

/// What the catalog says of everything that is followed.
struct Seen {
    followed: Followed,
    shapes: Shapes,
    fingerprint: Fingerprint,
    /// The log's end when nothing had changed since.
    end: Lsn,
}

/// Looks until nothing changes meanwhile, so that whatever changes later, a new partition too, changes
/// the fingerprint.
async fn look(
    asking: &Client,
    clock: &mut Clock,
    setting: &Setting<'_>,
    mut followed: Followed,
) -> Result<Seen, StreamError> {
    loop {
        clock.watch(&followed);
        let (_, before) = clock.read(asking).await?;
        let shapes = clock.shapes(asking).await?;
        let (now, _refusals) = tables::inspect(asking, setting.tables).await?;
        let (end, fingerprint) = clock.read(asking).await?;
        if now.published != followed.published {
            return Err(StreamError::PublicationChanged);
        }
        if now == followed && before == fingerprint {
            return Ok(Seen {
                followed,
                shapes,
                fingerprint,
                end,
            });
        }
        followed = now;
    }
}

/// Decodes, and notes which tables each transaction changed. Rows are not looked into, so a
/// transaction costs the same memory whatever its size.
async fn read_stream(
    mut stream: ReplicationStream,
    shared: Arc<Shared>,
) -> Result<Infallible, StreamError> {
    let mut open: Option<Open> = None;
    loop {
        match (stream.next().await?, &mut open) {
            (Event::Data { message, omitted }, _) => {
                let message = pgoutput::read(message, omitted)?;
                if let Some(end) = note(message, &mut open, &shared)? {
                    stream.acknowledge(end);
                }
            }
            (Event::Keepalive { end }, None) => {
                shared.decoded(end);
                stream.acknowledge(end);
            }
            // In the middle of a transaction a position stands for nothing.
            (Event::Keepalive { .. }, Some(_)) => (),
        }
    }
}

/// A transaction that is being received.
struct Open {
    xid: Xid32,
    changed: Vec<Oid>,
}

impl Open {
    fn note(&mut self, relation: Oid) {
        // Rows of one relation come in runs, and few relations are published.
        let is_known = self.changed.last() == Some(&relation) || self.changed.contains(&relation);
        if !is_known {
            self.changed.push(relation);
        }
    }
}

/// The end of the transaction, when the message is one.
fn note(
    message: Message,
    open: &mut Option<Open>,
    shared: &Shared,
) -> Result<Option<Lsn>, StreamError> {
    let between = StreamError::OutOfOrder("a change or a commit between transactions");
    match message {
        Message::Begin(begin) => {
            if open
                .replace(Open {
                    xid: begin.xid,
                    changed: vec![],
                })
                .is_some()
            {
                return Err(StreamError::OutOfOrder("a transaction within another"));
            }
        }
        Message::Insert(change) | Message::Update(change) | Message::Delete(change) => {
            open.as_mut().ok_or(between)?.note(change.relation);
        }
        Message::Truncate {
            relations,
            cascade: _,
            restart_identity: _,
        } => {
            let open = open.as_mut().ok_or(between)?;
            relations
                .into_iter()
                .for_each(|relation| open.note(relation));
        }
        Message::Commit(commit) => {
            let Open { xid, changed } = open.take().ok_or(between)?;
            shared.committed(xid, commit.end, &changed);
            return Ok(Some(commit.end));
        }
        Message::Origin { .. }
        | Message::Relation(_)
        | Message::Type { .. }
        | Message::Message { .. } => (),
    }
    Ok(None)
}

/// Takes snapshots while something that was decoded may not be visible yet.
async fn watch_visibility(
    asking: &Client,
    setting: &Setting<'_>,
) -> Result<Infallible, StreamError> {
    let statement = asking.prepare("SELECT pg_current_snapshot()::text").await?;
    let shared = setting.shared;
    loop {
        shared.visibility.notified().await;
        let mut pause = SNAPSHOT_INTERVAL_MIN;
        while shared.waits_for_visibility() {
            if setting.options.weakness == Weakness::NoVisibilityGate {
                shared.settle_blindly();
                continue;
            }
            let row = answer(asking.query_one(&statement, &[])).await?;
            let text: &str = row.try_get(0)?;
            let snapshot: Snapshot = text
                .parse()
                .map_err(|_| StreamError::OutOfOrder("a snapshot that cannot be read"))?;
            shared.settle(&snapshot);
            if shared.waits_for_visibility() {
                sleep(pause).await;
                pause = (pause * 2).min(SNAPSHOT_INTERVAL_MAX);
            }
        }
    }
}

async fn answer<T>(
    question: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, StreamError> {
    let answered = timeout(ANSWER_TIMEOUT, question).await;
    Ok(answered.map_err(|_| StreamError::NoAnswer(ANSWER_TIMEOUT))??)
}

/// Reads the log's end for everybody who waits at that moment, and now and then for the bound.
struct Timekeeper<'a> {
    asking: &'a Client,
    clock: Clock,
    seen: Seen,
    setting: &'a Setting<'a>,
    epoch: Epoch,
}

impl Timekeeper<'_> {
    async fn keep(
        &mut self,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<Infallible, StreamError> {
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut waiting = vec![];
            tokio::select! {
                _ = requests.recv_many(&mut waiting, SHARED_READING_MAX) => (),
                _ = ticks.tick() => self.flush_when_stale(),
            }
            self.read_for(waiting).await?;
        }
    }

    /// The reading begins after all of these have asked.
    async fn read_for(&mut self, waiting: Vec<Request>) -> Result<(), StreamError> {
        let asked = Instant::now();
        let reading = timeout(ANSWER_TIMEOUT, self.clock.read(self.asking)).await;
        let (end, fingerprint) = reading.map_err(|_| StreamError::NoAnswer(ANSWER_TIMEOUT))??;
        self.seen.end = end;
        if fingerprint != self.seen.fingerprint {
            self.look_again(fingerprint).await?;
        }
        let end = self.seen.end;
        self.setting.shared.sampled(asked, end);
        for request in waiting {
            // Whoever asked may have gone.
            let _ = request.send((self.epoch.id, end));
        }
        Ok(())
    }

    /// Finds out what changed, before anybody hears of the reading that showed it.
    async fn look_again(&mut self, fingerprint: Fingerprint) -> Result<(), StreamError> {
        let before = self.seen.fingerprint.publication;
        if fingerprint.publication != before {
            return Err(StreamError::PublicationChanged);
        }
        let followed = self.seen.followed.clone();
        let looking = look(self.asking, &mut self.clock, self.setting, followed);
        let now = timeout(ANSWER_TIMEOUT, looking).await;
        let now = now.map_err(|_| StreamError::NoAnswer(ANSWER_TIMEOUT))??;
        if now.fingerprint.publication != before {
            return Err(StreamError::PublicationChanged);
        }
        let changed = differing(&self.seen.shapes, &now.shapes);
        self.setting
            .shared
            .reshaped(now.followed.clone(), &changed, now.end);
        self.seen = now;
        Ok(())
    }

    fn flush_when_stale(&self) {
        let shared = self.setting.shared;
        let is_fresh = shared
            .staleness()
            .is_some_and(|age| age < STALENESS_BEFORE_BARRIER);
        if shared.is_safe() && !is_fresh && shared.is_undecoded(self.seen.end) {
            shared.barrier.notify_one();
        }
    }
}

fn differing(before: &Shapes, after: &Shapes) -> Vec<Oid> {
    let roots = before.keys().chain(after.keys());
    let differs = |root: &&Oid| before.get(root) != after.get(root);
    roots.filter(differs).copied().collect()
}

/// Flushes the log and makes the walsender report when somebody asks, at most every 5 ms.
async fn emit_barriers(emitting: &Client, shared: &Shared) -> Result<Infallible, StreamError> {
    let statement = emitting
        .prepare("SELECT pg_logical_emit_message(true, 'pgstar', 'barrier')::text")
        .await?;
    loop {
        shared.barrier.notified().await;
        let next = Instant::now() + BARRIER_INTERVAL;
        answer(emitting.query_one(&statement, &[])).await?;
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
    /// Never the same twice, also in the next process, unless the machine's clock is set back.
    fn new() -> Self {
        static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let order = std::sync::atomic::Ordering::Relaxed;
        let last = LAST.fetch_update(order, order, |last| Some(now.max(last.saturating_add(1))));
        let last = last.unwrap_or_else(|last| last);
        EpochId(now.max(last.saturating_add(1)))
    }
}
