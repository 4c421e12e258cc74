//! The JobManager: what has been decided, what should happen next, and doing it.
//!
//! - [`core`]: the decisions, pure. Begin there.
//! - [`raft`]: the replicated log under them; the only place that names openraft.
//! - `leader`: the loop that carries out what `core` plans.
//! - `task_managers`, `dispatcher`: the gRPC services for TaskManagers and clients. `access`: who may call them;
//!   `addressee`: whether a client means this cluster.
//! - `kv`: the gRPC service of the key-value spaces.
//! - `checkpoint_files`: `_metadata` objects, and deleting what was retired.
//! - [`recovery`]: restoring a backup, and going on after the loss of a quorum, while no JobManager runs.
//! - `server`: start and stop of the process.

mod access;
mod addressee;
mod checkpoint_files;
pub mod core;
mod dispatcher;
mod error;
mod kv;
mod leader;
mod metrics;
pub mod raft;
pub mod recovery;
mod server;
#[cfg(feature = "simulation")]
pub mod simulation;
mod task_managers;

pub use checkpoint_files::{FilesError, Found, read_metadata};
pub use error::Error;
pub use server::run;
