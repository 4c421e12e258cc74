//! Beginning, completing and giving up checkpoints; savepoint requests; forgetting deleted files.

use flott_proto::ids::{CheckpointId, JobId};
use flott_proto::state_handle::{Alignment, SubtaskDelta};
use flott_proto::wire;

use super::{Refused, claim};
use crate::core::checkpoint::{CheckpointKind, CompletedCheckpoint, PendingRecord};
use crate::core::history::What;
use crate::core::job::{Job, JobStatus, SavepointRequest};
use crate::core::namespace::{Quota, Usage, is_within};
use crate::core::state::ClusterState;

pub(super) fn begin(
    state: &mut ClusterState,
    begin: &wire::BeginCheckpoint,
) -> Result<(), Refused> {
    let now = state.log_time_ms;
    let job = state.job_at_attempt(&begin.job_id, begin.attempt)?;
    let (id, base) = (
        CheckpointId(begin.checkpoint_id),
        CheckpointId(begin.base_checkpoint_id),
    );
    let kind = CheckpointKind::try_from(begin.kind())?;
    if !job.is_running() || job.final_checkpoint.is_some() {
        return Err(Refused::new("the job takes no checkpoints now"));
    }
    if let Some(pending) = &job.checkpoints.pending {
        return Err(Refused::new(format!(
            "checkpoint {} is pending",
            pending.id
        )));
    }
    if id <= job.checkpoints.last_id {
        return Err(Refused::new(format!(
            "checkpoint {id} is not above {}",
            job.checkpoints.last_id
        )));
    }
    if base.is_some()
        && (kind == CheckpointKind::Savepoint || job.checkpoints.retained_by_id(base).is_none())
    {
        return Err(Refused::new(format!(
            "checkpoint {base} cannot be the base"
        )));
    }
    if kind == CheckpointKind::Savepoint && job.savepoint_request.is_none() {
        return Err(Refused::new("nobody asked for a savepoint"));
    }
    if begin.savepoint_directory.is_empty() == (kind == CheckpointKind::Savepoint) {
        return Err(Refused::new(
            "a savepoint has a directory of its own, and nothing else has",
        ));
    }
    job.checkpoints.last_id = id;
    job.checkpoints.pending = Some(PendingRecord {
        id,
        kind,
        attempt: job.attempt,
        triggered_at_ms: now,
        base,
        savepoint_directory: begin.savepoint_directory.clone(),
    });
    Ok(())
}

pub(super) fn complete(
    state: &mut ClusterState,
    complete: &wire::CompleteCheckpoint,
) -> Result<(), Refused> {
    let now = state.log_time_ms;
    let allowance = allowance(state, &complete.job_id);
    let job = state.job_at_attempt(&complete.job_id, complete.attempt)?;
    let id = CheckpointId(complete.checkpoint_id);
    let pending = job
        .checkpoints
        .pending
        .clone()
        .filter(|pending| pending.id == id && pending.attempt == job.attempt);
    let pending = pending.ok_or_else(|| Refused::new(format!("checkpoint {id} is not pending")))?;
    let mut deltas: Vec<(CheckpointId, SubtaskDelta)> = Vec::with_capacity(complete.subtasks.len());
    for snapshot in &complete.subtasks {
        let delta = snapshot
            .state
            .clone()
            .ok_or_else(|| Refused::new("an acknowledgement without state"))?;
        deltas.push((CheckpointId(snapshot.base_checkpoint_id), delta.try_into()?));
    }
    // Each is the word of a task.
    let uploaded = deltas.iter().map(|(_, delta)| delta.uploaded_bytes);
    let uploaded_bytes = uploaded.fold(0, u64::saturating_add);
    let alignments = deltas.iter().map(|(_, delta)| delta.alignment);
    let alignment = alignments.fold(Alignment::default(), Alignment::and);
    let subtasks = job
        .resolve(deltas)
        .map_err(|error| Refused::new(error.to_string()))?;
    let retained_max = job.settings.retained_max;
    let completed = CompletedCheckpoint {
        id,
        kind: pending.kind,
        triggered_at_ms: pending.triggered_at_ms,
        completed_at_ms: now,
        uploaded_bytes,
        external_path: complete.external_path.clone(),
        metadata_object: Some(complete.metadata_object.clone()).filter(|object| !object.is_empty()),
        subtasks,
    };
    if let Some((quota, used)) = allowance {
        check_quota(job, &completed, quota, used)?;
    }
    job.checkpoints.complete(completed, alignment, retained_max);
    let stands_alone = job.checkpoints.retained.len() >= retained_max;
    match pending.kind {
        CheckpointKind::Checkpoint => {
            if job.rescale_to.is_some() {
                job.rescale(now)?;
                job.restart_at_ms = now;
                job.become_status(now, JobStatus::Restarting, "to run at another parallelism");
            }
        }
        CheckpointKind::Final => job.ends_with(id),
        CheckpointKind::Savepoint => {
            if job
                .savepoint_request
                .as_ref()
                .is_some_and(|request| request.stop)
            {
                job.ends_with(id);
            }
            job.answer_savepoint(Ok(complete.external_path.clone()));
        }
    }
    if stands_alone {
        let id = job.id.clone();
        claim::use_up(state, &id);
    }
    Ok(())
}

