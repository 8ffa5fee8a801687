//! Whether a statement's text is worth a decision at all: a scan of bytes, no parsing.
//!
//! A statement that could be served groups, aggregates or removes duplicates, or names a view that does, and
//! names a table or view: one of the rollups', or for the cache alone any. Everything else is relayed without a
//! question to the session.

use std::sync::LazyLock;

use crate::aggregation;
use crate::warehouse::Snapshot;
use crate::words::Words;

static OWN_NAME: LazyLock<Words> = LazyLock::new(|| Words::of(["pgstar"]));

/// What a text may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing for pgstar.
    No,
    /// A statement that no rollup answers; its answer may be kept.
    Keepable,
    /// A statement that pgstar may answer.
    Answerable,
}

pub(super) fn look(sql: &[u8], snapshot: &Snapshot) -> Look {
    let word = first_word(sql);
    let is_ours = || is_one_of(word, &[b"explain", b"show"]) && OWN_NAME.are_in(sql);
    if is_ours() {
        return Look::Answerable;
    }
    let may_hold_query = || {
        let words: [&[u8]; 5] = [b"select", b"with", b"explain", b"declare", b"copy"];
        is_one_of(word, &words) || skip_blank(sql).starts_with(b"(")
    };
    let aggregates = || aggregation::may_be_in(sql) || snapshot.aggregating_views.are_in(sql);
    if !may_hold_query() || !aggregates() {
        return Look::No;
    }
    if snapshot.base_tables.are_in(sql) {
        Look::Answerable
    } else if snapshot.any_tables.are_in(sql) {
        Look::Keepable
    } else {
        Look::No
    }
}

/// The word that the text begins with after white space and comments; empty if it begins with something else.
pub(super) fn first_word(sql: &[u8]) -> &[u8] {
    let sql = skip_blank(sql);
    let is_over = |byte: &u8| !byte.is_ascii_alphanumeric() && *byte != b'_';
    &sql[..sql.iter().position(is_over).unwrap_or(sql.len())]
}

/// Whether the word, in any case, is one of these (in lower case).
pub(super) fn is_one_of(word: &[u8], words: &[&[u8]]) -> bool {
    words.iter().any(|one| word.eq_ignore_ascii_case(one))
}

/// The text after leading white space and comments. A comment inside a comment ends the search early,
/// which only means that the statement is relayed.
pub(super) fn skip_blank(mut sql: &[u8]) -> &[u8] {
    loop {
        sql = sql.trim_ascii_start();
        let end = match sql {
            [b'-', b'-', ..] => sql.iter().position(|byte| *byte == b'\n').map(|at| at + 1),
            [b'/', b'*', ..] => sql
                .windows(2)
                .position(|pair| pair == b"*/")
                .map(|at| at + 2),
            _ => return sql,
        };
        match end.and_then(|end| sql.get(end..)) {
            Some(rest) => sql = rest,
            None => return &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            base_tables: Words::of(["lineorder", "revenue_by_year", "lines_of_today"]),
            aggregating_views: Words::of(["revenue_by_year"]),
            any_tables: Words::of(["other_table"]),
            ..Snapshot::default()
        }
    }

    #[test]
    fn aggregations_over_a_rollups_table_are_candidates() {
        for sql in [
            "SELECT sum(a) FROM lineorder",
            "  /* who */ select count(*) from ssb.\"lineorder\"",
            "-- a comment\nWITH x AS (SELECT DISTINCT c FROM LineOrder) SELECT * FROM x",
            "EXPLAIN (PGSTAR) SELECT 1",
            "show pgstar.rollups;",
            "EXPLAIN SELECT sum(a) FROM lineorder",
            "declare c cursor for select max(a) from lineorder",
            "COPY (SELECT max(a) FROM lineorder) TO STDOUT",
            "(SELECT max(a) FROM lineorder)",
            "SELECT * FROM ssb.Revenue_by_Year ORDER BY 1",
        ] {
            assert_eq!(look(sql.as_bytes(), &snapshot()), Look::Answerable, "{sql}");
        }
    }

    #[test]
    fn answers_about_other_tables_may_be_kept() {
        let sql = b"SELECT DISTINCT a FROM Other_Table";
        assert_eq!(look(sql, &snapshot()), Look::Keepable);
    }

    #[test]
    fn everything_else_is_relayed_unasked() {
        for sql in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 1",
            "SELECT sum(a) FROM other",
            "SELECT a FROM lineorder",
            "SELECT * FROM lines_of_today",
            "INSERT INTO lineorder SELECT sum(a) FROM lineorder",
            "SELECTED count lineorder",
            "SET pgstar.freshness = 'any'",
            "",
            "/* never ends",
        ] {
            assert_eq!(look(sql.as_bytes(), &snapshot()), Look::No, "{sql}");
        }
    }
}
