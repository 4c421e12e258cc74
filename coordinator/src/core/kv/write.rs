//! Puts, deletes and transactions on a space.
//!
//! A write is all or nothing: what can be refused is found out before anything changes, or on a copy (which costs
//! nothing, the maps being persistent).

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use flott_proto::wire::kv_compare::{Relation, Target};
use flott_proto::wire::kv_failure::Reason;
use flott_proto::wire::kv_gone::Cause;
use flott_proto::wire::{self, kv_operation, kv_operation_result, kv_response::Outcome, kv_write};

use super::{Change, Entry, KvSpace};

/// What a write sees besides the space.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// The revision that it will be if it changes anything.
    pub revision: u64,
    pub now_ms: i64,
    /// Bytes that the space may have; 0: as many as it likes.
    pub bytes_max: u64,
}

/// A write that changed nothing, and why.
pub type Failed = wire::KvFailure;

pub(crate) fn failed(reason: Reason, message: impl Into<String>) -> Failed {
    wire::KvFailure {
        reason: reason.into(),
        message: message.into(),
        leader_address: String::new(),
    }
}

impl KvSpace {
    /// Carries out one write, whose form has been checked. What it changed is appended to `changes`.
    pub fn write(
        &mut self,
        write: &wire::KvWrite,
        at: Circumstances,
        changes: &mut Vec<Change>,
    ) -> Result<Outcome, Failed> {
        use kv_write::Kind;
        let lease = |lease, ttl_ms| Outcome::Lease(wire::KvLeaseResult { lease, ttl_ms });
        match &write.kind {
            Some(Kind::Put(put)) => {
                self.room_for(put, at)?;
                self.put(put, at, changes)?;
                Ok(Outcome::Put(wire::KvPutResult {}))
            }
            Some(Kind::Delete(delete)) => Ok(Outcome::Delete(self.delete(delete, changes))),
            Some(Kind::Txn(txn)) => self.transact(txn, at, changes).map(Outcome::Txn),
            Some(Kind::GrantLease(grant)) => {
                let id = match grant.lease {
                    0 => self.draw_lease(at.revision),
                    chosen => chosen,
                };
                self.grant(id, grant.ttl_ms, at.now_ms);
                Ok(lease(id, grant.ttl_ms))
            }
            Some(Kind::KeepLease(keep)) => {
                let ttl_ms = self.keep(keep.lease, at.now_ms);
                let ttl_ms = ttl_ms.ok_or_else(|| no_lease(keep.lease))?;
                Ok(lease(keep.lease, ttl_ms))
            }
            Some(Kind::RevokeLease(revoke)) => {
                if !self.leases.contains_key(&revoke.lease) {
                    return Err(no_lease(revoke.lease));
                }
                self.end_lease(revoke.lease, usize::MAX, changes);
                Ok(lease(revoke.lease, 0))
            }
            None => Err(failed(Reason::Invalid, "the write does not say what to do")),
        }
    }

