//! The Raft group of the JobManagers: what it takes for several processes to decide as one.
//!
//! ```text
//!                    propose                      applied state, leadership
//!      leader.rs ──────────────▶ RaftNode ─────────────────────────────────▶ everyone in the process
//!                                   │
//!                     openraft (its own threads)
//!              ┌────────────────────┼─────────────────────┐
//!          log_store            state_machine          network ⇄ service   (other members)
//!       files, one writer     ClusterState, snapshots    tonic
//! ```
//!
//! Nobody outside this room names openraft: it is an alpha, pinned to one version, and everything that crosses this
//! door is ours. What it leaves open is closed here, and each place says so: leases after a restart ([`service`]), a
//! wiped disk under a known id ([`identity`]), a leader that is cut off ([`RaftNode::lease_is_valid`]), snapshots
//! without a deadline ([`network`]), a restarted leader in its old term ([`config`]). `HAZARDS.md` beside this crate lists
//! all of it with the tests that show it.
//!
//! - [`node`]: the handle. [`start`]: from a directory to a running node. [`config`], [`error`].
//! - [`bootstrap`]: forming a cluster. [`members`]: status, joining, leaving, handing over. [`debug`]: for a bundle.
//! - [`read_index`]: which state may answer a read. [`freshness`]: how old this member's state may be.
//! - [`log_store`], [`snapshot`], [`state_machine`], [`directory`]: what is kept; [`log_bound`]: how much of it;
//!   [`disk_guard`]: what if the disk is full, or hangs.
//! - [`network`], [`service`], [`identity`]: what is said.
//! - [`suspicion`]: a leader that has died is noticed at once.
//! - [`backup`]: a snapshot for an operator. [`offline`]: restoring and recovering, while no member runs; [`takeover`]: new
//!   contents for a data directory.
//! - [`types`], [`codec`]: our types for openraft, and their encoding.

mod backup;
mod bootstrap;
mod codec;
mod config;
mod debug;
mod directory;
mod disk_guard;
mod error;
mod freshness;
mod identity;
mod log_bound;
mod log_store;
mod members;
mod network;
mod node;
pub(crate) mod offline;
#[cfg(feature = "simulation")]
pub(crate) mod probe;
mod read_index;
mod rounds;
mod service;
mod snapshot;
mod start;
mod state_machine;
mod suspicion;
mod takeover;
#[cfg(test)]
mod tests;
mod types;

use std::path::Path;

use flott_proto::ids::NodeId;
use flott_proto::wire::RaftStorageMarker;

use directory::DataDirectory;

pub use config::RaftConfig;
pub use error::{ProposeError, RaftError};
pub use members::{Changed, Health, MemberProgress, MemberRole, MemberStatus};
pub use node::{Applied, COMMAND_BYTES_MAX, Leadership, RaftNode};
pub use service::RaftRpc;

pub(crate) use state_machine::blocking;

/// Takes a data directory, whatever is in it. Blocks on the disk.
pub(crate) fn open_directory(path: &Path) -> Result<DataDirectory, RaftError> {
    DataDirectory::open(path)
}

/// The marker of a member that never was: an incarnation that nobody has had, and a node id if none is given.
pub(crate) fn new_member(node: Option<NodeId>) -> RaftStorageMarker {
    directory::new_marker(node)
}
