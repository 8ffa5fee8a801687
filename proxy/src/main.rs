//! The binary: reads the command line, sets up logging, runs one command, and says how it ended.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use pgstar::cli::{Cli, Command};
use pgstar::config::Config;
use pgstar::failure::{EXIT_USAGE, Failure};
use pgstar::workers::THREAD_STACK_BYTES;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => return usage_answer(&answer),
    };
    match start_logging(default_level(&cli.command)).and_then(|()| run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", failure.report());
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Prints help or a version (success), or what is wrong with the command line.
///
/// clap itself would exit with 2 for the latter.
fn usage_answer(answer: &clap::Error) -> ExitCode {
    // Nothing is left to tell anybody when even this cannot be printed.
    let _ = answer.print();
    match answer.use_stderr() {
        true => ExitCode::from(EXIT_USAGE),
        false => ExitCode::SUCCESS,
    }
}

/// The demo shows progress of its own; other commands say what they do.
fn default_level(command: &Command) -> &'static str {
    match command {
        Command::Demo(_)
        | Command::Explain(_)
        | Command::Check(_)
        | Command::Rollup(_)
        | Command::Uninstall(_) => "warn",
        Command::Serve(_) => "info",
    }
}

fn start_logging(default_level: &str) -> Result<(), Failure> {
    const VARIABLE: &str = "PGSTAR_LOG";
    let filter = match std::env::var(VARIABLE) {
        Ok(directives) => EnvFilter::try_new(directives)
            .map_err(|error| Failure::BadUsage(format!("invalid {VARIABLE}: {error}")))?,
        Err(_) => EnvFilter::new(default_level),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

fn run(command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(THREAD_STACK_BYTES)
        .build();
    let runtime = runtime.map_err(|error| Failure::while_doing("start threads", error))?;
    // Spawned, so that commands too run on a thread with the large stack.
    let outcome = runtime.block_on(async { tokio::spawn(dispatch(command)).await });
    outcome.map_err(|error| Failure::while_doing("finish the command", error))?
}

async fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(file) => pgstar::serve::run(load(&file.config)?).await,
        Command::Check(file) => pgstar::check::run(load(&file.config)?).await,
        Command::Explain(explain) => {
            let config = load(&explain.file.config)?;
            pgstar::explain::run(config, &explain.statement, explain.json).await
        }
        Command::Rollup(rollup) => {
            let config = load(&rollup.file.config)?;
            pgstar::rollups::run(config, rollup.action).await
        }
        Command::Uninstall(uninstall) => {
            let config = load(&uninstall.file.config)?;
            pgstar::uninstall::run(config, uninstall.yes).await
        }
        Command::Demo(demo) => pgstar::demo::run(demo).await,
    }
}

fn load(file: &Path) -> Result<Config, Failure> {
    Config::from_file(file).map_err(Failure::BadConfig)
}
