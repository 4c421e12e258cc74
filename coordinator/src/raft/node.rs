//! One member of the Raft group: what the rest of the JobManager sees. [`start`] opens it.
//!
//! openraft, its timers and its connections have their own threads, so that no work of the scheduler can delay a
//! heartbeat. A node that openraft can no longer run (a storage error, a panic) ends the process: its task is marked
//! `OnFailure::Shutdown`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_node::{SharedClock, Tasks};
use flott_proto::ids::{ClusterId, NodeId};
use flott_proto::wire;
use flott_proto::wire::raft_service_server::RaftServiceServer;
use openraft::errors::{ClientWriteError, RaftError as OpenraftError};
use tokio::runtime::{EnterGuard, Handle};
use tokio::sync::{Semaphore, watch};
use tracing::{error, info};

use super::bootstrap::Bootstrap;
use super::config::{RaftConfig, Timing};
use super::disk_guard::DiskGuard;
use super::error::{ProposeError, RaftError};
use super::freshness::Freshness;
use super::identity::LocalIdentity;
use super::log_store::LogOptions;
use super::members::{ChangeSlot, Changed, MemberProgress, MemberStatus, Reporter};
use super::network::{MESSAGE_BYTES_MAX, Network};
use super::read_index::{self, Succession};
use super::service::RaftRpc;
use super::start::{self, Running};
use super::state_machine::{Published, StateMachine};
use super::types::{Proposal, TypeConfig};
use crate::core::{ClusterState, FeatureLevels, Response};
use crate::kv::watches::Watches;

pub(crate) type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// The largest command that any log entry may have. What is larger belongs into object storage.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;

/// Bytes of commands that are proposed and not yet answered. More wait.
pub(super) const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;

/// The unit in which they are counted, so that small commands count too.
pub(super) const IN_FLIGHT_UNIT: usize = 1 << 10;

/// For a proposal to be applied. Without a quorum it would wait for ever.
const PROPOSAL_WAIT: Duration = Duration::from_secs(10);

/// For each part of a shutdown.
pub(super) const SHUTDOWN_WAIT: Duration = Duration::from_secs(5);

/// Who leads, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    /// Id and address.
    pub leader: Option<(NodeId, String)>,
    /// It is this node. A leader that is cut off still believes it: see [`RaftNode::lease_is_valid`].
    pub is_leader: bool,
    /// The addresses of all members.
    pub members: Arc<[String]>,
}

/// A command that was committed and carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Its position in the log.
    pub index: u64,
    pub response: Response,
}

/// One member of the Raft group. Clones are the same node.
#[derive(Clone)]
pub struct RaftNode(Arc<Inner>);

pub(super) struct Inner {
    pub(super) raft: Raft,
    pub(super) identity: Arc<LocalIdentity>,
    pub(super) network: Arc<Network>,
    pub(super) bootstrap: Arc<Bootstrap>,
    pub(super) timing: Timing,
    pub(super) succession: Succession,
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) published: Arc<Published>,
    pub(super) rpc: RaftRpc,
    pub(super) freshness: Arc<Freshness>,
    pub(super) threads: Handle,
    pub(super) in_flight: Semaphore,
    pub(super) shutting_down: Arc<AtomicBool>,
    pub(super) tasks: Tasks,
    pub(super) clock: SharedClock,
    /// What changes the group at present.
    pub(super) changing: Arc<ChangeSlot>,
    pub(super) reporter: Arc<Reporter>,
    pub(super) disk: DiskGuard,
    /// What is left to be stopped.
    pub(super) running: Mutex<Option<Running>>,
}

impl fmt::Debug for RaftNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftNode")
            .field("identity", &self.0.identity)
            .finish_non_exhaustive()
    }
}

impl RaftNode {
    /// Opens the data directory and takes part in the group that it belongs to; a node without a group waits for
    /// [`Self::initialize`], here or elsewhere. [`Self::service`] has to be served at [`RaftConfig::address`].
    ///
    /// Fails if the directory is in use, belongs to another cluster or node, or is damaged; see [`RaftError`].
    pub async fn start(
        config: RaftConfig,
        clock: SharedClock,
        tasks: Tasks,
    ) -> Result<Self, RaftError> {
        Self::start_supporting(FeatureLevels::BUILD, config, clock, tasks).await
    }

    /// The same, as a build with other feature levels would. For tests of mixed versions.
    pub async fn start_supporting(
        features: FeatureLevels,
        config: RaftConfig,
        clock: SharedClock,
        tasks: Tasks,
    ) -> Result<Self, RaftError> {
        start::start(config, features, LogOptions::default(), clock, tasks).await
    }

