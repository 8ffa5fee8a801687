//! GROUP BY: a plain list of keys, or grouping sets as sets of positions in one list of keys.

use sqlparser::ast::Expr;

use crate::expr::Scalar;
use crate::from::without_parentheses;
use crate::reason::{Code, Reason};

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
    let is_total_only = reader.keys.is_empty() && !items.is_empty();
    Ok(Grouping {
        keys: reader.keys,
        sets: (!is_plain || is_total_only).then_some(sets),
    })
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
