//! A SELECT reduced to the clauses that a block understands; every other clause refuses.

use sqlparser::ast::{
    Distinct, Expr, Fetch, GroupByExpr, LimitClause, Offset, OrderBy, OrderByExpr, OrderByKind,
    Query, Select, SelectFlavor, SelectItem, SetExpr, TableWithJoins, With,
};

use crate::reason::{Code, Reason};

/// The clauses of a plain SELECT, by reference into the parsed statement.
pub(crate) struct PlainSelect<'a> {
    pub(crate) with: Option<&'a With>,
    pub(crate) distinct: bool,
    pub(crate) projection: &'a [SelectItem],
    pub(crate) from: &'a [TableWithJoins],
    pub(crate) selection: Option<&'a Expr>,
    pub(crate) group_by: &'a [Expr],
    pub(crate) having: Option<&'a Expr>,
    pub(crate) order_by: &'a [OrderByExpr],
    pub(crate) limit: Option<&'a Expr>,
    pub(crate) offset: Option<&'a Expr>,
}

impl<'a> PlainSelect<'a> {
    /// The query's clauses, if it is a plain SELECT.
    pub(crate) fn of(query: &'a Query) -> Result<Self, Reason> {
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        if !locks.is_empty() {
            return Err(Reason::new(Code::Locking, ""));
        }
        let is_foreign_dialect = for_clause.is_some()
            || settings.is_some()
            || format_clause.is_some()
            || !pipe_operators.is_empty();
        if is_foreign_dialect {
            return Err(unsupported("a clause that PostgreSQL does not have"));
        }
        let select = match &**body {
            SetExpr::Select(select) => select,
            SetExpr::SetOperation { .. } | SetExpr::Values(_) => {
                return Err(Reason::new(Code::SetOperation, ""));
            }
            // Parentheses around the whole SELECT, possibly with clauses of their own.
            SetExpr::Query(_) => return Err(unsupported("a SELECT in parentheses")),
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                return Err(Reason::new(Code::NotASelect, "the statement writes"));
            }
            SetExpr::Table(_) => return Err(unsupported("TABLE")),
        };
        let (limit, offset) = limits(limit_clause.as_ref(), fetch.as_ref())?;
        let plain = PlainSelect {
            order_by: order_items(order_by.as_ref())?,
            limit,
            offset,
            ..Self::of_select(select)?
        };
        Ok(PlainSelect {
            with: with.as_ref(),
            ..plain
        })
    }

    fn of_select(select: &'a Select) -> Result<Self, Reason> {
        let Select {
            select_token: _,
            optimizer_hints: _, // A comment to PostgreSQL.
            distinct,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having,
            named_window,
            qualify,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        if into.is_some() {
            return Err(Reason::new(Code::NotASelect, "SELECT INTO writes"));
        }
        if !named_window.is_empty() {
            return Err(Reason::new(Code::WindowFunction, "WINDOW"));
        }
        let is_foreign_dialect = select_modifiers.is_some()
            || top.is_some()
            || exclude.is_some()
            || !lateral_views.is_empty()
            || prewhere.is_some()
            || !connect_by.is_empty()
            || !cluster_by.is_empty()
            || !distribute_by.is_empty()
            || !sort_by.is_empty()
            || qualify.is_some()
            || value_table_mode.is_some()
            || *flavor != SelectFlavor::Standard;
        if is_foreign_dialect {
            return Err(unsupported("a clause that PostgreSQL does not have"));
        }
        let distinct = match distinct {
            None | Some(Distinct::All) => false,
            Some(Distinct::Distinct) => true,
            Some(Distinct::On(_)) => return Err(unsupported("DISTINCT ON")),
        };
        let group_by = match group_by {
            GroupByExpr::Expressions(expressions, modifiers) if modifiers.is_empty() => expressions,
            GroupByExpr::Expressions(..) | GroupByExpr::All(_) => {
                return Err(Reason::new(Code::GroupingSets, ""));
            }
        };
        Ok(PlainSelect {
            with: None,
            distinct,
            projection,
            from,
            selection: selection.as_ref(),
            group_by,
            having: having.as_ref(),
            order_by: &[],
            limit: None,
            offset: None,
        })
    }
}

fn unsupported(what: &str) -> Reason {
    Reason::new(Code::UnsupportedClause, what)
}

fn order_items(order_by: Option<&OrderBy>) -> Result<&[OrderByExpr], Reason> {
    match order_by {
        None => Ok(&[]),
        Some(OrderBy {
            kind: OrderByKind::Expressions(items),
            interpolate: None,
        }) => Ok(items),
        Some(_) => Err(unsupported("ORDER BY ALL")),
    }
}

type Limits<'a> = (Option<&'a Expr>, Option<&'a Expr>);

fn limits<'a>(
    clause: Option<&'a LimitClause>,
    fetch: Option<&'a Fetch>,
) -> Result<Limits<'a>, Reason> {
    let (limit, offset) = match clause {
        None => (None, None),
        Some(LimitClause::LimitOffset {
            limit,
            offset,
            limit_by,
        }) if limit_by.is_empty() => (
            limit.as_ref(),
            offset.as_ref().map(|Offset { value, rows: _ }| value),
        ),
        Some(LimitClause::LimitOffset { .. } | LimitClause::OffsetCommaLimit { .. }) => {
            return Err(unsupported("a LIMIT that PostgreSQL does not have"));
        }
    };
    match (limit, fetch) {
        (_, None) => Ok((limit, offset)),
        (
            None,
            Some(Fetch {
                with_ties: false,
                percent: false,
                quantity: Some(quantity),
            }),
        ) => Ok((Some(quantity), offset)),
        (_, Some(_)) => Err(unsupported("this form of FETCH")),
    }
}
