//! Reads PostgreSQL's big-endian numbers and terminated strings; never past the end, never panics.

use bytes::{Buf, Bytes};

/// The message ended before what it announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message ends too early")]
pub struct EndsEarly;

/// What is left to read of one message. Pieces that are taken share the message's memory.
#[derive(Debug, Clone)]
pub(crate) struct Cursor {
    rest: Bytes,
}

impl Cursor {
    pub(crate) fn new(message: Bytes) -> Self {
        Cursor { rest: message }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(self) -> Bytes {
        self.rest
    }

    pub(crate) fn u8(&mut self) -> Result<u8, EndsEarly> {
        self.rest.try_get_u8().map_err(|_| EndsEarly)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, EndsEarly> {
        self.rest.try_get_i16().map_err(|_| EndsEarly)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, EndsEarly> {
        self.rest.try_get_i32().map_err(|_| EndsEarly)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, EndsEarly> {
        self.rest.try_get_u32().map_err(|_| EndsEarly)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, EndsEarly> {
        self.rest.try_get_u64().map_err(|_| EndsEarly)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, EndsEarly> {
        self.rest.try_get_i64().map_err(|_| EndsEarly)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<Bytes, EndsEarly> {
        if count > self.rest.len() {
            return Err(EndsEarly);
        }
        Ok(self.rest.split_to(count))
    }

    /// Up to the next zero byte, which is taken too. What is not UTF-8 is replaced.
    pub(crate) fn string(&mut self) -> Result<String, EndsEarly> {
        let end = self
            .rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(EndsEarly)?;
        let text = self.rest.split_to(end);
        self.rest.advance(1);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_past_the_end() {
        let mut cursor = Cursor::new(Bytes::from_static(b"\x01\x02ab\0c"));
        assert_eq!(cursor.i16(), Ok(0x0102));
        assert_eq!(cursor.string().unwrap(), "ab");
        assert_eq!(cursor.string(), Err(EndsEarly));
        assert_eq!(cursor.u32(), Err(EndsEarly));
        assert_eq!(cursor.bytes(2), Err(EndsEarly));
        assert_eq!(cursor.u8(), Ok(b'c'));
        assert!(cursor.is_empty());
    }
}
