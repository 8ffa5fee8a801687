//! Another server behind the same address: one of an older state, in which the numbers of transactions and the positions of the
//! log that pgstar knows come again and mean something else. No answer is of a state that is gone.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use e2e_support::{Client, Database, Lab, Served, frames, ok, rows, served, start_server};
use pgstar_postgres::server::{Server, Shutdown};

const SCHEMA: &str = "
    CREATE TABLE sale (id int PRIMARY KEY, town text NOT NULL, amount int NOT NULL);
    CREATE TABLE other (id int PRIMARY KEY, town text NOT NULL);
    INSERT INTO sale SELECT n, 'town ' || n % 5, n FROM generate_series(1, 400) n;
    INSERT INTO other SELECT n, 'town ' || n % 5 FROM generate_series(1, 400) n;";
const ROLLUPS: [(&str, &str); 1] = [(
    "by_town",
    "SELECT town, count(*), sum(amount) FROM sale GROUP BY town",
)];
/// From the rollup, and from base tables, the second time from the cache.
const BY_TOWN: &str = "SELECT town, count(*), sum(amount) FROM sale GROUP BY town ORDER BY town";
const OF_OTHERS: &str = "SELECT count(*) FROM other a JOIN other b ON a.id <> b.id";

/// How long anything may take that happens in the background.
const PATIENCE: Duration = Duration::from_secs(90);

fn shell(script: &str) {
    let done = Command::new("sh").args(["-euc", script]).status().unwrap();
    assert!(done.success(), "{script}");
}

fn keep(data: &Path) {
    let data = data.display();
    shell(&format!("cp -a {data} {data}.kept"));
}

/// What was kept takes the place of what is there.
fn put_back(data: &Path) {
    let data = data.display();
    shell(&format!("rm -rf {data}; mv {data}.kept {data}"));
}

/// The same, as a standby that was promoted: its log has another history from here on, and it has no slots.
fn promote(data: &Path) {
    put_back(data);
    let data = data.display();
    shell(&format!(
        "rm -rf {data}/pg_replslot/*; touch {data}/recovery.signal; chown --reference={data} {data}/recovery.signal; \
         echo \"restore_command = 'false'\" >> {data}/postgresql.auto.conf"
    ));
}

/// A session, once the server is there again.
async fn session(database: &Database, lab: &Lab) -> Client {
    let began = Instant::now();
    loop {
        let parameters = [("user", "postgres"), ("database", database.name.as_str())];
        let client = Client::connect_with(lab.port(), &parameters).await;
        if frames::tags(&client.greeting).ends_with('Z') {
            return client;
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", client.greeting);
    }
}

/// Writes, and asks what was written, until a rollup or the cache has answered each question so often.
async fn until_served(database: &Database, lab: &Lab, from: u32) {
    let (mut through, mut direct) = (session(database, lab).await, session_of(database).await);
    let began = Instant::now();
    let mut by_pgstar = [0; 2];
    let mut id = from;
    while by_pgstar.iter().any(|times| *times < 10) {
        id += 1;
        let write = format!(
            "INSERT INTO sale VALUES ({id}, 'town 1', 1); INSERT INTO other VALUES ({id}, 'town 1')"
        );
        ok(&mut direct, &write).await;
        for (sql, times) in [BY_TOWN, OF_OTHERS].iter().zip(&mut by_pgstar) {
            let right = rows(&ok(&mut direct, sql).await);
            for _ in 0..2 {
                let (by, answer) = served(&mut through, sql).await;
                assert_eq!(rows(&answer), right, "{sql}");
                *times += i32::from(by != Served::Passthrough);
            }
        }
        assert!(began.elapsed() < PATIENCE, "{by_pgstar:?}");
    }
}

async fn session_of(database: &Database) -> Client {
    database.direct().await
}

async fn come_back(server: Server, how: Shutdown, state: fn(&Path)) -> Server {
    server.restart_after(how, state).await.unwrap()
}

async fn survives(state: fn(&Path)) {
    let server = start_server().await;
    let database = Database::create_on(&server, "template0").await;
    database.run(SCHEMA).await;
    let lab = Lab::start(&database, "", &ROLLUPS).await;
    until_served(&database, &lab, 1000).await;
    let server = come_back(server, Shutdown::Fast, keep).await;
    // All of this will never have happened.
    until_served(&database, &lab, 2000).await;
    let mut any = session(&database, &lab).await;
    ok(&mut any, "SET pgstar.freshness = 'any'").await;
    let lost = rows(&ok(&mut any, OF_OTHERS).await);
    let server = come_back(server, Shutdown::Immediate, state).await;
    let mut any = session(&database, &lab).await;
    ok(&mut any, "SET pgstar.freshness = 'any'").await;
    assert_ne!(
        rows(&ok(&mut any, OF_OTHERS).await),
        lost,
        "kept from what is gone"
    );
    until_served(&database, &lab, 3000).await;
    drop(lab);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_restored_behind_the_address() {
    survives(put_back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_promoted_behind_the_address() {
    survives(promote).await;
}
