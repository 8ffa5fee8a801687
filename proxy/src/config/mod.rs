//! The configuration file: read once at the edge into values that cannot be wrong.
//!
//! Two stages: `shape` is what the user typed, judged by the list in `keys`; [`Config`] is what was
//! checked. Both report into one list, so the user sees every problem at once. Nothing here
//! connects to anything.

mod encryption;
pub mod keys;
mod problem;
mod rollup;
mod shape;
mod upstream;
mod value;

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub(crate) use problem::did_you_mean;
pub use problem::{Complaint, Position, Problem, Problems};
use rollup::FloatPolicy;
pub use rollup::{ROLLUP_NAME_BYTES_MAX, RollupConfig, RollupName};
pub use upstream::{Encryption, Upstream, UpstreamAddress};
pub use value::{ByteSize, Freshness, Timespan};

use shape::{Document, Findings, Table};
use value::{AdminAddress, AuthMethod, IdleTimeout, ListenAddress, Switch, TlsDemand};

use crate::pool::{PoolLimits, VerifierSource};
use crate::tls::TlsSettings;

/// The largest file that is read: room for some ten thousand rollups.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Everything that pgstar was told, checked. See [`keys::SECTIONS`] for what each key means.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file, as the user named it.
    pub file: PathBuf,
    /// `[listen] address`: where clients connect.
    pub listen: SocketAddr,
    /// `[listen] proxy_protocol`: whether a load balancer's header begins every connection.
    pub proxy_protocol: bool,
    /// `[listen] tls…`: the certificate for clients, if there is one.
    pub tls: Option<TlsSettings>,
    /// `[upstream] url`: the server behind pgstar.
    pub upstream: Upstream,
    /// `[auth]`: who checks passwords.
    pub auth: Auth,
    /// `[auth] certificates`.
    pub certificates: Certificates,
    /// `[pool]`: backends that wait for sessions.
    pub pool: PoolLimits,
    /// `[admin] address`: where metrics and health are served; `None` for nowhere.
    pub admin: Option<SocketAddr>,
    /// `[cache]`.
    pub cache: CacheConfig,
    /// `[freshness]`.
    pub freshness: FreshnessConfig,
    /// `[limits]`.
    pub limits: Limits,
    /// `[[rollup]]`, in the file's order, all names different.
    pub rollups: Vec<RollupConfig>,
}

/// `[auth]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// PostgreSQL does.
    Relay,
    /// pgstar does, by SCRAM-SHA-256.
    Scram(VerifierSource),
}

/// What the name in a client's certificate has to do with its login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificates {
    /// Nothing.
    Ignore,
    /// It must be the user's, whatever else the login takes.
    Match,
    /// If it is the user's, nothing else is asked for; it must be.
    LogIn,
}

/// `[cache]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheConfig {
    /// The most memory that stored answers may take; 0 stores none.
    pub memory: ByteSize,
    /// The largest answer worth storing, at most `memory`.
    pub max_answer: ByteSize,
    /// The most tables, beside those of rollups, that are followed so that answers can be kept.
    pub followed_tables: usize,
}

/// `[freshness]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreshnessConfig {
    /// What holds for a session that has not set `pgstar.freshness`.
    pub default: Freshness,
    /// How long a statement may wait for a proof; longer than zero.
    pub deadline: Duration,
    /// How often a range of a rollup is computed again and compared, longer than zero; `None` for never.
    pub audit: Option<Duration>,
}

