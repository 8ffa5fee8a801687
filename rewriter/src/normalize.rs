//! From a parsed query to a [`Query`]: every name resolved, every clause looked at.

use sqlparser::ast::{
    self, Cte, CteAsMaterialized, Expr, OrderByExpr, OrderByOptions, OrderBySort, SetExpr,
    SetQuantifier, Values, With,
};

use crate::block::{Block, Distinct, Limit, OrderItem, Output};
use crate::expr::{Aggregate, AggregateFunction, BinaryOp, Literal, Parameter, Scalar};
use crate::from::{FromBuilder, position, without_parentheses};
use crate::grouping::{Grouping, grouping};
use crate::merge::Computed;
use crate::outer::with_total_joins_inner;
use crate::place::{Alias, Meaning, Names, Place};
use crate::projection::projection;
use crate::query::{Body, ColumnFacts, CommonTable, Query, SetOperation, SetOperator};
use crate::reason::{Code, Reason};
use crate::rowcount::with_counted_list;
use crate::scalar::{Aggregates, Resolver, quoted};
use crate::scope::{Scope, fold};
use crate::select::{Clauses, PlainSelect, Tail};
use crate::window::columns_of_windows;

/// What the statement means, or why that is not known.
pub(crate) fn normalize(query: &ast::Query, names: Names<'_>) -> Result<Query, Reason> {
    self::query(query, &Place::new(names))
}

/// A query at one place of a statement.
pub(crate) fn query(query: &ast::Query, place: &Place<'_>) -> Result<Query, Reason> {
    let clauses = Clauses::of(query)?;
    let (place, items) = read_with(clauses.with, place)?;
    let mut with = items.with;
    let body = match clauses.body {
        SetExpr::Select(select) => {
            let select = PlainSelect::of(select)?;
            let (block, of_merged) = block(&select, clauses.tail, &place)?;
            with.extend(of_merged);
            Body::Block(Box::new(block))
        }
        SetExpr::SetOperation {
            left,
            op,
            set_quantifier,
            right,
        } => Body::SetOperation(Box::new(set_operation(
            (left, right),
            *op,
            *set_quantifier,
            clauses.tail,
            &place,
        )?)),
        SetExpr::Values(values) if clauses.tail.is_empty() => {
            Body::Values(values_rows(values, &place)?)
        }
        SetExpr::Query(inner) if clauses.tail.is_empty() => {
            let inner = self::query(inner, &place)?;
            with.extend(inner.with);
            inner.body
        }
        other => return Err(refused_body(other)),
    };
    place.every_item_is_used(items.from)?;
    Ok(Query { with, body })
}

fn refused_body(body: &SetExpr) -> Reason {
    match body {
        SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
            Reason::new(Code::NotASelect, "the statement writes")
        }
        SetExpr::Table(_) => Reason::new(Code::UnsupportedClause, "TABLE"),
        // Which clauses go with the parentheses and which with what is around them.
        SetExpr::Query(_) | SetExpr::Values(_) => Reason::new(
            Code::UnsupportedClause,
            format!("ORDER BY or LIMIT behind {}", quoted(body)),
        ),
        SetExpr::Select(_) | SetExpr::SetOperation { .. } => {
            Reason::new(Code::UnsupportedClause, quoted(body))
        }
    }
}

/// The WITH items that one WITH adds.
pub(crate) struct NewItems {
    /// Those that stay items.
    pub(crate) with: Vec<CommonTable>,
    /// How many items there were before.
    pub(crate) from: usize,
}

/// The place behind a WITH.
pub(crate) fn read_with<'a>(
    with: Option<&'a With>,
    place: &Place<'a>,
) -> Result<(Place<'a>, NewItems), Reason> {
    let mut place = place.clone();
    let mut items = NewItems {
        with: vec![],
        from: place.visible(),
    };
    let Some(With {
        with_token: _,
        recursive,
        cte_tables,
    }) = with
    else {
        return Ok((place, items));
    };
    if *recursive {
        return Err(Reason::new(Code::UnsupportedClause, "WITH RECURSIVE"));
    }
    for cte in cte_tables {
        let Cte {
            alias,
            query,
            from: None,
            materialized,
            closing_paren_token: _,
        } = cte
        else {
            return Err(Reason::new(Code::UnsupportedClause, "this form of WITH"));
        };
        let alias = Alias::of(alias)?;
        let visible = place.visible();
        let own_place = place.of_item(visible);
        let mut trial = FromBuilder::new(place.names.catalog);
        if trial
            .merge(query, &own_place, Computed::AsAWhole)?
            .is_some()
        {
            place.add(alias, Meaning::Merged { query, visible });
            continue;
        }
        let query = self::query(query, &own_place)?;
        let columns = query.columns(place.names.catalog).into_iter();
        let columns = columns.map(ColumnFacts::into_column).collect();
        let name = place.free_name(&alias.name);
        items.with.push(CommonTable {
            name: name.clone(),
            materialized: materialized
                .as_ref()
                .map(|how| *how == CteAsMaterialized::Materialized),
            query,
        });
        place.add(alias, Meaning::Kept { name, columns });
    }
    Ok((place, items))
}

