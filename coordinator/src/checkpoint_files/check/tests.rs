//! Files of a job's checkpoints in a store, damaged one by one.

use std::sync::Arc;

use bytes::Bytes;
use flott_proto::ids::JobId;

use super::*;
use crate::core::testing::World;

/// A job with two retained checkpoints whose objects are in storage.
struct Stored {
    world: World,
    id: JobId,
    storage: ObjectStorage,
}

impl Stored {
    async fn new(root: &str) -> Self {
        let (mut world, id, storage) = World::with_checkpoints_in(root);
        let job = Arc::make_mut(world.state.jobs.get_mut(&id).unwrap());
        for checkpoint in &mut job.checkpoints.retained {
            let checkpoint = Arc::make_mut(checkpoint);
            let files = checkpoint.subtasks.values_mut();
            for file in files.flat_map(|state| state.files.values_mut()) {
                file.crc32c = crc32c::crc32c(&content_of(file));
                storage.put(&file.path, content_of(file)).await.unwrap();
            }
            let metadata = super::super::encode(&flott_proto::wire::CheckpointMetadata {
                version: 1,
                ..Default::default()
            });
            let object = checkpoint.metadata_object.as_ref().unwrap();
            storage.put(object, metadata).await.unwrap();
        }
        Self { world, id, storage }
    }

    fn job(&self) -> &Job {
        self.world.job(&self.id)
    }

    /// A file that both checkpoints need, and one that only the newer does.
    fn shared_and_new(&self) -> (StateFile, StateFile) {
        let [older, newer] = &self.job().checkpoints.retained[..] else {
            panic!("two are retained")
        };
        let is_shared = |file: &&StateFile| older.paths().any(|path| path == file.path);
        let shared = newer.files().find(is_shared).unwrap();
        let new = newer.files().find(|file| !is_shared(file)).unwrap();
        (shared.clone(), new.clone())
    }

    async fn damaged(&self, contents: bool) -> Vec<(String, Fault, usize)> {
        let verified = all(self.job(), contents).await.unwrap();
        assert_eq!(verified.checkpoints, 2);
        let damaged = verified.damaged.into_iter();
        let damaged = damaged.map(|it| (it.path, it.fault, it.checkpoints.len()));
        damaged.collect()
    }
}

fn content_of(file: &StateFile) -> Bytes {
    let byte = file.path.bytes().fold(0, u8::wrapping_add);
    vec![byte; file.size as usize].into()
}

#[tokio::test]
async fn each_damaged_file_is_named_with_those_that_need_it() {
    let stored = Stored::new("check-each").await;
    assert_eq!(stored.damaged(true).await, []);
    let (shared, new) = stored.shared_and_new();
    let root = &stored.job().settings.checkpoint_dir;
    assert_eq!(file(root, &shared).await.unwrap(), None);

    stored.storage.delete(&shared.path).await.unwrap();
    assert_eq!(file(root, &shared).await.unwrap(), Some(Fault::Missing));
    for contents in [true, false] {
        let missing = (shared.path.clone(), Fault::Missing, 2);
        assert_eq!(stored.damaged(contents).await, [missing]);
    }
    let whole = content_of(&shared);
    stored.storage.put(&shared.path, whole).await.unwrap();

    let long = Bytes::from_static(b"much longer");
    stored.storage.put(&new.path, long).await.unwrap();
    let size = Fault::Size {
        expected: new.size,
        found: 11,
    };
    assert_eq!(file(root, &new).await.unwrap(), Some(size.clone()));
    assert_eq!(stored.damaged(false).await, [(new.path.clone(), size, 1)]);

    let flipped: Vec<u8> = content_of(&new).iter().map(|byte| byte ^ 1).collect();
    let found = crc32c::crc32c(&flipped);
    stored.storage.put(&new.path, flipped.into()).await.unwrap();
    let checksum = Fault::Checksum {
        expected: new.crc32c,
        found,
    };
    assert_eq!(
        stored.damaged(true).await,
        [(new.path.clone(), checksum, 1)]
    );
    assert_eq!(stored.damaged(false).await, [], "its size is right");
}

#[tokio::test]
async fn metadata_is_always_read() {
    let stored = Stored::new("check-metadata").await;
    let [older, newer] = &stored.job().checkpoints.retained[..] else {
        panic!("two are retained")
    };
    let object = |checkpoint: &CompletedCheckpoint| checkpoint.metadata_object.clone().unwrap();
    stored.storage.delete(&object(older)).await.unwrap();
    let garbage = Bytes::from_static(b"FLOTTMD1????nonsense");
    stored.storage.put(&object(newer), garbage).await.unwrap();
    let damaged = stored.damaged(false).await;
    let [(_, Fault::Missing, 1), (path, Fault::Metadata(what), 1)] = &damaged[..] else {
        panic!("{damaged:?}")
    };
    assert_eq!(*path, object(newer));
    assert!(what.contains("checksum"), "{what}");
}

#[tokio::test]
async fn a_savepoint_is_looked_for_in_its_own_directory() {
    let mut stored = Stored::new("check-savepoint").await;
    let directory = ObjectStorage::open("memory:///check-savepoint-elsewhere").unwrap();
    let mut savepoint = (**stored.job().checkpoints.latest().unwrap()).clone();
    savepoint.kind = crate::core::checkpoint::CheckpointKind::Savepoint;
    savepoint.external_path = directory.root().to_owned();
    savepoint.metadata_object = None;
    let mut subtasks = savepoint.subtasks.values_mut();
    subtasks.next().unwrap().files.retain(|path, file| {
        file.path = "7-1-v-0/00000001".to_owned();
        file.crc32c = crc32c::crc32c(&content_of(file));
        !path.is_empty()
    });
    subtasks.for_each(|state| state.files.clear());
    let file = savepoint.files().next().unwrap().clone();
    directory.put(&file.path, content_of(&file)).await.unwrap();
    let metadata = super::super::encode(&flott_proto::wire::CheckpointMetadata {
        version: 1,
        ..Default::default()
    });
    directory.put(paths::METADATA, metadata).await.unwrap();
    let job = Arc::make_mut(stored.world.state.jobs.get_mut(&stored.id).unwrap());
    job.checkpoints.savepoints.push(Arc::new(savepoint));

    let named = |verified: Verified| -> Vec<String> {
        let damaged = verified.damaged.into_iter();
        damaged.map(|damaged| damaged.path).collect()
    };
    let verified = all(stored.job(), true).await.unwrap();
    assert_eq!(verified.checkpoints, 3);
    assert_eq!(named(verified), Vec::<String>::new());
    for path in [&file.path, paths::METADATA] {
        directory.delete(path).await.unwrap();
        let damaged = named(all(stored.job(), false).await.unwrap());
        assert!(damaged.contains(&directory.url(path)), "{damaged:?}");
    }
}

#[tokio::test]
async fn what_was_retired_while_files_were_read_is_not_damaged() {
    let mut stored = Stored::new("check-retired").await;
    let (shared, new) = stored.shared_and_new();
    for file in [&shared, &new] {
        stored.storage.delete(&file.path).await.unwrap();
    }
    let mut verified = all(stored.job(), true).await.unwrap();
    let newer = stored.job().checkpoints.latest().unwrap().id;
    let job = Arc::make_mut(stored.world.state.jobs.get_mut(&stored.id).unwrap());
    job.checkpoints.retained.pop();
    verified.forget_retired(&job.checkpoints);
    let [damaged] = &verified.damaged[..] else {
        panic!("{:?}", verified.damaged)
    };
    assert_eq!(damaged.path, shared.path);
    assert!(!damaged.checkpoints.contains(&newer));
}
