//! What a route says is what the client gets, in the frames that its protocol needs, and a failed
//! rewritten statement leaves no trace.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod wire_support;

use pgstar::route::{Answer, ColumnOrigin, Temporary};
use pgstar::wire::{ErrorReport, Severity};
use wire_support::*;

const ASKED: &str = "SELECT 'asked'";

/// A proxy that plays this for [`ASKED`], and a client of it.
async fn playing(play: Play) -> (Proxy<Script>, Client) {
    let proxy = Proxy::start(&server().await, Script::new([(ASKED, play)])).await;
    let client = Client::connect(proxy.port).await;
    (proxy, client)
}

fn stored(answer: Answer) -> Vec<u8> {
    [answer.row_description, answer.rows].concat()
}

fn joined(frames: &[Frame]) -> Vec<u8> {
    frames.iter().flat_map(|frame| frame.0.clone()).collect()
}

fn status(frames: &[Frame]) -> char {
    frames.last().unwrap().body()[0] as char
}

#[tokio::test]
async fn a_cached_answer_comes_as_it_was_stored() {
    let answer = answer_of(&["one", "two"]);
    let (_proxy, mut client) = playing(Play::Cached(answer.clone())).await;
    let replies = client.query(ASKED).await;
    assert_eq!(tags(&replies), "TDDCZ");
    assert_eq!(joined(&replies[..4]), stored(answer));
    assert_eq!(status(&replies), 'I');
    client.query("BEGIN").await;
    assert_eq!(status(&client.query(ASKED).await), 'T');
}

#[tokio::test]
async fn a_cached_answer_to_a_batch_has_the_frames_that_were_asked_for() {
    let (_proxy, mut client) = playing(Play::Cached(answer_of(&["one"]))).await;
    let parsed = || parse("", ASKED);
    let run = || [bind("", ""), execute("", 0), sync()].concat();
    assert_eq!(tags(&client.exchange(&batch(ASKED)).await), "12TDCZ");
    assert_eq!(
        tags(&client.exchange(&[parsed(), run()].concat()).await),
        "12DCZ"
    );
    assert_eq!(
        tags(
            &client
                .exchange(&[parsed(), describe('S', ""), run()].concat())
                .await
        ),
        "1tT2DCZ"
    );
}

#[tokio::test]
async fn a_large_cached_answer_arrives_whole() {
    let row = "x".repeat(1_000_000);
    let (_proxy, mut client) = playing(Play::Cached(answer_of(&[&row, &row, &row]))).await;
    assert_eq!(values(&client.query(ASKED).await), [&*row, &*row, &*row]);
    assert_eq!(values(&client.query("SELECT 'after'").await), ["after"]);
}

#[tokio::test]
async fn the_unnamed_statement_of_an_answered_batch_can_be_used_later() {
    let (_proxy, mut client) = playing(Play::Cached(answer_of(&["cached"]))).await;
    let again = [bind("", ""), execute("", 0), sync()].concat();
    assert_eq!(values(&client.exchange(&batch(ASKED)).await), ["cached"]);
    let replies = client.exchange(&again).await;
    assert_eq!(
        (tags(&replies), values(&replies)),
        ("2DCZ".into(), vec!["asked".into()])
    );
    // A Query drops the unnamed statement, whoever answers it.
    client.exchange(&batch(ASKED)).await;
    client.query("SELECT 1").await;
    assert!(client.exchange(&again).await[0].contains("26000"));
    client.exchange(&batch("SELECT 'other'")).await;
    client.query(ASKED).await;
    assert!(client.exchange(&again).await[0].contains("26000"));
}

#[tokio::test]
async fn the_unnamed_portal_of_an_answered_batch_lives_in_its_transaction() {
    let (_proxy, mut client) = playing(Play::Cached(answer_of(&["cached"]))).await;
    client.query("BEGIN").await;
    client.exchange(&batch(ASKED)).await;
    let replies = client.exchange(&[execute("", 0), sync()].concat()).await;
    assert_eq!(
        tags(&replies),
        "CZ",
        "as PostgreSQL answers for a portal that has run to its end"
    );
}

#[tokio::test]
async fn a_rewritten_batch_leaves_the_clients_own_unnamed_statement() {
    let (_proxy, mut client) = playing(rewrite_to("SELECT 'rewritten'")).await;
    assert_eq!(values(&client.exchange(&batch(ASKED)).await), ["rewritten"]);
    let again = [bind("", ""), execute("", 0), sync()].concat();
    assert_eq!(values(&client.exchange(&again).await), ["asked"]);
}

