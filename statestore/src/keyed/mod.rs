//! Keyed state on local disk.
//!
//! One [`KeyedBackend`] belongs to one task and is used on that task's thread only: calls are synchronous, and work on
//! many keys at a time. Memory is bounded by [`BackendOptions`]; everything else is on disk.
//!
//! - `tablets`: the databases, one for each earlier owner of a part of the key groups.
//! - `store`: the way to them. Changes are `held_back` on it while a snapshot is linked; with the backend `hashmap` all
//!   entries are `resident`, too. `changes` is how both have them in memory, `walk` reads through it, `scan` for the
//!   owner.
//! - `codec`: the bytes of keys, stable for ever. `registry`: state names to numbers. `form`: in what form a state is stored.
//! - `batch`: changes that happen together. `timers`: when the next timer is due, in memory.
//! - [`kinds`]: Flink's kinds of state, over plain entries. `expiry`: their TTL.
//!
//! What must stay true: the head of every key group in `timers` is the earliest timer that its tablet holds there.

mod batch;
mod changes;
pub(crate) mod codec;
pub(crate) mod expiry;
pub(crate) mod form;
mod held_back;
pub mod kinds;
pub(crate) mod registry;
mod resident;
mod scan;
mod store;
pub(crate) mod tablets;
mod timers;
mod walk;

use std::cell::Cell;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::fs;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flott_node::Mutant;
use flott_node::config::StateBackendType;
use flott_proto::ids::CheckpointId;
use flott_proto::key_group::{KeyGroup, KeyGroupRange};

pub use self::batch::StateBatch;
use self::expiry::Expiry;
use self::form::Form;
use self::registry::Registry;
pub use self::scan::Scan;
use self::store::Store;
use self::tablets::{Tablet, Tablets};
use self::timers::TimerHeads;
use crate::error::Error;
use crate::rocks::{Database, MEMORY_BYTES_MIN, Memory};
use crate::snapshot::diff::FilesByKey;
use crate::snapshot::{EarlyTables, LocalSnapshot};

/// The version of what lies in the database.
pub(crate) const FORMAT: u32 = 1;

/// The state of one operator by one name, as a number of this backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId(pub(crate) u16);

/// Where a value is: its key's group, the encoded key, and what distinguishes values of one key (a window, a map's
/// key; empty for one value a key).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKey<'a> {
    /// `KeyGroup::of_key(key, max_parallelism)`.
    pub group: KeyGroup,
    pub key: &'a [u8],
    pub namespace: &'a [u8],
}

/// A value's place, which may be one of many within a namespace.
#[derive(Clone, Copy, Debug)]
struct CellKey<'a> {
    key: StateKey<'a>,
    /// What distinguishes it there.
    within: Option<&'a [u8]>,
}

impl<'a> CellKey<'a> {
    /// The only one.
    fn of(key: &StateKey<'a>) -> Self {
        Self {
            key: *key,
            within: None,
        }
    }

    fn within(key: StateKey<'a>, within: &'a [u8]) -> Self {
        let within = Some(within);
        Self { key, within }
    }
}

/// Something to do for a key at a time. Ordered by time, then group, then key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timer {
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// `KeyGroup::of_key(key, max_parallelism)`.
    pub group: KeyGroup,
    pub key: Vec<u8>,
    pub namespace: Vec<u8>,
}

/// How a backend is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendOptions {
    /// Memory for changes not yet on disk and for the block cache together, in bytes. Less than 8 MiB counts as 8 MiB.
    pub memory_bytes: u64,
    /// Where entries are while the task runs. What does not fit into half the memory is on disk with either.
    pub backend: StateBackendType,
}

impl BackendOptions {
    /// State on disk, with this much memory.
    pub const fn rocksdb(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            backend: StateBackendType::RocksDb,
        }
    }

    /// What counts as the memory.
    fn memory_bytes(self) -> u64 {
        self.memory_bytes.max(MEMORY_BYTES_MIN)
    }
}

/// The keyed state of one task, for one range of key groups.
pub struct KeyedBackend {
    store: Store,
    dir: PathBuf,
    key_groups: KeyGroupRange,
    registry: Registry,
    /// How many numbers were given to elements of lists.
    numbers: Arc<AtomicU64>,
    timers: BTreeMap<StateId, TimerHeads>,
    snapshots: u64,
    restored: FilesByKey,
    /// One task's thread at a time.
    not_sync: PhantomData<Cell<()>>,
}

impl fmt::Debug for KeyedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBackend")
            .field("dir", &self.dir)
            .field("key_groups", &self.key_groups)
            .finish_non_exhaustive()
    }
}

