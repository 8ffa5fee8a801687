//! When values of a column were last touched, in bounded memory: the more of them there are, the coarser.
//!
//! Pure. What is remembered may say that a value was touched which was not, and never the other way round.

use std::collections::BTreeMap;

use crate::replication::Lsn;

/// So many buckets are told apart.
const BUCKETS_MAX: usize = 4096;

const QUARTER: i64 = 900;
const HOUR: i64 = 4 * QUARTER;
const DAY: i64 = 24 * HOUR;

/// Buckets of values, each with the end of the newest commit that touched one of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Buckets {
    /// How many values a bucket has. Each width divides the next one.
    width: i64,
    last: BTreeMap<i64, Lsn>,
}

impl Buckets {
    /// Of values that are counted one by one, as integers and dates are.
    pub(super) fn of_numbers() -> Self {
        Buckets {
            width: 1,
            last: BTreeMap::new(),
        }
    }

    /// Of values that are counted in seconds: quarters of an hour first, then hours, then days.
    pub(super) fn of_times() -> Self {
        Buckets {
            width: QUARTER,
            last: BTreeMap::new(),
        }
    }

    /// The value was touched by a commit that ends here.
    pub(super) fn touch(&mut self, value: i64, at: Lsn) {
        self.note(value.div_euclid(self.width), at);
        self.bound();
    }

    /// All that the other has was touched by a commit that ends here.
    pub(super) fn absorb(&mut self, other: &Buckets, at: Lsn) {
        while self.width < other.width {
            self.widen();
        }
        // The first value of a bucket is in the bucket that holds all of it.
        let ratio = self.width / other.width.max(1);
        for bucket in other.last.keys() {
            self.note(bucket.div_euclid(ratio.max(1)), at);
        }
        self.bound();
    }

    /// Whether a value from `low` to `high` was touched by a commit that ends after this position.
    pub(super) fn is_touched(&self, low: i64, high: i64, since: Lsn) -> bool {
        if low > high {
            return false;
        }
        let buckets = low.div_euclid(self.width)..=high.div_euclid(self.width);
        self.last.range(buckets).any(|(_, at)| *at > since)
    }

    fn note(&mut self, bucket: i64, at: Lsn) {
        let last = self.last.entry(bucket).or_insert(at);
        *last = at.max(*last);
    }

    fn bound(&mut self) {
        while self.last.len() > BUCKETS_MAX {
            self.widen();
        }
    }

    fn widen(&mut self) {
        let factor = match self.width {
            QUARTER => HOUR / QUARTER,
            HOUR => DAY / HOUR,
            _ => 2,
        };
        // Beyond it there is one bucket on each side of zero, so nobody gets there.
        self.width = self.width.saturating_mul(factor);
        for (bucket, at) in std::mem::take(&mut self.last) {
            self.note(bucket.div_euclid(factor), at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_later_is_found_and_nothing_beside_it() {
        let mut buckets = Buckets::of_numbers();
        buckets.touch(5, Lsn(100));
        buckets.touch(-7, Lsn(120));
        buckets.touch(i64::MAX, Lsn(130));
        buckets.touch(i64::MIN, Lsn(90));
        assert!(buckets.is_touched(0, 5, Lsn(99)) && !buckets.is_touched(0, 5, Lsn(100)));
        assert!(buckets.is_touched(-10, -7, Lsn(119)) && !buckets.is_touched(-6, 4, Lsn(0)));
        assert!(buckets.is_touched(6, i64::MAX, Lsn(129)) && !buckets.is_touched(6, 9, Lsn(0)));
        assert!(buckets.is_touched(i64::MIN, -8, Lsn(89)) && !buckets.is_touched(5, 4, Lsn(0)));
    }

    #[test]
    fn many_values_are_remembered_coarsely_and_none_is_forgotten() {
        for mut buckets in [Buckets::of_numbers(), Buckets::of_times()] {
            let mut others = buckets.clone();
            let value = |n: i64| n.wrapping_mul(7_919_777_777) - 20_000_000_000_000;
            for n in 0..20_000 {
                buckets.touch(value(n), Lsn(n.unsigned_abs() + 1));
                if n % 4 == 0 {
                    others.touch(value(n), Lsn(0));
                }
            }
            assert!(buckets.last.len() <= BUCKETS_MAX);
            let is_touched = |n| buckets.is_touched(value(n), value(n), Lsn(n.unsigned_abs()));
            assert!((0..20_000).all(is_touched));
            let mut both = buckets.clone();
            both.absorb(&others, Lsn(1_000_000));
            let mut again = others.clone();
            again.absorb(&buckets, Lsn(1_000_000));
            for n in (0..20_000).step_by(4) {
                assert!(both.is_touched(value(n), value(n), Lsn(999_999)), "{n}");
                assert!(again.is_touched(value(n), value(n), Lsn(999_999)), "{n}");
            }
        }
    }
}
