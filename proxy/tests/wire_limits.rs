//! Clients that want too much, take too long or leave amid a word: they are told as PostgreSQL tells them, and nobody
//! else notices.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod wire_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgstar::session::{Limits, ProxyHeader, Upstream};
use pgstar_postgres::server::Server;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use wire_support::*;

const SHORT: Duration = Duration::from_millis(300);

async fn limited(server: &Arc<Server>, limits: Limits) -> Proxy<Never> {
    Proxy::with_limits(Upstream::new("127.0.0.1", server.port()), Never, limits).await
}

/// What is said until the connection is closed.
async fn last_words(client: &mut Client) -> Vec<u8> {
    let mut said = vec![];
    let read = client.socket.read_to_end(&mut said);
    // A reset connection is closed, too.
    let _closed = tokio::time::timeout(PATIENCE, read).await.unwrap();
    said
}

fn has(said: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(said).contains(text)
}

#[tokio::test]
async fn a_user_with_too_many_sessions_is_refused_and_others_are_not() {
    let server = server().await;
    let limits = Limits {
        connections_per_user_max: Some(1),
        ..Limits::default()
    };
    let proxy = limited(&server, limits).await;
    let first = Client::connect(proxy.port).await;
    let second = Client::connect(proxy.port).await;
    assert!(second.greeting[0].contains("53300"));
    assert!(second.greeting[0].contains("too many connections for role \"postgres\""));
    let mut direct = Client::connect(server.port()).await;
    direct.query("CREATE ROLE other LOGIN").await;
    let other = [("user", "other"), ("database", "postgres")];
    let other = Client::connect_with(proxy.port, &other).await;
    assert!(tags(&other.greeting).ends_with('Z'));
    drop((first, other));
    let deadline = Instant::now() + PATIENCE;
    while tags(&Client::connect(proxy.port).await.greeting) == "E" {
        assert!(Instant::now() < deadline, "the place comes free");
    }
}

#[tokio::test]
async fn an_idle_session_is_ended_and_one_in_a_transaction_is_not() {
    let server = server().await;
    let limits = Limits {
        idle_max: Some(SHORT),
        ..Limits::default()
    };
    let proxy = limited(&server, limits).await;
    let mut idle = Client::connect(proxy.port).await;
    let mut in_transaction = Client::connect(proxy.port).await;
    in_transaction.query("BEGIN").await;
    let mut busy = Client::connect(proxy.port).await;
    busy.send(&query("SELECT 'done' FROM pg_sleep(1.5)")).await;
    let said = last_words(&mut idle).await;
    assert!(
        has(&said, "57P05") && has(&said, "terminating connection due to idle-session timeout")
    );
    assert_eq!(values(&busy.until_ready().await), ["done"]);
    assert_eq!(
        values(&in_transaction.query("SELECT 'here'").await),
        ["here"]
    );
}

#[tokio::test]
async fn a_login_that_does_not_end_is_ended() {
    // A server that takes the start-up packet and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Upstream::new("127.0.0.1", mute.local_addr().unwrap().port());
    let limits = Limits {
        startup_timeout: SHORT,
        ..Limits::default()
    };
    let proxy = Proxy::with_limits(upstream, Never, limits).await;
    let mut client = Client::raw(proxy.port).await;
    client.send(&startup_packet(&[("user", "postgres")])).await;
    let said = last_words(&mut client).await;
    assert!(has(&said, "57014") && has(&said, "canceling authentication due to timeout"));
}

