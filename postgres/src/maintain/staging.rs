//! Puts changed rows into temporary tables, as the statements of a fold read them.
//!
//! The rows of a table that is last in a rollup's order (a fact) go as they are, once for all rollups.
//! Those of the others (dimensions) are first reduced to what changed in the columns that the rollup
//! reads: a row that went and came again the same cancels, so that a change that the rollup does not
//! look at costs no join with the fact.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use pgstar_rewriter::catalog::Oid;
use pgstar_rewriter::fold::{Changed, FoldColumn, FoldPlan, KEY_FATE, SIGN};
use tokio_postgres::{CopyInSink, Statement, Transaction};

use super::intake::Wanted;
use super::waiting::Changes;
use crate::identifier::quote;
use crate::stream::StreamError;

/// So many rows of a table are compared with one another before they are used.
const NETTED_ROWS_MAX: u64 = 200_000;

/// And if they are no longer than this, because all of them are in memory then.
const NETTED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// So many deleted rows may stay in a temporary table.
const DEAD_ROWS_MAX: u64 = 5_000;

/// Fewer rows than this are as good as so many for the planner.
const ROWS_NEAR: u64 = 16;

/// How long a statement's plan is used.
const PLANS_KEPT: Duration = Duration::from_secs(60);

/// COPY is fed in pieces of this size.
const COPY_BYTES: usize = 64 * 1024;

/// What a temporary table holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Kind {
    relation: Oid,
    /// Positions among the wanted columns; all of them without netting.
    columns: Vec<usize>,
    /// Positions in `columns` of the key whose fate is told.
    key: Option<Vec<usize>>,
    is_netted: bool,
}

/// The temporary tables of one session.
#[derive(Default)]
pub(super) struct Staging {
    names: BTreeMap<Kind, String>,
    /// How many rows each has.
    filled: HashMap<Kind, u64>,
    pub(super) session: Session,
}

/// What one session keeps from one batch to the next: temporary tables, and statements that are planned.
#[derive(Default)]
pub(super) struct Session {
    /// Tables that exist for sure: their transaction was committed.
    created: HashSet<String>,
    creating: Vec<String>,
    wear: HashMap<String, Wear>,
    prepared: HashMap<String, Statement>,
    /// Since when those are kept.
    planned: Option<Instant>,
}

/// What became of a temporary table since the session began.
#[derive(Default)]
struct Wear {
    /// Rows that were deleted, since its file was last cut.
    dead: u64,
    /// How many rows the planner was told of.
    told: Option<u64>,
}

impl Session {
    /// Begins a batch. Plans are made for tables as large as they are, and nobody says when a table has grown.
    fn begin(&mut self) {
        self.creating.clear();
        if self
            .planned
            .is_none_or(|planned| planned.elapsed() > PLANS_KEPT)
        {
            self.prepared.clear();
            self.planned = Some(Instant::now());
        }
    }

    /// Whether the table is there, or was just created.
    pub(super) fn has(&self, table: &str) -> bool {
        self.created.contains(table) || self.creating.iter().any(|known| known == table)
    }

    pub(super) fn creates(&mut self, table: &str) {
        self.creating.push(table.to_owned());
    }

    /// The statement that takes `rows` out of a table, all there are. `ON COMMIT DELETE ROWS` would take
    /// several milliseconds for each table, because it cuts the file and builds indexes anew every time.
    pub(super) fn empty(&mut self, name: &str, rows: u64) -> String {
        let wear = self.wear.entry(name.to_owned()).or_default();
        wear.dead += rows;
        if wear.dead <= DEAD_ROWS_MAX {
            return format!("DELETE FROM {name}");
        }
        *wear = Wear::default();
        format!("TRUNCATE {name}")
    }

