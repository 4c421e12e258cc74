//! What must be true of a Raft group at every moment, and of what its clients were told.
//!
//! Each is a file. Those that look at members are called after each step of each member; [`book`] reads what is new in a
//! member's log for all of them.

pub mod book;
pub mod committed;
pub mod elections;
pub mod epochs;
pub mod log_matching;
pub mod reads;
pub mod states;

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
