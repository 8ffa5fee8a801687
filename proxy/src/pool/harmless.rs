//! Whether a statement leaves nothing in its session that `DISCARD ALL` does not undo, judged by its words alone.
//!
//! Most of what a session keeps is undone: settings, prepared statements, locks. Some is not: a setting with a dot in
//! its name stays defined, a temporary schema stays attached. So a backend is used again only if its session ran
//! nothing but statements of the few kinds below. Whatever is not understood is not harmless, which costs a backend
//! and never an answer. What operators, views and policies may run unseen is for [`super::traces`].

use std::collections::HashSet;

/// Names of built-in functions that change nothing: PostgreSQL's own word, by their volatility.
pub type Functions = HashSet<Box<str>>;

/// Longer statements are not looked at.
const STATEMENT_BYTES_MAX: usize = 64 * 1024;

/// Words that may stand before a parenthesis and call no function.
const CALL_NOTHING: [&str; 71] = [
    "all",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "between",
    "bit",
    "by",
    "case",
    "cast",
    "char",
    "character",
    "costs",
    "cube",
    "dec",
    "decimal",
    "desc",
    "distinct",
    "else",
    "except",
    "exists",
    "explain",
    "fetch",
    "filter",
    "first",
    "float",
    "from",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "intersect",
    "interval",
    "is",
    "isnull",
    "join",
    "lateral",
    "like",
    "limit",
    "materialized",
    "nchar",
    "next",
    "not",
    "notnull",
    "nullif",
    "numeric",
    "of",
    "offset",
    "on",
    "only",
    "or",
    "over",
    "partition",
    "precision",
    "rollup",
    "row",
    "select",
    "sets",
    "similar",
    "some",
    "then",
    "time",
    "timestamp",
    "to",
    "union",
    "using",
    "values",
    "varchar",
];
/// More of them.
const CALL_NOTHING_MORE: [&str; 10] = [
    "when",
    "where",
    "within",
    "with",
    "window",
    "coalesce",
    "greatest",
    "least",
    "symmetric",
    "tablesample",
];

/// Words that make of a SELECT something else, or let it write.
const NOT_IN_SELECT: [&str; 19] = [
    "alter", "call", "copy", "create", "declare", "delete", "do", "drop", "execute", "for",
    "grant", "insert", "into", "listen", "lock", "merge", "prepare", "truncate", "update",
];

/// Functions that PostgreSQL calls volatile, and that leave nothing in a session all the same.
const VOLATILE_BUT_HARMLESS: [&str; 5] = [
    "clock_timestamp",
    "gen_random_uuid",
    "pg_sleep",
    "random",
    "timeofday",
];

/// A piece of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A word, in lower case.
    Word(String),
    /// A name in double quotes.
    Quoted(String),
    Constant,
    Mark(char),
}

/// Whether the statement is one whose every trace `DISCARD ALL` removes.
pub fn is_harmless(sql: &str, functions: &Functions) -> bool {
    if sql.len() > STATEMENT_BYTES_MAX {
        return false;
    }
    let Some(mut tokens) = tokens(sql) else {
        return false;
    };
    while tokens.last() == Some(&Token::Mark(';')) {
        tokens.pop();
    }
    if tokens.contains(&Token::Mark(';')) {
        return false;
    }
    match first_word(&tokens) {
        None => tokens.is_empty(),
        Some("begin" | "start" | "commit" | "end" | "rollback" | "abort") => {
            // A prepared transaction outlives its session.
            !has_word(&tokens, "prepared")
        }
        Some("savepoint" | "release" | "show") => true,
        Some("set") => is_harmless_set(&tokens),
        Some("select" | "with" | "values" | "table" | "explain") => {
            is_harmless_select(&tokens, functions)
        }
        Some(_) => false,
    }
}

/// The first word, behind parentheses that a SELECT may begin with.
fn first_word(tokens: &[Token]) -> Option<&str> {
    let first = tokens.iter().find(|token| **token != Token::Mark('('))?;
    let begins_with_select = tokens.first() == Some(&Token::Mark('('));
    match first {
        Token::Word(word) if !begins_with_select || word == "select" => Some(word),
        _ => Some(""),
    }
}

