//! `SHOW pgstar.…`: what pgstar knows of itself, as result sets for people and scripts.

use pgstar_postgres::maintain::{Standing, Unfoldable};
use pgstar_postgres::rollups::BuiltRollup;

use super::local::{rows_answer, text_answer};
use super::{Route, Router, SessionFacts, gate};
use crate::config::Freshness;
use crate::follower::Unknown;
use crate::warehouse::Snapshot;
use crate::wire::{ErrorReport, Severity};

/// Most statements that `SHOW pgstar.queries` lists.
const QUERIES_MAX: usize = 100;

/// Longest statement text that it shows, in characters.
const QUERY_CHARACTERS_MAX: usize = 500;

type Rows = Vec<Vec<Option<String>>>;

impl Router {
    pub(super) fn show(&self, name: &str, facts: &SessionFacts) -> Route {
        let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
        match name.to_ascii_lowercase().as_str() {
            "rollups" => table(
                &[
                    "rollup",
                    "state",
                    "table",
                    "rows",
                    "bytes",
                    "built_seconds_ago",
                    "build_ms",
                    "standing",
                    "staleness_ms",
                    "position",
                    "lag_bytes",
                    "rebuilds",
                    "detail",
                ],
                self.rollup_rows(),
            ),
            "queries" => table(
                &[
                    "query",
                    "rollup",
                    "cache",
                    "passthrough",
                    "answered_by",
                    "reason",
                ],
                self.query_rows(facts),
            ),
            "cache" => table(&["name", "value"], self.cache_rows()),
            "stats" => table(&["name", "value"], metric_rows()),
            "freshness" => {
                let freshness: Freshness = gate::requested(facts, self.freshness.default).freshness;
                Route::Local(text_answer(
                    "pgstar.freshness",
                    &[freshness.to_string()],
                    "SHOW",
                ))
            }
            "rewrite" => Route::Local(text_answer(
                "pgstar.rewrite",
                &[on_off(facts.rewrite)],
                "SHOW",
            )),
            _ => unknown(name),
        }
    }

    fn rollup_rows(&self) -> Rows {
        let snapshot = self.warehouse.snapshot();
        let ready = snapshot.ready.iter().map(|ready| {
            let built = &ready.built;
            let building = self.warehouse.building(&built.name);
            let state = match building {
                Some(_) => "ready, rebuilding",
                None => "ready",
            };
            let numbers = [
                built.rows.to_string(),
                built.bytes.to_string(),
                Snapshot::age(built).as_secs().to_string(),
                built.build_time.as_millis().to_string(),
            ];
            let start = [
                built.name.clone(),
                state.to_owned(),
                format!("{}.{}", built.schema, built.table),
            ];
            start
                .into_iter()
                .chain(numbers)
                .map(Some)
                .chain(self.upkeep(built))
                .chain([building
                    .and_then(|building| building.parts)
                    .map(|parts| parts.to_string())])
                .collect()
        });
        let absent = snapshot.absent.iter().map(|absent| {
            let building = self.warehouse.building(&absent.name);
            let state = building.as_ref().map_or("absent", |building| building.step);
            let because = match building.map(|building| (building.from, building.parts)) {
                Some((Some(from), _)) => {
                    format!("{}; it is filled from rollup {from}", absent.because)
                }
                Some((None, Some(parts))) => format!("{}; {parts}", absent.because),
                Some((None, None)) | None => absent.because.clone(),
            };
            let start = [Some(absent.name.clone()), Some(state.to_owned())];
            start
                .into_iter()
                .chain(std::iter::repeat_n(None, 10))
                .chain([Some(because)])
                .collect()
        });
        ready.chain(absent).collect()
    }

