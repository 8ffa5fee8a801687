//! Runs a rewritten statement on the session's own backend and passes its rows on as the client's answer.
//!
//! Nothing reaches the client before the first row or the end of the statement, so that a rewritten
//! statement that fails can still be run as the client wrote it. Within a transaction a savepoint keeps
//! such a failure from the client's transaction. It must not know why the rewritten statement is equal.

use bytes::{Bytes, BytesMut};

use super::batch::Statement;
use super::exchange::WHOLE_REPLY_BYTES_MAX;
use super::own::{OWN, close_own, own_command};
use super::statement::is_circumstance;
use super::{Ended, Routing, Session};
use crate::route::{Answer, CacheSlot, Rewritten};
use crate::wire::{
    self, Header, Target, TransactionStatus, patch_origins, same_columns, server_tag, sqlstate,
};

const SAVEPOINT: &str = "SAVEPOINT pgstar_rewrite";
const RELEASE: &str = "RELEASE SAVEPOINT pgstar_rewrite";
const UNDO: &str = "ROLLBACK TO SAVEPOINT pgstar_rewrite";
/// The rewritten statement's columns are not those that the router promised: `internal_error`.
const OTHER_COLUMNS: &str = "XX000";

/// The rows that were read are not of one state: `serialization_failure`, which another attempt may not meet.
const NOT_ONE_STATE: &str = "40001";
/// The answer is too large to be held back: `program_limit_exceeded`.
const TOO_LARGE: &str = "54000";
/// The largest answer that is held back until it is confirmed.
const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Which of the statements sent together the server is answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answering {
    Savepoint,
    /// The client's prepared statement, which must still be valid and have the columns that the rewritten one has.
    Original,
    Rewritten,
    Release,
}

/// One rewritten statement under way.
struct Attempt {
    rewritten: Rewritten,
    answering: Answering,
    has_savepoint: bool,
    /// The client's statement was prepared before.
    is_prepared: bool,
    /// The prepared statement's RowDescription.
    original_columns: Option<Bytes>,
    /// Whether the client asked for the portal's description; a Query always does.
    wants_description: bool,
    /// The portal is bound: a description is now the portal's, not the statement's.
    is_bound: bool,
    /// What is held back until the answer is certain.
    held: BytesMut,
    /// Something of the answer has gone to the client: there is no way back.
    has_begun: bool,
    /// The SQLSTATE for which the client's own statement is to be run instead.
    failure: Option<String>,
    /// The client has been told of an error.
    has_erred: bool,
    kept: Option<Kept>,
}

/// An answer that is collected while it passes.
struct Kept {
    slot: CacheSlot,
    row_description: Bytes,
    rows: BytesMut,
}

impl Kept {
    fn fits(&self, more: usize) -> bool {
        self.row_description.len() + self.rows.len() + more <= self.slot.answer_bytes_max()
    }
}

impl<R: Routing> Session<R> {
    /// Serves the statement by its rewritten form, or by itself should that fail.
    pub(super) async fn rewrite(
        &mut self,
        statement: &Statement,
        rewritten: Rewritten,
    ) -> Result<(), Ended> {
        let has_savepoint = self.told_status() == TransactionStatus::Open;
        let frames = self.rewritten_frames(statement, &rewritten.sql, has_savepoint);
        self.ask(&frames).await?;
        self.note_own_statement();
        let mut attempt = Attempt::new(statement, rewritten, has_savepoint);
        let ready = loop {
            let reply = self.next_reply().await?;
            if reply.tag == server_tag::READY_FOR_QUERY {
                break self.take_ready(reply).await?;
            }
            self.take_reply(&mut attempt, reply).await?;
        };
        self.confirm(&mut attempt).await;
        let ran_own = statement.batch.is_some() && (attempt.is_prepared || has_savepoint);
        if ran_own && (attempt.failure.is_some() || attempt.has_erred) {
            self.flush_outgoing().await?;
            self.clear_own().await?;
        }
        match attempt.failure.take() {
            Some(sqlstate) => self.fall_back(statement, &sqlstate).await,
            None => self.conclude(statement, attempt, &ready).await,
        }
    }

    /// What is still to be shown of the whole answer, before anybody sees it.
    async fn confirm(&mut self, attempt: &mut Attempt) {
        let Some(confirmation) = attempt.rewritten.confirmation.take() else {
            return;
        };
        if attempt.failure.is_some() || attempt.has_erred {
            return;
        }
        match confirmation.confirm().await {
            true => self.begin(attempt),
            false => attempt.failure = Some(NOT_ONE_STATE.to_owned()),
        }
    }

