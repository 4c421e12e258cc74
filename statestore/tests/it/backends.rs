//! State in memory and on disk: each restores what the other has saved.

use flott_node::storage::ObjectStorage;
use flott_proto::ids::CheckpointId;
use flott_proto::key_group::KeyGroupRange;

use crate::fixture::{IN_MEMORY, MAX_PARALLELISM, OPTIONS, Task, contents};

fn entries(count: u32, bytes: usize) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    (0..count).map(move |number| (number.to_be_bytes().to_vec(), vec![number as u8; bytes]))
}

#[tokio::test]
async fn state_that_outgrows_its_memory_goes_to_disk_and_loses_nothing() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///outgrown").unwrap();
    let all = KeyGroupRange::all(MAX_PARALLELISM);
    let mut task = Task::start_as(IN_MEMORY, &local.path().join("1"), &storage, "w-1", all);
    let state = task.backend.state("op", "value").unwrap();
    task.put(state, entries(100, 10));
    task.checkpoint(1).await;
    // A snapshot that is not linked yet when memory runs out.
    let snapshot = task.backend.snapshot(CheckpointId(2)).unwrap();
    assert!(task.backend.is_in_memory());
    for from in 0..10 {
        task.put(state, entries(10_000, 200 + from));
    }
    assert!(
        !task.backend.is_in_memory(),
        "with what is unsaved more than the half of 8 MiB"
    );
    let (then, small) = task.upload(snapshot, task.base()).await;
    assert!(then.base_used == CheckpointId(1) && small.size() < 100_000);
    let (_, whole) = task.checkpoint(3).await;
    let expected = contents(&task.backend, state);
    assert_eq!(expected.len(), 10_000);

    for (number, options) in [OPTIONS, IN_MEMORY].into_iter().enumerate() {
        let dir = local.path().join(format!("again-{number}"));
        let again = Task::restart_as(options, &dir, &storage, "w-2", all, CheckpointId(3), &whole);
        let mut again = again.await.unwrap();
        let state = again.backend.state("op", "value").unwrap();
        assert!(contents(&again.backend, state) == expected);
        assert_eq!(again.backend.is_in_memory(), number == 1);
    }
}

#[tokio::test]
async fn what_a_snapshot_that_was_given_up_has_not_written_is_in_the_next() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///unwritten").unwrap();
    let all = KeyGroupRange::all(MAX_PARALLELISM);
    let mut task = Task::start_as(IN_MEMORY, &local.path().join("1"), &storage, "w-1", all);
    let state = task.backend.state("op", "value").unwrap();
    task.put(state, entries(10, 10));
    drop(task.backend.snapshot(CheckpointId(1)).unwrap());
    task.put(state, entries(5, 20));
    let (_, saved) = task.checkpoint(2).await;
    let dir = local.path().join("again");
    let mut again = Task::restart(&dir, &storage, "w-2", all, CheckpointId(2), &saved)
        .await
        .unwrap();
    let restored = again.backend.state("op", "value").unwrap();
    assert_eq!(
        contents(&again.backend, restored),
        contents(&task.backend, state)
    );
    assert_eq!(contents(&again.backend, restored).len(), 10);
}
