//! Statements whose outcome is certain, kept back for a moment after the client was answered: what follows may undo them, and
//! if not they go to PostgreSQL together with it.
//!
//! `BEGIN` is the reason for the shortness: the transaction's time is when PostgreSQL gets it. It must not know which
//! statements those are.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, Sleep, sleep_until};

use super::batch::Statement;
use super::pledge::Pledge;
use super::unnamed::Withheld;
use super::{Routing, Session};
use crate::route::Passing;
use crate::wire::{client_tag, header, read};

/// How long a statement may be kept back.
const HELD_MAX: Duration = Duration::from_millis(10);

/// A statement that the client was answered and PostgreSQL was not sent.
#[derive(Debug)]
pub(super) struct Held {
    /// Its Query.
    frame: Bytes,
    pub(super) pledge: Pledge,
    since: Instant,
}

impl Held {
    /// The statement's text.
    pub(super) fn sql(&self) -> &str {
        let body = crate::wire::body(&self.frame).and_then(read::query);
        body.ok()
            .and_then(|sql| std::str::from_utf8(sql).ok())
            .unwrap_or_default()
    }
}

impl<R: Routing> Session<R> {
    /// Keeps back the Query at the front of the client's bytes.
    pub(super) fn hold_back(&mut self, statement: &Statement, pledge: Pledge) {
        let frame = Bytes::copy_from_slice(&self.client.inbound.filled()[..statement.len]);
        self.settle(statement, Some(Withheld::Drop));
        self.facts.forget();
        if let Some(lease) = &mut self.lease {
            let since = Instant::now();
            lease.held.push(Held {
                frame,
                pledge,
                since,
            });
        }
    }

    /// Forgets the open transaction and the statement at the front of the client's bytes, which undoes it, if
    /// PostgreSQL knows nothing of it.
    pub(super) fn undo_held(&mut self, statement: &Statement) {
        if let Some(begun_at) = self.held_transaction() {
            self.settle(statement, Some(Withheld::Drop));
            self.facts.forget();
            if let Some(lease) = &mut self.lease {
                lease.held.truncate(begun_at);
            }
        }
    }
}

impl<R> Session<R> {
    /// Where among the held statements the open transaction begins; `None` if it does elsewhere, or none is open.
    pub(super) fn held_transaction(&self) -> Option<usize> {
        let held = &self.lease.as_ref()?.held;
        let bounds = |held: &Held| matches!(held.pledge.command, "BEGIN" | "ROLLBACK");
        let last = held.iter().rposition(bounds)?;
        (held[last].pledge.command == "BEGIN").then_some(last)
    }

    /// By when what is held must go.
    pub(super) fn held_until(&self) -> Option<Instant> {
        let first = self.lease.as_ref()?.held.first()?;
        Some(first.since + HELD_MAX)
    }

    /// What is held is on its way from now on: its frames, which have to go before anything else.
    pub(super) fn note_held(&mut self) -> BytesMut {
        let mut frames = BytesMut::new();
        let Some(lease) = self.lease.as_mut().filter(|lease| !lease.held.is_empty()) else {
            return frames;
        };
        for held in std::mem::take(&mut lease.held) {
            self.facts.note_passing(Passing::of(held.sql().as_bytes()));
            let held_nothing = lease.holds_nothing;
            if let Ok(Some(header)) = header(&held.frame) {
                lease.note(header, crate::wire::body(&held.frame).ok());
            }
            // Setting the path holds nothing.
            lease.holds_nothing = match held.pledge.command {
                "BEGIN" => true,
                "SET" => held_nothing,
                _ => false,
            };
            self.model.client_sent(client_tag::QUERY);
            lease.pledges.push_back(held.pledge);
            frames.extend_from_slice(&held.frame);
        }
        // A Query was sent, and with it the unnamed statement is gone.
        if self.withheld == Some(Withheld::Drop) {
            self.withheld = None;
        }
        frames
    }

    /// Lets the relay send what is held, before what comes next.
    pub(super) fn release_held(&mut self) {
        let frames = self.note_held();
        if !frames.is_empty() {
            self.client.release_before(self.client.released, &frames);
        }
    }

    /// The client has broken the protocol, and the session ends: nobody waits for it.
    pub(super) fn drop_held(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.held.clear();
        }
    }
}

/// The timer for what is held. It goes off too early rather than being set for every statement that is held: most of those
/// are undone before.
#[derive(Debug, Default)]
pub(super) struct Holding(Option<Pin<Box<Sleep>>>);

impl Holding {
    /// Sets it to this time at the latest.
    pub(super) fn set(&mut self, until: Option<Instant>) {
        let goes_off_before = |timer: &Pin<Box<Sleep>>| {
            !timer.is_elapsed() && until.is_none_or(|until| timer.deadline() <= until)
        };
        if !self.0.as_ref().is_some_and(goes_off_before) {
            self.0 = until.map(|until| Box::pin(sleep_until(until)));
        }
    }

    /// Resolves at that time, or before.
    pub(super) async fn due(&mut self) {
        match &mut self.0 {
            Some(timer) => timer.as_mut().await,
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_timer_is_set_anew_once_it_has_gone_off_or_when_it_would_be_late() {
        let deadline = |holding: &Holding| holding.0.as_ref().map(|timer| timer.deadline());
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        let (soon, late) = (later(3600), later(7200));
        let mut holding = Holding::default();
        holding.set(Some(late));
        holding.set(Some(soon));
        assert_eq!(deadline(&holding), Some(soon));
        for until in [Some(late), None] {
            holding.set(until);
            assert_eq!(deadline(&holding), Some(soon));
        }
        holding.set(Some(Instant::now()));
        holding.due().await;
        holding.set(Some(late));
        assert_eq!(deadline(&holding), Some(late));
        holding.set(Some(Instant::now()));
        holding.due().await;
        holding.set(None);
        assert_eq!(deadline(&holding), None);
    }
}
