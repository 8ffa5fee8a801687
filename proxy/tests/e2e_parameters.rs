//! Parameters as drivers bind them that have the statement described first: no types declared, all values in binary.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::error::Error;
use std::time::Instant;

use bytes::{BufMut, BytesMut};
use e2e_support::{Database, Lab, PATIENCE, explain, ok, table};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, NoTls};

const SCHEMA: &str = "
    CREATE TABLE sale (id int PRIMARY KEY, small int2 NOT NULL, middle int4, large int8, exact numeric(8,2), note text, code varchar(8),
                       flag bool, day date NOT NULL, sold_at timestamp NOT NULL, seen_at timestamptz NOT NULL, guid uuid, amount int);
    ALTER TABLE sale REPLICA IDENTITY FULL;
    INSERT INTO sale SELECT n, n % 3, n % 4, n % 5, (n % 6) + 0.25, 'note ' || n % 3, 'c' || n % 4, n % 2 = 0, date '2024-01-01' + n % 60,
                            timestamp '2024-01-01 00:30' + n * interval '1 hour', timestamptz '2024-01-01 00:07+00' + n * interval '1 hour',
                            ('00000000-0000-0000-0000-00000000000' || n % 7)::uuid, nullif(n % 7, 0)
                       FROM generate_series(1, 1400) n;";
const ROLLUPS: [(&str, &str); 3] = [
    (
        "by_keys",
        "SELECT small, middle, large, exact, note, code, flag, day, guid, count(*), sum(amount) FROM sale GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9",
    ),
    (
        "by_day",
        "SELECT date_trunc('day', sold_at) AS day, count(*), sum(amount) FROM sale GROUP BY 1",
    ),
    (
        "by_bin",
        "SELECT date_bin('15 minutes', seen_at, '2000-01-01 00:00+00') AS bin, count(*), sum(amount) FROM sale GROUP BY 1",
    ),
];

/// A value in binary, whatever its type; none is NULL.
#[derive(Debug, Clone)]
struct Value(Option<Vec<u8>>);

