//! The change stream when the server is in trouble or set up otherwise; each test has its own server.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;

use std::time::{Duration, Instant};

use common::connect;
use pgstar_postgres::connect::Connection;
use pgstar_postgres::replication::{ReplicationConnection, ReplicationError};
use pgstar_postgres::server::{Authentication, InstallPolicy, Server, ServerOptions};
use pgstar_postgres::stream::{
    ChangeStream, Changed, SetupProblem, StreamError, StreamOptions, Unproven, Weakness,
};
use pgstar_rewriter::catalog::Oid;

const DEADLINE: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(300);

async fn start_server(settings: &[(&str, &str)], authentication: Authentication) -> Server {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let options = ServerOptions {
        install: InstallPolicy::Never,
        settings: settings.iter().map(own).collect(),
        authentication,
        ..ServerOptions::default()
    };
    Server::start(options).await.unwrap()
}

async fn with_table(settings: &[(&str, &str)]) -> (Server, Oid) {
    let server = start_server(settings, Authentication::Trust).await;
    let client = connect(server.config("postgres")).await;
    client
        .batch_execute("CREATE TABLE public.t (id bigint PRIMARY KEY)")
        .await
        .unwrap();
    let oid = number(&client, "SELECT 'public.t'::regclass::oid::bigint").await;
    (server, Oid(oid as u32))
}

