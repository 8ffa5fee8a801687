//! Rollup tables: built once, rebuilt whole, dropped cleanly, readable by the right roles.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use common::Database;
use pgstar_postgres::rollups::{
    BuildPlan, BuildProgress, BuiltRollup, Readers, RollupError, RollupStore, Sources,
};
use pgstar_rewriter::catalog::Oid;
use tokio::sync::RwLock;

const FACTS: &str = "
    CREATE TABLE sales (city text, month int, amount numeric);
    INSERT INTO sales SELECT 'c' || i % 7, i % 12, i FROM generate_series(1, 1000) i;";

const SELECT: &str = "SELECT city, month, count(*) AS n, sum(amount) AS amount
                        FROM public.sales GROUP BY city, month -- a comment at the end";

async fn oid_of(database: &Database, relation: &str) -> Oid {
    Oid(database
        .value(&format!("'{relation}'::regclass::oid"))
        .await
        .parse()
        .unwrap())
}

async fn plan(database: &Database, name: &str) -> BuildPlan {
    BuildPlan {
        name: name.to_owned(),
        fingerprint: "first".to_owned(),
        select: SELECT.to_owned(),
        key_columns: vec!["city".to_owned(), "month".to_owned()],
        base_relations: vec![oid_of(database, "public.sales").await],
    }
}

async fn store(database: &Database) -> RollupStore {
    let store = RollupStore::new(database.config().await).unwrap();
    store.ensure_schema().await.unwrap();
    store
}

fn quiet(_: BuildProgress) {}

