//! Which rows matter to a statement, as ranges of columns: never too narrow, and narrow where dashboards need it.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

use pgstar_rewriter::catalog::{
    AttNum, Catalog, Column, ColumnType, Oid, Relation, RelationKind, UserNames,
};
use pgstar_rewriter::{
    ColumnRange, Context, KeyRange, Rollup, RollupDefinition, TableRows, decide,
};

const DAY: i64 = 86_400;
/// 2024-01-01 in days since 2000-01-01.
const NEW_YEAR: i64 = 8766;

fn relation(oid: u32, name: &str, columns: &[(&str, u32)]) -> Relation {
    let column = |(position, (name, ty)): (usize, &(&str, u32))| Column {
        attnum: AttNum(i16::try_from(position).unwrap() + 1),
        name: (*name).to_owned(),
        ty: ColumnType {
            oid: Oid(*ty),
            typmod: -1,
            collation: Oid(if *ty == 25 { 100 } else { 0 }),
        },
        not_null: false,
    };
    Relation {
        oid: Oid(oid),
        schema: "public".to_owned(),
        name: name.to_owned(),
        kind: RelationKind::Table,
        columns: columns.iter().enumerate().map(column).collect(),
        unique_keys: match name {
            "days" => vec![vec![AttNum(1)]],
            _ => vec![],
        },
        foreign_keys: vec![],
        row_security: false,
        has_rules: false,
        view: None,
    }
}

fn catalog() -> Catalog {
    let columns = [
        ("key", 23),
        ("day", 1082),
        ("at", 1114),
        ("instant", 1184),
        ("town", 25),
        ("amount", 1700),
    ];
    let days = [("key", 23), ("day", 1082), ("year", 23)];
    Catalog::new(
        vec![relation(1, "sale", &columns), relation(2, "days", &days)],
        UserNames::default(),
    )
}

fn search_path() -> [String; 2] {
    ["pg_catalog", "public"].map(str::to_owned)
}

fn in_utc<'a>(
    catalog: &'a Catalog,
    rollups: &'a [Rollup],
    search_path: &'a [String],
) -> Context<'a> {
    Context {
        catalog,
        rollups,
        search_path,
        time_zone: "UTC",
        bound: &[],
    }
}

/// The bound of a range, nothing where there is none.
fn bound(value: i64) -> String {
    match value {
        i64::MIN | i64::MAX => String::new(),
        value => value.to_string(),
    }
}

/// `table.column low..high` for each range.
fn ranges(sql: &str, time_zone: &str) -> Vec<String> {
    let catalog = catalog();
    let search_path = search_path();
    let decision = decide(
        sql,
        Context {
            time_zone,
            ..in_utc(&catalog, &[], &search_path)
        },
    );
    assert!(!decision.reads.is_empty(), "{sql}: {:?}", decision.reasons);
    let table = |oid: Oid| catalog.relation_by_oid(oid).unwrap().name.clone();
    let shown = |range: &ColumnRange| {
        let (low, high) = (bound(range.low), bound(range.high));
        format!("{}.{} {low}..{high}", table(range.table), range.column)
    };
    decision.ranges.iter().map(shown).collect()
}

/// `table.column of: question` for each range that has to be asked for.
fn key_ranges(sql: &str) -> Vec<String> {
    let catalog = catalog();
    let search_path = search_path();
    let context = in_utc(&catalog, &[], &search_path);
    let table = |oid: Oid| catalog.relation_by_oid(oid).unwrap().name.clone();
    let decision = decide(sql, context);
    let shown = |range: &KeyRange| {
        let (of, keys_of) = (table(range.table), table(range.keys_of));
        format!("{of}.{} of {keys_of}: {}", range.column, range.sql)
    };
    decision.key_ranges.iter().map(shown).collect()
}

