//! Statements of more than one block: what dashboards and analysts put around an aggregation.

use super::Type;
use super::expressions::{filter_on_key, predicate};
use super::render::{Parts, Written, group_by_positions, plain};
use super::shape::Shape;
use super::star::Star;
use crate::rewriter_support::data::Random;

impl Star {
    /// The query inside, or as a part of, a larger statement; nothing when it does not lend itself to it.
    pub(super) fn formed(&self, query: &Shape, random: &mut Random) -> Option<Written> {
        let parts = self.parts(query, random);
        let sql = match random.below(19) {
            0 => rowcount(&parts, random),
            1 | 2 => reaggregated(query, &parts, random)?,
            3 => self.union(query, random),
            4 | 5 => windowed(query, parts, random)?,
            6 => grouping_sets(query, parts, random)?,
            7 => scalars(query, &parts, random)?,
            8 => self.among(query, random)?,
            9 | 10 => series_limit(query, &parts, random)?,
            11 => return Some(limited(&parts, random)),
            12 => distinct_on(query, &parts)?,
            13 => common(&parts, random),
            14 => self.union_below(query, random)?,
            15 => shown_twice(query, parts, random)?,
            16 => more_windows(query, parts, random)?,
            17 => self.outer_joined(query, random)?,
            _ => ordered_by_hidden(query, parts, random)?,
        };
        Some(Written::of(sql))
    }

    /// Two arms of rows or of cells below one aggregation.
    fn union_below(&self, query: &Shape, random: &mut Random) -> Option<String> {
        let mut other = query.clone();
        if random.chance(50) {
            other.filters.pop();
        }
        let key = query.keys.len().checked_sub(1)?;
        let measure = key + 1;
        query.aggregates.first()?;
        let operator = *random.pick(&["UNION ALL", "UNION ALL", "UNION ALL", "UNION"]);
        let arms = match random.chance(50) {
            true => (
                self.parts(query, random).sql(),
                self.parts(&other, random).sql(),
            ),
            // Rows: what would be grouped, and a number to add up.
            false => {
                let number = self
                    .visible(&query.joins)
                    .into_iter()
                    .find(|(_, ty)| *ty == Type::Integer)?
                    .0;
                let rows = |shape: &Shape| {
                    let (from, filter) = self.from(&shape.joins, &shape.filters, false);
                    plain(&format!(
                        "SELECT {} AS c{key}, {number} AS c{measure}\nFROM {from}{filter}",
                        shape.keys[key]
                    ))
                };
                (rows(query), rows(&other))
            }
        };
        let function = random.pick(&["sum", "sum", "max", "count", "avg"]);
        let (one, two) = arms;
        Some(format!(
            "SELECT c{key} AS k, {function}(c{measure}) AS m, count(*) AS n\nFROM (\n{one}\n{operator}\n{two}\n) AS v\nGROUP BY c{key}"
        ))
    }

    /// With its first join turned around, or kept on both sides.
    fn outer_joined(&self, query: &Shape, random: &mut Random) -> Option<String> {
        let sql = self.parts(query, random).sql();
        let kind = *random.pick(&["RIGHT JOIN", "FULL JOIN"]);
        match sql.contains("LEFT JOIN ") {
            true => Some(sql.replacen("LEFT JOIN", kind, 1)),
            false if sql.contains("\nFROM f JOIN ") => {
                Some(sql.replacen(" JOIN ", &format!(" {kind} "), 1))
            }
            false => None,
        }
    }

    /// The query and a sister of it with another filter, one below the other.
    fn union(&self, query: &Shape, random: &mut Random) -> String {
        let mut other = query.clone();
        match other.filters.is_empty() {
            false => drop(other.filters.pop()),
            true => {
                let attribute = random.pick(self.attributes_of("f")).clone();
                let column = format!("{{f.{}}}", attribute.name);
                other.filters.push(predicate(&column, attribute.ty, random));
            }
        }
        let operator = random.pick(&["UNION ALL", "UNION ALL", "UNION", "EXCEPT", "INTERSECT"]);
        let (one, two) = (
            self.parts(query, random).sql(),
            self.parts(&other, random).sql(),
        );
        format!("{one}\n{operator}\n{two}")
    }

