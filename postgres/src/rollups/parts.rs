//! Large facts are read part by part.
//!
//! A part is the rollup over some of its fact's rows, in a table of its own that is built in a transaction of its own and then
//! brought up to date as rollups are. What is done stays done when pgstar or the server ends, and the log that the slot keeps
//! meanwhile is that of one part. When all parts contain the same, their rows are put into the rollup's table, which then
//! contains that ([011](../../../docs/decisions/011-large-facts-are-read-part-by-part.md)).
//!
//! Who brings rollups up to date says by which column the parts of a table are told apart ([`mark`]): the rows that it takes
//! from the stream have to have it. It forgets the parts that cannot be brought up to date, which are built again then.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::{FoldColumn, FoldPlan, Part, PartValues};
use pgstar_rewriter::zones_named;
use tokio_postgres::{Client, GenericClient, Row, Transaction};

use super::{BuildPlan, RollupError, SCHEMA, finer, state};
use crate::catalog::load_catalog_and_clocks;
use crate::connect::Error;
use crate::identifier::quote_qualified;

/// Every part costs the upkeep some statements for each batch while it waits for the others.
const PARTS_MAX: i64 = 64;

/// A part that begins at a value of an index finds its rows together if they were written about in that order.
const CORRELATION_MIN: f32 = 0.9;

/// The column that parts of each of these tables are told apart by, for those that are large enough for two of this size. While
/// something is built in parts it stays the same, whatever becomes of the table.
pub(crate) async fn columns(
    client: &Client,
    tables: &[Oid],
    part_bytes: u64,
) -> Result<BTreeMap<Oid, FoldColumn>, Error> {
    let sql = format!(
        "SELECT DISTINCT ON (c.oid) c.oid, a.attname::text, a.atttypid, a.atttypmod
           FROM pg_class c
          CROSS JOIN LATERAL (
                SELECT o.attnum, -1 AS rank FROM pgstar.followed_table f
                  JOIN pg_attribute o ON o.attrelid = f.relation AND o.attname = f.part_column
                 WHERE f.relation = c.oid AND EXISTS (SELECT FROM pgstar.rollup_part)
                 UNION ALL
                SELECT p.partattrs[0], 0 FROM pg_partitioned_table p
                 WHERE p.partrelid = c.oid AND p.partstrat = 'r'
                 UNION ALL
                SELECT i.indkey[0], 1 + (NOT i.indisprimary)::int
                  FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am m ON m.oid = x.relam
                 WHERE i.indrelid = c.oid AND c.relkind = 'r' AND i.indisvalid AND i.indpred IS NULL
                   AND m.amname IN ('btree', 'brin')) AS begin
           JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = begin.attnum
           LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
           LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname AND NOT s.inherited
          WHERE c.oid = ANY ($1) AND a.atttypid = ANY ($2) AND (begin.rank <= 0 OR abs(s.correlation) >= $3)
            AND (begin.rank < 0 OR ({SIZE}) >= $4)
          ORDER BY c.oid, begin.rank, a.attnum"
    );
    let oids: Vec<u32> = tables.iter().map(|table| table.0).collect();
    let types: Vec<u32> = Part::TYPES.iter().map(|(oid, _)| oid.0).collect();
    let bytes_min = part_bytes
        .saturating_mul(2)
        .min(i64::MAX as u64)
        .cast_signed();
    let rows = client
        .query(&sql, &[&oids, &types, &CORRELATION_MIN, &bytes_min])
        .await?;
    let column = |row: &Row| -> Result<(Oid, FoldColumn), tokio_postgres::Error> {
        let column = FoldColumn {
            name: row.try_get(1)?,
            type_oid: Oid(row.try_get(2)?),
            typmod: row.try_get(3)?,
        };
        Ok((Oid(row.try_get(0)?), column))
    };
    Ok(rows.iter().map(column).collect::<Result<_, _>>()?)
}

/// How many bytes of rows the table `c` has.
const SIZE: &str = "
  CASE c.relkind WHEN 'p' THEN (SELECT coalesce(sum(pg_relation_size(t.relid)), 0)::bigint FROM pg_partition_tree(c.oid) t WHERE t.isleaf)
                 ELSE pg_relation_size(c.oid) END";

