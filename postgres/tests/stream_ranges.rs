//! Answers about ranges of a column's values beside random changes: what is said to be unchanged in a range is. The
//! same harness has to find the mistakes that would break that.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::Database;
use pgstar_postgres::stream::{ChangeStream, Position, StreamOptions, Weakness};
use pgstar_rewriter::ColumnRange;
use pgstar_rewriter::catalog::Oid;

const DEADLINE: Duration = Duration::from_secs(10);

/// How long each run takes; `PGSTAR_TORTURE_SECONDS` makes it longer.
fn duration() -> Duration {
    let seconds = std::env::var("PGSTAR_TORTURE_SECONDS").ok();
    Duration::from_secs(
        seconds
            .and_then(|seconds| seconds.parse().ok())
            .unwrap_or(4),
    )
}

/// Times of three days in each of the types that are counted; tables of which one has whole old rows, another has them in
/// some partitions and says that it has them in all.
const SCHEMA: &str = "
    SET search_path = public;
    CREATE TABLE whole (id int PRIMARY KEY, day date, at timestamp, instant timestamptz, number int, x int,
                        word text);
    ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE keyed (id int, day date NOT NULL, at timestamp, instant timestamptz, number int, x int, word text,
                        PRIMARY KEY (id, day));
    INSERT INTO whole SELECT n, date '2024-01-01' + n % 30, timestamp '2024-01-01' + n * interval '1 hour',
                             timestamptz '2024-01-01 00:00+00' + n * interval '1 hour', n % 30, n,
                             'word ' || n % 30
                        FROM generate_series(1, 700) n;
    INSERT INTO keyed SELECT * FROM whole;
    CREATE TABLE parted (LIKE keyed INCLUDING ALL) PARTITION BY RANGE (day);
    CREATE TABLE parted_keyed PARTITION OF parted FOR VALUES FROM (MINVALUE) TO ('2024-01-15');
    CREATE TABLE parted_whole PARTITION OF parted DEFAULT;
    ALTER TABLE parted REPLICA IDENTITY FULL; ALTER TABLE parted_whole REPLICA IDENTITY FULL;
    INSERT INTO parted SELECT * FROM whole;";

const TABLES: [&str; 3] = ["whole", "keyed", "parted"];

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// A question about a range, and the range as the stream is told it.
struct Question {
    sql: String,
    range: ColumnRange,
}

const COLUMNS: [(&str, u32); 5] = [
    ("day", 1082),
    ("at", 1114),
    ("instant", 1184),
    ("number", 23),
    ("word", 25),
];

fn question(table: &str, oid: Oid, column: (&str, u32), from: i64, to: i64) -> Question {
    let (name, ty) = column;
    let day = |day: i64| format!("date '2024-01-01' + {day}");
    let (low, high, condition) = match name {
        "number" => (from, to, format!("number BETWEEN {from} AND {to}")),
        "word" => {
            let word = format!("word {from}");
            let count = ColumnRange::count(&word, Oid(ty)).unwrap();
            (count, count, format!("word = '{word}'"))
        }
        "day" => (
            8766 + from,
            8766 + to,
            format!("day BETWEEN {} AND {}", day(from), day(to)),
        ),
        name => (
            (8766 + from) * 86_400,
            (8766 + to + 1) * 86_400 - 1,
            format!("{name} >= {} AND {name} < {}", day(from), day(to + 1)),
        ),
    };
    Question {
        sql: format!(
            "SELECT count(*)::int8, coalesce(sum(x), 0)::int8 FROM {table} WHERE {condition}"
        ),
        range: ColumnRange {
            table: oid,
            column: name.to_owned(),
            ty: Oid(ty),
            low,
            high,
        },
    }
}

