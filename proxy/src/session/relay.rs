//! Moves bytes both ways until something else than relaying is due.
//!
//! One task, one poll function, no allocation per message: bytes are read into a direction's buffer and
//! written from it, frame headers are walked in place, bodies are not looked at (but for ReadyForQuery
//! and BackendKeyData). A direction that cannot be written is not read either.

use std::future::poll_fn;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::task::yield_now;
use tracing::warn;

use super::batch::{Statement, Text, Verdict, examine};
use super::model::Surprise;
use super::preamble::Prompt;
use super::{Ended, Routing, Session};
use crate::route::{Candidate, Passing};
use crate::telemetry;
use crate::wire::{
    HEADER_BYTES, Header, Target, TransactionStatus, client_tag, header, read, server_tag,
};

/// BackendKeyData is a process number and a key of at most 256 bytes; a longer frame is not captured.
const KEY_DATA_FRAME_BYTES_MAX: usize = HEADER_BYTES + 4 + 256;
/// The largest Parse or Close that is looked at: longer ones are rare, and what they name is forgotten.
const NAMING_FRAME_BYTES_MAX: usize = 64 * 1024;

/// How often bytes are moved before the other sessions of the thread have their turn. Sockets are looked at only
/// between turns: without an end to this one, an error of the server's would wait until a client that sends much
/// has sent it all.
const MOVES_MAX: u32 = 4;

/// There may be more to move.
struct TurnIsOver;

/// What becomes of what a quiet session's client has sent.
enum Beginning {
    /// It stays here for now.
    Stays,
    /// It is a statement, and on its way.
    Passed,
    /// It goes on frame by frame.
    Unjudged,
}

/// Why the relay stopped.
#[derive(Debug)]
pub(super) enum Pause {
    /// The client's bytes are one statement that the router may want to serve.
    Statement(Statement),
    /// The client's bytes are one statement that need not wait for the server.
    Prompt(Box<(Statement, Prompt)>),
    /// The client's next message may need the unnamed statement that the backend was not told of.
    Withheld,
    Ended(Ended),
}

impl<R: Routing> Session<R> {
    /// Relays until there is something else to do. May be dropped at any await and called again.
    pub(super) async fn relay(&mut self) -> Pause {
        loop {
            match poll_fn(|cx| self.poll_relay(cx)).await {
                Ok(pause) => return pause,
                Err(TurnIsOver) => yield_now().await,
            }
        }
    }

    /// Moves what can be moved now, but no more than a turn's worth.
    fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Result<Pause, TurnIsOver>> {
        for _ in 0..MOVES_MAX {
            match self.move_bytes(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(pause) => return Poll::Ready(Ok(pause)),
            }
        }
        Poll::Ready(Err(TurnIsOver))
    }

    /// Moves bytes in both directions once; whether there may be more.
    fn move_bytes(&mut self, cx: &mut Context<'_>) -> Result<bool, Pause> {
        let from_client = self.move_client_bytes(cx)?;
        let from_server = self.move_server_bytes(cx)?;
        let is_drained = self.client.is_drained && self.server.is_drained;
        let nothing_left = self.client.inbound.is_empty() && self.server.inbound.is_empty();
        if (from_client || from_server) && !(is_drained && nothing_left) {
            return Ok(true);
        }
        self.rest_if_idle();
        match self.can_say_goodbye() {
            true => Err(Pause::Ended(Ended::Drained)),
            false => Ok(false),
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
            && self.told_status() == TransactionStatus::Idle
            && self.client.inbound.is_empty()
            && self.server.inbound.is_empty()
    }

    fn move_client_bytes(&mut self, cx: &mut Context<'_>) -> Result<bool, Pause> {
        let filled = self.client.poll_fill(cx);
        self.release_client_bytes(filled.is_pending() || self.client.is_drained)?;
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
        let passing = self
            .sql(statement)
            .map_or(Passing::Writes, |sql| Passing::of(sql.as_bytes()));
        self.release_statement(statement, passing, Session::note_names);
        if !is_clean {
            self.facts.forget();
        }
    }

    /// The same for a statement whose text is of no use to the router.
    fn pass_useless(&mut self, statement: &Statement) {
        let passing = match &statement.text {
            Text::Sent(text) => Passing::of(&self.client.inbound.filled()[text.clone()]),
            // What it is was noted when it was prepared.
            Text::Prepared { .. } => self.facts.get().passed.of_prepared(),
        };
        self.release_statement(statement, passing, |session, header| match header.tag {
            client_tag::PARSE => {
                let ready = session.model.next_ready();
                session.prepared.useless_parse_sent(ready);
            }
            _ => session.note_names(header),
        });
        self.facts.forget();
    }

    /// Releases the frames of a statement at the front of the client's bytes.
    fn release_statement(
        &mut self,
        statement: &Statement,
        passing: Passing,
        note_names: impl Fn(&mut Self, Header),
    ) {
        let held = self.note_held();
        self.facts.note_passing(passing);
        while self.client.released < statement.len {
            let Ok(Some(header)) = header(self.client.unreleased()) else {
                break;
            };
            note_names(self, header);
            self.note_traces(header);
            self.model.client_sent(header.tag);
            self.client.released += header.total;
        }
        // A Query drops the unnamed statement and its portal, a batch replaces them; for one that refers to a
        // statement by name, the unnamed statement has been made up for.
        self.withheld = None;
        if !held.is_empty() {
            self.client.release_before(0, &held);
        }
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
            let begins_something = self.client.released == 0 && self.may_begin();
            if begins_something {
                match self.judge_beginning(nothing_more)? {
                    Beginning::Stays => return Ok(()),
                    Beginning::Passed => continue,
                    Beginning::Unjudged => {}
                }
            }
            match header(self.client.unreleased()) {
                Ok(Some(header)) if self.must_be_whole(header) => return Ok(()),
                Ok(Some(header)) if self.leaves_backend(header) => {
                    return Err(Pause::Ended(Ended::ClientLeft));
                }
                Ok(Some(header)) => {
                    self.release_held();
                    self.release_client_frame(header);
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.give_up(error.into());
                    return Ok(());
                }
            }
        }
    }