/// `[limits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most client sessions at a time, at least 1.
    pub connections: usize,
    /// The most sessions of one user at a time; `None` for no bound of its own.
    pub connections_per_user: Option<usize>,
    /// The longest statement that is considered for a rollup or the cache.
    pub statement: ByteSize,
    /// From a client's connection until it is logged in; longer than zero.
    pub login_timeout: Duration,
    /// How long a session may be idle outside a transaction, longer than zero; `None` for ever.
    pub idle_timeout: Option<Duration>,
    /// How long sessions may finish after SIGTERM; may be zero.
    pub drain_timeout: Duration,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// Every problem of the file at once.
    pub fn from_file(file: &Path) -> Result<Config, Problems> {
        let text = read_bounded(file).map_err(|message| Problems::unreadable(file, message))?;
        Config::from_text(file, &text)
    }

    /// Checks the text of a file; the file itself is only named in problems.
    ///
    /// # Errors
    /// Every problem of the text at once.
    pub fn from_text(file: &Path, text: &str) -> Result<Config, Problems> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut findings = Findings::new(file, text);
        let config = findings.parse().and_then(|document| {
            document.check_shape(&mut findings);
            checked(file, &document, &mut findings)
        });
        findings.conclude(config)
    }

    /// A problem found later, such as a rollup that does not fit the database.
    pub fn problem(&self, position: Position, complaint: Complaint) -> Problem {
        let Complaint { message, hint } = complaint;
        Problem {
            file: self.file.clone(),
            position: Some(position),
            message,
            hint,
        }
    }
}

fn read_bounded(file: &Path) -> Result<String, String> {
    let cannot_read = |error| format!("cannot read the configuration file: {error}");
    let opened = File::open(file).map_err(cannot_read)?;
    let mut bytes = Vec::new();
    opened
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot_read)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!(
            "the configuration file is larger than {}",
            ByteSize(FILE_BYTES_MAX)
        ));
    }
    String::from_utf8(bytes).map_err(|_| "the configuration file is not UTF-8 text".to_owned())
}

fn checked(file: &Path, document: &Document<'_>, findings: &mut Findings<'_>) -> Option<Config> {
    let upstream = upstream(&document.table("upstream"), findings);
    let (listen, admin) = addresses(document, findings);
    let Switch(proxy_protocol) = read(
        &document.table("listen"),
        "proxy_protocol",
        Switch(false),
        findings,
    );
    let tls = tls(file, &document.table("listen"), findings);
    let auth_table = document.table("auth");
    let auth = auth(file, &auth_table, findings);
    let certificates = certificates(&auth_table, tls.as_ref(), &auth, findings);
    let pool = pool(&document.table("pool"), findings);
    let cache = cache(&document.table("cache"), findings);
    let freshness = freshness(&document.table("freshness"), findings);
    let limits = limits(&document.table("limits"), findings);
    let rollups = rollups(document, findings);
    let file = file.to_path_buf();
    Some(Config {
        file,
        listen,
        proxy_protocol,
        tls,
        upstream: upstream?,
        auth,
        certificates,
        pool,
        admin,
        cache,
        freshness,
        limits,
        rollups,
    })
}

fn upstream(table: &Table<'_, '_>, findings: &mut Findings<'_>) -> Option<Upstream> {
    read_typed(table, "url", findings).map(|(upstream, _)| upstream)
}

fn addresses(
    document: &Document<'_>,
    findings: &mut Findings<'_>,
) -> (SocketAddr, Option<SocketAddr>) {
    const LISTEN: SocketAddr = SocketAddr::new(LOCALHOST, 6432);
    const ADMIN: SocketAddr = SocketAddr::new(LOCALHOST, 9632);
    const LOCALHOST: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    let (listen_table, admin_table) = (document.table("listen"), document.table("admin"));
    let ListenAddress(listen) = read(&listen_table, "address", ListenAddress(LISTEN), findings);
    let AdminAddress(admin) = read(&admin_table, "address", AdminAddress(Some(ADMIN)), findings);
    // Port 0 lets the system choose, so two of them do not collide.
    let collide = admin == Some(listen) && listen.port() != 0;
    if collide {
        let typed = admin_table
            .text("address")
            .or_else(|| listen_table.text("address"));
        let offset = typed.map_or(0, |(_, span)| span.start);
        let message = format!("[admin] address and [listen] address are both {listen}");
        findings.report(
            offset,
            Complaint::new(message, "Give each a port of its own."),
        );
    }
    (listen, admin)
}

