//! Decides whether a statement can be answered from a rollup, and proves it.
pub mod catalog;
