//! The catalog snapshot holds what PostgreSQL enforces for every row, and nothing else.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;

use common::{Database, connect};
use pgstar_postgres::catalog::{catalog_fingerprint, load_catalog, load_catalog_and_clocks};
use pgstar_rewriter::catalog::{AttNum, Catalog, Relation, RelationKind};

async fn load(database: &Database) -> Catalog {
    let connection = database.connect().await;
    load_catalog(&connection).await.unwrap()
}

fn table<'a>(catalog: &'a Catalog, name: &str) -> &'a Relation {
    catalog
        .relation("public", name)
        .unwrap_or_else(|| panic!("{name} is missing"))
}

fn keys(relation: &Relation) -> Vec<Vec<i16>> {
    let mut keys: Vec<Vec<i16>> = relation
        .unique_keys
        .iter()
        .map(|key| key.iter().map(|attnum| attnum.0).collect())
        .collect();
    keys.sort();
    keys
}

/// Each foreign key as "columns->table(columns)".
fn foreign_keys(catalog: &Catalog, name: &str) -> Vec<String> {
    let numbers = |attnums: &[AttNum]| {
        attnums
            .iter()
            .map(|attnum| attnum.0.to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    let mut keys: Vec<String> = table(catalog, name)
        .foreign_keys
        .iter()
        .map(|key| {
            let references = &catalog.relation_by_oid(key.references).unwrap().name;
            format!(
                "{}->{references}({})",
                numbers(&key.columns),
                numbers(&key.referenced_columns)
            )
        })
        .collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn columns_keep_their_numbers_types_and_not_null() {
    let database = Database::with(
        "CREATE TABLE t (a int NOT NULL, gone int, \"B c\" varchar(7), n numeric(10,2), c text COLLATE \"C\");
         ALTER TABLE t DROP COLUMN gone;
         CREATE VIEW v AS SELECT a FROM t;
         CREATE MATERIALIZED VIEW m AS SELECT a FROM t;
         CREATE SEQUENCE s;
         CREATE TEMPORARY TABLE hidden (a int);",
    )
    .await;
    let catalog = load(&database).await;
    let relation = table(&catalog, "t");
    let facts: Vec<(i16, &str, bool, u32, i32)> = relation
        .columns
        .iter()
        .map(|c| {
            (
                c.attnum.0,
                c.name.as_str(),
                c.not_null,
                c.ty.oid.0,
                c.ty.typmod,
            )
        })
        .collect();
    let expected = [
        (1, "a", true, 23, -1),
        (3, "B c", false, 1043, 11),
        (4, "n", false, 1700, (10 << 16 | 2) + 4),
        (5, "c", false, 25, -1),
    ];
    assert_eq!(facts, expected);
    assert_eq!(
        relation.columns[3].ty.collation.0, 950,
        "the collation \"C\""
    );
    assert_eq!(relation.columns[0].ty.collation.0, 0);
    assert_eq!(relation.kind, RelationKind::Table);
    assert_eq!(table(&catalog, "v").kind, RelationKind::View);
    // A sequence can be read like a table, and hides one of its name further back in the search path.
    assert_eq!(table(&catalog, "s").kind, RelationKind::Other);
    assert_eq!(table(&catalog, "m").kind, RelationKind::MaterializedView);
    assert!(
        catalog
            .relations()
            .iter()
            .all(|relation| relation.name != "hidden")
    );
    assert!(
        catalog.relation("pg_catalog", "pg_class").is_some(),
        "it can be meant by a name"
    );
    assert!(catalog.relation("information_schema", "tables").is_none());
}

#[tokio::test]
async fn unique_keys_come_only_from_indexes_that_hold_for_every_row() {
    let database = Database::with(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE good (a int PRIMARY KEY, b int, c int, UNIQUE (c, b), d text UNIQUE);
         CREATE UNIQUE INDEX ON good (b) INCLUDE (c);
         CREATE TABLE bad (a int, b int, c text, d int, e text COLLATE ci);
         CREATE UNIQUE INDEX ON bad (a) WHERE b > 0;
         CREATE UNIQUE INDEX ON bad ((a + 1));
         CREATE UNIQUE INDEX ON bad (b, (lower(c)));
         CREATE UNIQUE INDEX ON bad (c text_pattern_ops);
         CREATE UNIQUE INDEX ON bad (e COLLATE \"C\");
         ALTER TABLE bad ADD UNIQUE (d) DEFERRABLE;
         ALTER TABLE bad ADD EXCLUDE (a WITH =);
         CREATE INDEX ON bad (a);
         CREATE TABLE half_built (a int);
         INSERT INTO half_built VALUES (1), (1);
         CREATE TABLE parent (a int PRIMARY KEY);
         CREATE TABLE child () INHERITS (parent);
         CREATE TABLE part (a int PRIMARY KEY) PARTITION BY RANGE (a);
         CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
         CREATE TABLE half_indexed (a int) PARTITION BY RANGE (a);
         CREATE TABLE half_1 PARTITION OF half_indexed FOR VALUES FROM (0) TO (10);
         CREATE UNIQUE INDEX ON ONLY half_indexed (a);",
    )
    .await;
    let failed = database
        .connect()
        .await
        .batch_execute("CREATE UNIQUE INDEX CONCURRENTLY ON public.half_built (a)")
        .await;
    assert!(failed.is_err(), "the index must stay behind as invalid");
    let catalog = load(&database).await;
    assert_eq!(
        keys(table(&catalog, "good")),
        [vec![1], vec![2], vec![3, 2], vec![4]]
    );
    assert_eq!(keys(table(&catalog, "bad")), Vec::<Vec<i16>>::new());
    assert_eq!(keys(table(&catalog, "half_built")), Vec::<Vec<i16>>::new());
    assert_eq!(
        keys(table(&catalog, "half_indexed")),
        Vec::<Vec<i16>>::new()
    );
    assert_eq!(keys(table(&catalog, "part")), [vec![1]]);
    assert_eq!(keys(table(&catalog, "part_1")), [vec![1]]);
    // A scan of the parent returns the child's rows too, and those may repeat.
    assert_eq!(keys(table(&catalog, "parent")), Vec::<Vec<i16>>::new());
    assert!(!table(&catalog, "parent").columns[0].not_null);
}

#[tokio::test]
async fn foreign_partitions_make_constraints_unproved() {
    let database = Database::with(
        "CREATE FOREIGN DATA WRAPPER none;
         CREATE SERVER elsewhere FOREIGN DATA WRAPPER none;
         CREATE TABLE p (a int NOT NULL) PARTITION BY LIST (a);
         CREATE TABLE p_1 PARTITION OF p FOR VALUES IN (1);
         CREATE FOREIGN TABLE p_2 PARTITION OF p FOR VALUES IN (2) SERVER elsewhere;",
    )
    .await;
    let catalog = load(&database).await;
    assert!(!table(&catalog, "p").columns[0].not_null);
    assert!(!table(&catalog, "p_2").columns[0].not_null);
    assert!(table(&catalog, "p_1").columns[0].not_null);
    assert_eq!(table(&catalog, "p_2").kind, RelationKind::ForeignTable);
}

#[tokio::test]
async fn foreign_keys_are_those_that_are_enforced() {
    let database = Database::with(
        "CREATE TABLE dim (a int PRIMARY KEY, x int, y int, UNIQUE (x, y));
         CREATE TABLE fact (f int, g int, h int,
             FOREIGN KEY (f) REFERENCES dim,
             FOREIGN KEY (h, g) REFERENCES dim (x, y));
         CREATE TABLE later (f int REFERENCES dim DEFERRABLE);
         CREATE TABLE unchecked (f int);
         ALTER TABLE unchecked ADD FOREIGN KEY (f) REFERENCES dim NOT VALID;
         CREATE TABLE disabled (f int REFERENCES dim);
         ALTER TABLE disabled DISABLE TRIGGER ALL;
         CREATE TABLE parent (f int REFERENCES dim);
         CREATE TABLE child () INHERITS (parent);",
    )
    .await;
    let catalog = load(&database).await;
    assert_eq!(
        foreign_keys(&catalog, "fact"),
        ["1->dim(1)", "3,2->dim(2,3)"]
    );
    for name in ["later", "unchecked", "disabled", "parent"] {
        assert_eq!(foreign_keys(&catalog, name), Vec::<String>::new(), "{name}");
    }
    database
        .run("ALTER TABLE unchecked VALIDATE CONSTRAINT unchecked_f_fkey")
        .await;
    let catalog = load(&database).await;
    assert_eq!(foreign_keys(&catalog, "unchecked"), ["1->dim(1)"]);
}

/// From PostgreSQL 18 on such a key cannot be declared, and there is nothing to test.
#[tokio::test]
async fn a_key_that_compares_under_another_collation_proves_nothing() {
    if common::server().await.version() >= 18 {
        return;
    }
    let database = Database::with(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE dim (a text COLLATE ci PRIMARY KEY, b text COLLATE \"C\" UNIQUE);
         CREATE TABLE fact (f text COLLATE \"C\" REFERENCES dim (a), g text REFERENCES dim (b));",
    )
    .await;
    assert_eq!(foreign_keys(&load(&database).await, "fact"), ["2->dim(2)"]);
}

/// PostgreSQL 18 can declare what it does not enforce; older servers cannot, and have nothing to test.
#[tokio::test]
async fn constraints_that_18_declares_but_does_not_enforce_are_left_out() {
    if common::server().await.version() < 18 {
        return;
    }
    let database = Database::with(
        "CREATE TABLE dim (a int PRIMARY KEY);
         CREATE TABLE fact (f int, g int NOT NULL, h int);
         INSERT INTO fact VALUES (1, 1, NULL);
         ALTER TABLE fact ADD FOREIGN KEY (f) REFERENCES dim NOT ENFORCED;
         ALTER TABLE fact ADD CONSTRAINT h_later NOT NULL h NOT VALID;
         CREATE TABLE times (a int4range, p daterange, PRIMARY KEY (a, p WITHOUT OVERLAPS));
         CREATE TABLE during (a int4range, p daterange,
             FOREIGN KEY (a, PERIOD p) REFERENCES times (a, PERIOD p));",
    )
    .await;
    let catalog = load(&database).await;
    assert_eq!(foreign_keys(&catalog, "fact"), Vec::<String>::new());
    let not_null: Vec<bool> = table(&catalog, "fact")
        .columns
        .iter()
        .map(|c| c.not_null)
        .collect();
    assert_eq!(not_null, [false, true, false]);
    assert_eq!(keys(table(&catalog, "times")), Vec::<Vec<i16>>::new());
    assert_eq!(foreign_keys(&catalog, "during"), Vec::<String>::new());
}

#[tokio::test]
async fn a_key_to_a_partitioned_table_is_none_to_each_partition() {
    let database = Database::with(
        "CREATE TABLE dim (a int PRIMARY KEY) PARTITION BY RANGE (a);
         CREATE TABLE dim_1 PARTITION OF dim FOR VALUES FROM (0) TO (10);
         CREATE TABLE dim_2 PARTITION OF dim FOR VALUES FROM (10) TO (20);
         CREATE TABLE fact (f int REFERENCES dim, d int) PARTITION BY RANGE (d);
         CREATE TABLE fact_1 PARTITION OF fact FOR VALUES FROM (0) TO (10);
         CREATE TABLE plain (f int REFERENCES dim);
         CREATE TABLE to_part (f int REFERENCES dim_1);",
    )
    .await;
    let repeated = "SELECT count(*) > 3 FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(
        database.value(repeated).await,
        "true",
        "the test is about repeated constraints"
    );
    let catalog = load(&database).await;
    for name in ["fact", "fact_1", "plain"] {
        assert_eq!(foreign_keys(&catalog, name), ["1->dim(1)"], "{name}");
    }
    assert_eq!(foreign_keys(&catalog, "to_part"), ["1->dim_1(1)"]);
    database.run("ALTER TABLE fact_1 DISABLE TRIGGER ALL").await;
    let catalog = load(&database).await;
    for name in ["fact", "fact_1"] {
        assert_eq!(foreign_keys(&catalog, name), Vec::<String>::new(), "{name}");
    }
}

#[tokio::test]
async fn row_security_and_rules_are_seen() {
    let database = Database::with(
        "CREATE TABLE secured (a int); ALTER TABLE secured ENABLE ROW LEVEL SECURITY;
         CREATE TABLE ruled (a int); CREATE RULE r AS ON INSERT TO ruled DO ALSO NOTHING;
         CREATE VIEW v AS SELECT 1 AS a;",
    )
    .await;
    let catalog = load(&database).await;
    let facts = |name| {
        (
            table(&catalog, name).row_security,
            table(&catalog, name).has_rules,
        )
    };
    assert_eq!(facts("secured"), (true, false));
    assert_eq!(facts("ruled"), (false, true));
    assert_eq!(facts("v"), (false, false));
}

#[tokio::test]
async fn views_are_read_with_every_name_qualified() {
    let database = Database::with(
        "CREATE SCHEMA s; CREATE TABLE s.t (a int, b text); SET search_path = s;
         CREATE VIEW s.plain AS SELECT a AS one, upper(b) AS two FROM t WHERE b = 'x';
         CREATE VIEW s.guarded WITH (security_barrier) AS SELECT one FROM plain;
         CREATE MATERIALIZED VIEW s.stored AS SELECT a FROM t;",
    )
    .await;
    let catalog = load(&database).await;
    let view = |name| catalog.relation("s", name).unwrap().view.clone();
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = view("plain").unwrap();
    let definition = words(&plain.definition);
    assert!(definition.contains("FROM s.t"), "{definition}");
    assert!(!plain.is_barrier);
    let guarded = view("guarded").unwrap();
    let definition = words(&guarded.definition);
    assert!(definition.contains("FROM s.plain"), "{definition}");
    assert!(guarded.is_barrier);
    assert_eq!(view("stored"), None);
    assert_eq!(view("t"), None);
}

#[tokio::test]
async fn names_that_could_be_meant_instead_of_built_in_ones() {
    let database = Database::with(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TYPE mood AS ENUM ('good', 'bad');
         CREATE DOMAIN amount AS numeric;
         CREATE FUNCTION lower(varchar) RETURNS text LANGUAGE sql AS 'SELECT $1';
         CREATE FUNCTION of_amount(amount) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION now_too() RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION of_any(anyelement) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE FUNCTION of_mood(mood, int) RETURNS int LANGUAGE sql AS 'SELECT 1';
         CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int);
         CREATE FUNCTION gt(int, text) RETURNS bool LANGUAGE sql AS 'SELECT true';
         CREATE FUNCTION gt(mood, text) RETURNS bool LANGUAGE sql AS 'SELECT true';
         CREATE OPERATOR > (LEFTARG = int, RIGHTARG = text, FUNCTION = gt);
         CREATE OPERATOR <% (LEFTARG = mood, RIGHTARG = text, FUNCTION = gt);
         CREATE OPERATOR !! (RIGHTARG = int, FUNCTION = int4up);",
    )
    .await;
    let catalog = load(&database).await;
    let names = catalog.user_names();
    for function in ["lower", "of_amount", "now_too", "of_any", "total"] {
        assert!(names.functions.contains(function), "{function}");
    }
    assert!(!names.functions.contains("of_mood"));
    assert!(
        !names.functions.contains("upper"),
        "built-in names are not users' names"
    );
    let mut operators: Vec<&str> = names.operators.iter().map(String::as_str).collect();
    operators.sort_unstable();
    assert_eq!(operators, ["!!", ">"]);
    let oid = |sql: &'static str| async { database.value(sql).await.parse::<u32>().unwrap() };
    let enums: Vec<u32> = names.enum_types.iter().map(|oid| oid.0).collect();
    assert_eq!(enums, [oid("'public.mood'::regtype::oid").await]);
    let collations: Vec<u32> = names
        .nondeterministic_collations
        .iter()
        .map(|oid| oid.0)
        .collect();
    assert_eq!(collations, [oid("'public.ci'::regcollation::oid").await]);
}

/// Roles belong to the whole server: one test's new role would change the other's fingerprint.
static ROLES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const FINGERPRINTED: &str = "
    CREATE TABLE t (a int PRIMARY KEY, b text);
    INSERT INTO t SELECT i, i FROM generate_series(1, 20000) i;
    CREATE TABLE f (a int REFERENCES t);
    CREATE TYPE mood AS ENUM ('good');";

#[tokio::test]
async fn the_fingerprint_stays_when_only_rows_and_statistics_change() {
    let _roles = ROLES.lock().await;
    let database = Database::with(FINGERPRINTED).await;
    let connection = database.connect().await;
    let before = catalog_fingerprint(&connection).await.unwrap();
    let temporary = "CREATE TEMPORARY TABLE hidden (a int PRIMARY KEY, b text CHECK (b > ''))";
    let other_session = database.connect().await;
    other_session.batch_execute(temporary).await.unwrap();
    assert_eq!(
        catalog_fingerprint(&connection).await.unwrap(),
        before,
        "{temporary}"
    );
    for sql in [
        "ANALYZE t",
        "DELETE FROM t WHERE a % 2 = 0",
        "VACUUM (FREEZE, ANALYZE) t",
        "INSERT INTO t VALUES (0, 'x')",
        "CREATE SCHEMA pgstar; CREATE TABLE pgstar.r AS SELECT * FROM t; CREATE INDEX ON pgstar.r (b);
         GRANT SELECT ON pgstar.r TO PUBLIC; GRANT USAGE ON SCHEMA pgstar TO PUBLIC",
        "DROP TABLE pgstar.r",
    ] {
        database.run(sql).await;
        assert_eq!(catalog_fingerprint(&connection).await.unwrap(), before, "{sql}");
    }
    let role = database.role("ordinary");
    database.run(&format!("CREATE ROLE {role} LOGIN")).await;
    let ordinary = connect(database.config_as(&role).await).await;
    let as_ordinary = catalog_fingerprint(&ordinary).await.unwrap();
    assert_eq!(as_ordinary, catalog_fingerprint(&connection).await.unwrap());
    load_catalog(&ordinary).await.unwrap();
}

#[tokio::test]
async fn the_fingerprint_changes_with_everything_the_snapshot_rests_on() {
    let _roles = ROLES.lock().await;
    let database = Database::with(FINGERPRINTED).await;
    let (one, two) = (database.role("one"), database.role("two"));
    let connection = database.connect().await;
    let mut before = catalog_fingerprint(&connection).await.unwrap();
    for sql in [
        "CREATE TABLE u (a int)".to_owned(),
        "ALTER TYPE mood RENAME VALUE 'good' TO 'bad'".to_owned(),
        "ALTER TABLE u ADD COLUMN b int".to_owned(),
        "ALTER TABLE u RENAME COLUMN b TO c".to_owned(),
        "ALTER TABLE u ALTER COLUMN c SET NOT NULL".to_owned(),
        "ALTER TABLE u ALTER COLUMN c TYPE bigint".to_owned(),
        "ALTER TABLE u DROP COLUMN c".to_owned(),
        "CREATE UNIQUE INDEX u_a ON u (a)".to_owned(),
        "DROP INDEX u_a".to_owned(),
        "ALTER TABLE f DISABLE TRIGGER ALL".to_owned(),
        "ALTER TABLE f DROP CONSTRAINT f_a_fkey".to_owned(),
        "ALTER TABLE f ADD FOREIGN KEY (a) REFERENCES t NOT VALID".to_owned(),
        "ALTER TABLE f VALIDATE CONSTRAINT f_a_fkey".to_owned(),
        "ALTER TABLE u ENABLE ROW LEVEL SECURITY".to_owned(),
        "CREATE POLICY p ON u USING (true)".to_owned(),
        "ALTER POLICY p ON u USING (false)".to_owned(),
        "CREATE RULE r AS ON DELETE TO u DO INSTEAD NOTHING".to_owned(),
        "CREATE VIEW v AS SELECT 1 AS a".to_owned(),
        "CREATE OR REPLACE VIEW v AS SELECT 2 AS a".to_owned(),
        "CREATE TABLE u_child () INHERITS (u)".to_owned(),
        "ALTER TABLE u_child NO INHERIT u".to_owned(),
        "CREATE FUNCTION lower(int) RETURNS int LANGUAGE sql AS 'SELECT 1'".to_owned(),
        "ALTER FUNCTION lower(int) RENAME TO upper".to_owned(),
        "CREATE OPERATOR ## (RIGHTARG = int, FUNCTION = int4up)".to_owned(),
        "CREATE OPERATOR CLASS mine FOR TYPE int USING btree AS OPERATOR 3 =, FUNCTION 1 btint4cmp(int, int)".to_owned(),
        "CREATE TYPE shade AS ENUM ('dark')".to_owned(),
        "CREATE DOMAIN amount AS numeric".to_owned(),
        "CREATE COLLATION mine FROM \"C\"".to_owned(),
        "CREATE COLLATION rules (provider = icu, locale = 'und')".to_owned(),
        "ALTER TABLE t ALTER COLUMN b TYPE text COLLATE rules".to_owned(),
        "UPDATE pg_collation SET collversion = 'an older one' WHERE collname = 'rules'".to_owned(),
        "CREATE SCHEMA s".to_owned(),
        format!("CREATE ROLE {one}"),
        format!("CREATE ROLE {two}"),
        format!("GRANT {one} TO {two}"),
        format!("ALTER ROLE {one} SUPERUSER"),
        format!("ALTER ROLE {one} BYPASSRLS"),
        format!("GRANT SELECT ON u TO {one}"),
        format!("GRANT SELECT (a) ON t TO {one}"),
        format!("GRANT USAGE ON SCHEMA s TO {one}"),
        format!("REVOKE USAGE ON SCHEMA s FROM {one}"),
        "DROP TABLE u".to_owned(),
    ] {
        database.run(&sql).await;
        let after = catalog_fingerprint(&connection).await.unwrap();
        assert_ne!(after, before, "{sql}");
        assert_eq!(
            catalog_fingerprint(&connection).await.unwrap(),
            after,
            "{sql}, asked twice"
        );
        before = after;
    }
}

#[tokio::test]
async fn the_versions_of_orders_and_clocks_are_known() {
    let database = Database::with(
        "CREATE COLLATION rules (provider = icu, locale = 'und');
         CREATE TABLE t (a text COLLATE rules, b text COLLATE \"C\", c int)",
    )
    .await;
    let connection = database.connect().await;
    let zones = ["europe/berlin", "etc/utc", "no/zone", "day"].map(str::to_owned);
    let catalog = load_catalog_and_clocks(&connection, &zones).await.unwrap();
    let libraries = catalog.libraries();
    let collation = |column: &str| table(&catalog, "t").column(column).unwrap().ty.collation;
    let rules = &libraries.orders[&collation("a")];
    // The one that was recorded is the one that is there.
    let (recorded, actual) = rules.split_once(' ').unwrap();
    assert!(!actual.is_empty() && recorded == actual, "{rules}");
    let clocks = &libraries.clocks;
    let known: Vec<&String> = clocks.keys().collect();
    assert_eq!(known, ["etc/utc", "europe/berlin"]);
    assert_ne!(clocks["etc/utc"], clocks["europe/berlin"]);
    let again = load_catalog_and_clocks(&connection, &zones).await.unwrap();
    assert_eq!(again.libraries(), libraries);
}
