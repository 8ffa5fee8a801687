//! Rollups: what a defining SELECT stores, and how its table is built.

use std::collections::BTreeSet;

use crate::approximate::Floats;
use crate::block::{Attachment, Block, Distinct, Occurrence, Tables};
use crate::bucket::{self, Bucket, Grain, as_bucket};
use crate::candidates::Offer;
use crate::catalog::{AttNum, Catalog, ColumnType, Oid};
use crate::equivalence::Equivalence;
use crate::expr::{Aggregate, ColumnRef, ColumnTypes, OccurrenceId, Scalar};
use crate::functions::Volatility;
use crate::libraries;
use crate::normalize::{has_rows, normalize};
use crate::parse::parse_query;
use crate::place::Names;
use crate::print::{ColumnPrinter, conjunction, expression, quote_identifier, quote_qualified};
use crate::query::{Body, Query};
use crate::reason::{Code, Reason};
use crate::scalar::quoted;
use crate::stored::stored_columns;
use crate::types;
use crate::volatility::{may_raise, volatility};

/// Changes whenever the same definition would be stored in another layout, so that rollups are rebuilt.
const LAYOUT_VERSION: u32 = 1;

/// What one column of a rollup table holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// A group key.
    Key(Scalar),
    /// A partial aggregate over the base rows of the group.
    Partial(Aggregate),
}

/// A column of a rollup table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredColumn {
    /// The column's name, unique in the table.
    pub name: String,
    /// What it holds.
    pub stored: Stored,
    /// Its type.
    pub ty: ColumnType,
}

/// A rollup as its defining SELECT describes it.
#[derive(Debug, Clone)]
pub struct RollupDefinition {
    /// The name in the configuration.
    pub name: String,
    /// The columns of its table; the first partial is always `count(*)`.
    pub columns: Vec<StoredColumn>,
    /// The SELECT whose result the table holds.
    pub build_select: String,
    /// Equal for two definitions only if their tables hold the same columns of the same rows.
    pub fingerprint: String,
    /// The tables that it is built from.
    pub base_relations: Vec<Oid>,
    pub(crate) block: Block,
    pub(crate) classes: Equivalence,
    /// `columns` and the block's predicates in canonical form over `classes`, made once because every
    /// statement is compared with them.
    canonical_columns: Vec<Stored>,
    pub(crate) canonical_predicates: Vec<Scalar>,
    /// The keys that are buckets of time.
    pub(crate) time_keys: Vec<TimeKey>,
    /// What it has, in short.
    pub(crate) offer: Offer,
    /// Several rows may be of one group.
    pub(crate) may_repeat_groups: bool,
    pub(crate) floats: Floats,
}

/// A key that gives the beginning of a bucket of time.
#[derive(Debug, Clone)]
pub(crate) struct TimeKey {
    /// Its position in the table.
    pub(crate) position: usize,
    pub(crate) grain: Grain,
    /// The timestamp that lies in the bucket, in canonical form.
    pub(crate) operand: Scalar,
    /// The beginning is stored as a date.
    pub(crate) stored_as_date: bool,
    /// Infinite times are stored as NULL.
    pub(crate) loses_infinity: bool,
    /// For buckets of instants, in UTC: how the beginning is stored.
    pub(crate) instant: Option<InstantForm>,
}

/// How the beginning of a bucket of instants is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstantForm {
    /// As the instant.
    Instant,
    /// As a timestamp in UTC.
    Utc,
}

/// A rollup whose table exists.
#[derive(Debug, Clone)]
pub struct Rollup {
    /// What it stores.
    pub definition: RollupDefinition,
    /// The schema of its table.
    pub schema: String,
    /// Its table.
    pub table: String,
    /// How many rows the table has; the estimated cost of reading it.
    pub rows: u64,
}

impl RollupDefinition {
    /// Reads a defining SELECT, or says what it may not contain.
    pub fn parse(
        name: &str,
        sql: &str,
        catalog: &Catalog,
        search_path: &[String],
    ) -> Result<Self, Reason> {
        RollupDefinition::parse_with(name, sql, Floats::Refused, catalog, search_path)
    }

    /// Reads a defining SELECT whose declaration says this of floating-point numbers.
    pub fn parse_with(
        name: &str,
        sql: &str,
        floats: Floats,
        catalog: &Catalog,
        search_path: &[String],
    ) -> Result<Self, Reason> {
        let query = parse_query(sql)?;
        let names = Names {
            catalog,
            search_path,
            bound: &[],
        };
        let block = only_block(normalize(&query, names)?)?;
        let tables = block.tables(catalog);
        refuse_clauses(&block)?;
        refuse_session_dependence(&block, tables)?;
        refuse_raising_filters(&block, tables)?;
        RollupDefinition::of_block(name, block, floats, catalog)
    }

