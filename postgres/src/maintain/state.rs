//! What pgstar's own tables say about how far the rollups are.

use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::Part;
use tokio_postgres::{Client, Row, Statement};

use crate::connect::Error;
use crate::replication::Lsn;
use crate::rollups::parts::part_of;
use crate::stream::{Contents, Snapshot, StreamError};

/// The one row of `pgstar.maintenance`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clock {
    /// What all rollups contain that are in step.
    pub(super) contents: Contents,
    /// What the server was allowed to forget is in what this saw. It lags behind the contents while a
    /// rollup is being built, which will need what its own snapshot does not see.
    pub(super) floor: Snapshot,
    /// Counts the transactions that moved it.
    pub(super) batch: i64,
}

/// A rollup's table, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) name: String,
    pub(super) fingerprint: String,
    pub(super) table: String,
    /// Of its base tables when it was built; none if it is not known what the table contains, because
    /// somebody else's records were found, or none.
    pub(super) shape: Option<String>,
    /// What it contains, where that is not what the clock says.
    pub(super) own: Option<Contents>,
}

/// The table of a part of a rollup that is being built, as recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordedPart {
    pub(super) recorded: Recorded,
    pub(super) number: i32,
    pub(super) part: Part,
}

/// Everything at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// What this transaction sees.
    pub(super) now: Snapshot,
    /// The log's end before anything else was looked at.
    pub(super) end: Lsn,
    pub(super) clock: Option<Clock>,
    pub(super) rollups: Vec<Recorded>,
    pub(super) parts: Vec<RecordedPart>,
}

impl State {
    /// Every table, those of parts too.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Recorded> {
        let parts = self.parts.iter().map(|part| &part.recorded);
        self.rollups.iter().chain(parts)
    }
}

const CLOCK: &str = "
  SELECT pg_current_snapshot()::text, pg_current_wal_insert_lsn()::text,
         m.snapshot, m.validated::text, m.batch, m.floor
    FROM (SELECT) AS one LEFT JOIN pgstar.maintenance m ON true";

const ROLLUPS: &str = "
  SELECT s.name, s.fingerprint, s.table_name, p.shape, p.validated::text, p.snapshot, s.number,
         s.column_name, s.type_oid, s.typmod, s.of_null, s.first, s.below
    FROM (SELECT name, fingerprint, table_name,
                 NULL::int AS number, NULL::text AS column_name, NULL::oid AS type_oid, NULL::int AS typmod,
                 NULL::boolean AS of_null, NULL::text AS first, NULL::text AS below FROM pgstar.rollup_state
           UNION ALL
          SELECT rollup, fingerprint, table_name, number, column_name, type_oid, typmod, of_null, first, below
            FROM pgstar.rollup_part WHERE table_name IS NOT NULL) AS s
    LEFT JOIN pgstar.rollup_progress p ON p.table_name = s.table_name
   ORDER BY s.name, s.number";

const ADVANCE: &str = "
  UPDATE pgstar.maintenance
     SET snapshot = $1, validated = $2::text::pg_lsn, floor = $4, batch = batch + 1
   WHERE batch = $3";

/// Prepared for one session.
pub(super) struct Questions {
    clock: Statement,
    rollups: Statement,
    advance: Statement,
}

impl Questions {
    pub(super) async fn prepare(client: &Client) -> Result<Self, Error> {
        Ok(Questions {
            clock: client.prepare(CLOCK).await?,
            rollups: client.prepare(ROLLUPS).await?,
            advance: client.prepare(ADVANCE).await?,
        })
    }

    /// In a transaction of one snapshot both questions are about the same instant; otherwise the clock
    /// is not newer than the rollups.
    pub(super) async fn ask(
        &self,
        client: &impl tokio_postgres::GenericClient,
    ) -> Result<State, StreamError> {
        let (clock, rollups) = tokio::join!(
            client.query_one(&self.clock, &[]),
            client.query(&self.rollups, &[])
        );
        let (row, rollups) = (clock?, rollups?);
        let own: Option<String> = row.try_get(2)?;
        let clock = match own {
            None => None,
            Some(own) => Some(Clock {
                contents: contents(&own, row.try_get(3)?)?,
                batch: row.try_get(4)?,
                floor: snapshot(row.try_get(5)?)?,
            }),
        };
        let mut state = State {
            now: snapshot(row.try_get(0)?)?,
            end: position(row.try_get(1)?)?,
            clock,
            rollups: vec![],
            parts: vec![],
        };
        for row in &rollups {
            let recorded = recorded(row)?;
            match row.try_get(6)? {
                None => state.rollups.push(recorded),
                Some(number) => state.parts.push(RecordedPart {
                    recorded,
                    number,
                    part: part_of(row, 7)?,
                }),
            }
        }
        Ok(state)
    }

