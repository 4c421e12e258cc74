//! Random work, checkpoints and crashes against plain maps.

use std::collections::{BTreeMap, BTreeSet};

use flott_node::storage::ObjectStorage;
use flott_proto::ids::CheckpointId;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;
use flott_statestore::{StateBatch, StateKey, Timer};
use proptest::prelude::*;

use crate::fixture::{Contents, IN_MEMORY, MAX_PARALLELISM, OPTIONS, Task, at, contents, group};

#[derive(Clone, Debug)]
enum Change {
    Put(usize, u8, u8, u8),
    Delete(usize, u8, u8),
    PutTimer(usize, u8, i64),
    DeleteTimer(usize, u8, i64),
    FireTimers(usize, i64),
}

#[derive(Clone, Debug)]
enum Fate {
    Completes,
    /// The ack was sent, the leader gave the checkpoint up.
    Aborted,
    /// The upload never began.
    Dropped,
    /// The leader names no base.
    CompletesWithoutBase,
    Savepoint,
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Change>),
    /// With changes between the snapshot and its upload.
    Checkpoint(Fate, Vec<Change>),
    Crash,
}

fn change() -> impl Strategy<Value = Change> {
    let (state, key) = (0usize..2, 0u8..24);
    prop_oneof![
        8 => (state.clone(), key.clone(), 0u8..3, any::<u8>()).prop_map(|(s, k, n, v)| Change::Put(s, k, n, v)),
        3 => (state.clone(), key.clone(), 0u8..3).prop_map(|(s, k, n)| Change::Delete(s, k, n)),
        4 => (state.clone(), key.clone(), -8i64..8).prop_map(|(s, k, t)| Change::PutTimer(s, k, t)),
        2 => (state.clone(), key, -8i64..8).prop_map(|(s, k, t)| Change::DeleteTimer(s, k, t)),
        1 => (state, -8i64..8).prop_map(|(s, t)| Change::FireTimers(s, t)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        5 => Just(Fate::Completes),
        2 => Just(Fate::Aborted),
        1 => Just(Fate::Dropped),
        1 => Just(Fate::CompletesWithoutBase),
        1 => Just(Fate::Savepoint),
    ];
    prop_oneof![
        5 => prop::collection::vec(change(), 1..30).prop_map(Step::Write),
        4 => (fate, prop::collection::vec(change(), 0..10)).prop_map(|(fate, changes)| Step::Checkpoint(fate, changes)),
        1 => Just(Step::Crash),
    ]
}

/// What two states hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    values: [Contents; 2],
    timers: [BTreeSet<Timer>; 2],
}

/// Zeros and high bytes, so that escaping is exercised.
fn key_of(key: u8) -> Vec<u8> {
    vec![key % 3, 0, key, 0xFF]
}

fn timer(key: u8, time_ms: i64) -> Timer {
    let key = key_of(key);
    Timer {
        time_ms,
        group: group(&key),
        key,
        namespace: vec![0, 1],
    }
}

const UIDS: [(&str, &str); 2] = [("window", "accumulator"), ("window", "late")];

fn write(task: &mut Task, model: &mut Model, changes: &[Change]) {
    let states = UIDS.map(|(uid, name)| task.backend.state(uid, name).unwrap());
    let mut batch = StateBatch::new();
    for change in changes {
        match *change {
            Change::Put(state, key, namespace, value) => {
                let (key, namespace) = (key_of(key), vec![namespace]);
                batch.put(states[state], at(&key, &namespace), &[value]);
                model.values[state].insert((key, namespace), vec![value]);
            }
            Change::Delete(state, key, namespace) => {
                let (key, namespace) = (key_of(key), vec![namespace]);
                batch.delete(states[state], at(&key, &namespace));
                model.values[state].remove(&(key, namespace));
            }
            Change::PutTimer(state, key, time) => {
                batch.put_timer(states[state], timer(key, time));
                model.timers[state].insert(timer(key, time));
            }
            Change::DeleteTimer(state, key, time) => {
                batch.delete_timer(states[state], timer(key, time));
                model.timers[state].remove(&timer(key, time));
            }
            Change::FireTimers(state, until) => {
                // Timers that this batch puts are not due before it is written.
                task.backend.write(std::mem::take(&mut batch)).unwrap();
                let mut due = task.backend.due_timers(states[state], until, 3).unwrap();
                while !due.is_empty() {
                    for timer in &due {
                        assert!(model.timers[state].remove(timer), "{timer:?} fired twice");
                        batch.delete_timer(states[state], timer);
                    }
                    task.backend.write(std::mem::take(&mut batch)).unwrap();
                    due = task.backend.due_timers(states[state], until, 3).unwrap();
                }
                assert!(
                    model.timers[state]
                        .iter()
                        .all(|timer| timer.time_ms > until)
                );
            }
        }
    }
    task.backend.write(batch).unwrap();
}

