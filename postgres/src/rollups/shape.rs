//! The shape of tables: which files and partitions their rows are in.
//!
//! Whatever changes a table's rows without a word in the change stream (TRUNCATE of one partition,
//! ATTACH, DETACH and DROP of one, a rewrite by ALTER TABLE) changes its shape. Unlike the catalog
//! rows' versions it stays the same when a privilege or an option is changed, which happens more often
//! than anybody wants to build a rollup again.

use std::collections::HashMap;

use pgstar_rewriter::catalog::Oid;
use tokio_postgres::{Client, Statement};

use crate::connect::Error;
use crate::replication::Lsn;

/// `xmin` of `pg_inherits` tells apart a partition that was detached and attached again. Whatever the
/// statement's snapshot sees was committed before the end of the log that it returns.
const QUESTION: &str = "
  WITH RECURSIVE member(root, oid, link) AS (
         SELECT r, r, 0::bigint FROM unnest($1::oid[]) AS r
          UNION ALL
         SELECT m.root, i.inhrelid, hash_record_extended(ROW(i.inhrelid, i.inhparent, i.xmin), 1)
           FROM member m JOIN pg_inherits i ON i.inhparent = m.oid),
       shape AS (
         SELECT m.root, bit_xor(m.link # hash_record_extended(
                  ROW(c.oid, c.relfilenode, c.relkind, c.relpersistence), 0)) AS hash
           FROM member m JOIN pg_class c ON c.oid = m.oid GROUP BY m.root)
  SELECT pg_current_wal_insert_lsn()::text, array_agg(root), array_agg(hash),
         (SELECT bit_xor(hash_record_extended(ROW(k.oid, k.xmin, k.convalidated), 2)) FROM pg_constraint k
           WHERE k.contype = 'f' AND k.conrelid IN (SELECT m.oid FROM member m))
    FROM shape";

/// What was seen of some tables at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    /// Every commit that was seen ends at or before this position.
    pub(crate) end: Lsn,
    /// Of each table that is there.
    shapes: HashMap<Oid, i64>,
    /// Of their foreign keys together.
    pub(crate) foreign_keys: i64,
}

impl Look {
    /// Whether nothing but the log's end is different.
    pub(crate) fn is_same(&self, other: &Look) -> bool {
        self.shapes == other.shapes && self.foreign_keys == other.foreign_keys
    }

    /// The shapes of these tables together, as text.
    pub(crate) fn of(&self, tables: &[Oid]) -> String {
        let mut tables: Vec<Oid> = tables.to_vec();
        tables.sort_unstable();
        tables.dedup();
        let shape = |table: &Oid| match self.shapes.get(table) {
            Some(hash) => format!("{}:{hash:x}", table.0),
            None => format!("{}:gone", table.0),
        };
        let shapes: Vec<String> = tables.iter().map(shape).collect();
        shapes.join(" ")
    }
}

/// What `Look::of` says of these tables, out of what it said of them and others.
pub(super) fn part(shape: &str, tables: &[Oid]) -> Option<String> {
    let of_table = |table: &Oid| {
        let mut shapes = shape.split(' ');
        let begins = format!("{}:", table.0);
        shapes.find(|shape| shape.starts_with(&begins))
    };
    let mut tables: Vec<Oid> = tables.to_vec();
    tables.sort_unstable();
    tables.dedup();
    let shapes: Option<Vec<&str>> = tables.iter().map(of_table).collect();
    Some(shapes?.join(" "))
}

/// Who looks at shapes again and again, which planning the question anew each time would dominate.
pub(crate) struct Looking<'a> {
    pub(crate) client: &'a Client,
    question: Statement,
}

impl<'a> Looking<'a> {
    pub(crate) async fn prepare(client: &'a Client) -> Result<Self, Error> {
        let question = client.prepare(QUESTION).await?;
        Ok(Looking { client, question })
    }

    /// Looks at these tables and everything below them.
    pub(crate) async fn look(&self, tables: &[Oid]) -> Result<Look, Error> {
        let tables: Vec<u32> = tables.iter().map(|table| table.0).collect();
        let row = self.client.query_one(&self.question, &[&tables]).await?;
        let end: &str = row.try_get(0)?;
        let roots: Option<Vec<u32>> = row.try_get(1)?;
        let hashes: Option<Vec<i64>> = row.try_get(2)?;
        let roots = roots.unwrap_or_default().into_iter().map(Oid);
        Ok(Look {
            // Not understood would mean never reached, which is the safe side.
            end: end.parse().unwrap_or(Lsn(u64::MAX)),
            shapes: roots.zip(hashes.unwrap_or_default()).collect(),
            foreign_keys: row.try_get::<_, Option<i64>>(3)?.unwrap_or_default(),
        })
    }
}

/// Looks once.
pub(crate) async fn look(client: &Client, tables: &[Oid]) -> Result<Look, Error> {
    Looking::prepare(client).await?.look(tables).await
}

/// The log's end, as text.
pub(crate) async fn log_end(client: &Client) -> Result<String, Error> {
    let sql = "SELECT pg_current_wal_insert_lsn()::text";
    Ok(client.query_one(sql, &[]).await?.try_get(0)?)
}
