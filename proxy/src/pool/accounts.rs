//! What PostgreSQL knows of a user at the moment of a login: the verifier of the password, and whether a waiting
//! backend is still what a new one would be.
//!
//! One statement on a connection of pgstar's own, for each login anew: a changed or revoked password, and every
//! change of a setting, a privilege or the configuration file, counts from the next login on. Nothing is kept.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgstar_postgres::connect::{Connector, Error as ConnectError};
use pgstar_postgres::visible::Glimpse;

use super::link::{Link, Links, Mark};
use super::warm::Stamp;
use crate::scram::Verifier;

/// Where verifiers come from.
#[derive(Clone, PartialEq, Eq)]
pub enum VerifierSource {
    /// A query with the user's name as its one parameter.
    Query(String),
    /// A file of users and verifiers, read anew for each login.
    File(PathBuf),
}

impl VerifierSource {
    /// What a superuser may ask.
    pub const DEFAULT_QUERY: &str =
        "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1";
}

impl fmt::Debug for VerifierSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VerifierSource::Query(_) => f.write_str("Query"),
            VerifierSource::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

/// The verifier of a user in a file of lines such as `"ann" "SCRAM-SHA-256$…"`. Lines that begin with `#` or `;` are
/// comments; a doubled quotation mark stands for one.
///
/// # Errors
/// The file cannot be read.
fn verifier_in(file: &Path, user: &str) -> Result<Option<Verifier>, AccountError> {
    let text = std::fs::read_to_string(file).map_err(|source| AccountError::File {
        file: file.to_owned(),
        source,
    })?;
    let quoted = format!("\"{}\"", user.replace('"', "\"\""));
    let of_user = |line: &str| {
        let rest = line.trim().strip_prefix(&quoted)?;
        let verifier = rest.trim().strip_prefix('"')?.strip_suffix('"')?;
        Verifier::parse(verifier)
    };
    Ok(text.lines().find_map(of_user))
}

/// A user who may log in with a password that pgstar can check.
#[derive(Debug, Clone)]
pub struct Account {
    /// What to check the password against; `None` where somebody has vouched for the user.
    pub verifier: Option<Verifier>,
    pub stamp: Stamp,
    /// Whether a session of this user may begin on a backend that was used before. Not if PostgreSQL runs
    /// something at each login (an event trigger, from version 17 on).
    pub may_share: bool,
}

/// The user could not be looked up.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{}", pgstar_postgres::connect::Reported(.0))]
    Query(#[from] tokio_postgres::Error),
    #[error("cannot read {}: {source}", .file.display())]
    File {
        file: PathBuf,
        source: std::io::Error,
    },
}

/// Looks users up.
#[derive(Debug)]
pub struct Accounts {
    database: String,
    source: VerifierSource,
    links: Links,
}

impl Accounts {
    /// Users of the database that `connection` names; nothing is opened yet.
    ///
    /// # Errors
    /// The connection asks for something that pgstar cannot do.
    pub fn new(
        connection: &tokio_postgres::Config,
        source: VerifierSource,
    ) -> Result<Self, ConnectError> {
        let database = connection.get_dbname().or(connection.get_user());
        Ok(Accounts {
            database: database.unwrap_or_default().to_owned(),
            links: Links::new(Connector::new(connection.clone())?, look_up_sql(&source)),
            source,
        })
    }

    /// The database whose sessions are looked up.
    pub fn database(&self) -> &str {
        &self.database
    }

    pub(super) async fn link(&self) -> Result<Arc<Link>, AccountError> {
        self.links.link().await
    }

    /// A mark of the catalog, as it is after the call.
    ///
    /// # Errors
    /// As [`Accounts::look_up`].
    pub async fn mark(&self) -> Result<Mark, AccountError> {
        self.link().await?.mark().await
    }

    /// A mark of the catalog as it is after the call, and what else was seen then; `None` where something was committed since a
    /// mark was asked for last.
    ///
    /// # Errors
    /// As [`Accounts::look_up`].
    pub async fn glimpse(&self) -> Result<Option<(Mark, Arc<Glimpse>)>, AccountError> {
        self.link().await?.glimpse().await
    }

    /// The user of this name; `None` for one whose login is for PostgreSQL to judge: nobody of this name, no
    /// password or one of another kind, expired, or without the right to log in here. Who is vouched for needs no password.
    ///
    /// # Errors
    /// PostgreSQL cannot be asked.
    pub async fn look_up(
        &self,
        user: &str,
        is_vouched_for: bool,
    ) -> Result<Option<Account>, AccountError> {
        let link = self.link().await?;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&user, &self.database];
        let row = link
            .connection
            .query_opt(&link.look_up, &parameters)
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let told: Option<String> = row.try_get(0)?;
        let facts: String = row.try_get(1)?;
        let may_share = row.try_get(2)?;
        if is_vouched_for {
            return Ok(Some(Account {
                verifier: None,
                stamp: format!("certificate {facts}").into(),
                may_share,
            }));
        }
        let verifier = match &self.source {
            VerifierSource::Query(_) => told.as_deref().and_then(Verifier::parse),
            VerifierSource::File(file) => verifier_in(file, user)?,
        };
        Ok(verifier.map(|verifier| Account {
            stamp: format!("{} {facts}", verifier.fingerprint()).into(),
            verifier: Some(verifier),
            may_share,
        }))
    }

    /// Asks once, as a login does, so that trouble shows at start.
    ///
    /// # Errors
    /// As [`Accounts::look_up`].
    pub async fn try_out(&self) -> Result<(), AccountError> {
        if let VerifierSource::File(file) = &self.source {
            verifier_in(file, "")?;
        }
        self.look_up("", false).await.map(drop)
    }
}

fn look_up_sql(source: &VerifierSource) -> String {
    let verifier = match source {
        VerifierSource::Query(query) => query.as_str(),
        VerifierSource::File(_) => "SELECT NULL::text",
    };
    // Of the role, the database and their settings every change counts; of the server a restart, a failover and
    // a reload do.
    format!(
        "SELECT ({verifier})::text,
                pg_catalog.concat_ws(' ', pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_conf_load_time(),
                    pg_catalog.pg_is_in_recovery(), r::text, d.oid, d.xmin,
                    (SELECT pg_catalog.string_agg(s::text, ' ' ORDER BY s.setdatabase, s.setrole)
                     FROM pg_catalog.pg_db_role_setting s
                     WHERE s.setdatabase IN (0, d.oid) AND s.setrole IN (0, r.oid))),
                NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger t WHERE t.evtevent = 'login' AND t.evtenabled <> 'D')
         FROM pg_catalog.pg_roles r, pg_catalog.pg_database d
         WHERE r.rolname = $1 AND d.datname = $2 AND r.rolcanlogin AND d.datallowconn
           AND (r.rolvaliduntil IS NULL OR r.rolvaliduntil > pg_catalog.clock_timestamp())
           AND pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT')"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifiers_are_found_in_a_file() {
        const VERIFIER: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("users");
        let text = format!(
            "# users\n\"annie\" \"md5x\"\n  \"ann\"\t\"{VERIFIER}\"\n\"a\"\"b\" \"{VERIFIER}\"\n"
        );
        std::fs::write(&file, text).unwrap();
        for (user, is_there) in [
            ("ann", true),
            ("a\"b", true),
            ("annie", false),
            ("an", false),
        ] {
            let found = verifier_in(&file, user).unwrap();
            assert_eq!(found.is_some(), is_there, "{user}");
        }
        assert!(verifier_in(&directory.path().join("none"), "ann").is_err());
    }
}
