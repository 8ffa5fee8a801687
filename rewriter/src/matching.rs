//! Matching one query with one rollup: every obligation of the proof, or the first that fails.
//!
//! The obligations are those of Goldstein and Larson (2001), section 3: the same tables, rows that
//! the rollup has all of, compensating predicates, groups and aggregates that can be derived.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::aggregate::AggregateDeriver;
use crate::approximate::APPROXIMATE;
use crate::block::{Attachment, Block, Distinct, Occurrence, OrderItem, Output, Source, Tables};
use crate::catalog::{AttNum, Catalog};
use crate::derive::{Deriver, ROLLUP_OCCURRENCE};
use crate::determinism::windows_in_order;
use crate::equivalence::{Equivalence, column_equality};
use crate::exact::prints_exactly;
use crate::expr::{BinaryOp, ColumnRef, OccurrenceId, Scalar};
use crate::grain::is_same_grain;
use crate::implication::{as_bound, implies, is_made_equal};
use crate::joins::{Joins, Removal};
use crate::left_joins::{FoundRows, LeftJoins};
use crate::mapping::{Mapping, joined_back, mappings};
use crate::premise::Premise;
use crate::reason::{Code, Reason};
use crate::rollup::RollupDefinition;
use crate::time::{self, Civil};
use crate::volatility::may_raise;
use crate::zone::{QUARTER_HOURS_SINCE, Zone};

/// One obligation and what discharged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The obligation.
    pub rule: &'static str,
    /// What discharged it, in the statement's own names.
    pub detail: String,
}

/// The query over the rollup's table.
#[derive(Debug, Clone)]
pub(crate) struct Derived {
    pub(crate) block: Block,
    pub(crate) proof: Vec<Step>,
    /// What the server has to say of its clocks.
    pub(crate) premises: BTreeSet<Premise>,
}

/// What every match attempt reads.
#[derive(Clone, Copy)]
pub(crate) struct Matcher<'a> {
    pub(crate) catalog: &'a Catalog,
    /// The session's.
    pub(crate) zone: Zone,
    /// What holds of the query's rows beside its predicates.
    pub(crate) given: &'a [Scalar],
    /// Predicates that are only ever computed from the rollup's columns: they raise no error.
    pub(crate) of_keys: &'a [Scalar],
}

impl Matcher<'_> {
    /// The query answered from the rollup, or the first obligation that fails.
    pub(crate) fn derive(
        &self,
        query: &Block,
        rollup: &RollupDefinition,
    ) -> Result<Derived, Reason> {
        let mut refusal = Reason::new(Code::JoinDiffers, "");
        let mappings = mappings(query, &rollup.block, self.catalog)?;
        for mapping in &mappings {
            match self.derive_mapped(query, rollup, mapping) {
                Ok(derived) => return Ok(derived),
                // The mapping that came furthest says what is really missing.
                Err(reason) if refusal.code == Code::JoinDiffers => refusal = reason,
                Err(_) => {}
            }
        }
        if may_be_joined_back(refusal.code) {
            let again = mappings
                .iter()
                .flat_map(|mapping| joined_back(query, rollup, mapping, refusal.code));
            let found = again.map(|mapping| self.derive_mapped(query, rollup, &mapping));
            if let Some(derived) = found.into_iter().find_map(Result::ok) {
                return Ok(derived);
            }
        }
        Err(refusal)
    }

    fn derive_mapped(
        &self,
        query: &Block,
        rollup: &RollupDefinition,
        mapping: &Mapping,
    ) -> Result<Derived, Reason> {
        let replace = |column| mapping.target(column);
        let query = query.map_columns(&replace);
        let occurrences = mapping.occurrences(&rollup.block, &query);
        let tables = Tables {
            occurrences: &occurrences,
            catalog: self.catalog,
        };
        let given = self.given.iter().map(|given| given.map_columns(&replace));
        let holding: Vec<Scalar> = query.predicates.iter().cloned().chain(given).collect();
        let finite = finite_times(&holding, &rollup.classes);
        let recent = recent_times(&holding, &rollup.classes);
        let of_keys = self.of_keys.iter();
        let of_keys: Vec<Scalar> = of_keys.map(|own| own.map_columns(&replace)).collect();
        let (premises, approximate) = (RefCell::default(), RefCell::default());
        let attempt = Attempt {
            query: &query,
            holding: &holding,
            of_keys: &of_keys,
            mapping,
            rollup,
            tables,
            deriver: Deriver {
                rollup,
                tables,
                zone: self.zone,
                finite: &finite,
                recent: &recent,
                premises: &premises,
                approximate: &approximate,
            },
            is_behind: false,
        };
        attempt.derive()
    }
}

