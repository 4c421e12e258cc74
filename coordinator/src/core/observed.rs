//! What the leader sees: TaskManagers, the tasks they report, and the acks of pending checkpoints.
//!
//! It lives in the leader's memory and may be lost at any time: a new leader starts with an empty one, TaskManagers
//! register again with all they run, and [`super::plan`] is asked as ever. What this leader has already told a
//! TaskManager is remembered per connection, so that a broken connection makes it tell again; every call is idempotent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flott_proto::Malformed;
use flott_proto::ids::{
    AttemptNumber, CheckpointId, JobId, Namespace, SubtaskId, TaskId, TaskManagerId,
};
use flott_proto::job_graph::JobGraph;
use flott_proto::wire::{self, command::Decision, job_manager_message::Message};

use super::checkpoint::{Ack, PendingCheckpoint};
use super::job::Job;
use super::reported::{AttemptTasks, ReportedTasks, task_of, view};
use super::state::ClusterState;

pub use super::reported::TaskView;

/// How long a TaskManager whose connection broke may take to come back before it counts as lost. A crashed process
/// never does; one whose connection was cut by chance needs one round trip.
pub const DISCONNECT_GRACE: Duration = Duration::from_millis(250);

/// Tells apart the connections of one TaskManager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// The time of an observation: monotonic for time-outs, wall time for what is shown and replicated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub monotonic: Duration,
    pub wall_ms: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TaskManager {
    /// The present connection; none since `last_heard` if it broke.
    pub connection: Option<ConnectionId>,
    pub data_address: String,
    pub http_address: String,
    pub slots: u32,
    pub pid: u32,
    pub last_heard: Duration,
    pub tasks: ReportedTasks,
    /// What this leader said over the present connection.
    pub told: BTreeMap<JobId, Told>,
}

/// What one TaskManager has been told of one job over the present connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub deployed: AttemptNumber,
    pub cancelled: AttemptNumber,
    pub finished: AttemptNumber,
    pub triggered: CheckpointId,
    pub completed: CheckpointId,
    pub aborted: CheckpointId,
}

/// Proposals and work that are under way, so that they are not begun twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UnderWay {
    /// At most one replicated decision at a time for each job.
    Proposal(JobId),
    WriteMetadata(JobId),
    DeleteFiles(JobId),
    Sweep(JobId),
    LoadGraph(JobId),
    CheckFile(JobId),
    /// At most one step of a namespace's deletion at a time.
    Purge(Namespace),
    /// At most one batch of forgotten jobs at a time.
    ForgetJobs,
}

/// What became of writing a checkpoint's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataWritten {
    pub checkpoint: CheckpointId,
    /// (directory, object relative to the root), or why it failed.
    pub outcome: Result<(String, String), String>,
}

/// What the leader itself finds of a file that a task could not restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChecked {
    /// The attempt whose task it was.
    pub attempt: AttemptNumber,
    pub path: String,
    pub condition: FileCondition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileCondition {
    Whole,
    /// Missing, or with other bytes than were written.
    Damaged,
    /// The storage does not answer.
    Unknown,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// When this leader took office.
    pub since: Duration,
    pub task_managers: BTreeMap<TaskManagerId, TaskManager>,
    /// Acks of the pending checkpoint of each job.
    pub pending: BTreeMap<JobId, PendingCheckpoint>,
    /// Why the pending checkpoint cannot complete: a task declined it, or its completion was refused.
    pub declined: BTreeMap<JobId, (CheckpointId, String)>,
    pub metadata: BTreeMap<JobId, MetadataWritten>,
    pub under_way: BTreeSet<UnderWay>,
    /// Slots of the attempts whose start is being replicated: nobody else gets them.
    pub starting: BTreeMap<JobId, BTreeSet<(TaskManagerId, u32)>>,
    /// Jobs that have ended and whose directory has been found empty, or was emptied, since: they can be forgotten.
    pub swept: BTreeSet<JobId>,
    /// Graphs that are in object storage, read when they were needed; or why that failed last.
    pub graphs: BTreeMap<JobId, Result<Arc<JobGraph>, String>>,
    /// Of each job whose present attempt could not restore a file.
    pub files_checked: BTreeMap<JobId, FileChecked>,
    /// When all tasks of an attempt were first seen running, wall time.
    pub all_running_at_ms: BTreeMap<JobId, (AttemptNumber, i64)>,
}

