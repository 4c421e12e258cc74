//! Changes that are held back while a snapshot's files are being linked.
//!
//! A snapshot seals the databases' memtables and no more. Until they are flushed and linked, nothing may be written to the
//! databases, or it would be in the snapshot; so changes wait here, where reads find them first. In memory, ordered like
//! the databases. The task stands still only if it changes more meanwhile than may wait.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::sync::Arc;

use crate::error::Error;
use crate::rocks::{Batch, Cursor, Entry};
use crate::snapshot::Linking;

/// What an entry takes beside its key and its value, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// A stored key's new value; `None`: it is deleted.
type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// The changes since a snapshot was taken, and what they wait for.
#[derive(Debug)]
pub(super) struct HeldBack {
    linking: Arc<Linking>,
    changes: Changes,
    bytes: usize,
}

impl HeldBack {
    /// Until `linking` is over.
    pub(super) fn until(linking: Arc<Linking>) -> Self {
        Self {
            linking,
            changes: Changes::new(),
            bytes: 0,
        }
    }

    /// Whether there is nothing to wait for any more.
    pub(super) fn is_over(&self) -> bool {
        self.linking.is_over()
    }

    /// Sees to it that there is nothing to wait for, and gives back what was held.
    pub(super) fn release(self) -> Batch {
        self.linking.run();
        let mut batch = Batch::default();
        for (key, value) in &self.changes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        batch
    }

    /// Bytes that are held.
    pub(super) fn size_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, batch: &Batch) {
        batch.for_each(|key, value| {
            let held = key.len() + value.map_or(0, <[u8]>::len) + ENTRY_OVERHEAD_BYTES;
            match self.changes.get_mut(key) {
                Some(slot) => {
                    let before = slot.as_ref().map_or(0, Vec::len);
                    self.bytes = self.bytes + value.map_or(0, <[u8]>::len) - before;
                    *slot = value.map(<[u8]>::to_vec);
                }
                None => {
                    self.bytes += held;
                    self.changes.insert(key.to_vec(), value.map(<[u8]>::to_vec));
                }
            }
        });
    }

    /// What a stored key was changed to, if it was.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.changes.get(key)
    }

    fn range(&self, from: Vec<u8>, to: Vec<u8>) -> btree_map::Range<'_, Vec<u8>, Option<Vec<u8>>> {
        self.changes.range(from..to)
    }
}

/// A walk over a range of stored keys, in order: what is held back goes before what a database has.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    stored: Cursor<'a>,
    changed: Option<Peekable<btree_map::Range<'a, Vec<u8>, Option<Vec<u8>>>>>,
}

impl<'a> Walk<'a> {
    /// Over the keys in `from..to`, which is the range of `stored`, too.
    pub(super) fn new(
        stored: Cursor<'a>,
        held_back: Option<&'a HeldBack>,
        (from, to): (Vec<u8>, Vec<u8>),
    ) -> Self {
        let changed = held_back.filter(|_| from < to);
        Self {
            stored,
            changed: changed.map(|held| held.range(from, to).peekable()),
        }
    }

    /// The next key and value; `None` at the end of the range, and from then on.
    pub(super) fn next(&mut self) -> Result<Option<Entry<'_>>, Error> {
        let Some(changed) = &mut self.changed else {
            return self.stored.next();
        };
        loop {
            let stored = self.stored.peek()?.map(|(key, _)| key);
            let first = match (changed.peek(), stored) {
                (None, _) => return self.stored.next(),
                (Some(_), None) => true,
                (Some((key, _)), Some(stored)) if key.as_slice() == stored => {
                    self.stored.next()?;
                    true
                }
                (Some((key, _)), Some(stored)) => key.as_slice() < stored,
            };
            if !first {
                return self.stored.next();
            }
            if let Some((key, Some(value))) = changed.next() {
                return Ok(Some((key, value)));
            }
        }
    }
}
