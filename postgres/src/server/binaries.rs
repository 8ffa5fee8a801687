//! Where PostgreSQL's server programs are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::install;
use super::{ServerError, ServerOptions};

/// The oldest major version that pgstar supports.
pub const VERSION_MIN: u32 = 14;

/// A directory with `postgres` and `initdb` of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    directory: PathBuf,
    version: u32,
}

impl Binaries {
    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The major version.
    pub fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn is_new_enough(&self) -> bool {
        self.version >= VERSION_MIN
    }

    /// The binaries in `directory`, or what is wrong with it.
    fn in_directory(directory: &Path) -> Result<Self, String> {
        for program in ["postgres", "initdb"] {
            if !directory.join(program).is_file() {
                return Err(format!("there is no {program} in it"));
            }
        }
        let output = Command::new(directory.join("postgres"))
            .arg("--version")
            .output();
        let output = output.map_err(|error| format!("postgres does not run: {error}"))?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let version =
            major_version(&printed).ok_or_else(|| format!("its version is \"{printed}\""))?;
        Ok(Binaries {
            directory: directory.to_owned(),
            version,
        })
    }
}

/// The binaries to use; installs PostgreSQL when there are none and the options allow it.
pub(super) fn find_or_install(options: &ServerOptions) -> Result<Binaries, ServerError> {
    let found = match find()? {
        Some(binaries) if binaries.is_new_enough() => return Ok(binaries),
        too_old_or_none => too_old_or_none,
    };
    let Some(installer) = install::permitted(options)? else {
        return Err(ServerError::NotFound {
            found,
            advice: install::advice(),
        });
    };
    installer.run(&options.progress)?;
    match find()? {
        Some(binaries) if binaries.is_new_enough() => Ok(binaries),
        found => Err(ServerError::NotFound {
            found,
            advice: install::advice(),
        }),
    }
}

/// The first binaries that are new enough, or else the newest of those that are not.
fn find() -> Result<Option<Binaries>, ServerError> {
    if let Some(directory) = std::env::var_os("PGSTAR_PG_BIN").filter(|value| !value.is_empty()) {
        return named_by_user(PathBuf::from(directory)).map(Some);
    }
    let mut too_old = None;
    for directory in candidate_directories() {
        match Binaries::in_directory(&directory) {
            Ok(binaries) if binaries.is_new_enough() => return Ok(Some(binaries)),
            Ok(binaries) => too_old = too_old.or(Some(binaries)),
            Err(_) => {}
        }
    }
    Ok(too_old)
}

/// Who names a directory wants that one, not another that happens to work.
fn named_by_user(directory: PathBuf) -> Result<Binaries, ServerError> {
    let bad = |reason| ServerError::BadBinDirectory {
        directory: directory.clone(),
        reason,
    };
    let binaries = Binaries::in_directory(&directory).map_err(bad)?;
    if !binaries.is_new_enough() {
        let reason = format!("version {} is older than {VERSION_MIN}", binaries.version);
        return Err(ServerError::BadBinDirectory { directory, reason });
    }
    Ok(binaries)
}

/// PATH, pg_config, then the places that distributions use, newest version first.
fn candidate_directories() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.extend(pg_config_bindir());
    for (parent, prefix, suffix) in USUAL_PLACES {
        directories.extend(versioned_directories(Path::new(parent), prefix, suffix));
    }
    directories
}

/// (parent, what a directory in it begins with, what follows that directory).
const USUAL_PLACES: [(&str, &str, &str); 7] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/usr/local", "pgsql", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

fn versioned_directories(parent: &Path, prefix: &str, suffix: &str) -> Vec<PathBuf> {
    let Ok(entries) = parent.read_dir() else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut names: Vec<OsString> = names
        .filter(|name| name.to_string_lossy().starts_with(prefix))
        .collect();
    names.sort_by_key(|name| std::cmp::Reverse(first_number(&name.to_string_lossy())));
    names
        .iter()
        .map(|name| parent.join(name).join(suffix))
        .collect()
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let printed = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(printed.trim())).filter(|directory| directory.is_absolute())
}

/// 15 for "postgres (PostgreSQL) 15.18 (Debian 15.18-1)", also for "16beta1".
fn major_version(printed: &str) -> Option<u32> {
    first_number(printed.split_once("(PostgreSQL)")?.1)
}

fn first_number(text: &str) -> Option<u32> {
    let digits: String = text
        .chars()
        .skip_while(|c| !c.is_ascii_digit())
        .take_while(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_postgres_prints() {
        assert_eq!(
            major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("something else 15"), None);
    }

    #[test]
    fn newer_directories_come_first_by_number() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["pgsql-9", "pgsql-14", "pgsql-16", "other-17"] {
            std::fs::create_dir(parent.path().join(name)).unwrap();
        }
        let found = versioned_directories(parent.path(), "pgsql-", "bin");
        let expected = ["pgsql-16/bin", "pgsql-14/bin", "pgsql-9/bin"];
        assert_eq!(found, expected.map(|name| parent.path().join(name)));
    }
}
