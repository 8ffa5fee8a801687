//! pgstar's own connections: how they are opened, kept and given up.
//!
//! Clients' sessions are not opened here: the proxy relays those byte for byte.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use crate::tls::{self, ClientTls, SslMode, TlsError};

/// What pgstar's own connections are called in `pg_stat_activity`, unless the URL says otherwise.
pub const APPLICATION_NAME: &str = "pgstar";

/// How long one connection attempt may take, unless the URL says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that is alive acknowledges within this what it is sent; one that is silent is asked whether it is
/// there after the other. Else the loss of a network would be noticed after hours.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// What [`Config`] has when nobody sets it.
const KEEPALIVE_IDLE_DEFAULT: Duration = Duration::from_secs(2 * 60 * 60);

/// Trouble between pgstar and its server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TLS could not be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection could be opened.
    #[error("could not connect to PostgreSQL: {}", Reported(.0))]
    Connect(#[source] tokio_postgres::Error),
    /// The server took the connection and then said nothing.
    #[error("could not connect to PostgreSQL: no answer within {} s", .0.as_secs_f32())]
    ConnectTimeout(Duration),
    /// A statement of pgstar's own failed, or its connection was lost.
    #[error("{}", Reported(.0))]
    Query(#[from] tokio_postgres::Error),
}

impl Error {
    /// The SQLSTATE, when it was PostgreSQL that said no.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Error::Tls(_) | Error::ConnectTimeout(_) => None,
            Error::Connect(error) | Error::Query(error) => error.code(),
        }
    }
}

/// A tokio-postgres error with what the server said, which its own `Display` leaves out.
pub struct Reported<'a>(pub &'a tokio_postgres::Error);

impl fmt::Display for Reported<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(server) = self.0.as_db_error() {
            return write!(
                out,
                "{} (SQLSTATE {})",
                server.message(),
                server.code().code()
            );
        }
        match std::error::Error::source(self.0) {
            Some(cause) => write!(out, "{}: {cause}", self.0),
            None => write!(out, "{}", self.0),
        }
    }
}

/// A client together with the task that drives it; dropping it closes the connection.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    driver: JoinHandle<()>,
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Opens pgstar's own connections, and keeps one for everyone who only reads.
#[derive(Debug)]
pub struct Connector {
    config: Config,
    shared: Mutex<Option<Arc<Connection>>>,
}

impl Connector {
    /// A connector for this server and database; nothing is opened yet.
    pub fn new(config: Config) -> Result<Self, Error> {
        tls::of(&config)?;
        Ok(Connector {
            config: with_defaults(config),
            shared: Mutex::new(None),
        })
    }

    /// The settings that connections are opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A new connection of the caller's own, with `search_path = pg_catalog` and `TimeZone = UTC`.
    pub async fn connect(&self) -> Result<Connection, Error> {
        let hosts = self.config.get_hosts().len().max(1);
        let each = self.config.get_connect_timeout().copied();
        // The driver's own timeout ends when the socket is open.
        let within = each.unwrap_or(CONNECT_TIMEOUT) * (1 + u32::try_from(hosts).unwrap_or(1));
        let opened = timeout(within, self.open_session()).await;
        opened.unwrap_or(Err(Error::ConnectTimeout(within)))
    }

    async fn open_session(&self) -> Result<Connection, Error> {
        let connection = match tls::of(&self.config)? {
            None => open(&self.config, NoTls).await?,
            Some(tls) if tls.mode() == SslMode::Allow => match open(&self.config, NoTls).await {
                Err(error) if error.sqlstate().is_some() => {
                    let mut config = self.config.clone();
                    config.ssl_mode(tokio_postgres::config::SslMode::Require);
                    open(&config, rustls_connect(&tls)).await?
                }
                opened => opened?,
            },
            Some(tls) => open(&self.config, rustls_connect(&tls)).await?,
        };
        connection.batch_execute(SESSION_SETTINGS).await?;
        Ok(connection)
    }
    /// The connection that everyone shares, opened again when it was lost.
    ///
    /// Only for single statements: a transaction would hold everybody else's statements too.
    pub async fn shared(&self) -> Result<Arc<Connection>, Error> {
        // Held while connecting, so that a lost connection is replaced once and not by every waiter.
        let mut shared = self.shared.lock().await;
        if let Some(connection) = shared.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(self.connect().await?);
        *shared = Some(Arc::clone(&connection));
        Ok(connection)
    }
}

fn rustls_connect(tls: &ClientTls) -> MakeRustlsConnect {
    MakeRustlsConnect::new(ClientConfig::clone(tls.config()))
}

async fn open<T>(config: &Config, tls: T) -> Result<Connection, Error>
where
    T: MakeTlsConnect<Socket, Stream: Send + 'static, TlsConnect: Send>,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await.map_err(Error::Connect)?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(error = %Reported(&error), "A connection of pgstar's own ended.");
        }
    });
    Ok(Connection { client, driver })
}

/// Names in pgstar's own statements mean the built-in objects whatever the role's defaults are.
const SESSION_SETTINGS: &str = "SET search_path = pg_catalog; SET TimeZone = 'UTC'";

fn with_defaults(mut config: Config) -> Config {
    if config.get_application_name().is_none() {
        config.application_name(APPLICATION_NAME);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_keepalives_idle() == KEEPALIVE_IDLE_DEFAULT {
        config.keepalives_idle(KEEPALIVE_IDLE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVE_INTERVAL);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNACKNOWLEDGED_MAX);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urls_own_application_name_is_kept() {
        let named: Config = "postgresql://u@localhost/d?application_name=mine"
            .parse()
            .unwrap();
        assert_eq!(with_defaults(named).get_application_name(), Some("mine"));
        assert_eq!(
            with_defaults(Config::new()).get_application_name(),
            Some("pgstar")
        );
    }
}
