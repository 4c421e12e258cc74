//! Bounds the log by its entries and its bytes.
//!
//! openraft counts entries, and an entry may be a few bytes or a thousand writes of a key-value space. So whoever writes
//! much gets a snapshot sooner, and what lies before the snapshot before it is dropped: should the newest be damaged, the
//! log still reaches back to the one before.
//!
//! openraft's own policy never drops anything (see `openraft_config`): two that decide, each by a measure of its own, ask
//! for less after more, which openraft takes for a defect.

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
    /// Entries between two snapshots.
    pub(super) entries: u64,
    /// Bytes of entries between two snapshots.
    pub(super) bytes: u64,
}

impl LogBound {
    /// Runs until the node ends.
    pub(super) async fn run(self, rounds: Rounds) -> Result<(), RaftError> {
        let mut asked = 0;
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
            let Some((begins, _)) = self.log.bounds() else {
                continue;
            };
            let kept = Kept {
                begins,
                newest: index,
                previous: self.snapshots.previous_index().unwrap_or_default(),
                beyond_bytes: self.log.bytes_after(0) > bound,
            };
            // Said once: openraft does it as soon as no follower is being sent from there.
            if let Some(up_to) = kept.droppable(self.entries).filter(|up_to| *up_to > asked) {
                asked = up_to;
                let triggered = node.raft.trigger().purge_log(up_to).await;
                triggered.map_err(fatal)?;
            }
        }
        Ok(())
    }
}

/// What of the log is there, by index.
#[derive(Clone, Copy, Debug)]
struct Kept {
    /// The first entry.
    begins: u64,
    /// The last entry in the newest snapshot, and in the one before it; 0 without one.
    newest: u64,
    previous: u64,
    /// Whether its bytes are more than they are to be.
    beyond_bytes: bool,
}

impl Kept {
    /// The last entry that may go, if any may: never one behind the snapshot before the newest. As long as the bytes allow
    /// it, two snapshots' worth of entries stay, so that a member that was away for a while needs no snapshot; and few go
    /// at a time only if there is no room.
    fn droppable(self, entries: u64) -> Option<u64> {
        let (up_to, at_least) = if self.beyond_bytes {
            (self.previous, 1)
        } else {
            let far_behind = self.newest.saturating_sub(entries.saturating_mul(2));
            (
                self.previous.min(far_behind),
                (entries / 4).clamp(1, 10_000),
            )
        };
        let count = (up_to + 1).saturating_sub(self.begins);
        (up_to > 0 && count >= at_least).then_some(up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_reaches_back_to_the_snapshot_before_the_newest() {
        let kept = |begins, newest, previous, beyond_bytes| Kept {
            begins,
            newest,
            previous,
            beyond_bytes,
        };
        for (kept, droppable) in [
            // No snapshot, or only one.
            (kept(1, 0, 0, true), None),
            (kept(1, 500, 0, true), None),
            // Within the bytes two snapshots' worth of entries stay, and 25 go at a time.
            (kept(1, 200, 100, false), None),
            (kept(1, 224, 124, false), None),
            (kept(1, 225, 125, false), Some(25)),
            (kept(26, 225, 125, false), None),
            // A snapshot far before the newest is needed all the same.
            (kept(1, 1000, 30, false), Some(30)),
            // Beyond the bytes as much goes as may.
            (kept(1, 200, 100, true), Some(100)),
            (kept(100, 200, 100, true), Some(100)),
            (kept(101, 200, 100, true), None),
        ] {
            assert_eq!(kept.droppable(100), droppable, "{kept:?}");
        }
    }
}
