//! What goes over the wire for a checkpoint.

use flott_node::storage::ObjectStorage;
use flott_proto::ids::CheckpointId;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::{StateFile, SubtaskState};
use flott_statestore::{BackendOptions, KeyedBackend, SnapshotUploader, StateBatch};

use crate::fixture::{MAX_PARALLELISM, Random, Task, at, contents, restore};

fn entries(keys: std::ops::Range<u32>, seed: u32) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    keys.map(move |key| {
        // Values that do not compress.
        let value = (0..8u64).map(|part| {
            (u64::from(key) * 8 + part + u64::from(seed) * 1_000_003)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        });
        (
            key.to_be_bytes().to_vec(),
            value.flat_map(u64::to_le_bytes).collect(),
        )
    })
}

fn all() -> KeyGroupRange {
    KeyGroupRange::all(MAX_PARALLELISM)
}

#[tokio::test]
async fn a_small_change_uploads_little_on_every_store() {
    let local = tempfile::tempdir().unwrap();
    let directory = local.path().join("objects");
    for root in ["memory:///incremental", directory.to_str().unwrap()] {
        let storage = ObjectStorage::open(root).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut task = Task::start(dir.path(), &storage, "job/shared/w", all());
        let state = task.backend.state("op", "value").unwrap();
        task.put(state, entries(0..20_000, 1));
        let (first, whole) = task.checkpoint(1).await;
        assert_eq!(first.base_used, CheckpointId::NONE);
        assert!(first.uploaded_bytes > 1_000_000);
        task.put(state, entries(0..200, 2));
        let (second, whole_now) = task.checkpoint(2).await;
        assert_eq!(second.base_used, CheckpointId(1));
        assert!(
            second.uploaded_bytes * 20 < first.uploaded_bytes,
            "{second:?}"
        );
        // One table for the change and the manifest; the old manifest goes.
        assert_eq!((second.added.len(), second.dropped.len()), (2, 1));
        assert_eq!(whole_now.files.len(), whole.files.len() + 1);
        // Nothing changed: only the manifest.
        let (third, _) = task.checkpoint(3).await;
        assert_eq!((third.added.len(), third.dropped.len()), (1, 1));
    }
}

#[tokio::test]
async fn a_restored_task_uploads_only_what_is_new_to_it() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///restored").unwrap();
    let mut task = Task::start(&local.path().join("1"), &storage, "w1", all());
    let state = task.backend.state("op", "value").unwrap();
    task.put(state, entries(0..20_000, 1));
    let (first, whole) = task.checkpoint(1).await;
    let before = contents(&task.backend, state);
    drop(task);
    let mut task = Task::restart(
        &local.path().join("2"),
        &storage,
        "w2",
        all(),
        CheckpointId(1),
        &whole,
    )
    .await
    .unwrap();
    let state = task.backend.state("op", "value").unwrap();
    assert_eq!(contents(&task.backend, state), before);
    task.put(state, entries(0..10, 2));
    let (second, whole) = task.checkpoint(2).await;
    assert_eq!(second.base_used, CheckpointId(1));
    assert!(
        second.uploaded_bytes * 20 < first.uploaded_bytes,
        "{second:?}"
    );
    assert!(
        whole.files.keys().any(|path| path.starts_with("w1/")),
        "files of the earlier attempt are reused"
    );
    assert!(second.added.iter().all(|file| file.path.starts_with("w2/")));
}

#[tokio::test]
async fn files_of_an_aborted_checkpoint_are_listed_again_without_an_upload() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///aborted").unwrap();
    let mut task = Task::start(local.path(), &storage, "w", all());
    let state = task.backend.state("op", "value").unwrap();
    task.put(state, entries(0..20_000, 1));
    let snapshot = task.backend.snapshot(CheckpointId(1)).unwrap();
    let (first, _) = task.upload(snapshot, CheckpointId::NONE).await;
    task.uploader.aborted(CheckpointId(1));
    let (second, whole) = task.checkpoint(2).await;
    assert_eq!(second.base_used, CheckpointId::NONE);
    assert!(
        second.uploaded_bytes * 20 < first.uploaded_bytes,
        "{second:?}"
    );
    let tables = |files: &[StateFile]| -> Vec<String> {
        files
            .iter()
            .filter(|file| file.local_name.ends_with(".sst"))
            .map(|file| file.path.clone())
            .collect()
    };
    assert_eq!(tables(&second.added), tables(&first.added));
    assert!(whole.size() > 1_000_000);
}

#[tokio::test]
async fn a_base_that_is_not_known_makes_everything_added() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///unknown-base").unwrap();
    let mut task = Task::start(local.path(), &storage, "w", all());
    let state = task.backend.state("op", "value").unwrap();
    task.put(state, entries(0..100, 1));
    task.checkpoint(1).await;
    let snapshot = task.backend.snapshot(CheckpointId(2)).unwrap();
    let uploaded = task
        .uploader
        .upload(snapshot, CheckpointId(77), None)
        .await
        .unwrap();
    assert_eq!(uploaded.base_used, CheckpointId::NONE);
    assert_eq!((uploaded.added.len(), uploaded.dropped.len()), (2, 0));
}

