//! Which rollup would answer a statement that none answers: a definition to paste into the configuration.
//!
//! What is proposed has been tried: it is a rollup's definition, and a rollup so defined answers the statement. It has the
//! statement's own groups, the columns of its filters, and its aggregates; of the drafts that do, the one with the coarsest time.

use crate::block::{Block, Source, Tables};
use crate::equivalence::column_equality;
use crate::expr::{Aggregate, ColumnRef, ColumnTypes, Scalar};
use crate::functions::Volatility;
use crate::joins::without_redundant_joins;
use crate::normalize::normalize;
use crate::parse::parse_query;
use crate::place::Names;
use crate::plan::is_site;
use crate::print::{conjunction, expression, quote_identifier};
use crate::rollup::{Rollup, RollupDefinition, print_base_column, print_from, table_aliases};
use crate::types;
use crate::volatility::volatility;
use crate::wrapped::wrapped;
use crate::{Context, decide};

/// How finely times are kept that the statement filters by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fineness {
    /// As those that it groups by, which will do if the ranges are whole ones of them; else days.
    Groups,
    Days,
    Hours,
    Minutes,
    Exact,
}

impl Fineness {
    const ALL: [Fineness; 5] = [
        Fineness::Groups,
        Fineness::Days,
        Fineness::Hours,
        Fineness::Minutes,
        Fineness::Exact,
    ];

    fn unit(self) -> Option<&'static str> {
        match self {
            Fineness::Groups | Fineness::Days => Some("day"),
            Fineness::Hours => Some("hour"),
            Fineness::Minutes => Some("minute"),
            Fineness::Exact => None,
        }
    }
}

/// A rollup's defining SELECT that would have the statement answered, if there is one that is easily found.
pub fn propose(sql: &str, context: Context<'_>) -> Option<String> {
    let query = wrapped(sql).map_or(sql, |wrapped| wrapped.query);
    let names = Names {
        catalog: context.catalog,
        search_path: context.search_path,
        bound: context.bound,
    };
    let query = normalize(&parse_query(query).ok()?, names).ok()?;
    let blocks = query.blocks().into_iter().filter(|block| is_site(block));
    let mut drafts = blocks.flat_map(|block| {
        let reduced = without_redundant_joins(block.clone(), context.catalog);
        let all = Fineness::ALL.into_iter();
        all.filter_map(move |fineness| draft(&reduced, fineness, context))
    });
    drafts.find(|draft| is_answer(draft, sql, context))
}

/// Whether a rollup so defined answers the statement, whatever others there are.
fn is_answer(draft: &str, sql: &str, context: Context<'_>) -> bool {
    let parsed = RollupDefinition::parse("proposal", draft, context.catalog, context.search_path);
    let Ok(definition) = parsed else {
        return false;
    };
    let rollup = Rollup {
        definition,
        schema: "pgstar".to_owned(),
        table: "proposal".to_owned(),
        rows: 0,
    };
    let rollups = [rollup];
    let only = Context {
        rollups: &rollups,
        ..context
    };
    !decide(sql, only).matches.is_empty()
}

/// The block's groups, filters and aggregates as a rollup.
fn draft(block: &Block, fineness: Fineness, context: Context<'_>) -> Option<String> {
    let is_table = |source: &Source| matches!(source, Source::Table(_));
    let mut occurrences = block.occurrences.iter();
    if !occurrences.all(|occurrence| is_table(&occurrence.source)) {
        return None;
    }
    let tables = block.tables(context.catalog);
    let aliases = table_aliases(tables);
    let mut draft = Draft {
        block,
        tables,
        aliases: &aliases,
        fineness,
        keys: vec![],
        measures: vec![],
    };
    draft.fill();
    let print = |column: ColumnRef| print_base_column(column, tables, &aliases);
    let (joins, _) = parts(block);
    let conditions = match joins.is_empty() {
        true => String::new(),
        false => format!(" WHERE {}", conjunction(&joins, &print)),
    };
    let numbers: Vec<String> = (1..=draft.keys.len()).map(|n| n.to_string()).collect();
    let groups = match numbers.is_empty() {
        true => String::new(),
        false => format!(" GROUP BY {}", numbers.join(", ")),
    };
    let mut items = draft.keys;
    items.push("count(*)".to_owned());
    items.extend(draft.measures);
    let from = print_from(tables, &aliases, &print);
    let items = items.join(", ");
    Some(format!("SELECT {items} FROM {from}{conditions}{groups}"))
}

