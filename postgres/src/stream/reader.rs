//! Reads the stream: which transaction changed which tables, and how far the log is decoded.
//!
//! It looks into rows of tables only of which columns are tracked, and keeps none of them, so a transaction costs
//! the same memory whatever its size.

use std::convert::Infallible;
use std::sync::Arc;

use super::purpose::Purpose;
use super::receiving::{Noted, Receiving};
use super::shared::Shared;
use super::touching::Touching;
use super::{StreamError, Weakness};
use crate::pgoutput;
use crate::replication::{Event, Lsn, ReplicationStream};

/// Decodes until the stream breaks.
pub(super) async fn read_stream(
    mut stream: ReplicationStream,
    shared: Arc<Shared>,
    purpose: Arc<impl Purpose>,
    weakness: Weakness,
) -> Result<Infallible, StreamError> {
    let mut receiving = Receiving::default();
    let mut touching = Touching::new(weakness);
    let tracked = || shared.tracked();
    let acknowledged = stream.acknowledged();
    let forget = |end: Lsn| {
        if purpose.forgets_at_once() {
            acknowledged.advance(end);
        }
    };
    loop {
        match stream.next().await? {
            Event::Data { message, omitted } => {
                let is_in_block = receiving.is_in_block();
                let (part, message) = pgoutput::read(message, omitted, is_in_block)?;
                match receiving.note(part, &message)? {
                    Noted::Nothing => (),
                    Noted::Part(within) => {
                        touching.message(within, &message, omitted, &tracked)?;
                        purpose.message(within, &message, omitted)?;
                    }
                    Noted::Aborted { xid, part } => {
                        if xid == part {
                            touching.ended(xid);
                        }
                        purpose.aborted(xid, part);
                    }
                    Noted::Committed { xid, end, changed } => {
                        // Rows first: who hears of a commit has them.
                        purpose.committed(xid, end, &changed);
                        shared.committed(xid, end, &changed, &touching.ended(xid));
                        forget(end);
                    }
                }
            }
            Event::Keepalive { end } if receiving.is_between() => {
                purpose.decoded(end);
                shared.decoded(end);
                forget(end);
            }
            // In the middle of a transaction a position stands for nothing.
            Event::Keepalive { .. } => (),
        }
    }
}
