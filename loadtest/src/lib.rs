//! Star Schema Benchmark data and queries, and the drivers that measure over the wire.
//!
//! Must not know pgstar's other crates: what is measured here is seen as any client sees it.

pub mod churn;
pub mod driver;
pub mod ssb;