/// Whether what is missing may be found in a table beside the rollup.
fn may_be_joined_back(code: Code) -> bool {
    matches!(
        code,
        Code::DimensionMissing | Code::BucketUnaligned | Code::MeasureMissing | Code::JoinDiffers
    )
}

/// The instants that the predicates keep to the days in which every zone has whole quarters of an hour.
fn recent_times(predicates: &[Scalar], classes: &Equivalence) -> Vec<Scalar> {
    let since = Civil::parse(QUARTER_HOURS_SINCE);
    let is_recent = |constant: &Scalar| {
        let in_utc = time::constant_in_utc(constant);
        in_utc.or_else(|| time::constant(constant, true)) >= since
    };
    let bounds = predicates.iter().filter_map(as_bound);
    let recent = bounds.filter(|bound| {
        let is_lower = matches!(
            bound.op,
            BinaryOp::Greater | BinaryOp::GreaterOrEqual | BinaryOp::Equal
        );
        is_lower && is_recent(bound.constant)
    });
    recent
        .map(|bound| classes.canonical(bound.operand))
        .collect()
}

/// What the predicates bound by constants on both sides: it is neither infinite nor NULL.
fn finite_times(predicates: &[Scalar], classes: &Equivalence) -> Vec<Scalar> {
    let bounds = |lower: bool| {
        predicates
            .iter()
            .filter_map(as_bound)
            .filter_map(move |bound| {
                use BinaryOp::{Greater, GreaterOrEqual, Less, LessOrEqual};
                let bounds = match lower {
                    true => matches!(bound.op, Greater | GreaterOrEqual),
                    false => matches!(bound.op, Less | LessOrEqual),
                };
                (bounds && time::constant(bound.constant, true).is_some()).then_some(bound.operand)
            })
    };
    bounds(true)
        .filter(|operand| bounds(false).any(|other| other == *operand))
        .map(|operand| classes.canonical(operand))
        .collect()
}

/// One mapping being tried; the query speaks of the rollup's occurrences.
pub(crate) struct Attempt<'q> {
    pub(crate) query: &'q Block,
    /// The query's predicates, and what holds of its rows beside them.
    pub(crate) holding: &'q [Scalar],
    pub(crate) of_keys: &'q [Scalar],
    pub(crate) mapping: &'q Mapping,
    pub(crate) rollup: &'q RollupDefinition,
    pub(crate) tables: Tables<'q>,
    pub(crate) deriver: Deriver<'q>,
    /// The rollup is left-joined to all other tables.
    pub(crate) is_behind: bool,
}

