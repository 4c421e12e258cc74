//! The filesystem source of one subtask: its splits one after another, at the pace that the table asks for.
//!
//! Split number i belongs to subtask i modulo the parallelism. The state holds the subtask's splits with the position
//! behind the last record that was given, so that reading goes on there, at whatever parallelism.

use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use flott_node::SharedClock;
use flott_proto::job_graph::{FilesystemSource, Format};
use flott_proto::wire::{self, FileSourceState, FileSplitState, StateOrigin};
use prost::Message;
use tracing::{info, warn};

use super::csv::CsvRecords;
use super::json::JsonRecords;
use super::local_path;
use super::rows::{RowsBuilder, Unfit};
use super::split;
use crate::Error;
use crate::connectors::rate_limit::{Allowed, RateLimit};
use crate::connectors::{BATCH_ROWS, Polled, Source};
use crate::operators::{OperatorContext, restore};

/// Skipped rows that are named in the log one by one; the others are only counted.
const SKIPPED_LOGGED_MAX: u64 = 10;

#[derive(Debug)]
pub(crate) struct FileSource {
    table: FilesystemSource,
    schema: SchemaRef,
    place: String,
    splits: Vec<FileSplitState>,
    split_count: u32,
    /// Reads the first split that is not finished.
    open: Option<Records>,
    limit: Option<RateLimit>,
    skipped: u64,
    origin: StateOrigin,
}

impl FileSource {
    pub(crate) fn build(table: &FilesystemSource, schema: SchemaRef) -> Self {
        Self {
            table: table.clone(),
            schema,
            place: format!("table source {}", table.path),
            splits: Vec::new(),
            split_count: 0,
            open: None,
            limit: None,
            skipped: 0,
            origin: StateOrigin::default(),
        }
    }

    fn is_own(&self, split: &FileSplitState) -> bool {
        split.index % self.origin.parallelism == self.origin.subtask
    }

    /// Reads up to `most` records of the open split. Says whether it has ended.
    fn read(&mut self, at: usize, most: usize) -> Result<(Polled, usize), Error> {
        let split = &mut self.splits[at];
        let path = PathBuf::from(&split.path);
        let records = match &mut self.open {
            Some(records) => records,
            closed => {
                let position = (split.byte_offset, split.line);
                info!(path = %split.path, offset = split.byte_offset, "opened split");
                let format = &self.table.format;
                closed.insert(Records::open(
                    &path,
                    format,
                    &self.schema,
                    position,
                    &self.place,
                )?)
            }
        };
        let ignore_parse_errors = match &self.table.format {
            Format::Csv(csv) => csv.ignore_parse_errors,
            Format::Json(json) => json.ignore_parse_errors,
        };
        let mut rows = RowsBuilder::new(&self.schema, most);
        while rows.rows() < most {
            let Some(read) = records.read(&mut rows, &path, &self.place)? else {
                split.finished = true;
                break;
            };
            if let Err(unfit) = read {
                let row = format!("{}:{}", split.path, records.line());
                if !ignore_parse_errors {
                    return Err(Error::user(row, unfit));
                }
                rows.refuse_row();
                self.skipped += 1;
                if self.skipped <= SKIPPED_LOGGED_MAX {
                    warn!(row, unfit, "skipped row");
                }
            }
        }
        (split.byte_offset, split.line) = records.position();
        if split.finished {
            self.open = None;
        }
        let read = rows.rows();
        Ok((Polled::Batch(rows.finish(&self.place)?), read))
    }
}

