//! A list for each key and namespace.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::StateDescriptor;
use super::cells::Cells;
use crate::error::Error;
use crate::keyed::form::StateKind;
use crate::keyed::{CellKey, KeyedBackend, StateBatch, StateKey};

/// Flink's `ListState`. Elements keep the order in which they were added.
#[derive(Clone, Debug)]
pub struct ListState {
    cells: Cells,
    /// How many numbers the backend has given to elements.
    numbers: Arc<AtomicU64>,
}

impl ListState {
    /// Registers the state, or finds what a checkpoint restored. [`Error::OtherForm`] if that is of another kind.
    pub fn open(
        backend: &mut KeyedBackend,
        descriptor: &StateDescriptor<'_>,
    ) -> Result<Self, Error> {
        Ok(Self {
            cells: Cells::open(backend, descriptor, StateKind::List)?,
            numbers: Arc::clone(backend.numbers()),
        })
    }

    /// The elements of a key's list, in their order.
    pub fn elements<'b>(
        &'b self,
        backend: &'b KeyedBackend,
        key: StateKey<'_>,
    ) -> impl Iterator<Item = Result<Vec<u8>, Error>> + 'b {
        let cells = self.cells.within(backend, key);
        cells.map(|cell| cell.map(|(_, element)| element))
    }

    /// Adds an element at a list's end. Reads nothing.
    pub fn add(&self, batch: &mut StateBatch, key: StateKey<'_>, element: &[u8]) {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        self.cells
            .put(batch, CellKey::within(key, &number), element);
    }

    /// Makes a list of these elements, instead of what has been written of it.
    pub fn update<'e>(
        &self,
        backend: &KeyedBackend,
        batch: &mut StateBatch,
        key: StateKey<'_>,
        elements: impl IntoIterator<Item = &'e [u8]>,
    ) -> Result<(), Error> {
        self.clear(backend, batch, key)?;
        for element in elements {
            self.add(batch, key, element);
        }
        Ok(())
    }

    /// Removes all that has been written of a list.
    pub fn clear(
        &self,
        backend: &KeyedBackend,
        batch: &mut StateBatch,
        key: StateKey<'_>,
    ) -> Result<(), Error> {
        self.cells.clear_within(backend, batch, key)
    }
}
