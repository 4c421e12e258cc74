//! A vertex's operators as one chain, called directly from one to the next.
//!
//! ```text
//! runtime → process / on_watermark / poll_source → operator → operator → … → Collector of the runtime
//! ```
//!
//! The life of a chain: `build` (compiles, touches nothing), `open` (restores, recommits), then any number of
//! `poll_source`/`process`/`on_*`, with `snapshot` and `commit` between them. An error of any call ends the task.

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use flott_node::SharedClock;
use flott_proto::ids::{CheckpointId, TaskId};
use flott_proto::job_graph::{OperatorKind, Vertex};
use flott_proto::key_group::KeyGroupRange;
use flott_proto::wire;
use flott_statestore::{KeyedBackend, LocalSnapshot};

use super::{Collector, Operator, OperatorContext, registry};
use crate::Error;
use crate::connectors::{Polled, Source};
use crate::time::{WATERMARK_END, WATERMARK_NONE};

/// What a chain needs to know of the task it runs in.
#[derive(Debug)]
pub struct ChainContext {
    pub task: TaskId,
    pub parallelism: u32,
    pub max_parallelism: u32,
    pub key_groups: KeyGroupRange,
    /// Operator state by operator uid, one map for each subtask state that is restored; empty for a fresh start. Where
    /// the parallelism changed, it must hold all the subtasks of the vertex as it was.
    pub restored: Vec<BTreeMap<String, Bytes>>,
    pub clock: SharedClock,
    /// The checkpoint that `restored` comes from.
    pub restored_checkpoint: CheckpointId,
}

/// What came of asking a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceStatus {
    /// Rows were read and went down the chain; ask again.
    Emitted,
    /// The rate limit allows no row before this monotonic time of the clock.
    NotBefore(Duration),
    /// Nothing at present; ask again later.
    Idle,
    /// Everything was read, and the chain was told: the last watermark and the end of data went down it.
    EndOfData,
}

#[derive(Debug)]
struct Stage {
    uid: String,
    operator: Box<dyn Operator>,
}

#[derive(Debug)]
struct SourceStage {
    uid: String,
    source: Box<dyn Source>,
}

/// What the chain counts itself.
#[derive(Clone, Copy, Debug)]
struct Progress {
    records_in: u64,
    records_out: u64,
    watermark_ms: i64,
}

/// The operators of one subtask of a vertex.
#[derive(Debug)]
pub struct OperatorChain {
    ctx: ChainContext,
    source: Option<SourceStage>,
    stages: Vec<Stage>,
    progress: Progress,
    ended: bool,
}

impl OperatorChain {
    /// Compiles the operators of `vertex`. `input` is the schema of the edge into it, and `None` for a source vertex.
    /// Opens no file and touches no state. Errors name the operator.
    pub fn build(
        vertex: &Vertex,
        input: Option<SchemaRef>,
        ctx: ChainContext,
    ) -> Result<Self, Error> {
        let built = registry::build(vertex, input)?;
        let stage = |(uid, operator)| Stage { uid, operator };
        Ok(Self {
            ctx,
            source: built
                .source
                .map(|(uid, source)| SourceStage { uid, source }),
            stages: built.operators.into_iter().map(stage).collect(),
            progress: Progress {
                records_in: 0,
                records_out: 0,
                watermark_ms: WATERMARK_NONE,
            },
            ended: false,
        })
    }

    /// Whether [`Self::open`] wants a backend.
    pub fn needs_keyed_state(vertex: &Vertex) -> bool {
        let keyed = |kind: &OperatorKind| matches!(kind, OperatorKind::WindowAggregate(_));
        vertex.chain.iter().any(|operator| keyed(&operator.kind))
    }

    /// Restores operator state, opens files, and commits again what the restored checkpoint had prepared.
    pub fn open(&mut self, mut backend: Option<KeyedBackend>) -> Result<(), Error> {
        if let Some(stage) = &mut self.source {
            stage.source.open(&mut OperatorContext {
                chain: &self.ctx,
                uid: &stage.uid,
                backend: &mut backend,
            })?;
        }
        for stage in &mut self.stages {
            stage.operator.open(&mut OperatorContext {
                chain: &self.ctx,
                uid: &stage.uid,
                backend: &mut backend,
            })?;
        }
        Ok(())
    }

    /// Whether the chain begins with a source: then it is polled, and is given no input.
    pub fn is_source(&self) -> bool {
        self.source.is_some()
    }

    /// Reads at most one batch and sends it down the chain.
    ///
    /// At the end of the data the chain is told by this call, once; the runtime only has to pass the end of data on to
    /// its channels.
    pub fn poll_source(&mut self, out: &mut dyn Collector) -> Result<SourceStatus, Error> {
        let stage = self.source.as_mut();
        let stage = stage.expect("only a chain that is_source is polled");
        let status = match stage.source.poll()? {
            Polled::Batch(batch) => {
                self.progress.records_in += batch.num_rows() as u64;
                self.downstream(0, out).collect(batch)?;
                SourceStatus::Emitted
            }
            Polled::NotBefore(time) => SourceStatus::NotBefore(time),
            Polled::End => {
                self.on_end_of_data(out)?;
                SourceStatus::EndOfData
            }
        };
        if !matches!(status, SourceStatus::Emitted | SourceStatus::EndOfData) {
            self.on_tick(out)?;
        }
        Ok(status)
    }

    /// Rows from the edge into this vertex.
    pub fn process(&mut self, input: RecordBatch, out: &mut dyn Collector) -> Result<(), Error> {
        self.progress.records_in += input.num_rows() as u64;
        self.downstream(0, out).collect(input)
    }

