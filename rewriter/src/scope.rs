//! Which columns a name may mean at one place of a statement, as PostgreSQL's parser sees it.

use sqlparser::ast::Ident;

use crate::expr::Scalar;
use crate::reason::{Code, Reason};

/// PostgreSQL truncates longer names with a notice (NAMEDATALEN - 1 bytes).
const IDENTIFIER_BYTES_MAX: usize = 63;

/// A name as PostgreSQL folds it: lower case unless quoted.
pub(crate) fn fold(ident: &Ident) -> Result<String, Reason> {
    let Ident {
        value,
        quote_style,
        span: _,
    } = ident;
    let name = match quote_style {
        // Databases of one-byte encodings fold more than ASCII.
        None if !value.is_ascii() && value.to_lowercase() != *value => {
            return Err(Reason::new(
                Code::NotParsed,
                format!("unquoted name {value}"),
            ));
        }
        None => value.to_ascii_lowercase(),
        Some('"') => value.clone(),
        Some(other) => {
            return Err(Reason::new(
                Code::NotParsed,
                format!("a name in {other} quotes"),
            ));
        }
    };
    if name.len() > IDENTIFIER_BYTES_MAX {
        return Err(Reason::new(
            Code::NotParsed,
            format!("name \"{name}\" is longer than {IDENTIFIER_BYTES_MAX} bytes"),
        ));
    }
    Ok(name)
}

/// A range table entry: a table, or a sub-select that was merged.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The alias, or the table's own name.
    pub(crate) name: String,
    /// The schema, where `schema.table.column` may be written: for tables without alias.
    pub(crate) schema: Option<String>,
    /// The columns in order.
    pub(crate) columns: Vec<(String, Scalar)>,
}

/// What FROM makes visible.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    pub(crate) entries: Vec<Entry>,
    /// What `*` means, and what names without a table are looked up in: each column once, those
    /// that JOIN … USING merged before the others of that join.
    pub(crate) columns: Vec<(String, Scalar)>,
}

impl Scope {
    /// A scope of one entry.
    pub(crate) fn of(entry: Entry) -> Scope {
        Scope {
            columns: entry.columns.clone(),
            entries: vec![entry],
        }
    }

    /// Adds everything that another scope makes visible.
    pub(crate) fn absorb(&mut self, other: Scope) -> Result<(), Reason> {
        let is_taken = |entry: &Entry| self.entries.iter().any(|known| known.name == entry.name);
        if let Some(entry) = other.entries.iter().find(|entry| is_taken(entry)) {
            return Err(Reason::new(
                Code::UnsupportedClause,
                format!("table name \"{}\" is used twice", entry.name),
            ));
        }
        self.entries.extend(other.entries);
        self.columns.extend(other.columns);
        Ok(())
    }

    /// Makes one column of those that both sides of a join have: the left one's.
    pub(crate) fn merge(&mut self, names: &[String]) {
        let is_merged = |(name, _): &(String, Scalar)| names.contains(name);
        let (both, others): (Vec<_>, Vec<_>) = self.columns.drain(..).partition(is_merged);
        let first = |name: &String| both.iter().find(|(merged, _)| merged == name).cloned();
        self.columns = names.iter().filter_map(first).collect();
        self.columns.extend(others);
    }

    /// The value of an unqualified name; `None` when nothing has the name.
    pub(crate) fn unqualified(&self, name: &str) -> Result<Option<Scalar>, Reason> {
        let mut found = self.columns.iter().filter(|(column, _)| column == name);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(Reason::new(
                Code::UnknownColumn,
                format!("\"{name}\" is ambiguous"),
            )),
            (Some((_, value)), None) => Ok(Some(value.clone())),
            (None, _) => Ok(None),
        }
    }

    /// The entry that `[schema.]table` means.
    pub(crate) fn entry(&self, schema: Option<&str>, table: &str) -> Result<&Entry, Reason> {
        let named = |entry: &&Entry| {
            entry.name == table && (schema.is_none() || entry.schema.as_deref() == schema)
        };
        let missing = || Reason::new(Code::UnknownColumn, format!("no table \"{table}\" in FROM"));
        self.entries.iter().find(named).ok_or_else(missing)
    }

    /// The value of a possibly qualified name; `None` when nothing here has the name, so that it may
    /// be one of the queries around this one.
    pub(crate) fn column(&self, names: &[String]) -> Result<Option<Scalar>, Reason> {
        let (entry, column) = match names {
            [column] => return self.unqualified(column),
            [table, column] => (self.entry(None, table), column),
            [schema, table, column] => (self.entry(Some(schema), table), column),
            _ => return Err(unknown(names)),
        };
        let Ok(entry) = entry else {
            return Ok(None);
        };
        let mut found = entry.columns.iter().filter(|(name, _)| name == column);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(Some(value.clone())),
            _ => Err(unknown(names)),
        }
    }
}

/// No column has the name.
pub(crate) fn unknown(names: &[String]) -> Reason {
    Reason::new(Code::UnknownColumn, format!("\"{}\"", names.join(".")))
}
