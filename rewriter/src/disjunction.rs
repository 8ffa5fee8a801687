//! Conditions that all cases of an OR have in common, such as the join that TPC-H's query 19 repeats in each.
//!
//! `(a AND b) OR (a AND c)` is `a AND (b OR c)` also where some of them are NULL. PostgreSQL's planner does
//! the same (`find_duplicate_ors` in prepqual.c), so that nothing is computed that it would not compute.

use crate::expr::Scalar;

/// The conjuncts of a condition, those that all cases of an OR share taken out of it.
pub(crate) fn conjuncts(condition: Scalar) -> Vec<Scalar> {
    let conjuncts = condition.into_conjuncts().into_iter();
    conjuncts.flat_map(without_shared).collect()
}

fn without_shared(conjunct: Scalar) -> Vec<Scalar> {
    let Scalar::Or(cases) = &conjunct else {
        return vec![conjunct];
    };
    let cases: Vec<Vec<Scalar>> = flat(cases)
        .into_iter()
        .map(Scalar::into_conjuncts)
        .collect();
    let Some((first, others)) = cases.split_first() else {
        return vec![conjunct];
    };
    let is_shared = |part: &&Scalar| others.iter().all(|case| case.contains(part));
    let mut shared: Vec<Scalar> = vec![];
    for part in first.iter().filter(is_shared) {
        if !shared.contains(part) {
            shared.push(part.clone());
        }
    }
    if shared.is_empty() {
        return vec![conjunct];
    }
    let rest = |case: &Vec<Scalar>| -> Vec<Scalar> {
        let rest = case.iter().filter(|part| !shared.contains(part));
        rest.cloned().collect()
    };
    let rests: Vec<Vec<Scalar>> = cases.iter().map(rest).collect();
    // A case that asks for nothing else makes the others vanish, but the role needs privileges on their columns.
    if rests.iter().any(Vec::is_empty) {
        return vec![conjunct];
    }
    let cases = rests.into_iter().map(|mut rest| match rest.len() {
        1 => rest.remove(0),
        _ => Scalar::And(rest),
    });
    shared.push(Scalar::Or(cases.collect()));
    shared
}

/// The cases with those of ORs among them.
fn flat(cases: &[Scalar]) -> Vec<Scalar> {
    let inner = |case: &Scalar| match case {
        Scalar::Or(cases) => flat(cases),
        other => vec![other.clone()],
    };
    cases.iter().flat_map(inner).collect()
}
