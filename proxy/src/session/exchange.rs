//! pgstar's own questions to a session's own backend, while the relay pauses and nothing else is under way.
//!
//! Replies are read here and swallowed or passed on by whoever asked; what PostgreSQL says unasked (notices,
//! notifications, settings) is passed to the client in between. It must not know why something is asked.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::relay::Pause;
use super::{Ended, Routing, Session};
use crate::wire::{Header, header, server_tag};

/// What is gathered for the client before it is written even though more of the server's bytes are there.
const OUTGOING_BYTES_MAX: usize = 64 * 1024;
/// The largest reply that is held whole: descriptions of 1,664 columns and long error texts are well below.
pub(super) const WHOLE_REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;

impl<R: Routing> Session<R> {
    /// Writes to the client everything the relay had released, and what the server has said until now, so
    /// that an answer of pgstar's own comes after it.
    pub(super) async fn deliver_relayed(&mut self) -> Result<(), Ended> {
        self.flush_outgoing().await?;
        poll_fn(|cx| self.poll_deliver(cx)).await
    }

    fn poll_deliver(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        while self.server.poll_fill(cx).is_ready() {}
        self.release_server_bytes();
        let passed_on = self.server.poll_pass_on(cx, &mut self.client.socket);
        let is_delivered = self.server.inbound.is_empty();
        match passed_on {
            Err(_) => Poll::Ready(Err(Ended::ClientLeft)),
            Ok(_) if is_delivered && self.server.ended => Poll::Ready(Err(Ended::ServerLeft)),
            Ok(_) if is_delivered => Poll::Ready(Ok(())),
            // Written in part, or a frame whose rest has not come: its arrival wakes this task.
            Ok(_) => Poll::Pending,
        }
    }

    /// Sends frames that the server will answer with one ReadyForQuery; what was held goes before them.
    pub(super) async fn ask(&mut self, frames: &[u8]) -> Result<(), Ended> {
        let mut said = self.note_held();
        said.extend_from_slice(frames);
        self.model.exchange_sent();
        if let Some(lease) = &mut self.lease {
            lease.is_touched = true;
        }
        let sent = self.server.say(&said).await;
        sent.map_err(|_| Ended::ServerLeft)?;
        self.keep_pledges().await
    }

    /// The header of the server's next reply; unasked frames before it have gone to the client.
    pub(super) async fn next_reply(&mut self) -> Result<Header, Ended> {
        loop {
            let Some(reply) =
                header(self.server.inbound.filled()).map_err(|_| Ended::ServerMisbehaved)?
            else {
                self.more_from_server().await?;
                continue;
            };
            if !server_tag::is_asynchronous(reply.tag) {
                return Ok(reply);
            }
            self.pass_unasked(reply).await?;
        }
    }

    /// Passes on what PostgreSQL says unasked.
    pub(super) async fn pass_unasked(&mut self, reply: Header) -> Result<(), Ended> {
        if reply.tag != server_tag::PARAMETER_STATUS {
            return self.pass_reply(reply, &mut |_| {}).await;
        }
        self.facts.forget();
        let frame = self.whole_reply(reply).await?;
        self.note_setting_frame(&frame);
        self.outgoing.extend_from_slice(&frame);
        Ok(())
    }

    /// The whole of the reply whose header was read, consumed.
    pub(super) async fn whole_reply(&mut self, reply: Header) -> Result<Bytes, Ended> {
        if reply.total > WHOLE_REPLY_BYTES_MAX {
            return Err(Ended::ServerMisbehaved);
        }
        self.server.inbound.ensure(reply.total);
        while self.server.inbound.len() < reply.total {
            self.more_from_server().await?;
        }
        let frame = Bytes::copy_from_slice(&self.server.inbound.filled()[..reply.total]);
        self.server.inbound.consume(reply.total);
        Ok(frame)
    }

