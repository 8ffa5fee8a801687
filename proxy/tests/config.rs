//! Configuration files, good and bad: what is understood, and the exact words and places of what is not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::time::Duration;

use pgstar::config::keys::{Absence, SECTIONS};
use pgstar::config::{Auth, ByteSize, Config, Freshness, Position, Problems};

use pgstar::pool::{PoolLimits, VerifierSource};
use pgstar_postgres::tls::SslMode;

const URL: &str = "[upstream]\nurl = \"postgresql://pgstar:hunter2@db/warehouse\"\n";

fn parse(text: &str) -> Result<Config, Problems> {
    Config::from_text(Path::new("pgstar.toml"), text)
}

/// Each file of `config_problems.txt`: what the case is about, the file, the report it gets.
fn bad_files() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    include_str!("config_problems.txt")
        .split("\n==== ")
        .skip(1)
        .map(|case| {
            let (title, rest) = case.split_once('\n').unwrap();
            let (file, report) = rest.split_once("\n----\n").unwrap();
            (title, file, report.trim_end())
        })
}

#[test]
fn every_problem_of_a_bad_file_is_told_with_its_place() {
    let mut failed = String::new();
    for (title, file, expected) in bad_files() {
        let told = match parse(file) {
            Ok(config) => format!("no problem: {config:?}"),
            Err(problems) => problems.to_string(),
        };
        if told != expected {
            failed += &format!("\n==== {title}\n{file}\n----\n{told}\n");
        }
    }
    assert!(
        failed.is_empty(),
        "these files are told something else:\n{failed}"
    );
    assert!(bad_files().count() >= 40);
}

#[test]
fn no_report_repeats_a_password() {
    for (title, file, _) in bad_files() {
        let problems = parse(file).unwrap_err();
        assert!(
            !format!("{problems}{problems:?}").contains("hunter2"),
            "{title}"
        );
    }
    assert!(!format!("{:?}", parse(URL).unwrap()).contains("hunter2"));
}

#[test]
fn only_the_url_is_needed() {
    let config = parse(URL).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:6432");
    assert_eq!(
        config.upstream.to_string(),
        "postgresql://pgstar@db:5432/warehouse"
    );
    assert_eq!(
        config.upstream.connection().get_password(),
        Some(&b"hunter2"[..])
    );
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:9632");
    assert_eq!(config.cache.memory, ByteSize::mib(512));
    assert_eq!(config.cache.max_answer, ByteSize::mib(16));
    assert_eq!(config.freshness.default, Freshness::Strict);
    assert_eq!(config.limits.connections, 1000);
    assert_eq!(config.limits.statement, ByteSize::mib(1));
    assert_eq!(config.limits.login_timeout, Duration::from_secs(30));
    assert_eq!(config.limits.drain_timeout, Duration::from_secs(30));
    assert!(config.rollups.is_empty());
}

