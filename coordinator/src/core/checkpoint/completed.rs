//! What is retained, what is retired, and which files nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flott_proto::ids::{AttemptNumber, CheckpointId, SubtaskId, VertexId};
use flott_proto::state_handle::{Alignment, DeltaError, StateFile, SubtaskDelta, SubtaskState};

use super::CheckpointKind;

/// Checkpoints that a job's history remembers, completed or not.
pub const HISTORY_MAX: usize = 32;

/// What there is of a savepoint that was given up is left alone for so long: tasks that have not heard of it yet still
/// write there.
const GIVEN_UP_SAVEPOINT_REST_MS: i64 = 60_000;

/// A checkpoint that has been begun and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRecord {
    pub id: CheckpointId,
    pub kind: CheckpointKind,
    pub attempt: AttemptNumber,
    pub triggered_at_ms: i64,
    /// What acks are changes against; [`CheckpointId::NONE`]: nothing.
    pub base: CheckpointId,
    /// A savepoint's own directory, absolute; empty for other kinds.
    pub savepoint_directory: String,
}

/// A completed checkpoint with the whole state of every subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletedCheckpoint {
    pub id: CheckpointId,
    pub kind: CheckpointKind,
    pub triggered_at_ms: i64,
    pub completed_at_ms: i64,
    pub uploaded_bytes: u64,
    /// Where a user finds it: the directory of its `_metadata` object.
    pub external_path: String,
    /// The `_metadata` object relative to the checkpoint root; none for a savepoint, which is the user's.
    pub metadata_object: Option<String>,
    pub subtasks: BTreeMap<SubtaskId, SubtaskState>,
}

impl CompletedCheckpoint {
    /// What its files' paths are relative to; `checkpoint_dir` is the job's.
    pub fn root<'a>(&'a self, checkpoint_dir: &'a str) -> &'a str {
        match self.kind {
            CheckpointKind::Savepoint => &self.external_path,
            CheckpointKind::Checkpoint | CheckpointKind::Final => checkpoint_dir,
        }
    }

    /// Bytes of the whole state, whether uploaded for this checkpoint or before. Files that subtasks share count once.
    pub fn size(&self) -> u64 {
        let operators = self.subtasks.values().map(SubtaskState::operators_size);
        operators.fold(bytes_of(std::iter::once(self)), u64::saturating_add)
    }

    /// Subtasks that the vertex had then; 0 if it is not of the checkpoint.
    pub fn parallelism(&self, vertex: &VertexId) -> u32 {
        let subtasks = self.subtasks.keys();
        subtasks.filter(|subtask| subtask.vertex == *vertex).count() as u32
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = &StateFile> {
        self.subtasks
            .values()
            .flat_map(|state| state.files.values())
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.files().map(|file| file.path.as_str())
    }
}

/// State that a job was submitted to start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePoint {
    /// What the files' paths are relative to.
    pub root: String,
    /// By vertex: its parallelism then, and the state of each subtask that had any.
    pub subtasks: BTreeMap<SubtaskId, SubtaskState>,
    /// By vertex uid.
    pub parallelism: BTreeMap<String, u32>,
}

/// One line of a job's checkpoint history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub id: CheckpointId,
    pub kind: CheckpointKind,
    pub triggered_at_ms: i64,
    pub duration_ms: u64,
    pub size: u64,
    pub uploaded_bytes: u64,
    /// Of all subtasks together.
    pub alignment: Alignment,
    /// Where it lies, or why it is not.
    pub outcome: Result<String, String>,
}

/// Why an entry that completes a checkpoint is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompletionError {
    #[error("no such checkpoint is pending")]
    NotPending,
    #[error("{subtask} acknowledged against checkpoint {base}, which is neither the base nor 0")]
    WrongBase {
        subtask: SubtaskId,
        base: CheckpointId,
    },
    #[error("no state of {0}")]
    MissingSubtask(SubtaskId),
    #[error("{subtask} adds {path}, which it has not written and its base does not have")]
    ForeignFile { subtask: SubtaskId, path: String },
    #[error("{subtask} adds {path}, which is about to be deleted")]
    RetiredFile { subtask: SubtaskId, path: String },
    #[error(transparent)]
    Delta(#[from] DeltaError),
}

/// All checkpoints of a job.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckpointStore {
    /// The highest id ever begun.
    pub last_id: CheckpointId,
    pub pending: Option<PendingRecord>,
    /// Oldest first; what a restart can begin from.
    pub retained: Vec<Arc<CompletedCheckpoint>>,
    /// Bytes of the files of `retained`, each file once.
    pub retained_bytes: u64,
    /// Oldest first; the user's.
    pub savepoints: Vec<Arc<CompletedCheckpoint>>,
    /// Objects that nobody needs any more and that may still exist.
    pub retired: BTreeSet<String>,
    /// Directories of savepoints that are to be deleted, with the log time (ms) from which on.
    pub retired_directories: BTreeMap<String, i64>,
    /// Newest last.
    pub history: Vec<Summary>,
    pub completed_count: u64,
    pub failed_count: u64,
    /// Since the last completed one.
    pub failed_in_a_row: u32,
}

