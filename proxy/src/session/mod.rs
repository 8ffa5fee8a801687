//! One client's session, from its first byte to its last.
//!
//! The life of a session:
//! 1. [`startup`] answers encryption and cancel requests and reads the start-up packet.
//! 2. The start-up packet goes, as it came, to a new connection to PostgreSQL; authentication is relayed. Or
//!    pgstar checks the password itself ([`login`]) and the session gets a backend that waited, with a [`lease`].
//! 3. [`relay`] moves bytes both ways and keeps the [`model`]: what is owed, and the transaction's status. What may interrupt it
//!    ([`patience`], [`held`], a shutdown) is looked at only when it does ([`seldom`]).
//! 4. When nothing is under way and the client sends one lone statement ([`batch`]) that the router calls a
//!    candidate, the relay pauses: [`statement`] makes sure that the session's [`facts`] are known, asks for
//!    a route and serves the statement ([`serve_answer`], [`rewrite`]) or hands it back to the relay.
//! 5. What pgstar asks the session's own backend goes through [`exchange`], which swallows the replies.
//!    [`unnamed`] gives the backend the unnamed statement that a served batch withheld from it.
//!    [`prepared`] remembers the texts of statements that later batches refer to by name, and [`verify`] asks
//!    whether they are still what they were; [`own`] leaves the client's statements alone meanwhile.
//!    On a leased backend, what drivers say around their question is answered without a wait ([`preamble`], [`pledge`],
//!    [`held`], [`learnt`]).
//! 6. When the client vanishes amid a statement, that statement is cancelled upstream. A leased backend goes back
//!    once it is as good as new ([`release`]).
//!
//! Whatever does not fit the model makes the session a plain copy of bytes for the rest of its life.
//! Nothing here reads SQL: the router alone does.

mod batch;
mod buffer;
mod exchange;
mod facts;
mod held;
mod learnt;
mod lease;
mod leg;
mod life;
mod login;
mod model;
mod observe;
mod own;
mod patience;
mod pledge;
mod preamble;
mod prepared;
mod relay;
mod release;
mod rewrite;
mod routing;
mod seats;
mod seldom;
mod serve_answer;
mod shared;
mod socket;
mod startup;
mod statement;
mod unnamed;
mod upstream;
mod verify;

pub(crate) use facts::{facts_of, probe_sql};
pub(crate) use life::{Phase, run};
pub use routing::Routing;
pub(crate) use seats::Seats;
pub use shared::{Count, Counters, Limits, Logins, ProxyHeader, Shared};
pub use socket::Socket;
pub use upstream::Upstream;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use facts::KnownFacts;
use lease::Lease;
use leg::Leg;
use model::Model;
use prepared::PreparedStatements;
use unnamed::Withheld;

/// A session that has a connection to PostgreSQL.
#[derive(Debug)]
struct Session<R> {
    shared: Arc<Shared<R>>,
    client: Leg,
    server: Leg,
    model: Model,
    /// The body of BackendKeyData, once it came.
    key_data: Option<Bytes>,
    /// What becomes of the backend when the session is over; `None`: it ends too.
    lease: Option<Box<Lease>>,
    facts: KnownFacts,
    prepared: PreparedStatements,
    /// What the backend has not been told of the unnamed statement.
    withheld: Option<Withheld>,
    /// What pgstar itself has to say to the client, not yet written.
    outgoing: BytesMut,
    /// An error that was swallowed in an exchange that is not over: the last word if the server leaves now.
    swallowed_error: Option<Bytes>,
    /// A reply that had been foretold came out otherwise.
    is_pledge_broken: bool,
    /// Frames are followed no longer: plain copying.
    is_raw: bool,
    /// A shutdown has begun.
    is_draining: bool,
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Ended {
    #[error("the client left")]
    ClientLeft,
    #[error("the server left")]
    ServerLeft,
    #[error("the server's bytes are no frames")]
    ServerMisbehaved,
    #[error("the proxy shuts down")]
    Drained,
    #[error("the client took too long to log in")]
    LoginTooSlow,
    #[error("the session was idle for too long")]
    IdleTooLong,
}

impl<R> Session<R> {
    fn new(shared: Arc<Shared<R>>, client: Leg, server: Leg) -> Self {
        Session {
            shared,
            client,
            server,
            model: Model::new(),
            key_data: None,
            lease: None,
            facts: KnownFacts::default(),
            prepared: PreparedStatements::default(),
            withheld: None,
            outgoing: BytesMut::new(),
            swallowed_error: None,
            is_pledge_broken: false,
            is_raw: false,
            is_draining: false,
        }
    }
}
