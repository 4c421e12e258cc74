//! What windows have stored, as columns that a person understands.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use flott_proto::job_graph::AggregateFunction;
use flott_proto::state_schema::{AggregateSchema, WindowSchema};
use flott_statestore::Timer;
use xxhash_rust::xxh3::xxh3_64;

use super::accumulator::AggregateSpec;
use super::bucket::Bucket;
use super::codec::end_of_key;
use crate::Error;
use crate::expressions::{batch_of, cast};
use crate::keys::KeyDecoder;

const MILLISECONDS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

/// A stored value with its key and its namespace.
#[derive(Debug)]
pub(crate) struct StoredValue {
    pub(crate) key: Vec<u8>,
    pub(crate) namespace: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Decodes the keyed state of one window aggregation.
#[derive(Debug)]
pub(crate) struct WindowReader {
    size_ms: i64,
    keys: KeyDecoder,
    aggregates: Vec<AggregateSpec>,
    /// Keys, window start and end, aggregates.
    values: SchemaRef,
    /// Key group and time.
    timers: SchemaRef,
    place: String,
}

impl WindowReader {
    /// For state of this schema, of the operator with that uid.
    pub(crate) fn new(schema: &WindowSchema, uid: &str) -> Result<Self, Error> {
        let place = format!("operator {uid}");
        let mut fields: Vec<Field> = schema
            .keys
            .iter()
            .map(|key| Field::new(&key.name, key.data_type.to_arrow(), true))
            .collect();
        let types = fields.iter().map(|field| field.data_type().clone());
        let keys = KeyDecoder::new(types.collect());
        let timers = vec![
            Field::new("key_group", DataType::Int32, false),
            Field::new("time", MILLISECONDS, false),
        ];
        let aggregates = schema
            .aggregates
            .iter()
            .map(|aggregate| {
                let input = aggregate.argument.map(|argument| argument.to_arrow());
                AggregateSpec::of(
                    aggregate.function,
                    input,
                    result_type(aggregate),
                    place.clone(),
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        for time in ["window_start", "window_end"] {
            fields.push(Field::new(time, MILLISECONDS, false));
        }
        for (aggregate, spec) in schema.aggregates.iter().zip(&aggregates) {
            fields.push(Field::new(&aggregate.name, spec.output.clone(), true));
        }
        Ok(Self {
            size_ms: i64::try_from(schema.size_ms).map_err(|error| Error::user(&place, error))?,
            keys,
            aggregates,
            values: Arc::new(Schema::new(fields)),
            timers: Arc::new(Schema::new(timers)),
            place,
        })
    }

    /// The columns of [`Self::values`].
    pub(crate) fn value_schema(&self) -> &SchemaRef {
        &self.values
    }

    /// The columns of [`Self::timers`].
    pub(crate) fn timer_schema(&self) -> &SchemaRef {
        &self.timers
    }

    /// A row for each value.
    pub(crate) fn values(&self, values: &[StoredValue]) -> Result<RecordBatch, Error> {
        let damaged = || Error::user(&self.place, "a stored window is damaged");
        let mut bucket = Bucket::new(&self.aggregates, true);
        let mut ends = Vec::with_capacity(values.len());
        for value in values {
            // A key may be there several times, with different windows: slots are not looked up by it here.
            let slot = bucket.push(xxh3_64(&value.namespace), &value.namespace);
            let decoded = bucket.decode(slot as usize, &value.value);
            decoded.ok_or_else(damaged)?;
            ends.push(end_of_key(&value.key).ok_or_else(damaged)?);
        }
        let keys = values.iter().map(|value| value.namespace.as_slice());
        let mut columns = self.keys.decode(keys)?;
        for (column, field) in columns.iter_mut().zip(self.values.fields()) {
            *column = cast(column, field.data_type(), &self.place)?;
        }
        let starts = ends.iter().map(|end| end - self.size_ms);
        columns.push(Arc::new(TimestampMillisecondArray::from_iter_values(
            starts,
        )));
        columns.push(Arc::new(TimestampMillisecondArray::from(ends)));
        columns.extend(bucket.results(&self.aggregates, 0..values.len())?);
        batch_of(&self.values, columns, values.len(), &self.place)
    }

    /// A row for each timer.
    pub(crate) fn timers(&self, timers: &[Timer]) -> Result<RecordBatch, Error> {
        let groups = timers.iter().map(|timer| i32::from(timer.group.0));
        let times = timers.iter().map(|timer| timer.time_ms);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(groups)),
            Arc::new(TimestampMillisecondArray::from_iter_values(times)),
        ];
        batch_of(&self.timers, columns, timers.len(), &self.place)
    }
}

/// What an aggregate comes to if nobody declares another type.
fn result_type(aggregate: &AggregateSchema) -> DataType {
    let argument = aggregate.argument.map(|argument| argument.to_arrow());
    match (aggregate.function, argument) {
        (AggregateFunction::Count, _) | (_, None) => DataType::Int64,
        (AggregateFunction::Min | AggregateFunction::Max, Some(argument)) => argument,
        (_, Some(DataType::Decimal128(_, scale))) => DataType::Decimal128(38, scale),
        (AggregateFunction::Avg, _) | (_, Some(DataType::Float32 | DataType::Float64)) => {
            DataType::Float64
        }
        (AggregateFunction::Sum, _) => DataType::Int64,
    }
}

#[cfg(test)]
mod tests {
    use flott_proto::job_graph::Field as Column;
    use flott_proto::key_group::KeyGroup;

