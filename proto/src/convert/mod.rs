//! Wire to domain and back. Malformed input stops here: what passes is valid on its own terms.
//!
//! Tasks and state are here, the job graph in [`graph`] and [`connectors`], schemas in [`state_schema`].

mod connectors;
mod graph;
mod state_schema;

use std::fmt;
use std::time::Duration;

use crate::ids::{AttemptNumber, SubtaskId, TaskId};
use crate::key_group::{KeyGroupRange, MAX_PARALLELISM_MAX};
use crate::state_handle::{Alignment, StateFile, SubtaskDelta, SubtaskState};
use crate::wire;

/// Input that is not what the protocol allows. Says what was wrong with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    kind: &'static str,
    what: String,
}

impl Malformed {
    pub fn new(kind: &'static str, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
        }
    }

    pub(crate) fn missing(kind: &'static str, field: &str) -> Self {
        Self::new(kind, format!("lacks {field}"))
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed {}: {}", self.kind, self.what)
    }
}

impl std::error::Error for Malformed {}

/// What a service answers to a request that is not what the protocol allows.
impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.to_string())
    }
}

// ---- tasks and state ----

impl TryFrom<wire::TaskId> for TaskId {
    type Error = Malformed;
    fn try_from(task: wire::TaskId) -> Result<Self, Malformed> {
        Ok(Self {
            job: task.job_id.parse()?,
            attempt: AttemptNumber(task.attempt),
            subtask: SubtaskId {
                vertex: task.vertex.parse()?,
                subtask: task.subtask,
            },
        })
    }
}

impl From<&TaskId> for wire::TaskId {
    fn from(task: &TaskId) -> Self {
        Self {
            job_id: task.job.to_string(),
            vertex: task.subtask.vertex.to_string(),
            subtask: task.subtask.subtask,
            attempt: task.attempt.0,
        }
    }
}

impl TryFrom<wire::StateFile> for StateFile {
    type Error = Malformed;
    fn try_from(file: wire::StateFile) -> Result<Self, Malformed> {
        let is_channel_state = file.kind() == wire::StateFileKind::Channels;
        let wire::StateFile {
            path,
            local_name,
            size,
            crc32c,
            tablets,
            ..
        } = file;
        if path.is_empty()
            || path.starts_with('/')
            || path.split('/').any(|part| part.is_empty() || part == "..")
        {
            return Err(Malformed::new("state file", format!("path {path:?}")));
        }
        if local_name.is_empty() || local_name.contains('/') || local_name == ".." {
            return Err(Malformed::new(
                "state file",
                format!("local name {local_name:?}"),
            ));
        }
        if tablets.is_empty() != is_channel_state {
            let what = "keyed state belongs to a tablet, and channel state to none";
            return Err(Malformed::new("state file", what));
        }
        let tablets = tablets.into_iter().map(KeyGroupRange::try_from);
        let tablets = tablets.collect::<Result<_, _>>()?;
        Ok(Self {
            path,
            local_name,
            size,
            crc32c,
            tablets,
        })
    }
}

impl TryFrom<wire::KeyGroups> for KeyGroupRange {
    type Error = Malformed;

    fn try_from(range: wire::KeyGroups) -> Result<Self, Malformed> {
        let wire::KeyGroups { first, last } = range;
        if first > last || last >= MAX_PARALLELISM_MAX {
            return Err(Malformed::new("key groups", format!("{first}..={last}")));
        }
        Ok(Self {
            first: first as u16,
            last: last as u16,
        })
    }
}

impl From<KeyGroupRange> for wire::KeyGroups {
    fn from(range: KeyGroupRange) -> Self {
        Self {
            first: range.first.into(),
            last: range.last.into(),
        }
    }
}

impl From<&StateFile> for wire::StateFile {
    fn from(file: &StateFile) -> Self {
        Self {
            path: file.path.clone(),
            local_name: file.local_name.clone(),
            size: file.size,
            crc32c: file.crc32c,
            tablets: file.tablets.iter().map(|range| (*range).into()).collect(),
            kind: if file.is_channel_state() {
                wire::StateFileKind::Channels.into()
            } else {
                wire::StateFileKind::Keyed.into()
            },
        }
    }
}

fn operators_to_wire(
    operators: &std::collections::BTreeMap<String, bytes::Bytes>,
) -> Vec<wire::OperatorState> {
    let state = |(uid, value): (&String, &bytes::Bytes)| wire::OperatorState {
        operator_uid: uid.clone(),
        value: value.clone(),
    };
    operators.iter().map(state).collect()
}

