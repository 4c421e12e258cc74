//! How we try to break Flott.
//!
//! - [`cluster`]: real processes, started and killed as an outside user would: only the `flott` binary, its command line
//!   and its JSON, and for the key-value space its gRPC service.
//! - [`workload`]: jobs with inputs made up by rule, and clients whose every answer is written down ([`history`]).
//! - [`campaign`]: `chaos run`: all workloads and faults at once, from a seed.
//! - [`target`]: where `chaos run` takes place: any cluster by its addresses, or processes and a network of our own.
//! - [`faults`]: what is done to the processes, their network and their disks; all of it follows from a seed.
//! - [`invariants`]: what must hold whatever was broken.
//! - [`runs`]: all of that put together, with a verdict ([`report`]). The program `chaos` starts them.
//!
//! - [`peers`]: other systems under the load of `flott bench`.
//!
//! Must stay true: nothing here links the code under test; what it knows of Flott is what the manual says, and the
//! messages of its service. `peers` links the load generator, so that all systems are measured by the same code.

pub mod campaign;
pub mod cluster;
pub mod faults;
pub mod history;
pub mod invariants;
pub mod peers;
pub mod report;
pub mod runs;
pub mod target;
pub mod workload;
