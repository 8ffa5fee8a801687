//! Reads what the output plugin pgoutput writes, protocol version 2.
//!
//! It knows no connection and no catalog. Rows are not looked into until somebody asks
//! ([`Rows`]), so that noticing which relation changed costs a few bytes of each message.
//! Whatever the bytes are, reading ends with a message or an error. (PostgreSQL manual, section
//! 55.9 "Logical Replication Message Formats".)
//!
//! Version 2 streams a large transaction before its end, in blocks between which others may be streamed
//! or commit. In such a block each message carries the number of the transaction, or of the
//! sub-transaction, that it belongs to. Either may be aborted later.

mod row;

use bytes::Bytes;
use pgstar_rewriter::catalog::Oid;

use crate::replication::cursor::Cursor;
use crate::replication::{EndsEarly, Lsn};

pub use row::{Row, Rows, Value};

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("a change of the stream ends too early")]
    EndsEarly,
    /// They go on after the end.
    #[error("a change of the stream goes on after its end")]
    GoesOn,
    /// A type that version 2 does not have.
    #[error("the stream has a message of unknown type {0}")]
    UnknownMessage(u8),
    /// A part of a message is none of those it may be.
    #[error("the stream has a {part} of unknown kind {kind}")]
    UnknownKind {
        /// What part.
        part: &'static str,
        /// What it was.
        kind: u8,
    },
}

impl From<EndsEarly> for DecodeError {
    fn from(_: EndsEarly) -> Self {
        DecodeError::EndsEarly
    }
}

/// The number of a transaction without its epoch, as the stream has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Xid32(pub u32);

/// One message of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A committed transaction begins.
    Begin(Begin),
    /// It ends.
    Commit(Commit),
    /// It came from another server.
    Origin {
        /// Where it was committed there.
        commit: Lsn,
        /// The origin's name.
        name: String,
    },
    /// How the rows of a relation look from here on.
    Relation(Relation),
    /// A type that is not built in.
    Type {
        /// The type.
        oid: Oid,
        /// Its schema; empty for `pg_catalog`.
        schema: String,
        /// Its name.
        name: String,
    },
    /// A row was added.
    Insert(Change),
    /// A row was changed.
    Update(Change),
    /// A row was removed.
    Delete(Change),
    /// All rows were removed.
    Truncate {
        /// From these relations.
        relations: Vec<Oid>,
        /// Whether CASCADE was given.
        cascade: bool,
        /// Whether RESTART IDENTITY was given.
        restart_identity: bool,
    },
    /// What follows is a part of a transaction that has not ended.
    StreamStart {
        /// The transaction.
        xid: Xid32,
        /// Whether it is its first part.
        is_first: bool,
    },
    /// The part ends.
    StreamStop,
    /// A transaction that was streamed was committed.
    StreamCommit {
        /// The transaction.
        xid: Xid32,
        /// Its end.
        commit: Commit,
    },
    /// A transaction that was streamed, or a sub-transaction of one, was rolled back.
    StreamAbort {
        /// The transaction.
        xid: Xid32,
        /// What was rolled back: a sub-transaction of it, or the whole transaction if it is the same.
        aborted: Xid32,
    },
    /// Somebody called `pg_logical_emit_message`.
    Message {
        /// Whether it belongs to the transaction around it.
        is_transactional: bool,
        /// Where it was logged.
        at: Lsn,
        /// Whom it is for.
        prefix: String,
        /// What it says.
        content: Bytes,
    },
}

/// Begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// Where the commit record begins.
    pub commit: Lsn,
    /// Microseconds since 2000-01-01; not in the order of commits.
    pub committed_at: i64,
    /// The transaction.
    pub xid: Xid32,
}

/// Commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Where the commit record begins.
    pub commit: Lsn,
    /// Where it ends: the only position that stands for the whole transaction.
    pub end: Lsn,
    /// Microseconds since 2000-01-01; not in the order of commits.
    pub committed_at: i64,
}

/// How the rows of a relation look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// The relation; with `publish_via_partition_root` the published ancestor.
    pub oid: Oid,
    /// Its schema; empty for `pg_catalog`.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `pg_class.relreplident`.
    pub replica_identity: u8,
    /// Its published columns.
    pub columns: Vec<Column>,
}

/// A column of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Whether it is part of the replica identity.
    pub is_key: bool,
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_oid: Oid,
    /// Its type modifier; -1 for none.
    pub typmod: i32,
}

/// A change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Of this relation.
    pub relation: Oid,
    /// The old and the new row, as far as they were logged.
    pub rows: Rows,
}

/// Reads one message, and in a streamed block the transaction or sub-transaction that it belongs to.
/// `omitted` bytes at its end were not kept: then only a change of a row can be read, and only which
/// relation it belongs to.
pub fn read(
    message: Bytes,
    omitted: usize,
    is_streamed: bool,
) -> Result<(Option<Xid32>, Message), DecodeError> {
    let mut cursor = Cursor::new(message);
    let kind = cursor.u8()?;
    let xid = match kind {
        b'I' | b'U' | b'D' | b'T' | b'R' | b'Y' | b'M' if is_streamed => Some(Xid32(cursor.u32()?)),
        _ => None,
    };
    Ok((xid, read_body(kind, cursor, omitted)?))
}

