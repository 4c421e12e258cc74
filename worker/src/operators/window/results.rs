//! What the aggregates of a window come to, in the types that the JobGraph declares.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, Decimal128Array, Float64Array, Int64Array, StringBuilder,
};
use arrow::datatypes::DataType;
use flott_proto::job_graph::AggregateFunction;

use super::accumulator::{Accumulator, AggregateSpec, Kind, Values};
use crate::Error;
use crate::expressions::cast;

/// Most digits of a decimal.
const DECIMAL_DIGITS_MAX: u8 = 38;

impl Accumulator {
    /// The results of a run of slots, in the declared type.
    pub(super) fn results(
        &self,
        spec: &AggregateSpec,
        slots: Range<usize>,
    ) -> Result<ArrayRef, Error> {
        use AggregateFunction as F;
        let counts = &self.counts[slots.clone()];
        fn of<'a, T: Copy>(counts: &'a [i64], values: &'a [T]) -> impl Iterator<Item = Option<T>> {
            let pairs = counts.iter().zip(values);
            pairs.map(|(count, value)| (*count > 0).then_some(*value))
        }
        let array: ArrayRef = match (&self.values, spec.function) {
            (Values::None, _) => Arc::new(Int64Array::from(counts.to_vec())),
            (Values::Integer(values), _) => {
                let array: Int64Array = of(counts, &values[slots]).collect();
                narrow(spec, Arc::new(array))?
            }
            (Values::Float(values), F::Avg) => {
                let pairs = counts.iter().zip(&values[slots]);
                let average =
                    |(count, sum): (&i64, &f64)| (*count > 0).then(|| sum / *count as f64);
                Arc::new(pairs.map(average).collect::<Float64Array>())
            }
            (Values::Float(values), _) => {
                Arc::new(of(counts, &values[slots]).collect::<Float64Array>())
            }
            (Values::Wide(values), F::Avg) => average(spec, counts, &values[slots])?,
            (Values::Wide(values), _) => {
                let Kind::Decimal(scale) = spec.kind else {
                    unreachable!("wide values are sums of integers or decimals")
                };
                decimals(of(counts, &values[slots]).collect(), scale, spec)?
            }
            (Values::Bytes(values), _) => {
                bytes(counts.iter().zip(&values[slots]), &spec.input, spec)?
            }
        };
        cast(&array, &spec.output, &spec.place)
    }
}

/// Integers back to the argument's type.
fn narrow(spec: &AggregateSpec, array: ArrayRef) -> Result<ArrayRef, Error> {
    if spec.function == AggregateFunction::Sum {
        return Ok(array);
    }
    let array = match spec.input {
        DataType::Date32 => cast(&array, &DataType::Int32, &spec.place)?,
        _ => array,
    };
    cast(&array, &spec.input, &spec.place)
}

fn average(spec: &AggregateSpec, counts: &[i64], sums: &[i128]) -> Result<ArrayRef, Error> {
    let pairs = || counts.iter().zip(sums);
    let Kind::Decimal(scale) = spec.kind else {
        let average =
            |(count, sum): (&i64, &i128)| (*count > 0).then(|| *sum as f64 / *count as f64);
        return Ok(Arc::new(pairs().map(average).collect::<Float64Array>()));
    };
    let to = match spec.output {
        DataType::Decimal128(_, to) if to >= scale => to,
        _ => scale,
    };
    let factor = 10i128.pow((to - scale) as u32);
    let average = |(count, sum): (&i64, &i128)| {
        if *count == 0 {
            return Ok(None);
        }
        let count = i128::from(*count);
        let scaled = sum.checked_mul(factor).ok_or_else(|| spec.overflow())?;
        let away = if scaled < 0 { -(count / 2) } else { count / 2 };
        Ok(Some((scaled + away) / count))
    };
    let averages = pairs().map(average).collect::<Result<Vec<_>, Error>>()?;
    decimals(averages, to, spec)
}

fn decimals(values: Vec<Option<i128>>, scale: i8, spec: &AggregateSpec) -> Result<ArrayRef, Error> {
    let array = Decimal128Array::from(values)
        .with_precision_and_scale(DECIMAL_DIGITS_MAX, scale)
        .map_err(Error::arrow(&spec.place))?;
    array
        .validate_decimal_precision(DECIMAL_DIGITS_MAX)
        .map_err(|_| spec.overflow())?;
    Ok(Arc::new(array))
}

fn bytes<'a>(
    values: impl Iterator<Item = (&'a i64, &'a Vec<u8>)>,
    data_type: &DataType,
    spec: &AggregateSpec,
) -> Result<ArrayRef, Error> {
    let values = values.map(|(count, value)| (*count > 0).then_some(value.as_slice()));
    if *data_type == DataType::Binary {
        let mut builder = BinaryBuilder::new();
        values.for_each(|value| builder.append_option(value));
        return Ok(Arc::new(builder.finish()));
    }
    let mut builder = StringBuilder::new();
    for value in values {
        let text = value.map(std::str::from_utf8).transpose();
        builder.append_option(text.map_err(|error| Error::user(&spec.place, error))?);
    }
    Ok(Arc::new(builder.finish()))
}
