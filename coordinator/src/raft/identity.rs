//! Who this node is, and whether a request was meant for it.
//!
//! Every request names the cluster, its sender and its target, each with its incarnation: the life of its data
//! directory. So a node whose disk was wiped, a process that listens at an address which another node had before, or a
//! member of another cluster is noticed before Raft sees a word of it. Raft itself would believe them: it would go on
//! counting a wiped follower as one that has everything it ever acknowledged.

use std::sync::{PoisonError, RwLock};

use flott_proto::ids::ClusterId;
use flott_proto::wire;
use prost::Message;
use tonic::{Code, Status};

use super::types::{Membership, Peer};

/// This node. Only the cluster may change, once, from none.
#[derive(Debug)]
pub(crate) struct LocalIdentity {
    pub(crate) node: u64,
    pub(crate) incarnation: String,
    pub(crate) address: String,
    /// The only cluster that the configuration lets this node join.
    pub(crate) configured_cluster: Option<ClusterId>,
    cluster: RwLock<Option<ClusterId>>,
}

impl LocalIdentity {
    pub(crate) fn new(
        node: u64,
        incarnation: String,
        address: String,
        configured_cluster: Option<ClusterId>,
        cluster: Option<ClusterId>,
    ) -> Self {
        Self {
            node,
            incarnation,
            address,
            configured_cluster,
            cluster: RwLock::new(cluster),
        }
    }

    pub(crate) fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The node became part of `cluster`; that is on disk already.
    pub(crate) fn on_adopted(&self, cluster: ClusterId) {
        *self.cluster.write().unwrap_or_else(PoisonError::into_inner) = Some(cluster);
    }

    /// What a request from this node to `target` carries.
    pub(crate) fn towards(&self, target: u64, peer: &Peer) -> wire::RaftIdentity {
        wire::RaftIdentity {
            cluster_id: self
                .cluster_id()
                .map(|id| id.to_string())
                .unwrap_or_default(),
            from_node: self.node,
            from_incarnation: self.incarnation.clone(),
            to_node: target,
            to_incarnation: peer.incarnation.clone(),
        }
    }

    /// Whether a request with this identity may go on to Raft.
    pub(crate) fn check(
        &self,
        identity: Option<&wire::RaftIdentity>,
        members: &Membership,
    ) -> Result<(), Mismatch> {
        let mismatch = |kind, expected: &dyn ToString, received: &dyn ToString| {
            Err(Mismatch {
                kind,
                expected: expected.to_string(),
                received: received.to_string(),
            })
        };
        let Some(identity) = identity else {
            return mismatch(MismatchKind::Cluster, &"an identity", &"none");
        };
        let Some(cluster) = self.cluster_id() else {
            return mismatch(
                MismatchKind::Pristine,
                &"no cluster yet",
                &identity.cluster_id,
            );
        };
        if identity.cluster_id != cluster.as_str() {
            return mismatch(MismatchKind::Cluster, &cluster, &identity.cluster_id);
        }
        if identity.to_node != self.node {
            return mismatch(MismatchKind::TargetNode, &self.node, &identity.to_node);
        }
        if !identity.to_incarnation.is_empty() && identity.to_incarnation != self.incarnation {
            return mismatch(
                MismatchKind::TargetIncarnation,
                &self.incarnation,
                &identity.to_incarnation,
            );
        }
        match members.get_node(&identity.from_node) {
            Some(known) if known.incarnation != identity.from_incarnation => mismatch(
                MismatchKind::SenderIncarnation,
                &known.incarnation,
                &identity.from_incarnation,
            ),
            // A sender that is no member here: this node's log is behind, or the sender's. Raft sorts that out.
            _ => Ok(()),
        }
    }
}

/// What does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MismatchKind {
    /// The receiver belongs to no cluster yet.
    Pristine,
    Cluster,
    TargetNode,
    /// The receiver's disk was wiped, or the sender is thinking of another life of it.
    TargetIncarnation,
    SenderIncarnation,
    /// The sender was a member once.
    SenderRemoved,
}

impl MismatchKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pristine => "pristine",
            Self::Cluster => "cluster",
            Self::TargetNode => "target-node",
            Self::TargetIncarnation => "target-incarnation",
            Self::SenderIncarnation => "sender-incarnation",
            Self::SenderRemoved => "sender-removed",
        }
    }
}

/// A request was not meant for this node, or not sent by who it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("raft identity mismatch ({}): expected {expected}, received {received}", .kind.as_str())]
pub(crate) struct Mismatch {
    pub(crate) kind: MismatchKind,
    pub(crate) expected: String,
    pub(crate) received: String,
}

impl Mismatch {
    /// As the answer to the request.
    pub(crate) fn into_status(self) -> Status {
        let message = self.to_string();
        let details = wire::RaftMismatch {
            kind: self.kind.as_str().to_owned(),
            expected: self.expected,
            received: self.received,
        };
        Status::with_details(
            Code::FailedPrecondition,
            message,
            details.encode_to_vec().into(),
        )
    }
}

/// Whether this answer is a [`Mismatch`].
pub(crate) fn is_mismatch(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
        && wire::RaftMismatch::decode(status.details()).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn local(cluster: Option<&str>) -> LocalIdentity {
        let cluster = cluster.map(|id| id.parse().unwrap());
        LocalIdentity::new(2, "life-2".to_owned(), "b:1".to_owned(), None, cluster)
    }

    fn members() -> Membership {
        let peer = |n: u64| {
            (
                n,
                Peer {
                    address: String::new(),
                    incarnation: format!("life-{n}"),
                },
            )
        };
        Membership::new(
            vec![BTreeSet::from([1, 2])],
            BTreeMap::from([peer(1), peer(2)]),
        )
        .unwrap()
    }

    fn identity() -> wire::RaftIdentity {
        wire::RaftIdentity {
            cluster_id: "c".to_owned(),
            from_node: 1,
            from_incarnation: "life-1".to_owned(),
            to_node: 2,
            to_incarnation: "life-2".to_owned(),
        }
    }

    #[test]
    fn each_thing_that_does_not_fit_is_refused_by_name() {
        use MismatchKind::*;
        let c = || Some("c");
        let with = |change: fn(&mut wire::RaftIdentity)| {
            let mut identity = identity();
            change(&mut identity);
            Some(identity)
        };
        let table = [
            (c(), Some(identity()), None),
            (c(), with(|identity| identity.to_incarnation.clear()), None),
            (c(), with(|identity| identity.from_node = 9), None),
            (None, Some(identity()), Some(Pristine)),
            (Some("other"), Some(identity()), Some(Cluster)),
            (c(), None, Some(Cluster)),
            (c(), with(|identity| identity.to_node = 3), Some(TargetNode)),
            (
                c(),
                with(|identity| identity.to_incarnation = "life-0".to_owned()),
                Some(TargetIncarnation),
            ),
            (
                c(),
                with(|identity| identity.from_incarnation = "life-0".to_owned()),
                Some(SenderIncarnation),
            ),
        ];
        for (cluster, identity, expected) in table {
            let refused = local(cluster).check(identity.as_ref(), &members()).err();
            assert_eq!(
                refused.as_ref().map(|mismatch| mismatch.kind),
                expected,
                "{identity:?}"
            );
            if let Some(mismatch) = refused {
                assert!(is_mismatch(&mismatch.into_status()));
            }
        }
    }
}
