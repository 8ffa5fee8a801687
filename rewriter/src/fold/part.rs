//! Parts of a rollup: the same definition over some of its fact's rows.
//!
//! Parts whose rows are told apart by the values of a column are rollups of their own, which are built and folded one by
//! one. What all of them contain at one snapshot comes to the whole.

use super::sql::condition;
use super::{FoldColumn, FoldOccurrence, FoldPartial, FoldPlan, PartialKind};
use crate::catalog::Oid;
use crate::print::{quote_identifier, quote_string};
use crate::types;

/// Some of the fact's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// A column of the fact, of one of [`Part::TYPES`].
    pub column: FoldColumn,
    /// Its values.
    pub values: PartValues,
}

/// Which values of the column a part has. Parts are disjoint, and all rows are in one, if each begins where the one before
/// it ends, and NULL has a part of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartValues {
    /// NULL.
    Null,
    /// Those from the first, if there is one, that are below the other, if there is one; as PostgreSQL prints them.
    Range {
        /// The first that it has.
        first: Option<String>,
        /// The first that it has not.
        below: Option<String>,
    },
}

impl Part {
    /// Types of which every value but NULL has its place in one order, and prints as itself.
    pub const TYPES: [(Oid, &'static str); 6] = [
        (Oid(types::INT2), "int2"),
        (Oid(types::INT4), "int4"),
        (Oid(types::INT8), "int8"),
        (Oid(types::DATE), "date"),
        (Oid(types::TIMESTAMP), "timestamp"),
        (Oid(types::TIMESTAMPTZ), "timestamptz"),
    ];

    /// The name of a column's type, if rows may be told apart by it.
    pub fn type_name(column: &FoldColumn) -> Option<&'static str> {
        let mut types = Part::TYPES.iter();
        types
            .find(|(oid, _)| *oid == column.type_oid)
            .map(|(_, name)| *name)
    }

    fn condition(&self, alias: &str) -> Option<String> {
        let column = format!("{alias}.{}", quote_identifier(&self.column.name));
        let ty = Part::type_name(&self.column)?;
        let PartValues::Range { first, below } = &self.values else {
            return Some(format!("{column} IS NULL"));
        };
        let bound = |operator: &str, value: &Option<String>| {
            let value = value.as_ref()?;
            let value = quote_string(value);
            Some(format!("{column} {operator} {value}::pg_catalog.{ty}"))
        };
        let bounds = [bound(">=", first), bound("<", below)];
        let bounds: Vec<String> = bounds.into_iter().flatten().collect();
        Some(match bounds.is_empty() {
            true => format!("{column} IS NOT NULL"),
            false => bounds.join(" AND "),
        })
    }
}

impl FoldPlan {
    /// The table whose rows parts are made of.
    pub fn fact(&self) -> Option<&FoldOccurrence> {
        self.occurrences
            .iter()
            .rfind(|occurrence| !occurrence.is_left_joined)
    }

    /// The plan of a part; `None` if rows cannot be told apart like this.
    pub fn of_part(&self, part: &Part) -> Option<FoldPlan> {
        let mut plan = self.clone();
        let mut occurrences = plan.occurrences.iter_mut();
        let fact = occurrences.rfind(|occurrence| !occurrence.is_left_joined)?;
        let condition = part.condition(&fact.alias)?;
        let mut read = fact.columns.iter();
        if !read.any(|column| column.name == part.column.name) {
            fact.columns.push(part.column.clone());
        }
        plan.predicates = Some(match plan.predicates {
            Some(predicates) => format!("({predicates}) AND {condition}"),
            None => condition,
        });
        Some(plan)
    }

    /// The SELECT that fills the table: its columns by name, keys first.
    pub fn select(&self) -> String {
        let keys = self.keys.iter();
        let keys = keys.map(|key| format!("{} AS {}", key.expression, key.name));
        let partials = self.partials.iter();
        let partials = partials.map(|partial| format!("{} AS {}", partial.aggregate, partial.name));
        let items: Vec<String> = keys.chain(partials).collect();
        let predicates: Vec<&str> = self.predicates.as_deref().into_iter().collect();
        format!(
            "SELECT {} FROM {}{}{}",
            items.join(", "),
            self.tables_now(),
            condition(&predicates),
            self.group_by()
        )
    }

    /// Whether what its parts contain comes to the whole. An aggregate that cannot be computed from those of parts can be
    /// had only if no group is in two of them.
    pub fn adds_up(&self, column: &str) -> bool {
        let combines = |partial: &FoldPartial| partial.kind != PartialKind::Opaque;
        self.partials.iter().all(combines) || self.is_key(column)
    }

    /// The statement that puts the rows of all parts' tables, names quoted, into the whole's.
    pub fn combine(&self, column: &str, parts: &[String], rollup: &str) -> String {
        let names = self.column_names().join(", ");
        let each = parts.iter();
        let rows: Vec<String> = each
            .map(|part| format!("SELECT {names} FROM {part}"))
            .collect();
        let rows = rows.join(" UNION ALL ");
        if self.is_key(column) {
            return format!("INSERT INTO {rollup} ({names}) {rows}");
        }
        let keys = self.keys.iter().map(|key| key.name.clone());
        let partials = self.partials.iter();
        let partials = partials.map(|partial| {
            let function = match partial.kind {
                PartialKind::Rows | PartialKind::Count | PartialKind::Sum { .. } => "sum",
                PartialKind::Least(function) | PartialKind::Greatest(function) => function.as_str(),
                // See `adds_up`.
                PartialKind::Opaque => "min",
            };
            format!("{function}({})", partial.name)
        });
        let items: Vec<String> = keys.chain(partials).collect();
        format!(
            "INSERT INTO {rollup} ({names}) SELECT {} FROM ({rows}) AS part{}",
            items.join(", "),
            self.group_by()
        )
    }

    /// Whether the fact's column itself is a key.
    fn is_key(&self, column: &str) -> bool {
        let Some(fact) = self.fact() else {
            return false;
        };
        let column = format!("{}.{}", fact.alias, quote_identifier(column));
        self.keys.iter().any(|key| key.expression == column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(type_oid: u32, first: Option<&str>, below: Option<&str>) -> Part {
        Part {
            column: FoldColumn {
                name: "at".to_owned(),
                type_oid: Oid(type_oid),
                typmod: -1,
            },
            values: PartValues::Range {
                first: first.map(str::to_owned),
                below: below.map(str::to_owned),
            },
        }
    }

    #[test]
    fn each_value_is_in_one_part() {
        let first = part(types::DATE, None, Some("2024-01-01")).condition("t0");
        let middle = part(types::DATE, Some("2024-01-01"), Some("2024-02-01")).condition("t0");
        let null = Part {
            values: PartValues::Null,
            ..part(types::DATE, None, None)
        };
        assert_eq!(first.unwrap(), "t0.\"at\" < '2024-01-01'::pg_catalog.date");
        assert_eq!(
            middle.unwrap(),
            "t0.\"at\" >= '2024-01-01'::pg_catalog.date AND t0.\"at\" < '2024-02-01'::pg_catalog.date"
        );
        assert_eq!(null.condition("t0").unwrap(), "t0.\"at\" IS NULL");
        assert_eq!(part(types::TEXT, None, None).condition("t0"), None);
    }
}
