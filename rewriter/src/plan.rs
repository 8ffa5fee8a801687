//! Which blocks of a statement are answered from which rollups.
//!
//! Each block that aggregates base tables is matched by itself. Those that no rollup answers stay as
//! they are, beside those that one answers.

use std::cell::{OnceCell, RefCell};
use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::block::{Block, Occurrence};
use crate::candidates::{Candidates, MATCHES_MAX, REASONS_MAX};
use crate::catalog::{Catalog, Oid};
use crate::determinism::{block_in_any_order, reads_sub_selects, set_operation_in_any_order};
use crate::edges::{self, Covered, Edges};
use crate::emit::{Emitter, Replacement};
use crate::functions::Volatility;
use crate::joins::without_redundant_joins;
use crate::matching::{Derived, Matcher, Step};
use crate::outer::with_rejected_nulls_inner;
use crate::premise::Premise;
use crate::query::{Body, Query};
use crate::ranges::{self, Spans, TableRows};
use crate::reason::{Code, Reason};
use crate::rest;
use crate::rollup::RollupDefinition;
use crate::volatility::volatility;
use crate::zone::Zone;
use crate::{Context, Match};

/// A block that aggregates base tables.
struct Site<'q> {
    block: &'q Block,
    /// The rollups that answer it, the cheapest first.
    alternatives: Vec<Alternative>,
    /// Why the other rollups do not.
    reasons: Vec<Reason>,
    /// The rows of base tables that it is about, once asked.
    rows: OnceCell<Vec<TableRows>>,
}

struct Alternative {
    rollup: usize,
    block: Block,
    /// The block is over these.
    parts: Option<Parts>,
    proof: Vec<Step>,
    premises: BTreeSet<Premise>,
}

/// What a block is answered from in parts.
struct Parts {
    /// The part that the rollup answers.
    middle: Block,
    /// The times of the rows in it.
    middle_times: Spans,
    /// That part over the rollup's table.
    derived: Block,
    edges: Edges,
}

/// What can be said of a statement.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Every statement that may run instead, the cheapest first.
    pub(crate) matches: Vec<Match>,
    /// What is in the way, the nearest rollup first.
    pub(crate) reasons: Vec<Reason>,
}

/// Matches every block of the statement with every rollup.
pub(crate) fn plan(query: &Query, context: Context<'_>) -> Result<Plan, Reason> {
    let blocks = query.blocks();
    let mut sites: Vec<Site<'_>> = vec![];
    for block in blocks.iter().copied().filter(|block| is_site(block)) {
        if !sites.iter().any(|site| site.block == block) {
            sites.push(site(block, context));
        }
    }
    if sites.is_empty() {
        let reads_nothing = blocks.iter().all(|block| block.occurrences.is_empty());
        let detail = if reads_nothing { "no FROM" } else { "" };
        return Err(Reason::new(Code::NotAggregate, detail));
    }
    if sites.iter().any(|site| !site.alternatives.is_empty()) {
        in_any_order(query, &sites, context.catalog)?;
    }
    let matches = matches(query, &sites, context);
    let mut reasons: Vec<Reason> = vec![];
    for reason in sites.into_iter().flat_map(|site| site.reasons) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons.sort_by_key(|reason| Reverse(reason.code.obligations_met()));
    Ok(Plan { matches, reasons })
}

/// Whether rollups may answer the block.
pub(crate) fn is_site(block: &Block) -> bool {
    let mut relations = block.occurrences.iter().filter_map(Occurrence::relation);
    block.is_aggregated && relations.next().is_some()
}

/// Answers a block from a rollup: as a whole, or in parts.
type Answer<'a> = &'a dyn Fn(&Block, &RollupDefinition) -> Result<(Derived, Option<Parts>), Reason>;

/// Most rollups that have a part of the rows that are tried beside the base tables; only where no rollup answers the whole.
const COVERS_MAX: usize = 8;

