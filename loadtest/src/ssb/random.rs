//! Random numbers by position: every row has its own sequence, so rows can be made in any order.
//!
//! SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
//! Must not know tables; a caller names its sequence by a stream and a row.

const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// What a sequence is for; two streams of one seed have nothing in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Customer = 1,
    Supplier = 2,
    Part = 3,
    Order = 4,
}

/// The sequence that belongs to one row.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn for_row(seed: u64, stream: Stream, row: u64) -> Self {
        let of_stream = mix(seed ^ mix(stream as u64));
        Random {
            state: mix(of_stream.wrapping_add(row.wrapping_mul(GOLDEN_GAMMA))),
        }
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN_GAMMA);
        mix(self.state)
    }

    /// A number from 0 up to and without `bound`; the bias is below `bound` / 2^64.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `first` to `last`, both included.
    pub(crate) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pearson's statistic of counts that should be equal.
    fn chi_squared(counts: &[u64]) -> f64 {
        let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        let deviation = |count: &u64| (*count as f64 - expected).powi(2) / expected;
        counts.iter().map(deviation).sum()
    }

    #[test]
    fn known_sequence() {
        // The reference implementation's first outputs for the state 0.
        let mut random = Random { state: 0 };
        assert_eq!(random.bits(), 0xE220_A839_7B1D_CDAF);
        assert_eq!(random.bits(), 0x6E78_9E6A_A1B9_65F4);
    }

    #[test]
    fn draws_of_one_row_are_uniform() {
        let mut random = Random::for_row(7, Stream::Order, 3);
        let mut counts = [0; 50];
        for _ in 0..100_000 {
            counts[random.between(1, 50) as usize - 1] += 1;
        }
        // 49 degrees of freedom: above 85 happens once in a thousand honest sequences.
        assert!(chi_squared(&counts) < 85.0, "{counts:?}");
    }

    #[test]
    fn first_draws_of_neighbouring_rows_are_uniform_and_uncorrelated() {
        let mut pairs = [0; 100];
        for row in 0..200_000 {
            let here = Random::for_row(1, Stream::Part, row).below(10);
            let next = Random::for_row(1, Stream::Part, row + 1).below(10);
            pairs[(here * 10 + next) as usize] += 1;
        }
        // 99 degrees of freedom: above 149 happens once in a thousand honest sequences.
        assert!(chi_squared(&pairs) < 149.0, "{pairs:?}");
    }

    #[test]
    fn seeds_and_streams_differ() {
        let first = |seed, stream| Random::for_row(seed, stream, 0).bits();
        assert_ne!(first(1, Stream::Order), first(2, Stream::Order));
        assert_ne!(first(1, Stream::Order), first(1, Stream::Part));
    }

    #[test]
    fn bounds_are_kept_and_reached() {
        let mut random = Random::for_row(0, Stream::Order, 0);
        let draws: Vec<u64> = (0..1000).map(|_| random.between(30, 33)).collect();
        assert_eq!(draws.iter().min(), Some(&30));
        assert_eq!(draws.iter().max(), Some(&33));
    }
}
