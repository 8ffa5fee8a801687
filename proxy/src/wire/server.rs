//! Frames that a server sends: building those in which pgstar speaks, reading the few that it must understand.
//!
//! It must not know why an answer is pgstar's own. Rows of PostgreSQL are never read here, but for
//! the one row of pgstar's own question about a session.

use bytes::{BufMut, Bytes, BytesMut};

use super::fields::{Fields, Malformed};
use super::header::{HEADER_BYTES, body, frame, put_string};
use super::server_tag as tag;

/// `pg_type.oid` of text.
const TEXT_OID: u32 = 25;
const VARIABLE_SIZE: i16 = -1;
const NO_TYPMOD: i32 = -1;
const TEXT_FORMAT: i16 = 0;
/// Table OID and attribute number of one column in RowDescription.
const ORIGIN_BYTES: usize = 4 + 2;
/// Type, type size, type modifier and format of one column in RowDescription.
const COLUMN_TYPE_BYTES: usize = 4 + 2 + 4 + 2;

/// What ReadyForQuery says of the session's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    /// Not in a transaction block (`I`).
    Idle,
    /// In a transaction block (`T`).
    Open,
    /// In a transaction block that failed (`E`).
    Failed,
}

impl TransactionStatus {
    fn of(letter: u8) -> Result<Self, Malformed> {
        match letter {
            b'I' => Ok(TransactionStatus::Idle),
            b'T' => Ok(TransactionStatus::Open),
            b'E' => Ok(TransactionStatus::Failed),
            other => Err(Malformed::Value {
                name: "transaction status",
                value: other.into(),
            }),
        }
    }

    fn letter(self) -> u8 {
        match self {
            TransactionStatus::Idle => b'I',
            TransactionStatus::Open => b'T',
            TransactionStatus::Failed => b'E',
        }
    }
}

/// How far an error reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement fails.
    Error,
    /// The session ends.
    Fatal,
}

/// An error of pgstar's own, in PostgreSQL's message style.
#[derive(Debug, Clone, Copy)]
pub struct ErrorReport<'a> {
    pub severity: Severity,
    pub sqlstate: &'a str,
    pub message: &'a str,
    pub detail: Option<&'a str>,
    pub hint: Option<&'a str>,
}

impl ErrorReport<'_> {
    /// Appends an ErrorResponse frame.
    pub fn write(&self, out: &mut BytesMut) {
        let severity = match self.severity {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        };
        let fields = [
            (b'S', Some(severity)),
            (b'V', Some(severity)),
            (b'C', Some(self.sqlstate)),
            (b'M', Some(self.message)),
            (b'D', self.detail),
            (b'H', self.hint),
        ];
        frame(out, tag::ERROR_RESPONSE, |out| {
            for (letter, text) in fields {
                let Some(text) = text else { continue };
                out.put_u8(letter);
                put_string(out, text.as_bytes());
            }
            out.put_u8(0);
        });
    }

    /// The ErrorResponse frame on its own.
    pub fn frame(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.write(&mut out);
        out.freeze()
    }
}

/// Appends a RowDescription frame whose columns are all of type text.
pub fn row_description_of_text(out: &mut BytesMut, names: &[&str]) {
    frame(out, tag::ROW_DESCRIPTION, |out| {
        out.put_u16(names.len() as u16);
        for name in names {
            put_string(out, name.as_bytes());
            out.put_u32(0);
            out.put_i16(0);
            out.put_u32(TEXT_OID);
            out.put_i16(VARIABLE_SIZE);
            out.put_i32(NO_TYPMOD);
            out.put_i16(TEXT_FORMAT);
        }
    });
}

/// Appends a DataRow frame; `None` is NULL.
pub fn data_row(out: &mut BytesMut, values: &[Option<&[u8]>]) {
    frame(out, tag::DATA_ROW, |out| {
        out.put_u16(values.len() as u16);
        for value in values {
            match value {
                None => out.put_i32(-1),
                Some(value) => {
                    out.put_i32(value.len() as i32);
                    out.put_slice(value);
                }
            }
        }
    });
}

/// Appends a CommandComplete frame, for example `SELECT 3`.
pub fn command_complete(out: &mut BytesMut, command: &str) {
    frame(out, tag::COMMAND_COMPLETE, |out| {
        put_string(out, command.as_bytes())
    });
}

