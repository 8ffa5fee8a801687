//! GROUP BY: a plain list of keys, or grouping sets as sets of positions in one list of keys.

use sqlparser::ast::Expr;

use crate::expr::{Literal, Scalar};
use crate::from::without_parentheses;
use crate::reason::{Code, Reason};
use crate::types;

/// Most grouping sets that are analysed. PostgreSQL allows 4,096.
const GROUPING_SETS_MAX: usize = 128;

/// What GROUP BY says.
#[derive(Debug, Default)]
pub(crate) struct Grouping {
    pub(crate) keys: Vec<Scalar>,
    pub(crate) sets: Option<Vec<Vec<usize>>>,
}

/// Reads GROUP BY; `key` resolves one item.
pub(crate) fn grouping<'a>(
    items: &'a [Expr],
    key: &'a dyn Fn(&Expr) -> Result<Scalar, Reason>,
) -> Result<Grouping, Reason> {
    let mut reader = Reader {
        keys: vec![],
        written: vec![],
        has_two_names: false,
        key,
    };
    let mut sets: Vec<Vec<usize>> = vec![vec![]];
    let mut is_plain = true;
    for item in items {
        let alternatives = match without_parentheses(item) {
            Expr::GroupingSets(sets) => sets
                .iter()
                .map(|set| reader.positions(set))
                .collect::<Result<Vec<_>, _>>()?,
            Expr::Rollup(parts) => rollup(&reader.parts(parts)?),
            Expr::Cube(parts) => cube(&reader.parts(parts)?)?,
            // What stands in parentheses is a list of keys, also an empty one.
            Expr::Tuple(list) => vec![reader.positions(list)?],
            key => vec![reader.positions(std::slice::from_ref(key))?],
        };
        let is_sets = matches!(
            without_parentheses(item),
            Expr::GroupingSets(_) | Expr::Rollup(_) | Expr::Cube(_)
        );
        is_plain &= !is_sets;
        sets = product(&sets, &alternatives)?;
    }
    // PostgreSQL tells two columns of the result apart that are the same expression: one can be absent from a set
    // that has the other.
    if !is_plain && reader.has_two_names {
        let detail = "one expression is grouped by as two columns";
        return Err(Reason::new(Code::GroupingSets, detail));
    }
    if !is_plain && !reader.keys.iter().all(stays_whole) {
        let detail = "sets are of an expression that PostgreSQL may simplify together with what is around it";
        return Err(Reason::new(Code::GroupingSets, detail));
    }
    let is_total_only = reader.keys.is_empty() && !items.is_empty();
    Ok(Grouping {
        keys: reader.keys,
        sets: (!is_plain || is_total_only).then_some(sets),
    })
}

/// Whether PostgreSQL finds the key wherever it stands in an expression. It simplifies expressions before it looks for the
/// keys in them (`NOT (a = 1)` becomes `a <> 1`, `a::text::varchar` becomes `a`, and what is constant is computed), and what it
/// does not find then is not NULL in the sets that lack the key. PostgreSQL keeps a sub-select's columns whole, which are
/// merged here.
fn stays_whole(key: &Scalar) -> bool {
    match key {
        Scalar::Column(_) => true,
        Scalar::Call { name, arguments } => match *name {
            "coalesce" => arguments.first().is_some_and(stays_whole),
            _ => stay_whole(arguments.iter()),
        },
        Scalar::Binary { op, left, right } => {
            !op.is_comparison() && stay_whole([&**left, &**right].into_iter())
        }
        Scalar::Negate(operand) | Scalar::Extract { field: _, operand } => stays_whole(operand),
        // A day is never the same value under another type.
        Scalar::Cast { operand, to } => to.oid == types::DATE && stays_whole(operand),
        Scalar::Literal(_)
        | Scalar::Parameter(_)
        | Scalar::Not(_)
        | Scalar::And(_)
        | Scalar::Or(_)
        | Scalar::IsNull { .. }
        | Scalar::IsTruth { .. }
        | Scalar::IsDistinct { .. }
        | Scalar::In { .. }
        | Scalar::Like { .. }
        | Scalar::Quantified { .. }
        | Scalar::Array(_)
        | Scalar::Regex { .. }
        | Scalar::Case { .. }
        | Scalar::Aggregate(_)
        | Scalar::Window(_)
        | Scalar::Grouping(_)
        | Scalar::SubQuery(_)
        | Scalar::Outer(_) => false,
    }
}

/// Whether something is computed of these that is not constant.
fn stay_whole<'a>(operands: impl Iterator<Item = &'a Scalar> + Clone) -> bool {
    let is_value = |operand: &Scalar| match operand {
        Scalar::Literal(literal) => *literal != Literal::Null,
        other => stays_whole(other),
    };
    operands.clone().any(stays_whole) && operands.into_iter().all(is_value)
}

struct Reader<'a> {
    keys: Vec<Scalar>,
    /// Each key as it was first written.
    written: Vec<&'a Expr>,
    /// Whether some key was also written another way, as the position of another column is.
    has_two_names: bool,
    key: &'a dyn Fn(&Expr) -> Result<Scalar, Reason>,
}

impl<'a> Reader<'a> {
    fn positions(&mut self, list: &'a [Expr]) -> Result<Vec<usize>, Reason> {
        list.iter().map(|expr| self.position(expr)).collect()
    }

    fn position(&mut self, expr: &'a Expr) -> Result<usize, Reason> {
        let key = (self.key)(expr)?;
        let written = without_parentheses(expr);
        if let Some(known) = self.keys.iter().position(|known| *known == key) {
            self.has_two_names |= self.written.get(known) != Some(&written);
            return Ok(known);
        }
        self.keys.push(key);
        self.written.push(written);
        Ok(self.keys.len() - 1)
    }

    fn parts(&mut self, parts: &'a [Vec<Expr>]) -> Result<Vec<Vec<usize>>, Reason> {
        parts.iter().map(|part| self.positions(part)).collect()
    }
}

/// `ROLLUP (a, b)` is `GROUPING SETS ((a, b), (a), ())`.
fn rollup(parts: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let lengths = (0..=parts.len()).rev();
    lengths
        .map(|length| parts.iter().take(length).flatten().copied().collect())
        .collect()
}

/// `CUBE (a, b)` is `GROUPING SETS ((a, b), (a), (b), ())`.
fn cube(parts: &[Vec<usize>]) -> Result<Vec<Vec<usize>>, Reason> {
    let mut sets: Vec<Vec<usize>> = vec![vec![]];
    for part in parts {
        sets = product(&sets, &[part.clone(), vec![]])?;
    }
    Ok(sets)
}

fn product(sets: &[Vec<usize>], by: &[Vec<usize>]) -> Result<Vec<Vec<usize>>, Reason> {
    if sets.len() * by.len() > GROUPING_SETS_MAX {
        let detail = format!("more than {GROUPING_SETS_MAX} grouping sets");
        return Err(Reason::new(Code::GroupingSets, detail));
    }
    let joined = |set: &Vec<usize>, more: &Vec<usize>| {
        let mut joined = set.clone();
        let new: Vec<usize> = more
            .iter()
            .copied()
            .filter(|key| !set.contains(key))
            .collect();
        joined.extend(new);
        joined
    };
    Ok(sets
        .iter()
        .flat_map(|set| by.iter().map(move |more| joined(set, more)))
        .collect())
}
