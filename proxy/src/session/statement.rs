//! One statement that the router may want to serve: its facts, its route, and who carries the route out.
//!
//! It must not know what routes are made of.

use bytes::{Bytes, BytesMut};
use pgstar_postgres::visible::Glimpse;

use super::batch::{Batch, Statement, Text};
use super::facts::Probe;
use super::unnamed::Withheld;
use super::{Ended, Routing, Session};
use crate::route::{Answer, Binding, Route};
use crate::wire::{self, TransactionStatus, body, read, sqlstate};

/// SQLSTATE classes that say nothing about the statement: connection, transaction rollback, resources,
/// operator intervention. PostgreSQL would have said the same of the client's own statement.
const CIRCUMSTANCES: [&str; 4] = ["08", "40", "53", "57"];
/// What PostgreSQL says of a Bind whose parameters or formats do not fit, though its class is that of connections. Its
/// context names the portal, so it has to be the client's own portal that fails.
const PROTOCOL_VIOLATION: &str = "08P01";

/// Whether this error came from the circumstances and would have met any statement.
pub(super) fn is_circumstance(sqlstate: &str) -> bool {
    let is_of_their_classes = CIRCUMSTANCES
        .iter()
        .any(|class| sqlstate.starts_with(class));
    is_of_their_classes && sqlstate != PROTOCOL_VIOLATION
}

impl<R: Routing> Session<R> {
    /// Serves the statement at the front of the client's bytes, or hands it back to the relay.
    pub(super) async fn serve(&mut self, statement: Statement) -> Result<(), Ended> {
        self.keep_pledges().await?;
        self.deliver_relayed().await?;
        if self.is_raw {
            return Ok(());
        }
        self.make_quiet(&statement).await?;
        let route = match self.route_as_learnt(&statement).await {
            Some(route) => route,
            None => match self.learn(&statement).await? {
                Probe::Known => self.route(&statement, None).await,
                Probe::Unreadable => return self.hand_back(&statement, false),
                Probe::Failed(error) => return self.report_failed_probe(&statement, error).await,
            },
        };
        self.shared.counters.routed.add_one();
        match route {
            Route::Passthrough { clean } => self.hand_back(&statement, clean),
            Route::Observed(slot) => self.observe(&statement, slot).await,
            Route::Cached(answer) => self.answer_if_fit(&statement, &answer).await,
            Route::Local(answer) => self.answer_if_fit(&statement, &answer).await,
            // PostgreSQL accepted it when it was prepared, so it is PostgreSQL that refuses it.
            Route::LocalError(_) if statement.prepared_name().is_some() => {
                self.hand_back(&statement, false)
            }
            Route::LocalError(error) => self.refuse(&statement, error).await,
            Route::Rewritten(rewritten) => self.rewrite(&statement, rewritten).await,
        }
    }

    async fn answer_if_fit(&mut self, statement: &Statement, answer: &Answer) -> Result<(), Ended> {
        match self.fits(statement, answer) {
            true => self.answer(statement, answer).await,
            false => self.hand_back(statement, false),
        }
    }

    /// Ends what the client has only prepared, so that nothing is under way; and has the backend know the
    /// unnamed statement before a batch that leaves it alone.
    async fn make_quiet(&mut self, statement: &Statement) -> Result<(), Ended> {
        if self.model.has_prepared() {
            let mut sync = BytesMut::new();
            wire::sync(&mut sync);
            self.ask(&sync).await?;
            self.skip_to_ready().await?;
        }
        match (&statement.text, &self.withheld) {
            // Its Bind replaces the portal.
            (_, Some(Withheld::Portal { .. })) => self.withheld = None,
            (Text::Prepared { .. }, Some(_)) => self.make_up().await?,
            (Text::Sent(_), Some(_)) | (_, None) => {}
        }
        Ok(())
    }

    /// The route if what was learnt on the backend still holds, which is asked at the same time.
    async fn route_as_learnt(&mut self, statement: &Statement) -> Option<Route> {
        let must_verify = statement.prepared_name().is_some();
        if must_verify || self.facts.are_known(self.shared.limits.facts_age_max) {
            return None;
        }
        let learnt_under = self.recall_facts()?;
        match self.glimpse().await {
            // One question to the server instead of three.
            Some((now, glimpse)) if now == learnt_under => {
                return Some(self.route(statement, Some(&glimpse)).await);
            }
            Some(_) => {}
            None => {
                let (now, route) = tokio::join!(self.mark_now(), self.route(statement, None));
                if now == Some(learnt_under) {
                    return Some(route);
                }
            }
        }
        self.facts.forget();
        None
    }

    /// Makes sure that what the statement's route depends on is known.
    async fn learn(&mut self, statement: &Statement) -> Result<Probe, Ended> {
        match self.learn_facts(statement).await? {
            Probe::Known => self.probe_temporary().await,
            unknown => Ok(unknown),
        }
    }

