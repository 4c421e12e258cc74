//! The states of a task, and what about it is reported. The transitions are pure.
//!
//! ```text
//! DEPLOYING ─▶ INITIALIZING ─▶ RUNNING ─▶ END_OF_DATA ─▶ FINISHED
//!     └──────────────┴────────────┴────────────┴───────▶ CANCELED, FAILED
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use flott_proto::ids::{CheckpointId, TaskId};
use flott_proto::wire::{TaskCounters, TaskReport, TaskState, UnusableState};

use crate::Error;
use crate::time::WATERMARK_NONE;

/// Why a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub text: String,
    /// Another attempt would fail alike.
    pub is_final: bool,
    /// The TaskManager at the other end of a broken data connection; empty otherwise.
    pub lost_peer: String,
    /// What the task was to begin from cannot be restored.
    pub unusable_state: Option<UnusableState>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            text: error.full_text(),
            is_final: !error.retryable(),
            lost_peer: error
                .lost_peer()
                .map(ToString::to_string)
                .unwrap_or_default(),
            unusable_state: match error {
                Error::UnusableState {
                    checkpoint,
                    path,
                    source,
                } => Some(UnusableState {
                    checkpoint_id: checkpoint.0,
                    path: path.clone().unwrap_or_default(),
                    reason: source.to_string(),
                }),
                _ => None,
            },
        }
    }
}

/// The state of a task and, once it has failed, why.
#[derive(Clone, Debug)]
pub struct TaskStatus {
    state: TaskState,
    failure: Option<Failure>,
}

impl Default for TaskStatus {
    fn default() -> Self {
        Self {
            state: TaskState::Deploying,
            failure: None,
        }
    }
}

impl TaskStatus {
    pub fn state(&self) -> TaskState {
        self.state
    }

    /// Why, for [`TaskState::Failed`].
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Whether the task has ended.
    pub fn is_ended(&self) -> bool {
        matches!(
            self.state,
            TaskState::Finished | TaskState::Canceled | TaskState::Failed
        )
    }

    /// A step forward. Panics at a step that the diagram does not have.
    pub fn advance(&mut self, to: TaskState) {
        let from = self.state;
        let allowed = match to {
            TaskState::Initializing => from == TaskState::Deploying,
            TaskState::Running => from == TaskState::Initializing,
            TaskState::EndOfData => from == TaskState::Running,
            // A job may be finished by a leader that takes the final checkpoint for complete, at any time after it.
            TaskState::Finished => matches!(from, TaskState::Running | TaskState::EndOfData),
            TaskState::Canceled => !self.is_ended(),
            _ => false,
        };
        assert!(allowed, "a task goes from {from:?} to {to:?}");
        self.state = to;
    }

    /// The task failed. Panics if it had ended.
    pub fn fail(&mut self, failure: Failure) {
        assert!(
            !self.is_ended(),
            "a task fails after it was {:?}",
            self.state
        );
        self.state = TaskState::Failed;
        self.failure = Some(failure);
    }
}

/// What the thread of a task lets others see of it.
#[derive(Debug)]
pub struct Progress {
    counters: Mutex<TaskCounters>,
    last_seen: AtomicU64,
    last_committed: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        let counters = TaskCounters {
            watermark_ms: WATERMARK_NONE,
            ..TaskCounters::default()
        };
        Self {
            counters: Mutex::new(counters),
            last_seen: AtomicU64::new(0),
            last_committed: AtomicU64::new(0),
        }
    }
}

impl Progress {
    /// The chain's counters as they are now.
    pub fn set_counters(&self, counters: TaskCounters) {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    /// The task has seen the checkpoint's barrier or trigger.
    /// Whether it is the first time: a new leader repeats the trigger of a pending checkpoint.
    pub fn saw(&self, checkpoint: CheckpointId) -> bool {
        self.last_seen.fetch_max(checkpoint.0, Ordering::Relaxed) < checkpoint.0
    }

    /// The task has carried out the checkpoint's commit.
    pub fn committed(&self, checkpoint: CheckpointId) {
        self.last_committed
            .fetch_max(checkpoint.0, Ordering::Relaxed);
    }

    /// The highest whose commit the task has carried out.
    #[cfg(feature = "simulation")]
    pub fn last_committed(&self) -> CheckpointId {
        CheckpointId(self.last_committed.load(Ordering::Relaxed))
    }

    /// Everything that the leader wants to know of the task.
    pub fn report(&self, task: &TaskId, status: &TaskStatus) -> TaskReport {
        let failure = status.failure();
        TaskReport {
            task: Some(task.into()),
            state: status.state().into(),
            last_checkpoint_seen: self.last_seen.load(Ordering::Relaxed),
            last_checkpoint_committed: self.last_committed.load(Ordering::Relaxed),
            failure: failure
                .map(|failure| failure.text.clone())
                .unwrap_or_default(),
            counters: Some(*self.counters.lock().unwrap_or_else(PoisonError::into_inner)),
            failure_is_final: failure.is_some_and(|failure| failure.is_final),
            lost_peer: failure
                .map(|failure| failure.lost_peer.clone())
                .unwrap_or_default(),
            unusable_state: failure.and_then(|failure| failure.unusable_state.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_goes_through_its_states_and_ends_once() {
        let mut status = TaskStatus::default();
        for next in [
            TaskState::Initializing,
            TaskState::Running,
            TaskState::EndOfData,
            TaskState::Finished,
        ] {
            assert!(!status.is_ended());
            status.advance(next);
        }
        assert!(status.is_ended());
        let again = std::panic::catch_unwind(move || status.advance(TaskState::Canceled));
        assert!(again.is_err());
    }

    #[test]
    fn a_report_says_why_a_task_failed() {
        let task = flott_proto::wire::TaskId {
            job_id: "0123456789abcdef0123456789abcdef".into(),
            vertex: "v".into(),
            subtask: 1,
            attempt: 2,
        };
        let task: TaskId = task.try_into().unwrap();
        let mut status = TaskStatus::default();
        status.fail(Failure::from(&Error::user("flights.csv:3", "not a number")));
        let progress = Progress::default();
        assert!(progress.saw(CheckpointId(7)));
        assert!(
            !progress.saw(CheckpointId(7)),
            "a repeated trigger is no new one"
        );
        assert!(!progress.saw(CheckpointId(6)));
        let report = progress.report(&task, &status);
        assert_eq!(report.failure, "flights.csv:3: not a number");
        assert!(report.failure_is_final && report.lost_peer.is_empty());
        assert_eq!(
            (
                report.last_checkpoint_seen,
                report.last_checkpoint_committed
            ),
            (7, 0)
        );
    }
}
