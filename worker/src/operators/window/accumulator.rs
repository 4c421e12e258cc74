//! Aggregates in the making: for one aggregate of one window a column with a slot for each key.
//!
//! A batch is given column-wise: row `rows[i]` goes to slot `slots[i]`. NULLs are not aggregated; an aggregate of
//! nothing but NULLs is NULL, a COUNT of them 0.
//!
//! | function | over | computes in | gives |
//! |---|---|---|---|
//! | COUNT | anything | i64 | BIGINT |
//! | SUM | integers | i64, overflow is an error | BIGINT |
//! | SUM, AVG | FLOAT, DOUBLE | f64 | DOUBLE |
//! | SUM | DECIMAL(p, s) | i128, overflow is an error | DECIMAL(38, s) |
//! | AVG | integers | i128 sum | DOUBLE, unlike Flink, which divides integers; cast to the declared type |
//! | AVG | DECIMAL(p, s) | i128 sum | DECIMAL, half rounded away from zero |
//! | MIN, MAX | anything | its own order; text by its bytes, NaN above all numbers | the argument's type |
//!
//! What comes out is cast to the type that the JobGraph declares.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use flott_proto::job_graph::{Aggregate, AggregateFunction};

use super::codec;
use crate::Error;
use crate::expressions::cast;
use crate::operators::registry::Link;

/// What to compute, of which column.
#[derive(Clone, Debug)]
pub(super) struct AggregateSpec {
    pub(super) function: AggregateFunction,
    /// Of the input; none for `COUNT(*)`.
    column: Option<usize>,
    /// The argument's type.
    pub(super) input: DataType,
    pub(super) kind: Kind,
    pub(super) output: DataType,
    pub(super) place: String,
}

/// How the values of an argument are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Integers, booleans, dates and timestamps, as i64.
    Integer,
    Float,
    Decimal(i8),
    /// Text and bytes.
    Bytes,
}

impl AggregateSpec {
    /// Fails if the function does not take a value of the argument's type.
    pub(super) fn build(
        aggregate: &Aggregate,
        output: &DataType,
        link: &Link<'_>,
    ) -> Result<Self, Error> {
        let place = format!("{}, column {}", link.place, aggregate.output);
        let column = match &aggregate.argument {
            Some(name) => Some(link.column(name)?),
            None => None,
        };
        let input = column.map(|column| link.input.field(column).data_type().clone());
        let mut spec = Self::of(aggregate.function, input, output.clone(), place)?;
        spec.column = column;
        Ok(spec)
    }

    /// Without a column: for values that were aggregated before. `input` is the type of the argument.
    pub(super) fn of(
        function: AggregateFunction,
        input: Option<DataType>,
        output: DataType,
        place: String,
    ) -> Result<Self, Error> {
        if input.is_none() && function != AggregateFunction::Count {
            return Err(Error::user(place, "only COUNT works without an argument"));
        }
        let input = input.unwrap_or(DataType::Int64);
        let (kind, number) = match &input {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                (Kind::Integer, true)
            }
            DataType::Float32 | DataType::Float64 => (Kind::Float, true),
            DataType::Decimal128(_, scale) => (Kind::Decimal(*scale), true),
            DataType::Boolean | DataType::Date32 | DataType::Timestamp(_, _) => {
                (Kind::Integer, false)
            }
            DataType::Utf8 | DataType::Binary => (Kind::Bytes, false),
            other => return Err(Error::user(place, format!("cannot aggregate {other}"))),
        };
        let of_numbers = matches!(function, AggregateFunction::Sum | AggregateFunction::Avg);
        if of_numbers && !number {
            return Err(Error::user(
                place,
                format!("{function:?} takes numbers, not {input}"),
            ));
        }
        Ok(Self {
            function,
            column: None,
            input,
            kind,
            output,
            place,
        })
    }

    /// The argument's values of a batch, in the form in which they are aggregated.
    pub(super) fn values(&self, batch: &RecordBatch) -> Result<Option<ArrayRef>, Error> {
        let Some(column) = self.column else {
            return Ok(None);
        };
        let values = batch.column(column);
        if self.function == AggregateFunction::Count {
            return Ok(Some(Arc::clone(values)));
        }
        let values = match self.kind {
            Kind::Integer => {
                let narrow = match self.input {
                    DataType::Date32 => cast(values, &DataType::Int32, &self.place)?,
                    _ => Arc::clone(values),
                };
                cast(&narrow, &DataType::Int64, &self.place)?
            }
            Kind::Float => cast(values, &DataType::Float64, &self.place)?,
            Kind::Decimal(_) => Arc::clone(values),
            Kind::Bytes => cast(values, &DataType::Binary, &self.place)?,
        };
        Ok(Some(values))
    }

    /// No slots yet.
    pub(super) fn accumulator(&self) -> Accumulator {
        use AggregateFunction as F;
        let values = match (self.function, self.kind) {
            (F::Count, _) => Values::None,
            (F::Avg, Kind::Integer) | (_, Kind::Decimal(_)) => Values::Wide(Vec::new()),
            (_, Kind::Integer) => Values::Integer(Vec::new()),
            (_, Kind::Float) => Values::Float(Vec::new()),
            (_, Kind::Bytes) => Values::Bytes(Vec::new()),
        };
        Accumulator {
            counts: Vec::new(),
            values,
        }
    }

    /// A result is beyond what it is computed in.
    pub(super) fn overflow(&self) -> Error {
        Error::user(
            &self.place,
            format!(
                "{:?} of {} goes beyond what it is computed in; cast the argument to DOUBLE or a smaller scale",
                self.function, self.input
            ),
        )
    }
}

