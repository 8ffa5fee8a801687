//! Whether this server and this role can feed a change stream: every missing setting and privilege
//! at once, each with what to do about it.

use tokio_postgres::Client;

use super::PUBLICATION;
use crate::connect::{APPLICATION_NAME, Error};
use crate::identifier::quote;

/// A setting or a privilege that is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupProblem {
    /// The server logs too little.
    #[error(
        "wal_level is \"{found}\", and changes can only be followed with \"logical\"; as a superuser run: \
         ALTER SYSTEM SET wal_level = logical; and restart PostgreSQL"
    )]
    WalLevel {
        /// What it is.
        found: String,
    },
    /// This is a standby.
    #[error("the server is a standby; pgstar follows the changes of the primary")]
    Standby,
    /// Commits that wait for a standby would be told that pgstar is one.
    #[error(
        "synchronous_standby_names would take pgstar for a standby, and commits would not wait for a real one; \
         name the standbys in it instead of using \"*\", and none of them \"{APPLICATION_NAME}\""
    )]
    CountsAsStandby,
    /// Every slot is taken.
    #[error(
        "all {max} replication slots are taken; drop one that is not needed, or as a superuser run: \
         ALTER SYSTEM SET max_replication_slots = {}; and restart PostgreSQL", .max + 5
    )]
    NoFreeSlot {
        /// `max_replication_slots`.
        max: i32,
    },
    /// Every walsender is taken.
    #[error(
        "all {max} walsenders are taken; as a superuser run: \
         ALTER SYSTEM SET max_wal_senders = {}; and restart PostgreSQL", .max + 5
    )]
    NoFreeSender {
        /// `max_wal_senders`.
        max: i32,
    },
    /// The role may not open replication connections.
    #[error(
        "role \"{role}\" may not open replication connections; as a superuser run: ALTER ROLE {} REPLICATION",
        quote(.role)
    )]
    NotReplicationRole {
        /// pgstar's role.
        role: String,
    },
    /// The publication is missing and the role may not create it.
    #[error(
        "role \"{role}\" may not create a publication in database \"{database}\"; as its owner or a superuser run: \
         GRANT CREATE ON DATABASE {} TO {}", quote(.database), quote(.role)
    )]
    MayNotCreatePublication {
        /// pgstar's role.
        role: String,
        /// The database.
        database: String,
    },
    /// The publication has to be altered and is somebody else's.
    #[error(
        "publication \"{PUBLICATION}\" belongs to role \"{owner}\", and role \"{role}\" may not alter it; \
         as its owner or a superuser run: ALTER PUBLICATION {PUBLICATION} OWNER TO {}", quote(.role)
    )]
    PublicationNotOwned {
        /// pgstar's role.
        role: String,
        /// Its owner.
        owner: String,
    },
    /// The publication is for all tables, which no ALTER can change.
    #[error(
        "publication \"{PUBLICATION}\" is FOR ALL TABLES, so that updates of any table without a primary key fail; \
         as its owner run: DROP PUBLICATION {PUBLICATION}"
    )]
    PublicationOfAllTables,
}

/// The system views count slots and walsenders of everybody for everybody. A slot of this database's that
/// nobody uses is there to be used again.
const QUESTION: &str = "
  SELECT current_setting('wal_level'), pg_is_in_recovery(),
         current_setting('max_replication_slots')::int,
         (SELECT count(*)::int FROM pg_replication_slots s
           WHERE s.active OR NOT starts_with(s.slot_name,
                 (SELECT 'pgstar_' || d.oid || '_' FROM pg_database d WHERE d.datname = current_database()))),
         current_setting('max_wal_senders')::int,
         (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'walsender'),
         r.rolreplication OR r.rolsuper, r.rolname::text, current_database()::text,
         has_database_privilege(current_database(), 'CREATE'),
         p.oid IS NOT NULL, p.puballtables, pg_has_role(p.pubowner, 'USAGE'), pg_get_userbyid(p.pubowner)::text,
         current_setting('synchronous_standby_names')
    FROM pg_roles r LEFT JOIN pg_publication p ON p.pubname = $1
   WHERE r.rolname = current_user";

/// Everything that is missing. A stream of ours that runs already may be what takes the last slot.
pub(super) async fn problems(
    client: &Client,
    publication: &str,
) -> Result<Vec<SetupProblem>, Error> {
    let row = client.query_one(QUESTION, &[&publication]).await?;
    let (wal_level, is_standby): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
    let (slots_max, slots): (i32, i32) = (row.try_get(2)?, row.try_get(3)?);
    let (senders_max, senders): (i32, i32) = (row.try_get(4)?, row.try_get(5)?);
    let (may_replicate, may_create): (bool, bool) = (row.try_get(6)?, row.try_get(9)?);
    let (role, database): (String, String) = (row.try_get(7)?, row.try_get(8)?);
    let is_published: bool = row.try_get(10)?;
    let is_of_all_tables: Option<bool> = row.try_get(11)?;
    let is_owned: Option<bool> = row.try_get(12)?;
    let owner: Option<String> = row.try_get(13)?;
    let counts_as_standby = names_pgstar(row.try_get(14)?);
    let checks = [
        (counts_as_standby, SetupProblem::CountsAsStandby),
        (
            wal_level != "logical",
            SetupProblem::WalLevel { found: wal_level },
        ),
        (is_standby, SetupProblem::Standby),
        (
            slots >= slots_max,
            SetupProblem::NoFreeSlot { max: slots_max },
        ),
        (
            senders >= senders_max,
            SetupProblem::NoFreeSender { max: senders_max },
        ),
        (
            !may_replicate,
            SetupProblem::NotReplicationRole { role: role.clone() },
        ),
        (
            !is_published && !may_create,
            SetupProblem::MayNotCreatePublication {
                role: role.clone(),
                database,
            },
        ),
        (
            is_owned == Some(false),
            SetupProblem::PublicationNotOwned {
                role,
                owner: owner.unwrap_or_default(),
            },
        ),
        (
            is_of_all_tables == Some(true),
            SetupProblem::PublicationOfAllTables,
        ),
    ];
    Ok(checks
        .into_iter()
        .filter(|(is_problem, _)| *is_problem)
        .map(|(_, problem)| problem)
        .collect())
}

/// Whether the walsender that serves us could release commits that wait for a standby.
pub(super) async fn counts_as_standby(client: &Client) -> Result<bool, Error> {
    let sql = "SELECT current_setting('synchronous_standby_names')";
    Ok(names_pgstar(client.query_one(sql, &[]).await?.try_get(0)?))
}

/// Standbys are told apart by their application's name, whatever its case.
fn names_pgstar(standby_names: &str) -> bool {
    let names = standby_names.split([',', '(', ')', ' ', '"']);
    let mut names = names.filter(|name| !name.is_empty());
    names.any(|name| name == "*" || name.eq_ignore_ascii_case(APPLICATION_NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_mean_us_count() {
        for names in ["*", "ANY 1 (a, *)", "FIRST 2 (a, \"PgStar\")", "pgstar"] {
            assert!(names_pgstar(names), "{names}");
        }
        for names in ["", "a", "ANY 1 (a, \"pgstar2\")"] {
            assert!(!names_pgstar(names), "{names}");
        }
    }
}
