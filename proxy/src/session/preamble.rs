//! Answers what drivers say around their one question without making them wait for PostgreSQL.
//!
//! Three kinds. What cannot fail and is answered the same always (BEGIN, ROLLBACK of a transaction that holds nothing, SET
//! search_path) is answered, and goes to PostgreSQL as it came with what follows ([`super::held`]), unless what follows
//! undoes it; the replies are looked at when they come ([`super::pledge`]).
//! What was asked of this very backend when it was new, and cannot have changed since (version(), settings), is answered
//! with the frames that it sent then. So is what it said of names of schemas and types, once a question has shown that
//! nobody has changed those ([`super::learnt`]). All only on a leased backend, of which it is known what ran on it.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::batch::{Statement, Text};
use super::learnt::mark;
use super::lease::Lease;
use super::pledge::Pledge;
use super::{Ended, Routing, Session};
use crate::pool::Mark;
use crate::wire::{self, TransactionStatus};

/// What is asked of a backend when it is new.
pub(super) const ASKED_OF_NEW: [&str; 10] = [
    "select pg_catalog.version()",
    "show transaction isolation level",
    "show transaction_isolation",
    "show standard_conforming_strings",
    "show server_version",
    "show server_version_num",
    "show client_encoding",
    "show datestyle",
    "show timezone",
    "show search_path",
];

/// What SQLAlchemy asks about names.
pub(super) const ASKED_ABOUT_NAMES: [&str; 2] = [
    HOLDS_NOTHING,
    "select t.oid, typarray from pg_type t join pg_namespace ns on typnamespace = ns.oid where typname = 'hstore'",
];
/// Of that what holds no lock until the transaction's end.
const HOLDS_NOTHING: &str = "select current_schema()";
/// More that leaves every setting as it is.
const LEAVES_SETTINGS: [&str; 3] = ["begin", "rollback", "commit"];

/// How long the settings of a session count as those that it began with. A reload of the server's configuration reaches
/// its backends at a time of its own; nobody can tell that it would have been sooner.
pub(super) const SETTINGS_AGE_MAX: Duration = Duration::from_millis(250);

/// Longer statements are not of these kinds.
const TEXT_BYTES_MAX: usize = 256;

/// A statement that need not wait for PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Prompt {
    Held(Pledge),
    /// A ROLLBACK of what PostgreSQL knows nothing of.
    Undone,
    /// These frames.
    Known(Bytes),
    /// These frames, if the mark is still this.
    Named(Bytes, Mark),
}

/// Whether a text that goes to PostgreSQL leaves every setting as it is.
pub(super) fn leaves_settings(sql: &str) -> bool {
    let mut known = LEAVES_SETTINGS
        .iter()
        .chain(&ASKED_OF_NEW)
        .chain(&ASKED_ABOUT_NAMES);
    known.any(|known| says(sql, known))
}

/// Whether a text that goes to PostgreSQL takes no lock that lasts.
pub(super) fn holds_nothing(sql: &str) -> bool {
    says(sql, HOLDS_NOTHING)
}

/// Whether a text is this one, which is in lower case with single spaces, but for case, white space and semicolons at the end.
/// A constant has to be written as it is.
fn says(sql: &str, known: &str) -> bool {
    let sql = sql.trim_ascii().trim_end_matches(';').trim_ascii_end();
    let mut words = sql.split_ascii_whitespace();
    let mut known_words = known.split_ascii_whitespace();
    loop {
        match (words.next(), known_words.next()) {
            (None, None) => return true,
            (Some(word), Some(known)) if is_word(word, known) => {}
            _ => return false,
        }
    }
}

fn is_word(word: &str, known: &str) -> bool {
    match known.contains('\'') {
        true => word == known,
        false => word.eq_ignore_ascii_case(known),
    }
}

/// Whether this sets the search path to a list of names: PostgreSQL takes any.
fn sets_search_path(sql: &str) -> bool {
    let list = || {
        if sql.len() > TEXT_BYTES_MAX {
            return None;
        }
        let sql = sql.trim_ascii().trim_end_matches(';').trim_ascii();
        let (set, rest) = sql.split_once([' ', '\n', '\t'])?;
        let rest = rest.trim_ascii_start();
        let (name, rest) = rest.split_at_checked("search_path".len())?;
        let rest = rest.trim_ascii_start();
        let is_set = set.eq_ignore_ascii_case("set") && name.eq_ignore_ascii_case("search_path");
        is_set.then_some(rest.strip_prefix('=')?)
    };
    list().is_some_and(|list| list.split(',').all(|name| is_name(name.trim_ascii())))
}

/// A name in quotation marks, or one that is no keyword for sure because it is `public` or `ends_in_digit_1`.
fn is_name(text: &str) -> bool {
    let quoted = text
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    match quoted {
        Some(name) => !name.is_empty() && !name.contains(['"', '\0']),
        None => text == "public",
    }
}

impl Lease {
    /// The answer to a question whose answer is known, or may be.
    fn known(&self, sql: &str) -> Option<Prompt> {
        let has_set = || self.held.iter().any(|held| held.pledge.command == "SET");
        if !self.has_known_settings() || has_set() {
            return None;
        }
        let mut known = self.greeting.answers.iter();
        if let Some((_, frames)) = known.find(|(asked, _)| says(sql, asked)) {
            return Some(Prompt::Known(frames.clone()));
        }
        let (mark, frames) = self.learnt.answer(|asked| says(sql, asked))?;
        Some(Prompt::Named(frames.clone(), mark))
    }
}

