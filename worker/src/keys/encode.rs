//! Encodes the key columns of a batch: lengths first, column by column, then the bytes into one buffer.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Schema, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::record_batch::RecordBatch;
use flott_proto::key_group::KeyGroup;
use xxhash_rust::xxh3::xxh3_64;

use super::{BOOLEAN, BYTES, DATE, DECIMAL, FLOAT, INTEGER, NULL, SIGN, STRING, TIMESTAMP};
use crate::Error;

/// The keys of a batch's rows, in one buffer.
#[derive(Clone, Debug, Default)]
pub struct EncodedKeys {
    bytes: Vec<u8>,
    /// Where each key begins, and the end of the last.
    offsets: Vec<usize>,
}

impl EncodedKeys {
    /// How many keys there are: the rows of the batch.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of a row.
    pub fn key(&self, row: usize) -> &[u8] {
        &self.bytes[self.offsets[row]..self.offsets[row + 1]]
    }

    /// The keys, row by row.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.offsets.windows(2).map(|at| &self.bytes[at[0]..at[1]])
    }

    /// The hash that key groups are made of, row by row: `KeyGroup::of_hash` takes it.
    pub fn hashes(&self) -> impl ExactSizeIterator<Item = u64> {
        self.iter().map(xxh3_64)
    }

    /// The key group of each row.
    pub fn groups(&self, max_parallelism: u32) -> impl ExactSizeIterator<Item = KeyGroup> {
        self.hashes()
            .map(move |hash| KeyGroup::of_hash(hash, max_parallelism))
    }
}

/// Encodes the same columns of batch after batch.
#[derive(Clone, Debug)]
pub struct KeyEncoder {
    columns: Vec<usize>,
}

impl KeyEncoder {
    /// For these columns of batches with that schema. Fails for a column whose type cannot be a key.
    pub fn new(schema: &Schema, columns: Vec<usize>) -> Result<Self, Error> {
        for &column in &columns {
            let field = schema.field(column);
            if !can_be_key(field.data_type()) {
                return Err(Error::user(
                    format!("key column {}", field.name()),
                    format!("a value of type {} cannot be a key", field.data_type()),
                ));
            }
        }
        Ok(Self { columns })
    }

    /// Encodes the keys of a batch into `keys`, whose buffers are reused.
    pub fn encode(&self, batch: &RecordBatch, keys: &mut EncodedKeys) {
        let rows = batch.num_rows();
        let columns: Vec<Column<'_>> = self
            .columns
            .iter()
            .map(|&column| Column::of(batch.column(column)))
            .collect();
        // offsets[row + 1] first holds the length of the row's key, then its beginning, and at last its end.
        keys.offsets.clear();
        keys.offsets.resize(rows + 1, 0);
        for column in &columns {
            column.add_lengths(&mut keys.offsets[1..]);
        }
        let mut begin = 0;
        for offset in &mut keys.offsets[1..] {
            let length = *offset;
            *offset = begin;
            begin += length;
        }
        keys.bytes.clear();
        keys.bytes.resize(begin, 0);
        for column in &columns {
            column.write(&mut keys.bytes, &mut keys.offsets[1..]);
        }
        assert!(
            keys.offsets.last().is_none_or(|end| *end == begin),
            "encoded lengths and bytes agree"
        );
    }
}

fn can_be_key(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Boolean
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal128(_, _)
            | DataType::Utf8
            | DataType::Binary
            | DataType::Date32
            | DataType::Timestamp(_, None)
    )
}

/// A key column. Its values are written at a cursor for each row, which moves on.
struct Column<'a> {
    array: &'a ArrayRef,
    nulls: Option<&'a NullBuffer>,
}

impl<'a> Column<'a> {
    fn of(array: &'a ArrayRef) -> Self {
        let nulls = array.nulls();
        Self { array, nulls }
    }

    fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(row))
    }

    fn add_lengths(&self, lengths: &mut [usize]) {
        let array = self.array;
        macro_rules! number {
            ($arrow:ty) => {{
                let values = array.as_primitive::<$arrow>().values();
                self.add(lengths, |row| 1 + number_length(values[row].into()))
            }};
        }
        macro_rules! timestamp {
            ($arrow:ty, $per_second:expr) => {{
                let values = array.as_primitive::<$arrow>().values();
                self.add(lengths, |row| {
                    let (seconds, nanos) = split_timestamp(values[row], $per_second);
                    1 + number_length(seconds) + number_length(nanos)
                })
            }};
        }
        match array.data_type() {
            DataType::Boolean => self.add(lengths, |_| 2),
            DataType::Float32 | DataType::Float64 => self.add(lengths, |_| 9),
            DataType::Int8 => number!(Int8Type),
            DataType::Int16 => number!(Int16Type),
            DataType::Int32 => number!(Int32Type),
            DataType::Int64 => number!(Int64Type),
            DataType::Date32 => number!(Date32Type),
            DataType::Decimal128(_, _) => {
                let values = array.as_primitive::<Decimal128Type>().values();
                self.add(lengths, |row| 3 + magnitude_length(values[row]));
            }
            DataType::Utf8 => {
                let values = array.as_string::<i32>();
                self.add(lengths, |row| bytes_length(values.value_length(row)));
            }
            DataType::Binary => {
                let values = array.as_binary::<i32>();
                self.add(lengths, |row| bytes_length(values.value_length(row)));
            }
            DataType::Timestamp(TimeUnit::Second, _) => timestamp!(TimestampSecondType, 1),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                timestamp!(TimestampMillisecondType, 1_000)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                timestamp!(TimestampMicrosecondType, 1_000_000)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                timestamp!(TimestampNanosecondType, 1_000_000_000)
            }
            other => unreachable!("KeyEncoder::new refused {other}"),
        }
    }

    fn add(&self, lengths: &mut [usize], of: impl Fn(usize) -> usize) {
        for (row, length) in lengths.iter_mut().enumerate() {
            *length += if self.is_null(row) { 1 } else { of(row) };
        }
    }

    fn write(&self, bytes: &mut [u8], cursors: &mut [usize]) {
        let array = self.array;
        macro_rules! primitive {
            ($arrow:ty, $write:expr) => {{
                let values = array.as_primitive::<$arrow>().values();
                self.each(bytes, cursors, |row, out| $write(values[row], out))
            }};
        }
        macro_rules! timestamp {
            ($arrow:ty, $per_second:expr) => {
                primitive!($arrow, |value: i64, out: &mut [u8]| {
                    let (seconds, nanos) = split_timestamp(value, $per_second);
                    let end = write_integer(TIMESTAMP, seconds, out);
                    end + write_number(nanos, &mut out[end..])
                })
            };
        }
        match array.data_type() {
            DataType::Boolean => {
                let values = array.as_boolean();
                self.each(bytes, cursors, |row, out| {
                    out[0] = BOOLEAN;
                    out[1] = u8::from(values.value(row));
                    2
                });
            }
            DataType::Int8 => {
                primitive!(Int8Type, |v: i8, out| write_integer(INTEGER, v.into(), out))
            }
            DataType::Int16 => primitive!(Int16Type, |v: i16, out| write_integer(
                INTEGER,
                v.into(),
                out
            )),
            DataType::Int32 => primitive!(Int32Type, |v: i32, out| write_integer(
                INTEGER,
                v.into(),
                out
            )),
            DataType::Int64 => primitive!(Int64Type, |v: i64, out| write_integer(INTEGER, v, out)),
            DataType::Date32 => {
                primitive!(Date32Type, |v: i32, out| write_integer(DATE, v.into(), out))
            }
            DataType::Float32 => primitive!(Float32Type, |v: f32, out| write_float(v.into(), out)),
            DataType::Float64 => primitive!(Float64Type, write_float),
            DataType::Decimal128(_, scale) => {
                primitive!(Decimal128Type, |v: i128, out: &mut [u8]| {
                    out[0] = DECIMAL;
                    out[1] = *scale as u8;
                    2 + write_magnitude(v, &mut out[2..])
                })
            }
            DataType::Utf8 => {
                let values = array.as_string::<i32>();
                self.each(bytes, cursors, |row, out| {
                    write_bytes(STRING, values.value(row).as_bytes(), out)
                });
            }
            DataType::Binary => {
                let values = array.as_binary::<i32>();
                self.each(bytes, cursors, |row, out| {
                    write_bytes(BYTES, values.value(row), out)
                });
            }
            DataType::Timestamp(TimeUnit::Second, _) => timestamp!(TimestampSecondType, 1),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                timestamp!(TimestampMillisecondType, 1_000)
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                timestamp!(TimestampMicrosecondType, 1_000_000)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                timestamp!(TimestampNanosecondType, 1_000_000_000)
            }
            other => unreachable!("KeyEncoder::new refused {other}"),
        }
    }

    /// Writes each row's value, or NULL, and moves the row's cursor behind it.
    fn each(
        &self,
        bytes: &mut [u8],
        cursors: &mut [usize],
        write: impl Fn(usize, &mut [u8]) -> usize,
    ) {
        for (row, cursor) in cursors.iter_mut().enumerate() {
            let out = &mut bytes[*cursor..];
            *cursor += if self.is_null(row) {
                out[0] = NULL;
                1
            } else {
                write(row, out)
            };
        }
    }
}

