//! The coordinator's metric names, and the only place that has them.

use metrics::{counter, gauge, histogram};

/// 1 on the JobManager in office, else 0.
pub(crate) fn is_leader(leads: bool) {
    gauge!("flott_coordinator_is_leader").set(if leads { 1.0 } else { 0.0 });
}

/// Registered TaskManagers, as the leader sees them.
pub(crate) fn task_managers(registered: usize) {
    gauge!("flott_coordinator_task_managers").set(registered as f64);
}

/// Jobs that have not ended.
pub(crate) fn active_jobs(active: usize) {
    gauge!("flott_coordinator_active_jobs").set(active as f64);
}

/// Decisions that this leader replicated.
pub(crate) fn decision(applied: bool) {
    counter!("flott_coordinator_decisions_total", "outcome" => if applied { "applied" } else { "refused" }).increment(1);
}

/// A checkpoint's metadata is written.
pub(crate) fn checkpoint_metadata_seconds(seconds: f64) {
    histogram!("flott_coordinator_checkpoint_metadata_seconds").record(seconds);
}

/// Objects that were retired and are deleted.
pub(crate) fn files_deleted(count: usize) {
    counter!("flott_coordinator_files_deleted_total").increment(count as u64);
}

/// A checkpoint turned out to be damaged, and the job went back behind it.
pub(crate) fn checkpoint_discarded() {
    counter!("flott_coordinator_checkpoints_discarded_total").increment(1);
}

/// Objects that nobody needs, found and deleted because an operator asked for it.
pub(crate) fn orphans_deleted(count: usize) {
    counter!("flott_coordinator_orphans_deleted_total").increment(count as u64);
}

/// Times that another member's state was found to differ from this one's.
pub(crate) fn state_differs() {
    counter!("flott_coordinator_state_differs_total").increment(1);
}
