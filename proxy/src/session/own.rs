//! pgstar's own commands on a session's backend while the client's statements and portals must stay as they are.
//!
//! They are prepared and bound under a name that no client uses, and closed in the same exchange, so that no
//! trace is left in `pg_prepared_statements` or `pg_cursors`.

use bytes::BytesMut;

use super::{Ended, Routing, Session};
use crate::wire::{self, Target};

/// The name of pgstar's own statement and portal while they run.
pub(super) const OWN: &[u8] = b"pgstar: own statement";
/// `pg_type.oid` of text.
const TEXT_OID: u32 = 25;

/// Appends a command without parameters, without Sync.
pub(super) fn own_command(out: &mut BytesMut, sql: &str) {
    wire::parse(out, OWN, sql, &[]);
    wire::bind_nothing(out, OWN);
    run_and_close(out);
}

/// Appends a command with one parameter of type text, without Sync.
pub(super) fn own_command_with(out: &mut BytesMut, sql: &str, parameter: &[u8]) {
    wire::parse(out, OWN, sql, &[TEXT_OID]);
    wire::bind(out, OWN, &wire::tail_of_text(parameter));
    run_and_close(out);
}

fn run_and_close(out: &mut BytesMut) {
    wire::execute_all(out, OWN);
    close_own(out);
}

/// Appends what ends pgstar's own statement and portal, without Sync.
pub(super) fn close_own(out: &mut BytesMut) {
    wire::close(out, Target::Portal, OWN);
    wire::close(out, Target::Statement, OWN);
}

impl<R: Routing> Session<R> {
    /// Closes what an error left of a command, because it skipped its Close.
    pub(super) async fn clear_own(&mut self) -> Result<(), Ended> {
        let mut frames = BytesMut::new();
        close_own(&mut frames);
        wire::sync(&mut frames);
        // What the error was is still the last word if the server leaves now.
        let last_word = self.swallowed_error.take();
        self.ask(&frames).await?;
        self.swallowed_error = last_word;
        self.skip_to_ready().await.map(drop)
    }
}
