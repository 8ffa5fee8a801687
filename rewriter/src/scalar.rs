//! From sqlparser's expressions to [`Scalar`]: names resolved, anything not understood refused.
//!
//! Every node is destructured in full, so that syntax which a newer parser adds stops the build. A
//! wildcard arm here may only refuse.

use sqlparser::ast::{
    Array, BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DateTimeField, Expr, Ident,
    NamedWindowDefinition, TypedString, UnaryOperator, Value, ValueWithSpan,
};

use crate::catalog::UserNames;
use crate::expr::{BinaryOp, Literal, Parameter, Scalar, Truth};
use crate::literal;
use crate::place::Place;
use crate::reason::{Code, Reason};
use crate::scope::{Scope, fold, unknown};
use crate::type_name::data_type;

/// Longest piece of SQL that a refusal quotes, in characters.
const QUOTED_CHARACTERS_MAX: usize = 80;

/// Whether aggregates may stand here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregates {
    Allowed,
    Refused,
}

/// Resolves expressions at one place of a statement.
#[derive(Clone, Copy)]
pub(crate) struct Resolver<'a> {
    pub(crate) scope: &'a Scope,
    pub(crate) place: &'a Place<'a>,
    pub(crate) aggregates: Aggregates,
    /// The WINDOW clause; where window functions are not allowed it is empty.
    pub(crate) windows: &'a [NamedWindowDefinition],
}

pub(crate) type Resolved = Result<Scalar, Reason>;

impl<'a> Resolver<'a> {
    /// A resolver where no windows are named.
    pub(crate) fn new(scope: &'a Scope, place: &'a Place<'a>, aggregates: Aggregates) -> Self {
        Resolver {
            scope,
            place,
            aggregates,
            windows: &[],
        }
    }

