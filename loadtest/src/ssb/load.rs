//! Puts the data set into a PostgreSQL database: tables, rows, keys, statistics.
//!
//! Must not know servers: it is given where to connect, and leaves every durability setting to the
//! server. Tables and rows are one transaction, so that COPY may freeze rows as it writes them and a
//! failure leaves nothing behind; keys follow, because checking many rows at once is far cheaper.

use std::{pin::pin, sync::Arc};

use futures_util::SinkExt;
use tokio_postgres::{Client, Config, NoTls, Transaction};

use super::{
    chunks::{ChunkStream, GeneratorStopped},
    generator::{Generator, Table},
    scale::Scale,
};

/// One thread makes rows several times as fast as one COPY stores them.
const GENERATING_THREADS: usize = 1;

const SESSION: &str = "set maintenance_work_mem = '256MB'";
const TABLES: &str = include_str!("../../sql/tables.sql");

#[rustfmt::skip]
const CONSTRAINTS: [(&str, &str); 10] = [
    ("primary key of date", "alter table date add primary key (d_datekey)"),
    ("primary key of customer", "alter table customer add primary key (c_custkey)"),
    ("primary key of supplier", "alter table supplier add primary key (s_suppkey)"),
    ("primary key of part", "alter table part add primary key (p_partkey)"),
    ("primary key of lineorder", "alter table lineorder add primary key (lo_orderkey, lo_linenumber)"),
    ("foreign key lineorder to customer", "alter table lineorder add foreign key (lo_custkey) references customer"),
    ("foreign key lineorder to part", "alter table lineorder add foreign key (lo_partkey) references part"),
    ("foreign key lineorder to supplier", "alter table lineorder add foreign key (lo_suppkey) references supplier"),
    ("foreign key lineorder to date (order)", "alter table lineorder add foreign key (lo_orderdate) references date"),
    ("foreign key lineorder to date (commit)", "alter table lineorder add foreign key (lo_commitdate) references date"),
];

const ANALYZE: &str = "vacuum (analyze) date, customer, supplier, part, lineorder";

/// How far a load has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Rows are being stored.
    Loading {
        /// The table's name.
        table: &'static str,
        /// Rows so far.
        rows: u64,
        /// Rows to expect; for lineorder the seed decides the exact number.
        of: u64,
    },
    /// A key is about to be added.
    Constraint {
        /// Which one, for people.
        what: &'static str,
    },
    /// The last step is about to begin: VACUUM and ANALYZE.
    Analyzing,
}

/// How many rows each table has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Rows of date.
    pub date: u64,
    /// Rows of customer.
    pub customer: u64,
    /// Rows of supplier.
    pub supplier: u64,
    /// Rows of part.
    pub part: u64,
    /// Rows of lineorder.
    pub lineorder: u64,
}

/// Why a load ended early.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No connection.
    #[error("could not connect to the database that is to be loaded")]
    Connect(#[source] tokio_postgres::Error),
    /// A statement was refused; before the first constraint, nothing has been left behind.
    #[error("could not {step}")]
    Statement {
        /// What was being done.
        step: String,
        /// PostgreSQL's answer.
        source: tokio_postgres::Error,
    },
    /// Rows could not be made.
    #[error("could not generate rows of table \"{table}\"")]
    Generate {
        /// The table's name.
        table: &'static str,
        /// What happened to the generator.
        source: GeneratorStopped,
    },
}

impl LoadError {
    fn statement(step: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> LoadError {
        let step = step.into();
        move |source| LoadError::Statement { step, source }
    }
}

/// Creates and fills the five tables, in the first schema of the connection's search path.
///
/// The connection is not encrypted. Tables of the same names must not exist.
pub async fn load(
    config: &Config,
    scale: Scale,
    seed: u64,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Loaded, LoadError> {
    let connected = config.connect(NoTls).await;
    let (client, connection) = connected.map_err(LoadError::Connect)?;
    let generator = Arc::new(Generator::new(scale, seed));
    // The connection ends when the work drops its client; a broken one fails the work's statement.
    let work = pin!(load_with(client, &generator, progress));
    let (loaded, _) = tokio::join!(work, connection);
    loaded
}

async fn load_with(
    mut client: Client,
    generator: &Arc<Generator>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Loaded, LoadError> {
    execute(&client, "prepare the session", SESSION).await?;
    let loaded = load_tables(&mut client, generator, progress).await?;
    for (what, sql) in CONSTRAINTS {
        progress(Progress::Constraint { what });
        execute(&client, &format!("add the {what}"), sql).await?;
    }
    progress(Progress::Analyzing);
    execute(&client, "vacuum and analyze the tables", ANALYZE).await?;
    Ok(loaded)
}

async fn execute(client: &Client, step: &str, sql: &str) -> Result<(), LoadError> {
    let executed = client.batch_execute(sql).await;
    executed.map_err(LoadError::statement(step))
}

async fn load_tables(
    client: &mut Client,
    generator: &Arc<Generator>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Loaded, LoadError> {
    let begun = client.transaction().await;
    let transaction = begun.map_err(LoadError::statement("begin the load"))?;
    let created = transaction.batch_execute(TABLES).await;
    created.map_err(LoadError::statement("create the tables"))?;
    let mut loaded = Loaded::default();
    for table in Table::ALL {
        *loaded.of(table) = copy_table(&transaction, generator, table, progress).await?;
    }
    let committed = transaction.commit().await;
    committed.map_err(LoadError::statement("commit the load"))?;
    Ok(loaded)
}

async fn copy_table(
    transaction: &Transaction<'_>,
    generator: &Arc<Generator>,
    table: Table,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<u64, LoadError> {
    let name = table.name();
    let refused = || LoadError::statement(format!("copy rows into table \"{name}\""));
    let copy = format!("copy {name} from stdin (freeze)");
    let sink = transaction.copy_in(&copy).await.map_err(refused())?;
    let mut sink = pin!(sink);
    let mut chunks = ChunkStream::start(generator, table, GENERATING_THREADS);
    let stopped = |source| LoadError::Generate {
        table: name,
        source,
    };
    let of = generator.rows_expected(table);
    let mut rows = 0;
    while let Some(chunk) = chunks.next().await.map_err(stopped)? {
        sink.send(chunk.bytes).await.map_err(refused())?;
        rows += chunk.rows;
        progress(Progress::Loading {
            table: name,
            rows,
            of,
        });
    }
    sink.finish().await.map_err(refused())
}

impl Loaded {
    fn of(&mut self, table: Table) -> &mut u64 {
        match table {
            Table::Date => &mut self.date,
            Table::Customer => &mut self.customer,
            Table::Supplier => &mut self.supplier,
            Table::Part => &mut self.part,
            Table::Lineorder => &mut self.lineorder,
        }
    }
}
