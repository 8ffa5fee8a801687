//! pgstar's own connections for logins and preambles: one for each of the threads that sessions run on, so that a question
//! and its answer stay on the thread of the session that waits for them.
//!
//! It must not know what the answers are for.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use pgstar_postgres::connect::{Connection, Connector};
use pgstar_postgres::visible::{Glimpse, LOG_END, Remembered, SERVER, VISIBLE};
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
    /// When the server began, and by when the connection was open.
    server: Arc<str>,
    open_since: Instant,
    /// Who asks meanwhile waits here, and the next asks for all of them.
    latest_mark: Mutex<LatestMark>,
}

#[derive(Debug, Default)]
struct LatestMark {
    /// When it was asked for last, and what came.
    told: Option<(Instant, Told)>,
    remembered: Remembered<Mark>,
}

#[derive(Debug, Clone)]
struct Told {
    mark: Mark,
    /// What the short question saw, if that was enough.
    glimpse: Option<Arc<Glimpse>>,
}

impl LatestMark {
    /// What was told to a question that was asked after this.
    fn told_since(&self, called_at: Instant) -> Option<&Told> {
        let (asked_at, told) = self.told.as_ref()?;
        (*asked_at > called_at).then_some(told)
    }
}

impl Link {
    /// The mark of an instant after the call.
    ///
    /// # Errors
    /// PostgreSQL cannot be asked.
    pub(super) async fn mark(&self) -> Result<Mark, AccountError> {
        let called_at = Instant::now();
        let mut latest = self.latest_mark.lock().await;
        if let Some(told) = latest.told_since(called_at) {
            return Ok(told.mark);
        }
        let asked_at = Instant::now();
        let told = match self.ask_shortly(&mut latest.remembered).await? {
            Some(told) => told,
            None => self.ask(&mut latest.remembered).await?,
        };
        let mark = told.mark;
        latest.told = Some((asked_at, told));
        Ok(mark)
    }

    /// The mark of an instant after the call, and what was seen then, if a short question tells that.
    ///
    /// # Errors
    /// PostgreSQL cannot be asked.
    pub(super) async fn glimpse(&self) -> Result<Option<(Mark, Arc<Glimpse>)>, AccountError> {
        let called_at = Instant::now();
        let mut latest = self.latest_mark.lock().await;
        if latest.told_since(called_at).is_none() {
            let asked_at = Instant::now();
            let told = self.ask_shortly(&mut latest.remembered).await?;
            latest.told = told.map(|told| (asked_at, told));
        }
        let told = latest.told_since(called_at);
        Ok(told.and_then(|told| Some((told.mark, told.glimpse.clone()?))))
    }

    /// The mark, if it is the one that was asked for last, and likely to be.
    async fn ask_shortly(
        &self,
        remembered: &mut Remembered<Mark>,
    ) -> Result<Option<Told>, AccountError> {
        if !remembered.is_calm() {
            return Ok(None);
        }
        let row = self.connection.query_one(&self.visible, &[]).await?;
        let (visible, log_end): (Option<&str>, Option<&str>) = (row.try_get(0)?, row.try_get(1)?);
        let Some(mark) = remembered.recall(visible).copied() else {
            return Ok(None);
        };
        let log_end = log_end.and_then(|log_end| log_end.parse().ok());
        let glimpse = visible.zip(log_end).map(|(visible, log_end)| {
            Arc::new(Glimpse {
                server: Arc::clone(&self.server),
                open_since: self.open_since,
                visible: visible.into(),
                log_end,
            })
        });
        Ok(Some(Told { mark, glimpse }))
    }

    async fn ask(&self, remembered: &mut Remembered<Mark>) -> Result<Told, AccountError> {
        let row = self.connection.query_one(&self.mark, &[]).await?;
        let mark = Mark(row.try_get(0)?);
        remembered.learn(row.try_get(1)?, mark);
        let glimpse = None;
        Ok(Told { mark, glimpse })
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
        let server: String = connection
            .query_one(&format!("SELECT {SERVER}"), &[])
            .await?
            .try_get(0)?;
        let fresh = Link {
            server: server.into(),
            open_since: Instant::now(),
            look_up: connection.prepare(&self.look_up_sql).await?,
            stamp_traces: connection.prepare(super::traces::STAMP_SQL).await?,
            mark: connection.prepare(&mark_sql()).await?,
            visible: connection
                .prepare(&format!("SELECT {VISIBLE}, {LOG_END}"))
                .await?,
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
