//! Rollups when something goes wrong: processes and servers that die, tables that are altered, slots
//! that vanish. Whatever happens, a rollup that is proven equals its defining SELECT. The same
//! scenarios have to find the mistakes that would break that.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;
mod maintain_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::Database;
use maintain_support::{
    Acknowledged, COUNTED, COUNTS, DEADLINE, Maintained, ROLLUPS, STAR, Writers, connect,
    connect_patiently, duration, plans, start_server,
};
use pgstar_postgres::connect::{Connection, Connector};
use pgstar_postgres::maintain::{
    Failpoint, MaintainOptions, Maintainer, NotCurrent, Role, Standing, Unfoldable, Weakness,
};
use pgstar_postgres::rollups::Sources;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_anywhere_loses_and_repeats_nothing() {
    let database = Database::with(STAR).await;
    let config = database.config().await;
    let (armed, deaths, passes) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        AtomicU64::new(1),
    );
    let (is_armed, counted) = (Arc::clone(&armed), Arc::clone(&deaths));
    let dies_at = move |_: Failpoint| {
        let dies = is_armed.load(Ordering::Relaxed)
            && passes
                .fetch_add(1, Ordering::Relaxed)
                .wrapping_mul(0x9e37_79b9)
                % 11
                == 0;
        counted.fetch_add(u64::from(dies), Ordering::Relaxed);
        dies
    };
    let options = MaintainOptions {
        dies_at: Some(Arc::new(dies_at)),
        ..MaintainOptions::default()
    };
    let rollups = Maintained::start(config.clone(), &ROLLUPS[1..5], options).await;
    let writers = Writers::start(&config, 2);
    armed.store(true, Ordering::Relaxed);
    let started = Instant::now();
    while started.elapsed() < duration(6) || deaths.load(Ordering::Relaxed) < 3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    armed.store(false, Ordering::Relaxed);
    writers.end().await;
    let client = connect(&config).await;
    rollups.check(&client).await;
    let figures = rollups.maintainer.figures();
    println!(
        "{} deaths, {} batches, {} rows",
        deaths.load(Ordering::Relaxed),
        figures.batches,
        figures.rows
    );
}

