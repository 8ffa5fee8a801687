//! A session through pgstar is a session with PostgreSQL: the same bytes said to both get the same frames.
//!
//! Every exchange runs directly, through a proxy that serves nothing, and through one that looks into
//! every lone statement (so that each is preceded by a probe) and then passes it through.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod wire_support;

use wire_support::*;

/// A step of a conversation: what the client says, and the frame that ends the server's reply.
struct Step(Vec<u8>, char);

fn step(bytes: impl AsRef<[u8]>) -> Step {
    Step(bytes.as_ref().to_vec(), 'Z')
}

async fn converse(port: u16, steps: &[Step]) -> Vec<Vec<Frame>> {
    let mut client = Client::connect(port).await;
    let mut replies = Vec::new();
    for Step(bytes, end) in steps {
        client.send(bytes).await;
        replies.push(client.until(*end).await);
    }
    replies
}

async fn assert_same_as_direct(steps: &[Step]) {
    let server = server().await;
    let direct = converse(server.port(), steps).await;
    let relayed = Proxy::start(&server, Never).await;
    assert_eq!(converse(relayed.port, steps).await, direct);
    let asking = Proxy::start(&server, AskAll).await;
    assert_eq!(
        converse(asking.port, steps).await,
        direct,
        "with a probe before each statement"
    );
    assert_eq!(
        asking.shared.counters.surprises.get() + relayed.shared.counters.surprises.get(),
        0
    );
}

#[tokio::test]
async fn simple_queries() {
    assert_same_as_direct(&[
        step(query("SELECT 1")),
        step(query("")),
        step(query("SELECT 1; SELECT 'two', 3; ; SELECT")),
        step(query("SELECT 1; SELECT 1/0; SELECT 2")),
        step(query("nonsense")),
        step(query(
            "DO $$ BEGIN RAISE NOTICE 'hello'; RAISE WARNING 'there'; END $$",
        )),
        step(query("SET TimeZone = 'Asia/Tokyo'")),
        step(query("SELECT timestamptz '2020-01-01 00:00:00+00'")),
        step(query("SET client_encoding = 'LATIN1'")),
        step(b"Q\0\0\0\x0fSELECT '\xe9'\0"),
        step(query("RESET ALL")),
    ])
    .await;
}

#[tokio::test]
async fn transactions_and_their_failures() {
    assert_same_as_direct(&[
        step(query("BEGIN")),
        step(query("SELECT 1")),
        step(query("SELECT 1/0")),
        step(query("SELECT 1")),
        step(query("ROLLBACK")),
        step(query("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY")),
        step(query(
            "SELECT current_setting('transaction_isolation'), txid_current_if_assigned()",
        )),
        step(query("COMMIT")),
        step(query(
            "BEGIN; CREATE TEMP TABLE t (x int); INSERT INTO t VALUES (1)",
        )),
        step(query("SELECT x + 0 FROM t")),
        step(query("COMMIT")),
    ])
    .await;
}

#[tokio::test]
async fn extended_batches_and_pipelines() {
    let named = [
        parse("s", "SELECT generate_series(1, 5)"),
        bind("p", "s"),
        execute("p", 2),
    ]
    .concat();
    let parse_error = [
        parse("", "SELECT * FROM nowhere"),
        bind("", ""),
        execute("", 0),
        sync(),
    ]
    .concat();
    let two_and_an_error_between =
        [batch("SELECT 1"), parse_error.clone(), batch("SELECT 2")].concat();
    assert_same_as_direct(&[
        step(batch("SELECT 1")),
        step(
            [
                parse("", "SELECT 1"),
                describe('S', ""),
                bind("", ""),
                execute("", 0),
                sync(),
            ]
            .concat(),
        ),
        step(&parse_error),
        step([&named[..], &describe('P', "p"), &execute("p", 0), &sync()].concat()),
        step([bind("", "s"), execute("", 0), sync()].concat()),
        step(two_and_an_error_between),
        step(b""),
        step(b""),
        step(
            [
                parse("", "SELECT $1 || 'x'"),
                bind_texts(&["v"]),
                describe('P', ""),
                execute("", 0),
                sync(),
            ]
            .concat(),
        ),
        step(sync()),
        step([frame('C', b"Ss\0"), sync()].concat()),
        step([bind("", "s"), sync()].concat()),
        step(batch("")),
        step(frame('F', b"\0\0\x05\x53\0\0\0\x01\0\0\0\x011\0\0")),
    ])
    .await;
}

#[tokio::test]
async fn the_unnamed_statement_lives_as_long_as_with_postgresql() {
    let again = || step([bind("", ""), execute("", 0), sync()].concat());
    assert_same_as_direct(&[
        step(batch("SELECT 1")),
        again(),
        step(query("SELECT 2")),
        again(),
        step(query("BEGIN")),
        step(batch("SELECT 3")),
        step([describe('P', ""), sync()].concat()),
        step([execute("", 0), sync()].concat()),
        again(),
        step(query("COMMIT")),
    ])
    .await;
}

