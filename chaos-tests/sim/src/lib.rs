//! Flott's JobManagers in a deterministic simulation: the real code, on machines, disks and a network that are not.
//!
//! ```text
//!   seed ──▶ plan ──▶ faults, operators, clients ──▶ real JobManagers ◀──▶ kernel: time, chance, files, connections
//!                                                           │
//!                                    invariants look at each after each of its steps
//! ```
//!
//! A seed decides everything: two runs with the same seed do the same, and their traces have the same hash. So whatever is
//! found is found again, with logs, and a mend is shown to be one.
//!
//! - [`kernel`]: what simulated processes take for the operating system. [`world`]: whose turn it is. [`environment`]: what
//!   the code under test asks instead of the system.
//! - [`raft_group`]: a group of JobManagers under faults, and its clients. [`cluster`]: TaskManagers and jobs, too.
//! - What both have: [`agenda`], what is planned; [`faults`], what goes wrong with machines and links; [`callers`], who asks
//!   JobManagers; [`object_store`], in the place of S3. [`sometimes`]: what has to happen in a batch of seeds.
//! - [`invariants`]: what must always be true, one file each.
//! - [`verdict`]: what is said of a run.

pub mod agenda;
pub mod callers;
pub mod cluster;
pub mod environment;
pub mod faults;
pub mod history;
pub mod invariants;
pub mod kernel;
pub mod object_store;
pub mod raft_group;
pub mod sometimes;
pub mod verdict;
pub mod world;
