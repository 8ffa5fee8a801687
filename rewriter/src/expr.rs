//! Scalar expressions after names are resolved: the one form in which queries and rollups are compared.
//!
//! A [`Scalar`] keeps what was written (the operators, the literals, the casts) and replaces names
//! by catalog identities. Two scalars over columns of equal types mean the same to PostgreSQL
//! whenever they are equal, which is why replacing a column by a rollup column of the same type
//! keeps the meaning of any expression around it.

use crate::catalog::{AttNum, ColumnType, Oid};
use crate::query::Query;

/// A table occurrence in a block: its position in [`Block::occurrences`](crate::block::Block).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OccurrenceId(pub usize);

/// A column of one table occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnRef {
    /// Which occurrence.
    pub occurrence: OccurrenceId,
    /// Which of its columns.
    pub attnum: AttNum,
}

/// A constant as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Literal {
    /// Digits, with a point or exponent perhaps.
    Number(String),
    /// A quoted string whose type PostgreSQL takes from its surroundings.
    String(String),
    /// TRUE or FALSE.
    Boolean(bool),
    /// NULL.
    Null,
    /// `INTERVAL '…'`, the text as written.
    Interval(String),
}

/// A binary operator of pg_catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Plus,
    Minus,
    Multiply,
    Divide,
    Modulo,
    Concat,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl BinaryOp {
    /// The operator's name in pg_catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            BinaryOp::Plus => "+",
            BinaryOp::Minus => "-",
            BinaryOp::Multiply => "*",
            BinaryOp::Divide => "/",
            BinaryOp::Modulo => "%",
            BinaryOp::Concat => "||",
            BinaryOp::Equal => "=",
            BinaryOp::NotEqual => "<>",
            BinaryOp::Less => "<",
            BinaryOp::LessOrEqual => "<=",
            BinaryOp::Greater => ">",
            BinaryOp::GreaterOrEqual => ">=",
        }
    }

    /// Whether the operator compares two values.
    pub fn is_comparison(self) -> bool {
        self.mirrored().is_some()
    }

    /// For a comparison, the operator that means the same with its operands exchanged.
    pub fn mirrored(self) -> Option<BinaryOp> {
        match self {
            BinaryOp::Equal | BinaryOp::NotEqual => Some(self),
            BinaryOp::Less => Some(BinaryOp::Greater),
            BinaryOp::LessOrEqual => Some(BinaryOp::GreaterOrEqual),
            BinaryOp::Greater => Some(BinaryOp::Less),
            BinaryOp::GreaterOrEqual => Some(BinaryOp::LessOrEqual),
            BinaryOp::Plus | BinaryOp::Minus | BinaryOp::Multiply => None,
            BinaryOp::Divide | BinaryOp::Modulo | BinaryOp::Concat => None,
        }
    }
}

/// The value that `IS [NOT] TRUE|FALSE` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Truth {
    True,
    False,
}

/// An aggregate function that pgstar knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum AggregateFunction {
    Count,
    Sum,
    Avg,
    Min,
    Max,
    BoolAnd,
    BoolOr,
    BitAnd,
    BitOr,
    VarPop,
    VarSamp,
    StddevPop,
    StddevSamp,
    // From here on: only of use at the very grain at which it was computed.
    ArrayAgg,
    StringAgg,
    Mode,
    PercentileCont,
    PercentileDisc,
}

impl AggregateFunction {
    /// The function's name in pg_catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            AggregateFunction::Count => "count",
            AggregateFunction::Sum => "sum",
            AggregateFunction::Avg => "avg",
            AggregateFunction::Min => "min",
            AggregateFunction::Max => "max",
            AggregateFunction::BoolAnd => "bool_and",
            AggregateFunction::BoolOr => "bool_or",
            AggregateFunction::BitAnd => "bit_and",
            AggregateFunction::BitOr => "bit_or",
            AggregateFunction::VarPop => "var_pop",
            AggregateFunction::VarSamp => "var_samp",
            AggregateFunction::StddevPop => "stddev_pop",
            AggregateFunction::StddevSamp => "stddev_samp",
            AggregateFunction::ArrayAgg => "array_agg",
            AggregateFunction::StringAgg => "string_agg",
            AggregateFunction::Mode => "mode",
            AggregateFunction::PercentileCont => "percentile_cont",
            AggregateFunction::PercentileDisc => "percentile_disc",
        }
    }

    /// Whether it is written `f(…) WITHIN GROUP (ORDER BY …)`.
    pub fn is_ordered_set(self) -> bool {
        matches!(
            self,
            AggregateFunction::Mode
                | AggregateFunction::PercentileCont
                | AggregateFunction::PercentileDisc
        )
    }

    /// Whether aggregates of parts of a group give the aggregate of the group.
    pub fn is_distributive(self) -> bool {
        matches!(
            self,
            AggregateFunction::Count
                | AggregateFunction::Sum
                | AggregateFunction::Min
                | AggregateFunction::Max
                | AggregateFunction::BoolAnd
                | AggregateFunction::BoolOr
                | AggregateFunction::BitAnd
                | AggregateFunction::BitOr
        )
    }
}