    /// Passes the reply on to the client, in pieces as they come; each piece is shown to `see`.
    pub(super) async fn pass_reply(
        &mut self,
        reply: Header,
        see: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<(), Ended> {
        let mut left = reply.total;
        loop {
            let piece = left.min(self.server.inbound.len());
            let bytes = &self.server.inbound.filled()[..piece];
            see(bytes);
            self.outgoing.extend_from_slice(bytes);
            self.server.inbound.consume(piece);
            left -= piece;
            if self.outgoing.len() >= OUTGOING_BYTES_MAX {
                self.flush_outgoing().await?;
            }
            if left == 0 {
                return Ok(());
            }
            self.more_from_server().await?;
        }
    }

    /// Drops the reply.
    pub(super) async fn skip_reply(&mut self, reply: Header) -> Result<(), Ended> {
        let mut left = reply.total;
        loop {
            let piece = left.min(self.server.inbound.len());
            self.server.inbound.consume(piece);
            left -= piece;
            if left == 0 {
                return Ok(());
            }
            self.more_from_server().await?;
        }
    }

    /// Takes the ReadyForQuery that ends an exchange.
    pub(super) async fn take_ready(&mut self, reply: Header) -> Result<Bytes, Ended> {
        let frame = self.whole_reply(reply).await?;
        self.swallowed_error = None;
        self.model
            .server_ready(&frame)
            .map_err(|_| Ended::ServerMisbehaved)?;
        Ok(frame)
    }

    /// Drops every reply up to ReadyForQuery; the first error among them, if there was one.
    pub(super) async fn skip_to_ready(&mut self) -> Result<Option<Bytes>, Ended> {
        let mut error = None;
        loop {
            let reply = self.next_reply().await?;
            match reply.tag {
                server_tag::READY_FOR_QUERY => {
                    self.take_ready(reply).await?;
                    return Ok(error);
                }
                server_tag::ERROR_RESPONSE => {
                    let frame = self.swallow_error(reply).await?;
                    error.get_or_insert(frame);
                }
                _ => self.skip_reply(reply).await?,
            }
        }
    }

    /// Takes an error out of the stream. Should the server leave before it is ready again, the client gets
    /// to see it after all: it says why.
    pub(super) async fn swallow_error(&mut self, reply: Header) -> Result<Bytes, Ended> {
        let frame = self.whole_reply(reply).await?;
        self.swallowed_error = Some(frame.clone());
        Ok(frame)
    }

    /// Waits for more bytes of the server. What is due to the client is written first; a client that
    /// vanishes meanwhile ends the wait.
    pub(super) async fn more_from_server(&mut self) -> Result<(), Ended> {
        self.flush_outgoing().await?;
        poll_fn(|cx| self.poll_more(cx)).await
    }

    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        match self.server.poll_fill(cx) {
            Poll::Ready(0) => return Poll::Ready(Err(Ended::ServerLeft)),
            Poll::Ready(_) => return Poll::Ready(Ok(())),
            Poll::Pending if self.server.ended => return Poll::Ready(Err(Ended::ServerLeft)),
            Poll::Pending => {}
        }
        while self.client.poll_fill(cx).is_ready() {}
        if self.client.ended {
            Poll::Ready(Err(Ended::ClientLeft))
        } else {
            Poll::Pending
        }
    }

    /// Writes what pgstar has to say to the client. May be dropped at its await and called again.
    pub(super) async fn flush_outgoing(&mut self) -> Result<(), Ended> {
        while self.outgoing.has_remaining() {
            let (socket, bytes) = (&mut self.client.socket, &self.outgoing);
            let written = poll_fn(|cx| Pin::new(&mut *socket).poll_write(cx, bytes)).await;
            match written {
                Ok(count) if count > 0 => self.outgoing.advance(count),
                _ => return Err(Ended::ClientLeft),
            }
        }
        let socket = &mut self.client.socket;
        let flushed = poll_fn(|cx| Pin::new(&mut *socket).poll_flush(cx)).await;
        flushed.map_err(|_| Ended::ClientLeft)
    }
}

impl From<Ended> for Pause {
    fn from(ended: Ended) -> Self {
        Pause::Ended(ended)
    }
}
