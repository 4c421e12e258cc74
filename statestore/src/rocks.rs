//! The only place that names RocksDB.
//!
//! A database for each tablet, one column family, no write-ahead log: what a crash loses, the last checkpoint brings back.
//!
//! - `tuning`: memory, compaction, settings. `batch`: changes.
//! - `either`, `simulated`: what stands in its place in a simulation, which cannot carry its threads.

mod batch;
#[cfg(feature = "simulation")]
mod either;
#[cfg(feature = "simulation")]
mod simulated;
mod tuning;

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use flott_node::Failpoint;
use rocksdb::{
    DB, DBRawIterator, FileType, FlushOptions, LiveFilesStorageInfoOptions, ReadOptions,
    WriteOptions,
};

pub(crate) use self::batch::Batch;
#[cfg(feature = "simulation")]
pub(crate) use self::either::{Cursor, Database};
use self::tuning::{LeaveOut, tuned};
pub(crate) use self::tuning::{MEMORY_BYTES_MIN, Memory};
#[cfg(not(feature = "simulation"))]
pub(crate) use self::{Rocks as Database, RocksCursor as Cursor};
use crate::error::Error;

fn failed(action: &'static str) -> impl FnOnce(rocksdb::Error) -> Error {
    move |error| Error::Backend {
        action,
        source: Box::new(error),
    }
}

/// A file of the database, as it stands in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveFile {
    pub(crate) name: String,
    pub(crate) size: u64,
}

/// An open database.
pub(crate) struct Rocks {
    db: DB,
    write_options: WriteOptions,
}

impl fmt::Debug for Rocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rocks")
            .field("path", &self.db.path())
            .finish_non_exhaustive()
    }
}

impl Rocks {
    /// Makes a new database in `dir`, which must not hold one.
    pub(crate) fn create(dir: &Path, memory: &Memory) -> Result<Self, Error> {
        let mut options = tuned(memory);
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        Self::of(DB::open(&options, dir).map_err(failed("create a database"))?)
    }

    /// Opens the database in `dir`, without the entries in `foreign` ranges of keys. These must not be read any more:
    /// files of nothing else are dropped at once, other entries when they would be rewritten.
    pub(crate) fn open(
        dir: &Path,
        memory: &Memory,
        foreign: Vec<Range<Vec<u8>>>,
    ) -> Result<Self, Error> {
        let foreign: Arc<[_]> = foreign.into();
        let mut options = tuned(memory);
        if !foreign.is_empty() {
            options.set_compaction_filter_factory(LeaveOut(Arc::clone(&foreign)));
        }
        let db = DB::open(&options, dir).map_err(failed("open the restored database"))?;
        for range in foreign.iter() {
            db.delete_file_in_range(&range.start, &range.end)
                .map_err(failed("drop the files of others"))?;
        }
        Self::of(db)
    }

    /// Opens the database in `dir` for reading; its files stay as they are.
    pub(crate) fn open_read_only(dir: &Path, memory: &Memory) -> Result<Self, Error> {
        let db = DB::open_for_read_only(&tuned(memory), dir, false);
        Self::of(db.map_err(failed("open the restored database"))?)
    }

    fn of(db: DB) -> Result<Self, Error> {
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        Ok(Self { db, write_options })
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.db.get(key).map_err(failed("read"))
    }

