//! A server that breaks the protocol, or leaves at a bad moment, harms nobody but itself.
//!
//! The server here is a script: bytes it waits for and bytes it says.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod wire_support;

use std::sync::atomic::{AtomicUsize, Ordering};

use pgstar::session::{Limits, Upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire_support::*;

const GREETING: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x01\0\0\0\x02Z\0\0\0\x05I";
const READY: &[u8] = b"Z\0\0\0\x05I";

/// What the scripted server does next.
enum Act {
    /// Waits for a frame of this type and everything before it.
    Await(char),
    Say(Vec<u8>),
    /// The same, a byte at a time.
    Dribble(Vec<u8>),
}

fn say(bytes: impl AsRef<[u8]>) -> Act {
    Act::Say(bytes.as_ref().to_vec())
}

async fn perform(mut socket: TcpStream, acts: Vec<Act>) {
    let mut startup = vec![0; 4];
    socket.read_exact(&mut startup).await.unwrap();
    let mut rest = vec![0; i32::from_be_bytes(startup.try_into().unwrap()) as usize - 4];
    socket.read_exact(&mut rest).await.unwrap();
    socket.write_all(GREETING).await.unwrap();
    for act in acts {
        match act {
            Act::Await(tag) => await_frame(&mut socket, tag).await,
            Act::Say(bytes) => socket.write_all(&bytes).await.unwrap(),
            Act::Dribble(bytes) => {
                for byte in bytes {
                    socket.write_all(&[byte]).await.unwrap();
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            }
        }
    }
}

async fn await_frame(socket: &mut TcpStream, tag: char) {
    loop {
        let mut header = [0; 5];
        socket.read_exact(&mut header).await.unwrap();
        let mut body = vec![0; i32::from_be_bytes(header[1..].try_into().unwrap()) as usize - 4];
        socket.read_exact(&mut body).await.unwrap();
        if header[0] as char == tag {
            return;
        }
    }
}

const ASKED: &str = "SELECT 'asked'";

/// A proxy whose server plays these acts for its only session and then closes, and a client of it.
async fn against(play: Play, acts: Vec<Act>) -> (Proxy<Script>, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { perform(listener.accept().await.unwrap().0, acts).await });
    let upstream = Upstream::new("127.0.0.1", port);
    let proxy = Proxy::with_limits(upstream, Script::new([(ASKED, play)]), Limits::default()).await;
    let client = Client::connect(proxy.port).await;
    (proxy, client)
}

fn cached() -> Play {
    Play::Cached(answer_of(&["cached"]))
}

async fn everything(client: &mut Client) -> Vec<u8> {
    let mut said = Vec::new();
    let read = client.socket.read_to_end(&mut said);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    said
}

/// The answer to a probe, as far as a probe reads it: 33 columns.
fn probe_row() -> Vec<u8> {
    let mut values = vec![
        "db",
        "ann",
        "ann",
        "[\"pg_catalog\"]",
        "-",
        "f",
        "17.25",
        "read committed",
        "",
        "",
        "",
        "off",
        "UTC",
        "on",
        "UTF8",
        "UTF8",
        "off",
    ];
    values.resize(33, "x");
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        body.extend((value.len() as i32).to_be_bytes());
        body.extend(value.as_bytes());
    }
    [frame('D', &body), frame('C', b"SELECT 1\0"), READY.to_vec()].concat()
}

const NOTICE: &[u8] = b"N\0\0\0\x0dMnotice\0\0";
const FATAL: &[u8] = b"E\0\0\0\x16SFATAL\0C57P01\0Mx\0\0";

