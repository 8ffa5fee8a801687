//! The canonical block: one SELECT over base tables, names resolved, sub-selects merged.
//!
//! A block means: the cross product of its inner occurrences, each left occurrence attached by its
//! own condition, the rows that satisfy every predicate, grouped, filtered by HAVING, and projected.
//! See Goldstein and Larson, "Optimizing Queries Using Materialized Views" (2001), for the form.

use crate::catalog::{Catalog, ColumnType, Oid, Relation};
pub use crate::expr::OrderItem;
use crate::expr::{ColumnRef, ColumnTypes, OccurrenceId, Scalar};

/// One mention of a base table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrence {
    /// The table.
    pub relation: Oid,
    /// How it is attached.
    pub attachment: Attachment,
}

/// How an occurrence takes part in the join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// Part of the cross product; its join conditions are among the block's predicates.
    Inner,
    /// LEFT JOINed on these conjuncts; where none matches its columns are NULL.
    Left(Vec<Scalar>),
}

/// A column of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The column's name as PostgreSQL gives it.
    pub name: String,
    /// Its value.
    pub value: Scalar,
}

/// A resolved SELECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The tables.
    pub occurrences: Vec<Occurrence>,
    /// Conjuncts of WHERE and of inner joins' ON.
    pub predicates: Vec<Scalar>,
    /// Group keys. Empty with `is_aggregated` means one group over everything.
    pub group_by: Vec<Scalar>,
    /// Whether rows are grouped at all.
    pub is_aggregated: bool,
    /// Conjuncts of HAVING.
    pub having: Vec<Scalar>,
    /// The select list.
    pub outputs: Vec<Output>,
    /// SELECT DISTINCT over an aggregated block.
    pub distinct: bool,
    /// ORDER BY.
    pub order_by: Vec<OrderItem>,
    /// LIMIT, a constant or parameter.
    pub limit: Option<Scalar>,
    /// OFFSET, a constant or parameter.
    pub offset: Option<Scalar>,
    /// Columns that sub-selects select: the role needs privileges on them even if nothing comes of them.
    pub mentioned: Vec<ColumnRef>,
}

impl Block {
    /// One group over everything: exactly one row, even of no rows.
    pub fn is_scalar_aggregate(&self) -> bool {
        self.is_aggregated && self.group_by.is_empty()
    }

    /// The conjuncts of every left join's condition.
    pub(crate) fn left_conditions(&self) -> impl Iterator<Item = &Scalar> {
        self.occurrences
            .iter()
            .flat_map(|occurrence| match &occurrence.attachment {
                Attachment::Left(condition) => condition.as_slice(),
                Attachment::Inner => &[],
            })
    }

    /// Every expression outside the join: predicates, keys, HAVING, outputs and ORDER BY.
    pub(crate) fn scalars(&self) -> impl Iterator<Item = &Scalar> {
        let outputs = self.outputs.iter().map(|output| &output.value);
        let order = self.order_by.iter().map(|item| &item.value);
        self.predicates
            .iter()
            .chain(&self.group_by)
            .chain(&self.having)
            .chain(outputs)
            .chain(order)
    }

    /// The same block with every column replaced, left joins' conditions included.
    pub(crate) fn map_columns(&self, replace: &dyn Fn(ColumnRef) -> ColumnRef) -> Block {
        let all = |scalars: &[Scalar]| {
            scalars
                .iter()
                .map(|scalar| scalar.map_columns(replace))
                .collect::<Vec<_>>()
        };
        let occurrence = |occurrence: &Occurrence| Occurrence {
            relation: occurrence.relation,
            attachment: match &occurrence.attachment {
                Attachment::Inner => Attachment::Inner,
                Attachment::Left(condition) => Attachment::Left(all(condition)),
            },
        };
        let output = |output: &Output| Output {
            name: output.name.clone(),
            value: output.value.map_columns(replace),
        };
        let order = |item: &OrderItem| OrderItem {
            value: item.value.map_columns(replace),
            ..item.clone()
        };
        Block {
            occurrences: self.occurrences.iter().map(occurrence).collect(),
            predicates: all(&self.predicates),
            group_by: all(&self.group_by),
            is_aggregated: self.is_aggregated,
            having: all(&self.having),
            outputs: self.outputs.iter().map(output).collect(),
            distinct: self.distinct,
            order_by: self.order_by.iter().map(order).collect(),
            limit: self.limit.clone(),
            offset: self.offset.clone(),
            mentioned: self.mentioned.iter().copied().map(replace).collect(),
        }
    }
}

/// A block's occurrences beside the catalog that they refer to.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'a> {
    pub(crate) occurrences: &'a [Occurrence],
    pub(crate) catalog: &'a Catalog,
}

impl<'a> Tables<'a> {
    pub(crate) fn relation(&self, occurrence: OccurrenceId) -> Option<&'a Relation> {
        self.catalog
            .relation_by_oid(self.occurrences.get(occurrence.0)?.relation)
    }

    /// `table.column`, for people.
    pub(crate) fn column_label(&self, column: ColumnRef) -> String {
        let label = self.relation(column.occurrence).and_then(|relation| {
            let name = &relation.column_at(column.attnum)?.name;
            Some(format!("{}.{name}", relation.name))
        });
        label.unwrap_or_else(|| "a column that no longer exists".to_owned())
    }
}

impl ColumnTypes for Tables<'_> {
    fn column_type(&self, column: ColumnRef) -> Option<ColumnType> {
        Some(
            self.relation(column.occurrence)?
                .column_at(column.attnum)?
                .ty,
        )
    }

    fn is_not_null(&self, column: ColumnRef) -> bool {
        let always_joined = self
            .occurrences
            .get(column.occurrence.0)
            .is_some_and(|occurrence| occurrence.attachment == Attachment::Inner);
        let enforced = self
            .relation(column.occurrence)
            .and_then(|relation| relation.column_at(column.attnum))
            .is_some_and(|column| column.not_null);
        always_joined && enforced
    }

    fn is_enum(&self, oid: u32) -> bool {
        self.catalog.user_names().enum_types.contains(&Oid(oid))
    }

    fn is_deterministic(&self, collation: Oid) -> bool {
        let loose = &self.catalog.user_names().nondeterministic_collations;
        !loose.contains(&collation)
    }
}
