//! The keyed state behind the cache: values and timers of windows, read and written in batches.
//!
//! All keys of a window lie together within their key group: the state's key is the window, its namespace the row's key.
//! So one timer is enough for a window of a key group, and the window is read from one end to the other when it fires.

use std::collections::BTreeSet;
use std::ops::Range;

use flott_proto::ids::CheckpointId;
use flott_proto::key_group::KeyGroup;
use flott_proto::wire::WindowAggregateState;
use flott_statestore::{KeyedBackend, LocalSnapshot, StateBatch, StateId, StateKey, Timer};
use xxhash_rust::xxh3::xxh3_64;

use super::bucket::Bucket;
use super::codec::window_key;
use crate::Error;
use crate::operators::OperatorContext;

/// The name under which an operator's windows are registered. Stable for ever.
const STATE_NAME: &str = "windows";

/// Changes are written when they have grown to this size, so that a flush does not need as much memory again.
const WRITE_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct WindowStore {
    backend: KeyedBackend,
    state: StateId,
    max_parallelism: u32,
    changes: StateBatch,
    value: Vec<u8>,
    /// Windows whose end is outside have nothing stored.
    bounds: Option<(i64, i64)>,
    /// Ends of windows and key groups of which it is certain that they have a timer.
    timed: BTreeSet<(i64, KeyGroup)>,
    /// While a window fires: the last key that was taken, if its key group is not done.
    taken: Option<Vec<u8>>,
    place: String,
}

