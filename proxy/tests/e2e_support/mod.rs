//! What the end-to-end tests share: one throw-away PostgreSQL per test binary, databases on it, pgstar in
//! front of them, and ways to ask both sides the same thing.
//!
//! It must not judge anything but that two answers are the same: the tests do.

#![allow(dead_code, unused_imports, clippy::unwrap_used)] // Not every test file needs all of it.

pub mod corpus;
#[path = "../wire_support/mod.rs"]
pub mod frames;
pub mod process;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pgstar::config::Config;
use pgstar::serve::Proxy;
use pgstar::wire;
use pgstar_loadtest::ssb;
use pgstar_postgres::server::{InstallPolicy, Server, ServerOptions};
use tokio::sync::OnceCell;

pub use frames::{Client, Frame, PATIENCE, tags};

/// A static is never dropped; the server's watchdog clears up when the test binary ends.
static SERVER: OnceCell<Server> = OnceCell::const_new();
static DATABASES: AtomicU32 = AtomicU32::new(0);
static SSB: OnceCell<Database> = OnceCell::const_new();

/// The example configuration, whose rollups are those of the Star Schema Benchmark.
pub const EXAMPLE: &str = include_str!("../../../pgstar.toml");

/// The server that all tests of one binary share.
pub async fn server() -> &'static Server {
    SERVER.get_or_init(start_server).await
}

/// A server that is one test's own.
pub async fn start_server() -> Server {
    start_server_with(&[]).await
}

/// The same with these settings.
pub async fn start_server_with(settings: &[(&str, &str)]) -> Server {
    let slots = [("max_replication_slots", "100"), ("max_wal_senders", "100")];
    let options = ServerOptions {
        install: InstallPolicy::Never,
        max_connections: Some(300),
        synchronous_commit: false,
        settings: slots
            .iter()
            .chain(settings)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..ServerOptions::default()
    };
    Server::start(options).await.unwrap()
}

/// The server that all tests of one binary share whose changes cannot be followed.
pub async fn unfollowed_server() -> &'static Server {
    static UNFOLLOWED: OnceCell<Server> = OnceCell::const_new();
    let start = || start_server_with(&[("wal_level", "replica")]);
    UNFOLLOWED.get_or_init(start).await
}

/// A database on a throw-away server.
#[derive(Debug, Clone)]
pub struct Database {
    pub name: String,
    pub port: u16,
}

impl Database {
    /// A new database in which `sql` has been run.
    pub async fn with(sql: &str) -> Database {
        let database = Database::create("template0").await;
        database.run(sql).await;
        database
    }

    /// The same on a server whose changes cannot be followed.
    pub async fn unfollowed(sql: &str) -> Database {
        let database = Database::create_on(unfollowed_server().await, "template0").await;
        database.run(sql).await;
        database
    }

    async fn create(template: &str) -> Database {
        Database::create_on(server().await, template).await
    }

    /// A new database on a server that is the test's own.
    pub async fn create_on(server: &Server, template: &str) -> Database {
        let name = format!("e2e_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let create = format!("CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'");
        let database = Database {
            name,
            port: server.port(),
        };
        let postgres = Database {
            name: "postgres".to_owned(),
            ..database.clone()
        };
        postgres.run(&create).await;
        database
    }

    /// The Star Schema Benchmark at scale 0.01, loaded once for the test binary: not to be written to.
    pub async fn ssb() -> &'static Database {
        let load = || async {
            let database = Database::create("template0").await;
            let config = server().await.config(&database.name);
            let scale = ssb::Scale::try_from(0.01).unwrap();
            ssb::load(&config, scale, 1, &|_| ()).await.unwrap();
            database
        };
        SSB.get_or_init(load).await
    }

    /// A session straight to PostgreSQL.
    pub async fn direct(&self) -> Client {
        self.session(self.port, &[]).await
    }

    pub async fn direct_with(&self, parameters: &[(&str, &str)]) -> Client {
        self.session(self.port, parameters).await
    }

