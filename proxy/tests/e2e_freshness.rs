//! How old an answer may be where changes cannot be followed: strict passes through and sees every commit, a
//! bound holds until it is passed, any may be stale; and the places where it can be said.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::time::Duration;

use e2e_support::{ANY, Database, Lab, Served, decision, explain, ok, rows, served};

const SCHEMA: &str = "
    CREATE TABLE shop (id int PRIMARY KEY, town text NOT NULL);
    CREATE TABLE sale (id int PRIMARY KEY, shop_id int NOT NULL REFERENCES shop, amount int NOT NULL);
    INSERT INTO shop VALUES (1, 'Bath'), (2, 'York');
    INSERT INTO sale SELECT n, 1 + n % 2, n FROM generate_series(1, 100) n;";
const ROLLUPS: [(&str, &str); 1] = [(
    "by_town",
    "SELECT town, count(*), sum(amount) FROM sale JOIN shop ON shop_id = shop.id GROUP BY town",
)];
const QUERY: &str = "SELECT town, count(*) FROM sale JOIN shop ON shop.id = sale.shop_id GROUP BY town ORDER BY town";
const BEFORE: [&str; 2] = ["Bath|50", "York|50"];
const AFTER: [&str; 2] = ["Bath|51", "York|50"];
const INSERT: &str = "INSERT INTO sale VALUES (101, 1, 5)";

