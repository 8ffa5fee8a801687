//! The built-in types that casts name.

use sqlparser::ast::{CharacterLength, DataType, ExactNumberInfo, TimezoneInfo};

use crate::expr::TypeName;
use crate::reason::{Code, Reason};
use crate::types;

/// The built-in type that a cast names.
pub(crate) fn data_type(ty: &DataType) -> Result<TypeName, Reason> {
    let plain = |sql: &str, oid| Ok(TypeName::plain(sql, oid));
    match ty {
        DataType::Bool | DataType::Boolean => plain("boolean", types::BOOL),
        DataType::Int2(None) | DataType::SmallInt(None) => plain("smallint", types::INT2),
        DataType::Int(None) | DataType::Int4(None) | DataType::Integer(None) => {
            plain("integer", types::INT4)
        }
        DataType::Int8(None) | DataType::BigInt(None) => plain("bigint", types::INT8),
        DataType::Float8 | DataType::DoublePrecision => plain("double precision", types::FLOAT8),
        DataType::Text => plain("text", types::TEXT),
        DataType::Date => plain("date", types::DATE),
        DataType::Timestamp(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            plain("timestamp", types::TIMESTAMP)
        }
        DataType::Timestamp(None, TimezoneInfo::WithTimeZone | TimezoneInfo::Tz) => {
            plain("timestamptz", types::TIMESTAMPTZ)
        }
        DataType::Varchar(length) | DataType::CharacterVarying(length) => match length {
            None => plain("varchar", types::VARCHAR),
            // The modifier of varchar(n) is n plus the four bytes of the length header.
            Some(CharacterLength::IntegerLength { length, unit: None })
                if *length <= 10_485_760 =>
            {
                Ok(TypeName {
                    sql: format!("varchar({length})"),
                    oid: types::VARCHAR,
                    typmod: *length as i32 + 4,
                })
            }
            Some(_) => Err(Reason::new(
                Code::UnsupportedExpression,
                format!("type {ty}"),
            )),
        },
        DataType::Numeric(info) | DataType::Decimal(info) => numeric(info),
        _ => Err(Reason::new(
            Code::UnsupportedExpression,
            format!("type {ty}"),
        )),
    }
}

fn numeric(info: &ExactNumberInfo) -> Result<TypeName, Reason> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => return Ok(TypeName::plain("numeric", types::NUMERIC)),
        ExactNumberInfo::Precision(precision) => (*precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
    };
    if !(1..=1000).contains(&precision) || !(0..=precision as i64).contains(&scale) {
        return Err(Reason::new(
            Code::UnsupportedExpression,
            format!("type numeric({precision},{scale})"),
        ));
    }
    // The modifier of numeric(p,s): see numeric_typmod in PostgreSQL's numeric.c.
    let typmod = ((precision as i32) << 16 | scale as i32) + 4;
    Ok(TypeName {
        sql: format!("numeric({precision},{scale})"),
        oid: types::NUMERIC,
        typmod,
    })
}
