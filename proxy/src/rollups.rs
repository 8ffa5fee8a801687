//! `pgstar rollup`: lists, rebuilds and drops rollups.
//!
//! NOT DONE: the integrator replaces this file; until then the command fails and says so.

use crate::cli::RollupAction;
use crate::config::Config;
use crate::failure::Failure;

/// Does one thing with the rollups.
///
/// # Errors
/// Always, in this build.
pub async fn run(_config: Config, _action: RollupAction) -> Result<(), Failure> {
    Err(Failure::while_doing(
        "run `pgstar rollup`",
        "not available in this build yet",
    ))
}
