//! A map for each key and namespace.

use super::StateDescriptor;
use super::cells::Cells;
use crate::error::Error;
use crate::keyed::form::StateKind;
use crate::keyed::{CellKey, KeyedBackend, StateBatch, StateKey};

/// Flink's `MapState`. Each entry of a map is read and written for itself.
#[derive(Clone, Debug)]
pub struct MapState(Cells);

impl MapState {
    /// Registers the state, or finds what a checkpoint restored. [`Error::OtherForm`] if that is of another kind.
    pub fn open(
        backend: &mut KeyedBackend,
        descriptor: &StateDescriptor<'_>,
    ) -> Result<Self, Error> {
        Cells::open(backend, descriptor, StateKind::Map).map(Self)
    }

    /// What maps have at some of their keys, in the order asked.
    pub fn get_many(
        &self,
        backend: &KeyedBackend,
        keys: &[(StateKey<'_>, &[u8])],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let cells = keys
            .iter()
            .map(|(key, map_key)| CellKey::within(*key, map_key));
        self.0.get_many(backend, cells)
    }

    /// The map of a key: its keys, in the order of their bytes, and what it has there.
    pub fn entries<'b>(
        &'b self,
        backend: &'b KeyedBackend,
        key: StateKey<'_>,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), Error>> + 'b {
        self.0.within(backend, key)
    }

    /// Sets what a map has at one of its keys, whatever it was.
    pub fn put(&self, batch: &mut StateBatch, key: StateKey<'_>, map_key: &[u8], value: &[u8]) {
        self.0.put(batch, CellKey::within(key, map_key), value);
    }

    /// Removes what a map has at one of its keys.
    pub fn remove(&self, batch: &mut StateBatch, key: StateKey<'_>, map_key: &[u8]) {
        self.0.delete(batch, CellKey::within(key, map_key));
    }

    /// Removes all that has been written of a map.
    pub fn clear(
        &self,
        backend: &KeyedBackend,
        batch: &mut StateBatch,
        key: StateKey<'_>,
    ) -> Result<(), Error> {
        self.0.clear_within(backend, batch, key)
    }
}
