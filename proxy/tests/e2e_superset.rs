//! What Apache Superset was seen to send, through pgstar and straight to PostgreSQL: every answer is the same, byte for
//! byte, and at least so many come from rollups. The statements, their data and the rollups are in loadtest/superset.
//!
//! `make superset-corpus` runs it over more rows and in more time zones, and prints what was answered by what.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use e2e_support::{Client, Database, Frame, Lab, explain, ok, table};
use pgstar::config::Config;

const SCHEMA: &str = include_str!("../../loadtest/superset/schema.sql");
const DATA: &str = include_str!("../../loadtest/superset/data.sql");
const DATASETS: &str = include_str!("../../loadtest/superset/datasets.sql");
const STATEMENTS: &str = include_str!("../../loadtest/superset/statements.sql");
const CONFIG: &str = include_str!("../../loadtest/superset/pgstar.toml");
/// Statements that no rollup answers today, each with the reason of the nearest rollup.
const REFUSED: &str = include_str!("../../loadtest/superset/refused.txt");

/// What charts can be answered from, in the order in which a rewriter learns it; the other steps are no charts.
const LADDER: [&str; 15] = [
    "base",
    "ratios",
    "count-distinct",
    "series-limit",
    "predicates",
    "expressions-summed",
    "measures-filtered",
    "dataset-forms",
    "sub-day",
    "expressions-grouped",
    "rowcount",
    "re-aggregation",
    "sub-queries",
    "holistic",
    "raw-rowcount",
];

/// What Superset sends before each query of a chart, in this order, on a connection of its own.
const PREAMBLE: [&str; 11] = [
    "BEGIN",
    "SELECT t.oid, typarray FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid WHERE typname = 'hstore';",
    "ROLLBACK",
    "BEGIN",
    "select pg_catalog.version()",
    "select current_schema()",
    "show transaction isolation level",
    "show standard_conforming_strings",
    "ROLLBACK",
    "BEGIN",
    "set search_path = \"ssb\"",
];

struct Statement {
    name: &'static str,
    chart: &'static str,
    step: &'static str,
    sql: String,
}

/// Paragraphs that begin with a line `-- title`.
fn paragraphs(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    // The first one says what the file is.
    text.split("\n\n").skip(1).map(|paragraph| {
        let (title, rest) = paragraph.split_once('\n').unwrap();
        (title.strip_prefix("-- ").unwrap(), rest.trim_end())
    })
}

fn statements() -> Vec<Statement> {
    let datasets: BTreeMap<&str, &str> = paragraphs(DATASETS).collect();
    let statement = |(title, sql): (&'static str, &str)| {
        let mut fields = title.split(" | ");
        let mut next = || fields.next().unwrap();
        let (name, chart, _dataset, step) = (next(), next(), next(), next());
        Statement {
            name,
            chart,
            step,
            sql: with_datasets(sql, &datasets),
        }
    };
    paragraphs(STATEMENTS).map(statement).collect()
}

