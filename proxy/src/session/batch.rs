//! Looks at what a quiet session's client has sent: is it exactly one statement that may be served?
//!
//! Three shapes are recognised: one Query; one batch of unnamed `Parse [Describe S] Bind [Describe P] Execute
//! Sync`; and one batch of `Bind [Describe P] Execute Sync` for a statement that was prepared before.
//! Everything else is forwarded untouched. It must not know routes, nor what SQL means.

use std::ops::Range;

use crate::wire::{HEADER_BYTES, Header, Malformed, Target, client_tag, header, read};

/// One lone statement, as offsets into the client's unconsumed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) text: Text,
    /// All of its frames.
    pub(super) len: usize,
    /// The extended protocol's part, when it came in a batch.
    pub(super) batch: Option<Batch>,
}

/// Where a statement's text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    /// Here it is.
    Sent(Range<usize>),
    /// It came earlier, under the name that is here.
    Prepared { name: Range<usize> },
}

impl Statement {
    /// The name of the statement that was prepared before, if it is one.
    pub(super) fn prepared_name(&self) -> Option<Range<usize>> {
        match &self.text {
            Text::Sent(_) => None,
            Text::Prepared { name } => Some(name.clone()),
        }
    }
}

/// The frames of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    /// Its Parse; empty for a statement that was prepared before.
    pub(super) parse: Range<usize>,
    pub(super) bind: Range<usize>,
    /// Bind's body after the two names.
    pub(super) bind_tail: Range<usize>,
    pub(super) parameter_count: usize,
    pub(super) describes_statement: bool,
    pub(super) describes_portal: bool,
}

/// What to do with the client's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Hold them: the last frame is not whole, so the server could not act on it either. This many bytes complete it.
    Wait { total: usize },
    /// Hold them only if more is there to be read now: a client may be waiting for an answer to these.
    WaitIfMore,
    /// Relay them.
    Forward,
    /// One statement and nothing else.
    Statement(Statement),
}

/// Judges the bytes of a client that begin with a frame, while nothing else is under way.
pub(super) fn examine(bytes: &[u8], statement_bytes_max: usize) -> Verdict {
    let Some(first) = bytes.first() else {
        return Verdict::WaitIfMore;
    };
    let verdict = match *first {
        client_tag::QUERY => examine_query(bytes),
        client_tag::PARSE => examine_batch(bytes, Stage::Parse),
        client_tag::BIND => examine_batch(bytes, Stage::Bind),
        _ => Ok(Verdict::Forward),
    };
    match verdict {
        Ok(Verdict::Wait { total }) if total > statement_bytes_max => Verdict::Forward,
        Ok(Verdict::Statement(statement)) if statement.len > statement_bytes_max => {
            Verdict::Forward
        }
        Ok(verdict) => verdict,
        // What cannot be read is PostgreSQL's to refuse.
        Err(_) => Verdict::Forward,
    }
}

fn examine_query(bytes: &[u8]) -> Result<Verdict, Malformed> {
    let Some(Header { total, .. }) = header(bytes)? else {
        return Ok(Verdict::Wait {
            total: HEADER_BYTES,
        });
    };
    if bytes.len() < total {
        return Ok(Verdict::Wait { total });
    }
    if bytes.len() > total {
        return Ok(Verdict::Forward);
    }
    let sql = read::query(&bytes[HEADER_BYTES..])?;
    let sql = HEADER_BYTES..HEADER_BYTES + sql.len();
    Ok(Verdict::Statement(Statement {
        text: Text::Sent(sql),
        len: total,
        batch: None,
    }))
}

/// How far a batch has been read: each stage lists what may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Parse,
    DescribeOrBind,
    Bind,
    DescribeOrExecute,
    Execute,
    Sync,
}

