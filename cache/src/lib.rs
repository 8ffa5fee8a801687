//! Whole answers kept in memory, weighed in bytes.
//!
//! Keys and answers are opaque bytes, and so is the tag that is kept beside an answer: what makes two
//! questions one, and whether an answer is fresh enough, is decided by whoever makes key and tag.
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
    /// Look-ups that found an answer that could be used.
    pub hits: u64,
    /// Look-ups that found none.
    pub misses: u64,
}

/// An answer with what it is true for.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept<T> {
    /// The answer.
    pub answer: Arc<Answer>,
    /// What its freshness is judged by: known before the answer was computed.
    pub tag: T,
}

/// Answers, the least useful of which leave when memory is short.
pub struct AnswerCache<T> {
    answers: Cache<Key, Arc<Kept<T>>>,
    bytes_max: u64,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl<T> std::fmt::Debug for AnswerCache<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerCache")
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> AnswerCache<T> {
    /// A cache of at most this many bytes; 0 keeps nothing.
    pub fn new(bytes_max: u64) -> Self {
        let weigh = |key: &Key, kept: &Arc<Kept<T>>| {
            let bytes = key.0.len() + kept.answer.size() + ENTRY_OVERHEAD_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
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

    /// What is kept under this key. Whoever asked says afterwards whether it was a [`hit`](Self::hit)
    /// or a [`miss`](Self::miss): that depends on the tag.
    pub fn get(&self, key: &Key) -> Option<Arc<Kept<T>>> {
        self.answers.get(key)
    }

    /// Counts an answer that was used.
    pub fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a look-up that found none, or none that is fresh enough.
    pub fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps an answer, until it is replaced or memory is needed for better ones.
    pub fn insert(&self, key: Key, answer: Answer, tag: T) {
        let answer = Arc::new(answer);
        self.answers.insert(key, Arc::new(Kept { answer, tag }));
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
        cache.miss();
        cache.insert(key.clone(), answer(10), "tag");
        let kept = cache.get(&key).unwrap();
        assert_eq!((&*kept.answer, kept.tag), (&answer(10), "tag"));
        cache.hit();
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
            cache.insert(Key::of(&[&number.to_be_bytes()]), answer(1_000), ());
        }
        let statistics = cache.statistics();
        assert!(statistics.bytes <= bytes_max, "{statistics:?}");
        assert!(statistics.entries > 0);
    }

    #[test]
    fn a_cache_without_memory_keeps_nothing() {
        let cache = AnswerCache::new(0);
        cache.insert(Key::of(&[b"question"]), answer(10), ());
        assert_eq!(cache.statistics().entries, 0);
    }
}