/// The tables of schema pgstar that hold rollups.
async fn tables(database: &Database) -> Vec<String> {
    let sql = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
                WHERE relnamespace = 'pgstar'::regnamespace AND relkind = 'r' AND relname NOT IN ('rollup_state', 'rollup_progress', 'maintenance', 'followed_table', 'rollup_part')";
    database
        .value(sql)
        .await
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

async fn rows_of(database: &Database, built: &BuiltRollup) -> u64 {
    let sql = format!(
        "SELECT count(*) FROM pgstar.\"{}\"",
        built.table.replace('"', "\"\"")
    );
    database.value(&sql).await.parse().unwrap()
}

/// As loaders do, between the plan and the build.
#[tokio::test]
async fn what_is_read_under_a_name_that_passed_on_is_no_rollup() {
    let database = Database::with(FACTS).await;
    let (store, plan) = (store(&database).await, plan(&database, "by_city").await);
    for (passed_on, back) in [
        (
            "CREATE TABLE sales AS SELECT * FROM kept LIMIT 10",
            "DROP TABLE sales",
        ),
        (
            "CREATE VIEW sales AS SELECT * FROM kept LIMIT 10",
            "DROP VIEW sales",
        ),
        (
            "CREATE TABLE sales (LIKE kept); ALTER TABLE kept INHERIT sales",
            "ALTER TABLE kept NO INHERIT sales; DROP TABLE sales",
        ),
        (
            "CREATE TABLE sales (LIKE kept) PARTITION BY LIST (city); ALTER TABLE sales ATTACH PARTITION kept DEFAULT",
            "ALTER TABLE sales DETACH PARTITION kept; DROP TABLE sales",
        ),
    ] {
        let rename = "ALTER TABLE sales RENAME TO kept";
        database.run(&format!("{rename}; {passed_on}")).await;
        let built = store.ensure(&plan, &Sources::none(), &quiet).await;
        assert!(
            matches!(built, Err(RollupError::Renamed { .. })),
            "{passed_on}: {built:?}"
        );
        assert_eq!(tables(&database).await, [""; 0], "{passed_on}");
        let rename = "ALTER TABLE kept RENAME TO sales";
        database.run(&format!("{back}; {rename}")).await;
    }
    let built = store.ensure(&plan, &Sources::none(), &quiet).await.unwrap();
    assert_eq!(built.rows, 84);
}

#[tokio::test]
async fn a_rollup_is_built_once_and_rebuilt_when_its_plan_changes() {
    let database = Database::with(FACTS).await;
    let (store, mut plan) = (store(&database).await, plan(&database, "by_city").await);
    assert_eq!(store.list().await.unwrap(), []);
    assert_eq!(store.current("by_city").await.unwrap(), None);

    let first = store.ensure(&plan, &Sources::none(), &quiet).await.unwrap();
    assert_eq!(
        (first.schema.as_str(), first.table.as_str(), first.rows),
        ("pgstar", "by_city_v1", 84)
    );
    assert_eq!(rows_of(&database, &first).await, 84);
    assert!(first.bytes > 0);
    // The state table keeps milliseconds.
    let recorded = store.current("by_city").await.unwrap().unwrap();
    assert_eq!(
        recorded.build_time.as_millis(),
        first.build_time.as_millis()
    );
    assert_eq!(
        BuiltRollup {
            build_time: first.build_time,
            ..recorded.clone()
        },
        first
    );

    database.run("INSERT INTO sales VALUES ('new', 1, 1)").await;
    assert_eq!(
        store.ensure(&plan, &Sources::none(), &quiet).await.unwrap(),
        recorded,
        "unchanged is not rebuilt"
    );

    plan.fingerprint = "second".to_owned();
    let second = store.ensure(&plan, &Sources::none(), &quiet).await.unwrap();
    assert_eq!((second.table.as_str(), second.rows), ("by_city_v2", 85));
    assert!(second.built_at > first.built_at);
    assert_eq!(
        tables(&database).await,
        ["by_city_v2"],
        "the old generation is gone"
    );

    let third = store
        .rebuild(&plan, &Sources::none(), &quiet)
        .await
        .unwrap();
    assert_eq!(third.table, "by_city_v3");
    assert_eq!(store.list().await.unwrap().len(), 1);
    database.run("DROP TABLE pgstar.by_city_v3").await;
    assert_eq!(
        store.current("by_city").await.unwrap(),
        None,
        "its table was dropped by hand"
    );
    assert_eq!(
        store
            .ensure(&plan, &Sources::none(), &quiet)
            .await
            .unwrap()
            .table,
        "by_city_v4"
    );
}

#[tokio::test]
async fn a_dropped_rollups_table_name_is_never_used_again() {
    let database = Database::with(FACTS).await;
    let (store, plan) = (store(&database).await, plan(&database, "by_city").await);
    store.ensure(&plan, &Sources::none(), &quiet).await.unwrap();
    assert!(store.drop("by_city").await.unwrap());
    assert!(!store.drop("by_city").await.unwrap());
    assert_eq!(tables(&database).await, Vec::<String>::new());
    assert_eq!(store.list().await.unwrap(), []);
    assert_ne!(
        store
            .ensure(&plan, &Sources::none(), &quiet)
            .await
            .unwrap()
            .table,
        "by_city_v1"
    );
}

#[tokio::test]
async fn any_name_makes_a_table_name_that_fits() {
    let database = Database::with(FACTS).await;
    let store = store(&database).await;
    let long = "é".repeat(60);
    for name in [
        "Quo\"ted; name",
        "it's a \\ name",
        &long,
        &format!("{long}2"),
    ] {
        let built = store
            .ensure(&plan(&database, name).await, &Sources::none(), &quiet)
            .await
            .unwrap();
        assert_eq!(rows_of(&database, &built).await, 84, "{name}");
        assert_eq!(
            store.current(name).await.unwrap().unwrap().table,
            built.table,
            "{name}"
        );
    }
    assert_eq!(tables(&database).await.join(" ").matches("_v").count(), 4);
}

#[tokio::test]
async fn the_instant_of_a_build_precedes_its_snapshot() {
    let database = Database::with(FACTS).await;
    let (store, mut plan) = (store(&database).await, plan(&database, "slow").await);
    plan.select =
        "SELECT count(*) AS n, clock_timestamp() AS read_at FROM public.sales, pg_sleep(1.2)"
            .into();
    let before = SystemTime::now();
    let scans = Mutex::new(0);
    let count = |progress| {
        if let BuildProgress::Scanning { .. } = progress {
            *scans.lock().unwrap() += 1;
        }
    };
    let built = store.ensure(&plan, &Sources::none(), &count).await.unwrap();
    // Server and test share the machine's clock; PostgreSQL's has microseconds.
    assert!(built.built_at + Duration::from_micros(1) >= before);
    assert!(
        built.built_at <= before + Duration::from_secs(1),
        "taken before reading, not after"
    );
    assert!(built.build_time >= Duration::from_millis(1200));
    assert!(
        *scans.lock().unwrap() >= 2,
        "progress is told while reading"
    );
}

#[tokio::test]
async fn large_tables_get_an_index_for_each_key_column_that_varies() {
    let database = Database::with(
        "CREATE TABLE many AS SELECT i AS a, 1 AS same, NULL::int AS nothing, i % 5 AS few,
                point(i, i) AS place, 'x' AS measure FROM generate_series(1, 20000) i",
    )
    .await;
    let store = store(&database).await;
    let mut plan = BuildPlan {
        name: "many".into(),
        fingerprint: "1".into(),
        select: "SELECT * FROM public.many".into(),
        key_columns: ["few", "a", "same", "nothing", "place"]
            .map(str::to_owned)
            .to_vec(),
        base_relations: vec![oid_of(&database, "public.many").await],
    };
    let stages = Mutex::new(Vec::new());
    let note = |progress: BuildProgress| stages.lock().unwrap().push(progress);
    store.ensure(&plan, &Sources::none(), &note).await.unwrap();
    let indexes = "SELECT string_agg(indexdef, ';' ORDER BY indexdef) FROM pg_indexes
                    WHERE schemaname = 'pgstar' AND tablename LIKE 'many%' AND indexdef NOT LIKE '%hash_record%'";
    let made = database.value(indexes).await;
    assert_eq!(made.matches("btree (a)").count(), 1, "{made}");
    assert_eq!(made.matches("btree (few)").count(), 1, "{made}");
    // A point has no order; neither constants nor NULLs are worth an index.
    assert_eq!(made.matches("CREATE INDEX").count(), 2, "{made}");
    let told = stages.into_inner().unwrap();
    let analyzing = told
        .iter()
        .position(|stage| *stage == BuildProgress::Analyzing)
        .unwrap();
    let indexing = |column: &str| BuildProgress::Indexing {
        column: column.into(),
    };
    assert_eq!(
        told[analyzing + 1..analyzing + 3],
        [indexing("few"), indexing("a")]
    );
    assert_eq!(told.last(), Some(&BuildProgress::Done { rows: 20000 }));
    let analyzed = "SELECT reltuples FROM pg_class WHERE relname = 'many_v1'";
    assert_eq!(database.value(analyzed).await, "20000");

    plan.select = "SELECT * FROM public.many LIMIT 5000".into();
    store
        .rebuild(&plan, &Sources::none(), &quiet)
        .await
        .unwrap();
    assert_eq!(
        database.value(indexes).await,
        "",
        "a small table is read whole"
    );
}

#[tokio::test]
async fn a_failed_build_keeps_the_rollup_that_is_there() {
    let database = Database::with(FACTS).await;
    let (store, mut plan) = (store(&database).await, plan(&database, "by_city").await);
    let good = store.ensure(&plan, &Sources::none(), &quiet).await.unwrap();
    plan.fingerprint = "second".into();
    plan.select = "SELECT 1 / (month - 3) AS x FROM public.sales".into();
    let error = store
        .ensure(&plan, &Sources::none(), &quiet)
        .await
        .unwrap_err();
    assert!(matches!(error, RollupError::Build { .. }));
    let expected = "could not build rollup \"by_city\": division by zero (SQLSTATE 22012)";
    assert_eq!(error.to_string(), expected);
    assert_eq!(
        store.current("by_city").await.unwrap().unwrap().table,
        good.table
    );
    assert_eq!(tables(&database).await, [good.table]);
}

#[tokio::test]
async fn a_build_that_is_given_up_leaves_nothing_and_frees_its_lock() {
    let database = Database::with(FACTS).await;
    let (store, mut plan) = (store(&database).await, plan(&database, "by_city").await);
    plan.select = "SELECT count(*) AS n FROM public.sales, pg_sleep(30)".into();
    let is_running = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND state = 'active' AND wait_event = 'PgSleep'";
    let begins = async {
        while database.value(is_running).await != "1" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let sources = Sources::none();
    tokio::select! {
        built = store.ensure(&plan, &sources, &quiet) => panic!("{built:?}"),
        () = begins => {}
    }
    // The server notices within some seconds that it runs for nobody.
    plan.select = SELECT.into();
    let waited = Mutex::new(None);
    let note = |progress| {
        if let BuildProgress::Waiting { holder } = progress {
            *waited.lock().unwrap() = Some(holder);
        }
    };
    let built = store.ensure(&plan, &Sources::none(), &note).await.unwrap();
    let holder = waited
        .into_inner()
        .unwrap()
        .expect("the server still ran the first SELECT");
    assert!(holder.contains("application \"pgstar\""), "{holder}");
    assert_eq!(tables(&database).await, [built.table]);
}

#[tokio::test]
async fn two_processes_build_a_rollup_once() {
    let database = Database::with(FACTS).await;
    let (one, other) = (store(&database).await, store(&database).await);
    let plan = plan(&database, "by_city").await;
    let sources = Sources::none();
    let (one, other) = tokio::join!(
        one.ensure(&plan, &sources, &quiet),
        other.ensure(&plan, &sources, &quiet)
    );
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.table, other.table);
    assert_eq!(one.built_at, other.built_at);
}

#[tokio::test]
async fn the_sweep_drops_unnamed_generations_and_nothing_else() {
    let database = Database::with(FACTS).await;
    let (store, plan) = (store(&database).await, plan(&database, "by_city").await);
    let first = store.ensure(&plan, &Sources::none(), &quiet).await.unwrap();
    database
        .run("CREATE TABLE pgstar.somebodys_v1 (a int)")
        .await;
    // A dashboard is still reading the first generation when the second one is ready.
    let reader = database.connect().await;
    let read = format!("BEGIN; SELECT count(*) FROM pgstar.{}", first.table);
    reader.batch_execute(&read).await.unwrap();
    let second = store
        .rebuild(&plan, &Sources::none(), &quiet)
        .await
        .unwrap();
    let all = [first.table.as_str(), second.table.as_str(), "somebodys_v1"];
    assert_eq!(tables(&database).await, all, "the reader is not disturbed");
    assert_eq!(
        store.current("by_city").await.unwrap().unwrap().table,
        second.table
    );
    reader.batch_execute("COMMIT").await.unwrap();
    assert_eq!(store.sweep().await.unwrap(), [first.table]);
    assert_eq!(store.sweep().await.unwrap(), Vec::<String>::new());
    assert_eq!(
        tables(&database).await,
        [second.table.as_str(), "somebodys_v1"]
    );
}

#[tokio::test]
async fn a_role_without_privileges_is_told_what_it_needs() {
    let database = Database::with(FACTS).await;
    let role = database.role("poor");
    database
        .run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT SELECT ON sales TO {role}"
        ))
        .await;
    let poor = RollupStore::new(database.config_as(&role).await).unwrap();
    assert_eq!(poor.list().await.unwrap(), [], "no schema, no rollups");
    let error = poor.ensure_schema().await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("CREATE SCHEMA pgstar AUTHORIZATION \"{role}\"")),
        "{error}"
    );
    database.run("CREATE SCHEMA pgstar").await;
    let error = poor.ensure_schema().await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("ALTER SCHEMA pgstar OWNER TO \"{role}\"")),
        "{error}"
    );
    // What the message says is enough.
    database
        .run(&format!("ALTER SCHEMA pgstar OWNER TO \"{role}\""))
        .await;
    poor.ensure_schema().await.unwrap();
    let plan = plan(&database, "by_city").await;
    poor.ensure(&plan, &Sources::none(), &quiet).await.unwrap();
    assert!(
        poor.sync_grants(&[plan]).await.unwrap()["by_city"]
            .roles
            .contains(&role)
    );
}

