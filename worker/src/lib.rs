//! The TaskManager: runs the subtasks of jobs, and goes on running them while the JobManagers elect a leader.
//!
//! - [`task_manager`]: the process; owns slots and tasks. [`gateway`]: its one stream to whoever leads.
//! - [`task`]: a subtask on its own thread. [`barrier`]: when a task with several inputs takes its snapshot.
//!   [`channel_state`]: what is on its way then and is stored with it.
//! - [`network`]: batches between tasks, by reference in one process, over TCP between two.
//! - [`operators`], [`connectors`], [`time`], [`keys`], [`expressions`]: what a task computes.
//! - [`saved_state`]: the state in a savepoint, for people.
//! - [`config`], [`error`], [`metrics`].

pub mod barrier;
pub mod channel_state;
pub mod config;
pub mod connectors;
pub mod error;
pub mod expressions;
pub mod gateway;
pub mod keys;
pub mod metrics;
pub mod network;
pub mod operators;
pub mod saved_state;
pub mod task;
pub mod task_manager;
pub mod time;

pub use error::Error;
pub use task_manager::run;