/// Appends a BackendKeyData frame: the process and its cancel key.
pub fn backend_key_data(out: &mut BytesMut, key_data: &[u8]) {
    frame(out, tag::BACKEND_KEY_DATA, |out| out.put_slice(key_data));
}

/// Appends a ReadyForQuery frame.
pub fn ready_for_query(out: &mut BytesMut, status: TransactionStatus) {
    frame(out, tag::READY_FOR_QUERY, |out| out.put_u8(status.letter()));
}

/// Appends a ParseComplete frame.
pub fn parse_complete(out: &mut BytesMut) {
    frame(out, tag::PARSE_COMPLETE, |_| {});
}

/// Appends a BindComplete frame.
pub fn bind_complete(out: &mut BytesMut) {
    frame(out, tag::BIND_COMPLETE, |_| {});
}

/// Appends a ParameterDescription frame.
pub fn parameter_description(out: &mut BytesMut, types: &[u32]) {
    frame(out, tag::PARAMETER_DESCRIPTION, |out| {
        out.put_u16(types.len() as u16);
        types.iter().for_each(|oid| out.put_u32(*oid));
    });
}

/// The status that a whole ReadyForQuery frame carries.
pub fn ready_status(frame: &[u8]) -> Result<TransactionStatus, Malformed> {
    let mut fields = Fields::of(body(frame)?);
    let status = TransactionStatus::of(fields.byte()?)?;
    fields.end()?;
    Ok(status)
}

/// The SQLSTATE of a whole ErrorResponse frame.
pub fn sqlstate(frame: &[u8]) -> Result<&str, Malformed> {
    let mut fields = Fields::of(body(frame)?);
    loop {
        match fields.byte()? {
            0 => return Err(Malformed::Short),
            b'C' => {
                return std::str::from_utf8(fields.string()?).map_err(|_| Malformed::Value {
                    name: "SQLSTATE",
                    value: 0,
                });
            }
            _ => fields.string()?,
        };
    }
}

/// The values of a whole DataRow frame.
pub fn data_row_values(frame: &[u8]) -> Result<Vec<Option<&[u8]>>, Malformed> {
    let mut fields = Fields::of(body(frame)?);
    let count = fields.count()?;
    let values = (0..count)
        .map(|_| fields.value())
        .collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(values)
}

/// Whether two whole RowDescription frames describe the same columns; formats, which each Bind chooses, aside.
pub fn same_columns(one: &[u8], other: &[u8]) -> bool {
    let read = |frame| -> Result<Vec<_>, Malformed> {
        let mut fields = Fields::of(body(frame)?);
        let count = fields.count()?;
        let columns = (0..count)
            .map(|_| read_column(&mut fields))
            .collect::<Result<_, _>>()?;
        fields.end()?;
        Ok(columns)
    };
    matches!((read(one), read(other)), (Ok(one), Ok(other)) if one == other)
}

/// A column's name, and its origin, type, size and modifier.
fn read_column<'a>(fields: &mut Fields<'a>) -> Result<(&'a [u8], &'a [u8]), Malformed> {
    const FORMAT_BYTES: usize = 2;
    let name = fields.string()?;
    let column = fields.bytes(ORIGIN_BYTES + COLUMN_TYPE_BYTES - FORMAT_BYTES)?;
    fields.int16()?;
    Ok((name, column))
}

/// The table OID and attribute number that RowDescription carries for one output column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnOrigin {
    pub table: u32,
    pub attnum: i16,
}

