//! Lets others have the tables that a long statement of pgstar's reads.
//!
//! Whoever alters, truncates or drops a table waits for those who read it, and everybody else who wants the table waits
//! behind. So a statement that may take long is cancelled when somebody waits for it in this way. What it was for is tried
//! again; mostly the table is another one by then, so that it would have been for nothing.

use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, interval_at};
use tokio_postgres::Client;
use tracing::debug;

use crate::connect::Error;

/// How often it is looked whether somebody waits.
const TICK: Duration = Duration::from_secs(1);

/// Whoever waits for a parallel worker is said to wait for its leader.
const CANCEL: &str = "
  SELECT pg_cancel_backend($1)
   WHERE EXISTS (SELECT FROM pg_locks w
                  WHERE NOT w.granted AND w.locktype = 'relation' AND w.mode = 'AccessExclusiveLock'
                    AND $1 = ANY (pg_blocking_pids(w.pid)))";

/// The process that serves a connection.
pub(crate) async fn process(client: &Client) -> Result<i32, Error> {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await?;
    Ok(row.try_get(0)?)
}

/// The outcome of the work that this process does: an error if it had to give way. `watching` is another connection.
pub(crate) async fn giving_way<T>(
    watching: &Client,
    process: i32,
    work: impl Future<Output = T>,
) -> T {
    let cancel = || async { Ok(watching.execute(CANCEL, &[&process]).await? > 0) }.boxed();
    watched(&cancel, work).await
}

/// Cancels what the process does, unconditionally.
pub(crate) async fn cancel(watching: &Client, process: i32) -> Result<(), Error> {
    let sql = "SELECT pg_cancel_backend($1)";
    watching.execute(sql, &[&process]).await?;
    Ok(())
}

/// The outcome of the work. Now and then `cancel` is asked whether it had to cancel it.
pub(crate) async fn watched<'a, T>(
    cancel: &(dyn Fn() -> BoxFuture<'a, Result<bool, Error>> + Sync),
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    let mut ticks = interval_at(Instant::now() + TICK, TICK);
    loop {
        let looked = async {
            ticks.tick().await;
            cancel().await
        };
        tokio::select! {
            outcome = &mut work => return outcome,
            cancelled = looked => match cancelled {
                Ok(false) => {}
                Ok(true) => debug!("A statement of pgstar's gives way to who alters its tables."),
                Err(error) => debug!(%error, "It could not be seen who waits."),
            }
        }
    }
}
