//! Ranges of time that cut a rollup's buckets, answered from the rollup and the base table in one statement:
//! both parts of an answer are of one state, however rows move between them.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use e2e_support::{Client, Database, Lab, batch, decision, explain, ok, rows, table};

/// A sale an hour for a hundred days.
const SCHEMA: &str = "
    CREATE TABLE sale (id int PRIMARY KEY, sold_at timestamp NOT NULL, seen_at timestamptz, amount int);
    ALTER TABLE sale REPLICA IDENTITY FULL;
    CREATE INDEX ON sale (sold_at);
    INSERT INTO sale SELECT n, timestamp '2024-01-01 00:30' + n * interval '1 hour',
                            timestamptz '2024-01-01 00:07+00' + n * interval '1 hour', nullif(n % 7, 0)
                       FROM generate_series(1, 2400) n;";
const ROLLUPS: [(&str, &str); 2] = [
    (
        "by_day",
        "SELECT date_trunc('day', sold_at) AS day, count(*), sum(amount), max(id) FROM sale GROUP BY 1",
    ),
    (
        "by_bin",
        "SELECT date_bin('15 minutes', seen_at, '2000-01-01 00:00+00') AS bin, count(*), sum(amount) FROM sale GROUP BY 1",
    ),
];
const RANGE: &str = "SELECT count(*), count(amount) FROM sale WHERE sold_at >= '2024-01-10 13:17' AND sold_at < '2024-03-20 09:42'";
const PATIENCE: Duration = Duration::from_secs(20);

async fn lab() -> Lab {
    Lab::start(&Database::with(SCHEMA).await, "", &ROLLUPS).await
}

