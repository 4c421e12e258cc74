//! Reads a backup. It is the snapshot file of a member, byte for byte: it names its cluster, its place in the log and the
//! members, and it has a CRC on every frame and a hash of the whole, so nothing else has to be kept with it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use flott_proto::ids::{ClusterId, NodeId};
use sha2::{Digest, Sha256};

use super::super::codec;
use super::super::error::RaftError;
use super::super::snapshot::format::{SnapshotError, SnapshotReader};
use super::Position;
use crate::core::{ClusterState, FeatureLevels};

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub cluster: ClusterId,
    /// The clusters that it went on from, oldest first.
    pub predecessors: Vec<String>,
    pub position: Position,
    pub epoch: u64,
    /// Milliseconds since the epoch: the time of the last entry that it has.
    pub log_time_ms: i64,
    pub feature_level: u32,
    /// Of the key-value spaces.
    pub revision: u64,
    pub records: u64,
    pub jobs: usize,
    /// Of them, those that have not ended.
    pub jobs_active: usize,
    pub keys: usize,
    /// Ids and addresses.
    pub members: Vec<(NodeId, String)>,
    pub bytes: u64,
    /// Of the file, in hex.
    pub sha256: String,
}

/// A backup that was read and is whole.
#[derive(Debug)]
pub(crate) struct Backup {
    pub(crate) manifest: Manifest,
    pub(crate) state: ClusterState,
}

/// Counts and hashes what is read through it.
struct Hashing<R> {
    input: R,
    hash: Sha256,
    bytes: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// Reads and checks a whole backup, as far as that it could be restored with this binary. Blocks on the disk.
pub(crate) fn read(path: &Path) -> Result<Backup, RaftError> {
    let unusable = |what: String| {
        RaftError::Refused(format!("{} is no usable backup: {what}", path.display()))
    };
    let checked = |error: SnapshotError| match error {
        SnapshotError::Io(source) => RaftError::storage("read", path)(source),
        other => unusable(other.to_string()),
    };
    let file = File::open(path).map_err(RaftError::storage("open", path))?;
    let mut hashing = Hashing {
        input: BufReader::new(file),
        hash: Sha256::new(),
        bytes: 0,
    };
    let (reader, meta) = SnapshotReader::new(&mut hashing).map_err(checked)?;
    let records = reader.into_records().map_err(checked)?;
    let count = records.len() as u64;
    let cluster: ClusterId = meta
        .cluster_id
        .parse()
        .map_err(|error| unusable(format!("it names no cluster: {error}")))?;
    let meta = codec::snapshot_meta_from_wire(meta).map_err(|error| unusable(error.to_string()))?;
    let last = meta
        .last_log_id
        .ok_or_else(|| unusable("it is of a group that had decided nothing".to_owned()))?;
    let state = ClusterState::from_records(records).map_err(|error| unusable(error.to_string()))?;
    let supported = FeatureLevels::BUILD;
    if !supported.supports(state.feature_level) {
        return Err(unusable(format!(
            "it is of feature level {} and this binary supports {supported}; use the version that the group ran",
            state.feature_level
        )));
    }
    let hash = hashing.hash.finalize();
    let manifest = Manifest {
        predecessors: state.predecessors().map(str::to_owned).collect(),
        position: Position {
            term: codec::term_of(&last),
            index: last.index,
        },
        epoch: state.epoch.0,
        log_time_ms: state.log_time_ms,
        feature_level: state.feature_level,
        revision: state.revision,
        records: count,
        jobs: state.jobs.len(),
        jobs_active: state.active_jobs().count(),
        keys: state.kv.values().map(|space| space.len()).sum(),
        members: meta
            .last_membership
            .nodes()
            .map(|(id, peer)| (NodeId(*id), peer.address.clone()))
            .collect(),
        bytes: hashing.bytes,
        sha256: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        cluster,
    };
    Ok(Backup { manifest, state })
}
