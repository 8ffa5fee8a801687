//! What PostgreSQL has to say before a match is used: that both statements have the same columns (count,
//! names, types and modifiers, and the same parameters), that its clocks are as the proof needs them, and that the
//! original is not clearly cheaper, nor another rollup. What it says of two statements' columns holds for all of their `shape`s;
//! what it says of costs, for these constants and bound values, unless it is so clear that others hardly change it.

use std::sync::{Arc, Mutex, PoisonError};

use moka::sync::Cache;
use pgstar_cache::Key;
use pgstar_postgres::connect::Connection;
use pgstar_postgres::describe::{Bound, DescribeError, Description, describe, holds, planned_cost};
use pgstar_rewriter::{Code, Match, Premise, Reason, Wrapping};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::decisions::{Decided, Parity, UNDEFINED_TABLE, protocol};
use super::shape::shape;
use super::{Binding, ColumnOrigin, SessionFacts};
use crate::telemetry::{self, Question};
use crate::warehouse::{Snapshot, Warehouse};
use crate::wire::read::{BoundValue, bound_values};

/// Connections that statements are described on; more questions than that wait.
const CONNECTIONS_MAX: usize = 4;

/// How many answers about clocks are remembered.
const PREMISES_MAX: u64 = 10_000;
/// Pairs of shapes whose columns are remembered.
const SHAPES_MAX: u64 = 10_000;

/// Statements, with the values that are bound, of which it is remembered whether the base tables answer them cheaper.
const COSTS_MAX: u64 = 10_000;

/// A rollup of fewer rows is read faster than the planner is asked.
const COMPARED_ROWS_MIN: u64 = 10_000;

/// What costs less than this, in the planner's units, is over in some milliseconds either way.
const COMPARED_COST_MIN: f64 = 1_000.0;

/// What costs less than one part in so many costs clearly less.
const CLEARLY: f64 = 2.0;

/// The base tables that cost so many times as much as a rollup will do so with other constants, too: then what a wrong guess
/// costs is one reading of the rollup.
const FAR_DEARER: f64 = 10.0;

/// So many of the rollups that answer are compared.
const COMPARED_MAX: usize = 4;

/// In which order the matches of a decision are tried.
#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) positions: Vec<usize>,
    /// Why another than the smallest rollup comes first, in words.
    pub(super) because: Option<String>,
}

impl Order {
    /// By the rollups' rows, as the matches are.
    fn usual(matches: usize) -> Self {
        Order {
            positions: (0..matches).collect(),
            because: None,
        }
    }
}

/// Asks PostgreSQL, on connections of pgstar's own.
#[derive(Debug)]
pub(super) struct Describer {
    warehouse: Arc<Warehouse>,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    /// By snapshot, premise and time zone: what PostgreSQL said of it.
    clocks: Cache<(u64, Premise, String), bool>,
    /// Where the columns come from of statements that were found to have the same, by their shapes.
    alike: Cache<Key, Arc<[ColumnOrigin]>>,
    /// Shapes of which the planner need not be asked again what the base tables would cost.
    far_dearer: Cache<Key, ()>,
    /// By statement and values: why the base tables answer, if they do.
    base_cheaper: Cache<Key, Option<Reason>>,
}

impl Describer {
    pub(super) fn new(warehouse: Arc<Warehouse>) -> Self {
        Describer {
            warehouse,
            idle: Mutex::default(),
            permits: Semaphore::new(CONNECTIONS_MAX),
            clocks: Cache::new(PREMISES_MAX),
            alike: Cache::new(SHAPES_MAX),
            far_dearer: Cache::new(SHAPES_MAX),
            base_cheaper: Cache::new(COSTS_MAX),
        }
    }

