//! What is wrong with a configuration file, where, and how to put it right.
//!
//! Messages follow PostgreSQL's style: lower case, no full stop, the hint a sentence. This module
//! knows nothing of keys or TOML, and it never shows a text that may hold a password.

use std::fmt;
use std::path::{Path, PathBuf};

/// How much of a refused value a message repeats, in characters.
const SHOWN_CHARACTERS_MAX: usize = 60;

/// A place in a text; both numbers count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column, in characters, as PostgreSQL counts.
    pub column: usize,
}

impl Position {
    /// The first character of a text.
    pub const START: Position = Position { line: 1, column: 1 };

    /// Where the byte at `offset` of `text` is; an offset behind the end means the end.
    pub fn in_text(text: &str, offset: usize) -> Position {
        let before = &text[..text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// The place that `inner`, counted from the start of a text beginning here, has in the whole.
    pub fn then(self, inner: Position) -> Position {
        match inner.line {
            1 => Position {
                line: self.line,
                column: self.column + inner.column - 1,
            },
            _ => Position {
                line: self.line + inner.line - 1,
                column: inner.column,
            },
        }
    }
}

/// One thing wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// Where in the file; `None` when it could not be read at all.
    pub position: Option<Position>,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// How to put it right, a sentence.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nHINT:  {hint}"),
            None => Ok(()),
        }
    }
}

/// Every problem of a file, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Puts problems in the order of their places.
    pub fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.position);
        Problems(problems)
    }

    /// A file that could not be read, so that nothing is known of its contents.
    pub fn unreadable(file: &Path, message: String) -> Self {
        let file = file.to_path_buf();
        Problems(vec![Problem {
            file,
            position: None,
            message,
            hint: None,
        }])
    }

    /// The problems, in the order of their places.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Why a value is refused, before anybody knows where it stood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Complaint {
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// How to put it right, a sentence.
    pub hint: Option<String>,
}

impl Complaint {
    /// A complaint with advice.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Complaint {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }
}

/// A refused value as a message may repeat it: in quotes, shortened, control characters escaped.
///
/// A connection string typed at the wrong key would carry its password into a log, so whatever
/// looks like one is not repeated.
pub(super) fn quoted(value: &str) -> String {
    let may_be_secret = value.contains('@') || value.to_ascii_lowercase().contains("password");
    if may_be_secret {
        return "(value not shown)".to_owned();
    }
    let mut shown: String = value.chars().take(SHOWN_CHARACTERS_MAX).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    format!("\"{}\"", shown.replace(char::is_control, " "))
}

/// The known name that was probably meant, as advice; `None` when none is close.
pub(crate) fn did_you_mean<'k>(
    typed: &str,
    known: impl IntoIterator<Item = &'k str>,
) -> Option<String> {
    let tolerance = 1 + typed.chars().count() / 4;
    known
        .into_iter()
        .map(|name| (strsim::osa_distance(&typed.to_lowercase(), name), name))
        .filter(|(distance, _)| *distance <= tolerance)
        .min()
        .map(|(_, name)| format!("Did you mean \"{name}\"?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let text = "é = 1\nsize = 2\n";
        let cases = [
            (0, (1, 1)),
            (2, (1, 2)),
            (1, (1, 1)),
            (7, (2, 1)),
            (9, (2, 3)),
            (99, (3, 1)),
        ];
        for (offset, (line, column)) in cases {
            assert_eq!(
                Position::in_text(text, offset),
                Position { line, column },
                "{offset}"
            );
        }
    }

    #[test]
    fn problems_print_in_the_order_of_the_file() {
        let problem = |line, message: &str| Problem {
            file: "pgstar.toml".into(),
            position: Some(Position { line, column: 4 }),
            message: message.to_owned(),
            hint: (line == 2).then(|| "Do this.".to_owned()),
        };
        let problems = Problems::new(vec![problem(7, "second"), problem(2, "first")]);
        let expected = "pgstar.toml:2:4: first\nHINT:  Do this.\npgstar.toml:7:4: second";
        assert_eq!(problems.to_string(), expected);
    }

    #[test]
    fn a_refused_value_is_shown_unless_it_may_hold_a_password() {
        assert_eq!(quoted("12 parsecs\n"), "\"12 parsecs \"");
        assert_eq!(quoted("postgresql://u:hunter2@h/d"), "(value not shown)");
        assert_eq!(quoted("host=h PASSWORD=hunter2"), "(value not shown)");
        assert_eq!(quoted(&"x".repeat(61)), format!("\"{}…\"", "x".repeat(60)));
    }

    #[test]
    fn near_names_are_offered_and_far_ones_are_not() {
        let known = ["address", "memory"];
        assert_eq!(
            did_you_mean("adress", known).as_deref(),
            Some("Did you mean \"address\"?")
        );
        assert_eq!(
            did_you_mean("Memroy", known).as_deref(),
            Some("Did you mean \"memory\"?")
        );
        assert_eq!(did_you_mean("url", known), None);
    }
}
