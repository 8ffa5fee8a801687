//! The shape of a statement: what is left of it when constants that it compares with are left open.
//!
//! Constants that a rollup's definition names stay, because one of them may have more of a statement answered, and so do times.
//! A constant that is left open is a parameter whose value nobody knows, as one of the extended protocol whose proof has to
//! hold whatever is bound. So what is proved of a shape holds for every statement that has it. Its constants are
//! written into the printed statements afterwards; what else a [`Decision`](crate::Decision) says is found out for each
//! statement by itself.
//!
//! That costs a second proof, so it is made when a shape is met for the second time. Where it says less than the
//! statement's own, because that one depends on its constants, none is kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::Match;
use crate::block::{Block, Limit, Source};
use crate::expr::{BinaryOp, Literal, Parameter, Scalar, SubQuery};
use crate::plan::Plan;
use crate::print::print_literal;
use crate::query::{Body, Query, Rows, SubSelect};
use crate::reason::{Code, Reason};
use crate::rollup::Rollup;
use crate::time::Civil;

/// A statement without the constants that are left open. Statements of one shape have constants of the same kinds in the same
/// places, alike where the others' are alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    query: Query,
    kinds: Vec<Kind>,
}

/// What decides an open constant's type, beside what stands around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Text,
    Integer,
    Bigint,
    Numeric,
}

/// What is known of a shape.
#[derive(Debug, Clone)]
pub enum Known {
    /// A statement of it was decided.
    Met,
    /// This holds for all of its statements.
    Proven(Arc<Proven>),
    /// Its proofs depend on the constants.
    Differs,
}

/// Where what is known of shapes is kept: for one snapshot, search path and time zone only.
pub trait Shapes {
    /// The constants of the snapshot's rollups.
    fn in_rollups(&self) -> &RollupConstants;
    /// What is known of it.
    fn find(&self, shape: &Shape) -> Option<Known>;
    /// Keeps it instead of what was known.
    fn keep(&self, shape: Shape, known: Known);
}

/// The constants that rollups' definitions name.
#[derive(Debug, Default)]
pub struct RollupConstants {
    all: BTreeSet<Literal>,
    /// Some rollup has only rows on one side of one of them, for instance, so that its condition may follow from others.
    are_implied: bool,
}

impl RollupConstants {
    /// Of these rollups.
    pub fn of(rollups: &[Rollup]) -> RollupConstants {
        let mut constants = RollupConstants::default();
        for block in rollups.iter().map(|rollup| &rollup.definition.block) {
            for scalar in block.scalars() {
                constants.all.extend(literals(scalar).cloned());
            }
            let is_point = |condition: &Scalar| {
                let equal = matches!(
                    condition,
                    Scalar::In { negated: false, .. }
                        | Scalar::Binary {
                            op: BinaryOp::Equal,
                            ..
                        }
                );
                equal || !literals(condition).any(may_differ)
            };
            constants.are_implied |= !block.predicates.iter().all(is_point);
        }
        constants
    }
}

fn literals(scalar: &Scalar) -> impl Iterator<Item = &Literal> {
    let mut literals = vec![];
    scalar.walk(&mut |node| {
        if let Scalar::Literal(literal) = node {
            literals.push(literal);
        }
    });
    literals.into_iter()
}

/// Whether statements that differ in it are likely to have the same proof: a number, or a text that is no time.
fn may_differ(literal: &Literal) -> bool {
    match literal {
        Literal::Number(_) => true,
        Literal::String(text) => Civil::parse(text)
            .or_else(|| Civil::parse_utc(text))
            .is_none(),
        Literal::Boolean(_) | Literal::Null | Literal::Interval(_) => false,
    }
}

/// What holds for all statements of a shape, with places for their constants.
#[derive(Debug)]
pub struct Proven(Plan);

/// The plan, from what is known of the statement's shape or by `prove`.
pub(crate) fn plan(
    query: &Query,
    shapes: &dyn Shapes,
    prove: impl Fn(&Query) -> Result<Plan, Reason>,
) -> Result<Plan, Reason> {
    let Some((shape, constants)) = Shape::of(query, shapes.in_rollups()) else {
        return prove(query);
    };
    let known = shapes.find(&shape);
    if let Some(Known::Proven(proven)) = &known
        && let Some(plan) = proven.of(&constants)
    {
        return Ok(plan);
    }
    let plan = prove(query)?;
    match known {
        None => shapes.keep(shape, Known::Met),
        Some(Known::Met) => {
            let proven = prove(&shape.query).ok();
            let proven = proven.and_then(|general| Proven::new(general, shapes.in_rollups()));
            let is_alike = |proven: &Proven| {
                let filled = proven.of(&constants);
                filled.is_some_and(|filled| are_alike(&filled.matches, &plan.matches))
            };
            let known = match proven.filter(is_alike) {
                Some(proven) => Known::Proven(Arc::new(proven)),
                None => Known::Differs,
            };
            shapes.keep(shape, known);
        }
        Some(Known::Proven(_) | Known::Differs) => {}
    }
    Ok(plan)
}

/// Whether they are the same but for what people are told.
fn are_alike(left: &[Match], right: &[Match]) -> bool {
    let without_proof = |found: &Match| Match {
        proof: vec![],
        ..found.clone()
    };
    !left.is_empty()
        && left
            .iter()
            .map(without_proof)
            .eq(right.iter().map(without_proof))
}

impl Proven {
    /// `None` if other constants may have rollups answer that do not whatever the constants are.
    fn new(plan: Plan, in_rollups: &RollupConstants) -> Option<Proven> {
        let mut reasons = plan.reasons.iter();
        let is_of_constants = |reason: &Reason| reason.code == Code::PredicateMissing;
        let depends = in_rollups.are_implied && reasons.any(is_of_constants);
        (!depends).then_some(Proven(plan))
    }

