//! The bytes of one direction between reading and writing them: bounded, reused, never shared.
//!
//! It must not know sockets or frames.

/// What an idle session keeps for each direction.
const RESTING_BYTES: usize = 8 * 1024;
/// What a direction grows to while more arrives than fits: large results and COPY.
const BURST_BYTES: usize = 128 * 1024;

/// A queue of bytes in one piece of memory.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Buffer {
            bytes: Vec::new(),
            start: 0,
            end: 0,
        }
    }

    /// What has been read and not been consumed.
    #[inline]
    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets the first bytes, at most all of them.
    #[inline]
    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Where the next read goes; empty when nothing more fits.
    #[inline]
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.bytes.is_empty() {
            self.bytes.resize(RESTING_BYTES, 0);
        }
        if self.end == self.bytes.len() && self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
        }
        &mut self.bytes[self.end..]
    }

    /// Says that a read put so many bytes into the room; more room follows a read that filled it.
    #[inline]
    pub(super) fn filled_by(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
        if self.end == self.bytes.len() && self.bytes.len() < BURST_BYTES {
            self.bytes
                .resize((self.bytes.len() * 4).min(BURST_BYTES), 0);
        }
    }

    /// Makes sure that a piece of this size fits, counted from the first unconsumed byte.
    pub(super) fn ensure(&mut self, total: usize) {
        if self.start + total > self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.len());
        }
        if total > self.bytes.len() {
            self.bytes.resize(total, 0);
        }
    }

    /// Puts bytes before the one at this place.
    pub(super) fn insert(&mut self, at: usize, bytes: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.resize(RESTING_BYTES, 0);
        }
        let at = self.start + at;
        self.bytes.splice(at..at, bytes.iter().copied());
        self.end += bytes.len();
    }

    /// Gives back what a burst needed, once it is over.
    #[inline]
    pub(super) fn rest(&mut self) {
        if self.is_empty() && self.bytes.len() > RESTING_BYTES {
            *self = Buffer::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.room()[..bytes.len()].copy_from_slice(bytes);
        buffer.filled_by(bytes.len());
    }

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let mut buffer = Buffer::new();
        fill(&mut buffer, b"abc");
        buffer.consume(1);
        fill(&mut buffer, b"de");
        assert_eq!(buffer.filled(), b"bcde");
        buffer.consume(99);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_full_read_grows_to_the_burst_and_no_further() {
        let mut buffer = Buffer::new();
        for _ in 0..8 {
            let room = buffer.room().len();
            buffer.filled_by(room);
        }
        assert_eq!(buffer.len(), BURST_BYTES);
        assert!(buffer.room().is_empty());
        buffer.consume(BURST_BYTES);
        buffer.rest();
        assert_eq!(buffer.room().len(), RESTING_BYTES);
    }

    #[test]
    fn bytes_are_put_between_others() {
        let mut buffer = Buffer::new();
        buffer.insert(0, b"ab");
        fill(&mut buffer, b"xyz");
        buffer.consume(1);
        buffer.insert(1, b"--");
        assert_eq!(buffer.filled(), b"b--xyz");
    }

    #[test]
    fn room_for_a_whole_piece_is_made_without_losing_bytes() {
        let mut buffer = Buffer::new();
        fill(&mut buffer, b"xabc");
        buffer.consume(1);
        buffer.ensure(3 * BURST_BYTES);
        assert_eq!(buffer.filled(), b"abc");
        assert!(buffer.room().len() >= 3 * BURST_BYTES - 3);
    }
}
