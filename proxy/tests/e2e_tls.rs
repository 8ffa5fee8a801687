//! TLS on both sides of pgstar: libpq and others connect as they do to PostgreSQL, and who must be refused is refused.

#![allow(clippy::unwrap_used)]

mod e2e_support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use e2e_support::frames::values;
use e2e_support::process::{ConfigFile, Ran, Serving, run};
use e2e_support::{Client, error, frames, ok, sqlstate};
use pgstar::config::Config;
use pgstar::serve::Proxy;
use pgstar_postgres::replication::ReplicationConnection;
use pgstar_postgres::server::{Authentication, InstallPolicy, Server, ServerOptions};
use pgstar_postgres::tls::{ClientTls, SslMode, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

const PASSWORD: &str = "secret";
static NAMES: AtomicU32 = AtomicU32::new(0);

/// Certificates of one authority: for pgstar, for PostgreSQL and for a client, all under the name of this machine.
struct Authority {
    directory: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority {
            directory: tempfile::tempdir().unwrap(),
            issuer,
        };
        std::fs::write(authority.file("root"), authority.issuer.pem()).unwrap();
        authority
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// Writes `name` and `name.key`: a certificate for this host.
    fn issue(&self, name: &str, host: &str) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(self.file(name), certificate.pem()).unwrap();
        let key_file = self.file(&format!("{name}.key"));
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        // libpq wants keys to be their owner's alone.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(key_file, mode).unwrap();
    }
}

/// A server with TLS, for roles that log in by SCRAM; and the authority of its certificate.
struct Stand {
    server: Server,
    authority: Authority,
}

async fn stand() -> &'static Stand {
    static STAND: OnceCell<Stand> = OnceCell::const_new();
    let start = || async {
        let authority = Authority::new();
        authority.issue("server", "127.0.0.1");
        authority.issue("proxy", "127.0.0.1");
        authority.issue("client", "client");
        let server = Server::start(ServerOptions {
            install: InstallPolicy::Never,
            authentication: Authentication::ScramSha256(PASSWORD.to_owned()),
            max_connections: Some(100),
            ..ServerOptions::default()
        })
        .await
        .unwrap();
        let mut admin = plain_session(server.port(), "postgres", "postgres").await;
        // Written by the server itself: its key must be its account's own.
        for file in ["server", "server.key"] {
            let pem = std::fs::read_to_string(authority.file(file)).unwrap();
            let write = format!(
                "COPY (SELECT unnest(string_to_array('{}', '|'))) TO PROGRAM 'cat > {file}.pem; chmod 600 {file}.pem'",
                pem.trim().replace('\n', "|")
            );
            ok(&mut admin, &write).await;
        }
        for set in [
            "ssl_cert_file = 'server.pem'",
            "ssl_key_file = 'server.key.pem'",
            "ssl = on",
        ] {
            ok(&mut admin, &format!("ALTER SYSTEM SET {set}")).await;
        }
        ok(&mut admin, "SELECT pg_reload_conf()").await;
        let deadline = std::time::Instant::now() + e2e_support::PATIENCE;
        let shows = "SHOW ssl";
        while values(
            &plain_session(server.port(), "postgres", "postgres")
                .await
                .query(shows)
                .await,
        ) != ["on"]
        {
            assert!(std::time::Instant::now() < deadline, "{}", server.log());
        }
        Stand { server, authority }
    };
    STAND.get_or_init(start).await
}

