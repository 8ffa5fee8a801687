//! Backends that wait for their next session.
//!
//! It must not know who may have one, nor how a backend is made as good as new.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::learnt::Learnt;
use crate::session::Socket;
use crate::telemetry;
use crate::wire;

/// Everything that a new session of a user depends on, as PostgreSQL described it before the login. Two
/// sessions under equal stamps and equal start-up packets begin alike.
pub type Stamp = Arc<str>;

/// The bounds of waiting backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// Waiting backends at a time; 0 keeps none.
    pub backends_max: usize,
    /// Waiting backends of one user.
    pub per_user_max: usize,
    /// How long a backend may wait.
    pub idle_max: Duration,
    /// How long a backend may live, from its own login on.
    pub age_max: Duration,
}

/// What PostgreSQL said to the login that opened a backend, after it had accepted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// Whole frames: settings and notices.
    pub before_key: Bytes,
    /// The body of BackendKeyData: the process and its cancel key.
    pub key_data: Bytes,
    /// Whole frames, the last of them ReadyForQuery.
    pub after_key: Bytes,
    /// What it answered when it was new, before any session: the statement, and whole frames without ReadyForQuery.
    pub answers: Vec<(&'static str, Bytes)>,
}

/// A backend on which nothing is under way and nothing is left of earlier sessions.
#[derive(Debug)]
pub struct Warm {
    pub socket: Socket,
    pub greeting: Arc<Greeting>,
    pub stamp: Stamp,
    /// When it was opened.
    pub born: Instant,
    pub learnt: Learnt,
}

#[derive(Debug)]
struct Waiting {
    warm: Warm,
    user: Box<str>,
    since: Instant,
}

/// Waiting backends by the start-up packet that they were opened with.
#[derive(Debug)]
pub struct WarmBackends {
    limits: RwLock<PoolLimits>,
    waiting: Mutex<HashMap<Bytes, Vec<Waiting>>>,
}

impl WarmBackends {
    pub fn new(limits: PoolLimits) -> Self {
        WarmBackends {
            limits: RwLock::new(limits),
            waiting: Mutex::default(),
        }
    }

