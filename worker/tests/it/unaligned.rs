//! A job whose sinks are slower than its sources takes checkpoints at once: barriers overtake the rows that wait, which are
//! stored and processed after a restore, at whatever parallelism.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use flott_proto::wire::{self, CheckpointKind, TaskState};

use super::runtime::{check_output, complete, graph, run_to_the_end};
use super::runtime_cluster::{Cluster, Leader, trigger, trigger_unaligned};

/// Of each of the two files: more than two channels take.
const ROWS_PER_FILE: i64 = 90_000;
const KEYS: i64 = 13;
/// For each sink: it would take minutes to get through what waits before it.
const SLOW: &str = "200";

type Expected = BTreeMap<(i64, String), (i64, i64)>;

/// Writes the input and says what has to come out: (window start in seconds, name) → (events, total).
fn input(cluster: &Cluster) -> Expected {
    let dir = cluster.path("in");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::create_dir_all(cluster.path("out")).unwrap();
    let mut expected = Expected::new();
    for file in 0..2 {
        let mut text = String::new();
        for row in 0..ROWS_PER_FILE {
            let number = row * 2 + file;
            let (second, name, amount) = (row / 100, format!("k{}", number % KEYS), number % 101);
            let (minute, ms) = (second / 60, number % 1000);
            writeln!(
                text,
                "2024-05-01 00:{minute:02}:{:02}.{ms:03},{name},{amount}",
                second % 60
            )
            .unwrap();
            let result = expected.entry((second / 10 * 10, name)).or_default();
            *result = (result.0 + 1, result.1 + amount);
        }
        std::fs::write(dir.join(format!("part-{file}.csv")), text).unwrap();
    }
    expected
}

/// The job has an attempt whose sources wait for its slow sinks; and the last checkpoint that it took, in which rows were on
/// their way to and from everybody.
fn held_up(cluster: &mut Cluster, leader: &Leader) -> (wire::JobGraph, u64) {
    let graph = graph(cluster, 0);
    cluster.configuration = BTreeMap::from([("pipeline.sink.rows-per-second".into(), SLOW.into())]);
    cluster.deploy(leader, &graph, 1, None);
    cluster.wait("the channels fill", |heard| {
        let emitted = |subtask| {
            let counters = heard.counters.get(&("read".to_owned(), subtask, 1));
            counters.is_some_and(|counters| counters.records_out > 40_000)
        };
        emitted(0) && emitted(1)
    });
    for id in 1..1000 {
        unaligned_checkpoint(cluster, leader, id, 0);
        if cluster.heard.acks[&id].values().all(has_rows_in_flight) {
            return (graph, id);
        }
    }
    panic!("the sources are never held up");
}

fn has_rows_in_flight(ack: &wire::CheckpointAck) -> bool {
    let alignment = ack.state.as_ref().and_then(|state| state.alignment);
    alignment.is_some_and(|alignment| alignment.unaligned && alignment.in_flight_bytes > 0)
}

/// Nobody need align, and nobody is waited for.
fn unaligned_checkpoint(cluster: &mut Cluster, leader: &Leader, id: u64, base: u64) {
    leader.send_all(&trigger_unaligned(1, id, base));
    cluster.wait("all have acknowledged", |heard| heard.acked(id, 4));
}

fn channel_files(cluster: &Cluster, checkpoint: u64) -> BTreeMap<String, Vec<String>> {
    let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (vertex, subtask) in cluster.heard.acks[&checkpoint].keys() {
        let state = cluster.state(checkpoint, vertex, *subtask);
        let state = state.files.into_iter();
        let channels = state.filter(|file| file.kind() == wire::StateFileKind::Channels);
        let paths = channels.map(|file| file.path);
        files.entry(vertex.clone()).or_default().extend(paths);
    }
    files
}

/// The second attempt goes on without haste at that parallelism of the windows.
fn goes_on(
    cluster: &mut Cluster,
    leader: &Leader,
    graph: &wire::JobGraph,
    from: u64,
    parallelism: u32,
) {
    let mut graph = graph.clone();
    let vertices = graph.vertices.iter_mut();
    for vertex in vertices.filter(|vertex| vertex.uid == "count") {
        vertex.parallelism = parallelism;
    }
    cluster.configuration.clear();
    cluster.deploy(leader, &graph, 2, Some(from));
}

