//! What a session may have done or seen, so that later answers do not lack it.
//!
//! No SQL is understood here: a statement is judged by its first word, and in doubt it counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use memchr::memchr_iter;

use super::candidate::{first_word, is_one_of};

/// Words with which a statement begins that neither reads nor writes a user's rows. COMMIT ends what began
/// with statements that counted; COMMIT PREPARED what anybody may have begun, see [`ENDS_ANOTHERS`].
const HARMLESS: &[&[u8]] = &[
    b"set",
    b"reset",
    b"show",
    b"begin",
    b"start",
    b"commit",
    b"end",
    b"rollback",
    b"abort",
    b"savepoint",
    b"release",
    b"deallocate",
    b"discard",
    b"listen",
    b"unlisten",
];

/// In a COMMIT: another transaction becomes visible, and the session may have been told its result before.
const ENDS_ANOTHERS: &[u8] = b"prepared";

const READING: &[&[u8]] = &[b"select", b"table", b"values"];

/// What one statement may have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Passing {
    /// Nothing that a later answer could lack.
    Harmless,
    /// It read rows; and it may have written some by a function.
    Reads,
    /// It may have written rows.
    Writes,
}

impl Passing {
    /// What a statement of this text may do.
    ///
    /// A semicolon within a string or a comment makes pieces that begin with any word; a statement that
    /// writes is at the beginning of some piece in any case.
    pub fn of(sql: &[u8]) -> Self {
        let mut begin = 0;
        let ends = memchr_iter(b';', sql).chain([sql.len()]);
        let pieces = ends.map(|end| {
            let piece = &sql[begin..end];
            begin = end + 1;
            Passing::of_one(piece)
        });
        pieces.max().unwrap_or(Passing::Harmless)
    }

    fn of_one(sql: &[u8]) -> Self {
        match first_word(sql) {
            // The most frequent one first.
            word if is_one_of(word, READING) => Passing::Reads,
            word if is_one_of(word, HARMLESS) && contains(sql, ENDS_ANOTHERS) => Passing::Writes,
            word if is_one_of(word, HARMLESS) => Passing::Harmless,
            _ if sql.trim_ascii().is_empty() => Passing::Harmless,
            _ => Passing::Writes,
        }
    }
}

/// Whether the word is anywhere in the text, in letters of any case.
fn contains(text: &[u8], word: &[u8]) -> bool {
    let mut pieces = text.windows(word.len());
    pieces.any(|piece| piece.eq_ignore_ascii_case(word))
}

/// What has passed in one session.
#[derive(Debug, Default)]
pub struct Passed {
    has_ever_written: AtomicBool,
    /// Whatever the session has got an answer to, or done.
    seen: Dated,
    /// What may have had more than a rollup has: statements that PostgreSQL ran as the client sent them, and their kept answers.
    passed: Dated,
    written: Dated,
    rollups: Mutex<Answered>,
}

/// The rollups' tables that have answered.
#[derive(Debug, Default)]
enum Answered {
    #[default]
    None,
    /// This one, and no other.
    By(String),
    Several,
}

/// Something that is noted before it happens, and dated when that is over.
#[derive(Debug, Default)]
struct Dated {
    is_new: AtomicBool,
    at: Mutex<Option<Instant>>,
}

impl Dated {
    fn note(&self) {
        self.is_new.store(true, Ordering::Relaxed);
    }

    /// An instant after the last one, asked when none is under way.
    fn at(&self) -> Option<Instant> {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_new.swap(false, Ordering::Relaxed) {
            *at = Some(Instant::now());
        }
        *at
    }
}

/// It is no fact of the session, so it makes none differ.
impl PartialEq for Passed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Passed {}

impl Passed {
    /// A statement goes to PostgreSQL as the client sent it.
    pub fn note(&self, passing: Passing) {
        if passing != Passing::Harmless {
            self.seen.note();
            self.passed.note();
        }
        if passing == Passing::Writes {
            self.written.note();
            self.has_ever_written.store(true, Ordering::Relaxed);
        }
    }

