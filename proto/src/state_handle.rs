//! What a snapshot consists of.
//!
//! A subtask's state is small operator state inline, and immutable files in object storage. A checkpoint's files are
//! plain sets, so that "which files does nobody need any more" is set arithmetic: see `coordinator::core::checkpoint`.

use std::collections::BTreeMap;

use crate::ids::SubtaskId;
use crate::key_group::KeyGroupRange;

/// One immutable file of keyed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFile {
    /// Relative to the checkpoint root, or to the directory of the savepoint that it belongs to; never reused.
    pub path: String,
    /// The name the state backend gives it locally.
    pub local_name: String,
    pub size: u64,
    pub crc32c: u32,
    /// The tablets it belongs to, in order: more than one if a tablet was split and two parts of it have one owner again.
    pub tablets: Vec<KeyGroupRange>,
}

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
        files.sum::<u64>() + self.operators_size()
    }

    /// Bytes of operator state.
    pub fn operators_size(&self) -> u64 {
        let operators = self.operators.values();
        operators.map(|state| state.len() as u64).sum()
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
