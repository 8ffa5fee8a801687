//! Which transaction each message of the stream belongs to, and what it changed.
//!
//! Pure. A small transaction comes whole, after its commit. A large one comes in blocks before its end,
//! between those of others, and it or a part of it may still be rolled back.

use std::collections::HashMap;

use pgstar_rewriter::catalog::Oid;

use super::StreamError;
use crate::pgoutput::{Message, Xid32};
use crate::replication::Lsn;

/// Where a message belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Within {
    /// The transaction.
    pub(crate) transaction: Xid32,
    /// The sub-transaction that may be rolled back alone; of a transaction that came whole it is itself,
    /// because whatever was rolled back is not in it.
    pub(crate) part: Xid32,
    /// Whether the transaction has not ended.
    pub(crate) is_streamed: bool,
}

impl Within {
    /// The transaction with all its parts.
    pub(crate) fn whole(self) -> Self {
        Within {
            part: self.transaction,
            ..self
        }
    }
}

/// What a message means beside what it says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// It is about the stream itself.
    Nothing,
    /// It is part of a transaction.
    Part(Within),
    /// The transaction ended, having changed these.
    Committed {
        xid: Xid32,
        end: Lsn,
        changed: Vec<Oid>,
    },
    /// A transaction, or a part of it, was rolled back after it was streamed.
    Aborted { xid: Xid32, part: Xid32 },
}

/// The transactions that have not ended.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    /// The one whose messages come.
    current: Option<Current>,
    /// What those changed that were streamed. A part that is rolled back may have its changes in here: it
    /// does no harm to take a table for changed.
    streamed: HashMap<Xid32, Vec<Oid>>,
}

#[derive(Debug)]
enum Current {
    Whole { xid: Xid32, changed: Vec<Oid> },
    Block { xid: Xid32 },
}

impl Receiving {
    /// Whether messages carry the number of their transaction.
    pub(super) fn is_in_block(&self) -> bool {
        matches!(self.current, Some(Current::Block { .. }))
    }

    /// Whether every transaction that committed so far has come.
    pub(super) fn is_between(&self) -> bool {
        self.current.is_none()
    }

    /// Takes note of a message. `part` is what it carries in a block.
    pub(super) fn note(
        &mut self,
        part: Option<Xid32>,
        message: &Message,
    ) -> Result<Noted, StreamError> {
        match message {
            Message::Begin(begin) => self.begin(Current::Whole {
                xid: begin.xid,
                changed: vec![],
            }),
            Message::StreamStart { xid, is_first } => {
                match (*is_first, self.streamed.contains_key(xid)) {
                    (true, false) => self.streamed.insert(*xid, vec![]),
                    (false, true) => None,
                    (true, true) | (false, false) => {
                        return Err(StreamError::OutOfOrder("a part of an unknown transaction"));
                    }
                };
                self.begin(Current::Block { xid: *xid })
            }
            Message::StreamStop => match self.current.take() {
                Some(Current::Block { .. }) => Ok(Noted::Nothing),
                Some(Current::Whole { .. }) | None => Err(StreamError::OutOfOrder(
                    "the end of a part that did not begin",
                )),
            },
            Message::Commit(commit) => match self.current.take() {
                Some(Current::Whole { xid, changed }) => Ok(Noted::Committed {
                    xid,
                    end: commit.end,
                    changed,
                }),
                Some(Current::Block { .. }) | None => Err(BETWEEN),
            },
            Message::StreamCommit { xid, commit } => Ok(Noted::Committed {
                xid: *xid,
                end: commit.end,
                changed: self.end(*xid)?,
            }),
            Message::StreamAbort { xid, aborted } => {
                let (xid, part) = (*xid, *aborted);
                if xid == part {
                    self.end(xid)?;
                }
                Ok(Noted::Aborted { xid, part })
            }
            Message::Insert(change) | Message::Update(change) | Message::Delete(change) => {
                self.changed()?.note(change.relation);
                self.within(part)
            }
            Message::Truncate {
                relations,
                cascade: _,
                restart_identity: _,
            } => {
                let mut changed = self.changed()?;
                relations
                    .iter()
                    .for_each(|relation| changed.note(*relation));
                self.within(part)
            }
            Message::Relation(_) | Message::Type { .. } => self.within(part),
            Message::Origin { .. } | Message::Message { .. } => Ok(Noted::Nothing),
        }
    }

    fn begin(&mut self, next: Current) -> Result<Noted, StreamError> {
        match self.current.replace(next) {
            None => Ok(Noted::Nothing),
            Some(_) => Err(StreamError::OutOfOrder("a transaction within another")),
        }
    }

    /// The end of a transaction that was streamed, which comes between blocks.
    fn end(&mut self, xid: Xid32) -> Result<Vec<Oid>, StreamError> {
        match (&self.current, self.streamed.remove(&xid)) {
            (None, Some(changed)) => Ok(changed),
            (_, _) => Err(StreamError::OutOfOrder("the end of an unknown transaction")),
        }
    }

