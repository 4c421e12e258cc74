//! The sending end of a task: which channel a row goes to, and waiting until there is room.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use flott_proto::job_graph::{Partitioning, Vertex};

use super::gate::InputGate;
use super::outbound::Outbound;
use super::{Barrier, Cost, Element};
use crate::Error;
use crate::keys::HashPartitioner;
use crate::operators::Collector;
use crate::task::mailbox::Mailbox;
use crate::task::run::WAIT_MAX;

/// The sender's end of one channel.
#[derive(Clone, Debug)]
pub enum ChannelSender {
    /// To a task of this process: by reference.
    Local {
        gate: Arc<InputGate>,
        channel: usize,
    },
    /// Over a connection.
    Remote {
        outbound: Arc<Outbound>,
        channel: u32,
    },
}

impl ChannelSender {
    fn try_send(&self, element: Element, cost: Cost, sender: &Arc<Mailbox>) -> Result<(), Element> {
        match self {
            Self::Local { gate, channel } => gate.try_push(*channel, element, cost, sender),
            Self::Remote { outbound, channel } => outbound.try_push(*channel, element, cost),
        }
    }

    /// Sends, waiting for room as long as the task is not to end.
    fn send(&self, mut element: Element, sender: &Arc<Mailbox>) -> Result<(), Error> {
        let cost = element.cost();
        loop {
            match self.try_send(element, cost, sender) {
                Ok(()) => return Ok(()),
                Err(refused) => element = refused,
            }
            sender.check()?;
            sender.wait(WAIT_MAX);
        }
    }
}

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
    targets: Vec<ChannelSender>,
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
        let partitioner = match partitioning {
            Partitioning::Forward => Partitioner::Forward,
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
        Self {
            partitioner,
            targets,
        }
    }

    fn emit(&mut self, batch: RecordBatch, sender: &Arc<Mailbox>) -> Result<(), Error> {
        match &mut self.partitioner {
            Partitioner::Forward => self.targets[0].send(Element::Data(batch), sender),
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
                let parts = partitioner.partition(&batch)?;
                for (target, part) in self.targets.iter().zip(parts) {
                    if let Some(part) = part {
                        target.send(Element::Data(part), sender)?;
                    }
                }
                Ok(())
            }
            Partitioner::Rebalance { next } => {
                let target = &self.targets[*next];
                *next = (*next + 1) % self.targets.len();
                target.send(Element::Data(batch), sender)
            }
            Partitioner::Broadcast => self.broadcast(&Element::Data(batch), sender),
        }
    }

    fn broadcast(&self, element: &Element, sender: &Arc<Mailbox>) -> Result<(), Error> {
        self.targets
            .iter()
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

    /// Sends the barrier behind everything sent so far, on every channel.
    pub fn barrier(&mut self, barrier: Barrier) -> Result<(), Error> {
        self.broadcast(&Element::Barrier(barrier))
    }

    /// Everything was sent; barriers may still follow.
    pub fn end_of_data(&mut self) -> Result<(), Error> {
        self.broadcast(&Element::EndOfData)
    }

    fn broadcast(&self, element: &Element) -> Result<(), Error> {
        let mut partitions = self.partitions.iter();
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
        output.collect(full).unwrap();
        let sender = std::thread::Builder::new().name("sender".into());
        let sender = sender.spawn(move || output.collect(batch(&[1]))).unwrap();
        mailbox.interrupt(Error::Canceled);
        assert!(matches!(sender.join().unwrap(), Err(Error::Canceled)));
    }
}