/// One item of ORDER BY.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderItem {
    /// What is ordered by.
    pub value: Scalar,
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST or LAST where written; PostgreSQL's default otherwise.
    pub nulls_first: Option<bool>,
}

/// A call of an aggregate function.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Aggregate {
    /// Which function.
    pub function: AggregateFunction,
    /// Its first argument; `None` for `count(*)` and `mode()`.
    pub argument: Option<Scalar>,
    /// Its other arguments, such as the delimiter of `string_agg`.
    pub more_arguments: Vec<Scalar>,
    /// Whether duplicates are removed first.
    pub distinct: bool,
    /// ORDER BY in its parentheses, or of WITHIN GROUP.
    pub order_by: Vec<OrderItem>,
    /// The condition of FILTER (WHERE …).
    pub filter: Option<Scalar>,
}

impl Aggregate {
    /// `function(argument)`, or `function(*)`.
    pub fn plain(function: AggregateFunction, argument: Option<Scalar>) -> Self {
        Aggregate {
            function,
            argument,
            more_arguments: vec![],
            distinct: false,
            order_by: vec![],
            filter: None,
        }
    }

    /// Whether the aggregate of a group is the sum of its rows' contributions, so that a change of rows
    /// changes it by the sum over the changed rows: `count` and `sum` over exact numbers.
    ///
    /// A sum is NULL where its count is 0; a rollup stores that count beside every sum that can be NULL.
    pub fn is_linear(&self) -> bool {
        let sums = matches!(
            self.function,
            AggregateFunction::Count | AggregateFunction::Sum
        );
        sums && !self.distinct
    }
}

/// A query inside an expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubQuery {
    /// What is made of its rows.
    pub kind: SubQueryKind,
    /// What computes them.
    pub query: Query,
    /// What it reads of the queries around it, in the order of the numbers of its [`Scalar::Outer`]s.
    pub outer: Vec<Scalar>,
    /// The type of its only column, as far as it is known.
    pub ty: Option<ColumnType>,
    /// Whether computing it may raise an error.
    pub raises: bool,
}

/// What is made of a sub-query's rows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SubQueryKind {
    /// The value of the only row.
    Value,
    /// Whether there are any.
    Exists,
    /// Whether the operand is among them.
    In {
        /// What is looked for.
        operand: Scalar,
        /// NOT IN.
        negated: bool,
    },
}

/// A call of a window function.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// Which function.
    pub function: WindowFunction,
    /// Its arguments.
    pub arguments: Vec<Scalar>,
    /// The condition of FILTER (WHERE …).
    pub filter: Option<Scalar>,
    /// PARTITION BY.
    pub partition_by: Vec<Scalar>,
    /// ORDER BY.
    pub order_by: Vec<OrderItem>,
    /// The frame clause, of keywords and numbers only.
    pub frame: Option<String>,
}

/// A function that may stand before OVER.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WindowFunction {
    /// An aggregate; `count` without argument is `count(*)`.
    Aggregate(AggregateFunction),
    /// One of PostgreSQL's own window functions.
    Own(&'static str),
}

impl WindowFunction {
    /// The function's name in pg_catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            WindowFunction::Aggregate(function) => function.as_str(),
            WindowFunction::Own(name) => name,
        }
    }
}

/// A type as a cast names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeName {
    /// The built-in type's spelling, for example `numeric(12,2)`.
    pub sql: String,
    /// Its identity, as far as it is known.
    pub oid: u32,
    /// Its modifier, -1 for none.
    pub typmod: i32,
}

impl TypeName {
    /// A built-in type without modifier.
    pub fn plain(sql: &str, oid: u32) -> Self {
        TypeName {
            sql: sql.to_owned(),
            oid,
            typmod: -1,
        }
    }
}

/// A parameter of the extended protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Parameter {
    /// The number behind the dollar sign.
    pub number: u32,
    /// The time that is bound to it, where that is known.
    pub time: Option<BoundTime>,
}

impl Parameter {
    /// The greatest number that PostgreSQL has for a parameter. Greater ones stand for constants that are left open.
    const NUMBER_MAX: u32 = 65_535;
    /// What stands around an open constant's position where it is printed: no text of PostgreSQL's has it.
    pub(crate) const OPEN_MARK: char = '\0';

    /// The number of `$n`; `None` if PostgreSQL has none of it.
    pub(crate) fn numbered(name: &str) -> Option<u32> {
        let number = name.strip_prefix('$')?.parse().ok()?;
        (1..=Parameter::NUMBER_MAX)
            .contains(&number)
            .then_some(number)
    }

