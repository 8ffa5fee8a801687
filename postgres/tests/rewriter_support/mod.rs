//! Asks PostgreSQL a statement and its rewritten form, and compares names, types and bytes.

// Not every test binary needs every helper, and a panic is how a test fails.
#![allow(dead_code, unused_imports, clippy::unwrap_used)]

pub mod data;
pub mod generate;
pub mod neighbours;
pub mod ordered;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgstar_postgres::connect::{Connection, Connector};
use pgstar_rewriter::expr::BoundTime;
use pgstar_rewriter::{Match, Premise, Rollup};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Config, SimpleQueryMessage};

/// What a client sees of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Name, type and type modifier of each column.
    pub columns: Vec<(String, u32, i32)>,
    /// The types of the parameters.
    pub types: Vec<u32>,
    /// The values as text; `None` is NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

/// What PostgreSQL does with a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Answer(Answer),
    /// Refused before it was run.
    Refused(String),
    /// Failed while it was run.
    Failed(String),
}

pub async fn connect(config: Config) -> Connection {
    Connector::new(config).unwrap().connect().await.unwrap()
}

/// Settings that a client's session would have.
pub async fn enter_session(client: &Connection, search_path: &[String], time_zone: &str) {
    let path: Vec<String> = search_path
        .iter()
        .map(|schema| format!("\"{schema}\""))
        .collect();
    let sql = format!(
        "SET search_path = {}; SET TimeZone = '{time_zone}'",
        path.join(", ")
    );
    client.batch_execute(&sql).await.unwrap();
}

fn sqlstate(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} {}", error.code().code(), error.message()),
        None => panic!("the server went away: {error}"),
    }
}

/// The SQLSTATE at the beginning of a failure.
pub fn code_of(failure: &str) -> SqlState {
    SqlState::from_code(failure.split(' ').next().unwrap())
}

/// Describes and runs a statement; one with parameters is only described.
pub async fn ask(client: &Connection, sql: &str) -> Outcome {
    ask_with(client, sql, &[]).await
}

/// The same with what its parameters are bound to, as texts.
pub async fn ask_with(client: &Connection, sql: &str, parameters: &[String]) -> Outcome {
    ask_typed(client, sql, &[], parameters).await
}

/// The same with times that are bound to all parameters.
pub async fn ask_bound(client: &Connection, sql: &str, bound: &[Option<BoundTime>]) -> Outcome {
    let times = || bound.iter().flatten();
    let types = times().map(|time| Type::from_oid(time.oid).unwrap_or(Type::UNKNOWN));
    let types: Vec<Type> = types.collect();
    let texts: Vec<String> = times().map(|time| time.text.clone()).collect();
    ask_typed(client, sql, &types, &texts).await
}

async fn ask_typed(
    client: &Connection,
    sql: &str,
    declared: &[Type],
    parameters: &[String],
) -> Outcome {
    let statement = match client.prepare_typed(sql, declared).await {
        Ok(statement) => statement,
        Err(error) => return Outcome::Refused(sqlstate(&error)),
    };
    let columns = statement
        .columns()
        .iter()
        .map(|column| {
            (
                column.name().to_owned(),
                column.type_().oid(),
                column.type_modifier(),
            )
        })
        .collect();
    let types = statement.params().iter().map(|ty| ty.oid()).collect();
    if statement.params().len() != parameters.len() {
        // Only the description can be compared without values.
        return Outcome::Answer(Answer {
            columns,
            types,
            rows: vec![],
        });
    }
    let answer = match parameters {
        [] => client.simple_query(sql).await,
        parameters => executed(client, sql, declared, parameters).await,
    };
    match answer {
        Ok(messages) => Outcome::Answer(Answer {
            columns,
            types,
            rows: messages.iter().filter_map(row).collect(),
        }),
        Err(error) => Outcome::Failed(sqlstate(&error)),
    }
}

static PREPARED: AtomicUsize = AtomicUsize::new(0);

