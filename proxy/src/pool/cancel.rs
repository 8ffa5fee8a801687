//! Cancel keys of sessions whose backends outlive them.
//!
//! PostgreSQL gives a backend one cancel key for its whole life, so sessions that follow one another on a backend
//! would share it, and a cancel request that comes late would hit the wrong one. The process number that a
//! client sees is the backend's own, which it may also use in SQL; the key beside it is made for the session,
//! and stands for the backend's own key only as long as the session lives. It must not know sockets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;

/// The packet's length and its code come before the process and the key.
const KEY_AT: usize = 8;
const PROCESS_BYTES: usize = 4;
const KEY_BYTES: usize = 4;

/// The process and the key that a client was told.
type Shown = [u8; PROCESS_BYTES + KEY_BYTES];

/// What is under way towards one session's backend.
#[derive(Debug, Clone, Copy, Default)]
struct UnderWay {
    requests: usize,
    /// Of one it is not known whether the server has acted on it.
    is_one_lost: bool,
}

#[derive(Debug)]
struct Live {
    /// The process and the key that PostgreSQL told.
    real: Bytes,
    under_way: watch::Sender<UnderWay>,
}

/// The keys of all live sessions.
#[derive(Debug, Default)]
pub struct CancelKeys(Mutex<HashMap<Shown, Arc<Live>>>);

impl CancelKeys {
    fn live(&self) -> MutexGuard<'_, HashMap<Shown, Arc<Live>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a key for a session on the backend of this BackendKeyData body. `None` if that has another form than
    /// protocol 3.0 gives it, or the system has no randomness.
    pub fn register(self: &Arc<Self>, real: &Bytes) -> Option<Registration> {
        if real.len() != PROCESS_BYTES + KEY_BYTES {
            return None;
        }
        let mut shown: Shown = real.as_ref().try_into().ok()?;
        let random = SystemRandom::new();
        let mut live = self.live();
        // The next round is for two sessions of one backend's number, after a restart of the server.
        loop {
            random.fill(&mut shown[PROCESS_BYTES..]).ok()?;
            if shown[..] != real[..] && !live.contains_key(&shown) {
                break;
            }
        }
        let entry = Live {
            real: real.clone(),
            under_way: watch::Sender::default(),
        };
        live.insert(shown, Arc::new(entry));
        Some(Registration {
            keys: Arc::clone(self),
            shown,
        })
    }

    /// What to send to PostgreSQL for a cancel request that bears a live session's key; hold on to it until
    /// PostgreSQL has acted on it. `None` for every other request.
    pub fn resolve(&self, request: &[u8]) -> Option<CancelTicket> {
        let shown: Shown = request.get(KEY_AT..)?.try_into().ok()?;
        let live = self.live();
        let session = Arc::clone(live.get(&shown)?);
        // Under the lock, so that no session ends between finding its key and counting the request.
        session
            .under_way
            .send_modify(|under_way| under_way.requests += 1);
        Some(CancelTicket {
            session,
            was_acted_on: false,
        })
    }
}

/// A cancel request on its way to a live session's backend.
#[derive(Debug)]
pub struct CancelTicket {
    session: Arc<Live>,
    was_acted_on: bool,
}

impl CancelTicket {
    /// The process and the key that PostgreSQL knows.
    pub fn key_data(&self) -> &Bytes {
        &self.session.real
    }

    /// PostgreSQL has acted on the request.
    pub fn acted_on(mut self) {
        self.was_acted_on = true;
    }
}

impl Drop for CancelTicket {
    fn drop(&mut self) {
        self.session.under_way.send_modify(|under_way| {
            under_way.requests -= 1;
            under_way.is_one_lost |= !self.was_acted_on;
        });
    }
}

/// A session's key. Dropping it ends the key.
#[derive(Debug)]
pub struct Registration {
    keys: Arc<CancelKeys>,
    shown: Shown,
}

impl Registration {
    /// The body of BackendKeyData for the client.
    pub fn key_data(&self) -> &[u8] {
        &self.shown
    }

    /// Ends the key and waits for the requests that are under way; whether PostgreSQL is known to have acted on
    /// all of them, so that none can reach who comes next.
    pub async fn close(self) -> bool {
        let Some(session) = self.keys.live().remove(&self.shown) else {
            return false;
        };
        let mut under_way = session.under_way.subscribe();
        match under_way
            .wait_for(|under_way| under_way.requests == 0)
            .await
        {
            Ok(under_way) => !under_way.is_one_lost,
            Err(_) => false,
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.keys.live().remove(&self.shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: Bytes = Bytes::from_static(&[0, 0, 1, 2, 9, 8, 7, 6]);

    fn request(key_data: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, 16, 4, 210, 22, 46], key_data].concat()
    }

    #[tokio::test]
    async fn a_key_stands_for_the_backends_own_as_long_as_its_session_lives() {
        let keys = Arc::new(CancelKeys::default());
        let session = keys.register(&REAL).unwrap();
        let shown = session.key_data().to_vec();
        assert_eq!(shown[..4], REAL[..4], "the process is real");
        assert_ne!(shown[4..], REAL[4..]);
        let ticket = keys.resolve(&request(&shown)).unwrap();
        assert_eq!(ticket.key_data(), &REAL);
        ticket.acted_on();
        assert!(session.close().await);
        assert!(keys.resolve(&request(&shown)).is_none());
    }

    #[tokio::test]
    async fn a_session_that_ends_waits_for_requests_under_way() {
        let keys = Arc::new(CancelKeys::default());
        let session = keys.register(&REAL).unwrap();
        let ticket = keys.resolve(&request(session.key_data())).unwrap();
        let closing = tokio::spawn(session.close());
        tokio::task::yield_now().await;
        assert!(!closing.is_finished());
        ticket.acted_on();
        assert!(closing.await.unwrap());
    }

    #[tokio::test]
    async fn a_request_that_got_lost_taints_the_backend() {
        let keys = Arc::new(CancelKeys::default());
        let session = keys.register(&REAL).unwrap();
        drop(keys.resolve(&request(session.key_data())));
        assert!(!session.close().await);
    }

    #[test]
    fn other_requests_are_not_pgstars() {
        let keys = Arc::new(CancelKeys::default());
        let session = keys.register(&REAL).unwrap();
        let shown = session.key_data().to_vec();
        for bytes in [
            &request(&REAL)[..],
            &request(&shown[..7]),
            &request(&[0; 40]),
            b"",
        ] {
            assert!(keys.resolve(bytes).is_none(), "{bytes:?}");
        }
        drop(session);
        assert!(keys.resolve(&request(&shown)).is_none());
        assert!(keys.register(&Bytes::from_static(b"short")).is_none());
    }
}
