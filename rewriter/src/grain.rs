//! Whether every group of a query is made of one row of the rollup at most.
//!
//! That is so when the query's own keys, and the constants that it compares with, decide all keys of
//! the rollup. An aggregate that cannot be put together from parts can then be read as it is stored.

use crate::block::{Attachment, Block, Tables};
use crate::catalog::AttNum;
use crate::expr::{BinaryOp, ColumnRef, OccurrenceId, Scalar};
use crate::functions::Volatility;
use crate::rollup::RollupDefinition;
use crate::types;
use crate::volatility::volatility;

/// Whether the query, which speaks of the rollup's occurrences, groups no coarser than the rollup.
pub(crate) fn is_same_grain(query: &Block, rollup: &RollupDefinition, tables: Tables<'_>) -> bool {
    // Some sets are coarser, and what is joined may repeat the rollup's rows.
    let is_joined = tables.occurrences.len() > rollup.block.occurrences.len();
    if query.grouping_sets.is_some() || is_joined || rollup.may_repeat_groups {
        return false;
    }
    let canonical = |scalar: &Scalar| rollup.classes.canonical(scalar);
    let constants = query
        .predicates
        .iter()
        .filter_map(|predicate| fixed_by(predicate, &tables));
    let decided = Decided {
        values: query
            .group_by
            .iter()
            .chain(constants)
            .map(canonical)
            .collect(),
        rollup,
        tables,
    };
    rollup.keys().all(|(_, key)| decided.decides(key))
}

/// The operand of `operand = constant`: where that holds, the operand has one value.
fn fixed_by<'a>(predicate: &'a Scalar, tables: &Tables<'_>) -> Option<&'a Scalar> {
    let Scalar::Binary {
        op: BinaryOp::Equal,
        left,
        right,
    } = predicate
    else {
        return None;
    };
    let (operand, constant) = match (left.is_constant(), right.is_constant()) {
        (false, true) => (left, right),
        (true, false) => (right, left),
        (true, true) | (false, false) => return None,
    };
    // Several numbers are equal to one of double precision, and a parameter may be that.
    let is_exact = !constant.any(&|node| match node {
        Scalar::Parameter(_) => true,
        other => types::type_of(other, tables).is_some_and(|ty| types::is_float(ty.oid)),
    });
    is_exact.then_some(operand)
}

/// Expressions that have one value in each group.
struct Decided<'a> {
    values: Vec<Scalar>,
    rollup: &'a RollupDefinition,
    tables: Tables<'a>,
}

impl Decided<'_> {
    fn decides(&self, scalar: &Scalar) -> bool {
        if self.values.contains(scalar) {
            return true;
        }
        match scalar {
            Scalar::Column(column) => self.has_decided_key(*column),
            Scalar::Aggregate(_) | Scalar::Parameter(_) => false,
            other => {
                volatility(other, &self.tables) == Volatility::Immutable
                    && other
                        .children()
                        .into_iter()
                        .all(|child| self.decides(child))
            }
        }
    }

    /// Whether a key of the column's table is decided, and with it the row.
    fn has_decided_key(&self, column: ColumnRef) -> bool {
        let OccurrenceId(position) = column.occurrence;
        let is_inner = self
            .tables
            .occurrences
            .get(position)
            .is_some_and(|occurrence| occurrence.attachment == Attachment::Inner);
        let is_value = |attnum: &AttNum| {
            let key = Scalar::Column(ColumnRef {
                attnum: *attnum,
                ..column
            });
            self.values.contains(&self.rollup.classes.canonical(&key))
        };
        let is_whole = |key: &Vec<AttNum>| {
            let never_null = |attnum: &AttNum| {
                let relation = self.tables.relation(column.occurrence);
                let column = relation.and_then(|relation| relation.column_at(*attnum));
                column.is_some_and(|column| column.not_null)
            };
            key.iter()
                .all(|attnum| never_null(attnum) && is_value(attnum))
        };
        let relation = self.tables.relation(column.occurrence);
        is_inner && relation.is_some_and(|relation| relation.unique_keys.iter().any(is_whole))
    }
}
