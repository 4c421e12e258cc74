//! Deleting a namespace and forgetting jobs, with a leader that may be replaced between any two steps.

use std::time::Duration;

use flott_proto::ids::JobId;
use flott_proto::wire::{self, command::Decision};

use crate::core::history::What;
use crate::core::namespace::Quota;
use crate::core::testing::{ALL, World};
use crate::core::{JobStatus, Response};

const CHECKPOINTS: (&str, &str) = ("execution.checkpointing.interval", "50 ms");

fn submit(world: &mut World, namespace: &str, settings: &[(&str, &str)]) -> JobId {
    let (job, response) = world.try_submit(namespace, 1, settings);
    assert_eq!(response, Response::Applied);
    job
}

/// A namespace `team` with a job that runs and has a savepoint, one that failed and retains a checkpoint, one that was
/// cancelled, and one that waits; and a job in `default`.
fn inhabited() -> (World, [JobId; 4], JobId) {
    let mut world = World::new(2);
    world.create_namespace("team", Quota::default());
    let running = submit(&mut world, "team", &[CHECKPOINTS]);
    let other = submit(&mut world, "default", &[CHECKPOINTS]);
    world.run_until("checkpoints", |world| {
        [&running, &other]
            .iter()
            .all(|job| world.job(job).checkpoints.completed_count > 1)
    });
    let request = wire::RequestSavepoint {
        namespace: "team".into(),
        job_id: running.to_string(),
        request_id: "r".into(),
        target_directory: "memory:///savepoints".into(),
        ..Default::default()
    };
    world.apply(Decision::RequestSavepoint(request));
    world.run_until("a savepoint", |world| {
        !world.job(&running).checkpoints.savepoints.is_empty()
    });
    let failed = submit(
        &mut world,
        "team",
        &[CHECKPOINTS, ("restart-strategy.type", "none")],
    );
    world.run_until("its checkpoint", |world| {
        world.job(&failed).checkpoints.completed_count > 0
    });
    world.fail_task_of(&failed);
    let cancelled = submit(&mut world, "team", &[CHECKPOINTS]);
    world.run_until("its checkpoint", |world| {
        world.job(&cancelled).checkpoints.completed_count > 0
    });
    world.apply(Decision::CancelJob(wire::CancelJob {
        namespace: "team".into(),
        job_id: cancelled.to_string(),
    }));
    world.run_until("both ends", |world| {
        world.job(&failed).status == JobStatus::Failed
            && world.job(&cancelled).status == JobStatus::Canceled
    });
    let (waiting, response) = world.try_submit("team", 9, &[]);
    assert_eq!(response, Response::Applied);
    (world, [running, failed, cancelled, waiting], other)
}

#[test]
fn a_deleted_namespace_goes_with_all_that_is_in_it_whoever_leads_at_which_step() {
    for cut in 1..8 {
        // Every so many steps the leader is cut off after some effects. The two steps between are the least in which a
        // new one gets further: what it sweeps it has to propose as well.
        for every in 3..6 {
            let (mut world, jobs, other) = inhabited();
            let savepoints = world.savepoints.clone();
            assert_eq!(savepoints.len(), 1);
            let before = world.job(&other).checkpoints.completed_count;
            world.delete_namespace("team");
            for step in 0.. {
                if !world.has_namespace("team") {
                    break;
                }
                assert!(step < 500, "the deletion does not end: cut {cut}");
                world.step(10, if step % every == 0 { cut } else { ALL });
                if step % every == 0 {
                    world.change_leader();
                }
            }
            assert_eq!(world.state.jobs.len(), 1, "only the other tenant's");
            for job in &jobs {
                let left = world.objects_of(job);
                assert!(left.is_empty(), "{left:?}");
            }
            assert_eq!(world.savepoints, savepoints, "they are the user's");
            world.run_until("the other job goes on", |world| {
                world.job(&other).checkpoints.completed_count > before
            });
            assert_eq!(world.attempts[&other], [1], "cut {cut}");
            // The name is free again, and a new start has nothing of the old one.
            world.create_namespace("team", Quota::default());
            assert_eq!(world.state.jobs_in(&"team".parse().unwrap()).count(), 0);
        }
    }
}

