//! What Apache Superset was seen to send, through pgstar and straight to PostgreSQL: every answer is the same, byte for
//! byte, and at least so many come from rollups. The statements, their data and the rollups are in loadtest/superset.
//!
//! `make superset-corpus` runs it over more rows and in more time zones, and prints what was answered by what.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use e2e_support::corpus::{self, decided, difference, from_environment, paragraphs};
use e2e_support::{Client, Database, Frame, Lab, explain, ok, rollup_toml};

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

async fn lab(lines: &str) -> Lab {
    let database = Database::with(SCHEMA).await;
    database
        .run(&format!("SET corpus.lines = {lines}; {DATA}"))
        .await;
    // Sums of floating-point numbers depend on the order of their rows: of a parallel plan, on who was first.
    database
        .run(&format!(
            "ALTER DATABASE {name} SET max_parallel_workers_per_gather = 0;
             ALTER DATABASE {name} SET synchronize_seqscans = off",
            name = database.name
        ))
        .await;
    corpus::lab(&database, "superset/pgstar.toml", CONFIG).await
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
    ok(&mut asking, "SET search_path = ssb").await;
    for Statement { name, sql, .. } in statements {
        // As Superset does, and so that an error takes back and reports the same settings.
        ok(&mut straight, "BEGIN").await;
        ok(&mut straight, "SET search_path = ssb").await;
        let direct = straight.query(sql).await;
        ok(&mut straight, "ROLLBACK").await;
        let through = ask(lab.session().await, sql).await;
        if let Some(difference) = difference(&mut straight, sql, &direct, &through).await {
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
        let new = corpus::unlisted(&refused, REFUSED);
        assert!(
            new.is_empty(),
            "no longer answered from a rollup in {zone}: {new:#?}"
        );
    }
}

/// As an operator would who reads why a chart is slow: what EXPLAIN proposes is declared, and the chart is answered from it.
#[tokio::test(flavor = "multi_thread")]
async fn rollups_that_are_proposed_answer_what_they_are_proposed_for() {
    let database = Database::with(SCHEMA).await;
    database
        .run(&format!("SET corpus.lines = 2000; {DATA}"))
        .await;
    let every: usize = from_environment("PGSTAR_SUPERSET_EVERY", "9")
        .parse()
        .unwrap();
    let statements = statements().into_iter().filter(is_chart).step_by(every);
    let without = Lab::start(&database, "", &[]).await;
    let mut asking = without.session().await;
    ok(&mut asking, "SET search_path = ssb").await;
    let (mut proposed, mut none) = (vec![], vec![]);
    for statement in statements {
        // Waits where the catalog was looked at late.
        assert!(decided(&mut asking, &statement.sql).await.is_err());
        let explained = explain(&mut asking, &statement.sql).await;
        match explained["proposal"].as_str() {
            Some(proposal) => proposed.push((statement, proposal.to_owned())),
            None => none.push(format!("{}: {}", statement.name, explained["reasons"])),
        }
    }
    println!("{} proposed; none for {none:#?}", proposed.len());
    assert!(proposed.len() > 6 * none.len(), "{none:#?}");
    drop(without);
    let rollups = proposed.iter().enumerate();
    let rollups = rollups.map(|(number, (_, sql))| rollup_toml(&format!("proposed_{number}"), sql));
    let more = format!("[cache]\nmemory = \"0B\"\n{}", rollups.collect::<String>());
    let lab = Lab::start(&database, &more, &[]).await;
    let mut straight = lab.database.direct().await;
    let mut through = lab.session().await;
    for session in [&mut straight, &mut through] {
        ok(session, "SET search_path = ssb").await;
    }
    for (Statement { name, sql, .. }, proposal) in &proposed {
        let decided = decided(&mut through, sql).await;
        assert!(decided.is_ok(), "{name}: {decided:?}\n{sql}\n{proposal}");
        let (direct, answer) = (straight.query(sql).await, through.query(sql).await);
        let difference = difference(&mut straight, sql, &direct, &answer).await;
        assert_eq!(difference, None, "{name}: {sql}\n{proposal}");
    }
}
