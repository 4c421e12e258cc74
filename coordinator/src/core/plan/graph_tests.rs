//! Jobs whose graph is too large for the log.

use flott_proto::ids::JobId;
use flott_proto::wire::{self, command::Decision};

use crate::core::testing::World;
use crate::core::{ClusterState, JobStatus, Response};

const ALL: usize = usize::MAX;

fn run_until(world: &mut World, what: &str, done: impl Fn(&World) -> bool) {
    for _ in 0..1000 {
        if done(world) {
            return;
        }
        world.step(10, ALL);
    }
    panic!("did not come about: {what}");
}

fn cancel(world: &mut World, job: &JobId) {
    let cancel = wire::CancelJob {
        namespace: "default".into(),
        job_id: job.to_string(),
    };
    world.apply(Decision::CancelJob(cancel));
    run_until(world, "the end", |world| {
        world.job(job).status == JobStatus::Canceled
    });
}

#[test]
fn a_large_graph_is_read_when_it_is_needed_and_only_then() {
    let mut world = World::new(2);
    let (job, response) = world.try_submit_large(2);
    assert_eq!(response, Response::Applied);
    assert!(world.job(&job).graph.vertices[0].chain.is_empty());
    world.step(10, ALL);
    assert_eq!(world.job(&job).status, JobStatus::Created);
    assert!(world.notes[&job].contains("graphs/"), "{:?}", world.notes);
    run_until(&mut world, "a checkpoint", |world| {
        world.job(&job).checkpoints.completed_count > 0
    });
    assert_eq!(world.graphs_read, 1);
    // A new leader finds the tasks and needs no graph; until something has to be deployed.
    world.change_leader();
    for _ in 0..20 {
        world.step(10, ALL);
    }
    assert_eq!(
        (world.graphs_read, &world.attempts[&job][..]),
        (1, &[1][..])
    );
    world.fail_task(0);
    run_until(&mut world, "attempt 2", |world| {
        world.job(&job).attempt.0 == 2 && world.job(&job).is_running()
    });
    assert_eq!(world.graphs_read, 2);
    let read = ClusterState::from_records(world.state.records());
    assert_eq!(read.as_ref(), Ok(&world.state));
}

#[test]
fn a_graph_that_cannot_be_read_makes_the_job_wait_and_say_so() {
    let mut world = World::new(1);
    let (job, _) = world.try_submit_large(1);
    let path = world.job(&job).graph_object.as_ref().unwrap().path.clone();
    world.deleted.insert(path.clone());
    for _ in 0..5 {
        world.step(10, ALL);
    }
    assert_eq!(world.job(&job).status, JobStatus::Created);
    assert!(world.notes[&job].contains("cannot be read"));
    world.deleted.remove(&path);
    run_until(&mut world, "the start", |world| {
        world.job(&job).is_running()
    });
}

#[test]
fn a_shared_graph_goes_with_the_last_job_and_nobody_starts_with_it_while_it_goes() {
    let mut world = World::new(2);
    let (first, _) = world.try_submit_large(1);
    let (second, _) = world.try_submit_large(1);
    let path = world
        .job(&first)
        .graph_object
        .as_ref()
        .unwrap()
        .path
        .clone();
    assert_eq!(
        Some(&path),
        world.job(&second).graph_object.as_ref().map(|o| &o.path)
    );
    cancel(&mut world, &first);
    for _ in 0..5 {
        world.step(10, ALL);
    }
    assert!(!world.deleted.contains(&path), "the second needs it");
    cancel(&mut world, &second);
    assert!(world.job(&second).checkpoints.retired.contains(&path));
    let (_, response) = world.try_submit_large(1);
    assert!(
        matches!(&response, Response::Refused(reason) if reason.contains("being deleted")),
        "{response:?}"
    );
    run_until(&mut world, "it is deleted", |world| {
        world.job(&second).checkpoints.retired.is_empty()
    });
    assert!(world.deleted.remove(&path), "and written anew");
    let (third, response) = world.try_submit_large(1);
    assert_eq!(response, Response::Applied);
    run_until(&mut world, "the start", |world| {
        world.job(&third).is_running()
    });
}
