//! What a snapshot consists of.
//!
//! A subtask's state is small operator state inline, and immutable files in object storage: keyed state, and after an
//! unaligned checkpoint one file of channel state, what was on its way to the subtask or from it. A checkpoint's files are
//! plain sets, so that "which files does nobody need any more" is set arithmetic: see `coordinator::core::checkpoint`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::SubtaskId;
use crate::key_group::KeyGroupRange;

/// One immutable file of keyed state or of channel state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    /// Relative to the checkpoint root, or to the directory of the savepoint that it belongs to; never reused.
    pub path: String,
    /// The name the state backend gives it locally.
    pub local_name: String,
    pub size: u64,
    pub crc32c: u32,
    /// The tablets it belongs to, in order: more than one if a tablet was split and two parts of it have one owner again.
    /// None: it is channel state.
    pub tablets: Vec<KeyGroupRange>,
}

impl StateFile {
    /// A file of channel state.
    pub fn of_channels(path: String, size: u64, crc32c: u32) -> Self {
        Self {
            path,
            local_name: CHANNELS.to_owned(),
            size,
            crc32c,
            tablets: Vec::new(),
        }
    }

    /// Whether it is what was on its way, and no part of the keyed state.
    pub fn is_channel_state(&self) -> bool {
        self.tablets.is_empty()
    }
}

/// The local name of channel state, which no state backend ever sees.
const CHANNELS: &str = "channels";

/// The whole state of one subtask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubtaskState {
    /// By operator uid.
    pub operators: BTreeMap<String, bytes::Bytes>,
    /// By path.
    pub files: BTreeMap<String, StateFile>,
}

impl SubtaskState {
    /// Bytes of files and operator state.
    pub fn size(&self) -> u64 {
        let files = self.files.values().map(|file| file.size);
        files.fold(self.operators_size(), u64::saturating_add)
    }

    /// Bytes of operator state.
    pub fn operators_size(&self) -> u64 {
        let operators = self.operators.values();
        operators.map(|state| state.len() as u64).sum()
    }

    /// Files of channel state.
    pub fn channel_files(&self) -> impl Iterator<Item = &StateFile> {
        self.files.values().filter(|file| file.is_channel_state())
    }

    /// The same without channel state: what a state backend restores.
    pub fn without_channels(&self) -> Self {
        let mut state = self.clone();
        state.files.retain(|_, file| !file.is_channel_state());
        state
    }
}

/// How subtasks came to their snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alignment {
    pub duration: Duration,
    /// Barriers overtook what was on its way, which was stored.
    pub unaligned: bool,
    /// Of rows in what was stored.
    pub in_flight_bytes: u64,
}

impl Alignment {
    /// That of several subtasks: the longest, and the sum of the bytes.
    pub fn and(self, other: Self) -> Self {
        Self {
            duration: self.duration.max(other.duration),
            unaligned: self.unaligned || other.unaligned,
            in_flight_bytes: self.in_flight_bytes.saturating_add(other.in_flight_bytes),
        }
    }
}

/// The state of one subtask as a change against a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubtaskDelta {
    pub subtask: SubtaskId,
    /// Whole, never a change: it is small.
    pub operators: BTreeMap<String, bytes::Bytes>,
    pub added: Vec<StateFile>,
    /// Paths of the base.
    pub dropped: Vec<String>,
    pub uploaded_bytes: u64,
    pub alignment: Alignment,
}

/// An ack speaks of files that its base does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    #[error("{subtask} drops {path}, which its base does not hold")]
    DropsUnknown { subtask: SubtaskId, path: String },
    #[error("{subtask} adds {path}, which its base holds already")]
    AddsKnown { subtask: SubtaskId, path: String },
}

impl SubtaskDelta {
    /// The whole state: `base` without the dropped files and with the added ones.
    pub fn apply_to(&self, base: &SubtaskState) -> Result<SubtaskState, DeltaError> {
        let mut files = base.files.clone();
        for path in &self.dropped {
            if files.remove(path).is_none() {
                return Err(DeltaError::DropsUnknown {
                    subtask: self.subtask.clone(),
                    path: path.clone(),
                });
            }
        }
        for file in &self.added {
            if files.insert(file.path.clone(), file.clone()).is_some() {
                return Err(DeltaError::AddsKnown {
                    subtask: self.subtask.clone(),
                    path: file.path.clone(),
                });
            }
        }
        Ok(SubtaskState {
            operators: self.operators.clone(),
            files,
        })
    }
}
