//! `pgstar serve`: binds, reads the database, serves, reloads and drains.
//!
//! Knows the parts and the order in which they start and stop, and nothing of what they do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pgstar_postgres::rollups::BuildProgress;
use pgstar_postgres::tls::{ClientTls, SslMode};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::admin::{Admin, Condition, Readiness};
use crate::auditor::keep_auditing;
use crate::config::{Auth, Certificates, Config, Encryption, Problems, UpstreamAddress};
use crate::descriptors;
use crate::failure::{BindError, Failure};
use crate::follower::Unknown;
use crate::listener;
use crate::misfit;
use crate::pool::{Accounts, CancelKeys, Pool, SWEEP_PERIOD};
use crate::route::Router;
use crate::session::{Limits, Logins, ProxyHeader, Shared, Upstream};
use crate::telemetry;
use crate::tls::{Acceptor, TlsSettings};
use crate::warehouse::Warehouse;

/// How often gauges that nobody pushes are brought up to date.
const GAUGE_PERIOD: Duration = Duration::from_secs(5);

/// A proxy that accepts sessions. Dropping it ends its tasks at once; `stop` drains.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    warehouse: Arc<Warehouse>,
    router: Arc<Router>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    sessions: JoinHandle<()>,
    upkeep: Vec<JoinHandle<()>>,
}

/// Runs the proxy until SIGTERM or Ctrl-C.
///
/// # Errors
/// An address in use, or a server that cannot be reached.
pub async fn run(config: Config) -> Result<(), Failure> {
    let (mut terminate, mut interrupt, mut hangup) = signals()?;
    descriptors::raise_limit(config.limits.connections);
    let proxy = Proxy::start(&config).await?;
    proxy.keep_rollups();
    let mut running = config;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => running = proxy.reload(running).await,
        }
    }
    proxy.stop().await;
    info!("Stopped.");
    Ok(())
}

type Signal = tokio::signal::unix::Signal;

fn signals() -> Result<(Signal, Signal, Signal), Failure> {
    let listen =
        |kind| signal(kind).map_err(|error| Failure::while_doing("listen for signals", error));
    Ok((
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
        listen(SignalKind::hangup())?,
    ))
}

