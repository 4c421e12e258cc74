//! Changes to one database, and how those to several are told apart.

use std::fmt;

use rocksdb::{WriteBatch, WriteBatchIterator};

/// Changes that happen together.
#[derive(Default)]
pub(crate) struct Batch(pub(super) WriteBatch);

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

    /// The same changes in the same order as `count` batches: `of` says which one, below `count`, a key belongs to.
    pub(crate) fn split(&self, count: usize, of: impl Fn(&[u8]) -> usize) -> Vec<Self> {
        let mut parts = Parts {
            batches: (0..count).map(|_| Self::default()).collect(),
            of,
        };
        self.0.iterate(&mut parts);
        parts.batches
    }
}

struct Parts<F> {
    batches: Vec<Batch>,
    of: F,
}

impl<F: Fn(&[u8]) -> usize> WriteBatchIterator for Parts<F> {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        let batch = (self.of)(key);
        self.batches[batch].put(key, value);
    }

    fn delete(&mut self, key: &[u8]) {
        let batch = (self.of)(key);
        self.batches[batch].delete(key);
    }
}
