//! A connection to a peer: TCP, encrypted or not, or a Unix socket, behind one type.
//!
//! It must not know what is said over it.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// A TCP connection that is encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Runs one expression on whichever stream this is.
macro_rules! on_stream {
    ($socket:expr, $stream:ident => $run:expr) => {
        match $socket {
            Socket::Tcp($stream) => $run,
            Socket::Unix($stream) => $run,
            Socket::Tls($stream) => $run,
        }
    };
}

impl Socket {
    /// The same connection, watched from now on by the thread that calls this: a backend changes threads between
    /// sessions.
    pub(crate) fn settle(self) -> io::Result<Socket> {
        Ok(match self {
            Socket::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Socket::Unix(stream) => Socket::Unix(UnixStream::from_std(stream.into_std()?)?),
            // What is encrypted is bound to its socket.
            Socket::Tls(stream) => Socket::Tls(stream),
        })
    }

    /// Whether the peer has neither said anything that was not read, nor left: as the system knows it now.
    pub(crate) fn is_silent(&mut self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let peeked = match self {
            Socket::Tcp(stream) => SockRef::from(&*stream).peek(&mut byte),
            Socket::Unix(stream) => SockRef::from(&*stream).peek(&mut byte),
            Socket::Tls(stream) => SockRef::from(stream.get_ref().0).peek(&mut byte),
        };
        let nothing_came =
            matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        nothing_came && self.has_nothing_decrypted()
    }

    fn has_nothing_decrypted(&mut self) -> bool {
        let Socket::Tls(stream) = self else {
            return true;
        };
        let mut byte = [0];
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(stream)
            .poll_read(&mut cx, &mut ReadBuf::new(&mut byte))
            .is_pending()
    }

    /// After a read that left room: pending when nothing more is there, and then its arrival wakes the caller. Of what is
    /// encrypted only another read can tell.
    #[inline]
    pub(super) fn poll_more(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Socket::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Socket::Unix(stream) => stream.poll_read_ready(cx).map(drop),
            Socket::Tls(_) => Poll::Ready(()),
        }
    }

    /// Whether what is said here is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self, Socket::Tls(_))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        on_stream!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