/// Whether a rollup ends up wrong that is proven to be right.
async fn is_fooled(weakness: Weakness) -> bool {
    let database = Database::with(COUNTED).await;
    let config = database.config().await;
    let armed = Arc::new(AtomicBool::new(false));
    let is_armed = Arc::clone(&armed);
    let dies_at = move |at: Failpoint| {
        let dies = at == Failpoint::AfterDecode && is_armed.swap(false, Ordering::Relaxed);
        if dies {
            // Long enough for the server to hear what need not be kept.
            tokio::task::block_in_place(|| std::thread::sleep(Duration::from_millis(2500)));
        }
        dies
    };
    let options = MaintainOptions {
        dies_at: Some(Arc::new(dies_at)),
        weakness,
        ..MaintainOptions::default()
    };
    let rollups = Maintained::start(config.clone(), COUNTS, options).await;
    rollups.prove_all().await;
    let client = connect(&config).await;
    for round in 0..3u64 {
        armed.store(true, Ordering::Relaxed);
        for row in 0..20u64 {
            let id = round * 100 + row;
            client
                .batch_execute(&format!("INSERT INTO t VALUES ({id}, {id} % 3, 1)"))
                .await
                .unwrap();
            if row % 5 == 4 {
                rollups.prove_all().await;
            }
        }
        rollups.prove_all().await;
        if !rollups.differences(&client).await.is_empty() {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn mistakes_that_lose_or_repeat_changes_are_noticed() {
    assert!(!is_fooled(Weakness::None).await);
    assert!(is_fooled(Weakness::NoSkipRule).await, "no skip rule");
    assert!(
        is_fooled(Weakness::AcknowledgeDecoded).await,
        "acknowledged too early"
    );
}

/// Whether a rollup is proven although a partition came or went of which the stream says nothing.
async fn is_fooled_by_partitions(weakness: Weakness) -> bool {
    let database = Database::with(
        "CREATE TABLE public.p (id int PRIMARY KEY, k int) PARTITION BY RANGE (id);
         CREATE TABLE public.p1 PARTITION OF public.p FOR VALUES FROM (0) TO (100);
         CREATE TABLE public.p2 PARTITION OF public.p FOR VALUES FROM (100) TO (200);
         INSERT INTO public.p SELECT n, n % 3 FROM generate_series(0, 199) n",
    )
    .await;
    let config = database.config().await;
    let options = MaintainOptions {
        weakness,
        ..MaintainOptions::default()
    };
    let counts = [("parts", "SELECT k, count(*) FROM p GROUP BY k")];
    let rollups = Maintained::start(config.clone(), &counts, options).await;
    rollups.prove_all().await;
    let client = connect(&config).await;
    let mut is_fooled = false;
    for change in [
        "ALTER TABLE p DETACH PARTITION p2",
        "ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200)",
        "DROP TABLE p1",
    ] {
        client.batch_execute(change).await.unwrap();
        rollups.prove_all().await;
        is_fooled |= !rollups.differences(&client).await.is_empty();
    }
    is_fooled
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_overlooked_are_noticed() {
    assert!(!is_fooled_by_partitions(Weakness::None).await);
    assert!(is_fooled_by_partitions(Weakness::IgnoresShapes).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_loses_and_repeats_nothing() {
    let server = start_server(&[]).await;
    let config = server.config("postgres");
    connect(&config).await.batch_execute(STAR).await.unwrap();
    let rollups = Maintained::start(config.clone(), ROLLUPS, MaintainOptions::default()).await;
    let writers = Writers::start(&config, 2);
    let mut crashes = 0;
    let started = Instant::now();
    while started.elapsed() < duration(6) || crashes < 2 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let Ok(client) = Connector::new(config.clone()).unwrap().connect().await else {
            continue;
        };
        let walsender = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walsender' LIMIT 1";
        let Ok(Some(row)) = client.query_opt(walsender, &[]).await else {
            continue;
        };
        // One process that dies by a signal makes the server start all over and recover.
        let pid: i32 = row.get(0);
        let killed = std::process::Command::new("kill")
            .args(["-9", &pid.to_string()])
            .status();
        if killed.unwrap().success() {
            crashes += 1;
            until_ended(&client).await;
        }
    }
    writers.end().await;
    rollups.check(&connect_patiently(&config).await).await;
    println!("{crashes} crashes, {:?}", rollups.maintainer.figures());
    drop(rollups);
    server.stop().await.unwrap();
}

/// Waits until the server has ended this session: from then on it admits nobody before it has
/// recovered.
async fn until_ended(client: &Connection) {
    let started = Instant::now();
    while client.batch_execute("SELECT 1").await.is_ok() {
        assert!(started.elapsed() < DEADLINE, "the server did not crash");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_proves_as_well_and_takes_over() {
    let database = Database::with(COUNTED).await;
    let config = database.config().await;
    let leader = Maintained::start(config.clone(), COUNTS, MaintainOptions::default()).await;
    leader.prove_all().await;
    let follower = Maintained::start(config.clone(), COUNTS, MaintainOptions::default()).await;
    let client = connect(&config).await;
    for row in 0..30 {
        client
            .batch_execute(&format!("INSERT INTO t VALUES ({row}, {row} % 3, 1)"))
            .await
            .unwrap();
        follower.check(&client).await;
    }
    assert_eq!(leader.maintainer.figures().role, Role::Leader);
    assert_eq!(follower.maintainer.figures().role, Role::Follower);
    let gone = Instant::now();
    drop(leader);
    client
        .batch_execute("DELETE FROM t WHERE id < 10")
        .await
        .unwrap();
    follower.prove_all().await;
    println!("taken over within {:?}", gone.elapsed());
    assert_eq!(follower.differences(&client).await, Vec::<String>::new());
    assert_eq!(follower.maintainer.figures().role, Role::Leader);
    assert!(gone.elapsed() < Duration::from_secs(20));
}

/// On a server of its own, where nothing else moves the log either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_proves_where_nobody_writes() {
    let server = start_server(&[("autovacuum", "off")]).await;
    let config = server.config("postgres");
    let client = connect(&config).await;
    client.batch_execute(COUNTED).await.unwrap();
    let leader = Maintained::start(config.clone(), COUNTS, MaintainOptions::default()).await;
    leader.prove_all().await;
    for round in 0..4 {
        let follower = Maintained::follow(config.clone(), COUNTS, MaintainOptions::default());
        // While the other begins the leader is asked all the time, and looks at everything as early as it can.
        let asking = async {
            loop {
                leader.prove_all().await;
            }
        };
        let following = async {
            let follower = follower.await;
            follower.prove_all().await;
            let alter = format!("ALTER TABLE t SET (fillfactor = {})", 90 - round);
            client.batch_execute(&alter).await.unwrap();
            client
                .batch_execute("CLUSTER t USING t_pkey")
                .await
                .unwrap();
            follower.prove_all().await;
        };
        tokio::select! {
            () = following => {}
            () = asking => {}
        }
    }
}

/// Readers beside writers: what is proven has every row whose commit was acknowledged before.
async fn stale_reads(weakness: Weakness) -> (u64, u64) {
    let database = Database::with(COUNTED).await;
    let config = database.config().await;
    let options = MaintainOptions {
        weakness,
        ..MaintainOptions::default()
    };
    let rollups = Maintained::start(config.clone(), COUNTS, options).await;
    rollups.prove_all().await;
    let table = rollups.table("counts").await;
    let writers = Acknowledged::start(&config, &["on", "off", "on"]);
    let reader = connect(&config).await;
    let sum = format!("SELECT coalesce(sum(row_count), 0)::bigint FROM pgstar.\"{table}\"");
    let (started, mut reads, mut stale, mut waits) = (Instant::now(), 0, 0, vec![]);
    while started.elapsed() < duration(6) || reads < 25 {
        let expected = writers.rows();
        let asked = Instant::now();
        if rollups
            .maintainer
            .prove(&[&table], Duration::from_secs(5))
            .await
            .is_err()
        {
            continue;
        }
        waits.push(asked.elapsed());
        let count: i64 = reader.query_one(&sum, &[]).await.unwrap().get(0);
        reads += 1;
        stale += u64::from((count as u64) < expected);
    }
    writers.end().await;
    waits.sort_unstable();
    let at = |share: usize| waits[(waits.len() - 1) * share / 100];
    println!(
        "{weakness:?}: {reads} reads, {stale} stale; wait p50 {:?}, p95 {:?}, max {:?}",
        at(50),
        at(95),
        at(100)
    );
    (reads, stale)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_proven_has_every_acknowledged_commit() {
    assert_eq!(stale_reads(Weakness::None).await.1, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_that_does_not_wait_for_the_stream_is_noticed() {
    // What a snapshot saw before it was decoded is missed for good.
    for _ in 0..5 {
        if stale_reads(Weakness::NoDecodeWait).await.1 > 0 {
            return;
        }
    }
    panic!("no stale read in five runs");
}

const PARTITIONED: &str = "
  CREATE TABLE f (id int, d date, amount numeric(10,2), extra text, PRIMARY KEY (id, d)) PARTITION BY RANGE (d);
  CREATE TABLE f1 PARTITION OF f FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
  CREATE TABLE f2 PARTITION OF f FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
  ALTER TABLE f REPLICA IDENTITY FULL; ALTER TABLE f1 REPLICA IDENTITY FULL; ALTER TABLE f2 REPLICA IDENTITY FULL;
  CREATE TABLE dim (id int PRIMARY KEY, name text);
  INSERT INTO dim SELECT i, 'n' || i % 3 FROM generate_series(0, 9) i;
  INSERT INTO f SELECT i, date '2024-01-01' + i % 50, i, 'x' FROM generate_series(1, 300) i;";

/// Everything that changes rows without a row in the stream, or changes how rows look.
const ALTERATIONS: &[&str] = &[
    "INSERT INTO f VALUES (1000, '2024-01-03', 5, 'new')",
    "ALTER TABLE f ADD COLUMN more int DEFAULT 7",
    "INSERT INTO f VALUES (1001, '2024-01-03', 5, 'new', 8)",
    "TRUNCATE f1",
    "INSERT INTO f VALUES (1002, '2024-01-03', 5, 'new', 8)",
    "ALTER TABLE f DETACH PARTITION f2",
    "INSERT INTO f2 VALUES (1003, '2024-02-03', 5, 'new', 8)",
    "ALTER TABLE f ATTACH PARTITION f2 FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')",
    "UPDATE f SET amount = amount + 1 WHERE id % 7 = 0",
    "CREATE TABLE f3 PARTITION OF f FOR VALUES FROM ('2024-03-01') TO ('2024-04-01'); ALTER TABLE f3 REPLICA IDENTITY FULL; \
     INSERT INTO f VALUES (1004, '2024-03-03', 5, 'new', 8)",
    "UPDATE f SET d = d + 30 WHERE id = 1002",
    "ALTER TABLE f ALTER COLUMN extra TYPE varchar(20)",
    "ALTER TABLE f DROP COLUMN extra",
    "DROP TABLE f3",
    "TRUNCATE f",
    "INSERT INTO f VALUES (1005, '2024-01-03', 5, 8)",
    "UPDATE dim SET name = 'other' WHERE id = 5",
    "ALTER TABLE dim REPLICA IDENTITY FULL",
    "UPDATE dim SET name = 'another' WHERE id = 5",
    "VACUUM FULL f1",
    "GRANT SELECT ON f TO PUBLIC",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_done_to_the_tables_the_rollups_are_right_again() {
    let database = Database::with(PARTITIONED).await;
    let config = database.config().await;
    let rollups = &[
        (
            "months",
            "SELECT date_trunc('month', d::timestamp) AS month, count(*), sum(amount), max(amount) FROM f GROUP BY 1",
        ),
        (
            "names",
            "SELECT dim.name, count(*), sum(f.amount) FROM f JOIN dim ON dim.id = f.id % 10 GROUP BY 1",
        ),
    ];
    let rollups = Maintained::start(config.clone(), rollups, MaintainOptions::default()).await;
    rollups.prove_all().await;
    let client = connect(&config).await;
    for alteration in ALTERATIONS {
        for statement in alteration.split("; ") {
            client.batch_execute(statement).await.unwrap();
        }
        rollups.prove_all().await;
        assert_eq!(
            rollups.differences(&client).await,
            Vec::<String>::new(),
            "{alteration}"
        );
    }
    let figures = rollups.maintainer.figures();
    let rebuilds = |name: &str| figures.rollups[name].rebuilds.clone();
    println!("{:?} {:?}", rebuilds("months"), rebuilds("names"));
    assert!(rebuilds("months").contains_key("reshaped"));
    assert!(
        rebuilds("names").contains_key("no-old-row"),
        "its key says nothing of the old name"
    );
}

/// Building it again would read a whole table, and help no more than the last time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollup_of_a_table_that_cannot_be_followed_is_not_built_again_before_it_can() {
    let database = Database::with(COUNTED).await;
    let config = database.config().await;
    let client = connect(&config).await;
    let keyless = "CREATE TABLE keyless (kind int NOT NULL); INSERT INTO keyless VALUES (1), (2)";
    client.batch_execute(keyless).await.unwrap();
    let both = [
        COUNTS[0],
        ("kinds", "SELECT kind, count(*) FROM keyless GROUP BY kind"),
    ];
    let rollups = Maintained::start(config.clone(), &both, MaintainOptions::default()).await;
    let kinds = rollups.table("kinds").await;
    for id in 0..20 {
        let insert = format!("INSERT INTO t VALUES ({id}, 1, 1); INSERT INTO keyless VALUES (3)");
        client.batch_execute(&insert).await.unwrap();
        rollups.prove("counts").await;
    }
    let unfollowed = rollups.maintainer.prove(&[&kinds], DEADLINE).await;
    assert!(
        matches!(
            unfollowed,
            Err(NotCurrent::SteppedAside {
                why: Unfoldable::NotFollowed { .. },
                ..
            })
        ),
        "{unfollowed:?}"
    );
    let figures = rollups.maintainer.figures();
    let rebuilt = figures.rollups.get("kinds").map(|own| &own.rebuilds);
    assert!(
        rebuilt.is_none_or(|rebuilds| rebuilds.is_empty()),
        "{rebuilt:?}"
    );
    let key = "ALTER TABLE keyless ADD COLUMN id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY";
    client.batch_execute(key).await.unwrap();
    rollups.check(&client).await;
    assert_ne!(rollups.table("kinds").await, kinds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_is_gone_makes_rollups_be_built_again() {
    let database = Database::with(COUNTED).await;
    let config = database.config().await;
    let rollups = Maintained::start(config.clone(), COUNTS, MaintainOptions::default()).await;
    rollups.prove_all().await;
    let before = rollups.table("counts").await;
    drop(rollups);
    let client = connect(&config).await;
    let drop_slot = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                      WHERE database = current_database() AND NOT active";
    let started = Instant::now();
    while client.execute(drop_slot, &[]).await.unwrap_or(0) == 0 {
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client
        .batch_execute("INSERT INTO t VALUES (1, 1, 1)")
        .await
        .unwrap();
    let rollups = Maintained::follow(config.clone(), COUNTS, MaintainOptions::default()).await;
    rollups.maintainer.established(DEADLINE).await.unwrap();
    let stale = rollups
        .maintainer
        .prove(&[&before], Duration::from_secs(2))
        .await;
    assert!(stale.is_err(), "{stale:?}");
    rollups.check(&client).await;
    assert_ne!(rollups.table("counts").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_keeps_too_much_is_replaced() {
    let database = Database::with(COUNTED).await;
    let config = database.config().await;
    let options = MaintainOptions {
        retained_bytes_max: 24 * 1024 * 1024,
        ..MaintainOptions::default()
    };
    let rollups = Maintained::start(config.clone(), COUNTS, options).await;
    rollups.prove_all().await;
    let slot = "SELECT slot FROM pgstar.maintenance";
    let before = database.value(slot).await;
    // A transaction that stays open keeps the log from its beginning on.
    let idle = connect(&config).await;
    idle.batch_execute("BEGIN; INSERT INTO t VALUES (-1, 0, 0)")
        .await
        .unwrap();
    let client = connect(&config).await;
    client
        .batch_execute("CREATE TABLE other (t text)")
        .await
        .unwrap();
    let started = Instant::now();
    let fill = "INSERT INTO other SELECT repeat(i::text, 100) FROM generate_series(1, 20000) i; CHECKPOINT";
    let is_there =
        format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{before}'");
    while database.value(&is_there).await != "0" {
        assert!(started.elapsed() < DEADLINE);
        client.batch_execute(fill).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    idle.batch_execute("COMMIT").await.unwrap();
    rollups.prove_all().await;
    assert_ne!(database.value(slot).await, before);
    assert_eq!(rollups.differences(&client).await, Vec::<String>::new());
}

/// A rollup whose build began in one epoch and ended in the next needs what was decoded in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_outlasts_an_interruption_of_the_stream() {
    let database = Database::with(COUNTED).await;
    let config = database.config().await;
    let rollups = Maintained::start(config.clone(), COUNTS, MaintainOptions::default()).await;
    rollups.prove_all().await;
    let client = connect(&config).await;
    let plan = rollups.plans[0].build.clone();
    // The build waits for somebody after its snapshot was taken.
    let blocker = connect(&config).await;
    blocker
        .batch_execute("SELECT pg_advisory_lock(7)")
        .await
        .unwrap();
    let mut slow = plan.clone();
    slow.select = format!(
        "{} HAVING (SELECT pg_advisory_xact_lock(7)::text) IS NOT NULL",
        slow.select
    );
    let store = pgstar_postgres::rollups::RollupStore::new(config.clone()).unwrap();
    let builds = tokio::spawn(async move {
        store
            .rebuild(&slow, &Sources::none(), &|_| ())
            .await
            .unwrap()
    });
    let waits = "SELECT count(*) FROM pg_locks
                  WHERE locktype = 'advisory' AND objid = 7 AND NOT granted
                    AND database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())";
    while database.value(waits).await == "0" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let walsender = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
                      WHERE database = current_database() AND active";
    for row in 0..6 {
        client
            .batch_execute(&format!("INSERT INTO t VALUES ({row}, {row} % 3, 1)"))
            .await
            .unwrap();
        rollups.prove_all().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.execute(walsender, &[]).await.unwrap();
    }
    blocker
        .batch_execute("SELECT pg_advisory_unlock(7)")
        .await
        .unwrap();
    let built = builds.await.unwrap();
    rollups.check(&client).await;
    let now = rollups.table("counts").await;
    assert_eq!(
        now, built.table,
        "it was brought up to date and not built again"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_outside_the_schema_when_it_is_uninstalled() {
    let database = Database::with(COUNTED).await;
    let config = database.config().await;
    let rollups = Maintained::start(config.clone(), COUNTS, MaintainOptions::default()).await;
    rollups.prove_all().await;
    let nobody = Maintainer::new(config.clone(), MaintainOptions::default());
    let error = nobody
        .prove(&["counts_v1"], Duration::from_millis(10))
        .await;
    assert!(matches!(error, Err(NotCurrent::Stream(_))), "{error:?}");
    let tables = rollups.maintainer.tables();
    assert!(
        tables
            .values()
            .all(|table| table.standing == Standing::InStep),
        "{tables:?}"
    );
    assert_eq!(plans(config.clone(), COUNTS).await, rollups.plans);
    drop(rollups);
    let left =
        "SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())
                     + (SELECT count(*) FROM pg_publication)";
    let started = Instant::now();
    loop {
        Maintainer::uninstall(config.clone()).await.unwrap();
        if database.value(left).await == "0" {
            break;
        }
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
