//! Sessions whose password pgstar checks itself, and backends that serve one of them after the other: nobody can tell.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use e2e_support::frames::values;
use e2e_support::{
    Client, Frame, PATIENCE, answers, error, frames, ok, rollup_toml, rows, sqlstate, tags,
    until_decision,
};
use pgstar::config::Config;
use pgstar::serve::Proxy;
use pgstar_postgres::server::{Authentication, InstallPolicy, Server, ServerOptions};
use pgstar_postgres::visible::VISIBLE;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;

static SERVER: OnceCell<Server> = OnceCell::const_new();
static NAMES: AtomicU32 = AtomicU32::new(0);
/// Each session needs the server to derive a key from this only once, for the tests' own client.
const PASSWORD: &str = "secret";

async fn server() -> &'static Server {
    SERVER.get_or_init(|| start(150)).await
}

async fn start(max_connections: u32) -> Server {
    let options = ServerOptions {
        install: InstallPolicy::Never,
        authentication: Authentication::ScramSha256(PASSWORD.to_owned()),
        max_connections: Some(max_connections),
        synchronous_commit: false,
        ..ServerOptions::default()
    };
    Server::start(options).await.unwrap()
}

/// A role of one test's own in a database of its own, and pgstar before it.
struct Lab {
    server_port: u16,
    proxy: Proxy,
    name: String,
}

impl Lab {
    async fn start() -> Lab {
        Lab::on(server().await, "").await
    }

    async fn on(server: &Server, more: &str) -> Lab {
        Lab::behind(server, server.port(), more).await
    }

    /// The same, where pgstar reaches the server by another port.
    async fn behind(server: &Server, upstream: u16, more: &str) -> Lab {
        let name = format!("pool_{}", NAMES.fetch_add(1, Ordering::Relaxed));
        let mut admin = super_session(server.port(), "postgres").await;
        ok(&mut admin, &format!("CREATE DATABASE {name}")).await;
        ok(
            &mut admin,
            &format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'"),
        )
        .await;
        let text = format!(
            "[listen]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"off\"\n\
             [upstream]\nurl = \"postgresql://postgres:{PASSWORD}@127.0.0.1:{upstream}/{name}\"\n{more}",
        );
        let text = match text.contains("[auth]") {
            true => text,
            false => format!("{text}\n[auth]\nmethod = \"scram\"\n"),
        };
        let config = Config::from_text(Path::new("e2e.toml"), &text).unwrap();
        let proxy = Proxy::start(&config)
            .await
            .unwrap_or_else(|failure| panic!("{}", failure.report()));
        Lab {
            server_port: server.port(),
            proxy,
            name,
        }
    }

    fn port(&self) -> u16 {
        self.proxy.address().port()
    }

    async fn admin(&self) -> Client {
        super_session(self.server_port, &self.name).await
    }

    async fn run(&self, sql: &str) {
        ok(&mut self.admin().await, sql).await;
    }

    async fn session(&self) -> Client {
        self.session_with(&[]).await
    }

    async fn session_with(&self, more: &[(&str, &str)]) -> Client {
        let client = self.attempt(self.port(), &self.name, more, PASSWORD).await;
        assert!(
            tags(&client.greeting).ends_with('Z'),
            "{:?}",
            client.greeting
        );
        client
    }

    async fn direct(&self) -> Client {
        self.attempt(self.server_port, &self.name, &[], PASSWORD)
            .await
    }

    async fn attempt(
        &self,
        port: u16,
        user: &str,
        more: &[(&str, &str)],
        password: &str,
    ) -> Client {
        let own = [("user", user), ("database", self.name.as_str())];
        Client::log_in(port, &[&own[..], more].concat(), password).await
    }

