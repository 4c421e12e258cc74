//! Tasks that must not run any more, and files that nobody needs any more.

use std::collections::BTreeSet;

use flott_proto::paths;
use flott_proto::wire::{self, command::Decision, job_manager_message::Message};

use super::{Plan, Presence, Situation, Work};
use crate::core::job::{Job, JobStatus};
use crate::core::observed::UnderWay;

/// Objects deleted in one step: bounds the entry that forgets them.
const DELETE_BATCH_MAX: usize = 256;

/// Ends a job that was cancelled or has failed for good, once none of its tasks is left.
pub(super) fn wind_down(situation: Situation<'_>, job: &Job, plan: &mut Plan) {
    let unknown = job
        .assignments
        .values()
        .any(|place| situation.presence(&place.task_manager) == Presence::Unknown);
    let live = situation
        .observed
        .live_tasks(&job.id)
        .any(|(task_manager, _)| situation.presence(task_manager) == Presence::There);
    if unknown || live {
        plan.notes
            .insert(job.id.clone(), "waiting for its tasks to end".to_owned());
        return;
    }
    let state = if job.status == JobStatus::Cancelling {
        JobStatus::Canceled
    } else {
        JobStatus::Failed
    };
    let end = wire::EndJob {
        job_id: job.id.to_string(),
        attempt: job.attempt.0,
        state: state.name().to_owned(),
    };
    plan.proposals.push((job.id.clone(), Decision::EndJob(end)));
}

/// Deletes what was retired, but for what another job borrows to start from. The retirement has been applied, so nobody can
/// need it again: nobody here, for no job is submitted to start from what is not kept any more. What is of a cluster that this
/// one goes on from is only forgotten, for that one may still be there, or be restored once more.
pub(super) fn files(
    situation: Situation<'_>,
    job: &Job,
    borrowed: &BTreeSet<&str>,
    plan: &mut Plan,
) {
    let what = || UnderWay::DeleteFiles(job.id.clone());
    if situation.observed.is_under_way(what) {
        return;
    }
    let retired = job.checkpoints.retired.iter();
    let mut batch = retired
        .filter(|path| !borrowed.contains(path.as_str()))
        .take(DELETE_BATCH_MAX)
        .peekable();
    if batch.peek().is_none() {
        return savepoint(situation, job, plan);
    }
    let cluster = &situation.settings.cluster;
    let (paths, foreign): (Vec<String>, Vec<String>) =
        batch.cloned().partition(|path| paths::is_of(cluster, path));
    if !foreign.is_empty() {
        let forget = wire::ForgetFiles {
            job_id: job.id.to_string(),
            paths: foreign,
            directories: Vec::new(),
        };
        plan.chores.push((
            UnderWay::DeleteFiles(job.id.clone()),
            Decision::ForgetFiles(forget),
        ));
        return;
    }
    plan.works.push(Work::DeleteFiles {
        job: job.id.clone(),
        paths,
    });
}

/// Deletes the first savepoint whose time has come. One that another job may have to read is left alone until then.
fn savepoint(situation: Situation<'_>, job: &Job, plan: &mut Plan) {
    let mut retired = job.checkpoints.retired_directories.iter();
    let due = retired.find(|(directory, not_before_ms)| {
        let mut jobs = situation.state.jobs.values();
        **not_before_ms <= situation.now.wall_ms && !jobs.any(|job| job.would_start_from(directory))
    });
    if let Some((directory, _)) = due {
        plan.works.push(Work::DeleteSavepoint {
            job: job.id.clone(),
            directory: directory.clone(),
        });
    }
}

/// Ends tasks that are not of the present attempt of a running job: of a job that has ended or is ending, of an attempt
/// that is over, or of a job that nobody knows.
pub(super) fn strays(situation: Situation<'_>, plan: &mut Plan) {
    for (host, task_manager) in &situation.observed.task_managers {
        if task_manager.connection.is_none() {
            continue;
        }
        for job in task_manager.tasks.jobs() {
            let present = situation.state.jobs.get(job);
            let present = present
                .filter(|job| job.is_running())
                .map(|job| job.attempt);
            let tasks = task_manager.tasks.of_job(job);
            let stray = tasks
                .filter(|(attempt, _, view)| {
                    view.is_live() && present.is_none_or(|present| *attempt < present)
                })
                .map(|(attempt, ..)| attempt)
                .max();
            let Some(attempt) = stray else {
                continue;
            };
            let told = task_manager.told(job);
            let finished = situation
                .state
                .jobs
                .get(job)
                .is_some_and(|job| job.status == JobStatus::Finished);
            let (job_id, attempt_number) = (job.to_string(), attempt.0);
            if finished && told.finished < attempt {
                let finish = wire::FinishTasks {
                    job_id,
                    attempt: attempt_number,
                };
                plan.sends.push((host.clone(), Message::Finish(finish)));
            } else if !finished && told.cancelled < attempt {
                let cancel = wire::CancelTasks {
                    job_id,
                    attempt: attempt_number,
                };
                plan.sends.push((host.clone(), Message::Cancel(cancel)));
            }
        }
    }
}
