//! Metrics: the one place that knows their names, labels and help texts.
//!
//! Everybody else calls a function with typed arguments. Handles are looked up once, so that
//! counting on a statement's way costs an atomic addition. No label holds a text from a client.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

/// How many observations may wait before one of their authors puts them into the buckets.
const PENDING_OBSERVATIONS_MAX: usize = 4096;

/// Upper bounds of the buckets of decision times, in seconds: 1 µs to 100 ms.
const DECISION_BUCKETS: [f64; 12] = [
    1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2, 1e-1,
];

mod names {
    pub const STATEMENTS: &str = "pgstar_statements_total";
    pub const PASSTHROUGH: &str = "pgstar_passthrough_total";
    pub const FALLBACKS: &str = "pgstar_fallbacks_total";
    pub const DECISION_SECONDS: &str = "pgstar_decision_seconds";
    pub const CACHE_HITS: &str = "pgstar_cache_hits_total";
    pub const CACHE_MISSES: &str = "pgstar_cache_misses_total";
    pub const CACHE_BYTES: &str = "pgstar_cache_bytes";
    pub const CACHE_ENTRIES: &str = "pgstar_cache_entries";
    pub const CACHE_TABLES: &str = "pgstar_cache_followed_tables";
    pub const SESSIONS: &str = "pgstar_sessions";
    pub const SESSIONS_TOTAL: &str = "pgstar_sessions_total";
    pub const RELAY_ONLY: &str = "pgstar_relay_only_sessions_total";
    pub const CONNECT_FAILURES: &str = "pgstar_upstream_connect_failures_total";
    pub const POOL_WAITING: &str = "pgstar_pool_waiting_backends";
    pub const POOL_LOGINS: &str = "pgstar_pool_logins_total";
    pub const PROOFS: &str = "pgstar_proofs_total";
    pub const QUESTIONS: &str = "pgstar_questions_total";
    pub const ROLLUP_ROWS: &str = "pgstar_rollup_rows";
    pub const ROLLUP_BYTES: &str = "pgstar_rollup_bytes";
    pub const ROLLUP_AGE_SECONDS: &str = "pgstar_rollup_age_seconds";
    pub const ROLLUP_REBUILDS: &str = "pgstar_rollup_rebuilds_total";
    pub const ROLLUP_PARTS: &str = "pgstar_rollup_build_parts";
    pub const ROLLUP_PARTS_DONE: &str = "pgstar_rollup_build_parts_done";
    pub const ROLLUP_PARTS_SECONDS: &str = "pgstar_rollup_build_remaining_seconds";
    pub const ROLLUP_LAG_SECONDS: &str = "pgstar_rollup_lag_seconds";
    pub const ROLLUP_LAG_BYTES: &str = "pgstar_rollup_lag_bytes";
    pub const ROLLUP_POSITION: &str = "pgstar_rollup_position_bytes";
    pub const ROLLUP_BATCHES: &str = "pgstar_rollup_batches_total";
    pub const ROLLUP_GROUPS: &str = "pgstar_rollup_changed_groups_total";
    pub const ROLLUP_RECOMPUTED: &str = "pgstar_rollup_recomputed_groups_total";
    pub const STREAM_POSITION: &str = "pgstar_stream_position_bytes";
    pub const STREAM_LAG: &str = "pgstar_stream_lag_bytes";
    pub const AUDITS: &str = "pgstar_audits_total";
    pub const AUDIT_MISMATCHES: &str = "pgstar_audit_mismatches_total";
    pub const FOLDED_ROWS: &str = "pgstar_folded_rows_total";
    pub const FOLDED_BATCHES: &str = "pgstar_folded_batches_total";
    pub const WAITING_BYTES: &str = "pgstar_waiting_change_bytes";
    pub const RETAINED_BYTES: &str = "pgstar_retained_log_bytes";
}

/// What served a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A rollup.
    Rollup,
    /// A stored answer.
    Cache,
    /// PostgreSQL, with the client's own bytes.
    Passthrough,
    /// pgstar itself.
    Local,
}

impl Decision {
    const ALL: [Decision; 4] = [
        Decision::Rollup,
        Decision::Cache,
        Decision::Passthrough,
        Decision::Local,
    ];

    /// The name in metrics and in EXPLAIN (PGSTAR).
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Rollup => "rollup",
            Decision::Cache => "cache",
            Decision::Passthrough => "passthrough",
            Decision::Local => "local",
        }
    }
}

