//! The key-value space of one namespace: entries in order of key, leases, and what has lately been answered.
//!
//! Plain data on persistent maps, changed only through [`super::apply`]. Time is the log's. An entry whose time is over
//! stays, and counts, until a [`Decision::KvExpire`] of the log removes it: whoever reads sees a state of the log and
//! nothing else.
//!
//! - [`entry`]: what stands under a key, and its part of the digest. [`write`](mod@write): puts, deletes, transactions.
//! - [`read`]: ranges. [`lease`]: leases and deadlines. [`requests`]: writes that may be repeated.
//! - [`limits`]: what is accepted at all. [`records`]: to a snapshot and back.
//!
//! What must stay true ([`KvSpace::check`]): the totals, the digest, the deadlines and the keys of leases are those of
//! the entries.
//!
//! [`Decision::KvExpire`]: flott_proto::wire::command::Decision::KvExpire

pub mod entry;
pub mod lease;
pub mod limits;
pub mod read;
pub mod records;
pub mod requests;
#[cfg(test)]
mod tests;
pub mod write;

use std::sync::Arc;

use bytes::Bytes;
use flott_proto::wire;
use imbl::{OrdMap, OrdSet};

pub use entry::Entry;
pub use lease::Lease;
use requests::Requests;

/// Something that happened to a key, as watchers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(Bytes, Arc<Entry>),
    Gone(Bytes, wire::kv_gone::Cause),
}

/// All that is stored in one namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KvSpace {
    entries: OrdMap<Bytes, Arc<Entry>>,
    leases: OrdMap<u64, Arc<Lease>>,
    /// Entries with a time of their own, by its end.
    key_deadlines: OrdSet<(i64, Bytes)>,
    lease_deadlines: OrdSet<(i64, u64)>,
    /// Of all keys and values.
    bytes: u64,
    /// Sum of all entries' digests: equal spaces have equal digests, whatever their histories.
    digest: u128,
    /// Writes that may be repeated.
    pub(super) requests: Requests,
}

impl KvSpace {
    /// Bytes of all keys and values.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is left: no entries, no leases.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.leases.is_empty()
    }

    /// A hash of all entries that does not depend on how they came about. Costs nothing.
    pub fn digest(&self) -> u128 {
        self.digest
    }

    pub fn get(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    /// Puts `entry` under `key`, with all that hangs on it. The lease, if it names one, exists.
    fn insert(&mut self, key: Bytes, entry: Arc<Entry>) {
        if let Some(before) = self.entries.get(&key).cloned() {
            self.unhook(&key, &before);
        }
        self.bytes += entry.size(&key);
        self.digest = self.digest.wrapping_add(entry.digest(&key));
        if entry.expires_at_ms != 0 {
            self.key_deadlines
                .insert((entry.expires_at_ms, key.clone()));
        }
        if entry.lease != 0 {
            self.lease_mut(entry.lease).keys.insert(key.clone());
        }
        self.entries.insert(key, entry);
    }

    /// Takes the entry away, with all that hangs on it.
    fn remove(&mut self, key: &Bytes) -> Option<Arc<Entry>> {
        let entry = self.entries.remove(key)?;
        self.unhook(key, &entry);
        Some(entry)
    }

    fn unhook(&mut self, key: &Bytes, entry: &Entry) {
        self.bytes -= entry.size(key);
        self.digest = self.digest.wrapping_sub(entry.digest(key));
        if entry.expires_at_ms != 0 {
            self.key_deadlines
                .remove(&(entry.expires_at_ms, key.clone()));
        }
        if entry.lease != 0 {
            self.lease_mut(entry.lease).keys.remove(key);
        }
    }

    fn lease_mut(&mut self, id: u64) -> &mut Lease {
        let lease = self.leases.get_mut(&id);
        Arc::make_mut(lease.expect("an entry's lease exists for as long as the entry"))
    }

    /// Removes up to `max` entries and leases of a namespace that is being deleted; how many there were. Nobody is told: the namespace is gone for its watchers.
    pub fn purge(&mut self, max: usize) -> usize {
        let keys: Vec<Bytes> = self.entries.keys().take(max).cloned().collect();
        for key in &keys {
            self.remove(key);
        }
        let mut removed = keys.len();
        if self.entries.is_empty() {
            let left = max - removed;
            let leases: Vec<u64> = self.leases.keys().take(left).copied().collect();
            leases.iter().for_each(|id| self.drop_lease(*id));
            removed += leases.len();
        }
        if removed < max {
            self.requests = Requests::default();
        }
        removed
    }

    /// Panics if the space contradicts itself.
    pub fn check(&self) {
        let sizes = self.entries.iter().map(|(key, entry)| entry.size(key));
        assert_eq!(
            self.bytes,
            sizes.sum::<u64>(),
            "bytes are those of the entries"
        );
        let digest = self.entries.iter().fold(0_u128, |sum, (key, entry)| {
            sum.wrapping_add(entry.digest(key))
        });
        assert_eq!(self.digest, digest, "the digest is that of the entries");
        let timed = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.expires_at_ms != 0);
        let timed: OrdSet<_> = timed
            .map(|(key, entry)| (entry.expires_at_ms, key.clone()))
            .collect();
        assert_eq!(self.key_deadlines, timed);
        let deadlines: OrdSet<_> = self
            .leases
            .iter()
            .map(|(id, lease)| (lease.deadline_ms, *id))
            .collect();
        assert_eq!(self.lease_deadlines, deadlines);
        for (id, lease) in &self.leases {
            let bound = self.entries.iter().filter(|(_, entry)| entry.lease == *id);
            let bound: OrdSet<Bytes> = bound.map(|(key, _)| key.clone()).collect();
            assert_eq!(
                lease.keys, bound,
                "lease {id} holds the entries that name it"
            );
        }
        let leased = self.entries.values().filter(|entry| entry.lease != 0);
        leased.for_each(|entry| assert!(self.leases.contains_key(&entry.lease)));
        self.requests.check();
    }
}
