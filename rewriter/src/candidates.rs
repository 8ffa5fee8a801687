//! Which rollups may answer a block, found without trying each.
//!
//! A rollup and a block are each summed up in sets of tables and columns. A rollup that lacks a column which
//! the block needs of a table that no other source could give cannot match, and need not be tried. The
//! sets are hashed into a few words: they may say "perhaps" too often, never "no" wrongly.

use crate::block::{Block, Tables};
use crate::catalog::{AttNum, Catalog, Oid};
use crate::equivalence::{Equivalence, column_equality};
use crate::expr::{Aggregate, AggregateFunction, ColumnRef, OccurrenceId, Scalar};
use crate::joins::{Joins, Removal};
use crate::rollup::{Rollup, Stored};
use crate::types;

/// A set that is never said to lack what it has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sketch([u64; Sketch::WORDS]);

impl Sketch {
    const WORDS: usize = 8;

    fn insert(&mut self, member: Member) {
        if let Some(word) = self.0.get_mut(member.word()) {
            *word |= member.bit();
        }
    }

    /// How many of these are certainly not in this set.
    fn lacks(&self, members: &[Member]) -> u32 {
        let is_missing = |member: &Member| {
            let word = self.0.get(member.word());
            u32::from(word.is_some_and(|word| word & member.bit() == 0))
        };
        members.iter().map(is_missing).sum()
    }
}

/// A column as a [`Sketch`] knows it: a few columns are one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member(u16);

impl Member {
    fn of(relation: Oid, attnum: AttNum) -> Self {
        let key = u64::from(relation.0) << 16 | u64::from(attnum.0.cast_unsigned());
        // Fibonacci hashing: the upper bits of a product with 2^64 over the golden ratio.
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 55;
        Member(hash as u16)
    }

    fn word(self) -> usize {
        usize::from(self.0) / 64 % Sketch::WORDS
    }

    fn bit(self) -> u64 {
        1 << (self.0 % 64)
    }
}

/// What a rollup has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offer {
    /// The tables that cannot be left out of the rollup.
    needed: Vec<Oid>,
    /// Which mentions of tables cannot be left out.
    needed_occurrences: Vec<OccurrenceId>,
    /// The columns in its keys or fixed by its conditions, and those that equal them.
    keys: Sketch,
    /// The columns in its keys and conditions, and those that equal them.
    dimensions: Sketch,
    /// The columns in anything.
    columns: Sketch,
}

impl Offer {
    pub(crate) fn of(
        block: &Block,
        stored: &[Stored],
        classes: &Equivalence,
        tables: Tables<'_>,
    ) -> Self {
        let all = (0..block.occurrences.len()).map(OccurrenceId);
        let needed_occurrences: Vec<OccurrenceId> = all
            .filter(|occurrence| !is_removable(*occurrence, block, tables))
            .collect();
        let needed = needed_occurrences
            .iter()
            .filter_map(|occurrence| Some(tables.relation(*occurrence)?.oid))
            .collect();
        let mut offer = Offer {
            needed,
            needed_occurrences,
            ..Offer::default()
        };
        let mut dimensions: Vec<ColumnRef> = vec![];
        let mut measures: Vec<ColumnRef> = vec![];
        for column in stored {
            match column {
                Stored::Key(key) => dimensions.extend(key.columns()),
                Stored::Partial(partial) => {
                    measures.extend(Scalar::Aggregate(Box::new(partial.clone())).columns());
                }
            }
        }
        // A condition may fix a column to a constant, which is as good as a key.
        let fixing = block.predicates.iter();
        let fixing = fixing.filter(|predicate| column_equality(predicate).is_none());
        let mut keys = dimensions.clone();
        keys.extend(fixing.flat_map(Scalar::columns));
        for column in with_equals(&keys, classes) {
            insert(&mut offer.keys, column, tables);
        }
        let conditions = block.predicates.iter().chain(block.left_conditions());
        dimensions.extend(conditions.flat_map(Scalar::columns));
        for column in with_equals(&dimensions, classes) {
            insert(&mut offer.dimensions, column, tables);
            insert(&mut offer.columns, column, tables);
        }
        for column in with_equals(&measures, classes) {
            insert(&mut offer.columns, column, tables);
        }
        offer
    }

    /// Whether the mention of a table cannot be left out of the rollup.
    pub(crate) fn needs(&self, occurrence: OccurrenceId) -> bool {
        self.needed_occurrences.contains(&occurrence)
    }