impl Attempt<'_> {
    fn derive(&self) -> Result<Derived, Reason> {
        let left_joins = LeftJoins {
            query: self.query,
            mapping: &self.mapping.targets,
            rollup: self.rollup,
            tables: self.tables,
        };
        let found = left_joins.compare()?;
        let removals = self.remove_extra_joins()?;
        let mut proof = vec![];
        proof.extend(removals.iter().map(|removal| Step {
            rule: "join removed",
            detail: removal.proof.clone(),
        }));
        proof.extend(self.mapping.kept(self.query).filter_map(|kept| {
            let relation = self.tables.catalog.relation_by_oid(kept.relation()?)?;
            Some(Step {
                rule: "joined back by keys",
                detail: relation.name.clone(),
            })
        }));
        self.keeps_every_row(&removals)?;
        let predicates = self.compensation(found, &mut proof)?;
        let block = self.project(predicates)?;
        proof.extend(self.last_steps(&block));
        let premises = self.deriver.premises.borrow().clone();
        Ok(Derived {
            block,
            proof,
            premises,
        })
    }

    /// What the proof says of groups and aggregates, once they are derived.
    pub(crate) fn last_steps(&self, block: &Block) -> Vec<Step> {
        let mut steps = vec![Step {
            rule: "grouped by",
            detail: self.keys_used(block),
        }];
        let approximate = self.deriver.approximate.borrow();
        steps.extend(approximate.iter().map(|aggregate| Step {
            rule: APPROXIMATE,
            detail: aggregate.clone(),
        }));
        if !self.deriver.premises.borrow().is_empty() {
            steps.push(Step {
                rule: "asked of the server",
                detail: "how the zone's clocks change".to_owned(),
            });
        }
        steps
    }

    /// The rollup's tables that the query does not read must each be removable.
    fn remove_extra_joins(&self) -> Result<Vec<Removal>, Reason> {
        let all = (0..self.mapping.base).map(OccurrenceId);
        let mut extra: Vec<OccurrenceId> = all
            .filter(|occurrence| !self.mapping.targets.contains(occurrence))
            .collect();
        let mut removals: Vec<Removal> = vec![];
        while !extra.is_empty() {
            let removed: Vec<OccurrenceId> =
                removals.iter().map(|removal| removal.occurrence).collect();
            let removed_predicates: Vec<usize> = removals
                .iter()
                .flat_map(|removal| removal.join_predicates.clone())
                .collect();
            let joins = Joins {
                tables: self.tables,
                predicates: &self.rollup.block.predicates,
                removed: &removed,
                removed_predicates: &removed_predicates,
            };
            let Some(removal) = extra
                .iter()
                .find_map(|occurrence| joins.removal(*occurrence))
            else {
                let names = extra
                    .iter()
                    .filter_map(|occurrence| self.tables.relation(*occurrence))
                    .map(|relation| relation.name.as_str());
                return Err(Reason::new(
                    Code::JoinNotRemovable,
                    names.collect::<Vec<_>>().join(", "),
                ));
            };
            extra.retain(|occurrence| *occurrence != removal.occurrence);
            removals.push(removal);
        }
        Ok(removals)
    }

    /// Every predicate of the rollup that is not part of a removed join must follow from the query's.
    fn keeps_every_row(&self, removals: &[Removal]) -> Result<(), Reason> {
        let classes = Equivalence::of(
            &self.query.predicates,
            &self.tables,
            self.tables.catalog.user_names(),
        );
        for (position, predicate) in self.rollup.block.predicates.iter().enumerate() {
            let is_removed = removals
                .iter()
                .any(|removal| removal.join_predicates.contains(&position));
            if is_removed || implies(self.holding, predicate, &classes, &self.tables) {
                continue;
            }
            let code = if column_equality(predicate).is_some() {
                Code::JoinDiffers
            } else {
                Code::PredicateMissing
            };
            return Err(Reason::new(
                code,
                format!("the rollup requires {}", self.deriver.label(predicate)),
            ));
        }
        Ok(())
    }

    /// What the query asks beyond the rollup's own predicates, over its keys.
    fn compensation(&self, found: FoundRows, proof: &mut Vec<Step>) -> Result<Vec<Scalar>, Reason> {
        let FoundRows { conditions, tests } = found;
        let classes = &self.rollup.classes;
        let mut compensation = tests;
        let mut asked = vec![];
        let mut refused = vec![];
        for predicate in &self.query.predicates {
            let label = || self.deriver.label(predicate);
            if self.holds_in_rollup(predicate) || conditions.contains(&predicate.canonical()) {
                proof.push(Step {
                    rule: "holds in the rollup",
                    detail: label(),
                });
                continue;
            }
            let derived = match self.of_keys.contains(predicate) {
                true => self.deriver.derive(predicate),
                false if self.meets_every_row(predicate) => self
                    .deriver
                    .raising_predicate(predicate)
                    .or_else(|_| self.deriver.predicate(predicate)),
                false => self.deriver.predicate(predicate),
            };
            match derived {
                Ok(derived) => {
                    compensation.push(derived);
                    asked.push(predicate.clone());
                    proof.push(Step {
                        rule: "filtered by keys",
                        detail: label(),
                    });
                }
                Err(reason) => refused.push((predicate, reason)),
            }
        }
        // What others demand anyway need not be asked. These others are asked, so none rests on itself.
        for (predicate, reason) in refused {
            let can_be_left_out = !may_raise(predicate, &self.tables)
                && implies(&asked, predicate, classes, &self.tables);
            if !can_be_left_out {
                return Err(reason);
            }
            proof.push(Step {
                rule: "follows from the others",
                detail: self.deriver.label(predicate),
            });
        }
        Ok(compensation)
    }

    /// Whether both PostgreSQL's own plan and the rollup show the predicate each value that the table has, so that
    /// it raises an error in both or in none: nothing else chooses among the rows.
    fn meets_every_row(&self, predicate: &Scalar) -> bool {
        let of_one_table = |block: &Block| matches!(block.occurrences.as_slice(), [only] if only.relation().is_some());
        of_one_table(self.query)
            && of_one_table(&self.rollup.block)
            && self.query.predicates.len() == 1
            && self.rollup.block.predicates.is_empty()
            && !predicate.has_sub_query()
            && may_raise(predicate, &self.tables)
    }

    /// Whether all rows behind the rollup satisfy the predicate.
    fn holds_in_rollup(&self, predicate: &Scalar) -> bool {
        let RollupDefinition { classes, block, .. } = self.rollup;
        is_made_equal(predicate, classes)
            || self
                .rollup
                .canonical_predicates
                .contains(&classes.canonical(predicate))
            || (!may_raise(predicate, &self.tables)
                && implies(&block.predicates, predicate, classes, &self.tables))
    }

    pub(crate) fn project(&self, predicates: Vec<Scalar>) -> Result<Block, Reason> {
        let group_by = self.group_by()?;
        let kinds: Vec<&Scalar> = match &self.query.distinct {
            Distinct::No => vec![],
            Distinct::Yes => self.query.outputs.iter().map(|out| &out.value).collect(),
            // Any of equal ones may be the first.
            Distinct::On(keys) => keys.iter().collect(),
        };
        kinds
            .into_iter()
            .try_for_each(|kind| self.refuse_inexact(kind))?;
        for scalar in self.query.scalars() {
            windows_in_order(scalar, &self.tables)?;
        }
        self.refuse_raising_having()?;
        let mut projection = Projection {
            attempt: self,
            is_same_grain: self.is_same_grain(),
            group_by,
        };
        let outputs = self
            .query
            .outputs
            .iter()
            .map(|output| projection.output(output))
            .collect::<Result<_, _>>()?;
        let having = self
            .query
            .having
            .iter()
            .map(|conjunct| projection.value(conjunct))
            .collect::<Result<_, _>>()?;
        let order_by = self
            .query
            .order_by
            .iter()
            .map(|item| projection.order_item(item))
            .collect::<Result<_, _>>()?;
        let distinct = match &self.query.distinct {
            Distinct::On(keys) => {
                let keys = keys.iter().map(|key| projection.value(key));
                Distinct::On(keys.collect::<Result<_, _>>()?)
            }
            other => other.clone(),
        };
        Ok(Block {
            occurrences: self.occurrences()?,
            predicates,
            group_by: projection.group_by,
            grouping_sets: self.query.grouping_sets.clone(),
            is_aggregated: true,
            having,
            outputs,
            distinct,
            order_by,
            limit: self.query.limit.clone(),
            mentioned: vec![],
            views: vec![],
        })
    }

    /// A row beside the rollup's may repeat it, and a grouping set may leave out keys.
    fn is_same_grain(&self) -> bool {
        self.query.grouping_sets.is_none()
            && self.mapping.kept(self.query).next().is_none()
            && is_same_grain(self.query, self.rollup, self.tables)
    }

    fn group_by(&self) -> Result<Vec<Scalar>, Reason> {
        let mut group_by = vec![];
        for key in &self.query.group_by {
            self.refuse_inexact(key)?;
            push_new(&mut group_by, self.deriver.derive(key)?);
        }
        // Keys that are one column of the rollup would be left out together.
        if self.query.grouping_sets.is_some() && group_by.len() < self.query.group_by.len() {
            let detail = "two keys are one column of the rollup";
            return Err(Reason::new(Code::GroupingSets, detail));
        }
        Ok(group_by)
    }

    /// The rollup's table, and what is kept beside it: each row of the rollup meets the same rows there
    /// as all base rows behind it, because only keys are compared.
    fn occurrences(&self) -> Result<Vec<Occurrence>, Reason> {
        let mut occurrences = vec![Occurrence {
            source: Source::Rollup,
            attachment: Attachment::Inner,
        }];
        for kept in self.mapping.kept(self.query) {
            let attachment = match &kept.attachment {
                Attachment::Inner => Attachment::Inner,
                Attachment::Left(condition) => {
                    let condition = condition.iter();
                    let derived = condition.map(|conjunct| self.deriver.predicate(conjunct));
                    Attachment::Left(derived.collect::<Result<_, _>>()?)
                }
            };
            occurrences.push(Occurrence {
                source: kept.source.clone(),
                attachment,
            });
        }
        Ok(occurrences)
    }

    /// Whether the group keys hold a key of the column's table.
    fn is_determined(&self, column: ColumnRef) -> bool {
        let is_grouped = |attnum: &AttNum| {
            let key = Scalar::Column(ColumnRef {
                attnum: *attnum,
                ..column
            });
            self.query.group_by.contains(&key)
        };
        let relation = self.tables.relation(column.occurrence);
        relation.is_some_and(|relation| {
            let mut keys = relation.unique_keys.iter();
            keys.any(|key| key.iter().all(is_grouped))
        })
    }

    fn refuse_inexact(&self, scalar: &Scalar) -> Result<(), Reason> {
        if prints_exactly(scalar, &self.tables) {
            return Ok(());
        }
        let detail = format!(
            "equal values of {} may print differently",
            self.deriver.label(scalar)
        );
        Err(Reason::new(Code::UnsupportedExpression, detail))
    }

    /// Which of several conditions is computed first is the planner's choice, and so is where one
    /// without aggregates is computed.
    fn refuse_raising_having(&self) -> Result<(), Reason> {
        let having = &self.query.having;
        let is_alone = having.len() == 1;
        let raises = |conjunct: &&Scalar| {
            may_raise(conjunct, &self.tables) && !(is_alone && conjunct.has_aggregate())
        };
        match having.iter().find(raises) {
            Some(conjunct) => Err(Reason::new(Code::MayRaise, self.deriver.label(conjunct))),
            None => Ok(()),
        }
    }

    fn keys_used(&self, derived: &Block) -> String {
        let columns = derived.group_by.iter().flat_map(Scalar::columns);
        let names: Vec<String> = columns.filter_map(|column| self.name_of(column)).collect();
        if names.is_empty() {
            "nothing: one row".to_owned()
        } else {
            names.join(", ")
        }
    }
}

