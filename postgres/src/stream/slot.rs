//! Creates the slot, which may take as long as somebody else's transaction.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::Client;

use super::epoch::{BLOCKER_INTERVAL, Setting};
use super::{EpochId, StreamError, blocker};
use crate::replication::{ReplicationConnection, Slot, SlotLifetime, SlotSnapshot};

/// A name that no other stream has, of this or another process.
fn slot_name(replication: &ReplicationConnection) -> String {
    format!("pgstar_{}_{:x}", replication.process(), EpochId::new().0)
}

/// PostgreSQL waits for every transaction that writes. Who that is can be read in `unproven`.
pub(super) async fn create_slot(
    asking: &Client,
    replication: &mut ReplicationConnection,
    setting: &Setting<'_>,
) -> Result<Slot, StreamError> {
    let (name, process) = (slot_name(replication), replication.process());
    let patience = setting.options.slot_timeout;
    let created = replication.create_slot(&name, SlotLifetime::Temporary, SlotSnapshot::None);
    tokio::select! {
        slot = created => Ok(slot?),
        late = tell_of_waiting(asking, setting, patience) => {
            // A walsender that waits for a transaction does not notice that we are gone.
            asking.execute("SELECT pg_terminate_backend($1)", &[&process]).await?;
            Err(late?)
        }
    }
}

/// Tells who is waited for, until patience ends.
async fn tell_of_waiting(
    asking: &Client,
    setting: &Setting<'_>,
    patience: Duration,
) -> Result<StreamError, StreamError> {
    let started = Instant::now();
    loop {
        let left = patience.saturating_sub(started.elapsed());
        sleep(left.min(BLOCKER_INTERVAL)).await;
        let blocker = blocker::oldest_writer(asking).await?;
        let blocker = blocker.unwrap_or_else(|| "transactions from before".to_owned());
        let waiting = StreamError::SlotTimeout {
            after: started.elapsed(),
            blocker,
        };
        if started.elapsed() >= patience {
            return Ok(waiting);
        }
        setting.shared.down(waiting.to_string());
    }
}
