//! Statements that were prepared earlier are served like those that come with their text, and PostgreSQL
//! keeps the last word on whether they still exist and what their columns are.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod wire_support;

use wire_support::*;

const ASKED: &str = "SELECT 'asked'";
const NOTHING_LEFT: &str = "SELECT count(*)::text FROM pg_prepared_statements";

async fn playing(play: Play) -> (Proxy<Script>, Client) {
    playing_for(ASKED, play).await
}

async fn playing_for(sql: &'static str, play: Play) -> (Proxy<Script>, Client) {
    let proxy = Proxy::start(&server().await, Script::new([(sql, play)])).await;
    let client = Client::connect(proxy.port).await;
    (proxy, client)
}

/// What drivers send for a statement that they have prepared.
fn run(name: &str) -> Vec<u8> {
    [bind("", name), describe('P', ""), execute("", 0), sync()].concat()
}

async fn prepare(client: &mut Client, name: &str, sql: &str) {
    let replies = client.exchange(&[parse(name, sql), sync()].concat()).await;
    assert_eq!(tags(&replies), "1Z");
}

fn status(frames: &[Frame]) -> char {
    frames.last().unwrap().body()[0] as char
}

/// Runs a prepared statement and expects one value.
async fn expect(client: &mut Client, name: &str, value: &str) {
    let replies = client.exchange(&run(name)).await;
    assert_eq!(
        (tags(&replies).as_str(), values(&replies)),
        ("2TDCZ", vec![value.to_owned()])
    );
}

/// Runs a prepared statement and expects this error.
async fn expect_error(client: &mut Client, name: &str, sqlstate: &str) {
    let replies = client.exchange(&run(name)).await;
    assert_eq!(tags(&replies), "EZ", "{replies:?}");
    assert!(replies[0].contains(sqlstate), "{replies:?}");
}

/// An answer with the column that PostgreSQL gives to [`ASKED`].
async fn answer_like_asked(value: &str) -> Play {
    let proxy = Proxy::start(&server().await, Never).await;
    let mut client = Client::connect(proxy.port).await;
    let replies = client.query(ASKED).await;
    let mut answer = answer_of(&[value]);
    answer.row_description = replies[0].0.clone().into();
    Play::Cached(answer)
}

#[tokio::test]
async fn a_named_statement_is_answered_from_the_cache() {
    let (proxy, mut client) = playing(answer_like_asked("cached").await).await;
    prepare(&mut client, "s", ASKED).await;
    for expected_status in ['I', 'T'] {
        for (bytes, expected) in [
            (run("s"), "2TDCZ"),
            ([bind("", "s"), execute("", 0), sync()].concat(), "2DCZ"),
        ] {
            let replies = client.exchange(&bytes).await;
            assert_eq!(
                (tags(&replies).as_str(), status(&replies)),
                (expected, expected_status)
            );
            assert_eq!(values(&replies), ["cached"]);
        }
        client.query("BEGIN").await;
    }
    assert_eq!(proxy.shared.counters.answered.get(), 4);
    assert_eq!(values(&client.query(NOTHING_LEFT).await), ["1"]);
}

#[tokio::test]
async fn a_named_statement_is_rewritten() {
    let (proxy, mut client) = playing(rewrite_to("SELECT 'rewritten'")).await;
    prepare(&mut client, "s", ASKED).await;
    prepare(&mut client, "", "SELECT 'unnamed'").await;
    for expected_status in ['I', 'T'] {
        for (bytes, expected) in [
            (run("s"), "2TDCZ"),
            ([bind("", "s"), execute("", 0), sync()].concat(), "2DCZ"),
        ] {
            let replies = client.exchange(&bytes).await;
            assert_eq!(
                (tags(&replies).as_str(), status(&replies)),
                (expected, expected_status)
            );
            assert_eq!(values(&replies), ["rewritten"]);
            expect(&mut client, "", "unnamed").await;
        }
        // By batch: a Query would drop the unnamed statement.
        prepare(&mut client, "begin", "BEGIN").await;
        client
            .exchange(
                &[
                    bind("", "begin"),
                    execute("", 0),
                    close('S', "begin"),
                    sync(),
                ]
                .concat(),
            )
            .await;
    }
    assert_eq!(values(&client.query(NOTHING_LEFT).await), ["1"]);
    assert_eq!(proxy.shared.counters.rewritten.get(), 4);
    assert_eq!(proxy.shared.counters.fallbacks.get(), 0);
}

