//! `chaos run`: a cluster, several workloads and many kinds of faults at once, all of it from a seed.
//!
//! ```text
//! plan ─► start ─► warm-up ─► safety: faults, overlapping ─► heal ─► liveness, within a bound
//!      ─► end the workloads ─► read what is committed, list what is stored ─► judge
//! ```
//!
//! - [`fault`]: kinds of faults, whom they strike, and a step of a schedule. [`plan`]: a run from a seed; JSON. [`shrink`]:
//!   smaller plans that might still fail.
//! - [`lines`]: whose lines a fault of the network strikes.
//! - [`undo`]: what undoes a fault, on disk before the fault; and healing by it when the harness is gone, by the [`watchdog`].
//!   [`strike`]: carries steps out, and says which were installed. [`inside`]: those of clocks and disks, `held` for a time. [`pressure`]: of
//!   files and processors, [`memory`] of that. [`damage`]: of files that are not as they were left. [`operate`]: what an
//!   operator does in between.
//! - [`strike_remote`]: the same on machines of others. [`sides`]: which of them has to do what.
//! - [`observe`]: watches jobs, checkpoints and leaders. [`load`]: the workloads, and [`queries`] which of the reference queries.
//!   [`pulse`]: whether the machine had time for it. [`place`]: on which cluster. [`run`]: the phases.
//!   [`leftovers`]: files and logs at the end. [`judge`]: the verdict on a run, and `vacuity` what it did not show. [`words`]: as
//!   a person reads it. [`again`]: judged later.
//!   [`figures`]: those of many runs. [`timeline`]: a run on one page.
//! - [`command`]: the verbs of the program `chaos`. [`arguments`]: what they are told. [`hosts`]: the verbs about machines of others.
//!
//! A seed replays the plan, not the interleaving of real processes.

pub mod again;
pub mod arguments;
pub mod command;
pub mod damage;
pub mod fault;
pub mod figures;
mod held;
pub mod hosts;
pub mod inside;
pub mod judge;
pub mod leftovers;
pub mod lines;
pub mod load;
pub mod memory;
pub mod observe;
pub mod operate;
pub mod place;
pub mod plan;
pub mod pressure;
pub mod pulse;
pub mod queries;
pub mod run;
pub mod shrink;
pub mod sides;
pub mod strike;
pub mod strike_remote;
pub mod timeline;
pub mod undo;
mod vacuity;
pub mod watchdog;
pub mod words;
