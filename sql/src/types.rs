//! Flink's types: how they are written, and which fit into which without loss.

use datafusion::sql::sqlparser::ast::{
    DataType as Written, ExactNumberInfo, Expr, TimezoneInfo, UnaryOperator, Value,
};
use flott_proto::data_type::DataType;

/// VARCHAR of this length is what Flink calls STRING.
const STRING_LENGTH: &str = "2147483647";

/// The type that `CAST(x AS …)` names. Fails with the reason and the remedy.
pub(crate) fn cast_target(written: &Written) -> Result<DataType, String> {
    let text = written.to_string();
    if let Written::Varchar(length) = written
        && length
            .as_ref()
            .is_none_or(|length| length.to_string() != STRING_LENGTH)
    {
        return Err(format!(
            "a cast to {text} is not supported: cast to STRING and cut with SUBSTRING"
        ));
    }
    parse(&text)
}

/// A type by its text, e.g. `DECIMAL(10, 2)`. Fails with the reason and the remedy.
pub(crate) fn parse(text: &str) -> Result<DataType, String> {
    text.parse().map_err(|_| {
        let name = text.split(['(', '<', ' ']).next().unwrap_or(text);
        let remedy = match name.to_uppercase().as_str() {
            "VARCHAR" | "CHAR" | "CHARACTER" | "TEXT" | "NVARCHAR" => "write STRING",
            "BINARY" | "VARBINARY" | "BLOB" | "BYTEA" => "write BYTES",
            "TIMESTAMP" | "TIMESTAMP_LTZ" | "DATETIME" => "write TIMESTAMP(0), (3), (6) or (9)",
            "DECIMAL" | "NUMERIC" => {
                "write DECIMAL(p, s) with 1 <= p <= 38 and 0 <= s <= p"
            }
            "BOOL" => "write BOOLEAN",
            "INT8" => "write BIGINT",
            "INT4" => "write INT",
            "INT2" => "write SMALLINT",
            "TIME" => "write STRING or INT",
            _ => {
                "Flott has BOOLEAN, TINYINT, SMALLINT, INT, BIGINT, FLOAT, DOUBLE, DECIMAL(p, s), STRING, BYTES, DATE, TIMESTAMP(p)"
            }
        };
        format!("the type {text} is not supported: {remedy}")
    })
}

/// The type as DataFusion's SQL writes it: the same text means the same to the worker.
pub(crate) fn written(data_type: DataType) -> Written {
    match data_type {
        DataType::Boolean => Written::Boolean,
        DataType::TinyInt => Written::TinyInt(None),
        DataType::SmallInt => Written::SmallInt(None),
        DataType::Int => Written::Int(None),
        DataType::BigInt => Written::BigInt(None),
        DataType::Float => Written::Float(ExactNumberInfo::None),
        DataType::Double => Written::Double(ExactNumberInfo::None),
        DataType::Decimal { precision, scale } => Written::Decimal(
            ExactNumberInfo::PrecisionAndScale(precision.into(), scale.into()),
        ),
        DataType::String => Written::String(None),
        DataType::Bytes => Written::Bytea,
        DataType::Date => Written::Date,
        DataType::Timestamp { precision } => {
            Written::Timestamp(Some(precision.into()), TimezoneInfo::None)
        }
    }
}

/// Decimal digits that every value of an integer type fits into.
fn integer_digits(data_type: DataType) -> Option<u8> {
    match data_type {
        DataType::TinyInt => Some(3),
        DataType::SmallInt => Some(5),
        DataType::Int => Some(10),
        DataType::BigInt => Some(19),
        _ => None,
    }
}

/// Whether a value of one type may be stored as the other without a CAST: lossless, or numeric widening.
pub(crate) fn is_assignable(from: DataType, to: DataType) -> bool {
    use DataType::{BigInt, Date, Decimal, Double, Float, Int, SmallInt, Timestamp, TinyInt};
    if from == to {
        return true;
    }
    match (from, to) {
        (TinyInt, SmallInt | Int | BigInt | Float | Double) => true,
        (SmallInt, Int | BigInt | Float | Double) => true,
        (Int, BigInt | Double) => true,
        // Not lossless beyond 2^53, but a widening in SQL as in Java.
        (BigInt, Double) => true,
        (Float, Double) => true,
        (integer, Decimal { precision, scale }) if integer_digits(integer).is_some() => {
            integer_digits(integer).is_some_and(|digits| digits <= precision - scale)
        }
        (
            Decimal {
                precision: from_precision,
                scale: from_scale,
            },
            Decimal { precision, scale },
        ) => from_scale <= scale && from_precision - from_scale <= precision - scale,
        (Timestamp { precision: from }, Timestamp { precision: to }) => from <= to,
        (Date, Timestamp { .. }) => true,
        _ => false,
    }
}

