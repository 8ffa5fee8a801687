//! How a rollup follows changes of its tables: what has to be known of each changed row, and the
//! statements that bring the rollup's table from one snapshot to a later one.
//!
//! For inner joins R = T1 × … × Tn the change is a sum over the tables that changed,
//!
//! > R@S − R@0 = Σi T1@S × … × T(i−1)@S × dTi × T(i+1)@0 × … × Tn@0,
//!
//! where dTi holds each new row of Ti with sign +1 and each old one with −1, and T@0 is T@S with dT
//! taken back. PostgreSQL evaluates the definition's own expressions over it ([`FoldPlan::delta`]),
//! so the sums are exact. What cannot be taken back from a group (an extreme that leaves, a sum
//! whose number of digits varies, NaN) makes it recompute that group from the tables instead.
//! (Griffin and Libkin, "Incremental Maintenance of Views with Duplicates", 1995.)
//!
//! It knows no connection: the names of tables that hold the changed rows are the caller's.

mod part;
mod sql;

use std::collections::BTreeSet;

use crate::block::{Attachment, Block, Tables};
use crate::catalog::{AttNum, Catalog, Oid};
use crate::equivalence::column_equality;
use crate::exact::{has_one_scale, prints_exactly};
use crate::expr::{Aggregate, AggregateFunction, ColumnRef, OccurrenceId, Scalar};
use crate::print::{ColumnPrinter, conjunction, expression, quote_identifier, quote_qualified};
use crate::rollup::{RollupDefinition, Stored, print_base_column, table_aliases};
use crate::types;

pub use part::{Part, PartValues};
pub use sql::{Changed, Groups};

/// The column of a table of changed rows that says +1 for a new row and −1 for an old one.
pub const SIGN: &str = "pgstar_sign";

/// The column of a table of changed rows that says +1 for a row whose key is new, −1 for one whose
/// key is gone, and 0 for all others.
pub const KEY_FATE: &str = "pgstar_key_fate";

/// Everything that is needed to fold changes into a rollup's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldPlan {
    /// The tables, each referenced one before those that refer to it, so that the fact is the last of
    /// those that are not left-joined.
    pub occurrences: Vec<FoldOccurrence>,
    keys: Vec<FoldKey>,
    partials: Vec<FoldPartial>,
    /// The position in `partials` of `count(*)`.
    rows: usize,
    predicates: Option<String>,
}

/// One mention of a base table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldOccurrence {
    /// The table.
    pub relation: Oid,
    /// Its columns that the rollup reads, in order of their numbers.
    pub columns: Vec<FoldColumn>,
    /// The names of those that are taken to have no NULL.
    pub not_null: Vec<String>,
    /// Names of the columns that an enforced foreign key of a later occurrence refers to.
    pub referenced: Option<ReferencedKey>,
    /// Whether it is left-joined. Groups that a change of it touches are computed anew.
    pub is_left_joined: bool,
    alias: String,
    table: String,
    left_condition: Option<String>,
}

/// A key that no row of a later occurrence can lack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferencedKey {
    /// The names of its columns.
    pub columns: Vec<String>,
    /// The names of the columns that refer to them, pairwise.
    pub referring_columns: Vec<String>,
    /// The position of the occurrence that refers to it.
    pub by: usize,
}

/// A column that a rollup reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldColumn {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: Oid,
    /// Its type's modifier.
    pub typmod: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FoldKey {
    name: String,
    expression: String,
    is_not_null: bool,
    is_constant: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FoldPartial {
    name: String,
    kind: PartialKind,
    /// The aggregate as the definition has it.
    aggregate: String,
    /// Its argument where its filter holds, NULL elsewhere.
    argument: String,
}

/// How a partial follows changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartialKind {
    /// The number of rows.
    Rows,
    /// The number of values that are not NULL.
    Count,
    /// A sum; the position of the partial that counts its values, and whether values can be taken out.
    Sum {
        count: usize,
        is_subtractable: bool,
        is_numeric: bool,
    },
    /// `min` or `bool_and`.
    Least(AggregateFunction),
    /// `max` or `bool_or`.
    Greatest(AggregateFunction),
    /// Anything else: its group is computed anew.
    Opaque,
}