#[tokio::test]
async fn uploads_that_overlap_do_not_disturb_each_other() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///overlap").unwrap();
    let mut task = Task::start(&local.path().join("task"), &storage, "w", all());
    let state = task.backend.state("op", "value").unwrap();
    let mut snapshots = Vec::new();
    for id in 1..=3u32 {
        task.put(state, entries(0..1000, id));
        snapshots.push(task.backend.snapshot(CheckpointId(id.into())).unwrap());
    }
    let savepoint = ObjectStorage::open("memory:///overlap-savepoint").unwrap();
    let uploads = snapshots.into_iter().map(|snapshot| {
        let savepoint = (snapshot.checkpoint() == CheckpointId(2)).then_some(&savepoint);
        task.uploader
            .upload(snapshot, CheckpointId::NONE, savepoint)
    });
    let states: Vec<_> = futures::future::try_join_all(uploads).await.unwrap();
    for (number, uploaded) in states.iter().enumerate() {
        let dir = local.path().join(format!("again-{number}"));
        let state = task.applied(uploaded);
        let root = if number == 1 { &savepoint } else { &storage };
        let mut again = Task::restart(&dir, root, "x", all(), CheckpointId(9), &state)
            .await
            .unwrap();
        let id = again.backend.state("op", "value").unwrap();
        let key = 5u32.to_be_bytes();
        let found = again.backend.get_many(id, &[at(&key, b"")]).unwrap();
        assert_eq!(
            found[0].as_ref(),
            entries(5..6, number as u32 + 1)
                .map(|(_, value)| value)
                .next()
                .as_ref()
        );
    }
}

#[tokio::test]
async fn an_upload_can_be_awaited_by_any_thread() {
    fn is_send(_: &impl Send) {}
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///send").unwrap();
    let mut task = Task::start(local.path(), &storage, "w", all());
    is_send(&task.backend);
    let snapshot = task.backend.snapshot(CheckpointId(1)).unwrap();
    is_send(&snapshot);
    let upload = task.uploader.upload(snapshot, CheckpointId::NONE, None);
    is_send(&upload);
    drop(upload);
    let states = [SubtaskState::default()];
    is_send(&restore(local.path(), &storage, &states, all()));
}

#[tokio::test]
async fn a_snapshot_that_is_given_up_leaves_nothing_and_disturbs_nothing() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///given-up").unwrap();
    let mut task = Task::start(local.path(), &storage, "w", all());
    let state = task.backend.state("op", "value").unwrap();
    task.put(state, entries(0..1000, 1));
    let snapshot = task.backend.snapshot(CheckpointId(1)).unwrap();
    // The future is dropped before its first file is up.
    drop(task.uploader.upload(snapshot, CheckpointId::NONE, None));
    assert_eq!(
        storage
            .list("")
            .await
            .unwrap()
            .into_iter()
            .filter(|(path, _)| path.starts_with("w/"))
            .count(),
        0
    );
    assert_eq!(
        std::fs::read_dir(local.path().join("snapshots"))
            .unwrap()
            .count(),
        0
    );
    let (_, whole) = task.checkpoint(2).await;
    assert!(whole.size() > 0);
}

#[tokio::test]
async fn a_table_of_many_parts_survives() {
    let local = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::open("memory:///many-parts").unwrap();
    let dir = local.path().join("task");
    let options = BackendOptions::rocksdb(128 << 20);
    let mut backend = KeyedBackend::create(&dir, MAX_PARALLELISM, all(), options).unwrap();
    let state = backend.state("op", "value").unwrap();
    let mut batch = StateBatch::new();
    let (mut values, mut random) = (Vec::new(), Random(1));
    for key in 0..20u8 {
        let value = random.bytes(1 << 20);
        batch.put(state, at(&[key], b""), &value);
        values.push(value);
    }
    backend.write(batch).unwrap();
    let uploader = SnapshotUploader::new(storage.clone(), "w", all());
    let snapshot = backend.snapshot(CheckpointId(1)).unwrap();
    let uploaded = uploader
        .upload(snapshot, CheckpointId::NONE, None)
        .await
        .unwrap();
    assert!(
        uploaded.added.iter().any(|file| file.size > 16 << 20),
        "{uploaded:?}"
    );
    let files = uploaded
        .added
        .into_iter()
        .map(|file| (file.path.clone(), file))
        .collect();
    let saved = SubtaskState {
        files,
        ..SubtaskState::default()
    };
    let mut restored = restore(&local.path().join("again"), &storage, &[saved], all())
        .await
        .unwrap();
    let state = restored.state("op", "value").unwrap();
    for (key, value) in values.iter().enumerate() {
        let found = restored.get_many(state, &[at(&[key as u8], b"")]).unwrap();
        assert!(found[0].as_ref() == Some(value), "{key}");
    }
}
