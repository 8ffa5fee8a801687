//! Reads PostgreSQL's catalog into the snapshot that the rewriter proves from.
//!
//! Every fact is taken at its strictest: what PostgreSQL does not enforce for each row that a plain
//! scan returns is left out. Nothing here looks at a user's rows.

mod fingerprint;
mod foreign_keys;
mod libraries;
mod relations;
mod user_names;

use std::collections::HashMap;

use pgstar_rewriter::catalog::{Catalog, Oid, Relation};
use tokio_postgres::Client;

pub use fingerprint::catalog_fingerprint;
pub use libraries::clocks;

use crate::connect::Error;

/// One snapshot for all the queries, and names that mean the built-in objects.
const BEGIN: &str =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = pg_catalog";

/// The catalog of the client's database, at one instant.
///
/// Takes a transaction of its own on `client`: the caller must not be in one, and must not use the
/// connection again if it drops this future half-way. Every role may run it.
///
/// Left out: temporary relations, `information_schema`, TOAST tables, and what no query can name
/// as a table (indexes, composite types) or what has no facts to offer (sequences).
pub async fn load_catalog(client: &Client) -> Result<Catalog, Error> {
    load_catalog_and_clocks(client, &[]).await
}

/// The same with the clocks of these zones, as far as they are zones.
pub async fn load_catalog_and_clocks(client: &Client, zones: &[String]) -> Result<Catalog, Error> {
    client.batch_execute(BEGIN).await?;
    let loaded = load_in_transaction(client, zones).await;
    // READ ONLY: there is nothing to keep, and the first error is the one worth reporting.
    let ended = client.batch_execute("ROLLBACK").await;
    let catalog = loaded?;
    ended?;
    Ok(catalog)
}

/// The catalog as the transaction's snapshot has it, under `search_path = pg_catalog`.
pub(crate) async fn load_in_transaction(
    client: &Client,
    zones: &[String],
) -> Result<Catalog, Error> {
    let version = server_version(client).await?;
    let libraries = libraries::load(client, version, zones).await?;
    let user_names = user_names::load(client).await?;
    let mut relations = by_oid(relations::load(client, version).await?);
    relations::add_unique_keys(client, &mut relations).await?;
    foreign_keys::add(client, version, &mut relations, &user_names).await?;
    let relations = relations.into_values().collect();
    Ok(Catalog::new(relations, user_names).with_libraries(libraries))
}

fn by_oid(relations: Vec<Relation>) -> HashMap<Oid, Relation> {
    relations
        .into_iter()
        .map(|relation| (relation.oid, relation))
        .collect()
}

/// `server_version_num`, for example 150018.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct ServerVersion(i32);

impl ServerVersion {
    const V15: ServerVersion = ServerVersion(150_000);
    const V18: ServerVersion = ServerVersion(180_000);
}

async fn server_version(client: &Client) -> Result<ServerVersion, Error> {
    let sql = "SELECT current_setting('server_version_num')::int4";
    Ok(ServerVersion(client.query_one(sql, &[]).await?.try_get(0)?))
}