impl Observed {
    /// A leader that has seen nothing yet.
    pub fn empty(since: Duration) -> Self {
        Self {
            since,
            task_managers: BTreeMap::new(),
            pending: BTreeMap::new(),
            declined: BTreeMap::new(),
            metadata: BTreeMap::new(),
            under_way: BTreeSet::new(),
            starting: BTreeMap::new(),
            swept: BTreeSet::new(),
            graphs: BTreeMap::new(),
            files_checked: BTreeMap::new(),
            all_running_at_ms: BTreeMap::new(),
        }
    }

    /// A TaskManager (re)connected. What it reports replaces what was known of it.
    pub fn on_register(
        &mut self,
        connection: ConnectionId,
        register: wire::Register,
        now: Now,
    ) -> Result<TaskManagerId, Malformed> {
        let id: TaskManagerId = register.task_manager_id.parse()?;
        let mut tasks = ReportedTasks::default();
        for report in register.tasks {
            let (task, view) = view(report)?;
            tasks.insert(task, view);
        }
        let task_manager = TaskManager {
            connection: Some(connection),
            data_address: register.data_address,
            http_address: register.http_address,
            slots: register.slots,
            pid: register.pid,
            last_heard: now.monotonic,
            tasks,
            told: BTreeMap::new(),
        };
        self.task_managers.insert(id.clone(), task_manager);
        for ack in register.held_acks {
            self.on_ack(ack)?;
        }
        Ok(id)
    }

    /// A message came over a TaskManager's present connection. Malformed ones are the sender's fault and change nothing.
    pub fn on_message(
        &mut self,
        from: &TaskManagerId,
        connection: ConnectionId,
        message: wire::task_manager_message::Message,
        now: Now,
    ) -> Result<(), Malformed> {
        use wire::task_manager_message::Message as From;
        let Some(task_manager) = self.task_managers.get_mut(from) else {
            return Ok(());
        };
        if task_manager.connection != Some(connection) {
            return Ok(());
        }
        task_manager.last_heard = now.monotonic;
        match message {
            From::Register(_) => {
                return Err(Malformed::new(
                    "task manager message",
                    "registers twice on one connection",
                ));
            }
            From::Heartbeat(heartbeat) => {
                for report in heartbeat.tasks {
                    task_manager.on_report(report)?;
                }
            }
            From::TaskStatus(changed) => {
                let report = changed
                    .task
                    .ok_or_else(|| Malformed::new("task status", "lacks its task"))?;
                task_manager.on_report(report)?;
            }
            From::CheckpointAck(ack) => self.on_ack(ack)?,
            From::CheckpointDeclined(declined) => {
                let task = TaskId::try_from(task_of(declined.task)?)?;
                let id = CheckpointId(declined.checkpoint_id);
                if self
                    .pending
                    .get(&task.job)
                    .is_some_and(|pending| pending.id == id)
                {
                    self.declined
                        .entry(task.job.clone())
                        .or_insert((id, format!("declined by {task}: {}", declined.reason)));
                }
            }
            From::CheckpointCommitted(committed) => {
                let task = TaskId::try_from(task_of(committed.task)?)?;
                if let Some(view) = task_manager.tasks.get_mut(&task) {
                    let id = CheckpointId(committed.checkpoint_id);
                    view.last_checkpoint_committed = view.last_checkpoint_committed.max(id);
                }
            }
        }
        Ok(())
    }

    fn on_ack(&mut self, ack: wire::CheckpointAck) -> Result<(), Malformed> {
        let task = TaskId::try_from(task_of(ack.task)?)?;
        let state = ack
            .state
            .ok_or_else(|| Malformed::new("checkpoint ack", "lacks its state"))?;
        let ack = Ack {
            checkpoint: CheckpointId(ack.checkpoint_id),
            attempt: task.attempt,
            base: CheckpointId(ack.base_checkpoint_id),
            delta: state.try_into()?,
        };
        if ack.delta.subtask != task.subtask {
            return Err(Malformed::new(
                "checkpoint ack",
                format!("of {task} carries state of {}", ack.delta.subtask),
            ));
        }
        if let Some(pending) = self.pending.get_mut(&task.job) {
            pending.on_ack(ack);
        }
        Ok(())
    }

    /// A connection broke. One that was replaced already means nothing.
    pub fn on_disconnect(&mut self, from: &TaskManagerId, connection: ConnectionId, now: Now) {
        let present = self.task_managers.get_mut(from);
        if let Some(task_manager) = present.filter(|tm| tm.connection == Some(connection)) {
            task_manager.connection = None;
            task_manager.last_heard = now.monotonic;
        }
    }

