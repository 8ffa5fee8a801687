//! Whether a statement leaves nothing in its session that `DISCARD ALL` does not undo, judged by its words alone.
//!
//! Most of what a session keeps is undone: settings, prepared statements, locks. Some is not: a setting with a dot in
//! its name stays defined, a temporary schema stays attached. So a backend is used again only if its session ran
//! nothing but statements of the few kinds below. Whatever is not understood is not harmless, which costs a backend
//! and never an answer. What operators, views and policies may run unseen is for [`super::traces`].

use std::collections::HashSet;

use memchr::memchr;

/// Names of built-in functions that change nothing: PostgreSQL's own word, by their volatility.
pub type Functions = HashSet<Box<[u8]>>;

/// Longer statements are not looked at.
const STATEMENT_BYTES_MAX: usize = 64 * 1024;

/// PostgreSQL cuts longer names off; none of the words and names below is as long.
const NAME_BYTES_MAX: usize = 63;

/// Words that may stand before a parenthesis and call no function.
const CALL_NOTHING: &[&[u8]] = &[
    b"all",
    b"analyze",
    b"and",
    b"any",
    b"array",
    b"as",
    b"asc",
    b"between",
    b"bit",
    b"by",
    b"case",
    b"cast",
    b"char",
    b"character",
    b"coalesce",
    b"costs",
    b"cube",
    b"dec",
    b"decimal",
    b"desc",
    b"distinct",
    b"else",
    b"except",
    b"exists",
    b"explain",
    b"fetch",
    b"filter",
    b"first",
    b"float",
    b"from",
    b"greatest",
    b"group",
    b"grouping",
    b"having",
    b"ilike",
    b"in",
    b"intersect",
    b"interval",
    b"is",
    b"isnull",
    b"join",
    b"lateral",
    b"least",
    b"like",
    b"limit",
    b"materialized",
    b"nchar",
    b"next",
    b"not",
    b"notnull",
    b"nullif",
    b"numeric",
    b"of",
    b"offset",
    b"on",
    b"only",
    b"or",
    b"over",
    b"partition",
    b"precision",
    b"rollup",
    b"row",
    b"select",
    b"sets",
    b"similar",
    b"some",
    b"symmetric",
    b"tablesample",
    b"then",
    b"time",
    b"timestamp",
    b"to",
    b"union",
    b"using",
    b"values",
    b"varchar",
    b"when",
    b"where",
    b"window",
    b"with",
    b"within",
];

/// Words that make of a SELECT something else, or let it write.
const NOT_IN_SELECT: &[&[u8]] = &[
    b"alter",
    b"call",
    b"copy",
    b"create",
    b"declare",
    b"delete",
    b"do",
    b"drop",
    b"execute",
    b"for",
    b"grant",
    b"insert",
    b"into",
    b"listen",
    b"lock",
    b"merge",
    b"prepare",
    b"truncate",
    b"update",
];

/// Functions that PostgreSQL calls volatile, and that leave nothing in a session all the same.
const VOLATILE_BUT_HARMLESS: [&[u8]; 5] = [
    b"clock_timestamp",
    b"gen_random_uuid",
    b"pg_sleep",
    b"random",
    b"timeofday",
];

/// A piece of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    /// A word, in letters of any case.
    Word(&'a [u8]),
    /// A name in double quotes.
    Quoted(&'a [u8]),
    Constant,
    Mark(u8),
}

/// This reader might read other than PostgreSQL does.
struct Unreadable;

/// Whether the statement is one whose every trace `DISCARD ALL` removes.
pub fn is_harmless(sql: &str, functions: &Functions) -> bool {
    sql.len() <= STATEMENT_BYTES_MAX && judge(sql, functions).unwrap_or(false)
}

fn judge(sql: &str, functions: &Functions) -> Result<bool, Unreadable> {
    let mut tokens = Tokens::of(sql);
    let mut first = tokens.next()?;
    let begins_with_parenthesis = first == Some(Token::Mark(b'('));
    while first == Some(Token::Mark(b'(')) {
        first = tokens.next()?;
    }
    match first {
        None => Ok(!begins_with_parenthesis),
        Some(Token::Mark(b';')) => Ok(!begins_with_parenthesis && tokens.are_over()?),
        Some(Token::Word(word)) => match Kind::of(word) {
            Some(kind) if !begins_with_parenthesis || word.eq_ignore_ascii_case(b"select") => {
                kind.is_harmless(first, tokens, functions)
            }
            _ => Ok(false),
        },
        Some(_) => Ok(false),
    }
}

/// What a statement is, by its first word.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Transaction,
    Set,
    Query,
    /// Nothing that may follow its first word matters.
    Any,
}