async fn until_rollup(session: &mut Client, sql: &str) {
    let began = Instant::now();
    while !explain(session, sql).await["rollup"].is_string() {
        assert!(began.elapsed() < PATIENCE, "{sql}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_cut_buckets_are_answered_from_both() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    until_rollup(&mut pair.through, RANGE).await;
    for zone in ["UTC", "Asia/Kolkata", "America/New_York"] {
        pair.same(&format!("SET timezone = '{zone}'")).await;
        for sql in [
            RANGE,
            "SELECT date_trunc('month', sold_at), avg(amount) FROM sale WHERE sold_at > '2024-01-10 13:17' GROUP BY 1 ORDER BY 1",
            "SELECT count(*), sum(amount) FROM sale WHERE sold_at <= '2024-03-20 09:30'",
            "SELECT count(*), sum(amount) FROM sale WHERE seen_at >= '2024-03-10 02:37' AND seen_at < '2024-03-31 02:31'",
            "SELECT count(*), sum(amount) FROM sale WHERE seen_at < now() - interval '30 days'",
            "SELECT count(*), sum(amount) FROM sale WHERE sold_at >= '2031-03-20 09:30'",
        ] {
            assert_eq!(decision(&mut pair.through, sql).await, "rollup", "{sql}");
            pair.same(sql).await;
        }
    }
}

const TIMESTAMP: u32 = 1114;
const DATE: u32 = 1082;

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_decided_by_the_values_that_are_bound() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    until_rollup(&mut pair.through, RANGE).await;
    let sql = "SELECT count(*), sum(amount) FROM sale WHERE sold_at >= $1 AND sold_at < $2";
    for (types, first, last) in [
        (
            &[TIMESTAMP, TIMESTAMP][..],
            "2024-01-10",
            "2024-03-20 00:00:00",
        ),
        (&[TIMESTAMP, DATE], "2024-01-10 13:17", "2024-03-20"),
        (&[], "2024-01-10 13:17:00.5", "2024-03-20 09:42"),
        (&[0, TIMESTAMP], "2024-02-01", "2024-03-01"),
    ] {
        let bytes = batch(sql, types, &[Some(first), Some(last)], 0, "P");
        let what = format!("{types:?} {first} {last}");
        let before = from_rollup(&mut pair.through, sql).await;
        pair.same_bytes(&bytes, &what).await;
        let after = from_rollup(&mut pair.through, sql).await;
        assert_eq!(after - before, 1, "{what}");
    }
    // What is bound may be no time at all, or none that a rollup can tell.
    for (first, last) in [
        ("infinity", "2024-03-20"),
        ("yesterday", "2024-03-20"),
        ("2024-02-30", "2024-03-20"),
    ] {
        let bytes = batch(
            sql,
            &[TIMESTAMP, TIMESTAMP],
            &[Some(first), Some(last)],
            0,
            "P",
        );
        pair.same_bytes(&bytes, first).await;
    }
}

/// Moves sales between the ends of the range and its middle, each in one commit.
async fn move_about(database: Database, is_over: Arc<AtomicBool>) {
    let mut session = database.direct().await;
    let mut number = 0_u64;
    while !is_over.load(Ordering::SeqCst) {
        number += 1;
        let (first, second) = match number % 2 {
            0 => ("2024-01-10 20:00", "2024-02-14 20:00"),
            _ => ("2024-02-14 20:00", "2024-01-10 20:00"),
        };
        let id = 300 + number % 50;
        let sql = format!(
            "UPDATE sale SET sold_at = CASE id % 2 WHEN 0 THEN timestamp '{first}' ELSE timestamp '{second}' END WHERE id BETWEEN {id} AND {id} + 9"
        );
        ok(&mut session, &sql).await;
        tokio::time::sleep(Duration::from_millis(100 + number * 177 % 900)).await;
    }
}

/// How often a rollup answered the statement.
async fn from_rollup(session: &mut Client, sql: &str) -> u64 {
    let shown = table(&ok(session, "SHOW pgstar.queries").await);
    let of_range = shown.iter().filter(|row| row[0].as_deref() == Some(sql));
    let from_rollup = of_range.map(|row| row[1].as_ref().unwrap().parse::<u64>().unwrap());
    from_rollup.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_parts_of_an_answer_are_of_one_state() {
    let lab = lab().await;
    let mut session = lab.session().await;
    until_rollup(&mut session, RANGE).await;
    let right = rows(&ok(&mut lab.database.direct().await, RANGE).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(move_about(lab.database.clone(), Arc::clone(&is_over)));
    let began = Instant::now();
    while from_rollup(&mut session, RANGE).await < 5 {
        assert!(
            began.elapsed() < 3 * PATIENCE,
            "hardly any read is answered in parts"
        );
        for _ in 0..5 {
            assert_eq!(rows(&ok(&mut session, RANGE).await), right);
        }
    }
    is_over.store(true, Ordering::SeqCst);
    writer.await.unwrap();
}

/// The first of the rows that are loaded; each has the next number and is one commit.
const LOADED: i64 = 1_000_000;

/// Loads one row after the other, with times of the last hours; `acknowledged` is the newest that was.
async fn load(database: Database, acknowledged: Arc<AtomicI64>, is_over: Arc<AtomicBool>) {
    let mut session = database.direct().await;
    while !is_over.load(Ordering::SeqCst) {
        let id = acknowledged.load(Ordering::SeqCst) + 1;
        let sql = format!(
            "INSERT INTO sale VALUES ({id}, timestamp '2024-04-09 10:00' + {id} % 4 * interval '1 hour', now(), 1)"
        );
        ok(&mut session, &sql).await;
        acknowledged.store(id, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_that_cut_buckets_are_answered_from_both_while_a_table_is_being_loaded() {
    let lab = lab().await;
    let mut session = lab.session().await;
    until_rollup(&mut session, RANGE).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicI64::new(LOADED));
    let mover = tokio::spawn(move_about(lab.database.clone(), Arc::clone(&is_over)));
    let loader = load(
        lab.database.clone(),
        Arc::clone(&acknowledged),
        Arc::clone(&is_over),
    );
    let loader = tokio::spawn(loader);
    // What is loaded belongs to the last edge of the one, and to the whole buckets of the other.
    for range in [
        "sold_at >= '2024-01-10 13:17' AND sold_at < '2024-04-09 15:20'",
        "sold_at >= '2024-01-10 13:17'",
    ] {
        let sql = format!("SELECT max(id), max(id) - count(*) FROM sale WHERE {range}");
        let before =
            format!("SELECT {LOADED} - count(*) FROM sale WHERE id <= {LOADED} AND {range}");
        let before = rows(&ok(&mut lab.database.direct().await, &before).await);
        let reads = 300;
        for _ in 0..reads {
            let least = acknowledged.load(Ordering::SeqCst);
            let answer = rows(&ok(&mut session, &sql).await);
            let most = acknowledged.load(Ordering::SeqCst) + 1;
            let (newest, missing) = answer[0].split_once('|').unwrap();
            let newest: i64 = newest.parse().unwrap();
            assert!((least..=most).contains(&newest), "{least} {newest} {most}");
            assert_eq!([missing], before.as_slice(), "{range}");
        }
        let served = from_rollup(&mut session, &sql).await;
        println!("{served} of {reads} from the rollup and the base table: {range}");
        // The rest of them passed by, as it should where the stream is late on a busy machine.
        assert!(served > reads / 10, "{served} of {reads}: {range}");
    }
    is_over.store(true, Ordering::SeqCst);
    mover.await.unwrap();
    loader.await.unwrap();
}
