//! Runs the client's own statement and keeps a copy of its answer.
//!
//! What the client gets is what PostgreSQL sends, errors included; only a description that the client did
//! not ask for is taken out, because a kept answer needs one.

use bytes::{Bytes, BytesMut};

use super::batch::Statement;
use super::{Ended, Routing, Session};
use crate::route::{Answer, CacheSlot, Passing};
use crate::wire::{self, Header, Target, server_tag};

/// An answer that is collected while it passes.
struct Copied {
    slot: CacheSlot,
    row_description: Bytes,
    rows: BytesMut,
}

/// One observed statement under way.
struct Observation {
    /// `None` once it is certain that nothing is to be kept.
    copied: Option<Copied>,
    /// Whether the client asked for the portal's description; a Query always does.
    wants_description: bool,
    /// The portal is bound: a description is now the portal's, not the statement's.
    is_bound: bool,
}

impl<R: Routing> Session<R> {
    /// Serves the statement as it is. The router has said that it is a plain SELECT.
    pub(super) async fn observe(
        &mut self,
        statement: &Statement,
        slot: CacheSlot,
    ) -> Result<(), Ended> {
        self.facts.note_passing(Passing::Reads);
        let frames = self.observed_frames(statement);
        self.ask(&frames).await?;
        self.note_own_statement();
        let mut observation = Observation {
            copied: Some(Copied {
                slot,
                row_description: Bytes::new(),
                rows: BytesMut::new(),
            }),
            wants_description: statement
                .batch
                .as_ref()
                .is_none_or(|batch| batch.describes_portal),
            is_bound: statement.batch.is_none(),
        };
        let ready = loop {
            let reply = self.next_reply().await?;
            match reply.tag {
                server_tag::READY_FOR_QUERY => break self.take_ready(reply).await?,
                server_tag::ROW_DESCRIPTION => {
                    self.observe_description(&mut observation, reply).await?;
                }
                _ => self.observe_reply(&mut observation, reply).await?,
            }
        };
        self.outgoing.extend_from_slice(&ready);
        self.flush_outgoing().await?;
        if let Some(copied) = observation.copied {
            copied.slot.insert(Answer {
                row_description: copied.row_description,
                rows: copied.rows.freeze(),
            });
        }
        // The backend has seen all of it.
        self.settle(statement, None);
        Ok(())
    }

    async fn observe_description(
        &mut self,
        observation: &mut Observation,
        reply: Header,
    ) -> Result<(), Ended> {
        let frame = self.whole_reply(reply).await?;
        if !observation.is_bound || observation.wants_description {
            self.outgoing.extend_from_slice(&frame);
        }
        if let (true, Some(copied)) = (observation.is_bound, &mut observation.copied) {
            copied.row_description = frame;
        }
        Ok(())
    }

    async fn observe_reply(
        &mut self,
        observation: &mut Observation,
        reply: Header,
    ) -> Result<(), Ended> {
        let is_row = matches!(
            reply.tag,
            server_tag::DATA_ROW | server_tag::COMMAND_COMPLETE
        );
        observation.is_bound |= reply.tag == server_tag::BIND_COMPLETE;
        let keeps = |copied: &mut Copied| {
            let bytes = copied.row_description.len() + copied.rows.len();
            bytes + reply.total <= copied.slot.answer_bytes_max()
        };
        let is_prologue = !is_row && reply.tag != server_tag::ERROR_RESPONSE;
        // Whoever waits for the answer is released as soon as it will not come.
        observation.copied = observation
            .copied
            .take_if(|copied| is_prologue || is_row && keeps(copied));
        let mut copied = observation.copied.as_mut().filter(|_| is_row);
        self.pass_reply(reply, &mut |piece| {
            if let Some(copied) = &mut copied {
                copied.rows.extend_from_slice(piece);
            }
        })
        .await
    }

    /// The client's own frames, with the portal described in any case.
    fn observed_frames(&self, statement: &Statement) -> BytesMut {
        let bytes = &self.client.inbound.filled()[..statement.len];
        let mut out = BytesMut::new();
        let Some(batch) = &statement.batch else {
            out.extend_from_slice(bytes);
            return out;
        };
        if statement.prepared_name().is_none() {
            out.extend_from_slice(&bytes[batch.parse.clone()]);
        }
        if batch.describes_statement {
            wire::describe(&mut out, Target::Statement, b"");
        }
        out.extend_from_slice(&bytes[batch.bind.clone()]);
        wire::describe(&mut out, Target::Portal, b"");
        wire::execute_all(&mut out, b"");
        wire::sync(&mut out);
        out
    }
}
