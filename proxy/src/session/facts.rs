//! What a session must know of itself before a statement of its may be served, asked of its own backend.
//!
//! One round trip; safe under any search_path, in read-only transactions, without assigning a transaction
//! id. Asked again after any statement that might have changed an answer. It must not judge the facts.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::own::own_command;
use super::{Ended, Routing, Session};
use crate::route::{Passed, Passing, SessionFacts, Temporary};
use crate::wire::{self, data_row_values, server_tag};

/// What the probe asks before any setting.
const EXPRESSIONS: [&str; 7] = [
    "pg_catalog.current_database()",
    "current_user",
    "session_user",
    "pg_catalog.array_to_json(pg_catalog.current_schemas(true))",
    "pg_catalog.pg_my_temp_schema()::pg_catalog.regnamespace",
    "pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL",
    "EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time())::pg_catalog.text",
];

/// Settings that decide only whether and how pgstar serves; an answer's bytes do not depend on them.
const UNPRINTED: [&str; 5] = [
    "transaction_isolation",
    "pgstar.freshness",
    "pgstar.rewrite",
    "pgstar.cache",
    "is_superuser",
];

/// Settings on which the reading of a statement or the bytes of its answer depend.
const PRINTED: [&str; 21] = [
    "TimeZone",
    "standard_conforming_strings",
    "client_encoding",
    "server_encoding",
    "transform_null_equals",
    "row_security",
    "DateStyle",
    "IntervalStyle",
    "extra_float_digits",
    "bytea_output",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "array_nulls",
    "xmlbinary",
    "xmloption",
    "default_text_search_config",
    "backslash_quote",
    "timezone_abbreviations",
    "quote_all_identifiers",
];

const COLUMNS: usize = EXPRESSIONS.len() + UNPRINTED.len() + PRINTED.len();

/// What the relations and types in the session's temporary schema are called. Functions, operators and the like are
/// never looked for there. NULL stands for one that a table has as a child: it is read without being named.
const TEMPORARY_NAMES: &str = "SELECT relname FROM pg_catalog.pg_class \
     WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() \
     UNION ALL SELECT typname FROM pg_catalog.pg_type \
     WHERE typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() \
     UNION ALL SELECT NULL FROM pg_catalog.pg_inherits \
     JOIN pg_catalog.pg_class ON pg_class.oid OPERATOR(pg_catalog.=) inhrelid \
     WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() LIMIT 1001";
/// A session with more names is not answered; one less than the question's LIMIT.
const TEMPORARY_NAMES_MAX: usize = 1_000;

/// What `pg_my_temp_schema()` says where there is none.
const NO_SCHEMA: &str = "-";

/// What is known of a session, and since when.
#[derive(Debug, Default)]
pub(super) struct KnownFacts {
    facts: SessionFacts,
    asked_at: Option<Instant>,
    /// How often they may have changed.
    generation: u64,
}

impl KnownFacts {
    /// Something may have changed them.
    #[inline]
    pub(super) fn forget(&mut self) {
        self.asked_at = None;
        self.generation += 1;
    }

    /// A statement goes to PostgreSQL as the client sent it.
    #[inline]
    pub(super) fn note_passing(&self, passing: Passing) {
        self.facts.passed.note(passing);
    }

    /// Two equal generations: nothing happened in between that may have changed a fact.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn are_known(&self, age_max: Duration) -> bool {
        self.asked_at
            .is_some_and(|asked_at| asked_at.elapsed() < age_max)
    }

    pub(super) fn get(&self) -> &SessionFacts {
        &self.facts
    }

    pub(super) fn learn(&mut self, facts: SessionFacts) {
        let passed = Arc::clone(&self.facts.passed);
        self.facts = SessionFacts { passed, ..facts };
        self.asked_at = Some(Instant::now());
    }

    fn learn_temporary(&mut self, temporary: Temporary) {
        self.facts.temporary = temporary;
    }
}

/// How a probe came out.
#[derive(Debug)]
pub(super) enum Probe {
    Known,
    /// PostgreSQL refused it with this ErrorResponse frame.
    Failed(Bytes),
    /// The answer is not what was asked for.
    Unreadable,
}

