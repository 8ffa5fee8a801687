//! One side of a session: a socket, what was read from it, and how much of that may go on to the other side.
//!
//! It must not know which side it is.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::buffer::Buffer;
use super::socket::Socket;
use crate::linger::{Client, beat};
use crate::wire::{HEADER_BYTES, header};

/// A peer as the relay sees it.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) socket: Socket,
    /// Bytes read from this peer.
    pub(super) inbound: Buffer,
    /// How many of them, from the first, may be written to the other peer.
    pub(super) released: usize,
    /// How much of the frame that was released last is still to be read.
    pub(super) frame_left: usize,
    /// This peer will send nothing more.
    pub(super) ended: bool,
    /// Nothing was there to be read any more when this was last tried, and what comes next wakes who tried.
    pub(super) is_drained: bool,
    /// What a login over this connection can be bound to, if it is encrypted.
    pub(super) end_point: Option<Bytes>,
    /// The name in the peer's certificate, if it showed one.
    pub(super) common_name: Option<Box<str>>,
    /// Which client this is; `None`: it is a server.
    client: Option<Client>,
}

impl Leg {
    pub(super) fn new(socket: Socket) -> Self {
        Leg {
            socket,
            inbound: Buffer::new(),
            released: 0,
            frame_left: 0,
            ended: false,
            is_drained: false,
            end_point: None,
            common_name: None,
            client: None,
        }
    }

    pub(super) fn of_client(socket: Socket) -> Self {
        Leg {
            client: Some(Client::new()),
            ..Leg::new(socket)
        }
    }

    /// Reads what is there; ready with zero at the end of the stream, pending when nothing is there or nothing fits.
    #[inline]
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        self.is_drained = self.ended;
        if self.ended {
            return Poll::Pending;
        }
        let room = self.inbound.room();
        if room.is_empty() {
            return Poll::Pending;
        }
        let mut target = ReadBuf::new(room);
        let Poll::Ready(outcome) = Pin::new(&mut self.socket).poll_read(cx, &mut target) else {
            self.is_drained = true;
            return Poll::Pending;
        };
        // A reset connection and an orderly end are the same to a session: nothing more will come.
        let count = outcome.map_or(0, |()| target.filled().len());
        let was_all = target.remaining() > 0;
        self.ended = count == 0;
        beat(self.client.as_mut());
        self.inbound.filled_by(count);
        self.is_drained = self.ended || was_all && self.socket.poll_more(cx).is_pending();
        Poll::Ready(count)
    }

    /// The next frame, whole and consumed; `None` when the stream ends before it does, or it is no frame of at most
    /// this size. For the time before a session begins.
    pub(super) async fn whole_frame(&mut self, bytes_max: usize) -> Option<Bytes> {
        loop {
            let header = header(self.inbound.filled()).ok()?;
            let total = header.map_or(HEADER_BYTES, |header| header.total);
            if total > bytes_max {
                return None;
            }
            if let (Some(_), Some(frame)) = (header, self.inbound.filled().get(..total)) {
                let frame = Bytes::copy_from_slice(frame);
                self.consume(total);
                return Some(frame);
            }
            self.inbound.ensure(total);
            if poll_fn(|cx| self.poll_fill(cx)).await == 0 {
                return None;
            }
        }
    }

    /// Waits for the peer's first byte: whether it is this one. Nothing is consumed.
    pub(super) async fn begins_with(mut self, tag: u8) -> (Self, bool) {
        while self.inbound.is_empty() && poll_fn(|cx| self.poll_fill(cx)).await > 0 {}
        let is_it = self.inbound.filled().first() == Some(&tag);
        (self, is_it)
    }

    /// Says this to the peer, past what is released to it.
    pub(super) async fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes).await?;
        self.socket.flush().await
    }

    /// Writes released bytes to the other peer; ready with whether any were written.
    #[inline]
    pub(super) fn poll_pass_on(
        &mut self,
        cx: &mut Context<'_>,
        other: &mut Socket,
    ) -> io::Result<bool> {
        let mut wrote = false;
        while self.released > 0 {
            let bytes = &self.inbound.filled()[..self.released];
            match Pin::new(&mut *other).poll_write(cx, bytes) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => self.consume(count?),
            }
            wrote = true;
        }
        // An encrypted connection may have taken more than it could write.
        match Pin::new(other).poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(wrote),
        }
    }

    /// Forgets the first bytes; released ones are the first.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        self.inbound.consume(count);
        self.released = self.released.saturating_sub(count);
    }

    /// Puts bytes that are released before the one at this place, which is not beyond what is released.
    pub(super) fn release_before(&mut self, at: usize, bytes: &[u8]) {
        self.inbound.insert(at, bytes);
        self.released += bytes.len();
    }

    /// What was read and not released.
    #[inline]
    pub(super) fn unreleased(&self) -> &[u8] {
        &self.inbound.filled()[self.released..]
    }

    /// Releases more of the current frame, as much of it as there is.
    #[inline]
    pub(super) fn release_frame_left(&mut self) {
        let part = self.frame_left.min(self.unreleased().len());
        self.released += part;
        self.frame_left -= part;
    }

    /// Releases everything, whatever it is.
    pub(super) fn release_all(&mut self) {
        self.released = self.inbound.len();
    }
}
