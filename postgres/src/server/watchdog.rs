//! Cleans up after a server whose owner was killed and could not.
//!
//! A shell waits on a pipe from this process. When the pipe closes without a word, the owner is gone,
//! however it went: the shell stops the server and removes the directory. Tests whose server lives
//! in a `static`, which Rust never drops, rely on it too.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use super::ServerError;
use super::account::Account;

/// `$1` is the server's directory. PostgreSQL removes postmaster.pid when it has shut down.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
if read -r word; then exit 0; fi
lock="$1/data/postmaster.pid"
if pid=$(head -n 1 "$lock" 2>/dev/null) && [ -n "$pid" ]; then
  kill -INT "$pid" 2>/dev/null
  tries=0
  while [ -e "$lock" ] && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
  if [ -e "$lock" ]; then kill -KILL "$pid" 2>/dev/null; fi
fi
rm -rf "$1"
"#;

/// The shell; dropping it tells it that the owner has cleaned up.
#[derive(Debug)]
pub(super) struct Watchdog {
    shell: Child,
}

impl Watchdog {
    pub(super) fn start(account: &Account, directory: &Path) -> Result<Self, ServerError> {
        let mut command = account.command(Path::new("/bin/sh"), Path::new("/"));
        command
            .args(["-c", SCRIPT, "pgstar-watchdog"])
            .arg(directory);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Ctrl-C reaches every process of the terminal's group; this one must outlive its owner.
        command.process_group(0);
        let shell = command.spawn().map_err(ServerError::io("run /bin/sh"))?;
        Ok(Watchdog { shell })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            let _ = pipe.write_all(b"done\n");
        }
        let _ = self.shell.wait();
    }
}