impl<R: Routing> Session<R> {
    /// Asks the session's backend for its facts. A Query drops the unnamed statement and portal, so the probe
    /// is one only if it is for one.
    pub(super) async fn probe(&mut self, is_for_batch: bool) -> Result<Probe, Ended> {
        static AS_QUERY: OnceLock<Bytes> = OnceLock::new();
        static AS_BATCH: OnceLock<Bytes> = OnceLock::new();
        self.shared.counters.probes.add_one();
        let frames = if is_for_batch {
            AS_BATCH.get_or_init(batch_frames)
        } else {
            AS_QUERY.get_or_init(query_frame)
        };
        let rows = match self.ask_rows(frames).await? {
            Ok(rows) => rows,
            Err(error) => {
                if is_for_batch {
                    self.clear_own().await?;
                }
                return Ok(Probe::Failed(error));
            }
        };
        let Some(facts) = rows.first().and_then(|row| facts_of_row(row)) else {
            return Ok(Probe::Unreadable);
        };
        self.facts.learn(facts);
        Ok(Probe::Known)
    }

    /// Asks what there is in the session's temporary schema, if it has one.
    pub(super) async fn probe_temporary(&mut self) -> Result<Probe, Ended> {
        if self.facts.get().temporary != Temporary::Unknown {
            return Ok(Probe::Known);
        }
        let mut question = BytesMut::new();
        own_command(&mut question, TEMPORARY_NAMES);
        wire::sync(&mut question);
        let rows = match self.ask_rows(&question).await? {
            Ok(rows) => rows,
            Err(error) => {
                self.clear_own().await?;
                return Ok(Probe::Failed(error));
            }
        };
        let names: Option<Vec<Box<str>>> = rows.iter().map(|row| only_text(row)).collect();
        if let Some(names) = names.filter(|names| names.len() <= TEMPORARY_NAMES_MAX) {
            self.facts.learn_temporary(Temporary::of(names));
        }
        Ok(Probe::Known)
    }

    /// Asks a question of pgstar's own: the frames of its rows, or of its error.
    async fn ask_rows(&mut self, question: &[u8]) -> Result<Result<Vec<Bytes>, Bytes>, Ended> {
        self.ask(question).await?;
        let (mut rows, mut error) = (vec![], None);
        loop {
            let reply = self.next_reply().await?;
            match reply.tag {
                server_tag::DATA_ROW => rows.push(self.whole_reply(reply).await?),
                server_tag::ERROR_RESPONSE => error = Some(self.swallow_error(reply).await?),
                server_tag::READY_FOR_QUERY => {
                    self.take_ready(reply).await?;
                    return Ok(error.map_or(Ok(rows), Err));
                }
                _ => self.skip_reply(reply).await?,
            }
        }
    }
}

/// The question whose one row [`facts_of`] reads.
pub(crate) fn probe_sql() -> String {
    let settings = UNPRINTED
        .iter()
        .chain(&PRINTED)
        .map(|name| format!("pg_catalog.current_setting('{name}', true)"));
    let columns: Vec<String> = EXPRESSIONS
        .iter()
        .map(|expression| (*expression).to_owned())
        .chain(settings)
        .collect();
    format!("SELECT {}", columns.join(", "))
}

fn query_frame() -> Bytes {
    let mut out = BytesMut::new();
    wire::query(&mut out, &probe_sql());
    out.freeze()
}

fn batch_frames() -> Bytes {
    let mut out = BytesMut::new();
    own_command(&mut out, &probe_sql());
    wire::sync(&mut out);
    out.freeze()
}

/// The facts in the probe's DataRow; `None` if it is anything else, or not text in UTF-8.
pub(super) fn facts_of_row(frame: &[u8]) -> Option<SessionFacts> {
    let values = data_row_values(frame).ok()?;
    let values: Vec<Option<&str>> = values.into_iter().map(as_text).collect::<Option<_>>()?;
    facts_of(&values)
}

