//! pgstar's own commands on a session's backend while the client's unnamed statement must stay as it is.
//!
//! They are prepared under a name that no client uses, and closed in the same exchange, so that no trace is
//! left in `pg_prepared_statements`. The unnamed portal is used: whoever runs a batch replaces it anyway.

use bytes::BytesMut;

use super::{Ended, Routing, Session};
use crate::wire::{self, Target};

/// The name of pgstar's own statement while it runs.
pub(super) const OWN_STATEMENT: &[u8] = b"pgstar: own statement";
/// `pg_type.oid` of text.
const TEXT_OID: u32 = 25;

/// Appends a command without parameters, without Sync.
pub(super) fn own_command(out: &mut BytesMut, sql: &str) {
    wire::parse(out, OWN_STATEMENT, sql, &[]);
    wire::bind_nothing(out, OWN_STATEMENT);
    run_and_close(out);
}

/// Appends a command with one parameter of type text, without Sync.
pub(super) fn own_command_with(out: &mut BytesMut, sql: &str, parameter: &[u8]) {
    wire::parse(out, OWN_STATEMENT, sql, &[TEXT_OID]);
    wire::bind(out, OWN_STATEMENT, &wire::tail_of_text(parameter));
    run_and_close(out);
}

fn run_and_close(out: &mut BytesMut) {
    wire::execute_all(out);
    wire::close(out, Target::Statement, OWN_STATEMENT);
}

impl<R: Routing> Session<R> {
    /// Closes the own statement after an error, which skipped its Close.
    pub(super) async fn close_own_statement(&mut self) -> Result<(), Ended> {
        let mut frames = BytesMut::new();
        wire::close(&mut frames, Target::Statement, OWN_STATEMENT);
        wire::sync(&mut frames);
        // What the error was is still the last word if the server leaves now.
        let last_word = self.swallowed_error.take();
        self.ask(&frames).await?;
        self.swallowed_error = last_word;
        self.skip_to_ready().await.map(drop)
    }
}
