//! Encoded keys back to columns, for what a window emits.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Decimal128Builder, Float64Builder, Int64Builder,
    StringBuilder,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};

use super::{BOOLEAN, BYTES, DATE, DECIMAL, FLOAT, INTEGER, NULL, SIGN, STRING, TIMESTAMP};
use crate::Error;

/// Decodes keys whose columns have these types.
#[derive(Clone, Debug)]
pub struct KeyDecoder {
    types: Vec<DataType>,
}

impl KeyDecoder {
    /// For keys of columns with these types, in this order.
    pub fn new(types: Vec<DataType>) -> Self {
        Self { types }
    }

    /// One column for each type, one row for each key. Fails on bytes that are no key of these types: then what they
    /// were read from is damaged, or the job's key columns have changed.
    pub fn decode<'k>(
        &self,
        keys: impl ExactSizeIterator<Item = &'k [u8]>,
    ) -> Result<Vec<ArrayRef>, Error> {
        let rows = keys.len();
        let mut builders: Vec<Builder> =
            self.types.iter().map(|of| Builder::new(of, rows)).collect();
        for key in keys {
            let mut rest = key;
            let whole = builders
                .iter_mut()
                .all(|builder| builder.append(&mut rest).is_some());
            if !whole || !rest.is_empty() {
                return Err(Error::user(
                    "keyed state",
                    format!(
                        "holds the key {key:02x?}, which does not fit the key columns {:?}; \
                         if the job's keys were changed, give the operator a new uid",
                        self.types
                    ),
                ));
            }
        }
        builders.into_iter().map(Builder::finish).collect()
    }
}

enum Values {
    Boolean(BooleanBuilder),
    /// Integers, dates and timestamps in their own unit.
    Integer(Int64Builder),
    Float(Float64Builder),
    Decimal(Decimal128Builder),
    String(StringBuilder),
    Bytes(BinaryBuilder),
}

struct Builder {
    data_type: DataType,
    values: Values,
}

impl Builder {
    fn new(data_type: &DataType, rows: usize) -> Self {
        let values = match data_type {
            DataType::Boolean => Values::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Float32 | DataType::Float64 => {
                Values::Float(Float64Builder::with_capacity(rows))
            }
            DataType::Decimal128(_, _) => Values::Decimal(Decimal128Builder::with_capacity(rows)),
            DataType::Utf8 => Values::String(StringBuilder::with_capacity(rows, rows * 8)),
            DataType::Binary => Values::Bytes(BinaryBuilder::with_capacity(rows, rows * 8)),
            _ => Values::Integer(Int64Builder::with_capacity(rows)),
        };
        Self {
            data_type: data_type.clone(),
            values,
        }
    }

    /// Takes one value off the front of `key`.
    fn append(&mut self, key: &mut &[u8]) -> Option<()> {
        let (&tag, rest) = key.split_first()?;
        *key = rest;
        match (&mut self.values, tag) {
            (Values::Boolean(values), NULL) => values.append_null(),
            (Values::Integer(values), NULL) => values.append_null(),
            (Values::Float(values), NULL) => values.append_null(),
            (Values::Decimal(values), NULL) => values.append_null(),
            (Values::String(values), NULL) => values.append_null(),
            (Values::Bytes(values), NULL) => values.append_null(),
            (Values::Boolean(values), BOOLEAN) => match take::<1>(key)? {
                [0] => values.append_value(false),
                [1] => values.append_value(true),
                _ => return None,
            },
            (Values::Integer(values), INTEGER | DATE) => {
                let date = self.data_type == DataType::Date32;
                if date != (tag == DATE) || matches!(self.data_type, DataType::Timestamp(_, _)) {
                    return None;
                }
                values.append_value(integer(key)?);
            }
            (Values::Integer(values), TIMESTAMP) => {
                let DataType::Timestamp(unit, _) = &self.data_type else {
                    return None;
                };
                let per_second = match unit {
                    TimeUnit::Second => 1,
                    TimeUnit::Millisecond => 1_000,
                    TimeUnit::Microsecond => 1_000_000,
                    TimeUnit::Nanosecond => 1_000_000_000,
                };
                let seconds = i128::from(integer(key)?);
                let in_unit = i128::from(integer(key)?) * per_second / 1_000_000_000;
                values.append_value(i64::try_from(seconds * per_second + in_unit).ok()?);
            }
            (Values::Float(values), FLOAT) => {
                let ordered = u64::from_be_bytes(take::<8>(key)?);
                let bits = if ordered & SIGN == 0 {
                    !ordered
                } else {
                    ordered ^ SIGN
                };
                values.append_value(f64::from_bits(bits));
            }
            (Values::Decimal(values), DECIMAL) => {
                let [scale] = take::<1>(key)?;
                let DataType::Decimal128(_, own) = self.data_type else {
                    return None;
                };
                if own as u8 != scale {
                    return None;
                }
                values.append_value(number(key)?);
            }
            (Values::String(values), STRING) => {
                values.append_value(std::str::from_utf8(bytes(key)?).ok()?);
            }
            (Values::Bytes(values), BYTES) => values.append_value(bytes(key)?),
            _ => return None,
        }
        Some(())
    }

    fn finish(self) -> Result<ArrayRef, Error> {
        let array: ArrayRef = match self.values {
            Values::Boolean(mut values) => Arc::new(values.finish()),
            Values::Integer(mut values) => Arc::new(values.finish()),
            Values::Float(mut values) => Arc::new(values.finish()),
            Values::Decimal(mut values) => {
                let values = values.finish().with_data_type(self.data_type.clone());
                Arc::new(values)
            }
            Values::String(mut values) => Arc::new(values.finish()),
            Values::Bytes(mut values) => Arc::new(values.finish()),
        };
        // A date is 32 bits wide, and Arrow makes one of nothing else.
        let array = match self.data_type {
            DataType::Date32 => {
                cast(&array, &DataType::Int32).map_err(Error::arrow("keyed state"))?
            }
            _ => array,
        };
        cast(&array, &self.data_type).map_err(Error::arrow("keyed state"))
    }
}

fn take<const N: usize>(key: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = key.split_first_chunk::<N>()?;
    *key = rest;
    Some(*taken)
}

fn integer(key: &mut &[u8]) -> Option<i64> {
    i64::try_from(number(key)?).ok()
}

fn number(key: &mut &[u8]) -> Option<i128> {
    let [head] = take::<1>(key)?;
    let (sign, length) = if head >= 0x80 {
        (0, head - 0x80)
    } else {
        (0xFF, 0x7F - head)
    };
    let mut bytes = [sign; 16];
    let (value, rest) = key.split_at_checked(length.into())?;
    *key = rest;
    let begin = bytes.len().checked_sub(value.len())?;
    bytes[begin..].copy_from_slice(value);
    Some(i128::from_be_bytes(bytes))
}

fn bytes<'k>(key: &mut &'k [u8]) -> Option<&'k [u8]> {
    let mut length = 0usize;
    for shift in (0..35).step_by(7) {
        let [byte] = take::<1>(key)?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (value, rest) = key.split_at_checked(length)?;
            *key = rest;
            return Some(value);
        }
    }
    None
}
