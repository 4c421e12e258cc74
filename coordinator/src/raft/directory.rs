//! The data directory of one JobManager: who may open it, and whose it is.
//!
//! ```text
//! <dir>/flott.lock   held (flock) for as long as the directory is open; contains the holder's pid
//! <dir>/log/         segments: entries, vote, marker
//! <dir>/snapshots/   snapshots of the replicated state
//! <dir>/before-<…>/  what was there before a recovery: see [`takeover`]
//! ```
//!
//! The marker in the log names cluster, node and incarnation. Two processes never share a directory, and a directory
//! never serves two clusters or two node ids: either would break a promise that this node's vote or log made.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flott_node::Mutant;
use flott_proto::ids::NodeId;
use flott_proto::wire;
use tracing::warn;
use uuid::Uuid;

use super::config::RaftConfig;
use super::error::RaftError;
use super::takeover;

/// The layout of everything below the data directory.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// Taken for as long as a directory is open.
const LOCK: &str = "flott.lock";

/// A data directory that this process holds exclusively.
#[derive(Debug)]
pub(crate) struct DataDirectory {
    path: PathBuf,
    /// The lock goes with the file.
    _lock: File,
}

impl DataDirectory {
    /// Creates the directory if needed and takes its lock; refuses if another process has it.
    pub(crate) fn open(path: &Path) -> Result<Self, RaftError> {
        create(path).map_err(RaftError::storage("create", path))?;
        let lock_path = path.join(LOCK);
        let mut lock = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(RaftError::storage("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, &mut lock)),
            Err(TryLockError::Error(source)) => {
                return Err(RaftError::storage("lock", &lock_path)(source));
            }
        }
        let written = lock
            .set_len(0)
            .and_then(|()| lock.seek(SeekFrom::Start(0)))
            .and_then(|_| lock.write_all(std::process::id().to_string().as_bytes()));
        written.map_err(RaftError::storage("write", &lock_path))?;
        if takeover::complete(path).map_err(RaftError::storage("complete the restore of", path))? {
            warn!(dir = %path.display(), "completed a restore or recovery that had been interrupted");
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Removes what is left of the lock in a directory that no process uses yet.
    pub(crate) fn forget_lock(path: &Path) -> std::io::Result<()> {
        fs::remove_file(path.join(LOCK))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }
}

/// Makes sure that a directory is there, and still is when the power fails: its name is made durable, also if it was there
/// already, for whoever made it may have been killed before that.
pub(crate) fn create(path: &Path) -> std::io::Result<()> {
    fn named(parent: &Path) -> &Path {
        if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        }
    }
    let parents = || path.ancestors().skip(1).map(named);
    // Those that are made now, and the one in which the first of them is.
    let made = parents().take_while(|parent| !parent.exists()).count();
    fs::create_dir_all(path)?;
    if Mutant::DirectoryNotSynced.is_planted() {
        return Ok(());
    }
    for parent in parents().take(made + 1) {
        match File::open(parent) {
            Ok(parent) => parent.sync_all()?,
            // Somebody else's, and so was here long before.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn in_use(path: &Path, lock: &mut File) -> RaftError {
    let mut pid = String::new();
    let known = lock.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
    let holder = if known {
        format!("process {}", pid.trim())
    } else {
        "another process".to_owned()
    };
    RaftError::InUse {
        path: path.to_owned(),
        holder,
    }
}

/// The marker of a directory that has none yet: a new node id unless one is given, and a new incarnation.
pub(crate) fn new_marker(node_id: Option<NodeId>) -> wire::RaftStorageMarker {
    let drawn = || {
        // 48 random bits: never drawn twice, and exact in JSON numbers.
        let (high, _) = Uuid::new_v4().as_u64_pair();
        (high >> 16).max(1)
    };
    wire::RaftStorageMarker {
        format_version: FORMAT_VERSION,
        node: node_id.map_or_else(drawn, |id| id.0),
        incarnation: Uuid::new_v4().to_string(),
        cluster_id: String::new(),
        adopted_by: 0,
        removed_at: 0,
        superseded_by: String::new(),
    }
}

/// Whether the directory with this marker is the one that the configuration means.
pub(crate) fn check_marker(
    path: &Path,
    marker: &wire::RaftStorageMarker,
    config: &RaftConfig,
) -> Result<(), RaftError> {
    let path = path.to_owned();
    if marker.format_version != FORMAT_VERSION {
        return Err(RaftError::UnsupportedFormat {
            path,
            found: marker.format_version,
            supported: FORMAT_VERSION,
        });
    }
    if marker.removed_at != 0 {
        return Err(RaftError::Removed {
            path,
            node: NodeId(marker.node),
            removed_at: marker.removed_at,
        });
    }
    if !marker.superseded_by.is_empty() {
        return Err(RaftError::Superseded {
            path,
            cluster_id: marker.cluster_id.clone(),
            successor: marker.superseded_by.clone(),
        });
    }
    if let Some(expected) = config.node_id
        && expected != NodeId(marker.node)
    {
        return Err(RaftError::OtherNode {
            path,
            found: NodeId(marker.node),
            expected,
        });
    }
    if let Some(expected) = &config.cluster_id
        && !marker.cluster_id.is_empty()
        && marker.cluster_id != expected.as_str()
    {
        let (found, expected) = (marker.cluster_id.clone(), expected.to_string());
        return Err(RaftError::OtherCluster {
            path,
            found,
            expected,
        });
    }
    Ok(())
}
