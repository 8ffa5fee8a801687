//! The server is restarted while sessions are in every state: each hears what PostgreSQL says, new ones work, rollups
//! answer again by themselves, and nothing is left behind.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::path::Path;
use std::time::{Duration, Instant};

use e2e_support::frames::query;
use e2e_support::{Client, Frame, PATIENCE, explain, ok, rows, table, tags};
use pgstar::config::Config;
use pgstar::serve::Proxy;
use pgstar_postgres::server::{Authentication, InstallPolicy, Server, ServerOptions, Shutdown};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

const PASSWORD: &str = "secret";
const SCHEMA: &str = "
    CREATE TABLE sale (id int PRIMARY KEY, town text NOT NULL, amount int NOT NULL);
    INSERT INTO sale SELECT n, 'town ' || n % 3, n FROM generate_series(1, 300) n;
    CREATE TABLE sink (line text)";
const ROLLUP: &str = "SELECT town, count(*), sum(amount) FROM sale GROUP BY town";
const QUESTION: &str = "SELECT town, sum(amount) FROM sale GROUP BY town ORDER BY town";
const ANSWER: [&str; 3] = ["town 0|15150", "town 1|14950", "town 2|15050"];
/// Sessions that ask the question over and over until the server ends them.
const ASKERS: usize = 6;
/// How long a server may take to let sessions in, and rollups to become current again.
const RECOVERED: Duration = Duration::from_secs(60);

/// What a session is doing when the server goes: what it is sent, and the frame that the last of this is answered by.
const STATES: [(&str, &[&str], Option<char>); 6] = [
    ("idle", &[], Some('Z')),
    ("listening", &["LISTEN news"], Some('Z')),
    (
        "in a transaction",
        &["BEGIN", "SELECT count(*) FROM sale"],
        Some('Z'),
    ),
    (
        "in a failed transaction",
        &["BEGIN", "SELECT 1 / 0"],
        Some('Z'),
    ),
    ("copying in", &["COPY sink FROM STDIN"], Some('G')),
    ("running a statement", &["SELECT pg_sleep(600)"], None),
];

/// A server with a table, and pgstar before it with a rollup of the table.
async fn start(auth: &str) -> (Server, Proxy) {
    let server = Server::start(ServerOptions {
        install: InstallPolicy::Never,
        authentication: Authentication::ScramSha256(PASSWORD.to_owned()),
        max_connections: Some(100),
        ..ServerOptions::default()
    })
    .await
    .unwrap();
    let port = server.port();
    ok(&mut session(port).await, SCHEMA).await;
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"off\"\n\
         [upstream]\nurl = \"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres\"\n{auth}\n\
         [[rollup]]\nname = \"by_town\"\nquery = \"{ROLLUP}\"\n",
    );
    let config = Config::from_text(Path::new("e2e.toml"), &text).unwrap();
    let proxy = Proxy::start(&config)
        .await
        .unwrap_or_else(|failure| panic!("{}", failure.report()));
    proxy.warehouse().build_missing(&|_, _| ()).await.unwrap();
    proxy.keep_rollups();
    (server, proxy)
}

async fn log_in(port: u16) -> Client {
    Client::log_in(
        port,
        &[("user", "postgres"), ("database", "postgres")],
        PASSWORD,
    )
    .await
}

/// A session that was let in.
async fn session(port: u16) -> Client {
    let client = log_in(port).await;
    assert!(
        tags(&client.greeting).ends_with('Z'),
        "{:?}",
        client.greeting
    );
    client
}

/// A session on this port in each of the states.
async fn sessions(port: u16) -> Vec<Client> {
    let mut all = vec![];
    for (_, statements, last) in STATES {
        let mut client = session(port).await;
        for (position, statement) in statements.iter().enumerate() {
            client.send(&query(statement)).await;
            let is_last = position + 1 == statements.len();
            match last {
                _ if !is_last => drop(client.until_ready().await),
                Some(last) => drop(client.until(last).await),
                None => {}
            }
        }
        all.push(client);
    }
    all
}

/// All that is said to the end of the connection.
async fn to_the_end(client: &mut Client) -> Vec<Frame> {
    let mut frames = vec![];
    while let Some(frame) = client.frame().await {
        frames.push(frame);
    }
    frames
}

