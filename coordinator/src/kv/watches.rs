//! The latest changes of every namespace's keys, for those who follow them.
//!
//! Each member keeps what it has applied lately. A watcher has a position, a revision, and takes what comes after it at
//! its own pace; nothing is queued for it. So it never skips anything: when what it needs is no longer kept, it is told to
//! read the range anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flott_proto::ids::Namespace;
use flott_proto::wire::{self, kv_event};
use tokio::sync::watch;

use crate::core::KvChanges;
use crate::core::kv::Change;
use crate::core::kv::read::contains;

/// Bytes of changes that are kept of one namespace.
const NAMESPACE_BYTES_MAX: usize = 4 << 20;
/// And of all; then those with most give way.
const TOTAL_BYTES_MAX: usize = 32 << 20;
/// What a change costs beside its key and value.
const CHANGE_BYTES: usize = 128;
/// Bytes that a watcher is told at once, unless a single revision has more.
const ANSWER_BYTES_MAX: usize = 1 << 20;

fn size(change: &Change) -> usize {
    CHANGE_BYTES
        + match change {
            Change::Put(key, entry) => key.len() + entry.value.len(),
            Change::Gone(key, _) => key.len(),
        }
}

/// What is kept of one namespace.
#[derive(Debug)]
struct Ring {
    /// Oldest first, with its bytes.
    changes: VecDeque<(KvChanges, usize)>,
    bytes: usize,
    /// Everything after this revision is here.
    floor: u64,
}

impl Ring {
    fn drop_oldest(&mut self) -> usize {
        let Some((oldest, bytes)) = self.changes.pop_front() else {
            return 0;
        };
        self.floor = oldest.revision;
        self.bytes -= bytes;
        bytes
    }
}

#[derive(Debug, Default)]
struct Kept {
    rings: BTreeMap<Namespace, Ring>,
    bytes: usize,
    /// Nothing up to this revision was ever here: the state came from a snapshot.
    floor: u64,
    /// Everything up to this revision has been applied.
    revision: u64,
}

/// The changes that this member has applied lately.
#[derive(Debug)]
pub(crate) struct Watches {
    kept: Mutex<Kept>,
    revision: watch::Sender<u64>,
}

impl Default for Watches {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            revision: watch::Sender::new(0),
        }
    }
}

/// What a watcher is told next.
#[derive(Debug, PartialEq)]
pub(crate) enum Next {
    /// Changes of the range, and the revision up to which that is all.
    Events(u64, Vec<wire::KvEvent>),
    /// What it needs is no longer kept.
    Resync(u64),
}

impl Watches {
    /// The state jumped to a snapshot: what led to it is not known here.
    pub(crate) fn reset(&self, revision: u64) {
        *self.kept() = Kept {
            floor: revision,
            revision,
            ..Kept::default()
        };
        self.revision.send_replace(revision);
    }

    /// Keeps what entries have changed. Their state is published already.
    pub(crate) fn publish(&self, told: &mut Vec<KvChanges>, revision: u64) {
        let mut kept = self.kept();
        if kept.revision == revision {
            return;
        }
        for changes in told.drain(..) {
            let floor = kept.floor;
            let bytes = changes.changes.iter().map(size).sum();
            let ring = kept.rings.entry(changes.namespace.clone());
            let ring = ring.or_insert_with(|| Ring {
                changes: VecDeque::new(),
                bytes: 0,
                floor,
            });
            ring.changes.push_back((changes, bytes));
            ring.bytes += bytes;
            let mut freed = 0;
            while ring.bytes > NAMESPACE_BYTES_MAX && ring.changes.len() > 1 {
                freed += ring.drop_oldest();
            }
            kept.bytes += bytes;
            kept.bytes -= freed;
        }
        while kept.bytes > TOTAL_BYTES_MAX {
            let largest = kept.rings.values_mut().max_by_key(|ring| ring.bytes);
            let freed = largest.map_or(0, Ring::drop_oldest);
            kept.bytes -= freed;
        }
        kept.revision = revision;
        drop(kept);
        self.revision.send_replace(revision);
    }

