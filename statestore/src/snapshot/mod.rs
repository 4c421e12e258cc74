//! From local state to object storage.
//!
//! - [`LocalSnapshot`]: the state at a checkpoint, as files that nobody changes any more.
//! - [`diff`]: what of it the base checkpoint has already (pure). `bases`: which checkpoints can be a base (pure).
//! - [`SnapshotUploader`]: uploads the rest and says what changed against the base.
//!
//! What must stay true: every object has a fresh path below the writer's prefix and is written once; a snapshot's files
//! are, after its upload, exactly the base's files without the dropped and with the added ones.

mod bases;
pub mod diff;
mod upload;

use std::fs;
use std::path::{Path, PathBuf};

use flott_proto::ids::CheckpointId;
use flott_proto::key_group::KeyGroupRange;
use tracing::warn;

use self::diff::FileKey;
pub(crate) use self::upload::file_checksum;
pub use self::upload::{SnapshotUploader, Uploaded};

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    pub(crate) key: FileKey,
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
}

/// The state of one task at a checkpoint, on local disk. Takes no space beyond what the task's own state takes, until
/// that has moved on. Dropping it deletes it.
#[derive(Debug)]
pub struct LocalSnapshot {
    checkpoint: CheckpointId,
    dir: PathBuf,
    key_groups: KeyGroupRange,
    pub(crate) files: Vec<SnapshotFile>,
}

impl LocalSnapshot {
    /// A snapshot without files yet, which owns `dir`.
    pub(crate) fn new(checkpoint: CheckpointId, dir: PathBuf, key_groups: KeyGroupRange) -> Self {
        Self {
            checkpoint,
            dir,
            key_groups,
            files: Vec::new(),
        }
    }

    /// The checkpoint it was taken for.
    pub fn checkpoint(&self) -> CheckpointId {
        self.checkpoint
    }

    /// The range of key groups whose state it is.
    pub fn key_groups(&self) -> KeyGroupRange {
        self.key_groups
    }

    /// Bytes of all files: the size of the whole state.
    pub fn size_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for LocalSnapshot {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.dir) {
            // The task's directory may have been removed as a whole.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                warn!(dir = %self.dir.display(), %error, "a local snapshot could not be deleted");
            }
            _ => {}
        }
    }
}
