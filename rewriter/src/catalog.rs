//! What PostgreSQL's catalog says about the relations a statement may name, at one instant.
//!
//! The snapshot is plain data: whoever has a connection fills it in, and this crate only reads it.
//! Everything that a proof rests on (keys, foreign keys, NOT NULL, row security) comes from here
//! and never from looking at rows.

use std::collections::{BTreeMap, HashMap, HashSet};

use sqlparser::ast::Query;

use crate::parse::parse_query;
use crate::reason::Reason;

/// An object identifier of PostgreSQL's catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Oid(pub u32);

/// A column's number in its relation, `pg_attribute.attnum`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttNum(pub i16);

/// A type as a column has it: the type itself, its modifier (-1 for none) and its collation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnType {
    /// `pg_attribute.atttypid`.
    pub oid: Oid,
    /// `pg_attribute.atttypmod`; -1 when the type is unconstrained.
    pub typmod: i32,
    /// `pg_attribute.attcollation`; `Oid(0)` when the type has none.
    pub collation: Oid,
}

/// A column that has not been dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its position in the relation.
    pub attnum: AttNum,
    /// Its name, case as stored.
    pub name: String,
    /// Its type.
    pub ty: ColumnType,
    /// Whether the catalog enforces NOT NULL.
    pub not_null: bool,
}

/// What `pg_class.relkind` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// An ordinary table (`r`).
    Table,
    /// A partitioned table (`p`).
    PartitionedTable,
    /// A view (`v`).
    View,
    /// A materialized view (`m`).
    MaterializedView,
    /// A foreign table (`f`).
    ForeignTable,
    /// A sequence, an index or a composite type: it has a table's place in the search path.
    Other,
}

/// A foreign key that PostgreSQL enforces: validated and not deferrable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKey {
    /// The referencing columns, in the constraint's order.
    pub columns: Vec<AttNum>,
    /// The referenced relation.
    pub references: Oid,
    /// The referenced columns, pairwise with `columns`.
    pub referenced_columns: Vec<AttNum>,
}

/// A relation that a statement may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// `pg_class.oid`.
    pub oid: Oid,
    /// The schema's name.
    pub schema: String,
    /// The relation's name.
    pub name: String,
    /// What kind of relation it is.
    pub kind: RelationKind,
    /// Its columns in order, dropped ones left out.
    pub columns: Vec<Column>,
    /// Column sets with a valid, immediate, non-partial unique index over plain columns.
    pub unique_keys: Vec<Vec<AttNum>>,
    /// Foreign keys that PostgreSQL enforces now.
    pub foreign_keys: Vec<ForeignKey>,
    /// Whether row-level security is enabled (`pg_class.relrowsecurity`).
    pub row_security: bool,
    /// Whether a rewrite rule (`pg_rewrite`) other than a view's own is attached.
    pub has_rules: bool,
    /// For a view, what it shows.
    pub view: Option<View>,
}

/// What a view shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// `pg_get_viewdef` under a search path of `pg_catalog` alone, so that every other name is qualified.
    pub definition: String,
    /// Whether the view is a `security_barrier`: nothing may be computed below its own conditions.
    pub is_barrier: bool,
}

impl Relation {
    /// The column of this name, if there is one.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The column of this number, if it has not been dropped.
    pub fn column_at(&self, attnum: AttNum) -> Option<&Column> {
        self.columns.iter().find(|column| column.attnum == attnum)
    }
}

/// The relations of one database, and the names that users have given to their own functions,
/// operators and types over built-in types.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    relations: Vec<Relation>,
    by_name: HashMap<String, HashMap<String, usize>>,
    by_oid: HashMap<Oid, usize>,
    /// What views show, parsed once because every statement that names one is resolved with it.
    views: HashMap<Oid, Result<Query, Reason>>,
    user_names: UserNames,
    libraries: Libraries,
}

/// Names of objects outside `pg_catalog` that could be meant instead of a built-in one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserNames {
    /// Functions and aggregates whose arguments are all built-in types.
    pub functions: HashSet<String>,
    /// Operators whose operands are all built-in types.
    pub operators: HashSet<String>,
    /// Collations that are not deterministic: unequal bytes may compare equal under them.
    pub nondeterministic_collations: HashSet<Oid>,
    /// Types of `typtype` 'e': equality is by identity, so they may be grouping keys.
    pub enum_types: HashSet<Oid>,
}

/// What the libraries say that the server is linked with or reads: what was computed with one version may come out otherwise with
/// the next, without a word in the catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Libraries {
    /// By collation, the version of its rules: those that decide what comes first, and which letters are upper case.
    pub orders: BTreeMap<Oid, String>,
    /// By zone, in lower case, something that is another where its clocks differ. Only of zones that were asked for.
    pub clocks: BTreeMap<String, String>,
}

impl Catalog {
    /// A snapshot of these relations.
    pub fn new(relations: Vec<Relation>, user_names: UserNames) -> Self {
        let mut by_name: HashMap<String, HashMap<String, usize>> = HashMap::new();
        let mut by_oid = HashMap::with_capacity(relations.len());
        for (index, relation) in relations.iter().enumerate() {
            by_name
                .entry(relation.schema.clone())
                .or_default()
                .insert(relation.name.clone(), index);
            by_oid.insert(relation.oid, index);
        }
        let views = relations.iter().filter_map(|relation| {
            let view = relation.view.as_ref()?;
            Some((relation.oid, parse_query(&view.definition)))
        });
        let views = views.collect();
        Catalog {
            relations,
            by_name,
            by_oid,
            views,
            user_names,
            libraries: Libraries::default(),
        }
    }

    /// The same beside these versions of libraries.
    pub fn with_libraries(self, libraries: Libraries) -> Self {
        Catalog { libraries, ..self }
    }

    /// The libraries' versions.
    pub fn libraries(&self) -> &Libraries {
        &self.libraries
    }

    /// All relations, in no particular order.
    pub fn relations(&self) -> &[Relation] {
        &self.relations
    }

    /// The relation `schema.name`.
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        let index = *self.by_name.get(schema)?.get(name)?;
        self.relations.get(index)
    }

    /// The relation with this identifier.
    pub fn relation_by_oid(&self, oid: Oid) -> Option<&Relation> {
        self.relations.get(*self.by_oid.get(&oid)?)
    }

    /// What the view shows; `None` for what is no view.
    pub(crate) fn view(&self, oid: Oid) -> Option<Result<&Query, Reason>> {
        let parsed = self.views.get(&oid)?.as_ref();
        Some(parsed.map_err(Reason::clone))
    }

    /// Names that could shadow built-in ones.
    pub fn user_names(&self) -> &UserNames {
        &self.user_names
    }
}