    /// The revision up to which everything has been applied; changes when there may be news.
    pub(crate) fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// What happened to the range from revision `from` on.
    pub(crate) fn since(&self, namespace: &Namespace, keys: &wire::KvKeys, from: u64) -> Next {
        let kept = self.kept();
        let Some(ring) = kept.rings.get(namespace) else {
            return match from > kept.floor {
                true => Next::Events(kept.revision, Vec::new()),
                false => Next::Resync(kept.revision),
            };
        };
        if from <= ring.floor {
            return Next::Resync(kept.revision);
        }
        let start = ring
            .changes
            .partition_point(|(changes, _)| changes.revision < from);
        let (mut events, mut bytes) = (Vec::new(), 0);
        for (changes, _) in ring.changes.range(start..) {
            let of_range = changes.changes.iter().filter(|change| match change {
                Change::Put(key, _) | Change::Gone(key, _) => contains(keys, key),
            });
            for change in of_range {
                bytes += size(change);
                events.push(event(change, changes.revision));
            }
            if bytes > ANSWER_BYTES_MAX {
                return Next::Events(changes.revision, events);
            }
        }
        Next::Events(kept.revision, events)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn event(change: &Change, revision: u64) -> wire::KvEvent {
    let change = match change {
        Change::Put(key, entry) => kv_event::Change::Put(entry.to_wire(key, true)),
        Change::Gone(key, cause) => kv_event::Change::Gone(wire::KvGone {
            key: key.clone(),
            revision,
            cause: (*cause).into(),
        }),
    };
    wire::KvEvent {
        change: Some(change),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::core::kv::Entry;

    fn put(namespace: &str, key: &str, revision: u64, bytes: usize) -> KvChanges {
        let entry = Entry {
            value: vec![0; bytes].into(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: 0,
            expires_at_ms: 0,
        };
        KvChanges {
            namespace: namespace.parse().unwrap(),
            revision,
            changes: vec![Change::Put(
                Bytes::copy_from_slice(key.as_bytes()),
                Arc::new(entry),
            )],
        }
    }

    fn all() -> wire::KvKeys {
        wire::KvKeys {
            start: Bytes::new(),
            end: vec![0].into(),
        }
    }

    fn revisions(next: Next) -> Option<(u64, Vec<u64>)> {
        let of = |event: wire::KvEvent| match event.change {
            Some(kv_event::Change::Put(entry)) => entry.mod_revision,
            Some(kv_event::Change::Gone(gone)) => gone.revision,
            None => 0,
        };
        match next {
            Next::Events(upto, events) => Some((upto, events.into_iter().map(of).collect())),
            Next::Resync(_) => None,
        }
    }

    #[test]
    fn a_watcher_is_told_each_change_of_its_range_from_its_revision_on() {
        let watches = Watches::default();
        let told = &mut vec![
            put("a", "x", 1, 1),
            put("b", "x", 2, 1),
            put("a", "y", 3, 1),
        ];
        watches.publish(told, 3);
        watches.publish(&mut vec![put("a", "x", 4, 1)], 4);
        let a = "a".parse().unwrap();
        assert_eq!(
            revisions(watches.since(&a, &all(), 1)),
            Some((4, vec![1, 3, 4]))
        );
        assert_eq!(
            revisions(watches.since(&a, &all(), 2)),
            Some((4, vec![3, 4]))
        );
        let x = wire::KvKeys {
            start: "x".into(),
            end: Bytes::new(),
        };
        assert_eq!(revisions(watches.since(&a, &x, 2)), Some((4, vec![4])));
        assert_eq!(revisions(watches.since(&a, &x, 5)), Some((4, vec![])));
        let nobody = "c".parse().unwrap();
        assert_eq!(
            revisions(watches.since(&nobody, &all(), 1)),
            Some((4, vec![]))
        );
    }

    #[test]
    fn who_needs_what_is_no_longer_kept_is_told_to_resync() {
        let watches = Watches::default();
        watches.reset(10);
        let a = "a".parse().unwrap();
        assert_eq!(watches.since(&a, &all(), 10), Next::Resync(10));
        assert_eq!(revisions(watches.since(&a, &all(), 11)), Some((10, vec![])));
        for revision in 11..30 {
            watches.publish(&mut vec![put("a", "x", revision, 1 << 20)], revision);
        }
        assert_eq!(watches.since(&a, &all(), 11), Next::Resync(29));
        let (upto, recent) = revisions(watches.since(&a, &all(), 29)).unwrap();
        assert_eq!((upto, recent), (29, vec![29]));
        let b = "b".parse().unwrap();
        assert_eq!(
            revisions(watches.since(&b, &all(), 11)),
            Some((29, vec![])),
            "a neighbour who writes much takes nothing from others"
        );
    }

    #[test]
    fn a_watcher_that_is_far_behind_gets_there_in_pieces_without_a_gap() {
        let watches = Watches::default();
        for revision in 1..20 {
            watches.publish(&mut vec![put("a", "x", revision, 200 << 10)], revision);
        }
        let (a, mut from, mut seen) = ("a".parse().unwrap(), 1, Vec::new());
        while let Some((upto, revisions)) = revisions(watches.since(&a, &all(), from)) {
            seen.extend(revisions);
            if upto == 19 {
                break;
            }
            from = upto + 1;
        }
        assert_eq!(seen, (1..20).collect::<Vec<u64>>());
    }
}
