//! Sub-selects, views and WITH items that become a part of the block around them, where that changes nothing.

use sqlparser::ast::{Expr, Query};

use crate::block::Attachment;
use crate::expr::{Literal, Scalar, TypeName};
use crate::from::{Columns, FromBuilder, without_parentheses};
use crate::normalize;
use crate::place::Place;
use crate::projection::projection;
use crate::reason::Reason;
use crate::scalar::{Aggregates, Resolver};
use crate::scope::{Scope, fold};
use crate::select::{Clauses, PlainSelect, Tail};
use crate::types;
use crate::window::columns_of_windows;

/// Which columns of a sub-select PostgreSQL computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Computed {
    /// Those that are asked for.
    AsAsked,
    /// Perhaps all: a WITH item may be computed before anybody reads it.
    AsAWhole,
}

/// How much had been collected at some time.
struct Mark {
    occurrences: usize,
    predicates: usize,
    mentioned: usize,
    views: usize,
    with: usize,
}

impl FromBuilder<'_> {
    /// Merges a sub-select that keeps every row of its FROM and WHERE, and returns its columns; `None`
    /// if it has to stay a query of its own.
    pub(crate) fn merge(
        &mut self,
        query: &Query,
        place: &Place<'_>,
        computed: Computed,
    ) -> Result<Option<Columns>, Reason> {
        let clauses = Clauses::of(query)?;
        let Some(select) = clauses.select() else {
            return Ok(None);
        };
        let select = PlainSelect::of(select)?;
        let keeps_every_row = select.distinct.is_none()
            && select.group_by.is_empty()
            && select.having.is_none()
            && clauses.tail.limit.is_none()
            && clauses.tail.offset.is_none();
        if !keeps_every_row || select.from.is_empty() {
            return Ok(None);
        }
        let mark = self.mark();
        let (place, items) = normalize::read_with(clauses.with, place)?;
        self.with.extend(items.with);
        let columns = self.merge_select(&select, clauses.tail, &place)?;
        place.every_item_is_used(items.from)?;
        let columns = columns.filter(|columns| {
            computed == Computed::AsAsked || !columns.iter().any(|(_, value)| self.may_raise(value))
        });
        if columns.is_none() {
            self.forget_since(&mark);
        }
        Ok(columns)
    }

    /// Merges a sub-select of some rows of one table on the nullable side of a join: its columns, and the conjuncts that
    /// become a part of the join's condition. A computed column would not be NULL where no row was found.
    pub(crate) fn merge_nullable(
        &mut self,
        query: &Query,
        place: &Place<'_>,
    ) -> Result<Option<(Columns, Vec<Scalar>)>, Reason> {
        let mark = self.mark();
        let Some(columns) = self.merge(query, place, Computed::AsAWhole)? else {
            return Ok(None);
        };
        let is_one_table = match self.occurrences.get(mark.occurrences..) {
            Some([only]) => only.attachment == Attachment::Inner && only.relation().is_some(),
            Some(_) | None => false,
        };
        let are_plain = columns
            .iter()
            .all(|(_, value)| matches!(value, Scalar::Column(_)));
        let own = self.predicates.get(mark.predicates..).unwrap_or_default();
        let are_conditions = !own.iter().any(Scalar::has_sub_query);
        if !(is_one_table && are_plain && are_conditions) {
            self.forget_since(&mark);
            return Ok(None);
        }
        Ok(Some((columns, self.predicates.split_off(mark.predicates))))
    }

    fn merge_select(
        &mut self,
        select: &PlainSelect<'_>,
        tail: Tail<'_>,
        place: &Place<'_>,
    ) -> Result<Option<Columns>, Reason> {
        let scope = self.read(select, place)?;
        let resolver = Resolver {
            windows: select.windows,
            ..Resolver::new(&scope, place, Aggregates::Allowed)
        };
        let columns = projection(select.projection, &resolver)?;
        // Nor may a query vanish with a column that nobody reads: the role needs privileges on its tables.
        let stays = |value: &Scalar| {
            let is_of_rows = value.has_aggregate() || value.has_window();
            is_of_rows || value.has_sub_query() || matches!(value, Scalar::Parameter(_))
        };
        if columns.iter().any(|(_, value)| stays(value)) {
            return Ok(None);
        }
        self.mentioned.extend(columns_of_windows(&resolver)?);
        let columns: Columns = columns
            .into_iter()
            .map(|(name, value)| (name, typed(value)))
            .collect();
        self.mentioned
            .extend(columns.iter().flat_map(|(_, value)| value.columns()));
        // A sort computes every column.
        let is_sorted_by_all = !tail.order_by.is_empty();
        if is_sorted_by_all && columns.iter().any(|(_, value)| self.may_raise(value)) {
            return Ok(None);
        }
        Ok(self
            .order_has_no_effect(tail, &scope, place)?
            .then_some(columns))
    }

    /// Without a limit the order of a sub-select's rows decides nothing that is supported, but
    /// sorting them must not do anything else either.
    fn order_has_no_effect(
        &mut self,
        tail: Tail<'_>,
        scope: &Scope,
        place: &Place<'_>,
    ) -> Result<bool, Reason> {
        let resolver = Resolver::new(scope, place, Aggregates::Refused);
        for item in tail.order_by {
            let is_output = match without_parentheses(&item.expr) {
                Expr::Value(_) => true,
                // Perhaps an output's name: an output is computed anyway, or not at all.
                Expr::Identifier(ident) => scope.unqualified(&fold(ident)?)?.is_none(),
                _ => false,
            };
            if is_output {
                continue;
            }
            let value = resolver.scalar(&item.expr)?;
            if self.may_raise(&value) || value.has_sub_query() {
                return Ok(false);
            }
            self.mentioned.extend(value.columns());
        }
        Ok(true)
    }

    fn mark(&self) -> Mark {
        Mark {
            occurrences: self.occurrences.len(),
            predicates: self.predicates.len(),
            mentioned: self.mentioned.len(),
            views: self.views.len(),
            with: self.with.len(),
        }
    }

    fn forget_since(&mut self, mark: &Mark) {
        self.occurrences.truncate(mark.occurrences);
        self.predicates.truncate(mark.predicates);
        self.mentioned.truncate(mark.mentioned);
        self.views.truncate(mark.views);
        self.with.truncate(mark.with);
    }
}

/// An output of a sub-select. PostgreSQL makes a text of a constant without type here, before the
/// outer query can give it another one.
fn typed(value: Scalar) -> Scalar {
    match value {
        Scalar::Literal(Literal::String(_) | Literal::Null) => {
            value.cast(TypeName::plain("text", types::TEXT))
        }
        other => other,
    }
}
