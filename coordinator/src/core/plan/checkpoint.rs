//! Drives the checkpoints of a running job: begin, trigger, complete or abort, announce; and the end of a job whose
//! input has ended or that was stopped with a savepoint.

use std::time::Duration;

use flott_node::Mutant;
use flott_proto::ids::{CheckpointId, TaskManagerId};
use flott_proto::paths;
use flott_proto::wire::{self, TaskState, command::Decision, job_manager_message::Message};

use super::placement::Placement;
use super::{Plan, Situation, Work};
use crate::core::checkpoint::{CheckpointKind, PendingRecord};
use crate::core::job::Job;
use crate::core::observed::{TaskView, Told, UnderWay};
use crate::core::reported::AttemptTasks;
use crate::core::settings::later;

/// Somebody waits for the checkpoint from which a job goes on at another parallelism, and the job does its work again from
/// there: tasks that are not about to align are not waited for.
const ALIGNMENT_BEFORE_RESCALE_MAX: Duration = Duration::from_millis(100);

pub(super) fn drive(
    situation: Situation<'_>,
    job: &Job,
    placement: &Placement<'_>,
    plan: &mut Plan,
) {
    announce(situation, job, placement, plan);
    if let Some(pending) = &job.checkpoints.pending {
        trigger(job, placement, pending, plan);
        conclude(situation, job, pending, plan);
    } else if job.final_checkpoint.is_some() {
        end(job, placement, plan);
    } else if let Some(kind) = due(situation, job, placement) {
        begin(situation, job, kind, plan);
    }
}

/// The checkpoint that it is time for, if any.
fn due(situation: Situation<'_>, job: &Job, placement: &Placement<'_>) -> Option<CheckpointKind> {
    if !placement.all(TaskView::is_running) {
        return None;
    }
    if placement.all(|task| task.state == TaskState::EndOfData) {
        return Some(CheckpointKind::Final);
    }
    if job.savepoint_request.is_some() {
        return Some(CheckpointKind::Savepoint);
    }
    if job.rescale_to.is_some() {
        return Some(CheckpointKind::Checkpoint);
    }
    let settings = &job.settings;
    if settings.checkpoint_interval.is_zero() {
        return None;
    }
    let last = job.checkpoints.history.last();
    let last_begun = last.map_or(job.attempt_started_at_ms, |last| {
        last.triggered_at_ms.max(job.attempt_started_at_ms)
    });
    let last_ended = last.map_or(0, |last| {
        later(
            last.triggered_at_ms,
            Duration::from_millis(last.duration_ms),
        )
    });
    let due_at = later(last_begun, settings.checkpoint_interval)
        .max(later(last_ended, settings.checkpoint_min_pause));
    (situation.now.wall_ms >= due_at).then_some(CheckpointKind::Checkpoint)
}

fn begin(situation: Situation<'_>, job: &Job, kind: CheckpointKind, plan: &mut Plan) {
    let id = job.checkpoints.last_id.next();
    let savepoint = job
        .savepoint_request
        .as_ref()
        .filter(|_| kind == CheckpointKind::Savepoint);
    let savepoint_directory = savepoint.map(|request| {
        paths::savepoint(
            &request.target_directory,
            &job.id,
            id,
            situation.state.epoch,
        )
    });
    let base = match kind {
        CheckpointKind::Savepoint => CheckpointId::NONE,
        CheckpointKind::Checkpoint | CheckpointKind::Final => job
            .checkpoints
            .latest()
            .map_or(CheckpointId::NONE, |latest| latest.id),
    };
    let begin = wire::BeginCheckpoint {
        job_id: job.id.to_string(),
        attempt: job.attempt.0,
        checkpoint_id: id.0,
        kind: wire::CheckpointKind::from(kind).into(),
        base_checkpoint_id: base.0,
        savepoint_directory: savepoint_directory.unwrap_or_default(),
    };
    plan.proposals
        .push((job.id.clone(), Decision::BeginCheckpoint(begin)));
}

