//! What the tests of whole corpora share: files of statements, and an answer through pgstar held to PostgreSQL's own.
//!
//! It must not know what the statements are about.

use std::path::Path;
use std::time::{Duration, Instant};

use pgstar::config::Config;

use super::{Client, Database, Frame, Lab, PATIENCE, explain, table};

/// Paragraphs that begin with a line `-- title`.
pub fn paragraphs(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    // The first one says what the file is.
    text.split("\n\n").skip(1).map(|paragraph| {
        let (title, rest) = paragraph.split_once('\n').unwrap();
        (title.strip_prefix("-- ").unwrap(), rest.trim_end())
    })
}

pub fn from_environment(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// pgstar before this database with the rollups of a configuration file, and without a cache: each statement is to be
/// answered anew.
pub async fn lab(database: &Database, file: &str, text: &str) -> Lab {
    let mut config =
        Config::from_text(Path::new(file), text).unwrap_or_else(|problems| panic!("{problems}"));
    let own = database.config("[cache]\nmemory = \"0B\"\n", &[]);
    config.listen = own.listen;
    config.upstream = own.upstream;
    config.admin = own.admin;
    config.cache = own.cache;
    Lab::with_config(database, &config).await
}

/// Those of a list of refused statements, one a line with its reason, that it does not have.
pub fn unlisted<'a>(refused: &'a [String], list: &str) -> Vec<&'a String> {
    let name = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let known: Vec<String> = list.lines().map(name).collect();
    refused
        .iter()
        .filter(|line| !known.contains(&name(line)))
        .collect()
}

/// What pgstar decides of it: the rollup, or the first reason.
pub async fn decided(session: &mut Client, sql: &str) -> Result<String, String> {
    let began = Instant::now();
    loop {
        let decided = decided_now(session, sql).await;
        // On a busy machine the catalog is looked at late now and then.
        let is_passing = |reason: &String| reason.starts_with("catalog-unavailable");
        if !decided.as_ref().is_err_and(is_passing) || began.elapsed() > PATIENCE {
            return decided;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn decided_now(session: &mut Client, sql: &str) -> Result<String, String> {
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
pub async fn difference(
    straight: &mut Client,
    sql: &str,
    direct: &[Frame],
    through: &[Frame],
) -> Option<String> {
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
    if let Some(end) = sql.to_lowercase().rfind("\nlimit") {
        let whole = straight.query(&sql[..end]).await;
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

/// The columns by which the outermost ORDER BY sorts, as far as they are shown by their names.
fn ordered_values(sql: &str, frames: &[Frame]) -> Vec<Vec<Option<String>>> {
    let lower = sql.to_lowercase();
    let Some((_, order)) = lower.rsplit_once("\norder by") else {
        return vec![];
    };
    let order = order.split("\nlimit").next().unwrap_or_default();
    let name = |item: &str| {
        let item = item
            .trim()
            .trim_end_matches(" asc")
            .trim_end_matches(" desc");
        item.trim_matches('"').to_owned()
    };
    let names = column_names(frames);
    let columns: Vec<usize> = order
        .split(',')
        .map(name)
        .map_while(|name| {
            names
                .iter()
                .position(|column| column.to_lowercase() == name)
        })
        .collect();
    let keys =
        |row: Vec<Option<String>>| columns.iter().map(|column| row[*column].clone()).collect();
    table(frames).into_iter().map(keys).collect()
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
