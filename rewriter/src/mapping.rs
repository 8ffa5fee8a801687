//! Which of a rollup's tables each of a query's tables is taken for.
//!
//! A table of the query that is none of the rollup's is joined back: it stays in the rewritten statement
//! beside the rollup's table. As only the rollup's keys are compared with it, each row of the rollup meets the
//! same rows there as all base rows behind it did, so that sums and counts come out right however many
//! they are (the eager aggregation of Yan and Larson, 1995).

use crate::block::{Block, Occurrence, Source};
use crate::catalog::Catalog;
use crate::equivalence::column_equality;
use crate::expr::{ColumnRef, OccurrenceId, Scalar};
use crate::reason::{Code, Reason};
use crate::rollup::RollupDefinition;

/// Most ways to map a query's tables to a rollup's that are tried; more arise only from many self-joins.
const MAPPINGS_MAX: usize = 24;

/// For each of the query's occurrences the rollup's, or one behind all of those for what stays beside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) targets: Vec<OccurrenceId>,
    /// How many occurrences the rollup has.
    pub(crate) base: usize,
}

impl Mapping {
    /// Whether the query's occurrence stays beside the rollup.
    pub(crate) fn keeps(&self, position: usize) -> bool {
        self.targets
            .get(position)
            .is_some_and(|target| target.0 >= self.base)
    }

    /// The query's occurrences that stay beside the rollup, in order.
    pub(crate) fn kept<'a>(&'a self, query: &'a Block) -> impl Iterator<Item = &'a Occurrence> {
        let occurrences = query.occurrences.iter().enumerate();
        occurrences.filter_map(|(position, occurrence)| self.keeps(position).then_some(occurrence))
    }

    /// The query's column as one of the rollup's tables, or of what stays beside them.
    pub(crate) fn target(&self, column: ColumnRef) -> ColumnRef {
        let target = self.targets.get(column.occurrence.0).copied();
        ColumnRef {
            occurrence: target.unwrap_or(column.occurrence),
            ..column
        }
    }

    /// What targets are positions in: the rollup's occurrences, and behind them those of the query that stay beside it.
    pub(crate) fn occurrences(&self, rollup: &Block, query: &Block) -> Vec<Occurrence> {
        let rollup = rollup.occurrences.iter();
        rollup.chain(self.kept(query)).cloned().collect()
    }

    fn with(&self, target: Option<OccurrenceId>) -> Mapping {
        let kept = self.targets.iter().filter(|target| target.0 >= self.base);
        let beside = OccurrenceId(self.base + kept.count());
        let mut extended = self.clone();
        extended.targets.push(target.unwrap_or(beside));
        extended
    }

    /// The same with more of the occurrences beside the rollup.
    fn with_beside(&self, moved: &[usize]) -> Mapping {
        let none = Mapping {
            targets: vec![],
            base: self.base,
        };
        let targets = self.targets.iter().enumerate();
        targets.fold(none, |mapping, (position, target)| {
            let stays = target.0 < self.base && !moved.contains(&position);
            mapping.with(stays.then_some(*target))
        })
    }
}

/// Every mapping in which no table stays beside the rollup that the rollup has.
pub(crate) fn mappings(
    query: &Block,
    rollup: &Block,
    catalog: &Catalog,
) -> Result<Vec<Mapping>, Reason> {
    let count = |block: &Block, source: &Source| {
        let occurrences = block.occurrences.iter();
        occurrences
            .filter(|occurrence| occurrence.source == *source)
            .count()
    };
    let mut mappings = vec![Mapping {
        targets: vec![],
        base: rollup.occurrences.len(),
    }];
    for occurrence in &query.occurrences {
        let is_surplus = count(query, &occurrence.source) > count(rollup, &occurrence.source);
        let same_table = |position: &usize| {
            rollup
                .occurrences
                .get(*position)
                .is_some_and(|other| other.source == occurrence.source)
        };
        let same: Vec<OccurrenceId> = (0..rollup.occurrences.len())
            .filter(same_table)
            .map(OccurrenceId)
            .collect();
        let extend = |mapping: &Mapping| -> Vec<Mapping> {
            let free = same
                .iter()
                .filter(|target| !mapping.targets.contains(target));
            let mapped = free.map(|target| mapping.with(Some(*target)));
            let beside = is_surplus.then(|| mapping.with(None));
            mapped.chain(beside).collect()
        };
        let extended = mappings.iter().flat_map(extend);
        mappings = extended.take(MAPPINGS_MAX).collect();
    }
    let mapped = |mapping: &Mapping| {
        let kept = (0..mapping.targets.len()).filter(|position| mapping.keeps(*position));
        mapping.targets.len() - kept.count()
    };
    let most = mappings.iter().map(mapped).max().unwrap_or(0);
    mappings.retain(|mapping| mapped(mapping) == most);
    let mut refusal = None;
    mappings.retain(|mapping| match finer_table(query, mapping, catalog) {
        Some(name) => {
            refusal.get_or_insert(name);
            false
        }
        None => true,
    });
    match refusal {
        Some(name) if mappings.is_empty() => Err(Reason::new(Code::TableMissing, name)),
        Some(_) | None => Ok(mappings),
    }
}

