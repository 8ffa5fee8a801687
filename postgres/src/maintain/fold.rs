//! Brings one rollup's table up to date, within the transaction of a batch.

use std::collections::HashMap;

use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::FoldPlan;
use tokio_postgres::{SimpleQueryMessage, Transaction};

use super::intake::Wanted;
use super::reason::Unfoldable;
use super::staging::Staging;
use super::waiting::Changes;
use super::{Failpoint, MaintainOptions};
use crate::identifier::quote_qualified;
use crate::rollups::SCHEMA;
use crate::stream::StreamError;

/// What a fold did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Folded {
    /// Groups that changed.
    pub(super) groups: u64,
    /// Those of them that were computed from the base tables.
    pub(super) recomputed: u64,
}

/// Why a rollup was not folded.
pub(super) enum FoldError {
    /// It cannot be.
    Unfoldable(Unfoldable),
    /// The session, or what passes.
    Stream(StreamError),
}

impl From<StreamError> for FoldError {
    fn from(error: StreamError) -> Self {
        FoldError::Stream(error)
    }
}

/// One rollup's table, and what changed below it.
pub(super) struct Fold<'a> {
    pub(super) plan: &'a FoldPlan,
    pub(super) table: &'a str,
    /// Names the session's table of deltas.
    pub(super) delta: &'a str,
    pub(super) rows: &'a HashMap<Oid, Changes>,
    pub(super) wanted: &'a Wanted,
    /// Whether the key of an occurrence that others refer to is known to have been enforced.
    pub(super) knows_keys: &'a (dyn Fn(usize) -> bool + Sync),
    pub(super) options: &'a MaintainOptions,
}

impl Fold<'_> {
    /// Why these changes cannot be folded, as far as that is known before anything is tried.
    pub(super) fn check(&self) -> Result<(), Unfoldable> {
        for occurrence in &self.plan.occurrences {
            let Some(rows) = self.rows.get(&occurrence.relation) else {
                continue;
            };
            if let Some(why) = &rows.spoiled {
                return Err(why.clone());
            }
        }
        Ok(())
    }

    /// Folds them. Nothing of it stays if the transaction ends without a commit.
    pub(super) async fn run(
        &self,
        transaction: &Transaction<'_>,
        staging: &mut Staging,
    ) -> Result<Folded, FoldError> {
        let changed = staging
            .stage(
                transaction,
                self.plan,
                self.rows,
                self.wanted,
                self.knows_keys,
            )
            .await?;
        if changed.iter().all(Option::is_none) {
            return Ok(Folded::default());
        }
        let rollup = quote_qualified(SCHEMA, self.table);
        let delta = self.delta;
        let mut statements = vec![
            self.plan.create_delta(delta, &rollup),
            format!("DELETE FROM {delta}"),
        ];
        statements.extend(self.plan.delta(&changed, delta, &rollup));
        statements.push(self.plan.count_delta(delta));
        let answer = simple(transaction, &statements.join("; ")).await?;
        let [groups, recomputed, impossible] = numbers(&answer);
        if impossible > 0 {
            return Err(FoldError::Unfoldable(Unfoldable::Impossible));
        }
        self.options.pass(Failpoint::BeforeMerge)?;
        let mut statements = vec![];
        if recomputed > 0 {
            statements.push(self.plan.delete_recomputed(delta, &rollup));
            statements.push(self.plan.insert_recomputed(delta, &rollup));
        }
        if groups > recomputed {
            statements.push(self.plan.merge(delta, &rollup));
        }
        if !statements.is_empty() {
            simple(transaction, &statements.join("; ")).await?;
        }
        Ok(Folded { groups, recomputed })
    }
}

async fn simple(
    transaction: &Transaction<'_>,
    sql: &str,
) -> Result<Vec<SimpleQueryMessage>, StreamError> {
    Ok(transaction.simple_query(sql).await?)
}

fn numbers(answer: &[SimpleQueryMessage]) -> [u64; 3] {
    let row = answer.iter().rev().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let number = |at| row.and_then(|row| row.get(at)?.parse().ok()).unwrap_or(0);
    [number(0), number(1), number(2)]
}
