//! Between which keys of a dimension the rows of a fact lie that matter to an answer: yesterday's dashboards often name
//! the day in another table than the one that is loaded.
//!
//! The keys are asked for after the answer's tag was read. If a row of the dimension that matters is changed by a commit
//! that is later than the tag, the answer does not hold any more, whatever the keys are; if none is, they are the keys of
//! every state from the tag on.

use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use pgstar_postgres::connect::{Connection, Error};
use pgstar_rewriter::{ColumnRange, KeyRange};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::debug;

use super::kept::holds_in;
use super::prospect::Read;
use crate::follower::Positions;
use crate::warehouse::Warehouse;

/// Questions whose answers are remembered.
const KNOWN_MAX: u64 = 10_000;

/// An answer is not kept waiting for longer, and the server does not look for longer either.
const PATIENCE: Duration = Duration::from_millis(300);

/// A policy must not hide a key.
const SESSION_SETTINGS: &str = "
    SET row_security = off; SET statement_timeout = '250ms'; SET search_path = pg_catalog; SET jit = off;
    SET default_transaction_read_only = on";

/// The keys that were asked for.
pub(super) struct Keys {
    warehouse: Arc<Warehouse>,
    known: Cache<String, Known>,
    session: Mutex<Option<Connection>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// From before they were asked for.
    positions: Positions,
    /// The least and the greatest; `None` if that could not be found out.
    ends: Option<(i64, i64)>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    pub(super) fn new(warehouse: Arc<Warehouse>) -> Self {
        Keys {
            warehouse,
            known: Cache::builder().max_capacity(KNOWN_MAX).build(),
            session: Mutex::default(),
        }
    }

    /// The ranges outside of which nothing matters to an answer with this tag, which reads these.
    pub(super) async fn ranges(
        &self,
        ranges: &[KeyRange],
        positions: Positions,
        reads: &[Read],
    ) -> Vec<ColumnRange> {
        let mut found = vec![];
        for range in ranges {
            let mut sides = reads.iter();
            let dimension = sides.find(|read| read.table == range.keys_of);
            let Some(dimension) = dimension else {
                continue;
            };
            if let Some((low, high)) = self.ends(&range.sql, positions, dimension).await {
                found.push(ColumnRange {
                    table: range.table,
                    column: range.column.clone(),
                    ty: range.ty,
                    low,
                    high,
                });
            }
        }
        found
    }

    async fn ends(&self, sql: &str, positions: Positions, dimension: &Read) -> Option<(i64, i64)> {
        let follower = self.warehouse.follower();
        let known = self.known.get(sql);
        let holds = |known: &Known| holds_in(follower, known.positions, dimension, &[]);
        if let Some(known) = known.filter(holds) {
            return known.ends;
        }
        let asked = timeout(PATIENCE, self.ask(sql)).await;
        let ends = match asked {
            Ok(Ok(ends)) => ends,
            Ok(Err(error)) => {
                debug!(%error, "The keys of a dimension could not be asked for.");
                None
            }
            Err(_) => None,
        };
        self.known.insert(sql.to_owned(), Known { positions, ends });
        ends
    }

    /// `None` if it was another server that answered than the one that is followed.
    async fn ask(&self, sql: &str) -> Result<Option<(i64, i64)>, Error> {
        let mut session = self.session.lock().await;
        // Taken out, so that one that is given up half-way is not used again.
        let connection = match session.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => {
                let connection = self.warehouse.connector().connect().await?;
                connection.batch_execute(SESSION_SETTINGS).await?;
                connection
            }
        };
        let sql = format!(
            "SELECT ends.*, extract(epoch FROM pg_postmaster_start_time())::text FROM ({sql}) AS ends (low, high)"
        );
        let row = connection.query_one(&sql, &[]).await?;
        let (low, high): (Option<i64>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let server: String = row.try_get(2)?;
        let is_followed = self.warehouse.follower().is_about(&server);
        if is_followed {
            *session = Some(connection);
        }
        // Without keys nothing matters: a range that ends before it begins.
        let ends = (low.unwrap_or(1), high.unwrap_or(0));
        Ok(is_followed.then_some(ends))
    }
}
