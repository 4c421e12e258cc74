//! A job that runs at one parallelism after another, with a leader that may be replaced between any two steps.

use std::collections::BTreeSet;

use flott_proto::ids::JobId;
use flott_proto::wire::{self, command::Decision};
use proptest::prelude::*;

use crate::core::history::What;
use crate::core::namespace::Quota;
use crate::core::testing::{ALL, World};
use crate::core::{JobStatus, Response};

const SETTINGS: [(&str, &str); 2] = [
    ("execution.checkpointing.interval", "50 ms"),
    ("restart-strategy.exponential-delay.initial-backoff", "0 ms"),
];

fn rescale(world: &mut World, job: &JobId, parallelism: u32) -> Response {
    world.apply(Decision::RescaleJob(wire::RescaleJob {
        namespace: "default".into(),
        job_id: job.to_string(),
        parallelism,
    }))
}

fn runs_at(world: &World, job: &JobId, parallelism: u32) -> bool {
    let job = world.job(job);
    job.is_running() && job.graph.slots_needed() == parallelism
}

/// A job at that parallelism with checkpoints, in a cluster of 8 slots.
fn running(parallelism: u32) -> (World, JobId) {
    let mut world = World::new(4);
    let job = world.submit(parallelism, &SETTINGS);
    world.run_until("checkpoints", |world| {
        world.job(&job).checkpoints.completed_count > 2
    });
    (world, job)
}

#[test]
fn the_next_checkpoint_is_taken_at_once_and_the_next_attempt_begins_from_it() {
    let mut world = World::new(4);
    let hour = [("execution.checkpointing.interval", "1 h"), SETTINGS[1]];
    let job = world.submit(2, &hour);
    world.run_until("tasks", |world| runs_at(world, &job, 2));
    for (attempt, parallelism) in [(2, 4), (3, 3), (4, 1), (5, 2)] {
        assert_eq!(rescale(&mut world, &job, parallelism), Response::Applied);
        world.run_until("the new parallelism", |world| {
            runs_at(world, &job, parallelism)
        });
        let present = world.job(&job);
        assert_eq!(present.attempt.0, attempt);
        assert_eq!(present.parallelism(), parallelism);
        let newest = present.checkpoints.latest().unwrap().id;
        assert_eq!(newest.0, u64::from(attempt) - 1, "one checkpoint a change");
        world.run_until("its tasks", |world| {
            world.restored[&job].contains_key(&attempt)
        });
        assert_eq!(world.restored[&job][&attempt], newest);
    }
    let rescaled = world.job(&job).events.iter();
    let rescaled = rescaled.filter(|event| event.what == What::Rescaled);
    let causes: Vec<&str> = rescaled.map(|event| event.cause.as_str()).collect();
    assert_eq!(causes[0], "from parallelism 2 to 4");
    assert_eq!(causes.len(), 4);
    assert!(world.job(&job).failures.times_ms.is_empty(), "no failure");
}

#[test]
fn an_attempt_that_fails_before_the_checkpoint_is_followed_by_one_at_the_new_parallelism() {
    let (mut world, job) = running(2);
    rescale(&mut world, &job, 3);
    world.fail_task_of(&job);
    world.run_until("the new parallelism", |world| runs_at(world, &job, 3));
    assert_eq!(world.job(&job).failures.times_ms.len(), 1);
}

#[test]
fn a_job_that_waits_for_slots_can_be_made_smaller() {
    let mut world = World::new(1);
    let job = world.submit(5, &SETTINGS);
    world.run_until("a note", |world| !world.notes.is_empty());
    rescale(&mut world, &job, 2);
    world.run_until("tasks", |world| runs_at(world, &job, 2));
}

/// Found by the model of `core/storage_model/`: an attempt with places for four tasks began for a job of two.
#[test]
fn an_attempt_that_was_planned_before_the_job_was_made_smaller_does_not_begin() {
    let mut world = World::new(1);
    let job = world.submit(2, &SETTINGS);
    let subtasks = world.job(&job).subtasks().map(|subtask| wire::Assignment {
        vertex: subtask.vertex.to_string(),
        subtask: subtask.subtask,
        task_manager_id: "tm-1".into(),
        data_address: "tm-1:1".into(),
    });
    let planned = wire::StartAttempt {
        job_id: job.to_string(),
        attempt: 1,
        assignments: subtasks.collect(),
    };
    rescale(&mut world, &job, 1);
    let answer = world.apply(Decision::StartAttempt(planned));
    assert!(matches!(answer, Response::Refused(_)), "{answer:?}");
    world.run_until("tasks", |world| runs_at(world, &job, 1));
}

