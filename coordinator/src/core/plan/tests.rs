//! The planners against a cluster of fakes: a whole job's life, with leaders and TaskManagers dying at any step.

use proptest::prelude::*;

use crate::core::observed::UnderWay;
use crate::core::plan;
use crate::core::testing::{ALL, World};
use crate::core::{Digester, JobStatus, Response};

const SETTINGS: [(&str, &str); 2] = [
    ("execution.checkpointing.interval", "100 ms"),
    ("restart-strategy.exponential-delay.initial-backoff", "0 ms"),
];

#[test]
fn a_job_runs_takes_checkpoints_and_finishes_with_its_input() {
    let mut world = World::new(2);
    let job = world.submit(4, &SETTINGS);
    world.run_until("five checkpoints", |world| {
        world.job(&job).checkpoints.completed_count >= 5
    });
    assert_eq!(
        world.job(&job).checkpoints.retained.len(),
        1,
        "num-retained is 1"
    );
    assert!(
        !world.deleted.is_empty(),
        "files that no checkpoint needs are deleted"
    );
    world.end_input();
    world.run_until("the end", |world| {
        world.job(&job).status == JobStatus::Finished
    });
    world.run_until("the clean-up", |world| {
        world.job(&job).checkpoints.retired.is_empty()
    });
    assert_eq!(world.attempts[&job], [1]);
}

#[test]
fn a_job_without_slots_waits_and_says_so_and_starts_when_there_are_some() {
    let mut world = World::new(1);
    let job = world.submit(4, &SETTINGS);
    world.step(10, ALL);
    assert_eq!(world.job(&job).status, JobStatus::Created);
    world.add_task_manager();
    world.run_until("the start", |world| {
        world.job(&job).status == JobStatus::Running
    });
}

#[test]
fn a_leader_change_restarts_no_task_even_in_the_middle_of_a_checkpoint() {
    for cut in 0..24 {
        let mut world = World::new(2);
        let job = world.submit(4, &SETTINGS);
        world.run_until("a checkpoint", |world| {
            world.job(&job).checkpoints.completed_count >= 1
        });
        for _ in 0..cut / 2 {
            world.step(20, ALL);
        }
        world.step(20, cut % 5 + 1);
        world.change_leader();
        let before = world.job(&job).checkpoints.completed_count;
        world.run_until("more checkpoints", |world| {
            world.job(&job).checkpoints.completed_count >= before + 3
        });
        assert_eq!(world.attempts[&job], [1], "cut {cut}");
    }
}

#[test]
fn a_lost_task_manager_restarts_the_job_on_its_replacement() {
    let mut world = World::new(2);
    let job = world.submit(4, &SETTINGS);
    world.run_until("a checkpoint", |world| {
        world.job(&job).checkpoints.completed_count >= 1
    });
    world.kill_task_manager(0);
    world.add_task_manager();
    world.run_until("attempt 2", |world| world.job(&job).attempt.0 == 2);
    assert!(
        world.job(&job).failures.last_cause.contains("tm-1"),
        "{}",
        world.job(&job).failures.last_cause
    );
    let before = world.job(&job).checkpoints.completed_count;
    world.run_until("a checkpoint again", |world| {
        world.job(&job).checkpoints.completed_count > before
    });
}

/// Found by reading: it went on from the last checkpoint, and was finished without the rows between that and the savepoint.
#[test]
fn a_job_that_fails_while_it_is_being_stopped_goes_on_from_the_savepoint() {
    let mut world = World::new(2);
    let job = world.submit(4, &SETTINGS);
    world.run_until("a checkpoint", |world| {
        world.job(&job).checkpoints.completed_count >= 1
    });
    let request = flott_proto::wire::RequestSavepoint {
        namespace: "default".into(),
        job_id: job.to_string(),
        request_id: "r".into(),
        target_directory: "memory:///savepoints".into(),
        stop: true,
        ..Default::default()
    };
    let mut again = request.clone();
    world.apply(flott_proto::wire::command::Decision::RequestSavepoint(
        request,
    ));
    world.run_until("the savepoint", |world| {
        world.job(&job).final_checkpoint.is_some()
    });
    world.kill_task_manager(0);
    world.add_task_manager();
    world.run_until("the end", |world| {
        world.job(&job).status == JobStatus::Finished
    });
    let savepoint = world.job(&job).final_checkpoint;
    assert_eq!(world.restored[&job][&2], savepoint);
    // Whoever asks once more because the answer was lost is told what came of it.
    again.request_id = "s".into();
    let again = world.apply(flott_proto::wire::command::Decision::RequestSavepoint(
        again,
    ));
    assert!(
        matches!(&again, Response::Refused(why) if why.contains("it took is memory:///savepoints/")),
        "{again:?}"
    );
}

#[test]
fn a_failure_without_restarts_fails_the_job_and_keeps_its_checkpoints() {
    let mut world = World::new(2);
    let job = world.submit(2, &[SETTINGS[0], ("restart-strategy.type", "none")]);
    world.run_until("a checkpoint", |world| {
        world.job(&job).checkpoints.completed_count >= 1
    });
    world.fail_task(1);
    world.run_until("the failure", |world| {
        world.job(&job).status == JobStatus::Failed
    });
    assert!(world.job(&job).failures.last_cause.contains("on purpose"));
    assert_eq!(world.job(&job).checkpoints.retained.len(), 1);
}

