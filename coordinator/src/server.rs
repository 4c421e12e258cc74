//! A JobManager process: what starts, in which order, and how it ends.
//!
//! Start: data directory and Raft → gRPC port → HTTP port → leader loop. End: a leader hands over first, then everything
//! stops at once; nothing needs to be saved, because nothing that matters is only in memory.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use flott_node::config::{Configuration, options};
use flott_node::health::{self, HttpPort, Probes};
use flott_node::tls::{Connection, Protocol, Role, TlsError};
use flott_node::{OnFailure, SharedClock, SystemClock, Tasks, Transport};
use flott_proto::ids::{ClusterId, NodeId};
use flott_proto::wire::cluster_admin_server::ClusterAdminServer;
use flott_proto::wire::job_manager_server::JobManagerServer;
use flott_proto::wire::key_value_server::KeyValueServer;
use flott_proto::wire::namespaces_server::NamespacesServer;
use flott_proto::wire::task_manager_gateway_server::TaskManagerGatewayServer;
use futures::Stream;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::{info, warn};

use crate::Error;
use crate::access::{Admission, Surface};
use crate::addressee::Addressee;
use crate::dispatcher::{Admin, Dispatcher};
use crate::kv::{KeyValueService, Proposer, Reads};
use crate::leader::{self, LeaderSettings};
use crate::raft::{RaftConfig, RaftNode};
use crate::task_managers::Gateway;

/// The longest message from a TaskManager: a registration with all its tasks and the acks that it holds.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// The longest message of a client of keys: many requests in one.
const KEY_VALUE_BYTES_MAX: usize = 16 << 20;

/// A leader that stops waits so long for another to take over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a JobManager until `process` is cancelled or a part that it cannot do without fails.
pub async fn run(configuration: Configuration, process: Tasks) -> Result<(), Error> {
    let clock = SystemClock::shared();
    let transport = Transport::from_configuration(&configuration, Role::JobManager)?;
    let host = configuration.get(&options::JOBMANAGER_RPC_ADDRESS)?;
    let port = configuration.get(&options::JOBMANAGER_RPC_PORT)?;
    let listen = |address: String| move |source| Error::Listen { address, source };
    let wanted = format!("{host}:{port}");
    let listener = TcpListener::bind(&wanted)
        .await
        .map_err(listen(wanted.clone()))?;
    let bound = listener.local_addr().map_err(listen(wanted))?;
    transport.check_own_host(&host, options::JOBMANAGER_RPC_ADDRESS.key())?;
    transport.check_listener(bound, options::JOBMANAGER_RPC_ADDRESS.key())?;
    let port = bound.port();
    let address = format!("{host}:{port}");

    // The parts outlive the order to stop for as long as handing over takes.
    let parts = Tasks::new(CancellationToken::new());
    let raft = start_raft(&configuration, &address, &transport, &clock, &parts).await?;
    check_own_name(&transport, &raft, &address)?;
    let reload = configuration.get(&options::SSL_RELOAD_INTERVAL)?;
    transport.watch(reload, &parts, &clock);
    let incoming = {
        let _on_raft = raft.enter_threads();
        transport.incoming(listener, Protocol::Http2, &parts, &clock)
    };
    let services = Services {
        raft: raft.clone(),
        configuration: configuration.clone(),
        transport: transport.clone(),
        clock: clock.clone(),
        parts: parts.clone(),
        address: address.clone(),
    };
    let (office_sender, office) = watch::channel(None);
    services.serve(&office, incoming)?;
    let http = serve_http(&configuration, &transport, &raft, &office, &parts, &clock).await?;
    info!(node = %raft.node_id(), address, %http, cluster = ?raft.cluster_id(), "JobManager is up");
    services.lead(office_sender)?;

    tokio::select! {
        () = process.cancellation().cancelled() => hand_over(&raft).await,
        () = parts.cancellation().cancelled() => {}
    }
    let ended = parts
        .shutdown(configuration.get(&options::SHUTDOWN_TIMEOUT)?)
        .await;
    raft.shutdown().await;
    info!("JobManager ended");
    ended.map_err(Error::Failed)
}