/// Rewrites the origin of each column of a whole RowDescription frame.
///
/// Fails, with the frame half rewritten, when it is no RowDescription of exactly as many columns.
pub fn patch_origins(frame: &mut [u8], origins: &[ColumnOrigin]) -> Result<(), Malformed> {
    let fields = body(frame)?;
    if HEADER_BYTES + fields.len() != frame.len() {
        return Err(Malformed::Long);
    }
    let count = Fields::of(fields).count()?;
    if count != origins.len() {
        return Err(Malformed::Value {
            name: "column count",
            value: count as i64,
        });
    }
    let mut at = HEADER_BYTES + 2;
    for origin in origins {
        let mut fields = Fields::of(frame.get(at..).ok_or(Malformed::Short)?);
        at += fields.string()?.len() + 1;
        let place = frame
            .get_mut(at..at + ORIGIN_BYTES)
            .ok_or(Malformed::Short)?;
        place[..4].copy_from_slice(&origin.table.to_be_bytes());
        place[4..].copy_from_slice(&origin.attnum.to_be_bytes());
        at += ORIGIN_BYTES + COLUMN_TYPE_BYTES;
    }
    if at == frame.len() {
        Ok(())
    } else {
        Err(Malformed::Long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(build: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        build(&mut out);
        out
    }

    #[test]
    fn an_error_carries_its_fields_in_order_and_its_sqlstate_reads_back() {
        let report = ErrorReport {
            severity: Severity::Fatal,
            sqlstate: "53300",
            message: "sorry",
            detail: None,
            hint: Some("Wait."),
        };
        let error = report.frame();
        assert_eq!(
            &error[HEADER_BYTES..],
            b"SFATAL\0VFATAL\0C53300\0Msorry\0HWait.\0\0"
        );
        assert_eq!(sqlstate(&error), Ok("53300"));
    }

    #[test]
    fn a_row_reads_back() {
        let row = built(|out| data_row(out, &[Some(b"one"), None, Some(b"")]));
        assert_eq!(
            data_row_values(&row),
            Ok(vec![Some(&b"one"[..]), None, Some(&b""[..])])
        );
    }

    #[test]
    fn origins_are_patched_and_nothing_else() {
        let mut patched = built(|out| row_description_of_text(out, &["a", "bc"]));
        let before = patched.clone();
        let origins = [
            ColumnOrigin {
                table: 70_000,
                attnum: 3,
            },
            ColumnOrigin {
                table: 0,
                attnum: 0,
            },
        ];
        patch_origins(&mut patched, &origins).unwrap();
        let first_origin = HEADER_BYTES + 2 + 2..HEADER_BYTES + 2 + 2 + ORIGIN_BYTES;
        assert_eq!(&patched[first_origin.clone()], [0, 1, 0x11, 0x70, 0, 3]);
        patched[first_origin].fill(0);
        assert_eq!(patched, before);
    }

    #[test]
    fn columns_are_the_same_whatever_their_formats() {
        let one = built(|out| row_description_of_text(out, &["a", "b"]));
        let mut binary = one.clone();
        let last = binary.len() - 1;
        binary[last] = 1;
        assert!(same_columns(&one, &binary));
        for at in HEADER_BYTES..last - 1 {
            let mut other = one.clone();
            other[at] ^= 1;
            // The second byte of the first column's format alone makes no difference.
            let first_format = HEADER_BYTES + 2 + 2 + ORIGIN_BYTES + COLUMN_TYPE_BYTES - 2;
            let is_format = (first_format..first_format + 2).contains(&at);
            assert_eq!(same_columns(&one, &other), is_format, "{at}");
        }
        assert!((0..one.len()).all(|end| !same_columns(&one, &one[..end])));
    }

    #[test]
    fn a_row_description_of_other_columns_is_not_patched() {
        let mut frame = built(|out| row_description_of_text(out, &["a"]));
        assert!(patch_origins(&mut frame, &[]).is_err());
        let origin = ColumnOrigin {
            table: 1,
            attnum: 1,
        };
        assert!(patch_origins(&mut frame, &[origin, origin]).is_err());
        for end in 0..frame.len() {
            assert!(patch_origins(&mut frame[..end], &[origin]).is_err());
        }
    }

    #[test]
    fn every_prefix_of_every_frame_that_is_read_is_refused() {
        let ready = built(|out| ready_for_query(out, TransactionStatus::Open));
        let row = built(|out| data_row(out, &[Some(b"one"), None]));
        let error = ErrorReport {
            severity: Severity::Error,
            sqlstate: "42601",
            message: "no",
            detail: None,
            hint: None,
        }
        .frame();
        assert_eq!(ready_status(&ready), Ok(TransactionStatus::Open));
        assert!((0..ready.len()).all(|end| ready_status(&ready[..end]).is_err()));
        assert!((0..row.len()).all(|end| data_row_values(&row[..end]).is_err()));
        assert!((0..error.len()).all(|end| sqlstate(&error[..end]).is_err()));
    }
}
