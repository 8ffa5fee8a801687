//! One run of pgbench.
//!
//! Must not know which side it runs against, nor print addresses: they may carry passwords.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::scripts::SCRIPTS;

/// How much of pgbench's complaint is worth showing.
const COMPLAINT_LINES_MAX: usize = 5;

/// What is the same for all runs of a load test.
#[derive(Debug, Clone)]
pub struct Pgbench {
    /// The program; looked up in PATH when it has no directory.
    pub program: PathBuf,
    /// Connections at once.
    pub clients: u32,
    /// Expanded scripts, in the mix's order.
    pub scripts: Vec<PathBuf>,
}

/// Why pgbench did not measure.
#[derive(Debug, thiserror::Error)]
pub enum PgbenchError {
    /// Nothing to run.
    #[error(
        "pgbench was not found as \"{}\"; it comes with PostgreSQL (Debian and Ubuntu: apt install postgresql; \
         Fedora: dnf install postgresql-contrib; macOS: brew install postgresql), or name it with --pgbench PATH",
        .0.display()
    )]
    Missing(PathBuf),
    /// It could not be started for another reason.
    #[error("could not start pgbench")]
    Start(#[source] io::Error),
    /// It gave up; what it measured until then does not count.
    #[error("pgbench failed ({status}): {complaint}")]
    Failed {
        /// Its exit status.
        status: String,
        /// The end of what it printed as errors.
        complaint: String,
    },
}

impl Pgbench {
    /// Whether pgbench can be started at all.
    pub fn check(&self) -> Result<(), PgbenchError> {
        let mut command = Command::new(&self.program);
        self.finish(command.arg("--version").output())
    }

    /// Runs the mix for some seconds, logging each transaction to files beginning with `log_prefix`.
    ///
    /// The same seed draws the same parameters.
    pub fn run(
        &self,
        url: &str,
        seconds: u32,
        seed: u32,
        log_prefix: &Path,
    ) -> Result<(), PgbenchError> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut command = Command::new(&self.program);
        command.args(["--no-vacuum", "--protocol=simple", "--log"]);
        command.arg(format!("--client={}", self.clients));
        command.arg(format!("--jobs={}", threads.min(self.clients as usize)));
        command.arg(format!("--time={seconds}"));
        command.arg(format!("--random-seed={seed}"));
        command.arg("--log-prefix").arg(log_prefix);
        for (path, script) in self.scripts.iter().zip(SCRIPTS) {
            let weighted = format!("{}@{}", path.display(), script.weight);
            command.arg("--file").arg(weighted);
        }
        self.finish(command.arg(url).output())
    }

    fn finish(&self, output: io::Result<Output>) -> Result<(), PgbenchError> {
        let output = output.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PgbenchError::Missing(self.program.clone()),
            _ => PgbenchError::Start(error),
        })?;
        if output.status.success() {
            return Ok(());
        }
        Err(PgbenchError::Failed {
            status: output.status.to_string(),
            complaint: last_lines(&String::from_utf8_lossy(&output.stderr)),
        })
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let first = lines.len().saturating_sub(COMPLAINT_LINES_MAX);
    lines[first..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pgbench(program: &str) -> Pgbench {
        Pgbench {
            program: program.into(),
            clients: 1,
            scripts: Vec::new(),
        }
    }

    #[test]
    fn a_missing_program_is_named_with_the_way_to_get_it() {
        let error = pgbench("/nowhere/pgbench").check().unwrap_err().to_string();
        assert!(
            error.starts_with("pgbench was not found as \"/nowhere/pgbench\""),
            "{error}"
        );
        assert!(error.contains("apt install postgresql"), "{error}");
    }

    #[test]
    fn a_failure_carries_the_exit_status() {
        let error = pgbench("false").check().unwrap_err().to_string();
        assert!(error.contains("exit status: 1"), "{error}");
    }

    #[test]
    fn only_the_end_of_a_long_complaint_is_kept() {
        assert_eq!(last_lines("1\n2\n3\n4\n5\n6\n7\n"), "3; 4; 5; 6; 7");
        assert_eq!(last_lines("one\n"), "one");
    }
}
