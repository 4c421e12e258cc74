//! State between subtasks when the parallelism changes.

use std::collections::BTreeMap;

use flott_node::storage::ObjectStorage;
use flott_proto::key_group::KeyGroupRange;
use flott_statestore::{Error, StateBatch, Timer, restore};
use proptest::prelude::*;

use crate::fixture::{
    Contents, MAX_PARALLELISM, OPTIONS, Random, Task, at, contents, group, merged,
    restore as restore_one,
};
use crate::vertex::{Vertex, paths};

impl Vertex {
    /// Sets values and timers of a state, or deletes them.
    fn write(&mut self, name: &str, key: &[u8], value: Option<&[u8]>, time_ms: i64) {
        let backend = self.owner(group(key));
        let state = backend.state("op", name).unwrap();
        let timer = Timer {
            time_ms,
            group: group(key),
            key: key.to_vec(),
            namespace: vec![],
        };
        let mut batch = StateBatch::new();
        match value {
            Some(value) => {
                batch.put(state, at(key, b"n"), value);
                batch.put_timer(state, timer);
            }
            None => {
                batch.delete(state, at(key, b"n"));
                batch.delete_timer(state, timer);
            }
        }
        backend.write(batch).unwrap();
    }

    /// Values and timers of a state in all subtasks, each of which may have a key only if it owns it. Keys are also read
    /// one by one, in one batch.
    fn contents(&mut self, name: &str) -> (Contents, Vec<Timer>) {
        let (mut all, mut timers) = (Contents::new(), Vec::new());
        for (backend, _) in &mut self.tasks {
            let state = backend.state("op", name).unwrap();
            let scanned = contents(backend, state);
            let keys: Vec<_> = scanned.keys().rev().map(|(key, n)| at(key, n)).collect();
            let read = backend.get_many(state, &keys).unwrap();
            let scanned_values: Vec<_> = scanned.values().rev().cloned().map(Some).collect();
            assert_eq!(read, scanned_values);
            let due = backend.due_timers(state, i64::MAX, usize::MAX).unwrap();
            let earliest = due.first().map(|timer| timer.time_ms);
            assert_eq!(backend.earliest_timer(state), earliest);
            timers.extend(due);
            for (key, value) in scanned {
                assert!(all.insert(key, value).is_none(), "a key is there twice");
            }
        }
        timers.sort();
        (all, timers)
    }
}

#[tokio::test]
async fn another_parallelism_rewrites_and_uploads_no_state() {
    let mut vertex = Vertex::start("no-rewriting").await;
    for number in 0u32..2000 {
        let name = ["a", "b"][number as usize % 2];
        let mut random = number;
        let value: [u8; 200] = std::array::from_fn(|_| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 24) as u8
        });
        vertex.write(name, &number.to_be_bytes(), Some(&value), 5);
    }
    let whole = vertex.checkpoint().await;
    assert!(whole > 400_000, "{whole} bytes");
    let expected = (vertex.contents("a"), vertex.contents("b"));
    for parallelism in [2, 4, 3, 1, 5, 2] {
        vertex.restart(parallelism).await;
        assert_eq!((vertex.contents("a"), vertex.contents("b")), expected);
        let before = paths(&vertex.states);
        let uploaded = vertex.checkpoint().await;
        assert!(uploaded < whole / 8, "{uploaded} of {whole} bytes");
        let after = paths(&vertex.states);
        assert!(!before.is_disjoint(&after), "files are referred to again");
        // And as they were after the first checkpoint of the new owners.
        vertex.restart(parallelism).await;
        assert_eq!((vertex.contents("a"), vertex.contents("b")), expected);
    }
}

#[tokio::test]
async fn states_that_are_numbered_differently_are_copied_together() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///numbers").unwrap();
    let mut states = Vec::new();
    for (subtask, names) in [(0, ["a", "b"]), (1, ["b", "a"])] {
        let range = KeyGroupRange::of_subtask(subtask, MAX_PARALLELISM, 2);
        let name = format!("w-{subtask}");
        let mut task = Task::start(&local.path().join(&name), &storage, &name, range);
        for name in names {
            let state = task.backend.state("op", name).unwrap();
            let keys = (0u8..50).map(|key| vec![key]);
            let own = keys.filter(|key| range.contains(group(key)));
            task.put(state, own.map(|key| (key, name.as_bytes().to_vec())));
        }
        states.push(task.checkpoint(1).await.1);
    }
    let all = KeyGroupRange::all(MAX_PARALLELISM);
    let dir = local.path().join("all");
    let mut backend = restore_one(&dir, &storage, &states, all).await.unwrap();
    assert!(backend.restored_files().is_empty());
    for name in ["a", "b"] {
        let state = backend.state("op", name).unwrap();
        let contents = contents(&backend, state);
        assert_eq!(contents.len(), 50);
        assert!(contents.values().all(|value| value == name.as_bytes()));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Delete(u8),
    Checkpoint,
    Restart(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..40, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        4 => (0u8..40).prop_map(Step::Delete),
        2 => Just(Step::Checkpoint),
        2 => (1u32..7).prop_map(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Above all: what was deleted, whoever owned it then, never comes back.
    #[test]
    fn keys_are_what_they_were_at_the_checkpoint_whoever_owns_them(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut vertex = Vertex::start("owners").await;
            let (mut present, mut saved) = (BTreeMap::new(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Put(key, value) => {
                        vertex.write("a", &[key], Some(&[value]), 1);
                        present.insert(key, value);
                    }
                    Step::Delete(key) => {
                        vertex.write("a", &[key], None, 1);
                        present.remove(&key);
                    }
                    Step::Checkpoint => {
                        vertex.checkpoint().await;
                        saved.clone_from(&present);
                    }
                    Step::Restart(parallelism) => {
                        vertex.restart(parallelism).await;
                        present.clone_from(&saved);
                    }
                }
                let (values, timers) = vertex.contents("a");
                let expected: Contents = present
                    .iter()
                    .map(|(key, value)| ((vec![*key], b"n".to_vec()), vec![*value]))
                    .collect();
                assert_eq!(values, expected);
                assert_eq!(timers.len(), present.len());
            }
        });
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

#[tokio::test]
async fn tables_from_before_merges_pass_from_owner_to_owner() {
    /// More than are merged together.
    const CHECKPOINTS: u64 = 60;
    const CHANGES: u64 = 30;
    const KEYS: u64 = 8_000;
    let mut vertex = Vertex::start("merges").await;
    let (mut random, mut expected) = (Random(1), Contents::new());
    let mut are_merged = false;
    for parallelism in [1, 2, 3, 1] {
        vertex.restart(parallelism).await;
        assert_eq!(vertex.contents("value").0, expected);
        // All that there was is written once, so that it takes long until most of it is garbage.
        for number in 0..KEYS + CHECKPOINTS * CHANGES {
            let (key, is_put) = match number < KEYS {
                true => (number, true),
                false => (random.next() % KEYS, random.next() % 4 > 0),
            };
            let stored = key.to_be_bytes();
            let value = random.bytes(160);
            vertex.write("value", &stored, is_put.then_some(&value), number as i64);
            let at = (stored.to_vec(), b"n".to_vec());
            if is_put {
                expected.insert(at, value);
            } else {
                expected.remove(&at);
            }
            if number >= KEYS && number.is_multiple_of(CHANGES) {
                vertex.checkpoint().await;
            }
        }
        vertex.checkpoint().await;
        let task = vertex.local.path().join(format!("{}-0", vertex.attempt));
        are_merged |= merged(&task, &vertex.states[0]) > 0;
    }
    assert!(are_merged, "no checkpoint had a table from before a merge");
}
