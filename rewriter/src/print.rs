//! Prints scalars and quoted names as SQL that PostgreSQL reads back as the same tree.
//!
//! Every compound operand is put in parentheses, so no precedence is relied on.

use crate::expr::{
    Aggregate, AggregateFunction, ColumnRef, Literal, OrderItem, Scalar, SubQuery, SubQueryKind,
    Truth, Window, WindowFunction,
};
use crate::functions::has_no_parentheses;
use crate::query::Query;

/// How columns and queries are written where the expression is used.
pub(crate) trait Place {
    /// A column.
    fn column(&self, column: ColumnRef) -> String;
    /// A query, without parentheses around it, and what it reads of the query that is printed.
    fn query(&self, query: &Query, outer: &[Scalar]) -> String;
    /// What the query that is printed reads of the query around it.
    fn outer(&self, position: usize) -> String;
}

/// For people, who need not read a whole query again.
impl<F: Fn(ColumnRef) -> String> Place for F {
    fn column(&self, column: ColumnRef) -> String {
        self(column)
    }

    fn query(&self, _: &Query, _: &[Scalar]) -> String {
        "SELECT …".to_owned()
    }

    fn outer(&self, _: usize) -> String {
        "outer".to_owned()
    }
}

pub(crate) type ColumnPrinter<'a> = &'a dyn Place;

/// A name as SQL: bare when it cannot be misread, quoted otherwise.
pub fn quote_identifier(name: &str) -> String {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_';
    let bare = name.as_bytes().first().is_some_and(is_letter)
        && name
            .bytes()
            .all(|byte| is_letter(&byte) || byte.is_ascii_digit())
        && !is_keyword(name);
    if bare {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// Any word of SQL is quoted: that is always right, and the list need not follow PostgreSQL's. It is sorted.
fn is_keyword(name: &str) -> bool {
    let upper = || name.bytes().map(|byte| byte.to_ascii_uppercase());
    sqlparser::keywords::ALL_KEYWORDS
        .binary_search_by(|keyword| keyword.bytes().cmp(upper()))
        .is_ok()
}

/// `schema.name`, quoted where needed.
pub fn quote_qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_identifier(schema), quote_identifier(name))
}

