//! What a session asks of whoever decides: the router of the product, or a script in a test.

use std::future::Future;

use pgstar_postgres::visible::Glimpse;

use crate::route::{Binding, Candidate, Route, Router, SessionFacts};

/// Decides what serves a statement.
pub trait Routing: Send + Sync + 'static {
    /// Whether this statement is worth a route; must be quick, it sees every lone statement.
    fn candidate(&self, sql: &[u8]) -> Candidate;

    /// A text that is no candidate is none while this is the same.
    fn version(&self) -> u64;

    /// What serves this statement for this session, now; the glimpse was caught after the statement arrived.
    fn route(
        &self,
        facts: &SessionFacts,
        sql: &str,
        binding: Option<&Binding>,
        glimpse: Option<&Glimpse>,
    ) -> impl Future<Output = Route> + Send;

    /// The statement fell back to PostgreSQL after its rewritten form failed.
    fn rewritten_failed(&self, facts: &SessionFacts, sql: &str, sqlstate: &str);
}

impl Routing for Router {
    fn candidate(&self, sql: &[u8]) -> Candidate {
        Router::candidate(self, sql)
    }

    fn version(&self) -> u64 {
        Router::version(self)
    }

    fn route(
        &self,
        facts: &SessionFacts,
        sql: &str,
        binding: Option<&Binding>,
        glimpse: Option<&Glimpse>,
    ) -> impl Future<Output = Route> + Send {
        Router::route(self, facts, sql, binding, glimpse)
    }

    fn rewritten_failed(&self, facts: &SessionFacts, sql: &str, sqlstate: &str) {
        Router::rewritten_failed(self, facts, sql, sqlstate);
    }
}
