//! The names that PostgreSQL gives to output columns that have no alias.
//!
//! Follows FigureColname in PostgreSQL's src/backend/parser/parse_target.c: a column or function
//! gives its own name, a cast gives its type's name when its operand has none.

use sqlparser::ast::{Expr, ObjectNamePart, SelectItem, SetExpr, Value};

use crate::reason::{Code, Reason};
use crate::scalar::quoted;
use crate::scope::fold;
use crate::type_name::data_type;
use crate::types;

/// How certain a name is: PostgreSQL lets an outer node replace a weak one.
enum Name {
    Strong(String),
    Weak(String),
    None,
}

/// The name of an output column without alias.
pub(crate) fn figure_column_name(expr: &Expr) -> Result<String, Reason> {
    Ok(match figure(expr)? {
        Name::Strong(name) | Name::Weak(name) => name,
        Name::None => "?column?".to_owned(),
    })
}

fn figure(expr: &Expr) -> Result<Name, Reason> {
    Ok(match expr {
        Expr::Identifier(ident) => Name::Strong(fold(ident)?),
        Expr::CompoundIdentifier(parts) => match parts.last() {
            Some(last) => Name::Strong(fold(last)?),
            None => Name::None,
        },
        Expr::Nested(inner) => figure(inner)?,
        Expr::Function(function) => match function.name.0.last() {
            Some(ObjectNamePart::Identifier(ident)) => Name::Strong(fold(ident)?),
            Some(ObjectNamePart::Function(_)) | None => Name::None,
        },
        Expr::Extract { .. } => Name::Strong("extract".to_owned()),
        Expr::Ceil { .. } => Name::Strong("ceil".to_owned()),
        Expr::Floor { .. } => Name::Strong("floor".to_owned()),
        Expr::Substring { shorthand, .. } => {
            let name = if *shorthand { "substr" } else { "substring" };
            Name::Strong(name.to_owned())
        }
        Expr::Position { .. } => Name::Strong("position".to_owned()),
        Expr::Array(_) => Name::Strong("array".to_owned()),
        Expr::AtTimeZone { .. } => Name::Strong("timezone".to_owned()),
        Expr::Trim { .. } => Name::Strong("btrim".to_owned()),
        Expr::Cast {
            expr,
            data_type: ty,
            ..
        } => or_weak(figure(expr)?, internal_name(data_type(ty)?.oid)),
        Expr::TypedString(typed) => {
            Name::Weak(internal_name(data_type(&typed.data_type)?.oid).to_owned())
        }
        Expr::Interval(_) => Name::Weak("interval".to_owned()),
        Expr::Value(value) if matches!(value.value, Value::Boolean(_)) => {
            // PostgreSQL 14 and older call it "bool".
            Name::None
        }
        Expr::Case { else_result, .. } => {
            let inner = else_result
                .as_deref()
                .map(figure)
                .transpose()?
                .unwrap_or(Name::None);
            or_weak(inner, "case")
        }
        Expr::Exists { negated: false, .. } => Name::Strong("exists".to_owned()),
        Expr::Subquery(query) => first_column(&query.body)?,
        _ => Name::None,
    })
}

/// A sub-query gives the name of its only column.
fn first_column(body: &SetExpr) -> Result<Name, Reason> {
    let item = match body {
        SetExpr::Select(select) => select.projection.first(),
        SetExpr::SetOperation { left, .. } => return first_column(left),
        SetExpr::Query(query) => return first_column(&query.body),
        _ => None,
    };
    match item {
        Some(SelectItem::UnnamedExpr(expr)) => Ok(Name::Strong(figure_column_name(expr)?)),
        Some(SelectItem::ExprWithAlias { expr: _, alias }) => Ok(Name::Strong(fold(alias)?)),
        _ => Err(Reason::new(
            Code::SubQuery,
            format!("the name of {}", quoted(body)),
        )),
    }
}

fn or_weak(inner: Name, fallback: &str) -> Name {
    match inner {
        Name::Strong(name) => Name::Strong(name),
        Name::Weak(_) | Name::None => Name::Weak(fallback.to_owned()),
    }
}

/// The type's name in pg_type, which differs from its SQL spelling.
fn internal_name(oid: u32) -> &'static str {
    match oid {
        types::BOOL => "bool",
        types::INT2 => "int2",
        types::INT4 => "int4",
        types::INT8 => "int8",
        types::VARCHAR => "varchar",
        types::DATE => "date",
        types::TIMESTAMP => "timestamp",
        types::TIMESTAMPTZ => "timestamptz",
        types::NUMERIC => "numeric",
        types::FLOAT8 => "float8",
        _ => "text",
    }
}
