//! Which versions of its libraries the server runs with: they decide how texts are ordered and what clocks show.

use std::collections::BTreeMap;

use pgstar_rewriter::catalog::{Libraries, Oid};
use tokio_postgres::Client;

use super::ServerVersion;
use crate::connect::Error;

/// The version that was recorded when the collation was made or last looked over, and that of the library that is there now. `$default`
/// is those of the database's own collation.
const ORDERS: &str = "
  SELECT c.oid AS collation, concat_ws(' ', c.collversion, pg_catalog.pg_collation_actual_version(c.oid)) AS version
    FROM pg_catalog.pg_collation c
   WHERE c.oid <> 100 AND c.oid IN (SELECT a.attcollation FROM pg_catalog.pg_attribute a WHERE a.attrelid >= 16384)
   UNION ALL
  SELECT 100, ($default)";

const DEFAULT: &str = "
  SELECT concat_ws(' ', d.datcollversion, pg_catalog.pg_database_collation_actual_version(d.oid))
    FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";

/// Before 15 the database's collation was always the C library's.
const DEFAULT_BEFORE_15: &str = "
  SELECT max(pg_catalog.pg_collation_actual_version(c.oid))
    FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_database d ON d.datcollate = c.collcollate AND c.collprovider = 'c'
   WHERE d.datname = pg_catalog.current_database()";

/// As a query with the columns `collation` and `version`.
pub(super) fn orders(version: ServerVersion) -> String {
    let default = match version >= ServerVersion::V15 {
        true => DEFAULT,
        false => DEFAULT_BEFORE_15,
    };
    ORDERS.replace("$default", default)
}

/// What a zone's clocks differ from UTC's by, four times a day: two versions of its rules that agree in all of it differ in no way
/// that matters to more than some hours.
const CLOCKS: &str = "
  SELECT lower(z.name), to_hex(bit_xor(hash_record_extended(ROW(at, at AT TIME ZONE z.name), 0)))
    FROM pg_catalog.pg_timezone_names z,
         generate_series(timestamptz '1970-01-01 00:00+00', timestamptz '2040-01-01 00:00+00', interval '6 hours') AS at
   WHERE lower(z.name) = ANY ($1)
   GROUP BY 1";

pub(super) async fn load(
    client: &Client,
    version: ServerVersion,
    zones: &[String],
) -> Result<Libraries, Error> {
    let rows = client.query(&orders(version), &[]).await?;
    let version = |row: &tokio_postgres::Row| Ok((Oid(row.try_get(0)?), row.try_get(1)?));
    let orders: Vec<(Oid, Option<String>)> =
        rows.iter().map(version).collect::<Result<_, Error>>()?;
    let known = |(collation, version): (Oid, Option<String>)| Some((collation, version?));
    Ok(Libraries {
        orders: orders.into_iter().filter_map(known).collect(),
        clocks: clocks(client, zones).await?,
    })
}

/// By zone, in lower case, a text that is another where its clocks differ. What is no zone's name is left out.
///
/// Every role may ask. It takes some 50 ms for each zone.
pub async fn clocks(client: &Client, zones: &[String]) -> Result<BTreeMap<String, String>, Error> {
    if zones.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = client.query(CLOCKS, &[&zones]).await?;
    let rules = |row: &tokio_postgres::Row| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(rules).collect()
}
