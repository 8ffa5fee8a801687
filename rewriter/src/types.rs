//! Types of built-in expressions, as far as proofs need them.
//!
//! What is not listed has no known type here, and whoever needed the type refuses. Nothing rests on
//! a belief alone: PostgreSQL describes every rewritten statement before it is first used.

use crate::catalog::{ColumnType, Oid, UserNames};
use crate::expr::{
    Aggregate, AggregateFunction, BinaryOp, ColumnTypes, Literal, Scalar, SubQueryKind, Window,
    WindowFunction,
};
use crate::functions;

pub(crate) const BOOL: u32 = 16;
pub(crate) const INTERNAL_CHAR: u32 = 18;
pub(crate) const INT8: u32 = 20;
pub(crate) const INT2: u32 = 21;
pub(crate) const INT4: u32 = 23;
pub(crate) const TEXT: u32 = 25;
pub(crate) const OID: u32 = 26;
pub(crate) const FLOAT4: u32 = 700;
pub(crate) const FLOAT8: u32 = 701;
pub(crate) const BPCHAR: u32 = 1042;
pub(crate) const VARCHAR: u32 = 1043;
pub(crate) const DATE: u32 = 1082;
pub(crate) const TIME: u32 = 1083;
pub(crate) const TIMESTAMP: u32 = 1114;
pub(crate) const TIMESTAMPTZ: u32 = 1184;
pub(crate) const INTERVAL: u32 = 1186;
pub(crate) const NUMERIC: u32 = 1700;
pub(crate) const UUID: u32 = 2950;

/// The collation that text of no particular column has.
pub(crate) const DEFAULT_COLLATION: Oid = Oid(100);

/// The type without modifier, with the default collation where the type has one.
pub(crate) fn plain(oid: u32) -> ColumnType {
    let collation = if matches!(oid, TEXT | VARCHAR | BPCHAR) {
        DEFAULT_COLLATION
    } else {
        Oid(0)
    };
    ColumnType {
        oid: Oid(oid),
        typmod: -1,
        collation,
    }
}

pub(crate) fn is_integer(oid: Oid) -> bool {
    matches!(oid.0, INT2 | INT4 | INT8)
}

pub(crate) fn is_float(oid: Oid) -> bool {
    matches!(oid.0, FLOAT4 | FLOAT8)
}

/// Whether values of the type that compare equal also print equal, so that any one of them may stand
/// for its group: unconstrained numerics (1.0 and 1.00), floats (-0), intervals and the like do not.
pub(crate) fn is_byte_exact(ty: ColumnType, names: &UserNames) -> bool {
    if names.nondeterministic_collations.contains(&ty.collation) {
        return false;
    }
    match ty.oid.0 {
        BOOL | INTERNAL_CHAR | INT2 | INT4 | INT8 | TEXT | VARCHAR | OID | UUID => true,
        DATE | TIME | TIMESTAMP | TIMESTAMPTZ => true,
        NUMERIC | BPCHAR => ty.typmod >= 0,
        _ => names.enum_types.contains(&ty.oid),
    }
}

/// The type that PostgreSQL gives the expression, when this module knows it.
pub(crate) fn type_of(scalar: &Scalar, columns: &dyn ColumnTypes) -> Option<ColumnType> {
    match scalar {
        Scalar::Column(column) => columns.column_type(*column),
        Scalar::Literal(literal) => literal_type(literal),
        Scalar::Parameter(parameter) => {
            let bound = parameter.time.as_ref().filter(|time| time.oid != 0);
            bound.map(|time| plain(time.oid))
        }
        Scalar::Call { name, arguments } => call_type(name, arguments, columns),
        Scalar::Binary { op, left, right } => binary_type(*op, left, right, columns),
        Scalar::Negate(operand) => type_of(operand, columns).map(|ty| plain(ty.oid.0)),
        Scalar::Not(_) | Scalar::And(_) | Scalar::Or(_) | Scalar::IsNull { .. } => {
            Some(plain(BOOL))
        }
        Scalar::IsTruth { .. }
        | Scalar::IsDistinct { .. }
        | Scalar::In { .. }
        | Scalar::Like { .. }
        | Scalar::Regex { .. }
        | Scalar::Quantified { .. } => Some(plain(BOOL)),
        Scalar::Array(_) => None,
        Scalar::Cast { operand: _, to } => Some(ColumnType {
            typmod: to.typmod,
            ..plain(to.oid)
        }),
        Scalar::Case {
            operand: _,
            branches,
            otherwise,
        } => {
            let results = branches
                .iter()
                .map(|(_, result)| result)
                .chain(otherwise.as_deref());
            common_type(results, columns)
        }
        Scalar::Extract { .. } => Some(plain(NUMERIC)),
        Scalar::Aggregate(aggregate) if aggregate.function == AggregateFunction::Count => {
            Some(plain(INT8))
        }
        Scalar::Aggregate(aggregate) => {
            let argument = type_of(subject(aggregate)?, columns)?;
            aggregate_type(aggregate.function, argument, columns)
        }
        Scalar::Window(window) => window_type(window, columns),
        Scalar::Grouping(_) => Some(plain(INT4)),
        Scalar::Outer(_) => None,
        Scalar::SubQuery(sub_query) => match sub_query.kind {
            SubQueryKind::Value => sub_query.ty,
            SubQueryKind::Exists | SubQueryKind::In { .. } => Some(plain(BOOL)),
        },
    }
}