fn check(task: &mut Task, model: &Model) {
    for (number, (uid, name)) in UIDS.into_iter().enumerate() {
        let state = task.backend.state(uid, name).unwrap();
        let values = &model.values[number];
        assert_eq!(&contents(&task.backend, state), values);
        let keys: Vec<(Vec<u8>, Vec<u8>)> = (0..24)
            .flat_map(|k| (0..3).map(move |n| (key_of(k), vec![n])))
            .collect();
        let asked: Vec<StateKey<'_>> = keys
            .iter()
            .map(|(key, namespace)| at(key, namespace))
            .collect();
        let found = task.backend.get_many(state, &asked).unwrap();
        for (key, value) in keys.iter().zip(found) {
            assert_eq!(value.as_ref(), values.get(key), "{key:?}");
        }
        let one = key_of(4);
        let entries: Vec<_> = task
            .backend
            .scan_key(state, group(&one), &one)
            .map(|entry| entry.unwrap().1)
            .collect();
        let expected: Vec<_> = values
            .keys()
            .filter(|(key, _)| *key == one)
            .map(|(_, namespace)| namespace.clone())
            .collect();
        assert_eq!(entries, expected);
        let timers = &model.timers[number];
        assert_eq!(
            task.backend.earliest_timer(state),
            timers.first().map(|timer| timer.time_ms)
        );
        for (until, limit) in [(-9, 100), (0, 100), (0, 4), (9, 1), (9, 0), (9, 100)] {
            let due: Vec<Timer> = timers
                .iter()
                .filter(|timer| timer.time_ms <= until)
                .take(limit)
                .cloned()
                .collect();
            assert_eq!(task.backend.due_timers(state, until, limit).unwrap(), due);
        }
    }
}

async fn run(steps: Vec<Step>, begins_in_memory: bool) {
    // Every attempt has the other backend.
    let options = |attempt: u32| match (attempt % 2 == 1) == begins_in_memory {
        true => IN_MEMORY,
        false => OPTIONS,
    };
    let local = tempfile::tempdir().unwrap();
    let storage =
        ObjectStorage::open(&format!("memory:///model{}", local.path().display())).unwrap();
    let all = KeyGroupRange::all(MAX_PARALLELISM);
    let (mut attempt, mut checkpoint) = (1, 0);
    let dir = |attempt: u32| local.path().join(format!("attempt-{attempt}"));
    let mut task = Task::start_as(options(attempt), &dir(attempt), &storage, "w-1", all);
    let mut model = Model::default();
    let mut saved: BTreeMap<CheckpointId, (Model, SubtaskState)> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Write(changes) => write(&mut task, &mut model, &changes),
            Step::Checkpoint(fate, meanwhile) => {
                checkpoint += 1;
                let id = CheckpointId(checkpoint);
                let snapshot = task.backend.snapshot(id).unwrap();
                let then = model.clone();
                write(&mut task, &mut model, &meanwhile);
                check(&mut task, &model);
                let base = if matches!(fate, Fate::CompletesWithoutBase) {
                    CheckpointId::NONE
                } else {
                    task.base()
                };
                match fate {
                    Fate::Completes | Fate::CompletesWithoutBase => {
                        let (_, state) = task.upload(snapshot, base).await;
                        task.uploader.completed(id);
                        task.completed.insert(id, state.clone());
                        saved.insert(id, (then, state));
                    }
                    Fate::Aborted => {
                        task.upload(snapshot, base).await;
                        task.uploader.aborted(id);
                    }
                    Fate::Dropped => {
                        drop(snapshot);
                        task.uploader.aborted(id);
                    }
                    Fate::Savepoint => {
                        let directory = format!("{}/savepoint-{checkpoint}", storage.root());
                        let directory = ObjectStorage::open(&directory).unwrap();
                        let upload = task.uploader.upload(snapshot, base, Some(&directory));
                        let uploaded = upload.await.unwrap();
                        assert_eq!(
                            (uploaded.base_used, &uploaded.dropped),
                            (CheckpointId::NONE, &vec![])
                        );
                        let state = task.applied(&uploaded);
                        let written = directory.list("").await.unwrap();
                        let written: Vec<_> = written.into_iter().map(|(path, _)| path).collect();
                        assert_eq!(written, state.files.keys().cloned().collect::<Vec<_>>());
                        let dir = local.path().join("savepoint");
                        let restored = Task::restart(&dir, &directory, "s", all, id, &state).await;
                        check(&mut restored.unwrap(), &then);
                        std::fs::remove_dir_all(&dir).unwrap();
                    }
                }
            }
            Step::Crash => {
                attempt += 1;
                let writer = format!("w-{attempt}");
                let dir = dir(attempt);
                let snapshots = task.dir.join("snapshots");
                let left = std::fs::read_dir(snapshots).map_or(0, |entries| entries.count());
                assert_eq!(left, 0, "snapshots are deleted");
                match saved.last_key_value() {
                    Some((id, (then, state))) => {
                        model = then.clone();
                        let options = options(attempt);
                        task = Task::restart_as(options, &dir, &storage, &writer, all, *id, state)
                            .await
                            .unwrap();
                    }
                    None => {
                        model = Model::default();
                        task = Task::start_as(options(attempt), &dir, &storage, &writer, all);
                    }
                }
            }
        }
        check(&mut task, &model);
    }
    // Every checkpoint of the way can still be restored, not only the last.
    for (number, (id, (then, state))) in saved.into_iter().enumerate().step_by(3) {
        let dir = local.path().join(format!("again-{number}"));
        let mut task = Task::restart(&dir, &storage, "again", all, id, &state)
            .await
            .unwrap();
        check(&mut task, &then);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn state_survives_whatever_happens(steps in prop::collection::vec(step(), 1..25), in_memory in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps, in_memory));
    }
}
