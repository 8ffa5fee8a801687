//! The directory of one throw-away server: data, socket and log.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::ServerError;
use super::account::Account;
use super::watchdog::Watchdog;

/// The path of a unix socket is limited to 103 bytes on some systems; `/.s.PGSQL.65535` takes 15.
const PATH_BYTES_MAX: usize = 80;

/// How many bytes of the log go into an error.
const LOG_TAIL_BYTES: usize = 4000;

/// A directory that belongs to the server's account. It is removed when this is dropped, and by the
/// watchdog when this process dies before that.
#[derive(Debug)]
pub(super) struct ServerDirectory {
    // Dropped before the directory: the watchdog must not act on an orderly end.
    watchdog: Watchdog,
    directory: TempDir,
}

impl ServerDirectory {
    pub(super) fn create(account: &Account) -> Result<Self, ServerError> {
        let parent = parent_for(account)?;
        let private = Permissions::from_mode(0o700);
        let created = tempfile::Builder::new()
            .prefix("pgstar-")
            .permissions(private)
            .tempdir_in(&parent);
        let doing = format!("create a directory in {}", parent.display());
        let directory = created.map_err(ServerError::io(doing))?;
        account.take_over(directory.path())?;
        let watchdog = Watchdog::start(account, directory.path())?;
        Ok(ServerDirectory {
            watchdog,
            directory,
        })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.path().join("postgresql.log")
    }

    /// What the server has logged.
    pub(super) fn log(&self) -> String {
        let bytes = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(super) fn log_tail(&self) -> String {
        tail(&self.log()).to_owned()
    }

    /// Removes the directory and says whether that worked.
    pub(super) fn remove(self) -> Result<(), ServerError> {
        let ServerDirectory {
            watchdog,
            directory,
        } = self;
        drop(watchdog);
        directory
            .close()
            .map_err(ServerError::io("remove the server's directory"))
    }
}

/// The end of a program's output, from the beginning of a line.
pub(super) fn tail(output: &str) -> &str {
    let start = output.len().saturating_sub(LOG_TAIL_BYTES);
    let line = (start..output.len()).find(|at| output.as_bytes()[*at] == b'\n');
    let from = if start == 0 {
        0
    } else {
        line.map_or(output.len(), |at| at + 1)
    };
    output[from..].trim_end()
}

fn parent_for(account: &Account) -> Result<PathBuf, ServerError> {
    let candidates = [
        std::env::temp_dir(),
        PathBuf::from("/tmp"),
        PathBuf::from("/var/tmp"),
    ];
    let usable = |path: &&PathBuf| {
        path.as_os_str().len() <= PATH_BYTES_MAX && account.can_use(path.as_path())
    };
    let tried = || {
        candidates
            .each_ref()
            .map(|path| path.display().to_string())
            .join(", ")
    };
    let no_directory = || ServerError::NoDirectory {
        user: account.name(),
        tried: tried(),
    };
    candidates
        .iter()
        .find(usable)
        .cloned()
        .ok_or_else(no_directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_begin_at_a_line() {
        assert_eq!(tail("one\ntwo\n"), "one\ntwo");
        let long = format!("ä{}\nlast\n", "x".repeat(LOG_TAIL_BYTES - 5));
        assert_eq!(tail(&long), "last");
    }
}
