//! Shapes as SQL: FROM in several forms, names that need quotes, positions, sub-selects and common table expressions.

use super::push_new;
use super::shape::{Join, Shape};
use super::star::Star;
use crate::rewriter_support::data::Random;

/// A query as text.
#[derive(Debug, Clone)]
pub struct Written {
    pub sql: String,
    /// Its rows come in one order only, also where it has a LIMIT.
    pub is_total: bool,
    /// What `$1`, `$2` and so on are bound to, as text.
    pub parameters: Vec<String>,
}

impl Written {
    pub fn of(sql: String) -> Written {
        Written {
            sql,
            is_total: false,
            parameters: vec![],
        }
    }

    /// Puts parameters in the place of constants that something is compared with.
    fn bind(&mut self, random: &mut Random) {
        let parameters = &mut self.parameters;
        self.sql = with_compared(&self.sql, |constant| {
            random.chance(60).then(|| {
                parameters.push(constant.trim_matches('\'').to_owned());
                format!("${}", parameters.len())
            })
        });
    }

    /// The same with other constants in the place of those that something is compared with; times stay.
    pub fn with_other_constants(&self, random: &mut Random) -> Written {
        let sql = with_compared(&self.sql, |constant| {
            let others: &[&str] = match constant.parse::<f64>() {
                Ok(_) if constant.contains('.') => &["0.5", "1.5", "2.50"],
                Ok(_) => &["0", "1", "2", "3", "7", "3000000000"],
                Err(_) if constant.contains(['-', ':']) => return None,
                Err(_) if ["'sad'", "'ok'", "'Glad'"].contains(&constant) => {
                    &["'sad'", "'ok'", "'Glad'"]
                }
                Err(_) => &["'a'", "'b'", "'A'", "'x'", "''", "'it''s'"],
            };
            Some((*random.pick(others)).to_owned())
        });
        Written {
            sql,
            ..self.clone()
        }
    }
}

/// The text with something else in the place of constants that something is compared with.
fn with_compared(sql: &str, mut instead: impl FnMut(&str) -> Option<String>) -> String {
    let mut rest = sql;
    let mut text = String::new();
    while let Some(at) = rest.find(['=', '<', '>']) {
        let (before, after) = rest.split_at(at + 1);
        text += before;
        rest = after;
        let Some(constant) = rest.strip_prefix(' ').and_then(constant) else {
            continue;
        };
        if let Some(instead) = instead(constant) {
            text += &format!(" {instead}");
            rest = &rest[1 + constant.len()..];
        }
    }
    text + rest
}

/// A number, or a text without quotes in it, that something else begins behind.
fn constant(text: &str) -> Option<&str> {
    let end = match text.strip_prefix('\'') {
        Some(inside) => 2 + inside.find('\'')?,
        None => text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len()),
    };
    let ends = text[end..]
        .chars()
        .next()
        .is_none_or(|next| matches!(next, ' ' | '\n' | ')'));
    (end > 0 && ends).then(|| &text[..end])
}

/// The parts of a grouped SELECT.
pub(super) struct Parts {
    /// `expression AS name` of keys, then of aggregates.
    pub(super) items: Vec<String>,
    pub(super) names: Vec<String>,
    pub(super) from: String,
    pub(super) filter: String,
    pub(super) group_by: String,
}

impl Parts {
    pub(super) fn sql(&self) -> String {
        plain(&format!(
            "SELECT {}\nFROM {}{}{}",
            self.items.join(", "),
            self.from,
            self.filter,
            self.group_by
        ))
    }
}

impl Star {
    /// The defining SELECT.
    pub fn rollup_sql(&self, rollup: &Shape) -> String {
        let items: Vec<String> = rollup
            .keys
            .iter()
            .chain(&rollup.aggregates)
            .cloned()
            .collect();
        let (from, filter) = self.from(&rollup.joins, &rollup.filters, false);
        let group_by = group_by_positions(rollup.keys.len());
        plain(&format!(
            "SELECT {}\nFROM {from}{filter}{group_by}",
            items.join(", ")
        ))
    }

    /// The query in the way that this seed says.
    pub fn query_sql(&self, query: &Shape, seed: u64) -> Written {
        let random = &mut Random(seed);
        let over_view = match random.chance(50) {
            true => self.over_view(query, random),
            false => None,
        };
        let mut written = match over_view {
            Some(sql) => Written::of(sql),
            None if random.chance(45) => {
                let formed = self.formed(query, random);
                formed.unwrap_or_else(|| Written::of(self.flat(query, random)))
            }
            None => Written::of(self.flat(query, random)),
        };
        if random.chance(15) {
            written.bind(random);
        }
        written
    }