#[test]
fn keys_of_a_dimension_of_which_some_rows_matter_have_to_be_asked_for() {
    let days = r#"SELECT min("key")::int8, max("key")::int8 FROM "public"."days" WHERE"#;
    for (condition, expected) in [
        (
            "days.year = 3",
            vec![format!(
                "sale.key of days: {days} \"year\" >= '3'::int8 AND \"year\" <= '3'::int8"
            )],
        ),
        (
            "days.year > 3 AND days.day < '2000-01-31' AND town = 'Bath'",
            vec![format!(
                "sale.key of days: {days} \"day\" <= date '2000-01-01' + 29 AND \"year\" >= '3'::int8"
            )],
        ),
        ("days.year = 3 AND sale.key BETWEEN 5 AND 7", vec![]),
        ("sale.town = 'Bath'", vec![]),
        ("days.year <> 3", vec![]),
        ("days.year = 3 OR sale.key = 1", vec![]),
    ] {
        let sql = format!(
            "SELECT sum(amount) FROM sale JOIN days ON days.key = sale.key WHERE {condition}"
        );
        let mut found = key_ranges(&sql);
        found.sort();
        assert_eq!(found, expected, "{condition}");
    }
    for sql in [
        // Its other rows matter too.
        "SELECT count(*) FROM sale JOIN days ON days.key = sale.key JOIN sale b ON b.town = sale.town WHERE days.year = 3",
        "SELECT count(*) FROM sale LEFT JOIN days ON days.key = sale.key AND days.year = 3",
        // No key of the other table.
        "SELECT count(*) FROM sale JOIN days ON days.year = sale.key WHERE days.key = 3 OR days.key = 5",
    ] {
        assert_eq!(key_ranges(sql), [""; 0], "{sql}");
    }
}

#[test]
fn what_parameters_leave_is_known_when_they_are_bound() {
    let catalog = catalog();
    let search_path = search_path();
    let context = in_utc(&catalog, &[], &search_path);
    let of = |sql: &str| -> Vec<String> {
        let ranges = decide(sql, context).parameter_ranges;
        let around = ranges.iter().map(|range| (range.number, range.around(7)));
        let shown = around.map(|(number, range)| {
            format!(
                "${number} {} {}..{}",
                range.column,
                bound(range.low),
                bound(range.high)
            )
        });
        shown.collect()
    };
    let select = |condition| format!("SELECT sum(amount) FROM sale WHERE {condition}");
    for (condition, expected) in [
        ("key = $1", vec!["$1 key 7..7"]),
        ("key >= $1 AND $2 > key", vec!["$1 key 7..", "$2 key ..7"]),
        ("day BETWEEN $1 AND $2", vec!["$1 day 7..", "$2 day ..7"]),
        (
            "town = $3 AND at < $1::timestamp",
            vec!["$1 at ..7", "$3 town 7..7"],
        ),
        ("town > $1", vec![]),
        ("key = $1 OR town = $2", vec![]),
        ("key + 1 = $1", vec![]),
        ("key <> $1", vec![]),
        ("at < $1::date", vec![]),
    ] {
        let mut found = of(&select(condition));
        found.sort();
        assert_eq!(found, expected, "{condition}");
    }
    let twice = "SELECT count(*) FROM sale a JOIN sale b ON a.town = b.town WHERE a.key = $1";
    assert_eq!(of(twice), [""; 0]);
}

#[test]
fn texts_that_are_named_leave_one_count_each() {
    let one = |condition| {
        let found = of(condition);
        assert_eq!(found.len(), 1, "{condition}: {found:?}");
        let (_, span) = found[0].split_once(' ').unwrap();
        let (low, high) = span.split_once("..").unwrap();
        assert_eq!(low, high, "{condition}");
        low.parse::<i64>().unwrap()
    };
    let bath = ColumnRange::count("Bath", Oid(25));
    for condition in ["town = 'Bath'", "'Bath' = town", "town IN ('Bath', 'Bath')"] {
        assert_eq!(Some(one(condition)), bath, "{condition}");
    }
    assert_ne!(Some(one("town = 'bath'")), bath);
    for condition in [
        "town > 'Bath'",
        "town LIKE 'Bath'",
        "town <> 'Bath'",
        "town = 'Böblingen'",
    ] {
        assert_eq!(of(condition), [""; 0], "{condition}");
    }
}