    /// Whether the client's next bytes may be a statement to serve: nothing is under way, or it has only
    /// prepared something, without Sync, and goes on with a batch.
    fn may_begin(&self) -> bool {
        let is_batch = || {
            let tag = self.client.unreleased().first();
            matches!(tag, Some(&client_tag::PARSE | &client_tag::BIND))
        };
        self.model.is_quiet()
            || self.owes_only_pledges()
            || (self.model.has_prepared() && is_batch())
    }

    /// Whether the frame is to be looked at and has not come whole: the server could not act on it either.
    fn must_be_whole(&mut self, header: Header) -> bool {
        let is_waited_for = names_a_statement(header)
            && self.client.unreleased().len() < header.total
            && !self.client.ended;
        if is_waited_for {
            let total = self.client.released + header.total;
            self.client.inbound.ensure(total);
        }
        is_waited_for
    }

    fn release_client_frame(&mut self, header: Header) {
        self.note_passing(header);
        self.note_names(header);
        self.note_traces(header);
        self.model.client_sent(header.tag);
        if may_change_facts(header.tag) {
            self.facts.forget();
        }
        self.client.frame_left = header.total;
    }

    /// Notes what the client's frame may do. What is prepared counts when it is run, but only here can be seen
    /// what it is; a text that has not come whole counts as one that writes.
    fn note_passing(&self, header: Header) {
        let frame = self.client.unreleased().get(..header.total);
        let body = frame.map(|frame| &frame[HEADER_BYTES..]);
        let passing = match (header.tag, body) {
            (client_tag::QUERY, Some(body)) => read::query(body).map(Passing::of),
            (client_tag::PARSE, Some(body)) => {
                read::parse(body).map(|parse| Passing::of(parse.sql))
            }
            (client_tag::QUERY | client_tag::PARSE, None) => Ok(Passing::Writes),
            (client_tag::EXECUTE, _) => Ok(self.facts.get().passed.of_prepared()),
            (client_tag::FUNCTION_CALL, _) => Ok(Passing::Writes),
            _ => return,
        };
        self.facts.note_passing(passing.unwrap_or(Passing::Writes));
    }

    /// Notes what the client's frame does to the names of prepared statements.
    fn note_names(&mut self, header: Header) {
        let frame = self.client.unreleased().get(..header.total);
        let body = frame.map(|frame| &frame[HEADER_BYTES..]);
        let ready = self.model.next_ready();
        match (header.tag, body) {
            (client_tag::QUERY, _) => self.prepared.forget(b""),
            (client_tag::PARSE, Some(body)) if names_a_statement(header) => {
                self.prepared.parse_sent(read::parse(body).ok(), ready);
            }
            (client_tag::PARSE, _) => self.prepared.parse_sent(None, ready),
            (client_tag::CLOSE, body) => match body.map(read::close) {
                Some(Ok(close)) if close.target == Target::Portal => {}
                Some(Ok(close)) => self.prepared.forget(close.name),
                _ => self.prepared.forget_all(),
            },
            _ => {}
        }
    }

