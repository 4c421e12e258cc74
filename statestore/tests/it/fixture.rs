//! A task and its coordinator, as far as state is concerned.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use flott_node::config::StateBackendType;
use flott_node::storage::ObjectStorage;
use flott_proto::ids::CheckpointId;
use flott_proto::key_group::{KeyGroup, KeyGroupRange};
use flott_proto::state_handle::{SubtaskDelta, SubtaskState};
use flott_statestore::{
    BackendOptions, Error, KeyedBackend, LocalSnapshot, SnapshotUploader, StateBatch, StateId,
    StateKey, Uploaded,
};

pub(crate) const MAX_PARALLELISM: u32 = 16;

pub(crate) const OPTIONS: BackendOptions = BackendOptions::rocksdb(8 << 20);

pub(crate) const IN_MEMORY: BackendOptions = BackendOptions {
    backend: StateBackendType::HashMap,
    ..OPTIONS
};

pub(crate) fn group(key: &[u8]) -> KeyGroup {
    KeyGroup::of_key(key, MAX_PARALLELISM)
}

pub(crate) fn at<'a>(key: &'a [u8], namespace: &'a [u8]) -> StateKey<'a> {
    StateKey {
        group: group(key),
        key,
        namespace,
    }
}

/// Numbers that look random, the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Of 31 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// So many bytes that do not compress.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 3);
        while bytes.len() < count {
            self.next();
            bytes.extend_from_slice(&((self.0 >> 32) as u32).to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Tables of a saved state that none of the databases in the task's directory has: they were merged.
pub(crate) fn merged(task: &Path, saved: &SubtaskState) -> usize {
    let databases: Vec<PathBuf> = (0..)
        .map(|number| task.join(format!("db-{number}")))
        .take_while(|database| database.exists())
        .collect();
    assert!(!databases.is_empty(), "a task has a database");
    let tables = saved.files.values().map(|file| &file.local_name);
    let tables = tables.filter(|name| name.ends_with(".sst"));
    tables
        .filter(|name| {
            !databases
                .iter()
                .any(|database| database.join(name).exists())
        })
        .count()
}

/// Key and namespace to value.
pub(crate) type Contents = BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>;

/// Every value of a state.
pub(crate) fn contents(backend: &KeyedBackend, state: StateId) -> Contents {
    let mut all = Contents::new();
    for group in backend.key_groups().groups() {
        for entry in backend.scan(state, group, &[]) {
            let (key, namespace, value) = entry.unwrap();
            assert_eq!(self::group(&key), group);
            assert!(all.insert((key, namespace), value).is_none());
        }
    }
    all
}

/// A subtask in its directory, with what the coordinator knows of its checkpoints.
pub(crate) struct Task {
    pub(crate) dir: PathBuf,
    pub(crate) backend: KeyedBackend,
    pub(crate) uploader: SnapshotUploader,
    pub(crate) storage: ObjectStorage,
    /// Completed checkpoints.
    pub(crate) completed: BTreeMap<CheckpointId, SubtaskState>,
}

impl Task {
    pub(crate) fn start(
        dir: &Path,
        storage: &ObjectStorage,
        writer: &str,
        range: KeyGroupRange,
    ) -> Self {
        Self::start_as(OPTIONS, dir, storage, writer, range)
    }

    pub(crate) fn start_as(
        options: BackendOptions,
        dir: &Path,
        storage: &ObjectStorage,
        writer: &str,
        range: KeyGroupRange,
    ) -> Self {
        let backend = KeyedBackend::create(dir, MAX_PARALLELISM, range, options).unwrap();
        Self::with(dir, storage, writer, backend)
    }

    fn with(dir: &Path, storage: &ObjectStorage, writer: &str, backend: KeyedBackend) -> Self {
        let uploader = SnapshotUploader::new(storage.clone(), writer, backend.key_groups());
        let (dir, storage) = (dir.to_owned(), storage.clone());
        Self {
            dir,
            backend,
            uploader,
            storage,
            completed: BTreeMap::new(),
        }
    }

    /// Restores with the same range, the checkpoint being the first base.
    pub(crate) async fn restart(
        dir: &Path,
        storage: &ObjectStorage,
        writer: &str,
        range: KeyGroupRange,
        checkpoint: CheckpointId,
        state: &SubtaskState,
    ) -> Result<Self, Error> {
        Self::restart_as(OPTIONS, dir, storage, writer, range, checkpoint, state).await
    }

    pub(crate) async fn restart_as(
        options: BackendOptions,
        dir: &Path,
        storage: &ObjectStorage,
        writer: &str,
        range: KeyGroupRange,
        checkpoint: CheckpointId,
        state: &SubtaskState,
    ) -> Result<Self, Error> {
        let states = std::slice::from_ref(state);
        let source = storage.clone().into();
        let backend =
            flott_statestore::restore(dir, &source, states, MAX_PARALLELISM, range, options);
        let backend = backend.await?;
        let mut task = Self::with(dir, storage, writer, backend);
        let files = task.backend.restored_files();
        task.uploader.restored_from(checkpoint, files, true);
        task.completed.insert(checkpoint, state.clone());
        Ok(task)
    }

    pub(crate) fn put(
        &mut self,
        state: StateId,
        entries: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) {
        let mut batch = StateBatch::new();
        for (key, value) in entries {
            batch.put(state, at(&key, b""), &value);
        }
        self.backend.write(batch).unwrap();
    }

    pub(crate) fn base(&self) -> CheckpointId {
        self.completed
            .last_key_value()
            .map_or(CheckpointId::NONE, |(id, _)| *id)
    }

    /// Uploads, and applies the delta as the coordinator does.
    pub(crate) async fn upload(
        &self,
        snapshot: LocalSnapshot,
        base: CheckpointId,
    ) -> (Uploaded, SubtaskState) {
        let uploaded = self.uploader.upload(snapshot, base, None).await.unwrap();
        let state = self.applied(&uploaded);
        for (path, file) in &state.files {
            let found = self.storage.list(path).await;
            assert!(
                self.storage.exists(path).await.unwrap(),
                "{path} of {file:?} is gone: {found:?}"
            );
        }
        (uploaded, state)
    }

    pub(crate) fn applied(&self, uploaded: &Uploaded) -> SubtaskState {
        let base = self
            .completed
            .get(&uploaded.base_used)
            .cloned()
            .unwrap_or_default();
        assert_eq!(
            uploaded.base_used.is_some(),
            self.completed.contains_key(&uploaded.base_used)
        );
        let delta = SubtaskDelta {
            subtask: flott_proto::ids::SubtaskId {
                vertex: "v".parse().unwrap(),
                subtask: 0,
            },
            operators: BTreeMap::new(),
            added: uploaded.added.clone(),
            dropped: uploaded.dropped.clone(),
            uploaded_bytes: uploaded.uploaded_bytes,
            alignment: Default::default(),
        };
        delta.apply_to(&base).unwrap()
    }

    /// A checkpoint that completes.
    pub(crate) async fn checkpoint(&mut self, id: u64) -> (Uploaded, SubtaskState) {
        let id = CheckpointId(id);
        let snapshot = self.backend.snapshot(id).unwrap();
        let (uploaded, _) = self.upload(snapshot, self.base()).await;
        let state = self.complete(id, &uploaded);
        (uploaded, state)
    }

    pub(crate) fn complete(&mut self, id: CheckpointId, uploaded: &Uploaded) -> SubtaskState {
        let state = self.applied(uploaded);
        self.uploader.completed(id);
        self.completed.insert(id, state.clone());
        state
    }
}

pub(crate) async fn restore(
    dir: &Path,
    storage: &ObjectStorage,
    states: &[SubtaskState],
    range: KeyGroupRange,
) -> Result<KeyedBackend, Error> {
    flott_statestore::restore(
        dir,
        &storage.clone().into(),
        states,
        MAX_PARALLELISM,
        range,
        OPTIONS,
    )
    .await
}
