//! Names outside `pg_catalog` that a statement over built-in types could mean instead of a built-in.

use std::collections::HashSet;

use pgstar_rewriter::catalog::{Oid, UserNames};
use tokio_postgres::Client;

use crate::connect::Error;

/// Types that a built-in value fits without a cast of its user's making: those of `pg_catalog`
/// (polymorphic ones too) and domains over them.
const BUILT_IN: &str = "
  WITH RECURSIVE built_in(oid) AS (
      SELECT t.oid FROM pg_type t WHERE t.typnamespace = 'pg_catalog'::regnamespace
    UNION
      SELECT t.oid FROM pg_type t JOIN built_in b ON b.oid = t.typbasetype WHERE t.typtype = 'd'
  )";

/// A function without arguments qualifies too: `now()` can be somebody's own.
const FUNCTIONS: &str = "
  SELECT DISTINCT p.proname::text FROM pg_proc p
   WHERE p.pronamespace <> 'pg_catalog'::regnamespace
     AND p.proargtypes::oid[] <@ ARRAY(SELECT oid FROM built_in)";

/// A prefix operator has 0 for its left operand.
const OPERATORS: &str = "
  SELECT DISTINCT o.oprname::text FROM pg_operator o
   WHERE o.oprnamespace <> 'pg_catalog'::regnamespace
     AND (o.oprleft = 0 OR o.oprleft IN (SELECT oid FROM built_in))
     AND o.oprright IN (SELECT oid FROM built_in)";

const NONDETERMINISTIC_COLLATIONS: &str =
    "SELECT oid FROM pg_collation WHERE NOT collisdeterministic";

const ENUM_TYPES: &str = "SELECT oid FROM pg_type WHERE typtype = 'e'";

/// Every such name of the database, whatever schema it is in.
pub(super) async fn load(client: &Client) -> Result<UserNames, Error> {
    Ok(UserNames {
        functions: names(client, &format!("{BUILT_IN} {FUNCTIONS}")).await?,
        operators: names(client, &format!("{BUILT_IN} {OPERATORS}")).await?,
        nondeterministic_collations: oids(client, NONDETERMINISTIC_COLLATIONS).await?,
        enum_types: oids(client, ENUM_TYPES).await?,
    })
}

async fn names(client: &Client, sql: &str) -> Result<HashSet<String>, Error> {
    let rows = client.query(sql, &[]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn oids(client: &Client, sql: &str) -> Result<HashSet<Oid>, Error> {
    let rows = client.query(sql, &[]).await?;
    rows.iter().map(|row| Ok(Oid(row.try_get(0)?))).collect()
}
