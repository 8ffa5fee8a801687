//! Window functions. They are computed over the rows that grouping leaves, so what they are made of
//! is derived like any output.

use sqlparser::ast::{
    Expr, Function, FunctionArguments, Ident, NamedWindowDefinition, NamedWindowExpr, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType,
};

use crate::calls::{aggregate_function, is_star, plain_arguments};
use crate::expr::{AggregateFunction, ColumnRef, Scalar, Window, WindowFunction};
use crate::from::without_parentheses;
use crate::normalize::order_item;
use crate::reason::{Code, Reason};
use crate::scalar::{Aggregates, Resolved, Resolver, quoted};
use crate::scope::fold;

/// Window functions that are no aggregates.
const OWN: &[&str] = &[
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
    "lag",
    "lead",
    "first_value",
    "last_value",
    "nth_value",
];

impl Resolver<'_> {
    /// `function(…) OVER (…)`.
    pub(crate) fn window(&self, whole: &Function, over: &WindowType) -> Resolved {
        let Function {
            name,
            uses_odbc_syntax: false,
            parameters: FunctionArguments::None,
            args,
            within_group,
            filter,
            null_treatment: None,
            over: _,
        } = whole
        else {
            return Err(refusal(whole));
        };
        if self.aggregates == Aggregates::Refused || !within_group.is_empty() {
            return Err(refusal(whole));
        }
        let name = self.resolve_function_name(name)?;
        let own = OWN.iter().find(|own| **own == name);
        let function = match (aggregate_function(&name), own) {
            (Some(function), _) => WindowFunction::Aggregate(function),
            (None, Some(own)) => WindowFunction::Own(own),
            (None, None) => return Err(Reason::new(Code::UnknownFunction, name)),
        };
        let inside = self.inside(Aggregates::Allowed);
        let arguments = match plain_arguments(args) {
            Some(arguments) => arguments,
            None if is_star(args)
                && function == WindowFunction::Aggregate(AggregateFunction::Count) =>
            {
                vec![]
            }
            _ => return Err(refusal(whole)),
        };
        let arguments = arguments.iter().map(|argument| inside.scalar(argument));
        let arguments = arguments.collect::<Result<_, _>>()?;
        let filter = filter.as_deref().map(|filter| inside.scalar(filter));
        let filter = filter.transpose()?;
        let window = Window {
            function,
            arguments,
            filter,
            ..self.specification(over, whole)?
        };
        let window = Scalar::Window(Box::new(window));
        if window.children().into_iter().any(Scalar::has_window) {
            return Err(refusal(whole));
        }
        Ok(window)
    }

    /// What stands behind OVER, with a function that is to be replaced.
    fn specification(&self, over: &WindowType, whole: &Function) -> Result<Window, Reason> {
        let spec = match over {
            WindowType::WindowSpec(spec) => spec,
            WindowType::NamedWindow(name) => self.named(name, whole)?,
        };
        let WindowSpec {
            window_name: None,
            partition_by,
            order_by,
            window_frame,
        } = spec
        else {
            return Err(refusal(whole));
        };
        let inside = self.inside(Aggregates::Allowed);
        // Here a number is a number and a name an input column, as in no other ORDER BY.
        let value = |expr: &Expr| inside.scalar(without_parentheses(expr));
        let partition_by = partition_by.iter().map(&value);
        let order_by = order_by.iter().map(|item| order_item(item, &value));
        Ok(Window {
            function: WindowFunction::Own("row_number"),
            arguments: vec![],
            filter: None,
            partition_by: partition_by.collect::<Result<_, _>>()?,
            order_by: order_by.collect::<Result<_, _>>()?,
            frame: window_frame.as_ref().map(frame).transpose()?,
        })
    }

    fn named(&self, name: &Ident, whole: &Function) -> Result<&WindowSpec, Reason> {
        let name = fold(name)?;
        for NamedWindowDefinition(defined, definition) in self.windows {
            if fold(defined)? == name {
                return match definition {
                    NamedWindowExpr::WindowSpec(spec) => Ok(spec),
                    NamedWindowExpr::NamedWindow(_) => Err(refusal(whole)),
                };
            }
        }
        Err(refusal(whole))
    }
}

/// The columns that the WINDOW clause names, whether its windows are used or not: the role needs
/// privileges on them.
pub(crate) fn columns_of_windows(resolver: &Resolver<'_>) -> Result<Vec<ColumnRef>, Reason> {
    let inside = resolver.inside(Aggregates::Allowed);
    let mut columns = vec![];
    for window in resolver.windows {
        let NamedWindowDefinition(_, NamedWindowExpr::WindowSpec(spec)) = window else {
            return Err(Reason::new(Code::WindowFunction, quoted(window)));
        };
        let ordered = spec.order_by.iter().map(|item| &item.expr);
        for expr in spec.partition_by.iter().chain(ordered) {
            let value = inside.scalar(without_parentheses(expr))?;
            if value.has_sub_query() {
                return Err(Reason::new(Code::WindowFunction, quoted(window)));
            }
            columns.extend(value.columns());
        }
    }
    Ok(columns)
}

fn refusal(whole: &Function) -> Reason {
    Reason::new(Code::WindowFunction, quoted(whole))
}

/// The frame clause, printed.
fn frame(frame: &WindowFrame) -> Result<String, Reason> {
    let WindowFrame {
        units,
        start_bound,
        end_bound,
    } = frame;
    let units = match units {
        WindowFrameUnits::Rows => "ROWS",
        WindowFrameUnits::Range => "RANGE",
        WindowFrameUnits::Groups => "GROUPS",
    };
    let start = bound(start_bound)?;
    Ok(match end_bound {
        None => format!("{units} {start}"),
        Some(end) => format!("{units} BETWEEN {start} AND {}", bound(end)?),
    })
}

fn bound(bound: &WindowFrameBound) -> Result<String, Reason> {
    let (offset, direction) = match bound {
        WindowFrameBound::CurrentRow => return Ok("CURRENT ROW".to_owned()),
        WindowFrameBound::Preceding(offset) => (offset, "PRECEDING"),
        WindowFrameBound::Following(offset) => (offset, "FOLLOWING"),
    };
    let offset = match offset.as_deref() {
        None => "UNBOUNDED".to_owned(),
        Some(Expr::Value(value)) => match &value.value {
            sqlparser::ast::Value::Number(digits, false)
                if digits.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                digits.clone()
            }
            _ => return Err(Reason::new(Code::WindowFunction, quoted(bound))),
        },
        Some(_) => return Err(Reason::new(Code::WindowFunction, quoted(bound))),
    };
    Ok(format!("{offset} {direction}"))
}