    /// Ends the session and waits until its backend waits for the next one, or is gone.
    async fn leave(&self, mut client: Client) {
        let pool = self.proxy.pool().unwrap();
        let warm = &pool.warm;
        let (pid, waiting) = (client.backend_pid(), warm.len());
        client.send(&frames::frame('X', b"")).await;
        drop(client);
        let mut admin = self.admin().await;
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        let deadline = Instant::now() + PATIENCE;
        while warm.len() == waiting && values(&admin.query(&sql).await) != ["0"] {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Whether the next session is on the backend that this one leaves after these statements.
    async fn is_shared_after(&self, statements: &[&str]) -> bool {
        let mut session = self.session().await;
        for sql in statements {
            session.query(sql).await;
        }
        let pid = session.backend_pid();
        self.leave(session).await;
        let next = self.session().await;
        let is_shared = next.backend_pid() == pid;
        self.leave(next).await;
        is_shared
    }
}

async fn super_session(port: u16, database: &str) -> Client {
    let parameters = [("user", "postgres"), ("database", database)];
    let session = Client::log_in(port, &parameters, PASSWORD).await;
    assert!(
        tags(&session.greeting).ends_with('Z'),
        "{:?}",
        session.greeting
    );
    session
}

/// Everything that a session can see of its own state.
const STATE: &str = "SELECT name, setting, source, reset_val FROM pg_settings UNION ALL \
    SELECT 'user', current_user, session_user, current_schemas(true)::text UNION ALL \
    SELECT 'temp', pg_my_temp_schema()::text, '', '' UNION ALL \
    SELECT 'prepared', name, statement, '' FROM pg_prepared_statements UNION ALL \
    SELECT 'cursor', name, statement, '' FROM pg_cursors UNION ALL \
    SELECT 'channel', c, '', '' FROM pg_listening_channels() AS c UNION ALL \
    SELECT 'lock', locktype, mode, '' FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' \
    ORDER BY 1, 2, 3 /* total order */";

/// The greeting without the process and its key.
fn comparable(greeting: &[Frame]) -> Vec<Frame> {
    let kept = greeting.iter().filter(|frame| frame.tag() != 'K');
    kept.cloned().collect()
}

// ---- logging in ----

#[tokio::test]
async fn a_session_on_a_used_backend_begins_and_goes_on_like_one_on_its_own() {
    let lab = Lab::start().await;
    let mut direct = lab.direct().await;
    let mut first = lab.session().await;
    let fresh = rows(&first.query(STATE).await);
    assert_eq!(comparable(&first.greeting), comparable(&direct.greeting));
    for sql in [
        "BEGIN",
        "SET search_path = \"ssb\"",
        "SET TimeZone = 'Asia/Tokyo'",
        "SELECT count(*) FROM pg_class",
        "COMMIT",
        "SET extra_float_digits = 0",
        "SELECT 1/0",
        "BEGIN",
        "SELECT broken",
    ] {
        assert_eq!(
            tags(&first.query(sql).await),
            tags(&direct.query(sql).await),
            "{sql}"
        );
    }
    ok(&mut first, "ROLLBACK").await;
    for bytes in [
        frames::batch("SELECT 2"),
        [frames::parse("mine", "SELECT 3"), frames::sync()].concat(),
    ] {
        first.exchange(&bytes).await;
    }
    let pid = first.backend_pid();
    lab.leave(first).await;
    let mut second = lab.session().await;
    assert_eq!(second.backend_pid(), pid);
    assert_eq!(
        values(&second.query("SELECT pg_backend_pid()::text").await),
        [pid.to_string()]
    );
    assert_eq!(comparable(&second.greeting), comparable(&direct.greeting));
    assert_eq!(rows(&second.query(STATE).await), fresh);
}

#[tokio::test]
async fn sessions_share_only_what_began_alike() {
    let lab = Lab::start().await;
    let session = lab.session_with(&[("application_name", "one")]).await;
    let pid = session.backend_pid();
    lab.leave(session).await;
    let other = lab.session_with(&[("application_name", "two")]).await;
    assert_ne!(other.backend_pid(), pid);
    let mut same = lab.session_with(&[("application_name", "one")]).await;
    assert_eq!(same.backend_pid(), pid);
    assert_eq!(values(&same.query("SHOW application_name").await), ["one"]);
}

#[tokio::test]
async fn the_wrong_password_gets_postgresqls_own_words() {
    let lab = Lab::start().await;
    for (user, password) in [(lab.name.as_str(), "wrong"), ("nobody", PASSWORD)] {
        let mut told = vec![];
        for port in [lab.server_port, lab.port()] {
            let refused = lab.attempt(port, user, &[], password).await;
            let mut fields = error(&refused.greeting).unwrap();
            // Where in PostgreSQL's source the error was raised.
            fields.retain(|letter, _| !"FLR".contains(*letter));
            told.push((tags(&refused.greeting), fields));
        }
        assert_eq!(told[1], told[0], "{user}");
        assert_eq!(told[1].1[&'C'], "28P01");
    }
}

#[tokio::test]
async fn a_changed_password_counts_from_the_next_login_on() {
    let lab = Lab::start().await;
    assert!(lab.is_shared_after(&["SELECT 1"]).await);
    lab.run(&format!("ALTER ROLE {} PASSWORD 'another'", lab.name))
        .await;
    let refused = lab.attempt(lab.port(), &lab.name, &[], PASSWORD).await;
    assert_eq!(sqlstate(&refused.greeting).unwrap(), "28P01");
    let mut admitted = lab.attempt(lab.port(), &lab.name, &[], "another").await;
    ok(&mut admitted, "SELECT 1").await;
}

#[tokio::test]
async fn who_lost_the_right_to_log_in_is_refused_as_postgresql_refuses() {
    let lab = Lab::start().await;
    for (undone, done) in [
        ("ALTER ROLE {} NOLOGIN", "ALTER ROLE {} LOGIN"),
        (
            "ALTER ROLE {} VALID UNTIL '2001-01-01'",
            "ALTER ROLE {} VALID UNTIL 'infinity'",
        ),
        (
            "REVOKE CONNECT ON DATABASE {} FROM PUBLIC",
            "GRANT CONNECT ON DATABASE {} TO PUBLIC",
        ),
        (
            "ALTER ROLE {} PASSWORD NULL",
            "ALTER ROLE {} PASSWORD 'secret'",
        ),
        (
            "ALTER ROLE {} CONNECTION LIMIT 0",
            "ALTER ROLE {} CONNECTION LIMIT -1",
        ),
        ("DROP ROLE {}", "CREATE ROLE {} LOGIN PASSWORD 'secret'"),
    ] {
        lab.leave(lab.session().await).await;
        lab.run(&undone.replace("{}", &lab.name)).await;
        let direct = lab.direct().await;
        let through = lab.attempt(lab.port(), &lab.name, &[], PASSWORD).await;
        assert!(tags(&direct.greeting).ends_with('E'), "{undone}");
        assert_eq!(through.greeting, direct.greeting, "{undone}");
        lab.run(&done.replace("{}", &lab.name)).await;
        lab.leave(lab.session().await).await;
    }
}

#[tokio::test]
async fn other_databases_and_verifiers_of_another_kind_are_relayed() {
    let lab = Lab::start().await;
    let parameters = [("user", lab.name.as_str()), ("database", "postgres")];
    let mut elsewhere = Client::log_in(lab.port(), &parameters, PASSWORD).await;
    let sql = "SELECT current_database()::text";
    assert_eq!(values(&elsewhere.query(sql).await), ["postgres"]);
}

#[tokio::test]
async fn verifiers_may_come_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("users");
    std::fs::write(&file, "").unwrap();
    let more = format!(
        "[auth]\nmethod = \"scram\"\nusers = \"{}\"\n",
        file.display()
    );
    let lab = Lab::on(server().await, &more).await;
    let sql = format!(
        "SELECT rolpassword FROM pg_authid WHERE rolname = '{}'",
        lab.name
    );
    let verifier = values(&lab.admin().await.query(&sql).await).remove(0);
    assert!(
        !lab.is_shared_after(&["SELECT 1"]).await,
        "nobody is in the file: all are relayed"
    );
    std::fs::write(&file, format!("\"{}\" \"{verifier}\"\n", lab.name)).unwrap();
    assert!(lab.is_shared_after(&["SELECT 1"]).await);
    let refused = lab.attempt(lab.port(), &lab.name, &[], "wrong").await;
    assert_eq!(sqlstate(&refused.greeting).unwrap(), "28P01");
}

#[tokio::test]
async fn a_login_that_goes_wrong_ends() {
    let lab = Lab::start().await;
    let parameters = [("user", lab.name.as_str()), ("database", lab.name.as_str())];
    for said in [
        frames::frame('p', b"SCRAM-SHA-256\0\0\0\0\x05n,,n="),
        frames::frame('p', b"SCRAM-SHA-256-PLUS\0\0\0\0\x0en,,n=,r=aaaaaa"),
        frames::frame('p', b"PLAIN\0\0\0\0\x00"),
        frames::frame('p', b""),
        frames::query("SELECT 1"),
        b"p\x7f\xff\xff\xff".to_vec(),
        b"p\0\0\0\x01".to_vec(),
    ] {
        let mut client = Client::raw(lab.port()).await;
        client.send(&frames::startup_packet(&parameters)).await;
        assert_eq!(client.frame().await.unwrap().tag(), 'R');
        client.send(&said).await;
        let rest = client.until('Z').await;
        assert!(
            rest.is_empty() || sqlstate(&rest).is_some_and(|state| state == "08P01"),
            "{rest:?}"
        );
    }
    lab.session().await;
}

// ---- what a session may leave ----

#[tokio::test]
async fn a_new_session_begins_with_what_was_changed_for_it_meanwhile() {
    let lab = Lab::start().await;
    let setting = "SHOW default_transaction_isolation";
    for change in [
        "ALTER ROLE {} SET default_transaction_isolation = 'serializable'",
        "ALTER ROLE {} RESET default_transaction_isolation; ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'",
        "ALTER ROLE {} IN DATABASE {} SET default_transaction_isolation = 'read uncommitted'",
    ] {
        lab.leave(lab.session().await).await;
        lab.run(&change.replace("{}", &lab.name)).await;
        let expected = values(&lab.direct().await.query(setting).await);
        assert_eq!(
            values(&lab.session().await.query(setting).await),
            expected,
            "{change}"
        );
    }
}

#[tokio::test]
async fn statements_whose_traces_a_reset_removes_leave_a_backend_to_share() {
    let lab = Lab::start().await;
    lab.run(
        "CREATE TABLE t (x int); GRANT SELECT ON t TO PUBLIC; CREATE VIEW v AS SELECT lower(x::text) FROM t; \
         GRANT SELECT ON v TO PUBLIC; \
         CREATE FUNCTION never_called() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'; \
         CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER fires AFTER INSERT ON t EXECUTE FUNCTION fires()",
    )
    .await;
    for statements in [
        &[][..],
        &["SELECT sum(x), date_trunc('month', now()) FROM t"],
        &["SELECT * FROM v"],
        &[
            "BEGIN",
            "SET LOCAL search_path = public",
            "SELECT 1",
            "ROLLBACK",
        ],
        &["BEGIN", "SELECT broken"],
        &["SET statement_timeout = '1min'"],
    ] {
        assert!(lab.is_shared_after(statements).await, "{statements:?}");
    }
}

#[tokio::test]
async fn statements_that_may_leave_more_end_their_backend() {
    let lab = Lab::start().await;
    lab.run("GRANT ALL ON SCHEMA public TO PUBLIC; CREATE SCHEMA other; GRANT ALL ON SCHEMA other TO PUBLIC").await;
    for statements in [
        &["SET my.own = 'x'"][..],
        &["SELECT set_config('my.own', 'x', true)"],
        &["CREATE TEMP TABLE t (x int)"],
        &["LISTEN news"],
        &["SELECT pg_advisory_lock(1)"],
        &["DO 'BEGIN PERFORM set_config(''my.own'', ''x'', true); END'"],
        &["SELECT 1; SET my.own = 'x'"],
        &["CREATE TABLE t (x int)"],
    ] {
        assert!(!lab.is_shared_after(statements).await, "{statements:?}");
    }
}

#[tokio::test]
async fn where_a_user_s_code_may_run_unseen_no_backend_is_shared() {
    let lab = Lab::start().await;
    let hide = "SELECT set_config('my.own', 'x', false)";
    for (made, used, unmade) in [
        (
            format!("CREATE VIEW v AS {hide} AS x; GRANT SELECT ON v TO PUBLIC"),
            "SELECT * FROM v",
            "DROP VIEW v",
        ),
        (
            format!("CREATE FUNCTION lower(int) RETURNS text LANGUAGE sql AS $f${hide}$f$"),
            "SELECT lower(1)",
            "DROP FUNCTION lower(int)",
        ),
        (
            format!(
                "CREATE FUNCTION hidden(point, int) RETURNS text LANGUAGE sql AS $f${hide}$f$; \
                 CREATE OPERATOR <<<< (LEFTARG = point, RIGHTARG = int, FUNCTION = hidden)"
            ),
            "SELECT CAST('1,2' AS point) <<<< 1",
            "DROP FUNCTION hidden CASCADE",
        ),
        (
            format!(
                "CREATE TYPE pair AS (a int, b int); \
                 CREATE FUNCTION shown(pair) RETURNS text LANGUAGE sql AS $f${hide}$f$"
            ),
            "SELECT (CAST('(1,2)' AS pair)).shown",
            "DROP TYPE pair CASCADE",
        ),
        (
            "CREATE DOMAIN noted AS text CHECK (set_config('my.own', VALUE, false) IS NOT NULL)"
                .to_owned(),
            "SELECT CAST('x' AS noted)",
            "DROP DOMAIN noted",
        ),
    ] {
        assert!(lab.is_shared_after(&["SELECT 1"]).await);
        lab.run(&made).await;
        let mut session = lab.session().await;
        ok(&mut session, used).await;
        lab.leave(session).await;
        let mut next = lab.session().await;
        let left = rows(
            &next
                .query("SELECT current_setting('my.own', true) IS NULL")
                .await,
        );
        assert_eq!(left, ["t"], "{made}");
        lab.leave(next).await;
        lab.run(unmade).await;
    }
}

// ---- faults ----

#[tokio::test]
async fn a_backend_that_was_ended_while_it_waited_serves_nobody() {
    let lab = Lab::start().await;
    let session = lab.session().await;
    let pid = session.backend_pid();
    lab.leave(session).await;
    lab.run(&format!("SELECT pg_terminate_backend({pid}, 5000)"))
        .await;
    let mut next = lab.session().await;
    assert_ne!(next.backend_pid(), pid);
    ok(&mut next, "SELECT 1").await;
    // And one that is ended under a session tells it what PostgreSQL tells.
    let pid = next.backend_pid();
    lab.run(&format!("SELECT pg_terminate_backend({pid}, 5000)"))
        .await;
    let last = next.until('Z').await;
    assert_eq!(sqlstate(&last).unwrap(), "57P01");
}

#[tokio::test]
async fn waiting_backends_make_room_for_others() {
    let server = start(13).await;
    let lab = Lab::on(&server, "").await;
    let mut open = vec![];
    for name in ["a", "b", "c"] {
        open.push(lab.session_with(&[("application_name", name)]).await);
    }
    for session in open {
        lab.leave(session).await;
    }
    let mut taken = vec![];
    // Three slots are for superusers, and pgstar's own connections take theirs.
    let full = loop {
        let client = lab
            .attempt(
                lab.port(),
                &lab.name,
                &[("application_name", "d")],
                PASSWORD,
            )
            .await;
        if !tags(&client.greeting).ends_with('Z') {
            break client;
        }
        taken.push(client);
        assert!(taken.len() <= 13);
    };
    assert_eq!(sqlstate(&full.greeting).unwrap(), "53300");
    let slots: Vec<String> = rows(
        &lab.admin()
            .await
            .query("SELECT application_name FROM pg_stat_activity WHERE usename LIKE 'pool_%' ORDER BY 1")
            .await,
    );
    assert!(slots.iter().all(|name| name == "d"), "{slots:?}");
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_nothing_running() {
    let lab = Lab::start().await;
    let mut session = lab.session().await;
    let pid = session.backend_pid();
    session.send(&frames::query("SELECT pg_sleep(60)")).await;
    let mut admin = lab.admin().await;
    let running =
        format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'");
    until(&mut admin, &running, "1").await;
    drop(session);
    let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    until(&mut admin, &there, "0").await;
    // Amid a transaction, the transaction is over and the backend as good as new.
    let mut session = lab.session().await;
    ok(&mut session, "BEGIN").await;
    ok(&mut session, "SELECT count(*) FROM pg_class").await;
    let pid = session.backend_pid();
    drop(session);
    let reset = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query = 'DISCARD ALL' AND state = 'idle'"
    );
    until(&mut admin, &reset, "1").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut next = lab.session().await;
    assert_eq!(next.backend_pid(), pid);
    assert_eq!(next.greeting.last().unwrap().body(), b"I");
    ok(&mut next, "SELECT 1").await;
}

/// How many bytes apart the places are at which a client leaves: a login takes its time.
const LEAVING_STEP: usize = 11;

/// Logs in and talks, but leaves once it has said so many bytes; how many it has said.
async fn talk(lab: &Lab, bytes_max: usize) -> usize {
    let startup = [("user", lab.name.as_str()), ("database", lab.name.as_str())];
    let mut client = Client::raw(lab.port()).await;
    let mut scram = ScramSha256::new(PASSWORD.as_bytes(), ChannelBinding::unsupported());
    let statements = [
        frames::query("BEGIN"),
        frames::batch("SELECT count(*) FROM pg_class"),
        frames::query("COPY (SELECT 1) TO STDOUT"),
        frames::query("ROLLBACK"),
        frames::frame('X', b""),
    ];
    let mut statements = statements.into_iter();
    let mut out = frames::startup_packet(&startup);
    let mut said = 0;
    loop {
        let part = out.len().min(bytes_max - said);
        client.send(&out[..part]).await;
        said += part;
        let is_over = out.first() == Some(&b'X');
        if part < out.len() || is_over {
            return said;
        }
        out = loop {
            let frame = client.frame().await.unwrap();
            let mut answer = BytesMut::new();
            match (frame.tag(), frame.body()) {
                ('R', [0, 0, 0, 10, ..]) => {
                    frontend::sasl_initial_response("SCRAM-SHA-256", scram.message(), &mut answer)
                        .unwrap();
                }
                ('R', [0, 0, 0, 11, first @ ..]) => {
                    scram.update(first).unwrap();
                    frontend::sasl_response(scram.message(), &mut answer).unwrap();
                }
                ('Z', _) => break statements.next().unwrap(),
                _ => continue,
            }
            break answer.to_vec();
        };
    }
}

#[tokio::test]
async fn a_client_may_leave_after_any_byte_of_its_login_and_of_its_session() {
    let lab = Lab::start().await;
    let total = talk(&lab, usize::MAX).await;
    for bytes_max in (0..total).step_by(LEAVING_STEP) {
        assert_eq!(talk(&lab, bytes_max).await, bytes_max);
    }
    // Whatever waits now is as good as new, and nothing else is left.
    let mut admin = lab.admin().await;
    let busy = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND state <> 'idle'",
        lab.name
    );
    until(&mut admin, &busy, "0").await;
    let mut session = lab.session().await;
    assert_eq!(session.greeting.last().unwrap().body(), b"I");
    assert_eq!(values(&ok(&mut session, "SELECT 1").await), ["1"]);
}

