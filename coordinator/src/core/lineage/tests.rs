//! Another lineage takes over in the middle of anything.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::core::checkpoint::PendingRecord;
use crate::core::testing::World;

const SETTINGS: [(&str, &str); 2] = [
    ("execution.checkpointing.interval", "50 ms"),
    ("restart-strategy.exponential-delay.initial-backoff", "0 ms"),
];

fn member() -> ActiveLeader {
    ActiveLeader {
        node: flott_proto::ids::NodeId(9),
        incarnation: "life".into(),
        address: "a:1".into(),
    }
}

fn beginning(last_index: u64) -> Beginning {
    Beginning {
        predecessor: "c".parse().unwrap(),
        last_index,
        origin: Origin::Backup,
        member: member(),
        surveyed: BTreeMap::new(),
    }
}

/// A job that runs and has completed some checkpoints.
fn running() -> (World, JobId) {
    let mut world = World::new(2);
    let job = world.submit(2, &SETTINGS);
    for _ in 0..1000 {
        if world.job(&job).checkpoints.completed_count > 3 {
            return (world, job);
        }
        world.step(10, usize::MAX);
    }
    panic!("the job takes no checkpoints");
}

#[test]
fn every_number_begins_where_the_old_lineage_cannot_have_come() {
    let (mut world, id) = running();
    let before = world.job(&id).clone();
    world.state.revision = 7;
    let first = world.state.begin_lineage(beginning(99)).unwrap();
    world.state.check();
    assert_eq!(first, STRIDE);
    let (state, job) = (&world.state, world.job(&id));
    assert_eq!((state.epoch, state.revision), (LeaderEpoch(STRIDE), STRIDE));
    assert_eq!(state.leader, Some(member()));
    assert!(state.succeeds("c") && !state.succeeds("d"));
    assert_eq!(job.status, JobStatus::Restarting);
    assert_eq!(job.attempt.next().0, ATTEMPT_STRIDE);
    assert_eq!(job.checkpoints.last_id, CheckpointId(STRIDE));
    assert_eq!(job.checkpoints.pending, None);
    assert_eq!(job.checkpoints.retained, before.checkpoints.retained);
    assert!(job.checkpoints.retired.is_empty());
    // And once more, from there.
    let second = world.state.begin_lineage(beginning(first + 5)).unwrap();
    assert_eq!(second, 2 * STRIDE);
    assert_eq!(world.job(&id).attempt.next().0, 2 * ATTEMPT_STRIDE);
    let read = ClusterState::from_records(world.state.records()).unwrap();
    assert_eq!(read, world.state);
}

#[test]
fn a_job_goes_on_in_the_new_lineage_and_deletes_nothing_of_the_old_one() {
    let (mut world, id) = running();
    let of_old = world.job(&id).checkpoints.retained.clone();
    let deleted_before = world.deleted.clone();
    world.found_lineage("d", beginning(500));
    for _ in 0..500 {
        if world
            .job(&id)
            .checkpoints
            .latest()
            .is_some_and(|newest| newest.id.0 > STRIDE + 3)
            && world.job(&id).checkpoints.retired.is_empty()
        {
            break;
        }
        world.step(10, usize::MAX);
    }
    let job = world.job(&id);
    assert_eq!(
        (job.status, job.attempt.0),
        (JobStatus::Running, ATTEMPT_STRIDE)
    );
    let newest = job.checkpoints.latest().unwrap();
    assert!(newest.id.0 > STRIDE + 3, "{newest:?}");
    let deleted: BTreeSet<_> = world.deleted.difference(&deleted_before).collect();
    assert!(
        deleted.iter().all(|path| path.starts_with("d/")),
        "{deleted:?}"
    );
    assert!(!of_old.is_empty() && job.checkpoints.retired.is_empty());
}

/// The old lineage may complete the savepoint that the new one knows as begun, and may have a use for what was claimed.
#[test]
fn the_new_lineage_deletes_no_savepoint_of_the_old_one() {
    let (mut world, id) = running();
    let job = Arc::make_mut(world.state.jobs.get_mut(&id).unwrap());
    job.checkpoints.last_id = job.checkpoints.last_id.next();
    job.checkpoints.pending = Some(PendingRecord {
        id: job.checkpoints.last_id,
        kind: CheckpointKind::Savepoint,
        attempt: job.attempt,
        triggered_at_ms: 0,
        base: CheckpointId::NONE,
        savepoint_directory: "memory:///begun".into(),
    });
    let used_up = "memory:///used-up".to_owned();
    job.checkpoints.retired_directories.insert(used_up, 0);
    job.claimed = Some("memory:///claimed".into());
    world.state.begin_lineage(beginning(99)).unwrap();
    world.state.check();
    let job = world.job(&id);
    assert!(job.checkpoints.retired_directories.is_empty());
    assert_eq!((&job.claimed, &job.checkpoints.pending), (&None, &None));
}

