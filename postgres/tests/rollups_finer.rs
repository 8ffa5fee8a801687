//! Rollups that are filled from finer ones: proven, exact beside writers, and only from tables that are as they should be.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;
mod maintain_support;

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use common::Database;
use maintain_support::{DEADLINE, Maintained, STAR, Writers, connect, plans};
use pgstar_postgres::maintain::{Audit, MaintainOptions, MaintainPlan};
use pgstar_postgres::rollups::{BuildPlan, BuildProgress, RollupStore, Sources};
use tokio::time::timeout;

const FINE: &str = "SELECT s.customer_id, s.day_id, d.month, r.name, count(*), sum(s.amount), count(s.amount), min(s.note), \
                    max(s.quantity), sum(s.quantity) FROM sale s JOIN day d ON d.id = s.day_id JOIN customer c ON c.id = s.customer_id \
                    JOIN region r ON r.id = c.region_id GROUP BY 1, 2, 3, 4";
const COARSE: &str = "SELECT d.month, count(*), sum(s.amount), max(s.quantity), avg(s.quantity) FROM sale s JOIN day d ON d.id = s.day_id \
                      JOIN customer c ON c.id = s.customer_id JOIN region r ON r.id = c.region_id GROUP BY 1";
/// Needs neither the customer nor the day, whose keys are enforced once.
const EACH: &str = "SELECT customer_id, count(*), sum(amount) FROM sale GROUP BY 1";
const BY_DAY: &str = "SELECT s.customer_id, c.segment, count(*), sum(s.amount) FROM sale s JOIN customer c ON c.id = s.customer_id GROUP BY 1, 2";

async fn planned(database: &Database, rollups: &[(&str, &str)]) -> Vec<BuildPlan> {
    let plans: Vec<MaintainPlan> = plans(database.config().await, rollups).await;
    plans.into_iter().map(|plan| plan.build).collect()
}

async fn store(database: &Database) -> RollupStore {
    let store = RollupStore::new(database.config().await).unwrap();
    store.ensure_schema().await.unwrap();
    store
}

fn built_just_now(plans: &[BuildPlan]) -> Sources {
    Sources {
        plans: plans.to_vec(),
        followed: HashMap::new(),
        built_since: Some(SystemTime::UNIX_EPOCH),
        keeps_parts: false,
    }
}

/// From what the rollup was filled; none for the base tables.
async fn build(store: &RollupStore, plan: &BuildPlan, sources: &Sources) -> Option<String> {
    let read = Mutex::new(None);
    let note = |progress| {
        if let BuildProgress::Scanning { from, .. } = progress {
            *read.lock().unwrap() = from;
        }
    };
    store.ensure(plan, sources, &note).await.unwrap();
    read.into_inner().unwrap()
}

/// How many rows differ between a rollup's table and its SELECT.
async fn differing(database: &Database, store: &RollupStore, plan: &BuildPlan) -> String {
    let table = store.current(&plan.name).await.unwrap().unwrap().table;
    let (is, should) = (format!("TABLE pgstar.\"{table}\""), &plan.select);
    let sql = format!(
        "(SELECT count(*) FROM (({is}) EXCEPT ALL ({should})) x) + (SELECT count(*) FROM (({should}) EXCEPT ALL ({is})) x)"
    );
    database.value(&sql).await
}

const SALES: &str = "INSERT INTO sale SELECT i, i % 40 + 1, i % 40 + 1, i % 20 + 1, i % 100, i % 7, i % 9, i, i % 100, i % 3 = 0, 'n' || i % 13,
                     timestamptz '2024-01-01' + i * interval '1 hour', timestamp '2024-01-01' + i * interval '1 hour'
                     FROM generate_series(1, 500) i;";