#[tokio::test]
async fn flush_delivers_without_sync() {
    let flush = || frame('H', b"");
    assert_same_as_direct(&[
        Step([parse("", "SELECT 1"), flush()].concat(), '1'),
        Step([bind("", ""), execute("", 0), flush()].concat(), 'C'),
        step(sync()),
        Step(
            [parse("", "SELECT 2"), bind("", ""), execute("", 0), flush()].concat(),
            'C',
        ),
        step(sync()),
    ])
    .await;
}

#[tokio::test]
async fn copies_in_and_out() {
    assert_same_as_direct(&[
        step(query("CREATE TEMP TABLE c (x text)")),
        Step(query("COPY c FROM STDIN"), 'G'),
        step([frame('d', b"one\n"), frame('d', b"two\n"), frame('c', b"")].concat()),
        Step(query("COPY c FROM STDIN"), 'G'),
        step([frame('d', b"three\n"), frame('f', b"no more\0")].concat()),
        step(query("COPY c TO STDOUT")),
        Step(
            [
                parse("", "COPY c FROM STDIN"),
                bind("", ""),
                execute("", 0),
                sync(),
            ]
            .concat(),
            'G',
        ),
        step([frame('d', b"four\n"), frame('c', b""), sync()].concat()),
        step(query("SELECT count(*) FROM c")),
    ])
    .await;
}

#[tokio::test]
async fn encryption_requests() {
    let server = server().await;
    let proxy = Proxy::start(&server, Never).await;
    const SSL: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
    const GSS: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
    for order in [[SSL, GSS], [GSS, SSL]] {
        let mut client = Client::raw(proxy.port).await;
        for request in order {
            client.send(request).await;
            let mut answer = [0];
            tokio::io::AsyncReadExt::read_exact(&mut client.socket, &mut answer)
                .await
                .unwrap();
            assert_eq!(answer, *b"N");
        }
        let replies = client
            .exchange(&startup_packet(&[("user", "postgres")]))
            .await;
        assert_eq!(replies.last().unwrap().tag(), 'Z');
        assert_eq!(values(&client.query("SELECT 1").await), ["1"]);
    }
    let stuffed = [SSL, &startup_packet(&[("user", "postgres")])].concat();
    for bytes in [stuffed, [SSL, SSL].concat()] {
        let (through, direct) = (
            last_words(proxy.port, &bytes).await,
            last_words(server.port(), &bytes).await,
        );
        assert!(
            through
                .iter()
                .any(|field| field == "Mreceived unencrypted data after SSL request")
        );
        assert_eq!(through, direct);
    }
    let mut client = Client::raw(proxy.port).await;
    client.send(b"\0\0\0\x04").await;
    assert_eq!(client.frame().await, None, "an impossible length");
}

/// The fields of the error that follows the answer to an encryption request, without the file, line and
/// routine that only PostgreSQL itself names.
async fn last_words(port: u16, bytes: &[u8]) -> Vec<String> {
    let mut client = Client::raw(port).await;
    client.send(bytes).await;
    let mut answer = [0];
    tokio::io::AsyncReadExt::read_exact(&mut client.socket, &mut answer)
        .await
        .unwrap();
    let error = client.frame().await.unwrap();
    let fields = error
        .body()
        .split(|byte| *byte == 0)
        .map(|field| String::from_utf8_lossy(field).into_owned());
    fields
        .filter(|field| !field.starts_with(['F', 'L', 'R']))
        .collect()
}

#[tokio::test]
async fn the_greeting_is_the_servers_own() {
    let server = server().await;
    let proxy = Proxy::start(&server, Never).await;
    let parameters = [
        ("user", "postgres"),
        ("database", "postgres"),
        ("application_name", "me"),
        ("options", "-c DateStyle=German"),
    ];
    let direct = Client::connect_with(server.port(), &parameters).await;
    let mut through = Client::connect_with(proxy.port, &parameters).await;
    let without_key = |frames: &[Frame]| {
        frames
            .iter()
            .filter(|frame| frame.tag() != 'K')
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        without_key(&through.greeting),
        without_key(&direct.greeting)
    );
    let pid = values(&through.query("SELECT pg_backend_pid()").await);
    assert_eq!(pid, [through.backend_pid().to_string()]);
}

#[tokio::test]
async fn a_notification_reaches_an_idle_session() {
    let server = server().await;
    let proxy = Proxy::start(&server, AskAll).await;
    let mut listener = Client::connect(proxy.port).await;
    let mut notifier = Client::connect(proxy.port).await;
    listener.query("LISTEN here").await;
    notifier.query("NOTIFY here, 'payload'").await;
    let notification = listener.frame().await.unwrap();
    assert_eq!(notification.tag(), 'A');
    assert!(notification.contains("payload"));
    assert_eq!(
        notification.body()[..4],
        notifier.backend_pid().to_be_bytes()
    );
}

#[tokio::test]
async fn bytes_may_come_one_at_a_time() {
    let server = server().await;
    let proxy = Proxy::start(&server, AskAll).await;
    let mut client = Client::connect(proxy.port).await;
    for bytes in [query("SELECT 'one'"), batch("SELECT 'one'")] {
        for byte in bytes {
            client.send(&[byte]).await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(values(&client.until_ready().await), ["one"]);
    }
}
