//! The entries of one state, with the time of their last write if they expire.

use std::sync::Arc;

use super::StateDescriptor;
use crate::error::Error;
use crate::keyed::expiry::{self, Expiry};
use crate::keyed::form::{Form, StateKind};
use crate::keyed::{CellKey, KeyedBackend, StateBatch, StateId, StateKey};

#[derive(Clone, Debug)]
pub(super) struct Cells {
    id: StateId,
    ttl: Option<Ttl>,
}

#[derive(Clone, Debug)]
struct Ttl {
    expiry: Arc<Expiry>,
    ms: i64,
}

impl Ttl {
    fn is_over(&self, written_ms: i64) -> bool {
        expiry::is_over(written_ms, self.ms, self.expiry.now_ms())
    }
}

impl Cells {
    pub(super) fn open(
        backend: &mut KeyedBackend,
        descriptor: &StateDescriptor<'_>,
        kind: StateKind,
    ) -> Result<Self, Error> {
        let StateDescriptor {
            operator_uid,
            name,
            ttl,
        } = *descriptor;
        let has_ttl = ttl.is_some();
        let id = backend.register(operator_uid, name, Form { kind, has_ttl })?;
        let ttl = ttl.map(|ttl| {
            assert!(
                !ttl.is_zero(),
                "state {name} of {operator_uid} would expire at once"
            );
            let expiry = Arc::clone(backend.expiry());
            let ms = expiry.set_ttl(id, ttl);
            Ttl { expiry, ms }
        });
        Ok(Self { id, ttl })
    }

    pub(super) fn put(&self, batch: &mut StateBatch, cell: CellKey<'_>, value: &[u8]) {
        let written_ms = self.ttl.as_ref().map(|ttl| ttl.expiry.now_ms());
        batch.put_cell(self.id, cell, written_ms, value);
    }

    pub(super) fn delete(&self, batch: &mut StateBatch, cell: CellKey<'_>) {
        batch.delete_cell(self.id, cell);
    }

    /// The values of many cells, in their order.
    pub(super) fn get_many<'k>(
        &self,
        backend: &KeyedBackend,
        cells: impl ExactSizeIterator<Item = CellKey<'k>>,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut values = backend.get_cells(self.id, cells)?;
        for value in &mut values {
            if let Some(stored) = value.take() {
                *value = self.alive(backend, stored)?;
            }
        }
        Ok(values)
    }

    /// The cells within a key and namespace, in their order: what distinguishes them, and their values.
    pub(super) fn within<'b>(
        &'b self,
        backend: &'b KeyedBackend,
        key: StateKey<'_>,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), Error>> + 'b {
        let all = backend.scan_within(self.id, key);
        all.filter_map(move |entry| {
            let alive = |(_, namespace, stored): (Vec<u8>, Vec<u8>, Vec<u8>)| {
                let within = backend.split_within(&namespace)?.to_vec();
                let value = self.alive(backend, stored)?;
                Ok(value.map(|value| (within, value)))
            };
            entry.and_then(alive).transpose()
        })
    }

    /// Deletes the cells within a key and namespace that have been written.
    pub(super) fn clear_within(
        &self,
        backend: &KeyedBackend,
        batch: &mut StateBatch,
        key: StateKey<'_>,
    ) -> Result<(), Error> {
        for entry in backend.scan_within(self.id, key) {
            let (_, namespace, _) = entry?;
            let within = backend.split_within(&namespace)?;
            self.delete(batch, CellKey::within(key, within));
        }
        Ok(())
    }

    /// The value in what is stored, unless it has expired.
    fn alive(&self, backend: &KeyedBackend, mut stored: Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
        let Some(ttl) = &self.ttl else {
            return Ok(Some(stored));
        };
        let (written_ms, value) = expiry::split(&stored).ok_or_else(|| backend.untimed())?;
        if ttl.is_over(written_ms) {
            return Ok(None);
        }
        let at = stored.len() - value.len();
        stored.drain(..at);
        Ok(Some(stored))
    }
}
