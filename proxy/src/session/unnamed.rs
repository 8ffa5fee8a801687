//! What the backend does not know of the unnamed statement and portal, because a statement was served without it.
//!
//! PostgreSQL keeps the unnamed statement of the last Parse until the next Parse of that name or the next
//! Query, and the unnamed portal until the next Bind or the transaction's end; a client may go on using them
//! after its first batch. Before anything is forwarded that might, the backend is told what it missed, in an
//! exchange of its own.

use bytes::{Bytes, BytesMut};

use super::batch::{Statement, Text};
use super::relay::Pause;
use super::{Ended, Routing, Session};
use crate::wire::{self, HEADER_BYTES, Target, TransactionStatus, body, client_tag, read};

/// What the backend would have seen, had PostgreSQL served the last statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Withheld {
    /// A batch; its first frame is its Parse.
    Batch { frames: Bytes, parse_bytes: usize },
    /// A batch that ran a statement prepared before: only its portal is missing.
    Portal { frames: Bytes },
    /// A Query, which drops the unnamed statement and portal; or a Parse that failed.
    Drop,
}

impl Withheld {
    /// The frames that make up for it, Sync included. The portal is worth running again only for a client
    /// that goes on using it, which it can only within its transaction.
    fn frames(&self, needs_portal: bool) -> BytesMut {
        let mut out = BytesMut::new();
        match self {
            Withheld::Portal { frames } => out.extend_from_slice(frames),
            Withheld::Batch { frames, .. } if needs_portal => out.extend_from_slice(frames),
            Withheld::Batch {
                frames,
                parse_bytes,
            } => {
                out.extend_from_slice(&frames[..*parse_bytes]);
                wire::sync(&mut out);
            }
            Withheld::Drop => {
                wire::close(&mut out, Target::Statement, b"");
                wire::close(&mut out, Target::Portal, b"");
                wire::sync(&mut out);
            }
        }
        out
    }
}

/// Whether this message of a client continues with the unnamed portal.
fn continues_portal(message: &[u8]) -> bool {
    let Ok(Some(header)) = wire::header(message) else {
        return false;
    };
    let Some(frame) = message.get(..header.total) else {
        return false;
    };
    let Ok(body) = body(frame) else { return false };
    match header.tag {
        client_tag::EXECUTE => read::execute(body).is_ok_and(|execute| execute.portal.is_empty()),
        client_tag::DESCRIBE => read::describe(body)
            .is_ok_and(|describe| describe.target == Target::Portal && describe.name.is_empty()),
        _ => false,
    }
}

/// Whether a message that begins like this may continue with the unnamed portal, or be followed by one
/// that does, before the session is quiet again.
fn may_continue_portal(message: &[u8]) -> bool {
    use client_tag::*;
    match (message.first(), message.get(HEADER_BYTES)) {
        (Some(&DESCRIBE), Some(target)) => *target != b'S',
        (Some(&(EXECUTE | DESCRIBE | FLUSH)), _) => true,
        _ => false,
    }
}

/// Whether a message that begins like this ends the unnamed portal.
fn ends_portal(message: &[u8]) -> bool {
    match (message.first(), message.get(HEADER_BYTES)) {
        (Some(&client_tag::BIND), Some(first_of_name)) => *first_of_name == 0,
        (Some(&client_tag::QUERY), _) => true,
        _ => false,
    }
}

impl<R: Routing> Session<R> {
    /// What the backend misses when this statement is served without it, if anything.
    pub(super) fn withheld_by(&self, statement: &Statement) -> Option<Withheld> {
        let frames = || Bytes::copy_from_slice(&self.client.inbound.filled()[..statement.len]);
        let is_open = self.told_status() == TransactionStatus::Open;
        match (&statement.batch, &statement.text) {
            (None, _) => Some(Withheld::Drop),
            (Some(_), Text::Prepared { .. }) => {
                is_open.then(|| Withheld::Portal { frames: frames() })
            }
            (Some(batch), Text::Sent(_)) => Some(Withheld::Batch {
                frames: frames(),
                parse_bytes: batch.parse.len(),
            }),
        }
    }

    /// Before something is forwarded: does it replace what was withheld, or might it use it?
    pub(super) fn check_withheld(&mut self) -> Result<bool, Pause> {
        match &self.withheld {
            None => Ok(false),
            Some(Withheld::Portal { .. }) => self.check_withheld_portal(),
            Some(Withheld::Batch { .. } | Withheld::Drop) => self.check_withheld_statement(),
        }
    }

    fn check_withheld_portal(&mut self) -> Result<bool, Pause> {
        let bytes = self.client.inbound.filled();
        if self.told_status() != TransactionStatus::Open || ends_portal(bytes) {
            self.withheld = None;
            return Ok(false);
        }
        if may_continue_portal(bytes) {
            return Err(Pause::Withheld);
        }
        Ok(false)
    }

    fn check_withheld_statement(&mut self) -> Result<bool, Pause> {
        let bytes = self.client.inbound.filled();
        match (bytes.first(), bytes.get(HEADER_BYTES)) {
            (Some(&client_tag::TERMINATE), _) => Ok(false),
            (Some(&client_tag::QUERY), _) | (Some(&client_tag::PARSE), Some(0)) => {
                self.withheld = None;
                Ok(false)
            }
            (Some(&client_tag::PARSE), None) => Ok(true),
            _ if bytes.len() < HEADER_BYTES => Ok(true),
            _ => Err(Pause::Withheld),
        }
    }

    /// Tells the backend what it missed. If it refuses, the client's next message meets the same refusal.
    pub(super) async fn make_up(&mut self) -> Result<(), Ended> {
        let Some(withheld) = self.withheld.take() else {
            return Ok(());
        };
        self.keep_pledges().await?;
        let is_open = self.told_status() == TransactionStatus::Open;
        let needs_portal = is_open && continues_portal(self.client.inbound.filled());
        self.deliver_relayed().await?;
        if self.is_raw {
            return Ok(());
        }
        self.ask(&withheld.frames(needs_portal)).await?;
        self.skip_to_ready().await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portal_is_run_again_only_for_a_client_that_continues_it() {
        assert!(continues_portal(b"E\0\0\0\x09\0\0\0\0\0"));
        assert!(continues_portal(b"D\0\0\0\x06P\0"));
        assert!(!continues_portal(b"D\0\0\0\x06S\0"));
        assert!(!continues_portal(b"E\0\0\0\x0ac\0\0\0\0\0"));
        assert!(!continues_portal(b"E\0\0\0\x09\0\0"));
    }

    #[test]
    fn a_batch_is_made_up_for_by_its_parse_and_a_sync() {
        let frames =
            Bytes::from_static(b"P\0\0\0\x08\0\0\0\0B\0\0\0\x0c\0\0\0\0\0\0\0\0S\0\0\0\x04");
        let withheld = Withheld::Batch {
            frames: frames.clone(),
            parse_bytes: 9,
        };
        assert_eq!(
            withheld.frames(false).as_ref(),
            b"P\0\0\0\x08\0\0\0\0S\0\0\0\x04"
        );
        assert_eq!(withheld.frames(true), frames);
        assert_eq!(
            Withheld::Drop.frames(true).as_ref(),
            b"C\0\0\0\x06S\0C\0\0\0\x06P\0S\0\0\0\x04"
        );
    }
}
