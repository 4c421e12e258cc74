//! Starting an attempt of a job's tasks, and recording that one failed.

use std::collections::BTreeSet;

use flott_proto::ids::{AttemptNumber, JobId, SubtaskId};
use flott_proto::wire;

use super::Refused;
use crate::core::job::{FAILURES_REMEMBERED_MAX, JobStatus};
use crate::core::namespace::Usage;
use crate::core::records::assignments_from_wire;
use crate::core::state::ClusterState;

pub(super) fn start(state: &mut ClusterState, start: &wire::StartAttempt) -> Result<(), Refused> {
    let (now, epoch) = (state.log_time_ms, state.epoch);
    let lacking = lacking_slots(state, &start.job_id)?;
    let job = state.job_mut(&start.job_id)?;
    if !matches!(job.status, JobStatus::Created | JobStatus::Restarting) {
        return Err(Refused::new(format!(
            "a {} job starts no attempt",
            job.status
        )));
    }
    let attempt = AttemptNumber(start.attempt);
    if attempt != job.attempt.next() {
        return Err(Refused::new(format!(
            "attempt {attempt} does not follow {}",
            job.attempt
        )));
    }
    let assignments = assignments_from_wire(&start.assignments)?;
    let subtasks: BTreeSet<SubtaskId> = job.subtasks().collect();
    if !subtasks.iter().eq(assignments.keys()) {
        return Err(Refused::new(
            "the assignments are not those of the job's subtasks",
        ));
    }
    if let Some(lacking) = lacking {
        return Err(Refused::new(lacking));
    }
    job.checkpoints.abort(now, "its attempt is over", false);
    job.restarts += u32::from(job.attempt.is_some());
    job.attempt = attempt;
    job.attempt_epoch = epoch;
    job.attempt_started_at_ms = now;
    job.restart_at_ms = 0;
    job.assignments = assignments;
    job.become_status(now, JobStatus::Running, "");
    Ok(())
}

/// Why the quota does not let the job start, if so. A job that was started before has its slots already.
fn lacking_slots(state: &ClusterState, id: &str) -> Result<Option<String>, Refused> {
    let id: JobId = id.parse()?;
    let lacking = state.jobs.get(&id).and_then(|job| {
        let more = job.graph.slots_needed() - Usage::of(job).slots;
        let namespace = state.namespaces.get(&job.namespace)?;
        namespace.lacks_slots(more, 0)
    });
    Ok(lacking)
}

/// The attempt is over. Its place in the restart strategy's history was decided by the proposer.
pub(super) fn record_failure(
    state: &mut ClusterState,
    failure: &wire::RecordFailure,
) -> Result<(), Refused> {
    let now = state.log_time_ms;
    let job = state.job_at_attempt(&failure.job_id, failure.attempt)?;
    if !matches!(
        job.status,
        JobStatus::Running | JobStatus::Created | JobStatus::Restarting
    ) {
        return Err(Refused::new(format!("the job is {} already", job.status)));
    }
    if job.status == JobStatus::Restarting && failure.restart_at_ms != 0 {
        return Err(Refused::new(
            "the failure of this attempt is recorded already",
        ));
    }
    job.checkpoints.abort(now, "the attempt failed", false);
    job.checkpoints.failed_in_a_row = 0;
    // A savepoint is not retried by itself: its client is told.
    job.answer_savepoint(Err(format!("the job failed: {}", failure.cause)));
    if job.failures.times_ms.len() == FAILURES_REMEMBERED_MAX {
        job.failures.times_ms.remove(0);
    }
    job.failures.times_ms.push(failure.detected_at_ms);
    job.failures.detected_at_ms = failure.detected_at_ms;
    job.failures.backoff_ms = failure.restart_backoff_ms;
    job.failures.last_cause.clone_from(&failure.cause);
    // It begins anew in any case.
    job.rescale(now)?;
    job.restart_at_ms = failure.restart_at_ms;
    let status = if failure.restart_at_ms == 0 {
        JobStatus::Failing
    } else {
        JobStatus::Restarting
    };
    job.become_status(now, status, &failure.cause);
    Ok(())
}