    use super::super::codec::{VERSION, window_key, write_number};
    use super::*;
    use crate::keys::{EncodedKeys, KeyEncoder};

    fn schema() -> WindowSchema {
        let key = Column {
            name: "origin".into(),
            data_type: "STRING".parse().unwrap(),
            nullable: true,
        };
        let aggregate = |function, argument: &str, name: &str| AggregateSchema {
            function,
            argument: (!argument.is_empty()).then(|| argument.parse().unwrap()),
            name: name.into(),
        };
        WindowSchema {
            keys: vec![key],
            size_ms: 1000,
            offset_ms: 0,
            aggregates: vec![
                aggregate(AggregateFunction::Count, "", "n"),
                aggregate(AggregateFunction::Sum, "INT", "sum"),
            ],
        }
    }

    fn key_of(text: &str) -> Vec<u8> {
        let column: ArrayRef = Arc::new(arrow::array::StringArray::from(vec![text]));
        let batch = RecordBatch::try_from_iter([("origin", column)]).unwrap();
        let encoder = KeyEncoder::new(batch.schema_ref(), vec![0]).unwrap();
        let mut keys = EncodedKeys::default();
        encoder.encode(&batch, &mut keys);
        keys.key(0).to_vec()
    }

    #[test]
    fn a_key_in_two_windows_is_two_rows_and_damage_is_an_error() {
        let reader = WindowReader::new(&schema(), "w").unwrap();
        let stored = |end_ms: i64, numbers: &[i128]| {
            let mut value = vec![VERSION];
            numbers
                .iter()
                .for_each(|number| write_number(*number, &mut value));
            StoredValue {
                key: window_key(end_ms).to_vec(),
                namespace: key_of("JFK"),
                value,
            }
        };
        let batch = reader
            .values(&[stored(1000, &[3, 2, 40]), stored(2000, &[1, 0])])
            .unwrap();
        let text = arrow::util::pretty::pretty_format_batches(&[batch]).unwrap();
        let rows: Vec<Vec<String>> = text
            .to_string()
            .lines()
            .filter(|line| line.contains("JFK"))
            .map(|line| {
                let cells = line.trim_matches('|').split('|');
                cells.map(|cell| cell.trim().to_owned()).collect()
            })
            .collect();
        assert_eq!(
            rows[0],
            [
                "JFK",
                "1970-01-01T00:00:00",
                "1970-01-01T00:00:01",
                "3",
                "40"
            ]
        );
        assert_eq!(
            rows[1],
            ["JFK", "1970-01-01T00:00:01", "1970-01-01T00:00:02", "1", ""]
        );
        assert!(reader.values(&[stored(1000, &[3, 2])]).is_err());
        // Written before the job had the second aggregate.
        let earlier = reader.values(&[stored(1000, &[3])]).unwrap();
        assert!(earlier.column_by_name("sum").unwrap().is_null(0));
        let timer = Timer {
            time_ms: 999,
            group: KeyGroup(0),
            key: Vec::new(),
            namespace: Vec::new(),
        };
        assert_eq!(reader.timers(&[timer]).unwrap().num_rows(), 1);
    }
}