impl FoldOccurrence {
    /// The table's name, qualified and quoted where needed.
    pub fn table(&self) -> &str {
        &self.table
    }
}

impl FoldPlan {
    /// The plan of a definition that was read with this catalog.
    pub fn new(definition: &RollupDefinition, catalog: &Catalog) -> Self {
        let block = &definition.block;
        let tables = block.tables(catalog);
        let aliases = table_aliases(tables);
        let print = |column: ColumnRef| print_base_column(column, tables, &aliases);
        let order = order(block, tables);
        let occurrences = order
            .iter()
            .map(|id| occurrence(*id, &order, block, tables, &aliases))
            .collect();
        let keys = definition.columns.iter().filter_map(|column| {
            let Stored::Key(key) = &column.stored else {
                return None;
            };
            Some(FoldKey {
                name: quote_identifier(&column.name),
                expression: expression(key, &print),
                is_not_null: types::is_not_null(key, &tables),
                is_constant: key.columns().is_empty(),
            })
        });
        let stored: Vec<(&str, &Aggregate)> = definition
            .columns
            .iter()
            .filter_map(|column| match &column.stored {
                Stored::Partial(partial) => Some((column.name.as_str(), partial)),
                Stored::Key(_) => None,
            })
            .collect();
        let partials = stored.iter().map(|(name, partial)| FoldPartial {
            name: quote_identifier(name),
            kind: kind(partial, &stored, tables),
            aggregate: expression(&Scalar::Aggregate(Box::new((*partial).clone())), &print),
            argument: guarded_argument(partial, &print),
        });
        let partials: Vec<FoldPartial> = partials.collect();
        let rows = partials
            .iter()
            .position(|partial| partial.kind == PartialKind::Rows);
        FoldPlan {
            occurrences,
            keys: keys.collect(),
            // Every definition stores count(*); without it nothing could be folded.
            rows: rows.unwrap_or_default(),
            partials,
            predicates: (!block.predicates.is_empty())
                .then(|| conjunction(&block.predicates, &print)),
        }
    }
}

impl FoldPlan {
    /// The rollup's columns that every computation gives alike, as a comparison has to select them. What may come out
    /// differently each time (sums of floating-point numbers, lists in no order) is left out.
    pub fn compared_columns(&self) -> Vec<String> {
        let keys = self.keys.iter().map(|key| key.name.clone());
        let compared = |partial: &FoldPartial| match partial.kind {
            PartialKind::Rows | PartialKind::Count | PartialKind::Sum { .. } => {
                Some(format!("{0}::text AS {0}", partial.name))
            }
            // Of values that are equal any may be the least.
            PartialKind::Least(_) | PartialKind::Greatest(_) => Some(partial.name.clone()),
            PartialKind::Opaque => None,
        };
        keys.chain(self.partials.iter().filter_map(compared))
            .collect()
    }
}

/// The argument, evaluated only for rows that the filter lets through, as the aggregate itself does.
fn guarded_argument(partial: &Aggregate, print: ColumnPrinter<'_>) -> String {
    let argument = partial
        .argument
        .as_ref()
        .map_or_else(|| "TRUE".to_owned(), |argument| expression(argument, print));
    match &partial.filter {
        None => argument,
        Some(filter) => format!(
            "CASE WHEN {} THEN {argument} END",
            expression(filter, print)
        ),
    }
}

