//! What PostgreSQL itself says of a statement's parameters and output columns, without running it.
//!
//! It neither parses nor judges the statement; the answers are compared elsewhere.

use bytes::BytesMut;
use pgstar_rewriter::Premise;
use pgstar_rewriter::catalog::Oid;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Format, IsNull, Kind, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use crate::connect::Reported;
use crate::identifier::{quote, quote_literal};

/// One output column, as RowDescription has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedColumn {
    /// The column's name in the answer.
    pub name: String,
    /// The table that the column is copied from; `Oid(0)` when it is an expression.
    pub table_oid: Oid,
    /// The column's number in that table; 0 when it is an expression.
    pub attnum: i16,
    /// Its type.
    pub type_oid: Oid,
    /// Its type modifier; -1 for none.
    pub typmod: i32,
}

/// What PostgreSQL says of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The parameters' types, those that PostgreSQL inferred included.
    pub parameters: Vec<Oid>,
    /// The output columns; empty when the statement returns no rows.
    pub columns: Vec<DescribedColumn>,
}

/// Why there is no description.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// PostgreSQL refuses the statement: asking again gives the same, until the catalog changes.
    #[error("PostgreSQL refuses the statement: {message} (SQLSTATE {sqlstate})")]
    Refused {
        /// The five characters of the SQLSTATE.
        sqlstate: String,
        /// PostgreSQL's primary message.
        message: String,
    },
    /// The question could not be put: lost connection, shutdown, a lock or a resource. Ask again later.
    #[error("could not describe the statement: {}", Reported(.0))]
    Unavailable(#[source] tokio_postgres::Error),
    /// The path names a session's temporary schema, which another session must not search.
    #[error("schema \"{0}\" belongs to one session")]
    TemporarySchema(String),
}

/// Describes `sql` as if a session with this `search_path` had prepared it.
///
/// `parameter_types` are those of the client's Parse message: 0 asks PostgreSQL to infer. The
/// statement is prepared in a transaction that is rolled back, so the connection is left as it was
/// found even when the caller loses interest half-way.
pub async fn describe(
    client: &mut Client,
    sql: &str,
    search_path: &[String],
    parameter_types: &[u32],
) -> Result<Description, DescribeError> {
    let settings = session_settings(search_path)?;
    let types = types_of(parameter_types);
    let transaction = client.transaction().await.map_err(classify)?;
    transaction
        .batch_execute(&settings)
        .await
        .map_err(classify)?;
    let statement = transaction
        .prepare_typed(sql, &types)
        .await
        .map_err(classify)?;
    Ok(description_of(&statement))
}

/// Whether a premise of the rewriter's holds in a session of this time zone.
///
/// It is asked in a transaction that is rolled back, with pg_catalog alone in the search path.
pub async fn holds(
    client: &mut Client,
    premise: &Premise,
    time_zone: &str,
) -> Result<bool, DescribeError> {
    let transaction = client.transaction().await.map_err(classify)?;
    let settings = format!(
        "SET LOCAL search_path = pg_catalog; SET LOCAL TimeZone = {}",
        quote_literal(time_zone)
    );
    transaction
        .batch_execute(&settings)
        .await
        .map_err(classify)?;
    let row = transaction
        .query_one(premise.sql(), &[])
        .await
        .map_err(classify)?;
    row.try_get(0).map_err(DescribeError::Unavailable)
}

/// A value that is bound to a parameter, as a client sent it.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a> {
    /// `None` for NULL.
    pub bytes: Option<&'a [u8]>,
    /// Whether the bytes are text.
    pub is_text: bool,
}

impl ToSql for Bound<'_> {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Ok(match self.bytes {
            Some(bytes) => {
                out.extend_from_slice(bytes);
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        match self.is_text {
            true => Format::Text,
            false => Format::Binary,
        }
    }

    to_sql_checked!();
}