    /// The bounds.
    pub fn limits(&self) -> PoolLimits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets other bounds; the next sweep sees to them.
    pub fn set_limits(&self, limits: PoolLimits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Bytes, Vec<Waiting>>> {
        // Every operation leaves a whole map, whatever panics elsewhere.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A backend for a session that begins with this packet under this stamp: the one that waited least.
    /// Backends of the packet under another stamp are stale from now on.
    pub fn take(&self, packet: &Bytes, stamp: &Stamp) -> Option<Warm> {
        let mut left = vec![];
        let mut waiting = self.waiting();
        let backends = waiting.get_mut(packet)?;
        let mut found = None;
        while let Some(mut candidate) = backends.pop() {
            if candidate.warm.stamp == *stamp && self.is_fit(&mut candidate) {
                found = Some(candidate.warm);
                break;
            }
            left.push(candidate);
        }
        left.extend(backends.extract_if(.., |waiting| waiting.warm.stamp != *stamp));
        if backends.is_empty() {
            waiting.remove(packet);
        }
        publish(&waiting);
        drop(waiting);
        left.into_iter().for_each(dismiss);
        let warm = found?;
        Some(Warm {
            socket: warm.socket.settle().ok()?,
            ..warm
        })
    }

    fn is_fit(&self, waiting: &mut Waiting) -> bool {
        let limits = self.limits();
        waiting.since.elapsed() < limits.idle_max
            && waiting.warm.born.elapsed() < limits.age_max
            && waiting.warm.socket.is_silent()
    }

    /// Whether a backend of this age may wait again.
    pub fn accepts(&self, born: Instant) -> bool {
        let limits = self.limits();
        limits.backends_max > 0 && born.elapsed() < limits.age_max
    }

    /// Keeps a backend for the next session; the one that has waited longest makes room for it.
    pub fn put(&self, packet: Bytes, user: &str, warm: Warm) {
        let mut left = vec![];
        let limits = self.limits();
        let mut waiting = self.waiting();
        let of_user = waiting
            .values()
            .flatten()
            .filter(|waiting| *waiting.user == *user)
            .count();
        if of_user >= limits.per_user_max {
            left.extend(take_oldest(&mut waiting, |other| *other.user == *user));
        }
        if waiting.values().map(Vec::len).sum::<usize>() >= limits.backends_max {
            left.extend(take_oldest(&mut waiting, |_| true));
        }
        let entry = Waiting {
            warm,
            user: user.into(),
            since: Instant::now(),
        };
        waiting.entry(packet).or_default().push(entry);
        publish(&waiting);
        drop(waiting);
        left.into_iter().for_each(dismiss);
    }

    /// Lets go of backends that died, waited too long or are too many.
    pub fn sweep(&self) {
        let mut left = vec![];
        let backends_max = self.limits().backends_max;
        let mut waiting = self.waiting();
        for backends in waiting.values_mut() {
            left.extend(backends.extract_if(.., |waiting| !self.is_fit(waiting)));
        }
        waiting.retain(|_, backends| !backends.is_empty());
        while waiting.values().map(Vec::len).sum::<usize>() > backends_max {
            left.extend(take_oldest(&mut waiting, |_| true));
        }
        publish(&waiting);
        drop(waiting);
        left.into_iter().for_each(dismiss);
    }

    /// Lets go of all of them, because PostgreSQL has no slot left; whether there were any.
    pub fn make_room(&self) -> bool {
        let left = std::mem::take(&mut *self.waiting());
        telemetry::pool_holds(0);
        let had_any = !left.is_empty();
        left.into_values().flatten().for_each(dismiss);
        had_any
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting().values().map(Vec::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn take_oldest(
    waiting: &mut HashMap<Bytes, Vec<Waiting>>,
    is_meant: impl Fn(&Waiting) -> bool,
) -> Option<Waiting> {
    let since = waiting
        .values()
        .flatten()
        .filter(|waiting| is_meant(waiting))
        .map(|waiting| waiting.since)
        .min()?;
    let (packet, at) = waiting.iter().find_map(|(packet, backends)| {
        let is_oldest = |waiting: &Waiting| is_meant(waiting) && waiting.since == since;
        Some((packet.clone(), backends.iter().position(is_oldest)?))
    })?;
    let backends = waiting.get_mut(&packet)?;
    let oldest = backends.remove(at);
    if backends.is_empty() {
        waiting.remove(&packet);
    }
    Some(oldest)
}

fn publish(waiting: &HashMap<Bytes, Vec<Waiting>>) {
    telemetry::pool_holds(waiting.values().map(Vec::len).sum());
}

/// Takes leave of a backend as a client does. What it thinks of that is not waited for.
fn dismiss(mut waiting: Waiting) {
    let mut frame = BytesMut::new();
    wire::terminate(&mut frame);
    let mut cx = Context::from_waker(Waker::noop());
    let _gone = Pin::new(&mut waiting.warm.socket).poll_write(&mut cx, &frame);
    let _gone = Pin::new(&mut waiting.warm.socket).poll_flush(&mut cx);
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const LIMITS: PoolLimits = PoolLimits {
        backends_max: 3,
        per_user_max: 2,
        idle_max: Duration::from_secs(60),
        age_max: Duration::from_secs(60),
    };
    const PACKET: Bytes = Bytes::from_static(b"packet");
    const OTHER: Bytes = Bytes::from_static(b"other");

    /// A backend, and the socket of who plays PostgreSQL.
    async fn backend(process: u8, stamp: &str) -> (Warm, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (theirs, _) = listener.accept().await.unwrap();
        let greeting = Greeting {
            before_key: Bytes::new(),
            key_data: Bytes::copy_from_slice(&[process]),
            after_key: Bytes::new(),
            answers: vec![],
        };
        let warm = Warm {
            socket: Socket::Tcp(ours),
            greeting: Arc::new(greeting),
            stamp: stamp.into(),
            born: Instant::now(),
            learnt: Learnt::default(),
        };
        (warm, theirs)
    }

    fn taken(pool: &WarmBackends, packet: &Bytes, stamp: &str) -> Option<u8> {
        let warm = pool.take(packet, &stamp.into())?;
        Some(warm.greeting.key_data[0])
    }

    #[tokio::test]
    async fn a_login_gets_the_backend_of_its_packet_and_stamp_that_waited_least() {
        let pool = WarmBackends::new(LIMITS);
        let mut peers = vec![];
        for (process, packet) in [(1, PACKET), (2, PACKET), (3, OTHER)] {
            let (warm, peer) = backend(process, "now").await;
            pool.put(packet, &format!("u{process}"), warm);
            peers.push(peer);
        }
        assert_eq!(taken(&pool, &PACKET, "now"), Some(2));
        assert_eq!(taken(&pool, &PACKET, "later"), None, "stale");
        assert_eq!(taken(&pool, &PACKET, "now"), None, "and so it was let go");
        assert_eq!(taken(&pool, &OTHER, "now"), Some(3));
        assert!(pool.is_empty());
    }

    #[tokio::test]
    async fn a_backend_that_spoke_or_left_is_not_taken() {
        let pool = WarmBackends::new(LIMITS);
        let (warm, mut speaker) = backend(1, "now").await;
        pool.put(PACKET, "u", warm);
        let (warm, leaver) = backend(2, "now").await;
        pool.put(PACKET, "u", warm);
        speaker.write_all(b"E").await.unwrap();
        drop(leaver);
        assert_eq!(taken(&pool, &PACKET, "now"), None);
        assert!(pool.is_empty());
    }

    #[tokio::test]
    async fn the_one_that_waited_longest_makes_room() {
        let pool = WarmBackends::new(LIMITS);
        let mut peers = vec![];
        for (process, user) in [(1, "ann"), (2, "bob"), (3, "ann"), (4, "ann"), (5, "cay")] {
            let (warm, peer) = backend(process, "now").await;
            pool.put(PACKET, user, warm);
            peers.push(peer);
        }
        // The third of ann's pushed out her first, and the fourth in all bob's.
        let left: Vec<_> = std::iter::from_fn(|| taken(&pool, &PACKET, "now")).collect();
        assert_eq!(left, [5, 4, 3]);
    }

    #[tokio::test]
    async fn a_sweep_lets_the_dead_go() {
        let pool = WarmBackends::new(LIMITS);
        let (warm, leaver) = backend(1, "now").await;
        pool.put(PACKET, "u", warm);
        let (warm, _peer) = backend(2, "now").await;
        pool.put(PACKET, "u", warm);
        drop(leaver);
        pool.sweep();
        assert_eq!(pool.len(), 1);
        pool.set_limits(PoolLimits {
            backends_max: 0,
            ..LIMITS
        });
        pool.sweep();
        assert!(pool.is_empty());
        pool.set_limits(LIMITS);
        let (warm, _peer) = backend(3, "now").await;
        pool.put(PACKET, "u", warm);
        assert!(pool.make_room() && !pool.make_room());
    }
}
