//! pgbench's per-transaction log (manual, "pgbench", "Per-Transaction Logging").
//!
//! Must not know how pgbench was run; one line is one transaction:
//! `client transaction latency_us script epoch_s epoch_us`, and further columns with some options.

use std::{fs, io, path::Path};

/// One finished transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    /// Which of the scripts, from 0.
    pub script: usize,
    /// From the first statement sent to the last answer received, in microseconds.
    pub latency_us: u64,
    /// When it finished, in microseconds since 1970.
    pub finished_us: u64,
}

/// A log that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A line that is not of the documented form.
    #[error("pgbench's log has a line that is no transaction: \"{0}\"")]
    Line(String),
    /// A file or directory that could not be read.
    #[error("could not read pgbench's log")]
    Read(#[from] io::Error),
}

/// Reads every log in a directory whose file name begins with the prefix, as pgbench writes one for each thread.
pub fn read_logs(directory: &Path, prefix: &str) -> Result<Vec<Transaction>, LogError> {
    let mut transactions = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            transactions.extend(parse(&fs::read_to_string(entry.path())?)?);
        }
    }
    Ok(transactions)
}

fn parse(log: &str) -> Result<Vec<Transaction>, LogError> {
    let read = |line: &str| transaction(line).ok_or_else(|| LogError::Line(line.to_owned()));
    log.lines().map(read).collect()
}

fn transaction(line: &str) -> Option<Transaction> {
    let mut columns = line
        .split(' ')
        .skip(2)
        .map(|column| column.parse::<u64>().ok());
    let mut number = || columns.next().flatten();
    let (latency_us, script, seconds, microseconds) = (number()?, number()?, number()?, number()?);
    Some(Transaction {
        script: usize::try_from(script).ok()?,
        latency_us,
        finished_us: seconds.checked_mul(1_000_000)?.checked_add(microseconds)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_transactions() {
        let log = "0 1 2927 0 1795184269 824760\n3 2 156 14 1795184269 5\n";
        let expected = [
            (0, 2927, 1_795_184_269_824_760),
            (14, 156, 1_795_184_269_000_005),
        ];
        let expected = expected.map(|(script, latency_us, finished_us)| Transaction {
            script,
            latency_us,
            finished_us,
        });
        assert_eq!(parse(log).unwrap(), expected);
    }

    #[test]
    fn further_columns_are_allowed() {
        assert_eq!(
            parse("0 199 2241 0 1175850568 995598 1020\n")
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn what_is_no_transaction_is_refused() {
        // A skipped or failed transaction has a word in place of its latency.
        for line in [
            "0 82 skipped 0 1412881037 912698",
            "0 1 2927 0 1795184269",
            "",
            "text",
        ] {
            let refusal = parse(&format!("{line}\n")).unwrap_err().to_string();
            assert!(refusal.ends_with(&format!("\"{line}\"")), "{refusal}");
        }
    }

    #[test]
    fn logs_of_all_threads_and_no_other_file_are_read() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("direct.17", "0 1 10 0 1 0\n"),
            ("direct.17.1", "1 1 20 0 1 0\n"),
            ("through.18", "0 1 30 0 1 0\n"),
        ] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let read = read_logs(directory.path(), "direct.").unwrap();
        let mut latencies: Vec<u64> = read.iter().map(|one| one.latency_us).collect();
        latencies.sort_unstable();
        assert_eq!(latencies, [10, 20]);
    }
}