    /// Moves the clock and its floor; false when somebody else has moved it.
    pub(super) async fn advance(
        &self,
        client: &impl tokio_postgres::GenericClient,
        from: &Clock,
        to: &Contents,
        floor: &Snapshot,
    ) -> Result<bool, StreamError> {
        let (seen, validated) = (to.snapshot.to_string(), to.validated.to_string());
        let moved = client
            .execute(
                &self.advance,
                &[&seen, &validated, &from.batch, &floor.to_string()],
            )
            .await?;
        Ok(moved == 1)
    }
}

fn recorded(row: &Row) -> Result<Recorded, StreamError> {
    let own: Option<&str> = row.try_get(5)?;
    let validated: Option<&str> = row.try_get(4)?;
    Ok(Recorded {
        name: row.try_get(0)?,
        fingerprint: row.try_get(1)?,
        table: row.try_get(2)?,
        shape: row.try_get(3)?,
        own: own
            .zip(validated)
            .map(|(own, validated)| contents(own, validated))
            .transpose()?,
    })
}

fn contents(seen: &str, validated: &str) -> Result<Contents, StreamError> {
    Ok(Contents {
        snapshot: snapshot(seen)?,
        validated: position(validated)?,
    })
}

pub(super) fn snapshot(text: &str) -> Result<Snapshot, StreamError> {
    let unreadable = StreamError::OutOfOrder("a snapshot that cannot be read");
    text.parse().map_err(|_| unreadable)
}

fn position(text: &str) -> Result<Lsn, StreamError> {
    let unreadable = StreamError::OutOfOrder("a position that cannot be read");
    text.parse().map_err(|_| unreadable)
}

/// From now on the table contains what the clock says.
pub(super) async fn put_in_step(
    client: &impl tokio_postgres::GenericClient,
    tables: &[String],
) -> Result<(), StreamError> {
    if tables.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE pgstar.rollup_progress SET snapshot = NULL WHERE table_name = ANY ($1)";
    client.execute(sql, &[&tables]).await?;
    Ok(())
}

/// The shape of the table's base tables is another one, and what is known of the table is as good as before.
pub(super) async fn reshape(
    client: &impl tokio_postgres::GenericClient,
    table: &str,
    shape: &str,
) -> Result<(), StreamError> {
    let sql = "UPDATE pgstar.rollup_progress SET shape = $2 WHERE table_name = $1";
    client.execute(sql, &[&table, &shape]).await?;
    Ok(())
}

/// These parts of rollups have to be built again.
pub(super) async fn forget_parts(
    client: &impl tokio_postgres::GenericClient,
    tables: &[String],
) -> Result<(), StreamError> {
    if tables.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE pgstar.rollup_part SET table_name = NULL WHERE table_name = ANY ($1)";
    client.execute(sql, &[&tables]).await?;
    Ok(())
}

/// The table stays at what it contains while the clock moves on.
pub(super) async fn leave_behind(
    client: &impl tokio_postgres::GenericClient,
    tables: &[String],
    at: &Contents,
) -> Result<(), StreamError> {
    if tables.is_empty() {
        return Ok(());
    }
    let sql = "UPDATE pgstar.rollup_progress SET snapshot = $2, validated = $3::text::pg_lsn
                WHERE table_name = ANY ($1) AND snapshot IS NULL";
    let (seen, validated) = (at.snapshot.to_string(), at.validated.to_string());
    client.execute(sql, &[&tables, &seen, &validated]).await?;
    Ok(())
}

/// Nothing is on record any more of this table's contents, and of those of the tables that were filled from it, or from
/// one of these; their names. Whoever fills one meanwhile looks afterwards whether its source is still on record.
pub(super) async fn forget_with_filled(client: &Client, table: &str) -> Result<Vec<String>, Error> {
    let mut wrong = vec![table.to_owned()];
    let mut at = 0;
    while let Some(table) = wrong.get(at).cloned() {
        let forget = "DELETE FROM pgstar.rollup_progress WHERE table_name = $1";
        client.execute(forget, &[&table]).await?;
        // In a snapshot of its own: what is not seen was committed after the source was forgotten.
        let filled = "SELECT table_name FROM pgstar.rollup_progress WHERE filled_from = $1";
        for row in client.query(filled, &[&table]).await? {
            wrong.push(row.try_get(0)?);
        }
        at += 1;
    }
    wrong.remove(0);
    Ok(wrong)
}