    pub async fn direct_as(&self, role: &str) -> Client {
        self.session(self.port, &[("user", role)]).await
    }

    async fn session(&self, port: u16, parameters: &[(&str, &str)]) -> Client {
        // The first of two equal names would lose: PostgreSQL takes the last.
        let own = [("user", "postgres"), ("database", self.name.as_str())];
        let rest = own
            .into_iter()
            .filter(|(name, _)| parameters.iter().all(|(other, _)| other != name));
        let all: Vec<_> = rest.chain(parameters.iter().copied()).collect();
        Client::connect_with(port, &all).await
    }

    /// Runs statements as the superuser, straight on PostgreSQL; each must succeed.
    pub async fn run(&self, sql: &str) {
        let mut session = self.direct().await;
        ok(&mut session, sql).await;
    }

    pub fn url(&self) -> String {
        format!(
            "postgresql://postgres@127.0.0.1:{}/{}",
            self.port, self.name
        )
    }

    /// A configuration file's text: this database, free ports, these sections and rollups.
    pub fn toml(&self, more: &str, rollups: &[(&str, &str)]) -> String {
        let rollups: String = rollups
            .iter()
            .map(|(name, query)| rollup_toml(name, query))
            .collect();
        format!(
            "[listen]\naddress = \"127.0.0.1:0\"\n\n[upstream]\nurl = \"{}\"\n\n{more}\n{rollups}",
            self.url()
        )
    }

    pub fn config(&self, more: &str, rollups: &[(&str, &str)]) -> Config {
        let admin = if more.contains("[admin]") {
            ""
        } else {
            "[admin]\naddress = \"off\"\n"
        };
        let text = self.toml(&format!("{admin}{more}"), rollups);
        Config::from_text(Path::new("e2e.toml"), &text)
            .unwrap_or_else(|problems| panic!("{problems}\n{text}"))
    }
}

pub fn rollup_toml(name: &str, query: &str) -> String {
    format!("\n[[rollup]]\nname = \"{name}\"\nquery = \"\"\"\n{query}\n\"\"\"\n")
}

/// What most tests want of the configuration: rollups answer however old they are, and what has to be proven
/// is waited for as long as a busy machine takes.
pub const ANY: &str = "[freshness]\ndefault = \"any\"\ndeadline = \"20s\"\n";

/// pgstar in this process, before one database, with its rollups built.
pub struct Lab {
    pub database: Database,
    pub proxy: Proxy,
}

impl Lab {
    pub async fn start(database: &Database, more: &str, rollups: &[(&str, &str)]) -> Lab {
        Lab::with_config(database, &database.config(more, rollups)).await
    }

    pub async fn with_config(database: &Database, config: &Config) -> Lab {
        let proxy = Proxy::start(config)
            .await
            .unwrap_or_else(|failure| panic!("{}", failure.report()));
        proxy.warehouse().build_missing(&|_, _| ()).await.unwrap();
        proxy.keep_rollups();
        let lab = Lab {
            database: database.clone(),
            proxy,
        };
        lab.follow().await;
        lab
    }

    /// Waits until the rollups follow their tables, where they can at all.
    async fn follow(&self) {
        let follower = self.proxy.warehouse().follower();
        if follower.settled(PATIENCE).await.is_ok() {
            let snapshot = self.proxy.warehouse().snapshot();
            let tables = snapshot.ready.iter();
            let tables: Vec<&str> = tables.map(|ready| ready.built.table.as_str()).collect();
            // Some cannot, and their tests say so.
            let _proven = follower.in_step(&tables, NOTICED).await;
        }
    }

    pub fn port(&self) -> u16 {
        self.proxy.address().port()
    }

    /// A session through pgstar.
    pub async fn session(&self) -> Client {
        self.session_with(&[]).await
    }

