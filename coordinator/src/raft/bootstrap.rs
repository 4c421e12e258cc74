//! How a node without a cluster becomes a member of one.
//!
//! ```text
//!   pristine ──Adopt──▶ adopted (has a cluster id, no Raft state) ──first entry or vote──▶ member
//! ```
//!
//! `cluster init` runs once, on one node: it asks everybody who they are, gives everybody the new cluster id, and only
//! then writes the first membership. If it is interrupted before that, the same node can run it again; another node
//! cannot, because it could not know which of two half-made clusters is to be completed. Nothing ever forms a cluster
//! by itself: two halves that each think they are the cluster cannot be joined again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flott_proto::ids::ClusterId;
use flott_proto::wire;
use futures::future::try_join_all;
use openraft::errors::{InitializeError, RaftError as OpenraftError};
use tokio::sync::Mutex;
use tracing::info;
use uuid::Uuid;

use super::error::RaftError;
use super::identity::LocalIdentity;
use super::log_store::MarkerWriter;
use super::network::{Lane, Network};
use super::node::Raft;
use super::types::Peer;
use crate::core::FeatureLevels;

/// For a node to introduce itself or to write its cluster id.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// This node's way into a cluster.
pub(crate) struct Bootstrap {
    raft: Raft,
    identity: Arc<LocalIdentity>,
    features: FeatureLevels,
    network: Arc<Network>,
    state: Mutex<State>,
    /// Held by a running `initialize`.
    initializing: Mutex<()>,
}

struct State {
    marker: wire::RaftStorageMarker,
    /// None once the node is shut down.
    writer: Option<MarkerWriter>,
}

/// A node that answered, and at which address.
type Introduced = (String, wire::RaftIntroduceResponse);

impl Bootstrap {
    pub(crate) fn new(
        raft: Raft,
        identity: Arc<LocalIdentity>,
        features: FeatureLevels,
        network: Arc<Network>,
        marker: wire::RaftStorageMarker,
        writer: MarkerWriter,
    ) -> Self {
        let state = Mutex::new(State {
            marker,
            writer: Some(writer),
        });
        Self {
            raft,
            identity,
            features,
            network,
            state,
            initializing: Mutex::default(),
        }
    }

    /// Lets go of the log.
    pub(crate) async fn close(&self) {
        self.state.lock().await.writer = None;
    }

    /// Who this node is.
    pub(crate) async fn introduction(&self) -> Result<wire::RaftIntroduceResponse, RaftError> {
        let initialized = self
            .raft
            .is_initialized()
            .await
            .map_err(|error| RaftError::Fatal(error.to_string()))?;
        let state = self.state.lock().await;
        let configured = self.identity.configured_cluster.as_ref();
        Ok(wire::RaftIntroduceResponse {
            node: self.identity.node,
            incarnation: self.identity.incarnation.clone(),
            address: self.identity.address.clone(),
            cluster_id: state.marker.cluster_id.clone(),
            configured_cluster_id: configured.map(ToString::to_string).unwrap_or_default(),
            initialized,
            adopted_by: state.marker.adopted_by,
            feature_level_min: self.features.min,
            feature_level_max: self.features.max,
        })
    }

    /// This node has no group any more, as `note` writes down: it will not start in this directory again.
    pub(crate) async fn remember(
        &self,
        note: impl FnOnce(&mut wire::RaftStorageMarker),
    ) -> std::io::Result<()> {
        let mut state = self.state.lock().await;
        let Some(writer) = state.writer.as_ref() else {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        };
        let mut marker = state.marker.clone();
        note(&mut marker);
        writer.write(&marker).await?;
        state.marker = marker;
        Ok(())
    }

    /// Becomes part of a cluster, for good; on disk when it returns. The error says why not.
    pub(crate) async fn adopt(&self, request: wire::RaftAdoptRequest) -> Result<(), String> {
        if request.to_node != self.identity.node
            || request.to_incarnation != self.identity.incarnation
        {
            return Err(format!(
                "is node {} ({})",
                self.identity.node, self.identity.incarnation
            ));
        }
        let cluster: ClusterId = request
            .cluster_id
            .parse()
            .map_err(|error| format!("{error}"))?;
        if let Some(configured) = &self.identity.configured_cluster
            && *configured != cluster
        {
            return Err(format!("is configured for cluster {configured}"));
        }
        let mut state = self.state.lock().await;
        if state.marker.cluster_id == cluster.as_str() {
            return Ok(());
        }
        if !state.marker.cluster_id.is_empty() {
            return Err(format!(
                "already belongs to cluster {}",
                state.marker.cluster_id
            ));
        }
        let mut marker = state.marker.clone();
        marker.cluster_id = cluster.to_string();
        marker.adopted_by = request.from_node;
        let writer = state.writer.as_ref().ok_or("is shutting down")?;
        writer
            .write(&marker)
            .await
            .map_err(|error| format!("cannot write its log: {error}"))?;
        state.marker = marker;
        info!(cluster_id = %cluster, node = self.identity.node, "joined a raft cluster");
        self.identity.on_adopted(cluster);
        Ok(())
    }