fn write_integer(tag: u8, value: i64, out: &mut [u8]) -> usize {
    out[0] = tag;
    1 + write_number(value, &mut out[1..])
}

/// Bytes that are needed besides the one that says how many.
fn significant(magnitude: u64) -> usize {
    (u64::BITS - magnitude.leading_zeros()).div_ceil(8) as usize
}

/// Bytes of an encoded number.
fn number_length(value: i64) -> usize {
    1 + significant((value ^ (value >> 63)) as u64)
}

fn write_number(value: i64, out: &mut [u8]) -> usize {
    let bytes = number_length(value) - 1;
    out[0] = if value >= 0 {
        0x80 + bytes as u8
    } else {
        0x7F - bytes as u8
    };
    out[1..1 + bytes].copy_from_slice(&value.to_be_bytes()[8 - bytes..]);
    1 + bytes
}

/// Like [`significant`] for the value of a decimal.
fn magnitude_length(value: i128) -> usize {
    let magnitude = (value ^ (value >> 127)) as u128;
    (u128::BITS - magnitude.leading_zeros()).div_ceil(8) as usize
}

/// Like [`write_number`] for the value of a decimal.
fn write_magnitude(value: i128, out: &mut [u8]) -> usize {
    let bytes = magnitude_length(value);
    out[0] = if value >= 0 {
        0x80 + bytes as u8
    } else {
        0x7F - bytes as u8
    };
    out[1..1 + bytes].copy_from_slice(&value.to_be_bytes()[16 - bytes..]);
    1 + bytes
}

/// Seconds, and nanoseconds above them.
fn split_timestamp(value: i64, per_second: i64) -> (i64, i64) {
    let nanos = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
    (value.div_euclid(per_second), nanos)
}

fn write_float(value: f64, out: &mut [u8]) -> usize {
    let canonical = if value.is_nan() {
        f64::NAN
    } else {
        value + 0.0 // turns -0 into 0
    };
    let bits = canonical.to_bits();
    let ordered = if bits & SIGN == 0 { bits ^ SIGN } else { !bits };
    out[0] = FLOAT;
    out[1..9].copy_from_slice(&ordered.to_be_bytes());
    9
}

fn write_bytes(tag: u8, value: &[u8], out: &mut [u8]) -> usize {
    out[0] = tag;
    let mut at = 1;
    let mut length = value.len();
    while length >= 0x80 {
        out[at] = length as u8 | 0x80;
        length >>= 7;
        at += 1;
    }
    out[at] = length as u8;
    at += 1;
    out[at..at + value.len()].copy_from_slice(value);
    at + value.len()
}

fn bytes_length(length: i32) -> usize {
    let length = length as usize;
    1 + leb128_length(length) + length
}

fn leb128_length(value: usize) -> usize {
    let bits = usize::BITS - value.leading_zeros();
    bits.div_ceil(7).max(1) as usize
}
