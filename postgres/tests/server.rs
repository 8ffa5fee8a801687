//! A throw-away server starts as asked for and leaves nothing behind, however it ends.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pgstar_postgres::connect::Connector;
use pgstar_postgres::server::{Authentication, InstallPolicy, Server, ServerError, ServerOptions};

fn options() -> ServerOptions {
    ServerOptions {
        install: InstallPolicy::Never,
        ..ServerOptions::default()
    }
}

async fn setting(server: &Server, name: &str) -> String {
    let connection = Connector::new(server.config("postgres"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    connection
        .query_one(&format!("SHOW {name}"), &[])
        .await
        .unwrap()
        .get(0)
}

/// Where the server keeps its files, and every process that has such a path in its command line.
fn traces(directory: &Path) -> Vec<PathBuf> {
    let wanted = directory.to_str().unwrap();
    let names_it = |process: &PathBuf| {
        let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(wanted)
    };
    let processes = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let mut traces: Vec<PathBuf> = processes.filter(names_it).collect();
    traces.extend(directory.exists().then(|| directory.to_owned()));
    traces
}

fn wait_until_gone(directory: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !traces(directory).is_empty() {
        assert!(
            Instant::now() < deadline,
            "left behind: {:?}",
            traces(directory)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn stop_leaves_nothing_behind_and_settings_are_as_asked() {
    let options = ServerOptions {
        shared_buffers: Some("24MB".into()),
        max_connections: Some(17),
        synchronous_commit: false,
        settings: vec![
            ("work_mem".into(), "5MB".into()),
            ("cluster_name".into(), "it's".into()),
        ],
        ..options()
    };
    let server = Server::start(options).await.unwrap();
    for (name, expected) in [
        ("wal_level", "logical"),
        ("fsync", "off"),
        ("shared_buffers", "24MB"),
        ("max_connections", "17"),
        ("synchronous_commit", "off"),
        ("work_mem", "5MB"),
        ("cluster_name", "it's"),
        ("server_encoding", "UTF8"),
    ] {
        assert_eq!(setting(&server, name).await, expected, "{name}");
    }
    let directory = server.socket_directory().to_owned();
    assert!(!traces(&directory).is_empty());
    // A session in the middle of a statement does not hold up the shutdown.
    let busy = Connector::new(server.config("postgres"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let sleeping = tokio::spawn(async move { busy.batch_execute("SELECT pg_sleep(60)").await });
    let started = Instant::now();
    server.stop().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(traces(&directory), Vec::<PathBuf>::new());
    assert!(sleeping.await.unwrap().is_err());
}

#[tokio::test]
async fn drop_leaves_nothing_behind() {
    let server = Server::start(options()).await.unwrap();
    let directory = server.socket_directory().to_owned();
    drop(server);
    assert_eq!(traces(&directory), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why_and_leaves_nothing_behind() {
    let bad = vec![("shared_buffers".to_owned(), "many".to_owned())];
    let before = server_directories();
    let error = Server::start(ServerOptions {
        settings: bad,
        ..options()
    })
    .await
    .unwrap_err();
    assert!(matches!(error, ServerError::NotReady { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("invalid value for parameter \"shared_buffers\""),
        "{error}"
    );
    // Other tests' servers come and go meanwhile; this one's directory never held a server.
    let left: Vec<PathBuf> = server_directories()
        .into_iter()
        .filter(|directory| !before.contains(directory) && settings_of(directory).contains("many"))
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

fn server_directories() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    let names = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("pgstar-"));
    names.map(|entry| entry.path()).collect()
}

fn settings_of(directory: &Path) -> String {
    std::fs::read_to_string(directory.join("data/postgresql.conf")).unwrap_or_default()
}

#[tokio::test]
async fn passwords_are_asked_for_when_scram_or_md5_is_chosen() {
    for (authentication, stored) in [
        (
            Authentication::ScramSha256("pa'ss w%rd".into()),
            "SCRAM-SHA-256",
        ),
        (Authentication::Md5("pa'ss w%rd".into()), "md5"),
    ] {
        let server = Server::start(ServerOptions {
            authentication,
            ..options()
        })
        .await
        .unwrap();
        let right = Connector::new(server.config("postgres"))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let sql = "SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'";
        let hash: String = right.query_one(sql, &[]).await.unwrap().get(0);
        assert!(hash.starts_with(stored), "{hash}");
        let by_url: tokio_postgres::Config = server.url("postgres").parse().unwrap();
        Connector::new(by_url).unwrap().connect().await.unwrap();
        let mut wrong = server.config("postgres");
        wrong.password("wrong");
        let error = Connector::new(wrong).unwrap().connect().await.unwrap_err();
        assert_eq!(
            error.sqlstate().map(|state| state.code()),
            Some("28P01"),
            "{error}"
        );
        assert!(
            error.to_string().contains("password authentication failed"),
            "{error}"
        );
        server.stop().await.unwrap();
    }
}

/// Not a test of its own: the owner that the next test kills.
#[tokio::test]
#[ignore = "run by a_killed_owner_leaves_nothing_behind"]
async fn owner_that_is_killed() {
    let server = Server::start(options()).await.unwrap();
    println!("directory={}", server.socket_directory().display());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_owner_leaves_nothing_behind() {
    use std::io::{BufRead, BufReader};
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "owner_that_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let directory = lines
        .map_while(Result::ok)
        .find_map(|line| {
            line.split_once("directory=")
                .map(|(_, path)| PathBuf::from(path))
        })
        .unwrap();
    assert!(!traces(&directory).is_empty());
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until_gone(&directory);
}
