//! A logical replication connection: the part of PostgreSQL's protocol that tokio-postgres leaves out.
//!
//! It carries changes and knows nothing of what they say: the bytes of the output plugin are handed
//! on as they are (`pgoutput` reads them).
//!
//! In order: `socket` opens, `authenticate` starts up, [`ReplicationConnection`] runs the commands of
//! the replication protocol, and [`ReplicationStream`] is what it becomes once streaming began.
//! (PostgreSQL manual, sections 55.4 "Streaming Replication Protocol" and 55.2 "Message Flow".)

mod authenticate;
mod connection;
mod copy;
pub(crate) mod cursor;
mod error;
mod frame;
mod lsn;
mod socket;

pub use connection::{ReplicationConnection, Slot, SlotLifetime, SlotSnapshot, SystemIdentity};
pub use copy::{Acknowledged, Event, ReplicationStream};
pub use cursor::EndsEarly;
pub use error::{ReplicationError, ServerMessage};
pub use frame::COPY_DATA_BYTES_MAX;
pub use lsn::{Lsn, NotAnLsn};
