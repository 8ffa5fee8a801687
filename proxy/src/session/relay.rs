//! Moves bytes both ways until something else than relaying is due.
//!
//! One task, one poll function, no allocation per message: bytes are read into a direction's buffer and
//! written from it, frame headers are walked in place, bodies are not looked at (but for ReadyForQuery
//! and BackendKeyData). A direction that cannot be written is not read either.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use tracing::warn;

use super::batch::{Statement, Verdict, examine};
use super::model::Surprise;
use super::{Ended, Routing, Session};
use crate::route::Candidate;
use crate::telemetry;
use crate::wire::{HEADER_BYTES, Header, TransactionStatus, client_tag, header, server_tag};

/// BackendKeyData is a process number and a key of at most 256 bytes; a longer frame is not captured.
const KEY_DATA_FRAME_BYTES_MAX: usize = HEADER_BYTES + 4 + 256;

/// Why the relay stopped.
#[derive(Debug)]
pub(super) enum Pause {
    /// The client's bytes are one statement that the router may want to serve.
    Statement(Statement),
    /// The client's next message may need the unnamed statement that the backend was not told of.
    Withheld,
    Ended(Ended),
}

impl<R: Routing> Session<R> {
    /// Relays until there is something else to do. May be dropped at any await and called again.
    pub(super) async fn relay(&mut self) -> Pause {
        poll_fn(|cx| self.poll_relay(cx)).await
    }

    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Pause> {
        match self.move_bytes(cx) {
            Ok(()) => Poll::Pending,
            Err(pause) => Poll::Ready(pause),
        }
    }

    /// Moves what can be moved now.
    fn move_bytes(&mut self, cx: &mut Context<'_>) -> Result<(), Pause> {
        loop {
            let from_client = self.move_client_bytes(cx)?;
            let from_server = self.move_server_bytes(cx)?;
            if !from_client && !from_server {
                self.rest_if_idle();
                return if self.can_say_goodbye() {
                    Err(Pause::Ended(Ended::Drained))
                } else {
                    Ok(())
                };
            }
        }
    }

    fn rest_if_idle(&mut self) {
        if self.model.is_quiet() {
            self.client.inbound.rest();
            self.server.inbound.rest();
        }
    }

    /// Whether a shutdown may end this session now: nothing is under way and nothing is on its way.
    fn can_say_goodbye(&self) -> bool {
        self.is_draining
            && !self.is_raw
            && self.model.is_quiet()
            && self.model.status() == TransactionStatus::Idle
            && self.client.inbound.is_empty()
            && self.server.inbound.is_empty()
    }

    fn move_client_bytes(&mut self, cx: &mut Context<'_>) -> Result<bool, Pause> {
        let filled = self.client.poll_fill(cx);
        self.release_client_bytes(filled.is_pending())?;
        let wrote = self
            .client
            .poll_pass_on(cx, &mut self.server.socket)
            .unwrap_or_else(|_| {
                // The server does not read any more; it may still have said why, so go on reading it.
                self.client.consume(self.client.released);
                false
            });
        if self.client.ended && (self.client.released == 0 || self.is_abandoned()) {
            return Err(Pause::Ended(Ended::ClientLeft));
        }
        Ok(wrote || filled.is_ready())
    }

    /// Whether a client that says nothing more leaves a statement behind that it did not mean to finish.
    pub(super) fn is_abandoned(&self) -> bool {
        self.model.has_started()
            && !self.model.is_quiet()
            && !self.model.is_terminated()
            && !self.is_raw
    }

    /// Hands a statement at the front of the client's bytes to the server as it came. A clean one
    /// cannot have changed what is known of the session.
    pub(super) fn pass_through(&mut self, statement: &Statement, is_clean: bool) {
        while self.client.released < statement.len {
            let Ok(Some(header)) = header(self.client.unreleased()) else {
                break;
            };
            self.model.client_sent(header.tag);
            self.client.released += header.total;
        }
        if !is_clean {
            self.facts.forget();
        }
        // A Query drops the unnamed statement and a batch that is served replaces it.
        self.withheld = None;
    }

