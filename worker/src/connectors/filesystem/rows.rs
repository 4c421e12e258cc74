//! Records to columns: typed builders, and rows that do not fit.
//!
//! A row is given value by value. One that does not fit is either an error of the job, with its place, or is skipped
//! and counted. A skipped row's values that were already taken stay in the builders until the batch is finished, and
//! are filtered out then: so a good row costs nothing extra.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BinaryBuilder, BooleanArray, BooleanBuilder, Date32Builder,
    Decimal128Builder, Float32Builder, Float64Builder, Int8Builder, Int16Builder, Int32Builder,
    Int64Builder, PrimitiveBuilder, StringBuilder,
};
use arrow::compute::filter;
use arrow::datatypes::{
    ArrowTimestampType, DataType, Field, SchemaRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::record_batch::RecordBatch;

use super::text;
use crate::Error;
use crate::expressions::batch_of;
use crate::time::calendar;

/// A value as a format hands it over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    /// In the text form of the column's type.
    Text(&'a [u8]),
    /// An array or object, which no column can hold.
    Nested,
}

/// Why a row was refused, without its place.
pub(super) type Unfit = String;

/// The builders of one batch.
#[derive(Debug)]
pub(super) struct RowsBuilder {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    refused: Vec<usize>,
}

impl RowsBuilder {
    pub(super) fn new(schema: &SchemaRef, capacity: usize) -> Self {
        let column = |field: &Arc<Field>| Column::new(field, capacity);
        Self {
            schema: SchemaRef::clone(schema),
            columns: schema.fields().iter().map(column).collect(),
            rows: 0,
            refused: Vec::new(),
        }
    }

    /// Rows so far, refused ones included.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The column's value in the present row; at most one.
    pub(super) fn append(&mut self, column: usize, value: Value<'_>) -> Result<(), Unfit> {
        let rows = self.rows;
        let place = &mut self.columns[column];
        if place.values.len() > rows {
            return Err(format!("column {:?} has two values", place.field.name()));
        }
        place.append(value)
    }

    /// Ends the present row; columns without a value are NULL.
    pub(super) fn finish_row(&mut self) -> Result<(), Unfit> {
        for column in &mut self.columns {
            if column.values.len() == self.rows {
                column.append(Value::Null)?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Drops the present row, whatever it has so far.
    pub(super) fn refuse_row(&mut self) {
        for column in &mut self.columns {
            if column.values.len() == self.rows {
                column.values.append_null();
            }
        }
        self.refused.push(self.rows);
        self.rows += 1;
    }

    /// The rows that were not refused.
    pub(super) fn finish(mut self, place: &str) -> Result<RecordBatch, Error> {
        let rows = self.rows - self.refused.len();
        let arrays = self.columns.iter_mut().map(|column| column.values.finish());
        let arrays = if self.refused.is_empty() {
            arrays.collect()
        } else {
            let mut kept = vec![true; self.rows];
            for &row in &self.refused {
                kept[row] = false;
            }
            let kept = BooleanArray::from(kept);
            arrays
                .map(|array| filter(&array, &kept))
                .collect::<Result<_, _>>()
                .map_err(Error::arrow(place))?
        };
        batch_of(&self.schema, arrays, rows, place)
    }
}

#[derive(Debug)]
struct Column {
    field: Arc<Field>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Boolean(BooleanBuilder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8, u8),
    String(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Seconds(PrimitiveBuilder<TimestampSecondType>),
    Milliseconds(PrimitiveBuilder<TimestampMillisecondType>),
    Microseconds(PrimitiveBuilder<TimestampMicrosecondType>),
    Nanoseconds(PrimitiveBuilder<TimestampNanosecondType>),
}

/// The same expression for every kind of builder.
macro_rules! each {
    ($values:expr, $builder:ident => $do:expr) => {
        match $values {
            Values::Boolean($builder) => $do,
            Values::Int8($builder) => $do,
            Values::Int16($builder) => $do,
            Values::Int32($builder) => $do,
            Values::Int64($builder) => $do,
            Values::Float32($builder) => $do,
            Values::Float64($builder) => $do,
            Values::Decimal($builder, _, _) => $do,
            Values::String($builder) => $do,
            Values::Bytes($builder) => $do,
            Values::Date($builder) => $do,
            Values::Seconds($builder) => $do,
            Values::Milliseconds($builder) => $do,
            Values::Microseconds($builder) => $do,
            Values::Nanoseconds($builder) => $do,
        }
    };
}

impl Values {
    fn new(data_type: &DataType, rows: usize) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Int8 => Self::Int8(Int8Builder::with_capacity(rows)),
            DataType::Int16 => Self::Int16(Int16Builder::with_capacity(rows)),
            DataType::Int32 => Self::Int32(Int32Builder::with_capacity(rows)),
            DataType::Int64 => Self::Int64(Int64Builder::with_capacity(rows)),
            DataType::Float32 => Self::Float32(Float32Builder::with_capacity(rows)),
            DataType::Float64 => Self::Float64(Float64Builder::with_capacity(rows)),
            DataType::Decimal128(precision, scale) => {
                let builder = Decimal128Builder::with_capacity(rows);
                let builder = builder.with_data_type(data_type.clone());
                Self::Decimal(builder, *precision, *scale as u8)
            }
            DataType::Utf8 => Self::String(StringBuilder::with_capacity(rows, rows * 8)),
            DataType::Binary => Self::Bytes(BinaryBuilder::with_capacity(rows, rows * 8)),
            DataType::Date32 => Self::Date(Date32Builder::with_capacity(rows)),
            DataType::Timestamp(TimeUnit::Second, None) => {
                Self::Seconds(PrimitiveBuilder::with_capacity(rows))
            }
            DataType::Timestamp(TimeUnit::Millisecond, None) => {
                Self::Milliseconds(PrimitiveBuilder::with_capacity(rows))
            }
            DataType::Timestamp(TimeUnit::Microsecond, None) => {
                Self::Microseconds(PrimitiveBuilder::with_capacity(rows))
            }
            DataType::Timestamp(TimeUnit::Nanosecond, None) => {
                Self::Nanoseconds(PrimitiveBuilder::with_capacity(rows))
            }
            other => unreachable!("{other} is the type of no SQL column"),
        }
    }

    fn len(&self) -> usize {
        each!(self, builder => ArrayBuilder::len(builder))
    }

    fn append_null(&mut self) {
        each!(self, builder => builder.append_null());
    }

    fn finish(&mut self) -> ArrayRef {
        each!(self, builder => Arc::new(builder.finish()))
    }
}

impl Column {
    fn new(field: &Arc<Field>, rows: usize) -> Self {
        Self {
            field: Arc::clone(field),
            values: Values::new(field.data_type(), rows),
        }
    }

    fn append(&mut self, value: Value<'_>) -> Result<(), Unfit> {
        if let Value::Null = value {
            if !self.field.is_nullable() {
                return Err(format!("column {:?} is NOT NULL", self.field.name()));
            }
            self.values.append_null();
            return Ok(());
        }
        self.append_value(value).ok_or_else(|| self.unfit(value))
    }

    fn append_value(&mut self, value: Value<'_>) -> Option<()> {
        match &mut self.values {
            Values::Boolean(builder) => builder.append_value(match value {
                Value::Boolean(value) => value,
                Value::Text(value) => text::parse_boolean(value.trim_ascii())?,
                _ => return None,
            }),
            Values::Int8(builder) => builder.append_value(integer(value)?.try_into().ok()?),
            Values::Int16(builder) => builder.append_value(integer(value)?.try_into().ok()?),
            Values::Int32(builder) => builder.append_value(integer(value)?.try_into().ok()?),
            Values::Int64(builder) => builder.append_value(integer(value)?),
            Values::Float32(builder) => builder.append_value(float(value)? as f32),
            Values::Float64(builder) => builder.append_value(float(value)?),
            Values::Decimal(builder, precision, scale) => {
                let written;
                let value = match value {
                    Value::Text(value) => value.trim_ascii(),
                    Value::Integer(value) => {
                        written = value.to_string();
                        written.as_bytes()
                    }
                    Value::Float(value) => {
                        written = value.to_string();
                        written.as_bytes()
                    }
                    _ => return None,
                };
                builder.append_value(text::parse_decimal(value, *precision, *scale)?);
            }
            Values::String(builder) => match value {
                Value::Text(value) => builder.append_value(std::str::from_utf8(value).ok()?),
                Value::Boolean(value) => builder.append_value(if value { "true" } else { "false" }),
                Value::Integer(value) => builder.append_value(value.to_string()),
                Value::Float(value) => builder.append_value(value.to_string()),
                _ => return None,
            },
            Values::Bytes(builder) => builder.append_value(text::parse_base64(trimmed(value)?)?),
            Values::Date(builder) => builder.append_value(calendar::parse_date(trimmed(value)?)?),
            Values::Seconds(builder) => append_moment(builder, value)?,
            Values::Milliseconds(builder) => append_moment(builder, value)?,
            Values::Microseconds(builder) => append_moment(builder, value)?,
            Values::Nanoseconds(builder) => append_moment(builder, value)?,
        }
        Some(())
    }

    fn unfit(&self, value: Value<'_>) -> Unfit {
        let given = match value {
            Value::Text(value) => format!("{:?}", String::from_utf8_lossy(value)),
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Boolean(value) => value.to_string(),
            Value::Nested => "an array or object".to_owned(),
            Value::Null => "NULL".to_owned(),
        };
        let name = self.field.name();
        match flott_proto::data_type::DataType::from_arrow(self.field.data_type()) {
            Ok(data_type) => format!("column {name:?}: {given} is not a {data_type}"),
            Err(_) => format!(
                "column {name:?}: {given} is not a {}",
                self.field.data_type()
            ),
        }
    }
}

fn trimmed(value: Value<'_>) -> Option<&[u8]> {
    match value {
        Value::Text(value) => Some(value.trim_ascii()),
        _ => None,
    }
}

fn integer(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Integer(value) => Some(value),
        Value::Text(value) => text::parse_integer(value.trim_ascii()),
        _ => None,
    }
}

fn float(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Integer(value) => Some(value as f64),
        Value::Float(value) => Some(value),
        Value::Text(value) => text::parse_float(value.trim_ascii()),
        _ => None,
    }
}

fn append_moment<T: ArrowTimestampType>(
    builder: &mut PrimitiveBuilder<T>,
    value: Value<'_>,
) -> Option<()> {
    let moment = calendar::parse_moment(trimmed(value)?)?;
    let per_second = match T::UNIT {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    builder.append_value(text::moment_in_units(moment, per_second)?);
    Some(())
}
