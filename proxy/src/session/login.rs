//! A login that pgstar checks itself: it proves the password by SCRAM, then finds the session a backend.
//!
//! The password never comes here. The client's proof reveals the key that it was made with, and with that key pgstar logs in
//! to PostgreSQL for the client; the key is forgotten right after. Whoever pgstar cannot check is relayed, so that
//! PostgreSQL judges and words the refusal. It must not know what the session does afterwards.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tracing::warn;

use super::learnt::{answers, learn_names};
use super::lease::Lease;
use super::leg::Leg;
use super::preamble::ASKED_OF_NEW;
use super::shared::Shared;
use super::startup::send_fatal;
use crate::config::Certificates;
use crate::pool::{Account, Greeting, Learnt, Pool, Stamp, Warm};
use crate::scram::{
    Channel, ClientExchange, ClientKey, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError,
    ServerExchange, Verifier,
};
use crate::telemetry::{self, LoginBackend};
use crate::wire::{
    self, AuthenticationRequest, PRE_AUTH_PACKET_BYTES_MAX, Startup, header, read, server_tag,
    sqlstate,
};

/// The largest frame of a server's greeting: an error or a notice.
const GREETING_FRAME_BYTES_MAX: usize = 64 * 1024;
/// PostgreSQL has no slot left: `too_many_connections`.
const TOO_MANY_CONNECTIONS: &str = "53300";
/// How often to try again once waiting backends have been sent away, and how long each takes to be gone.
const ROOM_ATTEMPTS_MAX: u32 = 50;
const ROOM_PAUSE: Duration = Duration::from_millis(20);

/// How a login came out.
pub(super) enum Login {
    /// It is not for pgstar to judge; nothing has been said yet.
    Relayed,
    /// The client has its greeting.
    Done(Box<LoggedIn>),
    /// The client was refused, or left.
    Over,
}

/// A session about to begin.
pub(super) struct LoggedIn {
    pub(super) server: Leg,
    /// BackendKeyData as PostgreSQL sent it.
    pub(super) key_data: Bytes,
    pub(super) lease: Option<Box<Lease>>,
}

