//! Sums of expressions from the sums of their parts: `sum(a + b)` is `sum(a) + sum(b)` where both are there in
//! every row, and `sum(a * k)` is `sum(a) * k` where k is the same in all rows behind a row of the rollup.
//!
//! PostgreSQL adds, subtracts and multiplies numerics exactly, and a sum has the most digits behind the point of all
//! that was added, so that both sides print alike. Quotients are rounded and stay what they are. Where an expression
//! may raise an error nothing is taken apart: a sum of the parts would raise none.

use crate::aggregate::{AggregateDeriver, number};
use crate::expr::{AggregateFunction, BinaryOp, Literal, Scalar, TypeName};
use crate::types;
use crate::volatility::may_raise;

impl AggregateDeriver<'_> {
    /// What a row of the rollup contributes to the sum of the expression; `None` where it does not follow from sums
    /// that are stored.
    pub(crate) fn linear_sum(&self, argument: &Scalar) -> Option<Scalar> {
        match may_raise(argument, &self.deriver.tables) {
            true => None,
            false => self.sum_of(argument),
        }
    }

    /// How many rows behind a row of the rollup have a value of the expression.
    pub(crate) fn linear_count(&self, argument: &Scalar) -> Option<Scalar> {
        match may_raise(argument, &self.deriver.tables) {
            true => None,
            false => self.count_of(argument),
        }
    }

    fn sum_of(&self, scalar: &Scalar) -> Option<Scalar> {
        let tables = &self.deriver.tables;
        let ty = types::type_of(scalar, tables)?.oid;
        if !types::is_integer(ty) && ty.0 != types::NUMERIC {
            return None;
        }
        if let Some(sum) = self.stored_value(AggregateFunction::Sum, scalar) {
            return Some(numeric(sum));
        }
        if let Ok(key) = self.deriver.derive(scalar) {
            return self.key_value(AggregateFunction::Sum, scalar, key);
        }
        match scalar {
            Scalar::Negate(operand) => Some(Scalar::Negate(Box::new(self.sum_of(operand)?))),
            // The same number, of a type that holds more.
            Scalar::Cast { operand, to } if to.typmod == -1 => self.sum_of(operand),
            Scalar::Binary {
                op: op @ (BinaryOp::Plus | BinaryOp::Minus),
                left,
                right,
            } => self.sum_of_two(*op, left, right),
            Scalar::Binary {
                op: BinaryOp::Multiply,
                left,
                right,
            } => self
                .sum_of_multiple(left, right)
                .or_else(|| self.sum_of_multiple(right, left)),
            // NULL counts as nothing.
            Scalar::Call {
                name: "coalesce",
                arguments,
            } => match arguments.as_slice() {
                [operand, Scalar::Literal(Literal::Number(digits))] if digits == "0" => {
                    Some(Scalar::Call {
                        name: "coalesce",
                        arguments: vec![self.sum_of(operand)?, number("0")],
                    })
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// Where one of the two is NULL, so is their sum: the other must not be counted there.
    fn sum_of_two(&self, op: BinaryOp, left: &Scalar, right: &Scalar) -> Option<Scalar> {
        let tables = &self.deriver.tables;
        let are_there = types::is_not_null(left, tables) && types::is_not_null(right, tables);
        let (left, right) = match (self.deriver.derive(left), self.deriver.derive(right)) {
            (_, Ok(key)) => (
                self.sum_of(left)?,
                times(numeric(key), self.count_of(left)?),
            ),
            (Ok(key), _) => (
                times(numeric(key), self.count_of(right)?),
                self.sum_of(right)?,
            ),
            _ if are_there => (self.sum_of(left)?, self.sum_of(right)?),
            _ => return None,
        };
        Some(Scalar::binary(op, left, right))
    }

    fn sum_of_multiple(&self, measure: &Scalar, factor: &Scalar) -> Option<Scalar> {
        let factor = self.deriver.derive(factor).ok()?;
        Some(times(self.sum_of(measure)?, numeric(factor)))
    }

    fn count_of(&self, scalar: &Scalar) -> Option<Scalar> {
        let tables = &self.deriver.tables;
        if types::is_not_null(scalar, tables) {
            return self.stored_rows();
        }
        if let Some(count) = self.stored_value(AggregateFunction::Count, scalar) {
            return Some(count);
        }
        let is_there = |operand: &Scalar| types::is_not_null(operand, tables);
        match scalar {
            Scalar::Negate(operand) => self.count_of(operand),
            Scalar::Cast { operand, to: _ } => self.count_of(operand),
            Scalar::Binary {
                op: BinaryOp::Plus | BinaryOp::Minus | BinaryOp::Multiply,
                left,
                right,
            } => match (is_there(left), is_there(right)) {
                (_, true) => self.count_of(left),
                (true, _) => self.count_of(right),
                (false, false) => None,
            },
            _ => None,
        }
    }
}

fn times(left: Scalar, right: Scalar) -> Scalar {
    Scalar::binary(BinaryOp::Multiply, left, right)
}

fn numeric(scalar: Scalar) -> Scalar {
    match scalar {
        number @ Scalar::Literal(Literal::Number(_)) => number,
        other => other.cast(TypeName::plain("numeric", types::NUMERIC)),
    }
}