/// What a JobManager does once its Raft node runs.
pub(crate) struct Services {
    pub(crate) raft: RaftNode,
    pub(crate) configuration: Configuration,
    pub(crate) transport: Transport,
    pub(crate) clock: SharedClock,
    pub(crate) parts: Tasks,
    /// Where this JobManager is reached, host:port.
    pub(crate) address: String,
}

impl Services {
    /// Answers the other members, TaskManagers and clients.
    pub(crate) fn serve(
        &self,
        office: &watch::Receiver<Option<leader::Office>>,
        incoming: impl Stream<Item = io::Result<Connection>> + Send + Unpin + 'static,
    ) -> Result<(), Error> {
        let Self {
            raft,
            configuration,
            transport,
            clock,
            parts,
            address,
        } = self;

        let gateway = Gateway::new(
            raft.clone(),
            office.clone(),
            parts.clone(),
            Handle::current(),
            address.clone(),
        );
        let dispatcher = Arc::new(Dispatcher {
            raft: raft.clone(),
            office: office.clone(),
            clock: clock.clone(),
            transport: transport.clone(),
            configuration: configuration.clone(),
        });
        let admin = Admin {
            raft: raft.clone(),
            office: office.clone(),
            clock: clock.clone(),
            configuration: configuration.clone(),
        };
        let key_value = KeyValueService {
            raft: raft.clone(),
            proposer: Proposer::new(raft.clone(), office.clone(), clock.clone(), parts.clone()),
            reads: Reads::new(raft.clone(), office.clone(), clock.clone(), parts.clone()),
            watches: raft.watches(),
            clock: clock.clone(),
            tasks: parts.clone(),
        };
        let key_value =
            KeyValueServer::new(key_value).max_decoding_message_size(KEY_VALUE_BYTES_MAX);
        let tls = transport.is_tls();
        let server = Server::builder()
            .http2_keepalive_interval(Some(configuration.get(&options::HEARTBEAT_INTERVAL)?))
            .add_service(Admission::to(Surface::Raft, tls, raft.service()))
            .add_service(Admission::to(
                Surface::TaskManagers,
                tls,
                TaskManagerGatewayServer::new(gateway).max_decoding_message_size(MESSAGE_BYTES_MAX),
            ))
            .add_service(Admission::to(
                Surface::Clients,
                tls,
                Addressee::of(raft, JobManagerServer::from_arc(dispatcher.clone())),
            ))
            .add_service(Admission::to(
                Surface::Clients,
                tls,
                Addressee::of(raft, NamespacesServer::from_arc(dispatcher)),
            ))
            .add_service(Admission::to(
                Surface::Clients,
                tls,
                Addressee::of(raft, ClusterAdminServer::new(admin)),
            ))
            .add_service(Admission::to(
                Surface::Clients,
                tls,
                Addressee::of(raft, key_value),
            ));
        let stopped = parts.cancellation().clone();
        let _on_raft = raft.enter_threads();
        parts.spawn("gRPC server", OnFailure::Shutdown, async move {
            tokio::select! {
                served = server.serve_with_incoming(incoming) => served.map_err(|error| leader::chain(&error)),
                // Streams of TaskManagers never end by themselves: a graceful stop would wait for them.
                () = stopped.cancelled() => Ok(()),
            }
        });
        Ok(())
    }

    /// Leads whenever this member is elected, until the process ends.
    pub(crate) fn lead(&self, office: watch::Sender<Option<leader::Office>>) -> Result<(), Error> {
        let configuration = &self.configuration;
        let settings = LeaderSettings {
            heartbeat_interval: configuration.get(&options::HEARTBEAT_INTERVAL)?,
            heartbeat_timeout: configuration.get(&options::HEARTBEAT_TIMEOUT)?,
            reconnect_grace: configuration.get(&options::RECONNECT_GRACE)?,
            results_expire_after: configuration.get(&options::RESULTS_EXPIRE_AFTER)?.0,
            results_max: configuration.get(&options::RESULTS_MAX)?,
            address: self.address.clone(),
        };
        let leader = leader::run(
            self.raft.clone(),
            settings,
            office,
            self.clock.clone(),
            self.parts.clone(),
        );
        self.parts.spawn("leader", OnFailure::Shutdown, leader);
        Ok(())
    }
}

