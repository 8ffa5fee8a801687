//! Starts `pgstar demo --keep` and stops it again.
//!
//! Must not know what the demo does; it waits for two lines on its standard output,
//! `direct: postgresql://…` and `pgstar: postgresql://…`.

use std::{
    io::{self, BufRead, BufReader, Lines},
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long a demo may take to clean up after itself.
const STOP_MAX: Duration = Duration::from_secs(60);
/// How long a demo may take from closing its output to its exit.
const EXIT_MAX: Duration = Duration::from_secs(10);
const STOP_POLL: Duration = Duration::from_millis(50);

/// A running demo; dropping it stops it.
#[derive(Debug)]
pub struct Demo {
    child: Child,
    output: Option<JoinHandle<()>>,
    /// PostgreSQL's address.
    pub direct: String,
    /// pgstar's address.
    pub through: String,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The program did not start.
    #[error("could not start \"{program} demo\"")]
    Start {
        /// The program, as given.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended before it had printed both addresses.
    #[error("the demo ended before it was ready ({status})")]
    Ended {
        /// Its exit status.
        status: String,
    },
}

impl Demo {
    /// Starts a demo at a scale and waits until it is ready.
    pub fn start(program: &Path, scale: &str) -> Result<Demo, DemoError> {
        let failed = |source| DemoError::Start {
            program: program.display().to_string(),
            source,
        };
        let mut command = Command::new(program);
        command.args(["demo", "--keep", "--scale", scale]);
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
        let Some(stdout) = child.stdout.take() else {
            return Err(failed(io::Error::other("no standard output")));
        };
        let mut demo = Demo {
            child,
            output: None,
            direct: String::new(),
            through: String::new(),
        };
        demo.wait_until_ready(BufReader::new(stdout).lines())?;
        Ok(demo)
    }

    fn wait_until_ready(
        &mut self,
        mut lines: Lines<BufReader<ChildStdout>>,
    ) -> Result<(), DemoError> {
        while self.direct.is_empty() || self.through.is_empty() {
            let Some(Ok(line)) = lines.next() else {
                // Its output ends a moment before the process does; let it end by itself.
                self.ended_within(EXIT_MAX);
                return Err(DemoError::Ended {
                    status: self.stop(),
                });
            };
            match address(&line) {
                Some(("direct", url)) => self.direct = url.to_owned(),
                Some(("pgstar", url)) => self.through = url.to_owned(),
                _ => eprintln!("{line}"),
            }
        }
        // A full pipe would stop the demo, so somebody reads on until it ends.
        self.output = Some(thread::spawn(move || {
            lines.map_while(Result::ok).for_each(drop)
        }));
        Ok(())
    }

    /// Asks the demo to end and waits for it; beyond a bound it is killed.
    fn stop(&mut self) -> String {
        if self.ended_within(Duration::ZERO).is_none() {
            // A failure to ask shows in the wait that follows.
            // The shell's own kill: a minimal system has no program of that name.
            let kill = format!("kill -TERM {}", self.child.id());
            let _ = Command::new("/bin/sh").args(["-c", &kill]).status();
        }
        match self.ended_within(STOP_MAX) {
            Some(status) => status.to_string(),
            None => self.kill(),
        }
    }

    fn ended_within(&mut self, bound: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + bound;
        loop {
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() >= deadline {
                return ended;
            }
            thread::sleep(STOP_POLL);
        }
    }

    fn kill(&mut self) -> String {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.stop();
        if let Some(output) = self.output.take() {
            // It only reads, and has nothing to report.
            let _ = output.join();
        }
    }
}

/// The name and address in a line such as `direct: postgresql://…`.
fn address(line: &str) -> Option<(&str, &str)> {
    let (name, url) = line.trim().split_once(": ")?;
    url.starts_with("postgres").then_some((name, url))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    /// A program that behaves as the shell script says.
    fn program(directory: &tempfile::TempDir, script: &str) -> PathBuf {
        let (text, path) = (
            directory.path().join("script"),
            directory.path().join("pgstar"),
        );
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        // Copied by another process: a file that this one has open for writing while a test beside it
        // starts a program cannot be started itself ("text file busy").
        let copied = Command::new("cp").args([&text, &path]).status().unwrap();
        assert!(copied.success());
        path
    }

    #[test]
    fn a_demo_is_ready_with_its_second_address_and_ends_by_sigterm() {
        let directory = tempfile::tempdir().unwrap();
        let ended = directory.path().join("ended");
        let script = format!(
            "trap 'echo \"$*\" > {}; exit 0' TERM\necho loading\necho 'direct: postgresql://a:1/d'\n\
             echo 'pgstar: postgresql://b:2/d'\nwhile :; do sleep 0.05; done",
            ended.display()
        );
        let demo = Demo::start(&program(&directory, &script), "0.25").unwrap();
        assert_eq!(
            (demo.direct.as_str(), demo.through.as_str()),
            ("postgresql://a:1/d", "postgresql://b:2/d")
        );
        assert!(!ended.exists());
        drop(demo);
        assert_eq!(
            fs::read_to_string(ended).unwrap(),
            "demo --keep --scale 0.25\n"
        );
    }

    #[test]
    fn a_demo_that_ends_early_says_how() {
        let directory = tempfile::tempdir().unwrap();
        let program = program(&directory, "echo 'direct: postgresql://a:1/d'\nexit 3");
        let error = Demo::start(&program, "1").unwrap_err().to_string();
        assert_eq!(error, "the demo ended before it was ready (exit status: 3)");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Demo::start(Path::new("/nowhere/pgstar"), "1")
            .unwrap_err()
            .to_string();
        assert_eq!(error, "could not start \"/nowhere/pgstar demo\"");
    }
}
