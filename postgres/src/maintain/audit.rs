//! Looks whether a rollup is what its definition says: computes a range of its groups again, and compares.
//!
//! Both sides are read in one transaction of one snapshot. The rollup's table equals the definition at the snapshot
//! that is recorded with it; so the comparison says something only if nothing was committed to the base tables in
//! between. That is known before the expensive part: the log's end is read right after the snapshot was taken, and
//! the stream says whether everything up to it is in the rollup. If not, another snapshot is tried.

use std::time::Duration;

use pgstar_rewriter::{quote_identifier, quote_qualified};
use tokio::time::{Instant, sleep};
use tokio_postgres::{IsolationLevel, Transaction};

use super::state::{Questions, Recorded};
use super::{MaintainError, MaintainPlan};
use crate::connect::Connection;
use crate::rollups::SCHEMA;
use crate::stream::{ChangeStream, Contents, StreamError};

/// How often a snapshot is tried that the rollup may be at.
const SNAPSHOTS_MAX: u32 = 50;
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(20);

/// How long the proof may take that decides about a snapshot.
const PROOF_DEADLINE: Duration = Duration::from_secs(1);

/// How a comparison came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audit {
    /// These many groups are as they should be.
    Equal {
        /// How many.
        groups: u64,
        /// How long their computation took.
        took: Duration,
    },
    /// It could not be seen, for this reason.
    Inconclusive(String),
    /// Groups are not what they should be.
    Different {
        /// The rollup's table.
        table: String,
        /// Which, and how many.
        detail: String,
    },
}

/// Compares a random range of the rollup. `chance` is any number; `timeout` bounds the computation.
pub(super) async fn audit(
    client: &mut Connection,
    stream: &ChangeStream,
    plan: &MaintainPlan,
    chance: u64,
    timeout: Duration,
) -> Result<Audit, MaintainError> {
    let questions = Questions::prepare(client)
        .await
        .map_err(StreamError::from)?;
    let timeout = format!(
        "SET statement_timeout = {}; SET lock_timeout = '2s'; SET row_security = off; SET search_path = pg_catalog",
        timeout.as_millis()
    );
    client
        .batch_execute(&timeout)
        .await
        .map_err(StreamError::from)?;
    for _ in 0..SNAPSHOTS_MAX {
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await
            .map_err(StreamError::from)?;
        let state = questions.ask(&transaction).await?;
        let is_its = |recorded: &&Recorded| {
            recorded.name == plan.build.name && recorded.fingerprint == plan.build.fingerprint
        };
        let Some(recorded) = state.rollups.iter().find(is_its) else {
            return Ok(Audit::Inconclusive("it is not built".to_owned()));
        };
        let contents = match (&recorded.own, &state.clock) {
            (Some(own), _) => own.clone(),
            (None, Some(clock)) => clock.contents.clone(),
            (None, None) => return Ok(Audit::Inconclusive("it is not maintained".to_owned())),
        };
        if is_at(stream, plan, &contents).await {
            let compared = compare(&transaction, plan, &recorded.table, chance).await;
            return Ok(compared.unwrap_or_else(|error| {
                let error = crate::connect::Reported(&error).to_string();
                Audit::Inconclusive(error)
            }));
        }
        transaction.rollback().await.map_err(StreamError::from)?;
        sleep(SNAPSHOT_PAUSE).await;
    }
    Ok(Audit::Inconclusive(
        "its tables change all the time".to_owned(),
    ))
}

/// Whether everything that a snapshot sees that was taken just now is in the contents.
async fn is_at(stream: &ChangeStream, plan: &MaintainPlan, contents: &Contents) -> bool {
    let Ok((_, end)) = stream.prove_up_to(None, PROOF_DEADLINE).await else {
        return false;
    };
    let bases = &plan.build.base_relations;
    stream.shared().are_in(contents, bases, end)
}

async fn compare(
    transaction: &Transaction<'_>,
    plan: &MaintainPlan,
    table: &str,
    chance: u64,
) -> Result<Audit, tokio_postgres::Error> {
    let begun = Instant::now();
    let kept = quote_qualified(SCHEMA, table);
    let range = range(transaction, plan, table, &kept, chance).await?;
    let columns = plan.fold.compared_columns().join(", ");
    let select = &plan.build.select;
    // Keys are compared as values, of which one may be printed in several ways; measures as they are printed.
    let sql = format!(
        "WITH computed AS (SELECT {columns} FROM ({select}) AS computed WHERE {range}),
              kept AS (SELECT {columns} FROM {kept} WHERE {range})
         SELECT (SELECT count(*) FROM kept),
                (SELECT count(*) FROM (SELECT * FROM computed EXCEPT ALL SELECT * FROM kept) missing),
                (SELECT count(*) FROM (SELECT * FROM kept EXCEPT ALL SELECT * FROM computed) extra)"
    );
    let row = transaction.query_one(&sql, &[]).await?;
    let count = |at: usize| -> Result<i64, tokio_postgres::Error> { row.try_get(at) };
    let (groups, missing, extra) = (count(0)?, count(1)?, count(2)?);
    if (missing, extra) == (0, 0) {
        return Ok(Audit::Equal {
            groups: groups.max(0).cast_unsigned(),
            took: begun.elapsed(),
        });
    }
    Ok(Audit::Different {
        table: table.to_owned(),
        detail: format!("{missing} groups are missing and {extra} are wrong where {range}"),
    })
}

/// A condition on one key: between a value that is there and the next one, so that groups that are missing in
/// between are noticed. Everything where there are no keys, or no rows.
async fn range(
    transaction: &Transaction<'_>,
    plan: &MaintainPlan,
    table: &str,
    kept: &str,
    chance: u64,
) -> Result<String, tokio_postgres::Error> {
    let keys = &plan.build.key_columns;
    let count = u64::try_from(keys.len()).unwrap_or(1).max(1);
    let Some(key) = keys.get(usize::try_from(chance % count).unwrap_or(0)) else {
        return Ok("true".to_owned());
    };
    let column = quote_identifier(key);
    let sql = "SELECT format_type(a.atttypid, a.atttypmod), greatest(c.relpages, 1)::int8
                 FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = $1 AND c.relname = $2 AND a.attname = $3";
    let row = transaction.query_one(sql, &[&SCHEMA, &table, key]).await?;
    let (ty, pages): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
    let page = (chance / count) % pages.max(1).cast_unsigned();
    let next = page + 1;
    // A page may have lost all of its rows; then the first row will do.
    let sql = format!(
        "WITH page AS (SELECT {column} AS key FROM {kept}
                        WHERE ctid >= '({page},0)'::tid AND ctid < '({next},0)'::tid ORDER BY random() LIMIT 1),
              found AS ((TABLE page) UNION ALL (SELECT {column} FROM {kept} WHERE NOT EXISTS (TABLE page) LIMIT 1))
         SELECT quote_literal(found.key::text),
                (SELECT quote_literal(k.{column}::text) FROM {kept} k WHERE k.{column} > found.key
                  ORDER BY k.{column} LIMIT 1)
           FROM found"
    );
    let row = transaction.query_opt(&sql, &[]).await?;
    let Some(row) = row else {
        return Ok("true".to_owned());
    };
    let (first, next): (Option<String>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
    Ok(match (first, next) {
        (None, _) => format!("{column} IS NULL"),
        (Some(first), None) => format!("{column} >= {first}::{ty}"),
        (Some(first), Some(next)) => {
            format!("{column} >= {first}::{ty} AND {column} <= {next}::{ty}")
        }
    })
}
