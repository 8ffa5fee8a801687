//! FROM: tables become occurrences, joins become predicates, sub-selects and CTEs are merged.

use sqlparser::ast::{
    Cte, Expr, Join, JoinConstraint, JoinOperator, ObjectName, ObjectNamePart, Query, SelectItem,
    SelectItemQualifiedWildcardKind, TableAlias, TableFactor, TableWithJoins,
    WildcardAdditionalOptions, With,
};

use crate::block::{Attachment, Occurrence, Tables};
use crate::catalog::{Catalog, Relation, RelationKind};
use crate::expr::{BinaryOp, ColumnRef, ColumnTypes, Literal, OccurrenceId, Scalar, TypeName};
use crate::names::figure_column_name;
use crate::reason::{Code, Reason};
use crate::scalar::{Aggregates, Resolver, quoted};
use crate::scope::{Entry, Scope, fold};
use crate::select::PlainSelect;
use crate::types;
use crate::volatility::may_raise;

/// The catalog, and the schemas in which unqualified names are looked up, first one first.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) search_path: &'a [String],
}

/// A WITH item; its body sees the items before it.
#[derive(Clone)]
pub(crate) struct CommonTable<'a> {
    name: String,
    query: &'a Query,
    visible: usize,
    /// Where it is in the list.
    position: usize,
}

/// Collects what FROM and WHERE say while scopes are built.
pub(crate) struct FromBuilder<'a> {
    names: Names<'a>,
    common_tables: Vec<CommonTable<'a>>,
    used_common_tables: Vec<bool>,
    pub(crate) occurrences: Vec<Occurrence>,
    pub(crate) predicates: Vec<Scalar>,
    /// Columns that sub-selects select, whether anything comes of them or not.
    pub(crate) mentioned: Vec<ColumnRef>,
}

impl<'a> FromBuilder<'a> {
    pub(crate) fn new(names: Names<'a>) -> Self {
        FromBuilder {
            names,
            common_tables: vec![],
            used_common_tables: vec![],
            occurrences: vec![],
            predicates: vec![],
            mentioned: vec![],
        }
    }