impl Stand {
    /// Puts lines before the others of pg_hba.conf, and a map for certificates.
    async fn add_rules(&self, rules: &str, map: &str) {
        static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let _turn = ONE_AT_A_TIME.lock().await;
        let mut admin = plain_session(self.server.port(), "postgres", "postgres").await;
        for (line, file) in [(rules, "pg_hba.conf"), (map, "pg_ident.conf")] {
            let put = format!(
                "COPY (SELECT '{line}') TO PROGRAM 'cat - {file} > new.conf; cat new.conf > {file}'"
            );
            ok(&mut admin, &put).await;
        }
        let pem = std::fs::read_to_string(self.authority.file("root")).unwrap();
        let write = format!(
            "COPY (SELECT unnest(string_to_array('{}', '|'))) TO PROGRAM 'cat > root.pem'",
            pem.trim().replace('\n', "|")
        );
        ok(&mut admin, &write).await;
        ok(&mut admin, "ALTER SYSTEM SET ssl_ca_file = 'root.pem'").await;
        let read_at = "SELECT pg_conf_load_time()";
        let before = values(&admin.query(read_at).await);
        ok(&mut admin, "SELECT pg_reload_conf()").await;
        // New sessions follow the rules once the postmaster has read them, which is when its time of reading is another.
        let deadline = std::time::Instant::now() + e2e_support::PATIENCE;
        loop {
            let mut fresh = plain_session(self.server.port(), "postgres", "postgres").await;
            if values(&fresh.query(read_at).await) != before {
                break;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "{}",
                self.server.log()
            );
        }
    }

    /// Takes pgstar's word for this user where it shows this certificate.
    async fn trust_certificate(&self, name: &str, user: &str) {
        let rule = format!("hostssl all {user} 127.0.0.1/32 cert map=pgstar");
        self.add_rules(&rule, &format!("pgstar {name} {user}"))
            .await;
    }

    /// Lets nobody into this database without TLS.
    async fn refuse_plain(&self, database: &str) {
        let rule = format!("hostnossl {database} all 127.0.0.1/32 reject");
        self.add_rules(&rule, "").await;
    }
}

async fn plain_session(port: u16, user: &str, database: &str) -> Client {
    Client::log_in(port, &[("user", user), ("database", database)], PASSWORD).await
}

/// A role and a database of one test's own.
struct Lab {
    name: String,
}

impl Lab {
    async fn new() -> Lab {
        let name = format!("tls_{}", NAMES.fetch_add(1, Ordering::Relaxed));
        let mut admin = plain_session(stand().await.server.port(), "postgres", "postgres").await;
        ok(&mut admin, &format!("CREATE DATABASE {name}")).await;
        ok(
            &mut admin,
            &format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'"),
        )
        .await;
        Lab { name }
    }

    fn text(&self, port: u16, listen: &str, query: &str, more: &str) -> String {
        format!(
            "[listen]\naddress = \"127.0.0.1:0\"\n{listen}\n[admin]\naddress = \"off\"\n\
             [upstream]\nurl = \"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/{}{query}\"\n{more}\n",
            self.name
        )
    }

    async fn proxy(&self, listen: &str, query: &str, more: &str) -> Proxy {
        let text = self.text(stand().await.server.port(), listen, query, more);
        let config = Config::from_text(Path::new("e2e.toml"), &text).unwrap();
        Proxy::start(&config)
            .await
            .unwrap_or_else(|failure| panic!("{}", failure.report()))
    }

    /// What libpq makes of a connection string.
    async fn psql(&self, port: u16, options: &str, sql: &str) -> Ran {
        let server = &stand().await.server;
        let beside = server.bin_dir().join("psql");
        let mut command = match beside.exists() {
            true => Command::new(beside),
            false => Command::new("psql"),
        };
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PGPASSWORD", PASSWORD)
            .args(["-X", "-A", "-t", "-c", sql])
            .arg(format!(
                "host=127.0.0.1 port={port} user={} dbname={} {options}",
                self.name, self.name
            ));
        run(command).await
    }

    async fn prints(&self, port: u16, options: &str, sql: &str, expected: &str) {
        let ran = self.psql(port, options, sql).await;
        assert_eq!(ran.out.trim(), expected, "{options}: {}", ran.err);
    }

