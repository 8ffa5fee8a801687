//! From a parsed query to its [`Block`].

use sqlparser::ast::{Expr, OrderByExpr, OrderByOptions, OrderBySort, Query};

use crate::block::{Block, OrderItem, Output};
use crate::expr::{Literal, Scalar};
use crate::from::{FromBuilder, Names, position, without_parentheses};
use crate::outer::with_total_joins_inner;
use crate::reason::{Code, Reason};
use crate::scalar::{Aggregates, quoted};
use crate::scope::{Scope, fold};
use crate::select::PlainSelect;

/// The block that the query means, or why it has none.
pub(crate) fn normalize(query: &Query, names: Names<'_>) -> Result<Block, Reason> {
    let select = PlainSelect::of(query)?;
    if select.from.is_empty() {
        return Err(Reason::new(Code::NotAggregate, "no FROM"));
    }
    let mut from = FromBuilder::new(names);
    let scope = from.read(&select)?;
    let clauses = Clauses {
        from: &from,
        scope: &scope,
    };
    let outputs = clauses.outputs(&select)?;
    let group_by = clauses.group_by(&select, &outputs)?;
    let having = clauses.having(&select)?;
    let order_by = clauses.order_by(&select, &outputs)?;
    let limit = select.limit.map(count).transpose()?;
    let offset = select.offset.map(count).transpose()?;
    let FromBuilder {
        occurrences,
        predicates,
        mentioned,
        ..
    } = from;
    let has_aggregate = outputs
        .iter()
        .map(|output| &output.value)
        .chain(order_by.iter().map(|item| &item.value))
        .any(Scalar::has_aggregate);
    let is_grouped = !group_by.is_empty() || select.having.is_some() || has_aggregate;
    let block = Block {
        occurrences,
        predicates,
        group_by,
        is_aggregated: is_grouped,
        having,
        outputs,
        distinct: select.distinct,
        order_by,
        limit,
        offset,
        mentioned,
    };
    let block = with_total_joins_inner(block, names.catalog);
    if is_grouped {
        Ok(block)
    } else {
        distinct_as_groups(block)
    }
}

/// `SELECT DISTINCT a, b` is `SELECT a, b GROUP BY a, b`.
fn distinct_as_groups(block: Block) -> Result<Block, Reason> {
    if !block.distinct {
        return Err(Reason::new(Code::NotAggregate, ""));
    }
    let group_by: Vec<Scalar> = block
        .outputs
        .iter()
        .map(|output| output.value.clone())
        .collect();
    refuse_constant_keys(&group_by)?;
    Ok(Block {
        group_by,
        is_aggregated: true,
        distinct: false,
        ..block
    })
}

struct Clauses<'a, 'b> {
    from: &'a FromBuilder<'b>,
    scope: &'a Scope,
}

impl Clauses<'_, '_> {
    fn outputs(&self, select: &PlainSelect<'_>) -> Result<Vec<Output>, Reason> {
        let columns = self
            .from
            .projection(select.projection, self.scope, Aggregates::Allowed)?;
        Ok(columns
            .into_iter()
            .map(|(name, value)| Output { name, value })
            .collect())
    }

    fn group_by(
        &self,
        select: &PlainSelect<'_>,
        outputs: &[Output],
    ) -> Result<Vec<Scalar>, Reason> {
        let keys = select
            .group_by
            .iter()
            .map(|expr| self.group_key(expr, outputs))
            .collect::<Result<Vec<_>, _>>()?;
        if keys.iter().any(Scalar::has_aggregate) {
            return Err(Reason::new(
                Code::UnsupportedExpression,
                "an aggregate in GROUP BY",
            ));
        }
        refuse_constant_keys(&keys)?;
        Ok(keys)
    }

    /// An item of GROUP BY: a position, else an input column, else an output's name, else an expression.
    fn group_key(&self, expr: &Expr, outputs: &[Output]) -> Result<Scalar, Reason> {
        if let Some(position) = position(expr) {
            return output_at(outputs, position);
        }
        let expr = without_parentheses(expr);
        if let Expr::Identifier(ident) = expr {
            let name = fold(ident)?;
            if self.scope.unqualified(&name)?.is_none() {
                return output_named(outputs, &name)?
                    .ok_or_else(|| Reason::new(Code::UnknownColumn, format!("\"{name}\"")));
            }
        }
        self.from
            .resolver(self.scope, Aggregates::Refused)
            .scalar(expr)
    }