/// One random change: of rows of one day, mostly, by statements of every kind.
fn change(random: &mut Random) -> String {
    let table = TABLES[random.below(3) as usize];
    let (id, day) = (random.below(1000), random.below(30));
    let row = format!(
        "(SELECT {id} + 1000, date '2024-01-01' + {day}, timestamp '2024-01-01' + {day} * interval '1 day',
          timestamptz '2024-01-01 00:00+00' + {day} * interval '1 day', {day}, {id}, 'word ' || {day})"
    );
    let insert = format!("INSERT INTO {table} {row} ON CONFLICT DO NOTHING");
    // A row that is in one of the ranges that are asked about.
    let near = ([0, 9, 20][random.below(3) as usize] + random.below(3)) * 24 + random.below(24);
    match random.below(18) {
        12 | 13 => format!("DELETE FROM {table} WHERE id = {near}"),
        14 | 15 => format!(
            "INSERT INTO {table} SELECT n, date '2024-01-01' + n % 30, timestamp '2024-01-01' + n * interval '1 hour',
                                        timestamptz '2024-01-01 00:00+00' + n * interval '1 hour', n % 30, n, 'word ' || n % 30
               FROM generate_series({near}, {near}) n ON CONFLICT DO NOTHING"
        ),
        16 | 17 => format!(
            "UPDATE {table} SET id = id + 10000, at = at - interval '5 days', instant = instant - interval '5 days', \
             number = number + 5, word = 'word' WHERE id = {near}"
        ),
        0..3 => insert,
        3 => format!("UPDATE {table} SET x = x + 1 WHERE id = {id}"),
        4 => format!(
            "UPDATE {table} SET day = day + 1, at = at + interval '1 day', instant = instant + interval '1 day', \
             number = number + 1, word = 'word ' || (number + 1) WHERE id = {id}"
        ),
        5 => format!("DELETE FROM {table} WHERE id = {id}"),
        6 => format!(
            "BEGIN; {insert}; SAVEPOINT a; DELETE FROM {table} WHERE id < 300; ROLLBACK TO a; COMMIT"
        ),
        7 => format!("BEGIN; {insert}; DELETE FROM {table}; ROLLBACK"),
        8 => format!("UPDATE {table} SET at = NULL, instant = 'infinity', word = 'infinity' WHERE id = {id}"),
        9 => format!("UPDATE {table} SET id = id + 10000 WHERE id = {id}"),
        10 if random.below(40) == 0 => format!(
            "BEGIN; TRUNCATE {table}; INSERT INTO {table} SELECT n, date '2024-01-01' + n % 30,
             timestamp '2024-01-01' + n * interval '1 hour', now(), n % 30, n, 'word 3' FROM generate_series(1, 700) n; COMMIT"
        ),
        _ => format!(
            "SET TimeZone = '{}'",
            ["UTC", "Asia/Kolkata", "America/New_York"][day as usize % 3]
        ),
    }
}

async fn write(database: Arc<Database>, stop: Arc<AtomicBool>, seed: u64) {
    let connection = database.connect().await;
    connection
        .batch_execute("SET search_path = public")
        .await
        .unwrap();
    let mut random = Random(seed);
    while !stop.load(Ordering::Relaxed) {
        // Two writers may delete each other's rows.
        if connection
            .batch_execute(&change(&mut random))
            .await
            .is_err()
        {
            connection.batch_execute("ROLLBACK").await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(random.below(60))).await;
    }
}

#[derive(Debug, Default)]
struct Outcome {
    /// Said to be unchanged although the table was changed, and rightly.
    survived: usize,
    asked: usize,
    wrong: Vec<String>,
}

/// Keeps an answer to each question, and compares it whenever it is said to hold.
async fn read(database: &Database, stream: &ChangeStream, tables: [Oid; 3]) -> Outcome {
    let connection = database.connect().await;
    connection
        .batch_execute("SET TimeZone = 'UTC'; SET search_path = public")
        .await
        .unwrap();
    let mut questions = vec![];
    for (table, oid) in TABLES.into_iter().zip(tables) {
        for column in COLUMNS {
            for from in [0, 9, 20] {
                questions.push(question(table, oid, column, from, from + 2));
            }
        }
    }
    let answer = async |question: &Question| -> (i64, i64) {
        let row = connection.query_one(&question.sql, &[]).await.unwrap();
        (row.get(0), row.get(1))
    };
    let mut outcome = Outcome::default();
    let mut kept: Vec<Option<(Position, (i64, i64))>> = questions.iter().map(|_| None).collect();
    let until = Instant::now() + duration();
    let rounds_min = 15;
    let mut round = 0;
    while round < rounds_min || Instant::now() < until {
        round += 1;
        for (question, kept) in questions.iter().zip(&mut kept) {
            let Ok(proof) = stream.prove_current(DEADLINE).await else {
                continue;
            };
            outcome.asked += 1;
            let table = question.range.table;
            let ranges = std::slice::from_ref(&question.range);
            let holds = |position: Position| stream.unchanged_in(position, table, ranges).is_ok();
            if let Some((position, right)) = kept.filter(|(position, _)| holds(*position)) {
                let now = answer(question).await;
                // What was committed since the first proof may be in the answer of now.
                let is_proven = stream.prove_current(DEADLINE).await.is_ok();
                if is_proven && holds(position) {
                    if now != right {
                        outcome
                            .wrong
                            .push(format!("{}: {right:?}, is {now:?}", question.sql));
                    }
                    outcome.survived +=
                        usize::from(stream.unchanged_since(position, &[table]).is_err());
                    continue;
                }
            }
            stream.track(&question.range);
            *kept = Some((proof.position(), answer(question).await));
        }
    }
    outcome
}

