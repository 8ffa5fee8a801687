//! The one place that decides what serves a statement: the cache, a rollup, pgstar itself, or PostgreSQL.
//!
//! Sessions call [`Router::route`] and obey; nothing below this module reads SQL again.
//!
//! 1. `candidate` looks at the text alone, before the session is asked anything.
//! 2. `local` answers what only pgstar can: `EXPLAIN (PGSTAR)` and `SHOW pgstar.…`.
//! 3. `gate` refuses sessions and transactions in which no rollup may answer.
//! 4. `decisions` has the rewriter decide, once for each text and search path.
//! 5. `gate` again: the first match that this role may read, and that `freshness` shows to be fresh enough.
//! 6. `parity` has PostgreSQL describe both statements, once for each shape, and say which costs less.
//! 7. The cache is looked up (`kept`); else the rewritten statement goes out with a place for its answer.
//! 8. Where no rollup answers, an answer that PostgreSQL gave to the client's own statement may be kept.

mod beside;
mod bound;
mod candidate;
mod decisions;
mod explain;
mod freshness;
mod gate;
mod interface;
mod kept;
mod keys;
mod local;
mod parity;
mod passed;
mod prospect;
mod shape;
mod show;
mod temporary;

use std::sync::Arc;
use std::time::Instant;

use pgstar_cache::Key;
use pgstar_postgres::visible::Glimpse;
use pgstar_rewriter::{Code, Decision, Match, Reason, TableRows};

#[doc(hidden)]
pub use decisions::Repeat;
pub use explain::Explanation;
pub use gate::Requested;
pub use interface::{Binding, CacheSlot, Candidate, Confirmation, Rewritten, Route, SessionFacts};
pub use pgstar_cache::Answer;

pub use crate::wire::ColumnOrigin;
pub use passed::{Passed, Passing};
pub use temporary::Temporary;

use crate::config::{CacheConfig, FreshnessConfig};
use crate::follower::{Positions, Side};
use crate::telemetry;
use crate::warehouse::{Snapshot, Warehouse};
use beside::Beside;
use candidate::Look;
use decisions::{Decided, Decisions};
use freshness::{Prover, Shown};
use kept::{KeptAnswers, Tag, Tagged};
use keys::Keys;
use local::Command;
use parity::Describer;
use prospect::{Prospect, Read, Sights};

/// Decides for every session; shared by all of them.
#[derive(Debug)]
pub struct Router {
    warehouse: Arc<Warehouse>,
    decisions: Decisions,
    describer: Describer,
    kept: KeptAnswers,
    keys: Keys,
    /// Texts that no rollup answers and that were sent before; `None` where only rollups' tables are followed.
    sights: Option<Sights>,
    beside: Arc<Beside>,
    freshness: FreshnessConfig,
}

/// What serves a statement, before anything is sent.
struct Verdict {
    /// The snapshot under which it was reached.
    snapshot: Arc<Snapshot>,
    /// The statement's decision; `None` when the session is out of reach whatever it asks.
    decided: Option<Arc<Decided>>,
    /// The match that answers, or why none does.
    outcome: Result<Answering, Vec<Reason>>,
    /// What the cache can do when no match answers.
    base: Option<BaseAnswer>,
}

/// An answer from the base tables that is kept, or may be.
enum BaseAnswer {
    /// One is there, or there is what to tag it with when it is computed now.
    Kept {
        key: Key,
        reads: Vec<Read>,
        tag: Tag,
        /// What holds of one that is there.
        shown: Shown,
    },
    /// It is not to be kept this time, but how long it takes is to be known.
    Measured,
}

/// A match that may answer this session now.
struct Answering {
    /// Its position among the decision's matches.
    position: usize,
    /// What the original's columns come from.
    origins: Arc<[ColumnOrigin]>,
    /// Where the answer is or would be kept; `None` when it may not be.
    key: Option<Key>,
    /// What was shown of its freshness.
    shown: Shown,
    /// Every base table that it depends on.
    reads: Vec<Read>,
    /// The rollups' tables.
    rollups: Vec<String>,
    /// Whether a kept answer that is not known to have changed has what the session has seen.
    has_what_was_seen: bool,
}

