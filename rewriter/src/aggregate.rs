//! Deriving aggregates at a coarser grain from partial aggregates.
//!
//! The derivations are those of REWRITING section 3 (after Gray and others, "Data Cube", 1996):
//! what is emitted prints the same bytes as PostgreSQL's own aggregate over the base rows.

use crate::derive::{Deriver, stored_column};
use crate::expr::{Aggregate, AggregateFunction, BinaryOp, Literal, Scalar, TypeName};
use crate::reason::{Code, Reason};
use crate::types;

/// Derives aggregates for one grouping.
#[derive(Clone, Copy)]
pub(crate) struct AggregateDeriver<'a> {
    pub(crate) deriver: Deriver<'a>,
    /// One group over everything: a row comes out even of no rows.
    pub(crate) is_scalar: bool,
}

impl AggregateDeriver<'_> {
    /// The aggregate over the rollup's columns.
    pub(crate) fn derive(&self, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        if aggregate.distinct && aggregate.argument.is_some() {
            return self.distinct(aggregate);
        }
        match (aggregate.function, &aggregate.argument) {
            (AggregateFunction::Count, argument) => self.count(argument.as_ref(), aggregate),
            (AggregateFunction::Sum, Some(argument)) => {
                let result = self.result_type(aggregate, argument)?;
                let sum = self.sum(argument, aggregate)?;
                Ok(if result == types::INT8 {
                    sum.cast(TypeName::plain("bigint", result))
                } else {
                    sum
                })
            }
            (AggregateFunction::Avg, Some(argument)) => {
                self.result_type(aggregate, argument)?;
                let rows = self.row_sum(Some(argument), aggregate)?;
                let divisor = Scalar::Call {
                    name: "nullif",
                    arguments: vec![rows, Scalar::Literal(Literal::Number("0".to_owned()))],
                };
                Ok(Scalar::binary(
                    BinaryOp::Divide,
                    self.sum(argument, aggregate)?,
                    divisor,
                ))
            }
            (function, Some(argument)) => {
                self.result_type(aggregate, argument)?;
                self.extreme(function, argument, aggregate)
            }
            (_, None) => Err(self.unsupported(aggregate)),
        }
    }

    /// `f(DISTINCT key)`: the rollup holds each value of the key, as often as it likes.
    fn distinct(&self, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        let derived = |scalar: &Option<Scalar>| {
            scalar
                .as_ref()
                .map(|scalar| self.deriver.derive(scalar))
                .transpose()
        };
        if let Some(argument) = &aggregate.argument
            && aggregate.function != AggregateFunction::Count
        {
            self.result_type(aggregate, argument)?;
        }
        Ok(Scalar::Aggregate(Box::new(Aggregate {
            function: aggregate.function,
            argument: derived(&aggregate.argument)?,
            distinct: true,
            filter: aggregate
                .filter
                .as_ref()
                .map(|filter| self.deriver.predicate(filter))
                .transpose()?,
        })))
    }

    /// The OID of the aggregate's result, if the aggregate can be derived at all.
    fn result_type(&self, aggregate: &Aggregate, argument: &Scalar) -> Result<u32, Reason> {
        let ty = types::type_of(argument, &self.deriver.tables)
            .ok_or_else(|| self.unsupported(aggregate))?;
        match types::aggregate_type(aggregate.function, ty) {
            Some(result) => Ok(result.oid.0),
            None if types::is_float(ty.oid) => {
                Err(Reason::new(Code::FloatAggregate, self.label(aggregate)))
            }
            None => Err(self.unsupported(aggregate)),
        }
    }

    /// `count` as bigint: 0 and not NULL where no row counts.
    fn count(&self, argument: Option<&Scalar>, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        let sum = self.row_sum(argument, aggregate)?;
        let may_be_null = self.is_scalar
            || sum.any(&|node| matches!(node, Scalar::Aggregate(inner) if inner.filter.is_some()));
        let count = sum.cast(TypeName::plain("bigint", types::INT8));
        let zero = Scalar::Literal(Literal::Number("0".to_owned()));
        Ok(if may_be_null {
            Scalar::Call {
                name: "coalesce",
                arguments: vec![count, zero],
            }
        } else {
            count
        })
    }

    /// The number of base rows whose argument is not NULL, as numeric; NULL over no rows.
    fn row_sum(&self, argument: Option<&Scalar>, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        let Some(argument) =
            argument.filter(|argument| !types::is_not_null(argument, &self.deriver.tables))
        else {
            return self.stored_sum(AggregateFunction::Count, None, aggregate);
        };
        self.stored_sum(AggregateFunction::Count, Some(argument), aggregate)
            .or_else(|missing| {
                let key = self.deriver.derive(argument).map_err(|_| missing)?;
                let rows = self.stored_sum(AggregateFunction::Count, None, aggregate)?;
                Ok(with_condition(rows, key.is_not_null()))
            })
    }

    /// The sum of the argument, as what SUM over the partials gives.
    fn sum(&self, argument: &Scalar, aggregate: &Aggregate) -> Result<Scalar, Reason> {
        self.stored_sum(AggregateFunction::Sum, Some(argument), aggregate)
            .or_else(|missing| {
                let key = self.deriver.derive(argument).map_err(|_| missing)?;
                let numeric = key.cast(TypeName::plain("numeric", types::NUMERIC));
                let weigh = |rows: &Scalar| {
                    Scalar::binary(BinaryOp::Multiply, numeric.clone(), rows.clone())
                };
                Ok(map_argument(
                    self.stored_sum(AggregateFunction::Count, None, aggregate)?,
                    &weigh,
                ))
            })
    }

    /// `sum(partial)` over the stored partial, under the aggregate's own filter.
    fn stored_sum(
        &self,
        function: AggregateFunction,
        argument: Option<&Scalar>,
        aggregate: &Aggregate,
    ) -> Result<Scalar, Reason> {
        let (position, filter) = self.stored(function, argument, aggregate)?;
        Ok(Scalar::aggregate(
            AggregateFunction::Sum,
            stored_column(position),
            filter,
        ))
    }

    /// min, max, bool_and and bool_or: over their own partial, or over a key.
    fn extreme(
        &self,
        function: AggregateFunction,
        argument: &Scalar,
        aggregate: &Aggregate,
    ) -> Result<Scalar, Reason> {
        let derived = match self.stored(function, Some(argument), aggregate) {
            Ok((position, filter)) => (stored_column(position), filter),
            Err(missing) => {
                let key = self.deriver.derive(argument).map_err(|_| missing)?;
                (
                    key,
                    aggregate
                        .filter
                        .as_ref()
                        .map(|filter| self.deriver.predicate(filter))
                        .transpose()?,
                )
            }
        };
        Ok(Scalar::aggregate(function, derived.0, derived.1))
    }

    /// Where the partial is stored, and the filter that remains: none when the partial was stored under it.
    fn stored(
        &self,
        function: AggregateFunction,
        argument: Option<&Scalar>,
        aggregate: &Aggregate,
    ) -> Result<(usize, Option<Scalar>), Reason> {
        let classes = &self.deriver.rollup.classes;
        let canonical = |scalar: Option<&Scalar>| scalar.map(|scalar| classes.canonical(scalar));
        let find = |filter: Option<&Scalar>| {
            self.deriver.rollup.partials().find(|(_, partial)| {
                partial.function == function
                    && canonical(partial.argument.as_ref()) == canonical(argument)
                    && canonical(partial.filter.as_ref()) == canonical(filter)
            })
        };
        if let Some((position, _)) = find(aggregate.filter.as_ref()) {
            return Ok((position, None));
        }
        let missing = || Reason::new(Code::MeasureMissing, self.label(aggregate));
        let (position, _) = find(None).ok_or_else(missing)?;
        let filter = aggregate
            .filter
            .as_ref()
            .map(|filter| self.deriver.predicate(filter))
            .transpose()?;
        Ok((position, filter))
    }

    fn unsupported(&self, aggregate: &Aggregate) -> Reason {
        Reason::new(Code::UnsupportedAggregate, self.label(aggregate))
    }

    fn label(&self, aggregate: &Aggregate) -> String {
        self.deriver
            .label(&Scalar::Aggregate(Box::new(aggregate.clone())))
    }
}

/// The aggregate over only those rows that also satisfy the condition.
fn with_condition(aggregate: Scalar, condition: Scalar) -> Scalar {
    match aggregate {
        Scalar::Aggregate(mut inner) => {
            inner.filter = Some(match inner.filter.take() {
                Some(filter) => Scalar::And(vec![filter, condition]),
                None => condition,
            });
            Scalar::Aggregate(inner)
        }
        other => other,
    }
}

fn map_argument(aggregate: Scalar, change: &dyn Fn(&Scalar) -> Scalar) -> Scalar {
    match aggregate {
        Scalar::Aggregate(mut inner) => {
            inner.argument = inner.argument.as_ref().map(change);
            Scalar::Aggregate(inner)
        }
        other => other,
    }
}
