//! Runs one connection from accept to close.
//!
//! It must not know frames beyond the first packets: [`super::relay`] and its neighbours do.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

use super::held::Holding;
use super::leg::Leg;
use super::login::{LoggedIn, Login, log_in};
use super::model::Model;
use super::patience::Patience;
use super::relay::Pause;
use super::seats::{Full, Seats};
use super::seldom::{First, first_of};
use super::shared::Shared;
use super::startup::{Begun, begin, hide_binding, send_fatal};
use super::upstream::cancel_request;
use super::{Ended, Routing, Session};
use crate::arrivals::Arrival;
use crate::telemetry;
use crate::wire::{self, Startup};

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// Idle sessions end; busy ones end once they are idle.
    Draining,
    /// Every session ends now.
    Expired,
}

/// What the relay is interrupted for.
#[derive(Debug)]
enum Interruption {
    /// A statement was kept back for as long as it may be.
    HeldTooLong,
    PhaseChanged,
    /// It is time to look whether the session has used up its patience.
    LookDue,
}

/// Serves one accepted connection until it is over.
///
/// What a session does only now and then is boxed: an idle one keeps the room for all that is not.
pub(crate) async fn run<R: Routing>(
    stream: TcpStream,
    shared: Arc<Shared<R>>,
    seats: Arc<Seats>,
    arrival: Arrival,
    mut phase: watch::Receiver<Phase>,
) {
    let logged_in_by = Instant::now() + shared.limits.startup_timeout;
    // A connection that says nothing takes no buffers.
    let Ok(Ok(())) = timeout_at(logged_in_by, stream.readable()).await else {
        return;
    };
    let beginning = Box::pin(begin(
        stream,
        shared.limits.proxy_header,
        shared.tls.as_deref(),
    ));
    let begun = tokio::select! {
        begun = timeout_at(logged_in_by, beginning) => begun.unwrap_or(Begun::Over),
        _ = phase.wait_for(|phase| *phase != Phase::Running) => Begun::Over,
    };
    arrival.is_over();
    match begun {
        Begun::Over => {}
        Begun::Cancel(request, client) => {
            Box::pin(forward_cancel(&shared, &request)).await;
            // Not before PostgreSQL has acted: a client that waits for this may then send what is not to be cancelled.
            drop(client);
        }
        Begun::Session(startup, client) => {
            match seats.take(startup.parameter("user").unwrap_or_default()) {
                Ok(_seat) => run_session(client, shared, startup, logged_in_by, &mut phase).await,
                Err(full) => refuse(client, &shared, &startup, full).await,
            }
        }
    }
}

/// Says what PostgreSQL says when it has no place for another session.
async fn refuse<R>(mut client: Leg, shared: &Shared<R>, startup: &Startup, full: Full) {
    shared.counters.refused.add_one();
    let message = match full {
        Full::ForAll => "sorry, too many clients already".to_owned(),
        Full::ForUser => {
            let user = startup.parameter("user").unwrap_or_default();
            let user = String::from_utf8_lossy(user);
            format!("too many connections for role \"{user}\"")
        }
    };
    send_fatal(&mut client, "53300", &message, None, None).await;
}

async fn forward_cancel<R>(shared: &Shared<R>, request: &Bytes) {
    shared.counters.cancels.add_one();
    let ticket = shared.cancels.resolve(request);
    let within = shared.limits.cancel_timeout;
    let forwarded = match &ticket {
        Some(ticket) => {
            let request = cancel_request(ticket.key_data());
            shared.upstream.cancel(&request, within).await
        }
        None => shared.upstream.cancel(request, within).await,
    };
    match (forwarded, ticket) {
        (Ok(()), Some(ticket)) => ticket.acted_on(),
        (Ok(()), None) => {}
        (Err(error), _) => warn!(%error, "Could not forward a cancel request."),
    }
}

async fn run_session<R: Routing>(
    mut client: Leg,
    shared: Arc<Shared<R>>,
    startup: Startup,
    logged_in_by: Instant,
    phase: &mut watch::Receiver<Phase>,
) {
    let login = Box::pin(log_in(&mut client, &shared, &startup));
    let login = timeout_at(logged_in_by, login).await;
    let mut session = match login.unwrap_or(Login::Over) {
        Login::Over => return,
        Login::Done(logged_in) => Session::logged_in(shared, client, *logged_in),
        Login::Relayed => match Box::pin(relay_login(client, shared, &startup)).await {
            Some(session) => session,
            None => return,
        },
    };
    session.shared.counters.sessions.add_one();
    let _counted_as_open = telemetry::session_opened();
    let idle_max = session.shared.limits.idle_max;
    let patience = Patience::new(&session.shared.timers, logged_in_by, idle_max);
    let ended = session.live(patience, phase).await;
    debug!(%ended, "Session over.");
    let farewell_max = session.shared.limits.cancel_timeout;
    if timeout(farewell_max, Box::pin(session.say_goodbye(ended)))
        .await
        .is_err()
    {
        debug!("The client did not take its last bytes.");
    }
    match session.leaves_good_backend(ended) {
        true => Box::pin(session.give_back()).await,
        false => Box::pin(session.abandon_statement()).await,
    }
}

