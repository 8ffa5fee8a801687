//! The shape of tables: which files and partitions their rows are in.
//!
//! Whatever changes a table's rows without a word in the change stream (TRUNCATE of one partition,
//! ATTACH, DETACH and DROP of one, a rewrite by ALTER TABLE), or what the stream's words mean (the label of an enum's
//! value, the replica identity of a partition, the name of a column) or which table is read under its name, changes its shape.
//! Columns may trade names and get them back, which only the versions of their own rows tell. Unlike the other catalog
//! rows' versions it stays the same when a privilege or an option is changed, which happens more often
//! than anybody wants to build a rollup again.
//!
//! As text it is `table:hash` for each table, followed by `/meaning,meaning…`, one for each column and each label of an enum:
//! one more leaves everything as it was, and so does a column that is dropped; who reads it notices.

use std::collections::HashMap;

use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::FoldOccurrence;
use pgstar_rewriter::quote_qualified;
use tokio_postgres::{Client, Row, Statement};

use crate::connect::Error;
use crate::replication::Lsn;

/// `xmin` of `pg_inherits` tells apart a partition that was detached and attached again. Whatever the
/// statement's snapshot sees was committed before the end of the log that it returns. Changes of a partition are
/// reported as those of its partitioned table, with whatever old row its own replica identity leaves and as if it
/// were the partitioned table's.
const QUESTION: &str = "
  WITH RECURSIVE member(root, oid, link) AS (
         SELECT r, r, 0::bigint FROM unnest($1::oid[]) AS r
          UNION ALL
         SELECT m.root, i.inhrelid, hash_record_extended(ROW(i.inhrelid, i.inhparent, i.xmin), 1)
           FROM member m JOIN pg_inherits i ON i.inhparent = m.oid),
       shape AS (
         SELECT m.root, bit_xor(m.link # hash_record_extended(
                  ROW(c.oid, c.relfilenode, c.relkind, c.relpersistence,
                      CASE WHEN c.oid = m.root THEN format('%I.%I', n.nspname, c.relname) END,
                      CASE WHEN c.relkind = 'p' OR c.oid <> m.root THEN c.relreplident END,
                      CASE WHEN c.relreplident = 'i' AND c.oid <> m.root THEN
                           (SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident) END), 0)) AS hash,
                min(format('%I.%I', n.nspname, c.relname)) FILTER (
                  WHERE c.relkind = 'r' AND c.oid <> m.root AND c.relreplident <> 'f'
                    AND r.relreplident <> 'n' AND c.relreplident <> r.relreplident) AS differs
           FROM member m JOIN pg_class c ON c.oid = m.oid JOIN pg_namespace n ON n.oid = c.relnamespace
           JOIN pg_class r ON r.oid = m.root GROUP BY m.root),
       label AS (
         SELECT a.attrelid, string_agg(DISTINCT to_hex(hashtextextended(e.enumlabel, e.oid::bigint)), ',') AS labels
           FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
           JOIN pg_enum e ON e.enumtypid = CASE t.typtype WHEN 'e' THEN t.oid WHEN 'd' THEN t.typbasetype ELSE t.typelem END
          WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND a.atttypid >= 16384 GROUP BY a.attrelid)
  SELECT pg_current_wal_insert_lsn()::text, s.root, s.hash, n.nspname::text, c.relname::text, s.differs, l.labels,
         ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = s.root AND a.attnotnull AND a.attnum > 0),
         (SELECT bit_xor(hash_record_extended(ROW(k.oid, k.xmin, k.convalidated), 2))
            FROM (SELECT DISTINCT oid FROM member) AS m JOIN pg_constraint k ON k.conrelid = m.oid WHERE k.contype = 'f'),
         pg_current_wal_flush_lsn()::text,
         (SELECT string_agg(a.attnum || CASE WHEN a.attisdropped THEN '!'
                   ELSE '=' || to_hex(hash_record_extended(ROW(a.attname, a.xmin), 3)) END, ',')
            FROM pg_attribute a WHERE a.attrelid = s.root AND a.attnum > 0)
    FROM (SELECT) AS one LEFT JOIN (
         shape s JOIN pg_class c ON c.oid = s.root JOIN pg_namespace n ON n.oid = c.relnamespace
           LEFT JOIN label l ON l.attrelid = s.root) ON true";

/// What was seen of some tables at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Look {
    /// Every commit that was seen ends at or before this position.
    pub(crate) end: Lsn,
    /// Up to where the log was on the disk: what is behind it will not be streamed before somebody flushes it.
    pub(crate) flushed: Lsn,
    /// Of each table that is there.
    shapes: HashMap<Oid, Shape>,
    /// Of their foreign keys together.
    pub(crate) foreign_keys: i64,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    /// Qualified and quoted.
    name: String,
    hash: i64,
    /// A partition whose old rows are not what the stream says they are.
    misreported: Option<String>,
    /// Each stands for one column and its name, or for one value of an enum and its label, sorted.
    meanings: Vec<String>,
    /// The names of columns.
    not_null: Vec<String>,
}

