//! The replicated state as the records of a logical snapshot, and back.
//!
//! Keys: `cluster`, `job/<id>`, `kv/<namespace>/…` (see [`super::kv::records`]), `lineage/<index>`, `namespace/<name>` and
//! `retired/<node>`.
//! Values are protobuf, so that a later build reads them.
//!
//! [`checkpoints`]: the parts of a job's record that speak of checkpoints.

mod checkpoints;

use std::collections::BTreeMap;
use std::sync::Arc;

use flott_proto::Malformed;
use flott_proto::ids::{
    AttemptNumber, CheckpointId, JobId, LeaderEpoch, Namespace, NodeId, SubtaskId,
};
use flott_proto::state_handle::SubtaskState;
use flott_proto::wire;
use prost::Message;

use self::checkpoints::{
    completed_from_wire, completed_to_wire, pending_from_wire, pending_to_wire, retired_from_wire,
    retired_to_wire, summary_from_wire, summary_to_wire,
};
use super::checkpoint::{CheckpointStore, CompletedCheckpoint, RestorePoint};
use super::graph_object::{GraphObject, graph_from_wire};
use super::history::History;
use super::job::{Assignment, FailureHistory, Job, JobStatus, SavepointRequest, SavepointResult};
use super::kv;
use super::lineage;
use super::namespace::NamespaceState;
use super::retired;
use super::settings::JobSettings;
use super::state::{ActiveLeader, ClusterState, Record};

const CLUSTER_KEY: &str = "cluster";
const JOB_PREFIX: &str = "job/";
const LINEAGE_PREFIX: &str = "lineage/";
const NAMESPACE_PREFIX: &str = "namespace/";
const RETIRED_PREFIX: &str = "retired/";

impl ClusterState {
    /// The whole state, in ascending order of key.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        std::iter::once(self.cluster_record())
            .chain(self.jobs.iter().map(|(id, job)| job_record(id, job)))
            .chain(kv::records::of_all(&self.kv))
            .chain(self.lineage_records())
            .chain(
                self.namespaces
                    .iter()
                    .map(|(name, namespace)| namespace_record(name, namespace)),
            )
            .chain(self.retired_records())
    }

    /// What there is once.
    pub(super) fn cluster_record(&self) -> Record {
        let leader = self.leader.clone();
        let cluster = wire::ClusterRecord {
            feature_level: self.feature_level,
            epoch: self.epoch.0,
            leader_node_id: leader.as_ref().map_or(0, |leader| leader.node.0),
            leader_incarnation: leader
                .as_ref()
                .map(|leader| leader.incarnation.clone())
                .unwrap_or_default(),
            leader_address: leader.map(|leader| leader.address).unwrap_or_default(),
            log_time_ms: self.log_time_ms,
            revision: self.revision,
        };
        Record {
            key: CLUSTER_KEY.to_owned(),
            value: cluster.encode_to_vec(),
        }
    }

    pub(super) fn lineage_records(&self) -> impl Iterator<Item = Record> + '_ {
        self.lineage.iter().map(|(last_index, predecessor)| Record {
            // Padded, so that the order of the keys is that of the indexes.
            key: format!("{LINEAGE_PREFIX}{last_index:020}"),
            value: lineage::to_record(*last_index, predecessor).encode_to_vec(),
        })
    }

    pub(super) fn retired_records(&self) -> impl Iterator<Item = Record> + '_ {
        self.retired_members.iter().map(|(node, retired)| Record {
            // Padded, so that the order of the keys is that of the ids.
            key: format!("{RETIRED_PREFIX}{:020}", node.0),
            value: retired::to_record(*node, retired).encode_to_vec(),
        })
    }

    /// Inverse of [`Self::records`].
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Result<Self, Malformed> {
        let mut state = Self::default();
        let broken = |key: &str| {
            let key = key.to_owned();
            move |error: prost::DecodeError| {
                Malformed::new("snapshot record", format!("{key}: {error}"))
            }
        };
        let mut jobs = Vec::new();
        for Record { key, value } in records {
            if key == CLUSTER_KEY {
                let cluster =
                    wire::ClusterRecord::decode(value.as_slice()).map_err(broken(&key))?;
                state.feature_level = cluster.feature_level;
                state.epoch = LeaderEpoch(cluster.epoch);
                state.log_time_ms = cluster.log_time_ms;
                state.revision = cluster.revision;
                state.leader = (cluster.leader_node_id != 0).then_some(ActiveLeader {
                    node: NodeId(cluster.leader_node_id),
                    incarnation: cluster.leader_incarnation,
                    address: cluster.leader_address,
                });
            } else if key.starts_with(JOB_PREFIX) {
                let job = wire::JobRecord::decode(value.as_slice()).map_err(broken(&key))?;
                jobs.push(job_from_wire(job)?);
            } else if key.starts_with(kv::records::PREFIX) {
                kv::records::take(&mut state.kv, &key, &value)?;
            } else if key.starts_with(LINEAGE_PREFIX) {
                let record =
                    wire::PredecessorRecord::decode(value.as_slice()).map_err(broken(&key))?;
                let (last_index, predecessor) = lineage::from_record(record)?;
                state.lineage.insert(last_index, predecessor);
            } else if key.starts_with(NAMESPACE_PREFIX) {
                let record =
                    wire::NamespaceRecord::decode(value.as_slice()).map_err(broken(&key))?;
                let (name, namespace) = NamespaceState::from_record(record)?;
                state.namespaces.insert(name, Arc::new(namespace));
            } else if key.starts_with(RETIRED_PREFIX) {
                let record =
                    wire::RetiredMemberRecord::decode(value.as_slice()).map_err(broken(&key))?;
                let (node, retired) = retired::from_record(record)?;
                state.retired_members.insert(node, retired);
            } else {
                return Err(Malformed::new(
                    "snapshot record",
                    format!("unknown key {key:?}; upgrade this JobManager"),
                ));
            }
        }
        // Their namespaces come later in the order of the records.
        for job in jobs {
            if !state.namespaces.contains_key(&job.namespace) {
                return Err(Malformed::new(
                    "snapshot record",
                    format!(
                        "job {} is in namespace {}, which is missing",
                        job.id, job.namespace
                    ),
                ));
            }
            if state.jobs.contains_key(&job.id) {
                return Err(Malformed::new(
                    "snapshot record",
                    format!("job {} is there twice", job.id),
                ));
            }
            state.insert_job(job);
        }
        Ok(state)
    }
}