    pub async fn session_with(&self, parameters: &[(&str, &str)]) -> Client {
        self.database.session(self.port(), parameters).await
    }

    pub async fn session_as(&self, role: &str) -> Client {
        self.session_with(&[("user", role)]).await
    }

    /// A session straight to PostgreSQL and one through pgstar.
    pub async fn pair(&self) -> Pair {
        self.pair_with(&[]).await
    }

    pub async fn pair_with(&self, parameters: &[(&str, &str)]) -> Pair {
        Pair {
            direct: self.database.session(self.database.port, parameters).await,
            through: self.session_with(parameters).await,
            watcher: self.session().await,
        }
    }
}

/// Two sessions that are told the same.
pub struct Pair {
    pub direct: Client,
    pub through: Client,
    /// A superuser's, through pgstar: only such see other sessions' statements.
    watcher: Client,
}

impl Pair {
    /// Runs the statement on both sides and asserts that pgstar's frames are PostgreSQL's.
    pub async fn same(&mut self, sql: &str) -> Vec<Frame> {
        self.same_bytes(&frames::query(sql), sql).await
    }

    /// The same for any frames that end with a ReadyForQuery.
    pub async fn same_bytes(&mut self, bytes: &[u8], what: &str) -> Vec<Frame> {
        self.same_batches(&[bytes], what).await
    }

    /// The same for frames of which each part ends with a ReadyForQuery, sent one after the other.
    pub async fn same_batches(&mut self, parts: &[&[u8]], what: &str) -> Vec<Frame> {
        let mut all = vec![];
        for part in parts {
            let direct = self.direct.exchange(part).await;
            let through = self.through.exchange(part).await;
            assert_eq!(
                comparable(&direct, what),
                comparable(&through, what),
                "{what}"
            );
            all.extend(direct);
        }
        all
    }

    /// Runs the statement on both sides, asserts the same answer, and says what served it.
    pub async fn served(&mut self, sql: &str) -> Served {
        self.served_alike(sql).await.0
    }

    /// The same, with PostgreSQL's own frames.
    pub async fn served_alike(&mut self, sql: &str) -> (Served, Vec<Frame>) {
        // On a busy machine the catalog is looked at late now and then.
        decision(&mut self.watcher, "SELECT count(*) FROM pg_class").await;
        let before = Counted::of(&mut self.watcher, sql).await;
        let frames = self.same(sql).await;
        (
            Counted::of(&mut self.watcher, sql).await.since(&before),
            frames,
        )
    }

    /// What served the statement in this batch, whose answer is the same on both sides.
    pub async fn served_batch(&mut self, sql: &str, batch: &[u8]) -> Served {
        decision(&mut self.watcher, "SELECT count(*) FROM pg_class").await;
        let before = Counted::of(&mut self.watcher, sql).await;
        self.same_bytes(batch, sql).await;
        Counted::of(&mut self.watcher, sql).await.since(&before)
    }

    /// Runs something on both sides that may answer differently, such as a SET of pgstar's.
    pub async fn both(&mut self, sql: &str) {
        ok(&mut self.direct, sql).await;
        ok(&mut self.through, sql).await;
    }
}

/// Frames in an order that does not depend on what ORDER BY leaves open.
fn comparable(frames: &[Frame], sql: &str) -> Vec<Frame> {
    let mut frames = frames.to_vec();
    if !sql.contains("/* total order */") {
        let first = frames.iter().position(|frame| frame.tag() == 'D');
        let last = frames.iter().rposition(|frame| frame.tag() == 'D');
        if let (Some(first), Some(last)) = (first, last) {
            frames[first..=last].sort_by(|one, other| one.0.cmp(&other.0));
        }
    }
    frames
}

/// What served a statement, by pgstar's own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    Rollup,
    Cache,
    /// PostgreSQL, with the client's own statement.
    Passthrough,
}