/// What a login that pgstar checked got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginBackend {
    /// One that waited.
    Warm,
    /// One of its own.
    Fresh,
}

impl LoginBackend {
    const ALL: [LoginBackend; 2] = [LoginBackend::Warm, LoginBackend::Fresh];

    fn as_str(self) -> &'static str {
        match self {
            LoginBackend::Warm => "warm",
            LoginBackend::Fresh => "fresh",
        }
    }
}

/// How a text was decided that had not been decided before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It was proved anew what answers it.
    New,
    /// What was proved of another that differs in constants holds for it.
    Reused,
}

impl Proof {
    const ALL: [Proof; 2] = [Proof::New, Proof::Reused];

    fn as_str(self) -> &'static str {
        match self {
            Proof::New => "new",
            Proof::Reused => "reused",
        }
    }
}

/// What pgstar asked PostgreSQL about a statement before it answered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Its columns, or the types of its parameters.
    Columns,
    /// What the planner expects it to cost.
    Cost,
    /// How clocks change that it depends on.
    Clocks,
}

impl Question {
    const ALL: [Question; 3] = [Question::Columns, Question::Cost, Question::Clocks];

    fn as_str(self) -> &'static str {
        match self {
            Question::Columns => "columns",
            Question::Cost => "cost",
            Question::Clocks => "clocks",
        }
    }
}

/// Installs the recorder, also for the crates below that count by themselves.
///
/// Every function here does it when it is first called; calling this at start makes `/metrics`
/// complete from the first scrape.
pub fn install() {
    LazyLock::force(&METRICS);
}

/// The state of all metrics in Prometheus's text format.
pub fn render() -> String {
    METRICS.refresh_rollup_ages();
    METRICS.handle.render()
}

/// A statement was served.
pub fn statement_served(decision: Decision) {
    METRICS.statements[decision as usize].increment(1);
}

/// A statement passed through for this reason; codes are those of EXPLAIN (PGSTAR).
pub fn passed_through(code: &'static str) {
    counter!(names::PASSTHROUGH, "code" => code).increment(1);
}

/// A rewritten statement failed before its first byte had left, and PostgreSQL got the original.
pub fn fell_back() {
    METRICS.fallbacks.increment(1);
}

/// How long it took to decide what serves a statement.
pub fn decided_in(time: Duration) {
    METRICS.decision_seconds.record(time);
    METRICS.settle_observations();
}

/// A text was decided for the first time.
pub fn proved(proof: Proof) {
    METRICS.proofs[proof as usize].increment(1);
}

/// PostgreSQL was asked about a statement.
pub fn asked_about(question: Question) {
    METRICS.questions[question as usize].increment(1);
}

/// The cache had an answer that was fresh enough.
pub fn cache_hit() {
    METRICS.cache_hits.increment(1);
}

/// The cache had no answer, or none that was fresh enough.
pub fn cache_miss() {
    METRICS.cache_misses.increment(1);
}

/// What the cache holds now.
///
/// `tables` are those that no rollup reads and that are followed for its answers.
pub fn cache_holds(bytes: u64, entries: u64, tables: usize) {
    METRICS.cache_bytes.set(bytes as f64);
    METRICS.cache_entries.set(entries as f64);
    gauge!(names::CACHE_TABLES).set(tables as f64);
}

/// A session that counts as open until this is dropped.
#[derive(Debug)]
#[must_use = "the session counts as closed when this is dropped"]
pub struct OpenSession(());

/// A client's session began.
pub fn session_opened() -> OpenSession {
    METRICS.sessions_total.increment(1);
    METRICS.sessions.increment(1);
    OpenSession(())
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        METRICS.sessions.decrement(1);
    }
}

/// A session was reduced to relaying for the rest of its life.
pub fn session_became_relay_only() {
    METRICS.relay_only.increment(1);
}

/// A connection to the server could not be made.
pub fn upstream_connect_failed() {
    METRICS.connect_failures.increment(1);
}

/// So many backends wait for a session.
pub fn pool_holds(backends: usize) {
    METRICS.pool_waiting.set(backends as f64);
}

/// pgstar checked a login that succeeded.
pub fn pool_logged_in(backend: LoginBackend) {
    METRICS.pool_logins[backend as usize].increment(1);
}

