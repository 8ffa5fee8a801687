//! Whether a text may aggregate: a scan for words, no parsing. It must not know where the text comes from.

use std::sync::LazyLock;

use crate::words::Words;

/// Words of which a query that aggregates, or removes duplicates, has at least one.
static WORDS: LazyLock<Words> = LazyLock::new(|| {
    Words::of([
        "sum",
        "count",
        "group",
        "avg",
        "min",
        "max",
        "distinct",
        "bool_",
        "every",
        "var",
        "stddev",
        "_agg",
        "percentile",
        "bit_",
        "mode",
    ])
});

/// Whether the text has any of the words.
pub fn may_be_in(text: &[u8]) -> bool {
    WORDS.are_in(text)
}
