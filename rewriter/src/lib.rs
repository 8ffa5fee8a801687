//! Decides whether a statement can be answered from a rollup, and proves it.
//!
//! The life of a decision:
//! 1. `wrapped` finds the query in an EXPLAIN, DECLARE or COPY; `parse` reads its text within bounds;
//!    sqlparser's tree goes no further than `normalize`.
//! 2. `normalize` resolves names against the catalog snapshot and makes a [`Query`](query::Query) of
//!    the statement: [`Block`](block::Block)s of tables, predicates, group keys and outputs beside and
//!    inside one another. Sub-selects and views are merged into the block around them where that
//!    changes nothing (`from`), and stay blocks of their own where it would.
//! 3. `plan` takes each block that aggregates tables by itself. `joins` leaves out joins that enforced
//!    keys prove to change nothing.
//! 4. `candidates` finds the rollups that may answer a block. `matching` maps the block's tables to such a
//!    rollup's (`mapping`; others are joined back) and discharges each obligation in turn; `derive`,
//!    `aggregate`, `bucket` and `zone` say how an expression follows from the rollup's columns.
//!    `edges` answers a range of time that cuts buckets: whole ones from the rollup, the rest from the base tables.
//!    `rest` does the same for rows that a rollup with a condition of its own leaves out.
//!    `left_fact` answers a dimension's left join to the fact by its left join to the rollup.
//!    `determinism` sees that what is computed from answers does not depend on their order.
//! 5. `emit` prints the whole statement: answered blocks over the rollups' tables, others as they are.
//!
//! Everything here is a pure function of (text, catalog snapshot, rollups, session settings): no
//! input or output, no clock, no locks. It never fails: what it does not understand is a [`Reason`].
#![warn(missing_docs)]

mod aggregate;
mod approximate;
mod arms;
pub mod block;
mod bucket;
mod calls;
mod candidates;
mod canonical;
pub mod catalog;
mod derive;
mod determinism;
mod disjunction;
mod edges;
mod emit;
mod equivalence;
mod exact;
pub mod expr;
pub mod fold;
mod from;
mod functions;
mod grain;
mod grouping;
mod implication;
mod joins;
mod left_fact;
mod left_joins;
mod libraries;
mod linear;
mod literal;
mod mapping;
mod matching;
mod merge;
mod names;
mod normalize;
mod outer;
mod parse;
mod place;
mod plan;
mod premise;
mod print;
mod projection;
mod proposal;
pub mod query;
mod ranges;
mod reason;
mod rest;
mod rollup;
mod rowcount;
mod scalar;
mod scope;
mod select;
mod shape;
mod stored;
mod sub_query;
mod time;
mod type_name;
mod types;
mod volatility;
mod walk;
mod window;
mod wrapped;
mod zone;

pub use approximate::Floats;
pub use libraries::zones_named;
pub use matching::Step;
pub use parse::STATEMENT_BYTES_MAX;
pub use premise::Premise;
pub use print::{quote_identifier, quote_qualified};
pub use proposal::propose;
pub use ranges::{ColumnRange, KeyRange, ParameterRange, TableRows};
pub use reason::{Code, Reason};
pub use rollup::{Rollup, RollupDefinition, Stored, StoredColumn};
pub use shape::{Known, Proven, RollupConstants, Shape, Shapes};
pub use wrapped::Wrapping;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use catalog::{Catalog, Oid};
use expr::BoundTime;
use place::Names;
use query::Query;
use wrapped::wrapped;

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
    /// The times that are bound to the statement's parameters, from `$1` on, as far as they are known. A decision that
    /// was reached without any holds whatever is bound.
    pub bound: &'a [Option<BoundTime>],
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
    /// Which rows of those tables it reads. While none of them changes, they are of the rollups' state.
    pub base_rows: Vec<TableRows>,
    /// The rows that the rollups stand for here, where base tables are read beside them. While none of them changes, the
    /// rollups are of any state in which the base tables are read.
    pub rollup_rows: Vec<TableRows>,
    /// The rewritten statement.
    pub sql: String,
    /// The query in it, where the statement is [`Wrapping`] one.
    pub query: Option<String>,
    /// The obligations and what discharged them.
    pub proof: Vec<Step>,
    /// What PostgreSQL has to say of its clocks before the match may be used.
    pub premises: BTreeSet<Premise>,
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
    /// Those tables and the views that the statement names or whose definitions stand in it, sorted.
    pub names: Vec<Oid>,
    /// What the names in the text mean: the same text with another meaning, because a view was replaced
    /// or another table has the name, has another number here.
    pub meaning: u64,
    /// Rows of the tables that do not matter, whatever becomes of them.
    pub ranges: Vec<ColumnRange>,
    /// More such rows, as far as can be said by asking.
    pub key_ranges: Vec<KeyRange>,
    /// More such rows, as far as can be said when parameters are bound.
    pub parameter_ranges: Vec<ParameterRange>,
    /// What the statement does with its query, and that query; `None` for a query by itself.
    pub wrapping: Option<(Wrapping, String)>,
}

