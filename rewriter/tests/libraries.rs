//! Which rollups have to be built again when the server has other versions of its libraries.
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

#[allow(dead_code)] // Not every test binary needs every helper.
mod harness;

use std::collections::BTreeMap;

use harness::{ddl, default_search_path, schema_sql};
use pgstar_rewriter::catalog::{Catalog, Libraries, Oid};
use pgstar_rewriter::{RollupDefinition, zones_named};

/// The sales on a server of these versions; texts have the database's own collation.
fn catalog(order: &str, clocks: &str) -> Catalog {
    ddl::catalog(&schema_sql("sales")).with_libraries(Libraries {
        orders: BTreeMap::from([(Oid(100), order.to_owned())]),
        clocks: BTreeMap::from([("europe/berlin".to_owned(), clocks.to_owned())]),
    })
}

/// Whether the rollup is another one where (order, clocks) are others.
fn depends(sql: &str) -> (bool, bool) {
    let fingerprint = |order: &str, clocks: &str| {
        let catalog = catalog(order, clocks);
        let path = default_search_path();
        let definition = RollupDefinition::parse("r", sql, &catalog, &path);
        definition.unwrap().fingerprint
    };
    let now = fingerprint("1", "a");
    assert_eq!(now, fingerprint("1", "a"), "{sql}");
    (now != fingerprint("2", "a"), now != fingerprint("1", "b"))
}

#[test]
fn what_is_computed_of_texts_depends_on_their_order() {
    for sql in [
        "SELECT channel, count(*), max(note) FROM orders GROUP BY channel",
        "SELECT upper(note), count(*) FROM orders GROUP BY 1",
        "SELECT channel, count(*) FROM orders WHERE note < 'k' GROUP BY channel",
        "SELECT channel, count(*) FILTER (WHERE note LIKE 'a%') FROM orders GROUP BY channel",
        "SELECT CASE WHEN note >= 'k' THEN 1 END, count(*) FROM orders GROUP BY 1",
    ] {
        assert_eq!(depends(sql), (true, false), "{sql}");
    }
    for sql in [
        "SELECT note, count(*), count(note), max(quantity) FROM orders GROUP BY note",
        "SELECT note, sum(cost) FILTER (WHERE note = 'x' OR note IN ('a', 'b')) FROM orders GROUP BY note",
        "SELECT date_trunc('month', ordered_at), count(*) FROM orders WHERE note IS NOT NULL GROUP BY 1",
    ] {
        assert_eq!(depends(sql), (false, false), "{sql}");
    }
}

#[test]
fn what_clocks_show_depends_on_their_rules() {
    let berlin = "SELECT date_trunc('day', created_at AT TIME ZONE 'Europe/Berlin'), count(*) FROM orders GROUP BY 1";
    assert_eq!(depends(berlin), (false, true));
    let utc =
        "SELECT date_trunc('day', created_at AT TIME ZONE 'UTC'), count(*) FROM orders GROUP BY 1";
    assert_eq!(depends(utc), (false, false));
    assert_eq!(zones_named(berlin), ["day", "europe/berlin"]);
    assert!(zones_named("SELECT date_trunc('day', a) FROM b").is_empty());
}
