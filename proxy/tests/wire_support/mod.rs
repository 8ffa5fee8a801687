//! What the wire tests share: a throw-away PostgreSQL, a proxy in front of it, a scripted router and a
//! client that speaks frames.
//!
//! It must not judge anything: the tests do.

#![allow(dead_code, clippy::unwrap_used)] // Not every test file needs all of it; a test that cannot go on should stop.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pgstar::listener;
use pgstar::route::{
    Answer, Binding, CacheSlot, Candidate, ColumnOrigin, Confirmation, Rewritten, Route,
    SessionFacts,
};
use pgstar::session::{Limits, Routing, Shared, Upstream};
use pgstar::wire;
use pgstar_postgres::server::{InstallPolicy, Server, ServerOptions};
use pgstar_postgres::visible::Glimpse;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long a test waits for bytes that must come.
pub const PATIENCE: Duration = Duration::from_secs(90);

static SERVER: tokio::sync::Mutex<Weak<Server>> = tokio::sync::Mutex::const_new(Weak::new());

/// A server that the tests of one file share; it is gone when the last of them has dropped it.
pub async fn server() -> Arc<Server> {
    let mut shared = SERVER.lock().await;
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(start(ServerOptions::default()).await);
    *shared = Arc::downgrade(&server);
    server
}

pub async fn start(options: ServerOptions) -> Server {
    let max_connections = Some(50);
    Server::start(ServerOptions {
        install: InstallPolicy::Never,
        max_connections,
        ..options
    })
    .await
    .unwrap()
}

/// A proxy in this process.
pub struct Proxy<R> {
    pub port: u16,
    pub shared: Arc<Shared<R>>,
    shutdown: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    /// The server behind it lives as long as the proxy.
    pub server: Option<Arc<Server>>,
}

impl<R: Routing> Proxy<R> {
    pub async fn start(server: &Arc<Server>, router: R) -> Self {
        let upstream = Upstream::new("127.0.0.1", server.port());
        let proxy = Self::with_limits(upstream, router, Limits::default()).await;
        Proxy {
            server: Some(server.clone()),
            ..proxy
        }
    }

    pub async fn with_limits(upstream: Upstream, router: R, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::new(upstream, Arc::new(router), limits));
        let (shutdown, asked) = oneshot::channel();
        let served = tokio::spawn(listener::serve(listener, shared.clone(), async {
            let _dropped = asked.await;
        }));
        Proxy {
            port,
            shared,
            shutdown: Some(shutdown),
            served,
            server: None,
        }
    }

    /// Begins a shutdown without waiting for its end.
    pub fn begin_shutdown(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    /// Waits for the end of a shutdown.
    pub async fn wait(self) {
        tokio::time::timeout(PATIENCE, self.served)
            .await
            .unwrap()
            .unwrap();
    }
}

/// Serves nothing.
pub struct Never;

impl Routing for Never {
    fn candidate(&self, _: &[u8]) -> Candidate {
        Candidate::No
    }

    fn version(&self) -> u64 {
        0
    }

    async fn route(
        &self,
        _: &SessionFacts,
        _: &str,
        _: Option<&Binding>,
        _: Option<&Glimpse>,
    ) -> Route {
        unreachable!("nothing was a candidate")
    }

    fn rewritten_failed(&self, _: &SessionFacts, _: &str, _: &str) {}
}

/// Calls every statement a candidate and passes it through all the same: each is preceded by a probe.
pub struct AskAll;

impl Routing for AskAll {
    fn candidate(&self, _: &[u8]) -> Candidate {
        Candidate::Yes
    }

    fn version(&self) -> u64 {
        0
    }

    async fn route(
        &self,
        _: &SessionFacts,
        _: &str,
        _: Option<&Binding>,
        _: Option<&Glimpse>,
    ) -> Route {
        Route::Passthrough { clean: false }
    }

    fn rewritten_failed(&self, _: &SessionFacts, _: &str, _: &str) {}
}

/// What a script does with one statement.
#[derive(Clone)]
pub enum Play {
    Passthrough {
        clean: bool,
    },
    Cached(Answer),
    Local(Answer),
    LocalError(Bytes),
    /// Run this text with these origins, keeping answers up to so many bytes.
    Rewrite {
        sql: String,
        origins: Vec<ColumnOrigin>,
        keep_bytes_max: Option<usize>,
    },
    /// Run this text, and hold its answer back until it is confirmed or not.
    Confirm {
        sql: String,
        origins: Vec<ColumnOrigin>,
        is_confirmed: bool,
    },
    /// Run the client's own statement and keep its answer.
    Observe {
        keep_bytes_max: usize,
    },
}

/// Routes statements by their exact text and remembers what it saw.
#[derive(Default)]
pub struct Script {
    plays: Mutex<HashMap<String, Play>>,
    pub facts: Mutex<Vec<SessionFacts>>,
    pub bindings: Mutex<Vec<Option<Binding>>>,
    pub failed: Mutex<Vec<(String, String)>>,
    pub kept: Arc<Mutex<Vec<Answer>>>,
}