impl Proxy {
    /// Binds, reads the catalog, and accepts sessions. Rollups that are there answer from the first
    /// statement on; missing ones are built by `keep_rollups` or the caller.
    ///
    /// # Errors
    /// As `run`; nothing is left running.
    pub async fn start(config: &Config) -> Result<Proxy, Failure> {
        telemetry::install();
        let listener = bind(config.listen).await?;
        let address = listener
            .local_addr()
            .map_err(|error| BindError::new("[listen] address", config.listen, error))?;
        let admin = match config.admin {
            Some(address) => Some(Admin::bind(address).await?),
            None => None,
        };
        let tls = match &config.tls {
            Some(settings) => Some(load_certificate(settings)?),
            None => None,
        };
        let (warehouse, misfits) = read_warehouse(config).await?;
        if let Some(misfits) = misfits {
            error!("Rollups that do not fit the database are left out until they do:\n{misfits}");
        }
        let router = Arc::new(Router::new(
            Arc::clone(&warehouse),
            config.cache,
            config.freshness,
        ));
        let mut shared = Shared::new(upstream(config)?, Arc::clone(&router), limits(config));
        if let Some(tls) = tls {
            shared = shared.with_tls(tls);
        }
        let shared = Arc::new(shared);
        shared.set_logins(logins(config, &shared.cancels).await?);
        let (stop, stopped) = watch::channel(false);
        warehouse.follower().begin();
        let (following, guarding) = (Arc::clone(&warehouse), Arc::clone(&warehouse));
        let mut upkeep = vec![
            tokio::spawn(keep_gauges(Arc::clone(&router))),
            tokio::spawn(async move { following.follower().keep().await }),
            tokio::spawn(async move { guarding.keep_guard().await }),
            tokio::spawn(keep_pool(Arc::clone(&shared))),
        ];
        if let Some(interval) = config.freshness.audit {
            let audited = Arc::clone(&warehouse);
            upkeep.push(tokio::spawn(keep_auditing(audited, interval)));
        }
        let mut proxy = Proxy {
            address,
            warehouse,
            router,
            shared: Arc::clone(&shared),
            stop,
            sessions: tokio::spawn(async {}),
            upkeep,
        };
        if let Some(admin) = admin {
            proxy.upkeep.push(proxy.serve_admin(admin, stopped.clone()));
        }
        proxy.sessions =
            tokio::spawn(
                async move { listener::serve(listener, shared, until_stopped(stopped)).await },
            );
        info!(%address, upstream = %config.upstream, rollups = config.rollups.len(), "Accepting connections.");
        Ok(proxy)
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What logins need that pgstar checks itself; `None` where PostgreSQL checks all of them.
    pub fn pool(&self) -> Option<Arc<Pool>> {
        self.shared.logins().pool.clone()
    }

    /// The database behind it.
    pub fn warehouse(&self) -> &Arc<Warehouse> {
        &self.warehouse
    }

    /// Builds missing rollups and follows the catalog in the background until the proxy is dropped.
    pub fn keep_rollups(&self) {
        let warehouse = Arc::clone(&self.warehouse);
        let keep = tokio::spawn(async move { warehouse.keep_current(&log_progress).await });
        // Ends with the process or with this handle's abort; see `Drop`.
        self.detach(keep);
    }

    fn detach(&self, task: JoinHandle<()>) {
        let stopped = self.stop.subscribe();
        let guard = async move {
            until_stopped(stopped).await;
            task.abort();
        };
        tokio::spawn(guard);
    }

    fn serve_admin(&self, admin: Admin, stopped: watch::Receiver<bool>) -> JoinHandle<()> {
        let readiness = Readiness::new();
        readiness.met(Condition::Upstream);
        readiness.met(Condition::Rollups);
        info!(address = %admin.address(), "Serving /metrics, /healthz and /readyz.");
        let watching = watch_upstream(Arc::clone(&self.warehouse), readiness.clone());
        tokio::spawn(async move {
            tokio::select! {
                served = admin.serve(readiness, until_stopped(stopped)) => {
                    if let Err(error) = served {
                        error!(%error, "The admin pages ended.");
                    }
                }
                () = watching => {}
            }
        })
    }

    /// Reads the file again. Rollups and logins follow it at once; the rest needs a restart, and is said to. What runs from
    /// now on.
    async fn reload(&self, running: Config) -> Config {
        let reloaded = match Config::from_file(&running.file) {
            Ok(reloaded) => reloaded,
            Err(problems) => {
                error!("The configuration was not reloaded:\n{problems}");
                return running;
            }
        };
        let needs_restart = needs_restart(&running, &reloaded);
        if !needs_restart.is_empty() {
            let sections = needs_restart.join(", ");
            warn!(
                sections,
                "These sections have changed and need a restart; [auth], [pool] and [[rollup]] do not."
            );
        }
        info!(rollups = reloaded.rollups.len(), "Reloading.");
        if let Some(Err(error)) = self.shared.tls.as_ref().map(|tls| tls.reload()) {
            error!(%error, "The certificate was not read again; the one before stays in use.");
        }
        self.warehouse.declare(reloaded.rollups.clone());
        self.router.forget();
        let has_new_logins = self.reload_logins(&running, &reloaded).await;
        let logins = if has_new_logins { &reloaded } else { &running };
        Config {
            auth: logins.auth.clone(),
            certificates: logins.certificates,
            pool: reloaded.pool,
            rollups: reloaded.rollups,
            ..running
        }
    }

    /// Whether logins are as the new configuration says.
    async fn reload_logins(&self, running: &Config, reloaded: &Config) -> bool {
        let before = self.shared.logins();
        let is_same =
            (&reloaded.auth, reloaded.certificates) == (&running.auth, running.certificates);
        if is_same {
            if let Some(pool) = &before.pool {
                pool.warm.set_limits(reloaded.pool);
                pool.warm.sweep();
            }
            return true;
        }
        let has_authority = |tls: &TlsSettings| tls.client_ca.is_some();
        let shows_names = running.tls.as_ref().is_some_and(has_authority);
        if reloaded.certificates != Certificates::Ignore && !shows_names {
            error!(
                "[auth] was not reloaded: [listen] tls_client_ca, which it needs, needs a restart."
            );
            return false;
        }
        // What the new logins need of [listen] and [upstream] is what runs, not what the file says.
        let effective = Config {
            auth: reloaded.auth.clone(),
            certificates: reloaded.certificates,
            pool: reloaded.pool,
            ..running.clone()
        };
        match logins(&effective, &self.shared.cancels).await {
            Ok(logins) => {
                self.shared.set_logins(logins);
                if let Some(pool) = &before.pool {
                    pool.close();
                }
                info!("Clients log in as [auth] says now.");
                true
            }
            Err(failure) => {
                let report = failure.report();
                error!("[auth] was not reloaded; logins go on as before:\n{report}");
                false
            }
        }
    }

    /// Stops accepting, lets sessions finish within the drain timeout, and ends everything.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Err(error) = (&mut self.sessions).await {
            error!(%error, "Sessions ended badly.");
        }
        self.upkeep.iter().for_each(JoinHandle::abort);
        self.warehouse.follower().end().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.sessions.abort();
        self.upkeep.iter().for_each(JoinHandle::abort);
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address)
        .await
        .map_err(|error| BindError::new("[listen] address", address, error))
}

