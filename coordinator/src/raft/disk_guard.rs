//! What a disk costs that is full or hangs: first growth, then leadership, then this process; never the group.
//!
//! | the disk | this node |
//! |---|---|
//! | has less room than the soft limit | as leader refuses new jobs and large values; checkpoints and deletions go on |
//! | has less than the hard limit | hands leadership over and ends, while it can still write |
//! | is busy with one write for [`HANGS`] | hands leadership over: openraft would lead on without its own disk |
//! | for [`DEAD`] | ends |

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flott_proto::ids::NodeId;
use tracing::{error, info, warn};

use super::error::RaftError;
use super::log_store::{ExitHook, LogReader};
use super::members::DiskSpace;
use super::node::Inner;
use super::rounds::Rounds;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A write of the log takes a millisecond, and on a bad day a hundred.
const HANGS: Duration = Duration::from_secs(1);
const DEAD: Duration = Duration::from_secs(20);

/// Between two attempts to hand over.
const HAND_OVER_EVERY: Duration = Duration::from_secs(2);

/// For somebody to take over from a node that is about to end.
const HAND_OVER_WAIT: Duration = Duration::from_secs(3);

/// Of one node.
#[derive(Debug)]
pub(super) struct DiskGuard {
    soft: u64,
    hard: u64,
    low: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Enough,
    Low,
    None,
}

impl DiskGuard {
    pub(super) fn new(soft: u64, hard: u64) -> Self {
        Self {
            soft,
            hard,
            low: AtomicBool::new(false),
        }
    }

    /// Whether the room is for what must go on, and nothing else.
    pub(super) fn is_low(&self) -> bool {
        self.low.load(Ordering::Acquire)
    }

    fn room(&self, space: DiskSpace) -> Room {
        match space.free_bytes {
            // Nothing is known of it.
            _ if space.total_bytes == 0 => Room::Enough,
            free if free < self.hard => Room::None,
            free if free < self.soft => Room::Low,
            _ => Room::Enough,
        }
    }
}

/// A write that the disk has been busy with since then.
#[derive(Debug, Default)]
struct Stuck(Option<(u64, Duration)>);

impl Stuck {
    /// For how long the disk has been busy with the same write.
    fn look(&mut self, writing: Option<u64>, now: Duration) -> Duration {
        match (writing, self.0) {
            (Some(write), Some((before, since))) if write == before => now.saturating_sub(since),
            _ => {
                self.0 = writing.map(|write| (write, now));
                Duration::ZERO
            }
        }
    }
}

/// Runs until the node ends, or must.
pub(super) async fn run(rounds: Rounds, log: LogReader, exit: ExitHook) -> Result<(), RaftError> {
    let mut stuck = Stuck::default();
    let mut handed_over = None;
    while let Some(inner) = rounds.next(LOOK_EVERY).await {
        if let Some(space) = inner.reporter.disk_space() {
            inner.keep_room(space).await?;
        }
        let now = inner.clock.monotonic();
        let hangs = stuck.look(log.writing(), now);
        if hangs > DEAD {
            error!(
                ?hangs,
                "the disk of the raft log does not answer; this process ends now. Check the disk and start it again"
            );
            exit();
        }
        let due = handed_over.is_none_or(|at| now.saturating_sub(at) > HAND_OVER_EVERY);
        if hangs > HANGS && due && inner.leadership.borrow().is_leader {
            handed_over = Some(now);
            warn!(
                ?hangs,
                "the disk of the raft log hangs; handing leadership over"
            );
            // It cannot be told that it has succeeded before its own disk answers.
            let handing_over = inner.transfer_leadership();
            if let Ok(Err(error)) = tokio::time::timeout(HAND_OVER_WAIT, handing_over).await {
                warn!(%error, "nobody takes over from a node whose disk hangs");
            }
        }
    }
    Ok(())
}

impl Inner {
    async fn keep_room(&self, space: DiskSpace) -> Result<(), RaftError> {
        let guard = &self.disk;
        let room = guard.room(space);
        let (free_mb, path) = (space.free_bytes >> 20, self.reporter.dir.clone());
        let low = room != Room::Enough;
        if guard.low.swap(low, Ordering::AcqRel) != low {
            let node = NodeId(self.identity.node);
            match low {
                true => {
                    warn!(%node, free_mb, path = %path.display(), "the disk is nearly full: new jobs and large values are refused")
                }
                false => info!(%node, free_mb, path = %path.display(), "the disk has room again"),
            }
        }
        if room != Room::None {
            return Ok(());
        }
        let full = RaftError::DiskFull {
            path,
            free_mb,
            hard_mb: guard.hard >> 20,
        };
        error!(%full, "ending");
        let handed_over = tokio::time::timeout(HAND_OVER_WAIT, self.transfer_leadership()).await;
        if !matches!(handed_over, Ok(Ok(()))) {
            warn!(?handed_over, "nobody took over");
        }
        Err(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_room_until_its_limits() {
        let guard = DiskGuard::new(200, 100);
        let space = |free_bytes, total_bytes| DiskSpace {
            free_bytes,
            total_bytes,
        };
        for (free, total, room) in [
            (500, 1000, Room::Enough),
            (200, 1000, Room::Enough),
            (199, 1000, Room::Low),
            (100, 1000, Room::Low),
            (99, 1000, Room::None),
            (0, 0, Room::Enough),
        ] {
            assert_eq!(guard.room(space(free, total)), room, "{free} of {total}");
        }
    }

    #[test]
    fn only_one_and_the_same_write_is_a_hanging_one() {
        let ms = Duration::from_millis;
        let mut stuck = Stuck::default();
        for (writing, at, hangs) in [
            (None, 0, 0),
            (Some(1), 100, 0),
            (Some(1), 300, 200),
            (Some(2), 400, 0),
            (Some(2), 450, 50),
            (None, 500, 0),
            (Some(2), 600, 0),
        ] {
            assert_eq!(stuck.look(writing, ms(at)), ms(hangs), "at {at}");
        }
    }
}
