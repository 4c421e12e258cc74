//! Namespaces and quotas: what is refused, and what holds whatever is decided in whichever order.

use std::collections::BTreeSet;

use flott_proto::ids::{JobId, Namespace};
use flott_proto::wire::{self, command::Decision};
use proptest::prelude::*;

use crate::core::namespace::{NamespaceState, Quota};
use crate::core::testing::World;
use crate::core::{ClusterState, Digester, JobStatus, Response};

fn refused(response: Response) -> String {
    match response {
        Response::Refused(reason) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

fn create(name: &str, quota: Quota) -> Decision {
    Decision::CreateNamespace(wire::CreateNamespace {
        name: name.into(),
        quota: Some(quota.into()),
    })
}

fn update(name: &str, quota: Quota) -> Decision {
    Decision::UpdateNamespace(wire::UpdateNamespace {
        name: name.into(),
        quota: Some(quota.into()),
    })
}

fn delete(name: &str) -> Decision {
    Decision::DeleteNamespace(wire::DeleteNamespace { name: name.into() })
}

fn purge(name: &str) -> Decision {
    Decision::PurgeNamespace(wire::PurgeNamespace { name: name.into() })
}

const TWO_JOBS: Quota = Quota {
    jobs: 2,
    slots: 0,
    kv_bytes: 0,
    checkpoint_bytes: 0,
};

#[test]
fn a_repeated_creation_is_answered_alike_and_another_quota_is_refused() {
    let mut world = World::new(0);
    assert_eq!(world.apply(create("team", TWO_JOBS)), Response::Applied);
    let before = world.state.namespaces.clone();
    assert_eq!(world.apply(create("team", TWO_JOBS)), Response::Applied);
    assert_eq!(world.state.namespaces, before);
    let reason = refused(world.apply(create("team", Quota::default())));
    assert!(reason.contains("flott namespace update team"), "{reason}");
    assert!(refused(world.apply(create("Team", TWO_JOBS))).contains("a-z"));
}

#[test]
fn what_is_not_there_or_is_being_deleted_takes_nothing_in_and_says_why() {
    let mut world = World::new(0);
    let (_, response) = world.try_submit("team", 1, &[]);
    assert!(refused(response).contains("flott namespace create team"));
    assert!(refused(world.apply(update("team", TWO_JOBS))).contains("create team"));
    assert!(refused(world.apply(delete("team"))).contains("no namespace team"));
    world.create_namespace("team", TWO_JOBS);
    assert!(refused(world.apply(purge("team"))).contains("not being deleted"));
    let (_, response) = world.try_submit("team", 1, &[]);
    assert_eq!(response, Response::Applied);
    world.delete_namespace("team");
    assert_eq!(
        world.apply(delete("team")),
        Response::Applied,
        "a repetition"
    );
    let (_, response) = world.try_submit("team", 1, &[]);
    assert!(refused(response).contains("being deleted"));
    assert!(refused(world.apply(create("team", TWO_JOBS))).contains("being deleted"));
    assert!(refused(world.apply(update("team", TWO_JOBS))).contains("being deleted"));
}

#[test]
fn the_default_namespace_stays() {
    let mut world = World::new(0);
    assert!(refused(world.apply(delete("default"))).contains("cannot be deleted"));
    assert!(refused(world.apply(purge("default"))).contains("not being deleted"));
}

#[test]
fn a_job_too_many_is_refused_until_another_has_ended() {
    let mut world = World::new(1);
    world.create_namespace("team", TWO_JOBS);
    let (first, _) = world.try_submit("team", 1, &[]);
    let (_, response) = world.try_submit("team", 1, &[]);
    assert_eq!(response, Response::Applied);
    let (_, response) = world.try_submit("team", 1, &[]);
    assert!(refused(response).contains("flott namespace update"));
    let (_, response) = world.try_submit("default", 1, &[]);
    assert_eq!(response, Response::Applied, "another's quota");
    world.apply(Decision::CancelJob(wire::CancelJob {
        namespace: "team".into(),
        job_id: first.to_string(),
    }));
    for _ in 0..10 {
        world.step(10, usize::MAX);
    }
    assert_eq!(world.job(&first).status, JobStatus::Canceled);
    let (_, response) = world.try_submit("team", 1, &[]);
    assert_eq!(response, Response::Applied);
}

#[test]
fn a_quota_below_the_use_takes_nothing_away_and_lets_nothing_more_in() {
    let mut world = World::new(2);
    let (job, _) = world.try_submit("default", 2, &[]);
    for _ in 0..3 {
        world.step(10, usize::MAX);
    }
    let tight = Quota {
        jobs: 1,
        slots: 1,
        ..Quota::default()
    };
    assert_eq!(world.apply(update("default", tight)), Response::Applied);
    assert_eq!(world.job(&job).status, JobStatus::Running);
    // It keeps its slots over a restart.
    world.fail_task(0);
    for _ in 0..200 {
        world.step(10, usize::MAX);
    }
    assert_eq!(world.job(&job).attempt.0, 2);
    assert_eq!(world.job(&job).status, JobStatus::Running);
    let (_, response) = world.try_submit("default", 1, &[]);
    assert!(refused(response).contains("may have 1 jobs"));
}

#[test]
fn a_job_waits_for_the_quota_of_slots_and_says_so() {
    let mut world = World::new(3);
    let quota = Quota {
        slots: 3,
        ..Quota::default()
    };
    world.create_namespace("team", quota);
    let (first, _) = world.try_submit("team", 2, &[]);
    let (second, _) = world.try_submit("team", 2, &[]);
    for _ in 0..5 {
        world.step(10, usize::MAX);
    }
    let statuses = [&first, &second].map(|job| world.job(job).status);
    let waiting = if statuses[0] == JobStatus::Running {
        &second
    } else {
        &first
    };
    assert_eq!(world.job(waiting).status, JobStatus::Created);
    let note = &world.notes[waiting];
    assert!(
        note.contains("quota") && note.contains("3 slots, 2 are in use"),
        "{note}"
    );
    world.apply(update("team", Quota::default()));
    world.step(10, usize::MAX);
    assert_eq!(world.job(waiting).status, JobStatus::Running);
}

#[test]
fn a_checkpoint_above_the_quota_is_given_up_with_the_reason_and_the_completed_one_stays() {
    let mut world = World::new(1);
    // A first checkpoint of the two subtasks has a file each, the second has two each.
    let quota = Quota {
        checkpoint_bytes: 3,
        ..Quota::default()
    };
    world.create_namespace("team", quota);
    let settings = [
        ("execution.checkpointing.interval", "100 ms"),
        (
            "execution.checkpointing.tolerable-failed-checkpoints",
            "1000",
        ),
    ];
    let (job, _) = world.try_submit("team", 1, &settings);
    for _ in 0..200 {
        world.step(10, usize::MAX);
    }
    let checkpoints = &world.job(&job).checkpoints;
    assert_eq!(checkpoints.completed_count, 1);
    assert_eq!(checkpoints.latest().map(|latest| latest.id.0), Some(1));
    assert!(checkpoints.failed_count > 3);
    let last = checkpoints.history.last().unwrap();
    let reason = last.outcome.clone().unwrap_err();
    assert!(
        reason.contains("namespace team") && reason.contains("3 bytes"),
        "{reason}"
    );
    assert_eq!(world.attempts[&job], [1], "so many failures are tolerated");
    world.apply(update("team", Quota::default()));
    for _ in 0..50 {
        world.step(10, usize::MAX);
    }
    assert!(world.job(&job).checkpoints.completed_count > 1);
}

#[test]
fn jobs_are_forgotten_only_when_their_files_are_gone() {
    let mut world = World::new(1);
    let settings = [("execution.checkpointing.interval", "100 ms")];
    let (job, _) = world.try_submit("default", 1, &settings);
    let forget = |job: &JobId| {
        Decision::ForgetJobs(wire::ForgetJobs {
            job_ids: vec![job.to_string()],
        })
    };
    let dismiss = Decision::DismissJob(wire::DismissJob {
        namespace: "default".into(),
        job_id: job.to_string(),
    });
    assert!(refused(world.apply(forget(&job))).contains("CREATED"));
    assert!(refused(world.apply(dismiss)).contains("cancel it"));
    for _ in 0..30 {
        world.step(10, usize::MAX);
    }
    world.apply(Decision::CancelJob(wire::CancelJob {
        namespace: "default".into(),
        job_id: job.to_string(),
    }));
    while world.job(&job).status != JobStatus::Canceled {
        world.step(10, usize::MAX);
    }
    assert!(!world.job(&job).checkpoints.retired.is_empty());
    assert!(refused(world.apply(forget(&job))).contains("files are not gone"));
    while !world.job(&job).checkpoints.retired.is_empty() {
        world.step(10, usize::MAX);
    }
    assert_eq!(world.apply(forget(&job)), Response::Applied);
    assert!(world.state.jobs.is_empty());
    assert_eq!(world.apply(forget(&job)), Response::Applied, "a repetition");
    let many = wire::ForgetJobs {
        job_ids: vec![job.to_string(); super::namespace::FORGET_JOBS_MAX + 1],
    };
    assert!(refused(world.apply(Decision::ForgetJobs(many))).contains("at most"));
}

#[derive(Clone, Debug)]
enum Op {
    Create(usize, Quota),
    Update(usize, Quota),
    Delete(usize),
    Submit(usize, u32),
    Cancel(prop::sample::Index),
    Dismiss(prop::sample::Index),
    Savepoint(prop::sample::Index),
    FailTask(usize),
    EndInput,
    ChangeLeader,
    Put(usize, u8, u16),
    Steps(u64, usize),
}

const NAMES: [&str; 4] = ["default", "a", "b", "c"];

fn quota() -> impl Strategy<Value = Quota> {
    (0u32..4, 0u32..5, 0u64..2000, 0u64..20).prop_map(
        |(jobs, slots, kv_bytes, checkpoint_bytes)| Quota {
            jobs,
            slots,
            kv_bytes,
            checkpoint_bytes,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let namespace = 0..NAMES.len();
    prop_oneof![
        3 => (namespace.clone(), quota()).prop_map(|(n, quota)| Op::Create(n, quota)),
        1 => (namespace.clone(), quota()).prop_map(|(n, quota)| Op::Update(n, quota)),
        1 => namespace.clone().prop_map(Op::Delete),
        5 => (namespace.clone(), 1u32..4).prop_map(|(n, parallelism)| Op::Submit(n, parallelism)),
        1 => any::<prop::sample::Index>().prop_map(Op::Cancel),
        1 => any::<prop::sample::Index>().prop_map(Op::Dismiss),
        1 => any::<prop::sample::Index>().prop_map(Op::Savepoint),
        1 => (0usize..8).prop_map(Op::FailTask),
        1 => Just(Op::EndInput),
        1 => Just(Op::ChangeLeader),
        2 => (namespace, any::<u8>(), 0u16..300).prop_map(|(n, key, len)| Op::Put(n, key, len)),
        12 => (1u64..60, 1usize..12).prop_map(|(ms, limit)| Op::Steps(ms, limit)),
    ]
}

/// What is used of what there is a quota for.
fn uses(state: &ClusterState, name: &Namespace, namespace: &NamespaceState) -> [u64; 4] {
    let kv = state.kv.get(name).map_or(0, |space| space.bytes());
    let used = namespace.used;
    [
        used.jobs.into(),
        used.slots.into(),
        used.checkpoint_bytes,
        kv,
    ]
}

fn limits(quota: Quota) -> [u64; 4] {
    [
        quota.jobs.into(),
        quota.slots.into(),
        quota.checkpoint_bytes,
        quota.kv_bytes,
    ]
}

/// Panics if a use that is above its quota has grown since `before`.
fn check_quotas(state: &ClusterState, before: &ClusterState) {
    for (name, namespace) in &state.namespaces {
        let was = before.namespaces.get(name);
        let was = was.map_or([0; 4], |was| uses(before, name, was));
        let now = uses(state, name, namespace);
        for ((now, was), limit) in now.into_iter().zip(was).zip(limits(namespace.quota)) {
            assert!(
                limit == 0 || now <= limit || now <= was,
                "{name}: {now} of {limit}, before {was}: {namespace:?}"
            );
        }
    }
}

fn carry_out(world: &mut World, op: Op) {
    let choose = |world: &World, index: prop::sample::Index| {
        let jobs: Vec<_> = world.state.jobs.values().cloned().collect();
        (!jobs.is_empty()).then(|| index.get(&jobs).clone())
    };
    match op {
        Op::Create(n, quota) => drop(world.apply(create(NAMES[n], quota))),
        Op::Update(n, quota) => drop(world.apply(update(NAMES[n], quota))),
        Op::Delete(n) => drop(world.apply(delete(NAMES[n]))),
        Op::Submit(n, parallelism) => {
            let settings = [
                ("execution.checkpointing.interval", "50 ms"),
                ("restart-strategy.type", "fixed-delay"),
                ("restart-strategy.fixed-delay.delay", "0 ms"),
            ];
            drop(world.try_submit(NAMES[n], parallelism, &settings));
        }
        Op::Cancel(index) => {
            if let Some(job) = choose(world, index) {
                world.apply(Decision::CancelJob(wire::CancelJob {
                    namespace: job.namespace.to_string(),
                    job_id: job.id.to_string(),
                }));
            }
        }
        Op::Dismiss(index) => {
            if let Some(job) = choose(world, index) {
                world.apply(Decision::DismissJob(wire::DismissJob {
                    namespace: job.namespace.to_string(),
                    job_id: job.id.to_string(),
                }));
            }
        }
        Op::Savepoint(index) => {
            if let Some(job) = choose(world, index) {
                world.apply(Decision::RequestSavepoint(wire::RequestSavepoint {
                    namespace: job.namespace.to_string(),
                    job_id: job.id.to_string(),
                    request_id: "r".into(),
                    target_directory: "memory:///savepoints".into(),
                    ..Default::default()
                }));
            }
        }
        Op::FailTask(choice) => world.fail_task(choice),
        Op::EndInput => world.end_input(),
        Op::ChangeLeader => world.change_leader(),
        Op::Put(n, key, len) => {
            let put = wire::KvPut {
                key: vec![key].into(),
                value: vec![0; len.into()].into(),
                ..Default::default()
            };
            let proposal = wire::KvProposal {
                namespace: NAMES[n].into(),
                write: Some(wire::KvWrite {
                    kind: Some(wire::kv_write::Kind::Put(put)),
                }),
                ..Default::default()
            };
            world.apply(Decision::KvBatch(wire::KvBatch {
                proposals: vec![proposal],
            }));
        }
        Op::Steps(ms, limit) => {
            world.step(ms, limit);
            world.step(ms, usize::MAX);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is decided: the use that is kept equals a recount (`check` after each entry), no quota is ever exceeded
    /// by a decision, a snapshot is the state; and deleted namespaces leave nothing behind but savepoints, neither in
    /// the state nor in object storage, while the jobs of others do not notice.
    #[test]
    fn quotas_hold_and_deleted_namespaces_leave_nothing(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new(3);
        let mut digester = Digester::default();
        for op in ops {
            let before = world.state.clone();
            carry_out(&mut world, op);
            check_quotas(&world.state, &before);
            let read = ClusterState::from_records(world.state.records());
            prop_assert_eq!(read.as_ref(), Ok(&world.state));
            let digest = digester.digest(&world.state);
            prop_assert_eq!(Digester::default().digest(&read.unwrap()), digest);
        }
        let mut completed: BTreeSet<String> = BTreeSet::new();
        let doomed: Vec<_> = world.state.jobs.values().cloned().collect();
        for name in &NAMES[1..] {
            world.apply(delete(name));
        }
        for _ in 0..400 {
            world.step(10, usize::MAX);
            let savepoints = world.state.jobs.values().flat_map(|job| &job.checkpoints.savepoints);
            completed.extend(savepoints.map(|savepoint| savepoint.external_path.clone()));
        }
        for directory in &completed {
            prop_assert!(world.savepoints.contains_key(directory), "{directory} is the user's");
        }
        prop_assert_eq!(world.state.namespaces.len(), 1);
        let spaces: Vec<_> = world.state.kv.keys().map(Namespace::as_str).collect();
        prop_assert!(spaces.is_empty() || spaces == ["default"], "{:?}", spaces);
        for job in doomed {
            if job.namespace == Namespace::default() {
                // A job of `default` runs on, unless it ended for reasons of its own.
                let present = world.state.jobs.get(&job.id);
                prop_assert!(present.is_none_or(|present| present.status != JobStatus::Cancelling));
                prop_assert!(present.is_some() || job.dismissed);
                continue;
            }
            prop_assert!(!world.state.jobs.contains_key(&job.id));
            let left = world.objects_of(&job.id);
            prop_assert!(left.is_empty(), "{:?}", left);
            let given_up = |directory: &String| {
                directory.contains(job.id.as_str()) && !completed.contains(directory)
            };
            prop_assert!(!world.savepoints.keys().any(given_up));
        }
    }
}