/// Where the changes of the tables are to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lineage {
    /// The cluster, whose numbers of transactions mean nothing in another, and the table that this is recorded in.
    pub(super) system: String,
    /// The slot's name, never used twice.
    pub(super) slot: String,
    /// Of the publication; another after somebody altered what it publishes of its tables.
    pub(super) publication: String,
}

/// The lineage as recorded, and since when each table is in it.
pub(super) async fn lineage(client: &Client) -> Result<Option<Lineage>, Error> {
    let sql = "SELECT system, slot, publication FROM pgstar.maintenance";
    let row = client.query_opt(sql, &[]).await?;
    let read = |row: Row| -> Result<Lineage, tokio_postgres::Error> {
        Ok(Lineage {
            system: row.try_get(0)?,
            slot: row.try_get(1)?,
            publication: row.try_get(2)?,
        })
    };
    Ok(row.map(read).transpose()?)
}

/// Published tables, and since when each is in the lineage: none where that has to be found out.
pub(super) async fn followed_since(
    client: &Client,
) -> Result<Vec<(Oid, Option<Snapshot>)>, StreamError> {
    let sql = "SELECT r.prrelid, f.since FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
                 LEFT JOIN pgstar.followed_table f ON f.relation = r.prrelid AND f.member = r.oid
                WHERE p.pubname = $1";
    let rows = client.query(sql, &[&crate::stream::PUBLICATION]).await?;
    let read = |row: &Row| {
        let since: Option<&str> = row.try_get(1)?;
        Ok((Oid(row.try_get(0)?), since.map(snapshot).transpose()?))
    };
    rows.iter().map(read).collect()
}

/// Begins a lineage, or takes tables into the present one: whatever `since` does not see will be in
/// the slot's stream.
pub(super) async fn follow(
    client: &mut Client,
    lineage: &Lineage,
    is_new: bool,
    since: &Contents,
) -> Result<(), StreamError> {
    let transaction = client.transaction().await?;
    let seen = since.snapshot.to_string();
    if is_new {
        begin_lineage(&transaction, lineage, since).await?;
    }
    let sql = "DELETE FROM pgstar.followed_table f
                WHERE NOT EXISTS (SELECT FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
                                   WHERE p.pubname = $1 AND r.prrelid = f.relation AND r.oid = f.member)";
    transaction
        .execute(sql, &[&crate::stream::PUBLICATION])
        .await?;
    let sql = "INSERT INTO pgstar.followed_table (relation, member, since)
               SELECT r.prrelid, r.oid, $2 FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
                WHERE p.pubname = $1
               ON CONFLICT (relation) DO NOTHING";
    transaction
        .execute(sql, &[&crate::stream::PUBLICATION, &seen])
        .await?;
    Ok(transaction.commit().await?)
}

/// What was in step stays at what it contains; what another cluster recorded means nothing, and what was in
/// step with a clock that is gone neither.
async fn begin_lineage(
    transaction: &tokio_postgres::Transaction<'_>,
    lineage: &Lineage,
    since: &Contents,
) -> Result<(), StreamError> {
    let Lineage {
        system,
        slot,
        publication,
    } = lineage;
    let foreign = "DELETE FROM pgstar.rollup_progress
                    WHERE EXISTS (SELECT FROM pgstar.maintenance WHERE system <> $1)
                       OR snapshot IS NULL AND NOT EXISTS (SELECT FROM pgstar.maintenance)";
    transaction.execute(foreign, &[system]).await?;
    let behind =
        "UPDATE pgstar.rollup_progress p SET snapshot = m.snapshot, validated = m.validated
                    FROM pgstar.maintenance m WHERE p.snapshot IS NULL";
    transaction.execute(behind, &[]).await?;
    transaction
        .batch_execute("DELETE FROM pgstar.followed_table")
        .await?;
    let sql =
        "INSERT INTO pgstar.maintenance (system, slot, publication, snapshot, validated, floor, batch)
               VALUES ($1, $2, $3, $4, $5::text::pg_lsn, $4, 1)
               ON CONFLICT (only_row) DO UPDATE
                  SET (system, slot, publication, snapshot, validated, floor, batch)
                    = (excluded.system, excluded.slot, excluded.publication, excluded.snapshot,
                       excluded.validated, excluded.floor, pgstar.maintenance.batch + 1)";
    let (seen, validated) = (since.snapshot.to_string(), since.validated.to_string());
    transaction
        .execute(sql, &[system, slot, publication, &seen, &validated])
        .await?;
    Ok(())
}
