//! Printing the rewritten statement.

use std::collections::BTreeMap;

use crate::block::{Block, Tables};
use crate::catalog::{AttNum, Catalog};
use crate::expr::{ColumnRef, OccurrenceId, Scalar};
use crate::print::{conjunction, expression, order_item, quote_identifier, quote_qualified};
use crate::rollup::{Rollup, print_base_column, table_aliases};

/// The statement that reads the rollup. `query` is the block as the client wrote it.
pub(crate) fn statement(
    derived: &Block,
    rollup: &Rollup,
    query: &Block,
    catalog: &Catalog,
) -> String {
    let alias = "r";
    let column = |column: ColumnRef| {
        let stored = rollup.definition.columns.get(column.attnum.0 as usize);
        format!(
            "{alias}.{}",
            quote_identifier(stored.map_or("", |stored| &stored.name))
        )
    };
    let outputs: Vec<String> = derived
        .outputs
        .iter()
        .map(|output| {
            format!(
                "{} AS {}",
                expression(&output.value, &column),
                quote_identifier(&output.name)
            )
        })
        .collect();
    let distinct = if derived.distinct { "DISTINCT " } else { "" };
    let mut sql = format!(
        "SELECT {distinct}{} FROM {} AS {alias}",
        outputs.join(", "),
        quote_qualified(&rollup.schema, &rollup.table)
    );
    let guard = privilege_guard(query, catalog);
    let conditions = (!derived.predicates.is_empty())
        .then(|| conjunction_operands(&derived.predicates, &column));
    sql += &format!(
        " WHERE {}",
        conditions
            .into_iter()
            .chain([guard])
            .collect::<Vec<_>>()
            .join(" AND ")
    );
    let list = |scalars: &[Scalar]| {
        scalars
            .iter()
            .map(|scalar| expression(scalar, &column))
            .collect::<Vec<_>>()
            .join(", ")
    };
    if !derived.group_by.is_empty() {
        sql += &format!(" GROUP BY {}", list(&derived.group_by));
    }
    if !derived.having.is_empty() {
        sql += &format!(" HAVING {}", conjunction(&derived.having, &column));
    }
    if !derived.order_by.is_empty() {
        let items: Vec<String> = derived
            .order_by
            .iter()
            .map(|item| order_item(item, &column))
            .collect();
        sql += &format!(" ORDER BY {}", items.join(", "));
    }
    for (keyword, count) in [("LIMIT", &derived.limit), ("OFFSET", &derived.offset)] {
        if let Some(count) = count {
            sql += &format!(" {keyword} {}", expression(count, &column));
        }
    }
    sql
}

fn conjunction_operands(parts: &[Scalar], column: &dyn Fn(ColumnRef) -> String) -> String {
    parts
        .iter()
        .map(|part| crate::print::operand(part, column))
        .collect::<Vec<_>>()
        .join(" AND ")
}

/// A condition that is always true and costs nothing to run, but names every base column that the
/// original reads: PostgreSQL checks the role's privileges on them, and takes the locks, as ever.
fn privilege_guard(query: &Block, catalog: &Catalog) -> String {
    let tables = Tables {
        occurrences: &query.occurrences,
        catalog,
    };
    let aliases = table_aliases(tables);
    let mut used: BTreeMap<(OccurrenceId, AttNum), ColumnRef> = BTreeMap::new();
    for column in query
        .scalars()
        .chain(query.left_conditions())
        .flat_map(Scalar::columns)
        .chain(query.mentioned.iter().copied())
    {
        used.insert((column.occurrence, column.attnum), column);
    }
    let columns: Vec<String> = used
        .values()
        .map(|column| print_base_column(*column, tables, &aliases))
        .collect();
    let mention = |(position, alias): (usize, &String)| {
        let relation = tables.relation(OccurrenceId(position))?;
        Some(format!(
            "{} AS {alias}",
            quote_qualified(&relation.schema, &relation.name)
        ))
    };
    let mentions: Vec<String> = aliases.iter().enumerate().filter_map(mention).collect();
    format!(
        "NOT EXISTS (SELECT {} FROM {} WHERE FALSE)",
        columns.join(", "),
        mentions.join(", ")
    )
}