    /// The values of many keys, in their order.
    pub(crate) fn get_many<'k>(
        &self,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let found = self
            .db
            .batched_multi_get_pinned_batch(keys, false)
            .map_err(failed("read"))?;
        let values = (&found)
            .into_iter()
            .map(|value| Ok(value?.map(<[u8]>::to_vec)));
        values.collect::<Result<_, _>>().map_err(failed("read"))
    }

    /// Carries out all of the batch or nothing of it.
    pub(crate) fn write(&self, batch: &Batch) -> Result<(), Error> {
        self.db
            .write_opt(&batch.0, &self.write_options)
            .map_err(failed("write"))
    }

    /// The entries whose keys are in `from..to`, in order of key, as they are now.
    pub(crate) fn range(&self, from: Vec<u8>, to: Vec<u8>) -> RocksCursor<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut iterator = self.db.raw_iterator_opt(options);
        iterator.seek(from);
        RocksCursor {
            iterator,
            fresh: true,
        }
    }

    /// Begins to write to disk what is in memory now, without waiting for it.
    pub(crate) fn begin_flush(&self) -> Result<(), Error> {
        let mut begin = FlushOptions::default();
        begin.set_wait(false);
        begin.set_allow_write_stall(true);
        self.db.flush_opt(&begin).map_err(failed("flush"))
    }

    /// Flushes, and makes `dir` a copy of the database: hard links to its tables and a copy of its manifest. The list
    /// leaves out what can be made again from these: `CURRENT` names the manifest, and the options are ours.
    pub(crate) fn link_into(&self, dir: &Path) -> Result<Vec<LiveFile>, Error> {
        Failpoint::BeforeFlush.pass();
        let mut wait = FlushOptions::default();
        wait.set_wait(true);
        // A snapshot is never delayed by compactions that are behind.
        wait.set_allow_write_stall(true);
        self.db.flush_opt(&wait).map_err(failed("flush"))?;
        Failpoint::Flushed.pass();
        self.db
            .disable_file_deletions()
            .map_err(failed("hold its files"))?;
        let linked = self.link_held_files(dir);
        Failpoint::Linked.pass();
        self.db
            .enable_file_deletions()
            .map_err(failed("release its files"))?;
        linked
    }

    fn link_held_files(&self, dir: &Path) -> Result<Vec<LiveFile>, Error> {
        let live = self
            .db
            .get_livefiles_storage_info(&LiveFilesStorageInfoOptions::new());
        let live = live.map_err(failed("list its files"))?;
        let mut files = Vec::with_capacity(live.len());
        for file in &live {
            let name = file.relative_filename_lossy().into_owned();
            let (from, to) = (self.db.path().join(&name), dir.join(&name));
            match file.file_type() {
                FileType::TableFile => fs::hard_link(&from, &to).map_err(Error::local(&to))?,
                FileType::DescriptorFile => {
                    copy_beginning(&from, &to, file.size()).map_err(Error::local(&to))?;
                }
                _ => continue,
            }
            files.push(LiveFile {
                name,
                size: file.size(),
            });
        }
        Ok(files)
    }
}

/// Copies the first `size` bytes.
fn copy_beginning(from: &Path, to: &Path, size: u64) -> std::io::Result<()> {
    use std::io::{Read, copy};
    let copied = copy(
        &mut fs::File::open(from)?.take(size),
        &mut fs::File::create_new(to)?,
    )?;
    if copied == size {
        Ok(())
    } else {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}

/// The name of the file that says which manifest holds.
const CURRENT: &str = "CURRENT";

/// Whether a file of a snapshot is the manifest: the list of the tables, different in every snapshot.
pub(crate) fn is_manifest(name: &str) -> bool {
    name.starts_with("MANIFEST-")
}

/// Whether a file never changes once it is there, so that its name stands for its content within one database.
pub(crate) fn is_immutable(name: &str) -> bool {
    name.ends_with(".sst")
}

/// Completes a directory that has tables and a manifest so that it can be opened.
pub(crate) fn point_to_manifest(dir: &Path, manifest: &str) -> Result<(), Error> {
    let current = dir.join(CURRENT);
    fs::write(&current, format!("{manifest}\n")).map_err(Error::local(&current))
}

/// A key and its value.
pub(crate) type Entry<'a> = (&'a [u8], &'a [u8]);

/// A walk over a range of keys.
pub(crate) struct RocksCursor<'a> {
    iterator: DBRawIterator<'a>,
    /// Whether the entry that it stands on was not given away yet.
    fresh: bool,
}

impl fmt::Debug for RocksCursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksCursor")
            .field("valid", &self.iterator.valid())
            .finish_non_exhaustive()
    }
}

impl RocksCursor<'_> {
    /// The next key and value; `None` at the end of the range, and from then on.
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'_>>, Error> {
        self.peek()?;
        self.fresh = false;
        Ok(self.iterator.item())
    }

    /// What [`Self::next`] will give.
    pub(crate) fn peek(&mut self) -> Result<Option<Entry<'_>>, Error> {
        if !self.fresh && self.iterator.valid() {
            self.iterator.next();
        }
        self.fresh = true;
        if !self.iterator.valid() {
            self.iterator.status().map_err(failed("read"))?;
        }
        Ok(self.iterator.item())
    }
}
