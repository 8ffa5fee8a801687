//! What has to be shown of an answer's freshness, and what was shown.
//!
//! Everything that cannot be shown is a reason, and the base tables answer. Whoever finds a rollup behind
//! has it rebuilt.

use std::time::Duration;

use pgstar_postgres::stream::{Changed, Position};
use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::{Code, Match, Reason};

use super::Requested;
use crate::config::Freshness;
use crate::follower::{Proven, Unknown};
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
    deadline: Duration,
    proof: Option<Result<Proven, Unknown>>,
}

impl<'a> Prover<'a> {
    /// For a statement that has arrived: nothing that is proven earlier counts.
    pub(super) fn new(
        warehouse: &'a Warehouse,
        snapshot: &'a Snapshot,
        requested: &'a Requested,
        deadline: Duration,
    ) -> Self {
        Prover {
            warehouse,
            snapshot,
            requested,
            deadline,
            proof: None,
        }
    }

    /// Whether the rollups of a match are as fresh as it is asked for, and of one state. `reads` are the
    /// base tables of the statement, which may be more than those of the rollups.
    pub(super) async fn of_rollups(
        &mut self,
        found: &Match,
        reads: &[Oid],
    ) -> Result<Shown, Reason> {
        self.check_setting()?;
        // Tables that are read together have to be of one state, however old it may be.
        let is_of_one_state = found.rollups.len() == 1 && found.base_reads.is_empty();
        match self.requested.freshness {
            Freshness::Strict => self.current(found, reads).await,
            _ if !is_of_one_state => self.current(found, reads).await,
            Freshness::Within(bound) => self.within(found, reads, bound),
            Freshness::Any => Ok(Shown::AsBuilt),
        }
    }

    fn check_setting(&self) -> Result<(), Reason> {
        if self.requested.is_invalid {
            let detail = "pgstar.freshness is 'strict', 'any' or a duration such as '5s'";
            return Err(Reason::new(Code::InvalidFreshness, detail));
        }
        Ok(())
    }

    /// The position that an answer computed from now on can be tagged with, when all of these tables are
    /// followed.
    pub(super) async fn position(&mut self, tables: &[Oid]) -> Result<Position, Unknown> {
        let proven = self.prove().await?;
        let follower = self.warehouse.follower();
        follower
            .unchanged_since(proven.position, tables)
            .or_else(|why| match why {
                // Since the proof; the answer that is computed next may have it or not.
                Unknown::Changed(Changed::At { .. }) => Ok(()),
                why => Err(why),
            })?;
        Ok(proven.position)
    }