#[tokio::test]
async fn a_coarser_rollup_is_filled_from_the_finer_one_with_its_snapshot() {
    let database = Database::with(&format!("{STAR}{SALES}")).await;
    let store = store(&database).await;
    let plans = planned(&database, &[("coarse", COARSE), ("fine", FINE)]).await;
    let order = store.finer_first(&[&plans[0], &plans[1]]).await.unwrap();
    assert_eq!(order, [1, 0]);
    let none = build(&store, &plans[1], &built_just_now(&plans)).await;
    assert_eq!(none, None, "the coarse one is not there, and would not do");

    // The finer one does not have it, so neither has the coarser one, which says so.
    database
        .run("INSERT INTO sale VALUES (1000, 1, 1, 1, 5, 5, 5, 5, 5, true, 'new')")
        .await;
    let from = build(&store, &plans[0], &built_just_now(&plans)).await;
    assert_eq!(from.as_deref(), Some("fine"));
    let recorded =
        "SELECT count(DISTINCT (snapshot, shape, validated)) FROM pgstar.rollup_progress";
    let shapes = "SELECT count(DISTINCT shape) FROM pgstar.rollup_progress";
    assert_eq!(database.value(recorded).await, "1");
    assert_eq!(database.value(shapes).await, "1");
    let (fine, coarse) = (store.current("fine").await, store.current("coarse").await);
    let (fine, coarse) = (fine.unwrap().unwrap(), coarse.unwrap().unwrap());
    assert_eq!(coarse.built_at, fine.built_at);
    assert_eq!(differing(&database, &store, &plans[0]).await, "2");
    database.run("DELETE FROM sale WHERE id = 1000").await;
    assert_eq!(differing(&database, &store, &plans[0]).await, "0");
}

#[tokio::test]
async fn an_older_rollup_is_no_source_unless_it_follows() {
    let database = Database::with(&format!("{STAR}{SALES}")).await;
    let store = store(&database).await;
    let plans = planned(&database, &[("coarse", COARSE), ("fine", FINE)]).await;
    let fine = store
        .ensure(&plans[1], &Sources::none(), &|_| ())
        .await
        .unwrap();
    let mut sources = built_just_now(&plans);
    sources.built_since = Some(SystemTime::now());
    assert_eq!(build(&store, &plans[0], &sources).await, None);
    assert!(store.drop("coarse").await.unwrap());
    sources.built_since = None;
    assert_eq!(build(&store, &plans[0], &sources).await, None);
    assert!(store.drop("coarse").await.unwrap());
    let since = Instant::now();
    sources.followed = HashMap::from([(fine.table, since)]);
    let before = SystemTime::now();
    assert_eq!(
        build(&store, &plans[0], &sources).await.as_deref(),
        Some("fine")
    );
    let coarse = store.current("coarse").await.unwrap().unwrap();
    assert!(
        coarse.built_at <= before,
        "not younger than what it was filled from"
    );
}

#[tokio::test]
async fn a_rollup_of_another_definition_or_without_a_known_state_is_no_source() {
    let database = Database::with(&format!("{STAR}{SALES}")).await;
    let store = store(&database).await;
    let plans = planned(&database, &[("coarse", COARSE), ("fine", FINE)]).await;
    let mut other = plans[1].clone();
    other.fingerprint = "of another layout".to_owned();
    store
        .ensure(&other, &Sources::none(), &|_| ())
        .await
        .unwrap();
    assert_eq!(
        build(&store, &plans[0], &built_just_now(&plans)).await,
        None
    );
    assert!(store.drop("coarse").await.unwrap());
    store
        .ensure(&plans[1], &Sources::none(), &|_| ())
        .await
        .unwrap();
    database
        .run("UPDATE pgstar.rollup_progress SET snapshot = NULL")
        .await;
    assert_eq!(
        build(&store, &plans[0], &built_just_now(&plans)).await,
        None
    );
}