    /// With a key that must be, or not be, among those of a table.
    fn among(&self, query: &Shape, random: &mut Random) -> Option<String> {
        let mut query = query.clone();
        let dimension = random.pick(&self.dimensions);
        let (theirs, own) = dimension.on.first()?;
        if dimension.parent != "f" {
            return None;
        }
        let attribute = random.pick(self.attributes_of(&dimension.alias));
        let condition = plain(&predicate(
            &format!("other.{}", attribute.name),
            attribute.ty,
            random,
        ));
        let table = &dimension.table;
        query.filters.push(match random.below(4) {
            0 => format!("{{f.{theirs}}} NOT IN (SELECT other.{own} FROM {table} AS other WHERE {condition})"),
            1 => format!("EXISTS (SELECT 1 FROM {table} AS other WHERE other.{own} = {{f.{theirs}}} AND {condition})"),
            2 => format!("{{f.{theirs}}} = ANY (SELECT other.{own} FROM {table} AS other WHERE {condition})"),
            _ => format!("{{f.{theirs}}} IN (SELECT other.{own} FROM {table} AS other WHERE {condition})"),
        });
        Some(self.parts(&query, random).sql())
    }
}

fn rowcount(parts: &Parts, random: &mut Random) -> String {
    let limit = if random.chance(50) {
        format!("\nLIMIT {}", 1 + random.below(20))
    } else {
        String::new()
    };
    format!(
        "SELECT count(*) AS rowcount\nFROM (\n{}{limit}\n) AS rowcount_qry",
        parts.sql()
    )
}

/// An aggregation over the cells of the query.
fn reaggregated(query: &Shape, parts: &Parts, random: &mut Random) -> Option<String> {
    let measure = (query.keys.len()..parts.names.len()).next_back()?;
    let function = random.pick(&["sum", "max", "min", "count", "avg"]);
    let aggregate = format!("{function}(c{measure})");
    let key = if query.keys.is_empty() {
        None
    } else {
        Some(random.below(query.keys.len()))
    };
    let condition = match key {
        Some(key) if random.chance(30) => format!("\nWHERE c{key} IS NOT NULL"),
        _ => String::new(),
    };
    let inner = parts.sql();
    Some(match key {
        Some(key) if random.chance(80) => {
            format!(
                "SELECT c{key} AS k, {aggregate} AS m, count(*) AS n\nFROM (\n{inner}\n) AS virtual_table{condition}\nGROUP BY c{key}"
            )
        }
        _ => format!("SELECT {aggregate} AS m\nFROM (\n{inner}\n) AS virtual_table{condition}"),
    })
}

/// Window functions whose values do not depend on the order among equals.
fn windowed(query: &Shape, mut parts: Parts, random: &mut Random) -> Option<String> {
    let aggregate = query.aggregates.first()?;
    let key = query.keys.first();
    let partition = key
        .filter(|_| random.chance(60))
        .map_or(String::new(), |key| format!("PARTITION BY {key}"));
    let window = match random.below(4) {
        0 => format!("rank() OVER ({partition} ORDER BY {aggregate} DESC)"),
        1 => format!("count(*) OVER ({partition})"),
        2 => format!("max({aggregate}) OVER ({partition})"),
        _ => format!("sum(count(*)) OVER ({partition})"),
    };
    parts.items.push(format!("{window} AS w"));
    Some(parts.sql())
}

