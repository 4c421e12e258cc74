//! Changes to keyed state that happen together.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use flott_proto::key_group::KeyGroup;

use super::{CellKey, StateId, StateKey, Timer, codec, expiry};
use crate::rocks;

/// Changes that are written together or not at all, in the order in which they were given. Collect all changes of a
/// batch of records in one: [`super::KeyedBackend::write`] costs little per change and more per call.
#[derive(Debug, Default)]
pub struct StateBatch {
    pub(super) changes: rocks::Batch,
    /// The lowest and highest group touched.
    pub(super) groups: Option<(KeyGroup, KeyGroup)>,
    pub(super) timers: BTreeMap<(StateId, KeyGroup), TimerChanges>,
    scratch: Vec<u8>,
}

/// The earliest times that a batch puts and deletes in one group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TimerChanges {
    pub(super) put: Option<i64>,
    pub(super) deleted: Option<i64>,
}

impl StateBatch {
    /// No changes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value, whatever it was.
    pub fn put(&mut self, state: StateId, key: StateKey<'_>, value: &[u8]) {
        self.put_cell(state, CellKey::of(&key), None, value);
    }

    /// The same, with the time of the write before it if it expires.
    pub(super) fn put_cell(
        &mut self,
        state: StateId,
        cell: CellKey<'_>,
        written_ms: Option<i64>,
        value: &[u8],
    ) {
        self.cell(state, cell);
        let Some(written_ms) = written_ms else {
            return self.changes.put(&self.scratch, value);
        };
        let key_bytes = self.scratch.len();
        expiry::push(&mut self.scratch, written_ms, value);
        let (key, value) = self.scratch.split_at(key_bytes);
        self.changes.put(key, value);
    }

    /// Removes a value; one that is not there is removed already.
    pub fn delete(&mut self, state: StateId, key: StateKey<'_>) {
        self.delete_cell(state, CellKey::of(&key));
    }

    pub(super) fn delete_cell(&mut self, state: StateId, cell: CellKey<'_>) {
        self.cell(state, cell);
        self.changes.delete(&self.scratch);
    }

    fn cell(&mut self, state: StateId, cell: CellKey<'_>) {
        self.touch(cell.key.group);
        self.scratch.clear();
        codec::push_cell(&mut self.scratch, state, cell);
    }

    /// Sets a timer. The same timer twice is one timer.
    pub fn put_timer(&mut self, state: StateId, timer: impl Borrow<Timer>) {
        let timer = timer.borrow();
        let changes = self.timer(state, timer);
        changes.put = Some(
            changes
                .put
                .map_or(timer.time_ms, |time| time.min(timer.time_ms)),
        );
        self.changes.put(&self.scratch, &[]);
    }

    /// Removes a timer; one that is not there is removed already.
    pub fn delete_timer(&mut self, state: StateId, timer: impl Borrow<Timer>) {
        let timer = timer.borrow();
        let changes = self.timer(state, timer);
        changes.deleted = Some(
            changes
                .deleted
                .map_or(timer.time_ms, |time| time.min(timer.time_ms)),
        );
        self.changes.delete(&self.scratch);
    }

    fn timer(&mut self, state: StateId, timer: &Timer) -> &mut TimerChanges {
        self.touch(timer.group);
        self.scratch.clear();
        codec::push_timer(&mut self.scratch, state, timer);
        self.timers.entry((state, timer.group)).or_default()
    }

    fn touch(&mut self, group: KeyGroup) {
        let (low, high) = self.groups.unwrap_or((group, group));
        self.groups = Some((low.min(group), high.max(group)));
    }

    /// Changes so far.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes so far: a reason to write before the batch of records is done.
    pub fn size_bytes(&self) -> usize {
        self.changes.size_bytes()
    }
}