#[test]
fn under_backpressure_an_unaligned_checkpoint_waits_for_nobody_and_loses_nothing() {
    let mut cluster = Cluster::start(2, 1);
    let expected = input(&cluster);
    let leader = cluster.elect(0, 5);
    let (graph, last) = held_up(&mut cluster, &leader);
    let [aligned, first, second] = [last + 1, last + 2, last + 3];
    leader.send_all(&trigger(1, aligned, 0, CheckpointKind::Checkpoint));
    unaligned_checkpoint(&mut cluster, &leader, first, 0);
    let waits = cluster.heard.acks.get(&aligned);
    assert!(
        waits.is_none_or(BTreeMap::is_empty),
        "it waits for the rows before it: {waits:?}"
    );
    for (task, ack) in &cluster.heard.acks[&first] {
        assert!(has_rows_in_flight(ack), "{task:?}: {ack:?}");
    }
    let stored = channel_files(&cluster, first);
    assert!(
        stored["read"].len() == 2 && stored["count"].len() == 2,
        "{stored:?}"
    );
    complete(&mut cluster, &leader, 1, first);

    // Channel state is of one checkpoint: the next one's is other objects, and a change drops those of its base.
    unaligned_checkpoint(&mut cluster, &leader, second, first);
    let next = channel_files(&cluster, second);
    let all: BTreeSet<&String> = stored.values().chain(next.values()).flatten().collect();
    assert_eq!(all.len(), 8, "{stored:?} {next:?}");
    for subtask in 0..2 {
        let ack = &cluster.heard.acks[&second][&("count".to_owned(), subtask)];
        assert_eq!(ack.base_checkpoint_id, first);
    }

    goes_on(&mut cluster, &leader, &graph, second, 2);
    run_to_the_end(&mut cluster, &leader, 2, second + 1, second);
    check_output(&cluster, &expected);
    // Nothing is on its way any more, and nothing of it is left.
    assert!(
        channel_files(&cluster, second + 1)
            .values()
            .all(Vec::is_empty)
    );
    cluster.stop();
}

fn rescales_to(parallelism: u32) {
    let mut cluster = Cluster::start(2, 2);
    let expected = input(&cluster);
    let leader = cluster.elect(0, 5);
    let (graph, last) = held_up(&mut cluster, &leader);
    goes_on(&mut cluster, &leader, &graph, last, parallelism);
    let tasks = 2 + parallelism as usize;
    cluster.wait("all input is read", |heard| {
        heard.reached(2, TaskState::EndOfData, tasks)
    });
    leader.send_all(&trigger(2, last + 1, last, CheckpointKind::Final));
    cluster.wait("all have acknowledged", |heard| {
        heard.acked(last + 1, tasks)
    });
    leader.send_all(&super::runtime_cluster::completed(2, last + 1));
    cluster.wait("all have committed", |heard| {
        heard.has_committed(last + 1, tasks)
    });
    check_output(&cluster, &expected);
    leader.send_all(&super::runtime_cluster::cancel(2));
    cluster.stop();
}

#[test]
fn rows_that_were_on_their_way_are_divided_among_more_tasks() {
    rescales_to(3);
}

#[test]
fn rows_that_were_on_their_way_to_several_tasks_go_to_one() {
    rescales_to(1);
}

#[test]
fn damaged_channel_state_makes_the_checkpoint_unusable() {
    let mut cluster = Cluster::start(2, 1);
    input(&cluster);
    let leader = cluster.elect(0, 5);
    let (graph, last) = held_up(&mut cluster, &leader);
    let damaged = channel_files(&cluster, last)["count"][0].clone();
    let place = cluster.path("checkpoints").join(&damaged);
    let mut bytes = std::fs::read(&place).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&place, bytes).unwrap();
    goes_on(&mut cluster, &leader, &graph, last, 2);
    let failed = |heard: &super::runtime_cluster::Heard| {
        let mut failures = heard.failures.values();
        failures.find_map(|report| report.unusable_state.clone())
    };
    cluster.wait("the damage is found", |heard| failed(heard).is_some());
    let unusable = failed(&cluster.heard).unwrap();
    assert_eq!((unusable.checkpoint_id, unusable.path), (last, damaged));
    leader.send_all(&super::runtime_cluster::cancel(2));
    cluster.stop();
}
