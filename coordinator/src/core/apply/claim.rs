//! Savepoints that are a job's own because it claimed them.
//!
//! ```text
//!            SubmitJob                 as many checkpoints of its own as it retains; FINISHED, CANCELED
//!  a user's ───────────► a job's own ────────────────────────────────────────────────────────────────► retired ──► deleted
//!                             └────── FAILED, or another cluster goes on ──► a user's
//! ```
//!
//! From a retired savepoint nobody is started any more; who was started from it before, and has nothing else to go on from,
//! delays the deletion.

use std::sync::Arc;

use flott_proto::ids::{JobId, Namespace};

use super::Refused;
use crate::core::Job;
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
                "the savepoint {directory} is being deleted: {name} had claimed it, or has given it up"
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
    let Some(job) = state.jobs.get_mut(id).filter(|job| job.claimed.is_some()) else {
        return;
    };
    let job = Arc::make_mut(job);
    let Some(directory) = job.claimed.take() else {
        return;
    };
    job.restore = None;
    let retired = &mut job.checkpoints.retired_directories;
    retired.insert(directory.clone(), now);
    no_longer_list(state, &directory);
}

/// The job that took the savepoint has it no more, unless it is about to end with it.
fn no_longer_list(state: &mut ClusterState, directory: &str) {
    let lists = |job: &Job| {
        let mut savepoints = job.checkpoints.savepoints.iter();
        savepoints.any(|savepoint| savepoint.external_path == directory)
    };
    let listing: Vec<JobId> = state
        .jobs
        .values()
        .filter(|job| lists(job) && !job.would_start_from(directory))
        .map(|job| job.id.clone())
        .collect();
    for id in listing {
        if let Some(job) = state.jobs.get_mut(&id) {
            let savepoints = &mut Arc::make_mut(job).checkpoints.savepoints;
            savepoints.retain(|savepoint| savepoint.external_path != directory);
        }
    }
}
