//! Writes the data directory of a group of one, which begins with a given state.
//!
//! ```text
//!   snapshot of the state, "up to entry n"  +  a log that is purged up to n  +  a vote of a term that nobody has had
//! ```
//!
//! That is how any member's directory looks after its log was purged, so a start finds nothing special.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flott_proto::ids::ClusterId;
use flott_proto::wire;
use openraft::storage::RaftLogStorage;

use super::super::directory::DataDirectory;
use super::super::error::RaftError;
use super::super::log_store::{LogOptions, LogStore};
use super::super::snapshot::SnapshotStore;
use super::super::state_machine::blocking;
use super::super::takeover;
use super::super::types::{Ballot, LogId, Membership, Peer, SnapshotMeta, StoredMembership};
use crate::core::ClusterState;

/// What a new group begins with.
#[derive(Debug)]
pub(crate) struct Founding {
    pub(crate) cluster: ClusterId,
    /// With the new member's node id and incarnation, and no cluster yet.
    pub(crate) marker: wire::RaftStorageMarker,
    /// Where the member is reached, host:port.
    pub(crate) address: String,
    pub(crate) state: ClusterState,
    /// The log index that the state is the state of.
    pub(crate) index: u64,
    /// The highest term that any member of the old group is known to have had.
    pub(crate) term: u64,
}

/// Writes the directory that `held` is, whose contents are kept beside the new ones; where, if there were any.
pub(crate) async fn write(
    held: &DataDirectory,
    founding: Founding,
) -> Result<Option<PathBuf>, RaftError> {
    let dir = held.path().to_owned();
    let cluster = founding.cluster.clone();
    let next = {
        let dir = dir.clone();
        blocking(move || takeover::begin(&dir).map_err(RaftError::storage("prepare", &dir))).await?
    };
    write_contents(&next, founding).await?;
    blocking(move || {
        takeover::commit(&dir, cluster.as_str()).map_err(RaftError::storage("replace", &dir))
    })
    .await
}

async fn write_contents(next: &Path, founding: Founding) -> Result<(), RaftError> {
    let Founding {
        cluster,
        mut marker,
        address,
        state,
        index,
        term,
    } = founding;
    let term = term + 1;
    let last = LogId::new_term_index(term, index);
    let peer = Peer {
        address,
        incarnation: marker.incarnation.clone(),
    };
    let membership = Membership::new(
        vec![BTreeSet::from([marker.node])],
        BTreeMap::from([(marker.node, peer)]),
    );
    let membership = membership.map_err(|error| RaftError::Configuration(error.to_string()))?;
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: StoredMembership::new(Some(last), membership),
    };
    let vote = Ballot::new(term, marker.node);
    marker.cluster_id = cluster.to_string();

    let path = next.to_owned();
    let (mut log, writer) = blocking(move || {
        let directory = DataDirectory::open(&path)?;
        let snapshots = directory.snapshots();
        let store = SnapshotStore::open(&snapshots)?;
        store
            .write(&meta, cluster.as_str(), state.records())
            .map_err(RaftError::storage("write", &snapshots))?;
        let options = LogOptions {
            // The error is told; the process has promised nothing.
            exit: Arc::new(|| {}),
            ..LogOptions::default()
        };
        let (log, _, writer) = LogStore::open(directory, options)?;
        Ok::<_, RaftError>((log, writer))
    })
    .await?;
    let failed = || RaftError::storage("write", next);
    // The purge is on disk with the vote, and that before the marker, without which there is no member.
    log.purge(last).await.map_err(failed())?;
    log.save_vote(&vote).await.map_err(failed())?;
    log.marker_writer().write(&marker).await.map_err(failed())?;
    drop(log);
    let path = next.to_owned();
    blocking(move || {
        writer.join();
        DataDirectory::forget_lock(&path).map_err(RaftError::storage("clean up", &path))
    })
    .await
}

/// Checks what a member's address looks like; the rest shows itself when others connect.
pub(crate) fn check_address(address: &str) -> Result<(), RaftError> {
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty());
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(port) if port != 0 => Ok(()),
        _ => Err(RaftError::Configuration(format!(
            "{address:?} is not an address of the form host:port"
        ))),
    }
}
