//! Statements around a query: EXPLAIN, DECLARE … CURSOR FOR and COPY (…) TO STDOUT.
//!
//! What is around the query stays as it is written, byte for byte; only the query is answered anew.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

/// What a statement does with its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// `EXPLAIN [(…)] query`.
    Explain,
    /// `DECLARE … CURSOR … FOR query`.
    Cursor,
    /// `COPY (query) TO STDOUT …`.
    Copy,
}

/// A statement cut into its query and what is around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wrapped<'a> {
    pub(crate) wrapping: Wrapping,
    pub(crate) before: &'a str,
    pub(crate) query: &'a str,
    pub(crate) after: &'a str,
}

/// The parts of the statement, if it is one of these.
pub(crate) fn wrapped(sql: &str) -> Option<Wrapped<'_>> {
    if !may_be_wrapped(sql) {
        return None;
    }
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, sql)
        .with_unescape(true)
        .tokenize_with_location()
        .ok()?;
    let tokens: Vec<TokenWithSpan> = tokens
        .into_iter()
        .filter(|token| !matches!(token.token, Token::Whitespace(_)))
        .collect();
    let (first, rest) = tokens.split_first()?;
    match keyword(first)?.as_str() {
        "EXPLAIN" => explain(sql, rest),
        "DECLARE" => cursor(sql, rest),
        "COPY" => copy(sql, rest),
        _ => None,
    }
}

/// A look at the text before it is cut into tokens: nearly all statements begin with other words.
fn may_be_wrapped(sql: &str) -> bool {
    let start = sql.trim_start();
    let begins = |word: &str| {
        start
            .get(..word.len())
            .is_some_and(|text| text.eq_ignore_ascii_case(word))
    };
    ["EXPLAIN", "DECLARE", "COPY", "--", "/*"]
        .into_iter()
        .any(begins)
}

fn explain<'a>(sql: &'a str, mut tokens: &[TokenWithSpan]) -> Option<Wrapped<'a>> {
    if let [open, next, ..] = tokens
        && open.token == Token::LParen
        && next.token != Token::LParen
        && !begins_query(next)
    {
        let end = closing(tokens)?;
        tokens = tokens.get(end + 1..)?;
    }
    while let [option, rest @ ..] = tokens
        && matches!(
            keyword(option).as_deref(),
            Some("ANALYZE" | "ANALYSE" | "VERBOSE")
        )
    {
        tokens = rest;
    }
    let first = tokens.first()?;
    let start = offset(sql, first.span.start)?;
    is_query(first).then_some(Wrapped {
        wrapping: Wrapping::Explain,
        before: &sql[..start],
        query: &sql[start..],
        after: "",
    })
}

fn cursor<'a>(sql: &'a str, tokens: &[TokenWithSpan]) -> Option<Wrapped<'a>> {
    let position = |word: &str| {
        let is_word = |token: &TokenWithSpan| keyword(token).as_deref() == Some(word);
        tokens.iter().position(is_word)
    };
    let (cursor, word_for) = (position("CURSOR")?, position("FOR")?);
    let first = tokens.get(word_for + 1)?;
    let start = offset(sql, first.span.start)?;
    (cursor < word_for && is_query(first)).then_some(Wrapped {
        wrapping: Wrapping::Cursor,
        before: &sql[..start],
        query: &sql[start..],
        after: "",
    })
}

fn copy<'a>(sql: &'a str, tokens: &[TokenWithSpan]) -> Option<Wrapped<'a>> {
    if tokens.first()?.token != Token::LParen {
        return None;
    }
    let end = closing(tokens)?;
    let is_word = |position: usize, word: &str| {
        let token = tokens.get(position);
        token.and_then(keyword).as_deref() == Some(word)
    };
    let to_client = is_word(end + 1, "TO") && is_word(end + 2, "STDOUT");
    // What follows must be options, not another statement.
    let semicolons = tokens.get(end..)?.iter();
    let is_one = semicolons
        .filter(|token| token.token == Token::SemiColon)
        .count()
        == usize::from(tokens.last()?.token == Token::SemiColon);
    let first = tokens.get(1)?;
    let start = offset(sql, first.span.start)?;
    let close = offset(sql, tokens.get(end)?.span.start)?;
    (to_client && is_one && is_query(first)).then_some(Wrapped {
        wrapping: Wrapping::Copy,
        before: &sql[..start],
        query: &sql[start..close],
        after: &sql[close..],
    })
}

