//! Random stars, rollups over them, and queries that are nearly or exactly answerable.
//!
//! Columns are written `{alias.column}` until the shape of FROM is chosen: over a sub-select they
//! become `alias_column`, otherwise `alias.column`.

use super::data::Random;

/// How a dimension hangs on its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reference {
    /// Enforced, never NULL.
    Total,
    /// Enforced, may be NULL.
    Partial,
    /// Not enforced; the dimension has a key.
    Dangling,
    /// Declared, but not for rows that were there before.
    NotValid,
    /// The dimension has no key: rows may match twice.
    Multiplying,
}

#[derive(Debug, Clone)]
struct Dimension {
    table: String,
    alias: String,
    /// The alias and column that refer to it.
    parent: String,
    column: String,
    reference: Reference,
    /// Another role of an earlier dimension's table.
    is_role: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Integer,
    Text,
    Padded,
    Date,
    Timestamp,
    Instant,
    Boolean,
    Scaled,
    Numeric,
    Float,
}

/// A random star.
#[derive(Debug, Clone)]
pub struct Star {
    pub ddl: String,
    dimensions: Vec<Dimension>,
}

const FACT: &[(&str, &str, Type)] = &[
    ("a", "integer", Type::Integer),
    ("b", "smallint", Type::Integer),
    ("c", "bigint", Type::Integer),
    ("n", "numeric(10,2)", Type::Scaled),
    ("u", "numeric", Type::Numeric),
    ("x", "double precision", Type::Float),
    ("t", "text", Type::Text),
    ("v", "varchar(3)", Type::Text),
    ("p", "char(3)", Type::Padded),
    ("d", "date", Type::Date),
    ("ts", "timestamp", Type::Timestamp),
    ("tz", "timestamptz", Type::Instant),
    ("ok", "boolean", Type::Boolean),
];

const DIMENSION: &[(&str, &str, Type)] = &[
    ("name", "text", Type::Text),
    ("kind", "varchar(3)", Type::Text),
    ("num", "integer", Type::Integer),
    ("day", "date", Type::Date),
    ("r", "numeric(8,3)", Type::Scaled),
];

impl Star {
    pub fn random(random: &mut Random) -> Star {
        let mut star = Star {
            ddl: String::new(),
            dimensions: vec![],
        };
        let mut fact_columns = columns(FACT, random);
        let mut not_valid = String::new();
        for number in 0..1 + random.below(3) {
            star.arm(number, &mut fact_columns, &mut not_valid, random);
        }
        star.ddl += &format!(
            "CREATE TABLE f (\n    {}\n);\n\n",
            fact_columns.join(",\n    ")
        );
        star.ddl += &not_valid;
        star
    }

    /// A dimension, perhaps with one behind it, perhaps in a second role.
    fn arm(
        &mut self,
        number: usize,
        fact: &mut Vec<String>,
        not_valid: &mut String,
        random: &mut Random,
    ) {
        use Reference::{Dangling, Multiplying, NotValid, Partial, Total};
        let table = format!("d{number}");
        let reference = *random.pick(&[
            Total,
            Total,
            Total,
            Total,
            Partial,
            Partial,
            Dangling,
            NotValid,
            Multiplying,
            Multiplying,
        ]);
        let key_type = match reference {
            Total | Partial => *random.pick(&["integer", "integer", "bigint", "text", "numeric"]),
            Dangling | NotValid | Multiplying => "integer",
        };
        let mut own = vec![match reference {
            Multiplying => format!("id {key_type}"),
            _ => format!("id {key_type} PRIMARY KEY"),
        }];
        own.extend(columns(DIMENSION, random));
        if random.chance(40) {
            let outer = format!("{table}o");
            let outer_reference = *random.pick(&[Total, Total, Partial, Multiplying]);
            let mut outer_columns = vec![match outer_reference {
                Multiplying => "id integer".to_owned(),
                _ => "id integer PRIMARY KEY".to_owned(),
            }];
            outer_columns.extend(columns(DIMENSION, random));
            self.ddl += &format!(
                "CREATE TABLE {outer} (\n    {}\n);\n\n",
                outer_columns.join(",\n    ")
            );
            own.push(foreign_key("up", "integer", &outer, outer_reference));
            self.table(&table, &own);
            self.dimension(&table, &table, "f", &format!("k{number}"), reference, false);
            self.dimension(&outer, &outer, &table, "up", outer_reference, false);
        } else {
            self.table(&table, &own);
            self.dimension(&table, &table, "f", &format!("k{number}"), reference, false);
        }
        // A key of another integer type than the one it refers to now and then.
        let fact_type = match key_type {
            "bigint" if random.chance(50) => "integer",
            other => other,
        };
        fact.push(foreign_key(
            &format!("k{number}"),
            fact_type,
            &table,
            reference,
        ));
        if reference == NotValid {
            *not_valid += &format!(
                "ALTER TABLE f ADD CONSTRAINT f_{table} FOREIGN KEY (k{number}) REFERENCES {table} (id) NOT VALID;\n\n"
            );
        }
        if random.chance(30) && matches!(reference, Total | Partial) {
            let role = *random.pick(&[Total, Partial]);
            fact.push(foreign_key(&format!("k{number}b"), fact_type, &table, role));
            let alias = format!("{table}b");
            self.dimension(&table, &alias, "f", &format!("k{number}b"), role, true);
        }
    }

