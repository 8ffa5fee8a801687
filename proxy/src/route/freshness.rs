//! What has to be shown of an answer's freshness, and what was shown.
//!
//! Everything that cannot be shown is a reason, and the base tables answer.

use std::time::Duration;

use pgstar_postgres::stream::Changed;
use pgstar_postgres::visible::Glimpse;
use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::{Code, Match, Reason};

use super::prospect::Read;
use super::{Passed, Requested};
use crate::config::Freshness;
use crate::follower::{Positions, Proven, Side, Unknown};
use crate::warehouse::{Snapshot, Warehouse};

/// What was shown of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// It has every commit acknowledged before the statement arrived.
    Current(Proven),
    /// It has every commit acknowledged longer ago than this.
    Within(Duration),
    /// It is as old as its rollup, which may be as old as it likes or was built within the bound.
    AsBuilt,
}

/// Shows the freshness of one statement's answers; asks the server at most once.
pub(super) struct Prover<'a> {
    warehouse: &'a Warehouse,
    snapshot: &'a Snapshot,
    requested: &'a Requested,
    passed: &'a Passed,
    /// Caught after the statement arrived.
    glimpse: Option<&'a Glimpse>,
    deadline: Duration,
    proof: Option<Result<Proven, Unknown>>,
}

impl<'a> Prover<'a> {
    /// For a statement that has arrived: nothing that is proven earlier counts.
    pub(super) fn new(
        warehouse: &'a Warehouse,
        snapshot: &'a Snapshot,
        requested: &'a Requested,
        passed: &'a Passed,
        glimpse: Option<&'a Glimpse>,
        deadline: Duration,
    ) -> Self {
        Prover {
            warehouse,
            snapshot,
            requested,
            passed,
            glimpse,
            deadline,
            proof: None,
        }
    }

    /// Whether the rollups of a match are as fresh as it is asked for, and of one state.
    pub(super) async fn of_rollups(&mut self, found: &Match) -> Result<Shown, Reason> {
        self.check_setting()?;
        self.check_sound(found)?;
        // Tables that are read together have to be of one state, however old it may be.
        let is_of_one_state = found.rollups.len() == 1 && found.base_reads.is_empty();
        match self.requested.freshness {
            Freshness::Strict => self.current(found).await,
            _ if !is_of_one_state => self.current(found).await,
            _ if !self.has_own_commits(found) => self.with_own_commits(found).await,
            Freshness::Within(bound) => self.within(found, bound),
            Freshness::Any => Ok(self.as_it_is(found)),
        }
    }

    /// Whether what the session has done or seen is in the rollups, as far as is known without asking.
    fn has_own_commits(&self, found: &Match) -> bool {
        // In this order: the staleness is that of a later instant.
        let since = self.passed.passed_at().map(|at| at.elapsed());
        let has_what_passed = since.is_none_or(|since| {
            let staleness = self.staleness(found);
            staleness.is_some_and(|staleness| staleness < since)
        });
        has_what_passed && self.has_what_rollups_had(found)
    }

    /// Whether the rollups contain what those did that have answered the session before: rollups in step contain the same,
    /// and more the later they are read. One that cannot be followed is as it was built, and so is known to be.
    fn has_what_rollups_had(&self, found: &Match) -> bool {
        if self.check_followed(found).is_err() {
            return true;
        }
        let follower = self.warehouse.follower();
        let mut tables = self.tables_of(found).into_iter();
        tables.all(|table| follower.is_in_step(table) || !self.passed.has_read_beside(table))
    }

    /// What the session has done or seen has to be in the answer, whatever else may be missing.
    async fn with_own_commits(&mut self, found: &Match) -> Result<Shown, Reason> {
        if self.warehouse.follower().state().is_ok() {
            return self.current(found).await;
        }
        // Where there can be a stream there will be one in a moment, and what others did has to be in the answer too.
        let may_lack_reads = self.warehouse.follower().is_impossible();
        let counts_from = match may_lack_reads {
            true => self.passed.wrote_at(),
            false => self.passed.passed_at(),
        };
        let Some(counts_from) = counts_from else {
            return self.without_stream(found);
        };
        let is_built_since = |rollup: &usize| {
            let ready = self.snapshot.ready.get(*rollup);
            let begun_at = ready.and_then(|ready| self.warehouse.begun_at(&ready.built));
            begun_at.is_some_and(|begun_at| begun_at > counts_from)
        };
        if found.rollups.iter().all(is_built_since) {
            return self.without_stream(found);
        }
        let detail = "the session may have written or seen what was committed since the rollup was built, and changes are not followed";
        Err(Reason::new(Code::RollupBehind, detail))
    }

