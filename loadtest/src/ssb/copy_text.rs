//! Rows in PostgreSQL's COPY text format (manual, "COPY", "Text Format").
//!
//! Must not know tables. Values are written without escaping: callers write no backslash, tab or
//! line feed, which a debug build checks.

const DIGITS_MAX: usize = 20;

/// Rows as COPY text, in a buffer that grows.
#[derive(Debug, Default)]
pub struct CopyText {
    bytes: Vec<u8>,
    rows: u64,
}

impl CopyText {
    /// An empty buffer with room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        CopyText {
            bytes: Vec::with_capacity(bytes),
            rows: 0,
        }
    }

    /// How many rows have been ended.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The rows so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The rows, as the buffer that holds them.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn number(&mut self, value: u64) {
        self.digits(value, 1);
        self.bytes.push(b'\t');
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.part(value);
        self.bytes.push(b'\t');
    }

    pub(crate) fn flag(&mut self, value: bool) {
        let letter = if value { b't' } else { b'f' };
        self.bytes.extend_from_slice(&[letter, b'\t']);
    }

    /// Writes the beginning of a value that [`CopyText::end_value`] ends.
    pub(crate) fn part(&mut self, value: &str) {
        debug_assert!(!value.contains(['\\', '\t', '\n']), "{value:?}");
        self.bytes.extend_from_slice(value.as_bytes());
    }

    /// Writes a number with leading zeros as part of a value.
    pub(crate) fn digits(&mut self, mut value: u64, width: usize) {
        let mut digits = [b'0'; DIGITS_MAX];
        let mut start = DIGITS_MAX;
        while value > 0 {
            start -= 1;
            digits[start] = b'0' + (value % 10) as u8;
            value /= 10;
        }
        let start = start.min(DIGITS_MAX - width);
        self.bytes.extend_from_slice(&digits[start..]);
    }

    pub(crate) fn end_value(&mut self) {
        self.bytes.push(b'\t');
    }

    /// Ends a row: the separator after its last value becomes the row's end.
    pub(crate) fn end_row(&mut self) {
        if let Some(last) = self.bytes.last_mut() {
            *last = b'\n';
        }
        self.rows += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_tab_separated_and_ended_by_a_line_feed() {
        let mut text = CopyText::default();
        text.number(0);
        text.number(u64::MAX);
        text.text("REG AIR");
        text.part("Customer#");
        text.digits(12, 9);
        text.end_value();
        text.flag(true);
        text.flag(false);
        text.end_row();
        let expected = "0\t18446744073709551615\tREG AIR\tCustomer#000000012\tt\tf\n";
        assert_eq!(text.bytes(), expected.as_bytes());
        assert_eq!(text.rows(), 1);
    }
}
