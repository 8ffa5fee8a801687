//! Reads the log's end together with the shape of what is followed, in one round trip.
//!
//! Some things that change a table's rows are not in the stream: TRUNCATE of a single partition,
//! ATTACH and DETACH PARTITION, DROP, and types that are rewritten. And whoever alters the
//! publication silences it. All of them change rows of the catalog, so the statement that reads the
//! log's end reads those rows too: what was committed before the statement began is seen by its
//! snapshot, and its commit lies before the end that the statement returns.

use std::collections::HashMap;

use pgstar_rewriter::catalog::Oid;
use tokio_postgres::{Client, Row, Statement};

use super::PUBLICATION;
use super::tables::Followed;
use crate::connect::Error;
use crate::replication::Lsn;

/// One reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    /// The log's end.
    pub(super) end: Lsn,
    /// Changes whenever the publication or its membership does.
    pub(super) publication: Option<i64>,
    /// For each table that the stream reports, what changes whenever its catalog rows do.
    pub(super) shapes: HashMap<Oid, i64>,
}

/// The end of the log is a function of the mutant in tests; see `Weakness`.
fn question(log_end: &str) -> String {
    format!(
        "
  WITH member AS (SELECT * FROM unnest($2::oid[], $3::oid[]) AS m(member, root))
  SELECT {log_end}()::text,
         (SELECT bit_xor(hash) FROM (
            SELECT hash_record_extended(ROW(p.oid, p.xmin), 0) AS hash
              FROM pg_publication p WHERE p.pubname = $1
             UNION ALL
            SELECT hash_record_extended(ROW(r.oid, r.xmin), 1)
              FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid WHERE p.pubname = $1) publication),
         root, shape
    FROM (SELECT 1) once LEFT JOIN (
         SELECT root, bit_xor(hash) AS shape FROM (
            SELECT m.root, hash_record_extended(ROW(c.oid, c.xmin), 0) AS hash
              FROM member m JOIN pg_class c ON c.oid = m.member
             UNION ALL
            SELECT m.root, hash_record_extended(ROW(i.inhrelid, i.xmin), 1)
              FROM member m JOIN pg_inherits i ON i.inhparent = m.member) shapes
          GROUP BY root) shape ON true"
    )
}

/// Prepared once for each connection.
pub(super) struct Clock<'a> {
    client: &'a Client,
    statement: Statement,
}

impl<'a> Clock<'a> {
    pub(super) async fn prepare(client: &'a Client, log_end: &str) -> Result<Self, Error> {
        let statement = client.prepare(&question(log_end)).await?;
        Ok(Clock { client, statement })
    }

    pub(super) async fn read(&self, followed: &Followed) -> Result<Reading, Error> {
        let (members, roots): (Vec<u32>, Vec<u32>) = followed
            .reported_as
            .iter()
            .map(|(member, root)| (member.0, root.0))
            .unzip();
        let rows = self
            .client
            .query(&self.statement, &[&PUBLICATION, &members, &roots])
            .await?;
        reading(&rows)
    }
}

fn reading(rows: &[Row]) -> Result<Reading, Error> {
    let mut reading = Reading {
        end: Lsn(u64::MAX),
        publication: None,
        shapes: HashMap::new(),
    };
    for row in rows {
        let end: &str = row.try_get(0)?;
        // Not understood would mean never proven, which is the safe side.
        reading.end = end.parse().unwrap_or(Lsn(u64::MAX));
        reading.publication = row.try_get(1)?;
        if let (Some(root), Some(shape)) = (row.try_get::<_, Option<u32>>(2)?, row.try_get(3)?) {
            reading.shapes.insert(Oid(root), shape);
        }
    }
    Ok(reading)
}
