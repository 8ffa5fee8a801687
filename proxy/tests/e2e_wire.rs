//! Around answers from rollups and the cache, a session stays PostgreSQL's: its settings as they come and go, values in
//! binary, portals and pipelines, what is said unasked, and the programs that speak of replication.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::process::Command;
use std::time::Instant;

use e2e_support::process::{Ran, run};
use e2e_support::{
    ANY, Client, Database, Lab, NOTICED, PATIENCE, Pair, Served, answers, batch, error, frames, ok,
    rows, server, sqlstate, start_server_with, tags,
};

const SCHEMA: &str = "
    CREATE TABLE sale (id int PRIMARY KEY, kind text NOT NULL, code varchar(8) NOT NULL, day date NOT NULL, at timestamptz NOT NULL,
        local timestamp NOT NULL, small int2 NOT NULL, plain int4 NOT NULL, large int8 NOT NULL, price numeric(10,2) NOT NULL,
        flag bool NOT NULL, mark uuid NOT NULL);
    INSERT INTO sale SELECT n, 'kind ' || n % 3, 'c' || n % 4, date '2024-02-27' + n % 5, timestamptz '2024-03-30 22:30:00+00' + n % 4 * interval '1 hour',
        timestamp '2024-02-29 12:34:56.789' + n % 3 * interval '1 day', n % 3, n % 4 - 2, 9000000000 + n % 3, n % 5 + 0.25, n % 2 = 0,
        ('00000000-0000-0000-0000-00000000000' || n % 3)::uuid
      FROM generate_series(1, 200) n;
    CREATE SCHEMA \"a b\";
    CREATE TABLE \"a b\".note AS SELECT 1 AS x;";

const KEYS: &str = "kind, code, day, at, local, small, plain, large, price, flag, mark";
const BY_MOMENT: &str = "SELECT at, count(*), sum(price), max(day) FROM sale GROUP BY at";
const BY_KIND: &str = "SELECT kind, count(*), sum(price), avg(large) FROM sale GROUP BY kind";

async fn lab() -> Lab {
    let by_all =
        format!("SELECT {KEYS}, count(*), sum(price), sum(large) FROM sale GROUP BY {KEYS}");
    Lab::start(&Database::with(SCHEMA).await, ANY, &[("by_all", &by_all)]).await
}

