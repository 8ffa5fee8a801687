//! Decisions kept by statement text, so that a repeated statement is parsed and proved once. What was proved of a statement that
//! differs in constants alone is not proved again where it does not depend on them.
//!
//! A decision depends on the text, the search path, the time zone, the parameters' types and the
//! snapshot; all of them are in its key. Where no rollup matches whatever is bound, the times that are bound
//! are, too. What may change without them (freshness, roles, transactions) is asked each time by `gate`.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use pgstar_cache::Key;
use pgstar_rewriter::expr::BoundTime;
use pgstar_rewriter::{
    Code, Context, Decision, Known, Reason, RollupConstants, Shape, Shapes, decide_reusing, propose,
};
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::parity::Order;
use super::{Binding, ColumnOrigin, SessionFacts};
use crate::telemetry;
use crate::warehouse::Snapshot;

/// Memory for kept decisions, in bytes of statement text and rewritten text.
const DECISION_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How many statements' shapes are known; each is as large as the statement's tree, some kilobytes.
const SHAPES_MAX: u64 = 4096;

/// What PostgreSQL says of a table that is not there.
pub(super) const UNDEFINED_TABLE: &str = "42P01";
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// What PostgreSQL says of one match: where the original's columns come from, or why the rewritten
/// statement may not stand for it.
pub(super) type Parity = Result<Arc<[ColumnOrigin]>, Reason>;

/// A number that only goes up.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often a statement was served by what.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) rollup: Count,
    pub(super) cache: Count,
    pub(super) passthrough: Count,
}

impl Counts {
    fn total(&self) -> u64 {
        self.rollup.get() + self.cache.get() + self.passthrough.get()
    }
}

/// A decision with what was learnt of it since.
#[derive(Debug)]
pub(super) struct Decided {
    /// The statement as first sent.
    pub(super) sql: String,
    pub(super) decision: Decision,
    /// For each match, what PostgreSQL says of its columns, once asked.
    pub(super) parity: Vec<OnceCell<Parity>>,
    /// In which order the matches are tried, once asked.
    pub(super) order: OnceCell<Order>,
    /// The parameters' types as PostgreSQL resolves them, once asked; `None` where it refuses the statement.
    pub(super) parameters: OnceCell<Option<Vec<u32>>>,
    pub(super) counts: Counts,
    /// How long PostgreSQL took when it was last measured, in microseconds; 0 when it was not.
    took: AtomicU64,
}

impl Decided {
    fn new(sql: &str, decision: Decision) -> Self {
        let parity = decision.matches.iter().map(|_| OnceCell::new()).collect();
        Decided {
            sql: sql.to_owned(),
            decision,
            parity,
            order: OnceCell::new(),
            parameters: OnceCell::new(),
            counts: Counts::default(),
            took: AtomicU64::new(0),
        }
    }

    /// Whether the times that are bound may make a rollup match that does not match whatever is bound.
    pub(super) fn depends_on_values(&self) -> bool {
        let decision = &self.decision;
        decision.matches.is_empty() && decision.is_plain_select && !decision.reads.is_empty()
    }

    pub(super) fn note_took(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.took.store(took.max(1), Ordering::Relaxed);
    }

    /// How long PostgreSQL took when it was last measured.
    pub(super) fn took(&self) -> Option<Duration> {
        let took = self.took.load(Ordering::Relaxed);
        (took > 0).then(|| Duration::from_micros(took))
    }

    /// How often the statement was served by PostgreSQL.
    pub(super) fn runs(&self) -> u64 {
        self.counts.passthrough.get()
    }

    fn size(&self) -> usize {
        let rewritten: usize = self
            .decision
            .matches
            .iter()
            .map(|found| 2 * found.sql.len())
            .sum();
        let reasons: usize = self
            .decision
            .reasons
            .iter()
            .map(|reason| reason.detail.len() + 64)
            .sum();
        2 * self.sql.len() + rewritten + reasons + 512
    }
}

#[derive(Debug)]
pub(super) struct Decisions {
    kept: Cache<Key, Arc<Decided>>,
    shapes: Cache<(Key, Shape), Known>,
}

/// What is known of statements' shapes under one snapshot, search path and time zone.
struct KeptShapes<'a> {
    in_rollups: &'a RollupConstants,
    under: Key,
    shapes: &'a Cache<(Key, Shape), Known>,
    /// Whether what was proved of another statement holds.
    proof: Cell<telemetry::Proof>,
}

