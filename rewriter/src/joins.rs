//! Joins that change neither which rows there are nor how often: they may be left out.
//!
//! An inner join on an enforced foreign key whose columns are NOT NULL finds exactly one row; a left
//! join on a unique key finds at most one, and keeps the row if there is none.

use crate::block::{Attachment, Block, Occurrence, Tables};
use crate::catalog::{AttNum, Catalog};
use crate::equivalence::column_equality;
use crate::expr::{ColumnRef, ColumnTypes, OccurrenceId, Scalar};
use crate::types;

/// Why one join may be left out, for people.
#[derive(Debug, Clone)]
pub(crate) struct Removal {
    /// The occurrence that goes.
    pub(crate) occurrence: OccurrenceId,
    /// The predicates that only made this join, by position.
    pub(crate) join_predicates: Vec<usize>,
    /// Its columns that equal columns which stay.
    pub(crate) equal_columns: Vec<(ColumnRef, ColumnRef)>,
    /// The key that proves it.
    pub(crate) proof: String,
}

/// The joins of a block as far as removal is concerned.
pub(crate) struct Joins<'a> {
    pub(crate) tables: Tables<'a>,
    pub(crate) predicates: &'a [Scalar],
    /// Which occurrences are gone already.
    pub(crate) removed: &'a [OccurrenceId],
    /// Which predicates are gone already.
    pub(crate) removed_predicates: &'a [usize],
}

impl Joins<'_> {
    /// Whether the occurrence may be left out when nothing but its join mentions it.
    pub(crate) fn removal(&self, occurrence: OccurrenceId) -> Option<Removal> {
        let others = self
            .tables
            .occurrences
            .iter()
            .enumerate()
            .filter(|(position, _)| {
                *position != occurrence.0 && !self.removed.contains(&OccurrenceId(*position))
            });
        let is_named_in_left_join = others.clone().any(|(_, other)| match &other.attachment {
            Attachment::Left(condition) => condition
                .iter()
                .any(|conjunct| mentions(conjunct, occurrence)),
            Attachment::Inner => false,
        });
        if is_named_in_left_join {
            return None;
        }
        let touching: Vec<usize> = (0..self.predicates.len())
            .filter(|position| !self.removed_predicates.contains(position))
            .filter(|position| {
                self.predicates
                    .get(*position)
                    .is_some_and(|predicate| mentions(predicate, occurrence))
            })
            .collect();
        match &self.tables.occurrences.get(occurrence.0)?.attachment {
            Attachment::Inner => self.inner_removal(occurrence, touching),
            Attachment::Left(condition) if touching.is_empty() => {
                self.left_removal(occurrence, condition)
            }
            Attachment::Left(_) => None,
        }
    }

    /// Whether the predicates, all of which must be its join, find exactly one row of the occurrence.
    pub(crate) fn finds_one_row(&self, occurrence: OccurrenceId) -> bool {
        let all = (0..self.predicates.len()).collect();
        self.inner_removal(occurrence, all).is_some()
    }

    fn inner_removal(&self, occurrence: OccurrenceId, touching: Vec<usize>) -> Option<Removal> {
        let pairs = touching
            .iter()
            .map(|position| self.key_equality(self.predicates.get(*position)?, occurrence))
            .collect::<Option<Vec<_>>>()?;
        let other = pairs.first()?.1.occurrence;
        if pairs.iter().any(|(_, theirs)| theirs.occurrence != other) {
            return None;
        }
        let (relation, referencing) = (
            self.tables.relation(occurrence)?,
            self.tables.relation(other)?,
        );
        let is_exactly = |columns: &[AttNum], referenced: &[AttNum]| {
            let has_pair = |(mine, theirs): &(ColumnRef, ColumnRef)| {
                columns
                    .iter()
                    .zip(referenced)
                    .any(|(column, key)| *key == mine.attnum && *column == theirs.attnum)
            };
            let is_equated = |(column, key): (&AttNum, &AttNum)| {
                pairs
                    .iter()
                    .any(|(mine, theirs)| mine.attnum == *key && theirs.attnum == *column)
            };
            pairs.iter().all(has_pair) && columns.iter().zip(referenced).all(is_equated)
        };
        let key = referencing.foreign_keys.iter().find(|key| {
            key.references == relation.oid && is_exactly(&key.columns, &key.referenced_columns)
        })?;
        let is_total = pairs
            .iter()
            .all(|(_, theirs)| self.tables.is_not_null(*theirs));
        let columns: Vec<&str> = key
            .columns
            .iter()
            .filter_map(|attnum| referencing.column_at(*attnum))
            .map(|column| column.name.as_str())
            .collect();
        let proof = format!(
            "foreign key {}({}) references {}, and is never null",
            referencing.name,
            columns.join(", "),
            relation.name
        );
        is_total.then_some(Removal {
            occurrence,
            join_predicates: touching,
            equal_columns: pairs,
            proof,
        })
    }

    /// `mine = theirs` under the key's own notion of equality. Between unlike types the parser may
    /// choose another one (a varchar beside a char(n) ignores trailing blanks, a numeric beside a float
    /// loses digits), under which several keys can be equal.
    fn key_equality(
        &self,
        conjunct: &Scalar,
        occurrence: OccurrenceId,
    ) -> Option<(ColumnRef, ColumnRef)> {
        let (mine, theirs) = equated(conjunct, occurrence)?;
        let (my_type, their_type) = (
            self.tables.column_type(mine)?,
            self.tables.column_type(theirs)?,
        );
        let is_same = my_type.oid == their_type.oid && my_type.collation == their_type.collation;
        let are_integers = types::is_integer(my_type.oid) && types::is_integer(their_type.oid);
        (is_same || are_integers).then_some((mine, theirs))
    }

    fn left_removal(&self, occurrence: OccurrenceId, condition: &[Scalar]) -> Option<Removal> {
        let pairs = condition
            .iter()
            .map(|conjunct| self.key_equality(conjunct, occurrence))
            .collect::<Option<Vec<_>>>()?;
        let relation = self.tables.relation(occurrence)?;
        let is_equated = |column: &AttNum| pairs.iter().any(|(mine, _)| mine.attnum == *column);
        relation
            .unique_keys
            .iter()
            .find(|key| key.iter().all(is_equated))?;
        let proof = format!("left join to {} on a unique key", relation.name);
        // After a left join its columns may be NULL where the other side's are not.
        Some(Removal {
            occurrence,
            join_predicates: vec![],
            equal_columns: vec![],
            proof,
        })
    }
}

