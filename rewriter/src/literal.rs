//! Constants, parameters, intervals and fields of time.

use sqlparser::ast::{DateTimeField, Expr, Interval, Value, ValueWithSpan};

use crate::expr::{Literal, Scalar};
use crate::reason::{Code, Reason};
use crate::scalar::Resolved;

/// A constant other than a parameter.
pub(crate) fn value(value: &Value) -> Resolved {
    let literal = match value {
        Value::Number(digits, false) if is_plain_number(digits) => Literal::Number(digits.clone()),
        Value::SingleQuotedString(text) => Literal::String(text.clone()),
        Value::Boolean(truth) => Literal::Boolean(*truth),
        Value::Null => Literal::Null,
        other => return Err(Reason::new(Code::UnsupportedExpression, other.to_string())),
    };
    Ok(Scalar::Literal(literal))
}

pub(crate) fn interval(interval: &Interval) -> Option<Scalar> {
    let Interval {
        value,
        leading_field,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    } = interval
    else {
        return None;
    };
    let Expr::Value(ValueWithSpan {
        value: Value::SingleQuotedString(text),
        span: _,
    }) = &**value
    else {
        return None;
    };
    let text = match leading_field {
        None => text.clone(),
        // INTERVAL '5' MINUTE: a number alone, of this field.
        Some(field) => {
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let field = extract_field(field).filter(|_| is_number)?;
            let is_unit = matches!(
                field.as_str(),
                "second" | "minute" | "hour" | "day" | "month" | "year"
            );
            is_unit.then(|| format!("{text} {field}"))?
        }
    };
    Some(Scalar::Literal(Literal::Interval(text)))
}

/// Digits as every supported version of PostgreSQL reads them: no underscores, no hexadecimal.
fn is_plain_number(digits: &str) -> bool {
    digits
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
}

pub(crate) fn extract_field(field: &DateTimeField) -> Option<String> {
    use DateTimeField::{
        Century, Day, Decade, Dow, Doy, Epoch, Hour, Isodow, Isoyear, Minute, Month, Quarter,
        Second, Week, Year,
    };
    match field {
        Year | Month | Day | Hour | Minute | Second | Quarter | Century | Decade | Dow | Doy
        | Epoch | Isodow | Isoyear | Week(None) => Some(field.to_string().to_ascii_lowercase()),
        _ => None,
    }
}
