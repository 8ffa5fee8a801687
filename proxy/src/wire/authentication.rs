//! Frames of SASL authentication: those of a server that pgstar speaks to clients, those of a client that it
//! speaks to PostgreSQL.
//!
//! It must not know mechanisms, keys or proofs.

use bytes::{BufMut, BytesMut};

use super::fields::{Fields, Malformed};
use super::header::{body, frame, put_string};
use super::server_tag as tag;

/// The type byte of a client's answer to a request for authentication.
const PASSWORD: u8 = b'p';

const OK: i32 = 0;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// What a server asks of a client that wants to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthenticationRequest<'a> {
    Ok,
    /// The names of its mechanisms, each with a zero after it.
    Sasl(&'a [u8]),
    SaslContinue(&'a [u8]),
    SaslFinal(&'a [u8]),
    /// Another method, by its number in the protocol.
    Other(i32),
}

/// Reads a whole authentication frame of a server.
pub fn read_authentication(frame: &[u8]) -> Result<AuthenticationRequest<'_>, Malformed> {
    let mut fields = Fields::of(body(frame)?);
    let method = fields.int32()?;
    Ok(match method {
        OK => AuthenticationRequest::Ok,
        SASL => AuthenticationRequest::Sasl(fields.rest()),
        SASL_CONTINUE => AuthenticationRequest::SaslContinue(fields.rest()),
        SASL_FINAL => AuthenticationRequest::SaslFinal(fields.rest()),
        other => AuthenticationRequest::Other(other),
    })
}

/// A client's first answer: the mechanism it chose, and its first message.
pub fn read_sasl_initial(frame: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut fields = Fields::of(password_body(frame)?);
    let mechanism = fields.string()?;
    let message = fields.value()?.unwrap_or_default();
    fields.end()?;
    Ok((mechanism, message))
}

/// A client's further answer.
pub fn read_sasl_response(frame: &[u8]) -> Result<&[u8], Malformed> {
    password_body(frame)
}

fn password_body(frame: &[u8]) -> Result<&[u8], Malformed> {
    match frame.first() {
        Some(&PASSWORD) => body(frame),
        tag => Err(Malformed::Value {
            name: "message type",
            value: tag.copied().unwrap_or_default().into(),
        }),
    }
}

fn request(out: &mut BytesMut, method: i32, write: impl FnOnce(&mut BytesMut)) {
    frame(out, tag::AUTHENTICATION, |out| {
        out.put_i32(method);
        write(out);
    });
}

/// Appends a request to choose one of these mechanisms.
pub fn authentication_sasl(out: &mut BytesMut, mechanisms: &[&str]) {
    request(out, SASL, |out| {
        for mechanism in mechanisms {
            put_string(out, mechanism.as_bytes());
        }
        out.put_u8(0);
    });
}

/// Appends a mechanism's next message to the client.
pub fn authentication_sasl_continue(out: &mut BytesMut, message: &str) {
    request(out, SASL_CONTINUE, |out| out.put_slice(message.as_bytes()));
}

/// Appends a mechanism's last message to the client, and that it is logged in.
pub fn authentication_ok(out: &mut BytesMut, message: Option<&str>) {
    if let Some(message) = message {
        request(out, SASL_FINAL, |out| out.put_slice(message.as_bytes()));
    }
    request(out, OK, |_| {});
}

/// Appends a client's choice of a mechanism and its first message.
pub fn sasl_initial_response(out: &mut BytesMut, mechanism: &str, message: &str) {
    frame(out, PASSWORD, |out| {
        put_string(out, mechanism.as_bytes());
        out.put_i32(message.len() as i32);
        out.put_slice(message.as_bytes());
    });
}

/// Appends a client's further message.
pub fn sasl_response(out: &mut BytesMut, message: &str) {
    frame(out, PASSWORD, |out| out.put_slice(message.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(build: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        build(&mut out);
        out
    }

    #[test]
    fn both_sides_read_what_the_other_builds() {
        let sasl = built(|out| authentication_sasl(out, &["A", "B"]));
        assert_eq!(
            read_authentication(&sasl),
            Ok(AuthenticationRequest::Sasl(b"A\0B\0\0"))
        );
        let initial = built(|out| sasl_initial_response(out, "A", "hello"));
        assert_eq!(read_sasl_initial(&initial), Ok((&b"A"[..], &b"hello"[..])));
        let response = built(|out| sasl_response(out, "more"));
        assert_eq!(read_sasl_response(&response), Ok(&b"more"[..]));
        let over = built(|out| authentication_ok(out, Some("last")));
        assert_eq!(
            read_authentication(&over),
            Ok(AuthenticationRequest::SaslFinal(b"last"))
        );
    }

    #[test]
    fn every_prefix_is_refused() {
        let initial = built(|out| sasl_initial_response(out, "A", "hello"));
        assert!((0..initial.len()).all(|end| read_sasl_initial(&initial[..end]).is_err()));
        let sasl = built(|out| authentication_sasl(out, &["A"]));
        assert!((0..sasl.len()).all(|end| read_authentication(&sasl[..end]).is_err()));
        assert!(read_sasl_response(b"Q\0\0\0\x04").is_err());
    }
}
