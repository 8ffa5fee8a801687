//! Columns that are equal in every row of a block, by its equality predicates.

use std::collections::BTreeMap;

use crate::catalog::UserNames;
use crate::expr::{Aggregate, BinaryOp, ColumnRef, ColumnTypes, Scalar};
use crate::types;

/// Classes of columns that are equal, byte for byte, wherever the predicates hold.
///
/// Only predicates that filter rows count: a condition of a left join does not make its columns
/// equal, because they may be NULL afterwards.
#[derive(Debug, Clone, Default)]
pub(crate) struct Equivalence {
    /// Each known column's parent; a representative is its own.
    parents: BTreeMap<ColumnRef, ColumnRef>,
}

impl Equivalence {
    /// The classes that these conjuncts make. Columns of unlike types, or of types whose equal values
    /// may print differently, stay apart.
    pub(crate) fn of(predicates: &[Scalar], columns: &dyn ColumnTypes, names: &UserNames) -> Self {
        let mut classes = Equivalence::default();
        for (left, right) in predicates.iter().filter_map(column_equality) {
            let (Some(left_type), Some(right_type)) =
                (columns.column_type(left), columns.column_type(right))
            else {
                continue;
            };
            if left_type == right_type && types::is_byte_exact(left_type, names) {
                classes.unite(left, right);
            }
        }
        classes
    }

    fn unite(&mut self, left: ColumnRef, right: ColumnRef) {
        let (left, right) = (self.representative(left), self.representative(right));
        let (low, high) = if left < right {
            (left, right)
        } else {
            (right, left)
        };
        self.parents.insert(low, low);
        self.parents.insert(high, low);
    }

    /// The column that stands for the class.
    pub(crate) fn representative(&self, column: ColumnRef) -> ColumnRef {
        match self.parents.get(&column) {
            Some(parent) if *parent != column => self.representative(*parent),
            _ => column,
        }
    }

    /// The columns that equal this one, itself included.
    pub(crate) fn members(&self, column: ColumnRef) -> Vec<ColumnRef> {
        let representative = self.representative(column);
        let known = self.parents.keys().copied();
        let mut members: Vec<ColumnRef> = known
            .filter(|other| self.representative(*other) == representative)
            .collect();
        if !members.contains(&column) {
            members.push(column);
        }
        members
    }

    /// The expression with every column replaced by its representative, in canonical form: equal
    /// results mean equal values in every row.
    pub(crate) fn canonical(&self, scalar: &Scalar) -> Scalar {
        scalar
            .map_columns(&|column| self.representative(column))
            .canonical()
    }

    /// The aggregate over canonical operands.
    pub(crate) fn canonical_aggregate(&self, aggregate: &Aggregate) -> Aggregate {
        match self.canonical(&Scalar::Aggregate(Box::new(aggregate.clone()))) {
            Scalar::Aggregate(canonical) => *canonical,
            _ => aggregate.clone(),
        }
    }
}

/// The two columns of a conjunct `a = b`.
pub(crate) fn column_equality(conjunct: &Scalar) -> Option<(ColumnRef, ColumnRef)> {
    match conjunct {
        Scalar::Binary {
            op: BinaryOp::Equal,
            left,
            right,
        } => match (&**left, &**right) {
            (Scalar::Column(left), Scalar::Column(right)) => Some((*left, *right)),
            _ => None,
        },
        _ => None,
    }
}
