//! Large facts are read part by part: exactly beside writers, and whoever goes on after a process or the server was killed
//! reads no part again that is done.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;
mod maintain_support;

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use common::{Database, server};
use maintain_support::{
    Acknowledged, COUNTED, COUNTS, DEADLINE, Maintained, ROLLUPS, STAR, Writers, connect,
    connect_patiently, number, start_server,
};
use pgstar_postgres::maintain::{MaintainOptions, MaintainPlan, Weakness};
use pgstar_postgres::rollups::{BuildProgress, RollupError, RollupStore, Sources};
use pgstar_postgres::server::Shutdown;

/// So that some thousand rows are some parts.
const PART_BYTES: u64 = 64 * 1024;

const SALES: &str = "
  INSERT INTO sale SELECT i, i % 40 + 1, i % 40 + 1, i % 20 + 1, i % 100, i % 7, i % 9, i, i % 100, i % 3 = 0, 'n' || i % 13,
         timestamptz '2024-01-01' + i * interval '1 hour', timestamp '2024-01-01' + i * interval '1 hour'
    FROM generate_series(1, 4000) i;
  ANALYZE sale;";

/// The server's own ANALYZE beside writers might find that rows do not lie in the order of the key any more.
fn unpartitioned() -> String {
    format!("{STAR} ALTER TABLE sale SET (autovacuum_enabled = false);")
}

/// Its facts are in partitions instead of one table.
fn partitioned() -> String {
    let star = STAR.replace(
        "at timestamptz, made timestamp);",
        "at timestamptz, made timestamp) PARTITION BY RANGE (id);
         CREATE TABLE sale_other PARTITION OF sale DEFAULT; ALTER TABLE sale_other REPLICA IDENTITY FULL;",
    );
    let partition = |at: u32| {
        let (from, to) = (at * 700, at * 700 + 700);
        format!(
            "CREATE TABLE sale_{at} PARTITION OF sale FOR VALUES FROM ({from}) TO ({to});
             ALTER TABLE sale_{at} REPLICA IDENTITY FULL;"
        )
    };
    star + &(0..4).map(partition).collect::<String>()
}

fn options(weakness: Weakness) -> MaintainOptions {
    MaintainOptions {
        part_bytes: PART_BYTES,
        weakness,
        ..MaintainOptions::default()
    }
}

/// As who begins again after something went wrong.
fn going_on() -> Sources {
    Sources {
        keeps_parts: true,
        ..Sources::none()
    }
}

/// The rollup that most of these tests build.
async fn follow(config: &tokio_postgres::Config) -> Maintained {
    let rollups = Maintained::follow(config.clone(), &ROLLUPS[2..3], options(Weakness::None)).await;
    // After whoever led before was killed.
    rollups.maintainer.established(DEADLINE * 3).await.unwrap();
    rollups
}

/// How many parts were done of how many, each time that was told.
type Told = Vec<(usize, usize)>;

