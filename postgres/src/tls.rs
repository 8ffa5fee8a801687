//! TLS to the server: what an `sslmode` asks for, and the handshake on a fresh connection.
//!
//! How connections are encrypted belongs to the server's address, not to who connects, so it is told once for an address
//! ([`encrypt`]) and holds for all of pgstar's own connections there. Without it, connections are plain.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore,
    SignatureScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Config;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// PostgreSQL's name among the protocols that TLS negotiates.
pub const ALPN: &[u8] = b"postgresql";

/// The request that goes before the handshake: its length and its code.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// How much TLS is wanted, as libpq names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// None.
    Disable,
    /// If the server has it; whoever it is.
    Prefer,
    /// Encrypted; whoever it is.
    Require,
    /// With a server that one of the root certificates vouches for.
    VerifyCa,
    /// With that server, under the name that was connected to.
    VerifyFull,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates.
    #[error("cannot read the root certificates in {}: {reason}", .file.display())]
    Roots {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The library.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

/// How to encrypt connections to a server.
#[derive(Debug, Clone)]
pub struct ClientTls {
    mode: SslMode,
    config: Arc<ClientConfig>,
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.mode == other.mode && Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for ClientTls {}

/// A connection after the server was asked for TLS.
#[derive(Debug)]
pub enum Negotiated {
    /// It has none.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

impl ClientTls {
    /// With `roots`, a file of certificates, `require` verifies as `verify-ca` does; the same in libpq.
    ///
    /// # Errors
    /// The certificates cannot be read.
    pub fn new(mode: SslMode, roots: Option<&Path>) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let setup = |error: RustlsError| TlsError::Setup(error.to_string());
        let verifier: Arc<dyn ServerCertVerifier> = match roots {
            None => Arc::new(Unverified(Arc::clone(&provider))),
            Some(file) => Arc::new(Verified::new(file, mode, Arc::clone(&provider))?),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(setup)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(ClientTls {
            mode,
            config: Arc::new(config),
        })
    }

    /// How much is wanted.
    pub fn mode(&self) -> SslMode {
        self.mode
    }

    /// For libraries that do the handshake themselves.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Asks the server for TLS on a fresh connection, and shakes hands.
    ///
    /// # Errors
    /// The connection, a server that has no TLS where it is a must, or one that could not be verified.
    pub async fn secure(&self, mut stream: TcpStream, host: &str) -> io::Result<Negotiated> {
        stream.write_all(&SSL_REQUEST).await?;
        // One byte: what follows an S belongs to the handshake, and nothing follows an N.
        match stream.read_u8().await? {
            b'S' => {}
            b'N' if self.mode == SslMode::Prefer => return Ok(Negotiated::Plain(stream)),
            b'N' => {
                return Err(io::Error::other(
                    "the server does not support TLS, but sslmode requires it",
                ));
            }
            _ => {
                return Err(io::Error::other(
                    "the server did not answer the request for TLS",
                ));
            }
        }
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(name, stream).await?;
        Ok(Negotiated::Tls(Box::new(stream)))
    }
}

static ADDRESSES: LazyLock<RwLock<HashMap<String, ClientTls>>> = LazyLock::new(RwLock::default);

fn address(config: &Config) -> String {
    format!(
        "{:?} {:?} {:?}",
        config.get_hosts(),
        config.get_hostaddrs(),
        config.get_ports()
    )
}

/// From now on, pgstar's own connections to this address are encrypted like this.
pub fn encrypt(config: &Config, tls: ClientTls) {
    ADDRESSES
        .write()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(address(config), tls);
}

/// How connections to this address are encrypted; `None` for not at all. A connection string that says
/// `sslmode=require` by itself is taken at its word.
pub(crate) fn of(config: &Config) -> Result<Option<ClientTls>, TlsError> {
    let told = ADDRESSES
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .get(&address(config))
        .cloned();
    let requires = config.get_ssl_mode() == tokio_postgres::config::SslMode::Require;
    match told {
        None if requires => ClientTls::new(SslMode::Require, None).map(Some),
        told => Ok(told),
    }
}

/// Encrypts towards whoever answers.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

/// Encrypts towards who is vouched for.
#[derive(Debug)]
struct Verified {
    inner: Arc<WebPkiServerVerifier>,
    /// A certificate that signs itself vouches for itself, though the library takes it for an authority only.
    roots: Vec<CertificateDer<'static>>,
    checks_name: bool,
}

impl Verified {
    fn new(file: &Path, mode: SslMode, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let wrong = |reason: String| TlsError::Roots {
            file: file.to_owned(),
            reason,
        };
        let roots = read_certificates(file).map_err(wrong)?;
        let mut store = RootCertStore::empty();
        for root in &roots {
            store
                .add(root.clone())
                .map_err(|error| wrong(error.to_string()))?;
        }
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Verified {
            inner,
            roots,
            checks_name: mode == SslMode::VerifyFull,
        })
    }
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// Why there are none, for people.
pub fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| error.to_string())?;
    match certificates.is_empty() {
        true => Err("there is no certificate in it".to_owned()),
        false => Ok(certificates),
    }
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        if self.roots.contains(end_entity) {
            if self.checks_name {
                let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match verified {
            // The name is looked at last: everything else was right.
            Err(RustlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.checks_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.inner
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.inner
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
