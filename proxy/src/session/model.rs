//! What a session owes and is owed: the little that must be known of both streams to find the moment when
//! nothing is under way.
//!
//! Over-counting is safe (the session only relays); nothing here may under-count. It must not know routes.

use crate::wire::{Malformed, TransactionStatus, client_tag, ready_status};

/// The state of a session's conversation with PostgreSQL.
#[derive(Debug)]
pub(super) struct Model {
    /// ReadyForQuery frames that the server was made to send, and those that came.
    sent: u64,
    came: u64,
    pipeline: Pipeline,
    /// What was sent last that a ReadyForQuery answers was a Sync.
    ends_with_sync: bool,
    /// The server takes the rows of a COPY.
    copy_in: Option<CopyIn>,
    /// The client has said that the rows have ended, before the server asked for them.
    ended_copy_ahead: bool,
    status: TransactionStatus,
    terminated: bool,
    /// The first ReadyForQuery has come: authentication is over.
    started: bool,
}

/// A COPY whose rows come from the client: until they have ended, the server ignores Sync and Flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CopyIn {
    lost_syncs: u64,
    has_ended: bool,
}

/// What was sent after the last Sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pipeline {
    Nothing,
    /// Only Parse, Describe and Flush, begun while nothing was under way; so many answers are missing.
    Preparing {
        unanswered: u32,
    },
    Anything,
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
            sent: 1,
            came: 0,
            pipeline: Pipeline::Nothing,
            ends_with_sync: false,
            copy_in: None,
            ended_copy_ahead: false,
            status: TransactionStatus::Idle,
            terminated: false,
            started: false,
        }
    }

    /// A session whose login is over: nothing is under way.
    pub(super) fn logged_in() -> Self {
        Model {
            came: 1,
            started: true,
            ..Model::new()
        }
    }

    /// A frame of this type goes to the server.
    #[inline]
    pub(super) fn client_sent(&mut self, tag: u8) {
        use client_tag::*;
        match tag {
            COPY_DONE | COPY_FAIL => self.copy_ended(),
            QUERY | FUNCTION_CALL => {
                self.sent += 1;
                self.ends_with_sync = false;
                self.ended_copy_ahead = false;
                self.mix_pipeline();
            }
            SYNC => self.sync_sent(),
            PARSE | DESCRIBE | FLUSH => self.pipeline = self.preparing(u32::from(tag != FLUSH)),
            BIND | EXECUTE | CLOSE => {
                self.pipeline = Pipeline::Anything;
                self.ended_copy_ahead = false;
            }
            TERMINATE => self.terminated = true,
            _ => {}
        }
    }

    fn preparing(&self, answers: u32) -> Pipeline {
        match self.pipeline {
            Pipeline::Nothing if self.sent == self.came => Pipeline::Preparing {
                unanswered: answers,
            },
            Pipeline::Preparing { unanswered } => Pipeline::Preparing {
                unanswered: unanswered.saturating_add(answers),
            },
            Pipeline::Nothing | Pipeline::Anything => Pipeline::Anything,
        }
    }

    fn sync_sent(&mut self) {
        self.sent += 1;
        self.ends_with_sync = true;
        self.pipeline = Pipeline::Nothing;
        if let Some(CopyIn {
            has_ended: false,
            lost_syncs,
        }) = &mut self.copy_in
        {
            *lost_syncs += 1;
            self.pipeline = Pipeline::Anything;
        }
    }

    fn copy_ended(&mut self) {
        match &mut self.copy_in {
            Some(copy_in) => copy_in.has_ended = true,
            None => self.ended_copy_ahead = true,
        }
    }

    /// pgstar itself sends something that the server answers with one ReadyForQuery.
    pub(super) fn exchange_sent(&mut self) {
        self.sync_sent();
    }

    /// A frame came that ends the answer to a Parse or a Describe.
    #[inline]
    pub(super) fn server_answered(&mut self) {
        if let Pipeline::Preparing { unanswered } = &mut self.pipeline {
            *unanswered = unanswered.saturating_sub(1);
        }
    }

    /// The server asks for the rows of a COPY. A Sync that the client sent after the COPY, before it knew, is lost
    /// like those that it sends amid the rows.
    pub(super) fn server_copies_in(&mut self) {
        let is_alone = self.sent == self.came + 1 && self.pipeline == Pipeline::Nothing;
        if std::mem::take(&mut self.ended_copy_ahead) {
            return;
        }
        let has_lost_sync = is_alone && self.ends_with_sync;
        if has_lost_sync {
            self.pipeline = Pipeline::Anything;
        }
        self.copy_in = Some(CopyIn {
            lost_syncs: u64::from(has_lost_sync),
            has_ended: false,
        });
    }

    /// A statement has succeeded. Had it been a COPY that failed, the Syncs amid its rows might have been answered:
    /// only success shows that they were not.
    #[inline]
    pub(super) fn server_completed(&mut self) {
        if let Some(copy_in) = self.copy_in.take() {
            self.sent -= copy_in.lost_syncs;
        }
    }

    /// An error came: the server skips what follows, up to Sync.
    #[inline]
    pub(super) fn server_erred(&mut self) {
        self.copy_in = None;
        self.mix_pipeline();
    }

    fn mix_pipeline(&mut self) {
        if self.pipeline != Pipeline::Nothing {
            self.pipeline = Pipeline::Anything;
        }
    }

    /// A whole ReadyForQuery frame came.
    #[inline]
    pub(super) fn server_ready(&mut self, frame: &[u8]) -> Result<(), Surprise> {
        self.status = ready_status(frame)?;
        self.started = true;
        if self.came == self.sent {
            return Err(Surprise::NothingOwed);
        }
        self.came += 1;
        Ok(())
    }

    /// How many ReadyForQuery frames came.
    #[inline]
    pub(super) fn readies(&self) -> u64 {
        self.came
    }

    /// The number of the ReadyForQuery that ends what is sent now, at the earliest.
    pub(super) fn next_ready(&self) -> u64 {
        self.sent + 1
    }

    /// Nothing is under way: the next bytes of the client begin something.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        self.sent == self.came && self.pipeline == Pipeline::Nothing && !self.terminated
    }

    /// So many ReadyForQuery frames are to come, and nothing else is under way.
    pub(super) fn owes_only(&self, readies: u64) -> bool {
        self.sent == self.came + readies && self.pipeline == Pipeline::Nothing && !self.terminated
    }

    /// The server has answered everything that was sent, which since the last Sync only prepared
    /// statements: a Sync may be put in here without any other effect than its own.
    pub(super) fn has_prepared(&self) -> bool {
        self.sent == self.came
            && self.pipeline == Pipeline::Preparing { unanswered: 0 }
            && !self.terminated
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
    fn a_statement_is_prepared_once_all_is_answered() {
        let mut model = started();
        for tag in [b'P', b'D', b'H'] {
            model.client_sent(tag);
        }
        model.server_answered();
        assert!(!model.has_prepared());
        model.server_answered();
        assert!(model.has_prepared() && !model.is_quiet());
        model.client_sent(b'B');
        assert!(!model.has_prepared());
    }

    #[test]
    fn what_follows_an_error_or_other_messages_is_not_prepared() {
        for tags in [&b"PEH"[..], b"QPH", b"SPH", b"PC"] {
            let mut model = started();
            for tag in tags {
                model.client_sent(*tag);
            }
            model.server_answered();
            assert!(!model.has_prepared(), "{}", tags.escape_ascii());
        }
        let mut model = started();
        model.client_sent(b'P');
        model.server_erred();
        model.client_sent(b'P');
        model.server_answered();
        assert!(!model.has_prepared());
        model.client_sent(b'S');
        model.server_ready(READY).unwrap();
        assert!(model.is_quiet());
    }

    fn copying(tags_before: &[u8]) -> Model {
        let mut model = started();
        tags_before.iter().for_each(|tag| model.client_sent(*tag));
        model.server_copies_in();
        model
    }

    fn send(model: &mut Model, tags: &[u8]) {
        for tag in tags {
            model.client_sent(*tag);
            assert!(!model.is_quiet());
        }
    }

    #[test]
    fn a_sync_amid_a_copy_is_answered_by_nobody() {
        let mut model = copying(b"PBES");
        send(&mut model, b"dHSdcS");
        model.server_completed();
        assert!(!model.is_quiet());
        model.server_ready(READY).unwrap();
        assert!(model.is_quiet());
        assert_eq!(model.server_ready(READY), Err(Surprise::NothingOwed));
    }

    #[test]
    fn a_copy_may_complete_before_its_last_sync_is_sent() {
        let mut model = copying(b"PBES");
        send(&mut model, b"dc");
        model.server_completed();
        assert!(!model.is_quiet());
        send(&mut model, b"S");
        model.server_ready(READY).unwrap();
        assert!(model.is_quiet());
    }

    #[test]
    fn a_copy_of_a_query_is_answered_once() {
        let mut model = copying(b"Q");
        send(&mut model, b"dc");
        model.server_completed();
        model.server_ready(READY).unwrap();
        assert!(model.is_quiet());
        let mut model = copying(b"Q");
        send(&mut model, b"d");
        model.server_erred();
        send(&mut model, b"c");
        model.server_ready(READY).unwrap();
        assert!(model.is_quiet());
    }

    #[test]
    fn after_a_failed_copy_nobody_knows_how_many_answers_come() {
        // The server may have failed before or after it met the first Sync.
        for answers in [1, 2] {
            let mut model = copying(b"PBES");
            send(&mut model, b"dc");
            model.server_erred();
            send(&mut model, b"S");
            for _ in 1..answers {
                model.server_ready(READY).unwrap();
                assert!(!model.is_quiet());
            }
            model.server_ready(READY).unwrap();
            assert_eq!(model.is_quiet(), answers == 2);
        }
    }

    #[test]
    fn rows_may_be_sent_before_they_are_asked_for() {
        for tags in [&b"Qdc"[..], b"PBEdcS", b"Qdf"] {
            let mut model = copying(tags);
            assert!(!model.is_quiet());
            model.server_completed();
            model.server_ready(READY).unwrap();
            assert!(model.is_quiet(), "{}", tags.escape_ascii());
            model.client_sent(b'S');
            model.server_ready(READY).unwrap();
            assert!(model.is_quiet());
        }
    }

    #[test]
    fn an_answer_that_nobody_asked_for_is_a_surprise() {
        assert_eq!(started().server_ready(READY), Err(Surprise::NothingOwed));
        assert!(started().server_ready(b"Z\0\0\0\x05X").is_err());
    }
}