async fn build(store: &RollupStore, plan: &MaintainPlan) -> Result<Told, RollupError> {
    let told = Mutex::new(vec![]);
    let note = |progress| {
        if let BuildProgress::Part { done, all, rest } = progress {
            told.lock().unwrap().push((Instant::now(), done, all, rest));
        }
    };
    let built = store.rebuild(&plan.build, &going_on(), &note).await?;
    let told = told.into_inner().unwrap();
    let (first, last) = (told.first(), told.last());
    if let (Some((began, ..)), Some((ended, ..))) = (first, last) {
        assert!(
            built.build_time >= *ended - *began,
            "all parts are counted: {built:?}"
        );
    }
    // In one round nothing is known of the rest before the first part, and something after it.
    let mut rounds = told.split(|(_, done, all, _)| done == all);
    let is_told = |round: &[(Instant, usize, usize, Option<Duration>)]| {
        let mut rests = round.iter().map(|(.., rest)| rest.is_some());
        rests.next() != Some(true) && rests.all(|is_known| is_known)
    };
    assert!(rounds.all(is_told), "{told:?}");
    let mut parts = told.windows(2);
    let goes_on = |two: &[(Instant, usize, usize, Option<Duration>)]| {
        let ((_, before, all, _), (_, after, still, _)) = (&two[0], &two[1]);
        all == still && (*after == before + 1 || before == all)
    };
    assert!(parts.all(goes_on), "{told:?}");
    Ok(told
        .into_iter()
        .map(|(_, done, all, _)| (done, all))
        .collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollups_that_are_built_in_parts_beside_writers_are_exact() {
    for (at, star) in [unpartitioned(), partitioned()].iter().enumerate() {
        let database = Database::with(&format!("{star}{SALES}")).await;
        let config = database.config().await;
        let wanted: Vec<(&str, &str)> = ROLLUPS.iter().copied().skip(at).step_by(3).collect();
        let rollups = Maintained::follow(config.clone(), &wanted, options(Weakness::None)).await;
        rollups.maintainer.established(DEADLINE).await.unwrap();
        let writers = Writers::start(&config, 1);
        for plan in &rollups.plans {
            let told = build(&rollups.store, plan).await.unwrap();
            if plan.build.name == "floating" {
                assert_eq!(told, [], "sums of floats do not come to the whole's");
                continue;
            }
            let (done, all) = *told.last().unwrap();
            assert!(done == all && all >= 3, "{told:?}");
        }
        writers.end().await;
        let client = connect(&config).await;
        rollups.check(&client).await;
        rollups.store.sweep().await.unwrap();
        let left = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'pgstar'::regnamespace
                     AND relname ~ '_v[0-9]+$'";
        let left = usize::try_from(number(&client, left).await).unwrap();
        assert_eq!(left, wanted.len(), "parts that nobody needs");
    }
}

/// Builds beside who only inserts, and only into the first of the parts.
async fn differences_after_builds(weakness: Weakness, rounds: u32) -> Vec<String> {
    let fill =
        "INSERT INTO t SELECT 100000000 + i, i % 5, 1 FROM generate_series(1, 5000) i; ANALYZE t;";
    let database = Database::with(&format!("{COUNTED}{fill}")).await;
    let config = database.config().await;
    let rollups = Maintained::follow(config.clone(), COUNTS, options(weakness)).await;
    rollups.maintainer.established(DEADLINE).await.unwrap();
    let client = connect(&config).await;
    for _ in 0..rounds {
        let writers = Acknowledged::start(&config, &["on", "off", "on"]);
        for _ in 0..2 {
            let told = build(&rollups.store, &rollups.plans[0]).await.unwrap();
            assert!(told.len() > 2, "{told:?}");
        }
        writers.end().await;
        rollups.prove_all().await;
        let differences = rollups.differences(&client).await;
        if !differences.is_empty() {
            return differences;
        }
        client
            .batch_execute("DELETE FROM t WHERE id < 100000000")
            .await
            .unwrap();
    }
    vec![]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_brought_to_one_snapshot() {
    let differences = differences_after_builds(Weakness::None, 2).await;
    assert_eq!(differences, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_that_are_taken_as_they_are_would_be_noticed() {
    let differences = differences_after_builds(Weakness::NewcomersAreInStep, 20).await;
    assert_ne!(differences, Vec::<String>::new());
}

/// Rows without a value are a part, and what cannot be added up is built in parts only if no group is in two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_that_cannot_be_added_up_are_in_one_part() {
    let fact = "CREATE TABLE f (id bigint PRIMARY KEY, d date, c text); ALTER TABLE f REPLICA IDENTITY FULL;
                INSERT INTO f SELECT -i, date '2024-01-01' + i / 50, 'c' || i % 9 FROM generate_series(1, 9000) i;
                INSERT INTO f SELECT -i, NULL, 'null' FROM generate_series(9001, 9050) i;
                CREATE INDEX ON f USING brin (d); ALTER TABLE f DROP CONSTRAINT f_pkey; ANALYZE f;";
    let database = Database::with(fact).await;
    let config = database.config().await;
    let by_day = "SELECT d, count(DISTINCT c), max(id), count(*) FROM f GROUP BY d";
    let by_text = "SELECT c, count(DISTINCT d), count(*) FROM f GROUP BY c";
    let added = "SELECT c, max(id), count(*), count(d) FROM f GROUP BY c";
    let wanted = [("by_day", by_day), ("by_text", by_text), ("added", added)];
    let rollups = Maintained::follow(config.clone(), &wanted, options(Weakness::None)).await;
    rollups.maintainer.established(DEADLINE).await.unwrap();
    let mut parts = vec![];
    for plan in &rollups.plans {
        let told = build(&rollups.store, plan).await.unwrap();
        parts.push(told.last().map_or(1, |(_, all)| *all));
    }
    assert!(
        parts[0] >= 3 && parts[1] == 1 && parts[2] == parts[0],
        "{parts:?}"
    );
    let client = connect(&config).await;
    rollups.check(&client).await;
}

/// What the process that is killed is told: where the server is, and how many parts it builds.
const URL: &str = "PGSTAR_TEST_URL";
const BUILDS: &str = "PGSTAR_TEST_BUILDS";

/// The process. Without being told anything it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "another test runs it in a process of its own"]
async fn the_process_that_is_killed_between_parts() {
    let Ok(url) = std::env::var(URL) else { return };
    std::thread::spawn(|| {
        // Whoever started this is gone.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    let builds: usize = std::env::var(BUILDS).unwrap().parse().unwrap();
    let config: tokio_postgres::Config = url.parse().unwrap();
    let rollups = follow(&config).await;
    let die = |progress| {
        if matches!(progress, BuildProgress::Part { done, .. } if done == builds) {
            let killing = Command::new("/bin/sh")
                .args(["-c", "kill -9 $PPID"])
                .status();
            panic!("still alive: {killing:?}");
        }
    };
    let plan = &rollups.plans[0].build;
    rollups
        .store
        .rebuild(plan, &going_on(), &die)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_on_after_a_killed_process_reads_no_part_again() {
    let database = Database::with(&(unpartitioned() + SALES)).await;
    let config = database.config().await;
    let url = server().await.url(&database.name);
    let writers = Writers::start(&config, 2);
    for builds in [2, 4] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let process = command
            .args([
                "--ignored",
                "--exact",
                "the_process_that_is_killed_between_parts",
            ])
            .env(URL, &url)
            .env(BUILDS, builds.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        let mut process = process.spawn().unwrap();
        let started = Instant::now();
        let status = loop {
            if let Some(status) = process.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > DEADLINE * 5 {
                let _ = process.kill();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        assert_eq!(status.signal(), Some(9), "{builds}");
        let client = connect(&config).await;
        let done = "SELECT count(table_name) FROM pgstar.rollup_part";
        assert_eq!(number(&client, done).await, builds);
    }
    let rollups = follow(&config).await;
    let told = build(&rollups.store, &rollups.plans[0]).await.unwrap();
    let all = told[0].1;
    let expected: Told = (4..=all).map(|done| (done, all)).collect();
    assert_eq!(told, expected);
    writers.end().await;
    rollups.check(&connect(&config).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_on_after_a_killed_server_reads_no_part_again() {
    let mut server = start_server(&[]).await;
    let config = server.config("postgres");
    let client = connect(&config).await;
    client
        .batch_execute(&(unpartitioned() + SALES))
        .await
        .unwrap();
    let rollups = follow(&config).await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let note = |progress| {
        if let BuildProgress::Part { done, .. } = progress {
            tell.send(done).unwrap();
        }
    };
    {
        let (sources, plan) = (going_on(), &rollups.plans[0].build);
        let mut building = std::pin::pin!(rollups.store.rebuild(plan, &sources, &note));
        // The third part is being built.
        loop {
            tokio::select! {
                built = &mut building => panic!("{built:?}"),
                done = told.recv() => if done == Some(2) { break },
            }
        }
        let (killed, given_up) = tokio::join!(server.restart(Shutdown::Killed), building);
        server = killed.unwrap();
        println!("given up: {given_up:?}");
    }
    let client = connect_patiently(&config).await;
    let insert = "INSERT INTO sale (id, customer_id, quantity) VALUES (-5, 1, 2), (100000, 2, 3); UPDATE sale SET amount = 7 WHERE id < 900";
    client.batch_execute(insert).await.unwrap();
    let done = "SELECT count(table_name) FROM pgstar.rollup_part";
    let done = usize::try_from(number(&client, done).await).unwrap();
    assert!(done >= 2, "{done}");
    let started = Instant::now();
    let told = loop {
        match build(&rollups.store, &rollups.plans[0]).await {
            Ok(told) => break told,
            Err(error) => assert!(started.elapsed() < DEADLINE, "{error}"),
        }
    };
    let all = told[0].1;
    let expected: Told = (done..=all).map(|done| (done, all)).collect();
    assert_eq!(told, expected);
    rollups.check(&client).await;
    drop(rollups);
    server.stop().await.unwrap();
}

/// What is done to the tables meanwhile makes parts be read again, or all at once, but never an answer wrong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_altered_while_parts_are_read_are_read_again() {
    let database = Database::with(&format!("{}{SALES}", partitioned())).await;
    let config = database.config().await;
    let rollups = follow(&config).await;
    let client = connect(&config).await;
    let alterations = [
        "TRUNCATE sale_1",
        "ALTER TABLE sale DETACH PARTITION sale_2",
        "ALTER TABLE sale ATTACH PARTITION sale_2 FOR VALUES FROM (1400) TO (2100)",
        "TRUNCATE sale",
    ];
    for alteration in alterations {
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let note = |progress| {
            if let BuildProgress::Part { done, .. } = progress {
                tell.send(done).unwrap();
            }
        };
        let (sources, plan) = (going_on(), &rollups.plans[0].build);
        let building = rollups.store.rebuild(plan, &sources, &note);
        let altering = async {
            while told.recv().await != Some(2) {}
            client.batch_execute(alteration).await.unwrap();
        };
        let (built, ()) = tokio::join!(building, altering);
        if let Err(error) = built {
            println!("{alteration}: {error}");
            build(&rollups.store, &rollups.plans[0]).await.unwrap();
        }
        rollups.check(&client).await;
    }
}
