//! What a member says of itself for a debug bundle.
//!
//! Must stay true: nothing that a user of jobs or keys gave. No graphs, SQL, keys, values, paths or texts of failures,
//! which may quote rows; settings with their secrets masked. Ids, states, counts and sizes are enough to see what went
//! wrong, and may be sent to strangers.

use flott_node::config::Configuration;
use flott_node::telemetry;
use flott_proto::wire;

use crate::core::Job;
use crate::raft::RaftNode;

/// Entries of the log that are described, whatever is asked for.
const LOG_ENTRIES_MAX: u32 = 10_000;

/// Everything but the status.
pub(super) async fn report(
    raft: &RaftNode,
    configuration: &Configuration,
    now_ms: i64,
    log_entries_max: u32,
) -> wire::DebugReportResponse {
    let state = raft.state();
    wire::DebugReportResponse {
        node: raft.node_id().0,
        incarnation: raft.incarnation().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now_ms,
        configuration: configuration.effective_masked(),
        metrics: telemetry::metrics().render(),
        raft: raft.describe(),
        log: raft.log_tail(log_entries_max.min(LOG_ENTRIES_MAX)).await,
        snapshots: raft.snapshot_files().await,
        jobs: state.jobs.values().map(|job| describe(job)).collect(),
        status: None,
    }
}

fn describe(job: &Job) -> wire::DebugJob {
    let checkpoints = &job.checkpoints;
    wire::DebugJob {
        id: job.id.to_string(),
        namespace: job.namespace.to_string(),
        state: job.status.to_string(),
        attempt: job.attempt.0,
        restarts: job.restarts,
        submitted_at_ms: job.submitted_at_ms,
        ended_at_ms: job.ended_at_ms,
        subtasks: job.assignments.len() as u32,
        completed_checkpoints: checkpoints.completed_count,
        failed_checkpoints: checkpoints.failed_count,
        last_checkpoint_id: checkpoints.last_id.0,
        retained_checkpoints: checkpoints.retained.len() as u32,
        retired_files: checkpoints.retired.len() as u32,
    }
}