/// Quota and use of the job's namespace.
fn allowance(state: &ClusterState, job: &str) -> Option<(Quota, Usage)> {
    let job = state.jobs.get(&job.parse::<JobId>().ok()?)?;
    let namespace = state.namespaces.get(&job.namespace)?;
    Some((namespace.quota, namespace.used))
}

/// Refuses a checkpoint that would bring the files of the namespace's retained checkpoints above its quota. What is
/// retained stays.
fn check_quota(
    job: &Job,
    completed: &CompletedCheckpoint,
    quota: Quota,
    used: Usage,
) -> Result<(), Refused> {
    let limit = quota.checkpoint_bytes;
    if limit == 0 {
        return Ok(());
    }
    let others = used.checkpoint_bytes - job.checkpoints.retained_bytes;
    let own = job
        .checkpoints
        .bytes_with(completed, job.settings.retained_max);
    let after = others.saturating_add(own);
    if is_within(limit, used.checkpoint_bytes, after) {
        return Ok(());
    }
    Err(Refused::new(format!(
        "the quota of namespace {} is {limit} bytes of retained checkpoints, and with this one of {own} bytes there \
         would be {after}; raise it with `flott namespace update`",
        job.namespace
    )))
}

pub(super) fn abort(
    state: &mut ClusterState,
    abort: &wire::AbortCheckpoint,
) -> Result<(), Refused> {
    let now = state.log_time_ms;
    let job = state.job_mut(&abort.job_id)?;
    let id = CheckpointId(abort.checkpoint_id);
    let Some(pending) = job
        .checkpoints
        .pending
        .as_ref()
        .filter(|pending| pending.id == id)
    else {
        return Err(Refused::new(format!("checkpoint {id} is not pending")));
    };
    let was_savepoint = pending.kind == CheckpointKind::Savepoint;
    if abort.counts_as_failure {
        let what = What::CheckpointFailed(id);
        job.events.record(now, job.attempt, what, &abort.reason);
        // Who asked for another parallelism is told, and may ask again.
        job.rescale_to = None;
    }
    job.checkpoints
        .abort(now, &abort.reason, abort.counts_as_failure);
    if was_savepoint {
        job.answer_savepoint(Err(abort.reason.clone()));
    }
    Ok(())
}

pub(super) fn discard(
    state: &mut ClusterState,
    discard: &wire::DiscardCheckpoint,
) -> Result<(), Refused> {
    let now = state.log_time_ms;
    let job = state.job_mut(&discard.job_id)?;
    let id = CheckpointId(discard.checkpoint_id);
    if job
        .checkpoints
        .pending
        .as_ref()
        .is_some_and(|pending| pending.base == id)
    {
        job.checkpoints.abort(now, "its base is damaged", true);
    }
    if job.checkpoints.discard(id) {
        let what = What::CheckpointDiscarded(id);
        job.events.record(now, job.attempt, what, &discard.reason);
        Ok(())
    } else {
        Err(Refused::new(format!("checkpoint {id} is not retained")))
    }
}

pub(super) fn request_savepoint(
    state: &mut ClusterState,
    request: &wire::RequestSavepoint,
) -> Result<(), Refused> {
    let now = state.log_time_ms;
    let job = state.job_in_mut(&request.namespace, &request.job_id)?;
    if job
        .savepoint_results
        .iter()
        .any(|result| result.request_id == request.request_id)
    {
        return Ok(());
    }
    if let Some(present) = &job.savepoint_request {
        return if present.request_id == request.request_id {
            Ok(())
        } else {
            Err(Refused::new(
                "another savepoint of this job is under way; try again when it is done",
            ))
        };
    }
    if !job.is_running() || job.final_checkpoint.is_some() {
        // Whoever repeats a stop whose answer was lost needs it.
        let mut taken = job.savepoint_results.iter().rev();
        let last = taken.find_map(|result| result.outcome.as_ref().ok());
        let last = last.map_or(String::new(), |path| {
            format!("; the last that it took is {path}")
        });
        return Err(Refused::new(format!(
            "a job that is {} takes no savepoint{last}",
            job.status
        )));
    }
    job.savepoint_request = Some(SavepointRequest {
        request_id: request.request_id.clone(),
        target_directory: request.target_directory.clone(),
        stop: request.stop,
        drain: request.drain,
        requested_at_ms: now,
    });
    Ok(())
}

pub(super) fn forget_files(
    state: &mut ClusterState,
    forget: &wire::ForgetFiles,
) -> Result<(), Refused> {
    let job = state.job_mut(&forget.job_id)?;
    for path in &forget.paths {
        job.checkpoints.retired.remove(path);
    }
    for directory in &forget.directories {
        job.checkpoints.retired_directories.remove(directory);
    }
    Ok(())
}
