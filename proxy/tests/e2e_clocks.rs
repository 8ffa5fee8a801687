//! The server is started again with another tz database. No answer shows the old clocks, and what depends on them is built again.
//!
//! Only a server with zone files of its own can be given others: most distributions' servers read the system's.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use e2e_support::{
    ANY, Client, Database, Lab, PATIENCE, explain, ok, rows, start_server, until_decision,
};
use pgstar_postgres::server::Shutdown;

const SCHEMA: &str = "
    CREATE TABLE event (id int PRIMARY KEY, at timestamptz NOT NULL);
    INSERT INTO event SELECT n, timestamptz '2024-01-01 00:00+00' + n * interval '1 hour' FROM generate_series(1, 5000) n;";
const ROLLUPS: [(&str, &str); 2] = [
    (
        "by_day",
        "SELECT date_trunc('day', at AT TIME ZONE 'America/New_York') AS day, count(*) FROM event GROUP BY 1",
    ),
    (
        "by_quarter",
        "SELECT date_bin('15 minutes', at, timestamptz '2000-01-01 00:00+00') AS bin, count(*), max(id) FROM event GROUP BY 1",
    ),
];

/// Answered by the days.
const DAYS: &str = "SELECT date_trunc('day', at AT TIME ZONE 'America/New_York'), count(*) FROM event GROUP BY 1 ORDER BY 1";

/// Answered by the quarters of an hour, as the session's clocks show them.
const OWN_DAYS: &str = "SELECT date_trunc('day', at), count(*), max(id) FROM event WHERE at >= '2024-01-01' GROUP BY 1 ORDER BY 1";

/// The zone whose clocks change, and the zone whose clocks it gets: they are three quarters past.
const ZONE: &str = "America/New_York";
const OTHER: &str = "Asia/Kathmandu";

const PROGRAMS: &str = "PGSTAR_PG_BIN";
const IS_CHILD: &str = "PGSTAR_TEST_HAS_OWN_ZONES";

fn zones_of(programs: &Path) -> Option<PathBuf> {
    let home = programs.parent()?;
    let below = ["share/postgresql/timezone", "share/timezone"];
    let mut places = below.iter().map(|place| home.join(place));
    places.find(|place| place.join(ZONE).is_file())
}

/// Runs the test below with a copy of the server's programs, whose zones may be changed.
#[test]
fn no_answer_shows_the_clocks_of_another_tz_database() {
    let programs = std::env::var_os(PROGRAMS).map(PathBuf::from);
    let Some(programs) = programs.filter(|programs| zones_of(programs).is_some()) else {
        println!("Not tried: {PROGRAMS} names no server that has time zones of its own.");
        return;
    };
    let copy = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&Path]| {
        let status = Command::new(program).args(arguments).status();
        assert!(status.unwrap().success(), "{program} {arguments:?}");
    };
    let home = copy.path().join("home");
    run("cp", &[Path::new("-a"), programs.parent().unwrap(), &home]);
    // For the account that runs the server.
    run("chmod", &[Path::new("-R"), Path::new("a+rX"), copy.path()]);
    let test = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "clocks_change", "--nocapture"])
        .env(PROGRAMS, home.join(programs.file_name().unwrap()))
        .env(IS_CHILD, "1")
        .status();
    assert!(test.unwrap().success());
}

async fn session(lab: &Lab) -> Client {
    lab.session_with(&[("TimeZone", ZONE)]).await
}

async fn right(lab: &Lab, sql: &str) -> Vec<String> {
    let mut direct = lab.database.direct_with(&[("TimeZone", ZONE)]).await;
    rows(&ok(&mut direct, sql).await)
}

/// Without being told so it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test above runs it with programs of its own"]
async fn clocks_change() {
    if std::env::var_os(IS_CHILD).is_none() {
        return;
    }
    let zones = zones_of(Path::new(&std::env::var_os(PROGRAMS).unwrap())).unwrap();
    let server = start_server().await;
    let database = Database::create_on(&server, "template0").await;
    database.run(SCHEMA).await;
    let lab = Lab::start(&database, ANY, &ROLLUPS).await;
    let before = [right(&lab, DAYS).await, right(&lab, OWN_DAYS).await];
    let mut through = session(&lab).await;
    for (sql, answer) in [DAYS, OWN_DAYS].into_iter().zip(&before) {
        until_decision(&mut through, sql, "rollup", PATIENCE).await;
        assert_eq!(&rows(&ok(&mut through, sql).await), answer);
        // From the cache, as a rule.
        assert_eq!(&rows(&ok(&mut through, sql).await), answer);
    }
    let change = move |_: &Path| {
        std::fs::remove_file(zones.join(ZONE)).unwrap();
        std::fs::copy(zones.join(OTHER), zones.join(ZONE)).unwrap();
    };
    let _server = server.restart_after(Shutdown::Fast, change).await.unwrap();
    let after = [right(&lab, DAYS).await, right(&lab, OWN_DAYS).await];
    assert!(before[0] != after[0] && before[1] != after[1]);
    let began = Instant::now();
    loop {
        let mut through = session(&lab).await;
        for freshness in ["any", "strict"] {
            ok(
                &mut through,
                &format!("SET pgstar.freshness = '{freshness}'"),
            )
            .await;
            for (sql, answer) in [DAYS, OWN_DAYS].into_iter().zip(&after) {
                assert_eq!(
                    &rows(&ok(&mut through, sql).await),
                    answer,
                    "{freshness}: {sql}"
                );
            }
        }
        let explained = explain(&mut through, DAYS).await;
        if explained["rollup"] == "by_day" {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{explained:#}");
    }
}
