//! What pgstar asks of PostgreSQL itself: its catalog, the columns of a statement, the upkeep of
//! rollup tables, and throw-away servers for the demo and the tests.
//!
//! This crate never parses a query: statements reach it as finished text.

pub mod catalog;
pub mod connect;
pub mod describe;
mod give_way;
mod identifier;
pub mod maintain;
pub mod pgoutput;
pub mod replication;
pub mod rollups;
pub mod server;
pub mod stream;
pub mod tls;
pub mod visible;