async fn until(session: &mut Client, sql: &str, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    while values(&session.query(sql).await) != [expected] {
        assert!(Instant::now() < deadline, "{sql} is not {expected}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_restart_of_the_server_is_survived() {
    let server = start(50).await;
    let lab = Lab::on(&server, "").await;
    let session = lab.session().await;
    let before = session.backend_pid();
    lab.leave(session).await;
    let mut admin = lab.admin().await;
    let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    ok(&mut admin, all).await;
    // pgstar's own connections are gone, too: logins go on all the same.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let client = lab.attempt(lab.port(), &lab.name, &[], PASSWORD).await;
        if tags(&client.greeting).ends_with('Z') {
            assert_ne!(client.backend_pid(), before);
            break;
        }
        assert!(Instant::now() < deadline, "{:?}", client.greeting);
    }
}

// ---- cancelling ----

fn cancel_packet(key_data: &[u8]) -> Vec<u8> {
    [&b"\0\0\0\x10\x04\xd2\x16\x2e"[..], key_data].concat()
}

async fn cancel(port: u16, key_data: &[u8]) {
    let mut canceller = Client::raw(port).await;
    canceller.send(&cancel_packet(key_data)).await;
    assert_eq!(canceller.frame().await, None);
}

#[tokio::test]
async fn a_cancel_request_reaches_its_session_and_no_other() {
    let lab = Lab::start().await;
    let mut session = lab.session().await;
    let key = session.key_data().to_vec();
    session.send(&frames::query("SELECT pg_sleep(60)")).await;
    let running = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND state = 'active'",
        session.backend_pid()
    );
    until(&mut lab.admin().await, &running, "1").await;
    cancel(lab.port(), &key).await;
    assert_eq!(sqlstate(&session.until_ready().await).unwrap(), "57014");
    let pid = session.backend_pid();
    lab.leave(session).await;
    let mut next = lab.session().await;
    assert_eq!(next.backend_pid(), pid);
    next.send(&frames::query("SELECT pg_sleep(0.3)")).await;
    cancel(lab.port(), &key).await;
    assert_eq!(sqlstate(&next.until_ready().await), None);
}