    pub(super) fn of(inner: Arc<Inner>) -> Self {
        Self(inner)
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    /// The service that the other members call.
    pub fn service(&self) -> RaftServiceServer<RaftRpc> {
        RaftServiceServer::new(self.0.rpc.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What is spawned while the guard is held runs on Raft's own threads: what serves the other members, and clients
    /// whose requests are decided here. Nothing that takes long belongs there, or heartbeats wait for it.
    pub fn enter_threads(&self) -> EnterGuard<'_> {
        self.0.threads.enter()
    }

    pub fn node_id(&self) -> NodeId {
        NodeId(self.0.identity.node)
    }

    /// The life of the data directory.
    pub fn incarnation(&self) -> &str {
        &self.0.identity.incarnation
    }

    /// None while this node belongs to no cluster.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.0.identity.cluster_id()
    }

    /// The only cluster that the configuration lets this node join; None: any.
    pub(crate) fn configured_cluster(&self) -> Option<&ClusterId> {
        self.0.identity.configured_cluster.as_ref()
    }

    /// Forms a cluster of the nodes at `addresses`, this one included; once. All have to be running and pristine. May
    /// be repeated on the same node if it failed half-way.
    pub async fn initialize(&self, addresses: Vec<String>) -> Result<ClusterId, RaftError> {
        self.0.bootstrap.initialize(addresses).await
    }

    /// Has the group commit `command` and returns what it did, once [`Self::state`] contains it.
    pub async fn propose(&self, command: wire::Command) -> Result<Applied, ProposeError> {
        assert!(
            command.decision.is_some(),
            "a command without a decision would halt every member"
        );
        let proposal = Proposal::new(command);
        let bytes = proposal.bytes().len();
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge {
                bytes,
                max: COMMAND_BYTES_MAX,
            });
        }
        if self.0.shutting_down.load(Ordering::Acquire) {
            return Err(ProposeError::Shutdown);
        }
        let units = u32::try_from(bytes.div_ceil(IN_FLIGHT_UNIT).max(1)).unwrap_or(u32::MAX);
        let _permit = self
            .0
            .in_flight
            .acquire_many(units)
            .await
            .map_err(|_| ProposeError::Shutdown)?;
        #[cfg(feature = "simulation")]
        simulated_wait(&self.0.clock).await;
        let written = tokio::time::timeout(PROPOSAL_WAIT, self.0.raft.client_write(proposal)).await;
        match written.map_err(|_| ProposeError::Unknown)? {
            Ok(written) => {
                let response = written
                    .data
                    .expect("a command is answered with its response");
                Ok(Applied {
                    index: written.log_id.index,
                    response,
                })
            }
            Err(OpenraftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                let leader = forward.leader_node.map(|peer| peer.address);
                Err(ProposeError::NotLeader { leader })
            }
            Err(OpenraftError::APIError(_) | OpenraftError::Fatal(_)) => Err(ProposeError::Unknown),
        }
    }

    /// Whether this node's disk has no room for what is large and new.
    pub fn disk_is_low(&self) -> bool {
        self.0.disk.is_low()
    }

    /// The latest applied state.
    pub fn state(&self) -> Arc<ClusterState> {
        self.0.published.state()
    }

    /// The log index of the latest applied state. Changes after [`Self::state`] did.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.0.published.applied()
    }

    /// Like [`Self::applied`], but changes only when what a leader plans from has: see [`ClusterState::plans_like`].
    pub(crate) fn planned(&self) -> watch::Receiver<u64> {
        self.0.published.planned()
    }

    /// The changes of keys that this member has applied lately.
    pub(crate) fn watches(&self) -> Arc<Watches> {
        self.0.published.watches()
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// Whether a quorum has confirmed this leader so recently that no other can have been elected. False on any other
    /// node. Raft leaders do not step down when they are cut off; this is how they notice.
    pub fn lease_is_valid(&self) -> bool {
        read_index::lease_is_valid(&self.0.raft, self.0.timing, &self.0.succession)
    }

    /// Whether this node leads beyond doubt: by its lease, or, if that is over, because a quorum says so. That may take as
    /// long as a quorum takes to answer.
    pub async fn certainly_leads(&self) -> bool {
        self.lease_is_valid() || read_index::confirmed(&self.0.raft).await.is_some()
    }

    /// The index from which on a state contains all that anybody was told before, asked of the leader (which may be this
    /// node); None if nobody leads beyond doubt. Waits for the leader, and for a quorum if its lease is over.
    pub async fn read_index(&self) -> Option<u64> {
        self.0.read_index().await
    }

    /// Whether this node's state contains all that any member may have told anybody, as far as this leader let them know.
    /// A follower can be faster at applying than its leader, and answer reads.
    pub fn has_applied_what_it_announced(&self) -> bool {
        *self.0.published.applied().borrow() >= self.0.network.announced_commit()
    }

    /// How old this node's state may be: since when it may lack something. None if it was never known to be up to date.
    pub fn staleness(&self) -> Option<Duration> {
        if self.lease_is_valid() {
            return Some(Duration::ZERO);
        }
        self.0.freshness.age()
    }

    /// Hands leadership to the most up-to-date voter and returns once it leads; does nothing on a node that does not
    /// lead. Proposals are refused meanwhile.
    pub async fn transfer_leadership(&self) -> Result<(), RaftError> {
        self.0.transfer_leadership().await
    }

    /// Hands leadership to that voter, or to the most up-to-date one; who leads then. Refused if it could not take over
    /// at once.
    pub async fn transfer_leadership_to(&self, to: Option<NodeId>) -> Result<NodeId, RaftError> {
        let _guard = self.0.changing.take("handing leadership over".to_owned())?;
        self.0.transfer_leadership_to(to).await
    }

    /// All members as seen from here; those that do not answer soon are unreachable. Empty before there is a cluster.
    pub async fn members(&self) -> Vec<MemberStatus> {
        self.0.members().await
    }

    /// How many more voters may fail before the group stops, given who answered.
    pub fn tolerated_failures(&self, members: &[MemberStatus]) -> usize {
        self.0.tolerated_failures(members)
    }

    /// The change of the group that is under way, in words. The leader knows all of it.
    pub fn pending_change(&self) -> Option<String> {
        self.0.pending_change()
    }

    /// Makes the fresh node at `address` a learner; its id, and whether it has a vote already. It begins to catch up
    /// then. Leader only, as all that follows; harmless to repeat.
    pub async fn add_learner(&self, address: String) -> Result<(NodeId, bool), RaftError> {
        self.0.add_learner(address).await
    }

    /// How far a member is.
    pub fn progress(&self, id: NodeId) -> Result<MemberProgress, RaftError> {
        self.0.progress(id)
    }

    /// Gives a learner a vote, once it has kept up for some seconds.
    pub async fn promote_member(&self, id: NodeId) -> Result<Changed, RaftError> {
        self.0.promote(id).await
    }

    /// Removes a member for good; its id must not be used again. If it is this node, hands over and returns
    /// [`RaftError::NotLeader`]: the successor has to be asked.
    pub async fn remove_member(&self, id: NodeId) -> Result<Changed, RaftError> {
        self.0.remove_member(id).await
    }

    /// Gives the learner `new` a vote and removes the voter `old`, which may be dead, in one joint change. If `old` is
    /// this node, as with [`Self::remove_member`].
    pub async fn replace_member(&self, old: NodeId, new: NodeId) -> Result<Changed, RaftError> {
        self.0.replace_member(old, new).await
    }

    /// Stops taking part and closes the data directory. Does not hand leadership over.
    pub async fn shutdown(&self) {
        let inner = &self.0;
        if inner.shutting_down.swap(true, Ordering::AcqRel) {
            return;
        }
        inner.in_flight.close();
        inner.bootstrap.close().await;
        if tokio::time::timeout(SHUTDOWN_WAIT, inner.raft.shutdown())
            .await
            .is_err()
        {
            error!("raft did not stop in time");
        }
        if let Err(failure) = inner.tasks.shutdown(SHUTDOWN_WAIT).await {
            error!(failure, "raft had failed");
        }
        let running = inner
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(running) = running else { return };
        let closing = flott_node::spawn_blocking(move || {
            running.threads.stop(SHUTDOWN_WAIT);
            running.writer.join();
        });
        if tokio::time::timeout(SHUTDOWN_WAIT * 2, closing)
            .await
            .is_err()
        {
            error!("the raft log did not close in time");
        }
        info!(node = inner.identity.node, "raft node stopped");
    }
}

/// In a simulation any proposal may have to wait as one does for room.
#[cfg(feature = "simulation")]
async fn simulated_wait(clock: &SharedClock) {
    let environment = flott_node::simulation::environment();
    let waits = environment.map_or(Duration::ZERO, |environment| environment.proposal_waits());
    if !waits.is_zero() {
        clock.sleep(waits).await;
    }
}
