//! The group's members: how they are, who joins, who leaves, and handing leadership over.
//!
//! A member joins as a learner, catches up, and is then promoted. A node whose disk was replaced is a new member; the
//! old one is removed, and its id is not used again.
//!
//! - [`rules`]: which changes are safe (pure). [`change`]: carrying them out, one at a time ([`slot`]); [`settle`]
//!   completes what a dead leader began.
//! - [`status`]: all members as seen from here; [`report`]: what each says of itself.
//! - [`transfer`]: handing over. [`levels`]: raising the feature level. [`standing`]: a removed member notices.
//! - [`digests`]: whether all members have decided the same.

mod change;
pub(super) mod digests;
mod levels;
mod report;
mod rules;
pub(super) mod settle;
mod slot;
pub(super) mod standing;
mod status;
mod transfer;

use std::fmt;

pub use change::{Changed, MemberProgress};
pub(super) use report::{DiskSpace, Reporter};
pub(super) use slot::ChangeSlot;
pub use status::{Health, MemberRole, MemberStatus};

use super::error::RaftError;

pub(super) fn fatal(error: impl fmt::Display) -> RaftError {
    RaftError::Fatal(error.to_string())
}