/// Why a client is not let in.
enum Refusal {
    /// It left.
    Gone,
    /// The name in its certificate is another one.
    Certificate,
    Scram(ScramError),
    /// PostgreSQL's own error, as it came, before it accepted the login.
    Server(Bytes),
    /// The same, after it had: the client has to be told of that first.
    ServerLater {
        server_final: Option<String>,
        error: Bytes,
    },
    Unreachable(io::Error),
    /// PostgreSQL lets pgstar in by another method only, or does not follow the protocol.
    NoWay(&'static str),
}

/// Logs a client in, if it is one whose password pgstar can check.
pub(super) async fn log_in<R>(client: &mut Leg, shared: &Shared<R>, startup: &Startup) -> Login {
    let logins = shared.logins();
    let is_named = is_named(client, startup);
    if logins.certificates != Certificates::Ignore && !is_named {
        let user = startup.parameter("user").unwrap_or_default();
        refuse(client, Refusal::Certificate, &String::from_utf8_lossy(user)).await;
        return Login::Over;
    }
    let Some((pool, user)) = logins
        .pool
        .as_ref()
        .and_then(|pool| Some((pool, pool.applicant(startup)?)))
    else {
        return Login::Relayed;
    };
    let is_vouched_for = logins.certificates == Certificates::LogIn;
    let begun = Instant::now();
    let account = match pool.accounts.look_up(user, is_vouched_for).await {
        Ok(Some(account)) => account,
        Ok(None) => return Login::Relayed,
        Err(error) => {
            warn!(%error, "Could not look a user up; PostgreSQL judges the login.");
            return Login::Relayed;
        }
    };
    match admit(client, shared, pool, startup, account, user).await {
        Ok(mut logged_in) => {
            if let Some(lease) = &mut logged_in.lease {
                lease.begun = begun;
            }
            Login::Done(Box::new(logged_in))
        }
        Err(refusal) => {
            refuse(client, refusal, user).await;
            Login::Over
        }
    }
}

async fn admit<R>(
    client: &mut Leg,
    shared: &Shared<R>,
    pool: &Arc<Pool>,
    startup: &Startup,
    account: Account,
    user: &str,
) -> Result<LoggedIn, Refusal> {
    let proof = match &account.verifier {
        Some(verifier) => Some(check_password(client, verifier).await?),
        None => None,
    };
    let (server_final, credentials) = match (proof, &account.verifier) {
        (Some((server_final, key)), Some(verifier)) => (Some(server_final), Some((key, verifier))),
        _ => (None, None),
    };
    let packet = startup.packet();
    let waiting = match account.may_share {
        true => pool.warm.take(packet, &account.stamp),
        false => None,
    };
    let mut warm = match waiting {
        Some(warm) => {
            telemetry::pool_logged_in(LoginBackend::Warm);
            warm
        }
        None => {
            let opened = open(shared, pool, packet, &account, credentials).await?;
            let fresh = opened.map_err(|error| Refusal::ServerLater {
                server_final: server_final.clone(),
                error,
            })?;
            telemetry::pool_logged_in(LoginBackend::Fresh);
            fresh
        }
    };
    let lease = match account.may_share {
        true => lease(pool, packet, user, &mut warm).await,
        false => None,
    };
    let mut out = BytesMut::new();
    wire::authentication_ok(&mut out, server_final.as_deref());
    let greeting = &warm.greeting;
    out.extend_from_slice(&greeting.before_key);
    let shown = lease.as_ref().map_or(&greeting.key_data[..], |lease| {
        lease.registration.key_data()
    });
    wire::backend_key_data(&mut out, shown);
    out.extend_from_slice(&greeting.after_key);
    say(client, &out).await?;
    Ok(LoggedIn {
        key_data: greeting.key_data.clone(),
        server: Leg::new(warm.socket),
        lease,
    })
}

/// Whether the client's certificate bears the name of the user that it wants to be.
fn is_named(client: &Leg, startup: &Startup) -> bool {
    let shown = client.common_name.as_deref().map(str::as_bytes);
    shown.is_some() && shown == startup.parameter("user")
}

/// SCRAM with the client; what remains to be said to it, and its key.
async fn check_password(
    client: &mut Leg,
    verifier: &Verifier,
) -> Result<(String, ClientKey), Refusal> {
    let end_point = client.end_point.clone();
    let (channel, mechanisms) = match &end_point {
        Some(hash) => (
            Channel::EndPoint(hash),
            &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256][..],
        ),
        None => (Channel::Plain, &[SCRAM_SHA_256][..]),
    };
    let mut out = BytesMut::new();
    wire::authentication_sasl(&mut out, mechanisms);
    say(client, &out).await?;
    let initial = heard(client).await?;
    let (mechanism, message) = read::sasl_initial(&initial).map_err(|_| malformed())?;
    let (exchange, server_first) =
        ServerExchange::begin(verifier.clone(), text(mechanism)?, channel, text(message)?)
            .map_err(Refusal::Scram)?;
    out.clear();
    wire::authentication_sasl_continue(&mut out, &server_first);
    say(client, &out).await?;
    let response = heard(client).await?;
    let client_final = read::sasl_response(&response).map_err(|_| malformed())?;
    exchange.finish(text(client_final)?).map_err(Refusal::Scram)
}

fn malformed() -> Refusal {
    Refusal::Scram(ScramError::Malformed)
}

fn text(message: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(message).map_err(|_| malformed())
}

async fn heard(client: &mut Leg) -> Result<Bytes, Refusal> {
    client
        .whole_frame(PRE_AUTH_PACKET_BYTES_MAX)
        .await
        .ok_or(Refusal::Gone)
}

async fn say(client: &mut Leg, frames: &[u8]) -> Result<(), Refusal> {
    client.say(frames).await.map_err(|_| Refusal::Gone)
}

/// What is to be known while the session lasts; `None` if its backend cannot serve another.
async fn lease(
    pool: &Arc<Pool>,
    packet: &Bytes,
    user: &str,
    warm: &mut Warm,
) -> Option<Box<Lease>> {
    let functions = match pool.traces.learn_functions(&pool.accounts).await {
        Ok(functions) => functions,
        Err(error) => {
            warn!(%error, "Could not ask which functions leave no traces.");
            return None;
        }
    };
    Some(Box::new(Lease {
        registration: pool.cancels.register(&warm.greeting.key_data)?,
        pool: Arc::clone(pool),
        packet: packet.clone(),
        user: user.into(),
        stamp: Arc::clone(&warm.stamp),
        greeting: Arc::clone(&warm.greeting),
        born: warm.born,
        functions,
        is_tainted: false,
        is_touched: false,
        begun: Instant::now(),
        has_first_settings_only: true,
        holds_nothing: false,
        pledges: VecDeque::new(),
        held: vec![],
        learnt: std::mem::take(&mut warm.learnt),
        is_learnt_outdated: false,
        settings: BTreeMap::new(),
    }))
}