    async fn take_reply(&mut self, attempt: &mut Attempt, reply: Header) -> Result<(), Ended> {
        match (attempt.answering, reply.tag) {
            (_, server_tag::ERROR_RESPONSE) => self.take_error(attempt, reply).await,
            (_, server_tag::CLOSE_COMPLETE) => self.skip_reply(reply).await,
            (Answering::Savepoint, server_tag::COMMAND_COMPLETE) => {
                attempt.answering = attempt.after_savepoint();
                self.skip_reply(reply).await
            }
            (Answering::Original, server_tag::ROW_DESCRIPTION) => {
                attempt.original_columns = Some(self.whole_reply(reply).await?);
                Ok(())
            }
            (Answering::Original, server_tag::PARSE_COMPLETE) => {
                attempt.answering = Answering::Rewritten;
                self.skip_reply(reply).await
            }
            (Answering::Original, _) => self.skip_reply(reply).await,
            (Answering::Savepoint | Answering::Release, _) => self.skip_reply(reply).await,
            (Answering::Rewritten, _) if attempt.failure.is_some() => {
                self.skip_failed(attempt, reply).await
            }
            (Answering::Rewritten, server_tag::ROW_DESCRIPTION) => {
                self.take_description(attempt, reply).await
            }
            // DECLARE and COPY have no columns.
            (Answering::Rewritten, server_tag::NO_DATA) => {
                let frame = self.whole_reply(reply).await?;
                attempt.take_description(frame);
                Ok(())
            }
            (Answering::Rewritten, tag) if is_prologue(tag) => {
                attempt.is_bound |= tag == server_tag::BIND_COMPLETE;
                let frame = self.whole_reply(reply).await?;
                attempt.held.extend_from_slice(&frame);
                Ok(())
            }
            (Answering::Rewritten, _) => self.take_answer(attempt, reply).await,
        }
    }

    async fn skip_failed(&mut self, attempt: &mut Attempt, reply: Header) -> Result<(), Ended> {
        attempt.note_end(reply);
        self.skip_reply(reply).await
    }

    /// A row, or the end of the statement: from here on this is the client's answer.
    async fn take_answer(&mut self, attempt: &mut Attempt, reply: Header) -> Result<(), Ended> {
        attempt.note_end(reply);
        if attempt.rewritten.confirmation.is_some() {
            return self.hold(attempt, reply).await;
        }
        self.begin(attempt);
        let kept = attempt.kept.take_if(|kept| kept.fits(reply.total));
        let Some(mut kept) = kept else {
            attempt.kept = None;
            return self.pass_reply(reply, &mut |_| {}).await;
        };
        self.pass_reply(reply, &mut |piece| kept.rows.extend_from_slice(piece))
            .await?;
        attempt.kept = Some(kept);
        Ok(())
    }

    async fn hold(&mut self, attempt: &mut Attempt, reply: Header) -> Result<(), Ended> {
        if attempt.held.len() + reply.total > HELD_BYTES_MAX {
            attempt.failure = Some(TOO_LARGE.to_owned());
            return self.skip_reply(reply).await;
        }
        let frame = self.whole_reply(reply).await?;
        attempt.held.extend_from_slice(&frame);
        let kept = attempt.kept.take_if(|kept| kept.fits(frame.len()));
        attempt.kept = kept.map(|mut kept| {
            kept.rows.extend_from_slice(&frame);
            kept
        });
        Ok(())
    }

    fn begin(&mut self, attempt: &mut Attempt) {
        if !attempt.has_begun {
            attempt.has_begun = true;
            self.outgoing.extend_from_slice(&attempt.held);
        }
    }

    async fn take_description(
        &mut self,
        attempt: &mut Attempt,
        reply: Header,
    ) -> Result<(), Ended> {
        if reply.total > WHOLE_REPLY_BYTES_MAX {
            attempt.failure = Some(OTHER_COLUMNS.to_owned());
            return self.skip_reply(reply).await;
        }
        let mut frame = BytesMut::from(self.whole_reply(reply).await?);
        let is_patched = patch_origins(&mut frame, &attempt.rewritten.origins).is_ok();
        if !is_patched || !attempt.has_columns(&frame) {
            attempt.failure = Some(OTHER_COLUMNS.to_owned());
            return Ok(());
        }
        attempt.take_description(frame.freeze());
        Ok(())
    }

    /// An error either sends the statement down the other road, or is what the client gets to see.
    async fn take_error(&mut self, attempt: &mut Attempt, reply: Header) -> Result<(), Ended> {
        let frame = self.swallow_error(reply).await?;
        let state = sqlstate(&frame).unwrap_or(OTHER_COLUMNS);
        if !attempt.has_begun && !is_circumstance(state) {
            attempt.failure.get_or_insert_with(|| state.to_owned());
            return Ok(());
        }
        attempt.failure = None;
        attempt.has_erred = true;
        self.begin(attempt);
        self.outgoing.extend_from_slice(&frame);
        self.swallowed_error = None;
        Ok(())
    }

