//! Why a command ended without doing what it was asked, and the exit code that says so.
//!
//! Only commands end with these. What a client is told is an ErrorResponse and not made here.

use std::io;
use std::net::SocketAddr;

use crate::config::Problems;

/// Exit code for a bad command line or a bad configuration file (`EX_USAGE`).
pub const EXIT_USAGE: u8 = 64;
/// Exit code for everything else, such as a database that does not fit the file.
pub const EXIT_FAILURE: u8 = 1;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration file is wrong.
    #[error(transparent)]
    BadConfig(Problems),
    /// The command line or the environment is wrong.
    #[error("{0}")]
    BadUsage(String),
    /// The file is right in itself, but not for this database.
    #[error(transparent)]
    Mismatch(Problems),
    /// An address could not be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Anything else; `doing` completes "could not …".
    #[error("could not {doing}")]
    Other {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Failure {
    /// A failure while `doing` something; the message reads "could not {doing}: {source}".
    pub fn while_doing(
        doing: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Failure::Other {
            doing: doing.into(),
            source: source.into(),
        }
    }

    /// The exit code that a script can tell it by.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::BadConfig(_) | Failure::BadUsage(_) => EXIT_USAGE,
            Failure::Mismatch(_) | Failure::Bind(_) | Failure::Other { .. } => EXIT_FAILURE,
        }
    }

    /// What to print on standard error: the message with everything that caused it.
    pub fn report(&self) -> String {
        match self {
            // Each problem begins with its file, which editors and scripts look for at the line's start.
            Failure::BadConfig(problems) | Failure::Mismatch(problems) => problems.to_string(),
            Failure::Bind(error) => format!("pgstar: {error}\nHINT:  {}", error.hint()),
            Failure::BadUsage(_) | Failure::Other { .. } => {
                format!("pgstar: {}", with_causes(self))
            }
        }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Some libraries repeat their cause in their own message.
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    text
}

/// An address of the configuration could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {address} ({key}): {reason}", reason = reason(source))]
pub struct BindError {
    key: &'static str,
    address: SocketAddr,
    source: io::Error,
}

impl BindError {
    /// The failure to listen on `address`, which `key` of the file (such as `[admin] address`) names.
    pub fn new(key: &'static str, address: SocketAddr, source: io::Error) -> Self {
        BindError {
            key,
            address,
            source,
        }
    }

    fn hint(&self) -> String {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => {
                format!(
                    "Is another pgstar running? Stop it, or give {} another port.",
                    self.key
                )
            }
            _ => format!("Give {} an address of this machine.", self.key),
        }
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is already in use".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_every_cause_once() {
        let inner = io::Error::other("connection refused");
        let failure = Failure::while_doing("reach PostgreSQL at db:5432", inner);
        assert_eq!(
            failure.report(),
            "pgstar: could not reach PostgreSQL at db:5432: connection refused"
        );
        assert_eq!(failure.exit_code(), EXIT_FAILURE);
    }
}
