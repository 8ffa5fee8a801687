//! Two sides beside each other: a table for people and an object for programs.
//!
//! Must not know how transactions were measured.

use serde::Serialize;

use super::{
    log::Transaction,
    rounds::{Comparison, Measured},
    scripts::SCRIPTS,
    statistics::Summary,
};

/// A load test's outcome.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Connections at once.
    pub clients: u32,
    /// Scripts that ran on both sides, in the mix's order, then "all".
    pub lines: Vec<Line>,
}

/// One script on both sides.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The script's name, or "all".
    pub script: &'static str,
    /// PostgreSQL itself.
    pub direct: Summary,
    /// pgstar.
    pub through: Summary,
    /// How many times better pgstar was; below 1 it was worse.
    pub better: Ratios,
}

/// How many times better one side was: of throughput the larger, of latency the smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratios {
    /// Of transactions each second.
    pub per_second: f64,
    /// Of the median.
    pub p50: f64,
    /// Of the 90th percentile.
    pub p90: f64,
    /// Of the 95th percentile.
    pub p95: f64,
    /// Of the 99th percentile.
    pub p99: f64,
    /// Of the slowest.
    pub max: f64,
}

impl Report {
    /// Sets the sides beside each other; a script that one side never finished has no line.
    pub fn of(comparison: &Comparison, clients: u32) -> Report {
        let is_of = |index: usize| move |one: &Transaction| one.script == index;
        let scripts = SCRIPTS.iter().enumerate();
        let lines = scripts.map(|(index, script)| Line::of(script.name, comparison, is_of(index)));
        let all = Line::of("all", comparison, |_| true);
        Report {
            clients,
            lines: lines.chain([all]).flatten().collect(),
        }
    }

    /// A table with one line for each script and side.
    pub fn table(&self) -> String {
        let titles = [
            "count", "per s", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "max ms",
        ];
        let mut table = row("script", "", &titles.map(str::to_owned));
        for line in &self.lines {
            table.push_str(&row(line.script, "direct", &line.direct.cells()));
            table.push_str(&row("", "pgstar", &line.through.cells()));
            table.push_str(&row("", "better", &line.better.cells()));
        }
        table
    }
}

impl Line {
    fn of(
        script: &'static str,
        comparison: &Comparison,
        belongs: impl Fn(&Transaction) -> bool,
    ) -> Option<Line> {
        let direct = summary(&comparison.direct, &belongs)?;
        let through = summary(&comparison.through, &belongs)?;
        Some(Line {
            script,
            direct,
            through,
            better: Ratios::of(&direct, &through),
        })
    }
}

fn summary(measured: &Measured, belongs: impl Fn(&Transaction) -> bool) -> Option<Summary> {
    let transactions = measured.transactions.iter().filter(|one| belongs(one));
    let latencies = transactions.map(|one| one.latency_us).collect();
    Summary::of(latencies, measured.seconds)
}

impl Ratios {
    fn of(direct: &Summary, through: &Summary) -> Ratios {
        Ratios {
            per_second: through.per_second / direct.per_second,
            p50: direct.p50_ms / through.p50_ms,
            p90: direct.p90_ms / through.p90_ms,
            p95: direct.p95_ms / through.p95_ms,
            p99: direct.p99_ms / through.p99_ms,
            max: direct.max_ms / through.max_ms,
        }
    }

    fn cells(&self) -> [String; 7] {
        let Ratios {
            per_second,
            p50,
            p90,
            p95,
            p99,
            max,
        } = *self;
        let [per_second, p50, p90, p95, p99, max] =
            [per_second, p50, p90, p95, p99, max].map(times);
        [String::new(), per_second, p50, p90, p95, p99, max]
    }
}

impl Summary {
    fn cells(&self) -> [String; 7] {
        let Summary {
            transactions,
            per_second,
            p50_ms,
            p90_ms,
            p95_ms,
            p99_ms,
            max_ms,
        } = *self;
        let [per_second, p50, p90, p95, p99, max] =
            [per_second, p50_ms, p90_ms, p95_ms, p99_ms, max_ms].map(digits);
        [
            transactions.to_string(),
            per_second,
            p50,
            p90,
            p95,
            p99,
            max,
        ]
    }
}

fn row(script: &str, side: &str, cells: &[String; 7]) -> String {
    let mut row = format!("{script:<9} {side:<6}");
    for cell in cells {
        row.push_str(&format!(" {cell:>9}"));
    }
    row.truncate(row.trim_end().len());
    row + "\n"
}

/// Three significant digits are as many as a load test can vouch for.
fn digits(value: f64) -> String {
    let decimals = match value {
        ..1.0 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

fn times(ratio: f64) -> String {
    digits(ratio) + "x"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(latencies_us: &[(usize, u64)], seconds: f64) -> Measured {
        let transaction = |(script, latency_us): &(usize, u64)| Transaction {
            script: *script,
            latency_us: *latency_us,
            finished_us: 0,
        };
        Measured {
            transactions: latencies_us.iter().map(transaction).collect(),
            seconds,
        }
    }

    fn report() -> Report {
        let comparison = Comparison {
            direct: measured(&[(0, 80_000), (0, 120_000), (3, 50_000)], 10.0),
            through: measured(&[(0, 400), (0, 1_000), (0, 1_000), (0, 2_000)], 10.0),
        };
        Report::of(&comparison, 8)
    }

    #[test]
    fn sides_are_set_beside_each_other() {
        let expected = "\
script               count     per s    p50 ms    p90 ms    p95 ms    p99 ms    max ms
Q1.1      direct         2     0.200      80.0       120       120       120       120
          pgstar         4     0.400      1.00      2.00      2.00      2.00      2.00
          better               2.00x     80.0x     60.0x     60.0x     60.0x     60.0x
all       direct         3     0.300      80.0       120       120       120       120
          pgstar         4     0.400      1.00      2.00      2.00      2.00      2.00
          better               1.33x     80.0x     60.0x     60.0x     60.0x     60.0x
";
        assert_eq!(report().table(), expected);
    }

    #[test]
    fn programs_get_the_same_numbers() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["clients"], 8);
        assert_eq!(json["lines"][0]["script"], "Q1.1");
        assert_eq!(json["lines"][0]["direct"]["p50_ms"], 80.0);
        assert_eq!(json["lines"][0]["better"]["p50"], 80.0);
        assert_eq!(json["lines"].as_array().unwrap().len(), 2);
    }
}