/// Whether `SHOW pgstar.queries` shows the statement like this: on one line, and perhaps not to its end.
fn is_shown_as(sql: &str, shown: &str) -> bool {
    let line = sql.split_whitespace().collect::<Vec<_>>().join(" ");
    match shown.strip_suffix('…') {
        Some(start) => line.starts_with(start),
        None => line == shown,
    }
}

/// How often a statement was served by what.
#[derive(Debug, Default)]
struct Counted {
    rollup: u64,
    cache: u64,
}

impl Counted {
    async fn of(through: &mut Client, sql: &str) -> Counted {
        let mut counted = Counted::default();
        for row in table(&through.query("SHOW pgstar.queries").await) {
            if is_shown_as(sql, row[0].as_ref().unwrap()) {
                counted.rollup += row[1].as_ref().unwrap().parse::<u64>().unwrap();
                counted.cache += row[2].as_ref().unwrap().parse::<u64>().unwrap();
            }
        }
        counted
    }

    fn since(&self, before: &Counted) -> Served {
        match (self.rollup - before.rollup, self.cache - before.cache) {
            (0, 0) => Served::Passthrough,
            (1, 0) => Served::Rollup,
            (0, 1) => Served::Cache,
            both => panic!("one statement was counted {both:?}"),
        }
    }
}

/// Runs the statement and says what served it, by pgstar's own count, which superusers only may read.
pub async fn served(through: &mut Client, sql: &str) -> (Served, Vec<Frame>) {
    let before = Counted::of(through, sql).await;
    let frames = through.query(sql).await;
    (Counted::of(through, sql).await.since(&before), frames)
}

/// How many statements pgstar has answered, from rollups and from its cache.
pub async fn answers(through: &mut Client) -> u64 {
    let rows = table(&ok(through, "SHOW pgstar.queries").await);
    let number = |text: &Option<String>| text.as_ref().unwrap().parse::<u64>().unwrap();
    rows.iter()
        .map(|row| number(&row[1]) + number(&row[2]))
        .sum()
}

/// Runs statements that must succeed.
pub async fn ok(session: &mut Client, sql: &str) -> Vec<Frame> {
    let frames = session.query(sql).await;
    if let Some(error) = frames.iter().find(|frame| frame.tag() == 'E') {
        panic!("{sql}: {error:?}");
    }
    assert_eq!(
        frames.last().map(Frame::tag),
        Some('Z'),
        "{sql}: {frames:?}"
    );
    frames
}

/// The rows as text.
pub fn table(frames: &[Frame]) -> Vec<Vec<Option<String>>> {
    let rows = frames.iter().filter(|frame| frame.tag() == 'D');
    let text =
        |value: Option<&[u8]>| value.map(|value| String::from_utf8_lossy(value).into_owned());
    rows.map(|row| {
        wire::data_row_values(&row.0)
            .unwrap()
            .into_iter()
            .map(text)
            .collect()
    })
    .collect()
}

/// The rows as psql -At shows them.
pub fn rows(frames: &[Frame]) -> Vec<String> {
    let row = |row: Vec<Option<String>>| {
        row.into_iter()
            .map(Option::unwrap_or_default)
            .collect::<Vec<_>>()
            .join("|")
    };
    table(frames).into_iter().map(row).collect()
}

/// The fields of the first ErrorResponse, by their letter.
pub fn error(frames: &[Frame]) -> Option<std::collections::BTreeMap<char, String>> {
    let frame = frames.iter().find(|frame| frame.tag() == 'E')?;
    let fields = frame
        .body()
        .split(|byte| *byte == 0)
        .filter(|field| !field.is_empty());
    let field = |field: &[u8]| {
        (
            field[0] as char,
            String::from_utf8_lossy(&field[1..]).into_owned(),
        )
    };
    Some(fields.map(field).collect())
}

/// The SQLSTATE of the first ErrorResponse.
pub fn sqlstate(frames: &[Frame]) -> Option<String> {
    error(frames).map(|fields| fields[&'C'].clone())
}

