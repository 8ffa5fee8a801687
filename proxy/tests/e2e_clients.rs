//! The programs and drivers that people use, through pgstar as they come: psql, pgbench, psycopg 3, psycopg2
//! and SQLAlchemy. What they print is what they print on a direct connection.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e_support::process::{Ran, run};
use e2e_support::{ANY, Database, EXAMPLE, Lab, PATIENCE, ok, rows, server, table, until_decision};
use pgstar::config::Config;
use pgstar_loadtest::ssb::QUERIES;
use tokio::sync::OnceCell;

/// pgstar before the Star Schema Benchmark, with the example's rollups or without any.
async fn lab(with_rollups: bool) -> Lab {
    static BUILT: OnceCell<()> = OnceCell::const_new();
    let database = Database::ssb().await;
    let mut config = Config::from_text(Path::new("pgstar.toml"), EXAMPLE).unwrap();
    let own = database.config(ANY, &[]);
    (
        config.upstream,
        config.listen,
        config.admin,
        config.freshness,
    ) = (own.upstream, own.listen, own.admin, own.freshness);
    BUILT
        .get_or_init(|| async { drop(Lab::with_config(database, &config).await) })
        .await;
    if !with_rollups {
        config.rollups.clear();
    }
    Lab::with_config(database, &config).await
}

/// A program of PostgreSQL's, or its wrapper on PATH.
async fn program(name: &str) -> PathBuf {
    let beside = server().await.bin_dir().join(name);
    if beside.exists() {
        beside
    } else {
        PathBuf::from(name)
    }
}

fn url(port: u16, database: &str) -> String {
    format!("postgresql://postgres@127.0.0.1:{port}/{database}")
}

// ---- psql ----

async fn psql(port: u16, database: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(program("psql").await);
    command
        .arg("--no-psqlrc")
        .arg(url(port, database))
        .args(arguments);
    command.env("PGAPPNAME", "e2e").env("LC_ALL", "C.UTF-8");
    run(command).await
}

