//! Between openraft's types and our protobuf, for the wire and the disk alike.
//!
//! Nothing of openraft's own layout ever leaves the process. What comes in is checked here: a message that lacks a
//! field is [`Malformed`], never a default that Raft would act upon.

use std::collections::{BTreeMap, BTreeSet};

use flott_proto::{Malformed, wire};
use openraft::EntryPayload;

use super::types::{
    Ballot, Entry, LogId, Membership, Peer, Proposal, SnapshotMeta, StoredMembership,
};

fn missing(kind: &'static str, field: &str) -> Malformed {
    Malformed::new(kind, format!("lacks {field}"))
}

pub(crate) fn log_id_to_wire(id: &LogId) -> wire::RaftLogId {
    wire::RaftLogId {
        term: term_of(id),
        index: id.index,
    }
}

pub(crate) fn log_id_from_wire(id: &wire::RaftLogId) -> LogId {
    LogId::new_term_index(id.term, id.index)
}

/// The term of the leader that proposed the entry.
pub(crate) fn term_of(id: &LogId) -> u64 {
    **id.committed_leader_id()
}

pub(crate) fn ballot_to_wire(vote: &Ballot) -> wire::RaftBallot {
    wire::RaftBallot {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn ballot_from_wire(vote: &wire::RaftBallot) -> Ballot {
    if vote.committed {
        Ballot::new_committed(vote.term, vote.node)
    } else {
        Ballot::new(vote.term, vote.node)
    }
}

/// The vote of a request or response, which every one of them must carry.
pub(crate) fn required_ballot(
    vote: Option<&wire::RaftBallot>,
    kind: &'static str,
) -> Result<Ballot, Malformed> {
    vote.map(ballot_from_wire)
        .ok_or_else(|| missing(kind, "vote"))
}

pub(crate) fn entry_to_wire(entry: &Entry) -> wire::RaftEntry {
    use wire::raft_entry::Payload;
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(wire::RaftBlank {}),
        EntryPayload::Normal(proposal) => Payload::Command(proposal.bytes().clone()),
        EntryPayload::Membership(membership) => Payload::Membership(membership_to_wire(membership)),
    };
    wire::RaftEntry {
        log_id: Some(log_id_to_wire(&entry.log_id)),
        payload: Some(payload),
    }
}

pub(crate) fn entry_from_wire(entry: wire::RaftEntry) -> Result<Entry, Malformed> {
    use wire::raft_entry::Payload;
    const KIND: &str = "raft log entry";
    let log_id = entry
        .log_id
        .as_ref()
        .map(log_id_from_wire)
        .ok_or_else(|| missing(KIND, "log_id"))?;
    let payload = match entry.payload.ok_or_else(|| missing(KIND, "payload"))? {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Command(bytes) => EntryPayload::Normal(Proposal::decode(bytes)?),
        Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_wire(membership)?)
        }
    };
    Ok(Entry { log_id, payload })
}

pub(crate) fn membership_to_wire(membership: &Membership) -> wire::RaftMembership {
    let voters = membership.get_joint_config().iter();
    let peer = |peer: &Peer| wire::RaftNodeInfo {
        address: peer.address.clone(),
        incarnation: peer.incarnation.clone(),
    };
    wire::RaftMembership {
        voters: voters
            .map(|set| wire::RaftVoterSet {
                nodes: set.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| (*id, peer(node)))
            .collect(),
    }
}

pub(crate) fn membership_from_wire(
    membership: wire::RaftMembership,
) -> Result<Membership, Malformed> {
    // What a group has before its first membership entry; openraft refuses to construct it otherwise.
    if membership.voters.is_empty() && membership.nodes.is_empty() {
        return Ok(Membership::default());
    }
    let voters = membership
        .voters
        .into_iter()
        .map(|set| set.nodes.into_iter().collect::<BTreeSet<u64>>())
        .collect();
    let peer = |node: wire::RaftNodeInfo| Peer {
        address: node.address,
        incarnation: node.incarnation,
    };
    let nodes: BTreeMap<u64, Peer> = membership
        .nodes
        .into_iter()
        .map(|(id, node)| (id, peer(node)))
        .collect();
    Membership::new(voters, nodes)
        .map_err(|error| Malformed::new("raft membership", error.to_string()))
}

pub(crate) fn snapshot_meta_to_wire(
    meta: &SnapshotMeta,
    cluster_id: &str,
) -> wire::RaftSnapshotMeta {
    wire::RaftSnapshotMeta {
        cluster_id: cluster_id.to_owned(),
        last_log_id: meta.last_log_id.as_ref().map(log_id_to_wire),
        membership_log_id: meta.last_membership.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(meta.last_membership.membership())),
    }
}

pub(crate) fn snapshot_meta_from_wire(
    meta: wire::RaftSnapshotMeta,
) -> Result<SnapshotMeta, Malformed> {
    let membership = meta
        .membership
        .ok_or_else(|| missing("raft snapshot", "membership"))?;
    let membership_log_id = meta.membership_log_id.as_ref().map(log_id_from_wire);
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_from_wire),
        last_membership: StoredMembership::new(
            membership_log_id,
            membership_from_wire(membership)?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn membership() -> Membership {
        let peer = |n: u64| {
            (
                n,
                Peer {
                    address: format!("host-{n}:6123"),
                    incarnation: format!("life-{n}"),
                },
            )
        };
        Membership::new(
            vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])],
            BTreeMap::from([1, 2, 3, 4].map(peer)),
        )
        .unwrap()
    }

    #[test]
    fn every_kind_of_entry_survives_the_wire() {
        let command = wire::Command {
            now_ms: 5,
            epoch: 7,
            decision: None,
        };
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(Proposal::new(command)),
            EntryPayload::Membership(membership()),
        ] {
            let entry = Entry {
                log_id: LogId::new_term_index(3, 9),
                payload,
            };
            let bytes = entry_to_wire(&entry).encode_to_vec();
            assert_eq!(
                entry_from_wire(wire::RaftEntry::decode(&bytes[..]).unwrap()).unwrap(),
                entry
            );
        }
    }

    #[test]
    fn snapshot_meta_survives_the_disk_even_before_the_first_membership() {
        for last_membership in [
            StoredMembership::default(),
            StoredMembership::new(Some(LogId::new_term_index(1, 2)), membership()),
        ] {
            let meta = SnapshotMeta {
                last_log_id: Some(LogId::new_term_index(4, 8)),
                last_membership,
            };
            assert_eq!(
                snapshot_meta_from_wire(snapshot_meta_to_wire(&meta, "c")).unwrap(),
                meta
            );
        }
    }

    #[test]
    fn an_entry_without_payload_or_id_is_refused() {
        assert!(entry_from_wire(wire::RaftEntry::default()).is_err());
        let id = Some(wire::RaftLogId { term: 1, index: 1 });
        assert!(
            entry_from_wire(wire::RaftEntry {
                log_id: id,
                payload: None
            })
            .is_err()
        );
    }

    #[test]
    fn the_encoding_of_an_entry_never_changes() {
        let entry = Entry {
            log_id: LogId::new_term_index(3, 300),
            payload: EntryPayload::Blank,
        };
        assert_eq!(
            entry_to_wire(&entry).encode_to_vec(),
            [0x0a, 5, 8, 3, 16, 0xac, 2, 0x12, 0]
        );
    }
}
