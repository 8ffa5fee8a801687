//! Logins that pgstar itself checks, and the warm backends that make such a login cheap.
//!
//! 1. [`accounts`] asks PostgreSQL, once for each login, for the user's verifier and for a stamp of everything
//!    that a new session of this user depends on.
//! 2. [`warm`] keeps backends that ended sessions left as good as new, each under the start-up packet it was
//!    opened with and the stamp that held then. A login takes one with the very same two, or opens its own.
//! 3. [`cancel`] gives each session a cancel key of its own, so that a late cancel request of the session
//!    before cannot reach the next one on the same backend.
//! 4. [`harmless`] and [`traces`] say whether a session may have left something that a reset does not undo.
//! 5. [`learnt`] keeps with a backend what was learnt on it, and [`link`] tells whether that still holds.
//!
//! It must not know how a session goes: `session/login.rs` and `session/release.rs` do.

mod accounts;
mod cancel;
mod harmless;
mod learnt;
mod link;
mod traces;
mod warm;

pub use accounts::{Account, AccountError, Accounts, VerifierSource};
pub use cancel::{CancelKeys, CancelTicket, Registration};
pub use harmless::{Functions, is_harmless};
pub use learnt::Learnt;
pub use link::Mark;
pub use traces::Traces;
pub use warm::{Greeting, PoolLimits, Stamp, Warm, WarmBackends};

use std::sync::Arc;
use std::time::Duration;

use crate::wire::Startup;

/// How often idle backends are looked at: those that died, and those that waited long enough.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(5);

/// Everything that sessions need whose logins pgstar checks itself.
#[derive(Debug)]
pub struct Pool {
    pub accounts: Accounts,
    pub warm: WarmBackends,
    pub cancels: Arc<CancelKeys>,
    pub traces: Traces,
}

impl Pool {
    /// A pool without any backend; nothing is opened yet.
    pub fn new(accounts: Accounts, limits: PoolLimits, cancels: Arc<CancelKeys>) -> Self {
        Pool {
            accounts,
            warm: WarmBackends::new(limits),
            cancels,
            traces: Traces::default(),
        }
    }

    /// Who wants to log in, if that is a session that pgstar may check the login of: one of protocol 3.0
    /// without extensions, to the one database that pgstar itself is connected to. All others are relayed.
    pub fn applicant<'s>(&self, startup: &'s Startup) -> Option<&'s str> {
        let is_plain = startup.version() == (3, 0)
            && startup.opens_a_session()
            && startup
                .parameters()
                .all(|(name, _)| !name.starts_with(b"_pq_."));
        // A name in another encoding than ASCII may mean another role to the server than to pgstar.
        let text = |name: &[u8]| name.is_ascii().then_some(());
        let user = startup.parameter("user")?;
        text(user)?;
        let user = std::str::from_utf8(user).ok()?;
        let database = startup
            .parameter("database")
            .filter(|name| !name.is_empty())
            .unwrap_or(user.as_bytes());
        let is_own = database == self.accounts.database().as_bytes();
        (is_plain && is_own && !user.is_empty()).then_some(user)
    }

    /// Nobody comes any more: no backend waits, now or when the last session ends.
    pub fn close(&self) {
        self.warm.set_limits(PoolLimits {
            backends_max: 0,
            ..self.warm.limits()
        });
        self.warm.make_room();
    }
}
