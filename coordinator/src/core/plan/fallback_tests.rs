//! Checkpoints that cannot be restored, against a cluster of fakes.

use std::collections::BTreeSet;

use flott_proto::ids::{CheckpointId, JobId};

use crate::core::history::What;
use crate::core::testing::World;
use crate::core::{JobStatus, Response};

const SETTINGS: [(&str, &str); 3] = [
    ("execution.checkpointing.interval", "100 ms"),
    ("execution.checkpointing.num-retained", "3"),
    ("restart-strategy.exponential-delay.initial-backoff", "0 ms"),
];

/// A job that retains three checkpoints. Each has two files a subtask: one that the checkpoint before has too, and a new
/// one.
fn with_three_checkpoints(settings: &[(&str, &str)]) -> (World, JobId) {
    let mut world = World::new(2);
    let job = world.submit(1, settings);
    world.run_until("three checkpoints", |world| {
        world.job(&job).checkpoints.retained.len() == 3
    });
    (world, job)
}

fn retained(world: &World, job: &JobId) -> Vec<CheckpointId> {
    let retained = world.job(job).checkpoints.retained.iter();
    retained.map(|checkpoint| checkpoint.id).collect()
}

/// The files of the newest retained checkpoint, but for one, and of the one before that, and so on.
fn files(world: &World, job: &JobId, age: usize) -> BTreeSet<String> {
    let retained = &world.job(job).checkpoints.retained;
    let checkpoint = &retained[retained.len() - 1 - age];
    checkpoint.paths().map(str::to_owned).collect()
}

/// A file that the newest has alone, and one that it shares with the one before.
fn new_and_shared(world: &World, job: &JobId) -> (String, String) {
    let (newest, before) = (files(world, job, 0), files(world, job, 1));
    let new = newest.difference(&before).next().cloned();
    let shared = newest.intersection(&before).next().cloned();
    (new.unwrap(), shared.unwrap())
}

/// The checkpoints that were found to be unusable, with what is said of each.
fn discarded(world: &World, job: &JobId) -> Vec<(CheckpointId, String)> {
    let events = world.job(job).events.iter();
    let discarded = events.filter_map(|event| match event.what {
        What::CheckpointDiscarded(id) => Some((id, event.cause.clone())),
        _ => None,
    });
    discarded.collect()
}

#[test]
fn a_damaged_file_sends_the_job_back_to_the_newest_checkpoint_without_it() {
    for is_shared in [false, true] {
        let (mut world, job) = with_three_checkpoints(&SETTINGS);
        let ids = retained(&world, &job);
        let (new, shared) = new_and_shared(&world, &job);
        let damaged = if is_shared { shared } else { new };
        let expected = if is_shared { ids[0] } else { ids[1] };
        world.damaged.insert(damaged.clone());
        world.fail_task_of(&job);
        world.run_until("another checkpoint", |world| {
            world.job(&job).checkpoints.latest().unwrap().id > ids[2]
        });
        assert_eq!(world.restored[&job][&2], ids[2]);
        assert_eq!(world.restored[&job][&3], expected, "and no attempt more");
        assert_eq!(world.attempts[&job], [1, 2, 3]);
        let discarded = discarded(&world, &job);
        let unusable: Vec<_> = discarded.iter().map(|(id, _)| *id).collect();
        let after: Vec<_> = ids
            .iter()
            .rev()
            .copied()
            .take_while(|id| *id > expected)
            .collect();
        assert_eq!(unusable, after);
        for (_, cause) in &discarded {
            assert!(cause.contains(&damaged), "{cause}");
            assert!(
                cause.contains(&format!("goes on from checkpoint {expected}")),
                "{cause}"
            );
            assert!(cause.contains("may be there twice"), "{cause}");
        }
        // What the unusable ones shared with it is still there (the fakes check it); the rest goes.
        world.run_until("the clean-up", |world| world.deleted.contains(&damaged));
    }
}

#[test]
fn a_file_that_every_checkpoint_needs_fails_the_job_which_keeps_them_all() {
    let settings = [
        SETTINGS[0],
        ("execution.checkpointing.num-retained", "2"),
        SETTINGS[2],
    ];
    let mut world = World::new(2);
    let job = world.submit(1, &settings);
    world.run_until("checkpoints", |world| {
        world.job(&job).checkpoints.completed_count >= 4
    });
    let ids = retained(&world, &job);
    let (_, shared) = new_and_shared(&world, &job);
    world.damaged.insert(shared.clone());
    world.fail_task_of(&job);
    world.run_until("the end", |world| {
        world.job(&job).status == JobStatus::Failed
    });
    assert_eq!(retained(&world, &job), ids);
    let cause = &world.job(&job).failures.last_cause;
    let newest = &world.job(&job).checkpoints.latest().unwrap().external_path;
    for part in [&shared, "does not begin empty", "put the file back", newest] {
        assert!(cause.contains(part), "{cause}");
    }
}

