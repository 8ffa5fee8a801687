//! The statements that a session has prepared in PostgreSQL, as far as their texts are remembered.
//!
//! A statement is known once PostgreSQL has said ParseComplete to its Parse, and until anything that may end
//! it. What SQL itself does to the names (PREPARE, DEALLOCATE, DISCARD, also within functions) is not
//! followed here: before a statement is used, PostgreSQL is asked whether it is still there (see
//! [`super::verify`]). To forget is always safe: such a statement passes through. It must not know routes.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use crate::route::Candidate;
use crate::wire::Parse;

/// Statements that are remembered; drivers keep at most a few hundred.
const STATEMENTS_MAX: usize = 1_024;
/// Their names, texts, parameter types and descriptions together, in bytes.
const BYTES_MAX: usize = 256 * 1024;
/// Parse messages that PostgreSQL has not answered; of a longer pipeline nothing is remembered.
const PENDING_MAX: usize = 1_024;

/// One statement as it was prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prepared {
    pub(super) sql: Box<str>,
    /// As Parse had them: zero leaves a type to the server.
    pub(super) parameter_types: Vec<u32>,
    /// What PostgreSQL last said of its columns, and while which facts held.
    verified: Option<Verified>,
    /// The router's version for which its text is no candidate.
    passes_in: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Verified {
    facts_generation: u64,
    /// The whole RowDescription frame.
    columns: Bytes,
}

impl Prepared {
    fn bytes(&self) -> usize {
        let columns = self.verified.as_ref().map_or(0, |it| it.columns.len());
        self.sql.len() + 4 * self.parameter_types.len() + columns
    }

    /// Its RowDescription, if it was seen while these facts of the session held.
    pub(super) fn columns(&self, facts_generation: u64) -> Option<&Bytes> {
        let verified = self.verified.as_ref()?;
        (verified.facts_generation == facts_generation).then_some(&verified.columns)
    }
}

/// A Parse that PostgreSQL has not answered.
#[derive(Debug)]
struct Pending {
    /// Which ReadyForQuery of the session ends the wait: PostgreSQL skips a Parse that follows an error.
    ready: u64,
    /// What it prepares, unless it is not to be remembered.
    statement: Option<(Box<[u8]>, Prepared)>,
}

/// What a session has prepared.
#[derive(Debug, Default)]
pub(super) struct PreparedStatements {
    known: HashMap<Box<[u8]>, Prepared>,
    /// What the known ones take.
    bytes: usize,
    pending: VecDeque<Pending>,
    /// A pipeline was too long to follow: answers before this ReadyForQuery are to nobody knows what.
    lost_until: u64,
    /// The last ReadyForQuery that came.
    last_ready: u64,
}

impl PreparedStatements {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Prepared> {
        self.known.get(name)
    }

    /// Whether the statement of this name may be served; the text of one that may not is looked at once for each version
    /// of the router.
    pub(super) fn candidate(
        &mut self,
        name: &[u8],
        version: u64,
        look: impl FnOnce(&[u8]) -> Candidate,
    ) -> Candidate {
        let Some(prepared) = self.known.get_mut(name) else {
            return Candidate::No;
        };
        if prepared.passes_in == Some(version) {
            return Candidate::No;
        }
        let candidate = look(prepared.sql.as_bytes());
        prepared.passes_in = (candidate == Candidate::No).then_some(version);
        candidate
    }

    /// A Parse goes to PostgreSQL; `ready` is the number of the ReadyForQuery that comes after its answer.
    /// `None` stands for one that was too large to look at.
    pub(super) fn parse_sent(&mut self, parse: Option<Parse<'_>>, ready: u64) {
        match &parse {
            // Whether PostgreSQL takes or refuses a name that exists, its answer is not waited for.
            Some(parse) => self.forget(parse.name),
            None => self.forget_all(),
        }
        if self.follows(ready) {
            let statement = parse.and_then(remember);
            self.pending.push_back(Pending { ready, statement });
        }
    }

    /// The same for a Parse of the unnamed statement whose text is not worth remembering.
    pub(super) fn useless_parse_sent(&mut self, ready: u64) {
        self.forget(b"");
        if self.follows(ready) {
            let statement = None;
            self.pending.push_back(Pending { ready, statement });
        }
    }