#[tokio::test]
async fn a_named_statement_keeps_its_parameters() {
    let (proxy, mut client) = playing_for("SELECT $1", rewrite_to("SELECT $1 + $1")).await;
    let typed = frame('P', b"s\0SELECT $1\0\0\x01\0\0\0\x17");
    client.exchange(&[typed, sync()].concat()).await;
    let bound = frame('B', b"\0s\0\0\0\0\x01\0\0\0\x0221\0\0");
    let bytes = [bound, describe('P', ""), execute("", 0), sync()].concat();
    assert_eq!(values(&client.exchange(&bytes).await), ["42"]);
    let bindings = proxy.shared.router.bindings.lock().unwrap();
    let binding = bindings[0].as_ref().unwrap();
    assert_eq!(binding.parameter_types, [23]);
    assert_eq!(
        (binding.parameter_count, &binding.bind[..]),
        (1, &b"\0\0\0\x01\0\0\0\x0221\0\0"[..])
    );
}

/// PostgreSQL's error names the portal.
#[tokio::test]
async fn a_parameter_that_does_not_fit_is_an_error_of_the_clients_own_portal() {
    let (_proxy, mut client) = playing_for("SELECT $1", rewrite_to("SELECT $1 + $1")).await;
    let typed = frame('P', b"s\0SELECT $1\0\0\x01\0\0\0\x17");
    client.exchange(&[typed, sync()].concat()).await;
    let two_bytes_of_four = frame('B', b"\0s\0\0\x01\0\x01\0\x01\0\0\0\x02\0\x15\0\0");
    let bytes = [two_bytes_of_four, execute("", 0), sync()].concat();
    let replies = client.exchange(&bytes).await;
    assert_eq!(tags(&replies), "EZ");
    assert!(replies[0].contains("08P01"), "{replies:?}");
    assert!(replies[0].contains("unnamed portal"), "{replies:?}");
    assert_eq!(values(&client.query(NOTHING_LEFT).await), ["1"]);
}

#[tokio::test]
async fn a_failed_rewritten_form_of_a_named_statement_leaves_no_trace() {
    let broken = [
        ("SELECT * FROM nowhere", "42P01"),
        ("SELECT (1/0)::text", "22012"),
        ("SELECT 'two', 'columns'", "XX000"),
        ("SELECT 1", "XX000"),
    ];
    for (text, expected_state) in broken {
        let (proxy, mut client) = playing(rewrite_to(text)).await;
        prepare(&mut client, "s", ASKED).await;
        for expected_status in ['I', 'T'] {
            let replies = client.exchange(&run("s")).await;
            assert_eq!(
                (tags(&replies).as_str(), status(&replies)),
                ("2TDCZ", expected_status),
                "{text}"
            );
            assert_eq!(values(&replies), ["asked"], "{text}");
            client
                .query("BEGIN; CREATE TEMP TABLE IF NOT EXISTS mine (x int)")
                .await;
        }
        let replies = client.query(NOTHING_LEFT).await;
        assert_eq!(values(&replies), ["1"], "{text}: {replies:?}");
        assert_eq!(
            tags(&client.query("SELECT x FROM mine").await),
            "TCZ",
            "{text}: earlier work survives"
        );
        let failed = proxy.shared.router.failed.lock().unwrap();
        assert_eq!(
            *failed,
            vec![(ASKED.to_owned(), expected_state.to_owned()); 2]
        );
    }
}

#[tokio::test]
async fn errors_of_a_rewritten_named_statement_leave_no_own_statement() {
    let sql = "SELECT (1/(3 - g))::text AS \"?column?\" FROM generate_series(1, 5) g";
    let (_proxy, mut client) = playing(rewrite_to(sql)).await;
    prepare(&mut client, "s", ASKED).await;
    for _ in 0..2 {
        assert_eq!(tags(&client.exchange(&run("s")).await), "2TDDEZ");
    }
    client.query("BEGIN").await;
    let replies = client.exchange(&run("s")).await;
    assert_eq!((tags(&replies).as_str(), status(&replies)), ("2TDDEZ", 'E'));
    client.query("ROLLBACK").await;
    assert_eq!(values(&client.query(NOTHING_LEFT).await), ["1"]);
}

