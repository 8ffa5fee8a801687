//! `pgstar explain`: the decision for one statement, without a running proxy.

use std::sync::Arc;

use pgstar_postgres::connect::Connection;
use tokio_postgres::SimpleQueryMessage;

use crate::config::Config;
use crate::failure::Failure;
use crate::route::{Router, SessionFacts};
use crate::serve::open_warehouse;
use crate::session::{facts_of, probe_sql};

/// Prints what `EXPLAIN (PGSTAR)` would say to a new session of the role in `[upstream] url`.
///
/// # Errors
/// The server cannot be reached, or rollups do not fit the database.
pub async fn run(config: Config, statement: &str, json: bool) -> Result<(), Failure> {
    let warehouse = open_warehouse(&config).await?;
    let router = Router::new(Arc::clone(&warehouse), config.cache, config.freshness);
    let asking = "ask the server for a session's settings";
    let connection = warehouse
        .connector()
        .connect()
        .await
        .map_err(|error| Failure::while_doing(asking, error))?;
    let facts = new_session(&connection)
        .await
        .map_err(|error| Failure::while_doing(asking, error))?;
    let facts = facts.ok_or_else(|| Failure::while_doing(asking, "the answer is not readable"))?;
    let explanation = tokio::select! {
        explanation = router.explain(&facts, statement) => explanation,
        () = warehouse.keep_guard() => return Ok(()),
    };
    for line in explanation.lines(json) {
        println!("{line}");
    }
    Ok(())
}

/// What a session of this role would know of itself when it begins.
async fn new_session(
    connection: &Connection,
) -> Result<Option<SessionFacts>, tokio_postgres::Error> {
    // pgstar's own connections begin with settings of their own.
    connection
        .batch_execute("RESET search_path; RESET TimeZone")
        .await?;
    let replies = connection.simple_query(&probe_sql()).await?;
    Ok(replies.iter().find_map(|reply| match reply {
        SimpleQueryMessage::Row(row) => facts_of(
            &(0..row.len())
                .map(|column| row.get(column))
                .collect::<Vec<_>>(),
        ),
        _ => None,
    }))
}
