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
        let Some(passed_at) = self.passed.passed_at() else {
            return true;
        };
        // In this order: the staleness is that of a later instant.
        let since = passed_at.elapsed();
        self.staleness(found)
            .is_some_and(|staleness| staleness < since)
    }

    /// What the session has done or seen has to be in the answer, whatever else may be missing.
    async fn with_own_commits(&mut self, found: &Match) -> Result<Shown, Reason> {
        if self.warehouse.follower().state().is_ok() {
            return self.current(found).await;
        }
        let Some(wrote_at) = self.passed.wrote_at() else {
            return self.without_stream(found);
        };
        let is_built_since = |rollup: &usize| {
            let ready = self.snapshot.ready.get(*rollup);
            let begun_at = ready.and_then(|ready| self.warehouse.begun_at(&ready.built));
            begun_at.is_some_and(|begun_at| begun_at > wrote_at)
        };
        if found.rollups.iter().all(is_built_since) {
            return self.without_stream(found);
        }
        let detail =
            "the session has written since the rollup was built, and changes are not followed";
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
        if self.requested.freshness == Freshness::Any && !self.passed.is_unproven() {
            return Ok(Shown::AsBuilt);
        }
        let proven = self.prove(reads).await?;
        self.passed.prove();
        Ok(Shown::Current(proven))
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
