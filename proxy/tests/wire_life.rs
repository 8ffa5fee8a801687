//! Sessions begin, are cancelled, are abandoned and end as they would with PostgreSQL; PostgreSQL's own
//! programs notice no difference.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod wire_support;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgstar::session::{Limits, Upstream};
use pgstar_postgres::server::{Authentication, Server, ServerOptions};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use wire_support::*;

/// Runs a program of PostgreSQL's against a port and returns what it printed; `None` if it is not installed.
async fn run(
    server: &Server,
    program: &str,
    port: u16,
    arguments: &[&str],
    stdin: &str,
) -> Option<String> {
    let path = server.bin_dir().join(program);
    if !path.exists() {
        return None;
    }
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", port.to_string())
        .env("PGUSER", "postgres");
    command
        .env("PGDATABASE", "postgres")
        .env("PGPASSWORD", "secret")
        .args(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let stdin = stdin.to_owned();
    // The proxy lives on this test's thread, so the program must be waited for on another.
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(stdin.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let printed = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&printed).into_owned())
}

/// Waits until a query run directly answers this.
async fn eventually(server: &Server, sql: &str, expected: &str) {
    let mut direct = Client::connect(server.port()).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = values(&direct.query(sql).await);
        if found == [expected] {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{sql}: {found:?}, not {expected}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn psql_prints_the_same() {
    let server = server().await;
    let proxy = Proxy::start(&server, AskAll).await;
    let script = "\\conninfo\n\\d pg_class\nCREATE TEMP TABLE t (x int, y text);\n\\copy t FROM STDIN\n1\tone\n2\t\\N\n\\.\n\
                  TABLE t;\nSELECT 1/0;\n\\set ON_ERROR_ROLLBACK on\nBEGIN;\nSELECT nonsense;\nTABLE t;\nCOMMIT;\n\
                  SELECT x, y FROM t \\gdesc\nSELECT $1::int + 1 \\bind 41 \\g\n\\timing off\nDO $$ BEGIN RAISE NOTICE 'n'; END $$;\n";
    let Some(direct) = run(&server, "psql", server.port(), &["-X"], script).await else {
        return;
    };
    let through = run(&server, "psql", proxy.port, &["-X"], script)
        .await
        .unwrap();
    let no_port = |text: String, port: u16| text.replace(&port.to_string(), "PORT");
    assert!(
        direct.contains("one") && direct.contains("division by zero"),
        "{direct}"
    );
    assert_eq!(no_port(through, proxy.port), no_port(direct, server.port()));
}

#[tokio::test]
async fn pgbench_runs_in_every_protocol() {
    let server = server().await;
    let proxy = Proxy::start(&server, AskAll).await;
    if run(&server, "pgbench", server.port(), &["-i", "-q"], "")
        .await
        .is_none()
    {
        return;
    }
    for protocol in ["simple", "extended", "prepared"] {
        for script in ["select-only", "tpcb-like"] {
            let arguments = ["-n", "-M", protocol, "-b", script, "-c", "4", "-t", "50"];
            let printed = run(&server, "pgbench", proxy.port, &arguments, "")
                .await
                .unwrap();
            assert!(
                printed.contains("transactions actually processed: 200/200"),
                "{printed}"
            );
        }
    }
    assert_eq!(proxy.shared.counters.surprises.get(), 0);
}

#[tokio::test]
async fn scram_and_md5_are_between_client_and_server() {
    for authentication in [
        Authentication::ScramSha256("secret".into()),
        Authentication::Md5("secret".into()),
    ] {
        let server = Arc::new(
            start(ServerOptions {
                authentication,
                ..ServerOptions::default()
            })
            .await,
        );
        let proxy = Proxy::start(&server, Never).await;
        let with_password = |password| {
            format!(
                "host=127.0.0.1 port={} user=postgres password={password}",
                proxy.port
            )
        };
        let (client, connection) =
            tokio_postgres::connect(&with_password("secret"), tokio_postgres::NoTls)
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        assert_eq!(
            client
                .query_one("SELECT 1", &[])
                .await
                .unwrap()
                .get::<_, i32>(0),
            1
        );
        drop(client);
        connection.await.unwrap().unwrap();
        let refused = tokio_postgres::connect(&with_password("wrong"), tokio_postgres::NoTls).await;
        let error = refused.err().unwrap();
        assert_eq!(error.code().unwrap().code(), "28P01");
    }
}

#[tokio::test]
async fn a_cancel_request_cancels() {
    let server = server().await;
    let proxy = Proxy::start(&server, AskAll).await;
    for bytes in [query("SELECT pg_sleep(30)"), batch("SELECT pg_sleep(30)")] {
        let mut client = Client::connect(proxy.port).await;
        client.send(&bytes).await;
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(30)%' AND state = 'active'";
        eventually(&server, running, "1").await;
        let mut canceller = Client::raw(proxy.port).await;
        canceller
            .send(&[&b"\0\0\0\x10\x04\xd2\x16\x2e"[..], client.key_data()].concat())
            .await;
        assert_eq!(canceller.frame().await, None);
        let replies = client.until_ready().await;
        assert!(
            replies
                .iter()
                .any(|frame| frame.tag() == 'E' && frame.contains("57014")),
            "{replies:?}"
        );
        assert_eq!(values(&client.query("SELECT 1").await), ["1"]);
    }
    assert_eq!(proxy.shared.counters.cancels.get(), 2);
}

#[tokio::test]
async fn a_client_that_vanishes_amid_a_statement_cancels_it() {
    let server = server().await;
    let rewritten = rewrite_to("SELECT pg_sleep(31)::text");
    let proxy = Proxy::start(&server, Script::new([("SELECT 'asked'", rewritten)])).await;
    for bytes in [query("SELECT pg_sleep(31)"), query("SELECT 'asked'")] {
        let mut client = Client::connect(proxy.port).await;
        let pid = client.backend_pid();
        client.send(&bytes).await;
        let active = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active' AND query LIKE '%pg_sleep(31)%'"
        );
        eventually(&server, &active, "1").await;
        drop(client);
        eventually(
            &server,
            &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"),
            "0",
        )
        .await;
    }
    assert_eq!(proxy.shared.counters.abandoned.get(), 2);
}

#[tokio::test]
async fn a_client_that_takes_its_leave_cancels_nothing() {
    let server = server().await;
    let proxy = Proxy::start(&server, Never).await;
    let mut client = Client::connect(proxy.port).await;
    client
        .query("CREATE TABLE IF NOT EXISTS left_behind (x int); TRUNCATE left_behind")
        .await;
    let slow = query("SELECT pg_sleep(0.3); INSERT INTO left_behind VALUES (1)");
    client.send(&[slow, frame('X', b"")].concat()).await;
    drop(client);
    eventually(&server, "SELECT count(*) FROM left_behind", "1").await;
    assert_eq!(proxy.shared.counters.abandoned.get(), 0);
}

#[tokio::test]
async fn a_terminated_backend_says_so_and_the_connection_closes() {
    let server = server().await;
    let proxy = Proxy::start(&server, AskAll).await;
    let mut client = Client::connect(proxy.port).await;
    let mut other = Client::connect(proxy.port).await;
    other
        .query(&format!(
            "SELECT pg_terminate_backend({})",
            client.backend_pid()
        ))
        .await;
    let word = client.frame().await.unwrap();
    assert!(word.tag() == 'E' && word.contains("57P01"));
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn a_shutdown_ends_idle_sessions_and_waits_for_busy_ones() {
    let server = server().await;
    let mut proxy = Proxy::start(&server, AskAll).await;
    let mut idle = Client::connect(proxy.port).await;
    let mut busy = Client::connect(proxy.port).await;
    let mut in_transaction = Client::connect(proxy.port).await;
    busy.send(&query("SELECT 'done' FROM pg_sleep(0.5)")).await;
    in_transaction.query("BEGIN").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.begin_shutdown();
    assert_told_of_shutdown(&mut idle).await;
    assert_eq!(values(&busy.until_ready().await), ["done"]);
    assert_told_of_shutdown(&mut busy).await;
    assert_eq!(
        values(&in_transaction.query("SELECT 'still here'").await),
        ["still here"]
    );
    assert_eq!(tags(&in_transaction.query("COMMIT").await), "CZ");
    assert_told_of_shutdown(&mut in_transaction).await;
    proxy.wait().await;
}

async fn assert_told_of_shutdown(client: &mut Client) {
    let word = client.frame().await.unwrap();
    assert!(
        word.contains("57P01")
            && word.contains("terminating connection due to administrator command")
    );
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let server = server().await;
    let limits = Limits {
        drain_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let mut proxy =
        Proxy::with_limits(Upstream::new("127.0.0.1", server.port()), Never, limits).await;
    let mut client = Client::connect(proxy.port).await;
    let pid = client.backend_pid();
    client.send(&query("SELECT pg_sleep(32)")).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.begin_shutdown();
    assert_told_of_shutdown(&mut client).await;
    proxy.wait().await;
    eventually(
        &server,
        &format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"),
        "0",
    )
    .await;
}

#[tokio::test]
async fn a_connection_too_many_is_refused_as_postgresql_does() {
    let server = server().await;
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let proxy = Proxy::with_limits(Upstream::new("127.0.0.1", server.port()), Never, limits).await;
    let first = Client::connect(proxy.port).await;
    let second = Client::connect(proxy.port).await;
    assert_eq!(tags(&second.greeting), "E");
    assert!(
        second.greeting[0].contains("53300")
            && second.greeting[0].contains("sorry, too many clients already")
    );
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    while tags(&Client::connect(proxy.port).await.greeting) == "E" {
        assert!(Instant::now() < deadline, "the slot comes free");
    }
}

#[tokio::test]
async fn an_unreachable_server_is_reported() {
    let unused = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let proxy =
        Proxy::with_limits(Upstream::new("127.0.0.1", unused), Never, Limits::default()).await;
    let client = Client::connect(proxy.port).await;
    let [error] = client.greeting.as_slice() else {
        panic!("{:?}", client.greeting)
    };
    assert!(error.contains("FATAL") && error.contains("08006"));
    assert!(error.contains(&format!(
        "could not connect to upstream PostgreSQL at \"127.0.0.1\", port {unused}"
    )));
    assert!(error.contains("HCheck that PostgreSQL is running there"));
}

#[tokio::test]
async fn the_server_may_be_on_a_unix_socket() {
    let server = server().await;
    let upstream = Upstream::new(server.socket_directory().to_str().unwrap(), server.port());
    let proxy = Proxy::with_limits(upstream, AskAll, Limits::default()).await;
    let mut client = Client::connect(proxy.port).await;
    assert_eq!(
        values(&client.query("SELECT inet_client_addr() IS NULL").await),
        ["t"]
    );
}

#[tokio::test]
async fn a_replication_session_is_copied() {
    let server = server().await;
    let proxy = Proxy::start(&server, AskAll).await;
    let mut client =
        Client::connect_with(proxy.port, &[("user", "postgres"), ("replication", "true")]).await;
    assert_eq!(tags(&client.query("IDENTIFY_SYSTEM").await), "TDCZ");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_not_waited_for() {
    let server = server().await;
    let limits = Limits {
        startup_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let proxy = Proxy::with_limits(Upstream::new("127.0.0.1", server.port()), Never, limits).await;
    let mut client = Client::raw(proxy.port).await;
    client.send(b"\0\0").await;
    let mut byte = [0];
    let read = tokio::time::timeout(PATIENCE, client.socket.read(&mut byte))
        .await
        .unwrap();
    assert_eq!(read.unwrap_or(0), 0);
}