impl Kind {
    /// `None` for a statement of another kind.
    fn of(word: &[u8]) -> Option<Kind> {
        let mut buffer = [0; NAME_BYTES_MAX];
        Some(match lower_case(word, &mut buffer)? {
            b"begin" | b"start" | b"commit" | b"end" | b"rollback" | b"abort" => Kind::Transaction,
            b"set" => Kind::Set,
            b"select" | b"with" | b"values" | b"table" | b"explain" => Kind::Query,
            b"savepoint" | b"release" | b"show" => Kind::Any,
            _ => return None,
        })
    }

    /// Whether a statement of the kind, with these tokens behind its first, is harmless.
    fn is_harmless(
        self,
        first: Option<Token<'_>>,
        mut tokens: Tokens<'_>,
        functions: &Functions,
    ) -> Result<bool, Unreadable> {
        let mut before = [None, None, first];
        while let Some(token) = tokens.next()? {
            let may_follow = match self {
                _ if token == Token::Mark(b';') => return tokens.are_over(),
                // A prepared transaction outlives its session.
                Kind::Transaction => !token.is_one_of(&[b"prepared"]),
                Kind::Set => may_be_set(before, token),
                Kind::Query => may_be_asked(before, token, functions),
                Kind::Any => true,
            };
            if !may_follow {
                return Ok(false);
            }
            before = [before[1], before[2], Some(token)];
        }
        Ok(true)
    }
}

/// The three tokens before one, the nearest last.
type Before<'a> = [Option<Token<'a>>; 3];

/// A setting without a dot in its name, and neither the role nor the session's user. A name in quotes may be any of these,
/// so only values have them.
fn may_be_set(before: Before<'_>, token: Token<'_>) -> bool {
    match token {
        Token::Word(_) => !token.is_one_of(&[b"authorization", b"role"]),
        Token::Quoted(_) => before[2].is_some_and(|last| {
            matches!(last, Token::Mark(b'=' | b',')) || last.is_one_of(&[b"to"])
        }),
        Token::Constant => true,
        Token::Mark(mark) => mark != b'.',
    }
}

fn may_be_asked(before: Before<'_>, token: Token<'_>, functions: &Functions) -> bool {
    match (token, before[2]) {
        (Token::Mark(b'('), Some(called @ (Token::Word(_) | Token::Quoted(_)))) => {
            is_harmless_call(before, called, functions)
        }
        _ => !token.is_one_of(NOT_IN_SELECT),
    }
}

/// Whether the last of these before a parenthesis is a keyword, or a function that leaves nothing.
fn is_harmless_call(before: Before<'_>, called: Token<'_>, functions: &Functions) -> bool {
    let is_known = || {
        called.is_named(|name| functions.contains(name) || VOLATILE_BUT_HARMLESS.contains(&name))
    };
    if before[1] == Some(Token::Mark(b'.')) {
        let is_built_in = |schema: Token<'_>| schema.is_named(|name| name == b"pg_catalog");
        return before[0].is_some_and(is_built_in) && is_known();
    }
    called.is_one_of(CALL_NOTHING) || is_known()
}

impl Token<'_> {
    /// Whether it is one of these words.
    fn is_one_of(self, words: &[&[u8]]) -> bool {
        match self {
            Token::Word(word) => words.iter().any(|one| word.eq_ignore_ascii_case(one)),
            _ => false,
        }
    }

    /// Whether it is a name, of which this is true.
    fn is_named(self, is_it: impl Fn(&[u8]) -> bool) -> bool {
        let mut buffer = [0; NAME_BYTES_MAX];
        match self {
            Token::Word(word) => lower_case(word, &mut buffer).is_some_and(is_it),
            Token::Quoted(name) => is_it(name),
            Token::Constant | Token::Mark(_) => false,
        }
    }
}

/// The word in lower case; `None` if it is too long for a name.
fn lower_case<'a>(word: &[u8], buffer: &'a mut [u8; NAME_BYTES_MAX]) -> Option<&'a [u8]> {
    let lower = buffer.get_mut(..word.len())?;
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    Some(lower)
}

