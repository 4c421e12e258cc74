//! One task with its state, as it is worked on and saved.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flott_node::storage::ObjectStorage;
use flott_proto::ids::{CheckpointId, SubtaskId};
use flott_proto::key_group::{KeyGroup, KeyGroupRange};
use flott_proto::state_handle::{SubtaskDelta, SubtaskState};
use flott_statestore::{
    KeyedBackend, LocalFiles, SnapshotUploader, StateBatch, StateId, StateKey, Uploaded,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{BATCH, MAX_PARALLELISM, OPTIONS, TASKS, VALUE_BYTES};

/// The same pseudorandom numbers in every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

pub(super) fn range(task: u32, parallelism: u32) -> KeyGroupRange {
    KeyGroupRange::of_subtask(task, MAX_PARALLELISM, parallelism)
}

/// Key number `number` of a task: whatever its bytes say, it lies in one of the task's key groups.
fn group(range: KeyGroupRange, number: u64) -> KeyGroup {
    let groups: u64 = u64::from(range.last - range.first) + 1;
    range.groups().nth((number % groups) as usize).unwrap()
}

pub(super) struct Task {
    pub(super) backend: KeyedBackend,
    pub(super) state: StateId,
    pub(super) uploader: Arc<SnapshotUploader>,
    pub(super) keys: u64,
    pub(super) random: Random,
    pub(super) saved: SubtaskState,
    pub(super) last: CheckpointId,
}

/// What one checkpoint of one task cost.
pub(super) struct Cost {
    pub(super) pause: Duration,
    pub(super) upload: Duration,
    pub(super) uploaded_bytes: u64,
}

impl Task {
    pub(super) fn new(
        dir: &Path,
        storage: &ObjectStorage,
        local: &LocalFiles,
        task: u32,
        keys: u64,
    ) -> Self {
        let range = range(task, TASKS);
        let dir = dir.join(format!("task-{task}"));
        let mut backend = KeyedBackend::create(&dir, MAX_PARALLELISM, range, OPTIONS).unwrap();
        let state = backend.state("op", "value").unwrap();
        let uploader = SnapshotUploader::new(storage.clone(), format!("w-{task}"), range);
        Self {
            backend,
            state,
            uploader: Arc::new(uploader.keeping(local.of_subtask(format!("op-{task}")))),
            keys,
            random: Random(u64::from(task) + 88_172_645_463_325_252),
            saved: SubtaskState::default(),
            last: CheckpointId::NONE,
        }
    }

    /// From now on, what it flushes between checkpoints.
    pub(super) fn upload_early(&self, runtime: &Handle) {
        let (uploader, early) = (Arc::clone(&self.uploader), self.backend.early_tables());
        runtime.spawn(async move { uploader.upload_early(&early, std::future::pending()).await });
    }

    fn put(&mut self, numbers: &[u64]) {
        let (mut batch, mut value) = (StateBatch::new(), [0; VALUE_BYTES]);
        for number in numbers {
            self.random.fill(&mut value);
            let key = StateKey {
                group: group(self.backend.key_groups(), *number),
                key: &number.to_be_bytes(),
                namespace: b"",
            };
            batch.put(self.state, key, &value);
        }
        self.backend.write(batch).unwrap();
    }

    pub(super) fn load(&mut self) {
        let all: Vec<u64> = (0..self.keys).collect();
        all.chunks(BATCH).for_each(|numbers| self.put(numbers));
    }

    /// Changes `count` keys, all over the state.
    pub(super) fn change(&mut self, count: u64) {
        let mut left = count as usize;
        while left > 0 {
            let numbers: Vec<u64> = (0..left.min(BATCH))
                .map(|_| self.random.next() % self.keys)
                .collect();
            self.put(&numbers);
            left -= numbers.len();
        }
    }

    /// Reads keys all over the state for some seconds as fast as it goes. Keys a second.
    pub(super) fn reads(&mut self, seconds: u64) -> f64 {
        let (begun, mut read) = (Instant::now(), 0);
        while begun.elapsed().as_secs() < seconds {
            let numbers: Vec<[u8; 8]> = (0..BATCH)
                .map(|_| (self.random.next() % self.keys).to_be_bytes())
                .collect();
            let range = self.backend.key_groups();
            let keys: Vec<StateKey<'_>> = numbers
                .iter()
                .map(|number| StateKey {
                    group: group(range, u64::from_be_bytes(*number)),
                    key: number,
                    namespace: b"",
                })
                .collect();
            let values = self.backend.get_many(self.state, &keys).unwrap();
            read += values.iter().flatten().count();
        }
        read as f64 / begun.elapsed().as_secs_f64()
    }

    /// The part for which the task stands still; the rest goes on beside it.
    fn begin(&mut self, id: u64, runtime: &Handle) -> Pending {
        let (id, begun) = (CheckpointId(id), Instant::now());
        let snapshot = self.backend.snapshot(id).unwrap();
        let (pause, uploader, base) = (begun.elapsed(), Arc::clone(&self.uploader), self.last);
        let upload = runtime.spawn(async move {
            let uploaded = uploader.upload(snapshot, base, None).await.unwrap();
            (uploaded, begun.elapsed() - pause)
        });
        Pending { id, pause, upload }
    }

    fn complete(&mut self, pending: Pending, runtime: &Handle) -> Cost {
        let (uploaded, upload) = runtime.block_on(pending.upload).unwrap();
        let base = match uploaded.base_used == self.last {
            true => std::mem::take(&mut self.saved),
            false => SubtaskState::default(),
        };
        let uploaded_bytes = uploaded.uploaded_bytes;
        let delta = SubtaskDelta {
            subtask: SubtaskId {
                vertex: "op".parse().unwrap(),
                subtask: 0,
            },
            operators: Default::default(),
            added: uploaded.added,
            dropped: uploaded.dropped,
            uploaded_bytes,
            alignment: Default::default(),
        };
        self.saved = delta.apply_to(&base).unwrap();
        self.last = pending.id;
        self.uploader.completed(pending.id);
        Cost {
            pause: pending.pause,
            upload,
            uploaded_bytes,
        }
    }

    pub(super) fn checkpoint(&mut self, id: u64, runtime: &Handle) -> Cost {
        let pending = self.begin(id, runtime);
        self.complete(pending, runtime)
    }

    /// Writes for some seconds as fast as it goes, with a checkpoint each second from `first` on, if there are to be any.
    /// Keys a second.
    pub(super) fn writes(&mut self, seconds: u64, first: Option<u64>, runtime: &Handle) -> f64 {
        let (begun, mut written, mut next) = (Instant::now(), 0, 1);
        let mut pending: Option<Pending> = None;
        while begun.elapsed().as_secs() < seconds {
            self.change(BATCH as u64);
            written += BATCH as u64;
            if let Some(done) = pending.take_if(|pending| pending.upload.is_finished()) {
                self.complete(done, runtime);
            }
            if let Some(first) = first
                && begun.elapsed().as_secs() >= next
                && pending.is_none()
            {
                pending = Some(self.begin(first + next, runtime));
                next = begun.elapsed().as_secs() + 1;
            }
        }
        if let Some(pending) = pending {
            self.complete(pending, runtime);
        }
        written as f64 / begun.elapsed().as_secs_f64()
    }
}

/// A checkpoint whose upload goes on.
struct Pending {
    id: CheckpointId,
    pause: Duration,
    upload: JoinHandle<(Uploaded, Duration)>,
}
