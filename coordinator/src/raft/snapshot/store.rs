//! The directory of snapshots.
//!
//! ```text
//! <index>-<term>.snapshot   complete and durable; the newest one is current
//! <uuid>.tmp                being written or received; deleted at the next start
//! <...>.corrupt             failed its checks at a start; kept for people to look at
//! ```
//!
//! The last two are kept, so that a damaged one does not cost the node its state as long as the log reaches back.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use flott_node::Mutant;
use flott_proto::wire;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::super::error::RaftError;
use super::super::types::SnapshotMeta;
use super::super::{codec, directory};
use super::format::{SnapshotError, SnapshotReader, SnapshotWriter};
use crate::core::Record;

/// Snapshots that stay on disk.
const KEPT: usize = 2;

const EXTENSION: &str = "snapshot";

/// A snapshot that can be read, even after it was replaced and deleted. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
    file: Arc<File>,
    length: u64,
}

impl SnapshotFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            path,
            file: Arc::new(file),
            length,
        })
    }

    /// When it was written, in milliseconds since the epoch; none if the file system does not tell.
    pub(crate) fn written_at_ms(&self) -> Option<i64> {
        let modified = self.file.metadata().and_then(|found| found.modified());
        let since = modified.ok()?.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok()
    }

    /// Bytes in the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Up to `length_max` bytes from `offset` on; empty at the end.
    pub(crate) fn read_at(&self, offset: u64, length_max: usize) -> io::Result<Vec<u8>> {
        let length = length_max
            .min(usize::try_from(self.length.saturating_sub(offset)).unwrap_or(length_max));
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Reads and checks the whole file.
    pub(crate) fn read(&self) -> Result<(SnapshotMeta, Vec<Record>), SnapshotError> {
        let (reader, meta) = SnapshotReader::new(BufReader::new(File::open(&self.path)?))?;
        let meta = to_meta(meta)?;
        Ok((meta, reader.into_records()?))
    }

    /// Deletes a received snapshot that was not installed; an installed one has another name.
    pub(crate) fn discard_if_temporary(&self) {
        if self
            .path
            .extension()
            .is_some_and(|extension| extension == "tmp")
        {
            // It is gone if it was installed, and deleted at the next start if this fails.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Checks the whole file without keeping its records.
    fn verify(&self) -> Result<wire::RaftSnapshotMeta, SnapshotError> {
        let (mut reader, meta) = SnapshotReader::new(BufReader::new(File::open(&self.path)?))?;
        while reader.next_records()?.is_some() {}
        Ok(meta)
    }
}

fn to_meta(meta: wire::RaftSnapshotMeta) -> Result<SnapshotMeta, SnapshotError> {
    codec::snapshot_meta_from_wire(meta).map_err(|error| SnapshotError::Corrupt(error.to_string()))
}

/// The snapshots of one node.
#[derive(Debug)]
pub(crate) struct SnapshotStore {
    directory: PathBuf,
    kept: Mutex<Kept>,
}

/// The snapshots that are there.
#[derive(Debug, Default)]
struct Kept {
    current: Option<(SnapshotMeta, SnapshotFile)>,
    /// The last log index in the one before it.
    previous: Option<u64>,
}

impl Kept {
    fn replace(&mut self, meta: &SnapshotMeta, file: &SnapshotFile) {
        let index_of = |meta: &SnapshotMeta| meta.last_log_id.map(|id| id.index);
        let replaced = self.current.replace((meta.clone(), file.clone()));
        let replaced = replaced.and_then(|(replaced, _)| index_of(&replaced));
        // The same one again has replaced nothing.
        if replaced < index_of(meta) {
            self.previous = replaced;
        }
    }
}

impl SnapshotStore {
    /// Opens the directory and finds the newest intact snapshot. Blocks on the disk.
    pub(crate) fn open(directory: &Path) -> Result<Self, RaftError> {
        directory::create(directory).map_err(RaftError::storage("create", directory))?;
        let listed = list(directory).map_err(RaftError::storage("list", directory))?;
        for unfinished in &listed.unfinished {
            fs::remove_file(unfinished).map_err(RaftError::storage("delete", unfinished))?;
        }
        let mut kept = Kept::default();
        for path in listed.newest_first {
            if kept.current.is_some() {
                kept.previous = index_of(&path);
                break;
            }
            let file =
                SnapshotFile::open(path.clone()).map_err(RaftError::storage("open", &path))?;
            match file.verify().and_then(to_meta) {
                Ok(meta) => {
                    kept.current = Some((meta, file));
                }
                Err(SnapshotError::Io(source)) => {
                    return Err(RaftError::storage("read", &path)(source));
                }
                Err(failure) => {
                    error!(path = %path.display(), %failure, "raft snapshot set aside; using the one before it");
                    let aside = path.with_extension("corrupt");
                    fs::rename(&path, &aside).map_err(RaftError::storage("rename", &path))?;
                }
            }
        }
        // Whoever gave the newest its name may have been killed before that was durable.
        if !Mutant::ReadWithoutSync.is_planted() {
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map_err(RaftError::storage("sync", directory))?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            kept: Mutex::new(kept),
        })
    }

    /// The newest snapshot.
    pub(crate) fn current(&self) -> Option<(SnapshotMeta, SnapshotFile)> {
        self.kept().current.clone()
    }

    /// The last log index in the snapshot before the newest.
    pub(crate) fn previous_index(&self) -> Option<u64> {
        self.kept().previous
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All complete snapshots, newest first: name, bytes, when written (milliseconds since the epoch). Blocks on the disk.
    pub(crate) fn files(&self) -> io::Result<Vec<(String, u64, Option<i64>)>> {
        let describe = |path: PathBuf| {
            let file = SnapshotFile::open(path)?;
            let name = file.path.file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            Ok((name, file.length, file.written_at_ms()))
        };
        let newest_first = list(&self.directory)?.newest_first;
        newest_first.into_iter().map(describe).collect()
    }

    /// Writes a snapshot and makes it the current one. Blocks on the disk.
    pub(crate) fn write(
        &self,
        meta: &SnapshotMeta,
        cluster_id: &str,
        records: impl IntoIterator<Item = Record>,
    ) -> io::Result<SnapshotFile> {
        let mut incoming = self.begin()?;
        let header = codec::snapshot_meta_to_wire(meta, cluster_id);
        let mut writer = SnapshotWriter::new(BufWriter::new(&mut incoming), &header)?;
        for record in records {
            writer.push(record)?;
        }
        // `finish` has flushed the buffer.
        drop(writer.finish()?);
        self.install(meta, incoming.sync()?)
    }

    /// A new file to be filled with a snapshot.
    pub(crate) fn begin(&self) -> io::Result<Incoming> {
        let path = self.directory.join(format!("{}.tmp", Uuid::new_v4()));
        let file = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(&path)?;
        Ok(Incoming {
            path,
            file,
            finished: false,
        })
    }

    /// Gives a complete, synced file its final name, makes it the current snapshot and deletes old ones. Does nothing
    /// to a file that is the current one already. Blocks on the disk.
    pub(crate) fn install(
        &self,
        meta: &SnapshotMeta,
        file: SnapshotFile,
    ) -> io::Result<SnapshotFile> {
        let (term, index) = meta
            .last_log_id
            .as_ref()
            .map_or((0, 0), |id| (codec::term_of(id), id.index));
        let path = self
            .directory
            .join(format!("{index:020}-{term:020}.{EXTENSION}"));
        if file.path != path {
            fs::rename(&file.path, &path)?;
            File::open(&self.directory)?.sync_all()?;
        }
        let installed = SnapshotFile { path, ..file };
        self.kept().replace(meta, &installed);
        info!(
            index,
            term,
            bytes = installed.length,
            "raft snapshot is durable"
        );
        self.delete_old();
        Ok(installed)
    }

    fn delete_old(&self) {
        let old = list(&self.directory).map(|listed| listed.newest_first.into_iter().skip(KEPT));
        let deleted = old.and_then(|mut old| old.try_for_each(fs::remove_file));
        if let Err(error) = deleted {
            warn!(%error, "cannot delete old raft snapshots yet");
        }
    }
}

/// The last log index in a snapshot, as its name says.
fn index_of(path: &Path) -> Option<u64> {
    let name = path.file_stem()?.to_str()?;
    name.split_once('-')?.0.parse().ok()
}

struct Listed {
    newest_first: Vec<PathBuf>,
    unfinished: Vec<PathBuf>,
}

fn list(directory: &Path) -> io::Result<Listed> {
    let mut listed = Listed {
        newest_first: Vec::new(),
        unfinished: Vec::new(),
    };
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(EXTENSION) => listed.newest_first.push(path),
            Some("tmp") => listed.unfinished.push(path),
            _ => {}
        }
    }
    // The names are padded, so their order is that of the indexes.
    listed.newest_first.sort_unstable_by(|a, b| b.cmp(a));
    Ok(listed)
}