#[tokio::test]
async fn a_statement_prepared_with_flush_is_served() {
    // As asyncpg does: Parse, Describe, Flush; then Bind, Execute, Sync.
    for (play, expected) in [
        (answer_like_asked("cached").await, "cached"),
        (rewrite_to("SELECT 'rewritten'"), "rewritten"),
        (Play::Passthrough { clean: true }, "asked"),
    ] {
        let (proxy, mut client) = playing(play).await;
        for name in ["s", ""] {
            for _ in 0..2 {
                client
                    .send(&[parse(name, ASKED), describe('S', name), frame('H', b"")].concat())
                    .await;
                assert_eq!(tags(&client.until('T').await), "1tT");
                let replies = client
                    .exchange(&[bind("", name), execute("", 0), sync()].concat())
                    .await;
                assert_eq!((tags(&replies).as_str(), status(&replies)), ("2DCZ", 'I'));
                assert_eq!(values(&replies), [expected]);
                let replies = client.exchange(&[close('S', name), sync()].concat()).await;
                assert_eq!(tags(&replies), "3Z");
                client.assert_silent().await;
            }
        }
        assert_eq!(proxy.shared.counters.routed.get(), 4, "{expected}");
    }
}

#[tokio::test]
async fn names_that_ended_are_postgresqls_to_refuse() {
    let ends: [&[u8]; 5] = [
        &[close('S', "s"), sync()].concat(),
        &query("DEALLOCATE s"),
        &query("DEALLOCATE ALL"),
        &query("DISCARD ALL"),
        &query("DO $$BEGIN EXECUTE 'DEALLOCATE s'; END$$"),
    ];
    for end in ends {
        let (_proxy, mut client) = playing(answer_like_asked("cached").await).await;
        prepare(&mut client, "s", ASKED).await;
        expect(&mut client, "s", "cached").await;
        client.exchange(end).await;
        expect_error(&mut client, "s", "26000").await;
        // SQL shares the names, and is passed through.
        client.query("PREPARE s AS SELECT 'by SQL'").await;
        expect(&mut client, "s", "by SQL").await;
        client.query("DEALLOCATE s").await;
        prepare(&mut client, "s", ASKED).await;
        expect(&mut client, "s", "cached").await;
    }
}

#[tokio::test]
async fn sql_may_put_another_statement_in_a_names_place() {
    let (_proxy, mut client) = playing(answer_like_asked("cached").await).await;
    prepare(&mut client, "s", ASKED).await;
    let swap =
        "DO $$BEGIN EXECUTE 'DEALLOCATE s'; EXECUTE 'PREPARE s AS SELECT ''swapped'''; END$$";
    client.query(swap).await;
    expect(&mut client, "s", "swapped").await;
    let refused = client.exchange(&[parse("s", ASKED), sync()].concat()).await;
    assert!(refused[0].contains("42P05"));
    expect(&mut client, "s", "swapped").await;
}

#[tokio::test]
async fn a_refused_or_skipped_parse_prepares_nothing() {
    let (_proxy, mut client) = playing(answer_like_asked("cached").await).await;
    let bytes = [
        parse("bad", "SELEC"),
        parse("s", ASKED),
        sync(),
        parse("t", ASKED),
        sync(),
    ]
    .concat();
    client.send(&bytes).await;
    assert_eq!(tags(&client.until_ready().await), "EZ");
    assert_eq!(tags(&client.until_ready().await), "1Z");
    expect_error(&mut client, "s", "26000").await;
    expect_error(&mut client, "bad", "26000").await;
    expect(&mut client, "t", "cached").await;
}

