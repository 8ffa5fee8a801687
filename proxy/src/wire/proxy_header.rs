//! The header that a load balancer puts before a client's first byte to say who the client is (PROXY protocol,
//! versions 1 and 2, as HAProxy specifies it).
//!
//! It must not know what follows the header, nor what the address is good for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::{FromStr, SplitAsciiWhitespace};

use super::fields::{Fields, Malformed};

/// Version 1 is one line, which ends within so many bytes.
const LINE_BYTES_MAX: usize = 107;
const LINE_BEGIN: &[u8] = b"PROXY ";
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, a byte for version and command, a byte for the family of addresses, and the length of the rest.
const FIXED_BYTES: usize = SIGNATURE.len() + 1 + 1 + 2;
/// What follows in version 2: addresses, and additions of the sender's, of which there may be few.
const REST_BYTES_MAX: usize = 4096;

/// The header at the start of these bytes: its size, and the client's address unless the sender speaks for itself
/// or does not know it. `None` until it is whole.
pub fn proxy_header(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, Malformed> {
    let begins = |begin: &[u8]| {
        let common = bytes.len().min(begin.len());
        bytes[..common] == begin[..common]
    };
    if begins(LINE_BEGIN) {
        read_line(bytes)
    } else if begins(SIGNATURE) {
        read_binary(bytes)
    } else {
        Err(unknown("PROXY header"))
    }
}

fn unknown(name: &'static str) -> Malformed {
    Malformed::Value { name, value: 0 }
}

fn read_line(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, Malformed> {
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return match line.len() {
            LINE_BYTES_MAX => Err(Malformed::Unterminated),
            _ => Ok(None),
        };
    };
    let text = str::from_utf8(&line[..end]).map_err(|_| unknown("PROXY line"))?;
    let mut words = text.split_ascii_whitespace();
    words.next();
    let address = match words.next() {
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(read_words::<Ipv4Addr>(&mut words)?),
        Some("TCP6") => Some(read_words::<Ipv6Addr>(&mut words)?),
        _ => return Err(unknown("PROXY family")),
    };
    Ok(Some((end + 2, address)))
}

/// The source of `source destination source-port destination-port`.
fn read_words<Ip: FromStr + Into<IpAddr>>(
    words: &mut SplitAsciiWhitespace<'_>,
) -> Result<SocketAddr, Malformed> {
    let mut next = || words.next().ok_or(Malformed::Short);
    let (source, _destination, port, _its_port) = (next()?, next()?, next()?, next()?);
    let address = source.parse::<Ip>().map_err(|_| unknown("PROXY address"))?;
    let port = port.parse().map_err(|_| unknown("PROXY port"))?;
    Ok(SocketAddr::new(address.into(), port))
}

fn read_binary(bytes: &[u8]) -> Result<Option<(usize, Option<SocketAddr>)>, Malformed> {
    const LOCAL: u8 = 0x20;
    const PROXIED: u8 = 0x21;
    let Some(fixed) = bytes.get(..FIXED_BYTES) else {
        return Ok(None);
    };
    let mut fields = Fields::of(&fixed[SIGNATURE.len()..]);
    let (command, family, length) = (fields.byte()?, fields.byte()?, fields.count()?);
    if length > REST_BYTES_MAX {
        return Err(Malformed::Length(length as i64));
    }
    let Some(rest) = bytes.get(FIXED_BYTES..FIXED_BYTES + length) else {
        return Ok(None);
    };
    let address = match command {
        LOCAL => None,
        PROXIED => read_addresses(family, rest)?,
        other => {
            return Err(Malformed::Value {
                name: "PROXY version",
                value: other.into(),
            });
        }
    };
    Ok(Some((FIXED_BYTES + length, address)))
}

fn read_addresses(family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
    const TCP_OVER_IPV4: u8 = 0x11;
    const TCP_OVER_IPV6: u8 = 0x21;
    let mut fields = Fields::of(rest);
    let ip: IpAddr = match family {
        TCP_OVER_IPV4 => {
            let source: [u8; 4] = fixed(fields.bytes(4)?)?;
            fields.bytes(4)?;
            source.into()
        }
        TCP_OVER_IPV6 => {
            let source: [u8; 16] = fixed(fields.bytes(16)?)?;
            fields.bytes(16)?;
            source.into()
        }
        // Unix sockets, and what the sender does not know.
        _ => return Ok(None),
    };
    let port = fields.count()? as u16;
    fields.bytes(2)?;
    Ok(Some(SocketAddr::new(ip, port)))
}

fn fixed<const COUNT: usize>(bytes: &[u8]) -> Result<[u8; COUNT], Malformed> {
    bytes.try_into().map_err(|_| Malformed::Short)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    fn v4() -> Vec<u8> {
        let addresses = [&[192, 0, 2, 1, 192, 0, 2, 2][..], &[0x30, 0x39, 0x15, 0x38]].concat();
        binary(0x21, 0x11, &addresses)
    }

    #[test]
    fn both_versions_name_the_client() {
        let expected = Some("192.0.2.1:12345".parse().unwrap());
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 12345 5432\r\n\0\0\0\x08";
        assert_eq!(proxy_header(line), Ok(Some((line.len() - 4, expected))));
        assert_eq!(proxy_header(&v4()), Ok(Some((28, expected))));
        let line = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n";
        let expected = Some("[2001:db8::1]:1".parse().unwrap());
        assert_eq!(proxy_header(line), Ok(Some((line.len(), expected))));
        let v6 = [
            &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..],
            &[0; 16],
            &[0, 1, 0, 2],
            b"additions",
        ];
        let v6 = binary(0x21, 0x21, &v6.concat());
        assert_eq!(proxy_header(&v6), Ok(Some((v6.len(), expected))));
    }

    #[test]
    fn a_sender_may_speak_for_itself_or_not_know() {
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(),
            binary(0x20, 0, b""),
            binary(0x21, 0x31, &[0; 216]),
        ] {
            assert_eq!(proxy_header(&header), Ok(Some((header.len(), None))));
        }
    }

    #[test]
    fn every_prefix_is_waited_for() {
        for header in [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec(), v4()] {
            assert!((0..header.len()).all(|end| proxy_header(&header[..end]) == Ok(None)));
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for bytes in [
            &b"\0\0\0\x08\x04\xd2\x16\x2f"[..],
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
            b"PROXY \xff\r\n",
            &[LINE_BEGIN, &[b'x'; LINE_BYTES_MAX]].concat(),
            &binary(0x11, 0x11, &[0; 12]),
            &binary(0x21, 0x11, &[0; 11]),
            &binary(0x21, 0x11, &[0; REST_BYTES_MAX + 1]),
        ] {
            assert!(proxy_header(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }
}
