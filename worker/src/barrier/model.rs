//! A small job of real gates, outputs, aligners and channel state, without threads and without operators: sources number
//! their rows, everybody passes them on, sinks keep them. A schedule says who does what and when: barriers are aligned or
//! overtake, tasks hear of a checkpoint late or never, checkpoints are given up. Then every checkpoint that completed is
//! restored, at any parallelism, and each row must arrive exactly once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use flott_proto::data_type::DataType;
use flott_proto::ids::{CheckpointId, SubtaskId};
use flott_proto::job_graph::{
    Edge, Field, JobGraph, Operator, OperatorKind, Partitioning, Schema, Sink, Vertex,
};
use flott_proto::wire::CheckpointKind;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use super::aligner::{BarrierAligner, Step};
use super::overtaking::Overtaking;
use crate::channel_state::format::{self, Owner};
use crate::channel_state::restore::Heir;
use crate::channel_state::restored::Restored;
use crate::channel_state::{self, ChannelContent, ChannelState};
use crate::network::gate::{self, InputGate};
use crate::network::partition::{Output, ResultPartition};
use crate::network::target::{self, ChannelSender};
use crate::network::{Barrier, ChannelId, Element, topology};
use crate::operators::Collector;

/// Of a batch, all with the same number: so many that two fit into a channel.
const BATCH_ROWS: usize = 15_000;
/// Batches of each source.
const BATCHES: i64 = 10;
const SOURCES: u32 = 2;
/// After this long a task need not align.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a subtask saves.
#[derive(Clone, Debug, Default)]
struct Saved {
    /// A source's next batch.
    next: i64,
    /// How many rows of each number a sink has.
    rows: BTreeMap<i64, usize>,
    channels: Vec<u8>,
}

type Snapshot = BTreeMap<SubtaskId, Saved>;

struct Task {
    id: SubtaskId,
    parallelism: u32,
    gate: Arc<InputGate>,
    output: Output,
    restored: Restored,
    aligner: Option<BarrierAligner>,
    overtaking: Overtaking,
    taken: CheckpointId,
    state: Saved,
}

struct Job {
    graph: JobGraph,
    tasks: Vec<Task>,
    now: Duration,
    snapshots: BTreeMap<CheckpointId, Snapshot>,
}

fn vertex(uid: &str, parallelism: u32) -> Vertex {
    let number = Field {
        name: "number".into(),
        data_type: DataType::BigInt,
        nullable: false,
    };
    Vertex {
        uid: uid.parse().unwrap(),
        name: uid.into(),
        parallelism,
        max_parallelism: 8,
        chain: vec![Operator {
            uid: uid.into(),
            name: uid.into(),
            output: Schema {
                fields: vec![number],
            },
            kind: OperatorKind::Sink(Sink::Blackhole),
        }],
    }
}

fn graph(middle: u32, sink: u32) -> JobGraph {
    let edge = |source: &str, target: &str, partitioning| Edge {
        source: source.parse().unwrap(),
        target: target.parse().unwrap(),
        partitioning,
    };
    let by_number = Partitioning::Hash {
        columns: vec!["number".into()],
    };
    JobGraph {
        name: "model".into(),
        vertices: vec![
            vertex("source", SOURCES),
            vertex("middle", middle),
            vertex("sink", sink),
        ],
        edges: vec![
            edge("source", "middle", by_number),
            edge("middle", "sink", Partitioning::Rebalance),
        ],
    }
}

fn batch(number: i64) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![number; BATCH_ROWS]));
    let schema = vertex("x", 1).chain[0].output.to_arrow();
    RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap()
}

