//! Printing the rewritten statement: every part of it, those that no rollup answers included.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::block::{Attachment, Block, Distinct, Limit, Occurrence, Output, Source, Tables};
use crate::catalog::{AttNum, Catalog, Oid};
use crate::derive::ROLLUP_OCCURRENCE;
use crate::expr::{ColumnRef, Literal, OccurrenceId, Scalar};
use crate::print::{
    ColumnPrinter, Place, conjunction, expression, list, operand, print_order, quote_identifier,
    quote_qualified,
};
use crate::query::{Body, CommonTable, Query, Rows, SetOperation, SubSelect};
use crate::ranges::TableRows;
use crate::rollup::Rollup;

/// What stands for a block in the rewritten statement.
#[derive(Clone, Copy)]
pub(crate) struct Replacement<'a> {
    /// The rollup, unless it is a sub-select of the block that reads it.
    pub(crate) rollup: Option<&'a Rollup>,
    /// The block over the rollup's table, or over parts.
    pub(crate) block: &'a Block,
}

/// Prints one rewritten statement.
pub(crate) struct Emitter<'a> {
    pub(crate) catalog: &'a Catalog,
    /// What stands for a block; `None` for one that stays as it is.
    pub(crate) replacement: &'a dyn Fn(&Block) -> Option<Replacement<'a>>,
    /// The rows that matter of the tables in the FROM of a block that stays as it is.
    pub(crate) rows: &'a dyn Fn(&Block) -> Vec<TableRows>,
    /// The rows of base tables that the printed statement reads; others are only mentioned.
    pub(crate) reads: RefCell<Vec<TableRows>>,
    /// The queries around the one that is printed, the nearest last.
    pub(crate) around: RefCell<Vec<Printed>>,
}

/// A query whose sub-query is being printed.
pub(crate) struct Printed {
    /// What the sub-query reads of it.
    outer: Vec<String>,
    /// The aliases that the sub-query must not have.
    aliases: Vec<String>,
}

impl<'a> Emitter<'a> {
    /// The query.
    pub(crate) fn query(&self, query: &Query) -> String {
        let Query { with, body } = query;
        let items: Vec<String> = with.iter().map(|item| self.common_table(item)).collect();
        let with = match items.is_empty() {
            true => String::new(),
            false => format!("WITH {} ", items.join(", ")),
        };
        let body = match body {
            Body::Block(block) => self.block(block),
            Body::SetOperation(operation) => self.set_operation(operation),
            Body::Values(rows) => self.values(rows),
        };
        with + &body
    }

    fn common_table(&self, item: &CommonTable) -> String {
        let CommonTable {
            name,
            materialized,
            query,
        } = item;
        let how = match materialized {
            None => "",
            Some(true) => "MATERIALIZED ",
            Some(false) => "NOT MATERIALIZED ",
        };
        format!("{} AS {how}({})", quote_identifier(name), self.query(query))
    }

    fn set_operation(&self, operation: &SetOperation) -> String {
        let SetOperation {
            operator,
            all,
            left,
            right,
            order_by,
            limit,
        } = operation;
        let all = if *all { " ALL" } else { "" };
        let mut sql = format!(
            "({}) {}{all} ({})",
            self.query(left),
            operator.as_str(),
            self.query(right)
        );
        let nowhere = |_: ColumnRef| String::new();
        if !order_by.is_empty() {
            sql += &format!(" {}", print_order(order_by, &nowhere));
        }
        sql + &print_limit(limit, &nowhere)
    }

    fn values(&self, rows: &[Vec<Scalar>]) -> String {
        let nowhere = |_: ColumnRef| String::new();
        let row = |row: &Vec<Scalar>| format!("({})", list(row, &nowhere));
        let rows: Vec<String> = rows.iter().map(row).collect();
        format!("VALUES {}", rows.join(", "))
    }

    fn block(&self, block: &Block) -> String {
        match (self.replacement)(block) {
            Some(Replacement {
                rollup: Some(rollup),
                block: derived,
            }) => {
                self.note_all(derived);
                self.select(derived, Some(rollup), guard(block, self.catalog))
            }
            Some(Replacement {
                rollup: None,
                block: over_parts,
            }) => {
                self.note_all(over_parts);
                self.select(over_parts, None, guard(block, self.catalog))
            }
            None => {
                self.note((self.rows)(block));
                let needs_guard = has_unread_mentions(block) || !block.views.is_empty();
                let guard = needs_guard.then(|| guard(block, self.catalog)).flatten();
                self.select(block, None, guard)
            }
        }
    }

