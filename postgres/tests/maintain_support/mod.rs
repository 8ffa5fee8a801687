//! A star with rollups of every kind, random changes of it, and the comparison that has to hold.

#![allow(dead_code, unused_imports, clippy::unwrap_used)] // Not every test binary needs every helper; a panic fails the test.

mod random;
mod wire;
mod writers;

use std::time::{Duration, Instant};

use pgstar_postgres::catalog::load_catalog;
use pgstar_postgres::connect::{Connection, Connector};
use pgstar_postgres::maintain::{MaintainOptions, MaintainPlan, Maintainer};
use pgstar_postgres::rollups::{BuildPlan, RollupStore, Sources};
use pgstar_postgres::server::{InstallPolicy, Server, ServerOptions};
use pgstar_rewriter::fold::FoldPlan;
use pgstar_rewriter::{Floats, RollupDefinition};
use tokio_postgres::Config;

pub use random::{Random, run};
pub use wire::Wire;
pub use writers::{Acknowledged, Writers};

pub const DEADLINE: Duration = Duration::from_secs(30);

pub const STAR: &str = "
  CREATE TABLE region (id int PRIMARY KEY, name text, zone varchar(10));
  CREATE TABLE customer (id int PRIMARY KEY, region_id int REFERENCES region, segment text, score int,
                         remark text, since date);
  CREATE TABLE day (id int PRIMARY KEY, month int NOT NULL, label char(4));
  CREATE TABLE sale (id bigint PRIMARY KEY, customer_id int NOT NULL REFERENCES customer ON UPDATE CASCADE,
                     seller_id int REFERENCES customer ON UPDATE CASCADE, day_id int,
                     amount numeric(12,2), price numeric, quantity int NOT NULL, big bigint, small smallint,
                     flag boolean, note text, at timestamptz, made timestamp);
  ALTER TABLE region REPLICA IDENTITY FULL; ALTER TABLE customer REPLICA IDENTITY FULL;
  ALTER TABLE day REPLICA IDENTITY FULL; ALTER TABLE sale REPLICA IDENTITY FULL;
  INSERT INTO region SELECT i, 'r' || i % 4, 'z' || i % 2 FROM generate_series(1, 6) i;
  INSERT INTO customer SELECT i, CASE WHEN i % 7 > 0 THEN i % 6 + 1 END, CASE WHEN i % 5 > 0 THEN 's' || i % 3 END,
         i % 4, 'x', date '2024-01-01' + i FROM generate_series(1, 40) i;
  INSERT INTO day SELECT i, i / 5, 'd' || i % 3 FROM generate_series(1, 20) i;";

/// Name and defining SELECT.
pub const ROLLUPS: &[(&str, &str)] = &[
    (
        "by_customer",
        "SELECT customer_id, count(*), sum(amount), sum(quantity), sum(big), sum(small), min(quantity), max(amount), \
                     min(note), max(at), bool_and(flag), bool_or(flag), count(note), avg(amount), avg(price) FROM sale GROUP BY 1",
    ),
    (
        "by_note",
        "SELECT note, flag, count(*), sum(price), max(made), min(big) FROM sale GROUP BY 1, 2",
    ),
    (
        "by_region",
        "SELECT r.name, c.segment, count(*), sum(s.amount), sum(s.quantity * 2), max(c.score), sum(c.score) \
                   FROM sale s JOIN customer c ON c.id = s.customer_id JOIN region r ON r.id = c.region_id GROUP BY 1, 2",
    ),
    (
        "by_month",
        "SELECT d.month, d.label, s.flag, count(*), sum(s.amount), min(s.at), sum(s.amount * s.quantity) \
                  FROM sale s JOIN day d ON d.id = s.day_id WHERE s.quantity > 1 GROUP BY 1, 2, 3",
    ),
    (
        "everything",
        "SELECT count(*), sum(amount), max(quantity), sum(big) FILTER (WHERE flag), count(*) FILTER (WHERE quantity > 3) FROM sale",
    ),
    (
        "filtered",
        "SELECT c.region_id, sum(s.amount) FILTER (WHERE s.flag) AS f, min(s.amount) FILTER (WHERE NOT s.flag) AS m, \
                  sum(100 / s.quantity) FILTER (WHERE s.quantity <> 0) AS d \
                  FROM sale s, customer c WHERE c.id = s.customer_id AND c.score < 3 GROUP BY 1",
    ),
    (
        "two_roles",
        "SELECT b.segment AS buyer, v.segment AS seller, count(*), sum(s.quantity) FROM sale s \
                   JOIN customer b ON b.id = s.customer_id JOIN customer v ON v.id = s.seller_id GROUP BY 1, 2",
    ),
    (
        "left",
        "SELECT r.zone, count(*), sum(s.amount), max(s.amount) FROM sale s LEFT JOIN customer c ON c.id = s.seller_id \
              LEFT JOIN region r ON r.id = c.region_id GROUP BY 1",
    ),
    (
        "by_day",
        "SELECT date_trunc('day', made) AS day, count(*), sum(amount), max(amount) FROM sale GROUP BY 1",
    ),
    (
        "floating",
        "SELECT day_id, flag, count(*), sum(quantity::float8), avg(small::float8), var_pop(quantity::float8), max(quantity::float8) \
                  FROM sale GROUP BY 1, 2",
    ),
];

/// One table, and a rollup that counts it.
pub const COUNTED: &str =
    "CREATE TABLE t (id bigint PRIMARY KEY, grp int, n int); ALTER TABLE t REPLICA IDENTITY FULL;";
