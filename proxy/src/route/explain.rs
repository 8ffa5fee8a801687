//! What `EXPLAIN (PGSTAR)` and `pgstar explain` say: the decision, and why.

use std::time::Duration;

use pgstar_rewriter::{Match, Reason, Step};
use serde::Serialize;

use super::{BaseAnswer, Requested, Shown, Verdict};

/// A decision with everything that led to it.
#[derive(Debug, Serialize)]
pub struct Explanation {
    decision: &'static str,
    rollup: Option<String>,
    sql: Option<String>,
    reasons: Vec<ReasonLine>,
    /// The definition of a rollup that would answer the statement, where none does.
    #[serde(skip_serializing_if = "Option::is_none")]
    proposal: Option<String>,
    /// Why this one of several rollups that answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    proof: Vec<ProofLine>,
    freshness: FreshnessLine,
}

#[derive(Debug, Serialize)]
struct ReasonLine {
    rollup: Option<String>,
    code: &'static str,
    detail: String,
    /// What to change so that the rollup would match, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct ProofLine {
    rule: &'static str,
    detail: String,
}

#[derive(Debug, Serialize)]
struct FreshnessLine {
    requested: String,
    /// `current`, `within` a bound, `as built`; absent when nothing was shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    shown: Option<&'static str>,
    /// Up to where in PostgreSQL's log every commit is in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
    /// How long the proof took.
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_ms: Option<f64>,
    /// Every commit acknowledged longer ago than this is in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    staleness_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    built_seconds_ago: Option<u64>,
}

impl Explanation {
    pub(super) fn of(
        verdict: &Verdict,
        is_cached: bool,
        proposal: Option<String>,
        requested: &Requested,
    ) -> Self {
        let found = match (&verdict.outcome, &verdict.decided) {
            (Ok(answering), Some(decided)) => decided.decision.matches.get(answering.position),
            _ => None,
        };
        let decision = match (found, is_cached) {
            (None, false) => "passthrough",
            (_, true) => "cache",
            (Some(_), false) => "rollup",
        };
        let reasons = match (&verdict.outcome, &verdict.decided) {
            (Err(reasons), _) => reasons.as_slice(),
            (Ok(_), Some(decided)) => decided.decision.reasons.as_slice(),
            (Ok(_), None) => &[],
        };
        Explanation {
            decision,
            rollup: found.map(|found| verdict.snapshot.names(found).join(", ")),
            sql: found.map(|found| found.sql.clone()),
            reasons: reasons.iter().map(ReasonLine::of).collect(),
            proposal,
            choice: found.and_then(|_| choice(verdict)),
            proof: found
                .iter()
                .flat_map(|found| &found.proof)
                .map(ProofLine::of)
                .collect(),
            freshness: FreshnessLine::of(
                match (&verdict.outcome, &verdict.base) {
                    (Ok(answering), _) => Some(answering.shown),
                    (Err(_), Some(BaseAnswer::Kept { shown, .. })) if is_cached => Some(*shown),
                    (Err(_), _) => None,
                },
                requested,
                found.and_then(|found| verdict.snapshot.oldest(found)),
            ),
        }
    }

    /// One JSON object, as DESIGN fixes it.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The lines of the answer.
    pub fn lines(&self, json: bool) -> Vec<String> {
        if json { vec![self.json()] } else { self.text() }
    }

    /// The explanation for people.
    pub fn text(&self) -> Vec<String> {
        let mut lines = vec![self.headline()];
        lines.extend(self.sql.iter().map(|sql| format!("  SQL: {sql}")));
        lines.extend(
            self.choice
                .iter()
                .map(|choice| format!("  Choice: {choice}")),
        );
        lines.push(self.freshness.text());
        if !self.proof.is_empty() {
            lines.push("  Proof:".to_owned());
            lines.extend(
                self.proof
                    .iter()
                    .map(|step| format!("    {}: {}", step.rule, step.detail)),
            );
        }
        if !self.reasons.is_empty() {
            lines.push(
                if self.decision != "passthrough" {
                    "  Not used:"
                } else {
                    "  Reasons:"
                }
                .to_owned(),
            );
            lines.extend(
                self.reasons
                    .iter()
                    .map(|reason| format!("    {}", reason.text())),
            );
        }
        if self.sql.is_none() {
            let hint = self.reasons.iter().find_map(|reason| reason.hint.as_ref());
            lines.extend(hint.map(|hint| format!("  Hint: {hint}")));
        }
        if let Some(proposal) = &self.proposal {
            lines.push("  A rollup that would answer it:".to_owned());
            lines.extend(declaration(proposal).map(|line| format!("    {line}")));
        }
        lines
    }