    /// What is stored of a block, be it in a table or only while a statement runs.
    pub(crate) fn of_block(
        name: &str,
        block: Block,
        floats: Floats,
        catalog: &Catalog,
    ) -> Result<Self, Reason> {
        let tables = block.tables(catalog);
        let columns = stored_columns(&block, tables, floats)?;
        let build_select = build_select(&block, &columns, tables);
        let types: Vec<String> = columns
            .iter()
            .map(|column| format!("{}:{}", column.ty.oid.0, column.ty.typmod))
            .collect();
        let fingerprint = format!(
            "layout {LAYOUT_VERSION}; types {}; tables {}{}; {build_select}",
            types.join(" "),
            base_identity(&block, tables),
            libraries::dependence(&block, &columns, tables, catalog.libraries())
        );
        Ok(RollupDefinition {
            name: name.to_owned(),
            build_select,
            fingerprint,
            floats,
            ..RollupDefinition::of_columns(block, columns, catalog)
        })
    }

    /// What has these columns of the block's rows, without a name or a table of its own.
    pub(crate) fn of_columns(block: Block, columns: Vec<StoredColumn>, catalog: &Catalog) -> Self {
        let tables = block.tables(catalog);
        let mut base_relations: Vec<Oid> = block
            .occurrences
            .iter()
            .filter_map(Occurrence::relation)
            .collect();
        base_relations.sort();
        base_relations.dedup();
        let classes = Equivalence::of(&block.predicates, &tables, catalog.user_names());
        let canonical_columns: Vec<Stored> = columns
            .iter()
            .map(|column| column.stored.canonical(&classes))
            .collect();
        let time_keys = time_keys(&canonical_columns, tables);
        let offer = Offer::of(&block, &canonical_columns, &classes, tables);
        let canonical_predicates = block
            .predicates
            .iter()
            .map(|predicate| classes.canonical(predicate))
            .collect();
        RollupDefinition {
            name: String::new(),
            columns,
            build_select: String::new(),
            fingerprint: String::new(),
            base_relations,
            block,
            classes,
            canonical_columns,
            canonical_predicates,
            time_keys,
            offer,
            may_repeat_groups: false,
            floats: Floats::Refused,
        }
    }

    /// The names of the key columns, in order.
    pub fn key_columns(&self) -> impl Iterator<Item = &str> {
        self.columns
            .iter()
            .filter(|column| matches!(column.stored, Stored::Key(_)))
            .map(|column| column.name.as_str())
    }

    /// The group keys in canonical form, with their positions in the table.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (usize, &Scalar)> {
        let columns = self.canonical_columns.iter().enumerate();
        columns.filter_map(|(position, stored)| match stored {
            Stored::Key(key) => Some((position, key)),
            Stored::Partial(_) => None,
        })
    }

    /// The group key at this position of the table, in canonical form.
    pub(crate) fn key_at(&self, position: usize) -> Option<&Scalar> {
        match self.canonical_columns.get(position)? {
            Stored::Key(key) => Some(key),
            Stored::Partial(_) => None,
        }
    }

    /// The partial aggregates in canonical form, with their positions in the table.
    pub(crate) fn partials(&self) -> impl Iterator<Item = (usize, &Aggregate)> {
        let columns = self.canonical_columns.iter().enumerate();
        columns.filter_map(|(position, stored)| match stored {
            Stored::Partial(partial) => Some((position, partial)),
            Stored::Key(_) => None,
        })
    }
}

impl Stored {
    fn canonical(&self, classes: &Equivalence) -> Stored {
        match self {
            Stored::Key(key) => Stored::Key(classes.canonical(key)),
            Stored::Partial(partial) => Stored::Partial(classes.canonical_aggregate(partial)),
        }
    }
}

fn time_keys(columns: &[Stored], tables: Tables<'_>) -> Vec<TimeKey> {
    let mut keys = vec![];
    for (position, stored) in columns.iter().enumerate() {
        let Stored::Key(key) = stored else {
            continue;
        };
        let mut add = |bucket: Bucket<'_>, instant: Option<InstantForm>| {
            keys.push(TimeKey {
                position,
                grain: bucket.grain,
                operand: bucket.operand.clone(),
                stored_as_date: bucket.is_date,
                loses_infinity: bucket.loses_infinity,
                instant,
            });
        };
        if let Some(bucket) = as_bucket(key, &tables) {
            if let Some(instant) = bucket::as_utc(bucket.operand, &tables) {
                let of_instant = Bucket {
                    operand: instant,
                    ..bucket.clone()
                };
                add(of_instant, Some(InstantForm::Utc));
            }
            add(bucket, None);
        } else if let Some(bucket) = bucket::as_bucket_of_instants(key, &tables) {
            add(bucket, Some(InstantForm::Instant));
        }
    }
    keys
}