/// Asserts that pgstar answers the statement itself, and as PostgreSQL does.
async fn assert_answered(pair: &mut Pair, sql: &str) {
    assert_ne!(pair.served(sql).await, Served::Passthrough, "{sql}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_come_and_go_around_answers() {
    let lab = lab().await;
    lab.database
        .run(
            "CREATE FUNCTION set_zone(zone text) RETURNS text LANGUAGE plpgsql AS
             $$BEGIN PERFORM set_config('TimeZone', zone, false); RETURN zone; END$$;
             CREATE FUNCTION zone_within() RETURNS text LANGUAGE sql SET TimeZone = 'Asia/Tokyo' AS
             $$SELECT current_setting('TimeZone')$$",
        )
        .await;
    let mut pair = lab.pair().await;
    assert_answered(&mut pair, BY_MOMENT).await;
    for steps in [
        &["BEGIN", "SET TimeZone = 'Asia/Tokyo'", "ROLLBACK"][..],
        &["BEGIN", "SET LOCAL TimeZone = 'Asia/Tokyo'", "COMMIT"],
        &[
            "BEGIN",
            "SAVEPOINT s",
            "SET TimeZone = 'Asia/Kolkata'",
            "ROLLBACK TO s",
            "COMMIT",
        ],
        &[
            "BEGIN",
            "SAVEPOINT s",
            "SET DateStyle = German",
            "RELEASE s",
            "COMMIT",
            "RESET DateStyle",
        ],
        &[
            "BEGIN",
            "SELECT set_config('TimeZone', 'Asia/Tokyo', true)",
            "COMMIT",
        ],
        &[
            "SELECT set_config('TimeZone', 'Asia/Tokyo', false)",
            "RESET ALL",
        ],
        &["SELECT set_zone('Europe/Berlin')", "RESET TimeZone"],
        &["SELECT zone_within()"],
        &["DO $$BEGIN SET LOCAL TimeZone = 'Asia/Tokyo'; END$$"],
        &[
            "DO $$BEGIN SET TimeZone = 'Asia/Tokyo'; END$$",
            "DISCARD ALL",
        ],
        &[
            "SET TIME ZONE INTERVAL '-08:00' HOUR TO MINUTE",
            "SET TIME ZONE LOCAL",
        ],
        &[
            "SET extra_float_digits = -5; SET IntervalStyle = 'iso_8601'",
            "RESET ALL",
        ],
        &[
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "RESET ALL",
        ],
        &["SET ROLE pg_read_all_data", "RESET ROLE"],
        &[
            "SET SESSION AUTHORIZATION postgres",
            "SET ROLE NONE",
            "RESET SESSION AUTHORIZATION",
        ],
        &["SET search_path = nowhere", "SET search_path TO DEFAULT"],
        &["BEGIN", "SET search_path = \"a b\"", "ROLLBACK"],
        &["SET TimeZone = 'nowhere'"],
        &[
            "BEGIN",
            "SELECT 1/0",
            "SET TimeZone = 'Asia/Tokyo'",
            "ROLLBACK",
        ],
        &[
            "BEGIN; SET TimeZone = 'Asia/Tokyo'; SELECT 1/0; COMMIT",
            "ROLLBACK",
        ],
    ] {
        for step in steps {
            pair.same(step).await;
            pair.same(BY_MOMENT).await;
            pair.same_bytes(&batch(BY_MOMENT, &[], &[], 0, "P"), step)
                .await;
        }
        assert_answered(&mut pair, BY_MOMENT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_from_outside_is_told_and_counts() {
    let own = start_server_with(&[]).await;
    let database = Database::create_on(&own, "template0").await;
    database.run(SCHEMA).await;
    let by_moment = [(
        "by_moment",
        "SELECT at, count(*), sum(price), max(day) FROM sale GROUP BY at",
    )];
    let lab = Lab::start(&database, ANY, &by_moment).await;
    let mut pair = lab.pair().await;
    assert_answered(&mut pair, BY_MOMENT).await;
    let mut other = database.direct().await;
    for (name, value) in [
        ("TimeZone", "'Asia/Tokyo'"),
        ("DateStyle", "'German'"),
        ("TimeZone", "DEFAULT"),
    ] {
        ok(&mut other, &format!("ALTER SYSTEM SET {name} = {value}")).await;
        ok(&mut other, "SELECT pg_reload_conf()").await;
        // A session hears of it with the next answer that its backend gives, which is printed so already.
        let told = until_told(&mut pair.direct).await;
        assert_eq!(told, until_told(&mut pair.through).await);
        pair.same(BY_MOMENT).await;
        assert_answered(&mut pair, BY_MOMENT).await;
    }
}

/// The first answer that comes with a changed setting, in some order.
async fn until_told(session: &mut Client) -> Vec<Vec<u8>> {
    let began = Instant::now();
    loop {
        let frames = session.query(BY_MOMENT).await;
        if tags(&frames).contains('S') {
            let mut bytes: Vec<Vec<u8>> = frames.into_iter().map(|frame| frame.0).collect();
            bytes.sort();
            return bytes;
        }
        assert!(began.elapsed() < NOTICED, "nothing is told");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_reach_a_session_that_was_just_answered() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    pair.same("LISTEN news").await;
    for payload in ["first", "second"] {
        assert_answered(&mut pair, BY_KIND).await;
        let mut other = lab.session().await;
        ok(&mut other, &format!("NOTIFY news, '{payload}'")).await;
        for session in [&mut pair.direct, &mut pair.through] {
            let frame = session.frame().await.unwrap();
            assert_eq!(frame.tag(), 'A');
            assert!(frame.contains(payload));
            assert_eq!(frame.body()[..4], other.backend_pid().to_be_bytes());
        }
    }
    // By itself and amid a transaction: it comes when that is over.
    for sql in ["BEGIN", "NOTIFY news, 'own'", BY_KIND] {
        pair.same(sql).await;
    }
    for session in [&mut pair.direct, &mut pair.through] {
        assert!(tags(&session.query("COMMIT").await).contains('A'));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn options_at_the_start_are_the_session_s() {
    let lab = lab().await;
    for options in [
        "-c TimeZone=Asia/Tokyo -c DateStyle=SQL,DMY",
        "-c search_path=\"a\\ b\",public",
        "--search_path=public -c extra_float_digits=-3",
        "  -c  TimeZone=UTC\t-c TimeZone=Asia/Kolkata ",
        "-c pgstar.freshness=any",
        "-c application_name=a\\\\b",
    ] {
        let parameters = [("options", options), ("IntervalStyle", "iso_8601")];
        let mut pair = lab.pair_with(&parameters).await;
        for sql in [
            BY_MOMENT,
            "SHOW search_path",
            "SHOW application_name",
            "SELECT interval '26 hours'",
            "SET TimeZone = 'UTC'; RESET ALL",
            BY_MOMENT,
            "SHOW TimeZone",
        ] {
            pair.same(sql).await;
        }
        assert_answered(&mut pair, BY_MOMENT).await;
    }
    for options in ["-c nonsense=1", "-c", "-x", "-c search_path"] {
        let parameters = [("options", options)];
        let direct = lab.database.direct_with(&parameters).await;
        let through = lab.session_with(&parameters).await;
        assert!(error(&direct.greeting).is_some(), "{options}");
        assert_eq!(direct.greeting, through.greeting, "{options}");
    }
}

/// A Bind of one value in binary to the unnamed statement, asking for binary columns.
fn bind_binary(value: &[u8]) -> Vec<u8> {
    let body = [
        &b"\0\0\0\x01\0\x01\0\x01"[..],
        &(value.len() as i32).to_be_bytes(),
        value,
        b"\0\x01\0\x01",
    ];
    frames::frame('B', &body.concat())
}

/// PostgreSQL compares varchars as texts.
fn array_of(constant: &str) -> String {
    format!("ARRAY[{}]", constant.replace("::varchar", "::text"))
}

/// What PostgreSQL sends for a constant in binary.
async fn in_binary(direct: &mut Client, constant: &str) -> Vec<u8> {
    let sql = format!("SELECT {constant}");
    let frames = direct.exchange(&batch(&sql, &[], &[], 1, "")).await;
    let row = frames.iter().find(|frame| frame.tag() == 'D').unwrap();
    // Its number of columns and the value's length come before.
    row.body()[6..].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_every_type_go_in_and_come_out_in_binary() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    let mut answered = vec![];
    for (column, constant) in [
        ("kind", "'kind 1'::text"),
        ("code", "'c2'::varchar"),
        ("day", "'2024-02-29'::date"),
        ("at", "'2024-03-30 23:30:00+00'::timestamptz"),
        ("local", "'2024-02-29 12:34:56.789'::timestamp"),
        ("small", "2::int2"),
        ("plain", "-1::int4"),
        ("large", "9000000001::int8"),
        ("price", "3.25::numeric"),
        ("flag", "true"),
        ("mark", "'00000000-0000-0000-0000-000000000001'::uuid"),
    ] {
        let value = in_binary(&mut pair.direct, constant).await;
        let array = in_binary(&mut pair.direct, &array_of(constant)).await;
        for (condition, value) in [("= $1", value), ("= ANY ($1)", array)] {
            let sql = format!(
                "SELECT {column}, count(*), sum(price), avg(price), sum(large) FROM sale WHERE {column} {condition} GROUP BY {column}"
            );
            let sent = [
                frames::parse("", &sql),
                bind_binary(&value),
                frames::describe('P', ""),
                frames::execute("", 0),
                frames::sync(),
            ];
            let before = answers(&mut pair.through).await;
            let got = pair.same_bytes(&sent.concat(), &sql).await;
            assert!(tags(&got).contains('D'), "{sql}: {got:?}");
            if answers(&mut pair.through).await > before {
                answered.push((column, condition));
            }
        }
    }
    assert!(answered.len() > 10, "pgstar answered only {answered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn portals_and_pipelines_around_answers() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    const ORDERED: &str =
        "SELECT kind, count(*) FROM sale GROUP BY kind ORDER BY kind /* total order */";
    let answered = batch(ORDERED, &[], &[], 0, "SP");
    let failing = batch("SELECT 1/0", &[], &[], 0, "P");
    let limited = [
        frames::parse("s", ORDERED),
        frames::bind("p", "s"),
        frames::describe('P', "p"),
        frames::execute("p", 2),
        frames::execute("p", 2),
        frames::execute("p", 0),
        frames::sync(),
    ]
    .concat();
    let named = |what: &[Vec<u8>]| [what.concat(), frames::sync()].concat();
    for round in 0..2 {
        assert_answered(&mut pair, ORDERED).await;
        pair.same_bytes(&answered, "answered").await;
        pair.same_bytes(&limited, "limited").await;
        pair.same_bytes(
            &named(&[
                frames::bind("", "s"),
                frames::describe('P', ""),
                frames::execute("", 0),
            ]),
            "by name",
        )
        .await;
        pair.same_bytes(
            &named(&[frames::bind("", "s"), frames::execute("", 1)]),
            "one row",
        )
        .await;
        pair.same_bytes(&named(&[frames::close('S', "s")]), "closed")
            .await;
        let gone = pair
            .same_bytes(
                &named(&[frames::bind("", "s"), frames::execute("", 0)]),
                "gone",
            )
            .await;
        assert_eq!(sqlstate(&gone).as_deref(), Some("26000"));
        // A portal that lives on in its transaction, beside answers.
        pair.same("BEGIN").await;
        pair.same_bytes(
            &named(&[
                frames::parse("", ORDERED),
                frames::bind("open", ""),
                frames::execute("open", 1),
            ]),
            "opened",
        )
        .await;
        pair.same_bytes(&answered, "beside it").await;
        pair.same_bytes(&named(&[frames::execute("open", 1)]), "second row")
            .await;
        pair.same(if round == 0 { "COMMIT" } else { "ROLLBACK" })
            .await;
        let gone = pair
            .same_bytes(&named(&[frames::execute("open", 1)]), "gone")
            .await;
        assert_eq!(sqlstate(&gone).as_deref(), Some("34000"));
        // Several at once, one of which fails: what follows it is skipped up to its own Sync.
        let at_once = [
            &answered[..],
            &failing,
            &answered,
            &frames::query(ORDERED),
            &answered,
        ]
        .concat();
        let in_one = [
            frames::parse("", ORDERED),
            frames::bind("", ""),
            frames::execute("", 0),
            frames::parse("", "SELECT 1/0"),
            frames::bind("", ""),
            frames::execute("", 0),
            frames::parse("", ORDERED),
            frames::bind("", ""),
            frames::execute("", 0),
            frames::sync(),
        ]
        .concat();
        for (bytes, readies) in [(at_once, 5), (in_one, 1)] {
            let mut said = vec![];
            for session in [&mut pair.direct, &mut pair.through] {
                session.send(&bytes).await;
                let mut frames = vec![];
                for _ in 0..readies {
                    frames.extend(session.until_ready().await);
                }
                said.push(frames);
            }
            assert_eq!(said[0], said[1]);
        }
        // Flush delivers what is there, before and after what pgstar answers.
        let flushed = [
            frames::parse("f", ORDERED),
            frames::describe('S', "f"),
            frames::frame('H', b""),
        ]
        .concat();
        for (bytes, end) in [
            (flushed, 'T'),
            (
                [
                    frames::bind("", "f"),
                    frames::execute("", 0),
                    frames::frame('H', b""),
                ]
                .concat(),
                'C',
            ),
            (named(&[frames::close('S', "f")]), 'Z'),
        ] {
            let mut said = vec![];
            for session in [&mut pair.direct, &mut pair.through] {
                session.send(&bytes).await;
                said.push(session.until(end).await);
            }
            assert_eq!(said[0], said[1]);
        }
    }
}

// ---- replication ----

/// Runs one of PostgreSQL's programs against a port; `None` where this server came without it.
async fn program(name: &str, port: u16, arguments: &[&str]) -> Option<Ran> {
    let path = server().await.bin_dir().join(name);
    if !path.exists() {
        eprintln!("SKIPPED: there is no {name} of this server's version");
        return None;
    }
    let mut command = Command::new(path);
    command.args(["--host", "127.0.0.1", "--username", "postgres", "--port"]);
    command
        .arg(port.to_string())
        .args(arguments)
        .env("LC_ALL", "C");
    let ran = tokio::time::timeout(PATIENCE * 3, run(command)).await;
    Some(ran.expect("the program ends"))
}

fn assert_succeeded(ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_backup_is_whole() {
    let lab = lab().await;
    let directory = tempfile::tempdir().unwrap();
    let into = directory.path().join("backup");
    let into = into.to_str().unwrap();
    let arguments = [
        "--pgdata",
        into,
        "--wal-method",
        "stream",
        "--checkpoint",
        "fast",
    ];
    let Some(ran) = program("pg_basebackup", lab.port(), &arguments).await else {
        return;
    };
    assert_succeeded(&ran);
    let verify = server().await.bin_dir().join("pg_verifybackup");
    let mut command = Command::new(verify);
    command.arg("--no-parse-wal").arg(into);
    let verified = run(command).await;
    assert!(
        verified.out.contains("successfully verified"),
        "{verified:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_and_its_changes_are_received() {
    let lab = lab().await;
    let mut direct = lab.database.direct().await;
    let directory = tempfile::tempdir().unwrap();
    let (log, changes) = (
        directory.path().join("log"),
        directory.path().join("changes"),
    );
    std::fs::create_dir(&log).unwrap();
    let (log, changes) = (log.to_str().unwrap(), changes.to_str().unwrap());
    let database = lab.database.name.clone();
    let logical = ["--dbname", &database, "--slot", "wire_changes"];
    let create = [&logical[..], &["--create-slot", "--plugin", "pgoutput"]].concat();
    let Some(created) = program("pg_recvlogical", lab.port(), &create).await else {
        return;
    };
    assert_succeeded(&created);
    let begin = rows(&ok(&mut direct, "SELECT pg_current_wal_lsn()").await);
    ok(
        &mut direct,
        "CREATE PUBLICATION wire FOR TABLE sale; UPDATE sale SET kind = 'changed' WHERE id = 1",
    )
    .await;
    ok(
        &mut direct,
        "SELECT pg_switch_wal(); UPDATE sale SET kind = 'kind 1' WHERE id = 1",
    )
    .await;
    let end = rows(&ok(&mut direct, "SELECT pg_current_wal_flush_lsn()").await);
    let start = [
        &logical[..],
        &["--start", "--file", changes, "--endpos", &end[0]],
        &[
            "--option",
            "proto_version=1",
            "--option",
            "publication_names=wire",
        ],
    ]
    .concat();
    assert_succeeded(&program("pg_recvlogical", lab.port(), &start).await.unwrap());
    assert!(std::fs::metadata(changes).unwrap().len() > 0, "{begin:?}");
    let dropping = [&logical[..], &["--drop-slot"]].concat();
    assert_succeeded(
        &program("pg_recvlogical", lab.port(), &dropping)
            .await
            .unwrap(),
    );
    // It begins where the server is: nothing is before the end if others have begun another file of the log meanwhile.
    let began = Instant::now();
    while std::fs::read_dir(log).unwrap().count() == 0 {
        assert!(began.elapsed() < PATIENCE, "nothing is received");
        let end = rows(&ok(&mut direct, "SELECT pg_current_wal_flush_lsn()").await);
        let receive = ["--directory", log, "--endpos", &end[0]];
        let receive = [&receive[..], &["--no-loop", "--synchronous"]].concat();
        assert_succeeded(
            &program("pg_receivewal", lab.port(), &receive)
                .await
                .unwrap(),
        );
    }
}
