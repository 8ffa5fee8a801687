//! Rollups when the server or the network is in trouble; each test has a server of its own. Whatever
//! happens, what is proven is right, and everything is right again by itself.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod maintain_support;

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use maintain_support::{
    Acknowledged, COUNTED, COUNTS, DEADLINE, Maintained, ROLLUPS, STAR, Wire, Writers, connect,
    connect_patiently, duration, number, plans, start_server,
};
use pgstar_postgres::connect::Connection;
use pgstar_postgres::maintain::{MaintainOptions, Maintainer, Standing};
use pgstar_postgres::rollups::RollupStore;
use pgstar_postgres::rollups::Sources;
use pgstar_postgres::server::{Server, Shutdown};
use pgstar_postgres::stream::{Lsn, StreamOptions, Unproven};
use pgstar_postgres::visible::{Glimpse, LOG_END, SERVER, VISIBLE};

const SOON: Duration = Duration::from_millis(500);

async fn with_table(settings: &[(&str, &str)]) -> (Server, Connection) {
    let server = start_server(settings).await;
    let client = connect(&server.config("postgres")).await;
    client.batch_execute(COUNTED).await.unwrap();
    (server, client)
}

async fn maintained(server: &Server) -> Maintained {
    let config = server.config("postgres");
    let rollups = Maintained::start(config, COUNTS, MaintainOptions::default()).await;
    rollups.prove_all().await;
    rollups
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_and_repeats_nothing() {
    let mut server = start_server(&[]).await;
    let config = server.config("postgres");
    connect(&config).await.batch_execute(STAR).await.unwrap();
    let rollups =
        Maintained::start(config.clone(), &ROLLUPS[2..5], MaintainOptions::default()).await;
    rollups.prove_all().await;
    let writers = Writers::start(&config, 2);
    let (started, mut kills) = (Instant::now(), 0);
    while kills < 2 || started.elapsed() < duration(0) {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        server = server.restart(Shutdown::Killed).await.unwrap();
        kills += 1;
        let back = Instant::now();
        rollups.prove_all().await;
        println!("proven {:?} after the server was back", back.elapsed());
    }
    writers.end().await;
    rollups.check(&connect_patiently(&config).await).await;
    println!("{kills} kills, {:?}", rollups.maintainer.figures());
    drop(rollups);
    server.stop().await.unwrap();
}

/// What is proven without a wait comes from the glimpse: on one thread nobody else answers meanwhile.
#[tokio::test]
async fn a_glimpse_proves_what_it_is_of_and_nothing_else() {
    let (server, client) = with_table(&[]).await;
    let rollups = maintained(&server).await;
    let table = rollups.table("counts").await;
    let proves = |glimpse: &Glimpse| {
        let (maintainer, tables) = (&rollups.maintainer, [table.as_str()]);
        let proof = pin!(maintainer.prove_by(Some(glimpse), &tables, DEADLINE));
        let nobody = &mut Context::from_waker(Waker::noop());
        matches!(proof.poll(nobody), Poll::Ready(Ok(_)))
    };
    let open_since = Instant::now();
    let looked = format!("SELECT {SERVER}, {VISIBLE}, {LOG_END}");
    let look = async || {
        let row = client.query_one(&looked, &[]).await.unwrap();
        let text = |at| row.get::<_, String>(at);
        Glimpse {
            server: text(0).into(),
            open_since,
            visible: text(1).into(),
            log_end: text(2).parse().unwrap(),
        }
    };
    for _ in 0..3 {
        let started = Instant::now();
        let glimpse = loop {
            let glimpse = look().await;
            if proves(&glimpse) {
                break glimpse;
            }
            assert!(started.elapsed() < DEADLINE);
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let others = [
            Glimpse {
                server: "1.5".into(),
                ..glimpse.clone()
            },
            Glimpse {
                open_since: Instant::now() + DEADLINE,
                ..glimpse.clone()
            },
            Glimpse {
                visible: "5:5:".into(),
                ..glimpse.clone()
            },
            Glimpse {
                log_end: Lsn(glimpse.log_end.0 + 1_000_000_000),
                ..glimpse
            },
        ];
        for other in &others {
            assert!(!proves(other), "{other:?}");
        }
        let insert = "INSERT INTO t SELECT coalesce(max(id), 0) + 1, 1, 1 FROM t";
        client.batch_execute(insert).await.unwrap();
    }
    rollups.check(&client).await;
    drop(rollups);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_the_server_gave_up_makes_rollups_be_built_again() {
    let settings = [
        ("max_slot_wal_keep_size", "16MB"),
        ("max_wal_size", "32MB"),
        ("min_wal_size", "32MB"),
    ];
    let (server, client) = with_table(&settings).await;
    let rollups = maintained(&server).await;
    let before = rollups.table("counts").await;
    let slot = "SELECT slot FROM pgstar.maintenance";
    let slot: String = client.query_one(slot, &[]).await.unwrap().get(0);
    // A transaction that stays open keeps the log from its beginning on.
    let idle = connect(&server.config("postgres")).await;
    idle.batch_execute("BEGIN; INSERT INTO t VALUES (-1, 0, 0)")
        .await
        .unwrap();
    client
        .batch_execute("CREATE TABLE other (t text)")
        .await
        .unwrap();
    let fill = "INSERT INTO other SELECT repeat(i::text, 100) FROM generate_series(1, 20000) i; \
                SELECT pg_switch_wal(); CHECKPOINT; INSERT INTO t SELECT coalesce(max(id), 0) + 1, 1, 1 FROM t";
    let is_kept = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{slot}' AND wal_status <> 'lost'"
    );
    let started = Instant::now();
    while number(&client, &is_kept).await > 0 {
        assert!(started.elapsed() < DEADLINE);
        client.batch_execute(fill).await.unwrap();
    }
    // The new slot waits for the idle one; until then nothing is proven, and it is said why.
    let started = Instant::now();
    loop {
        let proof = rollups.maintainer.prove(&[&before], SOON).await;
        let why = proof.unwrap_err().to_string();
        if why.contains("which has an open transaction that wrote") {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{why}");
    }
    idle.batch_execute("COMMIT").await.unwrap();
    rollups.check(&client).await;
    assert_ne!(rollups.table("counts").await, before);
    drop(rollups);
    server.stop().await.unwrap();
}

/// A file system of 8 MiB; unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(owner: &Path) -> Option<Self> {
        let path = owner.join("small_disk");
        std::fs::create_dir(&path).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(&path)
            .stderr(Stdio::null())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            return None;
        }
        let metadata = std::fs::metadata(owner).unwrap();
        std::os::unix::fs::chown(&path, Some(metadata.uid()), Some(metadata.gid())).unwrap();
        Some(SmallDisk(path))
    }

    fn fill(&self) {
        let zeros = vec![0; 64 * 1024];
        for at in 0.. {
            if std::fs::write(self.0.join(format!("filler_{at}")), &zeros).is_err() {
                return;
            }
        }
    }

    fn empty(&self) {
        for file in std::fs::read_dir(&self.0).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_one_rollup_keeps_it_aside_and_no_other() {
    let (server, client) = with_table(&[]).await;
    let config = server.config("postgres");
    let Some(disk) = SmallDisk::mount(server.socket_directory()) else {
        println!("SKIPPED: no file system could be mounted, which takes root and the right to");
        return server.stop().await.unwrap();
    };
    let rollups = &[
        COUNTS[0],
        ("by_id", "SELECT id, count(*), sum(n) FROM t GROUP BY id"),
    ];
    let rollups = Maintained::follow(config.clone(), rollups, MaintainOptions::default()).await;
    rollups.maintainer.established(DEADLINE).await.unwrap();
    let sources = Sources::none();
    let build = |at: usize| {
        let plan = &rollups.plans[at].build;
        rollups.store.ensure(plan, &sources, &|_| ())
    };
    build(0).await.unwrap();
    // Only the second rollup is on the small disk.
    let space = format!("CREATE TABLESPACE small LOCATION '{}'", disk.0.display());
    client.batch_execute(&space).await.unwrap();
    client
        .batch_execute("ALTER DATABASE postgres SET default_tablespace = small")
        .await
        .unwrap();
    let store = RollupStore::new(config.clone()).unwrap();
    store
        .ensure(&rollups.plans[1].build, &Sources::none(), &|_| ())
        .await
        .unwrap();
    rollups.check(&client).await;
    disk.fill();
    client
        .batch_execute("INSERT INTO t SELECT i, i % 5, 1 FROM generate_series(1, 20000) i")
        .await
        .unwrap();
    let (counts, by_id) = (rollups.table("counts").await, rollups.table("by_id").await);
    let started = Instant::now();
    while rollups.maintainer.prove(&[&counts], SOON).await.is_err() {
        assert!(started.elapsed() < DEADLINE);
    }
    let refused = rollups.maintainer.prove(&[&by_id], SOON).await;
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("No space left on device"), "{why}");
    // The others go on.
    client
        .batch_execute("DELETE FROM t WHERE id < 100")
        .await
        .unwrap();
    rollups
        .maintainer
        .prove(&[&counts], DEADLINE)
        .await
        .unwrap();
    let counted = format!("SELECT sum(row_count)::bigint FROM pgstar.\"{counts}\"");
    assert_eq!(number(&client, &counted).await, 19901);
    disk.empty();
    rollups.check(&client).await;
    drop((rollups, disk));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_cut_without_a_word_is_noticed_and_nobody_waits_for_the_dead() {
    let (server, client) = with_table(&[]).await;
    let wire = Wire::to(server.port()).await;
    let mut config = server.config("postgres");
    config = format!(
        "host=127.0.0.1 port={} user=postgres dbname=postgres connect_timeout=2",
        wire.port
    )
    .parse()
    .unwrap_or(config);
    let options = MaintainOptions {
        stream: StreamOptions {
            patience: Duration::from_secs(2),
            ..StreamOptions::default()
        },
        ..MaintainOptions::default()
    };
    let rollups = Maintained::start(config, COUNTS, options).await;
    rollups.prove_all().await;
    let table = rollups.table("counts").await;
    for round in 0..2 {
        wire.cut();
        let sql = format!("INSERT INTO t VALUES ({round}, 1, 1)");
        client.batch_execute(&sql).await.unwrap();
        let cut = Instant::now();
        let proof = rollups.maintainer.prove(&[&table], SOON).await;
        assert!(proof.is_err(), "nothing can be known: {proof:?}");
        while let Err(why) = rollups.maintainer.prove(&[&table], SOON * 4).await {
            assert!(cut.elapsed() < DEADLINE * 3, "{why}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        println!("proven again {:?} after the cut", cut.elapsed());
        // The store's own connection was cut as well, so another one looks.
        let is = format!("SELECT sum(row_count)::bigint FROM pgstar.\"{table}\"");
        assert_eq!(number(&client, &is).await, round + 1);
    }
    drop(rollups);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_idle_in_its_transaction_is_named_and_waited_for() {
    let (server, client) = with_table(&[]).await;
    let config = server.config("postgres");
    let idle = connect(&config).await;
    idle.batch_execute("SET application_name = 'forgotten'; BEGIN; INSERT INTO t VALUES (1, 1, 1)")
        .await
        .unwrap();
    let rollups = Maintained::follow(config.clone(), COUNTS, MaintainOptions::default()).await;
    let started = Instant::now();
    loop {
        let established = rollups.maintainer.established(SOON).await;
        let why = established.unwrap_err().to_string();
        if why.contains("application \"forgotten\"") {
            break;
        }
        assert!(started.elapsed() < DEADLINE, "{why}");
    }
    idle.batch_execute("COMMIT").await.unwrap();
    rollups.build().await;
    rollups.check(&client).await;
    // With the slot there, a build waits for nobody.
    idle.batch_execute("BEGIN; INSERT INTO t VALUES (2, 1, 1)")
        .await
        .unwrap();
    // As after half an hour: many have come and gone since, and every snapshot lists it alone.
    for id in 100..600 {
        let sql = format!("INSERT INTO t VALUES ({id}, {}, 1)", id % 3);
        client.batch_execute(&sql).await.unwrap();
    }
    rollups
        .store
        .rebuild(&rollups.plans[0].build, &Sources::none(), &|_| ())
        .await
        .unwrap();
    rollups.check(&client).await;
    idle.batch_execute("COMMIT").await.unwrap();
    rollups.check(&client).await;
    drop(rollups);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prepared_transaction_counts_when_it_is_committed() {
    let settings = [
        ("max_prepared_transactions", "5"),
        ("logical_decoding_work_mem", "64kB"),
    ];
    let (server, client) = with_table(&settings).await;
    let rollups = maintained(&server).await;
    let mut first = 0;
    for (rows, end) in [
        (10, "COMMIT PREPARED"),
        (5000, "ROLLBACK PREPARED"),
        (5000, "COMMIT PREPARED"),
    ] {
        client
            .batch_execute(&format!(
                "BEGIN; INSERT INTO t SELECT i, i % 5, 1 FROM generate_series({first} + 1, {first} + {rows}) i; \
                 SAVEPOINT a; DELETE FROM t; ROLLBACK TO a; PREPARE TRANSACTION 'two'"
            ))
            .await
            .unwrap();
        first += rows;
        rollups.check(&client).await;
        // Others commit while it is neither here nor there, and are followed.
        let sql = format!("INSERT INTO t VALUES (-{first}, 1, 1)");
        client.batch_execute(&sql).await.unwrap();
        rollups.check(&client).await;
        client.batch_execute(&format!("{end} 'two'")).await.unwrap();
        rollups.check(&client).await;
    }
    let counted = format!(
        "SELECT sum(row_count)::bigint FROM pgstar.\"{}\"",
        rollups.table("counts").await
    );
    assert_eq!(number(&client, &counted).await, 5013);
    drop(rollups);
    server.stop().await.unwrap();
}

/// A physical standby, made of a copy of the server's files.
struct Standby {
    process: Child,
    directory: PathBuf,
}

impl Standby {
    async fn start(server: &Server, client: &Connection, name: &str, settings: &str) -> Self {
        let data: String = client
            .query_one("SHOW data_directory", &[])
            .await
            .unwrap()
            .get(0);
        let directory = server.socket_directory().join(name);
        let (start, stop) = match server.version() < 15 {
            true => (
                "pg_start_backup('standby', true, false)",
                "pg_stop_backup(false)",
            ),
            false => ("pg_backup_start('standby', true)", "pg_backup_stop(false)"),
        };
        let start = client.batch_execute(&format!("SELECT {start}")).await;
        start.unwrap();
        let copied = Command::new("cp")
            .arg("-a")
            .args([&data])
            .arg(&directory)
            .status();
        assert!(copied.unwrap().success());
        let label: String = client
            .query_one(&format!("SELECT labelfile FROM {stop}"), &[])
            .await
            .unwrap()
            .get(0);
        std::fs::remove_file(directory.join("postmaster.pid")).unwrap();
        std::fs::write(directory.join("backup_label"), label).unwrap();
        std::fs::write(directory.join("standby.signal"), "").unwrap();
        let mut own =
            std::fs::read_to_string(directory.join("postgresql.auto.conf")).unwrap_or_default();
        own += &format!(
            "primary_conninfo = 'host=127.0.0.1 port={} user=postgres application_name={name}'\n\
             listen_addresses = ''\nhot_standby = off\n{settings}\n",
            server.port()
        );
        std::fs::write(directory.join("postgresql.auto.conf"), own).unwrap();
        let owner = std::fs::metadata(&data).unwrap();
        let mut command = Command::new(server.bin_dir().join("postgres"));
        command.arg("-D").arg(&directory).current_dir(&directory);
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(owner.uid()).gid(owner.gid());
            for file in ["backup_label", "standby.signal", "postgresql.auto.conf"] {
                let path = directory.join(file);
                std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
            }
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Standby {
            process: command.spawn().unwrap(),
            directory,
        }
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let pid = self.process.id().to_string();
        let _ = Command::new("/bin/sh")
            .args(["-c", "kill -QUIT \"$1\"", "kill", &pid])
            .status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn behind_a_slow_synchronous_standby_no_answer_is_stale_and_none_is_ahead() {
    let (server, client) = with_table(&[("max_wal_senders", "20")]).await;
    let config = server.config("postgres");
    let standby = Standby::start(
        &server,
        &client,
        "slow",
        "recovery_min_apply_delay = '60ms'",
    )
    .await;
    let is_streaming = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'slow' AND state = 'streaming'";
    let started = Instant::now();
    while number(&client, is_streaming).await == 0 {
        assert!(started.elapsed() < DEADLINE, "no standby");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client
        .batch_execute("SET synchronous_commit = local")
        .await
        .unwrap();
    client
        .batch_execute("ALTER SYSTEM SET synchronous_standby_names = 'slow'")
        .await
        .unwrap();
    client
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
    let rollups = maintained(&server).await;
    let table = rollups.table("counts").await;
    // Commits of these are in the log, and streamed, long before anybody sees them.
    let writers = Acknowledged::start(
        &config,
        &["remote_apply", "remote_apply", "on", "local", "off"],
    );
    let is = format!("SELECT coalesce(sum(row_count), 0)::bigint FROM pgstar.\"{table}\"");
    let reader = connect(&config).await;
    let (started, mut reads, mut refused) = (Instant::now(), 0, 0);
    while started.elapsed() < duration(5) || reads < 10 && started.elapsed() < DEADLINE * 2 {
        let expected = writers.rows();
        // While a commit hangs between log and visibility nothing newer is proven.
        match rollups.maintainer.prove(&[&table], SOON * 10).await {
            Err(_) => refused += 1,
            Ok(_) => {
                reads += 1;
                assert!(number(&reader, &is).await >= expected as i64, "stale");
            }
        }
    }
    writers.end().await;
    rollups.check(&client).await;
    println!(
        "{reads} reads, {refused} refused in time; {:?}",
        rollups.maintainer.figures()
    );
    assert!(reads >= 10, "the harness has shown nothing");
    drop((rollups, standby));
    server.stop().await.unwrap();
}

/// What a deployment tool does, and fails at, before and after its last commit.
const MIGRATION: &[&str] = &[
    "BEGIN; ALTER TABLE t ADD COLUMN extra int DEFAULT 3; UPDATE t SET n = n + extra; ALTER TABLE t DROP COLUMN grp; \
     SELECT 1 / 0",
    "ALTER TABLE t ADD COLUMN extra int DEFAULT 3",
    "UPDATE t SET n = n + extra",
    "BEGIN; ALTER TABLE t ALTER n TYPE bigint; TRUNCATE t; SELECT 1 / 0",
    "ALTER TABLE t RENAME COLUMN extra TO more",
    "BEGIN; DROP TABLE t CASCADE; CREATE TABLE t (id int); SELECT 1 / 0",
    "UPDATE t SET n = more, more = NULL WHERE id % 2 = 0",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_fails_half_way_leaves_right_answers() {
    let (server, client) = with_table(&[("logical_decoding_work_mem", "64kB")]).await;
    client
        .batch_execute("INSERT INTO t SELECT i, i % 5, 1 FROM generate_series(1, 3000) i")
        .await
        .unwrap();
    let rollups = maintained(&server).await;
    for step in MIGRATION {
        for statement in step.split("; ") {
            if client.batch_execute(statement).await.is_err() {
                client.batch_execute("ROLLBACK").await.unwrap();
            }
        }
        rollups.check(&client).await;
    }
    drop(rollups);
    server.stop().await.unwrap();
}

/// A publication of all tables has the rollups' as well, and PostgreSQL then changes no row that it could not name to a subscriber.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_s_publication_of_all_tables_costs_one_build() {
    let (server, client) = with_table(&[]).await;
    let rollups = maintained(&server).await;
    let run = async |sql: &str| client.batch_execute(sql).await.unwrap();
    let write = "INSERT INTO t SELECT max(id) + 1, 1, 1 FROM t";
    run("INSERT INTO t VALUES (1, 1, 1)").await;
    rollups.check(&client).await;
    let generation = "SELECT max(generation) FROM pgstar.rollup_state";
    let first = number(&client, generation).await;
    run("CREATE PUBLICATION everything FOR ALL TABLES").await;
    let deadline = Instant::now() + DEADLINE;
    while number(&client, generation).await == first {
        assert!(Instant::now() < deadline, "no rollup was built again");
        run(write).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    rollups.prove_all().await;
    let second = number(&client, generation).await;
    for _ in 0..5 {
        run(write).await;
        rollups.prove_all().await;
        rollups.check(&client).await;
    }
    assert_eq!(number(&client, generation).await, second);
    drop(rollups);
    server.stop().await.unwrap();
}

/// pgstar's own schema, if somebody was interrupted while it was made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_which_some_is_missing_is_completed() {
    let (server, client) = with_table(&[]).await;
    let config = server.config("postgres");
    client
        .batch_execute("CREATE SCHEMA pgstar; CREATE SEQUENCE pgstar.rollup_generation")
        .await
        .unwrap();
    let rollups = maintained(&server).await;
    rollups.check(&client).await;
    drop(rollups);
    for missing in [
        "rollup_progress",
        "maintenance",
        "followed_table",
        "rollup_state",
    ] {
        client
            .batch_execute(&format!("DROP TABLE pgstar.{missing}"))
            .await
            .unwrap();
        let sql = "INSERT INTO t SELECT coalesce(max(id), 0) + 1, 1, 1 FROM t";
        client.batch_execute(sql).await.unwrap();
        let maintainer = Maintainer::new(config.clone(), MaintainOptions::default());
        let plans = plans(config.clone(), COUNTS).await;
        maintainer.follow(plans, vec![]).await.unwrap();
        let established = maintainer.established(DEADLINE).await;
        assert!(
            !matches!(established, Err(Unproven::Interrupted)),
            "{missing}"
        );
        drop(maintainer);
        let rollups = maintained(&server).await;
        rollups.check(&client).await;
        let tables = rollups.maintainer.tables();
        let is_in_step = |table: &Standing| *table == Standing::InStep;
        assert!(
            tables.values().all(|table| is_in_step(&table.standing)),
            "{missing}"
        );
    }
    server.stop().await.unwrap();
}

/// Clocks are set forward and back. What is shown may depend on them, and what the server is told of its
/// standby's time, but nothing that is decided.
#[test]
fn nothing_is_decided_by_a_clock_that_can_be_set() {
    let mut readers = vec![];
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if std::fs::read_to_string(&path)
                .unwrap()
                .contains("SystemTime::now")
            {
                readers.push(path.file_name().unwrap().to_owned());
            }
        }
    }
    assert_eq!(readers, ["copy.rs"], "the time of a standby status update");
}