    /// Whether the rollup follows its tables, how far it is behind at most, and how often it had to be built again.
    fn upkeep(&self, built: &BuiltRollup) -> [Option<String>; 5] {
        let follower = self.warehouse.follower();
        let lag = follower.lag(&built.table);
        let standing = match (follower.state(), follower.tables().get(&built.table)) {
            (Err(Unknown::Unproven(why)), _) => match self.warehouse.refresh_of(&built.name) {
                Some(refresh) => format!("built every {refresh:?}, not followed: {why}"),
                None => format!("not followed: {why}"),
            },
            (_, None) => "not followed yet".to_owned(),
            (_, Some(state)) => match &state.standing {
                // Of one in step it may not be known yet with what.
                Standing::InStep if lag.is_some() => "in step".to_owned(),
                Standing::InStep | Standing::Behind(_) => "catching up".to_owned(),
                Standing::Aside(Unfoldable::NotFollowed { reason }) => {
                    format!("not followed: {reason}")
                }
                Standing::Aside(why) => format!("to be built again: {why}"),
            },
        };
        let figures = follower.figures();
        let rebuilds = figures
            .rollups
            .get(&built.name)
            .map_or(0, |rollup| rollup.rebuilds.values().sum::<u64>());
        [
            Some(standing),
            lag.map(|lag| lag.time.as_millis().to_string()),
            lag.map(|lag| lag.at.to_string()),
            lag.map(|lag| lag.bytes.to_string()),
            Some(rebuilds.to_string()),
        ]
    }

    fn query_rows(&self, facts: &SessionFacts) -> Rows {
        let snapshot = self.warehouse.snapshot();
        let row = |decided: &super::Decided| {
            let found = decided.decision.matches.first();
            let answered_by = found.map(|found| snapshot.names(found).join(", "));
            let reason = if answered_by.is_some() {
                None
            } else {
                decided
                    .decision
                    .reasons
                    .first()
                    .map(|reason| shown(&reason.to_string(), facts))
            };
            let counts = [
                &decided.counts.rollup,
                &decided.counts.cache,
                &decided.counts.passthrough,
            ];
            let counts = counts.map(|count| Some(count.get().to_string()));
            std::iter::once(Some(shown(&decided.sql, facts)))
                .chain(counts)
                .chain([answered_by, reason])
                .collect()
        };
        self.decisions
            .by_use()
            .iter()
            .take(QUERIES_MAX)
            .map(|decided| row(decided))
            .collect()
    }

    fn cache_rows(&self) -> Rows {
        let statistics = self.kept.statistics();
        let named = [
            ("entries", statistics.entries),
            ("bytes", statistics.bytes),
            ("bytes_max", statistics.bytes_max),
            ("hits", statistics.hits),
            ("misses", statistics.misses),
            ("followed_tables", self.warehouse.follower().others() as u64),
        ];
        named
            .iter()
            .map(|(name, value)| vec![Some((*name).to_owned()), Some(value.to_string())])
            .collect()
    }
}

/// A statement on one line. Its constants may be secrets, so only superusers see others' statements,
/// as in pg_stat_activity.
fn shown(sql: &str, facts: &SessionFacts) -> String {
    if !facts.is_superuser {
        return "<insufficient privilege>".to_owned();
    }
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(QUERY_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn table(columns: &[&str], rows: Rows) -> Route {
    Route::Local(rows_answer(columns, &rows, "SHOW"))
}

/// Every metric, as `/metrics` has it, without its help texts.
fn metric_rows() -> Rows {
    let text = crate::telemetry::render();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    pairs
        .map(|(name, value)| vec![Some(name.to_owned()), Some(value.to_owned())])
        .collect()
}

fn unknown(name: &str) -> Route {
    let report = ErrorReport {
        severity: Severity::Error,
        sqlstate: "42704",
        message: &format!("unrecognized pgstar parameter \"pgstar.{name}\""),
        detail: None,
        hint: Some(
            "Known are pgstar.rollups, pgstar.queries, pgstar.cache, pgstar.stats, pgstar.freshness and pgstar.rewrite.",
        ),
    };
    Route::LocalError(report.frame())
}
