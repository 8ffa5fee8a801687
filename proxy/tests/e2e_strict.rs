//! Strict freshness on a server whose changes can be followed: every read has every commit acknowledged before
//! it began, and what cannot be shown is answered by the base tables.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use e2e_support::{Client, Database, Lab, Served, decision, explain, ok, rows, served, table};

const SCHEMA: &str = "
    CREATE TABLE shop (id int PRIMARY KEY, town text NOT NULL);
    CREATE TABLE sale (id int PRIMARY KEY, shop_id int NOT NULL REFERENCES shop, amount int NOT NULL);
    INSERT INTO shop VALUES (1, 'Bath'), (2, 'York');
    INSERT INTO sale SELECT n, 1 + n % 2, n FROM generate_series(1, 100) n;";
const ROLLUPS: [(&str, &str); 1] = [(
    "by_town",
    "SELECT town, count(*), sum(amount) FROM sale JOIN shop ON shop_id = shop.id GROUP BY town",
)];
const QUERY: &str = "SELECT town, count(*) FROM sale JOIN shop ON shop.id = sale.shop_id GROUP BY town ORDER BY town";
const BEFORE: [&str; 2] = ["Bath|50", "York|50"];
const AFTER: [&str; 2] = ["Bath|51", "York|50"];
const INSERT: &str = "INSERT INTO sale VALUES (101, 1, 5)";

/// How long a rollup may take to become current again.
const REBUILT: Duration = Duration::from_secs(20);

async fn lab(more: &str) -> Lab {
    Lab::start(&Database::with(SCHEMA).await, more, &ROLLUPS).await
}

