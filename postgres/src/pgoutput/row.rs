//! The rows of a change, read when somebody asks.

use bytes::Bytes;

use super::DecodeError;
use crate::replication::cursor::Cursor;

/// The old and the new row of a change, not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    bytes: Bytes,
}

/// What is known of a change's rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// The old row's replica identity; the other columns are NULL in it and mean nothing.
    pub key: Option<Vec<Value>>,
    /// The whole old row, which the server has under REPLICA IDENTITY FULL.
    pub old: Option<Vec<Value>>,
    /// The new row.
    pub new: Option<Vec<Value>>,
}

/// A column's value. Its bytes share the message's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// NULL.
    Null,
    /// Stored out of line and not changed, therefore not sent.
    Unchanged,
    /// In the text format.
    Text(Bytes),
    /// In the binary format.
    Binary(Bytes),
}

impl Rows {
    pub(super) fn new(bytes: Bytes) -> Self {
        Rows { bytes }
    }

    /// Reads all of them. Of a message that was cut it is [`DecodeError::EndsEarly`].
    pub fn read(&self) -> Result<Row, DecodeError> {
        let mut cursor = Cursor::new(self.bytes.clone());
        let mut row = Row::default();
        while !cursor.is_empty() {
            let place = match cursor.u8()? {
                b'K' => &mut row.key,
                b'O' => &mut row.old,
                b'N' => &mut row.new,
                kind => return Err(DecodeError::UnknownKind { part: "row", kind }),
            };
            *place = Some(values(&mut cursor)?);
        }
        Ok(row)
    }
}

fn values(cursor: &mut Cursor) -> Result<Vec<Value>, DecodeError> {
    let count = cursor.i16()?;
    let mut values = vec![];
    for _ in 0..count {
        values.push(value(cursor)?);
    }
    Ok(values)
}

fn value(cursor: &mut Cursor) -> Result<Value, DecodeError> {
    match cursor.u8()? {
        b'n' => Ok(Value::Null),
        b'u' => Ok(Value::Unchanged),
        b't' => Ok(Value::Text(sized(cursor)?)),
        b'b' => Ok(Value::Binary(sized(cursor)?)),
        kind => Err(DecodeError::UnknownKind {
            part: "value",
            kind,
        }),
    }
}

fn sized(cursor: &mut Cursor) -> Result<Bytes, DecodeError> {
    let length = cursor.u32()? as usize;
    Ok(cursor.bytes(length)?)
}