    /// A resolver for expressions in this scope.
    pub(crate) fn resolver<'s>(&self, scope: &'s Scope, aggregates: Aggregates) -> Resolver<'s>
    where
        'a: 's,
    {
        Resolver {
            scope,
            user_names: self.names.catalog.user_names(),
            aggregates,
        }
    }

    /// Takes in WITH, FROM and WHERE, and returns what the other clauses may name.
    pub(crate) fn read(&mut self, select: &PlainSelect<'a>) -> Result<Scope, Reason> {
        let visible = self.common_tables.len();
        self.read_with(select.with, visible)?;
        let scope = self.read_from_where(select, self.common_tables.len())?;
        self.every_common_table_is_used()?;
        Ok(scope)
    }

    /// One that nobody names was not looked at, and PostgreSQL may run it all the same: it may write.
    fn every_common_table_is_used(&self) -> Result<(), Reason> {
        let unused = self
            .common_tables
            .iter()
            .find(|common| self.used_common_tables.get(common.position) != Some(&true));
        match unused {
            Some(common) => Err(Reason::new(
                Code::UnsupportedClause,
                format!("WITH {} is not used", common.name),
            )),
            None => Ok(()),
        }
    }

    fn read_with(&mut self, with: Option<&'a With>, outer: usize) -> Result<(), Reason> {
        let Some(With {
            with_token: _,
            recursive,
            cte_tables,
        }) = with
        else {
            return Ok(());
        };
        if *recursive {
            return Err(Reason::new(Code::UnsupportedClause, "WITH RECURSIVE"));
        }
        for (position, cte) in cte_tables.iter().enumerate() {
            let Cte {
                alias,
                query,
                from: None,
                materialized: _,
                closing_paren_token: _,
            } = cte
            else {
                return Err(Reason::new(Code::UnsupportedClause, "this form of WITH"));
            };
            let name = alias_name(alias)?;
            self.common_tables.push(CommonTable {
                name,
                query,
                visible: outer + position,
                position: outer + position,
            });
            self.used_common_tables.push(false);
        }
        Ok(())
    }

    fn read_from_where(
        &mut self,
        select: &PlainSelect<'a>,
        visible: usize,
    ) -> Result<Scope, Reason> {
        let mut scope = Scope::default();
        for item in select.from {
            let joined = self.table_with_joins(item, visible)?;
            scope.absorb(joined)?;
        }
        if let Some(selection) = select.selection {
            let condition = self
                .resolver(&scope, Aggregates::Refused)
                .scalar(selection)?;
            self.predicates.extend(condition.into_conjuncts());
        }
        Ok(scope)
    }

    fn table_with_joins(
        &mut self,
        item: &'a TableWithJoins,
        visible: usize,
    ) -> Result<Scope, Reason> {
        let TableWithJoins { relation, joins } = item;
        let mut scope = self.factor(relation, visible)?;
        for Join {
            relation,
            global: _,
            join_operator,
        } in joins
        {
            match join_operator {
                JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => {
                    self.inner_join(&mut scope, relation, constraint, visible)?;
                }
                JoinOperator::CrossJoin(JoinConstraint::None) => {
                    let right = self.factor(relation, visible)?;
                    scope.absorb(right)?;
                }
                JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                    self.left_join(&mut scope, relation, constraint)?;
                }
                _ => return Err(Reason::new(Code::UnsupportedJoin, quoted(relation))),
            }
        }
        Ok(scope)
    }

    fn inner_join(
        &mut self,
        scope: &mut Scope,
        relation: &'a TableFactor,
        constraint: &JoinConstraint,
        visible: usize,
    ) -> Result<(), Reason> {
        let left = scope.clone();
        let right = self.factor(relation, visible)?;
        scope.absorb(right.clone())?;
        match constraint {
            JoinConstraint::On(condition) => {
                let condition = self
                    .resolver(scope, Aggregates::Refused)
                    .scalar(condition)?;
                self.predicates.extend(condition.into_conjuncts());
                Ok(())
            }
            JoinConstraint::Using(columns) => {
                for column in columns {
                    let name = single_name(column)?;
                    let operand = |scope: &Scope| {
                        scope
                            .unqualified(&name)?
                            .ok_or_else(|| Reason::new(Code::UnknownColumn, name.clone()))
                    };
                    let (left, right) = (operand(&left)?, operand(&right)?);
                    self.is_mergeable(&name, &left, &right)?;
                    self.predicates
                        .push(Scalar::binary(BinaryOp::Equal, left.clone(), right));
                    scope.merge(name, left);
                }
                Ok(())
            }
            JoinConstraint::Natural | JoinConstraint::None => {
                Err(Reason::new(Code::UnsupportedJoin, quoted(relation)))
            }
        }
    }

    /// USING makes one column of two. Where their types differ PostgreSQL gives it a third one.
    fn is_mergeable(&self, name: &str, left: &Scalar, right: &Scalar) -> Result<(), Reason> {
        let user_names = self.names.catalog.user_names();
        if user_names.operators.contains("=") {
            return Err(Reason::new(Code::ShadowedName, "operator ="));
        }
        let tables = Tables {
            occurrences: &self.occurrences,
            catalog: self.names.catalog,
        };
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

    /// A left join to one table. Its condition stays with the occurrence: it decides which columns
    /// are NULL, not which rows there are.
    fn left_join(
        &mut self,
        scope: &mut Scope,
        relation: &'a TableFactor,
        constraint: &JoinConstraint,
    ) -> Result<(), Reason> {
        let (TableFactor::Table { .. }, JoinConstraint::On(condition)) = (relation, constraint)
        else {
            return Err(Reason::new(
                Code::UnsupportedJoin,
                format!("LEFT JOIN {}", quoted(relation)),
            ));
        };
        if self
            .common_table(relation, self.common_tables.len())?
            .is_some()
        {
            return Err(Reason::new(
                Code::UnsupportedJoin,
                format!("LEFT JOIN {}", quoted(relation)),
            ));
        }
        let occurrence = self.occurrences.len();
        let entry = self.table(relation)?;
        scope.add(entry)?;
        let condition = self
            .resolver(scope, Aggregates::Refused)
            .scalar(condition)?;
        if let Some(added) = self.occurrences.get_mut(occurrence) {
            added.attachment = Attachment::Left(condition.into_conjuncts());
        }
        Ok(())
    }

    fn factor(&mut self, factor: &'a TableFactor, visible: usize) -> Result<Scope, Reason> {
        let mut scope = Scope::default();
        match factor {
            TableFactor::Table { name: _, alias, .. } => {
                match self.common_table(factor, visible)? {
                    Some(common) => {
                        let name = alias
                            .as_ref()
                            .map_or_else(|| Ok(common.name.clone()), alias_name)?;
                        let columns = self.merge_common_table(&common)?;
                        scope.add(Entry {
                            name,
                            schema: None,
                            columns,
                        })?;
                    }
                    None => {
                        let entry = self.table(factor)?;
                        scope.add(entry)?;
                    }
                }
            }
            TableFactor::Derived {
                lateral: false,
                subquery,
                alias: Some(alias),
                sample: None,
            } => {
                let columns = self.merge_query(subquery, visible)?;
                scope.add(Entry {
                    name: alias_name(alias)?,
                    schema: None,
                    columns,
                })?;
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias: None,
            } => return self.table_with_joins(table_with_joins, visible),
            _ => {
                return Err(Reason::new(
                    Code::UnsupportedClause,
                    format!("{} in FROM", quoted(factor)),
                ));
            }
        }
        Ok(scope)
    }

    /// The WITH item that an unqualified table name means, the innermost first.
    fn common_table(
        &self,
        factor: &TableFactor,
        visible: usize,
    ) -> Result<Option<CommonTable<'a>>, Reason> {
        let TableFactor::Table { name, .. } = factor else {
            return Ok(None);
        };
        let Ok(name) = single_name(name) else {
            return Ok(None);
        };
        let tables = self
            .common_tables
            .get(..visible)
            .unwrap_or(&self.common_tables);
        Ok(tables
            .iter()
            .rev()
            .find(|common| common.name == name)
            .cloned())
    }

    /// Adds an occurrence of a base table.
    fn table(&mut self, factor: &TableFactor) -> Result<Entry, Reason> {
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
        let relation = self.names.relation(name)?;
        let occurrence = OccurrenceId(self.occurrences.len());
        self.occurrences.push(Occurrence {
            relation: relation.oid,
            attachment: Attachment::Inner,
        });
        let column = |column: &crate::catalog::Column| {
            (
                column.name.clone(),
                Scalar::Column(ColumnRef {
                    occurrence,
                    attnum: column.attnum,
                }),
            )
        };
        let columns = relation.columns.iter().map(column).collect();
        Ok(match alias {
            Some(alias) => Entry {
                name: alias_name(alias)?,
                schema: None,
                columns,
            },
            None => Entry {
                name: relation.name.clone(),
                schema: Some(relation.schema.clone()),
                columns,
            },
        })
    }

    /// Merges a WITH item. It may be computed as a whole, columns that nobody reads included.
    fn merge_common_table(
        &mut self,
        common: &CommonTable<'a>,
    ) -> Result<Vec<(String, Scalar)>, Reason> {
        if let Some(used) = self.used_common_tables.get_mut(common.position) {
            *used = true;
        }
        let columns = self.merge_query(common.query, common.visible)?;
        match columns.iter().find(|(_, value)| self.may_raise(value)) {
            Some((name, _)) => Err(Reason::new(
                Code::MayRaise,
                format!("column \"{name}\" of {}", common.name),
            )),
            None => Ok(columns),
        }
    }

    fn may_raise(&self, scalar: &Scalar) -> bool {
        let tables = Tables {
            occurrences: &self.occurrences,
            catalog: self.names.catalog,
        };
        may_raise(scalar, &tables)
    }

    /// Without a limit the order of a sub-select's rows decides nothing that is supported, but
    /// sorting them must not do anything else either.
    fn order_has_no_effect(&self, select: &PlainSelect<'a>, scope: &Scope) -> Result<(), Reason> {
        let resolver = self.resolver(scope, Aggregates::Refused);
        for item in select.order_by {
            let is_output = match without_parentheses(&item.expr) {
                Expr::Value(_) => true,
                // Perhaps an output's name: an output is computed anyway, or not at all.
                Expr::Identifier(ident) => scope.unqualified(&fold(ident)?)?.is_none(),
                _ => false,
            };
            if !is_output && self.may_raise(&resolver.scalar(&item.expr)?) {
                return Err(Reason::new(Code::MayRaise, quoted(item)));
            }
        }
        Ok(())
    }

    /// Merges a sub-select that neither groups nor limits into this block, and returns its columns.
    fn merge_query(
        &mut self,
        query: &'a Query,
        visible: usize,
    ) -> Result<Vec<(String, Scalar)>, Reason> {
        let select = PlainSelect::of(query)?;
        let keeps_every_row = !select.distinct
            && select.group_by.is_empty()
            && select.having.is_none()
            && select.limit.is_none()
            && select.offset.is_none();
        if !keeps_every_row {
            return Err(Reason::new(Code::NestedBlock, quoted(query)));
        }
        if select.from.is_empty() {
            return Err(Reason::new(Code::NestedBlock, "a sub-select without FROM"));
        }
        let visible = match select.with {
            None => visible,
            // Its names are visible nowhere else, which holds as long as there are no others.
            Some(_) if self.common_tables.is_empty() => {
                self.read_with(select.with, 0)?;
                self.common_tables.len()
            }
            Some(_) => {
                let detail = "WITH inside a sub-select beside another WITH";
                return Err(Reason::new(Code::UnsupportedClause, detail));
            }
        };
        let scope = self.read_from_where(&select, visible)?;
        let columns = self.projection(select.projection, &scope, Aggregates::Allowed)?;
        if columns.iter().any(|(_, value)| value.has_aggregate()) {
            return Err(Reason::new(Code::NestedBlock, quoted(query)));
        }
        let columns: Vec<(String, Scalar)> = columns
            .into_iter()
            .map(|(name, value)| Ok((name, typed(value)?)))
            .collect::<Result<_, Reason>>()?;
        self.mentioned
            .extend(columns.iter().flat_map(|(_, value)| value.columns()));
        if !select.order_by.is_empty() {
            self.order_has_no_effect(&select, &scope)?;
            if let Some((name, _)) = columns.iter().find(|(_, value)| self.may_raise(value)) {
                return Err(Reason::new(
                    Code::MayRaise,
                    format!("sorted column \"{name}\""),
                ));
            }
        }
        Ok(columns)
    }

    /// The select list, wildcards expanded.
    pub(crate) fn projection(
        &self,
        items: &[SelectItem],
        scope: &Scope,
        aggregates: Aggregates,
    ) -> Result<Vec<(String, Scalar)>, Reason> {
        let resolver = self.resolver(scope, aggregates);
        let mut columns = Vec::new();
        for item in items {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    columns.push((figure_column_name(expr)?, resolver.scalar(expr)?))
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    columns.push((fold(alias)?, resolver.scalar(expr)?))
                }
                SelectItem::Wildcard(options)
                    if is_bare(options) && !scope.has_merged_columns() =>
                {
                    columns.extend(
                        scope
                            .entries
                            .iter()
                            .flat_map(|entry| entry.columns.iter().cloned()),
                    );
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    options,
                ) if is_bare(options) => {
                    let entry = qualified_entry(name, scope)?;
                    columns.extend(entry.columns.iter().cloned());
                }
                SelectItem::Wildcard(_)
                | SelectItem::QualifiedWildcard(..)
                | SelectItem::ExprWithAliases { .. } => {
                    return Err(Reason::new(Code::UnsupportedExpression, quoted(item)));
                }
            }
        }
        Ok(columns)
    }
}

