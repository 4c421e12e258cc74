//! Whatever bytes come in as a log entry, a snapshot record, or the word of a TaskManager: they are refused, or the state is a
//! valid one afterwards.

use std::collections::BTreeMap;

use flott_decoders::{Seeds, kind, told};
use flott_proto::wire::{self, command::Decision, kv_operation, kv_write, task_manager_message};
use prost::Message;

use super::records::restore_from_wire;
use super::testing::World;
use super::{ClusterState, Record, Response, plan};

/// A job that has been through much and has a checkpoint pending, keys, a namespace, and another job that has ended.
fn eventful() -> World {
    let mut world = World::new(3);
    let interval = [("execution.checkpointing.interval", "50 ms")];
    let job = world.submit(2, &interval);
    world.create_namespace("tenant", Default::default());
    for kind in [put("a", "1"), put("b", "2"), swap("a", "3"), grant()] {
        world.apply(kv(kind));
    }
    world.run_until("two checkpoints", |world| {
        world.job(&job).checkpoints.completed_count > 1
    });
    world.fail_task(1);
    world.run_until("another attempt with a checkpoint", |world| {
        let job = world.job(&job);
        job.attempt.0 > 1 && job.checkpoints.completed_count > 2
    });
    let ended = world.submit(1, &interval);
    world.run_until("its first checkpoint", |world| {
        world.job(&ended).checkpoints.completed_count > 0
    });
    world.apply(Decision::CancelJob(wire::CancelJob {
        job_id: ended.to_string(),
        namespace: "default".into(),
    }));
    world.run_until("its end", |world| world.job(&ended).status.is_terminal());
    for _ in 0..100 {
        if world.job(&job).checkpoints.pending.is_some() {
            return world;
        }
        world.step(10, 3);
    }
    panic!("no checkpoint is pending");
}

fn kv(kind: kv_write::Kind) -> Decision {
    Decision::KvBatch(wire::KvBatch {
        proposals: vec![wire::KvProposal {
            namespace: "default".into(),
            request_id: format!("{kind:?}"),
            write: Some(wire::KvWrite { kind: Some(kind) }),
        }],
    })
}

fn put_of(key: &str, value: &str) -> wire::KvPut {
    wire::KvPut {
        key: key.as_bytes().to_vec().into(),
        value: value.as_bytes().to_vec().into(),
        ..Default::default()
    }
}

fn put(key: &str, value: &str) -> kv_write::Kind {
    kv_write::Kind::Put(put_of(key, value))
}

fn swap(key: &str, value: &str) -> kv_write::Kind {
    kv_write::Kind::Txn(wire::KvTxn {
        success: vec![wire::KvOperation {
            kind: Some(kv_operation::Kind::Put(put_of(key, value))),
        }],
        ..Default::default()
    })
}

fn grant() -> kv_write::Kind {
    kv_write::Kind::GrantLease(wire::KvGrantLease {
        lease: 7,
        ttl_ms: 10_000,
    })
}

/// The name of an enum's variant.
fn variant(of: &impl std::fmt::Debug) -> String {
    let text = format!("{of:?}");
    text.split('(').next().unwrap_or_default().to_owned()
}

#[test]
fn any_bytes_are_a_command_that_leaves_a_valid_state_or_is_refused() {
    let world = eventful();
    let commands = world.commands.iter();
    let decided = commands.filter_map(|it| Some((variant(it.decision.as_ref()?), it)));
    let by_kind: BTreeMap<String, &wire::Command> = decided.collect();
    let seeds = by_kind.values().map(|command| command.encode_to_vec());
    let (state, next) = (world.state.clone(), world.commands.len() as u64 + 1);
    flott_decoders::check!(Seeds::of(seeds).inputs(1500)).for_each(|bytes: &[u8]| {
        let Ok(mut command) = told(wire::Command::decode(bytes)) else {
            return;
        };
        match kind(&command.decision) {
            None => return,
            // Every member draws another.
            Some(Decision::ActivateJobManager(activate)) if activate.node_id == 0 => return,
            Some(_) => {}
        }
        let mut after = state.clone();
        command.epoch = after.epoch.0;
        // The leader's own clock is not what is doubted here.
        command.now_ms = command.now_ms.clamp(0, 1 << 50);
        let response = kind(after.apply(next, &command));
        after.check();
        if matches!(response, Response::Refused(_)) {
            // But for the time.
            after.log_time_ms = state.log_time_ms;
            assert!(after.records().eq(state.records()), "{command:?}");
        }
        let again = ClusterState::from_records(after.records()).unwrap();
        assert!(again.records().eq(after.records()), "{command:?}");
    });
}