fn site<'q>(block: &'q Block, context: Context<'_>) -> Site<'q> {
    let matcher = Matcher {
        catalog: context.catalog,
        zone: Zone::named(context.time_zone),
        given: &[],
        of_keys: &[],
    };
    let reduced = without_redundant_joins(block.clone(), context.catalog);
    // A rollup may have the left join as written, or the inner join that it amounts to.
    let with_inner_joins = with_rejected_nulls_inner(&reduced)
        .map(|block| without_redundant_joins(block, context.catalog));
    let forms: Vec<&Block> = std::iter::once(&reduced).chain(&with_inner_joins).collect();
    let attempt = |rollup: usize, answer: Answer<'_>| {
        let definition = &context.rollups.get(rollup)?.definition;
        let mut found = forms.iter().map(|form| answer(form, definition));
        // The statement as it is says best what is missing.
        let first = found.next()?;
        let found = first.or_else(|reason| found.find_map(Result::ok).ok_or(reason));
        let found = found.map(|(derived, parts)| Alternative {
            rollup,
            block: derived.block,
            parts,
            proof: derived.proof,
            premises: derived.premises,
        });
        Some(found.map_err(|reason| reason.of_rollup(&definition.name)))
    };
    let whole = |form: &Block, rollup: &RollupDefinition| Ok((matcher.derive(form, rollup)?, None));
    let behind = |form: &Block, rollup: &RollupDefinition| {
        Ok((matcher.derive_left_fact(form, rollup)?, None))
    };
    let in_some_way = |rollup: usize| match attempt(rollup, &whole) {
        Some(Err(reason)) if reason.code == Code::JoinDiffers => match attempt(rollup, &behind) {
            // Buckets are only taken apart where the fact is joined as in the rollup.
            Some(Err(further))
                if matches!(further.code, Code::JoinDiffers | Code::BucketUnaligned) =>
            {
                Some(Err(reason))
            }
            found => found,
        },
        found => found,
    };
    let of_parts = |covered: Covered| {
        let whole = Derived {
            block: covered.whole,
            proof: covered.proof,
            premises: covered.premises,
        };
        let parts = Parts {
            middle: covered.middle,
            middle_times: covered.middle_times,
            derived: covered.derived,
            edges: covered.edges,
        };
        (whole, Some(parts))
    };
    let in_buckets = |form: &Block, rollup: &RollupDefinition| {
        edges::cover(&matcher, form, rollup).map(of_parts)
    };
    let with_rest = |form: &Block, rollup: &RollupDefinition| {
        rest::with_rest(&matcher, form, rollup).map(of_parts)
    };
    let Candidates { likely, nearest } = Candidates::of(&forms, context.rollups, context.catalog);
    let mut alternatives: Vec<Alternative> = vec![];
    let mut refusals: Vec<(usize, Reason)> = vec![];
    for rollup in likely {
        match in_some_way(rollup) {
            Some(Ok(found)) => alternatives.push(found),
            Some(Err(reason)) => refusals.push((rollup, reason)),
            None => {}
        }
        if alternatives.len() == MATCHES_MAX {
            break;
        }
    }
    if alternatives.is_empty() {
        let is_cut = |(_, reason): &&mut (usize, Reason)| {
            matches!(reason.code, Code::BucketUnaligned | Code::PredicateMissing)
        };
        for (rollup, reason) in refusals.iter_mut().filter(is_cut).take(COVERS_MAX) {
            let in_parts: Answer<'_> = match reason.code {
                Code::BucketUnaligned => &in_buckets,
                _ => &with_rest,
            };
            match attempt(*rollup, in_parts) {
                Some(Ok(found)) => alternatives.push(found),
                // What else is in the way than its buckets.
                Some(Err(further))
                    if further.code.obligations_met() > reason.code.obligations_met() =>
                {
                    *reason = further;
                }
                Some(Err(_)) | None => {}
            }
        }
        refusals.retain(|(rollup, _)| !alternatives.iter().any(|found| found.rollup == *rollup));
    }
    if alternatives.is_empty() {
        for rollup in nearest {
            let found = in_some_way(rollup);
            debug_assert!(
                !matches!(found, Some(Ok(_))),
                "a rollup that cannot match does"
            );
            refusals.extend(found.and_then(Result::err).map(|reason| (rollup, reason)));
        }
    }
    refusals.sort_by_key(|(rollup, reason)| (Reverse(reason.code.obligations_met()), *rollup));
    let reasons = refusals.into_iter().map(|(_, reason)| reason);
    let mut site = Site {
        block,
        alternatives,
        reasons: reasons.take(REASONS_MAX).collect(),
        rows: OnceCell::new(),
    };
    // Of two rollups that are alike, the one beside which fewer tables are read.
    let cost = |alternative: &Alternative| {
        let rollup = context.rollups.get(alternative.rollup);
        let rows = rollup.map_or(0, |rollup| rollup.rows);
        let occurrences = alternative.block.occurrences.len();
        (rows, occurrences)
    };
    site.alternatives.sort_by_key(cost);
    site
}

