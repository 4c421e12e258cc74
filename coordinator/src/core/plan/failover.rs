//! Notices that an attempt is over: a task failed, or a TaskManager is lost.

use flott_proto::wire::{self, TaskState, command::Decision};

use super::fallback::{self, Step};
use super::placement::Placement;
use super::{Plan, Presence, Situation};
use crate::core::job::Job;
use crate::core::reported::UnusableState;
use crate::core::restart;

/// Proposes the end of the attempt if it is over; says whether it is.
pub(super) fn watch(
    situation: Situation<'_>,
    job: &Job,
    placement: &Placement<'_>,
    plan: &mut Plan,
) -> bool {
    let Some(mut failure) = failure(job, placement) else {
        return false;
    };
    let strategy = &job.settings.restart_strategy;
    let now_ms = situation.now.wall_ms;
    let mut decision = if failure.retryable {
        strategy.decide(&job.failures, now_ms)
    } else {
        restart::Decision::Fail
    };
    // A job that does not start again keeps all its checkpoints.
    if decision != restart::Decision::Fail
        && let Some(unusable) = &failure.unusable_state
    {
        match fallback::step(situation, job, unusable) {
            Step::Wait => return true,
            Step::Check(work) => {
                plan.works.push(work);
                return true;
            }
            Step::Discard(discard) => {
                let decision = Decision::DiscardCheckpoint(discard);
                plan.proposals.push((job.id.clone(), decision));
                return true;
            }
            Step::Restart => {}
            Step::RestartThoughWhole => failure.cause.push_str(
                "; the JobManager finds that file as it should be: look at the TaskManager's way to the storage",
            ),
            Step::Fail { remedy } => {
                decision = restart::Decision::Fail;
                failure.cause = format!("{}; {remedy}", failure.cause);
            }
        }
    }
    let (restart_at_ms, restart_backoff_ms) = match decision {
        restart::Decision::RestartAt { at_ms, backoff_ms } => (at_ms, backoff_ms),
        restart::Decision::Fail => (0, 0),
    };
    let record = wire::RecordFailure {
        job_id: job.id.to_string(),
        attempt: job.attempt.0,
        cause: failure.cause,
        restart_at_ms,
        detected_at_ms: now_ms,
        restart_backoff_ms,
    };
    plan.proposals
        .push((job.id.clone(), Decision::RecordFailure(record)));
    true
}

struct Failure {
    cause: String,
    retryable: bool,
    unusable_state: Option<UnusableState>,
}

/// The failure to blame, if there is one: a state that cannot be restored before any other failure of a task's own, that
/// before a lost TaskManager, and that before the broken connections that are its echo.
fn failure(job: &Job, placement: &Placement<'_>) -> Option<Failure> {
    let (mut own, mut echo) = (None, None);
    for (subtask, view) in placement.tasks() {
        let Some(task) = view.filter(|task| task.state == TaskState::Failed) else {
            continue;
        };
        let failure = Failure {
            cause: format!("task {subtask}: {}", task.failure),
            retryable: task.retryable,
            unusable_state: task.unusable_state.clone(),
        };
        if failure.unusable_state.is_some() {
            return Some(failure);
        }
        if task.lost_peer.is_empty() {
            own.get_or_insert(failure);
        } else {
            echo.get_or_insert(failure);
        }
    }
    if own.is_some() {
        return own;
    }
    let lost = placement
        .hosts()
        .find(|(_, host)| host.presence == Presence::Lost);
    if let Some((lost, _)) = lost {
        return Some(Failure {
            cause: format!("TaskManager {lost} is lost"),
            retryable: true,
            unusable_state: None,
        });
    }
    if echo.is_some() {
        return echo;
    }
    let failed = job.checkpoints.failed_in_a_row;
    (failed > job.settings.tolerable_failed_checkpoints).then(|| {
        let last = job
            .checkpoints
            .history
            .iter()
            .rev()
            .find_map(|summary| summary.outcome.as_ref().err());
        let reason = last.map_or("", String::as_str);
        Failure {
            cause: format!(
                "{failed} checkpoints failed in a row, more than \
                 execution.checkpointing.tolerable-failed-checkpoints allows; the last: {reason}"
            ),
            retryable: true,
            unusable_state: None,
        }
    })
}