#[tokio::test]
async fn row_security_makes_a_build_fail_instead_of_losing_rows() {
    let database = Database::with(FACTS).await;
    let role = database.role("builder");
    database
        .run(&format!(
            "CREATE ROLE {role} LOGIN; GRANT SELECT ON sales TO {role};
             CREATE SCHEMA pgstar AUTHORIZATION {role};
             ALTER TABLE sales ENABLE ROW LEVEL SECURITY;
             CREATE POLICY few ON sales USING (month = 1)"
        ))
        .await;
    let store = RollupStore::new(database.config_as(&role).await).unwrap();
    store.ensure_schema().await.unwrap();
    let error = store
        .ensure(&plan(&database, "by_city").await, &Sources::none(), &quiet)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("row-level security"), "{error}");
}

/// Roles belong to the whole server: a test with one that no policy holds for runs alone.
static ROLES: RwLock<()> = RwLock::const_new(());

/// Four roles and their rights on the base tables of a rollup over two tables in two schemas.
struct Shop {
    database: Database,
    store: RollupStore,
    plan: BuildPlan,
}

impl Shop {
    async fn open() -> Self {
        let database = Database::with(FACTS).await;
        database
            .run("CREATE SCHEMA s; CREATE TABLE s.city (city text)")
            .await;
        let store = store(&database).await;
        let mut plan = plan(&database, "by_city").await;
        plan.base_relations.push(oid_of(&database, "s.city").await);
        let both = "FROM public.sales LEFT JOIN s.city AS other USING (city)";
        plan.select = SELECT.replace("FROM public.sales", both);
        let shop = Shop {
            database,
            store,
            plan,
        };
        for role in ["both", "one", "column", "schemaless", "heir", "superuser"] {
            shop.run(&format!("CREATE ROLE {{{role}}} LOGIN")).await;
        }
        shop.run(
            "GRANT USAGE ON SCHEMA s TO {both}, {one}, {column};
             GRANT SELECT ON sales, s.city TO {both}, {schemaless};
             GRANT SELECT ON sales TO {one}, {column}; GRANT SELECT (city) ON s.city TO {column};
             GRANT {both} TO {heir}; ALTER ROLE {superuser} SUPERUSER",
        )
        .await;
        shop
    }

