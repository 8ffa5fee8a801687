//! Why a statement, or one rollup, does not answer: stable codes with a detail for people.
//!
//! A refusal is a value and not an error. The same codes appear in `EXPLAIN (PGSTAR)`, in metrics
//! and in tests.

use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident => $text:literal,)+) => {
        /// What stood in the way. The text of a code never changes once released.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Code {
            /// Every code, for documentation and completeness tests.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)+];

            /// The stable text, for example `dimension-missing`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)+ }
            }

            /// One or two sentences that say what the code means.
            pub fn meaning(self) -> &'static str {
                match self { $(Code::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

codes! {
    /// The statement is not SQL that pgstar's parser understands; PostgreSQL may.
    NotParsed => "not-parsed",
    /// The statement is longer or more deeply nested than pgstar analyses.
    StatementTooLarge => "statement-too-large",
    /// Only a lone SELECT can be answered from a rollup.
    NotASelect => "not-a-select",
    /// The SELECT uses a clause that is not analysed.
    UnsupportedClause => "unsupported-clause",
    /// A UNION, INTERSECT, EXCEPT or VALUES that is not analysed, or that removes all but one of rows that are equal but print differently.
    SetOperation => "set-operation",
    /// Rows are locked (FOR UPDATE, FOR SHARE), so the base tables must be read.
    Locking => "locking",
    /// The statement computes no aggregate and no distinct list.
    NotAggregate => "not-aggregate",
    /// A rollup is one aggregation of tables: a sub-select in it may not aggregate, limit or remove duplicates.
    NestedBlock => "nested-block",
    /// A sub-query that is not analysed: one of several columns, or one in a rollup.
    SubQuery => "sub-query",
    /// A window function in a form, or at a place, that is not analysed.
    WindowFunction => "window-function",
    /// A form of GROUPING SETS, ROLLUP or CUBE that is not analysed, or whose keys the rollup or PostgreSQL may not tell apart.
    GroupingSets => "grouping-sets",
    /// A name is not a relation that the session can see.
    UnknownRelation => "unknown-relation",
    /// The relation is a materialized view, a foreign table or a system table. (A plain view is what it shows.)
    NotATable => "not-a-table",
    /// Row-level security, a security-barrier view or a rewrite rule decides which rows are seen.
    RowSecurity => "row-security",
    /// A name is not a column, or not of one relation only.
    UnknownColumn => "unknown-column",
    /// This kind of join is not analysed.
    UnsupportedJoin => "unsupported-join",
    /// This kind of expression is not analysed.
    UnsupportedExpression => "unsupported-expression",
    /// The function is volatile, user-defined or not known to be safe.
    UnknownFunction => "unknown-function",
    /// A user-defined function or operator over built-in types has a built-in name, so the name may not mean what it says.
    ShadowedName => "shadowed-name",
    /// The aggregate cannot be derived from stored partial aggregates.
    UnsupportedAggregate => "unsupported-aggregate",
    /// The sum of floating-point numbers depends on their order, so a rollup cannot give PostgreSQL's digits.
    FloatAggregate => "float-aggregate",
    /// A predicate might raise an error on rows that PostgreSQL would not have looked at, or the reverse.
    MayRaise => "may-raise",
    /// No rollup is configured.
    NoRollups => "no-rollups",
    /// The query reads a table that the rollup was not built from and that cannot be joined back to it.
    TableMissing => "table-missing",
    /// The rollup joins a table that the query does not, and no enforced foreign key proves that the join keeps every row once.
    JoinNotRemovable => "join-not-removable",
    /// The query joins the rollup's tables in another way.
    JoinDiffers => "join-differs",
    /// The rollup leaves out rows that the query asks for.
    PredicateMissing => "predicate-missing",
    /// A column that the query groups or filters by cannot be derived from the rollup's keys.
    DimensionMissing => "dimension-missing",
    /// An aggregate of the query is not stored in the rollup.
    MeasureMissing => "measure-missing",
    /// A time range does not begin and end where the rollup's buckets do.
    BucketUnaligned => "bucket-unaligned",
    /// The rollup is not built, or was built for other tables.
    NotBuilt => "not-built",
    /// A base table has changed, or may have, since the state that the rollup holds.
    RollupBehind => "rollup-behind",
    /// The rollup cannot be shown to be as fresh as the session asks.
    FreshnessUnproven => "freshness-unproven",
    /// `pgstar.freshness` is not a value that pgstar knows, so it is taken as strict.
    InvalidFreshness => "invalid-freshness",
    /// `pgstar.rewrite` is off in this session.
    RewriteOff => "rewrite-off",
    /// The role may not read every table that the rollup was built from.
    NotAReader => "not-a-reader",
    /// The transaction has written, so its own rows must be read.
    WriteTransaction => "write-transaction",
    /// The transaction's isolation level fixes a snapshot that the rollup does not share.
    Isolation => "isolation",
    /// A name in the statement may mean one of the session's temporary objects.
    TemporaryObjects => "temporary-objects",
    /// A session setting changes how text, names or rows are read.
    SessionSetting => "session-setting",
    /// The session is connected to another database than the one with the rollups.
    OtherDatabase => "other-database",
    /// PostgreSQL describes the rewritten statement's columns in another way than the original's.
    DescribeMismatch => "describe-mismatch",
    /// PostgreSQL's planner expects the statement as it is to cost clearly less than over the rollup.
    BaseCheaper => "base-cheaper",
    /// PostgreSQL refuses the original statement, and its own error is the answer.
    StatementRefused => "statement-refused",
    /// The rewritten statement failed before its first row, so PostgreSQL answered the original.
    RewriteFailed => "rewrite-failed",
    /// The catalog could not be read yet.
    CatalogUnavailable => "catalog-unavailable",
}

impl Code {
    /// How far the proof of a match got: the position of the obligation that failed, counted in the
    /// order in which they are discharged. 0 for refusals that are not about a match.
    pub(crate) fn obligations_met(self) -> usize {
        const IN_ORDER: [Code; 10] = [
            Code::TableMissing,
            Code::JoinDiffers,
            Code::JoinNotRemovable,
            Code::PredicateMissing,
            Code::MayRaise,
            Code::BucketUnaligned,
            Code::DimensionMissing,
            Code::UnsupportedAggregate,
            Code::FloatAggregate,
            Code::MeasureMissing,
        ];
        let position = IN_ORDER.iter().position(|code| *code == self);
        position.map_or(0, |position| position + 1)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One refusal: of the whole statement, or of one rollup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The rollup concerned; `None` when the statement itself is out of reach.
    pub rollup: Option<String>,
    /// The stable code.
    pub code: Code,
    /// What exactly, in the statement's own names.
    pub detail: String,
}

impl Reason {
    /// A refusal that concerns the statement whatever the rollups are.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Reason {
            rollup: None,
            code,
            detail: detail.into(),
        }
    }

    /// What to change in the rollup's query, or around it, so that it would match as far as this is concerned.
    pub fn hint(&self) -> Option<String> {
        self.rollup.as_ref()?;
        let detail = &self.detail;
        let hint = match self.code {
            Code::TableMissing => format!("declare a rollup that reads {detail}, too"),
            Code::JoinNotRemovable => format!(
                "reference {detail} by a validated foreign key of NOT NULL columns, or leave it out of the rollup"
            ),
            Code::JoinDiffers => "join in the rollup as the statement does".to_owned(),
            Code::PredicateMissing => {
                "leave the condition out of the rollup, and group by its columns".to_owned()
            }
            Code::BucketUnaligned => "keep smaller buckets, or ask for whole ones".to_owned(),
            Code::DimensionMissing => format!("add {detail} to the rollup's GROUP BY"),
            Code::MeasureMissing => format!("add {detail} to the rollup's SELECT"),
            Code::UnsupportedAggregate => {
                "group the rollup by what is aggregated, or store the aggregate at the grain that is asked for"
                    .to_owned()
            }
            Code::FloatAggregate => format!(
                "store {detail} in a rollup with float = \"approximate\" if its last digits may differ, or keep the measure as numeric"
            ),
            Code::MayRaise => format!("write {detail} so that it raises no error, whatever the row"),
            _ => return None,
        };
        Some(hint)
    }

    /// The same refusal, said of one rollup.
    pub fn of_rollup(mut self, rollup: &str) -> Self {
        self.rollup = Some(rollup.to_owned());
        self
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rollup) = &self.rollup {
            write!(f, "{rollup}: ")?;
        }
        write!(f, "{}", self.code)?;
        if self.detail.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.detail)
        }
    }
}
