//! The 22 queries of TPC-H, through pgstar and straight to PostgreSQL: every answer is the same, byte for byte, and at least
//! so many come from rollups. The queries, their data and the rollups are in loadtest/tpch.
//!
//! `make tpch` runs it at a larger scale, and prints what was answered by what.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::fmt::Write as _;

use e2e_support::corpus::{self, decided, difference, from_environment, paragraphs};
use e2e_support::{Database, ok};

const SCHEMA: &str = include_str!("../../loadtest/tpch/schema.sql");
const DATA: &str = include_str!("../../loadtest/tpch/data.sql");
const QUERIES: &str = include_str!("../../loadtest/tpch/queries.sql");
const CONFIG: &str = include_str!("../../loadtest/tpch/pgstar.toml");
/// Queries that no rollup answers today, each with the reason that is given first.
const REFUSED: &str = include_str!("../../loadtest/tpch/refused.txt");

#[tokio::test(flavor = "multi_thread")]
async fn tpch_is_answered_as_postgresql_answers_it() {
    let scale = from_environment("PGSTAR_TPCH_SCALE", "0.002");
    let database = Database::with(SCHEMA).await;
    // One by one, so that each has its own time.
    let mut loading = database.direct().await;
    ok(&mut loading, &format!("SET corpus.scale = {scale}")).await;
    for statement in DATA.split_inclusive(";\n\n") {
        ok(&mut loading, statement).await;
    }
    let lab = corpus::lab(&database, "tpch/pgstar.toml", CONFIG).await;
    let (mut straight, mut through) = (database.direct().await, lab.session().await);
    let (mut report, mut refused, mut differences) = (String::new(), vec![], String::new());
    for (name, sql) in paragraphs(QUERIES) {
        let (direct, answer) = (straight.query(sql).await, through.query(sql).await);
        if let Some(difference) = difference(&mut straight, sql, &direct, &answer).await {
            writeln!(differences, "{name}: {difference}").unwrap();
        }
        let decision = decided(&mut through, sql).await;
        if let Err(reason) = &decision {
            refused.push(format!("{name} {reason}"));
        }
        let by = decision.unwrap_or_else(|reason| format!("- {reason}"));
        writeln!(report, "{name:<4} {by}").unwrap();
    }
    println!(
        "TPC-H at scale {scale}, answered by\n{report}{} of 22 by rollups",
        22 - refused.len()
    );
    assert!(differences.is_empty(), "\n{differences}");
    let new = corpus::unlisted(&refused, REFUSED);
    assert!(new.is_empty(), "no longer answered from a rollup: {new:#?}");
}
