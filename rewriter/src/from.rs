//! FROM and WHERE: tables become occurrences, joins become predicates, sub-selects are merged where
//! that changes nothing and kept where it would.

use std::sync::Arc;

use sqlparser::ast::{
    Expr, Join, JoinConstraint, JoinOperator, ObjectName, Query, TableAlias, TableFactor,
    TableWithJoins,
};

use crate::block::{Attachment, Occurrence, Source, Tables};
use crate::catalog::{AttNum, Catalog, Oid, Relation, RelationKind};
use crate::disjunction::conjuncts;
use crate::expr::{BinaryOp, ColumnRef, ColumnTypes, OccurrenceId, Scalar};
use crate::merge::Computed;
use crate::normalize;
use crate::place::{Alias, Meaning, Place, is_base_table, is_only, single_name};
use crate::query::{ColumnFacts, CommonTable, Rows, SubSelect};
use crate::reason::{Code, Reason};
use crate::scalar::{Aggregates, Resolver, quoted};
use crate::scope::{Entry, Scope};
use crate::select::PlainSelect;
use crate::volatility::may_raise;

pub(crate) type Columns = Vec<(String, Scalar)>;

/// Collects what FROM and WHERE say while scopes are built.
pub(crate) struct FromBuilder<'c> {
    catalog: &'c Catalog,
    pub(crate) occurrences: Vec<Occurrence>,
    pub(crate) predicates: Vec<Scalar>,
    /// Columns that sub-selects select, whether anything comes of them or not.
    pub(crate) mentioned: Vec<ColumnRef>,
    /// Views that are expanded in this block.
    pub(crate) views: Vec<Oid>,
    /// WITH items of merged sub-selects.
    pub(crate) with: Vec<CommonTable>,
}

impl<'c> FromBuilder<'c> {
    pub(crate) fn new(catalog: &'c Catalog) -> Self {
        FromBuilder {
            catalog,
            occurrences: vec![],
            predicates: vec![],
            mentioned: vec![],
            views: vec![],
            with: vec![],
        }
    }

    /// Takes in FROM and WHERE, and returns what the other clauses may name.
    pub(crate) fn read(
        &mut self,
        select: &PlainSelect<'_>,
        place: &Place<'_>,
    ) -> Result<Scope, Reason> {
        let mut scope = Scope::default();
        for item in select.from {
            scope.absorb(self.table_with_joins(item, place)?)?;
        }
        if let Some(selection) = select.selection {
            let condition = condition(selection, &scope, place)?;
            self.predicates.extend(condition);
        }
        Ok(scope)
    }

