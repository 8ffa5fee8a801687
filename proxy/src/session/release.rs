//! Makes a backend as good as new after its session, and lets it wait for the next.
//!
//! Any doubt ends the backend instead: something under way, a statement that may leave more than a reset undoes, an
//! unexpected word in the reset, a cancel request of unknown fate. It must not know who comes next.

use bytes::BytesMut;
use tokio::time::timeout;
use tracing::debug;

use super::learnt::learn_names;
use super::lease::Lease;
use super::leg::Leg;
use super::pledge::Pledge;
use super::{Ended, Session};
use crate::pool::Warm;
use crate::wire::{self, TransactionStatus, ready_status, server_tag};

const ROLLBACK: &str = "ROLLBACK";
const RESET: &str = "DISCARD ALL";
/// Replies of a reset are short.
const REPLY_BYTES_MAX: usize = 64 * 1024;

impl<R> Session<R> {
    /// Whether the backend can serve another session, as far as this one knows.
    pub(super) fn leaves_good_backend(&self, ended: Ended) -> bool {
        let lends = self
            .lease
            .as_ref()
            .is_some_and(|lease| !lease.is_tainted && lease.pool.warm.accepts(lease.born));
        // What was released is the client's, who is gone.
        let is_quiet = self.model.is_quiet() && self.server.unreleased().is_empty();
        lends
            && ended == Ended::ClientLeft
            && self.server.frame_left == 0
            && (is_quiet || self.owes_only_pledges())
            && !self.is_pledge_broken
            && !self.is_raw
            && !self.is_draining
            && !self.server.ended
    }

    /// Resets the backend and lets it wait, or ends it.
    pub(super) async fn give_back(self) {
        // What was held is not sent any more.
        let status = self.sent_status();
        let shared = self.shared;
        let Some(lease) = self.lease else { return };
        // The client's socket closes now: it does not wait for what follows.
        drop(self.client);
        let within = shared.limits.cancel_timeout;
        if timeout(within, return_backend(*lease, self.server, status))
            .await
            .is_err()
        {
            debug!("A backend did not answer its reset in time.");
        }
    }
}

async fn return_backend(mut lease: Lease, mut server: Leg, status: TransactionStatus) {
    server.consume(server.released);
    while let Some(pledge) = lease.pledges.pop_front() {
        if !is_done(&mut lease, &mut server, pledge).await {
            return;
        }
    }
    if lease.is_touched && !reset(&mut lease, &mut server, status).await {
        debug!("A backend was not as good as new, and ends.");
        return;
    }
    if lease.is_learnt_outdated {
        let Lease {
            pool,
            greeting,
            learnt,
            ..
        } = &mut lease;
        if !learn_names(&mut server, pool, greeting, learnt).await || !server.inbound.is_empty() {
            return;
        }
    }
    let Lease {
        pool, registration, ..
    } = lease;
    // Requests that came in time are acted on before the next session can be there.
    if !registration.close().await {
        return;
    }
    if lease.is_touched {
        match pool.traces.are_none(&pool.accounts).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return debug!(%error, "Could not ask what a session may have left."),
        }
    }
    let warm = Warm {
        socket: server.socket,
        greeting: lease.greeting,
        stamp: lease.stamp,
        born: lease.born,
        learnt: lease.learnt,
    };
    pool.warm.put(lease.packet, &lease.user, warm);
}

/// Whether the backend did exactly what it was told, and is now as it was at first.
async fn reset(lease: &mut Lease, server: &mut Leg, status: TransactionStatus) -> bool {
    let is_open = status != TransactionStatus::Idle;
    let mut frames = BytesMut::new();
    let commands: &[&'static str] = if is_open {
        &[ROLLBACK, RESET]
    } else {
        &[RESET]
    };
    for command in commands {
        wire::query(&mut frames, command);
    }
    if server.say(&frames).await.is_err() {
        return false;
    }
    for command in commands {
        let pledge = Pledge {
            command,
            status: TransactionStatus::Idle,
        };
        if !is_done(lease, server, pledge).await {
            return false;
        }
    }
    let nothing_more = server.inbound.is_empty();
    nothing_more && !lease.is_tainted && lease.has_first_settings()
}

/// Whether the answer to a command is that it was carried out, and nothing else but settings.
async fn is_done(lease: &mut Lease, server: &mut Leg, pledge: Pledge) -> bool {
    let mut was_completed = false;
    while let Some(frame) = server.whole_frame(REPLY_BYTES_MAX).await {
        match frame.first() {
            Some(&server_tag::COMMAND_COMPLETE)
                if !was_completed && pledge.is_completed_by(&frame) =>
            {
                was_completed = true;
            }
            Some(&server_tag::READY_FOR_QUERY) => {
                return was_completed && ready_status(&frame) == Ok(pledge.status);
            }
            _ => lease.note_server_frame(&frame),
        }
    }
    false
}