/// A column of one aggregate's slots.
#[derive(Clone, Debug)]
pub(super) struct Accumulator {
    /// Values aggregated; for `COUNT(*)` rows.
    pub(super) counts: Vec<i64>,
    pub(super) values: Values,
}

/// What the slots hold besides the count.
#[derive(Clone, Debug)]
pub(super) enum Values {
    /// The count is all there is.
    None,
    Integer(Vec<i64>),
    Wide(Vec<i128>),
    Float(Vec<f64>),
    Bytes(Vec<Vec<u8>>),
}

impl Accumulator {
    /// Adds an empty slot.
    pub(super) fn push_empty(&mut self) {
        self.counts.push(0);
        match &mut self.values {
            Values::None => {}
            Values::Integer(values) => values.push(0),
            Values::Wide(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Bytes(values) => values.push(Vec::new()),
        }
    }

    /// Bytes of memory that a slot takes, without the text in it.
    pub(super) fn slot_bytes(&self) -> usize {
        8 + match &self.values {
            Values::None => 0,
            Values::Integer(_) | Values::Float(_) => 8,
            Values::Wide(_) => 16,
            Values::Bytes(_) => size_of::<Vec<u8>>(),
        }
    }

    /// Aggregates row `rows[i]` of `column` into slot `slots[i]`, for all i. Returns by how much text has grown.
    pub(super) fn update(
        &mut self,
        spec: &AggregateSpec,
        column: Option<&ArrayRef>,
        rows: &[u32],
        slots: &[u32],
    ) -> Result<usize, Error> {
        use AggregateFunction as F;
        let counts = &mut self.counts;
        let Some(column) = column else {
            for &slot in slots {
                counts[slot as usize] += 1;
            }
            return Ok(0);
        };
        let pairs = || Pairs::new(column, rows, slots);
        let overflow = || spec.overflow();
        match (&mut self.values, spec.function) {
            (Values::None, _) => {
                pairs().for_each(|_, slot| {
                    counts[slot] += 1;
                    Some(())
                });
            }
            (Values::Integer(sums), F::Sum) => {
                let values = column.as_primitive::<Int64Type>().values();
                pairs()
                    .for_each(|row, slot| {
                        counts[slot] += 1;
                        sums[slot] = sums[slot].checked_add(values[row])?;
                        Some(())
                    })
                    .ok_or_else(overflow)?;
            }
            (Values::Integer(held), function) => {
                let values = column.as_primitive::<Int64Type>().values();
                extreme(counts, held, function, pairs(), |row| values[row], i64::cmp);
            }
            (Values::Float(sums), F::Sum | F::Avg) => {
                let values = column.as_primitive::<Float64Type>().values();
                pairs().for_each(|row, slot| {
                    counts[slot] += 1;
                    sums[slot] += values[row];
                    Some(())
                });
            }
            (Values::Float(held), function) => {
                let values = column.as_primitive::<Float64Type>().values();
                extreme(
                    counts,
                    held,
                    function,
                    pairs(),
                    |row| values[row],
                    f64::total_cmp,
                );
            }
            (Values::Wide(sums), F::Avg) if spec.kind == Kind::Integer => {
                let values = column.as_primitive::<Int64Type>().values();
                pairs().for_each(|row, slot| {
                    counts[slot] += 1;
                    sums[slot] += i128::from(values[row]);
                    Some(())
                });
            }
            (Values::Wide(sums), F::Sum | F::Avg) => {
                let values = column.as_primitive::<Decimal128Type>().values();
                pairs()
                    .for_each(|row, slot| {
                        counts[slot] += 1;
                        sums[slot] = sums[slot].checked_add(values[row])?;
                        Some(())
                    })
                    .ok_or_else(overflow)?;
            }
            (Values::Wide(held), function) => {
                let values = column.as_primitive::<Decimal128Type>().values();
                extreme(
                    counts,
                    held,
                    function,
                    pairs(),
                    |row| values[row],
                    i128::cmp,
                );
            }
            (Values::Bytes(held), function) => {
                return Ok(extreme_bytes(counts, held, function, pairs(), column));
            }
        }
        Ok(0)
    }

    /// The slots in `slots`, in that order.
    pub(super) fn gather(&self, slots: &[u32]) -> Self {
        fn pick<T: Clone>(values: &[T], slots: &[u32]) -> Vec<T> {
            slots
                .iter()
                .map(|slot| values[*slot as usize].clone())
                .collect()
        }
        Self {
            counts: pick(&self.counts, slots),
            values: match &self.values {
                Values::None => Values::None,
                Values::Integer(values) => Values::Integer(pick(values, slots)),
                Values::Wide(values) => Values::Wide(pick(values, slots)),
                Values::Float(values) => Values::Float(pick(values, slots)),
                Values::Bytes(values) => Values::Bytes(pick(values, slots)),
            },
        }
    }

    /// Bytes of text in a slot.
    pub(super) fn text_bytes(&self, slot: usize) -> usize {
        match &self.values {
            Values::Bytes(values) => values[slot].len(),
            _ => 0,
        }
    }

    /// Appends a slot in its stored form.
    pub(super) fn encode(&self, slot: usize, out: &mut Vec<u8>) {
        codec::write_number(self.counts[slot].into(), out);
        if self.counts[slot] > 0 {
            match &self.values {
                Values::None => {}
                Values::Integer(values) => codec::write_number(values[slot].into(), out),
                Values::Wide(values) => codec::write_number(values[slot], out),
                Values::Float(values) => out.extend_from_slice(&values[slot].to_le_bytes()),
                Values::Bytes(values) => codec::write_bytes(&values[slot], out),
            }
        }
    }

    /// Fills a slot from its stored form, taken off the front of `stored`. `None` if that is damaged.
    pub(super) fn decode(&mut self, slot: usize, stored: &mut &[u8]) -> Option<()> {
        self.counts[slot] = codec::read_number(stored)?.try_into().ok()?;
        if self.counts[slot] > 0 {
            match &mut self.values {
                Values::None => {}
                Values::Integer(values) => {
                    values[slot] = codec::read_number(stored)?.try_into().ok()?;
                }
                Values::Wide(values) => values[slot] = codec::read_number(stored)?,
                Values::Float(values) => {
                    let (bytes, rest) = stored.split_first_chunk()?;
                    values[slot] = f64::from_le_bytes(*bytes);
                    *stored = rest;
                }
                Values::Bytes(values) => values[slot] = codec::read_bytes(stored)?.to_vec(),
            }
        }
        Some(())
    }
}

/// The rows that are not NULL, each with its slot.
struct Pairs<'a> {
    column: &'a ArrayRef,
    rows: &'a [u32],
    slots: &'a [u32],
}