    fn table(&mut self, name: &str, columns: &[String]) {
        self.ddl += &format!(
            "CREATE TABLE {name} (\n    {}\n);\n\n",
            columns.join(",\n    ")
        );
    }

    fn dimension(
        &mut self,
        table: &str,
        alias: &str,
        parent: &str,
        column: &str,
        reference: Reference,
        is_role: bool,
    ) {
        self.dimensions.push(Dimension {
            table: table.to_owned(),
            alias: alias.to_owned(),
            parent: parent.to_owned(),
            column: column.to_owned(),
            reference,
            is_role,
        });
    }
}

fn columns(of: &[(&str, &str, Type)], random: &mut Random) -> Vec<String> {
    of.iter()
        .map(|(name, ty, _)| {
            let not_null = if random.chance(35) { " NOT NULL" } else { "" };
            format!("{name} {ty}{not_null}")
        })
        .collect()
}

fn foreign_key(column: &str, ty: &str, table: &str, reference: Reference) -> String {
    match reference {
        Reference::Total => format!("{column} {ty} NOT NULL REFERENCES {table} (id)"),
        Reference::Partial => format!("{column} {ty} REFERENCES {table} (id)"),
        Reference::Dangling | Reference::Multiplying => format!("{column} {ty}"),
        Reference::NotValid => format!("{column} {ty} NOT NULL"),
    }
}

/// A join in a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Join {
    dimension: usize,
    is_left: bool,
    /// Another condition in ON.
    extra: Option<String>,
}

/// A statement before it is written down.
#[derive(Debug, Clone)]
pub struct Shape {
    joins: Vec<Join>,
    filters: Vec<String>,
    keys: Vec<String>,
    aggregates: Vec<String>,
}

impl Star {
    fn joins(&self, random: &mut Random) -> Vec<Join> {
        let mut joins: Vec<Join> = vec![];
        for (dimension, description) in self.dimensions.iter().enumerate() {
            let parent_is_there = description.parent == "f"
                || joins
                    .iter()
                    .any(|join| self.dimensions[join.dimension].alias == description.parent);
            if parent_is_there && random.chance(70) {
                joins.push(Join {
                    dimension,
                    is_left: random.chance(25),
                    extra: None,
                });
            }
        }
        joins
    }

    /// Every column that these joins make visible, with its type.
    fn visible(&self, joins: &[Join]) -> Vec<(String, Type)> {
        let mut all: Vec<(String, Type)> = FACT
            .iter()
            .map(|(name, _, ty)| (format!("{{f.{name}}}"), *ty))
            .collect();
        for join in joins {
            let alias = &self.dimensions[join.dimension].alias;
            all.extend(
                DIMENSION
                    .iter()
                    .map(|(name, _, ty)| (format!("{{{alias}.{name}}}"), *ty)),
            );
        }
        all
    }