    fn without_stream(&self, found: &Match) -> Result<Shown, Reason> {
        match self.requested.freshness {
            Freshness::Within(bound) => self.within(found, bound),
            Freshness::Any | Freshness::Strict => Ok(Shown::AsBuilt),
        }
    }

    fn as_it_is(&self, found: &Match) -> Shown {
        self.staleness(found).map_or(Shown::AsBuilt, Shown::Within)
    }

    /// The staleness of the oldest; none if one of them is not known.
    fn staleness(&self, found: &Match) -> Option<Duration> {
        let tables = self.tables_of(found);
        let follower = self.warehouse.follower();
        let ages: Option<Vec<Duration>> = tables
            .iter()
            .map(|table| follower.staleness(table))
            .collect();
        ages?.into_iter().max()
    }

    /// The tables of the rollups that the match reads.
    pub(super) fn rollups(&self, found: &Match) -> Vec<String> {
        let tables = self.tables_of(found).into_iter();
        tables.map(str::to_owned).collect()
    }

    fn tables_of(&self, found: &Match) -> Vec<&'a str> {
        let ready = found.rollups.iter();
        let ready = ready.filter_map(|rollup| self.snapshot.ready.get(*rollup));
        ready.map(|ready| ready.built.table.as_str()).collect()
    }

    /// However old an answer may be, it has to have been right once.
    fn check_sound(&self, found: &Match) -> Result<(), Reason> {
        let follower = self.warehouse.follower();
        let mut tables = self.tables_of(found).into_iter();
        match tables.any(|table| follower.is_condemned(table)) {
            true => Err(Reason::new(
                Code::RollupBehind,
                "its table is not what its definition says, and is to be built again",
            )),
            false => Ok(()),
        }
    }

    fn check_setting(&self) -> Result<(), Reason> {
        if self.requested.is_invalid {
            let detail = "pgstar.freshness is 'strict', 'any' or a duration such as '5s'";
            return Err(Reason::new(Code::InvalidFreshness, detail));
        }
        Ok(())
    }

    /// What an answer computed from now on can be tagged with, when all that it reads is followed.
    pub(super) async fn tag(&mut self, reads: &[Read]) -> Result<Positions, Unknown> {
        let positions = self.prove(reads).await?.positions;
        let follower = self.warehouse.follower();
        for read in reads {
            match follower.is_unchanged(positions, read.table, &[], read.side) {
                // Since the proof: the answer that is computed next may have it or not.
                Ok(()) | Err(Unknown::Changed(Changed::At { .. })) => {}
                Err(why) => return Err(why),
            }
        }
        Ok(positions)
    }

    /// What holds of an answer from the base tables that has not changed, as far as is known after this.
    pub(super) async fn of_kept(&mut self, reads: &[Read]) -> Result<Shown, Unknown> {
        let is_any = self.requested.freshness == Freshness::Any;
        if is_any && self.knows_what_was_seen(reads) {
            return Ok(Shown::AsBuilt);
        }
        Ok(Shown::Current(self.prove(reads).await?))
    }

    /// Whether who follows these tables knows what changed them before the session saw or did anything, as far as is known
    /// without asking.
    pub(super) fn knows_what_was_seen(&self, reads: &[Read]) -> bool {
        let Some(seen_at) = self.passed.seen_at() else {
            return true;
        };
        let since = seen_at.elapsed();
        let follower = self.warehouse.follower();
        let mut staleness = reads.iter().map(|read| follower.knowledge_age(read.side));
        staleness.all(|staleness| staleness.is_some_and(|staleness| staleness < since))
    }

    /// Whether an answer that was kept of rollups of which this was shown has what the session has done or seen, unless it is
    /// known to have changed after this. Who brings the rollups forward knows what is in them; a table that nobody brings forward
    /// stays as it is.
    pub(super) async fn has_what_was_seen(&self, shown: Shown, reads: &[Read]) -> bool {
        let follower = self.warehouse.follower();
        matches!(shown, Shown::Current(_))
            || follower.is_impossible()
            || follower.leads()
            || self.knows_what_was_seen(reads)
            || follower.prove(self.deadline).await.is_ok()
    }

    /// Every table that an answer from the match depends on.
    pub(super) fn tables(&self, found: &Match, reads: &[Oid]) -> Vec<Oid> {
        let rollups = found.rollups.iter();
        let rollups = rollups.filter_map(|rollup| self.snapshot.rollups.get(*rollup));
        let bases = rollups.flat_map(|rollup| &rollup.definition.base_relations);
        let mut tables: Vec<Oid> = bases.chain(reads).copied().collect();
        tables.sort();
        tables.dedup();
        tables
    }

    async fn current(&mut self, found: &Match) -> Result<Shown, Reason> {
        self.check_followed(found)?;
        let tables = self.tables_of(found);
        let follower = self.warehouse.follower();
        let proof = follower
            .prove_rollups(&tables, self.glimpse, self.deadline)
            .await;
        let proven = proof.map_err(|why| self.reason(why))?;
        // Of tables that are not followed nothing could be confirmed afterwards either; what changed since may be aside.
        let unchanged = follower.unchanged_since(proven.positions, &found.base_reads);
        match unchanged {
            Ok(()) | Err(Unknown::Changed(Changed::At { .. })) => Ok(Shown::Current(proven)),
            Err(why) => Err(self.reason(why)),
        }
    }

    /// Nothing is proven of a rollup over a table that cannot be followed; so say why.
    fn check_followed(&self, found: &Match) -> Result<(), Reason> {
        let tables = self.tables(found, &[]);
        let refusals = self.warehouse.follower().refusals();
        let refusal = refusals
            .iter()
            .find(|refusal| tables.contains(&refusal.relation));
        match refusal {
            None => Ok(()),
            Some(refusal) => Err(Reason::new(
                Code::FreshnessUnproven,
                format!(
                    "{} cannot be followed: {}",
                    self.name(refusal.relation),
                    refusal.reason
                ),
            )),
        }
    }

    fn within(&self, found: &Match, bound: Duration) -> Result<Shown, Reason> {
        let staleness = self.staleness(found);
        let age = self.warehouse.oldest(self.snapshot, found);
        let age = age.unwrap_or(Duration::MAX);
        match staleness {
            Some(staleness) if staleness <= bound => Ok(Shown::Within(staleness)),
            _ if age <= bound => Ok(Shown::AsBuilt),
            Some(staleness) => {
                let detail = format!(
                    "asked for {bound:?}, and the rollup has what was committed up to {} ms ago",
                    staleness.as_millis()
                );
                Err(Reason::new(Code::FreshnessUnproven, detail))
            }
            None => {
                let detail = format!("asked for {bound:?}, built {} s ago", age.as_secs());
                Err(Reason::new(Code::FreshnessUnproven, detail))
            }
        }
    }

    /// One statement's reads are the same each time.
    async fn prove(&mut self, reads: &[Read]) -> Result<Proven, Unknown> {
        if let Some(proof) = &self.proof {
            return proof.clone();
        }
        let sides: Vec<Side> = reads.iter().map(|read| read.side).collect();
        let proof = self.warehouse.follower().prove_sides(&sides, self.deadline);
        let proof = proof.await;
        self.proof.insert(proof).clone()
    }

    fn reason(&self, why: Unknown) -> Reason {
        match why {
            Unknown::Unproven(why) => Reason::new(Code::FreshnessUnproven, why),
            Unknown::Aside(why) => Reason::new(Code::RollupBehind, why),
            Unknown::Changed(Changed::NotFollowed(table)) => {
                let detail = format!("{} is not followed", self.name(table));
                Reason::new(Code::FreshnessUnproven, detail)
            }
            Unknown::Changed(changed) => Reason::new(Code::FreshnessUnproven, changed.to_string()),
        }
    }

    fn name(&self, relation: Oid) -> String {
        match self.snapshot.catalog.relation_by_oid(relation) {
            Some(relation) => format!("{}.{}", relation.schema, relation.name),
            None => format!("relation {}", relation.0),
        }
    }
}
