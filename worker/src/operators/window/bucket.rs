//! The cached keys of one window: a hash table from key to slot, and a column of slots for each aggregate.
//!
//! All of a window's memory goes at once when it fires, so slots are never freed one by one.

use arrow::array::ArrayRef;
use flott_proto::key_group::KeyGroup;
use hashbrown::HashTable;

use super::accumulator::{Accumulator, AggregateSpec};
use super::codec;
use crate::Error;

/// Set where the slot has changed since it was last stored.
const DIRTY: u8 = 0x80;
/// The remaining bits count touches since the last eviction, up to this.
const TOUCHES_MAX: u8 = 0x7F;

/// Memory of a slot besides its key and aggregates: hash, key position, flags, and its share of the table.
const SLOT_BYTES: usize = 8 + 8 + 1 + 8;

#[derive(Debug)]
pub(super) struct Bucket {
    /// Every key that the window has is here, so a key that is not here is new.
    pub(super) complete: bool,
    table: HashTable<u32>,
    keys: Vec<u8>,
    /// Where each key ends; it begins where the one before ends.
    key_ends: Vec<usize>,
    hashes: Vec<u64>,
    flags: Vec<u8>,
    accumulators: Vec<Accumulator>,
    bytes: usize,
    /// Slots that are dirty.
    dirty: usize,
}

impl Bucket {
    pub(super) fn new(aggregates: &[AggregateSpec], complete: bool) -> Self {
        Self {
            complete,
            table: HashTable::new(),
            keys: Vec::new(),
            key_ends: Vec::new(),
            hashes: Vec::new(),
            flags: Vec::new(),
            accumulators: aggregates.iter().map(AggregateSpec::accumulator).collect(),
            bytes: 0,
            dirty: 0,
        }
    }

    /// Cached keys.
    pub(super) fn len(&self) -> usize {
        self.flags.len()
    }