#[test]
fn the_documented_defaults_are_the_real_ones() {
    let (mut written_out, mut count) = (URL.to_owned(), 0);
    for section in SECTIONS.iter().filter(|section| !section.repeated) {
        let defaults = section.keys.iter().filter_map(|key| match key.absent {
            Absence::Means(default) => Some(format!("{} = {default}\n", key.name)),
            Absence::Refused(_) => None,
        });
        let lines: Vec<String> = defaults.collect();
        count += lines.len();
        if !lines.is_empty() {
            written_out += &format!("{}\n{}", section.header(), lines.concat());
        }
    }
    assert_eq!(count, 27);
    let (with, without) = (parse(&written_out).unwrap(), parse(URL).unwrap());
    assert_eq!(format!("{with:?}"), format!("{without:?}"));
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
[listen]
address = "0.0.0.0:7000"
proxy_protocol = "on"
tls = "require"
tls_certificate = "server.pem"
tls_key = "/etc/server.key"
tls_client_ca = "clients.pem"
[upstream]
url = "host=/run/postgresql user=pgstar dbname=warehouse sslmode=verify-full sslrootcert='root.pem'"
[auth]
method = "scram"
query = "SELECT verifier($1)"
[pool]
backends = 7
per_user = 3
idle_timeout = "5s"
max_age = "6s"
[admin]
address = "off"
[cache]
memory = "8MiB"
[freshness]
default = "5s"
deadline = "1500ms"
[limits]
connections = 1_0
connections_per_user = 3
idle_timeout = "10m"
statement = "16kB"
login_timeout = "500ms"
drain_timeout = "0s"
[[rollup]]
name = "by_month"
query = "SELECT 1"
[[rollup]]
name = "by_day"
query = 'SELECT 2'
"#,
    )
    .unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:7000");
    assert_eq!(
        config.upstream.to_string(),
        "postgresql://pgstar@/run/postgresql:5432/warehouse"
    );
    let tls = config.tls.unwrap();
    assert!(tls.is_required && tls.certificate.ends_with("server.pem"));
    assert_eq!(tls.key, Path::new("/etc/server.key"));
    assert!(tls.client_ca.unwrap().ends_with("clients.pem"));
    let encryption = config.upstream.encryption();
    assert_eq!(encryption.mode, SslMode::VerifyFull);
    assert_eq!(
        encryption.files.roots.as_deref(),
        Some(Path::new("root.pem"))
    );
    let query = VerifierSource::Query("SELECT verifier($1)".to_owned());
    assert_eq!(config.auth, Auth::Scram(query));
    let pool = PoolLimits {
        backends_max: 7,
        per_user_max: 3,
        idle_max: Duration::from_secs(5),
        age_max: Duration::from_secs(6),
    };
    assert_eq!(config.pool, pool);
    assert_eq!(config.admin, None);
    assert_eq!(config.cache.memory, ByteSize::mib(8));
    assert_eq!(
        config.cache.max_answer,
        ByteSize::mib(8),
        "the default is cut to the memory"
    );
    assert!(config.proxy_protocol);
    assert_eq!(
        config.freshness.default,
        Freshness::Within(Duration::from_secs(5))
    );
    assert_eq!(config.freshness.deadline, Duration::from_millis(1500));
    assert_eq!(config.limits.connections, 10);
    assert_eq!(config.limits.connections_per_user, Some(3));
    assert_eq!(config.limits.idle_timeout, Some(Duration::from_secs(600)));
    assert_eq!(config.limits.statement, ByteSize::kib(16));
    assert_eq!(config.limits.login_timeout, Duration::from_millis(500));
    assert_eq!(config.limits.drain_timeout, Duration::ZERO);
    let names: Vec<_> = config
        .rollups
        .iter()
        .map(|rollup| rollup.name.as_str())
        .collect();
    assert_eq!(names, ["by_month", "by_day"]);
    assert_eq!(config.rollups[1].query, "SELECT 2");
}

#[test]
fn a_place_in_a_query_is_a_place_in_the_file() {
    // The query as written, a word of it, and the line and column of that word within the lines
    // that start with `query =`; an escaped query only gives where its value begins.
    let cases = [
        (
            "\"\"\"\n  SELECT nation,\n    stroe\n  FROM t\n\"\"\"",
            "stroe",
            (3, 5),
        ),
        ("\"\"\"SELECT stroe\"\"\"", "stroe", (1, 19)),
        ("\"\"\"SELECT a,\nstroe\"\"\"", "stroe", (2, 1)),
        ("'''\nSELECT 'é', stroe'''", "stroe", (2, 13)),
        ("\"SELECT stroe\"", "stroe", (1, 17)),
        ("'SELECT stroe'", "stroe", (1, 17)),
        ("\"\"\"\r\nSELECT a,\r\n stroe\"\"\"", "stroe", (3, 2)),
        ("\"SELECT \\\"a\\\", stroe\"", "stroe", (1, 9)),
        ("\"\"\"\nSELECT \\\n  stroe\"\"\"", "stroe", (1, 9)),
    ];
    for (literal, word, (line, column)) in cases {
        let text = format!("{URL}[[rollup]]\nname = \"r\"\nquery = {literal}\n");
        let config = parse(&text).unwrap();
        let rollup = &config.rollups[0];
        let offset = rollup.query.find(word).unwrap();
        let lines_above = 4;
        let expected = Position {
            line: line + lines_above,
            column,
        };
        assert_eq!(rollup.position_of(offset), expected, "{literal}");
        assert!(
            rollup.position_of(usize::MAX) >= rollup.position_of(0),
            "{literal}"
        );
    }
}

#[test]
fn a_byte_order_mark_is_no_character() {
    let config = parse(&format!("\u{feff}{URL}")).unwrap();
    assert_eq!(config.freshness.default, Freshness::Strict);
    let problems = parse("\u{feff}nonsense = 1\n[upstream]\nurl = \"host=h\"").unwrap_err();
    assert!(
        problems
            .to_string()
            .starts_with("pgstar.toml:1:1: unknown section"),
        "{problems}"
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let latin1 = directory.path().join("latin1.toml");
    std::fs::write(&latin1, b"# caf\xe9").unwrap();
    let cases = [
        (
            directory.path().join("absent.toml"),
            "cannot read the configuration file: No such file",
        ),
        (
            directory.path().to_path_buf(),
            "cannot read the configuration file: Is a directory",
        ),
        (latin1, "the configuration file is not UTF-8 text"),
    ];
    for (file, message) in cases {
        let problems = Config::from_file(&file).unwrap_err().to_string();
        assert!(
            problems.starts_with(&format!("{}: {message}", file.display())),
            "{problems}"
        );
    }
}
