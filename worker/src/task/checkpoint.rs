//! From a snapshot to the ack, beside the running task.
//!
//! The task's thread hands over what it has snapshotted and goes on with its data; the upload runs on the network
//! runtime and reports to the TaskManager: acknowledged, or declined with the reason. A task without keyed state, whose
//! barriers overtook nothing, has nothing to upload and acknowledges at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use flott_node::storage::ObjectStorage;
use flott_node::{Failpoint, OnFailure, SharedClock, Tasks};
use flott_proto::ids::{CheckpointId, TaskId};
use flott_proto::paths;
use flott_proto::state_handle::{Alignment, StateFile, SubtaskDelta, SubtaskState};
use flott_proto::wire::CheckpointAck;
use flott_statestore::{EarlyTables, LocalSnapshot, SnapshotUploader, Uploaded};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::open::open;
use super::run::{StatePlan, TaskEvents};
use crate::channel_state::ChannelState;
use crate::channel_state::format::{self, Owner};
use crate::network::Barrier;
use crate::{Error, metrics};

/// Uploads of one task at a time. There is one checkpoint in flight, and those that were given up are cancelled, so this
/// many means that storage hangs.
const UPLOADS_MAX: usize = 4;

/// What the synchronous part of a checkpoint gave.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub barrier: Barrier,
    pub operators: BTreeMap<String, Bytes>,
    pub keyed: Option<LocalSnapshot>,
    /// What the barriers overtook.
    pub channels: ChannelState,
    pub sync: Duration,
    pub alignment: Alignment,
}

/// Who brings the parts of a snapshot to checkpoint storage.
#[derive(Debug)]
pub(crate) struct Uploaders {
    /// With what is flushed before a checkpoint asks for it. `None` without keyed state or checkpoint storage.
    pub keyed: Option<(SnapshotUploader, EarlyTables)>,
    /// `None` without checkpoint storage.
    pub channels: Option<ChannelUploader>,
}

/// Brings channel state there: one object a snapshot that has some.
#[derive(Clone, Debug)]
pub(crate) struct ChannelUploader {
    root: String,
    writer: String,
    /// Opened when it is needed: most tasks never do.
    storage: Arc<OnceLock<ObjectStorage>>,
    /// The objects of the checkpoints that may be a base. They are never part of a later one, so a change drops them.
    objects: BTreeMap<CheckpointId, Vec<String>>,
}

impl ChannelUploader {
    /// For the task with that state; `None` without checkpoint storage.
    pub(crate) fn of(state: &StatePlan) -> Option<Self> {
        let restored = state.restore.iter().flat_map(SubtaskState::channel_files);
        let restored = restored.map(|file| file.path.clone()).collect();
        (!state.storage_root.is_empty()).then(|| Self {
            root: state.storage_root.clone(),
            writer: state.writer.clone(),
            storage: Arc::default(),
            objects: BTreeMap::from([(state.restored_checkpoint, restored)]),
        })
    }

    /// The base's objects.
    fn dropped(&self, base: CheckpointId) -> &[String] {
        let objects = self.objects.get(&base).filter(|_| base.is_some());
        objects.map(Vec::as_slice).unwrap_or_default()
    }

    async fn upload(
        &self,
        owner: Owner,
        channels: ChannelState,
        checkpoint: CheckpointId,
    ) -> Result<StateFile, Error> {
        let encode = move || format::encode(&owner, &channels);
        let encoded = flott_node::spawn_blocking(encode).await;
        let bytes = encoded.map_err(|panic| Error::Panicked(panic.to_string()))??;
        let path = paths::channel_state(&self.writer, checkpoint);
        let file = StateFile::of_channels(path, bytes.len() as u64, crc32c::crc32c(&bytes));
        let storage = match self.storage.get() {
            Some(storage) => storage,
            None => {
                let opened = open(&self.root)?;
                self.storage.get_or_init(|| opened)
            }
        };
        Failpoint::UploadBegins.pass();
        let put = storage.put(&file.path, bytes.into()).await;
        put.map_err(flott_statestore::Error::from)?;
        Failpoint::UploadEnds.pass();
        Ok(file)
    }
}

