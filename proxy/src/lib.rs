//! The proxy: sessions between clients and PostgreSQL, and the one place that decides what serves a statement.
pub mod route;
