//! Whatever freshness a session asks for, it reads what it wrote, and never what is older than what it read before. The
//! server's senders of changes are halted meanwhile, so that no rollup and no knowledge of changes moves.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::process::Command;
use std::time::Instant;

use e2e_support::frames::{bind, execute, frame, parse, query, sync};
use e2e_support::{Client, Database, Lab, PATIENCE, Served, ok, rows, served, start_server_with};
use pgstar_postgres::server::Server;

const SCHEMA: &str = "
    CREATE TABLE shop (id int PRIMARY KEY, town text NOT NULL);
    CREATE TABLE sale (id int PRIMARY KEY, shop_id int NOT NULL REFERENCES shop, amount int NOT NULL);
    CREATE TABLE beside (id int PRIMARY KEY, note text);
    INSERT INTO shop VALUES (1, 'Bath'), (2, 'York');
    INSERT INTO sale SELECT n, 1 + n % 2, n FROM generate_series(1, 100) n;
    INSERT INTO beside SELECT n, 'note ' || n FROM generate_series(1, 20000) n;
    CREATE SEQUENCE ids START 1000;
    CREATE ROLE e2e_writer;
    GRANT SELECT, INSERT ON sale, shop TO e2e_writer; GRANT USAGE ON SEQUENCE ids TO e2e_writer;
    CREATE FUNCTION sell() RETURNS int LANGUAGE sql
           AS $$INSERT INTO sale SELECT nextval('ids'), 1, 1 RETURNING id$$;
    CREATE VIEW selling AS SELECT sell() AS id;
    CREATE PROCEDURE sell_twice() LANGUAGE plpgsql
           AS $$BEGIN PERFORM sell(); COMMIT; PERFORM sell(); COMMIT; END$$;";
const ROLLUPS: [(&str, &str); 1] = [(
    "by_town",
    "SELECT town, count(*), sum(amount) FROM sale JOIN shop ON shop_id = shop.id GROUP BY town",
)];

/// Answered by the rollup.
const COUNT: &str = "SELECT count(*) FROM sale JOIN shop ON shop.id = sale.shop_id";

/// Answered by no rollup, and kept.
const KEPT: &str = "SELECT shop_id, count(*) FROM sale GROUP BY shop_id ORDER BY 1";

/// Of a table that no rollup reads, and slow enough to be kept.
const BESIDE: &str = "SELECT count(*) FROM beside a JOIN beside b USING (note)";

/// What cannot be proven is not waited for for long.
const ANY: &str = "[freshness]\ndefault = \"any\"\ndeadline = \"300ms\"\n";

/// A server of the test's own: a halted process would hold up what other tests do.
async fn lab() -> (Server, Lab) {
    let server = start_server_with(&[("max_prepared_transactions", "5")]).await;
    let database = Database::create_on(&server, "template0").await;
    database.run(SCHEMA).await;
    let lab = Lab::start(&database, ANY, &ROLLUPS).await;
    (server, lab)
}

/// The server's processes that send changes, halted until this is dropped.
struct Halted(Vec<String>);

impl Halted {
    async fn all(database: &Database) -> Halted {
        let senders = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender'";
        let halted = Halted(rows(&ok(&mut database.direct().await, senders).await));
        assert!(!halted.0.is_empty());
        halted.signal("-STOP");
        halted
    }