#[test]
fn what_one_task_manager_alone_cannot_read_is_no_reason_to_go_back() {
    let (mut world, job) = with_three_checkpoints(&SETTINGS);
    let ids = retained(&world, &job);
    let (new, _) = new_and_shared(&world, &job);
    world.misread.insert(new);
    world.fail_task_of(&job);
    world.run_until("a third attempt", |world| world.attempts[&job].len() > 2);
    let cause = world.job(&job).failures.last_cause.clone();
    assert!(cause.contains("finds that file as it should be"), "{cause}");
    world.misread.clear();
    world.run_until("another checkpoint", |world| {
        world.job(&job).checkpoints.latest().unwrap().id > ids[2]
    });
    assert_eq!(discarded(&world, &job), []);
    assert!(
        world.restored[&job]
            .values()
            .skip(1)
            .all(|id| *id == ids[2])
    );
}

#[test]
fn a_job_that_does_not_start_again_keeps_its_checkpoints() {
    let never = ("restart-strategy.type", "fixed-delay");
    let once = ("restart-strategy.fixed-delay.attempts", "1");
    let (mut world, job) = with_three_checkpoints(&[SETTINGS[0], SETTINGS[1], never, once]);
    let ids = retained(&world, &job);
    let (new, _) = new_and_shared(&world, &job);
    world.damaged.insert(new.clone());
    world.fail_task_of(&job);
    world.run_until("the end", |world| {
        world.job(&job).status == JobStatus::Failed
    });
    assert_eq!(retained(&world, &job), ids);
    assert!(world.job(&job).failures.last_cause.contains(&new));
}

#[test]
fn the_checkpoint_that_ends_a_job_is_not_gone_back_behind() {
    let (mut world, job) = with_three_checkpoints(&SETTINGS);
    world.end_input();
    world.run_until("the final checkpoint", |world| {
        world.job(&job).final_checkpoint.is_some()
    });
    let (new, _) = new_and_shared(&world, &job);
    world.damaged.insert(new.clone());
    for _ in 0..2 {
        world.kill_task_manager(0);
        world.add_task_manager();
    }
    world.run_until("the end", |world| {
        world.job(&job).status == JobStatus::Failed
    });
    let job = world.job(&job);
    let cause = &job.failures.last_cause;
    let older = &job.checkpoints.retained[1].external_path;
    for part in [&new, "about to end", "put the file back", older] {
        assert!(cause.contains(part), "{cause}");
    }
    assert_eq!(
        job.checkpoints.latest().map(|latest| latest.id),
        Some(job.final_checkpoint)
    );
}

#[test]
fn a_job_goes_back_to_what_it_was_submitted_with_and_fails_if_that_is_damaged_too() {
    let (mut world, first) = with_three_checkpoints(&SETTINGS);
    let savepoint = world.job(&first).checkpoints.latest().unwrap().clone();
    let (id, response) = world.try_submit_from(&first, &savepoint);
    assert_eq!(response, Response::Applied);
    world.run_until("its first checkpoint", |world| {
        world.job(&id).checkpoints.latest().is_some()
    });
    let own = files(&world, &id, 0).pop_first().unwrap();
    world.damaged.insert(own);
    world.fail_task_of(&id);
    world.run_until("a third attempt", |world| world.attempts[&id].len() > 2);
    let [(_, cause)] = &discarded(&world, &id)[..] else {
        panic!("one is unusable")
    };
    assert!(
        cause.contains("goes on from the state that it was submitted"),
        "{cause}"
    );
    assert_eq!(world.job(&id).checkpoints.latest(), None);

    world.run_until("that it runs", |world| {
        world.observed.all_running(world.job(&id))
    });
    let submitted = savepoint.paths().next().unwrap().to_owned();
    world.damaged.insert(submitted.clone());
    world.fail_task_of(&id);
    world.run_until("the end", |world| {
        world.job(&id).status == JobStatus::Failed
    });
    let cause = &world.job(&id).failures.last_cause;
    assert!(
        cause.contains(&submitted) && cause.contains("put the file back"),
        "{cause}"
    );
}