    /// How much of what the block needs is certainly missing; 0 if it may match.
    pub(crate) fn lacks(&self, demand: &Demand) -> u32 {
        let mut missing = 0;
        for relation in &self.needed {
            match demand
                .tables
                .iter()
                .find(|table| table.relation == *relation)
            {
                // Tables that are read more than once may stand for one another.
                Some(table) if table.is_alone => {
                    missing += self.dimensions.lacks(&table.dimensions);
                    missing += self.columns.lacks(&table.measures);
                }
                Some(_) => {}
                None => missing += TABLE_WEIGHT,
            }
        }
        let others = demand
            .tables
            .iter()
            .filter(|table| table.is_alone && !self.needed.contains(&table.relation));
        missing
            + others
                .map(|table| self.lacks_of(table, demand))
                .sum::<u32>()
    }

    /// What is missing of a table that may be joined back: nothing if it can be, by columns that are keys.
    fn lacks_of(&self, table: &TableDemand, demand: &Demand) -> u32 {
        let missing =
            self.dimensions.lacks(&table.dimensions) + self.columns.lacks(&table.measures);
        let is_out_of_reach = |(relation, attnum): &(Oid, AttNum)| {
            let mut tables = demand.tables.iter();
            let is_mapped = self.needed.contains(relation)
                && tables.any(|other| other.relation == *relation && other.is_alone);
            is_mapped && self.keys.lacks(&[Member::of(*relation, *attnum)]) > 0
        };
        match missing > 0 && table.joined_by.iter().any(is_out_of_reach) {
            true => missing,
            false => 0,
        }
    }
}

/// A table that is missing makes a rollup as remote as this many columns.
const TABLE_WEIGHT: u32 = 100;

fn insert(sketch: &mut Sketch, column: ColumnRef, tables: Tables<'_>) {
    if let Some(relation) = tables.relation(column.occurrence) {
        sketch.insert(Member::of(relation.oid, column.attnum));
    }
}

fn with_equals(columns: &[ColumnRef], classes: &Equivalence) -> Vec<ColumnRef> {
    let of_column = |column: &ColumnRef| classes.members(*column);
    let mut all: Vec<ColumnRef> = columns.iter().flat_map(of_column).collect();
    all.sort();
    all.dedup();
    all
}

/// Whether the table can be left out after as many others as possible.
fn is_removable(occurrence: OccurrenceId, block: &Block, tables: Tables<'_>) -> bool {
    let mut removals: Vec<Removal> = vec![];
    loop {
        let removed: Vec<OccurrenceId> =
            removals.iter().map(|removal| removal.occurrence).collect();
        let removed_predicates: Vec<usize> = removals
            .iter()
            .flat_map(|removal| removal.join_predicates.clone())
            .collect();
        let joins = Joins {
            tables,
            predicates: &block.predicates,
            removed: &removed,
            removed_predicates: &removed_predicates,
        };
        if joins.removal(occurrence).is_some() {
            return true;
        }
        let next = (0..block.occurrences.len())
            .map(OccurrenceId)
            .filter(|other| *other != occurrence && !removed.contains(other))
            .find_map(|other| joins.removal(other));
        match next {
            Some(removal) => removals.push(removal),
            None => return false,
        }
    }
}

/// What a block needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand {
    tables: Vec<TableDemand>,
}

#[derive(Debug, Clone)]
struct TableDemand {
    relation: Oid,
    /// The block reads the table once.
    is_alone: bool,
    /// Columns outside aggregates, each once.
    dimensions: Vec<Member>,
    /// Columns inside aggregates, each once.
    measures: Vec<Member>,
    /// Columns of other tables that columns of this one are equated with.
    joined_by: Vec<(Oid, AttNum)>,
}

impl Demand {
    pub(crate) fn of(block: &Block, tables: Tables<'_>) -> Self {
        let mut demand = Demand::default();
        for position in 0..block.occurrences.len() {
            let Some(relation) = tables.relation(OccurrenceId(position)) else {
                continue;
            };
            let known = demand.tables.iter_mut();
            match known
                .into_iter()
                .find(|known| known.relation == relation.oid)
            {
                Some(known) => known.is_alone = false,
                None => demand.tables.push(TableDemand {
                    relation: relation.oid,
                    is_alone: true,
                    dimensions: vec![],
                    measures: vec![],
                    joined_by: vec![],
                }),
            }
        }
        for (left, right) in block.predicates.iter().filter_map(column_equality) {
            demand.join(left, right, tables);
            demand.join(right, left, tables);
        }
        let filters = block.predicates.iter().filter(|filter| !has_cases(filter));
        for scalar in filters.chain(&block.group_by) {
            demand.dimensions(scalar, tables);
        }
        let above = block
            .outputs
            .iter()
            .map(|output| &output.value)
            .chain(&block.having)
            .chain(block.order_by.iter().map(|item| &item.value));
        for scalar in above {
            demand.above_groups(scalar, tables);
        }
        demand
    }