    /// What stands for the statement's open constant at this position, from 0 on.
    pub(crate) fn open(position: usize) -> Parameter {
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        Parameter {
            number: position.saturating_add(Parameter::NUMBER_MAX + 1),
            time: None,
        }
    }

    /// The parameter as it is printed.
    pub(crate) fn print(&self) -> String {
        match self.number.checked_sub(Parameter::NUMBER_MAX + 1) {
            Some(position) => format!("{mark}{position}{mark}", mark = Parameter::OPEN_MARK),
            None => format!("${}", self.number),
        }
    }
}

/// A date or time that is bound to a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BoundTime {
    /// The parameter's type; 0 where PostgreSQL takes it from the parameter's surroundings, as that of a quoted text.
    pub oid: u32,
    /// The value as text, in ISO 8601.
    pub text: String,
}

/// A resolved expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Scalar {
    Column(ColumnRef),
    Literal(Literal),
    /// `$n` of the extended protocol.
    Parameter(Parameter),
    /// A built-in function of the list in `functions`.
    Call {
        name: &'static str,
        arguments: Vec<Scalar>,
    },
    Binary {
        op: BinaryOp,
        left: Box<Scalar>,
        right: Box<Scalar>,
    },
    Negate(Box<Scalar>),
    Not(Box<Scalar>),
    And(Vec<Scalar>),
    Or(Vec<Scalar>),
    IsNull {
        operand: Box<Scalar>,
        negated: bool,
    },
    IsTruth {
        operand: Box<Scalar>,
        truth: Truth,
        negated: bool,
    },
    IsDistinct {
        left: Box<Scalar>,
        right: Box<Scalar>,
        negated: bool,
    },
    In {
        operand: Box<Scalar>,
        list: Vec<Scalar>,
        negated: bool,
    },
    Like {
        operand: Box<Scalar>,
        pattern: Box<Scalar>,
        any_case: bool,
        negated: bool,
    },
    /// `operand op ANY (array)`, or `ALL`.
    Quantified {
        operand: Box<Scalar>,
        op: BinaryOp,
        all: bool,
        array: Box<Scalar>,
    },
    /// `ARRAY[…]`.
    Array(Vec<Scalar>),
    /// `operand ~ pattern`; the pattern is a literal.
    Regex {
        operand: Box<Scalar>,
        pattern: Box<Scalar>,
        any_case: bool,
        negated: bool,
    },
    Cast {
        operand: Box<Scalar>,
        to: TypeName,
    },
    Case {
        operand: Option<Box<Scalar>>,
        branches: Vec<(Scalar, Scalar)>,
        otherwise: Option<Box<Scalar>>,
    },
    /// `EXTRACT(field FROM operand)`; the field in lower case.
    Extract {
        field: String,
        operand: Box<Scalar>,
    },
    Aggregate(Box<Aggregate>),
    Window(Box<Window>),
    /// `GROUPING(…)`: which of these keys the row's grouping set leaves out.
    Grouping(Vec<Scalar>),
    SubQuery(Box<SubQuery>),
    /// Inside a sub-query, what it reads of the queries around it: its position in [`SubQuery::outer`].
    Outer(usize),
}

impl Scalar {
    /// `left op right`.
    pub fn binary(op: BinaryOp, left: Scalar, right: Scalar) -> Scalar {
        Scalar::Binary {
            op,
            left: Box::new(left),
            right: Box::new(right),
        }
    }

    /// An aggregate of one argument without DISTINCT.
    pub fn aggregate(
        function: AggregateFunction,
        argument: Scalar,
        filter: Option<Scalar>,
    ) -> Scalar {
        Scalar::Aggregate(Box::new(Aggregate {
            filter,
            ..Aggregate::plain(function, Some(argument))
        }))
    }

    /// `CAST(self AS to)`.
    pub fn cast(self, to: TypeName) -> Scalar {
        Scalar::Cast {
            operand: Box::new(self),
            to,
        }
    }

    /// `self IS NOT NULL`.
    pub fn is_not_null(self) -> Scalar {
        Scalar::IsNull {
            operand: Box::new(self),
            negated: true,
        }
    }
}

/// What each column's type is; the context in which a [`Scalar`] has a type.
pub trait ColumnTypes {
    /// The column's type.
    fn column_type(&self, column: ColumnRef) -> Option<ColumnType>;
    /// Whether the column can never be NULL where the expression is evaluated.
    fn is_not_null(&self, column: ColumnRef) -> bool;
    /// Whether the type is an enum.
    fn is_enum(&self, oid: u32) -> bool;
    /// Whether texts that are equal under the collation have the same bytes.
    fn is_deterministic(&self, collation: Oid) -> bool;
}