    /// Brings what is remembered per job in line with what has been decided. To be called before each plan.
    pub fn on_state(&mut self, state: &ClusterState, now: Now) {
        let pending_id = |job: &JobId| {
            state
                .jobs
                .get(job)
                .and_then(|job| job.checkpoints.pending.as_ref())
                .map(|p| p.id)
        };
        self.pending
            .retain(|job, pending| pending_id(job) == Some(pending.id));
        self.declined
            .retain(|job, (id, _)| pending_id(job) == Some(*id));
        self.metadata
            .retain(|job, written| pending_id(job) == Some(written.checkpoint));
        self.all_running_at_ms.retain(|job, (attempt, _)| {
            state
                .jobs
                .get(job)
                .is_some_and(|job| job.attempt == *attempt)
        });
        self.files_checked.retain(|job, checked| {
            let job = state.jobs.get(job);
            job.is_some_and(|job| job.attempt == checked.attempt)
        });
        self.swept.retain(|job| state.jobs.contains_key(job));
        self.graphs.retain(|job, _| {
            let job = state.jobs.get(job);
            job.is_some_and(|job| !job.status.is_terminal())
        });
        for job in state.active_jobs() {
            if let Some(record) = &job.checkpoints.pending {
                self.pending.entry(job.id.clone()).or_insert_with(|| {
                    PendingCheckpoint::new(record.id, record.attempt, job.subtasks())
                });
            }
            if job.is_running()
                && !self.all_running_at_ms.contains_key(&job.id)
                && self.all_running(job)
            {
                self.all_running_at_ms
                    .insert(job.id.clone(), (job.attempt, now.wall_ms));
            }
        }
        for task_manager in self.task_managers.values_mut() {
            // A task that has ended is of no interest once its attempt is over.
            task_manager
                .tasks
                .retain_of(|job| state.jobs.get(job).map(|job| job.attempt));
            task_manager
                .told
                .retain(|job, _| state.jobs.contains_key(job));
        }
    }

    /// Whether that is under way. Asked often, and seldom is anything.
    pub fn is_under_way(&self, what: impl FnOnce() -> UnderWay) -> bool {
        !self.under_way.is_empty() && self.under_way.contains(&what())
    }

    /// A decision is being replicated.
    pub fn on_proposed(&mut self, what: UnderWay, decision: &Decision) {
        if let (UnderWay::Proposal(job), Decision::StartAttempt(start)) = (&what, decision) {
            let slot = |place: &wire::Assignment| {
                let task_manager = place.task_manager_id.parse().ok()?;
                Some((task_manager, place.subtask))
            };
            let slots = start.assignments.iter().filter_map(slot).collect();
            self.starting.insert(job.clone(), slots);
        }
        self.under_way.insert(what);
    }

    /// It is replicated, or will not be.
    pub fn on_decided(&mut self, what: &UnderWay) {
        if let UnderWay::Proposal(job) = what {
            self.starting.remove(job);
        }
        self.under_way.remove(what);
    }

    /// The completion of a checkpoint was refused: it never completes and has to be given up, for that reason.
    pub fn on_completion_refused(&mut self, job: &JobId, checkpoint: CheckpointId, reason: &str) {
        let pending = self.pending.get(job);
        if pending.is_some_and(|pending| pending.id == checkpoint) {
            self.declined
                .entry(job.clone())
                .or_insert_with(|| (checkpoint, reason.to_owned()));
        }
    }

    /// What concerns one job, or none: the TaskManagers with its tasks only.
    pub fn excerpt(&self, job: Option<&JobId>) -> Self {
        let task_manager = |(id, task_manager): (&TaskManagerId, &TaskManager)| {
            let excerpt = TaskManager {
                connection: task_manager.connection,
                data_address: task_manager.data_address.clone(),
                http_address: task_manager.http_address.clone(),
                slots: task_manager.slots,
                pid: task_manager.pid,
                last_heard: task_manager.last_heard,
                tasks: job.map_or_else(ReportedTasks::default, |job| task_manager.tasks.only(job)),
                told: BTreeMap::new(),
            };
            (id.clone(), excerpt)
        };
        let all_running = job.and_then(|job| self.all_running_at_ms.get_key_value(job));
        Self {
            task_managers: self.task_managers.iter().map(task_manager).collect(),
            all_running_at_ms: all_running
                .map(|(job, at)| (job.clone(), *at))
                .into_iter()
                .collect(),
            ..Self::empty(self.since)
        }
    }