/// Prepared and executed with these values. What cannot be read as the parameter's type fails, as when it is bound.
async fn executed(
    client: &Connection,
    sql: &str,
    declared: &[Type],
    parameters: &[String],
) -> Result<Vec<SimpleQueryMessage>, tokio_postgres::Error> {
    let values = parameters.iter().map(|value| format!("'{value}'"));
    let values = values.collect::<Vec<_>>().join(", ");
    // An error may end the transaction, in which the name could not be given back.
    let name = format!("asked_{}", PREPARED.fetch_add(1, Ordering::Relaxed));
    let types: Vec<&str> = declared.iter().map(Type::name).collect();
    let types = match types.is_empty() {
        true => String::new(),
        false => format!(" ({})", types.join(", ")),
    };
    client
        .batch_execute(&format!("PREPARE {name}{types} AS {sql}"))
        .await?;
    client
        .simple_query(&format!("EXECUTE {name} ({values})"))
        .await
}

fn row(message: &SimpleQueryMessage) -> Option<Vec<Option<String>>> {
    match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|column| row.get(column).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    }
}

/// What is compared beside the columns: rows in any order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rows {
    /// Which ones is PostgreSQL's choice: as many.
    pub have_choice: bool,
    /// Floating-point numbers are nearly the same.
    pub are_approximate: bool,
}

/// What differs, or nothing.
pub fn difference(original: &Outcome, rewritten: &Outcome, rows: Rows) -> Option<String> {
    let (original, rewritten) = match (original, rewritten) {
        (Outcome::Answer(original), Outcome::Answer(rewritten)) => (original, rewritten),
        // A statement that PostgreSQL refuses is never rewritten: that is asked first.
        (Outcome::Refused(_), _) => return None,
        (Outcome::Failed(original), Outcome::Failed(rewritten))
            if code_of(original) == code_of(rewritten) =>
        {
            return None;
        }
        // PostgreSQL keeps the squares of numbers that it averages, too, and some overflow where their sum does not.
        (Outcome::Failed(original), Outcome::Answer(_))
            if rows.are_approximate
                && code_of(original) == SqlState::NUMERIC_VALUE_OUT_OF_RANGE =>
        {
            return None;
        }
        (original, rewritten) => {
            return Some(format!("original {original:?}\nrewritten {rewritten:?}"));
        }
    };
    if original.columns != rewritten.columns {
        return Some(format!(
            "columns {:?}\n     not {:?}",
            rewritten.columns, original.columns
        ));
    }
    let (expected, found) = (original.rows.len(), rewritten.rows.len());
    if rows.have_choice {
        return (expected != found).then(|| format!("{found} rows, not {expected}"));
    }
    if !rows.are_approximate {
        return different_sets(&original.rows, &rewritten.rows);
    }
    let columns = original.columns.iter();
    let digits: Vec<Option<f64>> = columns.map(|(_, ty, _)| tolerance(*ty)).collect();
    let settled = nearest(&original.rows, &rewritten.rows, &digits);
    different_sets(&original.rows, &settled)
}

/// How far two sums of one set of floating-point numbers may be apart, as a part of them: numbers of single precision
/// that were computed with further are of any type.
fn tolerance(type_oid: u32) -> Option<f64> {
    let may_be_of_them = matches!(type_oid, 700 | 701 | 25 | 1043);
    may_be_of_them.then_some(1e-4)
}

/// The rewritten rows, each replaced by an original row that it is nearly the same as, if there is one left.
fn nearest(original: &[Row], rewritten: &[Row], tolerances: &[Option<f64>]) -> Vec<Row> {
    let is_near = |mine: &Row, theirs: &Row| {
        let values = mine.iter().zip(theirs).zip(tolerances);
        values.into_iter().all(|((mine, theirs), tolerance)| {
            mine == theirs || are_near(mine.as_deref(), theirs.as_deref(), *tolerance)
        })
    };
    let mut left = original.to_vec();
    let settle = |row: &Row| match left.iter().position(|other| is_near(row, other)) {
        Some(position) => left.swap_remove(position),
        None => row.clone(),
    };
    rewritten.iter().map(settle).collect()
}