/// From now on parts of these tables, and of no others, are brought up to date. They are to be about so large.
pub(crate) async fn mark(
    client: &Client,
    columns: &BTreeMap<Oid, FoldColumn>,
    part_bytes: u64,
) -> Result<(), Error> {
    let tables: Vec<u32> = columns.keys().map(|table| table.0).collect();
    let names: Vec<&str> = columns.values().map(|column| &*column.name).collect();
    let sql = "UPDATE pgstar.followed_table f SET (part_column, part_bytes) = (m.name, m.bytes)
                 FROM (SELECT o.relation, c.name, CASE WHEN c.name IS NOT NULL THEN $3::bigint END AS bytes
                         FROM pgstar.followed_table o
                         LEFT JOIN unnest($1::oid[], $2::text[]) AS c(relation, name) ON c.relation = o.relation) AS m
                WHERE m.relation = f.relation AND (f.part_column, f.part_bytes) IS DISTINCT FROM (m.name, m.bytes)";
    let bytes = part_bytes.min(i64::MAX as u64).cast_signed();
    client.execute(sql, &[&tables, &names, &bytes]).await?;
    Ok(())
}

/// A rollup that is built in parts.
pub(super) struct InParts {
    fold: FoldPlan,
    fact: Oid,
    /// What tells its rows apart.
    column: FoldColumn,
    /// How large a part should be.
    bytes: i64,
}

/// A part, as recorded.
pub(super) struct Recorded {
    number: i32,
    part: Part,
    /// Its table, when it was built, and what the table contains; none if it has to be built.
    built: Option<(String, SystemTime, state::Progress)>,
    /// Whether it contains what all rollups that are brought up to date do.
    is_in_step: bool,
}

/// All parts of a rollup.
pub(super) struct Parts(Vec<Recorded>);

impl Parts {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Those that have to be built.
    pub(super) fn missing(&self) -> Vec<&Recorded> {
        self.0.iter().filter(|part| part.built.is_none()).collect()
    }

    /// Whether one that is built waits to be brought forward for the first time.
    pub(super) fn has_newcomer(&self) -> bool {
        let mut parts = self.0.iter();
        parts.any(|part| part.built.is_some() && !part.is_in_step)
    }

    /// What all of them contain, if it is the same, and an instant by the server's clock before which every acknowledged
    /// commit is in them.
    pub(super) fn in_step(&self) -> Option<(&state::Progress, SystemTime)> {
        let built: Option<Vec<_>> = self.0.iter().map(|part| part.built.as_ref()).collect();
        let built = built?;
        let (_, _, first) = built.first()?;
        let is_same = built.iter().all(|(_, _, contents)| contents == first);
        let oldest = built.iter().map(|(_, built_at, _)| *built_at).min()?;
        is_same.then_some((first, oldest))
    }

    pub(super) fn are_in_step(&self) -> bool {
        self.in_step().is_some()
    }
}

impl InParts {
    /// The SELECT that fills a part's table.
    pub(super) fn select(&self, part: &Recorded) -> Option<String> {
        Some(self.fold.of_part(&part.part)?.select())
    }

    /// The statement that fills the rollup's table from those of its parts.
    pub(super) fn combine(&self, parts: &Parts, table: &str) -> String {
        let built = parts.0.iter().filter_map(|part| part.built.as_ref());
        let tables: Vec<String> = built
            .map(|(table, _, _)| quote_qualified(SCHEMA, table))
            .collect();
        let table = quote_qualified(SCHEMA, table);
        self.fold.combine(&self.column.name, &tables, &table)
    }
}

/// Whether the rollup is to be built in parts, and how. Those of an earlier attempt stay if they can be trusted.
pub(super) async fn plan(
    client: &mut Client,
    plan: &BuildPlan,
    keeps_parts: bool,
) -> Result<Option<InParts>, RollupError> {
    let in_parts = in_parts(client, plan).await?;
    let column = in_parts.as_ref().filter(|_| keeps_parts);
    let column = column.map(|in_parts| in_parts.column.name.as_str());
    let others = "DELETE FROM pgstar.rollup_part WHERE rollup = $1
                   AND (fingerprint <> $2 OR column_name IS DISTINCT FROM $3)";
    client
        .execute(others, &[&plan.name, &plan.fingerprint, &column])
        .await?;
    let Some(in_parts) = in_parts else {
        return Ok(None);
    };
    if read(client, plan).await?.count() > 0 {
        return Ok(Some(in_parts));
    }
    let parts = divide(client, &in_parts).await?;
    if parts.len() < 2 {
        return Ok(None);
    }
    record(client, plan, &in_parts, &parts).await?;
    Ok(Some(in_parts))
}

