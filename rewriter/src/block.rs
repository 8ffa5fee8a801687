//! The canonical block: one SELECT, names resolved, sub-selects merged where that changes nothing.
//!
//! A block means: the cross product of its inner occurrences, each left occurrence attached by its
//! own condition, the rows that satisfy every predicate, grouped, filtered by HAVING, and projected.
//! See Goldstein and Larson, "Optimizing Queries Using Materialized Views" (2001), for the form.

use std::sync::Arc;

use crate::catalog::{Catalog, ColumnType, Oid, Relation};
pub use crate::expr::OrderItem;
use crate::expr::{ColumnRef, ColumnTypes, OccurrenceId, Scalar};
use crate::query::SubSelect;

/// One item of FROM.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Occurrence {
    /// What it reads.
    pub source: Source,
    /// How it is attached.
    pub attachment: Attachment,
}

/// What an item of FROM reads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// A base table.
    Table(Oid),
    /// A sub-select that could not be merged; its columns are numbered from 1.
    Select(Arc<SubSelect>),
    /// In a rewritten block, the table of the rollup that answers it; its columns are numbered from 0.
    Rollup,
}

impl Occurrence {
    /// The base table, if it is one.
    pub fn relation(&self) -> Option<Oid> {
        match &self.source {
            Source::Table(oid) => Some(*oid),
            Source::Select(_) | Source::Rollup => None,
        }
    }
}

/// How an occurrence takes part in the join.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attachment {
    /// Part of the cross product; its join conditions are among the block's predicates.
    Inner,
    /// LEFT JOINed on these conjuncts; where none matches its columns are NULL.
    Left(Vec<Scalar>),
}

/// A column of the result.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Output {
    /// The column's name as PostgreSQL gives it.
    pub name: String,
    /// Its value.
    pub value: Scalar,
}

/// What SELECT does about rows that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Distinct {
    /// Keeps them.
    No,
    /// Keeps one of each kind.
    Yes,
    /// DISTINCT ON: keeps the first in ORDER BY of those that agree on these.
    On(Vec<Scalar>),
}

impl Distinct {
    /// The expressions of ON.
    pub(crate) fn on(&self) -> &[Scalar] {
        match self {
            Distinct::On(keys) => keys,
            Distinct::No | Distinct::Yes => &[],
        }
    }
}

/// LIMIT and OFFSET, each a constant or parameter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Limit {
    /// LIMIT or FETCH FIRST.
    pub count: Option<Scalar>,
    /// WITH TIES.
    pub with_ties: bool,
    /// OFFSET.
    pub offset: Option<Scalar>,
}

impl Limit {
    /// Whether rows may be left out.
    pub(crate) fn is_none(&self) -> bool {
        self.count.is_none() && self.offset.is_none()
    }
}

/// A resolved SELECT.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// The items of FROM.
    pub occurrences: Vec<Occurrence>,
    /// Conjuncts of WHERE and of inner joins' ON.
    pub predicates: Vec<Scalar>,
    /// Group keys. Empty with `is_aggregated` means one group over everything.
    pub group_by: Vec<Scalar>,
    /// GROUPING SETS, ROLLUP and CUBE, as sets of positions in `group_by`; `None` for a plain GROUP BY.
    pub grouping_sets: Option<Vec<Vec<usize>>>,
    /// Whether rows are grouped at all.
    pub is_aggregated: bool,
    /// Conjuncts of HAVING.
    pub having: Vec<Scalar>,
    /// The select list.
    pub outputs: Vec<Output>,
    /// DISTINCT.
    pub distinct: Distinct,
    /// ORDER BY.
    pub order_by: Vec<OrderItem>,
    /// LIMIT and OFFSET.
    pub limit: Limit,
    /// Columns that sub-selects select: the role needs privileges on them even if nothing comes of them.
    pub mentioned: Vec<ColumnRef>,
    /// Views whose definitions stand in FROM: the role needs privileges on them, too.
    pub views: Vec<Oid>,
}

impl Block {
    /// Whether some group is over everything: it gives a row even of no rows.
    pub fn has_total(&self) -> bool {
        let has_empty_set =
            |sets: &Vec<Vec<usize>>| sets.iter().any(|set: &Vec<usize>| set.is_empty());
        self.is_aggregated
            && (self.group_by.is_empty() || self.grouping_sets.as_ref().is_some_and(has_empty_set))
    }

