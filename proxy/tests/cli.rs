//! The built binary: exit codes and what it prints for bad command lines and bad files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::{Command, Output};

fn pgstar(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgstar"))
        .args(arguments)
        .env_remove("PGSTAR_LOG")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A file in a directory that goes away with the first value.
fn config_file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pgstar.toml");
    std::fs::write(&file, text).unwrap();
    (directory, file)
}

#[test]
fn a_bad_file_exits_with_64_and_tells_every_problem_on_standard_error() {
    let (_directory, file) = config_file("[listen]\nadress = 1\n[freshness]\ndefault = \"soon\"\n");
    let file = file.to_str().unwrap();
    let commands: [&[&str]; 6] = [
        &["serve"],
        &["check"],
        &["explain", "SELECT 1"],
        &["rollup", "list"],
        &["rollup", "rebuild", "by_month"],
        &["rollup", "drop", "by_month"],
    ];
    for command in commands {
        let output = pgstar(&[command, &["--config", file]].concat());
        assert_eq!(output.status.code(), Some(64), "{command:?}");
        let expected = [
            format!("{file}:1:1: missing key \"url\" in [upstream]"),
            format!("{file}:2:1: unknown key \"adress\" in [listen]"),
            "HINT:  Did you mean \"address\"?".to_owned(),
            format!("{file}:4:11: invalid freshness \"soon\" for [freshness] default"),
        ];
        let told = stderr(&output);
        for line in expected {
            assert!(
                told.lines().any(|told| told == line),
                "{command:?}: {line}\n{told}"
            );
        }
        assert_eq!(stdout(&output), "", "{command:?}");
    }
}

#[test]
fn a_file_that_is_not_there_exits_with_64() {
    let output = pgstar(&["check", "--config", "/nonexistent/pgstar.toml"]);
    assert_eq!(output.status.code(), Some(64));
    let told = stderr(&output);
    assert!(
        told.starts_with("/nonexistent/pgstar.toml: cannot read the configuration file:"),
        "{told}"
    );
}

#[test]
fn a_bad_command_line_exits_with_64() {
    let lines: [&[&str]; 9] = [
        &[],
        &["serv"],
        &["serve", "--port", "1"],
        &["serve", "extra"],
        &["explain"],
        &["rollup"],
        &["rollup", "rebuild"],
        &["demo", "--scale", "0"],
        &["demo", "--scale", "many"],
    ];
    for line in lines {
        let output = pgstar(line);
        assert_eq!(output.status.code(), Some(64), "{line:?}");
        assert!(
            stderr(&output).contains("Usage: pgstar") || stderr(&output).contains("'--help'"),
            "{line:?}"
        );
        assert_eq!(stdout(&output), "", "{line:?}");
    }
}

#[test]
fn help_and_version_are_no_failures() {
    let lines: [(&[&str], &str); 9] = [
        (&["--version"], "pgstar 0."),
        (&["--help"], "Exit codes: 0 done; 64"),
        (&["-h"], "Exit codes: 0 done; 64"),
        (&["serve", "--help"], "pgstar serve --config pgstar.toml"),
        (&["check", "--help"], "Exits with\n64 when the file is bad"),
        (&["explain", "--help"], "pgstar explain --json"),
        (
            &["rollup", "--help"],
            "pgstar rollup rebuild revenue_by_month",
        ),
        (
            &["rollup", "rebuild", "--help"],
            "Usage: pgstar rollup rebuild",
        ),
        (&["demo", "--help"], "pgstar demo --scale 1 --json out.json"),
    ];
    for (line, shown) in lines {
        let output = pgstar(line);
        assert_eq!(output.status.code(), Some(0), "{line:?}");
        assert!(
            stdout(&output).contains(shown),
            "{line:?}\n{}",
            stdout(&output)
        );
    }
}

#[test]
fn a_bad_log_filter_exits_with_64() {
    let output = Command::new(env!("CARGO_BIN_EXE_pgstar"))
        .args(["check", "--config", "/nonexistent/pgstar.toml"])
        .env("PGSTAR_LOG", "pgstar=loud")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let told = stderr(&output);
    assert!(told.starts_with("pgstar: invalid PGSTAR_LOG: "), "{told}");
}