/// A string constant under `standard_conforming_strings = on`.
pub(crate) fn quote_string(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The expression, with parentheses around it when it is compound.
pub(crate) fn operand(scalar: &Scalar, column: ColumnPrinter<'_>) -> String {
    let text = expression(scalar, column);
    match scalar {
        Scalar::Column(_) | Scalar::Literal(_) | Scalar::Parameter(_) | Scalar::Call { .. } => text,
        Scalar::Outer(_) => text,
        Scalar::Cast { .. }
        | Scalar::Extract { .. }
        | Scalar::Array(_)
        | Scalar::Aggregate(_)
        | Scalar::Window(_)
        | Scalar::Grouping(_)
        | Scalar::Case { .. } => text,
        _ => format!("({text})"),
    }
}

/// The expression.
pub(crate) fn expression(scalar: &Scalar, column: ColumnPrinter<'_>) -> String {
    let inner = |scalar: &Scalar| operand(scalar, column);
    match scalar {
        Scalar::Column(reference) => column.column(*reference),
        Scalar::Literal(literal) => print_literal(literal),
        Scalar::Parameter(parameter) => parameter.print(),
        Scalar::Call { name, arguments: _ } if has_no_parentheses(name) => (*name).to_owned(),
        Scalar::Call { name, arguments } => format!("{name}({})", list(arguments, column)),
        Scalar::Binary { op, left, right } => {
            format!("{} {} {}", inner(left), op.as_str(), inner(right))
        }
        Scalar::Negate(negated) => format!("- {}", inner(negated)),
        Scalar::Not(negated) => format!("NOT {}", inner(negated)),
        Scalar::And(parts) => joined(parts, " AND ", column),
        Scalar::Or(parts) => joined(parts, " OR ", column),
        Scalar::IsNull { operand, negated } => {
            format!("{} IS {}NULL", inner(operand), not(*negated))
        }
        Scalar::IsTruth {
            operand,
            truth,
            negated,
        } => {
            let truth = match truth {
                Truth::True => "TRUE",
                Truth::False => "FALSE",
            };
            format!("{} IS {}{truth}", inner(operand), not(*negated))
        }
        Scalar::IsDistinct {
            left,
            right,
            negated,
        } => {
            format!(
                "{} IS {}DISTINCT FROM {}",
                inner(left),
                not(*negated),
                inner(right)
            )
        }
        Scalar::In {
            operand,
            list: values,
            negated,
        } => {
            format!(
                "{} {}IN ({})",
                inner(operand),
                not(*negated),
                list(values, column)
            )
        }
        Scalar::Regex {
            operand,
            pattern,
            any_case,
            negated,
        } => {
            let not = if *negated { "!" } else { "" };
            let any_case = if *any_case { "*" } else { "" };
            format!("{} {not}~{any_case} {}", inner(operand), inner(pattern))
        }
        Scalar::Quantified {
            operand,
            op,
            all,
            array,
        } => {
            let which = if *all { "ALL" } else { "ANY" };
            format!(
                "{} {} {which} ({})",
                inner(operand),
                op.as_str(),
                inner(array)
            )
        }
        Scalar::Array(elements) => format!("ARRAY[{}]", list(elements, column)),
        Scalar::Like {
            operand,
            pattern,
            any_case,
            negated,
        } => {
            let like = if *any_case { "ILIKE" } else { "LIKE" };
            format!(
                "{} {}{like} {}",
                inner(operand),
                not(*negated),
                inner(pattern)
            )
        }
        Scalar::Cast { operand, to } => {
            format!("CAST({} AS {})", expression(operand, column), to.sql)
        }
        Scalar::Case {
            operand,
            branches,
            otherwise,
        } => print_case(operand.as_deref(), branches, otherwise.as_deref(), column),
        Scalar::Extract { field, operand } => {
            format!("EXTRACT({field} FROM {})", expression(operand, column))
        }
        Scalar::Aggregate(aggregate) => print_aggregate(aggregate, column),
        Scalar::Window(window) => print_window(window, column),
        Scalar::Grouping(keys) => format!("GROUPING({})", list(keys, column)),
        Scalar::SubQuery(sub_query) => print_sub_query(sub_query, column),
        Scalar::Outer(position) => column.outer(*position),
    }
}

fn print_sub_query(sub_query: &SubQuery, place: ColumnPrinter<'_>) -> String {
    let query = place.query(&sub_query.query, &sub_query.outer);
    match &sub_query.kind {
        SubQueryKind::Value => format!("({query})"),
        SubQueryKind::Exists => format!("EXISTS ({query})"),
        SubQueryKind::In {
            operand: sought,
            negated,
        } => format!("{} {}IN ({query})", operand(sought, place), not(*negated)),
    }
}

fn print_window(window: &Window, place: ColumnPrinter<'_>) -> String {
    let Window {
        function,
        arguments,
        filter,
        partition_by,
        order_by,
        frame,
    } = window;
    let is_count = *function == WindowFunction::Aggregate(AggregateFunction::Count);
    let arguments = match arguments.is_empty() && is_count {
        true => "*".to_owned(),
        false => list(arguments, place),
    };
    let filter = filter.as_ref().map_or_else(String::new, |filter| {
        format!(" FILTER (WHERE {})", expression(filter, place))
    });
    let mut over = vec![];
    if !partition_by.is_empty() {
        over.push(format!("PARTITION BY {}", list(partition_by, place)));
    }
    if !order_by.is_empty() {
        over.push(print_order(order_by, place));
    }
    over.extend(frame.clone());
    format!(
        "{}({arguments}){filter} OVER ({})",
        function.as_str(),
        over.join(" ")
    )
}

/// `ORDER BY …`.
pub(crate) fn print_order(items: &[OrderItem], place: ColumnPrinter<'_>) -> String {
    let items: Vec<String> = items.iter().map(|item| order_item(item, place)).collect();
    format!("ORDER BY {}", items.join(", "))
}

fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}