#[tokio::test]
async fn local_answers_and_refusals() {
    let (_proxy, mut client) = playing(Play::Local(answer_of(&["local"]))).await;
    assert_eq!(values(&client.query(ASKED).await), ["local"]);
    let report = ErrorReport {
        severity: Severity::Error,
        sqlstate: "42704",
        message: "no such thing",
        detail: None,
        hint: None,
    };
    let (_proxy, mut client) = playing(Play::LocalError(report.frame())).await;
    for bytes in [query(ASKED), batch(ASKED)] {
        assert_eq!(status(&client.exchange(&bytes).await), 'I');
        client.query("BEGIN").await;
        let replies = client.exchange(&bytes).await;
        assert_eq!((tags(&replies).as_str(), status(&replies)), ("EZ", 'E'));
        assert!(replies[0].contains("no such thing"));
        // The transaction has really failed: nothing of it can be committed.
        assert!(client.query("COMMIT").await[0].contains("ROLLBACK"));
    }
}

#[tokio::test]
async fn a_rewritten_statement_answers_in_every_protocol_and_status() {
    let (proxy, mut client) = playing(rewrite_to("SELECT 'rewritten'")).await;
    let described = [
        parse("", ASKED),
        describe('S', ""),
        bind("", ""),
        execute("", 0),
        sync(),
    ]
    .concat();
    let undescribed = [parse("", ASKED), bind("", ""), execute("", 0), sync()].concat();
    let cases = [
        (query(ASKED), "TDCZ"),
        (batch(ASKED), "12TDCZ"),
        (described, "1tT2DCZ"),
        (undescribed, "12DCZ"),
    ];
    for expected_status in ['I', 'T'] {
        for (bytes, expected) in &cases {
            let replies = client.exchange(bytes).await;
            assert_eq!(
                (tags(&replies).as_str(), status(&replies)),
                (*expected, expected_status)
            );
            assert_eq!(values(&replies), ["rewritten"]);
        }
        client.query("BEGIN").await;
    }
    client.query("ROLLBACK").await;
    assert_eq!(proxy.shared.counters.rewritten.get(), 8);
    assert_eq!(proxy.shared.counters.fallbacks.get(), 0);
}

#[tokio::test]
async fn a_rewritten_statement_keeps_its_parameters() {
    let sql = "SELECT $1";
    // Without the type that Parse gives, PostgreSQL cannot tell which addition this is.
    let play = rewrite_to("SELECT $1 + $1");
    let proxy = Proxy::start(&server().await, Script::new([(sql, play)])).await;
    let mut client = Client::connect(proxy.port).await;
    let typed = frame('P', b"\0SELECT $1\0\0\x01\0\0\0\x17");
    let bytes = [
        typed,
        bind_texts(&["21"]),
        describe('P', ""),
        execute("", 0),
        sync(),
    ]
    .concat();
    assert_eq!(values(&client.exchange(&bytes).await), ["42"]);
    let bindings = proxy.shared.router.bindings.lock().unwrap();
    let binding = bindings[0].as_ref().unwrap();
    assert_eq!(binding.parameter_types, [23]);
    assert_eq!(
        (binding.parameter_count, &binding.bind[..]),
        (1, &b"\0\0\0\x01\0\0\0\x0221\0\0"[..])
    );
}

#[tokio::test]
async fn origins_are_those_of_the_original() {
    let origins = vec![ColumnOrigin {
        table: 16_999,
        attnum: 7,
    }];
    let sql = "SELECT 'rewritten'".to_owned();
    let (_proxy, mut client) = playing(Play::Rewrite {
        sql,
        origins,
        keep_bytes_max: None,
    })
    .await;
    let replies = client.query(ASKED).await;
    let after_name = 2 + "?column?\0".len();
    assert_eq!(
        replies[0].body()[after_name..after_name + 6],
        [0, 0, 0x42, 0x67, 0, 7]
    );
}

