//! Members that were removed from the group: their ids are never used again, and they can be told so.
//!
//! Follows from the memberships in the log, so every member knows the same ones. A removed member that comes back, even
//! after a year, learns from any other that it is none any more, and ends instead of asking for votes.

use std::collections::BTreeMap;

use flott_proto::Malformed;
use flott_proto::ids::NodeId;
use flott_proto::wire;
use imbl::OrdMap;

use super::state::ClusterState;

/// Removed members that are remembered. Beyond, the one removed first is forgotten: after thousands of replacements the
/// oldest disk is long gone.
const RETIRED_MAX: usize = 4096;

/// A node that was a member once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetiredMember {
    /// The life of its data directory that was a member.
    pub incarnation: String,
    /// The log index of the membership without it.
    pub removed_at: u64,
}

impl ClusterState {
    /// The membership changed by the entry at `index`. Both maps have all members, voters or not, with their incarnations.
    pub(crate) fn on_membership(
        &mut self,
        index: u64,
        before: &BTreeMap<NodeId, &str>,
        after: &BTreeMap<NodeId, &str>,
    ) {
        for (node, incarnation) in before {
            if !after.contains_key(node) {
                let retired = RetiredMember {
                    incarnation: (*incarnation).to_owned(),
                    removed_at: index,
                };
                self.retired_members.insert(*node, retired);
            }
        }
        // A cluster that was restored elsewhere may number its members anew.
        for node in after.keys() {
            self.retired_members.remove(node);
        }
        while self.retired_members.len() > RETIRED_MAX {
            let oldest = self
                .retired_members
                .iter()
                .min_by_key(|(_, retired)| retired.removed_at);
            let Some(oldest) = oldest.map(|(node, _)| *node) else {
                break;
            };
            self.retired_members.remove(&oldest);
        }
    }

    /// The log index by which this life of that node was removed, if it was.
    pub(crate) fn removed_at(&self, node: NodeId, incarnation: &str) -> Option<u64> {
        let retired = self.retired_members.get(&node)?;
        (retired.incarnation == incarnation).then_some(retired.removed_at)
    }
}

/// As the record of a snapshot.
pub(super) fn to_record(node: NodeId, retired: &RetiredMember) -> wire::RetiredMemberRecord {
    wire::RetiredMemberRecord {
        node_id: node.0,
        incarnation: retired.incarnation.clone(),
        removed_at: retired.removed_at,
    }
}

/// Inverse of [`to_record`].
pub(super) fn from_record(
    record: wire::RetiredMemberRecord,
) -> Result<(NodeId, RetiredMember), Malformed> {
    if record.node_id == 0 {
        return Err(Malformed::new("retired member", "lacks node_id"));
    }
    let retired = RetiredMember {
        incarnation: record.incarnation,
        removed_at: record.removed_at,
    };
    Ok((NodeId(record.node_id), retired))
}

/// What is kept of retired members.
pub type Retired = OrdMap<NodeId, RetiredMember>;

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ids: impl IntoIterator<Item = u64>) -> BTreeMap<NodeId, &'static str> {
        ids.into_iter().map(|id| (NodeId(id), "life")).collect()
    }

    #[test]
    fn who_was_removed_is_known_by_its_incarnation_and_survives_a_snapshot() {
        let mut state = ClusterState::default();
        state.on_membership(1, &members([]), &members([1, 2, 3]));
        assert!(state.retired_members.is_empty());
        state.on_membership(9, &members([1, 2, 3]), &members([1, 3, 4]));
        let state = ClusterState::from_records(state.records()).unwrap();
        assert_eq!(state.removed_at(NodeId(2), "life"), Some(9));
        assert_eq!(state.removed_at(NodeId(2), "another life"), None);
        assert_eq!(state.removed_at(NodeId(1), "life"), None);
    }

    #[test]
    fn a_member_is_never_among_the_retired() {
        let mut state = ClusterState::default();
        state.on_membership(2, &members([1, 2]), &members([1]));
        state.on_membership(3, &members([1]), &members([1, 2]));
        assert_eq!(state.removed_at(NodeId(2), "life"), None);
    }

    #[test]
    fn the_number_of_retired_members_is_bounded_and_the_oldest_go_first() {
        let mut state = ClusterState::default();
        for index in 1..=RETIRED_MAX as u64 + 2 {
            state.on_membership(index, &members([1, index + 1]), &members([1]));
        }
        assert_eq!(state.retired_members.len(), RETIRED_MAX);
        assert_eq!(state.removed_at(NodeId(3), "life"), None);
        assert_eq!(state.removed_at(NodeId(4), "life"), Some(3));
    }
}
