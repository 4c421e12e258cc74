//! From local state to object storage.
//!
//! - [`LocalSnapshot`]: the state at a checkpoint, as files that nobody changes any more. `linking`: how it gets them.
//! - [`diff`]: what of it the base checkpoint has already (pure). `bases`: which checkpoints can be a base (pure).
//! - [`SnapshotUploader`]: uploads the rest and says what changed against the base.
//!
//! What must stay true: every object has a fresh path below the writer's prefix and is written once; a snapshot's files
//! are, after its upload, exactly the base's files without the dropped and with the added ones.

mod bases;
pub mod diff;
mod linking;
mod upload;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use flott_proto::ids::CheckpointId;
use flott_proto::key_group::KeyGroupRange;
use tracing::warn;

use self::diff::FileKey;
pub(crate) use self::linking::Linking;
pub(crate) use self::upload::file_checksum;
pub use self::upload::{SnapshotUploader, Uploaded};
use crate::blocking;
use crate::error::Error;

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
    linking: Arc<Linking>,
    /// Once they are linked.
    files: Vec<SnapshotFile>,
}

impl LocalSnapshot {
    /// The snapshot whose files are linked into `dir`, which it owns.
    pub(crate) fn new(
        checkpoint: CheckpointId,
        dir: PathBuf,
        key_groups: KeyGroupRange,
        linking: Arc<Linking>,
    ) -> Self {
        Self {
            checkpoint,
            dir,
            key_groups,
            linking,
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

    /// The same, with its files.
    async fn linked(mut self) -> Result<Self, Error> {
        blocking("link a snapshot", move || {
            self.files = self.linking.files()?;
            Ok(self)
        })
        .await
    }
}

impl Drop for LocalSnapshot {
    fn drop(&mut self) {
        self.linking.give_up();
        match fs::remove_dir_all(&self.dir) {
            // The task's directory may have been removed as a whole.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                warn!(dir = %self.dir.display(), %error, "a local snapshot could not be deleted");
            }
            _ => {}
        }
    }
}