fn window_type(window: &Window, columns: &dyn ColumnTypes) -> Option<ColumnType> {
    let argument = window.arguments.first();
    match window.function {
        WindowFunction::Aggregate(AggregateFunction::Count) => Some(plain(INT8)),
        WindowFunction::Aggregate(function) => {
            aggregate_type(function, type_of(argument?, columns)?, columns)
        }
        WindowFunction::Own("row_number" | "rank" | "dense_rank") => Some(plain(INT8)),
        WindowFunction::Own("percent_rank" | "cume_dist") => Some(plain(FLOAT8)),
        WindowFunction::Own("ntile") => Some(plain(INT4)),
        // With a default value both are given one type.
        WindowFunction::Own(_) if window.arguments.len() <= 2 => type_of(argument?, columns),
        WindowFunction::Own(_) => None,
    }
}

/// What the aggregate aggregates: the value that WITHIN GROUP orders, or else the first argument.
pub(crate) fn subject(aggregate: &Aggregate) -> Option<&Scalar> {
    match aggregate.function.is_ordered_set() {
        true => aggregate.order_by.first().map(|item| &item.value),
        false => aggregate.argument.as_ref(),
    }
}

/// What the aggregate returns over values of this type, for those whose result does not depend on the
/// order of rows.
pub(crate) fn aggregate_type(
    function: AggregateFunction,
    argument: ColumnType,
    columns: &dyn ColumnTypes,
) -> Option<ColumnType> {
    use AggregateFunction::{
        ArrayAgg, Avg, BitAnd, BitOr, BoolAnd, BoolOr, Count, Max, Min, Mode, PercentileCont,
        PercentileDisc, StddevPop, StddevSamp, StringAgg, Sum, VarPop, VarSamp,
    };
    match (function, argument.oid.0) {
        (Count, _) => Some(plain(INT8)),
        (Sum, INT2 | INT4) => Some(plain(INT8)),
        (Sum, INT8 | NUMERIC) => Some(plain(NUMERIC)),
        (Avg | VarPop | VarSamp | StddevPop | StddevSamp, INT2 | INT4 | INT8 | NUMERIC) => {
            Some(plain(NUMERIC))
        }
        // Values of one scale that are equal print equal.
        (Min | Max, NUMERIC) if argument.typmod >= 0 => Some(plain(NUMERIC)),
        (Min | Max, oid) => extreme_type(argument, oid, columns),
        (BoolAnd | BoolOr, BOOL) => Some(plain(BOOL)),
        (BitAnd | BitOr, oid @ (INT2 | INT4 | INT8)) => Some(plain(oid)),
        (PercentileCont, INT2 | INT4 | INT8 | NUMERIC) => Some(plain(FLOAT8)),
        (PercentileDisc | Mode, _) => Some(ColumnType {
            typmod: -1,
            ..argument
        }),
        (StringAgg, TEXT | VARCHAR) => Some(plain(TEXT)),
        (ArrayAgg, oid) => array_of(oid).map(plain),
        (Sum | Avg | VarPop | VarSamp | StddevPop | StddevSamp, _) => None,
        (BoolAnd | BoolOr | BitAnd | BitOr | PercentileCont | StringAgg, _) => None,
    }
}

fn array_of(element: u32) -> Option<u32> {
    Some(match element {
        INT2 => 1005,
        INT4 => 1007,
        INT8 => 1016,
        TEXT => 1009,
        VARCHAR => 1015,
        DATE => 1182,
        TIMESTAMP => 1115,
        NUMERIC => 1231,
        _ => return None,
    })
}

