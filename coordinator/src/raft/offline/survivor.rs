//! What one data directory has: where its log ends, and the state at that end.
//!
//! The state is that of the newest snapshot with the whole log behind it applied, committed or not: entries of which nobody
//! can know any more whether they were committed are committed by going on from them. An entry that was committed is never
//! left out that way, as long as the log is the most advanced that is left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flott_proto::ids::NodeId;
use flott_proto::wire;
use openraft::EntryPayload;

use super::super::codec::term_of;
use super::super::error::RaftError;
use super::super::log_store::{LogOptions, LogReader};
use super::super::start::{Storage, open_storage};
use super::super::state_machine::lives;
use super::super::types::{Entry, LogId, StoredMembership};
use super::Position;
use super::rules::Electorate;
use crate::core::{ClusterState, FeatureLevels};

/// What a data directory says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    pub dir: PathBuf,
    pub node: NodeId,
    pub incarnation: String,
    /// Empty if it never belonged to one.
    pub cluster: String,
    /// The highest term that it has voted in.
    pub term: u64,
    /// Where its log ends.
    pub last: Position,
    /// Up to where it knows the log to be committed; more may be.
    pub committed: Option<u64>,
    /// Of the newest snapshot.
    pub snapshot: Option<u64>,
    /// Ids and addresses, as its log has them.
    pub voters: BTreeMap<NodeId, String>,
    pub learners: BTreeMap<NodeId, String>,
    /// Why this directory is of no use to a group any more, if so.
    pub retired: Option<String>,
}

/// A data directory that this process holds.
pub(crate) struct Held {
    pub(crate) survivor: Survivor,
    pub(crate) membership: StoredMembership,
    storage: Storage,
    dir: PathBuf,
}

fn position(id: Option<LogId>) -> Position {
    id.map_or_else(Position::default, |id| Position {
        term: term_of(&id),
        index: id.index,
    })
}

impl Held {
    /// Opens the directory, which must have data and not be in use by a process. Blocks on the disk.
    pub(crate) fn open(dir: &Path) -> Result<Self, RaftError> {
        if !super::super::takeover::is_in_use(dir) {
            return Err(RaftError::Refused(format!(
                "{} has no data of a JobManager; name the directory that its high-availability.raft.dir says",
                dir.display()
            )));
        }
        let options = LogOptions {
            // Nothing is promised to anybody here.
            exit: Arc::new(|| {}),
            ..LogOptions::default()
        };
        let storage = open_storage(dir, options)?;
        let marker = storage.marker.clone().unwrap_or_default();
        let (snapshot_last, mut membership) = match storage.snapshots.current() {
            Some((meta, _)) => (meta.last_log_id, meta.last_membership),
            None => (None, StoredMembership::default()),
        };
        let log = storage.log.reader();
        let corrupt = |error: std::io::Error| RaftError::corrupt(dir, error.to_string());
        for_each_after(&log, snapshot_last, |entry| {
            if let EntryPayload::Membership(next) = &entry.payload {
                membership = StoredMembership::new(Some(entry.log_id), next.clone());
            }
            Ok(())
        })
        .map_err(corrupt)?;
        let last = storage.log.last().max(snapshot_last);
        let vote_term = storage.log.vote_term();
        let named = |ids: Vec<u64>| {
            let address = |id: &u64| membership.get_node(id).map(|peer| peer.address.clone());
            ids.into_iter()
                .map(|id| (NodeId(id), address(&id).unwrap_or_default()))
                .collect()
        };
        let survivor = Survivor {
            dir: dir.to_owned(),
            node: NodeId(marker.node),
            incarnation: marker.incarnation.clone(),
            cluster: marker.cluster_id.clone(),
            term: vote_term,
            last: position(last),
            committed: storage.log.committed().map(|id| id.index),
            snapshot: snapshot_last.map(|id| id.index),
            voters: named(membership.voter_ids().collect()),
            learners: named(membership.membership().learner_ids().collect()),
            retired: retired(&marker),
        };
        Ok(Self {
            survivor,
            membership,
            storage,
            dir: dir.to_owned(),
        })
    }

    pub(crate) fn electorate(&self) -> Electorate {
        let membership = self.membership.membership();
        Electorate {
            voters: membership.get_joint_config().clone(),
            addresses: membership
                .nodes()
                .map(|(id, peer)| (*id, peer.address.clone()))
                .collect(),
        }
    }

    /// The state at the end of the log. Blocks on the disk.
    pub(crate) fn replay(&self) -> Result<ClusterState, RaftError> {
        let corrupt = |what: String| RaftError::corrupt(&self.dir, what);
        let (mut state, mut membership, from) = match self.storage.snapshots.current() {
            Some((_, file)) => {
                let (meta, records) = file.read().map_err(|error| corrupt(error.to_string()))?;
                let state = ClusterState::from_records(records)
                    .map_err(|error| corrupt(error.to_string()))?;
                (state, meta.last_membership, meta.last_log_id)
            }
            None => (ClusterState::default(), StoredMembership::default(), None),
        };
        let mut unsupported = supported(&state).err();
        let log = self.storage.log.reader();
        for_each_after(&log, from, |entry| {
            if unsupported.is_some() {
                return Ok(());
            }
            let index = entry.log_id.index;
            match &entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(proposal) if proposal.command().decision.is_none() => {
                    unsupported = Some(format!(
                        "log entry {index} has a command that this binary does not know"
                    ));
                }
                EntryPayload::Normal(proposal) => {
                    state.apply(index, proposal.command());
                    unsupported = supported(&state).err();
                }
                EntryPayload::Membership(next) => {
                    let after = StoredMembership::new(Some(entry.log_id), next.clone());
                    state.on_membership(index, &lives(&membership), &lives(&after));
                    membership = after;
                }
            }
            Ok(())
        })
        .map_err(|error| corrupt(error.to_string()))?;
        match unsupported {
            Some(what) => Err(RaftError::Refused(format!(
                "{}: {what}; use the version that the group ran",
                self.dir.display()
            ))),
            None => Ok(state),
        }
    }

    /// The highest term that this member has heard of.
    pub(crate) fn highest_term(&self) -> u64 {
        self.survivor.term.max(self.survivor.last.term)
    }

    /// Lets go of the directory. Blocks until that is done.
    pub(crate) fn close(self) {
        self.storage.close();
    }
}

fn supported(state: &ClusterState) -> Result<(), String> {
    let (level, supported) = (state.feature_level, FeatureLevels::BUILD);
    if supported.supports(level) {
        return Ok(());
    }
    Err(format!(
        "the group is at feature level {level} and this binary supports {supported}"
    ))
}

fn retired(marker: &wire::RaftStorageMarker) -> Option<String> {
    if marker.removed_at != 0 {
        return Some(format!(
            "it was removed from its group by entry {}",
            marker.removed_at
        ));
    }
    let successor = &marker.superseded_by;
    (!successor.is_empty()).then(|| format!("cluster {successor} goes on from its group"))
}

/// Hands over the entries after `from`, in order, a bounded number at a time in memory.
fn for_each_after(
    log: &LogReader,
    from: Option<LogId>,
    mut each: impl FnMut(Entry) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let Some((first, last)) = log.bounds() else {
        return Ok(());
    };
    let mut next = from.map_or(first, |id| first.max(id.index + 1));
    while next <= last {
        let entries = log.read_some(next, last + 1)?;
        if entries.is_empty() {
            let what = format!("entry {next} is missing");
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
        }
        for entry in entries {
            next = entry.log_id.index + 1;
            each(entry)?;
        }
    }
    Ok(())
}