/// A file that is being filled. Deleted when dropped, or at the next start, unless it was finished.
#[derive(Debug)]
pub(crate) struct Incoming {
    path: PathBuf,
    file: File,
    finished: bool,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = fs::remove_file(&self.path)
        {
            warn!(path = %self.path.display(), %error, "cannot delete an unfinished raft snapshot yet");
        }
    }
}

impl Incoming {
    /// Makes what was written durable. Blocks on the disk.
    fn sync(mut self) -> io::Result<SnapshotFile> {
        if !Mutant::SnapshotNotSynced.is_planted() {
            self.file.sync_all()?;
        }
        let file = SnapshotFile::open(self.path.clone())?;
        self.finished = true;
        Ok(file)
    }

    /// Makes what was received durable and checks it. Blocks on the disk.
    pub(crate) fn finish(self) -> Result<(wire::RaftSnapshotMeta, SnapshotFile), SnapshotError> {
        let file = self.sync()?;
        match file.verify() {
            Ok(meta) => Ok((meta, file)),
            Err(failure) => {
                file.discard_if_temporary();
                Err(failure)
            }
        }
    }
}

impl Write for Incoming {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::types::{LogId, StoredMembership};
    use super::*;

    fn meta(index: u64) -> SnapshotMeta {
        let last_log_id = Some(LogId::new_term_index(1, index));
        SnapshotMeta {
            last_log_id,
            last_membership: StoredMembership::default(),
        }
    }