    /// Forms a cluster of the nodes at `addresses`, of which this one must be one.
    pub(crate) async fn initialize(&self, addresses: Vec<String>) -> Result<ClusterId, RaftError> {
        let _running = self.initializing.lock().await;
        let addresses: BTreeSet<String> = addresses.into_iter().collect();
        let nodes = try_join_all(addresses.into_iter().map(|address| self.meet(address))).await?;
        let cluster = self.choose_cluster(&nodes)?;
        // This node first: what it remembers lets an interrupted run be repeated.
        let (own, others): (Vec<_>, Vec<_>) = nodes
            .iter()
            .partition(|(_, node)| node.node == self.identity.node);
        for (address, node) in own.into_iter().chain(others) {
            self.bring_in(address, node, &cluster).await?;
        }
        let members: BTreeMap<u64, Peer> = nodes.iter().map(to_member).collect();
        match self.raft.initialize(members).await {
            Ok(()) => {}
            Err(OpenraftError::APIError(InitializeError::NotAllowed(_))) => {
                let (address, cluster_id) = (self.identity.address.clone(), cluster.to_string());
                return Err(RaftError::NotPristine {
                    address,
                    cluster_id,
                });
            }
            Err(OpenraftError::APIError(error)) => {
                return Err(RaftError::Configuration(error.to_string()));
            }
            Err(OpenraftError::Fatal(fatal)) => return Err(RaftError::Fatal(fatal.to_string())),
        }
        info!(cluster_id = %cluster, members = nodes.len(), "raft cluster formed");
        Ok(cluster)
    }

    /// Asks the node at `address` who it is.
    pub(crate) async fn meet(&self, address: String) -> Result<Introduced, RaftError> {
        let mut client = self.network.client(&address, Lane::Control)?;
        let answer =
            tokio::time::timeout(ANSWER_WAIT, client.introduce(wire::RaftIntroduceRequest {}))
                .await;
        let answer =
            answer.map_err(|_| RaftError::peer(&address, "does not answer; start it first"))?;
        let answer = answer.map_err(|status| {
            RaftError::peer(
                &address,
                format!("cannot be reached: {}; start it first", status.message()),
            )
        })?;
        Ok((address, answer.into_inner()))
    }

    /// Gives the node the cluster id, unless it has it.
    pub(crate) async fn bring_in(
        &self,
        address: &str,
        node: &wire::RaftIntroduceResponse,
        cluster: &ClusterId,
    ) -> Result<(), RaftError> {
        let request = wire::RaftAdoptRequest {
            cluster_id: cluster.to_string(),
            to_node: node.node,
            to_incarnation: node.incarnation.clone(),
            from_node: self.identity.node,
        };
        let mut client = self.network.client(address, Lane::Control)?;
        let answer = tokio::time::timeout(ANSWER_WAIT, client.adopt(request)).await;
        let answer = answer.map_err(|_| RaftError::peer(address, "does not answer; try again"))?;
        let answer = answer
            .map_err(|status| {
                RaftError::peer(address, format!("failed: {}; try again", status.message()))
            })?
            .into_inner();
        if answer.refusal.is_empty() {
            Ok(())
        } else {
            Err(RaftError::peer(address, answer.refusal))
        }
    }

    /// The id of the cluster that these nodes may form, if they may.
    fn choose_cluster(&self, nodes: &[Introduced]) -> Result<ClusterId, RaftError> {
        let own = self.identity.node;
        let mut seen = BTreeMap::new();
        let mut chosen = BTreeSet::new();
        for (address, node) in nodes {
            if let Some(other) = seen.insert(node.node, address) {
                let what = format!("{other} and {address} are the same node {}", node.node);
                return Err(RaftError::Configuration(what));
            }
            let left_over = node.adopted_by == own && !node.initialized;
            if node.initialized || (!node.cluster_id.is_empty() && !left_over) {
                let (address, cluster_id) = (address.clone(), node.cluster_id.clone());
                return Err(RaftError::NotPristine {
                    address,
                    cluster_id,
                });
            }
            let ids = [&node.cluster_id, &node.configured_cluster_id]
                .into_iter()
                .filter(|id| !id.is_empty());
            chosen.extend(ids.cloned());
        }
        if !seen.contains_key(&own) {
            let what = format!(
                "the members must include this node, {}",
                self.identity.address
            );
            return Err(RaftError::Configuration(what));
        }
        if chosen.len() > 1 {
            return Err(RaftError::Configuration(format!(
                "the members name different clusters: {chosen:?}"
            )));
        }
        let id = chosen
            .pop_first()
            .unwrap_or_else(|| Uuid::now_v7().to_string());
        id.parse()
            .map_err(|error: flott_proto::Malformed| RaftError::Configuration(error.to_string()))
    }
}

/// As the membership describes the node. The address is the one that was just seen to work.
pub(crate) fn to_member((address, node): &Introduced) -> (u64, Peer) {
    (
        node.node,
        Peer {
            address: address.clone(),
            incarnation: node.incarnation.clone(),
        },
    )
}
