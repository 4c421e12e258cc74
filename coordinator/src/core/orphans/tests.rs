//! Which objects are orphans. That no orphan is ever needed again is checked in `plan/tests.rs`, among all other faults.

use flott_proto::ids::{AttemptNumber, CheckpointId, JobId};
use flott_proto::paths;

use super::*;
use crate::core::JobStatus;
use crate::core::testing::World;

const SETTINGS: [(&str, &str); 2] = [
    ("execution.checkpointing.interval", "100 ms"),
    ("restart-strategy.exponential-delay.initial-backoff", "0 ms"),
];

/// A job with a checkpoint, whose first attempt died between the acknowledgements of the next one and its completion.
fn interrupted() -> (World, JobId) {
    let mut world = World::new(2);
    let job = world.submit(1, &SETTINGS);
    let pending = |world: &World| world.job(&job).checkpoints.pending.is_some();
    while world.job(&job).checkpoints.completed_count < 2 || !pending(&world) {
        world.step(10, usize::MAX);
    }
    // The trigger goes out and is answered at once; nobody hears the answer.
    world.step(10, usize::MAX);
    assert!(pending(&world));
    world.fail_task_of(&job);
    while !(world.job(&job).status == JobStatus::Running && world.attempts[&job].len() == 2) {
        world.step(10, usize::MAX);
    }
    (world, job)
}

#[test]
fn what_a_dead_attempt_left_behind_is_found_and_what_is_kept_is_not() {
    let (mut world, job) = interrupted();
    let kept: Vec<String> = {
        let latest = world.job(&job).checkpoints.latest().unwrap();
        let metadata = latest.metadata_object.clone();
        latest.paths().map(str::to_owned).chain(metadata).collect()
    };
    let found = world.collect_orphans(&job);
    assert!(!found.is_empty());
    for orphan in &found {
        assert_eq!(
            orphan.why,
            Why::ClosedWriter(AttemptNumber(1)),
            "{orphan:?}"
        );
        assert!(!kept.contains(&orphan.path), "{orphan:?}");
    }
    let left = world.objects_of(&job);
    assert!(kept.iter().all(|path| left.contains(path)));
    assert_eq!(world.collect_orphans(&job), [], "they are gone");
}

#[test]
fn a_file_is_judged_by_its_writer_and_metadata_by_its_checkpoint() {
    let (world, id) = interrupted();
    let job = world.job(&id);
    let directory = paths::job(&world.settings.cluster, &job.namespace, &id);
    let writer = |attempt| {
        let subtask = job.subtasks().next().unwrap();
        paths::writer(
            &directory,
            job.attempt_epoch,
            AttemptNumber(attempt),
            &subtask,
        )
    };
    let last = job.checkpoints.last_id;
    let metadata = |id| format!("{}/{}", paths::checkpoint(&directory, id), paths::METADATA);
    let closed = Some(Why::ClosedWriter(AttemptNumber(1)));
    for (path, expected) in [
        (paths::state_file(&writer(1), 99), closed),
        (paths::state_file(&writer(2), 99), None),
        (paths::state_file(&writer(3), 99), None),
        (metadata(last), Some(Why::CheckpointIsOver(last))),
        (metadata(last.next()), None),
        (
            metadata(CheckpointId(1)),
            Some(Why::CheckpointIsOver(CheckpointId(1))),
        ),
        (format!("{directory}/shared/mine/1"), None),
        (format!("{directory}/notes.txt"), None),
        ("c/default/another/shared/1-1-v-0/1".to_owned(), None),
    ] {
        let objects = vec![(path.clone(), 7)];
        let found = orphans(&world.state, &world.settings.cluster, job, objects);
        let why = found.first().map(|orphan| orphan.why);
        assert_eq!(why, expected, "{path}");
    }
}

#[test]
fn what_is_kept_retired_or_to_be_started_from_is_no_orphan() {
    let (mut world, job) = interrupted();
    let named = |name: &str| format!("c/default/{job}/shared/1-1-source-0/{name}");
    let objects = || {
        ["retired", "of-another", "nobodys"]
            .map(|name| (named(name), 1))
            .to_vec()
    };
    let mut changed = world.job(&job).clone();
    changed.checkpoints.retired.insert(named("retired"));
    world.state.jobs.insert(job.clone(), changed.into());
    let (other, _) = world.try_submit("default", 1, &SETTINGS);
    let mut starting = world.job(&other).clone();
    let latest = world.job(&job).checkpoints.latest().unwrap();
    let mut subtasks = latest.subtasks.clone();
    let state = subtasks.values_mut().next().unwrap();
    let mut file = state.files.pop_first().unwrap().1;
    file.path = named("of-another");
    state.files.insert(file.path.clone(), file);
    starting.restore = Some(
        crate::core::checkpoint::RestorePoint {
            root: "memory:///test".into(),
            subtasks,
            parallelism: Default::default(),
        }
        .into(),
    );
    world.state.jobs.insert(other, starting.into());
    let found = orphans(
        &world.state,
        &world.settings.cluster,
        world.job(&job),
        objects(),
    );
    let found: Vec<_> = found.into_iter().map(|orphan| orphan.path).collect();
    assert_eq!(found, [named("nobodys")]);
}