#[test]
fn any_bytes_are_the_records_of_a_snapshot_or_refused() {
    let world = eventful();
    let record = |record: Record| wire::RaftSnapshotRecord {
        key: record.key,
        value: record.value.into(),
    };
    let of_all = |records: Vec<wire::RaftSnapshotRecord>| {
        wire::RaftSnapshotRecords { records }.encode_to_vec()
    };
    let all: Vec<_> = world.state.records().map(record).collect();
    let each = all.iter().map(|record| of_all(vec![record.clone()]));
    let seeds: Vec<Vec<u8>> = each.chain([of_all(all.clone())]).collect();
    flott_decoders::check!(Seeds::of(seeds).inputs(1000)).for_each(|bytes: &[u8]| {
        let Ok(decoded) = told(wire::RaftSnapshotRecords::decode(bytes)) else {
            return;
        };
        let records = decoded.records.into_iter().map(|record| Record {
            key: record.key,
            value: record.value.into(),
        });
        if let Ok(state) = told(ClusterState::from_records(records)) {
            let again = ClusterState::from_records(state.records()).unwrap();
            assert!(again.records().eq(state.records()));
        }
    });
}

#[test]
fn any_message_of_a_task_manager_lets_the_leader_go_on() {
    let mut world = eventful();
    let (host, _) = world.observed.task_managers.iter().next().unwrap();
    let (host, said) = (host.clone(), world.said.clone());
    let by_kind: BTreeMap<_, _> = said.into_iter().map(|it| (variant(&it), it)).collect();
    let mut seeds: Vec<Vec<u8>> = by_kind.into_values().map(encoded).collect();
    let register = wire::Register {
        task_manager_id: host.to_string(),
        data_address: "a:1".into(),
        slots: 2,
        ..Default::default()
    };
    seeds.push(encoded(task_manager_message::Message::Register(register)));
    world.observed.on_state(&world.state, world.now);
    flott_decoders::check!(Seeds::of(seeds).inputs(1500)).for_each(|bytes: &[u8]| {
        use task_manager_message::Message::Register;
        let Ok(read) = told(wire::TaskManagerMessage::decode(bytes)) else {
            return;
        };
        let mut observed = world.observed.clone();
        let connection = observed.task_managers[&host].connection.unwrap();
        let heard = match kind(read.message) {
            None => return,
            Some(Register(register)) => {
                let heard = observed.on_register(connection, register, world.now);
                heard.map(|_| ())
            }
            Some(message) => observed.on_message(&host, connection, message, world.now),
        };
        if let Err(error) = told(heard) {
            assert!(!error.to_string().is_empty());
        }
        let plan = plan(&world.state, &observed, &world.settings, world.now);
        let mut state = world.state.clone();
        for (_, decision) in plan.proposals {
            let command = wire::Command {
                now_ms: world.now.wall_ms,
                epoch: state.epoch.0,
                decision: Some(decision),
            };
            state.apply(world.commands.len() as u64 + 1, &command);
            state.check();
        }
    });
}

fn encoded(message: task_manager_message::Message) -> Vec<u8> {
    wire::TaskManagerMessage {
        epoch: 1,
        message: Some(message),
    }
    .encode_to_vec()
}

#[test]
fn any_metadata_is_a_state_to_start_from_or_refused() {
    let world = eventful();
    let mut jobs = world.state.jobs.values();
    let job = jobs.find(|job| job.is_running()).unwrap();
    let latest = job.checkpoints.latest().unwrap();
    let metadata = wire::CheckpointMetadata {
        version: 1,
        job_name: "j".into(),
        checkpoint_id: 3,
        vertices: super::records::vertices_to_wire(&latest.subtasks, |_| 2),
        ..Default::default()
    };
    let graph = job.graph.clone();
    flott_decoders::check!(Seeds::of([metadata.encode_to_vec()])).for_each(|bytes: &[u8]| {
        let Ok(metadata) = told(wire::CheckpointMetadata::decode(bytes)) else {
            return;
        };
        for finding in super::compatibility::findings(&metadata, &graph).unwrap_or_default() {
            assert!(!kind(finding).to_string().is_empty());
        }
        drop(super::compatibility::outlook(&metadata, &graph));
        if let Ok(point) = told(restore_from_wire(metadata, "/root".into())) {
            assert!(
                point
                    .subtasks
                    .values()
                    .all(|state| state.size() >= state.operators_size())
            );
        }
    });
}
