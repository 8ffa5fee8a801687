//! The select list: names of columns as PostgreSQL gives them, wildcards expanded.

use sqlparser::ast::{
    ObjectName, SelectItem, SelectItemQualifiedWildcardKind, WildcardAdditionalOptions,
};

use crate::expr::Scalar;
use crate::names::figure_column_name;
use crate::place::identifiers;
use crate::reason::{Code, Reason};
use crate::scalar::{Resolver, quoted};
use crate::scope::{Entry, Scope, fold};

/// The columns of a select list.
pub(crate) fn projection(
    items: &[SelectItem],
    resolver: &Resolver<'_>,
) -> Result<Vec<(String, Scalar)>, Reason> {
    let scope = resolver.scope;
    let mut columns = Vec::new();
    for item in items {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                columns.push((figure_column_name(expr)?, resolver.scalar(expr)?))
            }
            SelectItem::ExprWithAlias { expr, alias } => {
                columns.push((fold(alias)?, resolver.scalar(expr)?))
            }
            SelectItem::Wildcard(options) if is_bare(options) => {
                columns.extend(scope.columns.iter().cloned());
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
