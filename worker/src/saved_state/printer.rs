//! Gives records to whoever wants them, in the format that he wants, until he has enough.

use std::ops::ControlFlow;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use flott_proto::job_graph::{CsvFormat, Format, JsonFormat};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::{Done, RecordFormat, Wanted};
use crate::Error;
use crate::connectors::filesystem::Encoder;

/// Entries that are decoded and written at a time.
const BATCH_ENTRIES: usize = 1024;

/// A row group of Parquet is written before it takes more memory than this.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// The place of an error of the encoders.
const RECORDS: &str = "records";

/// Writes records of one schema until there are enough.
pub(super) struct Printer<'a> {
    writer: Writer,
    left: u64,
    printed: u64,
    is_heard: bool,
    written: Vec<u8>,
    out: &'a mut dyn FnMut(&[u8]) -> ControlFlow<()>,
}

impl<'a> Printer<'a> {
    pub(super) fn new(
        schema: &SchemaRef,
        wanted: Wanted<'_>,
        out: &'a mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Self, Error> {
        Ok(Self {
            writer: Writer::new(wanted.format, schema)?,
            left: wanted.limit.unwrap_or(u64::MAX),
            printed: 0,
            is_heard: true,
            written: Vec::new(),
            out,
        })
    }

    /// Whether nobody wants any more.
    pub(super) fn is_full(&self) -> bool {
        self.left == 0 || !self.is_heard
    }

    /// Writes a record for each row, as far as there may be so many.
    pub(super) fn print(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        let rows = (batch.num_rows() as u64).min(self.left);
        self.writer
            .write(&batch.slice(0, rows as usize), &mut self.written)?;
        self.give();
        self.left -= rows;
        self.printed += rows;
        Ok(())
    }

    /// Writes what `walk` gives, many at a time.
    pub(super) fn print_all<T>(
        &mut self,
        records: impl Fn(&[T]) -> Result<RecordBatch, Error>,
        walk: impl FnOnce(&mut dyn FnMut(T) -> ControlFlow<()>) -> Result<(), flott_statestore::Error>,
    ) -> Result<(), Error> {
        let mut batch = Vec::with_capacity(BATCH_ENTRIES);
        let mut printed = Ok(());
        walk(&mut |entry| {
            batch.push(entry);
            if batch.len() < BATCH_ENTRIES && (batch.len() as u64) < self.left {
                return ControlFlow::Continue(());
            }
            printed = records(&batch).and_then(|records| self.print(&records));
            batch.clear();
            if printed.is_err() || self.is_full() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        printed?;
        if batch.is_empty() {
            return Ok(());
        }
        self.print(&records(&batch)?)
    }

    /// Writes what belongs at the end.
    pub(super) fn done(mut self, is_raw: bool) -> Result<Done, Error> {
        self.writer.finish(&mut self.written)?;
        self.give();
        Ok(Done {
            entries: self.printed,
            is_raw,
        })
    }

    fn give(&mut self) {
        if self.is_heard && !self.written.is_empty() {
            self.is_heard = (self.out)(&self.written).is_continue();
        }
        self.written.clear();
    }
}

/// A format, and what is not yet given away in it.
enum Writer {
    Lines {
        encoder: Encoder,
        /// Nothing was written yet, not even the header.
        is_fresh: bool,
    },
    Parquet(Box<ArrowWriter<Vec<u8>>>),
}

impl Writer {
    fn new(format: RecordFormat, schema: &SchemaRef) -> Result<Self, Error> {
        let format = match format {
            RecordFormat::Json => Format::Json(JsonFormat {
                ignore_parse_errors: false,
                iso_timestamps: false,
            }),
            RecordFormat::Csv => Format::Csv(CsvFormat {
                header: true,
                delimiter: ',',
                ignore_parse_errors: false,
                null_literal: String::new(),
            }),
            RecordFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .build();
                let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties));
                return Ok(Self::Parquet(Box::new(writer.map_err(parquet)?)));
            }
        };
        Ok(Self::Lines {
            encoder: Encoder::new(&format, schema, RECORDS)?,
            is_fresh: true,
        })
    }

    /// Appends to `out` what is complete with these records.
    fn write(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Lines { encoder, is_fresh } => {
                if std::mem::take(is_fresh) {
                    out.extend_from_slice(encoder.header());
                }
                encoder.encode(batch, out, RECORDS)
            }
            Self::Parquet(writer) => {
                writer.write(batch).map_err(parquet)?;
                if writer.in_progress_size() >= ROW_GROUP_BYTES {
                    writer.flush().map_err(parquet)?;
                }
                out.append(writer.inner_mut());
                Ok(())
            }
        }
    }

    /// Appends what is left. Without any record that is still a whole file: the header, or a Parquet file without rows.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Lines { encoder, is_fresh } => {
                if std::mem::take(is_fresh) {
                    out.extend_from_slice(encoder.header());
                }
            }
            Self::Parquet(writer) => {
                writer.finish().map_err(parquet)?;
                out.append(writer.inner_mut());
            }
        }
        Ok(())
    }
}

fn parquet(error: ParquetError) -> Error {
    Error::user(RECORDS, error)
}
