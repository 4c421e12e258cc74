//! Uploads a snapshot's new files and reports the change against the base.
//!
//! One uploader per execution attempt of a subtask. It may be shared: what it knows is behind a lock that is never held
//! across an await, so uploads that overlap are correct, and the second may upload a file that the first is still
//! uploading. Dropping an upload's future is a way to give it up: files that are up are remembered and not uploaded
//! again.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_node::Failpoint;
use flott_node::storage::ObjectStorage;
use flott_proto::ids::CheckpointId;
use flott_proto::key_group::KeyGroupRange;
use flott_proto::paths;
use flott_proto::state_handle::StateFile;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::RwLock;

use super::bases::Bases;
use super::diff::{Diff, FileKey, FilesByKey, change, diff, stored};
use super::{LocalSnapshot, SnapshotFile};
use crate::blocking;
use crate::error::Error;
use crate::local::SubtaskFiles;
use crate::metrics;
use crate::rocks::is_immutable;

/// Files of one snapshot in flight: enough to hide the latency of small files.
const UPLOADS_IN_FLIGHT_MAX: usize = 4;

/// What an upload did: the part of a checkpoint ack that speaks of keyed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// The checkpoint against which `added` and `dropped` are a change; 0: everything is in `added`.
    pub base_used: CheckpointId,
    pub added: Vec<StateFile>,
    /// Paths of the base.
    pub dropped: Vec<String>,
    /// Bytes written to object storage, with those of its tables that were uploaded early.
    pub uploaded_bytes: u64,
}

/// Carries the snapshots of one execution attempt of one subtask to object storage.
#[derive(Debug)]
pub struct SnapshotUploader {
    pub(super) storage: ObjectStorage,
    writer: String,
    key_groups: KeyGroupRange,
    /// The number of the next object.
    sequence: AtomicU64,
    bases: Mutex<Bases>,
    /// Read by the uploads of snapshots, written by those of single tables before.
    pub(super) turn: RwLock<()>,
    /// Keeps what was uploaded on this machine.
    local: Option<SubtaskFiles>,
}

impl SnapshotUploader {
    /// For state of `key_groups`, into `storage` (the checkpoint root). `writer` is the prefix of all its objects, which
    /// no other uploader may ever have had.
    pub fn new(
        storage: ObjectStorage,
        writer: impl Into<String>,
        key_groups: KeyGroupRange,
    ) -> Self {
        let bases = Mutex::default();
        Self {
            storage,
            writer: writer.into(),
            key_groups,
            sequence: AtomicU64::new(0),
            bases,
            turn: RwLock::default(),
            local: None,
        }
    }

    /// The same, keeping on this machine what the newest checkpoints consist of.
    pub fn keeping(self, local: SubtaskFiles) -> Self {
        Self {
            local: Some(local),
            ..self
        }
    }

    /// The state was opened on these files of `checkpoint` ([`crate::KeyedBackend::restored_files`]), so they need no
    /// upload while that is the base. `is_base`: they are all of this subtask's own part of it.
    pub fn restored_from(&self, checkpoint: CheckpointId, files: &FilesByKey, is_base: bool) {
        if files.is_empty() || checkpoint == CheckpointId::NONE {
            return;
        }
        if is_base {
            self.bases().on_restored(checkpoint, files.clone());
        } else {
            self.bases().on_inherited(checkpoint, files.clone());
        }
    }