fn tls(file: &Path, table: &Table<'_, '_>, findings: &mut Findings<'_>) -> Option<TlsSettings> {
    // As the configuration's own name, these are relative to where it is.
    let path = |key| {
        let (name, span) = table.text(key).filter(|(name, _)| !name.is_empty())?;
        Some((file.parent().unwrap_or(Path::new("")).join(name), span))
    };
    let demand = read(table, "tls", TlsDemand::Allow, findings);
    let client_ca = path("tls_client_ca");
    // Who can do without TLS needs no certificate.
    let is_required = demand == TlsDemand::Require || client_ca.is_some();
    match (path("tls_certificate"), path("tls_key")) {
        (Some((certificate, _)), Some((key, _))) => Some(TlsSettings {
            certificate,
            key,
            client_ca: client_ca.map(|(file, _)| file),
            is_required,
        }),
        (None, None) if !is_required => None,
        (certificate, key) => {
            let spans = [certificate, key, client_ca].into_iter().flatten();
            let offset = spans
                .map(|(_, span)| span.start)
                .chain(table.text("tls").map(|(_, span)| span.start))
                .min();
            let message =
                "TLS for clients needs both [listen] tls_certificate and [listen] tls_key";
            findings.report(
                offset.unwrap_or_default(),
                Complaint::new(
                    message,
                    "Name the two PEM files, or leave out all keys that begin with tls.",
                ),
            );
            None
        }
    }
}

fn auth(file: &Path, table: &Table<'_, '_>, findings: &mut Findings<'_>) -> Auth {
    let query = table.text("query").map(|(query, _)| query);
    let users = table.text("users").filter(|(users, _)| !users.is_empty());
    if let (Some(_), Some((_, span))) = (query, &users) {
        let message = "[auth] query and [auth] users are both given";
        findings.report(
            span.start,
            Complaint::new(
                message,
                "Verifiers come from one of them; leave the other out.",
            ),
        );
    }
    let source = match users {
        // As the file's own name, it is relative to where the configuration is.
        Some((users, _)) => {
            VerifierSource::File(file.parent().unwrap_or(Path::new("")).join(users))
        }
        None => VerifierSource::Query(query.unwrap_or(VerifierSource::DEFAULT_QUERY).to_owned()),
    };
    match read(table, "method", AuthMethod::Relay, findings) {
        AuthMethod::Relay => Auth::Relay,
        AuthMethod::Scram => Auth::Scram(source),
    }
}

fn certificates(
    table: &Table<'_, '_>,
    tls: Option<&TlsSettings>,
    auth: &Auth,
    findings: &mut Findings<'_>,
) -> Certificates {
    let certificates = read(table, "certificates", Certificates::Ignore, findings);
    let has_authority = tls.is_some_and(|tls| tls.client_ca.is_some());
    let complaint = match (certificates, auth) {
        (Certificates::Ignore, _) => return certificates,
        (Certificates::LogIn, Auth::Relay) => Complaint::new(
            "[auth] certificates = \"login\" needs [auth] method = \"scram\"",
            "PostgreSQL does not see clients' certificates, and would ask for the password.",
        ),
        _ if !has_authority => Complaint::new(
            "[auth] certificates needs [listen] tls_client_ca",
            "Without it clients show no certificate.",
        ),
        _ => return certificates,
    };
    let offset = table.text("certificates").map_or(0, |(_, span)| span.start);
    findings.report(offset, complaint);
    certificates
}