/// The facts in the values of the probe's row; `None` if it is another row.
pub(crate) fn facts_of(values: &[Option<&str>]) -> Option<SessionFacts> {
    let values: &[Option<&str>; COLUMNS] = values.try_into().ok()?;
    let (expressions, settings) = values.split_at(EXPRESSIONS.len());
    let (unprinted, printed) = settings.split_at(UNPRINTED.len());
    let [
        Some(database),
        Some(role),
        Some(session_user),
        Some(schemas),
        Some(temp_schema),
        Some(wrote),
        Some(server),
    ] = expressions
    else {
        return None;
    };
    let [isolation, freshness, rewrite, cache, is_superuser] = unprinted else {
        return None;
    };
    let [
        time_zone,
        conforming,
        client_encoding,
        server_encoding,
        null_equals,
        row_security,
        ..,
    ] = printed
    else {
        return None;
    };
    let plain = [
        (conforming, "on"),
        (client_encoding, "UTF8"),
        (server_encoding, "UTF8"),
        (null_equals, "off"),
    ];
    let search_path: Vec<String> = serde_json::from_str(schemas).ok()?;
    let search_path = without(search_path, temp_schema);
    Some(SessionFacts {
        database: (*database).to_owned(),
        server: (*server).to_owned(),
        role: (*role).to_owned(),
        temporary: match *temp_schema {
            NO_SCHEMA => Temporary::default(),
            _ => Temporary::Unknown,
        },
        wrote: *wrote == "t",
        isolation: (*isolation)?.to_owned(),
        time_zone: (*time_zone)?.to_owned(),
        plain_strings: plain
            .iter()
            .all(|(value, expected)| **value == Some(*expected)),
        refuses_policies: is_off(*row_security),
        freshness: freshness.filter(|text| !text.is_empty()).map(str::to_owned),
        rewrite: !is_off(*rewrite),
        cache: !is_off(*cache),
        is_superuser: *is_superuser == Some("on"),
        passed: Arc::new(Passed::default()),
        fingerprint: fingerprint(
            &[database, server, role, session_user],
            &search_path,
            printed,
        ),
        search_path,
    })
}

/// The path without the session's own temporary schema, which is searched before all others where it stands nowhere else.
fn without(path: Vec<String>, temp_schema: &str) -> Vec<String> {
    path.into_iter()
        .filter(|schema| schema != temp_schema)
        .collect()
}

/// The text in a row of one value; `None` if it is another row.
fn only_text(frame: &[u8]) -> Option<Box<str>> {
    let values = data_row_values(frame).ok()?;
    let [Some(value)] = values.as_slice() else {
        return None;
    };
    std::str::from_utf8(value).ok().map(Box::from)
}

/// A value as text: the outer `None` if it is not UTF-8, the inner if it is NULL.
fn as_text(value: Option<&[u8]>) -> Option<Option<&str>> {
    value.map_or(Some(None), |bytes| {
        std::str::from_utf8(bytes).ok().map(Some)
    })
}

/// Whether a setting of pgstar's own says no, in any of PostgreSQL's spellings. Unset says nothing.
fn is_off(value: Option<&str>) -> bool {
    let value = value.unwrap_or_default().to_ascii_lowercase();
    matches!(
        value.as_str(),
        "off" | "of" | "false" | "fals" | "fal" | "fa" | "f" | "no" | "n" | "0"
    )
}

