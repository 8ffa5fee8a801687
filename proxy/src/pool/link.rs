//! pgstar's own connections for logins and preambles: one for each of the threads that sessions run on, so that a question
//! and its answer stay on the thread of the session that waits for them.
//!
//! It must not know what the answers are for.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use pgstar_postgres::connect::{Connection, Connector};
use pgstar_postgres::visible::{Remembered, VISIBLE};
use tokio::sync::Mutex;
use tokio_postgres::Statement;

use super::accounts::AccountError;

/// Connections at a time; threads beyond that share them.
const LINKS_MAX: usize = 8;

/// Rows of the catalog on which it depends what a name means to a role, and which types there are: each row by the
/// transaction that wrote it, those of roles by value. Another value whenever one of them has changed.
fn mark_sql() -> String {
    format!(
        "
SELECT pg_catalog.bit_xor(hash), {VISIBLE} FROM (
  SELECT pg_catalog.hash_record_extended(ROW(oid, xmin), 1) FROM pg_catalog.pg_namespace
  UNION ALL SELECT pg_catalog.hash_record_extended(ROW(oid, rolname, rolsuper, rolinherit), 2) FROM pg_catalog.pg_roles
  UNION ALL SELECT pg_catalog.hash_record_extended(ROW(roleid, member, xmin), 3) FROM pg_catalog.pg_auth_members
  UNION ALL SELECT pg_catalog.hash_record_extended(ROW(oid, xmin), 4) FROM pg_catalog.pg_type WHERE typname = 'hstore'
  UNION ALL SELECT pg_catalog.hash_record_extended(ROW(oid, xmin), 5) FROM pg_catalog.pg_class
    WHERE oid IN ('pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_namespace'::pg_catalog.regclass)
  UNION ALL SELECT pg_catalog.hash_record_extended(ROW(oid, xmin), 6) FROM pg_catalog.pg_proc
    WHERE oid = 'pg_catalog.current_schema()'::pg_catalog.regprocedure
) AS marks(hash)"
    )
}

/// A state of the catalog in these respects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(i64);

/// A connection with its statements prepared.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) look_up: Statement,
    pub(super) stamp_traces: Statement,
    mark: Statement,
    visible: Statement,
    /// Who asks meanwhile waits here, and the next asks for all of them.
    latest_mark: Mutex<LatestMark>,
}

#[derive(Debug, Default)]
struct LatestMark {
    /// When it was asked for last, and what came.
    told: Option<(Instant, Mark)>,
    remembered: Remembered<Mark>,
}

impl Link {
    /// The mark of an instant after the call.
    ///
    /// # Errors
    /// PostgreSQL cannot be asked.
    pub(super) async fn mark(&self) -> Result<Mark, AccountError> {
        let called_at = Instant::now();
        let mut latest = self.latest_mark.lock().await;
        if let Some((asked_at, mark)) = latest.told
            && asked_at > called_at
        {
            return Ok(mark);
        }
        let asked_at = Instant::now();
        let mark = self.ask(&mut latest.remembered).await?;
        latest.told = Some((asked_at, mark));
        Ok(mark)
    }

    async fn ask(&self, remembered: &mut Remembered<Mark>) -> Result<Mark, AccountError> {
        if remembered.is_calm() {
            let row = self.connection.query_one(&self.visible, &[]).await?;
            if let Some(mark) = remembered.recall(row.try_get(0)?) {
                return Ok(*mark);
            }
        }
        let row = self.connection.query_one(&self.mark, &[]).await?;
        let mark = Mark(row.try_get(0)?);
        remembered.learn(row.try_get(1)?, mark);
        Ok(mark)
    }
}

/// The connections.
#[derive(Debug)]
pub(super) struct Links {
    connector: Connector,
    look_up_sql: String,
    links: [Mutex<Option<Arc<Link>>>; LINKS_MAX],
}

impl Links {
    pub(super) fn new(connector: Connector, look_up_sql: String) -> Self {
        Links {
            connector,
            look_up_sql,
            links: Default::default(),
        }
    }

    /// This thread's connection, opened again when it was lost.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(super) async fn link(&self) -> Result<Arc<Link>, AccountError> {
        // Held while connecting, so that a lost connection is replaced once.
        let mut link = self.links[own_slot()].lock().await;
        if let Some(link) = link.as_ref().filter(|link| !link.connection.is_closed()) {
            return Ok(Arc::clone(link));
        }
        let connection = self.connector.connect().await?;
        let fresh = Link {
            look_up: connection.prepare(&self.look_up_sql).await?,
            stamp_traces: connection.prepare(super::traces::STAMP_SQL).await?,
            mark: connection.prepare(&mark_sql()).await?,
            visible: connection.prepare(&format!("SELECT {VISIBLE}")).await?,
            latest_mark: Mutex::default(),
            connection,
        };
        let fresh = Arc::new(fresh);
        *link = Some(Arc::clone(&fresh));
        Ok(fresh)
    }
}

fn own_slot() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SLOT: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed) % LINKS_MAX);
    }
    SLOT.get()
}