impl Script {
    pub fn new(plays: impl IntoIterator<Item = (&'static str, Play)>) -> Self {
        let plays = plays
            .into_iter()
            .map(|(sql, play)| (sql.to_owned(), play))
            .collect();
        Script {
            plays: Mutex::new(plays),
            ..Script::default()
        }
    }
}

impl Routing for Script {
    fn candidate(&self, sql: &[u8]) -> Candidate {
        let is_known = self
            .plays
            .lock()
            .unwrap()
            .contains_key(&*String::from_utf8_lossy(sql));
        if is_known {
            Candidate::Yes
        } else {
            Candidate::No
        }
    }

    fn version(&self) -> u64 {
        0
    }

    async fn route(
        &self,
        facts: &SessionFacts,
        sql: &str,
        binding: Option<&Binding>,
        _: Option<&Glimpse>,
    ) -> Route {
        self.facts.lock().unwrap().push(facts.clone());
        self.bindings.lock().unwrap().push(binding.cloned());
        let play = self.plays.lock().unwrap()[sql].clone();
        match play {
            Play::Passthrough { clean } => Route::Passthrough { clean },
            Play::Cached(answer) => Route::Cached(Arc::new(answer)),
            Play::Local(answer) => Route::Local(answer),
            Play::LocalError(error) => Route::LocalError(error),
            Play::Rewrite {
                sql,
                origins,
                keep_bytes_max,
            } => {
                let kept = self.kept.clone();
                let slot =
                    |max| CacheSlot::new(max, move |answer| kept.lock().unwrap().push(answer));
                Route::Rewritten(Rewritten {
                    sql,
                    origins: origins.into(),
                    cache: keep_bytes_max.map(slot),
                    confirmation: None,
                })
            }
            Play::Confirm {
                sql,
                origins,
                is_confirmed,
            } => {
                let kept = self.kept.clone();
                Route::Rewritten(Rewritten {
                    sql,
                    origins: origins.into(),
                    cache: Some(CacheSlot::new(1 << 20, move |answer| {
                        kept.lock().unwrap().push(answer)
                    })),
                    confirmation: Some(Confirmation::new(async move { is_confirmed })),
                })
            }
            Play::Observe { keep_bytes_max } => {
                let kept = self.kept.clone();
                Route::Observed(CacheSlot::new(keep_bytes_max, move |answer| {
                    kept.lock().unwrap().push(answer)
                }))
            }
        }
    }

    fn rewritten_failed(&self, _: &SessionFacts, sql: &str, sqlstate: &str) {
        self.failed
            .lock()
            .unwrap()
            .push((sql.to_owned(), sqlstate.to_owned()));
    }
}

/// A rewrite of a statement with one column that comes from no table.
pub fn rewrite_to(sql: &str) -> Play {
    Play::Rewrite {
        sql: sql.to_owned(),
        origins: vec![ColumnOrigin {
            table: 0,
            attnum: 0,
        }],
        keep_bytes_max: None,
    }
}

/// An answer of one text column.
pub fn answer_of(rows: &[&str]) -> Answer {
    let mut description = BytesMut::new();
    wire::row_description_of_text(&mut description, &["answer"]);
    let mut out = BytesMut::new();
    rows.iter()
        .for_each(|row| wire::data_row(&mut out, &[Some(row.as_bytes())]));
    wire::command_complete(&mut out, &format!("SELECT {}", rows.len()));
    Answer {
        row_description: description.freeze(),
        rows: out.freeze(),
    }
}

/// One frame of a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

impl Frame {
    pub fn tag(&self) -> char {
        self.0[0] as char
    }

    pub fn body(&self) -> &[u8] {
        &self.0[5..]
    }