#[tokio::test]
async fn a_plan_whose_columns_changed_is_refused_as_postgresql_does() {
    const FROM_TABLE: &str = "SELECT x FROM changing";
    for play in [answer_like_asked("cached").await, rewrite_to("SELECT 1")] {
        let (_proxy, mut client) = playing_for(FROM_TABLE, play).await;
        let other = &mut Client::connect(_proxy.port).await;
        other.query("DROP TABLE IF EXISTS changing; CREATE TABLE changing (x int); INSERT INTO changing VALUES (7)").await;
        prepare(&mut client, "s", FROM_TABLE).await;
        prepare(&mut client, "", FROM_TABLE).await;
        expect(&mut client, "s", "7").await;
        other.query("ALTER TABLE changing ALTER x TYPE text").await;
        for name in ["s", ""] {
            expect_error(&mut client, name, "0A000").await;
        }
        client.query("BEGIN").await;
        let replies = client.exchange(&run("s")).await;
        assert_eq!((tags(&replies).as_str(), status(&replies)), ("EZ", 'E'));
        assert!(replies[0].contains("cached plan must not change result type"));
        assert!(client.query("COMMIT").await[0].contains("ROLLBACK"));
        assert_eq!(values(&client.query(NOTHING_LEFT).await), ["1"]);
        other.query("DROP TABLE changing").await;
    }
}

#[tokio::test]
async fn the_unnamed_statement_of_an_answered_batch_survives_a_named_one() {
    const OTHER: &str = "SELECT 'other'";
    let plays = [
        (ASKED, answer_like_asked("cached").await),
        (OTHER, rewrite_to("SELECT 'rewritten'")),
    ];
    let proxy = Proxy::start(&server().await, Script::new(plays)).await;
    let mut client = Client::connect(proxy.port).await;
    prepare(&mut client, "s", OTHER).await;
    assert_eq!(values(&client.exchange(&batch(ASKED)).await), ["cached"]);
    expect(&mut client, "s", "rewritten").await;
    expect(&mut client, "", "asked").await;
}

#[tokio::test]
async fn the_portal_of_a_named_statement_lives_in_its_transaction() {
    let (_proxy, mut client) = playing(answer_like_asked("cached").await).await;
    prepare(&mut client, "s", ASKED).await;
    client.query("BEGIN").await;
    expect(&mut client, "s", "cached").await;
    let again = [execute("", 0), sync()].concat();
    assert_eq!(
        tags(&client.exchange(&again).await),
        "CZ",
        "it has run to its end"
    );
    client.query("COMMIT").await;
    expect(&mut client, "s", "cached").await;
    assert!(client.exchange(&again).await[0].contains("34000"));
}

#[tokio::test]
async fn pipelines_and_limited_portals_are_relayed_whole() {
    let (proxy, mut client) = playing(answer_like_asked("cached").await).await;
    prepare(&mut client, "s", ASKED).await;
    client.send(&[run("s"), run("s")].concat()).await;
    for _ in 0..2 {
        assert_eq!(values(&client.until_ready().await), ["asked"]);
    }
    let two_portals = [
        bind("", "s"),
        bind("p", "s"),
        execute("", 0),
        execute("p", 0),
        sync(),
    ]
    .concat();
    assert_eq!(
        values(&client.exchange(&two_portals).await),
        ["asked", "asked"]
    );
    let limited = [bind("", "s"), execute("", 1), sync()].concat();
    assert_eq!(tags(&client.exchange(&limited).await), "2DsZ");
    assert_eq!(proxy.shared.counters.routed.get(), 0);
    expect(&mut client, "s", "cached").await;
}

#[tokio::test]
async fn verifying_takes_no_round_trip_until_something_may_have_changed() {
    let (proxy, mut client) = playing(answer_like_asked("cached").await).await;
    prepare(&mut client, "s", ASKED).await;
    let began = std::time::Instant::now();
    for _ in 0..5 {
        expect(&mut client, "s", "cached").await;
    }
    let is_slow = began.elapsed() > proxy.shared.limits.facts_age_max;
    assert!(is_slow || proxy.shared.counters.probes.get() == 1);
}

#[tokio::test]
async fn names_and_texts_of_any_size_pass() {
    let (_proxy, mut client) = playing(answer_like_asked("cached").await).await;
    prepare(&mut client, "s", ASKED).await;
    let long = format!("SELECT '{}'", "x".repeat(300_000));
    prepare(&mut client, "long", &long).await;
    assert_eq!(
        values(&client.exchange(&run("long")).await)[0].len(),
        300_000
    );
    // Byte by byte: each Parse is held until it is whole, and no longer.
    for byte in [parse("slow", ASKED), sync()].concat() {
        client.send(&[byte]).await;
    }
    assert_eq!(tags(&client.until_ready().await), "1Z");
    expect(&mut client, "slow", "cached").await;
}