fn pool(table: &Table<'_, '_>, findings: &mut Findings<'_>) -> PoolLimits {
    const WAIT_RANGE: RangeInclusive<Timespan> =
        Timespan(Duration::from_millis(1))..=Timespan::seconds(86_400);
    const BACKENDS: u32 = 50;
    const RANGE: RangeInclusive<u32> = 0..=100_000;
    let (five_minutes, hour) = (Timespan::seconds(300), Timespan::seconds(3600));
    PoolLimits {
        backends_max: read_count(table, "backends", BACKENDS, RANGE, findings),
        per_user_max: read_count(table, "per_user", BACKENDS, RANGE, findings),
        idle_max: read_within(table, "idle_timeout", five_minutes, WAIT_RANGE, findings).0,
        age_max: read_within(table, "max_age", hour, WAIT_RANGE, findings).0,
    }
}

fn cache(table: &Table<'_, '_>, findings: &mut Findings<'_>) -> CacheConfig {
    const MAX_ANSWER_RANGE: RangeInclusive<ByteSize> = ByteSize(1)..=ByteSize::gib(1);
    let memory = read(table, "memory", ByteSize::mib(512), findings);
    let max_answer = read_within(
        table,
        "max_answer",
        ByteSize::mib(16),
        MAX_ANSWER_RANGE,
        findings,
    );
    let followed_tables = read_count(table, "followed_tables", 64, 0..=1000, findings);
    CacheConfig {
        memory,
        max_answer: max_answer.min(memory),
        followed_tables,
    }
}

fn freshness(table: &Table<'_, '_>, findings: &mut Findings<'_>) -> FreshnessConfig {
    const AUDIT: Duration = Duration::from_secs(600);
    const DEADLINE: Timespan = Timespan(Duration::from_millis(500));
    const DEADLINE_RANGE: RangeInclusive<Timespan> =
        Timespan(Duration::from_millis(1))..=Timespan::seconds(60);
    FreshnessConfig {
        default: read(table, "default", Freshness::Strict, findings),
        deadline: read_within(table, "deadline", DEADLINE, DEADLINE_RANGE, findings).0,
        audit: read(table, "audit", IdleTimeout(Some(AUDIT)), findings).0,
    }
}

fn limits(table: &Table<'_, '_>, findings: &mut Findings<'_>) -> Limits {
    const STATEMENT_RANGE: RangeInclusive<ByteSize> = ByteSize::kib(1)..=ByteSize::gib(1);
    const LOGIN_RANGE: RangeInclusive<Timespan> =
        Timespan(Duration::from_millis(1))..=Timespan::seconds(3600);
    const DRAIN_RANGE: RangeInclusive<Timespan> = Timespan::seconds(0)..=Timespan::seconds(86_400);
    let thirty = Timespan::seconds(30);
    Limits {
        connections: connections(table, findings),
        connections_per_user: connections_per_user(table, findings),
        statement: read_within(
            table,
            "statement",
            ByteSize::mib(1),
            STATEMENT_RANGE,
            findings,
        ),
        login_timeout: read_within(table, "login_timeout", thirty, LOGIN_RANGE, findings).0,
        idle_timeout: read(table, "idle_timeout", IdleTimeout(None), findings).0,
        drain_timeout: read_within(table, "drain_timeout", thirty, DRAIN_RANGE, findings).0,
    }
}

fn connections(table: &Table<'_, '_>, findings: &mut Findings<'_>) -> usize {
    read_count(table, "connections", 1000, 1..=1_000_000, findings)
}

fn connections_per_user(table: &Table<'_, '_>, findings: &mut Findings<'_>) -> Option<usize> {
    let count = read_count(table, "connections_per_user", 0, 0..=1_000_000, findings);
    (count > 0).then_some(count)
}

/// The value of a key that is a number, or the default where it is absent or wrong; wrong ones are reported.
fn read_count(
    table: &Table<'_, '_>,
    key: &str,
    default: u32,
    range: RangeInclusive<u32>,
    findings: &mut Findings<'_>,
) -> usize {
    match table.count(key) {
        None => default as usize,
        Some((Some(count), _)) if range.contains(&count) => count as usize,
        Some((_, span)) => {
            findings.report(span.start, out_of_range(&table.path(key), &range));
            default as usize
        }
    }
}

