//! Why a replication connection could not be opened or go on.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::cursor::{Cursor, EndsEarly};
use crate::tls::TlsError;

/// Trouble on a replication connection. After any of these but [`Server`](Self::Server) from a
/// command, the connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The connection string names no server.
    #[error("the connection string names no host")]
    NoHost,
    /// The socket could not be opened.
    #[error("could not connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The server wants to be convinced in a way that we cannot.
    #[error("authentication failed: {0}")]
    Authentication(String),
    /// PostgreSQL said no.
    #[error("{0}")]
    Server(ServerMessage),
    /// The socket failed.
    #[error("the replication connection was lost: {0}")]
    Io(#[from] io::Error),
    /// The server closed the connection.
    #[error("the server closed the replication connection")]
    Closed,
    /// Nothing came for longer than the server may be silent.
    #[error("the server was silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// A frame that is larger than any that this part of the protocol needs.
    #[error(
        "the server sent a frame of type \"{tag}\" with {bytes} bytes; at most {bytes_max} were expected"
    )]
    FrameTooLarge {
        /// The frame's type.
        tag: char,
        /// What it announced.
        bytes: u64,
        /// What is allowed.
        bytes_max: u64,
    },
    /// The server broke the protocol, or speaks one that we do not know.
    #[error("unexpected message from the server: {0}")]
    Protocol(String),
}

impl ReplicationError {
    /// The SQLSTATE, when it was PostgreSQL that said no.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            ReplicationError::Server(message) => Some(&message.sqlstate),
            _ => None,
        }
    }
}

impl From<EndsEarly> for ReplicationError {
    fn from(error: EndsEarly) -> Self {
        ReplicationError::Protocol(error.to_string())
    }
}

/// An ErrorResponse of the server's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerMessage {
    /// The five characters of the SQLSTATE.
    pub sqlstate: String,
    /// The message.
    pub message: String,
    /// The detail, or empty.
    pub detail: String,
    /// The hint, or empty.
    pub hint: String,
}

impl ServerMessage {
    /// Reads the body of an ErrorResponse; fields that are unknown or cut off are left out.
    pub(super) fn read(body: Bytes) -> Self {
        let mut message = ServerMessage::default();
        let mut cursor = Cursor::new(body);
        while let Ok(field) = cursor.u8() {
            let Ok(value) = cursor.string() else { break };
            match field {
                b'C' => message.sqlstate = value,
                b'M' => message.message = value,
                b'D' => message.detail = value,
                b'H' => message.hint = value,
                _ => (),
            }
        }
        message
    }
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} (SQLSTATE {})", self.message, self.sqlstate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_as_far_as_it_goes() {
        let whole =
            ServerMessage::read(Bytes::from_static(b"SERROR\0C42P01\0Mno table\0Hlook\0\0"));
        assert_eq!(whole.to_string(), "no table (SQLSTATE 42P01)");
        assert_eq!(whole.hint, "look");
        let cut = ServerMessage::read(Bytes::from_static(b"C42P01\0Mno ta"));
        assert_eq!((cut.sqlstate.as_str(), cut.message.as_str()), ("42P01", ""));
    }
}
