//! Opens the socket that a connection string describes. It knows nothing of what is said on it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::ReplicationError;
use crate::connect::CONNECT_TIMEOUT;
use crate::tls::{ClientTls, Negotiated};

const DEFAULT_PORT: u16 = 5432;

/// TCP, encrypted or not, or a Unix socket, whichever it is.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

pub(super) type Socket = Box<dyn Duplex>;

/// Connects to the first host that answers.
pub(super) async fn open(
    config: &Config,
    tls: Option<&ClientTls>,
) -> Result<Socket, ReplicationError> {
    let within = config
        .get_connect_timeout()
        .copied()
        .unwrap_or(CONNECT_TIMEOUT);
    let mut outcome = Err(ReplicationError::NoHost);
    for (position, host) in config.get_hosts().iter().enumerate() {
        outcome = open_one(host, port(config, position), tls, within).await;
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// One port serves all hosts, or each has its own.
fn port(config: &Config, position: usize) -> u16 {
    let ports = config.get_ports();
    let own = ports.get(position).or(ports.first());
    own.copied().unwrap_or(DEFAULT_PORT)
}

async fn open_one(
    host: &Host,
    port: u16,
    tls: Option<&ClientTls>,
    within: Duration,
) -> Result<Socket, ReplicationError> {
    let (address, opened) = match host {
        Host::Tcp(name) => (
            format!("\"{name}\", port {port}"),
            timeout(within, open_tcp(name, port, tls)).await,
        ),
        #[cfg(unix)]
        Host::Unix(directory) => {
            let path = directory.join(format!(".s.PGSQL.{port}"));
            let opened = timeout(within, open_unix(&path)).await;
            (format!("\"{}\"", path.display()), opened)
        }
    };
    let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    opened.map_err(|source| ReplicationError::Connect { address, source })
}

async fn open_tcp(host: &str, port: u16, tls: Option<&ClientTls>) -> io::Result<Socket> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    match tls {
        None => Ok(Box::new(stream)),
        Some(tls) => Ok(match tls.secure(stream, host).await? {
            Negotiated::Plain(stream) => Box::new(stream),
            Negotiated::Tls(stream) => Box::new(stream),
        }),
    }
}

#[cfg(unix)]
async fn open_unix(path: &std::path::Path) -> io::Result<Socket> {
    Ok(Box::new(tokio::net::UnixStream::connect(path).await?))
}
