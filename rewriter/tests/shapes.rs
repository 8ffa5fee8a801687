//! What was proved of a statement holds for others that differ in constants, and is what would be proved of them.
#![allow(clippy::unwrap_used)] // A panic is how a test fails.

#[allow(dead_code)] // Not every test binary needs every helper.
mod harness;

use harness::memory::Memory;
use harness::{CaseFile, Entry, Kind, case_files, ddl, default_search_path, rollup_of, schema_sql};
use pgstar_rewriter::catalog::Catalog;
use pgstar_rewriter::{Decision, Match, Rollup, RollupDefinition, decide_reusing};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, Tokenizer};

/// One schema with its rollups.
struct World {
    catalog: Catalog,
    rollups: Vec<Rollup>,
}

impl World {
    fn of(file: &CaseFile) -> World {
        let catalog = ddl::catalog(&schema_sql(&file.schema));
        let rollups = file.rollups(&catalog);
        World { catalog, rollups }
    }

    fn memory(&self) -> Memory {
        Memory::of(&self.rollups)
    }

    /// The decision on the case with this text instead, and whether it was made by what is known of its shape.
    fn decide(&self, entry: &Entry, sql: &str, memory: &Memory) -> (Decision, bool) {
        let before = memory.reused.get();
        let decision = entry.decide_by(&self.catalog, &self.rollups, &|context| {
            decide_reusing(sql, context, memory)
        });
        (decision, memory.reused.get() > before)
    }

    /// Whether a second statement is decided by what was proved of the first; with the outcome checked.
    fn is_reused(&self, entry: &Entry, first: &str, second: &str) -> bool {
        let memory = self.memory();
        for _ in 0..2 {
            self.decide(entry, first, &memory);
        }
        let (reused, is_reused) = self.decide(entry, second, &memory);
        let (anew, _) = self.decide(entry, second, &self.memory());
        let matches = |decision: &Decision| -> Vec<Match> {
            decision.matches.iter().map(without_proof).collect()
        };
        assert_eq!(matches(&reused), matches(&anew), "{first}\n{second}");
        let said = format!("{:?} {:?}", reused.matches, reused.reasons);
        assert!(!said.contains("\\0"), "{said}");
        let details = |decision: &Decision| {
            let others = (
                decision.reads.clone(),
                decision.ranges.clone(),
                decision.key_ranges.clone(),
                decision.meaning,
            );
            format!("{:?} {others:?}", decision.reasons)
        };
        assert_eq!(details(&reused), details(&anew), "{second}");
        is_reused
    }
}

fn without_proof(found: &Match) -> Match {
    Match {
        proof: vec![],
        ..found.clone()
    }
}

/// The text with another constant behind each comparison and LIMIT; times stay.
fn with_other_constants(sql: &str) -> String {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize()
        .unwrap();
    let mut is_compared = false;
    let other = |token: Token, is_compared: &mut bool| {
        let was_compared = std::mem::replace(is_compared, false);
        match token {
            Token::Eq | Token::Neq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq => {
                *is_compared = true;
                token
            }
            Token::Whitespace(_) => {
                *is_compared = was_compared;
                token
            }
            Token::Word(ref word) if word.value.eq_ignore_ascii_case("limit") => {
                *is_compared = true;
                token
            }
            Token::SingleQuotedString(text) if was_compared && !text.contains(['-', ':']) => {
                Token::SingleQuotedString(text + "x")
            }
            Token::Number(digits, long) if was_compared => {
                let next = digits
                    .parse::<i32>()
                    .ok()
                    .and_then(|number| number.checked_add(1));
                Token::Number(next.map_or(digits, |number| number.to_string()), long)
            }
            other => other,
        }
    };
    let tokens = tokens.into_iter();
    tokens
        .map(|token| other(token, &mut is_compared).to_string())
        .collect()
}

#[test]
fn other_constants_are_decided_as_if_anew() {
    let (mut tried, mut reused) = (0, 0);
    for file in case_files() {
        let world = World::of(&file);
        let entries = file.entries();
        for entry in entries.filter(|entry| entry.kind == Kind::Rewrite) {
            let other = with_other_constants(&entry.sql);
            if other != entry.sql {
                tried += 1;
                reused += usize::from(world.is_reused(entry, &entry.sql, &other));
            }
        }
    }
    println!("{reused} of {tried} rewritten cases with other constants by the same proof");
    assert!(reused * 3 > tried, "{reused} of {tried}");
}

#[test]
fn what_a_proof_may_depend_on_is_part_of_the_shape() {
    let definition =
        "SELECT channel, discount, date_trunc('day', ordered_at) AS day, count(*), sum(cost),
        sum(cost) FILTER (WHERE note = 'kept') FROM orders GROUP BY 1, 2, 3";
    let catalog = ddl::catalog(&schema_sql("sales"));
    let path = default_search_path();
    let definition = RollupDefinition::parse("by_channel", definition, &catalog, &path);
    let rollups = vec![rollup_of(definition.unwrap())];
    let world = World { catalog, rollups };
    let session = Entry {
        kind: Kind::Rewrite,
        name: String::new(),
        comment: String::new(),
        settings: vec![],
        sql: String::new(),
        expected: String::new(),
    };
    let is_reused = |first: &str, second: &str| {
        let sql = |rest: &str| format!("SELECT channel, sum(cost) FROM orders {rest}");
        world.is_reused(&session, &sql(first), &sql(second))
    };
    for (first, second) in [
        (
            "WHERE discount = 7 GROUP BY 1",
            "WHERE discount = 8 GROUP BY 1",
        ),
        (
            "WHERE discount IN (7, 8) GROUP BY 1 LIMIT 10",
            "WHERE discount IN (9, 10) GROUP BY 1 LIMIT 20",
        ),
        (
            "WHERE channel = 'web' GROUP BY 1",
            "WHERE channel = 'it''s $1 \\' GROUP BY 1",
        ),
        (
            "WHERE channel = 'web' AND ordered_at >= '2024-01-01' GROUP BY 1",
            "WHERE channel = 'store' AND ordered_at >= '2024-01-01' GROUP BY 1",
        ),
    ] {
        assert!(is_reused(first, second), "{first}\n{second}");
    }
    for (first, second) in [
        // More of them, of another type, alike or not.
        (
            "WHERE discount IN (7, 8) GROUP BY 1",
            "WHERE discount IN (7, 8, 9) GROUP BY 1",
        ),
        (
            "WHERE discount = 7 GROUP BY 1",
            "WHERE discount = 3000000000 GROUP BY 1",
        ),
        (
            "WHERE discount = 7 GROUP BY 1",
            "WHERE discount = '8' GROUP BY 1",
        ),
        (
            "WHERE discount > 7 OR channel = '7' AND discount < 8 GROUP BY 1",
            "WHERE discount > 7 OR channel = '7' AND discount < 7 GROUP BY 1",
        ),
        // Times, and what the rollup names.
        (
            "WHERE ordered_at >= '2024-01-01' GROUP BY 1",
            "WHERE ordered_at >= '2024-01-02' GROUP BY 1",
        ),
        (
            "WHERE channel = 'web' GROUP BY 1",
            "WHERE channel = 'kept' GROUP BY 1",
        ),
        (
            "WHERE channel = 'web' GROUP BY 1, 'day'",
            "WHERE channel = $1 GROUP BY 1",
        ),
    ] {
        assert!(!is_reused(first, second), "{first}\n{second}");
    }
}
