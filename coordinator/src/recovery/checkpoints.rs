//! Which checkpoints of jobs that have not ended are whole, and which of them is the newest.
//!
//! What a backup knows of checkpoints is old: the group went on, completed others, and deleted those that the backup names.
//! And a survivor may lack the last entries, in which a checkpoint was completed whose results are visible by now. The
//! `_metadata` objects of checkpoints tell: each was written when all tasks had acknowledged, and holds all that a restore
//! needs. The newest of them is where a job has to go on: from an older one it would make visible again what is visible.
//!
//! Not every `_metadata` object is of a checkpoint that completed. Going on from one that did not is right as well, for
//! nothing after it can have become visible; but those whose end the state knows, because it gave them up, are left out: a
//! later attempt has cleaned up after them.

use std::collections::BTreeMap;
use std::sync::Arc;

use flott_node::storage::{self, ObjectStorage};
use flott_proto::ids::{CheckpointId, ClusterId, JobId};
use flott_proto::{paths, wire};

use crate::checkpoint_files::{self, FilesError};
use crate::core::checkpoint::{CheckpointKind, CompletedCheckpoint};
use crate::core::lineage::Surveyed;
use crate::core::records::subtasks_from_wire;
use crate::core::{ClusterState, Job};
use crate::leader::chain;
use crate::raft::RaftError;

/// Objects in the directories of a job, by path, with their sizes.
type Objects = BTreeMap<String, u64>;

/// Looks through the checkpoints of all jobs that have not ended.
pub(super) async fn survey(
    cluster: &ClusterId,
    state: &ClusterState,
) -> Result<BTreeMap<JobId, Surveyed>, RaftError> {
    let mut surveyed = BTreeMap::new();
    let mut clusters: Vec<ClusterId> = Vec::new();
    clusters.extend(state.predecessors().filter_map(|name| name.parse().ok()));
    clusters.push(cluster.clone());
    for job in state.active_jobs() {
        let found = of_job(&clusters, job).await.map_err(|error| {
            RaftError::Refused(format!(
                "the checkpoints of job {} in {} cannot be looked at: {}; run this where they can be read, or say \
                 --trust-recorded-checkpoints to go on from what is recorded, which may be old",
                job.id,
                job.settings.checkpoint_dir,
                chain(&error)
            ))
        });
        surveyed.insert(job.id.clone(), found?);
    }
    Ok(surveyed)
}

async fn of_job(clusters: &[ClusterId], job: &Job) -> Result<Surveyed, FilesError> {
    let root = &job.settings.checkpoint_dir;
    let storage = match ObjectStorage::open_existing(root) {
        Ok(storage) => Some(storage),
        Err(storage::Error::NotFound { .. }) => None,
        Err(_) if root.is_empty() => None,
        Err(error) => return Err(error.into()),
    };
    let mut objects = Objects::new();
    if let Some(storage) = &storage {
        for cluster in clusters {
            let directory = paths::job(cluster, &job.namespace, &job.id);
            objects.extend(storage.list(&directory).await?);
        }
    }
    let mut candidates: BTreeMap<CheckpointId, Candidate> = BTreeMap::new();
    for recorded in &job.checkpoints.retained {
        candidates.insert(recorded.id, Candidate::Recorded(Arc::clone(recorded)));
    }
    if let Some(cluster) = clusters.last() {
        let directory = paths::job(cluster, &job.namespace, &job.id);
        for path in objects.keys() {
            if let Some(id) = paths::checkpoint_of_metadata(&directory, path)
                && is_unknown(job, id)
            {
                let path = path.clone();
                candidates.entry(id).or_insert(Candidate::Found(path));
            }
        }
    }
    let mut usable = Vec::new();
    let mut faults = Vec::new();
    for (id, candidate) in candidates.into_iter().rev() {
        if usable.len() == job.settings.retained_max {
            break;
        }
        let checked = match (candidate, &storage) {
            (Candidate::Recorded(recorded), _) => {
                check(&recorded, job, &objects).map(|()| recorded)
            }
            (Candidate::Found(path), Some(storage)) => read(storage, &path, clusters, job, id)
                .await?
                .and_then(|found| {
                    check(&found, job, &objects)?;
                    Ok(Arc::new(found))
                }),
            (Candidate::Found(_), None) => continue,
        };
        match checked {
            Ok(whole) => usable.push(whole),
            Err(fault) => faults.push(format!("checkpoint {id} {fault}")),
        }
    }
    if usable.is_empty() && !faults.is_empty() {
        return Ok(Surveyed::Lost(format!(
            "none of its checkpoints in {root} is whole: {}",
            faults.join(", ")
        )));
    }
    usable.reverse();
    Ok(Surveyed::Usable(usable))
}

