//! Decides whether a statement can be answered from a rollup, and proves it.
//!
//! The life of a decision:
//! 1. `parse` reads the text within bounds; sqlparser's tree goes no further than `normalize`.
//! 2. `normalize` resolves names against the catalog snapshot and reduces the SELECT to a
//!    [`Block`](block::Block): tables, predicates, group keys, outputs. Sub-selects are merged.
//! 3. `joins` leaves out joins that enforced keys prove to change nothing.
//! 4. `matching` maps the query's tables to a rollup's and discharges each obligation in turn;
//!    `derive`, `aggregate` and `time` say how an expression follows from the rollup's columns.
//! 5. `emit` prints the statement over the rollup's table.
//!
//! Everything here is a pure function of (text, catalog snapshot, rollups, session settings): no
//! input or output, no clock, no locks. It never fails: what it does not understand is a [`Reason`].
#![warn(missing_docs)]

mod aggregate;
pub mod block;
mod bucket;
pub mod catalog;
mod derive;
mod emit;
mod equivalence;
mod exact;
pub mod expr;
pub mod fold;
mod from;
mod functions;
mod grain;
mod implication;
mod joins;
mod left_joins;
mod matching;
mod names;
mod normalize;
mod outer;
mod parse;
mod print;
mod reason;
mod rollup;
mod scalar;
mod scope;
mod select;
mod stored;
mod time;
mod types;
mod volatility;

pub use matching::Step;
pub use parse::STATEMENT_BYTES_MAX;
pub use print::{quote_identifier, quote_qualified};
pub use reason::{Code, Reason};
pub use rollup::{Rollup, RollupDefinition, Stored, StoredColumn};

use block::{Block, Tables};
use catalog::{Catalog, Oid};
use from::Names;
use functions::Volatility;
use matching::{Derived, Matcher};

/// What a decision depends on beside the text.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The catalog snapshot.
    pub catalog: &'a Catalog,
    /// The rollups whose tables exist.
    pub rollups: &'a [Rollup],
    /// The schemas that unqualified names are looked up in, first one first.
    pub search_path: &'a [String],
    /// The session's `TimeZone`.
    pub time_zone: &'a str,
}

/// The rollups that answer the statement, and the statement to send instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The positions in [`Context::rollups`] of all rollups that the rewritten statement reads; never
    /// empty, without repetition, the one that answers the most first. They have to be of one state.
    pub rollups: Vec<usize>,
    /// The base tables whose rows the rewritten statement reads beside the rollups (not those that it
    /// names for privileges only). They have to be of the rollups' state as well.
    pub base_reads: Vec<Oid>,
    /// The rewritten statement.
    pub sql: String,
    /// The obligations and what discharged them.
    pub proof: Vec<Step>,
}

/// Whether and how a statement can be answered from rollups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Every rollup that answers it, the cheapest first.
    pub matches: Vec<Match>,
    /// Why the statement, or each rollup that does not answer it, is out of reach; the nearest rollup first.
    pub reasons: Vec<Reason>,
    /// The statement is a SELECT of known built-in functions, so running it changes nothing of the session.
    pub is_plain_select: bool,
    /// The answer depends on the current time, so it must not be kept.
    pub depends_on_clock: bool,
    /// Every base table that the statement reads, sorted: while none of them changes, neither does the
    /// answer. Empty when the statement was not understood.
    pub reads: Vec<Oid>,
}

/// Decides a statement. Never fails; an empty `matches` always comes with reasons.
pub fn decide(sql: &str, context: Context<'_>) -> Decision {
    let names = Names {
        catalog: context.catalog,
        search_path: context.search_path,
    };
    let block = match parse::parse_query(sql).and_then(|query| normalize::normalize(&query, names))
    {
        Ok(block) => block,
        Err(reason) => {
            return Decision {
                reasons: vec![reason],
                ..Decision::default()
            };
        }
    };
    let mut decision = match_all(&block, context);
    decision.is_plain_select = true;
    decision.depends_on_clock = depends_on_clock(&block, context.catalog);
    decision.reads = relations(&block);
    if context.rollups.is_empty() {
        decision.reasons.push(Reason::new(Code::NoRollups, ""));
    }
    decision
}

fn match_all(query: &Block, context: Context<'_>) -> Decision {
    let matcher = Matcher {
        catalog: context.catalog,
        is_utc: is_utc(context.time_zone),
    };
    let reduced = joins::without_redundant_joins(query.clone(), context.catalog);
    // A rollup may have the left join as written, or the inner join that it amounts to.
    let with_inner_joins = outer::with_rejected_nulls_inner(&reduced)
        .map(|block| joins::without_redundant_joins(block, context.catalog));
    let mut decision = Decision::default();
    for (position, rollup) in context.rollups.iter().enumerate() {
        let derived = matcher.derive(&reduced, &rollup.definition);
        let derived = match (derived, &with_inner_joins) {
            (Err(reason), Some(block)) => matcher
                .derive(block, &rollup.definition)
                .map_err(|_| reason),
            (derived, _) => derived,
        };
        match derived {
            Ok(Derived { block, proof }) => {
                let sql = emit::statement(&block, rollup, query, context.catalog);
                decision.matches.push(Match {
                    rollups: vec![position],
                    base_reads: vec![],
                    sql,
                    proof,
                });
            }
            Err(reason) => decision
                .reasons
                .push(reason.of_rollup(&rollup.definition.name)),
        }
    }
    let rows = |position: &usize| {
        context
            .rollups
            .get(*position)
            .map_or(0, |rollup| rollup.rows)
    };
    decision
        .matches
        .sort_by_key(|found| found.rollups.iter().map(rows).sum::<u64>());
    decision
        .reasons
        .sort_by_key(|reason| std::cmp::Reverse(reason.code.obligations_met()));
    decision
}

fn relations(block: &Block) -> Vec<Oid> {
    let occurrences = block.occurrences.iter();
    let mut relations: Vec<Oid> = occurrences.map(|occurrence| occurrence.relation).collect();
    relations.sort();
    relations.dedup();
    relations
}

/// Zones that have had no offset at any time.
pub(crate) fn is_utc(time_zone: &str) -> bool {
    matches!(
        time_zone,
        "UTC"
            | "Etc/UTC"
            | "GMT"
            | "Etc/GMT"
            | "UCT"
            | "Etc/UCT"
            | "Zulu"
            | "Etc/Zulu"
            | "Universal"
            | "Etc/Universal"
    )
}

fn depends_on_clock(block: &Block, catalog: &Catalog) -> bool {
    let tables = Tables {
        occurrences: &block.occurrences,
        catalog,
    };
    block
        .scalars()
        .chain(block.left_conditions())
        .any(|scalar| volatility::volatility(scalar, &tables) == Volatility::Clock)
}
