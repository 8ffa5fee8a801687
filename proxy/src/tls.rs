//! TLS towards clients: the certificate, who may connect, and the handshake on an accepted connection.
//!
//! The files are read at start and again on a reload; connections keep what they began with. It must not know
//! what PostgreSQL's protocol says before the handshake.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use pgstar_postgres::tls::{ALPN, TlsError, read_certificates, read_key, read_roots};
use ring::digest::{self, Algorithm};
use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// `[listen]`'s files, and whether TLS is a must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate that clients see, and those between it and a root.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Who vouches for clients; they must then have a certificate.
    pub client_ca: Option<PathBuf>,
    /// Whether clients without TLS are refused.
    pub is_required: bool,
}

/// Encrypts clients' connections.
#[derive(Debug)]
pub struct Acceptor {
    settings: TlsSettings,
    current: RwLock<Arc<Loaded>>,
}

struct Loaded {
    acceptor: TlsAcceptor,
    end_point: Option<Bytes>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loaded")
    }
}

/// A client's encrypted connection.
#[derive(Debug)]
pub struct Accepted {
    pub stream: Box<TlsStream<TcpStream>>,
    /// What SCRAM may be bound to: the hash of the certificate that the client sees (tls-server-end-point, RFC 5929).
    pub end_point: Option<Bytes>,
    /// The common name in the client's certificate, which was vouched for.
    pub common_name: Option<Box<str>>,
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn load(settings: TlsSettings) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(load(&settings)?));
        Ok(Acceptor { settings, current })
    }

    /// Reads the files again; what was loaded stays in use if they cannot be.
    ///
    /// # Errors
    /// As [`Acceptor::load`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = Arc::new(load(&self.settings)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// Whether clients without TLS are refused.
    pub fn is_required(&self) -> bool {
        self.settings.is_required
    }

    /// Shakes hands. A client that begins without asking first must name the protocol, so that nobody takes bytes of
    /// another protocol for it.
    ///
    /// # Errors
    /// The handshake.
    pub async fn accept(&self, stream: TcpStream, is_unasked: bool) -> io::Result<Accepted> {
        let loaded = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let stream = loaded.acceptor.accept(stream).await?;
        let protocol = stream.get_ref().1.alpn_protocol();
        if is_unasked && protocol != Some(ALPN) {
            return Err(io::Error::other(
                "received direct SSL connection request without ALPN protocol negotiation extension",
            ));
        }
        let shown = stream.get_ref().1.peer_certificates();
        let shown = shown.and_then(|certificates| certificates.first());
        Ok(Accepted {
            common_name: shown.and_then(|certificate| common_name(certificate)),
            stream: Box::new(stream),
            end_point: loaded.end_point.clone(),
        })
    }
}

fn load(settings: &TlsSettings) -> Result<Loaded, TlsError> {
    let certificates = read_certificates(&settings.certificate)?;
    let key = read_key(&settings.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::of_file(&settings.certificate))?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let (_, roots) = read_roots(file)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(TlsError::of_file(file))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let end_point = certificates
        .first()
        .and_then(|certificate| end_point(certificate));
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(TlsError::of_file(&settings.key))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // As PostgreSQL: no session is resumed, so nothing of one is kept.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Loaded {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        end_point,
    })
}

/// The certificate's hash by the algorithm that it is signed with (RFC 5929, section 4.1); `None` where that names none.
fn end_point(certificate: &[u8]) -> Option<Bytes> {
    let algorithm = signature_hash(certificate)?;
    let hash = digest::digest(algorithm, certificate);
    Some(Bytes::copy_from_slice(hash.as_ref()))
}

const SEQUENCE: u8 = 0x30;
const OBJECT: u8 = 0x06;