/// Tells every TaskManager of the job about the pending checkpoint, once a connection: a task that has seen it ignores
/// the repetition, and one that has not (the leader died in the middle) takes part after all.
fn trigger(job: &Job, placement: &Placement<'_>, pending: &PendingRecord, plan: &mut Plan) {
    let message = wire::TriggerCheckpoint {
        job_id: job.id.to_string(),
        attempt: job.attempt.0,
        checkpoint_id: pending.id.0,
        base_checkpoint_id: pending.base.0,
        kind: wire::CheckpointKind::from(pending.kind).into(),
        triggered_at_ms: pending.triggered_at_ms,
        savepoint_directory: pending.savepoint_directory.clone(),
        unaligned_after_ms: unaligned_after(job, pending)
            .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
    };
    for (host, _, told) in listeners(job, placement) {
        if told.triggered != pending.id {
            plan.sends
                .push((host.clone(), Message::TriggerCheckpoint(message.clone())));
        }
    }
}

/// When tasks need not align any more. Of a savepoint they always do: its state is that between rows, for whatever job goes
/// on from it. Before the final checkpoint nothing is on its way.
fn unaligned_after(job: &Job, pending: &PendingRecord) -> Option<Duration> {
    let after = job.settings.unaligned_after;
    let after = after.filter(|_| pending.kind == CheckpointKind::Checkpoint)?;
    Some(match job.rescale_to {
        Some(_) => after.min(ALIGNMENT_BEFORE_RESCALE_MAX),
        None => after,
    })
}

/// Completes the pending checkpoint once its acks and its metadata are there; aborts it if it cannot complete.
fn conclude(situation: Situation<'_>, job: &Job, pending: &PendingRecord, plan: &mut Plan) {
    let observed = situation.observed;
    let abort = |reason: String, plan: &mut Plan| {
        let abort = wire::AbortCheckpoint {
            job_id: job.id.to_string(),
            checkpoint_id: pending.id.0,
            reason,
            counts_as_failure: true,
        };
        plan.proposals
            .push((job.id.clone(), Decision::AbortCheckpoint(abort)));
    };
    if let Some((_, reason)) = observed.declined.get(&job.id) {
        return abort(reason.clone(), plan);
    }
    let Some(collected) = observed.pending.get(&job.id) else {
        return;
    };
    if collected.is_complete() {
        match observed
            .metadata
            .get(&job.id)
            .map(|written| &written.outcome)
        {
            Some(Ok((external_path, metadata_object))) => {
                let subtasks =
                    collected
                        .acks()
                        .values()
                        .map(|(base, delta)| wire::SubtaskSnapshot {
                            state: Some(delta.into()),
                            base_checkpoint_id: base.0,
                        });
                let complete = wire::CompleteCheckpoint {
                    job_id: job.id.to_string(),
                    attempt: job.attempt.0,
                    checkpoint_id: pending.id.0,
                    subtasks: subtasks.collect(),
                    external_path: external_path.clone(),
                    metadata_object: metadata_object.clone(),
                };
                plan.proposals
                    .push((job.id.clone(), Decision::CompleteCheckpoint(complete)));
            }
            Some(Err(reason)) => abort(reason.clone(), plan),
            None if observed
                .under_way
                .contains(&UnderWay::WriteMetadata(job.id.clone())) => {}
            None => plan.works.push(Work::WriteMetadata {
                job: job.id.clone(),
                checkpoint: pending.id,
            }),
        }
        return;
    }
    let until_ms = later(pending.triggered_at_ms, job.settings.checkpoint_timeout);
    if situation.now.wall_ms > until_ms {
        let missing: Vec<_> = collected
            .missing()
            .iter()
            .map(ToString::to_string)
            .collect();
        abort(
            format!(
                "expired after {} ms without an answer of {}",
                job.settings.checkpoint_timeout.as_millis(),
                missing.join(", ")
            ),
            plan,
        );
    }
}

/// Announces the newest checkpoint whose sink transactions may become visible, and checkpoints that came to nothing.
fn announce(situation: Situation<'_>, job: &Job, placement: &Placement<'_>, plan: &mut Plan) {
    let mut newest = job
        .checkpoints
        .latest()
        .map_or(CheckpointId::NONE, |latest| latest.id)
        .max(job.final_checkpoint);
    if Mutant::AnnouncedTooSoon.is_planted()
        && let Some(written) = situation.observed.metadata.get(&job.id)
    {
        newest = newest.max(written.checkpoint);
    }
    let pending = job.checkpoints.pending.as_ref().map(|pending| pending.id);
    for (host, reported, told) in listeners(job, placement) {
        if newest > told.completed {
            let completed = wire::NotifyCheckpointCompleted {
                job_id: job.id.to_string(),
                attempt: job.attempt.0,
                checkpoint_id: newest.0,
            };
            plan.sends
                .push((host.clone(), Message::CheckpointCompleted(completed)));
        }
        // Whether this leader told it or an earlier one did.
        let last_seen = reported
            .values()
            .map(|view| view.last_checkpoint_seen)
            .max();
        let seen = last_seen.unwrap_or_default().max(told.triggered);
        if seen > newest && Some(seen) != pending && told.aborted < seen {
            let aborted = wire::NotifyCheckpointAborted {
                job_id: job.id.to_string(),
                attempt: job.attempt.0,
                checkpoint_id: seen.0,
            };
            plan.sends
                .push((host.clone(), Message::CheckpointAborted(aborted)));
        }
    }
}

