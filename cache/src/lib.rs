//! Whole answers kept in memory, weighed in bytes.
//!
//! Keys and answers are opaque bytes: what makes two questions one, and how fresh an answer must
//! be, is decided by whoever makes the key.
#![warn(missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use moka::sync::Cache;

/// What an entry takes beside its bytes: moka's own bookkeeping, measured roughly.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// A whole answer as PostgreSQL framed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// One RowDescription frame.
    pub row_description: Bytes,
    /// Every DataRow frame and the CommandComplete frame.
    pub rows: Bytes,
}

impl Answer {
    /// The frames' length in bytes.
    pub fn size(&self) -> usize {
        self.row_description.len() + self.rows.len()
    }
}

/// Everything that the answer's bytes depend on, encoded so that two keys are equal only if all of it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// A key of these parts. Each is preceded by its length, so that no two lists of parts collide.
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len() + 8).sum());
        for part in parts {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        }
        Key(bytes.into())
    }
}

/// What the cache holds and how often it helped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Answers in the cache.
    pub entries: u64,
    /// Their size in bytes, keys and bookkeeping included.
    pub bytes: u64,
    /// The most that they may take, in bytes.
    pub bytes_max: u64,
    /// Look-ups that found an answer.
    pub hits: u64,
    /// Look-ups that found none.
    pub misses: u64,
}

/// Answers, the least useful of which leave when memory is short.
#[derive(Debug)]
pub struct AnswerCache {
    answers: Cache<Key, Arc<Answer>>,
    bytes_max: u64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl AnswerCache {
    /// A cache of at most this many bytes; 0 keeps nothing.
    pub fn new(bytes_max: u64) -> Self {
        let weigh = |key: &Key, answer: &Arc<Answer>| {
            u32::try_from(key.0.len() + answer.size() + ENTRY_OVERHEAD_BYTES).unwrap_or(u32::MAX)
        };
        AnswerCache {
            answers: Cache::builder()
                .max_capacity(bytes_max)
                .weigher(weigh)
                .build(),
            bytes_max,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The answer kept under this key.
    pub fn get(&self, key: &Key) -> Option<Arc<Answer>> {
        let answer = self.answers.get(key);
        let counter = if answer.is_some() {
            &self.hits
        } else {
            &self.misses
        };
        counter.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Whether an answer is kept under this key, without counting as a use.
    pub fn contains(&self, key: &Key) -> bool {
        self.answers.contains_key(key)
    }

    /// Keeps an answer, until it is replaced or memory is needed for better ones.
    pub fn insert(&self, key: Key, answer: Answer) {
        self.answers.insert(key, Arc::new(answer));
    }

    /// Forgets every answer.
    pub fn clear(&self) {
        self.answers.invalidate_all();
    }

    /// What the cache holds now.
    pub fn statistics(&self) -> Statistics {
        self.answers.run_pending_tasks();
        Statistics {
            entries: self.answers.entry_count(),
            bytes: self.answers.weighted_size(),
            bytes_max: self.bytes_max,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(size: usize) -> Answer {
        Answer {
            row_description: Bytes::from_static(b"T"),
            rows: Bytes::from(vec![0; size]),
        }
    }

    #[test]
    fn keys_of_other_parts_differ_even_when_their_bytes_run_together() {
        assert_ne!(Key::of(&[b"ab", b"c"]), Key::of(&[b"a", b"bc"]));
        assert_ne!(Key::of(&[b"a"]), Key::of(&[b"a", b""]));
        assert_eq!(Key::of(&[b"a", b"b"]), Key::of(&[b"a", b"b"]));
    }

    #[test]
    fn an_answer_is_found_again_and_counted() {
        let cache = AnswerCache::new(1 << 20);
        let key = Key::of(&[b"question"]);
        assert_eq!(cache.get(&key), None);
        cache.insert(key.clone(), answer(10));
        assert_eq!(cache.get(&key).as_deref(), Some(&answer(10)));
        let statistics = cache.statistics();
        assert_eq!(
            (statistics.entries, statistics.hits, statistics.misses),
            (1, 1, 1)
        );
        cache.clear();
        assert_eq!(cache.get(&key), None);
    }

    #[test]
    fn memory_stays_within_its_bound() {
        let bytes_max = 100_000;
        let cache = AnswerCache::new(bytes_max);
        for number in 0u32..1_000 {
            cache.insert(Key::of(&[&number.to_be_bytes()]), answer(1_000));
        }
        let statistics = cache.statistics();
        assert!(statistics.bytes <= bytes_max, "{statistics:?}");
        assert!(statistics.entries > 0);
    }

    #[test]
    fn a_cache_without_memory_keeps_nothing() {
        let cache = AnswerCache::new(0);
        cache.insert(Key::of(&[b"question"]), answer(10));
        assert_eq!(cache.statistics().entries, 0);
    }
}
