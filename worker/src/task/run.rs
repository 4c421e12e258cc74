//! The thread of a task: restores, opens the chain, then drives it until the task is told to end.
//!
//! One loop. What the task is told comes first, then data. A source is polled; other tasks take elements from their
//! gate. When there is nothing to do the thread waits on its mailbox's latch, which everybody sets who changes anything.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flott_node::storage::ObjectStorage;
use flott_node::{SharedClock, Tasks};
use flott_proto::ids::{CheckpointId, TaskId};
use flott_proto::job_graph::{JobGraph, Vertex};
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;
use flott_proto::wire::{CheckpointAck, TaskState};
use flott_statestore::{BackendOptions, KeyedBackend, LocalFiles, SnapshotUploader, Source};
use tokio::sync::mpsc;
use tracing::{error, info};

use super::checkpoint::{Checkpoints, Snapshot};
use super::mailbox::{Control, Mailbox};
use super::status::Progress;
use crate::Error;
use crate::barrier::aligner::{BarrierAligner, Step};
use crate::network::attempt::TaskEnds;
use crate::network::gate::InputGate;
use crate::network::partition::Output;
use crate::network::{Barrier, Element};
use crate::operators::{ChainContext, OperatorChain, SourceStatus};
use crate::time::watermark::WatermarkValve;

/// The longest wait of a task's thread. Nothing depends on it but how soon idleness is noticed: wake-ups are never lost.
pub(crate) const WAIT_MAX: Duration = Duration::from_millis(100);
/// A source that has nothing at present is asked again after this.
const SOURCE_RETRY: Duration = Duration::from_millis(10);

/// What a task tells the TaskManager.
#[derive(Debug)]
pub(crate) enum TaskEvent {
    /// INITIALIZING, RUNNING or END_OF_DATA.
    StateChanged(TaskState),
    Acknowledged(CheckpointAck),
    Declined {
        checkpoint: CheckpointId,
        reason: String,
    },
    Committed(CheckpointId),
    /// The last event: the thread holds nothing any more. `Ok`: finished.
    Ended(Result<(), Error>),
}

/// A task's way to the TaskManager. If that is gone, so is the process.
#[derive(Clone, Debug)]
pub(crate) struct TaskEvents {
    task: TaskId,
    events: mpsc::Sender<(TaskId, TaskEvent)>,
}

impl TaskEvents {
    pub(crate) fn new(task: TaskId, events: mpsc::Sender<(TaskId, TaskEvent)>) -> Self {
        Self { task, events }
    }

    /// From the task's thread. The TaskManager never waits for a task, so this waits for a moment at most.
    fn tell(&self, event: TaskEvent) {
        drop(self.events.blocking_send((self.task.clone(), event)));
    }

    pub(crate) fn acknowledged(&self, ack: CheckpointAck) {
        self.tell(TaskEvent::Acknowledged(ack));
    }

    pub(crate) fn declined(&self, checkpoint: CheckpointId, reason: String) {
        self.tell(TaskEvent::Declined { checkpoint, reason });
    }

    pub(crate) async fn send_acknowledged(&self, ack: CheckpointAck) {
        drop(
            self.events
                .send((self.task.clone(), TaskEvent::Acknowledged(ack)))
                .await,
        );
    }

    pub(crate) async fn send_declined(&self, checkpoint: CheckpointId, reason: String) {
        let event = TaskEvent::Declined { checkpoint, reason };
        drop(self.events.send((self.task.clone(), event)).await);
    }
}

/// What a task's state is restored from, and where it is saved.
#[derive(Debug)]
pub(crate) struct StatePlan {
    pub restore: Vec<SubtaskState>,
    pub restored_checkpoint: CheckpointId,
    /// `restore` is this subtask's own earlier state, in the job's own storage.
    pub is_base: bool,
    /// Empty: the job has no checkpoint storage.
    pub storage_root: String,
    /// Of `restore`; empty: `storage_root`.
    pub restore_root: String,
    pub writer: String,
    /// Files of the job's newest checkpoints that are here, below `storage_root`.
    pub local: Option<LocalFiles>,
    /// The task's own, for working state.
    pub dir: PathBuf,
    pub options: BackendOptions,
}

