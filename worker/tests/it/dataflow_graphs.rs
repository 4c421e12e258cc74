//! What the SQL compiler makes, the worker runs: its golden graphs are built, and the main job's is run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flott_node::clock::ManualClock;
use flott_proto::ids::{AttemptNumber, CheckpointId, SubtaskId, TaskId};
use flott_proto::job_graph::{JobGraph, OperatorKind, Sink, Source, Vertex};
use flott_proto::key_group::KeyGroupRange;
use flott_statestore::{BackendOptions, KeyedBackend};
use flott_worker::Error;
use flott_worker::keys::HashPartitioner;
use flott_worker::operators::{ChainContext, OperatorChain, SourceStatus};

use crate::dataflow_harness::{Emitted, poll, visible_lines};

fn golden(file: &Path) -> JobGraph {
    let text = fs::read_to_string(file).unwrap();
    let graph: JobGraph = serde_saphyr::from_str(&text).unwrap();
    graph.validate().unwrap();
    graph
}

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sql/tests/golden")
}

fn chain(graph: &JobGraph, vertex: &Vertex, clock: &ManualClock) -> Result<OperatorChain, Error> {
    let input = graph.inputs(&vertex.uid).next().map(|(_, edge)| {
        let source = graph.vertex(&edge.source).unwrap();
        Arc::new(source.chain.last().unwrap().output.to_arrow())
    });
    let subtask = SubtaskId {
        vertex: vertex.uid.clone(),
        subtask: 0,
    };
    let ctx = ChainContext {
        task: TaskId {
            job: "0123456789abcdef0123456789abcdef".parse().unwrap(),
            attempt: AttemptNumber(1),
            subtask,
        },
        parallelism: vertex.parallelism,
        max_parallelism: vertex.max_parallelism,
        key_groups: KeyGroupRange::of_subtask(0, vertex.max_parallelism, vertex.parallelism),
        restored: Vec::new(),
        clock: Arc::new(clock.clone()),
        restored_checkpoint: CheckpointId::NONE,
    };
    OperatorChain::build(vertex, input, ctx)
}

#[test]
fn every_graph_that_sql_makes_can_be_built() {
    let mut graphs = 0;
    for entry in fs::read_dir(golden_dir()).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let graph = golden(&file);
        for vertex in &graph.vertices {
            if let Err(error) = chain(&graph, vertex, &ManualClock::new(0)) {
                panic!("{}: {error}", file.display());
            }
        }
        graphs += 1;
    }
    assert!(graphs > 3, "{graphs} graphs");
}

/// Departures, delay and worst delay of an hour, airport and airline, as a line of the output.
fn expected(input: &Path) -> Vec<String> {
    let bytes = zstd::decode_all(fs::File::open(input).unwrap()).unwrap();
    let mut groups: BTreeMap<(String, String, String), (u64, i64, i64)> = BTreeMap::new();
    for line in std::str::from_utf8(&bytes).unwrap().lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let hour = fields[1][..13].replace('T', " ");
        let delay: i64 = fields[8].parse().unwrap();
        let of = (hour, fields[5].to_owned(), fields[2].to_owned());
        let group = groups.entry(of).or_insert((0, 0, i64::MIN));
        *group = (group.0 + 1, group.1 + delay, group.2.max(delay));
    }
    let mut lines: Vec<String> = groups
        .iter()
        .map(|((hour, origin, carrier), (departures, minutes, worst))| {
            let end = hour[11..].parse::<u32>().unwrap() + 1;
            // Every window ends within its day, but for the last hour's.
            let end = if end < 24 { format!("{}{end:02}:00:00", &hour[..11]) } else { next_day(&hour[..10]) };
            format!(
                r#"{{"window_start":"{hour}:00:00","window_end":"{end}","origin":"{origin}","carrier":"{carrier}","departures":{departures},"delay_minutes":{minutes},"worst":{worst}}}"#
            )
        })
        .collect();
    lines.sort();
    lines
}

fn next_day(day: &str) -> String {
    let days = flott_worker::time::calendar::parse_date(day.as_bytes()).unwrap();
    let mut out = Vec::new();
    flott_worker::time::calendar::write_date(i64::from(days) + 1, &mut out);
    format!("{} 00:00:00", String::from_utf8(out).unwrap())
}

#[test]
fn the_main_job_gives_what_a_plain_computation_over_the_flights_gives() {
    let input = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo/flights-2013.csv.zst");
    let dir = tempfile::tempdir().unwrap();
    let mut graph = golden(&golden_dir().join("flights.yaml"));
    for vertex in &mut graph.vertices {
        vertex.parallelism = 1;
        for operator in &mut vertex.chain {
            match &mut operator.kind {
                OperatorKind::Source(Source::Filesystem(files)) => {
                    files.path = input.to_str().unwrap().to_owned();
                    files.rows_per_second = 0;
                }
                OperatorKind::Sink(Sink::Filesystem(files)) => {
                    files.path = dir.path().join("out").to_str().unwrap().to_owned();
                }
                _ => {}
            }
        }
    }
    let clock = ManualClock::new(0);
    let mut source = chain(&graph, &graph.vertices[0], &clock).unwrap();
    let mut window = chain(&graph, &graph.vertices[1], &clock).unwrap();
    source.open(None).unwrap();
    let options = BackendOptions::rocksdb(16 << 20);
    let groups = KeyGroupRange::all(128);
    let backend = KeyedBackend::create(&dir.path().join("state"), 128, groups, options).unwrap();
    window.open(Some(backend)).unwrap();
    let schema = graph.vertices[0].chain.last().unwrap().output.to_arrow();
    let keys = ["origin".to_owned(), "carrier".to_owned()];
    let mut partitioner = HashPartitioner::new(&schema, &keys, 128, 4).unwrap();
    let mut checkpoint = CheckpointId::NONE;
    loop {
        let mut emitted = Emitted::default();
        let status = poll(&mut source, &clock, &mut emitted).unwrap();
        for batch in &emitted.batches {
            // As if four subtasks were one, which their sink files do not tell apart.
            for part in partitioner.partition(batch).unwrap().into_iter().flatten() {
                window.process(part, &mut Emitted::default()).unwrap();
            }
        }
        for watermark in emitted.watermarks {
            window
                .on_watermark(watermark, &mut Emitted::default())
                .unwrap();
        }
        if status == SourceStatus::EndOfData {
            window.on_end_of_data(&mut Emitted::default()).unwrap();
        }
        checkpoint = checkpoint.next();
        if checkpoint.0.is_multiple_of(8) || status == SourceStatus::EndOfData {
            source.snapshot(checkpoint).unwrap();
            window.snapshot(checkpoint).unwrap();
            window.commit(checkpoint).unwrap();
        }
        if status == SourceStatus::EndOfData {
            break;
        }
    }
    assert_eq!(source.counters().records_in, 327_346);
    assert_eq!(window.counters().late_records_dropped, 0);
    let (lines, hidden) = visible_lines(&dir.path().join("out"));
    assert!(lines == expected(&input), "{} lines", lines.len());
    assert!(hidden.is_empty());
}