/// A backend of the client's own, or the error that PostgreSQL gives after it has accepted the login. Should it have
/// no slot left, waiting backends make room first.
async fn open<R>(
    shared: &Shared<R>,
    pool: &Pool,
    packet: &Bytes,
    account: &Account,
    credentials: Option<(ClientKey, &Verifier)>,
) -> Result<Result<Warm, Bytes>, Refusal> {
    let mut made_room = false;
    for _ in 0..ROOM_ATTEMPTS_MAX {
        let opened = open_once(shared, pool, packet, account, credentials.as_ref()).await;
        let is_full = matches!(&opened, Ok(Err(error)) | Err(Refusal::Server(error))
            if sqlstate(error).is_ok_and(|state| state == TOO_MANY_CONNECTIONS));
        if !is_full {
            return opened;
        }
        made_room |= pool.warm.make_room();
        if !made_room {
            return opened;
        }
        tokio::time::sleep(ROOM_PAUSE).await;
    }
    open_once(shared, pool, packet, account, credentials.as_ref()).await
}

async fn open_once<R>(
    shared: &Shared<R>,
    pool: &Pool,
    packet: &Bytes,
    account: &Account,
    credentials: Option<&(ClientKey, &Verifier)>,
) -> Result<Result<Warm, Bytes>, Refusal> {
    let within = shared.limits.connect_timeout;
    let begun = shared.upstream.begin(packet, within).await;
    let mut server = begun.map_err(Refusal::Unreachable)?;
    authenticate(&mut server, credentials).await?;
    let mut greeting = match greeting(&mut server).await {
        Ok(greeting) => greeting,
        Err(Refusal::Server(error)) => return Ok(Err(error)),
        Err(other) => return Err(other),
    };
    let mut learnt = Learnt::default();
    if account.may_share {
        let told = answers(&mut server, &ASKED_OF_NEW).await;
        greeting.answers = told.ok_or_else(gone)?;
        let is_there = learn_names(&mut server, pool, &greeting, &mut learnt).await;
        is_there.then_some(()).ok_or_else(gone)?;
    }
    Ok(Ok(Warm {
        socket: server.socket,
        greeting: Arc::new(greeting),
        stamp: Stamp::clone(&account.stamp),
        born: Instant::now(),
        learnt,
    }))
}

async fn tell(server: &mut Leg, frames: &[u8]) -> Result<(), Refusal> {
    server.say(frames).await.map_err(Refusal::Unreachable)
}

/// The server left.
fn gone() -> Refusal {
    Refusal::Unreachable(io::ErrorKind::UnexpectedEof.into())
}

/// The server's next frame; its refusal, if that is what it is.
async fn told(server: &mut Leg) -> Result<Bytes, Refusal> {
    let frame = server.whole_frame(GREETING_FRAME_BYTES_MAX).await;
    let frame = frame.ok_or_else(gone)?;
    match frame.first() {
        Some(&server_tag::ERROR_RESPONSE) => Err(Refusal::Server(frame)),
        _ => Ok(frame),
    }
}

/// Logs in to PostgreSQL with the client's key; without one PostgreSQL must let pgstar in as it is.
async fn authenticate(
    server: &mut Leg,
    credentials: Option<&(ClientKey, &Verifier)>,
) -> Result<(), Refusal> {
    let mut out = BytesMut::new();
    let request = told(server).await?;
    let (key, verifier) = match (read::authentication(&request), credentials) {
        // The server trusts whoever comes from pgstar.
        (Ok(AuthenticationRequest::Ok), _) => return Ok(()),
        (Ok(AuthenticationRequest::Sasl(mechanisms)), Some(credentials))
            if offers(mechanisms, SCRAM_SHA_256) =>
        {
            credentials
        }
        (_, Some(_)) => {
            return Err(Refusal::NoWay(
                "it asks for another method of authentication",
            ));
        }
        (_, None) => {
            return Err(Refusal::NoWay(
                "it asks for a password of a user who logged in by certificate",
            ));
        }
    };
    let (exchange, first) =
        ClientExchange::begin(key.clone(), (*verifier).clone()).map_err(Refusal::Scram)?;
    wire::sasl_initial_response(&mut out, SCRAM_SHA_256, &first);
    tell(server, &out).await?;
    let request = told(server).await?;
    let Ok(AuthenticationRequest::SaslContinue(server_first)) = read::authentication(&request)
    else {
        return Err(NOT_FOLLOWED);
    };
    let (exchange, proof) = exchange
        .prove(text(server_first)?)
        .map_err(|_| NOT_FOLLOWED)?;
    out.clear();
    wire::sasl_response(&mut out, &proof);
    tell(server, &out).await?;
    let request = told(server).await?;
    let Ok(AuthenticationRequest::SaslFinal(server_final)) = read::authentication(&request) else {
        return Err(NOT_FOLLOWED);
    };
    exchange
        .finish(text(server_final)?)
        .map_err(|_| Refusal::NoWay("it does not prove that it knows the password"))?;
    let request = told(server).await?;
    match read::authentication(&request) {
        Ok(AuthenticationRequest::Ok) => Ok(()),
        _ => Err(NOT_FOLLOWED),
    }
}

