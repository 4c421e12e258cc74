//! The sending end of a task: which channel a row goes to.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use flott_proto::ids::VertexId;
use flott_proto::job_graph::{Partitioning, Vertex};

use super::target::{ChannelSender, Target};
use super::{Barrier, Element};
use crate::Error;
use crate::channel_state::ChannelContent;
use crate::keys::HashPartitioner;
use crate::operators::Collector;
use crate::task::mailbox::Mailbox;

#[derive(Debug)]
enum Partitioner {
    /// The only target.
    Forward,
    Hash {
        columns: Vec<String>,
        max_parallelism: u32,
        partitioner: Option<HashPartitioner>,
    },
    Rebalance {
        next: usize,
    },
    Broadcast,
}

/// All channels of a task along one edge.
#[derive(Debug)]
pub struct ResultPartition {
    partitioner: Partitioner,
    peer: VertexId,
    /// Of the peer.
    parallelism: u32,
    targets: Vec<Target>,
}

impl ResultPartition {
    /// Along an edge with that partitioning to `target`, whose subtasks have these channels. `subtask` is the sender's
    /// number: rebalancing begins at a different target in each.
    pub fn new(
        partitioning: &Partitioning,
        target: &Vertex,
        subtask: u32,
        targets: Vec<ChannelSender>,
    ) -> Self {
        let mut first = 0;
        let partitioner = match partitioning {
            Partitioning::Forward => {
                first = subtask;
                Partitioner::Forward
            }
            Partitioning::Hash { columns } => Partitioner::Hash {
                columns: columns.clone(),
                max_parallelism: target.max_parallelism,
                partitioner: None,
            },
            Partitioning::Rebalance => Partitioner::Rebalance {
                next: subtask as usize % targets.len().max(1),
            },
            Partitioning::Broadcast => Partitioner::Broadcast,
        };
        let targets = (first..).zip(targets);
        Self {
            partitioner,
            peer: target.uid.clone(),
            parallelism: target.parallelism,
            targets: targets
                .map(|(subtask, sender)| Target::new(subtask, sender))
                .collect(),
        }
    }

    /// Which rows go to which target.
    fn route(&mut self, batch: RecordBatch) -> Result<Vec<(usize, RecordBatch)>, Error> {
        Ok(match &mut self.partitioner {
            Partitioner::Forward => vec![(0, batch)],
            Partitioner::Hash {
                columns,
                max_parallelism,
                partitioner,
            } => {
                let partitioner = match partitioner {
                    Some(partitioner) => partitioner,
                    None => {
                        let parallelism = self.targets.len() as u32;
                        partitioner.insert(HashPartitioner::new(
                            &batch.schema(),
                            columns,
                            *max_parallelism,
                            parallelism,
                        )?)
                    }
                };
                let parts = partitioner.partition(&batch)?.into_iter().enumerate();
                parts.filter_map(|(at, part)| Some((at, part?))).collect()
            }
            Partitioner::Rebalance { next } => {
                let target = *next;
                *next = (target + 1) % self.targets.len();
                vec![(target, batch)]
            }
            Partitioner::Broadcast => {
                let targets = 0..self.targets.len();
                targets.map(|target| (target, batch.clone())).collect()
            }
        })
    }

    fn emit(&mut self, batch: RecordBatch, sender: &Arc<Mailbox>) -> Result<(), Error> {
        for (target, part) in self.route(batch)? {
            self.targets[target].send(Element::Data(part), sender)?;
        }
        Ok(())
    }

    fn broadcast(&mut self, element: &Element, sender: &Arc<Mailbox>) -> Result<(), Error> {
        self.targets
            .iter_mut()
            .try_for_each(|target| target.send(element.clone(), sender))
    }
}

/// Everything that a task sends: the end of its chain.
#[derive(Debug)]
pub struct Output {
    partitions: Vec<ResultPartition>,
    mailbox: Arc<Mailbox>,
}

impl Output {
    /// For the task with that mailbox; no partitions for one that ends in a sink.
    pub fn new(partitions: Vec<ResultPartition>, mailbox: Arc<Mailbox>) -> Self {
        Self {
            partitions,
            mailbox,
        }
    }

    /// Sends what waits for credit, as far as there is some. Whether nothing waits any more: until then the task is to
    /// take no input. It is woken when there is credit.
    pub fn flush(&mut self) -> bool {
        let mut clear = true;
        for target in self
            .partitions
            .iter_mut()
            .flat_map(|partition| &mut partition.targets)
        {
            clear &= target.flush(&self.mailbox);
        }
        clear
    }

    /// Sends the barrier on every channel, ahead of what waits for credit there; what that is, by channel. Nothing, if all
    /// was flushed: then the barrier is behind everything sent so far.
    pub fn barrier(&mut self, barrier: &Barrier) -> Vec<ChannelContent> {
        let mut overtaken = Vec::new();
        for partition in &self.partitions {
            for target in &partition.targets {
                overtaken.push(ChannelContent {
                    peer: partition.peer.clone(),
                    peer_subtask: target.subtask,
                    peer_parallelism: partition.parallelism,
                    elements: target.overtake(barrier.clone(), &self.mailbox),
                });
            }
        }
        overtaken
    }