fn operators_from_wire(
    operators: Vec<wire::OperatorState>,
) -> std::collections::BTreeMap<String, bytes::Bytes> {
    operators
        .into_iter()
        .map(|state| (state.operator_uid, state.value))
        .collect()
}

impl TryFrom<wire::SubtaskDelta> for SubtaskDelta {
    type Error = Malformed;
    fn try_from(delta: wire::SubtaskDelta) -> Result<Self, Malformed> {
        Ok(Self {
            subtask: SubtaskId {
                vertex: delta.vertex.parse()?,
                subtask: delta.subtask,
            },
            operators: operators_from_wire(delta.operators),
            added: delta
                .added
                .into_iter()
                .map(StateFile::try_from)
                .collect::<Result<_, _>>()?,
            dropped: delta.dropped,
            uploaded_bytes: delta.uploaded_bytes,
            alignment: delta.alignment.unwrap_or_default().into(),
        })
    }
}

impl From<&SubtaskDelta> for wire::SubtaskDelta {
    fn from(delta: &SubtaskDelta) -> Self {
        Self {
            vertex: delta.subtask.vertex.to_string(),
            subtask: delta.subtask.subtask,
            operators: operators_to_wire(&delta.operators),
            added: delta.added.iter().map(Into::into).collect(),
            dropped: delta.dropped.clone(),
            uploaded_bytes: delta.uploaded_bytes,
            alignment: Some(delta.alignment.into()),
        }
    }
}

impl From<wire::Alignment> for Alignment {
    fn from(alignment: wire::Alignment) -> Self {
        Self {
            duration: Duration::from_micros(alignment.duration_us),
            unaligned: alignment.unaligned,
            in_flight_bytes: alignment.in_flight_bytes,
        }
    }
}

impl From<Alignment> for wire::Alignment {
    fn from(alignment: Alignment) -> Self {
        Self {
            duration_us: u64::try_from(alignment.duration.as_micros()).unwrap_or(u64::MAX),
            unaligned: alignment.unaligned,
            in_flight_bytes: alignment.in_flight_bytes,
        }
    }
}

impl SubtaskState {
    /// The wire form, for subtask number `subtask`.
    pub fn to_wire(&self, subtask: u32) -> wire::SubtaskState {
        wire::SubtaskState {
            subtask,
            operators: operators_to_wire(&self.operators),
            files: self.files.values().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::SubtaskState> for SubtaskState {
    type Error = Malformed;
    fn try_from(state: wire::SubtaskState) -> Result<Self, Malformed> {
        let file = |file| StateFile::try_from(file).map(|file| (file.path.clone(), file));
        Ok(Self {
            operators: operators_from_wire(state.operators),
            files: state
                .files
                .into_iter()
                .map(file)
                .collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use flott_decoders::{Seeds, told};
    use prost::Message;

    use super::*;

    fn delta() -> wire::SubtaskDelta {
        let path = |n: u32| format!("c/n/0123456789abcdef0123456789abcdef/shared/1-2-v-0/{n}");
        let file = |n| wire::StateFile {
            path: path(n),
            local_name: format!("00000{n}.sst"),
            size: 4096,
            crc32c: 7,
            tablets: vec![wire::KeyGroups { first: 0, last: 63 }],
            ..Default::default()
        };
        wire::SubtaskDelta {
            vertex: "v".into(),
            operators: vec![wire::OperatorState {
                operator_uid: "op".into(),
                value: vec![1, 2, 3].into(),
            }],
            added: vec![file(1), file(2)],
            dropped: vec![path(3)],
            uploaded_bytes: 8192,
            ..Default::default()
        }
    }

    #[test]
    fn any_bytes_are_a_change_of_state_or_refused() {
        let seeds = [
            delta().encode_to_vec(),
            wire::SubtaskDelta::default().encode_to_vec(),
        ];
        flott_decoders::check!(Seeds::of(seeds)).for_each(|bytes: &[u8]| {
            let Ok(read) = told(wire::SubtaskDelta::decode(bytes)) else {
                return;
            };
            let Ok(delta) = told(SubtaskDelta::try_from(read)) else {
                return;
            };
            let again = wire::SubtaskDelta::from(&delta);
            assert_eq!(SubtaskDelta::try_from(again), Ok(delta.clone()));
            if let Ok(state) = told(delta.apply_to(&SubtaskState::default())) {
                let again = state.to_wire(delta.subtask.subtask);
                assert_eq!(SubtaskState::try_from(again), Ok(state));
            }
        });
    }
}