/// Sessions that are cancelled all the time, also as they end, beside sessions that nobody cancels, on the
/// same backends: none of the latter ever notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_requests_never_hit_the_next_session() {
    let lab = Arc::new(Lab::start().await);
    let is_over = Arc::new(AtomicBool::new(false));
    let mut noisy = vec![];
    for number in 0..4_u64 {
        let (lab, is_over) = (Arc::clone(&lab), Arc::clone(&is_over));
        noisy.push(tokio::spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let mut session = lab.session().await;
                let key = session.key_data().to_vec();
                let port = lab.port();
                let cancels: Vec<_> = (0..3)
                    .map(|nth| {
                        let key = key.clone();
                        tokio::spawn(async move {
                            tokio::time::sleep(Duration::from_micros(300 * (nth + number))).await;
                            cancel(port, &key).await;
                        })
                    })
                    .collect();
                session.query("SELECT pg_sleep(0.001)").await;
                session.send(&frames::frame('X', b"")).await;
                drop(session);
                for cancel in cancels {
                    cancel.await.unwrap();
                }
            }
        }));
    }
    let mut shared = 0;
    let mut pids = std::collections::HashSet::new();
    for _ in 0..150 {
        let mut session = lab.session().await;
        shared += u32::from(!pids.insert(session.backend_pid()));
        let answer = session.query("SELECT pg_sleep(0.002)").await;
        assert_eq!(sqlstate(&answer), None);
        session.send(&frames::frame('X', b"")).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for task in noisy {
        task.await.unwrap();
    }
    // Otherwise this shows nothing.
    assert!(shared > 50, "only {shared} sessions shared a backend");
}

