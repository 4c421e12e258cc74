//! A job goes on at another parallelism.
//!
//! ```text
//! RescaleJob ──► asked for ── CompleteCheckpoint, or the attempt fails ──► RESTARTING at the new parallelism
//!                    └─────── AbortCheckpoint that counts ──► as it was
//! ```
//!
//! The next attempt begins from the newest checkpoint, whose state its tasks divide among themselves; what the attempt
//! before did since is done again. So a job changes its parallelism where it begins anew, and nothing else has to know.

use flott_proto::ids::Namespace;
use flott_proto::wire;

use super::Refused;
use crate::core::state::ClusterState;

/// The last request counts; that of the present parallelism takes an earlier one back. The slots that it needs more are
/// counted against the namespace's quota from now on.
pub(super) fn rescale(state: &mut ClusterState, rescale: &wire::RescaleJob) -> Result<(), Refused> {
    let namespace: Namespace = rescale.namespace.parse()?;
    let (now, to) = (state.log_time_ms, rescale.parallelism);
    let quota = state.known_namespace(&namespace)?.clone();
    let job = state.job_in_mut(&rescale.namespace, &rescale.job_id)?;
    if job.status.is_terminal() || job.status.is_ending() || job.final_checkpoint.is_some() {
        return Err(Refused::new(format!(
            "job {} is {} and about to end, or has ended; it keeps its parallelism",
            job.id, job.status
        )));
    }
    let graph = job.rescaled(to)?;
    if graph == *job.graph {
        job.rescale_to = None;
        return Ok(());
    }
    // One that has never run is counted when it starts.
    let more = graph.slots_needed().saturating_sub(job.slots_needed());
    if let Some(lacking) = quota.lacks_slots(more, 0).filter(|_| job.attempt.is_some()) {
        return Err(Refused::new(lacking));
    }
    job.rescale_to = Some(to);
    if !job.is_running() {
        job.rescale(now)?;
    }
    Ok(())
}