/// A sale of nobody is in the coarser rollup and not in the finer one, as long as the key does not forbid it.
#[tokio::test]
async fn keys_have_to_have_held_at_the_finer_rollups_snapshot() {
    let database = Database::with(&format!("{STAR}{SALES}")).await;
    let store = store(&database).await;
    let plans = planned(&database, &[("each", EACH), ("by_day", BY_DAY)]).await;
    store
        .ensure(&plans[1], &Sources::none(), &|_| ())
        .await
        .unwrap();
    let from = build(&store, &plans[0], &built_just_now(&plans)).await;
    assert_eq!(
        from.as_deref(),
        Some("by_day"),
        "the join is redundant by its key"
    );
    assert_eq!(differing(&database, &store, &plans[0]).await, "0");
    assert!(store.drop("each").await.unwrap());

    let key = "sale_customer_id_fkey";
    database
        .run(&format!("ALTER TABLE sale DROP CONSTRAINT {key}"))
        .await;
    assert_eq!(
        build(&store, &plans[0], &built_just_now(&plans)).await,
        None
    );
    assert!(store.drop("each").await.unwrap());
    database
        .run("INSERT INTO sale VALUES (1001, 4711, 1, 1, 5, 5, 5, 5, 5, true, 'lost')")
        .await;
    store
        .rebuild(&plans[1], &Sources::none(), &|_| ())
        .await
        .unwrap();
    database.run("DELETE FROM sale WHERE id = 1001").await;
    database
        .run(&format!(
            "ALTER TABLE sale ADD CONSTRAINT {key} FOREIGN KEY (customer_id) REFERENCES customer ON UPDATE CASCADE"
        ))
        .await;
    let from = build(&store, &plans[0], &built_just_now(&plans)).await;
    assert_eq!(from, None, "the key is there now, and was not then");
    store
        .rebuild(&plans[1], &Sources::none(), &|_| ())
        .await
        .unwrap();
    assert!(store.drop("each").await.unwrap());
    let from = build(&store, &plans[0], &built_just_now(&plans)).await;
    assert_eq!(from.as_deref(), Some("by_day"));
}

#[tokio::test]
async fn a_source_that_cannot_be_read_costs_nothing_but_the_base_tables() {
    let database = Database::with(&format!("{STAR}{SALES}")).await;
    let store = store(&database).await;
    let plans = planned(&database, &[("coarse", COARSE), ("fine", FINE)]).await;
    let fine = store
        .ensure(&plans[1], &Sources::none(), &|_| ())
        .await
        .unwrap();
    // As if it had made way for its next table since the build's snapshot.
    let lost = format!("ALTER TABLE pgstar.{} RENAME TO elsewhere", fine.table);
    database.run(&lost).await;
    let sources = built_just_now(&plans);
    store.ensure(&plans[0], &sources, &|_| ()).await.unwrap();
    assert_eq!(differing(&database, &store, &plans[0]).await, "0");
}

#[tokio::test]
async fn a_build_from_another_rollup_that_is_given_up_leaves_nothing() {
    let database = Database::with(&format!("{STAR}{SALES}")).await;
    let store = store(&database).await;
    let plans = planned(&database, &[("coarse", COARSE), ("fine", FINE)]).await;
    let fine = store
        .ensure(&plans[1], &Sources::none(), &|_| ())
        .await
        .unwrap();
    let sources = built_just_now(&plans);
    let holder = database.connect().await;
    let lock = format!("BEGIN; LOCK TABLE pgstar.{}", fine.table);
    holder.batch_execute(&lock).await.unwrap();
    let given_up = store.ensure(&plans[0], &sources, &|_| ());
    assert!(timeout(Duration::from_millis(500), given_up).await.is_err());
    holder.batch_execute("COMMIT").await.unwrap();
    let from = build(&store, &plans[0], &sources).await;
    assert_eq!(from.as_deref(), Some("fine"));
    let tables = "SELECT count(*) FROM pg_class WHERE relnamespace = 'pgstar'::regnamespace AND relname LIKE 'coarse%' AND relkind = 'r'";
    assert_eq!(database.value(tables).await, "1");
}