    /// Uploads what the base does not have, and deletes the local snapshot.
    ///
    /// `base` is what the trigger named; if it is not known here, everything is added. With `savepoint` everything is
    /// uploaded into that directory, against no base; paths are relative to it, and none of it is used for anything else.
    ///
    /// After an error the checkpoint has to be declined; what did get up is reused by the next.
    pub async fn upload(
        &self,
        snapshot: LocalSnapshot,
        base: CheckpointId,
        savepoint: Option<&ObjectStorage>,
    ) -> Result<Uploaded, Error> {
        assert_eq!(
            snapshot.key_groups(),
            self.key_groups,
            "a snapshot of another task"
        );
        let mut snapshot = snapshot.linked().await?;
        // What is being uploaded early is not uploaded twice.
        let _turn = self.turn.read().await;
        let mut early_bytes = 0;
        let (base_used, base, uploaded, local) = if savepoint.is_some() {
            let (base, uploaded) = (Arc::default(), FilesByKey::new());
            (CheckpointId::NONE, base, uploaded, snapshot.live_files())
        } else {
            let mut bases = self.bases();
            let (base_used, base, uploaded) = bases.base(base);
            let is_stored = |key: &FileKey, size| stored(key, size, &base, &uploaded).is_some();
            let local = snapshot.files_given(is_stored);
            early_bytes = bases.on_snapshot(local.keys());
            (base_used, base, uploaded, local)
        };
        let sizes = local.iter().map(|(key, file)| (key.clone(), file.size));
        let Diff { upload, there } = diff(sizes, &base, &uploaded);
        let uploads = upload.into_iter().map(|key| async {
            let file = self.upload_file(&key, &local[&key], savepoint).await?;
            if savepoint.is_none() && is_immutable(&key.local_name) {
                self.bases().on_uploaded(key.clone(), file.clone());
            }
            Ok::<_, Error>((key, file))
        });
        // Collected first: a stream over a borrowing iterator is not `Send` enough for a spawned task.
        let uploads: Vec<_> = uploads.collect();
        let uploaded: FilesByKey = stream::iter(uploads)
            .buffer_unordered(UPLOADS_IN_FLIGHT_MAX)
            .try_collect()
            .await?;
        let own_bytes: u64 = uploaded.values().map(|file| file.size).sum();
        let uploaded_bytes = own_bytes + early_bytes;
        metrics::uploaded(uploaded.len(), uploaded_bytes, there.len());

        let mut files = there;
        files.extend(uploaded);
        assert_eq!(
            files.len(),
            local.len(),
            "a snapshot's files are all accounted for"
        );
        let (added, dropped) = change(&base, &files);
        if savepoint.is_none() {
            if let Some(keeper) = self.local.clone() {
                let files = files
                    .iter()
                    .map(|(key, file)| (local[key].path.clone(), file.clone()));
                let files: Vec<(Option<PathBuf>, StateFile)> = files.collect();
                let checkpoint = snapshot.checkpoint();
                snapshot = blocking("keep a snapshot's files", move || {
                    keeper.keep(checkpoint, &files);
                    Ok(snapshot)
                })
                .await?;
            }
            self.bases().on_pending(snapshot.checkpoint(), files);
        }
        Ok(Uploaded {
            base_used,
            added,
            dropped,
            uploaded_bytes,
        })
    }

    /// The checkpoint has completed: it serves as a base, those before it do not any more.
    pub fn completed(&self, checkpoint: CheckpointId) {
        self.bases().on_completed(checkpoint);
        if let Some(local) = &self.local {
            local.completed(checkpoint);
        }
    }

    /// The checkpoint will never complete: it is no base. Its files may be used again.
    pub fn aborted(&self, checkpoint: CheckpointId) {
        self.bases().on_aborted(checkpoint);
        if let Some(local) = &self.local {
            local.aborted(checkpoint);
        }
    }

    pub(super) fn bases(&self) -> MutexGuard<'_, Bases> {
        self.bases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn upload_file(
        &self,
        key: &FileKey,
        file: &SnapshotFile,
        savepoint: Option<&ObjectStorage>,
    ) -> Result<StateFile, Error> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let (storage, path) = match savepoint {
            Some(directory) => (directory, paths::savepoint_file(&self.writer, sequence)),
            None => (&self.storage, paths::state_file(&self.writer, sequence)),
        };
        let local = file.path.as_ref();
        let local = local.expect("what is not here is not uploaded");
        let (crc32c, found) = file_checksum(local.clone()).await?;
        if found != file.size {
            let reason = format!("it has {found} bytes instead of {}", file.size);
            return Err(Error::Corrupt {
                path: local.display().to_string(),
                reason,
            });
        }
        Failpoint::UploadBegins.pass();
        let linked = is_immutable(&key.local_name) && storage.put_link(&path, local).await?;
        if !linked {
            storage.put_file(&path, local).await?;
        }
        Failpoint::UploadEnds.pass();
        let FileKey {
            key_groups,
            local_name,
        } = key.clone();
        Ok(StateFile {
            path,
            local_name,
            size: file.size,
            crc32c,
            tablets: vec![key_groups],
        })
    }
}

/// The CRC-32C and the size of a local file.
pub(crate) async fn file_checksum(local: PathBuf) -> Result<(u32, u64), Error> {
    let path = local.clone();
    let checksum = flott_node::spawn_blocking(move || {
        use std::io::Read;
        let mut file = std::fs::File::open(&local)?;
        let (mut buffer, mut crc, mut size) = (vec![0; 1 << 20], 0, 0);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok((crc, size)),
                read => {
                    crc = crc32c::crc32c_append(crc, &buffer[..read]);
                    size += read as u64;
                }
            }
        }
    });
    let checksum = checksum
        .await
        .unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
    checksum.map_err(Error::local(&path))
}