    /// Its occurrences beside the catalog.
    pub(crate) fn tables<'a>(&'a self, catalog: &'a Catalog) -> Tables<'a> {
        Tables {
            occurrences: &self.occurrences,
            catalog,
        }
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

    /// Every expression outside the join: predicates, keys, HAVING, outputs, DISTINCT ON and ORDER BY.
    pub(crate) fn scalars(&self) -> impl Iterator<Item = &Scalar> {
        let outputs = self.outputs.iter().map(|output| &output.value);
        let order = self.order_by.iter().map(|item| &item.value);
        self.predicates
            .iter()
            .chain(&self.group_by)
            .chain(&self.having)
            .chain(outputs)
            .chain(self.distinct.on())
            .chain(order)
    }

    /// Every column that the block reads, those of joins and of merged sub-selects included.
    pub(crate) fn columns(&self) -> impl Iterator<Item = ColumnRef> {
        self.scalars()
            .chain(self.left_conditions())
            .flat_map(Scalar::columns)
            .chain(self.mentioned.iter().copied())
    }

    /// The sub-selects in FROM that stay what they are.
    pub(crate) fn sub_selects(&self) -> impl Iterator<Item = &SubSelect> {
        self.occurrences
            .iter()
            .filter_map(|occurrence| match &occurrence.source {
                Source::Select(select) => Some(&**select),
                Source::Table(_) | Source::Rollup => None,
            })
    }

    /// The same block with every column replaced, left joins' conditions included.
    pub(crate) fn map_columns(&self, replace: &dyn Fn(ColumnRef) -> ColumnRef) -> Block {
        Block {
            mentioned: self.mentioned.iter().copied().map(replace).collect(),
            ..self.map_scalars(&mut |scalar| scalar.map_columns(replace))
        }
    }

    /// The same block with every expression replaced, left joins' conditions included.
    pub(crate) fn map_scalars(&self, change: &mut dyn FnMut(&Scalar) -> Scalar) -> Block {
        let mut all = |scalars: &[Scalar]| scalars.iter().map(&mut *change).collect::<Vec<_>>();
        let occurrence = |occurrence: &Occurrence| Occurrence {
            source: occurrence.source.clone(),
            attachment: match &occurrence.attachment {
                Attachment::Inner => Attachment::Inner,
                Attachment::Left(condition) => Attachment::Left(all(condition)),
            },
        };
        let occurrences = self.occurrences.iter().map(occurrence).collect();
        let predicates = all(&self.predicates);
        let group_by = all(&self.group_by);
        let having = all(&self.having);
        let distinct = match &self.distinct {
            Distinct::On(keys) => Distinct::On(all(keys)),
            other => other.clone(),
        };
        let outputs = self.outputs.iter().map(|output| Output {
            name: output.name.clone(),
            value: change(&output.value),
        });
        let outputs = outputs.collect();
        let order_by = self.order_by.iter().map(|item| OrderItem {
            value: change(&item.value),
            ..item.clone()
        });
        Block {
            occurrences,
            predicates,
            group_by,
            grouping_sets: self.grouping_sets.clone(),
            is_aggregated: self.is_aggregated,
            having,
            outputs,
            distinct,
            order_by: order_by.collect(),
            limit: self.limit.clone(),
            mentioned: self.mentioned.clone(),
            views: self.views.clone(),
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
    pub(crate) fn source(&self, occurrence: OccurrenceId) -> Option<&'a Source> {
        Some(&self.occurrences.get(occurrence.0)?.source)
    }

    /// The base table; `None` for what is none.
    pub(crate) fn relation(&self, occurrence: OccurrenceId) -> Option<&'a Relation> {
        let oid = self.occurrences.get(occurrence.0)?.relation()?;
        self.catalog.relation_by_oid(oid)
    }

    /// `table.column`, for people.
    pub(crate) fn column_label(&self, column: ColumnRef) -> String {
        let label = match self.source(column.occurrence) {
            Some(Source::Table(oid)) => self.catalog.relation_by_oid(*oid).and_then(|relation| {
                let name = &relation.column_at(column.attnum)?.name;
                Some(format!("{}.{name}", relation.name))
            }),
            Some(Source::Select(select)) => select
                .column_at(column.attnum)
                .map(|facts| format!("{}.{}", select.name, facts.name)),
            Some(Source::Rollup) | None => None,
        };
        label.unwrap_or_else(|| "a column that no longer exists".to_owned())
    }
}

impl ColumnTypes for Tables<'_> {
    fn column_type(&self, column: ColumnRef) -> Option<ColumnType> {
        match self.source(column.occurrence)? {
            Source::Table(oid) => {
                let relation = self.catalog.relation_by_oid(*oid)?;
                Some(relation.column_at(column.attnum)?.ty)
            }
            Source::Select(select) => select.column_at(column.attnum)?.ty,
            Source::Rollup => None,
        }
    }

    fn is_not_null(&self, column: ColumnRef) -> bool {
        let Some(occurrence) = self.occurrences.get(column.occurrence.0) else {
            return false;
        };
        let enforced = match &occurrence.source {
            Source::Table(oid) => self
                .catalog
                .relation_by_oid(*oid)
                .and_then(|relation| relation.column_at(column.attnum))
                .is_some_and(|column| column.not_null),
            Source::Select(select) => select
                .column_at(column.attnum)
                .is_some_and(|facts| facts.not_null),
            Source::Rollup => false,
        };
        enforced && occurrence.attachment == Attachment::Inner
    }

    fn is_enum(&self, oid: u32) -> bool {
        self.catalog.user_names().enum_types.contains(&Oid(oid))
    }

    fn is_deterministic(&self, collation: Oid) -> bool {
        let loose = &self.catalog.user_names().nondeterministic_collations;
        !loose.contains(&collation)
    }
}