/// The checkpoints of one task that are on their way.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    task: TaskId,
    events: TaskEvents,
    owner: Owner,
    /// `None` without checkpoint storage.
    uploader: Option<Arc<SnapshotUploader>>,
    channels: Option<ChannelUploader>,
    in_flight: BTreeMap<CheckpointId, CancellationToken>,
    cancellation: CancellationToken,
    tasks: Tasks,
    runtime: tokio::runtime::Handle,
    clock: SharedClock,
    /// Dropped with the task: then nothing is uploaded early any more.
    _early: Option<DropGuard>,
}

impl Checkpoints {
    /// For one task; uploads end when `cancellation` is cancelled.
    pub(crate) fn new(
        (task, parallelism): (TaskId, u32),
        events: TaskEvents,
        uploaders: Uploaders,
        cancellation: CancellationToken,
        (tasks, runtime): (Tasks, tokio::runtime::Handle),
        clock: SharedClock,
    ) -> Self {
        let (uploader, early) = uploaders.keyed.unzip();
        let mut checkpoints = Self {
            owner: Owner {
                subtask: task.subtask.clone(),
                parallelism,
            },
            task,
            events,
            uploader: uploader.map(Arc::new),
            channels: uploaders.channels,
            in_flight: BTreeMap::new(),
            cancellation,
            tasks,
            runtime,
            clock,
            _early: None,
        };
        if let Some(early) = early {
            checkpoints.upload_early(early);
        }
        checkpoints
    }

    /// Uploads what the task flushes between checkpoints, until it ends.
    fn upload_early(&mut self, early: EarlyTables) {
        let Some(uploader) = self.uploader.clone() else {
            return;
        };
        let cancellation = self.cancellation.child_token();
        self._early = Some(cancellation.clone().drop_guard());
        let upload = async move {
            uploader
                .upload_early(&early, cancellation.cancelled())
                .await;
            uploader.give_up_early().await;
            Ok::<_, Infallible>(())
        };
        let _runtime = self.runtime.enter();
        self.tasks.spawn("early upload", OnFailure::Log, upload);
    }

    /// Brings a snapshot to its ack or decline.
    pub(crate) fn start(&mut self, snapshot: Snapshot) {
        let checkpoint = snapshot.barrier.checkpoint;
        self.in_flight.retain(|_, cancel| !cancel.is_cancelled());
        let Snapshot {
            barrier,
            operators,
            keyed,
            channels,
            sync,
            alignment,
        } = snapshot;
        metrics::checkpoint_taken(sync, alignment);
        let ack = Acknowledge {
            task: self.task.clone(),
            checkpoint,
            operators,
            sync,
            alignment,
        };
        let channels = Some(channels).filter(|channels| !channels.is_empty());
        if keyed.is_none() && channels.is_none() {
            self.events.acknowledged(ack.of(nothing(), Duration::ZERO));
            return;
        }
        let no_storage =
            || "the job has no checkpoint storage; set execution.checkpointing.dir".to_owned();
        let keyed = match (keyed, self.uploader.clone()) {
            (None, _) => None,
            (Some(keyed), Some(uploader)) => Some((keyed, uploader)),
            (Some(_), None) => return self.events.declined(checkpoint, no_storage()),
        };
        let Some(channel_uploader) = self.channels.clone() else {
            return self.events.declined(checkpoint, no_storage());
        };
        if self.in_flight.len() >= UPLOADS_MAX {
            return self.events.declined(
                checkpoint,
                format!("{UPLOADS_MAX} uploads have not ended yet"),
            );
        }
        if let (Some(_), Some(uploader)) = (&channels, &mut self.channels) {
            let object = paths::channel_state(&uploader.writer, checkpoint);
            uploader.objects.insert(checkpoint, vec![object]);
        }
        let cancel = self.cancellation.child_token();
        self.in_flight.insert(checkpoint, cancel.clone());
        let (events, clock) = (self.events.clone(), SharedClock::clone(&self.clock));
        let owner = self.owner.clone();
        let upload = async move {
            let start = clock.monotonic();
            let upload_keyed = async {
                match keyed {
                    Some((keyed, uploader)) => upload(&uploader, keyed, &barrier).await,
                    None => Ok(nothing()),
                }
            };
            let upload_channels = async {
                match channels {
                    Some(channels) => channel_uploader
                        .upload(owner, channels, checkpoint)
                        .await
                        .map(Some),
                    None => Ok(None),
                }
            };
            let uploaded = tokio::select! { biased;
                () = cancel.cancelled() => return Ok::<_, Infallible>(()),
                uploaded = async { tokio::try_join!(upload_keyed, upload_channels) } => uploaded,
            };
            let uploaded = uploaded.map(|(mut uploaded, channels)| {
                uploaded
                    .dropped
                    .extend_from_slice(channel_uploader.dropped(uploaded.base_used));
                uploaded.uploaded_bytes += channels.as_ref().map_or(0, |file| file.size);
                uploaded.added.extend(channels);
                uploaded
            });
            let took = clock.monotonic().saturating_sub(start);
            metrics::checkpoint_uploaded(took);
            match uploaded {
                Ok(uploaded) => {
                    Failpoint::BeforeAck.pass();
                    events.send_acknowledged(ack.of(uploaded, took)).await;
                }
                Err(error) => events.send_declined(checkpoint, error.full_text()).await,
            }
            cancel.cancel();
            Ok(())
        };
        let _runtime = self.runtime.enter();
        self.tasks
            .spawn("checkpoint upload", OnFailure::Log, upload);
    }

