//! The kinds of values that a setting may have: sizes, durations, addresses and freshness.
//!
//! Each is parsed once, here, from the text that a user typed in the file or (freshness) in SET.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use super::Certificates;
use super::problem::{Complaint, quoted};

/// A number of bytes, written as `512MiB`.
///
/// As in PostgreSQL, every unit is a power of 1024: kB and KiB are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    const UNITS: [(&str, u32); 9] = [
        ("tib", 40),
        ("gib", 30),
        ("mib", 20),
        ("kib", 10),
        ("tb", 40),
        ("gb", 30),
        ("mb", 20),
        ("kb", 10),
        ("b", 0),
    ];

    /// So many times 1024 bytes.
    pub const fn kib(count: u64) -> Self {
        ByteSize(count << 10)
    }

    /// So many times 1024² bytes.
    pub const fn mib(count: u64) -> Self {
        ByteSize(count << 20)
    }

    /// So many times 1024³ bytes.
    pub const fn gib(count: u64) -> Self {
        ByteSize(count << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; what does not fit is as good as no limit.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Complaint> {
        let unit_bits = |unit: &str| {
            let unit = unit.to_ascii_lowercase();
            Self::UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, bits)| *bits)
        };
        number_and_unit(text)
            .and_then(|(number, unit)| number.checked_mul(1 << unit_bits(unit)?))
            .map(ByteSize)
            .ok_or_else(|| {
                Complaint::new(
                    format!("invalid size {}", quoted(text)),
                    "Write a whole number and a unit, such as \"512MiB\"; \
                     the units are B, kB, MiB, GiB and TiB.",
                )
            })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |bits: u32| self.0 != 0 && self.0.trailing_zeros() >= bits;
        match [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
            .iter()
            .find(|u| exact(u.0))
        {
            Some((bits, unit)) => write!(f, "{}{unit}", self.0 >> bits),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// A choice, written as `on` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Switch(pub(super) bool);

impl FromStr for Switch {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Complaint> {
        match text {
            "on" => Ok(Switch(true)),
            "off" => Ok(Switch(false)),
            _ => Err(Complaint::new(
                format!("invalid choice {}", quoted(text)),
                "Write \"on\" or \"off\".",
            )),
        }
    }
}

/// A bound in time that there may be none of, written as `10m` or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdleTimeout(pub(super) Option<Duration>);

impl FromStr for IdleTimeout {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Complaint> {
        match text {
            "off" => Ok(IdleTimeout(None)),
            _ => match text.parse()? {
                Timespan(Duration::ZERO) => Err(Complaint::new(
                    format!("invalid duration {}", quoted(text)),
                    "Write a duration longer than zero, or \"off\".",
                )),
                Timespan(duration) => Ok(IdleTimeout(Some(duration))),
            },
        }
    }
}

/// A length of time, written as `30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timespan(pub Duration);

impl Timespan {
    /// Units in milliseconds, the largest first; PostgreSQL's `min` and the usual `m` both mean minutes.
    const UNITS: [(&str, u64); 6] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
        ("ms", 1),
        ("min", 60_000),
    ];

    /// So many seconds.
    pub const fn seconds(count: u64) -> Self {
        Timespan(Duration::from_secs(count))
    }
}

impl FromStr for Timespan {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Complaint> {
        let unit_milliseconds = |unit: &str| {
            Self::UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, ms)| *ms)
        };
        number_and_unit(text)
            .and_then(|(number, unit)| number.checked_mul(unit_milliseconds(unit)?))
            .map(|milliseconds| Timespan(Duration::from_millis(milliseconds)))
            .ok_or_else(|| {
                Complaint::new(
                    format!("invalid duration {}", quoted(text)),
                    "Write a whole number and a unit, such as \"30s\"; \
                     the units are ms, s, m, h and d.",
                )
            })
    }
}

impl fmt::Display for Timespan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        let exact = |size: u64| milliseconds != 0 && milliseconds.is_multiple_of(u128::from(size));
        match Self::UNITS.iter().find(|(_, size)| exact(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", milliseconds / u128::from(*size)),
            None => write!(f, "0s"),
        }
    }
}

/// How old an answer may be; the setting `pgstar.freshness` and the key `[freshness] default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Every commit acknowledged before the statement began is in the answer.
    Strict,
    /// The answer was true at most this long ago; longer than zero.
    Within(Duration),
    /// Whatever a rollup or the cache holds will do.
    Any,
}

impl FromStr for Freshness {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Complaint> {
        match (text.trim().to_ascii_lowercase().as_str(), text.parse()) {
            ("strict", _) => Ok(Freshness::Strict),
            ("any", _) => Ok(Freshness::Any),
            (_, Ok(Timespan(bound))) if !bound.is_zero() => Ok(Freshness::Within(bound)),
            _ => Err(Complaint::new(
                format!("invalid freshness {}", quoted(text)),
                "Write \"strict\", \"any\", or a bound longer than zero such as \"5s\" or \"500ms\".",
            )),
        }
    }
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Freshness::Strict => f.write_str("strict"),
            Freshness::Within(bound) => Timespan(*bound).fmt(f),
            Freshness::Any => f.write_str("any"),
        }
    }
}