/// A session whose login is between the client and a new backend, which has the client's start-up packet.
async fn relay_login<R: Routing>(
    mut client: Leg,
    shared: Arc<Shared<R>>,
    startup: &Startup,
) -> Option<Session<R>> {
    let within = shared.limits.connect_timeout;
    let mut server = match shared.upstream.begin(startup.packet(), within).await {
        Ok(server) => server,
        Err(error) => {
            shared.counters.upstream_unreachable.add_one();
            telemetry::upstream_connect_failed();
            warn!(%error, upstream = %shared.upstream, "Could not connect to PostgreSQL.");
            let message = format!(
                "could not connect to upstream PostgreSQL at {}: {error}",
                shared.upstream
            );
            let hint = "Check that PostgreSQL is running there and that [upstream] url in pgstar's configuration names it.";
            send_fatal(&mut client, "08006", &message, None, Some(hint)).await;
            return None;
        }
    };
    hide_binding(&mut client, &mut server).await?;
    let mut session = Session::new(shared, client, server);
    session.is_raw = !startup.opens_a_session();
    Some(session)
}

impl<R: Routing> Session<R> {
    /// A session that begins with its login over.
    fn logged_in(shared: Arc<Shared<R>>, client: Leg, logged_in: LoggedIn) -> Self {
        let LoggedIn {
            server,
            key_data,
            lease,
        } = logged_in;
        Session {
            model: Model::logged_in(),
            key_data: Some(key_data),
            lease,
            ..Session::new(shared, client, server)
        }
    }

    async fn live(&mut self, mut patience: Patience, phase: &mut watch::Receiver<Phase>) -> Ended {
        let mut holding = Holding::default();
        loop {
            holding.set(self.held_until());
            let interruption = async {
                tokio::select! {
                    biased;
                    () = holding.due() => Interruption::HeldTooLong,
                    _ = phase.changed() => Interruption::PhaseChanged,
                    () = patience.look_due() => Interruption::LookDue,
                }
            };
            let pause = match first_of(self.relay(), interruption).await {
                First::Often(pause) => pause,
                First::Seldom(Interruption::HeldTooLong) => {
                    if self
                        .held_until()
                        .is_some_and(|until| until <= Instant::now())
                    {
                        self.release_held();
                    }
                    continue;
                }
                First::Seldom(Interruption::PhaseChanged) => {
                    self.is_draining = true;
                    if *phase.borrow() == Phase::Expired {
                        return Ended::Drained;
                    }
                    continue;
                }
                First::Seldom(Interruption::LookDue) => match patience.look(self) {
                    Some(ended) => return ended,
                    None => continue,
                },
            };
            let outcome = tokio::select! {
                biased;
                outcome = Box::pin(self.act_on(pause)) => outcome,
                _ = phase.wait_for(|phase| *phase == Phase::Expired) => Err(Ended::Drained),
            };
            if let Err(ended) = outcome {
                return ended;
            }
        }
    }

    async fn act_on(&mut self, pause: Pause) -> Result<(), Ended> {
        match pause {
            Pause::Statement(statement) => self.serve(statement).await?,
            Pause::Prompt(boxed) => {
                let (statement, prompt) = *boxed;
                self.answer_promptly(&statement, prompt).await?;
            }
            Pause::Withheld => self.make_up().await?,
            Pause::Ended(ended) => return Err(ended),
        }
        // The relay writes past what pgstar has to say, so that must be said first.
        self.flush_outgoing().await?;
        self.outgoing = BytesMut::new();
        Ok(())
    }

    /// Says what is still to be said to both sides, and closes.
    async fn say_goodbye(&mut self, ended: Ended) {
        match ended {
            Ended::ClientLeft => {}
            Ended::ServerLeft | Ended::ServerMisbehaved => {
                let last_word = self.swallowed_error.take().unwrap_or_default();
                self.outgoing.extend_from_slice(&last_word);
            }
            Ended::Drained => self.write_notice(
                "57P01",
                "terminating connection due to administrator command",
            ),
            Ended::LoginTooSlow => {
                self.write_notice("57014", "canceling authentication due to timeout")
            }
            Ended::IdleTooLong => self.write_notice(
                "57P05",
                "terminating connection due to idle-session timeout",
            ),
        }
        if ended != Ended::ClientLeft && self.flush_outgoing().await.is_ok() {
            let _gone = self.client.socket.shutdown().await;
        }
    }

    /// The client learns of the end as PostgreSQL would tell it, unless it is amid a frame.
    fn write_notice(&mut self, sqlstate: &'static str, message: &'static str) {
        let is_amid_frame = self.is_raw || self.server.released > 0 || self.server.frame_left > 0;
        if is_amid_frame || !self.outgoing.is_empty() {
            return;
        }
        let report = wire::ErrorReport {
            severity: wire::Severity::Fatal,
            sqlstate,
            message,
            detail: None,
            hint: None,
        };
        report.write(&mut self.outgoing);
    }

    /// Leaves the server: what nobody waits for any more is cancelled, then the connection is closed.
    async fn abandon_statement(&mut self) {
        if self.server.ended {
            return;
        }
        if let (true, Some(key_data)) = (self.is_abandoned(), &self.key_data) {
            self.shared.counters.abandoned.add_one();
            let request = cancel_request(key_data);
            if let Err(error) = self
                .shared
                .upstream
                .cancel(&request, self.shared.limits.cancel_timeout)
                .await
            {
                warn!(%error, "Could not cancel the statement of a client that left.");
            }
        } else if self.model.is_quiet() && !self.is_raw {
            let mut frame = BytesMut::new();
            wire::terminate(&mut frame);
            let _gone = self.server.say(&frame).await;
        }
    }
}
