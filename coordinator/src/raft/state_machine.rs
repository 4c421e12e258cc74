//! Carries out committed entries on the replicated state, publishes it, and makes and takes snapshots of it.
//!
//! The state is in memory. What is durable is the last snapshot and the log behind it: a start loads the snapshot and
//! openraft applies the log again up to the committed position.
//!
//! What must stay true:
//!
//! - A state is published before the responses that it contains are given, so that whoever was told "applied" also
//!   sees it.
//! - A snapshot is taken from a clone made between two entries; the clone costs nothing (persistent maps).
//! - A command that this binary does not know halts the node. Skipping it would let the members' states differ.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use flott_node::Mutant;
use flott_proto::ids::NodeId;
use flott_proto::wire::{self, command::Decision};
use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use tokio::sync::watch;
use tokio::task;

use super::error::RaftError;
use super::identity::LocalIdentity;
use super::snapshot::{SnapshotFile, SnapshotStore};
use super::types::{LogId, Membership, Peer, SnapshotMeta, StoredMembership, TypeConfig};
use crate::core::{ClusterState, Digester, FeatureLevels, KvChanges, Response};
use crate::kv::watches::Watches;

/// Entries after which a long series is published. Readers and proposers then do not wait for all of it.
const PUBLISH_ENTRIES_MAX: usize = 256;

/// Digests of the state that are remembered: members are not all at the same one.
const DIGESTS_KEPT: usize = 8;

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotFile>;

/// The latest applied state, for everyone in the process.
pub(crate) struct Published {
    state: ArcSwap<ClusterState>,
    applied: watch::Sender<u64>,
    /// Like `applied`, but only when what a leader plans from has changed.
    planned: watch::Sender<u64>,
    watches: Arc<Watches>,
    digests: Mutex<VecDeque<(u64, u128)>>,
}

impl fmt::Debug for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published")
            .field("applied", &*self.applied.borrow())
            .finish_non_exhaustive()
    }
}

impl Published {
    pub(crate) fn new() -> Self {
        Self {
            state: ArcSwap::default(),
            applied: watch::Sender::new(0),
            planned: watch::Sender::new(0),
            watches: Arc::default(),
            digests: Mutex::default(),
        }
    }

    pub(crate) fn state(&self) -> Arc<ClusterState> {
        self.state.load_full()
    }

    pub(crate) fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    pub(crate) fn planned(&self) -> watch::Receiver<u64> {
        self.planned.subscribe()
    }

    pub(crate) fn watches(&self) -> Arc<Watches> {
        Arc::clone(&self.watches)
    }

    /// The last digests of the state, with the log indexes of their `CheckState`s, oldest first.
    pub(crate) fn digests(&self) -> Vec<(u64, u128)> {
        self.lock_digests().iter().copied().collect()
    }

    fn add_digest(&self, index: u64, digest: u128) {
        let mut digests = self.lock_digests();
        if digests.len() == DIGESTS_KEPT {
            digests.pop_front();
        }
        digests.push_back((index, digest));
    }

    fn lock_digests(&self) -> MutexGuard<'_, VecDeque<(u64, u128)>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, state: &ClusterState, applied: Option<&LogId>, told: &mut Vec<KvChanges>) {
        let before = self.state.swap(Arc::new(state.clone()));
        self.watches.publish(told, state.revision);
        let index = applied.map_or(0, |id| id.index);
        self.applied.send_replace(index);
        if !before.plans_like(state) {
            self.planned.send_replace(index);
        }
    }
}

/// Why this binary cannot carry out the log any further, in words for its operator.
#[derive(Debug, Default)]
pub(crate) struct Halt(OnceLock<String>);

impl Halt {
    /// What openraft is told, which stops at it.
    fn because(&self, what: String) -> io::Error {
        let error = io::Error::new(io::ErrorKind::Unsupported, what.clone());
        // The first reason is the reason.
        let _ = self.0.set(what);
        error
    }

    /// The failure of the node, if this is the reason.
    pub(crate) fn reason(&self) -> Option<RaftError> {
        self.0
            .get()
            .map(|what| RaftError::Unsupported(what.clone()))
    }
}

/// The replicated state and where in the log it is.
#[derive(Debug)]
pub(crate) struct StateMachine {
    state: ClusterState,
    applied: Option<LogId>,
    membership: StoredMembership,
    published: Arc<Published>,
    snapshots: Arc<SnapshotStore>,
    identity: Arc<LocalIdentity>,
    features: FeatureLevels,
    halt: Arc<Halt>,
    /// Changes of keys that are applied and not yet published.
    told: Vec<KvChanges>,
    digester: Digester,
}

impl StateMachine {
    /// An empty state; openraft then restores the current snapshot and the log.
    pub(crate) fn new(
        published: Arc<Published>,
        snapshots: Arc<SnapshotStore>,
        identity: Arc<LocalIdentity>,
        features: FeatureLevels,
        halt: Arc<Halt>,
    ) -> Self {
        Self {
            state: ClusterState::default(),
            applied: None,
            membership: StoredMembership::default(),
            published,
            snapshots,
            identity,
            features,
            halt,
            told: Vec::new(),
            digester: Digester::default(),
        }
    }

