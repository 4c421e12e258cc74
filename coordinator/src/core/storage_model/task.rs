//! One task's state and its way to the object store: what `statestore/src/snapshot/` does, with files that have no content.

use std::collections::{BTreeMap, BTreeSet};

use flott_proto::ids::{CheckpointId, TaskId};
use flott_proto::paths;
use flott_proto::wire::{self, TaskState};

use super::objects::object;
use super::random::Random;

/// Files by the name that they have in the local database.
pub(super) type FilesByName = BTreeMap<String, wire::StateFile>;

/// What is on its way at an unaligned checkpoint: in no other, and never taken over.
const CHANNELS: &str = "channels";

/// Live files of one task, before compaction takes some.
const LIVE_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Task {
    pub(super) state: TaskState,
    /// What it has to restore before it runs.
    pub(super) restoring: Option<wire::TaskDeployment>,
    pub(super) writer: String,
    pub(super) committed: CheckpointId,
    pub(super) seen: CheckpointId,
    pub(super) failure: String,
    pub(super) unusable_state: Option<wire::UnusableState>,
    /// Names of the files that the state consists of now.
    live: BTreeSet<String>,
    uploaded: FilesByName,
    bases: BTreeMap<CheckpointId, FilesByName>,
    /// Files of other subtasks that it was opened on, and the checkpoint that has them.
    inherited: (CheckpointId, FilesByName),
    uploads: Vec<Upload>,
    sequence: u64,
}

/// A name that no file has had; RocksDB never reuses one.
pub(super) fn fresh_name(last: &mut u64) -> String {
    *last += 1;
    format!("{last:06}.sst")
}

/// A snapshot on its way.
#[derive(Debug)]
struct Upload {
    checkpoint: CheckpointId,
    base_used: CheckpointId,
    /// Of a savepoint, else empty.
    savepoint_directory: String,
    /// Names that have to be uploaded.
    left: Vec<String>,
    added: Vec<wire::StateFile>,
    kept: Vec<wire::StateFile>,
    dropped: Vec<String>,
}

/// What a step of an upload did.
#[derive(Debug)]
pub(super) enum Uploaded {
    /// This object is to be written.
    File(String),
    /// Everything is up.
    Whole(wire::CheckpointAck),
}

impl Task {
    pub(super) fn new(deployment: wire::TaskDeployment) -> Self {
        Self {
            state: TaskState::Initializing,
            writer: deployment.writer.clone(),
            restoring: Some(deployment),
            committed: CheckpointId::NONE,
            seen: CheckpointId::NONE,
            failure: String::new(),
            unusable_state: None,
            live: BTreeSet::new(),
            uploaded: FilesByName::new(),
            bases: BTreeMap::new(),
            inherited: (CheckpointId::NONE, FilesByName::new()),
            uploads: Vec::new(),
            sequence: 0,
        }
    }

    pub(super) fn runs(&self) -> bool {
        matches!(self.state, TaskState::Running | TaskState::EndOfData)
    }

    /// Whether it has not ended.
    pub(super) fn is_live(&self) -> bool {
        self.runs() || self.state == TaskState::Initializing
    }

    /// Whether there is something that it could do next by itself.
    pub(super) fn is_busy(&self) -> bool {
        self.restoring.is_some() || !self.uploads.is_empty()
    }

    /// Its state is what it was told to restore. `fresh` gives names for files of state that is built anew.
    pub(super) fn restored(
        &mut self,
        from: &wire::TaskDeployment,
        mut fresh: impl FnMut() -> String,
    ) {
        let files = from.restore.iter().flat_map(|state| &state.files);
        let keyed = files
            .clone()
            .filter(|file| file.kind() == wire::StateFileKind::Keyed);
        let checkpoint = CheckpointId(from.restore_checkpoint_id);
        if checkpoint.is_some() && from.restore_root.is_empty() {
            let files: FilesByName = files
                .map(|file| (file.local_name.clone(), file.clone()))
                .collect();
            self.live = keyed.map(|file| file.local_name.clone()).collect();
            if from.restore_is_base {
                self.bases.insert(checkpoint, files);
            } else {
                self.inherited = (checkpoint, files);
            }
        } else {
            self.live = keyed.map(|_| fresh()).collect();
        }
        self.state = TaskState::Running;
    }

    /// It takes this file, of whatever origin, for one of its own that is up already.
    pub(super) fn mistake(&mut self, path: String, name: String) {
        let file = wire::StateFile {
            path,
            local_name: name.clone(),
            size: 1,
            tablets: vec![wire::KeyGroups::default()],
            ..Default::default()
        };
        self.live.insert(name.clone());
        self.uploaded.insert(name, file);
    }

    /// Data comes in: tables are written, and sometimes merged.
    fn go_on(&mut self, random: &mut Random, mut fresh: impl FnMut() -> String) {
        if self.live.len() >= LIVE_MAX || random.percent(30) {
            for _ in 0..random.below(LIVE_MAX) {
                let merged = random.pick(self.live.iter().cloned());
                merged.map(|name| self.live.remove(&name));
            }
        }
        for _ in 0..random.below(3) {
            self.live.insert(fresh());
        }
    }

