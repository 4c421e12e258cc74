//! Columns to records: JSON lines and CSV.
//!
//! Timestamps are written as Flink's formats write them: `2013-01-01 05:00:00`, with a fraction only where there is
//! one, or with a `T` in JSON where the table asks for ISO 8601. `BYTES` are base64.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::record_batch::RecordBatch;
use csv::{QuoteStyle, WriterBuilder};
use flott_proto::job_graph::{CsvFormat, Format, JsonFormat};

use super::text;
use crate::Error;
use crate::time::calendar;

/// Writes batches of one schema as records of one format.
#[derive(Debug)]
pub(crate) enum Encoder {
    Json {
        iso_timestamps: bool,
        /// For each column what stands before its value: `{"a":` or `,"b":`.
        heads: Vec<Vec<u8>>,
    },
    Csv {
        format: CsvFormat,
        header: Vec<u8>,
    },
}

impl Encoder {
    pub(crate) fn new(format: &Format, schema: &SchemaRef, place: &str) -> Result<Self, Error> {
        match format {
            Format::Json(json) => Ok(Self::json(json, schema)),
            Format::Csv(csv) => {
                let mut header = Vec::new();
                if csv.header {
                    let names = schema.fields().iter().map(|field| field.name());
                    let mut writer = csv_writer(csv, &mut header);
                    let written = writer
                        .write_record(names)
                        .and_then(|()| Ok(writer.flush()?));
                    written.map_err(|error| Error::user(place, error))?;
                    drop(writer);
                }
                let format = csv.clone();
                Ok(Self::Csv { format, header })
            }
        }
    }

    fn json(json: &JsonFormat, schema: &SchemaRef) -> Self {
        let head = |(at, field): (usize, &arrow::datatypes::FieldRef)| {
            let mut head = vec![if at == 0 { b'{' } else { b',' }];
            write_json_text(field.name(), &mut head);
            head.push(b':');
            head
        };
        Self::Json {
            iso_timestamps: json.iso_timestamps,
            heads: schema.fields().iter().enumerate().map(head).collect(),
        }
    }

    /// The extension of a file's name.
    pub(crate) fn extension(&self) -> &'static str {
        match self {
            Self::Json { .. } => "json",
            Self::Csv { .. } => "csv",
        }
    }

    /// What a file begins with.
    pub(crate) fn header(&self) -> &[u8] {
        match self {
            Self::Json { .. } => &[],
            Self::Csv { header, .. } => header,
        }
    }

    /// Appends a record for each row.
    pub(crate) fn encode(
        &self,
        batch: &RecordBatch,
        out: &mut Vec<u8>,
        place: &str,
    ) -> Result<(), Error> {
        match self {
            Self::Json {
                iso_timestamps,
                heads,
            } => {
                for row in 0..batch.num_rows() {
                    if heads.is_empty() {
                        out.push(b'{');
                    }
                    for (head, column) in heads.iter().zip(batch.columns()) {
                        out.extend_from_slice(head);
                        write_json(column, row, *iso_timestamps, out);
                    }
                    out.extend_from_slice(b"}\n");
                }
                Ok(())
            }
            Self::Csv { format, .. } => {
                encode_csv(format, batch, out).map_err(|error| Error::user(place, error))
            }
        }
    }
}

fn csv_writer<'a>(format: &CsvFormat, out: &'a mut Vec<u8>) -> csv::Writer<&'a mut Vec<u8>> {
    WriterBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(format.delimiter as u8)
        .quote_style(QuoteStyle::Necessary)
        .from_writer(out)
}

fn encode_csv(format: &CsvFormat, batch: &RecordBatch, out: &mut Vec<u8>) -> csv::Result<()> {
    let mut writer = csv_writer(format, out);
    let mut field = Vec::new();
    for row in 0..batch.num_rows() {
        for column in batch.columns() {
            field.clear();
            if column.is_null(row) {
                field.extend_from_slice(format.null_literal.as_bytes());
            } else if !write_value(column, row, b' ', &mut field) {
                write_text(column, row, &mut field);
            }
            writer.write_field(&field)?;
        }
        writer.write_record(None::<&[u8]>)?;
    }
    writer.flush()?;
    Ok(())
}

fn write_json(column: &ArrayRef, row: usize, iso_timestamps: bool, out: &mut Vec<u8>) {
    if column.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match column.data_type() {
        DataType::Utf8 => write_json_text(column.as_string::<i32>().value(row), out),
        DataType::Binary | DataType::Date32 | DataType::Timestamp(_, _) => {
            let separator = if iso_timestamps { b'T' } else { b' ' };
            out.push(b'"');
            if !write_value(column, row, separator, out) {
                write_text(column, row, out);
            }
            out.push(b'"');
        }
        DataType::Float32 | DataType::Float64 if !is_finite(column, row) => {
            // JSON has no such numbers; Flink writes them as text too.
            out.push(b'"');
            write_value(column, row, b' ', out);
            out.push(b'"');
        }
        _ => {
            write_value(column, row, b' ', out);
        }
    }
}

