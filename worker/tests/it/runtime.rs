//! A real job on two TaskManagers: files → watermark → hash over TCP → window → files, with checkpoints, and what
//! happens to it when a leader, an attempt or a TaskManager comes to its end.

use std::collections::BTreeMap;
use std::fmt::Write;

use flott_proto::data_type::DataType;
use flott_proto::job_graph::{
    Aggregate, AggregateFunction, AssignWatermark, CsvFormat, Edge, Field, FilesystemSink,
    FilesystemSource, Format, JobGraph, JsonFormat, Operator, OperatorKind, Partitioning, Schema,
    Sink, Source, Vertex, WindowAggregate,
};
use flott_proto::wire::{self, CheckpointKind, TaskState};

use super::runtime_cluster::{
    Cluster, JOB, Leader, cancel, committed_lines, completed, finish, trigger,
};

/// One for each source subtask: a second file would begin with rows that are late after the first.
const FILES: i64 = 2;
const ROWS_PER_FILE: i64 = 1200;
const KEYS: i64 = 13;
const TASKS: usize = 4;

fn field(name: &str, data_type: DataType) -> Field {
    Field {
        name: name.into(),
        data_type,
        nullable: true,
    }
}

fn operator(uid: &str, fields: Vec<Field>, kind: OperatorKind) -> Operator {
    Operator {
        uid: uid.into(),
        name: uid.into(),
        output: Schema { fields },
        kind,
    }
}

/// Counts and sums by key in windows of ten seconds; both vertices with two subtasks.
pub(super) fn graph(cluster: &Cluster, rows_per_second: u64) -> wire::JobGraph {
    let timestamp = DataType::Timestamp { precision: 3 };
    let events = || {
        vec![
            field("at", timestamp),
            field("name", DataType::String),
            field("amount", DataType::BigInt),
        ]
    };
    let source = FilesystemSource {
        path: cluster.path("in").display().to_string(),
        format: Format::Csv(CsvFormat {
            header: false,
            delimiter: ',',
            ignore_parse_errors: false,
            null_literal: String::new(),
        }),
        rows_per_second,
    };
    let watermark = AssignWatermark {
        column: "at".into(),
        expression: "at - INTERVAL '30' SECOND".into(),
        idle_timeout_ms: 0,
    };
    let aggregate = |function, argument: Option<&str>, output: &str| Aggregate {
        function,
        argument: argument.map(Into::into),
        output: output.into(),
    };
    let window = WindowAggregate {
        time_column: "at".into(),
        size_ms: 10_000,
        offset_ms: 0,
        keys: vec!["name".into()],
        aggregates: vec![
            aggregate(AggregateFunction::Count, None, "events"),
            aggregate(AggregateFunction::Sum, Some("amount"), "total"),
        ],
        window_start: "window_start".into(),
        window_end: "window_end".into(),
    };
    let sink = FilesystemSink {
        path: cluster.path("out").display().to_string(),
        format: Format::Json(JsonFormat {
            ignore_parse_errors: false,
            iso_timestamps: false,
        }),
    };
    let results = vec![
        field("name", DataType::String),
        field("window_start", timestamp),
        field("window_end", timestamp),
        field("events", DataType::BigInt),
        field("total", DataType::BigInt),
    ];
    let vertex = |uid: &str, chain| Vertex {
        uid: uid.parse().unwrap(),
        name: uid.into(),
        parallelism: 2,
        max_parallelism: 32,
        chain,
    };
    let graph = JobGraph {
        name: "test".into(),
        vertices: vec![
            vertex(
                "read",
                vec![
                    operator(
                        "files",
                        events(),
                        OperatorKind::Source(Source::Filesystem(source)),
                    ),
                    operator("time", events(), OperatorKind::AssignWatermark(watermark)),
                ],
            ),
            vertex(
                "count",
                vec![
                    operator("window", results, OperatorKind::WindowAggregate(window)),
                    operator(
                        "write",
                        Vec::new(),
                        OperatorKind::Sink(Sink::Filesystem(sink)),
                    ),
                ],
            ),
        ],
        edges: vec![Edge {
            source: "read".parse().unwrap(),
            target: "count".parse().unwrap(),
            partitioning: Partitioning::Hash {
                columns: vec!["name".into()],
            },
        }],
    };
    graph.validate().unwrap();
    (&graph).into()
}