/// All tables of the plan are followed, and its fact is marked.
async fn in_parts(client: &Client, plan: &BuildPlan) -> Result<Option<InParts>, RollupError> {
    let tables: Vec<u32> = plan.base_relations.iter().map(|table| table.0).collect();
    let sql = "SELECT f.relation, f.part_column, f.part_bytes FROM pgstar.followed_table f
                WHERE f.relation = ANY ($1) AND f.part_column IS NOT NULL
                  AND NOT EXISTS (SELECT FROM unnest($1::oid[]) AS b(relation)
                                   WHERE b.relation NOT IN (SELECT relation FROM pgstar.followed_table))";
    let marked = client.query(sql, &[&tables]).await?;
    if marked.is_empty() {
        return Ok(None);
    }
    let catalog = load_catalog_and_clocks(client, &zones_named(&plan.select)).await?;
    let Some(definition) = finer::definition(plan, &catalog) else {
        return Ok(None);
    };
    let fold = FoldPlan::new(&definition, &catalog);
    let fact = fold.fact().map_or(Oid(0), |fact| fact.relation);
    for row in &marked {
        let (relation, name): (u32, &str) = (row.try_get(0)?, row.try_get(1)?);
        let table = catalog.relation_by_oid(fact).filter(|_| fact.0 == relation);
        let mut columns = table.into_iter().flat_map(|table| &table.columns);
        if let Some(column) = columns.find(|column| column.name == name)
            && fold.adds_up(name)
        {
            let column = FoldColumn {
                name: name.to_owned(),
                type_oid: column.ty.oid,
                typmod: column.ty.typmod,
            };
            let bytes = row.try_get(2)?;
            return Ok(Some(InParts {
                fold,
                fact,
                column,
                bytes,
            }));
        }
    }
    Ok(None)
}

/// What is recorded of the rollup's parts.
pub(super) async fn read(
    client: &impl GenericClient,
    plan: &BuildPlan,
) -> Result<Parts, RollupError> {
    let sql = "SELECT r.column_name, r.type_oid, r.typmod, r.of_null, r.first, r.below, r.number, r.table_name, r.built_at,
                      p.shape, coalesce(p.snapshot, m.snapshot),
                      CASE WHEN p.snapshot IS NULL THEN m.validated ELSE p.validated END::text, p.snapshot IS NULL
                 FROM pgstar.rollup_part r LEFT JOIN pgstar.rollup_progress p ON p.table_name = r.table_name
                 LEFT JOIN pgstar.maintenance m ON true
                WHERE r.rollup = $1 AND r.fingerprint = $2 ORDER BY r.number";
    let rows = client.query(sql, &[&plan.name, &plan.fingerprint]).await?;
    let recorded = |row: &Row| -> Result<Recorded, tokio_postgres::Error> {
        let shape: Option<String> = row.try_get(9)?;
        let snapshot: Option<String> = row.try_get(10)?;
        let built = match (shape, snapshot) {
            (Some(shape), Some(snapshot)) => {
                let validated = row.try_get(11)?;
                let contents = state::Progress {
                    shape,
                    validated,
                    snapshot,
                };
                Some((row.try_get(7)?, row.try_get(8)?, contents))
            }
            _ => None,
        };
        Ok(Recorded {
            number: row.try_get(6)?,
            part: part_of(row, 0)?,
            built,
            is_in_step: row.try_get(12)?,
        })
    };
    Ok(Parts(rows.iter().map(recorded).collect::<Result<_, _>>()?))
}

/// The part whose column, values and bounds are in these columns of a row.
pub(crate) fn part_of(row: &Row, at: usize) -> Result<Part, tokio_postgres::Error> {
    let column = FoldColumn {
        name: row.try_get(at)?,
        type_oid: Oid(row.try_get(at + 1)?),
        typmod: row.try_get(at + 2)?,
    };
    let values = match row.try_get(at + 3)? {
        true => PartValues::Null,
        false => PartValues::Range {
            first: row.try_get(at + 4)?,
            below: row.try_get(at + 5)?,
        },
    };
    Ok(Part { column, values })
}

/// Names the table as the part's; takes effect with the transaction that made the table.
pub(super) async fn record_built(
    transaction: &Transaction<'_>,
    plan: &BuildPlan,
    part: &Recorded,
    table: &str,
    built_at: SystemTime,
) -> Result<(), RollupError> {
    let sql = "UPDATE pgstar.rollup_part SET table_name = $4, built_at = $5
                WHERE rollup = $1 AND fingerprint = $2 AND number = $3";
    let Recorded { number, .. } = part;
    transaction
        .execute(
            sql,
            &[&plan.name, &plan.fingerprint, number, &table, &built_at],
        )
        .await?;
    Ok(())
}

/// The rollup has no parts any more; whether it had some.
pub(super) async fn forget(
    client: &impl GenericClient,
    rollup: &str,
) -> Result<bool, tokio_postgres::Error> {
    let sql = "DELETE FROM pgstar.rollup_part WHERE rollup = $1";
    Ok(client.execute(sql, &[&rollup]).await? > 0)
}

