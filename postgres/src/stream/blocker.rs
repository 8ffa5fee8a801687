//! Names the session that a slot's creation waits for.

use tokio_postgres::Client;

use crate::connect::Error;

/// Whoever has been writing for longest. Every role may see numbers, names and transactions.
const QUESTION: &str = "
  SELECT who FROM (
    SELECT age(backend_xid) AS age,
           format('server process %s (role \"%s\", database \"%s\", application \"%s\"), which has an open transaction that wrote',
                  pid, usename, datname, application_name) AS who
      FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
     UNION ALL
    SELECT age(transaction), format('prepared transaction \"%s\" of role \"%s\", database \"%s\"', gid, owner, database)
      FROM pg_prepared_xacts) writer
   ORDER BY age DESC LIMIT 1";

/// In words, to follow \"waiting for\"; nobody may be left by now.
pub(super) async fn oldest_writer(client: &Client) -> Result<Option<String>, Error> {
    let row = client.query_opt(QUESTION, &[]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}
