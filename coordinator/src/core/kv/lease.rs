//! Leases, and everything else that time ends.
//!
//! A lease is a client's session: entries that name it end with it. It lives on as long as it is kept; a new leader
//! gives every lease its whole time anew, because nobody could keep it while nobody led.

use std::sync::Arc;

use bytes::Bytes;
use flott_proto::wire::{self, kv_gone::Cause};
use imbl::OrdSet;

use super::{Change, KvSpace};

/// One lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub ttl_ms: u64,
    /// After which log time it ends unless it is kept.
    pub deadline_ms: i64,
    /// The entries that end with it.
    pub keys: OrdSet<Bytes>,
}

fn deadline(now_ms: i64, ttl_ms: u64) -> i64 {
    now_ms.saturating_add(i64::try_from(ttl_ms).unwrap_or(i64::MAX))
}

impl KvSpace {
    /// An id that no lease has. Revisions are drawn once, but clients may have chosen the same number.
    pub(super) fn draw_lease(&self, revision: u64) -> u64 {
        let mut ids = revision..;
        let free = ids.find(|id| !self.leases.contains_key(id));
        free.expect("there are fewer leases than numbers")
    }

    pub fn has_leases(&self) -> bool {
        !self.leases.is_empty()
    }

    /// Makes a lease, or keeps the one of that id. Asking twice for the same is asking once.
    pub(super) fn grant(&mut self, id: u64, ttl_ms: u64, now_ms: i64) {
        if self.leases.contains_key(&id) {
            self.keep(id, now_ms);
            return;
        }
        let lease = Lease {
            ttl_ms,
            deadline_ms: deadline(now_ms, ttl_ms),
            keys: OrdSet::new(),
        };
        self.lease_deadlines.insert((lease.deadline_ms, id));
        self.leases.insert(id, Arc::new(lease));
    }

    /// Starts the lease's time anew; its whole time, or none if there is no such lease.
    pub(super) fn keep(&mut self, id: u64, now_ms: i64) -> Option<u64> {
        let ttl_ms = self.leases.get(&id)?.ttl_ms;
        let lease = self.lease_mut(id);
        let before = std::mem::replace(&mut lease.deadline_ms, deadline(now_ms, ttl_ms));
        let after = lease.deadline_ms;
        self.lease_deadlines.remove(&(before, id));
        self.lease_deadlines.insert((after, id));
        Some(ttl_ms)
    }

    /// A new leader is in office: nobody could keep a lease before it.
    pub fn keep_all(&mut self, now_ms: i64) {
        let ids: Vec<u64> = self.leases.keys().copied().collect();
        for id in ids {
            self.keep(id, now_ms);
        }
    }

    pub(super) fn drop_lease(&mut self, id: u64) {
        if let Some(lease) = self.leases.remove(&id) {
            assert!(lease.keys.is_empty(), "a lease goes after its entries");
            self.lease_deadlines.remove(&(lease.deadline_ms, id));
        }
    }

    /// Removes up to `max` entries of the lease, and the lease after the last of them.
    pub(super) fn end_lease(&mut self, id: u64, max: usize, changes: &mut Vec<Change>) {
        let Some(lease) = self.leases.get(&id) else {
            return;
        };
        let keys: Vec<Bytes> = lease.keys.iter().take(max).cloned().collect();
        let all = keys.len() == lease.keys.len();
        for key in keys {
            self.remove(&key);
            changes.push(Change::Gone(key, Cause::LeaseEnded));
        }
        if all {
            self.drop_lease(id);
        }
    }

    /// When the next thing ends, in log time.
    pub fn next_deadline(&self) -> Option<i64> {
        let key = self.key_deadlines.get_min().map(|(at, _)| *at);
        let lease = self.lease_deadlines.get_min().map(|(at, _)| *at);
        key.into_iter().chain(lease).min()
    }

    /// Ends what time has ended, at most about `max` entries and leases.
    pub fn expire(&mut self, now_ms: i64, max: usize, changes: &mut Vec<Change>) {
        let begun = changes.len();
        let mut steps = 0;
        while changes.len() - begun + steps < max {
            let due = self.key_deadlines.get_min().filter(|(at, _)| *at <= now_ms);
            let Some((_, key)) = due.cloned() else { break };
            self.remove(&key);
            changes.push(Change::Gone(key, Cause::Expired));
        }
        while changes.len() - begun + steps < max {
            let due = self
                .lease_deadlines
                .get_min()
                .filter(|(at, _)| *at <= now_ms);
            let Some((_, id)) = due.copied() else { break };
            let left = max - (changes.len() - begun + steps);
            self.end_lease(id, left, changes);
            steps += 1;
        }
    }

    /// All leases, as clients see them.
    pub fn leases(&self) -> wire::KvLeases {
        let one = |(id, lease): (&u64, &Arc<Lease>)| wire::KvLease {
            lease: *id,
            ttl_ms: lease.ttl_ms,
            expires_at_ms: lease.deadline_ms,
            keys: lease.keys.iter().cloned().collect(),
        };
        wire::KvLeases {
            leases: self.leases.iter().map(one).collect(),
        }
    }
}
