//! The threads that sessions run on. A session stays on one thread, with both of its sockets, from its first
//! byte to its last: a scheduler that moves tasks between threads costs more than a relayed message does.
//!
//! It must not know what a session does.

use std::future::Future;
use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::thread;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinSet};
use tracing::warn;

use crate::linger::linger;

/// Deciding recurses over a statement's tree, whose depth is bounded for a stack of this size.
pub const THREAD_STACK_BYTES: usize = 16 * 1024 * 1024;

/// First decisions that are made at a time for the sessions of one thread; more of them wait.
const DECIDING_THREADS_MAX: usize = 8;

/// A thread for each processor. Dropping them ends whatever still runs there.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Each session on this thread holds one more of these.
    seat: Arc<()>,
    /// The thread ends when this is dropped.
    _running: oneshot::Sender<()>,
}

impl Workers {
    /// As many threads as there are processors.
    ///
    /// # Errors
    /// The system has no thread or no poller to give.
    pub(crate) fn start() -> io::Result<Self> {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let workers = (0..count)
            .map(|number| start_worker(number, count > 1))
            .collect::<io::Result<_>>()?;
        Ok(Workers { workers })
    }

    /// Runs a session for this connection on the thread that has the fewest; `None` when there is no thread.
    pub(crate) fn spawn<F>(
        &self,
        sessions: &mut JoinSet<()>,
        stream: StdStream,
        session: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) -> Option<AbortHandle>
    where
        F: Future<Output = ()> + Send,
    {
        let least_busy = |worker: &&Worker| Arc::strong_count(&worker.seat);
        let worker = self.workers.iter().min_by_key(least_busy)?;
        let seat = Arc::clone(&worker.seat);
        let task = async move {
            let _seat = seat;
            // Here, because a socket belongs to the poller of the thread that registers it.
            match TcpStream::from_std(stream) {
                Ok(stream) => session(stream).await,
                Err(error) => warn!(%error, "Could not register a connection."),
            }
        };
        Some(sessions.spawn_on(task, &worker.runtime))
    }
}

/// A thread may linger where others have a processor meanwhile.
fn start_worker(number: usize, may_linger: bool) -> io::Result<Worker> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .max_blocking_threads(DECIDING_THREADS_MAX)
        .build()?;
    let handle = runtime.handle().clone();
    if may_linger {
        runtime.spawn(linger());
    }
    let (running, stopped) = oneshot::channel::<()>();
    thread::Builder::new()
        .name(format!("sessions-{number}"))
        .stack_size(THREAD_STACK_BYTES)
        .spawn(move || runtime.block_on(async { drop(stopped.await) }))?;
    Ok(Worker {
        runtime: handle,
        seat: Arc::new(()),
        _running: running,
    })
}
