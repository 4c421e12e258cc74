//! From a snapshot to the ack, beside the running task.
//!
//! The task's thread hands over what it has snapshotted and goes on with its data; the upload runs on the network
//! runtime and reports to the TaskManager: acknowledged, or declined with the reason. A task without keyed state has
//! nothing to upload and acknowledges at once.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flott_node::storage::ObjectStorage;
use flott_node::{Failpoint, OnFailure, SharedClock, Tasks};
use flott_proto::ids::{CheckpointId, TaskId};
use flott_proto::state_handle::SubtaskDelta;
use flott_proto::wire::CheckpointAck;
use flott_statestore::{LocalSnapshot, SnapshotUploader, Uploaded};
use tokio_util::sync::CancellationToken;

use super::run::TaskEvents;
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
    pub sync: Duration,
    pub alignment: Duration,
}

/// The checkpoints of one task that are on their way.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    task: TaskId,
    events: TaskEvents,
    /// `None` without checkpoint storage.
    uploader: Option<Arc<SnapshotUploader>>,
    in_flight: BTreeMap<CheckpointId, CancellationToken>,
    cancellation: CancellationToken,
    tasks: Tasks,
    runtime: tokio::runtime::Handle,
    clock: SharedClock,
}

impl Checkpoints {
    /// For one task; uploads end when `cancellation` is cancelled.
    pub(crate) fn new(
        task: TaskId,
        events: TaskEvents,
        uploader: Option<SnapshotUploader>,
        cancellation: CancellationToken,
        (tasks, runtime): (Tasks, tokio::runtime::Handle),
        clock: SharedClock,
    ) -> Self {
        Self {
            task,
            events,
            uploader: uploader.map(Arc::new),
            in_flight: BTreeMap::new(),
            cancellation,
            tasks,
            runtime,
            clock,
        }
    }

    /// Brings a snapshot to its ack or decline.
    pub(crate) fn start(&mut self, snapshot: Snapshot) {
        let checkpoint = snapshot.barrier.checkpoint;
        self.in_flight.retain(|_, cancel| !cancel.is_cancelled());
        let Snapshot {
            barrier,
            operators,
            keyed,
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
        let Some(keyed) = keyed else {
            let nothing = Uploaded {
                base_used: CheckpointId::NONE,
                added: Vec::new(),
                dropped: Vec::new(),
                uploaded_bytes: 0,
            };
            self.events.acknowledged(ack.of(nothing, Duration::ZERO));
            return;
        };
        let Some(uploader) = self.uploader.clone() else {
            let reason = "the job has no checkpoint storage; set execution.checkpointing.dir";
            return self.events.declined(checkpoint, reason.into());
        };
        if self.in_flight.len() >= UPLOADS_MAX {
            return self.events.declined(
                checkpoint,
                format!("{UPLOADS_MAX} uploads have not ended yet"),
            );
        }
        let cancel = self.cancellation.child_token();
        self.in_flight.insert(checkpoint, cancel.clone());
        let (events, clock) = (self.events.clone(), SharedClock::clone(&self.clock));
        let upload = async move {
            let start = clock.monotonic();
            let uploaded = tokio::select! { biased;
                () = cancel.cancelled() => return Ok::<_, Infallible>(()),
                uploaded = upload(&uploader, keyed, &barrier) => uploaded,
            };
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
    let savepoint = match barrier.savepoint_directory.as_deref() {
        Some(root) => Some(ObjectStorage::open(root).map_err(|error| Error::Storage {
            root: root.to_owned(),
            what: error.to_string(),
        })?),
        None => None,
    };
    let uploaded = uploader.upload(keyed, barrier.base, savepoint.as_ref());
    Ok(uploaded.await?)
}

/// An ack that lacks what the upload will say.
struct Acknowledge {
    task: TaskId,
    checkpoint: CheckpointId,
    operators: BTreeMap<String, Bytes>,
    sync: Duration,
    alignment: Duration,
}

impl Acknowledge {
    fn of(self, uploaded: Uploaded, took: Duration) -> CheckpointAck {
        let state = SubtaskDelta {
            subtask: self.task.subtask.clone(),
            operators: self.operators,
            added: uploaded.added,
            dropped: uploaded.dropped,
            uploaded_bytes: uploaded.uploaded_bytes,
        };
        CheckpointAck {
            task: Some((&self.task).into()),
            checkpoint_id: self.checkpoint.0,
            base_checkpoint_id: uploaded.base_used.0,
            state: Some((&state).into()),
            sync_duration_us: self.sync.as_micros() as u64,
            async_duration_us: took.as_micros() as u64,
            alignment_duration_us: self.alignment.as_micros() as u64,
        }
    }
}