async fn number(client: &Connection, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

async fn follow(server: &Server, table: Oid, weakness: Weakness) -> ChangeStream {
    let options = StreamOptions {
        weakness,
        ..StreamOptions::default()
    };
    let stream = ChangeStream::start_with(server.config("postgres"), vec![table], options)
        .await
        .unwrap();
    stream.established(DEADLINE).await.unwrap();
    stream
}

/// Commits wait for a standby that does not exist: in the log, but not visible.
async fn set_standby(client: &Connection, name: &str) {
    client
        .batch_execute(&format!(
            "ALTER SYSTEM SET synchronous_standby_names = '{name}'"
        ))
        .await
        .unwrap();
    client
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    let started = Instant::now();
    let shown =
        "SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = '";
    while number(client, &format!("{shown}{name}'")).await != 1 {
        assert!(started.elapsed() < DEADLINE);
    }
}

/// Whether a rollup is taken for current that lacks a commit: the writer hangs between log and
/// visibility while the rollup is built, and is acknowledged afterwards.
async fn is_fooled_by_an_invisible_commit(weakness: Weakness) -> bool {
    let (server, table) = with_table(&[]).await;
    let client = connect(server.config("postgres")).await;
    client
        .batch_execute("SET synchronous_commit = local")
        .await
        .unwrap();
    let stream = follow(&server, table, weakness).await;
    set_standby(&client, "nobody").await;
    let writer = connect(server.config("postgres")).await;
    let before = stream.last_change(table).unwrap();
    let hangs = tokio::spawn(async move {
        writer
            .batch_execute("INSERT INTO public.t VALUES (1)")
            .await
    });
    let started = Instant::now();
    while stream.last_change(table).unwrap() == before {
        assert!(
            started.elapsed() < DEADLINE,
            "streamed although it is not visible"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let position = stream.build_position(SOON).await;
    let built = number(&client, "SELECT count(*) FROM public.t").await;
    assert_eq!(built, 0, "the commit is not visible yet");
    if weakness == Weakness::None {
        assert!(
            matches!(
                position,
                Err(Unproven::Late {
                    behind: Some(1..),
                    ..
                })
            ),
            "{position:?}"
        );
        // What is known of the past stays known.
        assert!(stream.staleness().unwrap() > Duration::from_millis(200));
    }
    set_standby(&client, "").await;
    hangs.await.unwrap().unwrap();
    stream.prove_current(DEADLINE).await.unwrap();
    let is_fooled =
        position.is_ok_and(|position| stream.unchanged_since(position, &[table]).is_ok());
    let position = stream.build_position(DEADLINE).await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM public.t").await, 1);
    assert_eq!(stream.unchanged_since(position, &[table]), Ok(()));
    server.stop().await.unwrap();
    is_fooled
}

#[tokio::test]
async fn a_commit_that_is_not_visible_yet_is_waited_for() {
    assert!(!is_fooled_by_an_invisible_commit(Weakness::None).await);
}

#[tokio::test]
async fn without_the_visibility_gate_a_commit_would_be_lost() {
    assert!(is_fooled_by_an_invisible_commit(Weakness::NoVisibilityGate).await);
}

/// A session with a transaction that has written, and its number.
async fn open_writer(server: &Server, id: u32) -> (Connection, i64) {
    let writer = connect(server.config("postgres")).await;
    let begin =
        format!("SET synchronous_commit = local; BEGIN; INSERT INTO public.t VALUES ({id})");
    writer.batch_execute(&begin).await.unwrap();
    let xid = number(&writer, "SELECT pg_current_xact_id()::text::bigint").await;
    (writer, xid)
}

/// Waits until somebody, here the slot, waits for this transaction.
async fn wait_for_waiter(client: &Connection, xid: i64) {
    let waiters = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND transactionid::text = '{xid}'"
    );
    let started = Instant::now();
    while number(client, &waiters).await == 0 {
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a rollup is taken for current that lacks a commit from before the slot's beginning. The
/// slot waits for those who write when it is begun, and then for those who write when it has got half
/// of what it needs, but not for the one that begins thereafter: its commit gets into the log before
/// the slot's beginning, so the stream does not have it, and it is not visible yet.
async fn is_fooled_by_a_commit_before_the_slot(weakness: Weakness) -> bool {
    let (server, table) = with_table(&[]).await;
    let client = connect(server.config("postgres")).await;
    client
        .batch_execute("SET synchronous_commit = local")
        .await
        .unwrap();
    let (first, first_xid) = open_writer(&server, 1).await;
    let options = StreamOptions {
        weakness,
        ..StreamOptions::default()
    };
    let stream = ChangeStream::start_with(server.config("postgres"), vec![table], options)
        .await
        .unwrap();
    wait_for_waiter(&client, first_xid).await;
    let (second, second_xid) = open_writer(&server, 2).await;
    first.batch_execute("COMMIT").await.unwrap();
    wait_for_waiter(&client, second_xid).await;
    set_standby(&client, "nobody").await;
    let third = connect(server.config("postgres")).await;
    let hangs =
        tokio::spawn(async move { third.batch_execute("INSERT INTO public.t VALUES (3)").await });
    let hanging = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    while number(&client, hanging).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    second.batch_execute("COMMIT").await.unwrap();
    let started = Instant::now();
    while stream.epoch().is_none() {
        assert!(
            started.elapsed() < DEADLINE,
            "the slot does not wait for the third"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let position = stream.build_position(Duration::from_millis(1500)).await;
    assert_eq!(
        number(&client, "SELECT count(*) FROM public.t").await,
        2,
        "the third is not visible yet"
    );
    if weakness == Weakness::None {
        let Err(Unproven::Starting { blocker }) = &position else {
            panic!("{position:?}")
        };
        assert!(blocker.starts_with("server process"), "{blocker}");
    }
    set_standby(&client, "").await;
    hangs.await.unwrap().unwrap();
    stream.established(DEADLINE).await.unwrap();
    stream.prove_current(DEADLINE).await.unwrap();
    let is_fooled =
        position.is_ok_and(|position| stream.unchanged_since(position, &[table]).is_ok());
    let position = stream.build_position(DEADLINE).await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM public.t").await, 3);
    assert_eq!(stream.unchanged_since(position, &[table]), Ok(()));
    server.stop().await.unwrap();
    is_fooled
}

#[tokio::test]
async fn a_commit_from_before_the_slot_is_waited_for() {
    assert!(!is_fooled_by_a_commit_before_the_slot(Weakness::None).await);
}

#[tokio::test]
async fn without_waiting_at_the_start_a_commit_would_be_lost() {
    assert!(is_fooled_by_a_commit_before_the_slot(Weakness::NoStartWait).await);
}

#[tokio::test]
async fn a_prepared_transaction_is_a_change_when_it_is_committed() {
    let (server, table) = with_table(&[("max_prepared_transactions", "5")]).await;
    let client = connect(server.config("postgres")).await;
    let stream = follow(&server, table, Weakness::None).await;
    let position = stream.build_position(DEADLINE).await.unwrap();
    client
        .batch_execute("BEGIN; INSERT INTO public.t VALUES (1); PREPARE TRANSACTION 'later'")
        .await
        .unwrap();
    stream.prove_current(DEADLINE).await.unwrap();
    assert_eq!(stream.unchanged_since(position, &[table]), Ok(()));
    client
        .batch_execute("COMMIT PREPARED 'later'")
        .await
        .unwrap();
    stream.prove_current(DEADLINE).await.unwrap();
    assert!(matches!(
        stream.unchanged_since(position, &[table]),
        Err(Changed::At { .. })
    ));
    // A stream that begins beside one waits for it, and says so.
    client
        .batch_execute("BEGIN; INSERT INTO public.t VALUES (2); PREPARE TRANSACTION 'forgotten'")
        .await
        .unwrap();
    drop(stream);
    let options = StreamOptions {
        slot_timeout: SOON,
        ..StreamOptions::default()
    };
    let stream = ChangeStream::start_with(server.config("postgres"), vec![table], options)
        .await
        .unwrap();
    let started = Instant::now();
    while !stream
        .prove_current(SOON)
        .await
        .unwrap_err()
        .to_string()
        .contains("prepared transaction \"forgotten\"")
    {
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client
        .batch_execute("ROLLBACK PREPARED 'forgotten'")
        .await
        .unwrap();
    stream.established(DEADLINE).await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_crashes_begins_a_new_epoch() {
    let (server, table) = with_table(&[]).await;
    let client = connect(server.config("postgres")).await;
    let stream = follow(&server, table, Weakness::None).await;
    let position = stream.build_position(DEADLINE).await.unwrap();
    let victim = number(&client, "SELECT pg_backend_pid()::bigint").await;
    // The postmaster ends all sessions and recovers when one of them dies like this.
    let killed = std::process::Command::new("kill")
        .args(["-9", &victim.to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
    let started = Instant::now();
    while stream.unchanged_since(position, &[table]) != Err(Changed::OtherEpoch) {
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let epoch = stream.established(DEADLINE).await.unwrap();
    assert_ne!(epoch.id, position.epoch);
    let client = connect(server.config("postgres")).await;
    let position = stream.build_position(DEADLINE).await.unwrap();
    client
        .batch_execute("INSERT INTO public.t VALUES (1)")
        .await
        .unwrap();
    stream.prove_current(DEADLINE).await.unwrap();
    assert!(matches!(
        stream.unchanged_since(position, &[table]),
        Err(Changed::At { .. })
    ));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_logs_too_little_is_told_about() {
    let settings = [
        ("wal_level", "replica"),
        ("max_replication_slots", "0"),
        ("max_wal_senders", "0"),
    ];
    let (server, table) = with_table(&settings).await;
    let refused = ChangeStream::start(server.config("postgres"), vec![table])
        .await
        .err()
        .unwrap();
    let StreamError::Setup(problems) = refused else {
        panic!("{refused}")
    };
    let expected = [
        SetupProblem::WalLevel {
            found: "replica".to_owned(),
        },
        SetupProblem::NoFreeSlot { max: 0 },
        SetupProblem::NoFreeSender { max: 0 },
    ];
    assert_eq!(problems, expected);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn pgstar_never_passes_for_a_standby() {
    let (server, table) = with_table(&[]).await;
    let client = connect(server.config("postgres")).await;
    client
        .batch_execute("SET synchronous_commit = local")
        .await
        .unwrap();
    let stream = follow(&server, table, Weakness::None).await;
    set_standby(&client, "*").await;
    let started = Instant::now();
    while stream.epoch().is_some() {
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Nobody releases a commit that waits for a standby.
    let writer = connect(server.config("postgres")).await;
    let hangs = tokio::spawn(async move {
        writer
            .batch_execute("INSERT INTO public.t VALUES (1)")
            .await
    });
    tokio::time::sleep(SOON).await;
    assert!(!hangs.is_finished());
    let refused = ChangeStream::start(server.config("postgres"), vec![table])
        .await
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("synchronous_standby_names"),
        "{refused}"
    );
    set_standby(&client, "").await;
    hangs.await.unwrap().unwrap();
    stream.established(DEADLINE).await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test]
async fn passwords_are_given_when_they_are_asked_for() {
    for authentication in [
        Authentication::ScramSha256("pa'ss w%rd".into()),
        Authentication::Md5("pa'ss w%rd".into()),
    ] {
        let server = start_server(&[], authentication).await;
        let mut config = server.config("postgres");
        let mut connection = ReplicationConnection::connect(&config).await.unwrap();
        connection.identify_system().await.unwrap();
        config.password("wrong");
        let refused = ReplicationConnection::connect(&config).await.err().unwrap();
        assert_eq!(refused.sqlstate(), Some("28P01"), "{refused}");
        let mut none = tokio_postgres::Config::new();
        none.host("127.0.0.1")
            .port(server.port())
            .user("postgres")
            .dbname("postgres");
        let refused = ReplicationConnection::connect(&none).await.err().unwrap();
        assert!(
            matches!(refused, ReplicationError::Authentication(_)),
            "{refused}"
        );
        server.stop().await.unwrap();
    }
}
