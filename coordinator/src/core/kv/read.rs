//! Ranges of a space.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use flott_proto::wire;

use super::{Entry, KvSpace};

/// Bytes of keys and values in one answer, unless a single entry is larger; the caller asks again for the rest.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The end of a range that has none.
const TO_THE_LAST: &[u8] = &[0];

/// From where to where, without the end.
type Bounds = (Bound<Bytes>, Bound<Bytes>);

/// What `keys` means. An end at or before the start means nothing.
fn bounds(keys: &wire::KvKeys) -> Option<Bounds> {
    let start = Bound::Included(keys.start.clone());
    match &keys.end[..] {
        [] => Some((start, Bound::Included(keys.start.clone()))),
        TO_THE_LAST => Some((start, Bound::Unbounded)),
        end if *end > keys.start[..] => Some((start, Bound::Excluded(keys.end.clone()))),
        _ => None,
    }
}

/// Whether `keys` means this one too.
pub fn contains(keys: &wire::KvKeys, key: &[u8]) -> bool {
    match &keys.end[..] {
        [] => key == keys.start,
        TO_THE_LAST => *key >= keys.start[..],
        end => *key >= keys.start[..] && key < end,
    }
}

impl KvSpace {
    /// The entries that `keys` means, in order.
    pub(super) fn select(
        &self,
        keys: &wire::KvKeys,
    ) -> impl Iterator<Item = (&Bytes, &Arc<Entry>)> {
        bounds(keys)
            .into_iter()
            .flat_map(|bounds| self.entries.range(bounds))
    }

    /// Answers a range. Its form has been checked.
    pub fn range(&self, range: &wire::KvRange) -> wire::KvRangeResult {
        let Some(keys) = &range.keys else {
            return wire::KvRangeResult::default();
        };
        if keys.end.is_empty() {
            return self.single(keys, range);
        }
        let limit = match range.limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let mut result = wire::KvRangeResult::default();
        if range.count_only && keys.start.is_empty() && keys.end[..] == *TO_THE_LAST {
            result.count = self.entries.len() as u64;
            return result;
        }
        let mut bytes = 0;
        for (key, entry) in self.select(keys) {
            result.count += 1;
            if range.count_only || result.more {
                continue;
            }
            bytes += key.len()
                + if range.keys_only {
                    0
                } else {
                    entry.value.len()
                };
            let full = bytes > ANSWER_BYTES_MAX && !result.entries.is_empty();
            if full || result.entries.len() == limit {
                result.more = true;
            } else {
                result.entries.push(entry.to_wire(key, !range.keys_only));
            }
        }
        result
    }

    fn single(&self, keys: &wire::KvKeys, range: &wire::KvRange) -> wire::KvRangeResult {
        let found = self.entries.get_key_value(&keys.start);
        let entries = found
            .filter(|_| !range.count_only)
            .map(|(key, entry)| entry.to_wire(key, !range.keys_only));
        wire::KvRangeResult {
            entries: entries.into_iter().collect(),
            more: false,
            count: u64::from(found.is_some()),
        }
    }
}