/// All that the thread of a task needs.
#[derive(Debug)]
pub(crate) struct TaskSpec {
    pub task: TaskId,
    pub graph: Arc<JobGraph>,
    pub vertex: Vertex,
    pub state: StatePlan,
    pub ends: TaskEnds,
    pub mailbox: Arc<Mailbox>,
    pub progress: Arc<Progress>,
    pub events: TaskEvents,
    pub tasks: Tasks,
    pub runtime: tokio::runtime::Handle,
    pub clock: SharedClock,
}

/// Starts the thread. Fails if the machine gives none.
pub(crate) fn spawn(spec: TaskSpec) -> std::io::Result<()> {
    let name = format!("{}-{}", spec.task.subtask.vertex, spec.task.subtask.subtask);
    let thread = std::thread::Builder::new().name(name);
    thread.spawn(move || {
        let (events, gate) = (spec.events.clone(), Arc::clone(&spec.ends.gate));
        let span = tracing::info_span!("attempt", task = %spec.task);
        let _span = span.enter();
        let result = catch_unwind(AssertUnwindSafe(|| execute(spec))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no text".into());
            error!(panic = text, "task panicked");
            Err(Error::Panicked(text))
        });
        gate.close();
        events.tell(TaskEvent::Ended(result));
    })?;
    Ok(())
}

fn execute(spec: TaskSpec) -> Result<(), Error> {
    spec.events
        .tell(TaskEvent::StateChanged(TaskState::Initializing));
    let key_groups = KeyGroupRange::of_subtask(
        spec.task.subtask.subtask,
        spec.vertex.max_parallelism,
        spec.vertex.parallelism,
    );
    let ctx = ChainContext {
        task: spec.task.clone(),
        parallelism: spec.vertex.parallelism,
        max_parallelism: spec.vertex.max_parallelism,
        key_groups,
        restored: spec
            .state
            .restore
            .iter()
            .map(|state| state.operators.clone())
            .collect(),
        clock: SharedClock::clone(&spec.clock),
        restored_checkpoint: spec.state.restored_checkpoint,
    };
    let mut chain =
        OperatorChain::build(&spec.vertex, input_schema(&spec.graph, &spec.vertex), ctx)?;
    let keyed = OperatorChain::needs_keyed_state(&spec.vertex);
    let (backend, uploader) = if keyed {
        open_state(&spec, key_groups)?
    } else {
        (None, None)
    };
    chain.open(backend)?;
    spec.mailbox.check()?;
    let inputs = spec.ends.gate.len();
    let mut task = Task {
        checkpoints: Checkpoints::new(
            spec.task.clone(),
            spec.events.clone(),
            uploader,
            spec.mailbox.cancellation().clone(),
            (spec.tasks, spec.runtime),
            SharedClock::clone(&spec.clock),
        ),
        chain,
        gate: spec.ends.gate,
        output: spec.ends.output,
        mailbox: spec.mailbox,
        progress: spec.progress,
        events: spec.events,
        clock: spec.clock,
        valve: WatermarkValve::new(inputs),
        idle: false,
        ended: false,
        aligner: (inputs > 0).then(|| BarrierAligner::new(inputs)),
        aligning_since: Duration::ZERO,
    };
    task.events
        .tell(TaskEvent::StateChanged(TaskState::Running));
    task.run()
}

/// The columns that flow into a vertex: all its inputs have the same.
fn input_schema(graph: &JobGraph, vertex: &Vertex) -> Option<arrow::datatypes::SchemaRef> {
    let (_, edge) = graph.inputs(&vertex.uid).next()?;
    let operator = graph.vertex(&edge.source)?.chain.last()?;
    Some(Arc::new(operator.output.to_arrow()))
}

