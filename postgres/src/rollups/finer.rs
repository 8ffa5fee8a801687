//! Fills a rollup's table from a finer rollup's instead of the base tables.
//!
//! Every rollup is a query, so the rewriter says whether a finer one answers it, and proves it against the catalog that the
//! build's own transaction sees. A table that is filled so contains what the finer one does: that one's snapshot is recorded
//! with it, which is older than the build's. What the proof takes for granted of keys must therefore have held at that snapshot.

use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use pgstar_rewriter::catalog::{Catalog, Oid};
use pgstar_rewriter::{Context, Rollup, RollupDefinition, decide, zones_named};
use tokio_postgres::{Statement, Transaction};

use super::{BuildPlan, RollupError, SCHEMA, shape, state};
use crate::catalog;

/// Which rollups may be read in the place of base tables.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The rollups; whether their tables are there is looked up.
    pub plans: Vec<BuildPlan>,
    /// Tables that follow theirs: each contains every commit that was acknowledged before this instant.
    pub followed: HashMap<String, Instant>,
    /// Others are good enough if they were built after this, by the server's clock.
    pub built_since: Option<SystemTime>,
    /// Whether parts that were built in an earlier attempt are good enough.
    pub keeps_parts: bool,
}

impl Sources {
    /// Only the base tables will do, as they are now: nothing that was computed before.
    pub fn none() -> Self {
        Sources {
            plans: vec![],
            followed: HashMap::new(),
            built_since: None,
            keeps_parts: false,
        }
    }
}

/// How a table is filled from another rollup's.
pub(super) struct Filling {
    /// The other rollup.
    pub(super) rollup: String,
    /// Its table.
    pub(super) table: String,
    pub(super) select: String,
    /// What the table will contain.
    pub(super) contents: state::Progress,
    /// Every commit acknowledged before is in it, by the server's clock.
    pub(super) built_at: SystemTime,
}

/// A rollup's table, and what it contains.
struct Source {
    rollup: Rollup,
    shape: String,
    snapshot: String,
    validated: String,
    built_at: SystemTime,
}

/// How to fill the plan's table from another rollup's, by the fewest rows; `None` if that cannot be proven.
///
/// The transaction has one snapshot, taken at `now`.
pub(super) async fn filling(
    transaction: &Transaction<'_>,
    plan: &BuildPlan,
    sources: &Sources,
    now: SystemTime,
) -> Result<Option<Filling>, RollupError> {
    if sources.plans.is_empty() {
        return Ok(None);
    }
    let plans = std::iter::once(plan).chain(&sources.plans);
    let zones: Vec<String> = plans.flat_map(|plan| zones_named(&plan.select)).collect();
    let catalog = catalog::load_in_transaction(transaction.client(), &zones).await?;
    if definition(plan, &catalog).is_none() {
        return Ok(None);
    }
    let found = read(transaction, plan, sources, &catalog, now).await?;
    let rollups: Vec<Rollup> = found.iter().map(|source| source.rollup.clone()).collect();
    for (position, select) in answers(plan, &rollups, &catalog) {
        let Some(source) = found.get(position) else {
            continue;
        };
        let bases = &source.rollup.definition.base_relations;
        let Some(shape) = shape::part(&source.shape, &plan.base_relations) else {
            continue;
        };
        let is_sound = held_at(transaction, &source.snapshot, bases).await?
            && has_same_columns(transaction, &plan.select, &select).await?;
        if is_sound {
            return Ok(Some(Filling {
                rollup: source.rollup.definition.name.clone(),
                table: source.rollup.table.clone(),
                select,
                contents: state::Progress {
                    shape,
                    validated: source.validated.clone(),
                    snapshot: source.snapshot.clone(),
                },
                built_at: source.built_at,
            }));
        }
    }
    Ok(None)
}

/// The order in which to build these: whatever may be filled from another of them comes after it.
pub(super) fn finer_first(plans: &[&BuildPlan], catalog: &Catalog) -> Vec<usize> {
    let definitions = plans.iter().map(|plan| definition(plan, catalog));
    let known: Vec<(usize, Rollup)> = definitions
        .enumerate()
        .filter_map(|(at, definition)| Some((at, unbuilt(definition?))))
        .collect();
    let rollups: Vec<Rollup> = known.iter().map(|(_, rollup)| rollup.clone()).collect();
    let finer = |at: usize| -> Vec<usize> {
        let answers = plans.get(at).map(|plan| answers(plan, &rollups, catalog));
        let positions = answers.unwrap_or_default().into_iter();
        let positions = positions.filter_map(|(position, _)| known.get(position));
        positions.map(|(finer, _)| *finer).collect()
    };
    let mut order = vec![];
    let mut visited = vec![false; plans.len()];
    for at in 0..plans.len() {
        visit(at, &finer, &mut visited, &mut order);
    }
    order
}

/// Two that each answer the other come in their own order.
fn visit(
    at: usize,
    finer: &dyn Fn(usize) -> Vec<usize>,
    visited: &mut Vec<bool>,
    order: &mut Vec<usize>,
) {
    match visited.get_mut(at) {
        Some(visited) if !*visited => *visited = true,
        Some(_) | None => return,
    }
    for finer_one in finer(at) {
        visit(finer_one, finer, visited, order);
    }
    order.push(at);
}

/// The rollup as this catalog has it, if it is still the one that was planned.
pub(super) fn definition(plan: &BuildPlan, catalog: &Catalog) -> Option<RollupDefinition> {
    let path = ["pg_catalog".to_owned()];
    let definition = RollupDefinition::parse(&plan.name, &plan.select, catalog, &path).ok()?;
    (definition.fingerprint == plan.fingerprint).then_some(definition)
}

