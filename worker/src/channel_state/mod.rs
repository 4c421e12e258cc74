//! What was on its way when a task took its snapshot for an unaligned checkpoint.
//!
//! ```text
//! sender: processed ─▶ waits for credit ──────────── channel ────────────▶ waits in the gate ─▶ receiver: processed
//!                      └ output of the sender's          (the barrier has come through)  └ input of the receiver's
//! ```
//!
//! The barrier of such a checkpoint overtakes what waits for credit at the sender; the receiver takes its snapshot once the
//! barriers of all its channels have come in, wherever in its gate they stand. So each row that the sender had processed
//! and the receiver had not is in exactly one of two places, and both are stored: see `barrier::overtaking`. The bound is the
//! credit, once for each place: [`crate::network::gate::CHANNEL_CREDIT`] (or one larger batch) for the input of a channel and
//! as much for the output into it. Input that was restored and is not processed yet is stored again, once there is no more
//! of it than that: so after failures in a row it is at most twice as much.
//!
//! - [`format`](mod@format): the object's content. [`restore`]: which rows are whose, also at another parallelism.
//!   [`restored`]: the input that a task has taken over and not yet processed.
//!
//! What must stay true: after a restore each stored row is processed once, input before anything that comes through a
//! channel, and output before any new output. Rows of a hash edge go to the owner of their key group; others go where the
//! subtask with the number of theirs, modulo the parallelism, is. Watermarks speak of one channel: they are kept where that
//! channel is as it was.

pub mod format;
pub mod restore;
pub mod restored;

use flott_proto::ids::VertexId;
use flott_proto::job_graph::{JobGraph, Partitioning};

use crate::Error;
use crate::network::{ChannelId, Cost, Element};
use crate::operators::OperatorChain;

/// What was on its way in one channel.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelContent {
    /// The vertex and subtask at the other end, and how many of those there are.
    pub peer: VertexId,
    pub peer_subtask: u32,
    pub peer_parallelism: u32,
    /// Rows and watermarks, in order.
    pub elements: Vec<Element>,
}

impl ChannelContent {
    /// The graph is another than that of the checkpoint.
    pub(crate) fn has_no_way(&self, direction: &str) -> Error {
        Error::user(
            "restored checkpoint",
            format!(
                "rows were on their way {direction} vertex {}, to which there is no edge in this job; start it from a \
                 savepoint, in which nothing is on its way",
                self.peer
            ),
        )
    }
}

/// What was on its way to and from one subtask.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChannelState {
    pub input: Vec<ChannelContent>,
    pub output: Vec<ChannelContent>,
}

impl ChannelState {
    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        let mut contents = self.input.iter().chain(&self.output);
        contents.all(|content| content.elements.is_empty())
    }

    /// Of the rows.
    pub fn cost(&self) -> Cost {
        let mut cost = Cost::default();
        let contents = self.input.iter().chain(&self.output);
        for element in contents.flat_map(|content| &content.elements) {
            cost += element.cost();
        }
        cost
    }
}

/// What was in these channels of a task of the job, with the names of their other ends.
pub fn contents(graph: &JobGraph, channels: Vec<(ChannelId, Vec<Element>)>) -> Vec<ChannelContent> {
    let content = |(channel, elements): (ChannelId, Vec<Element>)| {
        let peer = &graph.edges[channel.edge as usize].source;
        let vertex = graph.vertex(peer).expect("a validated graph");
        ChannelContent {
            peer: peer.clone(),
            peer_subtask: channel.source,
            peer_parallelism: vertex.parallelism,
            elements,
        }
    };
    channels.into_iter().map(content).collect()
}

/// Whether what is on its way in a job can be divided by whoever goes on from it. It cannot where
///
/// - all subtasks get the same rows: each has come to another place in them;
/// - rows reach keyed state through a forward edge: nothing says which of them has which key group;
/// - two edges have the same ends: they could be mistaken for each other.
///
/// Such a job always aligns.
pub fn is_divisible(graph: &JobGraph) -> bool {
    graph.edges.iter().enumerate().all(|(at, edge)| {
        let keyed = || {
            graph
                .vertex(&edge.target)
                .is_some_and(OperatorChain::needs_keyed_state)
        };
        let is_same = |other: &flott_proto::job_graph::Edge| {
            (&other.source, &other.target) == (&edge.source, &edge.target)
        };
        let divisible = match edge.partitioning {
            Partitioning::Hash { .. } | Partitioning::Rebalance => true,
            Partitioning::Forward => !keyed(),
            Partitioning::Broadcast => false,
        };
        divisible && !graph.edges[..at].iter().any(is_same)
    })
}