    fn records(n: u8) -> Vec<Record> {
        vec![Record {
            key: "k".to_owned(),
            value: vec![n],
        }]
    }

    #[test]
    fn the_newest_two_are_kept_and_the_newest_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(directory.path()).unwrap();
        for index in [5, 50, 500] {
            store
                .write(&meta(index), "c", records(index as u8))
                .unwrap();
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
        assert_eq!(store.previous_index(), Some(50));
        let store = SnapshotStore::open(directory.path()).unwrap();
        assert_eq!(store.previous_index(), Some(50));
        let (found, file) = store.current().unwrap();
        assert_eq!(found, meta(500));
        assert_eq!(file.read().unwrap(), (meta(500), records(244)));
    }

    #[test]
    fn a_damaged_snapshot_is_set_aside_for_the_one_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(directory.path()).unwrap();
        store.write(&meta(1), "c", records(1)).unwrap();
        let newest = store.write(&meta(2), "c", records(2)).unwrap();
        let mut bytes = fs::read(&newest.path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&newest.path, bytes).unwrap();
        let store = SnapshotStore::open(directory.path()).unwrap();
        assert_eq!(store.current().unwrap().0, meta(1));
    }

    #[test]
    fn an_unfinished_snapshot_is_deleted_at_once_or_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(directory.path()).unwrap();
        store.begin().unwrap().write_all(b"half").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let mut crashed = store.begin().unwrap();
        crashed.write_all(b"half").unwrap();
        std::mem::forget(crashed);
        SnapshotStore::open(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_snapshot_being_sent_outlives_its_deletion() {
        let directory = tempfile::tempdir().unwrap();
        let store = SnapshotStore::open(directory.path()).unwrap();
        let first = store.write(&meta(1), "c", records(1)).unwrap();
        store.write(&meta(2), "c", records(2)).unwrap();
        store.write(&meta(3), "c", records(3)).unwrap();
        assert!(!first.path.exists());
        assert_eq!(first.read_at(0, 8).unwrap(), b"FLOTTSNP");
    }
}