impl ToSql for Value {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match &self.0 {
            Some(bytes) => {
                out.put_slice(bytes);
                Ok(IsNull::No)
            }
            None => Ok(IsNull::Yes),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn value(bytes: impl AsRef<[u8]>) -> Value {
    Value(Some(bytes.as_ref().to_vec()))
}

/// 2.25, as PostgreSQL sends a numeric: two digits of base 10,000, the first of weight 0, with two decimals.
fn numeric() -> Value {
    let words: [u16; 6] = [2, 0, 0, 2, 2, 2500];
    value(words.map(u16::to_be_bytes).concat())
}

/// One dimension of these elements.
fn array(element: Type, elements: &[Value]) -> Value {
    let has_null = elements.iter().any(|element| element.0.is_none());
    let mut bytes = vec![];
    for word in [1, i32::from(has_null)] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(element.oid().to_be_bytes());
    for word in [i32::try_from(elements.len()).unwrap(), 1] {
        bytes.extend(word.to_be_bytes());
    }
    for Value(element) in elements {
        let length = element
            .as_ref()
            .map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap());
        bytes.extend(length.to_be_bytes());
        bytes.extend(element.iter().flatten());
    }
    value(bytes)
}

const DAY: i64 = 24 * 60 * 60 * 1_000_000;

/// Days since 2000-01-01 of a day of 2024, counted from 0.
fn days(day: i32) -> i32 {
    8766 + day
}

fn instant(day: i32, microseconds: i64) -> Value {
    value((i64::from(days(day)) * DAY + microseconds).to_be_bytes())
}

/// The condition, what is bound, and whether a rollup can tell.
fn questions() -> Vec<(&'static str, Vec<Value>)> {
    let uuid = |last: u8| value([[0; 15].as_slice(), &[last]].concat());
    let hour = 60 * 60 * 1_000_000;
    vec![
        ("small = $1", vec![value(2_i16.to_be_bytes())]),
        ("middle = $1", vec![value(3_i32.to_be_bytes())]),
        ("large > $1", vec![value(2_i64.to_be_bytes())]),
        ("exact = $1", vec![numeric()]),
        ("note = $1", vec![value("note 1")]),
        ("code <> $1", vec![value("c1")]),
        ("flag = $1", vec![value([1])]),
        ("guid = $1", vec![uuid(3)]),
        ("day = $1", vec![value(days(5).to_be_bytes())]),
        (
            "day >= $1 AND day < $2",
            vec![value(days(5).to_be_bytes()), value(days(31).to_be_bytes())],
        ),
        (
            "day BETWEEN $1 AND $2",
            vec![value(days(0).to_be_bytes()), value(days(30).to_be_bytes())],
        ),
        ("middle = $1", vec![Value(None)]),
        (
            "note = ANY ($1)",
            vec![array(
                Type::TEXT,
                &[value("note 1"), value("note 2"), Value(None)],
            )],
        ),
        (
            "middle = ANY ($1)",
            vec![array(
                Type::INT4,
                &[value(1_i32.to_be_bytes()), value(2_i32.to_be_bytes())],
            )],
        ),
        (
            "guid = ANY ($1)",
            vec![array(Type::UUID, &[uuid(1), uuid(2)])],
        ),
        (
            "day = ANY ($1)",
            vec![array(Type::DATE, &[value(days(3).to_be_bytes())])],
        ),
        (
            "small IN ($1, $2) AND note = $3",
            vec![
                value(1_i16.to_be_bytes()),
                value(2_i16.to_be_bytes()),
                value("note 1"),
            ],
        ),
        (
            "($1 OR middle = $2)",
            vec![value([0]), value(1_i32.to_be_bytes())],
        ),
        // Whole buckets, and ranges that cut them: what is bound decides.
        (
            "sold_at >= $1 AND sold_at < $2",
            vec![instant(9, 0), instant(40, 0)],
        ),
        (
            "sold_at >= $1 AND sold_at < $2",
            vec![instant(9, 13 * hour + 1), instant(40, 5 * hour)],
        ),
        (
            "seen_at >= $1 AND seen_at < $2",
            vec![instant(9, 0), instant(40, hour / 4)],
        ),
        (
            "seen_at >= $1 AND seen_at < $2",
            vec![instant(9, 7), instant(40, 5 * hour + 1)],
        ),
    ]
}

async fn driver(lab: &Lab, port: u16) -> Client {
    let name = &lab.database.name;
    let url = format!("postgresql://postgres@127.0.0.1:{port}/{name}");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn answer(client: &Client, sql: &str, values: &[Value]) -> Vec<(i64, Option<i64>)> {
    let statement = client.prepare(sql).await.unwrap();
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
    let rows = client.query(&statement, &values).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// How often rollups answered a statement that begins so.
async fn from_rollups(lab: &Lab, sql: &str) -> u64 {
    let mut session = lab.session().await;
    let shown = table(&ok(&mut session, "SHOW pgstar.queries").await);
    let is_it = |row: &&Vec<Option<String>>| row[0].as_deref() == Some(sql);
    let counts = shown
        .iter()
        .filter(is_it)
        .map(|row| row[1].as_ref().unwrap().parse::<u64>().unwrap());
    counts.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_in_binary_without_declared_types_are_answered_from_rollups() {
    let database = Database::with(SCHEMA).await;
    let lab = Lab::start(&database, "[cache]\nmemory = \"0B\"\n", &ROLLUPS).await;
    let mut session = lab.session().await;
    let began = Instant::now();
    while !explain(&mut session, "SELECT count(*) FROM sale").await["rollup"].is_string() {
        assert!(began.elapsed() < PATIENCE);
    }
    let (direct, through) = (
        driver(&lab, database.port).await,
        driver(&lab, lab.port()).await,
    );
    let mut missed = vec![];
    for (condition, values) in questions() {
        let sql = format!("SELECT count(*), sum(amount) FROM sale WHERE {condition}");
        let before = from_rollups(&lab, &sql).await;
        for _ in 0..2 {
            let right = answer(&direct, &sql, &values).await;
            assert_eq!(
                answer(&through, &sql, &values).await,
                right,
                "{condition} {values:?}"
            );
        }
        let answered = from_rollups(&lab, &sql).await - before;
        if answered != 2 {
            missed.push(format!("{answered} of 2: {condition} {values:?}"));
        }
    }
    assert_eq!(missed, Vec::<String>::new());
}
