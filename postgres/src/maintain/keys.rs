//! Which foreign keys are enforced, and since when that is known.

use std::collections::HashSet;

use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::FoldPlan;
use tokio_postgres::Client;

use super::state::snapshot;
use crate::rollups::shape;
use crate::stream::{Snapshot, StreamError};

/// Foreign keys as they were at one instant.
pub(super) struct EnforcedKeys {
    /// Referring table and columns, referenced table and columns.
    keys: HashSet<(Oid, Vec<String>, Oid, Vec<String>)>,
    /// The same as long as none of them was dropped or altered.
    pub(super) fingerprint: i64,
    /// They were enforced when this was taken, and everything that it sees obeys them.
    pub(super) since: Snapshot,
}

const QUESTION: &str = "
  SELECT k.conrelid, k.confrelid,
         ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u(number, position)
                 JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number ORDER BY u.position),
         ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u(number, position)
                 JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number ORDER BY u.position)
    FROM pg_constraint k
   WHERE k.contype = 'f' AND k.convalidated AND NOT k.condeferrable AND k.conrelid = ANY ($1)";

impl EnforcedKeys {
    /// Looks at these tables. The same fingerprint before and after shows that nothing changed between,
    /// so that the snapshot, which is taken between, saw what the answer says.
    pub(super) async fn read(client: &Client, tables: &[Oid]) -> Result<Self, StreamError> {
        let oids: Vec<u32> = tables.iter().map(|table| table.0).collect();
        loop {
            let before = shape::look(client, tables).await?.foreign_keys;
            let since: String = client
                .query_one("SELECT pg_current_snapshot()::text", &[])
                .await?
                .try_get(0)?;
            let rows = client.query(QUESTION, &[&oids]).await?;
            let after = shape::look(client, tables).await?.foreign_keys;
            if before != after {
                continue;
            }
            let mut keys = HashSet::new();
            for row in &rows {
                let (from, to) = (Oid(row.try_get(0)?), Oid(row.try_get(1)?));
                keys.insert((from, row.try_get(2)?, to, row.try_get(3)?));
            }
            return Ok(EnforcedKeys {
                keys,
                fingerprint: after,
                since: snapshot(&since)?,
            });
        }
    }

    /// Whether the key that the plan relies on at this occurrence is one of them.
    pub(super) fn enforce(&self, plan: &FoldPlan, at: usize) -> bool {
        let found = || {
            let occurrence = plan.occurrences.get(at)?;
            let key = occurrence.referenced.as_ref()?;
            let referring = plan.occurrences.get(key.by)?.relation;
            Some((
                referring,
                key.referring_columns.clone(),
                occurrence.relation,
                key.columns.clone(),
            ))
        };
        // A constraint may list its columns in any order; one that is not recognised is not relied on.
        found().is_some_and(|key| self.keys.contains(&key))
    }
}