/// The database with its catalog read, all rollups fitting.
pub(crate) async fn open_warehouse(config: &Config) -> Result<Arc<Warehouse>, Failure> {
    match read_warehouse(config).await? {
        (_, Some(misfits)) => Err(Failure::Mismatch(misfits)),
        (warehouse, None) => Ok(warehouse),
    }
}

/// The database and what is known of it, and the rollups that do not fit it.
async fn read_warehouse(config: &Config) -> Result<(Arc<Warehouse>, Option<Problems>), Failure> {
    if let Some(tls) = client_tls(config)? {
        pgstar_postgres::tls::encrypt(config.upstream.connection(), tls);
    }
    let reading = || format!("read the catalog of {}", config.upstream);
    let connection = config.upstream.connection();
    let others_max = config.cache.followed_tables;
    let warehouse = Warehouse::new(connection, config.rollups.clone(), others_max)
        .map_err(|error| Failure::while_doing(reading(), error))?;
    let misfits = warehouse
        .refresh()
        .await
        .map_err(|error| Failure::while_doing(reading(), error))?;
    let problems = misfit::problems(config, &misfits, &warehouse.snapshot());
    Ok((Arc::new(warehouse), problems))
}

/// The sections that differ and that nothing follows without a restart.
fn needs_restart(running: &Config, reloaded: &Config) -> Vec<&'static str> {
    let is_other = [
        (
            "[listen]",
            reloaded.listen != running.listen
                || reloaded.proxy_protocol != running.proxy_protocol
                || reloaded.tls != running.tls,
        ),
        ("[upstream]", reloaded.upstream != running.upstream),
        ("[admin]", reloaded.admin != running.admin),
        ("[cache]", reloaded.cache != running.cache),
        ("[freshness]", reloaded.freshness != running.freshness),
        ("[limits]", reloaded.limits != running.limits),
    ];
    let others = is_other.iter().filter(|(_, is_other)| *is_other);
    others.map(|(section, _)| *section).collect()
}

/// How clients log in, tried out.
async fn logins(config: &Config, cancels: &Arc<CancelKeys>) -> Result<Logins, Failure> {
    Ok(Logins {
        pool: open_pool(config, cancels).await?,
        certificates: config.certificates,
    })
}

/// What logins need that pgstar checks itself, tried out; `None` where PostgreSQL checks all of them.
pub(crate) async fn open_pool(
    config: &Config,
    cancels: &Arc<CancelKeys>,
) -> Result<Option<Arc<Pool>>, Failure> {
    let Auth::Scram(source) = &config.auth else {
        return Ok(None);
    };
    let looking_up = || "look up users for [auth] method = \"scram\"";
    let accounts = Accounts::new(config.upstream.connection(), source.clone())
        .map_err(|error| Failure::while_doing(looking_up(), error))?;
    accounts
        .try_out()
        .await
        .map_err(|error| Failure::while_doing(looking_up(), error))?;
    let pool = Pool::new(accounts, config.pool, Arc::clone(cancels));
    Ok(Some(Arc::new(pool)))
}