/// The tokens of a statement that are still to be read.
struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Tokens<'a> {
    fn of(sql: &'a str) -> Self {
        Tokens {
            rest: sql.as_bytes(),
        }
    }

    /// Whether nothing but semicolons follows.
    fn are_over(&mut self) -> Result<bool, Unreadable> {
        while let Some(token) = self.next()? {
            if token != Token::Mark(b';') {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, Unreadable> {
        self.skip_blank()?;
        let Some(first) = self.rest.first() else {
            return Ok(None);
        };
        let token = match first {
            b'\'' => self.string()?,
            b'"' => self.quoted()?,
            b'0'..=b'9' => self.number()?,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => self.word()?,
            b'$' => self.parameter()?,
            mark if mark.is_ascii_graphic() && *mark != b'\\' => Token::Mark(self.take(1)[0]),
            _ => return Err(Unreadable),
        };
        Ok(Some(token))
    }

    fn skip_blank(&mut self) -> Result<(), Unreadable> {
        loop {
            self.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c'));
            match self.rest {
                [b'-', b'-', ..] => self.take_while(|byte| byte != b'\n'),
                [b'/', b'*', ..] => self.skip_comment()?,
                _ => return Ok(()),
            };
        }
    }

    /// A comment, in which others may be nested.
    fn skip_comment(&mut self) -> Result<&'a [u8], Unreadable> {
        let mut depth = 0_usize;
        loop {
            match self.rest {
                [b'/', b'*', ..] => depth += 1,
                [b'*', b'/', ..] => depth -= 1,
                [_, _, ..] => {
                    self.take(1);
                    continue;
                }
                _ => return Err(Unreadable),
            }
            let ends = self.take(2);
            if depth == 0 {
                return Ok(ends);
            }
        }
    }

    fn word(&mut self) -> Result<Token<'a>, Unreadable> {
        let is_inside =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..);
        let word = self.take_while(is_inside);
        // U&"…" and U&'…' have escapes of their own.
        match word.eq_ignore_ascii_case(b"u") && self.rest.starts_with(b"&") {
            true => Err(Unreadable),
            false => Ok(Token::Word(word)),
        }
    }

    fn quoted(&mut self) -> Result<Token<'a>, Unreadable> {
        let name = self.enclosed()?;
        // A doubled quotation mark inside a name.
        match self.rest.starts_with(b"\"") {
            true => Err(Unreadable),
            false => Ok(Token::Quoted(name)),
        }
    }

    /// A string. A backslash means one thing or another, by a setting.
    fn string(&mut self) -> Result<Token<'a>, Unreadable> {
        let inside = self.enclosed()?;
        match inside.contains(&b'\\') {
            true => Err(Unreadable),
            false => Ok(Token::Constant),
        }
    }

    /// A number. Before version 15 it may be followed by a word at once.
    fn number(&mut self) -> Result<Token<'a>, Unreadable> {
        let number = self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
        let mut letters = number.iter().filter(|byte| byte.is_ascii_alphabetic());
        match (letters.next(), letters.next()) {
            (None | Some(b'e' | b'E'), None) => Ok(Token::Constant),
            _ => Err(Unreadable),
        }
    }

    /// A parameter; a dollar-quoted string is none.
    fn parameter(&mut self) -> Result<Token<'a>, Unreadable> {
        self.take(1);
        match self.take_while(|byte| byte.is_ascii_digit()) {
            [] => Err(Unreadable),
            _ => Ok(Token::Constant),
        }
    }

    /// What is between the next byte and the one that is the same.
    fn enclosed(&mut self) -> Result<&'a [u8], Unreadable> {
        let mark = self.take(1)[0];
        let end = memchr(mark, self.rest).ok_or(Unreadable)?;
        let inside = self.take(end);
        self.take(1);
        Ok(inside)
    }

    fn take_while(&mut self, is_inside: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !is_inside(*byte));
        self.take(end.unwrap_or(self.rest.len()))
    }

    /// The next so many bytes, which there are.
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        taken
    }
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
        .map(|name| Box::from(name.as_bytes()))
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
            "SET search_path TO \"a.b\", \"role\", public",
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
            "((SELECT 1)) ;; -- over",
            "SELECT 1e5, 1.5E-3, $1, PG_CATALOG.LOWER('a')",
            "SAVEPOINT \"a b\"",
            "END AND CHAIN",
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
            "SET LOCAL \"my.setting\" = 'x'",
            "SET SESSION \"Role\" = 'ann'",
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
            "SELECT 1into TEMP t",
            "SELECT 0x1F",
            "SELECT 1 INTO TEMP t;;",
            "; SELECT 1",
            "( ; )",
            "((SET my.setting = 'x'))",
            "SET \"search_path\" = x",
            "SELECT 1 /* a /* b */ ; SET my.setting = 'x'",
            "SELECT (pg_catalog) . set_config('my.setting', 'x', true)",
            "SELECT mine . sum(1)",
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
