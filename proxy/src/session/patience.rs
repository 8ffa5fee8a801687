//! How long a session may take to log in, and how long it may be idle.
//!
//! One timer, set anew only when it has gone off: a message costs nothing. It must not know what ending a session takes.

use std::pin::Pin;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Ended, Routing, Session};
use crate::wire::TransactionStatus;

/// An idle session is looked at so many times within the time that it may be idle.
const LOOKS: u32 = 4;

/// The timer of a session.
#[derive(Debug)]
pub(super) struct Patience {
    timer: Pin<Box<Sleep>>,
    /// Nothing is waited for any more.
    is_over: bool,
    logged_in_by: Instant,
    idle_max: Option<Duration>,
    /// How many statements had ended, and when that was first seen.
    readies: u64,
    since: Instant,
}

impl Patience {
    /// For a session that must be logged in by then, and may be idle for so long. The timer is kept there.
    pub(super) fn new(timers: &Handle, logged_in_by: Instant, idle_max: Option<Duration>) -> Self {
        let _there = timers.enter();
        let first_look = idle_max.map_or(logged_in_by, |idle_max| {
            logged_in_by.min(Instant::now() + idle_max / LOOKS)
        });
        Patience {
            timer: Box::pin(sleep_until(first_look)),
            is_over: false,
            logged_in_by,
            idle_max,
            readies: 0,
            since: Instant::now(),
        }
    }

    /// Resolves when it is time to look at the session.
    pub(super) async fn look_due(&mut self) {
        match self.is_over {
            true => std::future::pending().await,
            false => self.timer.as_mut().await,
        }
    }

    /// Looks at the session: whether patience is at an end, else the timer is set anew.
    pub(super) fn look<R: Routing>(&mut self, session: &Session<R>) -> Option<Ended> {
        // Whatever this is, it is no session that could be idle.
        if session.is_raw {
            self.is_over = true;
            return None;
        }
        let now = Instant::now();
        if !session.model.has_started() && now >= self.logged_in_by {
            return Some(Ended::LoginTooSlow);
        }
        let Some(idle_max) = self.idle_max else {
            self.is_over = true;
            return None;
        };
        let is_idle = session.model.is_quiet() && session.told_status() == TransactionStatus::Idle;
        if !is_idle || session.model.readies() != self.readies {
            self.readies = session.model.readies();
            self.since = now;
        } else if now - self.since >= idle_max {
            return Some(Ended::IdleTooLong);
        }
        let next_look = now + idle_max / LOOKS;
        self.timer
            .as_mut()
            .reset(match session.model.has_started() {
                true => next_look,
                false => next_look.min(self.logged_in_by),
            });
        None
    }
}
