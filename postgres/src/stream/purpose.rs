//! What a stream is followed for. Watching which tables changed is all that [`ChangeStream`](super::ChangeStream)
//! does; whoever needs the rows as well says here what becomes of them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use pgstar_rewriter::catalog::Oid;
use tokio_postgres::Client;

use super::StreamError;
use super::receiving::Within;
use super::shared::Shared;
use super::snapshot::Xid;
use crate::connect::Connector;
use crate::pgoutput::{Message, Xid32};
use crate::replication::{Acknowledged, Lsn};

/// Which slot an epoch streams from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SlotChoice {
    /// One of its own, which ends with its connection.
    Temporary,
    /// A new one that stays.
    Permanent { name: String },
    /// One that is there. Every commit that ends after `from` is in its stream.
    Existing {
        name: String,
        from: Lsn,
        /// Whether every table that is published now was published all the time.
        is_complete: bool,
    },
}

/// An epoch that has begun, for who works beside it.
pub(crate) struct Attached<'a> {
    pub(crate) connector: &'a Connector,
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) slot: &'a SlotChoice,
    pub(crate) acknowledged: Acknowledged,
    /// Transactions up to this one may have changed something that the stream does not have.
    pub(crate) ended: Xid,
}

/// What is done in an epoch beside watching.
pub(crate) trait Purpose: Send + Sync + 'static {
    /// Decides where to stream from. `asking` stays open for as long as the epoch lasts.
    fn choose(
        &self,
        asking: &Client,
        published: &BTreeMap<Oid, String>,
    ) -> impl Future<Output = Result<SlotChoice, StreamError>> + Send;

    /// A stream begins; nothing of an earlier one counts any more.
    fn begin(&self, slot: &SlotChoice);

    /// A message of a transaction: a change, or how the rows look that follow in it.
    fn message(&self, within: Within, message: &Message, omitted: usize)
    -> Result<(), StreamError>;

    /// A part of a transaction was rolled back after its messages came, or all of it if it is the same.
    fn aborted(&self, transaction: Xid32, part: Xid32);

    /// The transaction whose messages came has ended.
    fn committed(&self, xid: Xid32, end: Lsn, changed: &[Oid]);

    /// Everything before `end` has been decoded.
    fn decoded(&self, end: Lsn);

    /// Whether the server may forget what was read.
    fn forgets_at_once(&self) -> bool;

    /// Works until the epoch ends or has to end.
    fn work(
        &self,
        attached: Attached<'_>,
    ) -> impl Future<Output = Result<Infallible, StreamError>> + Send;
}

/// Nothing beside watching.
pub(crate) struct Watching;

impl Purpose for Watching {
    async fn choose(
        &self,
        _: &Client,
        _: &BTreeMap<Oid, String>,
    ) -> Result<SlotChoice, StreamError> {
        Ok(SlotChoice::Temporary)
    }

    fn begin(&self, _: &SlotChoice) {}

    fn message(&self, _: Within, _: &Message, _: usize) -> Result<(), StreamError> {
        Ok(())
    }

    fn aborted(&self, _: Xid32, _: Xid32) {}

    fn committed(&self, _: Xid32, _: Lsn, _: &[Oid]) {}

    fn decoded(&self, _: Lsn) {}

    fn forgets_at_once(&self) -> bool {
        true
    }

    async fn work(&self, _: Attached<'_>) -> Result<Infallible, StreamError> {
        std::future::pending().await
    }
}
