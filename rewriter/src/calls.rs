//! Calls: aggregates, GROUPING, and the functions that pgstar knows.

use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, ObjectName, ObjectNamePart, OrderByExpr,
};

use crate::expr::{Aggregate, AggregateFunction, Literal, Scalar, TypeName};
use crate::functions;
use crate::normalize::order_item;
use crate::reason::{Code, Reason};
use crate::scalar::{Aggregates, Resolved, Resolver, quoted};
use crate::scope::fold;
use crate::types;

impl Resolver<'_> {
    pub(crate) fn function(&self, function: &Function) -> Resolved {
        let Function {
            name,
            uses_odbc_syntax,
            parameters,
            args,
            within_group,
            filter,
            null_treatment,
            over,
        } = function;
        let unsupported = |code| Err(Reason::new(code, quoted(function)));
        if let Some(over) = over {
            return self.window(function, over);
        }
        if *uses_odbc_syntax || *parameters != FunctionArguments::None || null_treatment.is_some() {
            return unsupported(Code::UnsupportedExpression);
        }
        let name = self.resolve_function_name(name)?;
        if name == "grouping" {
            return self.grouping(function);
        }
        if let Some(aggregate) = aggregate_function(&name) {
            return self.aggregate(aggregate, args, within_group, filter.as_deref(), function);
        }
        if filter.is_some() || !within_group.is_empty() {
            return unsupported(Code::UnsupportedAggregate);
        }
        match plain_arguments(args) {
            Some(arguments) => self.call(&name, &arguments),
            None => unsupported(Code::UnsupportedExpression),
        }
    }

    pub(crate) fn resolve_function_name(&self, name: &ObjectName) -> Result<String, Reason> {
        let identifier = |part: &ObjectNamePart| match part {
            ObjectNamePart::Identifier(ident) => fold(ident),
            ObjectNamePart::Function(_) => {
                Err(Reason::new(Code::UnknownFunction, name.to_string()))
            }
        };
        let parts = name
            .0
            .iter()
            .map(identifier)
            .collect::<Result<Vec<_>, _>>()?;
        match parts.as_slice() {
            [function] => {
                self.function_name(function)?;
                Ok(function.clone())
            }
            [schema, function] if schema == "pg_catalog" => Ok(function.clone()),
            _ => Err(Reason::new(Code::UnknownFunction, name.to_string())),
        }
    }

    fn aggregate(
        &self,
        function: AggregateFunction,
        args: &FunctionArguments,
        within_group: &[OrderByExpr],
        filter: Option<&Expr>,
        whole: &Function,
    ) -> Resolved {
        if self.aggregates == Aggregates::Refused {
            return Err(Reason::new(
                Code::UnsupportedAggregate,
                format!("{} is not allowed here", quoted(whole)),
            ));
        }
        let inside = Resolver {
            aggregates: Aggregates::Refused,
            ..*self
        };
        let unsupported = || Reason::new(Code::UnsupportedAggregate, quoted(whole));
        let counts_rows = function == AggregateFunction::Count && is_star(args);
        let Arguments {
            distinct,
            expressions,
            order_by,
        } = match counts_rows {
            true => Arguments::default(),
            false => arguments(args).ok_or_else(unsupported)?,
        };
        let order_by = match (function.is_ordered_set(), order_by) {
            (true, []) => within_group,
            (false, order_by) if within_group.is_empty() => order_by,
            (true, _) | (false, _) => return Err(unsupported()),
        };
        let is_valid = match function {
            AggregateFunction::Count if counts_rows => order_by.is_empty(),
            AggregateFunction::Mode => expressions.is_empty() && order_by.len() == 1,
            AggregateFunction::PercentileCont | AggregateFunction::PercentileDisc => {
                expressions.len() == 1 && order_by.len() == 1
            }
            AggregateFunction::ArrayAgg => expressions.len() == 1,
            AggregateFunction::StringAgg => expressions.len() == 2,
            _ => expressions.len() == 1 && order_by.is_empty(),
        };
        if !is_valid {
            return Err(unsupported());
        }
        let counts_different =
            function == AggregateFunction::Count && distinct == Some(DuplicateTreatment::Distinct);
        let operand = |argument: &Expr| match argument {
            Expr::Tuple(values) if counts_different => inside.row(values),
            other => inside.scalar(other),
        };
        let mut operands = expressions
            .into_iter()
            .map(operand)
            .collect::<Result<Vec<_>, _>>()?
            .into_iter();
        let order_by = order_by
            .iter()
            .map(|item| order_item(item, &|expr| inside.scalar(expr)))
            .collect::<Result<_, _>>()?;
        let aggregate = Scalar::Aggregate(Box::new(Aggregate {
            function,
            argument: operands.next(),
            more_arguments: operands.collect(),
            distinct: distinct == Some(DuplicateTreatment::Distinct),
            order_by,
            filter: filter.map(|filter| inside.scalar(filter)).transpose()?,
        }));
        // It may be one of the query around this one.
        match aggregate.has_outer() {
            true => Err(unsupported()),
            false => Ok(aggregate),
        }
    }

    /// `(a, b)`, whose values are told apart as rows are. Never NULL itself, and known nowhere else.
    fn row(&self, values: &[Expr]) -> Resolved {
        let values = values.iter().map(|value| self.scalar(value));
        Ok(Scalar::Call {
            name: functions::ROW,
            arguments: values.collect::<Result<_, _>>()?,
        })
    }

    /// `GROUPING(key, …)`.
    fn grouping(&self, whole: &Function) -> Resolved {
        let refusal = || Reason::new(Code::GroupingSets, quoted(whole));
        let arguments = match plain_arguments(&whole.args) {
            Some(arguments) if self.aggregates == Aggregates::Allowed && whole.filter.is_none() => {
                arguments
            }
            _ => return Err(refusal()),
        };
        let inside = Resolver {
            aggregates: Aggregates::Refused,
            windows: &[],
            ..*self
        };
        let keys = arguments.iter().map(|key| inside.scalar(key));
        Ok(Scalar::Grouping(keys.collect::<Result<_, _>>()?))
    }

    pub(crate) fn call(&self, name: &str, arguments: &[&Expr]) -> Resolved {
        self.function_name(name)?;
        let function = functions::lookup(name)
            .filter(|function| function.name != functions::ROW)
            .ok_or_else(|| Reason::new(Code::UnknownFunction, name))?;
        if functions::has_no_parentheses(name) && !arguments.is_empty() {
            return Err(Reason::new(
                Code::UnknownFunction,
                format!("{name} with a precision"),
            ));
        }
        if name == "nullif" {
            self.operators(&["="])?;
        }
        let arguments = arguments
            .iter()
            .map(|argument| self.scalar(argument))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Scalar::Call {
            name: function.name,
            arguments: lower_time_unit(function.name, arguments),
        })
    }

    pub(crate) fn function_name(&self, name: &str) -> Result<(), Reason> {
        let shadowed = self.user_names().functions.contains(name);
        if shadowed {
            Err(Reason::new(
                Code::ShadowedName,
                format!("function \"{name}\""),
            ))
        } else {
            Ok(())
        }
    }
}

