//! The window function of FROM: `TABLE(TUMBLE(TABLE t, DESCRIPTOR(c), INTERVAL '1' HOUR [, offset]))`.

use datafusion::sql::sqlparser::ast::{
    DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    Interval, Value,
};

use crate::error::{Position, SqlError, did_you_mean};
use crate::expressions::WINDOW_COLUMNS;
use crate::functions;
use crate::relation::Relation;

/// A tumbling window over event time, checked.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    pub(crate) time_column: String,
    pub(crate) size_ms: u64,
    pub(crate) offset_ms: i64,
    /// Of the word `TUMBLE`.
    pub(crate) position: Position,
}

/// The arguments as they were written.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) table: &'a Ident,
    column: &'a Ident,
    size_ms: u64,
    offset_ms: i64,
    position: Position,
}

/// The names of the arguments, in order.
const ARGUMENTS: [&str; 4] = ["DATA", "TIMECOL", "SIZE", "OFFSET"];

const USAGE: &str =
    "write TUMBLE(TABLE t, DESCRIPTOR(column), INTERVAL '1' HOUR [, INTERVAL '15' MINUTE])";

/// Reads the call in `TABLE(…)`.
pub(crate) fn parse(expression: &Expr, fallback: Position) -> Result<Call<'_>, SqlError> {
    let position = Position::of(expression, fallback);
    let Expr::Function(function) = expression else {
        let construct = "TABLE(...) of anything but a window function";
        return Err(SqlError::unsupported(position, construct, USAGE));
    };
    match functions::name_of(function).as_str() {
        "tumble" => {}
        name @ ("hop" | "cumulate" | "session") => {
            let construct = format!("the window function {}", name.to_uppercase());
            return Err(SqlError::unsupported(
                position,
                &construct,
                "Flott has TUMBLE",
            ));
        }
        name => {
            let construct = format!("the table function {}", name.to_uppercase());
            return Err(SqlError::unsupported(
                position,
                &construct,
                "Flott has TUMBLE",
            ));
        }
    }
    let [data, column, size, offset] = arguments(function, position)?;
    let missing = |name: &str| {
        let message = format!("TUMBLE lacks its argument {name}; {USAGE}");
        SqlError::new(position, message)
    };
    let table = table_argument(data.ok_or_else(|| missing("DATA"))?, position)?;
    let column = descriptor(column.ok_or_else(|| missing("TIMECOL"))?, position)?;
    let size = size.ok_or_else(|| missing("SIZE"))?;
    let size_ms = u64::try_from(interval_ms(size, position)?).unwrap_or(0);
    if size_ms == 0 {
        let place = Position::of(size, position);
        return Err(SqlError::new(place, "a window's size must be more than 0"));
    }
    let mut offset_ms = 0;
    if let Some(offset) = offset {
        offset_ms = interval_ms(offset, position)?;
        if offset_ms.unsigned_abs() >= size_ms {
            let place = Position::of(offset, position);
            let message = "a window's offset must be smaller than its size";
            return Err(SqlError::new(place, message));
        }
    }
    Ok(Call {
        table,
        column,
        size_ms,
        offset_ms,
        position,
    })
}

/// Checks the call against the relation that its table names.
pub(crate) fn check(call: &Call<'_>, relation: &Relation) -> Result<Window, SqlError> {
    let name = &call.column.value;
    let place = Position::of_span(call.column.span).unwrap_or(call.position);
    if relation.schema.field(name).is_none() {
        let known: Vec<&str> = relation
            .schema
            .fields
            .iter()
            .map(|field| field.name.as_str())
            .collect();
        let near = did_you_mean(name, &known);
        let message = format!("column {name:?} not found in {}{near}", relation.label);
        return Err(SqlError::new(place, message));
    }
    if relation.rowtime.as_deref() != Some(name) {
        let remedy = match &relation.rowtime {
            Some(rowtime) => format!("that is {rowtime}"),
            None => format!(
                "declare WATERMARK FOR {name} AS {name} - INTERVAL '5' SECOND in CREATE TABLE, and pass the column on unchanged"
            ),
        };
        let message = format!(
            "column {name:?} is not the event time of {}: {remedy}",
            relation.label
        );
        return Err(SqlError::new(place, message));
    }
    if let Some(taken) = WINDOW_COLUMNS
        .iter()
        .find(|column| relation.schema.field(column).is_some())
    {
        let message = format!(
            "{} has a column {taken} already, which TUMBLE adds; rename it in a subquery",
            relation.label
        );
        return Err(SqlError::new(call.position, message));
    }
    Ok(Window {
        time_column: name.clone(),
        size_ms: call.size_ms,
        offset_ms: call.offset_ms,
        position: call.position,
    })
}