/// Writes the input and says what has to come out: (window start in seconds, name) → (events, total).
fn input(cluster: &Cluster) -> BTreeMap<(i64, String), (i64, i64)> {
    let dir = cluster.path("in");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::create_dir_all(cluster.path("out")).unwrap();
    let mut expected: BTreeMap<(i64, String), (i64, i64)> = BTreeMap::new();
    for file in 0..FILES {
        let mut text = String::new();
        for row in 0..ROWS_PER_FILE {
            let number = row * FILES + file;
            let (second, name, amount) = (row / 20, format!("k{}", number % KEYS), number % 101);
            writeln!(
                text,
                "2024-05-01 00:{:02}:{:02}.{:03},{name},{amount}",
                second / 60,
                second % 60,
                number % 1000
            )
            .unwrap();
            let result = expected.entry((second / 10 * 10, name)).or_default();
            *result = (result.0 + 1, result.1 + amount);
        }
        std::fs::write(dir.join(format!("part-{file}.csv")), text).unwrap();
    }
    expected
}

/// Fails unless the committed output is exactly what is expected: nothing lost, nothing twice.
pub(super) fn check_output(cluster: &Cluster, expected: &BTreeMap<(i64, String), (i64, i64)>) {
    let lines = committed_lines(&cluster.path("out"));
    let mut found = BTreeMap::new();
    for line in &lines {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let start = row["window_start"].as_str().unwrap();
        let number = |range: std::ops::Range<usize>| start[range].parse::<i64>().unwrap();
        let second = number(14..16) * 60 + number(17..19);
        let key = (second, row["name"].as_str().unwrap().to_owned());
        let value = (
            row["events"].as_i64().unwrap(),
            row["total"].as_i64().unwrap(),
        );
        assert_eq!(found.insert(key, value), None, "twice: {line}");
    }
    assert_eq!(found, *expected);
}

/// Triggers a checkpoint and waits until all have acknowledged it.
fn checkpoint(
    cluster: &mut Cluster,
    leader: &Leader,
    attempt: u32,
    id: u64,
    base: u64,
    kind: CheckpointKind,
) {
    leader.send_all(&trigger(attempt, id, base, kind));
    cluster.wait("all have acknowledged", |heard| heard.acked(id, TASKS));
}

/// Completes a checkpoint and waits until all have committed.
pub(super) fn complete(cluster: &mut Cluster, leader: &Leader, attempt: u32, id: u64) {
    leader.send_all(&completed(attempt, id));
    cluster.wait("all have committed", |heard| heard.has_committed(id, TASKS));
}

/// The first two of the first attempt.
fn two_checkpoints(cluster: &mut Cluster, leader: &Leader) {
    for id in 1..=2 {
        checkpoint(cluster, leader, 1, id, id - 1, CheckpointKind::Checkpoint);
        complete(cluster, leader, 1, id);
    }
}

pub(super) fn run_to_the_end(
    cluster: &mut Cluster,
    leader: &Leader,
    attempt: u32,
    id: u64,
    base: u64,
) {
    cluster.wait("all input is read", |heard| {
        heard.reached(attempt, TaskState::EndOfData, TASKS)
    });
    checkpoint(cluster, leader, attempt, id, base, CheckpointKind::Final);
    complete(cluster, leader, attempt, id);
    leader.send_all(&finish(attempt));
    cluster.wait("all have finished", |heard| {
        heard.reached(attempt, TaskState::Finished, TASKS)
    });
}

fn deployed(cluster: &mut Cluster, leader: &Leader, graph: &wire::JobGraph) {
    cluster.deploy(leader, graph, 1, None);
    cluster.wait("all run", |heard| {
        heard.reached(1, TaskState::Running, TASKS)
    });
}

#[test]
fn a_job_runs_across_task_managers_and_every_row_counts_once() {
    let mut cluster = Cluster::start(2, 1);
    let expected = input(&cluster);
    let leader = cluster.elect(0, 5);
    let graph = graph(&cluster, 4000);
    deployed(&mut cluster, &leader, &graph);
    two_checkpoints(&mut cluster, &leader);
    let second = &cluster.heard.acks[&2];
    assert!(
        second.values().any(|ack| ack.base_checkpoint_id == 1),
        "the second checkpoint is a change against the first"
    );
    run_to_the_end(&mut cluster, &leader, 1, 3, 2);
    check_output(&cluster, &expected);
    assert!(
        cluster.heard.failures.is_empty(),
        "{:?}",
        cluster.heard.failures
    );
    cluster.stop();
}