// ---- what drivers say around their question ----

/// A chart of Superset's, statement by statement, with PostgreSQL's bytes beside pgstar's.
#[tokio::test]
async fn a_preamble_is_answered_byte_for_byte() {
    let lab = Lab::start().await;
    let question = "SELECT relkind, count(*) FROM pg_class GROUP BY 1 ORDER BY 1";
    let statements = [
        "BEGIN",
        "SELECT t.oid, typarray\nFROM pg_type t JOIN pg_namespace ns\n    ON typnamespace = ns.oid\nWHERE typname = 'hstore';\n",
        "ROLLBACK",
        "BEGIN",
        "select pg_catalog.version()",
        "select current_schema()",
        "show transaction isolation level",
        "show standard_conforming_strings",
        "ROLLBACK",
        "BEGIN",
        "set search_path = \"ssb\"",
        "show search_path",
        question,
        "ROLLBACK",
        "show search_path",
        "SHOW TimeZone;",
        "set TimeZone = 'Asia/Tokyo'",
        "SHOW TimeZone",
        "begin",
        "set search_path = public, \"a b\"",
        "rollback",
        "begin",
        "set search_path = \"kept\"",
        "commit",
        "show search_path",
        "BEGIN",
        "BEGIN",
        "select broken",
        "ROLLBACK",
        "ROLLBACK",
        "set search_path = \"kept\", \"too\"",
        "select current_schemas(false)::text",
    ];
    let mut pid = 0;
    for round in 0..3 {
        let mut direct = lab.direct().await;
        let mut through = lab.session().await;
        assert!(round == 0 || through.backend_pid() == pid, "round {round}");
        pid = through.backend_pid();
        for sql in statements {
            assert_eq!(through.query(sql).await, direct.query(sql).await, "{sql}");
        }
        lab.leave(through).await;
    }
}

/// A port from which everything goes to the server at once, and what the server says comes back gathered.
async fn gathering(server: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
            let ((mut said, mut back), (mut answered, mut on)) =
                (near.into_split(), far.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut said, &mut on).await });
            tokio::spawn(async move {
                let mut bytes = vec![];
                while answered.read_buf(&mut bytes).await? > 0 {
                    let gathering = async {
                        while answered.read_buf(&mut bytes).await? > 0 {}
                        Ok::<_, std::io::Error>(())
                    };
                    let _over = tokio::time::timeout(GATHERED_FOR, gathering).await;
                    back.write_all(&bytes).await?;
                    bytes.clear();
                }
                back.shutdown().await
            });
        }
    });
    port
}

