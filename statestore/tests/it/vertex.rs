//! All subtasks of a vertex, between which key groups move when the parallelism changes.

use std::collections::{BTreeMap, BTreeSet};

use flott_node::storage::ObjectStorage;
use flott_proto::ids::{CheckpointId, SubtaskId};
use flott_proto::key_group::{KeyGroup, KeyGroupRange};
use flott_proto::state_handle::{SubtaskDelta, SubtaskState};
use flott_statestore::{BackendOptions, KeyedBackend, SnapshotUploader, restore};

use crate::fixture::{MAX_PARALLELISM, OPTIONS};

/// All subtasks of a vertex, and the coordinator's one retained checkpoint.
pub(crate) struct Vertex {
    pub(crate) local: tempfile::TempDir,
    pub(crate) storage: ObjectStorage,
    /// Where the entries of the next attempt are.
    pub(crate) options: BackendOptions,
    pub(crate) attempt: u32,
    pub(crate) checkpoint: CheckpointId,
    /// Of the checkpoint, by subtask.
    pub(crate) states: Vec<SubtaskState>,
    pub(crate) tasks: Vec<(KeyedBackend, SnapshotUploader)>,
}

impl Vertex {
    pub(crate) async fn start(name: &str) -> Self {
        let mut vertex = Self {
            local: tempfile::tempdir().unwrap(),
            storage: ObjectStorage::open(&format!("memory:///{name}")).unwrap(),
            options: OPTIONS,
            attempt: 0,
            checkpoint: CheckpointId::NONE,
            states: Vec::new(),
            tasks: Vec::new(),
        };
        vertex.restart(1).await;
        vertex
    }

    /// Everything since the checkpoint is lost; the next attempt has another parallelism.
    pub(crate) async fn restart(&mut self, parallelism: u32) {
        self.tasks.clear();
        self.attempt += 1;
        for subtask in 0..parallelism {
            let name = format!("{}-{subtask}", self.attempt);
            let range = KeyGroupRange::of_subtask(subtask, MAX_PARALLELISM, parallelism);
            let dir = self.local.path().join(&name);
            let same = self.states.len() == parallelism as usize;
            let states = if same {
                std::slice::from_ref(&self.states[subtask as usize])
            } else {
                &self.states
            };
            let source = self.storage.clone().into();
            let backend = restore(&dir, &source, states, MAX_PARALLELISM, range, self.options);
            let backend = backend.await.unwrap();
            let uploader = SnapshotUploader::new(self.storage.clone(), name, range);
            uploader.restored_from(self.checkpoint, backend.restored_files(), same);
            self.tasks.push((backend, uploader));
        }
    }

    /// Completes a checkpoint and deletes what only the one before needed. Returns the bytes that were uploaded.
    pub(crate) async fn checkpoint(&mut self) -> u64 {
        let (base, id) = (self.checkpoint, CheckpointId(self.checkpoint.0 + 1));
        let (mut states, mut bytes) = (Vec::new(), 0);
        for (subtask, (backend, uploader)) in self.tasks.iter_mut().enumerate() {
            let snapshot = backend.snapshot(id).unwrap();
            let uploaded = uploader.upload(snapshot, base, None).await.unwrap();
            bytes += uploaded.uploaded_bytes;
            let against = match uploaded.base_used {
                CheckpointId::NONE => SubtaskState::default(),
                used => {
                    assert_eq!(used, base);
                    self.states[subtask].clone()
                }
            };
            let delta = SubtaskDelta {
                subtask: SubtaskId {
                    vertex: "v".parse().unwrap(),
                    subtask: subtask as u32,
                },
                operators: BTreeMap::new(),
                added: uploaded.added,
                dropped: uploaded.dropped,
                uploaded_bytes: uploaded.uploaded_bytes,
                alignment: Default::default(),
            };
            states.push(delta.apply_to(&against).unwrap());
            uploader.completed(id);
        }
        let before = std::mem::replace(&mut self.states, states);
        self.checkpoint = id;
        let needed = paths(&self.states);
        for path in paths(&before).difference(&needed) {
            self.storage.delete(path).await.unwrap();
        }
        for path in &needed {
            assert!(self.storage.exists(path).await.unwrap(), "{path}");
        }
        bytes
    }

    pub(crate) fn owner(&mut self, group: KeyGroup) -> &mut KeyedBackend {
        let parallelism = self.tasks.len() as u32;
        let subtask = group.subtask(MAX_PARALLELISM, parallelism);
        &mut self.tasks[subtask as usize].0
    }
}

pub(crate) fn paths(states: &[SubtaskState]) -> BTreeSet<String> {
    let files = states.iter().flat_map(|state| state.files.keys());
    files.cloned().collect()
}