#[tokio::test]
async fn a_failed_rewritten_statement_leaves_no_trace() {
    let broken = [
        "SELECT * FROM nowhere",
        "SELECT 1/0",
        "SELECT 'two', 'columns'",
    ];
    for (text, expected_state) in broken.into_iter().zip(["42P01", "22012", "XX000"]) {
        let (proxy, mut client) = playing(rewrite_to(text)).await;
        for expected_status in ['I', 'T'] {
            for (bytes, expected) in [(query(ASKED), "TDCZ"), (batch(ASKED), "12TDCZ")] {
                let replies = client.exchange(&bytes).await;
                assert_eq!(
                    (tags(&replies).as_str(), status(&replies)),
                    (expected, expected_status),
                    "{text}"
                );
                assert_eq!(values(&replies), ["asked"], "{text}");
            }
            client.query("BEGIN").await;
            client
                .query("CREATE TEMP TABLE IF NOT EXISTS mine (x int)")
                .await;
        }
        assert_eq!(
            tags(&client.query("SELECT x FROM mine").await),
            "TCZ",
            "{text}: earlier work survives"
        );
        assert!(
            client.query("RELEASE SAVEPOINT pgstar_rewrite").await[0].contains("3B001"),
            "{text}"
        );
        let failed = proxy.shared.router.failed.lock().unwrap();
        assert_eq!(
            *failed,
            vec![(ASKED.to_owned(), expected_state.to_owned()); 4]
        );
    }
}

#[tokio::test]
async fn an_error_after_the_first_row_is_the_clients() {
    let sql = "SELECT 1/(3 - g) FROM generate_series(1, 5) g";
    let (proxy, mut client) = playing(rewrite_to(sql)).await;
    let replies = client.query(ASKED).await;
    assert_eq!(tags(&replies), "TDDEZ");
    client.query("BEGIN").await;
    let replies = client.exchange(&batch(ASKED)).await;
    assert_eq!(
        (tags(&replies).as_str(), status(&replies)),
        ("12TDDEZ", 'E')
    );
    assert_eq!(proxy.shared.counters.fallbacks.get(), 0);
}

#[tokio::test]
async fn a_timeout_is_not_a_reason_to_fall_back() {
    let (proxy, mut client) = playing(rewrite_to("SELECT pg_sleep(20)::text")).await;
    client.query("SET statement_timeout = 200").await;
    for bytes in [query(ASKED), batch(ASKED)] {
        let replies = client.exchange(&bytes).await;
        assert!(
            replies
                .iter()
                .any(|frame| frame.tag() == 'E' && frame.contains("57014")),
            "{replies:?}"
        );
    }
    client.query("BEGIN").await;
    assert_eq!(status(&client.query(ASKED).await), 'E');
    assert_eq!(proxy.shared.counters.fallbacks.get(), 0);
}

#[tokio::test]
async fn a_whole_answer_is_kept_and_half_of_one_is_not() {
    let keep = |sql: &str, max| Play::Rewrite {
        sql: sql.to_owned(),
        origins: vec![ColumnOrigin {
            table: 5,
            attnum: 1,
        }],
        keep_bytes_max: Some(max),
    };
    let rows = "SELECT repeat('x', 100) FROM generate_series(1, 10)";
    let (proxy, mut client) = playing(keep(rows, 10_000)).await;
    let direct = client.query(ASKED).await;
    client.query("BEGIN").await;
    // Not asked for, but needed to keep the answer.
    let undescribed = [parse("", ASKED), bind("", ""), execute("", 0), sync()].concat();
    client.exchange(&undescribed).await;
    let kept = proxy.shared.router.kept.lock().unwrap().clone();
    assert_eq!(kept.len(), 2);
    for answer in kept {
        assert_eq!(stored(answer), joined(&direct[..direct.len() - 1]));
    }
    let failing = "SELECT (1/(3 - g))::text FROM generate_series(1, 5) g";
    for (sql, max) in [(rows, 1_000), (failing, 10_000)] {
        let (proxy, mut client) = playing(keep(sql, max)).await;
        client.query(ASKED).await;
        assert!(proxy.shared.router.kept.lock().unwrap().is_empty(), "{sql}");
    }
}