/// `min` and `max` exist for text but not for varchar: PostgreSQL casts the argument.
fn extreme_type(argument: ColumnType, oid: u32, columns: &dyn ColumnTypes) -> Option<ColumnType> {
    match oid {
        INT2 | INT4 | INT8 | OID | DATE | TIME | TIMESTAMP | TIMESTAMPTZ => Some(plain(oid)),
        TEXT | VARCHAR => Some(ColumnType {
            collation: argument.collation,
            ..plain(TEXT)
        }),
        // Of one length, so that equal values have as many blanks.
        BPCHAR if argument.typmod >= 0 => Some(ColumnType {
            typmod: -1,
            ..argument
        }),
        _ => columns.is_enum(oid).then(|| plain(oid)),
    }
}

fn literal_type(literal: &Literal) -> Option<ColumnType> {
    match literal {
        Literal::Number(digits) if digits.parse::<i32>().is_ok() => Some(plain(INT4)),
        Literal::Number(digits) if digits.parse::<i64>().is_ok() => Some(plain(INT8)),
        Literal::Number(_) => Some(plain(NUMERIC)),
        Literal::Boolean(_) => Some(plain(BOOL)),
        Literal::Interval(_) => Some(plain(INTERVAL)),
        Literal::String(_) | Literal::Null => None,
    }
}

fn call_type(name: &str, arguments: &[Scalar], columns: &dyn ColumnTypes) -> Option<ColumnType> {
    match name {
        "date_trunc" => match type_of(arguments.get(1)?, columns)?.oid.0 {
            TIMESTAMP => Some(plain(TIMESTAMP)),
            // date_trunc has no date form: PostgreSQL casts a date to timestamptz.
            DATE | TIMESTAMPTZ => Some(plain(TIMESTAMPTZ)),
            _ => None,
        },
        "date_bin" => match type_of(arguments.get(1)?, columns)?.oid.0 {
            oid @ (TIMESTAMP | TIMESTAMPTZ) => Some(plain(oid)),
            _ => None,
        },
        "timezone" => match type_of(arguments.get(1)?, columns)?.oid.0 {
            TIMESTAMP => Some(plain(TIMESTAMPTZ)),
            TIMESTAMPTZ => Some(plain(TIMESTAMP)),
            _ => None,
        },
        "coalesce" | "greatest" | "least" => common_type(arguments.iter(), columns),
        "nullif" => type_of(arguments.first()?, columns),
        "abs" => type_of(arguments.first()?, columns).map(|ty| plain(ty.oid.0)),
        "ceil" | "ceiling" | "floor" | "round" | "trunc" => {
            match (type_of(arguments.first()?, columns)?.oid.0, arguments.len()) {
                (NUMERIC, 1) | (INT2 | INT4 | INT8 | NUMERIC, 2) => Some(plain(NUMERIC)),
                // There is none for integers: PostgreSQL prefers double precision.
                (INT2 | INT4 | INT8 | FLOAT4 | FLOAT8, 1) => Some(plain(FLOAT8)),
                _ => None,
            }
        }
        _ => functions::lookup(name)
            .and_then(|function| function.returns)
            .map(plain),
    }
}

/// The type of alternatives that all have one type or are numbers; anything else that PostgreSQL
/// would have to coerce is unknown here.
pub(crate) fn common_type<'a>(
    of: impl Iterator<Item = &'a Scalar>,
    columns: &dyn ColumnTypes,
) -> Option<ColumnType> {
    let is_null = |scalar: &&Scalar| **scalar == Scalar::Literal(Literal::Null);
    let (texts, others): (Vec<&Scalar>, Vec<&Scalar>) = of
        .filter(|scalar| !is_null(scalar))
        .partition(|scalar| matches!(scalar, Scalar::Literal(Literal::String(_))));
    let types = others
        .iter()
        .map(|scalar| type_of(scalar, columns))
        .collect::<Option<Vec<ColumnType>>>()?;
    let Some((first, others)) = types.split_first() else {
        return (!texts.is_empty()).then(|| plain(TEXT));
    };
    if others.iter().all(|other| other == first) {
        // A quoted constant takes the others' type, without its modifier.
        return Some(if texts.is_empty() {
            *first
        } else {
            ColumnType {
                typmod: -1,
                ..*first
            }
        });
    }
    others
        .iter()
        .try_fold(first.oid.0, |widest, other| {
            common_number(widest, other.oid.0)
        })
        .map(plain)
}

