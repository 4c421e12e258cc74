//! What is retained, what is retired, and which files nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flott_proto::ids::{AttemptNumber, CheckpointId, SubtaskId};
use flott_proto::state_handle::{DeltaError, StateFile, SubtaskDelta, SubtaskState};

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

    /// Bytes of the whole state, whether uploaded for this checkpoint or before.
    pub fn size(&self) -> u64 {
        self.subtasks.values().map(SubtaskState::size).sum()
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

    /// The whole state that `deltas` describe against the pending checkpoint's base.
    pub fn resolve(
        &self,
        deltas: impl IntoIterator<Item = (CheckpointId, SubtaskDelta)>,
        expected: &BTreeSet<SubtaskId>,
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
    pub fn complete(&mut self, completed: CompletedCheckpoint, retained_max: usize) {
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
            assert!(
                subtasks
                    .iter()
                    .all(|subtask| checkpoint.subtasks.contains_key(subtask))
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

/// Bytes of the files of these checkpoints, each file once.
fn bytes_of<'a>(checkpoints: impl Iterator<Item = &'a CompletedCheckpoint>) -> u64 {
    let files: BTreeMap<&str, u64> = checkpoints
        .flat_map(CompletedCheckpoint::files)
        .map(|file| (file.path.as_str(), file.size))
        .collect();
    files.values().sum()
}

#[cfg(test)]
mod tests {
    use flott_proto::key_group::KeyGroupRange;
    use proptest::prelude::*;

    use super::*;

    fn subtask() -> SubtaskId {
        SubtaskId {
            vertex: "v".parse().unwrap(),
            subtask: 0,
        }
    }

    fn file(n: u16) -> StateFile {
        StateFile {
            path: format!("w/{n}"),
            local_name: format!("{n}.sst"),
            size: 1,
            crc32c: 0,
            key_groups: KeyGroupRange { first: 0, last: 1 },
        }
    }

    /// What a step does: take a checkpoint that drops some files and adds some, take a savepoint, abort one, or
    /// discard a retained one.
    #[derive(Clone, Debug)]
    enum Op {
        Checkpoint {
            drops: Vec<prop::sample::Index>,
            adds: u16,
            retain: usize,
        },
        Savepoint {
            adds: u16,
        },
        Abort,
        Discard(prop::sample::Index),
        ForgetAll,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (prop::collection::vec(any::<prop::sample::Index>(), 0..4), 0u16..4, 1usize..4)
                .prop_map(|(drops, adds, retain)| Op::Checkpoint { drops, adds, retain }),
            1 => (0u16..4).prop_map(|adds| Op::Savepoint { adds }),
            1 => Just(Op::Abort),
            1 => any::<prop::sample::Index>().prop_map(Op::Discard),
            1 => Just(Op::ForgetAll),
        ]
    }

    proptest! {
        /// Whatever happens, a retired file is needed by nobody, and every dropped file is retired sooner or later.
        #[test]
        fn no_needed_file_is_ever_retired(ops in prop::collection::vec(op(), 1..40)) {
            let mut store = CheckpointStore::default();
            let (mut next_file, mut deleted) = (0u16, BTreeSet::new());
            let expected = BTreeSet::from([subtask()]);
            for op in ops {
                let base = store.latest().map_or(CheckpointId::NONE, |latest| latest.id);
                let begin = |store: &mut CheckpointStore, kind, base| {
                    store.last_id = store.last_id.next();
                    store.pending = Some(PendingRecord {
                        id: store.last_id, kind, attempt: AttemptNumber(1), triggered_at_ms: 0, base,
                        savepoint_directory: String::new(),
                    });
                };
                let finish = |store: &mut CheckpointStore, base, delta: SubtaskDelta, kind, retain| {
                    let subtasks = store.resolve([(base, delta)], &expected).unwrap();
                    let id = store.last_id;
                    store.complete(CompletedCheckpoint {
                        id, kind, triggered_at_ms: 0, completed_at_ms: 1, uploaded_bytes: 0,
                        external_path: format!("root/chk-{id}"), metadata_object: Some(format!("chk-{id}/_metadata")), subtasks,
                    }, retain);
                };
                let mut add = |count: u16| (0..count).map(|_| { next_file += 1; file(next_file) }).collect::<Vec<_>>();
                match op {
                    Op::Checkpoint { drops, adds, retain } => {
                        let held: Vec<String> = store.latest()
                            .map_or(vec![], |latest| latest.subtasks[&subtask()].files.keys().cloned().collect());
                        let dropped: BTreeSet<String> = if held.is_empty() { BTreeSet::new() } else {
                            drops.iter().map(|index| index.get(&held).clone()).collect()
                        };
                        begin(&mut store, CheckpointKind::Checkpoint, base);
                        let delta = SubtaskDelta {
                            subtask: subtask(), operators: BTreeMap::new(), added: add(adds),
                            dropped: dropped.into_iter().collect(), uploaded_bytes: 0,
                        };
                        finish(&mut store, base, delta, CheckpointKind::Checkpoint, retain);
                    }
                    Op::Savepoint { adds } => {
                        begin(&mut store, CheckpointKind::Savepoint, CheckpointId::NONE);
                        let delta = SubtaskDelta {
                            subtask: subtask(), operators: BTreeMap::new(), added: add(adds), dropped: vec![],
                            uploaded_bytes: 0,
                        };
                        finish(&mut store, CheckpointId::NONE, delta, CheckpointKind::Savepoint, 1);
                    }
                    Op::Abort => {
                        begin(&mut store, CheckpointKind::Checkpoint, base);
                        store.abort(0, "test", true);
                    }
                    Op::Discard(index) => {
                        if !store.retained.is_empty() {
                            let unusable = index.get(&store.retained).clone();
                            prop_assert!(store.discard(unusable.id));
                            // What nobody shares with it goes, and so does its metadata.
                            let kept = store.retained.iter().chain(&store.savepoints);
                            let kept: BTreeSet<&str> = kept.flat_map(|checkpoint| checkpoint.paths()).collect();
                            for path in unusable.paths().chain(unusable.metadata_object.as_deref()) {
                                prop_assert_ne!(kept.contains(path), store.retired.contains(path), "{}", path);
                            }
                        }
                    }
                    Op::ForgetAll => deleted.append(&mut store.retired),
                }
                store.check(&expected);
                for checkpoint in store.retained.iter().chain(&store.savepoints) {
                    for path in checkpoint.paths() {
                        prop_assert!(!deleted.contains(path), "{} was deleted but is needed", path);
                    }
                }
            }
        }
    }

    #[test]
    fn an_ack_against_another_base_is_refused() {
        let mut store = CheckpointStore {
            last_id: CheckpointId(1),
            ..CheckpointStore::default()
        };
        store.pending = Some(PendingRecord {
            id: CheckpointId(1),
            kind: CheckpointKind::Checkpoint,
            attempt: AttemptNumber(1),
            triggered_at_ms: 0,
            base: CheckpointId::NONE,
            savepoint_directory: String::new(),
        });
        let delta = SubtaskDelta {
            subtask: subtask(),
            operators: BTreeMap::new(),
            added: vec![],
            dropped: vec![],
            uploaded_bytes: 0,
        };
        let expected = BTreeSet::from([subtask()]);
        let refused = store.resolve([(CheckpointId(7), delta.clone())], &expected);
        assert_eq!(
            refused,
            Err(CompletionError::WrongBase {
                subtask: subtask(),
                base: CheckpointId(7)
            })
        );
        let dropping = SubtaskDelta {
            dropped: vec!["w/9".into()],
            ..delta
        };
        assert!(matches!(
            store.resolve([(CheckpointId::NONE, dropping)], &expected),
            Err(CompletionError::Delta(_))
        ));
        assert_eq!(
            store.resolve([], &expected),
            Err(CompletionError::MissingSubtask(subtask()))
        );
    }
}