    /// Whether the answer to another Parse will be known for what it is.
    fn follows(&mut self, ready: u64) -> bool {
        if self.is_lost() || self.pending.len() >= PENDING_MAX {
            self.pending = VecDeque::new();
            self.lost_until = ready;
            return false;
        }
        true
    }

    /// PostgreSQL has accepted the oldest Parse.
    pub(super) fn parse_completed(&mut self) {
        let accepted = self.pending.pop_front().and_then(|it| it.statement);
        let Some((name, prepared)) = accepted else {
            return;
        };
        let bytes = name.len() + prepared.bytes();
        if self.known.len() < STATEMENTS_MAX && self.bytes + bytes <= BYTES_MAX {
            self.bytes += bytes;
            self.known.insert(name, prepared);
        }
    }

    /// This ReadyForQuery of the session came: what was sent before it is not answered any more.
    pub(super) fn ready(&mut self, ready: u64) {
        self.last_ready = ready;
        while self.pending.front().is_some_and(|it| it.ready <= ready) {
            self.pending.pop_front();
        }
    }

    fn is_lost(&self) -> bool {
        self.last_ready < self.lost_until
    }

    /// The name does not stand for what it stood for, or soon will not.
    pub(super) fn forget(&mut self, name: &[u8]) {
        if self.known.is_empty() && self.pending.is_empty() {
            return;
        }
        if let Some((name, prepared)) = self.known.remove_entry(name) {
            self.bytes -= name.len() + prepared.bytes();
        }
        for pending in &mut self.pending {
            pending.statement.take_if(|(pending, _)| **pending == *name);
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.known.clear();
        self.bytes = 0;
        for pending in &mut self.pending {
            pending.statement = None;
        }
    }

    /// PostgreSQL still has this statement, and its columns are these.
    pub(super) fn verify(&mut self, name: &[u8], columns: Bytes, facts_generation: u64) {
        let Some(prepared) = self.known.get_mut(name) else {
            return;
        };
        self.bytes -= prepared.bytes();
        prepared.verified = Some(Verified {
            facts_generation,
            columns,
        });
        self.bytes += prepared.bytes();
        if self.bytes > BYTES_MAX {
            self.forget(name);
        }
    }
}

/// What is worth remembering of a Parse: only texts in UTF-8 can be served.
fn remember(parse: Parse<'_>) -> Option<(Box<[u8]>, Prepared)> {
    if parse.name.len() + parse.sql.len() > BYTES_MAX {
        return None;
    }
    let prepared = Prepared {
        sql: std::str::from_utf8(parse.sql).ok()?.into(),
        parameter_types: parse.parameter_types(),
        verified: None,
        passes_in: None,
    };
    Some((parse.name.into(), prepared))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::{self, body, read};

    fn send(statements: &mut PreparedStatements, name: &str, sql: &str, ready: u64) {
        let mut frame = BytesMut::new();
        wire::parse(&mut frame, name.as_bytes(), sql, &[23]);
        let parse = read::parse(body(&frame).unwrap()).unwrap();
        statements.parse_sent(Some(parse), ready);
    }

    fn known(name: &str, sql: &str) -> PreparedStatements {
        let mut statements = PreparedStatements::default();
        send(&mut statements, name, sql, 1);
        statements.parse_completed();
        statements
    }

    #[test]
    fn a_statement_is_known_once_it_was_accepted_and_until_it_is_closed() {
        let mut statements = PreparedStatements::default();
        send(&mut statements, "s", "SELECT $1", 1);
        assert!(statements.get(b"s").is_none());
        statements.parse_completed();
        let prepared = statements.get(b"s").unwrap();
        assert_eq!(
            (&*prepared.sql, &prepared.parameter_types[..]),
            ("SELECT $1", &[23][..])
        );
        statements.forget(b"s");
        assert!(statements.is_empty() && statements.bytes == 0);
    }

    #[test]
    fn an_answer_belongs_to_the_oldest_parse_that_was_not_skipped() {
        let mut statements = PreparedStatements::default();
        send(&mut statements, "failed", "SELEC", 1);
        send(&mut statements, "skipped", "SELECT 1", 1);
        send(&mut statements, "good", "SELECT 2", 2);
        statements.ready(1);
        statements.parse_completed();
        assert_eq!(&*statements.get(b"good").unwrap().sql, "SELECT 2");
        assert_eq!(statements.known.len(), 1);
        statements.parse_completed();
    }

    #[test]
    fn a_useless_text_takes_the_unnamed_statements_place_and_is_answered_in_its_turn() {
        let mut statements = known("", "SELECT 1");
        statements.useless_parse_sent(1);
        send(&mut statements, "s", "SELECT 2", 1);
        statements.parse_completed();
        assert!(statements.is_empty());
        statements.parse_completed();
        assert_eq!(&*statements.get(b"s").unwrap().sql, "SELECT 2");
    }

    #[test]
    fn what_was_closed_or_sent_again_before_it_was_accepted_is_not_known() {
        let mut statements = PreparedStatements::default();
        send(&mut statements, "s", "SELECT 1", 1);
        statements.forget(b"s");
        statements.parse_completed();
        assert!(statements.is_empty());
        let mut statements = known("s", "SELECT 1");
        send(&mut statements, "s", "SELECT 2", 1);
        assert!(
            statements.is_empty(),
            "PostgreSQL may refuse it or not: nobody knows"
        );
    }

    #[test]
    fn a_parse_too_large_to_look_at_may_have_any_name() {
        let mut statements = known("s", "SELECT 1");
        statements.parse_sent(None, 1);
        assert!(statements.is_empty());
        statements.parse_completed();
        assert!(statements.is_empty());
    }

    #[test]
    fn a_verification_holds_as_long_as_the_facts() {
        let mut statements = known("s", "SELECT 1");
        statements.verify(b"s", Bytes::from_static(b"columns"), 7);
        let prepared = statements.get(b"s").unwrap();
        assert!(prepared.columns(7).is_some());
        assert!(prepared.columns(8).is_none());
    }

    #[test]
    fn a_text_that_is_no_candidate_is_looked_at_once_for_each_version() {
        let mut statements = known("s", "SELECT 1");
        let mut looks = vec![];
        for (version, candidate) in [
            (1, Candidate::NotYet),
            (1, Candidate::No),
            (1, Candidate::Yes),
            (2, Candidate::Yes),
            (2, Candidate::No),
        ] {
            let mut was_looked_at = false;
            let told = statements.candidate(b"s", version, |_| {
                was_looked_at = true;
                candidate
            });
            looks.push((was_looked_at, told));
        }
        let expected = [
            (true, Candidate::NotYet),
            (true, Candidate::No),
            (false, Candidate::No),
            (true, Candidate::Yes),
            (true, Candidate::No),
        ];
        assert_eq!(looks, expected);
        let other = statements.candidate(b"other", 1, |_| Candidate::Yes);
        assert_eq!(other, Candidate::No);
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let text = "x".repeat(1_000);
        let mut statements = PreparedStatements::default();
        for at in 0..2_000 {
            send(&mut statements, &at.to_string(), &text, 1);
            statements.parse_completed();
            assert!(statements.bytes <= BYTES_MAX);
        }
        assert!(statements.known.len() > 200);
        statements.verify(b"0", Bytes::from(vec![0; BYTES_MAX]), 1);
        assert!(statements.get(b"0").is_none() && statements.bytes <= BYTES_MAX);
        for at in 0..2_000 {
            statements.forget(at.to_string().as_bytes());
        }
        assert_eq!(statements.bytes, 0);
    }

    #[test]
    fn a_pipeline_too_long_to_follow_is_forgotten_and_the_next_is_not() {
        let mut statements = PreparedStatements::default();
        for at in 0..=PENDING_MAX {
            send(&mut statements, &at.to_string(), "SELECT 1", 1);
        }
        for _ in 0..=PENDING_MAX {
            statements.parse_completed();
        }
        assert!(statements.is_empty());
        statements.ready(1);
        send(&mut statements, "s", "SELECT 1", 2);
        statements.parse_completed();
        assert_eq!(statements.known.len(), 1);
    }
}
