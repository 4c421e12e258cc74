//! One job as it has been decided: its graph, its state, where its tasks run, and its checkpoints.
//!
//! ```text
//!            StartAttempt            RecordFailure (retry)
//!  CREATED ──────────────► RUNNING ──────────────────────► RESTARTING
//!                             ▲                                 │
//!                             └──────────── StartAttempt ───────┘
//!                 RUNNING ── RescaleJob, then a checkpoint ──► RESTARTING
//!     any of these ── CancelJob ─────────────► CANCELLING ── EndJob ──► CANCELED
//!     any of these ── RecordFailure (final) ─► FAILING ───── EndJob ──► FAILED
//!                 RUNNING ── final checkpoint committed ──── EndJob ──► FINISHED
//! ```
//!
//! A job that has ended never changes again but for its clean-up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use flott_node::config::options;
use flott_proto::Malformed;
use flott_proto::ids::{
    AttemptNumber, CheckpointId, JobId, LeaderEpoch, Namespace, SubtaskId, TaskManagerId, VertexId,
};
use flott_proto::job_graph::JobGraph;
use flott_proto::paths;
use flott_proto::state_handle::{StateFile, SubtaskDelta, SubtaskState};

use super::checkpoint::{
    CheckpointKind, CheckpointStore, CompletedCheckpoint, CompletionError, RestorePoint,
};
use super::graph_object::GraphObject;
use super::history::{History, What};
use super::settings::JobSettings;

/// Failures that a job remembers, for the failure-rate restart strategy.
pub const FAILURES_REMEMBERED_MAX: usize = 64;

/// Results of savepoint requests that a job remembers, so that a client that asks again is answered alike.
pub const SAVEPOINT_RESULTS_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobStatus {
    Created,
    Running,
    Restarting,
    Cancelling,
    Failing,
    Finished,
    Canceled,
    Failed,
}

impl JobStatus {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Created, "CREATED"),
        (Self::Running, "RUNNING"),
        (Self::Restarting, "RESTARTING"),
        (Self::Cancelling, "CANCELLING"),
        (Self::Failing, "FAILING"),
        (Self::Finished, "FINISHED"),
        (Self::Canceled, "CANCELED"),
        (Self::Failed, "FAILED"),
    ];

    /// Ended for good: no job that has ended ever runs again.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Finished | Self::Canceled | Self::Failed)
    }

    /// Its tasks are being ended for good.
    pub fn is_ending(self) -> bool {
        matches!(self, Self::Cancelling | Self::Failing)
    }

    /// The status of that name, as Flink spells it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, text)| *text == name)
            .map(|(status, _)| *status)
    }

    /// As Flink spells it.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(status, _)| *status == self)
            .map_or("", |(_, text)| text)
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a subtask of the present attempt runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub task_manager: TaskManagerId,
    /// Where other TaskManagers connect for data, host:port.
    pub data_address: String,
}

/// A savepoint that a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavepointRequest {
    pub request_id: String,
    pub target_directory: String,
    /// End the job once the savepoint is complete.
    pub stop: bool,
    pub drain: bool,
    pub requested_at_ms: i64,
}

/// What became of a savepoint request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavepointResult {
    pub request_id: String,
    /// Where the savepoint lies, or why there is none.
    pub outcome: Result<String, String>,
}

/// What the restart strategy needs to know of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureHistory {
    pub last_cause: String,
    /// When the last failure was noticed.
    pub detected_at_ms: i64,
    /// Newest last, at most [`FAILURES_REMEMBERED_MAX`].
    pub times_ms: Vec<i64>,
    /// 0 before the first failure.
    pub backoff_ms: u64,
}