#[tokio::test]
async fn a_load_balancers_header_is_taken_off_and_demanded() {
    let server = server().await;
    let limits = Limits {
        proxy_header: ProxyHeader::Required,
        ..Limits::default()
    };
    let proxy = limited(&server, limits).await;
    let startup = startup_packet(&[("user", "postgres"), ("database", "postgres")]);
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 12345 5432\r\n";
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x30\x39\x15\x38";
    for header in [&line[..], binary] {
        let mut client = Client::raw(proxy.port).await;
        // In two parts, neither of which ends where the header does.
        let bytes = [header, &startup].concat();
        client.send(&bytes[..5]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.send(&bytes[5..]).await;
        assert!(tags(&client.until_ready().await).ends_with('Z'));
    }
    let mut client = Client::raw(proxy.port).await;
    client.send(&startup).await;
    assert_eq!(last_words(&mut client).await, b"");
}

#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let server = server().await;
    let proxy = limited(&server, Limits::default()).await;
    let mut silent = vec![];
    for _ in 0..10_000 {
        // The test's own files are bounded, too.
        let Ok(socket) = tokio::net::TcpStream::connect(("127.0.0.1", proxy.port)).await else {
            break;
        };
        silent.push(socket);
        if silent.len() % 1_000 == 0 {
            let client = Client::connect(proxy.port).await;
            assert!(
                tags(&client.greeting).ends_with('Z'),
                "{} silent",
                silent.len()
            );
        }
    }
    // Otherwise this shows nothing: more than may be silent at a time.
    assert!(silent.len() > 1_000, "only {} sockets", silent.len());
}

#[tokio::test]
async fn packets_that_claim_too_much_or_make_no_sense_close_only_their_connection() {
    let server = server().await;
    let proxy = limited(&server, Limits::default()).await;
    let mut neighbour = Client::connect(proxy.port).await;
    for bytes in [
        &b"\x7f\xff\xff\xff\0\x03\0\0"[..],
        b"\x80\0\0\0\0\x03\0\0",
        b"\0\0\0\0",
        b"\0\0\0\x07\0\x03\0",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    ] {
        let mut client = Client::raw(proxy.port).await;
        client.send(bytes).await;
        assert_eq!(
            last_words(&mut client).await,
            b"",
            "{}",
            bytes.escape_ascii()
        );
    }
    // After the login PostgreSQL says what is wrong, to that client alone.
    for bytes in [
        &b"Q\x7f\xff\xff\xff"[..],
        b"Q\0\0\0\0",
        b"Q\xff\xff\xff\xff",
        b"\0\0\0\0\x04",
        b"B\0\0\0\x05\0",
        b"?\0\0\0\x04",
    ] {
        let mut direct = Client::connect(server.port()).await;
        let mut through = Client::connect(proxy.port).await;
        for client in [&mut direct, &mut through] {
            client.send(bytes).await;
        }
        // A message that PostgreSQL would wait for to the end of the day is not waited for here.
        let mut ends = vec![];
        for client in [&mut direct, &mut through] {
            ends.push(tokio::time::timeout(SHORT, client.until('E')).await.ok());
        }
        assert_eq!(ends[0], ends[1], "{}", bytes.escape_ascii());
    }
    assert_eq!(
        values(&neighbour.query("SELECT 'unhurt'").await),
        ["unhurt"]
    );
}

/// All that a client says in a short session, and its answers' end.
fn session_bytes() -> Vec<u8> {
    [
        startup_packet(&[("user", "postgres"), ("application_name", "leaver")]),
        query("SELECT 'asked'"),
        batch("SELECT 'asked'"),
        [
            parse("s", "SELECT 2"),
            bind("p", "s"),
            execute("p", 1),
            sync(),
        ]
        .concat(),
        query("BEGIN"),
        query("COPY (SELECT 1) TO STDOUT"),
        frame('X', b""),
    ]
    .concat()
}

