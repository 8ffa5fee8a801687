//! `pgstar serve`: builds the parts, says what it listens on, and drains.
//!
//! NOT DONE: the integrator replaces this file; until then the command fails and says so.

use crate::config::Config;
use crate::failure::Failure;

/// Runs the proxy until SIGTERM.
///
/// # Errors
/// Always, in this build.
pub async fn run(_config: Config) -> Result<(), Failure> {
    Err(Failure::while_doing(
        "run `pgstar serve`",
        "not available in this build yet",
    ))
}