impl Source for FileSource {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<(), Error> {
        self.origin = restore::origin::<FileSourceState>(ctx);
        let states = restore::states_of::<FileSourceState>(ctx)?;
        if let Some(state) = states.first() {
            self.split_count = state.split_count;
            let splits = states.into_iter().flat_map(|state| state.splits);
            self.splits = splits.filter(|split| self.is_own(split)).collect();
            self.splits.sort_by_key(|split| split.index);
        } else {
            let splits = split::find(&local_path(&self.table.path, &self.place)?, &self.place)?;
            self.split_count = splits.len() as u32;
            self.splits = splits
                .into_iter()
                .filter(|split| self.is_own(split))
                .collect();
        }
        if self.split_count == 0 {
            warn!(
                path = self.table.path,
                "the directory holds no files to read"
            );
        }
        // The subtasks that have splits share the pace.
        let sharing = self.split_count.min(self.origin.parallelism).max(1);
        self.limit = Some(RateLimit::new(
            self.table.rows_per_second as f64,
            1.0 / f64::from(sharing),
            SharedClock::clone(&ctx.chain.clock),
        ));
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled, Error> {
        let Some(at) = self.splits.iter().position(|split| !split.finished) else {
            return Ok(Polled::End);
        };
        let limit = self.limit.as_mut().expect("opened before use");
        let most = match limit.allowed(BATCH_ROWS) {
            Allowed::Rows(rows) => rows,
            Allowed::NotBefore(time) => return Ok(Polled::NotBefore(time)),
        };
        let (polled, read) = self.read(at, most)?;
        if let Some(limit) = &mut self.limit {
            limit.took(read);
        }
        Ok(polled)
    }

    fn snapshot(&mut self) -> Result<Bytes, Error> {
        let state = FileSourceState {
            origin: Some(self.origin),
            split_count: self.split_count,
            splits: self.splits.clone(),
        };
        Ok(state.encode_to_vec().into())
    }

    fn add_counters(&self, counters: &mut wire::TaskCounters) {
        counters.parse_errors_skipped += self.skipped;
    }
}

/// The records of an open split, in the table's format.
#[derive(Debug)]
enum Records {
    Csv(Box<CsvRecords>),
    Json(JsonRecords),
}

impl Records {
    fn open(
        path: &Path,
        format: &Format,
        schema: &SchemaRef,
        position: (u64, u64),
        place: &str,
    ) -> Result<Self, Error> {
        Ok(match format {
            Format::Csv(csv) => Self::Csv(Box::new(CsvRecords::open(
                path, csv, schema, position, place,
            )?)),
            Format::Json(_) => Self::Json(JsonRecords::open(path, schema, position, place)?),
        })
    }

    fn read(
        &mut self,
        rows: &mut RowsBuilder,
        path: &Path,
        place: &str,
    ) -> Result<Option<Result<(), Unfit>>, Error> {
        match self {
            Self::Csv(records) => records.read(rows, path, place),
            Self::Json(records) => records.read(rows, path, place),
        }
    }

    fn line(&self) -> u64 {
        match self {
            Self::Csv(records) => records.line(),
            Self::Json(records) => records.line(),
        }
    }

