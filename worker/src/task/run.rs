//! The thread of a task: restores, opens the chain, then drives it until the task is told to end.
//!
//! One loop of steps. What the task is told comes first, then data. A source is polled; other tasks take elements from
//! their gate. When there is nothing to do the thread waits on its mailbox's latch, which everybody sets who changes
//! anything.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flott_node::{SharedClock, Tasks};
use flott_proto::ids::{CheckpointId, TaskId};
use flott_proto::job_graph::{JobGraph, Vertex};
use flott_proto::key_group::KeyGroupRange;
use flott_proto::state_handle::SubtaskState;
use flott_proto::wire::{CheckpointAck, TaskState};
use flott_statestore::{BackendOptions, KeyedBackend, LocalFiles};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tracing::error;

use super::checkpoint::{ChannelUploader, Checkpoints, Uploaders};
use super::mailbox::{Control, Mailbox};
use super::open::{open_state, restore_channels};
use super::pace::Pace;
use super::status::Progress;
use crate::barrier::aligner::BarrierAligner;
use crate::barrier::overtaking::Overtaking;
use crate::channel_state::restored::Restored;
use crate::network::Element;
use crate::network::attempt::TaskEnds;
use crate::network::gate::InputGate;
use crate::network::partition::Output;
use crate::operators::{ChainContext, OperatorChain, SourceStatus};
use crate::time::watermark::WatermarkValve;
use crate::{Error, channel_state};

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
    pub(super) fn tell(&self, event: TaskEvent) {
        if let Err(TrySendError::Full(event)) = self.events.try_send((self.task.clone(), event)) {
            drop(self.events.blocking_send(event));
        }
    }

    /// The same, where a thread must not be blocked.
    async fn send(&self, event: TaskEvent) {
        drop(self.events.send((self.task.clone(), event)).await);
    }

    pub(crate) fn acknowledged(&self, ack: CheckpointAck) {
        self.tell(TaskEvent::Acknowledged(ack));
    }

    pub(crate) fn declined(&self, checkpoint: CheckpointId, reason: String) {
        self.tell(TaskEvent::Declined { checkpoint, reason });
    }

    pub(crate) async fn send_acknowledged(&self, ack: CheckpointAck) {
        self.send(TaskEvent::Acknowledged(ack)).await;
    }

    pub(crate) async fn send_declined(&self, checkpoint: CheckpointId, reason: String) {
        self.send(TaskEvent::Declined { checkpoint, reason }).await;
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
    /// If it ends in a sink; 0 for no limit.
    pub sink_rows_per_second: u32,
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
    #[cfg(feature = "simulation")]
    if let Some(environment) = flott_node::simulation::environment() {
        super::simulated::spawn(spec, environment);
        return Ok(());
    }
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
    let runtime = spec.runtime.clone();
    let mut task = runtime.block_on(open(spec))?;
    loop {
        match task.step()? {
            Step::Again => (),
            Step::Wait(wait) => task.mailbox.wait(wait),
            Step::Finished => return Ok(()),
        }
    }
}

/// From INITIALIZING to RUNNING.
pub(super) async fn open(mut spec: TaskSpec) -> Result<Task, Error> {
    let initializing = TaskEvent::StateChanged(TaskState::Initializing);
    spec.events.send(initializing).await;
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
        open_state(&spec, key_groups).await?
    } else {
        (None, None)
    };
    let early = backend.as_ref().map(KeyedBackend::early_tables);
    chain.open(backend)?;
    let restored = restore_channels(&mut spec).await?;
    spec.mailbox.check()?;
    let inputs = spec.ends.gate.len();
    let task = Task {
        checkpoints: Checkpoints::new(
            (spec.task.clone(), spec.vertex.parallelism),
            spec.events.clone(),
            Uploaders {
                keyed: uploader.zip(early),
                channels: ChannelUploader::of(&spec.state),
            },
            spec.mailbox.cancellation().clone(),
            (spec.tasks, spec.runtime),
            SharedClock::clone(&spec.clock),
        ),
        overtakes: !spec.state.storage_root.is_empty() && channel_state::is_divisible(&spec.graph),
        graph: spec.graph,
        chain,
        gate: spec.ends.gate,
        pace: Pace::of(&spec.vertex, spec.sink_rows_per_second),
        restored,
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
        overtaking: Overtaking::default(),
        taken: CheckpointId::NONE,
    };
    let running = TaskEvent::StateChanged(TaskState::Running);
    task.events.send(running).await;
    Ok(task)
}