/// What PostgreSQL's planner expects running the statement to cost with these values, in its own units; `None` if it does not say.
///
/// `sql` is a query, read as in a session with this `search_path` and `TimeZone`. The types are the parameters' as far as they are
/// declared.
pub async fn planned_cost(
    client: &mut Client,
    sql: &str,
    (types, values): (&[u32], &[Bound<'_>]),
    search_path: &[String],
    time_zone: &str,
) -> Result<Option<f64>, DescribeError> {
    let settings = session_settings(search_path)?;
    let zone = quote_literal(time_zone);
    let settings = format!("{settings}; SET LOCAL TimeZone = {zone}");
    let transaction = client.transaction().await.map_err(classify)?;
    if values.is_empty() {
        let question = format!("{settings}; EXPLAIN {sql}");
        let replies = transaction.simple_query(&question);
        let replies = replies.await.map_err(classify)?;
        let first_line = replies.iter().find_map(|reply| match reply {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        return Ok(first_line.and_then(total_cost));
    }
    let set = transaction.batch_execute(&settings);
    set.await.map_err(classify)?;
    let types = types_of(types);
    let question = format!("EXPLAIN {sql}");
    let prepared = transaction.prepare_typed(&question, &types);
    let prepared = prepared.await.map_err(classify)?;
    if prepared.params().len() != values.len() {
        return Ok(None);
    }
    let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
    let lines = transaction.query(&prepared, &values);
    let lines = lines.await.map_err(classify)?;
    let first_line = lines.first().map(|line| line.try_get::<_, &str>(0));
    let first_line = first_line.transpose().map_err(DescribeError::Unavailable)?;
    Ok(first_line.and_then(total_cost))
}

/// The total in `Aggregate  (cost=12.50..12.51 rows=1 width=8)`.
fn total_cost(line: &str) -> Option<f64> {
    let (_, costs) = line.split_once("(cost=")?;
    let (_, total) = costs.split_once(' ')?.0.split_once("..")?;
    total.parse().ok()
}

/// A statement that waits for somebody's ALTER TABLE would make every later question wait too.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";

fn session_settings(search_path: &[String]) -> Result<String, DescribeError> {
    if let Some(schema) = search_path.iter().find(|schema| is_temporary(schema)) {
        return Err(DescribeError::TemporarySchema(schema.clone()));
    }
    let path: Vec<String> = search_path.iter().map(|schema| quote(schema)).collect();
    // An empty list is no SQL; one schema without a name is how PostgreSQL spells "none".
    let path = if path.is_empty() {
        "''".to_owned()
    } else {
        path.join(", ")
    };
    Ok(format!("{LOCK_TIMEOUT}; SET LOCAL search_path = {path}"))
}

fn is_temporary(schema: &str) -> bool {
    schema == "pg_temp" || schema.starts_with("pg_temp_") || schema.starts_with("pg_toast_temp_")
}

fn types_of(parameters: &[u32]) -> Vec<Type> {
    parameters.iter().copied().map(parameter_type).collect()
}

/// Only the number goes over the wire, so a user's own type needs no look-up.
fn parameter_type(oid: u32) -> Type {
    // PostgreSQL infers a parameter declared `unknown` exactly as one declared 0.
    let oid = if oid == 0 { Type::UNKNOWN.oid() } else { oid };
    let other = || Type::new(format!("type {oid}"), oid, Kind::Simple, String::new());
    Type::from_oid(oid).unwrap_or_else(other)
}

fn description_of(statement: &Statement) -> Description {
    let parameters = statement.params().iter().map(|ty| Oid(ty.oid())).collect();
    let column = |column: &tokio_postgres::Column| DescribedColumn {
        name: column.name().to_owned(),
        table_oid: Oid(column.table_oid().unwrap_or(0)),
        attnum: column.column_id().unwrap_or(0),
        type_oid: Oid(column.type_().oid()),
        typmod: column.type_modifier(),
    };
    Description {
        parameters,
        columns: statement.columns().iter().map(column).collect(),
    }
}

fn classify(error: tokio_postgres::Error) -> DescribeError {
    match error.as_db_error() {
        Some(server) if !is_passing(server.code()) => DescribeError::Refused {
            sqlstate: server.code().code().to_owned(),
            message: server.message().to_owned(),
        },
        _ => DescribeError::Unavailable(error),
    }
}

/// Whether the refusal says something about the moment and not about the statement: connection,
/// conflict, resource, lock, operator intervention, system or internal error.
fn is_passing(sqlstate: &SqlState) -> bool {
    const PASSING: [&str; 7] = ["08", "40", "53", "55", "57", "58", "XX"];
    PASSING
        .iter()
        .any(|class| sqlstate.code().starts_with(class))
}
