//! Jobs that start from a savepoint, and who deletes it when.

use flott_proto::ids::JobId;
use flott_proto::wire::{self, command::Decision};

use crate::core::records::vertices_to_wire;
use crate::core::testing::{ALL, World, graph};
use crate::core::{JobStatus, Response};

const SETTINGS: [(&str, &str); 3] = [
    ("execution.checkpointing.interval", "50 ms"),
    ("execution.checkpointing.num-retained", "2"),
    ("restart-strategy.type", "none"),
];

/// A world with a job that has a savepoint; the job, and where the savepoint is.
fn with_savepoint() -> (World, JobId, String) {
    let mut world = World::new(2);
    let job = world.submit(1, &SETTINGS);
    world.run_until("a checkpoint", |world| {
        world.job(&job).checkpoints.completed_count > 0
    });
    world.apply(Decision::RequestSavepoint(wire::RequestSavepoint {
        namespace: "default".into(),
        job_id: job.to_string(),
        request_id: "r".into(),
        target_directory: "memory:///savepoints".into(),
        ..Default::default()
    }));
    world.run_until("a savepoint", |world| {
        !world.job(&job).checkpoints.savepoints.is_empty()
    });
    let savepoint = world.job(&job).checkpoints.savepoints[0]
        .external_path
        .clone();
    (world, job, savepoint)
}

/// Submits a job that starts from the savepoint of `of`.
fn start_from(
    world: &mut World,
    of: &JobId,
    claims: bool,
    settings: &[(&str, &str)],
) -> (JobId, Response) {
    let savepoint = world.job(of).checkpoints.savepoints[0].clone();
    let id = JobId::generate();
    let mut configuration = (*world.job(of).configuration).clone();
    let settings = settings.iter();
    configuration.extend(settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let response = world.apply(Decision::SubmitJob(wire::SubmitJob {
        namespace: "default".into(),
        job_id: id.to_string(),
        graph: Some((&graph(1)).into()),
        configuration,
        restore: Some(wire::CheckpointMetadata {
            version: 1,
            vertices: vertices_to_wire(&savepoint.subtasks, |_| 1),
            ..Default::default()
        }),
        restore_root: savepoint.external_path.clone(),
        claimed_directory: if claims {
            savepoint.external_path.clone()
        } else {
            String::new()
        },
        ..Default::default()
    }));
    (id, response)
}

fn cancel(world: &mut World, job: &JobId) {
    world.apply(Decision::CancelJob(wire::CancelJob {
        namespace: "default".into(),
        job_id: job.to_string(),
    }));
    world.run_until("its end", |world| world.job(job).status.is_terminal());
}

#[test]
fn a_claimed_savepoint_goes_once_the_job_has_its_own_checkpoints_whoever_leads_at_which_step() {
    for cut in 1..8 {
        let (mut world, first, savepoint) = with_savepoint();
        let (job, response) = start_from(&mut world, &first, true, &[]);
        assert_eq!(response, Response::Applied);
        let (_, second) = start_from(&mut world, &first, true, &[]);
        assert!(
            matches!(&second, Response::Refused(reason) if reason.contains("has claimed")),
            "{second:?}"
        );
        for step in 0.. {
            assert!(step < 500, "it is never deleted");
            let retained = world.job(&job).checkpoints.retained.len();
            if !world.savepoints.contains_key(&savepoint) {
                assert_eq!(retained, 2);
                break;
            }
            world.step(10, if step % 3 == 0 { cut } else { ALL });
            if step % 3 == 0 {
                world.change_leader();
            }
        }
        world.run_until("it is forgotten", |world| {
            world.job(&job).checkpoints.retired_directories.is_empty()
        });
        assert!(world.job(&first).checkpoints.savepoints.is_empty());
        world.run_until("it goes on", |world| {
            world.job(&job).checkpoints.completed_count > 4
        });
        assert_eq!(world.attempts[&job], [1], "cut {cut}");
    }
}

#[test]
fn a_claimed_savepoint_waits_for_a_job_that_has_nothing_else_to_start_from() {
    let (mut world, first, savepoint) = with_savepoint();
    let never = [("execution.checkpointing.interval", "0 ms")];
    let (other, response) = start_from(&mut world, &first, false, &never);
    assert_eq!(response, Response::Applied);
    let (job, response) = start_from(&mut world, &first, true, &[]);
    assert_eq!(response, Response::Applied);
    world.run_until("checkpoints of its own", |world| {
        world.job(&job).checkpoints.completed_count > 4
    });
    assert!(world.savepoints.contains_key(&savepoint));
    let (_, late) = start_from_path(&mut world, &first, &savepoint);
    assert!(
        matches!(&late, Response::Refused(reason) if reason.contains("is being deleted")),
        "{late:?}"
    );
    cancel(&mut world, &other);
    world.run_until("it is deleted", |world| {
        !world.savepoints.contains_key(&savepoint)
    });
}

/// As [`start_from`], of a savepoint that no job lists any more.
fn start_from_path(world: &mut World, of: &JobId, directory: &str) -> (JobId, Response) {
    let id = JobId::generate();
    let response = world.apply(Decision::SubmitJob(wire::SubmitJob {
        namespace: "default".into(),
        job_id: id.to_string(),
        graph: Some((&graph(1)).into()),
        configuration: (*world.job(of).configuration).clone(),
        restore: Some(wire::CheckpointMetadata::default()),
        restore_root: directory.to_owned(),
        ..Default::default()
    }));
    (id, response)
}

#[test]
fn a_claim_ends_with_the_job_and_a_failed_one_gives_the_savepoint_back() {
    for fails in [true, false] {
        let (mut world, first, savepoint) = with_savepoint();
        let never = [("execution.checkpointing.interval", "0 ms")];
        let (job, response) = start_from(&mut world, &first, true, &never);
        assert_eq!(response, Response::Applied);
        world.run_until("that it runs", |world| {
            world.observed.all_running(world.job(&job))
        });
        if fails {
            world.fail_task_of(&job);
            world.run_until("its end", |world| {
                world.job(&job).status == JobStatus::Failed
            });
        } else {
            cancel(&mut world, &job);
        }
        for _ in 0..10 {
            world.step(10, ALL);
        }
        assert_eq!(world.savepoints.contains_key(&savepoint), fails);
        assert_eq!(world.job(&job).claimed, None);
    }
}