    fn table_with_joins(
        &mut self,
        item: &TableWithJoins,
        place: &Place<'_>,
    ) -> Result<Scope, Reason> {
        let TableWithJoins { relation, joins } = item;
        let (mut scope, joins) = match joins.split_first() {
            Some((
                Join {
                    relation: right,
                    global: _,
                    join_operator:
                        JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint),
                },
                others,
            )) => (self.right_join(relation, right, constraint, place)?, others),
            _ => (self.factor(relation, place)?, joins.as_slice()),
        };
        for Join {
            relation,
            global: _,
            join_operator,
        } in joins
        {
            match join_operator {
                JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => {
                    let right = self.factor(relation, place)?;
                    let condition = join_condition(&mut scope, right, constraint, place, self)?;
                    self.predicates.extend(condition);
                }
                JoinOperator::CrossJoin(JoinConstraint::None) => {
                    scope.absorb(self.factor(relation, place)?)?;
                }
                JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                    self.left_join(&mut scope, relation, constraint, place)?;
                }
                _ => return Err(Reason::new(Code::UnsupportedJoin, quoted(relation))),
            }
        }
        Ok(scope)
    }

    /// `left RIGHT JOIN right` is `right LEFT JOIN left`, but for the order of columns.
    fn right_join(
        &mut self,
        left: &TableFactor,
        right: &TableFactor,
        constraint: &JoinConstraint,
        place: &Place<'_>,
    ) -> Result<Scope, Reason> {
        // USING would show the right side's columns under the common names.
        let JoinConstraint::On(_) = constraint else {
            let detail = format!("RIGHT JOIN {} without ON", quoted(right));
            return Err(Reason::new(Code::UnsupportedJoin, detail));
        };
        let right = self.factor(right, place)?;
        let occurrence = self.occurrences.len();
        let (left, own) = self.nullable_factor(left, place)?;
        let mut scope = Scope::of(left);
        let mut condition = join_condition(&mut scope, right, constraint, place, self)?;
        condition.extend(own);
        if let Some(added) = self.occurrences.get_mut(occurrence) {
            added.attachment = Attachment::Left(condition);
        }
        Ok(scope)
    }

    /// A left join to one table or sub-select. Its condition stays with the occurrence: it decides
    /// which columns are NULL, not which rows there are.
    fn left_join(
        &mut self,
        scope: &mut Scope,
        relation: &TableFactor,
        constraint: &JoinConstraint,
        place: &Place<'_>,
    ) -> Result<(), Reason> {
        let occurrence = self.occurrences.len();
        let (right, own) = self.nullable_factor(relation, place)?;
        let mut condition = join_condition(scope, Scope::of(right), constraint, place, self)?;
        condition.extend(own);
        if let Some(added) = self.occurrences.get_mut(occurrence) {
            added.attachment = Attachment::Left(condition);
        }
        Ok(())
    }

    /// One occurrence on the nullable side of a join, and what its rows have to satisfy beside the join's condition.
    fn nullable_factor(
        &mut self,
        factor: &TableFactor,
        place: &Place<'_>,
    ) -> Result<(Entry, Vec<Scalar>), Reason> {
        if let TableFactor::Derived {
            lateral: false,
            subquery,
            alias: Some(alias),
            sample: None,
        } = factor
            && let Some((columns, own)) = self.merge_nullable(subquery, place)?
        {
            let alias = Alias::of(alias)?;
            return Ok((renamed(of_columns(columns, &alias), &[&alias])?, own));
        }
        Ok((self.whole_factor(factor, place)?, vec![]))
    }

    /// One occurrence, whatever it is.
    fn whole_factor(&mut self, factor: &TableFactor, place: &Place<'_>) -> Result<Entry, Reason> {
        match factor {
            TableFactor::Table { name, alias, .. } => {
                let Some(item) = place.item(name) else {
                    return self.table(factor, place, Views::Kept);
                };
                is_plain_mention(factor)?;
                let alias = alias_or(alias.as_ref(), &item.alias.name)?;
                let (columns, rows) = match &item.meaning {
                    Meaning::Kept { name, columns } => {
                        (columns.clone(), Rows::CommonTable(name.clone()))
                    }
                    Meaning::Merged { query, visible } => {
                        self.computed(query, &place.of_item(*visible))?
                    }
                };
                renamed(self.keep(columns, rows, &alias)?, &[&item.alias, &alias])
            }
            TableFactor::Derived {
                lateral: false,
                subquery,
                alias: Some(alias),
                sample: None,
            } => {
                let alias = Alias::of(alias)?;
                let (columns, rows) = self.computed(subquery, place)?;
                renamed(self.keep(columns, rows, &alias)?, &[&alias])
            }
            _ => {
                let detail = format!("LEFT JOIN {}", quoted(factor));
                Err(Reason::new(Code::UnsupportedJoin, detail))
            }
        }
    }

    fn factor(&mut self, factor: &TableFactor, place: &Place<'_>) -> Result<Scope, Reason> {
        match factor {
            TableFactor::Table { name, alias, .. } => match place.item(name) {
                Some(item) => {
                    is_plain_mention(factor)?;
                    let alias = alias_or(alias.as_ref(), &item.alias.name)?;
                    let entry = match &item.meaning {
                        Meaning::Kept { name, columns } => {
                            let rows = Rows::CommonTable(name.clone());
                            self.keep(columns.clone(), rows, &alias)?
                        }
                        Meaning::Merged { query, visible } => {
                            self.merge_item(query, &alias, &place.of_item(*visible))?
                        }
                    };
                    Ok(Scope::of(renamed(entry, &[&item.alias, &alias])?))
                }
                None => Ok(Scope::of(self.table(factor, place, Views::Merged)?)),
            },
            TableFactor::Derived {
                lateral,
                subquery,
                alias: Some(alias),
                sample: None,
            } => {
                // One that names nothing beside or around it means the same without LATERAL.
                let alone = lateral.then(|| place.of_item(place.visible()));
                let place = alone.as_ref().unwrap_or(place);
                let entry = self.sub_select(subquery, &Alias::of(alias)?, place)?;
                Ok(Scope::of(entry))
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => self.table_with_joins(table_with_joins, place),
            _ => Err(Reason::new(
                Code::UnsupportedClause,
                format!("{} in FROM", quoted(factor)),
            )),
        }
    }

    /// A base table, or a view, which is merged if that is asked for and changes nothing.
    fn table(
        &mut self,
        factor: &TableFactor,
        place: &Place<'_>,
        views: Views,
    ) -> Result<Entry, Reason> {
        let (name, alias) = is_plain_mention(factor)?;
        let relation = place.names.relation(name)?;
        if relation.kind == RelationKind::View {
            return self.view(relation, alias, place, views);
        }
        is_base_table(relation)?;
        self.base_table(relation, alias)
    }

    /// What a view shows, in place of the view.
    fn view(
        &mut self,
        view: &Relation,
        alias: Option<&TableAlias>,
        place: &Place<'_>,
        views: Views,
    ) -> Result<Entry, Reason> {
        let place = place.in_view(view)?;
        let query = match self.catalog.view(view.oid) {
            Some(parsed) => parsed?,
            None => return Err(Reason::new(Code::NotATable, &view.name)),
        };
        let own = Alias::of_columns(&view.name, &view.columns);
        let alias = alias_or(alias, &view.name)?;
        self.views.push(view.oid);
        let merged = match views {
            Views::Merged => self.merge(query, &place, Computed::AsAsked)?,
            Views::Kept => None,
        };
        let entry = match merged {
            Some(columns) => of_columns(columns, &alias),
            None => {
                let (columns, rows) = self.computed(query, &place)?;
                self.keep(columns, rows, &alias)?
            }
        };
        if entry.columns.len() != view.columns.len() {
            return Err(Reason::new(Code::NotATable, &view.name));
        }
        renamed(entry, &[&own, &alias])
    }

    fn base_table(
        &mut self,
        relation: &Relation,
        alias: Option<&TableAlias>,
    ) -> Result<Entry, Reason> {
        let occurrence = self.add(Source::Table(relation.oid));
        let column = |column: &crate::catalog::Column| {
            (
                column.name.clone(),
                Scalar::Column(ColumnRef {
                    occurrence,
                    attnum: column.attnum,
                }),
            )
        };
        let columns: Columns = relation.columns.iter().map(column).collect();
        match alias {
            Some(alias) => {
                let alias = Alias::of(alias)?;
                renamed(of_columns(columns, &alias), &[&alias])
            }
            None => Ok(Entry {
                name: relation.name.clone(),
                schema: Some(relation.schema.clone()),
                columns,
            }),
        }
    }

    fn add(&mut self, source: Source) -> OccurrenceId {
        self.occurrences.push(Occurrence {
            source,
            attachment: Attachment::Inner,
        });
        OccurrenceId(self.occurrences.len() - 1)
    }

    /// A sub-select, merged if that changes nothing.
    fn sub_select(
        &mut self,
        query: &Query,
        alias: &Alias,
        place: &Place<'_>,
    ) -> Result<Entry, Reason> {
        let entry = match self.merge(query, place, Computed::AsAsked)? {
            Some(columns) => of_columns(columns, alias),
            None => {
                let (columns, rows) = self.computed(query, place)?;
                self.keep(columns, rows, alias)?
            }
        };
        renamed(entry, &[alias])
    }

    /// A mention of a WITH item whose query can be merged.
    fn merge_item(
        &mut self,
        query: &Query,
        alias: &Alias,
        place: &Place<'_>,
    ) -> Result<Entry, Reason> {
        match self.merge(query, place, Computed::AsAWhole)? {
            Some(columns) => Ok(of_columns(columns, alias)),
            None => Err(Reason::new(Code::NestedBlock, quoted(query))),
        }
    }

    /// What a query that stays one computes.
    fn computed(
        &self,
        query: &Query,
        place: &Place<'_>,
    ) -> Result<(Vec<ColumnFacts>, Rows), Reason> {
        let query = normalize::query(query, place)?;
        let columns = query.columns(self.catalog).into_iter();
        let columns = columns.map(ColumnFacts::into_column).collect();
        Ok((columns, Rows::Query(query)))
    }

    /// Adds an occurrence of a sub-select that stays one.
    fn keep(
        &mut self,
        columns: Vec<ColumnFacts>,
        rows: Rows,
        alias: &Alias,
    ) -> Result<Entry, Reason> {
        let occurrence = OccurrenceId(self.occurrences.len());
        let column = |(position, facts): (usize, &ColumnFacts)| {
            let attnum = i16::try_from(position + 1).map_err(|_| {
                Reason::new(
                    Code::StatementTooLarge,
                    "a sub-select with too many columns",
                )
            })?;
            let column = ColumnRef {
                occurrence,
                attnum: AttNum(attnum),
            };
            Ok((facts.name.clone(), Scalar::Column(column)))
        };
        let entry = Entry {
            name: alias.name.clone(),
            schema: None,
            columns: columns
                .iter()
                .enumerate()
                .map(column)
                .collect::<Result<_, Reason>>()?,
        };
        self.add(Source::Select(Arc::new(SubSelect {
            name: alias.name.clone(),
            columns,
            rows,
        })));
        Ok(entry)
    }

    pub(crate) fn may_raise(&self, scalar: &Scalar) -> bool {
        may_raise(scalar, &self.tables())
    }

    pub(crate) fn tables(&self) -> Tables<'_> {
        Tables {
            occurrences: &self.occurrences,
            catalog: self.catalog,
        }
    }
}

