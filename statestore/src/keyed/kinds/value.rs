//! One value for each key and namespace.

use super::StateDescriptor;
use super::cells::Cells;
use crate::error::Error;
use crate::keyed::form::StateKind;
use crate::keyed::{CellKey, KeyedBackend, StateBatch, StateKey};

/// Flink's `ValueState`.
#[derive(Clone, Debug)]
pub struct ValueState(Cells);

impl ValueState {
    /// Registers the state, or finds what a checkpoint restored. [`Error::OtherForm`] if that is of another kind.
    pub fn open(
        backend: &mut KeyedBackend,
        descriptor: &StateDescriptor<'_>,
    ) -> Result<Self, Error> {
        Cells::open(backend, descriptor, StateKind::Value).map(Self)
    }

    /// The values of many keys, in their order.
    pub fn get_many(
        &self,
        backend: &KeyedBackend,
        keys: &[StateKey<'_>],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.0.get_many(backend, keys.iter().map(CellKey::of))
    }

    /// Sets a key's value, whatever it was.
    pub fn put(&self, batch: &mut StateBatch, key: StateKey<'_>, value: &[u8]) {
        self.0.put(batch, CellKey::of(&key), value);
    }

    /// Removes a key's value.
    pub fn clear(&self, batch: &mut StateBatch, key: StateKey<'_>) {
        self.0.delete(batch, CellKey::of(&key));
    }
}