    fn signal(&self, signal: &str) {
        // One that has ended meanwhile is none of ours.
        let _ = Command::new("kill").arg(signal).args(&self.0).status();
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

async fn count(session: &mut Client, sql: &str) -> u64 {
    rows(&ok(session, sql).await)[0].parse().unwrap()
}

/// Sessions that have seen nothing are answered by what lags behind; on a busy machine not the first one.
async fn until_stale(lab: &Lab, sql: &str, stale: &str) -> Client {
    let began = Instant::now();
    loop {
        let mut session = lab.session().await;
        let (by, frames) = served(&mut session, sql).await;
        if by != Served::Passthrough && rows(&frames) == [stale] {
            return session;
        }
        assert!(began.elapsed() < PATIENCE, "{sql}: {by:?} {frames:?}");
    }
}

/// Waits until the statement is answered from the cache.
async fn until_kept(session: &mut Client, sql: &str) {
    let began = Instant::now();
    while served(session, sql).await.0 != Served::Cache {
        assert!(began.elapsed() < PATIENCE, "{sql}");
    }
}

const INSERT: &str = "INSERT INTO sale VALUES (nextval('ids'), 1, 1)";

/// A way to write: what is sent before, what is sent then, and how many sales more there are after it.
struct Way {
    before: Vec<Vec<u8>>,
    then: Vec<Vec<u8>>,
    more: u64,
}

/// Statements of the simple protocol.
fn simple(before: &[&str], then: &[&str], more: u64) -> Way {
    let all = |statements: &[&str]| statements.iter().map(|sql| query(sql)).collect();
    Way {
        before: all(before),
        then: all(then),
        more,
    }
}

fn ways() -> Vec<Way> {
    let one = |sql: &str| [parse("", sql), bind("", ""), execute("", 0)].concat();
    let run = [bind("", "p"), execute("", 0), sync()].concat();
    let and = |rest: &str| format!("{INSERT}; {rest}");
    let with = format!("WITH new AS ({INSERT} RETURNING id) SELECT * FROM new");
    let prepare = format!("BEGIN; {}", and("PREPARE TRANSACTION 'own'"));
    let block = format!("BEGIN; {}", and("COMMIT"));
    let as_another = format!("SET ROLE e2e_writer; {}", and("RESET ROLE"));
    let explained = format!("EXPLAIN ANALYZE {INSERT}");
    let commented = format!("/* SELECT; */ -- SET\n {INSERT}");
    let conflict = format!("{INSERT} ON CONFLICT (id) DO UPDATE SET amount = 2");
    let cursor = "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT sell() FROM generate_series(1, 2)";
    let copied = [
        query("COPY sale FROM STDIN"),
        frame('d', b"501\t1\t1\n502\t1\t1\n"),
        frame('d', b"503\t2\t1\n"),
        frame('c', b""),
    ];
    vec![
        simple(&[], &[INSERT], 1),
        simple(&[], &[&and("SELECT 1")], 1),
        simple(&[], &[&block], 1),
        simple(&["BEGIN"], &[INSERT, COUNT, "COMMIT"], 1),
        simple(
            &["BEGIN; SAVEPOINT a"],
            &[
                INSERT,
                "ROLLBACK TO a",
                INSERT,
                "RELEASE a",
                "SAVEPOINT b",
                INSERT,
                "COMMIT AND CHAIN",
                "END",
            ],
            2,
        ),
        simple(&[], &["DO $$BEGIN PERFORM sell(); END$$"], 1),
        simple(&[], &["SELECT sell()"], 1),
        simple(&[], &["SELECT id FROM selling"], 1),
        simple(&[], &["CALL sell_twice()"], 2),
        simple(&[], &[&with], 1),
        simple(&[], &[&explained], 1),
        simple(&[], &[&commented], 1),
        simple(&[], &[&conflict], 1),
        simple(&[], &[&as_another], 1),
        simple(&[], &[INSERT, "DISCARD ALL"], 1),
        simple(&[], &[cursor, "COMMIT", "CLOSE c"], 2),
        // What is seen when they are run was noted long before.
        simple(&[&prepare], &["COMMIT PREPARED 'own'"], 1),
        simple(
            &[&format!("PREPARE q AS {INSERT}")],
            &["EXECUTE q", "DEALLOCATE q"],
            1,
        ),
        Way {
            before: vec![[parse("p", INSERT), sync()].concat()],
            then: vec![run.clone(), run],
            more: 2,
        },
        Way {
            before: vec![],
            then: vec![[one(INSERT), one("SELECT 1"), one(INSERT), sync()].concat()],
            more: 2,
        },
        Way {
            before: vec![],
            then: vec![copied.concat()],
            more: 3,
        },
    ]
}

/// Waits until a rollup or an answer that was kept of it says this.
async fn until_answered(session: &mut Client, sql: &str, right: u64) {
    let began = Instant::now();
    loop {
        let (by, frames) = served(session, sql).await;
        assert_eq!(rows(&frames), [right.to_string()], "{sql}");
        if by != Served::Passthrough {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_what_it_wrote_in_whatever_way() {
    let (_server, lab) = lab().await;
    let (mut session, mut sales) = (lab.session().await, 100);
    for (at, way) in ways().into_iter().enumerate() {
        for frames in &way.before {
            session.exchange(frames).await;
        }
        until_answered(&mut session, COUNT, sales).await;
        let stale = sales;
        let halted = Halted::all(&lab.database).await;
        for frames in &way.then {
            let replies = session.exchange(frames).await;
            assert!(
                replies.iter().all(|reply| reply.tag() != 'E'),
                "{at}: {replies:?}"
            );
        }
        sales += way.more;
        // A bound is proven otherwise than that anything will do.
        ok(
            &mut session,
            ["RESET pgstar.freshness", "SET pgstar.freshness = '1h'"][at % 2],
        )
        .await;
        assert_eq!(count(&mut session, COUNT).await, sales, "way {at}");
        if at == 0 {
            // All the while others get what is old.
            until_stale(&lab, COUNT, &stale.to_string()).await;
        }
        drop(halted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_about_some_tables_proves_nothing_of_what_was_written_to_others() {
    let (_server, lab) = lab().await;
    let mut session = lab.session().await;
    until_kept(&mut session, BESIDE).await;
    until_kept(&mut session, KEPT).await;
    // Only who follows tables that no rollup reads.
    let halted = Halted::all(&lab.database).await;
    let slots = "SELECT active_pid FROM pg_replication_slots WHERE NOT temporary";
    let keeps = Halted(rows(&ok(&mut lab.database.direct().await, slots).await));
    drop(keeps);
    ok(&mut session, "INSERT INTO beside VALUES (0, 'note 1')").await;
    until_kept(&mut session, KEPT).await;
    assert_eq!(count(&mut session, BESIDE).await, 20_003);
    drop(halted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_answer_may_have_what_no_rollup_has_and_then_all_that_follow_have_it() {
    let (_server, lab) = lab().await;
    let mut session = lab.session().await;
    ok(&mut session, "SET pgstar.freshness = strict").await;
    until_kept(&mut session, KEPT).await;
    // The answer that is kept is computed after another transaction, which began to be known of before.
    let mut writer = lab.database.direct().await;
    ok(&mut writer, "INSERT INTO sale VALUES (801, 2, 1)").await;
    until_stale(&lab, COUNT, "101").await;
    ok(&mut writer, "BEGIN; LOCK TABLE sale").await;
    session.send(&query(KEPT)).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'SELECT shop_id%'";
    let mut watcher = lab.database.direct().await;
    let began = Instant::now();
    while count(&mut watcher, waiting).await == 0 {
        assert!(began.elapsed() < PATIENCE);
    }
    let _halted = Halted::all(&lab.database).await;
    ok(&mut writer, "INSERT INTO sale VALUES (802, 2, 1); COMMIT").await;
    let right = ["1|50", "2|52"];
    assert_eq!(rows(&session.until_ready().await), right);
    let began = Instant::now();
    loop {
        let mut reader = until_stale(&lab, COUNT, "101").await;
        let (by, frames) = served(&mut reader, KEPT).await;
        assert_eq!(rows(&frames), right);
        // What it just saw has the second one.
        assert_eq!(count(&mut reader, COUNT).await, 102);
        let mut other = lab.session().await;
        let (first_by, frames) = served(&mut other, KEPT).await;
        assert_eq!(rows(&frames), right);
        assert_eq!(count(&mut other, COUNT).await, 102, "{first_by:?}");
        // The reader's may come from the base tables: its knowledge has to be newer than what it saw.
        if first_by == Served::Cache {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{by:?} {first_by:?}");
    }
}
