//! The PostgreSQL server behind pgstar, as `[upstream] url` names it.
//!
//! The connection string holds a password. It is taken apart here and shown nowhere: neither
//! `Debug`, nor `Display`, nor any complaint repeats a piece of it that could be the password.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use pgstar_postgres::tls::{SslMode, TlsFiles};
use tokio_postgres::config::{Host, SslMode as DriverSslMode};

use super::encryption;
use super::problem::Complaint;

const DEFAULT_PORT: u16 = 5432;

/// The server that clients' sessions go to and that pgstar connects to itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Upstream {
    connection: tokio_postgres::Config,
    address: UpstreamAddress,
    encryption: Encryption,
}

/// `sslmode`, `sslrootcert`, `sslcert` and `sslkey`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Not encrypted unless it is asked for: the way between pgstar and its server is often a short one.
    pub mode: SslMode,
    pub files: TlsFiles,
}

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamAddress {
    /// Over TCP; the host is a name or an IP address.
    Tcp {
        /// A host name or an IP address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix-domain socket in this directory.
    Unix {
        /// The directory, as in `unix_socket_directories`.
        directory: PathBuf,
        /// The port, which is a part of the socket's file name.
        port: u16,
    },
}

impl UpstreamAddress {
    /// The socket's file, for an address that is one.
    pub fn socket_file(&self) -> Option<PathBuf> {
        match self {
            UpstreamAddress::Tcp { .. } => None,
            UpstreamAddress::Unix { directory, port } => {
                Some(directory.join(format!(".s.PGSQL.{port}")))
            }
        }
    }
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamAddress::Tcp { host, port } if host.contains(':') => {
                write!(f, "[{host}]:{port}")
            }
            UpstreamAddress::Tcp { host, port } => write!(f, "{host}:{port}"),
            UpstreamAddress::Unix { directory, port } => {
                write!(f, "{}:{port}", directory.display())
            }
        }
    }
}

impl Upstream {
    /// Where clients' sessions connect.
    pub fn address(&self) -> &UpstreamAddress {
        &self.address
    }

    /// How connections are encrypted.
    pub fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// How pgstar's own connections connect; it holds the password.
    pub fn connection(&self) -> &tokio_postgres::Config {
        &self.connection
    }
}

impl FromStr for Upstream {
    type Err = Complaint;

