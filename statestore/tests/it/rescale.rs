//! State between subtasks when the parallelism changes.

use std::collections::BTreeMap;

use flott_node::storage::ObjectStorage;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;
use flott_statestore::{Error, StateBatch, Timer, restore};

use crate::fixture::{
    Contents, MAX_PARALLELISM, OPTIONS, Task, at, contents, group, restore as restore_one,
};

#[tokio::test]
async fn every_key_and_timer_is_there_exactly_once_after_1_to_3_to_2_to_1() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///rescale").unwrap();
    let mut expected: BTreeMap<&str, Contents> = BTreeMap::new();
    let mut expected_timers = Vec::new();
    let mut task = Task::start(
        &local.path().join("first"),
        &storage,
        "w",
        KeyGroupRange::all(MAX_PARALLELISM),
    );
    let [a, b] = ["a", "b"].map(|name| task.backend.state("op", name).unwrap());
    let mut batch = StateBatch::new();
    for number in 0u32..500 {
        let (key, value) = (number.to_be_bytes(), number.to_le_bytes().to_vec());
        batch.put(a, at(&key, b"n"), &value);
        expected
            .entry("a")
            .or_default()
            .insert((key.to_vec(), b"n".to_vec()), value.clone());
        if number % 3 == 0 {
            batch.put(b, at(&key, b""), b"other");
            expected
                .entry("b")
                .or_default()
                .insert((key.to_vec(), vec![]), b"other".to_vec());
            let timer = Timer {
                time_ms: i64::from(number % 7),
                group: group(&key),
                key: key.to_vec(),
                namespace: vec![],
            };
            batch.put_timer(b, &timer);
            expected_timers.push(timer);
        }
    }
    expected_timers.sort();
    task.backend.write(batch).unwrap();
    let (_, state) = task.checkpoint(1).await;
    let mut states: Vec<SubtaskState> = vec![state];
    for (round, parallelism) in [3, 2, 1].into_iter().enumerate() {
        let mut next = Vec::new();
        let mut found: BTreeMap<&str, Contents> = BTreeMap::new();
        let mut found_timers = Vec::new();
        for subtask in 0..parallelism {
            let range = KeyGroupRange::of_subtask(subtask, MAX_PARALLELISM, parallelism);
            let dir = local.path().join(format!("{round}-{subtask}"));
            let mut backend = restore_one(&dir, &storage, &states, range).await.unwrap();
            // Registered in another order than before: names decide, not numbers.
            let other = backend.state("op", "z").unwrap();
            assert!(contents(&backend, other).is_empty());
            for name in ["b", "a"] {
                let state = backend.state("op", name).unwrap();
                for (key, value) in contents(&backend, state) {
                    assert!(
                        found.entry(name).or_default().insert(key, value).is_none(),
                        "a key is there twice"
                    );
                }
            }
            let state = backend.state("op", "b").unwrap();
            let timers = backend.due_timers(state, i64::MAX, usize::MAX).unwrap();
            assert_eq!(
                backend.earliest_timer(state),
                timers.first().map(|timer| timer.time_ms)
            );
            found_timers.extend(timers);
            let writer = format!("w-{round}-{subtask}");
            let uploader = flott_statestore::SnapshotUploader::new(storage.clone(), writer, range);
            let id = flott_proto::ids::CheckpointId(round as u64 + 2);
            let snapshot = backend.snapshot(id).unwrap();
            let uploaded = uploader
                .upload(snapshot, flott_proto::ids::CheckpointId::NONE, None)
                .await
                .unwrap();
            let files = uploaded
                .added
                .into_iter()
                .map(|file| (file.path.clone(), file))
                .collect();
            next.push(SubtaskState {
                files,
                ..SubtaskState::default()
            });
            assert!(!dir.join("tablet-0").exists());
        }
        found_timers.sort();
        assert_eq!(
            (&found, &found_timers),
            (&expected, &expected_timers),
            "at parallelism {parallelism}"
        );
        states = next;
    }
}

#[tokio::test]
async fn a_state_that_lacks_a_part_is_refused() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///lacks").unwrap();
    let half = KeyGroupRange::of_subtask(0, MAX_PARALLELISM, 2);
    let mut task = Task::start(&local.path().join("half"), &storage, "w", half);
    let (_, state) = task.checkpoint(1).await;
    let all = KeyGroupRange::all(MAX_PARALLELISM);
    let refused = restore_one(&local.path().join("all"), &storage, &[state], all).await;
    assert!(
        matches!(refused, Err(Error::Incomplete { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn another_max_parallelism_is_refused_as_long_as_it_can_lose_keys() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///max-parallelism").unwrap();
    let all = KeyGroupRange::all(MAX_PARALLELISM);
    let mut task = Task::start(&local.path().join("one"), &storage, "w", all);
    let (_, state) = task.checkpoint(1).await;
    for (number, range) in [all, KeyGroupRange::of_subtask(0, MAX_PARALLELISM, 2)]
        .into_iter()
        .enumerate()
    {
        let dir = local.path().join(format!("other-{number}"));
        let states = std::slice::from_ref(&state);
        let source = storage.clone().into();
        let refused = restore(&dir, &source, states, MAX_PARALLELISM * 2, range, OPTIONS).await;
        assert!(
            matches!(
                refused,
                Err(Error::MaxParallelism {
                    stored: 16,
                    asked: 32
                })
            ),
            "{refused:?}"
        );
    }
}