/// The ranges that this condition leaves.
fn of(condition: &str) -> Vec<String> {
    ranges(
        &format!("SELECT town, sum(amount) FROM sale WHERE {condition} GROUP BY town"),
        "UTC",
    )
}

#[test]
fn comparisons_with_constants_leave_ranges() {
    let next_day = NEW_YEAR + 1;
    let (begin, end) = (NEW_YEAR * DAY, next_day * DAY - 1);
    let both = format!("sale.at {begin}..{end}");
    for (condition, range) in [
        (
            "day = '2024-01-01'",
            format!("sale.day {NEW_YEAR}..{NEW_YEAR}"),
        ),
        ("day < DATE '2024-01-02'", format!("sale.day ..{NEW_YEAR}")),
        (
            "day >= '2024-01-01' AND day <= '2024-01-02'",
            format!("sale.day {NEW_YEAR}..{next_day}"),
        ),
        (
            "day BETWEEN '2024-01-01' AND '2024-01-02'",
            format!("sale.day {NEW_YEAR}..{next_day}"),
        ),
        (
            "day IN ('2024-01-02', '2024-01-01')",
            format!("sale.day {NEW_YEAR}..{next_day}"),
        ),
        ("at >= '2024-01-01' AND at < '2024-01-02'", both.clone()),
        (
            "at >= TIMESTAMP '2024-01-01 00:00:00.000000' AND '2024-01-02' > at",
            both.clone(),
        ),
        (
            "at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US') \
             AND at < TO_TIMESTAMP('2024-01-02 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')",
            both.clone(),
        ),
        (
            "key = 5 OR key = 9 AND town = 'Bath'",
            "sale.key 5..9".to_owned(),
        ),
        ("key IN (3, 1, 2)", "sale.key 1..3".to_owned()),
        ("key > 5 AND key <= 7", "sale.key 5..7".to_owned()),
        (
            "instant >= '2024-01-01 00:00:00+00' AND instant < '2024-01-02 00:00:00+00'",
            format!("sale.instant {begin}..{end}"),
        ),
        ("instant >= '2024-01-01'", format!("sale.instant {begin}..")),
    ] {
        assert_eq!(of(condition), [range], "{condition}");
    }
}

#[test]
fn what_is_not_certain_leaves_none() {
    for condition in [
        "key = 5 OR town = 'Bath'",
        "key <> 5",
        "key IS NULL",
        "key = 5 OR key IS NULL",
        "key + 1 = 5",
        "key NOT IN (1, 2)",
        "day > 'yesterday'",
        "key = $1",
        "NOT (key = 5)",
    ] {
        assert_eq!(of(condition), [""; 0], "{condition}");
    }
    let in_offset = "SELECT count(*) FROM sale WHERE instant > '2024-01-01'";
    assert_eq!(ranges(in_offset, "<+20>-20"), [""; 0]);
    let begin = (NEW_YEAR - 1) * DAY;
    assert_eq!(
        ranges(in_offset, "Asia/Kolkata"),
        [format!("sale.instant {begin}..")],
        "no zone is a day away"
    );
}

#[test]
fn a_table_that_is_read_twice_has_the_range_of_both() {
    for (sql, expected) in [
        (
            "SELECT count(*) FROM sale WHERE key = 1 UNION ALL SELECT count(*) FROM sale WHERE key = 7",
            vec!["sale.key 1..7"],
        ),
        (
            "SELECT count(*) FROM sale WHERE key = 1 UNION ALL SELECT count(*) FROM sale",
            vec![],
        ),
        (
            "SELECT count(*) FROM sale a JOIN sale b ON a.town = b.town WHERE a.key = 1",
            vec![],
        ),
        (
            "SELECT count(*) FROM sale WHERE key = 1 AND amount > (SELECT avg(amount) FROM sale)",
            vec![],
        ),
        (
            "SELECT count(*) FROM sale WHERE key = 1 AND amount > (SELECT avg(amount) FROM sale WHERE key = 2)",
            vec!["sale.key 1..2"],
        ),
        (
            "SELECT count(*) FROM sale s WHERE key = 4 AND EXISTS (SELECT FROM days d WHERE d.day = s.day AND d.year = 3)",
            vec!["sale.key 4..4", "days.year 3..3"],
        ),
    ] {
        assert_eq!(ranges(sql, "UTC"), expected, "{sql}");
    }
}