const NOT_FOLLOWED: Refusal = Refusal::NoWay("it does not follow the protocol");

fn offers(mechanisms: &[u8], mechanism: &str) -> bool {
    mechanisms
        .split(|byte| *byte == 0)
        .any(|offered| offered == mechanism.as_bytes())
}

/// What the server says once it has accepted the login.
async fn greeting(server: &mut Leg) -> Result<Greeting, Refusal> {
    let (mut before_key, mut after_key) = (BytesMut::new(), BytesMut::new());
    let mut key_data = None;
    loop {
        let frame = told(server).await?;
        match frame.first() {
            Some(&server_tag::BACKEND_KEY_DATA) => {
                key_data = wire::body(&frame).ok().map(Bytes::copy_from_slice);
            }
            _ if key_data.is_none() => before_key.extend_from_slice(&frame),
            _ => after_key.extend_from_slice(&frame),
        }
        if frame.first() == Some(&server_tag::READY_FOR_QUERY) {
            break;
        }
    }
    // Nothing comes unasked right after a login; if it does, nobody would see it.
    let is_all = header(server.inbound.filled()).is_ok_and(|header| header.is_none())
        && server.inbound.is_empty();
    match (key_data, is_all) {
        (Some(key_data), true) => Ok(Greeting {
            before_key: before_key.freeze(),
            key_data,
            after_key: after_key.freeze(),
            answers: vec![],
        }),
        _ => Err(NOT_FOLLOWED),
    }
}

async fn refuse(client: &mut Leg, refusal: Refusal, user: &str) {
    match refusal {
        Refusal::Gone => {}
        Refusal::Certificate => {
            let message = format!("certificate authentication failed for user \"{user}\"");
            send_fatal(client, "28000", &message, None, None).await;
        }
        Refusal::Scram(ScramError::WrongProof) => {
            let message = format!("password authentication failed for user \"{user}\"");
            send_fatal(client, "28P01", &message, None, None).await;
        }
        Refusal::Scram(ScramError::WrongBinding) => {
            let message = ScramError::WrongBinding.to_string();
            send_fatal(client, "28000", &message, None, None).await;
        }
        Refusal::Scram(error @ (ScramError::Malformed | ScramError::UnprovenServer)) => {
            send_fatal(client, "08P01", &error.to_string(), None, None).await;
        }
        Refusal::ServerLater {
            server_final,
            error,
        } => {
            let mut out = BytesMut::new();
            wire::authentication_ok(&mut out, server_final.as_deref());
            out.extend_from_slice(&error);
            let _gone = client.say(&out).await;
            let _gone = client.socket.shutdown().await;
        }
        Refusal::Server(error) => {
            let _gone = client.say(&error).await;
            let _gone = client.socket.shutdown().await;
        }
        Refusal::Unreachable(error) => {
            telemetry::upstream_connect_failed();
            warn!(%error, "Could not connect to PostgreSQL.");
            let message = format!("could not connect to upstream PostgreSQL: {error}");
            send_fatal(client, "08006", &message, None, None).await;
        }
        Refusal::NoWay(reason) => {
            let message = format!("could not log in to upstream PostgreSQL: {reason}");
            let hint = "For pgstar's address, pg_hba.conf must ask these users for scram-sha-256, or for nothing.";
            send_fatal(client, "28000", &message, None, Some(hint)).await;
        }
    }
}