fn open_state(
    spec: &TaskSpec,
    key_groups: KeyGroupRange,
) -> Result<(Option<KeyedBackend>, Option<SnapshotUploader>), Error> {
    let state = &spec.state;
    let open = |root: &str| {
        ObjectStorage::open(root).map_err(|error| Error::Storage {
            root: root.to_owned(),
            what: error.to_string(),
        })
    };
    let max_parallelism = spec.vertex.max_parallelism;
    let own = if state.storage_root.is_empty() {
        None
    } else {
        Some(open(&state.storage_root)?)
    };
    let restores = state
        .restore
        .iter()
        .any(|subtask| !subtask.files.is_empty());
    let backend = if restores {
        let source = match (&own, state.restore_root.as_str()) {
            (Some(own), "") => Source {
                storage: own.clone(),
                local: state.local.clone(),
            },
            (None, "") => {
                return Err(Error::Configuration(
                    "state is to be restored, but execution.checkpointing.dir is not set".into(),
                ));
            }
            (_, root) => open(root)?.into(),
        };
        let start = spec.clock.monotonic();
        let restored = spec.runtime.block_on(async {
            tokio::select! { biased;
                () = spec.mailbox.cancellation().cancelled() => None,
                restored = flott_statestore::restore(&state.dir, &source, &state.restore, max_parallelism, key_groups, state.options) => Some(restored),
            }
        });
        let Some(restored) = restored else {
            return Err(spec.mailbox.check().err().unwrap_or(Error::Canceled));
        };
        let bytes: u64 = state.restore.iter().map(SubtaskState::size).sum();
        let took_ms = spec.clock.monotonic().saturating_sub(start).as_millis() as u64;
        info!(checkpoint = %state.restored_checkpoint, bytes, took_ms, "state restored");
        restored.map_err(Error::restoring(state.restored_checkpoint, &state.restore))?
    } else {
        KeyedBackend::create(&state.dir, max_parallelism, key_groups, state.options)?
    };
    let uploader = own.map(|storage| {
        let uploader = SnapshotUploader::new(storage, state.writer.clone(), key_groups);
        match &state.local {
            Some(local) => uploader.keeping(local.of_subtask(spec.task.subtask.to_string())),
            None => uploader,
        }
    });
    if let (Some(uploader), "") = (&uploader, state.restore_root.as_str()) {
        let files = backend.restored_files();
        uploader.restored_from(state.restored_checkpoint, files, state.is_base);
    }
    Ok((Some(backend), uploader))
}

/// A running task.
struct Task {
    chain: OperatorChain,
    gate: Arc<InputGate>,
    output: Output,
    mailbox: Arc<Mailbox>,
    progress: Arc<Progress>,
    events: TaskEvents,
    checkpoints: Checkpoints,
    clock: SharedClock,
    valve: WatermarkValve,
    /// What those after this task were last told of its idleness.
    idle: bool,
    /// END_OF_DATA was reached.
    ended: bool,
    /// Sources have none.
    aligner: Option<BarrierAligner>,
    aligning_since: Duration,
}

impl Task {
    /// Until the task is told to end.
    fn run(&mut self) -> Result<(), Error> {
        loop {
            self.mailbox.check()?;
            while let Some(event) = self.mailbox.take() {
                if event == Control::Finish {
                    return Ok(());
                }
                self.on_control(event)?;
            }
            let wait = if self.chain.is_source() {
                self.poll_source()?
            } else {
                self.poll_gate()?
            };
            self.progress.set_counters(self.chain.counters());
            if let Some(wait) = wait {
                self.mailbox.wait(wait);
            }
        }
    }

    fn on_control(&mut self, event: Control) -> Result<(), Error> {
        match event {
            Control::TriggerCheckpoint(barrier) => {
                // A second snapshot under the same id would be of a later position than the barrier that went out.
                let is_new = self.progress.saw(barrier.checkpoint);
                if is_new && self.chain.is_source() {
                    self.snapshot(barrier, Duration::ZERO)?;
                }
            }
            Control::CheckpointCompleted(checkpoint) => {
                self.chain.commit(checkpoint)?;
                self.checkpoints.on_completed(checkpoint);
                self.progress.committed(checkpoint);
                self.events.tell(TaskEvent::Committed(checkpoint));
            }
            Control::CheckpointAborted(checkpoint) => {
                self.checkpoints.on_aborted(checkpoint);
                if self
                    .aligner
                    .as_mut()
                    .is_some_and(|aligner| aligner.on_aborted(checkpoint))
                {
                    self.gate.unblock_all();
                }
            }
            Control::Finish => unreachable!("taken by the run loop"),
        }
        Ok(())
    }

