//! Deriving a query's expressions from the columns of one rollup.
//!
//! Expressions come in over the rollup's own occurrences and go out over the columns of its table,
//! which are [`ROLLUP_OCCURRENCE`] with the column's position as its number.

use crate::block::Tables;
use crate::catalog::AttNum;
use crate::equivalence::Equivalence;
use crate::expr::{BinaryOp, ColumnRef, Literal, OccurrenceId, Scalar};
use crate::print::expression;
use crate::reason::{Code, Reason};
use crate::rollup::RollupDefinition;
use crate::scalar::quoted;
use crate::time::{self, Unit};
use crate::types;
use crate::volatility::may_raise;

/// The rollup's table in a rewritten statement: its only occurrence.
pub(crate) const ROLLUP_OCCURRENCE: OccurrenceId = OccurrenceId(0);

/// The column of the rollup's table at this position.
pub(crate) fn stored_column(position: usize) -> Scalar {
    Scalar::Column(ColumnRef {
        occurrence: ROLLUP_OCCURRENCE,
        attnum: AttNum(position as i16),
    })
}

/// What expressions may be derived from.
#[derive(Clone, Copy)]
pub(crate) struct Deriver<'a> {
    pub(crate) rollup: &'a RollupDefinition,
    /// The rollup's own base tables.
    pub(crate) tables: Tables<'a>,
    /// Whether the session's TimeZone never differs from UTC.
    pub(crate) is_utc: bool,
}

impl<'a> Deriver<'a> {
    fn classes(&self) -> &'a Equivalence {
        &self.rollup.classes
    }

    /// The value of an expression, constant within each row of the rollup.
    pub(crate) fn derive(&self, scalar: &Scalar) -> Result<Scalar, Reason> {
        if let Some(position) = self.key(scalar) {
            return Ok(stored_column(position));
        }
        if let Some(derived) = self.of_finer_bucket(scalar) {
            return Ok(derived);
        }
        match scalar {
            Scalar::Column(column) => Err(self.missing(&self.tables.column_label(*column))),
            Scalar::Aggregate(_) => {
                Err(Reason::new(Code::UnsupportedAggregate, self.label(scalar)))
            }
            other => other.try_map_children(&mut |child| self.derive(child)),
        }
    }

    /// The position of the key that equals the expression in every row.
    fn key(&self, scalar: &Scalar) -> Option<usize> {
        let wanted = self.classes().canonical(scalar);
        self.rollup
            .keys()
            .find(|(_, key)| **key == wanted)
            .map(|(position, _)| position)
    }

    /// The finest stored bucket of `operand` that decides everything down to `needed`.
    fn bucket(&self, operand: &Scalar, needed: Unit) -> Option<usize> {
        self.buckets(operand)
            .find(|(_, unit)| unit.nests_in(needed))
            .map(|(position, _)| position)
    }

    fn buckets(&self, operand: &Scalar) -> impl Iterator<Item = (usize, Unit)> {
        let wanted = self.classes().canonical(operand);
        self.rollup.keys().filter_map(move |(position, key)| {
            let (unit, truncated) = time::as_bucket(key, &self.tables)?;
            (*truncated == wanted).then_some((position, unit))
        })
    }

    /// Functions of time that a finer bucket decides: they give the same for the bucket's beginning.
    fn of_finer_bucket(&self, scalar: &Scalar) -> Option<Scalar> {
        let column = |operand, needed| self.bucket(operand, needed).map(stored_column);
        match scalar {
            Scalar::Call {
                name: "date_trunc",
                arguments,
            } => {
                let (unit, operand) = time::as_bucket(scalar, &self.tables)?;
                let unit_text = arguments.first()?.clone();
                Some(Scalar::Call {
                    name: "date_trunc",
                    arguments: vec![unit_text, column(operand, unit)?],
                })
            }
            Scalar::Call {
                name: "date_part",
                arguments,
            } => match arguments.as_slice() {
                [Scalar::Literal(Literal::String(field)), operand] => {
                    let bucket = column(operand, Unit::of_field(field)?)?;
                    Some(Scalar::Call {
                        name: "date_part",
                        arguments: vec![Scalar::Literal(Literal::String(field.clone())), bucket],
                    })
                }
                _ => None,
            },
            Scalar::Extract { field, operand } => {
                let bucket = column(operand, Unit::of_field(field)?)?;
                Some(Scalar::Extract {
                    field: field.clone(),
                    operand: Box::new(bucket),
                })
            }
            Scalar::Cast { operand, to } if to.oid == types::DATE => {
                Some(column(operand, Unit::Day)?.cast(to.clone()))
            }
            _ => None,
        }
    }

    /// A conjunct of WHERE or FILTER over the rollup's columns.
    pub(crate) fn predicate(&self, conjunct: &Scalar) -> Result<Scalar, Reason> {
        if may_raise(conjunct, &self.tables) {
            return Err(Reason::new(Code::MayRaise, self.label(conjunct)));
        }
        match self.derive(conjunct) {
            Ok(derived) => Ok(derived),
            Err(refusal) => self.aligned_bound(conjunct).unwrap_or(Err(refusal)),
        }
    }

    /// `x >= bound` and `x < bound` decide a whole bucket alike when a bucket begins at the bound.
    /// `None` when the conjunct is not a bound on something that is stored in buckets.
    fn aligned_bound(&self, conjunct: &Scalar) -> Option<Result<Scalar, Reason>> {
        let Scalar::Binary { op, left, right } = conjunct else {
            return None;
        };
        let (op, operand, bound) = if left.is_constant() {
            (op.mirrored()?, right, left)
        } else {
            (*op, left, right)
        };
        if !bound.is_constant() || !op.is_comparison() {
            return None;
        }
        let buckets: Vec<(usize, Unit)> = self.buckets(operand).collect();
        let (_, coarsest) = buckets.first()?;
        let is_half_open = matches!(op, BinaryOp::GreaterOrEqual | BinaryOp::Less);
        let begins = |unit: Unit| {
            time::constant(bound, self.is_utc).is_some_and(|instant| instant.begins(unit))
        };
        let aligned = buckets
            .iter()
            .find(|(_, unit)| is_half_open && begins(*unit));
        Some(match aligned {
            Some((position, _)) => Ok(Scalar::binary(
                op,
                stored_column(*position),
                (**bound).clone(),
            )),
            None => {
                let unit = format!("{coarsest:?}").to_lowercase();
                Err(Reason::new(
                    Code::BucketUnaligned,
                    format!("{}: the rollup keeps whole {unit}s", self.label(conjunct)),
                ))
            }
        })
    }

    fn missing(&self, what: &str) -> Reason {
        Reason::new(Code::DimensionMissing, what)
    }

    /// The expression in the base tables' names, for people.
    pub(crate) fn label(&self, scalar: &Scalar) -> String {
        quoted(&expression(scalar, &|column| {
            self.tables.column_label(column)
        }))
    }
}
