//! The decoders under test, compiled from their own file: to instrument the rest of pgstar would take minutes.

#[path = "../../proxy/src/wire/mod.rs"]
pub mod wire;
