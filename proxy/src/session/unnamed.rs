//! What the backend does not know of the unnamed statement, because a statement was served without it.
//!
//! PostgreSQL keeps the unnamed statement of the last Parse until the next Parse of that name or the next
//! Query; a client may go on using it after its first batch. Before anything is forwarded that might, the
//! backend is told what it missed, in an exchange of its own.

use bytes::{Bytes, BytesMut};

use super::batch::Statement;
use super::{Ended, Routing, Session};
use crate::wire::{self, HEADER_BYTES, Target, TransactionStatus, body, client_tag, read};

/// What the backend would have seen, had PostgreSQL served the last statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Withheld {
    /// A batch; its first frame is its Parse.
    Batch { frames: Bytes, parse_bytes: usize },
    /// A Query, which drops the unnamed statement and portal; or a Parse that failed.
    Drop,
}

impl Withheld {
    /// The frames that make up for it, Sync included. The portal is worth running again only for a client
    /// that goes on using it, which it can only within its transaction.
    fn frames(&self, needs_portal: bool) -> BytesMut {
        let mut out = BytesMut::new();
        match self {
            Withheld::Batch { frames, .. } if needs_portal => out.extend_from_slice(frames),
            Withheld::Batch {
                frames,
                parse_bytes,
            } => {
                out.extend_from_slice(&frames[..*parse_bytes]);
                wire::sync(&mut out);
            }
            Withheld::Drop => {
                wire::close(&mut out, Target::Statement);
                wire::close(&mut out, Target::Portal);
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

impl<R: Routing> Session<R> {
    /// What the backend misses when this statement is served without it.
    pub(super) fn withheld_by(&self, statement: &Statement) -> Withheld {
        match &statement.batch {
            None => Withheld::Drop,
            Some(batch) => Withheld::Batch {
                frames: Bytes::copy_from_slice(&self.client.inbound.filled()[..statement.len]),
                parse_bytes: batch.parse.len(),
            },
        }
    }

    /// Tells the backend what it missed. If it refuses, the client's next message meets the same refusal.
    pub(super) async fn make_up(&mut self) -> Result<(), Ended> {
        let Some(withheld) = self.withheld.take() else {
            return Ok(());
        };
        debug_assert!(self.client.inbound.len() >= HEADER_BYTES);
        let is_open = self.model.status() == TransactionStatus::Open;
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
