//! What a client says before it has a session: encryption requests, cancel requests, the start-up packet.
//!
//! These packets have no type byte. A start-up packet is kept as the bytes it came in, because it is
//! forwarded as such; its parameters can be read but are never printed anew.

use bytes::Bytes;

use super::fields::{Fields, Malformed};
use super::header::LENGTH_BYTES;

/// PostgreSQL's own bound on packets from clients it does not know yet (`MAX_STARTUP_PACKET_LENGTH`).
pub const PRE_AUTH_PACKET_BYTES_MAX: usize = 10_000;

const CODE_END: usize = LENGTH_BYTES + 4;
const CANCEL_REQUEST: i32 = 80_877_102;
const SSL_REQUEST: i32 = 80_877_103;
const GSS_ENC_REQUEST: i32 = 80_877_104;
const VERSION_3: i32 = 3;

/// The first packet of a connection, or one of the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    Ssl,
    GssEnc,
    /// A cancel request, whole: from protocol 3.2 its key may be longer than four bytes.
    Cancel(Bytes),
    Startup(Startup),
}

/// A start-up packet as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    packet: Bytes,
}

impl Startup {
    /// The packet's bytes, length field included.
    pub fn packet(&self) -> &Bytes {
        &self.packet
    }

    /// The protocol version as major and minor number.
    pub fn version(&self) -> (u16, u16) {
        let mut fields = Fields::of(self.packet.get(LENGTH_BYTES..).unwrap_or_default());
        let code = fields.int32().unwrap_or_default() as u32;
        ((code >> 16) as u16, code as u16)
    }

    /// The last value given for a parameter, as PostgreSQL takes the last.
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        self.parameters()
            .filter(|(key, _)| *key == name.as_bytes())
            .last()
            .map(|(_, value)| value)
    }

    /// Names and values in the order they were sent, up to the first that cannot be read.
    pub fn parameters(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut fields = Fields::of(self.packet.get(CODE_END..).unwrap_or_default());
        std::iter::from_fn(move || {
            let name = fields.string().ok().filter(|name| !name.is_empty())?;
            Some((name, fields.string().ok()?))
        })
    }

    /// Whether this is a session of protocol 3 whose frames pgstar can follow: not a replication stream.
    pub fn opens_a_session(&self) -> bool {
        i32::from(self.version().0) == VERSION_3 && self.parameter("replication").is_none()
    }
}

/// The packet at the start of these bytes and its size; `None` until it is whole.
pub fn opening(bytes: &[u8]) -> Result<Option<(usize, Opening)>, Malformed> {
    let Some(length) = bytes.first_chunk() else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    let total = usize::try_from(length).map_err(|_| Malformed::Length(length.into()))?;
    if !(CODE_END..=PRE_AUTH_PACKET_BYTES_MAX).contains(&total) {
        return Err(Malformed::Length(length.into()));
    }
    let Some(packet) = bytes.get(..total) else {
        return Ok(None);
    };
    Ok(Some((total, read_opening(packet)?)))
}

fn read_opening(packet: &[u8]) -> Result<Opening, Malformed> {
    let code = Fields::of(packet.get(LENGTH_BYTES..).ok_or(Malformed::Short)?).int32()?;
    match code {
        SSL_REQUEST if packet.len() == CODE_END => Ok(Opening::Ssl),
        GSS_ENC_REQUEST if packet.len() == CODE_END => Ok(Opening::GssEnc),
        CANCEL_REQUEST => Ok(Opening::Cancel(Bytes::copy_from_slice(packet))),
        _ => Ok(Opening::Startup(Startup {
            packet: Bytes::copy_from_slice(packet),
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: i32, rest: &[u8]) -> Vec<u8> {
        let length = (CODE_END + rest.len()) as i32;
        [&length.to_be_bytes()[..], &code.to_be_bytes(), rest].concat()
    }

    #[test]
    fn requests_are_told_apart() {
        assert_eq!(
            opening(&packet(SSL_REQUEST, b"")),
            Ok(Some((8, Opening::Ssl)))
        );
        assert_eq!(
            opening(&packet(GSS_ENC_REQUEST, b"")),
            Ok(Some((8, Opening::GssEnc)))
        );
        let cancel = packet(CANCEL_REQUEST, &[1; 40]);
        assert_eq!(
            opening(&cancel),
            Ok(Some((48, Opening::Cancel(Bytes::from(cancel.clone())))))
        );
    }

    #[test]
    fn a_startup_packet_keeps_its_bytes_and_its_last_parameter_wins() {
        let bytes = packet(196_608, b"user\0ann\0database\0one\0database\0two\0\0");
        let Ok(Some((_, Opening::Startup(startup)))) = opening(&bytes) else {
            panic!("no start-up packet")
        };
        assert_eq!(startup.packet().as_ref(), bytes);
        assert_eq!(startup.version(), (3, 0));
        assert_eq!(startup.parameter("database"), Some(&b"two"[..]));
        assert_eq!(startup.parameter("replication"), None);
        assert!(startup.opens_a_session());
    }

    #[test]
    fn replication_and_other_protocols_open_no_session() {
        for bytes in [
            packet(196_608, b"replication\0database\0\0"),
            packet(131_072, b""),
        ] {
            let Ok(Some((_, Opening::Startup(startup)))) = opening(&bytes) else {
                panic!("no start-up packet")
            };
            assert!(!startup.opens_a_session());
        }
    }

    #[test]
    fn every_prefix_waits_and_bad_lengths_are_refused() {
        let whole = packet(196_608, b"user\0ann\0\0");
        assert!((0..whole.len()).all(|end| opening(&whole[..end]) == Ok(None)));
        for length in [
            i32::MIN,
            -1,
            0,
            4,
            7,
            PRE_AUTH_PACKET_BYTES_MAX as i32 + 1,
            i32::MAX,
        ] {
            assert_eq!(
                opening(&length.to_be_bytes()),
                Err(Malformed::Length(length.into()))
            );
        }
    }

    #[test]
    fn parameters_without_an_end_are_read_as_far_as_they_go() {
        let bytes = packet(196_608, b"user\0ann\0data");
        let Ok(Some((_, Opening::Startup(startup)))) = opening(&bytes) else {
            panic!("no start-up packet")
        };
        assert_eq!(startup.parameters().count(), 1);
    }
}
