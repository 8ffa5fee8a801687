//! A position in the write-ahead log. It knows nothing of what is logged there.

use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log of one server, on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// How many bytes of log lie between; none when `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// What should have been a position and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a position in the write-ahead log")]
pub struct NotAnLsn(String);

impl FromStr for Lsn {
    type Err = NotAnLsn;

    /// Reads PostgreSQL's notation: two hexadecimal numbers of 32 bits with a slash between.
    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let half = |digits: &str| u32::from_str_radix(digits, 16).ok();
        let parsed = text
            .split_once('/')
            .and_then(|(high, low)| Some((half(high)?, half(low)?)));
        let (high, low) = parsed.ok_or_else(|| NotAnLsn(text.to_owned()))?;
        Ok(Lsn(u64::from(high) << 32 | u64::from(low)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_and_written_as_postgresql_does() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        assert_eq!("1/10".parse(), Ok(Lsn(0x1_0000_0010)));
        for text in ["", "/", "1", "1/", "100000000/0", "x/1"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_later_position_is_no_distance_behind() {
        assert_eq!(Lsn(7).bytes_since(Lsn(5)), 2);
        assert_eq!(Lsn(5).bytes_since(Lsn(7)), 0);
    }
}
