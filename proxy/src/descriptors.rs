//! The bound that the system sets on this process's open files, sockets among them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Files that are open beside clients and their backends.
const OTHERS: u64 = 100;

/// Raises the bound as far as the system allows, and says so when it does not do for so many sessions.
pub(crate) fn raise_limit(connections: usize) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // Refused to nobody who stays within the maximum; otherwise the old bound holds.
    let holds = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    // Each has a socket of the client's and one of PostgreSQL's; no bound is enough for anything.
    let needed = 2 * connections as u64 + OTHERS;
    match holds {
        Some(files) if files < needed => {
            warn!(
                files,
                needed,
                "Fewer files may be open than [limits] connections needs; see \"ulimit -n\"."
            );
        }
        _ => info!(files = holds.unwrap_or(u64::MAX), "Open files are bounded."),
    }
}
