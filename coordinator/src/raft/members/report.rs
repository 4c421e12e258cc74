//! What this node says of itself when another member, or a person, asks how it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_node::SharedClock;
use flott_proto::ids::NodeId;
use flott_proto::wire;
use openraft::async_runtime::WatchReceiver;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::super::identity::LocalIdentity;
use super::super::node::Raft;
use super::super::snapshot::SnapshotStore;
use super::super::state_machine::{Published, blocking};
use crate::core::FeatureLevels;

/// How often the disk's space is looked at. Whoever asks in between gets the last figure, so a disk that hangs holds up
/// no answer.
const DISK_LOOK_EVERY: Duration = Duration::from_secs(2);

/// The version of the binary.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Room on a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskSpace {
    /// What an unprivileged process may still write.
    pub free_bytes: u64,
    pub total_bytes: u64,
}

impl DiskSpace {
    /// Of the file system that has `path`. Blocks on the disk.
    fn of(path: &Path) -> std::io::Result<Self> {
        #[cfg(feature = "simulation")]
        if let Some(environment) = flott_node::simulation::environment() {
            let (free_bytes, total_bytes) = environment.disk_space();
            return Ok(Self {
                free_bytes,
                total_bytes,
            });
        }
        let found = rustix::fs::statvfs(path)?;
        Ok(Self {
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
        })
    }
}

/// Where this node's answers come from.
pub(crate) struct Reporter {
    pub(crate) raft: Raft,
    pub(crate) identity: Arc<LocalIdentity>,
    pub(crate) snapshots: Arc<SnapshotStore>,
    pub(crate) published: Arc<Published>,
    pub(crate) features: FeatureLevels,
    pub(crate) clock: SharedClock,
    /// The data directory.
    pub(crate) dir: PathBuf,
    pub(crate) disk: Mutex<Option<DiskSpace>>,
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Reporter {
    /// How this node is, for `asker`, who may want to know whether it is still a member.
    pub(crate) fn report(&self, asker: Option<&wire::RaftIdentity>) -> wire::RaftStatusResponse {
        let cluster_id = self.identity.cluster_id().map(|id| id.to_string());
        let cluster_id = cluster_id.unwrap_or_default();
        let asker_removed_at = asker
            .filter(|asker| asker.cluster_id == cluster_id)
            .map_or(0, |asker| self.removed_at(asker));
        let asker_superseded =
            asker.is_some_and(|asker| self.published.state().succeeds(&asker.cluster_id));
        let snapshot = self.snapshots.current();
        let snapshot_index = snapshot
            .as_ref()
            .and_then(|(meta, _)| meta.last_log_id)
            .map_or(0, |id| id.index);
        let disk = self.disk_space().unwrap_or_default();
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        wire::RaftStatusResponse {
            node: self.identity.node,
            incarnation: self.identity.incarnation.clone(),
            cluster_id,
            term: metrics.current_term,
            leader: metrics.current_leader.unwrap_or_default(),
            last_log_index: metrics.last_log_index.unwrap_or_default(),
            applied_index: metrics.last_applied.as_ref().map_or(0, |id| id.index),
            snapshot_index,
            snapshot_age_ms: snapshot
                .and_then(|(_, file)| file.written_at_ms())
                .map(|at| {
                    // The clock may have been set back since.
                    u64::try_from(self.clock.now_ms().saturating_sub(at)).unwrap_or_default()
                }),
            disk_free_bytes: disk.free_bytes,
            disk_total_bytes: disk.total_bytes,
            feature_level_min: self.features.min,
            feature_level_max: self.features.max,
            version: VERSION.to_owned(),
            asker_removed_at,
            state_digests: self
                .published
                .digests()
                .into_iter()
                .map(|(index, digest)| wire::RaftStateDigest {
                    index,
                    digest: digest.to_le_bytes().to_vec().into(),
                })
                .collect(),
            asker_superseded,
        }
    }

    /// The room on its disk, as it was seen last.
    pub(crate) fn disk_space(&self) -> Option<DiskSpace> {
        *self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log index by which the sender of a request was removed from this group; 0 if it was not.
    pub(crate) fn removed_at(&self, sender: &wire::RaftIdentity) -> u64 {
        let state = self.published.state();
        let removed_at = state.removed_at(NodeId(sender.from_node), &sender.from_incarnation);
        removed_at.unwrap_or_default()
    }

    /// Keeps the figures of the disk fresh, until the node ends.
    pub(crate) async fn watch_disk(self: Arc<Self>, ending: CancellationToken) {
        loop {
            let dir = self.dir.clone();
            match blocking(move || DiskSpace::of(&dir)).await {
                Ok(space) => {
                    *self.disk.lock().unwrap_or_else(PoisonError::into_inner) = Some(space);
                }
                Err(error) => debug!(%error, "cannot see how much room the disk has"),
            }
            tokio::select! { biased;
                () = ending.cancelled() => return,
                () = self.clock.sleep(DISK_LOOK_EVERY) => {}
            }
        }
    }
}
