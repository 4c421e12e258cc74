//! Objects in a job's directory that nobody needs and nobody ever will. Pure.
//!
//! They are left by attempts that died between an upload and its acknowledgement, and by checkpoints that came to nothing.
//! Age proves nothing: an upload may take hours. What proves it is the replicated state: a closed writer's files are in no
//! further acknowledgement, so one of them that is needed by nobody now stays so.
//!
//! - A writer is closed if its attempt is over: the job has begun a later one, or has ended.
//! - A `_metadata` object is written by a leader; its checkpoint is over if it is neither pending nor to come.
//! - Anything else in the directory is not ours to judge.

use std::collections::BTreeSet;
use std::fmt;

use flott_proto::ids::{AttemptNumber, CheckpointId, ClusterId};
use flott_proto::paths;

use super::job::Job;
use super::state::ClusterState;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    pub path: String,
    pub bytes: u64,
    pub why: Why,
}

/// Why nobody will ever need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    ClosedWriter(AttemptNumber),
    CheckpointIsOver(CheckpointId),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedWriter(attempt) => write!(
                f,
                "attempt {attempt} is over, and nothing that is kept needs the file"
            ),
            Self::CheckpointIsOver(checkpoint) => write!(
                f,
                "checkpoint {checkpoint} did not complete or is not kept any more"
            ),
        }
    }
}

/// The orphans among `objects`: paths and sizes of what lies in the directory of a job of this cluster.
pub fn orphans(
    state: &ClusterState,
    cluster: &ClusterId,
    job: &Job,
    objects: Vec<(String, u64)>,
) -> Vec<Orphan> {
    let needed = needed(state);
    let directory = paths::job(cluster, &job.namespace, &job.id);
    let orphan = |(path, bytes): (String, u64)| {
        if needed.contains(path.as_str()) {
            return None;
        }
        let why = why(job, &directory, &path)?;
        Some(Orphan { path, bytes, why })
    };
    objects.into_iter().filter_map(orphan).collect()
}

fn why(job: &Job, directory: &str, path: &str) -> Option<Why> {
    if let Some(attempt) = paths::attempt_of_state_file(directory, path) {
        let is_closed =
            attempt < job.attempt || (job.status.is_terminal() && attempt == job.attempt);
        return is_closed.then_some(Why::ClosedWriter(attempt));
    }
    let checkpoint = paths::checkpoint_of_metadata(directory, path)?;
    let pending = job.checkpoints.pending.as_ref().map(|pending| pending.id);
    let is_over = checkpoint <= job.checkpoints.last_id && pending != Some(checkpoint);
    is_over.then_some(Why::CheckpointIsOver(checkpoint))
}

/// All that any job needs, or that is deleted in due course anyway.
fn needed(state: &ClusterState) -> BTreeSet<&str> {
    let mut needed = BTreeSet::new();
    for job in state.jobs.values() {
        let store = &job.checkpoints;
        for checkpoint in store.retained.iter().chain(&store.savepoints) {
            needed.extend(checkpoint.paths());
            needed.extend(checkpoint.metadata_object.as_deref());
        }
        needed.extend(store.retired.iter().map(String::as_str));
        let submitted = job.restore.iter().flat_map(|point| point.subtasks.values());
        needed.extend(submitted.flat_map(|state| state.files.keys().map(String::as_str)));
    }
    needed
}

#[cfg(test)]
mod tests;