    /// The combined watermark of the inputs rose.
    pub fn on_watermark(
        &mut self,
        watermark_ms: i64,
        out: &mut dyn Collector,
    ) -> Result<(), Error> {
        self.downstream(0, out).watermark(watermark_ms)
    }

    /// All inputs became idle, or one is active again.
    pub fn on_idle(&mut self, idle: bool, out: &mut dyn Collector) -> Result<(), Error> {
        self.downstream(0, out).idle(idle)
    }

    /// To be called now and then while no input comes (a source does so itself when polled): finds idleness.
    pub fn on_tick(&mut self, out: &mut dyn Collector) -> Result<(), Error> {
        for at in 0..self.stages.len() {
            let (stage, mut rest) = self.at(at, out);
            stage.operator.on_tick(&mut rest)?;
        }
        Ok(())
    }

    /// Every input has ended: the last watermark closes all windows. A second call does nothing.
    pub fn on_end_of_data(&mut self, out: &mut dyn Collector) -> Result<(), Error> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        self.on_watermark(WATERMARK_END, out)?;
        for at in 0..self.stages.len() {
            let (stage, mut rest) = self.at(at, out);
            stage.operator.on_end_of_data(&mut rest)?;
        }
        Ok(())
    }

    /// The synchronous part of a checkpoint: operator state by uid, and the keyed state to be uploaded. Sinks have
    /// made durable what they were given.
    pub fn snapshot(
        &mut self,
        checkpoint: CheckpointId,
    ) -> Result<(BTreeMap<String, Bytes>, Option<LocalSnapshot>), Error> {
        let mut states = BTreeMap::new();
        if let Some(stage) = &mut self.source {
            states.insert(stage.uid.clone(), stage.source.snapshot()?);
        }
        let mut keyed = None;
        for stage in &mut self.stages {
            if let Some(state) = stage.operator.snapshot(checkpoint)? {
                states.insert(stage.uid.clone(), state);
            }
            keyed = stage.operator.keyed_snapshot(checkpoint)?.or(keyed);
        }
        Ok((states, keyed))
    }

    /// Makes visible what was prepared for this checkpoint or an earlier one. Idempotent.
    pub fn commit(&mut self, checkpoint: CheckpointId) -> Result<(), Error> {
        for stage in &mut self.stages {
            stage.operator.commit(checkpoint)?;
        }
        Ok(())
    }

    /// The keyed state, while an operator of the chain holds it.
    pub fn backend(&mut self) -> Option<&mut KeyedBackend> {
        self.stages
            .iter_mut()
            .find_map(|stage| stage.operator.backend())
    }

    /// Counts since the chain was built. `records_out` counts rows that went to the next vertex or into a sink.
    pub fn counters(&self) -> wire::TaskCounters {
        let mut counters = wire::TaskCounters {
            records_in: self.progress.records_in,
            records_out: self.progress.records_out,
            late_records_dropped: 0,
            parse_errors_skipped: 0,
            watermark_ms: self.progress.watermark_ms,
        };
        if let Some(stage) = &self.source {
            stage.source.add_counters(&mut counters);
        }
        for stage in &self.stages {
            stage.operator.add_counters(&mut counters);
        }
        counters
    }

    fn downstream<'a>(&'a mut self, from: usize, out: &'a mut dyn Collector) -> Downstream<'a> {
        Downstream {
            rest: &mut self.stages[from..],
            out,
            progress: &mut self.progress,
        }
    }

    /// The operator at a place, and all that comes after it.
    fn at<'a>(
        &'a mut self,
        place: usize,
        out: &'a mut dyn Collector,
    ) -> (&'a mut Stage, Downstream<'a>) {
        let (stage, rest) = self.stages[place..]
            .split_first_mut()
            .expect("the place of an operator");
        let progress = &mut self.progress;
        (
            stage,
            Downstream {
                rest,
                out,
                progress,
            },
        )
    }
}

/// The rest of a chain after some place in it.
struct Downstream<'a> {
    rest: &'a mut [Stage],
    out: &'a mut dyn Collector,
    progress: &'a mut Progress,
}

impl Downstream<'_> {
    fn next(&mut self) -> Option<(&mut dyn Operator, Downstream<'_>)> {
        let (first, rest) = self.rest.split_first_mut()?;
        let rest = Downstream {
            rest,
            out: &mut *self.out,
            progress: &mut *self.progress,
        };
        Some((first.operator.as_mut(), rest))
    }
}

impl Collector for Downstream<'_> {
    fn collect(&mut self, batch: RecordBatch) -> Result<(), Error> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if let Some((operator, mut rest)) = self.next() {
            return operator.process(batch, &mut rest);
        }
        self.progress.records_out += batch.num_rows() as u64;
        self.out.collect(batch)
    }

    fn watermark(&mut self, watermark_ms: i64) -> Result<(), Error> {
        self.progress.watermark_ms = self.progress.watermark_ms.max(watermark_ms);
        match self.next() {
            Some((operator, mut rest)) => operator.on_watermark(watermark_ms, &mut rest),
            // The end of data says it, and says more.
            None if watermark_ms == WATERMARK_END => Ok(()),
            None => self.out.watermark(watermark_ms),
        }
    }

    fn idle(&mut self, idle: bool) -> Result<(), Error> {
        match self.next() {
            Some((operator, mut rest)) => operator.on_idle(idle, &mut rest),
            None => self.out.idle(idle),
        }
    }
}
