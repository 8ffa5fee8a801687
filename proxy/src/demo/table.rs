//! The table that the demo ends with.

use super::changing::Changing;
use super::measure::Measured;
use crate::cli::Scale;

pub(super) fn print(measured: &[Measured], scale: Scale, version: u32) {
    println!(
        "\nStar Schema Benchmark at scale {scale} on PostgreSQL {version}; medians over one connection, pgstar.freshness = strict\n"
    );
    println!(
        "{:<7} {:>12} {:>11} {:>11}   {:<28} same rows",
        "query", "direct", "rollup", "cached", "answered by"
    );
    for query in measured {
        let answered_by = query.rollup.as_deref().unwrap_or("PostgreSQL");
        let same = if query.same { "yes" } else { "NO" };
        println!(
            "{:<7} {} {} {}   {answered_by:<28} {same}",
            query.query,
            milliseconds(query.direct_ms, 12),
            milliseconds(query.rollup_ms, 11),
            milliseconds(query.cached_ms, 11)
        );
    }
    let mean = |time: fn(&Measured) -> f64| {
        measured.iter().map(time).sum::<f64>() / measured.len().max(1) as f64
    };
    let (direct, rollup, cached) = (
        mean(|query| query.direct_ms),
        mean(|query| query.rollup_ms),
        mean(|query| query.cached_ms),
    );
    println!(
        "{:<7} {} {} {}",
        "mean",
        milliseconds(direct, 12),
        milliseconds(rollup, 11),
        milliseconds(cached, 11)
    );
    println!(
        "{:<7} {:>12} {:>11} {:>11}",
        "faster",
        "",
        times(direct, rollup),
        times(direct, cached)
    );
    let from_rollups = measured
        .iter()
        .filter(|query| query.rollup.is_some())
        .count();
    let same = measured.iter().filter(|query| query.same).count();
    println!(
        "\n{from_rollups} of {} answered from rollups, {same} of {} with the same rows, names and types",
        measured.len(),
        measured.len()
    );
}

/// The second pass.
pub(super) fn print_changing(beside: &[Changing], rows: u64) {
    println!("\nThe same while a loader inserts, updates and deletes ({rows} rows meanwhile)\n");
    println!(
        "{:<7} {:>12}   {:<28} same rows",
        "query", "strict", "answered by"
    );
    for query in beside {
        let answered_by = query.rollup.as_deref().unwrap_or("PostgreSQL");
        let same = if query.same { "yes" } else { "NO" };
        println!(
            "{:<7} {}   {answered_by:<28} {same}",
            query.query,
            milliseconds(query.strict_ms, 12)
        );
    }
}

fn milliseconds(time: f64, width: usize) -> String {
    let digits = match time {
        100.0.. => 0,
        10.0.. => 1,
        0.1.. => 2,
        _ => 3,
    };
    format!("{:>width$}", format!("{time:.digits$} ms"))
}

fn times(slow: f64, fast: f64) -> String {
    format!("{:.0}x", slow / fast)
}