    pub fn contains(&self, text: &str) -> bool {
        self.0
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// The type letters of frames in order.
pub fn tags(frames: &[Frame]) -> String {
    frames.iter().map(Frame::tag).collect()
}

/// The only values of the DataRow frames, as text.
pub fn values(frames: &[Frame]) -> Vec<String> {
    let rows = frames.iter().filter(|frame| frame.tag() == 'D');
    rows.map(|row| {
        String::from_utf8_lossy(wire::data_row_values(&row.0).unwrap()[0].unwrap()).into_owned()
    })
    .collect()
}

/// A client that says exactly what it is told to.
pub struct Client {
    pub socket: TcpStream,
    /// The frames up to the first ReadyForQuery.
    pub greeting: Vec<Frame>,
}

impl Client {
    pub async fn connect(port: u16) -> Client {
        Client::connect_with(port, &[("user", "postgres"), ("database", "postgres")]).await
    }

    pub async fn connect_with(port: u16, parameters: &[(&str, &str)]) -> Client {
        let mut client = Client::raw(port).await;
        client.send(&startup_packet(parameters)).await;
        client.greeting = client.until_ready().await;
        client
    }

    /// Logs in by SCRAM-SHA-256, or as far as the server lets it; `greeting` has the frames that came.
    pub async fn log_in(port: u16, parameters: &[(&str, &str)], password: &str) -> Client {
        let mut client = Client::raw(port).await;
        client.send(&startup_packet(parameters)).await;
        let binding = ChannelBinding::unsupported();
        let mut scram = ScramSha256::new(password.as_bytes(), binding);
        while let Some(frame) = client.frame().await {
            let method = (frame.tag() == 'R').then(|| frame.body()[3]);
            let is_over = matches!(frame.tag(), 'Z' | 'E');
            let mut out = BytesMut::new();
            match method {
                Some(10) => {
                    let first = scram.message();
                    frontend::sasl_initial_response("SCRAM-SHA-256", first, &mut out).unwrap();
                }
                Some(11) => {
                    scram.update(&frame.body()[4..]).unwrap();
                    frontend::sasl_response(scram.message(), &mut out).unwrap();
                }
                Some(12) => scram.finish(&frame.body()[4..]).unwrap(),
                _ => client.greeting.push(frame),
            }
            client.send(&out).await;
            if is_over {
                break;
            }
        }
        client
    }

    /// A connection on which nothing has been said.
    pub async fn raw(port: u16) -> Client {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Client {
            socket,
            greeting: Vec::new(),
        }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None` at the end of the stream.
    pub async fn frame(&mut self) -> Option<Frame> {
        let read = async {
            let mut frame = vec![0; 5];
            self.socket.read_exact(&mut frame).await.ok()?;
            let length = i32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize;
            frame.resize(1 + length, 0);
            self.socket.read_exact(&mut frame[5..]).await.ok()?;
            Some(Frame(frame))
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("a frame in time")
    }

    /// Frames up to and with the next ReadyForQuery, or to the end of the stream.
    pub async fn until_ready(&mut self) -> Vec<Frame> {
        self.until('Z').await
    }

    pub async fn until(&mut self, tag: char) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            frames.push(frame);
            if frames.last().is_some_and(|frame| frame.tag() == tag) {
                break;
            }
        }
        frames
    }

    pub async fn exchange(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.send(bytes).await;
        self.until_ready().await
    }

    pub async fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.exchange(&query(sql)).await
    }

    /// Asserts that nothing more comes for now.
    pub async fn assert_silent(&mut self) {
        let mut byte = [0];
        let read =
            tokio::time::timeout(Duration::from_millis(200), self.socket.read(&mut byte)).await;
        assert!(read.is_err(), "unexpected byte {byte:?}");
    }

    /// The bytes of BackendKeyData.
    pub fn key_data(&self) -> &[u8] {
        self.greeting
            .iter()
            .find(|frame| frame.tag() == 'K')
            .unwrap()
            .body()
    }

    pub fn backend_pid(&self) -> i32 {
        i32::from_be_bytes(self.key_data()[..4].try_into().unwrap())
    }
}

pub fn startup_packet(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608_i32.to_be_bytes().to_vec();
    for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    [&(body.len() as i32 + 4).to_be_bytes()[..], &body].concat()
}

/// A frame of a client's, of any type and body.
pub fn frame(tag: char, body: &[u8]) -> Vec<u8> {
    [
        &[tag as u8][..],
        &(body.len() as i32 + 4).to_be_bytes(),
        body,
    ]
    .concat()
}

pub fn query(sql: &str) -> Vec<u8> {
    frame('Q', format!("{sql}\0").as_bytes())
}

pub fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame('P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

/// A Bind without parameters.
pub fn bind(portal: &str, statement: &str) -> Vec<u8> {
    frame(
        'B',
        format!("{portal}\0{statement}\0\0\0\0\0\0\0").as_bytes(),
    )
}

/// A Bind of text parameters to the unnamed statement.
pub fn bind_texts(texts: &[&str]) -> Vec<u8> {
    let mut body = b"\0\0\0\0".to_vec();
    body.extend((texts.len() as u16).to_be_bytes());
    for text in texts {
        body.extend((text.len() as i32).to_be_bytes());
        body.extend(text.as_bytes());
    }
    body.extend([0, 0]);
    frame('B', &body)
}

pub fn describe(target: char, name: &str) -> Vec<u8> {
    frame('D', format!("{target}{name}\0").as_bytes())
}

pub fn close(target: char, name: &str) -> Vec<u8> {
    frame('C', format!("{target}{name}\0").as_bytes())
}

pub fn execute(portal: &str, max_rows: i32) -> Vec<u8> {
    frame(
        'E',
        &[format!("{portal}\0").as_bytes(), &max_rows.to_be_bytes()].concat(),
    )
}

pub fn sync() -> Vec<u8> {
    frame('S', b"")
}

/// The batch that drivers send for a statement without parameters.
pub fn batch(sql: &str) -> Vec<u8> {
    [
        parse("", sql),
        bind("", ""),
        describe('P', ""),
        execute("", 0),
        sync(),
    ]
    .concat()
}