    fn join(&mut self, column: ColumnRef, other: ColumnRef, tables: Tables<'_>) {
        let relations = (
            tables.relation(column.occurrence),
            tables.relation(other.occurrence),
        );
        let (Some(mine), Some(theirs)) = relations else {
            return;
        };
        let mut known = self.tables.iter_mut();
        if let Some(table) = known.find(|table| table.relation == mine.oid) {
            table.joined_by.push((theirs.oid, other.attnum));
        }
    }

    fn dimensions(&mut self, scalar: &Scalar, tables: Tables<'_>) {
        for column in scalar.columns() {
            self.column(column, tables, |table| &mut table.dimensions);
        }
    }

    fn above_groups(&mut self, scalar: &Scalar, tables: Tables<'_>) {
        match scalar {
            Scalar::Column(column) => {
                self.column(*column, tables, |table| &mut table.dimensions);
            }
            Scalar::Aggregate(aggregate) if !counts_rows(aggregate, &tables) => {
                for column in scalar.columns() {
                    self.column(column, tables, |table| &mut table.measures);
                }
            }
            Scalar::Aggregate(_) => {}
            other => {
                for child in other.children() {
                    self.above_groups(child, tables);
                }
            }
        }
    }

    fn column(
        &mut self,
        column: ColumnRef,
        tables: Tables<'_>,
        set: impl Fn(&mut TableDemand) -> &mut Vec<Member>,
    ) {
        let Some(relation) = tables.relation(column.occurrence) else {
            return;
        };
        let table = self
            .tables
            .iter_mut()
            .find(|table| table.relation == relation.oid);
        if let Some(table) = table {
            let (members, member) = (set(table), Member::of(relation.oid, column.attnum));
            if !members.contains(&member) {
                members.push(member);
            }
        }
    }
}

/// A condition of several cases may follow from one that names fewer columns.
fn has_cases(filter: &Scalar) -> bool {
    filter.any(&|node| {
        matches!(
            node,
            Scalar::Or(_) | Scalar::And(_) | Scalar::Not(_) | Scalar::Case { .. }
        )
    })
}

/// A count of what is never NULL, or only where the table has no row, needs no column.
fn counts_rows(aggregate: &Aggregate, tables: &Tables<'_>) -> bool {
    let is_declared_not_null = |argument: &Scalar| match argument {
        Scalar::Column(column) => {
            let relation = tables.relation(column.occurrence);
            let declared = relation.and_then(|relation| relation.column_at(column.attnum));
            declared.is_some_and(|column| column.not_null)
        }
        _ => false,
    };
    let is_counted =
        |argument: &Scalar| types::is_not_null(argument, tables) || is_declared_not_null(argument);
    aggregate.function == AggregateFunction::Count
        && !aggregate.distinct
        && aggregate.argument.as_ref().is_none_or(is_counted)
}

/// Most rollups that are tried for one block.
const TRIES_MAX: usize = 100;

/// Most matches of one block, and most statements that are offered: further ones are not looked for.
pub(crate) const MATCHES_MAX: usize = 8;

/// Most rollups of which it is said why they do not answer.
pub(crate) const REASONS_MAX: usize = 16;

/// In which order rollups are tried.
pub(crate) struct Candidates {
    /// Those that may match, the cheapest first.
    pub(crate) likely: Vec<usize>,
    /// The nearest of those that cannot match.
    pub(crate) nearest: Vec<usize>,
}

impl Candidates {
    /// The candidates for a block in any of these equivalent forms.
    pub(crate) fn of(forms: &[&Block], rollups: &[Rollup], catalog: &Catalog) -> Self {
        let demand = |block: &&Block| {
            let tables = block.tables(catalog);
            Demand::of(block, tables)
        };
        let demands: Vec<Demand> = forms.iter().map(demand).collect();
        let mut likely: Vec<usize> = vec![];
        let mut others: Vec<(u32, usize)> = vec![];
        for (position, rollup) in rollups.iter().enumerate() {
            let offer = &rollup.definition.offer;
            let lacks = demands.iter().map(|demand| offer.lacks(demand));
            match lacks.min().unwrap_or(0) {
                0 => likely.push(position),
                missing => others.push((missing, position)),
            }
        }
        likely.sort_by_key(|position| rollups.get(*position).map(|rollup| rollup.rows));
        likely.truncate(TRIES_MAX);
        let wanted = REASONS_MAX.min(others.len());
        if wanted > 0 && wanted < others.len() {
            others.select_nth_unstable(wanted - 1);
            others.truncate(wanted);
        }
        others.sort_unstable();
        let nearest = others.into_iter().map(|(_, position)| position).collect();
        Candidates { likely, nearest }
    }
}