impl Job {
    fn start(middle: u32, sink: u32, from: Option<&Snapshot>) -> Self {
        let graph = graph(middle, sink);
        let ids = graph.vertices.iter().flat_map(|vertex| {
            let subtask = |subtask| SubtaskId {
                vertex: vertex.uid.clone(),
                subtask,
            };
            (0..vertex.parallelism).map(subtask)
        });
        let ids: Vec<SubtaskId> = ids.collect();
        let gates: BTreeMap<&SubtaskId, Arc<InputGate>> = ids
            .iter()
            .map(|id| {
                let inputs = topology::inputs(&graph, id).into_iter();
                let channels = inputs.map(|(channel, _)| (channel, true));
                (id, Arc::new(InputGate::new(channels, Arc::default())))
            })
            .collect();
        let task = |id: &SubtaskId| {
            let partitions = graph.outputs(&id.vertex).map(|(at, edge)| {
                let targets = topology::outputs(&graph, id, at).into_iter();
                let targets = targets.map(|(channel, receiver)| ChannelSender::Local {
                    gate: Arc::clone(&gates[&receiver]),
                    channel: gates[&receiver].position(channel).unwrap(),
                });
                let target = graph.vertex(&edge.target).unwrap();
                ResultPartition::new(&edge.partitioning, target, id.subtask, targets.collect())
            });
            let channels = gates[id].len();
            Task {
                id: id.clone(),
                parallelism: graph.vertex(&id.vertex).unwrap().parallelism,
                output: Output::new(partitions.collect(), Arc::default()),
                gate: Arc::clone(&gates[id]),
                restored: Restored::default(),
                aligner: (channels > 0).then(|| BarrierAligner::new(channels)),
                overtaking: Overtaking::default(),
                taken: CheckpointId::NONE,
                state: Saved::default(),
            }
        };
        let mut tasks: Vec<Task> = ids.iter().map(task).collect();
        for task in &mut tasks {
            let mut input = Vec::new();
            let saved = from.into_iter().flatten();
            let vertex = task.id.vertex.clone();
            for (id, saved) in saved.filter(|(id, _)| id.vertex == vertex) {
                input.extend(task.restore(&graph, id, saved));
            }
            task.restored = Restored::new(input);
        }
        Self {
            graph,
            tasks,
            now: Duration::ZERO,
            snapshots: BTreeMap::new(),
        }
    }

    /// Everybody works until nothing moves any more; the rows that the sinks have then.
    fn run_to_the_end(&mut self) -> BTreeMap<i64, usize> {
        let mut idle = 0;
        while idle < 2 {
            let moved = (0..self.tasks.len()).filter(|at| self.step(*at)).count();
            idle = if moved == 0 { idle + 1 } else { 0 };
        }
        let mut all = BTreeMap::new();
        for (number, rows) in self.tasks.iter().flat_map(|task| &task.state.rows) {
            *all.entry(*number).or_default() += rows;
        }
        all
    }

    /// One step of a task's run loop, as in `task::run`; whether it did anything.
    fn step(&mut self, at: usize) -> bool {
        let (task, now) = (&mut self.tasks[at], self.now);
        let clear = task.output.flush();
        if let Some((id, saved)) = task.come_to_checkpoint(&self.graph, clear, now) {
            self.snapshots
                .entry(id)
                .or_default()
                .insert(task.id.clone(), saved);
            return true;
        }
        if !clear {
            return false;
        }
        if task.aligner.is_none() {
            return task.emit();
        }
        let (channel, element) = match task.restored.pop() {
            Some((_, element)) => (0, element),
            None => match task.gate.poll() {
                Some(next) => next,
                None => return false,
            },
        };
        match element {
            Element::Data(batch) => task.process(batch),
            Element::Barrier(barrier) => {
                if let Some((id, saved)) = task.on_barrier(channel, barrier) {
                    self.snapshots
                        .entry(id)
                        .or_default()
                        .insert(task.id.clone(), saved);
                }
            }
            _ => {}
        }
        true
    }

    fn complete(&self) -> impl Iterator<Item = &Snapshot> {
        let all = self.tasks.len();
        self.snapshots
            .values()
            .filter(move |snapshot| snapshot.len() == all)
    }
}

impl Task {
    fn restore(
        &mut self,
        graph: &JobGraph,
        from: &SubtaskId,
        saved: &Saved,
    ) -> Vec<(ChannelId, Element)> {
        let (owner, channels) = format::decode(&saved.channels).unwrap();
        let vertex = graph.vertex(&self.id.vertex).unwrap();
        let input = vertex.uid.as_str() != "source";
        let heir = Heir {
            graph,
            vertex,
            subtask: self.id.subtask,
            input: input.then(|| batch(0).schema()),
        };
        let is_same = owner.parallelism == self.parallelism;
        if from.subtask % self.parallelism == self.id.subtask {
            self.state.next = self.state.next.max(saved.next);
            for (number, rows) in &saved.rows {
                *self.state.rows.entry(*number).or_default() += rows;
            }
        } else if is_same {
            return Vec::new(); // Not deployed with it.
        }
        let share = heir.share(&owner, channels).unwrap();
        for (content, own) in share.output {
            self.output.restore(content, own).unwrap();
        }
        share.input
    }

    fn emit(&mut self) -> bool {
        if self.state.next == BATCHES {
            return false;
        }
        let number = self.state.next * i64::from(SOURCES) + i64::from(self.id.subtask);
        self.state.next += 1;
        self.output.collect(batch(number)).unwrap();
        self.output.watermark(number).unwrap();
        true
    }