    fn changed(&mut self) -> Result<ChangedTables<'_>, StreamError> {
        let changed = match &mut self.current {
            Some(Current::Whole { xid: _, changed }) => Some(changed),
            Some(Current::Block { xid }) => self.streamed.get_mut(xid),
            None => None,
        };
        changed.map(ChangedTables).ok_or(BETWEEN)
    }

    fn within(&self, part: Option<Xid32>) -> Result<Noted, StreamError> {
        match (&self.current, part) {
            (Some(Current::Whole { xid, changed: _ }), None) => Ok(Noted::Part(Within {
                transaction: *xid,
                part: *xid,
                is_streamed: false,
            })),
            (Some(Current::Block { xid }), Some(part)) => Ok(Noted::Part(Within {
                transaction: *xid,
                part,
                is_streamed: true,
            })),
            (_, _) => Err(BETWEEN),
        }
    }
}

const BETWEEN: StreamError = StreamError::OutOfOrder("a change or a commit between transactions");

struct ChangedTables<'a>(&'a mut Vec<Oid>);

impl ChangedTables<'_> {
    fn note(&mut self, relation: Oid) {
        // Rows of one relation come in runs, and few relations are published.
        let is_known = self.0.last() == Some(&relation) || self.0.contains(&relation);
        if !is_known {
            self.0.push(relation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::{Begin, Commit};

    const COMMIT: Commit = Commit {
        commit: Lsn(1),
        end: Lsn(2),
        committed_at: 0,
    };

    fn begin() -> Message {
        Message::Begin(Begin {
            commit: Lsn(1),
            committed_at: 0,
            xid: Xid32(9),
        })
    }

    fn commit() -> Message {
        Message::Commit(COMMIT)
    }

    fn truncate() -> Message {
        let relations = vec![Oid(5), Oid(6), Oid(5)];
        Message::Truncate {
            relations,
            cascade: false,
            restart_identity: false,
        }
    }

    fn start(xid: u32, is_first: bool) -> Message {
        let xid = Xid32(xid);
        Message::StreamStart { xid, is_first }
    }

    fn abort(xid: u32, aborted: u32) -> Message {
        Message::StreamAbort {
            xid: Xid32(xid),
            aborted: Xid32(aborted),
        }
    }

    fn stream_commit(xid: u32) -> Message {
        Message::StreamCommit {
            xid: Xid32(xid),
            commit: COMMIT,
        }
    }

    /// Changes of a block are of sub-transaction 30.
    fn note_all(messages: &[Message]) -> Result<Vec<Noted>, StreamError> {
        let mut receiving = Receiving::default();
        let mut note = |message: &Message| {
            let carries = receiving.is_in_block() && matches!(message, Message::Truncate { .. });
            receiving.note(carries.then_some(Xid32(30)), message)
        };
        messages.iter().map(&mut note).collect()
    }

    fn committed(xid: u32) -> Noted {
        Noted::Committed {
            xid: Xid32(xid),
            end: Lsn(2),
            changed: vec![Oid(5), Oid(6)],
        }
    }

    #[test]
    fn only_a_commit_ends_a_transaction() {
        let noted = note_all(&[begin(), truncate(), commit()]).unwrap();
        let within = Within {
            transaction: Xid32(9),
            part: Xid32(9),
            is_streamed: false,
        };
        assert_eq!(noted, [Noted::Nothing, Noted::Part(within), committed(9)]);
    }

    #[test]
    fn blocks_of_several_transactions_come_between_one_another() {
        let messages = [
            start(20, true),
            truncate(),
            Message::StreamStop,
            start(21, true),
            Message::StreamStop,
            begin(),
            truncate(),
            commit(),
            start(20, false),
            Message::StreamStop,
            abort(20, 30),
            stream_commit(20),
            abort(21, 21),
        ];
        let noted = note_all(&messages).unwrap();
        let within = Within {
            transaction: Xid32(20),
            part: Xid32(30),
            is_streamed: true,
        };
        assert_eq!(noted[1], Noted::Part(within));
        assert_eq!(noted[7], committed(9));
        let aborted = |xid, part| Noted::Aborted {
            xid: Xid32(xid),
            part: Xid32(part),
        };
        assert_eq!(noted[10], aborted(20, 30));
        assert_eq!(noted[11], committed(20));
        assert_eq!(noted[12], aborted(21, 21));
    }

    #[test]
    fn a_stream_that_is_out_of_order_is_given_up() {
        for messages in [
            vec![commit()],
            vec![truncate()],
            vec![begin(), begin()],
            vec![begin(), commit(), truncate()],
            vec![Message::StreamStop],
            vec![stream_commit(20)],
            vec![abort(20, 20)],
            vec![start(20, false)],
            vec![start(20, true), Message::StreamStop, start(20, true)],
            vec![start(20, true), start(21, true)],
            vec![start(20, true), begin()],
            vec![start(20, true), commit()],
            vec![start(20, true), stream_commit(20)],
            vec![start(20, true), Message::StreamStop, truncate()],
        ] {
            let outcome = note_all(&messages);
            let is_refused = matches!(outcome, Err(StreamError::OutOfOrder(_)));
            assert!(is_refused, "{messages:?}");
        }
    }
}