pub(super) fn job_record(id: &JobId, job: &Job) -> Record {
    Record {
        key: format!("{JOB_PREFIX}{id}"),
        value: job_to_wire(job).encode_to_vec(),
    }
}

pub(super) fn namespace_record(name: &Namespace, namespace: &NamespaceState) -> Record {
    Record {
        key: format!("{NAMESPACE_PREFIX}{name}"),
        value: namespace.to_record(name).encode_to_vec(),
    }
}

fn job_to_wire(job: &Job) -> wire::JobRecord {
    let store = &job.checkpoints;
    let completed = |checkpoints: &[Arc<CompletedCheckpoint>]| {
        checkpoints
            .iter()
            .map(|checkpoint| completed_to_wire(checkpoint))
            .collect::<Vec<_>>()
    };
    wire::JobRecord {
        id: job.id.to_string(),
        namespace: job.namespace.to_string(),
        graph: Some((&*job.graph).into()),
        graph_object: job.graph_object.as_ref().map(GraphObject::to_wire),
        configuration: (*job.configuration).clone(),
        state: job.status.name().to_owned(),
        attempt: job.attempt.0,
        attempt_epoch: job.attempt_epoch.0,
        attempt_started_at_ms: job.attempt_started_at_ms,
        restarts: job.restarts,
        restart_at_ms: job.restart_at_ms,
        submitted_at_ms: job.submitted_at_ms,
        ended_at_ms: job.ended_at_ms,
        last_failure: job.failures.last_cause.clone(),
        failure_detected_at_ms: job.failures.detected_at_ms,
        failure_times_ms: job.failures.times_ms.clone(),
        restart_backoff_ms: job.failures.backoff_ms,
        assignments: assignments_to_wire(&job.assignments),
        last_checkpoint_id: store.last_id.0,
        pending: store.pending.as_ref().map(pending_to_wire),
        checkpoints: completed(&store.retained),
        savepoints: completed(&store.savepoints),
        retired: store.retired.iter().cloned().collect(),
        retired_directories: store
            .retired_directories
            .iter()
            .map(retired_to_wire)
            .collect(),
        history: store.history.iter().map(summary_to_wire).collect(),
        completed_checkpoints: store.completed_count,
        failed_checkpoints: store.failed_count,
        failed_checkpoints_in_a_row: store.failed_in_a_row,
        restore: job
            .restore
            .as_deref()
            .map(|point| wire::CheckpointMetadata {
                version: 1,
                vertices: vertices_to_wire(&point.subtasks, |uid| {
                    point.parallelism.get(uid).copied().unwrap_or(0)
                }),
                ..Default::default()
            }),
        restore_root: job
            .restore
            .as_deref()
            .map(|point| point.root.clone())
            .unwrap_or_default(),
        savepoint_request: job.savepoint_request.as_ref().map(|request| {
            wire::SavepointRequestRecord {
                request_id: request.request_id.clone(),
                target_directory: request.target_directory.clone(),
                stop: request.stop,
                drain: request.drain,
                requested_at_ms: request.requested_at_ms,
            }
        }),
        savepoint_results: job
            .savepoint_results
            .iter()
            .map(|result| wire::SavepointResult {
                request_id: result.request_id.clone(),
                path: result.outcome.clone().unwrap_or_default(),
                failure: result.outcome.clone().err().unwrap_or_default(),
            })
            .collect(),
        final_checkpoint_id: job.final_checkpoint.0,
        events: job.events.to_wire(),
        dismissed: job.dismissed,
        claimed_directory: job.claimed.clone().unwrap_or_default(),
        rescale_to: job.rescale_to.unwrap_or_default(),
    }
}

