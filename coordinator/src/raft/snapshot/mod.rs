//! Snapshots of the replicated state: [`format`] is the file, [`store`] the directory of files,
//! [`receiver`] takes those that other members send.
//!
//! A snapshot is logical: the state's records in ascending order of key, so that it can be read by any later version
//! and compared between members. A file appears under its final name only when it is complete and on disk.

pub(crate) mod format;
mod receiver;
pub(crate) mod store;

pub(crate) use receiver::SnapshotReceiver;
pub(crate) use store::{Incoming, SnapshotFile, SnapshotStore};
