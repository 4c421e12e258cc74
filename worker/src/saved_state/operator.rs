//! What operators keep themselves, as records of subtask, field and value.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use flott_proto::wire::{
    AssignWatermarkState, FileSinkState, FileSourceState, NexmarkSourceState, StateKind,
    VertexState, WindowAggregateState,
};
use prost::Message;

use super::summary;
use crate::Error;
use crate::time::{WATERMARK_NONE, calendar};

/// A record for each field of each subtask's state.
pub(super) fn records(vertex: &VertexState, uid: &str) -> Result<RecordBatch, Error> {
    let (mut subtasks, mut names, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for (subtask, state) in summary::states_of(vertex, uid) {
        let fields = fields(state)
            .map_err(|error| Error::user(format!("operator {uid}, subtask {subtask}"), error))?;
        for (name, value) in fields {
            subtasks.push(i64::from(subtask));
            names.push(name);
            values.push(value);
        }
    }
    let columns: [(&str, ArrayRef); 3] = [
        ("subtask", Arc::new(Int64Array::from(subtasks))),
        ("field", Arc::new(StringArray::from(names))),
        ("value", Arc::new(StringArray::from(values))),
    ];
    RecordBatch::try_from_iter(columns).map_err(Error::arrow("operator state"))
}

fn fields(state: &[u8]) -> Result<Vec<(String, String)>, prost::DecodeError> {
    let mut fields = Vec::new();
    let mut tell = |name: String, value: String| fields.push((name, value));
    match summary::kind_of(state) {
        StateKind::Unspecified => {
            let digits = state.iter().map(|byte| format!("{byte:02x}"));
            tell("bytes".to_owned(), digits.collect());
        }
        StateKind::AssignWatermark => {
            let state = AssignWatermarkState::decode(state)?;
            tell("watermark".to_owned(), time(state.watermark_ms));
        }
        StateKind::FileSource => {
            for split in FileSourceState::decode(state)?.splits {
                let position = if split.finished {
                    "read to its end".to_owned()
                } else {
                    format!("line {}, byte {}", split.line, split.byte_offset)
                };
                tell(format!("split {} {}", split.index, split.path), position);
            }
        }
        StateKind::NexmarkSource => {
            for lane in NexmarkSourceState::decode(state)?.lane {
                let next = format!("next row {}", lane.next_row);
                tell(format!("lane {}", lane.lane), next);
            }
        }
        StateKind::WindowAggregate => {
            let state = WindowAggregateState::decode(state)?;
            tell("watermark".to_owned(), time(state.watermark_ms));
            if state.first_stored_end_ms <= state.last_stored_end_ms {
                let (first, last) = (state.first_stored_end_ms, state.last_stored_end_ms);
                let between = format!("{} to {}", time(first), time(last));
                tell("ends of stored windows".to_owned(), between);
            }
            for ahead in state.ahead {
                let groups = format!("{}-{}", ahead.first_key_group, ahead.last_key_group);
                tell(
                    format!("watermark of key groups {groups}"),
                    time(ahead.watermark_ms),
                );
            }
        }
        StateKind::FileSink => {
            for file in FileSinkState::decode(state)?.committables {
                let name = format!("prepared for checkpoint {}", file.checkpoint_id);
                tell(name, file.final_name);
            }
        }
    }
    Ok(fields)
}

fn time(ms: i64) -> String {
    if ms == WATERMARK_NONE {
        return "none yet".to_owned();
    }
    let mut text = Vec::new();
    let moment = crate::connectors::filesystem::moment_of_units(ms, 1000);
    calendar::write_moment(moment, b' ', &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use flott_decoders::{Seeds, kind, told};
    use flott_proto::wire::{FileSplitState, KeyGroupWatermark, StateOrigin};

    use super::*;

    fn origin(kind: StateKind) -> Option<StateOrigin> {
        Some(StateOrigin {
            kind: kind.into(),
            subtask: 1,
            parallelism: 2,
        })
    }

    #[test]
    fn any_bytes_are_fields_of_an_operator_or_refused() {
        let source = FileSourceState {
            origin: origin(StateKind::FileSource),
            split_count: 1,
            splits: vec![FileSplitState {
                path: "/in".into(),
                line: 3,
                ..Default::default()
            }],
        };
        let watermark = AssignWatermarkState {
            origin: origin(StateKind::AssignWatermark),
            watermark_ms: 1_357_016_400_000,
        };
        let window = WindowAggregateState {
            origin: origin(StateKind::WindowAggregate),
            watermark_ms: 5,
            last_stored_end_ms: 9,
            ahead: vec![KeyGroupWatermark::default()],
            ..Default::default()
        };
        let sink = FileSinkState {
            origin: origin(StateKind::FileSink),
            ..Default::default()
        };
        let seeds = [
            source.encode_to_vec(),
            watermark.encode_to_vec(),
            window.encode_to_vec(),
            sink.encode_to_vec(),
        ];
        flott_decoders::check!(Seeds::of(seeds)).for_each(|bytes: &[u8]| {
            if let Ok(fields) = told(fields(bytes)) {
                kind(fields.first());
                assert!(fields.iter().all(|(name, _)| !name.is_empty()));
            }
        });
    }
}
