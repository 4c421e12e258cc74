//! Writes to the key-value spaces, and what time ends in them.

use std::sync::Arc;

use flott_proto::ids::Namespace;
use flott_proto::wire::{self, kv_failure::Reason, kv_response::Outcome, kv_write};
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use crate::core::kv::limits::check_write;
use crate::core::kv::write::{Circumstances, Failed, failed};
use crate::core::kv::{Change, KvSpace};
use crate::core::state::{ClusterState, KvChanges};

/// Entries and leases that one entry of the log ends: applying it stays short.
const EXPIRED_MAX: usize = 1024;

/// Carries out each write on its own, in order.
pub(super) fn batch(
    state: &mut ClusterState,
    batch: &wire::KvBatch,
    told: &mut Vec<KvChanges>,
) -> Vec<wire::KvResponse> {
    let one = |proposal| write(state, proposal, told);
    batch.proposals.iter().map(one).collect()
}

fn write(
    state: &mut ClusterState,
    proposal: &wire::KvProposal,
    told: &mut Vec<KvChanges>,
) -> wire::KvResponse {
    match try_write(state, proposal, told) {
        Ok(response) => response,
        Err(failure) => respond(state.revision, Outcome::Failure(failure)),
    }
}

fn respond(revision: u64, outcome: Outcome) -> wire::KvResponse {
    wire::KvResponse {
        sequence: 0,
        header: Some(wire::KvHeader {
            revision,
            ..Default::default()
        }),
        outcome: Some(outcome),
    }
}

fn try_write(
    state: &mut ClusterState,
    proposal: &wire::KvProposal,
    told: &mut Vec<KvChanges>,
) -> Result<wire::KvResponse, Failed> {
    let empty = wire::KvWrite::default();
    let write = proposal.write.as_ref().unwrap_or(&empty);
    check_write(write, &proposal.request_id).map_err(|what| failed(Reason::Invalid, what))?;
    let namespace: Namespace = proposal
        .namespace
        .parse()
        .map_err(|error: flott_proto::Malformed| failed(Reason::Invalid, error.to_string()))?;
    let at = Circumstances {
        revision: state.revision + 1,
        now_ms: state.log_time_ms,
        bytes_max: state.kv_quota(&namespace)?,
    };
    let space = space(state, &namespace);
    let id = proposal.request_id.as_str();
    let fingerprint = if id.is_empty() {
        0
    } else {
        xxh3_64(&write.encode_to_vec())
    };
    if let Some(answered) = space.requests.get(id).filter(|_| !id.is_empty()) {
        return if answered.fingerprint == fingerprint {
            Ok(answered.response.clone())
        } else {
            let what = format!("the request id {id:?} was used for another write; use a new one");
            Err(failed(Reason::Invalid, what))
        };
    }
    let mut changes = Vec::new();
    let outcome = space.write(write, at, &mut changes)?;
    let drawn = matches!(&write.kind, Some(kv_write::Kind::GrantLease(grant)) if grant.lease == 0);
    let revision = if changes.is_empty() && !drawn {
        at.revision - 1
    } else {
        at.revision
    };
    let response = respond(revision, outcome);
    if !id.is_empty() {
        space
            .requests
            .remember(id, at.now_ms, fingerprint, response.clone());
    }
    state.revision = revision;
    tell(&namespace, revision, changes, told);
    Ok(response)
}

impl ClusterState {
    /// Bytes that the namespace's keys and values may have, 0 for no limit; refused if nothing may be written there.
    fn kv_quota(&self, namespace: &Namespace) -> Result<u64, Failed> {
        match self.active_namespace(namespace) {
            Ok(namespace) => Ok(namespace.quota.kv_bytes),
            Err(refused) => Err(failed(Reason::NoNamespace, refused.to_string())),
        }
    }
}

/// The space to change. It is copied first if a published version still holds it; that copy is cheap.
fn space<'s>(state: &'s mut ClusterState, namespace: &Namespace) -> &'s mut KvSpace {
    if !state.kv.contains_key(namespace) {
        state.kv.insert(namespace.clone(), Arc::default());
    }
    let space = state.kv.get_mut(namespace);
    Arc::make_mut(space.expect("it was inserted"))
}

fn tell(namespace: &Namespace, revision: u64, changes: Vec<Change>, told: &mut Vec<KvChanges>) {
    if !changes.is_empty() {
        told.push(KvChanges {
            namespace: namespace.clone(),
            revision,
            changes,
        });
    }
}

/// Ends what time has ended, a bounded number of entries; the leader asks again for the rest.
pub(super) fn expire(state: &mut ClusterState, told: &mut Vec<KvChanges>) {
    let now_ms = state.log_time_ms;
    let due = |space: &KvSpace| space.next_deadline().is_some_and(|at| at <= now_ms);
    let namespaces: Vec<Namespace> = state
        .kv
        .iter()
        .filter(|(_, space)| due(space))
        .map(|(namespace, _)| namespace.clone())
        .collect();
    let mut left = EXPIRED_MAX;
    for namespace in namespaces {
        if left == 0 {
            break;
        }
        let mut changes = Vec::new();
        space(state, &namespace).expire(now_ms, left, &mut changes);
        left = left.saturating_sub(changes.len().max(1));
        if !changes.is_empty() {
            state.revision += 1;
        }
        tell(&namespace, state.revision, changes, told);
    }
}

/// A new leader took office: every lease has its whole time again.
pub(super) fn keep_leases(state: &mut ClusterState) {
    let now_ms = state.log_time_ms;
    let with_leases: Vec<Namespace> = state
        .kv
        .iter()
        .filter(|(_, space)| space.has_leases())
        .map(|(namespace, _)| namespace.clone())
        .collect();
    for namespace in with_leases {
        space(state, &namespace).keep_all(now_ms);
    }
}