    /// A barrier has come: takes a snapshot, unless it has taken part already.
    pub(super) fn on_trigger(
        &mut self,
        trigger: &wire::TriggerCheckpoint,
        random: &mut Random,
        fresh: impl FnMut() -> String,
    ) {
        let checkpoint = CheckpointId(trigger.checkpoint_id);
        if !self.runs() || self.seen >= checkpoint {
            return;
        }
        self.seen = checkpoint;
        self.go_on(random, fresh);
        let savepoint_directory = trigger.savepoint_directory.clone();
        let self_contained = !savepoint_directory.is_empty();
        let named = CheckpointId(trigger.base_checkpoint_id);
        let known = self.bases.get(&named).filter(|_| !self_contained);
        let base_used = known.map_or(CheckpointId::NONE, |_| named);
        let base = known.cloned().unwrap_or_default();
        let mut upload = Upload {
            checkpoint,
            base_used,
            savepoint_directory,
            left: Vec::new(),
            added: Vec::new(),
            kept: Vec::new(),
            dropped: Vec::new(),
        };
        let inherited = Some(&self.inherited).filter(|(checkpoint, _)| *checkpoint == named);
        for name in &self.live {
            let inherited = inherited.and_then(|(_, files)| files.get(name));
            let reused = self.uploaded.get(name).or(inherited);
            let reused = reused.filter(|_| !self_contained);
            match (base.get(name), reused) {
                (Some(file), _) => upload.kept.push(file.clone()),
                (None, Some(file)) => upload.added.push(file.clone()),
                (None, None) => upload.left.push(name.clone()),
            }
        }
        if trigger.unaligned_after_ms.is_some() && random.percent(40) {
            upload.left.push(CHANNELS.to_owned());
        }
        let dropped = base
            .into_iter()
            .filter(|(name, _)| !self.live.contains(name));
        upload.dropped = dropped.map(|(_, file)| file.path).collect();
        self.uploads.push(upload);
    }

    /// The next step of one of its uploads.
    pub(super) fn upload(&mut self, id: &TaskId, random: &mut Random) -> Option<Uploaded> {
        if self.uploads.is_empty() {
            return None;
        }
        let at = random.below(self.uploads.len());
        if let Some(name) = self.uploads[at].left.pop() {
            let directory = self.uploads[at].savepoint_directory.clone();
            let checkpoint = self.uploads[at].checkpoint;
            if name == CHANNELS {
                let path = paths::channel_state(&self.writer, checkpoint);
                let file = wire::StateFile {
                    path: path.clone(),
                    local_name: name,
                    size: 1,
                    kind: wire::StateFileKind::Channels.into(),
                    ..Default::default()
                };
                self.uploads[at].added.push(file);
                return Some(Uploaded::File(path));
            }
            let path = self.next_path(&directory);
            let object = object(&directory, &path);
            let file = wire::StateFile {
                path,
                local_name: name.clone(),
                size: 1,
                tablets: vec![wire::KeyGroups::default()],
                ..Default::default()
            };
            let upload = &mut self.uploads[at];
            upload.added.push(file.clone());
            if directory.is_empty() {
                self.uploaded.insert(name, file);
            }
            return Some(Uploaded::File(object));
        }
        let upload = self.uploads.remove(at);
        if upload.savepoint_directory.is_empty() {
            let files = upload.kept.iter().chain(&upload.added);
            let files: FilesByName = files
                .map(|file| (file.local_name.clone(), file.clone()))
                .collect();
            self.uploaded.retain(|name, _| files.contains_key(name));
            self.bases.insert(upload.checkpoint, files);
        }
        let delta = wire::SubtaskDelta {
            vertex: id.subtask.vertex.to_string(),
            subtask: id.subtask.subtask,
            uploaded_bytes: upload.added.len() as u64,
            added: upload.added,
            dropped: upload.dropped,
            ..Default::default()
        };
        Some(Uploaded::Whole(wire::CheckpointAck {
            task: Some(id.into()),
            checkpoint_id: upload.checkpoint.0,
            base_checkpoint_id: upload.base_used.0,
            state: Some(delta),
            ..Default::default()
        }))
    }

    pub(super) fn on_completed(&mut self, checkpoint: CheckpointId) {
        self.committed = self.committed.max(checkpoint);
        self.uploads.retain(|upload| upload.checkpoint > checkpoint);
        if self.bases.contains_key(&checkpoint) {
            self.bases = self.bases.split_off(&checkpoint);
            self.inherited.1.clear();
        }
    }

    /// Gives the upload up. Returns the object that was being written, if any: that may still come into being.
    pub(super) fn on_aborted(&mut self, checkpoint: CheckpointId) -> Option<String> {
        self.bases.remove(&checkpoint);
        let at = self
            .uploads
            .iter()
            .position(|it| it.checkpoint == checkpoint)?;
        let upload = self.uploads.remove(at);
        (!upload.left.is_empty()).then(|| self.next_object(&upload))
    }

    /// The task ends. Returns the objects that were being written.
    pub(super) fn end(&mut self, state: TaskState) -> Vec<String> {
        self.state = state;
        self.restoring = None;
        let uploads = std::mem::take(&mut self.uploads);
        let writing = uploads.iter().filter(|upload| !upload.left.is_empty());
        writing.map(|upload| self.next_object(upload)).collect()
    }

    fn next_object(&mut self, upload: &Upload) -> String {
        if upload.left.last().is_some_and(|name| name == CHANNELS) {
            return paths::channel_state(&self.writer, upload.checkpoint);
        }
        let path = self.next_path(&upload.savepoint_directory);
        object(&upload.savepoint_directory, &path)
    }

    fn next_path(&mut self, savepoint_directory: &str) -> String {
        self.sequence += 1;
        if savepoint_directory.is_empty() {
            paths::state_file(&self.writer, self.sequence)
        } else {
            paths::savepoint_file(&self.writer, self.sequence)
        }
    }

    pub(super) fn report(&self, task: &TaskId) -> wire::TaskReport {
        wire::TaskReport {
            task: Some(task.into()),
            state: self.state.into(),
            last_checkpoint_seen: self.seen.0,
            last_checkpoint_committed: self.committed.0,
            failure: self.failure.clone(),
            unusable_state: self.unusable_state.clone(),
            ..Default::default()
        }
    }
}
