//! Keyed state from end to end: local database, upload, object storage, restore.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backends;
mod damage;
mod early;
mod faults;
mod fixture;
mod incremental;
mod kinds;
mod local_recovery;
mod merges;
mod model;
mod rescale;
mod timers;
mod vertex;