impl Router {
    /// A router over this database, with an empty cache.
    pub fn new(warehouse: Arc<Warehouse>, cache: CacheConfig, freshness: FreshnessConfig) -> Self {
        Router {
            decisions: Decisions::new(),
            describer: Describer::new(Arc::clone(&warehouse)),
            kept: KeptAnswers::new(
                cache.memory.bytes(),
                usize::try_from(cache.max_answer.bytes()).unwrap_or(usize::MAX),
            ),
            keys: Keys::new(Arc::clone(&warehouse)),
            sights: (cache.followed_tables > 0 && cache.memory.bytes() > 0).then(Sights::new),
            beside: Arc::default(),
            warehouse,
            freshness,
        }
    }

    /// A cheap look at the text, before the session's facts are asked for.
    pub fn candidate(&self, sql: &[u8]) -> Candidate {
        let has_seen = || {
            self.sights
                .as_ref()
                .is_some_and(|sights| sights.has_seen(sql))
        };
        let look = |snapshot: &Snapshot| candidate::look(sql, snapshot);
        match self.warehouse.glance(look) {
            Look::Answerable => Candidate::Yes,
            Look::Keepable if has_seen() => Candidate::Yes,
            Look::Keepable if self.sights.is_some() => Candidate::NotYet,
            Look::Keepable | Look::No => Candidate::No,
        }
    }

    /// Another one whenever another text may be a candidate.
    pub fn version(&self) -> u64 {
        self.warehouse.version()
    }

    /// What serves this statement for this session, now.
    ///
    /// Never fails: whatever cannot be proved passes through.
    /// A glimpse of the session's server that was caught after the statement arrived may save asking it again.
    pub async fn route(
        &self,
        facts: &SessionFacts,
        sql: &str,
        binding: Option<&Binding>,
        glimpse: Option<&Glimpse>,
    ) -> Route {
        if let Some(command) = local::parse(sql) {
            telemetry::statement_served(telemetry::Decision::Local);
            return self.answer(command, facts).await;
        }
        let began = Instant::now();
        let verdict = self.judge(facts, sql, binding, glimpse).await;
        let route = self.serve(verdict, &facts.passed).await;
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
        let verdict = self.judge(facts, sql, None, None).await;
        let is_cached = match (&verdict.outcome, &verdict.base) {
            (Ok(answering), _) => {
                let will_do = |tag: &Tag| self.will_do(tag, answering);
                let key = answering.key.as_ref();
                key.is_some_and(|key| self.kept.has(key, &will_do))
            }
            (Err(_), base) => matches!(base, Some(BaseAnswer::Kept { tag: None, .. })),
        };
        let is_out_of_reach = |decided: &Arc<Decided>| decided.decision.matches.is_empty();
        let proposal = match verdict.decided.as_ref().is_some_and(is_out_of_reach) {
            true => self.decisions.propose(&verdict.snapshot, facts, sql).await,
            false => None,
        };
        let requested = gate::requested(facts, self.freshness.default);
        Explanation::of(&verdict, is_cached, proposal, &requested)
    }

    /// Decides under a snapshot that holds; one that has just ceased to is renewed once.
    async fn judge(
        &self,
        facts: &SessionFacts,
        sql: &str,
        binding: Option<&Binding>,
        glimpse: Option<&Glimpse>,
    ) -> Verdict {
        let snapshot = self.warehouse.snapshot();
        let version = snapshot.version;
        let verdict = self
            .judge_under(snapshot, facts, sql, binding, glimpse)
            .await;
        if !verdict.is_outdated() {
            return verdict;
        }
        let renewed = self.warehouse.renew(version, self.freshness.deadline);
        let Ok(snapshot) = renewed.await else {
            return verdict;
        };
        self.judge_under(snapshot, facts, sql, binding, None).await
    }