/// Asks until a rollup or the cache answers, asserting that each answer is the one that is right.
async fn until_served(session: &mut Client, sql: &str, right: &[&str]) -> Served {
    let began = std::time::Instant::now();
    loop {
        let (by, frames) = served(session, sql).await;
        assert_eq!(rows(&frames), right, "{sql}");
        if by != Served::Passthrough {
            return by;
        }
        let explained = explain(session, sql).await;
        assert!(began.elapsed() < REBUILT, "{sql}: {explained:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_is_answered_from_rollups_while_nothing_changes_and_never_without_a_commit() {
    let lab = lab("").await;
    let mut session = lab.session().await;
    assert_eq!(
        until_served(&mut session, QUERY, &BEFORE).await,
        Served::Rollup
    );
    assert_eq!(
        until_served(&mut session, QUERY, &BEFORE).await,
        Served::Cache
    );
    let explained = explain(&mut session, QUERY).await;
    assert_eq!(explained["freshness"]["shown"], "current", "{explained:#}");
    lab.database.run(INSERT).await;
    let (_, frames) = served(&mut session, QUERY).await;
    assert_eq!(rows(&frames), AFTER);
    until_served(&mut session, QUERY, &AFTER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_a_reason_and_the_rollup_is_built_again() {
    let lab = lab("").await;
    let mut session = lab.session().await;
    until_served(&mut session, QUERY, &BEFORE).await;
    lab.database
        .run("UPDATE shop SET town = 'Bath' WHERE id = 2")
        .await;
    let code = decision(&mut session, QUERY).await;
    assert!(
        ["rollup-behind", "rollup", "cache"].contains(&code.as_str()),
        "{code}"
    );
    until_served(&mut session, QUERY, &["Bath|100"]).await;
}

/// Counts every sale; answered by the rollup.
const COUNT: &str = "SELECT count(*) FROM sale JOIN shop ON shop.id = sale.shop_id";

#[derive(Default)]
struct Progress {
    /// Inserts that were sent.
    begun: AtomicU64,
    /// Inserts that were acknowledged.
    acknowledged: AtomicU64,
    is_over: AtomicBool,
}

/// Inserts straight into PostgreSQL, in bursts with pauses in which a rollup can become current.
async fn write(database: Database, progress: Arc<Progress>, number: u64, synchronous: &str) {
    let mut session = database.direct().await;
    ok(
        &mut session,
        &format!("SET synchronous_commit = {synchronous}"),
    )
    .await;
    let mut id = 1_000_000 * (number + 1);
    while !progress.is_over.load(Ordering::SeqCst) {
        for _ in 0..1 + id % 3 {
            id += 1;
            progress.begun.fetch_add(1, Ordering::SeqCst);
            ok(
                &mut session,
                &format!("INSERT INTO sale VALUES ({id}, 1, 1)"),
            )
            .await;
            progress.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        let pause = 200 + id.wrapping_mul(2_654_435_761) % 1500;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

/// Reads through pgstar; returns how many reads lacked an acknowledged insert.
async fn read(mut session: Client, progress: Arc<Progress>) -> u64 {
    let mut stale = 0;
    while !progress.is_over.load(Ordering::SeqCst) {
        let acknowledged = progress.acknowledged.load(Ordering::SeqCst);
        let counted: u64 = rows(&ok(&mut session, COUNT).await)[0].parse().unwrap();
        let begun = progress.begun.load(Ordering::SeqCst);
        assert!(counted <= 100 + begun, "{counted} of {begun}");
        stale += u64::from(counted < 100 + acknowledged);
    }
    stale
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_has_every_commit_acknowledged_before_it_began() {
    let lab = lab("").await;
    let progress = Arc::new(Progress::default());
    let writers = ["on", "off", "off"]
        .into_iter()
        .enumerate()
        .map(|(number, synchronous)| {
            let database = lab.database.clone();
            let write = write(database, Arc::clone(&progress), number as u64, synchronous);
            tokio::spawn(write)
        });
    let writers: Vec<_> = writers.collect();
    let mut readers = vec![];
    for _ in 0..3 {
        readers.push(tokio::spawn(read(
            lab.session().await,
            Arc::clone(&progress),
        )));
    }
    tokio::time::sleep(Duration::from_secs(12)).await;
    progress.is_over.store(true, Ordering::SeqCst);
    for writer in writers {
        writer.await.unwrap();
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 0, "stale reads");
    }
    let shown = table(&ok(&mut lab.session().await, "SHOW pgstar.queries").await);
    let counts: Vec<u64> = shown
        .iter()
        .filter(|row| row[0].as_deref() == Some(COUNT))
        .flat_map(|row| [&row[1], &row[2]])
        .map(|count| count.as_ref().unwrap().parse().unwrap())
        .collect();
    assert!(
        counts.iter().sum::<u64>() > 20,
        "hardly any read was served: {shown:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_without_a_proof_are_caught_lacking_a_commit() {
    let lab = lab("").await;
    let mut session = lab.session().await;
    let mut writer = lab.database.direct().await;
    ok(&mut writer, "SET synchronous_commit = off").await;
    until_served(&mut session, COUNT, &["100"]).await;
    lab.proxy.warehouse().follower().weaken();
    for count in 101..=120 {
        ok(
            &mut writer,
            &format!("INSERT INTO sale VALUES ({count}, 1, 1)"),
        )
        .await;
        if rows(&ok(&mut session, COUNT).await) != [count.to_string()] {
            return;
        }
        until_served(&mut session, COUNT, &[&count.to_string()]).await;
    }
    panic!("the weakness was not noticed");
}

/// No rollup has the shops' identifiers, so only the base tables can answer.
const UNANSWERED: &str = "SELECT shop_id, count(*) FROM sale GROUP BY shop_id ORDER BY 1";

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_the_base_tables_is_kept_until_one_of_them_changes() {
    let lab = lab("").await;
    let mut session = lab.session().await;
    lab.proxy
        .warehouse()
        .follower()
        .settled(REBUILT)
        .await
        .unwrap();
    let mut served_by = vec![];
    for _ in 0..3 {
        let (by, frames) = served(&mut session, UNANSWERED).await;
        assert_eq!(rows(&frames), ["1|50", "2|50"]);
        served_by.push(by);
    }
    assert_eq!(
        served_by,
        [Served::Passthrough, Served::Cache, Served::Cache]
    );
    assert_eq!(decision(&mut session, UNANSWERED).await, "cache");
    // Another session gets it, and another text does not.
    let mut other = lab.session().await;
    assert_eq!(served(&mut other, UNANSWERED).await.0, Served::Cache);
    lab.database
        .run("INSERT INTO sale VALUES (101, 1, 1)")
        .await;
    let (by, frames) = served(&mut other, UNANSWERED).await;
    assert_eq!(
        (by, rows(&frames)),
        (Served::Passthrough, vec!["1|51".into(), "2|50".into()])
    );
    assert_eq!(served(&mut session, UNANSWERED).await.0, Served::Cache);
    // Within a transaction that has written, its own rows count.
    ok(&mut session, "BEGIN; INSERT INTO sale VALUES (102, 1, 1)").await;
    let frames = ok(&mut session, UNANSWERED).await;
    assert_eq!(rows(&frames), ["1|52", "2|50"]);
    ok(&mut session, "ROLLBACK").await;
    assert_eq!(rows(&ok(&mut session, UNANSWERED).await), ["1|51", "2|50"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_with_one_question_compute_it_once() {
    let lab = lab("").await;
    lab.proxy
        .warehouse()
        .follower()
        .settled(REBUILT)
        .await
        .unwrap();
    // Slow enough that all of them ask while it is being computed.
    let slow = "SELECT s.shop_id, count(*) FROM sale s, sale t, sale u WHERE s.id + t.id <> u.id GROUP BY s.shop_id ORDER BY 1";
    let mut asking = vec![];
    for _ in 0..6 {
        let mut session = lab.session().await;
        ok(&mut session, "SELECT 1").await;
        asking.push(tokio::spawn(
            async move { rows(&ok(&mut session, slow).await) },
        ));
    }
    let mut answers = vec![];
    for one in asking {
        answers.push(one.await.unwrap());
    }
    assert!(
        answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );
    let shown = table(&ok(&mut lab.session().await, "SHOW pgstar.queries").await);
    // A statement is listed once for each state of the catalog that it was decided in.
    let total = |column: usize| -> u64 {
        let rows = shown.iter().filter(|row| row[0].as_deref() == Some(slow));
        rows.map(|row| row[column].as_ref().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    assert_eq!((total(2), total(3)), (5, 1), "{shown:?}");
}
