//! Accepts clients' connections, one task each, and ends them in order when a shutdown begins.
//!
//! It must not know what a session does.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::arrivals::{Arrival, Arrivals};
use crate::session::{Phase, Routing, Seats, Shared, run};
use crate::workers::Workers;

/// Connections beyond `connections_max` that may be open: those that have not said yet what they want, those that are
/// being refused, and those that forward a cancel request. Beyond them connections wait in the kernel's queue.
const UNSEATED_CONNECTIONS_MAX: usize = 1_500;
/// How long to wait after accepting failed, most likely for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long sessions may take for their last words once the drain timeout has passed.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// Serves connections until `shutdown` resolves; then stops accepting, drains, and returns once every
/// session is over, at the latest shortly after `limits.drain_timeout`.
pub async fn serve<R: Routing>(
    listener: TcpListener,
    shared: Arc<Shared<R>>,
    shutdown: impl Future<Output = ()>,
) {
    let (phase, phases) = watch::channel(Phase::Running);
    let mut sessions = JoinSet::new();
    let workers = match Workers::start() {
        Ok(workers) => workers,
        Err(error) => return error!(%error, "Could not start the threads of sessions."),
    };
    tokio::select! {
        () = accept_all(&listener, &shared, &phases, &workers, &mut sessions) => {}
        () = shutdown => {}
    }
    drop(listener);
    drain(sessions, &phase, shared.limits.drain_timeout).await;
}

async fn accept_all<R: Routing>(
    listener: &TcpListener,
    shared: &Arc<Shared<R>>,
    phases: &watch::Receiver<Phase>,
    workers: &Workers,
    sessions: &mut JoinSet<()>,
) {
    let limits = &shared.limits;
    let seats = Seats::new(limits.connections_max, limits.connections_per_user_max);
    let mut arrivals = Arrivals::default();
    let tasks_max = shared.limits.connections_max + UNSEATED_CONNECTIONS_MAX;
    loop {
        tokio::select! {
            biased;
            Some(over) = sessions.join_next() => note_panic(over),
            accepted = listener.accept(), if sessions.len() < tasks_max => match accepted.and_then(|(stream, _)| prepare(stream)) {
                Ok(stream) => {
                    let (shared, seats, phases) = (shared.clone(), seats.clone(), phases.clone());
                    let arrival = Arrival::default();
                    let arriving = arrival.clone();
                    let task = workers.spawn(sessions, stream, |stream| run(stream, shared, seats, arriving, phases));
                    if let Some(task) = task {
                        arrivals.add(arrival, task);
                    }
                }
                Err(error) => {
                    warn!(%error, "Could not accept a connection.");
                    sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
}

/// As PostgreSQL sets up its own: no byte waits for others, and the system's keepalive finds out that a
/// client's machine is gone.
fn prepare(stream: TcpStream) -> io::Result<std::net::TcpStream> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_keepalive(true)?;
    stream.into_std()
}

async fn drain(mut sessions: JoinSet<()>, phase: &watch::Sender<Phase>, drain_timeout: Duration) {
    info!(sessions = sessions.len(), "Draining.");
    phase.send_replace(Phase::Draining);
    if timeout(drain_timeout, all_over(&mut sessions))
        .await
        .is_ok()
    {
        return;
    }
    warn!(
        sessions = sessions.len(),
        "Ending sessions that are busy beyond the drain timeout."
    );
    phase.send_replace(Phase::Expired);
    let _late = timeout(FAREWELL_MAX, all_over(&mut sessions)).await;
    sessions.shutdown().await;
}

async fn all_over(sessions: &mut JoinSet<()>) {
    while let Some(over) = sessions.join_next().await {
        note_panic(over);
    }
}

/// A session that panicked took nobody with it, but it is a bug.
fn note_panic(over: Result<(), JoinError>) {
    if let Err(error) = over
        && error.is_panic()
    {
        error!(%error, "A session stopped on a bug of pgstar's; its client was disconnected.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clients_socket_waits_for_nothing_and_is_kept_alive() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(!SockRef::from(&stream).keepalive().unwrap());
        let stream = prepare(stream).unwrap();
        assert!(stream.nodelay().unwrap() && SockRef::from(&stream).keepalive().unwrap());
    }
}
