//! One form for expressions that differ only in the order of operands, repetitions and negations.

use crate::expr::{BinaryOp, Scalar};

impl Scalar {
    /// The conjuncts of a condition, nested ANDs flattened and NOT taken into OR, as PostgreSQL's planner does.
    pub fn into_conjuncts(self) -> Vec<Scalar> {
        match self {
            Scalar::And(parts) => parts.into_iter().flat_map(Scalar::into_conjuncts).collect(),
            Scalar::Not(negated) => match *negated {
                Scalar::Not(operand) => operand.into_conjuncts(),
                Scalar::Or(cases) => cases
                    .into_iter()
                    .flat_map(|case| Scalar::Not(Box::new(case)).into_conjuncts())
                    .collect(),
                other => vec![Scalar::Not(Box::new(other))],
            },
            other => vec![other],
        }
    }

    /// The opposite test: TRUE and FALSE change places, and NULL stays.
    fn opposite(&self) -> Option<Scalar> {
        let mut opposite = self.clone();
        match &mut opposite {
            Scalar::IsNull { negated, .. }
            | Scalar::IsTruth { negated, .. }
            | Scalar::IsDistinct { negated, .. }
            | Scalar::In { negated, .. }
            | Scalar::Like { negated, .. }
            | Scalar::Regex { negated, .. } => *negated = !*negated,
            Scalar::Not(operand) => return Some((**operand).clone()),
            Scalar::Binary { op, .. } => *op = op.negated()?,
            Scalar::And(parts) => return Some(Scalar::Or(opposites(parts))),
            Scalar::Or(parts) => return Some(Scalar::And(opposites(parts))),
            _ => return None,
        }
        Some(opposite)
    }

    /// A form in which operands that commute stand in one order and repetitions are gone, so that
    /// equal meanings that differ only in that compare equal.
    pub fn canonical(&self) -> Scalar {
        let mut canonical = self.map_children(&mut Scalar::canonical);
        if let Scalar::Not(operand) = &canonical
            && let Some(opposite) = operand.opposite()
        {
            return opposite.canonical();
        }
        if let Scalar::IsDistinct { left, right, .. } = &mut canonical
            && left > right
        {
            std::mem::swap(left, right);
        }
        match &mut canonical {
            Scalar::And(parts) => {
                let nested = std::mem::take(parts).into_iter();
                *parts = nested.flat_map(Scalar::into_conjuncts).collect();
                parts.sort();
                parts.dedup();
                if let [only] = parts.as_slice() {
                    return only.clone();
                }
            }
            Scalar::Or(parts) => {
                let nested = std::mem::take(parts).into_iter();
                let cases = nested.flat_map(|part| match part {
                    Scalar::Or(parts) => parts,
                    other => vec![other],
                });
                *parts = cases.collect();
                parts.sort();
                parts.dedup();
                if let [only] = parts.as_slice() {
                    return only.clone();
                }
            }
            Scalar::In {
                operand,
                list,
                negated,
            } => {
                // PostgreSQL reads a list of one as a comparison, but types longer lists as a whole.
                let is_comparison = list.len() == 1;
                list.sort();
                list.dedup();
                if let ([only], true) = (list.as_slice(), is_comparison) {
                    let op = if *negated {
                        BinaryOp::NotEqual
                    } else {
                        BinaryOp::Equal
                    };
                    return Scalar::binary(op, (**operand).clone(), only.clone()).canonical();
                }
            }
            Scalar::Binary { op, left, right } => {
                let turned = op.mirrored().or(op.commutes().then_some(*op));
                if let Some(turned) = turned.filter(|_| left > right) {
                    *op = turned;
                    std::mem::swap(left, right);
                }
            }
            _ => {}
        }
        canonical
    }
}

fn opposites(parts: &[Scalar]) -> Vec<Scalar> {
    let opposite = |part: &Scalar| Scalar::Not(Box::new(part.clone())).canonical();
    parts.iter().map(opposite).collect()
}

impl BinaryOp {
    /// For a comparison, the operator that is TRUE where this one is FALSE, and NULL where it is NULL.
    fn negated(self) -> Option<BinaryOp> {
        match self {
            BinaryOp::Equal => Some(BinaryOp::NotEqual),
            BinaryOp::NotEqual => Some(BinaryOp::Equal),
            BinaryOp::Less => Some(BinaryOp::GreaterOrEqual),
            BinaryOp::LessOrEqual => Some(BinaryOp::Greater),
            BinaryOp::Greater => Some(BinaryOp::LessOrEqual),
            BinaryOp::GreaterOrEqual => Some(BinaryOp::Less),
            BinaryOp::Plus | BinaryOp::Minus | BinaryOp::Multiply => None,
            BinaryOp::Divide | BinaryOp::Modulo | BinaryOp::Concat => None,
        }
    }

    fn commutes(self) -> bool {
        matches!(self, BinaryOp::Plus | BinaryOp::Multiply)
    }
}