    fn apply_command(&mut self, index: u64, command: &wire::Command) -> io::Result<Response> {
        if command.decision.is_none() {
            let what = format!(
                "raft log entry {index} has a command that this binary does not know; start the version that the \
                 other jobmanagers run"
            );
            return Err(self.halt.because(what));
        }
        let response = self.state.apply_and_tell(index, command, &mut self.told);
        check_level(&self.state, self.features, &self.halt)?;
        if matches!(command.decision, Some(Decision::CheckState(_))) {
            let digest = self.digester.digest(&self.state);
            self.published.add_digest(index, digest);
        }
        Ok(response)
    }

    /// Makes this member's state another one than the group's.
    #[cfg(test)]
    pub(super) fn damage(&mut self) {
        self.state.revision += 1;
    }

    /// The membership is another one from this entry on.
    fn apply_membership(&mut self, log_id: LogId, membership: &Membership) {
        let after = StoredMembership::new(Some(log_id), membership.clone());
        self.state
            .on_membership(log_id.index, &lives(&self.membership), &lives(&after));
        self.membership = after;
    }

    /// Makes everything applied so far visible, then answers those who wait for it.
    fn publish(&mut self, answers: &mut Vec<(ApplyResponder<TypeConfig>, Option<Response>)>) {
        self.published
            .publish(&self.state, self.applied.as_ref(), &mut self.told);
        for (responder, response) in answers.drain(..) {
            responder.send(response);
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut entries = pin!(entries);
        let mut answers = Vec::new();
        let mut unpublished = 0;
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let response = match &entry.payload {
                EntryPayload::Blank => None,
                EntryPayload::Normal(proposal) => {
                    Some(self.apply_command(entry.log_id.index, proposal.command())?)
                }
                EntryPayload::Membership(membership) => {
                    self.apply_membership(entry.log_id, membership);
                    None
                }
            };
            self.applied = Some(entry.log_id);
            answers.extend(responder.map(|responder| (responder, response)));
            unpublished += 1;
            if unpublished == PUBLISH_ENTRIES_MAX {
                self.publish(&mut answers);
                unpublished = 0;
            }
        }
        self.publish(&mut answers);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            state: self.state.clone(),
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            snapshots: Arc::clone(&self.snapshots),
            identity: Arc::clone(&self.identity),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let (snapshots, meta) = (Arc::clone(&self.snapshots), meta.clone());
        let (features, halt) = (self.features, Arc::clone(&self.halt));
        let (state, meta) = blocking(move || {
            let (found, records) = snapshot.read().map_err(io::Error::other)?;
            if found != meta {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "snapshot is not the one that was announced",
                ));
            }
            let state = ClusterState::from_records(records).map_err(io::Error::other)?;
            check_level(&state, features, &halt)?;
            snapshots.install(&meta, snapshot)?;
            Ok((state, meta))
        })
        .await?;
        self.state = state;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership;
        self.published.watches.reset(self.state.revision);
        self.publish(&mut Vec::new());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self
            .snapshots
            .current()
            .map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// Whether this binary may go on with that state.
fn check_level(state: &ClusterState, features: FeatureLevels, halt: &Halt) -> io::Result<()> {
    if features.supports(state.feature_level) {
        return Ok(());
    }
    Err(halt.because(format!(
        "the group is at feature level {} and this binary ({}) supports {features}; start the version that the other \
         jobmanagers run",
        state.feature_level,
        env!("CARGO_PKG_VERSION")
    )))
}

/// All members with their incarnations.
pub(super) fn lives(membership: &StoredMembership) -> BTreeMap<NodeId, &str> {
    fn life<'a>((id, peer): (&u64, &'a Peer)) -> (NodeId, &'a str) {
        (NodeId(*id), &peer.incarnation)
    }
    membership.nodes().map(life).collect()
}

/// A frozen state, to be written while the state machine goes on.
#[derive(Debug)]
pub(crate) struct SnapshotBuilder {
    state: ClusterState,
    meta: SnapshotMeta,
    snapshots: Arc<SnapshotStore>,
    identity: Arc<LocalIdentity>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (state, meta, snapshots) = (
            self.state.clone(),
            self.meta.clone(),
            Arc::clone(&self.snapshots),
        );
        let cluster_id = self
            .identity
            .cluster_id()
            .map(|id| id.to_string())
            .unwrap_or_default();
        let snapshot = {
            let meta = meta.clone();
            let mut state = state;
            if Mutant::SnapshotWithoutKeys.is_planted() {
                state.kv = Default::default();
            }
            blocking(move || snapshots.write(&meta, &cluster_id, state.records())).await?
        };
        Ok(Snapshot { meta, snapshot })
    }
}

/// Runs disk work where it delays no heartbeat.
pub(crate) async fn blocking<T, E>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<task::JoinError> + Send + 'static,
{
    flott_node::spawn_blocking(work).await?
}
