//! Keeps a thread of sessions awake for a moment after it has read something, because more may come at once.
//!
//! To sleep and be woken for a message takes longer than to relay it, on a machine that has nothing else to do: the
//! processor went to sleep, too. So the thread looks at its sockets for a moment before it sleeps, and offers its processor to
//! others between any two looks. It does so only where that is of use: not where nothing came in time lately, and not
//! where clients take turns, whose statements keep threads and processors awake without that.
//!
//! It must not know what was read.

use std::cell::Cell;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tokio::task::yield_now;

/// What a small statement takes PostgreSQL, and a wake-up on a slow machine.
const MOMENT: Duration = Duration::from_micros(250);

/// At most so many times something is read without a look after it because looks were in vain.
const UNWATCHED_MAX: u32 = 256;
/// The same because clients take turns.
const UNWATCHED_IN_CROWD: u32 = 64;

/// The client from which was read last, of those that were watched; on any thread.
static LATEST: AtomicU32 = AtomicU32::new(0);
static CLIENTS: AtomicU32 = AtomicU32::new(1);

thread_local! {
    static PULSE: Pulse = const { Pulse::new(&LATEST) };
}

/// One client, to tell whether it takes turns with others.
#[derive(Debug)]
pub(crate) struct Client {
    number: u32,
    has_been_latest: bool,
}

impl Client {
    pub(crate) fn new() -> Self {
        Client {
            number: CLIENTS.fetch_add(1, Ordering::Relaxed),
            has_been_latest: false,
        }
    }
}

/// Something was read on this thread: from this client, or for one of them.
#[inline]
pub(crate) fn beat(client: Option<&mut Client>) {
    PULSE.with(|pulse| pulse.beat(client));
}

/// Keeps this thread awake for as long as it is worth it, within a runtime that has no other thread. Never ends.
pub(crate) async fn linger() {
    loop {
        next_beat().await;
        let seen = watch().await;
        PULSE.with(|pulse| pulse.note(seen));
    }
}

/// Resolves when something is read that is to be watched.
async fn next_beat() {
    let beats = || PULSE.with(|pulse| pulse.beats.get());
    let before = beats();
    poll_fn(|cx| {
        if beats() != before {
            return Poll::Ready(());
        }
        PULSE.with(|pulse| pulse.lingerer.set(Some(cx.waker().clone())));
        Poll::Pending
    })
    .await;
}

/// What came of staying awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// More was read in time, until nothing was.
    More,
    Nothing,
    /// Clients take turns.
    Crowd,
}

/// Looks at the sockets until nothing has been read for a moment.
async fn watch() -> Seen {
    let mut seen = Seen::Nothing;
    let beats = || PULSE.with(|pulse| pulse.beats.get());
    let (mut known, mut since) = (beats(), Instant::now());
    loop {
        // Whatever else is due on this thread, and the sockets.
        yield_now().await;
        thread::yield_now();
        if PULSE.with(|pulse| pulse.unwatched.get()) > 0 {
            return Seen::Crowd;
        }
        let now = Instant::now();
        if beats() != known {
            (seen, known, since) = (Seen::More, beats(), now);
        } else if now - since > MOMENT {
            return seen;
        }
    }
}

/// What is known of one thread's reading.
struct Pulse {
    latest: &'static AtomicU32,
    beats: Cell<u64>,
    /// So many beats are not watched from now on.
    unwatched: Cell<u32>,
    /// So many were not after a beat was last watched.
    restraint: Cell<u32>,
    /// Who is waiting for a beat that is watched.
    lingerer: Cell<Option<Waker>>,
}

impl Pulse {
    const fn new(latest: &'static AtomicU32) -> Self {
        Pulse {
            latest,
            beats: Cell::new(0),
            unwatched: Cell::new(0),
            restraint: Cell::new(0),
            lingerer: Cell::new(None),
        }
    }

    fn beat(&self, client: Option<&mut Client>) {
        self.beats.set(self.beats.get().wrapping_add(1));
        match self.unwatched.get() {
            0 if client.is_some_and(|client| self.takes_turns(client)) => {
                self.unwatched.set(UNWATCHED_IN_CROWD);
            }
            0 => {
                if let Some(lingerer) = self.lingerer.take() {
                    lingerer.wake();
                }
            }
            unwatched => self.unwatched.set(unwatched - 1),
        }
    }

    /// Whether another one was the latest since this one was. One after another, clients may come and go.
    fn takes_turns(&self, client: &mut Client) -> bool {
        if self.latest.load(Ordering::Relaxed) == client.number {
            return false;
        }
        self.latest.store(client.number, Ordering::Relaxed);
        std::mem::replace(&mut client.has_been_latest, true)
    }

    fn note(&self, seen: Seen) {
        let restraint = self.restraint.get();
        let restraint = match seen {
            Seen::Crowd => return,
            Seen::More => restraint / 2,
            Seen::Nothing => (restraint.max(1) * 4).min(UNWATCHED_MAX),
        };
        self.restraint.set(restraint);
        self.unwatched.set(restraint);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn pulse() -> Pulse {
        Pulse::new(Box::leak(Box::default()))
    }

    /// Whether a beat of this client is watched.
    fn is_watched(pulse: &Pulse, client: &mut Client) -> bool {
        let woken = Arc::new(Woken::default());
        pulse.lingerer.set(Some(Arc::clone(&woken).into()));
        pulse.beat(Some(client));
        woken.0.load(Ordering::Relaxed)
    }

    #[test]
    fn one_client_after_another_is_watched() {
        let pulse = pulse();
        for _ in 0..10 {
            let mut client = Client::new();
            for _ in 0..10 {
                assert!(is_watched(&pulse, &mut client));
            }
        }
    }

    #[test]
    fn clients_that_take_turns_are_not() {
        let pulse = pulse();
        let (mut one, mut other) = (Client::new(), Client::new());
        let turns =
            (0..1000).map(|_| [is_watched(&pulse, &mut one), is_watched(&pulse, &mut other)]);
        let watched = turns.flatten().filter(|is_watched| *is_watched).count();
        // Their first ones, and none that follows.
        assert_eq!(watched, 2);
        for _ in 0..=UNWATCHED_IN_CROWD {
            is_watched(&pulse, &mut one);
        }
        assert!(is_watched(&pulse, &mut one), "the other has left");
    }

    #[test]
    fn what_is_in_vain_is_done_less_and_less() {
        let pulse = pulse();
        let mut client = Client::new();
        for unwatched in [4, 16, 64, UNWATCHED_MAX, UNWATCHED_MAX] {
            pulse.note(Seen::Nothing);
            for _ in 0..unwatched {
                assert!(!is_watched(&pulse, &mut client));
            }
            assert!(is_watched(&pulse, &mut client));
        }
        for unwatched in [128, 64, 32, 16, 8, 4, 2, 1, 0] {
            pulse.note(Seen::More);
            assert_eq!(pulse.unwatched.get(), unwatched);
        }
    }

    #[test]
    fn a_thread_that_goes_on_reading_does_not_sleep() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let _lingers = runtime.spawn(linger());
        let seen = runtime.block_on(async {
            yield_now().await;
            for _ in 0..3 {
                beat(None);
                yield_now().await;
            }
            PULSE.with(|pulse| pulse.lingerer.take().is_some())
        });
        assert!(!seen, "somebody would have to wake it");
    }
}