/// Longer than PostgreSQL takes from one reply to the next.
const GATHERED_FOR: Duration = Duration::from_millis(30);

/// What PostgreSQL answers to a transaction's begin and to pgstar's own question may come in one piece.
#[tokio::test]
async fn replies_that_come_together_are_told_apart() {
    let server = server().await;
    let lab = Lab::behind(server, gathering(server.port()).await, "").await;
    lab.run("CREATE TABLE kept AS SELECT n % 3 AS x FROM generate_series(1, 100) n")
        .await;
    lab.run(&format!("GRANT SELECT ON kept TO {}", lab.name))
        .await;
    let question = "SELECT x, count(*) FROM kept GROUP BY x ORDER BY x";
    let mut direct = lab.direct().await;
    for _ in 0..3 {
        let mut through = lab.session().await;
        for sql in [
            "BEGIN",
            question,
            "ROLLBACK",
            "BEGIN",
            "SHOW TimeZone",
            question,
            question,
            "ROLLBACK",
        ] {
            assert_eq!(through.query(sql).await, direct.query(sql).await, "{sql}");
        }
        // As drivers do that prepare.
        through.send(&frames::query("BEGIN")).await;
        assert_eq!(through.until_ready().await, direct.query("BEGIN").await);
        let batch = frames::batch(question);
        assert_eq!(
            through.exchange(&batch).await,
            direct.exchange(&batch).await
        );
        assert_eq!(through.query("COMMIT").await, direct.query("COMMIT").await);
        lab.leave(through).await;
    }
}

/// PostgreSQL has begun the transaction that the client was told of, though the client did not wait for it.
#[tokio::test]
async fn a_transaction_begins_when_it_is_begun() {
    let lab = Lab::start().await;
    let mut session = lab.session().await;
    ok(&mut session, "BEGIN").await;
    let begun = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND state = 'idle in transaction'",
        session.backend_pid()
    );
    until(&mut lab.admin().await, &begun, "1").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let elapsed = "SELECT clock_timestamp() - now() > '100 ms'";
    assert_eq!(values(&session.query(elapsed).await), ["t"]);
    ok(&mut session, "ROLLBACK").await;
    // And one that is pipelined behind is answered in its turn.
    let both = [frames::query("BEGIN"), frames::query("SELECT 1")].concat();
    session.send(&both).await;
    assert_eq!(tags(&session.until_ready().await), "CZ");
    assert_eq!(tags(&session.until_ready().await), "TDCZ");
    ok(&mut session, "ROLLBACK").await;
    // What comes in the extended protocol right after waits for its turn, too.
    session.send(&frames::query("BEGIN")).await;
    assert_eq!(tags(&session.until_ready().await), "CZ");
    assert_eq!(
        tags(&session.exchange(&frames::batch("SELECT 2")).await),
        "12TDCZ"
    );
    assert_eq!(
        tags(&session.query("select pg_catalog.version()").await),
        "TDCZ"
    );
    assert_eq!(
        tags(
            &session
                .exchange(&[frames::bind("", ""), frames::sync()].concat())
                .await
        ),
        "EZ"
    );
}

/// What others may change at any time is asked at any time.
#[tokio::test]
async fn a_changed_catalog_is_seen_by_the_next_statement() {
    // A reload makes every waiting backend stale.
    let server = start(50).await;
    let lab = Lab::on(&server, "").await;
    lab.leave(lab.session().await).await;
    let mut session = lab.session().await;
    let schema = "select current_schema()";
    assert_eq!(values(&session.query(schema).await), ["public"]);
    lab.run(&format!("CREATE SCHEMA AUTHORIZATION {}", lab.name))
        .await;
    assert_eq!(values(&session.query(schema).await), [lab.name.as_str()]);
    let isolation = "show transaction isolation level";
    assert_eq!(values(&session.query(isolation).await), ["read committed"]);
    let set = "ALTER SYSTEM SET default_transaction_isolation = 'repeatable read'";
    lab.run(set).await;
    lab.run("SELECT pg_reload_conf()").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(values(&session.query(isolation).await), ["repeatable read"]);
    lab.run("ALTER SYSTEM RESET default_transaction_isolation")
        .await;
    lab.run("SELECT pg_reload_conf()").await;
}

/// What was learnt of names when the backend was new is forgotten with any commit that may have changed them, also amid a
/// session whose statements PostgreSQL has not seen.
#[tokio::test]
async fn names_are_those_of_the_last_commit() {
    let lab = Lab::start().await;
    let hstore = "SELECT t.oid, typarray FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid WHERE typname = 'hstore'";
    let schema = "select current_schema()";
    lab.leave(lab.session().await).await;
    for change in [
        "CREATE TYPE public.hstore AS ENUM ('a')",
        "ALTER TYPE public.hstore RENAME TO other",
        "CREATE SCHEMA AUTHORIZATION {}",
        "REVOKE USAGE ON SCHEMA {} FROM {}; ALTER SCHEMA {} OWNER TO postgres",
        "CREATE ROLE {}_readers; GRANT USAGE ON SCHEMA {} TO {}_readers; GRANT {}_readers TO {}",
        "ALTER ROLE {} NOINHERIT",
        "ALTER SCHEMA {} RENAME TO {}_gone",
        "REVOKE USAGE ON SCHEMA public FROM PUBLIC",
        "SELECT 1",
    ] {
        let mut session = lab.session().await;
        let mut told = vec![];
        for sql in ["BEGIN", hstore, schema, "ROLLBACK", "BEGIN"] {
            told.push((sql, session.query(sql).await));
        }
        lab.run(&change.replace("{}", &lab.name)).await;
        for sql in [hstore, schema, "ROLLBACK", schema] {
            told.push((sql, session.query(sql).await));
        }
        let mut direct = lab.direct().await;
        for (at, sql) in [(5, hstore), (6, schema), (8, schema)] {
            assert_eq!(
                rows(&told[at].1),
                rows(&direct.query(sql).await),
                "{change}: {sql}"
            );
        }
        assert!(told.iter().all(|(_, said)| tags(said).ends_with('Z')));
        lab.leave(session).await;
    }
    let readers = format!("{}_readers", lab.name);
    lab.run(&format!("DROP OWNED BY {readers}; DROP ROLE {readers}"))
        .await;
}

