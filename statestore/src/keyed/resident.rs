//! All entries of a backend in memory: what `state.backend.type: hashmap` stands for.
//!
//! Reads and changes do not touch the databases. A snapshot takes the changes since the one before it there, beside the
//! task, and is linked like any other; so both kinds of backend save alike, and each restores what the other has saved.

use super::changes::Changes;
use super::codec;
use super::expiry::Expired;
use super::tablets::Tablets;
use crate::error::Error;
use crate::rocks::Batch;

/// Entries that are looked at with each write, however small.
const SWEEP_MIN: usize = 16;

/// The entries, and which of them the databases do not have yet.
#[derive(Debug)]
pub(super) struct Resident {
    pub(super) entries: Changes,
    unsaved: Changes,
    bytes_max: usize,
    /// Up to where the entries were looked through for expired ones.
    swept_to: Vec<u8>,
}

impl Resident {
    /// What is in the tablets, if it takes no more memory than that.
    pub(super) fn load(tablets: &Tablets, bytes_max: usize) -> Result<Option<Self>, Error> {
        let mut resident = Self {
            entries: Changes::default(),
            unsaved: Changes::default(),
            bytes_max,
            swept_to: Vec::new(),
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

    /// Looks through some of the entries for expired ones, and deletes those: twice as many as were `written` and a few,
    /// so that the whole state has been gone through by the time that half of it was written anew.
    pub(super) fn sweep(&mut self, expired: &Expired, written: usize) {
        if expired.is_none() {
            return;
        }
        let mut left = 2 * written + SWEEP_MIN;
        let mut passed = Vec::new();
        let mut last = None;
        for (key, value) in self.entries.from(&self.swept_to) {
            if left == 0 {
                break;
            }
            left -= 1;
            last = Some(key);
            if value.as_ref().is_some_and(|value| expired.has(key, value)) {
                passed.push(key.clone());
            }
        }
        self.swept_to = match last {
            // It goes on there next time, behind this key.
            Some(key) if left == 0 => [key.as_slice(), &[0]].concat(),
            _ => Vec::new(),
        };
        for key in passed {
            self.unsaved.set(&key, None);
            self.entries.remove(&key);
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::expiry::{self, Expiry};
    use super::super::{StateBatch, StateId, StateKey};
    use super::*;
    use flott_proto::key_group::KeyGroup;

    /// Ten of state 1 and ten of state 2, written at 100.
    fn written() -> StateBatch {
        let mut batch = StateBatch::new();
        let mut value = Vec::new();
        expiry::push(&mut value, 100, b"value");
        for number in 0..20u8 {
            let key = StateKey {
                group: KeyGroup(number.into()),
                key: &[number],
                namespace: b"",
            };
            batch.put(StateId(u16::from(number % 2) + 1), key, &value);
        }
        batch
    }

    #[test]
    fn writes_find_what_has_expired_and_the_databases_are_told() {
        let mut resident = Resident {
            entries: Changes::default(),
            unsaved: Changes::default(),
            bytes_max: usize::MAX,
            swept_to: Vec::new(),
        };
        resident.write(&written().changes);
        let all = resident.entries.size_bytes();
        assert_eq!(resident.take_unsaved().len(), 20);
        let expiry = Expiry::default();
        expiry.set_ttl(StateId(1), Duration::from_millis(10));
        for (now_ms, deleted) in [(109, 0), (110, 10), (111, 0)] {
            expiry.advance(now_ms);
            // Each sweep looks at sixteen of the twenty, and then at the rest.
            resident.sweep(&expiry.so_far(), 0);
            resident.sweep(&expiry.so_far(), 0);
            assert_eq!(resident.take_unsaved().len(), deleted, "at {now_ms}");
        }
        assert_eq!(resident.entries.size_bytes(), all / 2);
    }
}
