//! What `apply` refuses.

use flott_proto::wire::{self, command::Decision};

use crate::core::testing::World;
use crate::core::{JobStatus, Response};

fn refused(response: Response) -> String {
    match response {
        Response::Refused(reason) => reason,
        Response::Applied | Response::Kv(_) => panic!("it was applied"),
    }
}

#[test]
fn a_deposed_leader_decides_nothing() {
    let mut world = World::new(2);
    let job = world.submit(2, &[]);
    let stale = world.state.epoch.0;
    world.change_leader();
    let cancel = wire::CancelJob {
        namespace: "default".into(),
        job_id: job.to_string(),
    };
    let command = wire::Command {
        now_ms: 0,
        epoch: stale,
        decision: Some(Decision::CancelJob(cancel)),
    };
    let before = world.state.clone();
    assert!(refused(world.state.apply(99, &command)).contains("not in office"));
    assert_eq!(world.state.jobs, before.jobs);
}

#[test]
fn a_repeated_submission_is_the_same_job_and_another_graph_is_not() {
    let mut world = World::new(2);
    let job = world.submit(2, &[]);
    let mut submit = wire::SubmitJob {
        namespace: "default".into(),
        job_id: job.to_string(),
        graph: Some((&*world.job(&job).graph.clone()).into()),
        ..Default::default()
    };
    assert_eq!(
        world.apply(Decision::SubmitJob(submit.clone())),
        Response::Applied
    );
    assert_eq!(world.state.jobs.len(), 1);
    submit.namespace = "other".into();
    assert!(refused(world.apply(Decision::SubmitJob(submit))).contains("another job"));
}

#[test]
fn a_job_that_has_ended_never_runs_again() {
    let mut world = World::new(2);
    let job = world.submit(2, &[]);
    let cancel = wire::CancelJob {
        namespace: "default".into(),
        job_id: job.to_string(),
    };
    world.apply(Decision::CancelJob(cancel));
    for _ in 0..10 {
        world.step(10, usize::MAX);
    }
    assert_eq!(world.job(&job).status, JobStatus::Canceled);
    let attempt = world.job(&job).attempt.next().0;
    let start = wire::StartAttempt {
        job_id: job.to_string(),
        attempt,
        assignments: vec![],
    };
    assert!(refused(world.apply(Decision::StartAttempt(start))).contains("starts no attempt"));
    let end = wire::EndJob {
        job_id: job.to_string(),
        attempt: attempt - 1,
        state: "FINISHED".into(),
    };
    assert!(refused(world.apply(Decision::EndJob(end))).contains("has ended"));
}

#[test]
fn a_namespace_cannot_touch_the_jobs_of_another() {
    let mut world = World::new(2);
    let job = world.submit(2, &[]);
    let cancel = wire::CancelJob {
        namespace: "other".into(),
        job_id: job.to_string(),
    };
    assert!(refused(world.apply(Decision::CancelJob(cancel))).contains("no job"));
    assert!(
        world
            .state
            .job_in(&"other".parse().unwrap(), &job)
            .is_none()
    );
}

#[test]
fn log_time_never_goes_back() {
    let mut world = World::new(1);
    world.now.wall_ms = 500;
    let before = world.state.log_time_ms;
    world.submit(1, &[]);
    assert_eq!(world.state.log_time_ms, before);
}
