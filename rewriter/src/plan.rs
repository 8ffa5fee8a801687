//! Which blocks of a statement are answered from which rollups.
//!
//! Each block that aggregates base tables is matched by itself. Those that no rollup answers stay as
//! they are, beside those that one answers.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::block::{Block, Occurrence, Tables};
use crate::candidates::{Candidates, MATCHES_MAX, REASONS_MAX};
use crate::catalog::Catalog;
use crate::determinism::{block_in_any_order, reads_sub_selects, set_operation_in_any_order};
use crate::edges;
use crate::emit::{Emitter, Replacement};
use crate::functions::Volatility;
use crate::joins::without_redundant_joins;
use crate::matching::{Derived, Matcher, Step};
use crate::outer::with_rejected_nulls_inner;
use crate::premise::Premise;
use crate::query::{Body, Query};
use crate::reason::{Code, Reason};
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
}

struct Alternative {
    rollup: usize,
    block: Block,
    /// The block is over parts: the one that the rollup answers, and that one over the rollup's table.
    part: Option<(Block, Block)>,
    proof: Vec<Step>,
    premises: BTreeSet<Premise>,
}

/// What can be said of a statement.
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

/// Answers a block from a rollup: as a whole, or in parts, with the part that the rollup answers.
type Answer<'a> =
    &'a dyn Fn(&Block, &RollupDefinition) -> Result<(Derived, Option<(Block, Block)>), Reason>;

/// Most rollups whose buckets a range cuts that are tried in parts; only where no rollup answers the whole.
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
        let found = found.map(|(derived, part)| Alternative {
            rollup,
            block: derived.block,
            part,
            proof: derived.proof,
            premises: derived.premises,
        });
        Some(found.map_err(|reason| reason.of_rollup(&definition.name)))
    };
    let whole = |form: &Block, rollup: &RollupDefinition| Ok((matcher.derive(form, rollup)?, None));
    let in_parts = |form: &Block, rollup: &RollupDefinition| {
        let covered = edges::cover(&matcher, form, rollup)?;
        let whole = Derived {
            block: covered.whole,
            proof: covered.proof,
            premises: covered.premises,
        };
        Ok((whole, Some((covered.middle, covered.derived))))
    };
    let Candidates { likely, nearest } = Candidates::of(&forms, context.rollups, context.catalog);
    let mut alternatives: Vec<Alternative> = vec![];
    let mut refusals: Vec<(usize, Reason)> = vec![];
    for rollup in likely {
        match attempt(rollup, &whole) {
            Some(Ok(found)) => alternatives.push(found),
            Some(Err(reason)) => refusals.push((rollup, reason)),
            None => {}
        }
        if alternatives.len() == MATCHES_MAX {
            break;
        }
    }
    if alternatives.is_empty() {
        let is_cut = |(_, reason): &&mut (usize, Reason)| reason.code == Code::BucketUnaligned;
        for (rollup, reason) in refusals.iter_mut().filter(is_cut).take(COVERS_MAX) {
            match attempt(*rollup, &in_parts) {
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
            let found = attempt(rollup, &whole);
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
        let chosen: Vec<(&Block, &Alternative)> = sites
            .iter()
            .filter_map(|site| {
                let last = site.alternatives.len().checked_sub(1)?;
                Some((site.block, site.alternatives.get(number.min(last))?))
            })
            .collect();
        let found = statement(query, &chosen, context);
        if !matches.iter().any(|known| known.sql == found.sql) {
            matches.push(found);
        }
    }
    matches
}

fn statement(query: &Query, chosen: &[(&Block, &Alternative)], context: Context<'_>) -> Match {
    let replacement = |block: &Block| {
        chosen.iter().find_map(|(site, alternative)| {
            let rollup = context.rollups.get(alternative.rollup);
            match &alternative.part {
                None if *site == block => Some(Replacement {
                    rollup,
                    block: &alternative.block,
                }),
                Some(_) if *site == block => Some(Replacement {
                    rollup: None,
                    block: &alternative.block,
                }),
                Some((part, derived)) if part == block => Some(Replacement {
                    rollup,
                    block: derived,
                }),
                Some(_) | None => None,
            }
        })
    };
    let emitter = Emitter {
        catalog: context.catalog,
        replacement: &replacement,
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
    Match {
        rollups,
        base_reads: emitter.reads.into_inner().into_iter().collect(),
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

/// Whether some expression of the statement depends on the current time.
pub(crate) fn depends_on_clock(query: &Query, catalog: &Catalog) -> bool {
    query.blocks().into_iter().any(|block| {
        let tables = Tables {
            occurrences: &block.occurrences,
            catalog,
        };
        let mut scalars = block.scalars().chain(block.left_conditions());
        scalars.any(|scalar| volatility(scalar, &tables) == Volatility::Clock)
    })
}
