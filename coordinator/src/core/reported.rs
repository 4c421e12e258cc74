//! The tasks that a TaskManager reports, found by job and attempt.
//!
//! The plan looks every job's tasks up after every event. So a lookup must cost the job's own tasks only, however many
//! jobs share the TaskManager, and must copy no identifiers.

use std::collections::BTreeMap;

use flott_node::Mutant;
use flott_proto::Malformed;
use flott_proto::ids::{AttemptNumber, CheckpointId, JobId, SubtaskId, TaskId};
use flott_proto::wire::{self, TaskState};

/// A task as its TaskManager reports it.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    pub state: TaskState,
    /// The highest checkpoint whose trigger or barrier it has seen.
    pub last_checkpoint_seen: CheckpointId,
    pub last_checkpoint_committed: CheckpointId,
    pub failure: String,
    /// Whether another attempt can help.
    pub retryable: bool,
    /// The failure is a broken connection to that TaskManager.
    pub lost_peer: String,
    /// The failure is that of a restore.
    pub unusable_state: Option<UnusableState>,
    pub counters: wire::TaskCounters,
}

/// What a task was to begin from, and cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableState {
    /// [`CheckpointId::NONE`]: what the job was submitted to start from.
    pub checkpoint: CheckpointId,
    /// The file that is missing or damaged; none if the files do not make up the whole state.
    pub path: Option<String>,
    pub reason: String,
}

impl From<wire::UnusableState> for UnusableState {
    fn from(unusable: wire::UnusableState) -> Self {
        Self {
            checkpoint: CheckpointId(unusable.checkpoint_id),
            path: Some(unusable.path).filter(|path| !path.is_empty()),
            reason: unusable.reason,
        }
    }
}

impl TaskView {
    /// Still holds its thread and its slot.
    pub fn is_live(&self) -> bool {
        !matches!(
            self.state,
            TaskState::Finished | TaskState::Canceled | TaskState::Failed
        )
    }

    /// Takes part in checkpoints.
    pub fn is_running(&self) -> bool {
        matches!(self.state, TaskState::Running | TaskState::EndOfData)
    }
}

/// The tasks of one attempt on one TaskManager.
pub type AttemptTasks = BTreeMap<SubtaskId, TaskView>;

/// All tasks that one TaskManager reports.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReportedTasks {
    /// No map in it is empty.
    by_job: BTreeMap<JobId, BTreeMap<AttemptNumber, AttemptTasks>>,
}

impl ReportedTasks {
    /// The tasks of that attempt of that job.
    pub fn of_attempt(&self, job: &JobId, attempt: AttemptNumber) -> Option<&AttemptTasks> {
        let attempts = self.by_job.get(job)?;
        if Mutant::OlderAttemptAdopted.is_planted() {
            return attempts
                .range(..=attempt)
                .next_back()
                .map(|(_, tasks)| tasks);
        }
        attempts.get(&attempt)
    }

    /// The tasks of all attempts of that job.
    pub fn of_job(
        &self,
        job: &JobId,
    ) -> impl Iterator<Item = (AttemptNumber, &SubtaskId, &TaskView)> {
        let attempts = self.by_job.get(job).into_iter().flatten();
        attempts.flat_map(|(attempt, tasks)| {
            tasks
                .iter()
                .map(move |(subtask, view)| (*attempt, subtask, view))
        })
    }

    /// The jobs that it has tasks of, in order.
    pub fn jobs(&self) -> impl Iterator<Item = &JobId> {
        self.by_job.keys()
    }

    pub fn get(&self, task: &TaskId) -> Option<&TaskView> {
        self.of_attempt(&task.job, task.attempt)?.get(&task.subtask)
    }

    pub fn get_mut(&mut self, task: &TaskId) -> Option<&mut TaskView> {
        let attempts = self.by_job.get_mut(&task.job)?;
        attempts.get_mut(&task.attempt)?.get_mut(&task.subtask)
    }

    pub fn insert(&mut self, task: TaskId, view: TaskView) {
        let attempts = self.by_job.entry(task.job).or_default();
        let tasks = attempts.entry(task.attempt).or_default();
        tasks.insert(task.subtask, view);
    }

    /// Keeps the live tasks, and of those that have ended the ones of the attempt that `present` says is the job's own.
    pub fn retain_of(&mut self, present: impl Fn(&JobId) -> Option<AttemptNumber>) {
        self.by_job.retain(|job, attempts| {
            let present = present(job);
            attempts.retain(|attempt, tasks| {
                if Some(*attempt) != present {
                    tasks.retain(|_, view| view.is_live());
                }
                !tasks.is_empty()
            });
            !attempts.is_empty()
        });
    }

    /// The same, of one job only.
    pub fn only(&self, job: &JobId) -> Self {
        let of_job = self.by_job.get_key_value(job);
        let by_job = of_job.map(|(job, attempts)| (job.clone(), attempts.clone()));
        Self {
            by_job: by_job.into_iter().collect(),
        }
    }
}

/// What a report says, and of which task.
pub(super) fn view(report: wire::TaskReport) -> Result<(TaskId, TaskView), Malformed> {
    let state = report.state();
    let task = TaskId::try_from(task_of(report.task)?)?;
    if state == TaskState::Unspecified {
        return Err(Malformed::new(
            "task report",
            format!("of {task} lacks a state known to this build"),
        ));
    }
    let view = TaskView {
        state,
        last_checkpoint_seen: CheckpointId(report.last_checkpoint_seen),
        last_checkpoint_committed: CheckpointId(report.last_checkpoint_committed),
        failure: report.failure,
        retryable: !report.failure_is_final,
        lost_peer: report.lost_peer,
        unusable_state: report.unusable_state.map(UnusableState::from),
        counters: report.counters.unwrap_or_default(),
    };
    Ok((task, view))
}

pub(super) fn task_of(task: Option<wire::TaskId>) -> Result<wire::TaskId, Malformed> {
    task.ok_or_else(|| Malformed::new("task manager message", "lacks its task"))
}
