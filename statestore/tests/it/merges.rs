//! The database merges its tables; checkpoints have them as they were before, and the same state.

use std::path::Path;

use flott_node::storage::ObjectStorage;
use flott_proto::ids::CheckpointId;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;
use flott_statestore::{StateBatch, StateId, Uploaded};

use crate::fixture::{Contents, MAX_PARALLELISM, Random, Task, at, contents, merged, restore};

const KEYS: u64 = 20_000;

/// Enough for merges of tables of like size, and for merges of everything.
const ROUNDS: u64 = 400;

/// What a checkpoint uploads if it takes over nothing that was merged, with its manifest.
const CHANGE_BYTES_MAX: u64 = 100_000;

/// A state that changes a little from checkpoint to checkpoint, with what it should be.
struct Changing {
    task: Task,
    state: StateId,
    expected: Contents,
    random: Random,
}

impl Changing {
    fn of(mut task: Task, expected: Contents) -> Self {
        let state = task.backend.state("op", "value").unwrap();
        Self {
            task,
            state,
            expected,
            random: Random(1),
        }
    }

    /// Writes each of `keys`, or deletes it if `is_deleted` says so.
    fn change(&mut self, keys: &[u64], is_deleted: impl Fn(u64) -> bool) {
        let mut batch = StateBatch::new();
        for key in keys {
            let stored = key.to_be_bytes().to_vec();
            if is_deleted(*key) {
                batch.delete(self.state, at(&stored, b""));
                self.expected.remove(&(stored, vec![]));
            } else {
                let value = self.random.bytes(64);
                batch.put(self.state, at(&stored, b""), &value);
                self.expected.insert((stored, vec![]), value);
            }
        }
        self.task.backend.write(batch).unwrap();
    }

    /// Some of the keys; a fourth of them goes. Little changes for so long that tables of like size are merged, then enough
    /// for a merge of everything.
    fn change_some(&mut self, round: u64) {
        let count = if round % 250 < 170 { 20 } else { 400 };
        let keys: Vec<u64> = (0..count).map(|_| self.random.next() % KEYS).collect();
        let seed = self.random.next();
        self.change(&keys, |key| (key ^ seed).is_multiple_of(4));
    }

    async fn upload(&mut self, checkpoint: u64) -> Uploaded {
        let snapshot = self
            .task
            .backend
            .snapshot(CheckpointId(checkpoint))
            .unwrap();
        let base = self.task.base();
        self.task
            .uploader
            .upload(snapshot, base, None)
            .await
            .unwrap()
    }
}

fn all() -> KeyGroupRange {
    KeyGroupRange::all(MAX_PARALLELISM)
}

/// A task with all keys, and one checkpoint.
async fn begun(dir: &Path, storage: &ObjectStorage) -> (Changing, SubtaskState) {
    let task = Task::start(&dir.join("task"), storage, "w", all());
    let mut changing = Changing::of(task, Contents::new());
    changing.change(&(0..KEYS).collect::<Vec<_>>(), |_| false);
    let whole = changing.upload(1).await;
    let saved = changing.task.complete(CheckpointId(1), &whole);
    (changing, saved)
}

#[tokio::test]
async fn what_is_merged_is_neither_uploaded_again_nor_lost() {
    let dir = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///merges").unwrap();
    let (mut changing, mut saved) = begun(dir.path(), &storage).await;
    let (mut merged_max, mut taken_over) = (0, 0);
    for round in 2..ROUNDS {
        changing.change_some(round);
        let uploaded = changing.upload(round).await;
        let before = saved.size();
        saved = changing.task.complete(CheckpointId(round), &uploaded);
        if uploaded.uploaded_bytes > CHANGE_BYTES_MAX {
            let (merged, gone) = (
                uploaded.uploaded_bytes - CHANGE_BYTES_MAX,
                before - saved.size(),
            );
            assert!(merged < gone, "{merged} bytes of merges for {gone}");
            taken_over += 1;
        }
        merged_max = merged_max.max(merged(&changing.task.dir, &saved));
        if round % 50 == 0 {
            let again = dir.path().join(format!("again-{round}"));
            let states = std::slice::from_ref(&saved);
            let mut restored = restore(&again, &storage, states, all()).await.unwrap();
            let state = restored.state("op", "value").unwrap();
            assert_eq!(contents(&restored, state), changing.expected);
        }
    }
    assert!(merged_max > 40, "{merged_max} tables from before merges");
    assert!(taken_over > 0, "not one merge of everything");
}

#[tokio::test]
async fn checkpoints_that_fail_and_restarts_lose_nothing_of_what_is_merged() {
    let dir = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///merges-and-failures").unwrap();
    let (mut changing, mut saved) = begun(dir.path(), &storage).await;
    let (mut at_newest, mut newest) = (changing.expected.clone(), CheckpointId(1));
    let mut merged_max = 0;
    for round in 2..ROUNDS {
        changing.change_some(round);
        match changing.random.next() % 32 {
            0..4 => drop(changing.task.backend.snapshot(CheckpointId(round)).unwrap()),
            4..8 => {
                changing.upload(round).await;
                changing.task.uploader.aborted(CheckpointId(round));
            }
            8 => {
                let again = dir.path().join(format!("task-{round}"));
                let writer = format!("w-{round}");
                let restarting = Task::restart(&again, &storage, &writer, all(), newest, &saved);
                let random = changing.random;
                changing = Changing::of(restarting.await.unwrap(), at_newest.clone());
                changing.random = random;
                assert_eq!(contents(&changing.task.backend, changing.state), at_newest);
            }
            _ => {
                let uploaded = changing.upload(round).await;
                newest = CheckpointId(round);
                saved = changing.task.complete(newest, &uploaded);
                at_newest = changing.expected.clone();
                merged_max = merged_max.max(merged(&changing.task.dir, &saved));
            }
        }
    }
    assert!(merged_max > 40, "{merged_max} tables from before merges");
}