/// Whether views may become a part of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Views {
    Merged,
    Kept,
}

fn of_columns(columns: Columns, alias: &Alias) -> Entry {
    Entry {
        name: alias.name.clone(),
        schema: None,
        columns,
    }
}

/// The entry with its columns under the aliases' names, one alias after the other.
fn renamed(mut entry: Entry, aliases: &[&Alias]) -> Result<Entry, Reason> {
    for alias in aliases {
        alias.rename(entry.columns.iter_mut().map(|(name, _)| name))?;
    }
    Ok(entry)
}

fn alias_or(alias: Option<&TableAlias>, name: &str) -> Result<Alias, Reason> {
    alias.map_or_else(|| Ok(Alias::plain(name)), Alias::of)
}

/// The name and alias of a relation that is named without anything else.
fn is_plain_mention(factor: &TableFactor) -> Result<(&ObjectName, Option<&TableAlias>), Reason> {
    let TableFactor::Table {
        name,
        alias,
        args,
        with_hints,
        version,
        with_ordinality,
        partitions,
        json_path,
        sample,
        index_hints,
    } = factor
    else {
        return Err(Reason::new(Code::UnsupportedClause, quoted(factor)));
    };
    let is_plain = args.is_none()
        && with_hints.is_empty()
        && version.is_none()
        && !with_ordinality
        && partitions.is_empty()
        && json_path.is_none()
        && sample.is_none()
        && index_hints.is_empty();
    if !is_plain {
        return Err(Reason::new(
            Code::UnsupportedClause,
            format!("{} in FROM", quoted(factor)),
        ));
    }
    if is_only(name) {
        return Err(Reason::new(Code::UnsupportedClause, "ONLY"));
    }
    Ok((name, alias.as_ref()))
}

