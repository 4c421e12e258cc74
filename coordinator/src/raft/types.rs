//! What openraft is told about our types, and the names this room uses for openraft's.
//!
//! Terms have at most one leader (`leader_id_std`), so a term names its leader. A log entry's data is a [`Proposal`]:
//! encoded once, shared by the log writer, every follower's stream and `apply`.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use flott_proto::{Malformed, wire};
use openraft::type_config::alias;
use prost::Message;

use crate::core::Response;

openraft::declare_raft_types!(
    /// Flott's choices for openraft. A blank or membership entry has no response.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Option<Response>,
        NodeId = u64,
        Node = Peer,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Ballot = alias::VoteOf<TypeConfig>;
pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Peer>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;

/// A member as the replicated membership describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Where its gRPC server is reached, `host:port`.
    pub(crate) address: String,
    /// Which life of its data directory was admitted. Another one under the same id is refused.
    pub(crate) incarnation: String,
}

/// A command on its way through the log, with its encoding.
#[derive(Clone, PartialEq)]
pub(crate) struct Proposal(Arc<Encoded>);

#[derive(PartialEq)]
struct Encoded {
    command: wire::Command,
    bytes: Bytes,
}

impl Proposal {
    pub(crate) fn new(command: wire::Command) -> Self {
        let bytes = command.encode_to_vec().into();
        Self(Arc::new(Encoded { command, bytes }))
    }

    /// Inverse of [`Self::bytes`].
    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let command = wire::Command::decode(bytes.clone()).map_err(|error| {
            Malformed::new(
                "raft log entry",
                format!("command does not decode: {error}"),
            )
        })?;
        Ok(Self(Arc::new(Encoded { command, bytes })))
    }

    pub(crate) fn command(&self) -> &wire::Command {
        &self.0.command
    }

    /// The command as it stands in the log and on the wire.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Short, because openraft prints entries.
impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.bytes.len())
    }
}
