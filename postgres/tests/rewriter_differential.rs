//! Random stars, rollups and queries: whatever is rewritten gives PostgreSQL's own answer, in the state that the rollups
//! were built in and in others that they cannot tell from it.
//!
//! `PGSTAR_DIFFERENTIAL_QUERIES=10000` asks more queries, `PGSTAR_DIFFERENTIAL_SEED=7` other ones; `make differential`
//! does both. A difference is printed with the seed of its star and as a ready-made case, made as small as it can be.
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

mod common;
#[path = "../../rewriter/tests/harness/memory.rs"]
mod memory;
mod rewriter_support;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use common::Database;
use memory::Memory;
use pgstar_postgres::catalog::load_catalog;
use pgstar_postgres::connect::Connection;
use pgstar_rewriter::catalog::Catalog;
use pgstar_rewriter::{Context, Decision, Floats, Match, Rollup, RollupDefinition, decide_reusing};
use rewriter_support::data::{Random, fill};
use rewriter_support::generate::{Shape, Star, Written};
use rewriter_support::neighbours::wander;
use rewriter_support::ordered::{has_limit, visible};
use rewriter_support::{
    Outcome, ask_with, build_rollups, difference, different_order, enter_session, is_approximate,
    premises_hold, rows_of,
};

const ROLLUPS_PER_STAR: usize = 5;
const TIME_ZONES: [&str; 12] = [
    "UTC",
    "UTC",
    "Etc/UTC",
    "Asia/Kolkata",
    "America/New_York",
    "Australia/Lord_Howe",
    // Clocks that change at a minute past midnight, at midnight, by a day; and one of letters only.
    "America/St_Johns",
    "Africa/Cairo",
    "America/Santiago",
    "Pacific/Apia",
    "Europe/Dublin",
    "Japan",
];
/// How many queries of a rollup are asked again in each state that it cannot tell from its own.
const ASKED_AGAIN: usize = 12;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[derive(Default)]
struct Totals {
    stars: usize,
    queries: usize,
    rewritten: usize,
    /// Of these, how many by what was proved of others that differ in constants alone.
    reused: usize,
    compared: usize,
    refused_by_postgresql: usize,
    failed_alike: usize,
    rollups: usize,
    own_definitions: usize,
    states: usize,
    changes: usize,
    compared_elsewhere: usize,
    reasons: BTreeMap<&'static str, usize>,
}

/// A query as it was asked.
#[derive(Clone)]
struct Query {
    shape: Shape,
    style: u64,
    written: Written,
    time_zone: &'static str,
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
    definitions: Vec<(Floats, String)>,
    path: Vec<String>,
    /// By rollup: queries that it alone answers, with their matches.
    answered: Vec<Vec<(Query, Match)>>,
    /// What is known of statements' shapes, by time zone.
    known: HashMap<&'static str, Memory>,
}