fn examine_batch(bytes: &[u8], first: Stage) -> Result<Verdict, Malformed> {
    // The first byte of the statement's or portal's name decides early: a Parse or portal with a name is never held.
    match bytes.get(HEADER_BYTES) {
        None => {
            return Ok(Verdict::Wait {
                total: HEADER_BYTES + 1,
            });
        }
        Some(0) => {}
        Some(_) => return Ok(Verdict::Forward),
    }
    let mut draft = Draft::default();
    let mut stage = first;
    let mut at = 0;
    while at < bytes.len() {
        let Some(Header { tag, total }) = header(&bytes[at..])? else {
            return Ok(Verdict::Wait {
                total: at + HEADER_BYTES,
            });
        };
        let Some(body) = bytes.get(at + HEADER_BYTES..at + total) else {
            return Ok(if stage.may_take(tag) {
                Verdict::Wait { total: at + total }
            } else {
                Verdict::Forward
            });
        };
        let Some(next) = draft.take(stage, tag, body, at)? else {
            return Ok(Verdict::Forward);
        };
        at += total;
        match next {
            Next::Stage(next) => stage = next,
            Next::Whole if at == bytes.len() => return Ok(draft.finish(at)),
            Next::Whole => return Ok(Verdict::Forward),
        }
    }
    Ok(Verdict::WaitIfMore)
}

impl Stage {
    fn may_take(self, tag: u8) -> bool {
        use client_tag::*;
        match self {
            Stage::Parse => tag == PARSE,
            Stage::DescribeOrBind => tag == DESCRIBE || tag == BIND,
            Stage::Bind => tag == BIND,
            Stage::DescribeOrExecute => tag == DESCRIBE || tag == EXECUTE,
            Stage::Execute => tag == EXECUTE,
            Stage::Sync => tag == SYNC,
        }
    }
}

enum Next {
    Stage(Stage),
    Whole,
}

/// A batch while its frames are read.
#[derive(Default)]
struct Draft {
    text: Option<Text>,
    parse: Range<usize>,
    has_parameter_types: bool,
    bind: Range<usize>,
    bind_tail: Range<usize>,
    parameter_count: usize,
    text_results: bool,
    describes_statement: bool,
    describes_portal: bool,
}

impl Draft {
    /// Takes one frame; `None` when the batch is of another shape.
    fn take(
        &mut self,
        stage: Stage,
        tag: u8,
        body: &[u8],
        at: usize,
    ) -> Result<Option<Next>, Malformed> {
        if !stage.may_take(tag) {
            return Ok(None);
        }
        match tag {
            client_tag::PARSE => self.take_parse(body, at),
            client_tag::DESCRIBE => self.take_describe(stage, body),
            client_tag::BIND => self.take_bind(body, at),
            client_tag::EXECUTE => {
                let execute = read::execute(body)?;
                let runs_all = execute.portal.is_empty() && execute.max_rows == 0;
                Ok(runs_all.then_some(Next::Stage(Stage::Sync)))
            }
            _ => read::sync(body).map(|()| Some(Next::Whole)),
        }
    }

    fn take_parse(&mut self, body: &[u8], at: usize) -> Result<Option<Next>, Malformed> {
        let parse = read::parse(body)?;
        // The empty name takes one byte, its zero.
        let sql_at = at + HEADER_BYTES + 1;
        self.text = Some(Text::Sent(sql_at..sql_at + parse.sql.len()));
        self.parse = at..at + HEADER_BYTES + body.len();
        self.has_parameter_types = parse.has_parameter_types();
        Ok(Some(Next::Stage(Stage::DescribeOrBind)))
    }

    fn take_describe(&mut self, stage: Stage, body: &[u8]) -> Result<Option<Next>, Malformed> {
        let describe = read::describe(body)?;
        if !describe.name.is_empty() {
            return Ok(None);
        }
        Ok(match (stage, describe.target) {
            (Stage::DescribeOrBind, Target::Statement) => {
                self.describes_statement = true;
                Some(Next::Stage(Stage::Bind))
            }
            (Stage::DescribeOrExecute, Target::Portal) => {
                self.describes_portal = true;
                Some(Next::Stage(Stage::Execute))
            }
            _ => None,
        })
    }