    /// Plain parts, with names `c0`, `c1` and so on.
    pub(super) fn parts(&self, query: &Shape, random: &mut Random) -> Parts {
        let values = query.keys.iter().chain(&query.aggregates);
        let items: Vec<String> = values
            .enumerate()
            .map(|(position, value)| format!("{value} AS c{position}"))
            .collect();
        let names = (0..items.len())
            .map(|position| format!("c{position}"))
            .collect();
        let (from, filter) = self.from(&query.joins, &query.filters, random.chance(20));
        let group_by = group_by_positions(query.keys.len());
        Parts {
            items,
            names,
            from,
            filter,
            group_by,
        }
    }

    /// One block, perhaps over a sub-select.
    fn flat(&self, query: &Shape, random: &mut Random) -> String {
        let inner_count = if random.chance(50) {
            query.filters.len()
        } else {
            random.below(query.filters.len() + 1)
        };
        let is_wrapped = random.chance(35);
        let mut items: Vec<String> = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for (position, value) in query.keys.iter().chain(&query.aggregates).enumerate() {
            let name = match random.below(6) {
                0 => "a".to_owned(),
                1 => format!("\"Weird {position} \"\"x\"\"\""),
                // Perhaps the name of an input column, which GROUP BY then means.
                2 if random.chance(50) => random.pick(self.attributes_of("f")).name.clone(),
                _ => format!("c{position}"),
            };
            let name = if names.contains(&name) {
                format!("c{position}")
            } else {
                name
            };
            items.push(format!("{value} AS {name}"));
            names.push(name);
        }
        let distinct = if query.aggregates.is_empty() && random.chance(50) {
            "DISTINCT "
        } else {
            ""
        };
        let group_by = match distinct {
            "" if random.chance(50) => group_by_positions(query.keys.len()),
            "" if random.chance(15) && !query.keys.is_empty() => {
                format!("\nGROUP BY {}", names[..query.keys.len()].join(", "))
            }
            "" if query.keys.is_empty() => String::new(),
            "" => format!("\nGROUP BY {}", query.keys.join(", ")),
            _ => String::new(),
        };
        let having = match random.below(10) {
            0 if distinct.is_empty() => "\nHAVING count(*) > 2".to_owned(),
            1 if distinct.is_empty() && !query.aggregates.is_empty() => {
                format!("\nHAVING {} IS NOT NULL", query.aggregates[0])
            }
            _ => String::new(),
        };
        let mut order = String::new();
        if random.chance(50) {
            let mut parts: Vec<String> = Vec::new();
            for _ in 0..1 + random.below(2) {
                let position = random.below(items.len());
                let by = match random.below(3) {
                    0 => (position + 1).to_string(),
                    1 => names[position].clone(),
                    _ => format!("({})", names[position]),
                };
                let suffix = random.pick(&["", " DESC", " ASC NULLS FIRST", " DESC NULLS LAST"]);
                parts.push(format!("{by}{suffix}"));
            }
            order = format!("\nORDER BY {}", parts.join(", "));
        }
        let limit = if random.chance(25) {
            format!("\nLIMIT {}", 1 + random.below(6))
        } else {
            String::new()
        };
        let select = format!("SELECT {distinct}{}", items.join(", "));
        let tail = format!("{group_by}{having}{order}{limit}");
        if !is_wrapped {
            let (from, filter) = self.from(&query.joins, &query.filters, random.chance(30));
            let from = match random.chance(25) && query.joins.len() == 1 {
                true => with_all_of_dimension(&from),
                false => from,
            };
            return plain(&format!("{select}\nFROM {from}{filter}{tail}"));
        }
        self.wrapped(query, &select, &tail, inner_count, random)
    }

    /// Over a sub-select or a common table expression, as a virtual dataset is.
    fn wrapped(
        &self,
        query: &Shape,
        select: &str,
        tail: &str,
        inner_count: usize,
        random: &mut Random,
    ) -> String {
        let (inner, outer) = query.filters.split_at(inner_count);
        let (from, filter) = self.from(&query.joins, inner, random.chance(30));
        let mut columns: Vec<String> = Vec::new();
        let text = format!("{select} {tail} {}", outer.join(" "));
        for piece in text.split('{').skip(1) {
            let name = piece.split('}').next().unwrap();
            push_new(&mut columns, format!("{{{name}}} AS {}", flattened(name)));
        }
        if columns.is_empty() {
            let some = &self.attributes_of("f")[0].name;
            columns.push(format!(
                "{{f.{some}}} AS {}",
                flattened(&format!("f.{some}"))
            ));
        }
        let inner = plain(&format!(
            "SELECT {} FROM {from}{filter}",
            columns.join(", ")
        ));
        let outer = if outer.is_empty() {
            String::new()
        } else {
            format!("\nWHERE {}", outer.join(" AND "))
        };
        let rest = renamed(&format!("{outer}{tail}"));
        let select = renamed(select);
        if random.chance(40) {
            format!("WITH star AS (\n{inner}\n)\n{select}\nFROM star{rest}")
        } else {
            format!("{select}\nFROM (\n{inner}\n) AS virtual_table{rest}")
        }
    }

