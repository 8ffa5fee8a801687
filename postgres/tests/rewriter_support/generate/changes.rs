//! Changes to a star's rows of which a given rollup may know nothing.

use super::render::plain;
use super::shape::Shape;
use super::star::Star;
use crate::rewriter_support::data::Random;

impl Star {
    /// One statement; whether the rollup notices it is for the caller to find out.
    pub fn change(&self, rollup: &Shape, random: &mut Random) -> String {
        let seed = random.below(1000);
        let (table, attributes) = random.pick(&self.tables).clone();
        let column = random.pick(&attributes).name.clone();
        match random.below(10) {
            0 | 1 => shuffled(&table, &column, seed),
            2 | 3 => self.shuffled_within_groups(rollup, random),
            4 => {
                let times = self
                    .attributes_of("f")
                    .iter()
                    .filter(|attribute| attribute.ty == super::Type::Timestamp);
                let name = times
                    .map(|attribute| attribute.name.as_str())
                    .next()
                    .unwrap_or("ts");
                let by = random.pick(&[
                    "1 microsecond",
                    "-1 second",
                    "7 minutes",
                    "-5 hours",
                    "1 day",
                    "-3 days",
                ]);
                format!(
                    "UPDATE f SET {name} = {name} + interval '{by}' WHERE {}",
                    some_rows("f", seed, 4)
                )
            }
            5 => self.moved_between_two(rollup, random),
            6 => format!("DELETE FROM {table} WHERE {}", some_rows(&table, seed, 12)),
            7 => format!(
                "INSERT INTO f SELECT * FROM f WHERE {}",
                some_rows("f", seed, 12)
            ),
            8 => {
                let keys = self
                    .dimensions
                    .iter()
                    .filter(|dimension| dimension.parent == "f");
                let keys: Vec<&String> = keys.map(|dimension| &dimension.on[0].0).collect();
                shuffled("f", random.pick::<&String>(&keys), seed)
            }
            _ => format!(
                "INSERT INTO f SELECT * FROM f WHERE ({}) IS NOT TRUE",
                self.own_filter(rollup)
            ),
        }
    }

    /// What of the rollup's condition is about the fact alone.
    fn own_filter(&self, rollup: &Shape) -> String {
        let is_own = |filter: &&String| {
            filter
                .split('{')
                .skip(1)
                .all(|piece| piece.starts_with("f."))
        };
        let own: Vec<String> = rollup
            .filters
            .iter()
            .filter(is_own)
            .map(|filter| format!("({})", plain(filter)))
            .collect();
        if own.is_empty() {
            "true".to_owned()
        } else {
            own.join(" AND ")
        }
    }

    /// A fact column dealt out anew among the rows of each of the rollup's groups.
    fn shuffled_within_groups(&self, rollup: &Shape, random: &mut Random) -> String {
        let column = &random.pick(self.attributes_of("f")).name;
        let seed = random.below(1000);
        format!(
            "WITH {} UPDATE f SET {column} = theirs.value FROM placed AS mine JOIN placed AS theirs ON mine.place = theirs.other AND mine.cell = theirs.cell WHERE f.ctid = mine.id",
            self.placed(rollup, column, seed)
        )
    }

    /// One taken from a row of a group and given to another row of it.
    fn moved_between_two(&self, rollup: &Shape, random: &mut Random) -> String {
        let numbers: Vec<&str> = self
            .attributes_of("f")
            .iter()
            .filter(|attribute| matches!(attribute.ty, super::Type::Integer | super::Type::Scaled))
            .map(|attribute| attribute.name.as_str())
            .collect();
        let column = *random.pick(&numbers);
        let seed = random.below(1000);
        format!(
            "WITH {} UPDATE f SET {column} = {column} + CASE mine.other WHEN 1 THEN 1 ELSE -1 END FROM placed AS mine JOIN placed AS theirs ON mine.cell = theirs.cell AND theirs.other = 2 WHERE f.ctid = mine.id AND mine.other <= 2 AND mine.value IS NOT NULL AND theirs.value IS NOT NULL",
            self.placed(rollup, column, seed)
        )
    }

    /// The fact's rows with their group of the rollup, and two orders within it.
    fn placed(&self, rollup: &Shape, column: &str, seed: usize) -> String {
        let (from, filter) = self.from(&rollup.joins, &rollup.filters, false);
        let cell = if rollup.keys.is_empty() {
            "1".to_owned()
        } else {
            format!("dense_rank() OVER (ORDER BY {})", rollup.keys.join(", "))
        };
        plain(&format!(
            "cells AS (SELECT f.ctid AS id, f.{column} AS value, {cell} AS cell FROM {from}{filter}), \
             placed AS (SELECT *, row_number() OVER (PARTITION BY cell ORDER BY id) AS place, \
             row_number() OVER (PARTITION BY cell ORDER BY md5(id::text || '{seed}')) AS other FROM cells)"
        ))
    }
}

/// Every so many-th row, in an order of its own.
fn some_rows(table: &str, seed: usize, one_in: usize) -> String {
    format!("('x' || left(md5({table}.ctid::text || '{seed}'), 6))::bit(24)::int % {one_in} = 0")
}

/// A column dealt out anew among a table's rows.
fn shuffled(table: &str, column: &str, seed: usize) -> String {
    format!(
        "WITH placed AS (SELECT ctid AS id, {column} AS value, row_number() OVER (ORDER BY ctid) AS place, \
         row_number() OVER (ORDER BY md5(ctid::text || '{seed}')) AS other FROM {table}) \
         UPDATE {table} SET {column} = theirs.value FROM placed AS mine JOIN placed AS theirs ON mine.place = theirs.other WHERE {table}.ctid = mine.id"
    )
}
