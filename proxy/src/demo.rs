//! `pgstar demo`: the Star Schema Benchmark on a throw-away PostgreSQL.
//!
//! NOT DONE: the integrator replaces this file; until then the command fails and says so.

use crate::cli::Demo;
use crate::failure::Failure;

/// Runs the demo.
///
/// # Errors
/// Always, in this build.
pub async fn run(_options: Demo) -> Result<(), Failure> {
    Err(Failure::while_doing(
        "run `pgstar demo`",
        "not available in this build yet",
    ))
}
