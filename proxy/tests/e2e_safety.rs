//! Where an answer from a rollup or the cache would be wrong, the client gets PostgreSQL's own: privileges,
//! row policies, names that mean something else, settings, transactions, and a schema that changes underneath.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::time::Duration;

use e2e_support::{
    ANY, Client, Database, Frame, Lab, NOTICED, NOTICING, Pair, Served, batch, decision, error,
    explain, frames, ok, rows, sqlstate, start_server, table, until_decision,
};

const SCHEMA: &str = "
    CREATE TYPE size AS ENUM ('small', 'large');
    CREATE TABLE shop (id int PRIMARY KEY, town text NOT NULL, size size NOT NULL);
    CREATE TABLE sale (id int PRIMARY KEY, shop_id int NOT NULL REFERENCES shop, day date NOT NULL, sold_at timestamptz NOT NULL,
        kind text NOT NULL, amount numeric(10,2) NOT NULL, weight float8, took interval, note text);
    INSERT INTO shop VALUES (1, 'Bath', 'small'), (2, 'Köln', 'large'), (3, 'Bath', 'large');
    INSERT INTO sale SELECT n, 1 + n % 3, date '2024-01-30' + n % 5, timestamptz '2024-03-30 22:30:00+00' + n % 7 * interval '1 hour',
        (ARRAY['a', 'b'])[1 + n % 2], n / 3.0, n / 7.0, n % 4 * interval '26 hours', NULL
      FROM generate_series(1, 300) n;";

const ROLLUPS: [(&str, &str); 4] = [
    (
        "by_town",
        "SELECT town, kind, count(*), sum(amount) FROM sale JOIN shop ON shop_id = shop.id GROUP BY town, kind",
    ),
    (
        "by_moment",
        "SELECT sold_at, day, count(*), sum(amount), max(day) FROM sale
         GROUP BY sold_at, day",
    ),
    ("by_note", "SELECT note, count(*) FROM sale GROUP BY note"),
    (
        "since_february",
        "SELECT shop_id, day, count(*) FROM sale WHERE day >= '2024-02-01' GROUP BY shop_id, day",
    ),
];

const BY_TOWN: &str =
    "SELECT town, count(*), sum(amount) FROM sale, shop WHERE shop_id = shop.id GROUP BY town";
/// Answered by `by_town` only because the join to shop keeps every sale once.
const BY_KIND: &str = "SELECT kind, sum(amount) FROM sale GROUP BY kind";
/// Answered by `since_february` beside the base table, and without its join.
const BY_SHOP: &str =
    "SELECT shop_id, count(*) FROM sale, shop WHERE shop_id = shop.id GROUP BY shop_id";
const BY_MOMENT: &str = "SELECT sold_at, max(day), count(*) FROM sale GROUP BY sold_at";

async fn lab() -> Lab {
    Lab::start(&Database::with(SCHEMA).await, ANY, &ROLLUPS).await
}

/// A role of this test's own, because roles belong to the whole server.
async fn role(lab: &Lab, what: &str, grants: &str) -> String {
    let role = format!("{}_{what}", lab.database.name);
    lab.database
        .run(&format!(
            "CREATE ROLE {role} LOGIN; {}",
            grants.replace("$role", &role)
        ))
        .await;
    role
}

async fn same_as(lab: &Lab, role: &str, sql: &str) -> (Served, Vec<Frame>) {
    lab.pair_with(&[("user", role)])
        .await
        .served_alike(sql)
        .await
}