    fn put(
        &mut self,
        put: &wire::KvPut,
        at: Circumstances,
        changes: &mut Vec<Change>,
    ) -> Result<(), Failed> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(no_lease(put.lease));
        }
        let before = self.entries.get(&put.key);
        let expires_at_ms = match i64::try_from(put.ttl_ms) {
            Ok(0) => 0,
            ttl => at.now_ms.saturating_add(ttl.unwrap_or(i64::MAX)).max(1),
        };
        let entry = Arc::new(Entry {
            // Copied: a slice would keep the whole message alive that it came in.
            value: Bytes::copy_from_slice(&put.value),
            create_revision: before.map_or(at.revision, |before| before.create_revision),
            mod_revision: at.revision,
            version: before.map_or(0, |before| before.version) + 1,
            lease: put.lease,
            expires_at_ms,
        });
        let key = match self.entries.get_key_value(&put.key) {
            Some((key, _)) => key.clone(),
            None => Bytes::copy_from_slice(&put.key),
        };
        changes.push(Change::Put(key.clone(), Arc::clone(&entry)));
        self.insert(key, entry);
        Ok(())
    }

    fn delete(
        &mut self,
        delete: &wire::KvDelete,
        changes: &mut Vec<Change>,
    ) -> wire::KvDeleteResult {
        let keys = delete.keys.iter().flat_map(|keys| self.select(keys));
        let keys: Vec<Bytes> = keys.map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.remove(key);
            changes.push(Change::Gone(key.clone(), Cause::Deleted));
        }
        wire::KvDeleteResult {
            deleted: keys.len() as u64,
        }
    }

    /// Carries out one side of a transaction, on a copy that replaces the space only if all of it went well.
    fn transact(
        &mut self,
        txn: &wire::KvTxn,
        at: Circumstances,
        changes: &mut Vec<Change>,
    ) -> Result<wire::KvTxnResult, Failed> {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let operations = if succeeded {
            &txn.success
        } else {
            &txn.failure
        };
        let mut next = self.clone();
        let begun = changes.len();
        let mut results = Vec::with_capacity(operations.len());
        for operation in operations {
            match next.operate(operation, at, changes) {
                Ok(result) => results.push(wire::KvOperationResult { kind: Some(result) }),
                Err(failure) => {
                    changes.truncate(begun);
                    return Err(failure);
                }
            }
        }
        if at.bytes_max != 0 && next.bytes > at.bytes_max && next.bytes > self.bytes {
            changes.truncate(begun);
            return Err(over_quota(next.bytes, at.bytes_max));
        }
        *self = next;
        Ok(wire::KvTxnResult { succeeded, results })
    }

    fn operate(
        &mut self,
        operation: &wire::KvOperation,
        at: Circumstances,
        changes: &mut Vec<Change>,
    ) -> Result<kv_operation_result::Kind, Failed> {
        use kv_operation::Kind;
        use kv_operation_result::Kind as Done;
        match &operation.kind {
            Some(Kind::Put(put)) => {
                self.put(put, at, changes)?;
                Ok(Done::Put(wire::KvPutResult {}))
            }
            Some(Kind::Delete(delete)) => Ok(Done::Delete(self.delete(delete, changes))),
            Some(Kind::Range(range)) => Ok(Done::Range(self.range(range))),
            None => Err(failed(
                Reason::Invalid,
                "an operation does not say what to do",
            )),
        }
    }

    fn holds(&self, compare: &wire::KvCompare) -> bool {
        let entry = self.entries.get(&compare.key);
        let number = |of: fn(&Entry) -> u64| entry.map_or(0, |entry| of(entry));
        let order = match &compare.target {
            Some(Target::ModRevision(with)) => number(|entry| entry.mod_revision).cmp(with),
            Some(Target::CreateRevision(with)) => number(|entry| entry.create_revision).cmp(with),
            Some(Target::Version(with)) => number(|entry| entry.version).cmp(with),
            Some(Target::Lease(with)) => number(|entry| entry.lease).cmp(with),
            Some(Target::Value(with)) => entry.map_or(&[][..], |entry| &entry.value).cmp(with),
            None => return false,
        };
        match compare.relation() {
            Relation::Equal => order == Ordering::Equal,
            Relation::NotEqual => order != Ordering::Equal,
            Relation::Less => order == Ordering::Less,
            Relation::Greater => order == Ordering::Greater,
        }
    }

    /// Refuses a put that would make the space larger than it may be. What does not make it larger always goes.
    fn room_for(&self, put: &wire::KvPut, at: Circumstances) -> Result<(), Failed> {
        if at.bytes_max == 0 {
            return Ok(());
        }
        let added = (put.key.len() + put.value.len()) as u64;
        let before = self.entries.get(&put.key);
        let after = self.bytes - before.map_or(0, |before| before.size(&put.key)) + added;
        if after > at.bytes_max && after > self.bytes {
            return Err(over_quota(after, at.bytes_max));
        }
        Ok(())
    }
}

fn no_lease(id: u64) -> Failed {
    failed(
        Reason::NoLease,
        format!("there is no lease {id}; it has ended, or was never granted"),
    )
}

fn over_quota(bytes: u64, max: u64) -> Failed {
    failed(
        Reason::Quota,
        format!(
            "the namespace would have {bytes} bytes of keys and values, its quota is {max}; delete some, or raise the \
             quota with `flott namespace update`"
        ),
    )
}