    /// The checkpoint has completed: it may be the base of later ones.
    pub(crate) fn on_completed(&mut self, checkpoint: CheckpointId) {
        self.in_flight.retain(|id, _| *id > checkpoint);
        if let Some(channels) = &mut self.channels {
            channels.objects.retain(|id, _| *id >= checkpoint);
        }
        if let Some(uploader) = &self.uploader {
            uploader.completed(checkpoint);
        }
    }

    /// The checkpoint will not complete: its upload ends.
    pub(crate) fn on_aborted(&mut self, checkpoint: CheckpointId) {
        if let Some(cancel) = self.in_flight.remove(&checkpoint) {
            cancel.cancel();
        }
        if let Some(uploader) = &self.uploader {
            uploader.aborted(checkpoint);
        }
    }
}

/// Carries the files of a checkpoint to the job's storage, those of a savepoint to its own directory.
async fn upload(
    uploader: &SnapshotUploader,
    keyed: LocalSnapshot,
    barrier: &Barrier,
) -> Result<Uploaded, Error> {
    let savepoint = barrier.savepoint_directory.as_deref();
    let savepoint = savepoint.map(open).transpose()?;
    let uploaded = uploader.upload(keyed, barrier.base, savepoint.as_ref());
    Ok(uploaded.await?)
}

/// Of a task without state to upload.
fn nothing() -> Uploaded {
    Uploaded {
        base_used: CheckpointId::NONE,
        added: Vec::new(),
        dropped: Vec::new(),
        uploaded_bytes: 0,
    }
}

/// An ack that lacks what the upload will say.
struct Acknowledge {
    task: TaskId,
    checkpoint: CheckpointId,
    operators: BTreeMap<String, Bytes>,
    sync: Duration,
    alignment: Alignment,
}

impl Acknowledge {
    fn of(self, uploaded: Uploaded, took: Duration) -> CheckpointAck {
        let state = SubtaskDelta {
            subtask: self.task.subtask.clone(),
            operators: self.operators,
            added: uploaded.added,
            dropped: uploaded.dropped,
            uploaded_bytes: uploaded.uploaded_bytes,
            alignment: self.alignment,
        };
        CheckpointAck {
            task: Some((&self.task).into()),
            checkpoint_id: self.checkpoint.0,
            base_checkpoint_id: uploaded.base_used.0,
            state: Some((&state).into()),
            sync_duration_us: self.sync.as_micros() as u64,
            async_duration_us: took.as_micros() as u64,
            alignment_duration_us: self.alignment.duration.as_micros() as u64,
        }
    }
}