    /// One step of a source, and how long to wait before the next.
    fn poll_source(&mut self) -> Result<Option<Duration>, Error> {
        if self.ended {
            return Ok(Some(WAIT_MAX));
        }
        Ok(match self.chain.poll_source(&mut self.output)? {
            SourceStatus::Emitted => None,
            SourceStatus::NotBefore(time) => {
                let wait = time.saturating_sub(self.clock.monotonic());
                (!wait.is_zero()).then(|| wait.min(WAIT_MAX))
            }
            SourceStatus::Idle => Some(SOURCE_RETRY),
            SourceStatus::EndOfData => {
                self.end_of_data()?;
                None
            }
        })
    }

    /// One element of the gate; without one, how long to wait.
    fn poll_gate(&mut self) -> Result<Option<Duration>, Error> {
        let Some((channel, element)) = self.gate.poll() else {
            if !self.ended {
                self.chain.on_tick(&mut self.output)?;
            }
            return Ok(Some(WAIT_MAX));
        };
        let risen = match element {
            Element::Data(batch) => {
                self.chain.process(batch, &mut self.output)?;
                return Ok(None);
            }
            Element::Barrier(barrier) => {
                self.on_barrier(channel, barrier)?;
                return Ok(None);
            }
            Element::Watermark(time) => self.valve.on_watermark(channel, time),
            Element::Idle(true) => self.valve.on_idle(channel),
            Element::Idle(false) => self.valve.on_active(channel),
            Element::EndOfData => self.valve.on_end_of_data(channel),
        };
        if self.valve.is_ended() {
            if !self.ended {
                self.chain.on_end_of_data(&mut self.output)?;
                self.end_of_data()?;
            }
            return Ok(None);
        }
        if let Some(watermark_ms) = risen {
            self.chain.on_watermark(watermark_ms, &mut self.output)?;
        }
        if self.valve.is_idle() != self.idle {
            self.idle = !self.idle;
            self.chain.on_idle(self.idle, &mut self.output)?;
        }
        Ok(None)
    }

    /// The chain has been told; those after this task are now.
    fn end_of_data(&mut self) -> Result<(), Error> {
        self.ended = true;
        self.output.end_of_data()?;
        self.progress.set_counters(self.chain.counters());
        self.events
            .tell(TaskEvent::StateChanged(TaskState::EndOfData));
        Ok(())
    }

    fn on_barrier(&mut self, channel: usize, barrier: Barrier) -> Result<(), Error> {
        self.progress.saw(barrier.checkpoint);
        let aligner = self
            .aligner
            .as_mut()
            .expect("barriers come through channels");
        let (id, was_aligning) = (barrier.checkpoint, aligner.aligning().is_some());
        match aligner.on_barrier(channel, barrier) {
            Step::Block => {
                if !was_aligning {
                    self.aligning_since = self.clock.monotonic();
                }
                self.gate.block(channel);
            }
            Step::Snapshot(barrier) => {
                let now = self.clock.monotonic();
                let since = if was_aligning {
                    self.aligning_since
                } else {
                    now
                };
                self.snapshot(barrier, now.saturating_sub(since))?;
                self.gate.unblock_all();
            }
            Step::Abort { superseded } => {
                info!(checkpoint = %superseded, by = %id, "alignment given up");
                self.gate.unblock_all();
                self.aligning_since = self.clock.monotonic();
                self.gate.block(channel);
            }
            Step::Ignore => (),
        }
        Ok(())
    }

    /// The synchronous part of a checkpoint, and the barrier to those after this task.
    fn snapshot(&mut self, barrier: Barrier, alignment: Duration) -> Result<(), Error> {
        let start = self.clock.monotonic();
        let (operators, keyed) = self.chain.snapshot(barrier.checkpoint)?;
        let sync = self.clock.monotonic().saturating_sub(start);
        self.output.barrier(barrier.clone())?;
        self.checkpoints.start(Snapshot {
            barrier,
            operators,
            keyed,
            sync,
            alignment,
        });
        Ok(())
    }
}