/// State that an attempt of a job can begin from.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// From what it was submitted with.
    Submitted(&'a RestorePoint),
    Checkpoint(&'a CompletedCheckpoint),
}

impl<'a> Start<'a> {
    /// [`CheckpointId::NONE`] of what the job was submitted with.
    pub fn id(self) -> CheckpointId {
        match self {
            Self::Submitted(_) => CheckpointId::NONE,
            Self::Checkpoint(checkpoint) => checkpoint.id,
        }
    }

    /// What its files' paths are relative to.
    pub fn root(self, job: &'a Job) -> &'a str {
        match self {
            Self::Submitted(point) => &point.root,
            Self::Checkpoint(checkpoint) => checkpoint.root(&job.settings.checkpoint_dir),
        }
    }

    /// The state of each subtask that it has any of.
    pub fn subtasks(self) -> &'a BTreeMap<SubtaskId, SubtaskState> {
        match self {
            Self::Submitted(point) => &point.subtasks,
            Self::Checkpoint(checkpoint) => &checkpoint.subtasks,
        }
    }

    /// Subtasks that the vertex had then; 0 if it is not of it.
    pub fn parallelism(self, vertex: &VertexId) -> u32 {
        match self {
            Self::Submitted(point) => point.parallelism.get(vertex.as_str()).copied().unwrap_or(0),
            Self::Checkpoint(checkpoint) => checkpoint.parallelism(vertex),
        }
    }

    /// Its file of that path.
    pub fn file(self, path: &str) -> Option<&'a StateFile> {
        let mut states = self.subtasks().values();
        states.find_map(|state| state.files.get(path))
    }
}

impl fmt::Display for Start<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submitted(_) => f.write_str("the state that it was submitted to start from"),
            Self::Checkpoint(checkpoint) => write!(f, "checkpoint {}", checkpoint.id),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub id: JobId,
    pub namespace: Namespace,
    /// An outline if [`Self::graph_object`] has the rest.
    pub graph: Arc<JobGraph>,
    pub graph_object: Option<GraphObject>,
    pub configuration: Arc<BTreeMap<String, String>>,
    /// What the configuration says; parsed once, for it is looked at after every event.
    pub settings: Arc<JobSettings>,
    pub status: JobStatus,
    /// The present attempt; [`AttemptNumber::NONE`] before the first.
    pub attempt: AttemptNumber,
    /// The epoch in which the present attempt began: part of the names that its tasks write.
    pub attempt_epoch: LeaderEpoch,
    pub attempt_started_at_ms: i64,
    pub restarts: u32,
    /// When the next attempt may start, while restarting.
    pub restart_at_ms: i64,
    pub submitted_at_ms: i64,
    pub ended_at_ms: i64,
    pub failures: FailureHistory,
    /// Of the present attempt.
    pub assignments: BTreeMap<SubtaskId, Assignment>,
    pub checkpoints: CheckpointStore,
    /// The directory of the savepoint that it was submitted to start from, if that is the job's own now.
    pub claimed: Option<String>,
    /// What the job was submitted to start from.
    pub restore: Option<Arc<RestorePoint>>,
    pub savepoint_request: Option<SavepointRequest>,
    pub savepoint_results: Vec<SavepointResult>,
    /// The checkpoint whose sink commits end the job.
    pub final_checkpoint: CheckpointId,
    /// The parallelism that it was asked to run at, until the checkpoint at which it changes.
    pub rescale_to: Option<u32>,
    pub events: History,
    /// It has ended, and nobody wants its result any more.
    pub dismissed: bool,
}

impl Job {
    /// Every subtask of the graph, in order.
    pub fn subtasks(&self) -> impl Iterator<Item = SubtaskId> {
        self.graph.vertices.iter().flat_map(|vertex| {
            (0..vertex.parallelism).map(|subtask| SubtaskId {
                vertex: vertex.uid.clone(),
                subtask,
            })
        })
    }

