//! Frames of PostgreSQL's protocol from a socket, in bounded memory.
//!
//! It looks at type and length only.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::ReplicationError;

/// Of a CopyData frame no more than this is kept: one row may have a gigabyte, and which relation
/// it belongs to is at its beginning.
pub const COPY_DATA_BYTES_MAX: usize = 16 * 1024 * 1024;

/// No frame of another type is as large as this.
const OTHER_BYTES_MAX: usize = 1024 * 1024;

/// How much is asked of the socket at once.
const READ_BYTES: usize = 64 * 1024;

const HEADER_BYTES: usize = 5;

/// One frame without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Bytes,
    /// How many bytes at the end were not kept.
    pub(super) omitted: usize,
}

/// Cuts what comes from a socket into frames.
pub(super) struct FrameReader<S> {
    socket: S,
    buffer: BytesMut,
    /// What is still to come of a frame whose beginning has been handed out.
    skip: usize,
    copy_data_bytes_max: usize,
}

impl<S: AsyncRead + Unpin> FrameReader<S> {
    pub(super) fn new(socket: S) -> Self {
        FrameReader {
            socket,
            buffer: BytesMut::with_capacity(READ_BYTES),
            skip: 0,
            copy_data_bytes_max: COPY_DATA_BYTES_MAX,
        }
    }

    pub(super) fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// The next frame. Nothing is lost when this future is dropped.
    pub(super) async fn next(&mut self) -> Result<Frame, ReplicationError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            self.buffer.reserve(READ_BYTES);
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(ReplicationError::Closed);
            }
        }
    }

    /// A frame that is in the buffer already.
    fn take(&mut self) -> Result<Option<Frame>, ReplicationError> {
        let skipped = self.skip.min(self.buffer.len());
        self.buffer.advance(skipped);
        self.skip -= skipped;
        let Some((tag, length)) = self.header()? else {
            return Ok(None);
        };
        let kept = length.min(self.bytes_max(tag));
        if self.buffer.len() < HEADER_BYTES + kept {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        self.skip = length - kept;
        Ok(Some(Frame {
            tag,
            body: self.buffer.split_to(kept).freeze(),
            omitted: length - kept,
        }))
    }

    /// The type and the length of the body.
    fn header(&self) -> Result<Option<(u8, usize)>, ReplicationError> {
        let [tag, length @ ..] = match self.buffer.first_chunk::<HEADER_BYTES>() {
            Some(header) if self.skip == 0 => *header,
            _ => return Ok(None),
        };
        let length = u32::from_be_bytes(length);
        let body = length.checked_sub(4).ok_or_else(|| {
            ReplicationError::Protocol(format!("a frame that announces {length} bytes"))
        })? as usize;
        let is_too_large = tag != b'd' && body > OTHER_BYTES_MAX;
        if is_too_large {
            return Err(ReplicationError::FrameTooLarge {
                tag: char::from(tag),
                bytes: body as u64,
                bytes_max: OTHER_BYTES_MAX as u64,
            });
        }
        Ok(Some((tag, body)))
    }

    fn bytes_max(&self, tag: u8) -> usize {
        match tag {
            b'd' => self.copy_data_bytes_max,
            _ => OTHER_BYTES_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![tag];
        frame.extend((body.len() as u32 + 4).to_be_bytes());
        frame.extend(body);
        frame
    }

    fn whole(tag: u8, body: &'static [u8]) -> Frame {
        Frame {
            tag,
            body: Bytes::from_static(body),
            omitted: 0,
        }
    }

    /// The frames of `stream` when it arrives in pieces of `piece` bytes.
    async fn frames(stream: &[u8], piece: usize, bytes_max: usize) -> Vec<Frame> {
        let (near, mut far) = tokio::io::duplex(piece);
        let stream = stream.to_owned();
        let sender = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut far, &stream)
                .await
                .unwrap();
        });
        let mut reader = FrameReader {
            copy_data_bytes_max: bytes_max,
            ..FrameReader::new(near)
        };
        let mut frames = vec![];
        while let Ok(frame) = reader.next().await {
            frames.push(frame);
        }
        sender.await.unwrap();
        frames
    }

    #[tokio::test]
    async fn frames_are_the_same_however_they_arrive() {
        let stream = [
            frame(b'Z', b"I"),
            frame(b'd', b"abcdefgh"),
            frame(b'c', b""),
        ]
        .concat();
        for piece in [1, 2, 5, 7, 100] {
            let expected = [
                whole(b'Z', b"I"),
                whole(b'd', b"abcdefgh"),
                whole(b'c', b""),
            ];
            assert_eq!(frames(&stream, piece, 8).await, expected, "{piece}");
            let cut = Frame {
                tag: b'd',
                body: Bytes::from_static(b"abc"),
                omitted: 5,
            };
            let expected = [whole(b'Z', b"I"), cut, whole(b'c', b"")];
            assert_eq!(frames(&stream, piece, 3).await, expected, "{piece}");
        }
    }

    #[tokio::test]
    async fn a_frame_that_cannot_be_is_refused_before_it_is_read() {
        let mut huge = FrameReader::new(&b"E\x7f\xff\xff\xff"[..]);
        assert!(matches!(
            huge.next().await,
            Err(ReplicationError::FrameTooLarge { tag: 'E', .. })
        ));
        let mut negative = FrameReader::new(&b"E\0\0\0\x03"[..]);
        assert!(matches!(
            negative.next().await,
            Err(ReplicationError::Protocol(_))
        ));
        let mut cut = FrameReader::new(&b"E\0\0\0\x09ab"[..]);
        assert!(matches!(cut.next().await, Err(ReplicationError::Closed)));
    }
}
