//! The decisions on every case, exactly as their files say.
//!
//! `UPDATE_CASES=1 cargo test -p pgstar-rewriter --test cases` writes what happens now into the
//! files. Whether a decision gives PostgreSQL's own answer is tested in the postgres crate.
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

#[allow(dead_code)] // Not every test binary needs every helper.
mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use harness::{CaseFile, Kind, case_files, ddl, difference, schema_sql};
use pgstar_rewriter::catalog::Catalog;
use pgstar_rewriter::{Code, Context, decide};

/// Codes that are said around the rewriter, by who knows the session or the server.
const SAID_ELSEWHERE: &[Code] = &[
    Code::NotBuilt,
    Code::FreshnessUnproven,
    Code::InvalidFreshness,
    Code::RewriteOff,
    Code::NotAReader,
    Code::WriteTransaction,
    Code::Isolation,
    Code::TemporaryObjects,
    Code::OtherDatabase,
    Code::DescribeMismatch,
    Code::StatementRefused,
    Code::RollupBehind,
    Code::RewriteFailed,
    Code::BaseCheaper,
    Code::CatalogUnavailable,
    // In tests of their own below: a file of cases always has rollups, and no line of 64 kB.
    Code::NoRollups,
    Code::StatementTooLarge,
];

fn catalog(schema: &str) -> Catalog {
    ddl::catalog(&schema_sql(schema))
}

fn check(file: &CaseFile, failures: &mut String) {
    let catalog = catalog(&file.schema);
    let rollups = file.rollups(&catalog);
    let outcomes: Vec<(Kind, String)> = file
        .entries()
        .map(|entry| entry.outcome(&catalog, &rollups))
        .collect();
    for (entry, (kind, _)) in file.entries().zip(&outcomes) {
        if entry.kind != *kind {
            let place = file.path.file_name().unwrap().to_string_lossy();
            let (wanted, got) = (entry.kind.keyword(), kind.keyword());
            writeln!(
                failures,
                "{place}: {} should be {wanted}, not {got}",
                entry.name
            )
            .unwrap();
        }
    }
    if std::env::var_os("UPDATE_CASES").is_some() {
        let expected: Vec<String> = outcomes.into_iter().map(|(_, text)| text).collect();
        // Other tests read the files at the same time: a rename shows them one version or the other.
        let written = file.path.with_extension("written");
        std::fs::write(&written, file.with_expectations(&expected)).unwrap();
        std::fs::rename(&written, &file.path).unwrap();
        return;
    }
    for (entry, (_, actual)) in file.entries().zip(&outcomes) {
        if entry.expected != *actual {
            let place = file.path.file_name().unwrap().to_string_lossy();
            let difference = difference(&entry.expected, actual);
            writeln!(
                failures,
                "{place}: {}\n{}\n{difference}",
                entry.name, entry.sql
            )
            .unwrap();
        }
    }
}

#[test]
fn every_case_is_decided_as_its_file_says() {
    let mut failures = String::new();
    for file in case_files() {
        check(&file, &mut failures);
    }
    assert!(failures.is_empty(), "\n{failures}");
}

#[test]
fn names_of_cases_are_unique() {
    let mut seen = BTreeSet::new();
    for file in case_files() {
        for entry in file.entries() {
            assert!(
                seen.insert(entry.name.clone()),
                "{} occurs twice",
                entry.name
            );
        }
    }
}

#[test]
fn there_are_at_least_as_many_refusals_as_rewrites() {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for file in case_files() {
        for entry in file.entries() {
            *count.entry(entry.kind.keyword()).or_default() += 1;
        }
    }
    assert!(
        count["passthrough"] + count["norollup"] >= count["rewrite"],
        "{count:?}"
    );
}

