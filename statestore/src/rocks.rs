//! The only file that names RocksDB.
//!
//! One database per task, one column family, no write-ahead log: what a crash loses, the last checkpoint brings back.
//! The settings serve incremental checkpoints, see [`tuned`].

use std::fmt;
use std::fs;
use std::path::Path;

use flott_node::Failpoint;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompactionStyle, DBCompressionType, DBRawIterator, FileType,
    FlushOptions, LiveFilesStorageInfoOptions, LogLevel, Options, ReadOptions,
    UniversalCompactOptions, WriteBatch, WriteBufferManager, WriteOptions,
};

use crate::error::Error;

/// Below this a database cannot work sensibly; a smaller budget is raised to it.
const MEMORY_BYTES_MIN: u64 = 8 << 20;

/// The most that memtables may take, whatever the budget: a checkpoint's synchronous part flushes them, and a disk
/// writes this much in well under a second.
const WRITE_BUFFER_BYTES_MAX: u64 = 64 << 20;

/// A memtable's memory comes in pieces of this size. Small, because every checkpoint begins a new memtable.
const ARENA_BLOCK_BYTES: usize = 256 << 10;

/// Large files are cut at this size, so that a compaction that stops short of everything leaves whole files alone.
const TARGET_FILE_BYTES: u64 = 8 << 20;

/// Sorted runs that a read may have to look through before they are merged. See [`tuned`].
const SORTED_RUNS_MAX: i32 = 8;

/// Overwritten and deleted entries may take this much beside the live ones before all is rewritten. Less makes a restore
/// faster and the average checkpoint larger.
const GARBAGE_PERCENT_MAX: i32 = 50;

/// Flushes and compactions of one database at a time: small merges go on while a large one runs. The threads are shared
/// by all databases of the process.
const BACKGROUND_JOBS_MAX: i32 = 4;

/// The manifest is uploaded with every checkpoint, so it is begun anew before it is much larger than it has to be.
const MANIFEST_BYTES: usize = 16 << 10;

fn failed(action: &'static str) -> impl FnOnce(rocksdb::Error) -> Error {
    move |error| Error::Backend {
        action,
        source: Box::new(error),
    }
}

/// Options for a task's database within `memory_bytes` for memtables and block cache together.
///
/// **Compaction.** Checkpoints are frequent, so every flush makes a small sorted run whose keys lie all over the key
/// space. Under levelled compaction each such run meets all of the next level: with all data in one level, as is usual
/// below its base size of 256 MB, every fourth checkpoint would rewrite, and upload, the whole state. Universal
/// compaction merges runs of like size instead: a byte is rewritten about log(state / change) times, and everything
/// is rewritten only when the garbage reaches [`GARBAGE_PERCENT_MAX`]. With 200 MB of state of which 1 % changes between
/// checkpoints, 100 checkpoints uploaded 3.5 times the change on average and just the change in most, against 6 times
/// with levels of 16 MB and upward. The price is space, and up to [`SORTED_RUNS_MAX`] runs to look through, which bloom
/// filters make cheap.
fn tuned(memory_bytes: u64) -> Options {
    let memory = memory_bytes.max(MEMORY_BYTES_MIN);
    let write_buffers = (memory / 2).min(WRITE_BUFFER_BYTES_MAX) as usize;
    let cache = Cache::new_lru_cache(memory as usize);
    let manager = WriteBufferManager::new_write_buffer_manager_with_cache(
        write_buffers,
        false,
        cache.clone(),
    );

    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&cache);
    table.set_block_size(8 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_whole_key_filtering(true);
    table.set_optimize_filters_for_memory(true);
    // Inside the budget, not beside it.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(6);

    let mut universal = UniversalCompactOptions::default();
    universal.set_max_size_amplification_percent(GARBAGE_PERCENT_MAX);

    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_manager(&manager);
    options.set_write_buffer_size(write_buffers / 2);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options.set_max_write_buffer_number(4);
    options.set_compaction_style(DBCompactionStyle::Universal);
    options.set_universal_compaction_options(&universal);
    options.set_level_zero_file_num_compaction_trigger(SORTED_RUNS_MAX);
    options.set_level_zero_slowdown_writes_trigger(8 * SORTED_RUNS_MAX);
    options.set_level_zero_stop_writes_trigger(16 * SORTED_RUNS_MAX);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_target_file_size_base(TARGET_FILE_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    options.set_manifest_preallocation_size(MANIFEST_BYTES);
    options.set_allow_fallocate(false);
    options.set_avoid_flush_during_shutdown(true);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(1);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// A file of the database, as it stands in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveFile {
    pub(crate) name: String,
    pub(crate) size: u64,
}

/// An open database.
pub(crate) struct Database {
    db: DB,
    write_options: WriteOptions,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.db.path())
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Makes a new database in `dir`, which must not hold one.
    pub(crate) fn create(dir: &Path, memory_bytes: u64) -> Result<Self, Error> {
        let mut options = tuned(memory_bytes);
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        Self::of(DB::open(&options, dir).map_err(failed("create a database"))?)
    }

    /// Opens the database in `dir`.
    pub(crate) fn open(dir: &Path, memory_bytes: u64) -> Result<Self, Error> {
        let db = DB::open(&tuned(memory_bytes), dir);
        Self::of(db.map_err(failed("open the restored database"))?)
    }

    /// Opens the database in `dir` for reading; its files stay as they are.
    pub(crate) fn open_read_only(dir: &Path, memory_bytes: u64) -> Result<Self, Error> {
        let db = DB::open_for_read_only(&tuned(memory_bytes), dir, false);
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
    pub(crate) fn range(&self, from: Vec<u8>, to: Vec<u8>) -> Cursor<'_> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to);
        let mut iterator = self.db.raw_iterator_opt(options);
        iterator.seek(from);
        Cursor {
            iterator,
            fresh: true,
        }
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

/// Changes that happen together.
#[derive(Default)]
pub(crate) struct Batch(WriteBatch);

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Batch({} changes, {} bytes)",
            self.0.len(),
            self.0.size_in_bytes()
        )
    }
}

impl Batch {
    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        self.0.put(key, value);
    }

    pub(crate) fn delete(&mut self, key: &[u8]) {
        self.0.delete(key);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.0.size_in_bytes()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// A key and its value.
type Entry<'a> = (&'a [u8], &'a [u8]);

/// A walk over a range of keys.
pub(crate) struct Cursor<'a> {
    iterator: DBRawIterator<'a>,
    fresh: bool,
}

impl fmt::Debug for Cursor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor")
            .field("valid", &self.iterator.valid())
            .finish_non_exhaustive()
    }
}

impl Cursor<'_> {
    /// The next key and value; `None` at the end of the range, and from then on.
    pub(crate) fn next(&mut self) -> Result<Option<Entry<'_>>, Error> {
        if self.fresh {
            self.fresh = false;
        } else if self.iterator.valid() {
            self.iterator.next();
        }
        if !self.iterator.valid() {
            self.iterator.status().map_err(failed("read"))?;
        }
        Ok(self.iterator.item())
    }
}