    /// A rollup's shape: raw columns and buckets as keys.
    pub fn rollup(&self, random: &mut Random) -> Shape {
        let joins = self.joins(random);
        let visible = self.visible(&joins);
        let mut shape = Shape {
            joins,
            filters: vec![],
            keys: vec![],
            aggregates: vec!["count(*)".to_owned()],
        };
        for _ in 0..1 + random.below(5) {
            let (column, ty) = random.pick(&visible).clone();
            let key = match ty {
                Type::Float | Type::Numeric => continue,
                Type::Timestamp if random.chance(80) => {
                    let unit = random.pick(&[
                        "hour", "day", "day", "week", "week", "month", "month", "quarter",
                    ]);
                    format!("date_trunc('{unit}', {column})")
                }
                Type::Text if random.chance(10) => format!("upper({column})"),
                _ => column,
            };
            push_new(&mut shape.keys, key);
        }
        if random.chance(40) {
            let unit = random.pick(&["minute", "hour", "day", "week", "month", "quarter"]);
            push_new(&mut shape.keys, format!("date_trunc('{unit}', {{f.ts}})"));
        }
        for join in &shape.joins {
            let dimension = &self.dimensions[join.dimension];
            if random.chance(25) {
                push_new(&mut shape.keys, format!("{{{}.id}}", dimension.alias));
            }
            if random.chance(15) {
                push_new(
                    &mut shape.keys,
                    format!("{{{}.{}}}", dimension.parent, dimension.column),
                );
            }
        }
        shape.keys.retain(|key| !key.is_empty());
        for _ in 0..1 + random.below(5) {
            let aggregate = stored_aggregate(random.pick(&visible), random);
            push_new(&mut shape.aggregates, aggregate);
        }
        if random.chance(30) {
            let (column, ty) = random.pick(&visible).clone();
            shape.filters.push(predicate(&column, ty, random));
        }
        shape
    }

    /// A query that the rollup may answer, or nearly.
    pub fn query(&self, rollup: &Shape, random: &mut Random) -> Shape {
        let mut query = Shape {
            joins: rollup.joins.clone(),
            filters: vec![],
            keys: vec![],
            aggregates: vec![],
        };
        let keys: Vec<(String, Type)> = rollup
            .keys
            .iter()
            .map(|key| (key.clone(), self.key_type(key)))
            .collect();
        if !keys.is_empty() {
            for _ in 0..random.below(4) {
                let (key, ty) = random.pick(&keys).clone();
                let numbers: Vec<&str> = keys
                    .iter()
                    .filter(|(_, ty)| *ty == Type::Integer)
                    .map(|(key, _)| key.as_str())
                    .collect();
                let key = if random.chance(45) {
                    key
                } else if !numbers.is_empty() && random.chance(20) {
                    let (left, right) = (random.below(numbers.len()), random.below(numbers.len()));
                    chain([numbers[left], numbers[right]], random)
                } else {
                    derived_key(&key, ty, random)
                };
                push_new(&mut query.keys, key);
            }
            for _ in 0..random.below(3) {
                let (key, ty) = random.pick(&keys).clone();
                query.filters.push(filter_on_key(&key, ty, random));
            }
        }
        for filter in &rollup.filters {
            if random.chance(90) {
                query.filters.push(filter.clone());
            }
        }
        for _ in 0..random.below(4) {
            let stored = random.pick(&rollup.aggregates).clone();
            let mut aggregate = derived_aggregate(&stored, random);
            if !keys.is_empty() && random.chance(25) {
                let (key, ty) = random.pick(&keys).clone();
                aggregate = over_key(&key, ty, &aggregate, random);
            }
            query.aggregates.push(aggregate);
        }
        if query.aggregates.is_empty() && (query.keys.is_empty() || random.chance(60)) {
            query.aggregates.push("count(*)".to_owned());
        }
        if random.chance(55) {
            self.drop_unused(&mut query);
        }
        if random.chance(40) {
            self.mutate(&mut query, random);
        }
        query
    }

