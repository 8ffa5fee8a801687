//! The one place that decides what serves a statement: the cache, a rollup, pgstar itself, or PostgreSQL.
//!
//! Sessions call [`Router::route`] and obey; nothing below this module reads SQL again.
//!
//! 1. `candidate` looks at the text alone, before the session is asked anything.
//! 2. `local` answers what only pgstar can: `EXPLAIN (PGSTAR)` and `SHOW pgstar.…`.
//! 3. `gate` refuses sessions and transactions in which no rollup may answer.
//! 4. `decisions` has the rewriter decide, once for each text and search path.
//! 5. `gate` again: the first match that this role may read and that is fresh enough.
//! 6. `parity` has PostgreSQL describe both statements, once for each decision.
//! 7. The cache is looked up; else the rewritten statement goes out with a place for its answer.

mod candidate;
mod decisions;
mod explain;
mod gate;
mod interface;
mod local;
mod parity;
mod show;

use std::sync::Arc;
use std::time::Instant;

use pgstar_cache::{AnswerCache, Key};
use pgstar_rewriter::{Match, Reason};

pub use explain::Explanation;
pub use gate::Requested;
pub use interface::{Binding, CacheSlot, Candidate, Rewritten, Route, SessionFacts};
pub use pgstar_cache::Answer;

pub use crate::wire::ColumnOrigin;

use crate::config::{CacheConfig, Freshness};
use crate::telemetry;
use crate::warehouse::{Snapshot, Warehouse};
use decisions::{Decided, Decisions};
use local::Command;
use parity::Describer;

/// Decides for every session; shared by all of them.
#[derive(Debug)]
pub struct Router {
    warehouse: Arc<Warehouse>,
    decisions: Decisions,
    describer: Describer,
    cache: Arc<AnswerCache>,
    answer_bytes_max: usize,
    default_freshness: Freshness,
}

/// What serves a statement, before anything is sent.
struct Verdict {
    /// The snapshot under which it was reached.
    snapshot: Arc<Snapshot>,
    /// The statement's decision; `None` when the session is out of reach whatever it asks.
    decided: Option<Arc<Decided>>,
    /// The match that answers, or why none does.
    outcome: Result<Answering, Vec<Reason>>,
}

/// A match that may answer this session now.
#[derive(Clone)]
struct Answering {
    /// Its position among the decision's matches.
    position: usize,
    /// What the original's columns come from.
    origins: Arc<[ColumnOrigin]>,
    /// Where the answer is or would be kept; `None` when it may not be.
    key: Option<Key>,
}

impl Router {
    /// A router over this database, with an empty cache.
    pub fn new(
        warehouse: Arc<Warehouse>,
        cache: CacheConfig,
        default_freshness: Freshness,
    ) -> Self {
        Router {
            decisions: Decisions::new(),
            describer: Describer::new(Arc::clone(&warehouse)),
            cache: Arc::new(AnswerCache::new(cache.memory.bytes())),
            answer_bytes_max: usize::try_from(cache.max_answer.bytes()).unwrap_or(usize::MAX),
            warehouse,
            default_freshness,
        }
    }

    /// A cheap look at the text, before the session's facts are asked for.
    pub fn candidate(&self, sql: &[u8]) -> Candidate {
        candidate::look(sql, &self.warehouse.snapshot())
    }

    /// What serves this statement for this session, now.
    ///
    /// Never fails: whatever cannot be proved passes through.
    pub async fn route(&self, facts: &SessionFacts, sql: &str, binding: Option<&Binding>) -> Route {
        if let Some(command) = local::parse(sql) {
            telemetry::statement_served(telemetry::Decision::Local);
            return self.answer(command, facts).await;
        }
        let began = Instant::now();
        let verdict = self.judge(facts, sql, binding).await;
        let route = self.serve(verdict);
        telemetry::decided_in(began.elapsed());
        route
    }

    /// The session fell back to PostgreSQL after a rewritten statement failed with this SQLSTATE; it
    /// is not offered again until the catalog or the rollups change.
    pub fn rewritten_failed(&self, facts: &SessionFacts, sql: &str, sqlstate: &str) {
        telemetry::fell_back();
        self.decisions
            .mark_failed(&self.warehouse.snapshot(), facts, sql, sqlstate);
    }

    async fn answer(&self, command: Command<'_>, facts: &SessionFacts) -> Route {
        match command {
            Command::Explain { statement, json } => {
                let explanation = self.explain(facts, statement).await;
                Route::Local(local::text_answer(
                    "QUERY PLAN",
                    &explanation.lines(json),
                    "EXPLAIN",
                ))
            }
            Command::Show(name) => self.show(name, facts),
        }
    }

    /// What would serve the statement, and why.
    pub async fn explain(&self, facts: &SessionFacts, sql: &str) -> Explanation {
        let verdict = self.judge(facts, sql, None).await;
        let is_cached = verdict.outcome.as_ref().is_ok_and(|answering| {
            answering
                .key
                .as_ref()
                .is_some_and(|key| self.cache.contains(key))
        });
        Explanation::of(
            &verdict,
            is_cached,
            &gate::requested(facts, self.default_freshness),
        )
    }