#[tokio::test]
async fn facts_follow_the_session() {
    let (proxy, mut client) = playing(Play::Cached(answer_of(&["cached"]))).await;
    let changes = [
        "SET TimeZone = 'Asia/Tokyo'",
        "SELECT set_config('extra_float_digits', '0', false)",
        "SET search_path = information_schema",
        "CREATE TEMP TABLE t (x int)",
        "SET pgstar.freshness = '5s'",
        "SET pgstar.rewrite = off",
        "CREATE ROLE somebody; SET ROLE somebody",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
    ];
    client.query(ASKED).await;
    for change in changes {
        client.query(change).await;
        client.exchange(&batch(ASKED)).await;
    }
    client
        .query("ROLLBACK; RESET ROLE; DROP ROLE somebody; RESET ALL")
        .await;
    let facts = proxy.shared.router.facts.lock().unwrap().clone();
    let [first, zone, digits, path, temp, bound, off, role, isolation] = facts.as_slice() else {
        panic!("{facts:?}")
    };
    assert_eq!(
        (first.database.as_str(), first.role.as_str()),
        ("postgres", "postgres")
    );
    assert!(
        first.plain_strings
            && first.rewrite
            && first.cache
            && first.temporary == Temporary::default()
            && !first.wrote
    );
    assert_eq!(first.search_path, ["pg_catalog", "public"]);
    assert_eq!(zone.time_zone, "Asia/Tokyo");
    assert_eq!(path.search_path, ["pg_catalog", "information_schema"]);
    assert_ne!(temp.temporary, Temporary::default());
    assert_eq!(bound.freshness.as_deref(), Some("5s"));
    assert!(!off.rewrite);
    assert_eq!(role.role, "somebody");
    assert_eq!(
        (isolation.isolation.as_str(), role.isolation.as_str()),
        ("repeatable read", "read committed")
    );
    let prints = [first, zone, digits, path, role].map(|facts| facts.fingerprint.clone());
    assert!(
        (1..prints.len()).all(|at| !prints[..at].contains(&prints[at])),
        "each differs from all before"
    );
    assert_eq!(
        (&temp.fingerprint, &role.fingerprint),
        (&off.fingerprint, &isolation.fingerprint)
    );
}

#[tokio::test]
async fn facts_are_asked_once_until_something_may_change_them() {
    let (proxy, mut client) = playing(Play::Cached(answer_of(&["cached"]))).await;
    let limit_is_not_reached = std::time::Instant::now();
    for _ in 0..5 {
        client.query(ASKED).await;
    }
    assert!(
        limit_is_not_reached.elapsed() > proxy.shared.limits.facts_age_max
            || proxy.shared.counters.probes.get() == 1
    );
    let (proxy, mut client) = playing(Play::Passthrough { clean: false }).await;
    for _ in 0..5 {
        assert_eq!(values(&client.query(ASKED).await), ["asked"]);
    }
    assert_eq!(proxy.shared.counters.probes.get(), 5);
}

#[tokio::test]
async fn a_probe_does_not_write_and_sees_that_the_transaction_did() {
    let (proxy, mut client) = playing(Play::Cached(answer_of(&["cached"]))).await;
    client.query("CREATE TEMP TABLE w (x int)").await;
    client.query("BEGIN READ ONLY").await;
    client.query(ASKED).await;
    assert_eq!(
        tags(
            &client
                .query("SELECT 1 WHERE txid_current_if_assigned() IS NULL")
                .await
        ),
        "TDCZ"
    );
    client
        .query("ROLLBACK; BEGIN; INSERT INTO w VALUES (1)")
        .await;
    client.query(ASKED).await;
    let wrote: Vec<bool> = proxy
        .shared
        .router
        .facts
        .lock()
        .unwrap()
        .iter()
        .map(|facts| facts.wrote)
        .collect();
    assert_eq!(wrote, [false, true]);
}

#[tokio::test]
async fn a_failed_transaction_and_a_pipeline_are_left_to_postgresql() {
    let (proxy, mut client) = playing(Play::Cached(answer_of(&["cached"]))).await;
    client.query("BEGIN").await;
    client.query("SELECT 1/0").await;
    assert!(client.query(ASKED).await[0].contains("25P02"));
    client.query("ROLLBACK").await;
    client
        .send(&[query("SELECT 'first'"), query(ASKED)].concat())
        .await;
    assert_eq!(values(&client.until_ready().await), ["first"]);
    assert_eq!(values(&client.until_ready().await), ["asked"]);
    assert_eq!(proxy.shared.counters.routed.get(), 0);
    assert_eq!(values(&client.query(ASKED).await), ["cached"]);
}

#[tokio::test]
async fn notices_of_a_rewritten_statement_reach_the_client() {
    let (_proxy, mut client) = playing(rewrite_to("SELECT public.noisy()")).await;
    let body = "BEGIN RAISE NOTICE 'on the way'; RETURN 'loud'; END";
    client
        .query(&format!(
            "CREATE OR REPLACE FUNCTION public.noisy() RETURNS text LANGUAGE plpgsql AS $${body}$$"
        ))
        .await;
    let replies = client.query(ASKED).await;
    assert_eq!(values(&replies), ["loud"]);
    assert!(
        replies
            .iter()
            .any(|frame| frame.tag() == 'N' && frame.contains("on the way"))
    );
}

