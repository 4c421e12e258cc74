//! Bounds the log by its bytes.
//!
//! openraft counts entries, and an entry may be a few bytes or a thousand writes of a key-value space. So whoever writes
//! much gets a snapshot sooner, and what lies before the snapshot before it is dropped: should the newest be damaged, the
//! log still reaches back to the one before.

use std::sync::Arc;
use std::time::Duration;

use super::error::RaftError;
use super::log_store::LogReader;
use super::members::fatal;
use super::rounds::Rounds;
use super::snapshot::SnapshotStore;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A snapshot is not written before the log has grown by so many times its bytes: what it costs stays in proportion to
/// what is written.
const SNAPSHOT_TIMES: u64 = 2;

pub(super) struct LogBound {
    pub(super) log: LogReader,
    pub(super) snapshots: Arc<SnapshotStore>,
    /// Bytes of entries between two snapshots.
    pub(super) bytes: u64,
}

impl LogBound {
    /// Runs until the node ends.
    pub(super) async fn run(self, rounds: Rounds) -> Result<(), RaftError> {
        let mut purged = 0;
        while let Some(node) = rounds.next(LOOK_EVERY).await {
            let newest = self.snapshots.current();
            let index = newest.as_ref().and_then(|(meta, _)| meta.last_log_id);
            let index = index.map_or(0, |id| id.index);
            let length = newest.map_or(0, |(_, file)| file.length());
            let bound = self.bytes.max(length.saturating_mul(SNAPSHOT_TIMES));
            if self.log.bytes_after(index) > bound {
                // Does nothing while one is being written.
                let triggered = node.raft.trigger().snapshot().await;
                triggered.map_err(fatal)?;
            }
            // Said once: openraft does it as soon as no follower is being sent from there.
            let previous = self.snapshots.previous_index().unwrap_or_default();
            let begins = self.log.bounds().map_or(u64::MAX, |(first, _)| first);
            if purged < previous && begins <= previous && self.log.bytes_after(0) > bound {
                purged = previous;
                let triggered = node.raft.trigger().purge_log(previous).await;
                triggered.map_err(fatal)?;
            }
        }
        Ok(())
    }
}