/// psql's whole output, which must be the same on both sides.
async fn psql_same(lab: &Lab, arguments: &[&str]) -> String {
    let direct = psql(lab.database.port, &lab.database.name, arguments).await;
    let through = psql(lab.port(), &lab.database.name, arguments).await;
    let sorted = |ran: &Ran| {
        let mut lines: Vec<String> = ran.out.lines().map(str::to_owned).collect();
        lines.sort();
        (ran.code, lines, ran.err.clone())
    };
    assert_eq!(sorted(&direct), sorted(&through), "{arguments:?}");
    through.out
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_looks_around_and_asks() {
    let lab = lab(true).await;
    for sql in [
        "\\d",
        "\\d+ lineorder",
        "\\d date",
        "\\dt+",
        "\\l",
        "\\du",
        "\\dn",
        "\\df sum",
        "\\encoding",
    ] {
        psql_same(&lab, &["-c", sql]).await;
    }
    for query in &QUERIES {
        let out = psql_same(&lab, &["-c", query.sql]).await;
        assert!(out.contains("row"), "{out}");
        psql_same(&lab, &["-At", "-c", query.sql]).await;
    }
    // \gdesc describes, \bind sends parameters (from 16 on), \gset takes the answer apart.
    psql_same(&lab, &["-c", "SELECT d_year, sum(lo_revenue) FROM lineorder, date WHERE lo_orderdate = d_datekey GROUP BY 1 \\gdesc"]).await;
    let explained = psql(
        lab.port(),
        &lab.database.name,
        &["-c", &format!("EXPLAIN (PGSTAR) {}", QUERIES[0].sql)],
    )
    .await;
    assert!(
        explained.out.contains("QUERY PLAN")
            && explained.out.contains("ssb_discount_quantity_week"),
        "{explained:?}"
    );
    let shown = psql(
        lab.port(),
        &lab.database.name,
        &["-c", "SHOW pgstar.rollups"],
    )
    .await;
    assert!(shown.out.contains("(7 rows)"), "{shown:?}");
    let unknown = psql(lab.port(), &lab.database.name, &["-c", "SHOW pgstar.x"]).await;
    assert!(
        unknown.code == Some(1) && unknown.err.contains("HINT:"),
        "{unknown:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_runs_files_of_many_statements() {
    let lab = lab(true).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("script.sql");
    let queries: String = QUERIES
        .iter()
        .map(|query| format!("{}\n", query.sql))
        .collect();
    let script = format!(
        "\\set ON_ERROR_STOP 0\nBEGIN;\n{queries}\nSELECT 1/0;\n{queries}\nROLLBACK;\n
         SET TimeZone = 'Asia/Tokyo'; {queries}
         SELECT sum(lo_revenue) AS r FROM lineorder, date WHERE lo_orderdate = d_datekey AND d_year = 1993 \\gset\n
         \\echo :r\n
         SELECT d_year, sum(lo_revenue) FROM lineorder, date WHERE lo_orderdate = d_datekey GROUP BY d_year\\; SELECT 2;
         \\copy (SELECT 1, 'a') TO STDOUT\n
         CREATE TEMP TABLE t (a int);\n\\copy t FROM STDIN\n1\n2\n\\.\nSELECT sum(a) FROM t;\n"
    );
    std::fs::write(&file, script).unwrap();
    let file = file.to_str().unwrap();
    psql_same(&lab, &["-f", file]).await;
    psql_same(&lab, &["-1", "-f", file]).await;
    psql_same(&lab, &["-v", "FETCH_COUNT=2", "-f", file]).await;
    psql_same(&lab, &["-c", "SELECT 1; SELECT 2", "-c", QUERIES[1].sql]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_shows_the_line_of_an_error() {
    let lab = lab(true).await;
    for sql in [
        "SELECT d_year,\n  sum(lo_revenu)\nFROM lineorder, date\nGROUP BY d_year",
        "SELECT sum(lo_revenue) FROM lineorder WHERE WHERE",
        "SELECT sum(lo_revenue) FROM lineorder @@@ date",
        "SELECT d_year, sum(lo_revenue) FROM lineorder JOIN date ON TRUE GROUP BY d_yearmonth",
        "SELECT 'open",
    ] {
        let direct = psql(lab.database.port, &lab.database.name, &["-c", sql]).await;
        let through = psql(lab.port(), &lab.database.name, &["-c", sql]).await;
        assert!(
            direct.err.contains("LINE ") && direct.code == Some(1),
            "{direct:?}"
        );
        assert_eq!(
            (direct.code, direct.err),
            (through.code, through.err),
            "{sql}"
        );
    }
}

// ---- pgbench ----

#[tokio::test(flavor = "multi_thread")]
async fn pgbench_in_every_mode_without_a_failure() {
    let database = Database::with("").await;
    let lab = Lab::start(&database, ANY, &[]).await;
    let pgbench = |arguments: &'static [&'static str], port: u16| {
        let name = database.name.clone();
        async move {
            let mut command = Command::new(program("pgbench").await);
            command
                .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()])
                .args(arguments)
                .arg(name);
            run(command).await
        }
    };
    let filled = pgbench(&["-i", "-s", "1", "-q"], lab.port()).await;
    assert_eq!(filled.code, Some(0), "{filled:?}");
    // Now with a rollup over one of its tables, so that statements are looked at.
    let rollup = (
        "branches",
        "SELECT bid, count(*), sum(abalance) FROM pgbench_accounts GROUP BY bid",
    );
    let lab = Lab::start(&database, ANY, &[rollup]).await;
    for mode in ["simple", "extended", "prepared"] {
        let arguments: &'static [&'static str] = match mode {
            "simple" => &["-n", "-S", "-T", "1", "-c", "4", "-M", "simple"],
            "extended" => &["-n", "-S", "-T", "1", "-c", "4", "-M", "extended"],
            _ => &["-n", "-S", "-T", "1", "-c", "4", "-M", "prepared"],
        };
        without_failures(&pgbench(arguments, lab.port()).await);
    }
    // Reading and writing, each session with the same few rows as the others.
    without_failures(&pgbench(&["-n", "-T", "1", "-c", "2", "-M", "prepared"], lab.port()).await);
    without_failures(&pgbench(&["-n", "-t", "20", "-c", "2", "-C"], lab.port()).await);
    let mut through = lab.session().await;
    let sum = "SELECT bid, count(*) FROM pgbench_accounts GROUP BY bid";
    // An UPDATE whose old row PostgreSQL does not log has the rollup built again.
    until_decision(&mut through, sum, "rollup", PATIENCE).await;
    assert_eq!(rows(&ok(&mut through, sum).await), ["1|100000"]);
}