    /// What a statement may do that was noted when it was prepared and is run now.
    pub fn of_prepared(&self) -> Passing {
        match self.has_ever_written.load(Ordering::Relaxed) {
            true => Passing::Writes,
            false => Passing::Reads,
        }
    }

    /// Rollups' tables answer, or an answer that was kept of theirs.
    pub(super) fn note_rollups(&self, tables: &[String]) {
        self.seen.note();
        let mut answered = self.rollups.lock().unwrap_or_else(PoisonError::into_inner);
        for table in tables {
            match &*answered {
                Answered::None => *answered = Answered::By(table.clone()),
                Answered::By(only) if only == table => {}
                Answered::By(_) | Answered::Several => *answered = Answered::Several,
            }
        }
    }

    /// Whether a rollup's table other than this has answered.
    pub(super) fn has_read_beside(&self, table: &str) -> bool {
        let answered = self.rollups.lock().unwrap_or_else(PoisonError::into_inner);
        match &*answered {
            Answered::None => false,
            Answered::By(only) => only != table,
            Answered::Several => true,
        }
    }

    /// An instant after everything that the session has got an answer to, asked when no statement is under way.
    pub(super) fn seen_at(&self) -> Option<Instant> {
        self.seen.at()
    }

    /// The same of what may have had more than a rollup has.
    pub(super) fn passed_at(&self) -> Option<Instant> {
        self.passed.at()
    }

    /// The same of statements that may have written.
    pub(super) fn wrote_at(&self) -> Option<Instant> {
        self.written.at()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_that_touch_no_rows_are_harmless() {
        for sql in [
            "BEGIN; SET a = 1",
            "COMMIT AND CHAIN",
            " set a = 1; ",
            "/* x */ COMMIT;",
            ";",
            "show all",
        ] {
            assert_eq!(Passing::of(sql.as_bytes()), Passing::Harmless, "{sql}");
        }
        for sql in ["SELECT 1", "table t;", "values (1)"] {
            assert_eq!(Passing::of(sql.as_bytes()), Passing::Reads, "{sql}");
        }
        for sql in [
            "SET a = 1; INSERT INTO t VALUES (1)",
            "SET a = 'b; set c'; INSERT INTO t VALUES (1)",
            "/* ; */ INSERT INTO t VALUES (1)",
            "-- ;\nINSERT INTO t VALUES (1)",
            "INSERT INTO t VALUES (1)",
            "WITH x AS (DELETE FROM t RETURNING 1) SELECT 1",
            "EXPLAIN ANALYZE DELETE FROM t",
            "settle()",
            "EXECUTE p",
            "COMMIT PREPARED 'x'",
            "Commit/* */Prepared 'x'",
        ] {
            assert_eq!(Passing::of(sql.as_bytes()), Passing::Writes, "{sql}");
        }
    }

    #[test]
    fn what_counts_is_dated_after_it_happened() {
        let passed = Passed::default();
        passed.note(Passing::Harmless);
        assert!(passed.passed_at().is_none() && passed.seen_at().is_none());
        passed.note(Passing::Reads);
        let read_at = passed.passed_at().unwrap();
        assert!(passed.wrote_at().is_none() && passed.seen_at().is_some());
        let before = Instant::now();
        passed.note(Passing::Writes);
        assert!(passed.passed_at().unwrap() >= read_at);
        assert!(passed.wrote_at().unwrap() >= before);
    }

    #[test]
    fn answers_of_rollups_are_seen_and_pass_nothing() {
        let passed = Passed::default();
        let note = |table: &str| passed.note_rollups(&[table.to_owned()]);
        assert!(!passed.has_read_beside("a"));
        note("a");
        note("a");
        assert!(passed.seen_at().is_some() && passed.passed_at().is_none());
        assert!(!passed.has_read_beside("a") && passed.has_read_beside("b"));
        note("b");
        assert!(passed.has_read_beside("a") && passed.has_read_beside("b"));
    }
}