/// Which tables and columns are read, whatever their names: one that was dropped and made again under its
/// old name, or whose type has changed, holds other values.
fn base_identity(block: &Block, tables: Tables<'_>) -> String {
    let used: BTreeSet<(OccurrenceId, AttNum)> = block
        .scalars()
        .chain(block.left_conditions())
        .flat_map(Scalar::columns)
        .map(|column| (column.occurrence, column.attnum))
        .collect();
    let column = |(occurrence, attnum): &(OccurrenceId, AttNum)| {
        let ty = tables.relation(*occurrence)?.column_at(*attnum)?.ty;
        let AttNum(attnum) = attnum;
        let ColumnType {
            oid,
            typmod,
            collation,
        } = ty;
        Some(format!(".{attnum}:{}:{typmod}:{}", oid.0, collation.0))
    };
    let table = |(position, occurrence): (usize, &Occurrence)| {
        let of_table = used.iter().filter(|(id, _)| *id == OccurrenceId(position));
        let columns: String = of_table.filter_map(column).collect();
        let relation = occurrence.relation().map_or(0, |oid| oid.0);
        format!("{relation}{columns}")
    };
    let all: Vec<String> = block.occurrences.iter().enumerate().map(table).collect();
    all.join(" ")
}

/// A rollup is one block over base tables.
fn only_block(query: Query) -> Result<Block, Reason> {
    let Query { with, body } = query;
    let block = match body {
        Body::Block(block) if with.is_empty() => *block,
        Body::Block(_) => return Err(Reason::new(Code::NestedBlock, "WITH")),
        Body::SetOperation(_) | Body::Values(_) => return Err(Reason::new(Code::SetOperation, "")),
    };
    if let Some(select) = block.sub_selects().next() {
        return Err(Reason::new(Code::NestedBlock, &select.name));
    }
    let scalars = block.scalars().chain(block.left_conditions());
    if scalars.into_iter().any(Scalar::has_sub_query) {
        return Err(Reason::new(Code::SubQuery, ""));
    }
    if block.scalars().any(Scalar::has_window) {
        return Err(Reason::new(Code::WindowFunction, ""));
    }
    if block.grouping_sets.is_some() {
        return Err(Reason::new(Code::GroupingSets, ""));
    }
    if !block.is_aggregated || block.occurrences.is_empty() {
        return Err(Reason::new(Code::NotAggregate, ""));
    }
    Ok(block)
}

fn refuse_clauses(block: &Block) -> Result<(), Reason> {
    let refuse = |clause: &str| {
        Err(Reason::new(
            Code::UnsupportedClause,
            format!("a rollup is a SELECT … GROUP BY: leave out {clause}"),
        ))
    };
    match block {
        _ if block.group_by.is_empty() && block.having == [has_rows()] => {
            refuse("constants in GROUP BY")
        }
        _ if !block.having.is_empty() => refuse("HAVING"),
        _ if !block.order_by.is_empty() => refuse("ORDER BY"),
        _ if !block.limit.is_none() => refuse("LIMIT and OFFSET"),
        _ if block.distinct != Distinct::No => refuse("DISTINCT beside GROUP BY"),
        _ => Ok(()),
    }
}

/// A rollup is built in one session and read in others: nothing in it may depend on settings or time.
fn refuse_session_dependence(block: &Block, tables: Tables<'_>) -> Result<(), Reason> {
    let conditions = block.left_conditions();
    let outputs = block.outputs.iter().map(|output| &output.value);
    for scalar in block
        .predicates
        .iter()
        .chain(conditions)
        .chain(&block.group_by)
        .chain(outputs)
    {
        if scalar.any(&|node| matches!(node, Scalar::Parameter(_))) {
            return Err(Reason::new(
                Code::UnsupportedExpression,
                "a parameter in a rollup",
            ));
        }
        if volatility(scalar, &tables) != Volatility::Immutable {
            let detail = format!(
                "{} depends on the session's settings (such as TimeZone or DateStyle) or on the time; {}",
                label(scalar, tables),
                independent_form(scalar, tables)
            );
            return Err(Reason::new(Code::SessionSetting, detail));
        }
    }
    Ok(())
}