/// Asks until the connection ends: how often it was answered, and what was said last.
async fn ask_to_the_end(mut client: Client) -> (usize, Vec<Frame>) {
    let mut answers = 0;
    loop {
        // The connection may be closed already: then what was said before is still to be read.
        let _sent = client.socket.write_all(&query(QUESTION)).await;
        let frames = client.until_ready().await;
        if frames.last().map(Frame::tag) != Some('Z') {
            return (answers, frames);
        }
        assert_eq!(rows(&frames), ANSWER);
        answers += 1;
    }
}

/// Waits until the rollup answers the question, and asserts every answer on the way.
async fn until_served(port: u16, right: &[&str]) {
    let began = Instant::now();
    loop {
        let mut client = log_in(port).await;
        if tags(&client.greeting).ends_with('Z') {
            let frames = client.query(QUESTION).await;
            if frames.last().map(Frame::tag) == Some('Z') {
                assert_eq!(rows(&frames), right);
                let decision = explain(&mut client, QUESTION).await;
                if decision["decision"] == "rollup" || decision["decision"] == "cache" {
                    return;
                }
                assert!(began.elapsed() < RECOVERED, "{decision:#}");
            }
        }
        assert!(began.elapsed() < RECOVERED, "{:?}", client.greeting);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until no session is left but the one that asks.
async fn until_alone(port: u16) {
    let mut client = session(port).await;
    let began = Instant::now();
    loop {
        let stats = table(&ok(&mut client, "SHOW pgstar.stats").await);
        let sessions = stats
            .iter()
            .find(|row| row[0].as_deref() == Some("pgstar_sessions"));
        let left = sessions.unwrap()[1].clone();
        if left.as_deref() == Some("1") {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{left:?} sessions are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until both long statements run.
async fn until_asleep(port: u16) {
    let mut client = session(port).await;
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    let began = Instant::now();
    while rows(&ok(&mut client, asleep).await) != ["2"] {
        assert!(began.elapsed() < PATIENCE, "the statements do not run");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sessions are counted for the process: each test counts its own alone.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn restart(auth: &str, shutdown: Shutdown) {
    let _turn = TURN.lock().await;
    let (server, proxy) = start(auth).await;
    let port = proxy.address().port();
    until_served(port, &ANSWER).await;
    let mut direct = sessions(server.port()).await;
    let mut through = sessions(port).await;
    let mut askers: Vec<JoinHandle<_>> = vec![];
    for _ in 0..ASKERS {
        askers.push(tokio::spawn(ask_to_the_end(session(port).await)));
    }
    until_asleep(server.port()).await;
    let server = server.restart(shutdown).await.unwrap();
    for (position, (state, _, _)) in STATES.iter().enumerate() {
        let said = to_the_end(&mut direct[position]).await;
        assert_eq!(to_the_end(&mut through[position]).await, said, "{state}");
    }
    for asker in askers {
        let (_answers, last) = asker.await.unwrap();
        // Where the connection ends while an answer or a question is under way, there may be no word.
        let rest: Vec<&Frame> = last
            .iter()
            .filter(|frame| matches!(frame.tag(), 'E' | 'N'))
            .collect();
        assert!(rest.iter().all(|frame| frame.contains("57P0")), "{last:?}");
    }
    drop((direct, through));
    until_served(port, &ANSWER).await;
    let mut writer = session(server.port()).await;
    ok(&mut writer, "INSERT INTO sale VALUES (301, 'town 0', 50)").await;
    let after = ["town 0|15200", ANSWER[1], ANSWER[2]];
    assert_eq!(rows(&ok(&mut session(port).await, QUESTION).await), after);
    until_served(port, &after).await;
    until_alone(port).await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn relayed_sessions_meet_a_fast_restart() {
    restart("", Shutdown::Fast).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relayed_sessions_meet_an_immediate_restart() {
    restart("", Shutdown::Immediate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_on_shared_backends_meet_a_fast_restart() {
    restart(SHARED, Shutdown::Fast).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_on_shared_backends_meet_an_immediate_restart() {
    restart(SHARED, Shutdown::Immediate).await;
}

const SHARED: &str = "[auth]\nmethod = \"scram\"\n";
