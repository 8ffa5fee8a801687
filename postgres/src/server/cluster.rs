//! Makes the data directory: initdb and the settings file.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::account::Account;
use super::binaries::Binaries;
use super::directory::{ServerDirectory, tail};
use super::{ServerError, ServerOptions};

/// Tried in this order: initdb refuses a locale that the system does not have.
const LOCALES: [&str; 2] = ["C.UTF-8", "C"];

pub(super) fn initialize(
    binaries: &Binaries,
    account: &Account,
    directory: &ServerDirectory,
    options: &ServerOptions,
) -> Result<(), ServerError> {
    let password_file = write_password(account, directory, options)?;
    let initialized = try_locales(
        binaries,
        account,
        directory,
        options,
        password_file.as_deref(),
    );
    if let Some(file) = password_file {
        std::fs::remove_file(file).map_err(ServerError::io("remove the password file"))?;
    }
    initialized?;
    append_settings(
        &directory.data().join("postgresql.conf"),
        directory,
        options,
    )
}

fn try_locales(
    binaries: &Binaries,
    account: &Account,
    directory: &ServerDirectory,
    options: &ServerOptions,
    password_file: Option<&Path>,
) -> Result<(), ServerError> {
    let mut output = String::new();
    for locale in LOCALES {
        let result = initdb(binaries, account, directory, options, locale, password_file)?;
        if result.status.success() {
            return Ok(());
        }
        output = String::from_utf8_lossy(&result.stderr).into_owned();
        let locale_is_missing = output.contains("invalid locale");
        if !locale_is_missing {
            break;
        }
    }
    Err(ServerError::Program {
        program: "initdb",
        output: tail(&output).to_owned(),
    })
}

fn initdb(
    binaries: &Binaries,
    account: &Account,
    directory: &ServerDirectory,
    options: &ServerOptions,
    locale: &str,
    password_file: Option<&Path>,
) -> Result<Output, ServerError> {
    let mut command = account.command(&binaries.program("initdb"), directory.path());
    command
        .arg("--pgdata")
        .arg(directory.data())
        .args(["--username", &options.user]);
    command.args([
        "--auth",
        options.authentication.method(),
        "--encoding=UTF8",
        "--no-sync",
    ]);
    command
        .arg(format!("--locale={locale}"))
        .args(["--lc-messages=C", "--no-instructions"]);
    if let Some(file) = password_file {
        command.arg("--pwfile").arg(file);
    }
    command.output().map_err(ServerError::io("run initdb"))
}

/// In a file that only the server's account can read, because arguments are public.
fn write_password(
    account: &Account,
    directory: &ServerDirectory,
    options: &ServerOptions,
) -> Result<Option<PathBuf>, ServerError> {
    let Some(password) = options.authentication.password() else {
        return Ok(None);
    };
    let path = directory.path().join("password");
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    let written = file.and_then(|mut file| writeln!(file, "{password}"));
    written.map_err(ServerError::io("write the password file"))?;
    account.take_over(&path)?;
    Ok(Some(path))
}

/// In the file and not as arguments, so that ALTER SYSTEM and a reload can change them.
fn append_settings(
    file: &Path,
    directory: &ServerDirectory,
    options: &ServerOptions,
) -> Result<(), ServerError> {
    let lines: String = settings(directory, options).iter().map(line).collect();
    let opened = OpenOptions::new().append(true).open(file);
    let written = opened.and_then(|mut file| file.write_all(lines.as_bytes()));
    written.map_err(ServerError::io("write postgresql.conf"))
}

fn settings(directory: &ServerDirectory, options: &ServerOptions) -> Vec<(String, String)> {
    let on_off = |on| if on { "on" } else { "off" };
    let socket_directory = directory.path().display().to_string();
    let fixed = [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", socket_directory.as_str()),
        ("wal_level", "logical"),
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("synchronous_commit", on_off(options.synchronous_commit)),
        ("logging_collector", "off"),
    ];
    let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let mut settings: Vec<(String, String)> = fixed.into_iter().map(own).collect();
    settings.extend(
        options
            .shared_buffers
            .iter()
            .map(|size| own(("shared_buffers", size.as_str()))),
    );
    let max_connections = options.max_connections.map(|count| count.to_string());
    settings.extend(
        max_connections
            .iter()
            .map(|count| own(("max_connections", count.as_str()))),
    );
    settings.extend(options.settings.iter().cloned());
    settings
}

/// In the settings file a quote is doubled and a backslash begins an escape.
fn line((name, value): &(String, String)) -> String {
    format!(
        "{name} = '{}'\n",
        value.replace('\\', "\\\\").replace('\'', "''")
    )
}
