//! The server's process: started on a free port, awaited, stopped.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::ServerError;
use super::account::Account;
use super::binaries::Binaries;
use super::directory::ServerDirectory;

/// Between finding a free port and taking it, somebody else may take it.
const PORT_ATTEMPTS_MAX: usize = 8;

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A fast shutdown ends sessions and writes a checkpoint.
const FAST_SHUTDOWN_MAX: Duration = Duration::from_secs(30);

/// An immediate shutdown writes nothing.
const IMMEDIATE_SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// A running server; dropping it stops the server at once.
#[derive(Debug)]
pub(super) struct Postmaster {
    child: Child,
    port: u16,
}

/// How an attempt to start ended when not with a server that is ready.
enum Failed {
    PortTaken,
    Otherwise(ServerError),
}

impl Postmaster {
    pub(super) fn start(
        binaries: &Binaries,
        account: &Account,
        directory: &ServerDirectory,
        timeout: Duration,
    ) -> Result<Self, ServerError> {
        for _ in 0..PORT_ATTEMPTS_MAX {
            match Self::start_on(free_port()?, binaries, account, directory, timeout) {
                Err(Failed::PortTaken) => {}
                Err(Failed::Otherwise(error)) => return Err(error),
                Ok(postmaster) => return Ok(postmaster),
            }
        }
        let what = format!("found its port taken {PORT_ATTEMPTS_MAX} times in a row");
        Err(ServerError::NotReady {
            what,
            log_tail: directory.log_tail(),
        })
    }

    fn start_on(
        port: u16,
        binaries: &Binaries,
        account: &Account,
        directory: &ServerDirectory,
        timeout: Duration,
    ) -> Result<Self, Failed> {
        let child = spawn(port, binaries, account, directory).map_err(Failed::Otherwise)?;
        let mut postmaster = Postmaster { child, port };
        postmaster.wait_until_ready(directory, timeout)?;
        Ok(postmaster)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks the lock file and not the port, on which somebody else's server may answer.
    fn wait_until_ready(
        &mut self,
        directory: &ServerDirectory,
        timeout: Duration,
    ) -> Result<(), Failed> {
        let lock_file = directory.data().join("postmaster.pid");
        let deadline = Instant::now() + timeout;
        while !is_ready(&lock_file, self.pid()) {
            if let Some(status) = self.exit_status() {
                return Err(ended_early(status, directory));
            }
            if Instant::now() > deadline {
                let what = format!("was not ready within {timeout:?}");
                let log_tail = directory.log_tail();
                return Err(Failed::Otherwise(ServerError::NotReady { what, log_tail }));
            }
            sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Ends the server by this signal.
    pub(super) fn end(
        &mut self,
        signal: &str,
        directory: &ServerDirectory,
    ) -> Result<(), ServerError> {
        match self.signal_and_wait(signal, FAST_SHUTDOWN_MAX) {
            true => Ok(()),
            false => Err(ServerError::NotReady {
                what: "did not shut down".to_owned(),
                log_tail: directory.log_tail(),
            }),
        }
    }

    /// Starts the server that was ended on the same port.
    pub(super) fn start_again(
        &mut self,
        binaries: &Binaries,
        account: &Account,
        directory: &ServerDirectory,
        timeout: Duration,
    ) -> Result<(), ServerError> {
        let deadline = Instant::now() + timeout;
        loop {
            match Self::start_on(self.port, binaries, account, directory, timeout) {
                Ok(started) => {
                    *self = started;
                    return Ok(());
                }
                // For a moment some connection of somebody else's may have the port, or a process of the
                // old server its memory.
                Err(_) if Instant::now() < deadline => sleep(POLL_INTERVAL * 10),
                Err(Failed::PortTaken) => {
                    let what = "found its port taken".to_owned();
                    let log_tail = directory.log_tail();
                    return Err(ServerError::NotReady { what, log_tail });
                }
                Err(Failed::Otherwise(error)) => return Err(error),
            }
        }
    }

    /// Shuts down in an orderly way; falls back to killing.
    pub(super) fn stop(&mut self) -> Result<(), ServerError> {
        if self.signal_and_wait("INT", FAST_SHUTDOWN_MAX) {
            return Ok(());
        }
        self.child
            .kill()
            .map_err(ServerError::io("kill the server"))?;
        self.child
            .wait()
            .map_err(ServerError::io("wait for the server"))?;
        Ok(())
    }

    /// Whether the server has ended within `patience`.
    fn signal_and_wait(&mut self, signal: &str, patience: Duration) -> bool {
        if self.exit_status().is_some() {
            return true;
        }
        // The shell's own kill: not every system has the program.
        let pid = self.pid().to_string();
        let _ = Command::new("/bin/sh")
            .args(["-c", "kill -\"$1\" \"$2\"", "kill", signal, &pid])
            .status();
        let deadline = Instant::now() + patience;
        while self.exit_status().is_none() {
            if Instant::now() > deadline {
                return false;
            }
            sleep(POLL_INTERVAL);
        }
        true
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Postmaster {
    /// An immediate shutdown first: a server killed outright leaves shared memory behind.
    fn drop(&mut self) {
        if !self.signal_and_wait("QUIT", IMMEDIATE_SHUTDOWN_MAX) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn spawn(
    port: u16,
    binaries: &Binaries,
    account: &Account,
    directory: &ServerDirectory,
) -> Result<Child, ServerError> {
    // A new file for each attempt: what it says decides whether there is another one.
    let log = File::create(directory.log_file()).map_err(ServerError::io("create the log file"))?;
    let log_too = log
        .try_clone()
        .map_err(ServerError::io("share the log file"))?;
    let mut command = account.command(&binaries.program("postgres"), directory.path());
    command
        .arg("-D")
        .arg(directory.data())
        .args(["-p", &port.to_string()]);
    command.stdin(Stdio::null()).stdout(log).stderr(log_too);
    // Ctrl-C is for the owner, who then stops the server in its own time.
    command.process_group(0);
    command.spawn().map_err(ServerError::io("run postgres"))
}

fn free_port() -> Result<u16, ServerError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = listener.and_then(|listener| listener.local_addr());
    Ok(address.map_err(ServerError::io("find a free port"))?.port())
}

/// The first line of the lock file is the process number, the eighth the state.
fn is_ready(lock_file: &Path, pid: u32) -> bool {
    let Ok(content) = std::fs::read_to_string(lock_file) else {
        return false;
    };
    let mut lines = content.lines().map(str::trim);
    let is_ours = lines.next() == Some(pid.to_string().as_str());
    is_ours && lines.nth(6) == Some("ready")
}

fn ended_early(status: ExitStatus, directory: &ServerDirectory) -> Failed {
    let log_tail = directory.log_tail();
    let port_taken =
        log_tail.contains("could not bind") || log_tail.contains("Address already in use");
    if port_taken {
        return Failed::PortTaken;
    }
    let what = format!("ended while starting ({status})");
    Failed::Otherwise(ServerError::NotReady { what, log_tail })
}