    /// Looks at what a quiet session's client has sent.
    fn judge_beginning(&mut self, nothing_more: bool) -> Result<Beginning, Pause> {
        let may_serve = self.may_serve();
        if !may_serve && self.lease.is_none() {
            return self.judge_unserved();
        }
        match examine(
            self.client.inbound.filled(),
            self.shared.limits.statement_bytes_max,
        ) {
            Verdict::Statement(statement) => {
                if let Some(prompt) = self.prompt(&statement) {
                    return Err(Pause::Prompt(Box::new((statement, prompt))));
                }
                if !may_serve {
                    return self.judge_unserved();
                }
                match self.candidate(&statement) {
                    Candidate::Yes => Err(Pause::Statement(statement)),
                    Candidate::NotYet => self.judge_unserved(),
                    Candidate::No if self.check_withheld()? => Ok(Beginning::Stays),
                    Candidate::No => {
                        self.pass_useless(&statement);
                        Ok(Beginning::Passed)
                    }
                }
            }
            Verdict::Wait { total } if !self.client.ended => {
                self.client.inbound.ensure(total);
                Ok(Beginning::Stays)
            }
            Verdict::WaitIfMore if !nothing_more => Ok(Beginning::Stays),
            _ => self.judge_unserved(),
        }
    }

    fn judge_unserved(&mut self) -> Result<Beginning, Pause> {
        Ok(match self.check_withheld()? {
            true => Beginning::Stays,
            false => Beginning::Unjudged,
        })
    }

    fn may_serve(&self) -> bool {
        let refers_to_unknown = self.prepared.is_empty()
            && self.client.inbound.filled().first() == Some(&client_tag::BIND);
        self.told_status() != TransactionStatus::Failed && !refers_to_unknown
    }

    fn candidate(&mut self, statement: &Statement) -> Candidate {
        let bytes = self.client.inbound.filled();
        let router = &self.shared.router;
        match &statement.text {
            Text::Sent(text) => {
                let sql = &bytes[text.clone()];
                match router.candidate(sql) {
                    Candidate::Yes if std::str::from_utf8(sql).is_err() => Candidate::No,
                    candidate => candidate,
                }
            }
            Text::Prepared { name } => {
                let look = |sql: &[u8]| router.candidate(sql);
                let name = &bytes[name.clone()];
                self.prepared.candidate(name, router.version(), look)
            }
        }
    }

    fn move_server_bytes(&mut self, cx: &mut Context<'_>) -> Result<bool, Pause> {
        let filled = self.server.poll_fill(cx);
        // An exchange may have read more than it needed.
        if !self.server.unreleased().is_empty() {
            self.release_server_bytes();
        }
        self.check_pledges()?;
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
            if self.has_pledges() && self.server.frame_left == 0 && !self.take_pledged() {
                return;
            }
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
                self.prepared.ready(self.model.readies());
            }
            server_tag::PARSE_COMPLETE => {
                self.prepared.parse_completed();
                self.model.server_answered();
            }
            server_tag::ROW_DESCRIPTION | server_tag::NO_DATA => self.model.server_answered(),
            server_tag::ERROR_RESPONSE => self.model.server_erred(),
            server_tag::COPY_IN_RESPONSE => self.model.server_copies_in(),
            server_tag::COMMAND_COMPLETE => self.model.server_completed(),
            server_tag::BACKEND_KEY_DATA if self.captures_key(header) => {
                let Some(frame) = self.server.unreleased().get(..header.total) else {
                    return false;
                };
                self.key_data = Some(Bytes::copy_from_slice(&frame[HEADER_BYTES..]));
            }
            server_tag::PARAMETER_STATUS => {
                self.facts.forget();
                if !self.note_setting(header) {
                    return false;
                }
            }
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
        self.drop_held();
        self.client.release_all();
        self.server.release_all();
    }
}

/// Whether the frame may give a name to a statement or take it away, and is small enough to be looked at.
fn names_a_statement(header: Header) -> bool {
    matches!(header.tag, client_tag::PARSE | client_tag::CLOSE)
        && header.total <= NAMING_FRAME_BYTES_MAX
}

/// Whether the server runs something on this frame: to prepare, describe and close changes no fact.
fn may_change_facts(tag: u8) -> bool {
    use client_tag::*;
    !matches!(tag, PARSE | DESCRIBE | CLOSE | FLUSH | SYNC)
}