pub(crate) async fn start_raft(
    configuration: &Configuration,
    address: &str,
    transport: &Transport,
    clock: &SharedClock,
    parts: &Tasks,
) -> Result<RaftNode, Error> {
    let dir = configuration.get(&options::RAFT_DIR)?;
    let cluster = configuration.get(&options::CLUSTER_ID)?;
    let cluster_id = match cluster.as_str() {
        "" => None,
        text => Some(
            text.parse::<ClusterId>()
                .map_err(|error| Error::Failed(error.to_string()))?,
        ),
    };
    let node_id = configuration.get(&options::RAFT_NODE_ID)?;
    let config = RaftConfig {
        dir: dir.clone(),
        node_id: (node_id != 0).then_some(NodeId(node_id)),
        address: address.to_owned(),
        cluster_id,
        heartbeat_interval: configuration.get(&options::RAFT_HEARTBEAT_INTERVAL)?,
        election_timeout_min: configuration.get(&options::RAFT_ELECTION_TIMEOUT_MIN)?,
        election_timeout_max: configuration.get(&options::RAFT_ELECTION_TIMEOUT_MAX)?,
        snapshot_entries: configuration.get(&options::RAFT_SNAPSHOT_ENTRIES)?,
        snapshot_bytes: configuration.get(&options::RAFT_SNAPSHOT_BYTES)?.bytes(),
        disk_free_soft: configuration.get(&options::RAFT_DISK_FREE_SOFT)?.bytes(),
        disk_free_hard: configuration.get(&options::RAFT_DISK_FREE_HARD)?.bytes(),
        transport: transport.clone(),
    };
    RaftNode::start(config, clock.clone(), parts.clone())
        .await
        .map_err(|source| Error::Raft { dir, source })
}

/// Whether this node's own certificate is one that the other members will take for its.
fn check_own_name(transport: &Transport, raft: &RaftNode, address: &str) -> Result<(), Error> {
    let node = raft.node_id().0;
    match transport.identity() {
        Some(own) if !own.names_member(node, address) => {
            let (own, address) = (Box::new(own), address.to_owned());
            Err(TlsError::OtherMember { own, node, address }.into())
        }
        _ => Ok(()),
    }
}

async fn serve_http(
    configuration: &Configuration,
    transport: &Transport,
    raft: &RaftNode,
    office: &watch::Receiver<Option<leader::Office>>,
    parts: &Tasks,
    clock: &SharedClock,
) -> Result<std::net::SocketAddr, Error> {
    let port = HttpPort::from_configuration(configuration, transport)?;
    let (ready, office) = (raft.clone(), office.clone());
    let probes = Probes {
        ready: Arc::new(move || {
            match (
                ready.cluster_id(),
                ready.leadership().borrow().leader.is_some(),
            ) {
                (None, _) => Err("belongs to no cluster yet; run `flott cluster init`".to_owned()),
                (_, false) => Err("knows no leader".to_owned()),
                _ => Ok(()),
            }
        }),
        leader: Arc::new(move || office.borrow().is_some()),
    };
    let address = format!("{}:{}", port.bind, port.port);
    health::serve(&port, probes, parts, clock)
        .await
        .map_err(|source| Error::Listen { address, source })
}

/// A leader makes another one take over, so that a planned stop costs no election time-out.
async fn hand_over(raft: &RaftNode) {
    if !raft.leadership().borrow().is_leader {
        return;
    }
    match tokio::time::timeout(HAND_OVER_TIMEOUT, raft.transfer_leadership()).await {
        Ok(Ok(())) => info!("handed over leadership"),
        Ok(Err(error)) => warn!(
            error = leader::chain(&error),
            "could not hand over leadership"
        ),
        Err(_) => warn!("nobody took over leadership in time"),
    }
}