pub(crate) fn list(scalars: &[Scalar], column: ColumnPrinter<'_>) -> String {
    scalars
        .iter()
        .map(|scalar| expression(scalar, column))
        .collect::<Vec<_>>()
        .join(", ")
}

fn joined(parts: &[Scalar], separator: &str, column: ColumnPrinter<'_>) -> String {
    parts
        .iter()
        .map(|part| operand(part, column))
        .collect::<Vec<_>>()
        .join(separator)
}

/// Conjuncts as a condition.
pub(crate) fn conjunction(parts: &[Scalar], column: ColumnPrinter<'_>) -> String {
    match parts {
        [only] => expression(only, column),
        _ => joined(parts, " AND ", column),
    }
}

pub(crate) fn print_literal(literal: &Literal) -> String {
    match literal {
        Literal::Number(digits) => digits.clone(),
        Literal::String(text) => quote_string(text),
        Literal::Boolean(true) => "TRUE".to_owned(),
        Literal::Boolean(false) => "FALSE".to_owned(),
        Literal::Null => "NULL".to_owned(),
        Literal::Interval(text) => format!("INTERVAL {}", quote_string(text)),
    }
}

fn print_case(
    subject: Option<&Scalar>,
    branches: &[(Scalar, Scalar)],
    otherwise: Option<&Scalar>,
    column: ColumnPrinter<'_>,
) -> String {
    let mut text = String::from("CASE");
    if let Some(subject) = subject {
        text += &format!(" {}", operand(subject, column));
    }
    for (condition, result) in branches {
        text += &format!(
            " WHEN {} THEN {}",
            expression(condition, column),
            expression(result, column)
        );
    }
    if let Some(otherwise) = otherwise {
        text += &format!(" ELSE {}", expression(otherwise, column));
    }
    text + " END"
}

fn print_aggregate(aggregate: &Aggregate, column: ColumnPrinter<'_>) -> String {
    let Aggregate {
        function,
        argument,
        more_arguments,
        distinct,
        order_by,
        filter,
    } = aggregate;
    let arguments: Vec<String> = argument
        .iter()
        .chain(more_arguments)
        .map(|argument| expression(argument, column))
        .collect();
    let distinct = if *distinct { "DISTINCT " } else { "" };
    let arguments = match arguments.as_slice() {
        [] if !function.is_ordered_set() => "*".to_owned(),
        arguments => format!("{distinct}{}", arguments.join(", ")),
    };
    let order = match order_by.is_empty() {
        true => String::new(),
        false => print_order(order_by, column),
    };
    let filter = filter
        .as_ref()
        .map(|filter| format!(" FILTER (WHERE {})", expression(filter, column)))
        .unwrap_or_default();
    let name = function.as_str();
    match order.as_str() {
        "" => format!("{name}({arguments}){filter}"),
        order if function.is_ordered_set() => {
            format!("{name}({arguments}) WITHIN GROUP ({order}){filter}")
        }
        order => format!("{name}({arguments} {order}){filter}"),
    }
}

/// An item of ORDER BY.
fn order_item(item: &OrderItem, column: ColumnPrinter<'_>) -> String {
    let OrderItem {
        value,
        descending,
        nulls_first,
    } = item;
    let direction = if *descending { " DESC" } else { "" };
    let nulls = match nulls_first {
        None => "",
        Some(true) => " NULLS FIRST",
        Some(false) => " NULLS LAST",
    };
    format!("{}{direction}{nulls}", expression(value, column))
}