fn set_operation(
    (left, right): (&SetExpr, &SetExpr),
    op: ast::SetOperator,
    quantifier: SetQuantifier,
    tail: Tail<'_>,
    place: &Place<'_>,
) -> Result<SetOperation, Reason> {
    let operator = match op {
        ast::SetOperator::Union => SetOperator::Union,
        ast::SetOperator::Intersect => SetOperator::Intersect,
        ast::SetOperator::Except => SetOperator::Except,
        ast::SetOperator::Minus => return Err(Reason::new(Code::SetOperation, "MINUS")),
    };
    let all = match quantifier {
        SetQuantifier::All => true,
        SetQuantifier::None | SetQuantifier::Distinct => false,
        SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName => {
            return Err(Reason::new(Code::SetOperation, "BY NAME"));
        }
    };
    let (left, right) = (arm(left, place)?, arm(right, place)?);
    let columns = left.columns(place.names.catalog);
    let order_by = tail.order_by.iter();
    Ok(SetOperation {
        operator,
        all,
        left,
        right,
        order_by: order_by
            .map(|item| order_item(item, &|expr| output_position(expr, &columns)))
            .collect::<Result<_, _>>()?,
        limit: limit(tail)?,
    })
}

/// A side of a set operation.
fn arm(side: &SetExpr, place: &Place<'_>) -> Result<Query, Reason> {
    let bare = Tail {
        order_by: &[],
        limit: None,
        with_ties: false,
        offset: None,
    };
    match side {
        SetExpr::Select(select) => {
            let (block, with) = block(&PlainSelect::of(select)?, bare, place)?;
            Ok(Query {
                with,
                body: Body::Block(Box::new(block)),
            })
        }
        SetExpr::SetOperation {
            left,
            op,
            set_quantifier,
            right,
        } => Ok(Query {
            with: vec![],
            body: Body::SetOperation(Box::new(set_operation(
                (left, right),
                *op,
                *set_quantifier,
                bare,
                place,
            )?)),
        }),
        SetExpr::Values(values) => Ok(Query {
            with: vec![],
            body: Body::Values(values_rows(values, place)?),
        }),
        SetExpr::Query(inner) => query(inner, place),
        other => Err(refused_body(other)),
    }
}

/// ORDER BY behind a set operation: an output's position or name.
fn output_position(expr: &Expr, columns: &[ColumnFacts]) -> Result<Scalar, Reason> {
    let number = |position: usize| Scalar::Literal(Literal::Number(position.to_string()));
    if let Some(position) = position(expr) {
        return Ok(number(position));
    }
    let unknown = || Reason::new(Code::UnknownColumn, quoted(expr));
    let Expr::Identifier(ident) = without_parentheses(expr) else {
        return Err(unknown());
    };
    let name = fold(ident)?;
    let mut named = (1..).zip(columns).filter(|(_, facts)| facts.name == name);
    match (named.next(), named.next()) {
        (Some((position, _)), None) => Ok(number(position)),
        _ => Err(unknown()),
    }
}

fn values_rows(values: &Values, place: &Place<'_>) -> Result<Vec<Vec<Scalar>>, Reason> {
    let Values {
        explicit_row: false,
        value_keyword: false,
        rows,
    } = values
    else {
        return Err(Reason::new(Code::SetOperation, quoted(values)));
    };
    let scope = Scope::default();
    let resolver = Resolver::new(&scope, place, Aggregates::Refused);
    let row = |row: &ast::Parens<Vec<Expr>>| {
        let values = row.content.iter().map(|value| resolver.scalar(value));
        values.collect::<Result<Vec<_>, _>>()
    };
    let rows = rows.iter().map(row).collect::<Result<Vec<_>, _>>()?;
    if rows.iter().flatten().any(|value| !value.is_constant()) {
        return Err(Reason::new(Code::SetOperation, quoted(values)));
    }
    Ok(rows)
}