/// Whether what is computed from answers of rollups comes out the same.
fn in_any_order(query: &Query, sites: &[Site<'_>], catalog: &Catalog) -> Result<(), Reason> {
    let mut refusal = None;
    query.walk(&mut |query| {
        let checked = match &query.body {
            Body::Block(block) if reads_sub_selects(block) => {
                let is_answered = sites
                    .iter()
                    .any(|site| site.block == &**block && !site.alternatives.is_empty());
                match is_answered {
                    true => Ok(()),
                    false => block_in_any_order(block, catalog),
                }
            }
            Body::SetOperation(operation) => set_operation_in_any_order(operation, catalog),
            Body::Block(_) | Body::Values(_) => Ok(()),
        };
        if let Err(reason) = checked {
            refusal.get_or_insert(reason);
        }
    });
    refusal.map_or(Ok(()), Err)
}

/// The statement with each block's cheapest rollup, then with the next ones.
fn matches(query: &Query, sites: &[Site<'_>], context: Context<'_>) -> Vec<Match> {
    let most = sites
        .iter()
        .map(|site| site.alternatives.len())
        .max()
        .unwrap_or(0);
    let most = match sites {
        [_] => most,
        _ => most.min(MATCHES_MAX),
    };
    let mut matches: Vec<Match> = vec![];
    for number in 0..most {
        let chosen: Vec<(&Site<'_>, &Alternative)> = sites
            .iter()
            .filter_map(|site| {
                let last = site.alternatives.len().checked_sub(1)?;
                Some((site, site.alternatives.get(number.min(last))?))
            })
            .collect();
        let found = statement(query, &chosen, context);
        if !matches.iter().any(|known| known.sql == found.sql) {
            matches.push(found);
        }
    }
    matches
}

fn statement(query: &Query, chosen: &[(&Site<'_>, &Alternative)], context: Context<'_>) -> Match {
    let replacement = |block: &Block| {
        chosen.iter().find_map(|(site, alternative)| {
            let rollup = context.rollups.get(alternative.rollup);
            match &alternative.parts {
                None if site.block == block => Some(Replacement {
                    rollup,
                    block: &alternative.block,
                }),
                Some(_) if site.block == block => Some(Replacement {
                    rollup: None,
                    block: &alternative.block,
                }),
                Some(parts) if parts.middle == *block => Some(Replacement {
                    rollup,
                    block: &parts.derived,
                }),
                Some(_) | None => None,
            }
        })
    };
    let rows = |block: &Block| {
        let mut parts = chosen.iter().filter_map(|(_, found)| found.parts.as_ref());
        match parts.find(|parts| parts.edges.block == *block) {
            Some(Parts { edges, .. }) => {
                let times = edges.times.iter();
                times
                    .flat_map(|times| rows_of(&edges.block, times, context))
                    .collect()
            }
            None => rows_of(block, &Spans::new(), context),
        }
    };
    let emitter = Emitter {
        catalog: context.catalog,
        replacement: &replacement,
        rows: &rows,
        reads: RefCell::default(),
        around: RefCell::default(),
    };
    let sql = emitter.query(query);
    let mut rollups: Vec<usize> = vec![];
    for (_, alternative) in chosen {
        if !rollups.contains(&alternative.rollup) {
            rollups.push(alternative.rollup);
        }
    }
    let base_rows = emitter.reads.into_inner();
    let base_reads: BTreeSet<Oid> = base_rows.iter().map(|rows| rows.table).collect();
    let rollup_rows = match base_reads.is_empty() {
        true => vec![],
        false => rollup_rows(query, chosen, context),
    };
    Match {
        rollups,
        base_reads: base_reads.into_iter().collect(),
        rollup_rows,
        base_rows,
        sql,
        query: None,
        proof: chosen
            .iter()
            .flat_map(|(_, alternative)| alternative.proof.clone())
            .collect(),
        premises: chosen
            .iter()
            .flat_map(|(_, alternative)| alternative.premises.clone())
            .collect(),
    }
}

fn rows_of(block: &Block, within: &Spans, context: Context<'_>) -> Vec<TableRows> {
    ranges::rows(block, within, context.catalog, context.time_zone)
}

/// The rows of base tables that the answered blocks are about, sub-selects included.
fn rollup_rows(
    query: &Query,
    chosen: &[(&Site<'_>, &Alternative)],
    context: Context<'_>,
) -> Vec<TableRows> {
    let all = |block: &Block, within: &Spans| rows_below(query, block, within, context);
    let rows = chosen
        .iter()
        .flat_map(|(site, alternative)| match &alternative.parts {
            None => {
                let rows = site.rows.get_or_init(|| all(site.block, &Spans::new()));
                rows.clone()
            }
            Some(parts) => all(&parts.middle, &parts.middle_times),
        });
    let mut distinct: Vec<TableRows> = vec![];
    for rows in rows {
        if !distinct.contains(&rows) {
            distinct.push(rows);
        }
    }
    distinct
}

/// The rows of base tables that a block of the statement is about, within these times, and those inside.
fn rows_below(
    query: &Query,
    block: &Block,
    within: &Spans,
    context: Context<'_>,
) -> Vec<TableRows> {
    let whole = Query {
        with: vec![],
        body: Body::Block(Box::new(block.clone())),
    };
    let blocks = whole.blocks();
    let mut rows = vec![];
    let mut selects = blocks.iter().flat_map(|block| block.sub_selects());
    if selects.any(|select| select.query().is_none()) {
        // It reads WITH items, whose tables are somewhere in the statement.
        rows.extend(query.relations().into_iter().map(TableRows::all));
    }
    rows.extend(rows_of(block, within, context));
    let inside = blocks.into_iter().filter(|inside| *inside != block);
    rows.extend(inside.flat_map(|inside| rows_of(inside, &Spans::new(), context)));
    rows
}

/// Whether some expression of the statement depends on the current time.
pub(crate) fn depends_on_clock(query: &Query, catalog: &Catalog) -> bool {
    query.blocks().into_iter().any(|block| {
        let tables = block.tables(catalog);
        let mut scalars = block.scalars().chain(block.left_conditions());
        scalars.any(|scalar| volatility(scalar, &tables) == Volatility::Clock)
    })
}