fn read_body(kind: u8, mut cursor: Cursor, omitted: usize) -> Result<Message, DecodeError> {
    let message = match kind {
        b'I' => return Ok(Message::Insert(change(cursor)?)),
        b'U' => return Ok(Message::Update(change(cursor)?)),
        b'D' => return Ok(Message::Delete(change(cursor)?)),
        b'M' if omitted > 0 => return cut_message(&mut cursor),
        _ if omitted > 0 => return Err(DecodeError::EndsEarly),
        b'B' => Message::Begin(begin(&mut cursor)?),
        b'C' => Message::Commit(commit(&mut cursor)?),
        b'O' => Message::Origin {
            commit: Lsn(cursor.u64()?),
            name: cursor.string()?,
        },
        b'R' => Message::Relation(relation(&mut cursor)?),
        b'Y' => Message::Type {
            oid: Oid(cursor.u32()?),
            schema: cursor.string()?,
            name: cursor.string()?,
        },
        b'T' => truncate(&mut cursor)?,
        b'M' => emitted(&mut cursor)?,
        b'S' => Message::StreamStart {
            xid: Xid32(cursor.u32()?),
            is_first: cursor.u8()? != 0,
        },
        b'E' => Message::StreamStop,
        b'c' => Message::StreamCommit {
            xid: Xid32(cursor.u32()?),
            commit: commit(&mut cursor)?,
        },
        b'A' => Message::StreamAbort {
            xid: Xid32(cursor.u32()?),
            aborted: Xid32(cursor.u32()?),
        },
        other => return Err(DecodeError::UnknownMessage(other)),
    };
    if !cursor.is_empty() {
        return Err(DecodeError::GoesOn);
    }
    Ok(message)
}

fn begin(cursor: &mut Cursor) -> Result<Begin, DecodeError> {
    Ok(Begin {
        commit: Lsn(cursor.u64()?),
        committed_at: cursor.i64()?,
        xid: Xid32(cursor.u32()?),
    })
}

fn commit(cursor: &mut Cursor) -> Result<Commit, DecodeError> {
    // No flags are defined.
    cursor.u8()?;
    Ok(Commit {
        commit: Lsn(cursor.u64()?),
        end: Lsn(cursor.u64()?),
        committed_at: cursor.i64()?,
    })
}

fn relation(cursor: &mut Cursor) -> Result<Relation, DecodeError> {
    Ok(Relation {
        oid: Oid(cursor.u32()?),
        schema: cursor.string()?,
        name: cursor.string()?,
        replica_identity: cursor.u8()?,
        columns: columns(cursor)?,
    })
}

fn columns(cursor: &mut Cursor) -> Result<Vec<Column>, DecodeError> {
    let count = cursor.i16()?;
    // Not allocated ahead: the count is not to be believed before the columns have been seen.
    let mut columns = vec![];
    for _ in 0..count {
        columns.push(Column {
            is_key: cursor.u8()? & 1 != 0,
            name: cursor.string()?,
            type_oid: Oid(cursor.u32()?),
            typmod: cursor.i32()?,
        });
    }
    Ok(columns)
}

fn change(mut cursor: Cursor) -> Result<Change, DecodeError> {
    Ok(Change {
        relation: Oid(cursor.u32()?),
        rows: Rows::new(cursor.rest()),
    })
}

fn truncate(cursor: &mut Cursor) -> Result<Message, DecodeError> {
    let count = cursor.u32()?;
    let options = cursor.u8()?;
    let mut relations = vec![];
    for _ in 0..count {
        relations.push(Oid(cursor.u32()?));
    }
    Ok(Message::Truncate {
        relations,
        cascade: options & 1 != 0,
        restart_identity: options & 2 != 0,
    })
}

fn emitted(cursor: &mut Cursor) -> Result<Message, DecodeError> {
    let is_transactional = cursor.u8()? & 1 != 0;
    let at = Lsn(cursor.u64()?);
    let prefix = cursor.string()?;
    let length = cursor.u32()? as usize;
    let content = cursor.bytes(length)?;
    Ok(Message::Message {
        is_transactional,
        at,
        prefix,
        content,
    })
}

/// Somebody else's message of many megabytes is no reason to stop.
fn cut_message(cursor: &mut Cursor) -> Result<Message, DecodeError> {
    let is_transactional = cursor.u8()? & 1 != 0;
    let at = Lsn(cursor.u64()?);
    let prefix = cursor.string()?;
    Ok(Message::Message {
        is_transactional,
        at,
        prefix,
        content: Bytes::new(),
    })
}

#[cfg(test)]
mod tests;
