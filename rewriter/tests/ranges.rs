//! Which rows matter to a statement, as ranges of columns: never too narrow, and narrow where dashboards need it.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

use pgstar_rewriter::catalog::{
    AttNum, Catalog, Column, ColumnType, Oid, Relation, RelationKind, UserNames,
};
use pgstar_rewriter::{ColumnRange, Context, decide};

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
        unique_keys: vec![],
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

/// `table.column low..high` for each range.
fn ranges(sql: &str, time_zone: &str) -> Vec<String> {
    let catalog = catalog();
    let search_path = ["pg_catalog".to_owned(), "public".to_owned()];
    let decision = decide(
        sql,
        Context {
            catalog: &catalog,
            rollups: &[],
            search_path: &search_path,
            time_zone,
            bound: &[],
        },
    );
    assert!(!decision.reads.is_empty(), "{sql}: {:?}", decision.reasons);
    let table = |oid: Oid| catalog.relation_by_oid(oid).unwrap().name.clone();
    let bound = |value: i64| match value {
        i64::MIN | i64::MAX => String::new(),
        value => value.to_string(),
    };
    let shown = |range: &ColumnRange| {
        let (low, high) = (bound(range.low), bound(range.high));
        format!("{}.{} {low}..{high}", table(range.table), range.column)
    };
    decision.ranges.iter().map(shown).collect()
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
        ("a", 25),
        ("1.5", 1700),
        ("Mon 01 Jan 00:00:00 2024", 1114),
    ] {
        assert_eq!(count(text, ty), None, "{text}");
    }
}