fn write_json_text(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, text).expect("text is always JSON, and memory takes it");
}

fn is_finite(column: &ArrayRef, row: usize) -> bool {
    match column.data_type() {
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).is_finite(),
        _ => column.as_primitive::<Float64Type>().value(row).is_finite(),
    }
}

/// Appends text and bytes.
fn write_text(column: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    match column.data_type() {
        DataType::Utf8 => out.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
        _ => text::write_base64(column.as_binary::<i32>().value(row), out),
    }
}

/// Appends a value that needs no escaping; `false` for text and bytes.
fn write_value(column: &ArrayRef, row: usize, separator: u8, out: &mut Vec<u8>) -> bool {
    macro_rules! primitive {
        ($arrow:ty) => {
            column.as_primitive::<$arrow>().value(row)
        };
    }
    let mut moment = |value: i64, per_second: i64| {
        calendar::write_moment(text::moment_of_units(value, per_second), separator, out);
    };
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => moment(primitive!(TimestampSecondType), 1),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            moment(primitive!(TimestampMillisecondType), 1_000);
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            moment(primitive!(TimestampMicrosecondType), 1_000_000);
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            moment(primitive!(TimestampNanosecondType), 1_000_000_000);
        }
        DataType::Date32 => calendar::write_date(primitive!(Date32Type).into(), out),
        DataType::Boolean => {
            let value = column.as_boolean().value(row);
            out.extend_from_slice(if value { b"true" } else { b"false" });
        }
        DataType::Int8 => write_integer(primitive!(Int8Type).into(), out),
        DataType::Int16 => write_integer(primitive!(Int16Type).into(), out),
        DataType::Int32 => write_integer(primitive!(Int32Type).into(), out),
        DataType::Int64 => write_integer(primitive!(Int64Type), out),
        // Debug keeps the `.0` of a whole number, as Flink does.
        DataType::Float32 => {
            out.extend_from_slice(format!("{:?}", primitive!(Float32Type)).as_bytes());
        }
        DataType::Float64 => {
            out.extend_from_slice(format!("{:?}", primitive!(Float64Type)).as_bytes());
        }
        DataType::Decimal128(_, scale) => {
            text::write_decimal(primitive!(Decimal128Type), *scale, out);
        }
        _ => return false,
    }
    true
}

fn write_integer(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
        StringArray, TimestampMillisecondArray,
    };
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn batch() -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("a,\"b\"\n"), None])),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(7)])),
            Arc::new(TimestampMillisecondArray::from(vec![
                1_357_016_400_000,
                1_120,
            ])),
            Arc::new(Date32Array::from(vec![Some(15_706), None])),
            Arc::new(BooleanArray::from(vec![true, false])),
            Arc::new(Float64Array::from(vec![1.5, f64::NAN])),
            Arc::new(BinaryArray::from(vec![&[1u8, 2][..], &[][..]])),
            Arc::new(
                Decimal128Array::from(vec![-5, 1_234])
                    .with_precision_and_scale(6, 2)
                    .unwrap(),
            ),
        ];
        let field = |(at, column): (usize, &ArrayRef)| {
            Field::new(format!("c{at}"), column.data_type().clone(), true)
        };
        let fields: Vec<Field> = columns.iter().enumerate().map(field).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    fn encoded(format: &Format) -> String {
        let batch = batch();
        let encoder = Encoder::new(format, batch.schema_ref(), "sink").unwrap();
        let mut out = encoder.header().to_vec();
        encoder.encode(&batch, &mut out, "sink").unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_lines_are_as_flink_writes_them() {
        let json = |iso_timestamps| {
            Format::Json(JsonFormat {
                ignore_parse_errors: false,
                iso_timestamps,
            })
        };
        let expected = concat!(
            r#"{"c0":"a,\"b\"\n","c1":-9223372036854775808,"c2":"2013-01-01 05:00:00","c3":"2013-01-01","c4":true,"#,
            r#""c5":1.5,"c6":"AQI=","c7":-0.05}"#,
            "\n",
            r#"{"c0":null,"c1":7,"c2":"1970-01-01 00:00:01.12","c3":null,"c4":false,"#,
            r#""c5":"NaN","c6":"","c7":12.34}"#,
            "\n",
        );
        assert_eq!(encoded(&json(false)), expected);
        for line in expected.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        assert!(encoded(&json(true)).contains("\"2013-01-01T05:00:00\""));
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let format = Format::Csv(CsvFormat {
            header: true,
            delimiter: ',',
            ignore_parse_errors: false,
            null_literal: "\\N".into(),
        });
        let expected = "c0,c1,c2,c3,c4,c5,c6,c7\n\
            \"a,\"\"b\"\"\n\",-9223372036854775808,2013-01-01 05:00:00,2013-01-01,true,1.5,AQI=,-0.05\n\
            \\N,7,1970-01-01 00:00:01.12,\\N,false,NaN,,12.34\n";
        assert_eq!(encoded(&format), expected);
    }
}