#[tokio::test]
async fn a_rewritten_answer_streams_rows_of_any_size() {
    let (_proxy, mut client) = playing(rewrite_to(
        "SELECT repeat('x', 5000000) FROM generate_series(1, 3)",
    ))
    .await;
    let replies = client.query(ASKED).await;
    assert_eq!(tags(&replies), "TDDDCZ");
    assert_eq!(
        values(&replies).iter().map(String::len).sum::<usize>(),
        15_000_000
    );
}

/// Answers `SELECT 'asked'` by another text once it is, or is not, confirmed.
fn confirmed_to(sql: &str, is_confirmed: bool) -> Play {
    Play::Confirm {
        sql: sql.to_owned(),
        origins: vec![ColumnOrigin {
            table: 0,
            attnum: 0,
        }],
        is_confirmed,
    }
}

#[tokio::test]
async fn an_answer_that_is_confirmed_goes_out_whole_and_is_kept() {
    let (proxy, mut client) = playing(confirmed_to("SELECT 'rewritten'", true)).await;
    for frames in [query(ASKED), batch(ASKED)] {
        let replies = client.exchange(&frames).await;
        assert_eq!(values(&replies), ["rewritten"]);
    }
    client.query("BEGIN").await;
    let replies = client.query(ASKED).await;
    assert_eq!((tags(&replies), status(&replies)), ("TDCZ".into(), 'T'));
    assert_eq!(proxy.shared.router.kept.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn an_answer_that_is_not_confirmed_is_seen_by_nobody() {
    let (proxy, mut client) = playing(confirmed_to("SELECT 'rewritten'", false)).await;
    for frames in [query(ASKED), batch(ASKED)] {
        let replies = client.exchange(&frames).await;
        assert_eq!(values(&replies), ["asked"]);
    }
    client.query("BEGIN").await;
    let replies = client.query(ASKED).await;
    assert_eq!(
        (values(&replies), status(&replies)),
        (vec!["asked".into()], 'T')
    );
    assert!(proxy.shared.router.kept.lock().unwrap().is_empty());
    assert!(
        proxy.shared.router.failed.lock().unwrap().is_empty(),
        "the next one may be confirmed"
    );
}

#[tokio::test]
async fn an_answer_too_large_to_be_held_back_is_the_originals() {
    let (proxy, mut client) = playing(confirmed_to(
        "SELECT repeat('x', 100000) FROM generate_series(1, 100)",
        true,
    ))
    .await;
    assert_eq!(values(&client.query(ASKED).await), ["asked"]);
    assert_eq!(proxy.shared.router.failed.lock().unwrap()[0].1, "54000");
}

#[tokio::test]
async fn an_observed_statement_is_the_clients_own_and_its_answer_is_kept() {
    let observe = || Play::Observe {
        keep_bytes_max: 1000,
    };
    let (proxy, mut client) = playing(observe()).await;
    let mut direct = Client::connect(proxy.server.as_ref().unwrap().port()).await;
    let run = || [bind("", ""), execute("", 0), sync()].concat();
    let batches = [
        query(ASKED),
        batch(ASKED),
        [parse("", ASKED), run()].concat(),
        [parse("", ASKED), describe('S', ""), run()].concat(),
        // The unnamed statement is the client's own afterwards.
        run(),
    ];
    for frames in batches {
        let through = joined(&client.exchange(&frames).await);
        assert_eq!(through, joined(&direct.exchange(&frames).await));
    }
    let kept = proxy.shared.router.kept.lock().unwrap();
    assert_eq!(kept.len(), 4);
    assert!(kept.iter().all(|answer| *answer == kept[0]));
}

#[tokio::test]
async fn an_observed_statement_that_fails_or_is_too_large_is_not_kept() {
    let failing = "SELECT 1 / 0";
    let large = "SELECT repeat('x', 400) FROM generate_series(1, 5)";
    let observe = || Play::Observe {
        keep_bytes_max: 1000,
    };
    let script = Script::new([(failing, observe()), (large, observe())]);
    let proxy = Proxy::start(&server().await, script).await;
    let mut client = Client::connect(proxy.port).await;
    client.query("BEGIN").await;
    let replies = client.query(failing).await;
    assert!(replies[0].contains("22012") && status(&replies) == 'E');
    client.query("ROLLBACK").await;
    assert_eq!(values(&client.query(large).await).len(), 5);
    assert!(proxy.shared.router.kept.lock().unwrap().is_empty());
}