async fn run(weakness: Weakness, writers: u64) -> Outcome {
    let database = Arc::new(Database::with(SCHEMA).await);
    let oid = async |table: &str| {
        let sql = format!("SELECT 'public.{table}'::regclass::oid::text");
        Oid(database.value(&sql).await.parse().unwrap())
    };
    let tables = [oid("whole").await, oid("keyed").await, oid("parted").await];
    let options = StreamOptions {
        weakness,
        ..StreamOptions::default()
    };
    let stream = ChangeStream::start_with(database.config().await, tables.to_vec(), options)
        .await
        .unwrap();
    stream.established(DEADLINE).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..writers)
        .map(|seed| tokio::spawn(write(Arc::clone(&database), Arc::clone(&stop), seed + 1)))
        .collect();
    let outcome = read(&database, &stream, tables).await;
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_be_unchanged_in_a_range_is() {
    let Outcome {
        survived,
        asked,
        wrong,
    } = run(Weakness::None, 2).await;
    println!("{survived} of {asked} answers outlived a change of their table");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(
        survived > 10,
        "hardly any answer outlived a change: {survived} of {asked}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_weakness_is_noticed() {
    let all = [
        Weakness::NewRowsOnly,
        Weakness::KnownRowsOnly,
        Weakness::BelievesNulls,
    ];
    for weakness in all {
        let mut runs = 0;
        while run(weakness, 2).await.wrong.is_empty() {
            runs += 1;
            assert!(runs < 10, "{weakness:?} was not noticed");
        }
    }
}

/// What such a partition sends of its old rows has the columns of its key, and looks like whole rows; or nothing is sent.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_row_that_a_partition_does_not_have_may_have_been_any() {
    let database = Database::with(SCHEMA).await;
    let oid = database
        .value("'public.parted'::regclass::oid::text")
        .await
        .parse();
    let table = Oid(oid.unwrap());
    let options = StreamOptions::default();
    let stream = ChangeStream::start_with(database.config().await, vec![table], options)
        .await
        .unwrap();
    stream.established(DEADLINE).await.unwrap();
    let range = question("parted", table, ("at", 1114), 0, 2).range;
    stream.track(&range);
    let swap = "ALTER TABLE parted RENAME at TO c; ALTER TABLE parted RENAME other TO at";
    let swap_back = "ALTER TABLE parted RENAME at TO other; ALTER TABLE parted RENAME c TO at";
    database
        .run("ALTER TABLE parted ADD COLUMN other timestamp DEFAULT '2025-01-01'")
        .await;
    // Under the names of that moment another column changed.
    let renamed =
        format!("BEGIN; {swap}; UPDATE parted SET c = NULL WHERE id = 20; {swap_back}; COMMIT");
    for change in [
        renamed.as_str(),
        "UPDATE parted SET at = NULL WHERE id = 5 AND day < '2024-01-15'",
        "UPDATE parted SET id = id + 1000, at = NULL WHERE id = 6 AND day < '2024-01-15'",
        "DELETE FROM parted WHERE id = 7 AND day < '2024-01-15'",
    ] {
        let before = stream.prove_current(DEADLINE).await.unwrap().position();
        database.run(change).await;
        stream.prove_current(DEADLINE).await.unwrap();
        let ranges = std::slice::from_ref(&range);
        let unchanged = stream.unchanged_in(before, table, ranges);
        assert!(unchanged.is_err(), "{change}");
    }
}
