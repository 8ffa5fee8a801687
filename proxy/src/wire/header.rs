//! Where one frame ends and the next begins.
//!
//! It must not know what the frames say: the relay walks headers and leaves bodies alone.

use bytes::{BufMut, BytesMut};

use super::Malformed;

/// The bytes of a frame's length field, which counts itself but not the type byte before it.
pub const LENGTH_BYTES: usize = 4;
/// The type byte and the length field.
pub const HEADER_BYTES: usize = 1 + LENGTH_BYTES;

/// A frame's type and its whole size, type byte included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    pub total: usize,
}

/// The header at the start of these bytes; `None` until all five of its bytes are there.
#[inline]
pub fn header(bytes: &[u8]) -> Result<Option<Header>, Malformed> {
    let Some([tag, a, b, c, d]) = bytes.first_chunk() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes([*a, *b, *c, *d]);
    match usize::try_from(length) {
        Ok(length) if length >= LENGTH_BYTES => Ok(Some(Header {
            tag: *tag,
            total: length + 1,
        })),
        _ => Err(Malformed::Length(length.into())),
    }
}

/// The body of a whole frame, which must be all there.
pub fn body(frame: &[u8]) -> Result<&[u8], Malformed> {
    match header(frame)? {
        Some(header) => frame
            .get(HEADER_BYTES..header.total)
            .ok_or(Malformed::Short),
        None => Err(Malformed::Short),
    }
}

/// Writes one frame: the length is filled in after the body has been written.
pub(super) fn frame(out: &mut BytesMut, tag: u8, write_body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u8(tag);
    out.put_i32(0);
    write_body(out);
    // Frames that pgstar builds are bounded far below 2 GiB by the limits of what it builds them from.
    let length = (out.len() - start - 1) as i32;
    out[start + 1..start + HEADER_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Writes a string and its terminating zero.
pub(super) fn put_string(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(text);
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_all_its_bytes() {
        let sync = [b'S', 0, 0, 0, 4];
        for end in 0..HEADER_BYTES {
            assert_eq!(header(&sync[..end]), Ok(None));
        }
        assert_eq!(
            header(&sync),
            Ok(Some(Header {
                tag: b'S',
                total: 5
            }))
        );
    }

    #[test]
    fn a_length_that_does_not_hold_itself_is_malformed() {
        assert_eq!(header(&[b'Q', 0, 0, 0, 3]), Err(Malformed::Length(3)));
        assert_eq!(
            header(&[b'Q', 0xff, 0xff, 0xff, 0xff]),
            Err(Malformed::Length(-1))
        );
    }

    #[test]
    fn a_body_is_refused_until_it_is_whole() {
        assert_eq!(body(&[b'Q', 0, 0, 0, 6, b'x']), Err(Malformed::Short));
        assert_eq!(body(&[b'Q', 0, 0, 0, 6, b'x', 0, b'S']), Ok(&b"x\0"[..]));
    }
}