    async fn judge_under(
        &self,
        snapshot: Arc<Snapshot>,
        facts: &SessionFacts,
        sql: &str,
        binding: Option<&Binding>,
        glimpse: Option<&Glimpse>,
    ) -> Verdict {
        if let Err(reason) = gate::session(facts, sql, &snapshot, self.warehouse.is_watched()) {
            return Verdict {
                snapshot,
                decided: None,
                outcome: Err(vec![reason]),
                base: None,
            };
        }
        let decided = self.decide(&snapshot, facts, sql, binding).await;
        let (outcome, base) = self
            .answer_now(&snapshot, &decided, facts, binding, glimpse)
            .await;
        Verdict {
            snapshot,
            decided: Some(decided),
            outcome,
            base,
        }
    }

    /// The statement's decision, which may depend on the times that are bound.
    async fn decide(
        &self,
        snapshot: &Arc<Snapshot>,
        facts: &SessionFacts,
        sql: &str,
        binding: Option<&Binding>,
    ) -> Arc<Decided> {
        let decide = |bound| self.decisions.decide(snapshot, facts, sql, binding, bound);
        let decided = decide(vec![]).await;
        let Some(binding) = binding.filter(|_| decided.depends_on_values()) else {
            return decided;
        };
        let resolved = match bound::is_undeclared(binding) {
            true => self.describer.parameters(&decided, facts, binding).await,
            false => None,
        };
        let types = resolved.unwrap_or_else(|| binding.parameter_types.clone());
        match bound::times(sql, binding, &types) {
            times if times.is_empty() => decided,
            times => decide(times).await,
        }
    }

    async fn answer_now(
        &self,
        snapshot: &Snapshot,
        decided: &Decided,
        facts: &SessionFacts,
        binding: Option<&Binding>,
        glimpse: Option<&Glimpse>,
    ) -> (Result<Answering, Vec<Reason>>, Option<BaseAnswer>) {
        let decision = &decided.decision;
        let requested = gate::requested(facts, self.freshness.default);
        let key = self.base_key(decided, facts, binding);
        let bound = bound::ranges(&decided.sql, &decision.parameter_ranges, binding);
        let prospect = key
            .filter(|_| !requested.is_invalid)
            .and_then(|key| self.prospect(decided, key, &bound));
        // What comes of the others has to be shown by asking the server.
        if decision.matches.is_empty() && !matches!(prospect, Some(Prospect::Keep { .. })) {
            let measured = prospect.map(|_| BaseAnswer::Measured);
            return (Err(decision.reasons.clone()), measured);
        }
        let deadline = self.freshness.deadline;
        let passed = &facts.passed;
        let warehouse = &self.warehouse;
        let mut prover = Prover::new(warehouse, snapshot, &requested, passed, glimpse, deadline);
        let answer = async {
            let outcome = self
                .choose(&mut prover, snapshot, decided, facts, binding)
                .await;
            let base = match (&outcome, prospect) {
                (Err(_), Some(prospect)) => self.base(&mut prover, decision, prospect).await,
                _ => None,
            };
            (outcome, base)
        };
        // Both ask the server, so they ask at the same time.
        let guarded = prospect::relations(decision, snapshot);
        let guard = warehouse.still_holds(snapshot, guarded, glimpse, deadline);
        let follower = self.warehouse.follower();
        // Before and after, because the streams may be begun again on another server in between.
        let mut is_same_server = follower.is_about(&facts.server);
        let (answer, holds) = tokio::join!(answer, guard);
        is_same_server &= follower.is_about(&facts.server);
        match (holds, is_same_server) {
            (true, true) => answer,
            (false, _) => (Err(vec![outdated()]), None),
            (true, false) => {
                let detail =
                    "the session is on another server than the one whose changes are followed";
                let reason = Reason::new(Code::FreshnessUnproven, detail);
                (Err(vec![reason]), None)
            }
        }
    }