    async fn is_refused(&self, port: u16, options: &str, because: &str) {
        let ran = self.psql(port, options, "SELECT 1").await;
        assert!(
            ran.code != Some(0) && ran.err.contains(because),
            "{options}: {ran:?}"
        );
    }
}

fn listen(authority: &Authority, more: &str) -> String {
    let (certificate, key) = (authority.path("proxy"), authority.path("proxy.key"));
    format!("tls_certificate = \"{certificate}\"\ntls_key = \"{key}\"\n{more}")
}

const SCRAM: &str = "[auth]\nmethod = \"scram\"";
/// Whether PostgreSQL sees the session's own connection encrypted.
const IS_ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

// ---- clients ----

#[tokio::test(flavor = "multi_thread")]
async fn libpq_connects_by_tls_as_it_asks() {
    let (lab, authority) = (Lab::new().await, &stand().await.authority);
    for more in ["", SCRAM] {
        let proxy = lab.proxy(&listen(authority, ""), "", more).await;
        let port = proxy.address().port();
        let root = authority.path("root");
        for options in [
            "sslmode=disable".to_owned(),
            "sslmode=prefer".to_owned(),
            "sslmode=require".to_owned(),
            "sslmode=prefer gssencmode=disable".to_owned(),
            format!("sslmode=verify-full sslrootcert={root}"),
        ] {
            // Behind pgstar the connection is plain.
            lab.prints(port, &options, IS_ENCRYPTED, "f").await;
        }
        let bound = "sslmode=require channel_binding=require";
        match more {
            // pgstar cannot bind what PostgreSQL checks to a connection that PostgreSQL does not see.
            "" => lab.is_refused(port, bound, "channel binding").await,
            _ => lab.prints(port, bound, "SELECT 1", "1").await,
        }
    }
    let proxy = lab.proxy("", "", "").await;
    lab.is_refused(
        proxy.address().port(),
        "sslmode=require",
        "does not support SSL",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_must_encrypt_or_be_vouched_for_is_refused_without() {
    let (lab, authority) = (Lab::new().await, &stand().await.authority);
    let proxy = lab
        .proxy(&listen(authority, "tls = \"require\""), "", "")
        .await;
    let port = proxy.address().port();
    lab.is_refused(port, "sslmode=disable", "connection requires TLS")
        .await;
    lab.prints(port, "sslmode=require", "SELECT 1", "1").await;

    let client_ca = format!("tls_client_ca = \"{}\"", authority.path("root"));
    let proxy = lab.proxy(&listen(authority, &client_ca), "", SCRAM).await;
    let port = proxy.address().port();
    let own = |authority: &Authority| {
        let (certificate, key) = (authority.path("client"), authority.path("client.key"));
        format!("sslmode=require sslcert={certificate} sslkey={key}")
    };
    lab.prints(port, &own(authority), "SELECT 1", "1").await;
    lab.is_refused(port, "sslmode=disable", "connection requires TLS")
        .await;
    lab.is_refused(port, "sslmode=require", "").await;
    let stranger = Authority::new();
    stranger.issue("client", "client");
    lab.is_refused(port, &own(&stranger), "").await;
}

async fn tls(
    port: u16,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let trusting = ClientTls::new(SslMode::Require, &TlsFiles::default()).unwrap();
    let mut config = rustls::ClientConfig::clone(trusting.config());
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_was_not_asked_for_must_name_the_protocol() {
    let (lab, authority) = (Lab::new().await, &stand().await.authority);
    let proxy = lab.proxy(&listen(authority, ""), "", "").await;
    let port = proxy.address().port();
    let startup = frames::startup_packet(&[("user", &lab.name), ("database", &lab.name)]);
    let mut answer = [0];
    let mut direct = tls(port, &[b"postgresql"]).await.unwrap();
    direct.write_all(&startup).await.unwrap();
    direct.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"R");
    for alpn in [&[][..], &[&b"http/1.1"[..]]] {
        // Refused in the handshake, or right after it.
        if let Ok(mut stream) = tls(port, alpn).await {
            let _gone = stream.write_all(&startup).await;
            assert!(
                !matches!(stream.read(&mut answer).await, Ok(1..)),
                "{alpn:?}"
            );
        }
    }
    // Where there is no certificate, such bytes are no packet.
    let without = lab.proxy("", "", "").await;
    assert!(
        tls(without.address().port(), &[b"postgresql"])
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_before_the_handshake_is_not_taken_for_encrypted() {
    let (lab, authority) = (Lab::new().await, &stand().await.authority);
    let proxy = lab.proxy(&listen(authority, ""), "", "").await;
    let mut client = Client::raw(proxy.address().port()).await;
    let startup = frames::startup_packet(&[("user", &lab.name), ("database", &lab.name)]);
    client
        .send(&[&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], &startup].concat())
        .await;
    let mut said = vec![];
    client.socket.read_to_end(&mut said).await.unwrap();
    assert!(!said.contains(&b'R'), "{}", said.escape_ascii());
    let refusal =
        frames::Frame(said[said.iter().position(|byte| *byte == b'E').unwrap()..].to_vec());
    assert!(refusal.contains("received unencrypted data after SSL request"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_seen_after_a_reload() {
    let lab = Lab::new().await;
    let port = stand().await.server.port();
    let authority = Authority::new();
    authority.issue("proxy", "127.0.0.1");
    let file = ConfigFile::with(&lab.text(port, &listen(&authority, ""), "", ""));
    let serving = Serving::start(&file.path()).await;
    let verified = format!("sslmode=verify-full sslrootcert={}", authority.path("root"));
    lab.prints(serving.port(), &verified, "SELECT 1", "1").await;
    authority.issue("proxy", "elsewhere");
    serving.signal("HUP");
    serving.logged("Reloading").await;
    lab.is_refused(serving.port(), &verified, "does not match")
        .await;
    // A file that cannot be used changes nothing.
    std::fs::write(authority.file("proxy"), "nonsense").unwrap();
    serving.signal("HUP");
    serving.logged("was not read again").await;
    lab.prints(serving.port(), "sslmode=require", "SELECT 1", "1")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_s_name_is_the_user_s_where_it_must_be() {
    let (lab, authority) = (Lab::new().await, &stand().await.authority);
    authority.issue(&lab.name, "client");
    let own = |name: &str| {
        let (certificate, key) = (authority.path(name), authority.path(&format!("{name}.key")));
        format!("sslmode=require sslcert={certificate} sslkey={key}")
    };
    let client_ca = listen(
        authority,
        &format!("tls_client_ca = \"{}\"", authority.path("root")),
    );
    let refused = format!(
        "certificate authentication failed for user \"{}\"",
        lab.name
    );
    for auth in [
        "[auth]\ncertificates = \"match\"",
        "[auth]\nmethod = \"scram\"\ncertificates = \"match\"",
    ] {
        let proxy = lab.proxy(&client_ca, "", auth).await;
        let port = proxy.address().port();
        let options = format!("{} channel_binding=disable", own(&lab.name));
        lab.prints(port, &options, "SELECT 1", "1").await;
        lab.is_refused(port, &own("client"), &refused).await;
        let wrong = format!("{options} password=wrong");
        lab.is_refused(port, &wrong, "password authentication failed")
            .await;
    }
    // Nobody is asked for a password who is known by certificate, if PostgreSQL takes pgstar's word.
    let proxy = lab
        .proxy(
            &client_ca,
            "",
            "[auth]\nmethod = \"scram\"\ncertificates = \"login\"",
        )
        .await;
    let port = proxy.address().port();
    let by_certificate = format!("{} password=wrong", own(&lab.name));
    lab.is_refused(
        port,
        &by_certificate,
        "could not log in to upstream PostgreSQL",
    )
    .await;
    lab.is_refused(port, &own("client"), &refused).await;
    authority.issue("pgstar", "pgstar");
    stand().await.trust_certificate("pgstar", &lab.name).await;
    let query = format!(
        "?sslmode=require&sslcert={}&sslkey={}",
        authority.path("pgstar"),
        authority.path("pgstar.key")
    );
    let proxy = lab
        .proxy(
            &client_ca,
            &query,
            "[auth]\nmethod = \"scram\"\ncertificates = \"login\"",
        )
        .await;
    let port = proxy.address().port();
    for _ in 0..2 {
        lab.prints(port, &by_certificate, "SELECT session_user", &lab.name)
            .await;
        let shown = "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let ran = lab.psql(port, &by_certificate, shown).await;
        assert!(ran.out.contains("CN=pgstar"), "{ran:?}");
    }
    lab.is_refused(port, &own("client"), &refused).await;
}

// ---- the server ----

/// With `allow` connections are plain until the server refuses that, whoever opens them.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_without_encryption_encrypts_if_that_is_allowed() {
    let (lab, authority) = (Lab::new().await, &stand().await.authority);
    for more in ["", SCRAM] {
        let proxy = lab
            .proxy(&listen(authority, ""), "?sslmode=allow", more)
            .await;
        lab.prints(proxy.address().port(), "sslmode=disable", IS_ENCRYPTED, "f")
            .await;
    }
    stand().await.refuse_plain(&lab.name).await;
    let port = stand().await.server.port();
    lab.is_refused(port, "sslmode=disable", "pg_hba.conf rejects connection")
        .await;
    for more in ["", SCRAM] {
        let proxy = lab
            .proxy(&listen(authority, ""), "?sslmode=allow", more)
            .await;
        for _ in 0..2 {
            lab.prints(proxy.address().port(), "sslmode=disable", IS_ENCRYPTED, "t")
                .await;
        }
        // An error that has nothing to do with it is PostgreSQL's own.
        let ran = lab
            .psql(
                proxy.address().port(),
                "sslmode=disable dbname=nowhere",
                "SELECT 1",
            )
            .await;
        assert!(ran.err.contains("\"nowhere\""), "{ran:?}");
    }
}

/// The connection that changes come by logs in by SCRAM over TLS like the others.
#[tokio::test(flavor = "multi_thread")]
async fn changes_come_encrypted() {
    let lab = Lab::new().await;
    let root = stand().await.authority.path("root");
    for query in [
        "?sslmode=require".to_owned(),
        format!("?sslmode=verify-full&sslrootcert={root}"),
    ] {
        let text = lab.text(stand().await.server.port(), "", &query, "");
        let config = Config::from_text(Path::new("e2e.toml"), &text).unwrap();
        let proxy = Proxy::start(&config).await.unwrap();
        let mut replication = ReplicationConnection::connect(config.upstream.connection())
            .await
            .unwrap();
        assert!(
            !replication
                .identify_system()
                .await
                .unwrap()
                .system
                .is_empty()
        );
        let is_encrypted = format!(
            "SELECT ssl FROM pg_stat_ssl WHERE pid = {}",
            replication.process()
        );
        let mut admin = plain_session(stand().await.server.port(), "postgres", "postgres").await;
        assert_eq!(values(&admin.query(&is_encrypted).await), ["t"], "{query}");
        drop(proxy);
    }
}

/// Who may log in, and how, follows a reload; what does not says so.
#[tokio::test(flavor = "multi_thread")]
async fn logins_follow_a_reload() {
    let lab = Lab::new().await;
    let port = stand().await.server.port();
    let text = |more: &str| lab.text(port, "", "", more);
    let file = ConfigFile::with(&text(""));
    let serving = Serving::start(&file.path()).await;
    let pid = "SELECT pg_backend_pid()";
    let pids = async || {
        let mut pids = vec![];
        for _ in 0..4 {
            pids.push(lab.psql(serving.port(), "sslmode=disable", pid).await.out);
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        pids.dedup();
        pids.len()
    };
    assert_eq!(
        pids().await,
        4,
        "relayed sessions have backends of their own"
    );
    let mut kept = plain_session(serving.port(), &lab.name, &lab.name).await;
    let reload = async |more: &str, said: &str| {
        file.write(&text(more));
        serving.signal("HUP");
        serving.logged(said).await;
    };
    reload(SCRAM, "Clients log in as [auth] says now").await;
    assert!(pids().await < 4);
    let users = "[auth]\nmethod = \"scram\"\nquery = \"SELECT nonsense\"";
    reload(users, "[auth] was not reloaded").await;
    assert!(pids().await < 4, "as before");
    reload(
        &format!("{SCRAM}\n[pool]\nbackends = 0\n[limits]\nconnections = 7"),
        "These sections have changed and need a restart",
    )
    .await;
    assert!(serving.log().contains("[limits]"));
    assert_eq!(pids().await, 4, "no backend waits");
    ok(&mut kept, "SELECT 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_to_the_server_is_encrypted_as_the_url_says() {
    let (lab, authority) = (Lab::new().await, &stand().await.authority);
    let root = authority.path("root");
    let own = format!(
        "SELECT count(*) FILTER (WHERE NOT ssl), count(*) > 0 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE datname = '{}' AND application_name = 'pgstar'",
        lab.name
    );
    for (query, is_encrypted) in [
        ("", "f"),
        ("?sslmode=disable", "f"),
        ("?sslmode=prefer", "t"),
        ("?sslmode=require", "t"),
        (&format!("?sslmode=verify-ca&sslrootcert={root}"), "t"),
        (&format!("?sslmode=verify-full&sslrootcert={root}"), "t"),
    ] {
        for more in ["", SCRAM] {
            let proxy = lab.proxy(&listen(authority, ""), query, more).await;
            let port = proxy.address().port();
            lab.prints(port, "sslmode=disable", IS_ENCRYPTED, is_encrypted)
                .await;
            if is_encrypted == "t" {
                let mut admin =
                    plain_session(stand().await.server.port(), "postgres", "postgres").await;
                assert_eq!(
                    e2e_support::rows(&admin.query(&own).await),
                    ["0|t"],
                    "{query}"
                );
            }
            // Both ways encrypted: only pgstar's own SCRAM can stand between.
            if is_encrypted == "t" && more == SCRAM {
                for _ in 0..2 {
                    let bound = "sslmode=require channel_binding=require";
                    lab.prints(port, bound, IS_ENCRYPTED, "t").await;
                }
            }
        }
    }
}

/// By SCRAM too, as on all of this server.
#[tokio::test(flavor = "multi_thread")]
async fn the_change_stream_is_encrypted_as_the_url_says() {
    let (lab, stand) = (Lab::new().await, stand().await);
    let table = "CREATE TABLE t (id int PRIMARY KEY, grp int); ALTER TABLE t REPLICA IDENTITY FULL";
    let mut plain = plain_session(stand.server.port(), "postgres", &lab.name).await;
    ok(&mut plain, table).await;
    stand.refuse_plain(&lab.name).await;
    let rollup = "[[rollup]]\nname = \"counts\"\nquery = \"SELECT grp, count(*) FROM public.t GROUP BY grp\"";
    let root = stand.authority.path("root");
    let verified = format!("?sslmode=verify-full&sslrootcert={root}");
    let proxy = lab
        .proxy(&listen(&stand.authority, ""), &verified, rollup)
        .await;
    let follower = proxy.warehouse().follower();
    let deadline = std::time::Instant::now() + e2e_support::PATIENCE;
    while let Err(why) = follower.settled(e2e_support::PATIENCE).await {
        assert!(std::time::Instant::now() < deadline, "{why:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let streams = format!(
        "SELECT bool_and(ssl), count(*) > 0 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE backend_type = 'walsender' AND datname = '{}'",
        lab.name
    );
    let mut admin = plain_session(stand.server.port(), "postgres", "postgres").await;
    assert_eq!(e2e_support::rows(&admin.query(&streams).await), ["t|t"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_vouched_for_is_not_talked_to() {
    let (lab, stand) = (Lab::new().await, stand().await);
    let stranger = Authority::new();
    let (root, other) = (stand.authority.path("root"), stranger.path("root"));
    for (host, query) in [
        (
            "127.0.0.1",
            format!("?sslmode=verify-ca&sslrootcert={other}"),
        ),
        ("127.0.0.1", format!("?sslmode=require&sslrootcert={other}")),
        (
            "localhost",
            format!("?sslmode=verify-full&sslrootcert={root}"),
        ),
        (
            "127.0.0.1",
            "?sslmode=verify-full&sslrootcert=/nowhere".to_owned(),
        ),
    ] {
        let text = lab.text(stand.server.port(), "", &query, "");
        let text = text.replace("@127.0.0.1:", &format!("@{host}:"));
        let config = Config::from_text(Path::new("e2e.toml"), &text).unwrap();
        let failure = Proxy::start(&config).await.err();
        assert!(failure.is_some(), "{query}");
    }
    // Vouched for, under whatever name.
    let query = format!("?sslmode=verify-ca&sslrootcert={root}");
    let text = lab.text(stand.server.port(), "", &query, "");
    let config = Config::from_text(
        Path::new("e2e.toml"),
        &text.replace("@127.0.0.1:", "@localhost:"),
    );
    let proxy = Proxy::start(&config.unwrap()).await.unwrap();
    lab.prints(proxy.address().port(), "sslmode=disable", IS_ENCRYPTED, "t")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_travels_encrypted() {
    let (lab, authority) = (Lab::new().await, &stand().await.authority);
    for more in ["", SCRAM] {
        let proxy = lab
            .proxy(&listen(authority, ""), "?sslmode=require", more)
            .await;
        let mut session = plain_session(proxy.address().port(), &lab.name, &lab.name).await;
        session.send(&frames::query("SELECT pg_sleep(60)")).await;
        let mut direct = plain_session(stand().await.server.port(), &lab.name, &lab.name).await;
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active' AND usename = current_user";
        while frames::values(&direct.query(running).await) != ["1"] {}
        let mut canceller = tls(proxy.address().port(), &[b"postgresql"]).await.unwrap();
        let request = [&b"\0\0\0\x10\x04\xd2\x16\x2e"[..], session.key_data()].concat();
        canceller.write_all(&request).await.unwrap();
        let mut nothing = vec![];
        let _closed = canceller.read_to_end(&mut nothing).await;
        let answer = session.until_ready().await;
        assert_eq!(sqlstate(&answer).unwrap(), "57014", "{:?}", error(&answer));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_come_whole_through_tls_on_both_sides() {
    let (lab, authority) = (Lab::new().await, &stand().await.authority);
    let proxy = lab
        .proxy(&listen(authority, ""), "?sslmode=require", SCRAM)
        .await;
    let sql = "SELECT md5(string_agg(x, '')), count(*) FROM (SELECT repeat(g::text, 100) AS x FROM generate_series(1, 3000) g) t";
    let port = proxy.address().port();
    let direct = lab
        .psql(stand().await.server.port(), "sslmode=disable", sql)
        .await;
    lab.prints(port, "sslmode=require", sql, direct.out.trim())
        .await;
    let rows = "SELECT repeat(g::text, 100) FROM generate_series(1, 30000) g";
    let direct = lab
        .psql(stand().await.server.port(), "sslmode=disable", rows)
        .await;
    let through = lab.psql(port, "sslmode=require", rows).await;
    assert!(through.out.len() > 10_000_000 && through.out == direct.out);
}
