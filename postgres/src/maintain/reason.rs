//! Why a rollup's table cannot be brought up to date from the changes, and has to be built again.

use std::time::Duration;

use crate::stream::RefusalReason;

/// Why a rollup was stepped aside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfoldable {
    /// TRUNCATE.
    #[error("table {table} was truncated")]
    Truncated {
        /// The table.
        table: String,
    },
    /// A column that the rollup reads is not in the stream, or of another type.
    #[error("column \"{column}\" of table {table} is not in the change stream as it was")]
    ColumnChanged {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// The old row of an UPDATE or DELETE was not logged.
    #[error(
        "the old values of a row of table {table} were not logged; run: ALTER TABLE {table} REPLICA IDENTITY FULL"
    )]
    NoOldRow {
        /// The table.
        table: String,
    },
    /// More changes than are kept.
    #[error("more than {bytes_max} bytes of changes were waiting")]
    TooMuch {
        /// The bound.
        bytes_max: u64,
    },
    /// More transactions than are told apart.
    #[error("more than {transactions_max} transactions were waiting")]
    TooMany {
        /// The bound.
        transactions_max: usize,
    },
    /// The changes did not fit into memory, and could not be written to a file.
    #[error("changes could not be kept in a temporary file: {error}")]
    NotKept {
        /// What the system said.
        error: String,
    },
    /// A partition came or went or is identified otherwise, rows were rewritten, or a value of an enum, a column or the
    /// table was renamed.
    #[error(
        "a table was given another name, other partitions, other files or other names for its columns or values"
    )]
    Reshaped,
    /// The rollup is older than what the stream still has.
    #[error("changes since the rollup's snapshot are not in the change stream any more")]
    Gap,
    /// Nothing is on record of its table's contents: who found them wrong has seen to that, or the record is another
    /// cluster's.
    #[error("it is not known what its table contains")]
    Unrecorded,
    /// One of its tables is not in the change stream, for this reason. Building it again would not help.
    #[error("{reason}")]
    NotFollowed {
        /// Why.
        reason: RefusalReason,
    },
    /// PostgreSQL could not evaluate the changes.
    #[error("its changes could not be computed: {error}")]
    Failed {
        /// What PostgreSQL said.
        error: String,
    },
    /// More rows would have to leave a group than it has.
    #[error("a group would have had less than no rows")]
    Impossible,
    /// It was filled from another rollup's table that was found to be wrong.
    #[error("it was filled from table \"{table}\", which was found to be wrong")]
    SourceWrong {
        /// The other table.
        table: String,
    },
    /// It was computed again and came out differently.
    #[error("it is not what its definition says: {detail}")]
    Unequal {
        /// Which groups.
        detail: String,
    },
}

impl Unfoldable {
    /// A word for metrics and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Unfoldable::Truncated { .. } => "truncated",
            Unfoldable::ColumnChanged { .. } => "column-changed",
            Unfoldable::NoOldRow { .. } => "no-old-row",
            Unfoldable::TooMuch { .. } => "too-much",
            Unfoldable::TooMany { .. } => "too-many",
            Unfoldable::NotKept { .. } => "not-kept",
            Unfoldable::Reshaped => "reshaped",
            Unfoldable::Gap => "gap",
            Unfoldable::Unrecorded => "unrecorded",
            Unfoldable::NotFollowed { .. } => "not-followed",
            Unfoldable::Failed { .. } => "failed",
            Unfoldable::Impossible => "impossible",
            Unfoldable::SourceWrong { .. } => "source-wrong",
            Unfoldable::Unequal { .. } => "unequal",
        }
    }
}

/// Why a rollup cannot be shown to have everything. The base tables have to answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCurrent {
    /// The change stream itself.
    #[error(transparent)]
    Stream(#[from] crate::stream::Unproven),
    /// Nobody brings this table up to date.
    #[error("rollup table \"{table}\" is not maintained")]
    NotMaintained {
        /// The table.
        table: String,
    },
    /// It has to be built again.
    #[error("rollup table \"{table}\" has to be built again: {why}")]
    SteppedAside {
        /// The table.
        table: String,
        /// Why.
        why: Unfoldable,
    },
    /// Changes were decoded but not brought into it in time.
    #[error("the rollup was not brought up to date within {} ms", .waited.as_millis())]
    Late {
        /// The deadline.
        waited: Duration,
    },
}