/// The conjuncts of a condition over input columns.
fn condition(expr: &Expr, scope: &Scope, place: &Place<'_>) -> Result<Vec<Scalar>, Reason> {
    let resolver = Resolver::new(scope, place, Aggregates::Refused);
    Ok(conjuncts(resolver.scalar(expr)?))
}

/// Joins the right side's scope to the left's, and returns the join's condition.
fn join_condition(
    left: &mut Scope,
    right: Scope,
    constraint: &JoinConstraint,
    place: &Place<'_>,
    from: &FromBuilder<'_>,
) -> Result<Vec<Scalar>, Reason> {
    let names = match constraint {
        JoinConstraint::On(on) => {
            left.absorb(right)?;
            return condition(on, left, place);
        }
        JoinConstraint::Using(names) => names.iter().map(single_name).collect::<Result<_, _>>()?,
        JoinConstraint::Natural => common_names(left, &right),
        JoinConstraint::None => {
            return Err(Reason::new(
                Code::UnsupportedJoin,
                "a join without condition",
            ));
        }
    };
    let mut condition = vec![];
    for name in &names {
        let operand = |scope: &Scope| {
            scope
                .unqualified(name)?
                .ok_or_else(|| Reason::new(Code::UnknownColumn, name.clone()))
        };
        let (mine, theirs) = (operand(left)?, operand(&right)?);
        is_mergeable(name, &mine, &theirs, from)?;
        condition.push(Scalar::binary(BinaryOp::Equal, mine, theirs));
    }
    left.absorb(right)?;
    left.merge(&names);
    Ok(condition)
}

