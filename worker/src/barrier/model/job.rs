//! The job: its tasks, what each does in a step, and what it saves.

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

use super::{BATCH_ROWS, BATCHES, SOURCES};
use crate::barrier::aligner::{BarrierAligner, Step};
use crate::barrier::overtaking::Overtaking;
use crate::channel_state::format::{self, Owner};
use crate::channel_state::restore::Heir;
use crate::channel_state::restored::Restored;
use crate::channel_state::{self, ChannelContent, ChannelState};
use crate::network::gate::{self, InputGate};
use crate::network::partition::{Output, ResultPartition};
use crate::network::target::ChannelSender;
use crate::network::{Barrier, ChannelId, Element, topology};
use crate::operators::Collector;

/// What a subtask saves.
#[derive(Clone, Debug, Default)]
pub(super) struct Saved {
    /// A source's next batch.
    next: i64,
    /// How many rows of each number a sink has.
    rows: BTreeMap<i64, usize>,
    pub(super) channels: Vec<u8>,
}

pub(super) type Snapshot = BTreeMap<SubtaskId, Saved>;

pub(super) struct Task {
    id: SubtaskId,
    parallelism: u32,
    gate: Arc<InputGate>,
    output: Output,
    restored: Restored,
    pub(super) aligner: Option<BarrierAligner>,
    pub(super) overtaking: Overtaking,
    pub(super) taken: CheckpointId,
    state: Saved,
}

pub(super) struct Job {
    graph: JobGraph,
    pub(super) tasks: Vec<Task>,
    pub(super) now: Duration,
    pub(super) snapshots: BTreeMap<CheckpointId, Snapshot>,
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
    pub(super) fn start(middle: u32, sink: u32, from: Option<&Snapshot>) -> Self {
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
    pub(super) fn run_to_the_end(&mut self) -> BTreeMap<i64, usize> {
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
    pub(super) fn step(&mut self, at: usize) -> bool {
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

    pub(super) fn complete(&self) -> impl Iterator<Item = &Snapshot> {
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

    pub(super) fn on_aborted(&mut self, checkpoint: CheckpointId) {
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
