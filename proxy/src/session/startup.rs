//! The first packets of a connection, before it is known whom it is for.
//!
//! Encryption is refused (`N`), as PostgreSQL without TLS does, each kind once. It must not know the
//! session that follows.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tracing::debug;

use super::leg::Leg;
use super::shared::ProxyHeader;
use crate::wire::{ErrorReport, Opening, Severity, Startup, opening, proxy_header};

/// What a connection turned out to be.
#[derive(Debug)]
pub(super) enum Begun {
    Session(Startup),
    Cancel(Bytes),
    /// It left, or said something that ends it.
    Over,
}

/// Which kinds of encryption the client has asked for.
#[derive(Debug, Default)]
struct Asked {
    ssl: bool,
    gss: bool,
}

/// Reads packets until the connection says what it is.
pub(super) async fn begin(client: &mut Leg, header: ProxyHeader) -> Begun {
    if header == ProxyHeader::Required && !take_proxy_header(client).await {
        return Begun::Over;
    }
    let mut asked = Asked::default();
    loop {
        match opening(client.inbound.filled()) {
            Ok(Some((size, opening))) => {
                client.consume(size);
                match opening {
                    Opening::Startup(startup) => return Begun::Session(startup),
                    Opening::Cancel(request) => return Begun::Cancel(request),
                    Opening::Ssl => {
                        let again = std::mem::replace(&mut asked.ssl, true);
                        if !refuse_encryption(client, again, SSL).await {
                            return Begun::Over;
                        }
                    }
                    Opening::GssEnc => {
                        let again = std::mem::replace(&mut asked.gss, true);
                        if !refuse_encryption(client, again, GSS).await {
                            return Begun::Over;
                        }
                    }
                }
            }
            Ok(None) => {
                if poll_fn(|cx| client.poll_fill(cx)).await == 0 {
                    return Begun::Over;
                }
            }
            // PostgreSQL closes without a word on a bad length, too: this may be any protocol.
            Err(_) => return Begun::Over,
        }
    }
}

/// Takes the load balancer's header off; whether there was one.
async fn take_proxy_header(client: &mut Leg) -> bool {
    loop {
        match proxy_header(client.inbound.filled()) {
            Ok(Some((size, address))) => {
                client.consume(size);
                debug!(?address, "A load balancer names its client.");
                return true;
            }
            Ok(None) => {
                if poll_fn(|cx| client.poll_fill(cx)).await == 0 {
                    return false;
                }
            }
            Err(error) => {
                debug!(%error, "A connection did not begin with a PROXY header.");
                return false;
            }
        }
    }
}

/// How PostgreSQL names a kind of encryption in its errors.
struct Encryption {
    code: &'static str,
    request: &'static str,
}

const SSL: Encryption = Encryption {
    code: "1234.5679",
    request: "SSL request",
};
const GSS: Encryption = Encryption {
    code: "1234.5680",
    request: "GSSAPI encryption request",
};

/// Says no to a request for encryption; whether the connection goes on.
async fn refuse_encryption(client: &mut Leg, again: bool, kind: Encryption) -> bool {
    if again {
        let message = format!(
            "unsupported frontend protocol {}: server supports 3.0 to 3.0",
            kind.code
        );
        send_fatal(client, "0A000", &message, None, None).await;
        return false;
    }
    if client.socket.write_all(b"N").await.is_err() {
        return false;
    }
    // A client must wait for the answer. What came with the request may have been put there by somebody
    // between the two (CVE-2021-23214), so PostgreSQL refuses it, and so does pgstar.
    if !client.inbound.is_empty() {
        let message = format!("received unencrypted data after {}", kind.request);
        let detail = "This could be either a client-software bug or evidence of an attempted man-in-the-middle attack.";
        send_fatal(client, "08P01", &message, Some(detail), None).await;
        return false;
    }
    true
}

/// Tells the client why its connection ends. It may have gone already: nothing depends on it.
pub(super) async fn send_fatal(
    client: &mut Leg,
    sqlstate: &str,
    message: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) {
    let mut frame = BytesMut::new();
    ErrorReport {
        severity: Severity::Fatal,
        sqlstate,
        message,
        detail,
        hint,
    }
    .write(&mut frame);
    let _gone = client.socket.write_all(&frame).await;
    let _gone = client.socket.shutdown().await;
}
