//! Keyed state that survives.
//!
//! One task owns one [`KeyedBackend`]: a RocksDB on local disk that holds the state of a range of key groups, with all of
//! it in memory, too, if that is asked for. At a checkpoint it hands out a [`LocalSnapshot`] (what is in memory is sealed,
//! which takes no time), and a [`SnapshotUploader`] flushes that beside the task, links the files, and carries to object
//! storage what the base checkpoint does not have yet. [`restore()`] is the way back, for the
//! same range of key groups or for another.
//!
//! - [`keyed`]: entries and timers by key, and [`keyed::kinds`] of state over them; [`BackendOptions`] bounds the memory.
//! - [`snapshot`]: what to upload ([`snapshot::diff`], pure) and doing it.
//! - [`restore`]: which tablet goes where ([`restore::plan`], pure) and doing it.
//! - [`LocalFiles`]: what this machine has of checkpoints anyway, so that a restore here downloads little.
//! - `rocks`: the only place that names RocksDB. `metrics`: the only one that names metrics.
//!
//! What must stay true: after a restore, exactly the entries that were there at the snapshot are there again, for
//! exactly the key groups of the new owner; and an object, once uploaded, is never written again.

mod checks;
mod error;
pub mod keyed;
mod local;
mod metrics;
pub mod restore;
mod rocks;
pub mod snapshot;

pub use error::Error;
pub use keyed::{BackendOptions, KeyedBackend, Scan, StateBatch, StateId, StateKey, Timer};
pub use local::{LocalFiles, SubtaskFiles};
pub use restore::{SavedTablet, Source, restore};
pub use snapshot::{EarlyTables, LocalSnapshot, SnapshotUploader, Uploaded};

/// Does what waits for the disk where that delays nobody.
async fn blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let ended = flott_node::spawn_blocking(work).await;
    ended.unwrap_or_else(|panic| {
        Err(Error::Backend {
            action,
            source: Box::new(panic),
        })
    })
}