/// A table that stays beside the rollup although its rows are finer than the rollup's: it is joined by its
/// foreign key to a table that the rollup was built from. Or any table, where the rollup has none of them.
fn finer_table(query: &Block, mapping: &Mapping, catalog: &Catalog) -> Option<String> {
    let tables = query.tables(catalog);
    let positions = 0..query.occurrences.len();
    let (beside, mapped): (Vec<usize>, Vec<usize>) =
        positions.partition(|position| mapping.keeps(*position));
    let conditions: Vec<&Scalar> = query
        .predicates
        .iter()
        .chain(query.left_conditions())
        .collect();
    let refers = |column: ColumnRef, to: ColumnRef| {
        let relations = (
            tables.relation(column.occurrence),
            tables.relation(to.occurrence),
        );
        let (Some(referring), Some(referenced)) = relations else {
            return false;
        };
        let mut keys = referring.foreign_keys.iter();
        keys.any(|key| key.references == referenced.oid && key.columns.contains(&column.attnum))
    };
    let is_finer = |position: &usize| {
        let joins_mapped = |(left, right): (ColumnRef, ColumnRef)| {
            let is_join = |column: ColumnRef, to: ColumnRef| {
                column.occurrence.0 == *position
                    && mapped.contains(&to.occurrence.0)
                    && refers(column, to)
            };
            is_join(left, right) || is_join(right, left)
        };
        let mut equalities = conditions
            .iter()
            .filter_map(|condition| column_equality(condition));
        mapped.is_empty() || equalities.any(joins_mapped)
    };
    let is_table = |position: &usize| tables.relation(OccurrenceId(*position)).is_some();
    let finer = beside.into_iter().filter(is_table).find(is_finer)?;
    Some(tables.relation(OccurrenceId(finer))?.name.clone())
}

/// Mappings in which tables stay beside the rollup that it has, but not all needed columns of, or joined
/// in another way. `code` says what is in the way of the given mapping.
pub(crate) fn joined_back(
    query: &Block,
    rollup: &RollupDefinition,
    mapping: &Mapping,
    code: Code,
) -> Vec<Mapping> {
    let lacks = |position: &usize| {
        let Some(target) = mapping.targets.get(*position) else {
            return false;
        };
        let is_dispensable = !mapping.keeps(*position) && !rollup.offer.needs(*target);
        is_dispensable && lacks_columns(query, OccurrenceId(*position), rollup, *target)
    };
    let lacking: Vec<usize> = (0..query.occurrences.len()).filter(lacks).collect();
    let dispensable: Vec<usize> = (0..query.occurrences.len())
        .filter(|position| {
            let target = mapping.targets.get(*position);
            target.is_some_and(|target| target.0 < mapping.base && !rollup.offer.needs(*target))
        })
        .collect();
    let differs = code == Code::JoinDiffers;
    if dispensable.is_empty() || (lacking.is_empty() && !differs) {
        return vec![];
    }
    let mut choices = vec![lacking, dispensable];
    choices.dedup();
    choices.retain(|moved| !moved.is_empty());
    let beside = choices.iter().map(|moved| mapping.with_beside(moved));
    beside.collect()
}

/// Whether the query names a column of its occurrence that no key of the rollup is made of.
fn lacks_columns(
    query: &Block,
    occurrence: OccurrenceId,
    rollup: &RollupDefinition,
    target: OccurrenceId,
) -> bool {
    let mut columns = query
        .scalars()
        .chain(query.left_conditions())
        .flat_map(Scalar::columns)
        .filter(|column| column.occurrence == occurrence);
    columns.any(|column| {
        let wanted = rollup.classes.representative(ColumnRef {
            occurrence: target,
            ..column
        });
        let mut keys = rollup.keys();
        !keys.any(|(_, key)| key.columns().contains(&wanted))
    })
}
