//! Statements before they are written down: rollups, queries that follow from them, and changes to either.

use super::expressions::{
    chain, column_of, derived_aggregate, derived_key, filter_on_key, over_key, predicate,
    stored_aggregate, stored_bucket,
};
use super::star::Star;
use super::{Type, push_new};
use crate::rewriter_support::data::Random;

/// A join in a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Join {
    pub(super) dimension: usize,
    pub(super) is_left: bool,
    /// Another condition in ON.
    pub(super) extra: Option<String>,
}

/// A statement before it is written down.
#[derive(Debug, Clone)]
pub struct Shape {
    pub(super) joins: Vec<Join>,
    pub(super) filters: Vec<String>,
    pub(super) keys: Vec<String>,
    pub(super) aggregates: Vec<String>,
}

impl Shape {
    /// Whether nothing would be selected.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.aggregates.is_empty()
    }

    /// The same shape with one part less, in every way.
    pub fn smaller(&self) -> Vec<Shape> {
        let mut all = Vec::new();
        for position in 0..self.joins.len() {
            let mut shape = self.clone();
            shape.joins.remove(position);
            all.push(shape);
        }
        fn filters(shape: &mut Shape) -> &mut Vec<String> {
            &mut shape.filters
        }
        fn keys(shape: &mut Shape) -> &mut Vec<String> {
            &mut shape.keys
        }
        fn aggregates(shape: &mut Shape) -> &mut Vec<String> {
            &mut shape.aggregates
        }
        for list in [filters, keys, aggregates] {
            for position in 0..list(&mut self.clone()).len() {
                let mut shape = self.clone();
                list(&mut shape).remove(position);
                all.push(shape);
            }
        }
        all
    }
}

impl Star {
    pub(super) fn joins(&self, random: &mut Random) -> Vec<Join> {
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
    pub(super) fn visible(&self, joins: &[Join]) -> Vec<(String, Type)> {
        let joined = joins
            .iter()
            .map(|join| self.dimensions[join.dimension].alias.as_str());
        let columns = |alias: &'_ str| -> Vec<(String, Type)> {
            let attributes = self.attributes_of(alias).iter();
            attributes
                .map(|attribute| (format!("{{{alias}.{}}}", attribute.name), attribute.ty))
                .collect()
        };
        std::iter::once("f")
            .chain(joined)
            .flat_map(columns)
            .collect()
    }

    /// A rollup's shape: raw columns and buckets as keys.
    pub fn rollup(&self, random: &mut Random) -> Shape {
        let joins = match self.views.is_empty() || random.chance(60) {
            true => self.joins(random),
            false => random.pick(&self.views).joins.clone(),
        };
        self.rollup_over(joins, random)
    }

    /// The same over these joins.
    pub(super) fn rollup_over(&self, joins: Vec<Join>, random: &mut Random) -> Shape {
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
                Type::Float | Type::Numeric | Type::Loose | Type::Interval if random.chance(90) => {
                    continue;
                }
                Type::Timestamp | Type::Instant if random.chance(35) => {
                    stored_bucket(&column, ty, random)
                }
                Type::Timestamp if random.chance(80) => {
                    let unit = random.pick(&[
                        "hour", "day", "day", "week", "week", "month", "month", "quarter",
                    ]);
                    format!("date_trunc('{unit}', {column})")
                }
                Type::Text if random.chance(10) => format!("upper({column})"),
                _ if random.chance(8) => derived_key(&column, ty, random),
                _ => column,
            };
            push_new(&mut shape.keys, key);
        }
        let times: Vec<&String> = visible
            .iter()
            .filter(|(_, ty)| *ty == Type::Timestamp)
            .map(|(column, _)| column)
            .collect();
        if random.chance(40) {
            let unit = random.pick(&["minute", "hour", "day", "week", "month", "quarter"]);
            let column = random.pick(&times);
            push_new(&mut shape.keys, format!("date_trunc('{unit}', {column})"));
        }
        for join in &shape.joins {
            let dimension = &self.dimensions[join.dimension];
            if random.chance(25) {
                push_new(&mut shape.keys, format!("{{{}.id}}", dimension.alias));
            }
            if random.chance(15) {
                push_new(
                    &mut shape.keys,
                    format!("{{{}.{}}}", dimension.parent, dimension.on[0].0),
                );
            }
        }
        shape.keys.retain(|key| !key.is_empty());
        for _ in 0..1 + random.below(5) {
            let aggregate = stored_aggregate(random.pick(&visible), &visible, random);
            push_new(&mut shape.aggregates, aggregate);
        }
        if random.chance(30) {
            let (column, ty) = random.pick(&visible).clone();
            shape.filters.push(if random.chance(50) {
                bound(&visible, random)
            } else {
                predicate(&column, ty, random)
            });
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
            match random.below(10) {
                0 => {}
                1..=3 => query.filters.push(nudged(filter, random)),
                _ => query.filters.push(filter.clone()),
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
        if key.starts_with("upper") {
            return Type::Text;
        }
        let column = column_of(key);
        if column != key {
            let ty = self.key_type(column);
            return match ty {
                Type::Timestamp | Type::Instant => ty,
                _ => Type::Boolean,
            };
        }
        let known = key
            .strip_prefix('{')
            .and_then(|key| key.strip_suffix('}'))
            .and_then(|key| key.split_once('.'));
        let attribute = known.and_then(|(alias, name)| {
            self.attributes_of(alias)
                .iter()
                .find(|attribute| attribute.name == name)
        });
        // Identifiers and expressions may be of any type: that of a boolean stands for what only compares with itself.
        attribute.map_or(Type::Boolean, |attribute| attribute.ty)
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
                .push(stored_aggregate(&(column, ty), &visible, random)),
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
}

/// A condition that is nearly the same: with its bound in or out, or a number larger or smaller.
fn nudged(filter: &str, random: &mut Random) -> String {
    let operators = [
        (" > ", " >= "),
        (" < ", " <= "),
        (" = ", " >= "),
        (" <> ", " > "),
    ];
    let (one, other) = *random.pick(&operators);
    match random.below(3) {
        0 => filter.replacen(one, other, 1),
        1 => filter.replacen(other, one, 1),
        _ => {
            let digit = |c: char| c.is_ascii_digit();
            let from = random.below(filter.len().max(1));
            let at = filter
                .char_indices()
                .position(|(at, c)| at >= from && digit(c));
            let text = filter.chars().enumerate();
            text.map(|(position, c)| match c.to_digit(10) {
                Some(number) if Some(position) == at => {
                    char::from_digit((number + 1) % 10, 10).unwrap_or(c)
                }
                _ => c,
            })
            .collect()
        }
    }
}

/// One plain bound, of which queries may have neighbours.
fn bound(visible: &[(String, Type)], random: &mut Random) -> String {
    let is_number = |(_, ty): &&(String, Type)| matches!(ty, Type::Integer | Type::Scaled);
    let numbers: Vec<&(String, Type)> = visible.iter().filter(is_number).collect();
    let (column, _) = random.pick(&numbers);
    let operator = random.pick(&[">", ">=", "<", "<=", "=", "<>"]);
    format!("{column} {operator} {}", 1 + random.below(3))
}
