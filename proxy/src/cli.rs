//! The command line: what may be typed, and the help that teaches it.
//!
//! Knows nothing of what the commands do.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The command line of `pgstar`.
#[derive(Debug, Parser)]
#[command(
    name = "pgstar",
    version,
    about = "A PostgreSQL proxy that answers star-schema aggregations from rollups, and never wrongly",
    long_about = "\
pgstar stands between dashboards and PostgreSQL and speaks PostgreSQL's own protocol. It answers
star-schema aggregations from rollup tables kept in the same PostgreSQL, caches answers, and passes
everything else through untouched.

To see it work without a configuration or a server of your own:

  pgstar demo

To put it before your own server, write pgstar.toml, check it, and serve:

  pgstar check --config pgstar.toml
  pgstar serve --config pgstar.toml
  psql -h 127.0.0.1 -p 6432 warehouse",
    after_help = "\
Exit codes: 0 done; 64 a bad command line or a bad configuration file; 1 anything else, such as a
server that cannot be reached, a rollup that does not fit the database, or a port in use.
PGSTAR_LOG sets what is logged to standard error: info (the default), debug, pgstar::session=trace …",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command with its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy until it is told to stop
    #[command(long_about = "\
Run the proxy until it is told to stop.

SIGTERM and Ctrl-C drain: no new sessions, and running ones may finish within [limits] drain_timeout.
SIGHUP reads the configuration file again.

  pgstar serve --config pgstar.toml
  psql -h 127.0.0.1 -p 6432 warehouse -c 'EXPLAIN (PGSTAR) SELECT …'")]
    Serve(ConfigFile),
    /// Check the configuration file, alone and against the database
    #[command(long_about = "\
Check the configuration file, first alone and then against the database that it names.

Every problem is printed at once as file:line:column: message, most of them with a hint. Exits with
64 when the file is bad, with 1 when it does not fit the database or the database cannot be reached.

  pgstar check --config pgstar.toml && systemctl reload pgstar")]
    Check(ConfigFile),
    /// Show what pgstar would do with a statement, and why
    #[command(long_about = "\
Show what pgstar would do with a statement, and why: the rollup that answers it and the SQL that
runs instead, or for each rollup the first thing that keeps it from answering.

  pgstar explain 'SELECT d.year, sum(o.revenue) FROM orders o JOIN day d USING (day_id) GROUP BY 1'
  pgstar explain --json 'SELECT …' | jq .reasons")]
    Explain(Explain),
    /// List, rebuild or drop rollups
    #[command(long_about = "\
List, rebuild or drop rollups.

  pgstar rollup list
  pgstar rollup rebuild revenue_by_month
  pgstar rollup drop revenue_by_month

A rollup is declared in the configuration file. One that is dropped but still declared there is
built again when pgstar starts.")]
    Rollup(Rollup),
    /// Drop everything of pgstar's from the server: schema, publication and slots
    #[command(long_about = "\
Drop everything of pgstar's from the server: the schema \"pgstar\" with all rollups, the publication and the
replication slots. Tables of yours, their rows and their settings stay as they are. No pgstar may be running.

Without --yes it only says what it would drop.

  pgstar uninstall --config pgstar.toml
  pgstar uninstall --config pgstar.toml --yes")]
    Uninstall(Uninstall),
    /// Run the Star Schema Benchmark on a throw-away PostgreSQL, direct and through pgstar
    #[command(long_about = "\
Run the Star Schema Benchmark on a throw-away PostgreSQL, direct and through pgstar.

Starts a PostgreSQL of its own, generates and loads the data, builds rollups, runs the 13 queries
direct, from rollups and from the cache, compares every row, and prints a table of times. Nothing is
left behind unless --keep is given.

  pgstar demo
  pgstar demo --scale 1 --json out.json
  pgstar demo --keep")]
    Demo(Demo),
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The configuration file
    #[arg(
        long,
        value_name = "FILE",
        default_value = "pgstar.toml",
        global = true
    )]
    pub config: PathBuf,
}

/// `pgstar explain`.
#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    pub file: ConfigFile,
    /// The statement, in quotation marks for the shell
    #[arg(value_name = "SQL")]
    pub statement: String,
    /// Print one JSON object instead of text
    #[arg(long)]
    pub json: bool,
}

/// `pgstar rollup`.
#[derive(Debug, Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Rollup {
    #[command(flatten)]
    pub file: ConfigFile,
    /// What to do with rollups.
    #[command(subcommand)]
    pub action: RollupAction,
}

/// What to do with rollups.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum RollupAction {
    /// Show every rollup with its rows, size and age
    List,
    /// Build a rollup again from the base tables; the old one answers until the new one is complete
    Rebuild {
        /// The rollup's name in the configuration file
        name: String,
    },
    /// Drop a rollup's table
    Drop {
        /// The rollup's name
        name: String,
    },
}

/// `pgstar uninstall`.
#[derive(Debug, Args)]
pub struct Uninstall {
    #[command(flatten)]
    pub file: ConfigFile,
    /// Drop it, instead of only saying what would be dropped
    #[arg(long)]
    pub yes: bool,
}

/// `pgstar demo`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Demo {
    /// Scale factor: 1 means about 6,000,000 rows in the fact table
    #[arg(long, value_name = "F", default_value_t = Scale::DEMO)]
    pub scale: Scale,
    /// Also write the results to this file, as one JSON array with an object per query
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Leave PostgreSQL and pgstar running until Ctrl-C, to connect to
    #[arg(long)]
    pub keep: bool,
}

/// The Star Schema Benchmark's scale factor: more than 0 and at most 1000.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Scale(f64);

impl Scale {
    const DEMO: Scale = Scale(0.1);
    const MAX: f64 = 1000.0;

    /// The factor.
    pub fn factor(self) -> f64 {
        self.0
    }
}

impl std::str::FromStr for Scale {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(factor) if factor > 0.0 && factor <= Self::MAX => Ok(Scale(factor)),
            _ => Err(format!(
                "a number above 0 and up to {} is wanted",
                Self::MAX
            )),
        }
    }
}

impl std::fmt::Display for Scale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_config_option_may_stand_before_or_behind_the_action() {
        for line in [
            "pgstar rollup --config a.toml list",
            "pgstar rollup list --config a.toml",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            let Command::Rollup(rollup) = cli.command else {
                panic!("{line}")
            };
            assert_eq!(rollup.file.config, PathBuf::from("a.toml"));
            assert_eq!(rollup.action, RollupAction::List);
        }
    }

    #[test]
    fn scales_are_numbers_above_zero() {
        for text in ["0", "-1", "NaN", "inf", "1001", "big"] {
            assert!(text.parse::<Scale>().is_err(), "{text}");
        }
        assert_eq!("0.01".parse::<Scale>().unwrap().factor(), 0.01);
    }
}