    pub(crate) fn user_names(&self) -> &'a UserNames {
        self.place.names.catalog.user_names()
    }

    fn parameter(&self, name: &str) -> Resolved {
        let Some(number) = Parameter::numbered(name) else {
            return Err(Reason::new(Code::UnsupportedExpression, name));
        };
        let position = usize::try_from(number)
            .unwrap_or(usize::MAX)
            .wrapping_sub(1);
        let time = self.place.names.bound.get(position).cloned().flatten();
        Ok(Scalar::Parameter(Parameter { number, time }))
    }

    fn column(&self, parts: &[Ident]) -> Resolved {
        let names = parts.iter().map(fold).collect::<Result<Vec<_>, _>>()?;
        match (self.scope.column(&names)?, &self.place.around) {
            (Some(value), _) => Ok(value),
            (None, Some(around)) => around.capture(&names),
            (None, None) => Err(unknown(&names)),
        }
    }

    /// The expression with names resolved.
    pub(crate) fn scalar(&self, expr: &Expr) -> Resolved {
        let unsupported = || Err(unsupported(expr));
        match expr {
            Expr::Identifier(ident) if is_special_name(ident) => unsupported(),
            Expr::Identifier(ident) => self.column(std::slice::from_ref(ident)),
            Expr::CompoundIdentifier(parts) => self.column(parts),
            Expr::Nested(inner) => self.scalar(inner),
            Expr::Value(ValueWithSpan {
                value: Value::Placeholder(name),
                span: _,
            }) => self.parameter(name),
            Expr::Value(ValueWithSpan { value, span: _ }) => literal::value(value),
            Expr::TypedString(TypedString {
                data_type: ty,
                value,
                uses_odbc_syntax: false,
            }) => match &value.value {
                Value::SingleQuotedString(text) => {
                    Ok(Scalar::Literal(Literal::String(text.clone())).cast(data_type(ty)?))
                }
                _ => unsupported(),
            },
            Expr::Interval(interval) => {
                literal::interval(interval).ok_or_else(|| self::unsupported(expr))
            }
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right, expr),
            Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => Ok(Scalar::Not(Box::new(self.scalar(expr)?))),
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } => Ok(Scalar::Negate(Box::new(self.primary(expr)?))),
            Expr::UnaryOp {
                op: UnaryOperator::Plus,
                expr,
            } => self.primary(expr),
            Expr::IsNull(operand) => self.is_null(operand, false),
            Expr::IsNotNull(operand) => self.is_null(operand, true),
            Expr::IsUnknown(operand) => self.is_null(operand, false),
            Expr::IsNotUnknown(operand) => self.is_null(operand, true),
            // `= ANY (…)` is IN, and `<> ALL (…)` is NOT IN.
            Expr::AnyOp {
                left,
                compare_op: BinaryOperator::Eq,
                right,
                is_some: _,
            } if let Expr::Subquery(query) = &**right => self.in_query(left, query, false),
            Expr::AllOp {
                left,
                compare_op: BinaryOperator::NotEq,
                right,
            } if let Expr::Subquery(query) = &**right => self.in_query(left, query, true),
            Expr::AnyOp {
                left,
                compare_op,
                right,
                is_some: _,
            } => self.quantified(left, compare_op, right, false, expr),
            Expr::AllOp {
                left,
                compare_op,
                right,
            } => self.quantified(left, compare_op, right, true, expr),
            Expr::Position {
                expr: searched,
                r#in: text,
            } => self.call("strpos", &[text, searched]),
            Expr::IsTrue(operand) => self.is_truth(operand, Truth::True, false),
            Expr::IsNotTrue(operand) => self.is_truth(operand, Truth::True, true),
            Expr::IsFalse(operand) => self.is_truth(operand, Truth::False, false),
            Expr::IsNotFalse(operand) => self.is_truth(operand, Truth::False, true),
            Expr::IsDistinctFrom(left, right) => self.is_distinct(left, right, false),
            Expr::IsNotDistinctFrom(left, right) => self.is_distinct(left, right, true),
            Expr::InList {
                expr: operand,
                list,
                negated,
            } => {
                self.operators(&["=", "<>"])?;
                if let Expr::Tuple(row) = &**operand {
                    let rows = list.iter().map(|item| self.equal_rows(row, item));
                    let any = Scalar::Or(rows.collect::<Result<_, _>>()?);
                    return Ok(match negated {
                        false => any,
                        true => Scalar::Not(Box::new(any)),
                    });
                }
                let operand = Box::new(self.operand(operand)?);
                let list = list
                    .iter()
                    .map(|item| self.scalar(item))
                    .collect::<Result<_, _>>()?;
                Ok(Scalar::In {
                    operand,
                    list,
                    negated: *negated,
                })
            }
            Expr::Between {
                expr: operand,
                negated,
                low,
                high,
            } => self.between(operand, low, high, *negated),
            Expr::Like {
                negated,
                any: false,
                expr: operand,
                pattern,
                escape_char: None,
            } => self.like(operand, pattern, false, *negated),
            Expr::ILike {
                negated,
                any: false,
                expr: operand,
                pattern,
                escape_char: None,
            } => self.like(operand, pattern, true, *negated),
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                expr: operand,
                data_type: ty,
                format: None,
            } => Ok(self.scalar(operand)?.cast(data_type(ty)?)),
            Expr::Case {
                case_token: _,
                end_token: _,
                operand,
                conditions,
                else_result,
            } => self.case(operand.as_deref(), conditions, else_result.as_deref()),
            Expr::Extract {
                field,
                syntax: _,
                expr: operand,
            } => {
                let field = literal::extract_field(field).ok_or_else(|| self::unsupported(expr))?;
                self.function_name("extract")?;
                Ok(Scalar::Extract {
                    field,
                    operand: Box::new(self.scalar(operand)?),
                })
            }
            Expr::Ceil {
                expr: operand,
                field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => self.call("ceil", &[operand]),
            Expr::Floor {
                expr: operand,
                field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => self.call("floor", &[operand]),
            Expr::Substring {
                expr: operand,
                substring_from: Some(from),
                substring_for,
                special: _,
                shorthand,
            } => {
                let arguments: Vec<&Expr> =
                    [Some(&**operand), Some(from), substring_for.as_deref()]
                        .into_iter()
                        .flatten()
                        .collect();
                self.call(if *shorthand { "substr" } else { "substring" }, &arguments)
            }
            Expr::Trim {
                trim_where: None,
                trim_what: None,
                expr: operand,
                trim_characters: None,
            } => self.call("btrim", &[operand]),
            Expr::AtTimeZone {
                timestamp,
                time_zone,
            } => match &**time_zone {
                Expr::Value(ValueWithSpan {
                    value: Value::SingleQuotedString(_),
                    span: _,
                }) => self.at_time_zone(timestamp, time_zone),
                _ => unsupported(),
            },
            Expr::Function(function) => self.function(function),
            Expr::Exists { subquery, negated } => self.exists(subquery, *negated),
            Expr::InSubquery {
                expr: operand,
                subquery,
                negated,
            } => self.in_query(operand, subquery, *negated),
            Expr::Subquery(query) => self.value_of(query),
            Expr::GroupingSets(_) | Expr::Cube(_) | Expr::Rollup(_) => {
                Err(Reason::new(Code::GroupingSets, quoted(expr)))
            }
            _ => unsupported(),
        }
    }

    fn binary(&self, left: &Expr, op: &BinaryOperator, right: &Expr, whole: &Expr) -> Resolved {
        let op = match op {
            BinaryOperator::And => {
                return self.junction(whole, &BinaryOperator::And).map(Scalar::And);
            }
            BinaryOperator::Or => return self.junction(whole, &BinaryOperator::Or).map(Scalar::Or),
            BinaryOperator::Plus => BinaryOp::Plus,
            BinaryOperator::Minus => BinaryOp::Minus,
            BinaryOperator::Multiply => BinaryOp::Multiply,
            BinaryOperator::Divide => BinaryOp::Divide,
            BinaryOperator::Modulo => BinaryOp::Modulo,
            BinaryOperator::StringConcat => BinaryOp::Concat,
            BinaryOperator::Eq => BinaryOp::Equal,
            BinaryOperator::NotEq => BinaryOp::NotEqual,
            BinaryOperator::Lt => BinaryOp::Less,
            BinaryOperator::LtEq => BinaryOp::LessOrEqual,
            BinaryOperator::Gt => BinaryOp::Greater,
            BinaryOperator::GtEq => BinaryOp::GreaterOrEqual,
            BinaryOperator::PGRegexMatch => return self.regex(left, right, false, false),
            BinaryOperator::PGRegexIMatch => return self.regex(left, right, true, false),
            BinaryOperator::PGRegexNotMatch => return self.regex(left, right, false, true),
            BinaryOperator::PGRegexNotIMatch => return self.regex(left, right, true, true),
            _ => return Err(unsupported(whole)),
        };
        self.operators(&[op.as_str()])?;
        let mixes_concat = |operand: &Expr| op == BinaryOp::Concat && is_arithmetic(operand);
        if mixes_concat(left) || mixes_concat(right) {
            return Err(unsupported(whole));
        }
        Ok(Scalar::binary(
            op,
            self.operand(left)?,
            self.operand(right)?,
        ))
    }

    /// The operands of a chain of ANDs or ORs: a loop over its left spine, which may be long.
    fn junction(&self, whole: &Expr, op: &BinaryOperator) -> Result<Vec<Scalar>, Reason> {
        let mut parts = Vec::new();
        let mut rest = whole;
        loop {
            match rest {
                Expr::BinaryOp {
                    left,
                    op: this,
                    right,
                } if this == op => {
                    parts.push(self.scalar(right)?);
                    rest = left;
                }
                first => {
                    parts.push(self.scalar(first)?);
                    parts.reverse();
                    return Ok(parts);
                }
            }
        }
    }

    /// An operand of a comparison, LIKE, IN or IS. Where another such operator stands there without
    /// parentheses, PostgreSQL and sqlparser need not agree on what binds tighter.
    pub(crate) fn operand(&self, expr: &Expr) -> Resolved {
        if is_boolean_operator(expr) {
            Err(unsupported(expr))
        } else {
            self.scalar(expr)
        }
    }

    /// The operand of a sign: something that no precedence can split.
    fn primary(&self, expr: &Expr) -> Resolved {
        match expr {
            Expr::Value(_)
            | Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::Nested(_)
            | Expr::Function(_) => self.scalar(expr),
            _ => Err(unsupported(expr)),
        }
    }

    /// `(a, b) = (1, 2)` is `a = 1 AND b = 2`, as PostgreSQL's own parser has it.
    fn equal_rows(&self, row: &[Expr], other: &Expr) -> Resolved {
        let Expr::Tuple(other) = other else {
            return Err(unsupported(other));
        };
        if row.len() != other.len() || row.len() < 2 {
            return Err(unsupported(&Expr::Tuple(row.to_vec())));
        }
        let pairs = row.iter().zip(other).map(|(left, right)| {
            let (left, right) = (self.operand(left)?, self.operand(right)?);
            Ok(Scalar::binary(BinaryOp::Equal, left, right))
        });
        pairs.collect::<Result<_, Reason>>().map(Scalar::And)
    }

    /// PostgreSQL's own name for AT TIME ZONE is the function `timezone`.
    fn at_time_zone(&self, timestamp: &Expr, time_zone: &Expr) -> Resolved {
        self.function_name("timezone")?;
        let operand = match timestamp {
            Expr::Cast { .. } | Expr::AtTimeZone { .. } => self.scalar(timestamp)?,
            other => self.primary(other)?,
        };
        Ok(Scalar::Call {
            name: "timezone",
            arguments: vec![self.scalar(time_zone)?, operand],
        })
    }

    fn is_null(&self, operand: &Expr, negated: bool) -> Resolved {
        Ok(Scalar::IsNull {
            operand: Box::new(self.operand(operand)?),
            negated,
        })
    }

    fn is_truth(&self, operand: &Expr, truth: Truth, negated: bool) -> Resolved {
        Ok(Scalar::IsTruth {
            operand: Box::new(self.operand(operand)?),
            truth,
            negated,
        })
    }

    fn is_distinct(&self, left: &Expr, right: &Expr, negated: bool) -> Resolved {
        self.operators(&["="])?;
        Ok(Scalar::IsDistinct {
            left: Box::new(self.operand(left)?),
            right: Box::new(self.operand(right)?),
            negated,
        })
    }

    fn like(&self, operand: &Expr, pattern: &Expr, any_case: bool, negated: bool) -> Resolved {
        self.operators(&["~~", "~~*", "!~~", "!~~*"])?;
        let (operand, pattern) = (
            Box::new(self.operand(operand)?),
            Box::new(self.operand(pattern)?),
        );
        Ok(Scalar::Like {
            operand,
            pattern,
            any_case,
            negated,
        })
    }

    /// `operand ~ 'pattern'`. What stands around other operators of this kind is not split alike by all.
    fn regex(&self, operand: &Expr, pattern: &Expr, any_case: bool, negated: bool) -> Resolved {
        self.operators(&["~", "~*", "!~", "!~*"])?;
        match pattern {
            Expr::Value(_) => Ok(Scalar::Regex {
                operand: Box::new(self.primary(operand)?),
                pattern: Box::new(self.scalar(pattern)?),
                any_case,
                negated,
            }),
            _ => Err(unsupported(pattern)),
        }
    }

    /// `operand = ANY (array)`, over an array of constants.
    fn quantified(
        &self,
        operand: &Expr,
        op: &BinaryOperator,
        array: &Expr,
        all: bool,
        whole: &Expr,
    ) -> Resolved {
        let op = match op {
            BinaryOperator::Eq => BinaryOp::Equal,
            BinaryOperator::NotEq => BinaryOp::NotEqual,
            BinaryOperator::Lt => BinaryOp::Less,
            BinaryOperator::LtEq => BinaryOp::LessOrEqual,
            BinaryOperator::Gt => BinaryOp::Greater,
            BinaryOperator::GtEq => BinaryOp::GreaterOrEqual,
            _ => return Err(unsupported(whole)),
        };
        self.operators(&[op.as_str()])?;
        let array = match array {
            Expr::Nested(inner) => inner,
            other => other,
        };
        let array = match array {
            Expr::Array(Array { elem, named: true }) if !elem.is_empty() => {
                let elements = elem.iter().map(|element| self.scalar(element));
                Scalar::Array(elements.collect::<Result<_, _>>()?)
            }
            Expr::Value(_) => self.scalar(array)?,
            _ => return Err(unsupported(whole)),
        };
        Ok(Scalar::Quantified {
            operand: Box::new(self.operand(operand)?),
            op,
            all,
            array: Box::new(array),
        })
    }

    /// `x BETWEEN a AND b` is `x >= a AND x <= b`, as PostgreSQL's own grammar has it.
    fn between(&self, operand: &Expr, low: &Expr, high: &Expr, negated: bool) -> Resolved {
        self.operators(&["<", "<=", ">", ">="])?;
        let (operand, low, high) = (
            self.operand(operand)?,
            self.operand(low)?,
            self.operand(high)?,
        );
        let pair = |low_op, high_op| {
            vec![
                Scalar::binary(low_op, operand.clone(), low),
                Scalar::binary(high_op, operand, high),
            ]
        };
        Ok(match negated {
            false => Scalar::And(pair(BinaryOp::GreaterOrEqual, BinaryOp::LessOrEqual)),
            true => Scalar::Or(pair(BinaryOp::Less, BinaryOp::Greater)),
        })
    }

    fn case(
        &self,
        operand: Option<&Expr>,
        conditions: &[CaseWhen],
        otherwise: Option<&Expr>,
    ) -> Resolved {
        if operand.is_some() {
            self.operators(&["="])?;
        }
        let branch = |CaseWhen { condition, result }: &CaseWhen| {
            Ok((self.scalar(condition)?, self.scalar(result)?))
        };
        Ok(Scalar::Case {
            operand: operand
                .map(|operand| self.scalar(operand).map(Box::new))
                .transpose()?,
            branches: conditions
                .iter()
                .map(branch)
                .collect::<Result<_, Reason>>()?,
            otherwise: otherwise
                .map(|otherwise| self.scalar(otherwise).map(Box::new))
                .transpose()?,
        })
    }

    pub(crate) fn operators(&self, names: &[&str]) -> Result<(), Reason> {
        match names
            .iter()
            .find(|name| self.user_names().operators.contains(**name))
        {
            Some(name) => Err(Reason::new(Code::ShadowedName, format!("operator {name}"))),
            None => Ok(()),
        }
    }
}

