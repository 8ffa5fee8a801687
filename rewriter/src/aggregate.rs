//! Deriving aggregates at a coarser grain from partial aggregates.
//!
//! The derivations are those of REWRITING section 3 (after Gray and others, "Data Cube", 1996):
//! what is emitted prints the same bytes as PostgreSQL's own aggregate over the base rows.

use crate::approximate::approximate_type;
use crate::block::Tables;
use crate::derive::{Deriver, stored_column};
use crate::exact::prints_exactly;
use crate::expr::{Aggregate, AggregateFunction, BinaryOp, Literal, OrderItem, Scalar, TypeName};
use crate::reason::{Code, Reason};
use crate::stored::{square, without_needless_distinct};
use crate::types;
use crate::volatility::may_raise;

/// Derives aggregates for one grouping.
#[derive(Clone, Copy)]
pub(crate) struct AggregateDeriver<'a> {
    pub(crate) deriver: Deriver<'a>,
    /// One group over everything: a row comes out even of no rows.
    pub(crate) is_scalar: bool,
    /// Every group is made of one row of the rollup at most.
    pub(crate) is_same_grain: bool,
}

impl AggregateDeriver<'_> {
    /// The aggregate over the rollup's columns.
    pub(crate) fn derive(&self, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        let aggregate = &without_needless_distinct(aggregate.clone());
        let can_be_whole = aggregate.distinct || !aggregate.function.is_distributive();
        use AggregateFunction::{StddevPop, StddevSamp};
        if matches!(aggregate.function, StddevPop | StddevSamp)
            && let Some(Ok(whole)) = self.whole(aggregate)
        {
            return Ok(whole);
        }
        let regrouped = if aggregate.distinct {
            self.distinct(aggregate)
        } else {
            self.regrouped(aggregate)
        };
        match regrouped {
            Err(refusal) if can_be_whole => self.whole(aggregate).unwrap_or(Err(refusal)),
            regrouped => regrouped,
        }
    }

    fn regrouped(&self, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        let Some(argument) = &aggregate.argument else {
            return match aggregate.function {
                AggregateFunction::Count => self.count(None, aggregate),
                _ => Err(self.unsupported(aggregate)),
            };
        };
        if self.is_approximate(aggregate, argument) {
            return self.approximately(aggregate, argument);
        }
        match aggregate.function {
            AggregateFunction::Count => self.count(Some(argument), aggregate),
            AggregateFunction::Sum => {
                let result = self.result_type(aggregate, argument)?;
                let sum = self.partial(AggregateFunction::Sum, Some(argument), aggregate)?;
                Ok(if result == types::INT8 {
                    sum.cast(TypeName::plain("bigint", result))
                } else {
                    sum
                })
            }
            AggregateFunction::Avg => self.average(argument, aggregate),
            AggregateFunction::VarPop | AggregateFunction::VarSamp => {
                self.result_type(aggregate, argument)?;
                self.variance(argument, argument, aggregate, |variance| variance)
            }
            AggregateFunction::StddevPop | AggregateFunction::StddevSamp => {
                self.deviation(argument, aggregate)
            }
            AggregateFunction::Min
            | AggregateFunction::Max
            | AggregateFunction::BoolAnd
            | AggregateFunction::BoolOr
            | AggregateFunction::BitAnd
            | AggregateFunction::BitOr => {
                self.result_type(aggregate, argument)?;
                self.partial(aggregate.function, Some(argument), aggregate)
            }
            _ => Err(self.unsupported(aggregate)),
        }
    }

    fn average(&self, argument: &Scalar, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        self.result_type(aggregate, argument)?;
        let rows = self.partial(AggregateFunction::Count, Some(argument), aggregate)?;
        let divisor = Scalar::Call {
            name: "nullif",
            arguments: vec![rows, number("0")],
        };
        let sum = self.partial(AggregateFunction::Sum, Some(argument), aggregate)?;
        Ok(Scalar::binary(BinaryOp::Divide, sum, divisor))
    }

    /// `(N·Σx² − (Σx)²) / (N·(N − 1))`, or over N² for the population: what numeric_stddev_internal in
    /// PostgreSQL's numeric.c computes from the same exact sums, where no spread at all is a plain 0. What is `counted` is
    /// NULL where what is `summed` is.
    pub(crate) fn variance(
        &self,
        counted: &Scalar,
        summed: &Scalar,
        aggregate: &Aggregate,
        spread_as: impl FnOnce(Scalar) -> Scalar,
    ) -> Result<Scalar, Reason> {
        let square = square(summed, &self.deriver.tables);
        let rows = self.partial(AggregateFunction::Count, Some(counted), aggregate)?;
        let sum = self.partial(AggregateFunction::Sum, Some(summed), aggregate)?;
        let squares = self.partial(AggregateFunction::Sum, Some(&square), aggregate)?;
        let times = |left: &Scalar, right: &Scalar| {
            Scalar::binary(BinaryOp::Multiply, left.clone(), right.clone())
        };
        let spread = Scalar::binary(BinaryOp::Minus, times(&rows, &squares), times(&sum, &sum));
        let (others, undefined_up_to) = match aggregate.function {
            AggregateFunction::VarPop | AggregateFunction::StddevPop => (rows.clone(), "0"),
            _ => (
                Scalar::binary(BinaryOp::Minus, rows.clone(), number("1")),
                "1",
            ),
        };
        let variance = Scalar::binary(BinaryOp::Divide, spread.clone(), times(&rows, &others));
        let is = |op, left: &Scalar, right| Scalar::binary(op, left.clone(), number(right));
        Ok(Scalar::Case {
            operand: None,
            branches: vec![
                (
                    is(BinaryOp::LessOrEqual, &rows, undefined_up_to),
                    Scalar::Literal(Literal::Null),
                ),
                (is(BinaryOp::Greater, &spread, "0"), spread_as(variance)),
                (is(BinaryOp::LessOrEqual, &spread, "0"), number("0")),
            ],
            otherwise: None,
        })
    }

    /// The square root of the variance v, to as many digits s as v has: what numeric_stddev_internal computes.
    ///
    /// `sqrt` alone may give other digits. Half of the last of the s digits is never nearer than 10^(-2s-2) / (2·√v + 1)
    /// to a root that is not there exactly, as v has s digits: so a root of 2s + 50 digits is rounded to s
    /// as the true one, for roots below 10^46.
    fn deviation(&self, argument: &Scalar, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        const MORE_DIGITS: &str = "50";
        self.result_type(aggregate, argument)?;
        if !has_few_digits(argument, &self.deriver.tables) {
            return Err(self.unsupported(aggregate));
        }
        let call = |name, arguments| Scalar::Call { name, arguments };
        self.variance(argument, argument, aggregate, |variance| {
            let digits = call("scale", vec![variance.clone()]);
            let twice = Scalar::binary(BinaryOp::Multiply, digits.clone(), number("2"));
            let more = Scalar::binary(BinaryOp::Plus, twice, number(MORE_DIGITS));
            let long = call("round", vec![variance.clone(), more]);
            let root = call("round", vec![call("sqrt", vec![long]), digits]);
            // NaN has no digits.
            call("coalesce", vec![root, variance])
        })
    }

    /// `f(DISTINCT key)`: the rollup holds each value of the key, as often as it likes.
    fn distinct(&self, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        use AggregateFunction::{ArrayAgg, Avg, Count, StringAgg, Sum};
        let (Count | Sum | Avg | ArrayAgg | StringAgg, Some(argument)) =
            (aggregate.function, &aggregate.argument)
        else {
            return Err(self.unsupported(aggregate));
        };
        if aggregate.function != Count {
            self.result_type(aggregate, argument)?;
            // Of equal values any one is taken: 1.0 or 1.00.
            if !prints_exactly(argument, &self.deriver.tables) {
                return Err(self.unsupported(aggregate));
            }
        }
        // PostgreSQL sorts the values by ORDER BY, of which they are the only ones, or else ascending.
        let is_by_value = aggregate
            .order_by
            .iter()
            .all(|item| item.value == *argument);
        let are_constant = aggregate.more_arguments.iter().all(Scalar::is_constant);
        if !is_by_value || !are_constant {
            return Err(self.unsupported(aggregate));
        }
        let order = |item: &OrderItem| {
            let value = self.deriver.derive(&item.value)?;
            Ok(OrderItem {
                value,
                ..item.clone()
            })
        };
        let order_by = aggregate.order_by.iter().map(order);
        Ok(Scalar::Aggregate(Box::new(Aggregate {
            function: aggregate.function,
            argument: Some(self.deriver.derive(argument)?),
            more_arguments: aggregate.more_arguments.clone(),
            distinct: true,
            order_by: order_by.collect::<Result<_, Reason>>()?,
            filter: self.filter(aggregate)?,
        })))
    }

    /// The stored result of the very same aggregate, which is that of the group where each group is one
    /// row of the rollup. `None` if it is not stored.
    fn whole(&self, aggregate: &Aggregate) -> Option<Result<Scalar, Reason>> {
        let wanted = self.deriver.rollup.classes.canonical_aggregate(aggregate);
        let mut partials = self.deriver.rollup.partials();
        let (position, _) = partials.find(|(_, partial)| **partial == wanted)?;
        if !self.is_same_grain {
            let detail = format!(
                "{} is stored, but can only be read at the rollup's own grain",
                self.label(aggregate)
            );
            return Some(Err(Reason::new(Code::UnsupportedAggregate, detail)));
        }
        let ty = self.deriver.rollup.columns.get(position)?.ty.oid.0;
        Some(self.of_one_row(stored_column(position), ty, aggregate))
    }

    /// The value of the group's only row, as an aggregate that every type has.
    fn of_one_row(&self, stored: Scalar, ty: u32, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        let function = match ty {
            types::BOOL => AggregateFunction::BoolOr,
            types::UUID | types::INTERNAL_CHAR => return Err(self.unsupported(aggregate)),
            _ => AggregateFunction::Max,
        };
        let value = Scalar::aggregate(function, stored, None);
        Ok(match ty {
            // There is no max(varchar): its result is a text.
            types::VARCHAR => value.cast(TypeName::plain("varchar", ty)),
            _ if aggregate.function == AggregateFunction::Count && self.is_scalar => Scalar::Call {
                name: "coalesce",
                arguments: vec![value, number("0")],
            },
            _ => value,
        })
    }

    /// The OID of the aggregate's result, if the aggregate can be derived at all.
    fn result_type(&self, aggregate: &Aggregate, argument: &Scalar) -> Result<u32, Reason> {
        let ty = types::type_of(argument, &self.deriver.tables)
            .ok_or_else(|| self.unsupported(aggregate))?;
        match types::aggregate_type(aggregate.function, ty, &self.deriver.tables) {
            Some(result) => Ok(result.oid.0),
            None if !aggregate.distinct
                && approximate_type(aggregate.function, ty.oid).is_some() =>
            {
                Err(Reason::new(Code::FloatAggregate, self.label(aggregate)))
            }
            None => Err(self.unsupported(aggregate)),
        }
    }

    /// `count` as bigint: 0 and not NULL where no row counts.
    fn count(&self, argument: Option<&Scalar>, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        let sum = self.partial(AggregateFunction::Count, argument, aggregate)?;
        let is_filtered = matches!(&sum, Scalar::Aggregate(inner) if inner.filter.is_some());
        let count = sum.cast(TypeName::plain("bigint", types::INT8));
        Ok(if self.is_scalar || is_filtered {
            Scalar::Call {
                name: "coalesce",
                arguments: vec![count, number("0")],
            }
        } else {
            count
        })
    }

    /// The aggregate over all rows of the rollup: SUM for sums and counts (as numeric; NULL over no
    /// rows), the function itself for the others.
    pub(crate) fn partial(
        &self,
        function: AggregateFunction,
        argument: Option<&Scalar>,
        aggregate: &Aggregate,
    ) -> Result<Scalar, Reason> {
        let outer = match function {
            AggregateFunction::Count => AggregateFunction::Sum,
            other => other,
        };
        let filter = aggregate.filter.as_ref();
        if filter.is_some()
            && let Some(position) = self.stored(function, argument, filter)
        {
            return Ok(Scalar::aggregate(outer, stored_column(position), None));
        }
        // A count of what is never NULL is a count of rows.
        let argument = argument.filter(|argument| {
            function != AggregateFunction::Count || !self.always_counts(argument)
        });
        let value = self.row_value(function, argument, aggregate)?;
        Ok(Scalar::aggregate(outer, value, self.filter(aggregate)?))
    }

    fn filter(&self, aggregate: &Aggregate) -> Result<Option<Scalar>, Reason> {
        let filter = aggregate.filter.as_ref();
        filter
            .map(|filter| self.deriver.predicate(filter))
            .transpose()
    }

    /// What one row of the rollup contributes for the base rows behind it.
    fn row_value(
        &self,
        function: AggregateFunction,
        argument: Option<&Scalar>,
        aggregate: &Aggregate,
    ) -> Result<Scalar, Reason> {
        if let Some(position) = self.stored(function, argument, None) {
            return Ok(stored_column(position));
        }
        let missing = || Reason::new(Code::MeasureMissing, self.label(aggregate));
        let argument = argument.ok_or_else(missing)?;
        if let Ok(key) = self.deriver.derive(argument) {
            return self.key_value(function, argument, key).ok_or_else(missing);
        }
        match argument {
            Scalar::Case {
                operand,
                branches,
                otherwise,
            } => {
                let branches = searched(operand.as_deref(), branches);
                self.case_value(function, &branches, otherwise.as_deref(), aggregate)
            }
            _ => match function {
                AggregateFunction::Sum => self.linear_sum(argument),
                AggregateFunction::Count => self.linear_count(argument),
                _ => None,
            }
            .ok_or_else(missing),
        }
    }

    /// How many base rows are behind a row.
    pub(crate) fn stored_rows(&self) -> Option<Scalar> {
        let rows = self.stored(AggregateFunction::Count, None, None);
        rows.map(stored_column)
    }

    /// The stored aggregate of the argument over all rows.
    pub(crate) fn stored_value(
        &self,
        function: AggregateFunction,
        argument: &Scalar,
    ) -> Option<Scalar> {
        let position = self.stored(function, Some(argument), None);
        position.map(stored_column)
    }

    /// What a row contributes whose argument has the same value in all base rows behind it.
    pub(crate) fn key_value(
        &self,
        function: AggregateFunction,
        argument: &Scalar,
        key: Scalar,
    ) -> Option<Scalar> {
        let rows = || self.stored_rows();
        match function {
            AggregateFunction::Sum => {
                let is_float = types::type_of(argument, &self.deriver.tables)
                    .is_some_and(|ty| types::is_float(ty.oid));
                let number = match is_float {
                    true => TypeName::plain("double precision", types::FLOAT8),
                    false => TypeName::plain("numeric", types::NUMERIC),
                };
                let times = |rows| Scalar::binary(BinaryOp::Multiply, key.cast(number), rows);
                Some(times(rows()?))
            }
            AggregateFunction::Count if self.always_counts(argument) => rows(),
            AggregateFunction::Count => Some(Scalar::Case {
                operand: None,
                branches: vec![(key.is_not_null(), rows()?)],
                otherwise: Some(Box::new(number("0"))),
            }),
            _ => Some(key),
        }
    }

    /// A CASE whose conditions are over keys chooses the same branch for all base rows behind a row.
    fn case_value(
        &self,
        function: AggregateFunction,
        branches: &[(Scalar, Scalar)],
        otherwise: Option<&Scalar>,
        aggregate: &Aggregate,
    ) -> Result<Scalar, Reason> {
        let value = |result: &Scalar| self.branch_value(function, result, aggregate);
        let branch = |(condition, result): &(Scalar, Scalar)| {
            Ok((self.deriver.predicate(condition)?, value(result)?))
        };
        let otherwise = match (otherwise, function) {
            (Some(otherwise), _) => Some(Box::new(value(otherwise)?)),
            (None, AggregateFunction::Count) => Some(Box::new(number("0"))),
            (None, _) => None,
        };
        Ok(Scalar::Case {
            operand: None,
            branches: branches.iter().map(branch).collect::<Result<_, Reason>>()?,
            otherwise,
        })
    }

    fn branch_value(
        &self,
        function: AggregateFunction,
        result: &Scalar,
        aggregate: &Aggregate,
    ) -> Result<Scalar, Reason> {
        match (function, result) {
            (AggregateFunction::Count, Scalar::Literal(Literal::Null)) => Ok(number("0")),
            (_, Scalar::Literal(Literal::Null)) => Ok(Scalar::Literal(Literal::Null)),
            // Zero times any number of rows.
            (AggregateFunction::Sum, Scalar::Literal(Literal::Number(digits))) if digits == "0" => {
                Ok(number("0"))
            }
            (AggregateFunction::Count, result) => {
                let counted = Some(result).filter(|result| !self.always_counts(result));
                self.row_value(function, counted, aggregate)
            }
            (_, result) => self.row_value(function, Some(result), aggregate),
        }
    }

    /// Whether every row counts, whatever the argument is. One that may raise must be computed.
    fn always_counts(&self, argument: &Scalar) -> bool {
        let tables = &self.deriver.tables;
        types::is_not_null(argument, tables) && !may_raise(argument, tables)
    }

    /// Where the partial is stored that was computed under this very filter.
    fn stored(
        &self,
        function: AggregateFunction,
        argument: Option<&Scalar>,
        filter: Option<&Scalar>,
    ) -> Option<usize> {
        let classes = &self.deriver.rollup.classes;
        let canonical = |scalar: Option<&Scalar>| scalar.map(|scalar| classes.canonical(scalar));
        let (argument, filter) = (canonical(argument), canonical(filter));
        let is_wanted = |partial: &Aggregate| {
            partial.function == function
                && !partial.distinct
                && partial.argument == argument
                && partial.filter == filter
        };
        let mut partials = self.deriver.rollup.partials();
        partials
            .find(|(_, partial)| is_wanted(partial))
            .map(|(position, _)| position)
    }

    fn unsupported(&self, aggregate: &Aggregate) -> Reason {
        Reason::new(Code::UnsupportedAggregate, self.label(aggregate))
    }

    pub(crate) fn label(&self, aggregate: &Aggregate) -> String {
        self.deriver
            .label(&Scalar::Aggregate(Box::new(aggregate.clone())))
    }
}

/// Whether values are integers, or numbers of at most 40 digits before the point.
pub(crate) fn has_few_digits(argument: &Scalar, tables: &Tables<'_>) -> bool {
    const DIGITS_MAX: i32 = 40;
    types::type_of(argument, tables).is_some_and(|ty| {
        let precision = (ty.typmod - 4) >> 16;
        types::is_integer(ty.oid) || (ty.typmod >= 0 && precision <= DIGITS_MAX)
    })
}

/// The branches of `CASE operand WHEN value …` with the conditions that it stands for.
fn searched(operand: Option<&Scalar>, branches: &[(Scalar, Scalar)]) -> Vec<(Scalar, Scalar)> {
    let branch = |(condition, result): &(Scalar, Scalar)| {
        let condition = match operand {
            None => condition.clone(),
            Some(operand) => Scalar::binary(BinaryOp::Equal, operand.clone(), condition.clone()),
        };
        (condition, result.clone())
    };
    branches.iter().map(branch).collect()
}

pub(crate) fn number(digits: &str) -> Scalar {
    Scalar::Literal(Literal::Number(digits.to_owned()))
}