pub(crate) fn aggregate_function(name: &str) -> Option<AggregateFunction> {
    Some(match name {
        "count" => AggregateFunction::Count,
        "sum" => AggregateFunction::Sum,
        "avg" => AggregateFunction::Avg,
        "min" => AggregateFunction::Min,
        "max" => AggregateFunction::Max,
        "bool_and" | "every" => AggregateFunction::BoolAnd,
        "bool_or" => AggregateFunction::BoolOr,
        "bit_and" => AggregateFunction::BitAnd,
        "bit_or" => AggregateFunction::BitOr,
        "var_pop" => AggregateFunction::VarPop,
        "var_samp" | "variance" => AggregateFunction::VarSamp,
        "stddev_pop" => AggregateFunction::StddevPop,
        "stddev_samp" | "stddev" => AggregateFunction::StddevSamp,
        "array_agg" => AggregateFunction::ArrayAgg,
        "string_agg" => AggregateFunction::StringAgg,
        "mode" => AggregateFunction::Mode,
        "percentile_cont" => AggregateFunction::PercentileCont,
        "percentile_disc" => AggregateFunction::PercentileDisc,
        _ => return None,
    })
}

/// What stands in an aggregate's parentheses.
#[derive(Default)]
struct Arguments<'a> {
    distinct: Option<DuplicateTreatment>,
    expressions: Vec<&'a Expr>,
    order_by: &'a [OrderByExpr],
}

/// The positional arguments and their ORDER BY, when there is nothing else in the parentheses.
fn arguments(args: &FunctionArguments) -> Option<Arguments<'_>> {
    let FunctionArgumentList {
        duplicate_treatment,
        args,
        clauses,
    } = match args {
        FunctionArguments::None => return Some(Arguments::default()),
        FunctionArguments::Subquery(_) => return None,
        FunctionArguments::List(list) => list,
    };
    let order_by = match clauses.as_slice() {
        [] => [].as_slice(),
        [FunctionArgumentClause::OrderBy(items)] => items,
        _ => return None,
    };
    Some(Arguments {
        distinct: *duplicate_treatment,
        expressions: args.iter().map(positional).collect::<Option<_>>()?,
        order_by,
    })
}

fn positional(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        FunctionArg::Unnamed(_) | FunctionArg::Named { .. } | FunctionArg::ExprNamed { .. } => None,
    }
}

/// The positional arguments of a plain function, when there is nothing else in the parentheses.
pub(crate) fn plain_arguments(args: &FunctionArguments) -> Option<Vec<&Expr>> {
    match arguments(args)? {
        Arguments {
            distinct: None,
            expressions,
            order_by: [],
        } => Some(expressions),
        _ => None,
    }
}

pub(crate) fn is_star(args: &FunctionArguments) -> bool {
    match args {
        FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses,
        }) => {
            clauses.is_empty()
                && matches!(
                    args.as_slice(),
                    [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]
                )
        }
        _ => false,
    }
}

/// `DATE_TRUNC('MONTH', …)` and `date_trunc('month'::text, …)` are one function: PostgreSQL folds the unit, and
/// writes the type into the definitions of views.
fn lower_time_unit(name: &str, mut arguments: Vec<Scalar>) -> Vec<Scalar> {
    const OF_TEXT: [&str; 5] = [
        "date_trunc",
        "date_part",
        "to_char",
        "to_date",
        "to_timestamp",
    ];
    if OF_TEXT.contains(&name) {
        arguments = arguments.into_iter().map(without_text_cast).collect();
    }
    if let ("date_trunc" | "date_part", Some(Scalar::Literal(Literal::String(unit)))) =
        (name, arguments.first_mut())
    {
        *unit = unit.to_ascii_lowercase();
    }
    arguments
}

/// A quoted constant that is a text with or without being called one.
fn without_text_cast(argument: Scalar) -> Scalar {
    match argument {
        Scalar::Cast { operand, to } if to == TypeName::plain("text", types::TEXT) => {
            match *operand {
                literal @ Scalar::Literal(Literal::String(_)) => literal,
                other => other.cast(to),
            }
        }
        other => other,
    }
}
