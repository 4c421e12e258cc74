//! What an observer sees of a node of a simulation, between two of its steps.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::PoisonError;

use flott_proto::wire::command::Decision;
use openraft::EntryPayload;
use openraft::async_runtime::WatchReceiver;
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use super::codec;
use super::log_store::LogReader;
use super::node::{Raft, RaftNode};
use super::types::Entry;
use crate::core::{ClusterState, Digester};

/// Looks at one node. Does not keep its process alive.
pub struct Probe {
    raft: Raft,
    log: LogReader,
    node: RaftNode,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").finish_non_exhaustive()
    }
}

/// What a log entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A leader's first.
    Blank,
    /// A decision.
    Command,
    /// A leader takes office.
    Activation,
    /// Who may vote: two sets while one takes over from the other.
    Membership(Vec<BTreeSet<u64>>),
}

/// An entry as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "as Raft has them")]
pub struct LogEntry {
    pub term: u64,
    pub index: u64,
    pub kind: Kind,
    /// Of what it says.
    pub hash: u64,
}

/// A node at one moment. Indexes are those of the log; terms those of the entries there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as Raft has them")]
pub struct Seen {
    pub node: u64,
    pub term: u64,
    pub voted_for: u64,
    /// It leads in [`Self::term`].
    pub is_leader: bool,
    /// Its lease is valid.
    pub has_lease: bool,
    pub purged: Option<(u64, u64)>,
    pub last: Option<(u64, u64)>,
    pub committed: Option<(u64, u64)>,
    /// Of the state that is published.
    pub applied: u64,
    pub snapshot: Option<(u64, u64)>,
    /// How often the log was cut.
    pub cuts: u64,
    /// The voters, in two sets while one takes over from the other; and who has no vote.
    pub voters: Vec<BTreeSet<u64>>,
    pub learners: BTreeSet<u64>,
    pub epoch: u64,
    pub revision: u64,
}

impl Probe {
    /// How the node is.
    pub fn look(&self) -> Seen {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let pair = |id: &super::types::LogId| (codec::term_of(id), id.index);
        let membership = metrics.membership_config.membership();
        let state = self.node.state();
        let voters = membership.get_joint_config().clone();
        let has_vote = |id: &u64| voters.iter().any(|set| set.contains(id));
        let learners = membership.nodes().map(|(id, _)| *id);
        let learners = learners.filter(|id| !has_vote(id)).collect();
        let log = self.log.view();
        Seen {
            node: metrics.id,
            term: metrics.vote.leader_id.term,
            voted_for: metrics.vote.leader_id.voted_for,
            is_leader: metrics.state.is_leader() && metrics.running_state.is_ok(),
            has_lease: self.node.lease_is_valid(),
            purged: log.purged.as_ref().map(pair),
            last: log.last.as_ref().map(pair),
            committed: log.committed.as_ref().map(pair),
            applied: *self.node.applied().borrow(),
            snapshot: metrics.snapshot.as_ref().map(pair),
            cuts: log.cuts,
            voters,
            learners,
            epoch: state.epoch.0,
            revision: state.revision,
        }
    }

    /// The entries from `start` on, before `end`; at most about a megabyte of them.
    pub fn entries(&self, start: u64, end: u64) -> io::Result<Vec<LogEntry>> {
        let read = self.log.read_some(start, end)?;
        Ok(read.iter().map(describe).collect())
    }

    /// A digest of the applied state.
    pub fn digest(&self) -> u128 {
        Digester::default().digest(&self.node.state())
    }

    /// The applied state.
    pub fn state(&self) -> std::sync::Arc<ClusterState> {
        self.node.state()
    }
}

fn describe(entry: &Entry) -> LogEntry {
    let (kind, hash) = match &entry.payload {
        EntryPayload::Blank => (Kind::Blank, 0),
        EntryPayload::Normal(proposal) => {
            let activates = matches!(
                proposal.command().decision,
                Some(Decision::ActivateJobManager(_))
            );
            let kind = if activates {
                Kind::Activation
            } else {
                Kind::Command
            };
            (kind, xxh3_64(proposal.bytes()))
        }
        EntryPayload::Membership(membership) => {
            let voters = membership.get_joint_config().clone();
            let encoded = codec::entry_to_wire(entry).encode_to_vec();
            (Kind::Membership(voters), xxh3_64(&encoded))
        }
    };
    LogEntry {
        term: codec::term_of(&entry.log_id),
        index: entry.log_id.index,
        kind,
        hash,
    }
}

impl RaftNode {
    /// What an observer sees of this node, for as long as it is not shut down.
    pub fn probe(&self) -> Probe {
        let inner = self.inner();
        let running = inner.running.lock().unwrap_or_else(PoisonError::into_inner);
        let running = running.as_ref().expect("it has not been shut down");
        Probe {
            raft: inner.raft.clone(),
            log: running.log.clone(),
            node: self.clone(),
        }
    }

    /// Has a snapshot made now.
    pub async fn make_snapshot(&self) -> bool {
        self.inner().raft.trigger().snapshot().await.is_ok()
    }
}