    async fn conclude(
        &mut self,
        statement: &Statement,
        attempt: Attempt,
        ready: &[u8],
    ) -> Result<(), Ended> {
        self.outgoing.extend_from_slice(ready);
        self.shared.counters.rewritten.add_one();
        // Before the client hears of the end: what it asks next may need it.
        if let (Some(kept), false) = (attempt.kept, attempt.has_erred) {
            kept.slot.insert(Answer {
                row_description: kept.row_description,
                rows: kept.rows.freeze(),
            });
        }
        self.flush_outgoing().await?;
        let withheld = match statement.batch {
            Some(_) => self.withheld_by(statement),
            None => None,
        };
        self.settle(statement, withheld);
        Ok(())
    }

    /// Undoes the attempt and hands the client's own statement to the relay.
    async fn fall_back(&mut self, statement: &Statement, sqlstate: &str) -> Result<(), Ended> {
        self.shared.counters.fallbacks.add_one();
        if self.told_status() == TransactionStatus::Failed {
            let mut frames = BytesMut::new();
            own_command(&mut frames, UNDO);
            own_command(&mut frames, RELEASE);
            wire::sync(&mut frames);
            self.ask(&frames).await?;
            // Only circumstances can fail this, a cancel above all: then that is the statement's error.
            if let Some(error) = self.skip_to_ready().await? {
                self.clear_own().await?;
                return self.send_error(statement, error).await;
            }
        }
        if let Some(sql) = self.sql(statement).filter(|_| !is_circumstance(sqlstate)) {
            self.shared
                .router
                .rewritten_failed(self.facts.get(), sql, sqlstate);
        }
        self.pass_through(statement, false);
        Ok(())
    }

    fn rewritten_frames(&self, statement: &Statement, sql: &str, has_savepoint: bool) -> BytesMut {
        let mut out = BytesMut::new();
        let Some(batch) = &statement.batch else {
            match has_savepoint {
                true => wire::query(&mut out, &format!("{SAVEPOINT}; {sql}\n; {RELEASE}")),
                false => wire::query(&mut out, sql),
            }
            return out;
        };
        if has_savepoint {
            own_command(&mut out, SAVEPOINT);
        }
        let client_bytes = self.client.inbound.filled();
        let types = self.parameter_types(statement, batch);
        match statement.prepared_name() {
            Some(name) => {
                wire::describe(&mut out, Target::Statement, &client_bytes[name]);
                wire::parse(&mut out, OWN, sql, &types);
                let tail = &client_bytes[batch.bind_tail.clone()];
                wire::bind(&mut out, OWN, tail);
            }
            None => {
                wire::parse(&mut out, b"", sql, &types);
                if batch.describes_statement {
                    wire::describe(&mut out, Target::Statement, b"");
                }
                out.extend_from_slice(&client_bytes[batch.bind.clone()]);
            }
        }
        let portal = statement.prepared_name().map_or(&b""[..], |_| OWN);
        // Always, though the client may not have asked: a kept answer needs its description.
        wire::describe(&mut out, Target::Portal, portal);
        wire::execute_all(&mut out, portal);
        if statement.prepared_name().is_some() {
            close_own(&mut out);
        }
        if has_savepoint {
            own_command(&mut out, RELEASE);
        }
        wire::sync(&mut out);
        out
    }
}

impl Attempt {
    fn new(statement: &Statement, mut rewritten: Rewritten, has_savepoint: bool) -> Self {
        let kept = rewritten.cache.take();
        let is_prepared = statement.prepared_name().is_some();
        let mut attempt = Attempt {
            rewritten,
            answering: Answering::Savepoint,
            has_savepoint,
            is_prepared,
            original_columns: None,
            wants_description: statement
                .batch
                .as_ref()
                .is_none_or(|batch| batch.describes_portal),
            is_bound: statement.batch.is_none(),
            held: BytesMut::new(),
            has_begun: false,
            failure: None,
            has_erred: false,
            kept: kept.map(|slot| Kept {
                slot,
                row_description: Bytes::new(),
                rows: BytesMut::new(),
            }),
        };
        if !has_savepoint {
            attempt.answering = attempt.after_savepoint();
        }
        attempt
    }

    fn after_savepoint(&self) -> Answering {
        match self.is_prepared {
            true => Answering::Original,
            false => Answering::Rewritten,
        }
    }

    /// Whether the answer's columns are those of the client's prepared statement.
    fn has_columns(&self, description: &[u8]) -> bool {
        let original = self.original_columns.as_deref();
        !self.is_prepared || original.is_some_and(|columns| same_columns(columns, description))
    }

    fn note_end(&mut self, reply: Header) {
        if reply.tag == server_tag::COMMAND_COMPLETE && self.has_savepoint {
            self.answering = Answering::Release;
        }
    }

    fn take_description(&mut self, frame: Bytes) {
        if !self.is_bound || self.wants_description {
            self.held.extend_from_slice(&frame);
        }
        if let (true, Some(kept)) = (self.is_bound, &mut self.kept) {
            kept.row_description = frame;
        }
    }
}

/// Frames that come before the rows and say nothing of whether the statement will succeed.
fn is_prologue(tag: u8) -> bool {
    use server_tag::*;
    matches!(tag, PARSE_COMPLETE | BIND_COMPLETE | PARAMETER_DESCRIPTION)
}
