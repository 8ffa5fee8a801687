//! What a session asks the router, and what it is told. Knows nothing of how that is decided.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use pgstar_cache::Answer;

use super::{Passed, Temporary};

use crate::wire::ColumnOrigin;

/// What a session knows of itself when it asks for a route, as PostgreSQL reported it.
///
/// Fetched from the session's own backend (see `session::facts`) and fetched again after any
/// statement that might have changed it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionFacts {
    /// The database that the session is connected to.
    pub database: String,
    /// When the server process began that the session's backend belongs to; no two servers began at the same
    /// microsecond.
    pub server: String,
    /// `current_user`: the role whose privileges apply.
    pub role: String,
    /// `current_schemas(true)`: the schemas that names resolve in, implicit ones included, but for the session's own
    /// temporary one.
    pub search_path: Vec<String>,
    /// What is in that one.
    pub temporary: Temporary,
    /// Whether the current transaction has been assigned an xid (it wrote).
    pub wrote: bool,
    /// `transaction_isolation`.
    pub isolation: String,
    /// `TimeZone`.
    pub time_zone: String,
    /// `standard_conforming_strings` is on, and `client_encoding` is UTF8 or SQL_ASCII-free text that equals it.
    pub plain_strings: bool,
    /// `row_security` is off: statements that a policy would hold for fail, and rollups' tables have one.
    pub refuses_policies: bool,
    /// `pgstar.freshness`, as set; `None` when not set.
    pub freshness: Option<String>,
    /// `pgstar.rewrite` is not off.
    pub rewrite: bool,
    /// `pgstar.cache` is not off.
    pub cache: bool,
    /// The role is a superuser: it may see other sessions' statements.
    pub is_superuser: bool,
    /// What has passed in the session beside what pgstar answered.
    pub passed: Arc<Passed>,
    /// Every fact that can change the bytes of an answer, in one opaque key.
    pub fingerprint: Bytes,
}

/// An extended-protocol batch's own part of the question.
#[derive(Debug, Clone, Default)]
pub struct Binding {
    /// The parameter type OIDs of Parse, as sent.
    pub parameter_types: Vec<u32>,
    /// The body of Bind after the two names: formats, values and result formats, as sent.
    pub bind: Bytes,
    /// How many parameters Bind carries.
    pub parameter_count: usize,
}

/// Where a rewritten answer goes when it is complete.
pub struct CacheSlot {
    answer_bytes_max: usize,
    insert: Box<dyn FnOnce(Answer) + Send>,
}

impl CacheSlot {
    /// A place for one answer of at most this many bytes.
    pub fn new(answer_bytes_max: usize, insert: impl FnOnce(Answer) + Send + 'static) -> Self {
        CacheSlot {
            answer_bytes_max,
            insert: Box::new(insert),
        }
    }

    /// The largest answer worth keeping, in bytes; a session stops collecting beyond it.
    pub fn answer_bytes_max(&self) -> usize {
        self.answer_bytes_max
    }

    /// Keeps the answer for later statements with the same key.
    pub fn insert(self, answer: Answer) {
        (self.insert)(answer);
    }
}

impl std::fmt::Debug for CacheSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheSlot")
            .field("answer_bytes_max", &self.answer_bytes_max)
            .finish_non_exhaustive()
    }
}

/// What is still to be shown of an answer after it was computed and before anybody sees it.
pub struct Confirmation(Pin<Box<dyn Future<Output = bool> + Send>>);

impl Confirmation {
    pub fn new(confirm: impl Future<Output = bool> + Send + 'static) -> Self {
        Confirmation(Box::pin(confirm))
    }

    /// Whether the answer is PostgreSQL's; if not, the client's own statement has to be run.
    pub async fn confirm(self) -> bool {
        self.0.await
    }
}

impl std::fmt::Debug for Confirmation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Confirmation")
    }
}

/// A statement to run in place of the client's.
#[derive(Debug)]
pub struct Rewritten {
    /// The text to send.
    pub sql: String,
    /// What the original's RowDescription says of each column's origin; everything else in it equals the rewritten one's.
    pub origins: Arc<[ColumnOrigin]>,
    /// Where to keep the answer, when it may be kept.
    pub cache: Option<CacheSlot>,
    /// When it is there, the whole answer is held back until it is confirmed.
    pub confirmation: Option<Confirmation>,
}

/// What serves a statement.
#[derive(Debug)]
pub enum Route {
    /// PostgreSQL, with the client's own bytes. `clean` says that the statement is a plain SELECT of built-in
    /// functions, so it cannot have changed a fact of the session.
    Passthrough { clean: bool },
    /// PostgreSQL, with the client's own statement, which is a plain SELECT; its answer is worth keeping.
    Observed(CacheSlot),
    /// A stored answer.
    Cached(Arc<Answer>),
    /// A rollup: run this instead, on the session's own backend.
    Rewritten(Rewritten),
    /// pgstar's own answer (`EXPLAIN (PGSTAR)`, `SHOW pgstar.…`).
    Local(Answer),
    /// pgstar's own refusal, as a whole ErrorResponse frame (for example a bad `SHOW pgstar.…` name).
    LocalError(Bytes),
}

/// Whether a statement's text is worth routing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidate {
    /// Relay it; nothing else is possible while the router's [version](Router::version) is the same.
    No,
    /// Relay it this time.
    NotYet,
    /// Worth asking [`Router::route`].
    Yes,
}
