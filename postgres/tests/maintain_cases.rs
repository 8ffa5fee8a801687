//! Changes that are easily folded wrong, one by one: after each step every rollup equals its defining SELECT, to the letter.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;
mod maintain_support;

use std::time::Duration;

use common::Database;
use futures_util::{StreamExt, stream};
use maintain_support::{Maintained, connect, plans};
use pgstar_postgres::maintain::MaintainOptions;
use pgstar_postgres::rollups::{RollupError, RollupStore, Sources};

struct Case {
    name: &'static str,
    setup: &'static str,
    rollups: &'static [(&'static str, &'static str)],
    steps: &'static [Step],
}

/// What happens next. A change is one transaction, unless it says otherwise.
enum Step {
    /// A change, after which each rollup is proven and right.
    Change(&'static str),
    /// A change of what the rollups' definitions mean. Whoever asks looks at the catalog first, so nobody is told what the
    /// rollups have now; they are proven, so that whatever is folded wrong is.
    Unread(&'static str),
    /// A change after which nothing can be proven before the catalog is read again.
    Unproven(&'static str),
    /// The catalog is read again, as the proxy does within a second, after which each rollup is right.
    ReadCatalog,
}
use Step::{Change, ReadCatalog, Unproven, Unread};

const CASES: &[Case] = &[
    Case {
        name: "the number of decimals of a value changes",
        setup: "CREATE TABLE t (id int PRIMARY KEY, g int, x numeric); ALTER TABLE t REPLICA IDENTITY FULL;
                INSERT INTO t VALUES (1, 1, 1.5)",
        rollups: &[("r", "SELECT g, count(*), sum(x) FROM t GROUP BY 1")],
        steps: &[
            Change("UPDATE t SET x = 1.50"),
            Change("UPDATE t SET x = 1.5000"),
            Change("UPDATE t SET x = 1.5"),
            Change("INSERT INTO t VALUES (2, 1, 0.000)"),
            Change("DELETE FROM t WHERE id = 2"),
            Change("INSERT INTO t VALUES (3, 1, NULL)"),
            Change("UPDATE t SET x = 0 WHERE id = 3"),
            Change("UPDATE t SET x = 0.00 WHERE id = 3"),
        ],
    },
    Case {
        name: "a partition has another replica identity than its parent",
        setup: "CREATE TABLE t (id int, k int, v int, code int NOT NULL, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
                CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
                CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20);
                ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE t1 REPLICA IDENTITY FULL;
                INSERT INTO t SELECT i, i % 20, i, i FROM generate_series(1, 100) i",
        rollups: &[("r", "SELECT v % 3 AS g, count(*), sum(v) FROM t GROUP BY 1"),
                   ("keys", "SELECT id % 3 AS g, count(*), sum(k) FROM t GROUP BY 1")],
        steps: &[
            Change("UPDATE t SET v = v + 1"),
            Change("UPDATE t2 SET id = id + 1000 WHERE id < 30"),
            Change("DELETE FROM t WHERE id % 7 = 0"),
            Change("CREATE TABLE t3 PARTITION OF t FOR VALUES FROM (20) TO (30); INSERT INTO t VALUES (2000, 25, 5, 5)"),
            Change("UPDATE t SET v = 6 WHERE id = 2000"),
            Change("ALTER TABLE t1 REPLICA IDENTITY DEFAULT; UPDATE t SET v = v + 1"),
        ],
    },
    Case {
        name: "a partition is identified by an index of its own",
        setup: "CREATE TABLE t (id int, k int, v int, code int NOT NULL, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
                CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);
                INSERT INTO t SELECT i, i % 10, i, i FROM generate_series(1, 100) i",
        rollups: &[("keys", "SELECT id % 3 AS g, count(*), sum(k) FROM t GROUP BY 1")],
        steps: &[
            Change("UPDATE t SET id = id + 1000 WHERE id < 30"),
            Change("CREATE UNIQUE INDEX t1_code ON t1 (code, k)"),
            Unproven("ALTER TABLE t1 REPLICA IDENTITY USING INDEX t1_code; UPDATE t SET id = id + 1000 WHERE id < 50"),
            Unproven("UPDATE t SET code = code + 1000, id = id + 1 WHERE id > 1000"),
            Change("ALTER TABLE t1 REPLICA IDENTITY FULL; DELETE FROM t WHERE id % 7 = 0"),
            Change("UPDATE t SET id = id + 1000 WHERE id < 50"),
        ],
    },
    Case {
        name: "a partition says more than its parent",
        setup: "CREATE TABLE t (id int, k int, v int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
                CREATE TABLE t1 (v int, junk text, k int NOT NULL, id int NOT NULL); ALTER TABLE t1 DROP COLUMN junk;
                ALTER TABLE t1 REPLICA IDENTITY FULL;
                ALTER TABLE t ATTACH PARTITION t1 FOR VALUES FROM (0) TO (10);
                INSERT INTO t SELECT i, i % 10, i FROM generate_series(1, 100) i",
        rollups: &[("r", "SELECT v % 3 AS g, count(*), sum(v) FROM t GROUP BY 1"),
                   ("keys", "SELECT id % 3 AS g, count(*), sum(k) FROM t GROUP BY 1")],
        steps: &[
            Change("UPDATE t SET v = v + 1 WHERE id < 30"),
            Change("UPDATE t SET id = id + 1000 WHERE id < 30"),
            Change("DELETE FROM t WHERE id % 7 = 0"),
        ],
    },
    Case {
        name: "a column may be NULL after all",
        setup: "CREATE TABLE t (id int PRIMARY KEY, g int NOT NULL, x int); ALTER TABLE t REPLICA IDENTITY FULL;
                INSERT INTO t VALUES (1, 1, 1)",
        rollups: &[
            ("r", "SELECT g, count(*), sum(x), min(x) FROM t GROUP BY 1"),
            ("sums", "SELECT x % 2 AS odd, count(*), sum(g), max(g) FROM t GROUP BY 1"),
        ],
        steps: &[
            Unproven("ALTER TABLE t ALTER g DROP NOT NULL; INSERT INTO t VALUES (2, NULL, NULL)"),
            Unproven("INSERT INTO t VALUES (3, NULL, 5)"),
            ReadCatalog,
            Change("INSERT INTO t VALUES (4, NULL, NULL)"),
            Change("DELETE FROM t WHERE id > 2"),
        ],
    },
    Case {
        name: "columns change places",
        setup: "CREATE TABLE t (id int PRIMARY KEY, g int, a int, b int); ALTER TABLE t REPLICA IDENTITY FULL;
                INSERT INTO t VALUES (1, 1, 10, 20)",
        rollups: &[("r", "SELECT g, count(*), sum(a) FROM t GROUP BY 1")],
        steps: &[
            Unread("ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME c TO b; INSERT INTO t VALUES (2, 1, 1, 2)"),
            ReadCatalog,
            Change("INSERT INTO t VALUES (3, 1, 1, 2)"),
        ],
    },
    Case {
        name: "columns change places and back before anybody looks",
        setup: "CREATE TABLE t (id int PRIMARY KEY, g int, a int, b int); ALTER TABLE t REPLICA IDENTITY FULL;
                INSERT INTO t VALUES (1, 1, 10, 20)",
        rollups: &[("r", "SELECT g, count(*), sum(a) FROM t GROUP BY 1")],
        steps: &[
            Change("ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a; INSERT INTO t VALUES (2, 1, 1, 2); \
                    ALTER TABLE t RENAME a TO b; ALTER TABLE t RENAME c TO a"),
            Change("INSERT INTO t VALUES (3, 1, 1, 2)"),
            Change("ALTER TABLE t DROP COLUMN b; INSERT INTO t VALUES (4, 1, 1)"),
        ],
    },
    Case {
        name: "labels change places",
        setup: "CREATE TYPE e AS ENUM ('a', 'b'); CREATE TYPE other AS ENUM ('a');
                CREATE TABLE d (id int PRIMARY KEY, e e); ALTER TABLE d REPLICA IDENTITY FULL;
                CREATE TABLE t (id int PRIMARY KEY, g e, x int); ALTER TABLE t REPLICA IDENTITY FULL;
                INSERT INTO t VALUES (1, 'a', 1); INSERT INTO d VALUES (1, 'a')",
        rollups: &[
            ("r", "SELECT g, count(*), sum(x) FROM t GROUP BY 1"),
            ("f", "SELECT count(*), sum(x) FROM t WHERE g = 'a'"),
            ("d", "SELECT d.e, count(*) FROM t JOIN d ON d.id = t.id GROUP BY 1"),
        ],
        steps: &[
            Change("ALTER TYPE other RENAME VALUE 'a' TO 'x'"),
            Change("ALTER TYPE e ADD VALUE 'n'"),
            Change("INSERT INTO t VALUES (20, 'n', 10)"),
            Change("INSERT INTO t VALUES (2, 'a', 10); ALTER TYPE e RENAME VALUE 'a' TO 'c'; ALTER TYPE e RENAME VALUE 'b' TO 'a'"),
            Change("INSERT INTO t VALUES (3, 'a', 100)"),
            Change("ALTER TYPE e RENAME VALUE 'a' TO 'b'; ALTER TYPE e RENAME VALUE 'c' TO 'a'"),
            Change("INSERT INTO t VALUES (21, 'n', 10); ALTER TYPE e RENAME VALUE 'n' TO 'm'"),
        ],
    },
    Case {
        name: "tables change places",
        setup: "CREATE TABLE t (id int PRIMARY KEY, g int, x int); ALTER TABLE t REPLICA IDENTITY FULL;
                CREATE TABLE u (LIKE t INCLUDING ALL); ALTER TABLE u REPLICA IDENTITY FULL;
                INSERT INTO t SELECT i, i % 3, i FROM generate_series(1, 10) i; INSERT INTO u SELECT i, i % 3, i FROM generate_series(1, 20) i",
        rollups: &[("r", "SELECT g, count(*), max(x) FROM t GROUP BY 1")],
        steps: &[
            Unproven("DELETE FROM t WHERE id > 8; ALTER TABLE t RENAME TO v; ALTER TABLE u RENAME TO t; ALTER TABLE v RENAME TO u"),
            ReadCatalog,
            Change("DELETE FROM t WHERE id > 18"),
            Unproven("DELETE FROM t WHERE id > 16; ALTER TABLE t RENAME TO v; ALTER TABLE u RENAME TO t; ALTER TABLE v RENAME TO u"),
            Change("ALTER TABLE t RENAME TO v; ALTER TABLE u RENAME TO t; ALTER TABLE v RENAME TO u"),
        ],
    },
    Case {
        name: "a table is moved to another schema",
        setup: "CREATE TABLE t (id int PRIMARY KEY, g int, x int); ALTER TABLE t REPLICA IDENTITY FULL;
                INSERT INTO t SELECT i, i % 3, i FROM generate_series(1, 10) i; CREATE SCHEMA s",
        rollups: &[("r", "SELECT g, count(*), max(x) FROM t GROUP BY 1")],
        steps: &[
            Unproven("ALTER TABLE t SET SCHEMA s; CREATE TABLE t (LIKE s.t INCLUDING ALL); ALTER TABLE t REPLICA IDENTITY FULL;
                      INSERT INTO t VALUES (1, 1, 1); DELETE FROM s.t WHERE id > 8"),
            ReadCatalog,
            Change("INSERT INTO t VALUES (2, 2, 2)"),
        ],
    },
    Case {
        name: "types without an order or a hash",
        setup: "CREATE TYPE pair AS (a int, b text); CREATE DOMAIN cents AS numeric(10,2) CHECK (VALUE > -100);
                CREATE TABLE t (id int PRIMARY KEY, m money, b bit(3), vb varbit, i interval, f float8, d date, ts timestamptz,
                                arr int[], j jsonb, p pair, c cents, u uuid, ch \"char\", ip inet, by bytea, r int4range, tz timetz, n name, bp char(5));
                ALTER TABLE t REPLICA IDENTITY FULL;
                INSERT INTO t (id) VALUES (1)",
        rollups: &[("d", "SELECT d, ts, bp, count(*), count(m), count(b), count(f), count(j), max(f), min(f), max(d), min(ts) FROM t GROUP BY 1, 2, 3"),
                   ("u", "SELECT u, ch, count(*), count(p), count(arr), count(c), count(tz), count(r), count(m), count(ip) FROM t GROUP BY 1, 2"),
                   ("c", "SELECT d IS NULL AS e, count(c), count(by), count(n) FROM t GROUP BY 1")],
        steps: &[
            Change("INSERT INTO t VALUES (2, 1.5, '101', '1', '1 day', 'NaN', 'infinity', '-infinity', '{1,NULL}', '{\"a\": 1}', '(1,x)', 1.5, \
             'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'x', '10.0.0.1', '\\x0001', '[1,5)', '10:00+02', 'n', 'ab')"),
            Change("INSERT INTO t SELECT 3, m, b, vb, i, f, d, ts, arr, j, p, c, u, ch, ip, by, r, tz, n, bp FROM t WHERE id = 2"),
            Change("UPDATE t SET f = '-Infinity', d = '-infinity', ts = 'infinity', i = '-1 day -00:00:01' WHERE id = 3"),
            Change("UPDATE t SET m = '-2.5', p = '(,\"a b\")', by = '\\x5c09', ch = '', r = 'empty' WHERE id = 3"),
            Change("DELETE FROM t WHERE id = 2"),
        ],
    },
    Case {
        name: "columns that come and go, and values that are computed",
        setup: "CREATE TABLE t (id int PRIMARY KEY, old int, g int, x int GENERATED ALWAYS AS (g * 2) STORED, y int DEFAULT 5); \
                ALTER TABLE t DROP COLUMN old; ALTER TABLE t REPLICA IDENTITY FULL;
                INSERT INTO t (id, g) SELECT i, i % 3 FROM generate_series(1, 10) i",
        rollups: &[("r", "SELECT g, count(*), sum(y) FROM t GROUP BY 1")],
        steps: &[
            Change("UPDATE t SET g = g + 1 WHERE id < 5"),
            Change("ALTER TABLE t ADD COLUMN z int DEFAULT 3; INSERT INTO t (id, g) VALUES (11, 2)"),
            Change("ALTER TABLE t DROP COLUMN x; INSERT INTO t (id, g) VALUES (12, 2)"),
            Change("ALTER TABLE t ADD COLUMN w float8 DEFAULT random(); DELETE FROM t WHERE id = 12"),
        ],
    },
    Case {
        name: "values that are stored out of line",
        setup: "CREATE TABLE t (id int PRIMARY KEY, g text, big text, x int); ALTER TABLE t ALTER big SET STORAGE EXTERNAL, ALTER g SET STORAGE EXTERNAL; ALTER TABLE t REPLICA IDENTITY FULL;
                INSERT INTO t SELECT i, repeat('g' || i % 2, 3000), repeat(i::text, 5000), i FROM generate_series(1, 10) i",
        rollups: &[("r", "SELECT g, count(*), sum(x), max(big) FROM t GROUP BY 1"), ("l", "SELECT length(big) % 7 AS l, count(*) FROM t GROUP BY 1")],
        steps: &[
            Change("UPDATE t SET x = x + 1"),
            Change("UPDATE t SET big = big || 'y' WHERE id < 4"),
            Change("UPDATE t SET g = repeat('h', 1000000) WHERE id = 3"),
            Change("UPDATE t SET x = x + 1 WHERE id = 3"),
            Change("DELETE FROM t WHERE id < 5"),
        ],
    },
    Case {
        name: "what is truncated and what is not",
        setup: "CREATE TABLE d (id int PRIMARY KEY, n text); CREATE TABLE t (id int PRIMARY KEY, d int REFERENCES d, x int);
                ALTER TABLE t REPLICA IDENTITY FULL; ALTER TABLE d REPLICA IDENTITY FULL;
                INSERT INTO d SELECT i, 'n' || i FROM generate_series(0, 3) i; INSERT INTO t SELECT i, i % 4, i FROM generate_series(1, 10) i",
        rollups: &[("r", "SELECT n, count(*), max(x) FROM t JOIN d ON d.id = t.d GROUP BY 1"), ("l", "SELECT n, count(*), max(x) FROM t LEFT JOIN d ON d.id = t.d GROUP BY 1")],
        steps: &[
            Change("BEGIN; SAVEPOINT a; TRUNCATE t; INSERT INTO t VALUES (100, 1, 1); ROLLBACK TO a; INSERT INTO t VALUES (101, 1, 1); COMMIT"),
            Change("BEGIN; INSERT INTO t VALUES (102, 1, 1); TRUNCATE t; INSERT INTO t VALUES (103, 1, 1); COMMIT"),
            Change("TRUNCATE d CASCADE"),
            Change("INSERT INTO d VALUES (5, 'five'); INSERT INTO t VALUES (1, 5, 5), (2, NULL, 6)"),
            Change("DELETE FROM t WHERE d = 5; DELETE FROM d WHERE id = 5; INSERT INTO d VALUES (5, 'other'); INSERT INTO t VALUES (3, 5, 7)"),
            Change("UPDATE d SET n = NULL"),
        ],
    },
];

/// What is built again has to wait for a while, but who creates a slot waits for whoever writes in any database.
const AT_ONCE: usize = 3;

/// A step is not proven within this time, at the latest when it is looked for again.
const NOT_PROVEN: Duration = Duration::from_millis(500);

async fn differences_of(case: &Case) -> Vec<String> {
    let database = Database::with(case.setup).await;
    let config = database.config().await;
    let options = MaintainOptions::default();
    let mut rollups = Maintained::start(config.clone(), case.rollups, options).await;
    rollups.prove_all().await;
    let client = connect(&config).await;
    let mut wrong = vec![];
    for (number, step) in case.steps.iter().enumerate() {
        match step {
            Change(sql) | Unread(sql) | Unproven(sql) => client.batch_execute(sql).await.unwrap(),
            ReadCatalog => {
                rollups.plans = plans(config.clone(), case.rollups).await;
                let plans = rollups.plans.clone();
                rollups.maintainer.follow(plans, vec![]).await.unwrap();
                rollups.build().await;
            }
        }
        if let Unproven(_) = step {
            let table = rollups.table(case.rollups[0].0).await;
            let proof = rollups.maintainer.prove(&[&table], NOT_PROVEN).await;
            assert!(proof.is_err(), "{}, step {number}", case.name);
            continue;
        }
        rollups.prove_all().await;
        if !matches!(step, Unread(_)) {
            let differences = rollups.differences(&client).await;
            wrong.extend(
                differences
                    .into_iter()
                    .map(|difference| format!("{}, step {number}: {difference}", case.name)),
            );
        }
    }
    for (name, rollup) in rollups.maintainer.figures().rollups {
        println!("{}: {name}: built again: {:?}", case.name, rollup.rebuilds);
    }
    wrong
}

/// Whoever builds with a plan from before would read the table that has the name now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollup_is_not_built_from_a_table_that_took_the_name() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, g int); CREATE TABLE u (LIKE t INCLUDING ALL); INSERT INTO u VALUES (1, 1)";
    let database = Database::with(setup).await;
    let config = database.config().await;
    let plans = plans(
        config.clone(),
        &[("r", "SELECT g, count(*) FROM t GROUP BY 1")],
    )
    .await;
    let store = RollupStore::new(config).unwrap();
    store.ensure_schema().await.unwrap();
    let plan = &plans[0].build;
    let build = async || store.rebuild(plan, &Sources::none(), &|_| ()).await;
    build().await.unwrap();
    let swap = "ALTER TABLE t RENAME TO v; ALTER TABLE u RENAME TO t; ALTER TABLE v RENAME TO u";
    database.run(swap).await;
    let refused = build().await;
    assert!(
        matches!(refused, Err(RollupError::Renamed { .. })),
        "{refused:?}"
    );
    database.run(swap).await;
    assert_eq!(build().await.unwrap().rows, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_change_is_folded_exactly() {
    let cases = stream::iter(CASES).map(differences_of);
    let wrong: Vec<Vec<String>> = cases.buffer_unordered(AT_ONCE).collect().await;
    let wrong = wrong.concat();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