impl<'a> Names<'a> {
    /// The base table that a name means, if statements over it can be analysed.
    fn relation(&self, name: &ObjectName) -> Result<&'a Relation, Reason> {
        let parts = identifiers(name)?;
        let found = match parts.as_slice() {
            // pg_catalog comes first in every search path, and all that it holds is named pg_….
            [table] if table.starts_with("pg_") => {
                return Err(Reason::new(
                    Code::NotATable,
                    format!("\"{table}\" is a system relation"),
                ));
            }
            // The snapshot leaves out information_schema, so a name that may be found there is not known.
            [_] if self
                .search_path
                .iter()
                .any(|schema| schema == "information_schema") =>
            {
                return Err(Reason::new(
                    Code::SessionSetting,
                    "information_schema is in search_path",
                ));
            }
            [table] => self
                .search_path
                .iter()
                .find_map(|schema| self.catalog.relation(schema, table)),
            [schema, table] => self.catalog.relation(schema, table),
            _ => None,
        };
        let relation = found.ok_or_else(|| {
            Reason::new(Code::UnknownRelation, format!("\"{}\"", parts.join(".")))
        })?;
        let label = format!("\"{}.{}\"", relation.schema, relation.name);
        match relation.kind {
            RelationKind::Table | RelationKind::PartitionedTable => {}
            RelationKind::View => {
                return Err(Reason::new(Code::NotATable, format!("{label} is a view")));
            }
            RelationKind::MaterializedView => {
                return Err(Reason::new(
                    Code::NotATable,
                    format!("{label} is a materialized view"),
                ));
            }
            RelationKind::ForeignTable => {
                return Err(Reason::new(
                    Code::NotATable,
                    format!("{label} is a foreign table"),
                ));
            }
            RelationKind::Other => {
                return Err(Reason::new(Code::NotATable, format!("{label} is no table")));
            }
        }
        if relation.row_security || relation.has_rules {
            return Err(Reason::new(Code::RowSecurity, label));
        }
        Ok(relation)
    }
}

