//! Writes an answer that is already there: a stored one, pgstar's own, or a refusal.
//!
//! It must not know where the answer came from.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;

use super::batch::{Statement, Text};
use super::unnamed::Withheld;
use super::{Ended, Routing, Session};
use crate::route::Answer;
use crate::wire::{self, TransactionStatus};

/// Fails the client's transaction as an error of PostgreSQL's own would have: no savepoint has this name.
const FAIL_TRANSACTION: &str = "ROLLBACK TO SAVEPOINT pgstar_refused_the_statement";

impl<R: Routing> Session<R> {
    /// Answers the statement, in one write if the socket takes it, without copying the rows.
    pub(super) async fn answer(
        &mut self,
        statement: &Statement,
        answer: &Answer,
    ) -> Result<(), Ended> {
        self.deliver_relayed().await?;
        if self.is_raw {
            return Ok(());
        }
        let mut before = BytesMut::new();
        let wants_description = write_prologue(&mut before, statement, answer);
        let description = if wants_description {
            &answer.row_description[..]
        } else {
            &[]
        };
        let mut after = BytesMut::new();
        wire::ready_for_query(&mut after, self.told_status());
        let mut frames = before
            .chain(description)
            .chain(&answer.rows[..])
            .chain(after);
        self.shared.counters.answered.add_one();
        self.client
            .socket
            .write_all_buf(&mut frames)
            .await
            .map_err(|_| Ended::ClientLeft)?;
        self.flush_outgoing().await?;
        self.settle(statement, self.withheld_by(statement));
        Ok(())
    }

    /// Refuses the statement with pgstar's own error, which fails the transaction like any other.
    pub(super) async fn refuse(
        &mut self,
        statement: &Statement,
        error: Bytes,
    ) -> Result<(), Ended> {
        if self.told_status() == TransactionStatus::Open {
            let mut frames = BytesMut::new();
            wire::query(&mut frames, FAIL_TRANSACTION);
            self.ask(&frames).await?;
            self.skip_to_ready().await?;
        }
        self.send_error(statement, error).await
    }

    /// Ends the statement with this ErrorResponse frame.
    pub(super) async fn send_error(
        &mut self,
        statement: &Statement,
        error: Bytes,
    ) -> Result<(), Ended> {
        self.deliver_relayed().await?;
        if self.is_raw {
            return Ok(());
        }
        self.outgoing.extend_from_slice(&error);
        let status = self.told_status();
        wire::ready_for_query(&mut self.outgoing, status);
        self.flush_outgoing().await?;
        let is_sent = matches!(statement.text, Text::Sent(_));
        self.settle(statement, is_sent.then_some(Withheld::Drop));
        Ok(())
    }
}

/// What comes before the rows; whether the description of the rows comes right before them.
fn write_prologue(out: &mut BytesMut, statement: &Statement, answer: &Answer) -> bool {
    let Some(batch) = &statement.batch else {
        return true;
    };
    if matches!(statement.text, Text::Sent(_)) {
        wire::parse_complete(out);
    }
    if batch.describes_statement {
        // Such a batch is only looked at without parameters and with text results.
        wire::parameter_description(out, &[]);
        out.extend_from_slice(&answer.row_description);
    }
    wire::bind_complete(out);
    batch.describes_portal
}