    fn from_str(url: &str) -> Result<Self, Complaint> {
        if has_two_ats(url) {
            return Err(invalid("invalid connection string"));
        }
        let (rest, encryption) = encryption::extract(url)?;
        let mut connection: tokio_postgres::Config =
            rest.parse().map_err(|error| malformed(&error))?;
        connection.ssl_mode(match encryption.mode {
            SslMode::Disable | SslMode::Allow => DriverSslMode::Disable,
            SslMode::Prefer => DriverSslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => DriverSslMode::Require,
        });
        let address = single_address(&connection)?;
        if matches!(address, UpstreamAddress::Unix { .. }) {
            // As in libpq, a Unix socket is never encrypted.
            connection.ssl_mode(DriverSslMode::Disable);
        }
        Ok(Upstream {
            connection,
            address,
            encryption,
        })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgresql://")?;
        if let Some(user) = self.connection.get_user() {
            write!(f, "{user}@")?;
        }
        write!(f, "{}", self.address)?;
        match self.connection.get_dbname() {
            Some(database) => write!(f, "/{database}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({self})")
    }
}

fn single_address(connection: &tokio_postgres::Config) -> Result<UpstreamAddress, Complaint> {
    let port = match connection.get_ports() {
        [] => DEFAULT_PORT,
        [port] => *port,
        _ => return Err(not_one_host()),
    };
    match (connection.get_hosts(), connection.get_hostaddrs()) {
        ([Host::Unix(directory)], []) => Ok(UpstreamAddress::Unix {
            directory: directory.clone(),
            port,
        }),
        ([Host::Tcp(host)], []) if !host.is_empty() => Ok(UpstreamAddress::Tcp {
            host: host.clone(),
            port,
        }),
        // As in libpq, hostaddr says where to connect and saves looking the name up.
        ([] | [Host::Tcp(_)], [address]) => Ok(tcp(*address, port)),
        _ => Err(not_one_host()),
    }
}

fn tcp(address: IpAddr, port: u16) -> UpstreamAddress {
    UpstreamAddress::Tcp {
        host: address.to_string(),
        port,
    }
}

fn not_one_host() -> Complaint {
    Complaint::new(
        "the connection string must name exactly one host",
        "For example: url = \"postgresql://pgstar@127.0.0.1:5432/warehouse\"",
    )
}

/// A password with an @ that was not percent-encoded: half of it would be taken for the host, and
/// hosts are shown.
fn has_two_ats(url: &str) -> bool {
    url.starts_with("postgres") && url.matches('@').count() > 1
}

/// Only the names of known options are repeated: with a password that was not percent-encoded,
/// an "unknown option" is a part of it.
fn malformed(error: &tokio_postgres::Error) -> Complaint {
    const OPTIONS: [&str; 18] = [
        "sslnegotiation",
        "port",
        "hostaddr",
        "connect_timeout",
        "tcp_user_timeout",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_retries",
        "target_session_attrs",
        "channel_binding",
        "load_balance_hosts",
        "user",
        "dbname",
        "options",
        "application_name",
        "host",
        "password",
    ];
    let reason = std::error::Error::source(error)
        .map(ToString::to_string)
        .unwrap_or_default();
    let option = OPTIONS
        .iter()
        .find(|name| reason == format!("invalid value for option `{name}`"));
    match option {
        Some(name) => invalid(format!(
            "invalid value for option \"{name}\" of the connection string"
        )),
        None => invalid("invalid connection string"),
    }
}

pub(super) fn invalid(message: impl Into<String>) -> Complaint {
    Complaint::new(
        message,
        "Write postgresql://user:password@host:port/database; \
         characters such as @, /, ? and % in a password are written %40, %2F, %3F and %25.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings_name_one_address_and_show_no_password() {
        let cases = [
            ("postgresql://u@h/d", "postgresql://u@h:5432/d"),
            ("postgresql://u:hunter2@h:6000/d", "postgresql://u@h:6000/d"),
            (
                "postgres://u:hunter2@[::1]:6000/d?sslmode=prefer",
                "postgresql://u@[::1]:6000/d",
            ),
            ("host=h user=u password=hunter2", "postgresql://u@h:5432"),
            (
                "hostaddr=10.0.0.7 port=7 user=u password=hunter2",
                "postgresql://u@10.0.0.7:7",
            ),
            (
                "postgresql://u:hunter2@%2Frun%2Fpg:6000/d",
                "postgresql://u@/run/pg:6000/d",
            ),
        ];
        for (url, shown) in cases {
            let upstream: Upstream = url.parse().unwrap();
            assert_eq!(upstream.to_string(), shown, "{url}");
            assert!(!format!("{upstream:#?}").contains("hunter2"), "{url}");
        }
    }

    #[test]
    fn a_socket_directory_gives_the_socket_file() {
        let upstream: Upstream = "host=/run/pg port=6000".parse().unwrap();
        assert_eq!(
            upstream.address().socket_file(),
            Some("/run/pg/.s.PGSQL.6000".into())
        );
    }

    #[test]
    fn refused_connection_strings_say_why_and_show_no_password() {
        let cases = [
            (
                "postgresql://u:hunter2@a,b/d",
                "the connection string must name exactly one host",
            ),
            (
                "user=u password=hunter2",
                "the connection string must name exactly one host",
            ),
            (
                "postgresql:///d",
                "the connection string must name exactly one host",
            ),
            (
                "postgresql://h/d?sslmode=verify-full",
                "sslmode=verify-full needs sslrootcert",
            ),
            (
                "host=h sslmode='verify-ca'",
                "sslmode=verify-ca needs sslrootcert",
            ),
            (
                "postgresql://h:port/d",
                "invalid value for option \"port\" of the connection string",
            ),
            (
                "postgresql://h/d?sslmode=loose",
                "invalid value for option \"sslmode\" of the connection string",
            ),
            ("postgresql://u@h/d?hunter2=1", "invalid connection string"),
            ("postgresql://u:pw@hunter2@h/d", "invalid connection string"),
            (
                "postgresql://u:p@w/hunter2@h/d",
                "invalid connection string",
            ),
            ("host=h hunter2=1", "invalid connection string"),
            ("mysql://u:hunter2@h/d", "invalid connection string"),
            ("", "the connection string must name exactly one host"),
        ];
        for (url, message) in cases {
            let complaint = url.parse::<Upstream>().unwrap_err();
            assert_eq!(complaint.message, message, "{url}");
            assert!(!format!("{complaint:?}").contains("hunter2"), "{url}");
        }
    }
}
