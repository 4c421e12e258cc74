//! What a task computes: operators on record batches, called directly down a chain.
//!
//! An operator is a synchronous struct on one thread. It takes a batch and gives what comes of it to a [`Collector`]:
//! the rest of the chain, and at the chain's end the runtime. Nothing here awaits, spawns or knows of channels.
//!
//! - [`chain`]: a vertex's operators as one [`OperatorChain`], which is all that the runtime sees.
//! - [`registry`]: from the JobGraph's description to the operator.
//! - [`filter`], [`project`], [`assign_watermark`], [`window`]: the operators. Sources and sinks are in `connectors`.
//! - [`restore`]: an operator's state from the states of one or many earlier subtasks.
//!
//! What must stay true: an operator's output depends only on its input, its state and its settings, never on time or
//! on how the input was cut into batches. What it keeps between calls is in its snapshot.

mod assign_watermark;
mod chain;
mod filter;
mod project;
pub(crate) mod registry;
pub(crate) mod restore;
pub(crate) mod window;

use std::fmt;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use flott_proto::ids::CheckpointId;
use flott_proto::wire;
use flott_statestore::{KeyedBackend, LocalSnapshot};

pub use chain::{ChainContext, OperatorChain, SourceStatus};
pub(crate) use registry::names;

use crate::Error;

/// Takes what an operator emits, in order. The runtime implements it for the channels after a chain.
pub trait Collector {
    /// Rows. A call may wait for room downstream, and fails with [`Error::Canceled`] if the task is to end.
    fn collect(&mut self, batch: RecordBatch) -> Result<(), Error>;

    /// No more rows with an event time at or below `watermark_ms` are to be expected. Rises from call to call. The
    /// last watermark, that of the end of data, does not come here: the runtime tells its channels of the end.
    fn watermark(&mut self, watermark_ms: i64) -> Result<(), Error>;

    /// There is nothing to send for the time being (`true`), so others need not wait for this one's watermark; or
    /// there is again (`false`).
    fn idle(&mut self, _idle: bool) -> Result<(), Error> {
        Ok(())
    }
}

/// What an operator is opened with.
pub(crate) struct OperatorContext<'a> {
    pub(crate) chain: &'a ChainContext,
    /// The operator's own uid.
    pub(crate) uid: &'a str,
    /// Keyed state, for the operator of the chain that takes it.
    pub(crate) backend: &'a mut Option<KeyedBackend>,
}

/// A link of the chain that has an input. Emits only to `out`, and only what it has been given or holds in its state.
pub(crate) trait Operator: Send + fmt::Debug {
    /// Before everything else: takes over restored state and opens what it needs.
    fn open(&mut self, _ctx: &mut OperatorContext<'_>) -> Result<(), Error> {
        Ok(())
    }

    /// Rows, never none.
    fn process(&mut self, batch: RecordBatch, out: &mut dyn Collector) -> Result<(), Error>;

    /// The input's watermark rose.
    fn on_watermark(&mut self, watermark_ms: i64, out: &mut dyn Collector) -> Result<(), Error> {
        out.watermark(watermark_ms)
    }

    /// The input became idle or active.
    fn on_idle(&mut self, idle: bool, out: &mut dyn Collector) -> Result<(), Error> {
        out.idle(idle)
    }

    /// Called now and then while no data comes.
    fn on_tick(&mut self, _out: &mut dyn Collector) -> Result<(), Error> {
        Ok(())
    }

    /// The input has ended; its watermark is already the last.
    fn on_end_of_data(&mut self, _out: &mut dyn Collector) -> Result<(), Error> {
        Ok(())
    }

    /// The operator's own state at this point of the stream. A sink makes all rows so far durable but not visible.
    fn snapshot(&mut self, _checkpoint: CheckpointId) -> Result<Option<Bytes>, Error> {
        Ok(None)
    }

    /// The keyed state at this point of the stream: flush and hard links only.
    fn keyed_snapshot(
        &mut self,
        _checkpoint: CheckpointId,
    ) -> Result<Option<LocalSnapshot>, Error> {
        Ok(None)
    }

    /// The checkpoint is complete: what was prepared for it, or for an earlier one, becomes visible. Idempotent.
    fn commit(&mut self, _checkpoint: CheckpointId) -> Result<(), Error> {
        Ok(())
    }

    /// The keyed state that this operator has taken.
    fn backend(&mut self) -> Option<&mut KeyedBackend> {
        None
    }

    /// Adds what only this operator knows.
    fn add_counters(&self, _counters: &mut wire::TaskCounters) {}
}
