//! `pgstar check`: compares a valid file with the live database.
//!
//! NOT DONE: the integrator replaces this file; until then the command fails and says so.

use crate::config::Config;
use crate::failure::Failure;

/// Prints every mismatch.
///
/// # Errors
/// Always, in this build.
pub async fn run(_config: Config) -> Result<(), Failure> {
    Err(Failure::while_doing(
        "run `pgstar check`",
        "not available in this build yet",
    ))
}