    async fn judge(&self, facts: &SessionFacts, sql: &str, binding: Option<&Binding>) -> Verdict {
        let snapshot = self.warehouse.snapshot();
        if let Err(reason) = gate::session(facts, &snapshot, self.warehouse.is_watched()) {
            return Verdict {
                snapshot,
                decided: None,
                outcome: Err(vec![reason]),
            };
        }
        let decided = self.decisions.decide(&snapshot, facts, sql, binding);
        let outcome = self.choose(&snapshot, &decided, facts, binding).await;
        Verdict {
            snapshot,
            decided: Some(decided),
            outcome,
        }
    }

    /// The cheapest match that may answer this session and whose columns PostgreSQL describes alike.
    async fn choose(
        &self,
        snapshot: &Snapshot,
        decided: &Decided,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Result<Answering, Vec<Reason>> {
        let mut reasons = vec![];
        let requested = gate::requested(facts, self.default_freshness);
        for (position, found) in decided.decision.matches.iter().enumerate() {
            let checked = match gate::rollups(facts, snapshot, found, &requested) {
                Ok(()) => {
                    self.describer
                        .origins(decided, position, facts, binding)
                        .await
                }
                Err(reason) => Err(reason),
            };
            match checked {
                Ok(origins) => {
                    let key = self.key(decided, found, &origins, facts, binding);
                    return Ok(Answering {
                        position,
                        origins,
                        key,
                    });
                }
                Err(reason) => reasons.push(name_rollups(reason, snapshot, found)),
            }
        }
        reasons.extend(decided.decision.reasons.iter().cloned());
        Err(reasons)
    }

    fn serve(&self, verdict: Verdict) -> Route {
        let answering = match verdict.outcome {
            Ok(answering) => answering,
            Err(reasons) => return passthrough(verdict.decided.as_deref(), &reasons),
        };
        let found = verdict
            .decided
            .as_ref()
            .and_then(|decided| decided.decision.matches.get(answering.position));
        let (Some(decided), Some(found)) = (&verdict.decided, found) else {
            return Route::Passthrough { clean: false };
        };
        if let Some(answer) = answering.key.as_ref().and_then(|key| self.cached(key)) {
            decided.counts.cache.count();
            telemetry::statement_served(telemetry::Decision::Cache);
            return Route::Cached(answer);
        }
        decided.counts.rollup.count();
        telemetry::statement_served(telemetry::Decision::Rollup);
        let cache = answering.key.map(|key| self.slot(key));
        Route::Rewritten(Rewritten {
            sql: found.sql.clone(),
            origins: answering.origins,
            cache,
        })
    }

    fn cached(&self, key: &Key) -> Option<Arc<Answer>> {
        let answer = self.cache.get(key);
        match &answer {
            Some(_) => telemetry::cache_hit(),
            None => telemetry::cache_miss(),
        }
        answer
    }

    fn slot(&self, key: Key) -> CacheSlot {
        let cache = Arc::clone(&self.cache);
        CacheSlot::new(self.answer_bytes_max, move |answer| {
            cache.insert(key, answer)
        })
    }

    /// Everything that the answer's bytes depend on. The rewritten statement names one generation of
    /// one rollup's table, so an answer never outlives the rollup that it came from.
    fn key(
        &self,
        decided: &Decided,
        found: &Match,
        origins: &[ColumnOrigin],
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Option<Key> {
        if !facts.cache || decided.decision.depends_on_clock {
            return None;
        }
        let origins: Vec<u8> = origins
            .iter()
            .flat_map(|origin| {
                [
                    origin.table.to_be_bytes().as_slice(),
                    &origin.attnum.to_be_bytes(),
                ]
                .concat()
            })
            .collect();
        let bind = binding.map_or(&[][..], |binding| &binding.bind);
        Some(Key::of(&[
            &decisions::protocol(binding),
            found.sql.as_bytes(),
            &facts.fingerprint,
            &origins,
            bind,
        ]))
    }

    /// Forgets stored answers and decisions, as a reload of the configuration does.
    pub fn forget(&self) {
        self.cache.clear();
        self.decisions.clear();
    }

    /// Publishes what the cache holds.
    pub fn tell_metrics(&self) {
        let statistics = self.cache.statistics();
        telemetry::cache_holds(statistics.bytes, statistics.entries);
    }
}

fn passthrough(decided: Option<&Decided>, reasons: &[Reason]) -> Route {
    telemetry::statement_served(telemetry::Decision::Passthrough);
    if let Some(reason) = reasons.first() {
        telemetry::passed_through(reason.code.as_str());
    }
    if let Some(decided) = decided {
        decided.counts.passthrough.count();
    }
    Route::Passthrough {
        clean: decided.is_some_and(|decided| decided.decision.is_plain_select),
    }
}

fn name_rollups(reason: Reason, snapshot: &Snapshot, found: &Match) -> Reason {
    reason.of_rollup(&snapshot.names(found).join(", "))
}