impl Look {
    fn of_rows(rows: &[Row]) -> Result<Self, tokio_postgres::Error> {
        let mut look = Look {
            // Not understood would mean never reached, which is the safe side.
            end: Lsn(u64::MAX),
            flushed: Lsn(0),
            shapes: HashMap::new(),
            foreign_keys: 0,
        };
        for row in rows {
            let end: &str = row.try_get(0)?;
            look.end = end.parse().unwrap_or(Lsn(u64::MAX));
            let flushed: &str = row.try_get(9)?;
            look.flushed = flushed.parse().unwrap_or(Lsn(0));
            let Some(root) = row.try_get(1)? else {
                continue;
            };
            let (labels, columns): (Option<&str>, Option<&str>) =
                (row.try_get(6)?, row.try_get(10)?);
            let meanings = [labels, columns].map(Option::unwrap_or_default);
            let meanings = meanings.iter().flat_map(|some| some.split(','));
            let meanings = meanings.filter(|meaning| !meaning.is_empty());
            let mut meanings: Vec<String> = meanings.map(str::to_owned).collect();
            meanings.sort_unstable();
            let shape = Shape {
                name: quote_qualified(row.try_get(3)?, row.try_get(4)?),
                hash: row.try_get(2)?,
                misreported: row.try_get(5)?,
                meanings,
                not_null: row.try_get(7)?,
            };
            look.shapes.insert(Oid(root), shape);
            look.foreign_keys = row.try_get::<_, Option<i64>>(8)?.unwrap_or_default();
        }
        Ok(look)
    }

    /// Whether this was the table's name.
    pub(crate) fn is_named(&self, table: Oid, schema: &str, name: &str) -> bool {
        let shape = self.shapes.get(&table);
        shape.is_some_and(|shape| shape.name == quote_qualified(schema, name))
    }

    /// Whether the table still has its name, and NULL in no column that is taken to have none. One that is gone may be
    /// anything.
    pub(crate) fn is_as_planned(&self, planned: &FoldOccurrence) -> bool {
        self.shapes.get(&planned.relation).is_none_or(|shape| {
            let mut not_null = planned.not_null.iter();
            shape.name == planned.table() && not_null.all(|name| shape.not_null.contains(name))
        })
    }

    /// A partition of the table whose replica identity says less than the table's own: the stream has old rows of which
    /// some values are missing, and no sign of it.
    pub(crate) fn misreported(&self, table: Oid) -> Option<&str> {
        self.shapes.get(&table)?.misreported.as_deref()
    }

    /// Whether a table that was read when the shapes of these tables were the recorded ones needs nothing but what the
    /// stream says.
    pub(crate) fn continues(&self, recorded: &str, tables: &[Oid]) -> bool {
        let present = self.of(tables);
        let (present, recorded): (Vec<_>, Vec<_>) =
            (present.split(' ').collect(), recorded.split(' ').collect());
        let has = |meaning: &str, of: &str| of.split(',').any(|other| other == meaning);
        let has_dropped = |meaning: &str, of: &str| {
            let column = meaning.split_once('=');
            column.is_some_and(|(column, _)| has(&format!("{column}!"), of))
        };
        let has_all = |meanings: &str, of: &str| {
            let mut all = meanings.split(',');
            all.all(|meaning| has(meaning, of) || has_dropped(meaning, of))
        };
        let continues = |present: &str, recorded: &str| match recorded.split_once('/') {
            None => present.split('/').next() == Some(recorded),
            Some((recorded, meanings)) => present
                .split_once('/')
                .is_some_and(|(present, of)| present == recorded && has_all(meanings, of)),
        };
        let mut pairs = present.iter().zip(&recorded);
        present.len() == recorded.len()
            && pairs.all(|(present, recorded)| continues(present, recorded))
    }

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
            Some(shape) => {
                let meanings = match shape.meanings.is_empty() {
                    true => String::new(),
                    false => format!("/{}", shape.meanings.join(",")),
                };
                format!("{}:{:x}{meanings}", table.0, shape.hash)
            }
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

/// For a session that asks short questions about the catalog, again and again. The planner takes an array for ten tables and
/// reads all of `pg_class` for them, and plans anew each time.
pub(crate) const LOOKING_SETTINGS: &str = "
    SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off";

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
        let rows = self.client.query(&self.question, &[&tables]).await?;
        Ok(Look::of_rows(&rows)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn look(meanings: &[&str]) -> Look {
        let shape = |meanings: &[&str]| Shape {
            name: "\"s\".\"t\"".to_owned(),
            hash: 10,
            misreported: None,
            meanings: meanings.iter().map(|one| (*one).to_owned()).collect(),
            not_null: vec![],
        };
        Look {
            end: Lsn(1),
            flushed: Lsn(1),
            shapes: HashMap::from([(Oid(1), shape(&[])), (Oid(2), shape(meanings))]),
            foreign_keys: 0,
        }
    }

    #[test]
    fn a_label_more_changes_nothing_and_a_label_less_does() {
        let tables = [Oid(2), Oid(1)];
        let recorded = look(&["a", "b"]).of(&tables);
        assert_eq!(recorded, "1:a 2:a/a,b");
        assert!(look(&["a", "b"]).continues(&recorded, &tables));
        assert!(look(&["a", "aa", "b"]).continues(&recorded, &tables));
        for labels in [&["a"][..], &["a", "bb"], &[]] {
            assert!(!look(labels).continues(&recorded, &tables), "{labels:?}");
        }
        assert!(look(&["a"]).continues(&look(&[]).of(&tables), &tables));
        let recorded = look(&["1=a", "2=b"]).of(&tables);
        for (present, is_same) in [
            (&["1=a", "2=b", "3=c"][..], true),
            (&["1=a", "2!"], true),
            (&["1=a", "2=c"], false),
            (&["1=a"], false),
        ] {
            assert_eq!(
                look(present).continues(&recorded, &tables),
                is_same,
                "{present:?}"
            );
        }
        for recorded in ["1:a", "1:b 2:a", "1:a 2:gone", "1:a 2:a 3:a", "", "1:a 3:a"] {
            assert!(!look(&[]).continues(recorded, &tables), "{recorded}");
        }
    }
}
