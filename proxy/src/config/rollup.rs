//! A rollup as the file declares it: a name and a query, both with their places in the file.
//!
//! Whether the query is one that a rollup can be built from is not known here.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use pgstar_rewriter::Floats;

use super::problem::{Complaint, Position, quoted};

/// The longest name; it leaves room for a suffix within the 63 bytes of a PostgreSQL name.
pub const ROLLUP_NAME_BYTES_MAX: usize = 50;

/// A rollup's name: lower-case letters, digits and underscores, so that it needs no quoting anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RollupName(String);

impl RollupName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RollupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RollupName {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Complaint> {
        if text.is_empty() {
            return Err(Complaint::new(
                "empty name",
                "Give the rollup a name such as \"revenue_by_month\".",
            ));
        }
        if text.len() > ROLLUP_NAME_BYTES_MAX {
            return Err(Complaint::new(
                format!("name {} is too long", quoted(text)),
                format!(
                    "Use at most {ROLLUP_NAME_BYTES_MAX} bytes; this one has {}.",
                    text.len()
                ),
            ));
        }
        let begins_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !begins_well || !text.chars().all(is_plain) {
            return Err(Complaint::new(
                format!("invalid name {}", quoted(text)),
                "Use lower-case letters, digits and underscores, beginning with a letter, \
                 such as \"revenue_by_month\".",
            ));
        }
        Ok(RollupName(text.to_owned()))
    }
}

/// The value of `float`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FloatPolicy(pub(super) Floats);

impl FromStr for FloatPolicy {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Complaint> {
        match text {
            "refuse" => Ok(FloatPolicy(Floats::Refused)),
            "approximate" => Ok(FloatPolicy(Floats::Approximate)),
            _ => Err(Complaint::new(
                format!("invalid value {}", quoted(text)),
                "Write \"refuse\" or \"approximate\".",
            )),
        }
    }
}

/// A `[[rollup]]` of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RollupConfig {
    /// Its name, unlike any other rollup's.
    pub name: RollupName,
    /// Where the value of `name` is.
    pub name_position: Position,
    /// The SELECT that it keeps, as typed.
    pub query: String,
    /// How often it is built again while its tables cannot be followed, longer than zero; `None` for never.
    pub refresh: Option<Duration>,
    /// Whether it keeps sums of floating-point numbers.
    pub floats: Floats,
    query_start: QueryStart,
}

/// What is known of where a query's text lies in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueryStart {
    /// The query stands in the file as it is, from here.
    Verbatim(Position),
    /// The value begins here, but escapes make its text differ from the file's.
    Escaped(Position),
}

impl RollupConfig {
    /// A rollup whose query is the TOML string at `query_span` of `file_text`.
    pub(super) fn new(
        name: RollupName,
        name_position: Position,
        query: &str,
        file_text: &str,
        query_span: Range<usize>,
    ) -> Self {
        let query_start = QueryStart::find(query, file_text, query_span);
        RollupConfig {
            name,
            name_position,
            query: query.to_owned(),
            refresh: None,
            floats: Floats::Refused,
            query_start,
        }
    }

    /// The same, built again so often where it cannot follow.
    pub(super) fn refreshed(self, refresh: Option<Duration>) -> Self {
        RollupConfig { refresh, ..self }
    }

    /// The same with what it may keep of floating-point numbers.
    pub(super) fn with_floats(self, floats: Floats) -> Self {
        RollupConfig { floats, ..self }
    }

    /// Where the byte at `offset_in_query` of the query is in the file.
    ///
    /// Exact unless the query is written with escapes; then it is the start of its value.
    pub fn position_of(&self, offset_in_query: usize) -> Position {
        match self.query_start {
            QueryStart::Verbatim(start) => {
                start.then(Position::in_text(&self.query, offset_in_query))
            }
            QueryStart::Escaped(start) => start,
        }
    }
}

impl QueryStart {
    fn find(query: &str, file_text: &str, span: Range<usize>) -> QueryStart {
        let literal = file_text.get(span.clone()).unwrap_or_default();
        let (contents_start, contents) = string_contents(literal);
        // The parser may turn CRLF into LF; lines and columns do not notice.
        let same_text = contents == query || contents.replace("\r\n", "\n") == query;
        match same_text {
            true => QueryStart::Verbatim(Position::in_text(file_text, span.start + contents_start)),
            false => QueryStart::Escaped(Position::in_text(file_text, span.start)),
        }
    }
}

/// A TOML string literal without its quotation marks and the newline that TOML trims after an
/// opening `"""`, with the offset of what is left.
fn string_contents(literal: &str) -> (usize, &str) {
    let marks = match ["\"\"\"", "'''"]
        .iter()
        .any(|marks| literal.starts_with(marks))
    {
        true => 3,
        false => 1,
    };
    let inside = literal
        .get(marks..literal.len().saturating_sub(marks))
        .unwrap_or_default();
    let trimmed = match marks {
        3 => inside
            .strip_prefix("\r\n")
            .or_else(|| inside.strip_prefix('\n'))
            .unwrap_or(inside),
        _ => inside,
    };
    (marks + inside.len() - trimmed.len(), trimmed)
}
