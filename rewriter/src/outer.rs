//! Left joins that are inner joins in disguise.
//!
//! Where an enforced foreign key that is never NULL finds its row, or where WHERE asks for something
//! of the row, a left join keeps nothing that an inner join would lose. See Galindo-Legaria and
//! Rosenthal, "Outerjoin Simplification and Reordering for Query Optimization" (1997).

use crate::block::{Attachment, Block};
use crate::catalog::Catalog;
use crate::expr::{OccurrenceId, Scalar};
use crate::implication::rejects_null;
use crate::joins::Joins;

/// The block with left joins made inner whose row is always there.
pub(crate) fn with_total_joins_inner(block: Block, catalog: &Catalog) -> Block {
    with_inner_where(block, &|block, occurrence, condition| {
        let tables = block.tables(catalog);
        Joins {
            tables,
            predicates: condition,
            removed: &[],
            removed_predicates: &[],
        }
        .finds_one_row(occurrence)
    })
}

/// The block with left joins made inner whose NULLs a predicate rejects; `None` if there are none.
pub(crate) fn with_rejected_nulls_inner(block: &Block) -> Option<Block> {
    let changed = with_inner_where(block.clone(), &|block, occurrence, _| {
        let is_null = |scalar: &Scalar| matches!(scalar, Scalar::Column(column) if column.occurrence == occurrence);
        let rejects = |predicate: &Scalar| rejects_null(predicate, &is_null);
        block.predicates.iter().any(rejects)
    });
    (changed != *block).then_some(changed)
}

fn with_inner_where(
    mut block: Block,
    is_inner: &dyn Fn(&Block, OccurrenceId, &[Scalar]) -> bool,
) -> Block {
    let mut position = 0;
    while let Some(occurrence) = block.occurrences.get(position) {
        let condition = match &occurrence.attachment {
            Attachment::Left(condition) if is_inner(&block, OccurrenceId(position), condition) => {
                condition.clone()
            }
            Attachment::Left(_) | Attachment::Inner => {
                position += 1;
                continue;
            }
        };
        block.predicates.extend(condition);
        if let Some(changed) = block.occurrences.get_mut(position) {
            changed.attachment = Attachment::Inner;
        }
        // What this one demands may decide another.
        position = 0;
    }
    block
}