#[test]
fn an_attempt_that_runs_where_the_one_before_did_needs_nothing_of_object_storage() {
    let mut cluster = Cluster::start(2, 1);
    let expected = input(&cluster);
    let leader = cluster.elect(0, 5);
    let slow = graph(&cluster, 300);
    deployed(&mut cluster, &leader, &slow);
    two_checkpoints(&mut cluster, &leader);
    std::fs::remove_dir_all(cluster.path("checkpoints")).unwrap();
    let fast = graph(&cluster, 0);
    cluster.deploy(&leader, &fast, 2, Some(2));
    run_to_the_end(&mut cluster, &leader, 2, 3, 2);
    check_output(&cluster, &expected);
    cluster.stop();
}

#[test]
fn a_job_whose_slots_another_holds_fails_and_the_other_goes_on() {
    let mut cluster = Cluster::start(2, 1);
    let expected = input(&cluster);
    let leader = cluster.elect(0, 5);
    let graph = graph(&cluster, 4000);
    deployed(&mut cluster, &leader, &graph);
    let other = "f".repeat(32);
    cluster.deploy_job(&leader, &other, &graph, 2, None);
    cluster.wait("the other has failed", |heard| {
        heard.reached(2, TaskState::Failed, TASKS)
    });
    for failure in cluster.heard.failures.values() {
        assert!(failure.failure.contains("no free slot"), "{failure:?}");
        assert!(!failure.failure_is_final, "{failure:?}");
    }
    run_to_the_end(&mut cluster, &leader, 1, 1, 0);
    check_output(&cluster, &expected);
    cluster.stop();
}

#[test]
fn the_death_of_a_leader_restarts_no_task_and_the_next_one_gets_the_acks() {
    let mut cluster = Cluster::start(2, 1);
    let expected = input(&cluster);
    let first = cluster.elect(0, 5);
    let graph = graph(&cluster, 2000);
    deployed(&mut cluster, &first, &graph);
    checkpoint(&mut cluster, &first, 1, 1, 0, CheckpointKind::Checkpoint);
    complete(&mut cluster, &first, 1, 1);
    // All have acknowledged, and nobody has completed it, when the leader dies.
    checkpoint(&mut cluster, &first, 1, 2, 1, CheckpointKind::Checkpoint);
    drop(first);
    cluster.heard.acks.remove(&2);
    let second = cluster.elect(1, 9);
    cluster.wait("held acks arrive", |heard| heard.acked(2, TASKS));
    for ((epoch, _), register) in &cluster.heard.registers {
        if *epoch == 9 {
            assert_eq!(register.tasks.len(), TASKS / 2);
            assert!(
                register
                    .tasks
                    .iter()
                    .all(|task| task.last_checkpoint_committed == 1)
            );
        }
    }
    complete(&mut cluster, &second, 1, 2);
    checkpoint(&mut cluster, &second, 1, 3, 2, CheckpointKind::Checkpoint);
    complete(&mut cluster, &second, 1, 3);
    run_to_the_end(&mut cluster, &second, 1, 4, 3);
    check_output(&cluster, &expected);
    for (task, states) in &cluster.heard.states {
        let starts = states
            .iter()
            .filter(|state| **state == TaskState::Running)
            .count();
        assert_eq!(starts, 1, "{task:?} went through {states:?}");
    }
    cluster.stop();
}

#[test]
fn a_higher_attempt_replaces_the_lower_one_and_goes_on_from_its_checkpoint() {
    let mut cluster = Cluster::start(2, 1);
    let expected = input(&cluster);
    let leader = cluster.elect(0, 5);
    let slow = graph(&cluster, 300);
    deployed(&mut cluster, &leader, &slow);
    checkpoint(&mut cluster, &leader, 1, 1, 0, CheckpointKind::Checkpoint);
    complete(&mut cluster, &leader, 1, 1);
    checkpoint(&mut cluster, &leader, 1, 2, 1, CheckpointKind::Checkpoint);
    let fast = graph(&cluster, 0);
    cluster.deploy(&leader, &fast, 2, Some(2));
    cluster.wait("the first attempt is gone", |heard| {
        heard.reached(1, TaskState::Canceled, TASKS)
    });
    cluster.wait("the second runs", |heard| {
        heard.reached(2, TaskState::Running, TASKS)
    });
    // Late orders for the first attempt mean nothing to the second, nor does its deployment start again.
    leader.send_all(&cancel(1));
    cluster.deploy(&leader, &slow, 1, None);
    run_to_the_end(&mut cluster, &leader, 2, 3, 2);
    check_output(&cluster, &expected);
    assert!(
        cluster.heard.failures.is_empty(),
        "{:?}",
        cluster.heard.failures
    );
    cluster.stop();
}

