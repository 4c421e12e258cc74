//! Tables that were flushed keep a second name until a checkpoint has uploaded them: merges may take them in before.
//!
//! What was flushed for want of memory, while no snapshot asked for it, can be uploaded at once: the next checkpoint will have
//! it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rocksdb::event_listener::{DBFlushReason, EventListener, FlushJobInfo};
use tokio::sync::Notify;
use tracing::debug;

use super::SavedFile;
use super::manifest::table_name;
use crate::error::Error;

/// The directory of second names, in that of the database.
const DIRECTORY: &str = "flushed";

/// Tables of more bytes than this are not kept for a checkpoint that does not come. What was merged is uploaded then.
const BYTES_MAX: u64 = 1 << 30;

/// The second names of one database.
#[derive(Debug)]
pub(super) struct Flushed {
    dir: PathBuf,
    kept: Mutex<Kept>,
    /// Told when there is more to upload early.
    early: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By number.
    tables: BTreeMap<u64, Table>,
    is_overfull: bool,
}

#[derive(Debug)]
struct Table {
    size: u64,
    /// No snapshot has asked for it.
    is_early: bool,
}

impl Flushed {
    /// Of the database in the directory `database`. `early` is told when there is more in [`Self::early`].
    pub(super) fn of(database: &Path, early: Arc<Notify>) -> Self {
        Self {
            dir: database.join(DIRECTORY),
            kept: Mutex::default(),
            early,
        }
    }

    /// The table `number` has been flushed to `path`; early if no snapshot has asked for it.
    pub(super) fn add(&self, number: u64, path: &Path, is_early: bool) -> std::io::Result<()> {
        let mut kept = self.kept();
        if kept.is_overfull {
            return Ok(());
        }
        let to = self.path_of(number);
        fs::create_dir_all(&self.dir)?;
        fs::hard_link(path, &to)?;
        let size = fs::metadata(&to)?.len();
        kept.tables.insert(number, Table { size, is_early });
        if kept.tables.values().map(|table| table.size).sum::<u64>() > BYTES_MAX {
            kept.is_overfull = true;
            self.remove(&mut kept, |_| true);
        } else if is_early {
            self.early.notify_one();
        }
        Ok(())
    }

    /// The tables that can be uploaded before a snapshot asks for them, in the order of their flushes.
    pub(super) fn early(&self) -> Vec<SavedFile> {
        let kept = self.kept();
        let early = kept.tables.iter().filter(|(_, table)| table.is_early);
        let files = early.map(|(number, table)| SavedFile {
            name: table_name(*number),
            size: table.size,
            path: Some(self.path_of(*number)),
        });
        files.collect()
    }

    /// Gives the table another name, `to`, if it is here.
    pub(super) fn link(&self, number: u64, to: &Path) -> Result<bool, Error> {
        let kept = self.kept();
        let is_here = kept.tables.contains_key(&number);
        if is_here {
            fs::hard_link(self.path_of(number), to).map_err(Error::local(to))?;
        }
        Ok(is_here)
    }

    /// The others are not needed any more.
    pub(super) fn retain(&self, is_needed: impl Fn(u64) -> bool) {
        let mut kept = self.kept();
        kept.is_overfull = false;
        self.remove(&mut kept, |number| !is_needed(number));
    }

    fn remove(&self, kept: &mut Kept, is_removed: impl Fn(u64) -> bool) {
        let removed = kept.tables.extract_if(.., |number, _| is_removed(*number));
        for (number, _) in removed {
            // What cannot be removed goes with the database.
            let _ = fs::remove_file(self.path_of(number));
        }
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.dir.join(table_name(number))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of flushes.
#[derive(Debug)]
pub(super) struct OnFlush(pub(super) Arc<Flushed>);

impl EventListener for OnFlush {
    fn on_flush_completed(&self, flush: &FlushJobInfo) {
        let Some(path) = flush.file_path() else {
            return;
        };
        let path = PathBuf::from(OsString::from_vec(path));
        let is_early = matches!(
            flush.flush_reason(),
            DBFlushReason::KWriteBufferFull | DBFlushReason::KWriteBufferManager
        );
        if let Err(error) = self.0.add(flush.file_number(), &path, is_early) {
            // If it is merged before the next snapshot, what it was merged into is uploaded.
            debug!(path = %path.display(), %error, "a flushed table has no second name");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is here of the tables 1 to 3.
    fn here(flushed: &Flushed, dir: &Path) -> Vec<u64> {
        let is_here = |number: &u64| {
            let to = dir.join(format!("again-{number}"));
            let linked = flushed.link(*number, &to).unwrap();
            assert_eq!(to.exists(), linked);
            let _ = fs::remove_file(to);
            linked
        };
        (1..=3).filter(is_here).collect()
    }

    #[test]
    fn tables_are_here_until_they_are_not_needed_or_too_large() {
        let tmp = tempfile::tempdir().unwrap();
        let flushed = Flushed::of(&tmp.path().join("db"), Arc::default());
        let table = |number: u64, size: u64| {
            let path = tmp.path().join(number.to_string());
            fs::File::create(&path).unwrap().set_len(size).unwrap();
            flushed.add(number, &path, number == 2).unwrap();
            fs::remove_file(&path).unwrap();
        };
        table(1, 10);
        table(2, 10);
        assert_eq!(here(&flushed, tmp.path()), [1, 2]);
        let early = flushed.early();
        assert_eq!((early.len(), early[0].name.as_str()), (1, "000002.sst"));
        assert!(early[0].path.as_ref().is_some_and(|path| path.exists()));
        flushed.retain(|number| number == 2);
        assert_eq!(here(&flushed, tmp.path()), [2]);
        table(3, BYTES_MAX);
        assert_eq!(here(&flushed, tmp.path()), [0; 0], "too much");
        assert!(flushed.early().is_empty());
        table(1, 10);
        assert_eq!(here(&flushed, tmp.path()), [0; 0], "all or nothing");
        flushed.retain(|_| true);
        table(2, 10);
        assert_eq!(here(&flushed, tmp.path()), [2]);
    }
}
