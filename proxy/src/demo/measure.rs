//! Runs the 13 queries direct, from rollups and from the cache; times them and compares the rows.

use std::time::Instant;

use pgstar_loadtest::ssb::{QUERIES, Query};
use pgstar_postgres::connect::{Connection, Connector};
use serde::Serialize;
use tokio_postgres::SimpleQueryMessage;

use super::progress::Steps;
use crate::failure::Failure;

/// Runs of each query whose median counts, after one that does not.
const DIRECT_RUNS: usize = 3;
const ROLLUP_RUNS: usize = 9;
const CACHED_RUNS: usize = 21;

/// What came out for one query.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    pub(super) query: &'static str,
    pub(super) direct_ms: f64,
    pub(super) rollup_ms: f64,
    pub(super) cached_ms: f64,
    /// The rollup that answered; `None` if the query passed through.
    pub(super) rollup: Option<String>,
    /// Whether rows, column names and types equal PostgreSQL's, from the rollup and from the cache.
    pub(super) same: bool,
}

/// An answer as text, in an order of its own so that rows that compare equal under ORDER BY may swap.
pub(super) type Rows = Vec<Vec<Option<String>>>;

pub(super) async fn all(
    direct: &str,
    through: &str,
    steps: &Steps,
) -> Result<Vec<Measured>, Failure> {
    let direct = session(direct).await?;
    let through = session(through).await?;
    let mut measured = vec![];
    for query in &QUERIES {
        steps.measuring(query.name);
        let one = measure(query, &direct, &through).await;
        measured
            .push(one.map_err(|error| Failure::while_doing(format!("run {}", query.name), error))?);
    }
    Ok(measured)
}

pub(super) async fn session(url: &str) -> Result<Connection, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::while_doing("connect for the queries", error.to_string())
    };
    let config = url
        .parse()
        .map_err(|error: tokio_postgres::Error| failed(&error))?;
    let connection = Connector::new(config)
        .map_err(|error| failed(&error))?
        .connect()
        .await
        .map_err(|error| failed(&error))?;
    connection
        .batch_execute("RESET search_path; RESET TimeZone")
        .await
        .map_err(|error| failed(&error))?;
    Ok(connection)
}

async fn measure(
    query: &Query,
    direct: &Connection,
    through: &Connection,
) -> Result<Measured, tokio_postgres::Error> {
    let (direct_ms, expected) = timed(direct, query.sql, DIRECT_RUNS).await?;
    through.batch_execute("SET pgstar.cache = off").await?;
    let rollup = answered_by(through, query.sql).await?;
    let (rollup_ms, from_rollup) = timed(through, query.sql, ROLLUP_RUNS).await?;
    through.batch_execute("SET pgstar.cache = on").await?;
    let (cached_ms, from_cache) = timed(through, query.sql, CACHED_RUNS).await?;
    let same_rows = from_rollup == expected && from_cache == expected;
    let same_columns = columns(direct, query.sql).await? == columns(through, query.sql).await?;
    Ok(Measured {
        query: query.name,
        direct_ms,
        rollup_ms,
        cached_ms,
        rollup,
        same: same_rows && same_columns,
    })
}

/// The median time in milliseconds, and the rows of the last run.
pub(super) async fn timed(
    session: &Connection,
    sql: &str,
    runs: usize,
) -> Result<(f64, Rows), tokio_postgres::Error> {
    session.simple_query(sql).await?;
    let mut times = vec![];
    let mut replies = vec![];
    for _ in 0..runs {
        let began = Instant::now();
        replies = session.simple_query(sql).await?;
        times.push(began.elapsed().as_secs_f64() * 1_000.0);
    }
    times.sort_by(f64::total_cmp);
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    // Microseconds are as far as the clock is worth printing.
    Ok(((median * 1_000.0).round() / 1_000.0, rows(&replies)))
}

fn rows(replies: &[SimpleQueryMessage]) -> Rows {
    let row = |reply: &SimpleQueryMessage| match reply {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    };
    let mut rows: Rows = replies.iter().filter_map(row).collect();
    rows.sort();
    rows
}

/// The names and types of the columns as served in the extended protocol.
async fn columns(
    session: &Connection,
    sql: &str,
) -> Result<Vec<(String, u32)>, tokio_postgres::Error> {
    let rows = session.query_typed(sql, &[]).await?;
    let columns = rows.first().map(|row| {
        row.columns()
            .iter()
            .map(|column| (column.name().to_owned(), column.type_().oid()))
            .collect()
    });
    Ok(columns.unwrap_or_default())
}

pub(super) async fn answered_by(
    session: &Connection,
    sql: &str,
) -> Result<Option<String>, tokio_postgres::Error> {
    let replies = session
        .simple_query(&format!("EXPLAIN (PGSTAR, FORMAT JSON) {sql}"))
        .await?;
    let text = replies.iter().find_map(|reply| match reply {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let explanation: serde_json::Value = text
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    Ok(explanation
        .get("rollup")
        .and_then(|rollup| rollup.as_str())
        .map(str::to_owned))
}
