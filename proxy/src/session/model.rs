//! What a session owes and is owed: the little that must be known of both streams to find the moment when
//! nothing is under way.
//!
//! Over-counting is safe (the session only relays); nothing here may under-count. It must not know routes.

use crate::wire::{Malformed, TransactionStatus, client_tag, ready_status};

/// The state of a session's conversation with PostgreSQL.
#[derive(Debug)]
pub(super) struct Model {
    /// ReadyForQuery frames that the server still owes.
    owed: u32,
    /// Extended messages were sent after the last Sync.
    unsynced: bool,
    status: TransactionStatus,
    terminated: bool,
    /// The first ReadyForQuery has come: authentication is over.
    started: bool,
}

/// The two streams do not fit together: this session can only be relayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Surprise {
    #[error("the server is ready for a query that nobody sent")]
    NothingOwed,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl Model {
    /// A session whose start-up packet is on its way.
    pub(super) fn new() -> Self {
        Model {
            owed: 1,
            unsynced: false,
            status: TransactionStatus::Idle,
            terminated: false,
            started: false,
        }
    }

    /// A frame of this type goes to the server.
    #[inline]
    pub(super) fn client_sent(&mut self, tag: u8) {
        use client_tag::*;
        match tag {
            QUERY | FUNCTION_CALL => self.owed += 1,
            SYNC => {
                self.owed += 1;
                self.unsynced = false;
            }
            PARSE | BIND | DESCRIBE | EXECUTE | CLOSE | FLUSH => self.unsynced = true,
            TERMINATE => self.terminated = true,
            _ => {}
        }
    }

    /// pgstar itself sends something that the server answers with one ReadyForQuery.
    pub(super) fn exchange_sent(&mut self) {
        self.owed += 1;
    }

    /// A whole ReadyForQuery frame came.
    #[inline]
    pub(super) fn server_ready(&mut self, frame: &[u8]) -> Result<(), Surprise> {
        self.status = ready_status(frame)?;
        self.started = true;
        self.owed = self.owed.checked_sub(1).ok_or(Surprise::NothingOwed)?;
        Ok(())
    }

    /// Nothing is under way: the next bytes of the client begin something.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.owed == 0 && !self.unsynced && !self.terminated
    }

    pub(super) fn has_started(&self) -> bool {
        self.started
    }

    /// The client has said that it leaves.
    pub(super) fn is_terminated(&self) -> bool {
        self.terminated
    }

    #[inline]
    pub(super) fn status(&self) -> TransactionStatus {
        self.status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &[u8] = b"Z\0\0\0\x05I";

    fn started() -> Model {
        let mut model = Model::new();
        model.server_ready(READY).unwrap();
        model
    }

    #[test]
    fn a_session_is_quiet_only_after_it_started() {
        assert!(!Model::new().is_quiet());
        assert!(started().is_quiet());
    }

    #[test]
    fn each_query_and_sync_owes_one_answer() {
        let mut model = started();
        for tag in [b'Q', b'P', b'S', b'F'] {
            model.client_sent(tag);
        }
        for _ in 0..3 {
            assert!(!model.is_quiet());
            model.server_ready(READY).unwrap();
        }
        assert!(model.is_quiet());
    }

    #[test]
    fn extended_messages_without_sync_are_not_quiet() {
        for tag in [b'P', b'B', b'D', b'E', b'C', b'H'] {
            let mut model = started();
            model.client_sent(tag);
            assert!(!model.is_quiet());
        }
    }

    #[test]
    fn an_answer_that_nobody_asked_for_is_a_surprise() {
        assert_eq!(started().server_ready(READY), Err(Surprise::NothingOwed));
        assert!(started().server_ready(b"Z\0\0\0\x05X").is_err());
    }
}