impl WindowStore {
    pub(super) fn open(
        mut backend: KeyedBackend,
        ctx: &OperatorContext<'_>,
        states: &[WindowAggregateState],
        place: &str,
    ) -> Result<Self, Error> {
        let mut bounds: Option<(i64, i64)> = None;
        for state in states {
            let (first, last) = (state.first_stored_end_ms, state.last_stored_end_ms);
            if first <= last {
                bounds = Some(bounds.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
            }
        }
        Ok(Self {
            state: backend.state(ctx.uid, STATE_NAME)?,
            backend,
            max_parallelism: ctx.chain.max_parallelism,
            changes: StateBatch::new(),
            value: Vec::new(),
            bounds,
            timed: BTreeSet::new(),
            taken: None,
            place: place.to_owned(),
        })
    }

    pub(super) fn backend(&mut self) -> &mut KeyedBackend {
        &mut self.backend
    }

    pub(super) fn max_parallelism(&self) -> u32 {
        self.max_parallelism
    }

    /// First and last end of stored windows; the first above the last if there are none.
    pub(super) fn bounds(&self) -> (i64, i64) {
        self.bounds.unwrap_or((1, 0))
    }

    /// Whether keys of the window that ends then may be stored.
    pub(super) fn may_hold(&self, end: i64) -> bool {
        self.bounds
            .is_some_and(|(first, last)| (first..=last).contains(&end))
    }

    /// The earliest end of a stored window.
    pub(super) fn earliest_end(&self) -> Option<i64> {
        self.backend.earliest_timer(self.state).map(|time| time + 1)
    }

    /// The window that ends then has fired, and so have all before it.
    pub(super) fn fired(&mut self, end: i64) {
        self.bounds = self
            .bounds
            .map(|(first, last)| (first.max(end.saturating_add(1)), last))
            .filter(|(first, last)| first <= last);
        self.timed = self.timed.split_off(&(end.saturating_add(1), KeyGroup(0)));
    }

    /// Fills those of the new slots whose keys are stored.
    pub(super) fn load(
        &mut self,
        end: i64,
        bucket: &mut Bucket,
        slots: Range<usize>,
    ) -> Result<(), Error> {
        let window = window_key(end);
        let keys: Vec<StateKey<'_>> = slots
            .clone()
            .map(|slot| StateKey {
                group: bucket.group(slot, self.max_parallelism),
                key: &window,
                namespace: bucket.key(slot),
            })
            .collect();
        let values = self.backend.get_many(self.state, &keys)?;
        for (slot, value) in slots.zip(values) {
            if let Some(value) = value {
                bucket.decode(slot, &value).ok_or_else(|| self.damaged())?;
            }
        }
        Ok(())
    }

    /// Notes the dirty slots of a bucket to be written; [`Self::flush`] completes it.
    pub(super) fn save(&mut self, end: i64, bucket: &mut Bucket) -> Result<(), Error> {
        let window = window_key(end);
        let max_parallelism = self.max_parallelism;
        // In the order of the keyed state, for which each change is then beside the one before.
        let mut dirty: Vec<(KeyGroup, usize)> = bucket
            .dirty()
            .map(|slot| (bucket.group(slot, max_parallelism), slot))
            .collect();
        dirty.sort_unstable_by(|a, b| {
            let by_key = || bucket.key(a.1).cmp(bucket.key(b.1));
            a.0.cmp(&b.0).then_with(by_key)
        });
        for (group, slot) in dirty {
            bucket.encode(slot, &mut self.value);
            let key = StateKey {
                group,
                key: &window,
                namespace: bucket.key(slot),
            };
            self.changes.put(self.state, key, &self.value);
            if self.timed.insert((end, group)) {
                self.changes.put_timer(self.state, timer(end, group));
            }
            bucket.set_stored(slot);
            if self.changes.size_bytes() >= WRITE_BYTES {
                self.flush()?;
            }
        }
        if bucket.len() > 0 {
            let (first, last) = self.bounds.unwrap_or((end, end));
            self.bounds = Some((first.min(end), last.max(end)));
        }
        Ok(())
    }

    /// Writes what was noted.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        if !self.changes.is_empty() {
            self.backend.write(std::mem::take(&mut self.changes))?;
        }
        Ok(())
    }

    /// Deletes up to `limit` stored keys of the window that ends then. Those that are not in `cached` are given back in
    /// `into`; the cached ones have their newer values there. Says whether there may be more.
    pub(super) fn take_due(
        &mut self,
        end: i64,
        cached: Option<&Bucket>,
        mut into: Bucket,
        limit: usize,
    ) -> Result<(Bucket, bool), Error> {
        let window = window_key(end);
        let mut left = limit;
        while left > 0 {
            let due = self.backend.due_timers(self.state, end - 1, 1)?;
            let Some(timer) = due.into_iter().next() else {
                return Ok((into, false));
            };
            if timer.time_ms != end - 1 || !timer.key.is_empty() {
                return Err(self.damaged());
            }
            let (group, after) = (timer.group, self.taken.take());
            let entries = self
                .backend
                .scan_key_after(self.state, group, &window, after.as_deref());
            for entry in entries.take(left) {
                let (_, key, value) = entry?;
                let hash = xxh3_64(&key);
                if cached.is_none_or(|cached| cached.find(hash, &key).is_none()) {
                    let slot = into.push(hash, &key) as usize;
                    into.decode(slot, &value).ok_or_else(|| self.damaged())?;
                }
                let stored = StateKey {
                    group,
                    key: &window,
                    namespace: &key,
                };
                self.changes.delete(self.state, stored);
                left -= 1;
                self.taken = Some(key);
            }
            if left > 0 {
                self.changes.delete_timer(self.state, timer);
                self.taken = None;
            }
            self.flush()?;
        }
        Ok((into, true))
    }

    /// The keyed state as it is now; the cache must have been flushed.
    pub(super) fn snapshot(&mut self, checkpoint: CheckpointId) -> Result<LocalSnapshot, Error> {
        assert!(self.changes.is_empty(), "flushed before the snapshot");
        Ok(self.backend.snapshot(checkpoint)?)
    }

    fn damaged(&self) -> Error {
        Error::user(
            &self.place,
            "the keyed state does not hold these aggregates; if they were changed, give the operator a new uid, \
             otherwise the checkpoint is damaged",
        )
    }
}

fn timer(end: i64, group: KeyGroup) -> Timer {
    Timer {
        time_ms: end - 1,
        group,
        key: Vec::new(),
        namespace: Vec::new(),
    }
}
