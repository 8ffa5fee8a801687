//! Every constant that the thirteen queries compare with occurs in small data sets.
//!
//! Otherwise a query would be answered by an empty table at the scales that demos and tests use.

// A test says what is wrong by panicking; helper functions are not recognised as tests.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use pgstar_loadtest::ssb::{CopyText, Generator, QUERIES, Table};

const SCALES: [&str; 2] = ["0.01", "0.1"];
const SEEDS: std::ops::Range<u64> = 0..5;

/// Every value of every dimension, as text.
fn dimension_values(scale: &str, seed: u64) -> BTreeSet<String> {
    let generator = Generator::new(scale.parse().unwrap(), seed);
    let mut out = CopyText::default();
    for table in [Table::Date, Table::Customer, Table::Supplier, Table::Part] {
        generator.write(table, 0..generator.units(table), &mut out);
    }
    let text = String::from_utf8(out.into_bytes()).unwrap();
    text.split(['\t', '\n']).map(str::to_owned).collect()
}

/// The texts between single quotes.
fn quoted(sql: &str) -> impl Iterator<Item = &str> {
    sql.split('\'').skip(1).step_by(2)
}

#[test]
fn quoted_constants_are_found_in_the_queries() {
    let all: BTreeSet<&str> = QUERIES.iter().flat_map(|query| quoted(query.sql)).collect();
    let expected = [
        "AMERICA",
        "ASIA",
        "Dec1997",
        "EUROPE",
        "MFGR#1",
        "MFGR#12",
        "MFGR#14",
        "MFGR#2",
        "MFGR#2221",
        "MFGR#2228",
        "UNITED KI1",
        "UNITED KI5",
        "UNITED STATES",
    ];
    assert_eq!(all, BTreeSet::from(expected));
}

#[test]
fn every_quoted_constant_occurs_at_small_scales() {
    for (scale, seed) in SCALES
        .into_iter()
        .flat_map(|scale| SEEDS.map(move |seed| (scale, seed)))
    {
        let values = dimension_values(scale, seed);
        for query in QUERIES {
            for constant in quoted(query.sql) {
                assert!(
                    values.contains(constant),
                    "{constant} at {scale}, seed {seed}"
                );
            }
        }
    }
}

/// Columns of a table's rows, as numbers, counted from 0.
fn numbers<const N: usize>(
    generator: &Generator,
    table: Table,
    columns: [usize; N],
) -> Vec<[u64; N]> {
    let mut out = CopyText::default();
    generator.write(table, 0..generator.units(table), &mut out);
    let text = String::from_utf8(out.into_bytes()).unwrap();
    let read = |line: &str| {
        let values: Vec<&str> = line.split('\t').collect();
        columns.map(|column| values[column].parse().unwrap())
    };
    text.lines().map(read).collect()
}

#[test]
fn flight_one_selects_what_the_specification_calculates() {
    let generator = Generator::new("0.1".parse().unwrap(), 1);
    // d_datekey, d_year, d_yearmonthnum and d_weeknuminyear of each day.
    let days = numbers(&generator, Table::Date, [0, 4, 5, 11]);
    // lo_orderdate, lo_quantity and lo_discount of each row.
    let rows = numbers(&generator, Table::Lineorder, [5, 8, 11]);
    let share = |wanted: &dyn Fn(&[u64; 4], u64, u64) -> bool| {
        let day = |key| &days[days.binary_search_by_key(&key, |day| day[0]).unwrap()];
        let selected = rows
            .iter()
            .filter(|[key, quantity, discount]| wanted(day(*key), *quantity, *discount));
        selected.count() as f64 / rows.len() as f64
    };
    let q11 = share(&|day, quantity, discount| {
        day[1] == 1993 && (1..=3).contains(&discount) && quantity < 25
    });
    let q12 = share(&|day, quantity, discount| {
        day[2] == 199_401 && (4..=6).contains(&discount) && (26..=35).contains(&quantity)
    });
    let q13 = share(&|day, quantity, discount| {
        day[1] == 1994
            && day[3] == 6
            && (5..=7).contains(&discount)
            && (26..=35).contains(&quantity)
    });
    // Orders end five months before the calendar does, so a year is 365 of 2,406 days and not 1 of 7.
    for (query, selected, expected) in [
        ("Q1.1", q11, 365.0 / 2406.0 * 24.0 / 50.0 * 3.0 / 11.0),
        ("Q1.2", q12, 31.0 / 2406.0 * 10.0 / 50.0 * 3.0 / 11.0),
        ("Q1.3", q13, 7.0 / 2406.0 * 10.0 / 50.0 * 3.0 / 11.0),
    ] {
        let sigma = (expected / rows.len() as f64).sqrt();
        assert!(
            (selected - expected).abs() < 4.0 * sigma,
            "{query}: {selected}, not {expected}"
        );
    }
}
