//! Brings one rollup's table up to date, within the transaction of a batch.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::future::try_join_all;
use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::{Changed, FoldPlan, Groups};
use tokio_postgres::{Row, Transaction};

use super::reason::Unfoldable;
use super::staging::{Session, prepared};
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
        session: &Mutex<&mut Session>,
        before_merge: &(dyn Fn() -> Result<(), StreamError> + Sync),
    ) -> Result<Folded, FoldError> {
        if changed.iter().all(Option::is_none) {
            return Ok(Folded::default());
        }
        let rollup = quote_qualified(SCHEMA, &self.table);
        let delta = self.delta.as_str();
        self.create_delta(transaction, &rollup, session).await?;
        let mut statements = self.plan.delta(changed, delta, &rollup);
        if self.never_recomputes {
            statements.push(format!("UPDATE {delta} SET is_recomputed = false"));
        }
        statements.push(self.plan.count_delta(delta));
        let counted = run(transaction, session, &statements).await?;
        let groups = groups(&counted)?;
        if groups.impossible > 0 {
            return Err(FoldError::Unfoldable(Unfoldable::Impossible));
        }
        before_merge()?;
        if groups.all > 0 {
            let told = lock(session).tell(delta, groups.all);
            if let Some(sql) = told {
                transaction
                    .batch_execute(&sql)
                    .await
                    .map_err(StreamError::from)?;
            }
            let statements = self.merge(&rollup, &groups, session);
            run(transaction, session, &statements).await?;
        }
        Ok(Folded {
            groups: groups.all,
            recomputed: groups.recomputed,
        })
    }

    async fn create_delta(
        &self,
        transaction: &Transaction<'_>,
        rollup: &str,
        session: &Mutex<&mut Session>,
    ) -> Result<(), StreamError> {
        if lock(session).has(&self.delta) {
            return Ok(());
        }
        let sql = self.plan.create_delta(&self.delta, rollup);
        transaction.batch_execute(&sql).await?;
        lock(session).creates(&self.delta);
        Ok(())
    }

    /// The statements that bring the groups of the table of deltas into the rollup.
    fn merge(&self, rollup: &str, groups: &Groups, session: &Mutex<&mut Session>) -> Vec<String> {
        let delta = self.delta.as_str();
        let mut statements = vec![];
        if groups.recomputed > 0 {
            statements.push(self.plan.delete_recomputed(delta, rollup));
            statements.push(self.plan.insert_recomputed(delta, rollup));
        }
        statements.extend(self.plan.merge(groups, delta, rollup));
        statements.push(lock(session).empty(delta, groups.all));
        statements
    }
}

fn lock<'a, 'b>(session: &'a Mutex<&'b mut Session>) -> MutexGuard<'a, &'b mut Session> {
    // Nobody panics with it.
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the statements one after the other, in one round trip once they are planned. The answer is the last one's.
async fn run(
    transaction: &Transaction<'_>,
    session: &Mutex<&mut Session>,
    statements: &[String],
) -> Result<Vec<Row>, StreamError> {
    let statements = prepared(transaction, session, statements).await?;
    let runs = statements
        .iter()
        .map(|statement| transaction.query(statement, &[]));
    let mut answers = try_join_all(runs).await?;
    Ok(answers.pop().unwrap_or_default())
}

fn groups(counted: &[Row]) -> Result<Groups, StreamError> {
    let row = counted.first();
    let row = row.ok_or(StreamError::OutOfOrder("groups that were not counted"))?;
    let number =
        |at| -> Result<u64, StreamError> { Ok(row.try_get::<_, i64>(at)?.max(0).cast_unsigned()) };
    Ok(Groups {
        all: number(0)?,
        recomputed: number(1)?,
        emptied: number(2)?,
        kept: number(3)?,
        new: number(4)?,
        impossible: number(5)?,
    })
}
