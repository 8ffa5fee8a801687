//! A whole statement: blocks beside and inside one another, names resolved.
//!
//! Every part that computes rows is a [`Query`]. Sub-selects that can be merged into the block around
//! them were merged; the others stay, and each block is matched with rollups by itself.

use crate::block::{Block, Limit, OrderItem, Source, Tables};
use crate::catalog::{AttNum, Catalog, ColumnType, Oid};
use crate::exact;
use crate::expr::{Literal, Scalar};
use crate::types;

/// A query with the WITH items that it and everything inside it may name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Query {
    /// WITH, in order; only items that could not be merged where they are named.
    pub with: Vec<CommonTable>,
    /// What computes the rows.
    pub body: Body,
}

/// What computes a query's rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Body {
    /// A SELECT.
    Block(Box<Block>),
    /// UNION, INTERSECT or EXCEPT.
    SetOperation(Box<SetOperation>),
    /// VALUES: rows of constants.
    Values(Vec<Vec<Scalar>>),
}

/// A WITH item.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommonTable {
    /// Its name, which no other item of the statement has.
    pub name: String,
    /// MATERIALIZED, where written, or NOT MATERIALIZED.
    pub materialized: Option<bool>,
    /// What it computes.
    pub query: Query,
}

/// Which rows of two queries come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum SetOperator {
    Union,
    Intersect,
    Except,
}

impl SetOperator {
    /// The operator's word.
    pub fn as_str(self) -> &'static str {
        match self {
            SetOperator::Union => "UNION",
            SetOperator::Intersect => "INTERSECT",
            SetOperator::Except => "EXCEPT",
        }
    }
}

/// Two queries as one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetOperation {
    /// Which rows come out.
    pub operator: SetOperator,
    /// ALL: rows that are alike are kept.
    pub all: bool,
    /// The first query, whose columns name the result's.
    pub left: Query,
    /// The second one.
    pub right: Query,
    /// ORDER BY, by position: the values are numbers.
    pub order_by: Vec<OrderItem>,
    /// LIMIT and OFFSET.
    pub limit: Limit,
}

/// A sub-select, or a mention of a WITH item, in FROM.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubSelect {
    /// The alias in FROM.
    pub name: String,
    /// Its columns.
    pub columns: Vec<ColumnFacts>,
    /// Where its rows come from.
    pub rows: Rows,
}

/// Where the rows of a [`SubSelect`] come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rows {
    /// From this query.
    Query(Query),
    /// From the WITH item of this name.
    CommonTable(String),
}

impl SubSelect {
    /// The column of this number, from 1.
    pub(crate) fn column_at(&self, attnum: AttNum) -> Option<&ColumnFacts> {
        let position = usize::try_from(attnum.0).ok()?.checked_sub(1)?;
        self.columns.get(position)
    }

    /// The query, unless it is a mention of a WITH item.
    pub(crate) fn query(&self) -> Option<&Query> {
        match &self.rows {
            Rows::Query(query) => Some(query),
            Rows::CommonTable(_) => None,
        }
    }
}

/// What is known of a query's column.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// Its type, as far as it is known.
    pub ty: Option<ColumnType>,
    /// Whether it can never be NULL.
    pub not_null: bool,
    /// For numbers, how many digits behind the point every value has, if that is one number.
    pub scale: Option<i64>,
    /// Whether it is a quoted constant or NULL, which takes its type from its surroundings.
    pub is_untyped: bool,
}

impl ColumnFacts {
    /// As an outer query sees it: PostgreSQL makes a text of a constant without type.
    pub(crate) fn into_column(mut self) -> ColumnFacts {
        if self.is_untyped {
            self.ty = Some(types::plain(types::TEXT));
            self.is_untyped = false;
        }
        self
    }
}

impl Query {
    /// What is known of the columns, in order.
    pub(crate) fn columns(&self, catalog: &Catalog) -> Vec<ColumnFacts> {
        match &self.body {
            Body::Block(block) => block_columns(block, catalog),
            Body::SetOperation(operation) => {
                let left = operation.left.columns(catalog);
                let right = operation.right.columns(catalog);
                left.into_iter().zip(right).map(common_column).collect()
            }
            Body::Values(rows) => values_columns(rows),
        }
    }

