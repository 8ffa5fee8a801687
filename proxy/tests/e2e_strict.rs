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

/// Waits until a rollup answers, or the cache with an answer of a rollup.
async fn until_rollup(session: &mut Client, sql: &str, right: &[&str]) {
    let began = std::time::Instant::now();
    loop {
        assert_eq!(rows(&ok(session, sql).await), right, "{sql}");
        let explained = explain(session, sql).await;
        if explained["rollup"].is_string() {
            return;
        }
        assert!(began.elapsed() < REBUILT, "{sql}: {explained:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_is_answered_from_rollups_while_nothing_changes_and_never_without_a_commit() {
    let lab = lab("").await;
    let mut session = lab.session().await;
    until_rollup(&mut session, QUERY, &BEFORE).await;
    until_served(&mut session, QUERY, &BEFORE).await;
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
async fn a_rollup_follows_a_change_of_what_it_joins() {
    let lab = lab("").await;
    let mut session = lab.session().await;
    until_rollup(&mut session, QUERY, &BEFORE).await;
    lab.database
        .run("UPDATE shop SET town = 'Bath' WHERE id = 2")
        .await;
    until_rollup(&mut session, QUERY, &["Bath|100"]).await;
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
    until_rollup(&mut session, COUNT, &["100"]).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_accepts_anything_still_reads_what_it_wrote() {
    let lab = lab("[freshness]\ndefault = \"any\"\n").await;
    let mut session = lab.session().await;
    until_rollup(&mut session, COUNT, &["100"]).await;
    for count in 101..=110 {
        ok(&mut session, "SET synchronous_commit = off").await;
        ok(
            &mut session,
            &format!("INSERT INTO sale VALUES ({count}, 1, 1)"),
        )
        .await;
        assert_eq!(rows(&ok(&mut session, COUNT).await), [count.to_string()]);
        // What it saw of others as well.
        lab.database
            .run(&format!("INSERT INTO sale VALUES (-{count}, 1, 1)"))
            .await;
        let seen = ok(
            &mut session,
            "SELECT id FROM sale WHERE id < 0 ORDER BY id LIMIT 1",
        )
        .await;
        assert_eq!(rows(&seen), [format!("-{count}")]);
        assert_eq!(
            rows(&ok(&mut session, COUNT).await),
            [(count + 1).to_string()]
        );
        lab.database
            .run(&format!("DELETE FROM sale WHERE id = -{count}"))
            .await;
        ok(&mut session, "SELECT 1").await;
    }
}

/// That all changes are known, which a kept answer needs, does not mean that a rollup has them.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_answer_in_between_does_not_hide_what_the_session_wrote() {
    let lab = lab("[freshness]\ndefault = \"any\"\n").await;
    let mut session = lab.session().await;
    until_rollup(&mut session, COUNT, &["100"]).await;
    let shops = "SELECT max(id) FROM shop";
    assert_eq!(served(&mut session, shops).await.0, Served::Passthrough);
    // Nothing is folded into the rollup meanwhile.
    let mut holding = lab.database.direct().await;
    let table = "SELECT table_name FROM pgstar.rollup_state";
    let table = rows(&ok(&mut holding, table).await).remove(0);
    let lock = format!("BEGIN; LOCK TABLE pgstar.{table} IN SHARE MODE");
    ok(&mut holding, &lock).await;
    ok(&mut session, INSERT).await;
    assert_eq!(served(&mut session, shops).await.0, Served::Cache);
    assert_eq!(rows(&ok(&mut session, COUNT).await), ["101"]);
}

/// What both sides say to the same statement must be the same, whoever answered.
async fn same(lab: &Lab, through: &mut Client, sql: &str, after: &str) {
    let direct = rows(&ok(&mut lab.database.direct().await, sql).await);
    assert_eq!(rows(&ok(through, sql).await), direct, "{sql} after {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_underneath_no_answer_is_wrong() {
    let partitioned = "
        CREATE TABLE visit (id int, day date NOT NULL, shop_id int NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
        CREATE TABLE visit_1 PARTITION OF visit FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
        CREATE TABLE visit_2 PARTITION OF visit FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
        INSERT INTO visit SELECT n, date '2024-01-01' + n % 50, n % 3 FROM generate_series(1, 200) n;";
    let database = Database::with(&format!("{SCHEMA}{partitioned}")).await;
    let by_day = ("by_day", "SELECT day, count(*) FROM visit GROUP BY day");
    let lab = Lab::start(&database, "", &[ROLLUPS[0], by_day]).await;
    let mut through = lab.session().await;
    let visits = "SELECT count(*), max(day) FROM visit";
    until_rollup(&mut through, QUERY, &BEFORE).await;
    until_rollup(&mut through, visits, &["200|2024-02-19"]).await;
    for statement in [
        "TRUNCATE visit_1",
        "ALTER TABLE visit DETACH PARTITION visit_2",
        "ALTER TABLE visit ATTACH PARTITION visit_2 FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')",
        "DROP TABLE visit_1",
        "ALTER TABLE sale ALTER amount TYPE bigint",
        "ALTER TABLE sale DROP CONSTRAINT sale_shop_id_fkey; DELETE FROM shop WHERE id = 2",
        "TRUNCATE sale",
        "INSERT INTO sale SELECT n, 1, n FROM generate_series(1, 10) n",
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database() AND active",
        "INSERT INTO sale SELECT n, 1, n FROM generate_series(11, 20) n",
        "DROP PUBLICATION IF EXISTS pgstar",
        "UPDATE sale SET amount = amount + 1",
        "ALTER TABLE shop RENAME TO store; CREATE VIEW shop AS SELECT * FROM store WHERE id > 1",
        "DROP VIEW shop; ALTER TABLE store RENAME TO shop",
    ] {
        lab.database.run(statement).await;
        // At once, a moment later, and when everybody has noticed.
        for pause in [0, 30, 300] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            for sql in [QUERY, COUNT, visits, UNANSWERED] {
                same(&lab, &mut through, sql, statement).await;
            }
        }
    }
    let right = rows(&ok(&mut lab.database.direct().await, QUERY).await);
    let right: Vec<&str> = right.iter().map(String::as_str).collect();
    until_rollup(&mut through, QUERY, &right).await;
}
