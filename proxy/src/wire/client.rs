//! Frames that a client sends: reading those a statement may arrive in, building those pgstar sends itself.
//!
//! It must not know what a statement means, nor judge whether one may be served.

use bytes::{BufMut, BytesMut};

use super::client_tag as tag;
use super::fields::{Fields, Malformed};
use super::header::{frame, put_string};

/// What Describe and Close point at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Statement,
    Portal,
}

/// A Parse body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    pub name: &'a [u8],
    pub sql: &'a [u8],
    types: &'a [u8],
}

impl Parse<'_> {
    /// Whether a type is given for any parameter, zero included.
    pub fn has_parameter_types(&self) -> bool {
        !self.types.is_empty()
    }

    /// The parameter type OIDs, as sent: zero leaves a type to the server.
    pub fn parameter_types(&self) -> Vec<u32> {
        self.types
            .chunks_exact(4)
            .map(|oid| u32::from_be_bytes([oid[0], oid[1], oid[2], oid[3]]))
            .collect()
    }
}

/// A Bind body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    /// Everything after the two names: formats, values and result formats.
    pub tail: &'a [u8],
    pub parameter_count: usize,
    /// Whether every result column is asked for as text.
    pub text_results: bool,
}

/// A Describe body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Describe<'a> {
    pub target: Target,
    pub name: &'a [u8],
}

/// A Close body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close<'a> {
    pub target: Target,
    pub name: &'a [u8],
}

/// An Execute body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execute<'a> {
    pub portal: &'a [u8],
    /// Zero for all rows.
    pub max_rows: i32,
}

/// The statement text of a Query body.
pub fn read_query(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut fields = Fields::of(body);
    let sql = fields.string()?;
    fields.end()?;
    Ok(sql)
}

/// Reads a Parse body.
pub fn read_parse(body: &[u8]) -> Result<Parse<'_>, Malformed> {
    let mut fields = Fields::of(body);
    let name = fields.string()?;
    let sql = fields.string()?;
    let count = fields.count()?;
    let types = fields.bytes(count * 4)?;
    fields.end()?;
    Ok(Parse { name, sql, types })
}

/// Reads a Bind body, all of it: formats must fit the values.
pub fn read_bind(body: &[u8]) -> Result<Bind<'_>, Malformed> {
    let mut fields = Fields::of(body);
    let portal = fields.string()?;
    let statement = fields.string()?;
    let tail = fields.rest();
    read_formats(&mut fields)?;
    let parameter_count = fields.count()?;
    for _ in 0..parameter_count {
        fields.value()?;
    }
    let text_results = read_formats(&mut fields)?;
    fields.end()?;
    Ok(Bind {
        portal,
        statement,
        tail,
        parameter_count,
        text_results,
    })
}

/// A value of a Bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundValue<'a> {
    pub is_text: bool,
    /// `None` for NULL.
    pub bytes: Option<&'a [u8]>,
}

/// Reads the values in what follows the two names of a Bind.
pub fn read_bound_values(tail: &[u8]) -> Result<Vec<BoundValue<'_>>, Malformed> {
    let mut fields = Fields::of(tail);
    let mut formats = vec![];
    for _ in 0..fields.count()? {
        formats.push(fields.int16()?);
    }
    let mut values = vec![];
    for position in 0..fields.count()? {
        // One format is that of all values, and none is text.
        let format = match formats.as_slice() {
            [] => 0,
            [only] => *only,
            several => several.get(position).copied().ok_or(Malformed::Short)?,
        };
        values.push(BoundValue {
            is_text: format == 0,
            bytes: fields.value()?,
        });
    }
    Ok(values)
}

/// Reads format codes; whether all of them say text.
fn read_formats(fields: &mut Fields<'_>) -> Result<bool, Malformed> {
    let mut all_text = true;
    for _ in 0..fields.count()? {
        match fields.int16()? {
            0 => {}
            1 => all_text = false,
            other => {
                return Err(Malformed::Value {
                    name: "format code",
                    value: other.into(),
                });
            }
        }
    }
    Ok(all_text)
}

