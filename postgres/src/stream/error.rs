//! Why there is no stream, no proof, or no continuity.

use std::fmt;
use std::time::Duration;

use pgstar_rewriter::catalog::Oid;

use super::SetupProblem;
use crate::connect::Error;
use crate::pgoutput::DecodeError;
use crate::replication::{Lsn, ReplicationError};

/// Why changes cannot be followed, or not any longer.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Settings or privileges are missing.
    #[error("changes cannot be followed: {}", Listed(.0))]
    Setup(Vec<SetupProblem>),
    /// One of pgstar's own statements failed, or their connection was lost.
    #[error(transparent)]
    Postgres(#[from] Error),
    /// The replication connection.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// The stream says something that we do not understand.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A transaction of the stream does not begin or end as it should.
    #[error("the stream is out of order: {0}")]
    OutOfOrder(&'static str),
    /// The server let us wait for a slot.
    #[error("no slot was created within {} s; PostgreSQL waits for {blocker}", .after.as_secs_f32())]
    SlotTimeout {
        /// How long we waited.
        after: Duration,
        /// Whom it waits for.
        blocker: String,
    },
    /// Two connections reached two servers.
    #[error(
        "pgstar's connections reach different servers; the upstream url has to name the primary only"
    )]
    DifferentServers,
    /// Somebody else altered the publication, or a table cannot be followed any more.
    #[error("what is published was changed")]
    PublicationChanged,
    /// The server keeps more log for the slot than it may.
    #[error("the server keeps {bytes} bytes of its log for pgstar's slot, which is dropped")]
    RetainsTooMuch {
        /// How much.
        bytes: u64,
    },
    /// Nobody brings the rollups up to date any more.
    #[error("this process takes over the upkeep of rollups")]
    TakeOver,
    /// Rows that wait in a temporary file could not be written or read again.
    #[error("changes that wait in a temporary file are not available: {0}")]
    Spool(#[from] std::io::Error),
    /// The tests let the process die here.
    #[doc(hidden)]
    #[error("a failpoint was reached")]
    Failpoint,
    /// The server does not answer.
    #[error("the server did not answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
}

impl From<tokio_postgres::Error> for StreamError {
    fn from(error: tokio_postgres::Error) -> Self {
        StreamError::Postgres(Error::Query(error))
    }
}

struct Listed<'a>(&'a [SetupProblem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems: Vec<String> = self.0.iter().map(SetupProblem::to_string).collect();
        out.write_str(&problems.join("; "))
    }
}

/// Why it could not be shown in time that everything is known. The base tables have to answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// There is no stream at present.
    #[error("changes are not being followed: {why}")]
    NotFollowing {
        /// What went wrong, or what is being waited for.
        why: String,
    },
    /// The stream has begun, but transactions from before are still open.
    #[error("the change stream is starting, and waits for {blocker}")]
    Starting {
        /// Whom.
        blocker: String,
    },
    /// The stream was interrupted meanwhile.
    #[error("the change stream was interrupted")]
    Interrupted,
    /// The deadline has passed.
    #[error("the change stream did not catch up within {} ms{}", .waited.as_millis(), distance(.behind))]
    Late {
        /// The deadline.
        waited: Duration,
        /// How much log was left, where that is known.
        behind: Option<u64>,
    },
}

fn distance(behind: &Option<u64>) -> String {
    behind
        .map(|bytes| format!(", {bytes} bytes were left"))
        .unwrap_or_default()
}

/// Why a relation may differ from what it was at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Changed {
    /// It changed.
    #[error("relation {} changed at {at}", .relation.0)]
    At {
        /// The relation, as it was asked for.
        relation: Oid,
        /// The end of the newest commit that changed it.
        at: Lsn,
    },
    /// It is not followed, so nothing is known.
    #[error("relation {} is not followed", .0.0)]
    NotFollowed(Oid),
    /// The position is of another epoch, or there is none at present.
    #[error("the change stream was interrupted since")]
    OtherEpoch,
}
