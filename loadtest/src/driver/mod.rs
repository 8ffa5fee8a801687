//! The load test: the same mix of dashboards' questions, asked of PostgreSQL and of pgstar in turn.
//!
//! [`scripts`] holds the mix, [`pgbench`] runs it, [`log`] reads what pgbench recorded,
//! [`statistics`] condenses it, [`report`] sets the two sides beside each other and [`rounds`] ties
//! these together. [`demo`] starts a server to measure when there is none. All of them see
//! PostgreSQL and pgstar as two addresses and nothing more.

pub mod demo;
pub mod log;
pub mod pgbench;
pub mod report;
pub mod rounds;
pub mod scripts;
pub mod statistics;

/// Which address a transaction was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// PostgreSQL itself.
    Direct,
    /// pgstar.
    Through,
}