    /// Runs statements in which {name} stands for the test's own role.
    async fn run(&self, sql: &str) {
        let prefix = format!("{}_", self.database.name);
        self.database
            .run(&sql.replace('{', &prefix).replace('}', ""))
            .await;
    }

    async fn sync(&self) -> Readers {
        let mut readers = self
            .store
            .sync_grants(std::slice::from_ref(&self.plan))
            .await
            .unwrap();
        readers.remove("by_city").unwrap()
    }

    /// The test's own roles among the readers.
    fn own(&self, readers: &Readers) -> HashSet<String> {
        let prefix = format!("{}_", self.database.name);
        readers
            .roles
            .iter()
            .filter_map(|role| role.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect()
    }

    /// Whether PostgreSQL lets the role read the rollup's table.
    async fn can_read(&self, role: &str) -> bool {
        let table = self.store.current("by_city").await.unwrap().unwrap().table;
        let config = self.database.config_as(&self.database.role(role)).await;
        let sql = format!("SELECT count(*) FROM pgstar.{table}");
        common::connect(config)
            .await
            .batch_execute(&sql)
            .await
            .is_ok()
    }

    async fn check(&self, allowed: &[&str]) {
        let readers = self.sync().await;
        let expected: HashSet<String> = allowed.iter().map(|role| (*role).to_owned()).collect();
        assert_eq!(self.own(&readers), expected);
        for role in ["both", "one", "column", "schemaless", "heir", "superuser"] {
            assert_eq!(self.can_read(role).await, allowed.contains(&role), "{role}");
        }
    }
}

#[tokio::test]
async fn exactly_those_who_may_read_every_base_table_may_read_the_rollup() {
    let _beside_others = ROLES.read().await;
    let shop = Shop::open().await;
    shop.store
        .ensure(&shop.plan, &Sources::none(), &quiet)
        .await
        .unwrap();
    shop.check(&["both", "heir", "superuser"]).await;
    shop.run("GRANT SELECT ON s.city TO {one}").await;
    shop.check(&["both", "heir", "superuser", "one"]).await;
    shop.run("REVOKE SELECT ON sales FROM {both}").await;
    shop.check(&["superuser", "one"]).await;
    shop.run("GRANT USAGE ON SCHEMA s TO {schemaless}").await;
    shop.check(&["superuser", "one", "schemaless"]).await;
}

#[tokio::test]
async fn who_may_read_holds_from_the_moment_it_is_committed() {
    let _beside_others = ROLES.read().await;
    let shop = Shop::open().await;
    shop.store
        .ensure(&shop.plan, &Sources::none(), &quiet)
        .await
        .unwrap();
    shop.sync().await;
    assert!(shop.can_read("both").await);
    shop.run("ALTER TABLE sales ENABLE ROW LEVEL SECURITY")
        .await;
    assert!(!shop.can_read("both").await, "its rows would be filtered");
    shop.run("ALTER TABLE sales DISABLE ROW LEVEL SECURITY; REVOKE SELECT ON sales FROM {both}")
        .await;
    assert!(!shop.can_read("both").await);
    shop.run("GRANT SELECT ON s.city TO {one}").await;
    assert!(shop.can_read("one").await);
}

#[tokio::test]
async fn readers_can_be_dropped() {
    let _beside_others = ROLES.read().await;
    let shop = Shop::open().await;
    shop.store
        .ensure(&shop.plan, &Sources::none(), &quiet)
        .await
        .unwrap();
    shop.check(&["both", "heir", "superuser"]).await;
    shop.run("DROP ROLE {heir}").await;
    shop.run("DROP OWNED BY {both}; DROP ROLE {both}").await;
}

#[tokio::test]
async fn a_role_that_no_policy_holds_for_needs_a_grant() {
    let _alone = ROLES.write().await;
    let shop = Shop::open().await;
    shop.store
        .ensure(&shop.plan, &Sources::none(), &quiet)
        .await
        .unwrap();
    shop.sync().await;
    shop.run("ALTER ROLE {column} BYPASSRLS").await;
    shop.check(&["both", "heir", "superuser"]).await;
    shop.run("GRANT SELECT ON s.city TO {column}").await;
    shop.check(&["both", "heir", "superuser", "column"]).await;
    let acl = "SELECT relacl FROM pg_class WHERE relname = 'by_city_v1'";
    assert!(
        !shop.database.value(acl).await.contains("both"),
        "nobody is left whom the policy would not stop"
    );
    shop.run("ALTER ROLE {column} NOBYPASSRLS").await;
}

#[tokio::test]
async fn a_rebuild_keeps_its_readers_without_a_gap() {
    let _beside_others = ROLES.read().await;
    let shop = Shop::open().await;
    shop.store
        .ensure(&shop.plan, &Sources::none(), &quiet)
        .await
        .unwrap();
    shop.sync().await;
    shop.store
        .rebuild(&shop.plan, &Sources::none(), &quiet)
        .await
        .unwrap();
    assert!(shop.can_read("both").await);
    assert!(!shop.can_read("one").await);
}

#[tokio::test]
async fn public_base_tables_make_a_public_rollup() {
    let _beside_others = ROLES.read().await;
    let shop = Shop::open().await;
    shop.store
        .ensure(&shop.plan, &Sources::none(), &quiet)
        .await
        .unwrap();
    assert!(!shop.sync().await.public);
    shop.run("GRANT SELECT ON sales, s.city TO PUBLIC; GRANT USAGE ON SCHEMA s TO PUBLIC")
        .await;
    assert!(shop.sync().await.public);
    shop.check(&["both", "heir", "superuser", "one", "column", "schemaless"])
        .await;
    let acl = "SELECT relacl FROM pg_class WHERE relname = 'by_city_v1'";
    assert!(
        !shop.database.value(acl).await.contains("both"),
        "PUBLIC says it all"
    );
    shop.run("REVOKE SELECT ON sales, s.city FROM PUBLIC; REVOKE USAGE ON SCHEMA s FROM PUBLIC")
        .await;
    shop.check(&["both", "heir", "superuser"]).await;
}

#[tokio::test]
async fn grants_that_are_right_are_left_alone_and_wrong_ones_are_taken_back() {
    let _beside_others = ROLES.read().await;
    let shop = Shop::open().await;
    shop.run("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {one}")
        .await;
    shop.store
        .ensure(&shop.plan, &Sources::none(), &quiet)
        .await
        .unwrap();
    shop.check(&["both", "heir", "superuser"]).await;
    let written = "SELECT string_agg(xmin::text, ' ') FROM pg_class WHERE relname = 'by_city_v1'";
    let schema = "SELECT xmin FROM pg_namespace WHERE nspname = 'pgstar'";
    let before = (
        shop.database.value(written).await,
        shop.database.value(schema).await,
    );
    shop.sync().await;
    assert_eq!(
        (
            shop.database.value(written).await,
            shop.database.value(schema).await
        ),
        before
    );
    shop.run("GRANT INSERT ON pgstar.by_city_v1 TO {both}")
        .await;
    shop.sync().await;
    let may_write = format!(
        "has_table_privilege('{}', 'pgstar.by_city_v1', 'INSERT')",
        shop.database.role("both")
    );
    assert_eq!(shop.database.value(&may_write).await, "false");
}

#[tokio::test]
async fn a_rollup_over_unknown_tables_has_no_readers() {
    let _beside_others = ROLES.read().await;
    let shop = Shop::open().await;
    let mut plan = shop.plan.clone();
    plan.base_relations.clear();
    let readers = shop
        .store
        .sync_grants(std::slice::from_ref(&plan))
        .await
        .unwrap();
    assert_eq!(readers["by_city"], Readers::default());
    plan.base_relations = vec![Oid(999_999_999)];
    let readers = shop
        .store
        .sync_grants(std::slice::from_ref(&plan))
        .await
        .unwrap();
    assert_eq!(readers["by_city"], Readers::default());
}

#[tokio::test]
async fn a_build_gives_way_to_who_alters_its_tables() {
    let database = Database::with(FACTS).await;
    let store = store(&database).await;
    let slow = BuildPlan {
        select: SELECT.replace("FROM public.sales", "FROM public.sales, pg_sleep(300)"),
        ..plan(&database, "by_city").await
    };
    let alter = async {
        let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
        while database.value(sleeps).await != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let owner = database.connect().await;
        let truncate = "SET lock_timeout = '60s'; TRUNCATE public.sales";
        owner.batch_execute(truncate).await.unwrap();
    };
    let sources = Sources::none();
    let (built, ()) = tokio::join!(store.ensure(&slow, &sources, &quiet), alter);
    let error = built.unwrap_err().to_string();
    assert!(
        error.contains("by_city") && error.contains("cancel"),
        "{error}"
    );
    assert_eq!(tables(&database).await, [""; 0]);
    let quick = plan(&database, "by_city").await;
    assert_eq!(
        store
            .ensure(&quick, &Sources::none(), &quiet)
            .await
            .unwrap()
            .rows,
        0
    );
}