/// The object of `EXPLAIN (PGSTAR, FORMAT JSON)`.
pub async fn explain(session: &mut Client, sql: &str) -> serde_json::Value {
    let frames = ok(session, &format!("EXPLAIN (PGSTAR, FORMAT JSON) {sql}")).await;
    serde_json::from_str(table(&frames)[0][0].as_ref().unwrap()).unwrap()
}

/// `rollup`, `cache`, or the code of the first reason for which the statement passes through. That the catalog was not
/// looked at in time, as happens on a busy machine, is one only if it lasts.
pub async fn decision(session: &mut Client, sql: &str) -> String {
    let began = Instant::now();
    loop {
        let code = decisions(session, sql).await.remove(0);
        if code != "catalog-unavailable" || began.elapsed() > PATIENCE {
            return code;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// `rollup`, `cache`, or the codes of all reasons for which the statement passes through.
async fn decisions(session: &mut Client, sql: &str) -> Vec<String> {
    let explained = explain(session, sql).await;
    match explained["decision"].as_str().unwrap() {
        "passthrough" => {
            let reasons = explained["reasons"].as_array().unwrap().iter();
            reasons
                .map(|reason| reason["code"].as_str().unwrap().to_owned())
                .collect()
        }
        other => vec![other.to_owned()],
    }
}

/// Waits until the statement's decision is this one, or passes through for this reason among others, as
/// it is within a poll of the catalog.
pub async fn until_decision(
    session: &mut Client,
    sql: &str,
    wanted: &str,
    within: Duration,
) -> Duration {
    let began = Instant::now();
    loop {
        let now = decisions(session, sql).await;
        if now.iter().any(|code| code == wanted) {
            return began.elapsed();
        }
        assert!(
            began.elapsed() < within,
            "{sql}: still {now:?} instead of {wanted} after {within:?}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until every rollup is in step with the change stream; what `SHOW pgstar.rollups` says then. Before that one may be
/// built once more, and nothing is known for a moment where a stream is begun again.
pub async fn until_in_step(session: &mut Client) -> Vec<Vec<Option<String>>> {
    let began = Instant::now();
    loop {
        let shown = table(&ok(session, "SHOW pgstar.rollups").await);
        if shown.iter().all(|row| row[7].as_deref() == Some("in step")) {
            return shown;
        }
        assert!(began.elapsed() < NOTICED, "{shown:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Until when a change of the catalog has to be noticed, on a machine however busy.
pub const NOTICED: Duration = Duration::from_secs(30);

/// How long a test leaves for it where nothing shows that it has been: the poll of one second, and slack.
pub const NOTICING: Duration = Duration::from_secs(2);

/// An unnamed batch with text parameters, asking for these result formats (0 text, 1 binary).
pub fn batch(
    sql: &str,
    types: &[u32],
    parameters: &[Option<&str>],
    result_format: i16,
    describes: &str,
) -> Vec<u8> {
    let mut parse = format!("\0{sql}\0").into_bytes();
    parse.extend((types.len() as u16).to_be_bytes());
    types.iter().for_each(|oid| parse.extend(oid.to_be_bytes()));
    let mut bind = b"\0\0\0\0".to_vec();
    bind.extend((parameters.len() as u16).to_be_bytes());
    for parameter in parameters {
        match parameter {
            None => bind.extend((-1_i32).to_be_bytes()),
            Some(text) => {
                bind.extend((text.len() as i32).to_be_bytes());
                bind.extend(text.as_bytes());
            }
        }
    }
    bind.extend(1_u16.to_be_bytes());
    bind.extend(result_format.to_be_bytes());
    let describe = |target| {
        if describes.contains(target) {
            frames::describe(target, "")
        } else {
            vec![]
        }
    };
    [
        frames::frame('P', &parse),
        describe('S'),
        frames::frame('B', &bind),
        describe('P'),
        frames::execute("", 0),
        frames::sync(),
    ]
    .concat()
}