fn has_word(tokens: &[Token], word: &str) -> bool {
    tokens
        .iter()
        .any(|token| matches!(token, Token::Word(found) if found == word))
}

/// A setting without a dot in its name, and neither the role nor the session's user.
fn is_harmless_set(tokens: &[Token]) -> bool {
    let is_dotted = tokens.contains(&Token::Mark('.'));
    let is_of_role = has_word(tokens, "role") || has_word(tokens, "authorization");
    let name = tokens.get(1);
    !is_dotted && !is_of_role && matches!(name, Some(Token::Word(_)))
}

fn is_harmless_select(tokens: &[Token], functions: &Functions) -> bool {
    if NOT_IN_SELECT.iter().any(|word| has_word(tokens, word)) {
        return false;
    }
    tokens.iter().enumerate().all(|(at, token)| {
        let is_called = tokens.get(at + 1) == Some(&Token::Mark('('));
        match token {
            Token::Word(name) | Token::Quoted(name) if is_called => {
                is_harmless_call(&tokens[..at], token, name, functions)
            }
            _ => true,
        }
    })
}

fn is_harmless_call(before: &[Token], token: &Token, name: &str, functions: &Functions) -> bool {
    if let [.., qualifier, Token::Mark('.')] = before {
        let is_built_in =
            matches!(qualifier, Token::Word(it) | Token::Quoted(it) if it == "pg_catalog");
        return is_built_in && is_known(name, functions);
    }
    let is_keyword = matches!(token, Token::Word(_))
        && (CALL_NOTHING.contains(&name) || CALL_NOTHING_MORE.contains(&name));
    is_keyword || is_known(name, functions)
}

fn is_known(name: &str, functions: &Functions) -> bool {
    functions.contains(name) || VOLATILE_BUT_HARMLESS.contains(&name)
}

/// The statement's tokens; `None` where this reader might read other than PostgreSQL does.
fn tokens(sql: &str) -> Option<Vec<Token>> {
    let mut tokens = vec![];
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let (token, left) = match first {
            ' ' | '\t' | '\n' | '\r' | '\x0c' => (None, &rest[1..]),
            '-' if rest.starts_with("--") => (None, rest.split_once('\n').map_or("", |it| it.1)),
            '/' if rest.starts_with("/*") => (None, after_comment(rest)?),
            '\'' => (Some(Token::Constant), after_string(rest)?),
            '"' => quoted(rest)?,
            '0'..='9' => {
                let end = rest
                    .find(|it: char| !it.is_ascii_alphanumeric() && it != '.')
                    .unwrap_or(rest.len());
                (Some(Token::Constant), &rest[end..])
            }
            'a'..='z' | 'A'..='Z' | '_' | '\u{80}'.. => word(rest)?,
            '$' => (Some(Token::Constant), after_parameter(rest)?),
            mark if mark.is_ascii_graphic() && mark != '\\' => {
                (Some(Token::Mark(mark)), &rest[1..])
            }
            _ => return None,
        };
        tokens.extend(token);
        rest = left;
    }
    Some(tokens)
}

fn word(rest: &str) -> Option<(Option<Token>, &str)> {
    let is_inside =
        |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '$' || !it.is_ascii();
    let end = rest.find(|it| !is_inside(it)).unwrap_or(rest.len());
    let (word, left) = rest.split_at(end);
    let word = word.to_ascii_lowercase();
    // U&"…" and U&'…' have escapes of their own.
    if word == "u" && left.starts_with('&') {
        return None;
    }
    Some((Some(Token::Word(word)), left))
}

fn quoted(rest: &str) -> Option<(Option<Token>, &str)> {
    let end = 1 + rest[1..].find('"')?;
    let left = &rest[end + 1..];
    // A doubled quotation mark inside a name.
    if left.starts_with('"') {
        return None;
    }
    Some((Some(Token::Quoted(rest[1..end].to_owned())), left))
}

/// What follows a parameter; a dollar-quoted string is none.
fn after_parameter(rest: &str) -> Option<&str> {
    let left = rest[1..].trim_start_matches(|it: char| it.is_ascii_digit());
    (left.len() < rest.len() - 1).then_some(left)
}

/// What follows a string. A backslash means one thing or another, by a setting.
fn after_string(rest: &str) -> Option<&str> {
    let end = 1 + rest[1..].find('\'')?;
    let inside = &rest[1..end];
    (!inside.contains('\\')).then_some(&rest[end + 1..])
}