fn rollup(definition: RollupDefinition, table: String, rows: u64) -> Rollup {
    Rollup {
        definition,
        schema: SCHEMA.to_owned(),
        table,
        rows,
    }
}

/// Two statements over tables of the same name would be the same.
fn unbuilt(definition: RollupDefinition) -> Rollup {
    let table = definition.name.clone();
    rollup(definition, table, 0)
}

/// The SELECTs that fill the plan's table from a single one of these, by position; the cheapest first.
fn answers(plan: &BuildPlan, rollups: &[Rollup], catalog: &Catalog) -> Vec<(usize, String)> {
    let context = Context {
        catalog,
        rollups,
        search_path: &["pg_catalog".to_owned()],
        // As on every connection of pgstar's own. Definitions do not depend on it.
        time_zone: "UTC",
        bound: &[],
    };
    let matches = decide(&plan.select, context).matches.into_iter();
    // A base table would be read as of another snapshot than the rollup's.
    let alone = matches.filter(|found| found.base_reads.is_empty() && found.premises.is_empty());
    let answers = alone.filter_map(|found| match found.rollups.as_slice() {
        [only] => Some((*only, found.sql)),
        _ => None,
    });
    let is_other = |position: usize| {
        rollups
            .get(position)
            .is_some_and(|rollup| rollup.definition.name != plan.name)
    };
    answers
        .filter(|(position, _)| is_other(*position))
        .collect()
}

const STATES: &str = "
  SELECT s.name, s.fingerprint, s.table_name, s.rows, s.built_at, p.shape, coalesce(p.snapshot, m.snapshot),
         CASE WHEN p.snapshot IS NULL THEN m.validated ELSE p.validated END::text
    FROM pgstar.rollup_state s
    JOIN pgstar.rollup_progress p ON p.table_name = s.table_name
    LEFT JOIN pgstar.maintenance m ON true
   WHERE s.name = ANY ($1) AND coalesce(p.snapshot, m.snapshot) IS NOT NULL";

/// The sources whose tables are there, contain what is recorded, and are fresh enough.
async fn read(
    transaction: &Transaction<'_>,
    plan: &BuildPlan,
    sources: &Sources,
    catalog: &Catalog,
    now: SystemTime,
) -> Result<Vec<Source>, RollupError> {
    let others = sources.plans.iter().filter(|other| other.name != plan.name);
    let others: HashMap<&str, &BuildPlan> = others.map(|other| (&*other.name, other)).collect();
    let names: Vec<&str> = others.keys().copied().collect();
    let mut found = vec![];
    for row in transaction.query(STATES, &[&names]).await? {
        let (name, fingerprint): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let (table, rows): (String, i64) = (row.try_get(2)?, row.try_get(3)?);
        let other = others.get(name);
        let Some(other) = other.filter(|other| other.fingerprint == fingerprint) else {
            continue;
        };
        let built_at: SystemTime = row.try_get(4)?;
        let built_at = match sources.followed.get(&table) {
            Some(since) => now.checked_sub(since.elapsed()).unwrap_or(built_at),
            None if sources.built_since.is_some_and(|since| built_at >= since) => built_at,
            None => continue,
        };
        let Some(definition) = definition(other, catalog) else {
            continue;
        };
        found.push(Source {
            rollup: rollup(definition, table, rows.max(0).cast_unsigned()),
            shape: row.try_get(5)?,
            snapshot: row.try_get(6)?,
            validated: row.try_get(7)?,
            built_at,
        });
    }
    Ok(found)
}

/// `xmin` has the lower half of a transaction's number. A row that this snapshot sees was written by one of the last 2^32; one
/// that is older is taken for a later one, which is the safe side.
const HELD: &str = "
  WITH newest(number) AS (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8),
       premise(xmin) AS (
         SELECT c.xmin FROM pg_constraint c WHERE c.conrelid = ANY ($1) OR c.confrelid = ANY ($1)
          UNION ALL
         SELECT i.xmin FROM pg_index i WHERE i.indrelid = ANY ($1)
          UNION ALL
         SELECT a.xmin FROM pg_attribute a WHERE a.attrelid = ANY ($1) AND a.attnum > 0),
       near(number) AS (SELECT (n.number >> 32 << 32) + p.xmin::text::int8 FROM premise p, newest n)
  SELECT coalesce(bool_and(pg_visible_in_snapshot(
           greatest(CASE WHEN a.number > n.number THEN a.number - 4294967296 ELSE a.number END, 1)::text::xid8,
           $2::text::pg_snapshot)), false)
    FROM near a, newest n";

/// Whether the keys and columns of the tables were at that snapshot as they are now.
async fn held_at(
    transaction: &Transaction<'_>,
    snapshot: &str,
    tables: &[Oid],
) -> Result<bool, RollupError> {
    let tables: Vec<u32> = tables.iter().map(|table| table.0).collect();
    let row = transaction.query_one(HELD, &[&tables, &snapshot]).await?;
    Ok(row.try_get(0)?)
}

/// Whether PostgreSQL gives both the same names, types and modifiers.
async fn has_same_columns(
    transaction: &Transaction<'_>,
    one: &str,
    other: &str,
) -> Result<bool, RollupError> {
    let columns = |statement: &Statement| -> Vec<(String, u32, i32)> {
        let columns = statement.columns().iter();
        columns
            .map(|column| {
                let ty = (column.type_().oid(), column.type_modifier());
                (column.name().to_owned(), ty.0, ty.1)
            })
            .collect()
    };
    let one = transaction.prepare(one).await?;
    let other = transaction.prepare(other).await?;
    Ok(columns(&one) == columns(&other))
}