/// A SELECT, and the WITH items of sub-selects that were merged into it.
fn block(
    select: &PlainSelect<'_>,
    tail: Tail<'_>,
    place: &Place<'_>,
) -> Result<(Block, Vec<CommonTable>), Reason> {
    let mut from = FromBuilder::new(place.names.catalog);
    let scope = from.read(select, place)?;
    let reader = Reader {
        select,
        scope: &scope,
        place,
    };
    let outputs = reader.outputs()?;
    let Grouping {
        keys: group_by,
        sets: grouping_sets,
    } = reader.group_by(&outputs)?;
    let mut having = reader.having()?;
    // By constants alone there is one group, and none of no rows.
    if group_by.is_empty() && grouping_sets.is_none() && !select.group_by.is_empty() {
        having.push(has_rows());
    }
    let order_by = reader.order_by(tail, &outputs)?;
    let distinct = reader.distinct(&outputs)?;
    let windows = columns_of_windows(&reader.resolver(Aggregates::Allowed))?;
    from.mentioned.extend(windows);
    let has_aggregate = outputs
        .iter()
        .map(|output| &output.value)
        .chain(order_by.iter().map(|item| &item.value))
        .chain(distinct.on())
        .any(Scalar::has_aggregate);
    let is_aggregated = !select.group_by.is_empty() || select.having.is_some() || has_aggregate;
    let FromBuilder {
        occurrences,
        predicates,
        mentioned,
        views,
        with,
        ..
    } = from;
    let block = Block {
        occurrences,
        predicates,
        group_by,
        grouping_sets,
        is_aggregated,
        having,
        outputs,
        distinct,
        order_by,
        limit: limit(tail)?,
        mentioned,
        views,
    };
    let block = with_counted_list(block, place.names.catalog);
    let block = with_total_joins_inner(block, place.names.catalog);
    Ok((distinct_as_groups(block), with))
}

/// `count(*) > 0`.
pub(crate) fn has_rows() -> Scalar {
    let rows = Aggregate::plain(AggregateFunction::Count, None);
    Scalar::binary(
        BinaryOp::Greater,
        Scalar::Aggregate(Box::new(rows)),
        Scalar::Literal(Literal::Number("0".to_owned())),
    )
}

/// Keys that tell groups apart: a constant is the same in all of them.
fn without_constants(keys: Vec<Scalar>) -> Vec<Scalar> {
    let keys = keys.into_iter();
    keys.filter(|key| !key.is_constant()).collect()
}

/// `SELECT DISTINCT a, b` is `SELECT a, b GROUP BY a, b`, and `SELECT DISTINCT ON (a) a, b … ORDER BY a, b` keeps
/// the first of such groups: of rows that are alike it does not matter which one.
fn distinct_as_groups(block: Block) -> Block {
    let is_list = !block.is_aggregated
        && !block.occurrences.is_empty()
        && !block.scalars().any(Scalar::has_window);
    let outputs = block.outputs.iter().map(|output| &output.value);
    let ordered: Vec<&Scalar> = block.order_by.iter().map(|item| &item.value).collect();
    let (kinds, distinct): (Vec<&Scalar>, _) = match &block.distinct {
        Distinct::Yes => (outputs.collect(), Distinct::No),
        Distinct::On(keys) => {
            let deciding: Vec<&Scalar> = keys.iter().chain(ordered).collect();
            // Otherwise any of several rows may be the first.
            let mut outputs = outputs.filter(|value| !value.is_constant());
            if !outputs.all(|value| deciding.contains(&value)) {
                return block;
            }
            (deciding, block.distinct.clone())
        }
        Distinct::No => return block,
    };
    let mut group_by: Vec<Scalar> = vec![];
    for kind in kinds.into_iter().filter(|kind| !kind.is_constant()) {
        if !group_by.contains(kind) {
            group_by.push(kind.clone());
        }
    }
    if !is_list || group_by.is_empty() {
        return block;
    }
    Block {
        group_by,
        is_aggregated: true,
        distinct,
        ..block
    }
}

/// Reads the clauses behind FROM and WHERE.
struct Reader<'a, 'q> {
    select: &'a PlainSelect<'q>,
    scope: &'a Scope,
    place: &'a Place<'q>,
}