#[tokio::test]
async fn a_client_may_leave_after_any_byte() {
    let server = server().await;
    let script = Script::new([("SELECT 'asked'", rewrite_to("SELECT 'rewritten'"))]);
    let proxy = Proxy::start(&server, script).await;
    let bytes = session_bytes();
    for end in 0..=bytes.len() {
        let mut client = Client::raw(proxy.port).await;
        client.send(&bytes[..end]).await;
        // Every other one closes at once, so that the proxy meets a reset where it writes.
        if end % 2 == 0 {
            let reading = client.socket.read_u8();
            let _answered = tokio::time::timeout(Duration::from_millis(1), reading).await;
        }
    }
    let mut neighbour = Client::connect(proxy.port).await;
    let deadline = Instant::now() + PATIENCE;
    let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leaver'";
    while values(&neighbour.query(left).await) != ["0"] {
        assert!(Instant::now() < deadline, "backends are left behind");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_else() {
    let server = server().await;
    let proxy = limited(&server, Limits::default()).await;
    let mut slow = vec![];
    for _ in 0..4 {
        let mut client = Client::connect(proxy.port).await;
        client
            .send(&query(
                "SELECT repeat('x', 1000) FROM generate_series(1, 20000)",
            ))
            .await;
        slow.push(client);
    }
    let mut neighbour = Client::connect(proxy.port).await;
    for _ in 0..20 {
        assert_eq!(values(&neighbour.query("SELECT 'quick'").await), ["quick"]);
    }
    for client in &mut slow {
        assert_eq!(values(&client.until_ready().await).len(), 20_000);
    }
}

#[tokio::test]
async fn a_session_is_served_again_after_it_copied_in_by_the_extended_protocol() {
    let server = server().await;
    let script = Script::new([("SELECT 'asked'", rewrite_to("SELECT 'rewritten'"))]);
    let proxy = Proxy::start(&server, script).await;
    let mut client = Client::connect(proxy.port).await;
    client.query("CREATE TEMP TABLE t (x int)").await;
    // As libpq does: the Sync goes before the client knows that the statement is a COPY.
    client.send(&batch("COPY t FROM STDIN")).await;
    client.until('G').await;
    let rows = [frame('d', b"1\n2\n"), frame('c', b""), sync()].concat();
    assert_eq!(tags(&client.exchange(&rows).await), "CZ");
    // After one that the client gives up or that fails, it can only be relayed.
    assert_eq!(values(&client.query("SELECT 'asked'").await), ["rewritten"]);
    for end in [
        frame('f', b"no\0"),
        [frame('d', b"x\n"), frame('c', b"")].concat(),
    ] {
        client.send(&batch("COPY t FROM STDIN")).await;
        client.until('G').await;
        assert_eq!(tags(&client.exchange(&[end, sync()].concat()).await), "EZ");
    }
    assert_eq!(values(&client.query("SELECT 'asked'").await), ["asked"]);
    assert_eq!(
        values(&client.query("SELECT sum(x)::text FROM t").await),
        ["3"]
    );
    assert_eq!(proxy.shared.counters.surprises.get(), 0);
}

#[tokio::test]
async fn a_newer_protocol_is_the_servers_to_negotiate() {
    let server = server().await;
    let proxy = Proxy::start(&server, AskAll).await;
    const VERSION_3_2: i32 = (3 << 16) | 2;
    let mut startup = startup_packet(&[("user", "postgres"), ("_pq_.unheard_of", "1")]);
    startup[4..8].copy_from_slice(&VERSION_3_2.to_be_bytes());
    let mut negotiated = vec![];
    for port in [server.port(), proxy.port] {
        let mut client = Client::raw(port).await;
        client.send(&startup).await;
        client.greeting = client.until_ready().await;
        let version = client.greeting.iter().find(|frame| frame.tag() == 'v');
        negotiated.push((version.cloned(), client.key_data().len()));
        // The key works, however long it is.
        client.send(&query("SELECT pg_sleep(30)")).await;
        let mut direct = Client::connect(server.port()).await;
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'";
        while values(&direct.query(running).await) != ["1"] {}
        let code = 80_877_102_i32.to_be_bytes();
        let length = (8 + client.key_data().len() as i32).to_be_bytes();
        let request = [&length[..], &code, client.key_data()].concat();
        let mut other = Client::raw(port).await;
        other.send(&request).await;
        let replies = client.until_ready().await;
        let is_cancelled = replies.iter().any(|frame| frame.contains("57014"));
        assert!(is_cancelled, "{replies:?}");
    }
    assert!(negotiated[0].0.is_some());
    assert_eq!(negotiated[0], negotiated[1]);
}