const SALES: &str = "SELECT region, sum(amount) FROM sales GROUP BY region ORDER BY 1";

/// A server of its own, where nobody else commits anything, and sales that a rollup sums up.
async fn sales_lab(server: &Server) -> Lab {
    let rollup = rollup_toml(
        "by_region",
        "SELECT region, sum(amount), count(*) FROM sales GROUP BY region",
    );
    let lab = Lab::on(server, &rollup).await;
    lab.run(&format!(
        "CREATE TABLE sales (id serial PRIMARY KEY, region text, amount int); GRANT SELECT ON sales TO {}; \
         INSERT INTO sales (region, amount) SELECT i % 3, i FROM generate_series(1, 100) i",
        lab.name
    ))
    .await;
    lab.proxy.keep_rollups();
    let mut session = lab.session().await;
    until_decision(&mut session, SALES, "rollup", PATIENCE).await;
    lab.leave(session).await;
    lab
}

/// As a dashboard's, up to its question.
async fn dashboard_session(lab: &Lab) -> Client {
    let mut session = lab.session().await;
    for sql in ["BEGIN", "select current_schema()", "ROLLBACK", "BEGIN"] {
        ok(&mut session, sql).await;
    }
    session
}

/// Where nothing was committed one question to the server shows all that an answer depends on; and whatever is committed,
/// just before the question too, is in the answer.
#[tokio::test]
async fn a_question_sees_every_commit_and_every_right() {
    let server = start(50).await;
    let lab = sales_lab(&server).await;
    for change in [
        "SELECT 1",
        "INSERT INTO sales (region, amount) VALUES ('new', 1)",
        "REVOKE SELECT ON sales FROM {}",
        "GRANT SELECT ON sales TO {}",
        "ALTER TABLE sales ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE sales DISABLE ROW LEVEL SECURITY",
        "UPDATE sales SET amount = amount + 1",
        "DELETE FROM sales WHERE region = 'new'",
        "TRUNCATE sales",
    ] {
        for is_calm in [true, true, false, true] {
            let mut session = dashboard_session(&lab).await;
            if !is_calm {
                lab.run(&change.replace("{}", &lab.name)).await;
            }
            let (told, mut direct) = (session.query(SALES).await, lab.direct().await);
            let expected = direct.query(SALES).await;
            assert_eq!(rows(&told), rows(&expected), "{change}");
            assert_eq!(sqlstate(&told), sqlstate(&expected), "{change}");
            lab.leave(session).await;
        }
    }
}

#[tokio::test]
async fn where_nothing_was_committed_a_question_is_one_to_the_server() {
    let server = start(50).await;
    let lab = sales_lab(&server).await;
    let mut admin = lab.admin().await;
    let mut observer = lab.attempt(lab.port(), "postgres", &[], PASSWORD).await;
    // The guard's, which only it asks by itself.
    let asked = format!(
        "SELECT coalesce(max(query_start)::text, '') FROM pg_stat_activity \
         WHERE datname = '{}' AND query = $$SELECT {VISIBLE}$$",
        lab.name
    );
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut session = dashboard_session(&lab).await;
        let answered = answers(&mut observer).await;
        // Nothing else in between: the guard also asks every second.
        let before = values(&admin.query(&asked).await);
        assert_eq!(rows(&session.query(SALES).await).len(), 3);
        let was_asked = values(&admin.query(&asked).await) != before;
        let was_answered = answers(&mut observer).await > answered;
        lab.leave(session).await;
        if was_answered && !was_asked && before != [""] {
            return;
        }
        assert!(Instant::now() < deadline);
    }
}

/// A transaction that only asked what is known does not reach PostgreSQL, and its backend needs no reset.
#[tokio::test]
async fn what_is_undone_at_once_never_happens() {
    let lab = Lab::start().await;
    lab.leave(lab.session().await).await;
    let mut session = lab.session().await;
    let pid = session.backend_pid();
    let changed_at = format!("SELECT state_change::text FROM pg_stat_activity WHERE pid = {pid}");
    let mut admin = lab.admin().await;
    // From PostgreSQL 18 on the server reports what it is set to.
    let version = values(&admin.query("SHOW server_version_num").await);
    let is_reported = version[0].parse::<u32>().unwrap() >= 180_000;
    let told = if is_reported { "CSZ" } else { "CZ" };
    // On a machine that is held up in between, the transaction is sent after all: try again.
    let mut was_silent = false;
    for _ in 0..100 {
        let before = values(&admin.query(&changed_at).await);
        assert_eq!(tags(&session.query("BEGIN").await), "CZ");
        for sql in ["set search_path = \"nowhere\"", "ROLLBACK"] {
            assert_eq!(tags(&session.query(sql).await), told);
        }
        was_silent |= values(&admin.query(&changed_at).await) == before;
    }
    assert!(was_silent != is_reported);
    assert_eq!(
        values(&session.query("SHOW search_path").await),
        ["\"$user\", public"]
    );
    // What was set and not undone is there for the next statement, whatever protocol it comes in.
    ok(&mut session, "BEGIN").await;
    assert_eq!(
        tags(&session.query("set search_path = \"kept\"").await),
        told
    );
    let shown = session
        .exchange(&frames::batch(
            "SELECT current_setting('search_path')::text",
        ))
        .await;
    assert_eq!(values(&shown), ["kept"]);
    ok(&mut session, "ROLLBACK").await;
}

