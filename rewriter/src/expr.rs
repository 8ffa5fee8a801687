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

    /// For a comparison, the operator that is TRUE where this one is FALSE, and NULL where it is NULL.
    fn negated(self) -> Option<BinaryOp> {
        match self {
            BinaryOp::Equal => Some(BinaryOp::NotEqual),
            BinaryOp::NotEqual => Some(BinaryOp::Equal),
            BinaryOp::Less => Some(BinaryOp::GreaterOrEqual),
            BinaryOp::LessOrEqual => Some(BinaryOp::Greater),
            BinaryOp::Greater => Some(BinaryOp::LessOrEqual),
            BinaryOp::GreaterOrEqual => Some(BinaryOp::Less),
            BinaryOp::Plus | BinaryOp::Minus | BinaryOp::Multiply => None,
            BinaryOp::Divide | BinaryOp::Modulo | BinaryOp::Concat => None,
        }
    }

    fn commutes(self) -> bool {
        matches!(self, BinaryOp::Plus | BinaryOp::Multiply)
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
    VarPop,
    VarSamp,
    // From here on: only of use at the very grain at which it was computed.
    StddevPop,
    StddevSamp,
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

    /// The same over other operands, in the order of [`Scalar::children`].
    fn try_map<E>(
        &self,
        change: &mut dyn FnMut(&Scalar) -> Result<Scalar, E>,
    ) -> Result<Aggregate, E> {
        let argument = self.argument.as_ref().map(&mut *change).transpose()?;
        let more = self.more_arguments.iter().map(&mut *change);
        let more_arguments = more.collect::<Result<_, E>>()?;
        let mut item = |item: &OrderItem| {
            Ok(OrderItem {
                value: change(&item.value)?,
                ..*item
            })
        };
        let order_by = self
            .order_by
            .iter()
            .map(&mut item)
            .collect::<Result<_, E>>()?;
        Ok(Aggregate {
            function: self.function,
            argument,
            more_arguments,
            distinct: self.distinct,
            order_by,
            filter: self.filter.as_ref().map(change).transpose()?,
        })
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

/// A resolved expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Scalar {
    Column(ColumnRef),
    Literal(Literal),
    /// `$n` of the extended protocol.
    Parameter(u32),
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

    /// The conjuncts of a condition, nested ANDs flattened and NOT taken into OR, as PostgreSQL's planner does.
    pub fn into_conjuncts(self) -> Vec<Scalar> {
        match self {
            Scalar::And(parts) => parts.into_iter().flat_map(Scalar::into_conjuncts).collect(),
            Scalar::Not(negated) => match *negated {
                Scalar::Not(operand) => operand.into_conjuncts(),
                Scalar::Or(cases) => cases
                    .into_iter()
                    .flat_map(|case| Scalar::Not(Box::new(case)).into_conjuncts())
                    .collect(),
                other => vec![Scalar::Not(Box::new(other))],
            },
            other => vec![other],
        }
    }

    /// The operands, in order.
    pub fn children(&self) -> Vec<&Scalar> {
        match self {
            Scalar::Column(_) | Scalar::Literal(_) | Scalar::Parameter(_) | Scalar::Outer(_) => {
                vec![]
            }
            Scalar::Call { name: _, arguments } => arguments.iter().collect(),
            Scalar::Binary { op: _, left, right }
            | Scalar::IsDistinct {
                left,
                right,
                negated: _,
            } => vec![left, right],
            Scalar::Negate(operand) | Scalar::Not(operand) => vec![operand],
            Scalar::And(parts) | Scalar::Or(parts) => parts.iter().collect(),
            Scalar::IsNull {
                operand,
                negated: _,
            } => vec![operand],
            Scalar::IsTruth {
                operand,
                truth: _,
                negated: _,
            } => vec![operand],
            Scalar::In {
                operand,
                list,
                negated: _,
            } => std::iter::once(&**operand).chain(list).collect(),
            Scalar::Regex {
                operand,
                pattern,
                any_case: _,
                negated: _,
            } => vec![operand, pattern],
            Scalar::Quantified {
                operand,
                op: _,
                all: _,
                array,
            } => vec![operand, array],
            Scalar::Array(elements) => elements.iter().collect(),
            Scalar::Like {
                operand,
                pattern,
                any_case: _,
                negated: _,
            } => vec![operand, pattern],
            Scalar::Cast { operand, to: _ } | Scalar::Extract { field: _, operand } => {
                vec![operand]
            }
            Scalar::Case {
                operand,
                branches,
                otherwise,
            } => {
                let branches = branches
                    .iter()
                    .flat_map(|(condition, result)| [condition, result]);
                operand
                    .as_deref()
                    .into_iter()
                    .chain(branches)
                    .chain(otherwise.as_deref())
                    .collect()
            }
            Scalar::Aggregate(aggregate) => aggregate
                .argument
                .iter()
                .chain(&aggregate.more_arguments)
                .chain(aggregate.order_by.iter().map(|item| &item.value))
                .chain(&aggregate.filter)
                .collect(),
            Scalar::Window(window) => {
                let order = window.order_by.iter().map(|item| &item.value);
                let arguments = window.arguments.iter().chain(&window.filter);
                arguments.chain(&window.partition_by).chain(order).collect()
            }
            Scalar::Grouping(keys) => keys.iter().collect(),
            Scalar::SubQuery(sub_query) => {
                let operand = match &sub_query.kind {
                    SubQueryKind::In {
                        operand,
                        negated: _,
                    } => Some(operand),
                    SubQueryKind::Value | SubQueryKind::Exists => None,
                };
                operand.into_iter().chain(&sub_query.outer).collect()
            }
        }
    }

    /// The same node over other operands; `change` is asked for each operand in order, and its first refusal ends it.
    pub fn try_map_children<E>(
        &self,
        change: &mut dyn FnMut(&Scalar) -> Result<Scalar, E>,
    ) -> Result<Scalar, E> {
        let mut boxed = |scalar: &Scalar| change(scalar).map(Box::new);
        Ok(match self {
            Scalar::Column(_) | Scalar::Literal(_) | Scalar::Parameter(_) | Scalar::Outer(_) => {
                self.clone()
            }
            Scalar::Call { name, arguments } => Scalar::Call {
                name,
                arguments: arguments.iter().map(change).collect::<Result<_, E>>()?,
            },
            Scalar::Binary { op, left, right } => Scalar::Binary {
                op: *op,
                left: boxed(left)?,
                right: boxed(right)?,
            },
            Scalar::Negate(operand) => Scalar::Negate(boxed(operand)?),
            Scalar::Not(operand) => Scalar::Not(boxed(operand)?),
            Scalar::And(parts) => Scalar::And(parts.iter().map(change).collect::<Result<_, E>>()?),
            Scalar::Or(parts) => Scalar::Or(parts.iter().map(change).collect::<Result<_, E>>()?),
            Scalar::IsNull { operand, negated } => Scalar::IsNull {
                operand: boxed(operand)?,
                negated: *negated,
            },
            Scalar::IsTruth {
                operand,
                truth,
                negated,
            } => Scalar::IsTruth {
                operand: boxed(operand)?,
                truth: *truth,
                negated: *negated,
            },
            Scalar::IsDistinct {
                left,
                right,
                negated,
            } => Scalar::IsDistinct {
                left: boxed(left)?,
                right: boxed(right)?,
                negated: *negated,
            },
            Scalar::In {
                operand,
                list,
                negated,
            } => Scalar::In {
                operand: boxed(operand)?,
                list: list.iter().map(change).collect::<Result<_, E>>()?,
                negated: *negated,
            },
            Scalar::Regex {
                operand,
                pattern,
                any_case,
                negated,
            } => Scalar::Regex {
                operand: boxed(operand)?,
                pattern: boxed(pattern)?,
                any_case: *any_case,
                negated: *negated,
            },
            Scalar::Quantified {
                operand,
                op,
                all,
                array,
            } => Scalar::Quantified {
                operand: boxed(operand)?,
                op: *op,
                all: *all,
                array: boxed(array)?,
            },
            Scalar::Array(elements) => {
                Scalar::Array(elements.iter().map(change).collect::<Result<_, E>>()?)
            }
            Scalar::Like {
                operand,
                pattern,
                any_case,
                negated,
            } => Scalar::Like {
                operand: boxed(operand)?,
                pattern: boxed(pattern)?,
                any_case: *any_case,
                negated: *negated,
            },
            Scalar::Cast { operand, to } => Scalar::Cast {
                operand: boxed(operand)?,
                to: to.clone(),
            },
            Scalar::Case {
                operand,
                branches,
                otherwise,
            } => Scalar::Case {
                operand: operand.as_deref().map(&mut boxed).transpose()?,
                branches: branches
                    .iter()
                    .map(|(condition, result)| Ok((*boxed(condition)?, *boxed(result)?)))
                    .collect::<Result<_, E>>()?,
                otherwise: otherwise.as_deref().map(&mut boxed).transpose()?,
            },
            Scalar::Extract { field, operand } => Scalar::Extract {
                field: field.clone(),
                operand: boxed(operand)?,
            },
            Scalar::Aggregate(aggregate) => Scalar::Aggregate(Box::new(aggregate.try_map(change)?)),
            Scalar::Window(window) => Scalar::Window(Box::new(window.try_map(change)?)),
            Scalar::Grouping(keys) => {
                Scalar::Grouping(keys.iter().map(change).collect::<Result<_, E>>()?)
            }
            Scalar::SubQuery(sub_query) => Scalar::SubQuery(Box::new(SubQuery {
                kind: match &sub_query.kind {
                    SubQueryKind::In { operand, negated } => SubQueryKind::In {
                        operand: change(operand)?,
                        negated: *negated,
                    },
                    other => other.clone(),
                },
                outer: sub_query
                    .outer
                    .iter()
                    .map(change)
                    .collect::<Result<_, E>>()?,
                ..(**sub_query).clone()
            })),
        })
    }

    /// The same expression with every column replaced.
    pub fn map_columns(&self, replace: &dyn Fn(ColumnRef) -> ColumnRef) -> Scalar {
        match self {
            Scalar::Column(column) => Scalar::Column(replace(*column)),
            other => {
                infallible(other.try_map_children(&mut |child| Ok(child.map_columns(replace))))
            }
        }
    }

    /// Calls `visit` on this node and everything below it, parents first.
    pub fn walk<'a>(&'a self, visit: &mut dyn FnMut(&'a Scalar)) {
        visit(self);
        for child in self.children() {
            child.walk(visit);
        }
    }

    /// Whether any node satisfies `test`.
    pub fn any(&self, test: &dyn Fn(&Scalar) -> bool) -> bool {
        test(self) || self.children().into_iter().any(|child| child.any(test))
    }

    /// Every column in it, repeated as often as it occurs.
    pub fn columns(&self) -> Vec<ColumnRef> {
        let mut columns = Vec::new();
        self.walk(&mut |scalar| {
            if let Scalar::Column(column) = scalar {
                columns.push(*column);
            }
        });
        columns
    }

    /// Whether it contains an aggregate.
    pub fn has_aggregate(&self) -> bool {
        self.any(&|scalar| matches!(scalar, Scalar::Aggregate(_)))
    }

    /// Whether it contains a window function.
    pub fn has_window(&self) -> bool {
        self.any(&|scalar| matches!(scalar, Scalar::Window(_)))
    }

    /// Whether it reads something of the queries around its own.
    pub fn has_outer(&self) -> bool {
        self.any(&|scalar| matches!(scalar, Scalar::Outer(_)))
    }

    /// Whether it contains a query.
    pub fn has_sub_query(&self) -> bool {
        self.any(&|scalar| matches!(scalar, Scalar::SubQuery(_)))
    }

    /// Whether it is known without looking at any row.
    pub fn is_constant(&self) -> bool {
        !self.any(&|scalar| {
            matches!(
                scalar,
                Scalar::Column(_)
                    | Scalar::Aggregate(_)
                    | Scalar::Window(_)
                    | Scalar::SubQuery(_)
                    | Scalar::Outer(_)
            )
        })
    }

    /// The opposite test: TRUE and FALSE change places, and NULL stays.
    fn opposite(&self) -> Option<Scalar> {
        let mut opposite = self.clone();
        match &mut opposite {
            Scalar::IsNull { negated, .. }
            | Scalar::IsTruth { negated, .. }
            | Scalar::IsDistinct { negated, .. }
            | Scalar::In { negated, .. }
            | Scalar::Like { negated, .. }
            | Scalar::Regex { negated, .. } => *negated = !*negated,
            Scalar::Not(operand) => return Some((**operand).clone()),
            Scalar::Binary { op, .. } => *op = op.negated()?,
            Scalar::And(parts) => return Some(Scalar::Or(opposites(parts))),
            Scalar::Or(parts) => return Some(Scalar::And(opposites(parts))),
            _ => return None,
        }
        Some(opposite)
    }

    /// A form in which operands that commute stand in one order and repetitions are gone, so that
    /// equal meanings that differ only in that compare equal.
    pub fn canonical(&self) -> Scalar {
        let mut canonical = infallible(self.try_map_children(&mut |child| Ok(child.canonical())));
        if let Scalar::Not(operand) = &canonical
            && let Some(opposite) = operand.opposite()
        {
            return opposite.canonical();
        }
        if let Scalar::IsDistinct { left, right, .. } = &mut canonical
            && left > right
        {
            std::mem::swap(left, right);
        }
        match &mut canonical {
            Scalar::And(parts) => {
                let nested = std::mem::take(parts).into_iter();
                *parts = nested.flat_map(Scalar::into_conjuncts).collect();
                parts.sort();
                parts.dedup();
                if let [only] = parts.as_slice() {
                    return only.clone();
                }
            }
            Scalar::Or(parts) => {
                let nested = std::mem::take(parts).into_iter();
                let cases = nested.flat_map(|part| match part {
                    Scalar::Or(parts) => parts,
                    other => vec![other],
                });
                *parts = cases.collect();
                parts.sort();
                parts.dedup();
                if let [only] = parts.as_slice() {
                    return only.clone();
                }
            }
            Scalar::In {
                operand,
                list,
                negated,
            } => {
                // PostgreSQL reads a list of one as a comparison, but types longer lists as a whole.
                let is_comparison = list.len() == 1;
                list.sort();
                list.dedup();
                if let ([only], true) = (list.as_slice(), is_comparison) {
                    let op = if *negated {
                        BinaryOp::NotEqual
                    } else {
                        BinaryOp::Equal
                    };
                    return Scalar::binary(op, (**operand).clone(), only.clone()).canonical();
                }
            }
            Scalar::Binary { op, left, right } => {
                let turned = op.mirrored().or(op.commutes().then_some(*op));
                if let Some(turned) = turned.filter(|_| left > right) {
                    *op = turned;
                    std::mem::swap(left, right);
                }
            }
            _ => {}
        }
        canonical
    }
}

fn opposites(parts: &[Scalar]) -> Vec<Scalar> {
    let opposite = |part: &Scalar| Scalar::Not(Box::new(part.clone())).canonical();
    parts.iter().map(opposite).collect()
}

impl Window {
    fn try_map<E>(
        &self,
        change: &mut dyn FnMut(&Scalar) -> Result<Scalar, E>,
    ) -> Result<Window, E> {
        let arguments = self.arguments.iter().map(&mut *change);
        let arguments = arguments.collect::<Result<_, E>>()?;
        let filter = self.filter.as_ref().map(&mut *change).transpose()?;
        let partition_by = self.partition_by.iter().map(&mut *change);
        let partition_by = partition_by.collect::<Result<_, E>>()?;
        let order_item = |item: &OrderItem| {
            Ok(OrderItem {
                value: change(&item.value)?,
                ..item.clone()
            })
        };
        let order_by = self.order_by.iter().map(order_item);
        Ok(Window {
            function: self.function,
            arguments,
            filter,
            partition_by,
            order_by: order_by.collect::<Result<_, E>>()?,
            frame: self.frame.clone(),
        })
    }
}

/// Unwraps the result of a mapping that cannot refuse.
fn infallible(result: Result<Scalar, std::convert::Infallible>) -> Scalar {
    match result {
        Ok(scalar) => scalar,
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
