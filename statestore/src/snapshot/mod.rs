//! From local state to object storage.
//!
//! - [`LocalSnapshot`]: the state at a checkpoint, as files that nobody changes any more. `linking`: how it gets them.
//! - [`diff`]: what of it the base checkpoint has already (pure). `bases`: which checkpoints can be a base (pure).
//! - [`SnapshotUploader`]: uploads the rest and says what changed against the base. `early`: what it uploads before.
//!
//! What must stay true: every object has a fresh path below the writer's prefix and is written once; a snapshot's files
//! are, after its upload, exactly the base's files without the dropped and with the added ones.

mod bases;
pub mod diff;
mod early;
mod linking;
mod upload;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use flott_proto::ids::CheckpointId;
use flott_proto::key_group::KeyGroupRange;
use tracing::warn;

use self::diff::FileKey;
pub use self::early::EarlyTables;
pub(crate) use self::linking::Linking;
pub(crate) use self::upload::file_checksum;
pub use self::upload::{SnapshotUploader, Uploaded};
use crate::blocking;
use crate::error::Error;
use crate::rocks::{Linked, SavedFile};

/// One database of a snapshot.
#[derive(Debug)]
pub(crate) struct LinkedTablet {
    pub(crate) key_groups: KeyGroupRange,
    pub(crate) files: Linked,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotFile {
    pub(crate) size: u64,
    /// `None` if it is in object storage only.
    pub(crate) path: Option<PathBuf>,
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
    tablets: Vec<LinkedTablet>,
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
            tablets: Vec::new(),
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
            self.tablets = self.linking.files()?;
            Ok(self)
        })
        .await
    }

    /// The files of all databases. They are here.
    fn live_files(&self) -> BTreeMap<FileKey, SnapshotFile> {
        let tablets = self.tablets.iter();
        let files =
            tablets.flat_map(|tablet| LinkedTablet::by_key(tablet.key_groups, &tablet.files.live));
        files.collect()
    }

    /// The files that say the same with less to upload: those from before merges, where all of them that are not here are
    /// in storage.
    fn files_given(
        &self,
        is_stored: impl Fn(&FileKey, u64) -> bool,
    ) -> BTreeMap<FileKey, SnapshotFile> {
        let of_tablet = |tablet: &LinkedTablet| {
            let files = match tablet.has_unmerged(&is_stored) {
                true => &tablet.files.unmerged,
                false => &tablet.files.live,
            };
            LinkedTablet::by_key(tablet.key_groups, files)
        };
        self.tablets.iter().flat_map(of_tablet).collect()
    }
}

impl LinkedTablet {
    /// Whether all its unmerged files can be had; tells the database what became of them.
    fn has_unmerged(&self, is_stored: impl Fn(&FileKey, u64) -> bool) -> bool {
        let Linked { unmerged, fate, .. } = &self.files;
        let mut has_all = true;
        for file in unmerged {
            if is_stored(&file_key(self.key_groups, file), file.size) {
                fate.stored(&file.name);
            } else {
                has_all &= file.path.is_some();
            }
        }
        if !has_all {
            fate.lost();
        }
        has_all
    }

    /// Files of the tablet of these key groups.
    pub(crate) fn by_key(
        key_groups: KeyGroupRange,
        files: &[SavedFile],
    ) -> Vec<(FileKey, SnapshotFile)> {
        let by_key = files.iter().map(|file| {
            let SavedFile { size, path, .. } = file.clone();
            (file_key(key_groups, file), SnapshotFile { size, path })
        });
        by_key.collect()
    }
}

fn file_key(key_groups: KeyGroupRange, file: &SavedFile) -> FileKey {
    FileKey {
        key_groups,
        local_name: file.name.clone(),
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