    /// The statement that tells the planner how many rows there are, if it would be far from right. It takes
    /// what it knows nothing of for a thousand rows, and reads a whole dimension or rollup for one.
    pub(super) fn tell(&mut self, name: &str, rows: u64) -> Option<String> {
        let told = &mut self.wear.entry(name.to_owned()).or_default().told;
        let is_near =
            |told: u64| rows <= told.max(ROWS_NEAR) * 8 && told <= rows.max(ROWS_NEAR) * 8;
        if told.is_some_and(is_near) {
            return None;
        }
        *told = Some(rows);
        Some(format!("ANALYZE {name}"))
    }
}

/// The statements, planned. All tables that they name are there.
pub(super) async fn prepared(
    transaction: &Transaction<'_>,
    session: &Mutex<&mut Session>,
    statements: &[String],
) -> Result<Vec<Statement>, StreamError> {
    // Nobody panics with it.
    let lock = || session.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = vec![];
    for sql in statements {
        let known = lock().prepared.get(sql).cloned();
        all.push(match known {
            Some(statement) => statement,
            None => {
                let statement = transaction.prepare(sql).await?;
                lock().prepared.insert(sql.clone(), statement.clone());
                statement
            }
        });
    }
    Ok(all)
}

impl Staging {
    /// Nothing is staged any more.
    pub(super) fn begin(&mut self) {
        self.filled.clear();
        self.session.begin();
    }

    /// What was created stays.
    pub(super) fn committed(&mut self) {
        let creating = std::mem::take(&mut self.session.creating);
        self.session.created.extend(creating);
    }

    /// Stages what changed of the plan's tables. For each occurrence what the statements need, none
    /// where nothing changed that the rollup looks at.
    pub(super) async fn stage(
        &mut self,
        transaction: &Transaction<'_>,
        plan: &FoldPlan,
        rows: &HashMap<Oid, Changes>,
        wanted: &Wanted,
        knows_keys: &(dyn Fn(usize) -> bool + Sync),
    ) -> Result<Vec<Option<Changed>>, StreamError> {
        let inner = plan
            .occurrences
            .iter()
            .filter(|occurrence| !occurrence.is_left_joined);
        let last = inner.count().saturating_sub(1);
        let mut changed = vec![];
        for (at, occurrence) in plan.occurrences.iter().enumerate() {
            let relation = occurrence.relation;
            let (Some(rows), Some(wanted)) = (rows.get(&relation), wanted.get(&relation)) else {
                changed.push(None);
                continue;
            };
            let is_few = rows.lines <= NETTED_ROWS_MAX && rows.bytes <= NETTED_BYTES_MAX;
            let is_netted = at != last && is_few;
            let referenced = occurrence.referenced.as_ref();
            let referenced = referenced.filter(|_| is_netted && knows_keys(at));
            let key = referenced.map(|referenced| referenced.columns.as_slice());
            let kind = Kind::of(relation, &occurrence.columns, key, wanted, is_netted);
            let has_fates = kind.key.is_some();
            let staged = self.fill(transaction, kind, rows, wanted).await?;
            changed.push(staged.map(|staged| Changed { staged, has_fates }));
        }
        Ok(changed)
    }

    /// The table, unless nothing is left to put into it.
    async fn fill(
        &mut self,
        transaction: &Transaction<'_>,
        kind: Kind,
        changes: &Changes,
        wanted: &[FoldColumn],
    ) -> Result<Option<String>, StreamError> {
        let next = format!("pgstar_rows_{}", self.names.len());
        let name = self.names.entry(kind.clone()).or_insert(next).clone();
        if let Some(rows) = self.filled.get(&kind) {
            return Ok((*rows > 0).then_some(name));
        }
        let netted = match kind.is_netted {
            true => Some(net(&kind, &all_lines(changes).await?)),
            false => None,
        };
        let lines = netted.as_ref().map(|lines| lines.len() as u64);
        let mut rows = 0;
        if lines.unwrap_or(changes.lines) > 0 {
            self.create(transaction, &name, &kind, wanted).await?;
            let sink = self.copy_into(transaction, &name).await?;
            rows = match netted {
                Some(lines) => copy(sink, lines).await?,
                None => copy_all(sink, changes).await?,
            };
            if let Some(sql) = self.session.tell(&name, rows) {
                transaction.batch_execute(&sql).await?;
            }
        }
        self.filled.insert(kind, rows);
        Ok((rows > 0).then_some(name))
    }

