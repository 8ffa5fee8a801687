//! TLS to the server: what an `sslmode` asks for, and the handshake on a fresh connection.
//!
//! How connections are encrypted belongs to the server's address, not to who connects, so it is told once for an address
//! ([`encrypt`]) and holds for all of pgstar's own connections there. Without it, connections are plain.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
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
    /// If the server refuses to go on without.
    Allow,
    /// If the server has it; whoever it is.
    Prefer,
    /// Encrypted; whoever it is.
    Require,
    /// With a server that one of the root certificates vouches for.
    VerifyCa,
    /// With that server, under the name that was connected to.
    VerifyFull,
}

/// What a connection string says of certificates: PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFiles {
    /// Who vouches for the server.
    pub roots: Option<PathBuf>,
    /// The certificate that pgstar shows to the server, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or keys.
    #[error("cannot use {}: {reason}", .file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The library.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

impl TlsError {
    /// Makes an error of what is wrong with a file.
    pub fn of_file<E: fmt::Display>(file: &Path) -> impl Fn(E) -> TlsError {
        let file = file.to_owned();
        move |reason| TlsError::File {
            file: file.clone(),
            reason: reason.to_string(),
        }
    }
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
    /// With roots, `require` verifies as `verify-ca` does; the same in libpq.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn new(mode: SslMode, files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let setup = |error: RustlsError| TlsError::Setup(error.to_string());
        let trust = match &files.roots {
            None => None,
            Some(file) => Some(Trust::new(file, mode, Arc::clone(&provider))?),
        };
        let verifier = Verifier {
            provider: Arc::clone(&provider),
            trust,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(setup)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &files.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(read_certificates(certificate)?, read_key(key)?)
                .map_err(TlsError::of_file(key))?,
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(ClientTls {
            mode,
            config: Arc::new(config),
        })
    }

    /// The same for the second attempt of `allow`, which the server has refused to go on without.
    pub fn required(&self) -> ClientTls {
        ClientTls {
            mode: SslMode::Require,
            config: Arc::clone(&self.config),
        }
    }

    /// How much is wanted.
    pub fn mode(&self) -> SslMode {
        self.mode
    }

    /// For libraries that do the handshake themselves.
    pub fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }

    /// Asks the server for TLS on a fresh connection, and shakes hands; with `allow` the first attempt goes without.
    ///
    /// # Errors
    /// The connection, a server that has no TLS where it is a must, or one that could not be verified.
    pub async fn secure(&self, mut stream: TcpStream, host: &str) -> io::Result<Negotiated> {
        if self.mode == SslMode::Allow {
            return Ok(Negotiated::Plain(stream));
        }
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
        None if requires => ClientTls::new(SslMode::Require, &TlsFiles::default()).map(Some),
        told => Ok(told),
    }
}

/// Looks at the server's certificate.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// Without it, whoever answers will do.
    trust: Option<Trust>,
}

/// Whose word counts.
#[derive(Debug)]
struct Trust {
    inner: Arc<WebPkiServerVerifier>,
    /// A certificate that signs itself vouches for itself, though the library takes it for an authority only.
    roots: Vec<CertificateDer<'static>>,
    checks_name: bool,
}

impl Trust {
    fn new(file: &Path, mode: SslMode, provider: Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let (roots, store) = read_roots(file)?;
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider)
            .build()
            .map_err(TlsError::of_file(file))?;
        Ok(Trust {
            inner,
            roots,
            checks_name: mode == SslMode::VerifyFull,
        })
    }
}

/// The certificates in a PEM file, at least one.
///
/// # Errors
/// Why there are none.
pub fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(TlsError::of_file(file))?;
    match certificates.is_empty() {
        true => Err(TlsError::of_file(file)("there is no certificate in it")),
        false => Ok(certificates),
    }
}

/// The same as authorities, and a store of them.
///
/// # Errors
/// There are none, or one that is no authority.
pub fn read_roots(file: &Path) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), TlsError> {
    let roots = read_certificates(file)?;
    let mut store = RootCertStore::empty();
    for root in &roots {
        store.add(root.clone()).map_err(TlsError::of_file(file))?;
    }
    Ok((roots, store))
}

/// The private key in a PEM file.
///
/// # Errors
/// Why there is none.
pub fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(file).map_err(TlsError::of_file(file))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let Some(trust) = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        if trust.roots.contains(end_entity) {
            if trust.checks_name {
                let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let verified = trust.inner.verify_server_cert(
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
            )) if !trust.checks_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