impl<'a> Pairs<'a> {
    fn new(column: &'a ArrayRef, rows: &'a [u32], slots: &'a [u32]) -> Self {
        assert_eq!(rows.len(), slots.len(), "every row has a slot");
        Self {
            column,
            rows,
            slots,
        }
    }

    /// Ends early, with `None`, where `each` gives `None`.
    fn for_each(self, mut each: impl FnMut(usize, usize) -> Option<()>) -> Option<()> {
        let mut pairs = self.rows.iter().zip(self.slots);
        match self.column.nulls() {
            None => pairs.try_for_each(|(row, slot)| each(*row as usize, *slot as usize)),
            Some(nulls) => pairs.try_for_each(|(row, slot)| {
                if nulls.is_null(*row as usize) {
                    return Some(());
                }
                each(*row as usize, *slot as usize)
            }),
        }
    }
}

/// The order in which a value takes the place of the one held.
fn wanted(function: AggregateFunction) -> Ordering {
    match function {
        AggregateFunction::Min => Ordering::Less,
        AggregateFunction::Max => Ordering::Greater,
        other => unreachable!("{other:?} holds no extreme"),
    }
}

fn extreme<T: Copy>(
    counts: &mut [i64],
    held: &mut [T],
    function: AggregateFunction,
    pairs: Pairs<'_>,
    value: impl Fn(usize) -> T,
    compare: impl Fn(&T, &T) -> Ordering,
) {
    let wanted = wanted(function);
    pairs.for_each(|row, slot| {
        let value = value(row);
        if counts[slot] == 0 || compare(&value, &held[slot]) == wanted {
            held[slot] = value;
        }
        counts[slot] += 1;
        Some(())
    });
}

fn extreme_bytes(
    counts: &mut [i64],
    held: &mut [Vec<u8>],
    function: AggregateFunction,
    pairs: Pairs<'_>,
    column: &ArrayRef,
) -> usize {
    let wanted = wanted(function);
    let values = column.as_binary::<i32>();
    let mut grown = 0;
    pairs.for_each(|row, slot| {
        let value = values.value(row);
        if counts[slot] == 0 || value.cmp(&held[slot]) == wanted {
            grown += value.len().saturating_sub(held[slot].len());
            held[slot].clear();
            held[slot].extend_from_slice(value);
        }
        counts[slot] += 1;
        Some(())
    });
    grown
}