/// What tasks had written when they failed stayed for ever, for only they knew its name.
#[test]
fn what_there_is_of_a_savepoint_that_was_given_up_is_deleted_and_a_complete_one_never() {
    for cut in 1..12 {
        let mut world = World::new(2);
        let job = submit(&mut world, "default", &[CHECKPOINTS]);
        world.step(10, ALL);
        world.run_until("a checkpoint", |world| {
            world.job(&job).checkpoints.completed_count > 0
        });
        let request = wire::RequestSavepoint {
            namespace: "default".into(),
            job_id: job.to_string(),
            request_id: "r".into(),
            target_directory: "memory:///savepoints".into(),
            ..Default::default()
        };
        world.apply(Decision::RequestSavepoint(request));
        world.step(1, cut);
        world.change_leader();
        world.fail_task_of(&job);
        world.run_until("an answer", |world| {
            !world.job(&job).savepoint_results.is_empty()
        });
        for _ in 0..20 {
            world.step(5_000, ALL);
            world.change_leader();
        }
        let complete = world.job(&job).checkpoints.savepoints.iter();
        let complete: Vec<_> = complete.map(|savepoint| &savepoint.external_path).collect();
        assert!(world.savepoints.keys().eq(complete), "cut {cut}");
        assert!(world.job(&job).checkpoints.retired_directories.is_empty());
    }
}

/// Found by `core/storage_model/`: the job whose checkpoint it was went on, and had the files deleted that the new job was
/// still to restore.
#[test]
fn what_a_job_was_submitted_to_start_from_stays_until_it_has_a_checkpoint_of_its_own() {
    let mut world = World::new(1);
    let source = submit(&mut world, "default", &[CHECKPOINTS]);
    world.run_until("checkpoints", |world| {
        world.job(&source).checkpoints.completed_count > 1
    });
    let checkpoint = world.job(&source).checkpoints.latest().unwrap().clone();
    let files: Vec<String> = checkpoint.paths().map(str::to_owned).collect();
    // There is one slot for the source; the second is taken, so that the heir waits.
    let other = submit(&mut world, "default", &[]);
    let (heir, response) = world.try_submit_from(&source, &checkpoint);
    assert_eq!(response, Response::Applied);
    let cancel = |world: &mut World, job: &JobId| {
        world.apply(Decision::CancelJob(wire::CancelJob {
            namespace: "default".into(),
            job_id: job.to_string(),
        }));
        world.run_until("the end", |world| world.job(job).status.is_terminal());
    };
    cancel(&mut world, &source);
    cancel(&mut world, &other);
    // The fakes check that nothing is restored that was deleted.
    world.run_until("a checkpoint of the heir", |world| {
        world.job(&heir).checkpoints.latest().is_some()
    });
    world.run_until("the clean-up", |world| {
        files.iter().all(|file| world.deleted.contains(file))
    });
    assert_eq!(world.job(&source).checkpoints.retired.len(), 0);
}

/// Found by `core/storage_model/`: between reading a checkpoint and submitting from it its files were deleted.
#[test]
fn no_job_can_be_submitted_to_start_from_what_is_not_kept_any_more() {
    let mut world = World::new(1);
    let source = submit(&mut world, "default", &[CHECKPOINTS]);
    world.run_until("a checkpoint", |world| {
        world.job(&source).checkpoints.completed_count > 0
    });
    let old = world.job(&source).checkpoints.latest().unwrap().clone();
    world.run_until("another", |world| {
        world.job(&source).checkpoints.latest().unwrap().id > old.id
    });
    let newest = world.job(&source).checkpoints.latest().unwrap().clone();
    let (_, response) = world.try_submit_from(&source, &old);
    let Response::Refused(reason) = response else {
        panic!("it is retired: {response:?}")
    };
    for part in ["not kept any more", &newest.external_path] {
        assert!(reason.contains(part), "{reason}");
    }
    let (_, response) = world.try_submit_from(&source, &newest);
    assert_eq!(response, Response::Applied);
}

