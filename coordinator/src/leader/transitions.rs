//! The log of what has been decided: one line for each transition of a job or of its checkpoints.

use tracing::{info, warn};

use super::session::Session;
use crate::core::ClusterState;
use crate::core::history::What;
use crate::metrics;

impl Session {
    /// One INFO line for each transition of a job or of its checkpoints.
    pub(super) fn log_transitions(&self, state: &ClusterState) {
        if state.jobs.ptr_eq(&self.last_state.jobs) {
            return;
        }
        metrics::active_jobs(state.active_jobs().count());
        for (id, job) in &state.jobs {
            let before = self.last_state.jobs.get(id);
            if before.map(|before| (before.status, before.attempt))
                != Some((job.status, job.attempt))
            {
                info!(job = %id, name = job.graph.name, namespace = %job.namespace, status = %job.status,
                    attempt = %job.attempt, cause = job.failures.last_cause, "job changed");
            }
            let (event, event_before) = (
                job.events.iter().next_back(),
                before.and_then(|b| b.events.iter().next_back()),
            );
            if let Some(event) = event.filter(|_| event != event_before)
                && let What::CheckpointDiscarded(checkpoint) = event.what
            {
                metrics::checkpoint_discarded();
                warn!(job = %id, %checkpoint, cause = event.cause, "checkpoint is unusable");
            }
            let (last, last_before) = (
                job.checkpoints.history.last(),
                before.and_then(|b| b.checkpoints.history.last()),
            );
            if let Some(summary) = last.filter(|_| last != last_before) {
                match &summary.outcome {
                    Ok(path) => {
                        info!(job = %id, checkpoint = %summary.id, duration_ms = summary.duration_ms,
                        bytes = summary.size, uploaded = summary.uploaded_bytes,
                        alignment_ms = summary.alignment.duration.as_millis() as u64, unaligned = summary.alignment.unaligned,
                        in_flight_bytes = summary.alignment.in_flight_bytes, path, "checkpoint completed")
                    }
                    Err(reason) => {
                        info!(job = %id, checkpoint = %summary.id, reason, "checkpoint aborted")
                    }
                }
            }
        }
    }
}