fn kind(partial: &Aggregate, stored: &[(&str, &Aggregate)], tables: Tables<'_>) -> PartialKind {
    let Aggregate {
        function,
        argument,
        more_arguments,
        distinct,
        order_by,
        filter,
    } = partial;
    let is_whole = filter.is_none();
    let has_one_operand = more_arguments.is_empty() && order_by.is_empty();
    match (function, argument) {
        _ if !has_one_operand => PartialKind::Opaque,
        // Equal values may differ, and which one stays is not for us to say.
        (_, Some(argument))
            if !function_takes_any(*function) && !prints_exactly(argument, &tables) =>
        {
            PartialKind::Opaque
        }
        (AggregateFunction::Count, None) if is_whole => PartialKind::Rows,
        (AggregateFunction::Count, _) if !distinct => PartialKind::Count,
        (AggregateFunction::Sum, Some(argument)) if !distinct => {
            sum(argument, partial, stored, tables).unwrap_or(PartialKind::Opaque)
        }
        (AggregateFunction::Min | AggregateFunction::BoolAnd, Some(_)) => {
            PartialKind::Least(*function)
        }
        (AggregateFunction::Max | AggregateFunction::BoolOr, Some(_)) => {
            PartialKind::Greatest(*function)
        }
        (_, _) => PartialKind::Opaque,
    }
}

fn function_takes_any(function: AggregateFunction) -> bool {
    matches!(function, AggregateFunction::Count | AggregateFunction::Sum)
}

/// A sum is NULL again when its last value leaves, so it needs the count of its values.
fn sum(
    argument: &Scalar,
    partial: &Aggregate,
    stored: &[(&str, &Aggregate)],
    tables: Tables<'_>,
) -> Option<PartialKind> {
    let ty = types::type_of(argument, &tables)?;
    let is_numeric = ty.oid.0 == types::NUMERIC;
    if !is_numeric && !types::is_integer(ty.oid) {
        return None;
    }
    let counts_values = |counted: &Aggregate| {
        let is_same = counted.argument == partial.argument && counted.filter == partial.filter;
        let is_every_row = counted.argument.is_none()
            && counted.filter == partial.filter
            && types::is_not_null(argument, &tables);
        let is_count = counted.function == AggregateFunction::Count && !counted.distinct;
        is_count && (is_same || is_every_row)
    };
    let count = stored
        .iter()
        .position(|(_, counted)| counts_values(counted))?;
    Some(PartialKind::Sum {
        count,
        is_subtractable: has_one_scale(argument, &tables),
        is_numeric,
    })
}

fn occurrence(
    id: OccurrenceId,
    order: &[OccurrenceId],
    block: &Block,
    tables: Tables<'_>,
    aliases: &[String],
) -> FoldOccurrence {
    let print = |column: ColumnRef| print_base_column(column, tables, aliases);
    let relation = tables.relation(id);
    let used: BTreeSet<AttNum> = block
        .scalars()
        .chain(block.left_conditions())
        .flat_map(Scalar::columns)
        .filter(|column| column.occurrence == id)
        .map(|column| column.attnum)
        .collect();
    let columns = used.iter().filter_map(|attnum| {
        let column = relation?.column_at(*attnum)?;
        Some(FoldColumn {
            name: column.name.clone(),
            type_oid: column.ty.oid,
            typmod: column.ty.typmod,
        })
    });
    let not_null = used.iter().filter_map(|attnum| {
        let column = relation?.column_at(*attnum)?;
        column.not_null.then(|| column.name.clone())
    });
    let left_condition = match block.occurrences.get(id.0).map(|found| &found.attachment) {
        Some(Attachment::Left(condition)) => Some(conjunction(condition, &print)),
        Some(Attachment::Inner) | None => None,
    };
    FoldOccurrence {
        relation: relation.map_or(Oid(0), |relation| relation.oid),
        columns: columns.collect(),
        not_null: not_null.collect(),
        referenced: referenced_key(id, order, block, tables),
        is_left_joined: left_condition.is_some(),
        alias: aliases.get(id.0).cloned().unwrap_or_default(),
        table: relation
            .map(|relation| quote_qualified(&relation.schema, &relation.name))
            .unwrap_or_default(),
        left_condition,
    }
}