pub const COUNTS: &[(&str, &str)] =
    &[("counts", "SELECT grp, count(*), sum(n) FROM t GROUP BY grp")];

/// How long the random runs take; `PGSTAR_TORTURE_SECONDS` makes it longer.
pub fn duration(default: u64) -> Duration {
    let seconds = std::env::var("PGSTAR_TORTURE_SECONDS").ok();
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(default))
}

/// A session with the usual search path.
pub async fn connect(config: &Config) -> Connection {
    let connector = Connector::new(config.clone()).unwrap();
    let client = connector.connect().await.unwrap();
    client
        .batch_execute("SET search_path = public")
        .await
        .unwrap();
    client
}

/// A session of a server that may just have crashed.
pub async fn connect_patiently(config: &Config) -> Connection {
    let started = Instant::now();
    loop {
        let connector = Connector::new(config.clone()).unwrap();
        if let Ok(client) = connector.connect().await
            && client
                .batch_execute("SET search_path = public")
                .await
                .is_ok()
        {
            return client;
        }
        assert!(started.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A server of one test's own.
pub async fn start_server(settings: &[(&str, &str)]) -> Server {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let options = ServerOptions {
        install: InstallPolicy::Never,
        settings: settings.iter().map(own).collect(),
        ..ServerOptions::default()
    };
    Server::start(options).await.unwrap()
}

/// The only column of the only row.
pub async fn number(client: &Connection, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

pub async fn plans(config: Config, rollups: &[(&str, &str)]) -> Vec<MaintainPlan> {
    let client = Connector::new(config).unwrap().connect().await.unwrap();
    let catalog = load_catalog(&client).await.unwrap();
    let path = vec!["pg_catalog".to_owned(), "public".to_owned()];
    let plan = |(name, sql): &(&str, &str)| {
        let floats = Floats::Approximate;
        let definition = RollupDefinition::parse_with(name, sql, floats, &catalog, &path).unwrap();
        MaintainPlan {
            fold: FoldPlan::new(&definition, &catalog),
            build: BuildPlan {
                name: (*name).to_owned(),
                fingerprint: definition.fingerprint.clone(),
                select: definition.build_select.clone(),
                key_columns: definition.key_columns().map(str::to_owned).collect(),
                base_relations: definition.base_relations.clone(),
            },
        }
    };
    rollups.iter().map(plan).collect()
}

/// A maintainer with its rollups built.
pub struct Maintained {
    pub maintainer: Maintainer,
    pub plans: Vec<MaintainPlan>,
    pub store: RollupStore,
    pub config: Config,
}

impl Maintained {
    pub async fn start(config: Config, rollups: &[(&str, &str)], options: MaintainOptions) -> Self {
        let maintained = Self::follow(config, rollups, options).await;
        maintained.build().await;
        maintained
    }

    pub async fn follow(
        config: Config,
        rollups: &[(&str, &str)],
        options: MaintainOptions,
    ) -> Self {
        let plans = plans(config.clone(), rollups).await;
        let store = RollupStore::new(config.clone()).unwrap();
        store.ensure_schema().await.unwrap();
        let maintainer = Maintainer::new(config.clone(), options);
        maintainer.follow(plans.clone(), vec![]).await.unwrap();
        Maintained {
            maintainer,
            plans,
            store,
            config,
        }
    }

    pub async fn build(&self) {
        self.maintainer.established(DEADLINE).await.unwrap();
        for plan in &self.plans {
            self.store
                .ensure(&plan.build, &Sources::none(), &|_| ())
                .await
                .unwrap();
        }
    }

    /// The table of one of them.
    pub async fn table(&self, rollup: &str) -> String {
        let current = self.store.current(rollup).await.unwrap();
        current.unwrap().table
    }

    /// Proves all, and that each equals its defining SELECT.
    pub async fn check(&self, client: &Connection) {
        self.prove_all().await;
        assert_eq!(self.differences(client).await, Vec::<String>::new());
    }

    /// Waits until every rollup is proven, over as many rebuilds as it takes.
    pub async fn prove_all(&self) {
        for plan in &self.plans {
            self.prove(&plan.build.name).await;
        }
    }

    /// The same of one rollup.
    pub async fn prove(&self, rollup: &str) {
        let started = Instant::now();
        loop {
            let table = self.table(rollup).await;
            let tables = [table.as_str()];
            let proof = self.maintainer.prove(&tables, Duration::from_secs(5));
            match proof.await {
                Ok(_) => return,
                Err(why) => assert!(started.elapsed() < DEADLINE * 3, "{rollup}: {why}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What differs between each rollup's table and its defining SELECT in one snapshot.
    pub async fn differences(&self, client: &Connection) -> Vec<String> {
        let mut differences = vec![];
        for plan in &self.plans {
            let table = self.table(&plan.build.name).await;
            let is = format!("SELECT t::text FROM pgstar.\"{table}\" t");
            let should = format!("SELECT t::text FROM ({}) t", plan.build.select);
            for (what, one, other) in [("too much", &is, &should), ("missing", &should, &is)] {
                let sql = format!("({one}) EXCEPT ALL ({other}) LIMIT 5");
                for row in client.query(&sql, &[]).await.unwrap() {
                    let row: String = row.get(0);
                    differences.push(format!("{}: {what}: {row}", plan.build.name));
                }
            }
        }
        differences
    }
}