#[test]
fn a_request_is_taken_back_by_one_for_the_present_parallelism_or_an_abort() {
    let (mut world, job) = running(2);
    rescale(&mut world, &job, 3);
    assert_eq!(world.job(&job).rescale_to, Some(3));
    rescale(&mut world, &job, 2);
    assert_eq!(world.job(&job).rescale_to, None);
    rescale(&mut world, &job, 3);
    let (id, attempt) = {
        let job = world.job(&job);
        (job.checkpoints.last_id.next(), job.attempt)
    };
    if world.job(&job).checkpoints.pending.is_none() {
        world.apply(Decision::BeginCheckpoint(wire::BeginCheckpoint {
            job_id: job.to_string(),
            attempt: attempt.0,
            checkpoint_id: id.0,
            kind: wire::CheckpointKind::Checkpoint.into(),
            ..Default::default()
        }));
    }
    let pending = world.job(&job).checkpoints.pending.clone().unwrap();
    world.apply(Decision::AbortCheckpoint(wire::AbortCheckpoint {
        job_id: job.to_string(),
        checkpoint_id: pending.id.0,
        reason: "the disk is full".into(),
        counts_as_failure: true,
    }));
    assert_eq!(world.job(&job).rescale_to, None);
    assert_eq!(world.job(&job).attempt, attempt);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let (mut world, job) = running(2);
    let refused = |response: Response, why: &str| match response {
        Response::Refused(reason) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{other:?}"),
    };
    refused(rescale(&mut world, &job, 0), "cannot run at parallelism 0");
    refused(rescale(&mut world, &job, 40_000), "allows 1 to");
    let quota = wire::UpdateNamespace {
        name: "default".into(),
        quota: Some(
            Quota {
                slots: 3,
                ..Quota::default()
            }
            .into(),
        ),
    };
    assert_eq!(
        world.apply(Decision::UpdateNamespace(quota)),
        Response::Applied
    );
    refused(rescale(&mut world, &job, 4), "quota");
    assert_eq!(rescale(&mut world, &job, 3), Response::Applied);
    assert_eq!(world.job(&job).rescale_to, Some(3));
    world.apply(Decision::CancelJob(wire::CancelJob {
        namespace: "default".into(),
        job_id: job.to_string(),
    }));
    assert_eq!(world.job(&job).rescale_to, None);
    refused(rescale(&mut world, &job, 1), "about to end");
}

#[test]
fn a_graph_that_was_read_from_storage_is_deployed_at_the_decided_parallelism() {
    let mut world = World::new(4);
    let (job, _) = world.try_submit_large(2);
    world.run_until("tasks", |world| runs_at(world, &job, 2));
    rescale(&mut world, &job, 3);
    world.run_until("checkpoints", |world| {
        runs_at(world, &job, 3)
            && world.job(&job).checkpoints.latest().is_some_and(|newest| {
                let vertex = &world.job(&job).graph.vertices[0].uid;
                newest.parallelism(vertex) == 3
            })
    });
}

#[derive(Clone, Debug)]
enum Event {
    Rescale(u32),
    FailTask(usize),
    KillTaskManager(usize),
    ChangeLeader,
    /// So many effects of a step happen.
    CutOff(usize),
    Nothing,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1u32..6).prop_map(Event::Rescale),
        1 => any::<usize>().prop_map(Event::FailTask),
        1 => any::<usize>().prop_map(Event::KillTaskManager),
        2 => Just(Event::ChangeLeader),
        2 => (0usize..4).prop_map(Event::CutOff),
        12 => Just(Event::Nothing),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The state checks itself after every entry, and a task that is deployed finds no file deleted.
    #[test]
    fn whatever_happens_the_job_gets_to_run_and_loses_no_file(events in prop::collection::vec(event(), 1..80)) {
        let (mut world, job) = running(2);
        for event in events {
            let mut effects = ALL;
            match event {
                Event::Rescale(parallelism) => prop_assert_eq!(rescale(&mut world, &job, parallelism), Response::Applied),
                Event::FailTask(choice) => world.fail_task(choice),
                Event::KillTaskManager(choice) => {
                    world.kill_task_manager(choice);
                    world.add_task_manager();
                }
                Event::ChangeLeader => world.change_leader(),
                Event::CutOff(count) => effects = count,
                Event::Nothing => {}
            }
            world.step(30, effects);
            if effects != ALL {
                world.change_leader();
            }
        }
        prop_assert_eq!(rescale(&mut world, &job, 5), Response::Applied);
        world.run_until("the last parallelism", |world| runs_at(world, &job, 5));
        let before = world.job(&job).checkpoints.completed_count;
        world.run_until("checkpoints", |world| world.job(&job).checkpoints.completed_count > before + 3);
        prop_assert_eq!(world.job(&job).status, JobStatus::Running);
        let attempts = &world.attempts[&job];
        let distinct: BTreeSet<_> = attempts.iter().collect();
        prop_assert_eq!(distinct.len(), attempts.len(), "no attempt begins twice");
    }
}
