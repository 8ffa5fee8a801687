//! On which of the server's libraries a rollup's rows depend: where one has another version, the rows may be others, and the
//! rollup has to be built again.
//!
//! A group key that is a column is the same text however texts are ordered. What is computed of one (the least, a comparison, upper case)
//! may not be; nor what clocks show of an instant, where the definition names a zone.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::block::{Block, Tables};
use crate::catalog::{Libraries, Oid};
use crate::expr::{AggregateFunction, BinaryOp, ColumnTypes, Literal, Scalar};
use crate::rollup::{Stored, StoredColumn};
use crate::types;

/// Another text whenever the rows may be others; empty if they depend on no library.
pub(crate) fn dependence(
    block: &Block,
    columns: &[StoredColumn],
    tables: Tables<'_>,
    libraries: &Libraries,
) -> String {
    let mut found = Found {
        tables,
        collations: BTreeSet::new(),
        zones: BTreeSet::new(),
    };
    for column in columns {
        match &column.stored {
            Stored::Key(key) => found.note_equality(key),
            Stored::Partial(partial) => found.note(&Scalar::Aggregate(Box::new(partial.clone()))),
        }
    }
    for predicate in block.predicates.iter().chain(block.left_conditions()) {
        found.note(predicate);
    }
    let mut text = String::new();
    for collation in found.collations {
        if let Some(version) = libraries.orders.get(&collation) {
            let _ = write!(text, "; order {} {version}", collation.0);
        }
    }
    for zone in found.zones {
        if let Some(rules) = libraries.clocks.get(&zone) {
            let _ = write!(text, "; clocks {zone} {rules}");
        }
    }
    text
}

/// The zones that a definition may name: constants in a text that says something of zones. Not all of them need be zones.
pub fn zones_named(sql: &str) -> Vec<String> {
    let lower = sql.to_ascii_lowercase();
    if !lower.contains("time zone") && !lower.contains("timezone") {
        return vec![];
    }
    let constants = lower.split('\'').skip(1).step_by(2);
    let is_name = |text: &&str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '+' | '-');
        text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(is_part)
    };
    let names: BTreeSet<&str> = constants.filter(is_name).collect();
    names.into_iter().map(str::to_owned).collect()
}

struct Found<'a> {
    tables: Tables<'a>,
    collations: BTreeSet<Oid>,
    zones: BTreeSet<String>,
}

impl Found<'_> {
    fn note(&mut self, scalar: &Scalar) {
        match scalar {
            Scalar::Column(column) => {
                let ty = self.tables.column_type(*column);
                let collations = ty.map(|ty| ty.collation).into_iter();
                self.collations
                    .extend(collations.filter(|collation| *collation != Oid(0)));
            }
            Scalar::Binary {
                op: BinaryOp::Equal | BinaryOp::NotEqual,
                ..
            }
            | Scalar::IsDistinct { .. }
            | Scalar::IsNull { .. }
            | Scalar::In { .. } => self.note_all_equality(scalar),
            Scalar::Aggregate(aggregate)
                if aggregate.function == AggregateFunction::Count
                    && aggregate.order_by.is_empty() =>
            {
                aggregate
                    .argument
                    .iter()
                    .for_each(|argument| self.note_equality(argument));
                aggregate.filter.iter().for_each(|filter| self.note(filter));
            }
            // Of a value that is no text, such as an enum's label.
            Scalar::Cast { operand, to }
                if matches!(to.oid, types::TEXT | types::VARCHAR | types::BPCHAR) =>
            {
                self.collations.insert(types::DEFAULT_COLLATION);
                self.note(operand);
            }
            Scalar::Call { name, arguments } => {
                if let ("timezone", Some(Scalar::Literal(Literal::String(zone)))) =
                    (*name, arguments.first())
                {
                    self.zones.insert(zone.to_ascii_lowercase());
                }
                arguments.iter().for_each(|argument| self.note(argument));
            }
            other => other
                .children()
                .into_iter()
                .for_each(|child| self.note(child)),
        }
    }

    fn note_all_equality(&mut self, scalar: &Scalar) {
        scalar
            .children()
            .into_iter()
            .for_each(|child| self.note_equality(child));
    }

    /// Of a value that is only compared whether it is the same: the same bytes are, unless its collation says otherwise.
    fn note_equality(&mut self, scalar: &Scalar) {
        match scalar {
            Scalar::Column(column) => {
                let ty = self.tables.column_type(*column);
                if !ty.is_some_and(|ty| self.tables.is_deterministic(ty.collation)) {
                    self.note(scalar);
                }
            }
            other => self.note(other),
        }
    }
}
