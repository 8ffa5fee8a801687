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
    /// Columns merged by JOIN … USING: the name means this one value.
    merged: Vec<(String, Scalar)>,
}

impl Scope {
    /// Adds an entry, unless its name is taken.
    pub(crate) fn add(&mut self, entry: Entry) -> Result<(), Reason> {
        if self.entries.iter().any(|known| known.name == entry.name) {
            return Err(Reason::new(
                Code::UnsupportedClause,
                format!("table name \"{}\" is used twice", entry.name),
            ));
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Adds everything that another scope makes visible.
    pub(crate) fn absorb(&mut self, other: Scope) -> Result<(), Reason> {
        let Scope { entries, merged } = other;
        self.merged.extend(merged);
        entries.into_iter().try_for_each(|entry| self.add(entry))
    }

    /// From here on `name` alone means `value`.
    pub(crate) fn merge(&mut self, name: String, value: Scalar) {
        self.merged.push((name, value));
    }

    /// Whether USING merged columns, so that `*` has an order of its own.
    pub(crate) fn has_merged_columns(&self) -> bool {
        !self.merged.is_empty()
    }

    /// The value of an unqualified name; `None` when nothing has the name.
    pub(crate) fn unqualified(&self, name: &str) -> Result<Option<Scalar>, Reason> {
        if let Some((_, value)) = self.merged.iter().rev().find(|(merged, _)| merged == name) {
            return Ok(Some(value.clone()));
        }
        let mut found = self
            .entries
            .iter()
            .flat_map(|entry| &entry.columns)
            .filter(|(column, _)| column == name);
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

    /// The value of a possibly qualified name.
    pub(crate) fn column(&self, parts: &[Ident]) -> Result<Scalar, Reason> {
        let names = parts.iter().map(fold).collect::<Result<Vec<_>, _>>()?;
        let (entry, column) = match names.as_slice() {
            [column] => return self.unqualified(column)?.ok_or_else(|| unknown(column)),
            [table, column] => (self.entry(None, table)?, column),
            [schema, table, column] => (self.entry(Some(schema), table)?, column),
            _ => return Err(unknown(&names.join("."))),
        };
        let mut found = entry.columns.iter().filter(|(name, _)| name == column);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(value.clone()),
            _ => Err(unknown(&names.join("."))),
        }
    }
}

fn unknown(name: &str) -> Reason {
    Reason::new(Code::UnknownColumn, format!("\"{name}\""))
}
