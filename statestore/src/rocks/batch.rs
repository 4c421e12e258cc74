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

    /// Each key with its new value, or without one if it is deleted, in the order of the changes.
    pub(crate) fn for_each(&self, each: impl FnMut(&[u8], Option<&[u8]>)) {
        self.0.iterate(&mut ForEach(each));
    }

    /// The same changes in the same order as `count` batches: `of` says which one, below `count`, a key belongs to.
    pub(crate) fn split(&self, count: usize, of: impl Fn(&[u8]) -> usize) -> Vec<Self> {
        let mut batches: Vec<Self> = (0..count).map(|_| Self::default()).collect();
        self.for_each(|key, value| match value {
            Some(value) => batches[of(key)].put(key, value),
            None => batches[of(key)].delete(key),
        });
        batches
    }
}

struct ForEach<F>(F);

impl<F: FnMut(&[u8], Option<&[u8]>)> WriteBatchIterator for ForEach<F> {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        (self.0)(key, Some(value));
    }

    fn delete(&mut self, key: &[u8]) {
        (self.0)(key, None);
    }
}
