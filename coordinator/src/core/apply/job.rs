//! Submitting, cancelling and ending a job.

use std::collections::BTreeMap;
use std::sync::Arc;

use flott_proto::ids::{AttemptNumber, CheckpointId, JobId, LeaderEpoch, Namespace};
use flott_proto::wire;

use super::{Refused, claim};
use crate::core::checkpoint::CheckpointStore;
use crate::core::graph_object::graph_from_wire;
use crate::core::history::History;
use crate::core::job::{FailureHistory, Job, JobStatus};
use crate::core::namespace::is_within;
use crate::core::records::restore_from_wire;
use crate::core::settings::JobSettings;
use crate::core::state::ClusterState;

/// A repeated submission of the same job is applied once and answered alike.
pub(super) fn submit(state: &mut ClusterState, submit: &wire::SubmitJob) -> Result<(), Refused> {
    let id: JobId = submit.job_id.parse()?;
    let namespace: Namespace = submit.namespace.parse()?;
    let (mut graph, graph_object) =
        graph_from_wire(submit.graph.clone(), submit.graph_object.as_ref())?;
    if let Some(present) = state.jobs.get(&id) {
        // It may have been rescaled since.
        graph.take_parallelism(&present.graph);
        let same = *present.graph == graph && present.graph_object == graph_object;
        return if same && present.namespace == namespace {
            Ok(())
        } else {
            Err(Refused::new(format!(
                "the id {id} is that of another job; submit with a new one"
            )))
        };
    }
    let (used, quota) = {
        let active = state.active_namespace(&namespace)?;
        (active.used, active.quota)
    };
    if !is_within(
        quota.jobs.into(),
        used.jobs.into(),
        u64::from(used.jobs) + 1,
    ) {
        return Err(Refused::new(format!(
            "namespace {namespace} may have {} jobs that have not ended and has {}; cancel one, or raise the quota \
             with `flott namespace update`",
            quota.jobs, used.jobs
        )));
    }
    if let Some(object) = &graph_object
        && state.is_graph_retired(&namespace, object)
    {
        return Err(Refused::new(
            "an object with the same job graph is being deleted; submit again in a moment",
        ));
    }
    let claimed = Some(submit.claimed_directory.clone()).filter(|claimed| !claimed.is_empty());
    if let Some(metadata) = &submit.restore {
        claim::check(state, claimed.is_some(), &submit.restore_root, &namespace)?;
        check_kept(state, metadata)?;
    }
    let restore = submit
        .restore
        .clone()
        .map(|metadata| restore_from_wire(metadata, submit.restore_root.clone()))
        .transpose()?;
    let mut job = Job {
        id,
        namespace,
        graph: Arc::new(graph),
        graph_object,
        configuration: Arc::new(submit.configuration.clone()),
        settings: Arc::new(JobSettings::of(&submit.configuration)),
        status: JobStatus::Created,
        attempt: AttemptNumber::NONE,
        attempt_epoch: LeaderEpoch::NONE,
        attempt_started_at_ms: 0,
        restarts: 0,
        restart_at_ms: 0,
        submitted_at_ms: state.log_time_ms,
        ended_at_ms: 0,
        failures: FailureHistory::default(),
        assignments: BTreeMap::new(),
        checkpoints: CheckpointStore::default(),
        claimed,
        restore: restore.map(Arc::new),
        savepoint_request: None,
        savepoint_results: Vec::new(),
        final_checkpoint: CheckpointId::NONE,
        rescale_to: None,
        events: History::default(),
        dismissed: false,
    };
    job.become_status(state.log_time_ms, JobStatus::Created, "");
    state.insert_job(job);
    Ok(())
}

/// Refuses to start from a checkpoint of a job of this cluster that did not complete or is not kept any more: its files may be
/// deleted at any moment. From here on those of the others are kept for the new job.
fn check_kept(state: &ClusterState, from: &wire::CheckpointMetadata) -> Result<(), Refused> {
    let Ok(id) = from.job_id.parse::<JobId>() else {
        return Ok(());
    };
    let store = state.jobs.get(&id).map(|job| &job.checkpoints);
    let is_kept = match store {
        Some(store) => {
            let mut kept = store.retained.iter().chain(&store.savepoints);
            kept.any(|checkpoint| checkpoint.id.0 == from.checkpoint_id)
        }
        // Nothing else is left of a job that was forgotten.
        None => from.kind() == wire::CheckpointKind::Savepoint,
    };
    if is_kept {
        return Ok(());
    }
    let newest = store.and_then(CheckpointStore::latest);
    let newest = newest.map_or_else(String::new, |newest| {
        format!("; its newest is {}", newest.external_path)
    });
    Err(Refused::new(format!(
        "checkpoint {} of job {id} did not complete or is not kept any more{newest}",
        from.checkpoint_id
    )))
}

/// A second cancellation is answered like the first; so is that of a job that has ended.
pub(super) fn cancel(state: &mut ClusterState, cancel: &wire::CancelJob) -> Result<(), Refused> {
    let now = state.log_time_ms;
    let job = state.job_in_mut(&cancel.namespace, &cancel.job_id)?;
    if job.status.is_terminal() || job.status == JobStatus::Cancelling {
        return Ok(());
    }
    job.checkpoints.abort(now, "the job is cancelled", false);
    job.answer_savepoint(Err("the job was cancelled".into()));
    job.become_status(now, JobStatus::Cancelling, "");
    Ok(())
}

/// The terminal state, the result and the start of the clean-up in one step: no job that has ended ever runs again.
pub(super) fn end(state: &mut ClusterState, end: &wire::EndJob) -> Result<(), Refused> {
    let now = state.log_time_ms;
    let shared = match state.jobs.get(&end.job_id.parse::<JobId>()?) {
        Some(job) => state.shares_graph(job),
        None => false,
    };
    let job = state.job_at_attempt(&end.job_id, end.attempt)?;
    let status = JobStatus::from_name(&end.state).filter(|status| status.is_terminal());
    let status =
        status.ok_or_else(|| Refused::new(format!("{:?} is no terminal state", end.state)))?;
    let fits = match status {
        JobStatus::Finished => job.status == JobStatus::Running && job.final_checkpoint.is_some(),
        JobStatus::Canceled => job.status == JobStatus::Cancelling,
        _ => job.status == JobStatus::Failing,
    };
    if !fits {
        return Err(Refused::new(format!(
            "a {} job cannot end as {status}",
            job.status
        )));
    }
    job.checkpoints.abort(now, "the job has ended", false);
    job.checkpoints.release_directories(now);
    job.answer_savepoint(Err(format!("the job ended as {status}")));
    job.become_status(now, status, "");
    job.ended_at_ms = now.max(1);
    // A failed job's checkpoints stay, so that a new one can start from them; so does what it had claimed.
    let id = job.id.clone();
    if status == JobStatus::Failed {
        job.claimed = None;
    } else {
        job.checkpoints.retire_all();
    }
    // It never runs again, and neither does anybody else with this graph.
    if let Some(object) = job.graph_object.as_ref().filter(|_| !shared) {
        job.checkpoints.retired.insert(object.path.clone());
    }
    claim::use_up(state, &id);
    Ok(())
}
