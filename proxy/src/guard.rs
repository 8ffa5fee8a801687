//! Whether what decisions rest on still holds: privileges, row security, keys and columns of the tables behind
//! the rollups, and which other relations have their names.
//!
//! The catalog is polled, and between a change of it and the next poll an answer could be given that
//! PostgreSQL would refuse. So every answer is preceded by one question to the server, shared by all
//! statements that wait at that moment: what was committed before the question began is seen by it.
//! Functions, operators, types and collations are left to the poll.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use pgstar_postgres::connect::{Connector, Error};
use pgstar_rewriter::catalog::Oid;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tracing::debug;

/// So many statements may wait for an answer; more wait to be counted.
const REQUESTS_MAX: usize = 4096;

/// How long to wait after the connection was lost.
const TROUBLE_PAUSE: Duration = Duration::from_millis(200);

/// No question of ours takes nearly as long as this on a server that is alive.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A value that is another one whenever something that is guarded has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    tables: Arc<[u32]>,
    hash: i64,
}

type Request = oneshot::Sender<Mark>;

/// Asks for marks.
pub struct Guard {
    tables: RwLock<Arc<[u32]>>,
    requests: mpsc::Sender<Request>,
    asked: Mutex<mpsc::Receiver<Request>>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("tables", &self.tables)
            .finish_non_exhaustive()
    }
}

/// Index look-ups, and the few rows of roles that have more or less than the privileges granted to them, and of
/// their members. Rows are compared by the transaction that
/// wrote them, those of `pg_class` by value: a TRUNCATE is no change of what is guarded.
const QUESTION: &str = "
  SELECT coalesce((SELECT bit_xor(hash_record_extended(ROW(c.oid, c.relname, c.relnamespace, c.relowner, c.relkind,
                            c.relacl::text, c.relrowsecurity, c.relforcerowsecurity, c.relhasrules), 0))
                     FROM pg_class c WHERE c.oid = ANY ($1::oid[])), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(c.oid, c.relname, c.relnamespace), 4))
                     FROM pg_class c WHERE c.relpersistence <> 't' AND c.relname IN (
                          SELECT b.relname FROM pg_class b WHERE b.oid = ANY ($1::oid[]))), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(n.oid, n.nspname, n.nspowner, n.nspacl::text), 0))
                     FROM pg_namespace n WHERE n.oid IN (
                          SELECT c.relnamespace FROM pg_class c WHERE c.oid = ANY ($1::oid[]))), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(a.attrelid, a.attnum, a.xmin), 0))
                     FROM pg_attribute a WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(k.oid, k.xmin), 1))
                     FROM pg_constraint k WHERE k.conrelid = ANY ($1::oid[])), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(i.indexrelid, i.xmin), 2))
                     FROM pg_index i WHERE i.indrelid = ANY ($1::oid[])), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(t.oid, t.tgenabled), 3))
                     FROM pg_trigger t WHERE t.tgrelid = ANY ($1::oid[]) AND t.tgconstraint <> 0), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(m.roleid, m.member, m.xmin), 0))
                     FROM pg_auth_members m), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(
                            ROW(r.oid, r.rolname, r.rolsuper, r.rolinherit, r.rolbypassrls), 0))
                     FROM pg_roles r WHERE r.rolsuper OR r.rolbypassrls OR NOT r.rolinherit), 0)";

/// Planned once, and always for a catalog with many tables.
const SESSION_SETTINGS: &str =
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off";

impl Guard {
    /// Guards nothing yet.
    pub fn new() -> Self {
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        Guard {
            tables: RwLock::new(Arc::from([])),
            requests,
            asked: Mutex::new(asked),
        }
    }

    /// From now on guards these tables; whether they are others than before.
    pub fn watch(&self, tables: BTreeSet<Oid>) -> bool {
        let wanted: Arc<[u32]> = tables.iter().map(|table| table.0).collect();
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let are_others = *tables != wanted;
        *tables = wanted;
        are_others
    }

    fn tables(&self) -> Arc<[u32]> {
        Arc::clone(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The mark of now, on a connection of the caller's.
    pub async fn look(&self, client: &Client) -> Result<Mark, Error> {
        let tables = self.tables();
        let row = client.query_one(QUESTION, &[&tables.to_vec()]).await?;
        Ok(Mark {
            tables,
            hash: row.try_get(0)?,
        })
    }

    /// The mark of an instant after the call; `None` when the server does not say in time.
    pub async fn ask(&self, deadline: Duration) -> Option<Mark> {
        let (tell, told) = oneshot::channel();
        let asking = async {
            self.requests.send(tell).await.ok()?;
            told.await.ok()
        };
        timeout(deadline, asking).await.ok().flatten()
    }

    /// Answers for as long as it is polled. Only one keeps it at a time.
    pub async fn keep(&self, connector: &Connector) {
        let mut asked = self.asked.lock().await;
        loop {
            if let Err(error) = self.answer(connector, &mut asked).await {
                debug!(%error, "The guard's connection was lost.");
            }
            // Whoever waits is told nothing, and the base tables answer.
            while asked.try_recv().is_ok() {}
            sleep(TROUBLE_PAUSE).await;
        }
    }

    async fn answer(
        &self,
        connector: &Connector,
        asked: &mut mpsc::Receiver<Request>,
    ) -> Result<(), Error> {
        let client = connector.connect().await?;
        client.batch_execute(SESSION_SETTINGS).await?;
        let statement = client.prepare(QUESTION).await?;
        loop {
            let mut waiting = vec![];
            asked.recv_many(&mut waiting, REQUESTS_MAX).await;
            let tables = self.tables();
            let parameter = tables.to_vec();
            let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&parameter];
            let asking = client.query_one(&statement, &parameters);
            let Ok(row) = timeout(ANSWER_TIMEOUT, asking).await else {
                return Ok(());
            };
            let hash = row?.try_get(0)?;
            for request in waiting {
                let tables = Arc::clone(&tables);
                // Whoever asked may have gone.
                let _ = request.send(Mark { tables, hash });
            }
        }
    }
}

impl Default for Guard {
    fn default() -> Self {
        Guard::new()
    }
}