/// What follows a comment, in which others may be nested.
fn after_comment(rest: &str) -> Option<&str> {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        match rest.as_bytes().get(at..at + 2) {
            Some(b"/*") => {
                depth += 1;
                at += 2;
            }
            Some(b"*/") => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return rest.get(at..);
                }
            }
            Some(_) => at += 1,
            None => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions() -> Functions {
        [
            "sum",
            "count",
            "date_trunc",
            "lower",
            "version",
            "current_schema",
            "extract",
            "to_timestamp",
        ]
        .into_iter()
        .map(Box::from)
        .collect()
    }

    #[test]
    fn dashboards_are_harmless() {
        for sql in [
            "",
            " ; ",
            "BEGIN",
            "ROLLBACK;",
            "start transaction isolation level serializable, read only",
            "SHOW transaction isolation level",
            "set search_path = \"ssb\"",
            "SET LOCAL TimeZone TO 'Europe/Berlin'",
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "select pg_catalog.version()",
            "/* who: 'me' /* nested */ */ SELECT 1 -- why\n",
            "SELECT DATE_TRUNC('MONTH', ts) AS ts, SUM(\"a b\") FROM (SELECT * FROM x.y) AS v WHERE a IN ('x''y', 'z') \
             AND ts >= TO_TIMESTAMP('2023-01-01', 'YYYY-MM-DD') GROUP BY 1 HAVING ((COUNT(*) > 1.5e3)) LIMIT 10",
            "WITH x AS (SELECT 1) SELECT count(*) FILTER (WHERE a) OVER (PARTITION BY b) FROM x",
            "(SELECT 1) UNION ALL (SELECT 2)",
            "SELECT CAST(a AS NUMERIC(10, 2)), extract(year FROM b), EXISTS (SELECT 1), random() FROM t",
            "EXPLAIN (ANALYZE, COSTS off) SELECT 1",
            "VALUES (1), (2)",
            "SELECT $1 + $2",
            "TABLE t",
        ] {
            assert!(is_harmless(sql, &functions()), "{sql}");
        }
    }

    #[test]
    fn what_a_reset_does_not_undo_is_not() {
        for sql in [
            "SET my.setting = 'x'",
            "SET \"my.setting\" = 'x'",
            "SET LOCAL my.setting = 'x'",
            "SELECT set_config('my.setting', 'x', true)",
            "SELECT pg_catalog.set_config('my.setting', 'x', true)",
            "SELECT \"set_config\"('my.setting', 'x', true)",
            "SELECT set_config /* call */ ('my.setting', 'x', true)",
            "SELECT mine.lower('x')",
            "SELECT f(1)",
            "SELECT sum(f(1))",
            "SET ROLE ann",
            "SET SESSION AUTHORIZATION ann",
            "CREATE TEMP TABLE t (x int)",
            "SELECT 1 INTO t",
            "WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x",
            "SELECT * FROM t FOR UPDATE",
            "LISTEN x",
            "DO 'BEGIN END'",
            "PREPARE TRANSACTION 'x'",
            "COMMIT PREPARED 'x'",
            "LOAD 'x'",
            "SELECT 1; SET my.setting = 'x'",
            "SELECT $$x$$",
            "SELECT $tag$x$tag$",
            "SELECT E'\\'', set_config('a.b', 'c', true), '",
            "SELECT 'a\\', set_config('a.b', 'c', true), '",
            "SELECT U&\"\\0073et_config\"('a.b', 'c', true)",
            "SELECT 1 /* unended",
            "SELECT 'unended",
            "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
            "(INSERT INTO t VALUES (1))",
            "*",
        ] {
            assert!(!is_harmless(sql, &functions()), "{sql}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let text = "SELECT 'é', \"ü\" /* ß */ FROM t -- ö\n WHERE f(1.5) = E'x' ; U& $ \\";
        for (start, _) in text.char_indices() {
            for (end, _) in text.char_indices().filter(|(end, _)| *end >= start) {
                is_harmless(&text[start..end], &functions());
                is_harmless(&format!("SELECT {}", &text[start..end]), &functions());
            }
        }
    }
}
