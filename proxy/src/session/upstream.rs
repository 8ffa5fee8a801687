//! Where PostgreSQL is, how to reach it, and how to cancel there.
//!
//! It must not know sessions: it hands out connected sockets.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use pgstar_postgres::tls::{ClientTls, Negotiated, SslMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use super::leg::Leg;
use super::socket::Socket;
use crate::wire::server_tag;

const CANCEL_REQUEST_CODE: i32 = 80_877_102;

/// PostgreSQL's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    Tcp {
        host: String,
        port: u16,
        tls: Option<ClientTls>,
    },
    /// The socket file itself.
    Unix { path: PathBuf },
}

impl Upstream {
    /// As libpq reads it: a host that begins with a slash is the directory of a Unix socket.
    pub fn new(host: &str, port: u16) -> Self {
        if host.starts_with('/') {
            return Upstream::Unix {
                path: PathBuf::from(host).join(format!(".s.PGSQL.{port}")),
            };
        }
        Upstream::Tcp {
            host: host.to_owned(),
            port,
            tls: None,
        }
    }

    /// The same, encrypted; a Unix socket never is.
    pub fn with_tls(self, tls: Option<ClientTls>) -> Self {
        match self {
            Upstream::Tcp { host, port, .. } => Upstream::Tcp { host, port, tls },
            Upstream::Unix { path } => Upstream::Unix { path },
        }
    }

    /// A new connection, within this time.
    pub(super) async fn connect(&self, within: Duration) -> io::Result<Socket> {
        match timeout(within, self.connect_now()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn connect_now(&self) -> io::Result<Socket> {
        match self {
            Upstream::Unix { path } => Ok(Socket::Unix(UnixStream::connect(path).await?)),
            Upstream::Tcp { host, port, tls } => {
                let mut outcome = Err(io::ErrorKind::NotFound.into());
                for address in lookup_host((host.as_str(), *port)).await? {
                    outcome = match tls {
                        None => connect_tcp(address).await.map(Socket::Tcp),
                        Some(tls) => connect_tls(address, tls, host).await,
                    };
                    if outcome.is_ok() {
                        break;
                    }
                }
                outcome
            }
        }
    }

    /// A new connection, within this time, over which the start-up packet was sent. A server that refuses it at once
    /// gets it once more over an encrypted one, if that is allowed.
    pub(super) async fn begin(&self, packet: &[u8], within: Duration) -> io::Result<Leg> {
        let server = self.begin_once(packet, within).await?;
        let Some(encrypted) = self.second_attempt() else {
            return Ok(server);
        };
        let (server, is_refused) = server.begins_with(server_tag::ERROR_RESPONSE).await;
        if !is_refused {
            return Ok(server);
        }
        // Without TLS on the other side, the refusal stands.
        Ok(encrypted.begin_once(packet, within).await.unwrap_or(server))
    }

    async fn begin_once(&self, packet: &[u8], within: Duration) -> io::Result<Leg> {
        let mut server = Leg::new(self.connect(within).await?);
        server.say(packet).await?;
        Ok(server)
    }

    fn second_attempt(&self) -> Option<Upstream> {
        match self {
            Upstream::Tcp { host, port, tls } => {
                let tls = tls.as_ref().filter(|tls| tls.mode() == SslMode::Allow)?;
                Some(Upstream::new(host, *port).with_tls(Some(tls.required())))
            }
            Upstream::Unix { .. } => None,
        }
    }

    /// Forwards a cancel request and waits until the server has closed the connection: then it has acted on it.
    pub(super) async fn cancel(&self, request: &[u8], within: Duration) -> io::Result<()> {
        let mut socket = self.connect(within).await?;
        let exchange = async {
            socket.write_all(request).await?;
            socket.flush().await?;
            let mut nothing = [0; 16];
            while socket.read(&mut nothing).await? > 0 {}
            Ok(())
        };
        timeout(within, exchange)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Upstream::Tcp { host, port, .. } => write!(f, "\"{host}\", port {port}"),
            Upstream::Unix { path } => write!(f, "\"{}\"", path.display()),
        }
    }
}

/// What is on its way to a server that does not read: little, because a client that runs ahead of its server learns
/// of an error the later, the more its bytes are taken from it. Linux doubles the number.
const SEND_BUFFER_BYTES: u32 = 128 * 1024;

async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A server that vanishes without a word must not leave the session waiting for ever.
    socket.set_keepalive(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// As libpq, a handshake that fails is followed by a plain connection where TLS is only preferred.
async fn connect_tls(address: SocketAddr, tls: &ClientTls, host: &str) -> io::Result<Socket> {
    match tls.secure(connect_tcp(address).await?, host).await {
        Ok(Negotiated::Plain(stream)) => Ok(Socket::Tcp(stream)),
        Ok(Negotiated::Tls(stream)) => Ok(Socket::Tls(Box::new((*stream).into()))),
        Err(_) if tls.mode() == SslMode::Prefer => connect_tcp(address).await.map(Socket::Tcp),
        Err(error) => Err(error),
    }
}

/// The cancel request for a session that BackendKeyData described: its body is the process and the key.
pub(super) fn cancel_request(key_data: &[u8]) -> BytesMut {
    let mut packet = BytesMut::with_capacity(8 + key_data.len());
    packet.put_i32(8 + key_data.len() as i32);
    packet.put_i32(CANCEL_REQUEST_CODE);
    packet.put_slice(key_data);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_with_a_slash_is_a_socket_directory() {
        let unix = Upstream::new("/run/postgresql", 5432);
        assert_eq!(
            unix,
            Upstream::Unix {
                path: "/run/postgresql/.s.PGSQL.5432".into()
            }
        );
        assert_eq!(Upstream::new("db", 1).to_string(), "\"db\", port 1");
    }

    #[test]
    fn a_cancel_request_carries_keys_of_any_length() {
        let request = cancel_request(&[7; 36]);
        assert_eq!(&request[..8], [0, 0, 0, 44, 4, 210, 22, 46]);
        assert_eq!(request.len(), 44);
    }
}