fn grouping_sets(query: &Shape, mut parts: Parts, random: &mut Random) -> Option<String> {
    let first = query.keys.first()?.clone();
    let keys = query.keys.join(", ");
    let positions: Vec<String> = (1..=query.keys.len()).map(|at| at.to_string()).collect();
    let positions = positions.join(", ");
    parts.group_by = match random.below(8) {
        4 => format!("\nGROUP BY ROLLUP ({positions})"),
        5 => format!("\nGROUP BY CUBE (({keys}), {first})"),
        6 => format!("\nGROUP BY {first}, ROLLUP ({keys})"),
        7 => format!("\nGROUP BY GROUPING SETS ((1), ({positions}), (), ())"),
        0 => format!("\nGROUP BY ROLLUP ({keys})"),
        1 => format!("\nGROUP BY CUBE ({keys})"),
        2 => format!("\nGROUP BY GROUPING SETS (({keys}), ())"),
        _ => format!("\nGROUP BY GROUPING SETS (({first}), ({keys}))"),
    };
    parts.items.push(format!("grouping({first}) AS g"));
    Some(parts.sql())
}

/// Totals as scalar sub-queries, in the list or in HAVING.
fn scalars(query: &Shape, parts: &Parts, random: &mut Random) -> Option<String> {
    let aggregate = query.aggregates.first()?;
    let total = plain(&format!(
        "SELECT {aggregate} FROM {}{}",
        parts.from, parts.filter
    ));
    Some(match random.below(3) {
        0 => format!("SELECT ({total}) AS total, 1 AS one"),
        1 => format!(
            "{}\nHAVING count(*) > (SELECT count(*) / 20 FROM f)",
            parts.sql()
        ),
        _ => format!(
            "SELECT cells.*, ({total}) AS total\nFROM (\n{}\n) AS cells",
            parts.sql()
        ),
    })
}

/// Only the cells of the largest few keys, as Superset limits series.
fn series_limit(query: &Shape, parts: &Parts, random: &mut Random) -> Option<String> {
    let key = query.keys.first()?;
    let aggregate = query.aggregates.first()?;
    let inner = format!(
        "SELECT {key} AS key__, {aggregate} AS mme_inner__\nFROM {}{}\nGROUP BY {key}\nORDER BY mme_inner__ DESC, key__\nLIMIT {}",
        parts.from,
        parts.filter,
        1 + random.below(4)
    );
    let items = parts.items.join(", ");
    let (from, filter, group_by) = (&parts.from, &parts.filter, &parts.group_by);
    if from.contains(", ") {
        return None;
    }
    Some(plain(&match random.below(3) {
        0 => format!(
            "SELECT CASE WHEN series_limit.key__ IS NOT NULL THEN {key} END AS k, count(*) AS n\nFROM {from}\nLEFT JOIN (\n{inner}\n) AS series_limit ON {key} = key__{filter}\nGROUP BY 1"
        ),
        _ => format!(
            "SELECT {items}\nFROM {from}\nJOIN (\n{inner}\n) AS series_limit ON {key} = key__{filter}{group_by}"
        ),
    }))
}

/// A page of the cells in an order that leaves nothing open.
fn limited(parts: &Parts, random: &mut Random) -> Written {
    let order = group_by_positions(parts.names.len()).replace("GROUP BY", "ORDER BY");
    let (from, to) = (random.below(4), 1 + random.below(6));
    let page = match random.below(4) {
        0 => format!("LIMIT {to} OFFSET {from}"),
        1 => format!("OFFSET {from} ROWS FETCH FIRST {to} ROWS ONLY"),
        2 => format!("FETCH FIRST {to} ROWS WITH TIES"),
        _ => format!("LIMIT {to}"),
    };
    Written {
        is_total: true,
        ..Written::of(format!("{}{order}\n{page}", parts.sql()))
    }
}

/// With one output repeated, and groups by position and by expression at once.
fn shown_twice(query: &Shape, mut parts: Parts, random: &mut Random) -> Option<String> {
    let key = query.keys.first()?.clone();
    parts.items.push(format!("{key} AS again"));
    let last = parts.items.len();
    let keys = query.keys.join(", ");
    parts.group_by = match random.below(5) {
        0 => format!("\nGROUP BY {keys}, {last}"),
        1 => format!("\nGROUP BY ROLLUP ({last}, 1)"),
        2 => format!("\nGROUP BY GROUPING SETS (({keys}), ({last}))"),
        3 => format!("\nGROUP BY {last}, {keys}"),
        _ => format!("\nGROUP BY {keys}"),
    };
    Some(parts.sql())
}

