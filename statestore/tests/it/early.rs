//! What is flushed between checkpoints is uploaded before the next asks for it.

use std::collections::BTreeSet;

use flott_node::storage::ObjectStorage;
use flott_proto::ids::CheckpointId;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;
use flott_statestore::{EarlyTables, StateId};

use crate::fixture::{Contents, MAX_PARALLELISM, Random, Task, contents, restore};

/// Of a value.
const BYTES: usize = 8 << 10;

/// Twice what fits into memory.
const KEYS: u64 = 1_000;

fn all() -> KeyGroupRange {
    KeyGroupRange::all(MAX_PARALLELISM)
}

/// A task that writes more than fits into its memory.
struct Busy {
    task: Task,
    state: StateId,
    early: EarlyTables,
    expected: Contents,
    random: Random,
}

impl Busy {
    fn start(dir: &std::path::Path, storage: &ObjectStorage) -> Self {
        let mut task = Task::start(&dir.join("task"), storage, "w", all());
        Self {
            state: task.backend.state("op", "value").unwrap(),
            early: task.backend.early_tables(),
            task,
            expected: Contents::new(),
            random: Random(7),
        }
    }

    /// Changes every key.
    fn write(&mut self) {
        for key in 0..KEYS {
            let key = key.to_be_bytes().to_vec();
            let value = self.random.bytes(BYTES);
            self.task.put(self.state, [(key.clone(), value.clone())]);
            self.expected.insert((key, vec![]), value);
        }
    }

    async fn objects(&self) -> BTreeSet<String> {
        let listed = self.task.storage.list("").await.unwrap();
        listed.into_iter().map(|(path, _)| path).collect()
    }

    /// Uploads early until there are more objects than `known`.
    async fn upload_early(&self, known: usize) {
        let more = async {
            while self.objects().await.len() <= known {
                tokio::task::yield_now().await;
            }
        };
        self.task.uploader.upload_early(&self.early, more).await;
    }

    /// A checkpoint that completes; the bytes that its upload says that it took.
    async fn checkpoint(&mut self, id: u64) -> (u64, SubtaskState) {
        let snapshot = self.task.backend.snapshot(CheckpointId(id)).unwrap();
        let base = self.task.base();
        let uploader = &self.task.uploader;
        let uploaded = uploader.upload(snapshot, base, None).await.unwrap();
        let saved = self.task.complete(CheckpointId(id), &uploaded);
        (uploaded.uploaded_bytes, saved)
    }
}

fn paths(state: &SubtaskState) -> BTreeSet<String> {
    state.files.keys().cloned().collect()
}

#[tokio::test]
async fn a_checkpoint_has_what_was_uploaded_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///early").unwrap();
    let mut busy = Busy::start(dir.path(), &storage);
    busy.write();
    busy.upload_early(0).await;
    let before = busy.objects().await;
    let (bytes, saved) = busy.checkpoint(1).await;
    assert!(
        paths(&saved).is_superset(&before),
        "{before:?} in {saved:?}"
    );
    assert_eq!(busy.objects().await, paths(&saved), "nothing twice");
    assert_eq!(bytes, saved.size(), "early bytes are bytes too");

    let again = dir.path().join("again");
    let states = std::slice::from_ref(&saved);
    let mut restored = restore(&again, &storage, states, all()).await.unwrap();
    let state = restored.state("op", "value").unwrap();
    assert_eq!(contents(&restored, state), busy.expected);
}

#[tokio::test]
async fn what_is_up_when_the_attempt_ends_and_was_in_no_snapshot_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///early-end").unwrap();
    let mut busy = Busy::start(dir.path(), &storage);
    busy.write();
    let (_, saved) = busy.checkpoint(1).await;
    busy.write();
    busy.upload_early(saved.files.len()).await;
    busy.task.uploader.give_up_early().await;
    assert_eq!(busy.objects().await, paths(&saved));
}

#[tokio::test]
async fn a_table_that_is_on_its_way_when_the_attempt_ends_is_deleted_too() {
    let dir = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///early-late").unwrap();
    let mut busy = Busy::start(dir.path(), &storage);
    busy.write();
    // The end is there from the first table on.
    let mut polled = 0;
    let end = std::future::poll_fn(|_| {
        polled += 1;
        match polled {
            1 => std::task::Poll::Pending,
            _ => std::task::Poll::Ready(()),
        }
    });
    busy.task.uploader.upload_early(&busy.early, end).await;
    assert_eq!(busy.objects().await.len(), 1, "it has arrived");
    busy.task.uploader.give_up_early().await;
    assert!(busy.objects().await.is_empty());
}

#[tokio::test]
async fn no_object_is_left_that_no_checkpoint_has_had_while_tables_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///early-merges").unwrap();
    let mut busy = Busy::start(dir.path(), &storage);
    let mut referred = BTreeSet::new();
    let mut files = 0;
    for round in 1..=25 {
        busy.write();
        let known = busy.objects().await;
        busy.upload_early(known.len()).await;
        let (_, saved) = busy.checkpoint(round).await;
        files += paths(&saved).difference(&referred).count();
        referred.extend(paths(&saved));
    }
    assert!(files > 50, "{files} files");
    busy.task.uploader.give_up_early().await;
    let orphans: Vec<String> = busy
        .objects()
        .await
        .difference(&referred)
        .cloned()
        .collect();
    assert!(orphans.is_empty(), "{orphans:?}");
}
