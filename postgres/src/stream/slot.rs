//! Creates the slot, which may take as long as somebody else's transaction.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::Client;

use super::epoch::{BLOCKER_INTERVAL, Setting};
use super::purpose::SlotChoice;
use super::{EpochId, StreamError, blocker};
use crate::replication::{Lsn, ReplicationConnection, Slot, SlotLifetime, SlotSnapshot};

/// A name that no other stream has, of this or another process.
fn slot_name(replication: &ReplicationConnection) -> String {
    format!("pgstar_{}_{:x}", replication.process(), EpochId::new().0)
}

/// Where to stream from, of this slot.
pub(super) struct Beginning {
    pub(super) slot: String,
    pub(super) from: Lsn,
    /// Whether it has every change that was not dealt with.
    pub(super) is_complete: bool,
}

/// Creates the slot unless it is there.
pub(super) async fn prepare_slot(
    choice: &SlotChoice,
    asking: &Client,
    replication: &mut ReplicationConnection,
    setting: &Setting<'_>,
) -> Result<Beginning, StreamError> {
    let (name, lifetime) = match choice {
        SlotChoice::Existing {
            name,
            from,
            is_complete,
        } => {
            return Ok(Beginning {
                slot: name.clone(),
                from: *from,
                is_complete: *is_complete,
            });
        }
        SlotChoice::Temporary => (slot_name(replication), SlotLifetime::Temporary),
        SlotChoice::Permanent { name } => (name.clone(), SlotLifetime::Permanent),
    };
    let slot = create_slot(&name, lifetime, asking, replication, setting).await?;
    Ok(Beginning {
        slot: slot.name,
        from: slot.consistent_point,
        is_complete: false,
    })
}

/// PostgreSQL waits for every transaction that writes. Who that is can be read in `unproven`.
async fn create_slot(
    name: &str,
    lifetime: SlotLifetime,
    asking: &Client,
    replication: &mut ReplicationConnection,
    setting: &Setting<'_>,
) -> Result<Slot, StreamError> {
    let process = replication.process();
    let patience = setting.options.slot_timeout;
    let created = replication.create_slot(name, lifetime, SlotSnapshot::None);
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