/// Reads a Describe body.
pub fn read_describe(body: &[u8]) -> Result<Describe<'_>, Malformed> {
    let (target, name) = read_target(body)?;
    Ok(Describe { target, name })
}

/// Reads a Close body.
pub fn read_close(body: &[u8]) -> Result<Close<'_>, Malformed> {
    let (target, name) = read_target(body)?;
    Ok(Close { target, name })
}

fn read_target(body: &[u8]) -> Result<(Target, &[u8]), Malformed> {
    let mut fields = Fields::of(body);
    let target = match fields.byte()? {
        b'S' => Target::Statement,
        b'P' => Target::Portal,
        other => {
            return Err(Malformed::Value {
                name: "target",
                value: other.into(),
            });
        }
    };
    let name = fields.string()?;
    fields.end()?;
    Ok((target, name))
}

/// Reads an Execute body.
pub fn read_execute(body: &[u8]) -> Result<Execute<'_>, Malformed> {
    let mut fields = Fields::of(body);
    let portal = fields.string()?;
    let max_rows = fields.int32()?;
    fields.end()?;
    Ok(Execute { portal, max_rows })
}

/// Reads a Sync body, which is empty.
pub fn read_sync(body: &[u8]) -> Result<(), Malformed> {
    Fields::of(body).end()
}

/// Appends a Query frame.
pub fn query(out: &mut BytesMut, sql: &str) {
    frame(out, tag::QUERY, |out| put_string(out, sql.as_bytes()));
}

/// Appends a Parse frame for the statement of this name; the empty name is the unnamed statement's.
pub fn parse(out: &mut BytesMut, name: &[u8], sql: &str, parameter_types: &[u32]) {
    frame(out, tag::PARSE, |out| {
        put_string(out, name);
        put_string(out, sql.as_bytes());
        // The count came out of a frame that carried it in 16 bits.
        out.put_u16(parameter_types.len() as u16);
        parameter_types.iter().for_each(|oid| out.put_u32(*oid));
    });
}

/// Appends a Bind frame of the portal to the statement of this name: no parameters, results as text.
pub fn bind_nothing(out: &mut BytesMut, name: &[u8]) {
    bind(out, name, &[0; 6]);
}

/// Appends a Bind frame of the portal to the statement of this name, with this tail: see [`Bind::tail`].
pub fn bind(out: &mut BytesMut, name: &[u8], tail: &[u8]) {
    frame(out, tag::BIND, |out| {
        put_string(out, name);
        put_string(out, name);
        out.put_slice(tail);
    });
}

/// The tail of a Bind with one parameter, as text; results as text.
pub fn tail_of_text(value: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u16(0);
    out.put_u16(1);
    // The value came out of a frame whose length has 32 bits.
    out.put_i32(value.len() as i32);
    out.put_slice(value);
    out.put_u16(0);
    out
}

/// Appends a Describe frame for the statement or portal of this name.
pub fn describe(out: &mut BytesMut, target: Target, name: &[u8]) {
    frame(out, tag::DESCRIBE, |out| put_target(out, target, name));
}

/// Appends a Close frame for the statement or portal of this name.
pub fn close(out: &mut BytesMut, target: Target, name: &[u8]) {
    frame(out, tag::CLOSE, |out| put_target(out, target, name));
}

fn put_target(out: &mut BytesMut, target: Target, name: &[u8]) {
    out.put_u8(match target {
        Target::Statement => b'S',
        Target::Portal => b'P',
    });
    put_string(out, name);
}

/// Appends an Execute frame: the portal of this name, all rows.
pub fn execute_all(out: &mut BytesMut, portal: &[u8]) {
    frame(out, tag::EXECUTE, |out| {
        put_string(out, portal);
        out.put_i32(0);
    });
}

/// Appends a Sync frame.
pub fn sync(out: &mut BytesMut) {
    frame(out, tag::SYNC, |_| {});
}

/// Appends a Flush frame.
pub fn flush(out: &mut BytesMut) {
    frame(out, tag::FLUSH, |_| {});
}

/// Appends a Terminate frame.
pub fn terminate(out: &mut BytesMut) {
    frame(out, tag::TERMINATE, |_| {});
}

