//! Installs PostgreSQL with the system's package manager, or says how to.
//!
//! No server is left running by it: Debian's package would start one on port 5432, which is
//! prevented; the others start none.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::account::effective_uid;
use super::directory::tail;
use super::{InstallPolicy, Progress, ServerError, ServerOptions};

/// A package manager that pgstar can work with or at least name.
struct PackageManager {
    program: &'static str,
    /// For a human to type; also what the progress line says.
    command: &'static str,
    /// For `sh -eu`; `None` where only advice is given.
    script: Option<&'static str>,
    /// Homebrew refuses root, the others need it.
    needs_root: bool,
}

/// While the `postgresql` package is set up, `postgresql-common` is told to create no cluster; its
/// settings file is put back as it was afterwards, so that the administrator's choice stays.
const APT: &str = r#"
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 "$1"; }
install postgresql-common || { apt-get update -q; install postgresql-common; }
settings=/etc/postgresql-common/createcluster.conf
cp -p "$settings" "$settings.before-pgstar"
trap 'mv "$settings.before-pgstar" "$settings"' EXIT
echo 'create_main_cluster = false' >> "$settings"
install postgresql || { apt-get update -q; install postgresql; }
"#;

const MANAGERS: [PackageManager; 7] = [
    PackageManager {
        program: "apt-get",
        command: "apt-get install postgresql",
        script: Some(APT),
        needs_root: true,
    },
    PackageManager {
        program: "dnf",
        command: "dnf install postgresql-server",
        script: Some("dnf install -y -q postgresql-server"),
        needs_root: true,
    },
    PackageManager {
        program: "apk",
        command: "apk add postgresql",
        script: Some("apk add --no-cache postgresql"),
        needs_root: true,
    },
    PackageManager {
        program: "brew",
        command: "brew install postgresql@17",
        script: Some("brew install -q postgresql@17"),
        needs_root: false,
    },
    PackageManager {
        program: "zypper",
        command: "zypper install postgresql-server",
        script: None,
        needs_root: true,
    },
    PackageManager {
        program: "pacman",
        command: "pacman -S postgresql",
        script: None,
        needs_root: true,
    },
    PackageManager {
        program: "yum",
        command: "yum install postgresql-server",
        script: None,
        needs_root: true,
    },
];

/// A package manager that may be run now.
pub(super) struct Installer {
    manager: &'static PackageManager,
    script: &'static str,
    with_sudo: bool,
}

/// The installer to use; `None` when nothing may or can be installed.
pub(super) fn permitted(options: &ServerOptions) -> Result<Option<Installer>, ServerError> {
    let forbidden = std::env::var_os("PGSTAR_NO_INSTALL").is_some_and(|value| is_yes(&value));
    if forbidden || options.install == InstallPolicy::Never {
        return Ok(None);
    }
    let Some(manager) = manager_of_this_system() else {
        return Ok(None);
    };
    let Some(script) = manager.script else {
        return Ok(None);
    };
    let is_root = effective_uid()? == 0;
    let with_sudo = manager.needs_root && !is_root;
    let allowed = if with_sudo {
        sudo_needs_no_password()
    } else {
        manager.needs_root == is_root
    };
    Ok(allowed.then_some(Installer {
        manager,
        script,
        with_sudo,
    }))
}

impl Installer {
    /// Installs, which can take a minute.
    pub(super) fn run(&self, progress: &Progress) -> Result<(), ServerError> {
        let sudo = if self.with_sudo { "sudo " } else { "" };
        let shown = format!("{sudo}{}", self.manager.command);
        progress.tell(&format!("PostgreSQL is missing; installing it: {shown}"));
        let output = self
            .command()
            .output()
            .map_err(ServerError::io(format!("run {shown}")))?;
        if output.status.success() {
            return Ok(());
        }
        let printed = [output.stdout, output.stderr].concat();
        let reason = tail(&String::from_utf8_lossy(&printed)).to_owned();
        Err(ServerError::Install {
            command: shown,
            reason,
            advice: advice(),
        })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(if self.with_sudo { "sudo" } else { "/bin/sh" });
        if self.with_sudo {
            command.args(["-n", "/bin/sh"]);
        }
        command.args(["-euc", self.script]).stdin(Stdio::null());
        command
    }
}

/// What a human can do, for this distribution.
pub(super) fn advice() -> String {
    let elsewhere = "or set PGSTAR_PG_BIN to the directory of its programs";
    match manager_of_this_system() {
        Some(manager) => {
            let sudo = if manager.needs_root { "sudo " } else { "" };
            format!(
                "install it with \"{sudo}{}\" (if that is too old: https://www.postgresql.org/download/), \
                 {elsewhere}",
                manager.command
            )
        }
        None => format!("install it from https://www.postgresql.org/download/, {elsewhere}"),
    }
}

fn manager_of_this_system() -> Option<&'static PackageManager> {
    MANAGERS.iter().find(|manager| is_on_path(manager.program))
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // Package managers that only root uses may be missing from an ordinary user's PATH.
    directories.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    directories
        .iter()
        .any(|directory| directory.join(program).is_file())
}

fn sudo_needs_no_password() -> bool {
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    sudo.status().is_ok_and(|status| status.success())
}

fn is_yes(value: &OsStr) -> bool {
    !["", "0", "false", "no"]
        .iter()
        .any(|no| value == OsStr::new(no))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_another_way_on_every_system() {
        assert!(advice().contains("PGSTAR_PG_BIN"));
    }

    #[test]
    fn install_may_be_forbidden_with_one_but_not_with_zero() {
        assert!(is_yes(OsStr::new("1")));
        assert!(!is_yes(OsStr::new("0")));
    }

    #[test]
    fn scripts_are_valid_shell() {
        for script in MANAGERS.iter().filter_map(|manager| manager.script) {
            let status = Command::new("/bin/sh")
                .args(["-nc", script])
                .status()
                .unwrap();
            assert!(status.success(), "{script}");
        }
    }
}