    async fn copy_into(
        &mut self,
        transaction: &Transaction<'_>,
        name: &str,
    ) -> Result<CopyInSink<Bytes>, StreamError> {
        let sql = [format!("COPY {name} FROM STDIN")];
        let session = Mutex::new(&mut self.session);
        let statements = prepared(transaction, &session, &sql).await?;
        let statement = statements
            .first()
            .ok_or(StreamError::OutOfOrder("nothing to copy with"))?;
        Ok(transaction.copy_in(statement).await?)
    }

    async fn create(
        &mut self,
        transaction: &Transaction<'_>,
        name: &str,
        kind: &Kind,
        wanted: &[FoldColumn],
    ) -> Result<(), StreamError> {
        if self.session.has(name) {
            return Ok(());
        }
        let picked = kind.columns.iter().filter_map(|at| wanted.get(*at));
        let columns: String = picked
            .map(|column| format!(", {}", quote(&column.name)))
            .collect();
        let fate = match kind.key {
            Some(_) => format!(", 0::smallint AS {KEY_FATE}"),
            None => String::new(),
        };
        // The table's name comes from the catalog, whatever it is now.
        let of = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c
                    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";
        let table: String = transaction
            .query_one(of, &[&kind.relation.0])
            .await?
            .try_get(0)?;
        let sql = format!(
            "CREATE TEMPORARY TABLE {name} AS \
             SELECT 0 AS {SIGN}{fate}{columns} FROM {table} WITH NO DATA"
        );
        transaction.batch_execute(&sql).await?;
        self.session.creates(name);
        Ok(())
    }

    /// Takes everything out again.
    pub(super) async fn clear(&mut self, transaction: &Transaction<'_>) -> Result<(), StreamError> {
        let mut statements = vec![];
        for (kind, rows) in std::mem::take(&mut self.filled) {
            if rows > 0
                && let Some(name) = self.names.get(&kind).cloned()
            {
                statements.push(self.session.empty(&name, rows));
            }
        }
        match statements.is_empty() {
            true => Ok(()),
            false => Ok(transaction.batch_execute(&statements.join("; ")).await?),
        }
    }
}

impl Kind {
    fn of(
        relation: Oid,
        columns: &[FoldColumn],
        key: Option<&[String]>,
        wanted: &[FoldColumn],
        is_netted: bool,
    ) -> Self {
        let position = |name: &str| wanted.iter().position(|column| column.name == name);
        let columns: Vec<usize> = match is_netted {
            true => columns
                .iter()
                .filter_map(|column| position(&column.name))
                .collect(),
            false => (0..wanted.len()).collect(),
        };
        let within = |name: &String| {
            let at = position(name)?;
            columns.iter().position(|column| *column == at)
        };
        let key = key.and_then(|names| names.iter().map(within).collect());
        Kind {
            relation,
            columns,
            key,
            is_netted,
        }
    }
}