#[test]
fn every_code_of_the_rewriter_has_a_case() {
    let expectations: Vec<String> = case_files()
        .iter()
        .flat_map(|file| {
            file.entries()
                .map(|entry| entry.expected.clone())
                .collect::<Vec<_>>()
        })
        .collect();
    let has_case = |code: &Code| {
        expectations
            .iter()
            .flat_map(|text| text.lines())
            .any(|line| line.split(": ").take(2).any(|word| word == code.as_str()))
    };
    let without: Vec<&str> = Code::ALL
        .iter()
        .filter(|code| !SAID_ELSEWHERE.contains(code) && !has_case(code))
        .map(|code| code.as_str())
        .collect();
    assert!(without.is_empty(), "no case for {without:?}");
}

/// The numbers behind "trap" or "traps" in a case's comment.
fn traps_named(comment: &str) -> Vec<usize> {
    let mut numbers = vec![];
    let mut is_list = false;
    for word in comment.split(|c: char| c.is_whitespace() || "(),.:".contains(c)) {
        match word.parse() {
            Ok(number) if is_list => numbers.push(number),
            _ => {
                is_list = matches!(word, "trap" | "traps" | "Trap" | "Traps")
                    || is_list && matches!(word, "and" | "")
            }
        }
    }
    numbers
}

#[test]
fn every_trap_is_held_by_a_case_or_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = std::fs::read_to_string(root.join("docs/traps.md")).unwrap();
    let comments: BTreeMap<String, String> = case_files()
        .iter()
        .flat_map(|file| file.entries())
        .map(|entry| (entry.name.clone(), entry.comment.clone()))
        .collect();
    let mut wanted = 1..;
    for row in document.lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, number, _, held, _] = cells[..] else {
            continue;
        };
        let Ok(number) = number.parse::<usize>() else {
            continue;
        };
        assert_eq!(Some(number), wanted.next());
        let holders: Vec<&str> = held.split('`').skip(1).step_by(2).collect();
        assert!(!holders.is_empty(), "nothing holds trap {number}");
        for holder in holders {
            match comments.get(holder) {
                Some(comment) => assert!(
                    traps_named(comment).contains(&number),
                    "{holder} does not name trap {number}"
                ),
                None => assert!(
                    root.join(holder).is_file(),
                    "{holder} is neither a case nor a file"
                ),
            }
        }
    }
    assert_eq!(wanted.next(), Some(91));
}

#[test]
fn every_rollup_answers_its_own_defining_query() {
    for file in case_files() {
        let catalog = catalog(&file.schema);
        let rollups = file.rollups(&catalog);
        for (position, (name, sql)) in file.rollup_definitions().enumerate() {
            let decision = decide(
                sql,
                Context {
                    catalog: &catalog,
                    rollups: &rollups,
                    search_path: &harness::default_search_path(),
                    time_zone: "UTC",
                    bound: &[],
                },
            );
            let answers = decision
                .matches
                .iter()
                .any(|found| found.rollups == [position]);
            assert!(
                answers,
                "{name} of {}: {:?}",
                file.path.display(),
                decision.reasons
            );
        }
    }
}

fn code_without_rollups(sql: &str) -> Code {
    let catalog = Catalog::default();
    let path = harness::default_search_path();
    let decision = decide(
        sql,
        Context {
            catalog: &catalog,
            rollups: &[],
            search_path: &path,
            time_zone: "UTC",
            bound: &[],
        },
    );
    decision.reasons[0].code
}

#[test]
fn long_statements_are_refused_before_they_are_read() {
    let long = format!("SELECT count(*) FROM t WHERE a = '{}'", "x".repeat(70_000));
    assert_eq!(code_without_rollups(&long), Code::StatementTooLarge);
}

#[test]
fn without_rollups_the_reason_is_that() {
    let catalog = catalog("ssb");
    let path = harness::default_search_path();
    let decision = decide(
        "SELECT count(*) FROM lineorder",
        Context {
            catalog: &catalog,
            rollups: &[],
            search_path: &path,
            time_zone: "UTC",
            bound: &[],
        },
    );
    let codes: Vec<Code> = decision.reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(codes, [Code::NoRollups]);
    assert!(decision.is_plain_select);
}
