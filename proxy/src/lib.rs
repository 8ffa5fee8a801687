//! The proxy: sessions between clients and PostgreSQL, and the one place that decides what serves a statement.
pub mod admin;
pub mod check;
pub mod cli;
pub mod config;
pub mod demo;
pub mod explain;
pub mod failure;
pub mod listener;
pub mod misfit;
pub mod rollups;
pub mod route;
pub mod serve;
pub mod session;
pub mod telemetry;
pub mod warehouse;
pub mod wire;
