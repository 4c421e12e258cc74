//! The only place that names RocksDB.
//!
//! A database for each tablet, one column family, no write-ahead log: what a crash loses, the last checkpoint brings back.
//!
//! - `tuning`: memory, compaction, settings. `batch`: changes.
//! - `link`: a snapshot's files. `lineage`: what tables a checkpoint has instead of those of the database (pure). `flushed`:
//!   keeps them until they are uploaded. `manifest`: the log that says what tables there are (pure).
//! - `either`, `simulated`: what stands in its place in a simulation, which cannot carry its threads.

mod batch;
#[cfg(feature = "simulation")]
mod either;
mod flushed;
mod lineage;
mod link;
mod manifest;
#[cfg(feature = "simulation")]
mod simulated;
mod tuning;

use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use rocksdb::{DB, DBRawIterator, FlushOptions, ReadOptions, WriteOptions};

pub(crate) use self::batch::Batch;
#[cfg(feature = "simulation")]
pub(crate) use self::either::{Cursor, Database};
use self::flushed::{Flushed, OnFlush};
use self::lineage::Lineage;
pub(crate) use self::link::{Fate, Linked, SavedFile};
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

/// An open database.
pub(crate) struct Rocks {
    db: DB,
    write_options: WriteOptions,
    lineage: Mutex<Lineage>,
    flushed: Arc<Flushed>,
    fate: Arc<Fate>,
    /// Bytes to be written before it merges anything; 0: it does.
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
        let flushed = Arc::new(Flushed::of(dir, Arc::clone(&memory.early)));
        let mut options = tuned(memory);
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        options.add_event_listener(OnFlush(Arc::clone(&flushed)));
        options.set_compaction_filter_factory(LeaveOut {
            foreign: Arc::default(),
            expiry: Arc::clone(&memory.expiry),
        });
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
        let flushed = Arc::new(Flushed::of(dir, Arc::clone(&memory.early)));
        let mut options = tuned(memory);
        options.set_disable_auto_compactions(true);
        options.add_event_listener(OnFlush(Arc::clone(&flushed)));
        options.set_compaction_filter_factory(LeaveOut {
            foreign: Arc::clone(&foreign),
            expiry: Arc::clone(&memory.expiry),
        });
        let db = DB::open(&options, dir).map_err(failed("open the restored database"))?;
        for range in foreign.iter() {
            db.delete_file_in_range(&range.start, &range.end)
                .map_err(failed("drop the files of others"))?;
        }
        let rocks = Self {
            rest_bytes: AtomicI64::new(REST_BYTES),
            ..Self::of(db, flushed)
        };
        rocks.begin_to_follow()?;
        Ok(rocks)
    }

    /// Opens the database in `dir` for reading; its files stay as they are.
    pub(crate) fn open_read_only(dir: &Path, memory: &Memory) -> Result<Self, Error> {
        let db = DB::open_for_read_only(&tuned(memory), dir, false);
        let db = db.map_err(failed("open the restored database"))?;
        let flushed = Flushed::of(dir, Arc::clone(&memory.early));
        Ok(Self::of(db, Arc::new(flushed)))
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

    /// Ends the rest of a restored database, if it has not ended.
    fn end_rest(&self) -> Result<(), Error> {
        if self.rest_bytes.swap(0, Ordering::Relaxed) <= 0 {
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
        let rest = self.rest_bytes.load(Ordering::Relaxed);
        if rest > 0 {
            let left = rest - batch.size_bytes() as i64;
            if left <= 0 {
                return self.end_rest();
            }
            self.rest_bytes.store(left, Ordering::Relaxed);
        }
        Ok(())
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

    /// The tables that were flushed before a snapshot asked for it and that can be uploaded already.
    pub(crate) fn early(&self) -> Vec<SavedFile> {
        self.flushed.early()
    }

    /// Begins to write to disk what is in memory now, without waiting for it.
    pub(crate) fn begin_flush(&self) -> Result<(), Error> {
        let mut begin = FlushOptions::default();
        begin.set_wait(false);
        begin.set_allow_write_stall(true);
        self.db.flush_opt(&begin).map_err(failed("flush"))
    }
}

/// The name of the file that says which manifest holds.
const CURRENT: &str = "CURRENT";

/// Whether a file of a snapshot is the manifest: the list of the tables, different in every snapshot.
pub(crate) fn is_manifest(name: &str) -> bool {
    name.starts_with("MANIFEST-")
}

/// The number of a table's file. In one database later tables have higher ones.
pub(crate) fn table_number(name: &str) -> Option<u64> {
    name.strip_suffix(".sst")?.parse().ok()
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