impl World {
    async fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let mut star = Star::random(&mut random);
        let database = Database::with(&star.ddl).await;
        let client = database.connect().await;
        if random.chance(25) && has_citext(&client).await {
            enter_session(&client, &["public".to_owned()], "UTC").await;
            client.batch_execute(&star.add_citext()).await.unwrap();
        }
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
            answered: vec![],
            known: HashMap::new(),
        };
        // Built in a session of its own, in another zone than those of most queries.
        enter_session(&world.client, &world.path, "Europe/Berlin").await;
        world.add_rollups(&mut random).await;
        build_rollups(&world.client, &world.rollups).await;
        world.known = TIME_ZONES
            .map(|zone| (zone, Memory::of(&world.rollups)))
            .into();
        world
    }

    async fn add_rollups(&mut self, random: &mut Random) {
        for _ in 0..30 {
            let shape = self.star.rollup(random);
            let sql = self.star.rollup_sql(&shape);
            let name = format!("r{}", self.rollups.len());
            let floats = match random.chance(50) {
                true => Floats::Approximate,
                false => Floats::Refused,
            };
            let definition =
                RollupDefinition::parse_with(&name, &sql, floats, &self.catalog, &self.path);
            let Ok(definition) = definition else {
                continue;
            };
            // What cannot be built, because a sum overflows for instance, is no rollup.
            if self
                .client
                .batch_execute(&definition.build_select)
                .await
                .is_err()
            {
                continue;
            }
            self.rollups.push(Rollup {
                schema: "pgstar".to_owned(),
                table: name,
                definition,
                rows: 0,
            });
            self.definitions.push((floats, sql));
            self.shapes.push(shape);
            self.answered.push(vec![]);
            if self.rollups.len() == ROLLUPS_PER_STAR {
                return;
            }
        }
    }

    fn decide(&self, sql: &str, time_zone: &str) -> Decision {
        let context = Context {
            catalog: &self.catalog,
            rollups: &self.rollups,
            search_path: &self.path,
            time_zone,
            bound: &[],
        };
        decide_reusing(sql, context, &self.known[time_zone])
    }

    /// A query derived from one of the rollups, in the session that asks it, and the same about other constants.
    async fn ask_one(&mut self, random: &mut Random, totals: &mut Totals) -> Result<(), String> {
        let shape = self.star.query(random.pick(&self.shapes), random);
        let style = random.next();
        let query = Query {
            written: self.star.query_sql(&shape, style),
            shape,
            style,
            time_zone: random.pick::<&str>(&TIME_ZONES),
        };
        totals.queries += 1;
        if !self.is_answered(&query, totals).await? {
            return Ok(());
        }
        totals.rewritten += 1;
        for _ in 0..2 {
            let written = query.written.with_other_constants(random);
            let query = Query {
                written,
                ..query.clone()
            };
            let known = &self.known[query.time_zone].reused;
            let before = known.get();
            self.is_answered(&query, totals).await?;
            totals.reused += usize::from(self.known[query.time_zone].reused.get() > before);
        }
        Ok(())
    }

    /// Whether rollups answer the query, and as PostgreSQL does.
    async fn is_answered(&mut self, query: &Query, totals: &mut Totals) -> Result<bool, String> {
        let decision = self.decide(&query.written.sql, query.time_zone);
        for reason in &decision.reasons {
            *totals.reasons.entry(reason.code.as_str()).or_default() += 1;
        }
        if decision.matches.is_empty() {
            return Ok(false);
        }
        if let Some(found) = self
            .differing(&query.written, query.time_zone, totals)
            .await
        {
            return Err(self.smallest(query, found).await);
        }
        for found in &decision.matches {
            let [rollup] = found.rollups[..] else {
                continue;
            };
            let is_usable = premises_hold(&self.client, found).await;
            if is_usable && self.answered[rollup].len() < ASKED_AGAIN {
                self.answered[rollup].push((query.clone(), found.clone()));
            }
        }
        Ok(true)
    }

    /// How some rewritten form differs from the original, with the rollups it reads.
    async fn differing(
        &self,
        written: &Written,
        time_zone: &str,
        totals: &mut Totals,
    ) -> Option<Difference> {
        enter_session(&self.client, &self.path, time_zone).await;
        let (sql, parameters) = (&written.sql, &written.parameters);
        let original = ask_with(&self.client, sql, parameters).await;
        match &original {
            Outcome::Refused(_) => {
                totals.refused_by_postgresql += 1;
                return None;
            }
            Outcome::Failed(_) => totals.failed_alike += 1,
            Outcome::Answer(_) => {}
        }
        for found in &self.decide(sql, time_zone).matches {
            if !premises_hold(&self.client, found).await {
                continue;
            }
            totals.compared += 1;
            let rewritten = ask_with(&self.client, &found.sql, parameters).await;
            if has_other_parameters(&original, &rewritten) {
                continue;
            }
            if let Some(what) = compared(written, found, &original, &rewritten) {
                return Some(Difference {
                    rollups: found.rollups.clone(),
                    rewritten: found.sql.clone(),
                    what,
                });
            }
        }
        self.differing_order(written, time_zone).await
    }

    async fn differing_order(&self, written: &Written, time_zone: &str) -> Option<Difference> {
        let parameters = &written.parameters;
        let visible = visible(&written.sql)?;
        let original = ask_with(&self.client, &visible.sql, parameters).await;
        for found in &self.decide(&visible.sql, time_zone).matches {
            if is_approximate(found) || !premises_hold(&self.client, found).await {
                continue;
            }
            let rewritten = ask_with(&self.client, &found.sql, parameters).await;
            if has_other_parameters(&original, &rewritten) {
                continue;
            }
            if let Some(what) = different_order(&original, &rewritten, visible.columns) {
                return Some(Difference {
                    rollups: found.rollups.clone(),
                    rewritten: found.sql.clone(),
                    what,
                });
            }
        }
        None
    }

    /// The difference of the smallest query near this one that still has any, as a case.
    async fn smallest(&self, query: &Query, mut found: Difference) -> String {
        let (mut shape, mut written) = (query.shape.clone(), query.written.clone());
        'smaller: loop {
            for candidate in shape.smaller() {
                if candidate.is_empty() {
                    continue;
                }
                let less = self.star.query_sql(&candidate, query.style);
                if let Some(other) = self
                    .differing(&less, query.time_zone, &mut Totals::default())
                    .await
                {
                    (shape, written, found) = (candidate, less, other);
                    continue 'smaller;
                }
            }
            return self.case(&written, &found, query.time_zone);
        }
    }

    fn case(&self, written: &Written, found: &Difference, time_zone: &str) -> String {
        let Written {
            sql, parameters, ..
        } = written;
        let definition = |rollup: &usize| {
            let (floats, sql) = &self.definitions[*rollup];
            let approximate = match floats {
                Floats::Approximate => " approximate",
                Floats::Refused => "",
            };
            format!("rollup r{rollup}{approximate}\n{sql}\n\n")
        };
        let definitions: String = found.rollups.iter().map(definition).collect();
        let (seed, star) = (self.seed, &self.star);
        format!(
            "{}\n-- schema\n{}-- case\n{definitions}# Found by seed {seed}, with {parameters:?}.\nrewrite seed-{seed}\nset timezone = '{time_zone}'\n{sql}\n----\n{}\n{}",
            star.references(),
            star.ddl,
            found.rewritten,
            found.what
        )
    }

    /// Every rollup answers its own definition.
    async fn ask_definitions(&self, totals: &mut Totals) -> Result<(), String> {
        for (position, (_, sql)) in self.definitions.iter().enumerate() {
            totals.own_definitions += 1;
            let decision = self.decide(sql, "UTC");
            if !decision
                .matches
                .iter()
                .any(|found| found.rollups == [position])
            {
                return Err(format!(
                    "seed {}: r{position} does not answer its own definition: {:?}\n{sql}\n{}",
                    self.seed, decision.reasons, self.star.ddl
                ));
            }
            let written = Written::of(sql.clone());
            if let Some(found) = self.differing(&written, "UTC", totals).await {
                return Err(self.case(&written, &found, "UTC"));
            }
        }
        Ok(())
    }

    /// The answered queries once more, in a state that their rollup cannot tell from the one it was built in.
    async fn ask_elsewhere(&self, random: &mut Random, totals: &mut Totals) -> Result<(), String> {
        for (rollup, answered) in self
            .answered
            .iter()
            .enumerate()
            .filter(|(_, answered)| !answered.is_empty())
        {
            enter_session(&self.client, &self.path, "Europe/Berlin").await;
            self.client.batch_execute("BEGIN").await.unwrap();
            totals.changes += wander(
                &self.client,
                &self.star,
                &self.shapes[rollup],
                &self.rollups[rollup],
                random,
            )
            .await;
            totals.states += 1;
            let mut result = Ok(());
            for (query, found) in answered {
                enter_session(&self.client, &self.path, query.time_zone).await;
                let parameters = &query.written.parameters;
                let original = self.ask_within(&query.written.sql, parameters).await;
                let answer = self.ask_within(&found.sql, parameters).await;
                if has_other_parameters(&original, &answer) {
                    continue;
                }
                totals.compared_elsewhere += 1;
                if let Some(what) = compared(&query.written, found, &original, &answer) {
                    let found = Difference {
                        rollups: vec![rollup],
                        rewritten: found.sql.clone(),
                        what,
                    };
                    result = Err(format!(
                        "IN ANOTHER STATE OF THE SAME ROLLUP\n{}",
                        self.case(&query.written, &found, query.time_zone)
                    ));
                    break;
                }
            }
            self.client.batch_execute("ROLLBACK").await.unwrap();
            result?;
        }
        Ok(())
    }

    /// Asks inside the open transaction, which an error must not end.
    async fn ask_within(&self, sql: &str, parameters: &[String]) -> Outcome {
        self.client.batch_execute("SAVEPOINT asking").await.unwrap();
        let outcome = ask_with(&self.client, sql, parameters).await;
        self.client
            .batch_execute("ROLLBACK TO asking; RELEASE asking")
            .await
            .unwrap();
        outcome
    }
}