    fn headline(&self) -> String {
        match (&self.rollup, self.decision) {
            (Some(rollup), "cache") => {
                format!("Answered from the cache, kept from rollup {rollup}")
            }
            (Some(rollup), _) => format!("Answered from rollup {rollup}"),
            (None, "cache") => {
                "Answered from the cache, kept from PostgreSQL's own answer".to_owned()
            }
            (None, _) => "Passed through to PostgreSQL".to_owned(),
        }
    }
}

/// Why one of several rollups answers; `None` where only one could.
fn choice(verdict: &Verdict) -> Option<String> {
    let decided = verdict.decided.as_ref()?;
    let matches = &decided.decision.matches;
    let because = decided.order.get().and_then(|order| order.because.clone());
    if because.is_some() || matches.len() < 2 {
        return because;
    }
    let rows = |found: &Match| -> u64 {
        let rollups = found.rollups.iter();
        let rows = rollups.filter_map(|rollup| verdict.snapshot.rollups.get(*rollup));
        rows.map(|rollup| rollup.rows).sum()
    };
    let name = |found: &Match| {
        let names = verdict.snapshot.names(found).join(", ");
        format!("{names} ({} rows)", rows(found))
    };
    let names: Vec<String> = matches.iter().map(name).collect();
    Some(format!(
        "rollups that answer, tried in this order: {}",
        names.join(", ")
    ))
}

/// As in the configuration file.
fn declaration(proposal: &str) -> impl Iterator<Item = &str> {
    let before = ["[[rollup]]", "name = \"proposed\"", "query = \"\"\""];
    before.into_iter().chain([proposal, "\"\"\""])
}

impl ReasonLine {
    fn of(reason: &Reason) -> Self {
        ReasonLine {
            rollup: reason.rollup.clone(),
            code: reason.code.as_str(),
            detail: reason.detail.clone(),
            hint: reason.hint(),
        }
    }

    fn text(&self) -> String {
        let rollup = self
            .rollup
            .as_ref()
            .map(|rollup| format!("{rollup}: "))
            .unwrap_or_default();
        let detail = if self.detail.is_empty() {
            String::new()
        } else {
            format!(": {}", self.detail)
        };
        format!("{rollup}{}{detail}", self.code)
    }
}

impl ProofLine {
    fn of(step: &Step) -> Self {
        ProofLine {
            rule: step.rule,
            detail: step.detail.clone(),
        }
    }
}

impl FreshnessLine {
    fn of(shown: Option<Shown>, requested: &Requested, age: Option<Duration>) -> Self {
        let mut line = FreshnessLine {
            requested: requested.freshness.to_string(),
            shown: None,
            position: None,
            waited_ms: None,
            staleness_ms: None,
            built_seconds_ago: age.map(|age| age.as_secs()),
        };
        match shown {
            None => {}
            Some(Shown::Current(proven)) => {
                line.shown = Some("current");
                line.position = Some(proven.positions.shown());
                line.waited_ms = Some(milliseconds(proven.waited));
            }
            Some(Shown::Within(staleness)) => {
                line.shown = Some("within");
                line.staleness_ms = Some(milliseconds(staleness));
            }
            Some(Shown::AsBuilt) => line.shown = Some("as built"),
        }
        line
    }

    fn text(&self) -> String {
        let proven = match (&self.position, self.waited_ms, self.staleness_ms) {
            (Some(position), Some(waited), _) => {
                format!("; proven to have every commit up to {position}, in {waited} ms")
            }
            (_, _, Some(staleness)) => {
                format!("; proven to have every commit from before {staleness} ms")
            }
            _ => String::new(),
        };
        let built = match self.built_seconds_ago {
            Some(age) => format!("; built {age} s ago"),
            None => String::new(),
        };
        format!("  Freshness: asked for {}{proven}{built}", self.requested)
    }
}

/// To a microsecond.
fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}