fn job_from_wire(record: wire::JobRecord) -> Result<Job, Malformed> {
    let (graph, graph_object) = graph_from_wire(record.graph, record.graph_object.as_ref())?;
    let status = JobStatus::from_name(&record.state);
    let completed = |records: Vec<wire::CompletedCheckpointRecord>| {
        records
            .into_iter()
            .map(|record| completed_from_wire(record).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()
    };
    let restore = record
        .restore
        .map(|metadata| restore_from_wire(metadata, record.restore_root))
        .transpose()?;
    let mut job = Job {
        id: record.id.parse::<JobId>()?,
        namespace: record.namespace.parse()?,
        graph: Arc::new(graph),
        graph_object,
        settings: Arc::new(JobSettings::of(&record.configuration)),
        configuration: Arc::new(record.configuration),
        status: status
            .ok_or_else(|| Malformed::new("job record", format!("state {:?}", record.state)))?,
        attempt: AttemptNumber(record.attempt),
        attempt_epoch: LeaderEpoch(record.attempt_epoch),
        attempt_started_at_ms: record.attempt_started_at_ms,
        restarts: record.restarts,
        restart_at_ms: record.restart_at_ms,
        submitted_at_ms: record.submitted_at_ms,
        ended_at_ms: record.ended_at_ms,
        failures: FailureHistory {
            last_cause: record.last_failure,
            detected_at_ms: record.failure_detected_at_ms,
            times_ms: record.failure_times_ms,
            backoff_ms: record.restart_backoff_ms,
        },
        assignments: assignments_from_wire(&record.assignments)?,
        checkpoints: CheckpointStore {
            last_id: CheckpointId(record.last_checkpoint_id),
            pending: record.pending.map(pending_from_wire).transpose()?,
            retained: completed(record.checkpoints)?,
            // Counted below.
            retained_bytes: 0,
            savepoints: completed(record.savepoints)?,
            retired: record.retired.into_iter().collect(),
            retired_directories: record
                .retired_directories
                .into_iter()
                .map(retired_from_wire)
                .collect(),
            history: record
                .history
                .into_iter()
                .map(summary_from_wire)
                .collect::<Result<_, _>>()?,
            completed_count: record.completed_checkpoints,
            failed_count: record.failed_checkpoints,
            failed_in_a_row: record.failed_checkpoints_in_a_row,
        },
        claimed: Some(record.claimed_directory).filter(|claimed| !claimed.is_empty()),
        restore: restore.map(Arc::new),
        savepoint_request: record.savepoint_request.map(|request| SavepointRequest {
            request_id: request.request_id,
            target_directory: request.target_directory,
            stop: request.stop,
            drain: request.drain,
            requested_at_ms: request.requested_at_ms,
        }),
        savepoint_results: record
            .savepoint_results
            .into_iter()
            .map(|result| SavepointResult {
                request_id: result.request_id,
                outcome: if result.failure.is_empty() {
                    Ok(result.path)
                } else {
                    Err(result.failure)
                },
            })
            .collect(),
        final_checkpoint: CheckpointId(record.final_checkpoint_id),
        events: History::from_wire(record.events)?,
        dismissed: record.dismissed,
        rescale_to: Some(record.rescale_to).filter(|to| *to != 0),
    };
    job.checkpoints.recount();
    Ok(job)
}

/// Assignments as StartAttempt and a snapshot carry them.
pub(crate) fn assignments_to_wire(
    assignments: &BTreeMap<SubtaskId, Assignment>,
) -> Vec<wire::Assignment> {
    let one = |(subtask, assignment): (&SubtaskId, &Assignment)| wire::Assignment {
        vertex: subtask.vertex.to_string(),
        subtask: subtask.subtask,
        task_manager_id: assignment.task_manager.to_string(),
        data_address: assignment.data_address.clone(),
    };
    assignments.iter().map(one).collect()
}

/// Inverse of [`assignments_to_wire`].
pub(crate) fn assignments_from_wire(
    assignments: &[wire::Assignment],
) -> Result<BTreeMap<SubtaskId, Assignment>, Malformed> {
    let one = |assignment: &wire::Assignment| {
        let subtask = SubtaskId {
            vertex: assignment.vertex.parse()?,
            subtask: assignment.subtask,
        };
        let place = Assignment {
            task_manager: assignment.task_manager_id.parse()?,
            data_address: assignment.data_address.clone(),
        };
        Ok((subtask, place))
    };
    assignments.iter().map(one).collect()
}

/// Subtask states grouped by vertex, as metadata and snapshots carry them.
pub(crate) fn vertices_to_wire(
    subtasks: &BTreeMap<SubtaskId, SubtaskState>,
    parallelism: impl Fn(&str) -> u32,
) -> Vec<wire::VertexState> {
    let mut vertices: BTreeMap<&str, wire::VertexState> = BTreeMap::new();
    for (subtask, state) in subtasks {
        let uid = subtask.vertex.as_str();
        let vertex = vertices.entry(uid).or_insert_with(|| wire::VertexState {
            uid: uid.to_owned(),
            parallelism: parallelism(uid),
            max_parallelism: 0,
            subtasks: Vec::new(),
        });
        vertex.subtasks.push(state.to_wire(subtask.subtask));
    }
    vertices.into_values().collect()
}

pub(crate) fn subtasks_from_wire(
    vertices: Vec<wire::VertexState>,
) -> Result<BTreeMap<SubtaskId, SubtaskState>, Malformed> {
    let mut subtasks = BTreeMap::new();
    for vertex in vertices {
        for state in vertex.subtasks {
            let subtask = SubtaskId {
                vertex: vertex.uid.parse()?,
                subtask: state.subtask,
            };
            subtasks.insert(subtask, state.try_into()?);
        }
    }
    Ok(subtasks)
}

/// The state that a checkpoint's metadata describes, its files relative to `root`.
pub(crate) fn restore_from_wire(
    metadata: wire::CheckpointMetadata,
    root: String,
) -> Result<RestorePoint, Malformed> {
    let parallelism = metadata
        .vertices
        .iter()
        .map(|vertex| (vertex.uid.clone(), vertex.parallelism))
        .collect();
    Ok(RestorePoint {
        root,
        parallelism,
        subtasks: subtasks_from_wire(metadata.vertices)?,
    })
}
