//! A statement with its ORDER BY made visible: each item is one more column of the answer.

use sqlparser::ast::{
    Expr, GroupByExpr, Ident, OrderByKind, SelectItem, SetExpr, Statement, Value,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// What of an ORDER BY can be checked.
pub struct Visible {
    /// The statement, with `keys` more columns at the end.
    pub sql: String,
    /// How many columns came before them.
    pub columns: usize,
    /// Whether a limit chooses among the rows.
    pub has_limit: bool,
}

/// Whether the statement has a LIMIT, OFFSET or FETCH.
pub fn has_limit(sql: &str) -> bool {
    match Parser::parse_sql(&PostgreSqlDialect {}, sql)
        .unwrap()
        .remove(0)
    {
        Statement::Query(query) => query.limit_clause.is_some() || query.fetch.is_some(),
        _ => false,
    }
}

/// The statement with its order made visible; `None` when it has none, or stars hide the columns' number.
pub fn visible(sql: &str) -> Option<Visible> {
    let mut statement = Parser::parse_sql(&PostgreSqlDialect {}, sql)
        .unwrap()
        .remove(0);
    let Statement::Query(query) = &mut statement else {
        return None;
    };
    let items = match &query.order_by.as_ref()?.kind {
        OrderByKind::Expressions(items) => items.clone(),
        OrderByKind::All(_) => return None,
    };
    let has_limit = query.limit_clause.is_some() || query.fetch.is_some();
    let SetExpr::Select(select) = &mut *query.body else {
        return None;
    };
    let columns = select.projection.len();
    let is_star = |item: &SelectItem| {
        matches!(
            item,
            SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)
        )
    };
    if select.projection.iter().any(is_star) {
        return None;
    }
    for (position, item) in items.iter().enumerate() {
        let expr = output(&item.expr, &select.projection).unwrap_or_else(|| item.expr.clone());
        select.projection.push(SelectItem::ExprWithAlias {
            expr,
            alias: Ident::new(format!("order_{position}")),
        });
    }
    // More columns do not change what GROUP BY's positions and names mean.
    debug_assert!(matches!(select.group_by, GroupByExpr::Expressions(..)));
    Some(Visible {
        sql: statement.to_string(),
        columns,
        has_limit,
    })
}

/// The output that a position or name means.
fn output(item: &Expr, projection: &[SelectItem]) -> Option<Expr> {
    let expression = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => {
            Some(expr.clone())
        }
        _ => None,
    };
    match item {
        Expr::Nested(inner) => output(inner, projection),
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => {
                let position: usize = digits.parse().ok()?;
                expression(projection.get(position.checked_sub(1)?)?)
            }
            _ => None,
        },
        Expr::Identifier(name) => {
            let same = |alias: &Ident| match (alias.quote_style, name.quote_style) {
                (None, None) => alias.value.eq_ignore_ascii_case(&name.value),
                _ => alias.value == name.value,
            };
            projection.iter().find_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if same(alias) => Some(expr.clone()),
                _ => None,
            })
        }
        _ => None,
    }
}