    /// What holds of an answer from the base tables that has not changed, as far as is known after this.
    pub(super) async fn of_kept(&mut self) -> Result<Shown, Unknown> {
        match self.requested.freshness {
            Freshness::Strict => self.prove().await.map(Shown::Current),
            Freshness::Any => Ok(Shown::AsBuilt),
            Freshness::Within(bound) => match self.warehouse.follower().staleness()? {
                staleness if staleness <= bound => Ok(Shown::Within(staleness)),
                _ => self.prove().await.map(Shown::Current),
            },
        }
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

    /// What an answer from the match can be tagged with.
    pub(super) fn tag(&self, found: &Match, shown: Shown) -> Option<Position> {
        match (shown, found.rollups.as_slice()) {
            (Shown::Current(proven), _) => Some(proven.position),
            (Shown::Within(_) | Shown::AsBuilt, [rollup]) => self.built_at(*rollup).ok(),
            (Shown::Within(_) | Shown::AsBuilt, _) => None,
        }
    }

    async fn current(&mut self, found: &Match, reads: &[Oid]) -> Result<Shown, Reason> {
        // What is known already may spare the question.
        let known = self.unchanged(found, reads);
        known.map_err(|why| self.reason(found, why))?;
        let proven = self.prove().await.map_err(|why| self.reason(found, why))?;
        let proven_unchanged = self.unchanged(found, reads);
        proven_unchanged
            .map(|()| Shown::Current(proven))
            .map_err(|why| self.reason(found, why))
    }

    fn within(&self, found: &Match, reads: &[Oid], bound: Duration) -> Result<Shown, Reason> {
        let age = self.snapshot.oldest(found).unwrap_or(Duration::MAX);
        // Asked before the changes: what is learnt in between only makes the answer fresher.
        let staleness = self.warehouse.follower().staleness();
        let known = staleness.and_then(|staleness| {
            self.unchanged(found, reads)?;
            Ok(staleness)
        });
        match known {
            Ok(staleness) if staleness <= bound => Ok(Shown::Within(staleness)),
            _ if age <= bound => Ok(Shown::AsBuilt),
            Ok(staleness) => {
                let detail = format!(
                    "asked for {bound:?}, and changes are known up to {} ms ago",
                    staleness.as_millis()
                );
                Err(Reason::new(Code::FreshnessUnproven, detail))
            }
            Err(why) => {
                let mut reason = self.reason(found, why);
                reason.detail = format!(
                    "asked for {bound:?}, built {} s ago; {}",
                    age.as_secs(),
                    reason.detail
                );
                Err(reason)
            }
        }
    }

    async fn prove(&mut self) -> Result<Proven, Unknown> {
        if let Some(proof) = &self.proof {
            return proof.clone();
        }
        let proof = self.warehouse.follower().prove(self.deadline).await;
        self.proof.insert(proof).clone()
    }

    /// Whether all rollups are, as far as is known, what a build of now would give.
    fn unchanged(&self, found: &Match, reads: &[Oid]) -> Result<(), Unknown> {
        for rollup in &found.rollups {
            let position = self.built_at(*rollup)?;
            let bases = self.snapshot.rollups.get(*rollup);
            let bases = bases.map_or(&[][..], |rollup| &rollup.definition.base_relations);
            let tables: Vec<Oid> = bases.iter().chain(reads).copied().collect();
            self.warehouse
                .follower()
                .unchanged_since(position, &tables)?;
        }
        Ok(())
    }

    fn built_at(&self, rollup: usize) -> Result<Position, Unknown> {
        let ready = self.snapshot.ready.get(rollup).ok_or(Unknown::Unplaced)?;
        // Why there is no stream says more than that there was none.
        self.warehouse.follower().state()?;
        let position = self.warehouse.position_of(&ready.built);
        position.ok_or(Unknown::Unplaced)
    }

    fn reason(&self, found: &Match, why: Unknown) -> Reason {
        match why {
            Unknown::Unproven(why) => Reason::new(Code::FreshnessUnproven, why),
            Unknown::Unplaced => {
                self.note_behind(found);
                let detail = "it was built when changes were not followed; it is being built again";
                Reason::new(Code::RollupBehind, detail)
            }
            Unknown::Changed(Changed::OtherEpoch) => {
                self.note_behind(found);
                let detail =
                    "the change stream was interrupted since it was built; it is being built again";
                Reason::new(Code::RollupBehind, detail)
            }
            Unknown::Changed(Changed::At { relation, at }) => {
                self.note_behind(found);
                let detail = format!(
                    "{} changed at {at}; it is being built again",
                    self.name(relation)
                );
                Reason::new(Code::RollupBehind, detail)
            }
            Unknown::Changed(Changed::NotFollowed(relation)) => {
                let refusals = self.warehouse.follower().refusals();
                let refusal = refusals
                    .iter()
                    .find(|refusal| refusal.relation == relation)
                    .map(|refusal| format!(": {}", refusal.reason));
                let detail = format!(
                    "{} is not followed{}",
                    self.name(relation),
                    refusal.unwrap_or_default()
                );
                Reason::new(Code::FreshnessUnproven, detail)
            }
        }
    }

    fn note_behind(&self, found: &Match) {
        for rollup in self.snapshot.names(found) {
            self.warehouse.note_behind(rollup);
        }
    }

    fn name(&self, relation: Oid) -> String {
        match self.snapshot.catalog.relation_by_oid(relation) {
            Some(relation) => format!("{}.{}", relation.schema, relation.name),
            None => format!("relation {}", relation.0),
        }
    }
}