#[test]
fn results_are_kept_for_their_time_and_a_failed_job_for_as_long_as_it_retains_checkpoints() {
    let (mut world, [_, failed, cancelled, _], _) = inhabited();
    world.step(10, ALL);
    assert!(world.state.jobs.contains_key(&cancelled), "it just ended");
    world.settings.results_expire_after = Duration::from_secs(60);
    for _ in 0..8 {
        world.step(5_000, ALL);
    }
    assert!(world.state.jobs.contains_key(&cancelled));
    for _ in 0..8 {
        world.step(5_000, ALL);
    }
    assert!(!world.state.jobs.contains_key(&cancelled));
    assert!(world.objects_of(&cancelled).is_empty());
    assert!(
        world.state.jobs.contains_key(&failed),
        "somebody may start from its checkpoint"
    );
    let dismiss = wire::DismissJob {
        namespace: "team".into(),
        job_id: failed.to_string(),
    };
    assert_eq!(
        world.apply(Decision::DismissJob(dismiss)),
        Response::Applied
    );
    world.run_until("it is forgotten", |world| {
        !world.state.jobs.contains_key(&failed)
    });
    assert!(world.objects_of(&failed).is_empty());
}

#[test]
fn a_namespace_keeps_so_many_results_and_the_oldest_make_room() {
    let mut world = World::new(1);
    world.settings.results_max = Some(2);
    world.create_namespace("team", Quota::default());
    let cancel = |world: &mut World, namespace: &str, job: &JobId| {
        world.apply(Decision::CancelJob(wire::CancelJob {
            namespace: namespace.into(),
            job_id: job.to_string(),
        }));
        world.run_until("the end", |world| world.job(job).status.is_terminal());
    };
    let other = submit(&mut world, "default", &[]);
    cancel(&mut world, "default", &other);
    let mut ended = Vec::new();
    for _ in 0..4 {
        let job = submit(&mut world, "team", &[]);
        cancel(&mut world, "team", &job);
        ended.push(job);
        world.step(10, ALL);
    }
    world.run_until("room is made", |world| world.state.jobs.len() == 3);
    for job in [&other, &ended[2], &ended[3]] {
        assert!(world.state.jobs.contains_key(job));
    }
}

#[test]
fn a_job_remembers_what_happened_to_it() {
    let mut world = World::new(1);
    let job = submit(&mut world, "default", &[CHECKPOINTS]);
    world.run_until("a checkpoint", |world| {
        world.job(&job).checkpoints.completed_count > 0
    });
    world.fail_task(0);
    world.run_until("attempt 2", |world| world.job(&job).attempt.0 == 2);
    world.apply(Decision::CancelJob(wire::CancelJob {
        namespace: "default".into(),
        job_id: job.to_string(),
    }));
    world.run_until("the end", |world| {
        world.job(&job).status == JobStatus::Canceled
    });
    let events: Vec<_> = world.job(&job).events.iter().collect();
    let whats: Vec<_> = events
        .iter()
        .map(|event| (event.what, event.attempt.0))
        .collect();
    let expected = [
        (JobStatus::Created, 0),
        (JobStatus::Running, 1),
        (JobStatus::Restarting, 1),
        (JobStatus::Running, 2),
        (JobStatus::Cancelling, 2),
        (JobStatus::Canceled, 2),
    ]
    .map(|(status, attempt)| (What::Became(status), attempt));
    assert_eq!(whats, expected);
    assert!(events[2].cause.contains("on purpose"));
}

#[test]
fn hundreds_of_jobs_are_purged_in_bounded_steps() {
    let mut world = World::new(0);
    world.create_namespace("team", Quota::default());
    for _ in 0..300 {
        submit(&mut world, "team", &[]);
    }
    world.delete_namespace("team");
    for step in 0.. {
        if !world.has_namespace("team") {
            break;
        }
        let before = world.state.jobs.len();
        world.step(10, ALL);
        let gone = before - world.state.jobs.len();
        assert!(gone <= 256, "{gone} at once");
        assert!(step < 2000, "the deletion does not end");
    }
    assert!(world.state.jobs.is_empty());
}