    /// Decides how many of the client's bytes may go to the server.
    fn release_client_bytes(&mut self, nothing_more: bool) -> Result<(), Pause> {
        if self.is_raw {
            self.client.release_all();
            return Ok(());
        }
        loop {
            self.client.release_frame_left();
            if self.client.unreleased().is_empty() {
                return Ok(());
            }
            let begins_something = self.model.is_quiet() && self.client.released == 0;
            if begins_something && self.must_hold(nothing_more)? {
                return Ok(());
            }
            match header(self.client.unreleased()) {
                Ok(Some(header)) => self.release_client_frame(header),
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.give_up(error.into());
                    return Ok(());
                }
            }
        }
    }

    fn release_client_frame(&mut self, header: Header) {
        self.model.client_sent(header.tag);
        self.facts.forget();
        self.client.frame_left = header.total;
    }

    /// Looks at what a quiet session's client has sent; whether it stays here for now.
    fn must_hold(&mut self, nothing_more: bool) -> Result<bool, Pause> {
        if !self.may_serve() {
            return self.check_withheld();
        }
        match examine(
            self.client.inbound.filled(),
            self.shared.limits.statement_bytes_max,
        ) {
            Verdict::Statement(statement) if self.is_candidate(&statement) => {
                Err(Pause::Statement(statement))
            }
            Verdict::Wait { total } if !self.client.ended => {
                self.client.inbound.ensure(total);
                Ok(true)
            }
            Verdict::WaitIfMore if !nothing_more => Ok(true),
            _ => self.check_withheld(),
        }
    }

    fn may_serve(&self) -> bool {
        self.model.status() != TransactionStatus::Failed
    }

    fn is_candidate(&self, statement: &Statement) -> bool {
        let sql = &self.client.inbound.filled()[statement.sql.clone()];
        self.shared.router.candidate(sql) == Candidate::Yes && std::str::from_utf8(sql).is_ok()
    }

    /// Before something is forwarded: does it replace the unnamed statement, or might it use it?
    fn check_withheld(&mut self) -> Result<bool, Pause> {
        if self.withheld.is_none() {
            return Ok(false);
        }
        let bytes = self.client.inbound.filled();
        match (bytes.first(), bytes.get(HEADER_BYTES)) {
            (Some(&client_tag::TERMINATE), _) => Ok(false),
            (Some(&client_tag::QUERY), _) | (Some(&client_tag::PARSE), Some(0)) => {
                self.withheld = None;
                Ok(false)
            }
            (Some(&client_tag::PARSE), None) => Ok(true),
            _ if bytes.len() < HEADER_BYTES => Ok(true),
            _ => Err(Pause::Withheld),
        }
    }

    fn move_server_bytes(&mut self, cx: &mut Context<'_>) -> Result<bool, Pause> {
        let filled = self.server.poll_fill(cx);
        // An exchange may have read more than it needed.
        if !self.server.unreleased().is_empty() {
            self.release_server_bytes();
        }
        let Ok(wrote) = self.server.poll_pass_on(cx, &mut self.client.socket) else {
            return Err(Pause::Ended(Ended::ClientLeft));
        };
        if self.server.ended && self.server.inbound.is_empty() {
            return Err(Pause::Ended(Ended::ServerLeft));
        }
        Ok(wrote || filled.is_ready())
    }

    /// Walks the frames that came and releases them; what ends within a header waits for the rest of it.
    pub(super) fn release_server_bytes(&mut self) {
        // The end of the stream may cut a frame: the client gets what there was.
        if self.is_raw || self.server.ended {
            return self.server.release_all();
        }
        loop {
            self.server.release_frame_left();
            match header(self.server.unreleased()) {
                Ok(Some(header)) => {
                    if !self.release_server_frame(header) {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => return self.give_up(error.into()),
            }
        }
    }

    /// Notes what a frame of the server says and releases it; `false` when it must be whole for that and is not.
    fn release_server_frame(&mut self, header: Header) -> bool {
        match header.tag {
            server_tag::READY_FOR_QUERY => {
                let Some(frame) = self.server.unreleased().get(..header.total) else {
                    return false;
                };
                if let Err(surprise) = self.model.server_ready(frame) {
                    self.give_up(surprise);
                    return false;
                }
            }
            server_tag::BACKEND_KEY_DATA if self.captures_key(header) => {
                let Some(frame) = self.server.unreleased().get(..header.total) else {
                    return false;
                };
                self.key_data = Some(Bytes::copy_from_slice(&frame[HEADER_BYTES..]));
            }
            server_tag::PARAMETER_STATUS => self.facts.forget(),
            _ => {}
        }
        self.server.frame_left = header.total;
        true
    }

    fn captures_key(&self, header: Header) -> bool {
        !self.model.has_started() && header.total <= KEY_DATA_FRAME_BYTES_MAX
    }

    /// From here on this session is a plain copy of bytes.
    pub(super) fn give_up(&mut self, surprise: Surprise) {
        warn!(%surprise, "The session does not follow the protocol as pgstar knows it; relaying it blindly.");
        self.shared.counters.surprises.add_one();
        telemetry::session_became_relay_only();
        self.is_raw = true;
        self.client.release_all();
        self.server.release_all();
    }
}