/// Window functions over an order that leaves nothing open, with frames and names.
fn more_windows(query: &Shape, mut parts: Parts, random: &mut Random) -> Option<String> {
    let aggregate = query.aggregates.first()?;
    query.keys.first()?;
    let keys = query.keys.join(", ");
    let frame = *random.pick(&[
        "",
        " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW",
        " ROWS UNBOUNDED PRECEDING",
        " RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
        " GROUPS BETWEEN CURRENT ROW AND 1 FOLLOWING",
    ]);
    let function = match random.below(7) {
        0 => "row_number()".to_owned(),
        1 => format!("lag({aggregate}, 1)"),
        2 => format!("lead({aggregate})"),
        3 => format!("first_value({aggregate})"),
        4 => "ntile(3)".to_owned(),
        5 => "dense_rank()".to_owned(),
        _ => "sum(count(*))".to_owned(),
    };
    let first = &query.keys[0];
    let window = match random.below(3) {
        0 => format!("PARTITION BY {first} ORDER BY {keys}"),
        1 => format!("ORDER BY {keys} DESC NULLS LAST"),
        _ => format!("ORDER BY {keys}"),
    };
    Some(match random.chance(30) {
        true => {
            parts.items.push(format!("{function} OVER w AS w"));
            format!("{}\nWINDOW w AS ({}{frame})", parts.sql(), plain(&window))
        }
        false => {
            parts
                .items
                .push(format!("{function} OVER ({window}{frame}) AS w"));
            parts.sql()
        }
    })
}

/// The group that comes first of those with equal first keys.
fn distinct_on(query: &Shape, parts: &Parts) -> Option<String> {
    query.keys.first()?;
    if query.aggregates.is_empty() {
        let (from, filter) = (&parts.from, &parts.filter);
        let (items, first) = (parts.items.join(", "), &query.keys[0]);
        let keys = query.keys.join(", ");
        return Some(plain(&format!(
            "SELECT DISTINCT ON ({first}) {items}, 1 AS one\nFROM {from}{filter}\nORDER BY {keys}"
        )));
    }
    let order: Vec<String> = (1..=parts.names.len())
        .map(|position| position.to_string())
        .collect();
    let select = parts.sql();
    let rest = select.strip_prefix("SELECT ")?;
    let first = plain(&query.keys[0]);
    Some(format!(
        "SELECT DISTINCT ON ({first}) {rest}\nORDER BY {}",
        order.join(", ")
    ))
}

/// Common table expressions, of which one may be used twice.
fn common(parts: &Parts, random: &mut Random) -> String {
    let inner = parts.sql();
    let first = &parts.names[0];
    match random.below(3) {
        0 => format!("WITH cells AS (\n{inner}\n)\nSELECT * FROM cells WHERE {first} IS NOT NULL"),
        1 => format!(
            "WITH cells AS MATERIALIZED (\n{inner}\n), again AS (SELECT * FROM cells)\nSELECT {first} AS v, count(*) AS n FROM again GROUP BY {first}"
        ),
        _ => format!(
            "WITH cells AS (\n{inner}\n)\nSELECT a.{first} AS v, (SELECT count(*) FROM cells) AS n FROM cells AS a"
        ),
    }
}

/// Ordered by what is not shown, and filtered by HAVING over a key.
fn ordered_by_hidden(query: &Shape, parts: Parts, random: &mut Random) -> Option<String> {
    let key = query.keys.first()?;
    let condition = filter_on_key(key, Type::Boolean, random);
    let select = parts.sql();
    Some(plain(&format!(
        "{select}\nHAVING {condition}\nORDER BY count(*) DESC, {key}"
    )))
}
