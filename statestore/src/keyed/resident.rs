//! All entries of a backend in memory: what `state.backend.type: hashmap` stands for.
//!
//! Reads and changes do not touch the databases. A snapshot takes the changes since the one before it there, beside the
//! task, and is linked like any other; so both kinds of backend save alike, and each restores what the other has saved.

use super::changes::Changes;
use super::codec;
use super::tablets::Tablets;
use crate::error::Error;
use crate::rocks::Batch;

/// The entries, and which of them the databases do not have yet.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) entries: Changes,
    unsaved: Changes,
    bytes_max: usize,
}

impl Resident {
    /// What is in the tablets, if it takes no more memory than that.
    pub(super) fn load(tablets: &Tablets, bytes_max: usize) -> Result<Option<Self>, Error> {
        let mut resident = Self {
            entries: Changes::default(),
            unsaved: Changes::default(),
            bytes_max,
        };
        for tablet in tablets.all() {
            let from = codec::group_start(tablet.range.first);
            let to = codec::group_start(tablet.range.last + 1);
            let mut entries = tablet.database.range(from, to);
            while let Some((key, value)) = entries.next()? {
                resident.entries.set(key, Some(value));
                if resident.is_too_large() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(resident))
    }

    pub(super) fn write(&mut self, batch: &Batch) {
        batch.for_each(|key, value| {
            self.unsaved.set(key, value);
            match value {
                Some(_) => self.entries.set(key, value),
                None => self.entries.remove(key),
            }
        });
    }

    /// Whether it has outgrown its memory.
    pub(super) fn is_too_large(&self) -> bool {
        self.entries.size_bytes() + self.unsaved.size_bytes() > self.bytes_max
    }

    /// What is to be written to the databases, so that they have everything.
    pub(super) fn take_unsaved(&mut self) -> Batch {
        std::mem::take(&mut self.unsaved).to_batch()
    }
}