/// The first common name of who a certificate is for (RFC 5280, section 4.1), as PostgreSQL takes it; `None` without one, or
/// where it is not plain text.
fn common_name(certificate: &[u8]) -> Option<Box<str>> {
    const SET: u8 = 0x31;
    const INTEGER: u8 = 0x02;
    const VERSION: u8 = 0xa0;
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    const PRINTABLE_STRING: u8 = 0x13;
    const UTF8_STRING: u8 = 0x0c;
    let (whole, _) = der(certificate, SEQUENCE)?;
    let (signed, _) = der(whole, SEQUENCE)?;
    let after_version = der(signed, VERSION).map_or(signed, |(_, rest)| rest);
    let (_serial, rest) = der(after_version, INTEGER)?;
    let (_algorithm, rest) = der(rest, SEQUENCE)?;
    let (_issuer, rest) = der(rest, SEQUENCE)?;
    let (_validity, rest) = der(rest, SEQUENCE)?;
    let (mut subject, _) = der(rest, SEQUENCE)?;
    while !subject.is_empty() {
        let (mut names, rest) = der(subject, SET)?;
        subject = rest;
        while !names.is_empty() {
            let (name, rest) = der(names, SEQUENCE)?;
            names = rest;
            let (kind, value) = der(name, OBJECT)?;
            if kind == COMMON_NAME {
                let (text, _) = der(value, UTF8_STRING).or_else(|| der(value, PRINTABLE_STRING))?;
                let text = std::str::from_utf8(text).ok()?;
                return (!text.contains('\0')).then(|| text.into());
            }
        }
    }
    None
}

fn signature_hash(certificate: &[u8]) -> Option<&'static Algorithm> {
    // Of RSA (PKCS #1) and of ECDSA, without the last number, which tells the hash.
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    let (whole, _) = der(certificate, SEQUENCE)?;
    let (_to_be_signed, rest) = der(whole, SEQUENCE)?;
    let (algorithm, _) = der(rest, SEQUENCE)?;
    let (object, _) = der(algorithm, OBJECT)?;
    let (last, family) = object.split_last()?;
    match (family, last) {
        // Weaker hashes are replaced by this one.
        (RSA, 4 | 5 | 11) | (ECDSA, 2) => Some(&digest::SHA256),
        (RSA, 12) | (ECDSA, 3) => Some(&digest::SHA384),
        (RSA, 13) | (ECDSA, 4) => Some(&digest::SHA512),
        _ => None,
    }
}

/// The value of the element with this tag at the start, and what follows it.
fn der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..0x80 => (usize::from(*length), rest),
        _ => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let number = digits.iter().try_fold(0_usize, |number, digit| {
                number.checked_mul(256)?.checked_add(usize::from(*digit))
            })?;
            (number, rest)
        }
    };
    (*first == tag).then(|| rest.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate as far as it is read, signed by this algorithm.
    fn certificate(object: &[u8]) -> Vec<u8> {
        let element = |tag: u8, value: &[u8]| {
            [&[tag, 0x82], &(value.len() as u16).to_be_bytes()[..], value].concat()
        };
        let signed = element(0x30, b"what is signed");
        let algorithm = element(0x30, &element(0x06, object));
        element(0x30, &[signed, algorithm].concat())
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let rsa = |last| [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, last];
        for (last, bytes) in [(5, 32), (11, 32), (12, 48), (13, 64)] {
            let hash = end_point(&certificate(&rsa(last))).unwrap();
            assert_eq!(hash.len(), bytes, "{last}");
        }
        let ecdsa = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3];
        assert_eq!(end_point(&certificate(&ecdsa)).unwrap().len(), 48);
        // Ed25519 hashes nothing by itself.
        assert_eq!(end_point(&certificate(&[0x2b, 0x65, 0x70])), None);
    }

    #[test]
    fn the_common_name_is_the_first_one_of_the_subject() {
        let named = |names: &[&str]| {
            let mut params = rcgen::CertificateParams::new(vec!["host".to_owned()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            let organization = rcgen::DnType::OrganizationName;
            params.distinguished_name.push(organization, "somebody");
            for name in names {
                params
                    .distinguished_name
                    .push(rcgen::DnType::CommonName, *name);
            }
            let key = rcgen::KeyPair::generate().unwrap();
            params.self_signed(&key).unwrap().der().to_vec()
        };
        let whole = named(&["ann"]);
        assert_eq!(common_name(&whole).as_deref(), Some("ann"));
        assert_eq!(common_name(&named(&[])), None);
        assert_eq!(common_name(&named(&["ann\0bob"])), None);
        assert!((0..whole.len()).all(|end| common_name(&whole[..end]).is_none()));
    }

    #[test]
    fn every_prefix_is_refused() {
        let whole = certificate(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 11]);
        assert!((0..whole.len()).all(|end| end_point(&whole[..end]).is_none()));
        assert_eq!(end_point(&[0x30, 0xff]), None);
    }
}