impl Shapes for KeptShapes<'_> {
    fn in_rollups(&self) -> &RollupConstants {
        self.in_rollups
    }

    fn find(&self, shape: &Shape) -> Option<Known> {
        let known = self.shapes.get(&(self.under.clone(), shape.clone()));
        if let Some(Known::Proven(_)) = known {
            self.proof.set(telemetry::Proof::Reused);
        }
        known
    }

    fn keep(&self, shape: Shape, known: Known) {
        self.shapes.insert((self.under.clone(), shape), known);
    }
}

impl Decisions {
    pub(super) fn new() -> Self {
        let weigh =
            |_: &Key, decided: &Arc<Decided>| u32::try_from(decided.size()).unwrap_or(u32::MAX);
        Decisions {
            kept: Cache::builder()
                .max_capacity(DECISION_BYTES_MAX)
                .weigher(weigh)
                .build(),
            shapes: Cache::new(SHAPES_MAX),
        }
    }

    /// The decision for this statement, whatever is bound or with these times. At first sight it is made on a thread of its own, however long it
    /// takes: the other sessions of the caller's thread go on meanwhile.
    pub(super) async fn decide(
        &self,
        snapshot: &Arc<Snapshot>,
        facts: &SessionFacts,
        sql: &str,
        binding: Option<&Binding>,
        bound: Vec<Option<BoundTime>>,
    ) -> Arc<Decided> {
        let key = key(snapshot, facts, sql, binding, &bound);
        if let Some(decided) = self.kept.get(&key) {
            return decided;
        }
        let (kept, shapes) = (self.kept.clone(), self.shapes.clone());
        let (snapshot, facts, sql) = (Arc::clone(snapshot), facts.clone(), sql.to_owned());
        let deciding = spawn_blocking(move || {
            kept.get_with(key, || {
                first_decision(&snapshot, &facts, &sql, &bound, &shapes)
            })
        });
        match deciding.await {
            Ok(decided) => decided,
            // A bug of the rewriter's is the session's, as if it had been decided here.
            Err(error) => resume_unwind(match error.try_into_panic() {
                Ok(panic) => panic,
                Err(cancelled) => Box::new(cancelled),
            }),
        }
    }

    /// A rollup that would have the statement answered which no rollup answers; for people, so it is not kept.
    pub(super) async fn propose(
        &self,
        snapshot: &Arc<Snapshot>,
        facts: &SessionFacts,
        sql: &str,
    ) -> Option<String> {
        let (snapshot, facts, sql) = (Arc::clone(snapshot), facts.clone(), sql.to_owned());
        let proposing = spawn_blocking(move || propose(&sql, context(&snapshot, &facts, &[])));
        proposing.await.ok().flatten()
    }

    /// The statement's rewritten form failed: it is not offered again under this snapshot.
    pub(super) fn mark_failed(
        &self,
        snapshot: &Snapshot,
        facts: &SessionFacts,
        sql: &str,
        sqlstate: &str,
    ) {
        // The rollup's table made way for its next generation; the next statement reads that. And what one role may
        // not read, others may.
        if [UNDEFINED_TABLE, INSUFFICIENT_PRIVILEGE].contains(&sqlstate) {
            return;
        }
        let reason = Reason::new(Code::RewriteFailed, format!("SQLSTATE {sqlstate}"));
        let decision = Decision {
            reasons: vec![reason],
            ..Decision::default()
        };
        // Without its parameters' types the key is that of the simple protocol: in the extended one the
        // statement is offered again, at the cost of a fallback each time.
        self.kept.insert(
            key(snapshot, facts, sql, None, &[]),
            Arc::new(Decided::new(sql, decision)),
        );
    }

    /// The decisions that served a statement, the most used first.
    pub(super) fn by_use(&self) -> Vec<Arc<Decided>> {
        let kept = self.kept.iter().map(|(_, decided)| decided);
        let mut used: Vec<Arc<Decided>> =
            kept.filter(|decided| decided.counts.total() > 0).collect();
        used.sort_by_key(|decided| std::cmp::Reverse(decided.counts.total()));
        used
    }

    pub(super) fn clear(&self) {
        self.kept.invalidate_all();
        self.shapes.invalidate_all();
    }
}

