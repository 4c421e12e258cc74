//! How the databases are set up: memory, compaction, and what compactions leave out. The settings serve incremental
//! checkpoints, see [`tuned`].

use std::ffi::CStr;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use rocksdb::compaction_filter::{CompactionFilter, Decision};
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};
use rocksdb::{
    BlockBasedOptions, Cache, DBCompactionStyle, DBCompressionType, LogLevel, Options,
    UniversalCompactOptions, WriteBufferManager,
};
use tokio::sync::Notify;

use crate::keyed::expiry::{Expired, Expiry};

/// Below this a database cannot work sensibly; a smaller budget is raised to it.
pub(crate) const MEMORY_BYTES_MIN: u64 = 8 << 20;

/// The most that all memtables may take, whatever the budget.
const WRITE_BUFFER_BYTES_MAX: u64 = 64 << 20;

/// The most that one memtable may take. What is in it when a barrier comes is flushed before the checkpoint is uploaded:
/// of 16 MB that takes less than a tenth of a second.
const MEMTABLE_BYTES_MAX: usize = 16 << 20;

/// A memtable's memory comes in pieces of this size. Small, because every checkpoint begins a new memtable.
const ARENA_BLOCK_BYTES: usize = 256 << 10;

/// Large files are cut at this size: small enough to be fetched side by side and to be left out by who needs only some key
/// groups, large enough that linking and naming all of them with each checkpoint takes no time.
const TARGET_FILE_BYTES: u64 = 32 << 20;

/// From so many sorted runs on it is asked how much of them is garbage. Fewer would rewrite a small state, or one that does
/// not live long, with every few checkpoints.
const SORTED_RUNS_MIN: i32 = 24;

/// So many sorted runs of like size are merged, whatever is garbage in them: what a read may have to look through.
const SORTED_RUNS_MAX: i32 = 48;

/// Overwritten and deleted entries may take this much beside the live ones before all is rewritten. Less makes a restore
/// faster and the average checkpoint larger.
const GARBAGE_PERCENT_MAX: i32 = 125;

/// Bits of a run's bloom filter for each of its keys. A key that is not in a run costs the reading of a block in one of
/// 800 runs; with the usual 10 bits it would be one of 100, one for every second read when there are most runs.
const FILTER_BITS: f64 = 14.0;

/// What a read decompresses, for which it looks in one place of the whole state: little.
const BLOCK_BYTES: usize = 4 << 10;

/// Flushes and compactions of one database at a time: small merges go on while a large one runs. The threads are shared
/// by all databases of the process.
const BACKGROUND_JOBS_MAX: i32 = 4;

/// The part of a memtable that its bloom filter takes.
const MEMTABLE_BLOOM_RATIO: f64 = 0.02;

/// When a manifest is begun anew, it is not known any more what merges took in: the next checkpoint has to take over what
/// was merged. So that is rare.
const MANIFEST_BYTES: usize = 4 << 20;

/// Space for it is taken in such pieces.
const MANIFEST_PIECE_BYTES: usize = 16 << 10;

/// What the databases of one task share: memory, for memtables and block cache together; who hears of what was flushed for
/// want of it; and what time it is.
#[derive(Clone)]
pub(crate) struct Memory {
    cache: Cache,
    manager: WriteBufferManager,
    write_buffers: usize,
    /// Told when there is more that can be uploaded early.
    pub(crate) early: Arc<Notify>,
    pub(crate) expiry: Arc<Expiry>,
}

impl Memory {
    pub(crate) fn of(bytes: u64) -> Self {
        let bytes = bytes.max(MEMORY_BYTES_MIN);
        let write_buffers = (bytes / 2).min(WRITE_BUFFER_BYTES_MAX) as usize;
        let cache = Cache::new_lru_cache(bytes as usize);
        let manager = WriteBufferManager::new_write_buffer_manager_with_cache(
            write_buffers,
            false,
            cache.clone(),
        );
        Self {
            cache,
            manager,
            write_buffers,
            early: Arc::default(),
            expiry: Arc::default(),
        }
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("write_buffers", &self.write_buffers)
            .finish_non_exhaustive()
    }
}

