//! What pgstar's parser reads and what its printer writes, read by PostgreSQL's own parser (libpg_query).
//!
//! Two texts mean the same to PostgreSQL when its parser makes the same tree of both; a tree is compared as the text that
//! libpg_query writes for it, which has neither comments nor spelling nor superfluous parentheses left.
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

#[allow(dead_code)] // Not every test binary needs every helper.
#[path = "../../rewriter/tests/harness/mod.rs"]
mod harness;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use harness::{case_files, ddl, schema_sql};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

const SUPERSET: &str = include_str!("../../loadtest/superset/statements.sql");
const DATASETS: &str = include_str!("../../loadtest/superset/datasets.sql");
const TPCH: &str = include_str!("../../loadtest/tpch/queries.sql");

/// PostgreSQL's reading of a statement.
fn postgresql(sql: &str) -> Result<String, String> {
    let parsed = pg_query::parse(sql, pg_query::ParserOptions::DEFAULT).map_err(|error| error.to_string())?;
    parsed.deparse(pg_query::DeparseOptions::default()).map_err(|error| error.to_string())
}

/// PostgreSQL's reading of what pgstar's parser read.
fn through_pgstar(sql: &str) -> Result<String, String> {
    let parsed =
        Parser::parse_sql(&PostgreSqlDialect {}, sql).map_err(|error| error.to_string())?;
    let printed: Vec<String> = parsed.iter().map(ToString::to_string).collect();
    postgresql(&printed.join("; "))
}

#[derive(Default)]
struct Readings {
    compared: usize,
    differences: String,
}

impl Readings {
    fn compare(&mut self, name: &str, sql: &str) {
        self.compared += 1;
        let (direct, through) = (postgresql(sql), through_pgstar(sql));
        if direct.is_err() || direct != through {
            writeln!(
                self.differences,
                "{name}\n{sql}\n  PostgreSQL reads {direct:?}\n  pgstar reads     {through:?}\n"
            )
            .unwrap();
        }
    }

    fn check(self, at_least: usize) {
        assert!(self.differences.is_empty(), "\n{}", self.differences);
        assert!(
            self.compared >= at_least,
            "only {} statements",
            self.compared
        );
    }
}

#[test]
fn originals_that_are_rewritten_are_read_as_postgresql_reads_them() {
    let mut readings = Readings::default();
    for file in case_files() {
        let catalog = ddl::catalog(&schema_sql(&file.schema));
        let rollups = file.rollups(&catalog);
        for entry in file.entries() {
            if !entry.decide(&catalog, &rollups).matches.is_empty() {
                readings.compare(&entry.name, &entry.sql);
            }
        }
        for (name, sql) in file.rollup_definitions() {
            readings.compare(name, sql);
        }
    }
    readings.check(150);
}

#[test]
fn rewritten_statements_are_written_as_postgresql_reads_them() {
    let mut readings = Readings::default();
    for file in case_files() {
        let catalog = ddl::catalog(&schema_sql(&file.schema));
        let rollups = file.rollups(&catalog);
        for rollup in &rollups {
            readings.compare(&rollup.definition.name, &rollup.definition.build_select);
        }
        for entry in file.entries() {
            for found in entry.decide(&catalog, &rollups).matches {
                readings.compare(&entry.name, &found.sql);
            }
        }
    }
    readings.check(150);
}

/// Paragraphs that begin with a line `-- title`.
fn paragraphs(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    text.split("\n\n").skip(1).map(|paragraph| {
        let (title, rest) = paragraph.split_once('\n').unwrap();
        (title.strip_prefix("-- ").unwrap(), rest.trim_end())
    })
}

#[test]
fn statements_of_superset_and_tpch_are_read_as_postgresql_reads_them() {
    let datasets: BTreeMap<&str, &str> = paragraphs(DATASETS).collect();
    let mut readings = Readings::default();
    for (title, sql) in paragraphs(SUPERSET).chain(paragraphs(TPCH)) {
        let with_datasets = datasets.iter().fold(sql.to_owned(), |sql, (name, text)| {
            sql.replace(&format!("{{{name}}}"), text)
        });
        readings.compare(title, &with_datasets);
    }
    readings.check(150);
}
