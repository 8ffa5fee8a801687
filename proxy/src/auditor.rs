//! Looks now and then, in the background, whether a rollup is what its definition says.
//!
//! What becomes of one that is not is the maintainer's business: it answers no more and is built again. Here it is
//! logged and counted, because it means that pgstar has a mistake, or that somebody else wrote to the table.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgstar_postgres::maintain::Audit;
use tokio::time::sleep;
use tracing::{debug, error};

use crate::telemetry::{self, Audited};
use crate::warehouse::Warehouse;

/// The computation of one range is given up after so long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The pause after an audit is at least so many times as long as the server computed for it.
const PAUSE_FACTOR: u32 = 99;

/// Audits a rollup at random every so often, for as long as it is polled.
pub async fn keep_auditing(warehouse: Arc<Warehouse>, interval: Duration) {
    let mut pause = interval;
    loop {
        sleep(pause).await;
        let computed = audit(&warehouse).await;
        pause = interval.max(computed * PAUSE_FACTOR);
    }
}

/// How long the server computed.
async fn audit(warehouse: &Warehouse) -> Duration {
    // Seeded by the system, and another number each time.
    let chance = RandomState::new().hash_one(0);
    let snapshot = warehouse.snapshot();
    let ready = snapshot.ready.len();
    let at = usize::try_from(chance % u64::try_from(ready.max(1)).unwrap_or(1)).unwrap_or(0);
    let Some(ready) = snapshot.ready.get(at) else {
        return Duration::ZERO;
    };
    let rollup = ready.built.name.as_str();
    let chance = chance / 7919;
    let begun = Instant::now();
    match warehouse.follower().audit(rollup, chance, TIMEOUT).await {
        Ok(Audit::Equal { groups, took }) => {
            debug!(rollup, groups, ?took, "A rollup is what it should be.");
            telemetry::audited(Audited::Equal);
            return took;
        }
        Ok(Audit::Inconclusive(why)) => {
            debug!(rollup, why, "A rollup could not be compared.");
            telemetry::audited(Audited::Inconclusive);
        }
        Ok(Audit::Different { table, detail }) => {
            error!(
                rollup,
                table,
                detail,
                "A rollup is not what its definition says; it answers no more and is built again. Unless somebody wrote \
                 to its table this is a mistake of pgstar's."
            );
            telemetry::audited(Audited::Different);
        }
        Err(error) => {
            debug!(rollup, %error, "A rollup could not be compared.");
            telemetry::audited(Audited::Inconclusive);
        }
    }
    begun.elapsed()
}