fn binary_type(
    op: BinaryOp,
    left: &Scalar,
    right: &Scalar,
    columns: &dyn ColumnTypes,
) -> Option<ColumnType> {
    if op.is_comparison() {
        return Some(plain(BOOL));
    }
    if op == BinaryOp::Concat {
        return concat_type(left, right, columns);
    }
    let (left, right) = (
        type_of(left, columns)?.oid.0,
        type_of(right, columns)?.oid.0,
    );
    let oid = match (op, left, right) {
        (BinaryOp::Plus | BinaryOp::Minus, DATE, INT2 | INT4) => DATE,
        (BinaryOp::Plus, INT2 | INT4, DATE) => DATE,
        (BinaryOp::Minus, DATE, DATE) => INT4,
        (BinaryOp::Plus | BinaryOp::Minus, TIMESTAMP | DATE, INTERVAL) => TIMESTAMP,
        (BinaryOp::Plus, INTERVAL, TIMESTAMP | DATE) => TIMESTAMP,
        (BinaryOp::Plus | BinaryOp::Minus, TIMESTAMPTZ, INTERVAL) => TIMESTAMPTZ,
        (BinaryOp::Plus, INTERVAL, TIMESTAMPTZ) => TIMESTAMPTZ,
        (BinaryOp::Multiply, INTERVAL, INT2 | INT4 | INT8 | NUMERIC | FLOAT8) => INTERVAL,
        (BinaryOp::Multiply, INT2 | INT4 | INT8 | NUMERIC | FLOAT8, INTERVAL) => INTERVAL,
        (
            BinaryOp::Plus | BinaryOp::Minus | BinaryOp::Multiply | BinaryOp::Divide,
            FLOAT8 | INT2 | INT4 | INT8 | NUMERIC,
            FLOAT8,
        )
        | (
            BinaryOp::Plus | BinaryOp::Minus | BinaryOp::Multiply | BinaryOp::Divide,
            FLOAT8,
            INT2 | INT4 | INT8 | NUMERIC,
        ) => FLOAT8,
        _ => wider_number(left, right)?,
    };
    Some(plain(oid))
}

/// `||` with a text on one side makes a text; without one it may be that of arrays, bits or JSON.
fn concat_type(left: &Scalar, right: &Scalar, columns: &dyn ColumnTypes) -> Option<ColumnType> {
    let is_text = |scalar: &Scalar| {
        type_of(scalar, columns).is_some_and(|ty| matches!(ty.oid.0, TEXT | VARCHAR | BPCHAR))
    };
    let is_joined = |scalar: &Scalar| match scalar {
        Scalar::Literal(Literal::String(_)) => true,
        other => type_of(other, columns).is_some_and(|ty| {
            matches!(
                ty.oid.0,
                TEXT | VARCHAR | BPCHAR | BOOL | INT2 | INT4 | INT8
            )
        }),
    };
    let makes_text = (is_text(left) || is_text(right)) && is_joined(left) && is_joined(right);
    makes_text.then(|| plain(TEXT))
}

/// The type of numbers that are computed with one another, floating-point ones aside.
fn wider_number(left: u32, right: u32) -> Option<u32> {
    let common = common_number(left, right)?;
    (!is_float(Oid(common))).then_some(common)
}

/// The type that numbers are all given where they stand for one another.
fn common_number(left: u32, right: u32) -> Option<u32> {
    const BY_WIDTH: [u32; 6] = [INT2, INT4, INT8, NUMERIC, FLOAT4, FLOAT8];
    let rank = |oid: u32| BY_WIDTH.iter().position(|candidate| *candidate == oid);
    BY_WIDTH.get(rank(left)?.max(rank(right)?)).copied()
}

/// Whether the expression can never be NULL, given which columns cannot.
pub(crate) fn is_not_null(scalar: &Scalar, columns: &dyn ColumnTypes) -> bool {
    match scalar {
        Scalar::Column(column) => columns.is_not_null(*column),
        Scalar::Literal(literal) => *literal != Literal::Null,
        Scalar::Binary {
            op: BinaryOp::Plus | BinaryOp::Minus | BinaryOp::Multiply,
            left,
            right,
        } => is_not_null(left, columns) && is_not_null(right, columns),
        Scalar::Negate(operand) => is_not_null(operand, columns),
        _ => false,
    }
}
