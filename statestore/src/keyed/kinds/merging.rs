//! One accumulator for each key and namespace, to which values are added.

use std::collections::BTreeMap;

use super::StateDescriptor;
use super::cells::Cells;
use crate::error::Error;
use crate::keyed::form::StateKind;
use crate::keyed::{CellKey, KeyedBackend, StateBatch, StateKey};

/// Flink's `ReducingState`: the accumulator is a value like those that are added.
#[derive(Clone, Debug)]
pub struct ReducingState(Cells);

/// Flink's `AggregatingState`: the accumulator is something else.
#[derive(Clone, Debug)]
pub struct AggregatingState(Cells);

impl ReducingState {
    /// Registers the state, or finds what a checkpoint restored. [`Error::OtherForm`] if that is of another kind.
    pub fn open(
        backend: &mut KeyedBackend,
        descriptor: &StateDescriptor<'_>,
    ) -> Result<Self, Error> {
        Cells::open(backend, descriptor, StateKind::Reducing).map(Self)
    }

    /// Adds values to their keys, in their order: `reduce` makes one of what is there and what is added. Each key is read once
    /// and written once, however often it occurs.
    pub fn add_many(
        &self,
        backend: &mut KeyedBackend,
        values: &[(StateKey<'_>, &[u8])],
        mut reduce: impl FnMut(&[u8], &[u8]) -> Vec<u8>,
    ) -> Result<(), Error> {
        merge_many(&self.0, backend, values, |reduced, value| match reduced {
            Some(reduced) => reduce(&reduced, value),
            None => value.to_vec(),
        })
    }

    /// What many keys have been reduced to, in their order.
    pub fn get_many(
        &self,
        backend: &KeyedBackend,
        keys: &[StateKey<'_>],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.0.get_many(backend, keys.iter().map(CellKey::of))
    }

    /// Forgets what was added to a key.
    pub fn clear(&self, batch: &mut StateBatch, key: StateKey<'_>) {
        self.0.delete(batch, CellKey::of(&key));
    }
}

impl AggregatingState {
    /// Registers the state, or finds what a checkpoint restored. [`Error::OtherForm`] if that is of another kind.
    pub fn open(
        backend: &mut KeyedBackend,
        descriptor: &StateDescriptor<'_>,
    ) -> Result<Self, Error> {
        Cells::open(backend, descriptor, StateKind::Aggregating).map(Self)
    }

    /// Adds values to the accumulators of their keys, in their order; a key that has none begins with what `create` gives.
    /// Each key is read once and written once, however often it occurs.
    pub fn add_many(
        &self,
        backend: &mut KeyedBackend,
        values: &[(StateKey<'_>, &[u8])],
        mut create: impl FnMut() -> Vec<u8>,
        mut add: impl FnMut(&mut Vec<u8>, &[u8]),
    ) -> Result<(), Error> {
        merge_many(&self.0, backend, values, |accumulator, value| {
            let mut accumulator = accumulator.unwrap_or_else(&mut create);
            add(&mut accumulator, value);
            accumulator
        })
    }

    /// The accumulators of many keys, in their order.
    pub fn get_many(
        &self,
        backend: &KeyedBackend,
        keys: &[StateKey<'_>],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.0.get_many(backend, keys.iter().map(CellKey::of))
    }

    /// Forgets what was added to a key.
    pub fn clear(&self, batch: &mut StateBatch, key: StateKey<'_>) {
        self.0.delete(batch, CellKey::of(&key));
    }
}

fn merge_many(
    cells: &Cells,
    backend: &mut KeyedBackend,
    values: &[(StateKey<'_>, &[u8])],
    mut merge: impl FnMut(Option<Vec<u8>>, &[u8]) -> Vec<u8>,
) -> Result<(), Error> {
    // In the order of the keyed state, for which each change is then beside the one before.
    let keys = values.iter().map(|(key, _)| (*key, None));
    let mut merged: BTreeMap<StateKey<'_>, Option<Vec<u8>>> = keys.collect();
    let stored = cells.get_many(backend, merged.keys().map(CellKey::of))?;
    for (slot, stored) in merged.values_mut().zip(stored) {
        *slot = stored;
    }
    for (key, value) in values {
        let slot = merged.entry(*key).or_default();
        *slot = Some(merge(slot.take(), value));
    }
    let mut batch = StateBatch::new();
    for (key, value) in &merged {
        if let Some(value) = value {
            cells.put(&mut batch, CellKey::of(key), value);
        }
    }
    backend.write(batch)
}
