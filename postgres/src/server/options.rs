//! What a caller can choose about a throw-away server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Told what is being done, in one line each, while a server is prepared.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(&str) + Send + Sync>);

impl Progress {
    /// Calls `tell` with each line, from another thread.
    pub fn new(tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Progress(Arc::new(tell))
    }

    pub(super) fn tell(&self, line: &str) {
        tracing::info!("{line}");
        (self.0)(line);
    }
}

impl Default for Progress {
    fn default() -> Self {
        Progress::new(|_| ())
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Progress")
    }
}

/// How clients prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// Everybody on this machine is believed.
    Trust,
    /// SCRAM-SHA-256 with this password for the superuser.
    ScramSha256(String),
    /// MD5 with this password for the superuser.
    Md5(String),
}

impl Authentication {
    /// The method's name in pg_hba.conf.
    pub(super) fn method(&self) -> &'static str {
        match self {
            Authentication::Trust => "trust",
            Authentication::ScramSha256(_) => "scram-sha-256",
            Authentication::Md5(_) => "md5",
        }
    }

    pub(super) fn password(&self) -> Option<&str> {
        match self {
            Authentication::Trust => None,
            Authentication::ScramSha256(password) | Authentication::Md5(password) => Some(password),
        }
    }
}

/// How a running server is made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Ends sessions, rolls back, writes a checkpoint.
    Fast,
    /// Ends every process at once, as in a crash: the next start recovers.
    Immediate,
    /// Kills the main process, and the others end when they notice.
    Killed,
}

impl Shutdown {
    pub(super) fn signal(self) -> &'static str {
        match self {
            Shutdown::Fast => "INT",
            Shutdown::Immediate => "QUIT",
            Shutdown::Killed => "KILL",
        }
    }
}

/// Whether PostgreSQL may be installed when it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallPolicy {
    /// With the system's package manager, unless `PGSTAR_NO_INSTALL=1` is set.
    IfMissing,
    /// Fail, naming what to install.
    Never,
}

/// How to start a throw-away server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The superuser's name.
    pub user: String,
    /// How clients prove who they are.
    pub authentication: Authentication,
    /// `shared_buffers`, for example "512MB"; PostgreSQL's default when `None`.
    pub shared_buffers: Option<String>,
    /// `max_connections`; PostgreSQL's default when `None`.
    pub max_connections: Option<u32>,
    /// Whether commits wait for the write-ahead log (`synchronous_commit`).
    pub synchronous_commit: bool,
    /// More settings; they win over all the others.
    pub settings: Vec<(String, String)>,
    /// How long the server may take until it accepts connections.
    pub start_timeout: Duration,
    /// Whether PostgreSQL may be installed.
    pub install: InstallPolicy,
    /// Told what is being done.
    pub progress: Progress,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            user: "postgres".to_owned(),
            authentication: Authentication::Trust,
            shared_buffers: None,
            max_connections: None,
            synchronous_commit: true,
            settings: Vec::new(),
            start_timeout: Duration::from_secs(60),
            install: InstallPolicy::IfMissing,
            progress: Progress::default(),
        }
    }
}

/// `text` with everything but unreserved characters as %XX (RFC 3986, section 2.1).
pub(super) fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encode).collect()
}
