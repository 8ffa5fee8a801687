//! Whether a query's joins are those of a rollup that has left joins.
//!
//! Left joins decide which columns are NULL, so both sides must have the very same ones. One exception:
//! a rollup's left join holds all rows of the inner join on the same condition, and a key that is
//! NULL only where no row was found tells them apart.

use crate::block::{Attachment, Block, Tables};
use crate::derive::stored_column;
use crate::equivalence::column_equality;
use crate::expr::{OccurrenceId, Scalar};
use crate::reason::{Code, Reason};
use crate::rollup::RollupDefinition;

/// What inner joins answered from left joins leave to do.
#[derive(Debug, Default)]
pub(crate) struct FoundRows {
    /// Join conditions that hold wherever a row was found, in canonical form.
    pub(crate) conditions: Vec<Scalar>,
    /// That rows were found, over the rollup's columns.
    pub(crate) tests: Vec<Scalar>,
}

/// The query's joins beside the rollup's; the query speaks of the rollup's occurrences.
pub(crate) struct LeftJoins<'a> {
    pub(crate) query: &'a Block,
    pub(crate) mapping: &'a [OccurrenceId],
    pub(crate) rollup: &'a RollupDefinition,
    pub(crate) tables: Tables<'a>,
}

impl LeftJoins<'_> {
    /// What is left to do so that the joins are the same, or the table that is joined in another way.
    pub(crate) fn compare(&self) -> Result<FoundRows, Reason> {
        let mut wanted: Vec<(OccurrenceId, &[Scalar])> = vec![];
        for (occurrence, target) in self.query.occurrences.iter().zip(self.mapping) {
            let Some(theirs) = self.tables.occurrences.get(target.0) else {
                continue;
            };
            match (&occurrence.attachment, &theirs.attachment) {
                (Attachment::Inner, Attachment::Inner) => {}
                (Attachment::Left(mine), Attachment::Left(theirs))
                    if canonical_set(mine) == canonical_set(theirs) => {}
                (Attachment::Inner, Attachment::Left(theirs)) if self.query_demands(theirs) => {
                    wanted.push((*target, theirs));
                }
                _ => return Err(self.differs(*target)),
            }
        }
        self.found_rows(&wanted)
    }

    fn query_demands(&self, condition: &[Scalar]) -> bool {
        let demanded = canonical_set(&self.query.predicates);
        canonical_set(condition)
            .iter()
            .all(|conjunct| demanded.contains(conjunct))
    }

    fn found_rows(&self, wanted: &[(OccurrenceId, &[Scalar])]) -> Result<FoundRows, Reason> {
        let mut found = FoundRows::default();
        let mut present: Vec<OccurrenceId> = vec![];
        for (occurrence, condition) in wanted {
            if let Some(position) = self.key_of_found_row(*occurrence, condition) {
                found.tests.push(stored_column(position).is_not_null());
                present.push(*occurrence);
            }
            found.conditions.extend(canonical_set(condition));
        }
        // A row that was found by equality with another table's column has found that table's row, too.
        while let Some((occurrence, _)) = wanted.iter().find(|(occurrence, _)| {
            !present.contains(occurrence)
                && wanted.iter().any(|(other, condition)| {
                    present.contains(other) && equates(condition, *occurrence)
                })
        }) {
            present.push(*occurrence);
        }
        match wanted
            .iter()
            .find(|(occurrence, _)| !present.contains(occurrence))
        {
            Some((occurrence, _)) => Err(self.differs(*occurrence)),
            None => Ok(found),
        }
    }

    /// A stored key that is NULL only where the left join found no row.
    fn key_of_found_row(&self, occurrence: OccurrenceId, condition: &[Scalar]) -> Option<usize> {
        let is_never_null = |key: &Scalar| match key {
            Scalar::Column(column) if column.occurrence == occurrence => {
                let declared = self
                    .tables
                    .relation(occurrence)
                    .and_then(|relation| relation.column_at(column.attnum))
                    .is_some_and(|column| column.not_null);
                let compared = condition
                    .iter()
                    .filter_map(column_equality)
                    .any(|(left, right)| left == *column || right == *column);
                declared || compared
            }
            _ => false,
        };
        self.rollup
            .keys()
            .find(|(_, key)| is_never_null(key))
            .map(|(position, _)| position)
    }

    fn differs(&self, occurrence: OccurrenceId) -> Reason {
        let name = self
            .tables
            .relation(occurrence)
            .map_or("a table", |relation| &relation.name);
        Reason::new(Code::JoinDiffers, format!("{name} is joined differently"))
    }
}

/// Whether some equality of the condition names a column of the occurrence.
fn equates(condition: &[Scalar], occurrence: OccurrenceId) -> bool {
    condition
        .iter()
        .filter_map(column_equality)
        .any(|(left, right)| left.occurrence == occurrence || right.occurrence == occurrence)
}

fn canonical_set(conjuncts: &[Scalar]) -> Vec<Scalar> {
    let mut set: Vec<Scalar> = conjuncts.iter().map(Scalar::canonical).collect();
    set.sort();
    set.dedup();
    set
}