async fn lab(more: &str) -> Lab {
    Lab::start(&Database::unfollowed(SCHEMA).await, more, &ROLLUPS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_is_the_default_and_sees_every_commit() {
    let lab = lab("").await;
    let mut session = lab.session().await;
    assert_eq!(
        rows(&ok(&mut session, "SHOW pgstar.freshness").await),
        ["strict"]
    );
    assert_eq!(decision(&mut session, QUERY).await, "freshness-unproven");
    assert_eq!(rows(&ok(&mut session, QUERY).await), BEFORE);
    lab.database.run(INSERT).await;
    let (by, frames) = served(&mut session, QUERY).await;
    assert_eq!(
        (by, rows(&frames)),
        (Served::Passthrough, AFTER.map(str::to_owned).to_vec())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn any_may_be_stale_and_strict_is_never_served_what_any_left_in_the_cache() {
    let lab = lab("").await;
    let mut session = lab.session().await;
    ok(&mut session, "SET pgstar.freshness = 'any'").await;
    lab.database.run(INSERT).await;
    for by in [Served::Rollup, Served::Cache] {
        let (served_by, frames) = served(&mut session, QUERY).await;
        assert_eq!(
            (served_by, rows(&frames)),
            (by, BEFORE.map(str::to_owned).to_vec())
        );
    }
    assert_eq!(
        explain(&mut session, QUERY).await["freshness"]["requested"],
        "any"
    );
    ok(&mut session, "SET pgstar.freshness = strict").await;
    assert_eq!(rows(&ok(&mut session, QUERY).await), AFTER);
    ok(&mut session, "RESET pgstar.freshness").await;
    assert_eq!(rows(&ok(&mut session, QUERY).await), AFTER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_holds_until_the_build_is_older() {
    let lab = lab("").await;
    let mut session = lab.session().await;
    ok(&mut session, "SET pgstar.freshness = '1h'").await;
    lab.database.run(INSERT).await;
    assert_eq!(rows(&ok(&mut session, QUERY).await), BEFORE);
    assert_eq!(decision(&mut session, QUERY).await, "cache");
    tokio::time::sleep(Duration::from_millis(20)).await;
    // Both the rollup and the answer kept from it are older than this.
    ok(&mut session, "SET pgstar.freshness = '1ms'").await;
    assert_eq!(decision(&mut session, QUERY).await, "freshness-unproven");
    assert_eq!(rows(&ok(&mut session, QUERY).await), AFTER);

    // A bound is passed while the session does nothing.
    ok(&mut session, "SET pgstar.freshness = '1500ms'").await;
    tokio::time::sleep(Duration::from_millis(1600)).await;
    assert_eq!(rows(&ok(&mut session, QUERY).await), AFTER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuilt_rollup_answers_with_what_it_has_now() {
    let lab = lab(ANY).await;
    let mut session = lab.session().await;
    assert_eq!(rows(&ok(&mut session, QUERY).await), BEFORE);
    lab.database.run(INSERT).await;
    assert_eq!(decision(&mut session, QUERY).await, "cache");
    let config = lab.database.config(ANY, &ROLLUPS);
    lab.proxy
        .warehouse()
        .rebuild(&config.rollups[0], &|_, _| ())
        .await
        .unwrap();
    let (by, frames) = served(&mut session, QUERY).await;
    assert_eq!(
        (by, rows(&frames)),
        (Served::Rollup, AFTER.map(str::to_owned).to_vec()),
        "an answer of the old table was kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_is_no_freshness_is_taken_as_strict() {
    let lab = lab(ANY).await;
    let mut session = lab.session().await;
    lab.database.run(INSERT).await;
    for nonsense in [
        "'soon'",
        "'5'",
        "'-5s'",
        "'5 parsecs'",
        "' '",
        "5",
        "'any '",
        "'ANY'",
        "'STRICT'",
        "'999999999999999999h'",
    ] {
        ok(&mut session, &format!("SET pgstar.freshness = {nonsense}")).await;
        let code = decision(&mut session, QUERY).await;
        let known = match nonsense {
            // Other spellings of known values may be known too; what counts is that the answer is not stale unasked.
            "'ANY'" | "'any '" => ["rollup", "cache", "invalid-freshness"].contains(&code.as_str()),
            "'STRICT'" => ["freshness-unproven", "invalid-freshness"].contains(&code.as_str()),
            _ => code == "invalid-freshness",
        };
        assert!(known, "{nonsense}: {code}");
        if code == "invalid-freshness" {
            assert_eq!(rows(&ok(&mut session, QUERY).await), AFTER, "{nonsense}");
        }
    }
    ok(&mut session, "SET pgstar.freshness = ''").await;
    assert_eq!(
        rows(&ok(&mut session, QUERY).await),
        BEFORE,
        "an empty setting is none: the configuration's default holds"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_said_in_every_place_where_a_setting_can() {
    let lab = lab("").await;
    lab.database.run("CREATE ROLE e2e_dashboard LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO e2e_dashboard").await;
    lab.database
        .run("ALTER ROLE e2e_dashboard SET pgstar.freshness = 'any'")
        .await;
    lab.database.run(INSERT).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut session = lab.session_as("e2e_dashboard").await;
    assert_eq!(
        rows(&ok(&mut session, "SHOW pgstar.freshness").await),
        ["any"]
    );
    assert_eq!(
        rows(&ok(&mut session, QUERY).await),
        BEFORE,
        "ALTER ROLE … SET"
    );
    ok(&mut session, "SET pgstar.freshness = strict").await;
    assert_eq!(
        rows(&ok(&mut session, QUERY).await),
        AFTER,
        "a session's own setting goes before its role's"
    );

    let mut session = lab
        .session_with(&[("options", "-c pgstar.freshness=any")])
        .await;
    assert_eq!(rows(&ok(&mut session, QUERY).await), BEFORE, "options=-c");
    let mut session = lab.session_with(&[("pgstar.freshness", "any")]).await;
    assert_eq!(
        rows(&ok(&mut session, QUERY).await),
        BEFORE,
        "a start-up parameter"
    );
    ok(&mut session, "DISCARD ALL").await;
    assert_eq!(
        rows(&ok(&mut session, QUERY).await),
        BEFORE,
        "DISCARD ALL restores what the session began with"
    );

    lab.database
        .run(&format!(
            "ALTER DATABASE {} SET pgstar.freshness = 'any'",
            lab.database.name
        ))
        .await;
    let mut session = lab.session().await;
    assert_eq!(
        rows(&ok(&mut session, QUERY).await),
        BEFORE,
        "ALTER DATABASE … SET"
    );
    ok(&mut session, "BEGIN; SET LOCAL pgstar.freshness = strict").await;
    assert_eq!(rows(&ok(&mut session, QUERY).await), AFTER, "SET LOCAL");
    ok(&mut session, "COMMIT").await;
    assert_eq!(
        rows(&ok(&mut session, QUERY).await),
        BEFORE,
        "after SET LOCAL"
    );
    ok(
        &mut session,
        "SELECT set_config('pgstar.freshness', 'strict', false)",
    )
    .await;
    assert_eq!(rows(&ok(&mut session, QUERY).await), AFTER, "set_config");
    ok(
        &mut session,
        "DO $$ BEGIN PERFORM set_config('pgstar.freshness', 'any', false); END $$",
    )
    .await;
    assert_eq!(
        explain(&mut session, QUERY).await["freshness"]["requested"],
        "any",
        "a function that sets it"
    );
    assert_eq!(
        rows(&ok(&mut session, QUERY).await),
        AFTER,
        "such a statement may have written, and the session would miss its own rows"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_has_the_default() {
    let lab = lab("[freshness]\ndefault = \"1h\"\n").await;
    let mut session = lab.session().await;
    assert_eq!(
        rows(&ok(&mut session, "SHOW pgstar.freshness").await),
        ["1h"]
    );
    assert_eq!(decision(&mut session, QUERY).await, "rollup");
    ok(&mut session, "SET pgstar.freshness = strict").await;
    assert_eq!(decision(&mut session, QUERY).await, "freshness-unproven");
}