/// The columns that flow into a vertex: all its inputs have the same.
pub(super) fn input_schema(
    graph: &JobGraph,
    vertex: &Vertex,
) -> Option<arrow::datatypes::SchemaRef> {
    let (_, edge) = graph.inputs(&vertex.uid).next()?;
    let operator = graph.vertex(&edge.source)?.chain.last()?;
    Some(Arc::new(operator.output.to_arrow()))
}

/// A running task.
pub(super) struct Task {
    pub(super) graph: Arc<JobGraph>,
    pub(super) chain: OperatorChain,
    pub(super) gate: Arc<InputGate>,
    pace: Pace,
    /// What was on its way here when the restored checkpoint was taken: comes before all that the gate has.
    pub(super) restored: Restored,
    pub(super) output: Output,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) progress: Arc<Progress>,
    events: TaskEvents,
    pub(super) checkpoints: Checkpoints,
    pub(super) clock: SharedClock,
    valve: WatermarkValve,
    /// What those after this task were last told of its idleness.
    idle: bool,
    /// END_OF_DATA was reached.
    ended: bool,
    /// Sources have none.
    pub(super) aligner: Option<BarrierAligner>,
    pub(super) aligning_since: Duration,
    pub(super) overtaking: Overtaking,
    /// Whether the job's channel state can be stored and divided.
    pub(super) overtakes: bool,
    /// The newest checkpoint that this task has taken a snapshot for.
    pub(super) taken: CheckpointId,
}

/// What a step of a task leads to.
pub(super) enum Step {
    /// The next one.
    Again,
    /// There is nothing to do, at most for so long, until the mailbox's latch is set.
    Wait(Duration),
    /// The task was told to end.
    Finished,
}

impl Task {
    /// Everything that the task was told, and one element or batch.
    pub(super) fn step(&mut self) -> Result<Step, Error> {
        self.mailbox.check()?;
        while let Some(event) = self.mailbox.take() {
            if event == Control::Finish {
                return Ok(Step::Finished);
            }
            self.on_control(event)?;
        }
        let clear = self.output.flush();
        self.come_to_checkpoint(clear)?;
        let wait = if !clear {
            Some(WAIT_MAX)
        } else if self.chain.is_source() {
            self.poll_source()?
        } else {
            self.poll_gate()?
        };
        self.progress.set_counters(self.chain.counters());
        Ok(match wait {
            Some(wait) => Step::Wait(self.overtaking.sleep(self.clock.monotonic(), wait)),
            None => Step::Again,
        })
    }

    fn on_control(&mut self, event: Control) -> Result<(), Error> {
        match event {
            Control::TriggerCheckpoint {
                barrier,
                unaligned_after,
            } => self.on_trigger(barrier, unaligned_after),
            Control::CheckpointCompleted(checkpoint) => {
                self.chain.commit(checkpoint)?;
                self.checkpoints.on_completed(checkpoint);
                self.progress.committed(checkpoint);
                self.events.tell(TaskEvent::Committed(checkpoint));
            }
            Control::CheckpointAborted(checkpoint) => self.on_aborted(checkpoint),
            Control::Finish => unreachable!("taken by the step"),
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
        if let Some(wait) = self.pace.wait(&self.clock) {
            return Ok(Some(wait.min(WAIT_MAX)));
        }
        let restored = self.restored.pop();
        // Only a watermark's channel matters, and a restored watermark is of a channel that there is.
        let position = |(channel, element)| (self.gate.position(channel).unwrap_or(0), element);
        let next = restored.map(position).or_else(|| self.gate.poll());
        let Some((channel, element)) = next else {
            if !self.ended {
                self.chain.on_tick(&mut self.output)?;
            }
            return Ok(Some(WAIT_MAX));
        };
        let risen = match element {
            Element::Data(batch) => {
                self.pace.on_rows(batch.num_rows(), &self.clock);
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
}
