//! Descriptions are PostgreSQL's own, and asking leaves no trace in the connection.

#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

mod common;

use common::Database;
use pgstar_postgres::describe::{DescribeError, Description, describe};
use pgstar_rewriter::catalog::Oid;

const TABLES: &str = "
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE TABLE t (gone int, name varchar(7), price numeric(10,2), mood mood);
    ALTER TABLE t DROP COLUMN gone;
    CREATE SCHEMA \"Other \"\" one\";
    CREATE TABLE \"Other \"\" one\".t (name bigint);";

fn path(schemas: &[&str]) -> Vec<String> {
    schemas.iter().map(|schema| (*schema).to_owned()).collect()
}

async fn ask(database: &Database, sql: &str, types: &[u32]) -> Result<Description, DescribeError> {
    describe(
        &mut *database.connect().await,
        sql,
        &path(&["pg_catalog", "public"]),
        types,
    )
    .await
}

/// (name, is from a table, attnum, type, typmod) of each column.
fn columns(description: &Description) -> Vec<(&str, bool, i16, u32, i32)> {
    let facts = description.columns.iter();
    facts
        .map(|c| {
            (
                c.name.as_str(),
                c.table_oid != Oid(0),
                c.attnum,
                c.type_oid.0,
                c.typmod,
            )
        })
        .collect()
}

#[tokio::test]
async fn columns_are_described_with_origin_type_and_typmod() {
    let database = Database::with(TABLES).await;
    let sql = "SELECT name, sum(price) AS \"Total\", price, mood, count(*) FROM t GROUP BY 1, 3, 4";
    let description = ask(&database, sql, &[]).await.unwrap();
    let mood: u32 = database
        .value("'public.mood'::regtype::oid")
        .await
        .parse()
        .unwrap();
    let expected = [
        ("name", true, 2, 1043, 11),
        ("Total", false, 0, 1700, -1),
        ("price", true, 3, 1700, (10 << 16 | 2) + 4),
        ("mood", true, 4, mood, -1),
        ("count", false, 0, 20, -1),
    ];
    assert_eq!(columns(&description), expected);
    let table: u32 = database
        .value("'public.t'::regclass::oid")
        .await
        .parse()
        .unwrap();
    assert_eq!(description.columns[0].table_oid, Oid(table));
    let nothing = ask(&database, "DELETE FROM t", &[]).await.unwrap();
    assert_eq!(
        nothing,
        Description {
            parameters: vec![],
            columns: vec![]
        }
    );
}

#[tokio::test]
async fn parameters_are_taken_as_declared_or_inferred() {
    let database = Database::with(TABLES).await;
    let mood: u32 = database
        .value("'public.mood'::regtype::oid")
        .await
        .parse()
        .unwrap();
    let sql = "SELECT $1 FROM t WHERE price > $2 AND mood = $3 AND $4";
    let description = ask(&database, sql, &[20, 0, mood]).await.unwrap();
    assert_eq!(
        description.parameters,
        [Oid(20), Oid(1700), Oid(mood), Oid(16)]
    );
    assert_eq!(description.columns[0].type_oid, Oid(20));
}

#[tokio::test]
async fn names_are_looked_up_in_the_given_path_only() {
    let database = Database::with(TABLES).await;
    let mut connection = database.connect().await;
    connection
        .batch_execute("SET search_path = public")
        .await
        .unwrap();
    for (schemas, expected) in [
        (path(&["pg_catalog", "public"]), Some(1043)),
        (path(&["Other \" one", "public"]), Some(20)),
        (path(&["pg_catalog"]), None),
        (path(&[]), None),
    ] {
        let result = describe(&mut connection, "SELECT name FROM t", &schemas, &[]).await;
        let ty = result
            .ok()
            .map(|description| description.columns[0].type_oid.0);
        assert_eq!(ty, expected, "{schemas:?}");
        let row = connection.query_one("SHOW search_path", &[]).await.unwrap();
        assert_eq!(
            row.get::<_, String>(0),
            "public",
            "the connection is as it was"
        );
    }
    let temporary = describe(&mut connection, "SELECT 1", &path(&["pg_temp_3"]), &[]).await;
    assert!(matches!(temporary, Err(DescribeError::TemporarySchema(_))));
}

#[tokio::test]
async fn refusals_carry_the_sqlstate_and_are_told_from_trouble() {
    let database = Database::with(TABLES).await;
    for (sql, expected) in [
        ("SELECT nothing FROM t", "42703"),
        ("SELEC 1", "42601"),
        ("SELECT 1 FROM missing", "42P01"),
        ("SELECT 1; SELECT 2", "42601"),
    ] {
        match ask(&database, sql, &[]).await {
            Err(DescribeError::Refused { sqlstate, .. }) => assert_eq!(sqlstate, expected, "{sql}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
    let locker = database.connect().await;
    locker
        .batch_execute("BEGIN; LOCK TABLE public.t")
        .await
        .unwrap();
    let locked = ask(&database, "SELECT name FROM t", &[]).await;
    assert!(
        matches!(locked, Err(DescribeError::Unavailable(_))),
        "{locked:?}"
    );
    let mut lost = database.connect().await;
    let pid: i32 = lost
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    database
        .value(&format!("SELECT pg_terminate_backend({pid}, 5000)"))
        .await;
    let result = describe(&mut lost, "SELECT 1", &path(&["public"]), &[]).await;
    assert!(
        matches!(result, Err(DescribeError::Unavailable(_))),
        "{result:?}"
    );
}
