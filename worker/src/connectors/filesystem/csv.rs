//! Records of a CSV split.
//!
//! With a header the table's columns are found by name, so a table may declare some of them, in any order; without one
//! they are the fields in their order. Whether the first line is a header does not depend on where reading begins.
//!
//! A record ends at a line feed, so that positions lie between whole lines; a carriage return before it is dropped.

use std::io::Read;
use std::path::Path;

use arrow::datatypes::SchemaRef;
use csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder, Terminator};
use flott_proto::job_graph::CsvFormat;

use super::rows::{RowsBuilder, Unfit, Value};
use super::split::{self, Bytes};
use crate::Error;
use crate::operators::names;

const BUFFER: usize = 64 * 1024;

/// A record that is read before those in mid-file: the reader would drop a byte order mark that it begins with, but there it
/// belongs to the first field.
const AHEAD: &[u8] = b"-\n";

/// An open CSV split.
pub(super) struct CsvRecords {
    reader: Reader<Bytes>,
    record: ByteRecord,
    /// Where reading began: in the file, and in what `reader` gets.
    base_offset: u64,
    base_line: u64,
    begin: csv::Position,
    /// The field of each column.
    fields: Vec<usize>,
    /// The type of each column is STRING.
    strings: Vec<bool>,
    /// Fields that each record must have.
    width: usize,
    null_literal: Vec<u8>,
    format: CsvFormat,
}

impl CsvRecords {
    /// Opens `path` behind its first `offset` bytes, which are `line` lines.
    pub(super) fn open(
        path: &Path,
        format: &CsvFormat,
        schema: &SchemaRef,
        (offset, line): (u64, u64),
        place: &str,
    ) -> Result<Self, Error> {
        let bytes = split::open(path, offset, place)?;
        let reader = match offset {
            0 => csv_reader(format, bytes),
            _ => in_mid_file(format, bytes).map_err(unreadable(path, place))?,
        };
        let mut records = Self {
            begin: reader.position().clone(),
            reader,
            record: ByteRecord::new(),
            base_offset: offset,
            base_line: line,
            fields: (0..schema.fields().len()).collect(),
            strings: strings(schema),
            width: schema.fields().len(),
            null_literal: format.null_literal.clone().into_bytes(),
            format: format.clone(),
        };
        if format.header {
            let mut header = ByteRecord::new();
            let read = if offset == 0 {
                records.reader.read_byte_record(&mut header)
            } else {
                csv_reader(format, split::open(path, 0, place)?).read_byte_record(&mut header)
            };
            read.map_err(unreadable(path, place))?;
            records.find_columns(&header, schema, path, place)?;
        }
        Ok(records)
    }

    fn find_columns(
        &mut self,
        header: &ByteRecord,
        schema: &SchemaRef,
        path: &Path,
        place: &str,
    ) -> Result<(), Error> {
        if header.is_empty() {
            return Ok(()); // An empty file has no rows to find columns for.
        }
        let find = |name: &String| {
            let same = |field: &[u8]| field.trim_ascii() == name.as_bytes();
            header.iter().position(same).ok_or_else(|| {
                let there: Vec<_> = header.iter().map(String::from_utf8_lossy).collect();
                Error::user(
                    place,
                    format!(
                        "{}:1: the header has no column {name:?}; it has {}; the table declares {}",
                        path.display(),
                        there.join(", "),
                        names(schema)
                    ),
                )
            })
        };
        self.fields = schema
            .fields()
            .iter()
            .map(|field| find(field.name()))
            .collect::<Result<_, _>>()?;
        self.width = header.len();
        Ok(())
    }

    /// Decompressed bytes and lines before the next record.
    pub(super) fn position(&self) -> (u64, u64) {
        let at = self.reader.position();
        (
            self.base_offset + at.byte() - self.begin.byte(),
            self.base_line + at.line() - self.begin.line(),
        )
    }

    /// The first line of the record that was read last, counted from 1.
    pub(super) fn line(&self) -> u64 {
        // From the end: blank lines before a record count as read with it.
        let within = self
            .record
            .as_slice()
            .iter()
            .filter(|byte| **byte == b'\n')
            .count() as u64;
        let begin = self.record.position().map_or(1, csv::Position::line);
        let end = self.reader.position().line();
        let terminated = u64::from(end - begin > within);
        self.base_line + 1 + end - self.begin.line() - terminated - within
    }

    /// Reads one record into `rows`; `None` at the end.
    pub(super) fn read(
        &mut self,
        rows: &mut RowsBuilder,
        path: &Path,
        place: &str,
    ) -> Result<Option<Result<(), Unfit>>, Error> {
        while self
            .reader
            .read_byte_record(&mut self.record)
            .map_err(unreadable(path, place))?
        {
            // A line of nothing but a carriage return is as blank as one of nothing.
            if self.record.as_slice() != b"\r" {
                return Ok(Some(self.take(rows)));
            }
        }
        Ok(None)
    }

    fn take(&self, rows: &mut RowsBuilder) -> Result<(), Unfit> {
        if self.record.len() != self.width {
            return Err(format!(
                "the record has {} fields where {} are expected",
                self.record.len(),
                self.width
            ));
        }
        for (column, &field) in self.fields.iter().enumerate() {
            let mut text = &self.record[field];
            if field + 1 == self.width {
                text = text.strip_suffix(b"\r").unwrap_or(text);
            }
            let is_literal = text == self.null_literal.as_slice();
            let null = if self.strings[column] {
                is_literal && !text.is_empty()
            } else {
                is_literal || text.trim_ascii().is_empty()
            };
            let value = if null { Value::Null } else { Value::Text(text) };
            rows.append(column, value)?;
        }
        rows.finish_row()
    }
}

impl std::fmt::Debug for CsvRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CsvRecords")
            .field("format", &self.format)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

/// A reader that has read [`AHEAD`].
fn in_mid_file(format: &CsvFormat, bytes: Bytes) -> csv::Result<Reader<Bytes>> {
    let mut reader = csv_reader(format, Box::new(AHEAD.chain(bytes)));
    reader.read_byte_record(&mut ByteRecord::new())?;
    Ok(reader)
}

fn csv_reader(format: &CsvFormat, bytes: Bytes) -> Reader<Bytes> {
    ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(format.delimiter as u8)
        .terminator(Terminator::Any(b'\n'))
        .buffer_capacity(BUFFER)
        .from_reader(bytes)
}

fn strings(schema: &SchemaRef) -> Vec<bool> {
    let is_string =
        |data_type: &arrow::datatypes::DataType| *data_type == arrow::datatypes::DataType::Utf8;
    schema
        .fields()
        .iter()
        .map(|field| is_string(field.data_type()))
        .collect()
}

fn unreadable(path: &Path, place: &str) -> impl FnOnce(csv::Error) -> Error {
    move |error| match error.into_kind() {
        ErrorKind::Io(error) => split::unreadable("read", path, place)(error),
        other => Error::user(place, format!("{}: {other:?}", path.display())),
    }
}