/// By position or, as `NAME => value`, by name.
fn arguments(function: &Function, position: Position) -> Result<[Option<&Expr>; 4], SqlError> {
    let misuse = || SqlError::new(position, format!("malformed TUMBLE; {USAGE}"));
    let FunctionArguments::List(list) = &function.args else {
        return Err(misuse());
    };
    let clauses = list.duplicate_treatment.is_some() || !list.clauses.is_empty();
    if clauses || function.over.is_some() || function.filter.is_some() {
        return Err(misuse());
    }
    let mut found = [None; 4];
    for (index, argument) in list.args.iter().enumerate() {
        let (slot, value) = match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (index, value),
            FunctionArg::Named {
                name,
                arg: FunctionArgExpr::Expr(value),
                ..
            } => {
                let upper = name.value.to_uppercase();
                let slot = ARGUMENTS.iter().position(|known| *known == upper);
                let slot = slot.ok_or_else(|| {
                    let place = Position::of_span(name.span).unwrap_or(position);
                    let near = did_you_mean(&upper, &ARGUMENTS);
                    SqlError::new(place, format!("TUMBLE has no argument {upper}{near}"))
                })?;
                (slot, value)
            }
            _ => return Err(misuse()),
        };
        let free = found.get_mut(slot).filter(|slot| slot.is_none());
        *free.ok_or_else(misuse)? = Some(value);
    }
    Ok(found)
}

fn table_argument(argument: &Expr, position: Position) -> Result<&Ident, SqlError> {
    if let Expr::Prefixed { value, .. } = argument
        && let Expr::Identifier(table) = value.as_ref()
    {
        return Ok(table);
    }
    let place = Position::of(argument, position);
    let message = "TUMBLE's first argument is a table: TABLE t";
    Err(SqlError::new(place, message))
}

fn descriptor(argument: &Expr, position: Position) -> Result<&Ident, SqlError> {
    if let Expr::Function(function) = argument
        && functions::name_of(function) == "descriptor"
        && let [Expr::Identifier(column)] = functions::arguments(function).as_slice()
    {
        return Ok(column);
    }
    let place = Position::of(argument, position);
    let message = "TUMBLE's second argument is the event-time column: DESCRIPTOR(column)";
    Err(SqlError::new(place, message))
}

/// A literal interval of a fixed length, in milliseconds.
fn interval_ms(expression: &Expr, fallback: Position) -> Result<i64, SqlError> {
    let position = Position::of(expression, fallback);
    let Expr::Interval(Interval {
        value,
        leading_field: Some(unit),
        last_field: None,
        leading_precision: None,
        fractional_seconds_precision: None,
    }) = expression
    else {
        let message = "a window's size and offset are intervals of one unit: INTERVAL '1' HOUR";
        return Err(SqlError::new(position, message));
    };
    let unit_ms = match unit {
        DateTimeField::Millisecond | DateTimeField::Milliseconds => 1,
        DateTimeField::Second | DateTimeField::Seconds => 1_000,
        DateTimeField::Minute | DateTimeField::Minutes => 60_000,
        DateTimeField::Hour | DateTimeField::Hours => 3_600_000,
        DateTimeField::Day | DateTimeField::Days => 86_400_000,
        DateTimeField::Week(None) | DateTimeField::Weeks => 604_800_000,
        other => {
            let construct = format!("a window of a {other}");
            let remedy = "its length varies, use DAY or a smaller unit";
            return Err(SqlError::unsupported(position, &construct, remedy));
        }
    };
    let text = match value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text.trim(),
            _ => "",
        },
        _ => "",
    };
    decimal_times(text, unit_ms).ok_or_else(|| {
        let message =
            format!("'{text}' {unit} is no whole number of milliseconds; write INTERVAL '1' HOUR");
        SqlError::new(position, message)
    })
}

/// A decimal number times a factor, if that is a whole number that fits.
fn decimal_times(text: &str, factor: i64) -> Option<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let scale = 10_i64.pow(fraction.len() as u32);
    let small = fraction.parse::<i64>().ok()?.checked_mul(factor)?;
    if small % scale != 0 {
        return None;
    }
    let large = whole.parse::<i64>().ok()?.checked_mul(factor)?;
    large.checked_add(small / scale)?.checked_mul(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_milliseconds_make_a_window() {
        for (text, factor, expected) in [
            ("1", 3_600_000, Some(3_600_000)),
            ("0.5", 1_000, Some(500)),
            ("-15", 60_000, Some(-900_000)),
            ("0.0001", 1_000, None),
            ("1 02:00", 1_000, None),
            ("", 1_000, None),
            ("-", 1_000, None),
            ("9223372036854775807", 1_000, None),
            ("1.", 1_000, None),
        ] {
            assert_eq!(decimal_times(text, factor), expected, "{text:?}");
        }
    }
}
