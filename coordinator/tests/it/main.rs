//! The coordinator as a whole: several members in one process, real disks, real connections.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod foreign_namespace;
mod raft_cluster;
mod raft_election;
mod raft_levels;
mod raft_membership;
mod raft_partition;
mod raft_recovery;
mod raft_soak;
mod recovery;
mod tls;