    /// Remembers what was sent, so that it is sent once a connection.
    pub fn on_sent(&mut self, to: &TaskManagerId, message: &Message) {
        let Some(task_manager) = self.task_managers.get_mut(to) else {
            return;
        };
        let mut told = |job: &str, note: &dyn Fn(&mut Told)| {
            if let Ok(job) = job.parse::<JobId>() {
                note(task_manager.told.entry(job).or_default());
            }
        };
        match message {
            // The tasks of a new attempt have not heard what those before them were told of checkpoints.
            Message::Deploy(deploy) => told(&deploy.job_id, &|told| {
                *told = Told {
                    deployed: AttemptNumber(deploy.attempt),
                    cancelled: told.cancelled,
                    finished: told.finished,
                    ..Told::default()
                }
            }),
            Message::Cancel(cancel) => told(&cancel.job_id, &|told| {
                told.cancelled = AttemptNumber(cancel.attempt)
            }),
            Message::Finish(finish) => told(&finish.job_id, &|told| {
                told.finished = AttemptNumber(finish.attempt)
            }),
            Message::TriggerCheckpoint(trigger) => {
                told(&trigger.job_id, &|told| {
                    told.triggered = CheckpointId(trigger.checkpoint_id)
                });
            }
            Message::CheckpointCompleted(notify) => {
                told(&notify.job_id, &|told| {
                    told.completed = CheckpointId(notify.checkpoint_id)
                });
            }
            Message::CheckpointAborted(notify) => {
                told(&notify.job_id, &|told| {
                    told.aborted = CheckpointId(notify.checkpoint_id)
                });
            }
            Message::Registered(_) | Message::Heartbeat(_) => {}
        }
    }

    /// The report of the present attempt of a subtask, if its TaskManager gave one.
    pub fn task(&self, job: &Job, subtask: &SubtaskId) -> Option<&TaskView> {
        let assignment = job.assignments.get(subtask)?;
        self.attempt_on(job, &assignment.task_manager)?.get(subtask)
    }

    /// The tasks of the present attempt that a TaskManager reports.
    pub fn attempt_on(&self, job: &Job, host: &TaskManagerId) -> Option<&AttemptTasks> {
        let task_manager = self.task_managers.get(host)?;
        task_manager.tasks.of_attempt(&job.id, job.attempt)
    }

    /// Whether every subtask of the present attempt is reported to take part in checkpoints.
    pub fn all_running(&self, job: &Job) -> bool {
        // The assignments of an attempt name every subtask.
        !job.assignments.is_empty()
            && job
                .assignments
                .keys()
                .all(|subtask| self.task(job, subtask).is_some_and(TaskView::is_running))
    }

    /// Tasks of a job that still hold a thread and a slot somewhere.
    pub fn live_tasks<'a>(
        &'a self,
        job: &'a JobId,
    ) -> impl Iterator<Item = (&'a TaskManagerId, &'a SubtaskId)> {
        self.task_managers
            .iter()
            .flat_map(move |(id, task_manager)| {
                let tasks = task_manager.tasks.of_job(job);
                let live = tasks.filter(|(_, _, view)| view.is_live());
                live.map(move |(_, subtask, _)| (id, subtask))
            })
    }
}

impl TaskManager {
    /// Whether it has to be taken for dead.
    pub fn is_lost(&self, now: Now, heartbeat_timeout: Duration) -> bool {
        let grace = if self.connection.is_some() {
            heartbeat_timeout
        } else {
            DISCONNECT_GRACE
        };
        now.monotonic.saturating_sub(self.last_heard) > grace
    }

    pub fn told(&self, job: &JobId) -> Told {
        self.told.get(job).cloned().unwrap_or_default()
    }

    fn on_report(&mut self, report: wire::TaskReport) -> Result<(), Malformed> {
        let (task, mut view) = view(report)?;
        match self.tasks.get(&task) {
            // How a task ended does not change any more.
            Some(present) if !present.is_live() => return Ok(()),
            Some(present) => {
                view.last_checkpoint_committed = view
                    .last_checkpoint_committed
                    .max(present.last_checkpoint_committed);
            }
            None => {}
        }
        self.tasks.insert(task, view);
        Ok(())
    }
}
