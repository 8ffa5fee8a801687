//! Relations, their columns and their unique keys.
//!
//! A fact about a relation must hold for all rows that `SELECT … FROM relation` returns, those of
//! inheritance children and of foreign partitions included.

use std::collections::HashMap;

use pgstar_rewriter::catalog::{AttNum, Column, ColumnType, Oid, Relation, RelationKind, View};
use tokio_postgres::{Client, Row};

use super::ServerVersion;
use crate::connect::Error;

/// Relations whose scan returns rows that no constraint of theirs covers: foreign tables (PostgreSQL
/// enforces nothing there), parents in plain inheritance (keys do not reach the children), and
/// partitioned tables with either below them.
pub(super) const UNCOVERED: &str = "
  WITH RECURSIVE uncovered(oid) AS (
      SELECT c.oid FROM pg_class c WHERE c.relkind = 'f'
    UNION
      SELECT i.inhparent FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
       WHERE p.relkind = 'r'
    UNION
      SELECT i.inhparent FROM pg_inherits i JOIN uncovered u ON u.oid = i.inhrelid
  )";

const RELATIONS: &str = "
  SELECT c.oid, n.nspname::text, c.relname::text, c.relkind, c.relrowsecurity,
         EXISTS (SELECT FROM pg_rewrite r
                  WHERE r.ev_class = c.oid AND (r.ev_type <> '1' OR r.rulename <> '_RETURN')),
         CASE WHEN c.relkind = 'v' AND n.nspname <> 'pg_catalog' THEN pg_get_viewdef(c.oid) END,
         EXISTS (SELECT FROM pg_options_to_table(c.reloptions) o
                  WHERE o.option_name = 'security_barrier' AND o.option_value::boolean)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind <> 't' AND c.relpersistence <> 't'
     AND n.nspname NOT IN ('pg_toast', 'information_schema')";

/// `$unvalidated` is the condition for a NOT NULL that does not hold for old rows.
const COLUMNS: &str = "
  SELECT a.attrelid, a.attnum, a.attname::text, a.atttypid, a.atttypmod, a.attcollation,
         a.attnotnull AND NOT EXISTS (SELECT FROM uncovered u WHERE u.oid = a.attrelid)
                      AND NOT ($unvalidated)
    FROM pg_attribute a
   WHERE a.attnum > 0 AND NOT a.attisdropped
   ORDER BY a.attrelid, a.attnum";

/// From PostgreSQL 18 on `attnotnull` is also set for a constraint that was added NOT VALID.
const NOT_NULL_UNVALIDATED: &str = "EXISTS (
         SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n'
            AND k.conkey[1] = a.attnum AND NOT k.convalidated)";

/// Unique btree indexes over plain columns whose notion of equality is the column's own: the
/// default operator class and the column's collation. INCLUDE columns are not among the first
/// `indnkeyatts`.
const UNIQUE_KEYS: &str = "
  SELECT i.indrelid, k.attnums
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_am m ON m.oid = c.relam
   CROSS JOIN LATERAL (
         SELECT array_agg(a.attnum ORDER BY p.position) AS attnums,
                bool_and(coalesce(o.opcdefault AND a.attcollation = i.indcollation[p.position],
                                  false)) AS plain
           FROM generate_series(0, i.indnkeyatts - 1) AS p(position)
           LEFT JOIN pg_attribute a
                  ON a.attrelid = i.indrelid AND a.attnum = i.indkey[p.position] AND a.attnum > 0
           LEFT JOIN pg_opclass o ON o.oid = i.indclass[p.position]) k
   WHERE i.indisunique AND i.indimmediate AND i.indisvalid AND i.indisready AND i.indislive
     AND i.indpred IS NULL AND i.indexprs IS NULL AND m.amname = 'btree' AND k.plain
     AND NOT EXISTS (SELECT FROM uncovered u WHERE u.oid = i.indrelid)
   ORDER BY i.indrelid, i.indexrelid";

/// Every relation with its columns; keys are still empty.
pub(super) async fn load(client: &Client, version: ServerVersion) -> Result<Vec<Relation>, Error> {
    let mut columns = load_columns(client, version).await?;
    let rows = client.query(RELATIONS, &[]).await?;
    rows.iter()
        .map(|row| relation_of(row, &mut columns))
        .collect()
}

async fn load_columns(
    client: &Client,
    version: ServerVersion,
) -> Result<HashMap<Oid, Vec<Column>>, Error> {
    let unvalidated = if version >= ServerVersion::V18 {
        NOT_NULL_UNVALIDATED
    } else {
        "false"
    };
    let sql = format!(
        "{UNCOVERED} {}",
        COLUMNS.replace("$unvalidated", unvalidated)
    );
    let mut columns: HashMap<Oid, Vec<Column>> = HashMap::new();
    for row in client.query(&sql, &[]).await? {
        columns
            .entry(Oid(row.try_get(0)?))
            .or_default()
            .push(column_of(&row)?);
    }
    Ok(columns)
}

fn column_of(row: &Row) -> Result<Column, Error> {
    let ty = ColumnType {
        oid: Oid(row.try_get(3)?),
        typmod: row.try_get(4)?,
        collation: Oid(row.try_get(5)?),
    };
    Ok(Column {
        attnum: AttNum(row.try_get(1)?),
        name: row.try_get(2)?,
        ty,
        not_null: row.try_get(6)?,
    })
}

fn relation_of(row: &Row, columns: &mut HashMap<Oid, Vec<Column>>) -> Result<Relation, Error> {
    let oid = Oid(row.try_get(0)?);
    Ok(Relation {
        oid,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        kind: kind_of(row.try_get(3)?),
        columns: columns.remove(&oid).unwrap_or_default(),
        unique_keys: Vec::new(),
        foreign_keys: Vec::new(),
        row_security: row.try_get(4)?,
        has_rules: row.try_get(5)?,
        view: view_of(row)?,
    })
}

fn view_of(row: &Row) -> Result<Option<View>, Error> {
    let definition: Option<String> = row.try_get(6)?;
    let is_barrier = row.try_get(7)?;
    Ok(definition.map(|definition| View {
        definition,
        is_barrier,
    }))
}

/// Every relation has a place in the search path, also one that is no table.
fn kind_of(relkind: i8) -> RelationKind {
    match relkind as u8 {
        b'r' => RelationKind::Table,
        b'p' => RelationKind::PartitionedTable,
        b'm' => RelationKind::MaterializedView,
        b'f' => RelationKind::ForeignTable,
        b'v' => RelationKind::View,
        _ => RelationKind::Other,
    }
}

/// Adds each relation's unique keys.
pub(super) async fn add_unique_keys(
    client: &Client,
    relations: &mut HashMap<Oid, Relation>,
) -> Result<(), Error> {
    let sql = format!("{UNCOVERED} {UNIQUE_KEYS}");
    for row in client.query(&sql, &[]).await? {
        let attnums: Vec<i16> = row.try_get(1)?;
        if let Some(relation) = relations.get_mut(&Oid(row.try_get(0)?)) {
            relation
                .unique_keys
                .push(attnums.into_iter().map(AttNum).collect());
        }
    }
    Ok(())
}