#[cfg(test)]
mod tests {
    use super::super::header::body;
    use super::*;

    fn built(build: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        build(&mut out);
        out
    }

    /// A Bind with two parameters (one NULL), one format for both, two result formats.
    const BIND: &[u8] = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02hi\xff\xff\xff\xff\0\x02\0\0\0\x01";

    #[test]
    fn what_is_built_reads_back() {
        let parse_frame = built(|out| parse(out, b"s", "SELECT $1", &[23, 0]));
        let read = read_parse(body(&parse_frame).unwrap()).unwrap();
        assert_eq!(
            (read.name, read.sql, read.parameter_types()),
            (&b"s"[..], &b"SELECT $1"[..], vec![23, 0])
        );
        assert_eq!(
            read_query(body(&built(|out| query(out, "SELECT 1"))).unwrap()),
            Ok(&b"SELECT 1"[..])
        );
        let bind_frame = built(|out| bind_nothing(out, b""));
        let bind = read_bind(body(&bind_frame).unwrap()).unwrap();
        assert_eq!(
            (bind.parameter_count, bind.text_results, bind.tail.len()),
            (0, true, 6)
        );
        let describe_frame = built(|out| describe(out, Target::Portal, b""));
        assert_eq!(
            read_describe(body(&describe_frame).unwrap()),
            Ok(Describe {
                target: Target::Portal,
                name: b""
            })
        );
        let close_frame = built(|out| close(out, Target::Statement, b""));
        assert_eq!(
            read_close(body(&close_frame).unwrap()),
            Ok(Close {
                target: Target::Statement,
                name: b""
            })
        );
        let execute_frame = built(|out| execute_all(out, b""));
        assert_eq!(
            read_execute(body(&execute_frame).unwrap()),
            Ok(Execute {
                portal: b"",
                max_rows: 0
            })
        );
        let bind_frame = built(|out| super::bind(out, b"s", &tail_of_text(b"hi")));
        let bind = read_bind(body(&bind_frame).unwrap()).unwrap();
        assert_eq!((bind.statement, bind.parameter_count), (&b"s"[..], 1));
        assert_eq!(built(sync).as_ref(), b"S\0\0\0\x04");
    }

    #[test]
    fn bind_is_read_to_its_last_field() {
        let bind = read_bind(BIND).unwrap();
        assert_eq!(
            (bind.portal, bind.statement, bind.parameter_count),
            (&b"p"[..], &b"s"[..], 2)
        );
        assert!(!bind.text_results);
        assert_eq!(bind.tail, &BIND[4..]);
    }

    /// A reader that must refuse every body but a whole one.
    type Refuses = fn(&[u8]) -> bool;

    #[test]
    fn every_prefix_and_every_longer_body_is_refused() {
        let bodies: &[(&[u8], Refuses)] = &[
            (b"SELECT 1\0", |body| read_query(body).is_err()),
            (b"s\0SELECT 1\0\0\x01\0\0\0\x17", |body| {
                read_parse(body).is_err()
            }),
            (BIND, |body| read_bind(body).is_err()),
            (b"Sname\0", |body| read_describe(body).is_err()),
            (b"Pname\0", |body| read_close(body).is_err()),
            (b"p\0\0\0\0\x05", |body| read_execute(body).is_err()),
        ];
        for (body, refuses) in bodies {
            assert!(!refuses(body), "{body:?}");
            assert!((0..body.len()).all(|end| refuses(&body[..end])), "{body:?}");
            let longer = [body, &b"x"[..]].concat();
            assert!(refuses(&longer), "{longer:?}");
        }
    }

    #[test]
    fn values_that_mean_nothing_are_refused() {
        assert!(read_describe(b"X\0").is_err());
        assert!(
            read_bind(b"\0\0\0\x01\0\x02\0\0\0\0").is_err(),
            "format code 2"
        );
        assert!(
            read_bind(b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0").is_err(),
            "value length -2"
        );
        assert!(
            read_parse(b"\0SELECT 1\0\xff\xff").is_err(),
            "65535 types announced"
        );
    }
}
