//! Replicated state and observation as clients see them.

use flott_proto::ids::SubtaskId;
use flott_proto::wire::{self, TaskState};

use crate::core::checkpoint::{CheckpointKind, Summary};
use crate::core::{Job, JobStatus};
use crate::leader::Inspection;
use crate::raft::{MemberStatus, RaftNode};

/// A JobManager's view of the cluster; TaskManagers only if it leads.
pub(super) fn cluster(
    raft: &RaftNode,
    members: Vec<MemberStatus>,
    inspection: Option<&Inspection>,
) -> wire::ClusterStatusResponse {
    let leadership = raft.leadership().borrow().clone();
    let state = raft.state();
    let in_office = leadership
        .leader
        .as_ref()
        .is_some_and(|(id, _)| state.leader.as_ref().is_some_and(|l| l.node == *id));
    let task_managers = inspection.map(|inspection| {
        let connected = inspection
            .observed
            .task_managers
            .iter()
            .filter(|(_, tm)| tm.connection.is_some());
        let info = connected.map(|(id, tm)| wire::TaskManagerInfo {
            id: id.to_string(),
            address: tm.data_address.clone(),
            slots: tm.slots,
            slots_free: tm.slots.saturating_sub(state.slots_used(id)),
            pid: tm.pid,
        });
        info.collect()
    });
    wire::ClusterStatusResponse {
        cluster_id: raft
            .cluster_id()
            .map(|id| id.to_string())
            .unwrap_or_default(),
        leader: leadership.leader.as_ref().map_or(0, |(id, _)| id.0),
        leader_address: leadership
            .leader
            .map(|(_, address)| address)
            .unwrap_or_default(),
        epoch: if in_office { state.epoch.0 } else { 0 },
        term: leadership.term,
        feature_level: if raft.cluster_id().is_some() {
            state.feature_level
        } else {
            0
        },
        pending_change: raft.pending_change().unwrap_or_default(),
        tolerated_failures: raft.tolerated_failures(&members) as u32,
        members: members.into_iter().map(member).collect(),
        task_managers: task_managers.unwrap_or_default(),
        answered_by: raft.node_id().0,
        pristine: raft.cluster_id().is_none(),
    }
}

fn member(member: MemberStatus) -> wire::Member {
    let report = member.report.unwrap_or_default();
    wire::Member {
        id: member.id.0,
        address: member.address,
        role: member.role.as_str().to_owned(),
        last_log_index: member.last_log_index,
        applied_index: member.applied_index,
        voter: member.voter,
        lag: member.lag,
        health: member.health.as_str().to_owned(),
        incarnation: member.incarnation,
        snapshot_index: report.snapshot_index,
        snapshot_age_ms: report.snapshot_age_ms,
        disk_free_bytes: report.disk_free_bytes,
        disk_total_bytes: report.disk_total_bytes,
        feature_level_min: report.feature_level_min,
        feature_level_max: report.feature_level_max,
        version: report.version,
    }
}

pub(super) fn summary(job: &Job) -> wire::JobSummary {
    wire::JobSummary {
        id: job.id.to_string(),
        name: job.graph.name.clone(),
        namespace: job.namespace.to_string(),
        state: job.status.to_string(),
        attempt: job.attempt.0,
        restarts: job.restarts,
        submitted_at_ms: job.submitted_at_ms,
        ended_at_ms: job.ended_at_ms,
    }
}