#[test]
fn a_job_begins_from_what_was_found_in_storage() {
    let (mut world, id) = running();
    let newest = world.job(&id).checkpoints.latest().unwrap().clone();
    let found = Arc::new(CompletedCheckpoint {
        id: CheckpointId(newest.id.0 + 40),
        ..(*newest).clone()
    });
    let mut beginning = beginning(99);
    let usable = Surveyed::Usable(vec![Arc::clone(&found)]);
    beginning.surveyed.insert(id.clone(), usable);
    world.state.begin_lineage(beginning).unwrap();
    world.state.check();
    assert_eq!(world.job(&id).checkpoints.retained, [found]);
}

#[test]
fn a_job_whose_checkpoints_are_lost_fails_instead_of_beginning_anew() {
    let (mut world, id) = running();
    let mut beginning = beginning(99);
    let lost = Surveyed::Lost("its files are gone".into());
    beginning.surveyed.insert(id.clone(), lost);
    world.found_lineage("d", beginning);
    for _ in 0..1000 {
        world.step(10, usize::MAX);
    }
    let job = world.job(&id);
    assert_eq!(job.status, JobStatus::Failed);
    assert!(
        job.failures.last_cause.contains("files are gone"),
        "{:?}",
        job.failures
    );
    assert_eq!(world.attempts[&id].len(), 1);
}

#[test]
fn a_job_that_waited_for_its_first_attempt_starts_with_a_new_number() {
    let mut world = World::new(0);
    let id = world.submit(2, &SETTINGS);
    world.found_lineage("d", beginning(99));
    world.add_task_manager();
    world.add_task_manager();
    for _ in 0..20 {
        world.step(10, usize::MAX);
    }
    let job = world.job(&id);
    assert_eq!(
        (job.status, job.attempt.0),
        (JobStatus::Running, ATTEMPT_STRIDE)
    );
}

#[test]
fn the_number_of_predecessors_is_bounded() {
    let mut state = ClusterState::default();
    for n in 0..=PREDECESSORS_MAX as u64 {
        let mut next = beginning(n * STRIDE);
        next.predecessor = format!("c{n}").parse().unwrap();
        state.begin_lineage(next).unwrap();
    }
    assert!(!state.succeeds("c0") && state.succeeds("c1"));
    assert_eq!(state.lineage.len(), PREDECESSORS_MAX);
}

#[test]
fn numbers_that_are_used_up_are_refused() {
    assert_eq!(next_stride(u64::MAX), Err(Exhausted(u64::MAX)));
    assert!(next_attempt_stride(AttemptNumber(u32::MAX)).is_err());
}

proptest! {
    #[test]
    fn the_next_stride_is_the_lowest_multiple_above(last in 0..u64::MAX - 2 * STRIDE) {
        let next = next_stride(last).unwrap();
        prop_assert!(next > last && next - last <= STRIDE && next.is_multiple_of(STRIDE));
    }

    /// Whatever was going on: the state is consistent, survives a snapshot, and every job that had not ended goes on.
    #[test]
    fn a_lineage_may_begin_at_any_moment(
        choices in proptest::collection::vec((0_u8..6, 0_usize..8), 1..60), last in 1_u64..1 << 40,
    ) {
        let mut world = World::new(2);
        let id = world.submit(2, &SETTINGS);
        for (choice, which) in choices {
            match choice {
                0 => world.fail_task(which),
                1 => world.change_leader(),
                2 => world.end_input(),
                _ => world.step(20, which),
            }
        }
        let before = world.job(&id).clone();
        world.found_lineage("d", beginning(last));
        world.state.check();
        let read = ClusterState::from_records(world.state.records()).unwrap();
        prop_assert_eq!(&read, &world.state);
        for _ in 0..400 {
            world.step(20, usize::MAX);
        }
        let after = world.job(&id);
        if before.status.is_terminal() {
            prop_assert_eq!(after.status, before.status);
        } else {
            prop_assert!(matches!(after.status, JobStatus::Running | JobStatus::Finished), "{}", after.status);
            prop_assert!(after.attempt.0 >= ATTEMPT_STRIDE);
        }
    }
}
