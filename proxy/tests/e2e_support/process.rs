//! The built binary as a child process: its exit code, its output, and a server that it runs.
//!
//! It must not know what a test expects.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::PATIENCE;

pub fn pgstar() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgstar"));
    command.env_remove("PGSTAR_LOG").stdin(Stdio::null());
    command
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a command to its end.
pub async fn run(mut command: Command) -> Ran {
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        code: status.code(),
        out: text(stdout),
        err: text(stderr),
    }
}

pub async fn run_pgstar(arguments: &[&str]) -> Ran {
    let mut command = pgstar();
    command.args(arguments);
    run(command).await
}

/// A directory with a configuration file in it, gone at the end of the test.
pub struct ConfigFile {
    directory: tempfile::TempDir,
}

impl ConfigFile {
    pub fn with(text: &str) -> ConfigFile {
        let file = ConfigFile {
            directory: tempfile::tempdir().unwrap(),
        };
        file.write(text);
        file
    }

    pub fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("pgstar.toml")
    }

    pub fn text(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }
}

/// `pgstar serve`; killed at the end of the test should it still run.
pub struct Serving {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Serving {
    /// Starts and waits until it accepts connections.
    pub async fn start(config: &Path) -> Serving {
        let serving = Serving::spawn(config);
        serving.logged("Accepting connections").await;
        serving
    }

    pub fn spawn(config: &Path) -> Serving {
        let mut command = pgstar();
        command
            .arg("serve")
            .arg("--config")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (
            BufReader::new(child.stderr.take().unwrap()).lines(),
            Arc::clone(&log),
        );
        // Ends with the pipe, which ends with the child.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Serving { child, log }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log has this text.
    pub async fn logged(&self, text: &str) {
        self.logged_times(text, 1).await;
    }

    pub async fn logged_times(&self, text: &str, times: usize) {
        let began = Instant::now();
        while self.log().matches(text).count() < times {
            assert!(
                began.elapsed() < PATIENCE,
                "no \"{text}\" in:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where clients connect, as the log says.
    pub fn port(&self) -> u16 {
        let log = self.log();
        let line = log
            .lines()
            .find(|line| line.contains("Accepting connections"))
            .unwrap();
        let address = line
            .split("address=")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap();
        address.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(sent.unwrap().success());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end; the exit code.
    pub async fn wait(&mut self) -> Option<i32> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                began.elapsed() < PATIENCE,
                "it does not end:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