impl CheckpointStore {
    /// The newest checkpoint that a restart can begin from.
    pub fn latest(&self) -> Option<&Arc<CompletedCheckpoint>> {
        self.retained.last()
    }

    pub fn retained_by_id(&self, id: CheckpointId) -> Option<&Arc<CompletedCheckpoint>> {
        self.retained.iter().find(|checkpoint| checkpoint.id == id)
    }

    /// The whole state that `deltas` describe against the pending checkpoint's base. `wrote` says whether the present attempt
    /// of a subtask has written a file.
    pub fn resolve(
        &self,
        deltas: impl IntoIterator<Item = (CheckpointId, SubtaskDelta)>,
        expected: &BTreeSet<SubtaskId>,
        wrote: impl Fn(&SubtaskId, &str) -> bool,
    ) -> Result<BTreeMap<SubtaskId, SubtaskState>, CompletionError> {
        let pending = self.pending.as_ref().ok_or(CompletionError::NotPending)?;
        let base = self.retained_by_id(pending.base);
        let empty = SubtaskState::default();
        let mut states = BTreeMap::new();
        for (delta_base, delta) in deltas {
            let against = if delta_base == CheckpointId::NONE {
                &empty
            } else if delta_base == pending.base {
                base.and_then(|base| base.subtasks.get(&delta.subtask))
                    .unwrap_or(&empty)
            } else {
                return Err(CompletionError::WrongBase {
                    subtask: delta.subtask,
                    base: delta_base,
                });
            };
            self.check_added(&delta, base.map(|base| &**base), &wrote)?;
            let state = delta.apply_to(against)?;
            states.insert(delta.subtask, state);
        }
        match expected
            .iter()
            .find(|subtask| !states.contains_key(subtask))
        {
            Some(missing) => Err(CompletionError::MissingSubtask(missing.clone())),
            None => Ok(states),
        }
    }

    /// Every added file must be certain to exist until the checkpoint is complete: either the base has it, of whatever subtask
    /// of the vertex (its parallelism may have changed), and a base is kept while a checkpoint is pending; or it is the
    /// subtask's own, which is only deleted once it is listed as retired. Any other may be deleted at any moment.
    fn check_added(
        &self,
        delta: &SubtaskDelta,
        base: Option<&CompletedCheckpoint>,
        wrote: impl Fn(&SubtaskId, &str) -> bool,
    ) -> Result<(), CompletionError> {
        #[cfg(test)]
        if ACCEPTS_ANY_FILE.get() {
            return Ok(());
        }
        let subtask = &delta.subtask;
        for StateFile { path, .. } in &delta.added {
            let (subtask, path) = (subtask.clone(), path.clone());
            if self.retired.contains(&path) {
                return Err(CompletionError::RetiredFile { subtask, path });
            }
            let is_in_base = || {
                let states = base.into_iter().flat_map(|base| &base.subtasks);
                let mut of_vertex = states.filter(|(id, _)| id.vertex == subtask.vertex);
                of_vertex.any(|(_, state)| state.files.contains_key(&path))
            };
            if !wrote(&subtask, &path) && !is_in_base() {
                return Err(CompletionError::ForeignFile { subtask, path });
            }
        }
        Ok(())
    }

    /// What [`Self::retained_bytes`] will be once `completed` is complete.
    pub fn bytes_with(&self, completed: &CompletedCheckpoint, retained_max: usize) -> u64 {
        if completed.kind == CheckpointKind::Savepoint {
            return self.retained_bytes;
        }
        let surplus = (self.retained.len() + 1).saturating_sub(retained_max.max(1));
        let kept = self.retained.iter().skip(surplus).map(|kept| &**kept);
        bytes_of(kept.chain([completed]))
    }

    /// Brings [`Self::retained_bytes`] in line with what is retained.
    pub fn recount(&mut self) {
        self.retained_bytes = bytes_of(self.retained.iter().map(|kept| &**kept));
    }

    /// The pending checkpoint becomes `completed`; at most `retained_max` (at least 1) stay restorable.
    pub fn complete(
        &mut self,
        completed: CompletedCheckpoint,
        alignment: Alignment,
        retained_max: usize,
    ) {
        let pending = self
            .pending
            .take()
            .expect("only a pending checkpoint completes");
        assert_eq!(pending.id, completed.id);
        self.remember(Summary {
            id: completed.id,
            kind: completed.kind,
            triggered_at_ms: completed.triggered_at_ms,
            duration_ms: (completed.completed_at_ms - completed.triggered_at_ms).max(0) as u64,
            size: completed.size(),
            uploaded_bytes: completed.uploaded_bytes,
            alignment,
            outcome: Ok(completed.external_path.clone()),
        });
        self.completed_count += 1;
        self.failed_in_a_row = 0;
        if completed.kind == CheckpointKind::Savepoint {
            self.savepoints.push(Arc::new(completed));
            return;
        }
        self.retained.push(Arc::new(completed));
        let surplus = self.retained.len().saturating_sub(retained_max.max(1));
        let dropped: Vec<_> = self.retained.drain(..surplus).collect();
        self.retire(&dropped);
    }

