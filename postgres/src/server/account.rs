//! Whom the server runs as: PostgreSQL refuses to be root.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::ServerError;

/// The user whom PostgreSQL's programs run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Account {
    /// The user of this process.
    Own {
        /// Its effective user number.
        uid: u32,
    },
    /// Somebody else, because this process is root.
    Other {
        /// The user's name.
        name: String,
        /// The user's number.
        uid: u32,
        /// The number of the user's group.
        gid: u32,
    },
}

impl Account {
    /// The account for a server that this process starts.
    pub(super) fn for_server() -> Result<Self, ServerError> {
        let uid = effective_uid()?;
        if uid != 0 {
            return Ok(Account::Own { uid });
        }
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = ["postgres", "nobody"]
            .iter()
            .find_map(|name| entry_of(&passwd, name));
        user.ok_or(ServerError::NoUnprivilegedUser)
    }

    /// A command that runs as this account, in `directory`, without the caller's PostgreSQL settings.
    pub(super) fn command(&self, program: &Path, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(directory).env("LC_ALL", "C");
        let inherited = std::env::vars_os().map(|(name, _)| name);
        for name in inherited.filter(|name| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        if let Account::Other { uid, gid, .. } = self {
            command.uid(*uid).gid(*gid).env("HOME", directory);
        }
        command
    }

    /// Makes this account the owner of a file or directory that this process has created.
    pub(super) fn take_over(&self, path: &Path) -> Result<(), ServerError> {
        let Account::Other { uid, gid, .. } = self else {
            return Ok(());
        };
        let doing = format!("change the owner of {}", path.display());
        std::os::unix::fs::chown(path, Some(*uid), Some(*gid)).map_err(ServerError::io(doing))
    }

    /// Whether this account can reach `directory` and make files in it.
    pub(super) fn can_use(&self, directory: &Path) -> bool {
        let Account::Other { uid, gid, .. } = self else {
            return directory.is_dir();
        };
        let Ok(directory) = directory.canonicalize() else {
            return false;
        };
        let above = directory.ancestors().skip(1);
        has_bits(&directory, 0o3, *uid, *gid)
            && above.into_iter().all(|d| has_bits(d, 0o1, *uid, *gid))
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        match self {
            Account::Own { uid } => uid.to_string(),
            Account::Other { name, .. } => name.clone(),
        }
    }
}

/// Whether the permission bits `wanted` (of one octal digit) are set for this user.
fn has_bits(path: &Path, wanted: u32, uid: u32, gid: u32) -> bool {
    let Ok(metadata) = path.metadata() else {
        return false;
    };
    let shift = match (metadata.uid() == uid, metadata.gid() == gid) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    (metadata.mode() >> shift) & wanted == wanted
}

/// A file belongs to whom the process acts as; the standard library has no other way to ask.
pub(super) fn effective_uid() -> Result<u32, ServerError> {
    let file = tempfile::tempfile().and_then(|file| file.metadata());
    Ok(file
        .map_err(ServerError::io("create a temporary file"))?
        .uid())
}

fn entry_of(passwd: &str, name: &str) -> Option<Account> {
    let mut fields = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let fields = fields.find(|fields| fields.first() == Some(&name))?;
    let uid = fields.get(2)?.parse().ok()?;
    let gid = fields.get(3)?.parse().ok()?;
    Some(Account::Other {
        name: name.to_owned(),
        uid,
        gid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_entries_are_found_by_their_whole_name() {
        let passwd = "postgres2:x:7:8::/:/bin/sh\npostgres:x:101:104:,,,:/var/lib:/bin/bash\n";
        let expected = Account::Other {
            name: "postgres".into(),
            uid: 101,
            gid: 104,
        };
        assert_eq!(entry_of(passwd, "postgres"), Some(expected));
        assert_eq!(entry_of(passwd, "nobody"), None);
    }
}