impl Attempt<'_> {
    /// What a column of the derived block is called.
    fn name_of(&self, column: ColumnRef) -> Option<String> {
        if column.occurrence == ROLLUP_OCCURRENCE {
            let stored = self.rollup.columns.get(column.attnum.0 as usize)?;
            return Some(stored.name.clone());
        }
        let kept = column.occurrence.0 - ROLLUP_OCCURRENCE.0 - 1;
        Some(self.tables.column_label(ColumnRef {
            occurrence: OccurrenceId(self.mapping.base + kept),
            ..column
        }))
    }
}

/// Derives what stands above the grouping: outputs, HAVING, ORDER BY.
struct Projection<'a, 'b> {
    attempt: &'a Attempt<'b>,
    is_same_grain: bool,
    group_by: Vec<Scalar>,
}

impl Projection<'_, '_> {
    fn output(&mut self, output: &Output) -> Result<Output, Reason> {
        Ok(Output {
            name: output.name.clone(),
            value: self.value(&output.value)?,
        })
    }

    fn order_item(&mut self, item: &OrderItem) -> Result<OrderItem, Reason> {
        Ok(OrderItem {
            value: self.value(&item.value)?,
            ..item.clone()
        })
    }

    fn value(&mut self, scalar: &Scalar) -> Result<Scalar, Reason> {
        let query = self.attempt.query;
        if query
            .group_by
            .iter()
            .any(|key| key.canonical() == scalar.canonical())
        {
            return self.attempt.deriver.derive(scalar);
        }
        match scalar {
            Scalar::Aggregate(aggregate) if self.attempt.is_behind => {
                self.attempt.aggregate_behind(aggregate)
            }
            Scalar::Aggregate(aggregate) => {
                let deriver = AggregateDeriver {
                    deriver: self.attempt.deriver,
                    is_scalar: query.has_total(),
                    is_same_grain: self.is_same_grain,
                };
                deriver.derive(aggregate)
            }
            // PostgreSQL allows a column outside GROUP BY when the keys hold its table's primary key. The
            // rollup's table has no such key, and grouping by the column too changes no group.
            Scalar::Column(_) if query.grouping_sets.is_some() => {
                let detail = self.attempt.deriver.label(scalar);
                Err(Reason::new(Code::GroupingSets, detail))
            }
            Scalar::Column(column) if !self.attempt.is_determined(*column) => {
                let label = self.attempt.deriver.label(scalar);
                let detail = format!("{label} is neither grouped nor aggregated");
                Err(Reason::new(Code::UnsupportedExpression, detail))
            }
            Scalar::Column(_) => {
                let derived = self.attempt.deriver.derive(scalar)?;
                push_new(&mut self.group_by, derived.clone());
                Ok(derived)
            }
            other => other.try_map_children(&mut |child| self.value(child)),
        }
    }
}

fn push_new(scalars: &mut Vec<Scalar>, scalar: Scalar) {
    if !scalars.contains(&scalar) {
        scalars.push(scalar);
    }
}
