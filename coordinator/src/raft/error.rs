//! What can go wrong between this process and its Raft group. Each variant is a decision of the caller.

use std::io;
use std::path::{Path, PathBuf};

use flott_proto::ids::NodeId;

/// Why a Raft node did not start, or could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// Stop the other process, or configure another directory.
    #[error(
        "data directory {path} is in use by {holder}; stop that process or configure another \
         high-availability.raft.dir"
    )]
    InUse { path: PathBuf, holder: String },
    #[error(
        "data directory {path} belongs to cluster {found}, not to {expected}; configure the directory of cluster \
         {expected}, or high-availability.cluster-id: {found}"
    )]
    OtherCluster {
        path: PathBuf,
        found: String,
        expected: String,
    },
    #[error(
        "data directory {path} belongs to node {found}, not to {expected}; node ids are never reused: configure \
         high-availability.raft.node-id: {found}, or an empty directory"
    )]
    OtherNode {
        path: PathBuf,
        found: NodeId,
        expected: NodeId,
    },
    #[error(
        "data directory {path} has format {found}, this binary reads {supported}; start the version that wrote it, or empty \
         the directory and join again as a new node"
    )]
    UnsupportedFormat {
        path: PathBuf,
        found: u32,
        supported: u32,
    },
    /// Nothing in it may be trusted any more.
    #[error(
        "raft data in {path} is corrupt: {what}; remove this node from the cluster, empty the directory and join again \
         as a new node"
    )]
    Corrupt { path: PathBuf, what: String },
    #[error("cannot {action} {path}; check the disk and its permissions")]
    Storage {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("raft configuration: {0}")]
    Configuration(String),
    /// `initialize` is for pristine nodes only.
    #[error(
        "{address} already belongs to cluster {cluster_id}; only nodes with empty data directories form a cluster"
    )]
    NotPristine { address: String, cluster_id: String },
    #[error("jobmanager at {address} {what}")]
    Peer { address: String, what: String },
    /// Ask the leader instead.
    #[error("this jobmanager does not lead (leader: {})", .leader.as_deref().unwrap_or("unknown"))]
    NotLeader { leader: Option<String> },
    #[error("no other voter is up to date and reachable")]
    NoSuccessor,
    #[error("{0}")]
    NoSuchMember(String),
    /// It would be dangerous, or makes no sense; the text says why and what to do.
    #[error("{0}")]
    Refused(String),
    /// Wait until it is done.
    #[error(
        "{0} is under way, and the group changes in one way at a time; wait until that is done"
    )]
    ChangeInProgress(String),
    /// This node has no group any more.
    #[error(
        "this jobmanager, node {node}, was removed from its group (log entry {removed_at}); its data directory {path} is \
         of no further use: delete it. To take part again, start it with an empty directory and run `flott cluster \
         members add` with its address"
    )]
    Removed {
        path: PathBuf,
        node: NodeId,
        removed_at: u64,
    },
    /// Ended while it still could write.
    #[error(
        "the disk of data directory {path} has {free_mb} MB left, less than high-availability.raft.disk-free-hard \
         ({hard_mb} MB); free some room and start this jobmanager again: nothing is lost"
    )]
    DiskFull {
        path: PathBuf,
        free_mb: u64,
        hard_mb: u64,
    },
    /// What it would answer is wrong, and what it would decide too.
    #[error(
        "the state of this jobmanager, node {node}, differs from that of a majority of its group at log entry {index}; \
         nothing in its data directory {path} is to be trusted. Keep a copy for the developers, remove the node with \
         `flott cluster members remove {node}`, empty the directory and join again as a new node"
    )]
    Diverged {
        path: PathBuf,
        node: NodeId,
        index: u64,
    },
    /// The group of this node has a successor, and no say any more.
    #[error(
        "cluster {successor} goes on from the state of cluster {cluster_id}, after a restore or a recovery, so the data \
         directory {path} is of no further use. To take part in {successor}, start this jobmanager with an empty directory \
         and run `flott cluster members add` with its address"
    )]
    Superseded {
        path: PathBuf,
        cluster_id: String,
        successor: String,
    },
    /// The group does what this binary does not know; the text says what to start.
    #[error("{0}")]
    Unsupported(String),
    /// It may still happen.
    #[error("{0} did not happen in time")]
    TimedOut(&'static str),
    #[error("the raft node is shut down")]
    Shutdown,
    /// The process cannot take part any more and has to end.
    #[error("raft stopped: {0}")]
    Fatal(String),
}

/// Work on another thread panicked.
impl From<tokio::task::JoinError> for RaftError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Fatal(error.to_string())
    }
}

impl RaftError {
    pub(crate) fn storage(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Storage {
            path,
            action,
            source,
        }
    }

    pub(crate) fn corrupt(path: &Path, what: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    pub(crate) fn peer(address: &str, what: impl Into<String>) -> Self {
        Self::Peer {
            address: address.to_owned(),
            what: what.into(),
        }
    }
}

/// Why a proposal did not come back applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It is in no log. Ask `leader`, if there is one.
    #[error("this jobmanager does not lead (leader: {})", .leader.as_deref().unwrap_or("unknown"))]
    NotLeader { leader: Option<String> },
    /// It is in no log: no log entry may be that large.
    #[error("command of {bytes} bytes exceeds the {max} bytes that a raft entry may have")]
    TooLarge { bytes: usize, max: usize },
    /// It may or may not be applied, now or later; look at the state before proposing again.
    #[error("it is unknown whether the command was or will be applied")]
    Unknown,
    /// It is in no log; this process is ending.
    #[error("the raft node is shut down")]
    Shutdown,
}