impl KeyedBackend {
    /// Empty state in `dir`, which must be empty or missing and belongs to the backend from now on. The caller removes
    /// it after the backend and all its snapshots are dropped.
    pub fn create(
        dir: &Path,
        max_parallelism: u32,
        key_groups: KeyGroupRange,
        options: BackendOptions,
    ) -> Result<Self, Error> {
        prepare(dir)?;
        let memory = Memory::of(options.memory_bytes);
        let database = Database::create(&database_dir(dir, 0), &memory)?;
        let registry = Registry::create(&database, max_parallelism)?;
        let range = key_groups;
        let tablets = Tablets::new(vec![Tablet { range, database }]);
        Self::over(dir, tablets, registry, key_groups, options, &memory)
    }

    /// The state in tablets that share `memory`, and whose registries were loaded.
    pub(crate) fn over(
        dir: &Path,
        tablets: Tablets,
        registry: Registry,
        key_groups: KeyGroupRange,
        options: BackendOptions,
        memory: &Memory,
    ) -> Result<Self, Error> {
        let dir = dir.to_owned();
        let timers = BTreeMap::new();
        let mut backend = Self {
            store: Store::new(tablets, options, memory)?,
            dir,
            key_groups,
            numbers: Arc::new(AtomicU64::new(registry.numbers())),
            registry,
            timers,
            snapshots: 0,
            restored: FilesByKey::new(),
            not_sync: PhantomData,
        };
        let states: Vec<_> = backend.registry.states().map(|(_, _, id)| id).collect();
        for state in states {
            let mut heads = TimerHeads::default();
            let forgets = Mutant::TimersNotRestored.is_planted();
            for group in key_groups.groups().filter(|_| !forgets) {
                heads.set(group, backend.first_timer(state, group, i64::MIN)?);
            }
            backend.timers.insert(state, heads);
        }
        Ok(backend)
    }

    /// Remembers what its tablets were opened on.
    pub(crate) fn restored_from(self, restored: FilesByKey) -> Self {
        Self { restored, ..self }
    }

    /// The files that it was opened on as they are, with the key groups that it took from each: a checkpoint may refer
    /// to them again. None if it began empty or was copied together.
    pub fn restored_files(&self) -> &FilesByKey {
        &self.restored
    }

    /// What it flushes before a snapshot asks for it, for [`crate::SnapshotUploader::upload_early`].
    pub fn early_tables(&self) -> EarlyTables {
        self.store.early()
    }

    /// Whether all entries are in memory, too.
    pub fn is_in_memory(&self) -> bool {
        self.store.is_resident()
    }

    /// The range of key groups whose state this is.
    pub fn key_groups(&self) -> KeyGroupRange {
        self.key_groups
    }

    /// The state that the operator calls `name`. Registers it if it is new; what a checkpoint restored is found again.
    pub fn state(&mut self, operator_uid: &str, name: &str) -> Result<StateId, Error> {
        self.register(operator_uid, name, Form::default())
    }

    fn register(&mut self, operator_uid: &str, name: &str, form: Form) -> Result<StateId, Error> {
        let databases = self.store.databases()?;
        let id = (self.registry).get_or_add(databases, operator_uid, name, form)?;
        self.timers.entry(id).or_default();
        Ok(id)
    }

    /// It is now `now_ms`, in milliseconds since the Unix epoch: what has a TTL is written at that time, and expires by it. An
    /// earlier time than before is ignored; until a time is given, nothing expires.
    pub fn advance_time(&self, now_ms: i64) {
        self.store.expiry().advance(now_ms);
    }

    fn expiry(&self) -> &Arc<Expiry> {
        self.store.expiry()
    }

    fn numbers(&self) -> &Arc<AtomicU64> {
        &self.numbers
    }

    /// The values of many keys, in their order.
    pub fn get_many(
        &self,
        state: StateId,
        keys: &[StateKey<'_>],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.get_cells(state, keys.iter().map(CellKey::of))
    }

    fn get_cells<'k>(
        &self,
        state: StateId,
        cells: impl ExactSizeIterator<Item = CellKey<'k>>,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        // One allocation for all encoded keys.
        let (mut encoded, mut ends) = (
            Vec::with_capacity(cells.len() * 32),
            Vec::with_capacity(cells.len()),
        );
        for cell in cells {
            codec::push_cell(&mut encoded, state, cell);
            ends.push(encoded.len());
        }
        let mut start = 0;
        let stored = ends.iter().map(|end| {
            let key = &encoded[start..*end];
            start = *end;
            key
        });
        self.store.get_many(&stored.collect::<Vec<_>>())
    }

    /// Carries out all changes of the batch. Durable with the next checkpoint, not before.
    ///
    /// Panics if the batch touches a key group that belongs to another task: that would lose state.
    pub fn write(&mut self, batch: StateBatch) -> Result<(), Error> {
        let Some((low, high)) = batch.groups else {
            return Ok(());
        };
        assert!(
            self.key_groups.contains(low) && self.key_groups.contains(high),
            "state of key groups {low:?} to {high:?} written to the owner of {}",
            self.key_groups
        );
        self.store.write(&batch.changes)?;
        for ((state, group), changes) in batch.timers {
            let heads = self.timers.entry(state).or_default();
            if let Some(time) = changes.put {
                heads.on_put(group, time);
            }
            // The head is still a lower bound; exact again once it is looked up.
            if let (Some(head), Some(deleted)) = (heads.of(group), changes.deleted)
                && deleted <= head
            {
                let next = self.first_timer(state, group, head)?;
                self.timers.entry(state).or_default().set(group, next);
            }
        }
        Ok(())
    }

