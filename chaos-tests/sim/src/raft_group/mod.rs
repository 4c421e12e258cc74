//! A group of JobManagers under faults.
//!
//! ```text
//!   found the group ──▶ safety: faults, operators, clients ──▶ everything is mended ──▶ liveness: it works again ──▶ judge
//! ```
//!
//! Whole JobManagers, as a process has them: Raft, the leader's loop, the key-value space. Their clients write and read
//! registers through all members.
//!
//! - [`plan`]: what the seed has decided. [`member`]: a JobManager's process. [`clients`]: who writes and reads.
//! - [`faults`]: what goes wrong. [`operator`]: who changes the group while it does.
//! - [`observer`]: hands each member to the invariants. [`run`]: the phases.

pub mod clients;
pub mod faults;
pub mod member;
pub mod observer;
pub mod operator;
pub mod plan;
pub mod run;