fn common_names(left: &Scope, right: &Scope) -> Vec<String> {
    let is_in_both = |name: &&String| right.columns.iter().any(|(other, _)| other == *name);
    let names = left.columns.iter().map(|(name, _)| name);
    names.filter(is_in_both).cloned().collect()
}

/// USING makes one column of two. Where their types differ PostgreSQL gives it a third one.
fn is_mergeable(
    name: &str,
    left: &Scalar,
    right: &Scalar,
    from: &FromBuilder<'_>,
) -> Result<(), Reason> {
    if from.catalog.user_names().operators.contains("=") {
        return Err(Reason::new(Code::ShadowedName, "operator ="));
    }
    let tables = from.tables();
    let column_type = |scalar: &Scalar| match scalar {
        Scalar::Column(column) => tables.column_type(*column),
        _ => None,
    };
    if column_type(left).is_some() && column_type(left) == column_type(right) {
        Ok(())
    } else {
        let detail = format!("USING ({name}) over unlike types");
        Err(Reason::new(Code::UnsupportedJoin, detail))
    }
}

/// What stands inside parentheses. PostgreSQL's grammar drops them, so that `ORDER BY (a)` and
/// `GROUP BY (1)` are a name and a position like any other.
pub(crate) fn without_parentheses(expr: &Expr) -> &Expr {
    match expr {
        Expr::Nested(inner) => without_parentheses(inner),
        other => other,
    }
}

/// Whether an expression is a bare integer, which ORDER BY and GROUP BY read as a position.
pub(crate) fn position(expr: &Expr) -> Option<usize> {
    match without_parentheses(expr) {
        Expr::Value(value) => match &value.value {
            sqlparser::ast::Value::Number(digits, false) => digits.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}