enum Candidate {
    /// In the state.
    Recorded(Arc<CompletedCheckpoint>),
    /// By its metadata object only.
    Found(String),
}

/// Whether the state does not know what became of that checkpoint.
fn is_unknown(job: &Job, id: CheckpointId) -> bool {
    let pending = job.checkpoints.pending.as_ref();
    id > job.checkpoints.last_id || pending.is_some_and(|pending| pending.id == id)
}

/// The checkpoint as its metadata describes it, or what is wrong with that.
async fn read(
    storage: &ObjectStorage,
    path: &str,
    clusters: &[ClusterId],
    job: &Job,
    id: CheckpointId,
) -> Result<Result<CompletedCheckpoint, String>, FilesError> {
    let bytes = match storage.get(path).await {
        Ok(bytes) => bytes,
        Err(storage::Error::NotFound { .. }) => return Ok(Err("is gone".to_owned())),
        Err(error) => return Err(error.into()),
    };
    Ok(checkpoint_files::decode(&bytes).and_then(|metadata| {
        let directory = path.trim_end_matches(paths::METADATA).trim_end_matches('/');
        let external_path = storage.url(directory);
        completed(metadata, clusters, job, id, path, external_path)
    }))
}

fn completed(
    metadata: wire::CheckpointMetadata,
    clusters: &[ClusterId],
    job: &Job,
    id: CheckpointId,
    path: &str,
    external_path: String,
) -> Result<CompletedCheckpoint, String> {
    let of_this = clusters
        .iter()
        .any(|one| one.as_str() == metadata.cluster_id)
        && metadata.job_id == job.id.as_str()
        && metadata.checkpoint_id == id.0;
    if !of_this {
        return Err(format!(
            "has metadata of checkpoint {} of job {}",
            metadata.checkpoint_id, metadata.job_id
        ));
    }
    let kind: CheckpointKind = metadata
        .kind()
        .try_into()
        .map_err(|error: flott_proto::Malformed| error.to_string())?;
    let mut vertices = metadata.vertices.iter();
    let whole = |vertex: &&wire::VertexState| vertex.subtasks.len() == vertex.parallelism as usize;
    if let Some(part) = vertices.find(|vertex| !whole(vertex)) {
        return Err(format!(
            "has the state of {} of {} subtasks of {}",
            part.subtasks.len(),
            part.parallelism,
            part.uid
        ));
    }
    let subtasks =
        subtasks_from_wire(metadata.vertices).map_err(|error| format!("is malformed: {error}"))?;
    Ok(CompletedCheckpoint {
        id,
        kind,
        triggered_at_ms: metadata.triggered_at_ms,
        completed_at_ms: metadata.triggered_at_ms,
        uploaded_bytes: 0,
        external_path,
        metadata_object: Some(path.to_owned()),
        subtasks,
    })
}

/// Whether a job can begin from the checkpoint; else what it lacks.
fn check(checkpoint: &CompletedCheckpoint, job: &Job, objects: &Objects) -> Result<(), String> {
    // The job may have changed its parallelism since the backup.
    let mut vertices = job.graph.vertices.iter();
    if let Some(missing) = vertices.find(|vertex| checkpoint.parallelism(&vertex.uid) == 0) {
        return Err(format!("has no state of {}", missing.uid));
    }
    let files = checkpoint
        .subtasks
        .values()
        .flat_map(|state| state.files.values());
    for file in files {
        match objects.get(&file.path) {
            Some(size) if *size == file.size => {}
            Some(size) => {
                return Err(format!(
                    "needs {} with {} bytes, which has {size}",
                    file.path, file.size
                ));
            }
            None => return Err(format!("needs {}, which is gone", file.path)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
