//! The change stream on a real server: what is noted, what is refused, and what is proven.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;

use std::time::{Duration, Instant};

use common::{Database, server};
use pgstar_postgres::pgoutput::{self, Message, Row, Value};
use pgstar_postgres::replication::{
    COPY_DATA_BYTES_MAX, Event, ReplicationConnection, SlotLifetime, SlotSnapshot,
};
use pgstar_postgres::stream::{
    ChangeStream, Changed, Position, RefusalReason, SetupProblem, StreamError,
};
use pgstar_rewriter::catalog::Oid;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(10);

const TABLES: &str = "
    CREATE TABLE sales (id bigint PRIMARY KEY, amount int);
    CREATE TABLE stores (id bigint PRIMARY KEY, city text);
    CREATE TABLE other (id bigint PRIMARY KEY);
    CREATE TABLE facts (id bigint, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE facts_1 PARTITION OF facts FOR VALUES FROM (0) TO (10);
    CREATE TABLE facts_2 PARTITION OF facts FOR VALUES FROM (10) TO (20) PARTITION BY RANGE (id);
    CREATE TABLE facts_2a PARTITION OF facts_2 FOR VALUES FROM (0) TO (1000);";

async fn oid(database: &Database, relation: &str) -> Oid {
    let oid = database
        .value(&format!("'public.{relation}'::regclass::oid"))
        .await;
    Oid(oid.parse().unwrap())
}

async fn oids(database: &Database, relations: &[&str]) -> Vec<Oid> {
    let mut oids = vec![];
    for relation in relations {
        oids.push(oid(database, relation).await);
    }
    oids
}

async fn follow(database: &Database, relations: &[&str]) -> ChangeStream {
    let tables = oids(database, relations).await;
    let stream = ChangeStream::start(database.config().await, tables)
        .await
        .unwrap();
    stream.established(Duration::from_secs(30)).await.unwrap();
    stream
}

/// Whether the relation is proven unchanged since.
async fn is_unchanged(stream: &ChangeStream, since: Position, relation: Oid) -> bool {
    stream.prove_current(DEADLINE).await.unwrap();
    match stream.unchanged_since(since, &[relation]) {
        Ok(()) => true,
        Err(Changed::At {
            relation: changed,
            at,
        }) => {
            assert_eq!(changed, relation);
            assert!(at > since.at);
            assert_eq!(stream.last_change(relation).unwrap(), Some(at));
            false
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_change_counts_and_nothing_else_does() {
    let database = Database::with(TABLES).await;
    let stream = follow(&database, &["sales", "stores", "facts"]).await;
    let [sales, stores, facts, leaf] = oids(&database, &["sales", "stores", "facts", "facts_2a"])
        .await
        .try_into()
        .unwrap();
    assert_eq!(stream.refusals(), []);
    assert_eq!(stream.last_change(sales), Ok(None));
    for (sql, changed) in [
        (
            "INSERT INTO sales SELECT i, i FROM generate_series(1, 10) i",
            vec![sales],
        ),
        ("UPDATE sales SET amount = 0 WHERE id = 1", vec![sales]),
        ("DELETE FROM sales WHERE id = 1", vec![sales]),
        ("UPDATE sales SET amount = 0 WHERE id = -1", vec![]),
        ("INSERT INTO other VALUES (1)", vec![]),
        ("BEGIN; INSERT INTO sales VALUES (100, 1); ROLLBACK", vec![]),
        (
            "BEGIN; INSERT INTO stores VALUES (1, 'x'); SAVEPOINT s; DELETE FROM sales; ROLLBACK TO s; COMMIT",
            vec![stores],
        ),
        (
            "BEGIN; SAVEPOINT s; INSERT INTO sales VALUES (101, 1); RELEASE s; INSERT INTO stores VALUES (2, 'y'); COMMIT",
            vec![sales, stores],
        ),
        ("INSERT INTO facts VALUES (1, 1)", vec![facts]),
        ("INSERT INTO facts_1 VALUES (2, 1)", vec![facts]),
        ("UPDATE facts SET day = 11 WHERE id = 1", vec![facts]),
        ("DELETE FROM facts_2a", vec![facts]),
        ("TRUNCATE sales, stores", vec![sales, stores]),
        ("TRUNCATE facts", vec![facts]),
        (
            "SELECT pg_logical_emit_message(true, 'somebody', 'x'), pg_logical_emit_message(false, 'somebody', 'y')",
            vec![],
        ),
        // From here on what the stream does not have.
        ("TRUNCATE facts_2a", vec![facts]),
        (
            "CREATE TABLE facts_3 PARTITION OF facts FOR VALUES FROM (20) TO (30)",
            vec![facts],
        ),
        ("TRUNCATE facts_3", vec![facts]),
        ("INSERT INTO facts_3 VALUES (1, 21)", vec![facts]),
        ("ALTER TABLE facts DETACH PARTITION facts_3", vec![facts]),
        (
            "ALTER TABLE sales ALTER COLUMN amount TYPE numeric",
            vec![sales],
        ),
        ("VACUUM sales; ANALYZE sales", vec![]),
    ] {
        let before = stream.build_position(DEADLINE).await.unwrap();
        for statement in if sql.starts_with("VACUUM") {
            sql.split("; ").collect()
        } else {
            vec![sql]
        } {
            database.run(statement).await;
        }
        for table in [sales, stores, facts] {
            assert_eq!(
                is_unchanged(&stream, before, table).await,
                !changed.contains(&table),
                "{sql}: {}",
                table.0
            );
        }
        assert_eq!(
            is_unchanged(&stream, before, leaf).await,
            !changed.contains(&facts),
            "{sql}"
        );
    }
    let position = stream.build_position(DEADLINE).await.unwrap();
    let unknown = oid(&database, "other").await;
    assert_eq!(
        stream.unchanged_since(position, &[sales, unknown]),
        Err(Changed::NotFollowed(unknown))
    );
}

#[tokio::test]
async fn a_transaction_of_many_rows_or_of_a_huge_row_is_one_change() {
    let database = Database::with(TABLES).await;
    let stream = follow(&database, &["sales", "stores"]).await;
    let [sales, stores] = oids(&database, &["sales", "stores"])
        .await
        .try_into()
        .unwrap();
    let before = stream.build_position(DEADLINE).await.unwrap();
    let many = Duration::from_secs(60);
    database
        .run("INSERT INTO sales SELECT i, i FROM generate_series(1, 300000) i")
        .await;
    let committed = Instant::now();
    stream.prove_current(many).await.unwrap();
    println!(
        "300000 rows were known {:?} after their commit",
        committed.elapsed()
    );
    assert!(!is_unchanged(&stream, before, sales).await);
    let before = stream.build_position(DEADLINE).await.unwrap();
    let bytes = COPY_DATA_BYTES_MAX + 1_000_000;
    database
        .run(&format!(
            "INSERT INTO stores VALUES (1, repeat('x', {bytes}))"
        ))
        .await;
    stream.prove_current(many).await.unwrap();
    assert!(!is_unchanged(&stream, before, stores).await);
    assert!(is_unchanged(&stream, before, sales).await);
    assert_eq!(stream.epoch().unwrap().id, before.epoch);
}

#[tokio::test]
async fn an_idle_database_stays_proven_and_is_not_written_to() {
    let database = Database::with(TABLES).await;
    let stream = follow(&database, &["sales"]).await;
    let sales = oid(&database, "sales").await;
    let before = stream.build_position(DEADLINE).await.unwrap();
    // What others write moves the log's end without a change that concerns us.
    for _ in 0..20 {
        database
            .run("INSERT INTO other SELECT coalesce(max(id), 0) + 1 FROM other")
            .await;
        assert!(is_unchanged(&stream, before, sales).await);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..10 {
        let age = stream.staleness().unwrap();
        assert!(age < Duration::from_secs(1), "{age:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Feedback arrives: the slot keeps no log that nobody needs.
    let waited = Instant::now();
    let kept = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), confirmed_flush_lsn) < 100000
                  FROM pg_replication_slots WHERE database = current_database()";
    while database.value(kept).await != "true" {
        assert!(waited.elapsed() < DEADLINE);
    }
}

#[tokio::test]
async fn a_terminated_walsender_or_an_altered_publication_begins_a_new_epoch() {
    let database = Database::with(TABLES).await;
    let stream = follow(&database, &["sales"]).await;
    let sales = oid(&database, "sales").await;
    let mut position = stream.build_position(DEADLINE).await.unwrap();
    let terminate = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()";
    for interruption in [
        terminate,
        "ALTER PUBLICATION pgstar DROP TABLE sales",
        "DROP PUBLICATION pgstar",
        "ALTER PUBLICATION pgstar SET (publish = 'insert')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
            AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
    ] {
        database.run(interruption).await;
        // Either the proof fails, or it belongs to the next epoch; never a proof that misses this.
        let _ = stream.prove_current(DEADLINE).await;
        let started = Instant::now();
        while stream.unchanged_since(position, &[sales]) != Err(Changed::OtherEpoch) {
            assert!(started.elapsed() < DEADLINE, "{interruption}");
            let _ = stream.prove_current(DEADLINE).await;
        }
        let epoch = stream.established(DEADLINE).await.unwrap();
        assert_ne!(epoch.id, position.epoch, "{interruption}");
        position = stream.build_position(DEADLINE).await.unwrap();
        database
            .run("INSERT INTO sales SELECT coalesce(max(id), 0) + 1 FROM sales")
            .await;
        assert!(
            !is_unchanged(&stream, position, sales).await,
            "{interruption}"
        );
    }
    drop(stream);
    let started = Instant::now();
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    while database.value(slots).await != "0" {
        assert!(
            started.elapsed() < DEADLINE,
            "a dropped stream keeps its slot"
        );
    }
    ChangeStream::uninstall(database.config().await)
        .await
        .unwrap();
    let publications = "SELECT count(*) FROM pg_publication";
    assert_eq!(database.value(publications).await, "0");
}

#[tokio::test]
async fn a_slot_that_waits_for_a_writer_says_for_whom() {
    let database = Database::with(TABLES).await;
    let mut writer = database.connect().await;
    let open = writer.transaction().await.unwrap();
    open.batch_execute(
        "SET LOCAL application_name = 'slow loader'; INSERT INTO public.other VALUES (77)",
    )
    .await
    .unwrap();
    let tables = oids(&database, &["sales"]).await;
    let options = pgstar_postgres::stream::StreamOptions {
        slot_timeout: Duration::from_millis(300),
        ..Default::default()
    };
    let stream = ChangeStream::start_with(database.config().await, tables, options)
        .await
        .unwrap();
    let started = Instant::now();
    loop {
        // Fails at once, not at the deadline.
        let asked = Instant::now();
        let unproven = stream
            .prove_current(DEADLINE)
            .await
            .unwrap_err()
            .to_string();
        assert!(asked.elapsed() < Duration::from_secs(1));
        if unproven.contains("no slot was created") && unproven.contains("slow loader") {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{unproven}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(stream.epoch(), None);
    open.commit().await.unwrap();
    stream.established(DEADLINE).await.unwrap();
    stream.prove_current(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn tables_that_cannot_be_followed_are_refused_and_their_owners_are_left_alone() {
    let database = Database::with(TABLES).await;
    database
        .run(
            "CREATE TABLE bare (v int); INSERT INTO bare VALUES (1);
             CREATE TABLE whole (v int); ALTER TABLE whole REPLICA IDENTITY FULL; INSERT INTO whole VALUES (1);
             CREATE TABLE nothing (v int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING; INSERT INTO nothing VALUES (1);
             CREATE TABLE indexed (v int NOT NULL UNIQUE); ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_v_key;
             CREATE UNLOGGED TABLE fast (v int PRIMARY KEY);
             CREATE TABLE parent (v int PRIMARY KEY); CREATE TABLE child () INHERITS (parent);
             CREATE TABLE parts (v int) PARTITION BY LIST (v); CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
             CREATE VIEW seen AS SELECT 1;",
        )
        .await;
    let names = [
        "sales", "bare", "whole", "nothing", "indexed", "fast", "parent", "parts", "seen",
    ];
    let tables = oids(&database, &names).await;
    let stream = follow(&database, &names).await;
    let position = stream.build_position(DEADLINE).await.unwrap();
    let reason = |name: &str| {
        let at = names.iter().position(|other| *other == name).unwrap();
        let refusals = stream.refusals();
        let found = refusals
            .iter()
            .find(|refusal| refusal.relation == tables[at]);
        let is_followed = stream.unchanged_since(position, &[tables[at]]).is_ok();
        assert_eq!(found.is_none(), is_followed, "{name}");
        found.map(|refusal| refusal.reason.clone())
    };
    let named = |name: &str| format!("public.{name}");
    assert_eq!(reason("sales"), None);
    assert_eq!(
        reason("bare"),
        Some(RefusalReason::NoReplicaIdentity {
            table: named("bare")
        })
    );
    assert_eq!(reason("whole"), None);
    assert_eq!(
        reason("nothing"),
        Some(RefusalReason::NoReplicaIdentity {
            table: named("nothing")
        })
    );
    assert_eq!(reason("indexed"), None);
    assert_eq!(
        reason("fast"),
        Some(RefusalReason::NotLogged {
            table: named("fast")
        })
    );
    assert_eq!(
        reason("parent"),
        Some(RefusalReason::HasChildren {
            table: named("parent")
        })
    );
    assert_eq!(
        reason("parts"),
        Some(RefusalReason::NoPrimaryKey {
            table: named("parts")
        })
    );
    assert_eq!(
        reason("seen"),
        Some(RefusalReason::NotPublishable {
            table: named("seen")
        })
    );
    database.run("UPDATE bare SET v = 2; UPDATE whole SET v = 2; UPDATE nothing SET v = 2; DELETE FROM bare").await;
    let [whole] = oids(&database, &["whole"]).await.try_into().unwrap();
    assert!(!is_unchanged(&stream, position, whole).await);
    // What the reasons advise helps without a restart, and a table that loses its key leaves at once.
    let [bare] = oids(&database, &["bare"]).await.try_into().unwrap();
    for (sql, is_refused) in [
        ("ALTER TABLE bare ADD PRIMARY KEY (v)", false),
        (
            "INSERT INTO bare VALUES (1); ALTER TABLE bare DROP CONSTRAINT bare_pkey",
            true,
        ),
    ] {
        database.run(sql).await;
        let started = Instant::now();
        while stream
            .refusals()
            .iter()
            .any(|refusal| refusal.relation == bare)
            != is_refused
        {
            assert!(started.elapsed() < DEADLINE, "{sql}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stream.established(DEADLINE).await.unwrap();
    }
    database.run("UPDATE bare SET v = 3").await;
    // The publication follows the tables.
    drop(stream);
    let stream = follow(&database, &["whole", "indexed"]).await;
    let published = "string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = 'pgstar'";
    assert_eq!(
        database.value(&format!("SELECT {published}")).await,
        "indexed whole"
    );
    drop(stream);
    let _none = follow(&database, &[]).await;
    assert_eq!(database.value(&format!("SELECT {published}")).await, "");
}

#[tokio::test]
async fn missing_privileges_are_told_all_at_once_with_what_to_do() {
    let database = Database::with(TABLES).await;
    let role = database.role("plain");
    database
        .run(&format!(
            "CREATE ROLE {role} LOGIN; ALTER TABLE stores OWNER TO {role}"
        ))
        .await;
    let config = database.config_as(&role).await;
    let tables = oids(&database, &["sales", "stores"]).await;
    let (problems, refusals) = ChangeStream::check(config.clone(), &tables).await.unwrap();
    let expected = [
        SetupProblem::NotReplicationRole { role: role.clone() },
        SetupProblem::MayNotCreatePublication {
            role: role.clone(),
            database: database.name.clone(),
        },
    ];
    assert_eq!(problems, expected);
    let owner = "postgres".to_owned();
    assert_eq!(refusals.len(), 1);
    assert_eq!(
        refusals[0].reason,
        RefusalReason::NotOwned {
            table: "public.sales".to_owned(),
            owner
        }
    );
    let refused = ChangeStream::start(config.clone(), tables.clone())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&refused, StreamError::Setup(problems) if problems == &expected),
        "{refused}"
    );
    // The hints are statements that help.
    for problem in expected {
        let hint = problem.to_string();
        database.run(hint.rsplit_once("run: ").unwrap().1).await;
    }
    let stream = ChangeStream::start(config.clone(), tables.clone())
        .await
        .unwrap();
    stream.established(DEADLINE).await.unwrap();
    let position = stream.build_position(DEADLINE).await.unwrap();
    assert_eq!(stream.unchanged_since(position, &tables[1..]), Ok(()));
    drop(stream);
    database
        .run("ALTER PUBLICATION pgstar OWNER TO postgres")
        .await;
    let refused = ChangeStream::start(config, tables)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(
        refused.contains("publication \"pgstar\" belongs to role \"postgres\""),
        "{refused}"
    );
}

async fn next(stream: &mut pgstar_postgres::replication::ReplicationStream) -> Message {
    loop {
        let event = timeout(DEADLINE, stream.next()).await.unwrap().unwrap();
        if let Event::Data { message, omitted } = event {
            return pgoutput::read(message, omitted, false).unwrap().1;
        }
    }
}

/// The server describes relations and types again whenever its caches were invalidated.
async fn next_but_relations(
    stream: &mut pgstar_postgres::replication::ReplicationStream,
) -> Message {
    loop {
        match next(stream).await {
            Message::Relation(_) | Message::Type { .. } => (),
            other => return other,
        }
    }
}

#[tokio::test]
async fn messages_of_every_kind_are_read_from_the_server() {
    let database = Database::with(
        "CREATE TYPE mood AS ENUM ('glad', 'sad');
         CREATE TABLE t (id int PRIMARY KEY, mood mood, big text); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
         CREATE TABLE f (v text); ALTER TABLE f REPLICA IDENTITY FULL;
         CREATE PUBLICATION everything FOR TABLE t, f;
         SELECT pg_replication_origin_create('elsewhere_' || current_database());",
    )
    .await;
    let mut config = database.config().await;
    config.options("-c work_mem=5MB");
    let mut connection = ReplicationConnection::connect(&config).await.unwrap();
    let shown = connection.rows("SHOW work_mem").await.unwrap();
    assert_eq!(shown[0][0].as_deref(), Some(b"5MB".as_slice()));
    let system = connection.identify_system().await.unwrap();
    let known = database
        .value("SELECT system_identifier FROM pg_control_system()")
        .await;
    assert_eq!((system.system, system.timeline.as_str()), (known, "1"));
    // An error of a command leaves the connection as it was.
    let refused = connection.drop_slot("no_such_slot").await.unwrap_err();
    assert_eq!(refused.sqlstate(), Some("42704"), "{refused}");
    let name = format!("slot_{}", database.name);
    let slot = connection
        .create_slot(&name, SlotLifetime::Permanent, SlotSnapshot::Export)
        .await
        .unwrap();
    let snapshot = slot.snapshot.unwrap();
    let reader = database.connect().await;
    reader
        .batch_execute(&format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SET TRANSACTION SNAPSHOT '{snapshot}'; COMMIT"
        ))
        .await
        .unwrap();
    drop(reader);
    let mut stream = connection
        .start(&name, slot.consistent_point, &["everything"])
        .await
        .unwrap();

    database
        .run("INSERT INTO t VALUES (1, 'glad', repeat('x', 10000))")
        .await;
    let Message::Begin(begin) = next(&mut stream).await else {
        panic!("another message")
    };
    let Message::Type {
        name: type_name, ..
    } = next(&mut stream).await
    else {
        panic!("another message")
    };
    assert_eq!(type_name, "mood");
    let Message::Relation(relation) = next(&mut stream).await else {
        panic!("another message")
    };
    assert_eq!(
        (
            relation.name.as_str(),
            relation.columns.len(),
            relation.columns[0].is_key
        ),
        ("t", 3, true)
    );
    let Message::Insert(insert) = next(&mut stream).await else {
        panic!("another message")
    };
    assert_eq!(insert.relation, relation.oid);
    let row = insert.rows.read().unwrap().new.unwrap();
    assert_eq!(row[1], Value::Text("glad".into()));
    let Message::Commit(commit) = next(&mut stream).await else {
        panic!("another message")
    };
    assert_eq!(commit.commit, begin.commit);
    assert!(commit.end > commit.commit && commit.commit >= slot.consistent_point);
    stream.acknowledged().advance(commit.end);

    database
        .run("BEGIN; UPDATE t SET id = 2, mood = 'sad'; DELETE FROM t; INSERT INTO f VALUES ('a'), (NULL); UPDATE f SET v = 'b' WHERE v = 'a';
              SELECT pg_logical_emit_message(true, 'pgstar', 'hello'); TRUNCATE t, f RESTART IDENTITY; COMMIT")
        .await;
    assert!(matches!(
        next_but_relations(&mut stream).await,
        Message::Begin(_)
    ));
    let Message::Update(update) = next_but_relations(&mut stream).await else {
        panic!("another message")
    };
    let Row { key, old, new } = update.rows.read().unwrap();
    assert_eq!(
        (key.unwrap()[0].clone(), old),
        (Value::Text("1".into()), None)
    );
    let new = new.unwrap();
    assert_eq!(
        (&new[0], &new[2]),
        (&Value::Text("2".into()), &Value::Unchanged)
    );
    let Message::Delete(delete) = next_but_relations(&mut stream).await else {
        panic!("another message")
    };
    assert_eq!(
        delete.rows.read().unwrap().key.unwrap()[0],
        Value::Text("2".into())
    );
    assert!(matches!(
        next_but_relations(&mut stream).await,
        Message::Insert(_)
    ));
    let Message::Insert(null) = next_but_relations(&mut stream).await else {
        panic!("another message")
    };
    assert_eq!(null.rows.read().unwrap().new, Some(vec![Value::Null]));
    let Message::Update(full) = next_but_relations(&mut stream).await else {
        panic!("another message")
    };
    let old = full.rows.read().unwrap().old;
    assert_eq!(old, Some(vec![Value::Text("a".into())]));
    let Message::Message {
        is_transactional,
        prefix,
        content,
        ..
    } = next_but_relations(&mut stream).await
    else {
        panic!("another message")
    };
    assert_eq!(
        (is_transactional, prefix.as_str(), content.as_ref()),
        (true, "pgstar", b"hello".as_slice())
    );
    let Message::Truncate {
        relations,
        cascade,
        restart_identity,
    } = next_but_relations(&mut stream).await
    else {
        panic!("another message")
    };
    assert_eq!(
        (relations.len(), cascade, restart_identity),
        (2, false, true)
    );
    assert!(matches!(
        next_but_relations(&mut stream).await,
        Message::Commit(_)
    ));

    database
        .run("SELECT pg_replication_origin_session_setup('elsewhere_' || current_database()); INSERT INTO f VALUES ('o')")
        .await;
    assert!(matches!(
        next_but_relations(&mut stream).await,
        Message::Begin(_)
    ));
    let origin = next_but_relations(&mut stream).await;
    let Message::Origin { name: origin, .. } = origin else {
        panic!("{origin:?}")
    };
    assert!(origin.starts_with("elsewhere_"));
    drop(stream);
    let mut connection = ReplicationConnection::connect(&config).await.unwrap();
    let started = Instant::now();
    while let Err(error) = connection.drop_slot(&name).await {
        assert_eq!(error.sqlstate(), Some("55006"), "{error}");
        assert!(started.elapsed() < DEADLINE);
    }
}

#[tokio::test]
async fn a_unix_socket_does_as_well() {
    let server = server().await;
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(server.socket_directory())
        .port(server.port())
        .user("postgres")
        .dbname("postgres");
    let mut connection = ReplicationConnection::connect(&config).await.unwrap();
    assert!(connection.process() > 0);
    connection.identify_system().await.unwrap();
}