    /// FROM and WHERE.
    pub(super) fn from(
        &self,
        joins: &[Join],
        filters: &[String],
        with_commas: bool,
    ) -> (String, String) {
        let mut from = "f".to_owned();
        let mut conditions: Vec<String> = filters.to_vec();
        let with_commas = with_commas && joins.iter().all(|join| !join.is_left);
        for join in joins {
            let dimension = &self.dimensions[join.dimension];
            let mut mention = if dimension.table == dimension.alias {
                dimension.table.clone()
            } else {
                format!("{} {}", dimension.table, dimension.alias)
            };
            let pairs = dimension.on.iter();
            let mut on = pairs
                .map(|(theirs, own)| {
                    format!(
                        "{{{}.{theirs}}} = {{{}.{own}}}",
                        dimension.parent, dimension.alias
                    )
                })
                .collect::<Vec<_>>()
                .join(" AND ");
            // The extra condition may name a table that is joined later.
            if let Some(extra) = &join.extra
                && self.names_only(extra, joins, join)
            {
                let own = format!("{{{}.", dimension.alias);
                let is_own = extra.matches('{').count() == extra.matches(&own).count();
                // As often as not the condition stands in a sub-select of the table's rows.
                if join.is_left && is_own && extra.len().is_multiple_of(2) {
                    let (table, alias) = (&dimension.table, &dimension.alias);
                    mention =
                        format!("(SELECT * FROM {table} AS {alias} WHERE {extra}) AS {alias}");
                } else {
                    on = format!("{on} AND {extra}");
                }
            }
            if with_commas {
                from = format!("{from}, {mention}");
                conditions.push(on);
            } else {
                let kind = if join.is_left { "LEFT JOIN" } else { "JOIN" };
                from = format!("{from} {kind} {mention} ON {on}");
            }
        }
        let filter = if conditions.is_empty() {
            String::new()
        } else {
            format!("\nWHERE {}", conditions.join(" AND "))
        };
        (from, filter)
    }

    fn names_only(&self, condition: &str, joins: &[Join], until: &Join) -> bool {
        let position = joins.iter().position(|join| join == until).unwrap_or(0);
        let known: Vec<&str> = joins[..=position]
            .iter()
            .map(|join| self.dimensions[join.dimension].alias.as_str())
            .collect();
        condition.split('{').skip(1).all(|piece| {
            let alias = piece.split('.').next().unwrap();
            alias == "f" || known.contains(&alias)
        })
    }
}

/// The join of the fact with one dimension, all of whose rows are kept, or with commas as it was.
fn with_all_of_dimension(from: &str) -> String {
    let joined = from.strip_prefix("f JOIN ");
    match joined.or_else(|| from.strip_prefix("f LEFT JOIN ")) {
        Some(dimension) => format!("f RIGHT JOIN {dimension}"),
        None => from.to_owned(),
    }
}

/// The name of a sub-select's column for one of its tables' columns.
pub(super) fn flattened(column: &str) -> String {
    column
        .replace('.', "_")
        .replace(|c: char| !c.is_alphanumeric() && c != '_', "")
}

pub(super) fn group_by_positions(count: usize) -> String {
    let positions: Vec<String> = (1..=count).map(|position| position.to_string()).collect();
    if positions.is_empty() {
        String::new()
    } else {
        format!("\nGROUP BY {}", positions.join(", "))
    }
}

pub(super) fn plain(sql: &str) -> String {
    sql.replace(['{', '}'], "")
}

/// `{alias.column}` as the sub-select's column.
pub(super) fn renamed(sql: &str) -> String {
    let mut text = String::new();
    for (position, piece) in sql.split('{').enumerate() {
        match piece.split_once('}') {
            Some((name, rest)) if position > 0 => {
                text += &flattened(name);
                text += rest;
            }
            _ => text += piece,
        }
    }
    text
}
