//! Aggregates of floating-point numbers, for rollups whose declaration allows that the last digits differ.
//!
//! PostgreSQL adds floating-point numbers in the order in which rows arrive, so that even two of its own plans give
//! other digits. A sum of stored sums is one more order. What is stored is always computed from the rows of its group at
//! once and never from differences, which would add up errors (`fold`). Variances are not put together from sums of
//! floating-point squares, of which little may be left after the subtraction: the numbers are made `numeric` first, to 15
//! digits, and their sums are exact.

use crate::aggregate::{AggregateDeriver, number};
use crate::block::Tables;
use crate::catalog::{ColumnType, Oid};
use crate::expr::{Aggregate, AggregateFunction, BinaryOp, Scalar, TypeName};
use crate::reason::Reason;
use crate::types;

/// What has its first digit further behind the point is 0 as `double precision`; PostgreSQL's cast refuses it.
const DOUBLE_FRACTION_DIGITS: &str = "323";

/// The step of a proof that says what may differ.
pub(crate) const APPROXIMATE: &str = "approximate in its last digits";

/// What a rollup's declaration says of sums, averages, variances and extremes of floating-point numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Floats {
    /// They are neither stored nor answered: no rollup can give PostgreSQL's own digits.
    #[default]
    Refused,
    /// They are, although the last digits, or the sign of a zero, may be others than PostgreSQL's.
    Approximate,
}

/// The type of the aggregate's result, if it is one that may be answered approximately.
pub(crate) fn approximate_type(function: AggregateFunction, argument: Oid) -> Option<ColumnType> {
    use AggregateFunction::{Avg, Max, Min, StddevPop, StddevSamp, Sum, VarPop, VarSamp};
    if !types::is_float(argument) {
        return None;
    }
    match function {
        Sum | Min | Max => Some(types::plain(argument.0)),
        Avg | VarPop | VarSamp | StddevPop | StddevSamp => Some(types::plain(types::FLOAT8)),
        _ => None,
    }
}

/// The argument with all digits of its sum: PostgreSQL's averages of `real` are sums of `double precision`.
pub(crate) fn as_double(argument: &Scalar, tables: &Tables<'_>) -> Scalar {
    match types::type_of(argument, tables) {
        Some(ty) if ty.oid.0 == types::FLOAT8 => argument.clone(),
        _ => double(argument.clone()),
    }
}

/// The argument as a number whose sums are exact. A `real` has 6 digits as `numeric`, but 15 by way of this.
pub(crate) fn as_exact(argument: &Scalar, tables: &Tables<'_>) -> Scalar {
    as_double(argument, tables).cast(TypeName::plain("numeric", types::NUMERIC))
}

fn double(scalar: Scalar) -> Scalar {
    scalar.cast(TypeName::plain("double precision", types::FLOAT8))
}

impl AggregateDeriver<'_> {
    /// Whether the aggregate is one of floating-point numbers that the rollup may answer.
    pub(crate) fn is_approximate(&self, aggregate: &Aggregate, argument: &Scalar) -> bool {
        self.deriver.rollup.floats == Floats::Approximate
            && types::type_of(argument, &self.deriver.tables)
                .is_some_and(|ty| approximate_type(aggregate.function, ty.oid).is_some())
    }

    /// The aggregate over stored sums, up to the last digits; it is noted for the proof.
    pub(crate) fn approximately(
        &self,
        aggregate: &Aggregate,
        argument: &Scalar,
    ) -> Result<Scalar, Reason> {
        use AggregateFunction::{Avg, Count, StddevPop, StddevSamp, Sum, VarPop, VarSamp};
        let tables = &self.deriver.tables;
        let derived = match aggregate.function {
            Avg => {
                let rows = self.partial(Count, Some(argument), aggregate)?;
                let divisor = Scalar::Call {
                    name: "nullif",
                    arguments: vec![rows, number("0")],
                };
                let sum = as_double(argument, tables);
                let sum = self.partial(Sum, Some(&sum), aggregate)?;
                Scalar::binary(BinaryOp::Divide, sum, double(divisor))
            }
            VarPop | VarSamp | StddevPop | StddevSamp => {
                let exact = as_exact(argument, tables);
                let rounded = |variance| Scalar::Call {
                    name: "round",
                    arguments: vec![variance, number(DOUBLE_FRACTION_DIGITS)],
                };
                let variance = self.variance(argument, &exact, aggregate, rounded)?;
                match aggregate.function {
                    StddevPop | StddevSamp => Scalar::Call {
                        name: "sqrt",
                        arguments: vec![double(variance)],
                    },
                    _ => double(variance),
                }
            }
            function => self.partial(function, Some(argument), aggregate)?,
        };
        let label = self.label(aggregate);
        self.deriver.approximate.borrow_mut().insert(label);
        Ok(derived)
    }
}