    fn position(&self) -> (u64, u64) {
        match self {
            Self::Csv(records) => records.position(),
            Self::Json(records) => records.position(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
    use flott_decoders::{Seeds, told};
    use flott_proto::job_graph::{CsvFormat, JsonFormat};

    use super::*;

    const RECORDS_MAX: usize = 10_000;

    fn schema() -> SchemaRef {
        let types = [
            DataType::Int64,
            DataType::Utf8,
            DataType::Timestamp(TimeUnit::Millisecond, None),
            DataType::Decimal128(10, 2),
            DataType::Boolean,
            DataType::Float32,
            DataType::Date32,
            DataType::Binary,
            DataType::Int8,
        ];
        let field = |(at, of): (usize, DataType)| Field::new(format!("c{at}"), of, at % 2 == 1);
        let fields: Vec<Field> = types.into_iter().enumerate().map(field).collect();
        Arc::new(Schema::new(fields))
    }

    /// Reads a file from a position on: where each record ended, and what did not fit.
    fn read(path: &Path, format: &Format, from: (u64, u64)) -> (Vec<(u64, u64)>, Vec<String>) {
        let schema = schema();
        let (mut ends, mut unfit) = (Vec::new(), Vec::new());
        let outcome = (|| {
            let mut records = Records::open(path, format, &schema, from, "t")?;
            let mut rows = RowsBuilder::new(&schema, 4);
            while rows.rows() < RECORDS_MAX {
                let Some(read) = records.read(&mut rows, path, "t")? else {
                    break;
                };
                if let Err(reason) = told(read) {
                    unfit.push(format!("{}: {reason}", records.line()));
                    rows.refuse_row();
                }
                ends.push(records.position());
            }
            rows.finish("t")
        })();
        match told(outcome) {
            Ok(batch) => assert_eq!(batch.num_rows() + unfit.len(), ends.len()),
            Err(error) => unfit.push(error.to_string()),
        }
        (ends, unfit)
    }

    /// Whatever is read, reading on from the end of any record gives the same.
    fn check(path: &Path, format: &Format, bytes: &[u8]) {
        fs::write(path, bytes).unwrap();
        let (ends, unfit) = read(path, format, (0, 0));
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        for (offset, line) in &ends {
            assert!(
                *offset <= bytes.len() as u64 && *line <= lines,
                "{offset}, {line}"
            );
        }
        let middle = ends.len() / 2;
        if let Some(from) = ends.get(middle) {
            let (again, unfit_again) = read(path, format, *from);
            assert_eq!(again, ends[middle + 1..]);
            assert!(unfit.ends_with(&unfit_again), "{unfit:?}, {unfit_again:?}");
        }
    }

    const WORDS: [&str; 22] = [
        "\"",
        "\"\"",
        ",",
        "\n",
        "\r\n",
        "\r",
        "\\u0000",
        "\\ud800",
        "\u{feff}",
        "null",
        "NULL",
        "1e999",
        "-0",
        "9223372036854775808",
        "99999999.995",
        "2013-01-01 05:00:00",
        "0000-00-00",
        "true",
        "[[[[",
        "{\"c0\":",
        "NaN",
        "∞",
    ];

    #[test]
    fn any_bytes_are_csv_records_or_refused_by_their_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in.csv");
        let header = "c0,c1,c2,c3,c4,c5,c6,c7,c8\n";
        let row = "1,a,2013-01-01 05:00:00,1.25,true,1.5,2013-01-01,AQI=,7\n";
        let seeds = [
            format!("{header}{row}{row}"),
            format!("{header}2,\"a \"\"b\"\",\n c\",,,,,,,\r\n\n{row}"),
            format!("c8,c7,more,c6,c5,c4,c3,c2,c1,c0\n{row}"),
            format!("\u{feff}{header}{row}\u{feff}{row}\u{feff}{row}{row}"),
        ];
        let format = |header| {
            Format::Csv(CsvFormat {
                header,
                delimiter: ',',
                ignore_parse_errors: true,
                null_literal: "NULL".to_owned(),
            })
        };
        let seeds = Seeds::of(seeds).words(WORDS).inputs(1500);
        flott_decoders::check!(seeds).for_each(|bytes: &[u8]| {
            check(&path, &format(true), bytes);
            check(&path, &format(false), bytes);
        });
    }

    #[test]
    fn any_bytes_are_json_records_or_refused_by_their_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in.json");
        let row = r#"{"c0": 1, "c1": "a\u00e4", "c2": "2013-01-01 05:00:00", "c3": 1.25, "c4": true, "c8": -7}"#;
        let seeds = [
            format!("{row}\n{row}\r\n\n{row}"),
            format!("\u{feff}{row}\n{{\"x\": [1, {{}}], \"c0\": null}}\n"),
            r#"{"c5": 1e-3, "c6": "2013-01-01", "c7": "AQI=", "c0": 1, "c0": 2}"#.to_owned(),
        ];
        let format = Format::Json(JsonFormat {
            ignore_parse_errors: true,
            iso_timestamps: false,
        });
        let seeds = Seeds::of(seeds).words(WORDS).inputs(1500);
        flott_decoders::check!(seeds).for_each(|bytes: &[u8]| check(&path, &format, bytes));
    }

    #[test]
    fn any_bytes_are_a_compressed_file_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let text = "1,a\n2,b\n".repeat(20);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, text.as_bytes()).unwrap();
        let zstd = zstd::bulk::compress(text.as_bytes(), 1).unwrap();
        let seeds = Seeds::of([gzip.finish().unwrap(), zstd]).inputs(500);
        let format = Format::Json(JsonFormat {
            ignore_parse_errors: true,
            iso_timestamps: false,
        });
        flott_decoders::check!(seeds).for_each(|bytes: &[u8]| {
            for name in ["in.json.gz", "in.json.zst"] {
                let path = directory.path().join(name);
                fs::write(&path, bytes).unwrap();
                drop(read(&path, &format, (0, 0)));
            }
        });
    }
}