    fn process(&mut self, batch: RecordBatch) {
        if self.id.vertex.as_str() == "sink" {
            for number in batch.column(0).as_primitive::<Int64Type>().values() {
                *self.state.rows.entry(*number).or_default() += 1;
            }
        } else {
            self.output.collect(batch).unwrap();
        }
    }

    fn come_to_checkpoint(
        &mut self,
        graph: &JobGraph,
        clear: bool,
        now: Duration,
    ) -> Option<(CheckpointId, Saved)> {
        let (barrier, _) = if self.aligner.is_none() && clear {
            self.overtaking.waiting()?
        } else {
            self.overtaking.due(now)?
        };
        let barrier = barrier.clone();
        let mut input = Vec::new();
        if let Some(aligner) = &mut self.aligner {
            let overtaken = self.gate.overtaken(barrier.checkpoint)?;
            if !self.restored.may_be_stored(overtaken.len()) {
                return None;
            }
            if !aligner.on_overtaken(barrier.checkpoint) {
                self.overtaking.over(barrier.checkpoint);
                return None;
            }
            input = channel_state::contents(graph, self.restored.before(overtaken));
        }
        Some(self.snapshot(&barrier, input))
    }

    fn on_aborted(&mut self, checkpoint: CheckpointId) {
        self.overtaking.over(checkpoint);
        let aligner = self.aligner.as_mut();
        if aligner.is_some_and(|aligner| aligner.on_aborted(checkpoint)) {
            self.gate.unblock_all();
        }
    }

    fn on_barrier(&mut self, channel: usize, barrier: Barrier) -> Option<(CheckpointId, Saved)> {
        match self.aligner.as_mut().unwrap().on_barrier(channel, barrier) {
            Step::Block => self.gate.block(channel),
            Step::Snapshot(barrier) => return Some(self.snapshot(&barrier, Vec::new())),
            Step::Abort { .. } => {
                self.gate.unblock_all();
                self.gate.block(channel);
            }
            Step::Ignore => {}
        }
        None
    }

    fn snapshot(&mut self, barrier: &Barrier, input: Vec<ChannelContent>) -> (CheckpointId, Saved) {
        assert!(barrier.checkpoint > self.taken);
        self.taken = barrier.checkpoint;
        self.overtaking.over(barrier.checkpoint);
        let output = self.output.barrier(barrier);
        self.gate.unblock_all();
        let state = ChannelState { input, output };
        let rows = |contents: &[ChannelContent]| {
            let elements = contents.iter().flat_map(|content| &content.elements);
            elements.map(|element| element.cost().rows).sum::<u64>()
        };
        let credit = |channels: usize| channels as u64 * gate::CHANNEL_CREDIT.rows;
        assert!(
            rows(&state.input) <= 2 * credit(state.input.len()),
            "what is stored has a bound"
        );
        let was_restored = barrier.checkpoint.0 > 1000;
        assert!(
            was_restored || rows(&state.output) <= credit(state.output.len()),
            "what is stored has a bound"
        );
        let owner = Owner {
            subtask: self.id.clone(),
            parallelism: self.parallelism,
        };
        let saved = Saved {
            channels: format::encode(&owner, &state).unwrap(),
            ..self.state.clone()
        };
        (barrier.checkpoint, saved)
    }
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A task, chosen by number, does its next step.
    Step(usize),
    /// The leader begins a checkpoint; the sources hear of it.
    Begin,
    /// A task hears of the present checkpoint.
    Hear(usize),
    /// Time passes, a second each.
    Pass(u8),
    /// The leader gives the present checkpoint up, and the tasks with these bits hear of it before the next begins.
    Abort(u16),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        24 => any::<prop::sample::Index>().prop_map(|at| Event::Step(at.index(1000))),
        2 => Just(Event::Begin),
        6 => any::<prop::sample::Index>().prop_map(|at| Event::Hear(at.index(1000))),
        2 => (0u8..12).prop_map(Event::Pass),
        1 => any::<u16>().prop_map(Event::Abort),
    ];
    prop::collection::vec(event, 0..400)
}

