//! Asks PostgreSQL, in one round trip with the facts, whether a prepared statement is still what it was.
//!
//! SQL can end a prepared statement and put another in its place, and a change of its tables can change its
//! columns: then PostgreSQL refuses to run it (0A000). So it is looked up and described before a batch that
//! names it is served, and again after whatever may have changed a fact of the session.

use bytes::BytesMut;

use super::facts::{Probe, facts_of_row, probe_sql};
use super::own::{own_command, own_command_with};
use super::{Ended, Routing, Session};
use crate::route::SessionFacts;
use crate::wire::{self, Header, Target, data_row_values, server_tag};

/// A statement that SQL prepared under the name was never seen by pgstar.
const IS_THERE: &str = "SELECT pg_catalog.count(*)::pg_catalog.text FROM pg_catalog.pg_prepared_statements \
                        WHERE name OPERATOR(pg_catalog.=) $1 AND NOT from_sql";

/// What PostgreSQL has answered so far.
#[derive(Debug, Default)]
struct Findings {
    facts: Option<SessionFacts>,
    is_there: bool,
    columns: Option<bytes::Bytes>,
    error: Option<bytes::Bytes>,
}

impl<R: Routing> Session<R> {
    /// Probes the facts and verifies the statement of this name.
    pub(super) async fn verify(&mut self, name: &[u8]) -> Result<Probe, Ended> {
        self.shared.counters.probes.add_one();
        self.ask(&verifying_frames(name)).await?;
        let mut findings = Findings {
            // SQL does not reach the unnamed statement, and it is listed nowhere.
            is_there: name.is_empty(),
            ..Findings::default()
        };
        loop {
            let reply = self.next_reply().await?;
            if reply.tag == server_tag::READY_FOR_QUERY {
                self.take_ready(reply).await?;
                break;
            }
            self.take_finding(&mut findings, reply).await?;
        }
        if findings.error.is_some() {
            self.clear_own().await?;
        }
        Ok(self.conclude_verification(name, findings))
    }

    async fn take_finding(&mut self, findings: &mut Findings, reply: Header) -> Result<(), Ended> {
        match reply.tag {
            server_tag::DATA_ROW if findings.facts.is_none() => {
                findings.facts = facts_of_row(&self.whole_reply(reply).await?);
            }
            server_tag::DATA_ROW => {
                let frame = self.whole_reply(reply).await?;
                findings.is_there =
                    data_row_values(&frame).is_ok_and(|row| row == [Some(&b"1"[..])]);
            }
            server_tag::ROW_DESCRIPTION => findings.columns = Some(self.whole_reply(reply).await?),
            server_tag::ERROR_RESPONSE => findings.error = Some(self.swallow_error(reply).await?),
            _ => self.skip_reply(reply).await?,
        }
        Ok(())
    }

    fn conclude_verification(&mut self, name: &[u8], findings: Findings) -> Probe {
        if let Some(error) = findings.error {
            return Probe::Failed(error);
        }
        let Some(facts) = findings.facts else {
            return Probe::Unreadable;
        };
        self.facts.learn(facts);
        match findings.columns {
            Some(columns) if findings.is_there => {
                let generation = self.facts.generation();
                self.prepared.verify(name, columns, generation);
                Probe::Known
            }
            _ => {
                self.prepared.forget(name);
                Probe::Unreadable
            }
        }
    }
}

fn verifying_frames(name: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    own_command(&mut out, &probe_sql());
    if !name.is_empty() {
        own_command_with(&mut out, IS_THERE, name);
    }
    wire::describe(&mut out, Target::Statement, name);
    wire::sync(&mut out);
    out
}