fn without_failures(ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let failed = ran
        .out
        .lines()
        .find(|line| line.starts_with("number of failed transactions"));
    assert!(failed.is_none_or(|line| line.contains(": 0 ")), "{ran:?}");
    assert!(!ran.err.contains("error"), "{ran:?}");
    assert!(
        !ran.out.contains("transactions actually processed: 0"),
        "{ran:?}"
    );
}

// ---- Python ----

/// The interpreter with the drivers. Where there is none the caller's test is skipped, and says so; never in CI.
fn python() -> Option<OsString> {
    let named = std::env::var_os("PGSTAR_TEST_PYTHON").filter(|value| !value.is_empty());
    let usual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-venv/bin/python");
    let found = named.or_else(|| usual.exists().then(|| usual.into_os_string()));
    if found.is_none() {
        let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        assert!(
            !in_ci,
            "PGSTAR_TEST_PYTHON names no interpreter: run scripts/test-setup.sh"
        );
        // Not by eprintln, which the test harness keeps to itself when a test passes.
        let notice = "\n##### SKIPPED: no Python with drivers; run scripts/test-setup.sh, or the tests by `make test` #####\n\n";
        std::io::stderr().write_all(notice.as_bytes()).unwrap();
    }
    found
}

/// Runs a script of tests/drivers with the direct address and the one through pgstar.
///
/// False when it could not.
async fn drive(script: &str, lab: &Lab) -> bool {
    let Some(python) = python() else { return false };
    let mut command = Command::new(python);
    command.arg(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/drivers")
            .join(script),
    );
    command
        .arg(url(lab.database.port, &lab.database.name))
        .arg(url(lab.port(), &lab.database.name));
    // Nothing may be left behind beside the scripts.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let ran = run(command).await;
    assert_eq!(ran.code, Some(0), "{script}:\n{}{}", ran.out, ran.err);
    assert!(
        ran.out.ends_with("all done\n"),
        "{script}:\n{}{}",
        ran.out,
        ran.err
    );
    true
}

/// Columns of `SHOW pgstar.queries`.
const BY_ROLLUP: usize = 1;
const BY_CACHE: usize = 2;

/// How many statements were answered from rollups or the cache.
async fn answered(lab: &Lab) -> u64 {
    counted(lab, &[BY_ROLLUP, BY_CACHE]).await
}

/// The sum of these columns of `SHOW pgstar.queries`.
async fn counted(lab: &Lab, columns: &[usize]) -> u64 {
    let mut session = lab.session().await;
    let number = |text: &Option<String>| text.as_ref().unwrap().parse::<u64>().unwrap();
    table(&ok(&mut session, "SHOW pgstar.queries").await)
        .iter()
        .flat_map(|row| columns.iter().map(|column| number(&row[*column])))
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_3() {
    let lab = lab(true).await;
    let has_run = drive("psycopg3.py", &lab).await;
    assert!(!has_run || answered(&lab).await > 26);
}

#[tokio::test(flavor = "multi_thread")]
async fn psycopg_2() {
    let lab = lab(true).await;
    let has_run = drive("psycopg2_.py", &lab).await;
    assert!(!has_run || answered(&lab).await > 26);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlalchemy_with_rollups() {
    let lab = lab(true).await;
    let has_run = drive("sqlalchemy_.py", &lab).await;
    assert!(!has_run || answered(&lab).await > 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlalchemy_without_rollups() {
    let lab = lab(false).await;
    drive("sqlalchemy_.py", &lab).await;
    assert_eq!(counted(&lab, &[BY_ROLLUP]).await, 0);
}
