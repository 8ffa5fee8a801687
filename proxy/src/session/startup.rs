//! The first packets of a connection, before it is known whom it is for.
//!
//! Encryption with GSSAPI is refused, and so is TLS where there is no certificate for it, as PostgreSQL does; each kind may
//! be asked for once. It must not know the session that follows.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::debug;

use super::leg::Leg;
use super::shared::ProxyHeader;
use super::socket::Socket;
use crate::scram::SCRAM_SHA_256_PLUS;
use crate::tls::Acceptor;
use crate::wire::{
    self, AuthenticationRequest, ErrorReport, Opening, Severity, Startup, opening, proxy_header,
    read, server_tag,
};

/// The largest frame of a server before it accepts a login.
const GREETING_FRAME_BYTES_MAX: usize = 64 * 1024;

/// What a connection turned out to be.
#[derive(Debug)]
pub(super) enum Begun {
    Session(Startup, Leg),
    Cancel(Bytes, Leg),
    /// It left, or said something that ends it.
    Over,
}

/// Which kinds of encryption the client has asked for.
#[derive(Debug, Default)]
struct Asked {
    ssl: bool,
    gss: bool,
}

/// The first byte of a TLS handshake; of PostgreSQL's own packets it would make one of 352 MiB.
const HANDSHAKE: u8 = 0x16;

/// Reads packets until the connection says what it is.
pub(super) async fn begin(stream: TcpStream, header: ProxyHeader, tls: Option<&Acceptor>) -> Begun {
    match read_opening(stream, header, tls).await {
        Some(begun) => begun,
        None => Begun::Over,
    }
}

async fn read_opening(
    mut stream: TcpStream,
    header: ProxyHeader,
    tls: Option<&Acceptor>,
) -> Option<Begun> {
    if header == ProxyHeader::Required {
        take_proxy_header(&mut stream).await?;
    }
    let mut client = match tls {
        Some(tls) if begins_handshake(&stream).await? => secure(stream, tls, true).await?,
        _ => Leg::of_client(Socket::Tcp(stream)),
    };
    let mut asked = Asked::default();
    loop {
        let Some(opening) = next_opening(&mut client).await? else {
            continue;
        };
        match opening {
            Opening::Startup(startup) => return admit(startup, client, tls).await,
            Opening::Cancel(request) => return Some(Begun::Cancel(request, client)),
            Opening::Ssl => {
                let again = std::mem::replace(&mut asked.ssl, true);
                match (tls, client.socket) {
                    (Some(tls), Socket::Tcp(stream)) if !again && client.inbound.is_empty() => {
                        client = agree(stream, tls).await?;
                        asked.gss = true;
                    }
                    (_, socket) => {
                        client.socket = socket;
                        refuse_encryption(&mut client, again, SSL)
                            .await
                            .then_some(())?;
                    }
                }
            }
            Opening::GssEnc => {
                let again = std::mem::replace(&mut asked.gss, true);
                refuse_encryption(&mut client, again, GSS)
                    .await
                    .then_some(())?;
            }
        }
    }
}

/// The next packet; nothing inside when more must come first.
async fn next_opening(client: &mut Leg) -> Option<Option<Opening>> {
    // PostgreSQL closes without a word on a bad length, too: this may be any protocol.
    if let Some((size, opening)) = opening(client.inbound.filled()).ok()? {
        client.consume(size);
        return Some(Some(opening));
    }
    match poll_fn(|cx| client.poll_fill(cx)).await {
        0 => None,
        _ => Some(None),
    }
}

async fn begins_handshake(stream: &TcpStream) -> Option<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await.ok()? {
        0 => None,
        _ => Some(first[0] == HANDSHAKE),
    }
}

/// Says yes to a request for TLS.
async fn agree(mut stream: TcpStream, tls: &Acceptor) -> Option<Leg> {
    stream.write_all(b"S").await.ok()?;
    secure(stream, tls, false).await
}

async fn secure(stream: TcpStream, tls: &Acceptor, is_unasked: bool) -> Option<Leg> {
    match tls.accept(stream, is_unasked).await {
        Ok(accepted) => {
            let mut leg = Leg::of_client(Socket::Tls(Box::new((*accepted.stream).into())));
            leg.end_point = accepted.end_point;
            leg.common_name = accepted.common_name;
            Some(leg)
        }
        Err(error) => {
            debug!(%error, "A TLS handshake failed.");
            None
        }
    }
}

/// Lets a session begin unless it had to be encrypted first.
async fn admit(startup: Startup, mut client: Leg, tls: Option<&Acceptor>) -> Option<Begun> {
    let must_encrypt = tls.is_some_and(Acceptor::is_required);
    if must_encrypt && !client.socket.is_encrypted() {
        let hint = "Set sslmode=require, or a stricter one, in the client.";
        send_fatal(
            &mut client,
            "28000",
            "connection requires TLS",
            None,
            Some(hint),
        )
        .await;
        return None;
    }
    Some(Begun::Session(startup, client))
}

/// Where the client's connection is plain and the server's is encrypted, the server offers a SCRAM that is bound to a channel
/// which the client does not have; a client of such an offer would suspect an attack. The offer is left out.
pub(super) async fn hide_binding(client: &mut Leg, server: &mut Leg) -> Option<()> {
    if !server.socket.is_encrypted() || client.socket.is_encrypted() {
        return Some(());
    }
    loop {
        let frame = server.whole_frame(GREETING_FRAME_BYTES_MAX).await?;
        let mut out = BytesMut::new();
        match read::authentication(&frame) {
            Ok(AuthenticationRequest::Sasl(mechanisms)) => {
                let names = mechanisms.split(|byte| *byte == 0);
                let names: Vec<&str> = names
                    .filter_map(|name| std::str::from_utf8(name).ok())
                    .filter(|name| !name.is_empty() && *name != SCRAM_SHA_256_PLUS)
                    .collect();
                wire::authentication_sasl(&mut out, &names);
            }
            _ => out.extend_from_slice(&frame),
        }
        client.say(&out).await.ok()?;
        // A refusal to negotiate the protocol's version may come before the request.
        if frame.first() != Some(&server_tag::NEGOTIATE_PROTOCOL_VERSION) {
            return Some(());
        }
    }
}

/// Takes the load balancer's header off, if there is one: byte by byte, so that nothing of what follows is taken,
/// which may be the client's half of a TLS handshake.
async fn take_proxy_header(stream: &mut TcpStream) -> Option<()> {
    let mut bytes = vec![];
    loop {
        bytes.push(stream.read_u8().await.ok()?);
        match proxy_header(&bytes) {
            Ok(Some((_, address))) => {
                debug!(?address, "A load balancer names its client.");
                return Some(());
            }
            Ok(None) => {}
            Err(error) => {
                debug!(%error, "A connection did not begin with a PROXY header.");
                return None;
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
    let _gone = client.say(&frame).await;
    let _gone = client.socket.shutdown().await;
}