    /// What it can begin from: the savepoint that it is being stopped with, for what that covers is to become visible; the
    /// newest completed checkpoint, older ones, what it was submitted with. The next attempt takes the first; without any it
    /// begins empty.
    pub fn starts(&self) -> impl Iterator<Item = Start<'_>> {
        let savepoints = self.checkpoints.savepoints.iter();
        let stopping = savepoints.filter(|savepoint| savepoint.id == self.final_checkpoint);
        let retained = self.checkpoints.retained.iter().rev();
        let submitted = self.restore.as_deref().map(Start::Submitted);
        stopping
            .chain(retained)
            .map(|checkpoint| Start::Checkpoint(checkpoint))
            .chain(submitted)
    }

    /// Of the vertices that name no other: what a change of parallelism changes.
    pub fn parallelism(&self) -> u32 {
        let configured = self.configuration.get(options::PARALLELISM.key());
        let configured = configured.and_then(|text| text.parse().ok());
        let has = |parallelism: &u32| {
            let mut vertices = self.graph.vertices.iter();
            vertices.any(|vertex| vertex.parallelism == *parallelism)
        };
        configured
            .filter(has)
            .unwrap_or_else(|| self.graph.slots_needed())
    }

    /// Slots that it takes, or will take once it has changed its parallelism.
    pub fn slots_needed(&self) -> u32 {
        self.graph
            .slots_needed()
            .max(self.rescale_to.unwrap_or_default())
    }

    /// Its graph at another parallelism, if the vertices allow that.
    pub fn rescaled(&self, to: u32) -> Result<JobGraph, Malformed> {
        self.graph.rescaled(self.parallelism(), to)
    }

    /// Its attempts have the parallelism that it was asked for from now on.
    pub fn rescale(&mut self, now_ms: i64) -> Result<(), Malformed> {
        let Some(to) = self.rescale_to.take() else {
            return Ok(());
        };
        let from = self.parallelism();
        self.graph = Arc::new(self.rescaled(to)?);
        Arc::make_mut(&mut self.configuration)
            .insert(options::PARALLELISM.key().to_owned(), to.to_string());
        let what = format!("from parallelism {from} to {to}");
        self.events
            .record(now_ms, self.attempt, What::Rescaled, &what);
        Ok(())
    }

    /// The whole state of every subtask that acks of the pending checkpoint describe.
    pub fn resolve(
        &self,
        acks: impl IntoIterator<Item = (CheckpointId, SubtaskDelta)>,
    ) -> Result<BTreeMap<SubtaskId, SubtaskState>, CompletionError> {
        let expected = self.subtasks().collect();
        let wrote = |subtask: &SubtaskId, path: &str| self.is_written_by(subtask, path);
        self.checkpoints.resolve(acks, &expected, wrote)
    }

    /// Whether the present attempt of the subtask wrote this state file, in the directory of a savepoint if one is pending.
    /// Which cluster it lies in is not looked at: epoch and attempt tell a job's lineages apart.
    fn is_written_by(&self, subtask: &SubtaskId, path: &str) -> bool {
        let pending = self.checkpoints.pending.as_ref();
        if pending.is_some_and(|pending| pending.kind == CheckpointKind::Savepoint) {
            let writer = paths::writer("", self.attempt_epoch, self.attempt, subtask);
            let written = path
                .rsplit_once('/')
                .and_then(|(_, number)| number.parse().ok());
            return written.is_some_and(|number| paths::savepoint_file(&writer, number) == path);
        }
        let of_job = format!("/{}/{}", self.namespace, self.id);
        let directory = paths::job_of(path).filter(|directory| directory.ends_with(&of_job));
        directory.is_some_and(|directory| {
            let writer = paths::writer(directory, self.attempt_epoch, self.attempt, subtask);
            path.strip_prefix(&writer)
                .is_some_and(|file| file.starts_with('/'))
        })
    }

    /// Whether the present attempt's tasks are meant to run.
    pub fn is_running(&self) -> bool {
        self.status == JobStatus::Running
    }

    /// Nothing follows that checkpoint: once its output is visible, the job is over.
    pub fn ends_with(&mut self, checkpoint: CheckpointId) {
        self.final_checkpoint = checkpoint;
        self.rescale_to = None;
    }

    /// The job comes into `status`, for `cause` if that needs one.
    pub fn become_status(&mut self, now_ms: i64, status: JobStatus, cause: &str) {
        self.status = status;
        if status != JobStatus::Running {
            self.rescale_to = None;
        }
        self.events
            .record(now_ms, self.attempt, What::Became(status), cause);
    }

    /// Whether nothing in object storage is this job's any more, but for savepoints, which are the user's.
    pub fn is_clean(&self) -> bool {
        let store = &self.checkpoints;
        store.retained.is_empty()
            && store.retired.is_empty()
            && store.retired_directories.is_empty()
    }

    /// Whether the next attempt of this job would read the savepoint in that directory.
    pub fn would_start_from(&self, directory: &str) -> bool {
        let mut starts = self.starts();
        !self.status.is_terminal()
            && starts
                .next()
                .is_some_and(|start| start.root(self) == directory)
    }

    /// Files of other jobs that an attempt of this one may still have to read: it was submitted to start from them and has no
    /// checkpoint of its own yet.
    pub fn borrowed_files(&self) -> impl Iterator<Item = &str> {
        let borrows = !self.status.is_terminal() && self.checkpoints.latest().is_none();
        let point = self.restore.as_deref().filter(|_| borrows);
        let subtasks = point.into_iter().flat_map(|point| point.subtasks.values());
        subtasks.flat_map(|state| state.files.keys().map(String::as_str))
    }

    /// Whether an attempt of this job may still have to read files of that one.
    pub fn may_restore_from(&self, other: &JobId) -> bool {
        let of_other = |path: &str| path.split('/').nth(2) == Some(other.as_str());
        self.borrowed_files().any(of_other)
    }

    /// Records what became of the savepoint request, if there is one.
    pub fn answer_savepoint(&mut self, outcome: Result<String, String>) {
        let Some(request) = self.savepoint_request.take() else {
            return;
        };
        if self.savepoint_results.len() == SAVEPOINT_RESULTS_MAX {
            self.savepoint_results.remove(0);
        }
        self.savepoint_results.push(SavepointResult {
            request_id: request.request_id,
            outcome,
        });
    }

    /// Panics if the job contradicts itself.
    pub fn check(&self) {
        let subtasks = self.subtasks().count();
        // One that is not running may have those of an attempt with another parallelism.
        if self.is_running() {
            assert_eq!(
                self.assignments.len(),
                subtasks,
                "{}: every subtask of an attempt has a place",
                self.id
            );
        }
        assert_eq!(
            self.status.is_terminal(),
            self.ended_at_ms != 0,
            "{}: an ended job has an end",
            self.id
        );
        if self.status.is_terminal() {
            assert!(
                self.checkpoints.pending.is_none(),
                "{}: no checkpoint outlives its job",
                self.id
            );
            assert!(
                self.savepoint_request.is_none(),
                "{}: every savepoint request is answered",
                self.id
            );
        }
        assert!(
            self.rescale_to.is_none()
                || self.is_running() && self.final_checkpoint == CheckpointId::NONE,
            "{}: only an attempt that goes on is left for another parallelism",
            self.id
        );
        if self.final_checkpoint.is_some() {
            assert!(
                self.checkpoints.pending.is_none(),
                "{}: nothing follows the final checkpoint",
                self.id
            );
        }
        assert!(
            !self.dismissed || self.status.is_terminal(),
            "{}: only a job that has ended is dismissed",
            self.id
        );
        if let Some(claimed) = &self.claimed {
            let restore = self.restore.as_deref().map(|point| &point.root);
            assert_eq!(
                restore,
                Some(claimed),
                "{}: claims what it was submitted to start from",
                self.id
            );
            assert!(
                !self.status.is_terminal(),
                "{}: a job that has ended claims nothing",
                self.id
            );
        }
        self.events.check();
        self.checkpoints.check(&self.subtasks().collect());
    }
}
