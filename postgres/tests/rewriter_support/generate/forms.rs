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
        let sql = match random.below(15) {
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
            _ => ordered_by_hidden(query, parts, random)?,
        };
        Some(Written {
            sql,
            is_total: false,
        })
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
    parts.group_by = match random.below(4) {
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
        sql: format!("{}{order}\n{page}", parts.sql()),
        is_total: true,
    }
}

/// The group that comes first of those with equal first keys.
fn distinct_on(query: &Shape, parts: &Parts) -> Option<String> {
    query.keys.first()?;
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