    /// Calls `visit` on every query inside this one, itself first.
    pub(crate) fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Query)) {
        visit(self);
        for item in &self.with {
            item.query.walk(visit);
        }
        match &self.body {
            Body::Block(block) => walk_block(block, visit),
            Body::SetOperation(operation) => {
                operation.left.walk(visit);
                operation.right.walk(visit);
            }
            Body::Values(_) => {}
        }
    }

    /// Every block inside this query.
    pub(crate) fn blocks(&self) -> Vec<&Block> {
        let mut blocks = vec![];
        self.walk(&mut |query| {
            if let Body::Block(block) = &query.body {
                blocks.push(&**block);
            }
        });
        blocks
    }

    /// Every base table that is read, sorted, each once.
    pub(crate) fn relations(&self) -> Vec<Oid> {
        let blocks = self.blocks();
        let occurrences = blocks.iter().flat_map(|block| &block.occurrences);
        let mut relations: Vec<Oid> = occurrences
            .filter_map(|occurrence| match &occurrence.source {
                Source::Table(oid) => Some(*oid),
                Source::Select(_) | Source::Rollup => None,
            })
            .collect();
        relations.sort();
        relations.dedup();
        relations
    }

    /// The same with the views whose definitions were read.
    pub(crate) fn names(&self) -> Vec<Oid> {
        let mut names = self.relations();
        let blocks = self.blocks();
        names.extend(blocks.iter().flat_map(|block| block.views.iter().copied()));
        names.sort();
        names.dedup();
        names
    }
}

fn walk_block<'a>(block: &'a Block, visit: &mut dyn FnMut(&'a Query)) {
    for select in block.sub_selects() {
        if let Some(query) = select.query() {
            query.walk(visit);
        }
    }
    for scalar in block.scalars().chain(block.left_conditions()) {
        scalar.walk(&mut |node| {
            if let Scalar::SubQuery(sub_query) = node {
                sub_query.query.walk(visit);
            }
        });
    }
}

fn block_columns(block: &Block, catalog: &Catalog) -> Vec<ColumnFacts> {
    let tables = block.tables(catalog);
    let facts = |output: &crate::block::Output| ColumnFacts {
        name: output.name.clone(),
        ty: known_type(&output.value, &tables),
        // A grouping set leaves out keys.
        not_null: block.grouping_sets.is_none() && types::is_not_null(&output.value, &tables),
        scale: exact::scale(&output.value, &tables),
        is_untyped: is_untyped(&output.value),
    };
    block.outputs.iter().map(facts).collect()
}

/// The type. What is made of a text whose equality ignores differences has its collation, which a type
/// of expressions does not say.
fn known_type(value: &Scalar, tables: &Tables<'_>) -> Option<ColumnType> {
    let is_column = matches!(value, Scalar::Column(_));
    match is_column || !exact::reads_loose_text(value, tables) {
        true => types::type_of(value, tables),
        false => None,
    }
}

fn is_untyped(value: &Scalar) -> bool {
    match value {
        Scalar::Literal(Literal::String(_) | Literal::Null) => true,
        Scalar::Parameter(parameter) => parameter.time.as_ref().is_none_or(|time| time.oid == 0),
        _ => false,
    }
}

/// A column of a set operation, whose arms may have different types.
fn common_column((left, right): (ColumnFacts, ColumnFacts)) -> ColumnFacts {
    let ty = match (left.is_untyped, right.is_untyped) {
        (true, true) => None,
        (false, true) => left.ty.map(without_modifier),
        (true, false) => right.ty.map(without_modifier),
        (false, false) if left.ty == right.ty => left.ty,
        (false, false) => None,
    };
    ColumnFacts {
        name: left.name,
        ty,
        not_null: left.not_null && right.not_null,
        scale: left.scale.filter(|scale| right.scale == Some(*scale)),
        is_untyped: left.is_untyped && right.is_untyped,
    }
}

fn without_modifier(ty: ColumnType) -> ColumnType {
    ColumnType { typmod: -1, ..ty }
}

fn values_columns(rows: &[Vec<Scalar>]) -> Vec<ColumnFacts> {
    let width = rows.first().map_or(0, Vec::len);
    let of_values = |position: usize| {
        let values: Vec<&Scalar> = rows.iter().filter_map(|row| row.get(position)).collect();
        let ty = types::common_type(values.iter().copied(), &NoColumns);
        ColumnFacts {
            name: format!("column{}", position + 1),
            ty: ty.map(without_modifier),
            not_null: false,
            scale: None,
            is_untyped: values.iter().all(|value| is_untyped(value)),
        }
    };
    (0..width).map(of_values).collect()
}

/// Where nothing can be named.
struct NoColumns;

impl crate::expr::ColumnTypes for NoColumns {
    fn column_type(&self, _: crate::expr::ColumnRef) -> Option<ColumnType> {
        None
    }

    fn is_not_null(&self, _: crate::expr::ColumnRef) -> bool {
        false
    }

    fn is_enum(&self, _: u32) -> bool {
        false
    }

    fn is_deterministic(&self, _: Oid) -> bool {
        false
    }
}