/// What a rollup holds, and when it was last made equal to the base tables.
///
/// Its age grows by itself from then on. `rollup` is a name of the configuration file.
pub fn rollup_holds(rollup: &str, rows: u64, bytes: u64, as_of: SystemTime) {
    gauge!(names::ROLLUP_ROWS, "rollup" => rollup.to_owned()).set(rows as f64);
    gauge!(names::ROLLUP_BYTES, "rollup" => rollup.to_owned()).set(bytes as f64);
    let mut rollups = METRICS.rollups();
    let last = rollups.entry(rollup.to_owned()).or_insert(as_of);
    // Who only knows when it was built knows less than who saw it follow.
    *last = as_of.max(*last);
}

/// A rollup had to be built again so often since the start, for this reason.
pub fn rollup_rebuilt(rollup: &str, code: &'static str, times: u64) {
    counter!(names::ROLLUP_REBUILDS, "rollup" => rollup.to_owned(), "code" => code).absolute(times);
}

/// So many of all parts of a rollup that is being built are done, and the others may take so long. Zero of zero where
/// nothing is built in parts.
pub fn rollup_builds(rollup: &str, done: usize, all: usize, rest: Option<Duration>) {
    let rest = rest.map_or(0.0, |rest| rest.as_secs_f64());
    gauge!(names::ROLLUP_PARTS, "rollup" => rollup.to_owned()).set(all as f64);
    gauge!(names::ROLLUP_PARTS_DONE, "rollup" => rollup.to_owned()).set(done as f64);
    gauge!(names::ROLLUP_PARTS_SECONDS, "rollup" => rollup.to_owned()).set(rest);
}

/// Every commit acknowledged longer ago than this is in the rollup, and so is every one that ends up to a
/// position, which is so many bytes before the log's end.
pub fn rollup_lags(rollup: &str, lag: Duration, bytes: u64, position: u64) {
    gauge!(names::ROLLUP_LAG_SECONDS, "rollup" => rollup.to_owned()).set(lag.as_secs_f64());
    gauge!(names::ROLLUP_LAG_BYTES, "rollup" => rollup.to_owned()).set(bytes as f64);
    gauge!(names::ROLLUP_POSITION, "rollup" => rollup.to_owned()).set(position as f64);
}

/// Nothing is known of what is committed now: it lags behind since it was last known to equal its tables.
pub fn rollup_lags_since_then(rollup: &str) {
    let as_of = METRICS.rollups().get(rollup).copied();
    let lag = as_of.and_then(|as_of| SystemTime::now().duration_since(as_of).ok());
    let lag = lag.map_or(f64::NAN, |lag| lag.as_secs_f64());
    gauge!(names::ROLLUP_LAG_SECONDS, "rollup" => rollup.to_owned()).set(lag);
    gauge!(names::ROLLUP_LAG_BYTES, "rollup" => rollup.to_owned()).set(f64::NAN);
}

/// What was folded into a rollup since the start: batches, the groups they changed, and those computed anew.
pub fn rollup_folded(rollup: &str, batches: u64, groups: u64, recomputed: u64) {
    let counts = [
        (names::ROLLUP_BATCHES, batches),
        (names::ROLLUP_GROUPS, groups),
        (names::ROLLUP_RECOMPUTED, recomputed),
    ];
    for (name, count) in counts {
        counter!(name, "rollup" => rollup.to_owned()).absolute(count);
    }
}

/// Positions in the server's log: its end when it was last read, and up to where every change is known.
pub fn stream_is_at(end: u64, safe: u64) {
    gauge!(names::STREAM_POSITION, "of" => "log").set(end as f64);
    gauge!(names::STREAM_POSITION, "of" => "stream").set(safe as f64);
    gauge!(names::STREAM_LAG).set(end.saturating_sub(safe) as f64);
}

/// How a comparison of a rollup with its definition came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audited {
    /// It is what it should be.
    Equal,
    /// It could not be seen.
    Inconclusive,
    /// It is not.
    Different,
}

/// A range of a rollup was compared with its definition.
pub fn audited(outcome: Audited) {
    let word = match outcome {
        Audited::Equal => "equal",
        Audited::Inconclusive => "inconclusive",
        Audited::Different => "different",
    };
    counter!(names::AUDITS, "outcome" => word).increment(1);
    counter!(names::AUDIT_MISMATCHES).increment(u64::from(outcome == Audited::Different));
}