#[test]
fn joins_carry_ranges_and_outer_joins_only_their_own() {
    for (sql, expected) in [
        (
            "SELECT count(*) FROM sale JOIN days ON sale.key = days.key WHERE days.key = 6",
            vec!["sale.key 6..6", "days.key 6..6"],
        ),
        (
            "SELECT count(days.day) FROM sale LEFT JOIN days ON sale.key = days.key AND days.year = 3",
            vec!["days.year 3..3"],
        ),
        (
            "SELECT count(*) FROM sale LEFT JOIN days ON sale.key = days.key AND sale.key = 3",
            vec![],
        ),
        (
            "SELECT count(*) FROM sale LEFT JOIN days ON sale.key = days.key WHERE days.year = 3",
            vec!["days.year 3..3"],
        ),
    ] {
        assert_eq!(ranges(sql, "UTC"), expected, "{sql}");
    }
}

#[test]
fn values_are_counted_as_constants_are() {
    let count = |text: &str, ty: u32| ColumnRange::count(text, Oid(ty));
    assert_eq!(count("2024-01-01", 1082), Some(NEW_YEAR));
    assert_eq!(
        count("2024-01-01 00:00:00.999999", 1114),
        Some(NEW_YEAR * DAY)
    );
    for text in [
        "2024-01-01 00:00:00+00",
        "2024-01-01 05:30:00.5+05:30",
        "2023-12-31 20:00:00-04",
        "2023-12-31 23:59:08-00:00:52",
    ] {
        assert_eq!(count(text, 1184), Some(NEW_YEAR * DAY), "{text}");
    }
    assert_eq!(count("-17", 20), Some(-17));
    assert_eq!(count("infinity", 1082), Some(i64::MAX));
    assert_eq!(count("-infinity", 1114), Some(i64::MIN));
    for (text, ty) in [
        ("0044-03-15 BC", 1082),
        ("12024-01-01", 1082),
        ("2024-01-01 00:00:00", 1184),
        ("1.5", 1700),
        ("Mon 01 Jan 00:00:00 2024", 1114),
    ] {
        assert_eq!(count(text, ty), None, "{text}");
    }
}

/// A rollup of the rows from some day on, and a statement about all rows: each part depends on its own rows.
#[test]
fn what_a_rollup_leaves_out_is_read_beside_it() {
    let catalog = catalog();
    let search_path = search_path();
    let sql = "SELECT town, count(*) FROM sale WHERE day >= '2024-01-01' GROUP BY 1";
    let rollups = [Rollup {
        definition: RollupDefinition::parse("recent", sql, &catalog, &search_path).unwrap(),
        schema: "pgstar".to_owned(),
        table: "recent".to_owned(),
        rows: 0,
    }];
    let context = in_utc(&catalog, &rollups, &search_path);
    let decision = decide("SELECT town, count(*) FROM sale GROUP BY 1", context);
    let found = decision.matches.first().unwrap();
    // The day may be NULL, so that the rest is in no range.
    assert_eq!(
        found.base_rows,
        [TableRows {
            table: Oid(1),
            ranges: vec![]
        }]
    );
    assert_eq!(found.base_reads, [Oid(1)]);
    let [TableRows { table, ranges }] = found.rollup_rows.as_slice() else {
        panic!("{:?}", found.rollup_rows);
    };
    let lows: Vec<i64> = ranges.iter().map(|range| range.low).collect();
    assert_eq!((*table, lows), (Oid(1), vec![NEW_YEAR]));
}
