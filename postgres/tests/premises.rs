//! What a match takes for granted of the server's clocks: where PostgreSQL says that it holds, the rewritten statement
//! gives the original's answer for times at every minute around a change of clocks, and it says so of most days.
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;
mod rewriter_support;

use common::Database;
use pgstar_postgres::catalog::load_catalog;
use pgstar_postgres::connect::Connection;
use pgstar_rewriter::catalog::Catalog;
use pgstar_rewriter::{Context, Rollup, RollupDefinition, decide};
use rewriter_support::{Rows, ask, build_rollups, difference, enter_session, premises_hold};

/// Days on which, or beside which, clocks of these zones change: at night, at midnight, by a day, never.
const DAYS: [(&str, &str); 12] = [
    ("America/New_York", "2024-03-10"),
    ("America/New_York", "2024-11-03"),
    ("Europe/Berlin", "2024-03-31"),
    ("Africa/Cairo", "2024-04-26"),
    ("America/Santiago", "2023-09-03"),
    ("America/Havana", "2024-03-10"),
    ("Australia/Lord_Howe", "2024-10-06"),
    ("America/St_Johns", "2005-04-03"),
    ("America/St_Johns", "2005-10-30"),
    ("Pacific/Apia", "2011-12-31"),
    ("Pacific/Kwajalein", "1993-08-22"),
    ("Asia/Kolkata", "2024-03-10"),
];

struct World {
    client: Connection,
    catalog: Catalog,
    rollups: Vec<Rollup>,
}

impl World {
    async fn new() -> World {
        let database = Database::with(
            "CREATE TABLE f (ts timestamp NOT NULL, at timestamptz NOT NULL, day date NOT NULL)",
        )
        .await;
        let client = database.connect().await;
        let catalog = load_catalog(&client).await.unwrap();
        let definitions = [
            "SELECT date_trunc('hour', ts) AS hour, count(*), min(day) AS day FROM f GROUP BY 1",
            "SELECT date_trunc('month', CAST(day AS timestamp)) AS month, count(*) FROM f GROUP BY 1",
            "SELECT date_bin('15 minutes', at, '2000-01-01 00:00+00') AS bin, count(*) FROM f GROUP BY 1",
        ];
        let rollup = |(number, sql): (usize, &&str)| {
            let name = format!("r{number}");
            Rollup {
                schema: "pgstar".to_owned(),
                definition: RollupDefinition::parse(&name, sql, &catalog, &path()).unwrap(),
                table: name,
                rows: 0,
            }
        };
        let rollups = definitions.iter().enumerate().map(rollup).collect();
        World {
            client,
            catalog,
            rollups,
        }
    }

    /// Every minute of five days as the zone's clocks show them and as they do not, and the end of each.
    async fn fill(&self, zone: &str, day: &str) {
        enter_session(&self.client, &path(), zone).await;
        let sql = format!(
            "TRUNCATE f; INSERT INTO f \
             SELECT time, TIMESTAMP '{day}' AT TIME ZONE 'UTC' + (time - TIMESTAMP '{day}'), time::date \
             FROM generate_series(TIMESTAMP '{day}' - INTERVAL '3 days', TIMESTAMP '{day}' + INTERVAL '2 days', '1 minute') AS minute, \
             LATERAL (VALUES (minute), (minute + INTERVAL '59.999999 seconds')) AS at (time)"
        );
        self.client.batch_execute(&sql).await.unwrap();
        build_rollups(&self.client, &self.rollups).await;
    }

    /// Whether the statement is answered; if so, rightly.
    async fn is_answered(&self, sql: &str, zone: &str) -> bool {
        enter_session(&self.client, &path(), zone).await;
        let context = Context {
            catalog: &self.catalog,
            rollups: &self.rollups,
            search_path: &path(),
            time_zone: zone,
            bound: &[],
        };
        let decision = decide(sql, context);
        let found = decision
            .matches
            .first()
            .unwrap_or_else(|| panic!("{zone} {sql}: {:?}", decision.reasons));
        if !premises_hold(&self.client, found).await {
            return false;
        }
        let original = ask(&self.client, sql).await;
        let rewritten = ask(&self.client, &found.sql).await;
        if let Some(what) = difference(&original, &rewritten, Rows::default()) {
            panic!("{zone} {sql}\n{}\n{what}", found.sql);
        }
        true
    }
}

fn path() -> Vec<String> {
    vec!["pg_catalog".to_owned(), "public".to_owned()]
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_that_clocks_do_not_disturb_are_answered_rightly() {
    let world = World::new().await;
    let (mut answered, mut left) = (0, 0);
    for (zone, day) in DAYS {
        world.fill(zone, day).await;
        let days = [
            world.shifted(day, -1).await,
            day.to_owned(),
            world.shifted(day, 1).await,
        ];
        for bound in days {
            for op in [">=", "<", ">", "<="] {
                let second = match op {
                    ">" | "<=" => "23:59:59.999999",
                    _ => "00:00:00.000000",
                };
                let sql = format!(
                    "SELECT count(*) FROM f WHERE ts {op} TO_TIMESTAMP('{bound} {second}', 'YYYY-MM-DD HH24:MI:SS.US')"
                );
                match world.is_answered(&sql, zone).await {
                    true => answered += 1,
                    false => left += 1,
                }
            }
        }
    }
    // Left are those beside which clocks skip midnight, or a whole day.
    assert!(
        left >= 4 && answered >= 100,
        "{answered} answered, {left} left"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn months_of_dates_are_bounded_by_the_midnights_of_the_session() {
    let world = World::new().await;
    for (zone, day) in DAYS {
        world.fill(zone, day).await;
        let sql = format!(
            "SELECT count(*) FROM f WHERE day >= TO_TIMESTAMP('{}-01', 'YYYY-MM-DD')",
            &day[..7]
        );
        assert!(world.is_answered(&sql, zone).await, "{zone} {sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quarters_of_an_hour_answer_only_zones_whose_clocks_keep_to_them() {
    let world = World::new().await;
    for (zone, day) in DAYS {
        world.fill(zone, day).await;
        let sql =
            "SELECT date_trunc('day', at), count(*) FROM f WHERE at >= '1990-01-01' GROUP BY 1";
        let keeps = zone != "America/St_Johns";
        assert_eq!(world.is_answered(sql, zone).await, keeps, "{zone}");
        let sql = format!(
            "SELECT date_trunc('hour', at AT TIME ZONE '{zone}'), count(*) FROM f WHERE at >= '1990-01-01' GROUP BY 1"
        );
        assert_eq!(world.is_answered(&sql, "UTC").await, keeps, "{zone}");
    }
}

impl World {
    async fn shifted(&self, day: &str, by: i32) -> String {
        let sql = format!("SELECT (DATE '{day}' + {by})::text");
        self.client.query_one(&sql, &[]).await.unwrap().get(0)
    }
}