/// An output of a sub-select. PostgreSQL makes a text of a constant without type here, before the
/// outer query can give it another one.
fn typed(value: Scalar) -> Result<Scalar, Reason> {
    match value {
        Scalar::Literal(Literal::String(_) | Literal::Null) => {
            Ok(value.cast(TypeName::plain("text", types::TEXT)))
        }
        Scalar::Parameter(number) => Err(Reason::new(
            Code::UnsupportedExpression,
            format!("${number} as a column of a sub-select"),
        )),
        other => Ok(other),
    }
}

fn qualified_entry<'s>(name: &ObjectName, scope: &'s Scope) -> Result<&'s Entry, Reason> {
    match identifiers(name)?.as_slice() {
        [table] => scope.entry(None, table),
        [schema, table] => scope.entry(Some(schema), table),
        _ => Err(Reason::new(Code::UnknownColumn, format!("{name}.*"))),
    }
}

fn is_bare(options: &WildcardAdditionalOptions) -> bool {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude,
        opt_except,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    opt_ilike.is_none()
        && opt_exclude.is_none()
        && opt_except.is_none()
        && opt_replace.is_none()
        && opt_rename.is_none()
        && opt_alias.is_none()
}

fn alias_name(alias: &TableAlias) -> Result<String, Reason> {
    let TableAlias {
        explicit: _,
        name,
        columns,
        at,
    } = alias;
    if !columns.is_empty() || at.is_some() {
        return Err(Reason::new(
            Code::UnsupportedClause,
            format!("column aliases in {}", quoted(alias)),
        ));
    }
    fold(name)
}

fn identifiers(name: &ObjectName) -> Result<Vec<String>, Reason> {
    let identifier = |part: &ObjectNamePart| match part {
        ObjectNamePart::Identifier(ident) => fold(ident),
        ObjectNamePart::Function(_) => Err(Reason::new(Code::UnknownRelation, name.to_string())),
    };
    name.0.iter().map(identifier).collect()
}

/// sqlparser reads `ONLY t` as a table named "only" with an alias.
fn is_only(name: &ObjectName) -> bool {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => {
            ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("only")
        }
        _ => false,
    }
}

fn single_name(name: &ObjectName) -> Result<String, Reason> {
    match identifiers(name)?.as_slice() {
        [only] => Ok(only.clone()),
        _ => Err(Reason::new(Code::UnknownColumn, name.to_string())),
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
