//! The load test's command line: makes benchmark data, and measures PostgreSQL against pgstar.
//!
//! Must not know SQL or pgbench's output; it parses arguments and prints what the library says.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use pgstar_loadtest::{
    churn::{self, Target},
    driver::{
        Side,
        demo::Demo,
        report::Report,
        rounds::{self, Plan},
    },
    ssb::{self, ChunkStream, Generator, Scale, Table},
};

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
    /// Ask PostgreSQL and pgstar the same mix of questions in turn, and compare times (needs pgbench)
    Run(RunArgs),
    /// Open session after session as Superset does, at several addresses in turn, and compare rates
    Churn(ChurnArgs),
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

#[derive(Args)]
struct RunArgs {
    /// PostgreSQL's address
    #[arg(long, requires = "through", required_unless_present = "demo")]
    direct: Option<String>,
    /// pgstar's address
    #[arg(long, requires = "direct")]
    through: Option<String>,
    /// Start this pgstar's "demo --keep", measure it, and stop it
    #[arg(long, conflicts_with_all = ["direct", "through"])]
    demo: Option<PathBuf>,
    /// The demo's scale factor
    #[arg(long, default_value = "0.1", conflicts_with = "direct")]
    scale: Scale,
    /// Connections at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Seconds for each side, all rounds together
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// How often the sides take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Decides the parameters that are drawn; the same for both sides
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// The pgbench to run
    #[arg(long, default_value = "pgbench")]
    pgbench: PathBuf,
    /// Write the numbers to this file too
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct ChurnArgs {
    /// NAME=HOST:PORT, once for each address; ratios are to the first
    #[arg(long = "side", required = true, value_parser = parse_side)]
    sides: Vec<Target>,
    #[arg(long)]
    user: String,
    #[arg(long)]
    password: String,
    #[arg(long)]
    database: String,
    /// The one question of each session
    #[arg(long)]
    question: String,
    /// Clients at once
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Seconds of each turn
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often the sides take turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

fn parse_side(text: &str) -> Result<Target, String> {
    let (name, address) = text.split_once('=').ok_or("write NAME=HOST:PORT")?;
    Ok(Target {
        name: name.to_owned(),
        address: address.to_owned(),
    })
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
        Command::Run(args) => compare(&args),
        Command::Churn(args) => churn_sessions(args),
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
        output
            .write_all(&chunk.bytes)
            .context("could not write to standard output")?;
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

fn compare(args: &RunArgs) -> anyhow::Result<()> {
    let start = |program: &PathBuf| Demo::start(program, &args.scale.to_string());
    let demo = args.demo.as_ref().map(start).transpose()?;
    let (direct, through) = match &demo {
        Some(demo) => (demo.direct.clone(), demo.through.clone()),
        None => given_addresses(args)?,
    };
    let plan = Plan {
        direct,
        through,
        clients: args.clients,
        seconds: args.seconds,
        rounds: args.rounds,
        seed: args.seed,
        pgbench: args.pgbench.clone(),
    };
    let comparison = rounds::compare(&plan, &|round, side| announce(args, round, side))?;
    drop(demo);
    publish(&Report::of(&comparison, args.clients), args)
}

fn given_addresses(args: &RunArgs) -> anyhow::Result<(String, String)> {
    let addresses = args.direct.clone().zip(args.through.clone());
    addresses.context("give --direct and --through, or --demo")
}

fn announce(args: &RunArgs, round: u32, side: Side) {
    let side = match side {
        Side::Direct => "PostgreSQL directly",
        Side::Through => "through pgstar",
    };
    eprintln!("round {} of {}: {side}", round + 1, args.rounds);
}

fn churn_sessions(args: ChurnArgs) -> anyhow::Result<()> {
    let plan = churn::Plan::from(&args);
    for stood in churn::compare(&plan, &args.sides)? {
        let summary = stood.summary;
        println!(
            "{:>7} {:<14} {:>10.0} {:>9.2}x {:>10.2} {:>10.2}",
            plan.clients,
            stood.name,
            summary.per_second,
            stood.ratio,
            summary.p50_ms,
            summary.p95_ms
        );
    }
    Ok(())
}

impl From<&ChurnArgs> for churn::Plan {
    fn from(args: &ChurnArgs) -> Self {
        churn::Plan {
            user: args.user.clone(),
            password: args.password.clone(),
            database: args.database.clone(),
            question: args.question.clone(),
            clients: args.clients as usize,
            turn: std::time::Duration::from_secs_f64(args.seconds),
            rounds: args.rounds as usize,
        }
    }
}

fn publish(report: &Report, args: &RunArgs) -> anyhow::Result<()> {
    print!("{}", report.table());
    if let Some(file) = &args.json {
        let json = serde_json::to_string_pretty(report)?;
        fs::write(file, json + "\n")
            .with_context(|| format!("could not write {}", file.display()))?;
    }
    Ok(())
}
