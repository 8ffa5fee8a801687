//! Random stars, rollups and queries: whatever is rewritten gives PostgreSQL's own answer.
//!
//! `PGSTAR_DIFFERENTIAL_QUERIES=10000` asks more queries, `PGSTAR_DIFFERENTIAL_SEED=7` other ones. A
//! difference is printed with its seed and as a ready-made case.
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;
mod rewriter_support;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use common::Database;
use pgstar_postgres::catalog::load_catalog;
use pgstar_postgres::connect::Connection;
use pgstar_rewriter::catalog::Catalog;
use pgstar_rewriter::{Context, Rollup, RollupDefinition, decide};
use rewriter_support::data::{Random, fill};
use rewriter_support::generate::{Shape, Star};
use rewriter_support::ordered::{has_limit, visible};
use rewriter_support::{
    Outcome, Rows, ask, build_rollups, difference, different_order, enter_session,
};

const QUERIES_PER_STAR: usize = 60;
const ROLLUPS_PER_STAR: usize = 5;
const TIME_ZONES: [&str; 4] = ["UTC", "Asia/Kolkata", "America/New_York", "Etc/UTC"];

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[derive(Default)]
struct Totals {
    queries: usize,
    rewritten: usize,
    compared: usize,
    refused_by_postgresql: usize,
    failed_alike: usize,
    reasons: BTreeMap<&'static str, usize>,
}

/// One star with its rows and rollups.
struct World {
    seed: u64,
    star: Star,
    client: Connection,
    catalog: Catalog,
    shapes: Vec<Shape>,
    rollups: Vec<Rollup>,
    /// The rollups' definitions, as text.
    definitions: Vec<String>,
    path: Vec<String>,
}

impl World {
    async fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let star = Star::random(&mut random);
        let database = Database::with(&star.ddl).await;
        let client = database.connect().await;
        let catalog = load_catalog(&client).await.unwrap();
        fill(&client, &catalog, &mut random).await;
        let mut world = World {
            seed,
            star,
            client,
            catalog,
            shapes: vec![],
            rollups: vec![],
            definitions: vec![],
            path: vec!["pg_catalog".to_owned(), "public".to_owned()],
        };
        world.add_rollups(&mut random);
        // Built in a session of its own, in another zone than those of most queries.
        enter_session(&world.client, &world.path, "Europe/Berlin").await;
        build_rollups(&world.client, &world.rollups).await;
        world
    }

    fn add_rollups(&mut self, random: &mut Random) {
        for _ in 0..20 {
            let shape = self.star.rollup(random);
            let sql = self.star.rollup_sql(&shape);
            let name = format!("r{}", self.rollups.len());
            let definition = RollupDefinition::parse(&name, &sql, &self.catalog, &self.path);
            if let Ok(definition) = definition {
                self.rollups.push(Rollup {
                    schema: "pgstar".to_owned(),
                    table: name,
                    definition,
                    rows: 0,
                });
                self.definitions.push(sql);
                self.shapes.push(shape);
            }
            if self.rollups.len() == ROLLUPS_PER_STAR {
                return;
            }
        }
    }

    fn case(&self, sql: &str, rollups: &[usize], time_zone: &str) -> String {
        let definitions: Vec<String> = rollups
            .iter()
            .map(|rollup| format!("rollup r{rollup}\n{}\n\n", self.definitions[*rollup]))
            .collect();
        format!(
            "-- schema\n{}-- case\n{}# Found by seed {}.\nrewrite seed-{}\nset timezone = '{time_zone}'\n{sql}\n----\n",
            self.star.ddl,
            definitions.concat(),
            self.seed,
            self.seed
        )
    }

    async fn check(&self, sql: &str, time_zone: &str, totals: &mut Totals) -> Result<(), String> {
        let context = Context {
            catalog: &self.catalog,
            rollups: &self.rollups,
            search_path: &self.path,
            time_zone,
        };
        totals.queries += 1;
        let decision = decide(sql, context);
        for reason in &decision.reasons {
            *totals.reasons.entry(reason.code.as_str()).or_default() += 1;
        }
        if decision.matches.is_empty() {
            return Ok(());
        }
        totals.rewritten += 1;
        enter_session(&self.client, &self.path, time_zone).await;
        let original = ask(&self.client, sql).await;
        match &original {
            Outcome::Refused(_) => {
                totals.refused_by_postgresql += 1;
                return Ok(());
            }
            Outcome::Failed(_) => totals.failed_alike += 1,
            Outcome::Answer(_) => {}
        }
        let rows = if has_limit(sql) {
            Rows::Count
        } else {
            Rows::AsSet
        };
        for found in &decision.matches {
            totals.compared += 1;
            let rewritten = ask(&self.client, &found.sql).await;
            if let Some(difference) = difference(&original, &rewritten, rows) {
                let case = self.case(sql, &found.rollups, time_zone);
                return Err(format!("{case}{}\n{difference}", found.sql));
            }
        }
        self.check_order(sql, context).await
    }

    async fn check_order(&self, sql: &str, context: Context<'_>) -> Result<(), String> {
        let Some(visible) = visible(sql) else {
            return Ok(());
        };
        let original = ask(&self.client, &visible.sql).await;
        for found in &decide(&visible.sql, context).matches {
            let rewritten = ask(&self.client, &found.sql).await;
            if let Some(difference) = different_order(&original, &rewritten, visible.columns) {
                let case = self.case(&visible.sql, &found.rollups, context.time_zone);
                return Err(format!("{case}{}\n{difference}", found.sql));
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_get_the_originals_answers() {
    let wanted = from_environment("PGSTAR_DIFFERENTIAL_QUERIES", 300) as usize;
    let first_seed = from_environment("PGSTAR_DIFFERENTIAL_SEED", 1);
    let mut totals = Totals::default();
    let mut differences: Vec<String> = Vec::new();
    for seed in first_seed.. {
        if totals.queries >= wanted || differences.len() >= 5 {
            break;
        }
        let world = World::new(seed).await;
        if world.rollups.is_empty() {
            continue;
        }
        let mut random = Random(seed ^ 0xface_feed);
        for _ in 0..QUERIES_PER_STAR {
            let position = random.below(world.shapes.len());
            let query = world.star.query(&world.shapes[position], &mut random);
            let sql = world.star.query_sql(&query, &mut random);
            let time_zone = *random.pick(&TIME_ZONES);
            if let Err(difference) = world.check(&sql, time_zone, &mut totals).await {
                differences.push(format!("{}\n{difference}", world.star.references()));
                break;
            }
        }
    }
    let Totals {
        queries,
        rewritten,
        compared,
        refused_by_postgresql,
        failed_alike,
        reasons,
    } = totals;
    let mut report = format!(
        "{queries} queries, {rewritten} rewritten, {compared} comparisons, {refused_by_postgresql} refused and {failed_alike} failed by PostgreSQL alike"
    );
    for (reason, count) in reasons {
        write!(report, "\n  {reason} {count}").unwrap();
    }
    println!("{report}");
    assert!(
        differences.is_empty(),
        "{report}\n\n{}",
        differences.join("\n\n")
    );
    // A generator that never hits would prove nothing.
    assert!(rewritten * 5 > queries, "{report}");
}