    /// Files that savepoints name: the user's, whatever becomes of the job.
    pub fn savepoint_paths(&self) -> BTreeSet<&str> {
        self.savepoints
            .iter()
            .flat_map(|savepoint| savepoint.paths())
            .collect()
    }

    /// The pending checkpoint is given up; what there is of a savepoint is to be deleted.
    pub fn abort(&mut self, now_ms: i64, reason: &str, counts_as_failure: bool) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        self.remember(Summary {
            id: pending.id,
            kind: pending.kind,
            triggered_at_ms: pending.triggered_at_ms,
            duration_ms: (now_ms - pending.triggered_at_ms).max(0) as u64,
            size: 0,
            uploaded_bytes: 0,
            alignment: Alignment::default(),
            outcome: Err(reason.to_owned()),
        });
        if pending.kind == CheckpointKind::Savepoint {
            let not_before = now_ms + GIVEN_UP_SAVEPOINT_REST_MS;
            self.retired_directories
                .insert(pending.savepoint_directory, not_before);
        }
        if counts_as_failure {
            self.failed_count += 1;
            self.failed_in_a_row += 1;
        }
    }

    /// The job's tasks have ended: nobody writes any more where something is to be deleted.
    pub fn release_directories(&mut self, now_ms: i64) {
        for not_before_ms in self.retired_directories.values_mut() {
            *not_before_ms = now_ms.min(*not_before_ms);
        }
    }

    /// A retained checkpoint that turned out to be unreadable is no longer restorable.
    pub fn discard(&mut self, id: CheckpointId) -> bool {
        let Some(at) = self
            .retained
            .iter()
            .position(|checkpoint| checkpoint.id == id)
        else {
            return false;
        };
        let dropped = self.retained.remove(at);
        self.retire(&[dropped]);
        true
    }

    /// The job is over and wants none of its checkpoints back: everything but savepoints is retired.
    pub fn retire_all(&mut self) {
        let dropped = std::mem::take(&mut self.retained);
        self.retire(&dropped);
    }

    fn retire(&mut self, dropped: &[Arc<CompletedCheckpoint>]) {
        self.recount();
        let needed: BTreeSet<&str> = self
            .retained
            .iter()
            .chain(&self.savepoints)
            .flat_map(|checkpoint| checkpoint.paths())
            .collect();
        let unneeded = dropped
            .iter()
            .flat_map(|checkpoint| checkpoint.paths())
            .filter(|path| !needed.contains(path));
        self.retired.extend(unneeded.map(str::to_owned));
        self.retired.extend(
            dropped
                .iter()
                .filter_map(|checkpoint| checkpoint.metadata_object.clone()),
        );
    }

    fn remember(&mut self, summary: Summary) {
        if self.history.len() == HISTORY_MAX {
            self.history.remove(0);
        }
        self.history.push(summary);
    }

    /// Panics if the store contradicts itself: above all, if a retired file is still needed.
    pub fn check(&self, subtasks: &BTreeSet<SubtaskId>) {
        let ids: Vec<_> = self
            .retained
            .iter()
            .map(|checkpoint| checkpoint.id)
            .collect();
        assert!(ids.is_sorted_by(|a, b| a < b), "retained checkpoints rise");
        let retained = self.retained.iter().map(|checkpoint| &**checkpoint);
        assert_eq!(self.retained_bytes, bytes_of(retained));
        assert!(ids.iter().all(|id| *id <= self.last_id));
        if let Some(pending) = &self.pending {
            assert_eq!(
                pending.id, self.last_id,
                "the pending checkpoint is the newest"
            );
            assert!(
                pending.base == CheckpointId::NONE || self.retained_by_id(pending.base).is_some()
            );
        }
        for checkpoint in self.retained.iter().chain(&self.savepoints) {
            // It may be of another parallelism.
            assert!(
                subtasks
                    .iter()
                    .all(|subtask| checkpoint.parallelism(&subtask.vertex) > 0)
            );
            for path in checkpoint.paths() {
                assert!(
                    !self.retired.contains(path),
                    "{path} is retired but checkpoint {} needs it",
                    checkpoint.id
                );
            }
        }
    }
}

/// Sizes are the word of tasks. No job counts more, so that those of thousands can be added up.
const COUNTED_BYTES_MAX: u64 = 1 << 48;

/// Bytes of the files of these checkpoints, each file once.
fn bytes_of<'a>(checkpoints: impl Iterator<Item = &'a CompletedCheckpoint>) -> u64 {
    let files: BTreeMap<&str, u64> = checkpoints
        .flat_map(CompletedCheckpoint::files)
        .map(|file| (file.path.as_str(), file.size))
        .collect();
    let bytes = files.into_values().fold(0, u64::saturating_add);
    bytes.min(COUNTED_BYTES_MAX)
}

#[cfg(test)]
thread_local! {
    /// A planted bug, for `core/storage_model/`, which must find it.
    pub(crate) static ACCEPTS_ANY_FILE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[cfg(test)]
mod tests;