    /// The time of the state's earliest timer, in milliseconds. Free.
    pub fn earliest_timer(&self, state: StateId) -> Option<i64> {
        self.timers.get(&state)?.earliest()
    }

    /// The first `limit` timers at `until_ms` or before, in order of time, group and key. They stay until they are
    /// deleted, best in the [`StateBatch`] that has their effects. Free while nothing is due.
    pub fn due_timers(
        &mut self,
        state: StateId,
        until_ms: i64,
        limit: usize,
    ) -> Result<Vec<Timer>, Error> {
        let Some(heads) = self.timers.get(&state) else {
            return Ok(Vec::new());
        };
        // The earliest `limit` seen so far, the latest of them on top.
        let mut first: BinaryHeap<Timer> = BinaryHeap::new();
        for (head, group) in heads.due(until_ms) {
            let full = first.len() >= limit;
            if limit == 0
                || (full
                    && first
                        .peek()
                        .is_some_and(|last| (last.time_ms, last.group) < (head, group)))
            {
                break;
            }
            let mut from = Vec::with_capacity(16);
            codec::push_timers_from(&mut from, state, group, head);
            let until = codec::after_timers(state, group, until_ms);
            let mut walk = self.store.range(group, from, until);
            while let Some((key, _)) = walk.next()? {
                let timer = codec::split_timer(key).ok_or_else(|| self.damaged("a timer"))?;
                if first.len() < limit {
                    first.push(timer);
                } else if let Some(mut last) = first.peek_mut()
                    && timer < *last
                {
                    *last = timer;
                } else {
                    break;
                }
            }
        }
        Ok(first.into_sorted_vec())
    }

    /// The state as it is now, to be uploaded while the task goes on. Takes no time: what is in memory is sealed, and
    /// written to disk beside the task, whose further changes wait in memory. Only if they come to more than
    /// [`BackendOptions::memory_bytes`] allow for, or the next snapshot is taken, the task stands still until that is
    /// done.
    pub fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<LocalSnapshot, Error> {
        // The number keeps two tries at one checkpoint apart.
        self.snapshots += 1;
        let dir = self
            .dir
            .join("snapshots")
            .join(format!("{checkpoint}-{}", self.snapshots));
        fs::create_dir_all(&dir).map_err(Error::local(&dir))?;
        let numbers = self.numbers.load(Ordering::Relaxed);
        self.registry
            .save_numbers(self.store.databases()?, numbers)?;
        let linking = self.store.seal(dir.clone())?;
        Ok(LocalSnapshot::new(
            checkpoint,
            dir,
            self.key_groups,
            linking,
        ))
    }

    /// The earliest timer in a group, given that there is none before `from_ms`.
    fn first_timer(
        &self,
        state: StateId,
        group: KeyGroup,
        from_ms: i64,
    ) -> Result<Option<i64>, Error> {
        let mut from = Vec::with_capacity(16);
        codec::push_timers_from(&mut from, state, group, from_ms);
        let until = codec::after_timers(state, group, i64::MAX);
        let mut walk = self.store.range(group, from, until);
        let Some((key, _)) = walk.next()? else {
            return Ok(None);
        };
        let timer = codec::split_timer(key).ok_or_else(|| self.damaged("a timer"))?;
        Ok(Some(timer.time_ms))
    }

    /// A value that should have the time of its last write before it has not.
    fn untimed(&self) -> Error {
        Error::Corrupt {
            path: self.dir.display().to_string(),
            reason: "a value with a TTL does not say when it was written".to_owned(),
        }
    }

    fn damaged(&self, what: &str) -> Error {
        damaged(&self.dir, what)
    }
}

/// Makes an empty directory of `dir`, or says that it is not.
pub(crate) fn prepare(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::local(dir))?;
    let mut entries = fs::read_dir(dir).map_err(Error::local(dir))?;
    if entries.next().is_some() {
        return Err(Error::NotEmpty {
            dir: dir.to_owned(),
        });
    }
    Ok(())
}

/// Where the database of a tablet lies within a backend's directory.
pub(crate) fn database_dir(dir: &Path, tablet: usize) -> PathBuf {
    dir.join(format!("db-{tablet}"))
}

/// A stored entry is not what this crate writes.
pub(crate) fn damaged(dir: &Path, what: &str) -> Error {
    Error::Corrupt {
        path: dir.display().to_string(),
        reason: format!("{what} has a malformed key"),
    }
}