impl<R: Routing> Session<R> {
    /// How to answer this statement without waiting, if that is possible.
    pub(super) fn prompt(&self, statement: &Statement) -> Option<Prompt> {
        let lease = self.lease.as_ref()?;
        let (None, Text::Sent(text)) = (&statement.batch, &statement.text) else {
            return None;
        };
        let bytes = &self.client.inbound.filled()[text.clone()];
        let sql = std::str::from_utf8(bytes).ok()?;
        let status = self.told_status();
        let hold = |command, status| Prompt::Held(Pledge { command, status });
        if sets_search_path(sql) {
            let may_set = status != TransactionStatus::Failed && !lease.reports_search_path();
            return may_set.then(|| hold("SET", status));
        }
        match status {
            TransactionStatus::Failed => None,
            TransactionStatus::Idle if says(sql, "begin") => {
                Some(hold("BEGIN", TransactionStatus::Open))
            }
            TransactionStatus::Open if says(sql, "rollback") => match self.held_transaction() {
                Some(_) => Some(Prompt::Undone),
                None => lease
                    .holds_nothing
                    .then(|| hold("ROLLBACK", TransactionStatus::Idle)),
            },
            _ => lease.known(sql),
        }
    }

    /// Answers the statement at the front of the client's bytes.
    pub(super) async fn answer_promptly(
        &mut self,
        statement: &Statement,
        prompt: Prompt,
    ) -> Result<(), Ended> {
        self.flush_outgoing().await?;
        poll_fn(|cx| self.poll_write_released(cx)).await?;
        let mut out = BytesMut::new();
        match prompt {
            Prompt::Held(pledge) => {
                self.hold_back(statement, pledge);
                wire::command_complete(&mut out, pledge.command);
            }
            Prompt::Undone => {
                self.undo_held(statement);
                wire::command_complete(&mut out, "ROLLBACK");
            }
            Prompt::Known(frames) => {
                out.extend_from_slice(&frames);
                self.settle(statement, self.withheld_by(statement));
            }
            Prompt::Named(frames, mark) => {
                if !self.still_holds(mark).await {
                    self.pass_through(statement, false);
                    return Ok(());
                }
                out.extend_from_slice(&frames);
                self.settle(statement, self.withheld_by(statement));
            }
        }
        wire::ready_for_query(&mut out, self.told_status());
        self.shared.counters.prompt.add_one();
        self.outgoing = out;
        self.flush_outgoing().await
    }

    /// Whether what was learnt under this mark holds.
    async fn still_holds(&mut self, learnt_under: Mark) -> bool {
        let Some(lease) = &mut self.lease else {
            return false;
        };
        let holds = mark(&lease.pool).await == Some(learnt_under);
        lease.is_learnt_outdated |= !holds;
        holds
    }

    /// Writes what was released to the client. May be dropped and called again.
    pub(super) fn poll_write_released(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        match self.server.poll_pass_on(cx, &mut self.client.socket) {
            Err(_) => Poll::Ready(Err(Ended::ClientLeft)),
            Ok(_) if self.server.released == 0 => Poll::Ready(Ok(())),
            Ok(_) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preambles_are_known_by_their_words() {
        assert!(says(" BEGIN ;\n", "begin"));
        let isolation = "show transaction isolation level";
        assert!(says("Show\n  Transaction Isolation\tLevel", isolation));
        let constant = "select 1 where typname = 'hstore'";
        assert!(says("SELECT 1  WHERE typname = 'hstore';;", constant));
        for other in [
            "BEGIN -- why",
            "begin isolation level serializable",
            "beg in",
            "show transaction isolation",
            "show \"transaction\" isolation level",
            "SELECT 1 WHERE typname = 'HSTORE'",
            "SELECT 1 WHERE typname = 'h store'",
            "",
        ] {
            for known in ["begin", isolation, constant] {
                assert!(!says(other, known), "{other}");
            }
        }
        assert!(holds_nothing("select current_schema()"));
        let hstore = "SELECT t.oid, typarray\nFROM pg_type t JOIN pg_namespace ns\n    ON typnamespace = ns.oid\nWHERE typname = 'hstore';\n";
        assert!(leaves_settings(hstore) && !holds_nothing(hstore));
        assert!(!leaves_settings("SELECT f()"));
    }

    #[test]
    fn only_lists_of_names_set_the_path_for_sure() {
        for sql in [
            "set search_path = \"ssb\"",
            "SET search_path=\"a b\", \"C\",public;",
            "Set Search_Path = \"ssb\" ",
        ] {
            assert!(sets_search_path(sql), "{sql}");
        }
        for sql in [
            "set search_path = \"\"",
            "set search_path = \"a\"\"b\"",
            "set search_path = \"a",
            "set search_path = 'a'",
            "set search_path = user",
            "set search_path = ",
            "set search_path = \"a\"; select 1",
            "set local search_path = \"a\"",
            "set search_paths = \"a\"",
            "set",
            "select \"a\"",
        ] {
            assert!(!sets_search_path(sql), "{sql}");
        }
    }
}