/// Options for one of the databases that share `memory`.
///
/// **Compaction.** Checkpoints are frequent, so every flush makes a small sorted run whose keys lie all over the key
/// space. Under levelled compaction each such run meets all of the next level: with all data in one level, as is usual
/// below its base size of 256 MB, every fourth checkpoint would rewrite the whole state. Universal compaction merges runs of
/// like size instead, and rewrites everything only when the garbage reaches [`GARBAGE_PERCENT_MAX`]. A checkpoint does not
/// take over what the former rewrites (see [`super::lineage`]): a byte is uploaded when it is flushed, and 0.8 times more on
/// average, whatever the size of the state. The price is space, and that a restore opens more files.
///
/// Reads look through all runs, which [`FILTER_BITS`] and small blocks make up for.
pub(super) fn tuned(memory: &Memory) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory.cache);
    table.set_block_size(BLOCK_BYTES);
    // What is alike in the keys of neighbours is kept once: so many small blocks need no more memory for their index.
    table.set_index_block_restart_interval(16);
    table.set_bloom_filter(FILTER_BITS, false);
    table.set_whole_key_filtering(true);
    table.set_optimize_filters_for_memory(true);
    // Inside the budget, not beside it.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(6);

    let mut universal = UniversalCompactOptions::default();
    universal.set_max_size_amplification_percent(GARBAGE_PERCENT_MAX);
    universal.set_min_merge_width(SORTED_RUNS_MAX);

    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_manager(&memory.manager);
    options.set_write_buffer_size(memory.write_buffers.min(MEMTABLE_BYTES_MAX));
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options.set_max_write_buffer_number(4);
    // One thread writes, mostly in order of the keys: then each entry's place is beside that of the one before.
    options.set_allow_concurrent_memtable_write(false);
    // Most reads of what is not there end here.
    options.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
    options.set_memtable_whole_key_filtering(true);
    options.set_compaction_style(DBCompactionStyle::Universal);
    options.set_universal_compaction_options(&universal);
    options.set_level_zero_file_num_compaction_trigger(SORTED_RUNS_MIN);
    options.set_level_zero_slowdown_writes_trigger(8 * SORTED_RUNS_MAX);
    options.set_level_zero_stop_writes_trigger(16 * SORTED_RUNS_MAX);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_target_file_size_base(TARGET_FILE_BYTES);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    options.set_manifest_preallocation_size(MANIFEST_PIECE_BYTES);
    options.set_allow_fallocate(false);
    options.set_avoid_flush_during_shutdown(true);
    // A restore would read something of every file for it.
    options.set_skip_stats_update_on_db_open(true);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(1);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// Compactions leave out what nobody reads any more: entries in some ranges of keys, and expired ones.
#[derive(Clone, Debug)]
pub(super) struct LeaveOut {
    pub(super) foreign: Arc<[Range<Vec<u8>>]>,
    pub(super) expiry: Arc<Expiry>,
}

/// The same as of one compaction's begin.
#[derive(Debug)]
pub(super) struct LeaveOutNow {
    foreign: Arc<[Range<Vec<u8>>]>,
    expired: Expired,
}

const LEAVE_OUT: &CStr = c"flott.leave-out";

impl CompactionFilter for LeaveOutNow {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> Decision {
        let mut ranges = self.foreign.iter();
        if ranges.any(|range| range.start.as_slice() <= key && key < range.end.as_slice())
            || self.expired.has(key, value)
        {
            Decision::Remove
        } else {
            Decision::Keep
        }
    }

    fn name(&self) -> &CStr {
        LEAVE_OUT
    }
}

impl CompactionFilterFactory for LeaveOut {
    type Filter = LeaveOutNow;

    fn create(&mut self, _context: CompactionFilterContext) -> LeaveOutNow {
        LeaveOutNow {
            foreign: Arc::clone(&self.foreign),
            expired: self.expiry.so_far(),
        }
    }

    fn name(&self) -> &CStr {
        LEAVE_OUT
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flott_proto::key_group::KeyGroup;
    use rocksdb::{BottommostLevelCompaction, CompactOptions};

    use super::super::Rocks;
    use super::*;
    use crate::keyed::expiry::tests::stored_value;
    use crate::keyed::{StateId, codec};

    fn count(rocks: &Rocks) -> usize {
        let mut entries = rocks.range(codec::group_start(0), codec::group_start(9));
        let mut count = 0;
        while entries.next().unwrap().is_some() {
            count += 1;
        }
        count
    }

    #[test]
    fn compactions_leave_out_what_has_expired() {
        let tmp = tempfile::tempdir().unwrap();
        let memory = Memory::of(MEMORY_BYTES_MIN);
        let rocks = Rocks::create(&tmp.path().join("db"), &memory).unwrap();
        memory.expiry.set_ttl(StateId(1), Duration::from_millis(10));
        let mut batch = super::super::Batch::default();
        for group in 0..9 {
            for state in [1, 2] {
                let (key, value) = stored_value(state, KeyGroup(group), 100 + i64::from(group));
                batch.put(&key, &value);
            }
        }
        rocks.write(&batch).unwrap();
        for (now_ms, left) in [(None, 18), (Some(109), 18), (Some(113), 14), (Some(200), 9)] {
            if let Some(now_ms) = now_ms {
                memory.expiry.advance(now_ms);
            }
            let mut all = CompactOptions::default();
            all.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            rocks
                .db
                .compact_range_opt(None::<&[u8]>, None::<&[u8]>, &all);
            assert_eq!(count(&rocks), left, "at {now_ms:?}");
        }
    }
}