fn mentions(scalar: &Scalar, occurrence: OccurrenceId) -> bool {
    scalar.any(&|node| matches!(node, Scalar::Column(column) if column.occurrence == occurrence))
}

/// `mine = theirs` with the occurrence's own column first.
fn equated(conjunct: &Scalar, occurrence: OccurrenceId) -> Option<(ColumnRef, ColumnRef)> {
    let (left, right) = column_equality(conjunct)?;
    match (
        left.occurrence == occurrence,
        right.occurrence == occurrence,
    ) {
        (true, false) => Some((left, right)),
        (false, true) => Some((right, left)),
        (true, true) | (false, false) => None,
    }
}

/// The block without the joins that it does not need.
pub(crate) fn without_redundant_joins(mut block: Block, catalog: &Catalog) -> Block {
    let mut position = 0;
    while position < block.occurrences.len() {
        match redundant(&block, OccurrenceId(position), catalog) {
            Some(removal) => {
                block = remove(block, &removal);
                position = 0;
            }
            None => position += 1,
        }
    }
    block
}

fn redundant(block: &Block, occurrence: OccurrenceId, catalog: &Catalog) -> Option<Removal> {
    if block.occurrences.len() == 1 {
        return None;
    }
    let tables = block.tables(catalog);
    let joins = Joins {
        tables,
        predicates: &block.predicates,
        removed: &[],
        removed_predicates: &[],
    };
    let removal = joins.removal(occurrence)?;
    let same_type = |(mine, theirs): &(ColumnRef, ColumnRef)| {
        let (mine, theirs) = (tables.column_type(*mine), tables.column_type(*theirs));
        // Equal values of some types print differently: 1.0 and 1.00 of an unconstrained numeric.
        mine == theirs && mine.is_some_and(|ty| types::is_byte_exact(ty, catalog.user_names()))
    };
    let replaceable = |column: &ColumnRef| {
        removal
            .equal_columns
            .iter()
            .any(|pair| pair.0 == *column && same_type(pair))
    };
    let is_join = |scalar: &&Scalar| {
        let joins = removal.join_predicates.iter();
        joins
            .filter_map(|position| block.predicates.get(*position))
            .any(|join| std::ptr::eq(join, *scalar))
    };
    let is_unused = block
        .scalars()
        .filter(|scalar| !is_join(scalar))
        .flat_map(Scalar::columns)
        .filter(|column| column.occurrence == occurrence)
        .all(|column| replaceable(&column));
    is_unused.then_some(removal)
}

fn remove(block: Block, removal: &Removal) -> Block {
    let Removal {
        occurrence: gone,
        join_predicates,
        equal_columns,
        proof: _,
    } = removal;
    let equal = |column: ColumnRef| {
        let pair = equal_columns.iter().find(|(mine, _)| *mine == column);
        pair.map_or(column, |(_, theirs)| *theirs)
    };
    let replace = |column: ColumnRef| {
        let column = equal(column);
        let position = column.occurrence.0;
        ColumnRef {
            occurrence: OccurrenceId(if position > gone.0 {
                position - 1
            } else {
                position
            }),
            ..column
        }
    };
    let mut occurrences: Vec<Occurrence> = block.occurrences.clone();
    occurrences.remove(gone.0);
    let kept = block
        .predicates
        .iter()
        .enumerate()
        .filter(|(position, _)| !join_predicates.contains(position));
    let predicates = kept.map(|(_, predicate)| predicate.clone()).collect();
    // What the role needs privileges on is said by the block as it was.
    let mentioned = block.mentioned.iter().copied();
    let mentioned = mentioned.filter(|column| equal(*column).occurrence != *gone);
    Block {
        occurrences,
        predicates,
        mentioned: mentioned.collect(),
        ..block
    }
    .map_columns(&replace)
}