#[tokio::test]
async fn bytes_that_are_no_frames_are_copied() {
    let garbage = b"Z\0\0\0\x01 this is not PostgreSQL";
    let (proxy, mut client) = against(cached(), vec![Act::Await('Q'), say(garbage)]).await;
    client.send(&query("SELECT 1")).await;
    assert_eq!(everything(&mut client).await, garbage);
    assert_eq!(proxy.shared.counters.surprises.get(), 1);
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_makes_the_session_relay_only() {
    let acts = vec![
        say(READY),
        Act::Await('Q'),
        say([frame('C', b"X\0"), READY.to_vec()].concat()),
    ];
    let (proxy, mut client) = against(cached(), acts).await;
    client.until_ready().await;
    // Not served: what pgstar believes of this session has been wrong once.
    assert_eq!(tags(&client.query(ASKED).await), "CZ");
    assert_eq!(
        (
            proxy.shared.counters.surprises.get(),
            proxy.shared.counters.routed.get()
        ),
        (1, 0)
    );
}

#[tokio::test]
async fn a_cut_frame_is_delivered_as_far_as_it_came() {
    let cut = b"D\0\0\0\x64half";
    let (_proxy, mut client) = against(cached(), vec![Act::Await('Q'), say(cut)]).await;
    client.send(&query("SELECT 1")).await;
    assert_eq!(everything(&mut client).await, cut);
}

#[tokio::test]
async fn replies_may_come_one_byte_at_a_time() {
    let reply = [NOTICE, &frame('D', b"\0\x01\0\0\0\x01x"), READY].concat();
    let acts = vec![
        Act::Await('Q'),
        Act::Dribble(reply.clone()),
        Act::Await('Q'),
        Act::Dribble(probe_row()),
    ];
    let (_proxy, mut client) = against(cached(), acts).await;
    client.send(&query("SELECT 1")).await;
    let replies = client.until_ready().await;
    assert_eq!(
        replies
            .iter()
            .flat_map(|frame| frame.0.clone())
            .collect::<Vec<_>>(),
        reply
    );
    assert_eq!(values(&client.query(ASKED).await), ["cached"]);
}

#[tokio::test]
async fn what_is_said_unasked_amid_a_probe_reaches_the_client_before_its_answer() {
    let status = frame('S', b"TimeZone\0UTC\0");
    let reply = [NOTICE, &status, &probe_row()].concat();
    let (_proxy, mut client) =
        against(cached(), vec![Act::Await('Q'), say(reply), Act::Await('X')]).await;
    assert_eq!(tags(&client.query(ASKED).await), "NSTDCZ");
}

#[tokio::test]
async fn a_server_that_leaves_amid_a_probe_has_its_last_word() {
    for bytes in [query(ASKED), batch(ASKED)] {
        let awaited = if bytes[0] == b'Q' { 'Q' } else { 'S' };
        let (_proxy, mut client) = against(cached(), vec![Act::Await(awaited), say(FATAL)]).await;
        client.send(&bytes).await;
        assert_eq!(everything(&mut client).await, FATAL);
    }
}

#[tokio::test]
async fn a_server_that_leaves_amid_a_rewritten_answer_closes_the_session() {
    let begun = [
        frame(
            'T',
            b"\0\x01?\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0",
        ),
        frame('D', b"\0\x01\0\0\0\x01x"),
    ]
    .concat();
    let acts = vec![
        Act::Await('Q'),
        say(probe_row()),
        Act::Await('Q'),
        say(&begun),
        say(b"D\0\0\0\x64half"),
        say(b""),
    ];
    let (proxy, mut client) = against(rewrite_to("SELECT 'rewritten'"), acts).await;
    client.send(&query(ASKED)).await;
    let said = everything(&mut client).await;
    assert_eq!(said, [&begun[..], b"D\0\0\0\x64half"].concat());
    assert_eq!(proxy.shared.counters.rewritten.get(), 0);
}

#[tokio::test]
async fn a_refused_probe_leaves_the_statement_to_the_server() {
    let denied = [
        frame('E', b"SERROR\0C42501\0Mpermission\0\0"),
        READY.to_vec(),
    ]
    .concat();
    let reply = [frame('C', b"SELECT 7\0"), READY.to_vec()].concat();
    let acts = vec![Act::Await('Q'), say(denied), Act::Await('Q'), say(reply)];
    let (_proxy, mut client) = against(cached(), acts).await;
    let replies = client.query(ASKED).await;
    assert_eq!(tags(&replies), "CZ");
    assert!(replies[0].contains("SELECT 7"));
}

#[tokio::test]
async fn a_cancelled_probe_is_the_statements_own_cancellation() {
    let cancelled = [
        frame('E', b"SERROR\0C57014\0Mcancelled\0\0"),
        READY.to_vec(),
    ]
    .concat();
    let (_proxy, mut client) = against(
        cached(),
        vec![Act::Await('Q'), say(&cancelled), Act::Await('X')],
    )
    .await;
    let replies = client.query(ASKED).await;
    assert_eq!(
        replies
            .iter()
            .flat_map(|frame| frame.0.clone())
            .collect::<Vec<_>>(),
        cancelled
    );
}

/// A client that waits for this may then send what is not to be cancelled.
#[tokio::test]
async fn a_cancel_request_is_closed_when_the_server_has_acted_on_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = Upstream::new("127.0.0.1", listener.local_addr().unwrap().port());
    let script = Script::new([(ASKED, cached())]);
    let proxy = Proxy::with_limits(upstream, script, Limits::default()).await;
    let request = b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02";
    let mut canceller = Client::raw(proxy.port).await;
    canceller.send(request).await;
    let (mut server, _) = listener.accept().await.unwrap();
    let mut forwarded = [0; 16];
    server.read_exact(&mut forwarded).await.unwrap();
    assert_eq!(&forwarded, request);
    // Asks the system itself, which knows of an end at once.
    let socket = canceller.socket.into_std().unwrap();
    let before = std::io::Read::read(&mut &socket, &mut [0]);
    assert_eq!(before.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(server);
    let mut socket = TcpStream::from_std(socket).unwrap();
    assert_eq!(socket.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_notification_that_is_due_comes_before_a_cached_answer() {
    let notification = frame('A', b"\0\0\0\x01here\0\0");
    let acts = vec![
        Act::Await('Q'),
        say([probe_row(), notification].concat()),
        Act::Await('X'),
    ];
    let (_proxy, mut client) = against(cached(), acts).await;
    assert_eq!(tags(&client.query(ASKED).await), "ATDCZ");
    assert_eq!(tags(&client.query(ASKED).await), "TDCZ");
}

/// Panics within the proxy's own code so far: a session's task would take them to its grave.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_ours = |place: &std::panic::Location<'_>| place.file().contains("src/");
        PANICS.fetch_add(
            usize::from(panic.location().is_some_and(is_ours)),
            Ordering::Relaxed,
        );
        print(panic);
    }));
}

#[tokio::test]
async fn random_replies_never_stop_the_proxy() {
    count_panics();
    let mut state = 0x2545_f491_u32;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    for round in 0..200 {
        let mut reply = [
            NOTICE,
            &probe_row(),
            &frame('T', b"\0\0"),
            &frame('D', b"\0\0"),
            READY,
        ]
        .concat();
        for _ in 0..3 {
            let at = random() as usize % reply.len();
            reply[at] = random() as u8;
        }
        let play = if round % 2 == 0 {
            cached()
        } else {
            rewrite_to("SELECT 'rewritten'")
        };
        let (proxy, mut client) =
            against(play, vec![Act::Await('Q'), say(&reply), say(&reply)]).await;
        client.send(&query(ASKED)).await;
        everything(&mut client).await;
        let mut proxy = proxy;
        proxy.begin_shutdown();
        proxy.wait().await;
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
}