    async fn learn_facts(&mut self, statement: &Statement) -> Result<Probe, Ended> {
        let are_known = self.facts.are_known(self.shared.limits.facts_age_max);
        let Some(name) = statement.prepared_name() else {
            return match are_known {
                true => Ok(Probe::Known),
                false => self.probe_and_remember(statement.batch.is_some()).await,
            };
        };
        let name = Bytes::copy_from_slice(&self.client.inbound.filled()[name]);
        if are_known && self.columns_of(&name).is_some() {
            return Ok(Probe::Known);
        }
        self.verify(&name).await
    }

    async fn probe_and_remember(&mut self, is_for_batch: bool) -> Result<Probe, Ended> {
        // Before the facts: what is the same later was the same all the time between.
        let to_remember = self.mark_for_facts().await;
        let probe = self.probe(is_for_batch).await?;
        if let (Probe::Known, Some(to_remember)) = (&probe, to_remember) {
            self.remember_facts(to_remember);
        }
        Ok(probe)
    }

    /// What PostgreSQL says of the columns of a prepared statement, if that is known now.
    fn columns_of(&self, name: &[u8]) -> Option<&Bytes> {
        self.prepared.get(name)?.columns(self.facts.generation())
    }

    /// Whether the answer's columns are those that the statement had when it was prepared: if not,
    /// PostgreSQL would refuse to run it.
    fn fits(&self, statement: &Statement, answer: &Answer) -> bool {
        let Some(name) = statement.prepared_name() else {
            return true;
        };
        let columns = self.columns_of(&self.client.inbound.filled()[name]);
        columns.is_some_and(|columns| wire::same_columns(columns, &answer.row_description))
    }

    async fn route(&self, statement: &Statement, glimpse: Option<&Glimpse>) -> Route {
        let binding = self.binding(statement);
        match self.sql(statement) {
            Some(sql) => {
                self.shared
                    .router
                    .route(self.facts.get(), sql, binding.as_ref(), glimpse)
                    .await
            }
            None => Route::Passthrough { clean: false },
        }
    }

    /// The statement's text; it was UTF-8 when it became a candidate.
    pub(super) fn sql(&self, statement: &Statement) -> Option<&str> {
        let bytes = self.client.inbound.filled();
        match &statement.text {
            Text::Sent(text) => std::str::from_utf8(&bytes[text.clone()]).ok(),
            Text::Prepared { name } => Some(&self.prepared.get(&bytes[name.clone()])?.sql),
        }
    }

    fn binding(&self, statement: &Statement) -> Option<Binding> {
        let batch = statement.batch.as_ref()?;
        Some(Binding {
            parameter_types: self.parameter_types(statement, batch),
            bind: Bytes::copy_from_slice(&self.client.inbound.filled()[batch.bind_tail.clone()]),
            parameter_count: batch.parameter_count,
        })
    }

    /// The types in the statement's Parse, which was read when the batch was recognised or earlier.
    pub(super) fn parameter_types(&self, statement: &Statement, batch: &Batch) -> Vec<u32> {
        if let Some(name) = statement.prepared_name() {
            let prepared = self.prepared.get(&self.client.inbound.filled()[name]);
            return prepared.map_or_else(Vec::new, |prepared| prepared.parameter_types.clone());
        }
        let frame = &self.client.inbound.filled()[batch.parse.clone()];
        let parse = body(frame).and_then(read::parse);
        parse
            .map(|parse| parse.parameter_types())
            .unwrap_or_default()
    }

    /// The probe failed. If that failed the client's transaction, or would have met the client's own
    /// statement just the same, it is that statement's error; else the statement runs as it is.
    async fn report_failed_probe(
        &mut self,
        statement: &Statement,
        error: Bytes,
    ) -> Result<(), Ended> {
        let is_circumstance = sqlstate(&error).is_ok_and(is_circumstance);
        if is_circumstance || self.told_status() == TransactionStatus::Failed {
            return self.send_error(statement, error).await;
        }
        self.hand_back(statement, false)
    }

    fn hand_back(&mut self, statement: &Statement, is_clean: bool) -> Result<(), Ended> {
        self.pass_through(statement, is_clean);
        Ok(())
    }

    /// The statement has been served: its bytes are done with, and the backend has not seen all of them.
    pub(super) fn settle(&mut self, statement: &Statement, withheld: Option<Withheld>) {
        // A statement of its own has taken the unnamed statement's place.
        if matches!(statement.text, Text::Sent(_)) {
            self.prepared.forget(b"");
        }
        self.withheld = withheld;
        self.client.consume(statement.len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancels_and_conflicts_are_circumstances_and_wrong_statements_are_not() {
        assert!(
            ["57014", "57P01", "40001", "40P01", "53200", "08006"]
                .into_iter()
                .all(is_circumstance)
        );
        assert!(
            !["42P01", "22012", "0A000", "XX000", "25P02"]
                .into_iter()
                .any(is_circumstance)
        );
    }
}