    fn note(&self, rows: Vec<TableRows>) {
        let mut reads = self.reads.borrow_mut();
        for rows in rows {
            if !reads.contains(&rows) {
                reads.push(rows);
            }
        }
    }

    /// Whatever is in the tables that the block reads.
    fn note_all(&self, block: &Block) {
        let tables = block.occurrences.iter().filter_map(Occurrence::relation);
        self.note(tables.map(TableRows::all).collect());
    }

    fn select(&self, block: &Block, rollup: Option<&Rollup>, guard: Option<String>) -> String {
        let names = Names {
            emitter: self,
            block,
            rollup,
            aliases: aliases(block, self.catalog, &self.aliases_around()),
        };
        let distinct = match &block.distinct {
            Distinct::No => String::new(),
            Distinct::Yes => "DISTINCT ".to_owned(),
            Distinct::On(keys) => format!("DISTINCT ON ({}) ", list(keys, &names)),
        };
        let output = |output: &Output| {
            format!(
                "{} AS {}",
                expression(&output.value, &names),
                quote_identifier(&output.name)
            )
        };
        let outputs: Vec<String> = block.outputs.iter().map(output).collect();
        let mut sql = format!("SELECT {distinct}{}", outputs.join(", "));
        let (from, filters) = names.from();
        if !from.is_empty() {
            sql += &format!(" FROM {from}");
        }
        let is_only_filter = filters.len() == 1 && guard.is_none();
        let filters = filters.into_iter().map(|filter| match is_only_filter {
            true => expression(filter, &names),
            false => operand(filter, &names),
        });
        let filters: Vec<String> = filters.chain(guard).collect();
        if !filters.is_empty() {
            sql += &format!(" WHERE {}", filters.join(" AND "));
        }
        sql += &names.group_by();
        if !block.having.is_empty() {
            sql += &format!(" HAVING {}", conjunction(&block.having, &names));
        }
        if !block.order_by.is_empty() {
            sql += &format!(" {}", print_order(&block.order_by, &names));
        }
        sql + &print_limit(&block.limit, &names)
    }

    fn aliases_around(&self) -> Vec<String> {
        let around = self.around.borrow();
        let aliases = around.iter().flat_map(|printed| &printed.aliases);
        aliases.cloned().collect()
    }

    fn source(&self, source: &Source, rollup: Option<&Rollup>) -> String {
        match source {
            Source::Table(oid) => {
                let relation = self.catalog.relation_by_oid(*oid);
                relation.map_or_else(String::new, |relation| {
                    quote_qualified(&relation.schema, &relation.name)
                })
            }
            Source::Rollup => rollup.map_or_else(String::new, |rollup| {
                quote_qualified(&rollup.schema, &rollup.table)
            }),
            Source::Select(select) => match &select.rows {
                Rows::Query(query) => format!("({})", self.query(query)),
                Rows::CommonTable(name) => quote_identifier(name),
            },
        }
    }
}

/// How one block's columns are named.
struct Names<'e, 'a> {
    emitter: &'e Emitter<'a>,
    block: &'e Block,
    rollup: Option<&'e Rollup>,
    aliases: Vec<String>,
}

impl Place for Names<'_, '_> {
    fn column(&self, column: ColumnRef) -> String {
        let tables = self.block.tables(self.emitter.catalog);
        let name = match tables.source(column.occurrence) {
            Some(Source::Rollup) => self
                .rollup
                .and_then(|rollup| rollup.definition.columns.get(column.attnum.0 as usize))
                .map(|stored| quote_identifier(&stored.name)),
            Some(Source::Select(select)) => column_name(select, column.attnum),
            Some(Source::Table(_)) | None => tables
                .relation(column.occurrence)
                .and_then(|relation| relation.column_at(column.attnum))
                .map(|column| quote_identifier(&column.name)),
        };
        format!(
            "{}.{}",
            self.alias(column.occurrence),
            name.unwrap_or_default()
        )
    }

    fn query(&self, query: &Query, outer: &[Scalar]) -> String {
        let printed = Printed {
            outer: outer.iter().map(|value| operand(value, self)).collect(),
            aliases: self.aliases.clone(),
        };
        self.emitter.around.borrow_mut().push(printed);
        let text = self.emitter.query(query);
        self.emitter.around.borrow_mut().pop();
        text
    }