    fn take_bind(&mut self, body: &[u8], at: usize) -> Result<Option<Next>, Malformed> {
        let bind = read::bind(body)?;
        let is_own = self.text.is_some();
        if !bind.portal.is_empty() || (is_own && !bind.statement.is_empty()) {
            return Ok(None);
        }
        // The empty name of the portal takes one byte, its zero.
        let name_at = at + HEADER_BYTES + 1;
        let name = name_at..name_at + bind.statement.len();
        self.text.get_or_insert(Text::Prepared { name });
        self.bind = at..at + HEADER_BYTES + body.len();
        self.bind_tail = self.bind.end - bind.tail.len()..self.bind.end;
        self.parameter_count = bind.parameter_count;
        self.text_results = bind.text_results;
        Ok(Some(Next::Stage(Stage::DescribeOrExecute)))
    }

    /// A whole batch. When it describes its statement, the answer must say the parameters' types and the
    /// columns in text format: that is known here only without parameters and for text results.
    fn finish(self, len: usize) -> Verdict {
        let can_describe =
            self.parameter_count == 0 && !self.has_parameter_types && self.text_results;
        if self.describes_statement && !can_describe {
            return Verdict::Forward;
        }
        let Some(text) = self.text else {
            return Verdict::Forward;
        };
        let batch = Batch {
            parse: self.parse,
            bind: self.bind,
            bind_tail: self.bind_tail,
            parameter_count: self.parameter_count,
            describes_statement: self.describes_statement,
            describes_portal: self.describes_portal,
        };
        Verdict::Statement(Statement {
            text,
            len,
            batch: Some(batch),
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire;

    const MAX: usize = 1000;

    fn batch() -> BytesMut {
        let mut out = BytesMut::new();
        wire::parse(&mut out, b"", "SELECT 1", &[]);
        wire::bind_nothing(&mut out, b"");
        wire::describe(&mut out, Target::Portal, b"");
        wire::execute_all(&mut out, b"");
        wire::sync(&mut out);
        out
    }

    fn prepared_batch(name: &[u8]) -> BytesMut {
        let mut out = BytesMut::from(&b"B\0\0\0"[..]);
        out.extend_from_slice(&[12 + name.len() as u8, 0]);
        out.extend_from_slice(name);
        out.extend_from_slice(&[0; 7]);
        wire::describe(&mut out, Target::Portal, b"");
        wire::execute_all(&mut out, b"");
        wire::sync(&mut out);
        out
    }

    fn text<'a>(bytes: &'a [u8], statement: &Statement) -> &'a [u8] {
        match statement.text.clone() {
            Text::Sent(range) | Text::Prepared { name: range } => &bytes[range],
        }
    }

    fn query(sql: &str) -> BytesMut {
        let mut out = BytesMut::new();
        wire::query(&mut out, sql);
        out
    }

    fn statement(bytes: &[u8]) -> Statement {
        match examine(bytes, MAX) {
            Verdict::Statement(statement) => statement,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lone_query_is_a_statement_and_two_are_not() {
        let bytes = query("SELECT 1");
        let found = statement(&bytes);
        assert_eq!(
            (text(&bytes, &found), found.len),
            (&b"SELECT 1"[..], bytes.len())
        );
        assert_eq!(
            examine(&[&bytes[..], &bytes[..]].concat(), MAX),
            Verdict::Forward
        );
        assert_eq!(examine(&[&bytes[..], b"X"].concat(), MAX), Verdict::Forward);
    }

    #[test]
    fn a_whole_batch_is_a_statement() {
        let bytes = batch();
        let found = statement(&bytes);
        assert_eq!(text(&bytes, &found), b"SELECT 1");
        let parts = found.batch.unwrap();
        assert_eq!((parts.parse.start, parts.parse.end), (0, parts.bind.start));
        assert_eq!(&bytes[parts.bind_tail], [0; 6]);
        assert!(parts.describes_portal && !parts.describes_statement);
    }

    #[test]
    fn a_batch_for_a_prepared_statement_is_a_statement() {
        for name in [&b""[..], b"s1"] {
            let bytes = prepared_batch(name);
            let found = statement(&bytes);
            assert_eq!(text(&bytes, &found), name);
            assert_eq!(&bytes[found.prepared_name().unwrap()], name);
            let parts = found.batch.unwrap();
            assert!(parts.parse.is_empty() && parts.bind.start == 0);
            assert_eq!(&bytes[parts.bind_tail], [0; 6]);
        }
    }

    #[test]
    fn a_part_of_a_frame_is_waited_for_and_whole_frames_without_sync_only_if_more_is_there() {
        for bytes in [batch(), prepared_batch(b"s1")] {
            check_every_prefix(&bytes);
        }
    }

    fn check_every_prefix(bytes: &[u8]) {
        let mut ends_of_frames = vec![];
        let mut at = 0;
        while let Ok(Some(header)) = header(&bytes[at..]) {
            at += header.total;
            ends_of_frames.push(at);
        }
        for end in 1..bytes.len() {
            match examine(&bytes[..end], MAX) {
                Verdict::WaitIfMore => assert!(ends_of_frames.contains(&end), "{end}"),
                Verdict::Wait { total } => {
                    assert!(total > end && !ends_of_frames.contains(&end), "{end}")
                }
                other => panic!("{end}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_larger_than_the_limit_is_never_held() {
        let bytes = query(&"x".repeat(MAX));
        assert_eq!(examine(&bytes, MAX), Verdict::Forward);
        assert_eq!(examine(&bytes[..20], MAX), Verdict::Forward);
    }

    #[test]
    fn other_shapes_are_forwarded() {
        let whole = batch();
        let with = |build: fn(&mut BytesMut)| {
            let mut out = BytesMut::new();
            build(&mut out);
            out
        };
        let flushed = with(|out| {
            wire::parse(out, b"", "SELECT 1", &[]);
            wire::flush(out);
        });
        let bound_twice = with(|out| {
            wire::parse(out, b"", "SELECT 1", &[]);
            wire::bind_nothing(out, b"");
            wire::bind_nothing(out, b"");
        });
        let described_with_parameters = with(|out| {
            wire::parse(out, b"", "SELECT $1", &[23]);
            wire::describe(out, Target::Statement, b"");
            wire::bind_nothing(out, b"");
            wire::execute_all(out, b"");
            wire::sync(out);
        });
        let pipelined = [&whole[..], &whole[..]].concat();
        let limited = b"P\0\0\0\x0e\0SELECT\0\0\0B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\x05S\0\0\0\x04";
        for bytes in [
            &flushed[..],
            &bound_twice,
            &described_with_parameters,
            &pipelined,
            limited,
        ] {
            assert_eq!(examine(bytes, MAX), Verdict::Forward, "{bytes:?}");
        }
        assert_eq!(
            examine(b"P\0\0\0\x20name", MAX),
            Verdict::Forward,
            "a named statement"
        );
        assert_eq!(
            examine(b"B\0\0\0\x20name", MAX),
            Verdict::Forward,
            "a named portal"
        );
        assert_eq!(examine(b"S\0\0\0\x04", MAX), Verdict::Forward);
        assert_eq!(
            examine(b"Q\0\0\0\x01", MAX),
            Verdict::Forward,
            "an impossible length"
        );
        assert_eq!(
            examine(b"Q\0\0\0\x07a\0b", MAX),
            Verdict::Forward,
            "a zero within the text"
        );
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut state = 0x9e37_79b9_u32;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state
        };
        let wholes = [batch(), prepared_batch(b"s1")];
        for round in 0..50_000 {
            let mut bytes = wholes[round % 2].to_vec();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(1 + random() as usize % bytes.len());
            examine(&bytes, MAX);
        }
    }
}
