//! Where rows come from and where they go.
//!
//! A source can be asked for its next rows and for its position, and begins again at a position: rows that were read
//! after the last checkpoint are read again, the same and in the same order. A sink holds rows back until the
//! checkpoint that covers them is complete; it is an operator like others, the last of its chain.
//!
//! - [`filesystem`]: files as source and as sink. [`nexmark`]: an auction site, made up. [`blackhole`]: nowhere.
//! - [`rate_limit`]: an even pace for a source.

pub(crate) mod blackhole;
pub(crate) mod filesystem;
pub(crate) mod nexmark;
pub(crate) mod rate_limit;

use std::fmt;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use flott_proto::wire;

use crate::Error;
use crate::operators::OperatorContext;

/// Rows that a source gives at a time where nothing limits it: large enough for vectorised work, small enough that a
/// barrier waits for less than a millisecond or two of it.
pub(crate) const BATCH_ROWS: usize = 4096;

/// What came of asking a source for rows.
#[derive(Debug)]
pub(crate) enum Polled {
    /// Possibly none, where all were skipped.
    Batch(RecordBatch),
    /// None before this monotonic time.
    NotBefore(Duration),
    /// None ever again.
    End,
}

/// The head of a chain: replayable from the position in its snapshot.
pub(crate) trait Source: Send + fmt::Debug {
    /// Takes up the restored position, or the beginning.
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<(), Error>;

    /// The next rows.
    fn poll(&mut self) -> Result<Polled, Error>;

    /// The position behind the rows that were given.
    fn snapshot(&mut self) -> Result<Bytes, Error>;

    /// Adds what only this source knows.
    fn add_counters(&self, _counters: &mut wire::TaskCounters) {}
}