/// Whether an expression is a number literal (or a choice among literals) whose value the type holds.
///
/// DataFusion types `1` as BIGINT and `1.5` as DOUBLE; storing them into INT or DECIMAL loses nothing all the same.
pub(crate) fn literal_fits(expression: &Expr, to: DataType) -> bool {
    match expression {
        Expr::Nested(inner) => literal_fits(inner, to),
        Expr::Value(value) => match &value.value {
            Value::Null => true,
            Value::Number(digits, _) => number_fits(digits, false, to),
            _ => false,
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => match expr.as_ref() {
            Expr::Value(value) => {
                matches!(&value.value, Value::Number(digits, _) if number_fits(digits, true, to))
            }
            _ => false,
        },
        Expr::Case {
            conditions,
            else_result,
            ..
        } => {
            conditions.iter().all(|when| literal_fits(&when.result, to))
                && else_result
                    .as_ref()
                    .is_none_or(|result| literal_fits(result, to))
        }
        _ => false,
    }
}

fn number_fits(digits: &str, negative: bool, to: DataType) -> bool {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole
        .chars()
        .chain(fraction.chars())
        .all(|c| c.is_ascii_digit())
    {
        return false; // with an exponent: DOUBLE as it is
    }
    let sign = if negative { "-" } else { "" };
    let whole_fits = |low: i64, high: i64| {
        fraction.is_empty()
            && format!("{sign}{whole}")
                .parse::<i64>()
                .is_ok_and(|value| (low..=high).contains(&value))
    };
    match to {
        DataType::TinyInt => whole_fits(i8::MIN.into(), i8::MAX.into()),
        DataType::SmallInt => whole_fits(i16::MIN.into(), i16::MAX.into()),
        DataType::Int => whole_fits(i32::MIN.into(), i32::MAX.into()),
        DataType::BigInt => whole_fits(i64::MIN, i64::MAX),
        DataType::Float | DataType::Double => true,
        // 15 digits survive the DOUBLE that DataFusion reads a fraction into.
        DataType::Decimal { precision, scale } => {
            let whole = whole.trim_start_matches('0').len();
            let fraction = fraction.trim_end_matches('0').len();
            whole <= usize::from(precision - scale)
                && fraction <= usize::from(scale)
                && (fraction == 0 || whole + fraction <= 15)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_type(text: &str) -> DataType {
        text.parse().unwrap()
    }

    #[test]
    fn only_lossless_and_widening_casts_are_implicit() {
        for (from, to, expected) in [
            ("INT", "BIGINT", true),
            ("BIGINT", "INT", false),
            ("BIGINT", "DOUBLE", true),
            ("BIGINT", "FLOAT", false),
            ("INT", "FLOAT", false),
            ("SMALLINT", "FLOAT", true),
            ("DOUBLE", "FLOAT", false),
            ("INT", "DECIMAL(12, 2)", true),
            ("INT", "DECIMAL(11, 2)", false),
            ("DECIMAL(10, 2)", "DECIMAL(38, 2)", true),
            ("DECIMAL(10, 2)", "DECIMAL(10, 3)", false),
            ("DECIMAL(10, 2)", "DOUBLE", false),
            ("TIMESTAMP(3)", "TIMESTAMP(9)", true),
            ("TIMESTAMP(9)", "TIMESTAMP(3)", false),
            ("DATE", "TIMESTAMP(3)", true),
            ("INT", "STRING", false),
            ("STRING", "INT", false),
            ("BOOLEAN", "INT", false),
        ] {
            assert_eq!(
                is_assignable(data_type(from), data_type(to)),
                expected,
                "{from} into {to}"
            );
        }
    }

    #[test]
    fn a_number_fits_exactly_where_its_value_does() {
        for (digits, negative, to, expected) in [
            ("127", false, "TINYINT", true),
            ("128", false, "TINYINT", false),
            ("128", true, "TINYINT", true),
            ("9223372036854775808", true, "BIGINT", true),
            ("9223372036854775808", false, "BIGINT", false),
            ("1.0", false, "INT", false),
            ("1.50", false, "DECIMAL(3, 1)", true),
            ("1.25", false, "DECIMAL(3, 1)", false),
            ("100", false, "DECIMAL(3, 1)", false),
            ("1e3", false, "DECIMAL(10, 1)", false),
            ("1", false, "STRING", false),
        ] {
            assert_eq!(
                number_fits(digits, negative, data_type(to)),
                expected,
                "{digits} into {to}"
            );
        }
    }
}