/// What the upkeep of rollups has done since the start, and what it has to deal with now: changes that wait
/// to be folded, and log that the server keeps for pgstar's slot.
pub fn upkeep(rows: u64, batches: u64, waiting_bytes: u64, retained_bytes: u64) {
    counter!(names::FOLDED_ROWS).absolute(rows);
    counter!(names::FOLDED_BATCHES).absolute(batches);
    gauge!(names::WAITING_BYTES).set(waiting_bytes as f64);
    gauge!(names::RETAINED_BYTES).set(retained_bytes as f64);
}

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::install);

struct Metrics {
    handle: PrometheusHandle,
    statements: [Counter; 4],
    fallbacks: Counter,
    decision_seconds: Histogram,
    pending_observations: AtomicUsize,
    cache_hits: Counter,
    cache_misses: Counter,
    cache_bytes: Gauge,
    cache_entries: Gauge,
    sessions: Gauge,
    sessions_total: Counter,
    relay_only: Counter,
    connect_failures: Counter,
    pool_waiting: Gauge,
    pool_logins: [Counter; 2],
    proofs: [Counter; Proof::ALL.len()],
    questions: [Counter; 3],
    rollups_as_of: Mutex<HashMap<String, SystemTime>>,
}

impl Metrics {
    fn install() -> Metrics {
        let recorder = recorder();
        let handle = recorder.handle();
        // Another recorder can only be there already in somebody's test; ours then renders nothing.
        let _ = metrics::set_global_recorder(recorder);
        describe();
        Metrics {
            handle,
            statements: Decision::ALL
                .map(|decision| counter!(names::STATEMENTS, "decision" => decision.as_str())),
            fallbacks: counter!(names::FALLBACKS),
            decision_seconds: histogram!(names::DECISION_SECONDS),
            pending_observations: AtomicUsize::new(0),
            cache_hits: counter!(names::CACHE_HITS),
            cache_misses: counter!(names::CACHE_MISSES),
            cache_bytes: gauge!(names::CACHE_BYTES),
            cache_entries: gauge!(names::CACHE_ENTRIES),
            sessions: gauge!(names::SESSIONS),
            sessions_total: counter!(names::SESSIONS_TOTAL),
            relay_only: counter!(names::RELAY_ONLY),
            connect_failures: counter!(names::CONNECT_FAILURES),
            pool_waiting: gauge!(names::POOL_WAITING),
            pool_logins: LoginBackend::ALL
                .map(|backend| counter!(names::POOL_LOGINS, "backend" => backend.as_str())),
            proofs: Proof::ALL.map(|proof| counter!(names::PROOFS, "proof" => proof.as_str())),
            questions: Question::ALL
                .map(|question| counter!(names::QUESTIONS, "about" => question.as_str())),
            rollups_as_of: Mutex::default(),
        }
    }

    fn rollups(&self) -> std::sync::MutexGuard<'_, HashMap<String, SystemTime>> {
        // A map of times is whole after every single operation, so a panic elsewhere harmed nothing.
        self.rollups_as_of
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn refresh_rollup_ages(&self) {
        let now = SystemTime::now();
        for (rollup, as_of) in self.rollups().iter() {
            // A clock that was set back makes a rollup new, not older than time.
            let age = now.duration_since(*as_of).unwrap_or_default();
            gauge!(names::ROLLUP_AGE_SECONDS, "rollup" => rollup.clone()).set(age.as_secs_f64());
        }
    }

    /// The recorder keeps every observation until it is asked to sort them into buckets. Nobody may
    /// ever scrape, so the authors of observations do it in turn.
    fn settle_observations(&self) {
        let pending = self.pending_observations.fetch_add(1, Ordering::Relaxed);
        if pending % PENDING_OBSERVATIONS_MAX == PENDING_OBSERVATIONS_MAX - 1 {
            self.handle.run_upkeep();
        }
    }
}

fn recorder() -> PrometheusRecorder {
    let decision_seconds = Matcher::Full(names::DECISION_SECONDS.to_owned());
    let plain = PrometheusBuilder::new;
    // Setting buckets fails for an empty list only, which ours is not; summaries would do as well.
    plain()
        .set_buckets_for_metric(decision_seconds, &DECISION_BUCKETS)
        .unwrap_or_else(|_| plain())
        .build_recorder()
}