/// `{name}` on a line of its own is that dataset, indented as far.
fn with_datasets(sql: &str, datasets: &BTreeMap<&str, &str>) -> String {
    let line = |line: &str| {
        let name = line.trim_start();
        let indent = &line[..line.len() - name.len()];
        match name
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'))
        {
            None => line.to_owned(),
            Some(name) => datasets[name]
                .lines()
                .map(|line| format!("{indent}{line}"))
                .collect::<Vec<_>>()
                .join("\n"),
        }
    };
    sql.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn from_environment(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

async fn lab(lines: &str) -> Lab {
    let database = Database::with(SCHEMA).await;
    database
        .run(&format!("SET corpus.lines = {lines}; {DATA}"))
        .await;
    let mut config = Config::from_text(Path::new("superset/pgstar.toml"), CONFIG).unwrap();
    // Where the test's server is, and nothing from the cache: each statement is to be answered anew.
    let own = database.config("[cache]\nmemory = \"0B\"\n", &[]);
    config.listen = own.listen;
    config.upstream = own.upstream;
    config.admin = own.admin;
    config.cache = own.cache;
    Lab::with_config(&database, &config).await
}

/// The answer to one query of a chart, on a connection with Superset's preamble.
async fn ask(mut session: Client, sql: &str) -> Vec<Frame> {
    for statement in PREAMBLE {
        ok(&mut session, statement).await;
    }
    let answer = session.query(sql).await;
    ok(&mut session, "ROLLBACK").await;
    answer
}

/// What pgstar decides of it: the rollup, or the first reason.
async fn decided(session: &mut Client, sql: &str) -> Result<String, String> {
    let explained = explain(session, sql).await;
    match explained["decision"].as_str().unwrap() {
        "rollup" => Ok(explained["rollup"].as_str().unwrap().to_owned()),
        _ => {
            let reason = &explained["reasons"][0];
            let text = |field: &str| reason[field].as_str().unwrap_or_default().to_owned();
            Err(format!(
                "{}: {} ({})",
                text("code"),
                text("detail"),
                text("rollup")
            ))
        }
    }
}

fn is_row(frame: &Frame) -> bool {
    frame.tag() == 'D'
}

/// The rows' bytes, in an order that does not depend on what ORDER BY leaves open.
fn sorted_rows(frames: &[Frame]) -> Vec<&[u8]> {
    let mut rows: Vec<&[u8]> = frames
        .iter()
        .filter(|frame| is_row(frame))
        .map(|frame| frame.0.as_ref())
        .collect();
    rows.sort_unstable();
    rows
}

/// What differs between PostgreSQL's frames and pgstar's: everything around the rows, the rows, their order.
async fn difference(lab: &Lab, sql: &str, direct: &[Frame], through: &[Frame]) -> Option<String> {
    let around = |frames: &[Frame]| -> Vec<Frame> {
        frames
            .iter()
            .filter(|frame| !is_row(frame))
            .cloned()
            .collect()
    };
    if around(direct) != around(through) {
        return Some(format!("{:?}\nnot {:?}", around(through), around(direct)));
    }
    if ordered_values(sql, direct) != ordered_values(sql, through) {
        return Some("the rows come in another order".to_owned());
    }
    let (wanted, got) = (sorted_rows(direct), sorted_rows(through));
    if wanted == got {
        return None;
    }
    // Which rows a LIMIT keeps of equals is PostgreSQL's choice; but all of them must be rows of the whole answer.
    if let Some(end) = sql.rfind("\nLIMIT") {
        let whole = ask(lab.database.direct().await, &sql[..end]).await;
        let mut left = sorted_rows(&whole);
        let is_chosen = got.iter().all(|row| {
            left.iter()
                .position(|other| other == row)
                .map(|at| left.remove(at))
                .is_some()
        });
        if is_chosen && got.len() == wanted.len() {
            return None;
        }
    }
    Some(format!(
        "rows {:?}\nnot  {:?}",
        table(through),
        table(direct)
    ))
}

/// The columns by which the outermost ORDER BY sorts, as far as they are shown.
fn ordered_values(sql: &str, frames: &[Frame]) -> Vec<Vec<Option<String>>> {
    let Some((_, order)) = sql.rsplit_once("\nORDER BY\n") else {
        return vec![];
    };
    let items: Vec<&str> = order
        .lines()
        .take_while(|line| line.starts_with("  "))
        .collect();
    let name = |item: &&str| {
        item.trim()
            .trim_end_matches(',')
            .trim_end_matches(" ASC")
            .trim_end_matches(" DESC")
            .trim_matches('"')
            .to_owned()
    };
    let names = column_names(frames);
    let columns: Vec<usize> = items
        .iter()
        .map(name)
        .map_while(|name| names.iter().position(|column| *column == name))
        .collect();
    table(frames)
        .into_iter()
        .map(|row| columns.iter().map(|column| row[*column].clone()).collect())
        .collect()
}

fn column_names(frames: &[Frame]) -> Vec<String> {
    let Some(description) = frames.iter().find(|frame| frame.tag() == 'T') else {
        return vec![];
    };
    // A count, then each name with its zero byte and 18 bytes of facts.
    let mut rest = &description.body()[2..];
    let mut names = vec![];
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        names.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        rest = &rest[end + 1 + 18..];
    }
    names
}

/// What became of the statements.
#[derive(Default)]
struct Report {
    differences: String,
    /// By name: the rollup, or why there was none.
    decisions: BTreeMap<&'static str, Result<String, String>>,
}

async fn compare(lab: &Lab, zone: &str, statements: &[Statement]) -> Report {
    let mut report = Report::default();
    let mut straight = lab.database.direct().await;
    let mut asking = lab.session().await;
    for session in [&mut straight, &mut asking] {
        ok(session, "SET search_path = ssb").await;
    }
    for Statement { name, sql, .. } in statements {
        ok(&mut straight, "BEGIN").await;
        let direct = straight.query(sql).await;
        ok(&mut straight, "ROLLBACK").await;
        let through = ask(lab.session().await, sql).await;
        if let Some(difference) = difference(lab, sql, &direct, &through).await {
            writeln!(
                report.differences,
                "{name} in {zone}: {difference}\n{sql}\n"
            )
            .unwrap();
        }
        report
            .decisions
            .insert(name, decided(&mut asking, sql).await);
    }
    report
}

fn is_chart(statement: &Statement) -> bool {
    LADDER.contains(&statement.step) || statement.step == "error"
}

fn coverage(statements: &[Statement], report: &Report) -> String {
    let is_answered = |statement: &&Statement| report.decisions[statement.name].is_ok();
    let charts = statements
        .iter()
        .filter(|statement| is_chart(statement))
        .count();
    let mut text = format!(
        "{:<22}{:>10}{:>10}{:>12}\n",
        "step", "statements", "answered", "cumulative"
    );
    let mut so_far = 0;
    for step in LADDER.into_iter().chain(["error", "sql-lab", "probe"]) {
        let of_step: Vec<&Statement> = statements
            .iter()
            .filter(|statement| statement.step == step)
            .collect();
        let answered = of_step.iter().copied().filter(is_answered).count();
        so_far += answered;
        let share = if LADDER.contains(&step) {
            format!("{:.1}%", 100.0 * so_far as f64 / charts as f64)
        } else {
            String::new()
        };
        writeln!(
            text,
            "{step:<22}{:>10}{answered:>10}{share:>12}",
            of_step.len()
        )
        .unwrap();
    }
    let mut by_rollup: BTreeMap<&str, usize> = BTreeMap::new();
    for rollup in report.decisions.values().flatten() {
        *by_rollup.entry(rollup).or_default() += 1;
    }
    for (rollup, count) in by_rollup {
        writeln!(text, "answered by {rollup}: {count}").unwrap();
    }
    text
}

/// The refused ones, one a line, as refused.txt has them.
fn refused(statements: &[Statement], report: &Report) -> Vec<String> {
    let line = |statement: &Statement| {
        let reason = report.decisions[statement.name].as_ref().err()?;
        let code = reason.split(": ").next().unwrap();
        Some((
            format!("{} {code}", statement.name),
            reason.clone(),
            statement.chart,
        ))
    };
    statements
        .iter()
        .filter_map(line)
        .map(|(line, reason, chart)| format!("{line}\t{chart}\t{reason}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_superset_sends_is_answered_as_postgresql_answers_it() {
    let lab = lab(&from_environment("PGSTAR_SUPERSET_LINES", "4000")).await;
    let statements = statements();
    let zones = from_environment("PGSTAR_SUPERSET_ZONES", "UTC");
    let known: Vec<&str> = REFUSED
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(' ').next())
        .collect();
    for zone in zones.split(',') {
        lab.database
            .run(&format!(
                "ALTER DATABASE {} SET TimeZone = '{zone}'",
                lab.database.name
            ))
            .await;
        let report = compare(&lab, zone, &statements).await;
        let refused = refused(&statements, &report);
        println!(
            "Time zone {zone}\n{}\n{}\n",
            coverage(&statements, &report),
            refused.join("\n")
        );
        assert!(report.differences.is_empty(), "\n{}", report.differences);
        let new: Vec<&String> = refused
            .iter()
            .filter(|line| !known.contains(&line.split(' ').next().unwrap()))
            .collect();
        // Days are not known to be whole ones in every zone, so refused.txt is about this one.
        assert!(
            zone != "UTC" || new.is_empty(),
            "no longer answered from a rollup: {new:#?}"
        );
    }
}