// ---- who may read ----

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_a_base_table_gets_postgresqls_error() {
    let lab = lab().await;
    let reader = role(&lab, "reader", "GRANT SELECT ON sale, shop TO $role").await;
    let half = role(&lab, "half", "GRANT SELECT ON sale TO $role").await;
    let nobody = role(&lab, "nobody", "").await;
    let mut waiting = lab.session_as(&reader).await;
    until_decision(&mut waiting, BY_TOWN, "rollup", NOTICED).await;
    assert_eq!(same_as(&lab, &reader, BY_TOWN).await.0, Served::Rollup);
    assert_eq!(same_as(&lab, &reader, BY_TOWN).await.0, Served::Cache);
    for role in [&half, &nobody] {
        let (by, frames) = same_as(&lab, role, BY_TOWN).await;
        assert_eq!(
            (by, sqlstate(&frames).as_deref()),
            (Served::Passthrough, Some("42501")),
            "{role}"
        );
    }
    // The join to shop can be left out, so by_town would do; but not for who may not read shop's rollup.
    let (by, frames) = same_as(&lab, &half, BY_KIND).await;
    assert_eq!((by, sqlstate(&frames)), (Served::Passthrough, None));
    // A join that is left out needs its privileges as ever, and that one role has none changes nothing for another.
    let frames = same_as(&lab, &half, BY_SHOP).await.1;
    assert_eq!(sqlstate(&frames).as_deref(), Some("42501"));
    assert_eq!(same_as(&lab, &reader, BY_SHOP).await.0, Served::Rollup);
    let frames = same_as(&lab, &half, BY_SHOP).await.1;
    assert_eq!(sqlstate(&frames).as_deref(), Some("42501"));
    // Nothing of pgstar's keeps a role that was a reader from being dropped.
    let leave = format!("REVOKE SELECT ON sale, shop FROM {reader}; DROP ROLE {reader}");
    lab.database.run(&leave).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_privileges_are_gone_at_once_for_rollups_and_the_cache() {
    let lab = lab().await;
    let reader = role(&lab, "reader", "GRANT SELECT ON sale, shop TO $role").await;
    let mut session = lab.session_as(&reader).await;
    until_decision(&mut session, BY_TOWN, "rollup", NOTICED).await;
    ok(&mut session, BY_TOWN).await;
    assert_eq!(decision(&mut session, BY_TOWN).await, "cache");
    lab.database
        .run(&format!("REVOKE SELECT ON shop FROM {reader}"))
        .await;
    assert_eq!(
        sqlstate(&session.query(BY_TOWN).await).as_deref(),
        Some("42501"),
        "what was kept"
    );
    // Nothing was kept of this one: PostgreSQL itself looks at the base tables' privileges.
    let uncached = format!("{BY_TOWN} HAVING count(*) > 1");
    assert_eq!(
        sqlstate(&session.query(&uncached).await).as_deref(),
        Some("42501")
    );
    until_decision(&mut session, BY_TOWN, "not-a-reader", NOTICED).await;
    assert_eq!(
        sqlstate(&session.query(BY_TOWN).await).as_deref(),
        Some("42501")
    );
    lab.database
        .run(&format!("GRANT SELECT ON shop TO {reader}"))
        .await;
    until_answered(&mut session, BY_TOWN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileges_on_columns_only_are_postgresqls_to_judge() {
    let lab = lab().await;
    let role = role(
        &lab,
        "columns",
        "GRANT SELECT (town, id) ON shop TO $role; GRANT SELECT (shop_id, amount) ON sale TO $role",
    )
    .await;
    tokio::time::sleep(NOTICING).await;
    let by_town = "SELECT town, sum(amount) FROM sale, shop WHERE shop_id = shop.id GROUP BY town";
    let (by, frames) = same_as(&lab, &role, by_town).await;
    assert_eq!((by, sqlstate(&frames)), (Served::Passthrough, None));
    let (_, frames) = same_as(&lab, &role, BY_KIND).await;
    assert_eq!(sqlstate(&frames).as_deref(), Some("42501"));
}

#[tokio::test(flavor = "multi_thread")]
async fn privileges_follow_set_role_and_inheritance() {
    let lab = lab().await;
    let reader = role(&lab, "reader", "GRANT SELECT ON sale, shop TO $role").await;
    let heir = role(&lab, "heir", &format!("GRANT {reader} TO $role")).await;
    let stranger = role(
        &lab,
        "stranger",
        &format!("ALTER ROLE $role NOINHERIT; GRANT {reader} TO $role"),
    )
    .await;
    let mut waiting = lab.session_as(&reader).await;
    until_decision(&mut waiting, BY_TOWN, "rollup", NOTICED).await;
    assert_eq!(same_as(&lab, &heir, BY_TOWN).await.0, Served::Rollup);
    assert_eq!(
        sqlstate(&same_as(&lab, &stranger, BY_TOWN).await.1).as_deref(),
        Some("42501")
    );

    let mut pair = lab.pair_with(&[("user", &stranger)]).await;
    pair.same(BY_TOWN).await;
    pair.both(&format!("SET ROLE {reader}")).await;
    assert_eq!(pair.served(BY_TOWN).await, Served::Rollup);
    pair.both("RESET ROLE").await;
    assert_eq!(pair.served(BY_TOWN).await, Served::Passthrough);

    let mut superuser = lab.pair().await;
    assert_eq!(superuser.served(BY_TOWN).await, Served::Rollup);
    superuser.both(&format!("SET ROLE {stranger}")).await;
    assert_eq!(superuser.served(BY_TOWN).await, Served::Passthrough);
    superuser.both("BEGIN").await;
    superuser.both(&format!("SET LOCAL ROLE {reader}")).await;
    superuser.same(BY_TOWN).await;
    superuser.both("ROLLBACK").await;
    assert_eq!(superuser.served(BY_TOWN).await, Served::Passthrough);
    superuser
        .both(&format!("SET SESSION AUTHORIZATION {reader}"))
        .await;
    assert_ne!(superuser.served(BY_TOWN).await, Served::Passthrough);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_policies_decide_which_rows_are_seen() {
    let lab = lab().await;
    let reader = role(&lab, "reader", "GRANT SELECT ON sale, shop TO $role").await;
    let mut pair = lab.pair_with(&[("user", &reader)]).await;
    until_decision(&mut pair.through, BY_TOWN, "rollup", NOTICED).await;
    pair.same(BY_TOWN).await;
    lab.database.run("ALTER TABLE shop ENABLE ROW LEVEL SECURITY; CREATE POLICY bath ON shop USING (town = 'Bath')").await;
    // Also before the catalog has been read again.
    let frames = pair.same(BY_TOWN).await;
    assert_eq!(rows(&frames).len(), 1, "{frames:?}");
    until_decision(&mut pair.through, BY_TOWN, "row-security", NOTICED).await;
    pair.same(BY_TOWN).await;
    // Not even superusers, whose rows no policy hides, are served from what policies cover.
    let mut superuser = lab.pair().await;
    superuser.same(BY_TOWN).await;
    lab.database
        .run("DROP POLICY bath ON shop; ALTER TABLE shop DISABLE ROW LEVEL SECURITY")
        .await;
    until_answered(&mut pair.through, BY_TOWN).await;
    pair.same(BY_TOWN).await;
}

async fn until_answered(session: &mut Client, sql: &str) {
    let began = std::time::Instant::now();
    loop {
        // The cache may also have an answer of the base tables'.
        if explain(session, sql).await["rollup"].is_string() {
            return;
        }
        let now = decision(session, sql).await;
        assert!(began.elapsed() < NOTICED, "{sql}: still {now}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

// ---- names that mean something else ----

#[tokio::test(flavor = "multi_thread")]
async fn another_table_of_the_same_name_in_the_search_path() {
    let lab = lab().await;
    lab.database
        .run("CREATE SCHEMA other; CREATE TABLE other.sale AS SELECT * FROM public.sale LIMIT 10")
        .await;
    tokio::time::sleep(NOTICING).await;
    let mut pair = lab.pair().await;
    assert_eq!(pair.served(BY_TOWN).await, Served::Rollup);
    pair.both("SET search_path = other, public").await;
    assert_eq!(pair.served(BY_TOWN).await, Served::Passthrough);
    pair.both("SET search_path = public, other").await;
    pair.same(BY_TOWN).await;
    assert_eq!(decision(&mut pair.through, BY_TOWN).await, "cache");
    pair.both("SET search_path = ''").await;
    assert_eq!(
        sqlstate(&pair.same(BY_TOWN).await).as_deref(),
        Some("42P01")
    );
    let qualified = "SELECT town, count(*) FROM public.sale s JOIN public.shop ON s.shop_id = shop.id GROUP BY 1";
    assert_eq!(pair.served(qualified).await, Served::Rollup);
    pair.both("SET search_path = \"$user\", public").await;
    pair.same(BY_TOWN).await;
    // A schema named as the user comes before public as soon as it is there.
    lab.database.run("CREATE SCHEMA postgres; CREATE TABLE postgres.shop AS SELECT id, 'Rome' AS town FROM public.shop").await;
    let frames = pair.same_soon(BY_TOWN).await;
    assert_eq!(table(&frames)[0][0].as_deref(), Some("Rome"));
    lab.database.run("DROP SCHEMA postgres CASCADE").await;
}

impl Pair {
    /// As `same`, once a change of the catalog has been noticed.
    async fn same_soon(&mut self, sql: &str) -> Vec<Frame> {
        tokio::time::sleep(NOTICING).await;
        self.same(sql).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_put_before_a_base_table_a_moment_ago() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    pair.both("CREATE SCHEMA IF NOT EXISTS nearer; SET search_path = nearer, public")
        .await;
    pair.same(BY_TOWN).await;
    // By this very session: it sees its own commit, and so must its next statement.
    pair.direct
        .query("CREATE TABLE nearer.shop AS SELECT id, 'Oslo' AS town FROM public.shop")
        .await;
    let frames = pair.same_soon(BY_TOWN).await;
    assert_eq!(table(&frames)[0][0].as_deref(), Some("Oslo"));
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_tables_hide_base_tables() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    pair.same(BY_TOWN).await;
    pair.both("CREATE TEMP TABLE shop AS SELECT id, 'Temp' AS town FROM public.shop")
        .await;
    let frames = same_rows(&mut pair, BY_TOWN).await;
    assert_eq!(frames[0][0].as_deref(), Some("Temp"));
    assert_eq!(
        decision(&mut pair.through, BY_TOWN).await,
        "temporary-objects"
    );
    pair.both("DROP TABLE pg_temp.shop").await;
    assert_ne!(pair.served(BY_TOWN).await, Served::Passthrough);
    // In a transaction, by a function, in the extended protocol: each leaves the session with a temporary schema.
    let mut pair = lab.pair().await;
    same_rows(&mut pair, BY_TOWN).await;
    pair.both("DO $$ BEGIN CREATE TEMP TABLE sale ON COMMIT PRESERVE ROWS AS SELECT * FROM public.sale LIMIT 1; END $$").await;
    same_rows(&mut pair, BY_TOWN).await;
    let mut pair = lab.pair().await;
    pair.same_bytes(
        &batch(
            "CREATE TEMP VIEW shop AS SELECT 1 AS id, 'View' AS town",
            &[],
            &[],
            0,
            "",
        ),
        "a view",
    )
    .await;
    assert_eq!(
        same_rows(&mut pair, BY_TOWN).await[0][0].as_deref(),
        Some("View")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_objects_of_other_names_hide_nothing() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    pair.both(
        "CREATE TEMP TABLE draft AS SELECT 1 AS amount; CREATE TEMP VIEW \"Shops\" AS SELECT 2;",
    )
    .await;
    assert_eq!(pair.served(BY_TOWN).await, Served::Rollup);
    assert_eq!(
        pair.served(BY_TOWN).await,
        Served::Cache,
        "as in any session"
    );
    pair.same("SELECT count(*), sum(amount) FROM draft").await;
    assert_eq!(pair.served(BY_KIND).await, Served::Rollup);
    // A type of this name: the rewritten statement may mention types that the client's own does not.
    pair.both("CREATE DOMAIN pg_temp.shop AS int").await;
    pair.same(BY_TOWN).await;
    assert_eq!(
        decision(&mut pair.through, BY_TOWN).await,
        "temporary-objects"
    );
    pair.both("DISCARD TEMP").await;
    assert_eq!(pair.served(BY_TOWN).await, Served::Cache);
    // In a transaction that is undone.
    pair.both("BEGIN").await;
    pair.both("CREATE TEMP TABLE sale (amount int)").await;
    pair.same(BY_KIND).await;
    pair.both("ROLLBACK").await;
    pair.same(BY_KIND).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_child_is_read_with_its_parent() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    pair.both("CREATE TEMP TABLE mine () INHERITS (sale)").await;
    pair.both("INSERT INTO mine SELECT * FROM ONLY sale WHERE id < 4")
        .await;
    let frames = same_rows(&mut pair, "SELECT count(*) FROM sale").await;
    assert_eq!(frames[0][0].as_deref(), Some("303"));
    assert_eq!(
        decision(&mut pair.through, BY_KIND).await,
        "temporary-objects"
    );
    let mut other = lab.pair().await;
    assert_ne!(other.served(BY_KIND).await, Served::Passthrough);
    // The same in another session's: it is that one's alone.
    let path = rows(
        &ok(
            &mut pair.through,
            "SELECT pg_my_temp_schema()::regnamespace",
        )
        .await,
    );
    other
        .both(&format!("SET search_path = {}, public", path[0]))
        .await;
    assert_eq!(
        decision(&mut other.through, BY_KIND).await,
        "temporary-objects"
    );
}

/// The same rows; the columns come from tables of each session's own, with different numbers.
async fn same_rows(pair: &mut Pair, sql: &str) -> Vec<Vec<Option<String>>> {
    let mut direct = table(&pair.direct.query(sql).await);
    let mut through = table(&pair.through.query(sql).await);
    direct.sort();
    through.sort();
    assert_eq!(direct, through, "{sql}");
    direct
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_of_ones_own_may_have_the_names_of_postgresqls() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    pair.same(BY_TOWN).await;
    lab.database
        .run(
            "CREATE FUNCTION public.lower(varchar) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'mine' $$;
             CREATE AGGREGATE public.sum(numeric) (sfunc = numeric_sub, stype = numeric, initcond = '0')",
        )
        .await;
    for sql in [
        BY_TOWN,
        "SELECT lower(town::varchar), count(*) FROM sale, shop WHERE shop_id = shop.id GROUP BY 1",
    ] {
        pair.same_soon(sql).await;
    }
    pair.both("SET search_path = public, pg_catalog").await;
    for sql in [
        BY_TOWN,
        "SELECT lower(town::varchar), count(*) FROM sale, shop WHERE shop_id = shop.id GROUP BY 1",
    ] {
        pair.same(sql).await;
    }
    lab.database.run("CREATE FUNCTION public.eq(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true'; CREATE OPERATOR public.= (leftarg = text, rightarg = text, function = public.eq)").await;
    pair.same_soon("SELECT town, count(*) FROM sale, shop WHERE shop_id = shop.id AND kind = 'a'::text GROUP BY town").await;
}

// ---- settings ----

#[tokio::test(flavor = "multi_thread")]
async fn settings_change_an_answers_text_and_never_mix_in_the_cache() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    let queries = [
        BY_TOWN,
        BY_MOMENT,
        "SELECT day, count(*) FROM sale GROUP BY day",
        "SELECT day, count(*), sum(amount) FROM sale GROUP BY 1",
        "SELECT min(sold_at), max(day) FROM sale",
        "SELECT date_trunc('day', sold_at), count(*) FROM sale GROUP BY 1",
        "SELECT count(*) FROM sale WHERE sold_at >= '2024-03-31 00:00:00'",
        "SELECT day, count(*) FROM sale WHERE day < '03/02/2024' GROUP BY day",
        "SELECT town, count(*) FROM sale, shop WHERE shop_id = shop.id AND town = 'K\\u00f6ln' GROUP BY town",
        "SELECT count(*) FROM sale WHERE note = NULL",
    ];
    let settings = [
        "TimeZone = 'America/New_York'",
        "TimeZone = 'Europe/Berlin'",
        "TimeZone = 'UTC'",
        "DateStyle = 'German'",
        "DateStyle = 'SQL, DMY'",
        "DateStyle = 'Postgres, MDY'",
        "IntervalStyle = 'iso_8601'",
        "extra_float_digits = 0",
        "extra_float_digits = -10",
        "bytea_output = 'escape'",
        "standard_conforming_strings = off",
        "backslash_quote = off",
        "client_encoding = 'LATIN1'",
        "client_encoding = 'SQL_ASCII'",
        "transform_null_equals = on",
        "lc_monetary = 'C'",
        "row_security = off",
        "enable_hashagg = off",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_read_only = on",
        "statement_timeout = '30s'",
        "application_name = 'x'",
    ];
    for round in 0..2 {
        for setting in settings {
            pair.both(&format!("SET {setting}")).await;
            for sql in queries {
                pair.same(sql).await;
                pair.same_bytes(&batch(sql, &[], &[], 0, "P"), sql).await;
            }
            if round == 0 {
                pair.both(&format!("RESET {}", setting.split(' ').next().unwrap()))
                    .await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_under_which_text_means_something_else_pass_through() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    let backslash = "SELECT town, count(*) FROM sale, shop WHERE shop_id = shop.id AND town <> 'Ba\\th' GROUP BY town";
    assert_eq!(pair.served(backslash).await, Served::Rollup);
    for setting in [
        "standard_conforming_strings = off",
        "client_encoding = 'LATIN1'",
        "transform_null_equals = on",
        "row_security = off",
    ] {
        pair.both(&format!("SET {setting}")).await;
        assert_eq!(
            decision(&mut pair.through, BY_TOWN).await,
            "session-setting",
            "{setting}"
        );
        assert_eq!(pair.served(BY_TOWN).await, Served::Passthrough, "{setting}");
        pair.same(backslash).await;
        pair.both(&format!("RESET {}", setting.split(' ').next().unwrap()))
            .await;
    }
    let mut latin = lab.pair_with(&[("client_encoding", "LATIN1")]).await;
    let frames = latin.same(BY_TOWN).await;
    assert!(
        frames
            .iter()
            .any(|frame| frame.0.windows(4).any(|bytes| bytes == b"K\xf6ln")),
        "{frames:?}"
    );
    // Bytes that are no UTF-8 are a statement all the same.
    let bytes = [b"SELECT town, count(*) FROM sale, shop WHERE shop_id = shop.id AND town = 'K\xf6ln' GROUP BY town\0".as_slice()].concat();
    let frames = latin
        .same_bytes(&frames::frame('Q', &bytes), "a statement in LATIN1")
        .await;
    assert_eq!(table(&frames).len(), 1);
}

// ---- transactions ----

#[tokio::test(flavor = "multi_thread")]
async fn transactions_see_their_own_rows_and_snapshots() {
    let lab = lab().await;
    let mut through = lab.session().await;
    ok(&mut through, BY_KIND).await;
    ok(&mut through, "BEGIN").await;
    assert_eq!(decision(&mut through, BY_KIND).await, "cache");
    ok(
        &mut through,
        "INSERT INTO sale SELECT 1000, 1, now(), now(), 'new', 1",
    )
    .await;
    assert_eq!(decision(&mut through, BY_KIND).await, "write-transaction");
    assert_eq!(rows(&ok(&mut through, BY_KIND).await).len(), 3);
    ok(&mut through, "ROLLBACK").await;
    assert_eq!(decision(&mut through, BY_KIND).await, "cache");

    ok(
        &mut through,
        "BEGIN; SAVEPOINT s; DELETE FROM sale; ROLLBACK TO SAVEPOINT s",
    )
    .await;
    let frames = ok(&mut through, BY_KIND).await;
    assert_eq!(rows(&frames).len(), 2);
    ok(&mut through, "COMMIT").await;

    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        let mut through = lab.session().await;
        ok(&mut through, &format!("BEGIN ISOLATION LEVEL {isolation}")).await;
        ok(&mut through, "SELECT 1 FROM sale").await;
        assert_eq!(decision(&mut through, BY_KIND).await, "isolation");
        ok(&mut through, BY_KIND).await;
        ok(&mut through, "COMMIT").await;
        let mut through = lab.session().await;
        ok(&mut through, "BEGIN").await;
        ok(
            &mut through,
            &format!("SET TRANSACTION ISOLATION LEVEL {isolation}"),
        )
        .await;
        assert_eq!(
            decision(&mut through, BY_KIND).await,
            "isolation",
            "SET TRANSACTION is still allowed after it"
        );
    }
    // A statement that pgstar serves must not stop a later SET TRANSACTION that PostgreSQL would allow, nor the reverse.
    let mut pair = lab.pair().await;
    for sql in [
        "BEGIN",
        BY_KIND,
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "ROLLBACK",
        "BEGIN READ ONLY",
        BY_KIND,
        BY_TOWN,
        "COMMIT",
    ] {
        pair.same(sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_transaction_answers_nothing() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    pair.same(BY_KIND).await;
    for sql in ["BEGIN", "SELECT 1/0", BY_KIND] {
        pair.same(sql).await;
    }
    assert_eq!(
        sqlstate(&pair.same(BY_KIND).await).as_deref(),
        Some("25P02")
    );
    pair.same_bytes(&batch(BY_KIND, &[], &[], 0, "P"), BY_KIND)
        .await;
    pair.same("ROLLBACK").await;
    assert_eq!(pair.served(BY_KIND).await, Served::Cache);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_fails_in_a_transaction_fails_it_as_postgresql_would() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    let wrong = "SELECT town, count(*) / (count(*) - count(*)) FROM sale, shop WHERE shop_id = shop.id GROUP BY town";
    for sql in [
        "BEGIN",
        BY_KIND,
        wrong,
        BY_KIND,
        "ROLLBACK",
        "SELECT towm, count(*) FROM sale, shop GROUP BY 1",
        "BEGIN",
        "SAVEPOINT mine",
        wrong,
        "ROLLBACK TO mine",
        BY_KIND,
        "COMMIT",
    ] {
        pair.same(sql).await;
    }
    pair.same(wrong).await;
    pair.same(wrong).await;
}

// ---- a schema that changes underneath ----

/// Runs DDL and compares the queries once it has been noticed.
async fn compare_after(lab: &Lab, pair: &mut Pair, ddl: &str) {
    lab.database.run(ddl).await;
    tokio::time::sleep(NOTICING).await;
    for sql in [
        BY_TOWN,
        BY_KIND,
        BY_MOMENT,
        "SELECT note, count(*) FROM sale GROUP BY note",
    ] {
        pair.same(sql).await;
        pair.same_bytes(&batch(sql, &[], &[], 1, "P"), sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_go_and_change() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    for sql in [BY_TOWN, BY_KIND, BY_MOMENT] {
        pair.same(sql).await;
    }
    for ddl in [
        "ALTER TABLE sale ADD COLUMN extra int DEFAULT 7",
        "ALTER TABLE sale RENAME COLUMN kind TO sort; ALTER TABLE sale ADD COLUMN kind text NOT NULL DEFAULT 'new'",
        "ALTER TABLE sale ALTER COLUMN amount TYPE numeric(12,4)",
        "ALTER TYPE size ADD VALUE 'medium'",
        "ALTER TABLE sale DROP COLUMN note",
        "ALTER TABLE shop RENAME TO store; CREATE TABLE shop AS SELECT id, 'New' AS town FROM store",
    ] {
        compare_after(&lab, &mut pair, ddl).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_key_that_is_gone_removes_no_join() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    assert_eq!(pair.served(BY_KIND).await, Served::Rollup);
    assert_eq!(
        explain(&mut pair.through, BY_KIND).await["rollup"],
        "by_town"
    );
    lab.database.run("ALTER TABLE sale DROP CONSTRAINT sale_shop_id_fkey; INSERT INTO sale SELECT 1000, 99, now(), now(), 'a', 1").await;
    until_decision(&mut pair.through, BY_KIND, "join-not-removable", NOTICED).await;
    pair.same(BY_KIND).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn base_tables_that_are_dropped_or_replaced() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    pair.same(BY_TOWN).await;
    lab.database.run("DROP TABLE shop CASCADE").await;
    assert_eq!(
        sqlstate(&pair.same_soon(BY_TOWN).await).as_deref(),
        Some("42P01")
    );
    pair.same(BY_KIND).await;
    lab.database
        .run("CREATE TABLE shop AS SELECT DISTINCT shop_id AS id, 'Again' AS town FROM sale")
        .await;
    let frames = pair.same_soon(BY_TOWN).await;
    assert_eq!(table(&frames)[0][0].as_deref(), Some("Again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_swapped_under_one_name_as_loaders_do() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    pair.same(BY_TOWN).await;
    lab.database
        .run(
            "BEGIN; CREATE TABLE sale_new (LIKE sale INCLUDING ALL); INSERT INTO sale_new SELECT * FROM sale WHERE id < 100;
             ALTER TABLE sale RENAME TO sale_old; ALTER TABLE sale_new RENAME TO sale; COMMIT",
        )
        .await;
    pair.same_soon(BY_TOWN).await;
    until_answered(&mut pair.through, BY_TOWN).await;
    pair.same(BY_TOWN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_table_dropped_by_hand_is_fallen_back_from_and_rebuilt() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    for _ in 0..2 {
        let name = rows(
            &ok(
                &mut pair.direct,
                "SELECT table_name FROM pgstar.rollup_state WHERE name = 'by_town'",
            )
            .await,
        )
        .remove(0);
        let in_transaction = lab.pair().await;
        lab.database
            .run(&format!("DROP TABLE pgstar.\"{name}\""))
            .await;
        // Before anybody has noticed: outside and inside a transaction, in both protocols.
        let mut in_transaction = in_transaction;
        in_transaction.same("BEGIN").await;
        in_transaction.same(BY_KIND).await;
        in_transaction
            .same_bytes(&batch(BY_TOWN, &[], &[], 1, "P"), BY_TOWN)
            .await;
        in_transaction.same("COMMIT").await;
        pair.same(BY_TOWN).await;
        pair.same_bytes(&batch(BY_TOWN, &[], &[], 0, "SP"), BY_TOWN)
            .await;
        // And then it is built again.
        until_answered(&mut pair.through, BY_TOWN).await;
        pair.same(BY_TOWN).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_schema_dropped_by_hand() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    pair.same(BY_TOWN).await;
    lab.database.run("DROP SCHEMA pgstar CASCADE").await;
    pair.same("SELECT kind, count(*) FROM sale GROUP BY kind")
        .await;
    pair.same(BY_TOWN).await;
    until_answered(
        &mut pair.through,
        "SELECT kind, count(*) FROM sale GROUP BY kind",
    )
    .await;
    pair.same(BY_TOWN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_of_the_server_is_survived() {
    let server = start_server().await;
    let database = Database::create_on(&server, "template0").await;
    database.run(SCHEMA).await;
    let lab = Lab::start(&database, ANY, &ROLLUPS).await;
    let mut pair = lab.pair().await;
    assert_eq!(pair.served(BY_TOWN).await, Served::Rollup);
    // A backend that dies by a signal makes the server end all the others and start anew, on the same port.
    let mut victim = lab.session().await;
    let pid = rows(&ok(&mut victim, "SELECT pg_backend_pid()").await).remove(0);
    let killed = std::process::Command::new("kill")
        .arg("-9")
        .arg(pid)
        .status();
    assert!(killed.unwrap().success());
    let farewell = pair.through.until('Z').await;
    let is_postgresqls_own = farewell.iter().any(|frame| frame.contains("57P02"));
    assert!(is_postgresqls_own, "{farewell:?}");
    let mut pair = until_connected(&lab).await;
    // Not from the first moment on: the server may still have no connection for pgstar's own questions.
    for sql in [BY_TOWN, BY_KIND] {
        pair.same(sql).await;
    }
    until_answered(&mut pair.through, BY_TOWN).await;
    pair.same(BY_TOWN).await;
    server.stop().await.unwrap();
}

/// A pair of sessions as soon as the server lets them in.
async fn until_connected(lab: &Lab) -> Pair {
    let began = std::time::Instant::now();
    loop {
        let mut pair = lab.pair().await;
        let is_in = |session: &Client| {
            session
                .greeting
                .last()
                .is_some_and(|frame| frame.tag() == 'Z')
        };
        if is_in(&pair.direct) && is_in(&pair.through) {
            pair.same("SELECT 1").await;
            return pair;
        }
        assert!(began.elapsed() < NOTICED, "{:?}", pair.through.greeting);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_is_watched_while_a_rollup_is_being_built() {
    let database = Database::with(SCHEMA).await;
    database.run("CREATE TABLE slow (id int)").await;
    let lab = Lab::start(&database, ANY, &ROLLUPS).await;
    drop(lab);
    // A build that does not come to its end, because somebody holds its table.
    let mut holder = database.direct().await;
    ok(&mut holder, "BEGIN; LOCK TABLE slow").await;
    let slow = ("slow", "SELECT id, count(*) FROM slow GROUP BY id");
    let config = database.config(ANY, &[slow, ROLLUPS[0], ROLLUPS[1], ROLLUPS[2]]);
    let proxy = pgstar::serve::Proxy::start(&config).await.unwrap();
    proxy.keep_rollups();
    let lab = Lab { database, proxy };
    let mut pair = lab.pair().await;
    assert_eq!(pair.served(BY_KIND).await, Served::Rollup);
    let began = std::time::Instant::now();
    while !rows(&ok(&mut pair.through, "SHOW pgstar.rollups").await)
        .iter()
        .any(|row| row.starts_with("slow|building"))
    {
        assert!(began.elapsed() < NOTICED, "it is not being built");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    lab.database
        .run("ALTER TABLE sale DROP CONSTRAINT sale_shop_id_fkey")
        .await;
    until_decision(&mut pair.through, BY_KIND, "join-not-removable", NOTICED).await;
    ok(&mut holder, "COMMIT").await;
    until_answered(
        &mut pair.through,
        "SELECT id, count(*) FROM slow GROUP BY 1",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_that_cannot_be_built_keeps_no_other_from_being_built() {
    let database = Database::with(SCHEMA).await;
    let role = format!("{}_half", database.name);
    let grants = format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT ON sale TO {role}; CREATE SCHEMA pgstar AUTHORIZATION {role}"
    );
    database.run(&grants).await;
    let mut config = database.config(ANY, &ROLLUPS);
    config.upstream = database
        .url()
        .replace("postgres@", &format!("{role}@"))
        .parse()
        .unwrap();
    let proxy = pgstar::serve::Proxy::start(&config).await.unwrap();
    proxy.keep_rollups();
    let lab = Lab { database, proxy };
    let mut session = lab.session_as(&role).await;
    until_answered(&mut session, BY_MOMENT).await;
    assert_ne!(decision(&mut session, BY_TOWN).await, "rollup");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_by_who_can_no_longer_look_at_the_catalog() {
    let database = Database::with(SCHEMA).await;
    let role = format!("{}_own", database.name);
    database
        .run(&format!("CREATE ROLE {role} LOGIN SUPERUSER"))
        .await;
    let mut config = database.config(ANY, &ROLLUPS);
    config.upstream = database
        .url()
        .replace("postgres@", &format!("{role}@"))
        .parse()
        .unwrap();
    let lab = Lab::with_config(&database, &config).await;
    let mut pair = lab.pair().await;
    assert_eq!(pair.served(BY_KIND).await, Served::Rollup);
    let shut_out = format!(
        "ALTER ROLE {role} NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
    );
    lab.database.run(&shut_out).await;
    let within = pgstar::warehouse::CATALOG_AGE_MAX + NOTICED;
    until_decision(&mut pair.through, BY_KIND, "catalog-unavailable", within).await;
    lab.database.run("ALTER TABLE sale DROP CONSTRAINT sale_shop_id_fkey; INSERT INTO sale SELECT 1000, 99, now(), now(), 'c', 1").await;
    assert_eq!(pair.served(BY_KIND).await, Served::Passthrough);
    lab.database.run(&format!("ALTER ROLE {role} LOGIN")).await;
    until_decision(&mut pair.through, BY_KIND, "join-not-removable", within).await;
    until_answered(&mut pair.through, BY_TOWN).await;
}

// ---- the rest ----

#[tokio::test(flavor = "multi_thread")]
async fn another_database_is_passed_through() {
    let lab = lab().await;
    let other = Database::with(&SCHEMA.replace("300", "30")).await;
    let mut pair = lab.pair_with(&[("database", &other.name)]).await;
    assert_eq!(decision(&mut pair.through, BY_TOWN).await, "other-database");
    let frames = pair.same(BY_TOWN).await;
    let mut own = lab.pair().await;
    assert_ne!(rows(&own.same(BY_TOWN).await), rows(&frames));
    pair.same(BY_TOWN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_larger_than_max_answer_are_given_whole_and_not_kept() {
    let database = Database::with(SCHEMA).await;
    let more = format!("{ANY}[cache]\nmax_answer = \"512B\"\nmemory = \"1MiB\"\n");
    let lab = Lab::start(&database, &more, &ROLLUPS).await;
    let mut pair = lab.pair().await;
    let large = "SELECT sold_at, day, count(*) FROM sale GROUP BY 1, 2";
    for _ in 0..3 {
        assert_eq!(pair.served(large).await, Served::Rollup);
    }
    assert_eq!(pair.served(BY_TOWN).await, Served::Rollup);
    assert_eq!(pair.served(BY_TOWN).await, Served::Cache);
    let lab = Lab::start(
        &database,
        &format!("{ANY}[cache]\nmemory = \"0B\"\n"),
        &ROLLUPS,
    )
    .await;
    let mut pair = lab.pair().await;
    for _ in 0..2 {
        assert_eq!(pair.served(BY_TOWN).await, Served::Rollup);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_point_to_the_place_in_the_clients_own_text() {
    let lab = lab().await;
    let mut pair = lab.pair().await;
    for sql in [
        "SELECT town, sum(amount) FROM sale, shop WHERE shop_id = shop.id GROUP BY",
        "SELECT town, sum(amount) FROM sale, shop WHERE shop_id = shop.id GROUP BY kind",
        "SELECT sum(amuont) FROM sale",
        "SELECT id, sum(amount) FROM sale, shop GROUP BY id",
        "/* Ü */ SELECT sum(town) FROM shop, sale",
        "SELECT count(*) FROM sale WHERE day = 'yesterdayish'",
        "SELECT sum(amount) FROM sale WHERE ~~ 1",
    ] {
        let frames = pair.same(sql).await;
        assert!(
            error(&frames).unwrap().contains_key(&'P'),
            "{sql}: {frames:?}"
        );
        pair.same_bytes(&batch(sql, &[], &[], 0, "P"), sql).await;
    }
}
