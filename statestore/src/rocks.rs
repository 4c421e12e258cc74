//! The only place that names RocksDB.
//!
//! A database for each tablet, one column family, no write-ahead log: what a crash loses, the last checkpoint brings back.
//!
//! - `tuning`: memory, compaction, settings. `batch`: changes.
//! - `lineage`: what tables a checkpoint has instead of those of the database (pure). `flushed`: keeps them until they are
//!   uploaded. `manifest`: the log that says what tables there are (pure).
//! - `either`, `simulated`: what stands in its place in a simulation, which cannot carry its threads.

mod batch;
#[cfg(feature = "simulation")]
mod either;
mod flushed;
mod lineage;
mod manifest;
#[cfg(feature = "simulation")]
mod simulated;
mod tuning;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flott_node::Failpoint;
use rocksdb::{
    DB, DBRawIterator, FileType, FlushOptions, LiveFilesStorageInfo, LiveFilesStorageInfoOptions,
    ReadOptions, WriteOptions,
};

pub(crate) use self::batch::Batch;
#[cfg(feature = "simulation")]
pub(crate) use self::either::{Cursor, Database};
use self::flushed::{Flushed, OnFlush};
use self::lineage::{Lineage, Version};
use self::manifest::table_name;
use self::tuning::{LeaveOut, tuned};
pub(crate) use self::tuning::{MEMORY_BYTES_MIN, Memory};
#[cfg(not(feature = "simulation"))]
pub(crate) use self::{Rocks as Database, RocksCursor as Cursor};
use crate::error::Error;

/// What a restored database writes before it merges again.
const REST_BYTES: i64 = 64 << 20;

fn failed(action: &'static str) -> impl FnOnce(rocksdb::Error) -> Error {
    move |error| Error::Backend {
        action,
        source: Box::new(error),
    }
}

/// A file of a saved database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SavedFile {
    /// In the directory of a database.
    pub(crate) name: String,
    pub(crate) size: u64,
    /// Where it is; `None` if the database does not have it any more.
    pub(crate) path: Option<PathBuf>,
}

/// A database at one moment: its state, as two sets of files.
#[derive(Debug)]
pub(crate) struct Linked {
    /// Those that it consists of.
    pub(crate) live: Vec<SavedFile>,
    /// Those that a checkpoint had better consist of, if all can be had that are not here: most are uploaded.
    pub(crate) unmerged: Vec<SavedFile>,
    /// Hears of what became of them.
    pub(crate) fate: Arc<Fate>,
}

/// What has become of the unmerged files of snapshots: for the next snapshot.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    is_lost: AtomicBool,
    stored: Mutex<BTreeSet<String>>,
}

impl Fate {
    /// Some of them cannot be had.
    pub(crate) fn lost(&self) {
        self.is_lost.store(true, Ordering::Relaxed);
    }

    /// The table is in object storage.
    pub(crate) fn stored(&self, name: &str) {
        self.names().insert(name.to_owned());
    }

    /// Whether some could not be had, since it was asked last.
    fn take_lost(&self) -> bool {
        self.is_lost.swap(false, Ordering::Relaxed)
    }

    /// What has been stored since it was asked last.
    fn take_stored(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.names())
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open database.
pub(crate) struct Rocks {
    db: DB,
    write_options: WriteOptions,
    lineage: Mutex<Lineage>,
    flushed: Arc<Flushed>,
    fate: Arc<Fate>,
    /// Bytes to be written before it merges anything; 0 or less: it does.
    rest_bytes: AtomicI64,
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
        let flushed = Arc::new(Flushed::create(dir)?);
        let mut options = tuned(memory);
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        options.add_event_listener(OnFlush(Arc::clone(&flushed)));
        let db = DB::open(&options, dir).map_err(failed("create a database"))?;
        Ok(Self::of(db, flushed))
    }

    /// Opens the database in `dir`, without the entries in `foreign` ranges of keys. These must not be read any more:
    /// files of nothing else are dropped at once, other entries when they would be rewritten. Nothing is merged before the
    /// next snapshot, or before much has been written: who restores has better things to do.
    pub(crate) fn open(
        dir: &Path,
        memory: &Memory,
        foreign: Vec<Range<Vec<u8>>>,
    ) -> Result<Self, Error> {
        let foreign: Arc<[_]> = foreign.into();
        let flushed = Arc::new(Flushed::create(dir)?);
        let mut options = tuned(memory);
        options.set_disable_auto_compactions(true);
        options.add_event_listener(OnFlush(Arc::clone(&flushed)));
        if !foreign.is_empty() {
            options.set_compaction_filter_factory(LeaveOut(Arc::clone(&foreign)));
        }
        let db = DB::open(&options, dir).map_err(failed("open the restored database"))?;
        for range in foreign.iter() {
            db.delete_file_in_range(&range.start, &range.end)
                .map_err(failed("drop the files of others"))?;
        }
        let rocks = Self {
            rest_bytes: AtomicI64::new(REST_BYTES),
            ..Self::of(db, flushed)
        };
        rocks.holding_files(|files| rocks.follow(&mut rocks.lineage(), files))?;
        Ok(rocks)
    }

    /// Opens the database in `dir` for reading; its files stay as they are.
    pub(crate) fn open_read_only(dir: &Path, memory: &Memory) -> Result<Self, Error> {
        let db = DB::open_for_read_only(&tuned(memory), dir, false);
        let db = db.map_err(failed("open the restored database"))?;
        Ok(Self::of(db, Arc::new(Flushed::create(dir)?)))
    }