    fn having(&self, select: &PlainSelect<'_>) -> Result<Vec<Scalar>, Reason> {
        let Some(having) = select.having else {
            return Ok(vec![]);
        };
        Ok(self
            .from
            .resolver(self.scope, Aggregates::Allowed)
            .scalar(having)?
            .into_conjuncts())
    }

    fn order_by(
        &self,
        select: &PlainSelect<'_>,
        outputs: &[Output],
    ) -> Result<Vec<OrderItem>, Reason> {
        select
            .order_by
            .iter()
            .map(|item| self.order_item(item, outputs))
            // A constant orders nothing, and printed again it would be read as a position.
            .filter(|item| !item.as_ref().is_ok_and(|item| item.value.is_constant()))
            .collect()
    }

    fn order_item(&self, item: &OrderByExpr, outputs: &[Output]) -> Result<OrderItem, Reason> {
        let OrderByExpr {
            expr,
            options: OrderByOptions { sort, nulls_first },
            with_fill,
        } = item;
        if with_fill.is_some() {
            return Err(Reason::new(Code::UnsupportedClause, quoted(item)));
        }
        let descending = match sort {
            None | Some(OrderBySort::Asc) => false,
            Some(OrderBySort::Desc) => true,
            Some(OrderBySort::Using(_)) => {
                return Err(Reason::new(Code::UnsupportedClause, quoted(item)));
            }
        };
        Ok(OrderItem {
            value: self.order_value(expr, outputs)?,
            descending,
            nulls_first: *nulls_first,
        })
    }

    /// An item of ORDER BY: a position, else an output's name, else an expression over input columns.
    fn order_value(&self, expr: &Expr, outputs: &[Output]) -> Result<Scalar, Reason> {
        if let Some(position) = position(expr) {
            return output_at(outputs, position);
        }
        let expr = without_parentheses(expr);
        if let Expr::Value(_) = expr {
            return Err(Reason::new(
                Code::UnsupportedClause,
                format!("ORDER BY {}", quoted(expr)),
            ));
        }
        if let Expr::Identifier(ident) = expr
            && let Some(value) = output_named(outputs, &fold(ident)?)?
        {
            return Ok(value);
        }
        let value = self
            .from
            .resolver(self.scope, Aggregates::Allowed)
            .scalar(expr)?;
        if value.is_constant() {
            let detail = format!("ORDER BY {}", quoted(expr));
            return Err(Reason::new(Code::UnsupportedClause, detail));
        }
        Ok(value)
    }
}

fn output_at(outputs: &[Output], position: usize) -> Result<Scalar, Reason> {
    let output = position.checked_sub(1).and_then(|index| outputs.get(index));
    output
        .map(|output| output.value.clone())
        .ok_or_else(|| Reason::new(Code::UnknownColumn, format!("position {position}")))
}

/// The output of this name; several are fine as long as they are one expression.
fn output_named(outputs: &[Output], name: &str) -> Result<Option<Scalar>, Reason> {
    let mut named = outputs
        .iter()
        .filter(|output| output.name == name)
        .map(|output| &output.value);
    let Some(first) = named.next() else {
        return Ok(None);
    };
    if named.any(|other| other != first) {
        return Err(Reason::new(
            Code::UnknownColumn,
            format!("\"{name}\" is ambiguous"),
        ));
    }
    Ok(Some(first.clone()))
}

/// A constant in GROUP BY would be printed as a position or change the number of groups.
fn refuse_constant_keys(keys: &[Scalar]) -> Result<(), Reason> {
    if keys.iter().any(Scalar::is_constant) {
        return Err(Reason::new(
            Code::UnsupportedExpression,
            "a constant in GROUP BY",
        ));
    }
    Ok(())
}

/// The argument of LIMIT or OFFSET: a constant or a parameter.
fn count(expr: &Expr) -> Result<Scalar, Reason> {
    let refusal = || {
        Reason::new(
            Code::UnsupportedExpression,
            format!("LIMIT or OFFSET {}", quoted(expr)),
        )
    };
    let Expr::Value(value) = expr else {
        return Err(refusal());
    };
    match &value.value {
        sqlparser::ast::Value::Number(digits, false)
            if digits.chars().all(|c| c.is_ascii_digit()) =>
        {
            Ok(Scalar::Literal(Literal::Number(digits.clone())))
        }
        sqlparser::ast::Value::Null => Ok(Scalar::Literal(Literal::Null)),
        sqlparser::ast::Value::Placeholder(name) => name
            .strip_prefix('$')
            .and_then(|digits| digits.parse().ok())
            .map(Scalar::Parameter)
            .ok_or_else(refusal),
        _ => Err(refusal()),
    }
}
