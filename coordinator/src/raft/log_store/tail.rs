//! The end of the log in memory: every entry that is not on disk yet, and recent ones that are.
//!
//! Plain data; the log store locks it. The entries are contiguous and reach to the end of the log, so that whatever
//! is not here is on disk:
//!
//! ```text
//!   purged │ on disk only │ on disk and here │ here only │ end
//!                         ▲ entries[0]       ▲ persisted
//! ```

use std::collections::VecDeque;
use std::ops::Range;

use super::super::types::{Ballot, Entry, LogId};

#[derive(Debug, Default)]
pub(super) struct Tail {
    entries: VecDeque<(Entry, usize)>,
    /// Of the encoded `entries`.
    bytes: usize,
    /// `bytes` may exceed it only by entries that are not on disk.
    bytes_max: usize,
    /// Index of the first entry that the log contains, if it contains any.
    first: u64,
    /// Index after the last entry that is on disk.
    persisted: u64,
    /// How often the log was cut. An acknowledgement from before a cut says nothing about what was written after it.
    truncations: u64,
    purged: Option<LogId>,
    last: Option<LogId>,
    vote: Option<Ballot>,
    committed: Option<LogId>,
}

/// Where the entries of a range are.
#[derive(Debug)]
pub(super) struct Wanted {
    /// All of them are there.
    pub(super) disk: Range<u64>,
    pub(super) memory: Vec<(Entry, usize)>,
}

/// The entries up to the first that makes them exceed `bytes_max`: at least one, if there is one.
pub(super) fn limit(entries: Vec<(Entry, usize)>, bytes_max: usize) -> Vec<Entry> {
    let mut bytes = 0;
    let fits = |(_, size): &(Entry, usize)| {
        let more = bytes <= bytes_max;
        bytes = bytes.saturating_add(*size);
        more
    };
    entries
        .into_iter()
        .take_while(fits)
        .map(|(entry, _)| entry)
        .collect()
}

impl Tail {
    pub(super) fn new(bytes_max: usize, purged: Option<LogId>) -> Self {
        let first = purged.map_or(0, |id| id.index + 1);
        Self {
            bytes_max,
            purged,
            last: purged,
            first,
            persisted: first,
            ..Self::default()
        }
    }

    pub(super) fn vote(&self) -> Option<Ballot> {
        self.vote
    }

    pub(super) fn set_vote(&mut self, vote: Ballot) {
        self.vote = Some(vote);
    }

    pub(super) fn committed(&self) -> Option<LogId> {
        self.committed
    }

    pub(super) fn set_committed(&mut self, committed: LogId) {
        self.committed = Some(committed);
    }

    pub(super) fn purged(&self) -> Option<LogId> {
        self.purged
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.last
    }

    pub(super) fn truncations(&self) -> u64 {
        self.truncations
    }

    /// Adds the next entry, of `size` encoded bytes, which is not on disk yet.
    pub(super) fn append(&mut self, entry: Entry, size: usize) {
        let index = entry.log_id.index;
        match self.last {
            Some(last) => assert_eq!(index, last.index + 1, "the raft log must not have holes"),
            None => (self.first, self.persisted) = (index, index),
        }
        self.last = Some(entry.log_id);
        self.bytes += size;
        self.entries.push_back((entry, size));
    }

    /// The entries before `next` are on disk, as written when the log had been cut `truncations` times.
    pub(super) fn on_persisted(&mut self, next: u64, truncations: u64) {
        if truncations == self.truncations {
            self.persisted = self.persisted.max(next);
            self.evict();
        }
    }

    fn evict(&mut self) {
        while self.bytes > self.bytes_max
            && self
                .entries
                .front()
                .is_some_and(|(entry, _)| entry.log_id.index < self.persisted)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        if let Some((_, size)) = self.entries.pop_front() {
            self.bytes -= size;
        }
    }

    /// Forgets the entries after `last`, or all.
    pub(super) fn truncate_after(&mut self, last: Option<LogId>) {
        let next = last.map_or(0, |id| id.index + 1);
        if self.last.is_none_or(|end| end.index < next) {
            return;
        }
        while self
            .entries
            .back()
            .is_some_and(|(entry, _)| entry.log_id.index >= next)
        {
            if let Some((_, size)) = self.entries.pop_back() {
                self.bytes -= size;
            }
        }
        self.truncations += 1;
        self.persisted = self.persisted.min(next);
        self.last = last.max(self.purged);
    }