    fn of(db: DB, flushed: Arc<Flushed>) -> Self {
        let mut write_options = WriteOptions::default();
        write_options.disable_wal(true);
        Self {
            db,
            write_options,
            lineage: Mutex::default(),
            flushed,
            fate: Arc::default(),
            rest_bytes: AtomicI64::new(0),
        }
    }

    /// Ends the rest of a restored database once it has written so many bytes more.
    fn work_off_rest(&self, bytes: i64) -> Result<(), Error> {
        let before = self.rest_bytes.load(Ordering::Relaxed);
        if before <= 0 {
            return Ok(());
        }
        self.rest_bytes.store(before - bytes, Ordering::Relaxed);
        if before > bytes {
            return Ok(());
        }
        self.db
            .set_options(&[("disable_auto_compactions", "false")])
            .map_err(failed("begin to merge"))
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
            .map_err(failed("write"))?;
        self.work_off_rest(batch.size_bytes() as i64)
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

    /// Flushes, and gives all tables a second name in `dir`. The manifests are made anew; what else a database has can be
    /// made from these: `CURRENT` names the manifest, and the options are ours.
    pub(crate) fn link_into(&self, dir: &Path) -> Result<Linked, Error> {
        Failpoint::BeforeFlush.pass();
        let mut wait = FlushOptions::default();
        wait.set_wait(true);
        // A snapshot is never delayed by compactions that are behind.
        wait.set_allow_write_stall(true);
        self.db.flush_opt(&wait).map_err(failed("flush"))?;
        Failpoint::Flushed.pass();
        let linked = self.holding_files(|files| {
            let mut lineage = self.lineage();
            let manifest = self.follow(&mut lineage, files)?;
            if self.fate.take_lost() {
                lineage.lose();
            }
            let (live, unmerged) = lineage.snapshot();
            drop(lineage);
            let linked = Linked {
                live: self.save(&live, &manifest, &dir.join(LIVE_MANIFEST), &live, dir)?,
                unmerged: self.save(&unmerged, &manifest, &dir.join(&manifest), &live, dir)?,
                fate: Arc::clone(&self.fate),
            };
            let stored = self.fate.take_stored();
            self.flushed.retain(|number| {
                unmerged.tables.contains_key(&number) && !stored.contains(&table_name(number))
            });
            Ok(linked)
        });
        Failpoint::Linked.pass();
        self.work_off_rest(i64::MAX)?;
        linked
    }

    /// The files of a version: its tables, linked into `dir` as far as they are here, and its manifest, written to `path`.
    fn save(
        &self,
        version: &Version,
        manifest: &str,
        path: &Path,
        live: &Version,
        dir: &Path,
    ) -> Result<Vec<SavedFile>, Error> {
        let mut files = Vec::with_capacity(version.tables.len() + 1);
        for (number, table) in &version.tables {
            let (name, size) = (table_name(*number), table.size);
            let to = dir.join(&name);
            let is_here = if to.exists() {
                true
            } else if live.tables.contains_key(number) {
                fs::hard_link(self.db.path().join(&name), &to).map_err(Error::local(&to))?;
                true
            } else {
                self.flushed.link(*number, &to)?
            };
            let path = is_here.then_some(to);
            files.push(SavedFile { name, size, path });
        }
        fs::write(path, &version.manifest).map_err(Error::local(path))?;
        files.push(SavedFile {
            name: manifest.to_owned(),
            size: version.manifest.len() as u64,
            path: Some(path.to_owned()),
        });
        Ok(files)
    }

    /// What `work` makes of the files that there are now; none of them is deleted meanwhile.
    fn holding_files<T>(
        &self,
        work: impl FnOnce(&LiveFilesStorageInfo) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.db
            .disable_file_deletions()
            .map_err(failed("hold its files"))?;
        let files = self
            .db
            .get_livefiles_storage_info(&LiveFilesStorageInfoOptions::new())
            .map_err(failed("list its files"));
        let done = files.and_then(|files| work(&files));
        self.db
            .enable_file_deletions()
            .map_err(failed("release its files"))?;
        done
    }

    /// Reads on in the manifest, up to where it tells of exactly these files. Returns its name.
    fn follow(&self, lineage: &mut Lineage, files: &LiveFilesStorageInfo) -> Result<String, Error> {
        let manifest = files
            .iter()
            .find(|file| file.file_type() == FileType::DescriptorFile);
        let manifest = manifest.ok_or_else(|| failed_follow("there is none".to_owned()))?;
        let name = manifest.relative_filename_lossy().into_owned();
        let path = self.db.path().join(&name);
        let offset = lineage.offset_in(&name);
        let log = read_part(&path, offset, manifest.size()).map_err(Error::local(&path))?;
        lineage.read(&name, &log).map_err(failed_follow)?;
        let tables = files
            .iter()
            .filter(|file| file.file_type() == FileType::TableFile);
        let tables: BTreeSet<u64> = tables.map(|file| file.file_number()).collect();
        if lineage.is_of(&tables) {
            Ok(name)
        } else {
            Err(failed_follow(format!("it does not tell of {tables:?}")))
        }
    }

    fn lineage(&self) -> MutexGuard<'_, Lineage> {
        self.lineage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
fn failed_follow(reason: String) -> Error {
    Error::Backend {
        action: "follow its manifest",
        source: reason.into(),
    }
}

/// The bytes from `offset` to `end`.
fn read_part(path: &Path, offset: u64, end: u64) -> std::io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut part = vec![0; end.saturating_sub(offset) as usize];
    file.read_exact(&mut part)?;
    Ok(part)
}

/// In a snapshot's directory, the manifest of what the database consists of.
const LIVE_MANIFEST: &str = "LIVE";

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