/// A backend that ends while it owes a reply that the client has: the client gets its last words.
#[tokio::test]
async fn a_backend_that_ends_amid_a_preamble_says_why() {
    let lab = Lab::start().await;
    let mut session = lab.session().await;
    let pid = session.backend_pid();
    lab.run(&format!("SELECT pg_terminate_backend({pid}, 5000)"))
        .await;
    session.send(&frames::query("BEGIN")).await;
    let said = session.until('E').await;
    assert_eq!(sqlstate(&said).unwrap(), "57P01");
    assert_eq!(session.frame().await, None);
}

// ---- random sessions ----

/// Everything that moves the state of a session or a transaction, and what shows it.
/// How many of the steps leave nothing that a reset does not remove.
const TAME: usize = 24;
const STEPS: [&str; 44] = [
    // Of these, every trace can be removed.
    "SHOW TimeZone",
    "SHOW search_path",
    "SELECT t.oid, typarray FROM pg_type t JOIN pg_namespace ns ON typnamespace = ns.oid WHERE typname = 'hstore'",
    "SELECT 1/0",
    "select pg_catalog.version()",
    "select current_schema()",
    "show transaction isolation level",
    "show standard_conforming_strings",
    "",
    "SELECT x FROM s.kept ORDER BY x",
    "set search_path = \"s\"",
    "set search_path = public, \"s\"",
    "SET TimeZone = 'Asia/Tokyo'",
    "SET LOCAL TimeZone = 'Europe/Berlin'",
    "SET DateStyle = 'German'",
    "SELECT current_user, session_user, current_schemas(false), current_setting('my.own', true) IS NULL",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "RELEASE a",
    "BEGIN",
    "BEGIN",
    "ROLLBACK",
    "ROLLBACK",
    "begin;",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION READ ONLY",
    "COMMIT",
    "END",
    "SET LOCAL search_path = s",
    "RESET search_path",
    "RESET ALL",
    "DISCARD ALL",
    "SET ROLE none",
    "SET ROLE pg_monitor",
    "SET SESSION AUTHORIZATION DEFAULT",
    "RESET SESSION AUTHORIZATION",
    "SELECT set_config('my.own', 'x', false)",
    "SELECT set_config('search_path', 's', true)",
    "CREATE TEMP TABLE IF NOT EXISTS t (x int)",
    "SELECT count(*) FROM t",
    "DROP TABLE IF EXISTS pg_temp.t",
    "INSERT INTO s.kept VALUES (7)",
    "SELECT 1; SELECT 2",
    "PREPARE p AS SELECT 1; DEALLOCATE p",
];

/// A source of choices (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit
    }

    fn step(&mut self, is_tame: bool) -> Vec<u8> {
        let sql = STEPS[self.below(if is_tame { TAME } else { STEPS.len() })];
        match self.below(10) {
            0 | 1 => frames::batch(sql),
            2 if !is_tame => [frames::query(sql), frames::query("SHOW TimeZone")].concat(),
            _ => frames::query(sql),
        }
    }
}

/// How many ReadyForQuery frames these bytes of a client are answered with.
fn readies(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut count = 0;
    while let Ok(Some(header)) = pgstar::wire::header(rest) {
        count += usize::from(matches!(header.tag, b'Q' | b'S'));
        rest = &rest[header.total..];
    }
    count
}

async fn told(session: &mut Client, bytes: &[u8]) -> Vec<Frame> {
    session.send(bytes).await;
    let mut frames = vec![];
    for _ in 0..readies(bytes) {
        frames.extend(session.until_ready().await);
    }
    frames
}

#[tokio::test]
async fn random_sessions_on_shared_backends_get_the_same_bytes() {
    let lab = Lab::start().await;
    let prepare = "CREATE SCHEMA s; GRANT ALL ON SCHEMA s TO PUBLIC; CREATE TABLE s.kept (x int UNIQUE); \
                   INSERT INTO s.kept VALUES (1), (2); GRANT ALL ON s.kept TO PUBLIC";
    lab.run(prepare).await;
    let seed = std::env::var("PGSTAR_RANDOM_SEED").map_or(1_u64, |seed| seed.parse().unwrap());
    let (mut pids, mut shared) = (std::collections::HashSet::new(), 0);
    for session in 0..60 {
        let mut dice = Dice((seed + session).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut direct = lab.direct().await;
        let mut through = lab.session().await;
        shared += u32::from(!pids.insert(through.backend_pid()));
        assert_eq!(comparable(&through.greeting), comparable(&direct.greeting));
        let mut said: Vec<String> = vec![];
        for _ in 0..1 + dice.below(25) {
            let step = dice.step(session % 2 == 0);
            said.push(step.escape_ascii().to_string());
            // One after the other, so that neither waits for a lock of the other's.
            let writes = said.last().is_some_and(|step| step.contains("INSERT"));
            let is_idle = |frames: &[Frame]| frames.last().is_some_and(|it| it.body() == b"I");
            let state = told(&mut direct, &frames::query("")).await;
            if writes && !is_idle(&state) {
                said.pop();
                told(&mut through, &frames::query("")).await;
                continue;
            }
            assert_eq!(
                told(&mut through, &frames::query("")).await,
                state,
                "session {session} after {said:#?}"
            );
            let expected = told(&mut direct, &step).await;
            if writes {
                // A transaction's own pipeline may have left it open.
                lab.run("DELETE FROM s.kept WHERE x = 7").await;
            }
            let got = told(&mut through, &step).await;
            if writes {
                lab.run("DELETE FROM s.kept WHERE x = 7").await;
            }
            assert_eq!(got, expected, "session {session} after {said:#?}");
        }
        lab.leave(through).await;
    }
    // Otherwise this shows nothing.
    assert!(shared >= 15, "only {shared} sessions shared a backend");
}