    /// The plan of the statement that has these constants.
    fn of(&self, constants: &[Literal]) -> Option<Plan> {
        let fill = |text: &str| filled(text, constants);
        let matches = self.0.matches.iter().map(|found| {
            let mut found = found.clone();
            found.sql = fill(&found.sql)?;
            for step in &mut found.proof {
                step.detail = fill(&step.detail)?;
            }
            Some(found)
        });
        let reasons = self.0.reasons.iter().map(|reason| {
            let detail = fill(&reason.detail)?;
            Some(Reason {
                detail,
                ..reason.clone()
            })
        });
        Some(Plan {
            matches: matches.collect::<Option<_>>()?,
            reasons: reasons.collect::<Option<_>>()?,
        })
    }
}

/// The text with the constants in their places.
fn filled(text: &str, constants: &[Literal]) -> Option<String> {
    let mut filled = String::with_capacity(text.len());
    for (position, piece) in text.split(Parameter::OPEN_MARK).enumerate() {
        match position % 2 {
            0 => filled += piece,
            _ => filled += &print_literal(constants.get(piece.parse::<usize>().ok()?)?),
        }
    }
    Some(filled)
}

impl Shape {
    /// The statement's shape and its open constants; `None` if nothing can be left open, and for one with parameters
    /// of its own.
    fn of(query: &Query, in_rollups: &RollupConstants) -> Option<(Shape, Vec<Literal>)> {
        let mut opening = Opening {
            in_rollups,
            constants: vec![],
            has_parameters: false,
        };
        let query = opening.query(query);
        if opening.constants.is_empty() || opening.has_parameters {
            return None;
        }
        let kinds = opening.constants.iter().map(kind).collect();
        Some((Shape { query, kinds }, opening.constants))
    }
}

fn kind(literal: &Literal) -> Kind {
    match literal {
        Literal::Number(digits) if digits.parse::<i32>().is_ok() => Kind::Integer,
        Literal::Number(digits) if digits.parse::<i64>().is_ok() => Kind::Bigint,
        Literal::Number(_) => Kind::Numeric,
        Literal::String(_) | Literal::Boolean(_) | Literal::Null | Literal::Interval(_) => {
            Kind::Text
        }
    }
}

/// Leaves constants open.
struct Opening<'a> {
    in_rollups: &'a RollupConstants,
    /// Each once, in the order in which they are met.
    constants: Vec<Literal>,
    has_parameters: bool,
}

impl Opening<'_> {
    fn query(&mut self, query: &Query) -> Query {
        let mut query = query.clone();
        for item in &mut query.with {
            item.query = self.query(&item.query);
        }
        match &mut query.body {
            Body::Block(block) => **block = self.block(block),
            Body::SetOperation(operation) => {
                operation.left = self.query(&operation.left);
                operation.right = self.query(&operation.right);
                operation.limit = self.limit(&operation.limit);
            }
            Body::Values(rows) => {
                for value in rows.iter_mut().flatten() {
                    *value = self.scalar(value);
                }
            }
        }
        query
    }

    fn block(&mut self, block: &Block) -> Block {
        let mut block = block.map_scalars(&mut |scalar| self.scalar(scalar));
        for occurrence in &mut block.occurrences {
            if let Source::Select(select) = &occurrence.source
                && let Rows::Query(query) = &select.rows
            {
                occurrence.source = Source::Select(Arc::new(SubSelect {
                    rows: Rows::Query(self.query(query)),
                    ..(**select).clone()
                }));
            }
        }
        block.limit = self.limit(&block.limit);
        block
    }

    fn limit(&mut self, limit: &Limit) -> Limit {
        let mut opened = |value: &Option<Scalar>| value.as_ref().map(|value| self.constant(value));
        Limit {
            // WITH TIES, what is no number would have to be in parentheses.
            count: match limit.with_ties {
                true => limit.count.clone(),
                false => opened(&limit.count),
            },
            with_ties: limit.with_ties,
            offset: opened(&limit.offset),
        }
    }

    fn scalar(&mut self, scalar: &Scalar) -> Scalar {
        match scalar {
            Scalar::Binary { op, left, right } if op.is_comparison() => {
                Scalar::binary(*op, self.constant(left), self.constant(right))
            }
            Scalar::In {
                operand,
                list,
                negated,
            } => Scalar::In {
                operand: Box::new(self.scalar(operand)),
                list: list.iter().map(|value| self.constant(value)).collect(),
                negated: *negated,
            },
            Scalar::SubQuery(sub_query) => {
                let over = scalar.map_children(&mut |child| self.scalar(child));
                match over {
                    Scalar::SubQuery(over) => Scalar::SubQuery(Box::new(SubQuery {
                        query: self.query(&sub_query.query),
                        ..*over
                    })),
                    other => other,
                }
            }
            Scalar::Parameter(_) => {
                self.has_parameters = true;
                scalar.clone()
            }
            other => other.map_children(&mut |child| self.scalar(child)),
        }
    }

    /// The operand, left open if it is a constant that may be.
    fn constant(&mut self, scalar: &Scalar) -> Scalar {
        match scalar {
            Scalar::Literal(literal)
                if may_differ(literal) && !self.in_rollups.all.contains(literal) =>
            {
                let known = self.constants.iter().position(|known| known == literal);
                let position = known.unwrap_or_else(|| {
                    self.constants.push(literal.clone());
                    self.constants.len() - 1
                });
                Scalar::Parameter(Parameter::open(position))
            }
            other => self.scalar(other),
        }
    }
}