/// The conditions that join tables, and those that choose rows.
fn parts(block: &Block) -> (Vec<Scalar>, Vec<Scalar>) {
    let predicates = block.predicates.iter().cloned();
    predicates.partition(|predicate| column_equality(predicate).is_some())
}

/// A definition's select list being made.
struct Draft<'a> {
    block: &'a Block,
    tables: Tables<'a>,
    aliases: &'a [String],
    fineness: Fineness,
    keys: Vec<String>,
    measures: Vec<String>,
}

impl Draft<'_> {
    fn fill(&mut self) {
        let block = self.block;
        for key in &block.group_by {
            self.key(key);
        }
        let (_, filters) = parts(block);
        for filter in &filters {
            self.columns(filter);
        }
        let outputs = block.outputs.iter().map(|output| &output.value);
        let order = block.order_by.iter().map(|item| &item.value);
        for scalar in outputs.chain(&block.having).chain(order) {
            self.above_groups(scalar);
        }
    }

    /// What is kept must not depend on the session; its columns do not.
    fn key(&mut self, key: &Scalar) {
        let is_constant = key.columns().is_empty();
        let is_open = key.any(&|node| matches!(node, Scalar::Parameter(_) | Scalar::SubQuery(_)));
        match key {
            _ if is_constant => {}
            Scalar::Column(column) => self.column(*column, false),
            _ if is_open || volatility(key, &self.tables) != Volatility::Immutable => {
                self.columns(key);
            }
            _ => {
                let named = self
                    .block
                    .outputs
                    .iter()
                    .find(|output| output.value == *key);
                let text = self.print(key);
                let name = named.map(|output| format!(" AS {}", quote_identifier(&output.name)));
                push_new(&mut self.keys, text + &name.unwrap_or_default());
            }
        }
    }

    fn columns(&mut self, scalar: &Scalar) {
        for column in scalar.columns() {
            self.column(column, true);
        }
    }

    /// Times that are only filtered by may be kept in buckets.
    fn column(&mut self, column: ColumnRef, is_filter: bool) {
        let ty = self.tables.column_type(column).map(|ty| ty.oid.0);
        let text = self.print(&Scalar::Column(column));
        let named = |suffix: &str| {
            let label = self.tables.column_label(column);
            let name = label.rsplit('.').next().unwrap_or_default();
            quote_identifier(&format!("{name}_{suffix}"))
        };
        let item = match (ty, self.fineness.unit()) {
            (Some(types::TIMESTAMP), Some(_)) if is_filter && self.is_in_groups(column) => return,
            (Some(types::TIMESTAMP), Some(unit)) if is_filter => {
                format!("date_trunc('{unit}', {text}) AS {}", named(unit))
            }
            (Some(types::TIMESTAMPTZ), Some(_)) if is_filter => format!(
                "date_bin('15 minutes', {text}, '2000-01-01 00:00+00') AS {}",
                named("quarter_hour")
            ),
            _ => text,
        };
        push_new(&mut self.keys, item);
    }

    /// Whether the statement's groups shall do for the column.
    fn is_in_groups(&self, column: ColumnRef) -> bool {
        let mut keys = self.block.group_by.iter();
        self.fineness == Fineness::Groups && keys.any(|key| key.columns().contains(&column))
    }

    fn above_groups(&mut self, scalar: &Scalar) {
        if self.block.group_by.contains(scalar) {
            return;
        }
        match scalar {
            Scalar::Column(column) => self.column(*column, false),
            Scalar::Aggregate(aggregate) => self.aggregate(aggregate),
            other => {
                for child in other.children() {
                    self.above_groups(child);
                }
            }
        }
    }

    /// What is counted once has to be a group of its own.
    fn aggregate(&mut self, aggregate: &Aggregate) {
        if aggregate.distinct {
            for scalar in aggregate.argument.iter().chain(&aggregate.filter) {
                self.key(scalar);
            }
            return;
        }
        let text = self.print(&Scalar::Aggregate(Box::new(aggregate.clone())));
        if text != "count(*)" {
            push_new(&mut self.measures, text);
        }
    }

    fn print(&self, scalar: &Scalar) -> String {
        expression(scalar, &|column: ColumnRef| {
            print_base_column(column, self.tables, self.aliases)
        })
    }
}

fn push_new(items: &mut Vec<String>, item: String) {
    if !items.contains(&item) {
        items.push(item);
    }
}