/// Everything an answer's bytes depend on, each part with its length before it, so that no two lists of
/// values look alike.
fn fingerprint(who: &[&str], search_path: &[String], printed: &[Option<&str>]) -> Bytes {
    const NULL: u32 = u32::MAX;
    let mut out = BytesMut::new();
    let mut put = |value: Option<&str>| match value {
        None => out.put_u32(NULL),
        Some(text) => {
            out.put_u32(text.len() as u32);
            out.put_slice(text.as_bytes());
        }
    };
    who.iter().for_each(|name| put(Some(name)));
    printed.iter().for_each(|setting| put(*setting));
    // Last, because paths differ in how many schemas they have.
    search_path.iter().for_each(|schema| put(Some(schema)));
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe's row: the expressions as given, every setting "on" but for those named.
    fn row(expressions: [&str; 7], settings: &[(&str, &str)]) -> BytesMut {
        let names = UNPRINTED.iter().chain(&PRINTED);
        let setting = |name: &&str| {
            settings
                .iter()
                .find(|(key, _)| key == name)
                .map_or("on", |(_, value)| *value)
        };
        let values: Vec<_> = expressions
            .into_iter()
            .chain(names.map(setting))
            .map(|text| Some(text.as_bytes()))
            .collect();
        let mut out = BytesMut::new();
        wire::data_row(&mut out, &values);
        out
    }

    const EXPRESSED: [&str; 7] = [
        "db",
        "ann",
        "ann",
        "[\"pg_temp_3\",\"pg_catalog\",\"a b\"]",
        "pg_temp_3",
        "t",
        "17.25",
    ];
    const PLAIN: [(&str, &str); 3] = [
        ("client_encoding", "UTF8"),
        ("server_encoding", "UTF8"),
        ("transform_null_equals", "off"),
    ];

    #[test]
    fn a_row_becomes_facts() {
        let facts = facts_of_row(&row(EXPRESSED, &PLAIN)).unwrap();
        assert_eq!(facts.search_path, ["pg_catalog", "a b"]);
        assert_eq!(
            (facts.database.as_str(), facts.role.as_str()),
            ("db", "ann")
        );
        assert!(
            facts.plain_strings
                && facts.wrote
                && facts.temporary == Temporary::Unknown
                && facts.rewrite
                && facts.cache
        );
    }

    #[test]
    fn every_printed_setting_changes_the_fingerprint_and_no_other() {
        let before = facts_of_row(&row(EXPRESSED, &PLAIN)).unwrap().fingerprint;
        for name in PRINTED {
            let changed = facts_of_row(&row(EXPRESSED, &[(name, "other")]))
                .unwrap()
                .fingerprint;
            assert_ne!(changed, before, "{name}");
        }
        for name in UNPRINTED {
            let settings = [&PLAIN[..], &[(name, "other")]].concat();
            assert_eq!(
                facts_of_row(&row(EXPRESSED, &settings))
                    .unwrap()
                    .fingerprint,
                before,
                "{name}"
            );
        }
    }

    #[test]
    fn neighbouring_values_do_not_run_together() {
        let one = fingerprint(&["ab", "c"], &[], &[]);
        let other = fingerprint(&["a", "bc"], &[], &[]);
        assert_ne!(one, other);
        let unset = fingerprint(&[], &[], &[None]);
        assert_ne!(unset, fingerprint(&[], &[], &[Some("")]));
    }

    #[test]
    fn strings_are_plain_only_when_everything_about_them_is() {
        for (name, value) in [
            ("client_encoding", "LATIN1"),
            ("standard_conforming_strings", "off"),
            ("transform_null_equals", "on"),
        ] {
            let settings = [&[(name, value)], &PLAIN[..]].concat();
            assert!(
                !facts_of_row(&row(EXPRESSED, &settings))
                    .unwrap()
                    .plain_strings,
                "{name}"
            );
        }
    }

    #[test]
    fn a_temporary_schema_is_no_part_of_an_answers_key_and_another_sessions_is() {
        let facts = |temp_schema: &str| {
            let mut expressed = EXPRESSED;
            expressed[4] = temp_schema;
            facts_of_row(&row(expressed, &PLAIN)).unwrap()
        };
        let mut expressed = EXPRESSED;
        expressed[3..5].copy_from_slice(&["[\"pg_catalog\",\"a b\"]", "-"]);
        let none = facts_of_row(&row(expressed, &PLAIN)).unwrap();
        assert_eq!(none.temporary, Temporary::default());
        assert_eq!(facts("pg_temp_3").fingerprint, none.fingerprint);
        assert_eq!(facts("pg_temp_4").search_path[0], "pg_temp_3");
        assert_ne!(facts("pg_temp_4").fingerprint, none.fingerprint);
    }

    #[test]
    fn any_other_row_is_unreadable() {
        let whole = row(EXPRESSED, &PLAIN);
        assert!((0..whole.len()).all(|end| facts_of_row(&whole[..end]).is_none()));
        let mut short = BytesMut::new();
        wire::data_row(&mut short, &[Some(b"db")]);
        assert!(facts_of_row(&short).is_none());
    }

    #[test]
    fn off_has_many_spellings() {
        assert!(
            ["off", "OFF", "f", "no", "0"]
                .into_iter()
                .all(|text| is_off(Some(text)))
        );
        assert!(
            ![None, Some(""), Some("on"), Some("o"), Some("1")]
                .into_iter()
                .any(is_off)
        );
    }
}
