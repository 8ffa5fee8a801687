//! What the names of relations mean at one place of a statement: WITH items first, then the search path.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::LazyLock;

use sqlparser::ast::{ObjectName, ObjectNamePart, Query, TableAlias, TableAliasColumnDef};

use crate::catalog::{Catalog, Column, Relation, RelationKind};
use crate::expr::{BoundTime, Scalar};
use crate::query::ColumnFacts;
use crate::reason::{Code, Reason};
use crate::scalar::quoted;
use crate::scope::{Scope, fold, unknown};

/// The catalog, and the schemas in which unqualified names are looked up, first one first.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) catalog: &'a Catalog,
    pub(crate) search_path: &'a [String],
    /// The times that are bound to parameters, from `$1` on.
    pub(crate) bound: &'a [Option<BoundTime>],
}

/// One place of a statement.
#[derive(Clone)]
pub(crate) struct Place<'a> {
    pub(crate) names: Names<'a>,
    /// The WITH items that may be named, the innermost last.
    items: Vec<WithItem<'a>>,
    /// The names that WITH items have in the rewritten statement.
    taken: Rc<RefCell<Vec<String>>>,
    /// How many views are around this place.
    views: usize,
    /// Inside a sub-query of an expression, the query around it.
    pub(crate) around: Option<Rc<Around>>,
}

/// The query around a sub-query, as far as the sub-query may name its columns.
pub(crate) struct Around {
    scope: Scope,
    around: Option<Rc<Around>>,
    captured: RefCell<Vec<Scalar>>,
}

impl Around {
    /// A column of the query around, or of one further out.
    pub(crate) fn capture(&self, names: &[String]) -> Result<Scalar, Reason> {
        // A name of these is a column that every table has.
        const SYSTEM: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];
        if names.iter().any(|name| SYSTEM.contains(&name.as_str())) {
            return Err(unknown(names));
        }
        let value = match (self.scope.column(names)?, &self.around) {
            (Some(value), _) => value,
            (None, Some(around)) => around.capture(names)?,
            (None, None) => return Err(unknown(names)),
        };
        let mut captured = self.captured.borrow_mut();
        let known = captured.iter().position(|known| *known == value);
        Ok(Scalar::Outer(known.unwrap_or_else(|| {
            captured.push(value);
            captured.len() - 1
        })))
    }

    /// What was captured, in the order of its numbers.
    pub(crate) fn captured(&self) -> Vec<Scalar> {
        self.captured.borrow().clone()
    }
}

/// Most views that are expanded inside one another.
const VIEWS_MAX: usize = 16;

/// Where the names in a view's definition are looked up: it qualifies all others.
static VIEW_PATH: LazyLock<Vec<String>> = LazyLock::new(|| vec!["pg_catalog".to_owned()]);

/// A WITH item.
#[derive(Clone)]
pub(crate) struct WithItem<'a> {
    pub(crate) alias: Alias,
    pub(crate) meaning: Meaning<'a>,
    is_used: Rc<Cell<bool>>,
}

/// What naming a WITH item means.
#[derive(Clone)]
pub(crate) enum Meaning<'a> {
    /// The same as writing its query there. The query sees this many of the items.
    Merged { query: &'a Query, visible: usize },
    /// The rows of an item of the rewritten statement.
    Kept {
        name: String,
        columns: Vec<ColumnFacts>,
    },
}

impl<'a> Place<'a> {
    pub(crate) fn new(names: Names<'a>) -> Self {
        Place {
            names,
            items: vec![],
            taken: Rc::default(),
            views: 0,
            around: None,
        }
    }

    /// The place of a sub-query in an expression over this scope.
    pub(crate) fn in_sub_query(&self, scope: &Scope) -> (Place<'a>, Rc<Around>) {
        let around = Rc::new(Around {
            scope: scope.clone(),
            around: self.around.clone(),
            captured: RefCell::default(),
        });
        let place = Place {
            around: Some(Rc::clone(&around)),
            ..self.clone()
        };
        (place, around)
    }

