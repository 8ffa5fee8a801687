//! pgstar's own connections: how they are opened, kept and given up.
//!
//! Clients' sessions are not opened here: the proxy relays those byte for byte.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};
use tracing::debug;

/// What pgstar's own connections are called in `pg_stat_activity`, unless the URL says otherwise.
pub const APPLICATION_NAME: &str = "pgstar";

/// How long one connection attempt may take, unless the URL says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Trouble between pgstar and its server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL asks for something that pgstar cannot do yet.
    #[error("TLS to the server is not supported yet, but the upstream url has sslmode=require")]
    TlsNotSupported,
    /// No connection could be opened.
    #[error("could not connect to PostgreSQL: {}", Reported(.0))]
    Connect(#[source] tokio_postgres::Error),
    /// A statement of pgstar's own failed, or its connection was lost.
    #[error("{}", Reported(.0))]
    Query(#[from] tokio_postgres::Error),
}

impl Error {
    /// The SQLSTATE, when it was PostgreSQL that said no.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self {
            Error::TlsNotSupported => None,
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
        if config.get_ssl_mode() == SslMode::Require {
            return Err(Error::TlsNotSupported);
        }
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
        let (client, connection) = self.config.connect(NoTls).await.map_err(Error::Connect)?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(error = %Reported(&error), "A connection of pgstar's own ended.");
            }
        });
        let connection = Connection { client, driver };
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

/// Names in pgstar's own statements mean the built-in objects whatever the role's defaults are.
const SESSION_SETTINGS: &str = "SET search_path = pg_catalog; SET TimeZone = 'UTC'";

fn with_defaults(mut config: Config) -> Config {
    if config.get_application_name().is_none() {
        config.application_name(APPLICATION_NAME);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_requires_tls_is_refused_with_the_reason() {
        let config: Config = "postgresql://u@localhost/d?sslmode=require"
            .parse()
            .unwrap();
        let error = Connector::new(config).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("TLS to the server is not supported yet"),
            "{error}"
        );
    }

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
