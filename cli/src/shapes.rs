//! What `-o json` prints. These shapes are a promise to scripts: fields may be added, never renamed or dropped.
//!
//! Pure: from what came over the wire to what is printed. Times are ISO 8601, UTC, milliseconds. [`cluster`]: the group;
//! [`recovery`]: what is done to one that does not run; [`checkpoints`]: files of checkpoints.

mod checkpoints;
mod cluster;
mod recovery;
mod state;

pub(crate) mod namespace;

use flott_proto::wire;
use flott_proto::wire::CheckpointKind;
use jiff::Timestamp;
use serde::Serialize;

pub(crate) use checkpoints::{Orphan, Orphans, Verified};
pub(crate) use cluster::{
    Added, ClusterStatus, Member, MemberList, MembershipChange, Transferred, Upgraded,
};
pub(crate) use recovery::{Backup, FoundedGroup, SurvivorList};
pub(crate) use state::SavedState;

#[derive(Debug, Serialize)]
pub(crate) struct JobList {
    pub(crate) jobs: Vec<Job>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) state: String,
    pub(crate) attempt: u32,
    pub(crate) restarts: u32,
    pub(crate) submitted_at: Option<String>,
    pub(crate) ended_at: Option<String>,
}

impl From<wire::JobSummary> for Job {
    fn from(job: wire::JobSummary) -> Self {
        Self {
            id: job.id,
            name: job.name,
            namespace: job.namespace,
            state: job.state,
            attempt: job.attempt,
            restarts: job.restarts,
            submitted_at: time(job.submitted_at_ms),
            ended_at: time(job.ended_at_ms),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct JobInfo {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) state: String,
    pub(crate) attempt: u32,
    pub(crate) restarts: u32,
    pub(crate) vertices: Vec<Vertex>,
    /// Oldest first.
    pub(crate) events: Vec<Event>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Event {
    pub(crate) at: Option<String>,
    pub(crate) attempt: u32,
    /// A state of the job, or `CHECKPOINT_FAILED`, `CHECKPOINT_DISCARDED`.
    pub(crate) event: String,
    /// None if it concerns none.
    pub(crate) checkpoint: Option<u64>,
    pub(crate) cause: Option<String>,
}

impl From<wire::JobEvent> for Event {
    fn from(event: wire::JobEvent) -> Self {
        Self {
            at: time(event.at_ms),
            attempt: event.attempt,
            event: event.event,
            checkpoint: (event.checkpoint_id != 0).then_some(event.checkpoint_id),
            cause: (!event.cause.is_empty()).then_some(event.cause),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Vertex {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) parallelism: u32,
    pub(crate) tasks: Vec<Task>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Task {
    pub(crate) subtask: u32,
    /// None while the task waits for a slot.
    pub(crate) taskmanager: Option<String>,
    pub(crate) state: String,
    pub(crate) attempt: u32,
}

impl From<wire::JobDetails> for JobInfo {
    fn from(details: wire::JobDetails) -> Self {
        let summary = details.summary.unwrap_or_default();
        let task = |task: wire::TaskDetails| Task {
            subtask: task.subtask,
            taskmanager: (!task.task_manager.is_empty()).then_some(task.task_manager),
            state: task.state,
            attempt: task.attempt,
        };
        let vertex = |vertex: wire::VertexDetails| Vertex {
            id: vertex.id,
            name: vertex.name,
            parallelism: vertex.parallelism,
            tasks: vertex.tasks.into_iter().map(task).collect(),
        };
        Self {
            id: summary.id,
            name: summary.name,
            namespace: summary.namespace,
            state: summary.state,
            attempt: summary.attempt,
            restarts: summary.restarts,
            vertices: details.vertices.into_iter().map(vertex).collect(),
            events: details.events.into_iter().map(Event::from).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct CheckpointList {
    pub(crate) checkpoints: Vec<Checkpoint>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Checkpoint {
    pub(crate) id: u64,
    pub(crate) kind: &'static str,
    pub(crate) status: String,
    pub(crate) triggered_at: Option<String>,
    pub(crate) duration_ms: u64,
    pub(crate) size_bytes: u64,
    pub(crate) uploaded_bytes: u64,
    /// The longest of a task.
    pub(crate) alignment_ms: u64,
    /// Barriers overtook rows that waited.
    pub(crate) unaligned: bool,
    /// Of those rows, which are stored with it.
    pub(crate) in_flight_bytes: u64,
    /// None until it is complete.
    pub(crate) path: Option<String>,
    /// Why there is none, or why it cannot be restored.
    pub(crate) failure: Option<String>,
}

impl From<Vec<wire::CheckpointInfo>> for CheckpointList {
    /// Newest first, whatever the order was.
    fn from(mut checkpoints: Vec<wire::CheckpointInfo>) -> Self {
        checkpoints.sort_by_key(|checkpoint| std::cmp::Reverse(checkpoint.id));
        Self {
            checkpoints: checkpoints.into_iter().map(Checkpoint::from).collect(),
        }
    }
}

impl From<wire::CheckpointInfo> for Checkpoint {
    fn from(checkpoint: wire::CheckpointInfo) -> Self {
        let alignment = checkpoint.alignment.unwrap_or_default();
        Self {
            alignment_ms: alignment.duration_us / 1000,
            unaligned: alignment.unaligned,
            in_flight_bytes: alignment.in_flight_bytes,
            id: checkpoint.id,
            kind: kind_name(checkpoint.kind()),
            status: checkpoint.status,
            triggered_at: time(checkpoint.triggered_at_ms),
            duration_ms: checkpoint.duration_ms,
            size_bytes: checkpoint.size_bytes,
            uploaded_bytes: checkpoint.uploaded_bytes,
            path: (!checkpoint.path.is_empty()).then_some(checkpoint.path),
            failure: (!checkpoint.failure.is_empty()).then_some(checkpoint.failure),
        }
    }
}

/// The last checkpoint of a job is one like any other to its readers.
pub(crate) fn kind_name(kind: CheckpointKind) -> &'static str {
    match kind {
        CheckpointKind::Savepoint => "SAVEPOINT",
        CheckpointKind::Checkpoint | CheckpointKind::Final | CheckpointKind::Unspecified => {
            "CHECKPOINT"
        }
    }
}

/// What `run -d` and `cancel` print.
#[derive(Debug, Serialize)]
pub(crate) struct JobRef {
    pub(crate) id: String,
}

/// What `run` prints about the end of a job.
#[derive(Debug, Serialize)]
pub(crate) struct JobFate {
    pub(crate) id: String,
    pub(crate) state: String,
    /// Why it failed.
    pub(crate) cause: Option<String>,
}

/// What `run --dry-run` prints.
#[derive(Debug, Serialize)]
pub(crate) struct DryRun {
    pub(crate) accepted: bool,
    /// Why it would be refused.
    pub(crate) refusals: Vec<String>,
    /// What would become of the state.
    pub(crate) notes: Vec<String>,
}

/// What `savepoint` and `stop` print.
#[derive(Debug, Serialize)]
pub(crate) struct SavepointRef {
    pub(crate) path: String,
}

/// What `rescale` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Rescaled {
    pub(crate) id: String,
    pub(crate) parallelism: u32,
    pub(crate) attempt: u32,
}

/// What `cluster init` prints.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterRef {
    pub(crate) cluster_id: String,
}

/// Milliseconds since the epoch as `2013-01-01T05:00:00.000Z`; 0 is never.
pub(crate) fn time(millis: i64) -> Option<String> {
    let timestamp = Timestamp::from_millisecond(millis)
        .ok()
        .filter(|_| millis != 0)?;
    Some(timestamp.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn info_has_the_promised_shape() {
        let task = |subtask, task_manager: &str, state: &str| wire::TaskDetails {
            subtask,
            task_manager: task_manager.into(),
            state: state.into(),
            attempt: 2,
            counters: None,
        };
        let details = wire::JobDetails {
            summary: Some(wire::JobSummary {
                id: "0a".into(),
                name: "n".into(),
                namespace: "default".into(),
                state: "RUNNING".into(),
                attempt: 2,
                restarts: 1,
                submitted_at_ms: 1,
                ended_at_ms: 0,
            }),
            vertices: vec![wire::VertexDetails {
                id: "v".into(),
                name: "window".into(),
                parallelism: 2,
                tasks: vec![task(0, "tm-1", "RUNNING"), task(1, "", "CREATED")],
            }],
            events: vec![
                wire::JobEvent {
                    at_ms: 1_000,
                    event: "RUNNING".into(),
                    attempt: 2,
                    ..Default::default()
                },
                wire::JobEvent {
                    at_ms: 2_000,
                    event: "CHECKPOINT_FAILED".into(),
                    attempt: 2,
                    checkpoint_id: 7,
                    cause: "expired".into(),
                },
            ],
            ..wire::JobDetails::default()
        };
        let expected = json!({
            "id": "0a", "name": "n", "namespace": "default", "state": "RUNNING", "attempt": 2, "restarts": 1,
            "vertices": [{"id": "v", "name": "window", "parallelism": 2, "tasks": [
                {"subtask": 0, "taskmanager": "tm-1", "state": "RUNNING", "attempt": 2},
                {"subtask": 1, "taskmanager": null, "state": "CREATED", "attempt": 2},
            ]}],
            "events": [
                {"at": "1970-01-01T00:00:01.000Z", "attempt": 2, "event": "RUNNING", "checkpoint": null, "cause": null},
                {"at": "1970-01-01T00:00:02.000Z", "attempt": 2, "event": "CHECKPOINT_FAILED", "checkpoint": 7,
                 "cause": "expired"},
            ],
        });
        assert_eq!(
            serde_json::to_value(JobInfo::from(details)).unwrap(),
            expected
        );
    }

    #[test]
    fn checkpoints_have_the_promised_shape_newest_first() {
        let checkpoint = |id, kind: CheckpointKind, path: &str| wire::CheckpointInfo {
            id,
            kind: kind.into(),
            status: "COMPLETED".into(),
            triggered_at_ms: 1_357_016_400_123,
            duration_ms: 40,
            size_bytes: 1000,
            uploaded_bytes: 10,
            path: path.into(),
            failure: String::new(),
            alignment: Some(wire::Alignment {
                duration_us: 12_345,
                unaligned: id == 1,
                in_flight_bytes: 700,
            }),
        };
        let list = CheckpointList::from(vec![
            checkpoint(1, CheckpointKind::Checkpoint, "/c/chk-1"),
            checkpoint(3, CheckpointKind::Final, ""),
            checkpoint(2, CheckpointKind::Savepoint, "/s/2"),
        ]);
        let json = serde_json::to_value(list).unwrap();
        assert_eq!(
            json["checkpoints"][2],
            json!({
                "id": 1, "kind": "CHECKPOINT", "status": "COMPLETED", "triggered_at": "2013-01-01T05:00:00.123Z",
                "duration_ms": 40, "size_bytes": 1000, "uploaded_bytes": 10, "alignment_ms": 12, "unaligned": true,
                "in_flight_bytes": 700, "path": "/c/chk-1", "failure": null,
            })
        );
        let kinds: Vec<_> = (0..3)
            .map(|i| {
                (
                    &json["checkpoints"][i]["id"],
                    &json["checkpoints"][i]["kind"],
                )
            })
            .collect();
        assert_eq!(
            kinds,
            [
                (&json!(3), &json!("CHECKPOINT")),
                (&json!(2), &json!("SAVEPOINT")),
                (&json!(1), &json!("CHECKPOINT"))
            ]
        );
    }

    #[test]
    fn a_time_that_is_not_yet_is_null() {
        assert_eq!(time(0), None);
        assert_eq!(time(1_000).as_deref(), Some("1970-01-01T00:00:01.000Z"));
        assert_eq!(time(i64::MAX), None);
    }
}