/// For the bench: how a statement is decided that was decided before.
#[doc(hidden)]
#[derive(Debug)]
pub struct Repeat {
    decisions: Decisions,
    snapshot: Arc<Snapshot>,
    facts: SessionFacts,
}

impl Repeat {
    pub fn new(facts: SessionFacts) -> Self {
        Repeat {
            decisions: Decisions::new(),
            snapshot: Arc::default(),
            facts,
        }
    }

    /// How many reasons there are.
    pub async fn decide(&self, sql: &str) -> usize {
        let decided = self
            .decisions
            .decide(&self.snapshot, &self.facts, sql, None, vec![]);
        decided.await.decision.reasons.len()
    }
}

fn first_decision(
    snapshot: &Snapshot,
    facts: &SessionFacts,
    sql: &str,
    bound: &[Option<BoundTime>],
    shapes: &Cache<(Key, Shape), Known>,
) -> Arc<Decided> {
    let under = Key::of(&[
        &snapshot.version.to_be_bytes(),
        facts.search_path.join("\0").as_bytes(),
        facts.time_zone.as_bytes(),
    ]);
    let shapes = KeptShapes {
        in_rollups: &snapshot.constants,
        under,
        shapes,
        proof: Cell::new(telemetry::Proof::New),
    };
    let mut decision = decide_reusing(sql, context(snapshot, facts, bound), &shapes);
    telemetry::proved(shapes.proof.get());
    let absent = snapshot.absent.iter();
    decision.reasons.extend(
        absent.map(|absent| Reason::new(Code::NotBuilt, &absent.because).of_rollup(&absent.name)),
    );
    Arc::new(Decided::new(sql, decision))
}

fn context<'a>(
    snapshot: &'a Snapshot,
    facts: &'a SessionFacts,
    bound: &'a [Option<BoundTime>],
) -> Context<'a> {
    Context {
        catalog: &snapshot.catalog,
        rollups: &snapshot.rollups,
        search_path: &facts.search_path,
        time_zone: &facts.time_zone,
        bound,
    }
}

fn key(
    snapshot: &Snapshot,
    facts: &SessionFacts,
    sql: &str,
    binding: Option<&Binding>,
    bound: &[Option<BoundTime>],
) -> Key {
    let path = facts.search_path.join("\0");
    let times = bound.iter().map(|time| match time {
        Some(BoundTime { oid, text }) => format!("{oid} {text}\0"),
        None => "\0".to_owned(),
    });
    let times: String = times.collect();
    Key::of(&[
        &snapshot.version.to_be_bytes(),
        sql.as_bytes(),
        path.as_bytes(),
        facts.time_zone.as_bytes(),
        &protocol(binding),
        times.as_bytes(),
    ])
}

/// The part of a key that tells the two protocols apart, and parameters of one type from another.
pub(super) fn protocol(binding: Option<&Binding>) -> Vec<u8> {
    let Some(binding) = binding else {
        return b"simple".to_vec();
    };
    let types = binding.parameter_types.iter();
    b"extended"
        .iter()
        .copied()
        .chain(types.flat_map(|oid| oid.to_be_bytes()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::runtime::Builder;
    use tokio::task::yield_now;

    use super::*;

    /// One thread for sessions and one for what may take long, which is busy until it is told.
    #[test]
    fn a_session_goes_on_while_a_neighbour_waits_for_a_first_decision() {
        let mut runtime = Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let (release, released) = mpsc::channel::<()>();
            let busy = spawn_blocking(move || released.recv());
            let decisions = Decisions::new();
            let (snapshot, facts) = (Arc::default(), SessionFacts::default());
            let mut deciding =
                std::pin::pin!(decisions.decide(&snapshot, &facts, "SELECT 1", None, vec![]));
            tokio::select! {
                biased;
                _ = &mut deciding => panic!("was decided on the sessions' thread"),
                () = yield_now() => {}
            }
            release.send(()).unwrap();
            busy.await.unwrap().unwrap();
            let first = deciding.await;
            let mut again =
                std::pin::pin!(decisions.decide(&snapshot, &facts, "SELECT 1", None, vec![]));
            tokio::select! {
                biased;
                again = &mut again => assert!(Arc::ptr_eq(&first, &again)),
                () = std::future::ready(()) => panic!("a known decision was waited for"),
            }
        });
    }
}