struct Difference {
    rollups: Vec<usize>,
    rewritten: String,
    what: String,
}

/// Whether the server has the extension whose texts are equal in any case.
async fn has_citext(client: &Connection) -> bool {
    let sql = "SELECT FROM pg_available_extensions WHERE name = 'citext'";
    client.query_opt(sql, &[]).await.unwrap().is_some()
}

/// Whether a parameter is gone or of another type: such a match is never used.
fn has_other_parameters(original: &Outcome, rewritten: &Outcome) -> bool {
    match (original, rewritten) {
        (Outcome::Answer(original), Outcome::Answer(rewritten)) => {
            original.types != rewritten.types
        }
        _ => false,
    }
}

/// What differs, as far as the statement leaves no choice.
fn compared(
    written: &Written,
    found: &Match,
    original: &Outcome,
    rewritten: &Outcome,
) -> Option<String> {
    let has_choice = has_limit(&written.sql) && (!written.is_total || is_approximate(found));
    difference(original, rewritten, rows_of(found, has_choice)).or_else(|| {
        // What nearly differs may come before or after.
        if written.is_total && !is_approximate(found) {
            different_order(original, rewritten, 0)
        } else {
            None
        }
    })
}

/// One star from beginning to end.
async fn explore(seed: u64, queries: usize, totals: &mut Totals) -> Result<(), String> {
    let mut world = World::new(seed).await;
    if world.rollups.is_empty() {
        return Ok(());
    }
    totals.stars += 1;
    totals.rollups += world.rollups.len();
    let mut random = Random(seed ^ 0xface_feed);
    world.ask_definitions(totals).await?;
    for _ in 0..queries {
        world.ask_one(&mut random, totals).await?;
    }
    world.ask_elsewhere(&mut random, totals).await
}

