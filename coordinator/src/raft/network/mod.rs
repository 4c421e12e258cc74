//! Calls to the other members.
//!
//! ```text
//!   control    heartbeats, votes, leader transfer   one call each, deadline of openraft
//!   log        entries                              one stream, many requests in flight, progress watched
//!   snapshot   snapshots                            one stream of chunks, idle and total deadline
//! ```
//!
//! Each row is a connection of its own to each member, so that neither a large batch nor a snapshot can delay a
//! heartbeat. Connections are made when first used, kept over elections, and closed by keep-alive when the other side
//! is silent.
//!
//! - [`client`]: one member, as openraft calls it. [`append_stream`]: the stream of entries.
//!   [`snapshot_sender`]: the stream of chunks.

mod append_order;
mod append_stream;
mod client;
mod snapshot_sender;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flott_node::tls::Whom;
use flott_node::{SharedClock, Transport};
use flott_proto::wire::raft_service_client::RaftServiceClient;
use openraft::RaftNetworkFactory;
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};

pub(crate) use self::client::MemberClient;
use super::error::RaftError;
use super::identity::LocalIdentity;
use super::types::{LogId, Peer, TypeConfig};

/// The largest message on any connection: a full read of the log plus one entry of the largest size, with room.
pub(crate) const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Flow control windows, so that one round trip does not limit the throughput of the log or of a snapshot.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// The waits of this node's connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkTiming {
    /// For a connection to be made, with TLS where there is TLS.
    pub(crate) connect: Duration,
    /// Silence after which a connection is probed.
    pub(crate) keep_alive_interval: Duration,
    /// Silence after the probe, upon which it is closed.
    pub(crate) keep_alive_timeout: Duration,
    /// For the answer to the oldest unanswered append: the follower's disk included.
    pub(crate) append_progress: Duration,
    /// By so much a lease may seem renewed too late: see [`append_order`].
    pub(crate) answer_tolerance: Duration,
    /// For a follower to take the next chunk of a snapshot.
    pub(crate) snapshot_idle: Duration,
    /// For a follower to check and install a snapshot that it has received.
    pub(crate) snapshot_install: Duration,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Control,
    Log,
    Snapshot,
}

/// The connections to one address.
#[derive(Clone, Debug)]
struct Connections {
    control: Channel,
    log: Channel,
    snapshot: Channel,
}

/// All connections of this node, by address.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) identity: Arc<LocalIdentity>,
    pub(crate) timing: NetworkTiming,
    pub(crate) clock: SharedClock,
    transport: Transport,
    /// Whoever asks for a connection, it lives on Raft's threads.
    threads: Handle,
    connections: Mutex<BTreeMap<String, Connections>>,
    /// The highest committed index that any request of this node has named; see [`Self::announced_commit`].
    announced_commit: AtomicU64,
}

impl Network {
    pub(crate) fn new(
        identity: Arc<LocalIdentity>,
        timing: NetworkTiming,
        clock: SharedClock,
        transport: Transport,
        threads: Handle,
    ) -> Self {
        Self {
            identity,
            timing,
            clock,
            transport,
            threads,
            connections: Mutex::default(),
            announced_commit: AtomicU64::new(0),
        }
    }

    /// Up to where the others may have applied the log because this node told them that it is committed. Noted before the
    /// request leaves, so nobody can be ahead of it.
    pub(crate) fn announced_commit(&self) -> u64 {
        self.announced_commit.load(Ordering::Acquire)
    }

    fn announce(&self, commit: Option<&LogId>) {
        let commit = commit.map_or(0, |id| id.index);
        self.announced_commit.fetch_max(commit, Ordering::AcqRel);
    }

    /// A client to `address`, which connects when it is first used.
    pub(crate) fn client(
        &self,
        address: &str,
        lane: Lane,
    ) -> Result<RaftServiceClient<Channel>, RaftError> {
        let mut all = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let connections = match all.get(address) {
            Some(connections) => connections.clone(),
            None => {
                let made = self.connect(address)?;
                all.insert(address.to_owned(), made.clone());
                made
            }
        };
        let channel = match lane {
            Lane::Control => connections.control,
            Lane::Log => connections.log,
            Lane::Snapshot => connections.snapshot,
        };
        let client = RaftServiceClient::new(channel);
        Ok(client
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn connect(&self, address: &str) -> Result<Connections, RaftError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| RaftError::peer(address, format!("has no valid address: {error}")))?
            .connect_timeout(self.timing.connect)
            .http2_keep_alive_interval(self.timing.keep_alive_interval)
            .keep_alive_timeout(self.timing.keep_alive_timeout)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let _on_its_threads = self.threads.enter();
        let connect =
            || endpoint.connect_with_connector_lazy(self.transport.connector(Whom::Member));
        Ok(Connections {
            control: connect(),
            log: connect(),
            snapshot: connect(),
        })
    }
}

/// How openraft gets its clients.
#[derive(Clone, Debug)]
pub(crate) struct NetworkFactory(pub(crate) Arc<Network>);

impl NetworkFactory {
    fn member(&self, target: u64, peer: &Peer, lane: Lane) -> MemberClient {
        MemberClient::new(Arc::clone(&self.0), target, peer.clone(), lane)
    }
}

impl RaftNetworkFactory<TypeConfig> for NetworkFactory {
    type Network = MemberClient;

    async fn new_client(&mut self, target: u64, node: &Peer) -> MemberClient {
        self.member(target, node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Peer) -> MemberClient {
        self.member(target, node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Peer) -> MemberClient {
        self.member(target, node, Lane::Snapshot)
    }
}