    /// What a barrier overtook in the checkpoint that is restored goes out before anything else. `own`: it was this very
    /// subtask's; then it stays in its channel if that is still there. Otherwise its rows go where they belong now, and
    /// watermarks, which speak of one channel, are said again by those who know them.
    pub fn restore(&mut self, content: ChannelContent, own: bool) -> Result<(), Error> {
        let found = self
            .partitions
            .iter_mut()
            .find(|partition| partition.peer == content.peer);
        let partition = found.ok_or_else(|| content.has_no_way("to"))?;
        let same = own && content.peer_parallelism == partition.parallelism;
        let kept = partition
            .targets
            .iter_mut()
            .find(|target| same && target.subtask == content.peer_subtask);
        if let Some(target) = kept {
            content
                .elements
                .into_iter()
                .for_each(|element| target.restore(element));
            return Ok(());
        }
        for element in content.elements {
            if let Element::Data(batch) = element {
                for (target, part) in partition.route(batch)? {
                    partition.targets[target].restore(Element::Data(part));
                }
            }
        }
        Ok(())
    }

    /// Everything was sent; barriers may still follow.
    pub fn end_of_data(&mut self) -> Result<(), Error> {
        self.broadcast(&Element::EndOfData)
    }

    fn broadcast(&mut self, element: &Element) -> Result<(), Error> {
        let mut partitions = self.partitions.iter_mut();
        partitions.try_for_each(|partition| partition.broadcast(element, &self.mailbox))
    }
}

impl Collector for Output {
    fn collect(&mut self, batch: RecordBatch) -> Result<(), Error> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let Some((last, others)) = self.partitions.split_last_mut() else {
            return Ok(());
        };
        for partition in others {
            partition.emit(batch.clone(), &self.mailbox)?;
        }
        last.emit(batch, &self.mailbox)
    }

    fn watermark(&mut self, watermark_ms: i64) -> Result<(), Error> {
        self.broadcast(&Element::Watermark(watermark_ms))
    }

    fn idle(&mut self, idle: bool) -> Result<(), Error> {
        self.broadcast(&Element::Idle(idle))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use flott_proto::job_graph::{Operator, OperatorKind, Schema, Sink};

    use super::super::ChannelId;
    use super::super::gate::InputGate;
    use super::*;

    fn vertex(parallelism: u32) -> Vertex {
        Vertex {
            uid: "t".parse().unwrap(),
            name: "t".into(),
            parallelism,
            max_parallelism: 128,
            chain: vec![Operator {
                uid: "o".into(),
                name: "o".into(),
                output: Schema::default(),
                kind: OperatorKind::Sink(Sink::Blackhole),
            }],
        }
    }

    /// A partition over `count` gates of one channel each.
    fn partition(partitioning: Partitioning, count: u32) -> (Output, Vec<Arc<InputGate>>) {
        let gate = |target| {
            let id = ChannelId {
                edge: 0,
                source: 0,
                target,
            };
            Arc::new(InputGate::new([(id, true)], Arc::default()))
        };
        let gates: Vec<_> = (0..count).map(gate).collect();
        let local = |gate: &Arc<InputGate>| ChannelSender::Local {
            gate: Arc::clone(gate),
            channel: 0,
        };
        let targets = gates.iter().map(local).collect();
        let partition = ResultPartition::new(&partitioning, &vertex(count), 0, targets);
        (Output::new(vec![partition], Arc::default()), gates)
    }

    fn batch(keys: &[i64]) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
        RecordBatch::try_from_iter([("key", column)]).unwrap()
    }

    fn keys(gate: &InputGate) -> Vec<i64> {
        let mut keys = Vec::new();
        while let Some((_, element)) = gate.poll() {
            if let Element::Data(batch) = element {
                keys.extend(batch.column(0).as_primitive::<Int64Type>().values());
            }
        }
        keys
    }

    #[test]
    fn every_row_goes_where_its_edge_says() {
        let rows: Vec<i64> = (0..100).collect();
        let send = |partitioning| {
            let (mut output, gates) = partition(partitioning, 3);
            output.collect(batch(&rows[..50])).unwrap();
            output.collect(batch(&rows[50..])).unwrap();
            gates.iter().map(|gate| keys(gate)).collect::<Vec<_>>()
        };
        let hashed = send(Partitioning::Hash {
            columns: vec!["key".into()],
        });
        let mut all = hashed.concat();
        all.sort_unstable();
        assert_eq!(all, rows);
        assert!(
            hashed
                .iter()
                .all(|part| !part.is_empty() && part.is_sorted()),
            "{hashed:?}"
        );
        assert_eq!(send(Partitioning::Broadcast), vec![rows.clone(); 3]);
        let rebalanced = send(Partitioning::Rebalance);
        assert_eq!(
            rebalanced,
            [rows[..50].to_vec(), rows[50..].to_vec(), vec![]]
        );
    }

    #[test]
    fn a_task_that_waits_for_room_ends_when_it_is_interrupted() {
        let (mut output, _gates) = partition(Partitioning::Broadcast, 1);
        let mailbox = Arc::clone(&output.mailbox);
        let full = batch(&vec![0; super::super::gate::CHANNEL_CREDIT.rows as usize]);
        output.collect(full.clone()).unwrap();
        output.collect(full).unwrap();
        assert!(!output.flush(), "the second waits for credit");
        let sender = std::thread::Builder::new().name("sender".into());
        let sender = sender.spawn(move || output.collect(batch(&[1]))).unwrap();
        mailbox.interrupt(Error::Canceled);
        assert!(matches!(sender.join().unwrap(), Err(Error::Canceled)));
    }
}
