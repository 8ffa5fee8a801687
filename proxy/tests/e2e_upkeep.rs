//! The upkeep of rollups as users see it: one that is wrong is found and built again, one that cannot follow is built
//! every so often, and several pgstar on one database.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use e2e_support::{
    ANY, Client, Database, Lab, Served, explain, ok, rows, served, table, until_decision,
    until_in_step,
};
use pgstar::serve::Proxy;
use pgstar_postgres::maintain::Audit;
use pgstar_postgres::rollups::BuildProgress;

const SCHEMA: &str = "
    CREATE TABLE sale (id int PRIMARY KEY, town text NOT NULL, amount int NOT NULL);
    INSERT INTO sale SELECT n, 'town ' || n % 5, n FROM generate_series(1, 400) n;";
const ROLLUPS: [(&str, &str); 1] = [(
    "by_town",
    "SELECT town, count(*), sum(amount) FROM sale GROUP BY town",
)];
const QUERY: &str = "SELECT count(*), sum(amount) FROM sale";

/// How long anything may take that happens in the background.
const PATIENCE: Duration = Duration::from_secs(60);

async fn right(lab: &Lab) -> Vec<String> {
    rows(&ok(&mut lab.database.direct().await, QUERY).await)
}

/// Asks until a rollup or the cache gives the right answer.
async fn until_served(lab: &Lab, session: &mut Client) {
    let began = Instant::now();
    loop {
        let (by, frames) = served(session, QUERY).await;
        if by != Served::Passthrough && rows(&frames) == right(lab).await {
            return;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "{:#}",
            explain(session, QUERY).await
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Audits ranges at random until one is found to be wrong; every other one has to be right.
async fn until_found(lab: &Lab, damage: &str) {
    let began = Instant::now();
    let mut chance: u64 = 1;
    loop {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let follower = lab.proxy.warehouse().follower();
        let audit = follower
            .audit("by_town", chance >> 8, PATIENCE)
            .await
            .unwrap();
        if matches!(audit, Audit::Different { .. }) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "not found: {damage}; {audit:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_that_is_wrong_is_found_and_built_again() {
    let database = Database::with(SCHEMA).await;
    let lab = Lab::start(&database, "[cache]\nmemory = \"0B\"\n", &ROLLUPS).await;
    let mut session = lab.session().await;
    until_served(&lab, &mut session).await;
    let follower = lab.proxy.warehouse().follower();
    let audit = follower.audit("by_town", 3, PATIENCE).await.unwrap();
    assert!(
        matches!(audit, Audit::Equal { groups: 1.., .. }),
        "{audit:?}"
    );
    for damage in [
        "UPDATE pgstar.{} SET {measure} = {measure} + 1 WHERE town = 'town 3'",
        "DELETE FROM pgstar.{} WHERE town = 'town 1'",
        "INSERT INTO pgstar.{} SELECT * FROM pgstar.{} WHERE town = 'town 2'",
    ] {
        let mut direct = database.direct().await;
        let name = "SELECT table_name FROM pgstar.rollup_state WHERE name = 'by_town'";
        let name = rows(&ok(&mut direct, name).await).remove(0);
        let measure = format!(
            "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = 'pgstar.{name}'::regclass AND attnum > 0 \
             AND attname <> 'town' LIMIT 1"
        );
        let measure = rows(&ok(&mut direct, &measure).await).remove(0);
        let damage = damage.replace("{}", &name).replace("{measure}", &measure);
        ok(&mut direct, &damage).await;
        until_found(&lab, &damage).await;
        // From now on nobody is told anything wrong, whatever age is accepted.
        ok(&mut session, "SET pgstar.freshness = 'any'").await;
        assert_eq!(
            rows(&ok(&mut session, QUERY).await),
            right(&lab).await,
            "{damage}"
        );
        ok(&mut session, "RESET pgstar.freshness").await;
        assert_eq!(
            rows(&ok(&mut session, QUERY).await),
            right(&lab).await,
            "{damage}"
        );
        until_served(&lab, &mut session).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_that_one_process_finds_wrong_answers_nobody() {
    let database = Database::with(SCHEMA).await;
    let more = "[cache]\nmemory = \"0B\"\n";
    let leader = Lab::start(&database, more, &ROLLUPS).await;
    let other = Lab::start(&database, more, &ROLLUPS).await;
    let mut session = other.session().await;
    for lab in [&leader, &other] {
        until_served(lab, &mut lab.session().await).await;
    }
    let mut direct = database.direct().await;
    let name = "SELECT table_name FROM pgstar.rollup_state WHERE name = 'by_town'";
    let name = rows(&ok(&mut direct, name).await).remove(0);
    // Nobody can build it again for now.
    let mut holder = database.direct().await;
    ok(
        &mut direct,
        &format!("DELETE FROM pgstar.{name} WHERE town = 'town 1'"),
    )
    .await;
    ok(
        &mut holder,
        "BEGIN; LOCK TABLE sale IN SHARE ROW EXCLUSIVE MODE",
    )
    .await;
    until_found(&leader, "a group is gone").await;
    for freshness in ["strict", "any", "1h"] {
        ok(
            &mut session,
            &format!("SET pgstar.freshness = '{freshness}'"),
        )
        .await;
        let began = Instant::now();
        while rows(&ok(&mut session, QUERY).await) != right(&other).await {
            // States are read each second.
            assert!(began.elapsed() < PATIENCE, "{freshness}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    ok(&mut holder, "ROLLBACK").await;
    until_served(&other, &mut session).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollup_that_cannot_follow_is_built_every_so_often() {
    let database = Database::unfollowed(SCHEMA).await;
    let text = format!(
        "[upstream]\nurl = \"{}\"\n[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"off\"\n\
         [[rollup]]\nname = \"by_town\"\nrefresh = \"1s\"\nquery = \"{}\"\n",
        database.url(),
        ROLLUPS[0].1
    );
    let config =
        pgstar::config::Config::from_text(std::path::Path::new("e2e.toml"), &text).unwrap();
    let lab = Lab::with_config(&database, &config).await;
    let mut session = lab.session().await;
    until_decision(&mut session, QUERY, "freshness-unproven", PATIENCE).await;
    let explained = explain(&mut session, QUERY).await.to_string();
    assert!(
        explained.contains("ALTER SYSTEM SET wal_level"),
        "{explained}"
    );
    let shown = table(&ok(&mut session, "SHOW pgstar.rollups").await);
    let standing = shown[0][7].as_ref().unwrap();
    assert_eq!(shown[0][8..11], [None, None, None], "nothing is proven");
    assert!(
        standing.starts_with("built every 1s, not followed"),
        "{standing}"
    );
    for id in [1001, 1002] {
        database
            .run(&format!("INSERT INTO sale VALUES ({id}, 'town 1', 1)"))
            .await;
        ok(&mut session, "SET pgstar.freshness = '1h'").await;
        until_served(&lab, &mut session).await;
        // Strict is what it was.
        ok(&mut session, "SET pgstar.freshness = strict").await;
        assert_eq!(served(&mut session, QUERY).await.0, Served::Passthrough);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_ends_another_goes_on_and_its_answers_stay_right() {
    let database = Database::with(SCHEMA).await;
    let leader = Lab::start(&database, "", &ROLLUPS).await;
    let other = Lab::start(&database, "", &ROLLUPS).await;
    let mut session = other.session().await;
    for lab in [&leader, &other] {
        until_served(lab, &mut lab.session().await).await;
    }
    let shown = until_in_step(&mut session).await;
    let [_, staleness, position, lag, ..] = &shown[0][7..] else {
        panic!("{shown:?}");
    };
    for number in [staleness, lag] {
        assert!(number.as_ref().unwrap().parse::<u64>().is_ok(), "{shown:?}");
    }
    assert!(position.as_ref().unwrap().contains('/'), "{shown:?}");
    for n in 0..5 {
        database
            .run(&format!(
                "INSERT INTO sale VALUES ({}, 'town 1', 1)",
                2000 + n
            ))
            .await;
        assert_eq!(rows(&ok(&mut session, QUERY).await), right(&other).await);
    }
    until_served(&other, &mut session).await;
    drop(leader);
    for n in 0..40 {
        database
            .run(&format!(
                "INSERT INTO sale VALUES ({}, 'town 1', 1)",
                3000 + n
            ))
            .await;
        assert_eq!(
            rows(&ok(&mut session, QUERY).await),
            right(&other).await,
            "{n}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    until_served(&other, &mut session).await;
}

/// The coarser one is declared first.
#[tokio::test(flavor = "multi_thread")]
async fn a_coarser_rollup_is_filled_from_a_finer_one() {
    let database =
        Database::with(&format!("{SCHEMA} ALTER TABLE sale REPLICA IDENTITY FULL")).await;
    let rollups = [
        ("all", "SELECT count(*), sum(amount), avg(amount) FROM sale"),
        ROLLUPS[0],
    ];
    let proxy = Proxy::start(&database.config("", &rollups)).await;
    let proxy = proxy.unwrap_or_else(|failure| panic!("{}", failure.report()));
    let read = Mutex::new(vec![]);
    let note = |rollup: &str, step: BuildProgress| {
        if let BuildProgress::Scanning { from, .. } = step {
            read.lock().unwrap().push((rollup.to_owned(), from));
        }
    };
    assert_eq!(proxy.warehouse().build_missing(&note).await.unwrap(), 2);
    let mut read = read.into_inner().unwrap();
    read.dedup();
    let both = [
        ("by_town".to_owned(), None),
        ("all".to_owned(), Some("by_town".to_owned())),
    ];
    assert_eq!(read, both);
    proxy.keep_rollups();
    let lab = Lab { database, proxy };
    let mut session = lab.session().await;
    until_served(&lab, &mut session).await;
    // Both follow, from the snapshot of the first.
    for change in [
        "INSERT INTO sale VALUES (1001, 'town 2', 7)",
        "DELETE FROM sale WHERE id < 10",
        "UPDATE sale SET amount = amount + 1 WHERE id % 7 = 0",
    ] {
        lab.database.run(change).await;
        until_served(&lab, &mut session).await;
        let answered = explain(&mut session, QUERY).await;
        assert_eq!(answered["rollup"], "all", "{answered:#}");
    }
}

/// After an upgrade of the operating system, which brings other rules: the operator has PostgreSQL note them.
#[tokio::test(flavor = "multi_thread")]
async fn another_version_of_a_collation_has_rollups_built_again_that_depend_on_it() {
    let database = Database::with(
        "CREATE COLLATION rules (provider = icu, locale = 'und');
         CREATE TABLE name (id int PRIMARY KEY, town text COLLATE rules NOT NULL, name text COLLATE rules NOT NULL);
         INSERT INTO name SELECT n, 'town ' || n % 3, 'name ' || n FROM generate_series(1, 30) n;
         UPDATE pg_collation SET collversion = 'an older one' WHERE collname = 'rules';",
    )
    .await;
    let rollups = [
        (
            "first_names",
            "SELECT town, count(*), min(name) FROM name GROUP BY town",
        ),
        (
            "towns",
            "SELECT town, count(*), max(id) FROM name GROUP BY town",
        ),
    ];
    let lab = Lab::start(&database, ANY, &rollups).await;
    let mut pair = lab.pair().await;
    until_in_step(&mut pair.through).await;
    let mut direct = database.direct().await;
    let mut tables = async || {
        let sql = "SELECT table_name FROM pgstar.rollup_state ORDER BY name";
        let rows = table(&ok(&mut direct, sql).await).into_iter();
        let tables: Vec<String> = rows.map(|row| row[0].clone().unwrap()).collect();
        tables
    };
    let before = tables().await;
    database.run("ALTER COLLATION rules REFRESH VERSION").await;
    let began = Instant::now();
    let mut after = tables().await;
    while after[0] == before[0] {
        assert!(began.elapsed() < PATIENCE, "{after:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        after = tables().await;
    }
    assert_eq!(after[1], before[1], "the other one does not depend on it");
    until_in_step(&mut pair.through).await;
    let sql = "SELECT town, min(name) FROM name GROUP BY town";
    assert_eq!(pair.served(sql).await, Served::Rollup);
}