/// Decides a statement. Never fails; an empty `matches` always comes with reasons.
pub fn decide(sql: &str, context: Context<'_>) -> Decision {
    decide_by(sql, context, &|query| planned(query, context))
}

/// The same; what was proved of another statement that differs in constants alone is not proved again, where it does not depend on
/// them.
pub fn decide_reusing(sql: &str, context: Context<'_>, shapes: &dyn Shapes) -> Decision {
    let prove = |query: &Query| planned(query, context);
    decide_by(sql, context, &|query| shape::plan(query, shapes, prove))
}

type Planner<'a> = &'a dyn Fn(&Query) -> Result<plan::Plan, Reason>;

fn decide_by(sql: &str, context: Context<'_>, plan: Planner<'_>) -> Decision {
    let Some(wrapped) = wrapped(sql) else {
        return decide_query(sql, context, plan);
    };
    let decision = decide_query(wrapped.query, context, plan);
    let around = |found: Match| Match {
        sql: [wrapped.before, &found.sql, wrapped.after].concat(),
        query: Some(found.sql),
        ..found
    };
    Decision {
        matches: decision.matches.into_iter().map(around).collect(),
        is_plain_select: decision.is_plain_select && wrapped.wrapping == Wrapping::Explain,
        // A plan is not an answer, and a cursor is not one either.
        depends_on_clock: true,
        wrapping: Some((wrapped.wrapping, wrapped.query.to_owned())),
        ..decision
    }
}

/// Never the same in another version of Rust: it is not to be kept beyond the process.
fn meaning(query: &query::Query) -> u64 {
    let mut hasher = DefaultHasher::new();
    query.hash(&mut hasher);
    hasher.finish()
}

/// The statement's plan; where aggregations over UNION ALL can be taken apart and some arm is answered, that one.
fn planned(query: &Query, context: Context<'_>) -> Result<plan::Plan, Reason> {
    let apart = arms::taken_apart(query, context.catalog)
        .and_then(|apart| plan::plan(&apart, context).ok())
        .filter(|plan| !plan.matches.is_empty());
    match apart {
        Some(plan) => Ok(plan),
        None => plan::plan(query, context),
    }
}

fn decide_query(sql: &str, context: Context<'_>, plan: Planner<'_>) -> Decision {
    let names = Names {
        catalog: context.catalog,
        search_path: context.search_path,
        bound: context.bound,
    };
    let query = match parse::parse_query(sql).and_then(|query| normalize::normalize(&query, names))
    {
        Ok(query) => query,
        Err(reason) => {
            return Decision {
                reasons: vec![reason],
                ..Decision::default()
            };
        }
    };
    let (matches, mut reasons) = match plan(&query) {
        Ok(plan) => (plan.matches, plan.reasons),
        Err(reason) => (vec![], vec![reason]),
    };
    if context.rollups.is_empty() {
        reasons.push(Reason::new(Code::NoRollups, ""));
    }
    Decision {
        matches,
        reasons,
        is_plain_select: true,
        depends_on_clock: plan::depends_on_clock(&query, context.catalog),
        reads: query.relations(),
        names: query.names(),
        meaning: meaning(&query),
        ranges: ranges::ranges(&query, context.catalog, context.time_zone),
        key_ranges: ranges::key_ranges(&query, context.catalog, context.time_zone),
        parameter_ranges: ranges::parameter_ranges(&query, context.catalog),
        wrapping: None,
    }
}
