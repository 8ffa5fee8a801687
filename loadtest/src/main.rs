//! The load test's command line: makes benchmark data, and measures PostgreSQL against pgstar.
//!
//! Must not know SQL or pgbench's output; it parses arguments and prints what the library says.

use std::{
    io::{self, Write},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use pgstar_loadtest::ssb::{self, ChunkStream, Generator, Scale, Table};

#[derive(Parser)]
#[command(name = "pgstar-loadtest", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write a table of the Star Schema Benchmark to standard output, as COPY text
    Generate(GenerateArgs),
    /// Create and fill the tables of the Star Schema Benchmark in a database
    Load(Box<LoadArgs>),
}

#[derive(Args)]
struct DataSet {
    /// Scale factor; 1 is 6,000,000 rows of lineorder
    #[arg(long, default_value = "0.1")]
    scale: Scale,
    /// The same scale and seed give the same bytes
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
struct GenerateArgs {
    #[command(flatten)]
    data: DataSet,
    /// date, customer, supplier, part or lineorder
    #[arg(long)]
    table: Table,
    /// Generating threads; as many as there are processors unless given
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Args)]
struct LoadArgs {
    #[command(flatten)]
    data: DataSet,
    /// Where to connect, such as postgresql://user@127.0.0.1:5432/warehouse
    #[arg(long)]
    url: tokio_postgres::Config,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Generate(args) => generate(&args),
        Command::Load(args) => load(&args),
    }
}

fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let generator = Arc::new(Generator::new(args.data.scale, args.data.seed));
    let threads = args.threads.unwrap_or_else(processors);
    let mut chunks = ChunkStream::start(&generator, args.table, threads);
    let mut output = io::stdout().lock();
    let mut rows = 0;
    while let Some(chunk) = chunks.next_blocking()? {
        output.write_all(&chunk.bytes).context("standard output")?;
        rows += chunk.rows;
    }
    let seconds = started.elapsed().as_secs_f64();
    let rate = rows as f64 / seconds;
    let table = args.table.name();
    eprintln!("{table}: {rows} rows in {seconds:.2} s, {rate:.0} rows/s");
    Ok(())
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[tokio::main]
async fn load(args: &LoadArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let report = |progress| eprintln!("{:7.2} s  {progress:?}", started.elapsed().as_secs_f64());
    let loaded = ssb::load(&args.url, args.data.scale, args.data.seed, &report).await?;
    eprintln!("{:7.2} s  {loaded:?}", started.elapsed().as_secs_f64());
    Ok(())
}