fn describe() {
    use metrics::{describe_counter as count, describe_gauge as level};
    use names::*;
    count!(STATEMENTS, "Statements by what served them.");
    count!(
        PASSTHROUGH,
        "Statements that passed through, by the reason's code."
    );
    count!(
        FALLBACKS,
        "Rewritten statements that failed and were answered by the base tables."
    );
    metrics::describe_histogram!(
        DECISION_SECONDS,
        Unit::Seconds,
        "Time to decide what serves a statement."
    );
    count!(
        CACHE_HITS,
        "Lookups that found a stored answer fresh enough."
    );
    count!(CACHE_MISSES, "Lookups that found none.");
    level!(CACHE_BYTES, Unit::Bytes, "Memory that stored answers take.");
    level!(CACHE_ENTRIES, "Stored answers.");
    level!(
        CACHE_TABLES,
        "Tables that no rollup reads and that are followed for stored answers."
    );
    level!(SESSIONS, "Client sessions open now.");
    count!(SESSIONS_TOTAL, "Client sessions opened since the start.");
    count!(
        RELAY_ONLY,
        "Sessions reduced to relaying because their state was in doubt."
    );
    count!(
        CONNECT_FAILURES,
        "Connections to the server that could not be made."
    );
    level!(POOL_WAITING, "Backends that wait for a session.");
    count!(
        POOL_LOGINS,
        "Logins that pgstar checked itself, by whether a backend waited for them."
    );
    count!(
        PROOFS,
        "Texts that were decided for the first time, by whether what was proved of one that differs in constants holds for them."
    );
    count!(
        QUESTIONS,
        "Questions to PostgreSQL about statements before they were answered, by what was asked."
    );
    level!(ROLLUP_ROWS, "Rows in a rollup.");
    level!(
        ROLLUP_BYTES,
        Unit::Bytes,
        "Disk space of a rollup with its indexes."
    );
    count!(
        ROLLUP_REBUILDS,
        "Rollups built again because they could not follow a change, by reason."
    );
    level!(
        ROLLUP_PARTS,
        "Parts in which a rollup is being built; 0 while it is not built in parts."
    );
    level!(ROLLUP_PARTS_DONE, "Those of them that are built.");
    level!(
        ROLLUP_PARTS_SECONDS,
        Unit::Seconds,
        "How long the others will take at the pace of those that were built."
    );
    level!(
        ROLLUP_LAG_SECONDS,
        Unit::Seconds,
        "Every commit acknowledged longer ago than this is in the rollup."
    );
    level!(
        ROLLUP_LAG_BYTES,
        Unit::Bytes,
        "How much further the log is than what is proven to be in the rollup; NaN while nothing is proven."
    );
    level!(
        ROLLUP_POSITION,
        Unit::Bytes,
        "Every commit that ends up to this position of the log is in the rollup."
    );
    count!(ROLLUP_BATCHES, "Batches that changed a rollup.");
    count!(ROLLUP_GROUPS, "Groups of a rollup that batches changed.");
    count!(
        ROLLUP_RECOMPUTED,
        "Groups of a rollup that were computed from the base tables."
    );
    level!(
        STREAM_POSITION,
        Unit::Bytes,
        "Positions in the server's log: its end, and up to where every change is known."
    );
    level!(
        STREAM_LAG,
        Unit::Bytes,
        "How far the known changes are behind the end of the server's log."
    );
    count!(
        AUDITS,
        "Ranges of rollups that were computed again and compared, by outcome."
    );
    count!(
        AUDIT_MISMATCHES,
        "Comparisons that found a rollup to be wrong; must stay 0."
    );
    count!(FOLDED_ROWS, "Changed rows folded into rollups.");
    count!(FOLDED_BATCHES, "Transactions that brought rollups forward.");
    level!(
        WAITING_BYTES,
        Unit::Bytes,
        "Changed rows that wait to be folded."
    );
    level!(
        RETAINED_BYTES,
        Unit::Bytes,
        "Log that the server keeps for pgstar's slot."
    );
    level!(
        ROLLUP_AGE_SECONDS,
        Unit::Seconds,
        "Time since a rollup last equalled its base tables."
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_index_their_own_counter() {
        for (index, decision) in Decision::ALL.into_iter().enumerate() {
            assert_eq!(decision as usize, index);
        }
    }
}
