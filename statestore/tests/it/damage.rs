//! Damage and loss are reported, never restored.

use flott_node::storage::ObjectStorage;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;
use flott_statestore::{Error, KeyedBackend};

use crate::fixture::{MAX_PARALLELISM, OPTIONS, Task, restore};

fn all() -> KeyGroupRange {
    KeyGroupRange::all(MAX_PARALLELISM)
}

async fn saved(dir: &std::path::Path, storage: &ObjectStorage) -> SubtaskState {
    let mut task = Task::start(dir, storage, "w", all());
    let state = task.backend.state("op", "value").unwrap();
    task.put(
        state,
        (0u32..1000).map(|key| (key.to_be_bytes().to_vec(), vec![1; 20])),
    );
    task.checkpoint(1).await.1
}

#[tokio::test]
async fn a_flipped_bit_a_cut_and_a_loss_are_found_in_every_file() {
    let local = tempfile::tempdir().unwrap();
    let root = local.path().join("objects");
    let storage = ObjectStorage::open(root.to_str().unwrap()).unwrap();
    let state = saved(&local.path().join("task"), &storage).await;
    // Opened as it is, and rebuilt for another range.
    let ranges = [all(), KeyGroupRange::of_subtask(1, MAX_PARALLELISM, 2)];
    let mut dirs = 0;
    for path in state.files.keys() {
        let object = root.join(path);
        let whole = std::fs::read(&object).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 4;
        for damage in [Some(flipped), Some(whole[..whole.len() - 1].to_vec()), None] {
            match &damage {
                Some(bytes) => std::fs::write(&object, bytes).unwrap(),
                None => std::fs::remove_file(&object).unwrap(),
            }
            for range in ranges {
                dirs += 1;
                let dir = local.path().join(format!("restored-{dirs}"));
                let refused = restore(&dir, &storage, std::slice::from_ref(&state), range).await;
                match (refused, &damage) {
                    (Err(Error::Corrupt { path: found, .. }), Some(_)) => assert_eq!(&found, path),
                    (Err(Error::Missing { path: found }), None) => assert_eq!(&found, path),
                    (other, _) => panic!("{path}: {other:?}"),
                }
            }
        }
        std::fs::write(&object, whole).unwrap();
    }
    restore(&local.path().join("good"), &storage, &[state], all())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_directory_with_leftovers_is_refused() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///leftovers").unwrap();
    let state = saved(&local.path().join("task"), &storage).await;
    let dir = local.path().join("task");
    let created = KeyedBackend::create(&dir, MAX_PARALLELISM, all(), OPTIONS);
    assert!(
        matches!(created, Err(Error::NotEmpty { .. })),
        "{created:?}"
    );
    let restored = restore(&dir, &storage, &[state], all()).await;
    assert!(
        matches!(restored, Err(Error::NotEmpty { .. })),
        "{restored:?}"
    );
}

#[tokio::test]
async fn an_upload_that_fails_can_be_followed_by_one_that_works() {
    let local = tempfile::tempdir().unwrap();
    let root = local.path().join("objects");
    let storage = ObjectStorage::open(root.to_str().unwrap()).unwrap();
    let mut task = Task::start(&local.path().join("task"), &storage, "w", all());
    let state = task.backend.state("op", "value").unwrap();
    task.put(
        state,
        (0u32..1000).map(|key| (key.to_be_bytes().to_vec(), vec![1; 20])),
    );
    let snapshot = task
        .backend
        .snapshot(flott_proto::ids::CheckpointId(1))
        .unwrap();
    // A file where the writer's directory has to be.
    std::fs::write(root.join("w"), "in the way").unwrap();
    let failed = task
        .uploader
        .upload(snapshot, flott_proto::ids::CheckpointId::NONE, None)
        .await;
    assert!(matches!(failed, Err(Error::Storage(_))), "{failed:?}");
    task.uploader.aborted(flott_proto::ids::CheckpointId(1));
    std::fs::remove_file(root.join("w")).unwrap();
    let (_, whole) = task.checkpoint(2).await;
    restore(&local.path().join("again"), &storage, &[whole], all())
        .await
        .unwrap();
}
