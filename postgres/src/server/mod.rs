//! A throw-away PostgreSQL for the demo and for tests: found or installed, started on a free port of
//! 127.0.0.1, and gone without a trace afterwards.
//!
//! It knows nothing of what runs on the server. Never for data that anyone wants to keep: writes are
//! not flushed to disk.
//!
//! Life of a server: `binaries` finds PostgreSQL (or `install` fetches it), `directory` makes a
//! directory that the `account` the server runs as can use, `cluster` runs initdb and writes the
//! settings, `process` starts the server and waits until it is ready, and `watchdog` cleans up
//! should this process be killed.

mod account;
mod binaries;
mod cluster;
mod directory;
mod install;
mod options;
mod process;
mod watchdog;

use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;
use tokio_postgres::Config;

pub use binaries::{Binaries, VERSION_MIN};
pub use options::{Authentication, InstallPolicy, Progress, ServerOptions, Shutdown};

use account::Account;
use directory::ServerDirectory;
use process::Postmaster;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No PostgreSQL that is new enough, and none could or should be installed.
    #[error("no PostgreSQL {VERSION_MIN} or newer was found{detail}; {advice}", detail = found_instead(.found))]
    NotFound {
        /// Binaries that were found but are too old, if any.
        found: Option<Binaries>,
        /// What to do about it on this system.
        advice: String,
    },
    /// `PGSTAR_PG_BIN` names a directory that does not do.
    #[error("PGSTAR_PG_BIN is set to \"{}\", but {reason}", .directory.display())]
    BadBinDirectory {
        /// What the variable says.
        directory: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The package manager failed.
    #[error("installing PostgreSQL with \"{command}\" failed: {reason}; {advice}")]
    Install {
        /// What was run.
        command: String,
        /// The end of what it printed.
        reason: String,
        /// What to do by hand.
        advice: String,
    },
    /// This process is root, and there is no other user whom PostgreSQL would run as.
    #[error(
        "PostgreSQL does not run as root, and /etc/passwd has neither \"postgres\" nor \"nobody\""
    )]
    NoUnprivilegedUser,
    /// No directory for temporary files can be used by the user the server runs as.
    #[error("user \"{user}\" cannot use any of the directories for temporary files: {tried}")]
    NoDirectory {
        /// Whom the server would run as.
        user: String,
        /// The directories that were tried.
        tried: String,
    },
    /// A program of PostgreSQL's said no.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The end of what it printed.
        output: String,
    },
    /// The server ended, or was not ready in time.
    #[error("PostgreSQL {what}; the end of its log:\n{log_tail}")]
    NotReady {
        /// What happened, to follow "PostgreSQL".
        what: String,
        /// The last lines of the server's log.
        log_tail: String,
    },
    /// The operating system said no.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program is shutting down.
    #[error("the program ended before PostgreSQL was started")]
    Interrupted,
}

impl ServerError {
    fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| ServerError::Io { doing, source }
    }
}

fn found_instead(found: &Option<Binaries>) -> String {
    match found {
        Some(old) => format!(
            " (only version {} in {})",
            old.version(),
            old.directory().display()
        ),
        None => String::new(),
    }
}

/// A running throw-away server. Dropping it kills the server and removes its directory.
#[derive(Debug)]
pub struct Server {
    // Fields are dropped in this order: first the processes, then their directory.
    postmaster: Postmaster,
    directory: ServerDirectory,
    binaries: Binaries,
    user: String,
    password: Option<String>,
}

impl Server {
    /// Starts a server and waits until it accepts connections.
    ///
    /// Blocking work happens on tokio's threads for that. When this future is dropped half-way, the
    /// server is stopped as soon as it has started.
    pub async fn start(options: ServerOptions) -> Result<Server, ServerError> {
        let started = spawn_blocking(move || Server::start_blocking(options)).await;
        started.unwrap_or(Err(ServerError::Interrupted))
    }

    fn start_blocking(options: ServerOptions) -> Result<Server, ServerError> {
        let binaries = binaries::find_or_install(&options)?;
        let account = Account::for_server()?;
        let directory = ServerDirectory::create(&account)?;
        cluster::initialize(&binaries, &account, &directory, &options)?;
        let postmaster = Postmaster::start(&binaries, &account, &directory, options.start_timeout)?;
        let password = options.authentication.password().map(str::to_owned);
        Ok(Server {
            postmaster,
            directory,
            binaries,
            user: options.user,
            password,
        })
    }

    /// How to connect to `database` as the superuser, over TCP.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host("127.0.0.1")
            .port(self.port())
            .user(&self.user)
            .dbname(database);
        if let Some(password) = &self.password {
            config.password(password);
        }
        config
    }

    /// The same as a URL, the password included.
    pub fn url(&self, database: &str) -> String {
        let encode = options::percent_encode;
        let password = self
            .password
            .as_deref()
            .map(|password| format!(":{}", encode(password)));
        let user = encode(&self.user) + &password.unwrap_or_default();
        format!(
            "postgresql://{user}@127.0.0.1:{}/{}",
            self.port(),
            encode(database)
        )
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.postmaster.port()
    }

    /// The directory of the unix socket.
    pub fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    /// The directory of `postgres`, `initdb` and usually `psql` and `pgbench`.
    pub fn bin_dir(&self) -> &Path {
        self.binaries.directory()
    }

    /// The major version, for example 15.
    pub fn version(&self) -> u32 {
        self.binaries.version()
    }

    /// The process number of the server.
    pub fn pid(&self) -> u32 {
        self.postmaster.pid()
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        self.directory.log()
    }

    /// Shuts the server down, ending every session, and starts it again on the same port.
    pub async fn restart(self, shutdown: Shutdown) -> Result<Server, ServerError> {
        self.restart_after(shutdown, |_| ()).await
    }

    /// The same, with something done to its data directory in between.
    pub async fn restart_after(
        self,
        shutdown: Shutdown,
        between: impl FnOnce(&Path) + Send + 'static,
    ) -> Result<Server, ServerError> {
        let restarted = spawn_blocking(move || {
            let mut server = self;
            let account = Account::for_server()?;
            let timeout = ServerOptions::default().start_timeout;
            server
                .postmaster
                .end(shutdown.signal(), &server.directory)?;
            between(&server.directory.data());
            server.postmaster.start_again(
                &server.binaries,
                &account,
                &server.directory,
                timeout,
            )?;
            Ok(server)
        });
        restarted.await.unwrap_or(Err(ServerError::Interrupted))
    }

    /// Shuts the server down, ending every session, and removes its directory.
    pub async fn stop(self) -> Result<(), ServerError> {
        let stopped = spawn_blocking(move || {
            let Server {
                mut postmaster,
                directory,
                ..
            } = self;
            postmaster.stop()?;
            drop(postmaster);
            directory.remove()
        });
        stopped.await.unwrap_or(Err(ServerError::Interrupted))
    }
}