/// Inner occurrences, each after those that it refers to by a unique key; then the left-joined ones in
/// the order in which they are joined.
fn order(block: &Block, tables: Tables<'_>) -> Vec<OccurrenceId> {
    let is_inner = |id: &OccurrenceId| {
        block
            .occurrences
            .get(id.0)
            .is_some_and(|occurrence| occurrence.attachment == Attachment::Inner)
    };
    let all = || (0..block.occurrences.len()).map(OccurrenceId);
    let mut waiting: Vec<OccurrenceId> = all().filter(is_inner).collect();
    let mut ordered = vec![];
    while !waiting.is_empty() {
        let refers_to_nobody = |id: &OccurrenceId| {
            !waiting
                .iter()
                .any(|other| other != id && refers_by_unique_key(*id, *other, block, tables))
        };
        // Of tables that refer to each other in a circle any may be first.
        let next = waiting.iter().position(refers_to_nobody).unwrap_or(0);
        ordered.push(waiting.remove(next));
    }
    ordered.extend(all().filter(|id| !is_inner(id)));
    ordered
}

/// The pairs of columns that the predicates make equal.
fn joined_columns(from: OccurrenceId, to: OccurrenceId, block: &Block) -> Vec<(AttNum, AttNum)> {
    let pairs = block.predicates.iter().filter_map(column_equality);
    let directed = pairs.filter_map(|(left, right)| match (left.occurrence, right.occurrence) {
        (l, r) if l == from && r == to => Some((left.attnum, right.attnum)),
        (l, r) if l == to && r == from => Some((right.attnum, left.attnum)),
        _ => None,
    });
    directed.collect()
}

fn refers_by_unique_key(
    from: OccurrenceId,
    to: OccurrenceId,
    block: &Block,
    tables: Tables<'_>,
) -> bool {
    let joined = joined_columns(from, to, block);
    tables.relation(to).is_some_and(|relation| {
        let is_joined = |column: &AttNum| joined.iter().any(|(_, to)| to == column);
        relation
            .unique_keys
            .iter()
            .any(|key| !key.is_empty() && key.iter().all(is_joined))
    })
}

/// A key of `id` that a later inner occurrence refers to by a foreign key over just the joined columns.
fn referenced_key(
    id: OccurrenceId,
    order: &[OccurrenceId],
    block: &Block,
    tables: Tables<'_>,
) -> Option<ReferencedKey> {
    let referenced = tables.relation(id)?;
    let own = order.iter().position(|other| *other == id)?;
    let is_inner = |other: &OccurrenceId| {
        block
            .occurrences
            .get(other.0)?
            .attachment
            .eq(&Attachment::Inner)
            .then_some(())
    };
    let later = order.iter().enumerate().skip(own + 1);
    for (by, other) in later.filter(|(_, other)| is_inner(other).is_some()) {
        let joined = joined_columns(*other, id, block);
        let foreign_keys = tables
            .relation(*other)
            .map(|relation| &relation.foreign_keys);
        for key in foreign_keys.into_iter().flatten() {
            let mut pairs = key.columns.iter().zip(&key.referenced_columns);
            let is_joined = pairs.all(|(from, to)| joined.contains(&(*from, *to)));
            // Keys are compared as text.
            let is_exact = |attnum: &AttNum| {
                referenced.column_at(*attnum).is_some_and(|column| {
                    types::is_byte_exact(column.ty, tables.catalog.user_names())
                })
            };
            if !key.referenced_columns.iter().all(is_exact) {
                continue;
            }
            if key.references != referenced.oid || !is_joined || key.columns.is_empty() {
                continue;
            }
            let name = |attnum: &AttNum| Some(referenced.column_at(*attnum)?.name.clone());
            let columns: Option<Vec<String>> = key.referenced_columns.iter().map(name).collect();
            let referring = |attnum: &AttNum| {
                let column = tables.relation(*other)?.column_at(*attnum)?;
                Some(column.name.clone())
            };
            let referring_columns: Option<Vec<String>> =
                key.columns.iter().map(referring).collect();
            return Some(ReferencedKey {
                columns: columns?,
                referring_columns: referring_columns?,
                by,
            });
        }
    }
    None
}
