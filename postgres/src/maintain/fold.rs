//! Brings one rollup's table up to date, within the transaction of a batch.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::{Changed, FoldPlan};
use tokio_postgres::{SimpleQueryMessage, Transaction};

use super::reason::Unfoldable;
use super::staging::SessionTables;
use super::waiting::Changes;

use crate::identifier::quote_qualified;
use crate::rollups::SCHEMA;
use crate::rollups::shape::Look;
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

/// One rollup's table.
pub(super) struct Fold {
    pub(super) plan: FoldPlan,
    pub(super) table: String,
    /// Names the session's table of deltas.
    pub(super) delta: String,
    /// For the tests of the tests.
    pub(super) never_recomputes: bool,
}

impl Fold {
    /// Why these changes cannot be folded, as far as that is known before anything is tried.
    pub(super) fn check(
        &self,
        changes: &HashMap<Oid, Changes>,
        look: &Look,
    ) -> Result<(), Unfoldable> {
        for occurrence in &self.plan.occurrences {
            let Some(rows) = changes.get(&occurrence.relation) else {
                continue;
            };
            if let Some(why) = &rows.spoiled {
                return Err(why.clone());
            }
            // It was like this since the table was read: the shapes are the same.
            if rows.has_old_rows
                && let Some(partition) = look.misreported(occurrence.relation)
            {
                return Err(Unfoldable::NoOldRow {
                    table: partition.to_owned(),
                });
            }
        }
        Ok(())
    }

    /// Folds what was staged. Nothing of it stays if the transaction ends without a commit.
    pub(super) async fn run(
        &self,
        transaction: &Transaction<'_>,
        changed: &[Option<Changed>],
        tables: &Mutex<&mut SessionTables>,
        before_merge: &(dyn Fn() -> Result<(), StreamError> + Sync),
    ) -> Result<Folded, FoldError> {
        if changed.iter().all(Option::is_none) {
            return Ok(Folded::default());
        }
        let rollup = quote_qualified(SCHEMA, &self.table);
        let delta = self.delta.as_str();
        let mut statements = vec![self.plan.create_delta(delta, &rollup)];
        statements.extend(self.plan.delta(changed, delta, &rollup));
        if self.never_recomputes {
            statements.push(format!("UPDATE {delta} SET is_recomputed = false"));
        }
        statements.push(self.plan.count_delta(delta));
        let answer = simple(transaction, &statements.join("; ")).await?;
        let [groups, recomputed, impossible] = numbers(&answer);
        if impossible > 0 {
            return Err(FoldError::Unfoldable(Unfoldable::Impossible));
        }
        before_merge()?;
        if groups > 0 {
            let statements = self.merge(&rollup, groups, recomputed, tables);
            simple(transaction, &statements.join("; ")).await?;
        }
        Ok(Folded { groups, recomputed })
    }

    /// The statements that bring the groups of the table of deltas into the rollup.
    fn merge(
        &self,
        rollup: &str,
        groups: u64,
        recomputed: u64,
        tables: &Mutex<&mut SessionTables>,
    ) -> Vec<String> {
        // Nobody panics with it.
        let mut tables = tables.lock().unwrap_or_else(PoisonError::into_inner);
        let delta = self.delta.as_str();
        let mut statements: Vec<String> = tables.tell(delta, groups).into_iter().collect();
        if recomputed > 0 {
            statements.push(self.plan.delete_recomputed(delta, rollup));
            statements.push(self.plan.insert_recomputed(delta, rollup));
        }
        if groups > recomputed {
            statements.extend(self.plan.merge(delta, rollup));
        }
        statements.push(tables.empty(delta, groups));
        statements
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
