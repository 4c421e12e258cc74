//! The network of the tasks of one attempt in this process: gates, partitions, and the connections between.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flott_node::OnFailure;
use flott_proto::Malformed;
use flott_proto::ids::{AttemptNumber, ClusterId, JobId, LeaderEpoch, SubtaskId, TaskManagerId};
use flott_proto::job_graph::JobGraph;
use tokio_util::sync::CancellationToken;

use super::ChannelId;
use super::exchange::{AttemptChannels, Exchange};
use super::gate::InputGate;
use super::outbound::{self, Outbound, Purpose};
use super::partition::{Output, ResultPartition};
use super::target::ChannelSender;
use super::topology::{self, Location, Locations};
use crate::Error;
use crate::task::mailbox::Mailbox;

/// Which attempt, by whose order.
#[derive(Clone, Debug)]
pub struct AttemptId {
    pub cluster: ClusterId,
    pub job: JobId,
    pub attempt: AttemptNumber,
    pub epoch: LeaderEpoch,
}

/// A task's two ends.
#[derive(Debug)]
pub struct TaskEnds {
    pub gate: Arc<InputGate>,
    pub output: Output,
}

/// The end of an attempt in this process, as its connections see it.
#[derive(Debug)]
pub struct Over {
    token: CancellationToken,
    abandoned: AtomicBool,
}

impl Over {
    pub(super) async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Whether peers are to be told. Where they are not they see a broken connection, as they should.
    pub(super) fn is_orderly(&self) -> bool {
        !self.abandoned.load(Ordering::Acquire)
    }
}

/// The connections of an attempt. They end in order by [`Self::close`] or when the process is asked to end: peers are
/// told, and do not count it as a loss. If it is just dropped, because something panicked say, they do.
#[derive(Debug)]
pub struct AttemptNetwork {
    exchange: Arc<Exchange>,
    id: AttemptId,
    over: Arc<Over>,
}

impl AttemptNetwork {
    /// All tasks of the attempt have ended here.
    pub fn close(self) {
        self.over.token.cancel();
    }
}

impl Drop for AttemptNetwork {
    fn drop(&mut self) {
        if !self.over.is_cancelled() {
            self.over.abandoned.store(true, Ordering::Release);
            self.over.token.cancel();
        }
        self.exchange.unregister(&self.id.job, self.id.attempt);
    }
}

/// Channels to one peer in the order of their numbers, as they are found.
type PeerChannels = BTreeMap<TaskManagerId, (Location, Vec<(ChannelId, Arc<Mailbox>)>)>;

/// Connects `own` tasks of the attempt with each other and with those elsewhere. Returns at once: the connections are
/// made in the background, and tasks may send meanwhile.
///
/// Fails if `own` is not what `locations` says runs here.
pub fn open(
    exchange: &Arc<Exchange>,
    id: AttemptId,
    graph: &JobGraph,
    locations: &Locations,
    own: &BTreeMap<SubtaskId, Arc<Mailbox>>,
) -> Result<(AttemptNetwork, BTreeMap<SubtaskId, TaskEnds>), Error> {
    let here = |task: &SubtaskId| locations[task].task_manager == *exchange.id();
    let planned = locations.keys().filter(|task| here(task));
    if !planned.eq(own.keys()) {
        let what = format!(
            "names other tasks for {} than it deploys there",
            exchange.id()
        );
        return Err(Malformed::new("deployment", what).into());
    }
    let gates: BTreeMap<&SubtaskId, Arc<InputGate>> = own
        .iter()
        .map(|(task, mailbox)| {
            let channels = topology::inputs(graph, task)
                .into_iter()
                .map(|(id, sender)| (id, here(&sender)));
            (
                task,
                Arc::new(InputGate::new(channels, Arc::clone(mailbox))),
            )
        })
        .collect();

    // First all channels to each peer, since their numbers are fixed when the connection is made.
    let mut peers = PeerChannels::new();
    for (task, mailbox) in own {
        for (edge, _) in graph.outputs(&task.vertex) {
            for (channel, receiver) in topology::outputs(graph, task, edge) {
                if !here(&receiver) {
                    let location = &locations[&receiver];
                    let (_, channels) = peers
                        .entry(location.task_manager.clone())
                        .or_insert_with(|| (location.clone(), Vec::new()));
                    channels.push((channel, Arc::clone(mailbox)));
                }
            }
        }
    }
    let mut remote: BTreeMap<ChannelId, ChannelSender> = BTreeMap::new();
    let mut connections = Vec::new();
    for (location, channels) in peers.into_values() {
        let ids: Vec<ChannelId> = channels.iter().map(|(id, _)| *id).collect();
        let outbound = Arc::new(Outbound::new(location, channels));
        for (number, id) in ids.into_iter().enumerate() {
            let sender = ChannelSender::Remote {
                outbound: Arc::clone(&outbound),
                channel: number as u32,
            };
            remote.insert(id, sender);
        }
        connections.push(outbound);
    }

    let mut ends = BTreeMap::new();
    for (task, mailbox) in own {
        let mut partitions = Vec::new();
        for (edge_index, edge) in graph.outputs(&task.vertex) {
            let sender = |(channel, receiver): (ChannelId, SubtaskId)| match gates.get(&receiver) {
                Some(gate) => ChannelSender::Local {
                    gate: Arc::clone(gate),
                    channel: gate.position(channel).expect("both ends know a channel"),
                },
                None => remote[&channel].clone(),
            };
            let targets = topology::outputs(graph, task, edge_index)
                .into_iter()
                .map(sender)
                .collect();
            let target = graph.vertex(&edge.target).expect("a validated graph");
            partitions.push(ResultPartition::new(
                &edge.partitioning,
                target,
                task.subtask,
                targets,
            ));
        }
        let task_ends = TaskEnds {
            gate: Arc::clone(&gates[task]),
            output: Output::new(partitions, Arc::clone(mailbox)),
        };
        ends.insert(task.clone(), task_ends);
    }

    let over = Arc::new(Over {
        token: exchange.tasks().cancellation().child_token(),
        abandoned: AtomicBool::new(false),
    });
    let mut ending_here = BTreeMap::new();
    for (task, gate) in &gates {
        for (position, (channel, sender)) in topology::inputs(graph, task).into_iter().enumerate() {
            if !here(&sender) {
                ending_here.insert(channel, (Arc::clone(gate), position));
            }
        }
    }
    let channels = AttemptChannels {
        cluster: id.cluster.clone(),
        gates: ending_here,
        over: Arc::clone(&over),
    };
    exchange.register(&id.job, id.attempt, Arc::new(channels));
    for outbound in connections {
        let purpose = Purpose {
            cluster: id.cluster.clone(),
            job: id.job.clone(),
            attempt: id.attempt,
            epoch: id.epoch,
            over: Arc::clone(&over),
        };
        let exchange_of_connection = Arc::clone(exchange);
        exchange
            .tasks()
            .spawn("data connection out", OnFailure::Log, async move {
                outbound::run(outbound, exchange_of_connection, purpose).await;
                Ok::<_, Infallible>(())
            });
    }
    let network = AttemptNetwork {
        exchange: Arc::clone(exchange),
        id,
        over,
    };
    Ok((network, ends))
}