    fn key_type(&self, key: &str) -> Type {
        if key.starts_with("date_trunc") {
            return Type::Timestamp;
        }
        if key.starts_with("upper") {
            return Type::Text;
        }
        let name = key.trim_matches(['{', '}']).split('.').next_back().unwrap();
        let known = FACT
            .iter()
            .chain(DIMENSION)
            .find(|(known, _, _)| *known == name);
        // Identifiers may be of any type: a text stands for what only compares with itself.
        known.map_or(Type::Boolean, |(_, _, ty)| *ty)
    }

    /// Leaves out joins that nothing names.
    fn drop_unused(&self, query: &mut Shape) {
        loop {
            let text = [
                query.filters.join(" "),
                query.keys.join(" "),
                query.aggregates.join(" "),
            ]
            .join(" ");
            let is_needed = |join: &Join| {
                let alias = &self.dimensions[join.dimension].alias;
                text.contains(&format!("{{{alias}."))
                    || query
                        .joins
                        .iter()
                        .any(|other| self.dimensions[other.dimension].parent == *alias)
            };
            let Some(position) = query.joins.iter().position(|join| !is_needed(join)) else {
                return;
            };
            query.joins.remove(position);
        }
    }

    /// One change that usually takes the query out of the rollup's reach.
    fn mutate(&self, query: &mut Shape, random: &mut Random) {
        let visible = self.visible(&query.joins);
        let (column, ty) = random.pick(&visible).clone();
        match random.below(9) {
            0 => query.filters.push(predicate(&column, ty, random)),
            1 => push_new(&mut query.keys, derived_key(&column, ty, random)),
            2 => query
                .aggregates
                .push(stored_aggregate(&(column, ty), random)),
            3 if !query.joins.is_empty() => {
                let position = random.below(query.joins.len());
                query.joins[position].is_left ^= true;
            }
            4 if !query.joins.is_empty() => {
                let position = random.below(query.joins.len());
                query.joins[position].extra = Some(predicate(&column, ty, random));
            }
            5 => {
                let joins = self.joins(random);
                for join in joins {
                    if !query
                        .joins
                        .iter()
                        .any(|known| known.dimension == join.dimension)
                        && self.parent_is_in(&join, query)
                    {
                        query.joins.push(join);
                    }
                }
            }
            6 if !query.filters.is_empty() => {
                let position = random.below(query.filters.len());
                query.filters[position] = format!("NOT ({})", query.filters[position]);
            }
            7 if query.filters.len() > 1 => {
                let last = query.filters.pop().unwrap();
                query.filters[0] = format!("({} OR {last})", query.filters[0]);
            }
            _ => query.aggregates.push(format!("count(DISTINCT {column})")),
        }
    }

    fn parent_is_in(&self, join: &Join, query: &Shape) -> bool {
        let parent = &self.dimensions[join.dimension].parent;
        parent == "f"
            || query
                .joins
                .iter()
                .any(|known| self.dimensions[known.dimension].alias == *parent)
    }

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

