//! A whole cluster under faults: JobManagers, TaskManagers, an object store, jobs, and people who work with them.
//!
//! ```text
//!   found the group ──▶ safety: faults, users ──▶ everything is mended ──▶ liveness: every job comes to its end ──▶ judge
//! ```
//!
//! JobManagers as in [`crate::raft_group`], and whole TaskManagers: gateway, slots, fences, held acks, and tasks with their
//! operators, exchange, barriers, checkpoints, restores and sinks. In the place of a task's thread there are its steps, in
//! that of RocksDB there is a map with files of the same kinds.
//!
//! - [`plan`]: what the seed has decided. [`job`]: what is run, and what has to come out. [`taskmanager`]: its process.
//! - [`users`]: who submits, rescales, stops and cancels. [`faults`]: what goes wrong meanwhile.
//! - [`watch`]: hands the replicated state and the output to the invariants. [`run`]: the phases.

pub mod faults;
pub mod job;
pub mod plan;
pub mod run;
pub mod taskmanager;
pub mod users;
pub mod watch;
