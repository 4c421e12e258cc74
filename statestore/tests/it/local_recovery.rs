//! What is on this machine is not downloaded, and is trusted no more than a download.

use std::fs;
use std::path::Path;

use flott_node::storage::ObjectStorage;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;
use flott_statestore::{Error, KeyedBackend, LocalFiles, SnapshotUploader, Source};

use super::fixture::{Contents, MAX_PARALLELISM, OPTIONS, Task, contents};

fn all() -> KeyGroupRange {
    KeyGroupRange::all(MAX_PARALLELISM)
}

/// A task that keeps its files in `<dir>/kept`, after three checkpoints; the newest of them, and what is in it.
async fn task(dir: &Path, storage: &ObjectStorage) -> (Task, LocalFiles, SubtaskState, Contents) {
    let local = LocalFiles::create(&dir.join("kept")).unwrap();
    let mut task = Task::start(&dir.join("task"), storage, "w", all());
    let uploader = SnapshotUploader::new(storage.clone(), "w", all());
    task.uploader = uploader.keeping(local.of_subtask("v-0"));
    let state = task.backend.state("op", "value").unwrap();
    let mut newest = SubtaskState::default();
    for checkpoint in 1..=3u64 {
        let keys = (checkpoint * 100..checkpoint * 100 + 150).map(|key| key.to_be_bytes().to_vec());
        let value = checkpoint.to_be_bytes().to_vec();
        task.put(state, keys.map(|key| (key, value.clone())));
        newest = task.checkpoint(checkpoint).await.1;
    }
    let expected = contents(&task.backend, state);
    (task, local, newest, expected)
}

async fn restored(
    dir: &Path,
    storage: &ObjectStorage,
    local: &LocalFiles,
    state: &SubtaskState,
    range: KeyGroupRange,
) -> Result<KeyedBackend, Error> {
    let source = Source {
        storage: storage.clone(),
        local: Some(local.clone()),
    };
    let states = std::slice::from_ref(state);
    flott_statestore::restore(dir, &source, states, MAX_PARALLELISM, range, OPTIONS).await
}

#[tokio::test]
async fn a_restore_where_the_task_ran_downloads_nothing_whatever_its_range() {
    let dir = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///local-recovery").unwrap();
    let (task, local, newest, expected) = task(dir.path(), &storage).await;
    drop(task);
    let empty = ObjectStorage::open("memory:///local-recovery-empty").unwrap();
    for (name, range) in [
        ("all", all()),
        ("half", KeyGroupRange::of_subtask(0, MAX_PARALLELISM, 2)),
    ] {
        let at = dir.path().join(name);
        let mut backend = restored(&at, &empty, &local, &newest, range).await.unwrap();
        let state = backend.state("op", "value").unwrap();
        let mut expected = expected.clone();
        expected.retain(|(key, _), _| range.contains(super::fixture::group(key)));
        assert_eq!(contents(&backend, state), expected, "{name}");
    }
}

#[tokio::test]
async fn only_files_of_the_newest_checkpoint_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///local-recovery-old").unwrap();
    let (mut task, _, newest, _) = task(dir.path(), &storage).await;
    task.checkpoint(4).await;
    // What the third had alone goes with the fifth upload, once the fourth has completed.
    task.checkpoint(5).await;
    let kept = fs::read_dir(dir.path().join("kept")).unwrap().count();
    let needed: std::collections::BTreeSet<_> = task
        .completed
        .values()
        .rev()
        .take(2)
        .flat_map(|state| state.files.keys())
        .collect();
    assert!(newest.files.keys().any(|path| !needed.contains(path)));
    assert_eq!(kept, needed.len());
}

#[tokio::test]
async fn a_kept_file_that_is_damaged_or_gone_is_downloaded() {
    let dir = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///local-recovery-damage").unwrap();
    let (task, local, newest, expected) = task(dir.path(), &storage).await;
    drop(task);
    for (number, entry) in fs::read_dir(dir.path().join("kept")).unwrap().enumerate() {
        let path = entry.unwrap().path();
        match number % 3 {
            0 => fs::write(&path, b"something else").unwrap(),
            1 => fs::remove_file(&path).unwrap(),
            _ => {}
        }
    }
    let at = dir.path().join("again");
    let mut backend = restored(&at, &storage, &local, &newest, all())
        .await
        .unwrap();
    let state = backend.state("op", "value").unwrap();
    assert_eq!(contents(&backend, state), expected);
}
