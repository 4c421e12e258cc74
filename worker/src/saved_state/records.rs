//! From stored entries to records.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use flott_proto::state_schema::WindowSchema;
use flott_proto::wire::{StateFileKind, StateKind, VertexState, WindowAggregateState};
use flott_statestore::Timer;
use prost::Message;

use super::summary;
use crate::Error;
use crate::expressions::batch_of;
use crate::operators::window::read::{StoredValue, WindowReader};

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