    /// The place of a view's definition. What is around the view has no meaning there.
    pub(crate) fn in_view(&self, view: &Relation) -> Result<Place<'a>, Reason> {
        let is_barrier = view.view.as_ref().is_some_and(|view| view.is_barrier);
        let label = format!("\"{}.{}\"", view.schema, view.name);
        if is_barrier || view.has_rules {
            let detail = format!("{label} is a security barrier");
            return Err(Reason::new(Code::RowSecurity, detail));
        }
        if self.views == VIEWS_MAX {
            let detail = format!("{label} is inside {VIEWS_MAX} other views");
            return Err(Reason::new(Code::StatementTooLarge, detail));
        }
        Ok(Place {
            names: Names {
                search_path: &VIEW_PATH,
                ..self.names
            },
            items: vec![],
            taken: Rc::clone(&self.taken),
            views: self.views + 1,
            around: None,
        })
    }

    /// Where an item's query stands that sees this many of the items. It may not name the columns of
    /// queries around it: from another place that names the item they would be other ones.
    pub(crate) fn of_item(&self, visible: usize) -> Place<'a> {
        Place {
            items: self.items.iter().take(visible).cloned().collect(),
            around: None,
            ..self.clone()
        }
    }

    /// How many WITH items may be named here.
    pub(crate) fn visible(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn add(&mut self, alias: Alias, meaning: Meaning<'a>) {
        self.items.push(WithItem {
            alias,
            meaning,
            is_used: Rc::default(),
        });
    }

    /// The item that a table's name means; naming it uses it.
    pub(crate) fn item(&self, name: &ObjectName) -> Option<&WithItem<'a>> {
        let name = single_name(name).ok()?;
        let item = self
            .items
            .iter()
            .rev()
            .find(|item| item.alias.name == name)?;
        item.is_used.set(true);
        Some(item)
    }

    /// One that nobody names was not looked at, and PostgreSQL may run it all the same: it may write.
    pub(crate) fn every_item_is_used(&self, from: usize) -> Result<(), Reason> {
        match self
            .items
            .iter()
            .skip(from)
            .find(|item| !item.is_used.get())
        {
            Some(item) => Err(Reason::new(
                Code::UnsupportedClause,
                format!("WITH {} is not used", item.alias.name),
            )),
            None => Ok(()),
        }
    }

    /// A name for a WITH item that no other one has.
    pub(crate) fn free_name(&self, wanted: &str) -> String {
        let mut taken = self.taken.borrow_mut();
        let numbered = (2..).map(|number| format!("{wanted}_{number}"));
        let name = std::iter::once(wanted.to_owned())
            .chain(numbered)
            .find(|candidate| !taken.contains(candidate))
            .unwrap_or_default();
        taken.push(name.clone());
        name
    }
}

/// `AS name (column, …)`.
#[derive(Debug, Clone)]
pub(crate) struct Alias {
    pub(crate) name: String,
    columns: Vec<String>,
}

impl Alias {
    pub(crate) fn of(alias: &TableAlias) -> Result<Alias, Reason> {
        let TableAlias {
            explicit: _,
            name,
            columns,
            at,
        } = alias;
        let refusal = || {
            Reason::new(
                Code::UnsupportedClause,
                format!("{} in FROM", quoted(alias)),
            )
        };
        if at.is_some() {
            return Err(refusal());
        }
        let column = |column: &TableAliasColumnDef| match column {
            TableAliasColumnDef {
                name,
                data_type: None,
            } => fold(name),
            TableAliasColumnDef { .. } => Err(refusal()),
        };
        Ok(Alias {
            name: fold(name)?,
            columns: columns.iter().map(column).collect::<Result<_, _>>()?,
        })
    }

    /// The names that a view gives to its columns.
    pub(crate) fn of_columns(name: &str, columns: &[Column]) -> Alias {
        Alias {
            name: name.to_owned(),
            columns: columns.iter().map(|column| column.name.clone()).collect(),
        }
    }

    pub(crate) fn plain(name: &str) -> Alias {
        Alias {
            name: name.to_owned(),
            columns: vec![],
        }
    }

    /// Renames the first columns.
    pub(crate) fn rename<'n>(
        &self,
        names: impl ExactSizeIterator<Item = &'n mut String>,
    ) -> Result<(), Reason> {
        if self.columns.len() > names.len() {
            let detail = format!("more column aliases than columns in {}", self.name);
            return Err(Reason::new(Code::UnknownColumn, detail));
        }
        for (name, alias) in names.zip(&self.columns) {
            *name = alias.clone();
        }
        Ok(())
    }
}

impl<'a> Names<'a> {
    /// The relation that a name means.
    pub(crate) fn relation(&self, name: &ObjectName) -> Result<&'a Relation, Reason> {
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
        found.ok_or_else(|| Reason::new(Code::UnknownRelation, format!("\"{}\"", parts.join("."))))
    }
}

/// Whether statements over the relation can be analysed: it holds its own rows, and shows all of them.
pub(crate) fn is_base_table(relation: &Relation) -> Result<(), Reason> {
    let label = format!("\"{}.{}\"", relation.schema, relation.name);
    let what = match relation.kind {
        RelationKind::Table | RelationKind::PartitionedTable => None,
        RelationKind::View => Some("a view"),
        RelationKind::MaterializedView => Some("a materialized view"),
        RelationKind::ForeignTable => Some("a foreign table"),
        RelationKind::Other => Some("no table"),
    };
    if let Some(what) = what {
        return Err(Reason::new(Code::NotATable, format!("{label} is {what}")));
    }
    if relation.row_security || relation.has_rules {
        return Err(Reason::new(Code::RowSecurity, label));
    }
    Ok(())
}

pub(crate) fn identifiers(name: &ObjectName) -> Result<Vec<String>, Reason> {
    let identifier = |part: &ObjectNamePart| match part {
        ObjectNamePart::Identifier(ident) => fold(ident),
        ObjectNamePart::Function(_) => Err(Reason::new(Code::UnknownRelation, name.to_string())),
    };
    name.0.iter().map(identifier).collect()
}

/// sqlparser reads `ONLY t` as a table named "only" with an alias.
pub(crate) fn is_only(name: &ObjectName) -> bool {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => {
            ident.quote_style.is_none() && ident.value.eq_ignore_ascii_case("only")
        }
        _ => false,
    }
}

pub(crate) fn single_name(name: &ObjectName) -> Result<String, Reason> {
    match identifiers(name)?.as_slice() {
        [only] => Ok(only.clone()),
        _ => Err(Reason::new(Code::UnknownColumn, name.to_string())),
    }
}