fn rollups(document: &Document<'_>, findings: &mut Findings<'_>) -> Vec<RollupConfig> {
    let mut first_seen: HashMap<RollupName, Position> = HashMap::new();
    let mut rollups = Vec::new();
    for table in document.tables("rollup") {
        let name = read_typed::<RollupName>(&table, "name", findings);
        let query = query(&table, findings);
        if let Some((name, span)) = &name {
            check_duplicate(name, span.start, &mut first_seen, findings);
        }
        if let (Some((name, name_span)), Some((query, query_span))) = (name, query) {
            let name_position = findings.position(name_span.start);
            let IdleTimeout(refresh) = read(&table, "refresh", IdleTimeout(None), findings);
            let text = findings.text();
            let rollup = RollupConfig::new(name, name_position, query, text, query_span);
            let FloatPolicy(floats) = read(&table, "float", FloatPolicy::default(), findings);
            rollups.push(rollup.refreshed(refresh).with_floats(floats));
        }
    }
    rollups
}

fn query<'d>(
    table: &Table<'d, '_>,
    findings: &mut Findings<'_>,
) -> Option<(&'d str, Range<usize>)> {
    let (query, span) = table.text("query")?;
    if !query.trim().is_empty() {
        return Some((query, span));
    }
    let message = format!("empty query for {}", table.path("query"));
    findings.report(
        span.start,
        Complaint::new(message, "Write the SELECT that the rollup keeps."),
    );
    None
}

fn check_duplicate(
    name: &RollupName,
    offset: usize,
    first_seen: &mut HashMap<RollupName, Position>,
    findings: &mut Findings<'_>,
) {
    let position = findings.position(offset);
    if let Some(Position { line, column }) = first_seen.get(name) {
        findings.report(
            offset,
            Complaint::new(
                format!("duplicate rollup name \"{name}\""),
                format!("The first one is at line {line}, column {column}; rename one of them."),
            ),
        );
    } else {
        first_seen.insert(name.clone(), position);
    }
}

/// The value of a text key, or the default where it is absent or wrong; wrong ones are reported.
fn read<T: FromStr<Err = Complaint>>(
    table: &Table<'_, '_>,
    key: &str,
    default: T,
    findings: &mut Findings<'_>,
) -> T {
    read_typed(table, key, findings).map_or(default, |(value, _)| value)
}

/// As [`read`], for values that an interval bounds.
fn read_within<T: FromStr<Err = Complaint> + PartialOrd + Display>(
    table: &Table<'_, '_>,
    key: &str,
    default: T,
    range: RangeInclusive<T>,
    findings: &mut Findings<'_>,
) -> T {
    match read_typed(table, key, findings) {
        Some((value, span)) if !range.contains(&value) => {
            findings.report(span.start, out_of_range(&table.path(key), &range));
            default
        }
        Some((value, _)) => value,
        None => default,
    }
}

/// The value of a text key and its place; `None` where it is absent or wrong, which is reported.
fn read_typed<T: FromStr<Err = Complaint>>(
    table: &Table<'_, '_>,
    key: &str,
    findings: &mut Findings<'_>,
) -> Option<(T, Range<usize>)> {
    let (text, span) = table.text(key)?;
    match text.parse() {
        Ok(value) => Some((value, span)),
        Err(Complaint { message, hint }) => {
            let message = format!("{message} for {}", table.path(key));
            findings.report(span.start, Complaint { message, hint });
            None
        }
    }
}

fn out_of_range<T: Display>(path: &str, range: &RangeInclusive<T>) -> Complaint {
    let (start, end) = (range.start(), range.end());
    Complaint {
        message: format!("{path} must be between {start} and {end}"),
        hint: None,
    }
}