/// Carries the events out; checkpoints are numbered from above `last` on.
fn drive(job: &mut Job, events: &[Event], last: u64) {
    let (mut checkpoint, mut pending) = (CheckpointId(last), false);
    let trigger = |task: &mut Task, checkpoint: CheckpointId, now| {
        let barrier = Barrier {
            checkpoint,
            base: CheckpointId::NONE,
            kind: CheckpointKind::Checkpoint,
            savepoint_directory: None,
        };
        if checkpoint > task.taken {
            task.overtaking.on_trigger(barrier, Some(TIMEOUT), now);
        }
    };
    let tasks = job.tasks.len();
    for event in events {
        match *event {
            Event::Step(at) => drop(job.step(at % tasks)),
            Event::Begin if !pending => {
                checkpoint = checkpoint.next();
                pending = true;
                for task in job.tasks.iter_mut().filter(|task| task.aligner.is_none()) {
                    trigger(task, checkpoint, job.now);
                }
            }
            Event::Hear(at) if pending => trigger(&mut job.tasks[at % tasks], checkpoint, job.now),
            Event::Pass(seconds) => job.now += Duration::from_secs(seconds.into()),
            Event::Abort(bits) if pending => {
                pending = false;
                for (at, task) in job.tasks.iter_mut().enumerate() {
                    if bits & (1 << at) != 0 {
                        task.on_aborted(checkpoint);
                    }
                }
            }
            _ => {}
        }
        let taken = job.snapshots.get(&checkpoint).map_or(0, BTreeMap::len);
        pending &= taken < tasks;
    }
    if !pending {
        // Sooner or later everybody hears what became of it.
        job.tasks
            .iter_mut()
            .for_each(|task| task.on_aborted(checkpoint));
    }
}

/// One run, one that begins from its last checkpoint at another parallelism, and restores of all that they complete. How many
/// checkpoints stored anything.
fn run(
    (middle, sink): (u32, u32),
    events: &[Event],
    then: (u32, u32),
) -> Result<usize, TestCaseError> {
    let numbers = 0..BATCHES * i64::from(SOURCES);
    let expected: BTreeMap<i64, usize> = numbers.map(|number| (number, BATCH_ROWS)).collect();
    let (first, second) = events.split_at(events.len() / 2);
    let mut job = Job::start(middle, sink, None);
    drive(&mut job, first, 0);
    let mut jobs = Vec::new();
    if let Some(last) = job.complete().last() {
        let mut next = Job::start(then.0, then.1, Some(last));
        drive(&mut next, second, 1000);
        jobs.push(next);
    }
    jobs.push(job);
    let mut unaligned = 0;
    for mut job in jobs {
        prop_assert_eq!(&job.run_to_the_end(), &expected, "without a failure");
        for snapshot in job.complete() {
            let stored = |saved: &Saved| !format::decode(&saved.channels).unwrap().1.is_empty();
            unaligned += usize::from(snapshot.values().any(stored));
            for (middle, sink) in [(middle, sink), then] {
                let mut restored = Job::start(middle, sink, Some(snapshot));
                let rows = restored.run_to_the_end();
                prop_assert_eq!(&rows, &expected, "restored at {} and {}", middle, sink);
            }
        }
    }
    Ok(unaligned)
}

fn scenario() -> impl Strategy<Value = (u32, u32, Vec<Event>, (u32, u32))> {
    (1u32..4, 1u32..3, events(), (1u32..5, 1u32..4))
}

#[test]
fn every_row_of_every_checkpoint_arrives_exactly_once_however_barriers_come() {
    let unaligned = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig {
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::with_cases(64)
    });
    let outcome = runner.run(&scenario(), |(middle, sink, events, then)| {
        unaligned.set(unaligned.get() + run((middle, sink), &events, then)?);
        Ok(())
    });
    outcome.unwrap();
    assert!(
        unaligned.get() > 10,
        "{} checkpoints stored anything",
        unaligned.get()
    );
}

#[test]
fn barriers_that_overtake_without_storing_are_found() {
    type Planted = &'static std::thread::LocalKey<std::cell::Cell<bool>>;
    let planted: [Planted; 2] = [
        &target::FORGETS_WHAT_IS_OVERTAKEN,
        &gate::FORGETS_WHAT_IS_OVERTAKEN,
    ];
    for bug in planted {
        bug.set(true);
        let config = ProptestConfig {
            max_shrink_iters: 0,
            failure_persistence: None,
            ..ProptestConfig::with_cases(100)
        };
        let mut runner = TestRunner::new(config);
        let outcome = runner.run(&scenario(), |(middle, sink, events, then)| {
            run((middle, sink), &events, then).map(drop)
        });
        bug.set(false);
        assert!(matches!(outcome, Err(TestError::Fail(..))), "{outcome:?}");
    }
}