#[derive(Clone, Debug)]
enum Fault {
    None,
    ChangeLeader,
    CutOffLeaderAfter(usize),
    ReplaceTaskManager(usize),
    FailTask(usize),
    Damage(usize),
    CollectOrphans,
    Cancel,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        20 => Just(Fault::None),
        2 => Just(Fault::ChangeLeader),
        2 => (0usize..6).prop_map(Fault::CutOffLeaderAfter),
        1 => (0usize..8).prop_map(Fault::ReplaceTaskManager),
        1 => (0usize..8).prop_map(Fault::FailTask),
        1 => (0usize..64).prop_map(Fault::Damage),
        1 => Just(Fault::CollectOrphans),
    ]
}

/// Found by `chaos many-jobs`: six jobs on five slots, and the sixth waited for ever.
#[test]
fn a_slot_is_promised_to_one_job_only_while_starts_are_being_replicated() {
    let mut world = World::new(1);
    world.step(10, usize::MAX);
    let slots = world.slots as usize;
    let start = |world: &mut World| {
        let plan = plan(&world.state, &world.observed, &world.settings, world.now);
        for (job, decision) in &plan.proposals {
            let what = UnderWay::Proposal(job.clone());
            world.observed.on_proposed(what, decision);
        }
        plan.proposals.len()
    };
    for _ in 1..slots {
        world.submit(1, &SETTINGS);
    }
    assert_eq!(start(&mut world), slots - 1);
    // None of them is applied yet, and one slot is left.
    world.submit(1, &SETTINGS);
    world.submit(1, &SETTINGS);
    assert_eq!(start(&mut world), 1);
    assert_eq!(start(&mut world), 0);
    let job = world.observed.starting.keys().next().cloned().unwrap();
    world.observed.on_decided(&UnderWay::Proposal(job));
    assert_eq!(start(&mut world), 1, "that of the start that was refused");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever dies or is damaged and whenever: state is consistent after each entry (checked in `World::apply`), no
    /// deleted file is ever restored and no change is against a base that its task does not know (checked in the fakes),
    /// attempts follow one another, none begins empty once there was a checkpoint, and a job that is left alone finishes;
    /// or it fails, and says which file is to be put back.
    #[test]
    fn any_sequence_of_faults_heals(
        faults in prop::collection::vec((fault(), 1u64..60), 1..120),
        retain in 1u32..4,
        cancel in any::<bool>(),
    ) {
        let mut world = World::new(3);
        let retain = retain.to_string();
        let settings = [SETTINGS.as_slice(), &[("execution.checkpointing.num-retained", retain.as_str())]].concat();
        let job = world.submit(4, &settings);
        let mut faults = faults;
        if cancel {
            faults.push((Fault::Cancel, 1));
        }
        for (fault, advance_ms) in faults {
            match fault {
                Fault::None => world.step(advance_ms, ALL),
                Fault::ChangeLeader => world.change_leader(),
                Fault::CutOffLeaderAfter(effects) => {
                    world.step(advance_ms, effects + 1);
                    world.change_leader();
                }
                Fault::ReplaceTaskManager(choice) => {
                    world.kill_task_manager(choice);
                    world.add_task_manager();
                }
                Fault::FailTask(choice) => world.fail_task(choice),
                Fault::Damage(choice) => world.damage(&job, choice),
                Fault::CollectOrphans => drop(world.collect_orphans(&job)),
                Fault::Cancel => {
                    let cancel = flott_proto::wire::CancelJob { namespace: "default".into(), job_id: job.to_string() };
                    world.apply(flott_proto::wire::command::Decision::CancelJob(cancel));
                }
            }
        }
        for _ in 0..600 {
            world.end_input();
            world.step(10, ALL);
        }
        match world.job(&job).status {
            JobStatus::Failed => {
                let cause = &world.job(&job).failures.last_cause;
                prop_assert!(world.damaged.iter().any(|path| cause.contains(path)), "{}", cause);
                prop_assert!(cause.contains("put the file back"), "{}", cause);
            }
            status => {
                prop_assert_eq!(status, if cancel { JobStatus::Canceled } else { JobStatus::Finished });
            }
        }
        let restored: Vec<u64> = world.restored.get(&job).into_iter().flatten().map(|(_, checkpoint)| checkpoint.0).collect();
        prop_assert!(restored.iter().skip_while(|id| **id == 0).all(|id| *id != 0), "{:?}", restored);
        let expected: Vec<u32> = (1..=world.attempts.get(&job).map_or(0, Vec::len) as u32).collect();
        prop_assert_eq!(world.attempts.get(&job).cloned().unwrap_or_default(), expected);
        world.run_until("the clean-up", |world| world.job(&job).checkpoints.retired.is_empty());
    }

    /// A snapshot of the state at any moment is the state; and its digest is the same whether computed at once or all along.
    #[test]
    fn records_round_trip(faults in prop::collection::vec((fault(), 1u64..60), 1..40)) {
        let mut world = World::new(2);
        let mut digester = Digester::default();
        let job = world.submit(2, &SETTINGS);
        for (fault, advance_ms) in faults {
            match fault {
                Fault::FailTask(choice) => world.fail_task(choice),
                Fault::ChangeLeader => world.change_leader(),
                _ => world.step(advance_ms, ALL),
            }
            let read = crate::core::ClusterState::from_records(world.state.records());
            prop_assert_eq!(read.as_ref(), Ok(&world.state));
            let digest = digester.digest(&world.state);
            prop_assert_eq!(Digester::default().digest(&read.unwrap()), digest);
        }
        prop_assert!(world.state.jobs.contains_key(&job));
    }
}