    /// Memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn key(&self, slot: usize) -> &[u8] {
        let begin = slot
            .checked_sub(1)
            .map_or(0, |before| self.key_ends[before]);
        &self.keys[begin..self.key_ends[slot]]
    }

    pub(super) fn group(&self, slot: usize, max_parallelism: u32) -> KeyGroup {
        KeyGroup::of_hash(self.hashes[slot], max_parallelism)
    }

    /// The slots that have changed since they were last stored.
    pub(super) fn dirty(&self) -> impl Iterator<Item = usize> {
        let slots = self.flags.iter().enumerate();
        slots
            .filter(|(_, flags)| *flags & DIRTY != 0)
            .map(|(slot, _)| slot)
    }

    /// Memory of the dirty slots, roughly.
    pub(super) fn dirty_bytes(&self) -> usize {
        self.bytes / self.len().max(1) * self.dirty
    }

    /// The keyed state now holds what the slot holds.
    pub(super) fn set_stored(&mut self, slot: usize) {
        self.flags[slot] &= !DIRTY;
        self.dirty -= 1;
    }

    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let same =
            |slot: &u32| self.hashes[*slot as usize] == hash && self.key(*slot as usize) == key;
        self.table.find(hash, same).copied()
    }

    /// The key's slot, an empty one if the key is not here yet. It counts as touched and as changed.
    pub(super) fn touch(&mut self, hash: u64, key: &[u8]) -> u32 {
        let slot = self.find(hash, key).unwrap_or_else(|| self.push(hash, key));
        let flags = &mut self.flags[slot as usize];
        let touches = (*flags & TOUCHES_MAX).saturating_add(1).min(TOUCHES_MAX);
        self.dirty += usize::from(*flags & DIRTY == 0);
        *flags = DIRTY | touches;
        slot
    }

    /// Adds an empty slot for a key that is not here.
    pub(super) fn push(&mut self, hash: u64, key: &[u8]) -> u32 {
        let slot = self.flags.len() as u32;
        self.keys.extend_from_slice(key);
        self.key_ends.push(self.keys.len());
        self.hashes.push(hash);
        self.flags.push(0);
        let hashes = &self.hashes;
        self.table
            .insert_unique(hash, slot, |slot| hashes[*slot as usize]);
        self.bytes += SLOT_BYTES + key.len();
        for accumulator in &mut self.accumulators {
            accumulator.push_empty();
            self.bytes += accumulator.slot_bytes();
        }
        slot
    }

    /// Aggregates row `rows[i]` into slot `slots[i]`, for all i.
    pub(super) fn update(
        &mut self,
        aggregates: &[AggregateSpec],
        columns: &[Option<ArrayRef>],
        rows: &[u32],
        slots: &[u32],
    ) -> Result<(), Error> {
        let accumulators = self.accumulators.iter_mut();
        for ((accumulator, spec), column) in accumulators.zip(aggregates).zip(columns) {
            self.bytes += accumulator.update(spec, column.as_ref(), rows, slots)?;
        }
        Ok(())
    }

    /// Writes a slot's stored form into `out`, which is cleared.
    pub(super) fn encode(&self, slot: usize, out: &mut Vec<u8>) {
        out.clear();
        out.push(codec::VERSION);
        for accumulator in &self.accumulators {
            accumulator.encode(slot, out);
        }
    }

    /// Fills an empty slot from its stored form. Aggregates that the job has got since are not in it and stay empty. `None`
    /// if it is damaged or of other aggregates.
    pub(super) fn decode(&mut self, slot: usize, stored: &[u8]) -> Option<()> {
        let (&version, mut rest) = stored.split_first()?;
        if version != codec::VERSION {
            return None;
        }
        for accumulator in &mut self.accumulators {
            if rest.is_empty() {
                break;
            }
            accumulator.decode(slot, &mut rest)?;
            self.bytes += accumulator.text_bytes(slot);
        }
        rest.is_empty().then_some(())
    }

    /// The results of a run of slots, a column for each aggregate.
    pub(super) fn results(
        &self,
        aggregates: &[AggregateSpec],
        slots: std::ops::Range<usize>,
    ) -> Result<Vec<ArrayRef>, Error> {
        let accumulators = self.accumulators.iter().zip(aggregates);
        accumulators
            .map(|(accumulator, spec)| accumulator.results(spec, slots.clone()))
            .collect()
    }

    /// Forgets the keys that were touched fewer than `least` times since this was last asked. All must be stored.
    pub(super) fn evict(&mut self, least: u8) {
        let kept: Vec<u32> = (0..self.len() as u32)
            .filter(|slot| self.flags[*slot as usize] & TOUCHES_MAX >= least)
            .collect();
        assert_eq!(self.dirty, 0, "only what is stored is evicted");
        let mut smaller = Self {
            complete: self.complete && kept.len() == self.len(),
            table: HashTable::with_capacity(kept.len()),
            keys: Vec::new(),
            key_ends: Vec::with_capacity(kept.len()),
            hashes: Vec::with_capacity(kept.len()),
            flags: vec![0; kept.len()],
            accumulators: self
                .accumulators
                .iter()
                .map(|all| all.gather(&kept))
                .collect(),
            bytes: 0,
            dirty: 0,
        };
        for (new, &old) in kept.iter().enumerate() {
            let old = old as usize;
            smaller.keys.extend_from_slice(self.key(old));
            smaller.key_ends.push(smaller.keys.len());
            smaller.hashes.push(self.hashes[old]);
            let hashes = &smaller.hashes;
            smaller
                .table
                .insert_unique(self.hashes[old], new as u32, |slot| hashes[*slot as usize]);
            smaller.bytes += SLOT_BYTES + self.key(old).len();
            for accumulator in &smaller.accumulators {
                smaller.bytes += accumulator.slot_bytes() + accumulator.text_bytes(new);
            }
        }
        *self = smaller;
    }
}
