//! What all sessions share: where PostgreSQL is, who decides, the limits, and what is counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;

use super::upstream::Upstream;
use crate::config::Certificates;
use crate::pool::{CancelKeys, Pool};
use crate::route::Router;
use crate::tls::Acceptor;

/// What every session of a listener is given.
#[derive(Debug)]
pub struct Shared<R = Router> {
    /// Where clients' sessions go.
    pub upstream: Upstream,
    /// Who decides what serves a statement.
    pub router: Arc<R>,
    pub limits: Limits,
    pub counters: Counters,
    /// How clients log in; a reload may change it for the next ones.
    logins: RwLock<Arc<Logins>>,
    /// The cancel keys of sessions on backends that outlive them.
    pub cancels: Arc<CancelKeys>,
    /// Encrypts clients' connections; `None`: requests for that are declined.
    pub tls: Option<Arc<Acceptor>>,
    /// Where timers are kept that last as long as a session does: a thread of sessions that keeps none looks at no clock
    /// before and after each sleep.
    pub(super) timers: Handle,
}

impl<R> Shared<R> {
    /// Within a runtime, which keeps the timers of all sessions.
    pub fn new(upstream: Upstream, router: Arc<R>, limits: Limits) -> Self {
        Shared {
            upstream,
            router,
            limits,
            counters: Counters::default(),
            logins: RwLock::default(),
            cancels: Arc::default(),
            tls: None,
            timers: Handle::current(),
        }
    }

    /// The same, with TLS towards clients.
    pub fn with_tls(self, tls: Arc<Acceptor>) -> Self {
        Shared {
            tls: Some(tls),
            ..self
        }
    }

    /// How the next client logs in.
    pub fn logins(&self) -> Arc<Logins> {
        Arc::clone(&self.logins.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on clients log in like this.
    pub fn set_logins(&self, logins: Logins) {
        *self.logins.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(logins);
    }
}

/// How clients log in.
#[derive(Debug)]
pub struct Logins {
    /// Checks logins and keeps backends warm; `None` where PostgreSQL does all of that.
    pub pool: Option<Arc<Pool>>,
    /// What the name in a client's certificate has to do with it.
    pub certificates: Certificates,
}

impl Default for Logins {
    fn default() -> Self {
        Logins {
            pool: None,
            certificates: Certificates::Ignore,
        }
    }
}

/// Whether a load balancer says who the client is, before the client's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    Absent,
    /// A connection that begins otherwise is closed.
    Required,
}

/// The bounds of sessions.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Sessions at a time; the next is refused with 53300.
    pub connections_max: usize,
    /// Sessions of one user at a time; `None` for no bound of its own.
    pub connections_per_user_max: Option<usize>,
    /// Whether every connection begins with a header of the PROXY protocol.
    pub proxy_header: ProxyHeader,
    /// How long a session may be idle outside a transaction; `None` for ever.
    pub idle_max: Option<Duration>,
    /// The largest statement or batch that is held to be looked at; larger ones are streamed through.
    pub statement_bytes_max: usize,
    /// How long a client may take from connecting until it is logged in.
    pub startup_timeout: Duration,
    /// How long connecting to PostgreSQL may take.
    pub connect_timeout: Duration,
    /// How long a forwarded cancel request may take.
    pub cancel_timeout: Duration,
    /// How long busy sessions may go on once a shutdown has begun.
    pub drain_timeout: Duration,
    /// How long facts of a session count as known. Only a reload of the server's configuration changes
    /// one of them without a statement of the session itself.
    pub facts_age_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 1_000,
            connections_per_user_max: None,
            proxy_header: ProxyHeader::Absent,
            idle_max: None,
            statement_bytes_max: 1024 * 1024,
            startup_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(10),
            cancel_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
            facts_age_max: Duration::from_secs(1),
        }
    }
}

/// A number that only goes up.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What sessions count; whoever publishes metrics reads these.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions that got past their start-up packet.
    pub sessions: Count,
    /// Connections refused because of `connections_max`.
    pub refused: Count,
    /// Connections whose upstream could not be reached.
    pub upstream_unreachable: Count,
    /// Cancel requests forwarded for clients.
    pub cancels: Count,
    /// Statements cancelled because their client vanished.
    pub abandoned: Count,
    /// Sessions that surprised the model and are relayed for the rest of their life.
    pub surprises: Count,
    /// Statements that were asked a route for.
    pub routed: Count,
    /// Statements answered without PostgreSQL.
    pub answered: Count,
    /// Statements answered without a wait for PostgreSQL.
    pub prompt: Count,
    /// Statements answered by a rewritten one.
    pub rewritten: Count,
    /// Rewritten statements that failed and were run as the client wrote them.
    pub fallbacks: Count,
    /// Probes for a session's facts.
    pub probes: Count,
}
