//! Reads the log's end together with the shape of what is followed, in one round trip.
//!
//! Some things that change a table's rows are not in the stream: TRUNCATE of a single partition,
//! ATTACH and DETACH PARTITION, DROP, and types that are rewritten; nor is it seen there which columns traded names. And whoever alters the
//! publication silences it. All of them change rows of the catalog, so the statement that reads the
//! log's end reads those rows too: what was committed before the statement began is seen by its
//! snapshot, and its commit lies before the end that the statement returns.
//!
//! Each row carries the transaction that wrote it, so a set of (row, xmin) pairs never comes back once
//! it was left. What VACUUM and ANALYZE update in place keeps its xmin. Where nothing was committed since
//! they were read, they are not read again ([`crate::visible`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use pgstar_rewriter::catalog::Oid;
use tokio_postgres::{Client, Row, Statement};

use super::StreamOptions;
use super::tables::Followed;
use crate::connect::Error;
use crate::replication::Lsn;
use crate::visible::{Remembered, Shown, VISIBLE};

/// What changes whenever the catalog rows of anything followed do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    /// Of the publication and its members.
    pub(super) publication: Option<i64>,
    tables: Option<i64>,
    partitions: Option<i64>,
}

/// For each table that the stream reports, what changes whenever its catalog rows do.
pub(super) type Shapes = HashMap<Oid, i64>;

/// Asked for every proof: index look-ups, and the few values of enums.
fn question(log_end: &str) -> String {
    format!(
        "
  SELECT {log_end}()::text,
         (SELECT bit_xor(hash) FROM (
            SELECT hash_record_extended(ROW(c.oid, c.xmin), 0) AS hash
              FROM pg_class c WHERE c.oid = ANY ($2::oid[])
             UNION ALL
            SELECT hash_record_extended(ROW(e.oid, e.xmin), 2) FROM pg_enum e
             UNION ALL
            SELECT hash_record_extended(ROW(a.attrelid, a.attnum, a.xmin), 3)
              FROM pg_attribute a WHERE a.attrelid = ANY ($4::oid[]) AND a.attnum > 0) tables),
         (SELECT bit_xor(hash_record_extended(ROW(i.inhrelid, i.xmin), 0))
            FROM pg_inherits i WHERE i.inhparent = ANY ($3::oid[])),
         (SELECT bit_xor(hash) FROM (
            SELECT hash_record_extended(ROW(p.oid, p.xmin), 0) AS hash
              FROM pg_publication p WHERE p.pubname = $1
             UNION ALL
            SELECT hash_record_extended(ROW(r.oid, r.xmin), 1)
              FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid WHERE p.pubname = $1) publication),
         {VISIBLE}"
    )
}

/// The same where nothing was committed since the fingerprint was read.
fn short_question(log_end: &str) -> String {
    format!("SELECT {log_end}()::text, {VISIBLE}")
}

/// Asked when something changed, to find out what.
const SHAPES: &str = "
  WITH member AS (SELECT * FROM unnest($1::oid[], $2::oid[]) AS m(member, root))
  SELECT root, bit_xor(hash) FROM (
    SELECT m.root, hash_record_extended(ROW(c.oid, c.xmin), 0) AS hash
      FROM member m JOIN pg_class c ON c.oid = m.member
     UNION ALL
    SELECT m.root, hash_record_extended(ROW(i.inhrelid, i.xmin), 1)
      FROM member m JOIN pg_inherits i ON i.inhparent = m.member
     UNION ALL
    SELECT m.root, hash_record_extended(ROW(e.oid, e.xmin), 2)
      FROM member m JOIN pg_attribute a ON a.attrelid = m.root AND a.attnum > 0 AND a.atttypid >= 16384
      JOIN pg_type t ON t.oid = a.atttypid
      JOIN pg_enum e ON e.enumtypid = CASE t.typtype WHEN 'e' THEN t.oid WHEN 'd' THEN t.typbasetype ELSE t.typelem END
     WHERE m.root = m.member
     UNION ALL
    SELECT m.root, hash_record_extended(ROW(a.attrelid, a.attnum, a.xmin), 3)
      FROM member m JOIN pg_attribute a ON a.attrelid = m.root AND a.attnum > 0 WHERE m.root = m.member) shape
   GROUP BY root";

/// Prepared once for each connection and each set of partitions.
pub(super) struct Clock {
    statement: Statement,
    short: Statement,
    remembered: Remembered<Fingerprint>,
    publication: String,
    members: Vec<u32>,
    roots: Vec<u32>,
    parents: Vec<u32>,
    /// The tables under whose columns' names changes are reported.
    named: Vec<u32>,
}

impl Clock {
    pub(super) async fn prepare(client: &Client, options: &StreamOptions) -> Result<Self, Error> {
        let log_end = options.weakness.log_end();
        Ok(Clock {
            statement: client.prepare(&question(log_end)).await?,
            short: client.prepare(&short_question(log_end)).await?,
            remembered: Remembered::default(),
            publication: options.publication.clone(),
            members: vec![],
            roots: vec![],
            parents: vec![],
            named: vec![],
        })
    }

    /// From now on looks at these.
    pub(super) fn watch(&mut self, followed: &Followed) {
        let pairs = followed.reported_as.iter();
        (self.members, self.roots) = pairs.map(|(member, root)| (member.0, root.0)).unzip();
        self.parents = followed.parents.iter().map(|parent| parent.0).collect();
        self.named.clone_from(&self.roots);
        self.named.sort_unstable();
        self.named.dedup();
        self.remembered = Remembered::default();
    }

    pub(super) async fn read(&mut self, client: &Client) -> Result<(Lsn, Fingerprint), Error> {
        if self.remembered.is_calm() {
            let row = client.query_one(&self.short, &[]).await?;
            if let Some(fingerprint) = self.remembered.recall(row.try_get(1)?) {
                return Ok((log_end(&row)?, *fingerprint));
            }
        }
        let row = client
            .query_one(
                &self.statement,
                &[&self.publication, &self.members, &self.parents, &self.named],
            )
            .await?;
        let fingerprint = Fingerprint {
            tables: row.try_get(1)?,
            partitions: row.try_get(2)?,
            publication: row.try_get(3)?,
        };
        self.remembered.learn(row.try_get(4)?, fingerprint);
        Ok((log_end(&row)?, fingerprint))
    }

    /// The last reading, without the log's end: what it saw is what the fingerprint is of.
    pub(super) fn shown(&self, server: &Arc<str>, asked_at: Instant) -> Option<Shown<()>> {
        self.remembered.shown(server, asked_at).map(Shown::bare)
    }

    pub(super) async fn shapes(&self, client: &Client) -> Result<Shapes, Error> {
        let rows = client.query(SHAPES, &[&self.members, &self.roots]).await?;
        let shape = |row: &Row| Ok((Oid(row.try_get(0)?), row.try_get(1)?));
        rows.iter().map(shape).collect()
    }
}

fn log_end(row: &Row) -> Result<Lsn, Error> {
    let end: &str = row.try_get(0)?;
    // Not understood would mean never proven, which is the safe side.
    Ok(end.parse().unwrap_or(Lsn(u64::MAX)))
}
