//! Stored keys with their newest values, in memory and in the databases' order.

use std::collections::{BTreeMap, btree_map};

use crate::rocks::Batch;

/// What an entry takes beside its key and its value, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// What became of some stored keys; a key without a value is deleted.
#[derive(Debug, Default)]
pub(super) struct Changes {
    by_key: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
}

/// Part of them, in order.
pub(super) type Range<'a> = btree_map::Range<'a, Vec<u8>, Option<Vec<u8>>>;

impl Changes {
    /// Notes a key's new value, or that it is deleted.
    pub(super) fn set(&mut self, key: &[u8], value: Option<&[u8]>) {
        let size = |value: Option<&[u8]>| value.map_or(0, <[u8]>::len);
        match self.by_key.get_mut(key) {
            Some(slot) => {
                self.bytes = self.bytes + size(value) - size(slot.as_deref());
                *slot = value.map(<[u8]>::to_vec);
            }
            None => {
                self.bytes += ENTRY_OVERHEAD_BYTES + key.len() + size(value);
                let value = value.map(<[u8]>::to_vec);
                self.by_key.insert(key.to_vec(), value);
            }
        }
    }

    /// Forgets a key.
    pub(super) fn remove(&mut self, key: &[u8]) {
        if let Some(value) = self.by_key.remove(key) {
            self.bytes -= ENTRY_OVERHEAD_BYTES + key.len() + value.map_or(0, |value| value.len());
        }
    }

    /// What became of a key, if that was noted.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.by_key.get(key)
    }

    /// The keys in `from..to`; none if that is upside down.
    pub(super) fn range(&self, from: Vec<u8>, to: Vec<u8>) -> Range<'_> {
        let to = to.max(from.clone());
        self.by_key.range(from..to)
    }

    /// The keys from this one on.
    pub(super) fn from(&self, key: &[u8]) -> Range<'_> {
        self.by_key.range(key.to_vec()..)
    }

    /// Memory that they take, in bytes, roughly.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn to_batch(&self) -> Batch {
        let mut batch = Batch::default();
        for (key, value) in &self.by_key {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch
    }
}