/// Ends the job once every sink has made the final checkpoint's output visible.
fn end(job: &Job, placement: &Placement<'_>, plan: &mut Plan) {
    let has_committed = |task: &TaskView| task.last_checkpoint_committed >= job.final_checkpoint;
    if placement.all(has_committed) || Mutant::EndedWithoutCommit.is_planted() {
        let end = wire::EndJob {
            job_id: job.id.to_string(),
            attempt: job.attempt.0,
            state: "FINISHED".to_owned(),
        };
        plan.proposals.push((job.id.clone(), Decision::EndJob(end)));
    }
}

/// The connected TaskManagers that report tasks of the present attempt, with the reports and what they were told.
fn listeners<'a>(
    job: &'a Job,
    placement: &'a Placement<'_>,
) -> impl Iterator<Item = (&'a TaskManagerId, &'a AttemptTasks, Told)> {
    placement.hosts().filter_map(|(id, host)| {
        let told = host.connected()?.told(&job.id);
        Some((id, host.reported?, told))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::testing::{ALL, World};

    /// A number of milliseconds that does not fit was taken for a time that is over.
    #[test]
    fn an_interval_beyond_all_time_does_not_pass() {
        let beyond = "18446744073709551615 s";
        let mut world = World::new(2);
        let id = world.submit(2, &[("execution.checkpointing.interval", beyond)]);
        let interval = world.job(&id).settings.checkpoint_interval;
        assert_eq!(interval.as_secs(), u64::MAX);
        world.run_until("it runs", |world| world.job(&id).is_running());
        for _ in 0..20 {
            world.step(1_000, ALL);
        }
        assert_eq!(world.job(&id).checkpoints.last_id, CheckpointId::NONE);
        let settings = [
            ("execution.checkpointing.interval", "50 ms"),
            ("execution.checkpointing.timeout", beyond),
        ];
        let id = world.submit(2, &settings);
        world.run_until("a checkpoint", |world| {
            world.job(&id).checkpoints.completed_count > 0
        });
        assert_eq!(world.job(&id).checkpoints.failed_count, 0);
    }

    #[test]
    fn tasks_need_not_align_for_ever_except_for_savepoints() {
        let after = |settings: &[(&str, &str)], kind, rescale_to| {
            let mut world = World::new(2);
            let id = world.submit(2, settings);
            let mut job = world.job(&id).clone();
            job.rescale_to = rescale_to;
            let pending = PendingRecord {
                id: CheckpointId(1),
                kind,
                attempt: job.attempt,
                triggered_at_ms: 0,
                base: CheckpointId::NONE,
                savepoint_directory: String::new(),
            };
            unaligned_after(&job, &pending).map(|after| after.as_millis())
        };
        let timeout = |value| ("execution.checkpointing.aligned-checkpoint-timeout", value);
        let off = [("execution.checkpointing.unaligned.enabled", "false")];
        use CheckpointKind::{Checkpoint, Final, Savepoint};
        assert_eq!(after(&[], Checkpoint, None), Some(1000));
        assert_eq!(after(&[timeout("0")], Checkpoint, None), Some(0));
        assert_eq!(after(&[timeout("5 s")], Checkpoint, None), Some(5000));
        assert_eq!(after(&[timeout("5 s")], Checkpoint, Some(3)), Some(100));
        assert_eq!(after(&[timeout("0")], Checkpoint, Some(3)), Some(0));
        assert_eq!(after(&off, Checkpoint, Some(3)), None);
        assert_eq!(after(&[], Savepoint, None), None);
        assert_eq!(after(&[], Final, None), None);
    }
}
