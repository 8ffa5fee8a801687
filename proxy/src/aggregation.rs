//! Whether a text may aggregate: a scan for words, no parsing. It must not know where the text comes from.

use std::sync::LazyLock;

use crate::words::Words;

/// Words of which a query that aggregates, or removes duplicates, has at least one, unless it has one of the others. Within a
/// longer word they say nothing: `accounts`, `country` and `minute` are common names.
const WORDS: [&str; 9] = [
    "sum", "count", "group", "avg", "min", "max", "distinct", "every", "mode",
];

/// Parts of the names of aggregates.
const PARTS: [&str; 6] = ["bool_", "var", "stddev", "_agg", "percentile", "bit_"];

static ALL: LazyLock<Words> = LazyLock::new(|| Words::of(WORDS.into_iter().chain(PARTS)));

/// Whether the text has any of the words.
pub fn may_be_in(text: &[u8]) -> bool {
    ALL.are_in_with_whole(text, WORDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_part_of_another() {
        let all = || WORDS.into_iter().chain(PARTS);
        for word in all() {
            let within = all().filter(|other| other.contains(word));
            assert_eq!(within.count(), 1, "{word}");
        }
    }

    #[test]
    fn words_count_whole_and_parts_anywhere() {
        for text in [
            "SELECT Count(*) FROM t",
            "select pg_catalog.\"sum\"(a)",
            "select regr_count(a, b)",
            "select 1 from accounts group by a",
            "select Covar_pop(a, b)",
            "select json_agg(a)",
            "SELECT DISTINCT",
            "select groupercentile(a)",
            "select min(a) from maxima_min",
        ] {
            assert!(may_be_in(text.as_bytes()), "{text}");
        }
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 1",
            "select country, minute from maxima",
            "select \u{e9}sum from t",
            "",
        ] {
            assert!(!may_be_in(text.as_bytes()), "{text}");
        }
    }
}
