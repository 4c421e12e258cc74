//! How batches, and what must keep its place between them, get from task to task.
//!
//! ```text
//! chain → ResultPartition ─┬─ same process ──────────────────────────────→ InputGate → chain
//!                          └─ Outbound → TCP → inbound reader ─ credits ←┘
//! ```
//!
//! - [`topology`] (pure): which channels a task has. [`queue`] (pure): one channel's elements. [`credit`] (pure): how
//!   much may be on its way. [`frame`]: the bytes on a connection, and [`codec`]: the elements in them.
//! - [`partition`]: the sending end of a task, and `target` of one channel. [`gate`]: its receiving end.
//! - [`exchange`]: the listener and which attempts are deployed here. [`outbound`], [`inbound`]: the two ends of a
//!   connection. [`attempt`]: all of it for the tasks of one attempt.
//!
//! What must stay true: within a channel nothing overtakes, but for the barrier of an unaligned checkpoint, and that only
//! what has no credit yet and is stored with the checkpoint (`barrier::overtaking`); data waits for credit and control elements do not; a channel
//! that lost an element fails, and fails the tasks at both its ends; data of another attempt is refused.

pub mod attempt;
pub mod codec;
pub mod credit;
pub mod exchange;
pub mod frame;
pub mod gate;
pub mod inbound;
pub mod outbound;
pub mod partition;
pub mod queue;
pub mod target;
pub mod topology;

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use flott_proto::ids::CheckpointId;
use flott_proto::wire::{CheckpointKind, ExchangeChannel};

pub use credit::Cost;

/// From one subtask to another along one edge of the job graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    /// Index in `JobGraph::edges`.
    pub edge: u32,
    pub source: u32,
    pub target: u32,
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "edge {} {}->{}", self.edge, self.source, self.target)
    }
}

impl From<ChannelId> for ExchangeChannel {
    fn from(id: ChannelId) -> Self {
        Self {
            edge: id.edge,
            source_subtask: id.source,
            target_subtask: id.target,
        }
    }
}

impl From<&ExchangeChannel> for ChannelId {
    fn from(wire: &ExchangeChannel) -> Self {
        Self {
            edge: wire.edge,
            source: wire.source_subtask,
            target: wire.target_subtask,
        }
    }
}

/// Divides a stream into what belongs to a checkpoint and what comes after it. Carries all that a task needs to know
/// of the trigger, so that no task depends on having heard of the checkpoint from the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barrier {
    pub checkpoint: CheckpointId,
    /// Acks are changes against this completed checkpoint; none: full.
    pub base: CheckpointId,
    pub kind: CheckpointKind,
    /// Where the files of a savepoint go; `None` for other kinds.
    pub savepoint_directory: Option<Arc<str>>,
}

/// What flows through a channel.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    /// Rows; the only element that needs credit.
    Data(RecordBatch),
    /// No row with this event time (ms) or less follows.
    Watermark(i64),
    /// Nothing is to be expected for the time being, or is again.
    Idle(bool),
    Barrier(Barrier),
    /// All rows were sent. Barriers still follow.
    EndOfData,
}

impl Element {
    /// Whether it is a part of a checkpoint whose barrier overtakes it. The rest is said again after a restore: a task that
    /// begins anew finds the end of its input and its idleness anew, and what it has told of them is forgotten.
    pub fn is_stored(&self) -> bool {
        matches!(self, Self::Data(_) | Self::Watermark(_))
    }

    /// What it takes of a channel's credit: rows, and bytes of the columns' slices in memory.
    pub fn cost(&self) -> Cost {
        match self {
            Self::Data(batch) => {
                // A slice that cannot say its size (no such type passes our sources) counts as a kilobyte a column.
                let bytes_of = |column: &arrow::array::ArrayRef| {
                    column.to_data().get_slice_memory_size().unwrap_or(1024)
                };
                Cost {
                    rows: batch.num_rows() as u64,
                    bytes: batch.columns().iter().map(bytes_of).sum::<usize>() as u64,
                }
            }
            _ => Cost::default(),
        }
    }
}
