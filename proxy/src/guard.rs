//! Whether what decisions rest on still holds: privileges, row security, keys, columns and definitions of the
//! relations that a statement names or its rollups are built from, which other relations have their names,
//! and what users have defined that could be meant instead of something built in.
//!
//! The catalog is polled, and between a change of it and the next poll an answer could be given that
//! PostgreSQL would refuse or give otherwise. So every answer is preceded by one question to the server, shared
//! by all statements that wait at that moment: what was committed before the question began is seen by it.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use pgstar_postgres::connect::{Connector, Error};
use pgstar_postgres::visible::{Glimpse, Remembered, SERVER, Shown, VISIBLE};
use pgstar_rewriter::catalog::Oid;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_postgres::{Client, Row, Statement};
use tracing::debug;

/// So many statements may wait for an answer; more wait to be counted.
const REQUESTS_MAX: usize = 4096;

/// How long to wait after the connection was lost.
const TROUBLE_PAUSE: Duration = Duration::from_millis(200);

/// No question of ours takes nearly as long as this on a server that is alive.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Values of which one is another whenever something that is guarded has changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mark {
    /// Of roles, and of what users have defined.
    common: i64,
    /// Of each relation.
    relations: HashMap<u32, i64>,
}

impl Mark {
    fn has<'a>(&self, mut relations: impl Iterator<Item = &'a u32>) -> bool {
        relations.all(|relation| self.relations.contains_key(relation))
    }

    /// Whether nothing that concerns these relations has changed from one mark to the other. No is the answer
    /// about a relation that is in neither.
    pub fn is_same_for(&self, other: &Mark, relations: &[Oid]) -> bool {
        let is_same = |relation: &Oid| {
            let mine = self.relations.get(&relation.0);
            mine.is_some() && mine == other.relations.get(&relation.0)
        };
        self.common == other.common && relations.iter().all(is_same)
    }
}

struct Request {
    relations: Vec<Oid>,
    tell: oneshot::Sender<Arc<Mark>>,
}

/// Asks for marks.
pub struct Guard {
    relations: RwLock<Arc<[u32]>>,
    requests: mpsc::Sender<Request>,
    asked: Mutex<mpsc::Receiver<Request>>,
    /// The last answer.
    shown: RwLock<Option<Shown<Arc<Mark>>>>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("relations", &self.relations)
            .finish_non_exhaustive()
    }
}

/// Index look-ups, and the few rows of roles that have more or less than the privileges granted to them, of
/// their members, and of what users have defined. Rows are compared by the transaction that
/// wrote them, those of `pg_class` by value: a TRUNCATE is no change of what is guarded.
fn question() -> String {
    format!(
        "
  SELECT 0::oid,
         coalesce((SELECT bit_xor(hash_record_extended(ROW(m.roleid, m.member, m.xmin), 0))
                     FROM pg_auth_members m), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(
                            ROW(r.oid, r.rolname, r.rolsuper, r.rolinherit, r.rolbypassrls), 0))
                     FROM pg_roles r WHERE r.rolsuper OR r.rolbypassrls OR NOT r.rolinherit), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(p.oid, p.xmin), 1))
                     FROM pg_proc p WHERE p.oid >= 16384), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(o.oid, o.xmin), 2))
                     FROM pg_operator o WHERE o.oid >= 16384), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(e.oid, e.xmin), 3)) FROM pg_enum e), 0),
         {VISIBLE}
   UNION ALL
  SELECT g.oid,
         coalesce((SELECT hash_record_extended(ROW(c.oid, c.relname, c.relnamespace, c.relowner, c.relkind,
                            c.relacl::text, c.relrowsecurity, c.relforcerowsecurity, c.relhasrules,
                            n.oid, n.nspname, n.nspowner, n.nspacl::text), 0)
                     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = g.oid), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(c.oid, c.relname, c.relnamespace), 4))
                     FROM pg_class c WHERE c.relpersistence <> 't' AND c.relname = (
                          SELECT b.relname FROM pg_class b WHERE b.oid = g.oid)), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(a.attnum, a.xmin), 0))
                     FROM pg_attribute a WHERE a.attrelid = g.oid AND a.attnum > 0), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(k.oid, k.xmin), 1))
                     FROM pg_constraint k WHERE k.conrelid = g.oid), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(i.indexrelid, i.xmin), 2))
                     FROM pg_index i WHERE i.indrelid = g.oid), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(t.oid, t.tgenabled), 3))
                     FROM pg_trigger t WHERE t.tgrelid = g.oid AND t.tgconstraint <> 0), 0)
       # coalesce((SELECT bit_xor(hash_record_extended(ROW(w.oid, w.xmin), 5))
                     FROM pg_rewrite w WHERE w.ev_class = g.oid), 0),
         NULL
    FROM unnest($1::oid[]) AS g(oid)"
    )
}

