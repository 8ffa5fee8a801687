//! Every rollup that is proposed for a refused statement answers it, and near misses have one.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

#[allow(dead_code)] // The cases need the rest of it.
mod harness;

use std::collections::BTreeMap;

use harness::{Kind, case_files, default_search_path, rollup_of};
use pgstar_rewriter::{Context, RollupDefinition, decide, propose};

/// Codes that say what a rollup lacks, and not what no rollup can have.
const LACKS: [&str; 3] = ["join-not-removable", "dimension-missing", "measure-missing"];

#[test]
fn a_rollup_that_is_proposed_answers_the_statement_it_is_proposed_for() {
    let mut told = String::new();
    let mut proposed: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for file in case_files() {
        let catalog = harness::ddl::catalog(&harness::schema_sql(&file.schema));
        let rollups = file.rollups(&catalog);
        for entry in file
            .entries()
            .filter(|entry| entry.kind == Kind::Passthrough)
        {
            let (path, zone, bound) = (entry.search_path(), entry.time_zone(), entry.bound());
            let context = |rollups| Context {
                catalog: &catalog,
                rollups,
                search_path: &path,
                time_zone: &zone,
                bound: &bound,
            };
            let decision = decide(&entry.sql, context(&rollups));
            let lacking = decision.reasons.iter();
            let lacking = lacking.filter(|reason| reason.rollup.is_some());
            let code = lacking
                .map(|reason| reason.code.as_str())
                .find(|code| LACKS.contains(code));
            let proposal = propose(&entry.sql, context(&rollups));
            if let Some(code) = code {
                let counts = proposed.entry(code).or_default();
                counts.0 += 1;
                counts.1 += usize::from(proposal.is_some());
            }
            let Some(proposal) = proposal else {
                if let Some(code) = code {
                    told += &format!("{}: {code}: {}\n", entry.name, entry.sql);
                }
                continue;
            };
            // As somebody would declare it, beside those that are there.
            let definition =
                RollupDefinition::parse("pasted", &proposal, &catalog, &default_search_path());
            let definition =
                definition.unwrap_or_else(|why| panic!("{}: {proposal}: {why}", entry.name));
            let mut rollups = rollups.clone();
            rollups.push(rollup_of(definition));
            let decision = decide(&entry.sql, context(&rollups));
            let mut matches = decision.matches.iter();
            let pasted = rollups.len() - 1;
            assert!(
                matches.any(|found| found.rollups.contains(&pasted)),
                "{}: {proposal}: {:?}",
                entry.name,
                decision.reasons
            );
        }
    }
    println!("{proposed:?}");
    // The others are refused whatever a rollup has: sums of floats, say, or what may raise an error.
    let counts = proposed.values();
    let (lacking, with) = counts.fold((0, 0), |sum, own| (sum.0 + own.0, sum.1 + own.1));
    assert!(
        with * 10 >= lacking * 8,
        "{with} of {lacking} have a proposal:\n{told}"
    );
}