    /// The origins of the original's columns, if the match has the same columns and is not clearly dearer. Columns are asked
    /// for once for each decision, costs once for each statement and its values; trouble with the connection is not remembered.
    pub(super) async fn origins(
        &self,
        snapshot: &Snapshot,
        decided: &Decided,
        position: usize,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Parity {
        let (Some(cell), Some(found)) = (
            decided.parity.get(position),
            decided.decision.matches.get(position),
        ) else {
            return Err(Reason::new(Code::NotBuilt, ""));
        };
        let ask = || self.judge(snapshot, decided, found, facts, binding);
        let judged = async {
            let parity = cell.get_or_try_init(ask).await?.clone();
            if parity.is_err() || !is_compared(snapshot, decided, found) {
                return Ok(parity);
            }
            let base_cheaper = self.base_cheaper(snapshot, decided, found, facts, binding);
            Ok(base_cheaper.await?.map_or(parity, Err))
        };
        match judged.await {
            Ok(parity) => parity,
            Err(DescribeTrouble::Replaced) => {
                let detail = "its table has just made way for the next one";
                Err(Reason::new(Code::NotBuilt, detail))
            }
            Err(trouble) => Err(Reason::new(Code::DescribeMismatch, trouble.to_string())),
        }
    }

    /// The types of the statement's parameters as PostgreSQL resolves them; asked once for each decision.
    pub(super) async fn parameters(
        &self,
        decided: &Decided,
        facts: &SessionFacts,
        binding: &Binding,
    ) -> Option<Vec<u32>> {
        let ask = || self.resolve(decided, facts, binding);
        let resolved = decided.parameters.get_or_try_init(ask).await;
        resolved.ok()?.clone()
    }

    async fn resolve(
        &self,
        decided: &Decided,
        facts: &SessionFacts,
        binding: &Binding,
    ) -> Result<Option<Vec<u32>>, DescribeTrouble> {
        let (_permit, mut connection) = self.connection().await?;
        let types = &binding.parameter_types;
        telemetry::asked_about(Question::Columns);
        let described = describe(&mut connection, &decided.sql, &facts.search_path, types).await;
        match described {
            Ok(described) => {
                self.keep(connection);
                let parameters = described.parameters.iter();
                Ok(Some(parameters.map(|oid| oid.0).collect()))
            }
            Err(DescribeError::Refused { .. } | DescribeError::TemporarySchema(_)) => Ok(None),
            Err(error @ DescribeError::Unavailable(_)) => Err(DescribeTrouble::Describe(error)),
        }
    }

    async fn judge(
        &self,
        snapshot: &Snapshot,
        decided: &Decided,
        found: &Match,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Result<Parity, DescribeTrouble> {
        for premise in &found.premises {
            if !self.holds(snapshot, premise, &facts.time_zone).await? {
                let detail = format!("the clocks of {} change near there", facts.time_zone);
                return Ok(Err(Reason::new(Code::BucketUnaligned, detail)));
            }
        }
        let key = alike_key(snapshot, decided, found, facts, binding);
        let known = key.as_ref().and_then(|key| self.alike.get(key));
        let parity = match known {
            Some(origins) => Ok(origins),
            None => self.compare_all(decided, found, facts, binding).await?,
        };
        if let (Some(key), Ok(origins)) = (&key, &parity) {
            self.alike.insert(key.clone(), Arc::clone(origins));
        }
        Ok(parity)
    }

    /// Why the base tables answer, if the planner expects that to cost clearly less.
    async fn base_cheaper(
        &self,
        snapshot: &Snapshot,
        decided: &Decided,
        found: &Match,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Result<Option<Reason>, DescribeTrouble> {
        let asked = Key::of(&[
            &snapshot.version.to_be_bytes(),
            decided.sql.as_bytes(),
            found.sql.as_bytes(),
            facts.search_path.join("\0").as_bytes(),
            facts.time_zone.as_bytes(),
            &protocol(binding),
            binding.map_or(&[][..], |binding| &binding.bind),
        ]);
        if let Some(known) = self.base_cheaper.get(&asked) {
            return Ok(known);
        }
        let shapes = alike_key(snapshot, decided, found, facts, binding);
        let is_far_dearer = |shapes: &Key| self.far_dearer.contains_key(shapes);
        let reason = match shapes.as_ref().is_some_and(is_far_dearer) {
            true => None,
            false => match self.compare_costs(decided, found, facts, binding).await? {
                Costs::BaseCheaper(reason) => Some(reason),
                Costs::FarDearer => {
                    if let Some(shapes) = shapes.filter(|_| found.base_reads.is_empty()) {
                        self.far_dearer.insert(shapes, ());
                    }
                    None
                }
                Costs::Near => None,
            },
        };
        self.base_cheaper.insert(asked, reason.clone());
        Ok(reason)
    }

    /// In which order to try the matches: another than the one of the fewest rows first, if the planner expects it to cost clearly less, as
    /// where an index finds the few rows of a large rollup that matter. Asked once for each decision, with the values that are bound then.
    pub(super) async fn order<'d>(
        &self,
        snapshot: &Snapshot,
        decided: &'d Decided,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> &'d Order {
        let order = decided.order.get_or_init(|| async {
            let matches = &decided.decision.matches;
            let first = matches.first().filter(|_| matches.len() > 1);
            let is_question = first.is_some_and(|first| is_compared(snapshot, decided, first));
            let asked = match is_question {
                true => self.cheapest(snapshot, decided, facts, binding).await,
                false => Ok(None),
            };
            asked
                .ok()
                .flatten()
                .unwrap_or_else(|| Order::usual(matches.len()))
        });
        order.await
    }

    async fn cheapest(
        &self,
        snapshot: &Snapshot,
        decided: &Decided,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Result<Option<Order>, DescribeTrouble> {
        let matches = &decided.decision.matches;
        let Some(first) = matches.first() else {
            return Ok(None);
        };
        let usual = self.cost(&first.sql, facts, binding).await?;
        let Some(usual) = usual.filter(|cost| *cost >= COMPARED_COST_MIN) else {
            return Ok(None);
        };
        let mut best: Option<(usize, f64)> = None;
        for (position, other) in matches.iter().enumerate().take(COMPARED_MAX).skip(1) {
            let cost = self.cost(&other.sql, facts, binding).await?;
            let least = best.map_or(usual / CLEARLY, |(_, least)| least);
            if let Some(cost) = cost.filter(|cost| *cost < least) {
                best = Some((position, cost));
            }
        }
        Ok(best.map(|(chosen, cost)| {
            let others = (0..matches.len()).filter(|position| *position != chosen);
            let names = |position: usize| {
                let found = matches.get(position);
                found.map_or(String::new(), |found| snapshot.names(found).join(", "))
            };
            let because = format!(
                "the planner expects a cost of {cost:.0} over {}, and of {usual:.0} over {}",
                names(chosen),
                names(0)
            );
            Order {
                positions: std::iter::once(chosen).chain(others).collect(),
                because: Some(because),
            }
        }))
    }

    /// Whether the planner expects the original to cost clearly less. Of rows read beside a rollup, less is clear: they are read twice
    /// when they change meanwhile.
    async fn compare_costs(
        &self,
        decided: &Decided,
        found: &Match,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Result<Costs, DescribeTrouble> {
        let rewritten = self.cost(&found.sql, facts, binding).await?;
        let Some(rewritten) = rewritten.filter(|cost| *cost >= COMPARED_COST_MIN) else {
            return Ok(Costs::Near);
        };
        let clearly = match found.base_reads.is_empty() {
            true => CLEARLY,
            false => 1.0,
        };
        let original = self.cost(&decided.sql, facts, binding).await?;
        Ok(match original {
            Some(original) if original * clearly < rewritten => {
                let detail = format!(
                    "the planner expects a cost of {original:.0} as it came, and of {rewritten:.0} over the rollup"
                );
                Costs::BaseCheaper(Reason::new(Code::BaseCheaper, detail))
            }
            Some(original) if original >= rewritten * FAR_DEARER => Costs::FarDearer,
            Some(_) | None => Costs::Near,
        })
    }

    async fn cost(
        &self,
        sql: &str,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Result<Option<f64>, DescribeTrouble> {
        let (_permit, mut connection) = self.connection().await?;
        telemetry::asked_about(Question::Cost);
        let types: &[u32] = binding.map_or(&[], |binding| &binding.parameter_types);
        let values = binding.map(values).unwrap_or_default();
        let (path, zone) = (&facts.search_path, &facts.time_zone);
        let cost = planned_cost(&mut connection, sql, (types, &values), path, zone).await;
        match cost {
            Ok(cost) => {
                self.keep(connection);
                Ok(cost)
            }
            // Of a table that pgstar itself may not read, for instance.
            Err(DescribeError::Refused { .. } | DescribeError::TemporarySchema(_)) => Ok(None),
            Err(error @ DescribeError::Unavailable(_)) => Err(DescribeTrouble::Describe(error)),
        }
    }

    /// Whether the server's clocks are as the premise says; should they be changed, there will be another snapshot.
    async fn holds(
        &self,
        snapshot: &Snapshot,
        premise: &Premise,
        time_zone: &str,
    ) -> Result<bool, DescribeTrouble> {
        self.warehouse.watch_clocks(time_zone);
        let key = (snapshot.version, premise.clone(), time_zone.to_owned());
        if let Some(known) = self.clocks.get(&key) {
            return Ok(known);
        }
        let (_permit, mut connection) = self.connection().await?;
        telemetry::asked_about(Question::Clocks);
        let answer = match holds(&mut connection, premise, time_zone).await {
            Ok(answer) => answer,
            Err(DescribeError::Refused { .. }) => false,
            Err(error) => return Err(DescribeTrouble::Describe(error)),
        };
        self.clocks.insert(key, answer);
        self.keep(connection);
        Ok(answer)
    }

    /// Compares the statements, and where they only hold a query, those queries first.
    async fn compare_all(
        &self,
        decided: &Decided,
        found: &Match,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Result<Parity, DescribeTrouble> {
        if let (Some((wrapping, original)), Some(rewritten)) =
            (&decided.decision.wrapping, &found.query)
        {
            let queries = self.compare(original, rewritten, facts, binding).await?;
            match (queries, wrapping) {
                (Ok(_), Wrapping::Explain) => {}
                // Neither is described by itself.
                (Ok(_), Wrapping::Cursor | Wrapping::Copy) => return Ok(Ok([].into())),
                (refused, _) => return Ok(refused),
            }
        }
        self.compare(&decided.sql, &found.sql, facts, binding).await
    }

    async fn compare(
        &self,
        original: &str,
        rewritten: &str,
        facts: &SessionFacts,
        binding: Option<&Binding>,
    ) -> Result<Parity, DescribeTrouble> {
        let types: &[u32] = binding.map_or(&[], |binding| &binding.parameter_types);
        let (_permit, mut connection) = self.connection().await?;
        telemetry::asked_about(Question::Columns);
        let original = match describe(&mut connection, original, &facts.search_path, types).await {
            Ok(description) => description,
            Err(error) => return self.refused(error, Code::StatementRefused),
        };
        telemetry::asked_about(Question::Columns);
        let rewritten = match describe(&mut connection, rewritten, &facts.search_path, types).await
        {
            Ok(description) => description,
            Err(DescribeError::Refused { sqlstate, .. }) if sqlstate == UNDEFINED_TABLE => {
                return Err(DescribeTrouble::Replaced);
            }
            Err(error) => return self.refused(error, Code::DescribeMismatch),
        };
        self.keep(connection);
        Ok(parity(&original, &rewritten))
    }

    fn keep(&self, connection: Connection) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
    }

    /// A connection to ask on, and the right to, for as long as the permit is held.
    async fn connection(&self) -> Result<(SemaphorePermit<'_>, Connection), DescribeTrouble> {
        let permit = self.permits.acquire().await;
        let permit = permit.map_err(|_| DescribeTrouble::Closed)?;
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let connection = match idle.filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => self.warehouse.connector().connect().await?,
        };
        Ok((permit, connection))
    }

    fn refused(&self, error: DescribeError, code: Code) -> Result<Parity, DescribeTrouble> {
        match error {
            DescribeError::Refused { sqlstate, message } => Ok(Err(Reason::new(
                code,
                format!("{message} (SQLSTATE {sqlstate})"),
            ))),
            DescribeError::TemporarySchema(_) => Ok(Err(Reason::new(Code::TemporaryObjects, ""))),
            error @ DescribeError::Unavailable(_) => Err(DescribeTrouble::Describe(error)),
        }
    }
}

/// What the columns of two statements depend on; `None` where a shape does not say.
fn alike_key(
    snapshot: &Snapshot,
    decided: &Decided,
    found: &Match,
    facts: &SessionFacts,
    binding: Option<&Binding>,
) -> Option<Key> {
    if decided.decision.wrapping.is_some() {
        return None;
    }
    Some(Key::of(&[
        &snapshot.version.to_be_bytes(),
        shape(&decided.sql)?.as_bytes(),
        shape(&found.sql)?.as_bytes(),
        facts.search_path.join("\0").as_bytes(),
        &protocol(binding),
    ]))
}

/// Whether the planner is asked what both statements cost.
fn is_compared(snapshot: &Snapshot, decided: &Decided, found: &Match) -> bool {
    let rollups = found.rollups.iter();
    let mut rows = rollups.filter_map(|rollup| Some(snapshot.rollups.get(*rollup)?.rows));
    let is_large = rows.any(|rows| rows >= COMPARED_ROWS_MIN);
    let is_question = is_large || !found.base_reads.is_empty();
    is_question && decided.decision.wrapping.is_none()
}

/// What is bound; nothing where it cannot be read, which PostgreSQL will say.
fn values(binding: &Binding) -> Vec<Bound<'_>> {
    let values = bound_values(&binding.bind).unwrap_or_default().into_iter();
    let bound = |BoundValue { bytes, is_text }| Bound { bytes, is_text };
    values.map(bound).collect()
}

/// How the original's cost compares with the rewritten statement's.
enum Costs {
    /// It is clearly cheaper.
    BaseCheaper(Reason),
    /// It is not, or neither takes long.
    Near,
    /// It is dearer by far.
    FarDearer,
}

/// The question could not be put; it is put again for the next statement.
#[derive(Debug, thiserror::Error)]
enum DescribeTrouble {
    #[error(transparent)]
    Connect(#[from] pgstar_postgres::connect::Error),
    #[error(transparent)]
    Describe(DescribeError),
    #[error("pgstar is stopping")]
    Closed,
    /// The rollup's table was dropped since the decision; the next decision names the table after it.
    #[error("the rollup's table is gone")]
    Replaced,
}

fn parity(original: &Description, rewritten: &Description) -> Parity {
    let refuse = |detail: String| Err(Reason::new(Code::DescribeMismatch, detail));
    if original.columns.len() != rewritten.columns.len() {
        return refuse(format!(
            "{} columns instead of {}",
            rewritten.columns.len(),
            original.columns.len()
        ));
    }
    if original.parameters != rewritten.parameters {
        return refuse("the parameters have other types".to_owned());
    }
    for (mine, theirs) in original.columns.iter().zip(&rewritten.columns) {
        let is_same = mine.name == theirs.name
            && mine.type_oid == theirs.type_oid
            && mine.typmod == theirs.typmod;
        if !is_same {
            let show = |column: &pgstar_postgres::describe::DescribedColumn| {
                format!(
                    "\"{}\" type {} modifier {}",
                    column.name, column.type_oid.0, column.typmod
                )
            };
            return refuse(format!("column {} became {}", show(mine), show(theirs)));
        }
    }
    Ok(original
        .columns
        .iter()
        .map(|column| ColumnOrigin {
            table: column.table_oid.0,
            attnum: column.attnum,
        })
        .collect())
}
