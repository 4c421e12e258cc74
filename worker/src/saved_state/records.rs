//! From stored entries to records in lines.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use flott_proto::job_graph::{CsvFormat, Format, JsonFormat};
use flott_proto::state_schema::WindowSchema;
use flott_proto::wire::{StateFileKind, StateKind, VertexState, WindowAggregateState};
use flott_statestore::Timer;
use prost::Message;

use super::{Done, RecordFormat, Wanted, summary};
use crate::Error;
use crate::connectors::filesystem::Encoder;
use crate::expressions::batch_of;
use crate::operators::window::read::{StoredValue, WindowReader};

/// Entries that are decoded and written at a time.
const BATCH_ENTRIES: usize = 1024;

/// How the entries of an operator's keyed state are read.
#[derive(Debug)]
pub(super) enum Keyed {
    Windows(WindowReader),
    /// Nobody has recorded the types.
    Raw,
}

impl Keyed {
    /// Of an operator; none if it has no keyed state.
    pub(super) fn of(vertex: &VertexState, uid: &str) -> Result<Option<Self>, Error> {
        let Some((_, state)) = summary::states_of(vertex, uid).next() else {
            return Ok(None);
        };
        let mut files = vertex.subtasks.iter().flat_map(|state| &state.files);
        let has_files = files.any(|file| file.kind() == StateFileKind::Keyed);
        match summary::kind_of(state) {
            StateKind::WindowAggregate => {}
            // Before the kind was recorded it may have been anything.
            StateKind::Unspecified if has_files => return Ok(Some(Self::Raw)),
            _ => return Ok(None),
        }
        let unreadable = |error: prost::DecodeError| Error::user(format!("operator {uid}"), error);
        let state = WindowAggregateState::decode(state).map_err(unreadable)?;
        Ok(Some(match state.schema {
            None => Self::Raw,
            Some(schema) => {
                Self::Windows(WindowReader::new(&WindowSchema::try_from(schema)?, uid)?)
            }
        }))
    }

    pub(super) fn is_raw(&self) -> bool {
        matches!(self, Self::Raw)
    }

    pub(super) fn value_schema(&self) -> SchemaRef {
        match self {
            Self::Windows(reader) => Arc::clone(reader.value_schema()),
            Self::Raw => texts(&["key", "namespace", "value"], false),
        }
    }

    pub(super) fn timer_schema(&self) -> SchemaRef {
        match self {
            Self::Windows(reader) => Arc::clone(reader.timer_schema()),
            Self::Raw => texts(&["key", "namespace"], true),
        }
    }

    pub(super) fn values(&self, values: &[StoredValue]) -> Result<RecordBatch, Error> {
        match self {
            Self::Windows(reader) => reader.values(values),
            Self::Raw => {
                let columns = vec![
                    hexadecimal(values.iter().map(|value| &value.key)),
                    hexadecimal(values.iter().map(|value| &value.namespace)),
                    hexadecimal(values.iter().map(|value| &value.value)),
                ];
                batch_of(&self.value_schema(), columns, values.len(), "keyed state")
            }
        }
    }

    pub(super) fn timers(&self, timers: &[Timer]) -> Result<RecordBatch, Error> {
        match self {
            Self::Windows(reader) => reader.timers(timers),
            Self::Raw => {
                let times = timers.iter().map(|timer| timer.time_ms);
                let columns = vec![
                    hexadecimal(timers.iter().map(|timer| &timer.key)),
                    hexadecimal(timers.iter().map(|timer| &timer.namespace)),
                    Arc::new(TimestampMillisecondArray::from_iter_values(times)),
                ];
                batch_of(&self.timer_schema(), columns, timers.len(), "timers")
            }
        }
    }
}

fn texts(names: &[&str], timed: bool) -> SchemaRef {
    let text = |name: &&str| Field::new(*name, DataType::Utf8, false);
    let mut fields: Vec<Field> = names.iter().map(text).collect();
    if timed {
        let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
        fields.push(Field::new("time", milliseconds, false));
    }
    Arc::new(Schema::new(fields))
}

fn hexadecimal<'a>(values: impl Iterator<Item = &'a Vec<u8>>) -> ArrayRef {
    let digits =
        |bytes: &Vec<u8>| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
    Arc::new(StringArray::from_iter_values(values.map(digits)))
}

/// Writes records of one schema until there are enough.
pub(super) struct Printer<'a> {
    encoder: Encoder,
    left: u64,
    printed: u64,
    is_heard: bool,
    /// Nothing was written yet, not even the header.
    is_fresh: bool,
    lines: Vec<u8>,
    out: &'a mut dyn FnMut(&[u8]) -> ControlFlow<()>,
}

impl<'a> Printer<'a> {
    /// The first record, or the end without any, brings the header, if the format has one.
    pub(super) fn new(
        schema: &SchemaRef,
        wanted: Wanted<'_>,
        out: &'a mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<Self, Error> {
        let format = match wanted.format {
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
        };
        let encoder = Encoder::new(&format, schema, "records")?;
        Ok(Self {
            encoder,
            left: wanted.limit.unwrap_or(u64::MAX),
            printed: 0,
            is_heard: true,
            is_fresh: true,
            lines: Vec::new(),
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
        let batch = batch.slice(0, rows as usize);
        self.lines.clear();
        if std::mem::take(&mut self.is_fresh) {
            self.lines.extend_from_slice(self.encoder.header());
        }
        self.encoder.encode(&batch, &mut self.lines, "records")?;
        self.is_heard = self.is_heard && (self.out)(&self.lines).is_continue();
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

    pub(super) fn done(self, is_raw: bool) -> Done {
        if self.is_fresh && !self.encoder.header().is_empty() {
            // Nothing follows that somebody could break off.
            let _ = (self.out)(self.encoder.header());
        }
        Done {
            entries: self.printed,
            is_raw,
        }
    }
}
