//! PostgreSQL's frames: cutting, reading and building them, without a socket in sight.
//!
//! Every reader here is total: whatever the bytes, it answers a value or [`Malformed`], and never
//! looks beyond the slice it was given. Nothing here knows sessions, statements or routes.

mod authentication;
mod client;
mod fields;
mod header;
mod proxy_header;
mod server;
mod startup;

pub use authentication::{
    AuthenticationRequest, authentication_ok, authentication_sasl, authentication_sasl_continue,
    sasl_initial_response, sasl_response,
};
pub use client::{
    Bind, Close, Describe, Execute, Parse, Target, bind, bind_nothing, close, describe,
    execute_all, flush, parse, query, sync, tail_of_text, terminate,
};
pub use fields::Malformed;
pub use header::{HEADER_BYTES, Header, LENGTH_BYTES, body, header};
pub use proxy_header::proxy_header;
pub use server::{
    ColumnOrigin, ErrorReport, Severity, TransactionStatus, backend_key_data, bind_complete,
    command_complete, data_row, data_row_values, parameter_description, parse_complete,
    patch_origins, ready_for_query, ready_status, row_description_of_text, same_columns, sqlstate,
};
pub use startup::{Opening, PRE_AUTH_PACKET_BYTES_MAX, Startup, opening};

/// Reads of a client's frame bodies, and of whole authentication frames.
pub mod read {
    pub use super::authentication::read_authentication as authentication;
    pub use super::authentication::read_sasl_initial as sasl_initial;
    pub use super::authentication::read_sasl_response as sasl_response;
    pub use super::client::BoundValue;
    pub use super::client::read_bind as bind;
    pub use super::client::read_bound_values as bound_values;
    pub use super::client::read_close as close;
    pub use super::client::read_describe as describe;
    pub use super::client::read_execute as execute;
    pub use super::client::read_parse as parse;
    pub use super::client::read_query as query;
    pub use super::client::read_sync as sync;
}

/// The type bytes of frames that a client sends.
pub mod client_tag {
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// The type bytes of frames that a server sends.
pub mod server_tag {
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const DATA_ROW: u8 = b'D';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';

    /// Whether frames of this type may come at any time, unasked.
    pub fn is_asynchronous(tag: u8) -> bool {
        matches!(
            tag,
            NOTICE_RESPONSE | NOTIFICATION_RESPONSE | PARAMETER_STATUS
        )
    }
}
