//! What must be true at every moment of a Raft group, of jobs and their tasks, and of what clients were told and outputs say.
//!
//! Each is a file. Those that look at members are called after each step of each member; [`book`] reads what is new in a
//! member's log for all of them. [`offices`] and [`tasks`] hear what processes tell of themselves. Of a whole cluster:
//! [`jobs`], [`tasks`], [`checkpoints`], [`closure`], [`output`].

pub mod book;
pub mod checkpoints;
pub mod closure;
pub mod committed;
pub mod elections;
pub mod epochs;
pub mod jobs;
pub mod log_matching;
pub mod offices;
pub mod output;
pub mod reads;
pub mod states;
pub mod tasks;

use flott_coordinator::simulation::{LogEntry, Seen};

/// A member, as an invariant sees it.
#[derive(Debug)]
pub struct Look<'a> {
    /// Its machine.
    pub host: usize,
    /// Which process it is there.
    pub life: u32,
    /// The member itself.
    pub seen: &'a Seen,
    /// What is new in its log, or all of it after a start.
    pub appended: &'a [LogEntry],
    /// Virtual nanoseconds.
    pub now: u64,
}
