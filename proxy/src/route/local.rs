//! Statements that pgstar answers itself: `EXPLAIN (PGSTAR) …` and `SHOW pgstar.…`.

use bytes::BytesMut;
use pgstar_cache::Answer;

use super::candidate::skip_blank;
use crate::wire::{command_complete, data_row, row_description_of_text};

/// A statement of pgstar's own.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// `EXPLAIN (PGSTAR [, FORMAT TEXT|JSON]) statement`.
    Explain { statement: &'a str, json: bool },
    /// `SHOW pgstar.name`.
    Show(&'a str),
}

/// The command, if the text is one; anything else is left to PostgreSQL, errors included.
pub(super) fn parse(sql: &str) -> Option<Command<'_>> {
    let text = sql.get(sql.len() - skip_blank(sql.as_bytes()).len()..)?;
    let text = text.trim_end().trim_end_matches(';').trim_end();
    if let Some(rest) = strip_word(text, "show") {
        let (schema, name) = rest.split_once('.')?;
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let is_ours = schema.eq_ignore_ascii_case("pgstar") && is_name;
        return is_ours.then_some(Command::Show(name));
    }
    let options = strip_word(text, "explain")?.strip_prefix('(')?;
    let (options, statement) = options.split_once(')')?;
    let mut is_ours = false;
    let mut json = false;
    for option in options.split(',') {
        let words: Vec<String> = option
            .split_whitespace()
            .map(str::to_ascii_lowercase)
            .collect();
        match words
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .as_slice()
        {
            ["pgstar"] | ["pgstar", "on" | "true"] => is_ours = true,
            ["format", "json"] => json = true,
            ["format", "text"] => json = false,
            _ => return None,
        }
    }
    is_ours.then_some(Command::Explain {
        statement: statement.trim(),
        json,
    })
}

fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(word.len())?;
    let is_word = start.eq_ignore_ascii_case(word)
        && rest.starts_with(|next: char| next.is_whitespace() || next == '(');
    is_word.then(|| rest.trim_start())
}

/// Rows of text under these column names.
pub(super) fn rows_answer(columns: &[&str], rows: &[Vec<Option<String>>], tag: &str) -> Answer {
    let mut description = BytesMut::new();
    row_description_of_text(&mut description, columns);
    let mut frames = BytesMut::new();
    for row in rows {
        let values: Vec<Option<&[u8]>> = row
            .iter()
            .map(|value| value.as_deref().map(str::as_bytes))
            .collect();
        data_row(&mut frames, &values);
    }
    command_complete(&mut frames, tag);
    Answer {
        row_description: description.freeze(),
        rows: frames.freeze(),
    }
}

/// One column of text, a row for each line.
pub(super) fn text_answer(column: &str, lines: &[String], tag: &str) -> Answer {
    let rows: Vec<Vec<Option<String>>> =
        lines.iter().map(|line| vec![Some(line.clone())]).collect();
    rows_answer(&[column], &rows, tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_in_any_case_and_spacing() {
        let explain = |statement, json| Some(Command::Explain { statement, json });
        assert_eq!(
            parse("EXPLAIN (PGSTAR) SELECT 1;"),
            explain("SELECT 1", false)
        );
        assert_eq!(
            parse("explain(pgstar, format json)\nselect (1)"),
            explain("select (1)", true)
        );
        assert_eq!(
            parse(" SHOW pgstar.rollups ; "),
            Some(Command::Show("rollups"))
        );
        assert_eq!(parse("show PGSTAR.Cache"), Some(Command::Show("Cache")));
        assert_eq!(
            parse("/* who */ -- é\nSHOW pgstar.cache"),
            Some(Command::Show("cache"))
        );
    }

    #[test]
    fn what_postgresql_knows_is_left_to_it() {
        for sql in [
            "EXPLAIN SELECT 1",
            "EXPLAIN (ANALYZE) SELECT 1",
            "EXPLAIN (PGSTAR, ANALYZE) SELECT 1",
            "SHOW work_mem",
            "SHOWpgstar.x",
            "SHOW pgstar.rollups; SELECT 1",
            "SHOW pgstar.x.y",
            "EXPLAIN (",
            "SHOW",
            "é",
        ] {
            assert_eq!(parse(sql), None, "{sql}");
        }
    }
}
