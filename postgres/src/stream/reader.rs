//! Reads the stream: which transaction changed which tables, and how far the log is decoded.
//!
//! It does not look into rows, so a transaction costs the same memory whatever its size.

use std::convert::Infallible;
use std::sync::Arc;

use pgstar_rewriter::catalog::Oid;

use super::StreamError;
use super::purpose::Purpose;
use super::shared::Shared;
use crate::pgoutput::{self, Message, Xid32};
use crate::replication::{Event, Lsn, ReplicationStream};

/// Decodes until the stream breaks.
pub(super) async fn read_stream(
    mut stream: ReplicationStream,
    shared: Arc<Shared>,
    purpose: Arc<impl Purpose>,
) -> Result<Infallible, StreamError> {
    let mut open: Option<Open> = None;
    let acknowledged = stream.acknowledged();
    let forget = |end: Lsn| {
        if purpose.forgets_at_once() {
            acknowledged.advance(end);
        }
    };
    loop {
        match (stream.next().await?, &mut open) {
            (Event::Data { message, omitted }, _) => {
                let message = pgoutput::read(message, omitted)?;
                purpose.message(&message, omitted)?;
                if let Some((xid, end, changed)) = note(message, &mut open)? {
                    // Rows first: who hears of a commit has them.
                    purpose.committed(xid, end, &changed);
                    shared.committed(xid, end, &changed);
                    forget(end);
                }
            }
            (Event::Keepalive { end }, None) => {
                purpose.decoded(end);
                shared.decoded(end);
                forget(end);
            }
            // In the middle of a transaction a position stands for nothing.
            (Event::Keepalive { .. }, Some(_)) => (),
        }
    }
}

/// A transaction that is being received.
struct Open {
    xid: Xid32,
    changed: Vec<Oid>,
}

impl Open {
    fn note(&mut self, relation: Oid) {
        // Rows of one relation come in runs, and few relations are published.
        let is_known = self.changed.last() == Some(&relation) || self.changed.contains(&relation);
        if !is_known {
            self.changed.push(relation);
        }
    }
}

/// The transaction and what it changed, when the message is its end.
fn note(
    message: Message,
    open: &mut Option<Open>,
) -> Result<Option<(Xid32, Lsn, Vec<Oid>)>, StreamError> {
    let between = StreamError::OutOfOrder("a change or a commit between transactions");
    match message {
        Message::Begin(begin) => {
            if open
                .replace(Open {
                    xid: begin.xid,
                    changed: vec![],
                })
                .is_some()
            {
                return Err(StreamError::OutOfOrder("a transaction within another"));
            }
        }
        Message::Insert(change) | Message::Update(change) | Message::Delete(change) => {
            open.as_mut().ok_or(between)?.note(change.relation);
        }
        Message::Truncate {
            relations,
            cascade: _,
            restart_identity: _,
        } => {
            let open = open.as_mut().ok_or(between)?;
            relations
                .into_iter()
                .for_each(|relation| open.note(relation));
        }
        Message::Commit(commit) => {
            let Open { xid, changed } = open.take().ok_or(between)?;
            return Ok(Some((xid, commit.end, changed)));
        }
        Message::Origin { .. }
        | Message::Relation(_)
        | Message::Type { .. }
        | Message::Message { .. } => (),
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::{Begin, Commit};

    fn begin() -> Message {
        Message::Begin(Begin {
            commit: Lsn(1),
            committed_at: 0,
            xid: Xid32(9),
        })
    }

    fn commit() -> Message {
        Message::Commit(Commit {
            commit: Lsn(1),
            end: Lsn(2),
            committed_at: 0,
        })
    }

    fn truncate() -> Message {
        let relations = vec![Oid(5), Oid(6), Oid(5)];
        Message::Truncate {
            relations,
            cascade: false,
            restart_identity: false,
        }
    }

    fn note_all(messages: Vec<Message>) -> Result<Vec<Option<Lsn>>, StreamError> {
        let mut open = None;
        let end = |noted: Option<(Xid32, Lsn, Vec<Oid>)>| noted.map(|(_, end, _)| end);
        let noted = messages
            .into_iter()
            .map(|message| note(message, &mut open).map(end));
        noted.collect()
    }

    #[test]
    fn only_a_commit_gives_a_position() {
        let ends = note_all(vec![begin(), truncate(), commit(), begin(), commit()]).unwrap();
        assert_eq!(ends, [None, None, Some(Lsn(2)), None, Some(Lsn(2))]);
    }

    #[test]
    fn a_stream_that_is_out_of_order_is_given_up() {
        for messages in [
            vec![commit()],
            vec![truncate()],
            vec![begin(), begin()],
            vec![begin(), commit(), truncate()],
        ] {
            let outcome = note_all(messages.clone());
            let is_refused = matches!(outcome, Err(StreamError::OutOfOrder(_)));
            assert!(is_refused, "{messages:?}");
        }
    }
}
