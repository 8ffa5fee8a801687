//! A SELECT reduced to the clauses that a block understands; every other clause refuses.

use sqlparser::ast::{
    Distinct, Expr, Fetch, GroupByExpr, LimitClause, NamedWindowDefinition, Offset, OrderBy,
    OrderByExpr, OrderByKind, Query, Select, SelectFlavor, SelectItem, SetExpr, TableWithJoins,
    With,
};

use crate::reason::{Code, Reason};

/// A query taken apart; every clause that is not analysed refuses.
pub(crate) struct Clauses<'a> {
    pub(crate) with: Option<&'a With>,
    pub(crate) body: &'a SetExpr,
    pub(crate) tail: Tail<'a>,
}

/// ORDER BY, LIMIT and OFFSET.
#[derive(Clone, Copy)]
pub(crate) struct Tail<'a> {
    pub(crate) order_by: &'a [OrderByExpr],
    pub(crate) limit: Option<&'a Expr>,
    pub(crate) with_ties: bool,
    pub(crate) offset: Option<&'a Expr>,
}

impl Tail<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.order_by.is_empty() && self.limit.is_none() && self.offset.is_none()
    }
}

/// The clauses of a plain SELECT, by reference into the parsed statement.
pub(crate) struct PlainSelect<'a> {
    pub(crate) distinct: Option<&'a Distinct>,
    pub(crate) projection: &'a [SelectItem],
    pub(crate) from: &'a [TableWithJoins],
    pub(crate) selection: Option<&'a Expr>,
    pub(crate) group_by: &'a [Expr],
    pub(crate) having: Option<&'a Expr>,
    pub(crate) windows: &'a [NamedWindowDefinition],
}

impl<'a> Clauses<'a> {
    /// The query's clauses.
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
        let limits = limits(limit_clause.as_ref(), fetch.as_ref())?;
        Ok(Clauses {
            with: with.as_ref(),
            body,
            tail: Tail {
                order_by: order_items(order_by.as_ref())?,
                ..limits
            },
        })
    }

    /// The SELECT, if the body is one.
    pub(crate) fn select(&self) -> Option<&'a Select> {
        match self.body {
            SetExpr::Select(select) => Some(select),
            _ => None,
        }
    }
}

impl<'a> PlainSelect<'a> {
    /// The SELECT's clauses.
    pub(crate) fn of(select: &'a Select) -> Result<Self, Reason> {
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
        let group_by = match group_by {
            GroupByExpr::Expressions(expressions, modifiers) if modifiers.is_empty() => expressions,
            GroupByExpr::Expressions(..) | GroupByExpr::All(_) => {
                return Err(Reason::new(
                    Code::GroupingSets,
                    "a form that PostgreSQL does not have",
                ));
            }
        };
        Ok(PlainSelect {
            distinct: distinct.as_ref(),
            projection,
            from,
            selection: selection.as_ref(),
            group_by,
            having: having.as_ref(),
            windows: named_window,
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

fn limits<'a>(
    clause: Option<&'a LimitClause>,
    fetch: Option<&'a Fetch>,
) -> Result<Tail<'a>, Reason> {
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
    let (limit, with_ties) = match (limit, fetch) {
        (_, None) => (limit, false),
        (
            None,
            Some(Fetch {
                with_ties,
                percent: false,
                quantity: Some(quantity),
            }),
        ) => (Some(quantity), *with_ties),
        (_, Some(_)) => return Err(unsupported("this form of FETCH")),
    };
    Ok(Tail {
        order_by: &[],
        limit,
        with_ties,
        offset,
    })
}
