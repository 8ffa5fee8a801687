//! TLS towards clients: the certificate, who may connect, and the handshake on an accepted connection.
//!
//! The files are read at start and again on a reload; connections keep what they began with. It must not know
//! what PostgreSQL's protocol says before the handshake.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use pgstar_postgres::tls::{ALPN, read_certificates};
use ring::digest::{self, Algorithm};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
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

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {reason}", .file.display())]
pub struct TlsFileError {
    pub file: PathBuf,
    pub reason: String,
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
}

impl Acceptor {
    /// Reads the files.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn load(settings: TlsSettings) -> Result<Self, TlsFileError> {
        let current = RwLock::new(Arc::new(load(&settings)?));
        Ok(Acceptor { settings, current })
    }

    /// Reads the files again; what was loaded stays in use if they cannot be.
    ///
    /// # Errors
    /// As [`Acceptor::load`].
    pub fn reload(&self) -> Result<(), TlsFileError> {
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
        Ok(Accepted {
            stream: Box::new(stream),
            end_point: loaded.end_point.clone(),
        })
    }
}

fn load(settings: &TlsSettings) -> Result<Loaded, TlsFileError> {
    let wrong = |file: &Path| {
        let file = file.to_owned();
        move |reason: String| TlsFileError { file, reason }
    };
    let certificates =
        read_certificates(&settings.certificate).map_err(wrong(&settings.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&settings.key)
        .map_err(|error| wrong(&settings.key)(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&settings.certificate)(error.to_string()))?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for root in read_certificates(file).map_err(wrong(file))? {
                roots
                    .add(root)
                    .map_err(|error| wrong(file)(error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| wrong(file)(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let end_point = certificates
        .first()
        .and_then(|certificate| end_point(certificate));
    let mut config = builder
        .with_single_cert(certificates, key)
        .map_err(|error| wrong(&settings.key)(error.to_string()))?;
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

fn signature_hash(certificate: &[u8]) -> Option<&'static Algorithm> {
    const SEQUENCE: u8 = 0x30;
    const OBJECT: u8 = 0x06;
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
    fn every_prefix_is_refused() {
        let whole = certificate(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 11]);
        assert!((0..whole.len()).all(|end| end_point(&whole[..end]).is_none()));
        assert_eq!(end_point(&[0x30, 0xff]), None);
    }
}