    /// Forgets the entries up to `upto`.
    pub(super) fn purge(&mut self, upto: LogId) {
        self.first = self.first.max(upto.index + 1);
        while self
            .entries
            .front()
            .is_some_and(|(entry, _)| entry.log_id.index <= upto.index)
        {
            self.pop_front();
        }
        self.purged = self.purged.max(Some(upto));
        self.persisted = self.persisted.max(upto.index + 1);
        // A snapshot may reach beyond the log; the log then begins again after it.
        if self.last.is_none_or(|last| last.index < upto.index) {
            self.last = Some(upto);
        }
    }

    /// Where the entries of `start..end` are, as far as the log contains them.
    pub(super) fn plan(&self, start: u64, end: u64) -> Wanted {
        let next = self.last.map_or(0, |id| id.index + 1);
        let (start, end) = (start.max(self.first), end.min(next));
        let memory_first = self
            .entries
            .front()
            .map_or(next, |(entry, _)| entry.log_id.index);
        let disk = start..end.min(memory_first);
        let skip = start.saturating_sub(memory_first) as usize;
        let take = end.saturating_sub(start.max(memory_first)) as usize;
        let memory = self.entries.iter().skip(skip).take(take).cloned().collect();
        Wanted { disk, memory }
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::*;

    fn entry(term: u64, index: u64) -> Entry {
        Entry {
            log_id: LogId::new_term_index(term, index),
            payload: EntryPayload::Blank,
        }
    }

    fn tail_of(range: Range<u64>, bytes_max: usize) -> Tail {
        let mut tail = Tail::new(bytes_max, None);
        for index in range {
            tail.append(entry(1, index), 10);
        }
        tail
    }

    fn indexes(wanted: &Wanted) -> Vec<u64> {
        wanted
            .memory
            .iter()
            .map(|(entry, _)| entry.log_id.index)
            .collect()
    }

    #[test]
    fn entries_leave_memory_only_once_they_are_on_disk() {
        let mut tail = tail_of(0..10, 30);
        assert_eq!(indexes(&tail.plan(0, 10)), (0..10).collect::<Vec<_>>());
        tail.on_persisted(5, 0);
        let wanted = tail.plan(0, 10);
        assert_eq!(
            (wanted.disk.clone(), indexes(&wanted)),
            (0..5, (5..10).collect())
        );
        tail.on_persisted(10, 0);
        let wanted = tail.plan(0, 100);
        assert_eq!(
            (wanted.disk.clone(), indexes(&wanted)),
            (0..7, vec![7, 8, 9])
        );
    }

    #[test]
    fn an_acknowledgement_from_before_a_truncation_does_not_count() {
        let mut tail = tail_of(0..4, 0);
        tail.truncate_after(Some(LogId::new_term_index(1, 1)));
        tail.append(entry(2, 2), 10);
        tail.on_persisted(4, 0);
        assert_eq!(
            indexes(&tail.plan(2, 3)),
            [2],
            "entry 2 of term 2 is not on disk yet"
        );
        tail.on_persisted(3, 1);
        assert_eq!(tail.plan(2, 3).disk, 2..3);
    }

    #[test]
    fn a_purge_beyond_the_end_starts_the_log_again_after_it() {
        let mut tail = tail_of(0..4, 1000);
        tail.purge(LogId::new_term_index(3, 20));
        assert_eq!(tail.last(), Some(LogId::new_term_index(3, 20)));
        tail.append(entry(3, 21), 10);
        assert_eq!(indexes(&tail.plan(0, 100)), [21]);
    }

    #[test]
    fn a_limited_read_returns_at_least_one_entry() {
        let tail = tail_of(0..5, 1000);
        assert_eq!(limit(tail.plan(0, 5).memory, 0).len(), 1);
        assert_eq!(limit(tail.plan(0, 5).memory, 15).len(), 2);
        assert_eq!(limit(tail.plan(0, 5).memory, usize::MAX).len(), 5);
    }
}