    /// The cheapest match that may answer this session and whose columns PostgreSQL describes alike.
    async fn choose(
        &self,
        prover: &mut Prover<'_>,
        snapshot: &Snapshot,
        decided: &Decided,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Result<Answering, Vec<Reason>> {
        let mut reasons = vec![];
        let reads = &decided.decision.reads;
        let order = self
            .describer
            .order(snapshot, decided, facts, binding)
            .await;
        let matches = order.positions.iter().filter_map(|position| {
            let found = decided.decision.matches.get(*position)?;
            Some((*position, found))
        });
        for (position, found) in matches {
            let shown = match gate::rollups(facts, snapshot, found) {
                Ok(()) if !self.beside.is_worth_trying(&found.base_reads) => {
                    let detail =
                        "rows that are read beside the rollup changed under the last statements";
                    Err(Reason::new(Code::FreshnessUnproven, detail))
                }
                Ok(()) => prover.of_rollups(found).await,
                Err(reason) => Err(reason),
            };
            let described = match shown {
                Ok(shown) => self
                    .describe(snapshot, decided, position, found, facts, binding)
                    .await
                    .map(|(origins, key)| (shown, origins, key)),
                Err(reason) => Err(reason),
            };
            match described {
                Ok((shown, origins, key)) => {
                    let reads = prospect::of_rollups(
                        &decided.decision,
                        &prover.tables(found, reads),
                        &bound::ranges(&decided.sql, &decided.decision.parameter_ranges, binding),
                    );
                    return Ok(Answering {
                        position,
                        origins,
                        key,
                        shown,
                        has_what_was_seen: prover.has_what_was_seen(shown, &reads).await,
                        reads,
                        rollups: prover.rollups(found),
                    });
                }
                Err(reason) => reasons.push(name_rollups(reason, snapshot, found)),
            }
        }
        reasons.extend(decided.decision.reasons.iter().cloned());
        Err(reasons)
    }

    async fn describe(
        &self,
        snapshot: &Snapshot,
        decided: &Decided,
        position: usize,
        found: &Match,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Result<(Arc<[ColumnOrigin]>, Option<Key>), Reason> {
        let origins = self
            .describer
            .origins(snapshot, decided, position, facts, binding)
            .await?;
        let key = self.key(decided, found, &origins, facts, binding);
        Ok((origins, key))
    }

    /// What the cache can do for a statement that no rollup answers.
    async fn base(
        &self,
        prover: &mut Prover<'_>,
        decision: &Decision,
        prospect: Prospect,
    ) -> Option<BaseAnswer> {
        let Prospect::Keep { key, reads } = prospect else {
            return Some(BaseAnswer::Measured);
        };
        let will_do = |tag: &Tag| kept::holds(self.warehouse.follower(), tag, &reads);
        let mut tag = None;
        let is_kept = self.kept.has(&key, &will_do)
            && prover.of_kept(&reads).await.is_ok()
            && self.kept.has(&key, &will_do);
        if !is_kept {
            if !self.kept.is_worth_keeping(&key) {
                return None;
            }
            self.track(&reads);
            let positions = prover.tag(&reads).await.ok()?;
            tag = Some(self.tagged(positions, decision, &reads).await);
        }
        let shown = prover.of_kept(&reads).await.ok()?;
        Some(BaseAnswer::Kept {
            key,
            reads,
            tag,
            shown,
        })
    }

    async fn serve(&self, verdict: Verdict, passed: &Passed) -> Route {
        match verdict.outcome {
            Ok(answering) => {
                passed.note_rollups(&answering.rollups);
                self.serve_match(verdict.decided, answering).await
            }
            Err(reasons) => {
                let route = self.serve_base(verdict.decided, reasons, verdict.base);
                let route = route.await;
                if matches!(route, Route::Cached(_)) {
                    passed.note(Passing::Reads);
                }
                route
            }
        }
    }

    async fn serve_match(&self, decided: Option<Arc<Decided>>, answering: Answering) -> Route {
        let found = decided
            .as_ref()
            .and_then(|decided| decided.decision.matches.get(answering.position));
        let (Some(decided), Some(found)) = (&decided, found) else {
            return Route::Passthrough { clean: false };
        };
        let cache = match &answering.key {
            None => None,
            Some(key) => {
                let will_do = |tag: &Tag| self.will_do(tag, &answering);
                match self.kept.find_or_board(key, &will_do).await {
                    Ok(answer) => return cached(decided, answer),
                    Err(flight) => {
                        self.track(&answering.reads);
                        let tag = self.tag(&answering, &decided.decision).await;
                        Some(self.kept.slot(key.clone(), tag, flight))
                    }
                }
            }
        };
        decided.counts.rollup.count();
        telemetry::statement_served(telemetry::Decision::Rollup);
        Route::Rewritten(Rewritten {
            sql: found.sql.clone(),
            origins: answering.origins,
            cache,
            confirmation: self.confirmation(found, answering.shown, answering.rollups),
        })
    }

    /// The rows that a match reads from base tables have to be of the rollups' state. The statement reads both in one
    /// snapshot, and the rollups contain no more than it sees. What it sees and they lack was committed between the proof
    /// about them and the end of the statement. If none of that touched the rows that are read from base tables, these are of the
    /// rollups' state; if none of it touched the rows that the rollups stand for, the rollups are of the snapshot's.
    ///
    /// Several rollups have to be of one state. They were when they were proven, and stay so for as long as none makes way for
    /// a table that is built anew: the old one stays behind then, and its name never comes back. So they are
    /// proven once more, afterwards.
    fn confirmation(
        &self,
        found: &Match,
        shown: Shown,
        rollups: Vec<String>,
    ) -> Option<Confirmation> {
        let are_several = rollups.len() > 1;
        if found.base_reads.is_empty() && !are_several {
            return None;
        }
        let (warehouse, tables) = (Arc::clone(&self.warehouse), found.base_reads.clone());
        let beside = Arc::clone(&self.beside);
        let (base_rows, rollup_rows) = (found.base_rows.clone(), found.rollup_rows.clone());
        for rows in base_rows.iter().chain(&rollup_rows) {
            warehouse.follower().track(&rows.ranges, Side::Rollups);
        }
        let deadline = self.freshness.deadline;
        Some(Confirmation::new(async move {
            let Shown::Current(proven) = shown else {
                return false;
            };
            let follower = warehouse.follower();
            let rollups: Vec<&str> = rollups.iter().map(String::as_str).collect();
            let are_of_one_state = !are_several
                || follower
                    .prove_rollups(&rollups, None, deadline)
                    .await
                    .is_ok();
            let are_untouched = |rows: &[TableRows]| {
                let mut rows = rows.iter();
                rows.all(|rows| follower.is_untouched(proven.positions, rows).is_ok())
            };
            let is_of_one_state = are_of_one_state
                && (tables.is_empty()
                    || follower.prove(deadline).await.is_ok()
                        && (are_untouched(&base_rows) || are_untouched(&rollup_rows)));
            beside.tried(&tables, is_of_one_state);
            is_of_one_state
        }))
    }

    async fn serve_base(
        &self,
        decided: Option<Arc<Decided>>,
        reasons: Vec<Reason>,
        base: Option<BaseAnswer>,
    ) -> Route {
        let (Some(decided), Some(base)) = (&decided, base) else {
            return passthrough(decided.as_deref(), &reasons);
        };
        let BaseAnswer::Kept {
            key, reads, tag, ..
        } = base
        else {
            passthrough(Some(decided), &reasons);
            return Route::Observed(self.measuring(decided));
        };
        let will_do = |tag: &Tag| kept::holds(self.warehouse.follower(), tag, &reads);
        match self.kept.find_or_board(&key, &will_do).await {
            Ok(answer) => cached(decided, answer),
            // It changed since it was looked at; only who knows a position may keep an answer.
            Err(_) if tag.is_none() => passthrough(Some(decided), &reasons),
            Err(flight) => {
                passthrough(Some(decided), &reasons);
                let slot = self.kept.slot(key, tag, flight);
                Route::Observed(prospect::timed(decided, &self.warehouse, slot))
            }
        }
    }

    /// From now on it shall be known which rows are changed of what an answer reads that is to be kept.
    fn track(&self, reads: &[Read]) {
        let follower = self.warehouse.follower();
        for read in reads {
            follower.track(&read.ranges, read.side);
        }
    }

    /// A position from before the answer is computed.
    async fn tag(&self, answering: &Answering, decision: &Decision) -> Tag {
        let follower = self.warehouse.follower();
        let positions = match answering.shown {
            Shown::Current(proven) => proven.positions,
            Shown::Within(_) | Shown::AsBuilt => {
                let rollups: Vec<&str> = answering.rollups.iter().map(String::as_str).collect();
                let proof = follower.prove_rollups(&rollups, None, self.freshness.deadline);
                proof.await.ok()?.positions
            }
        };
        Some(self.tagged(positions, decision, &answering.reads).await)
    }

    /// A tag with what can be found out of the rows that matter.
    async fn tagged(&self, positions: Positions, decision: &Decision, reads: &[Read]) -> Tagged {
        let keys = self
            .keys
            .ranges(&decision.key_ranges, positions, reads)
            .await;
        let follower = self.warehouse.follower();
        for range in &keys {
            let read = reads.iter().find(|read| read.table == range.table);
            if let Some(read) = read {
                follower.track(std::slice::from_ref(range), read.side);
            }
        }
        let keys = keys.into();
        Tagged { positions, keys }
    }

    /// Whether an answer kept from the match may be used. Its key names its rollup's table, so that it may
    /// be where nothing is asked of the table.
    fn will_do(&self, tag: &Tag, answering: &Answering) -> bool {
        let has_what_was_seen = answering.has_what_was_seen;
        has_what_was_seen
            && match (answering.shown, tag) {
                (Shown::AsBuilt, None) => true,
                (_, tag) => kept::holds(self.warehouse.follower(), tag, &answering.reads),
            }
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

    /// The same for the client's own statement.
    fn base_key(
        &self,
        decided: &Decided,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Option<Key> {
        let decision = &decided.decision;
        let may_be_kept = facts.cache
            && decision.is_plain_select
            && !decision.depends_on_clock
            && !decision.reads.is_empty();
        let bind = binding.map_or(&[][..], |binding| &binding.bind);
        may_be_kept.then(|| {
            Key::of(&[
                b"base",
                &decisions::protocol(binding),
                &decision.meaning.to_be_bytes(),
                decided.sql.as_bytes(),
                &facts.fingerprint,
                bind,
            ])
        })
    }

    /// Forgets stored answers and decisions, as a reload of the configuration does.
    pub fn forget(&self) {
        self.kept.clear();
        self.decisions.clear();
    }

    /// Publishes what the cache holds, and how the rollups are doing.
    pub fn tell_metrics(&self) {
        self.warehouse.tell_metrics();
        let statistics = self.kept.statistics();
        let tables = self.warehouse.follower().others();
        telemetry::cache_holds(statistics.bytes, statistics.entries, tables);
    }
}

impl Verdict {
    /// Whether all that stands in the way is that the snapshot does not hold any more.
    fn is_outdated(&self) -> bool {
        matches!(&self.outcome, Err(reasons) if *reasons == [outdated()])
    }
}

fn outdated() -> Reason {
    let detail = "privileges, policies, keys or columns have just changed";
    Reason::new(Code::CatalogUnavailable, detail)
}

fn cached(decided: &Decided, answer: Arc<Answer>) -> Route {
    decided.counts.cache.count();
    telemetry::statement_served(telemetry::Decision::Cache);
    Route::Cached(answer)
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