/// The word in upper case, if it is one without quotes.
fn keyword(token: &TokenWithSpan) -> Option<String> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
        _ => None,
    }
}

fn begins_query(token: &TokenWithSpan) -> bool {
    matches!(
        keyword(token).as_deref(),
        Some("SELECT" | "WITH" | "VALUES" | "TABLE")
    )
}

fn is_query(token: &TokenWithSpan) -> bool {
    token.token == Token::LParen || begins_query(token)
}

/// The position of the parenthesis that closes the first one.
fn closing(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut depth = 0usize;
    for (position, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(position);
                }
            }
            _ => {}
        }
    }
    None
}

/// Where in the text a line and column are, both counted in characters from 1.
fn offset(sql: &str, at: Location) -> Option<usize> {
    let line = usize::try_from(at.line).ok()?.checked_sub(1)?;
    let column = usize::try_from(at.column).ok()?.checked_sub(1)?;
    let before: usize = sql.split_inclusive('\n').take(line).map(str::len).sum();
    let (offset, _) = sql.get(before..)?.char_indices().nth(column)?;
    Some(before + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(sql: &str) -> Option<(Wrapping, &str, &str)> {
        wrapped(sql).map(|found| {
            assert_eq!([found.before, found.query, found.after].concat(), sql);
            (found.wrapping, found.query, found.after)
        })
    }

    #[test]
    fn the_query_is_found() {
        use Wrapping::{Copy, Cursor, Explain};
        for (sql, expected) in [
            ("EXPLAIN SELECT 1", (Explain, "SELECT 1", "")),
            (
                "-- é\nexplain analyze verbose\n  select 1;",
                (Explain, "select 1;", ""),
            ),
            (
                "EXPLAIN (FORMAT JSON, COSTS off) WITH a AS (SELECT 1) TABLE a",
                (Explain, "WITH a AS (SELECT 1) TABLE a", ""),
            ),
            ("EXPLAIN ((SELECT 1))", (Explain, "((SELECT 1))", "")),
            (
                "EXPLAIN (SELECT 1) UNION SELECT 2",
                (Explain, "(SELECT 1) UNION SELECT 2", ""),
            ),
            (
                "DECLARE \"for é\" BINARY CURSOR WITHOUT HOLD FOR SELECT a FROM t FOR UPDATE",
                (Cursor, "SELECT a FROM t FOR UPDATE", ""),
            ),
            (
                "COPY (SELECT '(' AS \")\" FROM t) TO STDOUT WITH (FORMAT csv)",
                (
                    Copy,
                    "SELECT '(' AS \")\" FROM t",
                    ") TO STDOUT WITH (FORMAT csv)",
                ),
            ),
            (
                "COPY /* ( */ (\n SELECT 1) TO stdout;",
                (Copy, "SELECT 1", ") TO stdout;"),
            ),
        ] {
            assert_eq!(cut(sql), Some(expected), "{sql}");
        }
    }

    #[test]
    fn everything_else_is_left_alone() {
        for sql in [
            "SELECT 1",
            "EXPLAIN DELETE FROM t",
            "EXPLAIN EXECUTE p",
            "COPY t TO STDOUT",
            "COPY (SELECT 1) TO PROGRAM 'x'",
            "COPY (DELETE FROM t RETURNING *) TO STDOUT",
            "COPY (SELECT 1) TO STDOUT; SELECT 2",
            "DECLARE c CURSOR",
            "EXPLAIN",
            "COPY (SELECT 1",
            "",
        ] {
            assert_eq!(cut(sql), None, "{sql}");
        }
    }
}
