//! Nothing that is needed is retired, and an acknowledgement that does not fit is refused.

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
        tablets: vec![KeyGroupRange { first: 0, last: 1 }],
    }
}

/// The first checkpoint of a job, of these subtasks.
fn first<const N: usize>(subtasks: [(SubtaskId, SubtaskState); N]) -> CompletedCheckpoint {
    CompletedCheckpoint {
        id: CheckpointId(1),
        kind: CheckpointKind::Checkpoint,
        triggered_at_ms: 0,
        completed_at_ms: 0,
        uploaded_bytes: 0,
        external_path: String::new(),
        metadata_object: None,
        subtasks: subtasks.into(),
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
                let subtasks = store.resolve([(base, delta)], &expected, |_, _| true).unwrap();
                let id = store.last_id;
                store.complete(CompletedCheckpoint {
                    id, kind, triggered_at_ms: 0, completed_at_ms: 1, uploaded_bytes: 0,
                    external_path: format!("root/chk-{id}"), metadata_object: Some(format!("chk-{id}/_metadata")), subtasks,
                }, Alignment::default(), retain);
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
                        dropped: dropped.into_iter().collect(), uploaded_bytes: 0, alignment: Alignment::default(),
                    };
                    finish(&mut store, base, delta, CheckpointKind::Checkpoint, retain);
                }
                Op::Savepoint { adds } => {
                    begin(&mut store, CheckpointKind::Savepoint, CheckpointId::NONE);
                    let delta = SubtaskDelta {
                        subtask: subtask(), operators: BTreeMap::new(), added: add(adds), dropped: vec![],
                        uploaded_bytes: 0,
                        alignment: Alignment::default(),
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
        alignment: Alignment::default(),
    };
    let expected = BTreeSet::from([subtask()]);
    let refused = store.resolve([(CheckpointId(7), delta.clone())], &expected, |_, _| true);
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
        store.resolve([(CheckpointId::NONE, dropping)], &expected, |_, _| true),
        Err(CompletionError::Delta(_))
    ));
    assert_eq!(
        store.resolve([], &expected, |_, _| true),
        Err(CompletionError::MissingSubtask(subtask()))
    );
}

/// Found by `core/storage_model/`: nobody looked at what an acknowledgement adds, and an orphan's deletion, which was under
/// way, took a file from a checkpoint that had completed since.
#[test]
fn an_ack_may_add_what_its_writer_wrote_or_its_base_has_and_nothing_else() {
    let of = |vertex: &str, subtask| SubtaskId {
        vertex: vertex.parse().unwrap(),
        subtask,
    };
    let holding = |n| SubtaskState {
        files: [(file(n).path, file(n))].into(),
        ..SubtaskState::default()
    };
    let base = first([
        (of("v", 0), holding(1)),
        (of("v", 1), holding(2)),
        (of("other", 0), holding(3)),
    ]);
    let mut store = CheckpointStore {
        last_id: CheckpointId(2),
        retained: vec![base.into()],
        retired: [file(5).path].into(),
        ..CheckpointStore::default()
    };
    store.pending = Some(PendingRecord {
        id: CheckpointId(2),
        kind: CheckpointKind::Checkpoint,
        attempt: AttemptNumber(2),
        triggered_at_ms: 0,
        base: CheckpointId(1),
        savepoint_directory: String::new(),
    });
    let own = [file(4).path, file(5).path];
    let adding = |n| {
        let delta = SubtaskDelta {
            subtask: subtask(),
            operators: BTreeMap::new(),
            added: vec![file(n)],
            dropped: vec![],
            uploaded_bytes: 0,
            alignment: Alignment::default(),
        };
        let wrote =
            |of: &SubtaskId, path: &str| *of == subtask() && own.iter().any(|it| it == path);
        store.resolve([(CheckpointId::NONE, delta)], &BTreeSet::new(), wrote)
    };
    for (n, what) in [
        (1, "its own of the base"),
        (2, "another's"),
        (4, "a new one"),
    ] {
        assert!(adding(n).is_ok(), "{what}");
    }
    let (subtask, path) = (subtask(), |n| file(n).path);
    for n in [3, 6] {
        let (subtask, path) = (subtask.clone(), path(n));
        assert_eq!(
            adding(n),
            Err(CompletionError::ForeignFile { subtask, path })
        );
    }
    let path = path(5);
    assert_eq!(
        adding(5),
        Err(CompletionError::RetiredFile { subtask, path })
    );
}

/// It was a panic of every JobManager that applied the entry, where arithmetic is checked.
#[test]
fn sizes_that_cannot_be_added_up_are_counted_as_very_large() {
    let state = SubtaskState {
        operators: BTreeMap::new(),
        files: (0..3)
            .map(|n| StateFile {
                size: u64::MAX,
                ..file(n)
            })
            .map(|file| (file.path.clone(), file))
            .collect(),
    };
    assert_eq!(state.size(), u64::MAX);
    let completed = first([(subtask(), state)]);
    assert_eq!(completed.size(), COUNTED_BYTES_MAX);
}
