//! One builder per rollup, over all pgstar processes of a database.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::Client;

use super::{BuildProgress, OnProgress, RollupError, naming};
use crate::connect::Error;

/// The first key of pgstar's advisory locks: "pgst" in ASCII.
pub(crate) const LOCK_CLASS: i32 = 0x7067_7374;

/// The second key of the lock on schema-wide changes; a rollup whose hash is 0 would share it, which
/// only makes it wait.
const SCHEMA_LOCK: i32 = 0;

/// The second key of the lock of the one process that brings rollups up to date.
pub(crate) const LEADER_LOCK: i32 = -1;

/// The first key of the lock that whoever takes a snapshot for a rollup's table holds until the table is there: what that
/// snapshot does not see will be needed. "pgsn" in ASCII.
pub(crate) const SNAPSHOT_LOCK_CLASS: i32 = 0x7067_736e;

const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Waits until this session alone may build or drop the rollup.
///
/// The lock is the session's: it is released when the connection ends, however that happens.
pub(super) async fn acquire(
    client: &Client,
    rollup: &str,
    progress: OnProgress<'_>,
) -> Result<(), RollupError> {
    let key = match naming::hash(rollup) {
        hash if hash.cast_signed() == LEADER_LOCK => 1,
        hash => hash,
    };
    while !try_acquire(client, key).await? {
        // When the holder went away between the two questions, the next attempt succeeds.
        if let Some(holder) = holder(client, key).await? {
            progress(BuildProgress::Waiting { holder });
        }
        sleep(RETRY_INTERVAL).await;
    }
    Ok(())
}

/// Builds something while the slot keeps what a snapshot that is taken meanwhile does not see.
pub(super) async fn holding_changes<T>(
    client: &mut Client,
    build: impl AsyncFnOnce(&mut Client) -> Result<T, RollupError>,
) -> Result<T, RollupError> {
    let sql = "SELECT pg_advisory_lock_shared($1, 0)";
    client.execute(sql, &[&SNAPSHOT_LOCK_CLASS]).await?;
    let built = build(client).await;
    let sql = "SELECT pg_advisory_unlock_shared($1, 0)";
    let released = client.execute(sql, &[&SNAPSHOT_LOCK_CLASS]).await;
    let built = built?;
    released?;
    Ok(built)
}

/// Which process of the server's serves the session of who brings rollups up to date, if there is such.
pub(crate) async fn leader(client: &Client) -> Result<Option<i32>, Error> {
    let sql = "SELECT l.pid FROM pg_locks l
                WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = $1 AND l.objid = $2
                  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())";
    let (class, leader) = (LOCK_CLASS.cast_unsigned(), LEADER_LOCK.cast_unsigned());
    let row = client.query_opt(sql, &[&class, &leader]).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// The statement that takes the lock on schema-wide changes until the transaction ends.
pub(super) fn schema_lock_statement() -> String {
    format!("SELECT pg_advisory_xact_lock({LOCK_CLASS}, {SCHEMA_LOCK})")
}

async fn try_acquire(client: &Client, key: u32) -> Result<bool, RollupError> {
    let sql = "SELECT pg_try_advisory_lock($1, $2)";
    Ok(client
        .query_one(sql, &[&LOCK_CLASS, &key.cast_signed()])
        .await?
        .try_get(0)?)
}

/// `objsubid` 2 marks a lock with two keys; a role sees every session's number, name and start.
const HOLDER: &str = "
  SELECT a.pid, a.usename::text, a.application_name
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
   WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
     AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
     AND l.classid = $1 AND l.objid = $2";

async fn holder(client: &Client, key: u32) -> Result<Option<String>, RollupError> {
    let Some(row) = client
        .query_opt(HOLDER, &[&LOCK_CLASS.cast_unsigned(), &key])
        .await?
    else {
        return Ok(None);
    };
    let process: i32 = row.try_get(0)?;
    let role: Option<String> = row.try_get(1)?;
    let application: Option<String> = row.try_get(2)?;
    let (role, application) = (role.unwrap_or_default(), application.unwrap_or_default());
    Ok(Some(format!(
        "server process {process} (role \"{role}\", application \"{application}\")"
    )))
}
