//! Queries inside expressions. What one reads of the queries around it is kept beside it, so that it is
//! derived like any other expression there.

use sqlparser::ast::{Expr, Query};

use crate::block::{Block, Distinct};
use crate::catalog::Catalog;
use crate::expr::{Literal, Scalar, SubQuery, SubQueryKind};
use crate::normalize;
use crate::query::{self, Body, ColumnFacts};
use crate::reason::{Code, Reason};
use crate::scalar::{Aggregates, Resolved, Resolver, quoted};
use crate::volatility::may_raise;

impl Resolver<'_> {
    /// `[NOT] EXISTS (…)`.
    pub(crate) fn exists(&self, query: &Query, negated: bool) -> Resolved {
        let (query, _, outer) = self.resolved(query)?;
        let raises = computation_may_raise(&query, self.place.names.catalog);
        let exists = Scalar::SubQuery(Box::new(SubQuery {
            kind: SubQueryKind::Exists,
            query,
            outer,
            ty: None,
            raises,
        }));
        Ok(if negated {
            Scalar::Not(Box::new(exists))
        } else {
            exists
        })
    }

    /// `operand [NOT] IN (…)`.
    pub(crate) fn in_query(&self, operand: &Expr, query: &Query, negated: bool) -> Resolved {
        self.operators(&["=", "<>"])?;
        let operand = match operand {
            Expr::Tuple(_) => return Err(Reason::new(Code::SubQuery, quoted(operand))),
            operand => self.operand(operand)?,
        };
        let text = query;
        let (query, columns, outer) = self.resolved(query)?;
        let column = only(columns, text)?;
        let raises = computation_may_raise(&query, self.place.names.catalog);
        Ok(Scalar::SubQuery(Box::new(SubQuery {
            kind: SubQueryKind::In { operand, negated },
            query,
            outer,
            ty: column.ty,
            raises,
        })))
    }

    /// The value of a query of one row.
    pub(crate) fn value_of(&self, query: &Query) -> Resolved {
        let text = query;
        let (query, columns, outer) = self.resolved(query)?;
        let column = only(columns, text)?;
        let catalog = self.place.names.catalog;
        let raises = !has_one_row_at_most(&query) || computation_may_raise(&query, catalog);
        Ok(Scalar::SubQuery(Box::new(SubQuery {
            kind: SubQueryKind::Value,
            query,
            outer,
            // Its text collation is not followed.
            ty: column.into_column().ty,
            raises,
        })))
    }

    /// The query, its columns, and what it reads of the query around it.
    fn resolved(
        &self,
        query: &Query,
    ) -> Result<(query::Query, Vec<ColumnFacts>, Vec<Scalar>), Reason> {
        let (place, around) = self.place.in_sub_query(self.scope);
        let query = normalize::query(query, &place)?;
        let columns = query.columns(self.place.names.catalog);
        Ok((query, columns, around.captured()))
    }

    /// The same resolver for what stands inside a call that takes rows together.
    pub(crate) fn inside(&self, aggregates: Aggregates) -> Self {
        Resolver {
            aggregates,
            windows: &[],
            ..*self
        }
    }
}

fn only(mut columns: Vec<ColumnFacts>, query: &Query) -> Result<ColumnFacts, Reason> {
    match (columns.pop(), columns.pop()) {
        (Some(only), None) => Ok(only),
        _ => Err(Reason::new(Code::SubQuery, quoted(query))),
    }
}

/// Whether computing the query's rows may raise an error.
fn computation_may_raise(query: &query::Query, catalog: &Catalog) -> bool {
    let raises = |block: &Block| {
        let tables = block.tables(catalog);
        let mut scalars = block.scalars().chain(block.left_conditions());
        scalars.any(|scalar| may_raise(scalar, &tables))
    };
    query.blocks().into_iter().any(raises)
}

/// Whether the query is a grand total, or says LIMIT 1.
fn has_one_row_at_most(query: &query::Query) -> bool {
    let Body::Block(block) = &query.body else {
        return false;
    };
    let is_total = block.is_aggregated && block.group_by.is_empty() && {
        let sets = block.grouping_sets.as_ref();
        sets.is_none_or(|sets| sets.len() == 1)
    };
    let is_first = !block.limit.with_ties
        && block.limit.count == Some(Scalar::Literal(Literal::Number("1".to_owned())));
    is_first || (is_total && !matches!(block.distinct, Distinct::On(_)))
}