#[test]
fn the_survivors_of_a_lost_task_manager_name_it() {
    let mut cluster = Cluster::start(2, 1);
    input(&cluster);
    let leader = cluster.elect(0, 5);
    let graph = graph(&cluster, 300);
    deployed(&mut cluster, &leader, &graph);
    // A checkpoint crosses every channel, so all connections stand.
    checkpoint(&mut cluster, &leader, 1, 1, 0, CheckpointKind::Checkpoint);
    cluster.kill("tm-2");
    cluster.wait("the survivors fail", |heard| heard.failures.len() >= 2);
    for (task, report) in &cluster.heard.failures {
        assert_eq!(report.lost_peer, "tm-2", "{task:?}: {}", report.failure);
        assert!(!report.failure_is_final);
    }
    // The process goes on: the next attempt runs on what is left.
    leader.send("tm-1", cancel(1));
    cluster.stop();
}

#[test]
fn a_deposed_leader_is_refused() {
    let mut cluster = Cluster::start(2, 1);
    let expected = input(&cluster);
    let leader = cluster.elect(0, 5);
    let graph = graph(&cluster, 0);
    deployed(&mut cluster, &leader, &graph);
    for id in ["tm-1", "tm-2"] {
        leader.send_as(4, id, cancel(1));
    }
    run_to_the_end(&mut cluster, &leader, 1, 1, 0);
    check_output(&cluster, &expected);
    assert!(!cluster.heard.reached(1, TaskState::Canceled, 1));
    cluster.stop();
}

#[test]
fn a_malformed_row_fails_the_job_for_good_and_not_the_process() {
    let mut cluster = Cluster::start(2, 1);
    input(&cluster);
    std::fs::write(
        cluster.path("in").join("part-9.csv"),
        "2024-05-01 00:00:00.000,k1,many\n",
    )
    .unwrap();
    let leader = cluster.elect(0, 5);
    let broken = graph(&cluster, 0);
    cluster.deploy(&leader, &broken, 1, None);
    cluster.wait("the malformed row is found", |heard| {
        !heard.failures.is_empty()
    });
    let report = cluster.heard.failures.values().next().unwrap();
    assert!(
        report.failure_is_final && report.failure.contains("part-9.csv"),
        "{}",
        report.failure
    );
    assert_eq!(report.task.as_ref().unwrap().job_id, JOB);
    leader.send_all(&cancel(1));
    let others = |heard: &super::runtime_cluster::Heard| {
        heard.reached(1, TaskState::Canceled, TASKS - heard.failures.len())
    };
    cluster.wait("the others are canceled", others);
    std::fs::remove_file(cluster.path("in").join("part-9.csv")).unwrap();
    cluster.deploy(&leader, &broken, 2, None);
    cluster.wait("another attempt runs", |heard| {
        heard.reached(2, TaskState::EndOfData, TASKS)
    });
    cluster.stop();
}

#[test]
fn when_its_cluster_has_a_successor_a_task_manager_discards_its_tasks_and_goes_over_for_good() {
    const FIRST: u64 = 1 << 32;
    let mut cluster = Cluster::start(2, 1);
    let expected = input(&cluster);
    let old = cluster.elect(0, 5);
    let slow = graph(&cluster, 300);
    deployed(&mut cluster, &old, &slow);
    checkpoint(&mut cluster, &old, 1, 1, 0, CheckpointKind::Checkpoint);
    complete(&mut cluster, &old, 1, 1);
    checkpoint(&mut cluster, &old, 1, 2, 1, CheckpointKind::Checkpoint);
    let visible = committed_lines(&cluster.path("out"));

    // The old leader lives, and is left all the same.
    let new = cluster.elect_successor(1, FIRST);
    for ((epoch, id), register) in &cluster.heard.registers {
        if *epoch == FIRST {
            assert_eq!(register.cluster_id, "successor", "{id}");
            assert!(register.tasks.is_empty(), "{id}: {:?}", register.tasks);
            assert!(register.held_acks.is_empty(), "{id}");
        }
    }
    assert_eq!(old.send_to_listeners(&completed(1, 2)), 0);
    assert_eq!(committed_lines(&cluster.path("out")), visible);

    let fast = graph(&cluster, 0);
    let attempt = 1 << 20;
    cluster.deploy(&new, &fast, attempt, Some(2));
    cluster.wait("the attempt of the successor runs", |heard| {
        heard.reached(attempt, TaskState::Running, TASKS)
    });
    let known = cluster.heard.registers.len();
    run_to_the_end(&mut cluster, &new, attempt, FIRST + 1, 2);
    check_output(&cluster, &expected);
    // The successor dies; its predecessor is still there, and gets nobody back.
    drop(new);
    assert_eq!(cluster.heard.registers.len(), known);
    cluster.stop();
}