/// What to write instead of an expression that depends on the session's settings.
fn independent_form(scalar: &Scalar, tables: Tables<'_>) -> &'static str {
    let reads = |oid| {
        let mut columns = scalar.columns().into_iter();
        columns.any(|column| tables.column_type(column).is_some_and(|ty| ty.oid.0 == oid))
    };
    if reads(types::TIMESTAMPTZ) {
        "keep instants in UTC, such as date_bin('15 minutes', …, '2000-01-01 00:00+00')"
    } else if reads(types::DATE) {
        "group by the plain column, or cast it to timestamp"
    } else {
        "group by the plain column"
    }
}

/// Upkeep would stop at rows that a query with another filter does not look at.
fn refuse_raising_filters(block: &Block, tables: Tables<'_>) -> Result<(), Reason> {
    let mut filters = block.predicates.iter().chain(block.left_conditions());
    match filters.find(|filter| may_raise(filter, &tables)) {
        Some(filter) => Err(Reason::new(Code::MayRaise, label(filter, tables))),
        None => Ok(()),
    }
}

pub(crate) fn label(scalar: &Scalar, tables: Tables<'_>) -> String {
    quoted(&expression(scalar, &|column: ColumnRef| {
        tables.column_label(column)
    }))
}

/// The SELECT that fills the table, every name qualified.
fn build_select(block: &Block, columns: &[StoredColumn], tables: Tables<'_>) -> String {
    let aliases = table_aliases(tables);
    let print = |column: ColumnRef| print_base_column(column, tables, &aliases);
    let items: Vec<String> = columns
        .iter()
        .map(|column| {
            let value = match &column.stored {
                Stored::Key(key) => key.clone(),
                Stored::Partial(partial) => Scalar::Aggregate(Box::new(partial.clone())),
            };
            format!(
                "{} AS {}",
                expression(&value, &print),
                quote_identifier(&column.name)
            )
        })
        .collect();
    let mut sql = format!(
        "SELECT {} FROM {}",
        items.join(", "),
        print_from(tables, &aliases, &print)
    );
    if !block.predicates.is_empty() {
        sql += &format!(" WHERE {}", conjunction(&block.predicates, &print));
    }
    let positions: Vec<String> = (1..=columns
        .iter()
        .filter(|column| matches!(column.stored, Stored::Key(_)))
        .count())
        .map(|n| n.to_string())
        .collect();
    if positions.is_empty() {
        sql
    } else {
        format!("{sql} GROUP BY {}", positions.join(", "))
    }
}

pub(crate) fn print_from(
    tables: Tables<'_>,
    aliases: &[String],
    print: ColumnPrinter<'_>,
) -> String {
    let mention = |position: usize| {
        let relation = tables.relation(crate::expr::OccurrenceId(position));
        let name = relation
            .map(|relation| quote_qualified(&relation.schema, &relation.name))
            .unwrap_or_default();
        format!(
            "{name} AS {}",
            aliases.get(position).map_or("", String::as_str)
        )
    };
    let is_inner = |position: &usize| {
        tables
            .occurrences
            .get(*position)
            .is_some_and(|occurrence| occurrence.attachment == Attachment::Inner)
    };
    let inner: Vec<String> = (0..tables.occurrences.len())
        .filter(is_inner)
        .map(mention)
        .collect();
    let left =
        tables.occurrences.iter().enumerate().filter_map(
            |(position, occurrence)| match &occurrence.attachment {
                Attachment::Left(condition) => Some(format!(
                    " LEFT JOIN {} ON {}",
                    mention(position),
                    conjunction(condition, print)
                )),
                Attachment::Inner => None,
            },
        );
    let left: String = left.collect();
    // A comma binds looser than JOIN, so the left joins' conditions could not name the tables before it.
    if left.is_empty() {
        inner.join(", ")
    } else {
        inner.join(" CROSS JOIN ") + &left
    }
}

/// One alias for each occurrence: the table's name, numbered where it occurs again. Already quoted.
pub(crate) fn table_aliases(tables: Tables<'_>) -> Vec<String> {
    let mut aliases: Vec<String> = Vec::new();
    for position in 0..tables.occurrences.len() {
        let relation = tables.relation(crate::expr::OccurrenceId(position));
        let name = relation.map_or("", |relation| relation.name.as_str());
        let numbered =
            std::iter::once(name.to_owned()).chain((2..).map(|number| format!("{name}_{number}")));
        let free = numbered
            .map(|candidate| quote_identifier(&candidate))
            .find(|candidate| !aliases.contains(candidate));
        aliases.extend(free);
    }
    aliases
}

pub(crate) fn print_base_column(
    column: ColumnRef,
    tables: Tables<'_>,
    aliases: &[String],
) -> String {
    let name = tables
        .relation(column.occurrence)
        .and_then(|relation| relation.column_at(column.attnum))
        .map_or("", |column| &column.name);
    format!(
        "{}.{}",
        aliases.get(column.occurrence.0).map_or("", String::as_str),
        quote_identifier(name)
    )
}
