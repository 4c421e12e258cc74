//! A checksum of the whole state, for members to compare: equal states have equal digests, whatever their histories.
//!
//! The sum of the hashes of all parts, so what has not changed since the last time is not read again.

use std::sync::Arc;

use flott_proto::ids::Namespace;
use imbl::OrdMap;
use prost::Message;
use xxhash_rust::xxh3::Xxh3;

use super::kv::KvSpace;
use super::records::{job_record, namespace_record};
use super::state::{ClusterState, Record};

/// Computes the digests of a state that goes on changing.
#[derive(Debug, Default)]
pub struct Digester {
    seen: Option<ClusterState>,
    /// Of jobs, namespaces and key-value spaces, as seen.
    sum: u128,
}

impl Digester {
    /// The digest of `state`. Reads what differs from the state before.
    pub fn digest(&mut self, state: &ClusterState) -> u128 {
        let nothing = || ClusterState {
            namespaces: OrdMap::new(),
            ..Default::default()
        };
        let seen = self.seen.take().unwrap_or_else(nothing);
        let jobs = change(&seen.jobs, &state.jobs, |id, job| {
            hash_record(&job_record(id, job))
        });
        let namespaces = change(&seen.namespaces, &state.namespaces, |name, namespace| {
            hash_record(&namespace_record(name, namespace))
        });
        let spaces = change(&seen.kv, &state.kv, hash_space);
        self.sum = [jobs, namespaces, spaces]
            .into_iter()
            .fold(self.sum, u128::wrapping_add);
        self.seen = Some(state.clone());
        let rest = std::iter::once(state.cluster_record())
            .chain(state.lineage_records())
            .chain(state.retired_records());
        rest.fold(self.sum, |sum, record| {
            sum.wrapping_add(hash_record(&record))
        })
    }
}

/// By how much the sum of the hashes of all values changes.
fn change<K: Ord + Clone, V>(
    before: &OrdMap<K, Arc<V>>,
    after: &OrdMap<K, Arc<V>>,
    hash: impl Fn(&K, &V) -> u128,
) -> u128 {
    let mut change = 0_u128;
    if before.ptr_eq(after) {
        return change;
    }
    for (key, value) in after {
        let old = before.get(key);
        if old.is_some_and(|old| Arc::ptr_eq(old, value)) {
            continue;
        }
        change = change.wrapping_add(hash(key, value));
        if let Some(old) = old {
            change = change.wrapping_sub(hash(key, old));
        }
    }
    for (key, old) in before {
        if !after.contains_key(key) {
            change = change.wrapping_sub(hash(key, old));
        }
    }
    change
}

fn hash_record(record: &Record) -> u128 {
    hash(&[record.key.as_bytes(), &record.value])
}

fn hash_space(namespace: &Namespace, space: &KvSpace) -> u128 {
    hash(&[
        namespace.as_str().as_bytes(),
        &space.digest().to_le_bytes(),
        &space.header().encode_to_vec(),
    ])
}

fn hash(parts: &[&[u8]]) -> u128 {
    let mut hash = Xxh3::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.digest128()
}
