//! What need not be asked of a leased backend again: what it said of names when it was new, and the facts of sessions that
//! only set their search path.
//!
//! Both hold while the mark of the catalog is what it was before they were asked for, and the mark is asked for each time,
//! by one question that all sessions of a thread share. It must not know what is done with the answers.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pgstar_postgres::visible::Glimpse;
use tracing::debug;

use super::lease::Lease;
use super::leg::Leg;
use super::preamble::{ASKED_ABOUT_NAMES, SETTINGS_AGE_MAX};
use super::{Routing, Session};
use crate::pool::{Greeting, Learnt, Mark, Pool};
use crate::wire::{self, TransactionStatus, data_row_values, header, server_tag};

/// Answers that are remembered are short.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Asks statements of a backend on which nothing is under way, all at once. Those that are answered by at most one row
/// are told, with whole frames up to ReadyForQuery; `None` if it left.
pub(super) async fn answers(
    server: &mut Leg,
    statements: &[&'static str],
) -> Option<Vec<(&'static str, Bytes)>> {
    let mut frames = BytesMut::new();
    for sql in statements {
        wire::query(&mut frames, sql);
    }
    server.say(&frames).await.ok()?;
    let mut answers = vec![];
    for sql in statements {
        let (mut answer, mut tags) = (BytesMut::new(), Vec::<u8>::new());
        loop {
            let frame = server.whole_frame(ANSWER_BYTES_MAX).await?;
            tags.extend(frame.first());
            if frame.first() == Some(&server_tag::READY_FOR_QUERY) {
                break;
            }
            answer.extend_from_slice(&frame);
        }
        // Anything else, such as an error, is not remembered.
        if tags == *b"TDCZ" || tags == *b"TCZ" {
            answers.push((*sql, answer.freeze()));
        }
    }
    Some(answers)
}

/// Learns what the backend, which is as good as new, says of names; whether it is still there.
pub(super) async fn learn_names(
    server: &mut Leg,
    pool: &Pool,
    greeting: &Greeting,
    learnt: &mut Learnt,
) -> bool {
    if !names_are_built_in(greeting) {
        return true;
    }
    // Before the answers: what is the same later was the same all the time between.
    let Some(mark) = mark(pool).await else {
        return true;
    };
    let answers = answers(server, &ASKED_ABOUT_NAMES).await;
    let is_there = answers.is_some();
    learnt.answers_are(mark, answers.unwrap_or_default());
    is_there
}

/// Whether the names in the statements mean PostgreSQL's own objects, and each statement sees what was committed before it.
fn names_are_built_in(greeting: &Greeting) -> bool {
    let value = |statement| {
        let answer = greeting
            .answers
            .iter()
            .find(|(asked, _)| *asked == statement)?;
        first_value(&answer.1)
    };
    let (path, isolation) = (
        value("show search_path"),
        value("show transaction_isolation"),
    );
    // Unless it is named, the catalog's schema comes first.
    path.is_some_and(|path| !path.contains("pg_")) && isolation.as_deref() == Some("read committed")
}

/// The text of the first value of an answer's first row.
fn first_value(answer: &[u8]) -> Option<String> {
    let mut rest = answer;
    loop {
        let header = header(rest).ok()??;
        let (frame, after) = rest.split_at_checked(header.total)?;
        if header.tag == server_tag::DATA_ROW {
            let values = data_row_values(frame).ok()?;
            let value = std::str::from_utf8((*values.first()?)?).ok()?;
            return Some(value.to_owned());
        }
        rest = after;
    }
}

/// The mark of now; `None` where PostgreSQL cannot be asked.
pub(super) async fn mark(pool: &Pool) -> Option<Mark> {
    let mark = pool.accounts.mark().await;
    mark.inspect_err(|error| debug!(%error, "Could not ask for a mark of the catalog."))
        .ok()
}

impl Lease {
    /// Nothing has run that can have changed a setting, and none will have been changed from outside.
    pub(super) fn has_known_settings(&self) -> bool {
        !self.is_tainted && self.has_first_settings_only && self.begun.elapsed() < SETTINGS_AGE_MAX
    }

    /// The statement by which the session's search path is what it is, empty for the first path; `None` if that is not
    /// known.
    fn path_set_by(&self) -> Option<&str> {
        let mut set_by = "";
        for held in &self.held {
            match held.pledge.command {
                "SET" => set_by = held.sql(),
                // It may undo what was set before.
                "ROLLBACK" if !set_by.is_empty() => return None,
                _ => {}
            }
        }
        Some(set_by)
    }
}

impl<R: Routing> Session<R> {
    /// Takes the session's facts from what was learnt on its backend, and the mark under which they hold.
    pub(super) fn recall_facts(&mut self) -> Option<Mark> {
        let (lease, set_by) = self.lease_with_path()?;
        let (mark, facts) = lease.learnt.facts(set_by)?;
        let facts = facts.clone();
        self.facts.learn(facts);
        Some(mark)
    }

    /// The mark under which facts that are asked for next may be remembered, and the statement that set the path.
    pub(super) async fn mark_for_facts(&self) -> Option<(Mark, Box<str>)> {
        let (lease, set_by) = self.lease_with_path()?;
        Some((mark(&lease.pool).await?, set_by.into()))
    }

    /// The lease of a session that did nothing but set its search path, and the statement by which it did.
    fn lease_with_path(&self) -> Option<(&Lease, &str)> {
        let is_failed = self.told_status() == TransactionStatus::Failed;
        let lease = self.lease.as_deref();
        let lease = lease.filter(|lease| !is_failed && lease.has_known_settings())?;
        Some((lease, lease.path_set_by()?))
    }

    /// The mark of now; `None` where it is not known.
    pub(super) async fn mark_now(&self) -> Option<Mark> {
        mark(&self.lease.as_ref()?.pool).await
    }

    /// The mark of now, together with what else the same question shows; `None` where that is not known by so short a question.
    pub(super) async fn glimpse(&self) -> Option<(Mark, Arc<Glimpse>)> {
        let glimpse = self.lease.as_ref()?.pool.accounts.glimpse().await;
        glimpse
            .inspect_err(|error| debug!(%error, "Could not ask for a mark of the catalog."))
            .ok()
            .flatten()
    }

    /// Remembers the facts that were asked for after the mark was.
    pub(super) fn remember_facts(&mut self, (mark, set_by): (Mark, Box<str>)) {
        let facts = self.facts.get().clone();
        if let Some(lease) = &mut self.lease {
            lease.learnt.facts_are(&set_by, mark, facts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_is_that_of_the_first_row() {
        let mut answer = BytesMut::new();
        wire::command_complete(&mut answer, "SHOW");
        assert_eq!(first_value(&answer), None);
        wire::data_row(&mut answer, &[Some(b"one"), None]);
        wire::data_row(&mut answer, &[Some(b"two")]);
        assert_eq!(first_value(&answer).as_deref(), Some("one"));
    }
}