/// Disjoint parts of about this size that all rows are in. Where nothing is known of the rows there is one.
async fn divide(client: &mut Client, in_parts: &InParts) -> Result<Vec<PartValues>, RollupError> {
    let InParts {
        fold: _,
        fact,
        column,
        bytes,
    } = in_parts;
    let transaction = client.transaction().await?;
    // Values are read again by whoever brings the parts up to date.
    transaction
        .batch_execute("SET LOCAL DateStyle = 'ISO'; SET LOCAL lock_timeout = '2s'")
        .await?;
    let ty = Part::type_name(column).unwrap_or("text");
    let sql = format!("SELECT c.relkind = 'p', {SIZE} FROM pg_class c WHERE c.oid = $1");
    let Some(row) = transaction.query_opt(&sql, &[&fact.0]).await? else {
        return Ok(vec![]);
    };
    let (is_partitioned, size): (bool, i64) = (row.try_get(0)?, row.try_get(1)?);
    let bytes = (*bytes).max(size / PARTS_MAX).max(1);
    let cuts = match is_partitioned {
        true => between_partitions(&transaction, *fact, ty, bytes).await?,
        false => within_table(&transaction, *fact, column, size / bytes).await?,
    };
    transaction.rollback().await?;
    let firsts = std::iter::once(None).chain(cuts.iter().cloned().map(Some));
    let belows = cuts.iter().cloned().map(Some).chain([None]);
    let ranges = firsts.zip(belows);
    let ranges = ranges.map(|(first, below)| PartValues::Range { first, below });
    // Also where the column has none: NOT NULL may be dropped meanwhile, and an index or a partition finds none at once.
    let null = (!cuts.is_empty()).then_some(PartValues::Null);
    Ok(ranges.chain(null).collect())
}

/// Ends of partitions, so that what is between two of them has at least this size.
async fn between_partitions(
    transaction: &Transaction<'_>,
    table: Oid,
    ty: &str,
    bytes: i64,
) -> Result<Vec<String>, RollupError> {
    let sql = format!(
        "SELECT part.below, part.size
           FROM (SELECT nullif(substring(pg_get_expr(c.relpartbound, c.oid) FROM ' TO \\(''?([^'',)]+)'), 'MAXVALUE') AS below,
                        (SELECT coalesce(sum(pg_relation_size(t.relid)), 0)::bigint FROM pg_partition_tree(c.oid) t WHERE t.isleaf) AS size
                   FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = $1) AS part
          ORDER BY part.below::pg_catalog.{ty} NULLS LAST"
    );
    let mut cuts: Vec<String> = vec![];
    let mut size = 0;
    for row in transaction.query(&sql, &[&table.0]).await? {
        let (below, own): (Option<String>, i64) = (row.try_get(0)?, row.try_get(1)?);
        size += own;
        if let Some(below) = below
            && size >= bytes
            && cuts.last() != Some(&below)
        {
            cuts.push(below);
            size = 0;
        }
    }
    // The last one needs no end.
    if size == 0 {
        cuts.pop();
    }
    Ok(cuts)
}

/// Values of the column between which there are about as many rows each.
async fn within_table(
    transaction: &Transaction<'_>,
    table: Oid,
    column: &FoldColumn,
    wanted: i64,
) -> Result<Vec<String>, RollupError> {
    let sql = "SELECT s.histogram_bounds::text::text[] FROM pg_class c
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND NOT s.inherited
                WHERE c.oid = $1 AND s.attname = $2";
    let row = transaction
        .query_opt(sql, &[&table.0, &column.name])
        .await?;
    let bounds: Option<Vec<String>> = row.map_or(Ok(None), |row| row.try_get(0))?;
    let bounds = bounds.unwrap_or_default();
    let last = bounds.len().saturating_sub(1);
    let wanted = usize::try_from(wanted).unwrap_or(1).max(1);
    let cuts = (1..wanted).filter_map(|part| bounds.get(part * last / wanted));
    // The first bound is the least value.
    let cuts = cuts.filter(|cut| Some(*cut) != bounds.first());
    let mut cuts: Vec<String> = cuts.cloned().collect();
    cuts.dedup();
    Ok(cuts)
}

async fn record(
    client: &mut Client,
    plan: &BuildPlan,
    in_parts: &InParts,
    parts: &[PartValues],
) -> Result<(), RollupError> {
    let transaction = client.transaction().await?;
    let sql = "INSERT INTO pgstar.rollup_part (rollup, fingerprint, number, column_name, type_oid, typmod, of_null, first, below)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let FoldColumn {
        name,
        type_oid,
        typmod,
    } = &in_parts.column;
    for (number, values) in (0i32..).zip(parts) {
        let (of_null, first, below) = match values {
            PartValues::Null => (true, &None, &None),
            PartValues::Range { first, below } => (false, first, below),
        };
        transaction
            .execute(
                sql,
                &[
                    &plan.name,
                    &plan.fingerprint,
                    &number,
                    name,
                    &type_oid.0,
                    typmod,
                    &of_null,
                    first,
                    below,
                ],
            )
            .await?;
    }
    Ok(transaction.commit().await?)
}
