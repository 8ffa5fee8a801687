//! Statements that PostgreSQL gets at once and whose outcome is certain, so that the client is not made to wait for it.
//!
//! PostgreSQL's replies to them are taken out of the stream when they come, and must be what was foretold. If they are
//! not, the session ends with PostgreSQL's own words. It must not know which statements those are.

use std::future::poll_fn;

use bytes::BytesMut;

use super::relay::Pause;
use super::{Ended, Routing, Session};
use crate::wire::{self, Header, TransactionStatus, header, server_tag};

/// A reply that the client has been given and PostgreSQL has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pledge {
    /// The command in its CommandComplete.
    pub(super) command: &'static str,
    /// The status in its ReadyForQuery.
    pub(super) status: TransactionStatus,
}

impl Pledge {
    /// Whether this frame is the one that was foretold to come before ReadyForQuery.
    pub(super) fn is_completed_by(&self, frame: &[u8]) -> bool {
        let mut expected = BytesMut::new();
        wire::command_complete(&mut expected, self.command);
        frame == expected
    }
}

/// What became of a frame while pledges are open.
enum Taken {
    /// It was part of one.
    Yes,
    /// It came unasked, and is the client's.
    No,
    /// It is not whole, or something before it is still to be written.
    NotYet,
}

impl<R> Session<R> {
    pub(super) fn has_pledges(&self) -> bool {
        self.lease
            .as_ref()
            .is_some_and(|lease| !lease.pledges.is_empty())
    }

    /// Nothing is under way but what the client has been answered already.
    pub(super) fn owes_only_pledges(&self) -> bool {
        let pledges = self.lease.as_ref().map_or(0, |lease| lease.pledges.len());
        pledges > 0 && self.model.owes_only(pledges as u64)
    }

    /// The transaction's status as the client was told it last, while nothing else is under way.
    pub(super) fn told_status(&self) -> TransactionStatus {
        let held = self.lease.as_ref().and_then(|lease| lease.held.last());
        held.map_or_else(|| self.sent_status(), |held| held.pledge.status)
    }

    /// The status that PostgreSQL will have come to once it has answered everything that it was sent.
    pub(super) fn sent_status(&self) -> TransactionStatus {
        let last = self.lease.as_ref().and_then(|lease| lease.pledges.back());
        last.map_or(self.model.status(), |pledge| pledge.status)
    }
}

impl<R: Routing> Session<R> {
    /// Takes replies out of the server's bytes as far as they have come; whether the next frame is the client's.
    pub(super) fn take_pledged(&mut self) -> bool {
        while self.has_pledges() && !self.is_pledge_broken {
            let Ok(Some(header)) = header(self.server.unreleased()) else {
                return false;
            };
            match self.take_pledged_frame(header) {
                Taken::Yes => {}
                Taken::No => return true,
                Taken::NotYet => return false,
            }
        }
        !self.is_pledge_broken
    }

    fn take_pledged_frame(&mut self, header: Header) -> Taken {
        if server_tag::is_asynchronous(header.tag) {
            return Taken::No;
        }
        if self.server.released > 0 {
            return Taken::NotYet;
        }
        let Some(frame) = self.server.inbound.filled().get(..header.total) else {
            self.server.inbound.ensure(header.total);
            return Taken::NotYet;
        };
        let pledge = self.lease.as_ref().and_then(|lease| lease.pledges.front());
        let Some(pledge) = pledge.copied() else {
            return Taken::No;
        };
        let is_kept = match header.tag {
            server_tag::COMMAND_COMPLETE => pledge.is_completed_by(frame),
            server_tag::READY_FOR_QUERY => {
                let is_ready = self.model.server_ready(frame).is_ok();
                if let Some(lease) = &mut self.lease {
                    lease.pledges.pop_front();
                }
                self.prepared.ready(self.model.readies());
                is_ready && self.model.status() == pledge.status
            }
            _ => false,
        };
        if !is_kept {
            // It says why: the server shuts down, most likely.
            self.swallowed_error = Some(bytes::Bytes::copy_from_slice(frame));
            self.is_pledge_broken = true;
        }
        self.server.consume(header.total);
        Taken::Yes
    }

    /// Waits until every reply has come.
    pub(super) async fn keep_pledges(&mut self) -> Result<(), Ended> {
        while self.has_pledges() {
            // Whatever was released before them goes first, an unasked frame to its end.
            self.server.release_frame_left();
            poll_fn(|cx| self.poll_write_released(cx)).await?;
            let is_amid_frame = self.server.frame_left > 0;
            if !is_amid_frame && self.take_pledged() {
                // Behind the last reply comes what was asked beside, and whoever asked takes it.
                let unasked = header(self.server.unreleased()).ok().flatten();
                if let Some(unasked) = unasked.filter(|_| self.has_pledges()) {
                    self.pass_unasked(unasked).await?;
                }
                continue;
            }
            if self.is_pledge_broken {
                return Err(Ended::ServerLeft);
            }
            self.more_from_server().await?;
        }
        Ok(())
    }

    /// Whether the relay must end because a reply was not what had been foretold.
    pub(super) fn check_pledges(&self) -> Result<(), Pause> {
        match self.is_pledge_broken {
            true => Err(Pause::Ended(Ended::ServerLeft)),
            false => Ok(()),
        }
    }
}