fn unsupported(expr: &Expr) -> Reason {
    Reason::new(Code::UnsupportedExpression, quoted(expr))
}

/// The SQL of a node, cut to a readable length.
pub(crate) fn quoted(node: &dyn std::fmt::Display) -> String {
    let text = node.to_string();
    match text.char_indices().nth(QUOTED_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Words that PostgreSQL reads as functions without parentheses, whatever columns there are.
fn is_special_name(ident: &Ident) -> bool {
    const SPECIAL: &[&str] = &[
        "current_catalog",
        "current_date",
        "current_role",
        "current_schema",
        "current_time",
        "current_timestamp",
        "current_user",
        "default",
        "localtime",
        "localtimestamp",
        "session_user",
        "system_user",
        "user",
    ];
    ident.quote_style.is_none() && SPECIAL.contains(&ident.value.to_ascii_lowercase().as_str())
}

fn is_boolean_operator(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryOp {
            left: _,
            op,
            right: _,
        } => !matches!(
            op,
            BinaryOperator::Plus
                | BinaryOperator::Minus
                | BinaryOperator::Multiply
                | BinaryOperator::Divide
                | BinaryOperator::Modulo
                | BinaryOperator::StringConcat
        ),
        Expr::UnaryOp { op, expr: _ } => *op == UnaryOperator::Not,
        Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_) => true,
        Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => true,
        Expr::IsUnknown(_) | Expr::IsNotUnknown(_) => true,
        Expr::AnyOp { .. } | Expr::AllOp { .. } => true,
        Expr::InList { .. } | Expr::Between { .. } | Expr::Like { .. } | Expr::ILike { .. } => true,
        _ => false,
    }
}

fn is_arithmetic(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op, .. } if *op != BinaryOperator::StringConcat)
        || matches!(expr, Expr::UnaryOp { .. })
}