pub(super) fn job(job: &Job, inspection: &Inspection) -> wire::JobDetails {
    let observed = &inspection.observed;
    let vertices = job.graph.vertices.iter().map(|vertex| {
        let task = |subtask: u32| {
            let id = SubtaskId {
                vertex: vertex.uid.clone(),
                subtask,
            };
            let view = observed.task(job, &id);
            wire::TaskDetails {
                subtask,
                task_manager: job
                    .assignments
                    .get(&id)
                    .map(|place| place.task_manager.to_string())
                    .unwrap_or_default(),
                state: task_state(job, view.map(|view| view.state)).to_owned(),
                attempt: job.attempt.0,
                counters: view.map(|view| view.counters),
            }
        };
        wire::VertexDetails {
            id: vertex.uid.to_string(),
            name: vertex.name.clone(),
            parallelism: vertex.parallelism,
            tasks: (0..vertex.parallelism).map(task).collect(),
        }
    });
    let running_at = observed
        .all_running_at_ms
        .get(&job.id)
        .filter(|(attempt, _)| *attempt == job.attempt);
    wire::JobDetails {
        summary: Some(summary(job)),
        vertices: vertices.collect(),
        status_text: inspection.note.clone().unwrap_or_default(),
        last_failure: job.failures.last_cause.clone(),
        configuration: (*job.configuration).clone(),
        graph: Some((&*job.graph).into()),
        failed_checkpoints: job.checkpoints.failed_count,
        completed_checkpoints: job.checkpoints.completed_count,
        attempt_times: Some(wire::AttemptTimes {
            failure_detected_at_ms: job.failures.detected_at_ms,
            started_at_ms: job.attempt_started_at_ms,
            all_running_at_ms: running_at.map_or(0, |(_, at_ms)| *at_ms),
        }),
        events: job.events.to_wire(),
    }
}

/// As Flink names a task's states.
fn task_state(job: &Job, seen: Option<TaskState>) -> &'static str {
    match seen {
        Some(TaskState::Deploying) => "DEPLOYING",
        Some(TaskState::Initializing) => "INITIALIZING",
        Some(TaskState::Running | TaskState::EndOfData) => "RUNNING",
        Some(TaskState::Finished) => "FINISHED",
        Some(TaskState::Canceled) => "CANCELED",
        Some(TaskState::Failed) => "FAILED",
        Some(TaskState::Unspecified) | None => match job.status {
            JobStatus::Finished => "FINISHED",
            JobStatus::Canceled => "CANCELED",
            JobStatus::Failed => "FAILED",
            JobStatus::Running => "UNKNOWN",
            JobStatus::Created
            | JobStatus::Restarting
            | JobStatus::Cancelling
            | JobStatus::Failing => "CREATED",
        },
    }
}

/// Newest first; the pending one, if there is one, at the top.
pub(super) fn checkpoints(job: &Job, now_ms: i64) -> Vec<wire::CheckpointInfo> {
    let pending = job
        .checkpoints
        .pending
        .as_ref()
        .map(|pending| wire::CheckpointInfo {
            id: pending.id.0,
            kind: wire_kind(pending.kind),
            status: "IN_PROGRESS".to_owned(),
            triggered_at_ms: pending.triggered_at_ms,
            duration_ms: (now_ms - pending.triggered_at_ms).max(0) as u64,
            ..Default::default()
        });
    let ended = |summary: &Summary| {
        let (status, path, failure) = match &summary.outcome {
            Err(failure) => ("FAILED", "", failure.as_str()),
            Ok(path) => match job.events.why_discarded(summary.id) {
                Some(cause) => ("UNUSABLE", path.as_str(), cause),
                None => ("COMPLETED", path.as_str(), ""),
            },
        };
        wire::CheckpointInfo {
            id: summary.id.0,
            kind: wire_kind(summary.kind),
            status: status.to_owned(),
            triggered_at_ms: summary.triggered_at_ms,
            duration_ms: summary.duration_ms,
            size_bytes: summary.size,
            uploaded_bytes: summary.uploaded_bytes,
            path: path.to_owned(),
            failure: failure.to_owned(),
            alignment: Some(summary.alignment.into()),
        }
    };
    pending
        .into_iter()
        .chain(job.checkpoints.history.iter().rev().map(ended))
        .collect()
}

fn wire_kind(kind: CheckpointKind) -> i32 {
    wire::CheckpointKind::from(kind).into()
}