/// Planned once, and always for a catalog with many tables.
const SESSION_SETTINGS: &str =
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off";

impl Guard {
    /// Guards nothing yet.
    pub fn new() -> Self {
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        Guard {
            relations: RwLock::new(Arc::from([])),
            requests,
            asked: Mutex::new(asked),
            shown: RwLock::default(),
        }
    }

    /// From now on [`look`](Self::look) is about these relations; whether they are others than before.
    pub fn watch(&self, relations: &BTreeSet<Oid>) -> bool {
        let wanted: Arc<[u32]> = relations.iter().map(|relation| relation.0).collect();
        let mut relations = self
            .relations
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let are_others = *relations != wanted;
        *relations = wanted;
        are_others
    }

    /// The mark of now, on a connection of the caller's.
    pub async fn look(&self, client: &Client) -> Result<Mark, Error> {
        let relations = Arc::clone(
            &self
                .relations
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let rows = client.query(&question(), &[&relations.to_vec()]).await?;
        Ok(mark(&rows)?.0)
    }

    /// The mark of these relations at the instant of the glimpse, if the last answer was about them and still holds then.
    pub fn recall(&self, relations: &[Oid], glimpse: &Glimpse) -> Option<Arc<Mark>> {
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        let mark = shown.as_ref()?.recall(glimpse)?;
        mark.has(relations.iter().map(|relation| &relation.0))
            .then(|| Arc::clone(mark))
    }

    /// The mark of these relations at an instant after the call; `None` when the server does not say in time.
    pub async fn ask(&self, relations: Vec<Oid>, deadline: Duration) -> Option<Arc<Mark>> {
        let (tell, told) = oneshot::channel();
        let asking = async {
            self.requests.send(Request { relations, tell }).await.ok()?;
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
        let server: String = client
            .query_one(&format!("SELECT {SERVER}"), &[])
            .await?
            .try_get(0)?;
        let server = Arc::from(server);
        let mut asking = Asking {
            question: client.prepare(&question()).await?,
            visible: client.prepare(&format!("SELECT {VISIBLE}")).await?,
            client: &client,
            remembered: Remembered::default(),
        };
        loop {
            let mut waiting = vec![];
            asked.recv_many(&mut waiting, REQUESTS_MAX).await;
            let relations: BTreeSet<u32> = waiting
                .iter()
                .flat_map(|request| request.relations.iter().map(|relation| relation.0))
                .collect();
            let asked_at = Instant::now();
            let Ok(mark) = timeout(ANSWER_TIMEOUT, asking.ask(relations)).await else {
                return Ok(());
            };
            let mark = mark?;
            let shown = asking.remembered.shown(&server, asked_at);
            *self.shown.write().unwrap_or_else(PoisonError::into_inner) = shown;
            for request in waiting {
                // Whoever asked may have gone.
                let _ = request.tell.send(Arc::clone(&mark));
            }
        }
    }
}

/// The connection that the guard asks on.
struct Asking<'a> {
    client: &'a Client,
    question: Statement,
    visible: Statement,
    remembered: Remembered<Arc<Mark>>,
}

impl Asking<'_> {
    /// The mark of now, of these relations at least.
    async fn ask(
        &mut self,
        mut relations: BTreeSet<u32>,
    ) -> Result<Arc<Mark>, tokio_postgres::Error> {
        if self.remembered.is_calm() {
            let row = self.client.query_one(&self.visible, &[]).await?;
            match self.remembered.recall(row.try_get(0)?) {
                Some(mark) if mark.has(relations.iter()) => return Ok(Arc::clone(mark)),
                Some(mark) => relations.extend(mark.relations.keys()),
                None => {}
            }
        }
        let relations: Vec<u32> = relations.into_iter().collect();
        let rows = self.client.query(&self.question, &[&relations]).await?;
        let (mark, visible) = mark(&rows)?;
        let mark = Arc::new(mark);
        self.remembered.learn(visible.as_deref(), Arc::clone(&mark));
        Ok(mark)
    }
}

/// The mark in the rows of the question, and what it saw.
fn mark(rows: &[Row]) -> Result<(Mark, Option<String>), tokio_postgres::Error> {
    let (mut mark, mut visible) = (Mark::default(), None);
    for row in rows {
        match row.try_get(0)? {
            0 => {
                mark.common = row.try_get(1)?;
                visible = row.try_get(2)?;
            }
            relation => {
                mark.relations.insert(relation, row.try_get(1)?);
            }
        }
    }
    Ok((mark, visible))
}

impl Default for Guard {
    fn default() -> Self {
        Guard::new()
    }
}