/// The deviation of numbers that are alike is nothing, or what rounding leaves of it: less than this of anything else.
const NOISE: f64 = 1e-9;

fn are_near(mine: Option<&str>, theirs: Option<&str>, tolerance: Option<f64>) -> bool {
    let number = |text: Option<&str>| text?.parse::<f64>().ok();
    match (number(mine), number(theirs), tolerance) {
        (Some(mine), Some(theirs), Some(tolerance)) => {
            (mine - theirs).abs() <= tolerance * mine.abs().max(theirs.abs()).max(NOISE)
        }
        _ => false,
    }
}

/// Whether the proof says that digits may differ.
pub fn is_approximate(found: &Match) -> bool {
    let mut steps = found.proof.iter();
    steps.any(|step| step.rule.starts_with("approximate"))
}

/// What is compared of a rewritten statement's rows, which are exact unless its proof says otherwise.
pub fn rows_of(found: &Match, has_limit: bool) -> Rows {
    Rows {
        have_choice: has_limit,
        are_approximate: is_approximate(found),
    }
}

type Row = Vec<Option<String>>;

fn different_sets(original: &[Row], rewritten: &[Row]) -> Option<String> {
    let (mut left, mut right) = (original.to_vec(), rewritten.to_vec());
    left.sort();
    right.sort();
    if left == right {
        return None;
    }
    let mut text = String::new();
    for (sign, mine, theirs) in [('-', &left, &right), ('+', &right, &left)] {
        for row in mine.iter().filter(|row| !theirs.contains(row)).take(5) {
            writeln!(text, "{sign} {row:?}").unwrap();
        }
    }
    Some(format!(
        "{} rows, original has {}\n{text}",
        right.len(),
        left.len()
    ))
}

/// Whether the columns from `first` on hold the same values in the same order.
pub fn different_order(original: &Outcome, rewritten: &Outcome, first: usize) -> Option<String> {
    let (Outcome::Answer(original), Outcome::Answer(rewritten)) = (original, rewritten) else {
        return None;
    };
    let keys = |answer: &Answer| -> Vec<Row> {
        answer
            .rows
            .iter()
            .map(|row| row[first..].iter().map(without_trailing_zeros).collect())
            .collect()
    };
    let (left, right) = (keys(original), keys(rewritten));
    let position = left
        .iter()
        .zip(&right)
        .position(|(left, right)| left != right);
    position.map(|position| {
        format!(
            "row {position} is ordered by {:?}, not {:?}",
            right[position], left[position]
        )
    })
}

/// 1.5 and 1.50 are equal, so either may come first.
fn without_trailing_zeros(value: &Option<String>) -> Option<String> {
    let text = value.as_ref()?;
    let is_decimal = text.contains('.')
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || b"-.".contains(&b));
    Some(if is_decimal {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text.clone()
    })
}

/// Whether the server's clocks are as the match needs them in a session of this zone.
pub async fn premises_hold(client: &Connection, found: &Match) -> bool {
    for premise in &found.premises {
        if !premise_holds(client, premise).await {
            return false;
        }
    }
    true
}

/// Asked in the session as it is, whose names hide nothing.
async fn premise_holds(client: &Connection, premise: &Premise) -> bool {
    let row = client.query_one(premise.sql(), &[]).await;
    row.unwrap_or_else(|error| panic!("{} in\n{}", sqlstate(&error), premise.sql()))
        .get(0)
}

/// Builds each rollup's table.
pub async fn build_rollups(client: &Connection, rollups: &[Rollup]) {
    let drop = "DROP SCHEMA IF EXISTS pgstar CASCADE; CREATE SCHEMA pgstar";
    client.batch_execute(drop).await.unwrap();
    for rollup in rollups {
        let name = pgstar_rewriter::quote_qualified(&rollup.schema, &rollup.table);
        let sql = format!("CREATE TABLE {name} AS {}", rollup.definition.build_select);
        if let Err(error) = client.batch_execute(&sql).await {
            panic!("{} in\n{sql}", sqlstate(&error));
        }
    }
}
