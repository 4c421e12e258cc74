//! Savepoints that are a job's own because it claimed them.
//!
//! ```text
//!            SubmitJob                 as many checkpoints of its own as it retains; FINISHED, CANCELED
//!  a user's ───────────► a job's own ────────────────────────────────────────────────────────────────► retired ──► deleted
//!                             └────── FAILED, or another cluster goes on ──► a user's
//! ```
//!
//! A retired savepoint is nobody's start any more: who was submitted with it forgets it, and the job that it was taken of
//! does not list it.

use std::sync::Arc;

use flott_proto::ids::{JobId, Namespace};

use super::Refused;
use crate::core::state::ClusterState;

/// Refuses a start from a savepoint that is being deleted, and a second claim.
pub(super) fn check(
    state: &ClusterState,
    is_claim: bool,
    directory: &str,
    namespace: &Namespace,
) -> Result<(), Refused> {
    for job in state.jobs.values() {
        let name = if job.namespace == *namespace {
            format!("job {}", job.id)
        } else {
            "a job of another namespace".to_owned()
        };
        if job.checkpoints.retired_directories.contains_key(directory) {
            return Err(Refused::new(format!(
                "the savepoint {directory} is being deleted: {name} had claimed it"
            )));
        }
        if is_claim && job.claimed.as_deref() == Some(directory) {
            return Err(Refused::new(format!(
                "{name} has claimed the savepoint {directory} and will delete it, and only one job can; start this one \
                 with NO_CLAIM, or from another savepoint"
            )));
        }
    }
    Ok(())
}

/// The job needs what it has claimed no more: that is to be deleted.
pub(super) fn use_up(state: &mut ClusterState, id: &JobId) {
    let now = state.log_time_ms;
    let Some(job) = state.jobs.get_mut(id) else {
        return;
    };
    if job.claimed.is_none() {
        return;
    }
    let job = Arc::make_mut(job);
    let Some(directory) = job.claimed.take() else {
        return;
    };
    job.restore = None;
    let lists = |job: &Arc<crate::core::Job>| {
        let mut savepoints = job.checkpoints.savepoints.iter();
        savepoints.any(|savepoint| savepoint.external_path == directory)
    };
    let listing: Vec<JobId> = state
        .jobs
        .iter()
        .filter(|(_, job)| lists(job) && !job.would_start_from(&directory))
        .map(|(id, _)| id.clone())
        .collect();
    for id in listing {
        if let Some(job) = state.jobs.get_mut(&id) {
            let savepoints = &mut Arc::make_mut(job).checkpoints.savepoints;
            savepoints.retain(|savepoint| savepoint.external_path != directory);
        }
    }
    if let Some(job) = state.jobs.get_mut(id) {
        let retired = &mut Arc::make_mut(job).checkpoints.retired_directories;
        retired.insert(directory, now);
    }
}