/// Who checks passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthMethod {
    Relay,
    Scram,
}

impl FromStr for AuthMethod {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Complaint> {
        match text {
            "relay" => Ok(AuthMethod::Relay),
            "scram" => Ok(AuthMethod::Scram),
            _ => Err(Complaint::new(
                format!("invalid method {}", quoted(text)),
                "Write \"relay\" or \"scram\".",
            )),
        }
    }
}

impl FromStr for Certificates {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Complaint> {
        match text {
            "ignore" => Ok(Certificates::Ignore),
            "match" => Ok(Certificates::Match),
            "login" => Ok(Certificates::LogIn),
            _ => Err(Complaint::new(
                format!("invalid value {}", quoted(text)),
                "Write \"ignore\", \"match\" or \"login\".",
            )),
        }
    }
}

/// Whether clients must encrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsDemand {
    Allow,
    Require,
}

impl FromStr for TlsDemand {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Complaint> {
        match text {
            "allow" => Ok(TlsDemand::Allow),
            "require" => Ok(TlsDemand::Require),
            _ => Err(Complaint::new(
                format!("invalid value {}", quoted(text)),
                "Write \"allow\" or \"require\".",
            )),
        }
    }
}

/// Where pgstar itself listens: an IP address and a port. Names are not looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ListenAddress(pub SocketAddr);

impl FromStr for ListenAddress {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Complaint> {
        text.parse().map(ListenAddress).map_err(|_| {
            Complaint::new(
                format!("invalid address {}", quoted(text)),
                "Write an IP address and a port, such as \"127.0.0.1:6432\", \
                 or \"0.0.0.0:6432\" for every interface.",
            )
        })
    }
}

/// Where the admin pages listen, unless they are switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AdminAddress(pub Option<SocketAddr>);

impl FromStr for AdminAddress {
    type Err = Complaint;

    fn from_str(text: &str) -> Result<Self, Complaint> {
        if text == "off" {
            return Ok(AdminAddress(None));
        }
        text.parse()
            .map(|address| AdminAddress(Some(address)))
            .map_err(|_| {
                Complaint::new(
                    format!("invalid address {}", quoted(text)),
                    "Write an IP address and a port, such as \"127.0.0.1:9632\", or \"off\".",
                )
            })
    }
}

/// Splits `512 MiB` into its number and unit; `None` unless it begins with a whole number.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let unit_start = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_start);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let good = [
            ("0B", 0, "0B"),
            ("1000B", 1000, "1000B"),
            ("16kB", 16 << 10, "16KiB"),
            ("16 KiB", 16 << 10, "16KiB"),
            ("512MiB", 512 << 20, "512MiB"),
            ("512mb", 512 << 20, "512MiB"),
            ("1GiB", 1 << 30, "1GiB"),
            ("1536MiB", 1536 << 20, "1536MiB"),
            (" 2TiB ", 2 << 40, "2TiB"),
        ];
        for (text, bytes, shown) in good {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(
                (size.bytes(), size.to_string().as_str()),
                (bytes, shown),
                "{text}"
            );
        }
        for text in [
            "",
            "MiB",
            "512",
            "1.5GiB",
            "-1kB",
            "1 parsec",
            "99999999999TiB",
            "１kB",
        ] {
            let complaint = text.parse::<ByteSize>().unwrap_err();
            assert_eq!(complaint.message, format!("invalid size \"{text}\""));
        }
    }

    #[test]
    fn durations() {
        let good = [
            ("30s", 30_000, "30s"),
            ("500ms", 500, "500ms"),
            ("5m", 300_000, "5m"),
            ("5 min", 300_000, "5m"),
            ("1h", 3_600_000, "1h"),
            ("90m", 5_400_000, "90m"),
            ("48h", 172_800_000, "2d"),
            ("0s", 0, "0s"),
        ];
        for (text, milliseconds, shown) in good {
            let span: Timespan = text.parse().unwrap();
            assert_eq!(span.0, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(span.to_string(), shown, "{text}");
        }
        for text in [
            "",
            "s",
            "30",
            "1.5s",
            "-1s",
            "3 fortnights",
            "30S",
            "999999999999999999d",
        ] {
            let complaint = text.parse::<Timespan>().unwrap_err();
            assert_eq!(complaint.message, format!("invalid duration \"{text}\""));
        }
    }

    #[test]
    fn freshness() {
        let good = [
            ("strict", Freshness::Strict, "strict"),
            ("STRICT", Freshness::Strict, "strict"),
            ("any", Freshness::Any, "any"),
            ("5s", Freshness::Within(Duration::from_secs(5)), "5s"),
            (
                "250ms",
                Freshness::Within(Duration::from_millis(250)),
                "250ms",
            ),
        ];
        for (text, freshness, shown) in good {
            assert_eq!(text.parse(), Ok(freshness), "{text}");
            assert_eq!(freshness.to_string(), shown);
        }
        for text in ["", "0s", "5", "never", "strictly"] {
            let complaint = text.parse::<Freshness>().unwrap_err();
            assert_eq!(complaint.message, format!("invalid freshness \"{text}\""));
        }
    }
}