/// Whatever is folded into one is folded into the other, from the snapshot on that both were at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollups_filled_from_followed_ones_are_exact_beside_writers() {
    let database = Database::with(&format!("{STAR}{SALES}")).await;
    let config = database.config().await;
    let rollups = [
        ("fine", FINE),
        ("coarse", COARSE),
        ("by_day", BY_DAY),
        ("each", EACH),
    ];
    let maintained = Maintained::start(config.clone(), &rollups, MaintainOptions::default()).await;
    let writers = Writers::start(&config, 2);
    let mut filled = 0;
    for round in 0..6 {
        for (coarse, fine) in [(1, 0), (3, 2)] {
            let plans = &maintained.plans;
            maintained.prove(plans[fine].build.name.as_str()).await;
            let table = maintained.table(&plans[fine].build.name).await;
            let since = maintained.maintainer.staleness(&table);
            let since = since.and_then(|staleness| Instant::now().checked_sub(staleness));
            let sources = Sources {
                plans: vec![plans[fine].build.clone()],
                followed: since.map(|since| (table, since)).into_iter().collect(),
                built_since: None,
                keeps_parts: false,
            };
            maintained
                .store
                .drop(&plans[coarse].build.name)
                .await
                .unwrap();
            let from = build(&maintained.store, &plans[coarse].build, &sources).await;
            filled += usize::from(from.is_some());
        }
        println!("round {round}: {filled} filled");
    }
    writers.end().await;
    maintained.check(&connect(&config).await).await;
    assert!(
        filled >= 6,
        "only {filled} of 12 were filled from finer ones"
    );
}

/// After everything was lost the finest is computed from the base tables, and the others from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rollups_that_have_to_be_built_again_are_filled_from_one_another() {
    let database = Database::with(&format!("{STAR}{SALES}")).await;
    let config = database.config().await;
    let rollups = [("coarse", COARSE), ("fine", FINE)];
    let maintained = Maintained::start(config.clone(), &rollups, MaintainOptions::default()).await;
    let client = connect(&config).await;
    maintained.check(&client).await;
    let both = [
        maintained.table("coarse").await,
        maintained.table("fine").await,
    ];
    client
        .batch_execute(&format!("TRUNCATE sale; {SALES}"))
        .await
        .unwrap();
    maintained.check(&client).await;
    assert_ne!(maintained.table("coarse").await, both[0]);
    assert_ne!(maintained.table("fine").await, both[1]);
    // Which number a table has says in which order they were built.
    let generation = "SELECT string_agg(name, ' ' ORDER BY generation) FROM pgstar.rollup_state";
    assert_eq!(database.value(generation).await, "fine coarse");
}

/// What a rollup has wrong is in those that were filled from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_filled_from_a_wrong_rollup_is_built_again_with_it() {
    let database = Database::with(&format!("{STAR}{SALES}")).await;
    let config = database.config().await;
    let rollups = [("fine", FINE), ("coarse", COARSE)];
    let maintained = Maintained::follow(config.clone(), &rollups, MaintainOptions::default()).await;
    maintained.maintainer.established(DEADLINE).await.unwrap();
    let (store, plans) = (&maintained.store, &maintained.plans);
    let sources = Sources::none();
    let fine = store.ensure(&plans[0].build, &sources, &|_| ()).await;
    let fine = fine.unwrap().table;
    let client = connect(&config).await;
    let damage = format!("UPDATE pgstar.\"{fine}\" SET row_count = row_count + 1");
    client.batch_execute(&damage).await.unwrap();
    let sources = built_just_now(&[plans[0].build.clone()]);
    let from = build(store, &plans[1].build, &sources).await;
    assert_eq!(from.as_deref(), Some("fine"));
    let coarse = maintained.table("coarse").await;
    maintained.prove_all().await;
    assert_ne!(maintained.differences(&client).await, Vec::<String>::new());
    let started = Instant::now();
    loop {
        let audit = maintained.maintainer.audit("fine", 7, DEADLINE).await;
        match audit.unwrap() {
            Audit::Different { table, .. } if table == fine => break,
            audit => assert!(started.elapsed() < DEADLINE, "{audit:?}"),
        }
    }
    // From this moment on neither answers.
    for table in [&fine, &coarse] {
        assert!(maintained.maintainer.is_condemned(table), "{table}");
    }
    maintained.check(&client).await;
    assert_ne!(maintained.table("coarse").await, coarse);
}
