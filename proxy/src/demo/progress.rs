//! The demo's progress display: a line that moves while a step runs, and one that stays when it is done.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use pgstar_loadtest::ssb;
use pgstar_postgres::rollups::BuildProgress;
use pgstar_postgres::server;

/// The steps of a demo. On something that is no terminal only the lines that stay are printed.
pub(super) struct Steps {
    bar: ProgressBar,
}

impl Steps {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Steps { bar }
    }

    /// A step is over: its line stays.
    pub(super) fn done(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    pub(super) fn server_progress(&self) -> server::Progress {
        let bar = self.bar.clone();
        server::Progress::new(move |line| bar.set_message(line.to_owned()))
    }

    pub(super) fn loading(&self, step: &ssb::Progress) {
        self.bar.set_message(match step {
            ssb::Progress::Loading { table, rows, of } => {
                format!("loading {table}: {rows} of about {of} rows")
            }
            ssb::Progress::Constraint { what } => format!("adding {what}"),
            ssb::Progress::Analyzing => "gathering statistics".to_owned(),
        });
    }

    pub(super) fn building(&self, rollup: &str, step: &BuildProgress) {
        if let BuildProgress::Done { rows } = step {
            self.done(&format!("  rollup {rollup}: {rows} rows"));
            return;
        }
        self.bar.set_message(match step {
            BuildProgress::Waiting { holder } => format!("rollup {rollup}: waiting for {holder}"),
            BuildProgress::Scanning {
                from: Some(from), ..
            } => format!("rollup {rollup}: reading rollup {from}"),
            BuildProgress::Scanning { from: None, .. } | BuildProgress::Done { .. } => {
                format!("rollup {rollup}: reading the base tables")
            }
            BuildProgress::Part { done, all, .. } => {
                format!("rollup {rollup}: {done} of {all} parts")
            }
            BuildProgress::Analyzing => format!("rollup {rollup}: gathering statistics"),
            BuildProgress::Indexing { column } => format!("rollup {rollup}: indexing {column}"),
        });
    }

    pub(super) fn changing(&self, query: &str) {
        self.bar
            .set_message(format!("running {query} beside a loader"));
    }

    pub(super) fn measuring(&self, query: &str) {
        self.bar.set_message(format!(
            "running {query} direct, from rollups and from the cache"
        ));
    }
}