fn upstream(config: &Config) -> Result<Upstream, Failure> {
    let upstream = match config.upstream.address() {
        UpstreamAddress::Tcp { host, port } => Upstream::new(host, *port),
        UpstreamAddress::Unix { directory, port } => {
            Upstream::new(&directory.to_string_lossy(), *port)
        }
    };
    Ok(upstream.with_tls(client_tls(config)?))
}

/// How connections to the server are encrypted; `None` for not at all.
fn client_tls(config: &Config) -> Result<Option<ClientTls>, Failure> {
    let Encryption { mode, files } = config.upstream.encryption();
    let is_local = matches!(config.upstream.address(), UpstreamAddress::Unix { .. });
    if *mode == SslMode::Disable || is_local {
        return Ok(None);
    }
    let tls = ClientTls::new(*mode, files);
    tls.map(Some)
        .map_err(|error| Failure::while_doing("set up TLS to PostgreSQL", error))
}

pub(crate) fn load_certificate(settings: &TlsSettings) -> Result<Arc<Acceptor>, Failure> {
    let loaded = Acceptor::load(settings.clone());
    loaded
        .map(Arc::new)
        .map_err(|error| Failure::while_doing("set up TLS for clients", error))
}

fn limits(config: &Config) -> Limits {
    Limits {
        connections_max: config.limits.connections,
        connections_per_user_max: config.limits.connections_per_user,
        proxy_header: match config.proxy_protocol {
            true => ProxyHeader::Required,
            false => ProxyHeader::Absent,
        },
        idle_max: config.limits.idle_timeout,
        statement_bytes_max: usize::try_from(config.limits.statement.bytes()).unwrap_or(usize::MAX),
        startup_timeout: config.limits.login_timeout,
        drain_timeout: config.limits.drain_timeout,
        ..Limits::default()
    }
}

async fn until_stopped(mut stopped: watch::Receiver<bool>) {
    // An error means that the proxy itself is gone, which is a stop too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Lets go of idle backends that died or waited too long.
async fn keep_pool(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(SWEEP_PERIOD).await;
        if let Some(pool) = &shared.logins().pool {
            pool.warm.sweep();
        }
    }
}

async fn keep_gauges(router: Arc<Router>) {
    loop {
        router.tell_metrics();
        tokio::time::sleep(GAUGE_PERIOD).await;
    }
}

async fn watch_upstream(warehouse: Arc<Warehouse>, readiness: Readiness) {
    loop {
        let followed = match warehouse.follower().state() {
            Err(Unknown::Unproven(why) | Unknown::Aside(why)) => Err(why),
            Ok(()) | Err(Unknown::Changed(_)) => Ok(()),
        };
        readiness.followed(followed);
        tokio::time::sleep(GAUGE_PERIOD).await;
        match warehouse.connector().shared().await {
            Ok(_) => readiness.met(Condition::Upstream),
            Err(error) => readiness.unmet(Condition::Upstream, error.to_string()),
        }
    }
}

fn log_progress(rollup: &str, progress: BuildProgress) {
    match progress {
        BuildProgress::Waiting { holder } => info!(rollup, holder, "Waiting for another build."),
        BuildProgress::Scanning { elapsed, from } if elapsed.as_secs() == 0 => {
            info!(rollup, from, "Building.");
        }
        BuildProgress::Scanning { elapsed, from } if elapsed.as_secs().is_multiple_of(30) => {
            let seconds = elapsed.as_secs();
            info!(rollup, from, seconds, "Still building.");
        }
        // It is told where it is built, also when it is built again.
        BuildProgress::Scanning { .. } | BuildProgress::Part { .. } => {}
        BuildProgress::Analyzing => info!(rollup, "Gathering statistics."),
        BuildProgress::Indexing { column } => info!(rollup, column, "Indexing."),
        BuildProgress::Done { rows } => info!(rollup, rows, "Built."),
    }
}
