//! A cursor over one frame's body, and the one error of reading it.
//!
//! It must not know which frame it reads: that is for the modules beside it.

use memchr::memchr;

/// Bytes that are no frame of PostgreSQL's protocol, and where reading them stopped making sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("frame length {0} is out of range")]
    Length(i64),
    #[error("frame ends before its last field")]
    Short,
    #[error("frame goes on after its last field")]
    Long,
    #[error("string is not terminated")]
    Unterminated,
    #[error("field {name} has the value {value}, which means nothing")]
    Value { name: &'static str, value: i64 },
}

/// The fields of a body that are still to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) fn of(body: &'a [u8]) -> Self {
        Fields { rest: body }
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn int16(&mut self) -> Result<i16, Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(i16::from_be_bytes(*taken))
    }

    pub(super) fn int32(&mut self) -> Result<i32, Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*taken))
    }

    /// A count that a later field must bear out; PostgreSQL reads these as unsigned 16 bits.
    pub(super) fn count(&mut self) -> Result<usize, Malformed> {
        Ok(usize::from(self.int16()? as u16))
    }

    /// A string without its terminating zero.
    pub(super) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let end = memchr(0, self.rest).ok_or(Malformed::Unterminated)?;
        let text = self.bytes(end)?;
        self.byte()?;
        Ok(text)
    }

    /// A value with its length before it: `None` for NULL (-1).
    pub(super) fn value(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.int32()? {
            -1 => Ok(None),
            length => {
                let length =
                    usize::try_from(length).map_err(|_| Malformed::Length(length.into()))?;
                self.bytes(length).map(Some)
            }
        }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// That nothing is left: a longer frame was not understood.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Long)
        }
    }
}