    fn outer(&self, position: usize) -> String {
        let around = self.emitter.around.borrow();
        let nearest = around.last();
        let value = nearest.and_then(|printed| printed.outer.get(position));
        value.cloned().unwrap_or_default()
    }
}

impl Names<'_, '_> {
    fn alias(&self, occurrence: OccurrenceId) -> &str {
        self.aliases.get(occurrence.0).map_or("", String::as_str)
    }

    fn mention(&self, position: usize, source: &Source) -> String {
        let rows = self.emitter.source(source, self.rollup);
        let alias = self.alias(OccurrenceId(position));
        let columns = match source {
            Source::Select(select) if needs_column_aliases(select) => {
                let numbered = (1..=select.columns.len()).map(|number| format!("c{number}"));
                format!(" ({})", numbered.collect::<Vec<_>>().join(", "))
            }
            Source::Select(_) | Source::Table(_) | Source::Rollup => String::new(),
        };
        format!("{rows} AS {alias}{columns}")
    }

    /// FROM, and the predicates that are left for WHERE.
    ///
    /// Beside a left join the tables are joined in the order in which the statement has them, each as
    /// soon as its conditions can be said: PostgreSQL takes more than a few joins as they are written.
    fn from(&self) -> (String, Vec<&Scalar>) {
        let occurrences = &self.block.occurrences;
        let has_left = occurrences
            .iter()
            .any(|occurrence| occurrence.attachment != Attachment::Inner);
        let mut left: Vec<&Scalar> = self.block.predicates.iter().collect();
        let mut text = String::new();
        for (position, occurrence) in occurrences.iter().enumerate() {
            let mention = self.mention(position, &occurrence.source);
            text += &match &occurrence.attachment {
                _ if position == 0 => mention,
                Attachment::Inner if !has_left => format!(", {mention}"),
                Attachment::Inner => {
                    let (ready, rest): (Vec<&Scalar>, Vec<&Scalar>) = left
                        .into_iter()
                        .partition(|predicate| joins_at(predicate, position));
                    left = rest;
                    match ready.is_empty() {
                        true => format!(" CROSS JOIN {mention}"),
                        false => format!(" JOIN {mention} ON {}", self.all(&ready)),
                    }
                }
                Attachment::Left(condition) => {
                    let condition: Vec<&Scalar> = condition.iter().collect();
                    format!(" LEFT JOIN {mention} ON {}", self.all(&condition))
                }
            };
        }
        (text, left)
    }

    fn all(&self, conjuncts: &[&Scalar]) -> String {
        match conjuncts {
            [] => "TRUE".to_owned(),
            [only] => expression(only, self),
            several => {
                let operands = several.iter().map(|conjunct| operand(conjunct, self));
                operands.collect::<Vec<_>>().join(" AND ")
            }
        }
    }

    fn group_by(&self) -> String {
        let keys = &self.block.group_by;
        match &self.block.grouping_sets {
            None if keys.is_empty() => String::new(),
            None => format!(" GROUP BY {}", list(keys, self)),
            Some(sets) => {
                let set = |set: &Vec<usize>| {
                    let keys = set.iter().filter_map(|position| keys.get(*position));
                    let keys: Vec<String> = keys.map(|key| expression(key, self)).collect();
                    format!("({})", keys.join(", "))
                };
                let sets: Vec<String> = sets.iter().map(set).collect();
                format!(" GROUP BY GROUPING SETS ({})", sets.join(", "))
            }
        }
    }
}

/// Whether the predicate joins this occurrence to those before it.
fn joins_at(predicate: &Scalar, position: usize) -> bool {
    let columns = predicate.columns();
    let last = columns.iter().map(|column| column.occurrence.0).max();
    let is_join = columns.iter().any(|column| column.occurrence.0 != position);
    last == Some(position) && is_join
}

fn print_limit(limit: &Limit, place: ColumnPrinter<'_>) -> String {
    let Limit {
        count,
        with_ties,
        offset,
    } = limit;
    let mut text = String::new();
    if let Some(count) = count.as_ref().filter(|_| !with_ties) {
        text += &format!(" LIMIT {}", expression(count, place));
    }
    if let Some(offset) = offset {
        text += &format!(" OFFSET {}", expression(offset, place));
    }
    if let Some(count) = count.as_ref().filter(|_| *with_ties) {
        let printed = expression(count, place);
        let printed = match count {
            // sqlparser does not read parentheses here, and PostgreSQL wants them around anything longer.
            Scalar::Literal(Literal::Number(_)) => printed,
            _ => format!("({printed})"),
        };
        text += &format!(" FETCH FIRST {printed} ROWS WITH TIES");
    }
    text
}

