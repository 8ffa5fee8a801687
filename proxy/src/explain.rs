//! `pgstar explain`: the decision for one statement, and why.
//!
//! NOT DONE: the integrator replaces this file; until then the command fails and says so.

use crate::config::Config;
use crate::failure::Failure;

/// Prints the decision for `statement`, as text or as one JSON object.
///
/// # Errors
/// Always, in this build.
pub async fn run(_config: Config, _statement: &str, _json: bool) -> Result<(), Failure> {
    Err(Failure::while_doing(
        "run `pgstar explain`",
        "not available in this build yet",
    ))
}
