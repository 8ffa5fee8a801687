//! The built-in functions that may appear in a rewritten statement, and what proofs need to know of them.
//!
//! Everything else is refused: a function that is volatile, locks, or was written by a user could
//! change an answer or the database.

use crate::types;

/// How a function's result depends on anything but its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Volatility {
    /// On nothing else.
    Immutable,
    /// On session settings such as TimeZone: equal inside one session, and part of the cache key.
    Stable,
    /// On the time at which the transaction began, so that an answer must not be kept.
    Clock,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) volatility: Volatility,
    /// Whether some argument makes it raise an error.
    pub(crate) raises: bool,
    /// The result's type where it does not depend on the arguments.
    pub(crate) returns: Option<u32>,
}

const fn function(
    name: &'static str,
    volatility: Volatility,
    raises: bool,
    returns: Option<u32>,
) -> Function {
    Function {
        name,
        volatility,
        raises,
        returns,
    }
}

use Volatility::{Clock, Immutable, Stable};

/// The constructor of rows. Only `count(DISTINCT (a, b))` makes one: what compares rows, or asks whether they are NULL, looks
/// into them.
pub(crate) const ROW: &str = "row";

const FUNCTIONS: &[Function] = &[
    function("abs", Immutable, true, None),
    function("btrim", Immutable, false, Some(types::TEXT)),
    function("ceil", Immutable, false, None),
    function("ceiling", Immutable, false, None),
    function("char_length", Immutable, false, Some(types::INT4)),
    function("coalesce", Immutable, false, None),
    function("concat", Stable, false, Some(types::TEXT)),
    function("current_date", Clock, false, Some(types::DATE)),
    function("current_timestamp", Clock, false, Some(types::TIMESTAMPTZ)),
    function("date_bin", Immutable, true, None),
    // Immutable over timestamp, stable over timestamptz and date: see `is_stable`.
    function("date_part", Immutable, true, Some(types::FLOAT8)),
    function("date_trunc", Immutable, true, None),
    function("floor", Immutable, false, None),
    function("greatest", Immutable, false, None),
    function("initcap", Immutable, false, Some(types::TEXT)),
    function("least", Immutable, false, None),
    function("left", Immutable, false, Some(types::TEXT)),
    function("length", Immutable, false, Some(types::INT4)),
    function("localtimestamp", Clock, false, Some(types::TIMESTAMP)),
    function("lower", Immutable, false, Some(types::TEXT)),
    function("ltrim", Immutable, false, Some(types::TEXT)),
    function("md5", Immutable, false, Some(types::TEXT)),
    function("mod", Immutable, true, None),
    function("now", Clock, false, Some(types::TIMESTAMPTZ)),
    function("nullif", Immutable, false, None),
    function("replace", Immutable, false, Some(types::TEXT)),
    function("reverse", Immutable, false, Some(types::TEXT)),
    function("right", Immutable, false, Some(types::TEXT)),
    function("round", Immutable, false, None),
    function(ROW, Immutable, false, None),
    function("rtrim", Immutable, false, Some(types::TEXT)),
    function("split_part", Immutable, true, Some(types::TEXT)),
    function("starts_with", Immutable, false, Some(types::BOOL)),
    function("strpos", Immutable, false, Some(types::INT4)),
    function("substr", Immutable, true, Some(types::TEXT)),
    function("substring", Immutable, true, Some(types::TEXT)),
    function("timezone", Immutable, true, None),
    function("to_char", Stable, true, Some(types::TEXT)),
    function("to_date", Stable, true, Some(types::DATE)),
    function("to_timestamp", Stable, true, Some(types::TIMESTAMPTZ)),
    function("trunc", Immutable, false, None),
    function("upper", Immutable, false, Some(types::TEXT)),
];

/// Functions that are written without parentheses.
pub(crate) fn has_no_parentheses(name: &str) -> bool {
    matches!(
        name,
        "current_date" | "current_timestamp" | "localtimestamp"
    )
}

/// Whether a NULL argument makes the result NULL.
pub(crate) fn is_strict(name: &str) -> bool {
    !matches!(
        name,
        "coalesce" | "concat" | "greatest" | "least" | "nullif" | "row"
    )
}

/// The function of this (lower-case) name, if it is one of those that pgstar knows.
pub(crate) fn lookup(name: &str) -> Option<&'static Function> {
    let index = FUNCTIONS
        .binary_search_by(|function| function.name.cmp(name))
        .ok()?;
    FUNCTIONS.get(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_so_that_lookup_finds_every_name() {
        assert!(FUNCTIONS.is_sorted_by(|a, b| a.name < b.name));
        assert!(
            FUNCTIONS
                .iter()
                .all(|function| lookup(function.name).is_some())
        );
    }
}