/// One alias for each occurrence, already quoted.
fn aliases(block: &Block, catalog: &Catalog, around: &[String]) -> Vec<String> {
    let tables = block.tables(catalog);
    let mut aliases: Vec<String> = Vec::new();
    for (position, occurrence) in block.occurrences.iter().enumerate() {
        let name = match &occurrence.source {
            Source::Rollup => "r",
            Source::Select(select) => &select.name,
            Source::Table(_) => tables
                .relation(OccurrenceId(position))
                .map_or("", |relation| &relation.name),
        };
        let numbered =
            std::iter::once(name.to_owned()).chain((2..).map(|number| format!("{name}_{number}")));
        let free = numbered
            .map(|candidate| quote_identifier(&candidate))
            .find(|candidate| !aliases.contains(candidate) && !around.contains(candidate));
        aliases.extend(free);
    }
    debug_assert_eq!(ROLLUP_OCCURRENCE, OccurrenceId(0));
    aliases
}

/// Whether the columns' own names do not tell them apart.
fn needs_column_aliases(select: &SubSelect) -> bool {
    let mut names: Vec<&str> = select
        .columns
        .iter()
        .map(|facts| facts.name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    names.len() < select.columns.len()
}

fn column_name(select: &SubSelect, attnum: AttNum) -> Option<String> {
    if needs_column_aliases(select) {
        return Some(format!("c{}", attnum.0));
    }
    let facts = select.column_at(attnum)?;
    Some(quote_identifier(&facts.name))
}

fn used_columns(block: &Block, tables: Tables<'_>) -> BTreeMap<(OccurrenceId, AttNum), ColumnRef> {
    let is_of_table =
        |column: &ColumnRef| matches!(tables.source(column.occurrence), Some(Source::Table(_)));
    let used = block.columns().filter(is_of_table);
    used.map(|column| ((column.occurrence, column.attnum), column))
        .collect()
}

/// Whether a merged sub-select selects a column that the printed block does not name.
fn has_unread_mentions(block: &Block) -> bool {
    let read: BTreeSet<ColumnRef> = block
        .scalars()
        .chain(block.left_conditions())
        .flat_map(Scalar::columns)
        .collect();
    block.mentioned.iter().any(|column| !read.contains(column))
}

/// A condition that is always true and costs nothing to run, but names every base column that the
/// original reads: PostgreSQL checks the role's privileges on them, and takes the locks, as ever.
fn guard(query: &Block, catalog: &Catalog) -> Option<String> {
    let tables = query.tables(catalog);
    let aliases = aliases(query, catalog, &[]);
    let column = |column: &ColumnRef| {
        let name = tables
            .relation(column.occurrence)
            .and_then(|relation| relation.column_at(column.attnum))
            .map_or("", |column| &column.name);
        let alias = aliases.get(column.occurrence.0).map_or("", String::as_str);
        format!("{alias}.{}", quote_identifier(name))
    };
    let columns: Vec<String> = used_columns(query, tables).values().map(column).collect();
    let mention = |(position, alias): (usize, &String)| {
        let relation = tables.relation(OccurrenceId(position))?;
        Some(format!(
            "{} AS {alias}",
            quote_qualified(&relation.schema, &relation.name)
        ))
    };
    let mentions: Vec<String> = aliases.iter().enumerate().filter_map(mention).collect();
    let nothing_of = |columns: &str, from: &str| {
        format!("NOT EXISTS (SELECT {columns} FROM {from} WHERE FALSE)")
    };
    let view = |oid: &Oid| {
        let view = catalog.relation_by_oid(*oid)?;
        Some(nothing_of("*", &quote_qualified(&view.schema, &view.name)))
    };
    let mut views: Vec<String> = query.views.iter().filter_map(view).collect();
    views.sort();
    views.dedup();
    if !mentions.is_empty() {
        views.insert(0, nothing_of(&columns.join(", "), &mentions.join(", ")));
    }
    (!views.is_empty()).then(|| views.join(" AND "))
}
