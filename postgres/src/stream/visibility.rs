//! The visibility gate: PostgreSQL streams a commit when it is in the log, and lets it be seen later.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::Client;

use super::epoch::{Setting, answer};
use super::snapshot::Snapshot;
use super::{StreamError, Weakness};

/// How soon a snapshot is taken again while something is not visible; then doubled up to the other.
const SNAPSHOT_INTERVAL_MIN: Duration = Duration::from_micros(500);
const SNAPSHOT_INTERVAL_MAX: Duration = Duration::from_millis(10);

/// Takes snapshots while something that was decoded may not be visible yet.
pub(super) async fn watch_visibility(
    asking: &Client,
    setting: &Setting<'_>,
) -> Result<Infallible, StreamError> {
    let statement = asking.prepare("SELECT pg_current_snapshot()::text").await?;
    let shared = setting.shared;
    loop {
        shared.visibility.notified().await;
        let mut pause = SNAPSHOT_INTERVAL_MIN;
        while shared.waits_for_visibility() {
            if setting.options.weakness == Weakness::NoVisibilityGate {
                shared.settle_blindly();
                continue;
            }
            let patience = setting.options.patience;
            let row = answer(patience, asking.query_one(&statement, &[])).await?;
            let text: &str = row.try_get(0)?;
            let snapshot: Snapshot = text
                .parse()
                .map_err(|_| StreamError::OutOfOrder("a snapshot that cannot be read"))?;
            shared.settle(&snapshot);
            if shared.waits_for_visibility() {
                sleep(pause).await;
                pause = (pause * 2).min(SNAPSHOT_INTERVAL_MAX);
            }
        }
    }
}
