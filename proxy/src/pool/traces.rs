//! What statements may run without naming it: functions behind operators, casts, views, policies and overloaded names.
//!
//! [`super::harmless`] reads the names that a statement calls. In a database where such a name, or an operator, may stand
//! for code of a user, or a view may change a setting, no backend is used twice. That is found out by PostgreSQL's
//! catalog, after the session has ended, and again whenever the catalog has changed in any of these respects.

use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Instant;

use tokio::sync::Mutex;
use tracing::info;

use super::accounts::{AccountError, Accounts};
use super::harmless::Functions;
use super::link::Link;

/// Changes whenever the answer to [`VERDICT_SQL`] might: rows of these catalogs that came after initdb.
pub(super) const STAMP_SQL: &str = "
SELECT pg_catalog.concat_ws(' ',
  (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_proc WHERE oid >= 16384),
  (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_rewrite WHERE oid >= 16384),
  (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_operator WHERE oid >= 16384),
  (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_cast WHERE oid >= 16384),
  (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_constraint WHERE contypid > 0),
  (SELECT pg_catalog.concat_ws('/', count(*), sum(xmin::text::bigint)) FROM pg_catalog.pg_policy))";

/// Whether no statement can run a user's code unseen: no function of a user (but for triggers, which a SELECT does not
/// fire) has a built-in one's name, stands behind another object or can be written like a column, as `row.function`; and no
/// view, policy or domain calls a built-in one that changes settings or runs a text. Functions in C count only where they have
/// a built-in one's name.
const VERDICT_SQL: &str = "
SELECT NOT EXISTS (
    SELECT FROM pg_catalog.pg_proc p
    WHERE p.oid >= 16384 AND p.prorettype NOT IN ('trigger'::pg_catalog.regtype, 'event_trigger'::pg_catalog.regtype)
      AND (EXISTS (SELECT FROM pg_catalog.pg_proc b WHERE b.proname = p.proname AND b.oid < 16384)
           OR p.prolang <> (SELECT l.oid FROM pg_catalog.pg_language l WHERE l.lanname = 'c')
              AND (EXISTS (SELECT FROM pg_catalog.pg_depend d
                           WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid = p.oid)
                   OR p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1
                      AND (p.provariadic <> 0
                           OR EXISTS (SELECT FROM pg_catalog.pg_type t
                                      WHERE t.oid = p.proargtypes[0] AND (t.typcategory = 'C' OR t.typtype = 'p'))))))
  AND NOT EXISTS (
    SELECT FROM (SELECT ev_action::text FROM pg_catalog.pg_rewrite WHERE oid >= 16384
                 UNION ALL SELECT pg_catalog.concat(polqual, polwithcheck) FROM pg_catalog.pg_policy
                 UNION ALL SELECT conbin::text FROM pg_catalog.pg_constraint WHERE contypid > 0) AS stored(tree)
    WHERE tree ~ (SELECT ':funcid (' || pg_catalog.string_agg(oid::text, '|') || ') ' FROM pg_catalog.pg_proc
                  WHERE oid < 16384 AND proname IN ('set_config', 'query_to_xml', 'query_to_xmlschema',
                        'query_to_xml_and_xmlschema', 'cursor_to_xml', 'ts_stat', 'ts_rewrite')))";

/// The names of built-in functions of which none is volatile.
const FUNCTIONS_SQL: &str = "
SELECT proname::text FROM pg_catalog.pg_proc
WHERE oid < 16384 AND pronamespace = 'pg_catalog'::pg_catalog.regnamespace
GROUP BY proname HAVING bool_and(provolatile <> 'v')";

/// What is known of the database's functions.
#[derive(Debug, Default)]
pub struct Traces {
    /// Sessions that ended while one asks wait here; the next asks for all of them.
    latest: Mutex<Option<Latest>>,
    functions: SyncMutex<Option<Arc<Functions>>>,
}

#[derive(Debug)]
struct Latest {
    asked_at: Instant,
    stamp: String,
    is_clear: bool,
}

impl Traces {
    /// The functions that change nothing; `None` until the first session has ended.
    pub fn functions(&self) -> Option<Arc<Functions>> {
        self.functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Learns the functions, unless they are known.
    ///
    /// # Errors
    /// PostgreSQL cannot be asked.
    pub async fn learn_functions(
        &self,
        accounts: &Accounts,
    ) -> Result<Arc<Functions>, AccountError> {
        if let Some(functions) = self.functions() {
            return Ok(functions);
        }
        let link = accounts.link().await?;
        let rows = link.connection.query(FUNCTIONS_SQL, &[]).await?;
        let name = |row: &tokio_postgres::Row| {
            let name: Result<String, _> = row.try_get(0);
            name.map(|name| name.into_bytes().into())
        };
        let functions: Functions = rows.iter().map(name).collect::<Result<_, _>>()?;
        let functions = Arc::new(functions);
        *self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&functions));
        Ok(functions)
    }

    /// Whether nothing that statements do not name can have run in a session that ended before this call.
    ///
    /// # Errors
    /// PostgreSQL cannot be asked.
    pub async fn are_none(&self, accounts: &Accounts) -> Result<bool, AccountError> {
        let ended_at = Instant::now();
        let mut latest = self.latest.lock().await;
        if let Some(latest) = latest.as_ref().filter(|latest| latest.asked_at > ended_at) {
            return Ok(latest.is_clear);
        }
        let link = accounts.link().await?;
        let asked_at = Instant::now();
        let stamp: String = link
            .connection
            .query_one(&link.stamp_traces, &[])
            .await?
            .try_get(0)?;
        let is_clear = match latest.as_ref() {
            Some(latest) if latest.stamp == stamp => latest.is_clear,
            _ => judge(&link).await?,
        };
        *latest = Some(Latest {
            asked_at,
            stamp,
            is_clear,
        });
        Ok(is_clear)
    }
}

async fn judge(link: &Link) -> Result<bool, AccountError> {
    let is_clear: bool = link
        .connection
        .query_one(VERDICT_SQL, &[])
        .await?
        .try_get(0)?;
    if !is_clear {
        info!(
            "Backends are not used again: functions, views or policies of the database may leave traces in a session."
        );
    }
    Ok(is_clear)
}
