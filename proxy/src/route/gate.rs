//! For whom and when a rollup may answer: what the proof of a rewrite does not cover.

use pgstar_rewriter::{Code, Match, Reason};

use super::SessionFacts;
use crate::config::Freshness;
use crate::warehouse::Snapshot;

/// The freshness that a session asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requested {
    /// What has to be shown.
    pub freshness: Freshness,
    /// Whether the session's setting is no freshness, so that strict is taken instead.
    pub is_invalid: bool,
}

/// The session's own setting, or the configuration's default.
pub(super) fn requested(facts: &SessionFacts, default: Freshness) -> Requested {
    // An empty value is what RESET leaves behind of a setting that PostgreSQL does not know.
    match facts
        .freshness
        .as_deref()
        .filter(|setting| !setting.is_empty())
        .map(str::parse)
    {
        None => Requested {
            freshness: default,
            is_invalid: false,
        },
        Some(Ok(freshness)) => Requested {
            freshness,
            is_invalid: false,
        },
        Some(Err(_)) => Requested {
            freshness: Freshness::Strict,
            is_invalid: true,
        },
    }
}

/// Whether any rollup may answer the statement in this session's present state.
///
/// `is_watched` says that the snapshot is known to hold still.
pub(super) fn session(
    facts: &SessionFacts,
    sql: &str,
    snapshot: &Snapshot,
    is_watched: bool,
) -> Result<(), Reason> {
    let refuse = |code, detail: &str| Err(Reason::new(code, detail));
    let finds_pg_catalog_first = facts
        .search_path
        .first()
        .is_some_and(|schema| schema == "pg_catalog");
    if snapshot.version == 0 {
        return refuse(Code::CatalogUnavailable, "");
    }
    if !is_watched {
        let detail = "it has not been looked at for some seconds, so keys, policies or privileges may have changed";
        return refuse(Code::CatalogUnavailable, detail);
    }
    if facts.database != snapshot.database {
        return Err(Reason::new(
            Code::OtherDatabase,
            format!("rollups are in database \"{}\"", snapshot.database),
        ));
    }
    if facts.server != snapshot.server {
        let detail =
            "the server that the session is on was started since, and may have other libraries";
        return refuse(Code::CatalogUnavailable, detail);
    }
    if !facts.rewrite {
        return refuse(Code::RewriteOff, "SET pgstar.rewrite = on to allow it");
    }
    if facts.wrote {
        return refuse(Code::WriteTransaction, "");
    }
    if facts.isolation != "read committed" {
        return refuse(Code::Isolation, &facts.isolation);
    }
    if facts
        .search_path
        .iter()
        .any(|schema| schema.starts_with("pg_temp_"))
    {
        return refuse(
            Code::TemporaryObjects,
            "search_path names another session's temporary schema",
        );
    }
    no_temporary_name_is_in(sql, facts)?;
    if !facts.plain_strings {
        return refuse(
            Code::SessionSetting,
            "standard_conforming_strings or client_encoding",
        );
    }
    if facts.refuses_policies {
        return refuse(Code::SessionSetting, "row_security = off");
    }
    if !finds_pg_catalog_first {
        return refuse(
            Code::SessionSetting,
            "search_path puts another schema before pg_catalog",
        );
    }
    Ok(())
}

/// Whether no name in the text can mean something in the session's temporary schema, which is searched first.
fn no_temporary_name_is_in(sql: &str, facts: &SessionFacts) -> Result<(), Reason> {
    match facts.temporary.found_in(sql) {
        None => Ok(()),
        Some(name) => Err(Reason::new(Code::TemporaryObjects, name)),
    }
}

/// Whether this session's role may be answered from these rollups.
pub(super) fn rollups(
    facts: &SessionFacts,
    snapshot: &Snapshot,
    found: &Match,
) -> Result<(), Reason> {
    // It names types, too, which the statement may not.
    no_temporary_name_is_in(&found.sql, facts)?;
    for position in &found.rollups {
        let Some(ready) = snapshot.ready.get(*position) else {
            return Err(Reason::new(Code::NotBuilt, ""));
        };
        let may_read = ready.readers.public || ready.readers.roles.contains(&facts.role);
        if !may_read {
            return Err(Reason::new(
                Code::NotAReader,
                format!(
                    "role \"{}\" may not read all of its base tables",
                    facts.role
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn asked(freshness: Freshness) -> Requested {
        Requested {
            freshness,
            is_invalid: false,
        }
    }

    #[test]
    fn a_setting_that_is_no_freshness_is_taken_as_strict() {
        let facts = |setting: Option<&str>| SessionFacts {
            freshness: setting.map(str::to_owned),
            ..SessionFacts::default()
        };
        assert_eq!(
            requested(&facts(None), Freshness::Any),
            asked(Freshness::Any)
        );
        assert_eq!(
            requested(&facts(Some("")), Freshness::Any),
            asked(Freshness::Any)
        );
        assert_eq!(
            requested(&facts(Some("5s")), Freshness::Any),
            asked(Freshness::Within(Duration::from_secs(5)))
        );
        let invalid = requested(&facts(Some("soon")), Freshness::Any);
        assert!(invalid.is_invalid && invalid.freshness == Freshness::Strict);
    }
}