    /// One way to write the query.
    pub fn query_sql(&self, query: &Shape, random: &mut Random) -> String {
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
            push_new(
                &mut columns,
                format!("{{{name}}} AS {}", name.replace('.', "_")),
            );
        }
        if columns.is_empty() {
            columns.push("{f.a} AS f_a".to_owned());
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
    fn from(&self, joins: &[Join], filters: &[String], with_commas: bool) -> (String, String) {
        let mut from = "f".to_owned();
        let mut conditions: Vec<String> = filters.to_vec();
        let with_commas = with_commas && joins.iter().all(|join| !join.is_left);
        for join in joins {
            let dimension = &self.dimensions[join.dimension];
            let mention = if dimension.table == dimension.alias {
                dimension.table.clone()
            } else {
                format!("{} {}", dimension.table, dimension.alias)
            };
            let mut on = format!(
                "{{{}.{}}} = {{{}.id}}",
                dimension.parent, dimension.column, dimension.alias
            );
            // The extra condition may name a table that is joined later.
            if let Some(extra) = &join.extra
                && self.names_only(extra, joins, join)
            {
                on = format!("{on} AND {extra}");
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

    /// Which kinds of references there are, for a report.
    pub fn references(&self) -> String {
        let kinds: Vec<String> = self
            .dimensions
            .iter()
            .map(|dimension| {
                format!(
                    "{:?}{}",
                    dimension.reference,
                    if dimension.is_role { " role" } else { "" }
                )
            })
            .collect();
        kinds.join(", ")
    }
}

fn group_by_positions(count: usize) -> String {
    let positions: Vec<String> = (1..=count).map(|position| position.to_string()).collect();
    if positions.is_empty() {
        String::new()
    } else {
        format!("\nGROUP BY {}", positions.join(", "))
    }
}

fn push_new(list: &mut Vec<String>, item: String) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn plain(sql: &str) -> String {
    sql.replace(['{', '}'], "")
}

/// `{alias.column}` as the sub-select's column.
fn renamed(sql: &str) -> String {
    let mut text = String::new();
    for (position, piece) in sql.split('{').enumerate() {
        match piece.split_once('}') {
            Some((name, rest)) if position > 0 => {
                text += &name.replace('.', "_");
                text += rest;
            }
            _ => text += piece,
        }
    }
    text
}

fn stored_aggregate((column, ty): &(String, Type), random: &mut Random) -> String {
    let functions: &[&str] = match ty {
        Type::Integer => &[
            "sum(@)",
            "avg(@)",
            "min(@)",
            "max(@)",
            "count(@)",
            "sum(@ * 2)",
            "sum(@) FILTER (WHERE {f.ok})",
        ],
        Type::Scaled => &[
            "sum(@)",
            "avg(@)",
            "count(@)",
            "min(@)",
            "max(@)",
            "sum(@ * {f.a})",
        ],
        Type::Numeric => &["sum(@)", "avg(@)", "count(@)"],
        Type::Float => &[
            "count(@)",
            "count(CASE WHEN @ > 1 THEN 1 END)",
            "sum(CASE WHEN @ > 1 THEN {f.a} END)",
        ],
        Type::Text => &["min(@)", "max(@)", "count(@)", "max(upper(@))"],
        Type::Padded => &["count(@)"],
        Type::Date | Type::Timestamp | Type::Instant => &["min(@)", "max(@)", "count(@)"],
        Type::Boolean => &["bool_and(@)", "bool_or(@)", "count(@)"],
    };
    random.pick::<&str>(functions).replace('@', column)
}

fn derived_aggregate(stored: &str, random: &mut Random) -> String {
    let swapped = match stored.split_once('(') {
        Some(("avg", rest)) if random.chance(40) => format!("sum({rest}"),
        Some(("sum", rest)) if random.chance(30) && !rest.contains("FILTER") => {
            format!("avg({rest}")
        }
        Some(("sum", rest)) if random.chance(20) && !rest.contains("FILTER") => {
            format!("count({rest}")
        }
        _ => stored.to_owned(),
    };
    match random.below(8) {
        0 => format!("{swapped}::text"),
        1 if swapped.starts_with("sum") => format!("{swapped} / NULLIF(count(*), 0)"),
        2 if swapped.starts_with("sum") || swapped.starts_with("count") => {
            format!("coalesce({swapped}, 0) + 1")
        }
        _ => swapped,
    }
}

/// An aggregate over a key, or under a condition over one.
fn over_key(key: &str, ty: Type, aggregate: &str, random: &mut Random) -> String {
    let condition = filter_on_key(key, ty, random);
    match random.below(5) {
        0 => format!("count(DISTINCT {key})"),
        1 => format!("count(CASE WHEN {condition} THEN 1 END)"),
        2 if aggregate.starts_with("sum(")
            && aggregate.ends_with(')')
            && !aggregate.contains("FILTER")
            && !aggregate.contains("NULLIF")
            && !aggregate.contains("coalesce") =>
        {
            let argument = &aggregate[4..aggregate.len() - 1];
            let otherwise = random.pick(&["", " ELSE 0", " ELSE NULL"]);
            format!("sum(CASE WHEN {condition} THEN {argument}{otherwise} END)")
        }
        3 if aggregate.ends_with(')')
            && !aggregate.contains("FILTER")
            && !aggregate.contains("NULLIF")
            && !aggregate.contains("coalesce") =>
        {
            format!("{aggregate} FILTER (WHERE {condition})")
        }
        _ => stored_aggregate(&(key.to_owned(), ty), random),
    }
}

/// Operators in a row without parentheses: whoever reads them must agree with PostgreSQL on what binds tighter.
fn chain(columns: [&str; 2], random: &mut Random) -> String {
    let mut text = comparison(columns, random);
    for _ in 0..random.below(3) {
        let not = random.pick(&["", "", "NOT "]);
        let junction = random.pick(&["AND", "OR"]);
        text = format!("{text} {junction} {not}{}", comparison(columns, random));
    }
    text
}

fn comparison(columns: [&str; 2], random: &mut Random) -> String {
    let (left, right) = (arithmetic(columns, random), arithmetic(columns, random));
    let not = *random.pick(&["", "NOT "]);
    match random.below(9) {
        0 => format!("{left} IS {not}NULL"),
        1 => format!("{left} {not}IN ({right}, 2)"),
        2 => format!("{left} {not}BETWEEN {right} AND 3 + {right}"),
        3 => format!("{left} IS {not}DISTINCT FROM {right}"),
        4 => format!("{left}::text {not}LIKE '1' || '%'"),
        5 => format!(
            "{left} || 'x' {} 'y' || {right}",
            random.pick(&["=", "<", "<>"])
        ),
        6 => format!("({left} > 1) IS {not}TRUE"),
        7 => format!("CASE WHEN {left} > 1 THEN {right} ELSE 0 END = {right}"),
        _ => format!(
            "{left} {} {right}",
            random.pick(&["=", "<>", "!=", "<", "<=", ">", ">="])
        ),
    }
}

fn arithmetic(columns: [&str; 2], random: &mut Random) -> String {
    let mut text = term(columns, random);
    for _ in 0..random.below(3) {
        text = match random.below(6) {
            0 => format!("{text} + {}", term(columns, random)),
            1 => format!("{text} - {}", term(columns, random)),
            2 => format!("{text} * {}", term(columns, random)),
            3 => format!("{text} % 3"),
            4 => format!("{text} / 2"),
            _ => format!("{text} - -{}", random.below(4)),
        };
    }
    text
}

fn term(columns: [&str; 2], random: &mut Random) -> String {
    let column = *random.pick(&columns);
    match random.below(7) {
        0 => format!("- {column}"),
        1 => format!("{column}::int::numeric"),
        2 => format!("-{}", random.below(5)),
        3 => format!("+{column}"),
        4 => random.below(5).to_string(),
        _ => column.to_owned(),
    }
}

fn derived_key(key: &str, ty: Type, random: &mut Random) -> String {
    let forms: &[&str] = match ty {
        Type::Integer => &[
            "@",
            "@ % 3",
            "@ / 2",
            "CASE WHEN @ > 2 THEN 'a' ELSE 'b' END",
            "coalesce(@, 0)",
            "floor(@ / 2) * 2",
            "@::text",
            "@ * 1.5",
            "-@",
        ],
        Type::Text => &[
            "@",
            "upper(@)",
            "left(@, 1)",
            "coalesce(@, '-')",
            "@ || 'x'",
            "length(@)",
            "nullif(@, 'a')",
        ],
        Type::Padded => &["@", "@::text", "length(@)", "upper(@)"],
        Type::Date => &[
            "@",
            "EXTRACT(year FROM @)",
            "EXTRACT(dow FROM @)",
            "date_trunc('month', @)",
            "@ + 1",
            "to_char(@, 'YYYY-MM')",
        ],
        Type::Timestamp => return derived_bucket(key, random),
        Type::Instant => &[
            "@",
            "date_trunc('day', @)",
            "@::date",
            "date_trunc('month', @)",
        ],
        Type::Boolean => &["@", "@ IS NULL", "coalesce(@::text, '?')"],
        Type::Scaled => &["@", "@ * 2", "round(@)", "@ + 1.5", "@ / 3", "@::text"],
        Type::Numeric | Type::Float => &["@"],
    };
    random.pick::<&str>(forms).replace('@', key)
}

fn derived_bucket(key: &str, random: &mut Random) -> String {
    let column = key
        .split_once(", ")
        .map_or(key, |(_, rest)| rest.trim_end_matches(')'));
    let forms: &[&str] = &[
        "date_trunc('hour', @)",
        "date_trunc('day', @)",
        "DATE_TRUNC('WEEK', @)",
        "DATE_TRUNC('MONTH', @)",
        "date_trunc('quarter', @)",
        "date_trunc('year', @)",
        "EXTRACT(month FROM @)",
        "EXTRACT(dow FROM @)",
        "EXTRACT(isoyear FROM @)",
        "date_part('year', @)",
        "@::date",
        "EXTRACT(hour FROM @)",
        "EXTRACT(week FROM @)",
    ];
    random.pick::<&str>(forms).replace('@', column)
}

/// A condition on what a key stands for.
fn filter_on_key(key: &str, ty: Type, random: &mut Random) -> String {
    let column = key
        .split_once(", ")
        .map_or(key, |(_, rest)| rest.trim_end_matches(')'));
    match ty {
        Type::Timestamp if random.chance(80) => predicate(column, ty, random),
        _ => predicate(key, ty, random),
    }
}

fn predicate(column: &str, ty: Type, random: &mut Random) -> String {
    let comparison = *random.pick(&["=", "<>", "<", "<=", ">", ">="]);
    let text = match ty {
        Type::Integer => {
            let (low, high) = (random.below(4), random.below(6));
            match random.below(8) {
                0 => format!("@ IN ({low}, {high})"),
                1 => format!("@ BETWEEN {low} AND {high}"),
                2 => format!("(@ IS NULL OR @ = {low})"),
                3 => format!("@ NOT IN ({low}, {high}, {})", random.pick(&["7", "NULL"])),
                4 => format!("NOT @ {comparison} {low}"),
                5 => "@ = @".to_owned(),
                6 => format!("@ IS DISTINCT FROM {low}"),
                _ => format!("@ {comparison} {low}"),
            }
        }
        Type::Text | Type::Padded => {
            let value = *random.pick(&["a", "b", "A", "a ", "", "it''s", "x"]);
            match random.below(6) {
                0 => format!("@ IN ('{value}', 'b')"),
                1 => "@ LIKE 'a%'".to_owned(),
                2 => "NOT @ IS NULL".to_owned(),
                3 => format!("(@ = '{value}' OR @ = 'red')"),
                4 => format!("'{value}' {comparison} @"),
                _ => format!("@ {comparison} '{value}'"),
            }
        }
        Type::Date | Type::Timestamp => {
            let day = *random.pick(&[
                "2024-01-01",
                "2024-02-29",
                "2024-03-01",
                "2024-04-01",
                "2024-10-01",
                "2024-12-30",
                "2025-01-01",
                "2024-01-15",
                "2024-03-10 12:00",
                "2023-12-31 23:59:59",
            ]);
            match random.below(6) {
                0 => format!("@ >= '{day}' AND @ < '2025-01-01'"),
                1 => format!("@ BETWEEN '2024-01-01' AND '{day}'"),
                2 => format!("@ >= TO_TIMESTAMP('{}', 'YYYY-MM-DD')", &day[..10]),
                3 => format!("@ < DATE '{day}'"),
                4 => format!("@ >= TIMESTAMP '{day}'"),
                _ => format!("@ {} '{day}'", random.pick(&[">=", "<", "<=", ">"])),
            }
        }
        Type::Instant => format!("@ {comparison} '2024-03-10 02:30:00'"),
        Type::Boolean => (*random.pick(&["@ IS NOT NULL", "@ IS NULL"])).to_owned(),
        Type::Scaled | Type::Numeric => {
            format!("@ {comparison} {}", random.pick(&["1", "1.5", "0"]))
        }
        Type::Float => format!("@ {comparison} 1.5"),
    };
    text.replace('@', column)
}