fn report(totals: &Totals) -> String {
    let Totals {
        stars,
        queries,
        rewritten,
        reused,
        compared,
        refused_by_postgresql,
        failed_alike,
        rollups,
        own_definitions,
        states,
        changes,
        compared_elsewhere,
        reasons,
    } = totals;
    let mut text = format!(
        "{stars} stars, {rollups} rollups, {own_definitions} own definitions answered\n\
         {queries} queries, {rewritten} rewritten, {reused} of them with other constants by the same proof, {compared} comparisons, {refused_by_postgresql} refused and {failed_alike} failed by PostgreSQL alike\n\
         {states} states that a rollup cannot tell from its own, {changes} changes, {compared_elsewhere} comparisons there"
    );
    for (reason, count) in reasons {
        write!(text, "\n  {reason} {count}").unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn random_queries_get_the_originals_answers() {
    let wanted = from_environment("PGSTAR_DIFFERENTIAL_QUERIES", 400) as usize;
    let per_star = from_environment("PGSTAR_DIFFERENTIAL_PER_STAR", 50) as usize;
    let first_seed = from_environment("PGSTAR_DIFFERENTIAL_SEED", 1);
    let mut totals = Totals::default();
    let mut differences: Vec<String> = Vec::new();
    for seed in first_seed.. {
        if totals.queries >= wanted || differences.len() >= 5 {
            break;
        }
        if let Err(difference) = explore(seed, per_star, &mut totals).await {
            println!("{difference}\n");
            differences.push(difference);
        }
    }
    let report = report(&totals);
    println!("{report}");
    assert!(
        differences.is_empty(),
        "{report}\n\n{}",
        differences.join("\n\n")
    );
    // A generator that never hits would prove nothing.
    assert!(totals.rewritten * 8 > totals.queries, "{report}");
    assert!(totals.reused * 20 > totals.rewritten, "{report}");
    assert!(totals.changes > totals.states, "{report}");
}