impl<'a> Reader<'a, '_> {
    fn resolver(&self, aggregates: Aggregates) -> Resolver<'a> {
        Resolver {
            windows: match aggregates {
                Aggregates::Allowed => self.select.windows,
                Aggregates::Refused => &[],
            },
            ..Resolver::new(self.scope, self.place, aggregates)
        }
    }

    fn outputs(&self) -> Result<Vec<Output>, Reason> {
        let columns = projection(self.select.projection, &self.resolver(Aggregates::Allowed))?;
        Ok(columns
            .into_iter()
            .map(|(name, value)| Output { name, value })
            .collect())
    }

    fn distinct(&self, outputs: &[Output]) -> Result<Distinct, Reason> {
        Ok(match self.select.distinct {
            None | Some(ast::Distinct::All) => Distinct::No,
            Some(ast::Distinct::Distinct) => Distinct::Yes,
            Some(ast::Distinct::On(keys)) => {
                let keys = keys.iter().map(|key| self.order_value(key, outputs));
                Distinct::On(keys.collect::<Result<_, _>>()?)
            }
        })
    }

    fn group_by(&self, outputs: &[Output]) -> Result<Grouping, Reason> {
        let grouping = grouping(self.select.group_by, &|expr| self.group_key(expr, outputs))?;
        let is_of_rows = |key: &Scalar| key.has_aggregate() || key.has_window();
        if grouping.keys.iter().any(is_of_rows) {
            return Err(Reason::new(
                Code::UnsupportedExpression,
                "an aggregate in GROUP BY",
            ));
        }
        match grouping.sets {
            None => Ok(Grouping {
                keys: without_constants(grouping.keys),
                sets: None,
            }),
            Some(_) => Ok(grouping),
        }
    }

    /// An item of GROUP BY: a position, else an input column, else an output's name, else an expression.
    fn group_key(&self, expr: &Expr, outputs: &[Output]) -> Result<Scalar, Reason> {
        if let Some(position) = position(expr) {
            return output_at(outputs, position);
        }
        let expr = without_parentheses(expr);
        // A number would be a position, and PostgreSQL refuses other constants that stand alone.
        if let Expr::Value(_) = expr {
            let detail = "a constant in GROUP BY";
            return Err(Reason::new(Code::UnsupportedExpression, detail));
        }
        if let Expr::Identifier(ident) = expr {
            let name = fold(ident)?;
            if self.scope.unqualified(&name)?.is_none() {
                return output_named(outputs, &name)?
                    .ok_or_else(|| Reason::new(Code::UnknownColumn, format!("\"{name}\"")));
            }
        }
        self.resolver(Aggregates::Refused).scalar(expr)
    }

    fn having(&self) -> Result<Vec<Scalar>, Reason> {
        let Some(having) = self.select.having else {
            return Ok(vec![]);
        };
        let condition = self.resolver(Aggregates::Allowed).scalar(having)?;
        if condition.has_window() {
            return Err(Reason::new(Code::WindowFunction, quoted(having)));
        }
        Ok(condition.into_conjuncts())
    }

    fn order_by(&self, tail: Tail<'_>, outputs: &[Output]) -> Result<Vec<OrderItem>, Reason> {
        tail.order_by
            .iter()
            .map(|item| order_item(item, &|expr| self.order_value(expr, outputs)))
            // A constant orders nothing, and printed again it would be read as a position.
            .filter(|item| !item.as_ref().is_ok_and(|item| item.value.is_constant()))
            .collect()
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
        let value = self.resolver(Aggregates::Allowed).scalar(expr)?;
        if value.is_constant() {
            let detail = format!("ORDER BY {}", quoted(expr));
            return Err(Reason::new(Code::UnsupportedClause, detail));
        }
        Ok(value)
    }
}

/// An item of ORDER BY whose value `value` knows.
pub(crate) fn order_item(
    item: &OrderByExpr,
    value: &dyn Fn(&Expr) -> Result<Scalar, Reason>,
) -> Result<OrderItem, Reason> {
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
        value: value(expr)?,
        descending,
        nulls_first: *nulls_first,
    })
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

fn limit(tail: Tail<'_>) -> Result<Limit, Reason> {
    Ok(Limit {
        count: tail.limit.map(count).transpose()?,
        with_ties: tail.with_ties,
        offset: tail.offset.map(count).transpose()?,
    })
}

/// The argument of LIMIT or OFFSET: a constant or a parameter.
fn count(expr: &Expr) -> Result<Scalar, Reason> {
    let refusal = || {
        Reason::new(
            Code::UnsupportedExpression,
            format!("LIMIT or OFFSET {}", quoted(expr)),
        )
    };
    let Expr::Value(value) = without_parentheses(expr) else {
        return Err(refusal());
    };
    match &value.value {
        ast::Value::Number(digits, false) if digits.chars().all(|c| c.is_ascii_digit()) => {
            Ok(Scalar::Literal(Literal::Number(digits.clone())))
        }
        ast::Value::Null => Ok(Scalar::Literal(Literal::Null)),
        ast::Value::Placeholder(name) => Parameter::numbered(name)
            .map(|number| Scalar::Parameter(Parameter { number, time: None }))
            .ok_or_else(refusal),
        _ => Err(refusal()),
    }
}