/// Rows that went and came with the same values in these columns cancel, whatever their order.
fn net(kind: &Kind, lines: &[u8]) -> Vec<u8> {
    let mut balance: BTreeMap<Vec<&[u8]>, i64> = BTreeMap::new();
    for line in lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
        let field = |at: &usize| fields.get(at + 1).copied().unwrap_or_default();
        let row: Vec<&[u8]> = kind.columns.iter().map(field).collect();
        let sign = if fields.first() == Some(&b"1".as_slice()) {
            1
        } else {
            -1
        };
        *balance.entry(row).or_default() += sign;
    }
    balance.retain(|_, sign| *sign != 0);
    let mut came_and_went: HashMap<Vec<&[u8]>, (bool, bool)> = HashMap::new();
    if let Some(key) = &kind.key {
        for (row, sign) in &balance {
            let fate = came_and_went.entry(key_of(row, key)).or_default();
            fate.0 |= *sign > 0;
            fate.1 |= *sign < 0;
        }
    }
    let mut netted = vec![];
    for (row, sign) in &balance {
        let fate = kind
            .key
            .as_ref()
            .map(|key| match came_and_went.get(&key_of(row, key)) {
                Some((true, false)) => "1",
                Some((false, true)) => "-1",
                _ => "0",
            });
        for _ in 0..sign.unsigned_abs() {
            netted.extend_from_slice(if *sign > 0 { b"1" } else { b"-1" });
            for field in fate
                .iter()
                .map(|fate| fate.as_bytes())
                .chain(row.iter().copied())
            {
                netted.push(b'\t');
                netted.extend_from_slice(field);
            }
            netted.push(b'\n');
        }
    }
    netted
}

fn key_of<'a>(row: &[&'a [u8]], key: &[usize]) -> Vec<&'a [u8]> {
    key.iter().filter_map(|at| row.get(*at).copied()).collect()
}

/// Only of changes that are few.
async fn all_lines(changes: &Changes) -> Result<Vec<u8>, StreamError> {
    let mut all = vec![];
    for reading in &changes.readings {
        for piece in 0..reading.pieces() {
            for lines in reading.lines(piece).await? {
                all.extend_from_slice(&lines);
            }
        }
    }
    Ok(all)
}

/// How many rows that were.
async fn copy(sink: CopyInSink<Bytes>, lines: Vec<u8>) -> Result<u64, StreamError> {
    let mut sink = std::pin::pin!(sink);
    let mut rest = Bytes::from(lines);
    while !rest.is_empty() {
        let piece = rest.split_to(rest.len().min(COPY_BYTES));
        sink.send(piece).await?;
    }
    Ok(sink.finish().await?)
}

/// The same, without having all of them in memory at any time.
async fn copy_all(sink: CopyInSink<Bytes>, changes: &Changes) -> Result<u64, StreamError> {
    let mut sink = std::pin::pin!(sink);
    // Runs of a line or two are put together.
    let mut gathered = BytesMut::new();
    for reading in &changes.readings {
        for piece in 0..reading.pieces() {
            for lines in reading.lines(piece).await? {
                gathered.extend_from_slice(&lines);
                if gathered.len() >= COPY_BYTES {
                    sink.send(gathered.split().freeze()).await?;
                }
            }
        }
    }
    sink.send(gathered.freeze()).await?;
    Ok(sink.finish().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(columns: &[usize], key: Option<&[usize]>) -> Kind {
        Kind {
            relation: Oid(1),
            columns: columns.to_vec(),
            key: key.map(<[usize]>::to_vec),
            is_netted: true,
        }
    }

    #[test]
    fn what_went_and_came_the_same_cancels() {
        let lines = b"-1\t7\tred\tx\n1\t7\tred\ty\n1\t8\tblue\tz\n-1\t9\tblue\tz\n1\t9\tred\tz\n";
        assert_eq!(
            net(&kind(&[0, 1], None), lines),
            b"1\t8\tblue\n-1\t9\tblue\n1\t9\tred\n"
        );
        let fates = net(&kind(&[0, 1], Some(&[0])), lines);
        assert_eq!(fates, b"1\t1\t8\tblue\n-1\t0\t9\tblue\n1\t0\t9\tred\n");
        assert_eq!(
            net(&kind(&[0], Some(&[0])), b"-1\t7\tred\tx\n"),
            b"-1\t-1\t7\n"
        );
        assert_eq!(
            net(&kind(&[1], None), b"1\ta\tb\n1\tc\tb\n"),
            b"1\tb\n1\tb\n"
        );
    }
}
