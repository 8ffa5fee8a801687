//! Throughput and latency percentiles of many transactions.
//!
//! Must not know where transactions came from or how numbers are shown.

use serde::Serialize;

/// The latencies of some transactions, condensed; milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many transactions.
    pub transactions: usize,
    /// Transactions each second.
    pub per_second: f64,
    /// Half of the transactions took at most this long.
    pub p50_ms: f64,
    /// Nine of ten took at most this long.
    pub p90_ms: f64,
    /// 95 of 100 took at most this long.
    pub p95_ms: f64,
    /// 99 of 100 took at most this long.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
}

impl Summary {
    /// Condenses latencies, in any order, that were measured within this many seconds.
    ///
    /// `None` when there are none: a percentile of nothing is not a number.
    pub fn of(mut latencies_us: Vec<u64>, seconds: f64) -> Option<Summary> {
        latencies_us.sort_unstable();
        let milliseconds = |percent| Some(nearest_rank(&latencies_us, percent)? as f64 / 1000.0);
        Some(Summary {
            transactions: latencies_us.len(),
            per_second: latencies_us.len() as f64 / seconds,
            p50_ms: milliseconds(50)?,
            p90_ms: milliseconds(90)?,
            p95_ms: milliseconds(95)?,
            p99_ms: milliseconds(99)?,
            max_ms: milliseconds(100)?,
        })
    }
}

/// The smallest value that at least this share of the values does not exceed.
fn nearest_rank(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let summary = Summary::of((1..=200).rev().map(|ms| ms * 1000).collect(), 10.0).unwrap();
        assert_eq!((summary.transactions, summary.per_second), (200, 20.0));
        assert_eq!((summary.p50_ms, summary.p90_ms), (100.0, 180.0));
        assert_eq!((summary.p95_ms, summary.p99_ms), (190.0, 198.0));
        assert_eq!(summary.max_ms, 200.0);
    }

    #[test]
    fn of_few_transactions_high_percentiles_are_the_slowest() {
        let summary = Summary::of(vec![5_000, 1_000, 3_000], 1.0).unwrap();
        assert_eq!(
            (summary.p50_ms, summary.p90_ms, summary.max_ms),
            (3.0, 5.0, 5.0)
        );
        let alone = Summary::of(vec![1_500], 1.0).unwrap();
        assert_eq!((alone.p50_ms, alone.p99_ms), (1.5, 1.5));
    }

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(Summary::of(Vec::new(), 1.0), None);
    }
}
